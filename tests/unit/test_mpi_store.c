/* Tensors written and read back in every type, layout and distribution; checksums; screening.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "store_case.h"

#include "store/checksum.h"
#include "store/transfer.h"

#include <xxhash.h>

typedef struct form {
    int axes;
    int64_t dims[4];
    lsp_view view;
    lsp_layout layout;
    int64_t batch, heads, n, d; /* what the view must be */
} form;

static const form forms[] = {
    {2, {37, 5}, LSP_VIEW_ROWS, LSP_BHND, 1, 1, 37, 5},
    {3, {3, 37, 5}, LSP_VIEW_ROWS, LSP_BHND, 1, 3, 37, 5},
    {3, {37, 3, 5}, LSP_VIEW_ROWS, LSP_BNHD, 1, 3, 37, 5},
    {4, {2, 3, 37, 5}, LSP_VIEW_ROWS, LSP_BHND, 2, 3, 37, 5},
    {4, {2, 37, 3, 5}, LSP_VIEW_ROWS, LSP_BNHD, 2, 3, 37, 5},
    {1, {37}, LSP_VIEW_SCALARS, LSP_BHND, 1, 1, 37, 1},
    {2, {3, 37}, LSP_VIEW_SCALARS, LSP_BHND, 1, 3, 37, 1},
    {2, {37, 3}, LSP_VIEW_SCALARS, LSP_BNHD, 1, 3, 37, 1},
    {3, {2, 3, 37}, LSP_VIEW_SCALARS, LSP_BHND, 2, 3, 37, 1},
    {3, {2, 37, 3}, LSP_VIEW_SCALARS, LSP_BNHD, 2, 3, 37, 1},
    {4, {1, 1, 1, 1}, LSP_VIEW_ROWS, LSP_BHND, 1, 1, 1, 1},
};
enum { FORMS = sizeof forms / sizeof forms[0] };

static lsp_output_dataset dataset_of(const form *f, lsp_dtype type, const char *name)
{
    lsp_output_dataset d = {
        .name = name, .type = type, .axes = f->axes, .view = f->view, .layout = f->layout};
    memcpy(d.dims, f->dims, sizeof d.dims);
    return d;
}

static lsp_tensor_shape shape_of(const form *f, lsp_dtype type)
{
    return (lsp_tensor_shape){.type = type,
                              .axes = f->axes,
                              .batch = f->batch,
                              .heads = f->heads,
                              .n = f->n,
                              .d = f->d,
                              .layout = f->layout};
}

/* The documented rule, in one process, one row at a time. */
static uint64_t serial_checksum(const lsp_tensor_shape *s)
{
    uint64_t sum = 0;
    size_t bytes = (size_t)s->d * lsp_dtype_size(s->type);
    unsigned char *row = malloc(bytes);
    assert_non_null(row);
    for (int64_t index = 0; index < s->batch * s->heads * s->n; index++) {
        fill_row(row, s, index);
        sum += XXH64(row, bytes, (unsigned long long)index);
    }
    free(row);
    return sum;
}

/* Writes the known content, in two calls; the two halves differ in number of runs between ranks. */
static void write_file(const char *path, const form *f, lsp_dtype type, spread kind)
{
    lsp_tensor_shape s = shape_of(f, type);
    lsp_output_dataset d = dataset_of(f, type, "/group/x");
    lsp_output *output = NULL;
    int64_t count, rows, before = 0;
    lsp_run *runs = make_runs(kind, &s, &count, &rows);
    unsigned char *data = make_rows(&s, runs, count, rows);
    assert_all(lsp_output_create(ctx, path, true, &d, 1, &output), LSP_OK);
    for (int64_t i = 0; i < count / 2; i++) before += runs[i].count;
    assert_all(lsp_output_write(output, 0, runs, count / 2, data), LSP_OK);
    assert_all(lsp_output_write(output, 0, runs + count / 2, count - count / 2,
                                data + (size_t)before * (size_t)s.d * lsp_dtype_size(type)),
               LSP_OK);
    uint64_t checksum = 0;
    assert_all(lsp_output_checksum(output, 0, &checksum), LSP_OK);
    assert_true(checksum == serial_checksum(&s));
    assert_all(lsp_output_commit(&output), LSP_OK);
    assert_null(output);
    free(data);
    free(runs);
}

