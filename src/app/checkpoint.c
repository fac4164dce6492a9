/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/checkpoint.h"

#include "app/collect.h"
#include "app/format.h"
#include "app/launch.h"
#include "app/report.h"
#include "app/watchdog.h"
#include "base/clock.h"
#include "base/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { RESUME_AUTO = 0, RESUME_YES = 1, RESUME_NO = 2 }; /* the words of checkpoint.resume */
enum { MARKS_SIZE = 8192, PART_NAME = 32 };
static const double retry_seconds = 30;

static volatile sig_atomic_t asked_to_stop, asked_to_end;

static void take_signal(int number)
{
    if (number == SIGTERM)
        asked_to_end = 1;
    else
        asked_to_stop = 1;
}

static void set_handlers(void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGUSR1, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
}

void lsp_keeper_listen(void)
{
    set_handlers(take_signal);
}

/* Where nothing can be saved: TERM ends the program as ever; USR1, which tells of the end of a job's time, would end it
 * for nothing, and it may still come to its own end. */
static void stop_listening(void)
{
    set_handlers(SIG_DFL);
    (void)signal(SIGUSR1, SIG_IGN);
    if (asked_to_end) (void)raise(SIGTERM);
}

/* ---- what a state belongs to ----------------------------------------------------------------------- */

static lsp_status too_long(const lsp_keeper *k)
{
    return lsp_context_fail(k->app->ctx, LSP_ERR_USAGE,
                            "input.heads and the names of the input are too long for a checkpoint: name "
                            "ranges of heads (0-99), or say checkpoint.file=none");
}

/* Rank 0. */
static lsp_status mark_source(lsp_keeper *k, const char *name, const lsp_source *source, size_t *used)
{
    struct stat about;
    if (!source->tensor) return LSP_OK;
    if (stat(source->file, &about) != 0)
        return lsp_context_fail(k->app->ctx, LSP_ERR_FILE, "cannot look at '%s': %s", source->file,
                                strerror(errno));
    char sum[24] = "none";
    if (source->shape.has_checksum) (void)snprintf(sum, sizeof sum, "%016" PRIx64, source->shape.checksum);
    int length =
        snprintf(k->marks + *used, MARKS_SIZE - *used,
                 "%s = %s of a file of %lld bytes, modified at %lld.%09ld, xxh64 %s\n", name, source->dataset,
                 (long long)about.st_size, (long long)about.st_mtim.tv_sec, about.st_mtim.tv_nsec, sum);
    *used += length > 0 ? (size_t)length : MARKS_SIZE;
    return *used < MARKS_SIZE ? LSP_OK : too_long(k);
}

static lsp_status mark(lsp_keeper *k, const lsp_input *input)
{
    lsp_app *app = k->app;
    lsp_status status = LSP_OK;
    k->marks = lsp_app_alloc(app, MARKS_SIZE, 1, "the marks of a checkpoint", &status);
    status = lsp_context_agree(app->ctx, status);
    if (status != LSP_OK) return status;
    int length = snprintf(k->marks, MARKS_SIZE, "input.heads = %s\ninput.layout = %s\n",
                          lsp_options_text(app->options, LSP_KEY_INPUT_HEADS),
                          input->q.shape.layout == LSP_BNHD ? "bnhd" : "bhnd");
    size_t used = length > 0 ? (size_t)length : MARKS_SIZE;
    if (used >= MARKS_SIZE) return too_long(k);
    if (app->layout.rank == 0) status = mark_source(k, "input.q", &input->q, &used);
    if (app->layout.rank == 0 && status == LSP_OK) status = mark_source(k, "input.k", &input->k, &used);
    if (app->layout.rank == 0 && status == LSP_OK) status = mark_source(k, "input.v", &input->v, &used);
    status = lsp_context_agree(app->ctx, status);
    if (status == LSP_OK) lsp_collect_broadcast(app->comm, k->marks, MARKS_SIZE);
    return status;
}

/* ---- opening --------------------------------------------------------------------------------------- */

