/* The problem of the outside program, and what is right. SPDX-License-Identifier: BSD-3-Clause */
#include "outside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

double query_entry(int64_t row, int64_t column)
{
    return column == 0 ? (double)(row % 2) : 0;
}

double key_entry(int64_t key, int64_t column)
{
    return column == 0 && key % 2 ? log(3) : 0;
}

double value_entry(int64_t key, int64_t column)
{
    return column == 0 ? 1 : (double)key / KEYS;
}

double weight(int64_t row, int64_t key)
{
    if (row % 2 == 0) return 1.0 / KEYS;
    return (key % 2 ? 3.0 : 1.0) / (2.0 * KEYS);
}

double out_entry(int64_t row, int64_t column)
{
    double sum = 0;
    for (int64_t j = 0; j < KEYS; j++) sum += weight(row, j) * value_entry(j, column);
    return sum;
}

lsp_attention_desc describe(int64_t heads, lsp_dtype type)
{
    lsp_attention_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.batch = 1, desc.heads = heads, desc.kv_heads = 1;
    desc.n = ROWS, desc.m = KEYS, desc.d_k = DEPTH, desc.d_v = WIDTH;
    desc.q_type = desc.k_type = desc.v_type = desc.compute = type;
    desc.scale = 1;
    return desc;
}

static void fail(const char *what, const char *message)
{
    fprintf(stderr, "outside: %s: %s\n", what, message);
    MPI_Abort(MPI_COMM_WORLD, 1);
}

void check(lsp_context *ctx, const char *what, lsp_status status)
{
    if (status) fail(what, lsp_context_message(ctx));
}

void expect(const char *what, double got, double wanted, double limit)
{
    char message[128];
    if (fabs(got - wanted) <= limit * (1 + fabs(wanted))) return;
    snprintf(message, sizeof message, "%.9g, not %.9g", got, wanted);
    fail(what, message);
}

void *make_rows(part p, int64_t width, lsp_dtype type, entry_fn entry)
{
    double *wide = malloc((size_t)(p.rows * width + 1) * sizeof *wide);
    float *narrow = (float *)wide;
    int64_t at = 0;
    if (!wide) fail("memory", "none left");
    for (int64_t r = 0; r < p.run_count; r++)
        for (int64_t i = 0; i < p.runs[r].count; i++)
            for (int64_t c = 0; c < width; c++, at++) {
                double value = entry ? entry(p.runs[r].begin + i, c) : -1;
                if (type == LSP_F64)
                    wide[at] = value;
                else
                    narrow[at] = (float)value;
            }
    return wide;
}

void expect_rows(const char *what, part p, int64_t width, lsp_dtype type, const void *got, entry_fn entry,
                 double limit)
{
    int64_t at = 0;
    for (int64_t r = 0; r < p.run_count; r++)
        for (int64_t i = 0; i < p.runs[r].count; i++)
            for (int64_t c = 0; c < width; c++, at++)
                expect(what, type == LSP_F64 ? ((const double *)got)[at] : ((const float *)got)[at],
                       entry(p.runs[r].begin + i, c), limit);
}
