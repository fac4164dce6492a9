/* Files of other programs: what the parsers of safetensors and .npy take, what they refuse, and rows in every order.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory.h"
#include "store/foreign.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[64];

static int make_path(void **state)
{
    (void)state;
    (void)snprintf(path, sizeof path, "/tmp/longspan-foreign-XXXXXX");
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int drop_path(void **state)
{
    (void)state;
    return unlink(path);
}

static void write_file(const void *head, size_t head_bytes, const void *data, size_t data_bytes)
{
    FILE *stream = fopen(path, "wb");
    assert_non_null(stream);
    assert_int_equal(fwrite(head, 1, head_bytes, stream), head_bytes);
    if (data_bytes > 0) assert_int_equal(fwrite(data, 1, data_bytes, stream), data_bytes);
    assert_int_equal(fclose(stream), 0);
}

/* length, header, data */
static void write_safetensors(const char *header, const void *data, size_t data_bytes)
{
    char head[4096];
    uint64_t length = strlen(header);
    for (int i = 0; i < 8; i++) head[i] = (char)(length >> 8 * i & 0xFF);
    memcpy(head + 8, header, length);
    write_file(head, 8 + length, data, data_bytes);
}

static void write_npy(const char *header, const void *data, size_t data_bytes)
{
    char head[4096] = "\x93NUMPY\1";
    size_t length = strlen(header);
    head[8] = (char)(length & 0xFF);
    head[9] = (char)(length >> 8);
    memcpy(head + 10, header, length);
    write_file(head, 10 + length, data, data_bytes);
}

static lsp_foreign *load(void)
{
    lsp_foreign *file = NULL;
    lsp_error error = {LSP_OK, ""};
    if (lsp_foreign_load(path, &file, &error) != LSP_OK) fail_msg("refused: %s", error.text);
    return file;
}

static void refused(const char *wanted)
{
    lsp_foreign *file = NULL;
    lsp_error error = {LSP_OK, ""};
    int64_t before = lsp_memory_now();
    assert_int_equal(lsp_foreign_load(path, &file, &error), LSP_ERR_CONTENT);
    if (!strstr(error.text, wanted)) fail_msg("'%s' lacks '%s'", error.text, wanted);
    assert_int_equal(lsp_memory_now(), before);
}

/* ---- safetensors ------------------------------------------------------------------------------------ */

static void safetensors_tells_its_tensors(void **state)
{
    (void)state;
    write_safetensors(
        "{\"__metadata__\": {\"format\": \"pt\"},"
        " \"z\": {\"dtype\": \"BF16\", \"shape\": [2, 3], \"data_offsets\": [8, 20]},"
        " \"empty\": {\"dtype\": \"F32\", \"shape\": [0, 7], \"data_offsets\": [8, 8], \"new\": {}},"
        " \"a\\u00e9\": {\"data_offsets\": [0, 8], \"shape\": [], \"dtype\": \"I64\"},"
        " \"four\": {\"dtype\": \"F4\", \"shape\": [4], \"data_offsets\": [20, 22]}}    ",
        "0123456789abcdefghijkl", 22);
    lsp_foreign *file = load();
    assert_string_equal(lsp_foreign_format(file), "safetensors");
    assert_int_equal(lsp_foreign_count(file), 4);
    assert_int_equal(lsp_foreign_find(file, "a\xc3\xa9"), 0);
    assert_int_equal(lsp_foreign_find(file, "empty"), 1);
    assert_int_equal(lsp_foreign_find(file, "four"), 2);
    assert_int_equal(lsp_foreign_find(file, "z"), 3);
    assert_int_equal(lsp_foreign_find(file, "zz"), -1);
    assert_int_equal(lsp_foreign_find(file, ""), -1);
    lsp_foreign_tensor z = lsp_foreign_get(file, 3);
    assert_int_equal(z.axes, 2);
    assert_int_equal(z.dims[0], 2);
    assert_int_equal(z.dims[1], 3);
    assert_int_equal(z.type, LSP_BF16);
    assert_int_equal(z.bytes, 12);
    assert_true(z.known);
    assert_false(lsp_foreign_get(file, 2).known);
    uint16_t bits[6];
    lsp_error error = {LSP_OK, ""};
    assert_int_equal(lsp_foreign_rows(file, 3, false, 0, 2, LSP_BF16, bits, &error), LSP_OK);
    assert_memory_equal(bits, "89abcdefghij", 12);
    /* A type that is not read, no axis, rows outside, an integer as a number with a point. */
    assert_int_equal(lsp_foreign_rows(file, 2, false, 0, 1, LSP_F32, bits, &error), LSP_ERR_USAGE);
    assert_int_equal(lsp_foreign_rows(file, 0, false, 0, 0, LSP_I64, bits, &error), LSP_ERR_USAGE);
    assert_int_equal(lsp_foreign_rows(file, 3, false, 1, 2, LSP_F32, bits, &error), LSP_ERR_USAGE);
    assert_int_equal(lsp_foreign_rows(file, 3, false, 0, 2, LSP_I64, bits, &error), LSP_ERR_USAGE);
    assert_int_equal(lsp_foreign_rows(file, 1, false, 0, 0, LSP_F32, bits, &error), LSP_OK);
    lsp_foreign_unload(file);
}

