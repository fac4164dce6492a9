/* Ends a run in which nothing goes on any more, and says where.
 *
 * Every rank has a thread that looks at the main thread's progress, and tells another rank's thread that it lives, by
 * datagrams: MPI may be what hangs. A rank is stuck when it neither comes on nor waits for others; it says so itself,
 * or, when the whole process stands still, the rank that hears no more of it does. Ranks that wait are not to blame,
 * unless all do. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_WATCHDOG_H
#define LSP_APP_WATCHDOG_H

#include "app/app.h"

/* Collective. Starts watching, by checkpoint.watchdog (seconds; 0: not at all). A watch that cannot be kept is told of
 * once and left out: it is no reason to fail. Main thread. */
void lsp_watchdog_start(lsp_app *app);

/* Local (main thread). A phase begins, with a name of static storage. `beats`: it calls lsp_watchdog_beat all the time,
 * and stands still when it does not; in others processor time and bytes read and written count as well. */
void lsp_watchdog_phase(const char *name, bool beats);

/* Local (main thread). Something was done. */
void lsp_watchdog_beat(void);

/* Local (main thread). Ends watching; allowed when none was started. */
void lsp_watchdog_stop(void);

#endif
