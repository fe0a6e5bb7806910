/* gl_softmax.c - rows of logits in blocks: loading, exponentials, and the normalisation of softmax.
 *
 * Block sums are added in the order of the classes, so that neither level nor address enters into a result.
 */
#include <stddef.h>
#include <math.h>
#include "glyder.h"
#include "gl_kernels.h" /* struct gl_kernels, GL_BLOCK, GL_LANES */
#include "gl_softmax.h"

enum gl_status gl_matrix_check(const struct gl_matrix *matrix) {
    if (matrix == NULL)
        return GL_ERR_ARGUMENT;
    int size = gl_dtype_size(matrix->dtype);
    if (size == 0)
        return GL_ERR_DTYPE;
    if (matrix->rows < 0 || matrix->classes < 0)
        return GL_ERR_ARGUMENT;
    if (matrix->rows == 0)
        return GL_OK;
    if (matrix->classes == 0 || matrix->ptr == NULL || matrix->rows > PTRDIFF_MAX / size / matrix->classes)
        return GL_ERR_ARGUMENT;
    return GL_OK;
}

enum gl_status gl_matrix_check_like(const struct gl_matrix *matrix, const struct gl_matrix *z) {
    enum gl_status status = gl_matrix_check(matrix);
    if (status != GL_OK)
        return status;
    return matrix->rows == z->rows && matrix->classes == z->classes ? GL_OK : GL_ERR_LENGTH;
}

static void set_block(struct gl_block *block, const struct gl_matrix *matrix, int64_t start) {
    int64_t left = matrix->classes - start;
    block->start = start;
    block->n = left < GL_BLOCK ? left : GL_BLOCK;
    block->padded = (block->n + GL_LANES - 1) / GL_LANES * GL_LANES;
}

void gl_block_start(struct gl_block *block, const struct gl_matrix *matrix) {
    set_block(block, matrix, 0);
}

void gl_block_next(struct gl_block *block, const struct gl_matrix *matrix) {
    set_block(block, matrix, block->start + block->n);
}

static const void *block_address(const struct gl_matrix *matrix, int64_t row, const struct gl_block *block) {
    return (const char *)matrix->ptr + (row * matrix->classes + block->start) * gl_dtype_size(matrix->dtype);
}

void gl_block_load(const struct gl_kernels *kernels, const struct gl_matrix *matrix, int64_t row,
                   const struct gl_block *block, double pad, double values[GL_BLOCK]) {
    kernels->stream.load[matrix->dtype](values, block_address(matrix, row, block), block->n);
    for (int64_t i = block->n; i < block->padded; i++)
        values[i] = pad;
}

void gl_block_load_minus(const struct gl_kernels *kernels, const struct gl_matrix *matrix, int64_t row,
                         const struct gl_block *block, double values[GL_BLOCK]) {
    kernels->stream.load_minus[matrix->dtype](values, block_address(matrix, row, block), block->n);
}

void gl_block_exp(const struct gl_kernels *kernels, const struct gl_matrix *z, int64_t row,
                  const struct gl_block *block, double top, double e[GL_BLOCK]) {
    gl_block_load(kernels, z, row, block, -INFINITY, e);
    kernels->softmax.exp(e, top, block->padded);
}

double gl_softmax_top(const struct gl_kernels *kernels, const struct gl_matrix *z, int64_t row) {
    double values[GL_BLOCK], top = -INFINITY;
    struct gl_block block;
    for (gl_block_start(&block, z); block.n > 0; gl_block_next(&block, z)) {
        gl_block_load(kernels, z, row, &block, -INFINITY, values);
        double max = kernels->softmax.max(values, block.padded);
        top = max > top ? max : top;
    }
    return top;
}

struct gl_softmax gl_softmax_row(const struct gl_kernels *kernels, const struct gl_matrix *z, int64_t row) {
    struct gl_softmax softmax = {.top = gl_softmax_top(kernels, z, row), .total = 0};
    double e[GL_BLOCK];
    struct gl_block block;
    for (gl_block_start(&block, z); block.n > 0; gl_block_next(&block, z)) {
        gl_block_exp(kernels, z, row, &block, softmax.top, e);
        softmax.total += kernels->softmax.sum(e, block.padded);
    }
    return softmax;
}