/* k->base stays NULL where there are to be no checkpoints. */
static lsp_status choose_base(lsp_keeper *k)
{
    lsp_options *options = k->app->options;
    const char *file = lsp_options_text(options, LSP_KEY_CHECKPOINT_FILE);
    const char *output = lsp_options_text(options, LSP_KEY_OUTPUT_FILE), *ending = "";
    if (strcmp(file, "none") == 0) return LSP_OK;
    if (strcmp(file, "auto") == 0) {
        if (!*output) return LSP_OK;
        file = output;
        ending = ".checkpoint";
    }
    size_t size = strlen(file) + strlen(ending) + 1;
    lsp_status status = LSP_OK;
    k->base = lsp_app_alloc(k->app, (int64_t)size, 1, "the name of the checkpoint", &status);
    k->file = lsp_app_alloc(k->app, (int64_t)size + PART_NAME, 1, "the name of the checkpoint", &status);
    if (k->base) (void)snprintf(k->base, size, "%s%s", file, ending);
    return lsp_context_agree(k->app->ctx, status);
}

static void name_part(lsp_keeper *k, int64_t part)
{
    size_t size = strlen(k->base) + PART_NAME;
    k->part = part;
    if (k->parts > 1)
        (void)snprintf(k->file, size, "%s.%" PRId64, k->base, part);
    else
        (void)snprintf(k->file, size, "%s", k->base);
}

/* A checkpoint is replaced, and removed at the end: it must be nothing else. */
static lsp_status check_names(lsp_keeper *k, const lsp_input *input)
{
    const lsp_source *const sources[] = {&input->q, &input->k, &input->v};
    const char *others[4] = {lsp_options_text(k->app->options, LSP_KEY_OUTPUT_FILE)}, *taken = NULL;
    char previous[PATH_MAX];
    int count = *others[0] ? 1 : 0;
    for (int i = 0; i < 3; i++)
        if (sources[i]->tensor) others[count++] = sources[i]->file;
    for (int64_t part = 0; k->app->layout.rank == 0 && !taken && part < k->parts; part++) {
        name_part(k, part);
        (void)snprintf(previous, sizeof previous, "%s.prev", k->file);
        for (int i = 0; i < count && !taken; i++)
            if (lsp_app_same_file(k->file, others[i]) || lsp_app_same_file(previous, others[i]))
                taken = others[i];
    }
    lsp_status status = LSP_OK;
    if (taken)
        status = lsp_context_fail(k->app->ctx, LSP_ERR_USAGE,
                                  "checkpoint.file = %s would replace '%s', and is removed at the end: name "
                                  "another file",
                                  k->base, taken);
    return lsp_context_agree(k->app->ctx, status);
}

/* The instruction set decides the bits: a state goes on with its own. */
static lsp_status take_isa(lsp_keeper *k, lsp_input *input)
{
    lsp_isa asked = input->desc.isa, saved = k->resumed.isa;
    lsp_status status = LSP_OK;
    if (saved == LSP_ISA_AUTO || (asked != LSP_ISA_AUTO && asked != saved))
        status =
            lsp_context_fail(k->app->ctx, LSP_ERR_CONTENT,
                             "the checkpoint '%s' does not fit: compute.isa was %s and is %s; leave it at "
                             "auto, or start anew with checkpoint.resume=no",
                             k->resumed.file, lsp_isa_name(saved), lsp_isa_name(asked));
    else if (saved > lsp_isa_best())
        status =
            lsp_context_fail(k->app->ctx, LSP_ERR_USAGE,
                             "the checkpoint '%s' was made with %s kernels, which this machine lacks (its "
                             "best is %s): go on where they are, or start anew with checkpoint.resume=no",
                             k->resumed.file, lsp_isa_name(saved), lsp_isa_name(lsp_isa_best()));
    input->desc.isa = saved;
    return lsp_context_agree(k->app->ctx, status);
}

static lsp_status look(lsp_keeper *k, lsp_input *input)
{
    lsp_app *app = k->app;
    int resume = lsp_options_choice(app->options, LSP_KEY_CHECKPOINT_RESUME);
    /* Under a name that was given may be anything; under our own there is a checkpoint, or what is left of one. */
    if (resume == RESUME_NO && !lsp_options_is_set(app->options, LSP_KEY_CHECKPOINT_FILE)) return LSP_OK;
    lsp_status status = lsp_checkpoint_look(app->ctx, k->file, &k->resumed);
    if (resume == RESUME_NO) k->resumed = (lsp_checkpoint_info){.found = false};
    if (status != LSP_OK || resume == RESUME_NO) return status;
    if (k->resumed.found) return take_isa(k, input);
    /* A run of several parts may have been stopped before it came to the later ones. */
    if (resume != RESUME_YES || k->part > 0) return LSP_OK;
    return lsp_context_fail(
        app->ctx, LSP_ERR_FILE,
        "checkpoint.resume=yes, and there is no checkpoint '%s'; say auto to start without", k->file);
}

