/* What one process finds out about a file and a dataset before all ranks open it.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_STORE_INSPECT_H
#define LSP_STORE_INSPECT_H

#include "store/h5.h"

#include "base/error.h"

/* Plain data, broadcast as bytes. */
typedef struct lsp_dataset_facts {
    int axes;
    int64_t dims[4];
    bool known_type; /* type is one that Longspan reads */
    lsp_dtype type;
    char type_name[40]; /* as in the file */
    bool integer;       /* of any width */
    bool virtual_set;   /* put together from other datasets: HDF5 reads it with the POSIX driver only */
    bool chunked;
    int64_t chunk[4];
    int64_t file_bytes;
    bool has_checksum;
    uint64_t checksum;
} lsp_dataset_facts;

/* Local. Opens an existing HDF5 file for reading by one process. Errors: LSP_ERR_FILE (cannot be
 * opened), LSP_ERR_CONTENT (a folder, not HDF5, truncated, damaged). */
lsp_status lsp_inspect_file(const char *file, lsp_error *err, hid_t *out, int64_t *bytes);

/* Local. Facts of dataset `dataset` of `file`. Errors: those of lsp_inspect_file; LSP_ERR_CONTENT: no such dataset (names
 * those there), not a dataset, more than 4 axes, a zero axis, a missing filter or source file. */
lsp_status lsp_inspect_dataset(const char *file, const char *dataset, lsp_error *err,
                               lsp_dataset_facts *facts);

#endif
