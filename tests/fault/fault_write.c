/* System calls and streams that change files of the folder. SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#    define _GNU_SOURCE
#endif
#include "fault.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int refuse(int why)
{
    errno = why;
    return -1;
}

static bool fails_fd(int fd, const char *name)
{
    return fault_in_folder_fd(fd) && fault_now_write(name, true);
}

static bool fails_path(const char *path, const char *name, bool grows)
{
    return fault_in_folder(path) && fault_now_write(name, grows);
}

/* ---- names ----------------------------------------------------------------------------------------- */

static int open_one(const char *name, const char *path, int flags, mode_t mode)
{
    int (*real)(const char *, int, ...) = fault_real(name);
    bool changes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT);
    return changes && fails_path(path, name, flags & O_CREAT) ? refuse(EACCES) : real(path, flags, mode);
}

static mode_t mode_of(int flags, va_list args)
{
    return flags & (O_CREAT | O_TMPFILE) ? (mode_t)va_arg(args, int) : 0;
}

int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = mode_of(flags, args);
    va_end(args);
    return open_one("open", path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = mode_of(flags, args);
    va_end(args);
    return open_one("open64", path, flags, mode);
}

int rename(const char *from, const char *to)
{
    int (*real)(const char *, const char *) = fault_real("rename");
    return fails_path(to, "rename", false) ? refuse(EIO) : real(from, to);
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    int (*real)(int, const char *, int, const char *, unsigned) = fault_real("renameat2");
    return fails_path(to, "renameat2", false) ? refuse(EIO) : real(from_fd, from, to_fd, to, flags);
}

int link(const char *from, const char *to)
{
    int (*real)(const char *, const char *) = fault_real("link");
    return fails_path(to, "link", true) ? refuse(EIO) : real(from, to);
}

int unlink(const char *path)
{
    int (*real)(const char *) = fault_real("unlink");
    return fails_path(path, "unlink", false) ? refuse(EACCES) : real(path);
}

/* ---- open files ------------------------------------------------------------------------------------ */

#define FAILS_FD(type, why, name, parameters, arguments)                                                     \
    type name parameters                                                                                     \
    {                                                                                                        \
        __typeof__(name) *real = fault_real(#name);                                                          \
        return fails_fd(fd, #name) ? (type)refuse(why) : real arguments;                                     \
    }

FAILS_FD(ssize_t, ENOSPC, write, (int fd, const void *data, size_t bytes), (fd, data, bytes))
FAILS_FD(ssize_t, ENOSPC, pwrite, (int fd, const void *data, size_t bytes, off_t at), (fd, data, bytes, at))
FAILS_FD(ssize_t, ENOSPC, pwrite64, (int fd, const void *data, size_t bytes, off64_t at),
         (fd, data, bytes, at))
FAILS_FD(ssize_t, ENOSPC, writev, (int fd, const struct iovec *parts, int count), (fd, parts, count))
FAILS_FD(ssize_t, ENOSPC, pwritev, (int fd, const struct iovec *parts, int count, off_t at),
         (fd, parts, count, at))
FAILS_FD(ssize_t, ENOSPC, pwritev64, (int fd, const struct iovec *parts, int count, off64_t at),
         (fd, parts, count, at))
FAILS_FD(int, ENOSPC, ftruncate, (int fd, off_t bytes), (fd, bytes))
FAILS_FD(int, ENOSPC, ftruncate64, (int fd, off64_t bytes), (fd, bytes))
FAILS_FD(int, ENOSPC, fallocate, (int fd, int mode, off_t at, off_t bytes), (fd, mode, at, bytes))
FAILS_FD(int, ENOSPC, fallocate64, (int fd, int mode, off64_t at, off64_t bytes), (fd, mode, at, bytes))
FAILS_FD(int, EIO, fsync, (int fd), (fd))
FAILS_FD(int, EIO, fdatasync, (int fd), (fd))

/* What was to be closed is closed, and the failure told (as by a network file system). Only what can be written counts, and
 * what Longspan closes: it closes a copy of what HDF5 and MPI-IO are to close, which tells the same before them. */
int close(int fd)
{
    int (*real)(int) = fault_real("close");
    bool counts = fault_is_ours(FAULT_CALLER, false) && fault_in_folder_fd(fd);
    int flags = counts ? fcntl(fd, F_GETFL) : O_RDONLY;
    bool fails = flags >= 0 && (flags & O_ACCMODE) != O_RDONLY && fault_now_write("close", false);
    int result = real(fd);
    return fails ? refuse(EIO) : result;
}

/* ---- streams --------------------------------------------------------------------------------------- */

static FILE *spoilt; /* ferror tells of it */

static FILE *open_stream(const char *name, const char *path, const char *mode)
{
    FILE *(*real)(const char *, const char *) = fault_real(name);
    if (mode[0] == 'r' || !fails_path(path, name, true)) return real(path, mode);
    errno = EACCES;
    return NULL;
}

FILE *fopen(const char *path, const char *mode)
{
    return open_stream("fopen", path, mode);
}

FILE *fopen64(const char *path, const char *mode)
{
    return open_stream("fopen64", path, mode);
}

static bool spoil(FILE *stream, const char *name)
{
    if (stream == stderr || stream == stdout || !fails_fd(fileno(stream), name)) return false;
    spoilt = stream;
    errno = ENOSPC;
    return true;
}

int fputs(const char *text, FILE *stream)
{
    int (*real)(const char *, FILE *) = fault_real("fputs");
    return spoil(stream, "fputs") ? EOF : real(text, stream);
}

int fputc(int byte, FILE *stream)
{
    int (*real)(int, FILE *) = fault_real("fputc");
    return spoil(stream, "fputc") ? EOF : real(byte, stream);
}

size_t fwrite(const void *data, size_t size, size_t count, FILE *stream)
{
    size_t (*real)(const void *, size_t, size_t, FILE *) = fault_real("fwrite");
    return spoil(stream, "fwrite") ? 0 : real(data, size, count, stream);
}

int fprintf(FILE *stream, const char *format, ...)
{
    va_list args;
    if (spoil(stream, "fprintf")) return -1;
    va_start(args, format);
    int length = vfprintf(stream, format, args);
    va_end(args);
    return length;
}

int ferror(FILE *stream)
{
    int (*real)(FILE *) = fault_real("ferror");
    return stream == spoilt ? 1 : real(stream);
}

int fclose(FILE *stream)
{
    int (*real)(FILE *) = fault_real("fclose");
    int fd = fileno(stream), flags = fault_in_folder_fd(fd) ? fcntl(fd, F_GETFL) : O_RDONLY;
    bool fails = flags >= 0 && (flags & O_ACCMODE) != O_RDONLY && fault_now_write("fclose", true);
    if (stream == spoilt) spoilt = NULL;
    int result = real(stream);
    return fails ? refuse(ENOSPC) : result;
}
