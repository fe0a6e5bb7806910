/* start.c - the first learning rates, so that the rate the user started from plays no part.
 *
 * Nothing can be measured before the parameters have moved, and a displacement must be visible in their dtype to
 * be measured.  So the first rate aims at ||delta|| = visible * ||x||, and rates after it rise until one is seen:
 *
 *   first   rate = visible * ||x||/max(||g||, sqrt(n))
 *   later   rate = previous * min(jump, visible * ||x||/||delta||)   while ||delta|| < tolerance * visible * ||x||
 *           rate = previous                                          once it is visible
 *
 * Directions of gradient-like optimizers have the length ||g|| and those of sign-like ones sqrt(n), and nobody says
 * which it is: the longer of the two errs towards small steps, and the rise makes up for it.  Where x is all zero,
 * any displacement is visible and ||x|| says nothing of the scale: sqrt(n) stands in its place, as though every
 * parameter were of size 1.  A displacement of exactly zero was lost to rounding and gives the full `jump`, unless
 * the gradient is zero too: then there was nothing to move, and the rate waits.
 *
 * The method and its constants are ours.  visible = 1e-4 leaves three digits of a float32 displacement; bfloat16
 * parameters want about 1e-2.
 *
 * It never lowers a rate and does not look at the loss: it is done with at the first visible displacement.
 */
#include <float.h>
#include <math.h>

#define RULE      start
#define ABOUT     "First rates: small, and raised until the displacement is visible in the parameters."
#define INPUTS(X) X(dd) X(xx) X(gg) X(n) X(previous)
#define CONFIG(X)                                                                                                      \
    X(visible, 1e-4, 0, 1, GL_OPEN)                                                                                    \
    X(tolerance, 0.1, 0, 1, GL_OPEN_LOWER)                                                                             \
    X(jump, 100, 1, INFINITY, GL_OPEN)
#define STATE(X) X(started, 0, 0, 1, GL_FLAG)
#include "rule_template.h"

static struct gl_verdict first(const struct config *c, const struct inputs *s, struct state *x) {
    double length, direction;

    if (!isfinite(s->xx) || !isfinite(s->gg) || !isfinite(s->n))
        return gl_skip(GL_REASON_not_finite);
    if (s->xx < 0 || s->gg < 0 || s->n < 1)
        return gl_skip(GL_REASON_out_of_range);
    length = sqrt(s->xx > 0 ? s->xx : s->n);
    direction = fmax(sqrt(s->gg), sqrt(s->n));
    x->started = 1;
    return gl_keep(fmax(c->visible * (length / direction), DBL_MIN), GL_REASON_first);
}

/* `previous` and `dd` are of no meaning before the first rate and may then be anything. */
static struct gl_verdict update(const struct config *c, const struct inputs *s, struct state *x) {
    double seen, wanted;

    if (x->started == 0)
        return first(c, s, x);
    if (!inputs_finite(s))
        return gl_skip(GL_REASON_not_finite);
    if (s->xx < 0 || s->gg < 0 || s->dd < 0)
        return gl_skip(GL_REASON_out_of_range);
    seen = sqrt(s->dd);
    wanted = c->visible * sqrt(s->xx);
    if (seen == 0)
        return s->gg == 0 ? gl_keep(s->previous, GL_REASON_no_gradient)
                          : gl_keep(s->previous * c->jump, GL_REASON_not_visible);
    if (seen >= c->tolerance * wanted)
        return gl_keep(s->previous, GL_REASON_kept);
    return gl_keep(s->previous * fmin(c->jump, wanted / seen), GL_REASON_not_visible);
}
