/* A library for LD_PRELOAD that lets the n-th call of a kind fail, on one rank: for tests/fault/sweep.py.
 *
 * Environment: LONGSPAN_FAULT=KIND:N:RANK chooses the call (N counts from 1; N+ that one and all that follow; KIND none
 * only counts); LONGSPAN_FAULT_LOG=PREFIX takes what was counted and what failed, in PREFIX.RANK; LONGSPAN_FAULT_FOLDER is
 * the folder whose files can fail to be written. Only calls that Longspan itself makes count, but for writes, which HDF5
 * and MPI-IO do on its behalf.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_TESTS_FAULT_H
#define LSP_TESTS_FAULT_H

#include <stdbool.h>
#include <stddef.h>

typedef enum fault_kind {
    FAULT_ALLOC, /* of Longspan, cJSON and inih */
    FAULT_MPI,
    FAULT_POLL, /* MPI_Test and its like, whose number depends on time */
    FAULT_HDF5,
    FAULT_WRITE, /* creating, writing, syncing, renaming, removing and closing of files in the folder */
    FAULT_KINDS
} fault_kind;

/* Whether this call is to fail. caller: its return address. Counts it when it counts. */
bool fault_now(fault_kind kind, const char *name, const void *caller);

/* The same of a call on a file, which counts whoever made it. grows: it needs space, and so fails from a full disk. */
bool fault_now_write(const char *name, bool grows);

/* What the name stands for without this library. */
void *fault_real(const char *name);

/* Whether a path or an open file lies in the folder. */
bool fault_in_folder(const char *path);
bool fault_in_folder_fd(int fd);

/* Notes what Longspan has made (1) and given back (-1). */
typedef enum fault_held { FAULT_COMMS, FAULT_HANDLES, FAULT_HELD } fault_held;
void fault_note(fault_held what, const void *caller, int change);

/* Writes down what is counted and what is still held; once, at the end. */
void fault_end(void);

/* What Longspan has allocated and not freed (fault_memory.c). */
long fault_live_blocks(void);

/* Whether an address lies in Longspan, or in a library whose allocations are taken for its own. */
bool fault_is_ours(const void *caller, bool helpers_too);

#define FAULT_CALLER __builtin_return_address(0)

/* Defines `type name parameters`, which fails with the value `failed` in place of the call. */
#define FAULT_CALL(kind, type, failed, name, parameters, arguments)                                          \
    type name parameters                                                                                     \
    {                                                                                                        \
        __typeof__(name) *real = fault_real(#name);                                                          \
        return fault_now(kind, #name, FAULT_CALLER) ? (failed) : real arguments;                             \
    }

/* The same for a call that gives something back: it is made, and told to have failed. */
#define FAULT_FREE(kind, type, failed, name, parameters, arguments)                                          \
    type name parameters                                                                                     \
    {                                                                                                        \
        __typeof__(name) *real = fault_real(#name);                                                          \
        bool fails = fault_now(kind, #name, FAULT_CALLER);                                                   \
        type result = real arguments;                                                                        \
        return fails ? (failed) : result;                                                                    \
    }

#endif
