/* regime.c - a rate that follows the variation of the stochastic gradients and nothing else.
 *
 * With d the direction of the update before and g_{t-1} the gradient it was made from, the secant between the two
 * gradients says that the curvature along d is <g_{t-1} - g_t, d>/eta, and the rate that is best for it
 *
 *   eta_sec = eta r,   r = <g_{t-1}, d>/|<g_{t-1} - g_t, d>|
 *
 * the quasi-Newton scalar of Barzilai & Borwein (1988) for SGD, where <g, d> = ||g||^2; for sign directions <g, d> =
 * ||g||_1 and the secant is that of the dual norms; for momentum d is what was really done.  One pair of batches says
 * little, so that the rate is the geometric mean of the secant rates of the last few updates, none taken for more than
 * `limit` times the rate:
 *
 *   eta_t = eta_{t-1}^{1 - 1/memory} (eta_{t-1} min(r, limit))^{1/memory}    but at least eta_{t-1}/limit
 *
 * It is in balance where the gradient along d is gone after the step: while some is left the rate rises; when its sign
 * turns, or its length more than doubles, the rate falls; gradients that are all noise leave it where it is on average.
 * r is a ratio of gradients: neither the scale of the loss nor that of the parameters plays a part.
 *
 * "Explainable Learning Rate Regimes for Stochastic Optimization" (2508.13639) describes a rate driven by the variation
 * of the gradients alone, from stochastic second-order methods.  Its formula was not available, and this is not its
 * algorithm: formula, mean and constants are ours, chosen among the candidates of benchmarks/papers/regime.py.
 *
 * Where <g_{t-1}, d> is not positive the step went against its gradient, and the rate holds.  It knows no horizon, and
 * works against an annealed rate.  The logarithm of r has a long lower tail where <g, d> is mostly the agreement of old
 * gradients by chance: with momentum and few parameters the rate falls in the long run, as if annealed.
 */
#include <math.h>

#define RULE      regime
#define ABOUT     "The rate follows the variation of the gradients: the geometric mean of its secant rates."
#define INPUTS(X) X(slope) X(curvature) X(base)
#define CONFIG(X)                                                                                                      \
    X(memory, 4, 1, INFINITY, GL_OPEN_UPPER)                                                                           \
    X(limit, 2, 1, INFINITY, GL_OPEN)
#include "rule_template.h"

static struct gl_verdict update(const struct config *c, const struct inputs *s) {
    double ratio, factor;

    if (!inputs_finite(s))
        return gl_skip(GL_REASON_not_finite);
    if (s->base <= 0)
        return gl_skip(GL_REASON_out_of_range);
    if (s->slope <= 0)
        return gl_skip(GL_REASON_no_slope);
    ratio = fmin(s->slope / fabs(s->curvature), c->limit);
    factor = fmax(pow(ratio, 1 / c->memory), 1 / c->limit);
    return gl_keep(s->base * factor, factor > 1 ? GL_REASON_grown : GL_REASON_lowered);
}
