/* armijo.c - the line search of Armijo and Goldstein: a rate is used once the loss has been seen to fall enough.
 *
 * Along the displacement delta that an update made with the rate `lr`, a trial rate eta stands for x_t - (eta/lr)
 * delta.  With s = slope eta/lr, the fall that the gradient promises, and `trial` the loss seen there:
 *
 *   low    trial <= loss - c s              1905.09997, eq. 1 (of SGD, where s = eta ||g||^2)
 *   far    trial >= loss - (1 - c) s        Goldstein's other side; only where `goldstein` is set
 *   not low          eta <- backtrack eta, RETRY
 *   low, not far     eta <- extend eta, RETRY
 *   else             KEEP eta
 *
 * c, backtrack and extend are those of the released code, and so is the number of tries.  A trial loss that is not
 * finite is not low.
 *
 * Ours: `low` is eased by slack |loss|, as Hager and Zhang do in the approximate Wolfe conditions, since near a
 * minimum losses differ by rounding alone and no rate would ever pass.  `far` is not: a tiny rate would pass for ever.
 * Rates stay within min_lr and max_lr, and rise at most by the factor `rise` above lr, because x_t - (eta/lr) delta
 * repeats the rounding of delta eta/lr times.  Where all tries are used up, the last rate is kept if it was low; else
 * `backtrack` times it, unseen (the released code then steps by 1e-6, whatever the scale of the problem).  Where the
 * loss does not fall along delta, as with momentum that overshoots, no rate can pass and nothing is judged: SKIP.
 *
 * It asks for the same loss on every call of a search: the batch and the randomness are the caller's to repeat.
 */
#include <math.h>

#define RULE      armijo
#define ABOUT     "Line search: a rate is used once the loss has been seen to fall enough."
#define INPUTS(X) X(slope) X(lr) X(loss) X(trial) X(rate)
#define CONFIG(X)                                                                                                      \
    X(c, 0.1, 0, 1, GL_OPEN)                                                                                           \
    X(backtrack, 0.9, 0, 1, GL_OPEN)                                                                                   \
    X(goldstein, 0, 0, 1, GL_FLAG)                                                                                     \
    X(extend, 2, 1, INFINITY, GL_OPEN)                                                                                 \
    X(rise, 1000, 1, INFINITY, GL_OPEN_UPPER)                                                                          \
    X(tries, 100, 1, INFINITY, GL_COUNT)                                                                               \
    X(slack, 1e-6, 0, INFINITY, GL_OPEN_UPPER)                                                                         \
    X(min_lr, 0, 0, INFINITY, GL_OPEN_UPPER)                                                                           \
    X(max_lr, INFINITY, 0, INFINITY, GL_OPEN_LOWER)
#define STATE(X) X(rejected, 0, 0, INFINITY, GL_COUNT)
#define CHECK    check
#include "rule_template.h"

static const char *check(const struct config *c) {
    if (c->min_lr > c->max_lr)
        return "min_lr must be <= max_lr.";
    if (c->goldstein != 0 && c->c >= 0.5)
        return "c must be < 0.5 with goldstein: else no rate meets both conditions.";
    return NULL;
}

/* What the search comes to for the rate eta; RETRY holds the next one. */
static struct gl_verdict judge(const struct config *c, const struct inputs *s, int last) {
    double fall = s->slope * (s->rate / s->lr);
    double top = fmin(c->max_lr, c->rise * s->lr);
    int low = isfinite(s->trial) && s->trial <= s->loss - c->c * fall + c->slack * fabs(s->loss);
    int far = c->goldstein == 0 || s->trial >= s->loss - (1 - c->c) * fall;
    enum gl_reason way = s->rate > s->lr ? GL_REASON_grown : s->rate < s->lr ? GL_REASON_lowered : GL_REASON_kept;
    struct gl_verdict next;

    if (low && (far || last))
        return gl_keep(s->rate, way);
    if (low && s->rate >= top)
        return gl_keep(s->rate, GL_REASON_at_max);
    if (!low && s->rate <= c->min_lr)
        return gl_keep(s->rate, GL_REASON_at_min);
    if (low)
        next = gl_keep(fmin(c->extend * s->rate, top), GL_REASON_grown);
    else if (last)
        return gl_keep(fmax(c->backtrack * s->rate, c->min_lr), GL_REASON_not_found);
    else
        next = gl_keep(fmax(c->backtrack * s->rate, c->min_lr), GL_REASON_lowered);
    if (next.action == GL_KEEP)
        next.action = GL_RETRY;
    return next;
}

static struct gl_verdict update(const struct config *c, const struct inputs *s, struct state *x) {
    struct gl_verdict verdict;

    if (!isfinite(s->loss) || !isfinite(s->slope) || !isfinite(s->lr) || !isfinite(s->rate))
        return gl_skip(GL_REASON_not_finite);
    if (s->lr <= 0 || s->rate <= 0)
        return gl_skip(GL_REASON_out_of_range);
    if (s->slope <= 0)
        return gl_skip(GL_REASON_no_slope);
    verdict = judge(c, s, x->rejected + 1 >= c->tries);
    x->rejected = verdict.action == GL_RETRY ? x->rejected + 1 : 0;
    return verdict;
}
