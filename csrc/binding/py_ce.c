/* py_ce.c - cross-entropy by its logits to Python: curvature, row weights, sampled labels.
 *
 * A matrix is an array whose last dimension counts the classes; all others together count the rows.  Arrays belong
 * to the caller's arguments and stay alive for the call; buffers are held until its end by `struct held`, which also
 * sees to it that no output lies on an input: the core checks its inputs before it writes, and reads them after.
 */
#include "py_args.h"
#include <string.h>

/* ---------------------------------------------------------------- arguments */

#define HELD_MAX 5

/* The arrays of one call: where they are read, the buffers to give back, and the inputs, which come before outputs. */
struct held {
    struct glpy_state *state;
    int in_place; /* the output may be the first array itself, with the same dtype */
    Py_buffer view[HELD_MAX];
    int views;
    struct {
        const char *name;
        struct glpy_array array;
    } input[HELD_MAX];
    int inputs;
};

static void release(struct held *held) {
    while (held->views > 0) {
        PyBuffer_Release(&held->view[--held->views]);
    }
}

static int same_array(const struct glpy_array *a, const struct glpy_array *b) {
    return a->ptr == b->ptr && a->n == b->n && a->dtype == b->dtype;
}

static int overlap(const struct glpy_array *a, const struct glpy_array *b) {
    uintptr_t a_start = (uintptr_t)a->ptr, a_end = a_start + (uintptr_t)a->n * (uintptr_t)glpy_dtype_size(a->dtype);
    uintptr_t b_start = (uintptr_t)b->ptr, b_end = b_start + (uintptr_t)b->n * (uintptr_t)glpy_dtype_size(b->dtype);
    return a->n > 0 && b->n > 0 && a_start < b_end && b_start < a_end;
}

/* Names are "<function>: <argument>"; the message has the function once. */
static int check_output(const struct held *held, const char *name, const struct glpy_array *array) {
    for (int i = 0; i < held->inputs; i++) {
        const struct glpy_array *input = &held->input[i].array;
        if (overlap(array, input) && !(held->in_place && i == 0 && same_array(array, input))) {
            PyErr_Format(PyExc_ValueError, "%s overlaps%s", name, strrchr(held->input[i].name, ' '));
            return -1;
        }
    }
    return 0;
}

static int read_array(struct held *held, PyObject *object, const char *name, int want, struct glpy_array *out) {
    struct glpy_reader reader = {.state = held->state, .name = name, .index = -1, .want = want};
    Py_buffer *view = &held->view[held->views];
    if (glpy_read_array(&reader, object, out, view) < 0) {
        return -1;
    }
    held->views += view->obj != NULL;
    if (want & GLPY_WRITABLE) {
        return check_output(held, name, out);
    }
    held->input[held->inputs].name = name;
    held->input[held->inputs++].array = *out;
    return 0;
}

/* `like` is NULL, or a matrix of which this one must have the shape. */
static int read_matrix(struct held *held, PyObject *object, const char *name, const struct gl_matrix *like,
                       struct gl_matrix *out) {
    struct glpy_array array;
    if (read_array(held, object, name, GLPY_MATRIX, &array) < 0) {
        return -1;
    }
    if (array.last < 1) {
        PyErr_Format(PyExc_ValueError, "%s: no classes", name);
        return -1;
    }
    int64_t rows = array.n / array.last;
    if (like && (rows != like->rows || array.last != like->classes)) {
        PyErr_Format(PyExc_ValueError, "%s: %lld rows of %lld classes, z has %lld of %lld", name, (long long)rows,
                     (long long)array.last, (long long)like->rows, (long long)like->classes);
        return -1;
    }
    *out = (struct gl_matrix){array.ptr, rows, array.last, (enum gl_dtype)array.dtype};
    return 0;
}

/* A vector that the core reads or writes as it lies: of this dtype, aligned, and of *n values, or of any number,
 * which *n tells then, where *n is ANY. */
#define ANY (-1)

