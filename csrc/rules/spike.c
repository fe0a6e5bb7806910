/* spike.c - stage: an update whose gradient is longer than usual is made with a smaller rate.
 *
 *   f_t = min(1 - hold (1 - f_{t-1}), limit m_t/||g_t||),   m_t the root mean square of the gradients before t
 *   rate <- rate f_t
 *   m_{t+1}^2 = m_t^2 + k_t (min(||g_t||^2, clip^2 m_t^2) - m_t^2),   k_t = max(1/(t + 1), 1/memory)
 *
 * For plain gradient descent it is clipping by a norm that follows the run.  With momentum a long gradient is in the
 * updates that follow, too, `hold` (beta) times less in each, and so the rate comes back only as it is forgotten: at
 * full rates it would come late instead of shorter, and set off the next spike.  A spike enters the history only up to
 * `clip` times the usual length, so that one does not make room for the next.
 *
 * A lasting change is followed, however large it is: a run of gradients that are all longer than clip m_t, or all
 * shorter than m_t/clip, becomes the history, with its plain mean, once it is as long as the history before it.
 * `quiet` updates are the least that it takes, and `memory` updates are enough.
 *
 * Nothing is limited during the first `quiet` updates, which have no history to compare with.  Gradients of zero say
 * nothing of the scale and are left out.  A gradient, a rate or a `hold` that is not finite means SKIP, as does a
 * `hold` outside of [0, 1), and changes nothing.  The method and its constants are ours.  It never raises a rate.
 */
#include <float.h>
#include <math.h>

#define TELLING 0.01 /* a rate that is held down by less than that is not worth a word */

#define RULE      spike
#define ABOUT     "Stage: makes an update with a longer gradient than usual at a smaller rate."
#define INPUTS(X) X(hold) X(gg) X(rate)
#define CONFIG(X)                                                                                                      \
    X(limit, 1.5, 1, INFINITY, GL_CLOSED)                                                                              \
    X(clip, 3, 1, INFINITY, GL_CLOSED)                                                                                 \
    X(memory, 20, 1, INFINITY, GL_OPEN_UPPER)                                                                          \
    X(quiet, 6, 1, INFINITY, GL_COUNT)
/* `run` is the length of the run, negative for a run of short gradients; `recent` is the mean of their squares.
 * `less` is 1 - f, kept by itself: f would stop a rounding below 1.  It is 0 once it no longer shows in 1 - less. */
#define STATE(X)                                                                                                       \
    X(square, 0, 0, INFINITY, GL_OPEN_UPPER)                                                                           \
    X(count, 0, 0, INFINITY, GL_COUNT)                                                                                 \
    X(run, 0, -INFINITY, INFINITY, GL_WHOLE | GL_OPEN)                                                                 \
    X(recent, 0, 0, INFINITY, GL_OPEN_UPPER)                                                                           \
    X(less, 0, 0, 1, GL_CLOSED)
#include "rule_template.h"

/* The run with one more gradient; side is 1 if that is longer than any usual one, -1 if it is shorter, else 0. */
static void follow(struct state *x, int side, double gg) {
    int begun = side * x->run > 0;

    x->run = begun ? x->run + side : side;
    x->recent = begun ? x->recent + (gg - x->recent) / fabs(x->run) : side == 0 ? 0 : gg;
}

static void remember(const struct config *c, struct state *x, double gg) {
    double most = c->clip * c->clip * x->square, least = x->square / (c->clip * c->clip);
    double share = fmax(1 / (x->count + 1), 1 / c->memory), length;

    if (x->square <= 0) {
        x->square = gg;
        x->count = 1;
        return;
    }
    follow(x, gg > most ? 1 : gg < least ? -1 : 0, gg);
    x->square = (1 - share) * x->square + share * fmin(gg, most);
    x->count += 1;
    length = fabs(x->run);
    if (length >= fmin(c->memory, fmax(c->quiet, x->count - length)))
        *x = (struct state){.square = x->recent, .count = length, .less = x->less};
}

static struct gl_verdict update(const struct config *c, const struct inputs *s, struct state *x) {
    double now = 1, held;

    if (!isfinite(s->gg) || s->gg < 0 || !isfinite(s->rate) || !isfinite(s->hold))
        return gl_skip(GL_REASON_not_finite);
    if (s->hold < 0 || s->hold >= 1)
        return gl_skip(GL_REASON_out_of_range);
    held = s->hold * x->less;
    if (held < DBL_EPSILON / 4)
        held = 0;
    if (s->gg > 0 && x->count >= c->quiet && x->square > 0)
        now = fmin(1, c->limit * sqrt(x->square / s->gg));
    x->less = fmax(held, 1 - now);
    if (s->gg > 0)
        remember(c, x, s->gg);
    return gl_keep(s->rate * fmin(1 - held, now), now < 1          ? GL_REASON_spike
                                                  : held > TELLING ? GL_REASON_held
                                                                   : GL_REASON_kept);
}
