/* The command line, and with the deck the options of a run. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_ARGUMENTS_H
#define LSP_APP_ARGUMENTS_H

#include "app/app.h"

/* Local. Whether the command line only asks for help or the version; prints it then, on the first rank. */
bool lsp_arguments_print_help(int argc, char **argv);

/* Collective over app->comm. Sets command, operand and options. The deck is read by rank 0 alone
 * (other nodes may not see it) and parsed by all; error is the same on every rank. */
lsp_status lsp_arguments_take(lsp_app *app, int argc, char **argv, lsp_error *error);

#endif
