/* How this floor uses BLAS: one thread, so that bits do not depend on how many BLAS would start, and
 * threads of ours do not start more. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_LINALG_BLAS_H
#define LSP_LINALG_BLAS_H

/* Local. BLAS runs on one thread from now on; returns how many it had, for lsp_blas_restore. To be called
 * by the main thread, outside parallel regions. */
int lsp_blas_single(void);

/* Local. */
void lsp_blas_restore(int threads);

#endif