static void read_file(const char *path, const form *f, lsp_dtype type, spread kind)
{
    lsp_tensor *tensor = NULL;
    assert_all(lsp_tensor_open(ctx, path, "/group/x", f->view, f->layout, &tensor), LSP_OK);
    lsp_tensor_shape s = lsp_tensor_get_shape(tensor), wanted = shape_of(f, type);
    assert_true(s.type == type && s.axes == f->axes && s.batch == f->batch && s.heads == f->heads &&
                s.n == f->n && s.d == f->d && s.layout == f->layout);
    assert_true(s.has_checksum && s.checksum == serial_checksum(&wanted));
    int64_t count, rows;
    lsp_run *runs = make_runs(kind, &s, &count, &rows);
    unsigned char *expected = make_rows(&s, runs, count, rows);
    size_t bytes = (size_t)rows * (size_t)s.d * lsp_dtype_size(type);
    unsigned char *data = calloc(bytes + 1, 1);
    assert_non_null(data);
    assert_all(lsp_tensor_read(tensor, runs, count, data), LSP_OK);
    assert_memory_equal(data, expected, bytes);
    free(data);
    free(expected);
    free(runs);
    assert_all(lsp_tensor_close(&tensor), LSP_OK);
    assert_null(tensor);
}

static void store_gives_back_every_type_layout_and_distribution(void **state)
{
    (void)state;
    const lsp_dtype types[] = {LSP_F16, LSP_BF16, LSP_F32, LSP_F64};
    for (int f = 0; f < FORMS; f++)
        for (int t = 0; t < 4; t++) {
            spread written = (spread)((f + t) % SPREADS);
            write_file(path_of("round.h5"), &forms[f], types[t], written);
            for (int kind = 0; kind < SPREADS; kind++)
                read_file(path_of("round.h5"), &forms[f], types[t], (spread)kind);
        }
    write_file(path_of("round.h5"), &forms[8], LSP_I64, SPREAD_ZIGZAG);
    read_file(path_of("round.h5"), &forms[8], LSP_I64, SPREAD_EVEN);
}

static void store_cuts_transfers_at_the_limit(void **state)
{
    (void)state;
    const int64_t limits[] = {1, 50, 333, 4000};
    for (int l = 0; l < 4; l++) {
        int64_t before = lsp_transfer_set_limit(limits[l]);
        assert_true(before == (int64_t)1 << 30);
        for (int f = 1; f < 5; f++) {
            write_file(path_of("limit.h5"), &forms[f], LSP_F32, (spread)(l % SPREADS));
            read_file(path_of("limit.h5"), &forms[f], LSP_F32, (spread)((l + f) % SPREADS));
        }
        assert_true(lsp_transfer_set_limit(0) == limits[l]);
    }
    /* What was written in pieces is the same file. */
    read_file(path_of("limit.h5"), &forms[4], LSP_F32, SPREAD_EVEN);
}

/* More pieces than one call of the system takes, side by side in the file and not in memory. */
static void store_writes_many_short_rows(void **state)
{
    (void)state;
    const form many = {4, {2, 211, 7, 3}, LSP_VIEW_ROWS, LSP_BNHD, 2, 7, 211, 3};
    for (int kind = 0; kind < SPREADS; kind++) {
        write_file(path_of("many.h5"), &many, LSP_F16, (spread)kind);
        read_file(path_of("many.h5"), &many, LSP_F16, SPREAD_EVEN);
    }
}

/* A number computed by another program (Python), so that a change of the rule or of the seed is seen. */
static void store_checksum_is_the_documented_one(void **state)
{
    (void)state;
    lsp_tensor_shape s = shape_of(&forms[3], LSP_F32);
    assert_true(serial_checksum(&s) == UINT64_C(0xEBB0BADD43C95F74));
}

/* Out of order and repeated runs are read as asked, in both layouts. */
static void store_reads_runs_in_any_order(void **state)
{
    (void)state;
    const int chosen[] = {3, 4, 8, 9};
    const lsp_run runs[] = {{1, 2, 30, 7}, {1, 1, 30, 7}, {0, 0, 4, 1}, {1, 2, 30, 7}, {0, 2, 0, 0},
                            {0, 1, 4, 1},  {0, 2, 4, 1},  {0, 0, 5, 9}, {0, 0, 20, 9}, {0, 0, 35, 2}};
    for (int c = 0; c < 4; c++) {
        const form *f = &forms[chosen[c]];
        lsp_tensor_shape s = shape_of(f, LSP_F32);
        write_file(path_of("order.h5"), f, LSP_F32, SPREAD_EVEN);
        lsp_tensor *tensor = NULL;
        assert_all(lsp_tensor_open(ctx, path_of("order.h5"), "/group/x", f->view, f->layout, &tensor),
                   LSP_OK);
        int64_t count = rank % 2 == 0 ? 10 : 3, rows = 0;
        for (int64_t i = 0; i < count; i++) rows += runs[i].count;
        size_t bytes = (size_t)rows * (size_t)s.d * 4;
        unsigned char *expected = make_rows(&s, runs, count, rows), *data = malloc(bytes);
        assert_non_null(data);
        assert_all(lsp_tensor_read(tensor, runs, count, data), LSP_OK);
        assert_memory_equal(data, expected, bytes);
        free(data);
        free(expected);
        const lsp_run outside = {0, 3, 0, 1};
        lsp_status status = lsp_tensor_read(tensor, &outside, rank == ranks - 1, NULL);
        assert_refused(status, LSP_ERR_USAGE, PARTS("head 3", "outside"));
        assert_all(lsp_tensor_close(&tensor), LSP_OK);
    }
}

