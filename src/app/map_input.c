/* What a map is made of: q and k in files, or a layer's input and weights that they are projected from.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "app/launch.h"
#include "app/layer.h"
#include "app/map.h"
#include "app/operands.h"
#include "base/clock.h"
#include "base/memory.h"

/* A layer's input, until q and k are there. */
struct lsp_map_layer {
    lsp_layer_input input;
    lsp_layer *layer;
    void *rows[2]; /* x and context */
};

/* ---- which of the two ---------------------------------------------------------------------------- */

/* A key that is given and speaks of a layer; LSP_KEY_COUNT: none. */
static lsp_key layer_key(const lsp_options *options)
{
    static const lsp_key keys[] = {LSP_KEY_INPUT_X, LSP_KEY_INPUT_CONTEXT, LSP_KEY_INPUT_LAYER_WEIGHTS};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (lsp_options_is_set(options, keys[i])) return keys[i];
    for (int key = LSP_KEY_LAYER_HEADS; key <= LSP_KEY_LAYER_QK_NORM_EPS; key++)
        if (lsp_options_is_set(options, (lsp_key)key)) return (lsp_key)key;
    return LSP_KEY_COUNT;
}

static lsp_status check_choice(lsp_app *app, lsp_key layer)
{
    static const lsp_key operands[] = {LSP_KEY_INPUT_Q, LSP_KEY_INPUT_K};
    const lsp_option *named = lsp_option_get(layer);
    for (int i = 0; i < 2; i++)
        if (lsp_options_is_set(app->options, operands[i]))
            return lsp_context_fail(
                app->ctx, LSP_ERR_USAGE,
                "%s: input.%s and %s.%s are both given: a map is either of q and k, or of a layer's x and "
                "weights; leave one out",
                lsp_options_origin(app->options, operands[i]), lsp_option_get(operands[i])->name,
                named->section, named->name);
    return LSP_OK;
}

/* ---- opening ------------------------------------------------------------------------------------- */

static lsp_status open_layer(lsp_map_job *job)
{
    lsp_app *app = job->app;
    lsp_status status = LSP_OK;
    struct lsp_map_layer *l = job->layer = lsp_memory_zalloc(1, sizeof *job->layer);
    if (!l) status = lsp_context_fail(app->ctx, LSP_ERR_LIMIT, "no memory for a layer's input");
    status = lsp_context_agree(app->ctx, status);
    if (status == LSP_OK) status = lsp_layer_input_open(app, &l->input);
    if (status != LSP_OK) return status;
    const lsp_attention_desc *a = &l->input.desc.attention;
    lsp_input *input = &job->input;
    input->head_total = a->heads;
    input->q.shape.axes = l->input.x.shape.axes + 1; /* heads stand before the rows */
    input->q.shape.layout = LSP_BHND;
    lsp_dtype type = lsp_dtype_result(a->compute);
    input->desc = (lsp_attention_desc){.batch = a->batch,
                                       .heads = a->heads,
                                       .kv_heads = a->kv_heads,
                                       .n = a->n,
                                       .m = a->m,
                                       .d_k = a->d_k,
                                       .d_v = a->d_v,
                                       .q_type = type,
                                       .k_type = type,
                                       .v_type = type};
    status = lsp_input_select(app, input);
    return status == LSP_OK ? lsp_input_take_rule(app, input) : status;
}

lsp_status lsp_map_input_open(lsp_map_job *job)
{
    lsp_key layer = layer_key(job->app->options);
    if (layer == LSP_KEY_COUNT) return lsp_input_open(job->app, &job->input);
    lsp_status status = check_choice(job->app, layer);
    return status == LSP_OK ? open_layer(job) : status;
}

void lsp_map_input_close(lsp_map_job *job)
{
    if (job->layer) {
        (void)lsp_layer_destroy(&job->layer->layer);
        for (int i = 0; i < 2; i++) lsp_memory_free(job->layer->rows[i]);
        lsp_layer_input_close(&job->layer->input);
    }
    lsp_memory_free(job->layer);
    job->layer = NULL;
    lsp_input_close(&job->input);
}

int lsp_map_input_files(const lsp_map_job *job, const char *files[3])
{
    if (!job->layer) {
        files[0] = job->input.q.file, files[1] = job->input.k.file;
        return 2;
    }
    const lsp_layer_input *in = &job->layer->input;
    files[0] = in->x.file, files[1] = in->weights_file, files[2] = in->context.file;
    return in->desc.cross ? 3 : 2;
}

/* ---- reading ------------------------------------------------------------------------------------- */

