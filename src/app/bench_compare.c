/* longspan bench --compare: what an earlier report says of the same cells. SPDX-License-Identifier: BSD-3-Clause */
#include "app/bench.h"
#include "app/report_file.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- the file ------------------------------------------------------------------------------------ */

static lsp_status refuse(lsp_bench *b, const char *why)
{
    return lsp_context_fail(
        b->app->ctx, LSP_ERR_CONTENT,
        "%s is no report of longspan bench: %s; --compare takes what --report.json=FILE of an "
        "earlier bench wrote",
        b->compare, why);
}

static lsp_status read_report(lsp_bench *b, cJSON **json)
{
    lsp_status status = lsp_report_file_read(b->app, b->compare, "compare", json);
    if (status != LSP_OK) return status;
    const char *command = lsp_report_file_text(*json, "command");
    if (!command || strcmp(command, "bench") != 0) return refuse(b, "its command is not bench");
    if (!cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(*json, "cells"))) return refuse(b, "it has no cells");
    return LSP_OK;
}

/* ---- its cells ----------------------------------------------------------------------------------- */

static bool has_text(const cJSON *object, const char *name, const char *wanted)
{
    const char *text = lsp_report_file_text(object, name);
    return text && strcmp(text, wanted) == 0;
}

/* The same attention on as many threads; the instruction set may be another. */
static bool is_same(const lsp_bench *b, const lsp_bench_cell *cell, const cJSON *json)
{
    static const char *const masks[] = {"none", "causal", "window"};
    const lsp_attention_desc *d = &cell->desc;
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(json, "shape");
    const struct {
        const char *name;
        int64_t value;
    } sizes[] = {{"batch", d->batch}, {"heads", d->heads}, {"kv_heads", d->kv_heads},
                 {"n", d->n},         {"m", d->m},         {"d_k", d->d_k},
                 {"d_v", d->d_v}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (lsp_report_file_number(shape, sizes[i].name) != (double)sizes[i].value) return false;
    return has_text(json, "limit", cell->limit == LSP_BENCH_FMA ? "fma" : "read") &&
           has_text(json, "dtype", lsp_dtype_name(d->compute)) &&
           has_text(json, "operands", lsp_dtype_name(d->q_type)) && has_text(json, "mask", masks[d->mask]) &&
           lsp_report_file_number(json, "window_left") == (double)d->window_left &&
           lsp_report_file_number(json, "window_right") == (double)d->window_right &&
           lsp_report_file_number(json, "threads") == (double)b->threads[cell->place];
}

static lsp_status take_earlier(lsp_bench *b, lsp_bench_cell *cell, const cJSON *json)
{
    bool fma = cell->limit == LSP_BENCH_FMA;
    lsp_bench_earlier e = {
        .known = true,
        .rate = 1e9 * lsp_report_file_number(json, fma ? "gflops" : "gbytes_per_second"),
        .limit = 1e9 * lsp_report_file_number(json, fma ? "fma_peak_gflops" : "read_gbytes_per_second"),
        .scatter = lsp_report_file_number(json, "scatter")};
    if (!(e.rate > 0 && e.limit > 0 && e.scatter >= 0)) return refuse(b, "a cell lacks its numbers");
    cell->earlier = e;
    return LSP_OK;
}

static lsp_status find_cells(lsp_bench *b, const cJSON *json)
{
    const cJSON *cells = cJSON_GetObjectItemCaseSensitive(json, "cells"), *earlier = NULL;
    bool ranks = lsp_report_file_number(json, "ranks") == (double)b->app->layout.ranks;
    int64_t found = 0;
    for (int64_t i = 0; ranks && i < b->cell_count; i++) {
        cJSON_ArrayForEach(earlier, cells)
        {
            if (!is_same(b, &b->cells[i], earlier)) continue;
            lsp_status status = take_earlier(b, &b->cells[i], earlier);
            if (status != LSP_OK) return status;
            found++;
            break;
        }
    }
    if (found > 0) return LSP_OK;
    return lsp_context_fail(
        b->app->ctx, LSP_ERR_CONTENT,
        "%s has none of the measurements asked for (type, shape, mask, threads, %d rank%s); run "
        "bench with the keys and ranks it was made with",
        b->compare, b->app->layout.ranks, b->app->layout.ranks == 1 ? "" : "s");
}

lsp_status lsp_bench_find_earlier(lsp_bench *b)
{
    lsp_status status = LSP_OK;
    if (b->app->layout.rank == 0) {
        cJSON *json = NULL;
        status = read_report(b, &json);
        if (status == LSP_OK) status = find_cells(b, json);
        cJSON_Delete(json);
    }
    return lsp_context_agree(b->app->ctx, status);
}

bool lsp_bench_is_slower(const lsp_bench_cell *cell)
{
    const lsp_bench_earlier *e = &cell->earlier;
    return e->known && lsp_bench_rate(cell) * (1 + cell->result.scatter + e->scatter) < e->rate;
}
