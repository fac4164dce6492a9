/* The model of a run's time against numbers worked out by hand, and against what it stands for.
 * SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/random.h"

#include <longspan/plan.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Scalar work takes no time here (slowness 0), so that what is left can be worked out. */
static const lsp_plan_rates plain_rates = {.kernel = 1e9,
                                           .peak = 2e9,
                                           .dense = 5e8,
                                           .project = 1.5e9,
                                           .memory = 1e10,
                                           .link = 1e8,
                                           .latency = 1e-3,
                                           .write = 1e8,
                                           .slowness = 0};

static lsp_attention_desc base_desc(void)
{
    return (lsp_attention_desc){.batch = 1,
                                .heads = 2,
                                .kv_heads = 1,
                                .n = 4000,
                                .m = 6000,
                                .d_k = 64,
                                .d_v = 32,
                                .q_type = LSP_F32,
                                .k_type = LSP_F32,
                                .v_type = LSP_F32,
                                .compute = LSP_F32};
}

static lsp_estimate estimate_of(const lsp_attention_desc *desc, int ranks, int per_node)
{
    lsp_estimate e;
    char message[256] = "";
    if (lsp_attention_estimate(desc, ranks, per_node, 1, &e, message, sizeof message) != LSP_OK)
        fail_msg("%s", message);
    return e;
}

static void near(double got, double wanted)
{
    if (!(fabs(got - wanted) <= 1e-9 * fabs(wanted))) fail_msg("%.15g, wanted %.15g", got, wanted);
}

static double sum_of(const lsp_plan_time *t)
{
    double sum = 0;
    for (int i = 0; i < LSP_PLAN_PARTS; i++) sum += t->seconds[i];
    return sum;
}

static void exact_by_hand(void **state)
{
    (void)state;
    lsp_attention_desc d = base_desc();
    lsp_estimate e = estimate_of(&d, 4, 4);
    lsp_plan_run run = {.desc = &d, .ranks = 4, .ranks_per_node = 4, .threads = 3, .output_bytes = 2e8};
    lsp_plan_time t = lsp_plan_predict(&run, &e, &plain_rates);
    /* A quarter of 2 heads x 4000 x 6000 pairs of 2 (64 + 32) flops, on 3 threads. */
    near(t.seconds[LSP_PLAN_COMPUTE], 2.0 * 4000 * 6000 * 192 / 4 / 3e9);
    near(t.seconds[LSP_PLAN_WRITE], 2);
    assert_true(t.seconds[LSP_PLAN_PROJECT] == 0 && t.seconds[LSP_PLAN_VERIFY] == 0);
    near(t.total, sum_of(&t));
    assert_int_equal(t.limit, LSP_LIMIT_FILE);
    run.output_bytes = 0;
    t = lsp_plan_predict(&run, &e, &plain_rates);
    assert_true(t.seconds[LSP_PLAN_WRITE] == 0);
    assert_int_equal(t.limit, LSP_LIMIT_COMPUTE);
    lsp_plan_rates slow = plain_rates;
    slow.kernel /= 7;
    near(lsp_plan_predict(&run, &e, &slow).seconds[LSP_PLAN_COMPUTE], 7 * t.seconds[LSP_PLAN_COMPUTE]);
}

/* The rank with most pairs sets the time. */
static void uneven_work(void **state)
{
    (void)state;
    lsp_attention_desc d = base_desc();
    d.m = d.n;
    d.mask = LSP_MASK_CAUSAL;
    d.partition = LSP_PARTITION_CONTIGUOUS;
    lsp_estimate e = estimate_of(&d, 2, 2);
    lsp_plan_run run = {.desc = &d, .ranks = 2, .ranks_per_node = 2, .threads = 1};
    double second = 2 * (4000.0 * 4001 / 2 - 2000.0 * 2001 / 2);
    near(lsp_plan_predict(&run, &e, &plain_rates).seconds[LSP_PLAN_COMPUTE], second * 192 / 1e9);
}

