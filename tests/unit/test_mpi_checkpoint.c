/* Executions that are stopped, saved and gone on with on other ranks, threads, gather modes and partitions end with the
 * bits of one that was never stopped. SPDX-License-Identifier: BSD-3-Clause */
#include "mpi_case.h"

#include "attention_case.h"
#include "comm/gather_mode.h"
#include "method/identity.h"

#include <longspan/checkpoint.h>
#include <unistd.h>

static lsp_context *one_thread, *two_threads, *few,
    *alone; /* few: about half of the ranks; NULL on the others */
static char file[64];

/* What a run does: saves at every save_every-th question, stops at the stop_at-th of rank `who`. */
typedef struct script {
    lsp_attention *plan;
    lsp_context *ctx;
    const char *file, *marks;
    int who, stop_at, save_every, asked, saved, failed;
    bool wants_save;
} script;

static lsp_want want(void *user)
{
    script *s = user;
    if (rank != s->who) return LSP_WANT_NOTHING;
    s->asked++;
    if (s->stop_at > 0 && s->asked >= s->stop_at) return LSP_WANT_STOP;
    if (s->save_every > 0 && s->saved < 2 && s->asked % s->save_every == 0) s->wants_save = true;
    return s->wants_save ? LSP_WANT_SAVE : LSP_WANT_NOTHING;
}

static lsp_status rest(void *user, lsp_want why)
{
    script *s = user;
    int64_t bytes = 0;
    s->wants_save = false;
    lsp_status status = lsp_checkpoint_save(s->plan, s->file, s->marks, &bytes);
    if (status != LSP_OK) {
        s->failed++;
        return LSP_OK;
    }
    assert_true(bytes > 0);
    s->saved++;
    return why == LSP_WANT_STOP ? LSP_INTERRUPTED : LSP_OK;
}

/* One run, from the state in the file if there is one. *whole is set when it comes to its end. */
static lsp_status run_leg(lsp_context *ctx, const lsp_attention_desc *d, script *s, result *whole)
{
    const lsp_run *query_runs, *key_runs;
    int64_t query_run_count, query_rows, key_run_count, key_rows;
    int64_t element = (int64_t)lsp_dtype_size(lsp_dtype_result(d->compute));
    lsp_checkpoint_info info;
    lsp_attention *plan = NULL;
    if (lsp_attention_create(ctx, d, &plan) != LSP_OK) fail_msg("%s", lsp_context_message(ctx));
    lsp_attention_runs(plan, LSP_QUERIES, &query_runs, &query_run_count, &query_rows);
    lsp_attention_runs(plan, LSP_KEYS, &key_runs, &key_run_count, &key_rows);
    void *q = make_rows(d, ROLE_Q, query_runs, query_run_count, query_rows, NULL);
    void *k = make_rows(d, ROLE_K, key_runs, key_run_count, key_rows, NULL);
    void *v = make_rows(d, ROLE_V, key_runs, key_run_count, key_rows, NULL);
    unsigned char *out = case_alloc(query_rows * d->d_v, (size_t)element);
    unsigned char *lse = case_alloc(query_rows, (size_t)element);
    memset(out, 0x7F, (size_t)(query_rows * d->d_v * element));
    lsp_status status = lsp_checkpoint_look(ctx, s->file, &info);
    if (status == LSP_OK && info.found) status = lsp_checkpoint_load(plan, s->file, s->marks, out, &info);
    s->plan = plan;
    s->ctx = ctx;
    const lsp_pause pause = {want, rest, s};
    if (status == LSP_OK) status = lsp_attention_set_pause(plan, &pause);
    lsp_attention_stats stats = {0};
    if (status == LSP_OK) status = lsp_attention_execute(plan, q, k, v, out, lse, &stats);
    if (status == LSP_OK) {
        whole->empty_rows = stats.empty_rows;
        lsp_context_sum_i64(ctx, &whole->empty_rows, 1);
        put_together(ctx, d, query_runs, query_run_count, out, lse, whole);
    }
    assert_int_equal(lsp_attention_destroy(&plan), LSP_OK);
    free(q);
    free(k);
    free(v);
    free(out);
    free(lse);
    return status;
}

static void forget(void)
{
    assert_int_equal(lsp_checkpoint_remove(one_thread, file), LSP_OK);
}

