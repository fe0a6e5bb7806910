/* glyder.h - the public C interface of glyder, and its manual.
 *
 * glyder sets the learning rate of an optimizer x <- x - eta d while it trains.  This library holds the
 * arithmetic: streaming reductions over the parameters, the curvature of cross-entropy along a direction,
 * and the rules that turn a handful of scalars into a learning rate.  Data flows one way:
 *
 *   segments -> reductions -> sums -> statistics -> rule -> stages -> verdict
 *
 * Rules and schedules have headers of their own, rules/rule.h and rules/schedule.h, with a file for each rule. Polyak's
 * step for gradient descent, whole (`make -C tests/c check` takes these lines from here, builds and runs them):
 *
 *     #include "glyder.h"
 *     #include "rules/rule.h"
 *
 *     // The rate of the next update, or the old one; gl_rule_state_init begins the state, once a run.
 *     double next_rate(const struct gl_rule *rule, double *state, double lr, double loss, float *g, int64_t n) {
 *         const struct gl_segment gradient = {g, n, GL_F32};
 *         const struct gl_operand operand = {&gradient, NULL};
 *         double config[GL_FIELDS_MAX], sums[GL_PAIRS_MAX];
 *
 *         gl_rule_config_init(rule, config);
 *         if (gl_reduce(&operand, 1, 1, 1u << GL_PAIR(0, 0), sums) != GL_OK)
 *             return lr;
 *         // INPUTS of rules/polyak.c: lr, base, loss, fall; along the gradient, the last is its squared length
 *         const double inputs[] = {lr, lr, loss, sums[GL_PAIR(0, 0)]};
 *         const struct gl_verdict verdict = gl_rule_update(rule, config, inputs, state);
 *         return verdict.action == GL_SKIP ? lr : verdict.lr;
 *     }
 *
 * Reductions know nothing of rules, rules nothing of arrays, and neither of Python.  No function allocates,
 * prints, locks, or reads the environment; all are re-entrant.  Results go through pointers and stay
 * untouched on failure.
 *
 * The same inputs give the same bits at every dispatch level, alignment and flush-to-zero setting.  Any NaN
 * counts as equal to any NaN.
 */
#ifndef GLYDER_H
#define GLYDER_H

#include <stdint.h>

#define GLYDER_VERSION "0.1.0"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- status */

enum gl_status {
    GL_OK = 0,
    GL_ERR_ARGUMENT = -1, /* a count, index or number is outside its range */
    GL_ERR_LENGTH = -2,   /* operands differ in the length of a segment */
    GL_ERR_DTYPE = -3,    /* a dtype this function does not take */
    GL_ERR_MISSING = -4,  /* a schedule was not given the total that it needs */
    GL_ERR_LEVEL = -5     /* a dispatch level that this machine lacks */
};

/* One full sentence, never NULL. */
const char *gl_status_message(enum gl_status status);

/* ---------------------------------------------------------------- dispatch */

/* Kernels exist once per level; the best one that the processor has is chosen at load time. */
enum gl_level { GL_LEVEL_PORTABLE = 0, GL_LEVEL_AVX2 = 1, GL_LEVEL_AVX512 = 2, GL_LEVEL_COUNT = 3 };

const char *gl_level_name(enum gl_level level); /* "portable" "avx2" "avx512"; NULL outside the range */
int gl_level_available(enum gl_level level);    /* compiled in, and this processor and system have it */
enum gl_level gl_level_best(void);
enum gl_level gl_level_current(void);
enum gl_status gl_level_select(enum gl_level level); /* for tests and reports; process-wide */

/* ---------------------------------------------------------------- segments */

enum gl_dtype { GL_F64 = 0, GL_F32 = 1, GL_F16 = 2, GL_BF16 = 3, GL_DTYPE_COUNT = 4 };

int gl_dtype_size(enum gl_dtype dtype); /* bytes; 0 outside the range */

/* A list of segments stands for one flattened vector; nothing is copied.  A segment is `n` contiguous values;
 * `ptr` may be NULL only where n is 0.  Functions that only read never write through `ptr`. */
struct gl_segment {
    void *ptr;
    int64_t n;
    enum gl_dtype dtype;
};

/* ---------------------------------------------------------------- reductions */

