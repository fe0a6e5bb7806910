/* gl_segment.h - checks and steps shared by all functions that walk over lists of segments. */
#ifndef GL_SEGMENT_H
#define GL_SEGMENT_H

#include <stdint.h>
#include "glyder.h"    /* struct gl_segment, enum gl_status */
#include "gl_common.h" /* GL_INLINE */

/* dtype known, count in range, pointer there where it is needed. */
enum gl_status gl_segment_check(const struct gl_segment *segment);

/* `lists` lists of `segments` segments each: every segment sound, and lengths equal from list to list. */
enum gl_status gl_segment_check_lists(const struct gl_segment *const *list, int lists, int64_t segments);

GL_INLINE void *gl_segment_at(const struct gl_segment *segment, int64_t index) {
    return (char *)segment->ptr + index * gl_dtype_size(segment->dtype);
}

#endif
