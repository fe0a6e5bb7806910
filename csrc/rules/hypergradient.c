/* hypergradient.c - the rate follows its own gradient (Baydin et al., 1703.04782).
 *
 * x_t = x_{t-1} - eta u, so that d f(x_t)/d eta = -<g_t, u>: agreeing directions ask for a larger rate.  With the
 * rate so far (`base`) and the direction u of the update before:
 *
 *   additive          eta <- eta + beta <g_t, u>                          1703.04782, eq. 6 and 7
 *   multiplicative    eta <- eta (1 + beta <g_t, u>/(||g_t|| ||u||))      1703.04782, eq. 8, in the cosine form
 *
 * beta is in units of the rate's own over those of a squared gradient in the first form, and a plain number in the
 * second, which depends on the scale of neither loss nor gradient.  Where either vector is zero nothing was learnt,
 * and the rate stays.
 *
 * Over windows of several updates, u is what a window did and g what the next window did.
 *
 * Published without any safeguard, the additive form may leave the positive numbers.  Here an update leaves at least
 * the fraction `shrink` of the rate: ours.
 *
 * It knows no horizon, and a beta that suits one loss does not suit another: the rate that is spared comes back as
 * beta (additive form).
 */
#include <math.h>

#define RULE      hypergradient
#define ABOUT     "The rate follows its own gradient: the agreement of this gradient with the step before."
#define INPUTS(X) X(gg) X(base) X(gu) X(uu)
#define CONFIG(X)                                                                                                      \
    X(beta, 1e-6, 0, INFINITY, GL_OPEN)                                                                                \
    X(multiplicative, 0, 0, 1, GL_FLAG)                                                                                \
    X(shrink, 0.1, 0, 1, GL_OPEN)
#include "rule_template.h"

/* What the rate is to be raised by, as a fraction of it. */
static double gain(const struct config *c, const struct inputs *s) {
    if (c->multiplicative != 0)
        return c->beta * (s->gu / (sqrt(s->gg) * sqrt(s->uu)));
    return c->beta * (s->gu / s->base);
}

static struct gl_verdict update(const struct config *c, const struct inputs *s) {
    double change;

    if (!inputs_finite(s))
        return gl_skip(GL_REASON_not_finite);
    if (s->base <= 0 || s->gg < 0 || s->uu < 0)
        return gl_skip(GL_REASON_out_of_range);
    if (s->gg == 0 || s->uu == 0)
        return gl_skip(GL_REASON_no_gradient);
    change = gain(c, s);
    if (change < c->shrink - 1)
        return gl_keep(c->shrink * s->base, GL_REASON_lowered);
    return gl_keep(s->base * (1 + change), GL_REASON_kept);
}
