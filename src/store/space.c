/* Names, permission and room for an output, before anything is computed.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#    define _GNU_SOURCE
#endif
#include "store/output.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

/* The folder part of a path: "" becomes ".". */
static void folder_of(const char *path, char *folder, size_t size)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        (void)snprintf(folder, size, ".");
    else
        (void)snprintf(folder, size, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

static lsp_status check_existing(lsp_output *output, const char *file)
{
    lsp_context *ctx = output->ctx;
    struct stat about;
    if (lstat(file, &about) != 0) {
        if (errno == ENOENT) return LSP_OK;
        return lsp_context_fail(ctx, LSP_ERR_FILE,
                                "cannot create '%s': %s; check the folder and its permissions", file,
                                strerror(errno));
    }
    if (S_ISLNK(about.st_mode)) {
        /* The link stays and its target is replaced. */
        char target[PATH_MAX];
        if (!realpath(file, target))
            return lsp_context_fail(
                ctx, LSP_ERR_FILE,
                "cannot create '%s': it is a symbolic link to something that is not there; "
                "remove it",
                file);
        (void)snprintf(output->file, sizeof output->file, "%s", target);
        if (stat(target, &about) != 0)
            return lsp_context_fail(ctx, LSP_ERR_FILE, "cannot look at '%s': %s", target, strerror(errno));
    }
    if (!S_ISREG(about.st_mode))
        return lsp_context_fail(ctx, LSP_ERR_FILE, "cannot create '%s': it is %s; name a file", file,
                                S_ISDIR(about.st_mode) ? "a folder" : "a device or pipe");
    if (!output->overwrite)
        return lsp_context_fail(
            ctx, LSP_ERR_FILE,
            "'%s' exists already; say output.overwrite=yes to replace it, or name another "
            "file",
            file);
    return LSP_OK;
}

static unsigned random_word(void)
{
    unsigned word = 0;
    if (getrandom(&word, sizeof word, GRND_NONBLOCK) != (ssize_t)sizeof word)
        word = (unsigned)getpid() * 2654435761u ^ (unsigned)time(NULL);
    return word;
}

/* Where process ids mean what they mean here: this machine, and its name space of processes. */
static unsigned place_word(void)
{
    char text[400] = "", space[100] = "";
    (void)gethostname(text, 256);
    text[256] = '\0';
    if (readlink("/proc/self/ns/pid", space, sizeof space - 1) > 0)
        (void)snprintf(text + strlen(text), 120, "%s", space);
    unsigned hash = 2166136261u;
    for (const char *byte = text; *byte; byte++) hash = (hash ^ (unsigned char)*byte) * 16777619u;
    return hash;
}

/* When a process was started, in ticks of the machine; 0: it is no more, or a zombie. Its number alone may be another's
 * by now. */
static unsigned long long start_of(pid_t process)
{
    enum { FIELDS = 19 }; /* between the command's name, in parentheses, and the time */
    char name[40], text[1024] = "";
    (void)snprintf(name, sizeof name, "/proc/%ld/stat", (long)process);
    FILE *stream = fopen(name, "r");
    if (!stream) return 0;
    size_t length = fread(text, 1, sizeof text - 1, stream);
    (void)fclose(stream);
    text[length] = '\0';
    const char *at = strrchr(text, ')');
    at = at ? strchr(at, ' ') : NULL;
    if (at && (at[1] == 'Z' || at[1] == 'X')) return 0;
    for (int i = 0; at && i < FIELDS; i++) at = strchr(at + 1, ' ');
    return at ? strtoull(at, NULL, 10) : 0;
}

enum { NAME_ROOM = 200 }; /* of the 255 bytes of a name; the rest is for our dot, numbers and ending */

lsp_status lsp_output_name(lsp_output *output, const char *file)
{
    lsp_context *ctx = output->ctx;
    size_t length = strlen(file);
    if (length == 0 || file[length - 1] == '/' || length + 64 > sizeof output->file)
        return lsp_context_fail(ctx, LSP_ERR_FILE, "cannot create '%s': it is not the name of a file", file);
    (void)snprintf(output->file, sizeof output->file, "%s", file);
    char folder[PATH_MAX];
    struct stat about;
    folder_of(file, folder, sizeof folder);
    if (stat(folder, &about) != 0)
        return lsp_context_fail(ctx, LSP_ERR_FILE, "cannot create '%s': folder '%s': %s; make it first", file,
                                folder, strerror(errno));
    if (!S_ISDIR(about.st_mode))
        return lsp_context_fail(ctx, LSP_ERR_FILE, "cannot create '%s': '%s' is not a folder", file, folder);
    lsp_status status = check_existing(output, file);
    if (status != LSP_OK) return status;
    folder_of(output->file, folder, sizeof folder);
    const char *slash = strrchr(output->file, '/'), *name = slash ? slash + 1 : output->file;
    int written =
        snprintf(output->temporary, sizeof output->temporary, "%s/.%.*s.%08x-%x-%llx-%08x.partial", folder,
                 NAME_ROOM, name, place_word(), (unsigned)getpid(), start_of(getpid()), random_word());
    if (written < 0 || (size_t)written >= sizeof output->temporary)
        return lsp_context_fail(ctx, LSP_ERR_FILE, "cannot create '%s': its name is too long", file);
    return LSP_OK;
}

static lsp_status too_little(lsp_output *output, int64_t bytes)
{
    char folder[PATH_MAX], free_text[64] = "unknown";
    struct statvfs about;
    folder_of(output->temporary, folder, sizeof folder);
    if (statvfs(folder, &about) == 0)
        (void)snprintf(free_text, sizeof free_text, "%llu",
                       (unsigned long long)about.f_bavail * (unsigned long long)about.f_frsize);
    return lsp_context_fail(
        output->ctx, LSP_ERR_FILE,
        "not enough space for '%s': %lld bytes are needed, %s are free in '%s'; free some, "
        "raise the quota, or name another folder",
        output->file, (long long)bytes, free_text, folder);
}

lsp_status lsp_output_check_space(lsp_output *output, int64_t bytes)
{
    char folder[PATH_MAX];
    struct statvfs about;
    struct rlimit most;
    folder_of(output->temporary, folder, sizeof folder);
    if (getrlimit(RLIMIT_FSIZE, &most) == 0 && most.rlim_cur != RLIM_INFINITY &&
        (rlim_t)bytes > most.rlim_cur)
        return lsp_context_fail(output->ctx, LSP_ERR_FILE,
                                "'%s' needs %lld bytes, and this process may write files of %llu bytes only; "
                                "raise the limit (ulimit -f)",
                                output->file, (long long)bytes, (unsigned long long)most.rlim_cur);
    /* A file system that does not tell (0 blocks in all) is left to the reservation. */
    if (statvfs(folder, &about) != 0 || about.f_blocks == 0) return LSP_OK;
    uint64_t blocks = ((uint64_t)bytes + about.f_frsize - 1) / about.f_frsize;
    return blocks <= about.f_bavail ? LSP_OK : too_little(output, bytes);
}

lsp_status lsp_output_reserve(lsp_output *output, int64_t bytes)
{
    if (bytes == 0) return LSP_OK;
    int result, why = 0;
    /* The system call, not posix_fallocate: that one writes every block where the file system cannot reserve. */
    do {
        result = fallocate(output->fd, 0, 0, (off_t)bytes);
        why = errno;
    } while (result != 0 && why == EINTR);
    if (result == 0 || why == EOPNOTSUPP || why == ENOSYS || why == EINVAL) return LSP_OK;
    if (why == ENOSPC || why == EDQUOT) return too_little(output, bytes);
    return lsp_context_fail(output->ctx, LSP_ERR_FILE, "cannot reserve %lld bytes for '%s': %s",
                            (long long)bytes, output->file, strerror(why));
}

/* ---- what killed runs left ------------------------------------------------------------------------- */

/* Whether an entry is a temporary file for NAME of a process that is no more, or `any` one. */
static bool is_left(const char *entry, const char *name, bool any)
{
    size_t length = strnlen(name, NAME_ROOM);
    unsigned place = 0, process = 0, number = 0;
    unsigned long long start = 0;
    int end = 0;
    if (entry[0] != '.' || strncmp(entry + 1, name, length) != 0) return false;
    if (sscanf(entry + 1 + length, ".%8x-%x-%llx-%8x.partial%n", &place, &process, &start, &number, &end) !=
            4 ||
        end == 0)
        return false;
    if (entry[1 + length + (size_t)end] != '\0') return false;
    if (any) return true;
    return place == place_word() && start_of((pid_t)process) != start;
}

/* Rank 0. */
static lsp_status sweep(lsp_context *ctx, const char *file, bool any)
{
    char folder[PATH_MAX], path[PATH_MAX];
    const char *slash = strrchr(file, '/'), *name = slash ? slash + 1 : file;
    folder_of(file, folder, sizeof folder);
    DIR *entries = opendir(folder);
    lsp_status status = LSP_OK;
    if (!entries)
        return lsp_context_fail(ctx, LSP_ERR_FILE, "cannot look into folder '%s' of '%s': %s", folder, file,
                                strerror(errno));
    for (struct dirent *entry; (entry = readdir(entries));) {
        if (!is_left(entry->d_name, name, any)) continue;
        int length = snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (length < (int)sizeof path && unlink(path) != 0 && errno != ENOENT && status == LSP_OK)
            status = lsp_context_fail(ctx, LSP_ERR_FILE,
                                      "cannot remove '%s', which a run that was killed left: %s", path,
                                      strerror(errno));
    }
    (void)closedir(entries);
    return status;
}

lsp_status lsp_output_sweep(lsp_context *ctx, const char *file, bool any)
{
    return lsp_context_agree(ctx, ctx->layout.rank == 0 ? sweep(ctx, file, any) : LSP_OK);
}
