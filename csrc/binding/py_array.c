/* py_array.c - one array, whichever way it comes in: exchange table, buffer protocol, or a tuple of numbers.
 *
 * All three ways end in the same checks, because each has its own trap.  The exchange table of a tensor type is
 * inherited by subclasses that hold no memory of their own, and then answers with a null pointer and success; so only
 * exactly registered types are taken, and a null pointer never passes.  0-d tensors have null strides, expanded ones
 * stride 0.  Not to be seen from here: lazily negated or conjugated tensors, whose memory lacks the sign; the caller
 * resolves those (segments.py).
 */
#include "py_args.h"
#include <limits.h>
#include <stdarg.h>
#include <string.h>

/* NumPy allows 64 dimensions, torch no more; a larger number is a damaged header. */
#define MAX_NDIM 64
/* So many values of any dtype can still be addressed. */
#define MAX_VALUES (PTRDIFF_MAX / 8)

static const struct {
    const char *name;
    char format; /* of the buffer protocol; 0: none of its own */
    unsigned char size;
} dtype_table[] = {
    [GL_F64] = {"float64", 'd', 8}, [GL_F32] = {"float32", 'f', 4}, [GL_F16] = {"float16", 'e', 2},
    [GL_BF16] = {"bfloat16", 0, 2}, [GLPY_INT64] = {"int64", 0, 8},
};
#define DTYPES ((int)(sizeof dtype_table / sizeof dtype_table[0]))

const char *glpy_dtype_name(int dtype) {
    return dtype_table[dtype].name;
}

int glpy_dtype_size(int dtype) {
    return dtype_table[dtype].size;
}

/* ---------------------------------------------------------------- messages */

int glpy_refuse(const struct glpy_reader *reader, PyObject *exception, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    PyObject *message = PyUnicode_FromFormatV(format, arguments);
    va_end(arguments);
    if (message && reader->index >= 0) {
        PyErr_Format(exception, "%s %zd: %U", reader->name, reader->index, message);
    } else if (message) {
        PyErr_Format(exception, "%s: %U", reader->name, message);
    }
    Py_XDECREF(message);
    return -1;
}

/* The first line of the text of an exception: some exporters append a stack trace. */
static PyObject *first_line(PyObject *error) {
    PyObject *text = PyObject_Str(error), *line = NULL;
    Py_ssize_t length = text ? PyUnicode_GetLength(text) : 0;
    Py_ssize_t end = text ? PyUnicode_FindChar(text, '\n', 0, length, 1) : -1;
    if (end != -2 && text) {
        line = PyUnicode_Substring(text, 0, end < 0 ? length : end);
    }
    Py_XDECREF(text);
    return line;
}

/* Adds the place to an exception of an exporter.  Interrupts, lack of memory and the like pass as they are. */
static int refuse_export(const struct glpy_reader *reader) {
    PyObject *type = NULL, *value = NULL, *traceback = NULL, *line = NULL;
    if (!PyErr_Occurred()) {
        return glpy_refuse(reader, PyExc_BufferError, "its type failed to hand out memory and gave no reason");
    }
    if (!PyErr_ExceptionMatches(PyExc_BufferError) && !PyErr_ExceptionMatches(PyExc_ValueError) &&
        !PyErr_ExceptionMatches(PyExc_TypeError) && !PyErr_ExceptionMatches(PyExc_RuntimeError)) {
        return -1;
    }
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    line = first_line(value);
    if (line) {
        glpy_refuse(reader, PyExc_BufferError, "%U", line);
    }
    Py_XDECREF(line);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return -1;
}

/* ---------------------------------------------------------------- checks common to all ways */

/* Counts the values and demands that they follow each other; strides are in units of `unit`, NULL for contiguous.
 * Strides of dimensions of size 1 mean nothing, and no values are always contiguous. */
