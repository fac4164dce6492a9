/* longspan verify: a stored output against its inputs, and stored checksums.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "app/checksums.h"
#include "app/format.h"
#include "app/launch.h"
#include "app/operands.h"
#include "app/recheck.h"
#include "app/report.h"
#include "app/runs.h"
#include "base/clock.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>

typedef struct verify_state {
    lsp_app *app;
    lsp_input input;
    lsp_tensor *out, *lse; /* as stored; lse NULL when not wanted */
    lsp_attention *plan;   /* method lowrank: decomposes again */
    lsp_run *query_runs, *key_runs, *stored_runs;
    lsp_operands operands;
    lsp_checksum_count checksums;
    lsp_verify_result result;
    bool compared;
} verify_state;

/* ---- opening ----------------------------------------------------------------------------------------- */

static lsp_status check_stored(verify_state *s, lsp_tensor *tensor, const char *name, int64_t columns)
{
    const lsp_attention_desc *d = &s->input.desc;
    lsp_tensor_shape found = lsp_tensor_get_shape(tensor);
    if (found.batch == d->batch && found.heads == d->heads && found.n == d->row_end - d->row_begin &&
        found.d == columns && (found.type == LSP_F32 || found.type == LSP_F64))
        return LSP_OK;
    return lsp_context_fail(s->app->ctx, LSP_ERR_CONTENT,
                            "%s of %s has batch %" PRId64 ", heads %" PRId64 ", rows %" PRId64
                            ", columns %" PRId64 " (%s); by the deck it should have %" PRId64 ", %" PRId64
                            ", %" PRId64 ", %" PRId64 " in f32 or f64; was it made with another deck?",
                            name, lsp_options_text(s->app->options, LSP_KEY_OUTPUT_FILE), found.batch,
                            found.heads, found.n, found.d, lsp_dtype_name(found.type), d->batch, d->heads,
                            d->row_end - d->row_begin, columns);
}

static lsp_status open_all(verify_state *s)
{
    lsp_app *app = s->app;
    lsp_status status = lsp_app_require(app, LSP_KEY_OUTPUT_FILE);
    if (status == LSP_OK) status = lsp_json_probe(app);
    if (status == LSP_OK) status = lsp_input_open(app, &s->input);
    if (status != LSP_OK) return status;
    const char *file = lsp_options_text(app->options, LSP_KEY_OUTPUT_FILE);
    lsp_layout layout = s->input.q.shape.layout;
    status = lsp_tensor_open(app->ctx, file, "/out", LSP_VIEW_ROWS, layout, &s->out);
    if (status == LSP_OK) status = check_stored(s, s->out, "/out", s->input.desc.d_v);
    if (status != LSP_OK || !lsp_options_yes(app->options, LSP_KEY_OUTPUT_LSE)) return status;
    status = lsp_tensor_open(app->ctx, file, "/lse", LSP_VIEW_SCALARS, layout, &s->lse);
    if (status == LSP_OK) status = check_stored(s, s->lse, "/lse", 1);
    if (status == LSP_OK && lsp_tensor_get_shape(s->lse).type != lsp_tensor_get_shape(s->out).type)
        status =
            lsp_context_fail(app->ctx, LSP_ERR_CONTENT, "/out and /lse of %s have different types", file);
    return status;
}

/* ---- sampled rows ------------------------------------------------------------------------------------ */

static lsp_status deal_rows(verify_state *s)
{
    const lsp_context_layout *l = &s->app->layout;
    const lsp_attention_desc *d = &s->input.desc;
    const lsp_extent queries = {d->batch, d->heads, d->row_begin, d->row_end};
    const lsp_extent keys = {d->batch, d->kv_heads, d->key_begin, d->key_end};
    int64_t first = 0, last = 0, query_count = 0, key_count = 0;
    lsp_runs_share(lsp_extent_rows(&queries), l->rank, l->ranks, &first, &last);
    s->query_runs = lsp_runs_make(&queries, first, last, &query_count);
    s->operands.query_rows = last - first;
    lsp_runs_share(lsp_extent_rows(&keys), l->rank, l->ranks, &first, &last);
    s->key_runs = lsp_runs_make(&keys, first, last, &key_count);
    s->operands.key_rows = last - first;
    s->operands.query_runs = s->query_runs;
    s->operands.query_run_count = query_count;
    s->operands.key_runs = s->key_runs;
    s->operands.key_run_count = key_count;
    lsp_status status = LSP_OK;
    if (!s->query_runs || !s->key_runs)
        status = lsp_context_fail(s->app->ctx, LSP_ERR_LIMIT, "no memory for the list of rows");
    return lsp_context_agree(s->app->ctx, status);
}

