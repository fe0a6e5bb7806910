/* py_reduce.c - reductions and writers to Python; arguments are Segments made before. */
#include "py_args.h"

/* ---------------------------------------------------------------- reduce */

struct operands {
    struct gl_operand operand[GL_OPERANDS_MAX];
    const struct glpy_segments *first;
    int count;
    uint32_t want;
};

static const struct gl_segment *add_side(struct glpy_state *state, PyObject *object, struct operands *out) {
    const struct glpy_segments *side = glpy_as_segments(state, object, "reduce: an operand");
    if (!side || (out->first && glpy_same_lengths(out->first, "the first operand", side, "another operand") < 0)) {
        return NULL;
    }
    if (!out->first) {
        out->first = side;
    }
    return side->segment;
}

/* `list` is a tuple of ours, so that its items stay alive; each is Segments or a pair of them. */
static int read_operands(struct glpy_state *state, PyObject *list, struct operands *out) {
    Py_ssize_t count = PyTuple_Size(list);
    if (count < 1 || count > GL_OPERANDS_MAX) {
        PyErr_Format(PyExc_ValueError, "reduce: operands must be 1 to %d, got %zd", GL_OPERANDS_MAX, count);
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PyTuple_GetItem(list, i);
        int pair = PyTuple_Check(item);
        if (pair && PyTuple_Size(item) != 2) {
            PyErr_Format(PyExc_ValueError, "reduce: an operand must be Segments or a pair of them, got %R", item);
            return -1;
        }
        struct gl_operand *operand = &out->operand[i];
        operand->plus = add_side(state, pair ? PyTuple_GetItem(item, 0) : item, out);
        operand->minus = operand->plus && pair ? add_side(state, PyTuple_GetItem(item, 1), out) : NULL;
        if (!operand->plus || (pair && !operand->minus)) {
            return -1;
        }
    }
    out->count = (int)count;
    return 0;
}

/* The place of the pair (i, j) in the sums; -1 and an exception if it is no pair of operands. */
static int pair_index(PyObject *item, int operands) {
    long i = -1, j = -1;
    if (PyTuple_Check(item) && PyTuple_Size(item) == 2) {
        i = PyLong_AsLong(PyTuple_GetItem(item, 0));
        j = PyErr_Occurred() ? -1 : PyLong_AsLong(PyTuple_GetItem(item, 1));
    }
    if (PyErr_Occurred() && !glpy_no_number()) {
        return -1;
    }
    if (i < 0 || j < 0 || i >= operands || j >= operands) {
        PyErr_Format(PyExc_ValueError, "reduce: a pair must be two indices of operands, each below %d, got %R",
                     operands, item);
        return -1;
    }
    return (int)(i <= j ? GL_PAIR(i, j) : GL_PAIR(j, i));
}

/* The places of the pairs, to be freed with PyMem_Free; NULL and an exception if one is no pair.  They are read once:
 * an index may be any object, and answer otherwise the second time. */
static unsigned char *read_pairs(PyObject *pairs, struct operands *out) {
    Py_ssize_t count = PyTuple_Size(pairs);
    unsigned char *place = PyMem_Calloc((size_t)count, sizeof *place);
    if (!place) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t p = 0; p < count; p++) {
        int index = pair_index(PyTuple_GetItem(pairs, p), out->count);
        if (index < 0) {
            PyMem_Free(place);
            return NULL;
        }
        place[p] = (unsigned char)index;
        out->want |= (uint32_t)1 << index;
    }
    return place;
}

/* A list as a tuple; takes the list's reference, and NULL gives NULL. */
static PyObject *as_tuple(PyObject *list) {
    PyObject *result = list ? PyList_AsTuple(list) : NULL;
    Py_XDECREF(list);
    return result;
}

/* 0, or -1 and an exception; `value` is the caller's reference, which it gives up, and may be NULL. */
static int append(PyObject *list, PyObject *value) {
    int status = value ? PyList_Append(list, value) : -1;
    Py_XDECREF(value);
    return status;
}

