/* gl_softmax.h - walking over the rows of a matrix of logits, block by block, in double.
 *
 *   p_c = e_c / sum e,   e_c = exp(z_c - top),   top = max z
 *
 * Rows may hold hundreds of thousands of classes, so nothing of a row's size is kept: each pass stages GL_BLOCK values
 * and computes e again.  A logit of -inf gives e = 0 exactly.  NaN, +inf and a row of nothing but -inf give NaN.
 */
#ifndef GL_SOFTMAX_H
#define GL_SOFTMAX_H

#include <stdint.h>
#include "glyder.h"     /* struct gl_matrix */
#include "gl_kernels.h" /* struct gl_kernels, GL_BLOCK */

/* dtype known, counts in range, pointer there where it is needed; rows without classes are refused. */
enum gl_status gl_matrix_check(const struct gl_matrix *matrix);

/* As above, and of the shape of `z`. */
enum gl_status gl_matrix_check_like(const struct gl_matrix *matrix, const struct gl_matrix *z);

/* One row being walked over: for (gl_block_start(&b, m); b.n > 0; gl_block_next(&b, m)) */
struct gl_block {
    int64_t start, n; /* classes start .. start + n - 1 */
    int64_t padded;   /* n rounded up to whole rows of lanes */
};

void gl_block_start(struct gl_block *block, const struct gl_matrix *matrix);
void gl_block_next(struct gl_block *block, const struct gl_matrix *matrix);

/* values[0..n) = row's values in the block, then `pad` up to `padded`. */
void gl_block_load(const struct gl_kernels *kernels, const struct gl_matrix *matrix, int64_t row,
                   const struct gl_block *block, double pad, double values[GL_BLOCK]);

/* values[0..n) -= row's values in the block. */
void gl_block_load_minus(const struct gl_kernels *kernels, const struct gl_matrix *matrix, int64_t row,
                         const struct gl_block *block, double values[GL_BLOCK]);

/* e = exp(z - top) in the block, then zeros. */
void gl_block_exp(const struct gl_kernels *kernels, const struct gl_matrix *z, int64_t row,
                  const struct gl_block *block, double top, double e[GL_BLOCK]);

/* The two numbers that turn logits into probabilities. */
struct gl_softmax {
    double top;   /* max z; NaN is passed over here and shows in `total` */
    double total; /* sum e */
};

double gl_softmax_top(const struct gl_kernels *kernels, const struct gl_matrix *z, int64_t row);
struct gl_softmax gl_softmax_row(const struct gl_kernels *kernels, const struct gl_matrix *z, int64_t row);

#endif
