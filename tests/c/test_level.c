/* test_level.c - dispatch levels, status messages, dtype sizes, and the floating-point environment around calls. */
#define _DEFAULT_SOURCE
#include "gl_test.h"
#include "gl_fpenv.h" /* gl_fpenv_enter, gl_fpenv_leave */

static void test_levels(void) {
    static const char *const name[GL_LEVEL_COUNT] = {"portable", "avx2", "avx512"};
    enum gl_level best = gl_level_best();
    CHECK(gl_level_current() == best, "the best level is in use before any selection");
    CHECK(gl_level_available(GL_LEVEL_PORTABLE), "portable is everywhere");
    for (int l = 0; l < GL_LEVEL_COUNT; l++) {
        enum gl_level level = (enum gl_level)l, before = gl_level_current();
        CHECK(strcmp(gl_level_name(level), name[l]) == 0, "name of level %d", l);
        int available = gl_level_available(level);
        printf("level %s: %s\n", name[l], available ? "available" : "NOT RUN, this machine lacks it");
        CHECK(available == (level <= best), "levels are nested, level %d", l);
        CHECK(gl_level_select(level) == (available ? GL_OK : GL_ERR_LEVEL), "select level %d", l);
        CHECK(gl_level_current() == (available ? level : before), "current after selecting level %d", l);
    }
    CHECK(gl_level_best() == best, "selecting does not change what is best");
}

static void test_outside(void) {
    static const int outside[] = {-1, GL_LEVEL_COUNT, 1000};
    for (int i = 0; i < 3; i++) {
        enum gl_level level = (enum gl_level)outside[i], before = gl_level_current();
        CHECK(gl_level_name(level) == NULL, "no name for %d", outside[i]);
        CHECK(!gl_level_available(level), "level %d is not available", outside[i]);
        CHECK(gl_level_select(level) == GL_ERR_ARGUMENT, "level %d cannot be selected", outside[i]);
        CHECK(gl_level_current() == before, "a refused selection changes nothing");
    }
}

/* What the compiler's own run-time library finds must agree with ours. */
static void test_against_compiler(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("avx");
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    CHECK(!gl_level_available(GL_LEVEL_AVX512) || avx512, "avx512 was found by both");
    CHECK(!gl_level_available(GL_LEVEL_AVX2) || avx2, "avx2 was found by both");
    CHECK(gl_level_best() != GL_LEVEL_PORTABLE || !avx2, "avx2 was missed");
    CHECK(gl_level_best() != GL_LEVEL_AVX2 || !avx512, "avx512 was missed");
#else
    CHECK(gl_level_best() == GL_LEVEL_PORTABLE, "wide levels belong to x86-64");
#endif
}

static void test_messages(void) {
    for (int status = -8; status <= 3; status++) {
        const char *message = gl_status_message((enum gl_status)status);
        CHECK(message != NULL && strlen(message) > 10, "message of %d", status);
        CHECK(message[strlen(message) - 1] == '.', "message of %d is a sentence", status);
        for (int other = GL_ERR_LEVEL; other <= GL_OK; other++)
            if (status >= GL_ERR_LEVEL && status <= GL_OK && other != status)
                CHECK(strcmp(message, gl_status_message((enum gl_status)other)) != 0, "%d and %d differ", status,
                      other);
    }
}

static void test_dtype_sizes(void) {
    static const int size[GL_DTYPE_COUNT] = {8, 4, 2, 2};
    for (int d = 0; d < GL_DTYPE_COUNT; d++)
        CHECK(gl_dtype_size((enum gl_dtype)d) == size[d], "size of %s", test_dtype_name[d]);
    CHECK(gl_dtype_size((enum gl_dtype) - 1) == 0, "size of an unknown dtype");
    CHECK(gl_dtype_size((enum gl_dtype)GL_DTYPE_COUNT) == 0, "size of an unknown dtype");
}

static void test_environment(void) {
    volatile double tiny = 0x1p-1074, one = 1, three = 3;
    gl_fpenv saved = gl_fpenv_enter();
    CHECK(tiny / 2 == 0 && tiny * 3 == 0x1.8p-1073, "denormals are kept inside");
    double third = one / three;
    gl_fpenv_leave(saved);
    CHECK(third == 0x1.5555555555555p-2, "rounding is to nearest inside");
#if defined(__x86_64__)
    static const unsigned setting[] = {0x1f80, 0x9fc0, 0x5f80, 0x7f80, 0x0000, 0x1fbf};
    for (size_t i = 0; i < sizeof setting / sizeof *setting; i++) {
        _mm_setcsr(setting[i]);
        saved = gl_fpenv_enter();
        unsigned inside = _mm_getcsr();
        gl_fpenv_leave(saved);
        unsigned after = _mm_getcsr();
        _mm_setcsr(GL_FPENV_DEFAULT);
        CHECK(inside == GL_FPENV_DEFAULT, "entered from %#x", setting[i]);
        CHECK(after == setting[i], "left to %#x", setting[i]);
    }
#else
    printf("control register patterns: NOT RUN, not x86-64\n");
#endif
}

int main(void) {
    test_levels();
    test_outside();
    test_against_compiler();
    test_messages();
    test_dtype_sizes();
    test_environment();
    return test_finish("test_level");
}
