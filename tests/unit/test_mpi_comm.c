/* The context over ranks: layout, one verdict, reductions; counted messages in pieces; the chain.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#    define _GNU_SOURCE /* sched.h's sets of cores */
#endif
#include "mpi_case.h"

#include "comm/chain.h"
#include "comm/cores.h"
#include "comm/rows.h"

#include <sched.h>

static lsp_context *ctx;

/* ---- the context --------------------------------------------------------------------------------- */

static void layout_is_that_of_the_communicator(void **state)
{
    (void)state;
    MPI_Comm reversed;
    assert_int_equal(MPI_Comm_split(MPI_COMM_WORLD, 0, -rank, &reversed), MPI_SUCCESS);
    lsp_context *other = NULL;
    lsp_context_options options = {.threads = rank == 0 ? 2 : 1};
    char message[200] = "untouched";
    assert_int_equal(lsp_context_create(reversed, &options, &other, message, sizeof message), LSP_OK);
    assert_string_equal(message, "untouched");
    assert_int_equal(MPI_Comm_free(&reversed), MPI_SUCCESS); /* the context has its own */
    lsp_context_layout at = lsp_context_get_layout(other);
    assert_int_equal(at.rank, ranks - 1 - rank);
    assert_int_equal(at.ranks, ranks);
    assert_int_equal(at.nodes, 1); /* these tests run on one machine */
    assert_int_equal(at.node, 0);
    assert_int_equal(at.node_rank, at.rank);
    assert_int_equal(at.node_ranks, ranks);
    assert_int_equal(at.threads, rank == 0 ? 2 : 1);
    assert_int_equal(at.threads_node, ranks + 1);
    assert_true(at.cores_node >= 1);
    assert_int_equal(lsp_context_barrier(other), LSP_OK);
    assert_int_equal(lsp_context_destroy(&other), LSP_OK);
    assert_null(other);
    assert_int_equal(lsp_context_destroy(&other), LSP_OK);
    assert_true(lsp_context_get_layout(ctx).threads >= 1);
}

/* The room for the set grows from nothing to what the kernel has. */
static void cores_are_found_for_any_number_of_them(void **state)
{
    (void)state;
    unsigned char *set = NULL;
    size_t bytes = 0;
    cpu_set_t known;
    CPU_ZERO(&known);
    assert_int_equal(lsp_cores_affinity(0, &set, &bytes), 0);
    assert_true(bytes >= sizeof(long));
    int most = (int)(8 * bytes), mine, sharers, node;
    if (sched_getaffinity(0, sizeof known, &known) == 0)
        for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
            assert_int_equal(CPU_ISSET((size_t)cpu, &known) != 0,
                             cpu < most && (set[cpu / 8] >> cpu % 8 & 1) != 0);
    lsp_memory_free(set);
    assert_int_equal(lsp_cores_count(ctx, &mine, &sharers, &node), LSP_OK);
    assert_true(mine >= 1 && node >= mine && sharers >= 1 && sharers <= ranks);
}

static void threads_below_zero_on_one_rank_are_refused_on_all(void **state)
{
    (void)state;
    lsp_context_options options = {.threads = rank == ranks - 1 ? -3 : 1};
    lsp_context *other = ctx;
    char message[200] = "";
    int64_t before = lsp_memory_now();
    assert_int_equal(lsp_context_create(MPI_COMM_WORLD, &options, &other, message, sizeof message),
                     LSP_ERR_USAGE);
    assert_null(other);
    assert_non_null(strstr(message, "-3"));
    assert_true(lsp_memory_now() == before);
}

/* Ranks [from, to) fail with code; the verdict is that of rank `teller` on every rank. */
typedef struct failure {
    int from, to;
    lsp_status code;
} failure;

static void check_verdict(failure first, failure second, lsp_status expected, int teller)
{
    lsp_status mine = LSP_OK;
    if (rank >= first.from && rank < first.to) mine = first.code;
    if (rank >= second.from && rank < second.to) mine = second.code;
    if (mine != LSP_OK)
        assert_int_equal(lsp_context_fail(ctx, mine, "rank %d has %s", rank, lsp_status_name(mine)), mine);
    assert_int_equal(lsp_context_agree(ctx, mine), expected);
    char text[100];
    (void)snprintf(text, sizeof text, "rank %d has %s", teller, lsp_status_name(expected));
    assert_string_equal(lsp_context_message(ctx), text);
    assert_int_equal(lsp_context_failed_rank(ctx), teller);
}

