/* gl_kernels_avx2.c - the same kernels compiled for AVX2.  Empty where the compiler or machine has none. */
#include "gl_kernels.h"
#include "gl_dtype.h"
#include "gl_math.h"

#if GL_WIDE_LEVELS
GL_AVX2_BEGIN
#define GL_LEVEL_NAME(name) name##_avx2
#include "gl_level_template.h"
GL_LEVEL_END
#endif
