/* An output is complete or absent: names, permission, space, failing writes, metadata.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "store_case.h"

#include <errno.h>
#include <hdf5_hl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/statvfs.h>

enum { ROWS = 100, COLUMNS = 8 };

static lsp_output_dataset dataset_of(const char *name, int64_t rows)
{
    return (lsp_output_dataset){.name = name,
                                .type = LSP_F32,
                                .axes = 2,
                                .dims = {rows, COLUMNS},
                                .axis_names = {"row", "column"},
                                .units = "1"};
}

static void refuse(const char *path, bool overwrite, const char *const *parts)
{
    lsp_output *output = NULL;
    const lsp_output_dataset d = dataset_of("/out", ROWS);
    assert_refused(lsp_output_create(ctx, path, overwrite, &d, 1, &output), LSP_ERR_FILE, parts);
    assert_null(output);
}

/* This rank's rows of [0, rows), all elements `value`. */
static lsp_status write_rows(lsp_output *output, int index, int64_t rows, float value)
{
    int64_t begin = rows * rank / ranks, count = rows * (rank + 1) / ranks - begin;
    const lsp_run run = {0, 0, begin, count};
    float *data = malloc((size_t)(count * COLUMNS) * 4 + 4);
    assert_non_null(data);
    for (int64_t i = 0; i < count * COLUMNS; i++) data[i] = value;
    lsp_status status = lsp_output_write(output, index, &run, count > 0, data);
    free(data);
    return status;
}

static void write_whole(const char *path, bool overwrite, float value)
{
    lsp_output *output = NULL;
    const lsp_output_dataset d = dataset_of("/out", ROWS);
    assert_all(lsp_output_create(ctx, path, overwrite, &d, 1, &output), LSP_OK);
    assert_all(write_rows(output, 0, ROWS, value), LSP_OK);
    assert_all(lsp_output_commit(&output), LSP_OK);
}

static float first_value(const char *path)
{
    lsp_tensor *tensor = NULL;
    float row[COLUMNS];
    const lsp_run run = {0, 0, 0, 1};
    assert_all(lsp_tensor_open(ctx, path, "/out", LSP_VIEW_ROWS, LSP_BHND, &tensor), LSP_OK);
    assert_all(lsp_tensor_read(tensor, &run, 1, row), LSP_OK);
    assert_all(lsp_tensor_close(&tensor), LSP_OK);
    return row[0];
}

/* ---- names and permission --------------------------------------------------------------------------- */

static void output_refuses_what_it_cannot_create(void **state)
{
    (void)state;
    int files = count_files();
    write_whole(path_of("there.h5"), false, 1);
    refuse(path_of("there.h5"), false, PARTS("there.h5", "output.overwrite=yes"));
    refuse(path_of("no/folder/x.h5"), false, PARTS("no/folder", "No such file"));
    refuse(path_of("there.h5/x.h5"), false, PARTS("there.h5", "not a folder"));
    refuse("/proc/longspan-test.h5", false, PARTS("/proc/longspan-test.h5", "cannot create"));
    refuse("/dev/null", true, PARTS("/dev/null", "device"));
    refuse(folder, true, PARTS("folder"));
    refuse(path_of("there.h5/"), true, PARTS("not the name of a file"));
    refuse("", true, PARTS("not the name of a file"));
    assert_int_equal(count_files(), files + 1);
    assert_true(first_value(path_of("there.h5")) == 1);
}

static void output_replaces_when_asked(void **state)
{
    (void)state;
    write_whole(path_of("replace.h5"), false, 1);
    int files = count_files();
    lsp_output *output = NULL;
    const lsp_output_dataset d = dataset_of("/out", ROWS);
    assert_all(lsp_output_create(ctx, path_of("replace.h5"), true, &d, 1, &output), LSP_OK);
    assert_int_equal(count_files(), files + 1);
    assert_true(first_value(path_of("replace.h5")) == 1); /* until commit */
    assert_all(write_rows(output, 0, ROWS, 2), LSP_OK);
    assert_all(lsp_output_commit(&output), LSP_OK);
    assert_true(first_value(path_of("replace.h5")) == 2);
    assert_int_equal(count_files(), files);
    /* A link stays one, and its target is replaced. */
    if (rank == 0) assert_int_equal(symlink("replace.h5", path_of("link.h5")), 0);
    barrier();
    write_whole(path_of("link.h5"), true, 3);
    assert_true(first_value(path_of("replace.h5")) == 3);
    struct stat about;
    assert_true(lstat(path_of("link.h5"), &about) == 0 && S_ISLNK(about.st_mode));
}

