/* local_optimum.c - one learning rate for a whole run, from what its first updates show.
 *
 * Two things limit the rate.  Where curvature does, the loss along the direction d of an update is least at
 *
 *   eta* = <g, d>/(d^T C d)                                            (arXiv 2311.13877, Corollary 2.2)
 *
 * with g the gradient that d was made from: its own noise is in the slope, so that eta* is a multiple of 1/L and does
 * not fall with the noise (the slope of independent data does, and at the rates of a run it is near zero).  Where noise
 * and the length of the run do, theory has eta = D/(G sqrt(T)) (the second term of min(1/L, D/(G sqrt(T))); Ghadimi &
 * Lan, arXiv 1309.5549): noise makes the run a random walk, and D is how far it may get.  A network is about as far
 * from where it has to go as its parameters are long at the start, so D = ||x_0||; and G is the length r that all
 * steps of one gradient come to at a rate of 1: ||d||, or ||g||/(1 - beta) where momentum sums gradients (and less by
 * what an average of squares that is not bias-corrected still lacks).  With schedule factors f_t,
 *
 *   eta_n = ||x_0||/(r sqrt(sum_t f_t^2))
 *
 * Neither is exact: the curvature met at a small rate is not that at a large one, and ||x_0|| is a guess.  Their errors
 * are of different origin, so that a geometric mean errs less than either; and where the guess is far off (parameters
 * that hardly matter, a model that is trained already), eta* has the last word:
 *
 *   rate = sigma min(edge eta*^(1 - share) eta_n^share, cap eta*)
 *
 * Slope and curvature are averaged apart, with weights lr^2: displacements made at the small rates of the ramp's start
 * tell little of the rates to come.  The squares of r are averaged plainly: the gradients of a plateau are short, and
 * say nothing of those behind it.  A young momentum buffer is referred to its full length.  A slope
 * near zero or below says little by itself: a measurement says at most that its rate was `fall` times too high.
 *
 * Where the loss falls and does not bend, eta* is infinite, and eta_n alone is the rate.
 *
 * The form of eta_n, the mean and the constants edge, share, fall and cap are ours, found by experiment on small
 * networks. Where training starts from x_0 = 0 nothing is known of D, and eta* stands alone.
 *
 * It knows nothing of time: what it learns, it keeps.
 */
#include <math.h>

#define RULE      local_optimum
#define ABOUT     "One rate for a whole run: the mean of what curvature and what noise allow."
#define INPUTS(X) X(slope) X(behind) X(curvature) X(dd) X(lr) X(young) X(reach) X(energy) X(start)
#define CONFIG(X)                                                                                                      \
    X(sigma, 1, 0, INFINITY, GL_OPEN)                                                                                  \
    X(edge, 1.25, 0, INFINITY, GL_OPEN)                                                                                \
    X(share, 0.62, 0, 1, GL_CLOSED)                                                                                    \
    X(fall, 4, 1, INFINITY, GL_OPEN_LOWER)                                                                             \
    X(cap, 6, 0, INFINITY, GL_OPEN_LOWER)
#define STATE(X)                                                                                                       \
    X(slope, 0, -INFINITY, INFINITY, GL_OPEN)                                                                          \
    X(curvature, 0, -INFINITY, INFINITY, GL_OPEN)                                                                      \
    X(length, 0, 0, INFINITY, GL_OPEN_UPPER)                                                                           \
    X(count, 0, 0, INFINITY, GL_COUNT)
#include "rule_template.h"

/* The averages with one more measurement; 0 if they overflow. */
static int average(const struct config *c, const struct inputs *s, struct state *x) {
    double weight = s->lr * s->lr, slope = s->slope + s->behind * s->curvature, least = s->curvature / c->fall;

    x->slope += weight * (s->young * s->lr * (fmax(slope, least) / s->dd));
    x->curvature += weight * (s->curvature / s->dd);
    x->length += s->reach;
    x->count += 1;
    return isfinite(x->slope) && isfinite(x->curvature) && isfinite(x->length);
}

static struct gl_verdict update(const struct config *c, const struct inputs *s, struct state *x) {
    struct state next = *x;
    double optimal, by_noise, mean;
    int known;

    if (!inputs_finite(s))
        return gl_skip(GL_REASON_not_finite);
    if (s->dd <= 0)
        return gl_skip(GL_REASON_not_visible);
    if (s->lr <= 0 || s->young <= 0 || s->young > 1 || s->reach < 0 || s->energy <= 0 || s->start < 0 || s->behind < 0)
        return gl_skip(GL_REASON_out_of_range);
    if (!average(c, s, &next))
        return gl_skip(GL_REASON_out_of_range);
    *x = next;
    if (x->slope <= 0)
        return gl_skip(GL_REASON_no_slope);
    by_noise = sqrt(s->start * (x->count / x->length) / s->energy);
    known = by_noise > 0 && isfinite(by_noise); /* not where x_0 = 0 */
    if (x->curvature <= 0)
        return known ? gl_keep(c->sigma * by_noise, GL_REASON_no_curvature) : gl_skip(GL_REASON_no_curvature);
    optimal = x->slope / x->curvature;
    if (!known)
        return gl_keep(c->sigma * optimal, GL_REASON_kept);
    mean = c->edge * pow(optimal, 1 - c->share) * pow(by_noise, c->share);
    return gl_keep(c->sigma * fmin(mean, c->cap * optimal), GL_REASON_kept);
}