static void safetensors_of_nothing(void **state)
{
    (void)state;
    write_safetensors("{}", NULL, 0);
    lsp_foreign *file = load();
    assert_int_equal(lsp_foreign_count(file), 0);
    assert_int_equal(lsp_foreign_find(file, "a"), -1);
    lsp_foreign_unload(file);
}

static void safetensors_refuses(void **state)
{
    (void)state;
    static const struct {
        const char *header, *wanted;
        size_t bytes;
    } cases[] = {
        {"{", "begin with {", 0},
        {"{\"", "breaks off", 0},
        {"{\"a\": 1", "breaks off", 0},
        {"[]", "begin with {", 0},
        {"{\"a\": 1}", "described by an object", 0},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 8]}}", "cut short", 7},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 8]}}", "behind its last", 9},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [3], \"data_offsets\": [0, 8]}}", "span 8", 8},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [8, 0]}}", "before its begin", 8},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [1e300, 8]}}", "two whole", 8},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 8, 8]}}", "two whole", 8},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": []}}", "two whole", 8},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [4503599627370496, 4503599627370496], \"data_offsets\": "
         "[0, 8]}}",
         "larger than a file", 8},
        {"{\"a\": {\"dtype\": \"F5\", \"shape\": [2], \"data_offsets\": [0, 8]}}", "not one of", 8},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 8]},"
         " \"b\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [4, 12]}}",
         "overlap", 12},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 8]},"
         " \"b\": {\"dtype\": \"F32\", \"shape\": [0], \"data_offsets\": [4, 4]}}",
         "overlap", 8},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [0, 8]},"
         " \"a\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [8, 16]}}",
         "two tensors", 16},
        {"{\"a\": {\"dtype\": \"F32\", \"shape\": [2], \"data_offsets\": [4, 12]}}", "belong to no tensor",
         12},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_safetensors(cases[i].header, "0123456789abcdefghij", cases[i].bytes);
        refused(cases[i].wanted);
    }
}

/* ---- rows ------------------------------------------------------------------------------------------- */

/* 0, 1, 2, ... as element [b, h, i, j] of the shape, stored in either order. */
static void write_counted(const int64_t dims[4], bool fortran, int first_axis)
{
    float values[512];
    char header[200], shape[100] = "";
    for (int a = first_axis; a < 4; a++) {
        size_t used = strlen(shape);
        (void)snprintf(shape + used, sizeof shape - used, "%lld,", (long long)dims[a]);
    }
    (void)snprintf(header, sizeof header, "{'descr': '<f4', 'fortran_order': %s, 'shape': (%s), }\n",
                   fortran ? "True" : "False", shape);
    int64_t count = 0, total = dims[0] * dims[1] * dims[2] * dims[3];
    for (int64_t b = 0; b < dims[0]; b++)
        for (int64_t h = 0; h < dims[1]; h++)
            for (int64_t i = 0; i < dims[2]; i++)
                for (int64_t j = 0; j < dims[3]; j++) {
                    int64_t at = fortran ? b + dims[0] * (h + dims[1] * (i + dims[2] * j)) : count;
                    values[at] = (float)count++;
                }
    write_npy(header, values, (size_t)total * sizeof values[0]);
}

