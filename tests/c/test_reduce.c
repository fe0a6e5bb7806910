/* test_reduce.c - gl_reduce: bits equal at every level and equal to a slow twin, error within the bound stated in
 * gl_reduce.c, nothing read outside the arrays, arguments checked.
 */
#define _DEFAULT_SOURCE
#include "gl_test.h"
#include "gl_fpenv.h" /* GL_FPENV_DEFAULT */

#define SEGMENTS_MAX 8
#define LISTS        (2 * GL_OPERANDS_MAX)
#define ALL_PAIRS    0x3ffu

static const int64_t sizes[] = {0,
                                1,
                                2,
                                7,
                                8,
                                15,
                                16,
                                17,
                                31,
                                32,
                                33,
                                63,
                                64,
                                65,
                                255,
                                256,
                                257,
                                511,
                                512,
                                513,
                                527,
                                528,
                                529,
                                544,
                                1023,
                                1024,
                                1025,
                                3077,
                                3 * 1024 + 512};
#define SIZES ((int)(sizeof sizes / sizeof *sizes))

/* ---------------------------------------------------------------- a problem: four operands over a few segments */

struct problem {
    struct gl_segment list[LISTS][SEGMENTS_MAX]; /* plus of operand i at 2*i, its minus at 2*i + 1 */
    void *memory[LISTS][SEGMENTS_MAX];
    struct gl_operand operand[GL_OPERANDS_MAX];
    int64_t segments;
};

/* dtype < 0 picks one at random for every segment; offset is in elements from an aligned address. */
static void problem_make(struct problem *p, enum test_data data, int dtype, int differences, const int64_t *length,
                         int64_t segments, int offset) {
    memset(p, 0, sizeof *p);
    p->segments = segments;
    for (int l = 0; l < LISTS; l++)
        for (int64_t s = 0; s < segments; s++) {
            enum gl_dtype d = (enum gl_dtype)(dtype < 0 ? (int)(test_bits() % GL_DTYPE_COUNT) : dtype);
            int64_t size = gl_dtype_size(d);
            p->memory[l][s] = test_alloc((size_t)((length[s] + offset) * size));
            void *ptr = (char *)p->memory[l][s] + offset * size;
            test_fill(data, d, ptr, length[s]);
            p->list[l][s] = (struct gl_segment){ptr, length[s], d};
        }
    for (int i = 0; i < GL_OPERANDS_MAX; i++) {
        p->operand[i].plus = p->list[2 * i];
        p->operand[i].minus = differences >> i & 1 ? p->list[2 * i + 1] : NULL;
    }
}

static void problem_free(struct problem *p) {
    for (int l = 0; l < LISTS; l++)
        for (int64_t s = 0; s < p->segments; s++)
            free(p->memory[l][s]);
}

static double problem_plus(const struct problem *p, int i, int64_t s, int64_t at) {
    const struct gl_segment *segment = &p->operand[i].plus[s];
    return test_load(segment->dtype, segment->ptr, at);
}

static double problem_minus(const struct problem *p, int i, int64_t s, int64_t at) {
    const struct gl_segment *segment = p->operand[i].minus ? &p->operand[i].minus[s] : NULL;
    return segment ? test_load(segment->dtype, segment->ptr, at) : 0;
}

/* ---------------------------------------------------------------- the slow twin: the order of gl_reduce, restated */

static void two_sum(double *sum, double *rest, double term) {
    double next = *sum + term, part = next - *sum;
    *rest += (*sum - (next - part)) + (term - part);
    *sum = next;
}

static double twin_difference(const struct problem *p, int i, int64_t s, int64_t at) {
    double plus = problem_plus(p, i, s, at);
    return p->operand[i].minus ? plus - problem_minus(p, i, s, at) : plus;
}

static double twin(const struct problem *p, int i, int j) {
    double sum = 0, rest = 0;
    for (int64_t s = 0; s < p->segments; s++) {
        int64_t n = p->list[0][s].n;
        for (int64_t start = 0; start < n; start += 512) {
            double lane[16] = {0};
            for (int64_t at = start; at < n && at < start + 512; at++)
                lane[(at - start) % 16] += twin_difference(p, i, s, at) * twin_difference(p, j, s, at);
            for (int half = 8; half > 0; half /= 2)
                for (int l = 0; l < half; l++)
                    lane[l] += lane[l + half];
            two_sum(&sum, &rest, lane[0]);
        }
    }
    return isfinite(rest) ? sum + rest : sum;
}