/* Rows as a plan deals them, which makes the truncated matrices. */
static lsp_status plan_rows(verify_state *s)
{
    lsp_operands *o = &s->operands;
    const char *source = NULL;
    s->input.desc.keep_values = true;
    s->input.desc.memory_limit = lsp_launch_memory_limit(s->app, &source);
    lsp_status status = lsp_attention_create(s->app->ctx, &s->input.desc, &s->plan);
    if (status != LSP_OK) return status;
    lsp_attention_runs(s->plan, LSP_QUERIES, &o->query_runs, &o->query_run_count, &o->query_rows);
    lsp_attention_runs(s->plan, LSP_KEYS, &o->key_runs, &o->key_run_count, &o->key_rows);
    return LSP_OK;
}

/* Collective. Rows of the output as operands deal them. */
static lsp_status read_stored(verify_state *s)
{
    lsp_operands *o = &s->operands;
    s->stored_runs = lsp_runs_map(o->query_runs, o->query_run_count, NULL, -s->input.desc.row_begin);
    lsp_status status = LSP_OK;
    if (!s->stored_runs)
        status = lsp_context_fail(s->app->ctx, LSP_ERR_LIMIT, "no memory for the list of rows");
    status = lsp_context_agree(s->app->ctx, status);
    if (status == LSP_OK) status = lsp_tensor_read(s->out, s->stored_runs, o->query_run_count, o->out);
    if (status == LSP_OK && s->lse)
        status = lsp_tensor_read(s->lse, s->stored_runs, o->query_run_count, o->lse);
    return status;
}

static lsp_status check_memory(verify_state *s)
{
    const lsp_attention_desc *d = &s->input.desc;
    const lsp_operands *o = &s->operands;
    size_t result = lsp_dtype_size(lsp_dtype_result(d->compute));
    double bytes = (double)o->query_rows * ((double)d->d_k * (double)lsp_dtype_size(d->q_type) +
                                            (double)(d->d_v + 1) * (double)result) +
                   (double)o->key_rows * ((double)d->d_k * (double)lsp_dtype_size(d->k_type) +
                                          (double)d->d_v * (double)lsp_dtype_size(d->v_type));
    const char *source = NULL;
    double limit = (double)lsp_launch_memory_limit(s->app, &source);
    lsp_status status = LSP_OK;
    if (limit > 0 && bytes * s->app->layout.node_ranks > limit) {
        char need[LSP_FORMAT_SIZE], left[LSP_FORMAT_SIZE];
        status = lsp_context_fail(
            s->app->ctx, LSP_ERR_LIMIT,
            "a rank needs %s for its share, %d ranks share a node, and %s leaves %s there; use "
            "more nodes, or input.heads",
            lsp_format_bytes(bytes, need), s->app->layout.node_ranks, source, lsp_format_bytes(limit, left));
    }
    return lsp_context_agree(s->app->ctx, status);
}

static lsp_status compare_rows(verify_state *s)
{
    lsp_app *app = s->app;
    lsp_operands *o = &s->operands;
    bool again = s->input.desc.method == LSP_METHOD_LOWRANK;
    if (lsp_options_int(app->options, LSP_KEY_VERIFY_ROWS) == 0) return LSP_OK;
    lsp_dtype stored = lsp_tensor_get_shape(s->out).type;
    if (lsp_dtype_result(s->input.desc.compute) != stored) s->input.desc.compute = stored;
    lsp_status status = again ? plan_rows(s) : deal_rows(s);
    if (status == LSP_OK && !again) status = check_memory(s);
    if (status == LSP_OK) status = lsp_operands_read(app, &s->input, s->lse != NULL, o);
    if (status == LSP_OK && again)
        status = lsp_attention_execute(s->plan, o->q, o->k, o->v, o->out, NULL, NULL);
    if (status == LSP_OK) status = read_stored(s);
    if (status == LSP_OK) status = lsp_recheck_rows(app, &s->input.desc, s->plan, o, &s->result);
    s->compared = status == LSP_OK;
    return status;
}

/* ---- the verdict ------------------------------------------------------------------------------------- */

