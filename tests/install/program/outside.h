/* What the parts of the outside program share: the public header alone, and a problem whose answers are formulas.
 *
 * Even rows have a query of 0, odd rows one of 1 in the first place; even keys hold 0 there, odd keys log 3. So an even row
 * weighs all keys alike, and for an odd one an odd key weighs three times an even one. W has rank 2.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef OUTSIDE_H
#define OUTSIDE_H

#include <longspan/longspan.h>
#include <math.h>
#include <stdint.h>

enum { HEADS = 2, ROWS = 37, KEYS = 1300, DEPTH = 16, WIDTH = 2, KEPT = 4 };

/* A number of a matrix, by row and column of the whole; heads are alike. */
typedef double (*entry_fn)(int64_t row, int64_t column);

double query_entry(int64_t row, int64_t column);
double key_entry(int64_t key, int64_t column);
double value_entry(int64_t key, int64_t column);
double weight(int64_t row, int64_t key);       /* of W */
double out_entry(int64_t row, int64_t column); /* of W V */

/* The rows of a matrix that this rank holds. */
typedef struct part {
    const lsp_run *runs;
    int64_t run_count, rows;
} part;

/* f32 or f64 [rows of the part][width], the caller's to free; entry NULL: -1 everywhere. */
void *make_rows(part p, int64_t width, lsp_dtype type, entry_fn entry);
/* Ends the program unless every number is within limit of the entry (relative to 1 + its size). */
void expect_rows(const char *what, part p, int64_t width, lsp_dtype type, const void *got, entry_fn entry,
                 double limit);
void expect(const char *what, double got, double wanted, double limit);
void check(lsp_context *ctx, const char *what, lsp_status status);

/* Two heads in f32, or one of an operator in f64. */
lsp_attention_desc describe(int64_t heads, lsp_dtype type);

/* What the program tries. Collective; each ends the program where something is wrong. */
int64_t try_exact(lsp_context *ctx); /* rows of this rank */
void try_topk(lsp_context *ctx);
void try_compare(lsp_context *ctx);
void try_operator(lsp_context *ctx);
void try_svd(lsp_context *ctx);

#endif
