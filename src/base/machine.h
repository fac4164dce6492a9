/* What memory the machine and the enclosing control groups leave. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_BASE_MACHINE_H
#define LSP_BASE_MACHINE_H

#include <stdint.h>

/* Local. lsp_memory_available with all files looked up under `root` ("" for the machine itself): its
 * proc/meminfo, proc/self/cgroup and sys/fs/cgroup. At least 1 when known; 0 with source "unknown" when
 * none of them tells anything. */
int64_t lsp_machine_memory_available(const char *root, const char **source);

#endif
