/* Moving slabs between a dataset and a buffer.
 *
 * Transfers are independent: each rank makes as many as its rows need. Measured on the page cache they are
 * as fast as collective ones (two-phase or individual) and as pread; and a rank that fails alone, on a
 * damaged chunk or a full disk, leaves nobody waiting inside MPI-IO.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_STORE_TRANSFER_H
#define LSP_STORE_TRANSFER_H

#include "store/slab.h"

/* Local. Most bytes of one HDF5 transfer (default 1 GiB: MPI-IO counts in int; tests lower it). Returns the
 * limit before. 0 restores the default. A row is never cut. */
int64_t lsp_transfer_set_limit(int64_t bytes);

/* Local. Reads slabs of the dataset into buffer, which holds slabs->rows rows. False on failure: then
 * reason[LSP_H5_REASON] is HDF5's text. */
bool lsp_transfer_read(hid_t dataset, const lsp_placing *placing, const lsp_slabs *slabs, void *buffer,
                       char *reason);

/* Local. Writes them. */
bool lsp_transfer_write(hid_t dataset, const lsp_placing *placing, const lsp_slabs *slabs, const void *buffer,
                        char *reason);

#endif
