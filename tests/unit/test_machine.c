/* Scalar conversions, and memory left by machine and control groups.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/convert.h"
#include "base/machine.h"

#include <errno.h>
#include <longspan/study.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- conversions ------------------------------------------------------------------------------- */

typedef double (*widen_fn)(uint16_t);
typedef uint16_t (*narrow_fn)(double);

/* The value of a pattern, from the definition of the formats. */
static double value_of(unsigned bits, int fraction, int bias)
{
    int exponent = (int)(bits >> fraction);
    int significand = (int)(bits & ((1u << fraction) - 1));
    if (exponent == 0) return ldexp(significand, 1 - bias - fraction);
    return ldexp(significand + (1 << fraction), exponent - bias - fraction);
}

/* Every finite pattern, and the three doubles around the middle to its upper neighbour. */
static void check_format(widen_fn widen, narrow_fn narrow, int fraction, int bias, unsigned infinity)
{
    for (unsigned bits = 0; bits < infinity; bits++) {
        double value = value_of(bits, fraction, bias), next = value_of(bits + 1, fraction, bias);
        assert_true(widen((uint16_t)bits) == value);
        assert_true(widen((uint16_t)(bits | 0x8000)) == -value);
        assert_int_equal(narrow(value), bits);
        double middle = (value + next) / 2;
        assert_int_equal(narrow(middle), bits + bits % 2);
        assert_int_equal(narrow(nextafter(middle, 0)), bits);
        assert_int_equal(narrow(nextafter(middle, INFINITY)), bits + 1);
        assert_int_equal(narrow(-nextafter(middle, INFINITY)), (bits + 1) | 0x8000);
    }
    assert_int_equal(narrow(INFINITY), infinity);
    assert_int_equal(narrow(-INFINITY), infinity | 0x8000);
    assert_int_equal(narrow(1e300), infinity);
    assert_int_equal(narrow(1e-300), 0);
    assert_int_equal(narrow(5e-324), 0);
    assert_int_equal(narrow(-0.0), 0x8000);
    assert_true(isnan(widen(narrow((double)NAN))));
    assert_true(isinf(widen((uint16_t)infinity)) && widen((uint16_t)infinity) > 0);
    assert_true(isnan(widen((uint16_t)(infinity + 1))));
    assert_true(isnan(widen(0xFFFF)));
}

static void convert_f16_is_exact_and_rounds_to_even(void **state)
{
    (void)state;
    check_format(lsp_convert_from_f16, lsp_convert_to_f16, 10, 15, 0x7C00);
}

static void convert_bf16_is_exact_and_rounds_to_even(void **state)
{
    (void)state;
    check_format(lsp_convert_from_bf16, lsp_convert_to_bf16, 7, 127, 0x7F80);
}

static void convert_arrays_start_where_asked(void **state)
{
    (void)state;
    const lsp_dtype types[] = {LSP_F16, LSP_BF16, LSP_F32, LSP_F64};
    const double values[3] = {1.5, -2.25, 0.0078125};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        double array[8] = {0}, back[5] = {9, 9, 9, 9, 9};
        lsp_convert_store(types[t], values, 3, array, 2);
        lsp_convert_load(types[t], array, 1, 5, back);
        const double expected[5] = {0, 1.5, -2.25, 0.0078125, 0};
        assert_memory_equal(back, expected, sizeof expected);
    }
}

/* ---- memory ------------------------------------------------------------------------------------ */

static char root[256];

