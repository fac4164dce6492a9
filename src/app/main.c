/* The longspan command: MPI, options, context, the sub-command, and one exit code for all ranks.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "app/app.h"
#include "app/arguments.h"
#include "app/checkpoint.h"
#include "app/collect.h"
#include "app/launch.h"
#include "app/report.h"
#include "app/watchdog.h"
#include "base/clock.h"

#include <omp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void print_error(const char *text, int failed_rank)
{
    (void)fflush(stdout);
    if (failed_rank > 0) {
        (void)fprintf(stderr, "longspan: error: %s (rank %d)\n", text, failed_rank);
    } else {
        (void)fprintf(stderr, "longspan: error: %s\n", text);
    }
    (void)fflush(stderr);
}

/* Each task would compute everything alone, and all would write the same file. */
static bool refuse_singletons(void)
{
    int tasks = 0;
    bool first = false;
    if (!lsp_launch_is_singletons(&tasks, &first)) return false;
    if (first) {
        char text[256];
        (void)snprintf(text, sizeof text,
                       "srun started %d tasks that do not know each other: each would run alone; use "
                       "srun --mpi=pmix longspan ...",
                       tasks);
        print_error(text, -1);
    }
    return true;
}

static lsp_status create_context(lsp_app *app, lsp_error *error)
{
    int threads = (int)lsp_options_int(app->options, LSP_KEY_COMPUTE_THREADS);
    if (threads == 0) threads = lsp_launch_threads();
    const lsp_context_options options = {.threads = threads};
    error->status = lsp_context_create(app->comm, &options, &app->ctx, error->text, sizeof error->text);
    if (error->status == LSP_OK) {
        app->layout = lsp_context_get_layout(app->ctx);
        /* Also for the library's local functions, which have no context to ask. */
        omp_set_num_threads(app->layout.threads);
    }
    return error->status;
}

/* The library says what there was no memory for; that another distribution of ranks has more is for the command to say. */
static const char *with_remedy(const char *text, lsp_status status, char whole[LSP_ERROR_TEXT])
{
    bool has = status != LSP_ERR_LIMIT || strstr(text, "; ") || strstr(text, ": use ");
    (void)snprintf(whole, LSP_ERROR_TEXT, "%s%s", text, has ? "" : "; use more nodes, or fewer ranks a node");
    return whole;
}

/* MPI has failed: the other ranks may wait for this one for ever. Where all know of it the one that tells is to be the
 * first to end. */
static void abort_job(MPI_Comm comm, bool told)
{
    enum { SECONDS = 5 };
    if (!told) (void)sleep(SECONDS);
    (void)MPI_Abort(comm, LSP_ERR_RANK);
}

static lsp_status end_without_context(const lsp_app *app, int rank, const lsp_error *error)
{
    /* A failure of MPI is this rank's alone. */
    bool alone = error->status == LSP_ERR_RANK;
    char text[LSP_ERROR_TEXT];
    if (rank == 0 || alone) print_error(with_remedy(error->text, error->status, text), alone ? rank : -1);
    if (alone) abort_job(app->comm, true);
    return error->status;
}

/* Tells what the command failed with. */
static void tell_failure(lsp_app *app, int rank, lsp_status status)
{
    char text[LSP_ERROR_TEXT];
    /* When MPI itself has failed, rank 0 may never come here. */
    int failed = lsp_context_failed_rank(app->ctx);
    int speaker = status == LSP_ERR_RANK && failed > 0 ? failed : 0;
    if (rank == speaker && status == LSP_INTERRUPTED)
        (void)fprintf(stderr, "longspan: %s\n", lsp_context_message(app->ctx));
    else if (rank == speaker)
        print_error(with_remedy(lsp_context_message(app->ctx), status, text), failed);
    if (status == LSP_ERR_RANK) abort_job(app->comm, rank == speaker);
}

/* Runs the command; the same status on every rank. */
static lsp_status run_command(lsp_app *app, int argc, char **argv)
{
    lsp_error error = {LSP_OK, ""};
    int rank = 0;
    lsp_collect_check(app->comm, MPI_Comm_rank(app->comm, &rank));
    lsp_status status = lsp_arguments_take(app, argc, argv, &error);
    if (status == LSP_OK) status = create_context(app, &error);
    if (status != LSP_OK) {
        error.status = status;
        return end_without_context(app, rank, &error);
    }
    lsp_launch_warn_oversubscribed(app);
    if (app->command->uses & lsp_option_get(LSP_KEY_CHECKPOINT_WATCHDOG)->commands) lsp_watchdog_start(app);
    status = app->command->run(app);
    if (status == LSP_OK)
        status = lsp_context_agree(app->ctx, LSP_OK); /* MPI may have failed in closing files */
    lsp_watchdog_stop();
    if (status != LSP_OK) tell_failure(app, rank, status);
    lsp_status ended = lsp_context_destroy(&app->ctx);
    return status != LSP_OK ? status : ended;
}

int main(int argc, char **argv)
{
    lsp_launch_restart_for_blas(argv);
    if (lsp_arguments_print_help(argc, argv)) return 0;
    if (refuse_singletons()) return LSP_ERR_USAGE;
    lsp_json_prepare();
    /* A signal may come as soon as the program runs. */
    const lsp_command *command = argc > 1 ? lsp_command_find(argv[1]) : NULL;
    unsigned listen = lsp_option_get(LSP_KEY_CHECKPOINT_FILE)->commands |
                      LSP_FOR_MAP; /* a map keeps nothing, but cleans up */
    if (command && (command->uses & listen)) lsp_keeper_listen();
    (void)signal(SIGXFSZ, SIG_IGN); /* a write beyond the file-size limit then fails like any other */
    lsp_app app = {.comm = MPI_COMM_NULL};
    int provided = 0;
    lsp_hdf5_start();
    if (MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
        print_error("MPI cannot be started; look at the launcher's messages", -1);
        return LSP_ERR_RANK;
    }
    app.started = lsp_clock();
    lsp_collect_check(MPI_COMM_WORLD, MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    lsp_collect_check(MPI_COMM_WORLD,
                      MPI_Comm_dup(MPI_COMM_WORLD, &app.comm)); /* returns its errors as well */
    lsp_status status = run_command(&app, argc, argv);
    lsp_options_destroy(app.options);
    (void)MPI_Comm_free(&app.comm);
    (void)MPI_Finalize();
    return status;
}
