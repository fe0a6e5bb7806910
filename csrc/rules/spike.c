/* spike.c - stage: an update whose gradient is far longer than usual is made with a smaller rate.
 *
 *   rate <- rate min(1, limit m_t/||g_t||),   m_t the root mean square of the gradients before t
 *   m_{t+1}^2 = m_t^2 + k_t (min(||g_t||^2, clip^2 m_t^2) - m_t^2),   k_t = max(1/(t + 1), 1/memory)
 *
 * For plain gradient descent it is clipping by a norm that follows the run.  A spike enters the history only up to
 * `clip` times the usual length, so that one does not make room for the next; a lasting change is followed.
 *
 * Nothing is limited during the first `quiet` updates, which have no history to compare with.  The method and its
 * constants are ours.  It never raises a rate, and what it lowers is lowered for this update only.
 */
#include "rule.h"

#include <math.h>

#define CONFIG(X)                                                                                                      \
    X(limit, 1.5, 1, INFINITY, GL_CLOSED)                                                                              \
    X(clip, 3, 1, INFINITY, GL_CLOSED)                                                                                 \
    X(memory, 20, 1, INFINITY, GL_OPEN_UPPER)                                                                          \
    X(quiet, 6, 1, INFINITY, GL_OPEN_UPPER)
#define STATE(X)                                                                                                       \
    X(square, 0, 0, INFINITY, GL_OPEN_UPPER)                                                                           \
    X(count, 0, 0, INFINITY, GL_OPEN_UPPER)

struct gl_spike_config {
    CONFIG(GL_FIELD_MEMBER)
};
struct gl_spike_state {
    STATE(GL_FIELD_MEMBER)
};
static const struct gl_field config_fields[] = {CONFIG(GL_FIELD_ROW)};
static const struct gl_field state_fields[] = {STATE(GL_FIELD_ROW)};

static struct gl_verdict update(const void *config, const struct gl_stats *s, void *state) {
    const struct gl_spike_config *c = config;
    struct gl_spike_state *x = state;
    double usual = x->square, share, factor = 1;

    if (!isfinite(s->gg) || s->gg < 0 || !isfinite(s->rate))
        return gl_skip(GL_REASON_not_finite);
    if (x->count >= c->quiet && usual > 0)
        factor = fmin(1, c->limit * sqrt(usual / s->gg));
    share = fmax(1 / (x->count + 1), 1 / c->memory);
    x->square = x->count == 0 ? s->gg : usual + share * (fmin(s->gg, c->clip * c->clip * usual) - usual);
    x->count += 1;
    return gl_keep(s->rate * factor, factor < 1 ? GL_REASON_spike : GL_REASON_kept);
}

const struct gl_rule gl_rule_spike = {
    .name = "spike",
    .about = "Stage: makes an update with a far longer gradient than usual at a smaller rate.",
    .needs = GL_HAVE(rate) | GL_HAVE(gg),
    .config = config_fields,
    .configs = GL_COUNT_OF(config_fields),
    .state = state_fields,
    .states = GL_COUNT_OF(state_fields),
    .update = update,
};