static cJSON *to_json(const verify_state *s, double seconds)
{
    cJSON *json = lsp_json_begin(s->app);
    if (s->input.q.tensor) lsp_json_add_shape(json, &s->input.desc);
    cJSON *times = cJSON_AddObjectToObject(json, "seconds");
    (void)cJSON_AddNumberToObject(times, "total", seconds);
    lsp_checksums_add_json(json, &s->checksums);
    lsp_json_add_verify(json, s->compared ? &s->result : NULL);
    return json;
}

static void print_rows(const verify_state *s)
{
    const lsp_verify_result *r = &s->result;
    if (!s->compared) return;
    (void)printf("  rows     %" PRId64
                 " in double precision: relative error %.2e at most (tolerance %.1e), lse off by "
                 "%.1e\n",
                 r->rows, r->max_rel_err, r->tolerance, r->max_lse_err);
}

static lsp_status judge(verify_state *s, const char *file)
{
    lsp_app *app = s->app;
    bool first = app->layout.rank == 0, rows_fail = s->compared && !s->result.passed;
    bool failed = rows_fail || s->checksums.failed > 0;
    if (first) {
        print_rows(s);
        lsp_summary_unused(app);
    }
    lsp_status status = lsp_json_write(app, to_json(s, lsp_clock() - app->started));
    if (first)
        (void)printf("longspan: %s, %" PRId64 " sampled rows and %d checksums of %s checked\n",
                     failed ? "FAILED" : "PASSED", s->compared ? s->result.rows : 0, s->checksums.checked,
                     file);
    if (status != LSP_OK || !failed) return status;
    if (rows_fail) {
        return lsp_context_fail(
            app->ctx, LSP_ERR_VERIFY,
            "verification of %s failed: row %" PRId64 " of head %" PRId64 ", batch %" PRId64
            " has relative error %.3e (tolerance %.1e), lse is off by up to %.3e; %scompute it again",
            file, s->result.worst[2], s->result.worst[1], s->result.worst[0], s->result.max_rel_err,
            s->result.tolerance, s->result.max_lse_err,
            s->plan ? "verify with as many ranks as it was made with (equal singular values at the cut "
                      "leave the choice to rounding), or "
                    : "");
    }
    return lsp_context_fail(
        app->ctx, LSP_ERR_VERIFY,
        "%d of %d checksums of %s do not fit: it was damaged or changed after it was written; "
        "restore it or make it again",
        s->checksums.failed, s->checksums.checked, file);
}

static lsp_status verify_file(verify_state *s)
{
    lsp_app *app = s->app;
    lsp_status status = lsp_json_probe(app);
    if (app->layout.rank == 0 && status == LSP_OK)
        (void)printf("longspan %s verify: %s\n", lsp_version(), app->operand);
    if (status == LSP_OK) status = lsp_checksums_check_file(app, app->operand, &s->checksums);
    if (status == LSP_OK && s->checksums.checked == 0)
        return lsp_context_fail(app->ctx, LSP_ERR_CONTENT, "%s has no dataset with a checksum to check",
                                app->operand);
    return status == LSP_OK ? judge(s, app->operand) : status;
}

static lsp_status verify_deck(verify_state *s)
{
    lsp_app *app = s->app;
    lsp_status status = open_all(s);
    if (status != LSP_OK) return status;
    const char *file = lsp_options_text(app->options, LSP_KEY_OUTPUT_FILE);
    if (app->layout.rank == 0)
        (void)printf("longspan %s verify: %s against %s\n", lsp_version(), file, s->input.q.file);
    status = lsp_checksums_check(app, s->out, "/out", &s->checksums);
    if (status == LSP_OK && s->lse) status = lsp_checksums_check(app, s->lse, "/lse", &s->checksums);
    /* Rows of a file that does not fit its checksums need no other judge. */
    if (status == LSP_OK && s->checksums.failed == 0) status = compare_rows(s);
    return status == LSP_OK ? judge(s, file) : status;
}

lsp_status lsp_verify_run(lsp_app *app)
{
    verify_state s = {.app = app};
    lsp_status status = app->operand_is_file ? verify_file(&s) : verify_deck(&s);
    lsp_operands_free(&s.operands);
    (void)lsp_attention_destroy(&s.plan);
    lsp_memory_free(s.query_runs);
    lsp_memory_free(s.key_runs);
    lsp_memory_free(s.stored_runs);
    if (s.out) (void)lsp_tensor_close(&s.out);
    if (s.lse) (void)lsp_tensor_close(&s.lse);
    lsp_input_close(&s.input);
    return status;
}
