/* What tests over ranks share: cmocka, descriptions to begin with, contexts, and main.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_TEST_MPI_CASE_H
#define LSP_TEST_MPI_CASE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory.h"
#include "comm/context.h"

#include <longspan/attention.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int rank __attribute__((unused)), ranks __attribute__((unused)); /* of MPI_COMM_WORLD */

/* Zeros, and one element more than asked for. */
static inline void *case_alloc(int64_t count, size_t size)
{
    void *pointer = calloc((size_t)count + 1, size);
    assert_non_null(pointer);
    return pointer;
}

/* ---- descriptions ---------------------------------------------------------------------------------- */

/* One head, without a mask, in f32. */
static inline lsp_attention_desc plain(int64_t n, int64_t m, int64_t d_k, int64_t d_v)
{
    return (lsp_attention_desc){.batch = 1,
                                .heads = 1,
                                .kv_heads = 1,
                                .n = n,
                                .m = m,
                                .d_k = d_k,
                                .d_v = d_v,
                                .q_type = LSP_F32,
                                .k_type = LSP_F32,
                                .v_type = LSP_F32,
                                .compute = LSP_F32};
}

/* Two batches of four heads that share two of k and v. */
static inline lsp_attention_desc grouped(int64_t n, int64_t m, int64_t d_k, int64_t d_v)
{
    lsp_attention_desc d = plain(n, m, d_k, d_v);
    d.batch = d.kv_heads = 2;
    d.heads = 4;
    return d;
}

static inline lsp_attention_desc in_double(lsp_attention_desc d)
{
    d.q_type = d.k_type = d.v_type = d.compute = LSP_F64;
    return d;
}

/* ---- main ------------------------------------------------------------------------------------------ */

enum { TWO_IF_ALONE = -1 }; /* threads, where there is one rank; else one */

typedef struct test_context {
    lsp_context **place;
    int threads;
    bool alone; /* of every rank by itself */
} test_context;

static inline int run_over_ranks(const char *name, const struct CMUnitTest *tests, size_t count,
                                 const test_context *contexts, size_t context_count, CMFixtureFunction set_up,
                                 CMFixtureFunction tear_down)
{
    /* cmocka stops the program at the first failure: ranks that wait for this one would hang. */
    (void)setenv("CMOCKA_TEST_ABORT", "1", 1);
    int provided = 0, failed = 0;
    MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    for (size_t i = 0; i < context_count; i++) {
        const test_context *c = &contexts[i];
        char text[512] = "";
        lsp_context_options options = {.threads = c->threads};
        if (c->threads == TWO_IF_ALONE) options.threads = ranks == 1 ? 2 : 1;
        if (lsp_context_create(c->alone ? MPI_COMM_SELF : MPI_COMM_WORLD, &options, c->place, text,
                               sizeof text) != LSP_OK) {
            print_error("%s\n", text);
            failed++;
        }
    }
    if (failed == 0) failed = _cmocka_run_group_tests(name, tests, count, set_up, tear_down);
    for (size_t i = 0; i < context_count; i++) lsp_context_destroy(contexts[i].place);
    if (lsp_memory_now() != 0) {
        print_error("%lld bytes were not given back\n", (long long)lsp_memory_now());
        failed++;
    }
    if (failed != 0) MPI_Abort(MPI_COMM_WORLD, 1);
    MPI_Finalize();
    return 0;
}

/* tests and contexts: arrays. set_up and tear_down (NULL: none) find the contexts made. */
#define RUN_OVER_RANKS(name, tests, contexts, set_up, tear_down)                                             \
    run_over_ranks(name, tests, sizeof(tests) / sizeof *(tests), contexts,                                   \
                   sizeof(contexts) / sizeof *(contexts), set_up, tear_down)

#endif