static void verdict_is_the_worst_code_of_the_lowest_rank(void **state)
{
    (void)state;
    const failure none = {0, 0, LSP_OK};
    check_verdict((failure){ranks - 1, ranks, LSP_ERR_FILE}, none, LSP_ERR_FILE, ranks - 1);
    check_verdict((failure){0, ranks, LSP_ERR_USAGE}, none, LSP_ERR_USAGE, 0);
    check_verdict((failure){ranks / 2, ranks, LSP_ERR_LIMIT}, none, LSP_ERR_LIMIT, ranks / 2);
    if (ranks > 1) /* rank 0 has a lesser failure */
        check_verdict((failure){0, 1, LSP_ERR_CONTENT}, (failure){1, ranks, LSP_ERR_FILE}, LSP_ERR_FILE, 1);
    assert_int_equal(lsp_context_agree(ctx, LSP_OK), LSP_OK);
    check_verdict((failure){0, 1, LSP_INTERRUPTED}, none, LSP_INTERRUPTED, 0);
}

static void nobody_waits_after_a_rank_was_lost(void **state)
{
    (void)state;
    lsp_context *other = NULL;
    char message[200] = "";
    assert_int_equal(lsp_context_create(MPI_COMM_WORLD, NULL, &other, message, sizeof message), LSP_OK);
    assert_int_equal(lsp_context_fail(other, LSP_ERR_RANK, "a node is gone"), LSP_ERR_RANK);
    if (rank == 0)
        assert_int_equal(lsp_context_agree(other, LSP_OK), LSP_ERR_RANK); /* others need not come */
    assert_string_equal(lsp_context_message(other), "a node is gone");
    assert_int_equal(lsp_context_destroy(&other), LSP_OK);
}

static void reductions_cover_all_ranks(void **state)
{
    (void)state;
    double real[2] = {rank, -rank};
    assert_int_equal(lsp_context_sum_f64(ctx, real, 2), LSP_OK);
    assert_true(real[0] == ranks * (ranks - 1) / 2.0 && real[1] == -real[0]);
    real[0] = rank;
    assert_int_equal(lsp_context_max_f64(ctx, real, 1), LSP_OK);
    assert_true(real[0] == ranks - 1);
    real[0] = rank + 5;
    assert_int_equal(lsp_context_min_f64(ctx, real, 1), LSP_OK);
    assert_true(real[0] == 5);
    const int64_t large = (int64_t)1 << 60;
    int64_t whole = large + rank;
    assert_int_equal(lsp_context_max_i64(ctx, &whole, 1), LSP_OK);
    assert_true(whole == large + ranks - 1);
    whole = -large - rank;
    assert_int_equal(lsp_context_min_i64(ctx, &whole, 1), LSP_OK);
    assert_true(whole == -large - ranks + 1);
    whole = large / 8;
    assert_int_equal(lsp_context_sum_i64(ctx, &whole, 1), LSP_OK);
    assert_true(whole == large / 8 * ranks);
    uint64_t word = UINT64_MAX; /* -1 modulo 2^64 */
    assert_int_equal(lsp_context_sum_u64(ctx, &word, 1), LSP_OK);
    assert_true(word == (uint64_t)0 - (uint64_t)ranks);
    assert_int_equal(lsp_context_sum_u64(ctx, &word, 0), LSP_OK);
    assert_int_equal(lsp_context_sum_u64(ctx, &word, 100000), LSP_ERR_USAGE);
    assert_int_equal(lsp_context_sum_u64(ctx, &word, -1), LSP_ERR_USAGE);
}

/* ---- counted messages ---------------------------------------------------------------------------- */

enum { MOST = 5000 };
static const int64_t limits[] = {0, 7, 100, 1}, sizes[] = {0, 1, 6, 7, 8, 99, 100, 101, 1000};
enum { LIMITS = sizeof limits / sizeof *limits, SIZES = sizeof sizes / sizeof *sizes };

