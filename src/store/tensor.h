/* Inside of an open tensor. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_STORE_TENSOR_H
#define LSP_STORE_TENSOR_H

#include "comm/context.h"
#include "store/slab.h"

struct lsp_tensor {
    lsp_context *ctx;
    char *file, *dataset; /* names, for messages */
    lsp_placing placing;
    hid_t file_id, dataset_id;
    bool plain; /* rows lie one after the other in the file: reading them in pieces costs nothing */
};

#endif
