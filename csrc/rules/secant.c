/* secant.c - the curvature between two points of the run as the measure of the rate (Barzilai & Borwein, 1988).
 *
 * With s = x_t - x_{t-1} what the optimizer did, y the difference of the gradients there:
 *
 *   bb1 (form 0)         1/L = ||s||^2/<s, y>
 *   bb2 (form 1)         1/L = <s, y>/||y||^2                      Barzilai & Borwein, IMA J. Numer. Anal. 8, eq. 5
 *   geometric (form 2)   1/L = ||s||/||y||                         their geometric mean, which needs no sign
 *
 * 1/L is a rate of gradient descent.  For another direction d, s = -eta d, it becomes
 *
 *   rate = 1/L <g, d>/||d||^2 = 1/L <g_{t-1}, -s> eta/||s||^2
 *
 * the minimum along d of a loss of that curvature: ours.  The factor is 1 where d is the gradient, and gives momentum,
 * sign and adaptive directions a rate in their own units.  With bb1 it is <g, d>/(d^T C d), C the curvature by the
 * secant; and since ||y||_1 <= sqrt(n) ||y||_2, the geometric mean of a sign direction is at most
 * ||g||_1 ||s||_inf/||y||_1, the secant in the dual norms.
 *
 * Here delta = -s, and `curvature` is <s, y>.  Where that is not positive, bb1 and bb2 hold the rate.
 *
 * It does not know how y came about.  Of gradients of two batches y holds the noise of both, which does not vanish with
 * s: bb2 and the geometric mean then lower the rate at every update, towards zero.
 */
#include <math.h>

enum form { BB1 = 0, BB2 = 1, GEOMETRIC = 2 };

#define RULE      secant
#define ABOUT     "The rate that fits the curvature between this point and the one before: Barzilai and Borwein."
#define INPUTS(X) X(slope) X(curvature) X(dd) X(lr) X(yy)
#define CONFIG(X) X(form, BB1, BB1, GEOMETRIC, GL_WHOLE)
#include "rule_template.h"

static double inverse(const struct config *c, const struct inputs *s) {
    if (c->form == BB1)
        return s->dd / s->curvature;
    if (c->form == BB2)
        return s->curvature / s->yy;
    return sqrt(s->dd) / sqrt(s->yy);
}

static struct gl_verdict update(const struct config *c, const struct inputs *s) {
    if (!inputs_finite(s))
        return gl_skip(GL_REASON_not_finite);
    if (s->lr <= 0 || s->dd < 0 || s->yy < 0)
        return gl_skip(GL_REASON_out_of_range);
    if (s->dd == 0)
        return gl_skip(GL_REASON_not_visible);
    if (s->slope <= 0)
        return gl_skip(GL_REASON_no_slope);
    if (s->yy == 0 || (c->form != GEOMETRIC && s->curvature <= 0))
        return gl_skip(GL_REASON_no_curvature);
    return gl_keep(inverse(c, s) * (s->lr * (s->slope / s->dd)), GL_REASON_kept);
}
