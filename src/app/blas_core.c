/* A core for OpenBLAS when it does not know the processor. SPDX-License-Identifier: BSD-3-Clause */
#include "app/launch.h"

#include "linalg/version.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *lsp_launch_blas_core(lsp_isa isa, const char **taken)
{
    static const char *const old[] = {"Prescott", "Core2", "Generic"};
    for (size_t i = 0; isa >= LSP_ISA_AVX2 && i < sizeof old / sizeof *old; i++) {
        *taken = old[i];
        if (strstr(lsp_linalg_version(), old[i])) return isa >= LSP_ISA_AVX512 ? "SkylakeX" : "Haswell";
    }
    return NULL;
}

void lsp_launch_restart_for_blas(char **argv)
{
    const char *name = "OPENBLAS_CORETYPE", *taken = NULL;
    if (getenv(name)) return;
    const char *core = lsp_launch_blas_core(lsp_isa_best(), &taken);
    if (!core || setenv(name, core, 1) != 0) return;
    (void)execv("/proc/self/exe", argv);
    (void)unsetenv(name); /* goes on as it is; the report has a note */
}