/* This rank's rows of x (0) or the context (1), a batch standing where the file has its heads. */
static lsp_status read_rows(lsp_map_job *job, int which)
{
    struct lsp_map_layer *l = job->layer;
    const lsp_layer_desc *desc = &l->input.desc;
    const lsp_run *runs = NULL;
    int64_t count = 0, rows = 0;
    lsp_status status = LSP_OK;
    lsp_layer_runs(l->layer, which == 0 ? LSP_LAYER_X : LSP_LAYER_CONTEXT, &runs, &count, &rows);
    lsp_run *mapped = lsp_app_alloc(job->app, count, sizeof *mapped, "the list of rows", &status);
    lsp_dtype type = which == 0 ? desc->x_type : desc->context_type;
    l->rows[which] = lsp_app_alloc(job->app, rows, (size_t)desc->d_model * lsp_dtype_size(type),
                                   which == 0 ? "x" : "the context", &status);
    status = lsp_context_agree(job->app->ctx, status);
    for (int64_t i = 0; status == LSP_OK && i < count; i++)
        mapped[i] = (lsp_run){0, runs[i].batch, runs[i].begin, runs[i].count};
    if (status == LSP_OK)
        status = lsp_operands_read_source(job->app, which == 0 ? &l->input.x : &l->input.context, mapped,
                                          count, NULL, l->rows[which], &job->nonfinite);
    lsp_memory_free(mapped);
    return status;
}

/* The map's runs, in heads of the layer (lsp_memory_free). */
static lsp_run *in_heads(lsp_map_job *job, const lsp_run *runs, int64_t count, const int64_t *heads,
                         lsp_status *status)
{
    lsp_run *mapped = lsp_app_alloc(job->app, count, sizeof *mapped, "the list of rows", status);
    for (int64_t i = 0; mapped && i < count; i++) {
        mapped[i] = runs[i];
        if (heads) mapped[i].head = heads[runs[i].head];
    }
    return mapped;
}

static lsp_status project(lsp_map_job *job)
{
    struct lsp_map_layer *l = job->layer;
    lsp_status status = LSP_OK;
    lsp_layer_stats stats = {0};
    double begin = lsp_clock();
    lsp_run *queries = in_heads(job, job->query_runs, job->query_run_count, job->input.heads, &status);
    lsp_run *keys = in_heads(job, job->key_runs, job->key_run_count, job->input.kv_heads, &status);
    status = lsp_context_agree(job->app->ctx, status);
    lsp_layer_target q = {queries, job->query_run_count, job->q}, k = {keys, job->key_run_count, job->k};
    if (status == LSP_OK)
        status =
            lsp_layer_project(l->layer, l->rows[0], l->input.desc.cross ? l->rows[1] : NULL, &q, &k, &stats);
    lsp_memory_free(queries);
    lsp_memory_free(keys);
    job->project_seconds = lsp_clock() - begin;
    return status;
}

static lsp_status read_layer(lsp_map_job *job)
{
    struct lsp_map_layer *l = job->layer;
    double begin = lsp_clock();
    l->input.desc.attention.memory_limit = job->input.desc.memory_limit;
    job->nonfinite = l->input.nonfinite;
    lsp_status status = lsp_layer_create(job->app->ctx, &l->input.desc, &l->input.weights, &l->layer);
    if (status == LSP_OK) status = read_rows(job, 0);
    if (status == LSP_OK && l->input.desc.cross) status = read_rows(job, 1);
    job->seconds[LSP_PHASE_READ] += lsp_clock() - begin;
    if (status == LSP_OK) status = project(job);
    /* What the map needs from here on is q and k alone. */
    for (int i = 0; i < 2; i++) {
        lsp_memory_free(l->rows[i]);
        l->rows[i] = NULL;
    }
    (void)lsp_layer_destroy(&l->layer);
    return status;
}

static lsp_status read_files(lsp_map_job *job)
{
    lsp_app *app = job->app;
    const lsp_input *input = &job->input;
    double begin = lsp_clock();
    lsp_status status = lsp_operands_read_source(app, &input->q, job->query_runs, job->query_run_count,
                                                 input->heads, job->q, &job->nonfinite);
    if (status == LSP_OK)
        status = lsp_operands_read_source(app, &input->k, job->key_runs, job->key_run_count, input->kv_heads,
                                          job->k, &job->nonfinite);
    job->seconds[LSP_PHASE_READ] += lsp_clock() - begin;
    return status;
}

lsp_status lsp_map_input_read(lsp_map_job *job)
{
    lsp_app *app = job->app;
    const lsp_attention_desc *d = &job->input.desc;
    lsp_status status =
        lsp_map_runs(job->map, LSP_QUERIES, &job->query_runs, &job->query_run_count, &job->query_rows);
    if (status == LSP_OK)
        status = lsp_map_runs(job->map, LSP_KEYS, &job->key_runs, &job->key_run_count, &job->key_rows);
    size_t d_k = (size_t)d->d_k;
    job->q = lsp_app_alloc(app, job->query_rows, d_k * lsp_dtype_size(d->q_type), "q", &status);
    job->k = lsp_app_alloc(app, job->key_rows, d_k * lsp_dtype_size(d->k_type), "k", &status);
    job->heads = lsp_app_alloc(app, job->count, sizeof *job->heads, "the list of heads", &status);
    status = lsp_context_agree(app->ctx, status);
    if (status != LSP_OK) return status;
    return job->layer ? read_layer(job) : read_files(job);
}
