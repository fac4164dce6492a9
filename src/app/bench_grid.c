/* The cells of longspan bench, from its options. SPDX-License-Identifier: BSD-3-Clause */
#include "app/bench.h"
#include "app/launch.h"
#include "base/checked.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>

enum { WINDOW_KEYS = 512, CELLS_MOST = 10000 };

typedef struct list {
    int64_t items[LSP_ITEMS_MOST], count;
} list;

/* The axes of the grid. */
typedef struct axes {
    list types, d, n, masks;
    int64_t row_keys;
} axes;

static list one(int64_t item)
{
    return (list){{item}, 1};
}

/* `key`, or when only `single` was given, that. */
static list take_list(lsp_app *app, lsp_key key, lsp_key single)
{
    list l = {{0}, 0};
    if (lsp_options_is_set(app->options, key) || !lsp_options_is_set(app->options, single)) {
        l.count = lsp_options_items(app->options, key, l.items);
        return l;
    }
    bool choice = lsp_option_get(single)->kind == LSP_OPTION_CHOICE;
    return one(choice ? lsp_options_choice(app->options, single) : lsp_options_int(app->options, single));
}

/* ---- threads ------------------------------------------------------------------------------------- */

static lsp_status open_context(lsp_bench *b, int place)
{
    lsp_app *app = b->app;
    int64_t threads = b->threads[place], mine = app->layout.threads;
    bool same = lsp_collect_min_i64(app, mine) == threads && lsp_collect_max_i64(app, mine) == threads;
    char text[LSP_ERROR_TEXT] = "";
    if (same) {
        b->contexts[place] = app->ctx;
        return LSP_OK;
    }
    const lsp_context_options options = {.threads = (int)threads};
    lsp_status status = lsp_context_create(app->comm, &options, &b->contexts[place], text, sizeof text);
    return status == LSP_OK ? LSP_OK : lsp_context_fail(app->ctx, status, "%s", text);
}

static lsp_status take_threads(lsp_bench *b)
{
    lsp_app *app = b->app;
    int64_t all = lsp_collect_max_i64(app, app->layout.threads);
    int64_t count = lsp_options_items(app->options, LSP_KEY_BENCH_THREADS, b->threads);
    if (count == 0) {
        bool both = all > 1 && !lsp_options_is_set(app->options, LSP_KEY_COMPUTE_THREADS);
        if (both) b->threads[count++] = 1;
        b->threads[count++] = all;
    }
    lsp_status status = LSP_OK;
    for (; b->place_count < count && status == LSP_OK; b->place_count++)
        status = open_context(b, b->place_count);
    return status;
}

/* ---- cells --------------------------------------------------------------------------------------- */

static const lsp_dtype types[] = {LSP_BF16, LSP_F32, LSP_F64}; /* in the order of the options' words */

static void take_axes(lsp_app *app, axes *a)
{
    a->types = take_list(app, LSP_KEY_BENCH_TYPES, LSP_KEY_COMPUTE_DTYPE);
    a->d = take_list(app, LSP_KEY_BENCH_D, LSP_KEY_SHAPE_D_K);
    a->n = take_list(app, LSP_KEY_BENCH_N, LSP_KEY_SHAPE_N);
    a->masks = take_list(app, LSP_KEY_BENCH_MASKS, LSP_KEY_ATTENTION_MASK);
    a->row_keys = lsp_options_int(app->options, LSP_KEY_BENCH_ROW_KEYS);
}

/* Rows so that a thread has about as much work as one has with 4096. */
static int64_t auto_rows(const lsp_bench *b, int place)
{
    int64_t rows = 4096, workers = b->threads[place] * b->app->layout.ranks;
    for (; workers >= 4; workers /= 4) rows *= 2;
    return rows;
}

