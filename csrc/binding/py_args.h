/* py_args.h - what all files of the binding share: module state, arguments to C values, status to exception.
 *
 * The binding checks everything about Python objects, so that the core can trust its pointers; the core checks
 * numbers.  References: locals start as NULL and leave through one place; no call that steals a reference is used.
 */
#ifndef GL_PY_ARGS_H
#define GL_PY_ARGS_H

#include <Python.h>
#include "../glyder.h"
#include "dlpack_abi.h"

/* ---------------------------------------------------------------- module */

struct glpy_state {
    PyTypeObject *segments_type;
    PyTypeObject *rule_type;
    /* dict: address of a registered type -> (type, capsule of its exchange table); entries are never removed.  By
     * address, since a metaclass may define == and hash, and would be asked in the middle of a list. */
    PyObject *tensor_types;
};

struct glpy_state *glpy_state_of_module(PyObject *module);
/* For instances of our own types, which cannot be subclassed. */
struct glpy_state *glpy_state_of_object(PyObject *object);

/* Under free threading an object that changes is locked while it does; elsewhere the interpreter lock suffices. */
#ifdef Py_GIL_DISABLED
#define GLPY_LOCK(object) Py_BEGIN_CRITICAL_SECTION(object)
#define GLPY_UNLOCK()     Py_END_CRITICAL_SECTION()
#else
#define GLPY_LOCK(object) {
#define GLPY_UNLOCK()     }
#endif

/* Runs `call` without the interpreter lock where it takes long enough (some 10 us) for other threads to gain. */
#define GLPY_RELEASE_FROM 65536
#define GLPY_KERNEL(values, call)                                                                                      \
    do {                                                                                                               \
        PyThreadState *glpy_thread = (values) >= GLPY_RELEASE_FROM ? PyEval_SaveThread() : NULL;                       \
        call;                                                                                                          \
        if (glpy_thread) {                                                                                             \
            PyEval_RestoreThread(glpy_thread);                                                                         \
        }                                                                                                              \
    } while (0)

/* 0 for GL_OK.  Otherwise -1 and an exception that begins with the name of the function. */
int glpy_check(enum gl_status status, const char *function);

/* Whether the exception now set says that an argument is no number, or none that fits; it is gone then, for a message
 * that names the argument.  Everything else (interrupts, lack of memory) stays set. */
int glpy_no_number(void);

/* A whole number in [low, high]; otherwise -1 and an exception that begins with `argument`, in call form. */
int glpy_read_whole(PyObject *object, const char *argument, int64_t low, int64_t high, int64_t *out);

/* ---------------------------------------------------------------- arrays */

/* The one element type that is no gl_dtype: labels. */
#define GLPY_INT64 GL_DTYPE_COUNT

const char *glpy_dtype_name(int dtype);
int glpy_dtype_size(int dtype); /* bytes */

/* Contiguous memory with its shape reduced to what the core asks for. */
struct glpy_array {
    void *ptr;
    int64_t n;
    int64_t last; /* size of the last dimension */
    int ndim;
    int dtype; /* enum gl_dtype or GLPY_INT64 */
};

enum glpy_want {
    GLPY_WRITABLE = 1, /* memory must be writable */
    GLPY_BF16 = 2,     /* a buffer of unsigned 16-bit words is bfloat16 */
    GLPY_LABELS = 4,   /* int64 is wanted, not floating point */
    GLPY_MATRIX = 8    /* tuples are (address, rows, classes, dtype); at least one dimension */
};

/* Reads arrays one after another; the type met last is remembered, since lists of tensors have few types. */
struct glpy_reader {
    struct glpy_state *state;
    const char *name; /* of the argument, for messages */
    Py_ssize_t index; /* of the item within it, or -1 */
    int want;
    PyTypeObject *type;
    gl_dlpack_borrow borrow; /* of `type`; NULL if not registered */
};

/* Takes a registered tensor, a buffer or a tuple.  A buffer is held in *view until PyBuffer_Release(view); otherwise
 * view->obj is NULL and the memory lives as long as `object` does.  0, or -1 with an exception set and nothing held. */
int glpy_read_array(struct glpy_reader *reader, PyObject *object, struct glpy_array *out, Py_buffer *view);

/* Sets exception "<name> <index>: <message>"; returns -1. */
int glpy_refuse(const struct glpy_reader *reader, PyObject *exception, const char *format, ...);

/* The exchange table of a type: 1 and a new reference to its capsule; 0 if it has none that is understood; -1 and an
 * exception. */
int glpy_find_table(PyTypeObject *type, PyObject **capsule);

/* ---------------------------------------------------------------- segments */

/* The memory of one item, as numbers: pointers into different objects may not be compared. */
struct glpy_span {
    uintptr_t start, end;
    Py_ssize_t item;
};

struct glpy_segments {
    PyObject_HEAD PyObject *items; /* tuple: owns what the pointers point into */
    Py_buffer *view;               /* the buffers held, `views` of them */
    struct gl_segment *segment;
    struct glpy_span *span; /* of the items that hold values, by address; none overlap.  NULL unless writable */
    Py_ssize_t count, views, spans;
    int64_t size, nbytes;
    int writable;
};

extern PyType_Spec glpy_segments_spec;
extern PyType_Spec glpy_rule_spec;

/* `object` as segments; NULL and an exception naming the argument if it is anything else. */
struct glpy_segments *glpy_as_segments(struct glpy_state *state, PyObject *object, const char *name);
/* Whether two lists have the same lengths; otherwise -1 and an exception naming the first difference. */
int glpy_same_lengths(const struct glpy_segments *a, const char *a_name, const struct glpy_segments *b,
                      const char *b_name);
/* Whether a list of the same lengths can be read while `out`, which is writable, is written: an item may be the one
 * that it goes into, with the same dtype, and must otherwise lie apart from all.  If not, -1 and an exception. */
int glpy_apart(const struct glpy_segments *out, const char *out_name, const struct glpy_segments *in,
               const char *in_name);

/* ---------------------------------------------------------------- functions of the module, by file */

/* The detour by void (*)(void) keeps compilers quiet about the three-argument form of a method. */
#define GLPY_WITH_KEYWORDS(function) ((PyCFunction)(void (*)(void))(function))

extern PyMethodDef glpy_reduce_methods[];
extern PyMethodDef glpy_ce_methods[];
extern PyMethodDef glpy_rule_methods[];
extern PyMethodDef glpy_schedule_methods[];

#endif
