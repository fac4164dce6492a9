/* The kernel in portable C, computing in f32. SPDX-License-Identifier: BSD-3-Clause */
#define REAL_BITS 32
#include "kernel/vec_portable.h"

#include "kernel/table.h"

const lsp_kernel lsp_kernel_portable_f32 = LSP_KERNEL_ENTRY;
