/* rule.h - the contract of rules and stages, and their register.
 *
 * A rule is config + state + a pure update: scalars in, a verdict out.  A stage is a rule that needs the
 * statistic `rate`: it changes the rate that the rule before it gave.  Config and state are structs of doubles
 * only, described by field tables, so that one generic type can construct, check, save and restore any of them.
 *
 * Every rule keeps to this:
 * - it refuses statistics that lack one it needs (gl_rule_update does this for all);
 * - a statistic that is not finite never enters the state: the verdict is SKIP with a reason;
 * - the rate of a verdict other than SKIP is positive, finite and not subnormal, whatever the input;
 * - the same config, state and statistics give the same verdict and state; nothing is allocated, kept or printed.
 *
 * A rule knows nothing of arrays, of other rules, or of who calls it.
 */
#ifndef GL_RULE_H
#define GL_RULE_H

#include <stdint.h>

#include "../glyder.h"
#include "../gl_stats.h"

/* ---------------------------------------------------------------- verdict */

enum gl_action {
    GL_KEEP = 0,  /* use the rate */
    GL_RETRY = 1, /* evaluate the loss at the rate and call again: `trial` */
    GL_SKIP = 2,  /* the data cannot be used: the rate stays as it was */
    GL_ACTION_COUNT = 3
};

/* X(name, meaning).  Every reason that any rule gives. */
#define GL_REASONS(X)                                                                                                  \
    X(kept, "the rate is the rule's own, nothing unusual")                                                             \
    X(first, "the first rate, made before anything was measured")                                                      \
    X(not_finite, "a statistic is infinite or not a number")                                                           \
    X(out_of_range, "a statistic or the result lies where it cannot be used")                                          \
    X(not_visible, "the displacement was too small to be seen in the parameters")                                      \
    X(no_gradient, "the gradient is zero")                                                                             \
    X(no_slope, "the loss does not fall along the direction")                                                          \
    X(no_curvature, "the loss does not bend upwards along the direction")                                              \
    X(at_lower, "the loss is at its lower bound, or below")                                                            \
    X(grown, "the rate was raised")                                                                                    \
    X(lowered, "the rate was lowered")                                                                                 \
    X(at_min, "the rate was raised to its lower bound")                                                                \
    X(at_max, "the rate was lowered to its upper bound")                                                               \
    X(growth_limited, "the rate wanted to rise faster than it may")                                                    \
    X(spike, "the gradient is longer than usual by more than the limit")                                               \
    X(held, "momentum still holds a gradient that was longer than usual")                                              \
    X(braked, "the gradient has grown far beyond its history")                                                         \
    X(not_found, "no rate that was tried lowers the loss enough")                                                      \
    X(undecided, "the evidence is not enough yet, and the rate stays")                                                 \
    X(restarted, "the rate was lowered, and the parameters go back to where the episode began")                        \
    X(rising, "the rate rises until a peak is found")                                                                  \
    X(found, "the peak is found")                                                                                      \
    X(no_edge, "the rate rose for as long as it may, and the peak is told by what it reached")

enum gl_reason {
#define X(name, meaning) GL_REASON_##name,
    GL_REASONS(X)
#undef X
        GL_REASON_COUNT
};

/* With GL_SKIP, lr is 0: a caller that forgets to look at the action stands still instead of running away. */
struct gl_verdict {
    double lr;
    enum gl_action action;
    enum gl_reason reason;
};

const char *gl_action_name(int action);    /* "keep" "retry" "skip"; NULL outside the range */
const char *gl_reason_name(int reason);    /* NULL outside the range */
const char *gl_reason_meaning(int reason); /* NULL outside the range */

/* ---------------------------------------------------------------- fields */

enum gl_bound { GL_CLOSED = 0, GL_OPEN_LOWER = 1, GL_OPEN_UPPER = 2, GL_OPEN = 3 };

/* A double of a config or a state.  `initial` is the default, or the value before the first update. */
struct gl_field {
    const char *name;
    double initial, lower, upper;
    enum gl_bound bound;
};

/* One list of X(name, initial, lower, upper, bound) makes both the struct and its table, in the same order. */
#define GL_FIELD_MEMBER(name, initial, lower, upper, bound) double name;
#define GL_FIELD_ROW(name, initial, lower, upper, bound)    {#name, initial, lower, upper, bound},

#define GL_COUNT_OF(table) ((int)(sizeof(table) / sizeof(table)[0]))

#define GL_FIELDS_MAX 32 /* in one config or one state */

int gl_field_accepts(const struct gl_field *field, double value); /* NaN never; infinity where a bound includes it */

/* ---------------------------------------------------------------- rules */

struct gl_rule {
    const char *name, *about;
    uint32_t needs; /* mask of statistics */
    const struct gl_field *config, *state;
    int configs, states; /* number of fields; a table may be NULL where its number is 0 */
    /* NULL, or: one full sentence on what is wrong between fields that are each within bounds; NULL if nothing. */
    const char *(*check)(const void *config);
    struct gl_verdict (*update)(const void *config, const struct gl_stats *stats, void *state);
};

/* X(name).  A new rule is one line here and one file that defines gl_rule_<name>. */
#define GL_RULES(X)                                                                                                    \
    X(glyder)                                                                                                          \
    X(peak)                                                                                                            \
    X(edge)                                                                                                            \
    X(scale)                                                                                                           \
    X(gradnorm)                                                                                                        \
    X(hypergradient)                                                                                                   \
    X(polyak)                                                                                                          \
    X(ntlr)                                                                                                            \
    X(armijo)                                                                                                          \
    X(reset)                                                                                                           \
    X(secant)                                                                                                          \
    X(stochastic_bb)                                                                                                   \
    X(adgd)                                                                                                            \
    X(regime)                                                                                                          \
    X(autosgd)                                                                                                         \
    X(meta)                                                                                                            \
    X(start)                                                                                                           \
    X(bounds)                                                                                                          \
    X(growth)                                                                                                          \
    X(spike)                                                                                                           \
    X(brake)

#define X(name) extern const struct gl_rule gl_rule_##name;
GL_RULES(X)
#undef X

int gl_rule_count(void);
const struct gl_rule *gl_rule_at(int index);          /* NULL outside the range */
const struct gl_rule *gl_rule_find(const char *name); /* NULL if there is none */

/* The generic face: config and state are arrays of rule->configs and rule->states doubles. */
void gl_rule_config_init(const struct gl_rule *rule, double *config);
void gl_rule_state_init(const struct gl_rule *rule, double *state);

/* GL_ERR_MISSING if a statistic of rule->needs is not there; state and verdict are then untouched. */
enum gl_status gl_rule_update(const struct gl_rule *rule, const double *config, const struct gl_stats *stats,
                              double *state, struct gl_verdict *verdict);

/* ---------------------------------------------------------------- for rules */

/* KEEP `lr` for `reason`; SKIP, out_of_range, where `lr` is not a positive normal number. */
struct gl_verdict gl_keep(double lr, enum gl_reason reason);
struct gl_verdict gl_skip(enum gl_reason reason);

#endif
