/* Checks that the sources of a virtual dataset are there. SPDX-License-Identifier: BSD-3-Clause */
#include "store/sources.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* HDF5 looks beside the file that holds the virtual dataset, then in the working folder. */
static bool is_there(const char *file, const char *source)
{
    char beside[PATH_MAX];
    if (access(source, R_OK) == 0) return true;
    const char *slash = strrchr(file, '/');
    if (!slash || source[0] == '/') return false;
    int written = snprintf(beside, sizeof beside, "%.*s/%s", (int)(slash - file), file, source);
    return written > 0 && (size_t)written < sizeof beside && access(beside, R_OK) == 0;
}

lsp_status lsp_sources_check(hid_t properties, const char *file, const char *dataset, lsp_error *err)
{
    size_t count = 0;
    (void)H5Pget_virtual_count(properties, &count);
    for (size_t i = 0; i < count; i++) {
        char source[PATH_MAX] = "";
        if (H5Pget_virtual_filename(properties, i, source, sizeof source) <= 0) continue;
        /* "." is the file itself; a name with % stands for a series that HDF5 ends by itself. */
        if (strcmp(source, ".") == 0 || strchr(source, '%') || is_there(file, source)) continue;
        return lsp_error_set(
            err, LSP_ERR_CONTENT,
            "dataset '%s' of '%s' is put together from other files, and '%s' is missing; put it "
            "beside '%s'",
            dataset, file, source, file);
    }
    return LSP_OK;
}
