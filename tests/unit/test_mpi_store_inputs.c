/* Odd and bad inputs: other storage and byte orders, links, damage on one rank alone, wrong files.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "store_case.h"

static hid_t create_file(const char *name)
{
    hid_t file = H5Fcreate(path_of(name), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(file >= 0);
    return file;
}

static void put_text_attribute(const char *name, const char *dataset, const char *attribute,
                               const char *value, bool variable)
{
    hid_t file = H5Fopen(path_of(name), H5F_ACC_RDWR, H5P_DEFAULT), id = H5Dopen2(file, dataset, H5P_DEFAULT);
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    assert_true(H5Tset_size(type, variable ? H5T_VARIABLE : strlen(value)) >= 0);
    hid_t at = H5Acreate2(id, attribute, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(at >= 0 && H5Awrite(at, type, variable ? (const void *)&value : (const void *)value) >= 0);
    assert_true(H5Aclose(at) >= 0 && H5Sclose(space) >= 0 && H5Tclose(type) >= 0 && H5Dclose(id) >= 0 &&
                H5Fclose(file) >= 0);
}

enum { B = 2, H = 3, N = 29, D = 4, ELEMENTS = B * H * N * D };

/* Element e as a small exact number. */
static double value_of(int64_t e)
{
    return (double)(e % 1021) - 300.0;
}

/* Reads /x with every rank's part and compares with value_of; f32 or f64. */
static void read_numbers(const char *name, const char *dataset, lsp_dtype type, lsp_layout layout)
{
    lsp_tensor *tensor = NULL;
    int64_t count, rows, at = 0;
    assert_all(lsp_tensor_open(ctx, path_of(name), dataset, LSP_VIEW_ROWS, layout, &tensor), LSP_OK);
    lsp_tensor_shape s = lsp_tensor_get_shape(tensor);
    assert_true(s.type == type && s.batch == B && s.heads == H && s.n == N && s.d == D && !s.has_checksum);
    for (int kind = 0; kind < SPREADS; kind++, at = 0) {
        lsp_run *runs = make_runs((spread)kind, &s, &count, &rows);
        char *data = calloc((size_t)(rows * D) + 1, 8);
        assert_non_null(data);
        assert_all(lsp_tensor_read(tensor, runs, count, data), LSP_OK);
        for (int64_t r = 0; r < count; r++)
            for (int64_t i = 0; i < runs[r].count; i++)
                for (int64_t c = 0; c < D; c++, at++) {
                    int64_t row = runs[r].begin + i;
                    int64_t e = layout == LSP_BNHD ? ((runs[r].batch * N + row) * H + runs[r].head) * D + c
                                                   : ((runs[r].batch * H + runs[r].head) * N + row) * D + c;
                    double got =
                        type == LSP_F32 ? (double)((float *)(void *)data)[at] : ((double *)(void *)data)[at];
                    assert_true(got == value_of(e));
                }
        free(data);
        free(runs);
    }
    assert_all(lsp_tensor_close(&tensor), LSP_OK);
}

static hid_t chunked(const hsize_t *chunk, bool packed)
{
    hid_t storage = H5Pcreate(H5P_DATASET_CREATE);
    assert_true(H5Pset_chunk(storage, 4, chunk) >= 0);
    if (packed) assert_true(H5Pset_shuffle(storage) >= 0 && H5Pset_deflate(storage, 4) >= 0);
    return storage;
}