static void gather_by_hand(void **state)
{
    (void)state;
    lsp_attention_desc d = base_desc();
    d.gather = LSP_GATHER_ALL;
    lsp_plan_run run = {.desc = &d, .ranks = 4, .ranks_per_node = 2, .threads = 1};
    lsp_estimate e = estimate_of(&d, 4, 2);
    /* Two ranks of a node bring their rows over one link, and all of it is seen. */
    double seconds = e.bytes_received_max * 2 / 1e8 + (double)e.panels * 1e-3;
    lsp_plan_time t = lsp_plan_predict(&run, &e, &plain_rates);
    near(t.gather, seconds);
    near(t.seconds[LSP_PLAN_GATHER], seconds);
    /* Panels hide some of it; node brings it once; within a node no link is crossed; one rank gathers nothing. */
    d.gather = LSP_GATHER_PANELS;
    e = estimate_of(&d, 4, 2);
    lsp_plan_time panels = lsp_plan_predict(&run, &e, &plain_rates);
    assert_true(panels.seconds[LSP_PLAN_GATHER] < panels.gather && panels.seconds[LSP_PLAN_GATHER] > 0);
    d.gather = LSP_GATHER_NODE;
    e = estimate_of(&d, 4, 2);
    assert_true(lsp_plan_predict(&run, &e, &plain_rates).gather < 0.7 * panels.gather);
    run.ranks_per_node = 4;
    assert_true(lsp_plan_predict(&run, &e, &plain_rates).gather < 0.2 * panels.gather);
    run.ranks = run.ranks_per_node = 1;
    e = estimate_of(&d, 1, 1);
    assert_true(lsp_plan_predict(&run, &e, &plain_rates).seconds[LSP_PLAN_GATHER] == 0);
}

static void limits(void **state)
{
    (void)state;
    /* One row against many keys waits for memory: 4 bytes of each number of K and V. */
    lsp_attention_desc d = base_desc();
    d.heads = 1;
    d.n = 1;
    d.m = 1 << 20;
    lsp_plan_run run = {.desc = &d, .ranks = 1, .ranks_per_node = 1, .threads = 64};
    lsp_estimate e = estimate_of(&d, 1, 1);
    lsp_plan_time t = lsp_plan_predict(&run, &e, &plain_rates);
    assert_int_equal(t.limit, LSP_LIMIT_MEMORY);
    near(t.seconds[LSP_PLAN_COMPUTE], 4.0 * 96 * (1 << 20) / 1e10);
    /* Few rows a node and a slow link. */
    d.n = 64;
    d.gather = LSP_GATHER_PANELS;
    run = (lsp_plan_run){.desc = &d, .ranks = 64, .ranks_per_node = 1, .threads = 64};
    e = estimate_of(&d, 64, 1);
    assert_int_equal(lsp_plan_predict(&run, &e, &plain_rates).limit, LSP_LIMIT_LINK);
    static const char *const names[] = {"compute", "memory", "link", "file"};
    for (int i = 0; i < 4; i++) assert_string_equal(lsp_plan_limit_name((lsp_plan_limit)i), names[i]);
}

static void lowrank_by_hand(void **state)
{
    (void)state;
    lsp_attention_desc d = base_desc();
    d.method = LSP_METHOD_LOWRANK;
    d.rank = 84; /* and 16 columns more */
    d.heads = 1;
    lsp_estimate e = estimate_of(&d, 2, 2);
    double pairs = 4000.0 * 6000, basis = 300;
    assert_int_equal(e.columns, 100);
    near(e.products, 7 * 2 * (64 + 100) * pairs);
    near(e.dense, 8 * 10000 * basis * basis);
    near(e.alone, 22 * basis * basis * basis);
    near(e.work, e.products + e.dense);
    lsp_plan_run run = {.desc = &d, .ranks = 2, .ranks_per_node = 2, .threads = 1};
    double seconds = lsp_plan_predict(&run, &e, &plain_rates).seconds[LSP_PLAN_COMPUTE];
    assert_true(seconds > e.products / 2e9 && seconds < e.products / 2e9 + 20 * e.work / 1e9);
    /* In more turns than one each is filled up to 16 columns, and keys come by for every turn. */
    d.rank = 300;
    d.oversample = -1;
    e = estimate_of(&d, 2, 2);
    assert_int_equal(e.columns, 300);
    near(e.products, (4 * 2 * 2 * (64 + 160) + 3 * 2 * (2 * 64 + 300)) * pairs);
    /* A basis has no more columns than the matrix has rows: 150, 150, 100. */
    d.n = 400;
    d.rank = 150;
    e = estimate_of(&d, 2, 2);
    pairs = 400.0 * 6000;
    near(e.products, 2 * (5 * (64 + 150.0) + 2 * (64 + 100.0)) * pairs);
}

