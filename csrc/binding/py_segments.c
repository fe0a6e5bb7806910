/* py_segments.c - the type Segments: a list of arrays as one vector, holding on to their memory.
 *
 * An instance never changes, so it needs no lock.  It keeps its items and their buffers alive; it cannot keep a
 * tensor from being given other memory (`t.data = ...`, `t.set_()`, `t.resize_()`).  Segments are therefore made and
 * used within one call chain, never stored across user code.
 *
 * Writable items must lie apart from each other and, but for the item that an input goes into, from all that is read
 * in the same call: kernels work through them one after another and would read what they have just written.
 */
#include "py_args.h"
#include <stdlib.h>

static int segments_traverse(PyObject *object, visitproc visit, void *arg) {
    struct glpy_segments *self = (struct glpy_segments *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->items);
    for (Py_ssize_t i = 0; i < self->views; i++) {
        Py_VISIT(self->view[i].obj);
    }
    return 0;
}

static int segments_clear(PyObject *object) {
    struct glpy_segments *self = (struct glpy_segments *)object;
    self->count = 0;
    while (self->views > 0) {
        PyBuffer_Release(&self->view[--self->views]);
    }
    Py_CLEAR(self->items);
    return 0;
}

static void segments_dealloc(PyObject *object) {
    struct glpy_segments *self = (struct glpy_segments *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    segments_clear(object);
    PyMem_Free(self->view);
    PyMem_Free(self->segment);
    PyMem_Free(self->span);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

/* ---------------------------------------------------------------- overlap */

static struct glpy_span span_of(const struct gl_segment *segment, Py_ssize_t item) {
    uintptr_t start = (uintptr_t)segment->ptr;
    return (struct glpy_span){start, start + (uintptr_t)segment->n * (uintptr_t)gl_dtype_size(segment->dtype), item};
}

static int by_address(const void *a, const void *b) {
    uintptr_t x = ((const struct glpy_span *)a)->start, y = ((const struct glpy_span *)b)->start;
    return (x > y) - (x < y);
}

/* Sorts the memory that may be written, and demands that no two items share any of it. */
static int read_spans(struct glpy_segments *self, struct glpy_reader *reader) {
    int sorted = 1;
    self->span = PyMem_Calloc((size_t)self->count, sizeof *self->span);
    if (!self->span) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < self->count; i++) {
        if (self->segment[i].n > 0) {
            struct glpy_span *span = &self->span[self->spans++];
            *span = span_of(&self->segment[i], i);
            sorted = sorted && (span == self->span || span[-1].start <= span->start);
        }
    }
    if (!sorted) {
        qsort(self->span, (size_t)self->spans, sizeof *self->span, by_address);
    }
    for (Py_ssize_t s = 1; s < self->spans; s++) {
        const struct glpy_span *a = &self->span[s - 1], *b = &self->span[s];
        if (b->start < a->end) {
            reader->index = a->item > b->item ? a->item : b->item;
            return glpy_refuse(reader, PyExc_ValueError, "overlaps item %zd, and both are to be written",
                               a->item > b->item ? b->item : a->item);
        }
    }
    return 0;
}

/* An item of `out` that shares memory with the span; NULL if there is none. */
static const struct glpy_span *shared(const struct glpy_segments *out, const struct glpy_span *span) {
    Py_ssize_t low = 0, high = out->spans;
    /* The first one that ends behind the start: all before it end too early, all behind it begin later. */
    while (low < high) {
        Py_ssize_t middle = low + (high - low) / 2;
        if (out->span[middle].end > span->start) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low < out->spans && out->span[low].start < span->end ? &out->span[low] : NULL;
}

int glpy_apart(const struct glpy_segments *out, const char *out_name, const struct glpy_segments *in,
               const char *in_name) {
    for (Py_ssize_t i = 0; i < in->count; i++) {
        const struct gl_segment *read = &in->segment[i], *written = &out->segment[i];
        if (read->n == 0 || (read->ptr == written->ptr && read->dtype == written->dtype)) {
            continue;
        }
        struct glpy_span span = span_of(read, i);
        const struct glpy_span *hit = shared(out, &span);
        if (hit) {
            PyErr_Format(PyExc_ValueError, "item %zd of %s overlaps item %zd of %s%s", i, in_name, hit->item, out_name,
                         hit->item == i ? ", and is not the same array" : "");
            return -1;
        }
    }
    return 0;
}

/* ---------------------------------------------------------------- construction */

static int read_items(struct glpy_segments *self, struct glpy_reader *reader) {
    Py_ssize_t count = PyTuple_Size(self->items);
    self->segment = PyMem_Calloc((size_t)count, sizeof *self->segment);
    self->view = PyMem_Calloc((size_t)count, sizeof *self->view);
    if (!self->segment || !self->view) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        struct glpy_array array;
        /* Filled in place and never moved: some exporters let a view point into itself. */
        Py_buffer *view = &self->view[self->views];
        reader->index = i;
        if (glpy_read_array(reader, PyTuple_GetItem(self->items, i), &array, view) < 0) {
            return -1;
        }
        self->views += view->obj != NULL;
        int64_t bytes = array.n * gl_dtype_size((enum gl_dtype)array.dtype);
        if (bytes > INT64_MAX - self->nbytes) {
            return glpy_refuse(reader, PyExc_ValueError, "more values than memory can hold");
        }
        self->segment[i] = (struct gl_segment){array.ptr, array.n, (enum gl_dtype)array.dtype};
        self->size += array.n;
        self->nbytes += bytes;
        self->count++;
    }
    return 0;
}

static PyObject *segments_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"", "writable", "bf16", NULL};
    PyObject *items = NULL;
    int writable = 0, bf16 = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|$pp:Segments", names, &items, &writable, &bf16)) {
        return NULL;
    }
    struct glpy_segments *self = (struct glpy_segments *)PyType_GenericAlloc(type, 0);
    if (!self) {
        return NULL;
    }
    struct glpy_reader reader = {.state = PyType_GetModuleState(type), .name = "item"};
    reader.want = (writable ? GLPY_WRITABLE : 0) | (bf16 ? GLPY_BF16 : 0);
    self->writable = writable;
    /* A tuple of our own: reading an item may run Python code that changes a list. */
    self->items = PySequence_Tuple(items);
    if (!self->items || read_items(self, &reader) < 0 || (writable && read_spans(self, &reader) < 0)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

/* ---------------------------------------------------------------- use by the other files */

struct glpy_segments *glpy_as_segments(struct glpy_state *state, PyObject *object, const char *name) {
    if (!Py_IS_TYPE(object, state->segments_type)) {
        PyErr_Format(PyExc_TypeError, "%s must be Segments, got %R", name, (PyObject *)Py_TYPE(object));
        return NULL;
    }
    return (struct glpy_segments *)object;
}

int glpy_same_lengths(const struct glpy_segments *a, const char *a_name, const struct glpy_segments *b,
                      const char *b_name) {
    if (a->count != b->count) {
        PyErr_Format(PyExc_ValueError, "%s has %zd items, %s has %zd", b_name, b->count, a_name, a->count);
        return -1;
    }
    for (Py_ssize_t i = 0; i < a->count; i++) {
        if (a->segment[i].n != b->segment[i].n) {
            PyErr_Format(PyExc_ValueError, "item %zd of %s has %lld values, that of %s has %lld", i, b_name,
                         (long long)b->segment[i].n, a_name, (long long)a->segment[i].n);
            return -1;
        }
    }
    return 0;
}

/* ---------------------------------------------------------------- attributes */

static Py_ssize_t segments_length(PyObject *object) {
    struct glpy_segments *self = (struct glpy_segments *)object;
    return self->count;
}

static PyObject *segments_repr(PyObject *object) {
    struct glpy_segments *self = (struct glpy_segments *)object;
    return PyUnicode_FromFormat("<glyder._core.Segments: %zd arrays, %lld values>", self->count, (long long)self->size);
}

static PyObject *get_size(PyObject *object, void *Py_UNUSED(closure)) {
    struct glpy_segments *self = (struct glpy_segments *)object;
    return PyLong_FromLongLong(self->size);
}

static PyObject *get_nbytes(PyObject *object, void *Py_UNUSED(closure)) {
    struct glpy_segments *self = (struct glpy_segments *)object;
    return PyLong_FromLongLong(self->nbytes);
}

static PyObject *get_writable(PyObject *object, void *Py_UNUSED(closure)) {
    struct glpy_segments *self = (struct glpy_segments *)object;
    return PyBool_FromLong(self->writable);
}

static PyObject *item_dtype(const struct gl_segment *segment) {
    return PyUnicode_FromString(glpy_dtype_name(segment->dtype));
}

static PyObject *item_length(const struct gl_segment *segment) {
    return PyLong_FromLongLong(segment->n);
}

/* The tuple of what `get` tells about each item. */
static PyObject *tuple_of(const struct glpy_segments *self, PyObject *(*get)(const struct gl_segment *)) {
    PyObject *result = NULL, *list = PyList_New(0);
    for (Py_ssize_t i = 0; list && i < self->count; i++) {
        PyObject *value = get(&self->segment[i]);
        if (!value || PyList_Append(list, value) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(value);
    }
    if (list) {
        result = PyList_AsTuple(list);
    }
    Py_XDECREF(list);
    return result;
}

static PyObject *get_dtypes(PyObject *object, void *Py_UNUSED(closure)) {
    struct glpy_segments *self = (struct glpy_segments *)object;
    return tuple_of(self, item_dtype);
}

static PyObject *get_lengths(PyObject *object, void *Py_UNUSED(closure)) {
    struct glpy_segments *self = (struct glpy_segments *)object;
    return tuple_of(self, item_length);
}

static PyGetSetDef segments_attributes[] = {
    {"size", get_size, NULL, "Number of values.", NULL},
    {"nbytes", get_nbytes, NULL, "Number of bytes.", NULL},
    {"writable", get_writable, NULL, "Whether writable memory was demanded; only such can be written.", NULL},
    {"dtypes", get_dtypes, NULL, "Dtype of each item.", NULL},
    {"lengths", get_lengths, NULL, "Number of values of each item.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

PyDoc_STRVAR(segments_doc, "Segments(items, /, *, writable=False, bf16=False)\n--\n\n"
                           "A list of arrays that stands for one flattened vector; keeps them alive, copies nothing.");

static PyType_Slot segments_slots[] = {
    {Py_tp_doc, (void *)segments_doc},   {Py_tp_new, segments_new},           {Py_tp_dealloc, segments_dealloc},
    {Py_tp_traverse, segments_traverse}, {Py_tp_clear, segments_clear},       {Py_tp_repr, segments_repr},
    {Py_sq_length, segments_length},     {Py_tp_getset, segments_attributes}, {0, NULL}};

PyType_Spec glpy_segments_spec = {
    .name = "glyder._core.Segments",
    .basicsize = sizeof(struct glpy_segments),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = segments_slots,
};
