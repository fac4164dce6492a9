/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/operands.h"

#include "app/runs.h"
#include "base/checked.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>

static lsp_status refuse_nonfinite(lsp_app *app, const lsp_source *source, int64_t count,
                                   const int64_t *first)
{
    /* The index as the file has it. */
    int64_t at[4] = {first[0], first[1], first[2], first[3]};
    if (source->shape.layout == LSP_BNHD && source->shape.axes > 2) {
        at[1] = first[2];
        at[2] = first[1];
    }
    char index[128] = "";
    size_t used = 0;
    int end = source->shape.axes == 1 ? 3 : 4; /* one axis alone counts rows */
    for (int a = end - source->shape.axes; a < end; a++) {
        int length = snprintf(index + used, sizeof index - used, "%s%" PRId64, used ? ", " : "", at[a]);
        if (length > 0) used += (size_t)length;
    }
    return lsp_context_fail(app->ctx, LSP_ERR_CONTENT,
                            "%s of %s holds %" PRId64
                            " NaN or Inf, the first at [%s]; mend the input, or go on "
                            "with --compute.nonfinite=propagate",
                            source->dataset, source->file, count, index);
}

lsp_status lsp_operands_read_source(lsp_app *app, const lsp_source *source, const lsp_run *runs,
                                    int64_t count, const int64_t *heads, void *buffer, int64_t *nonfinite)
{
    lsp_run *in_file = lsp_runs_map(runs, count, heads, 0);
    lsp_status status = LSP_OK;
    if (!in_file) status = lsp_context_fail(app->ctx, LSP_ERR_LIMIT, "no memory for the list of rows");
    status = lsp_context_agree(app->ctx, status);
    if (status == LSP_OK) status = lsp_tensor_read(source->tensor, in_file, count, buffer);
    int64_t found = 0, first[4] = {0};
    if (status == LSP_OK) status = lsp_tensor_screen(source->tensor, in_file, count, buffer, &found, first);
    lsp_memory_free(in_file);
    if (status != LSP_OK) return status;
    *nonfinite += found;
    bool refuse = lsp_options_choice(app->options, LSP_KEY_COMPUTE_NONFINITE) == 0;
    return found > 0 && refuse ? refuse_nonfinite(app, source, found, first) : LSP_OK;
}

static lsp_status allocate_inputs(lsp_app *app, const lsp_attention_desc *desc, lsp_operands *operands)
{
    size_t q = lsp_dtype_size(desc->q_type), k = lsp_dtype_size(desc->k_type),
           v = lsp_dtype_size(desc->v_type);
    size_t d_k = (size_t)desc->d_k, d_v = (size_t)desc->d_v;
    lsp_status status = LSP_OK;
    operands->q = lsp_app_alloc(app, operands->query_rows, d_k * q, "q", &status);
    operands->k = lsp_app_alloc(app, operands->key_rows, d_k * k, "k", &status);
    operands->v = lsp_app_alloc(app, operands->key_rows, d_v * v, "v", &status);
    return status;
}

/* Pages of an output, which the system clears when they are touched first: now, by the threads that will write them. */
static void touch(const lsp_app *app, void *rows, int64_t count, size_t size)
{
    enum { PAGE = 4096 };
    char *bytes = rows;
    int64_t pages = bytes ? lsp_ceil_div(count * (int64_t)size, PAGE) : 0;
#pragma omp parallel for schedule(static) num_threads(app->layout.threads)
    for (int64_t page = 0; page < pages; page++) bytes[page * PAGE] = 0;
}

static lsp_status allocate_outputs(lsp_app *app, const lsp_attention_desc *desc, bool lse,
                                   lsp_operands *operands)
{
    size_t result = lsp_dtype_size(lsp_dtype_result(desc->compute));
    lsp_status status = LSP_OK;
    operands->out = lsp_app_alloc(app, operands->query_rows, (size_t)desc->d_v * result, "out", &status);
    if (lse) operands->lse = lsp_app_alloc(app, operands->query_rows, result, "lse", &status);
    touch(app, operands->out, operands->query_rows, (size_t)desc->d_v * result);
    touch(app, operands->lse, lse ? operands->query_rows : 0, result);
    return status;
}

lsp_status lsp_operands_read_inputs(lsp_app *app, const lsp_input *input, lsp_operands *operands)
{
    lsp_operands *o = operands;
    lsp_status status = lsp_context_agree(app->ctx, allocate_inputs(app, &input->desc, o));
    if (status == LSP_OK)
        status = lsp_operands_read_source(app, &input->q, o->query_runs, o->query_run_count, input->heads,
                                          o->q, &o->nonfinite);
    if (status == LSP_OK)
        status = lsp_operands_read_source(app, &input->k, o->key_runs, o->key_run_count, input->kv_heads,
                                          o->k, &o->nonfinite);
    if (status == LSP_OK)
        status = lsp_operands_read_source(app, &input->v, o->key_runs, o->key_run_count, input->kv_heads,
                                          o->v, &o->nonfinite);
    return status;
}

lsp_status lsp_operands_read(lsp_app *app, const lsp_input *input, bool lse, lsp_operands *operands)
{
    lsp_status status = lsp_context_agree(app->ctx, allocate_outputs(app, &input->desc, lse, operands));
    return status == LSP_OK ? lsp_operands_read_inputs(app, input, operands) : status;
}

void lsp_operands_free(lsp_operands *operands)
{
    lsp_memory_free(operands->q);
    lsp_memory_free(operands->k);
    lsp_memory_free(operands->v);
    lsp_memory_free(operands->out);
    lsp_memory_free(operands->lse);
    operands->q = operands->k = operands->v = operands->out = operands->lse = NULL;
}
