/* Which BLAS is linked. SPDX-License-Identifier: BSD-3-Clause */
#include "linalg/version.h"

#include <cblas.h>

const char *lsp_linalg_version(void)
{
    return openblas_get_config();
}
