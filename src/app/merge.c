/* longspan merge: outputs over disjoint key ranges become the exact whole.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "app/format.h"
#include "app/parts.h"
#include "app/report.h"
#include "app/result.h"
#include "app/runs.h"
#include "base/checked.h"
#include "base/clock.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>

enum { PIECE_BYTES = 16 << 20 };

typedef struct merge_state {
    lsp_app *app;
    lsp_parts parts;
    lsp_extent extent;
    lsp_output *output;
    void **out, **lse; /* [parts.count] one piece of each */
    uint64_t out_checksum, lse_checksum;
} merge_state;

static lsp_status create(merge_state *s)
{
    for (int i = 0; i < s->parts.count; i++) {
        const char *const part[] = {s->parts.parts[i].file};
        lsp_status status = lsp_result_check_target(s->app, part, 1);
        if (status != LSP_OK) return status;
    }
    const lsp_tensor_shape *shape = &s->parts.parts[0].shape;
    const int64_t dims[4] = {shape->batch, shape->heads, shape->n, shape->d};
    lsp_output_dataset datasets[2] = {
        lsp_result_dataset("/out", shape->type, LSP_VIEW_ROWS, shape->layout, shape->axes, dims),
        lsp_result_dataset("/lse", shape->type, LSP_VIEW_SCALARS, shape->layout, shape->axes, dims)};
    datasets[LSP_RESULT_OUT].units = "as v";
    datasets[LSP_RESULT_LSE].units = "natural logarithm";
    s->extent = (lsp_extent){shape->batch, shape->heads, 0, shape->n};
    return lsp_output_create(s->app->ctx, lsp_options_text(s->app->options, LSP_KEY_OUTPUT_FILE),
                             lsp_options_yes(s->app->options, LSP_KEY_OUTPUT_OVERWRITE), datasets, 2,
                             &s->output);
}

static lsp_status allocate(merge_state *s, int64_t rows)
{
    const lsp_tensor_shape *shape = &s->parts.parts[0].shape;
    size_t size = lsp_dtype_size(shape->type);
    lsp_status status = LSP_OK;
    s->out = lsp_memory_zalloc(s->parts.count, sizeof *s->out);
    s->lse = lsp_memory_zalloc(s->parts.count, sizeof *s->lse);
    if (!s->out || !s->lse) status = lsp_context_fail(s->app->ctx, LSP_ERR_LIMIT, "no memory for the parts");
    for (int i = 0; status == LSP_OK && i < s->parts.count; i++) {
        s->out[i] = lsp_app_alloc(s->app, rows, size * (size_t)shape->d, "a part's out", &status);
        s->lse[i] = lsp_app_alloc(s->app, rows, size, "a part's lse", &status);
    }
    return lsp_context_agree(s->app->ctx, status);
}

static void release(merge_state *s)
{
    for (int i = 0; i < s->parts.count; i++) {
        if (s->out) lsp_memory_free(s->out[i]);
        if (s->lse) lsp_memory_free(s->lse[i]);
    }
    lsp_memory_free(s->out);
    lsp_memory_free(s->lse);
}

/* Rows [first, last); all ranks call this equally often. */
static lsp_status merge_piece(merge_state *s, int64_t first, int64_t last)
{
    const lsp_tensor_shape *shape = &s->parts.parts[0].shape;
    int64_t count = 0;
    lsp_run *runs = lsp_runs_make(&s->extent, first, last, &count);
    lsp_status status = LSP_OK;
    if (!runs) status = lsp_context_fail(s->app->ctx, LSP_ERR_LIMIT, "no memory for the list of rows");
    status = lsp_context_agree(s->app->ctx, status);
    for (int i = 0; status == LSP_OK && i < s->parts.count; i++) {
        status = lsp_tensor_read(s->parts.parts[i].out, runs, count, s->out[i]);
        if (status == LSP_OK) status = lsp_tensor_read(s->parts.parts[i].lse, runs, count, s->lse[i]);
    }
    if (status == LSP_OK) {
        lsp_merge_rows(shape->type, last - first, shape->d, s->parts.count, (const void *const *)s->out,
                       (const void *const *)s->lse, s->out[0], s->lse[0]);
        status = lsp_output_write(s->output, LSP_RESULT_OUT, runs, count, s->out[0]);
    }
    if (status == LSP_OK) status = lsp_output_write(s->output, LSP_RESULT_LSE, runs, count, s->lse[0]);
    lsp_memory_free(runs);
    return status;
}

static lsp_status merge_all(merge_state *s)
{
    const lsp_context_layout *layout = &s->app->layout;
    const lsp_tensor_shape *shape = &s->parts.parts[0].shape;
    int64_t row_bytes = (shape->d + 1) * (int64_t)lsp_dtype_size(shape->type) * s->parts.count;
    int64_t total = lsp_extent_rows(&s->extent), share = lsp_ceil_div(total, layout->ranks);
    int64_t height = lsp_max(1, lsp_min(share, PIECE_BYTES / row_bytes)), first = 0, last = 0;
    lsp_runs_share(total, layout->rank, layout->ranks, &first, &last);
    lsp_status status = allocate(s, height);
    for (int64_t piece = 0; status == LSP_OK && piece < lsp_ceil_div(share, height); piece++) {
        int64_t end = lsp_min(last, first + height);
        status = merge_piece(s, first, end);
        first = end;
    }
    return status;
}