/* Some of many wide heads: what lies between is skipped, not read. */
static void store_reads_few_of_many_heads(void **state)
{
    (void)state;
    const form wide = {3, {11, 9, 1500}, LSP_VIEW_ROWS, LSP_BNHD, 1, 9, 11, 1500};
    const lsp_run runs[] = {{0, 5, 2, 7}, {0, 1, 2, 7}, {0, 2, 2, 7}, {0, 8, 10, 1}};
    lsp_tensor_shape s = shape_of(&wide, LSP_F32);
    lsp_tensor *tensor = NULL;
    write_file(path_of("wide.h5"), &wide, LSP_F32, SPREAD_HEADS);
    assert_all(lsp_tensor_open(ctx, path_of("wide.h5"), "/group/x", wide.view, wide.layout, &tensor), LSP_OK);
    unsigned char *expected = make_rows(&s, runs, 4, 22), *data = malloc(22 * 1500 * 4);
    assert_non_null(data);
    assert_all(lsp_tensor_read(tensor, runs, 4, data), LSP_OK);
    assert_memory_equal(data, expected, 22 * 1500 * 4);
    free(data);
    free(expected);
    assert_all(lsp_tensor_close(&tensor), LSP_OK);
}

static int64_t offset_of(const char *path, const char *dataset)
{
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT), id = H5Dopen2(file, dataset, H5P_DEFAULT);
    assert_true(id >= 0);
    int64_t offset = (int64_t)H5Dget_offset(id);
    assert_true(H5Dclose(id) >= 0 && H5Fclose(file) >= 0);
    return offset;
}

static void store_finds_damage_by_the_checksum(void **state)
{
    (void)state;
    const form *f = &forms[3];
    write_file(path_of("damaged.h5"), f, LSP_F32, SPREAD_EVEN);
    if (rank == 0) damage(path_of("damaged.h5"), offset_of(path_of("damaged.h5"), "/group/x") + 1234, "!", 1);
    barrier();
    lsp_tensor *tensor = NULL;
    assert_all(lsp_tensor_open(ctx, path_of("damaged.h5"), "/group/x", f->view, f->layout, &tensor), LSP_OK);
    lsp_tensor_shape s = lsp_tensor_get_shape(tensor);
    char stored[32];
    (void)snprintf(stored, sizeof stored, "%016llx", (unsigned long long)s.checksum);
    int64_t count, rows;
    lsp_run *runs = make_runs(SPREAD_ZIGZAG, &s, &count, &rows);
    float *data = malloc((size_t)rows * (size_t)s.d * 4 + 4);
    assert_non_null(data);
    assert_refused(lsp_tensor_read(tensor, runs, count, data), LSP_ERR_CONTENT,
                   PARTS("damaged.h5", "/group/x", stored, "checksum", "restore"));
    /* A part cannot be compared. */
    const lsp_run part = {0, 0, 0, 1};
    assert_all(lsp_tensor_read(tensor, &part, 1, data), LSP_OK);
    /* As many rows as the whole, but not every row once: no verdict. */
    const lsp_run twice[] = {{0, 0, 0, 37}, {0, 0, 0, 37}, {0, 1, 0, 37},
                             {0, 2, 0, 37}, {1, 0, 0, 37}, {1, 1, 0, 37}};
    float *more = malloc(6 * 37 * 5 * 4);
    assert_non_null(more);
    assert_all(lsp_tensor_read(tensor, twice, rank == 0 ? 6 : 0, more), LSP_OK);
    free(more);
    free(data);
    free(runs);
    assert_all(lsp_tensor_close(&tensor), LSP_OK);
}

