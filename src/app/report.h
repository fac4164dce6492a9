/* What a run of attention tells: numbers over all ranks, as a summary and as JSON.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_REPORT_H
#define LSP_APP_REPORT_H

#include "app/certificate.h"
#include "app/checkpoint.h"
#include "app/collect.h"
#include "app/input.h"

typedef enum lsp_phase {
    LSP_PHASE_READ, /* opening, reading and screening the input */
    LSP_PHASE_COMPUTE,
    LSP_PHASE_GATHER, /* exposed: waiting for panels */
    LSP_PHASE_VERIFY,
    LSP_PHASE_WRITE, /* creating, writing and closing the output */
    LSP_PHASE_TOTAL,
    LSP_PHASE_COUNT
} lsp_phase;

typedef struct lsp_report {
    const lsp_input *input;
    const lsp_keeper *keeper;
    const char *output; /* file, or NULL */
    lsp_estimate estimate;
    lsp_isa isa;
    const char *memory_source; /* what set memory_limit */
    int64_t memory_limit;

    double seconds[LSP_PHASE_COUNT]; /* of this rank */
    double flops, peak_gflops;
    double received;               /* bytes, of this rank */
    int64_t empty_rows, nonfinite; /* empty_rows: of this rank, until collected */
    bool verified;                 /* verify holds a result */
    lsp_verify_result verify;
    lsp_certificate certificate;
    bool has_lse;
    uint64_t out_checksum, lse_checksum;

    /* By lsp_report_collect. */
    lsp_statistic phases[LSP_PHASE_COUNT];
    double received_all;
    int64_t rss_max;
    double gflops, efficiency;
} lsp_report;

/* Collective. Fills what is over all ranks. */
void lsp_report_collect(lsp_app *app, lsp_report *report);

/* Local (rank 0). Prints the closing summary, without the last line. */
void lsp_summary_print(lsp_app *app, const lsp_report *report);

/* Local (rank 0). "unused: section.key, ..." when keys were given and not used. */
void lsp_summary_unused(const lsp_app *app);

/* Local. The rule of the scores in words: "causal (bottom-right), softcap 30". */
enum { LSP_RULE_TEXT = 256 };
const char *lsp_summary_rule(const lsp_attention_desc *desc, char *text);

/* Local. How keys come to the ranks, in words: "keys by panels (8 of up to 2048 keys)"; nothing comes where
 * every rank has all the keys of its heads, on one rank above all. text: LSP_RULE_TEXT bytes. */
const char *lsp_summary_keys(const lsp_estimate *estimate, int ranks, char *text);

/* A phase's name in report.json and for people; those of [LSP_PHASE_COUNT]. */
typedef struct lsp_phase_name {
    const char *json, *text;
} lsp_phase_name;
extern const lsp_phase_name lsp_phase_names[LSP_PHASE_COUNT];

/* Local (rank 0). Parts of a summary: ranks, threads and nodes; the table of seconds; memory and traffic; numbers that
 * are not finite, if there are; and how it ended. */
void lsp_summary_machine(const lsp_app *app, lsp_isa isa);
void lsp_summary_times(const lsp_phase_name *names, const lsp_statistic *of, int count);
void lsp_summary_phases(const lsp_statistic *phases); /* [LSP_PHASE_COUNT] */
void lsp_summary_memory(int64_t rss_max, double received);
void lsp_summary_nonfinite(int64_t count);
void lsp_summary_verdict(const lsp_verify_result *verify, const char *output); /* NULL: not verified */

/* ---- JSON ------------------------------------------------------------------------------------------ */

/* Collective. Fails early (LSP_ERR_FILE) when report.json is given and cannot be written. */
lsp_status lsp_json_probe(lsp_app *app);

/* Local. At the start, before anything is made of cJSON: lets what it has no memory for be found when a report is written,
 * or asked for. */
void lsp_json_prepare(void);
bool lsp_json_starved(void);

/* Local. A new object with schema, command, version, ranks, threads, nodes; the shape of a desc;
 * a checksum as 16 hexadecimal digits. NULL objects are allowed (out of memory is found when writing). */
cJSON *lsp_json_begin(const lsp_app *app);
void lsp_json_add_shape(cJSON *object, const lsp_attention_desc *desc);
void lsp_json_add_checksum(cJSON *object, const char *name, uint64_t checksum);
void lsp_json_add_part(cJSON *object, const lsp_attention_desc *desc);
void lsp_json_add_times(cJSON *object, const lsp_phase_name *names, const lsp_statistic *of, int count);
void lsp_json_add_phases(cJSON *object, const lsp_statistic *phases); /* [LSP_PHASE_COUNT] */
void lsp_json_add_plan(cJSON *object, const lsp_attention_desc *desc, const lsp_estimate *estimate);
void lsp_json_add_bytes(cJSON *object, double received, int64_t rss_max);
void lsp_json_add_output(cJSON *object, const char *file, uint64_t checksum); /* NULL: none was written */
void lsp_json_add_number(cJSON *object, const char *name, double value); /* infinities and NaN become null */
void lsp_json_add_item(cJSON *array, cJSON *item); /* takes the item, whatever happens */
void lsp_json_add_verify(cJSON *object, const lsp_verify_result *result); /* NULL: nothing was verified */

/* Local. The report of a run of attention. */
cJSON *lsp_json_report(const lsp_app *app, const lsp_report *report);

/* Collective. Rank 0 writes the object to report.json, complete or not at all, when that is given; all free theirs. */
lsp_status lsp_json_write(lsp_app *app, cJSON *object);

#endif
