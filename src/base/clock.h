/* Wall time. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_BASE_CLOCK_H
#define LSP_BASE_CLOCK_H

#include <time.h>

/* Local. Seconds on a clock that never goes back. */
static inline double lsp_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

#endif
