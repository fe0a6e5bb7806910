/* gl_ce_infer_mean.h - what gl_ce_infer.c and gl_ce_infer_mean.c share. */
#ifndef GL_CE_INFER_MEAN_H
#define GL_CE_INFER_MEAN_H

#include <stdint.h>
#include "glyder.h"     /* struct gl_matrix */
#include "gl_kernels.h" /* struct gl_kernels */

/* What rounding to a dtype can do, and what we let pass as such. */
struct gl_precision {
    double unit;       /* relative error of one rounding of a normal number */
    double half_least; /* absolute error near zero: half the least denormal */
    double tolerance;  /* relative misfit up to which a hypothesis stands */
};

/* The hypothesis k = 1/active with targets of a common floor: its misfit, or infinity if the targets are none.
 * `active` counts the rows of r that are not zero. */
double gl_ce_infer_mean(const struct gl_kernels *kernels, const struct gl_matrix *z, const struct gl_matrix *r,
                        int64_t active, const struct gl_precision *precision);

#endif