static void reduce_all(const struct problem *p, double *sums) {
    for (int k = 0; k < GL_PAIRS_MAX; k++)
        sums[k] = -7;
    CHECK(gl_reduce(p->operand, GL_OPERANDS_MAX, p->segments, ALL_PAIRS, sums) == GL_OK, "a sound call");
}

static void check_against_twin(const struct problem *p, const char *what, int64_t n) {
    double expected[GL_PAIRS_MAX];
    for (int j = 0; j < GL_OPERANDS_MAX; j++)
        for (int i = 0; i <= j; i++)
            expected[GL_PAIR(i, j)] = twin(p, i, j);
    for (int level = 0; level < GL_LEVEL_COUNT; level++) {
        if (gl_level_select((enum gl_level)level) != GL_OK)
            continue;
        double sums[GL_PAIRS_MAX];
        reduce_all(p, sums);
        for (int k = 0; k < GL_PAIRS_MAX; k++)
            CHECK(test_same(sums[k], expected[k]), "%s, n %ld, level %s, pair %d: %a, twin %a", what, (long)n,
                  gl_level_name((enum gl_level)level), k, sums[k], expected[k]);
        for (int k = 0; k < GL_PAIRS_MAX; k++) {
            CHECK(gl_reduce(p->operand, GL_OPERANDS_MAX, p->segments, 1u << k, sums) == GL_OK, "one pair");
            CHECK(test_same(sums[k], expected[k]), "%s, n %ld, level %s, pair %d alone: %a, twin %a", what, (long)n,
                  gl_level_name((enum gl_level)level), k, sums[k], expected[k]);
        }
    }
}

static void test_twin_grid(void) {
    for (int size = 0; size < SIZES; size++)
        for (int dtype = -1; dtype < GL_DTYPE_COUNT; dtype++)
            for (int data = 0; data < TEST_DATA_COUNT; data++) {
                struct problem p;
                int differences = (int)(test_bits() % 16), offset = (int)(test_bits() % 16);
                problem_make(&p, (enum test_data)data, dtype, differences, &sizes[size], 1, offset);
                check_against_twin(&p, dtype < 0 ? "mixed" : test_dtype_name[dtype], sizes[size]);
                problem_free(&p);
            }
}

static void test_lists(void) {
    for (int repeat = 0; repeat < 60; repeat++) {
        int64_t length[SEGMENTS_MAX], segments = (int64_t)(test_bits() % (SEGMENTS_MAX + 1));
        for (int s = 0; s < SEGMENTS_MAX; s++)
            length[s] = sizes[test_bits() % SIZES];
        struct problem p;
        problem_make(&p, (enum test_data)(repeat % TEST_DATA_COUNT), -1, repeat % 16, length, segments, repeat % 5);
        check_against_twin(&p, "list", segments);
        problem_free(&p);
    }
}

/* Every element offset, and addresses that are not even multiples of the element. */
static void test_alignment(void) {
    for (int dtype = 0; dtype < GL_DTYPE_COUNT; dtype++) {
        enum gl_dtype d = (enum gl_dtype)dtype;
        int64_t n = 1100, bytes = n * gl_dtype_size(d);
        void *source = test_alloc((size_t)bytes);
        char *moved = test_alloc((size_t)bytes + 80);
        test_fill(TEST_WIDE, d, source, n);
        for (int level = 0; level < GL_LEVEL_COUNT; level++) {
            if (gl_level_select((enum gl_level)level) != GL_OK)
                continue;
            struct gl_segment segment = {source, n, d};
            struct gl_operand operand = {&segment, NULL};
            double expected[GL_PAIRS_MAX], sums[GL_PAIRS_MAX];
            gl_reduce(&operand, 1, 1, 1, expected);
            for (int shift = 0; shift < 80; shift++) {
                memcpy(moved + shift, source, (size_t)bytes);
                segment.ptr = moved + shift;
                gl_reduce(&operand, 1, 1, 1, sums);
                CHECK(test_same(sums[0], expected[0]), "%s shifted by %d bytes", test_dtype_name[d], shift);
            }
        }
        free(moved);
        free(source);
    }
}

/* ---------------------------------------------------------------- exact sums (growing expansions) */

/* A sum of doubles without error: parts of increasing size that do not overlap. */
struct exact {
    double part[64];
    int parts;
};

static void exact_add(struct exact *e, double term) {
    int kept = 0;
    for (int k = 0; k < e->parts; k++) {
        double part = e->part[k], sum = term + part, piece = sum - term;
        double rest = (term - (sum - piece)) + (part - piece);
        if (rest != 0)
            e->part[kept++] = rest;
        term = sum;
    }
    e->part[kept++] = term;
    e->parts = kept;
}

