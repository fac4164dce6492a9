/* The entries of the kernel table, one a source file. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_KERNEL_ENTRIES_H
#define LSP_KERNEL_ENTRIES_H

#include "kernel/kernel.h"

/* Whether this build has the x86 kernels; whether the machine can run them is decided at run time. */
#if defined(__x86_64__)
#    define LSP_KERNEL_X86 1
#else
#    define LSP_KERNEL_X86 0
#endif

extern const lsp_kernel lsp_kernel_portable_f32, lsp_kernel_portable_f64, lsp_kernel_portable_bf16;
extern const lsp_kernel lsp_kernel_avx2_f32, lsp_kernel_avx2_f64, lsp_kernel_avx2_bf16;
extern const lsp_kernel lsp_kernel_avx512_f32, lsp_kernel_avx512_f64, lsp_kernel_avx512_bf16;
extern const lsp_kernel lsp_kernel_avx512bf16; /* for bf16 too, with dot products of pairs */

/* Local. The kernel with dot products of pairs when the machine has them, else NULL. */
const lsp_kernel *lsp_kernel_pairs(void);

/* Local. The other one for bf16 on AVX-512, which keeps the numbers in f32, when the machine can run it, else NULL. */
const lsp_kernel *lsp_kernel_widened(void);

#endif
