/* Tensors in HDF5 files: what is there, and reading and writing runs of rows in parallel.
 *
 * A tensor with up to four axes is seen as [B, H, n, d]: B*H matrices of n rows with d columns.
 *   [n]          -> [1, 1, n, 1]   (only by lsp_tensor_open_as with LSP_VIEW_SCALARS: lse, key_lengths)
 *   [n, d]       -> [1, 1, n, d]
 *   [H, n, d]    -> [1, H, n, d]
 *   [B, H, n, d] as it is; with layout bnhd the file holds [B, n, H, d] (three axes: [n, H, d]).
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LONGSPAN_TENSOR_H
#define LONGSPAN_TENSOR_H

#include <longspan/context.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum lsp_dtype { LSP_F16 = 0, LSP_BF16 = 1, LSP_F32 = 2, LSP_F64 = 3, LSP_I64 = 4 } lsp_dtype;

/* Local. Bytes of one element; its name ("f16", "bf16", "f32", "f64", "i64"). */
size_t lsp_dtype_size(lsp_dtype type);
const char *lsp_dtype_name(lsp_dtype type);

/* Local. The type of results computed in `compute`: f32 for bf16, else the same. */
lsp_dtype lsp_dtype_result(lsp_dtype compute);

/* A run of rows of one matrix: rows [begin, begin + count) of head `head` of batch `batch`. */
typedef struct lsp_run {
    int64_t batch, head, begin, count;
} lsp_run;

typedef enum lsp_layout { LSP_BHND = 0, LSP_BNHD = 1 } lsp_layout;

/* LSP_VIEW_ROWS: the last axis is d. LSP_VIEW_SCALARS: there is no d axis, every row is one number
 * (dimensions [n], [H, n], [B, H, n]; d = 1). */
typedef enum lsp_view { LSP_VIEW_ROWS = 0, LSP_VIEW_SCALARS = 1 } lsp_view;

typedef struct lsp_tensor lsp_tensor;

typedef struct lsp_tensor_shape {
    lsp_dtype type;             /* element type, in memory in native byte order */
    int axes;                   /* axes in the file, 1 to 4 */
    int64_t batch, heads, n, d; /* as seen, see above */
    lsp_layout layout;
    bool has_checksum; /* the file tells a checksum */
    uint64_t checksum;
} lsp_tensor_shape;

/* Collective. Opens dataset `dataset` of `file` for reading. Rank 0 reads and validates the metadata,
 * all ranks get the same verdict. Errors: LSP_ERR_FILE (cannot be opened), LSP_ERR_CONTENT (not HDF5,
 * truncated, dataset missing (names those there), not 1 to 4 axes, a zero axis, unsupported type). */
lsp_status lsp_tensor_open(lsp_context *ctx, const char *file, const char *dataset, lsp_view view,
                           lsp_layout layout, lsp_tensor **out);

/* Local. */
lsp_tensor_shape lsp_tensor_get_shape(const lsp_tensor *tensor);

/* Collective. Reads the runs (local to each rank, any number, also none) one after the other into
 * buffer: sum of counts x d elements of the tensor's type. The buffer is the caller's. When the runs
 * of all ranks together cover the tensor exactly once and it has a checksum, that is checked too
 * (LSP_ERR_CONTENT). Errors: LSP_ERR_CONTENT (truncated, filter fails), LSP_ERR_FILE. */
lsp_status lsp_tensor_read(lsp_tensor *tensor, const lsp_run *runs, int64_t run_count, void *buffer);

/* Collective. Counts NaN and Inf in what lsp_tensor_read gave for the same runs. *count is the sum
 * over all ranks; when it is not 0, first[4] is the first one's index [b, h, row, column]. */
lsp_status lsp_tensor_screen(lsp_tensor *tensor, const lsp_run *runs, int64_t run_count, const void *buffer,
                             int64_t *count, int64_t first[4]);

/* Collective. Reads the whole tensor in small pieces, the ranks sharing it equally, and computes its
 * checksum (see lsp_output_checksum), whether the file tells one or not. Errors as lsp_tensor_read. */
lsp_status lsp_tensor_checksum(lsp_tensor *tensor, uint64_t *checksum);

/* Collective. Closes and frees; sets *tensor to NULL. */
lsp_status lsp_tensor_close(lsp_tensor **tensor);

/* Collective. Reads a small one-dimensional dataset (integers of any width) whole into a new array
 * that every rank owns (free with lsp_free): documents, key lengths. LSP_ERR_LIMIT above 2^27
 * elements. */
lsp_status lsp_tensor_read_i64(lsp_context *ctx, const char *file, const char *dataset, int64_t **values,
                               int64_t *count);

