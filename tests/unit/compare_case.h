/* What tests of comparisons share. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_TEST_COMPARE_CASE_H
#define LSP_TEST_COMPARE_CASE_H

#include "mpi_case.h"

#include "attention_case.h"

#include <longspan/longspan.h>

enum { HEADS_MOST = 8 };

static lsp_context *ctx;

typedef struct outcome {
    lsp_compare_result exact, other;
    lsp_compare_head exact_heads[HEADS_MOST], heads[HEADS_MOST];
} outcome;

#endif
