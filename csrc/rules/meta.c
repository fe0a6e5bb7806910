/* meta.c - a small recurrent net maps the losses seen so far to a rate (MLR-SNet: Shu et al., 2007.14546).
 *
 *   rate = gamma sigmoid(a . h_t + b),   h_t = LSTM(z_t, h_{t-1}),   z_t = log(L_t/L_0)
 *
 * with the published ceiling, for L_0 the first loss and C classes,
 *
 *   gamma = sqrt(L_0) ln(L_0 C)/(4 C^(1/4))
 *
 * or with one that is given.  The net is trained once, ahead, and shipped as the table meta_net.h, which also says how
 * it was made.  Nothing of it is fitted here.
 *
 * Ours: one plain LSTM cell of GL_META_HIDDEN units, where the released net has 50 of a kind of its own; and z_t in
 * place of the loss, so that the unit of the loss plays no part and small losses can be told apart.  z_t is held
 * within +-GL_META_RANGE, and at its lower end for losses that are not positive.
 *
 * The first loss has to be positive, and with the published gamma above 1/C; until one is, the rate stays.  Neither
 * the horizon nor anything of the net that is trained is known to it.
 */
#include "meta_net.h"

#include <math.h>

#define RULE      meta
#define ABOUT     "A small recurrent net, trained ahead, maps the losses seen so far to a rate."
#define INPUTS(X) X(loss)
#define CONFIG(X)                                                                                                      \
    X(gamma, 0, 0, INFINITY, GL_OPEN_UPPER)                                                                            \
    X(classes, 10, 2, INFINITY, GL_COUNT)
#define STATE(X)                                                                                                       \
    X(first, 0, 0, INFINITY, GL_OPEN_UPPER)                                                                            \
    X(h0, 0, -1, 1, GL_CLOSED)                                                                                         \
    X(h1, 0, -1, 1, GL_CLOSED)                                                                                         \
    X(h2, 0, -1, 1, GL_CLOSED)                                                                                         \
    X(h3, 0, -1, 1, GL_CLOSED)                                                                                         \
    X(c0, 0, -INFINITY, INFINITY, GL_OPEN)                                                                             \
    X(c1, 0, -INFINITY, INFINITY, GL_OPEN)                                                                             \
    X(c2, 0, -INFINITY, INFINITY, GL_OPEN)                                                                             \
    X(c3, 0, -INFINITY, INFINITY, GL_OPEN)
#include "rule_template.h"

enum { UNITS = GL_META_HIDDEN, HIDDEN_AT = 1, CELL_AT = 1 + UNITS };
_Static_assert(GL_COUNT_OF(state_fields) == 1 + 2 * UNITS, "the first loss, and a hidden and a cell value per unit");

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

/* One step of the LSTM, gates in the order input, forget, cell, output.  Returns the net's output. */
static double net(double z, double *h, double *c) {
    double gates[4 * UNITS], out = gl_meta_output_bias;

    for (int k = 0; k < 4 * UNITS; k++) {
        gates[k] = gl_meta_bias[k] + gl_meta_input[k] * z;
        for (int j = 0; j < UNITS; j++)
            gates[k] += gl_meta_recurrent[k][j] * h[j];
    }
    for (int j = 0; j < UNITS; j++) {
        c[j] = sigmoid(gates[UNITS + j]) * c[j] + sigmoid(gates[j]) * tanh(gates[2 * UNITS + j]);
        h[j] = sigmoid(gates[3 * UNITS + j]) * tanh(c[j]);
        out += gl_meta_output[j] * h[j];
    }
    return sigmoid(out);
}

/* Not positive where the published formula gives no ceiling. */
static double ceiling(const struct config *c, double first) {
    return c->gamma > 0 ? c->gamma : sqrt(first) * log(first * c->classes) / (4 * sqrt(sqrt(c->classes)));
}

static struct gl_verdict update(const struct config *c, const struct inputs *s, struct state *x) {
    double *values = (double *)x, first = x->first > 0 ? x->first : s->loss, z;

    if (!inputs_finite(s))
        return gl_skip(GL_REASON_not_finite);
    if (first <= 0 || !(ceiling(c, first) > 0))
        return gl_skip(GL_REASON_out_of_range);
    x->first = first;
    z = s->loss > 0 ? log(s->loss / first) : -GL_META_RANGE;
    z = fmin(fmax(z, -GL_META_RANGE), GL_META_RANGE);
    return gl_keep(ceiling(c, first) * net(z, values + HIDDEN_AT, values + CELL_AT), GL_REASON_kept);
}
