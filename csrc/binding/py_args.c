/* py_args.c - module state, and the one place where a status becomes an exception. */
#include "py_args.h"

struct glpy_state *glpy_state_of_module(PyObject *module) {
    return (struct glpy_state *)PyModule_GetState(module);
}

struct glpy_state *glpy_state_of_object(PyObject *object) {
    return (struct glpy_state *)PyType_GetModuleState(Py_TYPE(object));
}

int glpy_check(enum gl_status status, const char *function) {
    if (status == GL_OK) {
        return 0;
    }
    PyObject *exception = status == GL_ERR_DTYPE ? PyExc_TypeError : PyExc_ValueError;
    PyErr_Format(exception, "%s: %s", function, gl_status_message(status));
    return -1;
}

int glpy_no_number(void) {
    if (!PyErr_ExceptionMatches(PyExc_TypeError) && !PyErr_ExceptionMatches(PyExc_OverflowError)) {
        return 0;
    }
    PyErr_Clear();
    return 1;
}

int glpy_read_whole(PyObject *object, const char *argument, int64_t low, int64_t high, int64_t *out) {
    int beyond = 0; /* -1 or 1 below or above what 64 bits hold */
    int64_t value = PyLong_AsLongLongAndOverflow(object, &beyond);
    if (value == -1 && !beyond && PyErr_Occurred()) {
        if (glpy_no_number()) {
            PyErr_Format(PyExc_TypeError, "%s must be a whole number, got %R", argument, object);
        }
        return -1;
    }
    if (beyond < 0 || (!beyond && value < low)) {
        PyErr_Format(PyExc_ValueError, "%s must be >= %lld, got %R", argument, (long long)low, object);
        return -1;
    }
    if (beyond > 0 || value > high) {
        PyErr_Format(PyExc_ValueError, "%s must be <= %lld, got %R", argument, (long long)high, object);
        return -1;
    }
    *out = value;
    return 0;
}
