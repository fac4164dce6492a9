/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/checkpoint.h"

#include "app/collect.h"
#include "app/format.h"
#include "app/launch.h"
#include "app/marks.h"
#include "app/report.h"
#include "app/watchdog.h"
#include "base/clock.h"
#include "base/memory.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { RESUME_AUTO = 0, RESUME_YES = 1, RESUME_NO = 2 }; /* the words of checkpoint.resume */
enum { PART_NAME = 32 };
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

/* ---- opening --------------------------------------------------------------------------------------- */

/* The file that a run makes, by which its checkpoint is called; "": none. `compare` has reports alone. */
static const char *result_of(const lsp_keeper *k)
{
    static const lsp_key keys[] = {LSP_KEY_OUTPUT_FILE, LSP_KEY_REPORT_JSON, LSP_KEY_REPORT_PLOT};
    bool reports = k->app->command->uses & LSP_FOR_COMPARE;
    const char *file = "";
    for (size_t i = reports; !*file && i < (reports ? sizeof keys / sizeof *keys : 1); i++)
        file = lsp_options_text(k->app->options, keys[i]);
    return file;
}

/* k->base stays NULL where there are to be no checkpoints. */
static lsp_status choose_base(lsp_keeper *k)
{
    const char *file = lsp_options_text(k->app->options, LSP_KEY_CHECKPOINT_FILE);
    const char *output = result_of(k), *ending = "";
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

static const char *first_taken(lsp_keeper *k, const char *other)
{
    char previous[PATH_MAX];
    for (int64_t part = 0; *other && part < k->parts; part++) {
        name_part(k, part);
        (void)snprintf(previous, sizeof previous, "%s.prev", k->file);
        if (lsp_app_same_file(k->file, other) || lsp_app_same_file(previous, other)) return other;
    }
    return NULL;
}

/* A checkpoint is replaced, and removed at the end: it must be nothing else. */
static lsp_status check_names(lsp_keeper *k, const lsp_kept *kept)
{
    static const lsp_key keys[] = {LSP_KEY_OUTPUT_FILE, LSP_KEY_REPORT_JSON, LSP_KEY_REPORT_PLOT};
    bool speaks = k->app->layout.rank == 0;
    const char *taken = NULL;
    for (size_t i = 0; speaks && !taken && i < sizeof keys / sizeof *keys; i++)
        taken = first_taken(k, lsp_options_peek(k->app->options, keys[i]));
    for (int i = 0; speaks && !taken && i < kept->count; i++)
        if (kept->sources[i].source->tensor) taken = first_taken(k, kept->sources[i].source->file);
    lsp_status status = LSP_OK;
    if (taken)
        status = lsp_context_fail(k->app->ctx, LSP_ERR_USAGE,
                                  "checkpoint.file = %s would replace '%s', and is removed at the end: name "
                                  "another file",
                                  k->base, taken);
    return lsp_context_agree(k->app->ctx, status);
}

/* The instruction set decides the bits: a state goes on with its own. */
static lsp_status take_isa(lsp_keeper *k)
{
    lsp_isa asked = *k->isa, saved = k->resumed.isa;
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
    *k->isa = saved;
    return lsp_context_agree(k->app->ctx, status);
}

static lsp_status look(lsp_keeper *k)
{
    lsp_app *app = k->app;
    int resume = lsp_options_choice(app->options, LSP_KEY_CHECKPOINT_RESUME);
    /* Under a name that was given may be anything; under our own there is a checkpoint, or what is left of one. */
    if (resume == RESUME_NO && !lsp_options_is_set(app->options, LSP_KEY_CHECKPOINT_FILE)) return LSP_OK;
    lsp_status status = lsp_checkpoint_look(app->ctx, k->file, &k->resumed);
    if (resume == RESUME_NO) k->resumed = (lsp_checkpoint_info){.found = false};
    if (status != LSP_OK || resume == RESUME_NO) return status;
    if (k->resumed.found) return take_isa(k);
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

lsp_status lsp_keeper_open_kept(lsp_app *app, const lsp_kept *kept, int64_t parts, lsp_keeper *keeper)
{
    *keeper = (lsp_keeper){.app = app, .parts = parts, .isa = kept->isa};
    lsp_status status = parts > 0 ? choose_base(keeper) : LSP_OK;
    if (status == LSP_OK && !keeper->base) stop_listening();
    if (status != LSP_OK || !keeper->base) return status;
    set_times(keeper);
    status = check_names(keeper, kept);
    if (status == LSP_OK) status = lsp_checkpoint_probe(app->ctx, keeper->base);
    if (status == LSP_OK) status = lsp_marks_make(app, kept, &keeper->marks);
    if (status == LSP_OK) status = lsp_keeper_turn(keeper, 0);
    return status == LSP_OK ? sweep(keeper) : status;
}

lsp_status lsp_keeper_open(lsp_app *app, lsp_input *input, int64_t parts, lsp_keeper *keeper)
{
    char lines[LSP_MARKS_SIZE];
    (void)snprintf(lines, sizeof lines, "input.heads = %s\ninput.layout = %s\n",
                   lsp_options_text(app->options, LSP_KEY_INPUT_HEADS),
                   input->q.shape.layout == LSP_BNHD ? "bnhd" : "bhnd");
    const lsp_kept_source sources[] = {
        {"input.q", &input->q}, {"input.k", &input->k}, {"input.v", &input->v}};
    const lsp_kept kept = {lines, sources, (int)(sizeof sources / sizeof *sources), &input->desc.isa};
    return lsp_keeper_open_kept(app, &kept, parts, keeper);
}

lsp_status lsp_keeper_turn(lsp_keeper *k, int64_t part)
{
    if (!k->base) return LSP_OK;
    name_part(k, part);
    return look(k);
}

/* ---- resting --------------------------------------------------------------------------------------- */

lsp_want lsp_keeper_want(const lsp_keeper *k)
{
    if (asked_to_end) return LSP_WANT_END;
    double now = lsp_clock();
    if ((asked_to_stop || now >= k->end) && now >= k->not_before) return LSP_WANT_STOP;
    return k->app->layout.rank == 0 && now >= k->next ? LSP_WANT_SAVE : LSP_WANT_NOTHING;
}

static lsp_want want(void *user)
{
    return lsp_keeper_want(user);
}

lsp_status lsp_keeper_stop(lsp_keeper *k)
{
    return lsp_context_fail(k->app->ctx, LSP_INTERRUPTED,
                            "stopped as asked, the state is in %s: start it again to go on", k->file);
}

lsp_status lsp_keeper_conclude(lsp_keeper *k, lsp_want why, lsp_status status, int64_t bytes, double begin)
{
    lsp_app *app = k->app;
    double now = lsp_clock();
    k->seconds += now - begin;
    k->longest = fmax(k->longest, now - begin);
    k->next = k->every > 0 ? now + k->every : INFINITY;
    if (status == LSP_OK) {
        k->written++;
        k->bytes = bytes;
        return why < LSP_WANT_STOP ? LSP_OK : lsp_keeper_stop(k);
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
    lsp_watchdog_phase("compute", k->beats);
    return lsp_keeper_conclude(k, why, status, bytes, begin);
}

void lsp_keeper_resumed(lsp_keeper *k)
{
    const lsp_checkpoint_info *from = &k->resumed;
    if (!k->first.found) k->first = *from;
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
        lsp_keeper_resumed(k);
        k->told = true;
    }
    return want(k);
}

/* The result of one part of several is saved, whatever every_seconds says: a stop saves the part at hand alone, and the
 * output with those before it is dropped. That of the only part is what the run ends with. */
static lsp_status rest_svd(void *user, lsp_want why, bool finished, lsp_svd_state *state)
{
    lsp_keeper *k = user;
    double begin = lsp_clock();
    int64_t bytes = 0;
    if (finished && (k->parts == 1 || k->resumed.done >= 1)) return LSP_OK;
    lsp_status status = lsp_svd_save(state, k->file, k->marks, &bytes);
    return lsp_keeper_conclude(k, why, status, bytes, begin);
}

lsp_status lsp_keeper_attach(lsp_keeper *k, lsp_attention *plan, void *out)
{
    if (!k->base) return LSP_OK;
    lsp_status status = LSP_OK;
    k->plan = plan;
    if (k->resumed.found) {
        status = lsp_checkpoint_load(plan, k->file, k->marks, out, &k->resumed);
        if (status == LSP_OK) lsp_keeper_resumed(k);
    }
    const lsp_pause pause = {want, rest, k};
    return status == LSP_OK ? lsp_attention_set_pause(plan, &pause) : status;
}

static lsp_want want_end(void *user)
{
    (void)user;
    return asked_to_end ? LSP_WANT_END : LSP_WANT_NOTHING;
}

static lsp_status rest_end(void *user, lsp_want why)
{
    const lsp_app *app = user;
    (void)why;
    return lsp_context_fail(app->ctx, LSP_TERMINATED,
                            "ended by SIGTERM; %s keeps no state, and nothing was written: start it again",
                            app->command->name);
}

lsp_pause lsp_keeper_ending(lsp_app *app)
{
    return (lsp_pause){want_end, rest_end, app};
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
