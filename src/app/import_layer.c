/* A layer's tensors: whether they fit each other, and the datasets that they become.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "app/import.h"

#include <inttypes.h>
#include <stdio.h>

/* ---- shapes ----------------------------------------------------------------------------------------- */

static bool has(const lsp_import_layer *layer, lsp_import_role role)
{
    return layer->roles[role].file >= 0;
}

/* Rows and columns as [output, input]; a vector has one column. */
typedef struct extent {
    int64_t rows, columns;
} extent;

static extent extent_of(const lsp_import *import, lsp_import_role role)
{
    lsp_foreign_tensor tensor = lsp_import_tensor(import, import->layer.roles[role]);
    if (tensor.axes == 1) return (extent){tensor.dims[0], 1};
    bool transposed = import->layer.transposed;
    return (extent){tensor.dims[transposed ? 1 : 0], tensor.dims[transposed ? 0 : 1]};
}

static lsp_status check_tensor(const lsp_import *import, lsp_import_role role)
{
    lsp_import_ref ref = import->layer.roles[role];
    lsp_foreign_tensor tensor = lsp_import_tensor(import, ref);
    int axes = role <= LSP_PART_OUT_WEIGHT ? 2 : 1;
    char shape[LSP_IMPORT_SHAPE];
    const char *wrong = NULL;
    if (!tensor.known || tensor.type == LSP_I64)
        wrong = "of a type that is not read (F64, F32, F16 and BF16 are)";
    else if (tensor.axes != axes)
        wrong = axes == 2 ? "and must have two axes" : "and must have one axis";
    else if (tensor.bytes == 0)
        wrong = "and has no numbers";
    if (!wrong) return LSP_OK;
    return lsp_context_fail(import->app->ctx, LSP_ERR_CONTENT, "tensor '%.*s' of '%s' is %s %s",
                            LSP_IMPORT_SHOWN, tensor.name, import->files[ref.file].path,
                            lsp_import_shape(&tensor, shape), wrong);
}

static lsp_status refuse_pair(const lsp_import *import, lsp_import_role one, lsp_import_role other,
                              const char *what)
{
    lsp_foreign_tensor a = lsp_import_tensor(import, import->layer.roles[one]);
    lsp_foreign_tensor b = lsp_import_tensor(import, import->layer.roles[other]);
    char shape_a[LSP_IMPORT_SHAPE], shape_b[LSP_IMPORT_SHAPE];
    return lsp_context_fail(import->app->ctx, LSP_ERR_CONTENT,
                            "the weights do not fit each other: '%.*s' is %s, '%.*s' %s; %s",
                            LSP_IMPORT_SHOWN, a.name, lsp_import_shape(&a, shape_a), LSP_IMPORT_SHOWN, b.name,
                            lsp_import_shape(&b, shape_b), what);
}

static lsp_status check_bias(const lsp_import *import, lsp_import_role bias, lsp_import_role weight)
{
    if (!has(&import->layer, bias) || extent_of(import, bias).rows == extent_of(import, weight).rows)
        return LSP_OK;
    return refuse_pair(import, bias, weight, "a bias has a number for each output of its weight");
}

/* q_rows, kv_rows and d_model. */
static lsp_status measure(lsp_import *import)
{
    lsp_import_layer *layer = &import->layer;
    extent out = extent_of(import, LSP_PART_OUT_WEIGHT);
    bool fused = has(layer, LSP_PART_QKV_WEIGHT);
    lsp_import_role first = fused ? LSP_PART_QKV_WEIGHT : LSP_PART_Q_WEIGHT;
    extent q = extent_of(import, first);
    layer->d_model = q.columns;
    if (fused) {
        layer->q_rows = out.columns;
        layer->kv_rows = (q.rows - out.columns) / 2;
        if (layer->kv_rows < 1 || q.rows != layer->q_rows + 2 * layer->kv_rows)
            return refuse_pair(import, first, LSP_PART_OUT_WEIGHT,
                               "the first makes q, k and v, and the other takes as many numbers as q has");
    } else {
        extent k = extent_of(import, LSP_PART_K_WEIGHT), v = extent_of(import, LSP_PART_V_WEIGHT);
        layer->q_rows = q.rows;
        layer->kv_rows = k.rows;
        if (k.columns != q.columns)
            return refuse_pair(import, first, LSP_PART_K_WEIGHT, "both must take d_model numbers");
        if (v.columns != k.columns || v.rows != k.rows)
            return refuse_pair(import, LSP_PART_K_WEIGHT, LSP_PART_V_WEIGHT,
                               "those of k and v must be alike");
    }
    if (out.columns != layer->q_rows)
        return refuse_pair(import, first, LSP_PART_OUT_WEIGHT, "the output's takes as many numbers as q has");
    if (out.rows != layer->d_model)
        return refuse_pair(import, first, LSP_PART_OUT_WEIGHT,
                           "the output's gives as many numbers (d_model) as the other takes");
    if (layer->q_rows % layer->kv_rows != 0)
        return refuse_pair(import, first, fused ? LSP_PART_OUT_WEIGHT : LSP_PART_K_WEIGHT,
                           "the heads of q must be a multiple of those of k");
    return LSP_OK;
}

