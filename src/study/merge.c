/* Joining partial results over disjoint key sets. SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/convert.h"

#include <longspan/study.h>
#include <math.h>

enum { COLUMNS = 64 }; /* columns joined at once, on the stack: nothing to allocate, nothing to fail */

typedef struct parts {
    lsp_dtype type;
    int64_t d_v;
    int count;
    const void *const *out, *const *lse;
} parts;

static double lse_of(const parts *p, int part, int64_t row)
{
    double lse = 0;
    lsp_convert_load(p->type, p->lse[part], row, 1, &lse);
    return lse;
}

/* All parts are read at a column before it is written, since `out` may be one of them. */
static void join_columns(const parts *p, int64_t row, int64_t first, int64_t columns, double top, double sum,
                         void *out)
{
    double total[COLUMNS] = {0}, values[COLUMNS];
    for (int part = 0; part < p->count; part++) {
        double lse = lse_of(p, part, row);
        if (lse == -INFINITY) continue;
        double weight = exp(lse - top);
        lsp_convert_load(p->type, p->out[part], row * p->d_v + first, columns, values);
        for (int64_t c = 0; c < columns; c++) total[c] += weight * values[c];
    }
    for (int64_t c = 0; c < columns; c++) total[c] = sum > 0 || isnan(sum) ? total[c] / sum : 0;
    lsp_convert_store(p->type, total, columns, out, row * p->d_v + first);
}

static void join_row(const parts *p, int64_t row, void *out, void *lse)
{
    double top = -INFINITY, sum = 0;
    for (int part = 0; part < p->count; part++) {
        double value = lse_of(p, part, row);
        if (value > top || isnan(value)) top = value;
        if (isnan(top)) break;
    }
    for (int part = 0; part < p->count; part++) {
        double value = lse_of(p, part, row);
        if (value != -INFINITY) sum += exp(value - top);
    }
    for (int64_t c = 0; c < p->d_v; c += COLUMNS)
        join_columns(p, row, c, lsp_min(COLUMNS, p->d_v - c), top, sum, out);
    double joined = sum == 0 ? -INFINITY : top + log(sum);
    lsp_convert_store(p->type, &joined, 1, lse, row);
}

void lsp_merge_rows(lsp_dtype type, int64_t rows, int64_t d_v, int count, const void *const *out_parts,
                    const void *const *parts_lse, void *out, void *lse)
{
    const parts p = {type, d_v, count, out_parts, parts_lse};
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) join_row(&p, row, out, lse);
}
