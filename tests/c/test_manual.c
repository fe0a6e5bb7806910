/* test_manual.c - the example of glyder.h, as it stands there: the makefile takes it out of the comment. */
#define _DEFAULT_SOURCE
#include "gl_test.h"
#include "manual_example.h" /* next_rate */

#include <float.h>

#define N 3

/* loss = 1/2 sum_i c_i x_i^2, least at 0; its gradient is written to g. */
static double quadratic(const float *x, float *g) {
    static const float c[N] = {1, 2, 4};
    double loss = 0;
    for (int i = 0; i < N; i++) {
        g[i] = c[i] * x[i];
        loss += 0.5 * c[i] * x[i] * x[i];
    }
    return loss;
}

/* Polyak's step with c = 1/2 is 2 loss/||g||^2.  Here <g, x> = 2 loss, so that it takes 2 rate loss off ||x||^2; with
 * curvatures from 1 to 4 the rate is at least 1/4 and 2 loss at least ||x||^2, and 3/4 of ||x||^2 is left at most.
 * After 40 updates the loss, between ||x||^2/2 and 4 times that, is at most 4 (3/4)^40 < 1e-4 of the first. */
static void test_example(void) {
    const struct gl_rule *rule = gl_rule_find("polyak");
    double state[GL_FIELDS_MAX], rate = 1, first, loss;
    float x[N] = {1, -2, 3}, g[N];

    CHECK(rule->inputs == 4 && rule->input[0] == GL_STAT_lr && rule->input[1] == GL_STAT_base &&
              rule->input[2] == GL_STAT_loss && rule->input[3] == GL_STAT_fall,
          "the inputs are those that the example gives");
    gl_rule_state_init(rule, state);
    first = loss = quadratic(x, g);
    CHECK(next_rate(rule, state, rate, loss, g, -1) == rate, "a gradient that cannot be summed leaves the rate");
    for (int t = 0; t < 40; t++) {
        double gg = (double)g[0] * g[0] + (double)g[1] * g[1] + (double)g[2] * g[2];
        rate = next_rate(rule, state, rate, loss, g, N);
        CHECK(fabs(rate * gg / (2 * loss) - 1) < 8 * DBL_EPSILON, "rate %g for loss %g", rate,
              loss); /* a few roundings */
        for (int i = 0; i < N; i++)
            x[i] -= (float)rate * g[i];
        loss = quadratic(x, g);
    }
    CHECK(loss < 1e-4 * first, "loss %g of %g", loss, first);
}

int main(void) {
    test_example();
    return test_finish("test_manual");
}
