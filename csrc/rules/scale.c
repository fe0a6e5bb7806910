/* scale.c - one learning rate for a whole run, from what its first updates show.
 *
 * Two things limit the rate.  Where curvature does, the loss along the direction d of an update is least at
 *
 *   eta* = <grad f, d>/(d^T C d)                                       (arXiv 2311.13877, Corollary 2.2)
 *
 * and where noise does, theory has eta = D/(G sqrt(T)) (the second term of min(1/L, D/(G sqrt(T))); Ghadimi & Lan,
 * arXiv 1309.5549): noise makes the run a random walk, and D is how far it may get.  A network is about as far from
 * where it has to go as its parameters are long, so D = ||x||, and with schedule factors f_t and a momentum that
 * makes steps of one direction follow each other,
 *
 *   eta_n = sqrt(1 - beta) ||x||/(||d|| sqrt(sum_t f_t^2))
 *
 * Neither is exact: noise lowers eta*, the curvature met at a small rate is not that at a large one, and ||x|| is a
 * guess.  Their errors are of different origin, so that a geometric mean errs less than either; and where the guess is
 * far off (parameters that hardly matter, a model that is trained already), eta* has the last word:
 *
 *   rate = sigma min((edge eta*)^(1 - share) eta_n^share, cap eta*)
 *
 * The averages over the measurements are formed apart, with weights lr^2: displacements made at the small rates of
 * the ramp's start tell little of the rates to come.  A young momentum buffer is referred to its full length.
 *
 * The form of eta_n, the mean and the constants edge, share and cap are ours, found by experiment on small networks.
 * Where training starts from x = 0 nothing is known of D: the caller gives ||x||^2 = 0, and edge eta* stands alone.
 *
 * It knows nothing of time: what it learns, it keeps.
 */
#include "rule.h"

#include <math.h>

#define CONFIG(X)                                                                                                      \
    X(sigma, 1, 0, INFINITY, GL_OPEN)                                                                                  \
    X(edge, 5, 0, INFINITY, GL_OPEN)                                                                                   \
    X(share, 0.8, 0, 1, GL_CLOSED)                                                                                     \
    X(cap, 6, 0, INFINITY, GL_OPEN_LOWER)
#define STATE(X)                                                                                                       \
    X(slope, 0, -INFINITY, INFINITY, GL_OPEN)                                                                          \
    X(curvature, 0, -INFINITY, INFINITY, GL_OPEN)                                                                      \
    X(length, 0, 0, INFINITY, GL_OPEN_UPPER)                                                                           \
    X(weight, 0, 0, INFINITY, GL_OPEN_UPPER)

struct gl_scale_config {
    CONFIG(GL_FIELD_MEMBER)
};
struct gl_scale_state {
    STATE(GL_FIELD_MEMBER)
};
static const struct gl_field config_fields[] = {CONFIG(GL_FIELD_ROW)};
static const struct gl_field state_fields[] = {STATE(GL_FIELD_ROW)};

#define NEEDS                                                                                                          \
    (GL_HAVE(slope) | GL_HAVE(curvature) | GL_HAVE(dd) | GL_HAVE(lr) | GL_HAVE(young) | GL_HAVE(beta) | GL_HAVE(xx) |  \
     GL_HAVE(energy))

/* The averages with one more measurement; 0 if they overflow. */
static int average(const struct gl_stats *s, struct gl_scale_state *x) {
    double weight = s->lr * s->lr;

    x->slope += weight * (s->young * s->lr * ((s->slope + s->curvature) / s->dd));
    x->curvature += weight * (s->curvature / s->dd);
    x->length += s->dd / (s->young * s->young);
    x->weight += weight;
    return isfinite(x->slope) && isfinite(x->curvature) && isfinite(x->length) && isfinite(x->weight);
}

static struct gl_verdict update(const void *config, const struct gl_stats *s, void *state) {
    const struct gl_scale_config *c = config;
    struct gl_scale_state *x = state, next = *x;
    double optimal, by_noise, mean;

    if (!gl_stats_finite(s, NEEDS))
        return gl_skip(GL_REASON_not_finite);
    if (s->dd <= 0)
        return gl_skip(GL_REASON_not_visible);
    if (s->lr <= 0 || s->young <= 0 || s->young > 1 || s->beta < 0 || s->beta >= 1 || s->energy <= 0 || s->xx < 0)
        return gl_skip(GL_REASON_out_of_range);
    if (!average(s, &next))
        return gl_skip(GL_REASON_out_of_range);
    *x = next;
    if (x->slope <= 0)
        return gl_skip(GL_REASON_no_slope);
    if (x->curvature <= 0)
        return gl_skip(GL_REASON_no_curvature);
    optimal = x->slope / x->curvature;
    by_noise = sqrt((1 - s->beta) * s->xx * (x->weight / x->length) / s->energy);
    if (by_noise <= 0)
        return gl_keep(c->sigma * c->edge * optimal, GL_REASON_kept);
    mean = pow(c->edge * optimal, 1 - c->share) * pow(by_noise, c->share);
    return gl_keep(c->sigma * fmin(mean, c->cap * optimal), GL_REASON_kept);
}

const struct gl_rule gl_rule_scale = {
    .name = "scale",
    .about = "One rate for a whole run: the mean of what curvature and what noise allow.",
    .needs = NEEDS,
    .config = config_fields,
    .configs = GL_COUNT_OF(config_fields),
    .state = state_fields,
    .states = GL_COUNT_OF(state_fields),
    .update = update,
};
