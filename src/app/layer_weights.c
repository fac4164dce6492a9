/* The weights of a layer, under PyTorch's names. SPDX-License-Identifier: BSD-3-Clause */
#include "app/format.h"
#include "app/layer.h"
#include "app/operands.h"
#include "base/checked.h"
#include "base/convert.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *const names[LSP_WEIGHT_COUNT] = {
    [LSP_WEIGHT_QKV] = "qkv_proj.weight",  [LSP_WEIGHT_QKV_BIAS] = "qkv_proj.bias",
    [LSP_WEIGHT_OUT] = "out_proj.weight",  [LSP_WEIGHT_OUT_BIAS] = "out_proj.bias",
    [LSP_WEIGHT_Q_NORM] = "q_norm.weight", [LSP_WEIGHT_K_NORM] = "k_norm.weight"};

static bool is_matrix(int part)
{
    return part == LSP_WEIGHT_QKV || part == LSP_WEIGHT_OUT;
}

/* ---- what is there ------------------------------------------------------------------------------- */

/* FILE, or FILE:/group; without a value input.file. */
static lsp_status find_file(lsp_app *app, lsp_layer_input *input)
{
    const char *value = lsp_options_text(app->options, LSP_KEY_INPUT_LAYER_WEIGHTS), *group = NULL;
    if (!*value) {
        lsp_status status = lsp_app_require(app, LSP_KEY_INPUT_FILE);
        if (status != LSP_OK) return status;
        value = lsp_options_text(app->options, LSP_KEY_INPUT_FILE);
    } else {
        for (const char *at = strstr(value, ":/"); at; at = strstr(at + 1, ":/")) group = at;
    }
    input->weights_file = lsp_memory_strdup(value);
    input->weights_group = lsp_memory_strdup(group ? group + 1 : "");
    lsp_status status = LSP_OK;
    if (!input->weights_file || !input->weights_group)
        status = lsp_context_fail(app->ctx, LSP_ERR_LIMIT, "no memory for the name of the weights");
    status = lsp_context_agree(app->ctx, status);
    if (status != LSP_OK) return status;
    if (group) input->weights_file[group - value] = '\0';
    size_t length = strlen(input->weights_group);
    while (length > 0 && input->weights_group[length - 1] == '/') input->weights_group[--length] = '\0';
    return LSP_OK;
}

typedef struct name_search {
    const char *group;
    bool found[LSP_WEIGHT_COUNT];
} name_search;

static void see_dataset(void *user, const lsp_file_dataset *dataset)
{
    name_search *search = user;
    size_t length = strlen(search->group);
    if (strncmp(dataset->path, search->group, length) != 0 || dataset->path[length] != '/') return;
    for (int i = 0; i < LSP_WEIGHT_COUNT; i++)
        if (strcmp(dataset->path + length + 1, names[i]) == 0) search->found[i] = true;
}

/* Which datasets there are: rank 0 looks. */
static lsp_status find_parts(lsp_app *app, const lsp_layer_input *input, bool found[LSP_WEIGHT_COUNT])
{
    name_search search = {.group = input->weights_group};
    lsp_status status = LSP_OK;
    if (app->layout.rank == 0)
        status = lsp_file_datasets(app->ctx, input->weights_file, see_dataset, &search);
    status = lsp_context_agree(app->ctx, status);
    if (status != LSP_OK) return status;
    lsp_collect_broadcast(app->comm, search.found, sizeof search.found);
    memcpy(found, search.found, sizeof search.found);
    return LSP_OK;
}

/* Which of them are wanted: a matrix that is missing is told by opening it. */
static lsp_status choose_parts(lsp_app *app, const lsp_layer_input *input, bool wanted[LSP_WEIGHT_COUNT])
{
    enum { AUTO, YES, NO };
    int bias = lsp_options_choice(app->options, LSP_KEY_LAYER_BIAS);
    bool norm = lsp_options_yes(app->options, LSP_KEY_LAYER_QK_NORM);
    lsp_status status = find_parts(app, input, wanted);
    if (status != LSP_OK) return status;
    wanted[LSP_WEIGHT_QKV] = wanted[LSP_WEIGHT_OUT] = true;
    wanted[LSP_WEIGHT_Q_NORM] = wanted[LSP_WEIGHT_Q_NORM] && norm;
    wanted[LSP_WEIGHT_K_NORM] = wanted[LSP_WEIGHT_K_NORM] && norm;
    const int biases[] = {LSP_WEIGHT_QKV_BIAS, LSP_WEIGHT_OUT_BIAS};
    for (int i = 0; status == LSP_OK && i < 2; i++) {
        if (bias == YES && !wanted[biases[i]])
            status = lsp_context_fail(
                app->ctx, LSP_ERR_CONTENT,
                "layer.bias = yes, but %s has no %s/%s; set layer.bias = auto to go on without",
                input->weights_file, input->weights_group, names[biases[i]]);
        if (bias == NO) wanted[biases[i]] = false;
    }
    return status;
}

