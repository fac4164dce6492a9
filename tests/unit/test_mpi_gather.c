/* Every gather mode delivers the right bytes of the right panels in global order.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "mpi_case.h"

#include "comm/gather_mode.h"
#include "comm/rows.h"

#include <unistd.h>

enum { ROWS_MOST = 61, RANKS_MOST = 64, PANELS_MOST = 1000 };

static lsp_context *ctx;

/* ---- a sequence of keys and its panels ----------------------------------------------------------- */

typedef enum need { EVERYBODY, NOBODY, SOMEBODY, LAST_RANK, NEIGHBOURS, NEEDS } need;

typedef struct sequence {
    int rank, ranks; /* in the group */
    int64_t owned_first[RANKS_MOST + 1];
    lsp_panel_spec panels[PANELS_MOST];
    int64_t panel_count;
    int64_t k_row, v_row; /* bytes */
    need need;
    int salt; /* groups and passes have bytes of their own */
} sequence;

static bool needed(const void *user, int64_t panel, int r)
{
    const sequence *s = user;
    switch (s->need) {
    case EVERYBODY: return true;
    case NOBODY: return false;
    case LAST_RANK: return r == s->ranks - 1;
    case NEIGHBOURS: return abs(s->panels[panel].owner - r) <= 1;
    case SOMEBODY:
    case NEEDS: break;
    }
    return (panel * 7 + r * 13 + panel * r) % 3 == 0;
}

/* Ownership 0: even; 1: rank r has 9 (r % 3) rows; 2: the last rank has all; 3: all but the first have few. */
static int64_t rows_of(int ownership, int r, int size)
{
    switch (ownership) {
    case 0: return 17;
    case 1: return size == 1 ? 9 : 9 * ((r + 1) % 3);
    case 2: return r == size - 1 ? ROWS_MOST : 0;
    default: return r == 0 ? 40 : 1;
    }
}

static void lay_out(sequence *s, int ownership, int64_t panel_rows)
{
    s->panel_count = 0;
    s->owned_first[0] = 0;
    for (int r = 0; r < s->ranks; r++) {
        int64_t end = s->owned_first[r] + rows_of(ownership, r, s->ranks);
        for (int64_t at = s->owned_first[r]; at < end; at += panel_rows) {
            int64_t count = at + panel_rows < end ? panel_rows : end - at;
            assert_true(s->panel_count < PANELS_MOST);
            s->panels[s->panel_count++] = (lsp_panel_spec){at, count, r};
        }
        s->owned_first[r + 1] = end;
    }
}

/* Byte `byte` of key row `row` of K (which = 0) or V (which = 1). */
static unsigned char byte_of(const sequence *s, int64_t row, int64_t byte, int which)
{
    uint64_t x = (uint64_t)(row * 40503 + byte * 97 + which * 7919 + s->salt * 104729) * 2654435761u;
    return (unsigned char)(x >> 24);
}

static void fill(const sequence *s, unsigned char *data, int64_t row_bytes, int which)
{
    int64_t first = s->owned_first[s->rank], rows = s->owned_first[s->rank + 1] - first;
    for (int64_t i = 0; i < rows * row_bytes; i++)
        data[i] = byte_of(s, first + i / row_bytes, i % row_bytes, which);
}

static int wrong_bytes(const sequence *s, const lsp_panel_spec *spec, const void *data, int64_t row_bytes,
                       int which)
{
    const unsigned char *byte = data;
    int wrong = 0;
    for (int64_t i = 0; i < spec->count * row_bytes; i++)
        wrong += byte[i] != byte_of(s, spec->first + i / row_bytes, i % row_bytes, which);
    return wrong;
}

/* ---- a pass -------------------------------------------------------------------------------------- */

