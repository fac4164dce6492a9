/* What the environment and the launcher say, and which memory limit counts.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "app/launch.h"

#include <stdlib.h>

static int clear_environment(void **state)
{
    (void)state;
    static const char *const names[] = {"SLURM_STEP_NUM_TASKS", "SLURM_STEP_ID",       "SLURM_NTASKS",
                                        "SLURM_PROCID",         "PMIX_RANK",           "OMPI_COMM_WORLD_SIZE",
                                        "SLURM_MEM_PER_NODE",   "SLURM_MEM_PER_CPU",   "SLURM_CPUS_ON_NODE",
                                        "OMP_NUM_THREADS",      "OMPI_COMM_WORLD_RANK"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) (void)unsetenv(names[i]);
    return 0;
}

static void launch_finds_singletons(void **state)
{
    (void)state;
    int tasks = 0;
    bool first = false;
    assert_false(lsp_launch_is_singletons(&tasks, &first));
    (void)setenv("SLURM_NTASKS", "4", 1); /* a batch script, outside of any step */
    assert_false(lsp_launch_is_singletons(&tasks, &first));
    (void)setenv("SLURM_STEP_ID", "0", 1);
    (void)setenv("SLURM_PROCID", "1", 1);
    assert_true(lsp_launch_is_singletons(&tasks, &first));
    assert_int_equal(tasks, 4);
    assert_false(first);
    (void)setenv("SLURM_PROCID", "0", 1);
    assert_true(lsp_launch_is_singletons(&tasks, &first) && first);
    (void)setenv("SLURM_STEP_NUM_TASKS", "1", 1); /* a step of one task in a larger job */
    assert_false(lsp_launch_is_singletons(&tasks, &first));
    (void)setenv("SLURM_STEP_NUM_TASKS", "2", 1);
    assert_true(lsp_launch_is_singletons(&tasks, &first));
    (void)setenv("PMIX_RANK", "0", 1);
    assert_false(lsp_launch_is_singletons(&tasks, &first));
    (void)unsetenv("PMIX_RANK");
    (void)setenv("OMPI_COMM_WORLD_SIZE", "2", 1); /* mpirun inside of a step */
    assert_false(lsp_launch_is_singletons(&tasks, &first));
}

static void launch_knows_memory_and_threads(void **state)
{
    (void)state;
    assert_int_equal(lsp_launch_memory(), 0);
    (void)setenv("SLURM_MEM_PER_CPU", "1000", 1);
    (void)setenv("SLURM_CPUS_ON_NODE", "3", 1);
    assert_int_equal(lsp_launch_memory(), 3000LL << 20);
    (void)setenv("SLURM_MEM_PER_NODE", "2000", 1);
    assert_int_equal(lsp_launch_memory(), 2000LL << 20);
    assert_int_equal(lsp_launch_threads(), 0);
    (void)setenv("OMP_NUM_THREADS", "3,2", 1);
    assert_int_equal(lsp_launch_threads(), 3);
    (void)setenv("OMP_NUM_THREADS", "none", 1);
    assert_int_equal(lsp_launch_threads(), 0);
}

/* What is not known (0) does not hide what is. */
static void launch_counts_sockets(void **state)
{
    (void)state;
    assert_in_range(lsp_launch_sockets(), 1, 1024);
}

static void launch_takes_the_least_memory(void **state)
{
    (void)state;
    const struct {
        int64_t available;
        bool cgroup;
        int64_t slurm;
        double asked;
        int64_t limit;
        int which;
    } cases[] = {
        {1000, false, 0, 0, 1000, 0},   {1000, true, 0, 0, 1000, 1},    {1000, false, 900, 0, 900, 2},
        {1000, true, 900, 800, 800, 3}, {1000, true, 900, 950, 900, 2}, {1000, true, 2000, 3000, 1000, 1},
        {0, false, 900, 0, 900, 2},     {0, false, 0, 800, 800, 3},     {0, false, 900, 800, 800, 3},
        {0, false, 700, 800, 700, 2},
    };
    int which = -1;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(lsp_launch_least_memory(cases[i].available, cases[i].cgroup, cases[i].slurm,
                                                 cases[i].asked, &which),
                         cases[i].limit);
        assert_int_equal(which, cases[i].which);
    }
    assert_true(lsp_launch_least_memory(0, false, 0, 0, &which) == INT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(launch_finds_singletons, clear_environment),
        cmocka_unit_test_setup(launch_knows_memory_and_threads, clear_environment),
        cmocka_unit_test(launch_takes_the_least_memory),
        cmocka_unit_test(launch_counts_sockets),
    };
    return cmocka_run_group_tests_name("launch", tests, NULL, NULL);
}
