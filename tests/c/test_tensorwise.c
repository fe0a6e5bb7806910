/* test_tensorwise.c - gl_reduce_each: segment by segment the bits of gl_reduce, at every level; gl_mean_cosine and
 * gl_sum_of_ratios: against sums in long double, and what is not ordinary shows or has no say, as stated.
 */
#define _DEFAULT_SOURCE
#include "gl_test.h"
#include "gl_fpenv.h" /* GL_FPENV_DEFAULT */

#define SEGMENTS 9
#define OPERANDS 3
#define ALL      0x3fu /* the pairs of three operands */
#define ENTRIES  1000

static const int64_t length[SEGMENTS] = {0, 1, 15, 16, 511, 0, 513, 1100, 3};

/* ---------------------------------------------------------------- segment by segment */

/* Three operands, the last of them a difference. */
struct problem {
    struct gl_segment list[OPERANDS + 1][SEGMENTS];
    struct gl_operand operand[OPERANDS];
};

static void problem_make(struct problem *p, enum test_data data, int dtype) {
    for (int l = 0; l <= OPERANDS; l++)
        for (int s = 0; s < SEGMENTS; s++) {
            enum gl_dtype d = (enum gl_dtype)(dtype < 0 ? (int)(test_bits() % GL_DTYPE_COUNT) : dtype);
            void *ptr = test_alloc((size_t)(length[s] * gl_dtype_size(d)));
            test_fill(data, d, ptr, length[s]);
            p->list[l][s] = (struct gl_segment){ptr, length[s], d};
        }
    for (int i = 0; i < OPERANDS; i++)
        p->operand[i] = (struct gl_operand){p->list[i], NULL};
    p->operand[OPERANDS - 1].minus = p->list[OPERANDS];
}

static void problem_free(struct problem *p) {
    for (int l = 0; l <= OPERANDS; l++)
        for (int s = 0; s < SEGMENTS; s++)
            free(p->list[l][s].ptr);
}

/* By gl_reduce (whose sums test_reduce.c compares with exact ones), on lists of one segment. */
static void one_by_one(const struct problem *p, uint32_t want, double (*sums)[GL_PAIRS_MAX]) {
    for (int s = 0; s < SEGMENTS; s++) {
        struct gl_operand one[OPERANDS];
        for (int i = 0; i < OPERANDS; i++)
            one[i] = (struct gl_operand){&p->operand[i].plus[s], p->operand[i].minus ? &p->operand[i].minus[s] : NULL};
        for (int k = 0; k < GL_PAIRS_MAX; k++)
            sums[s][k] = -7;
        CHECK(gl_reduce(one, OPERANDS, 1, want, sums[s]) == GL_OK, "segment %d", s);
    }
}

static void check_each(const struct problem *p, uint32_t want, const double (*expected)[GL_PAIRS_MAX],
                       const char *what) {
    double sums[SEGMENTS][GL_PAIRS_MAX];
    for (int s = 0; s < SEGMENTS; s++)
        for (int k = 0; k < GL_PAIRS_MAX; k++)
            sums[s][k] = -7;
    CHECK(gl_reduce_each(p->operand, OPERANDS, SEGMENTS, want, sums) == GL_OK, "a sound call");
    for (int s = 0; s < SEGMENTS; s++)
        for (int k = 0; k < GL_PAIRS_MAX; k++)
            CHECK(test_same(sums[s][k], want >> k & 1 ? expected[s][k] : -7), "%s, segment %d, pair %d: %a, alone %a",
                  what, s, k, sums[s][k], expected[s][k]);
}

static void test_each(void) {
    for (int repeat = 0; repeat < 20; repeat++)
        for (int dtype = -1; dtype < GL_DTYPE_COUNT; dtype++) {
            struct problem p;
            double expected[SEGMENTS][GL_PAIRS_MAX];
            problem_make(&p, (enum test_data)(repeat % TEST_DATA_COUNT), dtype);
            gl_level_select(GL_LEVEL_PORTABLE);
            one_by_one(&p, ALL, expected);
            for (int level = 0; level < GL_LEVEL_COUNT; level++) {
                if (gl_level_select((enum gl_level)level) != GL_OK)
                    continue;
                check_each(&p, ALL, (const double (*)[GL_PAIRS_MAX])expected, gl_level_name((enum gl_level)level));
                for (int k = 0; k < 6; k++)
                    check_each(&p, 1u << k, (const double (*)[GL_PAIRS_MAX])expected, "one pair");
            }
            check_each(&p, 0, (const double (*)[GL_PAIRS_MAX])expected, "nothing wanted");
            problem_free(&p);
        }
}