static int read_vector(struct held *held, PyObject *object, const char *name, int dtype, int64_t *n, int want,
                       void **out) {
    struct glpy_array array;
    if (read_array(held, object, name, want | (dtype == GLPY_INT64 ? GLPY_LABELS : 0), &array) < 0) {
        return -1;
    }
    if (array.dtype != dtype) {
        PyErr_Format(PyExc_TypeError, "%s: dtype %s, not %s", name, glpy_dtype_name(array.dtype),
                     glpy_dtype_name(dtype));
        return -1;
    }
    if (*n != ANY && array.n != *n) {
        PyErr_Format(PyExc_ValueError, "%s: %lld values, not %lld", name, (long long)array.n, (long long)*n);
        return -1;
    }
    if ((uintptr_t)array.ptr % sizeof(double) != 0) {
        PyErr_Format(PyExc_ValueError, "%s: not aligned to its dtype", name);
        return -1;
    }
    *out = array.ptr;
    *n = array.n;
    return 0;
}

/* None leaves NULL, which the core takes for ones. */
static int read_weights(struct held *held, PyObject *object, const char *name, int64_t n, const double **out) {
    void *ptr = NULL;
    if (object != Py_None && read_vector(held, object, name, GL_F64, &n, 0, &ptr) < 0) {
        return -1;
    }
    *out = ptr;
    return 0;
}

static int read_reduction(const char *function, const char *name, enum gl_reduction *out) {
    if (strcmp(name, "mean") != 0 && strcmp(name, "sum") != 0) {
        PyErr_Format(PyExc_ValueError, "%s(reduction=...) must be \"mean\" or \"sum\", got \"%s\"", function, name);
        return -1;
    }
    *out = strcmp(name, "mean") == 0 ? GL_REDUCTION_MEAN : GL_REDUCTION_SUM;
    return 0;
}

/* NaN fails both comparisons. */
static int check_smoothing(const char *function, double smoothing) {
    if (smoothing >= 0 && smoothing <= 1) {
        return 0;
    }
    PyObject *got = PyFloat_FromDouble(smoothing);
    if (got) {
        PyErr_Format(PyExc_ValueError, "%s(label_smoothing=...) must be in [0, 1], got %R", function, got);
    }
    Py_XDECREF(got);
    return -1;
}

/* The function's answer to a status; a label that the core refused is looked for, to be named.  Labels of weight 0 and
 * those that equal *ignored, where given, are of no account. */
static PyObject *finish_labelled(enum gl_status status, const char *function, const struct gl_matrix *shape,
                                 const int64_t *label, const double *k, const int64_t *ignored) {
    for (int64_t row = 0; status == GL_ERR_ARGUMENT && row < shape->rows; row++) {
        int counts = (!k || k[row] != 0) && !(ignored && label[row] == *ignored);
        if (counts && (label[row] < 0 || label[row] >= shape->classes)) {
            PyErr_Format(PyExc_ValueError, "%s: label of row %lld must be in [0, %lld), got %lld", function,
                         (long long)row, (long long)shape->classes, (long long)label[row]);
            return NULL;
        }
    }
    return glpy_check(status, function) < 0 ? NULL : Py_NewRef(Py_None);
}

static int64_t size_of(const struct gl_matrix *matrix) {
    return matrix->rows * matrix->classes;
}

/* ---------------------------------------------------------------- curvature */

PyDoc_STRVAR(curvature_doc,
             "ce_curvature(z, plus, minus, inv_two_eps, k=None, /)\n--\n\n"
             "sum_i k_i sum_c p_ic (u_ic - ubar_i)^2 with u = (plus - minus)*inv_two_eps, p = softmax(z).");

