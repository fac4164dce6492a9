/* --help and --version, before MPI starts; the man page is made from them.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "app/app.h"
#include "linalg/version.h"

#include <stdio.h>
#include <string.h>

void lsp_help_general(void)
{
    (void)fputs("Usage: longspan COMMAND [DECK.ini | FILE.h5] [--section.key=value]...\n"
                "  or:  mpirun -n P longspan COMMAND DECK.ini [--section.key=value]...\n"
                "  or:  srun --mpi=pmix longspan COMMAND DECK.ini [--section.key=value]...\n"
                "Transformer attention over sequences too long for one process, exact and approximate.\n"
                "\n"
                "Commands:\n",
                stdout);
    for (const lsp_command *command = lsp_command_table(); command->name; command++) {
        (void)printf("  %-12s %s\n", command->name, command->summary);
    }
    (void)fputs(
        "\n"
        "Options:\n"
        "  --help       this text; longspan COMMAND --help lists the keys that a command uses\n"
        "  --version    versions of longspan and its libraries, and the instruction set\n"
        "  --section.key=value\n"
        "               any key of a deck; wins over the deck\n"
        "\n"
        "Decks:\n"
        "A deck is an INI file: [section] lines and key = value lines of at most 196 characters. A line "
        "that\n"
        "starts with ; or #, and what follows a blank and a semicolon, is a comment. File names are "
        "relative\n"
        "to the working directory. Keys that a command does not use are accepted and listed as unused.\n"
        "\n"
        "Exit status:\n"
        "  0    done and verified\n"
        "  2    deck or usage\n"
        "  3    the input's content is wrong\n"
        "  4    verification failed\n"
        "  5    not enough memory, or a size limit\n"
        "  6    a file cannot be opened, created, read or written\n"
        "  70   a rank or MPI failed\n"
        "  75   stopped as asked, its state is saved: start it again to go on\n"
        "  143  ended by SIGTERM, with nothing to go on from\n"
        "\n"
        "Examples:\n"
        "  longspan generate --shape.n=8192 --shape.d_k=64 --output.file=x.h5\n"
        "  mpirun -n 2 longspan attend --input.file=x.h5 --attention.mask=causal --output.file=y.h5\n"
        "  longspan info y.h5\n",
        stdout);
}

static void print_key(const lsp_option *option)
{
    (void)printf("  %-16s %s", option->name, option->help);
    if (option->kind == LSP_OPTION_CHOICE && strchr(option->words, '|')) {
        (void)printf(" (%s)", option->words);
    } else if (option->kind == LSP_OPTION_WORDS) {
        (void)printf(" (some of %s)", option->words);
    } else if (option->kind == LSP_OPTION_YESNO) {
        (void)printf(" (yes|no)");
    }
    if (option->fallback[0]) (void)printf(" [%s]", option->fallback);
    (void)printf("\n");
}

void lsp_help_command(const lsp_command *command)
{
    (void)printf("Usage: longspan %s %s%s\nlongspan %s: %s.\n\n%s", command->name, command->usage,
                 command->uses ? " [--section.key=value]..." : "", command->name, command->summary,
                 command->about);
    if (!command->uses) return;
    (void)printf("\nKeys, with their defaults in brackets. Each is also an option: --section.key=value.\n");
    const char *section = "";
    for (int key = 0; key < LSP_KEY_COUNT; key++) {
        const lsp_option *option = lsp_option_get((lsp_key)key);
        if (!(option->commands & command->uses)) continue;
        if (strcmp(section, option->section) != 0) (void)printf("\n[%s]\n", option->section);
        section = option->section;
        print_key(option);
    }
}

void lsp_help_version(void)
{
    char mpi[MPI_MAX_LIBRARY_VERSION_STRING];
    int length = 0;
    if (MPI_Get_library_version(mpi, &length) != MPI_SUCCESS) length = 0;
    int first_line = 0;
    while (first_line < length && mpi[first_line] != '\n' && mpi[first_line] != ',') first_line++;
    (void)printf("longspan %s\n"
                 "MPI: %.*s\n"
                 "HDF5: %s\n"
                 "ScaLAPACK: %s (when built)\n"
                 "BLAS: %s\n"
                 "Instruction set: %s\n"
                 "\n"
                 "License: BSD-3-Clause. There is no warranty, to the extent permitted by law.\n",
                 lsp_version(), first_line, mpi, lsp_hdf5_version(), lsp_scalapack_version(),
                 lsp_linalg_version(), lsp_isa_name(lsp_isa_best()));
}
