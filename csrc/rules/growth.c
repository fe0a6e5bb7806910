/* growth.c - stage: the rate rises at most by a factor from one update to the next, and falls freely.
 *
 *   rate <- min(rate, max_growth * previous)
 *
 * One wild estimate then costs a decade and not the run.  The factor is ours: with 10, three updates make up for a
 * starting rate a thousand times too small.  Without a previous rate (0 or not finite) nothing
 * is limited.
 *
 * It has no memory: several wild estimates in a row do get through.
 */
#include "rule.h"

#include <math.h>

#define CONFIG(X) X(max_growth, 10, 1, INFINITY, GL_OPEN_LOWER)

struct gl_growth_config {
    CONFIG(GL_FIELD_MEMBER)
};
static const struct gl_field config_fields[] = {CONFIG(GL_FIELD_ROW)};

static struct gl_verdict update(const void *config, const struct gl_stats *s, void *state) {
    const struct gl_growth_config *c = config;
    double limit;

    (void)state;
    if (!isfinite(s->rate))
        return gl_skip(GL_REASON_not_finite);
    if (s->rate <= 0)
        return gl_skip(GL_REASON_out_of_range);
    limit = s->previous * c->max_growth;
    if (s->previous > 0 && s->rate > limit)
        return gl_keep(limit, GL_REASON_growth_limited);
    return gl_keep(s->rate, GL_REASON_kept);
}

const struct gl_rule gl_rule_growth = {
    .name = "growth",
    .about = "Stage: lets the rate rise by at most max_growth from one update to the next.",
    .needs = GL_HAVE(rate) | GL_HAVE(previous),
    .config = config_fields,
    .configs = GL_COUNT_OF(config_fields),
    .update = update,
};
