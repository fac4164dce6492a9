/* Block-cyclic matrices, and blocks of them to and from ranks. SPDX-License-Identifier: BSD-3-Clause */
#include "linalg/cyclic.h"

#include "base/checked.h"
#include "base/memory.h"
#include "comm/rows.h"

#include <string.h>

enum { TAG = 417, BLOCK_CYCLIC_2D = 1 };

int64_t lsp_cyclic_count(int64_t size, int64_t block, int place, int places)
{
    int64_t whole = size / block, count = whole / places * block, extra = whole % places;
    if (place < extra) return count + block;
    return place == extra ? count + size % block : count;
}

int64_t lsp_cyclic_elements(const lsp_cyclic *matrix)
{
    return matrix->lead * matrix->local_cols;
}

static lsp_status check_sizes(const lsp_cyclic *c)
{
    const lsp_grid *grid = c->grid;
    int64_t most_rows = lsp_max(1, lsp_cyclic_count(c->rows, c->row_block, 0, grid->rows));
    int64_t most_cols = lsp_cyclic_count(c->cols, c->col_block, 0, grid->cols), most = 0;
    /* Indices in ScaLAPACK are 1-based and go up to a block beyond the end. */
    int64_t edge = INT_MAX - lsp_max(c->row_block, c->col_block);
    if (c->row_block > INT_MAX || c->col_block > INT_MAX || c->rows > edge || c->cols > edge ||
        !lsp_checked_mul(most_rows, most_cols, &most) || most > INT_MAX)
        return lsp_context_fail(
            grid->ctx, LSP_ERR_LIMIT,
            "a %lld x %lld matrix on a grid of %d x %d ranks (%lld x %lld on the first) is "
            "more than ScaLAPACK's 32-bit integers can count (%d): use more ranks",
            (long long)c->rows, (long long)c->cols, grid->rows, grid->cols, (long long)most_rows,
            (long long)most_cols, INT_MAX);
    return LSP_OK;
}

lsp_status lsp_cyclic_init(const lsp_grid *grid, int64_t rows, int64_t cols, int64_t row_block,
                           int64_t col_block, lsp_cyclic *matrix)
{
    *matrix = (lsp_cyclic){
        .grid = grid, .rows = rows, .cols = cols, .row_block = row_block, .col_block = col_block, .lead = 1};
    if (rows < 0 || cols < 0 || row_block < 1 || col_block < 1)
        return lsp_context_fail(grid->ctx, LSP_ERR_USAGE,
                                "a %lld x %lld matrix in blocks of %lld x %lld does not exist",
                                (long long)rows, (long long)cols, (long long)row_block, (long long)col_block);
    lsp_status status = check_sizes(matrix);
    if (status != LSP_OK || !lsp_grid_inside(grid)) return status;
    matrix->local_rows = lsp_cyclic_count(rows, row_block, grid->row, grid->rows);
    matrix->local_cols = lsp_cyclic_count(cols, col_block, grid->col, grid->cols);
    matrix->lead = lsp_max(1, matrix->local_rows);
    const int64_t desc[9] = {BLOCK_CYCLIC_2D, grid->blacs, rows, cols,        row_block,
                             col_block,       0,           0,    matrix->lead};
    for (int i = 0; i < 9; i++)
        if (!lsp_checked_int(desc[i], &matrix->desc[i]))
            return lsp_context_fail(grid->ctx, LSP_ERR_LIMIT,
                                    "%lld does not fit in an array descriptor of ScaLAPACK",
                                    (long long)desc[i]);
    return LSP_OK;
}

/* ---- blocks to and from ranks -------------------------------------------------------------------- */

/* What one grid process and one block have in common: always a rectangle of the process' local part. */
typedef struct common {
    int64_t row, rows, col, cols; /* local to the grid process */
    int64_t first;                /* in the buffer, elements */
} common;

/* One exchange, seen from this rank: as a process of the grid it has parts of the blocks of all ranks
 * (held[]), as a rank it has a block with parts on all processes of the grid (wanted[]). */
typedef struct exchange {
    const lsp_cyclic *matrix;
    lsp_context *ctx;
    int ranks, processes;
    lsp_block *blocks;     /* [ranks] */
    common *held, *wanted; /* [ranks], [processes] */
    double *held_data, *wanted_data;
    int64_t held_count, wanted_count;
    MPI_Request *requests;
    int64_t request_count;
} exchange;

