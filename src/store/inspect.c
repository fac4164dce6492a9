/* Validates a file and a dataset in one process, with an error that tells what is wrong.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "store/inspect.h"

#include "base/checked.h"
#include "store/checksum.h"
#include "store/names.h"
#include "store/sources.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char signature[8] = {'\x89', 'H', 'D', 'F', '\r', '\n', '\x1a', '\n'};

/* HDF5 looks for its signature at 0, 512, 1024, 2048, ...: a user block may stand before it. */
static bool has_signature(int fd, int64_t bytes)
{
    for (int64_t at = 0; at + (int64_t)sizeof signature <= bytes; at = at == 0 ? 512 : 2 * at) {
        char found[sizeof signature];
        if (pread(fd, found, sizeof found, (off_t)at) == (ssize_t)sizeof found &&
            memcmp(found, signature, sizeof found) == 0)
            return true;
    }
    return false;
}

/* What the system says before HDF5 is asked. */
static lsp_status check_file(const char *file, lsp_error *err, int64_t *bytes)
{
    struct stat about;
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &about) != 0) {
        int why = errno;
        if (fd >= 0) (void)close(fd);
        return lsp_error_set(err, LSP_ERR_FILE, "cannot open '%s': %s; check the path and its permissions",
                             file, strerror(why));
    }
    lsp_status status = LSP_OK;
    *bytes = (int64_t)about.st_size;
    if (!S_ISREG(about.st_mode))
        status = lsp_error_set(err, LSP_ERR_FILE, "cannot open '%s': it is %s, not a file; name an HDF5 file",
                               file, S_ISDIR(about.st_mode) ? "a folder" : "a device or pipe");
    else if (about.st_size == 0)
        status = lsp_error_set(err, LSP_ERR_CONTENT,
                               "'%s' is empty (0 bytes), not an HDF5 file; make it again", file);
    else if (!has_signature(fd, *bytes))
        status = lsp_error_set(
            err, LSP_ERR_CONTENT,
            "'%s' is not an HDF5 file (no HDF5 signature in its %lld bytes); convert it to HDF5 first", file,
            (long long)*bytes);
    (void)close(fd);
    return status;
}

lsp_status lsp_inspect_file(const char *file, lsp_error *err, hid_t *out, int64_t *bytes)
{
    lsp_status status = check_file(file, err, bytes);
    if (status != LSP_OK) return status;
    hid_t access = lsp_h5_access_serial(true);
    hid_t id = access < 0 ? access : H5Fopen(file, H5F_ACC_RDONLY, access);
    char reason[LSP_H5_REASON] = "";
    if (id < 0) (void)lsp_h5_reason(reason, sizeof reason);
    (void)lsp_h5_close_one(access);
    if (id >= 0) {
        *out = id;
        return LSP_OK;
    }
    if (strstr(reason, "truncated"))
        return lsp_error_set(err, LSP_ERR_CONTENT, "'%s' is truncated (%s); copy or make it again", file,
                             reason);
    if (strstr(reason, "lock file"))
        return lsp_error_set(err, LSP_ERR_FILE,
                             "cannot open '%s': %s; wait until the program that writes it has closed it",
                             file, reason);
    return lsp_error_set(err, LSP_ERR_CONTENT,
                         "'%s' is not a readable HDF5 file (%s): damaged, or not closed "
                         "by its writer; copy or make it again",
                         file, reason);
}

/* The object at a path that is a dataset; else an error that names what is there. */
static lsp_status open_dataset(hid_t file_id, const char *file, const char *dataset, lsp_error *err,
                               hid_t *out)
{
    char reason[LSP_H5_REASON], there[LSP_NAMES_TEXT];
    hid_t object = H5Oopen(file_id, dataset, H5P_DEFAULT);
    if (object < 0) {
        (void)lsp_h5_reason(reason, sizeof reason);
        if (lsp_names_has_link(file_id, dataset))
            return lsp_error_set(
                err, LSP_ERR_CONTENT,
                "'%s' in '%s' is a link to something that cannot be opened (%s); restore its "
                "target",
                dataset, file, reason);
        return lsp_error_set(err, LSP_ERR_CONTENT, "'%s' has no dataset '%s'; it has %s", file, dataset,
                             lsp_names_list(file_id, there, sizeof there));
    }
    H5I_type_t kind = H5Iget_type(object);
    if (kind == H5I_DATASET) {
        *out = object;
        return LSP_OK;
    }
    (void)lsp_h5_close_one(object);
    return lsp_error_set(err, LSP_ERR_CONTENT, "'%s' in '%s' is a %s, not a dataset; the file has %s",
                         dataset, file, kind == H5I_GROUP ? "group" : "named type",
                         lsp_names_list(file_id, there, sizeof there));
}

