/* rule_template.h - makes a rule out of the lists at the top of its file.
 *
 * Included once by each rule's file.  Parameters, defined before; this is all of a rule but its arithmetic:
 *
 *   #define RULE      growth
 *   #define ABOUT     "Stage: limits how fast the rate may rise from one update to the next."
 *   #define INPUTS(X) X(rate) X(previous)                           names of statistics, in the order of GL_STATS
 *   #define CONFIG(X) X(max_growth, 3, 1, INFINITY, GL_OPEN_LOWER)  fields: see struct gl_field
 *   #define STATE(X)  X(caught, 0, 0, 1, GL_FLAG)                   fields; left out where nothing is remembered
 *   #define CHECK     check                                         left out where fields do not depend on each other
 *   #include "rule_template.h"
 *
 * It makes `struct inputs`, `struct config` and `struct state`, doubles of those names, and gl_rule_growth, and it
 * declares the functions that are left to write.  A statistic that is not in INPUTS cannot be read:
 *
 *   static const char *check(const struct config *c);           see struct gl_rule
 *   static struct gl_verdict update(const struct config *c, const struct inputs *s, struct state *x);
 *
 * Without STATE, update has no third argument.
 */
#include "rule.h"

#include <math.h>
#include <stddef.h>

#define GL_INPUT_MEMBER(name)                                double name;
#define GL_INPUT_ROW(name)                                   GL_STAT_##name,
#define GL_INPUT_IS_FINITE(name)                             isfinite(s->name) &&
#define GL_FIELD_MEMBER(name, initial, lower, upper, domain) double name;
#define GL_FIELD_ROW(name, initial, lower, upper, domain)    {#name, initial, lower, upper, domain},
#define GL_RULE_SYMBOL_(name)                                gl_rule_##name
#define GL_RULE_SYMBOL(name)                                 GL_RULE_SYMBOL_(name)
#define GL_RULE_TEXT_(name)                                  #name
#define GL_RULE_TEXT(name)                                   GL_RULE_TEXT_(name)

struct inputs {
    INPUTS(GL_INPUT_MEMBER)
};
static const enum gl_stat input_stats[] = {INPUTS(GL_INPUT_ROW)};

struct config {
    CONFIG(GL_FIELD_MEMBER)
};
static const struct gl_field config_fields[] = {CONFIG(GL_FIELD_ROW)};

#ifdef STATE
struct state {
    STATE(GL_FIELD_MEMBER)
};
static const struct gl_field state_fields[] = {STATE(GL_FIELD_ROW)};
static struct gl_verdict update(const struct config *c, const struct inputs *s, struct state *x);
#else
static struct gl_verdict update(const struct config *c, const struct inputs *s);
#endif

/* 1 if every input is a finite number. */
static inline int inputs_finite(const struct inputs *s) {
    return INPUTS(GL_INPUT_IS_FINITE) 1;
}

/* The generic face of the rule: arrays of doubles are structs of doubles. */
static struct gl_verdict update_arrays(const double *config, const double *inputs, double *state) {
#ifdef STATE
    return update((const struct config *)config, (const struct inputs *)inputs, (struct state *)state);
#else
    (void)state;
    return update((const struct config *)config, (const struct inputs *)inputs);
#endif
}

#ifdef CHECK
static const char *CHECK(const struct config *c);

static const char *check_array(const double *config) {
    return CHECK((const struct config *)config);
}
#endif

const struct gl_rule GL_RULE_SYMBOL(RULE) = {
    .name = GL_RULE_TEXT(RULE),
    .about = ABOUT,
    .input = input_stats,
    .inputs = GL_COUNT_OF(input_stats),
    .config = config_fields,
    .configs = GL_COUNT_OF(config_fields),
#ifdef STATE
    .state = state_fields,
    .states = GL_COUNT_OF(state_fields),
#endif
#ifdef CHECK
    .check = check_array,
#endif
    .update = update_arrays,
};
