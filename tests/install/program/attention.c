/* Exact attention, the largest weights, and both beside each other. SPDX-License-Identifier: BSD-3-Clause */
#include "outside.h"

#include <stdlib.h>

/* This rank's rows of everything. */
typedef struct arrays {
    part queries, keys;
    float *q, *k, *v, *out, *lse;
} arrays;

static arrays make_arrays(part queries, part keys)
{
    return (arrays){queries,
                    keys,
                    make_rows(queries, DEPTH, LSP_F32, query_entry),
                    make_rows(keys, DEPTH, LSP_F32, key_entry),
                    make_rows(keys, WIDTH, LSP_F32, value_entry),
                    make_rows(queries, WIDTH, LSP_F32, NULL),
                    make_rows(queries, 1, LSP_F32, NULL)};
}

static void free_arrays(arrays *a)
{
    free(a->q), free(a->k), free(a->v), free(a->out), free(a->lse);
}

static double lse_entry(int64_t row, int64_t column)
{
    (void)column;
    return log(row % 2 ? 2.0 * KEYS : KEYS);
}

/* A plan that was executed. */
static arrays run(lsp_context *ctx, const lsp_attention_desc *desc, lsp_attention **plan)
{
    part queries, keys;
    check(ctx, "plan", lsp_attention_create(ctx, desc, plan));
    lsp_attention_runs(*plan, LSP_QUERIES, &queries.runs, &queries.run_count, &queries.rows);
    lsp_attention_runs(*plan, LSP_KEYS, &keys.runs, &keys.run_count, &keys.rows);
    arrays a = make_arrays(queries, keys);
    check(ctx, "execute", lsp_attention_execute(*plan, a.q, a.k, a.v, a.out, a.lse, NULL));
    return a;
}

int64_t try_exact(lsp_context *ctx)
{
    lsp_attention_desc desc = describe(HEADS, LSP_F32);
    lsp_attention *plan = NULL;
    arrays a = run(ctx, &desc, &plan);
    expect_rows("output", a.queries, WIDTH, LSP_F32, a.out, out_entry, 1e-5);
    expect_rows("log-sum-exp", a.queries, 1, LSP_F32, a.lse, lse_entry, 1e-5);
    int64_t rows = a.queries.rows;
    free_arrays(&a);
    lsp_attention_destroy(&plan);
    return rows;
}

/* ---- topk ---------------------------------------------------------------------------------------- */

/* Of equal weights the lower keys stay: of odd rows the first odd keys. */
static int64_t kept_key(int64_t row, int64_t e)
{
    return row % 2 ? 2 * e + 1 : e;
}

static double kept_mass(int64_t row)
{
    return KEPT * weight(row, kept_key(row, 0));
}

static double topk_entry(int64_t row, int64_t column)
{
    double sum = 0;
    for (int64_t e = 0; e < KEPT; e++)
        sum += weight(row, kept_key(row, e)) * value_entry(kept_key(row, e), column);
    return sum;
}

static void expect_kept(const lsp_attention *plan, part queries)
{
    lsp_topk_weights kept;
    int64_t at = 0;
    expect("kept weights", lsp_topk_get_weights(plan, &kept), LSP_OK, 0);
    expect("rows of kept weights", (double)kept.rows, (double)queries.rows, 0);
    for (int64_t r = 0; r < queries.run_count; r++)
        for (int64_t i = 0; i < queries.runs[r].count; i++, at++) {
            int64_t row = queries.runs[r].begin + i;
            expect("kept entries", kept.counts[at], KEPT, 0);
            for (int64_t e = 0; e < KEPT; e++) {
                expect("kept key", kept.keys[at * kept.stride + e], (double)kept_key(row, e), 0);
                expect("kept weight", ((const float *)kept.weights)[at * kept.stride + e] * KEYS,
                       weight(row, kept_key(row, e)) * KEYS, 1e-5);
            }
        }
}

void try_topk(lsp_context *ctx)
{
    lsp_attention_desc desc = describe(HEADS, LSP_F32);
    lsp_attention *plan = NULL;
    lsp_topk_certificate certificate;
    desc.method = LSP_METHOD_TOPK, desc.topk = KEPT;
    arrays a = run(ctx, &desc, &plan);
    expect_kept(plan, a.queries);
    expect_rows("output of topk", a.queries, WIDTH, LSP_F32, a.out, topk_entry, 1e-5);
    expect_rows("log-sum-exp of topk", a.queries, 1, LSP_F32, a.lse, lse_entry, 1e-5);
    expect("certificate", lsp_topk_get_certificate(plan, &certificate), LSP_OK, 0);
    expect("entries of the certificate", (double)certificate.kept, HEADS * ROWS * KEPT, 0);
    expect("dropped mass", certificate.dropped_mass_max, 1 - kept_mass(0), 1e-5);
    free_arrays(&a);
    lsp_attention_destroy(&plan);
}

/* ---- compare ------------------------------------------------------------------------------------- */

void try_compare(lsp_context *ctx)
{
    lsp_attention_desc desc = describe(HEADS, LSP_F32);
    lsp_compare_options options = lsp_compare_defaults();
    lsp_compare *compare = NULL;
    lsp_compare_result results[2];
    lsp_compare_head heads[HEADS];
    part queries, keys;
    bool front[2];
    options.repeats = 1;
    check(ctx, "comparison", lsp_compare_create(ctx, &desc, &options, &compare));
    lsp_compare_runs(compare, LSP_QUERIES, &queries.runs, &queries.run_count, &queries.rows);
    lsp_compare_runs(compare, LSP_KEYS, &keys.runs, &keys.run_count, &keys.rows);
    arrays a = make_arrays(queries, keys);
    check(ctx, "exact beside others", lsp_compare_exact(compare, a.q, a.k, a.v, &results[0], NULL));
    desc.method = LSP_METHOD_TOPK, desc.topk = KEPT;
    check(ctx, "topk beside exact", lsp_compare_method(compare, &desc, &results[1], heads));

    double error = 0, size = 0, mass = 0;
    for (int64_t i = 0; i < ROWS; i++) {
        mass += kept_mass(i) / ROWS;
        for (int64_t c = 0; c < WIDTH; c++) {
            double exact = out_entry(i, c), difference = topk_entry(i, c) - exact;
            error += difference * difference, size += exact * exact;
        }
    }
    expect("error of exact", results[0].out_error, 0, 0);
    expect("error of topk", results[1].out_error, sqrt(error / size), 1e-5);
    expect("error of a head", heads[HEADS - 1].out_error, sqrt(error / size), 1e-5);
    expect("retained mass", results[1].retained_mean * KEYS, mass * KEYS, 1e-2);
    expect("verification", results[1].verified && results[1].verify.passed, 1, 0);
    lsp_compare_front(results, 2, front);
    expect("exact on the front", front[0], 1, 0);
    free_arrays(&a);
    lsp_compare_destroy(&compare);
}
