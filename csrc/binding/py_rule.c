/* py_rule.c - one generic type for all rules and stages, driven by their field tables, and the schedules.
 *
 * Nothing here knows any rule: a new one is a row in GL_RULES.  Errors are in call form, `Rule("glyder", sigma=...)
 * must be in (0, inf), got -1.0`.
 */
#include "py_args.h"
#include "../rules/rule.h"
#include "../rules/schedule.h"

/* ---------------------------------------------------------------- fields */

/* What is being called, for messages: "Rule(\"glyder\", " up to the arguments. */
struct call {
    const char *format; /* with one %s for the name */
    const char *name;
};

static int find_field(const struct gl_field *fields, int count, PyObject *key) {
    for (int i = 0; i < count; i++) {
        if (PyUnicode_Check(key) && PyUnicode_CompareWithASCIIString(key, fields[i].name) == 0) {
            return i;
        }
    }
    return -1;
}

/* Sets exception "<call><key>=...) <rest>"; steals nothing; returns -1. */
static int refuse(const struct call *call, PyObject *exception, PyObject *key, PyObject *rest) {
    PyObject *head = PyUnicode_FromFormat(call->format, call->name);
    if (head && rest) {
        PyErr_Format(exception, "%U%S=...) %U", head, key, rest);
    }
    Py_XDECREF(head);
    return -1;
}

static int refuse_unknown(const struct call *call, PyObject *key, const struct gl_field *fields, int count) {
    PyObject *rest = PyUnicode_FromString(count > 0 ? "is unknown; known:" : "is unknown; there are none");
    for (int i = 0; rest && i < count; i++) {
        PyObject *longer = PyUnicode_FromFormat("%U %s", rest, fields[i].name);
        Py_DECREF(rest);
        rest = longer;
    }
    refuse(call, PyExc_TypeError, key, rest);
    Py_XDECREF(rest);
    return -1;
}

static int refuse_value(const struct call *call, const struct gl_field *field, PyObject *key, double value) {
    PyObject *lower = PyFloat_FromDouble(field->lower), *upper = PyFloat_FromDouble(field->upper);
    PyObject *got = PyFloat_FromDouble(value), *rest = NULL;
    if (lower && upper && got) {
        rest = PyUnicode_FromFormat("must be in %c%R, %R%c, got %R", field->bound & GL_OPEN_LOWER ? '(' : '[', lower,
                                    upper, field->bound & GL_OPEN_UPPER ? ')' : ']', got);
    }
    refuse(call, PyExc_ValueError, key, rest);
    Py_XDECREF(lower);
    Py_XDECREF(upper);
    Py_XDECREF(got);
    Py_XDECREF(rest);
    return -1;
}

/* Overwrites values[] by those in `dict`; every key must be a field and every number within its bounds. */
static int read_fields(const struct call *call, PyObject *dict, const struct gl_field *fields, int count,
                       double *values) {
    PyObject *key = NULL, *value = NULL;
    Py_ssize_t position = 0;
    while (dict && PyDict_Next(dict, &position, &key, &value)) {
        int i = find_field(fields, count, key);
        if (i < 0) {
            return refuse_unknown(call, key, fields, count);
        }
        values[i] = PyFloat_AsDouble(value);
        if (PyErr_Occurred()) {
            return -1;
        }
        if (!gl_field_accepts(&fields[i], values[i])) {
            return refuse_value(call, &fields[i], key, values[i]);
        }
    }
    return 0;
}

static PyObject *dict_of(const struct gl_field *fields, int count, const double *values) {
    PyObject *dict = PyDict_New();
    for (int i = 0; dict && i < count; i++) {
        PyObject *value = PyFloat_FromDouble(values[i]);
        if (!value || PyDict_SetItemString(dict, fields[i].name, value) < 0) {
            Py_CLEAR(dict);
        }
        Py_XDECREF(value);
    }
    return dict;
}

/* Adds a name to a list that may already have failed; drops the list on failure. */
static void add_name(PyObject **list, const char *name) {
    PyObject *text = *list ? PyUnicode_FromString(name) : NULL;
    if (*list && (!text || PyList_Append(*list, text) < 0)) {
        Py_CLEAR(*list);
    }
    Py_XDECREF(text);
}

static PyObject *tuple_from(PyObject *list) {
    PyObject *tuple = list ? PyList_AsTuple(list) : NULL;
    Py_XDECREF(list);
    return tuple;
}