/* What all cells have in common. */
static void take_common(lsp_bench *b, lsp_attention_desc *d)
{
    lsp_options *o = b->app->options;
    d->batch = lsp_options_int(o, LSP_KEY_SHAPE_BATCH);
    d->heads = lsp_options_int(o, LSP_KEY_SHAPE_HEADS);
    d->kv_heads = lsp_options_int(o, LSP_KEY_SHAPE_KV_HEADS);
    if (d->kv_heads == 0) d->kv_heads = d->heads;
    d->m = lsp_options_int(o, LSP_KEY_SHAPE_M);
    d->d_v = lsp_options_int(o, LSP_KEY_SHAPE_D_V);
    d->align = (lsp_causal_align)lsp_options_choice(o, LSP_KEY_ATTENTION_CAUSAL_ALIGN);
    d->isa = (lsp_isa)lsp_options_choice(o, LSP_KEY_COMPUTE_ISA);
    d->gather = (lsp_gather_mode)lsp_options_choice(o, LSP_KEY_COMPUTE_GATHER);
    d->partition = (lsp_partition_kind)lsp_options_choice(o, LSP_KEY_COMPUTE_PARTITION);
    d->panel_rows = lsp_options_int(o, LSP_KEY_COMPUTE_PANEL_ROWS);
    d->head_groups = (int)lsp_options_int(o, LSP_KEY_COMPUTE_HEAD_GROUPS);
    d->memory_limit = lsp_launch_memory_limit(b->app, &b->memory_source);
}

/* The cell's own part of its description; m and d_v stay where [shape] gave them. */
static void set_cell(lsp_app *app, lsp_bench_cell *cell, int64_t type, int64_t d_k, int64_t n)
{
    lsp_attention_desc *d = &cell->desc;
    d->compute = types[type];
    bool given = lsp_options_is_set(app->options, LSP_KEY_SHAPE_TYPE);
    lsp_dtype operands = given ? (lsp_dtype)lsp_options_choice(app->options, LSP_KEY_SHAPE_TYPE) : d->compute;
    d->q_type = d->k_type = d->v_type = operands;
    d->d_k = d_k;
    d->n = n;
    if (d->d_v == 0) d->d_v = d_k;
    if (d->m == 0) d->m = n;
}

static void set_mask(lsp_app *app, lsp_attention_desc *d, int64_t mask)
{
    bool given = lsp_options_is_set(app->options, LSP_KEY_ATTENTION_WINDOW_LEFT);
    d->mask = (lsp_mask_kind)mask;
    if (d->mask != LSP_MASK_WINDOW) return;
    d->window_left = given ? lsp_options_int(app->options, LSP_KEY_ATTENTION_WINDOW_LEFT) : WINDOW_KEYS - 1;
    d->window_right = lsp_options_int(app->options, LSP_KEY_ATTENTION_WINDOW_RIGHT);
}

static void add_grid(lsp_bench *b, const axes *a, const lsp_attention_desc *common, int place)
{
    static const list chosen = {{0}, 1};
    const list *n = a->n.count > 0 ? &a->n : &chosen;
    for (int64_t t = 0; t < a->types.count; t++)
        for (int64_t d = 0; d < a->d.count; d++)
            for (int64_t i = 0; i < n->count; i++)
                for (int64_t m = 0; m < a->masks.count; m++) {
                    lsp_bench_cell *cell = &b->cells[b->cell_count++];
                    *cell = (lsp_bench_cell){.desc = *common, .place = place, .limit = LSP_BENCH_FMA};
                    int64_t rows = n->items[i] > 0 ? n->items[i] : auto_rows(b, place);
                    set_cell(b->app, cell, a->types.items[t], a->d.items[d], rows);
                    set_mask(b->app, &cell->desc, a->masks.items[m]);
                }
}

/* One row of each head against many keys: bound by memory. */
static void add_rows(lsp_bench *b, const axes *a, const lsp_attention_desc *common, int place)
{
    for (int64_t t = 0; t < a->types.count && a->row_keys > 0; t++) {
        lsp_bench_cell *cell = &b->cells[b->cell_count++];
        *cell = (lsp_bench_cell){.desc = *common, .place = place, .limit = LSP_BENCH_READ};
        cell->desc.m = a->row_keys;
        set_cell(b->app, cell, a->types.items[t], a->d.items[0], 1);
    }
}

