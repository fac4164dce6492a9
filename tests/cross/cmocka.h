/* A stand-in for the part of cmocka that the kernels' unit tests use, so that they build for another processor from
 * their own sources with a C library alone: a failed assertion ends the test, the program's status counts them.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_TEST_CROSS_CMOCKA_H
#define LSP_TEST_CROSS_CMOCKA_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};
#define cmocka_unit_test(function)                                                                           \
    {                                                                                                        \
#        function, function                                                                                  \
    }

enum { CROSS_FAILED = 1, CROSS_SKIPPED = 2 };
static jmp_buf cross_end;

static inline __attribute__((noreturn)) void cross_fail(const char *file, int line, const char *what)
{
    (void)fprintf(stderr, "%s:%d: %s\n", file, line, what);
    longjmp(cross_end, CROSS_FAILED);
}

#define fail_msg(...)                                                                                        \
    do {                                                                                                     \
        (void)fprintf(stderr, __VA_ARGS__);                                                                  \
        cross_fail(__FILE__, __LINE__, " <- failed");                                                        \
    } while (0)
#define skip()             longjmp(cross_end, CROSS_SKIPPED)
#define print_message(...) ((void)printf(__VA_ARGS__))
#define assert_true(x)     ((x) ? (void)0 : cross_fail(__FILE__, __LINE__, #x))
#define assert_false(x)    ((x) ? cross_fail(__FILE__, __LINE__, "not: " #x) : (void)0)
#define assert_null(x)     assert_true((x) == NULL)
#define assert_non_null(x) assert_true((x) != NULL)
#define assert_int_equal(a, b)                                                                               \
    ((long long)(a) == (long long)(b) ? (void)0 : cross_fail(__FILE__, __LINE__, #a " == " #b))
#define assert_string_equal(a, b) (strcmp(a, b) == 0 ? (void)0 : cross_fail(__FILE__, __LINE__, #a " is " #b))
#define assert_memory_equal(a, b, size)                                                                      \
    (memcmp(a, b, size) == 0 ? (void)0 : cross_fail(__FILE__, __LINE__, "bytes of " #a " are those of " #b))

static inline int cross_run_one(const struct CMUnitTest *test)
{
    void *state = NULL;
    int end = setjmp(cross_end);
    if (end == 0) test->run(&state);
    return end;
}

static inline int cross_run(const char *group, const struct CMUnitTest *tests, size_t count)
{
    const char *const ends[] = {"ok", "FAILED", "skipped"};
    int failed = 0;
    for (size_t i = 0; i < count; i++) {
        int end = cross_run_one(&tests[i]);
        failed += end == CROSS_FAILED;
        (void)printf("%s: %s: %s\n", group, tests[i].name, ends[end]);
    }
    return failed;
}
#define cmocka_run_group_tests_name(group, tests, setup, teardown)                                           \
    cross_run(group, tests, sizeof(tests) / sizeof *(tests))
#define cmocka_run_group_tests(tests, setup, teardown)                                                       \
    cmocka_run_group_tests_name(#tests, tests, setup, teardown)

#endif
