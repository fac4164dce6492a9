/* The registry of deck keys, and the values given in a deck or on the command line.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_OPTIONS_H
#define LSP_APP_OPTIONS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum lsp_key {
    LSP_KEY_INPUT_FILE,
    LSP_KEY_INPUT_Q,
    LSP_KEY_INPUT_K,
    LSP_KEY_INPUT_V,
    LSP_KEY_INPUT_DOCUMENTS,
    LSP_KEY_INPUT_DOCUMENTS_K,
    LSP_KEY_INPUT_KEY_LENGTHS,
    LSP_KEY_INPUT_LAYOUT,
    LSP_KEY_INPUT_HEADS,
    LSP_KEY_INPUT_ROWS,
    LSP_KEY_INPUT_KEYS,
    LSP_KEY_INPUT_PARTS,
    LSP_KEY_INPUT_X,
    LSP_KEY_INPUT_CONTEXT,
    LSP_KEY_INPUT_LAYER_WEIGHTS,
    LSP_KEY_OUTPUT_FILE,
    LSP_KEY_OUTPUT_OVERWRITE,
    LSP_KEY_OUTPUT_LSE,
    LSP_KEY_OUTPUT_VECTORS,
    LSP_KEY_OUTPUT_WEIGHTS,
    LSP_KEY_ATTENTION_METHOD,
    LSP_KEY_ATTENTION_MASK,
    LSP_KEY_ATTENTION_CAUSAL_ALIGN,
    LSP_KEY_ATTENTION_WINDOW_LEFT,
    LSP_KEY_ATTENTION_WINDOW_RIGHT,
    LSP_KEY_ATTENTION_SCALE,
    LSP_KEY_ATTENTION_SOFTCAP,
    LSP_KEY_ATTENTION_ALIBI,
    LSP_KEY_ATTENTION_RANK,
    LSP_KEY_ATTENTION_TOLERANCE,
    LSP_KEY_ATTENTION_SVD,
    LSP_KEY_ATTENTION_OVERSAMPLE,
    LSP_KEY_ATTENTION_STEPS,
    LSP_KEY_ATTENTION_SEED,
    LSP_KEY_ATTENTION_ALLOW_LEAK,
    LSP_KEY_ATTENTION_BLOCK_SIZE,
    LSP_KEY_ATTENTION_TOPK,
    LSP_KEY_ATTENTION_RENORMALIZE,
    LSP_KEY_LAYER_HEADS,
    LSP_KEY_LAYER_KV_HEADS,
    LSP_KEY_LAYER_BIAS,
    LSP_KEY_LAYER_ROPE_BASE,
    LSP_KEY_LAYER_ROPE_PAIRING,
    LSP_KEY_LAYER_QK_NORM,
    LSP_KEY_LAYER_QK_NORM_EPS,
    LSP_KEY_COMPUTE_DTYPE,
    LSP_KEY_COMPUTE_THREADS,
    LSP_KEY_COMPUTE_ISA,
    LSP_KEY_COMPUTE_GATHER,
    LSP_KEY_COMPUTE_PANEL_ROWS,
    LSP_KEY_COMPUTE_HEAD_GROUPS,
    LSP_KEY_COMPUTE_PARTITION,
    LSP_KEY_COMPUTE_NONFINITE,
    LSP_KEY_CHECKPOINT_FILE,
    LSP_KEY_CHECKPOINT_EVERY_SECONDS,
    LSP_KEY_CHECKPOINT_RESUME,
    LSP_KEY_CHECKPOINT_MARGIN,
    LSP_KEY_CHECKPOINT_WATCHDOG,
    LSP_KEY_VERIFY_ROWS,
    LSP_KEY_VERIFY_TOLERANCE,
    LSP_KEY_REPORT_JSON,
    LSP_KEY_REPORT_PROGRESS,
    LSP_KEY_REPORT_PLOT,
    LSP_KEY_REPORT_HTML,
    LSP_KEY_MAP_PIXELS,
    LSP_KEY_MAP_LINKS,
    LSP_KEY_MAP_LABELS,
    LSP_KEY_MAP_LABELS_K,
    LSP_KEY_SHAPE_BATCH,
    LSP_KEY_SHAPE_HEADS,
    LSP_KEY_SHAPE_KV_HEADS,
    LSP_KEY_SHAPE_N,
    LSP_KEY_SHAPE_M,
    LSP_KEY_SHAPE_D_K,
    LSP_KEY_SHAPE_D_V,
    LSP_KEY_SHAPE_TYPE,
    LSP_KEY_SHAPE_DISTRIBUTION,
    LSP_KEY_SHAPE_SEED,
    LSP_KEY_PLAN_COMMAND,
    LSP_KEY_PLAN_RANKS,
    LSP_KEY_PLAN_RANKS_PER_NODE,
    LSP_KEY_PLAN_THREADS,
    LSP_KEY_PLAN_CORES_PER_NODE,
    LSP_KEY_PLAN_SOCKETS_PER_NODE,
    LSP_KEY_PLAN_MEMORY_PER_NODE,
    LSP_KEY_PLAN_BANDWIDTH,
    LSP_KEY_PLAN_LATENCY,
    LSP_KEY_PLAN_READ_BANDWIDTH,
    LSP_KEY_PLAN_WRITE_BANDWIDTH,
    LSP_KEY_PLAN_FLOPS_PER_RANK,
    LSP_KEY_PLAN_BENCH,
    LSP_KEY_BENCH_TYPES,
    LSP_KEY_BENCH_D,
    LSP_KEY_BENCH_N,
    LSP_KEY_BENCH_MASKS,
    LSP_KEY_BENCH_THREADS,
    LSP_KEY_BENCH_ROW_KEYS,
    LSP_KEY_BENCH_SECONDS,
    LSP_KEY_BENCH_READ_BYTES,
    LSP_KEY_BENCH_COMPARE,
    LSP_KEY_SCALING_FOLDER,
    LSP_KEY_SCALING_REPORTS,
    LSP_KEY_SCALING_KIND,
    LSP_KEY_SCALING_CSV,
    LSP_KEY_COMPARE_METHODS,
    LSP_KEY_COMPARE_REPEATS,
    LSP_KEY_IMPORT_SOURCE,
    LSP_KEY_IMPORT_NAMES,
    LSP_KEY_IMPORT_PREFIX,
    LSP_KEY_IMPORT_LAYER,
    LSP_KEY_IMPORT_HEADS,
    LSP_KEY_IMPORT_KV_HEADS,
    LSP_KEY_IMPORT_TENSORS,
    LSP_KEY_IMPORT_ARRAYS,
    LSP_KEY_IMPORT_LIST,
    LSP_KEY_COUNT
} lsp_key;

typedef enum lsp_option_kind {
    LSP_OPTION_PATH,    /* a file, a dataset, or a list of files */
    LSP_OPTION_INT,     /* low..high */
    LSP_OPTION_REAL,    /* low..high */
    LSP_OPTION_BYTES,   /* a number with an optional K, M, G or T (powers of 1024) */
    LSP_OPTION_YESNO,   /* yes, no */
    LSP_OPTION_CHOICE,  /* one of `words` */
    LSP_OPTION_HEADS,   /* "all", or numbers and ranges: 0,3-5 */
    LSP_OPTION_RANGE,   /* "all", or a:b, half-open */
    LSP_OPTION_NUMBERS, /* numbers of low..high, separated by commas; or the word */
    LSP_OPTION_CHOICES, /* a whole number of low..high; several, as NUMBERS, where a command compares them */
    LSP_OPTION_WORDS    /* some of `words`, separated by commas */
} lsp_option_kind;

