/* Quiet errors, handles and file access. SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#    define _GNU_SOURCE
#endif
#include "store/h5.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct reason_text {
    char *text;
    size_t size;
    bool found;
} reason_text;

static herr_t take_innermost(unsigned n, const H5E_error2_t *error, void *user)
{
    (void)n;
    reason_text *reason = user;
    if (reason->found || !error->desc || !error->desc[0]) return 0;
    (void)snprintf(reason->text, reason->size, "%s", error->desc);
    for (char *at = reason->text; *at; at++) /* HDF5 tells the time with ctime, which ends its line */
        if (iscntrl((unsigned char)*at)) *at = ' ';
    reason->found = true;
    return 0;
}

/* Every HDF5 call clears the error stack, also the one that closes a handle after a failure: the text of a
 * failure is kept here until it is asked for. (HDF5 is called by one thread at a time.) */
static char kept[LSP_H5_REASON];

static void keep_reason(void)
{
    reason_text text = {.text = kept, .size = sizeof kept};
    if (H5Eget_num(H5E_DEFAULT) > 0) (void)H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_innermost, &text);
}

const char *lsp_h5_reason(char *reason, size_t size)
{
    keep_reason();
    (void)snprintf(reason, size, "%s", kept[0] ? kept : "no reason given by HDF5");
    kept[0] = '\0';
    return reason;
}

lsp_h5_quiet lsp_h5_quiet_enter(void)
{
    lsp_h5_quiet quiet = {.is_v2 = 1};
    (void)H5Eauto_is_v2(H5E_DEFAULT, &quiet.is_v2);
    if (quiet.is_v2) {
        H5E_auto2_t function = NULL;
        (void)H5Eget_auto2(H5E_DEFAULT, &function, &quiet.data);
        quiet.function = (void *)function;
        (void)H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    } else {
        H5E_auto1_t function = NULL;
        (void)H5Eget_auto1(&function, &quiet.data);
        quiet.function = (void *)function;
        (void)H5Eset_auto1(NULL, NULL);
    }
    kept[0] = '\0';
    return quiet;
}

void lsp_h5_quiet_leave(const lsp_h5_quiet *quiet)
{
    if (quiet->is_v2)
        (void)H5Eset_auto2(H5E_DEFAULT, (H5E_auto2_t)quiet->function, quiet->data);
    else
        (void)H5Eset_auto1((H5E_auto1_t)quiet->function, quiet->data);
}

bool lsp_h5_close_one(hid_t id)
{
    if (id < 0) return true;
    keep_reason();
    switch (H5Iget_type(id)) {
    case H5I_FILE: return H5Fclose(id) >= 0;
    case H5I_GROUP: return H5Gclose(id) >= 0;
    case H5I_DATATYPE: return H5Tclose(id) >= 0;
    case H5I_DATASPACE: return H5Sclose(id) >= 0;
    case H5I_DATASET: return H5Dclose(id) >= 0;
    case H5I_ATTR: return H5Aclose(id) >= 0;
    case H5I_GENPROP_LST: return H5Pclose(id) >= 0;
    default: return false;
    }
}

hid_t lsp_h5_keep(lsp_h5_handles *handles, hid_t id)
{
    if (id < 0) return id;
    if (handles->count == LSP_H5_HANDLES) {
        (void)lsp_h5_close_one(id);
        return H5I_INVALID_HID;
    }
    handles->ids[handles->count++] = id;
    return id;
}

bool lsp_h5_close(lsp_h5_handles *handles)
{
    bool fine = true;
    while (handles->count > 0) fine = lsp_h5_close_one(handles->ids[--handles->count]) && fine;
    return fine;
}

/* ---- files that are written ------------------------------------------------------------------------ */

/* Calls for every other descriptor of the file of `fd`; false when one fails. */
static bool each_descriptor(int fd, bool (*call)(int descriptor, int room), int room)
{
    struct stat own, other;
    DIR *entries = opendir("/proc/self/fd");
    bool fine = entries && fstat(fd, &own) == 0;
    for (struct dirent *entry; fine && (entry = readdir(entries));) {
        int descriptor = (int)strtol(entry->d_name, NULL, 10);
        if (entry->d_name[0] == '.' || descriptor == fd || fstat(descriptor, &other) != 0) continue;
        if (other.st_dev == own.st_dev && other.st_ino == own.st_ino) fine = call(descriptor, room) && fine;
    }
    if (entries) (void)closedir(entries);
    return fine;
}

/* Network file systems tell only now what they could not write: the copy's closing is told what the original's would be. */
static bool close_copy(int descriptor, int room)
{
    (void)room;
    int copy = dup(descriptor);
    return copy >= 0 && close(copy) == 0;
}

static bool replace(int descriptor, int room)
{
    return dup2(room, descriptor) >= 0;
}

bool lsp_h5_close_written(hid_t file, int fd, bool wanted)
{
    if (file < 0) return true;
    keep_reason();
    bool fine = H5Fflush(file, H5F_SCOPE_LOCAL) >= 0;
    if (!fine) keep_reason();
    if (fine && !each_descriptor(fd, close_copy, -1)) {
        fine = false;
        (void)snprintf(kept, sizeof kept, "%s", strerror(errno));
    }
    int room = fine ? -1 : memfd_create("longspan", MFD_CLOEXEC);
    if (room >= 0) {
        (void)each_descriptor(fd, replace, room);
        (void)close(room);
    }
    if (H5Fclose(file) >= 0) return fine && wanted;
    if (fine) keep_reason();
    (void)H5Eclear2(H5E_DEFAULT); /* the first reason stays */
    return false;
}

/* HDF5 cleans up by a hook in MPI_Finalize, which it sets when it is started after MPI, and one at the end of the process. */
void lsp_hdf5_start(void)
{
    (void)H5dont_atexit();
    (void)H5open();
}

/* ---- access ---------------------------------------------------------------------------------------- */

hid_t lsp_h5_access_serial(bool lock)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    if (access < 0) return access;
    if (H5Pset_fapl_sec2(access) < 0 || H5Pset_file_locking(access, lock, true) < 0 ||
        H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) < 0) {
        (void)H5Pclose(access);
        return H5I_INVALID_HID;
    }
    return access;
}
