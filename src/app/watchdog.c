/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#    define _GNU_SOURCE
#endif
#include "app/watchdog.h"

#include "app/collect.h"
#include "app/stack.h"
#include "app/wire.h"
#include "base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Of one process, as signals and the command itself are. */
static struct {
    pthread_t thread;
    sem_t wake; /* posted at the end */
    bool running;
    double limit; /* seconds */
    int rank, ranks;
    MPI_Comm comm; /* for tests */
    lsp_wire wire;
    _Atomic int64_t beats;
    _Atomic(const char *) phase;
    _Atomic bool beating, ended;
} dog;

/* What the thread knows. */
typedef struct watch {
    double moved;    /* lsp_clock() when this rank last came on */
    double freshest; /* when any rank did, as far as is known */
    double heard;    /* of the rank before; 0: never */
    int64_t beats, bytes;
    double cpu; /* seconds, when it last came on */
    const char *phase;
    bool waits;         /* for others, when it did not come on for some time */
    lsp_wire_news last; /* of the rank before */
    double judged;      /* lsp_clock() when another rank's verdict was heard; 0: never */
} watch;

/* ---- signs of life --------------------------------------------------------------------------------- */

/* Bytes that this process has read and written; 0 where the machine does not tell. */
static int64_t bytes_moved(void)
{
    char line[100];
    long long number = 0, sum = 0;
    FILE *stream = fopen("/proc/self/io", "r");
    if (!stream) return 0;
    while (fgets(line, sizeof line, stream))
        if (sscanf(line, "rchar: %lld", &number) == 1 || sscanf(line, "wchar: %lld", &number) == 1)
            sum += number;
    (void)fclose(stream);
    return (int64_t)sum;
}

static double cpu_seconds(void)
{
    struct timespec now;
    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now) != 0) return 0;
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* A look at the main thread. Processor time counts since it came on last: a process may get little of a busy machine. */
static void look(watch *w, double now)
{
    enum { LEAST_BYTES = 4096 };
    int64_t beats = atomic_load(&dog.beats), bytes = bytes_moved();
    const char *phase = atomic_load(&dog.phase);
    double cpu = cpu_seconds();
    bool beating = atomic_load(&dog.beating);
    bool moved = beats != w->beats || phase != w->phase || (!beating && bytes - w->bytes >= LEAST_BYTES);
    if (!moved && now - w->moved > dog.limit / 2) {
        w->waits = lsp_stack_waits();
        moved = !w->waits && !beating && cpu - w->cpu > dog.limit / 20;
    }
    if (moved) {
        w->moved = w->freshest = now;
        w->cpu = cpu;
        w->waits = false;
    }
    w->beats = beats;
    w->bytes = bytes;
    w->phase = phase;
}

/* Ranks before this one, and itself, that hear each other. */
static int chain_of(const watch *w, double now)
{
    bool hears = w->heard > 0 && now - w->heard < dog.limit;
    int chain = hears ? w->last.chain + 1 : 1;
    return chain < dog.ranks ? chain : dog.ranks;
}

/* ---- the verdict ----------------------------------------------------------------------------------- */

static lsp_wire_news news_of(const watch *w, double now)
{
    lsp_wire_news news = {.rank = dog.rank,
                          .age = now - w->freshest,
                          .leaves = atomic_load(&dog.ended),
                          .judged = w->judged > 0,
                          .chain = chain_of(w, now)};
    (void)snprintf(news.phase, sizeof news.phase, "%s", w->phase ? w->phase : "");
    (void)snprintf(news.host, sizeof news.host, "%s", dog.wire.host);
    return news;
}

/* The launcher ends the other ranks, which need not tell the same again meanwhile. */
static void end_run(const watch *w, double now)
{
    lsp_wire_news news = news_of(w, now);
    news.judged = true;
    (void)fflush(stderr);
    for (int far = 1; far < dog.ranks; far *= 2) lsp_wire_send(&dog.wire, far, &news);
    _exit(LSP_ERR_RANK);
}

static void judge(const watch *w, double now)
{
    if (w->judged > 0) {
        if (now - w->judged > dog.limit) _exit(LSP_ERR_RANK);
        return;
    }
    if (now - w->moved > dog.limit && !w->waits) {
        (void)fprintf(
            stderr,
            "longspan: error: rank %d made no progress for %.1f s in phase '%s' (checkpoint.watchdog); "
            "look at its node %s; its stack:\n",
            dog.rank, now - w->moved, w->phase, dog.wire.host);
        lsp_stack_print(STDERR_FILENO);
        end_run(w, now);
    }
    if (w->heard > 0 && !w->last.leaves && now - w->heard > dog.limit) {
        (void)fprintf(
            stderr,
            "longspan: error: rank %d stands still or is gone: nothing was heard of it for %.1f s, last in "
            "phase '%s' (checkpoint.watchdog); look at its node %s; rank %d, which noticed, is in phase "
            "'%s', its stack:\n",
            (dog.rank + dog.ranks - 1) % dog.ranks, now - w->heard, w->last.phase, w->last.host, dog.rank,
            w->phase);
        lsp_stack_print(STDERR_FILENO);
        end_run(w, now);
    }
    /* Only where news get around: else another node's ranks may well come on. All find out at once, and one is to tell. */
    double limit = dog.rank == 0 ? 2 * dog.limit : 3 * dog.limit;
    if (now - w->freshest > limit && chain_of(w, now) == dog.ranks) {
        (void)fprintf(stderr,
                      "longspan: error: no rank made progress for %.1f s, all wait for each other "
                      "(checkpoint.watchdog); "
                      "rank %d is in phase '%s', its stack:\n",
                      now - w->freshest, dog.rank, w->phase);
        lsp_stack_print(STDERR_FILENO);
        end_run(w, now);
    }
}

