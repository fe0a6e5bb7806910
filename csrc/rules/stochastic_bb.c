/* stochastic_bb.c - the Barzilai-Borwein rate of whole epochs (SGD-BB; Tan, Ma, Dai & Qian, 1605.04131, NIPS 2016).
 *
 * s is what an epoch of m updates did, y the difference of the averages of the gradients in it and in the epoch before:
 *
 *   eta_k = ||s||^2/(m |<s, y>|)                                        Algorithm 2
 *   c_k   = c_{k-1}^{(k-2)/(k-1)} (eta_k phi(k))^{1/(k-1)}              smoothing, phi(k) = k
 *   rate  = c_k/phi(k)                                                  k = 2, 3, ... the epochs behind
 *
 * c_k is the geometric mean of all eta_j phi(j), and phi makes the rate fall like 1/k.  <s, y> is `curvature`, with the
 * displacement of the whole epoch.
 *
 * It takes ||s||^2/<s, y> as a rate, so that it fits directions that are gradients or sums of them, and no others.
 */
#include <math.h>

#define RULE      stochastic_bb
#define ABOUT     "The Barzilai-Borwein rate of whole epochs, smoothed over them, falling like 1/k."
#define INPUTS(X) X(curvature) X(dd)
#define CONFIG(X) X(m, 1, 1, INFINITY, GL_COUNT)
#define STATE(X)                                                                                                       \
    X(c, 1, 0, INFINITY, GL_OPEN)                                                                                      \
    X(k, 1, 1, INFINITY, GL_COUNT)
#include "rule_template.h"

static struct gl_verdict update(const struct config *c, const struct inputs *s, struct state *x) {
    double k = x->k + 1, eta;

    if (!inputs_finite(s))
        return gl_skip(GL_REASON_not_finite);
    if (s->dd < 0)
        return gl_skip(GL_REASON_out_of_range);
    if (s->dd == 0)
        return gl_skip(GL_REASON_not_visible);
    if (s->curvature == 0)
        return gl_skip(GL_REASON_no_curvature);
    eta = s->dd / fabs(s->curvature) / c->m;
    if (!(isnormal(eta) && isfinite(eta * k)))
        return gl_skip(GL_REASON_out_of_range);
    x->c = pow(x->c, (k - 2) / (k - 1)) * pow(eta * k, 1 / (k - 1));
    x->k = k;
    return gl_keep(x->c / k, GL_REASON_kept);
}