/* Walks all panels; a slow rank comes late and takes its time over each. */
static void check_pass(lsp_gather *g, const sequence *s, bool slow)
{
    int64_t rows = s->owned_first[s->rank + 1] - s->owned_first[s->rank], whole = s->owned_first[s->ranks];
    unsigned char *k = lsp_memory_alloc(rows, (size_t)s->k_row);
    unsigned char *v = lsp_memory_alloc(rows, (size_t)s->v_row);
    assert_true(k && v);
    fill(s, k, s->k_row, 0);
    fill(s, v, s->v_row, 1);
    if (slow) usleep(2000);
    assert_int_equal(lsp_gather_start(g, k, v), LSP_OK);
    lsp_panel panel;
    lsp_status status;
    int64_t expected = 0;
    double received = 0;
    while (lsp_gather_next(g, &panel, &status)) {
        while (expected < s->panel_count && !needed(s, expected, s->rank)) expected++;
        assert_int_equal(panel.index, expected);
        const lsp_panel_spec *spec = &s->panels[expected++];
        assert_int_equal(panel.own, spec->owner == s->rank);
        if (!panel.own) received += (double)(spec->count * (s->k_row + s->v_row));
        assert_int_equal(wrong_bytes(s, spec, panel.k, s->k_row, 0), 0);
        for (int i = 0; i < 3; i++) lsp_gather_progress(g);
        if (slow) usleep(300);
        for (int i = 0; i < 3; i++) lsp_gather_progress(g);
        assert_int_equal(wrong_bytes(s, spec, panel.k, s->k_row, 0), 0);
        assert_int_equal(wrong_bytes(s, spec, panel.v, s->v_row, 1), 0);
        lsp_gather_release(g);
    }
    assert_int_equal(status, LSP_OK);
    while (expected < s->panel_count && !needed(s, expected, s->rank)) expected++;
    assert_int_equal(expected, s->panel_count);
    assert_int_equal(lsp_gather_finish(g), LSP_OK);
    /* The rows are the caller's again: nobody may still read them. */
    memset(k, 0xEE, (size_t)(rows * s->k_row));
    memset(v, 0xEE, (size_t)(rows * s->v_row));
    lsp_memory_free(k);
    lsp_memory_free(v);
    if (g->desc.mode == LSP_GATHER_ALL) /* which brings everything */
        received = (double)((whole - rows) * (s->k_row + s->v_row));
    assert_true(lsp_gather_bytes_received(g) == received);
    assert_true(lsp_gather_seconds_waited(g) >= 0);
}

static lsp_gather_desc describe(const sequence *s, lsp_gather_mode mode)
{
    return (lsp_gather_desc){.mode = mode,
                             .panels = s->panels,
                             .panel_count = s->panel_count,
                             .owned_first = s->owned_first,
                             .k_row_bytes = s->k_row,
                             .v_row_bytes = s->v_row,
                             .needed = needed,
                             .needed_user = s};
}

/* Passes over one gather; in pass p rank ranks - p is slow. */
static void check_gather(int group, sequence *s, lsp_gather_mode mode, int passes)
{
    int64_t before = lsp_memory_now();
    lsp_gather *g = NULL;
    lsp_gather_desc desc = describe(s, mode);
    assert_int_equal(lsp_gather_create(ctx, group, &desc, &g), LSP_OK);
    for (int pass = 0; pass < passes; pass++) {
        s->salt++;
        check_pass(g, s, pass > 0 && (s->rank + pass) % s->ranks == 0);
    }
    lsp_gather_destroy(&g);
    assert_null(g);
    assert_true(lsp_memory_now() == before);
}

/* ---- tests --------------------------------------------------------------------------------------- */

static void check_mode(lsp_gather_mode mode)
{
    static sequence s = {.k_row = 24, .v_row = 10};
    s.rank = rank;
    s.ranks = ranks;
    for (int ownership = 0; ownership < 4; ownership++)
        for (int n = 0; n < NEEDS; n++) {
            s.need = (need)n;
            lay_out(&s, ownership, 4);
            check_gather(0, &s, mode, 2);
        }
}

static void check_mode_with_limit(lsp_gather_mode mode)
{
    check_mode(mode);
    static sequence s = {.k_row = 24, .v_row = 10};
    s.rank = rank;
    s.ranks = ranks;
    const int64_t limits[] = {7, 100};
    for (int l = 0; l < 2; l++)
        for (int ownership = 0; ownership < 2; ownership++)
            for (int everybody = 0; everybody < 2; everybody++) {
                lsp_rows_set_limit(limits[l]);
                s.need = everybody ? EVERYBODY : SOMEBODY;
                lay_out(&s, ownership, 5);
                check_gather(0, &s, mode, 2);
            }
    lsp_rows_set_limit(0);
}

static void mode_panels(void **state)
{
    (void)state;
    check_mode_with_limit(LSP_GATHER_PANELS);
}

static void mode_all(void **state)
{
    (void)state;
    check_mode_with_limit(LSP_GATHER_ALL);
}

static void mode_chain(void **state)
{
    (void)state;
    check_mode_with_limit(LSP_GATHER_CHAIN);
}

static void mode_node(void **state)
{
    (void)state;
    check_mode_with_limit(LSP_GATHER_NODE);
}

/* Nodes of one and of two ranks: panels pass between leaders, and nodes without need are left out. */
static void mode_node_with_several_nodes(void **state)
{
    (void)state;
    for (int node_ranks = 1; node_ranks <= 2 && node_ranks < ranks; node_ranks++) {
        assert_int_equal(lsp_gather_node_set_ranks(node_ranks), 0);
        check_mode_with_limit(LSP_GATHER_NODE);
        assert_int_equal(lsp_gather_node_set_ranks(0), node_ranks);
    }
    if (ranks > 3) {
        lsp_gather_node_set_ranks(3);
        check_mode(LSP_GATHER_NODE);
        lsp_gather_node_set_ranks(0);
    }
}