/* ---------------------------------------------------------------- Rule */

struct rule_object {
    PyObject_HEAD const struct gl_rule *rule;
    double config[GL_FIELDS_MAX], state[GL_FIELDS_MAX];
};

static void rule_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_Free(object);
    Py_DECREF(type);
}

/* A field that was not given and whose default is out of bounds has no default. */
static int check_config(const struct call *call, const struct rule_object *self) {
    const struct gl_rule *rule = self->rule;
    for (int i = 0; i < rule->configs; i++) {
        if (!gl_field_accepts(&rule->config[i], self->config[i])) {
            PyErr_Format(PyExc_TypeError, "Rule(\"%s\", %s=...) is missing", rule->name, rule->config[i].name);
            return -1;
        }
    }
    const char *fault = rule->check ? rule->check(self->config) : NULL;
    if (fault) {
        PyErr_Format(PyExc_ValueError, "Rule(\"%s\"): %s", call->name, fault);
        return -1;
    }
    return 0;
}

static PyObject *rule_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    const char *name = NULL;
    if (!PyArg_ParseTuple(args, "s:Rule", &name)) {
        return NULL;
    }
    const struct gl_rule *rule = gl_rule_find(name);
    if (!rule) {
        PyErr_Format(PyExc_ValueError, "Rule(\"%s\"): there is no such rule; rules() names them", name);
        return NULL;
    }
    struct rule_object *self = (struct rule_object *)PyType_GenericAlloc(type, 0);
    if (!self) {
        return NULL;
    }
    const struct call call = {"Rule(\"%s\", ", rule->name};
    self->rule = rule;
    gl_rule_config_init(rule, self->config);
    gl_rule_state_init(rule, self->state);
    if (read_fields(&call, keywords, rule->config, rule->configs, self->config) < 0 || check_config(&call, self) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

PyDoc_STRVAR(load_doc,
             "load($self, state, /)\n--\n\nPut back a state that `state` gave; all fields, or nothing changes.");

static PyObject *rule_load(PyObject *object, PyObject *state) {
    struct rule_object *self = (struct rule_object *)object;
    const struct gl_rule *rule = self->rule;
    const struct call call = {"Rule(\"%s\").load(", rule->name};
    double values[GL_FIELDS_MAX];
    int failed;
    PyObject *dict = PyDict_New();
    if (!dict || PyDict_Update(dict, state) < 0) {
        Py_XDECREF(dict);
        return NULL;
    }
    failed = read_fields(&call, dict, rule->state, rule->states, values);
    for (int i = 0; !failed && PyDict_Size(dict) != rule->states && i < rule->states; i++) {
        PyObject *value = PyDict_GetItemString(dict, rule->state[i].name);
        if (!value) {
            PyErr_Format(PyExc_ValueError, "Rule(\"%s\").load(%s=...) is missing", rule->name, rule->state[i].name);
            failed = -1;
        }
    }
    Py_DECREF(dict);
    if (failed) {
        return NULL;
    }
    GLPY_LOCK(object);
    for (int i = 0; i < rule->states; i++) {
        self->state[i] = values[i];
    }
    GLPY_UNLOCK();
    Py_RETURN_NONE;
}

static int read_statistics(const struct gl_rule *rule, PyObject *keywords, struct gl_stats *stats) {
    PyObject *key = NULL, *value = NULL;
    Py_ssize_t position = 0;
    while (keywords && PyDict_Next(keywords, &position, &key, &value)) {
        const char *name = PyUnicode_AsUTF8AndSize(key, NULL);
        double number = name ? PyFloat_AsDouble(value) : 0;
        if (PyErr_Occurred()) {
            return -1;
        }
        if (gl_stats_set(stats, gl_stat_find(name), number) < 0) {
            PyErr_Format(PyExc_TypeError, "Rule(\"%s\").update(%U=...) is no statistic; statistics() names them",
                         rule->name, key);
            return -1;
        }
    }
    for (int i = 0; i < GL_STAT_COUNT; i++) {
        if (rule->needs >> i & ~(stats->have >> i) & 1) {
            PyErr_Format(PyExc_ValueError, "Rule(\"%s\").update(%s=...) is missing", rule->name, gl_stat_name(i));
            return -1;
        }
    }
    return 0;
}

PyDoc_STRVAR(update_doc,
             "update($self, /, **statistics)\n--\n\n(rate, action, reason); action is 'keep', 'retry' or 'skip'.");

static PyObject *rule_update(PyObject *object, PyObject *args, PyObject *keywords) {
    struct rule_object *self = (struct rule_object *)object;
    struct gl_stats stats = {.have = 0};
    struct gl_verdict verdict;
    enum gl_status status;
    if (!PyArg_ParseTuple(args, ":update") || read_statistics(self->rule, keywords, &stats) < 0) {
        return NULL;
    }
    GLPY_LOCK(object);
    status = gl_rule_update(self->rule, self->config, &stats, self->state, &verdict);
    GLPY_UNLOCK();
    if (glpy_check(status, "Rule.update") < 0) {
        return NULL;
    }
    return Py_BuildValue("(dss)", verdict.lr, gl_action_name(verdict.action), gl_reason_name(verdict.reason));
}

static PyObject *get_name(PyObject *object, void *Py_UNUSED(closure)) {
    struct rule_object *self = (struct rule_object *)object;
    return PyUnicode_FromString(self->rule->name);
}

static PyObject *get_about(PyObject *object, void *Py_UNUSED(closure)) {
    struct rule_object *self = (struct rule_object *)object;
    return PyUnicode_FromString(self->rule->about);
}

static PyObject *get_needs(PyObject *object, void *Py_UNUSED(closure)) {
    struct rule_object *self = (struct rule_object *)object;
    PyObject *list = PyList_New(0);
    for (int i = 0; i < GL_STAT_COUNT; i++) {
        if (self->rule->needs >> i & 1) {
            add_name(&list, gl_stat_name(i));
        }
    }
    return tuple_from(list);
}

static PyObject *get_config(PyObject *object, void *Py_UNUSED(closure)) {
    struct rule_object *self = (struct rule_object *)object;
    return dict_of(self->rule->config, self->rule->configs, self->config);
}

static PyObject *get_state(PyObject *object, void *Py_UNUSED(closure)) {
    struct rule_object *self = (struct rule_object *)object;
    double values[GL_FIELDS_MAX];
    GLPY_LOCK(object);
    for (int i = 0; i < self->rule->states; i++) {
        values[i] = self->state[i];
    }
    GLPY_UNLOCK();
    return dict_of(self->rule->state, self->rule->states, values);
}

static PyObject *rule_repr(PyObject *object) {
    struct rule_object *self = (struct rule_object *)object;
    return PyUnicode_FromFormat("<glyder._core.Rule \"%s\">", self->rule->name);
}

/* The detour by void (*)(void) keeps compilers quiet about the three-argument form of a method. */
#define WITH_KEYWORDS(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef rule_methods[] = {{"load", rule_load, METH_O, load_doc},
                                     {"update", WITH_KEYWORDS(rule_update), METH_VARARGS | METH_KEYWORDS, update_doc},
                                     {NULL, NULL, 0, NULL}};

