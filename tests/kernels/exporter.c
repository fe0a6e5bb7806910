/* exporter.c - a tensor type of our own with a DLPack exchange table, and a bare buffer, for tests.
 *
 * Its instances hand out whatever they are told to: wrong, hostile or merely unusual descriptions of a block of 64
 * bytes.  Its types differ in the table: current, newer with a way back, newer without, and damaged ones.
 */
#include <Python.h>
#include <string.h>
#include "dlpack_abi.h"

#define MAX_NDIM 70

struct tensor {
    PyObject_HEAD double block[8];
    int64_t shape[MAX_NDIM], strides[MAX_NDIM];
    struct gl_dlpack_tensor view;
    PyObject *action; /* called on every export; its exception is the export's */
    int silent;       /* fail without an exception */
};

static int borrow(void *object, struct gl_dlpack_tensor *out) {
    struct tensor *self = object;
    if (self->silent) {
        return -1;
    }
    if (self->action) {
        PyObject *result = PyObject_CallNoArgs(self->action);
        if (!result) {
            return -1;
        }
        Py_DECREF(result);
    }
    *out = self->view;
    return 0;
}

static struct gl_dlpack_api current = {.header = {{1, 3}, NULL}, .borrow = borrow};
static struct gl_dlpack_api newer = {.header = {{2, 0}, &current.header}, .borrow = NULL};
static struct gl_dlpack_api too_new = {.header = {{2, 0}, NULL}, .borrow = borrow};
static struct gl_dlpack_api lends_nothing = {.header = {{1, 3}, NULL}, .borrow = NULL};

/* A list of integers into out[]; its length, or -1. */
static int read_list(PyObject *list, int64_t *out) {
    Py_ssize_t count = PySequence_Size(list);
    for (Py_ssize_t i = 0; i < count && i < MAX_NDIM; i++) {
        PyObject *item = PySequence_GetItem(list, i);
        out[i] = item ? PyLong_AsLongLong(item) : -1;
        Py_XDECREF(item);
    }
    return PyErr_Occurred() ? -1 : (int)count;
}

static PyObject *tensor_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"shape", "strides",     "code", "bits",   "lanes",  "device",
                            "null",  "byte_offset", "ndim", "action", "silent", NULL};
    PyObject *shape = NULL, *strides = Py_None, *action = NULL;
    int code = GL_DLPACK_FLOAT, bits = 64, lanes = 1, device = GL_DLPACK_CPU, null = 0, offset = 0, ndim = -100;
    int silent = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|OiiiipiiOp", names, &shape, &strides, &code, &bits, &lanes,
                                     &device, &null, &offset, &ndim, &action, &silent)) {
        return NULL;
    }
    struct tensor *self = (struct tensor *)PyType_GenericAlloc(type, 0);
    if (!self) {
        return NULL;
    }
    int count = read_list(shape, self->shape);
    if (count < 0 || (strides != Py_None && read_list(strides, self->strides) != count)) {
        Py_DECREF(self);
        return NULL;
    }
    for (int i = 0; i < 8; i++) {
        self->block[i] = i + 1;
    }
    self->view.data = null ? NULL : self->block;
    self->view.device.type = device;
    self->view.ndim = ndim == -100 ? count : ndim;
    self->view.dtype = (struct gl_dlpack_dtype){(uint8_t)code, (uint8_t)bits, (uint16_t)lanes};
    self->view.shape = count ? self->shape : NULL;
    self->view.strides = strides == Py_None ? NULL : self->strides;
    self->view.byte_offset = (uint64_t)offset;
    self->action = Py_XNewRef(action);
    self->silent = silent;
    return (PyObject *)self;
}

static int tensor_traverse(PyObject *object, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((struct tensor *)object)->action);
    return 0;
}

static int tensor_clear(PyObject *object) {
    Py_CLEAR(((struct tensor *)object)->action);
    return 0;
}

static void tensor_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    tensor_clear(object);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

static PyType_Slot tensor_slots[] = {{Py_tp_new, tensor_new},
                                     {Py_tp_dealloc, tensor_dealloc},
                                     {Py_tp_traverse, tensor_traverse},
                                     {Py_tp_clear, tensor_clear},
                                     {0, NULL}};

/* ---------------------------------------------------------------- Bare */

/* Four doubles that are handed out as one dimension, with neither shape nor strides whatever is asked for. */
struct bare {
    PyObject_HEAD double block[4];
};

static int bare_export(PyObject *object, Py_buffer *view, int flags) {
    struct bare *self = (struct bare *)object;
    for (int i = 0; i < 4; i++) {
        self->block[i] = i + 1;
    }
    if (PyBuffer_FillInfo(view, object, self->block, sizeof self->block, 0, flags) < 0) {
        return -1;
    }
    view->format = "d";
    view->itemsize = sizeof(double);
    view->shape = NULL;
    view->strides = NULL;
    return 0;
}

static PyType_Slot bare_slots[] = {{Py_bf_getbuffer, bare_export}, {0, NULL}};
static PyType_Spec bare_spec = {
    .name = "exporter.Bare", .basicsize = sizeof(struct bare), .flags = Py_TPFLAGS_DEFAULT, .slots = bare_slots};

static int add_bare(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &bare_spec, NULL);
    int failed = !type || PyModule_AddType(module, (PyTypeObject *)type) < 0;
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

/* ---------------------------------------------------------------- module */

static int add_type(PyObject *module, const char *name, struct gl_dlpack_api *table, const char *capsule_name) {
    PyType_Spec spec = {.name = name,
                        .basicsize = sizeof(struct tensor),
                        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
                        .slots = tensor_slots};
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    PyObject *capsule = type ? PyCapsule_New(table, capsule_name, NULL) : NULL;
    int failed = !capsule || PyObject_SetAttrString(type, GL_DLPACK_ATTRIBUTE, capsule) < 0 ||
                 PyModule_AddType(module, (PyTypeObject *)type) < 0;
    Py_XDECREF(capsule);
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static int exec_module(PyObject *module) {
    if (add_bare(module) < 0 || add_type(module, "exporter.Tensor", &current, GL_DLPACK_CAPSULE) < 0 ||
        add_type(module, "exporter.Newer", &newer, GL_DLPACK_CAPSULE) < 0 ||
        add_type(module, "exporter.TooNew", &too_new, GL_DLPACK_CAPSULE) < 0 ||
        add_type(module, "exporter.LendsNothing", &lends_nothing, GL_DLPACK_CAPSULE) < 0) {
        return -1;
    }
    return add_type(module, "exporter.Misnamed", &current, "something else");
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, exec_module}, {0, NULL}};
static struct PyModuleDef definition = {.m_base = PyModuleDef_HEAD_INIT, .m_name = "exporter", .m_slots = slots};

PyMODINIT_FUNC PyInit_exporter(void) {
    return PyModuleDef_Init(&definition);
}
