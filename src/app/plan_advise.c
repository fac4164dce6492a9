/* How a planned run is started best, and the line that does it. SPDX-License-Identifier: BSD-3-Clause */
#include "app/plan.h"
#include "base/checked.h"
#include "base/memory.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* What is gained must be worth changing a deck for. */
static const double worth = 0.99;

/* Time and memory to spare in a job. */
static const double time_factor = 1.5, time_seconds = 300, memory_factor = 1.15;
enum { ROUND_SECONDS = 300, PROCESS_BYTES = 128 << 20, GIB = 1 << 30 };

/* ---- the setting --------------------------------------------------------------------------------- */

static bool fits(const lsp_plan_job *job, const lsp_plan_outcome *o)
{
    return job->memory_limit <= 0 || o->node_bytes <= job->memory_limit;
}

static bool is_better(const lsp_plan_job *job, const lsp_plan_outcome *o, const lsp_plan_outcome *best)
{
    if (fits(job, o) != fits(job, best)) return fits(job, o);
    return o->time.total < worth * best->time.total;
}

/* Ranks of a node from one a socket to one a core, threads as cores are left to each. */
static lsp_status advise_ranks(lsp_plan_job *job, lsp_plan_outcome *best)
{
    int nodes = lsp_plan_nodes(&job->asked.setting);
    bool first = true;
    for (int per_node = job->sockets; per_node <= job->cores; per_node++) {
        if (job->cores % per_node != 0 && per_node != job->sockets) continue; /* cores would be left over */
        lsp_plan_setting s = {.ranks_per_node = per_node, .threads = job->cores / per_node};
        int64_t ranks = (int64_t)nodes * per_node;
        if (!lsp_checked_int(ranks, &s.ranks)) break;
        lsp_plan_outcome o;
        lsp_status status = lsp_plan_try(job, &s, &o);
        if (status != LSP_OK) return status;
        if (first || is_better(job, &o, best)) *best = o;
        first = false;
    }
    return LSP_OK;
}

/* Panels half and twice as high as the library would make them, and so on. */
static lsp_status advise_panels(lsp_plan_job *job, lsp_plan_outcome *best)
{
    const lsp_estimate *e = &best->estimate;
    int64_t chosen = e->panel_keys;
    if (job->kind == LSP_PLAN_LAYER || best->setting.ranks == 1 || e->gather == LSP_GATHER_ALL) return LSP_OK;
    for (int64_t height = e->tile_keys; height <= 64 * chosen && height <= job->items[0].desc.m;
         height *= 2) {
        lsp_plan_setting s = best->setting;
        s.panel_rows = height;
        lsp_plan_outcome o;
        lsp_status status = lsp_plan_try(job, &s, &o);
        if (status != LSP_OK) return status;
        if (is_better(job, &o, best)) *best = o;
    }
    return LSP_OK;
}

lsp_status lsp_plan_advise(lsp_plan_job *job)
{
    job->advised = job->asked;
    lsp_status status = advise_ranks(job, &job->advised);
    if (status == LSP_OK) status = advise_panels(job, &job->advised);
    /* What was asked for stays unless another is worth it. */
    if (status == LSP_OK && !is_better(job, &job->advised, &job->asked) && fits(job, &job->asked) &&
        job->asked.setting.ranks_per_node * job->asked.setting.threads == job->cores)
        job->advised = job->asked;
    return status;
}

/* ---- the line ------------------------------------------------------------------------------------ */

typedef struct line {
    char *text;
    size_t size, used;
} line;

static void add(line *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(line *l, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(l->text + l->used, l->size - l->used, format, args);
    va_end(args);
    if (length > 0 && (size_t)length < l->size - l->used) l->used += (size_t)length;
}

/* As one word of a shell. A quote within becomes four characters, and within a word within a word sixteen. */
static void add_word(line *l, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=.,:/@%";
    if (*word && word[strspn(word, plain)] == '\0') {
        add(l, "%s", word);
        return;
    }
    add(l, "'");
    for (; *word; word++) add(l, *word == '\'' ? "'\\''" : "%c", *word);
    add(l, "'");
}

/* Options of the planning's own command line go with the deck; what the job's size decides does not. */
static bool goes_along(const lsp_plan_job *job, lsp_key key)
{
    const lsp_option *option = lsp_option_get(key);
    const lsp_options *options = job->app->options;
    return lsp_options_is_set(options, key) && strncmp(lsp_options_origin(options, key), "--", 2) == 0 &&
           key != LSP_KEY_COMPUTE_THREADS && key != LSP_KEY_REPORT_JSON &&
           strcmp(option->section, "plan") != 0 && strcmp(option->section, "shape") != 0 &&
           !(job->advised.setting.panel_rows > 0 && key == LSP_KEY_COMPUTE_PANEL_ROWS);
}

static void add_options(const lsp_plan_job *job, line *l)
{
    for (int key = 0; key < LSP_KEY_COUNT; key++) {
        const lsp_option *option = lsp_option_get((lsp_key)key);
        if (!goes_along(job, (lsp_key)key)) continue;
        add(l, " --%s.%s=", option->section, option->name);
        add_word(l, lsp_options_peek(job->app->options, (lsp_key)key));
    }
    if (job->advised.setting.panel_rows > 0)
        add(l, " --compute.panel_rows=%" PRId64, job->advised.setting.panel_rows);
}

static size_t most_characters(const lsp_plan_job *job)
{
    size_t size = 1024 + 16 * strlen(job->app->operand ? job->app->operand : "");
    for (int key = 0; key < LSP_KEY_COUNT; key++)
        size += 128 + 16 * strlen(lsp_options_peek(job->app->options, (lsp_key)key));
    return size;
}

char *lsp_plan_submit(const lsp_plan_job *job)
{
    const lsp_plan_outcome *o = &job->advised;
    const lsp_plan_setting *s = &o->setting;
    line l = {.size = most_characters(job)};
    l.text = lsp_memory_zalloc((int64_t)l.size, 1);
    if (!l.text) return NULL;
    double slowest = fmax(o->time.total, job->asked.time.total);
    int64_t seconds = (int64_t)ceil((time_factor * slowest + time_seconds) / ROUND_SECONDS) * ROUND_SECONDS;
    double bytes = memory_factor * o->node_bytes + (double)PROCESS_BYTES * s->ranks_per_node;
    add(&l, "sbatch --nodes=%d --ntasks-per-node=%d --cpus-per-task=%d --time=%02" PRId64 ":%02" PRId64 ":00",
        lsp_plan_nodes(s), s->ranks_per_node, s->threads, seconds / 3600, seconds / 60 % 60);
    add(&l, " --mem=%.0fG", fmax(1, ceil(bytes / GIB)));
    const char *command = job->as.command->name, *deck = job->app->operand ? job->app->operand : "DECK.ini";
    if (job->kind == LSP_PLAN_MAP) {
        line inner = {.size = l.size, .text = lsp_memory_zalloc((int64_t)l.size, 1)};
        if (inner.text) {
            add(&inner, "srun --mpi=pmix -c %d longspan map ", s->threads);
            add_word(&inner, deck);
            add_options(job, &inner);
            add(&l, " --wrap=");
            add_word(&l, inner.text);
        }
        lsp_memory_free(inner.text);
        return l.text;
    }
    add(&l, " jobs/%s.sbatch ", command);
    add_word(&l, deck);
    add_options(job, &l);
    return l.text;
}
