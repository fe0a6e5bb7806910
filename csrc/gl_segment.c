/* gl_segment.c - what a list of segments must satisfy before any of it is read. */
#include <stddef.h>
#include "glyder.h"
#include "gl_dtype.h" /* GL_DTYPES */
#include "gl_segment.h"

#define DTYPE_SIZE(enumerator, name, storage) [enumerator] = (int)sizeof(storage),
static const int dtype_size[GL_DTYPE_COUNT] = {GL_DTYPES(DTYPE_SIZE)};
#undef DTYPE_SIZE

int gl_dtype_size(enum gl_dtype dtype) {
    return (int)dtype >= 0 && (int)dtype < GL_DTYPE_COUNT ? dtype_size[dtype] : 0;
}

enum gl_status gl_segment_check(const struct gl_segment *segment) {
    int size = gl_dtype_size(segment->dtype);
    if (size == 0)
        return GL_ERR_DTYPE;
    if (segment->n < 0 || segment->n > PTRDIFF_MAX / size || (segment->n > 0 && segment->ptr == NULL))
        return GL_ERR_ARGUMENT;
    return GL_OK;
}

enum gl_status gl_segment_check_lists(const struct gl_segment *const *list, int lists, int64_t segments) {
    if (segments < 0)
        return GL_ERR_ARGUMENT;
    for (int l = 0; l < lists; l++)
        if (list[l] == NULL && segments > 0)
            return GL_ERR_ARGUMENT;
    for (int64_t s = 0; s < segments; s++)
        for (int l = 0; l < lists; l++) {
            enum gl_status status = gl_segment_check(&list[l][s]);
            if (status != GL_OK)
                return status;
            if (list[l][s].n != list[0][s].n)
                return GL_ERR_LENGTH;
        }
    return GL_OK;
}
