/* The state of a Krylov decomposition between two products: saving it, and going on.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/memory.h"
#include "method/checkpoint.h"
#include "method/identity.h"
#include "method/krylov.h"
#include "method/svd.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME = 32, MARKS = 16384 };

/* A state as files have it. */
typedef struct saved {
    lsp_saved_head head;
    char marks[MARKS];
    char names[LSP_SAVED_MOST][NAME];
    lsp_saved_rows arrays[LSP_SAVED_MOST];
    int count;
    lsp_run query_run, key_run, all; /* all: of rank 0 */
} saved;

static void add(saved *s, const lsp_krylov *j, const char *name, int64_t number, bool keys, int64_t columns,
                double *rows)
{
    const lsp_attention *plan = j->op->plan;
    char *own = s->names[s->count];
    (void)snprintf(own, NAME, "/%s%" PRId64, name, number);
    s->arrays[s->count++] = (lsp_saved_rows){.name = own,
                                             .type = LSP_F64,
                                             .batch = 1,
                                             .heads = 1,
                                             .n = keys ? j->m : j->n,
                                             .columns = columns,
                                             .runs = keys ? &s->key_run : &s->query_run,
                                             .run_count = keys ? plan->key_run_count : plan->query_run_count,
                                             .rows = rows};
}

/* The arrays of j's stage, which stand in j. */
static void list(lsp_krylov *j, saved *s)
{
    const lsp_attention *plan = j->op->plan;
    const lsp_attention_desc *d = &plan->problem.desc;
    if (plan->query_run_count) s->query_run = plan->query_runs[0];
    if (plan->key_run_count) s->key_run = plan->key_runs[0];
    s->query_run.begin -= d->row_begin;
    s->key_run.begin -= d->key_begin;
    s->count = 0;
    if (j->stage == LSP_KRYLOV_FINISHED) {
        s->all = (lsp_run){.count = j->svd->rank};
        add(s, j, "u", 0, false, j->svd->rank, j->svd->u);
        add(s, j, "v", 0, true, j->svd->rank, j->svd->v);
        add(s, j, "sigma", 0, false, 1, j->svd->sigma);
        lsp_saved_rows *sigma = &s->arrays[s->count - 1];
        sigma->n = j->svd->rank;
        sigma->runs = &s->all;
        sigma->run_count = j->ctx->layout.rank == 0 ? 1 : 0;
    } else if (j->stage == LSP_KRYLOV_START) {
        add(s, j, "q", 0, false, j->columns, j->q);
    }
    for (int64_t i = 0; i < j->block_count; i++) {
        const lsp_krylov_block *b = &j->blocks[i];
        bool raw = j->stage == LSP_KRYLOV_RAW && i == j->block_count - 1;
        if (b->width > 0) add(s, j, "p", i, true, b->width, b->p);
        if (b->width > 0 && !raw) add(s, j, "t", i, false, b->width, b->t);
    }
}

/* What the decomposition asks for belongs to the state too. */
static lsp_status identify(const lsp_krylov *j, const char *marks, saved *s)
{
    const lsp_svd_options *o = j->options;
    int length =
        snprintf(s->marks, sizeof s->marks,
                 "attention.rank = %" PRId64 "\nattention.tolerance = %.17g\nattention.oversample = %" PRId64
                 "\nattention.steps = %" PRId64 "\nattention.seed = %" PRIu64 "\n%s",
                 o->rank, o->tolerance, o->oversample, o->steps, o->seed, marks);
    if (length > 0 && length < (int)sizeof s->marks &&
        lsp_identity_write(j->op->plan, s->marks, s->head.identity, sizeof s->head.identity))
        return LSP_OK;
    return lsp_context_fail(j->ctx, LSP_ERR_LIMIT, "the description of a checkpoint is too long");
}

static lsp_status no_memory(lsp_krylov *j)
{
    return lsp_context_fail(j->ctx, LSP_ERR_LIMIT, "not enough memory to describe a checkpoint");
}

