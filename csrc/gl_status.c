/* gl_status.c - the sentences behind enum gl_status. */
#include "glyder.h"

const char *gl_status_message(enum gl_status status) {
    switch (status) {
    case GL_OK:
        return "The call succeeded.";
    case GL_ERR_ARGUMENT:
        return "A count, index or number is outside its range.";
    case GL_ERR_LENGTH:
        return "The operands differ in the length of a segment.";
    case GL_ERR_DTYPE:
        return "This function does not take that dtype.";
    case GL_ERR_MISSING:
        return "The schedule was not given the total that it needs.";
    case GL_ERR_LEVEL:
        return "This machine lacks that dispatch level.";
    }
    return "The status is not one that this library returns.";
}