/* How the number-th run of a chain is made. */
static lsp_attention_desc vary(const lsp_attention_desc *d, int number, lsp_context **ctx)
{
    lsp_context *const contexts[] = {one_thread, few, two_threads, rank == 0 ? alone : NULL};
    lsp_attention_desc one = *d;
    *ctx = contexts[number % 4];
    one.gather = (lsp_gather_mode)(LSP_GATHER_PANELS + number % 4);
    one.partition = (lsp_partition_kind)(LSP_PARTITION_CONTIGUOUS + (number / 2) % 3);
    one.panel_rows = number % 3 == 0 ? 1 : number % 3 == 1 ? 1500 : 100000;
    one.head_groups = number % 4 == 0 && number % 5 == 0 ? ranks : 1;
    return one;
}

static void expect_equal(const lsp_attention_desc *d, const result *got, const result *expected,
                         const char *what, int number)
{
    for (size_t i = 0; i < got->out_bytes; i++)
        if (got->out[i] != expected->out[i])
            fail_msg("%s: after %d runs row %d of O differs", what, number,
                     (int)(i / (size_t)d->d_v / lsp_dtype_size(lsp_dtype_result(d->compute))));
    if (memcmp(got->lse, expected->lse, got->lse_bytes) != 0) fail_msg("%s: LSE differs", what);
    assert_int_equal(got->empty_rows, expected->empty_rows);
}

/* Chains of runs, each stopped some questions after its start, until one comes to its end. */
static void check_chains(lsp_attention_desc d, const char *what)
{
    d.isa = LSP_ISA_PORTABLE;
    result expected = run_case(alone, &d, NULL), got = expected;
    got.out = case_alloc((int64_t)got.out_bytes, 1);
    got.lse = case_alloc((int64_t)got.lse_bytes, 1);
    const int steps[] = {1, 12};
    int stopped = 0;
    for (int i = 0; i < 2; i++) {
        lsp_status status = LSP_INTERRUPTED;
        int number = i;
        for (; status == LSP_INTERRUPTED; number++) {
            lsp_context *ctx = NULL;
            lsp_attention_desc one = vary(&d, number, &ctx);
            int size = 0;
            if (ctx) MPI_Comm_size(ctx->comm, &size);
            script s = {.file = file,
                        .marks = "a = b\n",
                        .who = size ? number % size : 0,
                        .stop_at = number < i + 7 ? steps[i] + number % 3 : 0,
                        .save_every = number % 2 ? 3 : 0};
            if (ctx) {
                status = run_leg(ctx, &one, &s, &got);
                if (status != LSP_OK && status != LSP_INTERRUPTED)
                    fail_msg("%s: %s", what, lsp_context_message(ctx));
                stopped += status == LSP_INTERRUPTED;
                if (status == LSP_OK) expect_equal(&d, &got, &expected, what, number - i + 1);
            }
            MPI_Bcast(&status, 1, MPI_INT, 0, one_thread->comm); /* rank 0 is in every context */
        }
        forget();
    }
    if (rank == 0) assert_true(stopped > 0);
    free_result(&got);
    free_result(&expected);
}

static void chains_without_a_mask(void **state)
{
    (void)state;
    lsp_attention_desc d = plain(331, 4099, 16, 11);
    check_chains(d, "no mask");
    d.compute = LSP_F64;
    check_chains(d, "f64");
    d.compute = LSP_BF16;
    check_chains(d, "bf16");
    check_chains(plain(3, 1500, 5, 7), "three rows");
    check_chains(plain(1, 1, 1, 1), "one of each");
}

/* More than LSP_FOLD_TILES key tiles: sums stand in two places. */
static void chains_with_folds(void **state)
{
    (void)state;
    check_chains(plain(61, 33 * 512 + 70, 4, 3), "folds");
}

static void chains_of_heads_and_batches(void **state)
{
    (void)state;
    const int64_t heads_of[] = {2, 0, 1, 1, 0}, lengths[] = {1203, 0, 600};
    double slopes[5];
    for (int h = 0; h < 5; h++) slopes[h] = lsp_alibi_slope(h, 5);
    lsp_attention_desc d = plain(101, 1203, 12, 10);
    d.batch = 3;
    d.heads = 5;
    d.kv_heads = 3;
    d.kv_head_of = heads_of;
    d.key_lengths = lengths;
    d.alibi_slopes = slopes;
    d.softcap = 3;
    check_chains(d, "heads and batches");
}

