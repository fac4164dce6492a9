/* Which kernels this machine can run: what the processor has (CPUID) and the system saves (XCR0).
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "base/clock.h"
#include "kernel/entries.h"

#include <stdatomic.h>

#if LSP_KERNEL_X86
#    include <cpuid.h>
#endif

#if LSP_KERNEL_X86
static uint64_t saved_state(void)
{
    uint32_t low = 0, high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static bool has_all(uint32_t word, uint32_t bits)
{
    return (word & bits) == bits;
}

static lsp_isa detect(void)
{
    const uint64_t avx_state = 0x06, avx512_state = 0xE6;
    uint32_t a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return LSP_ISA_PORTABLE;
    if (!has_all(c, bit_FMA | bit_F16C | bit_AVX | bit_OSXSAVE)) return LSP_ISA_PORTABLE;
    uint64_t state = saved_state();
    if ((state & avx_state) != avx_state) return LSP_ISA_PORTABLE;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has_all(b, bit_AVX2)) return LSP_ISA_PORTABLE;
    if (!has_all(b, bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL)) return LSP_ISA_AVX2;
    return (state & avx512_state) == avx512_state ? LSP_ISA_AVX512 : LSP_ISA_AVX2;
}

static bool has_pairs(void)
{
    uint32_t a = 0, b = 0, c = 0, d = 0;
    return detect() == LSP_ISA_AVX512 && __get_cpuid_count(7, 1, &a, &b, &c, &d) &&
           has_all(a, bit_AVX512BF16);
}

/* The least seconds of a flop in a few short bursts. */
static double burst_seconds(const lsp_kernel *kernel)
{
    double best = 1;
    for (int i = 0; i < 8; i++) {
        double begin = lsp_clock(), flops = kernel->fma_burst(300), seconds = (lsp_clock() - begin) / flops;
        if (seconds < best) best = seconds;
    }
    return best;
}

/* Some processors run VDPBF16PS at a quarter of the rate of FMA (4 operations inside), some at the whole, which is
 * half or twice the speed of FMA on the same numbers kept in f32. Both kernels give the same bits: the faster one
 * is taken, by a look of microseconds, once. */
static bool pairs_pay(void)
{
    enum { UNKNOWN, YES, NO };
    static atomic_int answer = UNKNOWN;
    int known = atomic_load(&answer);
    if (known == UNKNOWN) {
        bool pay =
            has_pairs() && burst_seconds(&lsp_kernel_avx512bf16) < burst_seconds(&lsp_kernel_avx512_bf16);
        known = pay ? YES : NO;
        atomic_store(&answer, known);
    }
    return known == YES;
}
#else
static lsp_isa detect(void)
{
    return LSP_ISA_PORTABLE;
}
#endif

lsp_isa lsp_isa_best(void)
{
    return detect();
}

const char *lsp_isa_name(lsp_isa isa)
{
    switch (isa) {
    case LSP_ISA_AUTO: return "auto";
    case LSP_ISA_PORTABLE: return "portable";
    case LSP_ISA_AVX2: return "avx2";
    case LSP_ISA_AVX512: return "avx512";
    }
    return "unknown";
}

const lsp_kernel *lsp_kernel_pairs(void)
{
#if LSP_KERNEL_X86
    if (has_pairs()) return &lsp_kernel_avx512bf16;
#endif
    return NULL;
}

const lsp_kernel *lsp_kernel_widened(void)
{
#if LSP_KERNEL_X86
    if (detect() == LSP_ISA_AVX512) return &lsp_kernel_avx512_bf16;
#endif
    return NULL;
}

static const lsp_kernel *choose(lsp_dtype compute, const lsp_kernel *bf16, const lsp_kernel *f32,
                                const lsp_kernel *f64)
{
    return compute == LSP_BF16 ? bf16 : compute == LSP_F32 ? f32 : compute == LSP_F64 ? f64 : NULL;
}

const lsp_kernel *lsp_kernel_get(lsp_isa isa, lsp_dtype compute)
{
    if (isa == LSP_ISA_PORTABLE)
        return choose(compute, &lsp_kernel_portable_bf16, &lsp_kernel_portable_f32, &lsp_kernel_portable_f64);
#if LSP_KERNEL_X86
    if (isa > lsp_isa_best()) return NULL;
    if (isa == LSP_ISA_AVX2)
        return choose(compute, &lsp_kernel_avx2_bf16, &lsp_kernel_avx2_f32, &lsp_kernel_avx2_f64);
    if (isa == LSP_ISA_AVX512 && compute == LSP_BF16 && pairs_pay()) return &lsp_kernel_avx512bf16;
    if (isa == LSP_ISA_AVX512)
        return choose(compute, &lsp_kernel_avx512_bf16, &lsp_kernel_avx512_f32, &lsp_kernel_avx512_f64);
#endif
    return NULL;
}

bool lsp_kernel_leaves_v(const lsp_kernel *kernel, const lsp_tile_shape *shape, const void *src,
                         lsp_dtype type, int64_t offset, int64_t count)
{
    enum { LINE = 64 };
    return kernel->compute == type && type != LSP_BF16 && shape->d_v == shape->v_stride && offset == 0 &&
           count == shape->tile_keys && (uintptr_t)src % LINE == 0;
}

bool lsp_kernel_reads_v(const lsp_kernel *kernel, const lsp_tile_shape *shape, lsp_dtype type, int64_t offset,
                        int64_t count)
{
    return kernel->compute == LSP_BF16 && type == LSP_BF16 && kernel->packed_bytes == sizeof(float) &&
           shape->d_v == shape->v_stride && offset == 0 && count == shape->tile_keys;
}
