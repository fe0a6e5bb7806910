/* test_ce.c - Gauss-Newton-Bartlett on logits: every level against the portable one bit for bit, all against long
 * double, and the statistics of sampled labels.
 *
 * Bound on the curvature, u = 2^-53: 2^-40 relative.  An exponential errs by 2 u plus u |z - top| from the difference,
 * sums by about 40 u, the centred form multiplies this by small constants; 2^-40 = 8192 u leaves room for |z - top| of
 * hundreds.
 */
#define _DEFAULT_SOURCE
#include "gl_test.h"

static const int64_t sizes[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 33, 511, 512, 513, 1000, 2049};
#define SIZES ((int)(sizeof sizes / sizeof *sizes))
#define ROWS  5
#define BOUND 0x1p-40L

/* ---------------------------------------------------------------- cases */

struct problem {
    struct gl_matrix z, plus, minus;
    struct test_guarded memory[3];
    double k[ROWS];
    int64_t label[ROWS];
};

/* Against the end of guarded memory: one value too many is a crash. */
static struct gl_matrix matrix(struct test_guarded *memory, enum gl_dtype dtype, int64_t classes) {
    size_t bytes = (size_t)(ROWS * classes * gl_dtype_size(dtype));
    *memory = test_guard(bytes);
    return (struct gl_matrix){(char *)memory->end - bytes, ROWS, classes, dtype};
}

static struct problem make(enum test_data data, enum gl_dtype dtype, int64_t classes) {
    struct problem p;
    p.z = matrix(&p.memory[0], dtype, classes);
    p.plus = matrix(&p.memory[1], dtype, classes);
    p.minus = matrix(&p.memory[2], dtype, classes);
    test_fill(data, dtype, (void *)(uintptr_t)p.z.ptr, ROWS * classes);
    test_fill(data, dtype, (void *)(uintptr_t)p.plus.ptr, ROWS * classes);
    test_fill(data, dtype, (void *)(uintptr_t)p.minus.ptr, ROWS * classes);
    for (int i = 0; i < ROWS; i++) {
        p.k[i] = i == 2 ? 0 : 0.5 + fabs(test_uniform());
        p.label[i] = (int64_t)(test_bits() % (uint64_t)classes);
    }
    return p;
}

static void release(struct problem *p) {
    for (int i = 0; i < 3; i++)
        test_unguard(p->memory[i]);
}

static void set(struct gl_matrix *m, int64_t row, int64_t c, double value) {
    test_store(m->dtype, (void *)(uintptr_t)m->ptr, row * m->classes + c, value);
}

/* ---------------------------------------------------------------- reference */

static long double probability(const struct gl_matrix *z, int64_t row, int64_t c) {
    long double top = -INFINITY, total = 0;
    for (int64_t i = 0; i < z->classes; i++)
        top = fmaxl(top, test_load(z->dtype, z->ptr, row * z->classes + i));
    for (int64_t i = 0; i < z->classes; i++)
        total += expl(test_load(z->dtype, z->ptr, row * z->classes + i) - top);
    return expl(test_load(z->dtype, z->ptr, row * z->classes + c) - top) / total;
}

static long double reference_curvature(const struct problem *p, double scale) {
    long double sum = 0;
    for (int64_t row = 0; row < ROWS; row++) {
        if (p->k[row] == 0)
            continue;
        long double mean = 0, spread = 0;
        for (int pass = 0; pass < 2; pass++)
            for (int64_t c = 0; c < p->z.classes; c++) {
                int64_t at = row * p->z.classes + c;
                long double prob = probability(&p->z, row, c);
                long double u = ((long double)test_load(p->plus.dtype, p->plus.ptr, at) -
                                 test_load(p->minus.dtype, p->minus.ptr, at)) *
                                scale;
                if (prob == 0)
                    continue;
                if (pass == 0)
                    mean += prob * u;
                else
                    spread += prob * (u - mean) * (u - mean);
            }
        sum += p->k[row] * spread;
    }
    return sum;
}

/* ---------------------------------------------------------------- everything at one level */

struct results {
    double curvature, plain;
    int64_t label[ROWS];
    double residual[ROWS * 2049];
    double k[ROWS];
    struct gl_ce_fit fit;
};

