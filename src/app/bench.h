/* longspan bench: the cells that it measures, and what is told about them. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_BENCH_H
#define LSP_APP_BENCH_H

#include "app/report.h"

/* What an earlier report says of a cell. */
typedef struct lsp_bench_earlier {
    bool known;
    double rate, limit, scatter; /* as of lsp_bench_result: best rates, and the scatter */
} lsp_bench_earlier;

/* One measurement: a description of attention on so many threads. */
typedef struct lsp_bench_cell {
    lsp_attention_desc desc;
    int place; /* in lsp_bench.contexts */
    lsp_bench_limit limit;
    lsp_bench_result result;
    lsp_bench_earlier earlier;
} lsp_bench_cell;

/* One FMA peak, and the read bandwidth for each number of threads. */
typedef struct lsp_bench_peak {
    int place;
    lsp_isa isa;
    lsp_dtype compute;
    double gflops;
} lsp_bench_peak;

typedef struct lsp_bench_bandwidth {
    double bytes_per_second;
    int64_t array_bytes;
} lsp_bench_bandwidth;

typedef struct lsp_bench {
    lsp_app *app;
    int64_t threads[LSP_ITEMS_MOST];
    lsp_context *contexts[LSP_ITEMS_MOST]; /* for each number of threads */
    lsp_bench_bandwidth bandwidths[LSP_ITEMS_MOST];
    int place_count;
    lsp_bench_peak *peaks;
    int64_t peak_count;
    lsp_bench_cell *cells; /* those of one query row (LSP_BENCH_READ) last */
    int64_t cell_count;
    double seconds;
    int64_t read_bytes, verify_rows;
    const char *memory_source; /* what set the cells' memory_limit */
    const char *compare;       /* file, or "" */
    int64_t slower;            /* cells, by lsp_bench_is_slower */
    char processor[128];       /* of rank 0 */
} lsp_bench;

/* Collective. The cells that the options ask for, and a context for each number of threads. On failure too,
 * lsp_bench_close is to be called. */
lsp_status lsp_bench_open(lsp_app *app, lsp_bench *bench);
void lsp_bench_close(lsp_bench *bench);

/* Local. Best rate of a cell: flops or bytes per second. Its name: "f32 d 64, 4096 x 4096, causal, 2 threads". */
double lsp_bench_rate(const lsp_bench_cell *cell);
enum { LSP_BENCH_NAME = 160 };
const char *lsp_bench_name(const lsp_bench *bench, const lsp_bench_cell *cell, char *text);

/* Collective. Reads the report to compare with (rank 0), and finds in it what it says of the cells. LSP_ERR_FILE,
 * LSP_ERR_CONTENT when it is no report of bench or has none of these cells. */
lsp_status lsp_bench_find_earlier(lsp_bench *bench);

/* Local. Whether the cell is slower than the earlier report says, by more than both runs' repetitions scatter. */
bool lsp_bench_is_slower(const lsp_bench_cell *cell);

/* Local (rank 0). The parts of the table, in this order; and the report. */
void lsp_bench_print_machine(const lsp_bench *bench);
void lsp_bench_print_cell(const lsp_bench *bench, int64_t index);
void lsp_bench_print_notes(const lsp_bench *bench);
void lsp_bench_print_comparison(const lsp_bench *bench);
cJSON *lsp_bench_json(const lsp_bench *bench);

#endif