/* The sums at these places, in their order. */
static PyObject *collect(const unsigned char *place, Py_ssize_t count, const double *sums) {
    PyObject *list = PyList_New(0);
    for (Py_ssize_t p = 0; list && p < count; p++) {
        if (append(list, PyFloat_FromDouble(sums[place[p]])) < 0) {
            Py_CLEAR(list);
        }
    }
    return as_tuple(list);
}

PyDoc_STRVAR(reduce_doc, "reduce(operands, pairs, /)\n--\n\n"
                         "Inner products of the pairs asked for, in one pass. An operand (a, b) is a - b.");

static PyObject *reduce(PyObject *module, PyObject *args) {
    PyObject *operands_arg = NULL, *pairs_arg = NULL, *operands = NULL, *pairs = NULL, *result = NULL;
    struct operands all = {.first = NULL};
    double sums[GL_PAIRS_MAX];
    unsigned char *place = NULL;
    enum gl_status status;
    if (!PyArg_ParseTuple(args, "OO:reduce", &operands_arg, &pairs_arg)) {
        return NULL;
    }
    operands = PySequence_Tuple(operands_arg);
    pairs = operands ? PySequence_Tuple(pairs_arg) : NULL;
    if (!pairs || read_operands(glpy_state_of_module(module), operands, &all) < 0) {
        goto done;
    }
    place = read_pairs(pairs, &all);
    if (!place) {
        goto done;
    }
    GLPY_KERNEL(all.first->size, status = gl_reduce(all.operand, all.count, all.first->count, all.want, sums));
    if (glpy_check(status, "reduce") == 0) {
        result = collect(place, PyTuple_Size(pairs), sums);
    }
done:
    PyMem_Free(place);
    Py_XDECREF(operands);
    Py_XDECREF(pairs);
    return result;
}

PyDoc_STRVAR(reduce_each_doc, "reduce_each(operands, pairs, /)\n--\n\n"
                              "The same for every segment by itself: a tuple of numbers for each of the pairs.");

/* The sums of one pair, segment by segment. */
static PyObject *column(double (*sums)[GL_PAIRS_MAX], Py_ssize_t count, int place) {
    PyObject *list = PyList_New(0);
    for (Py_ssize_t s = 0; list && s < count; s++) {
        if (append(list, PyFloat_FromDouble(sums[s][place])) < 0) {
            Py_CLEAR(list);
        }
    }
    return as_tuple(list);
}

static PyObject *reduce_each(PyObject *module, PyObject *args) {
    PyObject *operands_arg = NULL, *pairs_arg = NULL, *operands = NULL, *pairs = NULL, *result = NULL;
    struct operands all = {.first = NULL};
    double (*sums)[GL_PAIRS_MAX] = NULL;
    unsigned char *place = NULL;
    enum gl_status status;
    if (!PyArg_ParseTuple(args, "OO:reduce_each", &operands_arg, &pairs_arg)) {
        return NULL;
    }
    operands = PySequence_Tuple(operands_arg);
    pairs = operands ? PySequence_Tuple(pairs_arg) : NULL;
    if (!pairs || read_operands(glpy_state_of_module(module), operands, &all) < 0) {
        goto done;
    }
    place = read_pairs(pairs, &all);
    sums = place ? PyMem_Calloc((size_t)all.first->count, sizeof *sums) : NULL;
    if (!sums) {
        if (place) {
            PyErr_NoMemory();
        }
        goto done;
    }
    GLPY_KERNEL(all.first->size, status = gl_reduce_each(all.operand, all.count, all.first->count, all.want, sums));
    if (glpy_check(status, "reduce_each") == 0) {
        PyObject *list = PyList_New(0);
        for (Py_ssize_t p = 0; list && p < PyTuple_Size(pairs); p++) {
            if (append(list, column(sums, all.first->count, place[p])) < 0) {
                Py_CLEAR(list);
            }
        }
        result = as_tuple(list);
    }
done:
    PyMem_Free(sums);
    PyMem_Free(place);
    Py_XDECREF(operands);
    Py_XDECREF(pairs);
    return result;
}

