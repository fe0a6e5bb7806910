/* gradnorm.c - the locally optimal rate of stochastic gradient descent, in expectation over the gradient.
 *
 * For x - eta g with an unbiased g, smoothness L gives E f(x - eta g) <= f(x) - eta ||grad f||^2 + eta^2/2 L E||g||^2,
 * which is least at
 *
 *   eta = ||grad f||^2/(L E||g||^2)                    (after "Locally Optimal Descent for Dynamic Stepsize
 * Scheduling", arXiv 2311.13877; its Corollary 2.2 is the form for one draw)
 *
 * the share of the gradient in what is drawn, over L: it falls by itself as the noise takes over.  With the estimates
 * ff of ||grad f||^2 and gg of E||g||^2, and L = curvature/||delta||^2 along the latest displacement, over the
 * measurements
 *
 *   F <- beta F + ff,   G <- beta G + gg,   K <- beta K + curvature/||delta||^2,   N <- beta N + 1,
 *   rate = sigma (F/G)(N/K),   beta = 1 - 1/memory
 *
 * Averages and `memory` are ours: they are kept apart, as a ratio of noisy numbers is far off on average.  A single ff
 * may well be negative; F is where the noise of the estimates averages out.
 *
 * It holds for the plain gradient as direction only, and does not know when to stop.
 */
#include <math.h>

#define RULE      gradnorm
#define ABOUT     "Locally optimal rate of plain SGD in expectation: ||grad f||^2/(L E||g||^2)."
#define INPUTS(X) X(curvature) X(dd) X(gg) X(ff)
#define CONFIG(X)                                                                                                      \
    X(sigma, 1, 0, INFINITY, GL_OPEN)                                                                                  \
    X(memory, 100, 1, INFINITY, GL_CLOSED)
#define STATE(X)                                                                                                       \
    X(gradient, 0, -INFINITY, INFINITY, GL_OPEN)                                                                       \
    X(drawn, 0, 0, INFINITY, GL_OPEN_UPPER)                                                                            \
    X(curvature, 0, -INFINITY, INFINITY, GL_OPEN)                                                                      \
    X(weight, 0, 0, INFINITY, GL_OPEN_UPPER)
#include "rule_template.h"

static struct gl_verdict update(const struct config *c, const struct inputs *s, struct state *x) {
    struct state next;
    double beta = 1 - 1 / c->memory;

    if (!inputs_finite(s))
        return gl_skip(GL_REASON_not_finite);
    if (s->dd <= 0)
        return gl_skip(GL_REASON_not_visible);
    if (s->gg < 0)
        return gl_skip(GL_REASON_out_of_range);
    if (s->gg == 0)
        return gl_skip(GL_REASON_no_gradient);
    next.gradient = beta * x->gradient + s->ff;
    next.drawn = beta * x->drawn + s->gg;
    next.curvature = beta * x->curvature + s->curvature / s->dd;
    next.weight = beta * x->weight + 1;
    if (!isfinite(next.gradient) || !isfinite(next.drawn) || !isfinite(next.curvature))
        return gl_skip(GL_REASON_out_of_range);
    *x = next;
    if (x->gradient <= 0)
        return gl_skip(GL_REASON_no_slope);
    if (x->curvature <= 0)
        return gl_skip(GL_REASON_no_curvature);
    return gl_keep(c->sigma * ((x->gradient / x->drawn) * (x->weight / x->curvature)), GL_REASON_kept);
}
