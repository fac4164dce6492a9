/* longspan generate: synthetic /q, /k and /v. SPDX-License-Identifier: BSD-3-Clause */
#include "app/format.h"
#include "app/report.h"
#include "app/result.h"
#include "app/runs.h"
#include "base/checked.h"
#include "base/clock.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>

enum { TENSORS = 3, PIECE_BYTES = 16 << 20 };

static const char *const names[TENSORS] = {"/q", "/k", "/v"};
static const lsp_tensor_role roles[TENSORS] = {LSP_ROLE_Q, LSP_ROLE_K, LSP_ROLE_V};

typedef struct generate_state {
    lsp_app *app;
    lsp_attention_desc desc; /* for its shape */
    lsp_extent extents[TENSORS];
    int64_t columns[TENSORS];
    lsp_distribution distribution;
    uint64_t seed, checksums[TENSORS];
    lsp_output *output;
} generate_state;

static lsp_status take_options(generate_state *s)
{
    lsp_app *app = s->app;
    lsp_status status = lsp_app_require(app, LSP_KEY_OUTPUT_FILE);
    if (status == LSP_OK) status = lsp_input_take_shape(app, &s->desc);
    const lsp_attention_desc *d = &s->desc;
    for (int i = 0; i < TENSORS; i++) {
        s->extents[i] =
            i == 0 ? (lsp_extent){d->batch, d->heads, 0, d->n} : (lsp_extent){d->batch, d->kv_heads, 0, d->m};
        s->columns[i] = i == 2 ? d->d_v : d->d_k;
    }
    s->distribution = (lsp_distribution)lsp_options_choice(app->options, LSP_KEY_SHAPE_DISTRIBUTION);
    s->seed = (uint64_t)lsp_options_int(app->options, LSP_KEY_SHAPE_SEED);
    return status;
}

/* As few axes as the shape needs, the same for all three. */
static lsp_status create(generate_state *s)
{
    const lsp_attention_desc *d = &s->desc;
    int axes = d->batch > 1 ? 4 : d->heads > 1 ? 3 : 2;
    lsp_output_dataset datasets[TENSORS];
    for (int i = 0; i < TENSORS; i++) {
        const lsp_extent *e = &s->extents[i];
        const int64_t shape[4] = {e->batch, e->heads, e->end, s->columns[i]};
        datasets[i] = lsp_result_dataset(names[i], d->q_type, LSP_VIEW_ROWS, LSP_BHND, axes, shape);
    }
    return lsp_output_create(s->app->ctx, lsp_options_text(s->app->options, LSP_KEY_OUTPUT_FILE),
                             lsp_options_yes(s->app->options, LSP_KEY_OUTPUT_OVERWRITE), datasets, TENSORS,
                             &s->output);
}

/* Rows [first, last) of tensor i; all ranks call this equally often. */
static lsp_status write_piece(generate_state *s, int i, int64_t first, int64_t last, void *buffer)
{
    const lsp_extent *extent = &s->extents[i];
    int64_t count = 0;
    lsp_run *runs = lsp_runs_make(extent, first, last, &count);
    lsp_status status = LSP_OK;
    if (!runs) {
        status = lsp_context_fail(s->app->ctx, LSP_ERR_LIMIT, "no memory for the list of rows");
    } else if (lsp_generate_rows(s->distribution, roles[i], s->seed, s->desc.q_type, extent->heads,
                                 extent->end, s->columns[i], runs, count, buffer) != LSP_OK) {
        status = lsp_context_fail(s->app->ctx, LSP_ERR_USAGE, "%s cannot be made of this shape", names[i]);
    }
    status = lsp_context_agree(s->app->ctx, status);
    if (status == LSP_OK) status = lsp_output_write(s->output, i, runs, count, buffer);
    lsp_memory_free(runs);
    return status;
}

static lsp_status write_tensor(generate_state *s, int i)
{
    lsp_app *app = s->app;
    int64_t first = 0, last = 0, total = lsp_extent_rows(&s->extents[i]);
    size_t row_bytes = (size_t)s->columns[i] * lsp_dtype_size(s->desc.q_type);
    int64_t height = lsp_max(1, PIECE_BYTES / (int64_t)row_bytes);
    int64_t pieces = lsp_ceil_div(lsp_ceil_div(total, app->layout.ranks), height);
    lsp_runs_share(total, app->layout.rank, app->layout.ranks, &first, &last);
    lsp_status status = LSP_OK;
    void *buffer = lsp_app_alloc(app, lsp_min(height, last - first), row_bytes, names[i], &status);
    status = lsp_context_agree(app->ctx, status);
    for (int64_t piece = 0; status == LSP_OK && piece < pieces; piece++) {
        int64_t end = lsp_min(last, first + height);
        status = write_piece(s, i, first, end, buffer);
        first = end;
    }
    lsp_memory_free(buffer);
    if (status == LSP_OK) status = lsp_output_checksum(s->output, i, &s->checksums[i]);
    return status;
}

static lsp_status report(generate_state *s)
{
    lsp_app *app = s->app;
    const char *file = lsp_options_text(app->options, LSP_KEY_OUTPUT_FILE);
    double seconds = lsp_clock() - app->started;
    cJSON *json = lsp_json_begin(app);
    lsp_json_add_shape(json, &s->desc);
    cJSON *times = cJSON_AddObjectToObject(json, "seconds");
    (void)cJSON_AddNumberToObject(times, "total", seconds);
    for (int i = 0; i < TENSORS; i++) {
        static const char *const keys[TENSORS] = {"q_xxh64", "k_xxh64", "v_xxh64"};
        lsp_json_add_checksum(json, keys[i], s->checksums[i]);
    }
    if (app->layout.rank == 0) {
        const char *distribution = lsp_options_text(app->options, LSP_KEY_SHAPE_DISTRIBUTION);
        (void)printf("longspan %s generate: %s, seed %" PRIu64 ", %s\n", lsp_version(), distribution, s->seed,
                     lsp_dtype_name(s->desc.q_type));
        for (int i = 0; i < TENSORS; i++) {
            const lsp_extent *e = &s->extents[i];
            (void)printf("  %s       [%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64 "] xxh64 %016" PRIx64
                         "\n",
                         names[i], e->batch, e->heads, e->end, s->columns[i], s->checksums[i]);
        }
        lsp_summary_unused(app);
    }
    lsp_status status = lsp_json_write(app, json);
    char text[LSP_FORMAT_SIZE];
    if (app->layout.rank == 0 && status == LSP_OK)
        (void)printf("longspan: PASSED, wrote %s in %s\n", file, lsp_format_seconds(seconds, text));
    return status;
}

lsp_status lsp_generate_run(lsp_app *app)
{
    generate_state s = {.app = app};
    lsp_status status = take_options(&s);
    if (status == LSP_OK) status = lsp_json_probe(app);
    if (status == LSP_OK) status = create(&s);
    for (int i = 0; status == LSP_OK && i < TENSORS; i++) status = write_tensor(&s, i);
    if (status == LSP_OK) status = lsp_result_sign(app, s.output);
    if (status == LSP_OK) status = lsp_output_commit(&s.output);
    if (s.output) (void)lsp_output_discard(&s.output);
    return status == LSP_OK ? report(&s) : status;
}
