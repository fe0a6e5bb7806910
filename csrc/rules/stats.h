/* stats.h - the scalars that rules look at: names and meanings.
 *
 * f is the loss, x_t the parameters before update t, g_t the gradient that update was made from, delta_t =
 * x_t - x_{t+1} the displacement it made, C a curvature matrix (Gauss-Newton or Hessian).  Measurements of update
 * t are made at x_{t+1} on data independent of delta_t, or at x_t on the data that delta_t was made from.
 *
 * Nothing here is computed: sums come from reductions, and a rule derives what it needs.
 */
#ifndef GL_STATS_H
#define GL_STATS_H

/* X(name, meaning).  A new statistic is one line here. */
#define GL_STATS(X)                                                                                                    \
    X(slope, "<grad f, delta_t>")                                                                                      \
    X(behind, "1 where slope was taken at x_{t+1}, 0 where at x_t")                                                    \
    X(curvature, "delta_t^T C delta_t")                                                                                \
    X(dd, "||delta_t||^2")                                                                                             \
    X(cosine, "mean over matrices of the cosine between g_{t+1} and delta_t")                                          \
    X(relative, "sum over matrices of ||d||^2/||x||^2, d = delta_t/lr; 0 where none has a length")                     \
    X(growth, "||x||^2/||x_0||^2 of the matrices, x_0 where a search began; 0 where they had no length")               \
    X(lr, "learning rate that delta_t was made with")                                                                  \
    X(young, "weight that a momentum buffer has gathered, 1 - beta^t; 1 without momentum")                             \
    X(hold, "share of an update that the next one repeats: beta, at most 0.9; 0 without momentum")                     \
    X(reach, "squared length that all steps of one gradient come to at a rate of 1; ||d||^2 without momentum")         \
    X(energy, "sum of the squared schedule factors over the whole run")                                                \
    X(xx, "||x||^2")                                                                                                   \
    X(start, "||x_0||^2, at the start of training")                                                                    \
    X(gg, "||g||^2")                                                                                                   \
    X(ff, "an estimate of ||grad f||^2 that is free of the noise of g")                                                \
    X(n, "number of parameters")                                                                                       \
    X(base, "the rule's rate so far, before warm-up and annealing")                                                    \
    X(loss, "f(x_t) on the batch of update t")                                                                         \
    X(trial, "f(x_t - (rate/lr) delta_t) on the batch of update t, with the same randomness as `loss`")                \
    X(gu, "<g_t, u>, u = delta_{t-1}/lr the direction of the update before")                                           \
    X(uu, "||u||^2")                                                                                                   \
    X(fall, "what the linear model of the loss falls by at a rate of 1; ||g||^2 for steps along the gradient")         \
    X(vv, "||v||^2, v the direction of the window of updates before: the sum of their delta/lr")                       \
    X(vw, "<v, w>, w the direction of this window")                                                                    \
    X(yy, "||g_t - g_{t-1}||^2")                                                                                       \
    X(slow_loss, "loss of the slow stream, on the batch of update t")                                                  \
    X(fast_loss, "loss of the fast stream, on the batch of update t")                                                  \
    X(begin_loss, "loss where the streams set out from, on the batch of update t")                                     \
    X(rate, "learning rate that comes in from the stage before")                                                       \
    X(previous, "learning rate that was applied before")

enum gl_stat {
#define X(name, meaning) GL_STAT_##name,
    GL_STATS(X)
#undef X
        GL_STAT_COUNT
};

const char *gl_stat_name(int stat);    /* NULL outside the range */
const char *gl_stat_meaning(int stat); /* NULL outside the range */
int gl_stat_find(const char *name);    /* enum gl_stat, or -1 */

#endif
