/* The kernel in AVX2 with FMA and F16C, computing in f64. SPDX-License-Identifier: BSD-3-Clause */
#include "kernel/entries.h"

#if LSP_KERNEL_X86
#    define REAL_BITS 64
#    include "kernel/vec_avx2.h"

#    include "kernel/table.h"

const lsp_kernel lsp_kernel_avx2_f64 = LSP_KERNEL_ENTRY;
#endif
