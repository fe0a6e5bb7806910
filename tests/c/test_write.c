/* test_write.c - gl_copy, gl_displace, gl_perturb and the conversions under them: every 16-bit pattern loaded, rounding
 * compared with a bisection among all patterns, all dtype combinations at every level, aliasing, guard pages.
 */
#define _DEFAULT_SOURCE
#include "gl_test.h"
#include "gl_fpenv.h" /* GL_FPENV_DEFAULT */

#define PATTERNS 65536

static const int64_t sizes[] = {0,  1,  2,  3,  7,   8,   9,   15,   16,   17,   31,  32,
                                33, 63, 64, 65, 511, 512, 513, 1023, 1024, 1025, 3077};
#define SIZES ((int)(sizeof sizes / sizeof *sizes))

static void copy(void *dst, enum gl_dtype to, void *src, enum gl_dtype from, int64_t n) {
    struct gl_segment d = {dst, n, to}, s = {src, n, from};
    CHECK(gl_copy(&d, &s, 1) == GL_OK, "a sound copy");
}

/* ---------------------------------------------------------------- conversions */

/* All 65536 patterns become the value that the format defines, and become themselves again. */
static void test_patterns(enum gl_dtype dtype) {
    static uint16_t code[PATTERNS], again[PATTERNS];
    static double value[PATTERNS];
    for (int i = 0; i < PATTERNS; i++)
        code[i] = (uint16_t)i;
    copy(value, GL_F64, code, dtype, PATTERNS);
    copy(again, dtype, value, GL_F64, PATTERNS);
    for (int i = 0; i < PATTERNS; i++) {
        double expected = test_narrow_value(dtype, (unsigned)i);
        CHECK(test_same(value[i], expected), "%s %#x loads as %a", test_dtype_name[dtype], i, value[i]);
        CHECK(expected == expected ? again[i] == code[i] : isnan(test_narrow_value(dtype, again[i])),
              "%s %#x comes back as %#x", test_dtype_name[dtype], i, again[i]);
    }
}

static void check_stores(enum gl_dtype dtype, double *value, int64_t n) {
    uint16_t *code = test_alloc((size_t)n * sizeof *code);
    copy(code, dtype, value, GL_F64, n);
    for (int64_t i = 0; i < n; i++)
        if (isnan(value[i]))
            CHECK(isnan(test_narrow_value(dtype, code[i])), "NaN stored as %#x", code[i]);
        else
            CHECK(code[i] == test_narrow_code(dtype, value[i]), "%s of %a is %#x, expected %#x", test_dtype_name[dtype],
                  value[i], code[i], test_narrow_code(dtype, value[i]));
    free(code);
}

/* The midpoint above every pattern and the doubles next to it: the places where rounding twice goes wrong. */
static void test_midpoints(enum gl_dtype dtype) {
    unsigned infinity = dtype == GL_F16 ? 0x7c00 : 0x7f80;
    double *value = test_alloc(6 * (size_t)infinity * sizeof *value), beyond = dtype == GL_F16 ? 0x1p16 : 0x1p128;
    for (unsigned low = 0; low < infinity; low++) {
        double above = low + 1 == infinity ? beyond : test_narrow_value(dtype, low + 1);
        double midpoint = (test_narrow_value(dtype, low) + above) / 2;
        double *at = value + 6 * low;
        at[0] = midpoint;
        at[1] = -midpoint;
        at[2] = nextafter(midpoint, INFINITY);
        at[3] = nextafter(midpoint, 0);
        at[4] = midpoint * (1 + 0x1p-30);
        at[5] = -midpoint * (1 - 0x1p-30);
    }
    check_stores(dtype, value, 6 * (int64_t)infinity);
    free(value);
}

static void test_stores(enum gl_dtype dtype) {
    static const double corner[] = {0.0,
                                    -0.0,
                                    INFINITY,
                                    -INFINITY,
                                    NAN,
                                    65504,
                                    65519.999,
                                    65520,
                                    -65520,
                                    65536,
                                    1e300,
                                    -1e300,
                                    0x1p-1074,
                                    -0x1p-1074,
                                    0x1p-25,
                                    0x1.0000000000001p-25,
                                    0x1p-24,
                                    0x1p-14,
                                    0x1.ffcp-15,
                                    0x1.ffep-15,
                                    0x1p-134,
                                    0x1p-133,
                                    0x1p-126,
                                    0x1.fep127,
                                    0x1.ffp127,
                                    0x1.fefffffffffffp127,
                                    0x1p128,
                                    0x1p129,
                                    0x1.fffffffffffffp1023};
    enum { CORNERS = sizeof corner / sizeof *corner, RANDOM = 200000 };
    double *value = test_alloc((CORNERS + RANDOM) * sizeof *value);
    memcpy(value, corner, sizeof corner);
    for (int i = 0; i < RANDOM; i++) {
        uint64_t bits = test_bits();
        if (i % 3 == 0)
            memcpy(&value[CORNERS + i], &bits, sizeof bits);
        else if (i % 3 == 1)
            value[CORNERS + i] = ldexp(test_uniform(), (int)(bits % 44) - 27);
        else
            value[CORNERS + i] = ldexp(test_uniform(), (int)(bits % 270) - 136);
    }
    check_stores(dtype, value, CORNERS + RANDOM);
    free(value);
}

