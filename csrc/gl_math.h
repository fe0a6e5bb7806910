/* gl_math.h - the exponential function, from +, -, * and bit operations alone.
 *
 * The C library's exp differs from machine to machine and from level to level; this one does not: every step is
 * one correctly rounded operation in a fixed order, so the same text gives the same bits scalar or vectorised.
 *
 *   exp(x) = 2^k exp(r),  k = round(x / ln 2),  r = x - k ln 2 in [-0.347, 0.347]
 *
 * ln 2 = HI + LO, where HI has 32 significant bits, so that k*HI is exact and x - k*HI too; k*LO is rounded at
 * 2^-75 at most.  exp(r) = 1 + (r + r^2 P(r)) with the Taylor coefficients 1/2! .. 1/13!: the first term left out is
 * r^14/14! < 4.2e-18, 0.04 ulp of the result.  The roundings of r, of the sum in parentheses and of the last
 * addition make up the rest: less than 1 ulp altogether (tests/c/test_math.c finds 0.96 at most; 2 is promised).
 * 2^k is applied in two factors, each normal, so that results below 2^-1022 are rounded once.
 *
 * It will not set errno or promise exception flags.  It needs gl_fpenv.h's environment for denormal results.
 */
#ifndef GL_MATH_H
#define GL_MATH_H

#include <math.h> /* INFINITY, for the kernels */
#include <stdint.h>
#include "gl_common.h" /* GL_INLINE */
#include "gl_dtype.h"  /* gl_bits_of_double, gl_double_of_bits */

/* Adding and subtracting 1.5*2^52 rounds to an integer, which then stands in the low bits of the sum. */
#define GL_EXP_ROUND 0x1.8p52

/* 2^n for a whole number n in [-1022, 1023]: n + 1023 shifted from the lowest bits to the exponent's. */
GL_INLINE double gl_power_of_two(double n) {
    return gl_double_of_bits(gl_bits_of_double(n + (GL_EXP_ROUND + 1023)) << 52);
}

/* Outside [-746, 710] the result is 0 or infinite anyway, and inside k suits gl_power_of_two.  NaN stays. */
GL_INLINE double gl_exp_bound(double x) {
    double bounded = x < -746.0 ? -746.0 : x;
    return bounded > 710.0 ? 710.0 : bounded;
}

/* exp of what gl_exp_bound gave.  Kernels call the two in loops of their own: in one loop GCC (12) splits off the paths
 * on which the bound is a constant, and then cannot vectorise. */
GL_INLINE double gl_exp_within(double bounded) {
    const double ln2_hi = 0x1.62e42feep-1, ln2_lo = 0x1.a39ef35793c76p-33, log2_e = 0x1.71547652b82fep+0;
    double k = (bounded * log2_e + GL_EXP_ROUND) - GL_EXP_ROUND;
    double r = (bounded - k * ln2_hi) - k * ln2_lo;
    double p = 1.0 / 6227020800;
    p = p * r + 1.0 / 479001600;
    p = p * r + 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    double mantissa = 1.0 + (r + r * r * p);
    double half = (k * 0.5 + GL_EXP_ROUND) - GL_EXP_ROUND;
    return mantissa * gl_power_of_two(half) * gl_power_of_two(k - half);
}

/* 0 below -745.2, infinity above 709.8, NaN for NaN. */
GL_INLINE double gl_exp(double x) {
    return gl_exp_within(gl_exp_bound(x));
}

#endif