/* An operand is a vector, or the difference plus - minus of two, formed in double before anything is
 * multiplied, so that nothing is subtracted after rounding.  `minus` is NULL for a plain vector.  Dtypes may
 * differ between the segments of one list and between lists. */
struct gl_operand {
    const struct gl_segment *plus;
    const struct gl_segment *minus;
};

#define GL_OPERANDS_MAX 4
#define GL_PAIRS_MAX    10
/* Place of the inner product <operand i, operand j>, i <= j, in `want` (as a bit) and in `sums`. */
#define GL_PAIR(i, j) ((j) * ((j) + 1) / 2 + (i))

/* One pass over memory: for every pair whose bit is set in `want`, sums[GL_PAIR(i, j)] = sum of products, in
 * double; the other entries are left as they are.  All operands have `segments` segments of equal lengths. */
enum gl_status gl_reduce(const struct gl_operand *operand, int operands, int64_t segments, uint32_t want,
                         double sums[GL_PAIRS_MAX]);

/* The same for every segment by itself: sums[s] is what gl_reduce gives for the lists' segments s alone. */
enum gl_status gl_reduce_each(const struct gl_operand *operand, int operands, int64_t segments, uint32_t want,
                              double (*sums)[GL_PAIRS_MAX]);

/* ---------------------------------------------------------------- tensor by tensor */

/* *mean = mean over i of ab_i/sqrt(aa_i bb_i), the cosines of n pairs of vectors, from their inner products.  Pairs of
 * which one has no length do not count; *counted is the number of those that do, and with none *mean is 0. */
enum gl_status gl_mean_cosine(const double *ab, const double *aa, const double *bb, int64_t n, double *mean,
                              int64_t *counted);

/* *sum = sum over i of dd_i/xx_i, squared lengths relative to those of other vectors.  Where one of them is 0 there is
 * no ratio, and the pair does not count. */
enum gl_status gl_sum_of_ratios(const double *dd, const double *xx, int64_t n, double *sum, int64_t *counted);

/* ---------------------------------------------------------------- writers */

/* dst <- src.  Equal dtypes: a copy of the bits.  Otherwise rounded to nearest even. */
enum gl_status gl_copy(const struct gl_segment *dst, const struct gl_segment *src, int64_t segments);

/* out <- scale*older - newer, formed in double (the product rounded, then the difference).  With scale = 1 this
 * is the displacement x_t - x_{t+1}; with scale = 1 - eta*lambda it leaves decoupled weight decay out.  `out`
 * may be `older`. */
enum gl_status gl_displace(const struct gl_segment *out, const struct gl_segment *older, double scale,
                           const struct gl_segment *newer, int64_t segments);

/* dst <- x + c*delta, formed in double and rounded once.  `dst` may be `x`. */
enum gl_status gl_perturb(const struct gl_segment *dst, const struct gl_segment *x, double c,
                          const struct gl_segment *delta, int64_t segments);

/* ---------------------------------------------------------------- cross-entropy */

/* Logits, or anything of their shape: `rows` x `classes`, row-major and contiguous. */
struct gl_matrix {
    const void *ptr;
    int64_t rows, classes;
    enum gl_dtype dtype;
};

/* Softmax cross-entropy sum_i sum_c tau_ic (-log p_ic) has, in the logits of row i, the Hessian
 * k_i (diag p_i - p_i p_i^T) with k_i = sum_c tau_ic: the targets enter through the row weight k_i alone.
 * torch's cross_entropy divides by N; the functions below put 1/N into k_i. */

/* *sum = sum_i k_i sum_c p_ic (u_ic - ubar_i)^2, u = (plus - minus)*inv_two_eps, ubar_i = sum_c p_ic u_ic, p =
 * softmax(z).  The centred form: the textbook difference of moments cancels.  k NULL means all ones; rows of
 * weight 0 are skipped, whatever they hold; so are classes with p_ic = 0 (masked by -inf).  Other rows that hold NaN,
 * +inf or nothing but -inf give NaN.  `minus` may be NULL (plus is u then, times inv_two_eps). */
enum gl_status gl_ce_curvature(const struct gl_matrix *z, const struct gl_matrix *plus, const struct gl_matrix *minus,
                               double inv_two_eps, const double *k, double *sum);

enum gl_reduction { GL_REDUCTION_MEAN = 0, GL_REDUCTION_SUM = 1 };

