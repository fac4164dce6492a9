/* longspan bench --compare: what an earlier report says of the same cells. SPDX-License-Identifier: BSD-3-Clause */
#include "app/bench.h"
#include "base/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { REPORT_MOST = 64 << 20 };

/* ---- the file ------------------------------------------------------------------------------------ */

static lsp_status refuse(lsp_bench *b, const char *why)
{
    return lsp_context_fail(
        b->app->ctx, LSP_ERR_CONTENT,
        "%s is no report of longspan bench: %s; --compare takes what --report.json=FILE of an "
        "earlier bench wrote",
        b->compare, why);
}

static lsp_status read_stream(lsp_bench *b, FILE *stream, char **text)
{
    size_t room = 1 << 16, length = 0;
    lsp_status status = LSP_OK;
    char *buffer = lsp_app_alloc(b->app, (int64_t)room, 1, "the earlier report", &status);
    while (status == LSP_OK) {
        length += fread(buffer + length, 1, room - 1 - length, stream);
        if (length < room - 1) break;
        if (room >= REPORT_MOST) {
            status = refuse(b, "it is too long");
            break;
        }
        char *larger = lsp_app_alloc(b->app, (int64_t)room * 2, 1, "the earlier report", &status);
        if (!larger) break;
        memcpy(larger, buffer, length);
        lsp_memory_free(buffer);
        buffer = larger;
        room *= 2;
    }
    if (status == LSP_OK && ferror(stream))
        status = lsp_context_fail(b->app->ctx, LSP_ERR_FILE, "the report %s cannot be read: %s", b->compare,
                                  strerror(errno));
    if (status != LSP_OK) {
        lsp_memory_free(buffer);
        return status;
    }
    buffer[length] = '\0';
    *text = buffer;
    return LSP_OK;
}

static lsp_status read_report(lsp_bench *b, cJSON **json)
{
    FILE *stream = fopen(b->compare, "rb");
    if (!stream)
        return lsp_context_fail(b->app->ctx, LSP_ERR_FILE,
                                "the report %s cannot be opened: %s; check --compare", b->compare,
                                strerror(errno));
    char *text = NULL;
    lsp_status status = read_stream(b, stream, &text);
    (void)fclose(stream);
    if (status != LSP_OK) return status;
    *json = cJSON_Parse(text);
    lsp_memory_free(text);
    if (!*json) return refuse(b, "it is not JSON");
    const char *command = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(*json, "command"));
    if (!command || strcmp(command, "bench") != 0) return refuse(b, "its command is not bench");
    if (!cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(*json, "cells"))) return refuse(b, "it has no cells");
    return LSP_OK;
}

/* ---- its cells ----------------------------------------------------------------------------------- */

/* NaN when there is no such number. */
static double number_of(const cJSON *object, const char *name)
{
    return cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(object, name));
}

static bool has_text(const cJSON *object, const char *name, const char *wanted)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
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
        if (number_of(shape, sizes[i].name) != (double)sizes[i].value) return false;
    return has_text(json, "limit", cell->limit == LSP_BENCH_FMA ? "fma" : "read") &&
           has_text(json, "dtype", lsp_dtype_name(d->compute)) &&
           has_text(json, "operands", lsp_dtype_name(d->q_type)) && has_text(json, "mask", masks[d->mask]) &&
           number_of(json, "window_left") == (double)d->window_left &&
           number_of(json, "window_right") == (double)d->window_right &&
           number_of(json, "threads") == (double)b->threads[cell->place];
}

static lsp_status take_earlier(lsp_bench *b, lsp_bench_cell *cell, const cJSON *json)
{
    bool fma = cell->limit == LSP_BENCH_FMA;
    lsp_bench_earlier e = {.known = true,
                           .rate = 1e9 * number_of(json, fma ? "gflops" : "gbytes_per_second"),
                           .limit = 1e9 * number_of(json, fma ? "fma_peak_gflops" : "read_gbytes_per_second"),
                           .scatter = number_of(json, "scatter")};
    if (!(e.rate > 0 && e.limit > 0 && e.scatter >= 0)) return refuse(b, "a cell lacks its numbers");
    cell->earlier = e;
    return LSP_OK;
}

static lsp_status find_cells(lsp_bench *b, const cJSON *json)
{
    const cJSON *cells = cJSON_GetObjectItemCaseSensitive(json, "cells"), *earlier = NULL;
    bool ranks = number_of(json, "ranks") == (double)b->app->layout.ranks;
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
