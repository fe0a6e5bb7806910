/* gl_kernels_avx512.c - the same kernels compiled for AVX-512 F, BW, DQ and VL.  Empty where the compiler or machine
 * has none. */
#include "gl_kernels.h"
#include "gl_dtype.h"
#include "gl_math.h"

#if GL_WIDE_LEVELS
GL_AVX512_BEGIN
#define GL_LEVEL_NAME(name) name##_avx512
#include "gl_level_template.h"
GL_LEVEL_END
#endif
