/* autosgd.c - three streams of SGD race for an episode, and the winner's rate is kept (Surjanovic, Bouchard-Cote and
 * Campbell, 2505.21651).
 *
 * From one start, three streams step at the rates down*gamma, gamma and up*gamma, all on the same batches.  At the end
 * of the episode
 *
 *   grown       the fast stream was better     its parameters,        gamma <- up*gamma
 *   kept        neither was                    those of the middle,   gamma
 *   lowered     the slow stream was better     those of the middle,   gamma <- down*gamma
 *   restarted   the start was better           those of the start,    gamma <- down*gamma
 *
 * and the next one starts.  The four outcomes and the factors 1/2 and 2 are the paper's; this file knows losses only,
 * and who calls it moves the parameters.
 *
 * When an episode ends, and with what outcome, is ours.  Each update gives the losses of the streams and of the start
 * on one batch, which none of them has stepped on yet.  Their differences to the middle's, d, are paired: what is
 * hard about a batch is hard for all.  With n of them, a stream is better than the middle where
 *
 *   mean(d) + bound * sqrt(var(d)/n) < 0
 *
 * and worse where the same with the other sign is above 0.  It is looked at from the update `shortest` on, and the
 * episode ends as soon as something is better than the middle, or both other streams are worse; after `longest`
 * updates the rate is kept.  Looking again and again errs more often than looking once: of independent normal
 * differences around 0, the bound of 3.5 is passed in 5 of 100 episodes on either side together.
 *
 * A stream that diverges has losses so long that their variance hides their mean, so that differences count at most as
 * the mean size of the start's loss.  A middle whose loss is beyond 1e150 has lost at once.
 *
 * exact = 1 is AutoGD: losses without noise decide every update.
 *
 * It knows nothing of the loss beyond the episode: under noise a slow stream soon has the lower loss, and the rate may
 * be lowered earlier than is good in the long run.
 */
#include <float.h>
#include <math.h>

#define LOST   1e150       /* squares of larger differences overflow */
#define LENGTH (10 * LOST) /* no mean comes near it */

#define RULE      autosgd
#define ABOUT     "Three streams of SGD at neighbouring rates race for an episode; the winner's rate is kept."
#define INPUTS(X) X(base) X(loss) X(slow_loss) X(fast_loss) X(begin_loss)
#define CONFIG(X)                                                                                                      \
    X(down, 0.5, 0, 1, GL_OPEN)                                                                                        \
    X(up, 2, 1, INFINITY, GL_OPEN)                                                                                     \
    X(bound, 3.5, 0, INFINITY, GL_OPEN_UPPER)                                                                          \
    X(shortest, 5, 2, INFINITY, GL_COUNT)                                                                              \
    X(longest, 100, 2, INFINITY, GL_COUNT)                                                                             \
    X(exact, 0, 0, 1, GL_FLAG)

/* Of the differences to the middle: their mean, and the sum of squares around it. */
#define STATE(X)                                                                                                       \
    X(count, 0, 0, INFINITY, GL_COUNT)                                                                                 \
    X(size, 0, 0, LENGTH, GL_CLOSED)                                                                                   \
    X(slow, 0, -LENGTH, LENGTH, GL_CLOSED)                                                                             \
    X(slow_square, 0, 0, DBL_MAX, GL_CLOSED)                                                                           \
    X(fast, 0, -LENGTH, LENGTH, GL_CLOSED)                                                                             \
    X(fast_square, 0, 0, DBL_MAX, GL_CLOSED)                                                                           \
    X(begin, 0, -LENGTH, LENGTH, GL_CLOSED)                                                                            \
    X(begin_square, 0, 0, DBL_MAX, GL_CLOSED)
#define CHECK check
#include "rule_template.h"

static const char *check(const struct config *c) {
    return c->shortest <= c->longest ? NULL : "shortest must not exceed longest.";
}

/* Welford's update: squares around the mean without cancellation. */
static void see(double *mean, double *square, double n, double difference, double size) {
    double off = fmin(fmax(difference, -size), size) - *mean;

    *mean += off / n;
    *square = fmin(*square + off * off * ((n - 1) / n), DBL_MAX);
}

static void remember(struct state *x, const struct inputs *s) {
    x->count += 1;
    x->size += (fabs(s->begin_loss) - x->size) / x->count;
    see(&x->slow, &x->slow_square, x->count, s->slow_loss - s->loss, x->size);
    see(&x->fast, &x->fast_square, x->count, s->fast_loss - s->loss, x->size);
    see(&x->begin, &x->begin_square, x->count, s->begin_loss - s->loss, x->size);
}

/* -1 where the loss is below the middle's, 1 where it is above, 0 where that is open. */
static int against_middle(const struct config *c, double n, double mean, double square) {
    double margin = c->exact != 0 || n < 2 ? 0 : c->bound * sqrt(square / (n * (n - 1)));
    return (mean - margin > 0) - (mean + margin < 0);
}

static enum gl_reason outcome(const struct config *c, const struct state *x) {
    int slow = against_middle(c, x->count, x->slow, x->slow_square);
    int fast = against_middle(c, x->count, x->fast, x->fast_square);

    if (c->exact == 0 && x->count < c->shortest)
        return GL_REASON_undecided;
    if (against_middle(c, x->count, x->begin, x->begin_square) < 0)
        return GL_REASON_restarted;
    if (fast < 0)
        return GL_REASON_grown;
    if (slow < 0)
        return GL_REASON_lowered;
    if (c->exact != 0 || (slow > 0 && fast > 0) || x->count >= c->longest)
        return GL_REASON_kept;
    return GL_REASON_undecided;
}

static struct gl_verdict update(const struct config *c, const struct inputs *s, struct state *x) {
    enum gl_reason reason = GL_REASON_restarted;

    if (!inputs_finite(s))
        return gl_skip(GL_REASON_not_finite);
    if (s->base <= 0 || fabs(s->begin_loss) > LOST)
        return gl_skip(GL_REASON_out_of_range);
    if (s->loss <= LOST) {
        remember(x, s);
        reason = outcome(c, x);
    }
    if (reason != GL_REASON_undecided)
        *x = (struct state){0};
    if (reason == GL_REASON_grown)
        return gl_keep(c->up * s->base, reason);
    if (reason == GL_REASON_lowered || reason == GL_REASON_restarted)
        return gl_keep(c->down * s->base, reason);
    return gl_keep(s->base, reason);
}
