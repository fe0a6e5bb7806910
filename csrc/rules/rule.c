/* rule.c - the register of rules, and what is the same for all of them: names, fields, verdicts. */
#include "rule.h"

#include "../gl_fpenv.h" /* gl_fpenv_enter, gl_fpenv_leave */

#include <math.h>
#include <string.h>

static const struct gl_rule *const rules[] = {
#define X(name) &gl_rule_##name,
    GL_RULES(X)
#undef X
};

static const char *const action_names[GL_ACTION_COUNT] = {"keep", "retry", "skip"};

static const struct {
    const char *name, *meaning;
} reasons[] = {
#define X(name, meaning) {#name, meaning},
    GL_REASONS(X)
#undef X
};

const char *gl_action_name(int action) {
    return action >= 0 && action < GL_ACTION_COUNT ? action_names[action] : NULL;
}

const char *gl_reason_name(int reason) {
    return reason >= 0 && reason < GL_REASON_COUNT ? reasons[reason].name : NULL;
}

const char *gl_reason_meaning(int reason) {
    return reason >= 0 && reason < GL_REASON_COUNT ? reasons[reason].meaning : NULL;
}

int gl_field_within(const struct gl_field *field, double value) {
    int above = field->domain & GL_OPEN_LOWER ? value > field->lower : value >= field->lower;
    int below = field->domain & GL_OPEN_UPPER ? value < field->upper : value <= field->upper;
    return above && below;
}

int gl_field_accepts(const struct gl_field *field, double value) {
    return gl_field_within(field, value) && (!(field->domain & GL_WHOLE) || value == floor(value));
}

int gl_rule_count(void) {
    return (int)(sizeof rules / sizeof rules[0]);
}

const struct gl_rule *gl_rule_at(int index) {
    return index >= 0 && index < gl_rule_count() ? rules[index] : NULL;
}

const struct gl_rule *gl_rule_find(const char *name) {
    for (int i = 0; i < gl_rule_count(); i++)
        if (strcmp(rules[i]->name, name) == 0)
            return rules[i];
    return NULL;
}

void gl_rule_config_init(const struct gl_rule *rule, double *config) {
    for (int i = 0; i < rule->configs; i++)
        config[i] = rule->config[i].initial;
}

void gl_rule_state_init(const struct gl_rule *rule, double *state) {
    for (int i = 0; i < rule->states; i++)
        state[i] = rule->state[i].initial;
}

struct gl_verdict gl_rule_update(const struct gl_rule *rule, const double *config, const double *inputs,
                                 double *state) {
    gl_fpenv saved = gl_fpenv_enter();
    struct gl_verdict verdict = rule->update(config, inputs, state);

    gl_fpenv_leave(saved);
    return verdict;
}

/* Subnormal rates are left out: they have few digits, and an optimizer that flushes them to zero would stand still. */
struct gl_verdict gl_keep(double lr, enum gl_reason reason) {
    if (!(lr > 0) || !isnormal(lr))
        return gl_skip(GL_REASON_out_of_range);
    return (struct gl_verdict){lr, GL_KEEP, reason};
}

struct gl_verdict gl_skip(enum gl_reason reason) {
    return (struct gl_verdict){0, GL_SKIP, reason};
}
