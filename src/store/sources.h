/* The files behind a virtual dataset. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_STORE_SOURCES_H
#define LSP_STORE_SOURCES_H

#include "base/error.h"
#include "store/h5.h"

/* Local. HDF5 reads zeros where a source file of a virtual dataset is missing: LSP_ERR_CONTENT names the
 * first one missing. properties: of the dataset's creation; file: that holds it. */
lsp_status lsp_sources_check(hid_t properties, const char *file, const char *dataset, lsp_error *err);

#endif