/* The caller's flushing, rounding and traps neither matter nor change. */
static void test_control_register(void) {
#if defined(__x86_64__)
    static const unsigned setting[] = {0x9fc0, 0x9f80, 0x3f80, 0x7f80, 0x0000};
    struct problem p;
    double expected[SEGMENTS][GL_PAIRS_MAX], sums[SEGMENTS][GL_PAIRS_MAX];
    problem_make(&p, TEST_DENORMAL, GL_F64);
    one_by_one(&p, ALL, expected);
    for (size_t i = 0; i < sizeof setting / sizeof *setting; i++) {
        _mm_setcsr(setting[i]);
        enum gl_status status = gl_reduce_each(p.operand, OPERANDS, SEGMENTS, ALL, sums);
        unsigned after = _mm_getcsr();
        _mm_setcsr(GL_FPENV_DEFAULT);
        CHECK(status == GL_OK && after == setting[i], "register %#x became %#x", setting[i], after);
        for (int s = 0; s < SEGMENTS; s++)
            for (int k = 0; k < 6; k++)
                CHECK(test_same(sums[s][k], expected[s][k]), "register %#x changes segment %d", setting[i], s);
    }
    problem_free(&p);
#else
    printf("control register: NOT RUN, not x86-64\n");
#endif
}

static void expect(const char *what, enum gl_status expected, const struct gl_operand *operand, int operands,
                   int64_t segments, uint32_t want) {
    double sums[2][GL_PAIRS_MAX];
    for (int k = 0; k < 2 * GL_PAIRS_MAX; k++)
        sums[k / GL_PAIRS_MAX][k % GL_PAIRS_MAX] = -7;
    enum gl_status status = gl_reduce_each(operand, operands, segments, want, sums);
    CHECK(status == expected, "%s: status %d, expected %d", what, (int)status, (int)expected);
    for (int s = 0; s < 2; s++)
        for (int k = 0; k < GL_PAIRS_MAX; k++)
            CHECK((sums[s][k] == -7) == (expected != GL_OK || s >= segments || !(want >> k & 1)), "%s: %d, %d", what, s,
                  k);
}

static void test_arguments_of_each(void) {
    float x[4] = {1, 2, 3, 4};
    struct gl_segment a[2] = {{x, 4, GL_F32}, {NULL, 0, GL_BF16}}, bad[2] = {{x, 4, GL_F32}, {x, 1, GL_F32}};
    struct gl_operand operand[2] = {{a, NULL}, {bad, NULL}}, minus = {a, bad}, none = {NULL, NULL};
    expect("sound", GL_OK, operand, 1, 2, 1);
    expect("the first segment alone", GL_OK, operand, 2, 1, 7);
    expect("nothing wanted", GL_OK, operand, 1, 2, 0);
    expect("no segments", GL_OK, operand, 1, 0, 1);
    expect("no lists of no segments", GL_OK, &none, 1, 0, 1);
    expect("no operands", GL_ERR_ARGUMENT, operand, 0, 2, 0);
    expect("five operands", GL_ERR_ARGUMENT, operand, 5, 2, 1);
    expect("NULL operand", GL_ERR_ARGUMENT, NULL, 1, 2, 1);
    expect("NULL list", GL_ERR_ARGUMENT, &none, 1, 1, 1);
    expect("negative segments", GL_ERR_ARGUMENT, operand, 1, -1, 1);
    expect("pair of a missing operand", GL_ERR_ARGUMENT, operand, 1, 2, 1u << GL_PAIR(0, 1));
    expect("a later segment is longer", GL_ERR_LENGTH, operand, 2, 2, 1);
    expect("a later minus is longer", GL_ERR_LENGTH, &minus, 1, 2, 1);
    bad[1] = (struct gl_segment){NULL, 1, GL_F32};
    expect("a later array is NULL", GL_ERR_ARGUMENT, operand, 2, 2, 1);
    bad[1] = (struct gl_segment){x, 0, GL_DTYPE_COUNT};
    expect("a later dtype is unknown", GL_ERR_DTYPE, operand, 2, 2, 1);
    CHECK(gl_reduce_each(operand, 1, 2, 1, NULL) == GL_ERR_ARGUMENT, "sums NULL");
    CHECK(gl_reduce_each(operand, 1, 0, 1, NULL) == GL_OK, "sums NULL of no segments");
}