lsp_status lsp_svd_id(lsp_operator *op, const lsp_svd_options *options, const char *marks,
                      char id[LSP_STATE_ID])
{
    lsp_krylov j = {.ctx = op->ctx, .op = op, .options = options};
    saved *s = lsp_memory_zalloc(1, sizeof *s);
    lsp_status status = s ? identify(&j, marks, s) : no_memory(&j);
    if (status == LSP_OK) lsp_identity_digest(s->head.identity, id);
    lsp_memory_free(s);
    return status;
}

/* ---- saving ------------------------------------------------------------------------------------ */

static bool write_progress(const lsp_krylov *j, char *text)
{
    const lsp_svd *svd = j->svd;
    bool finished = j->stage == LSP_KRYLOV_FINISHED;
    size_t used = (size_t)snprintf(
        text, LSP_SAVED_PROGRESS,
        "stage = %d\ndone = %.6f\nrank = %" PRId64 "\nattempts = %" PRId64 "\nsquare = %a\nbasis = %" PRId64
        "\nblocks = %" PRId64 "\nkept = %" PRId64 "\ntolerance_met = %d\n",
        (int)j->stage, finished ? 1 : j->done / j->all, j->rank, finished ? svd->attempts : j->attempts,
        j->square, finished ? svd->basis : j->basis, j->block_count, finished ? svd->rank : 0,
        finished && svd->tolerance_met);
    for (int64_t i = 0; i < j->block_count && used < LSP_SAVED_PROGRESS; i++)
        used += (size_t)snprintf(text + used, LSP_SAVED_PROGRESS - used, "width%" PRId64 " = %" PRId64 "\n",
                                 i, j->blocks[i].width);
    return used < LSP_SAVED_PROGRESS && 2 * j->block_count + 3 <= LSP_SAVED_MOST;
}

lsp_status lsp_svd_save(lsp_svd_state *j, const char *file, const char *marks, int64_t *bytes)
{
    saved *s = lsp_memory_zalloc(1, sizeof *s);
    lsp_status status = s ? identify(j, marks, s) : no_memory(j);
    if (status == LSP_OK && !write_progress(j, s->head.progress))
        status = lsp_context_fail(j->ctx, LSP_ERR_LIMIT, "a Krylov basis of %lld blocks cannot be saved",
                                  (long long)j->block_count);
    status = lsp_context_agree(j->ctx, status);
    if (status == LSP_OK) {
        list(j, s);
        status = lsp_saved_write(j->ctx, file, &s->head, s->arrays, s->count, bytes);
    }
    lsp_memory_free(s);
    return status;
}

lsp_status lsp_krylov_rest(lsp_krylov *j)
{
    const lsp_svd_pause *pause = j->options->pause;
    if (!pause) return LSP_OK;
    bool finished = j->stage == LSP_KRYLOV_FINISHED;
    int64_t want = pause->want(pause->user);
    lsp_status status = lsp_context_max_i64(j->ctx, &want, 1);
    if (status != LSP_OK || (want == LSP_WANT_NOTHING && !finished)) return status;
    return pause->rest(pause->user, (lsp_want)want, finished, j);
}

/* ---- going on ---------------------------------------------------------------------------------- */

static int64_t number(const saved *s, const char *name)
{
    char value[64] = "0";
    (void)lsp_identity_value(s->head.progress, name, value, sizeof value);
    return strtoll(value, NULL, 10);
}

static double real(const saved *s, const char *name)
{
    char value[64] = "0";
    (void)lsp_identity_value(s->head.progress, name, value, sizeof value);
    return strtod(value, NULL);
}