static void output_does_not_touch_a_file_made_meanwhile(void **state)
{
    (void)state;
    int files = count_files();
    lsp_output *output = NULL;
    const lsp_output_dataset d = dataset_of("/out", ROWS);
    assert_all(lsp_output_create(ctx, path_of("race.h5"), false, &d, 1, &output), LSP_OK);
    assert_all(write_rows(output, 0, ROWS, 2), LSP_OK);
    if (rank == 0) {
        FILE *other = fopen(path_of("race.h5"), "w");
        assert_non_null(other);
        assert_true(fputs("mine", other) >= 0 && fclose(other) == 0);
    }
    assert_refused(lsp_output_commit(&output), LSP_ERR_FILE, PARTS("race.h5", "someone else"));
    assert_null(output);
    struct stat about;
    assert_true(stat(path_of("race.h5"), &about) == 0 && about.st_size == 4);
    assert_int_equal(count_files(), files + 1);
}

static void output_discarded_or_incomplete_leaves_nothing(void **state)
{
    (void)state;
    int files = count_files();
    lsp_output *output = NULL;
    const lsp_output_dataset two[] = {dataset_of("/out", ROWS), dataset_of("/more", ROWS)};
    assert_all(lsp_output_create(ctx, path_of("gone.h5"), false, two, 2, &output), LSP_OK);
    assert_all(write_rows(output, 0, ROWS, 2), LSP_OK);
    assert_all(lsp_output_discard(&output), LSP_OK);
    assert_null(output);
    assert_all(lsp_output_discard(&output), LSP_OK);
    assert_int_equal(count_files(), files);
    assert_all(lsp_output_create(ctx, path_of("gone.h5"), false, two, 2, &output), LSP_OK);
    assert_all(write_rows(output, 0, ROWS, 2), LSP_OK);
    assert_all(write_rows(output, 1, ROWS - 1, 2), LSP_OK);
    assert_refused(lsp_output_commit(&output), LSP_ERR_USAGE, PARTS("/more", "100 rows", "99 were"));
    assert_int_equal(count_files(), files);
}

static void output_refuses_wrong_descriptions(void **state)
{
    (void)state;
    int files = count_files();
    lsp_output *output = NULL;
    lsp_output_dataset d = dataset_of("out", ROWS);
    assert_refused(lsp_output_create(ctx, path_of("w.h5"), false, &d, 1, &output), LSP_ERR_USAGE,
                   PARTS("begins with /"));
    d = dataset_of("/out", ROWS);
    d.axes = 5;
    assert_refused(lsp_output_create(ctx, path_of("w.h5"), false, &d, 1, &output), LSP_ERR_USAGE,
                   PARTS("5 axes"));
    d.axes = 1;
    assert_refused(lsp_output_create(ctx, path_of("w.h5"), false, &d, 1, &output), LSP_ERR_USAGE,
                   PARTS("1 axes"));
    d = dataset_of("/out", INT64_MAX / 8);
    assert_refused(lsp_output_create(ctx, path_of("w.h5"), false, &d, 1, &output), LSP_ERR_LIMIT,
                   PARTS("/out"));
    const lsp_output_dataset twins[] = {dataset_of("/out", ROWS), dataset_of("/out", ROWS)};
    assert_refused(lsp_output_create(ctx, path_of("w.h5"), false, twins, 2, &output), LSP_ERR_FILE,
                   PARTS("/out", "exists"));
    assert_null(output);
    assert_int_equal(count_files(), files);
    d = dataset_of("/out", ROWS);
    assert_all(lsp_output_create(ctx, path_of("w.h5"), false, &d, 1, &output), LSP_OK);
    const lsp_run outside = {0, 0, ROWS - 1, 2};
    float data[2 * COLUMNS] = {0};
    assert_refused(lsp_output_write(output, 0, &outside, rank == ranks - 1, data), LSP_ERR_USAGE,
                   PARTS("outside"));
    assert_refused(lsp_output_write(output, 1, NULL, 0, NULL), LSP_ERR_USAGE, PARTS("number 1"));
    assert_all(lsp_output_discard(&output), LSP_OK);
}