/* ---------------------------------------------------------------- tensor by tensor */

static double cosine(const double *ab, const double *aa, const double *bb, int64_t n, int64_t counted) {
    double mean = -7;
    int64_t count = -7;
    CHECK(gl_mean_cosine(ab, aa, bb, n, &mean, &count) == GL_OK, "any numbers are allowed");
    CHECK(count == counted, "%ld counted, expected %ld", (long)count, (long)counted);
    return mean;
}

static double ratios(const double *dd, const double *xx, int64_t n, int64_t counted) {
    double sum = -7;
    int64_t count = -7;
    CHECK(gl_sum_of_ratios(dd, xx, n, &sum, &count) == GL_OK, "any numbers are allowed");
    CHECK(count == counted, "%ld counted, expected %ld", (long)count, (long)counted);
    return sum;
}

/* A squared length of any size, now and then exactly 0. */
static double squared_length(void) {
    return test_bits() % 8 == 0 ? 0 : ldexp(1.5 + test_uniform() / 4, (int)(test_bits() % 2000) - 1000);
}

static void test_accuracy(void) {
    for (int repeat = 0; repeat < 200; repeat++) {
        int64_t n = (int64_t)(test_bits() % (ENTRIES + 1)), counted = 0, of_ratios = 0;
        double ab[ENTRIES], aa[ENTRIES], bb[ENTRIES], dd[ENTRIES], xx[ENTRIES], magnitude = 0;
        long double mean = 0, sum = 0;
        for (int64_t i = 0; i < n; i++) {
            double one = test_uniform();
            aa[i] = squared_length();
            bb[i] = squared_length();
            ab[i] = one * sqrt(aa[i]) * sqrt(bb[i]);
            if (aa[i] != 0 && bb[i] != 0) {
                mean += (long double)ab[i] / (sqrtl(aa[i]) * sqrtl(bb[i]));
                magnitude += fabs(one);
                counted++;
            }
            dd[i] = ldexp(squared_length(), -(int)(test_bits() % 20));
            xx[i] = dd[i] == 0 ? squared_length() : ldexp(dd[i] * (1.5 + test_uniform() / 4), (int)(test_bits() % 30));
            if (dd[i] != 0 && xx[i] != 0) {
                sum += (long double)dd[i] / xx[i];
                of_ratios++;
            }
        }
        /* An entry takes 4 roundings or 1, and one for each addition that it goes through. */
        double limit = (double)(n + 5) * 0x1p-53, got = cosine(ab, aa, bb, n, counted);
        double expected = counted > 0 ? (double)(mean / counted) : 0, parts = counted > 0 ? magnitude / counted : 0;
        CHECK(fabs(got - expected) <= limit * parts, "cosine %a, expected %a", got, expected);
        got = ratios(dd, xx, n, of_ratios);
        CHECK(fabs(got - (double)sum) <= limit * (double)sum, "ratios %a, expected %La", got, sum);
    }
}

static void test_corners(void) {
    const double plain[] = {3, 3}, four[] = {4, 4}, nine[] = {9, 9}, zero[] = {0, -0.0};
    CHECK(cosine(NULL, NULL, NULL, 0, 0) == 0 && ratios(NULL, NULL, 0, 0) == 0, "nothing");
    CHECK(cosine(plain, four, nine, 2, 2) == 0.5 && ratios(plain, four, 2, 2) == 1.5, "3/(2*3) and 2*3/4");
    CHECK(cosine(zero, zero, nine, 2, 0) == 0 && cosine(zero, nine, zero, 2, 0) == 0, "vectors of zeros");
    CHECK(ratios(zero, nine, 2, 0) == 0 && ratios(nine, zero, 2, 0) == 0, "lengths of zero");
    CHECK(cosine(zero, four, nine, 2, 2) == 0, "at right angles");
    const double huge[] = {0x1p1022, 0x1p1022}, tiny[] = {0x1p-1074, 0x1p-1074};
    CHECK(cosine(huge, huge, huge, 2, 2) == 1, "the product of the squares would overflow");
    CHECK(cosine(tiny, tiny, tiny, 2, 2) == 1, "and here it would be 0");
    CHECK(ratios(tiny, tiny, 2, 2) == 2, "denormal lengths");
    CHECK(ratios(huge, tiny, 2, 2) == INFINITY, "overflow is infinity");
    static const double bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        const double hit[] = {1, bad[i]}, one[] = {1, 1}, half_zero[] = {1, 0};
        CHECK(!isfinite(cosine(hit, one, one, 2, 2)), "%g in ab shows", bad[i]);
        CHECK(!isfinite(ratios(hit, one, 2, 2)), "%g in dd shows", bad[i]);
        CHECK(cosine(hit, half_zero, one, 2, 1) == 1 && ratios(hit, half_zero, 2, 1) == 1, "not without a length");
        /* of a vector that is not finite every product is so, or NaN */
        CHECK(isnan(cosine(hit, hit, one, 2, 2)) && isnan(cosine(hit, one, hit, 2, 2)), "%g in one vector", bad[i]);
    }
}