/* ---- shapes -------------------------------------------------------------------------------------- */

static lsp_status open_part(lsp_app *app, lsp_layer_input *input, int part)
{
    lsp_source *source = &input->parts[part];
    size_t size = strlen(input->weights_group) + strlen(names[part]) + 2;
    source->file = lsp_memory_strdup(input->weights_file);
    source->dataset = lsp_memory_alloc((int64_t)size, 1);
    lsp_status status = LSP_OK;
    if (!source->file || !source->dataset)
        status = lsp_context_fail(app->ctx, LSP_ERR_LIMIT, "no memory for the name of %s", names[part]);
    else
        (void)snprintf(source->dataset, size, "%s/%s", input->weights_group, names[part]);
    status = lsp_context_agree(app->ctx, status);
    if (status == LSP_OK)
        status =
            lsp_tensor_open(app->ctx, source->file, source->dataset,
                            is_matrix(part) ? LSP_VIEW_ROWS : LSP_VIEW_SCALARS, LSP_BHND, &source->tensor);
    if (status == LSP_OK) source->shape = lsp_tensor_get_shape(source->tensor);
    return status;
}

static lsp_status refuse(lsp_app *app, const lsp_source *source, const char *reason)
{
    char shape[LSP_FORMAT_SIZE];
    return lsp_context_fail(app->ctx, LSP_ERR_CONTENT, "%s of %s is %s; %s", source->dataset, source->file,
                            lsp_format_shape(&source->shape, shape), reason);
}

/* rows, columns: what the part must have; a vector has rows alone. */
static lsp_status check_part(lsp_app *app, const lsp_layer_input *input, int part, int64_t rows,
                             int64_t columns)
{
    const lsp_source *source = &input->parts[part];
    const lsp_tensor_shape *s = &source->shape;
    const lsp_attention_desc *a = &input->rule.desc;
    char reason[400];
    if (s->type != LSP_F32 && s->type != LSP_F64)
        return refuse(app, source, "weights of a layer must be f32 or f64: convert them");
    if (s->axes == (is_matrix(part) ? 2 : 1) && s->n == rows && (!is_matrix(part) || s->d == columns))
        return LSP_OK;
    if (is_matrix(part))
        (void)snprintf(reason, sizeof reason,
                       "wanted is [%" PRId64 ", %" PRId64 "], by d_model = %" PRId64
                       " of x, layer.heads = %" PRId64 ", layer.kv_heads = %" PRId64
                       " and head_dim = %" PRId64 " of qkv_proj.weight",
                       rows, columns, input->desc.d_model, a->heads, a->kv_heads, a->d_k);
    else
        (void)snprintf(reason, sizeof reason, "wanted is [%" PRId64 "], as the weights have it", rows);
    return refuse(app, source, reason);
}

static lsp_status find_head_dim(lsp_app *app, lsp_layer_input *input)
{
    const lsp_source *source = &input->parts[LSP_WEIGHT_QKV];
    const lsp_tensor_shape *s = &source->shape;
    lsp_attention_desc *a = &input->rule.desc;
    int64_t heads = a->heads + 2 * a->kv_heads;
    char reason[300];
    if (s->axes == 2 && s->d == input->desc.d_model && s->n % heads == 0) {
        a->d_k = a->d_v = s->n / heads;
        return LSP_OK;
    }
    if (s->axes == 2 && s->d != input->desc.d_model)
        (void)snprintf(reason, sizeof reason, "its columns must be d_model, which is %" PRId64 " by %s of %s",
                       input->desc.d_model, input->x.dataset, input->x.file);
    else
        (void)snprintf(reason, sizeof reason,
                       "its rows must be (heads + 2 kv_heads) head_dim, a multiple of %" PRId64
                       " by layer.heads = %" PRId64 " and layer.kv_heads = %" PRId64,
                       heads, a->heads, a->kv_heads);
    return refuse(app, source, reason);
}