/* ---- space -------------------------------------------------------------------------------------------- */

/* A small file system at FOLDER/disk; false (on all ranks) where mounting is not permitted. */
static bool mount_small(void)
{
    int fine = 0;
    if (rank == 0) {
        assert_int_equal(mkdir(path_of("disk"), 0777), 0);
        fine = mount("none", path_of("disk"), "tmpfs", 0, "size=1m") == 0;
        if (!fine) print_message("skipped: mounting a small tmpfs is refused here: %s\n", strerror(errno));
    }
    assert_int_equal(MPI_Bcast(&fine, 1, MPI_INT, 0, MPI_COMM_WORLD), MPI_SUCCESS);
    return fine;
}

static void unmount_small(void)
{
    barrier();
    if (rank == 0) assert_int_equal(umount(path_of("disk")), 0);
    barrier();
}

static unsigned long long free_bytes(void)
{
    struct statvfs about;
    assert_int_equal(statvfs(path_of("disk"), &about), 0);
    return (unsigned long long)about.f_bavail * about.f_frsize;
}

static void fill_disk(void)
{
    if (rank == 0) {
        static char block[4096];
        FILE *filler = fopen(path_of("disk/filler"), "w");
        assert_non_null(filler);
        while (fwrite(block, 1, sizeof block, filler) == sizeof block && fflush(filler) == 0) {
        }
        (void)fclose(filler);
        assert_true(free_bytes() < 4096);
    }
    barrier();
}

static void output_needs_its_space_at_the_start(void **state)
{
    (void)state;
    if (!mount_small()) {
        barrier();
        if (rank == 0) assert_int_equal(rmdir(path_of("disk")), 0);
        skip();
    }
    lsp_output *output = NULL;
    lsp_output_dataset d = dataset_of("/out", 40000); /* 1.28 MB */
    unsigned long long before = free_bytes();
    assert_refused(lsp_output_create(ctx, path_of("disk/x.h5"), false, &d, 1, &output), LSP_ERR_FILE,
                   PARTS("not enough space", "disk/x.h5", "bytes are needed", "1048576 are free"));
    assert_null(output);
    barrier();
    assert_true(free_bytes() == before);
    /* What is reserved is there although the disk is full by then, for rows, attributes and checksums. */
    d = dataset_of("/out", 16000); /* 0.5 MB */
    assert_all(lsp_output_create(ctx, path_of("disk/x.h5"), false, &d, 1, &output), LSP_OK);
    fill_disk();
    assert_all(write_rows(output, 0, 16000, 5), LSP_OK);
    char text[4001];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_all(lsp_output_attribute_text(output, -1, "deck", text), LSP_OK);
    assert_all(lsp_output_commit(&output), LSP_OK);
    assert_true(first_value(path_of("disk/x.h5")) == 5);
    unmount_small();
    if (rank == 0) assert_int_equal(rmdir(path_of("disk")), 0);
}