static unsigned char byte_of(int source, int64_t at)
{
    return (unsigned char)(source * 37 + at * 11 + at / 251);
}

static void fill(unsigned char *data, int source, int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i++) data[i] = byte_of(source, i);
}

/* The first `bytes` of data come from `source`, the rest was left alone. */
static void expect_from(const unsigned char *data, int source, int64_t bytes, int64_t room)
{
    for (int64_t i = 0; i < bytes; i++)
        if (data[i] != byte_of(source, i)) fail_msg("byte %d of %d is wrong", (int)i, (int)bytes);
    for (int64_t i = bytes; i < room; i++) assert_int_equal(data[i], 0xA5);
}

static void pieces_are_counted(void **state)
{
    (void)state;
    int64_t before = lsp_rows_set_limit(7);
    assert_true(before == INT32_MAX);
    assert_int_equal(lsp_rows_pieces(0), 0);
    assert_int_equal(lsp_rows_pieces(7), 1);
    assert_int_equal(lsp_rows_pieces(8), 2);
    assert_int_equal(lsp_rows_set_limit(0), 7);
    assert_int_equal(lsp_rows_pieces(INT32_MAX), 1);
    assert_int_equal(lsp_rows_pieces((int64_t)INT32_MAX + 1), 2);
}

static void broadcasts_cross_the_limit(void **state)
{
    (void)state;
    unsigned char data[1100];
    MPI_Request requests[1100];
    for (int l = 0; l < LIMITS; l++)
        for (int s = 0; s < SIZES; s++)
            for (int root = 0; root < ranks; root += 2) {
                lsp_rows_set_limit(limits[l]);
                for (int blocking = 0; blocking < 2; blocking++) {
                    memset(data, 0xA5, sizeof data);
                    if (rank == root) fill(data, root, sizes[s]);
                    if (blocking) {
                        assert_int_equal(lsp_rows_bcast(data, sizes[s], root, ctx->comm), MPI_SUCCESS);
                    } else {
                        assert_int_equal(lsp_rows_ibcast(data, sizes[s], root, ctx->comm, requests),
                                         MPI_SUCCESS);
                        MPI_Waitall(lsp_rows_pieces(sizes[s]), requests, MPI_STATUSES_IGNORE);
                    }
                    expect_from(data, root, sizes[s], sizeof data);
                }
                memset(data, 0xA5, sizeof data);
                if (rank == root) fill(data, root, sizes[s]);
                assert_int_equal(lsp_context_broadcast(ctx, root, data, sizes[s]), LSP_OK);
                expect_from(data, root, sizes[s], sizeof data);
            }
    lsp_rows_set_limit(0);
}

static void messages_cross_the_limit(void **state)
{
    (void)state;
    unsigned char out[1100], in[1100];
    MPI_Request requests[2200];
    int to = (rank + 1) % ranks, from = (rank + ranks - 1) % ranks;
    for (int l = 0; l < LIMITS; l++)
        for (int s = 0; s < SIZES; s++) {
            lsp_rows_set_limit(limits[l]);
            memset(in, 0xA5, sizeof in);
            fill(out, rank, sizes[s]);
            int pieces = lsp_rows_pieces(sizes[s]);
            assert_int_equal(lsp_rows_irecv(in, sizes[s], from, 3, ctx->comm, requests), MPI_SUCCESS);
            assert_int_equal(lsp_rows_isend(out, sizes[s], to, 3, ctx->comm, requests + pieces), MPI_SUCCESS);
            MPI_Waitall(2 * pieces, requests, MPI_STATUSES_IGNORE);
            expect_from(in, from, sizes[s], sizeof in);
        }
    lsp_rows_set_limit(0);
}

