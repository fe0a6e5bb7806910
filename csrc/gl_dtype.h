/* gl_dtype.h - the element types: storage, exact load to double, store rounded once to nearest even.
 *
 * A new dtype is one line in GL_DTYPES, one load and one store.  Everything here is portable C and branch-free, so
 * that the same text vectorises at every level and gives the same bits.  Reads and writes go through memcpy: any
 * address is allowed.  NaN stays NaN; its payload is not promised.
 *
 * The narrow formats have p significand bits and exponents emin..emax.  Storing |x| >= 0 in one rounding:
 *   e = exponent of |x|, not below emin;  q = 2^(e - p + 1), the spacing of the format there;
 *   |x| + 2^52 q lies where doubles are spaced by q, so this addition is the rounding, and the low bits of
 *   the sum are |x|/q as an integer between 0 and 2^p.
 *   code = (e - emin)*2^(p-1) + |x|/q, for normal and denormal results alike; a carry walks into the exponent and,
 *   at the top, into infinity.
 * Going through float instead would round twice.
 */
#ifndef GL_DTYPE_H
#define GL_DTYPE_H

#include <stdint.h>
#include <string.h>
#include "glyder.h"    /* enum gl_dtype */
#include "gl_common.h" /* GL_INLINE */

/* X(enumerator, name, storage type) */
#define GL_DTYPES(X)                                                                                                   \
    X(GL_F64, f64, double)                                                                                             \
    X(GL_F32, f32, float)                                                                                              \
    X(GL_F16, f16, uint16_t)                                                                                           \
    X(GL_BF16, bf16, uint16_t)

GL_INLINE float gl_float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

GL_INLINE uint32_t gl_bits_of_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

GL_INLINE double gl_double_of_bits(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

GL_INLINE uint64_t gl_bits_of_double(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* ---------------------------------------------------------------- one value, as stored <-> double */

GL_INLINE double gl_f64_to_double(double stored) {
    return stored;
}

GL_INLINE double gl_f32_to_double(float stored) {
    return (double)stored;
}

/* Exponent and fraction are put where float keeps them.  Normal values: multiplying by 2^-112 corrects the bias
 * (127 - 15 = 112) once 224 has been added to the exponent, which also turns 31 into float's 255, infinity and NaN.
 * Denormal values are fraction*2^-24: the fraction is planted under a leading 1/2, which is then taken off.  No float
 * on the way is denormal, so this is fast for small values too. */
GL_INLINE double gl_f16_to_double(uint16_t stored) {
    uint32_t sign = (uint32_t)(stored & 0x8000) << 16;
    uint32_t magnitude = stored & 0x7fff;
    uint32_t is_denormal = 0u - (magnitude < 0x400);
    uint32_t normal = gl_bits_of_float(gl_float_of_bits((magnitude << 13) + (224u << 23)) * 0x1p-112f);
    uint32_t denormal = gl_bits_of_float(gl_float_of_bits(magnitude + (126u << 23)) - 0.5f);
    return (double)gl_float_of_bits(((denormal & is_denormal) | (normal & ~is_denormal)) | sign);
}

GL_INLINE double gl_bf16_to_double(uint16_t stored) {
    return (double)gl_float_of_bits((uint32_t)stored << 16);
}

GL_INLINE double gl_f64_of_double(double value) {
    return value;
}

GL_INLINE float gl_f32_of_double(double value) {
    return (float)value;
}

/* The rounding explained at the top, for a format of `fraction_bits` = p - 1 and biased exponents of double from
 * `lowest` (emin) to `beyond` (emax + 1, the first that overflows).  Magnitudes are compared as integers, in which they
 * have the same order: comparisons of doubles would keep compilers from vectorising.  NaN goes through as the first
 * magnitude that overflows and is marked at the end. */
GL_INLINE uint16_t gl_narrow(double value, int fraction_bits, int64_t lowest, int64_t beyond) {
    int64_t bits = (int64_t)gl_bits_of_double(value);
    int64_t magnitude = bits & INT64_MAX;
    int64_t capped = magnitude < beyond << 52 ? magnitude : beyond << 52;
    int64_t exponent = capped >> 52 > lowest ? capped >> 52 : lowest;
    double spaced = gl_double_of_bits((uint64_t)(exponent + 52 - fraction_bits) << 52);
    double rounded = gl_double_of_bits((uint64_t)capped) + spaced;
    int64_t count = (int64_t)gl_bits_of_double(rounded) & 0xffff;
    int64_t code = ((exponent - lowest) << fraction_bits) + count;
    int64_t quiet = (int64_t)(magnitude > (int64_t)2047 << 52) << (fraction_bits - 1);
    return (uint16_t)(((uint64_t)bits >> 48 & 0x8000) | (uint64_t)(code | quiet));
}

GL_INLINE uint16_t gl_f16_of_double(double value) {
    return gl_narrow(value, 10, 1023 - 14, 1023 + 16);
}

GL_INLINE uint16_t gl_bf16_of_double(double value) {
    return gl_narrow(value, 7, 1023 - 126, 1023 + 128);
}

/* ---------------------------------------------------------------- arrays: gl_<name>_load(p, i), _store(p, i, x) */

#define GL_DTYPE_ACCESS(enumerator, name, storage)                                                                     \
    GL_INLINE double gl_##name##_load(const void *array, int64_t i) {                                                  \
        storage stored;                                                                                                \
        memcpy(&stored, (const char *)array + i * (int64_t)sizeof stored, sizeof stored);                              \
        return gl_##name##_to_double(stored);                                                                          \
    }                                                                                                                  \
    GL_INLINE void gl_##name##_store(void *array, int64_t i, double value) {                                           \
        storage stored = gl_##name##_of_double(value);                                                                 \
        memcpy((char *)array + i * (int64_t)sizeof stored, &stored, sizeof stored);                                    \
    }
GL_DTYPES(GL_DTYPE_ACCESS)
#undef GL_DTYPE_ACCESS

#endif
