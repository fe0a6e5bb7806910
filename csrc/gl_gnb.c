/* gl_gnb.c - softmax cross-entropy by its logits: curvature along a direction, sampled labels, and the residual.
 *
 *   curvature  sum_i k_i sum_c p_ic (u_ic - ubar_i)^2,   ubar_i = sum_c p_ic u_ic,   p = softmax(z)
 *   sampling   label_i ~ softmax(z_i)
 *   residual   k_i (p_ic - [c = label_i])
 *
 * The first is u^T G u for the Gauss-Newton matrix G = sum_i k_i (diag p_i - p_i p_i^T) in closed form; the other two
 * make its estimator by sampled labels, the Gauss-Newton-Bartlett estimator of Sophia (arXiv 2305.14342, section 2.3
 * and algorithm 2): same mean, far more noise.
 *
 * It will not read targets (gl_gnb_weights.c turns them into k), forgive a NaN, or split rows over threads.
 */
#include <stddef.h>
#include "glyder.h"
#include "gl_common.h"  /* GL_NOINLINE */
#include "gl_cpu.h"     /* gl_kernels_current */
#include "gl_fpenv.h"   /* gl_fpenv_enter, gl_fpenv_leave */
#include "gl_kernels.h" /* struct gl_kernels, GL_BLOCK */
#include "gl_random.h"  /* gl_uniform */
#include "gl_segment.h" /* gl_segment_check, gl_segment_at */
#include "gl_softmax.h" /* gl_block, gl_softmax_row */

/* ---------------------------------------------------------------- curvature */

struct direction {
    const struct gl_matrix *plus, *minus;
    double scale;
};

/* e, u and their centred second moment are taken block by block and joined by Chan, Golub and LeVeque's rule for the
 * moments of a union: all its terms are >= 0, so that nothing cancels however far u is from zero. */
static double row_curvature(const struct gl_kernels *kernels, const struct gl_matrix *z, const struct direction *d,
                            int64_t row) {
    double e[GL_BLOCK], u[GL_BLOCK];
    double total = 0, mean = 0, spread = 0;
    double top = gl_softmax_top(kernels, z, row);
    struct gl_block block;
    for (gl_block_start(&block, z); block.n > 0; gl_block_next(&block, z)) {
        gl_block_exp(kernels, z, row, &block, top, e);
        double weight = kernels->softmax.sum(e, block.padded);
        if (weight == 0)
            continue; /* a block of classes without probability has no mean */
        gl_block_load(kernels, d->plus, row, &block, 0, u);
        if (d->minus != NULL)
            gl_block_load_minus(kernels, d->minus, row, &block, u);
        kernels->softmax.scale_where(u, e, d->scale, block.padded);
        double centre = kernels->stream.dot(e, u, block.padded) / weight;
        double joined = total + weight, apart = centre - mean;
        spread += kernels->softmax.spread(e, u, centre, block.padded) + apart * apart * (total * (weight / joined));
        mean += apart * (weight / joined);
        total = joined;
    }
    return spread / total;
}

static GL_NOINLINE double curvature(const struct gl_kernels *kernels, const struct gl_matrix *z,
                                    const struct direction *d, const double *k) {
    double sum = 0;
    for (int64_t row = 0; row < z->rows; row++) {
        double weight = k == NULL ? 1 : k[row];
        if (weight != 0)
            sum += weight * row_curvature(kernels, z, d, row);
    }
    return sum;
}

enum gl_status gl_ce_curvature(const struct gl_matrix *z, const struct gl_matrix *plus, const struct gl_matrix *minus,
                               double inv_two_eps, const double *k, double *sum) {
    enum gl_status status = gl_matrix_check(z);
    if (status == GL_OK)
        status = gl_matrix_check_like(plus, z);
    if (status == GL_OK && minus != NULL)
        status = gl_matrix_check_like(minus, z);
    if (status != GL_OK)
        return status;
    if (sum == NULL)
        return GL_ERR_ARGUMENT;
    struct direction d = {.plus = plus, .minus = minus, .scale = inv_two_eps};
    gl_fpenv saved = gl_fpenv_enter();
    double result = curvature(gl_kernels_current(), z, &d, k);
    gl_fpenv_leave(saved);
    *sum = result;
    return GL_OK;
}

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
