/* py_rule.c - one generic type for all rules and stages, driven by their tables.
 *
 * Nothing here knows any rule: a new one is a row in GL_RULES.
 */
#include "py_fields.h"
#include <string.h>

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
static int check_config(const struct glpy_call *call, const struct rule_object *self) {
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
    const struct glpy_call call = {"Rule(\"%s\", ", rule->name};
    uint32_t seen = 0;
    self->rule = rule;
    gl_rule_config_init(rule, self->config);
    gl_rule_state_init(rule, self->state);
    if (glpy_read_fields(&call, keywords, rule->config, rule->configs, self->config, &seen) < 0 ||
        check_config(&call, self) < 0) {
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
    const struct glpy_call call = {"Rule(\"%s\").load(", rule->name};
    double values[GL_FIELDS_MAX];
    uint32_t seen = 0;
    int failed;
    PyObject *dict = PyDict_New();
    if (!dict || PyDict_Update(dict, state) < 0) {
        Py_XDECREF(dict);
        return NULL;
    }
    failed = glpy_read_fields(&call, dict, rule->state, rule->states, values, &seen);
    for (int i = 0; !failed && i < rule->states; i++) {
        if (!(seen >> i & 1)) {
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

/* Place of a statistic among the inputs of the rule, or -1. */
static int find_input(const struct gl_rule *rule, int stat) {
    for (int i = 0; i < rule->inputs; i++) {
        if ((int)rule->input[i] == stat) {
            return i;
        }
    }
    return -1;
}

/* One statistic; those that the rule does not look at have to exist and to be numbers, too. */
static int read_statistic(const struct gl_rule *rule, PyObject *key, PyObject *value, double *inputs, uint32_t *seen) {
    const struct glpy_call call = {"Rule(\"%s\").update(", rule->name};
    Py_ssize_t length = 0;
    double number = 0;
    const char *name = PyUnicode_AsUTF8AndSize(key, &length);
    if (!name || glpy_read_number(&call, key, value, &number) < 0) {
        return -1;
    }
    /* C's names end at the first zero, Python's need not. */
    int stat = strlen(name) == (size_t)length ? gl_stat_find(name) : -1;
    if (stat < 0) {
        PyErr_Format(PyExc_TypeError, "Rule(\"%s\").update(%U=...) is no statistic; statistics() names them",
                     rule->name, key);
        return -1;
    }
    int i = find_input(rule, stat);
    if (i >= 0) {
        inputs[i] = number;
        *seen |= (uint32_t)1 << i;
    }
    return 0;
}

static int read_inputs(const struct gl_rule *rule, PyObject *keywords, double *inputs) {
    PyObject *entries = glpy_entries_of(keywords);
    int failed = entries ? 0 : -1;
    uint32_t seen = 0;
    for (Py_ssize_t i = 0; !failed && i < PyTuple_Size(entries); i++) {
        PyObject *entry = PyTuple_GetItem(entries, i);
        failed = read_statistic(rule, PyTuple_GetItem(entry, 0), PyTuple_GetItem(entry, 1), inputs, &seen);
    }
    Py_XDECREF(entries);
    for (int i = 0; !failed && i < rule->inputs; i++) {
        if (!(seen >> i & 1)) {
            const char *missing = gl_stat_name(rule->input[i]);
            PyErr_Format(PyExc_ValueError, "Rule(\"%s\").update(%s=...) is missing", rule->name, missing);
            failed = -1;
        }
    }
    return failed;
}

PyDoc_STRVAR(update_doc,
             "update($self, /, **statistics)\n--\n\n(rate, action, reason); action is 'keep', 'retry' or 'skip'.");

static PyObject *rule_update(PyObject *object, PyObject *args, PyObject *keywords) {
    struct rule_object *self = (struct rule_object *)object;
    double inputs[GL_FIELDS_MAX];
    struct gl_verdict verdict;
    if (!PyArg_ParseTuple(args, ":update") || read_inputs(self->rule, keywords, inputs) < 0) {
        return NULL;
    }
    GLPY_LOCK(object);
    verdict = gl_rule_update(self->rule, self->config, inputs, self->state);
    GLPY_UNLOCK();
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
    for (int i = 0; i < self->rule->inputs; i++) {
        glpy_add_name(&list, gl_stat_name(self->rule->input[i]));
    }
    return glpy_tuple_from(list);
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

PyDoc_STRVAR(reduce_doc,
             "__reduce__($self, /)\n--\n\nName and configuration make the rule anew, and it loads the state.");

static PyObject *rule_reduce(PyObject *object, PyObject *Py_UNUSED(none)) {
    struct rule_object *self = (struct rule_object *)object;
    PyObject *copyreg = PyImport_ImportModule("copyreg"), *result = NULL;
    PyObject *make = copyreg ? PyObject_GetAttrString(copyreg, "__newobj_ex__") : NULL;
    PyObject *config = make ? get_config(object, NULL) : NULL;
    PyObject *state = config ? get_state(object, NULL) : NULL;
    if (state) {
        result = Py_BuildValue("O(O(s)O)O", make, (PyObject *)Py_TYPE(object), self->rule->name, config, state);
    }
    Py_XDECREF(copyreg);
    Py_XDECREF(make);
    Py_XDECREF(config);
    Py_XDECREF(state);
    return result;
}

static PyObject *rule_repr(PyObject *object) {
    struct rule_object *self = (struct rule_object *)object;
    return PyUnicode_FromFormat("<glyder._core.Rule \"%s\">", self->rule->name);
}

static PyMethodDef rule_methods[] = {
    {"load", rule_load, METH_O, load_doc},
    {"__setstate__", rule_load, METH_O, load_doc},
    {"__reduce__", rule_reduce, METH_NOARGS, reduce_doc},
    {"update", GLPY_WITH_KEYWORDS(rule_update), METH_VARARGS | METH_KEYWORDS, update_doc},
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
        glpy_add_name(&list, gl_rule_at(i)->name);
    }
    return glpy_tuple_from(list);
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

PyMethodDef glpy_rule_methods[] = {
    {"rules", rules, METH_NOARGS, PyDoc_STR("rules()\n--\n\nNames of all rules and stages.")},
    {"statistics", statistics, METH_NOARGS, PyDoc_STR("statistics()\n--\n\nWhat rules look at: name and meaning.")},
    {"reasons", reasons, METH_NOARGS, PyDoc_STR("reasons()\n--\n\nWhy a rate is what it is: name and meaning.")},
    {NULL, NULL, 0, NULL}};
