/* gl_softmax_kernels.h - the softmax group in the table of kernels; see gl_kernels.h for what kernels may assume. */
#ifndef GL_SOFTMAX_KERNELS_H
#define GL_SOFTMAX_KERNELS_H

#include <stdint.h>

/* Everywhere n is a multiple of GL_LANES. */
struct gl_softmax_kernels {
    /* the largest of the values; NaN is passed over */
    double (*max)(const double *values, int64_t n);
    /* z[i] = exp(z[i] - top) */
    void (*exp)(double *z, double top, int64_t n);
    double (*sum)(const double *values, int64_t n);
    /* u[i] = scale*u[i], or 0 where e[i] == 0: a class without probability has no say, whatever its u */
    void (*scale_where)(double *u, const double *e, double scale, int64_t n);
    /* sum e[i]*(u[i] - centre)^2 */
    double (*spread)(const double *e, const double *u, double centre, int64_t n);
};

#endif