static lsp_status finish(merge_state *s)
{
    const lsp_part *part = &s->parts.parts[0];
    const struct {
        const char *name;
        int64_t value;
    } numbers[] = {{"row_begin", part->row_begin},
                   {"row_end", part->row_end},
                   {"key_begin", s->parts.key_begin},
                   {"key_end", s->parts.key_end},
                   {"n", part->n},
                   {"m", part->m}};
    char rule[256] = "", heads[256] = "";
    bool found = false;
    lsp_status status = LSP_OK;
    if (s->app->layout.rank == 0) {
        status = lsp_file_attribute_text(s->app->ctx, part->file, "rule", rule, sizeof rule, &found);
        if (status == LSP_OK)
            status = lsp_file_attribute_text(s->app->ctx, part->file, "heads", heads, sizeof heads, &found);
    }
    status = lsp_context_agree(s->app->ctx, status);
    if (status == LSP_OK) {
        lsp_collect_broadcast(s->app->comm, rule, sizeof rule);
        lsp_collect_broadcast(s->app->comm, heads, sizeof heads);
        status = lsp_result_sign(s->app, s->output);
    }
    if (status == LSP_OK) status = lsp_output_attribute_text(s->output, -1, "rule", rule);
    if (status == LSP_OK) status = lsp_output_attribute_text(s->output, -1, "heads", heads);
    for (size_t i = 0; status == LSP_OK && i < sizeof numbers / sizeof *numbers; i++)
        status = lsp_output_attribute_i64(s->output, -1, numbers[i].name, numbers[i].value);
    if (status == LSP_OK) status = lsp_output_checksum(s->output, LSP_RESULT_OUT, &s->out_checksum);
    if (status == LSP_OK) status = lsp_output_checksum(s->output, LSP_RESULT_LSE, &s->lse_checksum);
    return status == LSP_OK ? lsp_output_commit(&s->output) : status;
}

static lsp_status report(merge_state *s)
{
    lsp_app *app = s->app;
    const char *file = lsp_options_text(app->options, LSP_KEY_OUTPUT_FILE);
    double seconds = lsp_clock() - app->started;
    cJSON *json = lsp_json_begin(app);
    cJSON *times = cJSON_AddObjectToObject(json, "seconds");
    (void)cJSON_AddNumberToObject(times, "total", seconds);
    lsp_json_add_checksum(json, "output_xxh64", s->out_checksum);
    lsp_json_add_checksum(json, "lse_xxh64", s->lse_checksum);
    char text[LSP_FORMAT_SIZE];
    if (app->layout.rank == 0) {
        (void)printf("longspan %s merge: %d parts, /out %s\n", lsp_version(), s->parts.count,
                     lsp_format_shape(&s->parts.parts[0].shape, text));
        for (int i = 0; i < s->parts.count; i++)
            (void)printf("  part     %s, keys %" PRId64 ":%" PRId64 "\n", s->parts.parts[i].file,
                         s->parts.parts[i].key_begin, s->parts.parts[i].key_end);
        (void)printf("  output   %s: keys %" PRId64 ":%" PRId64 ", /out xxh64 %016" PRIx64
                     ", /lse xxh64 %016" PRIx64 "\n",
                     file, s->parts.key_begin, s->parts.key_end, s->out_checksum, s->lse_checksum);
        lsp_summary_unused(app);
        if (s->parts.gap)
            (void)printf("  NOTE     some keys between %" PRId64 " and %" PRId64 " are in no part\n",
                         s->parts.key_begin, s->parts.key_end);
    }
    lsp_status status = lsp_json_write(app, json);
    if (app->layout.rank == 0 && status == LSP_OK)
        (void)printf("longspan: PASSED, wrote %s in %s\n", file, lsp_format_seconds(seconds, text));
    return status;
}

lsp_status lsp_merge_run(lsp_app *app)
{
    merge_state s = {.app = app};
    lsp_status status = lsp_app_require(app, LSP_KEY_OUTPUT_FILE);
    if (status == LSP_OK) status = lsp_json_probe(app);
    if (status == LSP_OK) status = lsp_parts_open(app, &s.parts);
    if (status == LSP_OK) status = create(&s);
    if (status == LSP_OK) status = lsp_parts_check(app, &s.parts);
    if (status == LSP_OK) status = merge_all(&s);
    if (status == LSP_OK) status = finish(&s);
    if (s.output) (void)lsp_output_discard(&s.output);
    if (status == LSP_OK) status = report(&s);
    release(&s);
    lsp_parts_close(&s.parts);
    return status;
}