/* ---------------------------------------------------------------- tensor by tensor */

/* A sequence of numbers as doubles, to be freed with PyMem_Free; NULL and an exception if it is none. */
static double *read_numbers(PyObject *object, const char *name, Py_ssize_t *count) {
    PyObject *items = PySequence_Tuple(object);
    double *numbers = NULL;
    if (!items) {
        return NULL;
    }
    Py_ssize_t n = PyTuple_Size(items);
    if (*count >= 0 && n != *count) {
        PyErr_Format(PyExc_ValueError, "%s must have %zd numbers, as the first argument has, got %zd", name, *count, n);
        goto done;
    }
    numbers = PyMem_Calloc((size_t)n, sizeof *numbers);
    if (!numbers) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        numbers[i] = PyFloat_AsDouble(PyTuple_GetItem(items, i));
        if (numbers[i] == -1.0 && PyErr_Occurred()) {
            PyMem_Free(numbers);
            numbers = NULL;
            goto done;
        }
    }
    *count = n;
done:
    Py_DECREF(items);
    return numbers;
}

PyDoc_STRVAR(mean_cosine_doc,
             "mean_cosine(ab, aa, bb, /)\n--\n\n"
             "Mean of the cosines of pairs of vectors, from their inner products; and how many count.");

static PyObject *mean_cosine(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *ab_arg = NULL, *aa_arg = NULL, *bb_arg = NULL, *result = NULL;
    Py_ssize_t n = -1;
    double mean = 0;
    int64_t counted = 0;
    if (!PyArg_ParseTuple(args, "OOO:mean_cosine", &ab_arg, &aa_arg, &bb_arg)) {
        return NULL;
    }
    double *ab = read_numbers(ab_arg, "mean_cosine: ab", &n);
    double *aa = ab ? read_numbers(aa_arg, "mean_cosine: aa", &n) : NULL;
    double *bb = aa ? read_numbers(bb_arg, "mean_cosine: bb", &n) : NULL;
    if (bb && glpy_check(gl_mean_cosine(ab, aa, bb, n, &mean, &counted), "mean_cosine") == 0) {
        result = Py_BuildValue("(dL)", mean, (long long)counted);
    }
    PyMem_Free(ab);
    PyMem_Free(aa);
    PyMem_Free(bb);
    return result;
}

PyDoc_STRVAR(sum_of_ratios_doc, "sum_of_ratios(dd, xx, /)\n--\n\n"
                                "Sum of the quotients of squared lengths; and how many count.");

static PyObject *sum_of_ratios(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *dd_arg = NULL, *xx_arg = NULL, *result = NULL;
    Py_ssize_t n = -1;
    double sum = 0;
    int64_t counted = 0;
    if (!PyArg_ParseTuple(args, "OO:sum_of_ratios", &dd_arg, &xx_arg)) {
        return NULL;
    }
    double *dd = read_numbers(dd_arg, "sum_of_ratios: dd", &n);
    double *xx = dd ? read_numbers(xx_arg, "sum_of_ratios: xx", &n) : NULL;
    if (xx && glpy_check(gl_sum_of_ratios(dd, xx, n, &sum, &counted), "sum_of_ratios") == 0) {
        result = Py_BuildValue("(dL)", sum, (long long)counted);
    }
    PyMem_Free(dd);
    PyMem_Free(xx);
    return result;
}

/* ---------------------------------------------------------------- writers */

static const struct glpy_segments *target(struct glpy_state *state, PyObject *object, const char *name) {
    const struct glpy_segments *segments = glpy_as_segments(state, object, name);
    if (segments && !segments->writable) {
        PyErr_Format(PyExc_ValueError, "%s must be Segments made with writable=True", name);
        return NULL;
    }
    return segments;
}

