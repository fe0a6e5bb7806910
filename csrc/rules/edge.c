/* edge.c - the peak of a schedule for optimizers whose steps are as long as gradients make them (SGD).
 *
 * Gradient descent is stable up to a rate of 2 over the sharpness; a little beyond, steps overshoot and gradients grow.
 * Networks flatten where the rate pushes, so that the rate of least loss along a single step says little of what they
 * can bear: the edge itself has to be met.  The rate rises by `pace` decades an update from h 10^-below, and
 *
 *   v_t   = exponential mean of log10 ||g_t|| over `memory` decades of the rate, bias-corrected
 *   edge  = the rate at which v_t is `grown` above the least v so far or the first length, gradients having grown
 *           threefold, or one is tenfold: `sudden` above it
 *
 * What was learned on the way is given up: the caller goes back to where the search began.  What a run of given length
 * can bear is h, the rate at which it makes a random walk as long as its parameters (peak.h; r = ||d||^2/||x||^2 of the
 * whole, d what one gradient moves in the end, ||g||/(1 - beta) with momentum), and
 *
 *   peak = sigma gain edge^(1-share) min(h, edge)^share
 *
 * A short run with large batches may have to walk farther than its edge lets it: the edge holds.
 *
 * Gradients that have grown within the `earliest` updates tell that the search began above the edge: it begins again,
 * from where it began, at a rate `lower` decades lower, `tries` times in all.
 *
 * Where gradients have not grown within `longest` updates, or `above` decades over h (convex losses have no edge that a
 * few steps could meet), the rate reached stands for the edge.  Where they have vanished on the way, everything being
 * fitted, the rate waits for others; such updates count.
 *
 * "Edge" is that of Cohen et al. (arXiv 2103.00065).  The search and all constants are ours, found by experiment
 * (benchmarks/results/LESSONS.md).
 *
 * It knows nothing of warm-up, annealing or bounds, and it never looks at the loss.
 */
#include "peak.h" /* gl_walk, gl_peak_between */
#include <math.h>

#define RULE      edge
#define ABOUT     "The peak of a schedule: a part of the rate at which gradients begin to grow."
#define INPUTS(X) X(relative) X(lr) X(energy) X(gg)
#define CONFIG(X)                                                                                                      \
    X(sigma, 1, 0, INFINITY, GL_OPEN)                                                                                  \
    X(longest, 40, 1, INFINITY, GL_CLOSED)                                                                             \
    X(earliest, 3, 0, INFINITY, GL_OPEN_UPPER)                                                                         \
    X(below, 1, 0, INFINITY, GL_OPEN)                                                                                  \
    X(above, 2, 0, INFINITY, GL_OPEN)                                                                                  \
    X(pace, 0.1, 0, INFINITY, GL_OPEN)                                                                                 \
    X(pace_total, 3.5, 0, INFINITY, GL_OPEN)                                                                           \
    X(fastest, 0.5, 0, INFINITY, GL_OPEN)                                                                              \
    X(memory, 0.3, 0, INFINITY, GL_OPEN)                                                                               \
    X(grown, 0.55, 0, INFINITY, GL_OPEN)                                                                               \
    X(sudden, 1, 0, INFINITY, GL_OPEN)                                                                                 \
    X(gain, 0.36, 0, INFINITY, GL_OPEN)                                                                                \
    X(share, 0.65, 0, 1, GL_CLOSED)                                                                                    \
    X(apart, 2, 0, INFINITY, GL_CLOSED)                                                                                \
    X(lower, 1.5, 0, INFINITY, GL_OPEN)                                                                                \
    X(tries, 3, 1, INFINITY, GL_WHOLE)
/* `walk` is infinite where steps are so short that their squares vanish, and a `peak` that ended out of range. */
#define STATE(X)                                                                                                       \
    X(count, 0, 0, INFINITY, GL_COUNT)                                                                                 \
    X(zeros, 0, 0, INFINITY, GL_COUNT)                                                                                 \
    X(begun, 0, 0, INFINITY, GL_COUNT)                                                                                 \
    X(first, 0, -INFINITY, INFINITY, GL_OPEN)                                                                          \
    X(weight, 0, 0, 1, GL_CLOSED)                                                                                      \
    X(length, 0, -INFINITY, INFINITY, GL_OPEN)                                                                         \
    X(relative, 0, 0, INFINITY, GL_OPEN_UPPER)                                                                         \
    X(least, 0, -INFINITY, INFINITY, GL_OPEN)                                                                          \
    X(walk, 0, 0, INFINITY, GL_CLOSED)                                                                                 \
    X(peak, 0, 0, INFINITY, GL_CLOSED)
#include "rule_template.h"

static struct gl_verdict ended(const struct config *c, const struct inputs *s, struct state *x, enum gl_reason reason) {
    x->peak = c->sigma * gl_peak_between(c->gain, s->lr, fmin(x->walk, s->lr), c->share, c->apart);
    return gl_keep(x->peak, reason);
}

static struct gl_verdict update(const struct config *c, const struct inputs *s, struct state *x) {
    double pace = fmax(c->pace, fmin(c->fastest, c->pace_total / c->longest));
    double keep = fmax(0, 1 - pace / c->memory), now, v, h;
    int over;

    if (!inputs_finite(s))
        return gl_skip(GL_REASON_not_finite);
    if (s->lr <= 0 || s->energy <= 0 || s->relative < 0)
        return gl_skip(GL_REASON_out_of_range);
    if (s->gg <= 0 && (x->count == 0 || x->peak > 0))
        return gl_skip(GL_REASON_no_gradient);
    if (x->peak > 0)
        return gl_keep(x->peak, GL_REASON_kept);
    if (s->gg <= 0) {
        x->zeros += 1;
        return x->count + x->zeros <= c->longest ? gl_keep(s->lr, GL_REASON_no_gradient)
                                                 : ended(c, s, x, GL_REASON_no_edge);
    }
    now = 0.5 * log10(s->gg);
    x->count += 1;
    if (x->count == 1) {
        x->begun = 1;
        x->first = x->least = now;
        x->walk = h = gl_walk(s->relative, s->energy);
        return gl_keep(h > 0 ? h * pow(10, -c->below) : s->lr, GL_REASON_rising);
    }
    x->weight = keep * x->weight + (1 - keep);
    x->length = keep * x->length + (1 - keep) * now;
    x->relative = keep * x->relative + (1 - keep) * s->relative;
    v = x->weight > 0 ? x->length / x->weight : now; /* a memory so long that nothing is remembered */
    if (x->count <= c->earliest || v < x->least) {
        x->least = fmin(v, x->first);
        x->walk = gl_walk(x->weight > 0 ? x->relative / x->weight : s->relative, s->energy); /* before they grow */
    }
    over = v > x->least + c->grown || now > x->least + c->sudden;
    if (over && x->count <= 1 + c->earliest && x->begun < c->tries) {
        x->begun += 1;
        x->count = 1;
        x->weight = x->length = x->relative = 0;
        x->least = x->first;
        return gl_keep(s->lr * pow(10, -c->lower), GL_REASON_restarted);
    }
    if (!over && x->count + x->zeros <= c->longest && !(x->walk > 0 && s->lr > x->walk * pow(10, c->above)))
        return gl_keep(s->lr * pow(10, pace), GL_REASON_rising);
    return ended(c, s, x, over ? GL_REASON_found : GL_REASON_no_edge);
}
