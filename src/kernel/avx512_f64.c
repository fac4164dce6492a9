/* The kernel in AVX-512, computing in f64. SPDX-License-Identifier: BSD-3-Clause */
#include "kernel/entries.h"

#if LSP_KERNEL_X86
#    define REAL_BITS 64
#    include "kernel/vec_avx512.h"

#    include "kernel/table.h"

const lsp_kernel lsp_kernel_avx512_f64 = LSP_KERNEL_ENTRY;
#endif
