/* Status codes of every public call. They are also the exit codes of the command.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LONGSPAN_STATUS_H
#define LONGSPAN_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

/* A call that does not return LSP_OK has left its outputs as they were; the text of the failure is in
 * the context (lsp_context_message). */
typedef enum lsp_status {
    LSP_OK = 0,
    LSP_ERR_USAGE = 2,    /* an argument, an option or a combination of them */
    LSP_ERR_CONTENT = 3,  /* the input's content: not HDF5, missing dataset, shape, type, values */
    LSP_ERR_VERIFY = 4,   /* the result did not pass its verification */
    LSP_ERR_LIMIT = 5,    /* not enough memory, or a size limit */
    LSP_ERR_FILE = 6,     /* a file cannot be opened, created, read or written */
    LSP_ERR_RANK = 70,    /* a rank or MPI failed */
    LSP_INTERRUPTED = 75, /* stopped on request, to go on from what was saved */
    LSP_TERMINATED = 143  /* ended on request, with nothing to go on from */
} lsp_status;

/* Local. Short name of a code ("usage", "content", ...); never NULL. */
const char *lsp_status_name(lsp_status status);

#ifdef __cplusplus
}
#endif
#endif
