/* gl_kernels.h - the table of kernels: everything whose speed depends on the instruction set, once per level.
 *
 * Kernels work on blocks of at most GL_BLOCK values that the callers stage in double on their stack, where they
 * stay in the first-level cache.  They check nothing and cannot fail.  Each level's file gl_kernels_<level>.c
 * includes the template headers gl_*_template.h and defines one table; all of them give the same bits, because the
 * templates fix the order of every sum and never fuse a product into it.
 *
 * A new group of kernels is a struct of function pointers in its own header, a member here, a template, and one
 * line in gl_level_template.h.
 */
#ifndef GL_KERNELS_H
#define GL_KERNELS_H

#include <stdint.h>
#include "glyder.h"             /* GL_DTYPE_COUNT */
#include "gl_common.h"          /* GL_WIDE_LEVELS, GL_INLINE */
#include "gl_softmax_kernels.h" /* struct gl_softmax_kernels */

/* Values per block.  Five blocks of doubles (four operands and a subtrahend) fill 20 KiB: less than the 32 KiB of
 * the smallest first-level cache in use, with room for the data that stream through. */
#define GL_BLOCK 512

/* Independent accumulators of a sum: value i of a block is added to lane i mod GL_LANES, and the lanes are folded in
 * halves.  16 doubles are two AVX-512 registers, four of AVX2 and eight of SSE2: enough to hide the latency of an
 * addition everywhere, and few enough to stay in registers. */
#define GL_LANES 16
_Static_assert(GL_BLOCK % GL_LANES == 0, "a block must be whole rows of lanes");

/* Written out by halves: compilers leave a loop over the halves in memory, which costs a tenth of a block's time. */
GL_INLINE double gl_fold(double lane[GL_LANES]) {
    for (int l = 0; l < 8; l++)
        lane[l] += lane[l + 8];
    for (int l = 0; l < 4; l++)
        lane[l] += lane[l + 4];
    for (int l = 0; l < 2; l++)
        lane[l] += lane[l + 2];
    return lane[0] + lane[1];
}
_Static_assert(GL_LANES == 16, "gl_fold is written for 16 lanes");

struct gl_stream_kernels {
    /* out[i] = src[i], i < n; and the same out[i] -= src[i].  One for each dtype. */
    void (*load[GL_DTYPE_COUNT])(double *out, const void *src, int64_t n);
    void (*load_minus[GL_DTYPE_COUNT])(double *out, const void *src, int64_t n);
    /* dst[i] = values[i] rounded to nearest even. */
    void (*store[GL_DTYPE_COUNT])(void *dst, const double *values, int64_t n);
    /* sum a[i]*b[i] of two arrays of one dtype as they are stored, products and sum in double; `dot` is the one for
     * staged doubles.  Equal values give equal bits, whatever the dtype.  a and b may be the same. */
    double (*dot_stored[GL_DTYPE_COUNT])(const void *a, const void *b, int64_t n);
    double (*dot)(const void *a, const void *b, int64_t n);
    /* a[i] = scale*a[i] - b[i] */
    void (*displace)(double *a, double scale, const double *b, int64_t n);
    /* x[i] = x[i] + c*delta[i] */
    void (*perturb)(double *x, double c, const double *delta, int64_t n);
};

struct gl_kernels {
    struct gl_stream_kernels stream;
    struct gl_softmax_kernels softmax;
};

extern const struct gl_kernels gl_kernels_portable;
#if GL_WIDE_LEVELS
extern const struct gl_kernels gl_kernels_avx2;
extern const struct gl_kernels gl_kernels_avx512;
#endif

#endif
