/* Moving slabs between a dataset and a buffer.
 *
 * Each rank makes as many transfers as its rows need, by itself, and none goes through MPI-IO: a rank that fails alone,
 * on a damaged chunk or a full disk, leaves nobody waiting. What Longspan writes is contiguous, so that writing needs
 * no more of HDF5 than where a dataset begins.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_STORE_TRANSFER_H
#define LSP_STORE_TRANSFER_H

#include "store/slab.h"

/* Local. Most bytes of one transfer (default 1 GiB; tests lower it). Returns the limit before. 0 restores the default. A row
 * is never cut, nor, in writing, are rows that follow each other in memory and file. */
int64_t lsp_transfer_set_limit(int64_t bytes);
int64_t lsp_transfer_limit(void);

/* Local. Reads slabs of the dataset into buffer, which holds slabs->rows rows. False on failure: then
 * reason[LSP_H5_REASON] is HDF5's text. */
bool lsp_transfer_read(hid_t dataset, const lsp_placing *placing, const lsp_slabs *slabs, void *buffer,
                       char *reason);

/* Local. Writes them to the dataset that begins at `origin` of an open file. On failure reason[LSP_H5_REASON] is the
 * system's text. */
bool lsp_transfer_write(int fd, int64_t origin, const lsp_placing *placing, const lsp_slabs *slabs,
                        const void *buffer, char *reason);

#endif
