/* The floating-point mode of the kernels. SPDX-License-Identifier: BSD-3-Clause */
#include "kernel/kernel.h"

#if defined(__x86_64__)
#    include <xmmintrin.h>

uint64_t lsp_fpmode_enter(void)
{
    /* All exceptions masked, round to nearest, FTZ (bit 15) and DAZ (bit 6). */
    const unsigned int mode = 0x1F80U | 0x8000U | 0x0040U;
    unsigned int before = _mm_getcsr();
    _mm_setcsr(mode);
    return before;
}

void lsp_fpmode_leave(uint64_t before)
{
    _mm_setcsr((unsigned int)before);
}

#elif defined(__aarch64__)

static void set_fpcr(uint64_t mode)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(mode));
}

uint64_t lsp_fpmode_enter(void)
{
    const uint64_t flush_to_zero = 1U << 24; /* all else zero: round to nearest, no traps */
    uint64_t before = 0;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    set_fpcr(flush_to_zero);
    return before;
}

void lsp_fpmode_leave(uint64_t before)
{
    set_fpcr(before);
}

#else
#    include <fenv.h>

/* C has no way to flush denormals; the rounding mode is what it can set. */
uint64_t lsp_fpmode_enter(void)
{
    uint64_t before = (uint64_t)fegetround();
    fesetround(FE_TONEAREST);
    return before;
}

void lsp_fpmode_leave(uint64_t before)
{
    fesetround((int)before);
}
#endif