static void run(const struct problem *p, struct results *out) {
    memset(out, 0, sizeof *out);
    struct gl_segment segment = {out->residual, ROWS * p->z.classes, p->z.dtype};
    CHECK(gl_ce_curvature(&p->z, &p->plus, &p->minus, 3.7, p->k, &out->curvature) == GL_OK, "curvature");
    CHECK(gl_ce_curvature(&p->z, &p->plus, NULL, 1, NULL, &out->plain) == GL_OK, "curvature without minus and k");
    CHECK(gl_ce_sample(&p->z, 11, 12, out->label) == GL_OK, "sample");
    CHECK(gl_ce_residual(&p->z, p->label, p->k, &segment) == GL_OK, "residual");
    CHECK(gl_ce_infer(&p->z, &p->plus, out->k, &out->fit) == GL_OK, "infer");
}

static void compare(const struct problem *p, const struct results *a, const struct results *b, const char *level) {
    const char *dtype = test_dtype_name[p->z.dtype];
    CHECK(test_same(a->curvature, b->curvature), "%s %s curvature %a, %a", level, dtype, a->curvature, b->curvature);
    CHECK(test_same(a->plain, b->plain), "%s %s plain curvature %a, %a", level, dtype, a->plain, b->plain);
    CHECK(memcmp(a->label, b->label, sizeof a->label) == 0, "%s %s labels", level, dtype);
    for (int64_t i = 0; i < ROWS * p->z.classes; i++)
        CHECK(test_same(test_load(p->z.dtype, a->residual, i), test_load(p->z.dtype, b->residual, i)),
              "%s %s residual %ld", level, dtype, (long)i);
    CHECK(a->fit.kind == b->fit.kind && a->fit.rows == b->fit.rows && test_same(a->fit.misfit, b->fit.misfit),
          "%s %s fit", level, dtype);
    for (int i = 0; i < ROWS; i++)
        CHECK(test_same(a->k[i], b->k[i]), "%s %s k[%d]", level, dtype, i);
}

static struct results portable, other;

static void test_levels(void) {
    for (int level = GL_LEVEL_AVX2; level < GL_LEVEL_COUNT; level++)
        for (int s = 0; s < SIZES && test_level((enum gl_level)level); s++)
            for (int dtype = 0; dtype < GL_DTYPE_COUNT; dtype++)
                for (int data = 0; data < TEST_DATA_COUNT; data++) {
                    struct problem p = make((enum test_data)data, (enum gl_dtype)dtype, sizes[s]);
                    gl_level_select(GL_LEVEL_PORTABLE);
                    run(&p, &portable);
                    gl_level_select((enum gl_level)level);
                    run(&p, &other);
                    compare(&p, &portable, &other, gl_level_name((enum gl_level)level));
                    release(&p);
                }
    gl_level_select(gl_level_best());
}

/* Flush-to-zero and denormals-are-zero of the caller must not show. */
static void test_flushing(void) {
#if defined(__x86_64__)
    for (int s = 0; s < SIZES; s++)
        for (int dtype = 0; dtype < GL_DTYPE_COUNT; dtype++) {
            struct problem p = make(TEST_DENORMAL, (enum gl_dtype)dtype, sizes[s]);
            for (int64_t c = 0; c < sizes[s]; c += 3)
                set(&p.z, 0, c, -740); /* a denormal exponential */
            run(&p, &portable);
            unsigned saved = __builtin_ia32_stmxcsr();
            __builtin_ia32_ldmxcsr(saved | 0x8040);
            run(&p, &other);
            __builtin_ia32_ldmxcsr(saved);
            compare(&p, &portable, &other, "flushing");
            release(&p);
        }
#endif
}

/* ---------------------------------------------------------------- values */

static void check_value(const struct problem *p, long double bound, const char *what) {
    double sum = -1;
    CHECK(gl_ce_curvature(&p->z, &p->plus, &p->minus, 2.5, p->k, &sum) == GL_OK, "%s", what);
    long double exact = reference_curvature(p, 2.5);
    CHECK(fabsl(sum - exact) <= bound * exact, "%s, %s, %ld classes: %.17g, not %.17Lg", what,
          test_dtype_name[p->z.dtype], (long)p->z.classes, sum, exact);
}