/* Collective. Room for the blocks of the progress. */
static lsp_status make_blocks(lsp_krylov *j, const saved *s)
{
    lsp_status status = lsp_krylov_prepare(j);
    if (status != LSP_OK) return status;
    j->stage = (lsp_krylov_stage)number(s, "stage");
    j->basis = number(s, "basis");
    for (int64_t i = 0; i < number(s, "blocks") && i <= j->options->steps; i++) {
        char name[NAME];
        (void)snprintf(name, sizeof name, "width%" PRId64, i);
        lsp_krylov_block *b = &j->blocks[j->block_count++];
        b->width = number(s, name);
        b->p = lsp_memory_alloc(j->keys * b->width, sizeof *b->p);
        b->t = lsp_memory_alloc(j->rows * b->width, sizeof *b->t);
        if (!b->p || !b->t) status = lsp_krylov_no_memory(j, "a block of the Krylov basis");
    }
    j->done = real(s, "done") * j->all;
    return lsp_context_agree(j->ctx, status);
}

/* Collective. Room for the decomposition, and what follows from its numbers once they are read. */
static lsp_status make_result(lsp_krylov *j, const saved *s)
{
    lsp_svd *svd = j->svd;
    j->stage = LSP_KRYLOV_FINISHED;
    svd->rows = j->rows;
    svd->keys = j->keys;
    svd->rank = number(s, "kept");
    svd->basis = number(s, "basis");
    svd->attempts = number(s, "attempts");
    svd->tolerance_met = number(s, "tolerance_met") != 0;
    svd->sigma = lsp_memory_alloc(svd->rank, sizeof *svd->sigma);
    svd->u = lsp_memory_alloc(j->rows * svd->rank, sizeof *svd->u);
    svd->v = lsp_memory_alloc(j->keys * svd->rank, sizeof *svd->v);
    bool there = svd->sigma && svd->u && svd->v;
    return lsp_context_agree(j->ctx, there ? LSP_OK : lsp_krylov_no_memory(j, "the singular vectors"));
}

static lsp_status read_state(lsp_krylov *j, const char *file, saved *s, bool *damaged)
{
    lsp_status status = lsp_saved_read_head(j->ctx, file, &s->head);
    *damaged = status != LSP_OK;
    if (status != LSP_OK) return status;
    saved *mine = lsp_memory_zalloc(1, sizeof *mine);
    status = mine ? identify(j, j->options->pause->marks, mine) : no_memory(j);
    if (status == LSP_OK) status = lsp_checkpoint_fits(j->ctx, file, &s->head, mine->head.identity);
    lsp_memory_free(mine);
    status = lsp_context_agree(j->ctx, status);
    if (status != LSP_OK) return status;
    j->rank = number(s, "rank");
    j->attempts = number(s, "attempts");
    j->square = real(s, "square");
    bool finished = number(s, "stage") == LSP_KRYLOV_FINISHED;
    status = finished ? make_result(j, s) : make_blocks(j, s);
    if (status != LSP_OK) return status;
    *damaged = true;
    list(j, s);
    status = lsp_saved_read(j->ctx, file, s->arrays, s->count);
    if (status != LSP_OK || !finished) return status;
    status = lsp_context_broadcast(j->ctx, 0, j->svd->sigma, j->svd->rank * (int64_t)sizeof(double));
    j->svd->certificate = lsp_svd_certify(j->square, j->svd->sigma, j->svd->rank, j->eps);
    return status;
}

static lsp_status load(void *user, const char *file, bool *damaged)
{
    lsp_krylov *j = user;
    lsp_svd *svd = j->svd;
    lsp_krylov_release(j);
    lsp_memory_free(svd->sigma);
    lsp_memory_free(svd->u);
    lsp_memory_free(svd->v);
    svd->sigma = svd->u = svd->v = NULL;
    saved *s = lsp_memory_zalloc(1, sizeof *s);
    lsp_status status = lsp_context_agree(j->ctx, s ? LSP_OK : no_memory(j));
    if (status == LSP_OK) status = read_state(j, file, s, damaged);
    lsp_memory_free(s);
    return status;
}

lsp_status lsp_krylov_resume(lsp_krylov *j)
{
    const lsp_svd_pause *pause = j->options->pause;
    return lsp_checkpoint_try(j->ctx, pause->resume, load, j, pause->info);
}