/* Every range of rows of every shape, order and type. */
static void rows_in_every_order(void **state)
{
    (void)state;
    static const int64_t shapes[][4] = {{1, 1, 7, 5}, {1, 3, 7, 5}, {2, 3, 7, 5}, {3, 2, 1, 4}, {5, 1, 4, 1}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        const int64_t *dims = shapes[s];
        int64_t matrices = dims[0] * dims[1], rows = dims[2], columns = dims[3];
        int first_axis = dims[0] > 1 ? 0 : dims[1] > 1 ? 1 : 2;
        for (int fortran = 0; fortran < 2; fortran++) {
            write_counted(dims, fortran != 0, first_axis);
            lsp_foreign *file = load();
            assert_int_equal(lsp_foreign_get(file, 0).axes, 4 - first_axis);
            for (int64_t first = 0; first <= rows; first++)
                for (int64_t count = 0; count <= rows - first; count++) {
                    double wide[512];
                    lsp_error error = {LSP_OK, ""};
                    assert_int_equal(lsp_foreign_rows(file, 0, false, first, count, LSP_F64, wide, &error),
                                     LSP_OK);
                    for (int64_t m = 0, at = 0; m < matrices; m++)
                        for (int64_t i = 0; i < count; i++)
                            for (int64_t j = 0; j < columns; j++, at++)
                                assert_true(wide[at] == (double)((m * rows + first + i) * columns + j));
                }
            lsp_foreign_unload(file);
        }
    }
}

static void transposed_rows(void **state)
{
    (void)state;
    const int64_t dims[4] = {1, 1, 7, 5};
    for (int fortran = 0; fortran < 2; fortran++) {
        write_counted(dims, fortran != 0, 2);
        lsp_foreign *file = load();
        float got[21];
        lsp_error error = {LSP_OK, ""};
        assert_int_equal(lsp_foreign_rows(file, 0, true, 1, 3, LSP_F32, got, &error), LSP_OK);
        for (int i = 0; i < 3; i++)
            for (int j = 0; j < 7; j++) assert_true(got[7 * i + j] == (float)(5 * j + i + 1));
        assert_int_equal(lsp_foreign_rows(file, 0, true, 3, 3, LSP_F32, got, &error), LSP_ERR_USAGE);
        lsp_foreign_unload(file);
    }
}

static void numbers_of_every_type(void **state)
{
    (void)state;
    static const struct {
        const char *type;
        unsigned char bytes[16]; /* two numbers */
        size_t size;
        double first, second;
    } cases[] = {
        {"<f2", {0x00, 0x3C, 0x01, 0x80}, 2, 1, -0x1p-24},
        {">f2", {0x3C, 0x00, 0x80, 0x01}, 2, 1, -0x1p-24},
        {">f4", {0x3F, 0x80, 0, 0, 0xC0, 0, 0, 0}, 4, 1, -2},
        {">f8", {0x3F, 0xF0, 0, 0, 0, 0, 0, 0, 0xC0, 0, 0, 0, 0, 0, 0, 0}, 8, 1, -2},
        {"|i1", {0x7F, 0x80}, 1, 127, -128},
        {"|u1", {0x7F, 0x80}, 1, 127, 128},
        {"<i2", {0xFF, 0x7F, 0x00, 0x80}, 2, 32767, -32768},
        {">u2", {0x7F, 0xFF, 0x80, 0x00}, 2, 32767, 32768},
        {">i4", {0, 0, 0, 1, 0xFF, 0xFF, 0xFF, 0xFE}, 4, 1, -2},
        {"<u4", {1, 0, 0, 0, 0xFE, 0xFF, 0xFF, 0xFF}, 4, 1, 4294967294.0},
        {">i8", {0, 0, 0, 0, 0, 0, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE}, 8, 1, -2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char header[100];
        lsp_error error = {LSP_OK, ""};
        (void)snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': (2,)}",
                       cases[i].type);
        write_npy(header, cases[i].bytes, 2 * cases[i].size);
        lsp_foreign *file = load();
        if (lsp_foreign_get(file, 0).type == LSP_I64) {
            int64_t got[2];
            assert_int_equal(lsp_foreign_rows(file, 0, false, 0, 2, LSP_I64, got, &error), LSP_OK);
            assert_true((double)got[0] == cases[i].first && (double)got[1] == cases[i].second);
        } else {
            double got[2];
            float narrow[2];
            assert_int_equal(lsp_foreign_rows(file, 0, false, 0, 2, LSP_F64, got, &error), LSP_OK);
            assert_true(got[0] == cases[i].first && got[1] == cases[i].second);
            assert_int_equal(lsp_foreign_rows(file, 0, false, 0, 2, LSP_F32, narrow, &error), LSP_OK);
            assert_true(narrow[0] == (float)cases[i].first && narrow[1] == (float)cases[i].second);
        }
        lsp_foreign_unload(file);
    }
}