static void input_is_read_from_any_storage(void **state)
{
    (void)state;
    if (rank == 0) {
        const hsize_t bhnd[] = {B, H, N, D}, bnhd[] = {B, N, H, D}, chunk[] = {1, 2, 7, 3},
                      flat[] = {2, 5, 3, 4};
        static double data[ELEMENTS];
        for (int64_t e = 0; e < ELEMENTS; e++) data[e] = value_of(e);
        hid_t packed = chunked(chunk, true), loose = chunked(flat, false),
              compact = H5Pcreate(H5P_DATASET_CREATE);
        hid_t outside = H5Pcreate(H5P_DATASET_CREATE), file = create_file("storage.h5");
        assert_true(H5Pset_layout(compact, H5D_COMPACT) >= 0);
        assert_true(H5Pset_external(outside, path_of("raw.bin"), 0, H5F_UNLIMITED) >= 0);
        put_dataset(file, "big_packed", H5T_IEEE_F32BE, 4, bhnd, packed, H5T_NATIVE_DOUBLE, data);
        put_dataset(file, "big", H5T_IEEE_F64BE, 4, bhnd, H5P_DEFAULT, H5T_NATIVE_DOUBLE, data);
        put_dataset(file, "loose", H5T_IEEE_F64LE, 4, bnhd, loose, H5T_NATIVE_DOUBLE, data);
        put_dataset(file, "compact", H5T_IEEE_F32LE, 4, bnhd, compact, H5T_NATIVE_DOUBLE, data);
        put_dataset(file, "outside", H5T_IEEE_F32LE, 4, bhnd, outside, H5T_NATIVE_DOUBLE, data);
        assert_true(H5Fclose(file) >= 0);
        hid_t links = create_file("links.h5"), set = H5Pcreate(H5P_DATASET_CREATE);
        hid_t space = H5Screate_simple(4, bhnd, NULL);
        assert_true(
            H5Lcreate_external("storage.h5", "/big_packed", links, "linked", H5P_DEFAULT, H5P_DEFAULT) >= 0);
        assert_true(H5Lcreate_external("gone.h5", "/x", links, "broken", H5P_DEFAULT, H5P_DEFAULT) >= 0);
        assert_true(H5Lcreate_soft("/linked", links, "soft", H5P_DEFAULT, H5P_DEFAULT) >= 0);
        assert_true(H5Pset_virtual(set, space, "storage.h5", "/big", space) >= 0);
        put_dataset(links, "virtual", H5T_IEEE_F64LE, 4, bhnd, set, 0, NULL);
        assert_true(H5Pclose(set) >= 0 && (set = H5Pcreate(H5P_DATASET_CREATE)) >= 0);
        assert_true(H5Pset_virtual(set, space, "lost.h5", "/big", space) >= 0);
        put_dataset(links, "virtual_lost", H5T_IEEE_F64LE, 4, bhnd, set, 0, NULL);
        assert_true(H5Pclose(set) >= 0 && H5Sclose(space) >= 0 && H5Fclose(links) >= 0);
        assert_true(H5Pclose(packed) >= 0 && H5Pclose(loose) >= 0 && H5Pclose(compact) >= 0 &&
                    H5Pclose(outside) >= 0);
    }
    barrier();
    read_numbers("storage.h5", "/big_packed", LSP_F32, LSP_BHND);
    read_numbers("storage.h5", "big", LSP_F64, LSP_BHND);
    read_numbers("storage.h5", "/loose", LSP_F64, LSP_BNHD);
    read_numbers("storage.h5", "/compact", LSP_F32, LSP_BNHD);
    read_numbers("storage.h5", "/outside", LSP_F32, LSP_BHND);
    read_numbers("links.h5", "/linked", LSP_F32, LSP_BHND);
    read_numbers("links.h5", "/soft", LSP_F32, LSP_BHND);
    read_numbers("links.h5", "/virtual", LSP_F64, LSP_BHND);
    lsp_tensor *tensor = NULL;
    assert_refused(lsp_tensor_open(ctx, path_of("links.h5"), "/broken", LSP_VIEW_ROWS, LSP_BHND, &tensor),
                   LSP_ERR_CONTENT, PARTS("/broken", "link", "links.h5"));
    assert_refused(
        lsp_tensor_open(ctx, path_of("links.h5"), "/virtual_lost", LSP_VIEW_ROWS, LSP_BHND, &tensor),
        LSP_ERR_CONTENT, PARTS("/virtual_lost", "lost.h5", "missing"));
    assert_null(tensor);
}

