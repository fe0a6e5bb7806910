/* gl_fpenv.h - the floating-point environment that kernels run in.
 *
 * torch.set_flush_denormal, other libraries and -ffast-math code loaded into the process all change how this
 * thread rounds and flushes.  Every public function that does arithmetic on arrays therefore runs as
 *
 *   gl_fpenv saved = gl_fpenv_enter();   round to nearest even, denormals kept, no traps
 *   work(...);                           a call that is not inlined
 *   gl_fpenv_leave(saved);               also takes back the exception flags that the work raised
 *
 * The work must stand in a GL_NOINLINE function or behind a function pointer: compilers do not know that
 * arithmetic depends on the control register and would move it across.  Each worker thread enters by itself.
 */
#ifndef GL_FPENV_H
#define GL_FPENV_H

#include "gl_common.h" /* GL_INLINE */

#if defined(__x86_64__) || defined(_M_X64)

#include <xmmintrin.h>

typedef unsigned int gl_fpenv;

/* MXCSR: six exception masks set, round to nearest, flush-to-zero and denormals-are-zero clear. */
#define GL_FPENV_DEFAULT 0x1f80u

GL_INLINE gl_fpenv gl_fpenv_enter(void) {
    gl_fpenv saved = _mm_getcsr();
    _mm_setcsr(GL_FPENV_DEFAULT);
    return saved;
}

GL_INLINE void gl_fpenv_leave(gl_fpenv saved) {
    _mm_setcsr(saved);
}

#elif defined(__aarch64__)

#include <stdint.h>

typedef uint64_t gl_fpenv;

/* FPCR = 0: round to nearest, no flushing, NaN payloads propagate, no traps. */
GL_INLINE gl_fpenv gl_fpenv_enter(void) {
    gl_fpenv saved;
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved) : : "memory");
    __asm__ volatile("msr fpcr, %0" : : "r"((gl_fpenv)0) : "memory");
    return saved;
}

GL_INLINE void gl_fpenv_leave(gl_fpenv saved) {
    __asm__ volatile("msr fpcr, %0" : : "r"(saved) : "memory");
}

#else

#include <fenv.h>

typedef fenv_t gl_fpenv;

GL_INLINE gl_fpenv gl_fpenv_enter(void) {
    gl_fpenv saved;
    fegetenv(&saved);
    fesetenv(FE_DFL_ENV);
    return saved;
}

GL_INLINE void gl_fpenv_leave(gl_fpenv saved) {
    fesetenv(&saved);
}

#endif

#endif
