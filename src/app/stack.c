/* A signal makes the main thread note down where it is. SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#    define _GNU_SOURCE
#endif
#include "app/stack.h"

#include <dlfcn.h>
#include <execinfo.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { FRAMES = 64, SECONDS = 2 };

static pthread_t main_thread;
static sem_t noted;
static void *frames[FRAMES];
static volatile int frame_count;

static int signal_number(void)
{
    return SIGRTMIN + 5;
}

static void note(int number)
{
    (void)number;
    frame_count = backtrace(frames, FRAMES);
    (void)sem_post(&noted);
}

bool lsp_stack_prepare(void)
{
    struct sigaction action = {.sa_handler = note, .sa_flags = SA_RESTART};
    main_thread = pthread_self();
    /* The first call loads a library, which no signal handler may do. */
    if (backtrace(frames, FRAMES) <= 0 || sem_init(&noted, 0, 0) != 0) return false;
    (void)sigemptyset(&action.sa_mask);
    return sigaction(signal_number(), &action, NULL) == 0;
}

/* Frames noted; 0 when the thread does not run. */
static int take(void)
{
    struct timespec until;
    while (sem_trywait(&noted) == 0) continue;
    if (pthread_kill(main_thread, signal_number()) != 0) return 0;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += SECONDS;
    return sem_timedwait(&noted, &until) == 0 ? frame_count : 0;
}

/* Functions in which a rank waits for others: of Open MPI, and of the library. */
static bool is_wait(const char *name)
{
    static const char *const waits[] = {"opal_progress",   "ompi_request_default_wait", "ompi_sync_wait_mt",
                                        "lsp_gather_next", "lsp_gather_finish",         "lsp_gather_release",
                                        "lsp_pause_meet"};
    for (size_t i = 0; i < sizeof waits / sizeof *waits; i++)
        if (strcmp(name, waits[i]) == 0) return true;
    return false;
}

bool lsp_stack_waits(void)
{
    int count = take();
    for (int i = 0; i < count; i++) {
        Dl_info about;
        if (dladdr(frames[i], &about) != 0 && about.dli_sname && is_wait(about.dli_sname)) return true;
    }
    return false;
}

void lsp_stack_print(int fd)
{
    static const char none[] = "  (the main thread does not answer)\n";
    int count = take();
    if (count > 0)
        backtrace_symbols_fd(frames, count, fd);
    else if (write(fd, none, sizeof none - 1) < 0)
        return;
}
