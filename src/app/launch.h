/* What the environment and the launcher say. The command alone reads the environment.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_LAUNCH_H
#define LSP_APP_LAUNCH_H

#include "app/app.h"

/* Local, before MPI_Init. Whether srun started several tasks without PMIx, each of which would run
 * alone as rank 0 of 1. *tasks is their number, *first whether this is the task that should say so. */
bool lsp_launch_is_singletons(int *tasks, bool *first);

/* Local, before MPI_Init. Whether a launcher says that another task is rank 0. */
bool lsp_launch_is_later_rank(void);

/* Local. The name of a core that OpenBLAS knows and this processor can stand for, where it has taken the processor for
 * an old one (*taken), which costs most of the speed of dense algebra; NULL where it has not. */
const char *lsp_launch_blas_core(lsp_isa isa, const char **taken);

/* Local, first of all. In that case starts the program again with the name in OPENBLAS_CORETYPE, which OpenBLAS reads
 * when it is loaded; unless the user has set it. Returns when there is nothing to do, or it cannot be done. */
void lsp_launch_restart_for_blas(char **argv);

/* Local. Threads of a rank that OMP_NUM_THREADS asks for, or 0. */
int lsp_launch_threads(void);

/* Local. Bytes that Slurm grants on this node (SLURM_MEM_PER_NODE, SLURM_MEM_PER_CPU); 0 when it says
 * nothing. */
int64_t lsp_launch_memory(void);

/* Local. Sockets (rather, parts of the memory: NUMA nodes) of this machine; 1 when the system tells nothing. */
int64_t lsp_launch_sockets(void);

/* Local. Seconds until the end of the Slurm job (SLURM_JOB_END_TIME); false when nothing says. */
bool lsp_launch_seconds_left(double *seconds);

/* Local. The least of what machine or cgroup have available, Slurm grants and the deck asks (each 0: it
 * says nothing); INT64_MAX when none says anything. *which: 0 machine, 1 cgroup, 2 Slurm, 3 deck. */
int64_t lsp_launch_least_memory(int64_t available, bool cgroup, int64_t slurm, double asked, int *which);

/* Collective. Bytes that a node's ranks may take together: the least over all nodes of what machine,
 * cgroup, Slurm and plan.memory_per_node leave; 0 when no node knows a limit. *source names which of them
 * it was, on every rank. */
int64_t lsp_launch_memory_limit(lsp_app *app, const char **source);

/* Collective. A warning from rank 0 when some node runs more threads than it has cores. */
void lsp_launch_warn_oversubscribed(lsp_app *app);

#endif