/* ---- screening ------------------------------------------------------------------------------------ */

static void put_bits(unsigned char *data, lsp_dtype type, int64_t element, bool infinite)
{
    const uint64_t nan[] = {0xfe01, 0x7f81, 0xffc00001u, 0x7ff0000000000001u};
    const uint64_t inf[] = {0x7c00, 0xff80, 0x7f800000u, 0xfff0000000000000u};
    const uint64_t bits = infinite ? inf[type] : nan[type];
    memcpy(data + (size_t)element * lsp_dtype_size(type), &bits, lsp_dtype_size(type));
}

/* Every element finite but the given ones (flattened indices of the whole). */
static void screen_case(lsp_dtype type, const int64_t *bad, int bad_count, spread kind)
{
    const form big = {4, {2, 2, 700, 24}, LSP_VIEW_ROWS, LSP_BHND, 2, 2, 700, 24};
    lsp_output_dataset d = dataset_of(&big, type, "/x");
    lsp_tensor_shape s = shape_of(&big, type);
    lsp_output *output = NULL;
    lsp_tensor *tensor = NULL;
    int64_t count, rows, at = 0, found = -1, first[4] = {-1, -1, -1, -1};
    lsp_run *runs = make_runs(kind, &s, &count, &rows);
    unsigned char *data = calloc((size_t)(rows * s.d) + 1, lsp_dtype_size(type));
    assert_non_null(data);
    /* The largest finite value everywhere: one bit from Inf. */
    const uint64_t most[] = {0x7bff, 0x7f7f, 0x7f7fffffu, 0x7fefffffffffffffu};
    for (int64_t e = 0; e < rows * s.d; e++)
        memcpy(data + (size_t)e * lsp_dtype_size(type), &most[type], lsp_dtype_size(type));
    for (int64_t r = 0; r < count; at += runs[r].count * s.d, r++)
        for (int b = 0; b < bad_count; b++) {
            int64_t start = ((runs[r].batch * s.heads + runs[r].head) * s.n + runs[r].begin) * s.d;
            if (bad[b] >= start && bad[b] < start + runs[r].count * s.d)
                put_bits(data, type, at + bad[b] - start, b % 2 == 1);
        }
    assert_all(lsp_output_create(ctx, path_of("screen.h5"), true, &d, 1, &output), LSP_OK);
    assert_all(lsp_output_write(output, 0, runs, count, data), LSP_OK);
    assert_all(lsp_output_commit(&output), LSP_OK);
    assert_all(lsp_tensor_open(ctx, path_of("screen.h5"), "/x", big.view, big.layout, &tensor), LSP_OK);
    assert_all(lsp_tensor_read(tensor, runs, count, data), LSP_OK);
    assert_all(lsp_tensor_screen(tensor, runs, count, data, &found, first), LSP_OK);
    assert_int_equal(found, bad_count);
    if (bad_count > 0) {
        int64_t lowest = bad[0];
        for (int b = 1; b < bad_count; b++) lowest = bad[b] < lowest ? bad[b] : lowest;
        assert_int_equal(((first[0] * s.heads + first[1]) * s.n + first[2]) * s.d + first[3], lowest);
        assert_true(first[3] < s.d && first[2] < s.n && first[1] < s.heads);
    } else {
        assert_int_equal(first[0], -1);
    }
    assert_all(lsp_tensor_close(&tensor), LSP_OK);
    free(data);
    free(runs);
}

static void screen_counts_and_finds_the_first(void **state)
{
    (void)state;
    const int64_t bad[] = {60001, 4097, 67199, 4096, 33333, 4098};
    for (int type = LSP_F16; type <= LSP_F64; type++)
        for (int count = 0; count <= 6; count += 3)
            screen_case((lsp_dtype)type, bad, count, (spread)((type + count) % SPREADS));
    const int64_t ends[] = {0, 67199};
    screen_case(LSP_F32, ends, 2, SPREAD_EVEN);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(store_gives_back_every_type_layout_and_distribution),
    cmocka_unit_test(store_cuts_transfers_at_the_limit),
    cmocka_unit_test(store_writes_many_short_rows),
    cmocka_unit_test(store_checksum_is_the_documented_one),
    cmocka_unit_test(store_reads_runs_in_any_order),
    cmocka_unit_test(store_reads_few_of_many_heads),
    cmocka_unit_test(store_finds_damage_by_the_checksum),
    cmocka_unit_test(screen_counts_and_finds_the_first),
};
STORE_MAIN(tests)
