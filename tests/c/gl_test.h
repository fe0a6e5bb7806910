/* gl_test.h - what the C tests share: counting checks, random data, guarded memory, reference conversions.
 *
 *   CHECK(condition, "what was tested", format arguments...)   counts; prints and remembers a failure
 *   return test_finish("test_name");                           closing line and exit status
 *
 * Nothing here uses a kernel: conversions are worked out with ldexp and tables, slowly and from the formats'
 * definition.  POSIX only.
 */
#ifndef GL_TEST_H
#define GL_TEST_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "glyder.h"

/* ---------------------------------------------------------------- checks */

static long test_checks, test_failures;

#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        test_checks++;                                                                                                 \
        if (!(condition) && ++test_failures <= 20) {                                                                   \
            printf("%s:%d: FAILED %s: ", __FILE__, __LINE__, #condition);                                              \
            printf(__VA_ARGS__);                                                                                       \
            printf("\n");                                                                                              \
        }                                                                                                              \
    } while (0)

static inline int test_finish(const char *name) {
    if (test_failures > 0)
        printf("%s: %ld of %ld checks FAILED\n", name, test_failures, test_checks);
    else
        printf("%s: %ld checks passed\n", name, test_checks);
    return test_failures > 0;
}

/* Selects the level, or says that it was not run. */
static inline int test_level(enum gl_level level) {
    if (gl_level_select(level) == GL_OK)
        return 1;
    printf("level %s: NOT RUN, this machine lacks it\n", gl_level_name(level));
    return 0;
}

/* Any NaN equals any NaN; otherwise the bits count, the sign of zero included. */
static inline int test_same(double a, double b) {
    return (a != a && b != b) || memcmp(&a, &b, sizeof a) == 0;
}

/* ---------------------------------------------------------------- random numbers (splitmix64) */

static uint64_t test_seed = 1;