/* ---- heads ------------------------------------------------------------------------------------------ */

static lsp_status check_norms(lsp_import *import)
{
    lsp_import_layer *layer = &import->layer;
    if (!has(layer, LSP_PART_Q_NORM) && !has(layer, LSP_PART_K_NORM)) return LSP_OK;
    if (!has(layer, LSP_PART_Q_NORM) || !has(layer, LSP_PART_K_NORM))
        return lsp_context_fail(import->app->ctx, LSP_ERR_CONTENT,
                                "layer '%s' has one of q_norm.weight and k_norm.weight, and not the other",
                                layer->prefix);
    int64_t q = extent_of(import, LSP_PART_Q_NORM).rows;
    if (q != extent_of(import, LSP_PART_K_NORM).rows)
        return refuse_pair(import, LSP_PART_Q_NORM, LSP_PART_K_NORM, "both must have head_dim numbers");
    if (layer->head_dim == 0 && q == layer->q_rows)
        return lsp_context_fail(import->app->ctx, LSP_ERR_USAGE,
                                "q_norm.weight has as many numbers as all heads together; say import.heads");
    if (layer->head_dim == 0) layer->head_dim = q;
    if (q == layer->head_dim && layer->q_rows % q == 0 && layer->kv_rows % q == 0) return LSP_OK;
    return refuse_pair(import, LSP_PART_Q_NORM,
                       has(layer, LSP_PART_QKV_WEIGHT) ? LSP_PART_QKV_WEIGHT : LSP_PART_Q_WEIGHT,
                       "a norm has head_dim numbers");
}

/* Heads that are asked for must divide the rows; without them the norms may tell. */
static lsp_status check_heads(lsp_import *import)
{
    lsp_app *app = import->app;
    lsp_import_layer *layer = &import->layer;
    layer->heads = lsp_options_int(app->options, LSP_KEY_IMPORT_HEADS);
    layer->kv_heads = lsp_options_int(app->options, LSP_KEY_IMPORT_KV_HEADS);
    if (layer->heads > 0) {
        if (layer->q_rows % layer->heads != 0)
            return lsp_context_fail(app->ctx, LSP_ERR_CONTENT,
                                    "%" PRId64
                                    " rows of q in layer '%s' cannot be shared by import.heads = %" PRId64,
                                    layer->q_rows, layer->prefix, layer->heads);
        layer->head_dim = layer->q_rows / layer->heads;
    } else if (layer->kv_heads > 0 && layer->kv_rows % layer->kv_heads == 0) {
        layer->head_dim = layer->kv_rows / layer->kv_heads;
    }
    lsp_status status = check_norms(import);
    if (status != LSP_OK) return status;
    int64_t size = layer->head_dim;
    bool fits = size == 0 || (layer->q_rows % size == 0 && layer->kv_rows % size == 0);
    if (!fits || (layer->kv_heads > 0 && (size == 0 || layer->kv_rows / size != layer->kv_heads)))
        return lsp_context_fail(app->ctx, LSP_ERR_CONTENT,
                                "%" PRId64 " rows of q and %" PRId64
                                " of k in layer '%s' do not make heads of one size "
                                "(import.heads = %" PRId64 ", import.kv_heads = %" PRId64 ")",
                                layer->q_rows, layer->kv_rows, layer->prefix, layer->heads, layer->kv_heads);
    if (size == 0) return LSP_OK;
    layer->heads = layer->q_rows / size;
    layer->kv_heads = layer->kv_rows / size;
    return LSP_OK;
}