static PyObject *ce_curvature(PyObject *module, PyObject *args) {
    struct held held = {.state = glpy_state_of_module(module)};
    PyObject *z_arg = NULL, *plus_arg = NULL, *minus_arg = NULL, *k_arg = Py_None, *result = NULL;
    struct gl_matrix z, plus, minus;
    const double *k = NULL;
    double inv_two_eps = 0, sum = 0;
    enum gl_status status;
    if (!PyArg_ParseTuple(args, "OOOd|O:ce_curvature", &z_arg, &plus_arg, &minus_arg, &inv_two_eps, &k_arg)) {
        return NULL;
    }
    if (read_matrix(&held, z_arg, "ce_curvature: z", NULL, &z) < 0 ||
        read_matrix(&held, plus_arg, "ce_curvature: plus", &z, &plus) < 0 ||
        (minus_arg != Py_None && read_matrix(&held, minus_arg, "ce_curvature: minus", &z, &minus) < 0) ||
        read_weights(&held, k_arg, "ce_curvature: k", z.rows, &k) < 0) {
        goto done;
    }
    const struct gl_matrix *subtracted = minus_arg == Py_None ? NULL : &minus;
    GLPY_KERNEL(size_of(&z), status = gl_ce_curvature(&z, &plus, subtracted, inv_two_eps, k, &sum));
    if (glpy_check(status, "ce_curvature") == 0) {
        result = PyFloat_FromDouble(sum);
    }
done:
    release(&held);
    return result;
}

/* ---------------------------------------------------------------- row weights */

PyDoc_STRVAR(weights_hard_doc,
             "ce_weights_hard(label, classes, /, *, class_weight=None, ignore_index=-100, label_smoothing=0.0, "
             "reduction='mean', out)\n--\n\nRow weights of torch's cross_entropy with class indices.");

static PyObject *ce_weights_hard(PyObject *module, PyObject *args, PyObject *keywords) {
    static char *names[] = {"", "", "class_weight", "ignore_index", "label_smoothing", "reduction", "out", NULL};
    struct held held = {.state = glpy_state_of_module(module)};
    PyObject *label_arg = NULL, *classes_arg = NULL, *weight_arg = Py_None, *ignore_arg = NULL, *out_arg = NULL;
    PyObject *result = NULL;
    const char *reduction_name = "mean";
    int64_t classes = 0, ignore_index = -100;
    double smoothing = 0;
    const double *weight = NULL;
    void *label = NULL, *out = NULL;
    int64_t rows = ANY;
    enum gl_reduction reduction;
    enum gl_status status;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO|$OOdsO:ce_weights_hard", names, &label_arg, &classes_arg,
                                     &weight_arg, &ignore_arg, &smoothing, &reduction_name, &out_arg)) {
        return NULL;
    }
    if (!out_arg) {
        PyErr_SetString(PyExc_TypeError, "ce_weights_hard(out=...) is missing");
        return NULL;
    }
    if (glpy_read_whole(classes_arg, "ce_weights_hard(classes=...)", 1, INT64_MAX, &classes) < 0 ||
        (ignore_arg &&
         glpy_read_whole(ignore_arg, "ce_weights_hard(ignore_index=...)", INT64_MIN, INT64_MAX, &ignore_index) < 0) ||
        check_smoothing("ce_weights_hard", smoothing) < 0 ||
        read_reduction("ce_weights_hard", reduction_name, &reduction) < 0 ||
        read_vector(&held, label_arg, "ce_weights_hard: label", GLPY_INT64, &rows, 0, &label) < 0 ||
        read_weights(&held, weight_arg, "ce_weights_hard: class_weight", classes, &weight) < 0 ||
        read_vector(&held, out_arg, "ce_weights_hard: out", GL_F64, &rows, GLPY_WRITABLE, &out) < 0) {
        goto done;
    }
    GLPY_KERNEL(rows,
                status = gl_ce_weights_hard(label, rows, classes, weight, ignore_index, smoothing, reduction, out));
    const struct gl_matrix shape = {.rows = rows, .classes = classes};
    result = finish_labelled(status, "ce_weights_hard", &shape, label, NULL, &ignore_index);
done:
    release(&held);
    return result;
}

PyDoc_STRVAR(weights_soft_doc, "ce_weights_soft(target, /, *, class_weight=None, label_smoothing=0.0, "
                               "reduction='mean', out)\n--\n\n"
                               "Row weights of torch's cross_entropy with class probabilities.");

