/* adgd.c - adaptive gradient descent without descent (Malitsky & Mishchenko, 1910.09529).
 *
 *   lambda_k = min{ lambda_{k-1} sqrt(1 + amplifier theta_{k-1}), ||s||/(damping ||y||) } + eps
 *   theta_k  = lambda_k/lambda_{k-1}
 *
 * s = x_k - x_{k-1}, y the difference of the gradients there.  The rate may not grow fast and does not overstep the
 * local curvature.  amplifier 1, damping 2, eps 0, theta_0 = infinity is Algorithm 1, which converges on any convex
 * loss that is locally smooth; amplifier 0.02, damping 1, eps 1e-5, theta_0 = 1 with both gradients of one batch is the
 * released stochastic form.
 *
 * lambda_{k-1} is `base`, the rate so far; theta is taken from it and the one before it, so that a bound on the rate is
 * seen here.  For a direction that is not the gradient, ||s||/||y|| becomes its rate as in secant.c: ours.  Where y is
 * zero, only the first term is left; while theta is infinite, nothing is, and the rate holds.
 */
#include <math.h>

#define RULE  adgd
#define ABOUT "Adaptive gradient descent: the local curvature limits the rate, and the rate before limits its growth."
#define INPUTS(X) X(slope) X(dd) X(lr) X(base) X(yy)
#define CONFIG(X)                                                                                                      \
    X(amplifier, 1, 0, INFINITY, GL_OPEN_UPPER)                                                                        \
    X(damping, 2, 0, INFINITY, GL_OPEN)                                                                                \
    X(eps, 0, 0, INFINITY, GL_OPEN_UPPER)                                                                              \
    X(theta, INFINITY, 0, INFINITY, GL_CLOSED)
#define STATE(X) X(last, 0, 0, INFINITY, GL_OPEN_UPPER)
#include "rule_template.h"

/* The most that the rate may grow to; amplifier 0 forbids growth also where theta is infinite. */
static double grown(const struct config *c, const struct inputs *s, double last) {
    double theta = last > 0 ? s->base / last : c->theta;
    return c->amplifier > 0 ? s->base * sqrt(1 + c->amplifier * theta) : s->base;
}

static struct gl_verdict update(const struct config *c, const struct inputs *s, struct state *x) {
    double wanted, by_curvature;
    int lowered;

    if (!inputs_finite(s))
        return gl_skip(GL_REASON_not_finite);
    if (s->base <= 0 || s->lr <= 0 || s->dd < 0 || s->yy < 0)
        return gl_skip(GL_REASON_out_of_range);
    if (s->dd == 0)
        return gl_skip(GL_REASON_not_visible);
    if (s->slope <= 0)
        return gl_skip(GL_REASON_no_slope);
    wanted = grown(c, s, x->last);
    by_curvature = sqrt(s->dd) / (c->damping * sqrt(s->yy)) * (s->lr * (s->slope / s->dd));
    lowered = by_curvature < wanted;
    if (lowered)
        wanted = by_curvature;
    if (wanted == INFINITY)
        return gl_skip(GL_REASON_no_curvature);
    x->last = s->base;
    return gl_keep(wanted + c->eps, lowered ? GL_REASON_kept : GL_REASON_growth_limited);
}