static int check_shape(const struct glpy_reader *reader, int ndim, const int64_t *shape, const int64_t *strides,
                       int64_t unit, struct glpy_array *out) {
    int64_t n = 1;
    int contiguous = 1;
    if (ndim < 0 || ndim > MAX_NDIM || (ndim > 0 && !shape)) {
        return glpy_refuse(reader, PyExc_ValueError, "%d dimensions", ndim);
    }
    for (int d = ndim - 1; d >= 0; d--) {
        if (shape[d] < 0) {
            return glpy_refuse(reader, PyExc_ValueError, "size %lld of dimension %d is negative", (long long)shape[d],
                               d);
        }
        if (n > 0 && shape[d] > MAX_VALUES / n) {
            return glpy_refuse(reader, PyExc_ValueError, "more values than memory can hold");
        }
        if (strides && shape[d] > 1 && strides[d] != n * unit) {
            contiguous = 0;
        }
        n *= shape[d];
    }
    if (n > 0 && !contiguous) {
        return glpy_refuse(reader, PyExc_ValueError, "not contiguous");
    }
    out->n = n;
    out->ndim = ndim;
    out->last = ndim > 0 ? shape[ndim - 1] : 1;
    return 0;
}

static int check_memory(const struct glpy_reader *reader, const struct glpy_array *array) {
    if (!array->ptr && array->n > 0) {
        return glpy_refuse(reader, PyExc_ValueError, "hands out no memory (a wrapper around other tensors?)");
    }
    if ((reader->want & GLPY_MATRIX) && array->ndim < 1) {
        return glpy_refuse(reader, PyExc_ValueError, "0-dimensional, not a matrix");
    }
    if ((reader->want & GLPY_LABELS) && array->dtype != GLPY_INT64) {
        return glpy_refuse(reader, PyExc_TypeError, "dtype %s, not int64", glpy_dtype_name(array->dtype));
    }
    if (!(reader->want & GLPY_LABELS) && array->dtype == GLPY_INT64) {
        return glpy_refuse(reader, PyExc_TypeError, "dtype int64 is not floating point");
    }
    return 0;
}

/* ---------------------------------------------------------------- exchange table */

/* Newer tables may lead back to older ones.  NULL if none is of our version, or if that one cannot lend. */
static gl_dlpack_borrow borrow_of(PyObject *capsule) {
    struct gl_dlpack_header *header = PyCapsule_GetPointer(capsule, GL_DLPACK_CAPSULE);
    while (header && header->version.major != GL_DLPACK_MAJOR) {
        header = header->previous;
    }
    return header ? ((struct gl_dlpack_api *)header)->borrow : NULL;
}

int glpy_find_table(PyTypeObject *type, PyObject **capsule) {
    *capsule = PyObject_GetAttrString((PyObject *)type, GL_DLPACK_ATTRIBUTE);
    if (!*capsule) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
            return -1;
        }
        PyErr_Clear();
        return 0;
    }
    if (!PyCapsule_IsValid(*capsule, GL_DLPACK_CAPSULE) || !borrow_of(*capsule)) {
        Py_CLEAR(*capsule);
        return 0;
    }
    return 1;
}

/* Makes reader->borrow that of `type`; NULL unless exactly this type is registered. */
static int look_up(struct glpy_reader *reader, PyTypeObject *type) {
    if (reader->type == type) {
        return 0;
    }
    PyObject *address = PyLong_FromVoidPtr(type);
    PyObject *entry = address ? PyDict_GetItemWithError(reader->state->tensor_types, address) : NULL;
    Py_XDECREF(address);
    if (!entry && PyErr_Occurred()) {
        return -1;
    }
    reader->borrow = entry ? borrow_of(PyTuple_GetItem(entry, 1)) : NULL;
    reader->type = type;
    return 0;
}

static int refuse_dtype(const struct glpy_reader *reader, struct gl_dlpack_dtype dtype) {
    static const char *const names[] = {[GL_DLPACK_INT] = "int",         [GL_DLPACK_UINT] = "uint",
                                        [GL_DLPACK_FLOAT] = "float",     [GL_DLPACK_BFLOAT] = "bfloat",
                                        [GL_DLPACK_COMPLEX] = "complex", [GL_DLPACK_BOOL] = "bool"};
    const char *name = dtype.code < sizeof names / sizeof names[0] ? names[dtype.code] : NULL;
    if (dtype.lanes != 1) {
        return glpy_refuse(reader, PyExc_TypeError, "dtype with %d lanes", dtype.lanes);
    }
    if (!name) {
        return glpy_refuse(reader, PyExc_TypeError, "dtype of code %d with %d bits", dtype.code, dtype.bits);
    }
    if (dtype.code == GL_DLPACK_BOOL) {
        return glpy_refuse(reader, PyExc_TypeError, "dtype bool");
    }
    return glpy_refuse(reader, PyExc_TypeError, "dtype %s%d", name, dtype.bits);
}

