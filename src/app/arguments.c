/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/arguments.h"

#include "app/collect.h"
#include "app/deck.h"
#include "app/launch.h"
#include "base/memory.h"

#include <stdio.h>
#include <string.h>

bool lsp_arguments_print_help(int argc, char **argv)
{
    bool help = false, version = false;
    for (int i = 1; i < argc; i++) {
        help = help || strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0;
        version = version || strcmp(argv[i], "--version") == 0;
    }
    if ((help || version) && lsp_launch_is_later_rank()) return true;
    const lsp_command *command = argc > 1 ? lsp_command_find(argv[1]) : NULL;
    if (help && command) {
        lsp_help_command(command);
    } else if (help) {
        lsp_help_general();
    } else if (version) {
        lsp_help_version();
    }
    return help || version;
}

/* --section.key=value */
static lsp_status take_option(lsp_app *app, const char *argument, lsp_error *error)
{
    char section[64], name[64], origin[160];
    const char *dot = strchr(argument, '.'), *equals = strchr(argument, '=');
    if (!dot || !equals || dot > equals) {
        return lsp_error_set(error, LSP_ERR_USAGE,
                             "'%s' is no option; options are --section.key=value, --help and --version "
                             "(longspan %s --help lists the keys)",
                             argument, app->command->name);
    }
    (void)snprintf(section, sizeof section, "%.*s", (int)(dot - argument - 2), argument + 2);
    (void)snprintf(name, sizeof name, "%.*s", (int)(equals - dot - 1), dot + 1);
    (void)snprintf(origin, sizeof origin, "--%s.%s", section, name);
    return lsp_options_set(app->options, section, name, equals + 1, origin, error);
}

/* --compare FILE or --compare=FILE, the short way to give bench.compare; */
static bool is_compare(const lsp_app *app, const char *argument)
{
    static const char name[] = "--compare";
    size_t length = sizeof name - 1;
    return (app->command->uses & LSP_FOR_BENCH) && strncmp(argument, name, length) == 0 &&
           (argument[length] == '\0' || argument[length] == '=');
}

static lsp_status take_compare(lsp_app *app, int argc, char **argv, int *index, lsp_error *error)
{
    const char *equals = strchr(argv[*index], '=');
    if (!equals && *index + 1 == argc)
        return lsp_error_set(error, LSP_ERR_USAGE, "--compare needs the name of an earlier report.json");
    const char *file = equals ? equals + 1 : argv[++*index];
    return lsp_options_set(app->options, "bench", "compare", file, "--compare", error);
}

static bool looks_like_hdf5(const char *name)
{
    static const char signature[8] = {'\x89', 'H', 'D', 'F', '\r', '\n', '\x1a', '\n'};
    const char *dot = strrchr(name, '.');
    if (dot && (strcmp(dot, ".h5") == 0 || strcmp(dot, ".hdf5") == 0)) return true;
    char head[sizeof signature] = {0};
    FILE *stream = fopen(name, "rb");
    if (!stream) return false;
    size_t bytes = fread(head, 1, sizeof head, stream);
    (void)fclose(stream);
    return bytes == sizeof head && memcmp(head, signature, sizeof head) == 0;
}

/* Rank 0's deck, in *text on every rank. */
static lsp_status share_deck(lsp_app *app, int rank, char **text, lsp_error *error)
{
    struct {
        lsp_status status;
        bool is_file;
        int64_t length;
        lsp_error error;
    } head = {.status = LSP_OK};
    if (rank == 0) {
        head.is_file = app->command->takes == LSP_TAKES_EITHER && looks_like_hdf5(app->operand);
        if (!head.is_file) head.status = lsp_deck_read(app->operand, text, &head.error);
        if (*text) head.length = (int64_t)strlen(*text);
    }
    lsp_collect_broadcast(app->comm, &head, sizeof head);
    app->operand_is_file = head.is_file;
    *error = head.error;
    if (head.status != LSP_OK || head.is_file) return head.status;
    if (rank != 0) *text = lsp_memory_zalloc(head.length + 1, 1);
    int missing = *text == NULL;
    int any = 0;
    lsp_collect_check(app->comm, MPI_Allreduce(&missing, &any, 1, MPI_INT, MPI_MAX, app->comm));
    if (any) {
        return lsp_error_set(error, LSP_ERR_LIMIT, "no memory for the deck %s", app->operand);
    }
    lsp_collect_broadcast(app->comm, *text, head.length);
    return LSP_OK;
}

static lsp_status take_operand(lsp_app *app, const char *argument, lsp_error *error)
{
    if (app->operand) {
        return lsp_error_set(error, LSP_ERR_USAGE,
                             "both '%s' and '%s' are given; longspan %s takes one operand (%s)", app->operand,
                             argument, app->command->name, app->command->usage);
    }
    app->operand = argument;
    return LSP_OK;
}

static lsp_status take_deck(lsp_app *app, int rank, lsp_error *error)
{
    if (app->command->takes == LSP_TAKES_FILE) {
        app->operand_is_file = true;
        if (app->operand) return LSP_OK;
        return lsp_error_set(error, LSP_ERR_USAGE, "no file given: longspan %s %s", app->command->name,
                             app->command->usage);
    }
    if (!app->operand) return LSP_OK;
    char *text = NULL;
    lsp_status status = share_deck(app, rank, &text, error);
    if (status == LSP_OK && text) status = lsp_deck_parse(text, app->operand, app->options, error);
    lsp_memory_free(text);
    return status;
}

lsp_status lsp_arguments_take(lsp_app *app, int argc, char **argv, lsp_error *error)
{
    int rank = 0;
    lsp_collect_check(app->comm, MPI_Comm_rank(app->comm, &rank));
    if (argc < 2) {
        return lsp_error_set(error, LSP_ERR_USAGE, "no command given; longspan --help lists them");
    }
    app->command = lsp_command_find(argv[1]);
    if (!app->command) {
        return lsp_error_set(error, LSP_ERR_USAGE,
                             "unknown command '%s'; the nearest is '%s' (longspan --help lists all)", argv[1],
                             lsp_command_nearest(argv[1]));
    }
    app->options = lsp_options_create();
    lsp_status status =
        app->options ? LSP_OK : lsp_error_set(error, LSP_ERR_LIMIT, "no memory for the options");
    status = lsp_collect_agree(app->comm, rank, status, error);
    for (int i = 2; i < argc && status == LSP_OK; i++) {
        if (argv[i][0] != '-')
            status = take_operand(app, argv[i], error);
        else if (is_compare(app, argv[i]))
            i += strchr(argv[i], '=') == NULL; /* its file is no operand */
    }
    if (status == LSP_OK) status = take_deck(app, rank, error);
    for (int i = 2; i < argc && status == LSP_OK; i++) {
        if (argv[i][0] != '-') continue;
        status = is_compare(app, argv[i]) ? take_compare(app, argc, argv, &i, error)
                                          : take_option(app, argv[i], error);
    }
    return lsp_collect_agree(app->comm, rank, status, error);
}
