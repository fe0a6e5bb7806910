/* ntlr.c - a damped Newton step on the learning rate (Retsinas et al., Newton-based Trainable Learning Rate).
 *
 * As a function of the rate, the loss at x - eta u has the slope -<grad f(x - eta u), u> and, by the secant, the
 * curvature <u, grad f(x) - grad f(x - eta u)>/eta.  With v the direction of the window of updates before, w that of
 * this one, in the place of the gradients:
 *
 *   eta <- eta (1 + gamma <v, w>/(<v, v> - <v, w>))          the practical form, after equation 4
 *
 * Where the denominator is not positive the loss does not bend upwards and the rate stays; one window raises it at
 * most by `cap`.  The factor is above 1 - gamma by itself, so that the rate stays positive for every gamma up to 1.
 *
 * `reference` is what the authors' program does instead: it adds 1e-10 to the denominator, and has neither guard nor
 * cap.  Its rate may turn negative (1 < <v, w>/<v, v> < 1/(1 - gamma)), which no optimizer can use: there it stays.
 *
 * It knows nothing of windows: how many updates they have, and what is a direction, is the caller's.
 */
#include <math.h>

#define RULE      ntlr
#define ABOUT     "A damped Newton step on the rate, from the directions of two windows of updates."
#define INPUTS(X) X(base) X(vv) X(vw)
#define CONFIG(X)                                                                                                      \
    X(gamma, 0.33, 0, 1, GL_OPEN_LOWER)                                                                                \
    X(cap, 100, 1, INFINITY, GL_OPEN_LOWER)                                                                            \
    X(reference, 0, 0, 1, GL_FLAG)
#include "rule_template.h"

static struct gl_verdict update(const struct config *c, const struct inputs *s) {
    double bend, factor;

    if (!inputs_finite(s))
        return gl_skip(GL_REASON_not_finite);
    if (s->base <= 0 || s->vv < 0)
        return gl_skip(GL_REASON_out_of_range);
    if (c->reference != 0)
        return gl_keep(s->base * (1 + c->gamma * s->vw / (s->vv - s->vw + 1e-10)), GL_REASON_kept);
    if (s->vv == 0)
        return gl_skip(GL_REASON_not_visible);
    bend = s->vv - s->vw;
    if (bend <= 0)
        return gl_skip(GL_REASON_no_curvature);
    factor = 1 + c->gamma * (s->vw / bend);
    if (factor > c->cap)
        return gl_keep(s->base * c->cap, GL_REASON_growth_limited);
    return gl_keep(s->base * factor, GL_REASON_kept);
}