static lsp_status make_cells(lsp_bench *b)
{
    lsp_app *app = b->app;
    axes a = {0};
    lsp_attention_desc common = {0};
    take_axes(app, &a);
    lsp_status status = LSP_OK;
    take_common(b, &common);
    int64_t of_one = a.types.count * (a.d.count * lsp_max(1, a.n.count) * a.masks.count + 1);
    int64_t count = of_one * b->place_count;
    if (count > CELLS_MOST)
        return lsp_context_fail(app->ctx, LSP_ERR_USAGE,
                                "the lists of [bench] make %" PRId64 " measurements, at most %d are possible",
                                count, CELLS_MOST);
    b->cells = lsp_app_alloc(app, count, sizeof *b->cells, "the list of measurements", &status);
    status = lsp_context_agree(app->ctx, status);
    for (int p = 0; status == LSP_OK && p < b->place_count; p++) add_grid(b, &a, &common, p);
    for (int p = 0; status == LSP_OK && p < b->place_count; p++) add_rows(b, &a, &common, p);
    return status;
}

/* Every type on every instruction set that all ranks have. */
static lsp_status make_peaks(lsp_bench *b)
{
    lsp_app *app = b->app;
    int64_t best = lsp_collect_min_i64(app, lsp_isa_best());
    int64_t type_count = sizeof types / sizeof *types;
    lsp_status status = LSP_OK;
    b->peaks = lsp_app_alloc(app, b->place_count * best * type_count, sizeof *b->peaks, "the list of peaks",
                             &status);
    status = lsp_context_agree(app->ctx, status);
    for (int p = 0; status == LSP_OK && p < b->place_count; p++)
        for (int64_t isa = best; isa >= LSP_ISA_PORTABLE; isa--)
            for (int64_t t = 0; t < type_count; t++)
                b->peaks[b->peak_count++] = (lsp_bench_peak){p, (lsp_isa)isa, types[t], 0};
    return status;
}

/* ---- all ----------------------------------------------------------------------------------------- */

lsp_status lsp_bench_open(lsp_app *app, lsp_bench *b)
{
    *b = (lsp_bench){.app = app};
    b->seconds = lsp_options_real(app->options, LSP_KEY_BENCH_SECONDS);
    b->read_bytes = (int64_t)lsp_options_real(app->options, LSP_KEY_BENCH_READ_BYTES);
    b->verify_rows = lsp_options_int(app->options, LSP_KEY_VERIFY_ROWS);
    b->compare = lsp_options_text(app->options, LSP_KEY_BENCH_COMPARE);
    lsp_status status = take_threads(b);
    if (status == LSP_OK) status = make_cells(b);
    return status == LSP_OK ? make_peaks(b) : status;
}

void lsp_bench_close(lsp_bench *b)
{
    for (int p = 0; p < b->place_count; p++)
        if (b->contexts[p] != b->app->ctx) (void)lsp_context_destroy(&b->contexts[p]);
    lsp_memory_free(b->cells);
    lsp_memory_free(b->peaks);
    *b = (lsp_bench){0};
}

double lsp_bench_rate(const lsp_bench_cell *cell)
{
    return cell->result.work / cell->result.seconds_best;
}

const char *lsp_bench_name(const lsp_bench *b, const lsp_bench_cell *cell, char *text)
{
    static const char *const masks[] = {"no mask", "causal", "window"};
    const lsp_attention_desc *d = &cell->desc;
    int64_t threads = b->threads[cell->place];
    (void)snprintf(text, LSP_BENCH_NAME,
                   "%s, d %" PRId64 "/%" PRId64 ", %" PRId64 " x %" PRId64 ", %s, %" PRId64 " thread%s",
                   lsp_dtype_name(d->compute), d->d_k, d->d_v, d->n, d->m, masks[d->mask], threads,
                   threads == 1 ? "" : "s");
    return text;
}
