/* gl_write.c - the functions that write into arrays: snapshots, displacements, perturbed parameters.
 *
 *   gl_copy      dst <- src
 *   gl_displace  out <- scale*older - newer
 *   gl_perturb   dst <- x + c*delta
 *
 * Blocks are staged in double, combined and stored with one rounding to the target's dtype.  A block is read whole
 * before any of it is written, and blocks do not overlap, so the target may be one of the sources (same pointer,
 * same dtype).  Arrays that overlap in any other way are not supported.
 */
#include <stddef.h>
#include <string.h>
#include "glyder.h"
#include "gl_common.h"  /* GL_NOINLINE */
#include "gl_fpenv.h"   /* gl_fpenv_enter, gl_fpenv_leave */
#include "gl_kernels.h" /* GL_BLOCK, struct gl_stream_kernels */
#include "gl_level.h"   /* gl_kernels_current */
#include "gl_segment.h" /* gl_segment_check_lists, gl_segment_at */

/* first[i] = first[i] and second[i] combined with one number; a member of the table of kernels. */
typedef void combine_kernel(double *first, double factor, const double *second, int64_t n);

static void load(const struct gl_stream_kernels *kernels, const struct gl_segment *src, int64_t start, int64_t n,
                 double *block) {
    kernels->load[src->dtype](block, gl_segment_at(src, start), n);
}

static void store(const struct gl_stream_kernels *kernels, const struct gl_segment *dst, int64_t start, int64_t n,
                  const double *block) {
    kernels->store[dst->dtype](gl_segment_at(dst, start), block, n);
}

static int64_t block_length(int64_t length, int64_t start) {
    return length - start < GL_BLOCK ? length - start : GL_BLOCK;
}

static GL_NOINLINE void convert(const struct gl_stream_kernels *kernels, const struct gl_segment *dst,
                                const struct gl_segment *src) {
    double block[GL_BLOCK];
    for (int64_t start = 0; start < src->n; start += GL_BLOCK) {
        int64_t n = block_length(src->n, start);
        load(kernels, src, start, n, block);
        store(kernels, dst, start, n, block);
    }
}

static GL_NOINLINE void combine(const struct gl_stream_kernels *kernels, combine_kernel *kernel,
                                const struct gl_segment *dst, const struct gl_segment *first, double factor,
                                const struct gl_segment *second) {
    double a[GL_BLOCK], b[GL_BLOCK];
    for (int64_t start = 0; start < dst->n; start += GL_BLOCK) {
        int64_t n = block_length(dst->n, start);
        load(kernels, first, start, n, a);
        load(kernels, second, start, n, b);
        kernel(a, factor, b, n);
        store(kernels, dst, start, n, a);
    }
}

enum gl_status gl_copy(const struct gl_segment *dst, const struct gl_segment *src, int64_t segments) {
    const struct gl_segment *list[] = {dst, src};
    enum gl_status status = gl_segment_check_lists(list, 2, segments);
    if (status != GL_OK)
        return status;
    const struct gl_stream_kernels *kernels = &gl_kernels_current()->stream;
    gl_fpenv saved = gl_fpenv_enter();
    for (int64_t s = 0; s < segments; s++) {
        if (dst[s].dtype != src[s].dtype)
            convert(kernels, &dst[s], &src[s]);
        else if (src[s].n > 0) /* memmove: a segment copied onto itself is harmless */
            memmove(dst[s].ptr, src[s].ptr, (size_t)src[s].n * (size_t)gl_dtype_size(src[s].dtype));
    }
    gl_fpenv_leave(saved);
    return GL_OK;
}

static enum gl_status combine_lists(combine_kernel *kernel, const struct gl_stream_kernels *kernels,
                                    const struct gl_segment *dst, const struct gl_segment *first, double factor,
                                    const struct gl_segment *second, int64_t segments) {
    const struct gl_segment *list[] = {dst, first, second};
    enum gl_status status = gl_segment_check_lists(list, 3, segments);
    if (status != GL_OK)
        return status;
    gl_fpenv saved = gl_fpenv_enter();
    for (int64_t s = 0; s < segments; s++)
        combine(kernels, kernel, &dst[s], &first[s], factor, &second[s]);
    gl_fpenv_leave(saved);
    return GL_OK;
}

enum gl_status gl_displace(const struct gl_segment *out, const struct gl_segment *older, double scale,
                           const struct gl_segment *newer, int64_t segments) {
    const struct gl_stream_kernels *kernels = &gl_kernels_current()->stream;
    return combine_lists(kernels->displace, kernels, out, older, scale, newer, segments);
}

enum gl_status gl_perturb(const struct gl_segment *dst, const struct gl_segment *x, double c,
                          const struct gl_segment *delta, int64_t segments) {
    const struct gl_stream_kernels *kernels = &gl_kernels_current()->stream;
    return combine_lists(kernels->perturb, kernels, dst, x, c, delta, segments);
}
