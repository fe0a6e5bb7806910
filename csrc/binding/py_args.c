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
