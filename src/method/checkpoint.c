/* Saving the state of an execution at rest, and going on from it: what a state belongs to, and its arrays.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "method/checkpoint.h"

#include "base/checked.h"
#include "base/memory.h"
#include "method/attention.h"
#include "method/identity.h"
#include "method/method.h"
#include "method/sights.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A state as files have it: the head, and the arrays with their runs, rows counted from the part's first. */
typedef struct saved {
    lsp_saved_head *head;
    lsp_saved_rows arrays[LSP_STATE_MOST];
    int count;
    lsp_run *runs;
} saved;

static void forget(saved *s)
{
    lsp_memory_free(s->head);
    lsp_memory_free(s->runs);
}

static lsp_status describe(lsp_attention *plan, const char *marks, saved *s)
{
    lsp_context *ctx = plan->ctx;
    const lsp_attention_desc *d = &plan->problem.desc;
    const lsp_method_ops *method = lsp_method_get(d->method);
    if (!method->state)
        return lsp_context_fail(ctx, LSP_ERR_USAGE, "the state of method %s cannot be saved", method->name);
    s->head = lsp_memory_zalloc(1, sizeof *s->head);
    s->runs = lsp_memory_alloc(plan->query_run_count, sizeof *s->runs);
    if (!s->head || !s->runs)
        return lsp_context_fail(ctx, LSP_ERR_LIMIT, "not enough memory to describe a checkpoint");
    for (int64_t i = 0; i < plan->query_run_count; i++) {
        s->runs[i] = plan->query_runs[i];
        s->runs[i].begin -= d->row_begin;
    }
    lsp_state_rows rows[LSP_STATE_MOST];
    s->count = method->state(plan, rows);
    for (int i = 0; i < s->count; i++)
        s->arrays[i] = (lsp_saved_rows){rows[i].name,
                                        rows[i].type,
                                        d->batch,
                                        d->heads,
                                        d->row_end - d->row_begin,
                                        rows[i].columns,
                                        s->runs,
                                        plan->query_run_count,
                                        rows[i].rows};
    if (lsp_identity_write(plan, marks, s->head->identity, sizeof s->head->identity)) return LSP_OK;
    return lsp_context_fail(ctx, LSP_ERR_LIMIT, "the description of a checkpoint is too long");
}

lsp_status lsp_checkpoint_id(const lsp_attention *plan, const char *marks, char id[LSP_STATE_ID])
{
    lsp_saved_head *head = lsp_memory_zalloc(1, sizeof *head);
    bool fits = head && lsp_identity_write(plan, marks, head->identity, sizeof head->identity);
    if (fits) lsp_identity_digest(head->identity, id);
    lsp_memory_free(head);
    return fits ? LSP_OK
                : lsp_context_fail(plan->ctx, LSP_ERR_LIMIT, "not enough memory to describe a checkpoint");
}

/* ---- how far a state is ------------------------------------------------------------------------ */

static double count_pairs(const lsp_attention *plan)
{
    double pairs = 0;
    for (int64_t m = 0; m < plan->matrix_count; m++) {
        const lsp_query_matrix *matrix = &plan->matrices[m];
        for (int64_t r = 0, range = 0, before = 0; r < plan->rows; r++) {
            int64_t row = lsp_attention_global_row(plan, r, &range, &before);
            lsp_sight sight = lsp_mask_sight(&plan->problem.mask, matrix->batch, row);
            int64_t end = lsp_min(sight.end, plan->met[matrix->first + r]);
            pairs += (double)lsp_max(0, end - sight.begin);
        }
    }
    return pairs;
}

/* Collective. */
static lsp_status measure(lsp_attention *plan, double *done)
{
    double pairs[2] = {count_pairs(plan), plan->pairs};
    lsp_status status = lsp_context_sum_f64(plan->ctx, pairs, 2);
    double share = pairs[1] > 0 ? pairs[0] / pairs[1] : 1;
    double first = lsp_method_get(plan->problem.desc.method)->first_phase;
    *done = first > 0 ? (plan->phase == 0 ? first * share : first + (1 - first) * share) : share;
    return status;
}