static void exact_add_product(struct exact *e, double a, double b) {
    double product = a * b;
    exact_add(e, product);
    exact_add(e, fma(a, b, -product));
}

static double exact_value(const struct exact *e) {
    double value = 0;
    for (int k = 0; k < e->parts; k++)
        value += e->part[k];
    return value;
}

/* The bound of gl_reduce.c: |computed - exact| <= u |exact| + (40 u + N u^2) sum |a_i a_j|. */
static double bound(double exact, double magnitude, double blocks) {
    double u = 0x1p-53;
    return u * fabs(exact) + (40 * u + blocks * u * u) * magnitude;
}

static void check_accuracy(const struct problem *p, double *worst) {
    double sums[GL_PAIRS_MAX];
    reduce_all(p, sums);
    for (int j = 0; j < GL_OPERANDS_MAX; j++)
        for (int i = 0; i <= j; i++) {
            struct exact error = {{0}, 0};
            double magnitude = 0, computed = sums[GL_PAIR(i, j)], blocks = 0;
            for (int64_t s = 0; s < p->segments; s++) {
                blocks += (double)(p->list[0][s].n / 512 + 1);
                for (int64_t at = 0; at < p->list[0][s].n; at++) {
                    double ip = problem_plus(p, i, s, at), im = problem_minus(p, i, s, at);
                    double jp = problem_plus(p, j, s, at), jm = problem_minus(p, j, s, at);
                    exact_add_product(&error, ip, jp);
                    exact_add_product(&error, -im, jp);
                    exact_add_product(&error, ip, -jm);
                    exact_add_product(&error, im, jm);
                    magnitude += fabs((ip - im) * (jp - jm));
                }
            }
            double exact = exact_value(&error);
            exact_add(&error, -computed);
            double limit = bound(exact, magnitude, blocks), off = fabs(exact_value(&error));
            CHECK(off <= limit, "pair %d,%d off by %g, bound %g", i, j, off, limit);
            if (magnitude > 0 && off / magnitude > *worst)
                *worst = off / magnitude;
        }
}

static void test_accuracy(void) {
    double worst = 0;
    gl_level_select(gl_level_best());
    for (int repeat = 0; repeat < 40; repeat++)
        for (int dtype = -1; dtype < GL_DTYPE_COUNT; dtype++) {
            int64_t length[3] = {0, 20, 0};
            length[0] = sizes[test_bits() % SIZES];
            length[2] = sizes[test_bits() % SIZES];
            struct problem p;
            problem_make(&p, repeat % 2 ? TEST_PLAIN : TEST_WIDE, dtype, repeat % 16, length, 3, 0);
            check_accuracy(&p, &worst);
            problem_free(&p);
        }
    printf("accuracy: largest error %.2f u times the sum of magnitudes, bound 41 u\n", worst / 0x1p-53);
}

/* Terms of one sign, where plain accumulation would drift with n: 0.1 added four million times. */
static void test_accuracy_long(void) {
    int64_t n = (int64_t)1 << 22;
    double *ones = test_alloc((size_t)n * sizeof *ones), sums[GL_PAIRS_MAX];
    for (int64_t i = 0; i < n; i++)
        ones[i] = sqrt(0.1);
    struct gl_segment segment = {ones, n, GL_F64};
    struct gl_operand operand = {&segment, NULL};
    gl_reduce(&operand, 1, 1, 1, sums);
    double root = sqrt(0.1), square = root * root;
    double exact = ldexp(square, 22), rest = ldexp(fma(root, root, -square), 22);
    double off = fabs((sums[0] - exact) - rest), limit = bound(exact, exact, (double)n / 512);
    CHECK(off <= limit, "off by %g, bound %g", off, limit);
    free(ones);
}

/* Splitting a list changes the order of additions, and so the result only within the bound. */
static void test_splits(void) {
    for (int repeat = 0; repeat < 50; repeat++) {
        enum gl_dtype d = (enum gl_dtype)(repeat % GL_DTYPE_COUNT);
        int64_t n = 5000, cut = (int64_t)(test_bits() % 5001);
        char *x = test_alloc((size_t)n * 8);
        test_fill(TEST_PLAIN, d, x, n);
        struct gl_segment whole = {x, n, d};
        struct gl_segment halves[] = {{x, cut, d}, {x + cut * gl_dtype_size(d), n - cut, d}};
        struct gl_operand operand = {&whole, NULL}, split = {halves, NULL};
        double one[GL_PAIRS_MAX], two[GL_PAIRS_MAX];
        gl_reduce(&operand, 1, 1, 1, one);
        gl_reduce(&split, 1, 2, 1, two);
        CHECK(fabs(one[0] - two[0]) <= 2 * bound(one[0], one[0], 12), "cut at %ld", (long)cut);
        free(x);
    }
}