/* Row weights of torch.nn.functional.cross_entropy with class indices: (1-s) w_y + s/C sum_c w_c, rows with label
 * ignore_index 0, divided by sum_i w_{y_i} for the mean.  class_weight NULL means ones.  A label outside
 * [0, classes) other than ignore_index is GL_ERR_ARGUMENT.  With all rows ignored all k are 0 (torch's mean is NaN). */
enum gl_status gl_ce_weights_hard(const int64_t *label, int64_t rows, int64_t classes, const double *class_weight,
                                  int64_t ignore_index, double smoothing, enum gl_reduction reduction, double *k);

/* The same for class probabilities: sum_c w_c ((1-s) t_ic + s/C), divided by rows for the mean. */
enum gl_status gl_ce_weights_soft(const struct gl_matrix *target, const double *class_weight, double smoothing,
                                  enum gl_reduction reduction, double *k);

/* Row weights read off the gradient r = k_i p_i - tau_i of the loss that was really trained, by the logits z,
 * without targets.  Hypotheses are tried in this order, and the first that fits r to within its rounding is taken:
 *   GL_CE_HARD    every row with r_i != 0 is k_i (p_i - onehot(y_i)), y_i = argmin_c r_ic: class weights, masks,
 *                 ignored rows, any reduction and any loss scale, each row its own k_i >= 0; for 2 classes one k
 *                 common to all rows, which class weights are not, shown by each row and at least 8 that are not
 *                 saturated, one of each label there is among them;
 *   GL_CE_SMOOTH  one k for all rows with r_i != 0, targets 1 - (C-1)a and a, both fitted: label smoothing up to 1/2
 *                 without class weights, any reduction and loss scale, at least 8 rows;
 *   GL_CE_MEAN    k_i = 1/(number of rows with r_i != 0), and the targets p_i - r_i/k_i that follow share one floor
 *                 >= 0 in half of the classes of each row: mixup and other sparse soft targets, plain mean, at
 *                 least 8 rows;
 *   GL_CE_NONE    none of these: k is all NaN.  So it is if a row with gradient holds NaN or infinity.
 * Rows with r_i == 0 get weight 0; without any other row the kind is GL_CE_NONE and k all 0.
 *
 * Undecidable, and taken for what comes first in the list: a loss phi(p_y), such as the focal loss, is hard with
 * k_i = -p_y phi'(p_y).  While p is uniform to within the tolerance (1e-3 in f32, 5e-2 in bf16), smoothing by s is
 * hard with k shortened by 1 - s, and so are other losses with equal gradients; class weights of 2 classes look like
 * none where they agree to within it.  Where p is 0 or 1 to within it in nearly all rows, soft targets can look hard,
 * their k too small, and class weights can look like smoothing, with the k of the few rows that have a large gradient
 * (seen in bf16: within the range of the class weights); in f16, gradients that have mostly been rounded to 0 or to
 * the smallest numbers tell k badly. */
enum gl_ce_kind { GL_CE_NONE = 0, GL_CE_HARD = 1, GL_CE_MEAN = 2, GL_CE_SMOOTH = 3 };
struct gl_ce_fit {
    enum gl_ce_kind kind;
    int64_t rows;  /* rows with a gradient */
    double misfit; /* relative misfit of the hypothesis taken, or of the best one if none */
    double weight; /* sum of k_i; 0 if none */
};
enum gl_status gl_ce_infer(const struct gl_matrix *z, const struct gl_matrix *r, double *k, struct gl_ce_fit *fit);

/* label[i] ~ softmax(z_i), by inversion, from a counter-based generator: (seed, draw, i) alone decide.  A class of
 * probability 0 is never drawn; a row without a distribution (NaN, +inf, nothing but -inf) gets label 0. */
enum gl_status gl_ce_sample(const struct gl_matrix *z, uint64_t seed, uint64_t draw, int64_t *label);

/* out_ic = k_i (p_ic - [c == label_i]): the gradient of the sampled cross-entropy by the logits.  `out` has z's
 * shape, and may lie on z itself; k NULL means ones; rows of weight 0 give zeros, whatever they or their label hold. */
enum gl_status gl_ce_residual(const struct gl_matrix *z, const int64_t *label, const double *k,
                              const struct gl_segment *out);

#ifdef __cplusplus
}
#endif

#endif