/* ---- saving ------------------------------------------------------------------------------------ */

lsp_status lsp_checkpoint_save(lsp_attention *plan, const char *file, const char *marks, int64_t *bytes)
{
    saved s = {.head = NULL};
    double done = 0;
    lsp_status status = lsp_context_agree(plan->ctx, describe(plan, marks, &s));
    if (status == LSP_OK) status = measure(plan, &done);
    if (status == LSP_OK) {
        (void)snprintf(s.head->progress, sizeof s.head->progress, "phase = %" PRId64 "\ndone = %.6f\n",
                       plan->phase, done);
        status = lsp_saved_write(plan->ctx, file, s.head, s.arrays, s.count, bytes);
    }
    forget(&s);
    return status;
}

/* ---- finding ----------------------------------------------------------------------------------- */

static void take_info(const lsp_saved_head *head, const char *file, bool previous, lsp_checkpoint_info *info)
{
    char isa[32] = "", done[32] = "";
    info->found = true;
    info->previous = previous;
    (void)snprintf(info->file, sizeof info->file, "%s", file);
    (void)lsp_identity_value(head->identity, "compute.isa", isa, sizeof isa);
    (void)lsp_identity_value(head->progress, "done", done, sizeof done);
    info->done = strtod(done, NULL);
    info->isa = LSP_ISA_AUTO;
    for (int i = LSP_ISA_PORTABLE; i <= LSP_ISA_AVX512; i++)
        if (strcmp(lsp_isa_name((lsp_isa)i), isa) == 0) info->isa = (lsp_isa)i;
}

/* Collective. The head of `file` or of the one before; *info tells which. */
static lsp_status find(lsp_context *ctx, const char *file, lsp_saved_head *head, lsp_checkpoint_info *info)
{
    char previous[PATH_MAX];
    bool here = false, before = false;
    if (!lsp_saved_previous(file, previous))
        return lsp_context_fail(ctx, LSP_ERR_FILE, "the name of the checkpoint '%s' is too long", file);
    lsp_status status = lsp_saved_exists(ctx, file, &here);
    if (status == LSP_OK) status = lsp_saved_exists(ctx, previous, &before);
    if (status != LSP_OK || (!here && !before)) return status;
    if (here) {
        status = lsp_saved_read_head(ctx, file, head);
        if (status == LSP_OK) take_info(head, file, false, info);
        if (status != LSP_ERR_CONTENT || !before) return status;
        (void)snprintf(info->notice, sizeof info->notice, "%s", lsp_context_message(ctx));
    } else {
        (void)snprintf(info->notice, sizeof info->notice, "'%s' is not there", file);
    }
    status = lsp_saved_read_head(ctx, previous, head);
    if (status == LSP_OK) take_info(head, previous, true, info);
    return status;
}

lsp_status lsp_checkpoint_look(lsp_context *ctx, const char *file, lsp_checkpoint_info *info)
{
    lsp_saved_head *head = lsp_memory_zalloc(1, sizeof *head);
    memset(info, 0, sizeof *info);
    lsp_status status =
        head ? LSP_OK : lsp_context_fail(ctx, LSP_ERR_LIMIT, "not enough memory to look at '%s'", file);
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) status = find(ctx, file, head, info);
    lsp_memory_free(head);
    return status;
}

/* ---- going on ---------------------------------------------------------------------------------- */

lsp_status lsp_checkpoint_fits(lsp_context *ctx, const char *file, const lsp_saved_head *head,
                               const char *mine)
{
    char name[128], was[256], is[256];
    if (!lsp_identity_differs(head->identity, mine, name, was, is)) return LSP_OK;
    return lsp_context_fail(ctx, LSP_ERR_CONTENT,
                            "the checkpoint '%s' does not fit: %s was %s and is %s; go on with the deck, "
                            "input and program that it was made with, or remove it, or start anew with "
                            "checkpoint.resume=no",
                            file, name, was, is);
}