/* Rank r has (5 r) % 7 rows: some have none. */
static void check_allgather(int64_t row_bytes, bool in_place)
{
    unsigned char mine[7 * 30], all[MOST];
    int64_t counts[64], first[64], total = 0;
    int room[128];
    assert_true(ranks <= 64);
    for (int r = 0; r < ranks; r++) {
        counts[r] = r * 5 % 7 + (ranks == 1);
        first[r] = total;
        total += counts[r];
    }
    memset(all, 0xA5, sizeof all);
    unsigned char *own = in_place ? all + first[rank] * row_bytes : mine;
    fill(own, rank, counts[rank] * row_bytes);
    assert_int_equal(lsp_rows_allgather(own, all, counts, first, row_bytes, room, ctx->comm), MPI_SUCCESS);
    for (int r = 0; r < ranks; r++) expect_from(all + first[r] * row_bytes, r, counts[r] * row_bytes, 0);
    expect_from(all + total * row_bytes, 0, 0, 100);
}

static void allgathers_cross_the_limit(void **state)
{
    (void)state;
    for (int l = 0; l < LIMITS; l++)
        for (int64_t row_bytes = 1; row_bytes <= 29; row_bytes += 7) {
            lsp_rows_set_limit(limits[l]);
            check_allgather(row_bytes, false);
            check_allgather(row_bytes, true);
        }
    lsp_rows_set_limit(0);
}

/* ---- the chain ----------------------------------------------------------------------------------- */

/* From rank `first` in steps of `step` around, over `members` ranks, twice with one chain. */
static void check_chain(int first, int step, int members, int64_t bytes, lsp_chain *chain)
{
    unsigned char *data = lsp_memory_alloc(bytes + 16, 1);
    assert_non_null(data);
    int previous = -1, next = -1, place = -1, last = -1;
    for (int i = 0, r = first; i < members; i++, r = (r + step) % ranks) {
        if (place >= 0 && next < 0) next = r;
        if (r == rank) {
            place = i;
            previous = last;
        }
        last = r;
    }
    memset(data, 0xA5, (size_t)bytes + 16);
    if (place == 0) fill(data, first, bytes);
    if (place >= 0) {
        assert_int_equal(lsp_chain_reserve(chain, bytes), MPI_SUCCESS);
        assert_int_equal(lsp_chain_start(chain, data, bytes, previous, next, 5, ctx->comm), MPI_SUCCESS);
        while (!lsp_chain_idle(chain)) {
            assert_int_equal(lsp_chain_progress(chain), MPI_SUCCESS);
            sched_yield();
        }
        assert_true(lsp_chain_arrived(chain));
        expect_from(data, first, bytes, bytes + 16);
    } else {
        expect_from(data, first, 0, bytes + 16);
    }
    lsp_memory_free(data);
}

static void chains_pass_everything_on(void **state)
{
    (void)state;
    const int64_t bytes[] = {0, 1, 99, 1000, 700000}, few[] = {7, 100, 0, 999, 0};
    lsp_chain chain = {0};
    for (int s = 0; s < 5; s++)
        for (int repeat = 0; repeat < 2; repeat++) {
            lsp_rows_set_limit(few[s]);
            check_chain(0, 1, ranks, bytes[s], &chain);
            check_chain(ranks - 1, ranks > 1 ? ranks - 1 : 1, ranks, bytes[s], &chain);
            check_chain(ranks / 2, 1, (ranks + 1) / 2, bytes[s], &chain);
        }
    lsp_rows_set_limit(0);
    assert_true(lsp_chain_segment_bytes() > 10000);
    lsp_chain_free(&chain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layout_is_that_of_the_communicator),
        cmocka_unit_test(cores_are_found_for_any_number_of_them),
        cmocka_unit_test(threads_below_zero_on_one_rank_are_refused_on_all),
        cmocka_unit_test(verdict_is_the_worst_code_of_the_lowest_rank),
        cmocka_unit_test(nobody_waits_after_a_rank_was_lost),
        cmocka_unit_test(reductions_cover_all_ranks),
        cmocka_unit_test(pieces_are_counted),
        cmocka_unit_test(broadcasts_cross_the_limit),
        cmocka_unit_test(messages_cross_the_limit),
        cmocka_unit_test(allgathers_cross_the_limit),
        cmocka_unit_test(chains_pass_everything_on),
    };
    const test_context contexts[] = {{&ctx, 0, false}};
    return RUN_OVER_RANKS("comm", tests, contexts, NULL, NULL);
}
