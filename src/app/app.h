/* One run of the command: what every sub-command gets. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_APP_H
#define LSP_APP_APP_H

#include "app/options.h"

#include <longspan/longspan.h>

typedef struct lsp_app lsp_app;

typedef enum lsp_operand_kind {
    LSP_TAKES_DECK,  /* may be left out: then every key comes from an option */
    LSP_TAKES_FILE,  /* an HDF5 file */
    LSP_TAKES_EITHER /* told apart by the name's ending and the first bytes */
} lsp_operand_kind;

typedef struct lsp_command {
    const char *name;
    const char *summary; /* one line */
    const char *usage;   /* operands, as "DECK.ini" */
    const char *about;   /* some lines for its --help */
    lsp_operand_kind takes;
    unsigned uses;                   /* LSP_FOR_*, or 0 when it takes no keys */
    lsp_status (*run)(lsp_app *app); /* collective */
} lsp_command;

struct lsp_app {
    const lsp_command *command;
    const char *operand;  /* the deck or the file, or NULL */
    bool operand_is_file; /* an HDF5 file, not a deck */
    lsp_options *options; /* the same on every rank */
    MPI_Comm comm;        /* for the command's own reductions */
    lsp_context *ctx;
    lsp_context_layout layout;
    double started; /* lsp_clock() */
};

/* Local. The commands, ended by one without a name; the one called `name`, or NULL. */
const lsp_command *lsp_command_table(void);
const lsp_command *lsp_command_find(const char *name);
const char *lsp_command_nearest(const char *name);

/* Collective. The sub-commands. The text of a failure is in app->ctx. */
lsp_status lsp_attend_run(lsp_app *app);
lsp_status lsp_generate_run(lsp_app *app);
lsp_status lsp_info_run(lsp_app *app);
lsp_status lsp_merge_run(lsp_app *app);
lsp_status lsp_verify_run(lsp_app *app);
lsp_status lsp_plan_run_command(lsp_app *app);
lsp_status lsp_bench_run(lsp_app *app);
lsp_status lsp_compare_run(lsp_app *app);
lsp_status lsp_svd_run(lsp_app *app);
lsp_status lsp_layer_run(lsp_app *app);
lsp_status lsp_scaling_run_command(lsp_app *app);
lsp_status lsp_import_run(lsp_app *app);
lsp_status lsp_map_run(lsp_app *app);

/* Local. Prints on standard output. */
void lsp_help_general(void);
void lsp_help_command(const lsp_command *command);
void lsp_help_version(void);

/* Local. Records a missing key in the context (see lsp_options_require). */
lsp_status lsp_app_require(lsp_app *app, lsp_key key);

/* Local. The one number of a key that must be there (lsp_options_require, lsp_options_one). */
lsp_status lsp_app_require_one(lsp_app *app, lsp_key key, int64_t *value);

/* Local. Memory of `count` elements; NULL with LSP_ERR_LIMIT in *status and the text in the context,
 * saying `what` it was for. Freed with lsp_memory_free. *status stays as it is when all is well. */
void *lsp_app_alloc(lsp_app *app, int64_t count, size_t size, const char *what, lsp_status *status);

/* Local. Whether two names are those of one file, also where it is not there yet. */
bool lsp_app_same_file(const char *one, const char *other);

#endif