/* The commands that use a key. */
enum { LSP_FOR_ATTEND = 1, LSP_FOR_GENERATE = 2, LSP_FOR_VERIFY = 4, LSP_FOR_MERGE = 8, LSP_FOR_PLAN = 16 };
enum { LSP_FOR_SVD = 32, LSP_FOR_BENCH = 1 << 10, LSP_FOR_COMPARE = 1 << 11, LSP_FOR_SCALING = 1 << 12 };
enum { LSP_FOR_LAYER = 1 << 13, LSP_FOR_MAP = 1 << 14 };
enum { LSP_FOR_IMPORT = 1 << 9 };

enum { LSP_ITEMS_MOST = 64 }; /* of NUMBERS, CHOICES and WORDS */

typedef struct lsp_option {
    const char *section, *name;
    lsp_option_kind kind;
    const char *fallback; /* value when not given, as text; "" for none */
    const char *words;    /* CHOICE, WORDS: "a|b|c", in the order of the library's constants. Numbers: a word
                             ("auto") that stands for 0, or NULL */
    double low, high;     /* numbers */
    unsigned commands;
    const char *help;
} lsp_option;

/* Local. The registry's entry; the key of a name, LSP_KEY_COUNT when there is none. */
const lsp_option *lsp_option_get(lsp_key key);
lsp_key lsp_option_find(const char *section, const char *name);

typedef struct lsp_options lsp_options;

/* Local. An empty set of values (all at their defaults); NULL when out of memory. */
lsp_options *lsp_options_create(void);
void lsp_options_destroy(lsp_options *options);

/* Local. Sets a value after checking it. `origin` says where it comes from ("deck.ini:12",
 * "--input.q"); texts are copied. LSP_ERR_USAGE for an unknown section or key (naming the nearest) or
 * a bad value (naming what is allowed). */
lsp_status lsp_options_set(lsp_options *options, const char *section, const char *name, const char *value,
                           const char *origin, lsp_error *error);

/* Local. Values; each of these marks the key as used. Texts are owned by the options. A choice is its
 * index in `words`. is_set (given by the user), peek and origin do not mark. */
const char *lsp_options_text(lsp_options *options, lsp_key key);
int64_t lsp_options_int(lsp_options *options, lsp_key key);
double lsp_options_real(lsp_options *options, lsp_key key);
bool lsp_options_yes(lsp_options *options, lsp_key key);
int lsp_options_choice(lsp_options *options, lsp_key key);
/* Items of NUMBERS or CHOICES, or of WORDS as indices; returns how many, 0 when the value is the word for "chosen". */
int64_t lsp_options_items(lsp_options *options, lsp_key key, int64_t items[LSP_ITEMS_MOST]);
bool lsp_options_is_set(const lsp_options *options, lsp_key key);
const char *lsp_options_peek(const lsp_options *options, lsp_key key);
const char *lsp_options_origin(const lsp_options *options, lsp_key key);

/* Local. LSP_ERR_USAGE naming the missing key unless it was given. `why` tells who needs it. */
lsp_status lsp_options_require(const lsp_options *options, lsp_key key, const char *why, lsp_error *error);

/* Local. The one number of CHOICES, in *value; LSP_ERR_USAGE when several were given, which `why` cannot take. Marks. */
lsp_status lsp_options_one(lsp_options *options, lsp_key key, const char *why, int64_t *value,
                           lsp_error *error);

/* Local. "section.key, section.key, ..." of the keys given and not used so far, into text; "" for none. */
void lsp_options_unused(const lsp_options *options, char *text, size_t size);

#endif
