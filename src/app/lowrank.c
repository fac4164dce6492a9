/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/lowrank.h"

#include "app/report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

bool lsp_lowrank_leaks(const lsp_attention_desc *desc)
{
    return desc->mask != LSP_MASK_NONE || desc->documents;
}

void lsp_lowrank_print_leak(bool leaks)
{
    if (leaks)
        (void)printf(
            "  NOTE     truncated matrices do not keep the mask: rows see later keys a little, or others "
            "that it hides\n");
}

lsp_status lsp_lowrank_certificate_make(const lsp_attention_desc *desc, const lsp_attention *plan,
                                        lsp_certificate *c)
{
    int64_t count = 0;
    c->asked = desc->rank;
    c->leak = lsp_lowrank_leaks(desc);
    lsp_status status = lsp_lowrank_get_certificate(plan, &c->lowrank);
    return status == LSP_OK ? lsp_lowrank_get_heads(plan, &c->heads, &count) : status;
}

void lsp_lowrank_print_unmet(int64_t heads, int64_t rank, int64_t asked)
{
    if (heads > 0)
        (void)printf(
            "  NOTE     %" PRId64 " head%s did not meet the tolerance at rank %" PRId64 "%s\n", heads,
            heads == 1 ? "" : "s", rank,
            asked > 0
                ? "; raise attention.rank, unless that is all of the matrix: then the tolerance is below "
                  "what the computing type can tell"
                : ": all of the matrix, or the largest with these attention.steps and attention.oversample");
}

void lsp_lowrank_certificate_print(const lsp_certificate *c)
{
    const lsp_lowrank_certificate *l = &c->lowrank;
    const char *several = l->heads == 1 ? "" : ", all heads together";
    (void)printf("  rank     %" PRId64, l->rank_least);
    if (l->rank > l->rank_least) (void)printf(" to %" PRId64, l->rank);
    (void)printf("; ||W - W_r||_F = %.6g, %.4g of ||W||_F%s\n", l->whole.frobenius_error,
                 l->whole.frobenius_relative, several);
    (void)printf("  bound    the output is no further than %.3g from exact attention%s (Frobenius norm)\n",
                 l->out_error_bound, several);
    if (l->unclear > 0)
        (void)printf(
            "  NOTE     of %" PRId64
            " head%s the certificate tells no more than that the relative error is below %.1e: what\n"
            "           is smaller is lost in the difference of ||W||^2 and the singular values'; f64 "
            "tells more\n",
            l->unclear, l->unclear == 1 ? "" : "s", l->whole.floor);
    lsp_lowrank_print_unmet(l->unmet, l->rank, c->asked);
    lsp_lowrank_print_leak(c->leak);
}

void lsp_lowrank_add_numbers(cJSON *to, int64_t rank, const lsp_svd_certificate *c, double bound)
{
    lsp_json_add_number(to, "rank", (double)rank);
    lsp_json_add_number(to, "norm", c->norm);
    lsp_json_add_number(to, "frobenius_error", c->frobenius_error);
    lsp_json_add_number(to, "frobenius_relative", c->frobenius_relative);
    lsp_json_add_number(to, "floor", c->floor);
    lsp_json_add_number(to, "out_error_bound", bound < 0 ? INFINITY : bound);
    (void)cJSON_AddBoolToObject(to, "meaningful", c->meaningful);
}

void lsp_lowrank_certificate_add_json(cJSON *to, const lsp_certificate *c)
{
    const lsp_lowrank_certificate *l = &c->lowrank;
    lsp_lowrank_add_numbers(to, l->rank, &l->whole, l->out_error_bound);
    (void)cJSON_AddBoolToObject(to, "tolerance_met", l->unmet == 0);
    (void)cJSON_AddBoolToObject(to, "leak", c->leak);
    cJSON *heads = cJSON_AddArrayToObject(to, "heads");
    for (int64_t i = 0; heads && i < l->heads; i++) {
        const lsp_lowrank_head *h = &c->heads[i];
        cJSON *head = cJSON_CreateObject();
        lsp_json_add_number(head, "batch", (double)h->batch);
        lsp_json_add_number(head, "head", (double)(c->head_of ? c->head_of[h->head] : h->head));
        lsp_lowrank_add_numbers(head, h->rank, &h->certificate, h->out_error_bound);
        lsp_json_add_number(head, "values_norm", h->values_norm);
        (void)cJSON_AddBoolToObject(head, "tolerance_met", h->tolerance_met);
        lsp_json_add_number(head, "seconds", h->seconds);
        lsp_json_add_item(heads, head);
    }
}
