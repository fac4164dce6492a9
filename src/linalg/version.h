/* Which BLAS and ScaLAPACK are linked. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_LINALG_VERSION_H
#define LSP_LINALG_VERSION_H

/* Local. Name, version and build of the BLAS, as it describes itself. Static storage. */
const char *lsp_linalg_version(void);

/* Local. Version of ScaLAPACK when this was built: the library does not tell its own. Static storage. */
const char *lsp_scalapack_version(void);

#endif