static const lsp_gather_mode modes[] = {LSP_GATHER_PANELS, LSP_GATHER_ALL, LSP_GATHER_NODE, LSP_GATHER_CHAIN};

/* Each rank is slow once, over many panels of one row: the others run as far ahead as they may. */
static void a_slow_rank_gets_everything(void **state)
{
    (void)state;
    static sequence s = {.k_row = 24, .v_row = 10};
    s.rank = rank;
    s.ranks = ranks;
    for (int m = 0; m < 4; m++)
        for (int everybody = 0; everybody < 2; everybody++) {
            s.need = everybody ? EVERYBODY : SOMEBODY;
            lay_out(&s, 1, 1);
            check_gather(0, &s, modes[m], 1 + ranks);
        }
}

/* Panels too large for MPI to take at once: an owner has to keep them until they are sent. */
static void large_panels_stay_until_they_are_sent(void **state)
{
    (void)state;
    static sequence s = {.k_row = 24, .v_row = 50000};
    s.rank = rank;
    s.ranks = ranks;
    for (int m = 0; m < 4; m++)
        for (int everybody = 0; everybody < 2; everybody++) {
            s.need = everybody ? EVERYBODY : SOMEBODY;
            lay_out(&s, 3, 6);
            check_gather(0, &s, modes[m], 3);
        }
}

/* Two groups with different sequences, at the same time: even ranks and odd ranks. */
static void groups_do_not_mix(void **state)
{
    (void)state;
    static sequence s = {.k_row = 24, .v_row = 10};
    MPI_Comm group;
    assert_int_equal(MPI_Comm_split(MPI_COMM_WORLD, rank % 2, rank, &group), MPI_SUCCESS);
    MPI_Comm_rank(group, &s.rank);
    MPI_Comm_size(group, &s.ranks);
    for (int m = 0; m < 4; m++) {
        s.need = rank % 2 ? EVERYBODY : SOMEBODY;
        s.salt = rank % 2 * 1000;
        lay_out(&s, rank % 2, 3 + rank % 2);
        check_gather(rank % 2, &s, modes[m], 2);
    }
    MPI_Comm_free(&group);
}

/* A group may have no keys at all, while the other has. */
static void a_sequence_without_keys_ends_at_once(void **state)
{
    (void)state;
    static sequence s = {.k_row = 24, .v_row = 10};
    s.rank = rank;
    s.ranks = ranks;
    s.panel_count = 0;
    memset(s.owned_first, 0, sizeof s.owned_first);
    for (int m = 0; m < 4; m++) check_gather(0, &s, modes[m], 2);
}

static void buffers_are_as_told(void **state)
{
    (void)state;
    static sequence s = {.k_row = 24, .v_row = 10};
    s.rank = rank;
    s.ranks = ranks;
    s.need = EVERYBODY;
    lay_out(&s, 0, 8);
    for (int m = 0; m < 4; m++) {
        lsp_gather_desc desc = describe(&s, modes[m]);
        int64_t told = lsp_gather_bytes(&desc, ranks, rank, ranks), before = lsp_memory_now();
        int64_t rows = modes[m] == LSP_GATHER_ALL ? 17 * ranks : 3 * 8;
        bool holds = ranks > 1 && (modes[m] != LSP_GATHER_NODE || rank == 0);
        assert_int_equal(told, holds ? rows * (s.k_row + s.v_row) : 0);
        lsp_gather *g = NULL;
        assert_int_equal(lsp_gather_create(ctx, 0, &desc, &g), LSP_OK);
        int64_t taken = lsp_memory_now() - before;
        if (modes[m] == LSP_GATHER_NODE) told = 0; /* in the shared window */
        assert_true(taken >= told && taken < told + 8192);
        lsp_gather_destroy(&g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mode_panels),
        cmocka_unit_test(mode_all),
        cmocka_unit_test(mode_chain),
        cmocka_unit_test(mode_node),
        cmocka_unit_test(mode_node_with_several_nodes),
        cmocka_unit_test(a_slow_rank_gets_everything),
        cmocka_unit_test(large_panels_stay_until_they_are_sent),
        cmocka_unit_test(groups_do_not_mix),
        cmocka_unit_test(a_sequence_without_keys_ends_at_once),
        cmocka_unit_test(buffers_are_as_told),
    };
    const test_context contexts[] = {{&ctx, 0, false}};
    return RUN_OVER_RANKS("gather", tests, contexts, NULL, NULL);
}
