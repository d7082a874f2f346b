/* fpmode.h - the floating-point mode that the contract needs: round to nearest, no flush to zero,
 * no traps. Frameworks change the mode of their threads, so every call sets it and restores the
 * caller's mode at the end (entry.c). The library's own threads have it from the start: a thread
 * inherits the mode of the thread that creates it, and sb_open creates them. */
#ifndef SB_FPMODE_H
#define SB_FPMODE_H

#include <stdint.h>

#if defined(__x86_64__)
#include <immintrin.h>

typedef uint32_t sb_fpmode;

static inline sb_fpmode sb_fpmode_enter(void)
{
    sb_fpmode before = _mm_getcsr();
    _mm_setcsr(0x1f80); /* all exceptions masked, round to nearest even, FTZ and DAZ off */
    return before;
}

static inline void sb_fpmode_leave(sb_fpmode before) { _mm_setcsr(before); }

#elif defined(__aarch64__)

typedef uint64_t sb_fpmode;

static inline sb_fpmode sb_fpmode_enter(void)
{
    sb_fpmode before, standard = 0;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"(standard) : "memory");
    return before;
}

static inline void sb_fpmode_leave(sb_fpmode before)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(before) : "memory");
}

#else
#error "fpmode.h: say how this machine's floating-point mode is read and set"
#endif

#endif