static void intersect(const lsp_cyclic *c, int row, int col, const lsp_block *block, common *out)
{
    out->row = lsp_cyclic_count(block->row_begin, c->row_block, row, c->grid->rows);
    out->rows = lsp_cyclic_count(block->row_end, c->row_block, row, c->grid->rows) - out->row;
    out->col = lsp_cyclic_count(block->col_begin, c->col_block, col, c->grid->cols);
    out->cols = lsp_cyclic_count(block->col_end, c->col_block, col, c->grid->cols) - out->col;
}

static int64_t common_bytes(const common *part)
{
    return part->rows * part->cols * (int64_t)sizeof(double);
}

/* Between the local part of this process and its buffer, column by column. */
static void copy_held(const exchange *x, const common *part, double *local, const double *from)
{
    double *data = x->held_data + part->first;
    for (int64_t c = 0; c < part->cols; c++) {
        size_t at = (size_t)((part->col + c) * x->matrix->lead + part->row);
        double *column = data + c * part->rows;
        if (local)
            memcpy(local + at, column, (size_t)part->rows * sizeof(double));
        else
            memcpy(column, from + at, (size_t)part->rows * sizeof(double));
    }
}

/* Between this rank's block, row-major, and its buffer. `process` is where the part lies. */
static void copy_wanted(const exchange *x, int process, double *values, const double *from)
{
    const common *part = &x->wanted[process];
    const lsp_block *block = &x->blocks[x->ctx->layout.rank];
    lsp_grid there = *x->matrix->grid;
    there.row = process / there.cols;
    there.col = process % there.cols;
    lsp_cyclic matrix = *x->matrix;
    matrix.grid = &there;
    double *data = x->wanted_data + part->first;
    int64_t width = block->col_end - block->col_begin;
    for (int64_t c = 0; c < part->cols; c++) {
        int64_t col = lsp_cyclic_col(&matrix, part->col + c) - block->col_begin;
        for (int64_t r = 0; r < part->rows; r++) {
            int64_t at = (lsp_cyclic_row(&matrix, part->row + r) - block->row_begin) * width + col;
            if (values)
                values[at] = data[c * part->rows + r];
            else
                data[c * part->rows + r] = from[at];
        }
    }
}

static lsp_status check_block(const lsp_cyclic *c, const lsp_block *b)
{
    bool fits = 0 <= b->row_begin && b->row_begin <= b->row_end && b->row_end <= c->rows &&
                0 <= b->col_begin && b->col_begin <= b->col_end && b->col_end <= c->cols;
    if (fits) return LSP_OK;
    return lsp_context_fail(c->grid->ctx, LSP_ERR_USAGE,
                            "rows %lld:%lld, columns %lld:%lld are not a block of a %lld x %lld matrix",
                            (long long)b->row_begin, (long long)b->row_end, (long long)b->col_begin,
                            (long long)b->col_end, (long long)c->rows, (long long)c->cols);
}

/* Local. Allocates and lays out the buffers; blocks[] is filled by the caller afterwards. */
static lsp_status plan_exchange(exchange *x)
{
    const lsp_grid *grid = x->matrix->grid;
    const lsp_block *mine = &x->blocks[x->ctx->layout.rank];
    for (int r = 0; r < x->ranks && lsp_grid_inside(grid); r++) {
        intersect(x->matrix, grid->row, grid->col, &x->blocks[r], &x->held[r]);
        x->held[r].first = x->held_count;
        x->held_count += x->held[r].rows * x->held[r].cols;
        x->request_count += lsp_rows_pieces(common_bytes(&x->held[r]));
    }
    for (int p = 0; p < x->processes; p++) {
        intersect(x->matrix, p / grid->cols, p % grid->cols, mine, &x->wanted[p]);
        x->wanted[p].first = x->wanted_count;
        x->wanted_count += x->wanted[p].rows * x->wanted[p].cols;
        x->request_count += lsp_rows_pieces(common_bytes(&x->wanted[p]));
    }
    x->held_data = lsp_memory_alloc(x->held_count, sizeof(double));
    x->wanted_data = lsp_memory_alloc(x->wanted_count, sizeof(double));
    x->requests = lsp_memory_alloc(x->request_count, sizeof(MPI_Request));
    if (x->held_data && x->wanted_data && x->requests) return LSP_OK;
    return lsp_context_fail(x->ctx, LSP_ERR_LIMIT,
                            "not enough memory to move %lld elements of a %lld x %lld matrix between ranks",
                            (long long)(x->held_count + x->wanted_count), (long long)x->matrix->rows,
                            (long long)x->matrix->cols);
}

static void free_exchange(exchange *x)
{
    lsp_memory_free(x->blocks);
    lsp_memory_free(x->held);
    lsp_memory_free(x->wanted);
    lsp_memory_free(x->held_data);
    lsp_memory_free(x->wanted_data);
    lsp_memory_free(x->requests);
}

