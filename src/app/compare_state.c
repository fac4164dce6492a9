/* When `longspan compare` saves what it has found, and stops. SPDX-License-Identifier: BSD-3-Clause */
#include "app/collect.h"
#include "app/compare.h"
#include "app/watchdog.h"
#include "base/clock.h"
#include "base/memory.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* The methods and all that their results depend on, besides what exact attention does. */
static lsp_status make_marks(lsp_compare_job *job)
{
    enum { ROOM = 256 };
    lsp_status status = LSP_OK;
    size_t used = strlen(job->keeper.marks), size = used + (size_t)(job->count + 1) * ROOM;
    job->marks = lsp_app_alloc(job->app, (int64_t)size, 1, "the marks of a checkpoint", &status);
    if (!job->marks) return status;
    memcpy(job->marks, job->keeper.marks, used + 1);
    for (int64_t i = 0; i < job->count && used < size; i++) {
        const lsp_compare_item *item = &job->items[i];
        const lsp_attention_desc *d = &item->desc;
        char name[LSP_COMPARE_NAME];
        used +=
            (size_t)snprintf(job->marks + used, size - used,
                             "method %" PRId64 " = %s, renormalize %d, tolerance %.17g, svd %d, oversample "
                             "%" PRId64 ", steps %" PRId64 ", seed %" PRIu64 ", allow_leak %d\n",
                             i, lsp_compare_name(item, name), (int)d->renormalize, d->tolerance, (int)d->svd,
                             d->oversample, d->steps, (uint64_t)d->seed, (int)d->allow_leak);
    }
    return status;
}

static lsp_compare_finished finished(const lsp_compare_job *job)
{
    double done = 0;
    for (int64_t i = 0; i < job->done; i++) done += job->items[i].work;
    return (lsp_compare_finished){job->results, job->heads, job->done, job->work > 0 ? done / job->work : 0};
}

/* Collective. Saves unless that is there already; then what `why` asks for. */
static lsp_status save(lsp_compare_job *job, lsp_want why)
{
    lsp_keeper *k = &job->keeper;
    double begin = lsp_clock();
    int64_t bytes = 0;
    if (job->saved == job->done) return why < LSP_WANT_STOP ? LSP_OK : lsp_keeper_stop(k);
    const lsp_compare_finished done = finished(job);
    lsp_watchdog_phase("checkpoint", false);
    lsp_status status = lsp_compare_save(job->compare, k->file, job->marks, &done, &bytes);
    if (status == LSP_OK) job->saved = job->done;
    return lsp_keeper_conclude(k, why, status, bytes, begin);
}

/* Within executions nothing is saved but on the way to the end: they are timed. */
static lsp_want want(void *user)
{
    const lsp_compare_job *job = user;
    lsp_want wanted = lsp_keeper_want(&job->keeper);
    return wanted >= LSP_WANT_STOP ? wanted : LSP_WANT_NOTHING;
}

/* Where no method was finished since the start a run would be stopped and started for ever: it goes on, and may come to
 * the method's end. */
static lsp_status rest(void *user, lsp_want why)
{
    lsp_compare_job *job = user;
    lsp_status status = LSP_OK;
    if (why == LSP_WANT_STOP && job->done == job->begun) {
        job->keeper.not_before = INFINITY;
        if (job->app->layout.rank == 0)
            (void)fprintf(
                stderr,
                "longspan: warning: asked to stop, but no method is finished since the start, and what "
                "is begun cannot be kept; the run goes on, and stops after this method\n");
        return LSP_OK;
    }
    status = save(job, why);
    if (status == LSP_OK) lsp_watchdog_phase(lsp_method_name(job->items[job->done].desc.method), false);
    return status;
}

lsp_status lsp_compare_state_open(lsp_compare_job *job)
{
    lsp_keeper *k = &job->keeper;
    job->saved = -1;
    if (!k->base) return LSP_OK;
    lsp_status status = lsp_context_agree(job->app->ctx, make_marks(job));
    if (status != LSP_OK) return status;
    const lsp_pause pause = {want, rest, job};
    lsp_compare_set_pause(job->compare, &pause);
    return LSP_OK;
}

lsp_status lsp_compare_state_load(lsp_compare_job *job)
{
    const lsp_operands *o = &job->operands;
    lsp_keeper *k = &job->keeper;
    lsp_compare_finished done = {job->results, job->heads, 0, 0};
    if (!k->base || !k->resumed.found) return LSP_OK;
    lsp_status status =
        lsp_compare_load(job->compare, k->file, job->marks, o->q, o->k, o->v, job->count, &done, &k->resumed);
    if (status != LSP_OK) return status;
    lsp_keeper_resumed(k);
    job->begun = job->saved = job->done = done.count;
    for (int64_t i = 0; i < job->done; i++) {
        const lsp_compare_result *r = &job->results[i];
        if (r->verified && !r->verify.passed) job->passed = false;
    }
    return LSP_OK;
}

lsp_status lsp_compare_state_rest(lsp_compare_job *job)
{
    lsp_keeper *k = &job->keeper;
    if (!k->base || job->done == job->count) return LSP_OK;
    if (isinf(k->not_before)) k->not_before = 0;
    lsp_want why = (lsp_want)lsp_collect_max_i64(job->app, (int64_t)lsp_keeper_want(k));
    /* One that cannot stop in its middle may be killed there. */
    bool rests = lsp_method_can_rest(job->items[job->done].desc.method);
    if (why == LSP_WANT_NOTHING && rests) return LSP_OK;
    return save(job, why == LSP_WANT_NOTHING ? LSP_WANT_SAVE : why);
}