static PyGetSetDef rule_attributes[] = {{"name", get_name, NULL, "Name of the rule.", NULL},
                                        {"about", get_about, NULL, "What the rule does, in a sentence.", NULL},
                                        {"needs", get_needs, NULL, "Statistics that update must be given.", NULL},
                                        {"config", get_config, NULL, "Configuration, complete.", NULL},
                                        {"state", get_state, NULL, "State: what load takes.", NULL},
                                        {NULL, NULL, NULL, NULL, NULL}};

PyDoc_STRVAR(rule_doc, "Rule(name, /, **config)\n--\n\n"
                       "A rule or stage: configuration, state, and a pure update of scalars.");

static PyType_Slot rule_slots[] = {{Py_tp_doc, (void *)rule_doc},
                                   {Py_tp_new, rule_new},
                                   {Py_tp_dealloc, rule_dealloc},
                                   {Py_tp_repr, rule_repr},
                                   {Py_tp_methods, rule_methods},
                                   {Py_tp_getset, rule_attributes},
                                   {0, NULL}};

PyType_Spec glpy_rule_spec = {
    .name = "glyder._core.Rule",
    .basicsize = sizeof(struct rule_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = rule_slots,
};

/* ---------------------------------------------------------------- names */

static PyObject *rules(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    PyObject *list = PyList_New(0);
    for (int i = 0; i < gl_rule_count(); i++) {
        add_name(&list, gl_rule_at(i)->name);
    }
    return tuple_from(list);
}

static PyObject *schedules(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    PyObject *list = PyList_New(0);
    for (int i = 0; i < gl_schedule_count(); i++) {
        add_name(&list, gl_schedule_at(i)->name);
    }
    return tuple_from(list);
}

static PyObject *meanings(const char *(*name)(int), const char *(*meaning)(int), int count) {
    PyObject *dict = PyDict_New();
    for (int i = 0; dict && i < count; i++) {
        PyObject *text = PyUnicode_FromString(meaning(i));
        if (!text || PyDict_SetItemString(dict, name(i), text) < 0) {
            Py_CLEAR(dict);
        }
        Py_XDECREF(text);
    }
    return dict;
}

static PyObject *statistics(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    return meanings(gl_stat_name, gl_stat_meaning, GL_STAT_COUNT);
}

static PyObject *reasons(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    return meanings(gl_reason_name, gl_reason_meaning, GL_REASON_COUNT);
}

/* ---------------------------------------------------------------- schedule */

/* A whole number from 0 on, taken out of `dict` if it is there and not None. */
static int take_count(PyObject *dict, const char *name, int64_t *out) {
    PyObject *value = PyDict_GetItemString(dict, name);
    if (value && value != Py_None) {
        *out = PyLong_AsLongLong(value);
        if (PyErr_Occurred()) {
            return -1;
        }
        if (*out < 0) {
            PyErr_Format(PyExc_ValueError, "schedule(%s=...) must be >= 0, got %lld", name, (long long)*out);
            return -1;
        }
    }
    return value ? PyDict_DelItemString(dict, name) : 0;
}

static int check_schedule(const struct gl_schedule *schedule, const char *name, long long t, int64_t total) {
    if (!schedule) {
        PyErr_Format(PyExc_ValueError, "schedule(\"%s\"): there is no such schedule; schedules() names them", name);
        return -1;
    }
    if (t < 0) {
        PyErr_Format(PyExc_ValueError, "schedule(t=...) must be >= 0, got %lld", t);
        return -1;
    }
    if (schedule->needs_total && total == GL_NO_TOTAL) {
        PyErr_Format(PyExc_ValueError, "schedule(\"%s\", total=...) is missing", name);
        return -1;
    }
    return 0;
}

PyDoc_STRVAR(schedule_doc, "schedule(name, t, /, *, total=None, warmup=0, **parameters)\n--\n\n"
                           "Factor of update t (0-based), in [0, 1].");

static PyObject *schedule(PyObject *Py_UNUSED(module), PyObject *args, PyObject *keywords) {
    const char *name = NULL;
    long long t = 0;
    int64_t total = GL_NO_TOTAL, warmup = 0;
    double config[GL_FIELDS_MAX], factor = 0;
    PyObject *rest = NULL, *result = NULL;
    if (!PyArg_ParseTuple(args, "sL:schedule", &name, &t)) {
        return NULL;
    }
    const struct gl_schedule *found = gl_schedule_find(name);
    const struct call call = {"schedule(\"%s\", ", name};
    rest = keywords ? PyDict_Copy(keywords) : PyDict_New();
    if (!rest || take_count(rest, "total", &total) < 0 || take_count(rest, "warmup", &warmup) < 0 ||
        check_schedule(found, name, t, total) < 0) {
        goto done;
    }
    for (int i = 0; i < found->configs; i++) {
        config[i] = found->config[i].initial;
    }
    if (read_fields(&call, rest, found->config, found->configs, config) == 0 &&
        glpy_check(gl_schedule_factor(found, t, total, warmup, config, &factor), "schedule") == 0) {
        result = PyFloat_FromDouble(factor);
    }
done:
    Py_XDECREF(rest);
    return result;
}

PyMethodDef glpy_rule_methods[] = {
    {"rules", rules, METH_NOARGS, PyDoc_STR("rules()\n--\n\nNames of all rules and stages.")},
    {"statistics", statistics, METH_NOARGS, PyDoc_STR("statistics()\n--\n\nWhat rules look at: name and meaning.")},
    {"reasons", reasons, METH_NOARGS, PyDoc_STR("reasons()\n--\n\nWhy a rate is what it is: name and meaning.")},
    {"schedules", schedules, METH_NOARGS, PyDoc_STR("schedules()\n--\n\nNames of all schedules.")},
    {"schedule", WITH_KEYWORDS(schedule), METH_VARARGS | METH_KEYWORDS, schedule_doc},
    {NULL, NULL, 0, NULL}};
