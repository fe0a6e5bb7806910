/* gl_common.h - every compiler macro of glyder, and nothing else.
 *
 * Code outside this header is plain C11.  The wide levels need GCC or Clang on x86-64; elsewhere GL_WIDE_LEVELS
 * is 0 and their files are empty.  They are built by target pragmas and not by flags, so that one set of flags
 * compiles all files and no wide instruction can leak into the portable level.
 */
#ifndef GL_COMMON_H
#define GL_COMMON_H

#include <float.h>

#if defined(__GNUC__) || defined(__clang__)
#define GL_INLINE       static inline __attribute__((always_inline, unused))
#define GL_NOINLINE     __attribute__((noinline))
#define GL_TARGET(list) __attribute__((target(list)))
#define GL_ATOMIC       _Atomic
#else
#define GL_INLINE   static __forceinline
#define GL_NOINLINE __declspec(noinline)
/* MSVC has C11 atomics only behind an experimental switch; its volatile int is read and written whole. */
#define GL_ATOMIC   volatile
#endif

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define GL_WIDE_LEVELS 1
#else
#define GL_WIDE_LEVELS 0
#endif

/* Between BEGIN and END functions are compiled for the level.  No header may be included there except templates.
 * FMA is left out of the AVX2 list on purpose: what the compiler does not have it cannot fuse.  AVX-512F brings
 * its own, which -ffp-contract=off forbids.  The target is a list of literals, which Clang and GCC both join. */
#define GL_PRAGMA_TEXT(text) _Pragma(#text)
#define GL_PRAGMA(text)      GL_PRAGMA_TEXT(text)
#define GL_AVX2_TARGET       "avx2"
#define GL_AVX512_TARGET     "avx2,avx512f,avx512bw,avx512dq,avx512vl"
#if GL_WIDE_LEVELS && defined(__clang__)
#define GL_TARGET_BEGIN(list) GL_PRAGMA(clang attribute push(__attribute__((target(list))), apply_to = function))
#define GL_AVX2_BEGIN         GL_TARGET_BEGIN(GL_AVX2_TARGET)
#define GL_AVX512_BEGIN       GL_TARGET_BEGIN(GL_AVX512_TARGET)
#define GL_LEVEL_END          GL_PRAGMA(clang attribute pop)
#elif GL_WIDE_LEVELS
#define GL_TARGET_BEGIN(list) GL_PRAGMA(GCC push_options) GL_PRAGMA(GCC target(list))
#define GL_AVX2_BEGIN         GL_TARGET_BEGIN(GL_AVX2_TARGET)
#define GL_AVX512_BEGIN       GL_TARGET_BEGIN(GL_AVX512_TARGET ",prefer-vector-width=512")
#define GL_LEVEL_END          GL_PRAGMA(GCC pop_options)
#endif

/* No product is fused into a sum: the levels would differ.  The build passes -ffp-contract=off, the only way to tell
 * GCC; the others listen to the source as well. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(_MSC_VER)
#pragma fp_contract(off)
#endif

#if defined(__FAST_MATH__) || defined(_M_FP_FAST)
#error "glyder's arithmetic must not be rearranged: build without fast-math"
#endif

/* Excess precision (x87) would round twice and differ from machine to machine. */
_Static_assert(FLT_EVAL_METHOD == 0, "expressions must be evaluated in their own type");

#endif