static PyObject *ce_weights_soft(PyObject *module, PyObject *args, PyObject *keywords) {
    static char *names[] = {"", "class_weight", "label_smoothing", "reduction", "out", NULL};
    struct held held = {.state = glpy_state_of_module(module)};
    PyObject *target_arg = NULL, *weight_arg = Py_None, *out_arg = NULL, *result = NULL;
    const char *reduction_name = "mean";
    double smoothing = 0;
    const double *weight = NULL;
    void *out = NULL;
    struct gl_matrix target;
    enum gl_reduction reduction;
    enum gl_status status;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|$OdsO:ce_weights_soft", names, &target_arg, &weight_arg,
                                     &smoothing, &reduction_name, &out_arg)) {
        return NULL;
    }
    if (!out_arg) {
        PyErr_SetString(PyExc_TypeError, "ce_weights_soft(out=...) is missing");
        return NULL;
    }
    if (check_smoothing("ce_weights_soft", smoothing) < 0 ||
        read_reduction("ce_weights_soft", reduction_name, &reduction) < 0 ||
        read_matrix(&held, target_arg, "ce_weights_soft: target", NULL, &target) < 0 ||
        read_weights(&held, weight_arg, "ce_weights_soft: class_weight", target.classes, &weight) < 0 ||
        read_vector(&held, out_arg, "ce_weights_soft: out", GL_F64, &target.rows, GLPY_WRITABLE, &out) < 0) {
        goto done;
    }
    GLPY_KERNEL(size_of(&target), status = gl_ce_weights_soft(&target, weight, smoothing, reduction, out));
    if (glpy_check(status, "ce_weights_soft") == 0) {
        result = Py_NewRef(Py_None);
    }
done:
    release(&held);
    return result;
}

PyDoc_STRVAR(infer_doc, "ce_infer(z, r, k_out, /)\n--\n\n"
                        "Row weights read off the gradient r by the logits z: (kind, rows, misfit, weight).");

static PyObject *ce_infer(PyObject *module, PyObject *args) {
    static const char *const kinds[] = {
        [GL_CE_NONE] = "none", [GL_CE_HARD] = "hard", [GL_CE_MEAN] = "mean", [GL_CE_SMOOTH] = "smooth"};
    struct held held = {.state = glpy_state_of_module(module)};
    PyObject *z_arg = NULL, *r_arg = NULL, *k_arg = NULL, *result = NULL;
    struct gl_matrix z, r;
    struct gl_ce_fit fit;
    void *k = NULL;
    enum gl_status status;
    if (!PyArg_ParseTuple(args, "OOO:ce_infer", &z_arg, &r_arg, &k_arg)) {
        return NULL;
    }
    if (read_matrix(&held, z_arg, "ce_infer: z", NULL, &z) < 0 ||
        read_matrix(&held, r_arg, "ce_infer: r", &z, &r) < 0 ||
        read_vector(&held, k_arg, "ce_infer: k_out", GL_F64, &z.rows, GLPY_WRITABLE, &k) < 0) {
        goto done;
    }
    GLPY_KERNEL(size_of(&z), status = gl_ce_infer(&z, &r, k, &fit));
    if (glpy_check(status, "ce_infer") == 0) {
        result = Py_BuildValue("(sLdd)", kinds[fit.kind], (long long)fit.rows, fit.misfit, fit.weight);
    }
done:
    release(&held);
    return result;
}

/* ---------------------------------------------------------------- sampling */

PyDoc_STRVAR(sample_doc, "ce_sample(z, seed, draw, label_out, /)\n--\n\n"
                         "label_i ~ softmax(z_i); (seed, draw, i) alone decide.");

