/* What an approximate method says about its own error. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_CERTIFICATE_H
#define LSP_APP_CERTIFICATE_H

#include "app/operands.h"

#include <cjson/cJSON.h>

typedef struct lsp_certificate {
    lsp_method method;
    bool sampled; /* sample holds a result */
    lsp_error_sample sample;
    lsp_topk_certificate topk;
    lsp_lowrank_certificate lowrank;
    const lsp_lowrank_head *heads; /* [lowrank.heads], the plan's */
    const int64_t *head_of;        /* head of the file that each is; NULL: the same. Borrowed */
    int64_t asked;                 /* attention.rank, 0: not given */
    bool leak;                     /* see lsp_lowrank_leaks */
} lsp_certificate;

/* Collective. Fills the certificate of a computed result; `rows` rows are sampled (0: none). The exact method has
 * none. Valid as long as the plan and until its next execution. */
lsp_status lsp_certificate_make(lsp_app *app, const lsp_attention_desc *desc, const lsp_attention *plan,
                                const lsp_operands *operands, int64_t rows, lsp_certificate *certificate);

/* Local (rank 0). Its lines of the summary; nothing for the exact method. */
void lsp_certificate_print(const lsp_certificate *certificate);

/* Local. Adds "certificate": an object, or null. */
void lsp_certificate_add_json(cJSON *object, const lsp_certificate *certificate);

#endif