static int dtype_of_dlpack(const struct glpy_reader *reader, struct gl_dlpack_dtype dtype, int *out) {
    static const struct {
        uint8_t code, bits;
        int dtype;
    } known[] = {{GL_DLPACK_FLOAT, 32, GL_F32},
                 {GL_DLPACK_BFLOAT, 16, GL_BF16},
                 {GL_DLPACK_FLOAT, 16, GL_F16},
                 {GL_DLPACK_FLOAT, 64, GL_F64},
                 {GL_DLPACK_INT, 64, GLPY_INT64}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (dtype.code == known[i].code && dtype.bits == known[i].bits && dtype.lanes == 1) {
            *out = known[i].dtype;
            return 0;
        }
    }
    return refuse_dtype(reader, dtype);
}

static int check_device(const struct glpy_reader *reader, struct gl_dlpack_device device) {
    static const char *const names[] = {
        [2] = "cuda", [4] = "opencl", [7] = "vulkan", [8] = "metal", [10] = "rocm", [14] = "oneapi", [15] = "webgpu",
    };
    size_t type = (size_t)(uint32_t)device.type;
    if (type == GL_DLPACK_CPU || type == GL_DLPACK_CUDA_HOST || type == GL_DLPACK_ROCM_HOST) {
        return 0;
    }
    if (type < sizeof names / sizeof names[0] && names[type]) {
        return glpy_refuse(reader, PyExc_ValueError, "on device %s:%d, not in CPU memory", names[type],
                           (int)device.index);
    }
    return glpy_refuse(reader, PyExc_ValueError, "on a device of DLPack type %d, not in CPU memory", (int)device.type);
}

static int read_tensor(const struct glpy_reader *reader, PyObject *object, struct glpy_array *out) {
    struct gl_dlpack_tensor tensor;
    memset(&tensor, 0, sizeof tensor);
    if (reader->borrow(object, &tensor) != 0 || PyErr_Occurred()) {
        return refuse_export(reader);
    }
    if (check_device(reader, tensor.device) < 0 || dtype_of_dlpack(reader, tensor.dtype, &out->dtype) < 0 ||
        check_shape(reader, tensor.ndim, tensor.shape, tensor.strides, 1, out) < 0) {
        return -1;
    }
    out->ptr = tensor.data ? (char *)tensor.data + tensor.byte_offset : NULL;
    return 0;
}

/* ---------------------------------------------------------------- buffer protocol */

static int dtype_of_format(const struct glpy_reader *reader, const char *format, Py_ssize_t itemsize, int *out) {
    const char *code = format ? format : "B";
    /* "=" and "<" promise standard sizes, which d f e q have anyway. */
    if (*code == '@' || *code == '=' || *code == (PY_LITTLE_ENDIAN ? '<' : '>')) {
        code++;
    }
    if (*code && !code[1]) {
        for (int dtype = 0; dtype < DTYPES; dtype++) {
            if (*code == dtype_table[dtype].format && itemsize == dtype_table[dtype].size) {
                *out = dtype;
                return 0;
            }
        }
        if (*code == 'H' && itemsize == 2 && (reader->want & GLPY_BF16)) {
            *out = GL_BF16;
            return 0;
        }
        if ((*code == 'q' || *code == 'l') && itemsize == 8) {
            *out = GLPY_INT64;
            return 0;
        }
    }
    if (format && (*format == '>' || *format == '<' || *format == '!') && code == format) {
        return glpy_refuse(reader, PyExc_TypeError, "buffer format '%s': not in this machine's byte order", format);
    }
    return glpy_refuse(reader, PyExc_TypeError, "buffer format '%s'", format ? format : "B");
}

/* Shape and strides were asked for, but not all exporters fill them in: ctypes leaves the strides of contiguous memory
 * out, and without a shape the memory is one row of items. */
