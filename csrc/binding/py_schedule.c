/* py_schedule.c - the annealing schedules to Python: their names, and the factor of an update. */
#include "py_fields.h"
#include "../rules/schedule.h"

static PyObject *schedules(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    PyObject *list = PyList_New(0);
    for (int i = 0; i < gl_schedule_count(); i++) {
        glpy_add_name(&list, gl_schedule_at(i)->name);
    }
    return glpy_tuple_from(list);
}

/* A number of updates, taken out of `dict` if it is there and not None. */
static int take_count(PyObject *dict, const char *name, const char *argument, int64_t *out) {
    PyObject *key = PyUnicode_FromString(name);
    PyObject *value = key ? Py_XNewRef(PyDict_GetItemWithError(dict, key)) : NULL;
    int failed = PyErr_Occurred() != NULL;
    if (value) {
        failed = (value != Py_None && glpy_read_whole(value, argument, 0, GL_UPDATES_MAX, out) < 0) ||
                 PyDict_DelItem(dict, key) < 0;
    }
    Py_XDECREF(key);
    Py_XDECREF(value);
    return failed ? -1 : 0;
}

static int check_schedule(const struct gl_schedule *schedule, const char *name, int64_t total) {
    if (!schedule) {
        PyErr_Format(PyExc_ValueError, "schedule(\"%s\"): there is no such schedule; schedules() names them", name);
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
    int64_t t = 0, total = GL_NO_TOTAL, warmup = 0;
    double config[GL_FIELDS_MAX], factor = 0;
    uint32_t seen = 0;
    PyObject *t_arg = NULL, *rest = NULL, *result = NULL;
    if (!PyArg_ParseTuple(args, "sO:schedule", &name, &t_arg)) {
        return NULL;
    }
    const struct gl_schedule *found = gl_schedule_find(name);
    const struct glpy_call call = {"schedule(\"%s\", ", name};
    rest = keywords ? PyDict_Copy(keywords) : PyDict_New();
    if (!rest || glpy_read_whole(t_arg, "schedule(t=...)", 0, GL_UPDATES_MAX, &t) < 0 ||
        take_count(rest, "total", "schedule(total=...)", &total) < 0 ||
        take_count(rest, "warmup", "schedule(warmup=...)", &warmup) < 0 || check_schedule(found, name, total) < 0) {
        goto done;
    }
    for (int i = 0; i < found->configs; i++) {
        config[i] = found->config[i].initial;
    }
    if (glpy_read_fields(&call, rest, found->config, found->configs, config, &seen) == 0 &&
        glpy_check(gl_schedule_factor(found, t, total, warmup, config, &factor), "schedule") == 0) {
        result = PyFloat_FromDouble(factor);
    }
done:
    Py_XDECREF(rest);
    return result;
}

PyMethodDef glpy_schedule_methods[] = {
    {"schedules", schedules, METH_NOARGS, PyDoc_STR("schedules()\n--\n\nNames of all schedules.")},
    {"schedule", GLPY_WITH_KEYWORDS(schedule), METH_VARARGS | METH_KEYWORDS, schedule_doc},
    {NULL, NULL, 0, NULL}};