/* Local. Frees what a lsp call said to free with lsp_free. */
void lsp_free(void *pointer);

/* ---- writing: a file that is complete or absent ---------------------------------------------- */

typedef struct lsp_output lsp_output;

typedef struct lsp_output_dataset {
    const char *name; /* "/out" */
    lsp_dtype type;
    int axes;        /* 1 to 4 */
    int64_t dims[4]; /* in the file, row-major */
    lsp_view view;
    lsp_layout layout;
    const char *axis_names[4]; /* dimension scale names ("batch", "head", "row", "column"), or NULL */
    const char *units;         /* attribute, or NULL */
} lsp_output_dataset;

/* Collective. Creates `file` under a temporary name in the same folder with all datasets (contiguous,
 * allocated), after checking that it may be created and that the space is there. Errors: LSP_ERR_FILE
 * (exists and not overwrite; folder missing or not writable; not enough space: needed and free are
 * named). */
lsp_status lsp_output_create(lsp_context *ctx, const char *file, bool overwrite,
                             const lsp_output_dataset *datasets, int count, lsp_output **out);

/* Collective. Writes runs (local to each rank) of dataset number `index`. Each row is to be written
 * exactly once, by one rank. Adds to the dataset's checksum. */
lsp_status lsp_output_write(lsp_output *output, int index, const lsp_run *runs, int64_t run_count,
                            const void *buffer);

/* Collective (same arguments on every rank). Attribute of the whole file or, with index >= 0, of a dataset. */
lsp_status lsp_output_attribute_text(lsp_output *output, int index, const char *name, const char *value);
lsp_status lsp_output_attribute_i64(lsp_output *output, int index, const char *name, int64_t value);
lsp_status lsp_output_attribute_f64(lsp_output *output, int index, const char *name, double value);

/* Collective. The dataset's checksum so far: XXH64 of each row (little-endian bytes, seed = its index
 * (b*H + h)*n + i in the view [B, H, n, d]) summed modulo 2^64, hence the same for every distribution. */
lsp_status lsp_output_checksum(lsp_output *output, int index, uint64_t *checksum);

/* Collective. Stores checksums, flushes, fsyncs file and folder, renames to the final name; frees and
 * sets *output to NULL. */
lsp_status lsp_output_commit(lsp_output **output);

/* Collective. Removes the temporary file; frees; sets *output to NULL. NULL is allowed. */
lsp_status lsp_output_discard(lsp_output **output);

/* Collective. Removes temporary files that runs with this output left when they were killed: of processes that rank 0's
 * machine has no longer or, with `any`, all there are; then no such run may be alive. Errors: LSP_ERR_FILE. */
lsp_status lsp_output_sweep(lsp_context *ctx, const char *file, bool any);

/* Local (one rank is enough). Describes every object of a file as text (tree, shapes, types, attributes) through `line`.
 * Errors as lsp_tensor_open. */
lsp_status lsp_file_describe(lsp_context *ctx, const char *file, void (*line)(void *user, const char *text),
                             void *user);

/* A dataset that holds one or more numbers of a type that Longspan reads. */
typedef struct lsp_file_dataset {
    const char *path; /* valid during the call */
    lsp_view view;    /* as it was written by lsp_output; LSP_VIEW_ROWS and LSP_BHND when it tells nothing */
    lsp_layout layout;
    bool has_checksum;
} lsp_file_dataset;

/* Local (one rank is enough). Tells the datasets of a file, in the order of their names; dimension
 * scales are left out. Errors as lsp_tensor_open. */
lsp_status lsp_file_datasets(lsp_context *ctx, const char *file,
                             void (*each)(void *user, const lsp_file_dataset *dataset), void *user);

/* Local (one rank is enough). Integer attribute of the whole file, as lsp_output_attribute_i64 wrote
 * it. *found is false (and *value as it was) when there is none. Errors as lsp_tensor_open. */
lsp_status lsp_file_attribute_i64(lsp_context *ctx, const char *file, const char *name, int64_t *value,
                                  bool *found);

/* Local (one rank is enough). The same for a text; cut at size. */
lsp_status lsp_file_attribute_text(lsp_context *ctx, const char *file, const char *name, char *text,
                                   size_t size, bool *found);

/* Local. Version of the HDF5 library in use, as "1.10.8". Static storage. */
const char *lsp_hdf5_version(void);

/* Local. To be called before MPI_Init, and before any other use of HDF5, by a program that is to survive disks that fail:
 * HDF5 then does not clean up in MPI_Finalize nor at the end of the process. Where it could not close a file, in the last
 * write of all, it (1.10 to 1.14) would end the program with a signal there. All that Longspan opens it closes itself. */
void lsp_hdf5_start(void);

#ifdef __cplusplus
}
#endif
#endif
