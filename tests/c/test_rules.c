/* test_rules.c - what every rule, stage and schedule keeps to, whatever bits it is given.
 *
 * Inputs, configs and states are drawn as random bit patterns, so that NaN, infinities, subnormals and huge
 * numbers are as common as ordinary ones. What the rules are meant to answer is tested from Python.
 */
#define _DEFAULT_SOURCE
#include "gl_test.h"
#include "gl_fpenv.h"       /* gl_fpenv_enter, gl_fpenv_leave */
#include "rules/rule.h"     /* gl_rule_* */
#include "rules/schedule.h" /* gl_schedule_* */

#include <float.h>

/* Random bits, or a number of a size that rules meet in earnest. */
static double any_double(void) {
    uint64_t bits = test_bits();
    double value;
    if (test_bits() % 2 == 0)
        return ldexp(test_uniform(), (int)(test_bits() % 40) - 20);
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void draw_inputs(const struct gl_rule *rule, double *inputs) {
    for (int i = 0; i < rule->inputs; i++)
        inputs[i] = test_bits() % 4 ? fabs(any_double()) : any_double();
}

/* Values that the fields accept; the initial one where a few draws give none. */
static void draw_fields(const struct gl_field *fields, int count, double *values) {
    for (int i = 0; i < count; i++) {
        values[i] = fields[i].initial;
        for (int draw = 0; draw < 4; draw++) {
            double value = any_double();
            if (fields[i].domain & GL_WHOLE)
                value = floor(value);
            if (gl_field_accepts(&fields[i], value))
                values[i] = value;
        }
    }
}

static void test_stats(void) {
    CHECK(gl_stat_name(-1) == NULL && gl_stat_name(GL_STAT_COUNT) == NULL, "no name outside the range");
    CHECK(gl_stat_meaning(-1) == NULL && gl_stat_meaning(GL_STAT_COUNT) == NULL, "no meaning outside the range");
    CHECK(gl_stat_find("nosuch") == -1, "unknown statistic");
    for (int i = 0; i < GL_STAT_COUNT; i++) {
        CHECK(gl_stat_find(gl_stat_name(i)) == i, "%s is found", gl_stat_name(i));
        CHECK(strlen(gl_stat_meaning(i)) > 4, "%s has a meaning", gl_stat_name(i));
    }
    CHECK(gl_stat_find("slope") == GL_STAT_slope && gl_stat_find("previous") == GL_STAT_previous, "numbers by name");
}

static void test_names(void) {
    for (int i = -1; i <= GL_REASON_COUNT; i++) {
        int inside = i >= 0 && i < GL_REASON_COUNT;
        CHECK((gl_reason_name(i) != NULL) == inside, "name of reason %d", i);
        CHECK((gl_reason_meaning(i) != NULL) == inside, "meaning of reason %d", i);
    }
    CHECK(strcmp(gl_reason_name(GL_REASON_kept), "kept") == 0, "kept");
    CHECK(strcmp(gl_action_name(GL_SKIP), "skip") == 0, "skip");
    CHECK(gl_action_name(-1) == NULL && gl_action_name(GL_ACTION_COUNT) == NULL, "no action outside the range");
    CHECK(gl_rule_at(-1) == NULL && gl_rule_at(gl_rule_count()) == NULL, "no rule outside the range");
    CHECK(gl_schedule_at(-1) == NULL && gl_schedule_at(gl_schedule_count()) == NULL, "no schedule outside the range");
    CHECK(gl_rule_find("nosuch") == NULL && gl_schedule_find("nosuch") == NULL, "unknown names");
}

static void test_fields(const char *owner, const struct gl_field *fields, int count) {
    CHECK(count >= 0 && count <= GL_FIELDS_MAX, "%s has %d fields", owner, count);
    for (int i = 0; i < count; i++) {
        const struct gl_field *f = &fields[i];
        CHECK(gl_field_accepts(f, f->initial), "%s.%s takes its initial value", owner, f->name);
        CHECK(!gl_field_accepts(f, NAN), "%s.%s takes no NaN", owner, f->name);
        CHECK(gl_field_accepts(f, f->lower) == !(f->domain & GL_OPEN_LOWER), "%s.%s lower bound", owner, f->name);
        CHECK(gl_field_accepts(f, f->upper) == !(f->domain & GL_OPEN_UPPER), "%s.%s upper bound", owner, f->name);
        if (f->domain & GL_WHOLE) {
            CHECK(f->upper - f->lower >= 1, "%s.%s has values to choose from", owner, f->name);
            CHECK(!gl_field_accepts(f, fmax(f->lower, -1) + 0.5), "%s.%s takes no fraction", owner, f->name);
            CHECK(gl_field_within(f, fmax(f->lower, -1) + 0.5), "%s.%s: a fraction is no other fault", owner, f->name);
        }
        if (f->domain == GL_FLAG)
            CHECK(f->lower == 0 && f->upper == 1, "%s.%s is a flag", owner, f->name);
        for (int j = 0; j < i; j++)
            CHECK(strcmp(f->name, fields[j].name) != 0, "%s has two fields %s", owner, f->name);
    }
}

static void test_register(const struct gl_rule *rule) {
    double config[GL_FIELDS_MAX];
    CHECK(gl_rule_find(rule->name) == rule, "%s is found", rule->name);
    CHECK(rule->about[strlen(rule->about) - 1] == '.', "%s is described in a sentence", rule->name);
    CHECK(rule->inputs > 0 && rule->inputs <= GL_FIELDS_MAX, "%s has %d inputs", rule->name, rule->inputs);
    for (int i = 1; i < rule->inputs; i++)
        CHECK(rule->input[i - 1] < rule->input[i], "%s: inputs in the order of GL_STATS, up to %s", rule->name,
              gl_stat_name(rule->input[i]));
    test_fields(rule->name, rule->config, rule->configs);
    test_fields(rule->name, rule->state, rule->states);
    gl_rule_config_init(rule, config);
    CHECK(rule->check == NULL || rule->check(config) == NULL, "%s accepts its defaults", rule->name);
}

static void check_verdict(const struct gl_rule *rule, const struct gl_verdict *v, const double *state) {
    CHECK(gl_action_name(v->action) != NULL && gl_reason_name(v->reason) != NULL, "%s: verdict has names", rule->name);
    if (v->action == GL_SKIP)
        CHECK(v->lr == 0, "%s: skips with a rate of %g", rule->name, v->lr);
    else
        CHECK(v->lr >= DBL_MIN && v->lr <= DBL_MAX, "%s: rate %g, %s", rule->name, v->lr, gl_reason_name(v->reason));
    for (int i = 0; i < rule->states; i++)
        CHECK(gl_field_accepts(&rule->state[i], state[i]), "%s: state %s = %g", rule->name, rule->state[i].name,
              state[i]);
}

/* Flushing to zero, where this processor can. */
static void set_flushing(void) {
#if defined(__x86_64__)
    _mm_setcsr(GL_FPENV_DEFAULT | 0x8040);
#endif
}

static void test_fuzz(const struct gl_rule *rule) {
    double config[GL_FIELDS_MAX], inputs[GL_FIELDS_MAX], state[GL_FIELDS_MAX], twin[GL_FIELDS_MAX];
    for (int run = 0; run < 4000; run++) {
        gl_rule_config_init(rule, config);
        gl_rule_state_init(rule, state);
        if (run % 2)
            draw_fields(rule->config, rule->configs, config);
        if (run % 4 == 3)
            draw_fields(rule->state, rule->states, state);
        if (rule->check && rule->check(config))
            continue;
        for (int t = 0; t < 30; t++) {
            struct gl_verdict verdict, again;
            draw_inputs(rule, inputs);
            memcpy(twin, state, sizeof twin);
            verdict = gl_rule_update(rule, config, inputs, state);
            check_verdict(rule, &verdict, state);
            gl_fpenv saved = gl_fpenv_enter();
            set_flushing();
            again = gl_rule_update(rule, config, inputs, twin);
            gl_fpenv_leave(saved);
            CHECK(test_same(verdict.lr, again.lr) && verdict.action == again.action && verdict.reason == again.reason,
                  "%s: the same verdict twice, flushing or not", rule->name);
            CHECK(memcmp(state, twin, sizeof(double) * (size_t)rule->states) == 0, "%s: the same state", rule->name);
        }
    }
}

static void test_schedule(const struct gl_schedule *s) {
    double config[GL_FIELDS_MAX], factor = -1;
    CHECK(gl_schedule_find(s->name) == s, "%s is found", s->name);
    test_fields(s->name, s->config, s->configs);
    for (int run = 0; run < 100000; run++) {
        int64_t t = (int64_t)(test_bits() >> (11 + test_bits() % 50));
        int64_t total = (int64_t)(test_bits() >> (11 + test_bits() % 50));
        int64_t warmup = (int64_t)(test_bits() >> (11 + test_bits() % 53));
        draw_fields(s->config, s->configs, config);
        CHECK(gl_schedule_factor(s, t, total, warmup, config, &factor) == GL_OK, "%s", s->name);
        CHECK(factor >= 0 && factor <= 1, "%s(%lld, %lld, %lld) = %g", s->name, (long long)t, (long long)total,
              (long long)warmup, factor);
        CHECK(!s->needs_total || t < total || factor == 0, "%s ends at 0", s->name);
    }
    factor = -1;
    CHECK(gl_schedule_factor(s, -1, 10, 0, config, &factor) == GL_ERR_ARGUMENT, "t");
    CHECK(gl_schedule_factor(s, 0, -2, 0, config, &factor) == GL_ERR_ARGUMENT, "total");
    CHECK(gl_schedule_factor(s, 0, 10, -1, config, &factor) == GL_ERR_ARGUMENT, "warmup");
    CHECK(gl_schedule_factor(s, GL_UPDATES_MAX + 1, 10, 0, config, &factor) == GL_ERR_ARGUMENT, "large t");
    CHECK(gl_schedule_factor(s, 0, GL_UPDATES_MAX + 1, 0, config, &factor) == GL_ERR_ARGUMENT, "large total");
    CHECK(gl_schedule_factor(s, 0, 10, GL_UPDATES_MAX + 1, config, &factor) == GL_ERR_ARGUMENT, "large warmup");
    if (s->needs_total)
        CHECK(gl_schedule_factor(s, 0, GL_NO_TOTAL, 0, config, &factor) == GL_ERR_MISSING, "%s: total", s->name);
    CHECK(factor == -1, "%s: results are untouched on failure", s->name);
    if (!s->needs_total)
        CHECK(gl_schedule_factor(s, 0, GL_NO_TOTAL, 0, config, &factor) == GL_OK, "%s: no total", s->name);
}

int main(void) {
    test_stats();
    test_names();
    for (int i = 0; i < gl_rule_count(); i++) {
        test_register(gl_rule_at(i));
        test_fuzz(gl_rule_at(i));
    }
    for (int i = 0; i < gl_schedule_count(); i++)
        test_schedule(gl_schedule_at(i));
    return test_finish("test_rules");
}
