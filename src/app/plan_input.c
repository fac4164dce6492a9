/* Which command is planned, and what it reads and writes. SPDX-License-Identifier: BSD-3-Clause */
#include "app/compare.h"
#include "app/plan.h"
#include "app/weights.h"
#include "base/checked.h"
#include "base/memory.h"

#include <math.h>
#include <string.h>

/* ---- which command ------------------------------------------------------------------------------- */

typedef struct choice {
    const char *command;
    lsp_plan_kind kind;
    const char
        *section; /* a key of which, when given, tells that the deck is this command's; NULL: none does */
} choice;

static const choice choices[] = {{"layer", LSP_PLAN_LAYER, "layer"},
                                 {"map", LSP_PLAN_MAP, "map"},
                                 {"compare", LSP_PLAN_ATTEND, "compare"},
                                 {"svd", LSP_PLAN_SVD, NULL},
                                 {"attend", LSP_PLAN_ATTEND, NULL}};
enum { CHOICES = sizeof choices / sizeof *choices };

static const char *given_in(const lsp_options *options, const char *section)
{
    for (int key = 0; section && key < LSP_KEY_COUNT; key++)
        if (lsp_options_is_set(options, (lsp_key)key) &&
            strcmp(lsp_option_get((lsp_key)key)->section, section) == 0)
            return section;
    return NULL;
}

/* A rank, or a tolerance, and no method that takes it; or what svd alone takes. */
static bool is_svd(const lsp_options *options)
{
    bool ranked = lsp_options_is_set(options, LSP_KEY_ATTENTION_RANK) ||
                  lsp_options_is_set(options, LSP_KEY_ATTENTION_TOLERANCE);
    return lsp_options_is_set(options, LSP_KEY_OUTPUT_VECTORS) ||
           (ranked && !lsp_options_is_set(options, LSP_KEY_ATTENTION_METHOD));
}

static const choice *choose(lsp_plan_job *job)
{
    lsp_options *options = job->app->options;
    const char *asked = lsp_options_text(options, LSP_KEY_PLAN_COMMAND);
    job->why = "plan.command";
    for (int i = 0; i < CHOICES; i++)
        if (strcmp(asked, choices[i].command) == 0) return &choices[i];
    for (int i = 0; i < CHOICES; i++) {
        const choice *c = &choices[i];
        job->why = given_in(options, c->section);
        if (job->why) return c;
        if (c->kind == LSP_PLAN_SVD && is_svd(options)) {
            job->why =
                lsp_options_is_set(options, LSP_KEY_OUTPUT_VECTORS) ? "output.vectors" : "attention.rank";
            return c;
        }
    }
    job->why = NULL;
    return &choices[CHOICES - 1];
}

/* Keys of the planned command that say nothing about what it takes are no mistake. */
static void forgive(const lsp_plan_job *job)
{
    static const char *const sections[] = {"output", "report",  "checkpoint", "verify",
                                           "map",    "compare", "input"};
    for (int key = 0; key < LSP_KEY_COUNT; key++) {
        const lsp_option *option = lsp_option_get((lsp_key)key);
        if (!(option->commands & job->as.command->uses)) continue;
        for (size_t i = 0; i < sizeof sections / sizeof *sections; i++)
            if (strcmp(option->section, sections[i]) == 0)
                (void)lsp_options_text(job->app->options, (lsp_key)key);
    }
}

/* ---- items --------------------------------------------------------------------------------------- */

static lsp_status take_one(lsp_plan_job *job, const lsp_attention_desc *desc)
{
    lsp_status status = LSP_OK;
    job->items = lsp_app_alloc(job->app, 1, sizeof *job->items, "the plan", &status);
    if (status == LSP_OK) {
        job->items[0] = (lsp_plan_item){*desc, 1};
        job->items[0].desc.keep_values = true; /* as attend does with its default of verify.rows */
        job->count = 1;
    }
    return lsp_context_agree(job->app->ctx, status);
}