static PyObject *ce_sample(PyObject *module, PyObject *args) {
    struct held held = {.state = glpy_state_of_module(module)};
    PyObject *z_arg = NULL, *seed_arg = NULL, *draw_arg = NULL, *label_arg = NULL, *result = NULL;
    struct gl_matrix z;
    void *label = NULL;
    enum gl_status status;
    if (!PyArg_ParseTuple(args, "OO!O!O:ce_sample", &z_arg, &PyLong_Type, &seed_arg, &PyLong_Type, &draw_arg,
                          &label_arg)) {
        return NULL;
    }
    uint64_t seed = PyLong_AsUnsignedLongLong(seed_arg);
    uint64_t draw = PyErr_Occurred() ? 0 : PyLong_AsUnsignedLongLong(draw_arg);
    if (PyErr_Occurred()) {
        if (!glpy_no_number()) {
            return NULL;
        }
        PyErr_Format(PyExc_ValueError, "ce_sample: seed and draw must lie in [0, 2**64), got %R and %R", seed_arg,
                     draw_arg);
        return NULL;
    }
    if (read_matrix(&held, z_arg, "ce_sample: z", NULL, &z) < 0 ||
        read_vector(&held, label_arg, "ce_sample: label_out", GLPY_INT64, &z.rows, GLPY_WRITABLE, &label) < 0) {
        goto done;
    }
    GLPY_KERNEL(size_of(&z), status = gl_ce_sample(&z, seed, draw, label));
    if (glpy_check(status, "ce_sample") == 0) {
        result = Py_NewRef(Py_None);
    }
done:
    release(&held);
    return result;
}

PyDoc_STRVAR(residual_doc, "ce_residual(z, label, k, out, /)\n--\n\n"
                           "out_ic <- k_i (p_ic - [c == label_i]); k may be None.");

static PyObject *ce_residual(PyObject *module, PyObject *args) {
    struct held held = {.state = glpy_state_of_module(module), .in_place = 1};
    PyObject *z_arg = NULL, *label_arg = NULL, *k_arg = NULL, *out_arg = NULL, *result = NULL;
    struct gl_matrix z;
    struct glpy_array out;
    const double *k = NULL;
    void *label = NULL;
    enum gl_status status;
    if (!PyArg_ParseTuple(args, "OOOO:ce_residual", &z_arg, &label_arg, &k_arg, &out_arg)) {
        return NULL;
    }
    if (read_matrix(&held, z_arg, "ce_residual: z", NULL, &z) < 0 ||
        read_vector(&held, label_arg, "ce_residual: label", GLPY_INT64, &z.rows, 0, &label) < 0 ||
        read_weights(&held, k_arg, "ce_residual: k", z.rows, &k) < 0 ||
        read_array(&held, out_arg, "ce_residual: out", GLPY_MATRIX | GLPY_WRITABLE, &out) < 0) {
        goto done;
    }
    if (out.n != size_of(&z)) {
        PyErr_Format(PyExc_ValueError, "ce_residual: out: %lld values, not %lld", (long long)out.n,
                     (long long)size_of(&z));
        goto done;
    }
    const struct gl_segment segment = {out.ptr, out.n, (enum gl_dtype)out.dtype};
    GLPY_KERNEL(size_of(&z), status = gl_ce_residual(&z, label, k, &segment));
    result = finish_labelled(status, "ce_residual", &z, label, k, NULL);
done:
    release(&held);
    return result;
}

PyMethodDef glpy_ce_methods[] = {
    {"ce_curvature", ce_curvature, METH_VARARGS, curvature_doc},
    {"ce_weights_hard", GLPY_WITH_KEYWORDS(ce_weights_hard), METH_VARARGS | METH_KEYWORDS, weights_hard_doc},
    {"ce_weights_soft", GLPY_WITH_KEYWORDS(ce_weights_soft), METH_VARARGS | METH_KEYWORDS, weights_soft_doc},
    {"ce_infer", ce_infer, METH_VARARGS, infer_doc},
    {"ce_sample", ce_sample, METH_VARARGS, sample_doc},
    {"ce_residual", ce_residual, METH_VARARGS, residual_doc},
    {NULL, NULL, 0, NULL}};