static void test_values(void) {
    for (int s = 0; s < 12; s++)
        for (int dtype = 0; dtype < GL_DTYPE_COUNT; dtype++) {
            struct problem p = make(TEST_PLAIN, (enum gl_dtype)dtype, sizes[s]);
            check_value(&p, BOUND, "plain");
            for (int64_t c = 0; c < sizes[s]; c++) /* an offset common to the row, exact in f32 and f64 */
                for (int64_t row = 0; row < ROWS && dtype <= GL_F32; row++)
                    set(&p.z, row, c, 1e4 + test_uniform());
            check_value(&p, BOUND, "offset 1e4");
            for (int64_t c = 0; c < sizes[s] && dtype <= GL_F32; c++) /* an offset of u: the textbook form cancels */
                for (int64_t row = 0; row < ROWS; row++)
                    set(&p.plus, row, c, 1e4 + test_uniform());
            check_value(&p, 1e4L * BOUND, "offset of u"); /* plus - minus has been rounded at 1e4 u */
            for (int64_t c = 1; c < sizes[s]; c += 2)
                for (int64_t row = 0; row < ROWS; row++) { /* masked classes: their u is NaN */
                    set(&p.z, row, c, -INFINITY);
                    set(&p.plus, row, c, -INFINITY);
                    set(&p.minus, row, c, -INFINITY);
                }
            check_value(&p, 1e4L * BOUND, "masked");
            release(&p);
        }
}

static void test_nonfinite(void) {
    double bad[] = {NAN, INFINITY, -INFINITY}, sum = 0;
    for (int b = 0; b < 3; b++) {
        struct problem p = make(TEST_PLAIN, GL_F32, 9);
        for (int64_t c = 0; c < (b == 2 ? 9 : 1); c++)
            set(&p.z, 2, c, bad[b]);
        CHECK(gl_ce_curvature(&p.z, &p.plus, &p.minus, 1, p.k, &sum) == GL_OK && isfinite(sum), "a row of weight 0");
        CHECK(gl_ce_curvature(&p.z, &p.plus, &p.minus, 1, NULL, &sum) == GL_OK && isnan(sum), "%g in a row", bad[b]);
        int64_t label[ROWS];
        CHECK(gl_ce_sample(&p.z, 1, 1, label) == GL_OK && label[2] == 0, "no distribution, label 0");
        release(&p);
    }
}

static void test_residual(void) {
    for (int dtype = 0; dtype < GL_DTYPE_COUNT; dtype++) {
        struct problem p = make(TEST_PLAIN, (enum gl_dtype)dtype, 17);
        struct gl_segment out = {(void *)(uintptr_t)p.z.ptr, ROWS * 17, p.z.dtype};
        double expected[ROWS * 17];
        for (int i = 0; i < ROWS * 17; i++)
            expected[i] = p.k[i / 17] * (double)(probability(&p.z, i / 17, i % 17) - (i % 17 == p.label[i / 17]));
        CHECK(gl_ce_residual(&p.z, p.label, p.k, &out) == GL_OK, "in place");
        for (int i = 0; i < ROWS * 17; i++) {
            double found = test_load(p.z.dtype, out.ptr, i);
            double ulp = dtype == GL_F64 ? 0x1p-50 : dtype == GL_F32 ? 0x1p-23 : dtype == GL_F16 ? 0x1p-10 : 0x1p-7;
            CHECK(fabs(found - expected[i]) <= ulp * fabs(expected[i]), "%g, not %g", found, expected[i]);
        }
        release(&p);
    }
}

/* Chi-square of 19 degrees of freedom passes 45 with probability 7e-4; the seeds are fixed. */
static void test_sampling(void) {
    enum { CLASSES = 20, DRAWS = 20000 };
    float z[CLASSES];
    struct gl_matrix m = {z, 1, CLASSES, GL_F32};
    int64_t count[CLASSES] = {0}, label = -1;
    for (int c = 0; c < CLASSES; c++)
        z[c] = c % 5 == 4 ? (float)-INFINITY : (float)(2 * test_uniform());
    for (int draw = 0; draw < DRAWS; draw++) {
        gl_ce_sample(&m, 5, (uint64_t)draw, &label);
        count[label]++;
    }
    double chi = 0;
    for (int c = 0; c < CLASSES; c++) {
        double expected = DRAWS * (double)probability(&m, 0, c);
        CHECK(expected > 0 || count[c] == 0, "class %d has no probability and was drawn", c);
        chi += expected > 0 ? (count[c] - expected) * (count[c] - expected) / expected : 0;
    }
    CHECK(chi < 45, "chi-square %g", chi);
}

/* ---------------------------------------------------------------- weights */

