/* The table of all deck keys. SPDX-License-Identifier: BSD-3-Clause */
#include "app/options.h"

#include <string.h>

#define EVERY  9.0e15                                           /* sizes: what a double holds exactly */
#define ONE    (LSP_FOR_ATTEND | LSP_FOR_VERIFY | LSP_FOR_PLAN) /* of one method */
#define VALUES (ONE | LSP_FOR_COMPARE)
#define TAKES  (VALUES | LSP_FOR_SVD | LSP_FOR_LAYER) /* what methods take */
#define RUNS   (VALUES | LSP_FOR_SVD | LSP_FOR_MAP)
#define SCORES (RUNS | LSP_FOR_LAYER)
#define LAYERS (LSP_FOR_LAYER | LSP_FOR_MAP | LSP_FOR_PLAN)
#define WRITES                                                                                               \
    (LSP_FOR_ATTEND | LSP_FOR_GENERATE | LSP_FOR_MERGE | LSP_FOR_SVD | LSP_FOR_LAYER | LSP_FOR_IMPORT |      \
     LSP_FOR_MAP)
#define SHAPES (LSP_FOR_GENERATE | LSP_FOR_PLAN | LSP_FOR_BENCH)
#define GROUPS (LSP_FOR_ATTEND | LSP_FOR_PLAN | LSP_FOR_BENCH | LSP_FOR_COMPARE | LSP_FOR_LAYER)
#define DEALS  (GROUPS | LSP_FOR_SVD | LSP_FOR_MAP)
#define ALL                                                                                                  \
    (LSP_FOR_ATTEND | LSP_FOR_GENERATE | LSP_FOR_VERIFY | LSP_FOR_MERGE | LSP_FOR_PLAN | LSP_FOR_BENCH |     \
     LSP_FOR_SVD | LSP_FOR_COMPARE | LSP_FOR_LAYER | LSP_FOR_IMPORT | LSP_FOR_MAP)
#define SAVES   (LSP_FOR_ATTEND | LSP_FOR_SVD | LSP_FOR_LAYER | LSP_FOR_COMPARE)
#define WATCHED (ALL & ~(unsigned)LSP_FOR_PLAN)
#define REPORTS (ALL | LSP_FOR_SCALING)

