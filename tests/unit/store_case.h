/* What the store's tests share: a folder for all ranks, distributions of rows, known contents, and
 * HDF5 files made by one rank. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_TEST_STORE_CASE_H
#define LSP_TEST_STORE_CASE_H

#include "mpi_case.h"

#include <dirent.h>
#include <fcntl.h>
#include <hdf5.h>
#include <limits.h>
#include <longspan/tensor.h>
#include <sys/stat.h>
#include <unistd.h>

static lsp_context *ctx;
static char folder[200]; /* the same on all ranks, empty at first */

/* "FOLDER/name", in one of a few buffers. */
static const char *path_of(const char *name)
{
    static char paths[8][300];
    static int next;
    char *path = paths[next++ % 8];
    (void)snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

/* ---- ranks ------------------------------------------------------------------------------------- */

/* Every rank has the same status, and all messages are equal. */
static void assert_all(lsp_status got, lsp_status expected)
{
    char mine[1024] = "", first[1024];
    if (got != LSP_OK) (void)snprintf(mine, sizeof mine, "%s", lsp_context_message(ctx));
    if (got != expected) print_error("rank %d: status %d, message: %s\n", rank, (int)got, mine);
    assert_int_equal(got, expected);
    memcpy(first, mine, sizeof first);
    assert_int_equal(MPI_Bcast(first, (int)sizeof first, MPI_CHAR, 0, MPI_COMM_WORLD), MPI_SUCCESS);
    assert_string_equal(mine, first);
}

/* Refused with this code, in one message that has all of the given parts ("" ends them). */
static void assert_refused(lsp_status got, lsp_status expected, const char *const *parts)
{
    assert_all(got, expected);
    for (; **parts; parts++) {
        if (!strstr(lsp_context_message(ctx), *parts))
            print_error("'%s' is not in: %s\n", *parts, lsp_context_message(ctx));
        assert_non_null(strstr(lsp_context_message(ctx), *parts));
    }
}
#define PARTS(...) ((const char *const[]){__VA_ARGS__, ""})

static void barrier(void)
{
    assert_int_equal(MPI_Barrier(MPI_COMM_WORLD), MPI_SUCCESS);
}

/* Files in the folder (also hidden ones), counted by rank 0, told to all. */
static inline int count_files(void)
{
    int count = 0;
    barrier();
    if (rank == 0) {
        DIR *open = opendir(folder);
        assert_non_null(open);
        for (struct dirent *e; (e = readdir(open));)
            count += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
        (void)closedir(open);
    }
    assert_int_equal(MPI_Bcast(&count, 1, MPI_INT, 0, MPI_COMM_WORLD), MPI_SUCCESS);
    return count;
}

/* ---- distributions ------------------------------------------------------------------------------ */

typedef enum spread { SPREAD_EVEN, SPREAD_ZIGZAG, SPREAD_LAST, SPREAD_HEADS, SPREAD_ROWS, SPREADS } spread;

/* The rank that holds row i of matrix (b, h). */
static inline int owner_of(spread kind, const lsp_tensor_shape *s, int64_t b, int64_t h, int64_t i)
{
    int64_t all = s->batch * s->heads * s->n, index = (b * s->heads + h) * s->n + i, turn = i / 3;
    switch (kind) {
    case SPREAD_EVEN: return (int)(index * ranks / all);
    case SPREAD_ZIGZAG: {
        int64_t place = turn % ranks;
        return (int)(turn / ranks % 2 == 0 ? place : ranks - 1 - place);
    }
    case SPREAD_LAST: return ranks - 1;
    case SPREAD_HEADS: return (int)((b * s->heads + h) % ranks);
    default: return (int)(i * ranks / s->n);
    }
}

/* This rank's runs; the caller frees. */
static inline lsp_run *make_runs(spread kind, const lsp_tensor_shape *s, int64_t *count, int64_t *rows)
{
    lsp_run *runs = malloc((size_t)(s->batch * s->heads * s->n) * sizeof *runs);
    assert_non_null(runs);
    *count = *rows = 0;
    for (int64_t b = 0; b < s->batch; b++)
        for (int64_t h = 0; h < s->heads; h++)
            for (int64_t i = 0; i < s->n; i++) {
                if (owner_of(kind, s, b, h, i) != rank) continue;
                lsp_run *last = *count > 0 ? &runs[*count - 1] : NULL;
                if (last && last->batch == b && last->head == h && last->begin + last->count == i)
                    last->count++;
                else
                    runs[(*count)++] = (lsp_run){b, h, i, 1};
                ++*rows;
            }
    return runs;
}

/* ---- contents ----------------------------------------------------------------------------------- */

/* Byte `byte` of element `element` of the whole tensor: any pattern will do, also NaNs. */
static inline unsigned char content(int64_t element, size_t byte)
{
    uint64_t x = (uint64_t)element * 0x9E3779B97F4A7C15u + 0x1234567u;
    x ^= x >> 29;
    x *= 0xBF58476D1CE4E5B9u;
    return (unsigned char)(x >> (8 * byte));
}

static inline void fill_row(unsigned char *row, const lsp_tensor_shape *s, int64_t index)
{
    size_t size = lsp_dtype_size(s->type);
    for (int64_t c = 0; c < s->d; c++)
        for (size_t k = 0; k < size; k++) row[(size_t)c * size + k] = content(index * s->d + c, k);
}

/* The rows of the runs, one after the other; the caller frees. */
static inline unsigned char *make_rows(const lsp_tensor_shape *s, const lsp_run *runs, int64_t count,
                                       int64_t rows)
{
    size_t row_bytes = (size_t)s->d * lsp_dtype_size(s->type);
    unsigned char *data = malloc((size_t)rows * row_bytes + 1), *row = data;
    assert_non_null(data);
    for (int64_t r = 0; r < count; r++)
        for (int64_t i = 0; i < runs[r].count; i++, row += row_bytes)
            fill_row(row, s, (runs[r].batch * s->heads + runs[r].head) * s->n + runs[r].begin + i);
    return data;
}

/* ---- files made by rank 0 ------------------------------------------------------------------------ */

/* A dataset of any type and storage, filled from memory of type memory_type (NULL: not written). */
static inline void put_dataset(hid_t file, const char *name, hid_t type, int axes, const hsize_t *dims,
                               hid_t storage, hid_t memory_type, const void *data)
{
    hid_t space = H5Screate_simple(axes, dims, NULL);
    hid_t id = H5Dcreate2(file, name, type, space, H5P_DEFAULT, storage, H5P_DEFAULT);
    assert_true(id >= 0);
    if (data) assert_true(H5Dwrite(id, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    assert_true(H5Dclose(id) >= 0 && H5Sclose(space) >= 0);
}

/* Overwrites bytes of a file. */
static inline void damage(const char *path, int64_t offset, const char *bytes, size_t count)
{
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, count, (off_t)offset), (ssize_t)count);
    assert_int_equal(close(fd), 0);
}

/* ---- main ---------------------------------------------------------------------------------------- */

static int set_up(void **state)
{
    (void)state;
    if (rank == 0) {
        (void)snprintf(folder, sizeof folder, "/tmp/longspan-store-XXXXXX");
        if (!mkdtemp(folder)) return -1;
    }
    MPI_Bcast(folder, (int)sizeof folder, MPI_CHAR, 0, MPI_COMM_WORLD);
    return 0;
}

/* No file, dataset, group, type or attribute may be left open by the calls above; then the folder goes. */
static int tear_down(void **state)
{
    (void)state;
    int left = (int)H5Fget_obj_count((hid_t)H5F_OBJ_ALL, H5F_OBJ_ALL);
    if (left > 0) print_error("left open: %d HDF5 objects\n", left);
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) {
        char command[300];
        (void)snprintf(command, sizeof command, "rm -rf '%s'", folder);
        if (system(command) != 0) left++;
    }
    return left > 0 ? -1 : 0;
}

#define STORE_MAIN(tests)                                                                                    \
    int main(void)                                                                                           \
    {                                                                                                        \
        const test_context contexts[] = {{&ctx, 1, false}};                                                  \
        return RUN_OVER_RANKS("store", tests, contexts, set_up, tear_down);                                  \
    }

#endif