/* ---- datasets --------------------------------------------------------------------------------------- */

/* A dataset of the roles [first, first + count), one below the other; f64 as soon as one of them is. */
static lsp_status add(lsp_import *import, const char *path, lsp_import_role first, int count,
                      const int64_t *rows, int64_t columns)
{
    lsp_status status = LSP_OK;
    const lsp_import_layer *layer = &import->layer;
    int64_t dims[2] = {0, columns};
    for (int i = 0; i < count; i++) dims[0] += rows[i];
    lsp_import_dataset *dataset = lsp_import_add(import, path, columns ? 2 : 1, dims, &status);
    if (!dataset) return status;
    dataset->type = LSP_F32;
    int64_t at = 0;
    for (int i = 0; i < count; i++) {
        lsp_import_ref ref = layer->roles[(int)first + i];
        dataset->parts[dataset->part_count++] = (lsp_import_part){
            .from = ref, .transposed = layer->transposed && columns > 0, .at = at, .rows = rows[i]};
        at += rows[i];
        if (ref.file >= 0 && lsp_import_tensor(import, ref).type == LSP_F64) dataset->type = LSP_F64;
    }
    return LSP_OK;
}

static lsp_status add_all(lsp_import *import)
{
    const lsp_import_layer *layer = &import->layer;
    const int64_t three[3] = {layer->q_rows, layer->kv_rows, layer->kv_rows};
    const int64_t all = layer->q_rows + 2 * layer->kv_rows;
    bool fused = has(layer, LSP_PART_QKV_WEIGHT);
    bool bias = has(layer, LSP_PART_Q_BIAS) || has(layer, LSP_PART_K_BIAS) || has(layer, LSP_PART_V_BIAS);
    lsp_status status = fused ? add(import, "/qkv_proj.weight", LSP_PART_QKV_WEIGHT, 1, &all, layer->d_model)
                              : add(import, "/qkv_proj.weight", LSP_PART_Q_WEIGHT, 3, three, layer->d_model);
    if (status == LSP_OK && fused && has(layer, LSP_PART_QKV_BIAS))
        status = add(import, "/qkv_proj.bias", LSP_PART_QKV_BIAS, 1, &all, 0);
    /* Some models leave out k's alone, which changes no result. */
    if (status == LSP_OK && !fused && bias)
        status = add(import, "/qkv_proj.bias", LSP_PART_Q_BIAS, 3, three, 0);
    if (status == LSP_OK)
        status = add(import, "/out_proj.weight", LSP_PART_OUT_WEIGHT, 1, &layer->d_model, layer->q_rows);
    if (status == LSP_OK && has(layer, LSP_PART_OUT_BIAS))
        status = add(import, "/out_proj.bias", LSP_PART_OUT_BIAS, 1, &layer->d_model, 0);
    if (status == LSP_OK && has(layer, LSP_PART_Q_NORM))
        status = add(import, "/q_norm.weight", LSP_PART_Q_NORM, 1, &layer->head_dim, 0);
    if (status == LSP_OK && has(layer, LSP_PART_K_NORM))
        status = add(import, "/k_norm.weight", LSP_PART_K_NORM, 1, &layer->head_dim, 0);
    return status;
}

lsp_status lsp_import_take_layer(lsp_import *import)
{
    const lsp_import_layer *layer = &import->layer;
    if (!layer->names) return LSP_OK;
    lsp_status status = LSP_OK;
    for (int role = 0; status == LSP_OK && role < LSP_PART_COUNT; role++)
        if (has(layer, (lsp_import_role)role)) status = check_tensor(import, (lsp_import_role)role);
    if (status == LSP_OK) status = measure(import);
    bool fused = has(layer, LSP_PART_QKV_WEIGHT);
    if (status == LSP_OK && fused) status = check_bias(import, LSP_PART_QKV_BIAS, LSP_PART_QKV_WEIGHT);
    for (int i = 0; status == LSP_OK && !fused && i < 3; i++)
        status = check_bias(import, (lsp_import_role)(LSP_PART_Q_BIAS + i),
                            (lsp_import_role)(LSP_PART_Q_WEIGHT + i));
    if (status == LSP_OK) status = check_bias(import, LSP_PART_OUT_BIAS, LSP_PART_OUT_WEIGHT);
    if (status == LSP_OK) status = check_heads(import);
    return status == LSP_OK ? add_all(import) : status;
}