static void test_weights(void) {
    int64_t label[] = {0, 2, -100, 1}, ignored[] = {-100, -100}, outside[] = {0, 3};
    double w[] = {1, 2, 5}, k[4], kept = 7;
    gl_ce_weights_hard(label, 4, 3, w, -100, 0, GL_REDUCTION_MEAN, k);
    CHECK(k[0] == 1 / 8.0 && k[1] == 5 / 8.0 && k[2] == 0 && k[3] == 2 / 8.0, "class weights, mean");
    gl_ce_weights_hard(label, 4, 3, NULL, -100, 0.5, GL_REDUCTION_SUM, k);
    CHECK(k[0] == 1 && k[2] == 0 && k[3] == 1, "smoothing keeps the mass");
    gl_ce_weights_hard(ignored, 2, 3, NULL, -100, 0, GL_REDUCTION_MEAN, k);
    CHECK(k[0] == 0 && k[1] == 0, "all ignored");
    k[0] = kept;
    CHECK(gl_ce_weights_hard(outside, 2, 3, NULL, -100, 0, GL_REDUCTION_SUM, k) == GL_ERR_ARGUMENT && k[0] == kept,
          "label outside");
    CHECK(gl_ce_weights_hard(label, 4, 3, NULL, -100, NAN, GL_REDUCTION_SUM, k) == GL_ERR_ARGUMENT, "smoothing NaN");
    double t[] = {0.5, 0.25, 0.25, 0, 0, 1};
    struct gl_matrix target = {t, 2, 3, GL_F64};
    gl_ce_weights_soft(&target, w, 0, GL_REDUCTION_MEAN, k);
    CHECK(k[0] == (0.5 + 0.5 + 1.25) / 2 && k[1] == 2.5, "soft targets");
}

/* ---------------------------------------------------------------- inference */

enum { N = 40 };

/* r = scale (p - t) in float, with smoothed targets: what a float32 loss would leave. */
static enum gl_ce_kind infer(int classes, double spread, double sure, double smoothing, double scale, double *worst) {
    static float z[N * 64], r[N * 64];
    struct gl_matrix zm = {z, N, classes, GL_F32}, rm = {r, N, classes, GL_F32};
    double k[N];
    struct gl_ce_fit fit;
    for (int i = 0; i < N * classes; i++)
        z[i] = (float)(spread * test_uniform() + (i % classes == i / classes % classes ? sure : 0));
    for (int i = 0; i < N * classes; i++) {
        int hit = i % classes == i / classes % classes;
        r[i] = (float)(scale * (double)(probability(&zm, i / classes, i % classes) - smoothing / classes -
                                        (1 - smoothing) * hit));
    }
    for (int c = 0; c < classes; c++)
        r[3 * classes + c] = 0; /* an ignored row */
    CHECK(gl_ce_infer(&zm, &rm, k, &fit) == GL_OK && fit.rows == N - 1, "rows %ld", (long)fit.rows);
    CHECK(fit.kind == GL_CE_NONE || k[3] == 0, "an ignored row has weight 0");
    *worst = 0;
    for (int i = 0; i < N; i++)
        *worst = fmax(*worst, i == 3 ? 0 : fabs(k[i] / scale - 1));
    return fit.kind;
}

static void test_infer(void) {
    double worst, scales[] = {1.0 / (N - 1), 1, 65536, 1.0 / 4096};
    for (int s = 0; s < 4; s++)
        for (int classes = 3; classes <= 64; classes += 61)
            for (double sure = 0; sure <= 12; sure += 3) {
                CHECK(infer(classes, 1, sure, 0, scales[s], &worst) == GL_CE_HARD && worst < 2e-3, "hard %g", worst);
                CHECK(infer(classes, 1, sure, 0.1, scales[s], &worst) == GL_CE_SMOOTH && worst < 2e-3,
                      "smooth: %d classes, sure %g, off by %g", classes, sure, worst);
            }
    CHECK(infer(2, 1, 1, 0, 0.5, &worst) == GL_CE_HARD && worst < 2e-3, "two classes");
    CHECK(infer(2, 1, 1, 0.1, scales[0], &worst) != GL_CE_NONE && worst < 1e-6, "two smoothed classes");
    CHECK(infer(10, 1, 1, 0, -1, &worst) == GL_CE_NONE, "a loss that is climbed");
}

