/* gl_ce_weights.c - row weights k_i of softmax cross-entropy from its targets, as torch defines the loss.
 *
 *   class indices        k_i = ((1-s) w_y + s/C sum_c w_c) / D,   D = sum_i w_{y_i} for the mean, 1 for the sum
 *   class probabilities  k_i = sum_c w_c ((1-s) t_ic + s/C) / D,  D = number of rows for the mean, 1 for the sum
 *
 * s is the label smoothing, w the class weights, and ignored rows have k_i = 0 and no part in D.  Definition:
 * torch.nn.functional.cross_entropy.  With D = 0 (every row ignored) torch's mean is 0/0; here all k_i are 0, for
 * such a batch has no gradient.
 *
 * It will not check that probabilities lie on the simplex; torch does not either.
 */
#include <stddef.h>
#include "glyder.h"
#include "gl_common.h"  /* GL_NOINLINE */
#include "gl_level.h"   /* gl_kernels_current */
#include "gl_fpenv.h"   /* gl_fpenv_enter, gl_fpenv_leave */
#include "gl_kernels.h" /* struct gl_kernels, GL_BLOCK */
#include "gl_softmax.h" /* gl_matrix_check, gl_block */

static int is_reduction(enum gl_reduction reduction) {
    return reduction == GL_REDUCTION_MEAN || reduction == GL_REDUCTION_SUM;
}

/* NaN fails both comparisons. */
static int is_smoothing(double smoothing) {
    return smoothing >= 0 && smoothing <= 1;
}

static double weight_of(const double *class_weight, int64_t c) {
    return class_weight == NULL ? 1 : class_weight[c];
}

static double weight_sum(const double *class_weight, int64_t classes) {
    double sum = 0;
    for (int64_t c = 0; c < classes; c++)
        sum += weight_of(class_weight, c);
    return sum;
}

/* ---------------------------------------------------------------- class indices */

struct hard {
    const int64_t *label;
    int64_t rows, classes, ignore_index;
    const double *class_weight;
    double smoothing;
    enum gl_reduction reduction;
};

/* The label of a row that counts, or -1.  The array is the caller's, whose other threads may write to it after it was
 * checked: it is read once for each use and checked again, so that whatever it holds indexes a class weight. */
static int64_t label_at(const struct hard *hard, int64_t row) {
    int64_t y = *(const volatile int64_t *)&hard->label[row];
    return y != hard->ignore_index && y >= 0 && y < hard->classes ? y : -1;
}

static GL_NOINLINE void weigh_hard(const struct hard *hard, double *k) {
    double floor = hard->smoothing / (double)hard->classes * weight_sum(hard->class_weight, hard->classes);
    double labelled = 0;
    for (int64_t row = 0; row < hard->rows; row++) {
        int64_t y = label_at(hard, row);
        if (y >= 0)
            labelled += weight_of(hard->class_weight, y);
    }
    double divisor = hard->reduction == GL_REDUCTION_MEAN ? labelled : 1;
    for (int64_t row = 0; row < hard->rows; row++) {
        int64_t y = label_at(hard, row);
        int counts = y >= 0 && divisor != 0;
        k[row] = counts ? ((1 - hard->smoothing) * weight_of(hard->class_weight, y) + floor) / divisor : 0;
    }
}

enum gl_status gl_ce_weights_hard(const int64_t *label, int64_t rows, int64_t classes, const double *class_weight,
                                  int64_t ignore_index, double smoothing, enum gl_reduction reduction, double *k) {
    if (rows < 0 || classes < 1 || !is_smoothing(smoothing) || !is_reduction(reduction))
        return GL_ERR_ARGUMENT;
    if (rows > 0 && (label == NULL || k == NULL))
        return GL_ERR_ARGUMENT;
    for (int64_t row = 0; row < rows; row++)
        if (label[row] != ignore_index && (label[row] < 0 || label[row] >= classes))
            return GL_ERR_ARGUMENT;
    struct hard hard = {label, rows, classes, ignore_index, class_weight, smoothing, reduction};
    gl_fpenv saved = gl_fpenv_enter();
    weigh_hard(&hard, k);
    gl_fpenv_leave(saved);
    return GL_OK;
}

/* ---------------------------------------------------------------- class probabilities */

struct soft {
    const struct gl_matrix *target;
    const double *class_weight;
    double smoothing;
    enum gl_reduction reduction;
};

static double weighted_mass(const struct gl_kernels *kernels, const struct soft *soft, int64_t row) {
    double t[GL_BLOCK], mass = 0;
    struct gl_block block;
    for (gl_block_start(&block, soft->target); block.n > 0; gl_block_next(&block, soft->target)) {
        gl_block_load(kernels, soft->target, row, &block, 0, t);
        if (soft->class_weight != NULL)
            for (int64_t c = 0; c < block.n; c++)
                t[c] *= soft->class_weight[block.start + c];
        mass += kernels->softmax.sum(t, block.padded);
    }
    return mass;
}

static GL_NOINLINE void weigh_soft(const struct gl_kernels *kernels, const struct soft *soft, double *k) {
    int64_t rows = soft->target->rows, classes = soft->target->classes;
    double divisor = soft->reduction == GL_REDUCTION_MEAN ? (double)rows : 1;
    double floor = rows > 0 ? soft->smoothing / (double)classes * weight_sum(soft->class_weight, classes) : 0;
    for (int64_t row = 0; row < rows; row++)
        k[row] = ((1 - soft->smoothing) * weighted_mass(kernels, soft, row) + floor) / divisor;
}

enum gl_status gl_ce_weights_soft(const struct gl_matrix *target, const double *class_weight, double smoothing,
                                  enum gl_reduction reduction, double *k) {
    enum gl_status status = gl_matrix_check(target);
    if (status != GL_OK)
        return status;
    if (!is_smoothing(smoothing) || !is_reduction(reduction) || (k == NULL && target->rows > 0))
        return GL_ERR_ARGUMENT;
    struct soft soft = {target, class_weight, smoothing, reduction};
    gl_fpenv saved = gl_fpenv_enter();
    weigh_soft(gl_kernels_current(), &soft, k);
    gl_fpenv_leave(saved);
    return GL_OK;
}
