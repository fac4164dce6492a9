/* Which BLAS and ScaLAPACK are linked. SPDX-License-Identifier: BSD-3-Clause */
#include "linalg/version.h"

#include <cblas.h>

const char *lsp_linalg_version(void)
{
    return openblas_get_config();
}

const char *lsp_scalapack_version(void)
{
    return LSP_SCALAPACK_VERSION;
}
