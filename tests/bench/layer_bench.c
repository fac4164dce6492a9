/* A layer's time in memory, and its projections' rate beside one large product of OpenBLAS on one thread.
 * Usage: mpirun -n P layer_bench N D_MODEL HEADS [SECONDS [ROUNDS]]. f32, self-attention, one thread a rank, biases.
 * After a first execution that is not counted, every round executes the layer for SECONDS (at least twice), then measures
 * the product on every rank. Prints JSON: best and median seconds of a layer (slowest rank), by the wall and by the time of
 * its thread, and of its parts; GFLOP/s of projections and of the product on rank 0, by the time of the thread.
 *
 *   make layer_bench    in the build folder
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "app/launch.h"
#include "base/clock.h"
#include "base/memory.h"
#include "base/random.h"
#include "layer/layer.h"
#include "linalg/blas.h"
#include "linalg/gemm.h"
#include "linalg/version.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TIMES_MOST = 10000 };

typedef struct times {
    double layer[TIMES_MOST], cpu[TIMES_MOST], project[TIMES_MOST], exchange[TIMES_MOST],
        attention[TIMES_MOST], gather[TIMES_MOST];
    int count;
} times;

static double thread_seconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static float *make_values(uint64_t stream, int64_t count, double size)
{
    float *values = lsp_memory_alloc(count, sizeof *values);
    double room[1024];
    for (int64_t i = 0; values && i < count; i += 1024) {
        int64_t part = count - i < 1024 ? count - i : 1024;
        lsp_random_normals(1, stream, (uint64_t)i, part, room);
        for (int64_t j = 0; j < part; j++) values[i + j] = (float)(size * room[j]);
    }
    return values;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The slowest rank's. */
