/* growth.c - stage: how fast the rate may rise from one update to the next; it falls freely.
 *
 *   rate <- min(rate, max_growth previous)                  until a rate has been within that limit for once
 *   rate <- min(rate, (1 + power/(t + 1)) previous)         from then on, t the number of updates so far
 *
 * The first limit lets the rate catch up from its tiny first value: with 3, ten updates make up for four decades.  The
 * second is that of a rate which rises like t^power: the linear ramp of a warm-up needs 1 and gets room for estimates
 * that rise, too; but no single wild estimate throws the run any more.  Both factors are ours.
 *
 * Without a previous rate (0, subnormal or not finite) nothing is limited.
 */
#include <float.h>
#include <math.h>

#define RULE      growth
#define ABOUT     "Stage: limits how fast the rate may rise from one update to the next."
#define INPUTS(X) X(rate) X(previous)
#define CONFIG(X)                                                                                                      \
    X(max_growth, 3, 1, INFINITY, GL_OPEN_LOWER)                                                                       \
    X(power, 2, 0, INFINITY, GL_OPEN_LOWER)
#define STATE(X)                                                                                                       \
    X(count, 0, 0, INFINITY, GL_COUNT)                                                                                 \
    X(caught, 0, 0, 1, GL_FLAG)
#include "rule_template.h"

static struct gl_verdict update(const struct config *c, const struct inputs *s, struct state *x) {
    double limit;

    if (!isfinite(s->rate))
        return gl_skip(GL_REASON_not_finite);
    if (s->rate <= 0)
        return gl_skip(GL_REASON_out_of_range);
    x->count += 1;
    limit = s->previous * (x->caught != 0 ? fmin(c->max_growth, 1 + c->power / x->count) : c->max_growth);
    if (s->previous >= DBL_MIN && s->rate > limit)
        return gl_keep(limit, GL_REASON_growth_limited);
    x->caught = 1;
    return gl_keep(s->rate, GL_REASON_kept);
}