/* Collective. The head; it decides what the state's arrays are. */
static lsp_status load_head(lsp_attention *plan, const char *file, const char *marks, lsp_saved_head *head,
                            bool *damaged)
{
    lsp_context *ctx = plan->ctx;
    char phase[32] = "";
    *damaged = true;
    lsp_status status = lsp_saved_read_head(ctx, file, head);
    if (status != LSP_OK) return status;
    lsp_saved_head *mine = lsp_memory_zalloc(1, sizeof *mine);
    *damaged = false;
    if (!mine || !lsp_identity_write(plan, marks, mine->identity, sizeof mine->identity))
        status = lsp_context_fail(ctx, LSP_ERR_LIMIT, "not enough memory to compare '%s'", file);
    if (status == LSP_OK) status = lsp_checkpoint_fits(ctx, file, head, mine->identity);
    lsp_memory_free(mine);
    (void)lsp_identity_value(head->progress, "phase", phase, sizeof phase);
    plan->phase = strtoll(phase, NULL, 10);
    return lsp_context_agree(ctx, status);
}

typedef struct load_job {
    lsp_attention *plan;
    const char *marks;
} load_job;

static lsp_status load(void *user, const char *file, bool *damaged)
{
    const load_job *job = user;
    lsp_context *ctx = job->plan->ctx;
    saved s = {.head = NULL};
    *damaged = false;
    lsp_saved_head *head = lsp_memory_zalloc(1, sizeof *head);
    lsp_status status =
        head ? LSP_OK : lsp_context_fail(ctx, LSP_ERR_LIMIT, "not enough memory to read '%s'", file);
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) status = load_head(job->plan, file, job->marks, head, damaged);
    if (status == LSP_OK) status = lsp_context_agree(ctx, describe(job->plan, job->marks, &s));
    if (status == LSP_OK) {
        *damaged = true;
        status = lsp_saved_read(ctx, file, s.arrays, s.count);
    }
    forget(&s);
    lsp_memory_free(head);
    return status;
}

lsp_status lsp_checkpoint_try(lsp_context *ctx, const char *file, lsp_checkpoint_load_fn one, void *user,
                              lsp_checkpoint_info *info)
{
    char previous[PATH_MAX], notice[sizeof info->notice];
    bool damaged = false, before = false;
    lsp_status status = one(user, info->file, &damaged);
    if (status != LSP_ERR_CONTENT || !damaged || info->previous || !lsp_saved_previous(file, previous))
        return status;
    (void)snprintf(notice, sizeof notice, "%s", lsp_context_message(ctx));
    lsp_status found = lsp_saved_exists(ctx, previous, &before);
    if (found != LSP_OK || !before) return found != LSP_OK ? found : status;
    (void)snprintf(info->notice, sizeof info->notice, "%s", notice);
    (void)snprintf(info->file, sizeof info->file, "%s", previous);
    info->previous = true;
    return one(user, previous, &damaged);
}

lsp_status lsp_checkpoint_load(lsp_attention *plan, const char *file, const char *marks, void *out,
                               lsp_checkpoint_info *info)
{
    load_job job = {plan, marks};
    /* No row is to be set before it is read. */
    for (int64_t row = 0; row < plan->query_rows; row++) plan->met[row] = LSP_ROW_FINAL;
    plan->out = out;
    lsp_status status = lsp_checkpoint_try(plan->ctx, file, load, &job, info);
    if (status != LSP_OK) return status;
    plan->loaded = true;
    plan->met_pairs = count_pairs(plan);
    return measure(plan, &info->done);
}

bool lsp_method_can_rest(lsp_method method)
{
    const lsp_method_ops *ops = lsp_method_get(method);
    return ops && ops->state;
}