static void set_times(lsp_keeper *k)
{
    lsp_options *options = k->app->options;
    double left = 0, margin = lsp_options_real(options, LSP_KEY_CHECKPOINT_MARGIN), now = lsp_clock();
    k->every = lsp_options_real(options, LSP_KEY_CHECKPOINT_EVERY_SECONDS);
    k->next = k->every > 0 ? now + k->every : INFINITY;
    k->end = INFINITY;
    if (lsp_launch_seconds_left(&left)) k->end = now + left - fmin(margin, fmax(0, left) / 5);
}

/* What runs that were killed left; the one whose state is gone on from is no more, wherever it ran. */
static lsp_status sweep(lsp_keeper *k)
{
    const char *output = lsp_options_text(k->app->options, LSP_KEY_OUTPUT_FILE);
    bool any = k->resumed.found;
    lsp_status status = *output ? lsp_output_sweep(k->app->ctx, output, any) : LSP_OK;
    for (int64_t part = k->parts - 1; status == LSP_OK && part >= 0; part--) {
        name_part(k, part);
        status = lsp_output_sweep(k->app->ctx, k->file, any);
    }
    return status;
}

lsp_status lsp_keeper_open(lsp_app *app, lsp_input *input, int64_t parts, lsp_keeper *keeper)
{
    *keeper = (lsp_keeper){.app = app, .parts = parts};
    lsp_status status = parts > 0 ? choose_base(keeper) : LSP_OK;
    if (status == LSP_OK && !keeper->base) stop_listening();
    if (status != LSP_OK || !keeper->base) return status;
    set_times(keeper);
    status = check_names(keeper, input);
    if (status == LSP_OK) status = lsp_checkpoint_probe(app->ctx, keeper->base);
    if (status == LSP_OK) status = mark(keeper, input);
    if (status == LSP_OK) status = lsp_keeper_turn(keeper, input, 0);
    return status == LSP_OK ? sweep(keeper) : status;
}

lsp_status lsp_keeper_turn(lsp_keeper *k, lsp_input *input, int64_t part)
{
    if (!k->base) return LSP_OK;
    name_part(k, part);
    return look(k, input);
}

/* ---- resting --------------------------------------------------------------------------------------- */

static lsp_want want(void *user)
{
    const lsp_keeper *k = user;
    if (asked_to_end) return LSP_WANT_END;
    double now = lsp_clock();
    if ((asked_to_stop || now >= k->end) && now >= k->not_before) return LSP_WANT_STOP;
    return k->app->layout.rank == 0 && now >= k->next ? LSP_WANT_SAVE : LSP_WANT_NOTHING;
}

/* What follows from a state that was saved, or was not. */
static lsp_status conclude(lsp_keeper *k, lsp_want why, lsp_status status, int64_t bytes, double begin)
{
    lsp_app *app = k->app;
    double now = lsp_clock();
    k->seconds += now - begin;
    k->longest = fmax(k->longest, now - begin);
    k->next = k->every > 0 ? now + k->every : INFINITY;
    if (status == LSP_OK) {
        k->written++;
        k->bytes = bytes;
        if (why < LSP_WANT_STOP) return LSP_OK;
        return lsp_context_fail(app->ctx, LSP_INTERRUPTED,
                                "stopped as asked, the state is in %s: start it again to go on", k->file);
    }
    k->failed++;
    if (why == LSP_WANT_END || status == LSP_ERR_RANK) return status;
    k->not_before = now + retry_seconds;
    if (app->layout.rank == 0)
        (void)fprintf(stderr, "longspan: warning: no checkpoint was written: %s; the run goes on\n",
                      lsp_context_message(app->ctx));
    return LSP_OK;
}

static lsp_status rest(void *user, lsp_want why)
{
    lsp_keeper *k = user;
    double begin = lsp_clock();
    int64_t bytes = 0;
    lsp_watchdog_phase("checkpoint", false);
    lsp_status status = lsp_checkpoint_save(k->plan, k->file, k->marks, &bytes);
    lsp_watchdog_phase("compute", true);
    return conclude(k, why, status, bytes, begin);
}

static void tell_resumed(const lsp_keeper *k)
{
    const lsp_checkpoint_info *from = &k->resumed;
    if (k->app->layout.rank != 0) return;
    if (from->previous)
        (void)fprintf(stderr,
                      "longspan: warning: the last checkpoint cannot be used (%s); the one before is\n",
                      from->notice);
    (void)fprintf(stderr, "longspan: going on from %s, %.1f %% done\n", from->file, 100 * from->done);
}

