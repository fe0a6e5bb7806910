/* back_off.c - stage: a gradient far above its own history lowers the rate.
 *
 * With v_t = log ||g_t||, its mean m_t over a memory of `memory` updates, and a reference P_t that follows the largest
 * mean so far, by a factor `limit` in `rise` updates at most:
 *
 *   high      if v_t > P_{t-1} + log(limit)
 *   back off  factor <- drop * factor, P <- P - log(drop) after `patience` high updates in a row, and not again for
 *             `rest` updates
 *   rate <- rate * factor
 *   P_t = max(P_{t-1}, min(m_t, P_{t-1} + log(limit)/rise))
 *   m_t = S_t/W_t,  S_t = beta S_{t-1} + v_t,  W_t = beta W_{t-1} + 1,  beta = 1 - 1/memory
 *
 * A single odd batch is not a divergence.  A gradient that stays large for good becomes history, and the halved rate
 * allows for twice the gradient: it acts two or three times for each factor of ten.  One that keeps growing by
 * more than a factor `limit` in `rise` updates keeps it on; without that bound a run that diverges slowly takes the
 * reference along, as it still does below it.  No history, no back-off: the first `memory` gradients are only watched.
 * Gradients of zero say nothing of the scale and are left out.  One that is not finite means SKIP: the rate stays, and
 * it is counted in `bad`.  A rate that is not finite means SKIP, too, and changes nothing.
 *
 * The method and its constants are ours.  log is the C library's, and only comparisons hang on its last bit.
 *
 * It never raises the factor (its caller may set it back to 1 where the rate has been measured anew), and does not undo
 * the steps that led to a divergence.
 */
#include <float.h>
#include <math.h>

#define RULE      back_off
#define ABOUT     "Stage: lowers the rate while the gradient is far above its own history."
#define INPUTS(X) X(gg) X(rate)
#define CONFIG(X)                                                                                                      \
    X(memory, 10, 1, INFINITY, GL_OPEN_UPPER)                                                                          \
    X(limit, 4, 1, INFINITY, GL_OPEN_LOWER)                                                                            \
    X(drop, 0.5, 0, 1, GL_OPEN_LOWER)                                                                                  \
    X(patience, 2, 1, INFINITY, GL_COUNT)                                                                              \
    X(rest, 1, 0, INFINITY, GL_COUNT)                                                                                  \
    X(rise, 20, 0, INFINITY, GL_OPEN)
#define STATE(X)                                                                                                       \
    X(factor, 1, 0, 1, GL_OPEN_LOWER)                                                                                  \
    X(sum, 0, -INFINITY, INFINITY, GL_OPEN)                                                                            \
    X(weight, 0, 0, INFINITY, GL_OPEN_UPPER)                                                                           \
    X(peak, -INFINITY, -INFINITY, INFINITY, GL_OPEN_UPPER)                                                             \
    X(count, 0, 0, INFINITY, GL_COUNT)                                                                                 \
    X(high, 0, 0, INFINITY, GL_COUNT)                                                                                  \
    X(wait, 0, 0, INFINITY, GL_COUNT)                                                                                  \
    X(since, 0, 0, INFINITY, GL_COUNT)                                                                                 \
    X(bad, 0, 0, INFINITY, GL_COUNT)
#include "rule_template.h"

/* The decision itself: 1 if it acts on the log-norm v. */
static int grown(const struct config *c, struct state *x, double v) {
    x->since += 1;
    x->high = x->count >= c->memory && v > x->peak + log(c->limit) ? x->high + 1 : 0;
    if (x->wait > 0) {
        x->wait -= 1;
        return 0;
    }
    if (x->high < c->patience)
        return 0;
    x->factor = fmax(c->drop * x->factor, DBL_MIN);
    x->peak -= log(c->drop);
    x->wait = c->rest;
    x->since = 0;
    return 1;
}

static void remember(const struct config *c, struct state *x, double v) {
    double beta = 1 - 1 / c->memory, most = INFINITY;

    if (x->count >= c->memory)
        most = x->peak + log(c->limit) / c->rise;
    x->sum = beta * x->sum + v;
    x->weight = beta * x->weight + 1;
    x->peak = fmax(x->peak, fmin(x->sum / x->weight, most));
    x->count += 1;
}

static struct gl_verdict update(const struct config *c, const struct inputs *s, struct state *x) {
    int acted = 0;

    if (!(s->gg >= 0) || !isfinite(s->gg)) {
        x->bad += 1;
        return gl_skip(GL_REASON_not_finite);
    }
    if (!isfinite(s->rate))
        return gl_skip(GL_REASON_not_finite);
    if (s->gg > 0) {
        double v = 0.5 * log(s->gg);
        acted = grown(c, x, v);
        remember(c, x, v);
    }
    return gl_keep(s->rate * x->factor, acted ? GL_REASON_backed_off : GL_REASON_kept);
}
