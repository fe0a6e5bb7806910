/* gl_kernels_portable.c - the kernels in plain C, for every machine; the truth that the other levels are tested by. */
#include "gl_kernels.h"
#include "gl_dtype.h"
#include "gl_math.h"

#define GL_LEVEL_NAME(name) name##_portable
#include "gl_level_template.h"