static lsp_status inspect_axes(hid_t space, const char *file, const char *dataset, lsp_error *err,
                               lsp_dataset_facts *facts)
{
    H5S_class_t kind = H5Sget_simple_extent_type(space);
    facts->axes = kind == H5S_SIMPLE ? H5Sget_simple_extent_ndims(space) : 0;
    if (facts->axes < 1 || facts->axes > 4)
        return lsp_error_set(err, LSP_ERR_CONTENT, "dataset '%s' of '%s' has %d axes%s; 1 to 4 are read",
                             dataset, file, facts->axes, kind == H5S_NULL ? " and no value" : "");
    hsize_t dims[4] = {0};
    (void)H5Sget_simple_extent_dims(space, dims, NULL);
    int64_t elements = 1;
    for (int a = 0; a < facts->axes; a++) {
        if (dims[a] == 0)
            return lsp_error_set(
                err, LSP_ERR_CONTENT,
                "axis %d of %d of dataset '%s' of '%s' is zero long; there is nothing to read", a,
                facts->axes, dataset, file);
        if (dims[a] > INT64_MAX / 16 || !lsp_checked_mul(elements, (int64_t)dims[a], &elements) ||
            elements > INT64_MAX / 16)
            return lsp_error_set(err, LSP_ERR_LIMIT, "dataset '%s' of '%s' is too large to be addressed",
                                 dataset, file);
        facts->dims[a] = (int64_t)dims[a];
    }
    return LSP_OK;
}

static lsp_status inspect_filters(hid_t properties, const char *file, const char *dataset, lsp_error *err)
{
    int filters = H5Pget_nfilters(properties);
    for (int i = 0; i < filters; i++) {
        unsigned flags = 0, config = 0;
        size_t values = 0;
        char name[64] = "";
        H5Z_filter_t filter =
            H5Pget_filter2(properties, (unsigned)i, &flags, &values, NULL, sizeof name, name, &config);
        if (filter < 0 || H5Zfilter_avail(filter) > 0) continue;
        return lsp_error_set(err, LSP_ERR_CONTENT,
                             "dataset '%s' of '%s' is packed with filter %d (%s), which this HDF5 lacks; "
                             "rewrite it with h5repack -f GZIP=4",
                             dataset, file, (int)filter, name[0] ? name : "unnamed");
    }
    return LSP_OK;
}

static lsp_status inspect_storage(hid_t id, const char *file, const char *dataset, lsp_error *err,
                                  lsp_dataset_facts *facts)
{
    hid_t properties = H5Dget_create_plist(id);
    H5D_layout_t layout = properties < 0 ? H5D_LAYOUT_ERROR : H5Pget_layout(properties);
    lsp_status status = LSP_OK;
    facts->virtual_set = layout == H5D_VIRTUAL;
    facts->chunked = layout == H5D_CHUNKED;
    if (facts->virtual_set) status = lsp_sources_check(properties, file, dataset, err);
    if (facts->chunked) {
        hsize_t chunk[4] = {0};
        (void)H5Pget_chunk(properties, 4, chunk);
        for (int a = 0; a < facts->axes; a++) facts->chunk[a] = (int64_t)chunk[a];
        status = inspect_filters(properties, file, dataset, err);
    }
    if (layout == H5D_LAYOUT_ERROR)
        status = lsp_error_set(err, LSP_ERR_CONTENT,
                               "the storage of dataset '%s' of '%s' cannot be read; copy or make it again",
                               dataset, file);
    (void)lsp_h5_close_one(properties);
    return status;
}

lsp_status lsp_inspect_dataset(const char *file, const char *dataset, lsp_error *err,
                               lsp_dataset_facts *facts)
{
    memset(facts, 0, sizeof *facts);
    lsp_h5_handles handles = {.count = 0};
    hid_t file_id = H5I_INVALID_HID, id = H5I_INVALID_HID;
    lsp_status status = lsp_inspect_file(file, err, &file_id, &facts->file_bytes);
    if (status != LSP_OK) return status;
    (void)lsp_h5_keep(&handles, file_id);
    status = open_dataset(file_id, file, dataset, err, &id);
    if (status == LSP_OK) {
        (void)lsp_h5_keep(&handles, id);
        hid_t space = lsp_h5_keep(&handles, H5Dget_space(id)), type = lsp_h5_keep(&handles, H5Dget_type(id));
        facts->known_type = lsp_h5_dataset_type(id, &facts->type);
        H5T_class_t class = type < 0 ? H5T_NO_CLASS : H5Tget_class(type);
        facts->integer = class == H5T_INTEGER;
        if (class == H5T_NO_CLASS)
            status = lsp_error_set(err, LSP_ERR_CONTENT,
                                   "the type of dataset '%s' of '%s' cannot be read; copy or make it again",
                                   dataset, file);
        (void)lsp_h5_type_name(type, facts->type_name, sizeof facts->type_name);
        if (!lsp_checksum_stored(id, &facts->has_checksum, &facts->checksum) && status == LSP_OK)
            status =
                lsp_error_set(err, LSP_ERR_CONTENT,
                              "the checksum (attribute '%s') of dataset '%s' of '%s' cannot be read; copy or "
                              "make the file again, or remove the attribute",
                              LSP_CHECKSUM_ATTRIBUTE, dataset, file);
        if (status == LSP_OK) status = inspect_axes(space, file, dataset, err, facts);
    }
    if (status == LSP_OK) status = inspect_storage(id, file, dataset, err, facts);
    (void)lsp_h5_close(&handles);
    return status;
}
