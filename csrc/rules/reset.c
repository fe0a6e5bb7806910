/* reset.c - the rate that a line search starts from, given the one that the search before settled at.
 *
 *   eta <- eta gamma^(1/batches)     gamma times per epoch of so many batches; 1: the rate stays
 *
 * 1905.09997, option 1 of the released code; option 0 with gamma = 1.  pow is the C library's.
 *
 * It does not look at the loss: without a search behind it the rate grows for ever.
 */
#include <math.h>

#define RULE      reset
#define ABOUT     "The rate that a line search starts from, given the one that the search before settled at."
#define INPUTS(X) X(base)
#define CONFIG(X)                                                                                                      \
    X(gamma, 2, 1, INFINITY, GL_OPEN_UPPER)                                                                            \
    X(batches, 500, 1, INFINITY, GL_COUNT)
#include "rule_template.h"

static struct gl_verdict update(const struct config *c, const struct inputs *s) {
    if (!isfinite(s->base))
        return gl_skip(GL_REASON_not_finite);
    if (s->base <= 0)
        return gl_skip(GL_REASON_out_of_range);
    return gl_keep(s->base * pow(c->gamma, 1 / c->batches), GL_REASON_kept);
}