static void chains_under_masks(void **state)
{
    (void)state;
    const int64_t of_rows[] = {0, 13, 13, 700, 1400};
    lsp_attention_desc d = plain(1531, 1409, 9, 8);
    d.mask = LSP_MASK_CAUSAL;
    check_chains(d, "causal");
    d = plain(1400, 1400, 7, 6);
    d.mask = LSP_MASK_WINDOW;
    d.window_left = 150;
    d.window_right = 9;
    d.documents = of_rows;
    d.document_count = 4;
    d.row_begin = 400;
    d.row_end = 1300;
    d.key_begin = 350;
    d.key_end = 1251;
    check_chains(d, "a part, window and documents");
    d = plain(1301, 1701, 6, 5);
    d.method = LSP_METHOD_BLOCK;
    d.block_size = 130;
    check_chains(d, "block");
}

static void chains_of_topk(void **state)
{
    (void)state;
    lsp_attention_desc d = plain(307, 2111, 8, 5);
    d.method = LSP_METHOD_TOPK;
    d.topk = 9;
    check_chains(d, "topk");
    d.heads = 4;
    d.kv_heads = 2;
    d.mask = LSP_MASK_CAUSAL;
    d.topk = 150;
    d.compute = LSP_F64;
    check_chains(d, "topk, causal, f64");
}

/* Panels that pass between nodes: owners wait for their node before they go on. */
static void chains_over_nodes(void **state)
{
    (void)state;
    lsp_attention_desc d = plain(331, 5611, 4, 3);
    for (int node_ranks = 1; node_ranks < 3; node_ranks++) {
        lsp_gather_node_set_ranks(node_ranks);
        check_chains(d, "nodes");
    }
    lsp_gather_node_set_ranks(0);
}

/* ---- what does not fit ---------------------------------------------------------------------------- */

/* A file with a state of about the middle. */
static void make_file(const lsp_attention_desc *d, result *got)
{
    script s = {.file = file, .marks = "input = one\n", .stop_at = 1};
    assert_int_equal(run_leg(one_thread, d, &s, got), LSP_INTERRUPTED);
    assert_int_equal(s.saved, 1);
}

static void expect_refusal(const lsp_attention_desc *d, const char *marks, result *got, const char *words)
{
    script s = {.file = file, .marks = marks};
    lsp_status status = run_leg(one_thread, d, &s, got);
    if (status != LSP_ERR_CONTENT || !strstr(lsp_context_message(one_thread), words))
        fail_msg("%s wanted, %d: %s", words, (int)status, lsp_context_message(one_thread));
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    lsp_attention_desc d = plain(331, 4099, 8, 5);
    d.isa = LSP_ISA_PORTABLE;
    d.panel_rows = 1;
    result got = run_case(one_thread, &d, NULL);
    make_file(&d, &got);
    lsp_attention_desc other = d;
    expect_refusal(&other, "input = two\n", &got, "input was one and is two");
    expect_refusal(&other, "", &got, "input was one and is missing");
    /* What is longer than messages show is compared to its end. */
    char was[3000], is[3000];
    (void)snprintf(was, sizeof was, "input = %02500d\n", 1);
    (void)snprintf(is, sizeof is, "input = %02500d\n", 2);
    char name[128], one[256], two[256];
    assert_true(lsp_identity_differs(was, is, name, one, two));
    assert_string_equal(name, "input");
    assert_false(lsp_identity_differs(was, was, name, one, two));
    other.scale = 0.5;
    expect_refusal(&other, "input = one\n", &got, " and is 0.5");
    other = d;
    other.mask = LSP_MASK_CAUSAL;
    expect_refusal(&other, "input = one\n", &got, "attention.mask was none and is causal");
    other = d;
    other.n = 332;
    expect_refusal(&other, "input = one\n", &got, "the shape was");
    other = d;
    other.row_end = 330;
    expect_refusal(&other, "input = one\n", &got, "input.rows was 0:331 and is 0:330");
    other = d;
    other.compute = LSP_F64;
    expect_refusal(&other, "input = one\n", &got, "compute.dtype was f32 and is f64");
    other = d;
    other.method = LSP_METHOD_TOPK;
    other.topk = 3;
    expect_refusal(&other, "input = one\n", &got, "attention.method was exact and is topk");
    if (lsp_isa_best() != LSP_ISA_PORTABLE) {
        other = d;
        other.isa = LSP_ISA_AUTO;
        expect_refusal(&other, "input = one\n", &got, "compute.isa was portable and is");
    }
    forget();
    free_result(&got);
}

/* ---- damage --------------------------------------------------------------------------------------- */

