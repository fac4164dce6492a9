/* Rows brought from one distribution to another. SPDX-License-Identifier: BSD-3-Clause */
#include "mpi_case.h"

#include "base/random.h"
#include "comm/exchange.h"
#include "comm/rows.h"

enum { BATCHES = 2, HEADS = 3, RUNS_MOST = 4096 };

static lsp_context *ctx;

typedef struct deal {
    lsp_run runs[RUNS_MOST];
    int64_t count, rows;
} deal;

static void add(deal *d, int64_t batch, int64_t head, int64_t begin, int64_t count)
{
    if (count <= 0) return;
    assert_true(d->count < RUNS_MOST);
    d->runs[d->count++] = (lsp_run){batch, head, begin, count};
    d->rows += count;
}

/* Ways to deal n rows of every head: in equal shares; in blocks of 3 dealt round, heads from the last to the first; all
 * to one rank; whole heads. */
enum { EQUAL, ROUND, ONE, WHOLE, WAYS };

static deal make_deal(int way, int64_t n)
{
    static deal d;
    d.count = d.rows = 0;
    int64_t turn = 0;
    for (int64_t b = 0; b < BATCHES; b++)
        for (int64_t h = 0; h < HEADS; h++) {
            if (way == EQUAL) add(&d, b, h, n * rank / ranks, n * (rank + 1) / ranks - n * rank / ranks);
            if (way == ONE && rank == ranks / 2) add(&d, b, h, 0, n);
            if (way == WHOLE && (b * HEADS + h) % ranks == rank) add(&d, b, h, 0, n);
            for (int64_t i = 0; way == ROUND && i < n; i += 3)
                if (turn++ % ranks == rank) add(&d, BATCHES - 1 - b, HEADS - 1 - h, i, i + 3 < n ? 3 : n - i);
        }
    return d;
}

/* Every row tells which it is. */
static void fill(const deal *d, int64_t width, int32_t *array)
{
    for (int64_t r = 0; r < d->count; r++)
        for (int64_t i = 0; i < d->runs[r].count; i++)
            for (int64_t c = 0; c < width; c++)
                *array++ =
                    (int32_t)(((d->runs[r].batch * HEADS + d->runs[r].head) * 1000 + d->runs[r].begin + i) *
                                  100 +
                              c);
}

static bool holds_the_same(const deal *a, const deal *b)
{
    return a->count == b->count && memcmp(a->runs, b->runs, (size_t)a->count * sizeof *a->runs) == 0;
}

static void check(int from_way, int to_way, int64_t n, int64_t width)
{
    deal from = make_deal(from_way, n), to = make_deal(to_way, n);
    size_t bytes = (size_t)(width * (to.rows + 1)) * sizeof(int32_t);
    int32_t *held = calloc((size_t)(width * (from.rows + 1)), sizeof *held), *wanted = malloc(bytes),
            *got = malloc(bytes);
    assert_true(held && wanted && got);
    memset(got, 0x55, bytes);
    memset(wanted, 0x55, bytes);
    fill(&from, width, held);
    fill(&to, width, wanted);
    lsp_exchange *way = NULL;
    assert_int_equal(lsp_exchange_create(ctx, from.runs, from.count, to.runs, to.count, &way), LSP_OK);
    int same = holds_the_same(&from, &to), all = 0;
    MPI_Allreduce(&same, &all, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    if (all) assert_true(lsp_exchange_is_none(way));
    if (lsp_exchange_is_none(way)) assert_memory_equal(held, wanted, bytes - (size_t)width * sizeof *got);
    assert_int_equal(lsp_exchange_rows(way, width * (int64_t)sizeof *got, held, got), LSP_OK);
    assert_memory_equal(got, wanted, bytes);
    lsp_exchange_destroy(&way);
    assert_null(way);
    free(held);
    free(wanted);
    free(got);
}

static void every_row_arrives(void **state)
{
    (void)state;
    static const int64_t lengths[] = {1, 2, 17, 100};
    for (int from = 0; from < WAYS; from++)
        for (int to = 0; to < WAYS; to++)
            for (int i = 0; i < 4; i++) check(from, to, lengths[i], 1 + 2 * i);
}

static void messages_in_pieces(void **state)
{
    (void)state;
    (void)lsp_rows_set_limit(7);
    check(EQUAL, ROUND, 53, 3);
    check(ROUND, WHOLE, 53, 1);
    (void)lsp_rows_set_limit(0);
}

/* Runs cut otherwise hold the same rows in the same places. */
static void cuts_do_not_matter(void **state)
{
    (void)state;
    deal whole = make_deal(EQUAL, 40), cut = {.count = 0};
    for (int64_t r = 0; r < whole.count; r++) {
        const lsp_run *run = &whole.runs[r];
        add(&cut, run->batch, run->head, run->begin, run->count / 2);
        add(&cut, run->batch, run->head, run->begin + run->count / 2, run->count - run->count / 2);
    }
    lsp_exchange *way = NULL;
    assert_int_equal(lsp_exchange_create(ctx, whole.runs, whole.count, cut.runs, cut.count, &way), LSP_OK);
    assert_true(lsp_exchange_is_none(way));
    lsp_exchange_destroy(&way);
}

static void several_may_want_a_row(void **state)
{
    (void)state;
    deal from = make_deal(EQUAL, 11);
    const lsp_run everything = {1, 2, 0, 11};
    int32_t held[BATCHES * HEADS * 11], got[11];
    fill(&from, 1, held);
    lsp_exchange *way = NULL;
    assert_int_equal(lsp_exchange_create(ctx, from.runs, from.count, &everything, 1, &way), LSP_OK);
    assert_false(lsp_exchange_is_none(way));
    assert_int_equal(lsp_exchange_rows(way, sizeof *got, held, got), LSP_OK);
    for (int i = 0; i < 11; i++) assert_int_equal(got[i], ((1 * HEADS + 2) * 1000 + i) * 100);
    lsp_exchange_destroy(&way);
}

static void a_row_that_nobody_holds_is_refused(void **state)
{
    (void)state;
    deal from = make_deal(EQUAL, 11), to = make_deal(ROUND, 11);
    if (rank == ranks - 1) add(&to, 0, 0, 11, 1);
    lsp_exchange *way = NULL;
    assert_int_equal(lsp_exchange_create(ctx, from.runs, from.count, to.runs, to.count, &way), LSP_ERR_USAGE);
    assert_null(way);
    assert_non_null(strstr(lsp_context_message(ctx), "must be held once"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_arrives),
        cmocka_unit_test(messages_in_pieces),
        cmocka_unit_test(cuts_do_not_matter),
        cmocka_unit_test(several_may_want_a_row),
        cmocka_unit_test(a_row_that_nobody_holds_is_refused),
    };
    const test_context contexts[] = {{&ctx, 1, false}};
    return RUN_OVER_RANKS("exchange", tests, contexts, NULL, NULL);
}