static void test_conversions(void) {
    for (int level = 0; level < GL_LEVEL_COUNT; level++) {
        if (!test_level((enum gl_level)level))
            continue;
        for (int dtype = GL_F16; dtype <= GL_BF16; dtype++) {
            test_patterns((enum gl_dtype)dtype);
            test_midpoints((enum gl_dtype)dtype);
            test_stores((enum gl_dtype)dtype);
        }
    }
}

/* Equal dtypes copy the bits, payloads of NaN included. */
static void test_bit_copy(void) {
    for (int dtype = 0; dtype < GL_DTYPE_COUNT; dtype++)
        for (int size = 0; size < SIZES; size++) {
            size_t bytes = (size_t)(sizes[size] * gl_dtype_size((enum gl_dtype)dtype));
            unsigned char *src = test_alloc(bytes), *dst = test_alloc(bytes);
            for (size_t i = 0; i < bytes; i++)
                src[i] = (unsigned char)test_bits() | (i % 5 == 0 ? 0xff : 0);
            copy(dst, (enum gl_dtype)dtype, src, (enum gl_dtype)dtype, sizes[size]);
            CHECK(memcmp(dst, src, bytes) == 0, "%s, n %ld", test_dtype_name[dtype], (long)sizes[size]);
            copy(dst, (enum gl_dtype)dtype, dst, (enum gl_dtype)dtype, sizes[size]);
            CHECK(memcmp(dst, src, bytes) == 0, "a copy onto itself");
            free(dst);
            free(src);
        }
}

/* ---------------------------------------------------------------- the three writers */

enum writer { COPY, DISPLACE, PERTURB, WRITERS };
static const char *const writer_name[] = {"copy", "displace", "perturb"};

static enum gl_status write_with(enum writer writer, const struct gl_segment *dst, const struct gl_segment *first,
                                 double factor, const struct gl_segment *second, int64_t segments) {
    switch (writer) {
    case COPY:
        return gl_copy(dst, first, segments);
    case DISPLACE:
        return gl_displace(dst, first, factor, second, segments);
    default:
        return gl_perturb(dst, first, factor, second, segments);
    }
}

static double expected_value(enum writer writer, enum gl_dtype dtype, double first, double factor, double second) {
    switch (writer) {
    case COPY:
        return test_rounded(dtype, first);
    case DISPLACE:
        return test_rounded(dtype, factor * first - second);
    default:
        return test_rounded(dtype, first + factor * second);
    }
}

static void check_write(enum writer writer, enum gl_dtype to, enum gl_dtype from, enum gl_dtype other,
                        enum test_data data, int64_t n, int shift) {
    double factor = test_bits() % 4 == 0 ? 1 : test_uniform();
    char *first = test_alloc((size_t)n * 8 + 16), *second = test_alloc((size_t)n * 8 + 16);
    char *dst = test_alloc((size_t)n * 8 + 16);
    struct gl_segment f = {first + shift, n, from}, s = {second + shift / 2, n, other}, d = {dst + shift, n, to};
    test_fill(data, from, f.ptr, n);
    test_fill(data, other, s.ptr, n);
    memset(dst, 0x5a, (size_t)n * 8 + 16);
    CHECK(write_with(writer, &d, &f, factor, &s, 1) == GL_OK, "a sound call");
    for (int64_t i = 0; i < n; i++) {
        double expected = expected_value(writer, to, test_load(from, f.ptr, i), factor, test_load(other, s.ptr, i));
        CHECK(test_same(test_load(to, d.ptr, i), expected), "%s to %s from %s and %s, n %ld, at %ld: %a, expected %a",
              writer_name[writer], test_dtype_name[to], test_dtype_name[from], test_dtype_name[other], (long)n, (long)i,
              test_load(to, d.ptr, i), expected);
    }
    for (int64_t i = 0; i < shift; i++)
        CHECK(dst[i] == 0x5a, "nothing is written before the array");
    for (int64_t i = shift + n * gl_dtype_size(to); i < n * 8 + 16; i++)
        CHECK(dst[i] == 0x5a, "nothing is written behind the array");
    free(dst);
    free(second);
    free(first);
}