/* The rule that the number of candidates stands for, carried out. */
static double count_candidates(int64_t topk, int64_t keys, uint64_t seed)
{
    int64_t room = topk + topk / 2, count = 0, taken = 0;
    double *held = malloc((size_t)room * sizeof *held), least = -1;
    assert_non_null(held);
    for (int64_t key = 0; key < keys; key++) {
        double score = lsp_random_uniform(seed, 1, (uint64_t)key);
        if (score <= least) continue;
        taken++;
        held[count++] = score;
        if (count < room) continue;
        for (int64_t i = 1; i < count; i++) { /* the largest first */
            double moved = held[i];
            int64_t at = i;
            for (; at > 0 && held[at - 1] < moved; at--) held[at] = held[at - 1];
            held[at] = moved;
        }
        count = topk;
        least = held[topk - 1];
    }
    free(held);
    return (double)taken;
}

static void candidates(void **state)
{
    (void)state;
    enum { ROWS = 40 };
    near(lsp_plan_topk_candidates(64, 90), 90);
    near(lsp_plan_topk_candidates(64, 96 * 1.5), 96 + 32);
    const int64_t cases[][2] = {{16, 2000}, {64, 20000}, {200, 5000}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        double sum = 0;
        for (uint64_t row = 0; row < ROWS; row++) sum += count_candidates(cases[c][0], cases[c][1], row);
        double model = lsp_plan_topk_candidates((double)cases[c][0], (double)cases[c][1]);
        if (fabs(sum / ROWS / model - 1) > 0.1)
            fail_msg("%g candidates, the model says %g", sum / ROWS, model);
    }
}

/* More is never faster. */
static void topk_grows(void **state)
{
    (void)state;
    lsp_attention_desc d = base_desc();
    d.method = LSP_METHOD_TOPK;
    lsp_plan_rates rates = plain_rates;
    rates.slowness = 1;
    double before = 0;
    for (d.topk = 1; d.topk <= 8192; d.topk *= 2) {
        lsp_estimate e = estimate_of(&d, 2, 2);
        lsp_plan_run run = {.desc = &d, .ranks = 2, .ranks_per_node = 2, .threads = 1, .verify_rows = 16};
        double seconds = lsp_plan_predict(&run, &e, &rates).seconds[LSP_PLAN_COMPUTE];
        assert_true(d.topk > 6000 ? seconds >= before : seconds > before);
        before = seconds;
    }
}

static void layer_by_hand(void **state)
{
    (void)state;
    lsp_attention_desc d = base_desc();
    d.m = d.n = 3 * 512;
    d.d_v = d.d_k;
    lsp_estimate e = estimate_of(&d, 2, 2);
    lsp_plan_run run = {
        .kind = LSP_PLAN_LAYER, .desc = &d, .ranks = 2, .ranks_per_node = 2, .threads = 1, .d_model = 100};
    /* 2 query heads in and out, 1 head of keys, 1 of values; of three blocks one rank has two. */
    double flops = 2.0 * 1536 * 100 * 64 * (2 + 2 + 1 + 1);
    near(lsp_plan_project_flops(&run), flops);
    near(lsp_plan_predict(&run, &e, &plain_rates).seconds[LSP_PLAN_PROJECT], flops * 2 / 3 / 1.5e9);
}

static void verification(void **state)
{
    (void)state;
    lsp_attention_desc d = base_desc();
    lsp_plan_rates rates = plain_rates;
    rates.slowness = 1;
    lsp_plan_run run = {.desc = &d, .ranks = 2, .ranks_per_node = 2, .threads = 1, .verify_rows = 16};
    lsp_estimate e = estimate_of(&d, 2, 2);
    double exact = lsp_plan_predict(&run, &e, &rates).seconds[LSP_PLAN_VERIFY];
    run.verify_rows = 32;
    near(lsp_plan_predict(&run, &e, &rates).seconds[LSP_PLAN_VERIFY], 2 * exact);
    run.verify_rows = 16;
    d.method = LSP_METHOD_TOPK;
    d.topk = 5;
    assert_true(lsp_plan_predict(&run, &e, &rates).seconds[LSP_PLAN_VERIFY] > 2 * exact);
    run.kind = LSP_PLAN_SVD;
    d.rank = 10;
    assert_true(lsp_plan_predict(&run, &e, &rates).seconds[LSP_PLAN_VERIFY] > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_by_hand), cmocka_unit_test(uneven_work),     cmocka_unit_test(gather_by_hand),
        cmocka_unit_test(limits),        cmocka_unit_test(lowrank_by_hand), cmocka_unit_test(candidates),
        cmocka_unit_test(topk_grows),    cmocka_unit_test(layer_by_hand),   cmocka_unit_test(verification)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