static int check_view(const struct glpy_reader *reader, const Py_buffer *view, struct glpy_array *out) {
    int64_t shape[MAX_NDIM], strides[MAX_NDIM];
    if (view->ndim > MAX_NDIM) {
        return glpy_refuse(reader, PyExc_ValueError, "%d dimensions", view->ndim);
    }
    if (view->ndim > 0 && !view->shape) {
        shape[0] = view->len / view->itemsize; /* of a known dtype by now, so not of size 0 */
        return check_shape(reader, 1, shape, NULL, 1, out);
    }
    for (int d = 0; d < view->ndim; d++) {
        shape[d] = view->shape[d];
        strides[d] = view->strides ? view->strides[d] : 0;
    }
    return check_shape(reader, view->ndim, shape, view->strides ? strides : NULL, view->itemsize, out);
}

static int read_buffer(const struct glpy_reader *reader, PyObject *object, struct glpy_array *out, Py_buffer *view) {
    int flags = PyBUF_FORMAT | PyBUF_STRIDES | (reader->want & GLPY_WRITABLE ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(object, view, flags) < 0) {
        view->obj = NULL;
        return refuse_export(reader);
    }
    if (dtype_of_format(reader, view->format, view->itemsize, &out->dtype) < 0) {
        return -1;
    }
    out->ptr = view->buf;
    return check_view(reader, view, out);
}

/* ---------------------------------------------------------------- tuples */

static int dtype_of_name(const struct glpy_reader *reader, PyObject *name, int *out) {
    if (!PyUnicode_Check(name)) {
        return glpy_refuse(reader, PyExc_TypeError, "dtype must be a string, got %R", name);
    }
    for (int dtype = 0; dtype < DTYPES; dtype++) {
        if (PyUnicode_CompareWithASCIIString(name, dtype_table[dtype].name) == 0) {
            *out = dtype;
            return 0;
        }
    }
    return glpy_refuse(reader, PyExc_TypeError, "dtype %U", name);
}

/* (address, n, dtype) or (address, rows, classes, dtype), and one object more that keeps the memory alive. */
static int read_tuple(const struct glpy_reader *reader, PyObject *tuple, struct glpy_array *out) {
    int ndim = reader->want & GLPY_MATRIX ? 2 : 1;
    Py_ssize_t length = PyTuple_Size(tuple);
    int64_t shape[2];
    if (length != ndim + 2 && length != ndim + 3) {
        return glpy_refuse(reader, PyExc_TypeError, "a tuple must be %s, got %R",
                           ndim == 2 ? "(address, rows, classes, dtype)" : "(address, n, dtype)", tuple);
    }
    out->ptr = PyLong_AsVoidPtr(PyTuple_GetItem(tuple, 0));
    for (int d = 0; d < ndim && !PyErr_Occurred(); d++) {
        shape[d] = PyLong_AsLongLong(PyTuple_GetItem(tuple, d + 1));
    }
    if (PyErr_Occurred()) {
        if (!glpy_no_number()) {
            return -1;
        }
        return glpy_refuse(reader, PyExc_TypeError, "address and sizes must be integers, got %R", tuple);
    }
    if (dtype_of_name(reader, PyTuple_GetItem(tuple, ndim + 1), &out->dtype) < 0) {
        return -1;
    }
    return check_shape(reader, ndim, shape, NULL, 1, out);
}

/* ---------------------------------------------------------------- entry */

int glpy_read_array(struct glpy_reader *reader, PyObject *object, struct glpy_array *out, Py_buffer *view) {
    int failed;
    view->obj = NULL;
    if (look_up(reader, Py_TYPE(object)) < 0) {
        return -1;
    }
    if (reader->borrow) {
        failed = read_tensor(reader, object, out);
    } else if (PyTuple_CheckExact(object)) {
        failed = read_tuple(reader, object, out);
    } else if (PyObject_CheckBuffer(object)) {
        failed = read_buffer(reader, object, out, view);
    } else {
        return glpy_refuse(reader, PyExc_TypeError, "neither a registered tensor type, a buffer nor a tuple, got %R",
                           (PyObject *)Py_TYPE(object));
    }
    if (failed || check_memory(reader, out) < 0) {
        PyBuffer_Release(view);
        return -1;
    }
    return 0;
}