static lsp_status check_parts(lsp_app *app, lsp_layer_input *input)
{
    lsp_status status = find_head_dim(app, input);
    if (status != LSP_OK) return status;
    const lsp_attention_desc *a = &input->rule.desc;
    int64_t d = a->d_k, columns = (a->heads + 2 * a->kv_heads) * d, d_model = input->desc.d_model;
    const int64_t rows[LSP_WEIGHT_COUNT] = {columns, columns, d_model, d_model, d, d};
    const int64_t depth[LSP_WEIGHT_COUNT] = {d_model, 1, a->heads * d, 1, 1, 1};
    for (int i = 0; status == LSP_OK && i < LSP_WEIGHT_COUNT; i++)
        if (input->parts[i].tensor) status = check_part(app, input, i, rows[i], depth[i]);
    return status;
}

/* ---- values -------------------------------------------------------------------------------------- */

static void broadcast(lsp_app *app, char *data, int64_t bytes)
{
    const int64_t piece = 1 << 30;
    for (int64_t at = 0; at < bytes; at += piece)
        lsp_collect_broadcast(app->comm, data + at, lsp_min(piece, bytes - at));
}

/* Rank 0 reads, so that a checksum is checked; every rank gets all of it, in `type`. */
static lsp_status read_part(lsp_app *app, lsp_layer_input *input, int part, lsp_dtype type)
{
    const lsp_source *source = &input->parts[part];
    const lsp_tensor_shape *s = &source->shape;
    int64_t count = s->n * s->d;
    lsp_run all = {0, 0, 0, s->n};
    lsp_status status = LSP_OK;
    void *values = lsp_app_alloc(app, count, lsp_dtype_size(s->type), "the weights", &status);
    void *wide =
        s->type == type ? NULL : lsp_app_alloc(app, count, lsp_dtype_size(type), "the weights", &status);
    status = lsp_context_agree(app->ctx, status);
    if (status == LSP_OK)
        status = lsp_operands_read_source(app, source, &all, app->layout.rank == 0 ? 1 : 0, NULL, values,
                                          &input->nonfinite);
    if (status == LSP_OK) broadcast(app, values, count * (int64_t)lsp_dtype_size(s->type));
    if (status == LSP_OK && wide) lsp_convert_load(s->type, values, 0, count, wide);
    if (wide) lsp_memory_free(values);
    input->arrays[part] = wide ? wide : values;
    return status;
}

lsp_status lsp_layer_weights_open(lsp_app *app, lsp_layer_input *input)
{
    bool wanted[LSP_WEIGHT_COUNT];
    lsp_status status = find_file(app, input);
    if (status == LSP_OK) status = choose_parts(app, input, wanted);
    for (int i = 0; status == LSP_OK && i < LSP_WEIGHT_COUNT; i++)
        if (wanted[i]) status = open_part(app, input, i);
    return status == LSP_OK ? check_parts(app, input) : status;
}

lsp_status lsp_layer_weights_read(lsp_app *app, lsp_layer_input *input)
{
    lsp_status status = LSP_OK;
    /* One type for all: the wider, so that nothing is lost. */
    lsp_dtype type = LSP_F32;
    for (int i = 0; i < LSP_WEIGHT_COUNT; i++)
        if (input->parts[i].tensor && input->parts[i].shape.type == LSP_F64) type = LSP_F64;
    for (int i = 0; status == LSP_OK && i < LSP_WEIGHT_COUNT; i++)
        if (input->parts[i].tensor) status = read_part(app, input, i, type);
    void *const *w = input->arrays;
    input->weights = (lsp_layer_weights){type,
                                         w[LSP_WEIGHT_QKV],
                                         w[LSP_WEIGHT_QKV_BIAS],
                                         w[LSP_WEIGHT_OUT],
                                         w[LSP_WEIGHT_OUT_BIAS],
                                         w[LSP_WEIGHT_Q_NORM],
                                         w[LSP_WEIGHT_K_NORM]};
    return status;
}