static void test_writers(void) {
    for (int level = 0; level < GL_LEVEL_COUNT; level++) {
        if (gl_level_select((enum gl_level)level) != GL_OK)
            continue;
        for (int combination = 0; combination < 64 * WRITERS; combination++)
            for (int data = 0; data < TEST_DATA_COUNT; data++) {
                int64_t n = sizes[test_bits() % SIZES];
                int shift = (int)(test_bits() % 16);
                check_write((enum writer)(combination / 64), (enum gl_dtype)(combination % 4),
                            (enum gl_dtype)(combination / 4 % 4), (enum gl_dtype)(combination / 16 % 4),
                            (enum test_data)data, n, shift);
            }
    }
}

/* The target may be the first source, or the second: a block is read before it is written. */
static void test_aliasing(void) {
    for (int writer = DISPLACE; writer < WRITERS; writer++)
        for (int dtype = 0; dtype < GL_DTYPE_COUNT; dtype++)
            for (int which = 0; which < 2; which++) {
                enum gl_dtype d = (enum gl_dtype)dtype;
                int64_t n = 3077;
                void *first = test_alloc((size_t)n * 8), *second = test_alloc((size_t)n * 8);
                void *apart = test_alloc((size_t)n * 8);
                test_fill(TEST_WIDE, d, first, n);
                test_fill(TEST_WIDE, d, second, n);
                struct gl_segment a = {first, n, d}, b = {second, n, d}, c = {apart, n, d};
                CHECK(write_with((enum writer)writer, &c, &a, 0.7, &b, 1) == GL_OK, "apart");
                struct gl_segment *target = which == 0 ? &a : &b;
                CHECK(write_with((enum writer)writer, target, &a, 0.7, &b, 1) == GL_OK, "in place");
                CHECK(memcmp(target->ptr, apart, (size_t)(n * gl_dtype_size(d))) == 0, "%s in place differs",
                      writer_name[writer]);
                free(apart);
                free(second);
                free(first);
            }
}

/* A list with empty segments gives what its pieces give. */
static void test_lists(void) {
    float older[600], newer[600], out[600];
    test_fill(TEST_PLAIN, GL_F32, older, 600);
    test_fill(TEST_PLAIN, GL_F32, newer, 600);
    struct gl_segment a[] = {{older, 13, GL_F32}, {NULL, 0, GL_F64}, {older + 13, 587, GL_F32}};
    struct gl_segment b[] = {{newer, 13, GL_F32}, {newer, 0, GL_BF16}, {newer + 13, 587, GL_F32}};
    struct gl_segment c[] = {{out, 13, GL_F32}, {NULL, 0, GL_F16}, {out + 13, 587, GL_F32}};
    CHECK(gl_displace(c, a, 1, b, 3) == GL_OK, "three segments");
    for (int i = 0; i < 600; i++)
        CHECK(out[i] == (float)((double)older[i] - newer[i]), "displacement at %d", i);
    CHECK(gl_copy(c, a, 3) == GL_OK, "copy of three segments");
    CHECK(memcmp(out, older, sizeof out) == 0, "the copy");
    CHECK(gl_copy(NULL, NULL, 0) == GL_OK, "an empty list");
}

static void test_control_register(void) {
#if defined(__x86_64__)
    static const unsigned setting[] = {0x9fc0, 0x3f80, 0x7f80, 0x0000};
    enum { N = 1025 };
    static double first[N], second[N];
    for (int level = 0; level < GL_LEVEL_COUNT; level++)
        for (int combination = 0; combination < WRITERS * TEST_DATA_COUNT * 16; combination++) {
            if (gl_level_select((enum gl_level)level) != GL_OK)
                continue;
            enum writer writer = (enum writer)(combination / (TEST_DATA_COUNT * 16));
            enum gl_dtype to = (enum gl_dtype)(combination % 4), from = (enum gl_dtype)(combination / 4 % 4);
            double plain[N], out[N];
            struct gl_segment f = {first, N, from}, s = {second, N, from}, p = {plain, N, to}, o = {out, N, to};
            test_fill((enum test_data)(combination / 16 % TEST_DATA_COUNT), from, first, N);
            test_fill((enum test_data)(combination / 16 % TEST_DATA_COUNT), from, second, N);
            write_with(writer, &p, &f, 0.3, &s, 1);
            for (size_t i = 0; i < sizeof setting / sizeof *setting; i++) {
                memset(out, 0, sizeof out);
                _mm_setcsr(setting[i]);
                enum gl_status status = write_with(writer, &o, &f, 0.3, &s, 1);
                unsigned after = _mm_getcsr();
                _mm_setcsr(GL_FPENV_DEFAULT);
                CHECK(status == GL_OK && after == setting[i], "register %#x became %#x", setting[i], after);
                for (int k = 0; k < N; k++)
                    CHECK(test_same(test_load(to, out, k), test_load(to, plain, k)), "register %#x changes %s",
                          setting[i], writer_name[writer]);
            }
        }
#else
    printf("control register: NOT RUN, not x86-64\n");
#endif
}

