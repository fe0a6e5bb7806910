/* bounds.c - stage: the rate is kept within min_lr and max_lr.
 *
 *   rate <- min(max(rate, min_lr), max_lr)
 *
 * A rate that is not finite is not clamped but refused.  Warm-up and annealing come after this stage, so that they
 * still reach zero.
 */
#include "rule.h"

#include <math.h>
#include <stddef.h>

#define CONFIG(X)                                                                                                      \
    X(min_lr, 0, 0, INFINITY, GL_OPEN_UPPER)                                                                           \
    X(max_lr, INFINITY, 0, INFINITY, GL_OPEN_LOWER)

struct gl_bounds_config {
    CONFIG(GL_FIELD_MEMBER)
};
static const struct gl_field config_fields[] = {CONFIG(GL_FIELD_ROW)};

static const char *check(const void *config) {
    const struct gl_bounds_config *c = config;
    return c->min_lr <= c->max_lr ? NULL : "min_lr must not exceed max_lr.";
}

static struct gl_verdict update(const void *config, const struct gl_stats *s, void *state) {
    const struct gl_bounds_config *c = config;

    (void)state;
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

const struct gl_rule gl_rule_bounds = {
    .name = "bounds",
    .about = "Stage: keeps the rate between min_lr and max_lr.",
    .needs = GL_HAVE(rate),
    .config = config_fields,
    .configs = GL_COUNT_OF(config_fields),
    .check = check,
    .update = update,
};
