/* Counting, choosing, and telling. SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#    define _GNU_SOURCE
#endif
#include "fault.h"

#include <dirent.h>
#include <dlfcn.h>
#include <execinfo.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OBJECTS_MOST = 8, FRAMES_MOST = 48 };

static const char *const kind_names[FAULT_KINDS] = {"alloc", "mpi", "poll", "hdf5", "write"};

typedef struct object {
    uintptr_t begin, end;
    bool helper; /* a library whose allocations are ours */
} object;

static struct {
    bool ready, chosen, onwards;
    fault_kind kind;
    long number;
    int log, objects;
    char folder[PATH_MAX];
    object object[OBJECTS_MOST];
    _Atomic long counts[FAULT_KINDS];
    _Atomic int held[FAULT_HELD];
    _Atomic bool told, ended;
} state = {.log = -1};

/* ---- where a call comes from ----------------------------------------------------------------------- */

static const char *last_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

static int note_object(struct dl_phdr_info *info, size_t size, void *user)
{
    (void)size;
    char self[PATH_MAX] = "";
    bool *program = user;
    const char *name = last_of(info->dlpi_name);
    if (!*name) {
        if (*program || readlink("/proc/self/exe", self, sizeof self - 1) <= 0) return 0;
        *program = true; /* the first without a name */
        name = last_of(self);
    }
    bool helper = begins(name, "libcjson") || begins(name, "libinih");
    bool ours = strcmp(name, "longspan") == 0 || begins(name, "liblongspan.");
    if ((!ours && !helper) || state.objects == OBJECTS_MOST) return 0;
    object found = {.begin = UINTPTR_MAX, .helper = helper};
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type != PT_LOAD) continue;
        uintptr_t begin = info->dlpi_addr + part->p_vaddr, end = begin + part->p_memsz;
        if (begin < found.begin) found.begin = begin;
        if (end > found.end) found.end = end;
    }
    state.object[state.objects++] = found;
    return 0;
}

bool fault_is_ours(const void *caller, bool helpers_too)
{
    uintptr_t at = (uintptr_t)caller;
    for (int i = 0; i < state.objects; i++)
        if (at >= state.object[i].begin && at < state.object[i].end)
            return helpers_too || !state.object[i].helper;
    return false;
}

void *fault_real(const char *name)
{
    void *real = dlsym(RTLD_NEXT, name);
    if (!real) {
        static const char text[] = "fault: a function cannot be found: ";
        (void)syscall(SYS_write, STDERR_FILENO, text, sizeof text - 1);
        (void)syscall(SYS_write, STDERR_FILENO, name, strlen(name));
        (void)syscall(SYS_write, STDERR_FILENO, "\n", (size_t)1);
        abort();
    }
    return real;
}

/* ---- the beginning --------------------------------------------------------------------------------- */

static void open_log(int rank)
{
    const char *prefix = getenv("LONGSPAN_FAULT_LOG");
    char name[PATH_MAX];
    if (!prefix) return;
    (void)snprintf(name, sizeof name, "%s.%d", prefix, rank);
    state.log = (int)syscall(SYS_openat, AT_FDCWD, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
}

__attribute__((constructor)) static void begin(void)
{
    const char *chosen = getenv("LONGSPAN_FAULT"), *place = getenv("OMPI_COMM_WORLD_RANK");
    const char *folder = getenv("LONGSPAN_FAULT_FOLDER");
    char kind[16] = "";
    bool program = false;
    int rank = -1, own = place ? atoi(place) : 0;
    if (!chosen) return;
    (void)dl_iterate_phdr(note_object, &program);
    if (sscanf(chosen, "%15[a-z0-9]:%ld", kind, &state.number) != 2 || !strrchr(chosen, ':')) abort();
    rank = atoi(strrchr(chosen, ':') + 1);
    state.onwards = strchr(chosen, '+') != NULL;
    for (int k = 0; k < FAULT_KINDS; k++) {
        if (strcmp(kind, kind_names[k]) != 0) continue;
        state.kind = (fault_kind)k;
        state.chosen = rank == own;
    }
    (void)snprintf(state.folder, sizeof state.folder, "%s", folder ? folder : "");
    open_log(own);
    void *frames[1];
    (void)backtrace(frames, 1); /* loads what it needs */
    state.ready = true;
}

/* ---- calls ----------------------------------------------------------------------------------------- */

/* Functions on the way are named as far as they are exported. */
static void tell(const char *name, long number)
{
    char line[200];
    void *frames[FRAMES_MOST];
    if (state.log < 0 || atomic_exchange(&state.told, true)) return;
    int length = snprintf(line, sizeof line, "injected %s %ld %s\n", kind_names[state.kind], number, name);
    (void)syscall(SYS_write, state.log, line, (size_t)length);
    backtrace_symbols_fd(frames, backtrace(frames, FRAMES_MOST), state.log);
}

static bool count(fault_kind kind, const char *name)
{
    long number = atomic_fetch_add(&state.counts[kind], 1) + 1;
    if (!state.chosen || state.kind != kind) return false;
    if (number != state.number && !(state.onwards && number > state.number)) return false;
    tell(name, number);
    return true;
}

bool fault_now(fault_kind kind, const char *name, const void *caller)
{
    if (!state.ready || !fault_is_ours(caller, kind == FAULT_ALLOC)) return false;
    return count(kind, name);
}

bool fault_now_write(const char *name, bool grows)
{
    if (!state.ready || state.objects == 0 || (state.onwards && !grows)) return false;
    return count(FAULT_WRITE, name);
}

bool fault_in_folder(const char *path)
{
    return state.ready && *state.folder && begins(path, state.folder);
}

bool fault_in_folder_fd(int fd)
{
    char link[40], path[PATH_MAX] = "";
    if (!state.ready || !*state.folder || fd == state.log) return false;
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return readlink(link, path, sizeof path - 1) > 0 && fault_in_folder(path);
}

void fault_note(fault_held what, const void *caller, int change)
{
    if (state.ready && fault_is_ours(caller, false)) atomic_fetch_add(&state.held[what], change);
}

/* ---- the end --------------------------------------------------------------------------------------- */

static int open_files(void)
{
    int count_of = 0;
    DIR *entries = opendir("/proc/self/fd");
    if (!entries) return -1;
    for (struct dirent *entry; (entry = readdir(entries));)
        count_of += entry->d_name[0] != '.' && fault_in_folder_fd(atoi(entry->d_name));
    (void)closedir(entries);
    return count_of;
}

void fault_end(void)
{
    if (!state.ready || atomic_exchange(&state.ended, true)) return;
    char line[300] = "end";
    size_t length = 3;
    for (int k = 0; k < FAULT_KINDS; k++)
        length += (size_t)snprintf(line + length, sizeof line - length, " %s=%ld", kind_names[k],
                                   atomic_load(&state.counts[k]));
    length +=
        (size_t)snprintf(line + length, sizeof line - length, " blocks=%ld comms=%d files=%d handles=%d\n",
                         fault_live_blocks(), atomic_load(&state.held[FAULT_COMMS]), open_files(),
                         atomic_load(&state.held[FAULT_HANDLES]));
    if (state.log >= 0) (void)syscall(SYS_write, state.log, line, length);
}