/* A decomposition asks first when it has loaded its state, from one file or the other. */
static lsp_want want_svd(void *user)
{
    lsp_keeper *k = user;
    if (k->resumed.found && !k->told) {
        tell_resumed(k);
        if (!k->first.found) k->first = k->resumed;
        k->told = true;
    }
    return want(k);
}

/* The result of one part of several is saved; that of the only one is what the run ends with. */
static lsp_status rest_svd(void *user, lsp_want why, bool finished, lsp_svd_state *state)
{
    lsp_keeper *k = user;
    double begin = lsp_clock();
    int64_t bytes = 0;
    if (finished && (k->parts == 1 || k->resumed.done >= 1)) return LSP_OK;
    lsp_status status = lsp_svd_save(state, k->file, k->marks, &bytes);
    return conclude(k, why, status, bytes, begin);
}

lsp_status lsp_keeper_attach(lsp_keeper *k, lsp_attention *plan, void *out)
{
    if (!k->base) return LSP_OK;
    lsp_status status = LSP_OK;
    k->plan = plan;
    if (k->resumed.found) {
        status = lsp_checkpoint_load(plan, k->file, k->marks, out, &k->resumed);
        k->first = k->resumed;
        if (status == LSP_OK) tell_resumed(k);
    }
    const lsp_pause pause = {want, rest, k};
    return status == LSP_OK ? lsp_attention_set_pause(plan, &pause) : status;
}

const lsp_svd_pause *lsp_keeper_svd(lsp_keeper *k)
{
    if (!k->base) return NULL;
    k->told = false;
    k->svd = (lsp_svd_pause){.want = want_svd,
                             .rest = rest_svd,
                             .user = k,
                             .resume = k->resumed.found ? k->file : NULL,
                             .marks = k->marks,
                             .info = &k->resumed};
    return &k->svd;
}

lsp_status lsp_keeper_finish(lsp_keeper *k)
{
    lsp_status status = LSP_OK;
    /* The first part's last: as long as it is there, a run that is killed meanwhile is known to be complete. */
    for (int64_t part = k->parts - 1; k->base && status == LSP_OK && part >= 0; part--) {
        name_part(k, part);
        status = lsp_checkpoint_remove(k->app->ctx, k->file);
    }
    return status;
}

void lsp_keeper_close(lsp_keeper *k)
{
    lsp_memory_free(k->base);
    lsp_memory_free(k->file);
    lsp_memory_free(k->marks);
    k->base = k->file = k->marks = NULL;
}

/* ---- telling --------------------------------------------------------------------------------------- */

void lsp_keeper_add_json(cJSON *object, const lsp_keeper *k)
{
    if (!k->base) {
        (void)cJSON_AddNullToObject(object, "checkpoint");
        return;
    }
    cJSON *all = cJSON_AddObjectToObject(object, "checkpoint");
    (void)cJSON_AddStringToObject(all, "file", k->base);
    lsp_json_add_number(all, "written", (double)k->written);
    lsp_json_add_number(all, "failed", (double)k->failed);
    lsp_json_add_number(all, "seconds", k->seconds);
    lsp_json_add_number(all, "seconds_longest", k->longest);
    lsp_json_add_number(all, "bytes", (double)k->bytes);
    (void)cJSON_AddBoolToObject(all, "resumed", k->first.found);
    if (k->first.found)
        (void)cJSON_AddStringToObject(all, "resumed_from", k->first.file);
    else
        (void)cJSON_AddNullToObject(all, "resumed_from");
    lsp_json_add_number(all, "resumed_done", k->first.done);
}

void lsp_keeper_print(const lsp_keeper *k)
{
    char bytes[LSP_FORMAT_SIZE], seconds[LSP_FORMAT_SIZE];
    if (k->first.found)
        (void)printf("  resumed  from %s, %.1f %% done\n", k->first.file, 100 * k->first.done);
    if (k->written + k->failed > 0)
        (void)printf("  saved    %" PRId64 " checkpoint%s of %s in %s, %" PRId64
                     " failed; removed at the end\n",
                     k->written, k->written == 1 ? "" : "s", lsp_format_bytes((double)k->bytes, bytes),
                     lsp_format_seconds(k->seconds, seconds), k->failed);
}
