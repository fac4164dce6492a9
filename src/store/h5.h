/* Small helpers over HDF5: quiet errors with their reason as text, handles that close in bulk, attributes.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_STORE_H5_H
#define LSP_STORE_H5_H

#include <hdf5.h>
#include <longspan/context.h>
#include <longspan/tensor.h>
#include <mpi.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The caller's error printing, put back by leave. */
typedef struct lsp_h5_quiet {
    unsigned is_v2;
    void *function; /* H5E_auto1_t or H5E_auto2_t */
    void *data;
} lsp_h5_quiet;

/* Local. Silences HDF5's printing until leave; every public call of the store stands between the two. */
lsp_h5_quiet lsp_h5_quiet_enter(void);
void lsp_h5_quiet_leave(const lsp_h5_quiet *quiet);

/* Local. Copies the innermost text of HDF5's last failure ("truncated file: eof = ...") to reason. To be
 * called after the call that failed and at most closing of handles by the functions below: any other HDF5
 * call clears it. Returns reason. */
const char *lsp_h5_reason(char *reason, size_t size);
enum { LSP_H5_REASON = 300 };

/* Handles of any kind, closed together in reverse order. */
enum { LSP_H5_HANDLES = 24 };
typedef struct lsp_h5_handles {
    hid_t ids[LSP_H5_HANDLES];
    int count;
} lsp_h5_handles;

/* Local. Remembers id (when valid) and returns it; closes it at once and returns H5I_INVALID_HID when full. */
hid_t lsp_h5_keep(lsp_h5_handles *handles, hid_t id);

/* Local. Closes all; false when one failed. */
bool lsp_h5_close(lsp_h5_handles *handles);

/* Local. Closes one handle of any kind (negative: nothing); false on failure. */
bool lsp_h5_close_one(hid_t id);

/* Local. Closes a file that this process writes (negative: nothing). fd: a descriptor of the same file, which stays.
 * `wanted`: what was written matters. False when something could not be written, or was not wanted.
 *
 * HDF5 keeps the handle of a file that it could not close, though what the handle stands for is gone by then, and ends the
 * program with a signal when it cleans up (lsp_hdf5_start has it not clean up). So what can fail is done before closing,
 * and after a failure the file's descriptors are made to stand for memory, where nothing fails. */
bool lsp_h5_close_written(hid_t file, int fd, bool wanted);

/* Local. File access for one process (POSIX). Locks are taken when `lock` and where the file system has them. */
hid_t lsp_h5_access_serial(bool lock);

/* ---- element types ------------------------------------------------------------------------------- */

/* Local. A new handle: the type in memory (native byte order), and in files that Longspan writes (little-endian). */
hid_t lsp_h5_memory_type(lsp_dtype type);
hid_t lsp_h5_file_type(lsp_dtype type);

/* Local. The element type of a dataset (either byte order); false for one that Longspan does not read. i64
 * is a signed integer of 8 bytes. bf16 is uint16 with attribute dtype = "bf16". */
bool lsp_h5_dataset_type(hid_t dataset, lsp_dtype *type);

/* Local. Name of any HDF5 type for messages ("int32", "f32 (big-endian)", "string", "compound"). */
const char *lsp_h5_type_name(hid_t type, char *name, size_t size);

/* ---- attributes ---------------------------------------------------------------------------------- */

/* Local. Reads a string attribute (fixed or variable length), cut at size; false when there is none. */
bool lsp_h5_attribute_text(hid_t object, const char *name, char *text, size_t size);

/* Local. Write or replace a scalar attribute; false on failure. */
bool lsp_h5_put_text(hid_t object, const char *name, const char *value);
bool lsp_h5_put_i64(hid_t object, const char *name, int64_t value);
bool lsp_h5_put_f64(hid_t object, const char *name, double value);

#endif