/* Half-precision types in either byte order; the bits come through. */
static void input_keeps_half_precision_bits(void **state)
{
    (void)state;
    enum { ROWS = 64, COLUMNS = 1024 }; /* all 65536 values */
    if (rank == 0) {
        static uint16_t bits[ROWS * COLUMNS], swapped[ROWS * COLUMNS];
        const hsize_t dims[] = {ROWS, COLUMNS};
        for (int i = 0; i < ROWS * COLUMNS; i++) {
            bits[i] = (uint16_t)i;
            swapped[i] = (uint16_t)(i << 8 | i >> 8);
        }
        hid_t half = H5Tcopy(H5T_IEEE_F32LE), file = create_file("half.h5");
        assert_true(H5Tset_fields(half, 15, 10, 5, 0, 10) >= 0 && H5Tset_size(half, 2) >= 0 &&
                    H5Tset_ebias(half, 15) >= 0);
        put_dataset(file, "f16", half, 2, dims, H5P_DEFAULT, half, bits);
        assert_true(H5Tset_order(half, H5T_ORDER_BE) >= 0);
        put_dataset(file, "f16_big", half, 2, dims, H5P_DEFAULT, half, swapped);
        put_dataset(file, "bf16", H5T_STD_U16LE, 2, dims, H5P_DEFAULT, H5T_NATIVE_UINT16, bits);
        put_dataset(file, "bf16_big", H5T_STD_U16BE, 2, dims, H5P_DEFAULT, H5T_NATIVE_UINT16, bits);
        put_dataset(file, "u16", H5T_STD_U16LE, 2, dims, H5P_DEFAULT, H5T_NATIVE_UINT16, bits);
        assert_true(H5Tclose(half) >= 0 && H5Fclose(file) >= 0);
        put_text_attribute("half.h5", "bf16", "dtype", "bf16", false);
        put_text_attribute("half.h5", "bf16_big", "dtype", "bf16", true);
    }
    barrier();
    const char *const names[] = {"/f16", "/f16_big", "/bf16", "/bf16_big"};
    for (int k = 0; k < 4; k++) {
        lsp_tensor *tensor = NULL;
        assert_all(lsp_tensor_open(ctx, path_of("half.h5"), names[k], LSP_VIEW_ROWS, LSP_BHND, &tensor),
                   LSP_OK);
        assert_int_equal(lsp_tensor_get_shape(tensor).type, k < 2 ? LSP_F16 : LSP_BF16);
        static uint16_t got[ROWS * COLUMNS];
        const lsp_run all = {0, 0, 0, ROWS};
        assert_all(lsp_tensor_read(tensor, &all, 1, got), LSP_OK);
        for (int i = 0; i < ROWS * COLUMNS; i++) assert_int_equal(got[i], i);
        assert_all(lsp_tensor_close(&tensor), LSP_OK);
    }
    lsp_tensor *none = NULL;
    assert_refused(lsp_tensor_open(ctx, path_of("half.h5"), "/u16", LSP_VIEW_ROWS, LSP_BHND, &none),
                   LSP_ERR_CONTENT, PARTS("/u16", "uint16", "bf16"));
}

/* ---- a rank that fails alone ---------------------------------------------------------------------- */

