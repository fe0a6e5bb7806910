/* gl_ce_curvature.c - the curvature of softmax cross-entropy along a direction, by its logits.
 *
 *   sum_i k_i sum_c p_ic (u_ic - ubar_i)^2,   ubar_i = sum_c p_ic u_ic,   p = softmax(z)
 *
 * It is u^T G u for the Gauss-Newton matrix G = sum_i k_i (diag p_i - p_i p_i^T) in closed form.
 *
 * It will not read targets (gl_ce_weights.c turns them into k), forgive a NaN, or split rows over threads.
 */
#include <stddef.h>
#include "glyder.h"
#include "gl_common.h"  /* GL_NOINLINE */
#include "gl_level.h"   /* gl_kernels_current */
#include "gl_fpenv.h"   /* gl_fpenv_enter, gl_fpenv_leave */
#include "gl_kernels.h" /* struct gl_kernels, GL_BLOCK */
#include "gl_softmax.h" /* gl_block, gl_softmax_top */

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
