/* gl_level_template.h - all kernels of one level, and their table.
 *
 * Included once by each gl_kernels_<level>.c, inside the level's target pragmas.  Parameters, defined before:
 *
 *   GL_LEVEL_NAME(name)  name with the suffix of the level: name##_avx2
 *
 * No system header is included from here on: the includer has brought them in before the pragmas.
 */
#include "gl_stream_template.h"
#include "gl_softmax_template.h"

const struct gl_kernels GL_LEVEL_NAME(gl_kernels) = {
    .stream = GL_STREAM_KERNELS,
    .softmax = GL_SOFTMAX_KERNELS,
};