static const struct glpy_segments *source(struct glpy_state *state, PyObject *object, const char *name,
                                          const struct glpy_segments *like, const char *like_name) {
    const struct glpy_segments *segments = glpy_as_segments(state, object, name);
    if (segments &&
        (glpy_same_lengths(like, like_name, segments, name) < 0 || glpy_apart(like, like_name, segments, name) < 0)) {
        return NULL;
    }
    return segments;
}

static PyObject *finish(enum gl_status status, const char *function) {
    if (glpy_check(status, function) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(copy_doc, "copy(dst, src, /)\n--\n\ndst <- src, rounded where the dtypes differ.");

static PyObject *copy(PyObject *module, PyObject *args) {
    struct glpy_state *state = glpy_state_of_module(module);
    PyObject *dst_arg = NULL, *src_arg = NULL;
    enum gl_status status;
    if (!PyArg_ParseTuple(args, "OO:copy", &dst_arg, &src_arg)) {
        return NULL;
    }
    const struct glpy_segments *dst = target(state, dst_arg, "copy: dst");
    const struct glpy_segments *src = dst ? source(state, src_arg, "copy: src", dst, "dst") : NULL;
    if (!src) {
        return NULL;
    }
    GLPY_KERNEL(dst->size, status = gl_copy(dst->segment, src->segment, dst->count));
    return finish(status, "copy");
}

PyDoc_STRVAR(displace_doc, "displace(out, older, scale, newer, /)\n--\n\nout <- scale*older - newer.");

static PyObject *displace(PyObject *module, PyObject *args) {
    struct glpy_state *state = glpy_state_of_module(module);
    PyObject *out_arg = NULL, *older_arg = NULL, *newer_arg = NULL;
    double scale = 0;
    enum gl_status status;
    if (!PyArg_ParseTuple(args, "OOdO:displace", &out_arg, &older_arg, &scale, &newer_arg)) {
        return NULL;
    }
    const struct glpy_segments *out = target(state, out_arg, "displace: out");
    const struct glpy_segments *older = out ? source(state, older_arg, "displace: older", out, "out") : NULL;
    const struct glpy_segments *newer = older ? source(state, newer_arg, "displace: newer", out, "out") : NULL;
    if (!newer) {
        return NULL;
    }
    GLPY_KERNEL(out->size, status = gl_displace(out->segment, older->segment, scale, newer->segment, out->count));
    return finish(status, "displace");
}

PyDoc_STRVAR(perturb_doc, "perturb(dst, x, c, delta, /)\n--\n\ndst <- x + c*delta.");

static PyObject *perturb(PyObject *module, PyObject *args) {
    struct glpy_state *state = glpy_state_of_module(module);
    PyObject *dst_arg = NULL, *x_arg = NULL, *delta_arg = NULL;
    double c = 0;
    enum gl_status status;
    if (!PyArg_ParseTuple(args, "OOdO:perturb", &dst_arg, &x_arg, &c, &delta_arg)) {
        return NULL;
    }
    const struct glpy_segments *dst = target(state, dst_arg, "perturb: dst");
    const struct glpy_segments *x = dst ? source(state, x_arg, "perturb: x", dst, "dst") : NULL;
    const struct glpy_segments *delta = x ? source(state, delta_arg, "perturb: delta", dst, "dst") : NULL;
    if (!delta) {
        return NULL;
    }
    GLPY_KERNEL(dst->size, status = gl_perturb(dst->segment, x->segment, c, delta->segment, dst->count));
    return finish(status, "perturb");
}

PyMethodDef glpy_reduce_methods[] = {{"reduce", reduce, METH_VARARGS, reduce_doc},
                                     {"reduce_each", reduce_each, METH_VARARGS, reduce_each_doc},
                                     {"mean_cosine", mean_cosine, METH_VARARGS, mean_cosine_doc},
                                     {"sum_of_ratios", sum_of_ratios, METH_VARARGS, sum_of_ratios_doc},
                                     {"copy", copy, METH_VARARGS, copy_doc},
                                     {"displace", displace, METH_VARARGS, displace_doc},
                                     {"perturb", perturb, METH_VARARGS, perturb_doc},
                                     {NULL, NULL, 0, NULL}};
