/* The kernel in AVX2, computing in bf16 with numbers kept in f32. SPDX-License-Identifier: BSD-3-Clause */
#include "kernel/entries.h"

#if LSP_KERNEL_X86
#    define REAL_BITS 32
#    define BRAIN     1
#    include "kernel/vec_avx2.h"

#    include "kernel/table.h"

const lsp_kernel lsp_kernel_avx2_bf16 = LSP_KERNEL_ENTRY;
#endif