/* Chunk 1 of 4 is damaged: only the ranks that need its rows fail, and all stop with the message. */
static void input_with_a_damaged_chunk_stops_all(void **state)
{
    (void)state;
    enum { ROWS = 4096, COLUMNS = 16, CHUNK = 1024 };
    if (rank == 0) {
        static float data[ROWS * COLUMNS];
        const hsize_t dims[] = {ROWS, COLUMNS}, chunk[] = {CHUNK, COLUMNS}, second[] = {CHUNK, 0};
        for (int i = 0; i < ROWS * COLUMNS; i++) data[i] = (float)(i % 777);
        hid_t storage = H5Pcreate(H5P_DATASET_CREATE), file = create_file("chunk.h5");
        assert_true(H5Pset_chunk(storage, 2, chunk) >= 0 && H5Pset_deflate(storage, 1) >= 0);
        put_dataset(file, "x", H5T_IEEE_F32LE, 2, dims, storage, H5T_NATIVE_FLOAT, data);
        hid_t id = H5Dopen2(file, "x", H5P_DEFAULT);
        haddr_t address = 0;
        hsize_t size = 0;
        unsigned mask = 0;
        assert_true(H5Dget_chunk_info_by_coord(id, second, &mask, &address, &size) >= 0 && size > 100);
        assert_true(H5Dclose(id) >= 0 && H5Pclose(storage) >= 0 && H5Fclose(file) >= 0);
        damage(path_of("chunk.h5"), (int64_t)address + 10, "no zlib stream has this inside", 30);
    }
    barrier();
    lsp_tensor *tensor = NULL;
    assert_all(lsp_tensor_open(ctx, path_of("chunk.h5"), "/x", LSP_VIEW_ROWS, LSP_BHND, &tensor), LSP_OK);
    float *data = malloc(sizeof(float) * ROWS * COLUMNS);
    assert_non_null(data);
    /* The last rank alone reads the damaged rows, in several runs. */
    const lsp_run sound[] = {{0, 0, 2048, 100}, {0, 0, 0, 1000}, {0, 0, 3000, 1}};
    const lsp_run bad[] = {{0, 0, 0, 1}, {0, 0, 1500, 20}, {0, 0, 4000, 1}};
    bool alone = rank == ranks - 1;
    char who[32];
    (void)snprintf(who, sizeof who, "rank %d cannot read", ranks - 1);
    assert_refused(lsp_tensor_read(tensor, alone ? bad : sound, alone ? 3 : rank % 4, data), LSP_ERR_CONTENT,
                   PARTS(who, "/x", "chunk.h5", "damaged"));
    assert_int_equal(lsp_context_failed_rank(ctx), ranks - 1);
    /* The tensor is still good for what is sound. */
    assert_all(lsp_tensor_read(tensor, sound, 3, data), LSP_OK);
    assert_true(data[0] == (float)(2048 * COLUMNS % 777));
    free(data);
    assert_all(lsp_tensor_close(&tensor), LSP_OK);
}

/* ---- wrong files and datasets ---------------------------------------------------------------------- */

static void refuse(const char *path, const char *dataset, lsp_view view, lsp_status expected,
                   const char *const *parts)
{
    lsp_tensor *tensor = NULL;
    assert_refused(lsp_tensor_open(ctx, path, dataset, view, LSP_BHND, &tensor), expected, parts);
    assert_null(tensor);
}

static void input_that_is_no_good_file_is_refused(void **state)
{
    (void)state;
    if (rank == 0) {
        static float data[4000];
        const hsize_t dims[] = {1000, 4};
        hid_t file = create_file("good.h5");
        put_dataset(file, "q", H5T_IEEE_F32LE, 2, dims, H5P_DEFAULT, H5T_NATIVE_FLOAT, data);
        assert_true(H5Fclose(file) >= 0);
        char command[700];
        (void)snprintf(
            command, sizeof command,
            "cd '%s' && head -c 9000 good.h5 > cut.h5 && head -c 300 good.h5 > header.h5 && : > empty.h5 "
            "&& echo 'q,k,v' > text.h5 && mkdir dir.h5 && cp good.h5 torn.h5",
            folder);
        assert_int_equal(system(command), 0);
        damage(path_of("torn.h5"), 8, "\x7f\x7f\x7f\x7f", 4); /* the superblock's versions */
    }
    barrier();
    refuse(path_of("none.h5"), "/q", LSP_VIEW_ROWS, LSP_ERR_FILE, PARTS("none.h5", "No such file"));
    refuse(path_of("none/q.h5"), "/q", LSP_VIEW_ROWS, LSP_ERR_FILE, PARTS("none/q.h5", "No such file"));
    refuse(path_of("dir.h5"), "/q", LSP_VIEW_ROWS, LSP_ERR_FILE, PARTS("dir.h5", "folder"));
    refuse("/dev/null", "/q", LSP_VIEW_ROWS, LSP_ERR_FILE, PARTS("/dev/null", "device"));
    refuse(path_of("empty.h5"), "/q", LSP_VIEW_ROWS, LSP_ERR_CONTENT, PARTS("empty.h5", "empty"));
    refuse(path_of("text.h5"), "/q", LSP_VIEW_ROWS, LSP_ERR_CONTENT, PARTS("text.h5", "not an HDF5 file"));
    refuse(path_of("cut.h5"), "/q", LSP_VIEW_ROWS, LSP_ERR_CONTENT, PARTS("cut.h5", "truncated", "eof"));
    refuse(path_of("header.h5"), "/q", LSP_VIEW_ROWS, LSP_ERR_CONTENT, PARTS("header.h5"));
    refuse(path_of("torn.h5"), "/q", LSP_VIEW_ROWS, LSP_ERR_CONTENT, PARTS("torn.h5", "damaged"));
    if (geteuid() != 0) {
        if (rank == 0) assert_int_equal(chmod(path_of("good.h5"), 0), 0);
        barrier();
        refuse(path_of("good.h5"), "/q", LSP_VIEW_ROWS, LSP_ERR_FILE, PARTS("good.h5", "Permission denied"));
    }
}

