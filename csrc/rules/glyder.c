/* glyder.c - locally optimal learning rate from averaged slope and curvature.
 *
 * The loss along the direction d of update t is f(x_t - eta d) ~ f(x_t) - eta <grad f, d> + eta^2/2 d^T C d, which
 * is least at eta* = <grad f, d>/(d^T C d).  With d^T C d = L ||d||^2 this is the rate of Corollary 2.2 of "Locally
 * Optimal Descent for Dynamic Stepsize Scheduling" (arXiv 2311.13877), here for any optimizer's d.
 *
 * With delta = eta_t d each measurement gives
 *
 *   a = young * lr * (slope + behind * curvature)/||delta||^2    = <grad f(x_t), d>/||d||^2
 *   l = curvature/||delta||^2                                    = d^T C d/||d||^2
 *
 * The curvature refers a slope that was measured behind the update, at x_{t+1}, back to x_t.  A momentum buffer that
 * has gathered only the weight `young` makes d short by that factor and leaves a too large by it.  Then, over the
 * measurements,
 *
 *   A <- beta A + a,   L <- beta L + l,   beta = 1 - 1/memory,   rate = sigma A/L
 *
 * The averages are kept apart and divided at the end: a mean of ratios is ruled by the measurements of least
 * curvature.  Both have the same sum of weights, so it never has to be divided out.  memory = infinity is the plain
 * mean of all so far, memory = 1 the latest measurement alone.
 *
 * The separate averages, `memory` and sigma's default are ours: sigma = 1 is the greedy optimum of one step,
 * sigma = 2 the largest rate at which the loss still does not rise.
 *
 * It does not smooth or limit the rate, and it does not know when to stop measuring.
 */
#include <math.h>

#define RULE      glyder
#define ABOUT     "Locally optimal rate: averaged slope over averaged curvature along the update."
#define INPUTS(X) X(slope) X(behind) X(curvature) X(dd) X(lr) X(young)
#define CONFIG(X)                                                                                                      \
    X(sigma, 2, 0, INFINITY, GL_OPEN)                                                                                  \
    X(memory, INFINITY, 1, INFINITY, GL_CLOSED)
#define STATE(X)                                                                                                       \
    X(slope, 0, -INFINITY, INFINITY, GL_OPEN)                                                                          \
    X(curvature, 0, -INFINITY, INFINITY, GL_OPEN)                                                                      \
    X(count, 0, 0, INFINITY, GL_COUNT)
#include "rule_template.h"

static struct gl_verdict update(const struct config *c, const struct inputs *s, struct state *x) {
    struct state next;
    double a, l, beta = 1 - 1 / c->memory;

    if (!inputs_finite(s))
        return gl_skip(GL_REASON_not_finite);
    if (s->dd <= 0)
        return gl_skip(GL_REASON_not_visible);
    if (s->lr <= 0 || s->young <= 0 || s->young > 1 || s->behind < 0)
        return gl_skip(GL_REASON_out_of_range);
    a = s->young * s->lr * ((s->slope + s->behind * s->curvature) / s->dd);
    l = s->curvature / s->dd;
    next.slope = beta * x->slope + a;
    next.curvature = beta * x->curvature + l;
    next.count = x->count + 1;
    if (!isfinite(next.slope) || !isfinite(next.curvature))
        return gl_skip(GL_REASON_out_of_range);
    *x = next;
    if (x->slope <= 0)
        return gl_skip(GL_REASON_no_slope);
    if (x->curvature <= 0)
        return gl_skip(GL_REASON_no_curvature);
    return gl_keep(c->sigma * (x->slope / x->curvature), GL_REASON_kept);
}
