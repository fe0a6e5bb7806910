/* peak.c - the peak of a schedule for optimizers whose steps have a length of their own (Adam, Lion, Muon).
 *
 * While the rate eta is low, the gradient of the next batch still points along the displacement just made; where it
 * no longer does, the step was as long as the next batch can bear.  With delta_t = x_t - x_{t+1} and the matrices i,
 *
 *   c_t = mean_i <g_{t+1,i}, delta_{t,i}>/(||g_{t+1,i}|| ||delta_{t,i}||)
 *
 * is, up to its denominator, the numerator of the locally optimal rate (arXiv 2311.13877, Corollary 2.2) at x_{t+1}:
 * g_{t+1} is independent of delta_t given x_{t+1}.  In expectation it is zero where eta is the rate of least loss along
 * the step.  Each tensor has one vote, whatever its size and units: the sum over a network is that of its steepest
 * tensors, which overshoot first and settle by themselves.
 *
 * The zero is found by stochastic approximation (Robbins & Monro, 1951), with the rate in decades:
 *
 *   log10 eta_{t+1} = log10 eta_t + pace m_t/sqrt(v_t)
 *
 * from h 10^-below, over `updates` updates; m and v are exponential means of c and c^2, bias-corrected, so that a
 * cosine counts by its sign and by how sure that is, not by its size (sparse gradients have small ones).  z is the
 * geometric mean of the rates of the second half.  Training goes on all the while, at rates close to the best for a
 * single step.
 *
 * What a run of given length can bear is another matter: its steps make a random walk, and at the rate h every layer
 * walks by about its own length, the layers' relative changes added in squares (peak.h; r = sum_i ||d_i||^2/||x_i||^2).
 * The errors of z and h have different causes (one knows curvature and noise, the other depth and the length of the
 * run), so that a mean errs less than either:
 *
 *   peak = sigma gain z^(1-share) h^share
 *
 * Farther than `far` decades below h, where nothing is to be learned, and where no length is known, the rate moves
 * twice as fast, and these updates do not count.  The pace of a search of n updates is at least `pace_total`/n, but no
 * more than `fastest`: a cosine is known an update late, and the mean of some lags behind.
 *
 * Parameters that start near zero leave a saddle: the cosine is positive until they have their length, and for some
 * updates more, in which a rate that still rises would throw them far beyond it.  Where the matrices have `grown` times
 * the length that they began with (growth = ||x||^2/||x_0||^2, 0 if unknown), the rate rises no further.
 *
 * The vote, h, the mean and all constants are ours, found by experiment (benchmarks/results/LESSONS.md).
 *
 * It knows nothing of warm-up, annealing or bounds, and it never looks at the loss.
 */
#include "peak.h" /* gl_walk, gl_peak_between */
#include <math.h>

#define RULE      peak
#define ABOUT     "The peak of a schedule: about the rate at which the next gradient no longer points along the step."
#define INPUTS(X) X(cosine) X(relative) X(growth) X(lr) X(energy)
#define CONFIG(X)                                                                                                      \
    X(sigma, 1, 0, INFINITY, GL_OPEN)                                                                                  \
    X(updates, 120, 1, INFINITY, GL_OPEN_UPPER)                                                                        \
    X(longest, INFINITY, 1, INFINITY, GL_CLOSED)                                                                       \
    X(below, 0.4, 0, INFINITY, GL_OPEN)                                                                                \
    X(far, 1, 0, INFINITY, GL_OPEN)                                                                                    \
    X(pace, 0.08, 0, INFINITY, GL_OPEN)                                                                                \
    X(pace_total, 2, 0, INFINITY, GL_OPEN)                                                                             \
    X(fastest, 0.5, 0, INFINITY, GL_OPEN)                                                                              \
    X(quick, 0.7, 0, 1, GL_OPEN_UPPER)                                                                                 \
    X(slow, 0.9, 0, 1, GL_OPEN_UPPER)                                                                                  \
    X(gain, 1.5, 0, INFINITY, GL_OPEN)                                                                                 \
    X(share, 0.3, 0, 1, GL_CLOSED)                                                                                     \
    X(apart, 0.5, 0, INFINITY, GL_CLOSED)                                                                              \
    X(grown, 2, 0, INFINITY, GL_OPEN_UPPER)
/* An infinite `peak` is a search that ended out of range: every update is a SKIP. */
#define STATE(X)                                                                                                       \
    X(seen, 0, 0, INFINITY, GL_COUNT)                                                                                  \
    X(count, 0, 0, INFINITY, GL_COUNT)                                                                                 \
    X(mean, 0, -INFINITY, INFINITY, GL_OPEN)                                                                           \
    X(square, 0, 0, INFINITY, GL_OPEN_UPPER)                                                                           \
    X(logs, 0, -INFINITY, INFINITY, GL_OPEN)                                                                           \
    X(relative, 0, 0, INFINITY, GL_OPEN_UPPER)                                                                         \
    X(halved, 0, 0, INFINITY, GL_COUNT)                                                                                \
    X(peak, 0, 0, INFINITY, GL_CLOSED)
#include "rule_template.h"

static struct gl_verdict update(const struct config *c, const struct inputs *s, struct state *x) {
    double h, pace, step, z;

    if (!inputs_finite(s))
        return gl_skip(GL_REASON_not_finite);
    if (s->lr <= 0 || s->energy <= 0 || s->relative < 0 || s->growth < 0 ||
        fabs(s->cosine) > 1 + 1e-9) /* up to rounding */
        return gl_skip(GL_REASON_out_of_range);
    if (x->peak > 0)
        return gl_keep(x->peak, GL_REASON_kept);
    h = gl_walk(s->relative, s->energy);
    x->seen += 1;
    if (x->seen == 1 && h > 0)
        return gl_keep(h * pow(10, -c->below), GL_REASON_rising);
    pace = fmax(c->pace, fmin(c->fastest, c->pace_total / c->updates));
    x->mean = c->quick * x->mean + (1 - c->quick) * s->cosine;
    x->square = c->slow * x->square + (1 - c->slow) * s->cosine * s->cosine;
    step = x->square > 0 ? pace * fmin(1, fmax(-1, x->mean / (1 - pow(c->quick, x->seen)) /
                                                       sqrt(x->square / (1 - pow(c->slow, x->seen)))))
                         : 0;
    if (s->growth > c->grown * c->grown)
        step = fmin(step, 0);
    if (x->count == 0 && x->seen < c->longest && !(s->lr >= h * pow(10, -c->far) && h > 0))
        return gl_keep(s->lr * pow(10, 2 * step), GL_REASON_rising);
    x->count += 1;
    if (2 * x->count > c->updates) {
        x->halved += 1;
        x->logs += log10(s->lr) + step;
        x->relative += s->relative;
    }
    if (x->count < c->updates)
        return gl_keep(s->lr * pow(10, step), GL_REASON_rising);
    z = pow(10, x->logs / x->halved);
    x->peak = c->sigma * gl_peak_between(c->gain, z, gl_walk(x->relative / x->halved, s->energy), c->share, c->apart);
    return gl_keep(x->peak, GL_REASON_found);
}
