/* gl_level.h - which dispatch levels this machine has, and which one is in use.
 *
 * The public half stands in glyder.h.  The table of kernels of the current level is what the library's own files
 * ask for, once per public call, so that a level selected meanwhile never mixes with another inside one call.
 */
#ifndef GL_LEVEL_H
#define GL_LEVEL_H

#include "gl_kernels.h" /* struct gl_kernels */

const struct gl_kernels *gl_kernels_current(void);

#endif