/* Collective. Every rank learns every rank's block. */
static lsp_status begin_exchange(const lsp_cyclic *matrix, const lsp_block *mine, exchange *x)
{
    lsp_context *ctx = matrix->grid->ctx;
    int ranks = ctx->layout.ranks, processes = matrix->grid->rows * matrix->grid->cols;
    *x = (exchange){.matrix = matrix, .ctx = ctx, .ranks = ranks, .processes = processes};
    x->blocks = lsp_memory_zalloc(ranks, sizeof *x->blocks);
    x->held = lsp_memory_zalloc(ranks, sizeof *x->held);
    x->wanted = lsp_memory_zalloc(processes, sizeof *x->wanted);
    lsp_status status = check_block(matrix, mine);
    if (!x->blocks || !x->held || !x->wanted)
        status = lsp_context_fail(ctx, LSP_ERR_LIMIT, "not enough memory for the blocks of %d ranks", ranks);
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) {
        x->blocks[ctx->layout.rank] = *mine;
        status = lsp_context_mpi(ctx,
                                 MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, x->blocks,
                                               (int)sizeof(lsp_block), MPI_BYTE, ctx->comm),
                                 "telling all ranks which block each has");
        if (status == LSP_OK) status = plan_exchange(x);
        status = lsp_context_agree(ctx, status);
    }
    if (status != LSP_OK) free_exchange(x);
    return status;
}

/* Moves the buffers: from held to wanted when `collect`, else back. What stays on this rank is copied. */
static int move(exchange *x, bool collect)
{
    MPI_Request *next = x->requests;
    int code = MPI_SUCCESS, self = x->ctx->layout.rank;
    for (int p = 0; code == MPI_SUCCESS && p < x->processes; p++) {
        double *data = x->wanted_data + x->wanted[p].first;
        int64_t bytes = common_bytes(&x->wanted[p]);
        if (p == self) {
            double *held = x->held_data + x->held[self].first;
            memcpy(collect ? data : held, collect ? held : data, (size_t)bytes);
            continue;
        }
        code = collect ? lsp_rows_irecv(data, bytes, p, TAG, x->ctx->comm, next)
                       : lsp_rows_isend(data, bytes, p, TAG, x->ctx->comm, next);
        next += lsp_rows_pieces(bytes);
    }
    for (int r = 0; code == MPI_SUCCESS && r < x->ranks; r++) {
        if (r == self) continue;
        double *data = x->held_data + x->held[r].first;
        int64_t bytes = common_bytes(&x->held[r]);
        code = collect ? lsp_rows_isend(data, bytes, r, TAG, x->ctx->comm, next)
                       : lsp_rows_irecv(data, bytes, r, TAG, x->ctx->comm, next);
        next += lsp_rows_pieces(bytes);
    }
    int count = 0;
    if (code == MPI_SUCCESS && !lsp_checked_int(next - x->requests, &count)) code = MPI_ERR_COUNT;
    return code == MPI_SUCCESS ? MPI_Waitall(count, x->requests, MPI_STATUSES_IGNORE) : code;
}

lsp_status lsp_cyclic_collect(const lsp_cyclic *matrix, const double *local, const lsp_block *mine,
                              double *values)
{
    exchange x;
    lsp_status status = begin_exchange(matrix, mine, &x);
    if (status != LSP_OK) return status;
    for (int r = 0; r < x.ranks; r++) copy_held(&x, &x.held[r], NULL, local);
    status = lsp_context_mpi(x.ctx, move(&x, true), "collecting parts of a matrix");
    for (int p = 0; status == LSP_OK && p < x.processes; p++) copy_wanted(&x, p, values, NULL);
    free_exchange(&x);
    return lsp_context_agree(matrix->grid->ctx, status);
}

lsp_status lsp_cyclic_deal(const lsp_cyclic *matrix, const lsp_block *mine, const double *values,
                           double *local)
{
    exchange x;
    lsp_status status = begin_exchange(matrix, mine, &x);
    if (status != LSP_OK) return status;
    for (int p = 0; p < x.processes; p++) copy_wanted(&x, p, NULL, values);
    status = lsp_context_mpi(x.ctx, move(&x, false), "dealing a matrix to the process grid");
    for (int r = 0; status == LSP_OK && r < x.ranks; r++) copy_held(&x, &x.held[r], local, NULL);
    free_exchange(&x);
    return lsp_context_agree(matrix->grid->ctx, status);
}
