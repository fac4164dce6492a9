/* BLACS grids on communicators of their own. SPDX-License-Identifier: BSD-3-Clause */
#include "linalg/grid.h"

#include "base/checked.h"
#include "linalg/fortran.h"

#include <stdatomic.h>

/* The first MPI error inside BLACS that nobody has asked for yet. */
static _Atomic int recorded = MPI_SUCCESS;

static void record(MPI_Comm *comm, int *code, ...)
{
    (void)comm;
    int none = MPI_SUCCESS;
    atomic_compare_exchange_strong(&recorded, &none, *code);
}

void lsp_grid_shape(int ranks, int *rows, int *cols)
{
    int r = 1;
    while ((int64_t)(r + 1) * (r + 1) <= ranks) r++;
    *rows = r;
    *cols = ranks / r;
}

/* A communicator of the ranks in the grid whose errors are recorded; what BLACS makes of it inherits
 * that. MPI_COMM_NULL outside. */
static int grid_comm(lsp_context *ctx, bool inside, MPI_Comm *comm)
{
    *comm = MPI_COMM_NULL;
    int code = MPI_Comm_split(ctx->comm, inside ? 0 : MPI_UNDEFINED, ctx->layout.rank, comm);
    if (code != MPI_SUCCESS || !inside) return code;
    MPI_Errhandler handler = MPI_ERRHANDLER_NULL;
    code = MPI_Comm_create_errhandler(record, &handler);
    if (code == MPI_SUCCESS) code = MPI_Comm_set_errhandler(*comm, handler);
    if (handler != MPI_ERRHANDLER_NULL) MPI_Errhandler_free(&handler);
    return code;
}

static lsp_status check_shape(lsp_context *ctx, int rows, int cols)
{
    if (rows < 1 || cols < 1 || (int64_t)rows * cols > ctx->layout.ranks)
        return lsp_context_fail(ctx, LSP_ERR_USAGE, "a process grid of %d x %d needs 1 to %d ranks", rows,
                                cols, ctx->layout.ranks);
    /* BLACS ends the program when a grid has more processes than MPI had at start. */
    int mine = 0, processes = 0;
    Cblacs_pinfo(&mine, &processes);
    if ((int64_t)rows * cols > processes)
        return lsp_context_fail(ctx, LSP_ERR_USAGE,
                                "a process grid of %d x %d has more processes than the %d MPI started with; "
                                "ScaLAPACK cannot use processes spawned later",
                                rows, cols, processes);
    return LSP_OK;
}

static void join(MPI_Comm comm, lsp_grid *grid)
{
    int handle = Csys2blacs_handle(comm);
    grid->blacs = handle;
    Cblacs_gridinit(&grid->blacs, "Row", grid->rows, grid->cols);
    /* The context has copies of the communicator. BLACS moves handles when others are freed, so none is
     * kept. */
    Cfree_blacs_system_handle(handle);
    if (grid->blacs < 0) return;
    int rows = 0, cols = 0, yes = 1;
    Cblacs_gridinfo(grid->blacs, &rows, &cols, &grid->row, &grid->col);
    Cblacs_set(grid->blacs, LSP_BLACS_TOPS_REPEAT, &yes);
    Cblacs_set(grid->blacs, LSP_BLACS_TOPS_COHERENT, &yes);
}

lsp_status lsp_grid_create(lsp_context *ctx, int rows, int cols, lsp_grid *grid)
{
    *grid = (lsp_grid){.ctx = ctx, .blacs = -1, .row = -1, .col = -1};
    lsp_status status = lsp_context_agree(ctx, check_shape(ctx, rows, cols));
    if (status != LSP_OK) return status;
    bool inside = ctx->layout.rank < rows * cols;
    MPI_Comm comm = MPI_COMM_NULL;
    status = lsp_context_mpi(ctx, grid_comm(ctx, inside, &comm), "making the communicator of a process grid");
    status = lsp_context_agree(ctx, status);
    if (status != LSP_OK) {
        if (comm != MPI_COMM_NULL) MPI_Comm_free(&comm);
        return status;
    }
    grid->rows = rows;
    grid->cols = cols;
    if (inside) {
        join(comm, grid);
        MPI_Comm_free(&comm);
        status = lsp_grid_verdict(grid, "making a process grid");
        if (status == LSP_OK && grid->blacs < 0)
            status = lsp_context_fail(ctx, LSP_ERR_RANK, "BLACS has left this rank out of a grid of %d x %d",
                                      rows, cols);
    }
    status = lsp_context_agree(ctx, status);
    if (status != LSP_OK) lsp_grid_destroy(grid);
    return status;
}

void lsp_grid_destroy(lsp_grid *grid)
{
    if (grid->blacs >= 0 && grid->ctx) Cblacs_gridexit(grid->blacs);
    *grid = (lsp_grid){.blacs = -1, .row = -1, .col = -1};
}

bool lsp_grid_inside(const lsp_grid *grid)
{
    return grid->row >= 0;
}

lsp_status lsp_grid_verdict(const lsp_grid *grid, const char *what)
{
    return lsp_context_mpi(grid->ctx, atomic_exchange(&recorded, MPI_SUCCESS), what);
}
