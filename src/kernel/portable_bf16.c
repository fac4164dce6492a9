/* The kernel in portable C, computing in bf16 with numbers kept in f32. SPDX-License-Identifier: BSD-3-Clause */
#define REAL_BITS 32
#define BRAIN     1
#include "kernel/vec_portable.h"

#include "kernel/table.h"

const lsp_kernel lsp_kernel_portable_bf16 = LSP_KERNEL_ENTRY;