static const lsp_option registry[LSP_KEY_COUNT] = {
    [LSP_KEY_INPUT_FILE] = {"input", "file", LSP_OPTION_PATH, "", NULL, 0, 0, SCORES,
                            "HDF5 file of the dataset paths below"},
    [LSP_KEY_INPUT_Q] = {"input", "q", LSP_OPTION_PATH, "/q", NULL, 0, 0, RUNS,
                         "queries: a dataset path in input.file, or FILE:/path"},
    [LSP_KEY_INPUT_K] = {"input", "k", LSP_OPTION_PATH, "/k", NULL, 0, 0, RUNS, "keys, likewise"},
    [LSP_KEY_INPUT_V] = {"input", "v", LSP_OPTION_PATH, "/v", NULL, 0, 0, VALUES, "values, likewise"},
    [LSP_KEY_INPUT_DOCUMENTS] = {"input", "documents", LSP_OPTION_PATH, "", NULL, 0, 0, SCORES,
                                 "offsets from 0 to n: rows see keys of their own document only"},
    [LSP_KEY_INPUT_DOCUMENTS_K] = {"input", "documents_k", LSP_OPTION_PATH, "", NULL, 0, 0, SCORES,
                                   "the same over keys, from 0 to m (default: as documents)"},
    [LSP_KEY_INPUT_KEY_LENGTHS] = {"input", "key_lengths", LSP_OPTION_PATH, "", NULL, 0, 0, SCORES,
                                   "keys of each batch, [B]"},
    [LSP_KEY_INPUT_LAYOUT] = {"input", "layout", LSP_OPTION_CHOICE, "bhnd", "bhnd|bnhd", 0, 0,
                              RUNS | LSP_FOR_MERGE, "order of the axes in the files"},
    [LSP_KEY_INPUT_HEADS] = {"input", "heads", LSP_OPTION_HEADS, "all", NULL, 0, 0, RUNS,
                             "query heads to compute: all, or as 0,3-5"},
    [LSP_KEY_INPUT_ROWS] = {"input", "rows", LSP_OPTION_RANGE, "all", NULL, 0, 0, RUNS,
                            "query rows to compute: all, or a:b (b not included)"},
    [LSP_KEY_INPUT_KEYS] = {"input", "keys", LSP_OPTION_RANGE, "all", NULL, 0, 0, RUNS,
                            "keys that contribute: all, or a:b (b not included)"},
    [LSP_KEY_INPUT_PARTS] = {"input", "parts", LSP_OPTION_PATH, "", NULL, 0, 0, LSP_FOR_MERGE,
                             "the outputs to join, separated by commas"},
    [LSP_KEY_INPUT_X] = {"input", "x", LSP_OPTION_PATH, "/x", NULL, 0, 0, LAYERS,
                         "rows [n, d_model] or [B, n, d_model]: a dataset path in input.file, or FILE:/path"},
    [LSP_KEY_INPUT_CONTEXT] = {"input", "context", LSP_OPTION_PATH, "", NULL, 0, 0, LAYERS,
                               "cross-attention: rows [m, d_model] that keys and values are made from"},
    [LSP_KEY_INPUT_LAYER_WEIGHTS] = {"input", "weights", LSP_OPTION_PATH, "", NULL, 0, 0, LAYERS,
                                     "of the layer: a file, or FILE:/group (default: input.file)"},
    [LSP_KEY_OUTPUT_FILE] = {"output", "file", LSP_OPTION_PATH, "", NULL, 0, 0,
                             WRITES | LSP_FOR_VERIFY | LSP_FOR_PLAN, "HDF5 file to write (verify: to check)"},
    [LSP_KEY_OUTPUT_OVERWRITE] = {"output", "overwrite", LSP_OPTION_YESNO, "no", NULL, 0, 0, WRITES,
                                  "replace an output that exists"},
    [LSP_KEY_OUTPUT_LSE] = {"output", "lse", LSP_OPTION_YESNO, "yes", NULL, 0, 0, ONE | LSP_FOR_MAP,
                            "also the rows' log-sum-exp (/lse)"},
    [LSP_KEY_OUTPUT_VECTORS] = {"output", "vectors", LSP_OPTION_YESNO, "yes", NULL, 0, 0,
                                LSP_FOR_SVD | LSP_FOR_PLAN, "also the singular vectors (/u, /vt)"},
    [LSP_KEY_OUTPUT_WEIGHTS] = {"output", "weights", LSP_OPTION_YESNO, "no", NULL, 0, 0,
                                LSP_FOR_ATTEND | LSP_FOR_PLAN,
                                "method = topk: also the kept weights (/weights/indptr, indices, data)"},
    [LSP_KEY_ATTENTION_METHOD] = {"attention", "method", LSP_OPTION_CHOICE, "exact",
                                  "exact|block|topk|lowrank", 0, 0,
                                  ONE | LSP_FOR_SVD | LSP_FOR_LAYER | LSP_FOR_MAP,
                                  "exact; block: inside blocks of the sequence; topk: the largest weights; "
                                  "lowrank: the largest singular values"},
    [LSP_KEY_ATTENTION_MASK] = {"attention", "mask", LSP_OPTION_CHOICE, "none", "none|causal|window", 0, 0,
                                SCORES | LSP_FOR_BENCH, "which keys a row sees"},
    [LSP_KEY_ATTENTION_CAUSAL_ALIGN] = {"attention", "causal_align", LSP_OPTION_CHOICE, "bottom-right",
                                        "bottom-right|top-left", 0, 0, SCORES | LSP_FOR_BENCH,
                                        "row i stands at i + m - n, or at i"},
    [LSP_KEY_ATTENTION_WINDOW_LEFT] = {"attention", "window_left", LSP_OPTION_INT, "", NULL, 0, EVERY,
                                       SCORES | LSP_FOR_BENCH,
                                       "mask = window: keys before the row's position"},
    [LSP_KEY_ATTENTION_WINDOW_RIGHT] = {"attention", "window_right", LSP_OPTION_INT, "0", NULL, 0, EVERY,
                                        SCORES | LSP_FOR_BENCH, "mask = window: keys after it"},
    [LSP_KEY_ATTENTION_SCALE] = {"attention", "scale", LSP_OPTION_REAL, "auto", "auto", 1e-300, 1e300, SCORES,
                                 "factor of q . k (auto: 1/sqrt(d_k))"},
    [LSP_KEY_ATTENTION_SOFTCAP] = {"attention", "softcap", LSP_OPTION_REAL, "0", NULL, 0, 1e300, SCORES,
                                   "c: scores become c tanh(s/c); 0: off"},
    [LSP_KEY_ATTENTION_ALIBI] = {"attention", "alibi", LSP_OPTION_YESNO, "no", NULL, 0, 0, SCORES,
                                 "subtract slope(head) x distance from scores"},
    [LSP_KEY_ATTENTION_RANK] = {"attention", "rank", LSP_OPTION_CHOICES, "", NULL, 1, EVERY, TAKES,
                                "svd, method = lowrank: singular values to keep (compare: a list); with a "
                                "tolerance: at most"},
    [LSP_KEY_ATTENTION_TOLERANCE] = {"attention", "tolerance", LSP_OPTION_REAL, "", NULL, 1e-300, 1, TAKES,
                                     "relative Frobenius error that the least sufficient rank is sought for"},
    [LSP_KEY_ATTENTION_SVD] = {"attention", "svd", LSP_OPTION_CHOICE, "krylov", "krylov|full", 0, 0, TAKES,
                               "krylov: never forms the matrix; full: forms it, for small sizes"},
    [LSP_KEY_ATTENTION_OVERSAMPLE] = {"attention", "oversample", LSP_OPTION_INT, "16", NULL, 0, 1e6, TAKES,
                                      "svd = krylov: columns of a block besides rank"},
    [LSP_KEY_ATTENTION_STEPS] = {"attention", "steps", LSP_OPTION_INT, "2", NULL, 0, 100, TAKES,
                                 "svd = krylov: steps after the first block"},
    [LSP_KEY_ATTENTION_SEED] = {"attention", "seed", LSP_OPTION_INT, "0", NULL, 0, EVERY, TAKES,
                                "svd = krylov: seed of the start block"},
    [LSP_KEY_ATTENTION_ALLOW_LEAK] =
        {"attention", "allow_leak", LSP_OPTION_YESNO, "no", NULL, 0, 0, TAKES,
         "mask = causal, window_right = 0: rows of a truncated matrix see later keys, a little"},
    [LSP_KEY_ATTENTION_BLOCK_SIZE] =
        {"attention", "block_size", LSP_OPTION_CHOICES, "", NULL, 1, EVERY, TAKES,
         "method = block: rows of a block, which sees its share of the keys (compare: a list)"},
    [LSP_KEY_ATTENTION_TOPK] = {"attention", "topk", LSP_OPTION_CHOICES, "", NULL, 1, EVERY, TAKES,
                                "method = topk: weights that a row keeps (compare: a list)"},
    [LSP_KEY_ATTENTION_RENORMALIZE] = {"attention", "renormalize", LSP_OPTION_YESNO, "no", NULL, 0, 0, TAKES,
                                       "method = topk: make the kept weights add up to 1"},
    [LSP_KEY_LAYER_HEADS] = {"layer", "heads", LSP_OPTION_INT, "", NULL, 1, EVERY, LAYERS, "query heads"},
    [LSP_KEY_LAYER_KV_HEADS] = {"layer", "kv_heads", LSP_OPTION_INT, "", NULL, 1, EVERY, LAYERS,
                                "key/value heads, which divide the query heads (default: as heads)"},
    [LSP_KEY_LAYER_BIAS] = {"layer", "bias", LSP_OPTION_CHOICE, "auto", "auto|yes|no", 0, 0, LAYERS,
                            "biases: those there are; yes: both must be there; no: left out"},
    [LSP_KEY_LAYER_ROPE_BASE] = {"layer", "rope_base", LSP_OPTION_REAL, "0", NULL, 0, 1e300, LAYERS,
                                 "rotary positions, as 10000 or 500000; 0: none"},
    [LSP_KEY_LAYER_ROPE_PAIRING] = {"layer", "rope_pairing", LSP_OPTION_CHOICE, "half", "half|interleaved", 0,
                                    0, LAYERS, "c turns with c + head_dim/2, or 2c with 2c + 1"},
    [LSP_KEY_LAYER_QK_NORM] =
        {"layer", "qk_norm", LSP_OPTION_YESNO, "no", NULL, 0, 0, LAYERS,
         "RMS norm of each head's q and k, by /q_norm.weight and /k_norm.weight if there"},
    [LSP_KEY_LAYER_QK_NORM_EPS] = {"layer", "qk_norm_eps", LSP_OPTION_REAL, "1e-6", NULL, 1e-300, 1, LAYERS,
                                   "added to the mean square"},
    [LSP_KEY_COMPUTE_DTYPE] = {"compute", "dtype", LSP_OPTION_CHOICE, "f32", "bf16|f32|f64", 0, 0,
                               SCORES | LSP_FOR_BENCH,
                               "type of the computation; the output is f64 for f64, otherwise f32"},
    [LSP_KEY_COMPUTE_THREADS] = {"compute", "threads", LSP_OPTION_INT, "auto", "auto", 1, 4096, ALL,
                                 "threads of a rank (auto: OMP_NUM_THREADS, or the rank's cores)"},
    [LSP_KEY_COMPUTE_ISA] = {"compute", "isa", LSP_OPTION_CHOICE, "auto", "auto|portable|avx2|avx512", 0, 0,
                             DEALS, "instruction set (auto: the best of all ranks)"},
    [LSP_KEY_COMPUTE_GATHER] = {"compute", "gather", LSP_OPTION_CHOICE, "auto", "auto|panels|all|node|chain",
                                0, 0, DEALS, "how K and V reach the ranks"},
    [LSP_KEY_COMPUTE_PANEL_ROWS] = {"compute", "panel_rows", LSP_OPTION_INT, "auto", "auto", 1, EVERY, DEALS,
                                    "keys of a panel, rounded up to whole key tiles"},
    [LSP_KEY_COMPUTE_HEAD_GROUPS] = {"compute", "head_groups", LSP_OPTION_INT, "auto", "auto", 1, 2147483647,
                                     GROUPS | LSP_FOR_MAP,
                                     "rank groups that share out the heads; divides the ranks"},
    [LSP_KEY_COMPUTE_PARTITION] = {"compute", "partition", LSP_OPTION_CHOICE, "auto",
                                   "auto|contiguous|balanced|cyclic", 0, 0, DEALS,
                                   "how query rows are dealt to ranks (auto: as the mask asks)"},
    [LSP_KEY_COMPUTE_NONFINITE] = {"compute", "nonfinite", LSP_OPTION_CHOICE, "refuse", "refuse|propagate", 0,
                                   0,
                                   LSP_FOR_ATTEND | LSP_FOR_VERIFY | LSP_FOR_SVD | LSP_FOR_COMPARE |
                                       LSP_FOR_LAYER | LSP_FOR_MAP,
                                   "NaN or Inf in the input"},
    [LSP_KEY_CHECKPOINT_FILE] =
        {"checkpoint", "file", LSP_OPTION_PATH, "auto", NULL, 0, 0, SAVES,
         "file to save the state in (auto: output.file, for compare report.json, with .checkpoint added; "
         "none)"},
    [LSP_KEY_CHECKPOINT_EVERY_SECONDS] = {"checkpoint", "every_seconds", LSP_OPTION_REAL, "0", NULL, 0, 1e9,
                                          SAVES,
                                          "between two checkpoints; 0: only on USR1, TERM and before the "
                                          "job's time limit"},
    [LSP_KEY_CHECKPOINT_RESUME] = {"checkpoint", "resume", LSP_OPTION_CHOICE, "auto", "auto|yes|no", 0, 0,
                                   SAVES, "go on from a checkpoint (auto: when there is one)"},
    [LSP_KEY_CHECKPOINT_MARGIN] = {"checkpoint", "margin", LSP_OPTION_REAL, "120", NULL, 0, 1e9, SAVES,
                                   "seconds before the end of a Slurm job at which to save and stop, at "
                                   "most a fifth of what is left of it at the start"},
    [LSP_KEY_CHECKPOINT_WATCHDOG] =
        {"checkpoint", "watchdog", LSP_OPTION_REAL, "600", NULL, 0, 1e9, WATCHED,
         "seconds without progress of a rank after which the run is ended; 0: never"},
    [LSP_KEY_VERIFY_ROWS] = {"verify", "rows", LSP_OPTION_INT, "16", NULL, 0, 1e6,
                             LSP_FOR_ATTEND | LSP_FOR_PLAN | LSP_FOR_VERIFY | LSP_FOR_BENCH | LSP_FOR_SVD |
                                 LSP_FOR_COMPARE | LSP_FOR_LAYER | LSP_FOR_MAP,
                             "rows recomputed in double precision; 0: none"},
    [LSP_KEY_VERIFY_TOLERANCE] = {"verify", "tolerance", LSP_OPTION_REAL, "auto", "auto", 1e-300, 1e300,
                                  LSP_FOR_ATTEND | LSP_FOR_VERIFY | LSP_FOR_SVD | LSP_FOR_COMPARE |
                                      LSP_FOR_LAYER | LSP_FOR_MAP,
                                  "largest relative error of a row (auto: by type and scores)"},
    [LSP_KEY_REPORT_JSON] = {"report", "json", LSP_OPTION_PATH, "", NULL, 0, 0, REPORTS,
                             "file to write the report to, as JSON"},
    [LSP_KEY_REPORT_PROGRESS] = {"report", "progress", LSP_OPTION_CHOICE, "auto", "auto|yes|no", 0, 0,
                                 LSP_FOR_ATTEND | LSP_FOR_SVD | LSP_FOR_COMPARE | LSP_FOR_LAYER | LSP_FOR_MAP,
                                 "progress on standard error (auto: when it takes long)"},
    [LSP_KEY_REPORT_PLOT] =
        {"report", "plot", LSP_OPTION_PATH, "", NULL, 0, 0,
         LSP_FOR_SVD | LSP_FOR_COMPARE | LSP_FOR_MAP | LSP_FOR_SCALING,
         "file for a picture (by gnuplot), SVG when it is called so, otherwise PNG: svd: "
         "spectra; compare: error against time; scaling: speed-up; map (PNG, by cairo): heads"},
    [LSP_KEY_REPORT_HTML] = {"report", "html", LSP_OPTION_PATH, "", NULL, 0, 0, LSP_FOR_MAP,
                             "page with pictures, figures and links, for a browser; needs no network"},
    [LSP_KEY_MAP_PIXELS] = {"map", "pixels", LSP_OPTION_INT, "512", NULL, 1, 8192, LSP_FOR_MAP | LSP_FOR_PLAN,
                            "rows and columns of a head's picture, at most"},
    [LSP_KEY_MAP_LINKS] = {"map", "links", LSP_OPTION_INT, "100", NULL, 0, 1e6, LSP_FOR_MAP,
                           "strongest links of a head"},
    [LSP_KEY_MAP_LABELS] = {"map", "labels", LSP_OPTION_PATH, "", NULL, 0, 0, LSP_FOR_MAP,
                            "text file with a label a line for each row (and key, where they are as many)"},
    [LSP_KEY_MAP_LABELS_K] = {"map", "labels_k", LSP_OPTION_PATH, "", NULL, 0, 0, LSP_FOR_MAP,
                              "the same for keys (default: as labels)"},
    [LSP_KEY_SHAPE_BATCH] = {"shape", "batch", LSP_OPTION_INT, "1", NULL, 1, EVERY, SHAPES, "batches"},
    [LSP_KEY_SHAPE_HEADS] = {"shape", "heads", LSP_OPTION_INT, "1", NULL, 1, EVERY, SHAPES, "query heads"},
    [LSP_KEY_SHAPE_KV_HEADS] = {"shape", "kv_heads", LSP_OPTION_INT, "", NULL, 1, EVERY, SHAPES,
                                "key/value heads (default: as heads)"},
    [LSP_KEY_SHAPE_N] = {"shape", "n", LSP_OPTION_INT, "", NULL, 1, EVERY, SHAPES, "query rows"},
    [LSP_KEY_SHAPE_M] = {"shape", "m", LSP_OPTION_INT, "", NULL, 1, EVERY, SHAPES, "keys (default: as n)"},
    [LSP_KEY_SHAPE_D_K] = {"shape", "d_k", LSP_OPTION_INT, "", NULL, 1, EVERY, SHAPES, "columns of q and k"},
    [LSP_KEY_SHAPE_D_V] = {"shape", "d_v", LSP_OPTION_INT, "", NULL, 1, EVERY, SHAPES,
                           "columns of v (default: as d_k)"},
    [LSP_KEY_SHAPE_TYPE] = {"shape", "type", LSP_OPTION_CHOICE, "f32", "f16|bf16|f32|f64", 0, 0, SHAPES,
                            "element type in the file"},
    [LSP_KEY_SHAPE_DISTRIBUTION] = {"shape", "distribution", LSP_OPTION_CHOICE, "normal",
                                    "normal|peaked|walk", 0, 0, LSP_FOR_GENERATE,
                                    "N(0,1); scores to about +-15; a smooth walk along the rows"},
    [LSP_KEY_SHAPE_SEED] = {"shape", "seed", LSP_OPTION_INT, "0", NULL, 0, EVERY, LSP_FOR_GENERATE,
                            "seed of the random numbers"},
    [LSP_KEY_PLAN_COMMAND] = {"plan", "command", LSP_OPTION_CHOICE, "auto",
                              "auto|attend|svd|layer|map|compare", 0, 0, LSP_FOR_PLAN,
                              "what is planned (auto: by the deck's keys: [layer], [map], [compare], a rank "
                              "without a method for svd, else attend)"},
    [LSP_KEY_PLAN_RANKS] = {"plan", "ranks", LSP_OPTION_INT, "auto", "auto", 1, 1e7, LSP_FOR_PLAN,
                            "ranks to plan for (auto: those running)"},
    [LSP_KEY_PLAN_RANKS_PER_NODE] = {"plan", "ranks_per_node", LSP_OPTION_INT, "auto", "auto", 1, 1e7,
                                     LSP_FOR_PLAN, "ranks on a node (auto: as here)"},
    [LSP_KEY_PLAN_THREADS] = {"plan", "threads", LSP_OPTION_INT, "auto", "auto", 1, 4096, LSP_FOR_PLAN,
                              "threads of a rank to plan for (auto: as here)"},
    [LSP_KEY_PLAN_CORES_PER_NODE] = {"plan", "cores_per_node", LSP_OPTION_INT, "auto", "auto", 1, 1e6,
                                     LSP_FOR_PLAN,
                                     "that the advice may use (auto: plan.ranks_per_node times plan.threads "
                                     "where either is given, else as here)"},
    [LSP_KEY_PLAN_SOCKETS_PER_NODE] = {"plan", "sockets_per_node", LSP_OPTION_INT, "auto", "auto", 1, 1024,
                                       LSP_FOR_PLAN,
                                       "each wants a rank of its own (auto: likewise, or NUMA nodes here)"},
    [LSP_KEY_PLAN_MEMORY_PER_NODE] = {"plan", "memory_per_node", LSP_OPTION_BYTES, "auto", "auto", 1, 1e18,
                                      LSP_FOR_PLAN | LSP_FOR_ATTEND | LSP_FOR_VERIFY | LSP_FOR_BENCH |
                                          LSP_FOR_SVD | LSP_FOR_COMPARE | LSP_FOR_LAYER,
                                      "bytes, or as 64G (auto: what machine, cgroup and Slurm leave)"},
    [LSP_KEY_PLAN_BANDWIDTH] = {"plan", "bandwidth", LSP_OPTION_REAL, "12.5e9", NULL, 1, 1e18, LSP_FOR_PLAN,
                                "of a node's link, bytes per second"},
    [LSP_KEY_PLAN_LATENCY] = {"plan", "latency", LSP_OPTION_REAL, "2e-6", NULL, 0, 1e3, LSP_FOR_PLAN,
                              "of a message, seconds"},
    [LSP_KEY_PLAN_READ_BANDWIDTH] = {"plan", "read_bandwidth", LSP_OPTION_REAL, "auto", "auto", 1, 1e18,
                                     LSP_FOR_PLAN,
                                     "of the file system to all ranks together, bytes per second (auto: as "
                                     "fast as memory, as from a cache)"},
    [LSP_KEY_PLAN_WRITE_BANDWIDTH] = {"plan", "write_bandwidth", LSP_OPTION_REAL, "4e8", NULL, 1, 1e18,
                                      LSP_FOR_PLAN, "likewise, from all ranks, until it is on the disk"},
    [LSP_KEY_PLAN_FLOPS_PER_RANK] = {"plan", "flops_per_rank", LSP_OPTION_REAL, "auto", "auto", 1, 1e18,
                                     LSP_FOR_PLAN,
                                     "of attention's kernels, per second (auto: by plan.bench, or measured "
                                     "here)"},
    [LSP_KEY_PLAN_BENCH] = {"plan", "bench", LSP_OPTION_PATH, "", NULL, 0, 0, LSP_FOR_PLAN,
                            "a report.json of `longspan bench` made where the run will be: its rates count"},
    [LSP_KEY_BENCH_TYPES] = {"bench", "types", LSP_OPTION_WORDS, "f32,f64,bf16", "bf16|f32|f64", 0, 0,
                             LSP_FOR_BENCH, "computing types (also compute.dtype)"},
    [LSP_KEY_BENCH_D] = {"bench", "d", LSP_OPTION_NUMBERS, "64,128", NULL, 1, 65536, LSP_FOR_BENCH,
                         "columns of q, k and v (also shape.d_k, and shape.d_v for v)"},
    [LSP_KEY_BENCH_N] = {"bench", "n", LSP_OPTION_NUMBERS, "auto", "auto", 1, EVERY, LSP_FOR_BENCH,
                         "rows and keys (also shape.n, and shape.m for the keys; auto: 4096, doubled for "
                         "every fourfold number of threads)"},
    [LSP_KEY_BENCH_MASKS] = {"bench", "masks", LSP_OPTION_WORDS, "none,causal,window", "none|causal|window",
                             0, 0, LSP_FOR_BENCH,
                             "masks (also attention.mask); a window has 512 keys unless "
                             "attention.window_left is given"},
    [LSP_KEY_BENCH_THREADS] = {"bench", "threads", LSP_OPTION_NUMBERS, "auto", "auto", 1, 4096, LSP_FOR_BENCH,
                               "threads of a rank (auto: compute.threads; without it 1 and all)"},
    [LSP_KEY_BENCH_ROW_KEYS] = {"bench", "row_keys", LSP_OPTION_INT, "1048576", NULL, 0, EVERY, LSP_FOR_BENCH,
                                "keys that a single query row meets; 0: leave this out"},
    [LSP_KEY_BENCH_SECONDS] = {"bench", "seconds", LSP_OPTION_REAL, "0.5", NULL, 0, 1e6, LSP_FOR_BENCH,
                               "to repeat each measurement (at least 5 times)"},
    [LSP_KEY_BENCH_READ_BYTES] = {"bench", "read_bytes", LSP_OPTION_BYTES, "auto", "auto", 4096, 1e15,
                                  LSP_FOR_BENCH,
                                  "that each thread reads for the bandwidth (auto: twice the last cache)"},
    [LSP_KEY_BENCH_COMPARE] = {"bench", "compare", LSP_OPTION_PATH, "", NULL, 0, 0, LSP_FOR_BENCH,
                               "an earlier report.json to compare with (also --compare FILE)"},
    [LSP_KEY_SCALING_FOLDER] = {"scaling", "folder", LSP_OPTION_PATH, "", NULL, 0, 0, LSP_FOR_SCALING,
                                "folder whose reports (*.json) are a study"},
    [LSP_KEY_SCALING_REPORTS] = {"scaling", "reports", LSP_OPTION_PATH, "", NULL, 0, 0, LSP_FOR_SCALING,
                                 "reports, separated by commas; with a folder: besides"},
    [LSP_KEY_SCALING_KIND] =
        {"scaling", "kind", LSP_OPTION_CHOICE, "auto", "auto|strong|weak", 0, 0, LSP_FOR_SCALING,
         "strong: the same work on more cores; weak: more work (auto: as the reports say)"},
    [LSP_KEY_SCALING_CSV] = {"scaling", "csv", LSP_OPTION_PATH, "", NULL, 0, 0, LSP_FOR_SCALING,
                             "file for the table as CSV"},
    [LSP_KEY_COMPARE_METHODS] =
        {"compare", "methods", LSP_OPTION_WORDS, "", "block|topk|lowrank", 0, 0,
         LSP_FOR_COMPARE | LSP_FOR_PLAN,
         "methods to run beside exact (default: those whose key in [attention] is given, "
         "else all; without its key, a method's values are scaled to the length)"},
    [LSP_KEY_COMPARE_REPEATS] = {"compare", "repeats", LSP_OPTION_INT, "3", NULL, 1, 1000,
                                 LSP_FOR_COMPARE | LSP_FOR_PLAN,
                                 "executions of every method; the fastest counts"},
    [LSP_KEY_IMPORT_SOURCE] = {"import", "source", LSP_OPTION_PATH, "", NULL, 0, 0, LSP_FOR_IMPORT,
                               "safetensors files of a model, separated by commas"},
    [LSP_KEY_IMPORT_NAMES] = {"import", "names", LSP_OPTION_CHOICE, "auto",
                              "auto|bert|llama|gpt2|pytorch|none", 0, 0, LSP_FOR_IMPORT,
                              "names that the layer's weights have; none: take no layer"},
    [LSP_KEY_IMPORT_PREFIX] = {"import", "prefix", LSP_OPTION_PATH, "", NULL, 0, 0, LSP_FOR_IMPORT,
                               "what stands before these names, as encoder.layer.0.attention"},
    [LSP_KEY_IMPORT_LAYER] = {"import", "layer", LSP_OPTION_INT, "", NULL, 0, 1e6, LSP_FOR_IMPORT,
                              "instead of prefix: the layer's number, where that says which"},
    [LSP_KEY_IMPORT_HEADS] = {"import", "heads", LSP_OPTION_INT, "", NULL, 1, EVERY, LSP_FOR_IMPORT,
                              "query heads: the shapes are checked against them"},
    [LSP_KEY_IMPORT_KV_HEADS] = {"import", "kv_heads", LSP_OPTION_INT, "", NULL, 1, EVERY, LSP_FOR_IMPORT,
                                 "key/value heads, likewise"},
    [LSP_KEY_IMPORT_TENSORS] = {"import", "tensors", LSP_OPTION_PATH, "", NULL, 0, 0, LSP_FOR_IMPORT,
                                "single tensors of source to copy, as NAME=/path,..."},
    [LSP_KEY_IMPORT_ARRAYS] = {"import", "arrays", LSP_OPTION_PATH, "", NULL, 0, 0, LSP_FOR_IMPORT,
                               ".npy files to copy, as x=FILE.npy,..."},
    [LSP_KEY_IMPORT_LIST] = {"import", "list", LSP_OPTION_YESNO, "no", NULL, 0, 0, LSP_FOR_IMPORT,
                             "only list what source and arrays hold; writes no output.file"},
};

const lsp_option *lsp_option_get(lsp_key key)
{
    return &registry[key];
}

lsp_key lsp_option_find(const char *section, const char *name)
{
    for (int key = 0; key < LSP_KEY_COUNT; key++) {
        if (strcmp(registry[key].section, section) == 0 && strcmp(registry[key].name, name) == 0) {
            return (lsp_key)key;
        }
    }
    return LSP_KEY_COUNT;
}
