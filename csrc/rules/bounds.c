/* bounds.c - stage: the rate is kept within min_lr and max_lr.
 *
 *   rate <- min(max(rate, min_lr), max_lr)
 *
 * A rate that is not finite is not clamped but refused.  Warm-up and annealing come after this stage, so that they
 * still reach zero.
 */
#include <math.h>

#define RULE      bounds
#define ABOUT     "Stage: keeps the rate between min_lr and max_lr."
#define INPUTS(X) X(rate)
#define CONFIG(X)                                                                                                      \
    X(min_lr, 0, 0, INFINITY, GL_OPEN_UPPER)                                                                           \
    X(max_lr, INFINITY, 0, INFINITY, GL_OPEN_LOWER)
#define CHECK check
#include "rule_template.h"

static const char *check(const struct config *c) {
    return c->min_lr <= c->max_lr ? NULL : "min_lr must not exceed max_lr.";
}

static struct gl_verdict update(const struct config *c, const struct inputs *s) {
    if (!isfinite(s->rate))
        return gl_skip(GL_REASON_not_finite);
    if (s->rate <= 0)
        return gl_skip(GL_REASON_out_of_range);
    if (s->rate < c->min_lr)
        return gl_keep(c->min_lr, GL_REASON_at_min);
    if (s->rate > c->max_lr)
        return gl_keep(c->max_lr, GL_REASON_at_max);
    return gl_keep(s->rate, GL_REASON_kept);
}