static lsp_status take_compared(lsp_plan_job *job)
{
    lsp_compare_job compare = {.app = &job->as, .input = job->input};
    double repeats = (double)lsp_options_int(job->app->options, LSP_KEY_COMPARE_REPEATS);
    lsp_status status = lsp_context_agree(job->app->ctx, lsp_compare_items(&compare));
    if (status == LSP_OK) {
        job->items = lsp_app_alloc(job->app, compare.count, sizeof *job->items, "the plan", &status);
        for (int64_t i = 0; status == LSP_OK && i < compare.count; i++)
            job->items[job->count++] = (lsp_plan_item){compare.items[i].desc, repeats};
    }
    lsp_memory_free(compare.items);
    lsp_memory_free(compare.results);
    lsp_memory_free(compare.front);
    lsp_memory_free(compare.heads);
    return lsp_context_agree(job->app->ctx, status);
}

/* As the command checks and takes them. */
static lsp_status take_svd(lsp_plan_job *job)
{
    lsp_app *app = job->app;
    lsp_attention_desc *d = &job->input.desc;
    bool ranked = lsp_options_is_set(app->options, LSP_KEY_ATTENTION_RANK);
    if (!ranked && !lsp_options_is_set(app->options, LSP_KEY_ATTENTION_TOLERANCE))
        return lsp_context_fail(app->ctx, LSP_ERR_USAGE,
                                "attention.rank is missing: say how many singular values to keep, or give "
                                "attention.tolerance, the relative error that chooses their number");
    lsp_input_take_truncation(&job->as, d);
    int64_t most = lsp_min(d->row_end - d->row_begin, d->key_end - d->key_begin), rank = 0;
    lsp_status status = ranked ? lsp_app_require_one(&job->as, LSP_KEY_ATTENTION_RANK, &rank) : LSP_OK;
    d->rank = ranked ? lsp_min(rank, most) : 0;
    if (d->svd == LSP_SVD_FULL) d->compute = LSP_F64;
    d->d_v = d->d_k;
    d->v_type = d->k_type;
    return status;
}

/* ---- input --------------------------------------------------------------------------------------- */

/* A layer from [shape] and [layer]: d_k is the columns of a head, d_model those of all. */
static lsp_status layer_from_shape(lsp_plan_job *job)
{
    lsp_layer_input *in = &job->layer;
    lsp_attention_desc *a = &in->rule.desc;
    lsp_status status = lsp_layer_input_take_heads(&job->as, a);
    int64_t heads = a->heads, kv_heads = a->kv_heads;
    if (status == LSP_OK) status = lsp_input_take_shape(&job->as, a);
    if (status != LSP_OK) return status;
    in->desc.cross = lsp_options_is_set(job->app->options, LSP_KEY_SHAPE_M);
    a->heads = heads;
    a->kv_heads = kv_heads;
    a->d_v = a->d_k;
    in->rule.head_total = heads;
    in->desc.d_model = heads * a->d_k;
    in->desc.x_type = in->desc.context_type = a->q_type;
    status = lsp_input_take_rule(&job->as, &in->rule);
    in->desc.attention = *a;
    return status;
}

static lsp_status open_layer(lsp_plan_job *job)
{
    lsp_layer_input *in = &job->layer;
    lsp_status status = job->from_shape ? layer_from_shape(job) : lsp_layer_input_look(&job->as, in);
    if (status != LSP_OK) return status;
    lsp_attention_desc *a = &in->desc.attention;
    double d = (double)a->d_k, model = (double)in->desc.d_model, batch = (double)a->batch, element = 4;
    double weights = model * d * (double)(2 * a->heads + 2 * a->kv_heads);
    for (int i = 0; i < LSP_WEIGHT_COUNT; i++)
        if (in->parts[i].tensor && in->parts[i].shape.type == LSP_F64) element = 8;
    a->q_type = a->k_type = a->v_type = lsp_dtype_result(a->compute);
    if (a->row_end == 0) a->row_end = a->n;
    if (a->key_end == 0) a->key_end = a->m;
    job->d_model = in->desc.d_model;
    job->input_bytes =
        batch * (double)a->n * model * (double)lsp_dtype_size(in->desc.x_type) + element * weights;
    if (in->desc.cross)
        job->input_bytes += batch * (double)a->m * model * (double)lsp_dtype_size(in->desc.context_type);
    job->output_bytes = batch * (double)a->n * model * (double)lsp_dtype_size(lsp_dtype_result(a->compute));
    return take_one(job, a);
}

