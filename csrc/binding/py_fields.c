/* py_fields.c - numbers with names, out of dicts and checked by their tables.
 *
 * Errors are in call form, `Rule("glyder", sigma=...) must be in (0, inf), got -1.0`.
 */
#include "py_fields.h"

PyObject *glpy_entries_of(PyObject *dict) {
    PyObject *list = dict ? PyDict_Items(dict) : PyList_New(0);
    PyObject *entries = list ? PyList_AsTuple(list) : NULL;
    Py_XDECREF(list);
    return entries;
}

static int find_field(const struct gl_field *fields, int count, PyObject *key) {
    for (int i = 0; i < count; i++) {
        if (PyUnicode_CompareWithASCIIString(key, fields[i].name) == 0) {
            return i;
        }
    }
    return -1;
}

/* Sets exception "<call><key>=...) <rest>"; steals nothing; returns -1. */
static int refuse(const struct glpy_call *call, PyObject *exception, PyObject *key, PyObject *rest) {
    PyObject *head = PyUnicode_FromFormat(call->format, call->name);
    if (head && rest) {
        PyErr_Format(exception, "%U%S=...) %U", head, key, rest);
    }
    Py_XDECREF(head);
    return -1;
}

static int refuse_unknown(const struct glpy_call *call, PyObject *key, const struct gl_field *fields, int count) {
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

static int refuse_value(const struct glpy_call *call, const struct gl_field *field, PyObject *key, double value) {
    PyObject *lower = PyFloat_FromDouble(field->lower), *upper = PyFloat_FromDouble(field->upper);
    PyObject *got = PyFloat_FromDouble(value), *rest = NULL;
    if (lower && upper && got && gl_field_within(field, value)) {
        rest = PyUnicode_FromFormat("must be %s, got %R", field->domain == GL_FLAG ? "0 or 1" : "a whole number", got);
    } else if (lower && upper && got) {
        rest = PyUnicode_FromFormat("must be in %c%R, %R%c, got %R", field->domain & GL_OPEN_LOWER ? '(' : '[', lower,
                                    upper, field->domain & GL_OPEN_UPPER ? ')' : ']', got);
    }
    refuse(call, PyExc_ValueError, key, rest);
    Py_XDECREF(lower);
    Py_XDECREF(upper);
    Py_XDECREF(got);
    Py_XDECREF(rest);
    return -1;
}

int glpy_read_number(const struct glpy_call *call, PyObject *key, PyObject *value, double *out) {
    *out = PyFloat_AsDouble(value);
    if (!PyErr_Occurred()) {
        return 0;
    }
    PyObject *exception = PyErr_ExceptionMatches(PyExc_OverflowError) ? PyExc_ValueError : PyExc_TypeError;
    if (glpy_no_number()) {
        PyObject *rest = PyUnicode_FromFormat("must be a number in the range of float, got %R", value);
        refuse(call, exception, key, rest);
        Py_XDECREF(rest);
    }
    return -1;
}

/* One field.  Keys are exactly str: a class of its own may equal a name, or not, as it likes. */
static int read_field(const struct glpy_call *call, PyObject *entry, const struct gl_field *fields, int count,
                      double *values, uint32_t *seen) {
    PyObject *key = PyTuple_GetItem(entry, 0);
    if (!PyUnicode_CheckExact(key)) {
        PyErr_Format(PyExc_TypeError, "names of fields must be str, got %R", (PyObject *)Py_TYPE(key));
        return -1;
    }
    int i = find_field(fields, count, key);
    if (i < 0) {
        return refuse_unknown(call, key, fields, count);
    }
    if (glpy_read_number(call, key, PyTuple_GetItem(entry, 1), &values[i]) < 0) {
        return -1;
    }
    *seen |= (uint32_t)1 << i;
    return gl_field_accepts(&fields[i], values[i]) ? 0 : refuse_value(call, &fields[i], key, values[i]);
}

int glpy_read_fields(const struct glpy_call *call, PyObject *dict, const struct gl_field *fields, int count,
                     double *values, uint32_t *seen) {
    PyObject *entries = glpy_entries_of(dict);
    int failed = entries ? 0 : -1;
    *seen = 0;
    for (Py_ssize_t i = 0; !failed && i < PyTuple_Size(entries); i++) {
        failed = read_field(call, PyTuple_GetItem(entries, i), fields, count, values, seen);
    }
    Py_XDECREF(entries);
    return failed;
}

void glpy_add_name(PyObject **list, const char *name) {
    PyObject *text = *list ? PyUnicode_FromString(name) : NULL;
    if (*list && (!text || PyList_Append(*list, text) < 0)) {
        Py_CLEAR(*list);
    }
    Py_XDECREF(text);
}

PyObject *glpy_tuple_from(PyObject *list) {
    PyObject *tuple = list ? PyList_AsTuple(list) : NULL;
    Py_XDECREF(list);
    return tuple;
}