static void write_file(const char *path, const char *text)
{
    char whole[1024];
    (void)snprintf(whole, sizeof whole, "%s/%s", root, path);
    for (char *slash = strchr(whole + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        assert_true(mkdir(whole, 0700) == 0 || errno == EEXIST);
        *slash = '/';
    }
    FILE *file = fopen(whole, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int make_root(void **state)
{
    (void)state;
    (void)snprintf(root, sizeof root, "/tmp/longspan-machine-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
    (void)state;
    char command[300];
    (void)snprintf(command, sizeof command, "rm -r '%s'", root);
    return system(command);
}

static void expect_left(int64_t bytes, const char *source)
{
    const char *found = NULL;
    assert_int_equal(lsp_machine_memory_available(root, &found), bytes);
    assert_string_equal(found, source);
}

static void memory_is_unknown_without_files(void **state)
{
    (void)state;
    expect_left(0, "unknown");
    assert_int_equal(lsp_machine_memory_available(root, NULL), 0);
}

static void memory_is_what_the_machine_leaves(void **state)
{
    (void)state;
    write_file("proc/meminfo", "MemTotal:  9000 kB\nMemFree:  1 kB\nMemAvailable:    8000 kB\n");
    expect_left(8000 * 1024, "machine");
    write_file("proc/self/cgroup", "0::/\n");
    expect_left(8000 * 1024, "machine");
}

static void memory_obeys_the_tightest_v2_group(void **state)
{
    (void)state;
    write_file("proc/meminfo", "MemAvailable:    8000 kB\n");
    write_file("proc/self/cgroup", "0::/slurm/job_1/step_0\n");
    write_file("sys/fs/cgroup/slurm/job_1/step_0/memory.max", "max\n");
    write_file("sys/fs/cgroup/slurm/job_1/step_0/memory.current", "1000\n");
    expect_left(8000 * 1024, "machine");
    write_file("sys/fs/cgroup/slurm/job_1/memory.max", "100000\n");
    write_file("sys/fs/cgroup/slurm/job_1/memory.current", "70000\n");
    expect_left(30000, "cgroup");
    write_file("sys/fs/cgroup/slurm/job_1/memory.stat",
               "anon 5\ninactive_file_x 3\ninactive_file 20000\nfile 9\n");
    expect_left(50000, "cgroup");
    write_file("sys/fs/cgroup/slurm/memory.max", "200000\n");
    write_file("sys/fs/cgroup/slurm/memory.current", "190000\n");
    expect_left(10000, "cgroup");
    write_file("sys/fs/cgroup/slurm/memory.current", "300000\n"); /* a limit lowered below the usage */
    expect_left(1, "cgroup");
}

static void memory_obeys_v1_groups(void **state)
{
    (void)state;
    write_file("proc/meminfo", "MemAvailable:    8000 kB\n");
    write_file("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/docker/abc\n0::/\n");
    write_file("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "9223372036854771712\n");
    write_file("sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", "4096\n");
    expect_left(8000 * 1024, "machine");
    write_file("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "60000\n");
    write_file("sys/fs/cgroup/memory/docker/abc/memory.stat", "inactive_file 7\ntotal_inactive_file 96\n");
    expect_left(56000, "cgroup");
}

/* In a container the host's path is not mounted, but the group's own files are at the top. */
static void memory_finds_the_top_of_a_mounted_group(void **state)
{
    (void)state;
    write_file("proc/meminfo", "MemAvailable:    8000 kB\n");
    write_file("proc/self/cgroup", "4:memory:/docker/not/mounted\n");
    write_file("sys/fs/cgroup/memory/memory.limit_in_bytes", "50000\n");
    write_file("sys/fs/cgroup/memory/memory.usage_in_bytes", "20000\n");
    expect_left(30000, "cgroup");
    write_file("proc/self/cgroup", "0::/docker/not/mounted\n");
    write_file("sys/fs/cgroup/memory.max", "40000\n");
    write_file("sys/fs/cgroup/memory.current", "20000\n");
    expect_left(20000, "cgroup");
}

static void memory_of_this_machine_is_known(void **state)
{
    (void)state;
    const char *source = NULL;
    assert_true(lsp_memory_available(&source) > 0);
    assert_true(strcmp(source, "machine") == 0 || strcmp(source, "cgroup") == 0);
}

static void memory_peak_counts_touched_pages(void **state)
{
    (void)state;
    const size_t bytes = (size_t)64 << 20;
    int64_t before = lsp_memory_peak();
    assert_true(before > 0);
    volatile char *pages = malloc(bytes);
    assert_non_null(pages);
    for (size_t i = 0; i < bytes; i += 1024) pages[i] = 1;
    free((void *)pages);
    assert_true(lsp_memory_peak() >= before + (int64_t)bytes / 2); /* it stays after the pages have gone */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convert_f16_is_exact_and_rounds_to_even),
        cmocka_unit_test(convert_bf16_is_exact_and_rounds_to_even),
        cmocka_unit_test(convert_arrays_start_where_asked),
        cmocka_unit_test_setup_teardown(memory_is_unknown_without_files, make_root, remove_root),
        cmocka_unit_test_setup_teardown(memory_is_what_the_machine_leaves, make_root, remove_root),
        cmocka_unit_test_setup_teardown(memory_obeys_the_tightest_v2_group, make_root, remove_root),
        cmocka_unit_test_setup_teardown(memory_obeys_v1_groups, make_root, remove_root),
        cmocka_unit_test_setup_teardown(memory_finds_the_top_of_a_mounted_group, make_root, remove_root),
        cmocka_unit_test(memory_of_this_machine_is_known),
        cmocka_unit_test(memory_peak_counts_touched_pages),
    };
    return cmocka_run_group_tests_name("machine", tests, NULL, NULL);
}