static lsp_status count_output(lsp_plan_job *job, double rows, double keys)
{
    lsp_options *o = job->app->options;
    const lsp_attention_desc *d = &job->items[0].desc;
    double size = (double)lsp_dtype_size(lsp_dtype_result(d->compute)), heads = (double)(d->batch * d->heads);
    double pixels = (double)lsp_options_int(o, LSP_KEY_MAP_PIXELS);
    bool lse = lsp_options_yes(o, LSP_KEY_OUTPUT_LSE), file = *lsp_options_text(o, LSP_KEY_OUTPUT_FILE);
    if (job->compares || (!file && !job->from_shape && job->kind != LSP_PLAN_ATTEND)) return LSP_OK;
    if (job->kind == LSP_PLAN_MAP) {
        double wide = fmin(pixels, rows / heads) * fmin(pixels, keys / heads);
        job->output_bytes = size * (heads * 2 * wide + rows * (lse ? 6 : 5) + keys);
        return LSP_OK;
    }
    if (job->kind == LSP_PLAN_SVD) {
        bool vectors = lsp_options_yes(o, LSP_KEY_OUTPUT_VECTORS);
        job->output_bytes = 8 * (double)d->rank * (heads + (vectors ? rows + keys : 0));
        return LSP_OK;
    }
    lsp_weights weights;
    job->output_bytes = rows * size * ((double)d->d_v + (lse ? 1 : 0));
    lsp_status status = lsp_weights_open(&job->as, d, &weights);
    if (status == LSP_OK) job->output_bytes += lsp_weights_bytes(&weights, d);
    lsp_weights_free(&weights);
    return status;
}

static lsp_status open_tensors(lsp_plan_job *job)
{
    lsp_input *input = &job->input;
    lsp_status status =
        job->from_shape ? lsp_input_from_shape(&job->as, input) : lsp_input_open(&job->as, input);
    if (status == LSP_OK && job->kind == LSP_PLAN_SVD) status = take_svd(job);
    if (status == LSP_OK) status = job->compares ? take_compared(job) : take_one(job, &input->desc);
    if (status != LSP_OK) return status;
    const lsp_attention_desc *d = &job->items[0].desc;
    double rows = (double)(d->batch * d->heads) * (double)(d->row_end - d->row_begin);
    double length = (double)(d->key_end - d->key_begin), keys = (double)(d->batch * d->kv_heads) * length;
    if (job->kind == LSP_PLAN_SVD) keys = (double)(d->batch * d->heads) * length; /* read for each head */
    job->input_bytes = rows * (double)d->d_k * (double)lsp_dtype_size(d->q_type) +
                       keys * (double)d->d_k * (double)lsp_dtype_size(d->k_type);
    if (job->kind == LSP_PLAN_ATTEND)
        job->input_bytes += keys * (double)d->d_v * (double)lsp_dtype_size(d->v_type);
    return count_output(job, rows, (double)(d->batch * d->heads) * length);
}

lsp_status lsp_plan_input_open(lsp_plan_job *job)
{
    const choice *c = choose(job);
    job->as = *job->app;
    job->as.command = lsp_command_find(c->command);
    job->kind = c->kind;
    job->compares = strcmp(c->command, "compare") == 0;
    job->from_shape = lsp_options_is_set(job->app->options, LSP_KEY_SHAPE_N);
    job->verify_rows = lsp_options_int(job->app->options, LSP_KEY_VERIFY_ROWS);
    lsp_status status = job->kind == LSP_PLAN_LAYER ? open_layer(job) : open_tensors(job);
    forgive(job);
    return status;
}

void lsp_plan_input_close(lsp_plan_job *job)
{
    lsp_memory_free(job->items);
    lsp_input_close(&job->input);
    lsp_layer_input_close(&job->layer);
}