static double slowest(double seconds)
{
    (void)MPI_Allreduce(MPI_IN_PLACE, &seconds, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    return seconds;
}

/* Seconds of one execution's projections by the time of this thread: they are on it alone. */
static double project_thread_seconds(lsp_layer *layer, const float *x, float *y)
{
    int threads = lsp_blas_single();
    double begin = thread_seconds();
    lsp_layer_project_heads(layer, LSP_LAYER_X, x);
    lsp_layer_project_out(layer, layer->at_home[LSP_LAYER_Q], y);
    double seconds = thread_seconds() - begin;
    lsp_blas_restore(threads);
    return seconds;
}

/* The projection's product as one, of 8192 rows at most: wall and thread seconds of one. */
static void run_product(const lsp_layer *layer, const float *x, int64_t rows, float *out, double *wall,
                        double *thread)
{
    int depth = (int)layer->desc.d_model, columns = 3 * depth;
    lsp_gemm_matrix a = {x, depth}, b = {layer->qkv, depth};
    int threads = lsp_blas_single();
    double begin = lsp_clock(), on_thread = thread_seconds();
    lsp_gemm(LSP_F32, (int)rows, columns, depth, a, b, true, 0, out, columns);
    *wall = lsp_clock() - begin;
    *thread = thread_seconds() - on_thread;
    lsp_blas_restore(threads);
}

static void print(const char *name, double *values, int count, const char *end)
{
    qsort(values, (size_t)count, sizeof *values, ascending);
    (void)printf("\"%s\": [%.6g, %.6g]%s", name, values[0], values[count / 2], end);
}

int main(int argc, char **argv)
{
    lsp_launch_restart_for_blas(argv);
    int provided, rank;
    (void)MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
    (void)MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    int64_t n = argc > 3 ? atoll(argv[1]) : 0, d_model = argc > 3 ? atoll(argv[2]) : 0,
            heads = argc > 3 ? atoll(argv[3]) : 1;
    double seconds = argc > 4 ? atof(argv[4]) : 2;
    int rounds = argc > 5 ? atoi(argv[5]) : 1;
    lsp_context *ctx = NULL;
    lsp_context_options one = {.threads = 1};
    lsp_layer *layer = NULL;
    lsp_layer_weights w = {LSP_F32,
                           make_values(2, 3 * d_model * d_model, 1 / sqrt((double)d_model)),
                           make_values(3, 3 * d_model, 0.1),
                           make_values(4, d_model * d_model, 1 / sqrt((double)d_model)),
                           make_values(5, d_model, 0.1),
                           NULL,
                           NULL};
    lsp_layer_desc desc = {
        .attention = {.batch = 1, .heads = heads, .kv_heads = heads, .n = n, .m = n, .compute = LSP_F32},
        .d_model = d_model,
        .x_type = LSP_F32};
    desc.attention.d_k = desc.attention.d_v = d_model / (heads > 0 ? heads : 1);
    if (lsp_context_create(MPI_COMM_WORLD, &one, &ctx, NULL, 0) != LSP_OK ||
        lsp_layer_create(ctx, &desc, &w, &layer) != LSP_OK) {
        (void)fprintf(stderr, "usage: layer_bench N D_MODEL HEADS [SECONDS [ROUNDS]]\n%s\n",
                      ctx ? lsp_context_message(ctx) : "");
        (void)MPI_Abort(MPI_COMM_WORLD, 1);
        return 1;
    }
    int64_t rows = layer->x.end - layer->x.begin, product_rows = rows < 8192 ? rows : 8192;
    float *x = make_values(1 + 100 * (uint64_t)rank, rows * d_model, 1),
          *y = make_values(9, rows * d_model, 0);
    float *product = make_values(9, product_rows * 3 * d_model, 0);
    static times t;
    static double wall[TIMES_MOST], thread[TIMES_MOST], project_thread[TIMES_MOST];
    int products = 0, projects = 0;
    /* Not counted: memory is met for the first time. */
    if (lsp_layer_execute(layer, x, NULL, y, NULL) != LSP_OK) (void)MPI_Abort(MPI_COMM_WORLD, 1);
    for (int r = 0; r < rounds; r++) {
        double begin = lsp_clock();
        for (int i = 0; t.count < TIMES_MOST && (i < 2 || slowest(lsp_clock() - begin) < seconds);
             i++, t.count++) {
            lsp_layer_stats stats;
            double cpu = thread_seconds();
            if (lsp_layer_execute(layer, x, NULL, y, &stats) != LSP_OK) (void)MPI_Abort(MPI_COMM_WORLD, 1);
            t.cpu[t.count] = slowest(thread_seconds() - cpu);
            t.layer[t.count] = slowest(stats.seconds_total);
            t.project[t.count] = slowest(stats.seconds_project);
            t.exchange[t.count] = slowest(stats.seconds_exchange);
            t.attention[t.count] = slowest(stats.attention.seconds_compute);
            t.gather[t.count] = slowest(stats.attention.seconds_gather_exposed);
        }
        for (int i = 0; i < 3 && products < TIMES_MOST; i++, products++) {
            run_product(layer, x, product_rows, product, &wall[products], &thread[products]);
            project_thread[projects++] = project_thread_seconds(layer, x, y);
        }
    }
    double flops = 8 * (double)rows * (double)(d_model * d_model),
           one_product = 6 * (double)product_rows * (double)(d_model * d_model);
    if (rank == 0) {
        (void)printf("{");
        print("seconds", t.layer, t.count, ", ");
        print("cpu", t.cpu, t.count, ", ");
        print("project", t.project, t.count, ", ");
        print("exchange", t.exchange, t.count, ", ");
        print("attention", t.attention, t.count, ", ");
        print("gather_exposed", t.gather, t.count, ", ");
        print("product", wall, products, ", ");
        print("product_thread", thread, products, ", ");
        print("project_thread", project_thread, projects, ", ");
        (void)printf("\"project_gflops\": %.1f, \"product_gflops\": %.1f, \"projection_share\": %.3f, "
                     "\"isa\": \"%s\", "
                     "\"blas\": \"%s\"}\n",
                     flops / project_thread[0] * 1e-9, one_product / thread[0] * 1e-9,
                     flops / project_thread[0] / (one_product / thread[0]),
                     lsp_isa_name(lsp_attention_get_isa(layer->plan)), lsp_linalg_version());
    }
    (void)lsp_layer_destroy(&layer);
    (void)lsp_context_destroy(&ctx);
    (void)MPI_Finalize();
    return 0;
}
