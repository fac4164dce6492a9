/* The main thread's stack, seen from another thread. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_STACK_H
#define LSP_APP_STACK_H

#include <stdbool.h>

/* Local (main thread). Prepares; false when it cannot. */
bool lsp_stack_prepare(void);

/* Local (another thread). Whether the main thread waits for other ranks: inside of MPI's progress, or in a wait of the
 * gather. False when its stack cannot be had. */
bool lsp_stack_waits(void);

/* Local (another thread). Prints the main thread's stack, one frame a line. */
void lsp_stack_print(int fd);

#endif
