/* polyak.c - the step that would bring the loss's linear model down to its lower bound.
 *
 * With d the direction, a sum of gradients with weights w_k (momentum beta and dampening of SGD; d = g_t and one weight
 * of 1 without), the same sum of the losses and of their linear models is at x_t
 *
 *   h_t = sum_k w_k (f_k - lower + <g_k, x_t - x_k>)
 *
 *   p = h_t/(c ||d||^2)                      SPS: Loizou et al., 2002.10542, d = g_t
 *                                            MoMo: Schaipp et al., 2305.07583, dampening = beta, c = 1
 *   p <- sigma/(1 + sigma/p)                 NGN: Orvieto and Xiao, 2407.04358, c = 1/2, lower = 0
 *   p <- min(p, gamma^(1/batches) base)      the smoothed bound of SPS_max, `base` the rate before; 2002.10542
 *
 * sigma = infinity leaves NGN out, gamma = infinity the smoothed bound; the constant one of SPS_max is the stage
 * `bounds`.  `fall` is ||d||^2, what the model falls by at a rate of 1.  As x_t = x_{t-1} - lr d_{t-1}, and a model
 * stands where it was made at its own loss, h needs no inner product with parameters:
 *
 *   F_t = beta F_{t-1} + (1 - dampening) (f_t - lower)                 first: f_t - lower
 *   D_t = beta (D_{t-1} - lr fall_{t-1}),   h_t = F_t + D_t            first: 0
 *
 * The recursion of D, and momentum without dampening, are ours.
 *
 * Where the model is at or below the lower bound already (h <= 0) or the direction is zero, the rate stays: SKIP.
 * Published, the rate is 0 there, and with the smoothed bound 0 for ever.  It does not learn the lower bound.
 */
#include <math.h>

#define RULE      polyak
#define ABOUT     "Polyak's step: to where the loss's linear model meets its lower bound; SPS, NGN and MoMo."
#define INPUTS(X) X(lr) X(base) X(loss) X(fall)
#define CONFIG(X)                                                                                                      \
    X(c, 0.5, 0, INFINITY, GL_OPEN)                                                                                    \
    X(lower, 0, -INFINITY, INFINITY, GL_OPEN)                                                                          \
    X(sigma, INFINITY, 0, INFINITY, GL_OPEN_LOWER)                                                                     \
    X(gamma, INFINITY, 1, INFINITY, GL_CLOSED)                                                                         \
    X(batches, 500, 1, INFINITY, GL_COUNT)                                                                             \
    X(beta, 0, 0, 1, GL_OPEN_UPPER)                                                                                    \
    X(dampening, 0, 0, 1, GL_OPEN_UPPER)
#define STATE(X)                                                                                                       \
    X(above, 0, -INFINITY, INFINITY, GL_OPEN)                                                                          \
    X(drift, 0, -INFINITY, 0, GL_OPEN_LOWER)                                                                           \
    X(fall, 0, 0, INFINITY, GL_OPEN_UPPER)                                                                             \
    X(count, 0, 0, INFINITY, GL_COUNT)
#include "rule_template.h"

static struct gl_verdict update(const struct config *c, const struct inputs *s, struct state *x) {
    struct state next;
    double height, rate, limit;

    if (!inputs_finite(s))
        return gl_skip(GL_REASON_not_finite);
    if (s->base <= 0 || s->lr < 0 || s->fall < 0)
        return gl_skip(GL_REASON_out_of_range);
    next.above = s->loss - c->lower;
    next.drift = 0;
    if (x->count > 0) {
        next.above = c->beta * x->above + (1 - c->dampening) * next.above;
        next.drift = c->beta * (x->drift - s->lr * x->fall);
    }
    next.fall = s->fall;
    next.count = x->count + 1;
    height = next.above + next.drift;
    if (!isfinite(height) || !isfinite(next.above) || !isfinite(next.drift))
        return gl_skip(GL_REASON_out_of_range);
    *x = next;
    if (s->fall == 0)
        return gl_skip(GL_REASON_no_gradient);
    if (height <= 0)
        return gl_skip(GL_REASON_at_lower);
    rate = height / s->fall / c->c;
    rate = rate / (1 + rate / c->sigma);
    limit = pow(c->gamma, 1 / c->batches) * s->base;
    return rate > limit ? gl_keep(limit, GL_REASON_growth_limited) : gl_keep(rate, GL_REASON_kept);
}