static inline uint64_t test_bits(void) {
    uint64_t z = (test_seed += 0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static inline double test_uniform(void) {
    return (double)(test_bits() >> 11) * 0x1p-52 - 1;
}

/* ---------------------------------------------------------------- memory between unmapped pages */

struct test_guarded {
    char *map;
    size_t mapped;
    void *start; /* the byte before is unmapped */
    void *end;   /* this byte is unmapped */
};

static inline struct test_guarded test_guard(size_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t inner = (bytes / page + 1) * page;
    struct test_guarded memory;
    memory.mapped = inner + 2 * page;
    memory.map = mmap(NULL, memory.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory.map == MAP_FAILED || mprotect(memory.map, page, PROT_NONE) != 0 ||
        mprotect(memory.map + page + inner, page, PROT_NONE) != 0) {
        perror("guarded memory");
        exit(2);
    }
    memory.start = memory.map + page;
    memory.end = memory.map + page + inner;
    return memory;
}

static inline void test_unguard(struct test_guarded memory) {
    munmap(memory.map, memory.mapped);
}

static inline void *test_alloc(size_t bytes) {
    void *memory = malloc(bytes > 0 ? bytes : 1);
    if (memory == NULL) {
        perror("memory");
        exit(2);
    }
    return memory;
}

/* ---------------------------------------------------------------- reference conversions */

static const char *const test_dtype_name[GL_DTYPE_COUNT] = {"f64", "f32", "f16", "bf16"};

/* Value of a 16-bit pattern by definition: sign, exponent, fraction. */
static inline double test_narrow_value(enum gl_dtype dtype, unsigned code) {
    int fraction_bits = dtype == GL_F16 ? 10 : 7, bias = dtype == GL_F16 ? 15 : 127;
    int exponent = (int)(code & 0x7fff) >> fraction_bits;
    int fraction = (int)code & ((1 << fraction_bits) - 1);
    double value;
    if (exponent == 2 * bias + 1)
        value = fraction ? (double)NAN : (double)INFINITY;
    else if (exponent == 0)
        value = ldexp(fraction, 1 - bias - fraction_bits);
    else
        value = ldexp(fraction + (1 << fraction_bits), exponent - bias - fraction_bits);
    return code & 0x8000 ? -value : value;
}

static inline double test_load(enum gl_dtype dtype, const void *array, int64_t i) {
    const char *at = (const char *)array + i * gl_dtype_size(dtype);
    double f64;
    float f32;
    uint16_t code;
    switch (dtype) {
    case GL_F64:
        memcpy(&f64, at, sizeof f64);
        return f64;
    case GL_F32:
        memcpy(&f32, at, sizeof f32);
        return f32;
    default:
        memcpy(&code, at, sizeof code);
        return test_narrow_value(dtype, code);
    }
}

/* Nearest pattern of a 16-bit format, ties to the even one, by bisection among all of them: the midpoint of two
 * neighbours is exact in double.  Infinity takes part as the next power of two. */
static inline unsigned test_narrow_code(enum gl_dtype dtype, double value) {
    unsigned sign = signbit(value) ? 0x8000 : 0, low = 0, high = dtype == GL_F16 ? 0x7c00 : 0x7f80;
    double magnitude = fabs(value), beyond = dtype == GL_F16 ? 0x1p16 : 0x1p128;
    if (magnitude >= beyond)
        return sign | high;
    unsigned infinity = high;
    while (high - low > 1) {
        unsigned middle = (low + high) / 2;
        if (test_narrow_value(dtype, middle) <= magnitude)
            low = middle;
        else
            high = middle;
    }
    double above = high == infinity ? beyond : test_narrow_value(dtype, high);
    double midpoint = (test_narrow_value(dtype, low) + above) / 2;
    if (magnitude > midpoint || (magnitude == midpoint && low % 2 == 1))
        low = high;
    return sign | low;
}

/* The value that storing `value` must leave behind. */
static inline double test_rounded(enum gl_dtype dtype, double value) {
    switch (dtype) {
    case GL_F64:
        return value;
    case GL_F32:
        return (float)value;
    default:
        return value != value ? value : test_narrow_value(dtype, test_narrow_code(dtype, value));
    }
}

static inline void test_store(enum gl_dtype dtype, void *array, int64_t i, double value) {
    char *at = (char *)array + i * gl_dtype_size(dtype);
    float f32 = (float)value;
    uint16_t code;
    switch (dtype) {
    case GL_F64:
        memcpy(at, &value, sizeof value);
        break;
    case GL_F32:
        memcpy(at, &f32, sizeof f32);
        break;
    default:
        code = value == value ? (uint16_t)test_narrow_code(dtype, value) : 0x7fff;
        memcpy(at, &code, sizeof code);
    }
}

/* ---------------------------------------------------------------- data */

enum test_data {
    TEST_PLAIN,    /* uniform in [-1, 1) */
    TEST_WIDE,     /* many orders of magnitude, finite products */
    TEST_DENORMAL, /* around the smallest numbers of the dtype */
    TEST_CORNERS,  /* random bits with zeros, infinities, NaN and largest values mixed in */
    TEST_DATA_COUNT
};

static inline double test_value(enum test_data data, enum gl_dtype dtype) {
    static const int smallest_exponent[GL_DTYPE_COUNT] = {-1074, -149, -24, -133};
    static const double corner[] = {0.0,
                                    -0.0,
                                    INFINITY,
                                    -INFINITY,
                                    NAN,
                                    65504,
                                    65520,
                                    -1.7976931348623157e308,
                                    3.4028234663852886e38,
                                    3.3895313892515355e38};
    double uniform = test_uniform();
    uint64_t bits = test_bits();
    switch (data) {
    case TEST_PLAIN:
        return uniform;
    case TEST_WIDE:
        return ldexp(uniform, (int)(bits % 28) - 14);
    case TEST_DENORMAL:
        return ldexp(uniform, smallest_exponent[dtype] + (int)(bits % 14));
    default:
        if (bits % 4 == 0)
            return corner[bits / 4 % (sizeof corner / sizeof *corner)];
        return ldexp(uniform, (int)(bits % 2200) - 1100);
    }
}

static inline void test_fill(enum test_data data, enum gl_dtype dtype, void *array, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        test_store(dtype, array, i, test_value(data, dtype));
}

#endif
