/* gl_ce_sample.c - labels drawn from a softmax, and the residual: the gradient of their cross-entropy by the logits.
 *
 *   sampling   label_i ~ softmax(z_i)
 *   residual   k_i (p_ic - [c = label_i])
 *
 * The two make the Gauss-Newton-Bartlett estimator of Sophia (arXiv 2305.14342, section 2.3 and algorithm 2) for the
 * curvature that gl_ce_curvature.c has in closed form: same mean, far more noise.
 *
 * It will not forgive a NaN, or split rows over threads.
 */
#include <stddef.h>
#include "glyder.h"
#include "gl_common.h"  /* GL_NOINLINE */
#include "gl_level.h"   /* gl_kernels_current */
#include "gl_fpenv.h"   /* gl_fpenv_enter, gl_fpenv_leave */
#include "gl_kernels.h" /* struct gl_kernels, GL_BLOCK */
#include "gl_random.h"  /* gl_uniform */
#include "gl_segment.h" /* gl_segment_check, gl_segment_at */
#include "gl_softmax.h" /* gl_block, gl_softmax_row */

/* ---------------------------------------------------------------- sampling */

/* The class within the block at which the running sum, `below` before the block, passes `goal`.  Added one by one the
 * terms can end short of the block's sum in lanes; then the last class that has any probability is meant. */
static int64_t class_at(const double *e, int64_t n, double below, double goal) {
    int64_t last = 0;
    for (int64_t c = 0; c < n; c++) {
        below += e[c];
        if (e[c] > 0)
            last = c;
        if (below > goal)
            return c;
    }
    return last;
}

/* uniform < 1, so the goal lies below the total of the same sums in the same order, and the walk ends in a block of
 * positive sum.  A row without a distribution compares false everywhere and keeps label 0. */
static int64_t row_sample(const struct gl_kernels *kernels, const struct gl_matrix *z, int64_t row, double uniform) {
    double e[GL_BLOCK], below = 0;
    struct gl_softmax softmax = gl_softmax_row(kernels, z, row);
    double goal = uniform * softmax.total;
    struct gl_block block;
    for (gl_block_start(&block, z); block.n > 0; gl_block_next(&block, z)) {
        gl_block_exp(kernels, z, row, &block, softmax.top, e);
        double beyond = below + kernels->softmax.sum(e, block.padded);
        if (beyond > goal)
            return block.start + class_at(e, block.n, below, goal);
        below = beyond;
    }
    return 0;
}

static GL_NOINLINE void sample(const struct gl_kernels *kernels, const struct gl_matrix *z, uint64_t seed,
                               uint64_t draw, int64_t *label) {
    for (int64_t row = 0; row < z->rows; row++)
        label[row] = row_sample(kernels, z, row, gl_uniform(seed, draw, (uint64_t)row));
}

enum gl_status gl_ce_sample(const struct gl_matrix *z, uint64_t seed, uint64_t draw, int64_t *label) {
    enum gl_status status = gl_matrix_check(z);
    if (status != GL_OK)
        return status;
    if (label == NULL && z->rows > 0)
        return GL_ERR_ARGUMENT;
    gl_fpenv saved = gl_fpenv_enter();
    sample(gl_kernels_current(), z, seed, draw, label);
    gl_fpenv_leave(saved);
    return GL_OK;
}

/* ---------------------------------------------------------------- residual */

/* A block is read before it is written, and no pass follows: `out` may be the logits themselves. */
static void row_residual(const struct gl_kernels *kernels, const struct gl_matrix *z, int64_t row, int64_t label,
                         double weight, const struct gl_segment *out) {
    double values[GL_BLOCK];
    struct gl_softmax softmax = {.top = 0, .total = 1};
    if (weight != 0)
        softmax = gl_softmax_row(kernels, z, row);
    struct gl_block block;
    for (gl_block_start(&block, z); block.n > 0; gl_block_next(&block, z)) {
        if (weight != 0)
            gl_block_exp(kernels, z, row, &block, softmax.top, values);
        for (int64_t c = 0; c < block.n; c++) {
            double hit = block.start + c == label;
            values[c] = weight != 0 ? weight * (values[c] / softmax.total - hit) : 0;
        }
        kernels->stream.store[out->dtype](gl_segment_at(out, row * z->classes + block.start), values, block.n);
    }
}

static GL_NOINLINE void residual(const struct gl_kernels *kernels, const struct gl_matrix *z, const int64_t *label,
                                 const double *k, const struct gl_segment *out) {
    for (int64_t row = 0; row < z->rows; row++)
        row_residual(kernels, z, row, label[row], k == NULL ? 1 : k[row], out);
}

enum gl_status gl_ce_residual(const struct gl_matrix *z, const int64_t *label, const double *k,
                              const struct gl_segment *out) {
    enum gl_status status = gl_matrix_check(z);
    if (status != GL_OK)
        return status;
    if (out == NULL || (label == NULL && z->rows > 0))
        return GL_ERR_ARGUMENT;
    status = gl_segment_check(out);
    if (status != GL_OK)
        return status;
    if (out->n != z->rows * z->classes)
        return GL_ERR_LENGTH;
    for (int64_t row = 0; row < z->rows; row++)
        if ((k == NULL || k[row] != 0) && (label[row] < 0 || label[row] >= z->classes))
            return GL_ERR_ARGUMENT;
    gl_fpenv saved = gl_fpenv_enter();
    residual(gl_kernels_current(), z, label, k, out);
    gl_fpenv_leave(saved);
    return GL_OK;
}