/* ---------------------------------------------------------------- numbers that are not ordinary */

static double square_sum(double *x, int64_t n) {
    struct gl_segment segment = {x, n, GL_F64};
    struct gl_operand operand = {&segment, NULL};
    double sums[GL_PAIRS_MAX] = {0};
    CHECK(gl_reduce(&operand, 1, 1, 1, sums) == GL_OK, "any numbers are allowed");
    return sums[0];
}

static void test_corners(void) {
    for (int level = 0; level < GL_LEVEL_COUNT; level++) {
        if (!test_level((enum gl_level)level))
            continue;
        double x[1500];
        for (int at = 0; at < 1500; at += 149) {
            for (int i = 0; i < 1500; i++)
                x[i] = 1;
            x[at] = -INFINITY;
            CHECK(square_sum(x, 1500) == INFINITY, "infinity at %d shows", at);
            x[(at + 700) % 1500] = NAN;
            CHECK(isnan(square_sum(x, 1500)), "NaN shows");
            x[at] = 1e200;
            x[(at + 700) % 1500] = 1;
            CHECK(square_sum(x, 1500) == INFINITY, "overflow is infinity, not NaN");
            x[at] = 0x1p511;
            CHECK(square_sum(x, 1500) == 0x1p1022, "large but finite");
        }
        for (int i = 0; i < 1500; i++)
            x[i] = 0x1p-537;
        CHECK(square_sum(x, 1500) == 1500 * 0x1p-1074, "denormal products are kept");
        for (int i = 0; i < 1500; i++)
            x[i] = -0.0;
        CHECK(square_sum(x, 1500) == 0, "zeros");
    }
}

/* One control register after another: the caller's flushing, rounding and traps must not matter nor change. */
static void test_control_register(void) {
#if defined(__x86_64__)
    static const unsigned setting[] = {0x9fc0, 0x1fc0, 0x9f80, 0x3f80, 0x5f80, 0x7f80, 0x0000, 0x8040};
    for (int data = 0; data < TEST_DATA_COUNT; data++)
        for (int dtype = -1; dtype < GL_DTYPE_COUNT; dtype++) {
            struct problem p;
            int64_t length[2] = {1025, 33};
            problem_make(&p, (enum test_data)data, dtype, 10, length, 2, 1);
            for (int level = 0; level < GL_LEVEL_COUNT; level++) {
                if (gl_level_select((enum gl_level)level) != GL_OK)
                    continue;
                double plain[GL_PAIRS_MAX], sums[GL_PAIRS_MAX];
                reduce_all(&p, plain);
                for (size_t i = 0; i < sizeof setting / sizeof *setting; i++) {
                    _mm_setcsr(setting[i]);
                    enum gl_status status = gl_reduce(p.operand, GL_OPERANDS_MAX, p.segments, ALL_PAIRS, sums);
                    unsigned after = _mm_getcsr();
                    _mm_setcsr(GL_FPENV_DEFAULT);
                    CHECK(status == GL_OK && after == setting[i], "register %#x became %#x", setting[i], after);
                    for (int k = 0; k < GL_PAIRS_MAX; k++)
                        CHECK(test_same(sums[k], plain[k]), "register %#x changes pair %d: %a from %a", setting[i], k,
                              sums[k], plain[k]);
                }
            }
            problem_free(&p);
        }
#else
    printf("control register: NOT RUN, not x86-64\n");
#endif
}

/* ---------------------------------------------------------------- memory */

/* Arrays that end, or begin, at an unmapped page. */
static void test_guard_pages(void) {
    for (int level = 0; level < GL_LEVEL_COUNT; level++) {
        if (gl_level_select((enum gl_level)level) != GL_OK)
            continue;
        for (int dtype = 0; dtype < GL_DTYPE_COUNT; dtype++)
            for (int size = 0; size < SIZES; size++) {
                enum gl_dtype d = (enum gl_dtype)dtype;
                int64_t n = sizes[size], bytes = n * gl_dtype_size(d);
                struct test_guarded above = test_guard((size_t)bytes), below = test_guard((size_t)bytes);
                struct gl_segment last = {(char *)above.end - bytes, n, d}, first = {below.start, n, d};
                test_fill(TEST_PLAIN, d, first.ptr, n);
                memcpy(last.ptr, first.ptr, (size_t)bytes);
                struct gl_operand operand[3] = {{&last, NULL}, {&first, &last}, {&first, NULL}};
                double sums[GL_PAIRS_MAX];
                CHECK(gl_reduce(operand, 3, 1, 0x3f, sums) == GL_OK, "n %ld", (long)n);
                CHECK(sums[GL_PAIR(0, 0)] == sums[GL_PAIR(2, 2)], "the place does not matter");
                CHECK(sums[GL_PAIR(1, 1)] == 0, "the same numbers in both places");
                test_unguard(below);
                test_unguard(above);
            }
    }
}