/* A file that loses its end after it was opened. */
static void cut_meanwhile(void **state)
{
    (void)state;
    const int64_t dims[4] = {1, 1, 7, 5};
    write_counted(dims, false, 2);
    lsp_foreign *file = load();
    float got[35];
    lsp_error error = {LSP_OK, ""};
    assert_int_equal(truncate(path, lsp_foreign_bytes(file) - 4), 0);
    assert_int_equal(lsp_foreign_rows(file, 0, false, 0, 6, LSP_F32, got, &error), LSP_OK);
    assert_int_equal(lsp_foreign_rows(file, 0, false, 0, 7, LSP_F32, got, &error), LSP_ERR_CONTENT);
    assert_non_null(strstr(error.text, "was cut"));
    lsp_foreign_unload(file);
}

static void npy_refuses(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"", "{ is expected"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2", "a comma, or )"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2)}", "(n,)"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (,)}", "whole number"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,,)}", "whole number"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}", "12 bytes, and has 8"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775808,)}", "63 bits"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807,)}", "larger than a file"},
        {"{'descr': '|f4', 'fortran_order': False, 'shape': (2,)}", "of type '|f4'"},
        {"{'descr': '<u1', 'fortran_order': False, 'shape': (8,)}", "of type '<u1'"},
        {"{'descr': '<f4\\'', 'fortran_order': False, 'shape': (2,)}", "is expected"},
        {"{'descr': '', 'fortran_order': False, 'shape': (2,)}", "of type ''"},
        {"{'descr': '<f4', 'fortran_order': Falsch, 'shape': (2,)}", "True or False"},
        {"{'descr': '<f4' 'fortran_order': False, 'shape': (2,)}", "a comma, or }"},
        {"{'descr' '<f4', 'fortran_order': False, 'shape': (2,)}", "a colon"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} x", "the end"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)", "a comma, or }"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_npy(cases[i][0], "01234567", 8);
        refused(cases[i][1]);
    }
}

static void names_are_printable(void **state)
{
    (void)state;
    static const char *const good[] = {
        "", "a b.c", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf"};
    static const char *const bad[] = {"\n",
                                      "a\x7f",
                                      "\xff",
                                      "\xc3",
                                      "\xc3(",
                                      "\xc0\xaf",
                                      "\xe0\x80\x80",
                                      "\xed\xa0\x80",
                                      "\xf4\x90\x80\x80",
                                      "\xf8\x88\x80\x80\x80",
                                      "\x80",
                                      "\xc2\x85",
                                      "\xe2\x82"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) assert_true(lsp_foreign_printable(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_false(lsp_foreign_printable(bad[i]));
}

static void names_tell_the_format(void **state)
{
    (void)state;
    assert_true(lsp_foreign_is("a.safetensors"));
    assert_true(lsp_foreign_is("/nowhere/a.npy"));
    assert_false(lsp_foreign_is("a.h5"));
    write_npy("{}", NULL, 0);
    assert_true(lsp_foreign_is(path));
    write_safetensors("{}", NULL, 0);
    assert_false(lsp_foreign_is(path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(safetensors_tells_its_tensors),
        cmocka_unit_test(safetensors_of_nothing),
        cmocka_unit_test(safetensors_refuses),
        cmocka_unit_test(rows_in_every_order),
        cmocka_unit_test(transposed_rows),
        cmocka_unit_test(numbers_of_every_type),
        cmocka_unit_test(cut_meanwhile),
        cmocka_unit_test(npy_refuses),
        cmocka_unit_test(names_are_printable),
        cmocka_unit_test(names_tell_the_format),
    };
    return cmocka_run_group_tests(tests, make_path, drop_path);
}