/* Mixed targets, 0.7 and 0.3 of two classes, under the mean; `added` goes to one entry of the gradient. */
static enum gl_ce_kind infer_mixed(double added) {
    static double z[N * 10], r[N * 10];
    struct gl_matrix zm = {z, N, 10, GL_F64}, rm = {r, N, 10, GL_F64};
    double k[N];
    struct gl_ce_fit fit;
    for (int i = 0; i < N * 10; i++)
        z[i] = test_uniform();
    for (int i = 0; i < N * 10; i++) {
        double target = i % 10 == i / 10 % 10 ? 0.7 : i % 10 == (i / 10 + 3) % 10 ? 0.3 : 0;
        r[i] = ((double)probability(&zm, i / 10, i % 10) - target) / N;
    }
    r[5] += added;
    CHECK(gl_ce_infer(&zm, &rm, k, &fit) == GL_OK && (fit.kind == GL_CE_MEAN ? k[0] > 0 : isnan(k[0])),
          "mixed targets");
    return fit.kind;
}

static void test_infer_refuses(void) {
    struct problem p = make(TEST_PLAIN, GL_F32, 9);
    double k[ROWS] = {7, 7, 7, 7, 7};
    struct gl_ce_fit fit;
    CHECK(gl_ce_infer(&p.z, &p.plus, k, &fit) == GL_OK && fit.kind == GL_CE_NONE && isnan(k[0]), "noise");
    set(&p.plus, 1, 1, NAN);
    CHECK(gl_ce_infer(&p.z, &p.plus, k, &fit) == GL_OK && fit.kind == GL_CE_NONE, "NaN");
    CHECK(infer_mixed(0) == GL_CE_MEAN && infer_mixed(NAN) == GL_CE_NONE, "NaN in mixed targets");
    memset((void *)(uintptr_t)p.plus.ptr, 0, sizeof(float) * ROWS * 9);
    CHECK(gl_ce_infer(&p.z, &p.plus, k, &fit) == GL_OK && fit.kind == GL_CE_NONE && fit.rows == 0 && k[0] == 0,
          "no gradient at all");
    release(&p);
}

/* ---------------------------------------------------------------- arguments */

static void test_arguments(void) {
    struct problem p = make(TEST_PLAIN, GL_F32, 9);
    struct gl_matrix wrong = p.z;
    struct gl_segment out = {(void *)(uintptr_t)p.plus.ptr, 1, GL_F32};
    double sum = 7;
    wrong.classes = 8;
    CHECK(gl_ce_curvature(&p.z, &wrong, NULL, 1, NULL, &sum) == GL_ERR_LENGTH, "shape");
    wrong.classes = 0;
    CHECK(gl_ce_curvature(&wrong, &wrong, NULL, 1, NULL, &sum) == GL_ERR_ARGUMENT, "no classes");
    wrong.classes = INT64_MAX;
    CHECK(gl_ce_curvature(&wrong, &wrong, NULL, 1, NULL, &sum) == GL_ERR_ARGUMENT, "too large");
    wrong = p.z;
    wrong.dtype = GL_DTYPE_COUNT;
    CHECK(gl_ce_curvature(&p.z, &wrong, NULL, 1, NULL, &sum) == GL_ERR_DTYPE, "dtype");
    CHECK(gl_ce_curvature(&p.z, NULL, NULL, 1, NULL, &sum) == GL_ERR_ARGUMENT && sum == 7, "NULL");
    CHECK(gl_ce_residual(&p.z, p.label, NULL, &out) == GL_ERR_LENGTH, "length of out");
    out.n = ROWS * 9;
    p.label[1] = 9;
    CHECK(gl_ce_residual(&p.z, p.label, NULL, &out) == GL_ERR_ARGUMENT, "label outside");
    p.k[1] = 0;
    CHECK(gl_ce_residual(&p.z, p.label, p.k, &out) == GL_OK, "label outside in a row of weight 0");
    wrong = (struct gl_matrix){NULL, 0, 9, GL_F32};
    CHECK(gl_ce_curvature(&wrong, &wrong, NULL, 1, NULL, &sum) == GL_OK && sum == 0, "no rows");
    release(&p);
}

int main(void) {
    test_levels();
    test_flushing();
    test_values();
    test_nonfinite();
    test_residual();
    test_sampling();
    test_weights();
    test_infer();
    test_infer_refuses();
    test_arguments();
    return test_finish("test_ce");
}
