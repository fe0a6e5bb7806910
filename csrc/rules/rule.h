/* rule.h - the contract of rules and stages, and their register.
 *
 * A rule is inputs + config + state + a pure update: scalars in, a verdict out.  A stage is a rule with the input
 * `rate`: it changes the rate that the rule before it gave.  All three are structs of doubles only, described by
 * tables, so that one generic type can construct, check, save and restore any rule.  rule_template.h makes a rule.
 *
 * Every rule keeps to this:
 * - a statistic that is not finite never enters the state: the verdict is SKIP with a reason;
 * - the rate of a verdict other than SKIP is positive, finite and not subnormal, whatever the input;
 * - the same config, state and statistics give the same verdict and state; nothing is allocated, kept or printed.
 *
 * A rule knows nothing of arrays, of other rules, or of who calls it.
 */
#ifndef GL_RULE_H
#define GL_RULE_H

#include "../glyder.h"
#include "stats.h"

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
    X(backed_off, "the gradient has grown far beyond its history")                                                     \
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

/* The numbers that a field takes: an interval with or without its ends, all of it or whole numbers alone. */
enum gl_domain {
    GL_CLOSED = 0,
    GL_OPEN_LOWER = 1,
    GL_OPEN_UPPER = 2,
    GL_OPEN = GL_OPEN_LOWER | GL_OPEN_UPPER,
    GL_WHOLE = 4,                        /* whole numbers, and infinity where an end includes it */
    GL_COUNT = GL_WHOLE | GL_OPEN_UPPER, /* of something, finite */
    GL_FLAG = GL_WHOLE | 8               /* 0 or 1 */
};

/* A double of a config or a state.  `initial` is the default, or the value before the first update. */
struct gl_field {
    const char *name;
    double initial, lower, upper;
    int domain; /* enum gl_domain, or several of it by | */
};

#define GL_COUNT_OF(table) ((int)(sizeof(table) / sizeof(table)[0]))

#define GL_FIELDS_MAX 32 /* in one config or one state, and inputs of one rule */

int gl_field_within(const struct gl_field *field, double value);  /* in the interval; NaN never */
int gl_field_accepts(const struct gl_field *field, double value); /* within, and whole where it has to be */

/* ---------------------------------------------------------------- rules */

struct gl_rule {
    const char *name, *about;
    const enum gl_stat *input; /* what it looks at, in the order of GL_STATS */
    const struct gl_field *config, *state;
    int inputs, configs, states; /* numbers of each; a table may be NULL where its number is 0 */
    /* NULL, or: one full sentence on what is wrong between fields that are each within bounds; NULL if nothing. */
    const char *(*check)(const double *config);
    struct gl_verdict (*update)(const double *config, const double *inputs, double *state);
};

/* X(name).  A new rule is one line here and one file that defines gl_rule_<name>. */
#define GL_RULES(X)                                                                                                    \
    X(glyder)                                                                                                          \
    X(peak)                                                                                                            \
    X(edge)                                                                                                            \
    X(local_optimum)                                                                                                   \
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
    X(back_off)

#define X(name) extern const struct gl_rule gl_rule_##name;
GL_RULES(X)
#undef X

int gl_rule_count(void);
const struct gl_rule *gl_rule_at(int index);          /* NULL outside the range */
const struct gl_rule *gl_rule_find(const char *name); /* NULL if there is none */

/* Inputs, config and state are arrays of rule->inputs, rule->configs and rule->states doubles. */
void gl_rule_config_init(const struct gl_rule *rule, double *config);
void gl_rule_state_init(const struct gl_rule *rule, double *state);
struct gl_verdict gl_rule_update(const struct gl_rule *rule, const double *config, const double *inputs, double *state);

/* ---------------------------------------------------------------- for rules */

/* KEEP `lr` for `reason`; SKIP, out_of_range, where `lr` is not a positive normal number. */
struct gl_verdict gl_keep(double lr, enum gl_reason reason);
struct gl_verdict gl_skip(enum gl_reason reason);

#endif