/* A write that fails on the last rank alone (here by a limit of its process) stops all. */
static void output_stops_all_when_one_rank_cannot_write(void **state)
{
    (void)state;
    int files = count_files();
    lsp_output *output = NULL;
    const lsp_output_dataset d = dataset_of("/out", 50000);
    struct rlimit limit, before;
    assert_all(lsp_output_create(ctx, path_of("limited.h5"), false, &d, 1, &output), LSP_OK);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    if (rank == ranks - 1) {
        limit = (struct rlimit){.rlim_cur = 1000000, .rlim_max = before.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    }
    char who[40];
    (void)snprintf(who, sizeof who, "rank %d cannot write", ranks - 1);
    assert_refused(write_rows(output, 0, 50000, 1), LSP_ERR_FILE, PARTS(who, "/out", "limited.h5", "ulimit"));
    assert_all(lsp_output_discard(&output), LSP_OK);
    if (ranks == 1) /* rank 0 knows of its own limit beforehand */
        assert_refused(lsp_output_create(ctx, path_of("limited.h5"), false, &d, 1, &output), LSP_ERR_FILE,
                       PARTS("limited.h5", "1000000", "ulimit -f"));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    (void)signal(SIGXFSZ, handler);
    assert_int_equal(count_files(), files);
}

/* ---- metadata ------------------------------------------------------------------------------------------ */

static void write_described(void)
{
    lsp_output *output = NULL;
    const lsp_output_dataset parts[] = {
        {.name = "/out",
         .type = LSP_F32,
         .axes = 3,
         .dims = {2, ROWS, COLUMNS},
         .axis_names = {"head", "row", "column"},
         .units = "1"},
        {.name = "/lse",
         .type = LSP_F64,
         .axes = 2,
         .dims = {2, ROWS},
         .view = LSP_VIEW_SCALARS,
         .axis_names = {"head", "row"},
         .units = "nat"},
        {.name = "/k",
         .type = LSP_BF16,
         .axes = 3,
         .dims = {7, 2, 3},
         .layout = LSP_BNHD,
         .axis_names = {"row", NULL, NULL}},
        {.name = "/half", .type = LSP_F16, .axes = 2, .dims = {3, 3}},
    };
    assert_all(lsp_output_create(ctx, path_of("meta.h5"), false, parts, 4, &output), LSP_OK);
    assert_all(lsp_output_attribute_text(output, -1, "command", "attend"), LSP_OK);
    assert_all(lsp_output_attribute_text(output, -1, "command", "attend again"), LSP_OK);
    assert_all(lsp_output_attribute_text(output, -1, "empty", ""), LSP_OK);
    assert_all(lsp_output_attribute_i64(output, -1, "rows_of_the_whole", INT64_C(1) << 40), LSP_OK);
    assert_all(lsp_output_attribute_f64(output, 0, "scale", 0.125), LSP_OK);
    assert_refused(lsp_output_attribute_i64(output, 4, "x", 1), LSP_ERR_USAGE, PARTS("number 4"));
    char *text = malloc(70001);
    assert_non_null(text);
    memset(text, 'y', 70000);
    text[70000] = '\0';
    assert_refused(lsp_output_attribute_text(output, -1, "long", text), LSP_ERR_LIMIT,
                   PARTS("'long'", "70000"));
    free(text);
    static char zeros[2 * ROWS * COLUMNS * 8];
    const lsp_run heads[] = {{0, 0, 0, ROWS}, {0, 1, 0, ROWS}}, keys[] = {{0, 0, 0, 7}, {0, 1, 0, 7}},
                  half = {0, 0, 0, 3};
    int64_t mine = rank == 0;
    assert_all(lsp_output_write(output, 0, heads, 2 * mine, zeros), LSP_OK);
    assert_all(lsp_output_write(output, 1, heads, 2 * mine, zeros), LSP_OK);
    assert_all(lsp_output_write(output, 2, keys, 2 * mine, zeros), LSP_OK);
    assert_all(lsp_output_write(output, 3, &half, mine, zeros), LSP_OK);
    assert_all(lsp_output_commit(&output), LSP_OK);
}

static void output_has_scales_and_attributes(void **state)
{
    (void)state;
    write_described();
    hid_t file = H5Fopen(path_of("meta.h5"), H5F_ACC_RDONLY, H5P_DEFAULT),
          out = H5Dopen2(file, "/out", H5P_DEFAULT);
    hid_t lse = H5Dopen2(file, "/lse", H5P_DEFAULT), k = H5Dopen2(file, "/k", H5P_DEFAULT);
    char text[64] = "";
    long long number = 0;
    double real = 0;
    assert_true(out >= 0 && lse >= 0 && k >= 0);
    assert_true(H5LTget_attribute_long_long(file, "/", "schema_version", &number) >= 0 && number == 1);
    assert_true(H5LTget_attribute_string(file, "/", "longspan_version", text) >= 0);
    assert_string_equal(text, lsp_version());
    memset(text, 0, sizeof text);
    assert_true(H5LTget_attribute_string(file, "/", "command", text) >= 0);
    assert_string_equal(text, "attend again");
    assert_true(H5LTget_attribute_long_long(file, "/", "rows_of_the_whole", &number) >= 0 &&
                number == 1LL << 40);
    assert_true(H5LTget_attribute_double(file, "/out", "scale", &real) >= 0 && real == 0.125);
    assert_true(H5Aexists(file, "reserved") == 0 && H5Aexists(out, "xxh64") > 0 &&
                H5Aexists(out, "xxh64_rule") > 0);
    memset(text, 0, sizeof text);
    assert_true(H5LTget_attribute_string(file, "/lse", "units", text) >= 0);
    assert_string_equal(text, "nat");
    const char *const labels[] = {"head", "row", "column"};
    for (unsigned a = 0; a < 3; a++) {
        assert_true(H5DSget_label(out, a, text, sizeof text) > 0);
        assert_string_equal(text, labels[a]);
        hid_t scale = H5Dopen2(file, labels[a], H5P_DEFAULT);
        assert_true(H5DSis_scale(scale) > 0 && H5DSis_attached(out, scale, a) > 0 &&
                    H5Dget_storage_size(scale) == 0);
        if (a < 2) assert_true(H5DSis_attached(lse, scale, a) > 0);
        assert_true(H5Dclose(scale) >= 0);
    }
    hid_t other = H5Dopen2(file, "row_7", H5P_DEFAULT);
    assert_true(H5DSis_attached(k, other, 0) > 0);
    assert_true((H5Dget_offset(out) % 4096 == 0 || H5Dget_storage_size(out) < 65536));
    assert_true(H5Dclose(other) >= 0 && H5Dclose(out) >= 0 && H5Dclose(lse) >= 0 && H5Dclose(k) >= 0 &&
                H5Fclose(file) >= 0);
}

static void collect(void *user, const char *line)
{
    char *all = user;
    size_t used = strlen(all);
    (void)snprintf(all + used, 8192 - used, "%s\n", line);
}

static void output_is_described(void **state)
{
    (void)state;
    char all[8192] = "";
    assert_int_equal(lsp_file_describe(ctx, path_of("meta.h5"), collect, all), LSP_OK);
    const char *const parts[] = {"/out  f32 [2, 100, 8]  contiguous  6.2 KiB",
                                 "0: head, 1: row, 2: column",
                                 "scale=0.125",
                                 "/lse  f64 [2, 100]",
                                 "units=\"nat\"",
                                 "/k  bf16 [7, 2, 3]",
                                 "/half  f16 [3, 3]",
                                 "schema_version=1",
                                 "command=\"attend again\"",
                                 "/row_7  uint8 [7]  dimension scale",
                                 "xxh64=\""};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (!strstr(all, parts[i])) print_error("'%s' is not in:\n%s", parts[i], all);
        assert_non_null(strstr(all, parts[i]));
    }
    assert_int_equal(lsp_file_describe(ctx, path_of("none.h5"), collect, all), LSP_ERR_FILE);
    assert_non_null(strstr(lsp_context_message(ctx), "none.h5"));
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(output_refuses_what_it_cannot_create),
    cmocka_unit_test(output_replaces_when_asked),
    cmocka_unit_test(output_does_not_touch_a_file_made_meanwhile),
    cmocka_unit_test(output_discarded_or_incomplete_leaves_nothing),
    cmocka_unit_test(output_refuses_wrong_descriptions),
    cmocka_unit_test(output_needs_its_space_at_the_start),
    cmocka_unit_test(output_stops_all_when_one_rank_cannot_write),
    cmocka_unit_test(output_has_scales_and_attributes),
    cmocka_unit_test(output_is_described),
};
STORE_MAIN(tests)