static void input_that_is_no_good_dataset_is_refused(void **state)
{
    (void)state;
    if (rank == 0) {
        static float data[64];
        const hsize_t dims[] = {2, 2, 2, 2, 2, 2}, zero[] = {3, 0, 4}, sixteen[] = {4, 4};
        hid_t file = create_file("wrong.h5"), pair = H5Tcreate(H5T_COMPOUND, 8),
              scalar = H5Screate(H5S_SCALAR);
        put_dataset(file, "k", H5T_IEEE_F32LE, 2, sixteen, H5P_DEFAULT, H5T_NATIVE_FLOAT, data);
        put_dataset(file, "five", H5T_IEEE_F32LE, 5, dims, H5P_DEFAULT, H5T_NATIVE_FLOAT, data);
        put_dataset(file, "line", H5T_IEEE_F32LE, 1, dims, H5P_DEFAULT, H5T_NATIVE_FLOAT, data);
        put_dataset(file, "zero", H5T_IEEE_F32LE, 3, zero, H5P_DEFAULT, 0, NULL);
        put_dataset(file, "int", H5T_STD_I32LE, 2, dims, H5P_DEFAULT, H5T_NATIVE_FLOAT, data);
        put_dataset(file, "long", H5T_STD_I64LE, 2, dims, H5P_DEFAULT, H5T_NATIVE_FLOAT, data);
        assert_true(H5Tinsert(pair, "r", 0, H5T_NATIVE_FLOAT) >= 0 &&
                    H5Tinsert(pair, "i", 4, H5T_NATIVE_FLOAT) >= 0);
        put_dataset(file, "pair", pair, 2, dims, H5P_DEFAULT, 0, NULL);
        hid_t group = H5Gcreate2(file, "heads", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        put_dataset(group, "v", H5T_IEEE_F32LE, 2, dims, H5P_DEFAULT, H5T_NATIVE_FLOAT, data);
        hid_t id = H5Dcreate2(file, "one", H5T_IEEE_F32LE, scalar, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        assert_true(H5Dclose(id) >= 0 && H5Gclose(group) >= 0 && H5Tclose(pair) >= 0 &&
                    H5Sclose(scalar) >= 0);
        assert_true(H5Fclose(file) >= 0);
    }
    barrier();
    const char *path = path_of("wrong.h5");
    const lsp_view rows = LSP_VIEW_ROWS, scalars = LSP_VIEW_SCALARS;
    refuse(path, "/q", rows, LSP_ERR_CONTENT, PARTS("wrong.h5", "'/q'", "/heads/v", "/k"));
    refuse(path, "/q/deep", rows, LSP_ERR_CONTENT, PARTS("'/q/deep'", "/k"));
    refuse(path, "/heads", rows, LSP_ERR_CONTENT, PARTS("'/heads'", "group", "/heads/v"));
    refuse(path, "/five", rows, LSP_ERR_CONTENT, PARTS("'/five'", "5 axes"));
    refuse(path, "/one", rows, LSP_ERR_CONTENT, PARTS("'/one'", "0 axes"));
    refuse(path, "/line", rows, LSP_ERR_CONTENT, PARTS("'/line'", "1 axes", "[n, d]"));
    refuse(path, "/zero", rows, LSP_ERR_CONTENT, PARTS("'/zero'", "axis 1", "zero"));
    refuse(path, "/int", rows, LSP_ERR_CONTENT, PARTS("'/int'", "int32", "f32"));
    refuse(path, "/long", rows, LSP_ERR_CONTENT, PARTS("'/long'", "int64"));
    refuse(path, "/pair", rows, LSP_ERR_CONTENT, PARTS("'/pair'", "compound"));
    refuse(path, "/five", scalars, LSP_ERR_CONTENT, PARTS("'/five'", "5 axes"));
    int64_t *values = NULL, count = 0;
    assert_refused(lsp_tensor_read_i64(ctx, path, "/k", &values, &count), LSP_ERR_CONTENT,
                   PARTS("'/k'", "integers"));
    assert_refused(lsp_tensor_read_i64(ctx, path, "/int", &values, &count), LSP_ERR_CONTENT,
                   PARTS("'/int'", "2 axes"));
    assert_refused(lsp_tensor_read_i64(ctx, path, "/none", &values, &count), LSP_ERR_CONTENT,
                   PARTS("'/none'"));
    assert_null(values);
}

static void input_tables_of_integers_reach_all(void **state)
{
    (void)state;
    const int64_t table[] = {0, 5, 1234567890123, -7, INT64_MAX};
    const hsize_t dims[] = {5};
    if (rank == 0) {
        const uint64_t large[] = {1, 2, UINT64_MAX, 4, 5};
        const int16_t small[] = {0, 5, 300, -7, INT16_MAX};
        hid_t file = create_file("table.h5");
        put_dataset(file, "i64", H5T_STD_I64BE, 1, dims, H5P_DEFAULT, H5T_NATIVE_INT64, table);
        put_dataset(file, "i16", H5T_STD_I16LE, 1, dims, H5P_DEFAULT, H5T_NATIVE_INT16, small);
        put_dataset(file, "u64", H5T_STD_U64LE, 1, dims, H5P_DEFAULT, H5T_NATIVE_UINT64, large);
        assert_true(H5Fclose(file) >= 0);
    }
    barrier();
    int64_t *values = NULL, count = 0;
    assert_all(lsp_tensor_read_i64(ctx, path_of("table.h5"), "/i64", &values, &count), LSP_OK);
    assert_int_equal(count, 5);
    assert_memory_equal(values, table, sizeof table);
    lsp_free(values);
    assert_all(lsp_tensor_read_i64(ctx, path_of("table.h5"), "/i16", &values, &count), LSP_OK);
    assert_true(count == 5 && values[2] == 300 && values[3] == -7 && values[4] == INT16_MAX);
    lsp_free(values);
    values = NULL;
    assert_refused(lsp_tensor_read_i64(ctx, path_of("table.h5"), "/u64", &values, &count), LSP_ERR_CONTENT,
                   PARTS("/u64", "int64"));
    assert_null(values);
}

/* ---- manners ---------------------------------------------------------------------------------------- */

static herr_t own_handler(hid_t stack, void *data)
{
    (void)stack;
    ++*(int *)data;
    return 0;
}

static void input_errors_leave_the_callers_handler(void **state)
{
    (void)state;
    int calls = 0;
    H5E_auto2_t before = NULL, now = NULL;
    void *data_before = NULL, *data = NULL;
    assert_true(H5Eget_auto2(H5E_DEFAULT, &before, &data_before) >= 0);
    assert_true(H5Eset_auto2(H5E_DEFAULT, own_handler, &calls) >= 0);
    refuse(path_of("wrong.h5"), "/q", LSP_VIEW_ROWS, LSP_ERR_CONTENT, PARTS("'/q'"));
    assert_int_equal(calls, 0);
    assert_true(H5Eget_auto2(H5E_DEFAULT, &now, &data) >= 0 && now == own_handler && data == &calls);
    assert_true(H5Eset_auto2(H5E_DEFAULT, before, data_before) >= 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(input_is_read_from_any_storage),
    cmocka_unit_test(input_keeps_half_precision_bits),
    cmocka_unit_test(input_with_a_damaged_chunk_stops_all),
    cmocka_unit_test(input_that_is_no_good_file_is_refused),
    cmocka_unit_test(input_that_is_no_good_dataset_is_refused),
    cmocka_unit_test(input_tables_of_integers_reach_all),
    cmocka_unit_test(input_errors_leave_the_callers_handler),
};
STORE_MAIN(tests)