#if defined(__x86_64__)
static void test_flushing(void) {
    static const unsigned setting[] = {0x9fc0, 0x3f80, 0x5f80, 0x7f80};
    const double ab[] = {0x1p-1060, 0.3}, aa[] = {0x1p-1058, 0.7}, bb[] = {0x1p-1059, 1.1};
    double mean = 0, sum = 0, plain_mean = cosine(ab, aa, bb, 2, 2), plain_sum = ratios(aa, bb, 2, 2);
    for (size_t i = 0; i < sizeof setting / sizeof *setting; i++) {
        int64_t counted = 0, of_ratios = 0;
        _mm_setcsr(setting[i]);
        gl_mean_cosine(ab, aa, bb, 2, &mean, &counted);
        gl_sum_of_ratios(aa, bb, 2, &sum, &of_ratios);
        unsigned after = _mm_getcsr() & ~0x3fu;
        _mm_setcsr(GL_FPENV_DEFAULT);
        CHECK(after == (setting[i] & ~0x3fu), "register %#x became %#x", setting[i], after);
        CHECK(counted == 2 && test_same(mean, plain_mean), "register %#x: %ld counted, mean %a from %a", setting[i],
              (long)counted, mean, plain_mean);
        CHECK(of_ratios == 2 && test_same(sum, plain_sum), "register %#x: %ld counted, sum %a from %a", setting[i],
              (long)of_ratios, sum, plain_sum);
    }
}
#endif

static void test_arguments(void) {
    const double x[1] = {1};
    double out = -7;
    int64_t counted = -7;
    CHECK(gl_mean_cosine(x, x, x, -1, &out, &counted) == GL_ERR_ARGUMENT, "a negative number");
    CHECK(gl_mean_cosine(NULL, x, x, 1, &out, &counted) == GL_ERR_ARGUMENT, "ab NULL");
    CHECK(gl_mean_cosine(x, NULL, x, 1, &out, &counted) == GL_ERR_ARGUMENT, "aa NULL");
    CHECK(gl_mean_cosine(x, x, NULL, 1, &out, &counted) == GL_ERR_ARGUMENT, "bb NULL");
    CHECK(gl_mean_cosine(x, x, x, 1, NULL, &counted) == GL_ERR_ARGUMENT, "mean NULL");
    CHECK(gl_mean_cosine(x, x, x, 1, &out, NULL) == GL_ERR_ARGUMENT, "counted NULL");
    CHECK(gl_sum_of_ratios(x, x, -1, &out, &counted) == GL_ERR_ARGUMENT, "a negative number");
    CHECK(gl_sum_of_ratios(NULL, x, 1, &out, &counted) == GL_ERR_ARGUMENT, "dd NULL");
    CHECK(gl_sum_of_ratios(x, NULL, 1, &out, &counted) == GL_ERR_ARGUMENT, "xx NULL");
    CHECK(gl_sum_of_ratios(x, x, 1, NULL, &counted) == GL_ERR_ARGUMENT, "sum NULL");
    CHECK(gl_sum_of_ratios(x, x, 1, &out, NULL) == GL_ERR_ARGUMENT, "counted NULL");
    CHECK(out == -7 && counted == -7, "results are untouched on failure");
}

int main(void) {
    test_each();
    test_control_register();
    test_arguments_of_each();
    test_accuracy();
    test_corners();
#if defined(__x86_64__)
    test_flushing();
#else
    printf("flushing: NOT RUN, not x86-64\n");
#endif
    test_arguments();
    return test_finish("test_tensorwise");
}