/* Flips a byte of what `from_end` tells. */
static void damage(const char *name, long from_end)
{
    if (rank == 0) {
        FILE *stream = fopen(name, "r+b");
        assert_non_null(stream);
        assert_int_equal(fseek(stream, -from_end, SEEK_END), 0);
        int byte = fgetc(stream);
        assert_int_equal(fseek(stream, -from_end, SEEK_END), 0);
        (void)fputc(byte ^ 0x40, stream);
        (void)fclose(stream);
    }
    MPI_Barrier(one_thread->comm);
}

/* The file under the name that it has when another one comes. */
static void copy_to_previous(const char *previous)
{
    char command[200];
    (void)snprintf(command, sizeof command, "cp %s %s", file, previous);
    if (rank == 0) assert_int_equal(system(command), 0);
    MPI_Barrier(one_thread->comm);
}

static void the_one_before_is_used(void **state)
{
    (void)state;
    char previous[80];
    (void)snprintf(previous, sizeof previous, "%s.prev", file);
    lsp_attention_desc d = plain(331, 4099, 8, 5);
    d.isa = LSP_ISA_PORTABLE;
    d.panel_rows = 1;
    result expected = run_case(alone, &d, NULL), got = run_case(one_thread, &d, NULL);
    for (int how = 0; how < 3; how++) {
        make_file(&d, &got);
        copy_to_previous(previous);
        if (how == 0) damage(file, 40); /* in an array */
        if (how == 1 && rank == 0) assert_int_equal(truncate(file, 3000), 0);
        if (how == 2 && rank == 0) assert_int_equal(unlink(file), 0);
        MPI_Barrier(one_thread->comm);
        script s = {.file = file, .marks = "input = one\n"};
        assert_int_equal(run_leg(one_thread, &d, &s, &got), LSP_OK);
        expect_equal(&d, &got, &expected, "the one before", how);
        forget();
    }
    make_file(&d, &got);
    copy_to_previous(previous);
    damage(file, 40);
    damage(previous, 40);
    script s = {.file = file, .marks = "input = one\n"};
    assert_int_equal(run_leg(one_thread, &d, &s, &got), LSP_ERR_CONTENT);
    assert_non_null(strstr(lsp_context_message(one_thread), "checksum"));
    forget();
    free_result(&got);
    free_result(&expected);
}

/* A state that cannot be written ends nothing. */
static void it_goes_on_without(void **state)
{
    (void)state;
    lsp_attention_desc d = plain(331, 4099, 8, 5);
    d.isa = LSP_ISA_PORTABLE;
    d.panel_rows = 1;
    result expected = run_case(alone, &d, NULL), got = run_case(one_thread, &d, NULL);
    script s = {.file = "/nowhere/at/all", .marks = "", .save_every = 1};
    assert_int_equal(run_leg(one_thread, &d, &s, &got), LSP_OK);
    assert_int_equal(s.saved, 0);
    assert_true(s.failed > 0);
    expect_equal(&d, &got, &expected, "without", 1);
    free_result(&got);
    free_result(&expected);
}

static int set_up(void **state)
{
    (void)state;
    int number = (int)getpid();
    MPI_Comm half;
    MPI_Bcast(&number, 1, MPI_INT, 0, MPI_COMM_WORLD);
    /* Where there is memory for files, as every state is synced. */
    (void)snprintf(file, sizeof file, "%s/longspan-test-%d.checkpoint",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", number);
    MPI_Comm_split(MPI_COMM_WORLD, rank < (ranks + 1) / 2 ? 0 : MPI_UNDEFINED, rank, &half);
    if (half == MPI_COMM_NULL) return 0;
    const lsp_context_options options = {.threads = 1};
    lsp_status status = lsp_context_create(half, &options, &few, NULL, 0);
    MPI_Comm_free(&half);
    return status == LSP_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    lsp_context_destroy(&few);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chains_without_a_mask),
        cmocka_unit_test(chains_with_folds),
        cmocka_unit_test(chains_of_heads_and_batches),
        cmocka_unit_test(chains_under_masks),
        cmocka_unit_test(chains_of_topk),
        cmocka_unit_test(chains_over_nodes),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(the_one_before_is_used),
        cmocka_unit_test(it_goes_on_without),
    };
    const test_context contexts[] = {{&one_thread, 1, false}, {&two_threads, 2, false}, {&alone, 1, true}};
    return RUN_OVER_RANKS("checkpoint", tests, contexts, set_up, tear_down);
}