static void test_guard_pages(void) {
    for (int level = 0; level < GL_LEVEL_COUNT; level++) {
        if (gl_level_select((enum gl_level)level) != GL_OK)
            continue;
        for (int combination = 0; combination < 16 * WRITERS; combination++)
            for (int size = 0; size < SIZES; size++) {
                enum gl_dtype to = (enum gl_dtype)(combination % 4), from = (enum gl_dtype)(combination / 4 % 4);
                enum writer writer = (enum writer)(combination / 16);
                int64_t n = sizes[size];
                struct test_guarded dst = test_guard((size_t)(n * gl_dtype_size(to)));
                struct test_guarded src = test_guard((size_t)(n * gl_dtype_size(from)));
                struct gl_segment d = {dst.start, n, to}, s = {src.start, n, from};
                CHECK(write_with(writer, &d, &s, 0.5, &s, 1) == GL_OK, "at the first page");
                d.ptr = (char *)dst.end - n * gl_dtype_size(to);
                s.ptr = (char *)src.end - n * gl_dtype_size(from);
                CHECK(write_with(writer, &d, &s, 0.5, &s, 1) == GL_OK, "at the last page");
                test_unguard(src);
                test_unguard(dst);
            }
    }
}

/* ---------------------------------------------------------------- arguments */

static void expect(const char *what, enum gl_status expected, const struct gl_segment *first,
                   const struct gl_segment *second, int64_t segments) {
    float out[4] = {-7, -7, -7, -7};
    struct gl_segment dst[2] = {{out, 3, GL_F32}, {out + 3, 1, GL_F32}};
    for (int writer = 0; writer < WRITERS; writer++) {
        enum gl_status status = write_with((enum writer)writer, dst, first, 0.5, second, segments);
        CHECK(status == expected, "%s, %s: status %d, expected %d", what, writer_name[writer], (int)status,
              (int)expected);
        if (status != GL_OK)
            CHECK(out[0] == -7 && out[3] == -7, "%s, %s: nothing is written", what, writer_name[writer]);
        out[0] = out[1] = out[2] = out[3] = -7;
    }
}

static void test_arguments(void) {
    float x[4] = {1, 2, 3, 4};
    struct gl_segment good[2] = {{x, 3, GL_F32}, {x, 1, GL_F32}}, bad[2] = {{x, 3, GL_F32}, {x, 1, GL_F32}};
    expect("sound", GL_OK, good, good, 2);
    expect("negative segments", GL_ERR_ARGUMENT, good, good, -1);
    expect("NULL lists", GL_ERR_ARGUMENT, NULL, NULL, 2);
    static const struct {
        const char *what;
        int has_pointer;
        int64_t n;
        int dtype;
        enum gl_status status;
    } fault[] = {
        {"negative length", 1, -1, GL_F32, GL_ERR_ARGUMENT},
        {"NULL array", 0, 1, GL_F32, GL_ERR_ARGUMENT},
        {"length beyond memory", 1, INT64_MAX, GL_F16, GL_ERR_ARGUMENT},
        {"unknown dtype", 1, 1, GL_DTYPE_COUNT, GL_ERR_DTYPE},
        {"negative dtype", 1, 1, -1, GL_ERR_DTYPE},
        {"longer", 1, 2, GL_F32, GL_ERR_LENGTH},
        {"shorter", 1, 0, GL_F32, GL_ERR_LENGTH},
    };
    for (size_t i = 0; i < sizeof fault / sizeof *fault; i++) {
        bad[1] = (struct gl_segment){fault[i].has_pointer ? x : NULL, fault[i].n, (enum gl_dtype)fault[i].dtype};
        expect(fault[i].what, fault[i].status, bad, bad, 2);
        CHECK(gl_displace(good, bad, 1, good, 2) == fault[i].status, "%s, only the first", fault[i].what);
        CHECK(gl_perturb(good, good, 1, bad, 2) == fault[i].status, "%s, only the second", fault[i].what);
        CHECK(gl_perturb(bad, good, 1, good, 2) == fault[i].status, "%s, only the target", fault[i].what);
        CHECK(gl_copy(bad, good, 2) == fault[i].status, "%s, the target of a copy", fault[i].what);
        CHECK(x[0] == 1 && x[1] == 2 && x[2] == 3 && x[3] == 4, "%s: nothing is written", fault[i].what);
    }
}

int main(void) {
    test_conversions();
    test_bit_copy();
    test_writers();
    test_aliasing();
    test_lists();
    test_control_register();
    test_guard_pages();
    test_arguments();
    return test_finish("test_write");
}
