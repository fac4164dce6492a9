/* The table of commands. SPDX-License-Identifier: BSD-3-Clause */
#include "app/app.h"
#include "app/value.h"

#include <string.h>

static const lsp_command table[] = {
    {"attend", "attention of Q, K and V: out and log-sum-exp into an HDF5 file", "[DECK.ini]",
     "Reads the queries, keys and values of [input], computes softmax(scale q k' + mask) v with all ranks,\n"
     "recomputes some rows in double precision, and writes /out and /lse to output.file, which is complete\n"
     "or absent. The bits of the result do not depend on the number of ranks or threads, nor on how keys\n"
     "are gathered or rows are dealt.\n",
     LSP_TAKES_DECK, LSP_FOR_ATTEND, lsp_attend_run},
    {"bench", "speed of kernels and memory against what this machine gives",
     "[DECK.ini] [--compare FILE.json]",
     "Measures the FMA peak of every type and instruction set, the bandwidth of reading memory, and whole\n"
     "executions of attention on random operands over the grid of [bench], each beside the peak (a single\n"
     "query row: the bandwidth) of the same moments. GFLOP/s count visible pairs only. With several ranks\n"
     "peaks are sums, and the slowest rank's time counts. --compare FILE.json shows each cell beside the "
     "one\n"
     "of an earlier report.json, and marks those slower by more than the repetitions scatter. Operands have\n"
     "the computing type unless shape.type is given.\n",
     LSP_TAKES_DECK, LSP_FOR_BENCH, lsp_bench_run},
    {"compare", "exact beside its approximations on the same input: error, time, memory", "[DECK.ini]",
     "Runs exact attention once, and beside it block, topk and lowrank with every value of the lists\n"
     "attention.block_size, attention.topk and attention.rank, on the same operands. Tells for each: time, "
     "its\n"
     "share of exact's, bytes per rank, the true relative error of the output over all rows, the largest of "
     "a\n"
     "row, how much of the softmax is kept, and the method's certificate; marks those that no other beats "
     "in\n"
     "both error and time. Nothing is written but report.json and a picture to report.plot. Time is that of\n"
     "the fastest of compare.repeats executions, by the wall, of the slowest rank. A run that is stopped "
     "keeps\n"
     "the methods that are finished in checkpoint.file, and started again goes on with the others.\n",
     LSP_TAKES_DECK, LSP_FOR_COMPARE, lsp_compare_run},
    {"generate", "synthetic /q, /k and /v of any shape", "[DECK.ini]",
     "Writes /q, /k and /v of the given [shape] to output.file. The file's contents depend on the keys of\n"
     "[shape] alone, not on the number of ranks.\n",
     LSP_TAKES_DECK, LSP_FOR_GENERATE, lsp_generate_run},
    {"import", "weights of a trained model, and NumPy's arrays, into HDF5", "[DECK.ini]",
     "Takes the attention of one layer out of safetensors files (import.source) and writes it as\n"
     "/qkv_proj.weight (rows: queries, keys, values), /out_proj.weight, and .bias where the model has them.\n"
     "Known names (import.names): bert, llama (also Qwen3's q_norm and k_norm), gpt2, and pytorch for\n"
     "nn.MultiheadAttention. Which layer is said by import.prefix or import.layer, where there are several.\n"
     "import.tensors and import.arrays copy single tensors and .npy files to datasets of any name: /x, /q.\n"
     "f16 and bf16 become f32, exactly, in /x, /context, and what ends in .weight or .bias; all else keeps\n"
     "its type, integers become int64. With import.list = yes names, types and shapes are listed.\n",
     LSP_TAKES_DECK, LSP_FOR_IMPORT, lsp_import_run},
    {"info", "what is in an HDF5, safetensors or .npy file", "FILE",
     "Lists every object of the file: shapes, types, attributes.\n", LSP_TAKES_FILE, 0, lsp_info_run},
    {"layer", "a multi-head attention layer: X and weights in, Y out", "[DECK.ini]",
     "Reads rows /x, projects them to queries, keys and values (of a context, in cross-attention) by the\n"
     "weights /qkv_proj.weight and /out_proj.weight, in PyTorch's shapes and order, attends by any method,\n"
     "projects the heads' outputs and writes /y to output.file. Each rank has a share of the rows. The bits "
     "of\n"
     "the result do not depend on the number of ranks or threads.\n",
     LSP_TAKES_DECK, LSP_FOR_LAYER, lsp_layer_run},
    {"map", "what each head attends to: pictures, figures of rows and keys, strongest links", "[DECK.ini]",
     "Looks at the weights softmax(scale q k' + mask) of every head without storing them, whatever the "
     "length:\n"
     "the attention matrix pooled to map.pixels x map.pixels (mean and largest weight), every row's "
     "entropy,\n"
     "mean distance and share of the weight on itself, on the first key and on near keys, how much every "
     "key\n"
     "receives, and the map.links strongest links. To output.file (/map), report.json, a picture\n"
     "(report.plot) and a page (report.html), each of which may be left out.\n",
     LSP_TAKES_DECK, LSP_FOR_MAP, lsp_map_run},
    {"merge", "joins outputs over disjoint key ranges into the exact whole", "[DECK.ini]",
     "Joins the outputs (/out and /lse) of several `attend` runs on the same rows, made with different\n"
     "input.keys, into what one run over all these keys gives.\n",
     LSP_TAKES_DECK, LSP_FOR_MERGE, lsp_merge_run},
    {"plan", "memory, traffic, file sizes and time of a run, how to start it, and the line that submits it",
     "[DECK.ini]",
     "Says what a run of another command with this deck takes on plan.ranks ranks: bytes per rank by item,\n"
     "operations, traffic, file sizes, seconds part by part and what limits them; which ranks, threads and "
     "panels\n"
     "would take least, and the sbatch line for that. Which command: plan.command, or by the deck's keys. "
     "The shape\n"
     "is that of [shape] when shape.n is given, else that of the input. What the machine does in a second "
     "is\n"
     "measured here (a fraction of a second of attention), or taken from a report of `bench` (plan.bench). "
     "Exit\n"
     "status 5 when the run does not fit into a node's memory.\n",
     LSP_TAKES_DECK, LSP_FOR_PLAN, lsp_plan_run_command},
    {"scaling", "speed-up and efficiency from the reports of a study", "[DECK.ini]",
     "Reads the JSON reports of runs on different numbers of nodes, ranks and threads, takes medians of "
     "repeated\n"
     "runs, and gives speed-up and efficiency against the fewest cores, and the shares of computing, "
     "exposed\n"
     "gather, reading and writing: a table, scaling.csv, report.json, and report.plot with the ideal line "
     "(PNG\n"
     "and SVG). Runs that differ in method, mask, type or gather mode make curves of their own.\n",
     LSP_TAKES_DECK, LSP_FOR_SCALING, lsp_scaling_run_command},
    {"svd", "truncated singular value decomposition of the attention matrix, with its error", "[DECK.ini]",
     "For every head: the largest singular values of W = softmax(scale q k' + mask) and their vectors, "
     "without\n"
     "forming W; the error of the truncated matrix, from a certificate; how many singular values have 90, "
     "99\n"
     "and 99.9 % of the energy. Either attention.rank or attention.tolerance says how many. Writes\n"
     "/singular_values, /u and /vt to output.file (which may be left out), a picture to report.plot.\n",
     LSP_TAKES_DECK, LSP_FOR_SVD, lsp_svd_run},
    {"verify", "checks a stored output again: sampled rows, checksums", "[DECK.ini | FILE.h5]",
     "With the deck of an `attend` run: recomputes sampled rows from the inputs in double precision,\n"
     "compares them with those stored in output.file, and checks stored checksums. With an HDF5 file:\n"
     "checks the checksums of all its datasets. Exit status 4 when a check fails.\n",
     LSP_TAKES_EITHER, LSP_FOR_VERIFY, lsp_verify_run},
    {NULL, NULL, NULL, NULL, LSP_TAKES_DECK, 0, NULL},
};

const lsp_command *lsp_command_table(void)
{
    return table;
}

const lsp_command *lsp_command_find(const char *name)
{
    for (const lsp_command *command = table; command->name; command++) {
        if (strcmp(command->name, name) == 0) return command;
    }
    return NULL;
}

const char *lsp_command_nearest(const char *name)
{
    const char *nearest = NULL;
    int least = 1000;
    for (const lsp_command *command = table; command->name; command++) {
        int distance = lsp_value_distance(name, command->name);
        if (distance < least) {
            least = distance;
            nearest = command->name;
        }
    }
    return nearest;
}
