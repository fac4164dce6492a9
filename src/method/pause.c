/* SPDX-License-Identifier: BSD-3-Clause */
#include "method/pause.h"

#include "base/clock.h"
#include "method/attention.h"

#include <sched.h>
#include <stdatomic.h>

enum { WANT = 0, BUSY = 1 };

lsp_status lsp_attention_set_pause(lsp_attention *plan, const lsp_pause *pause)
{
    lsp_pausing *p = &plan->pausing;
    lsp_status status = pause && !p->accord ? lsp_accord_create(plan->ctx, &p->accord) : LSP_OK;
    p->asked = pause && status == LSP_OK ? *pause : (lsp_pause){.want = NULL};
    return status;
}

void lsp_pause_begin(lsp_attention *plan)
{
    plan->pausing.seconds = plan->pausing.waited = 0;
    plan->pausing.halted = false;
    plan->pausing.stopped = LSP_OK;
}

void lsp_pause_release(lsp_attention *plan)
{
    lsp_accord_destroy(&plan->pausing.accord);
}

/* One step of the accord; true when all ranks are through with the pass. */
static bool step(lsp_attention *plan, bool busy, lsp_status *status)
{
    lsp_pausing *p = &plan->pausing;
    *status = LSP_OK;
    if (!p->asked.want || p->halted) return false;
    lsp_want want = p->asked.want(p->asked.user);
    const int64_t mine[LSP_ACCORD_NUMBERS] = {[WANT] = want, [BUSY] = busy};
    int64_t all[LSP_ACCORD_NUMBERS];
    if (!lsp_accord_step(p->accord, mine, !busy || want != LSP_WANT_NOTHING, all, status)) return false;
    if (!all[BUSY]) return true;
    p->want = (lsp_want)all[WANT];
    if (p->want != LSP_WANT_NOTHING) p->halted = true;
    return false;
}

void lsp_pause_poll(lsp_attention *plan)
{
    lsp_status status; /* a failure of MPI shows in the gather too */
    (void)step(plan, true, &status);
}

bool lsp_pause_halted(lsp_attention *plan)
{
    return atomic_load_explicit(&plan->pausing.halted, memory_order_relaxed);
}

lsp_status lsp_pause_rest(lsp_attention *plan)
{
    lsp_pausing *p = &plan->pausing;
    if (!p->halted) return LSP_OK;
    double begin = lsp_clock();
    p->stopped = p->asked.rest(p->asked.user, p->want);
    p->halted = false;
    p->seconds += lsp_clock() - begin;
    return p->stopped;
}

lsp_status lsp_pause_wait(void *user)
{
    lsp_attention *plan = user;
    lsp_status status;
    double before = plan->pausing.seconds;
    (void)step(plan, true, &status);
    if (status == LSP_OK) status = lsp_pause_rest(plan);
    plan->pausing.waited += plan->pausing.seconds - before;
    return status;
}

lsp_status lsp_pause_meet(lsp_attention *plan, lsp_gather *gather, lsp_status mine)
{
    lsp_pausing *p = &plan->pausing;
    lsp_status status = LSP_OK;
    if (!p->asked.want) return mine;
    while (p->stopped == LSP_OK && !step(plan, false, &status)) {
        if (status != LSP_OK) return status;
        (void)lsp_pause_rest(plan);
        sched_yield();
    }
    if (p->stopped == LSP_OK) return mine;
    status = lsp_gather_stop(gather);
    return status != LSP_OK ? status : p->stopped;
}
