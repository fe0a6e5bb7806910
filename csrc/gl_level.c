/* gl_level.c - processor features, dispatch levels, and the level in use.
 *
 * A level counts as available when its kernels were compiled, the processor has every instruction set that its
 * file is compiled for, and the operating system saves the registers.  The choice is made on first use; the level is
 * one atomic int, so that selecting is safe at any time.
 */
#include <stddef.h>
#include "glyder.h"
#include "gl_common.h"  /* GL_WIDE_LEVELS, GL_TARGET, GL_ATOMIC */
#include "gl_kernels.h" /* gl_kernels_portable and so on */
#include "gl_level.h"

#if GL_WIDE_LEVELS
#include <cpuid.h>
#include <immintrin.h>

/* CPUID leaf 1, ecx; leaf 7, ebx; and the register files in XCR0: 2 SSE, 4 AVX, 0xe0 the AVX-512 masks and halves. */
enum {
    LEAF1_OSXSAVE = 1 << 27,
    LEAF1_AVX = 1 << 28,
    LEAF7_AVX2 = 1 << 5,
    LEAF7_AVX512F = 1 << 16,
    LEAF7_AVX512DQ = 1 << 17,
    LEAF7_AVX512BW = 1 << 30,
    XCR0_AVX = 0x06,
    XCR0_AVX512 = 0xe6
};
#define LEAF7_AVX512VL (1u << 31)

GL_TARGET("xsave") static unsigned saved_registers(void) {
    return (unsigned)_xgetbv(0);
}

static int has(unsigned features, unsigned wanted) {
    return (features & wanted) == wanted;
}

static enum gl_level detect(void) {
    unsigned eax, ebx, ecx, edx, leaf1, leaf7;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx))
        return GL_LEVEL_PORTABLE;
    leaf1 = ecx;
    if (!has(leaf1, LEAF1_OSXSAVE) || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx))
        return GL_LEVEL_PORTABLE;
    leaf7 = ebx;
    unsigned saved = saved_registers();
    if (!has(leaf1, LEAF1_AVX) || !has(leaf7, LEAF7_AVX2) || !has(saved, XCR0_AVX))
        return GL_LEVEL_PORTABLE;
    if (!has(leaf7, LEAF7_AVX512F | LEAF7_AVX512DQ | LEAF7_AVX512BW | LEAF7_AVX512VL) || !has(saved, XCR0_AVX512))
        return GL_LEVEL_AVX2;
    return GL_LEVEL_AVX512;
}

#else

static enum gl_level detect(void) {
    return GL_LEVEL_PORTABLE;
}

#endif

static const struct {
    const char *name;
    const struct gl_kernels *kernels;
} levels[GL_LEVEL_COUNT] = {
    [GL_LEVEL_PORTABLE] = {"portable", &gl_kernels_portable},
#if GL_WIDE_LEVELS
    [GL_LEVEL_AVX2] = {"avx2", &gl_kernels_avx2},
    [GL_LEVEL_AVX512] = {"avx512", &gl_kernels_avx512},
#else
    [GL_LEVEL_AVX2] = {"avx2", NULL},
    [GL_LEVEL_AVX512] = {"avx512", NULL},
#endif
};

#define LEVEL_UNKNOWN (-1)
static GL_ATOMIC int best_level = LEVEL_UNKNOWN;
static GL_ATOMIC int current_level = LEVEL_UNKNOWN;

static int in_range(enum gl_level level) {
    return (int)level >= 0 && (int)level < GL_LEVEL_COUNT;
}

const char *gl_level_name(enum gl_level level) {
    return in_range(level) ? levels[level].name : NULL;
}

enum gl_level gl_level_best(void) {
    int best = best_level;
    if (best == LEVEL_UNKNOWN) {
        best = (int)detect();
        best_level = best; /* two threads that race here store the same number */
    }
    return (enum gl_level)best;
}

/* Each level's requirements contain those of the levels below it. */
int gl_level_available(enum gl_level level) {
    return in_range(level) && level <= gl_level_best();
}

enum gl_level gl_level_current(void) {
    int level = current_level;
    return level == LEVEL_UNKNOWN ? gl_level_best() : (enum gl_level)level;
}

enum gl_status gl_level_select(enum gl_level level) {
    if (!in_range(level))
        return GL_ERR_ARGUMENT;
    if (!gl_level_available(level))
        return GL_ERR_LEVEL;
    current_level = (int)level;
    return GL_OK;
}

const struct gl_kernels *gl_kernels_current(void) {
    return levels[gl_level_current()].kernels;
}