/* ---- the thread ------------------------------------------------------------------------------------ */

static void tell(const watch *w, double now, int64_t tick)
{
    lsp_wire_news news = news_of(w, now);
    /* The next rank watches this one; by the others, twice as far each time, all learn who came on last. */
    lsp_wire_send(&dog.wire, 1 % dog.ranks, &news);
    int far = 1;
    for (int64_t i = 0; i < tick % 16 && far * 2 < dog.ranks; i++) far *= 2;
    if (far > 1) lsp_wire_send(&dog.wire, far, &news);
}

/* News have waited since `before` at most. Taken for younger than they are, they would go round for ever. */
static void hear(watch *w, double now, double before)
{
    lsp_wire_news news;
    while (lsp_wire_receive(&dog.wire, &news)) {
        if (before - news.age > w->freshest) w->freshest = before - news.age;
        if (news.judged && w->judged == 0) w->judged = now;
        if (news.rank != (dog.rank + dog.ranks - 1) % dog.ranks) continue;
        w->heard = now;
        w->last = news;
    }
}

/* Until the end of the run at most. */
static void nap(double seconds)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    double end = (double)until.tv_nsec * 1e-9 + seconds;
    until.tv_sec += (time_t)end;
    until.tv_nsec = (long)((end - (double)(time_t)end) * 1e9);
    while (sem_timedwait(&dog.wake, &until) != 0 && errno == EINTR) continue;
}

static void *keep_watch(void *user)
{
    (void)user;
    double step = dog.limit / 20 < 5 ? dog.limit / 20 : 5, before = lsp_clock();
    watch w = {.moved = before, .freshest = before};
    for (int64_t tick = 0; !atomic_load(&dog.ended); tick++) {
        nap(step);
        double now = lsp_clock(), slept = now - before;
        /* This whole process was stopped, and so perhaps all: time counts anew. */
        if (slept > dog.limit / 2) {
            w.moved = w.freshest = now;
            if (w.heard > 0) w.heard = now;
        }
        look(&w, now);
        if (dog.ranks > 1) {
            hear(&w, now, before);
            tell(&w, now, tick);
        }
        judge(&w, now);
        before = now;
    }
    tell(&w, lsp_clock(), 0);
    return NULL;
}

/* For tests: at the first begin of a phase LONGSPAN_TEST_STALL=RANK:PHASE:SECONDS sleeps, and SECONDS = 0 waits for ranks that
 * never come, so that all do. With :FILE at its end it makes that file first, and sleeps as long as it is there. */
static void stall(const char *phase)
{
    const char *text = getenv("LONGSPAN_TEST_STALL");
    static bool stalled;
    int rank = -1;
    double seconds = -1;
    char name[40] = "", file[256] = "";
    if (stalled || !text || sscanf(text, "%d:%39[^:]:%lf:%255s", &rank, name, &seconds, file) < 3) return;
    if (rank != dog.rank || strcmp(name, phase) != 0) return;
    stalled = true;
    if (seconds == 0) (void)MPI_Barrier(dog.comm);
    FILE *stream = *file ? fopen(file, "w") : NULL;
    if (stream) (void)fclose(stream);
    for (double end = lsp_clock() + seconds; lsp_clock() < end && (!*file || access(file, F_OK) == 0);)
        (void)usleep(10000);
}

void lsp_watchdog_phase(const char *name, bool beats)
{
    atomic_store(&dog.beating, beats);
    atomic_store(&dog.phase, name);
    stall(name);
}

void lsp_watchdog_start(lsp_app *app)
{
    dog.limit = lsp_options_real(app->options, LSP_KEY_CHECKPOINT_WATCHDOG);
    dog.rank = app->layout.rank;
    dog.ranks = app->layout.ranks;
    dog.comm = app->comm;
    if (dog.limit <= 0) return;
    atomic_store(&dog.phase, "start");
    bool fine = lsp_stack_prepare();
    fine = lsp_wire_open(app, &dog.wire) && fine;
    fine = sem_init(&dog.wake, 0, 0) == 0 && fine;
    /* Signals are for the main thread. */
    sigset_t all, mask;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &mask);
    dog.running = fine && pthread_create(&dog.thread, NULL, keep_watch, NULL) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &mask, NULL);
    if (!dog.running)
        (void)fprintf(stderr, "longspan: warning: rank %d has no watchdog: no thread or socket for it\n",
                      dog.rank);
    lsp_watchdog_phase(app->command->name, false); /* the whole of it, where there are no others */
}

void lsp_watchdog_beat(void)
{
    atomic_fetch_add_explicit(&dog.beats, 1, memory_order_relaxed);
}

void lsp_watchdog_stop(void)
{
    atomic_store(&dog.ended, true);
    if (dog.running) {
        (void)sem_post(&dog.wake);
        (void)pthread_join(dog.thread, NULL);
    }
    lsp_wire_close(&dog.wire);
    dog.running = false;
}