/* ---------------------------------------------------------------- arguments */

static void expect(const char *what, enum gl_status expected, const struct gl_operand *operand, int operands,
                   int64_t segments, uint32_t want) {
    double sums[GL_PAIRS_MAX];
    for (int k = 0; k < GL_PAIRS_MAX; k++)
        sums[k] = -7;
    enum gl_status status = gl_reduce(operand, operands, segments, want, sums);
    CHECK(status == expected, "%s: status %d, expected %d", what, (int)status, (int)expected);
    for (int k = 0; k < GL_PAIRS_MAX; k++)
        CHECK((sums[k] == -7) == (expected != GL_OK || !(want >> k & 1)), "%s: entry %d", what, k);
}

static void test_arguments(void) {
    float x[4] = {1, 2, 3, 4};
    struct gl_segment a[2] = {{x, 4, GL_F32}, {NULL, 0, GL_BF16}}, bad[2] = {{x, 4, GL_F32}, {x, 0, GL_F32}};
    struct gl_operand operand[4] = {{a, NULL}, {a, bad}, {a, NULL}, {bad, NULL}};
    expect("sound", GL_OK, operand, 4, 2, 0x3ff);
    expect("nothing wanted", GL_OK, operand, 4, 2, 0);
    expect("no segments", GL_OK, operand, 4, 0, 0x3ff);
    expect("one pair", GL_OK, operand, 4, 2, 1u << GL_PAIR(1, 3));
    expect("no operands", GL_ERR_ARGUMENT, operand, 0, 2, 0);
    expect("negative operands", GL_ERR_ARGUMENT, operand, -1, 2, 0);
    expect("five operands", GL_ERR_ARGUMENT, operand, 5, 2, 1);
    expect("NULL operand", GL_ERR_ARGUMENT, NULL, 1, 2, 1);
    expect("negative segments", GL_ERR_ARGUMENT, operand, 1, -1, 1);
    expect("pair of a missing operand", GL_ERR_ARGUMENT, operand, 1, 2, 1u << GL_PAIR(0, 1));
    expect("bit 10", GL_ERR_ARGUMENT, operand, 4, 2, 1u << 10);
    expect("bit 31", GL_ERR_ARGUMENT, operand, 4, 2, 1u << 31);
    CHECK(gl_reduce(operand, 4, 2, 1, NULL) == GL_ERR_ARGUMENT, "sums NULL");

    struct gl_operand none = {NULL, NULL};
    expect("NULL list", GL_ERR_ARGUMENT, &none, 1, 1, 1);
    expect("NULL list of no segments", GL_OK, &none, 1, 0, 1);

    bad[1] = (struct gl_segment){NULL, 1, GL_F32};
    expect("NULL array in an operand not wanted", GL_ERR_ARGUMENT, operand, 4, 2, 1);
    bad[1] = (struct gl_segment){x, -1, GL_F32};
    expect("negative length", GL_ERR_ARGUMENT, operand, 2, 2, 1);
    bad[1] = (struct gl_segment){x, INT64_MAX, GL_F32};
    expect("length beyond memory", GL_ERR_ARGUMENT, operand, 2, 2, 1);
    bad[1] = (struct gl_segment){x, 0, GL_DTYPE_COUNT};
    expect("unknown dtype", GL_ERR_DTYPE, operand, 2, 2, 1);
    bad[1] = (struct gl_segment){x, 0, (enum gl_dtype) - 1};
    expect("negative dtype", GL_ERR_DTYPE, operand, 2, 2, 1);
    bad[1] = (struct gl_segment){x, 1, GL_F32};
    expect("longer minus", GL_ERR_LENGTH, operand, 2, 2, 1);
    expect("sound again without it", GL_OK, operand, 1, 2, 1);
    struct gl_operand longer[2] = {{a, NULL}, {bad, NULL}};
    expect("longer operand", GL_ERR_LENGTH, longer, 2, 2, 1);
}

int main(void) {
    test_twin_grid();
    test_lists();
    test_alignment();
    test_accuracy();
    test_accuracy_long();
    test_splits();
    test_corners();
    test_control_register();
    test_guard_pages();
    test_arguments();
    return test_finish("test_reduce");
}
