/* module.c - the extension glyder._core: module state, machine functions, initialisation.
 *
 * Multi-phase: each interpreter gets its own module and state, and there is no static object.  The dispatch level is
 * the one thing that is process-wide.
 */
#include "py_args.h"
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- machine */

static enum gl_level level_of_name(const char *name) {
    int level = 0;
    while (level < GL_LEVEL_COUNT && strcmp(gl_level_name((enum gl_level)level), name) != 0) {
        level++;
    }
    return (enum gl_level)level;
}

/* `source` says who asked, for the message. */
static int use_level(const char *source, const char *name) {
    enum gl_level level = level_of_name(name);
    if (level == GL_LEVEL_COUNT) {
        PyErr_Format(PyExc_ValueError, "%s: there is no level \"%s\"; levels() names them", source, name);
        return -1;
    }
    if (!gl_level_available(level)) {
        PyErr_Format(PyExc_ValueError, "%s: this machine or build lacks the level \"%s\"", source, name);
        return -1;
    }
    return glpy_check(gl_level_select(level), source);
}

static PyObject *levels(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    PyObject *dict = PyDict_New();
    for (int level = 0; dict && level < GL_LEVEL_COUNT; level++) {
        PyObject *available = PyBool_FromLong(gl_level_available((enum gl_level)level));
        if (!available || PyDict_SetItemString(dict, gl_level_name((enum gl_level)level), available) < 0) {
            Py_CLEAR(dict);
        }
        Py_XDECREF(available);
    }
    return dict;
}

static PyObject *level(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    return PyUnicode_FromString(gl_level_name(gl_level_current()));
}

static PyObject *select_level(PyObject *Py_UNUSED(module), PyObject *args) {
    const char *name = NULL;
    if (!PyArg_ParseTuple(args, "s:select_level", &name) || use_level("select_level", name) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---------------------------------------------------------------- tensor types */

static PyObject *register_tensor_type(PyObject *module, PyObject *args) {
    PyObject *type = NULL, *capsule = NULL, *address = NULL, *entry = NULL;
    if (!PyArg_ParseTuple(args, "O!:register_tensor_type", &PyType_Type, &type)) {
        return NULL;
    }
    int found = glpy_find_table((PyTypeObject *)type, &capsule);
    if (found > 0) {
        address = PyLong_FromVoidPtr(type);
        entry = PyTuple_Pack(2, type, capsule);
        if (!address || !entry || PyDict_SetItem(glpy_state_of_module(module)->tensor_types, address, entry) < 0) {
            found = -1;
        }
    }
    Py_XDECREF(capsule);
    Py_XDECREF(address);
    Py_XDECREF(entry);
    return found < 0 ? NULL : PyBool_FromLong(found);
}

static PyObject *tensor_types(PyObject *module, PyObject *Py_UNUSED(none)) {
    PyObject *result = NULL, *types = PyList_New(0);
    PyObject *entries = types ? PyDict_Values(glpy_state_of_module(module)->tensor_types) : NULL;
    for (Py_ssize_t i = 0; entries && i < PyList_Size(entries); i++) {
        if (PyList_Append(types, PyTuple_GetItem(PyList_GetItem(entries, i), 0)) < 0) {
            Py_CLEAR(entries);
        }
    }
    if (entries) {
        result = PyList_AsTuple(types);
    }
    Py_XDECREF(entries);
    Py_XDECREF(types);
    return result;
}

/* ---------------------------------------------------------------- initialisation */

static int add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **out) {
    *out = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *out ? PyModule_AddType(module, *out) : -1;
}

static int exec_module(PyObject *module) {
    struct glpy_state *state = glpy_state_of_module(module);
    const char *forced = getenv("GLYDER_LEVEL");
    state->tensor_types = PyDict_New();
    if (!state->tensor_types || add_type(module, &glpy_segments_spec, &state->segments_type) < 0 ||
        add_type(module, &glpy_rule_spec, &state->rule_type) < 0 ||
        PyModule_AddFunctions(module, glpy_reduce_methods) < 0 || PyModule_AddFunctions(module, glpy_ce_methods) < 0 ||
        PyModule_AddFunctions(module, glpy_rule_methods) < 0 ||
        PyModule_AddFunctions(module, glpy_schedule_methods) < 0 ||
        PyModule_AddStringConstant(module, "__version__", GLYDER_VERSION) < 0) {
        return -1;
    }
    return forced && *forced ? use_level("GLYDER_LEVEL", forced) : 0;
}

static int traverse_module(PyObject *module, visitproc visit, void *arg) {
    struct glpy_state *state = glpy_state_of_module(module);
    Py_VISIT(state->segments_type);
    Py_VISIT(state->rule_type);
    Py_VISIT(state->tensor_types);
    return 0;
}

static int clear_module(PyObject *module) {
    struct glpy_state *state = glpy_state_of_module(module);
    Py_CLEAR(state->segments_type);
    Py_CLEAR(state->rule_type);
    Py_CLEAR(state->tensor_types);
    return 0;
}

static void free_module(void *module) {
    clear_module(module);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, exec_module},
#ifdef Py_GIL_DISABLED
                                   {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
                                   {0, NULL}};

static PyMethodDef methods[] = {
    {"levels", levels, METH_NOARGS,
     PyDoc_STR("levels()\n--\n\nEvery dispatch level, and whether this machine has it.")},
    {"level", level, METH_NOARGS, PyDoc_STR("level()\n--\n\nThe dispatch level in use.")},
    {"select_level", select_level, METH_VARARGS, PyDoc_STR("select_level(name, /)\n--\n\nUse another level.")},
    {"register_tensor_type", register_tensor_type, METH_VARARGS,
     PyDoc_STR("register_tensor_type(cls, /)\n--\n\nTake exact instances of cls through its exchange table.")},
    {"tensor_types", tensor_types, METH_NOARGS, PyDoc_STR("tensor_types()\n--\n\nThe types registered so far.")},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "glyder._core",
    .m_doc = PyDoc_STR("The C core of glyder; csrc/glyder.h is the manual."),
    .m_size = sizeof(struct glpy_state),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = traverse_module,
    .m_clear = clear_module,
    .m_free = free_module,
};

PyMODINIT_FUNC PyInit__core(void) {
    return PyModuleDef_Init(&definition);
}
