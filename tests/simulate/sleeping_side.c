/* Ranks that sleep instead of computing: the MPI library's own behaviour, with far more ranks than cores.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "side.h"

#include <time.h>

static void pass(double seconds)
{
    struct timespec span = {.tv_sec = (time_t)seconds};
    span.tv_nsec = (long)((seconds - (double)span.tv_sec) * 1e9);
    (void)nanosleep(&span, NULL);
}

void side_compute(double seconds)
{
    pass(seconds);
}

lsp_status side_wait(void *user)
{
    (void)user;
    pass(20e-6); /* other ranks want the core */
    return LSP_OK;
}
