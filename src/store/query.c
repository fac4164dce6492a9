/* What a file holds, for programs: its datasets and attributes. SPDX-License-Identifier: BSD-3-Clause */
#include "comm/context.h"
#include "store/checksum.h"
#include "store/inspect.h"

#include <stdio.h>
#include <string.h>

#include <hdf5_hl.h>

typedef struct dataset_visit {
    void (*each)(void *user, const lsp_file_dataset *dataset);
    void *user;
} dataset_visit;

static herr_t visit(hid_t object, const char *name, const H5O_info_t *info, void *user)
{
    const dataset_visit *to = user;
    if (info->type != H5O_TYPE_DATASET) return 0;
    char path[1024], view[16] = "", layout[16] = "";
    int length = snprintf(path, sizeof path, "/%s", name);
    hid_t id = H5Dopen2(object, name, H5P_DEFAULT);
    if (id < 0 || length >= (int)sizeof path) {
        (void)lsp_h5_close_one(id);
        return -1;
    }
    lsp_dtype type = LSP_F32;
    uint64_t checksum = 0;
    bool wanted = H5DSis_scale(id) <= 0 && lsp_h5_dataset_type(id, &type), has_checksum = false;
    bool known = lsp_checksum_stored(id, &has_checksum, &checksum);
    (void)lsp_h5_attribute_text(id, "view", view, sizeof view);
    (void)lsp_h5_attribute_text(id, "layout", layout, sizeof layout);
    const lsp_file_dataset dataset = {.path = path,
                                      .view = strcmp(view, "scalars") == 0 ? LSP_VIEW_SCALARS : LSP_VIEW_ROWS,
                                      .layout = strcmp(layout, "bnhd") == 0 ? LSP_BNHD : LSP_BHND,
                                      .has_checksum = has_checksum};
    (void)lsp_h5_close_one(id);
    if (wanted && !known) return -1;
    if (wanted) to->each(to->user, &dataset);
    return 0;
}

/* The file, or the failure in the context. */
static lsp_status open_file(lsp_context *ctx, const char *file, hid_t *id)
{
    lsp_error error = {LSP_OK, ""};
    int64_t bytes = 0;
    lsp_status status = lsp_inspect_file(file, &error, id, &bytes);
    return status == LSP_OK ? LSP_OK : lsp_context_fail(ctx, status, "%s", error.text);
}

lsp_status lsp_file_datasets(lsp_context *ctx, const char *file,
                             void (*each)(void *user, const lsp_file_dataset *dataset), void *user)
{
    lsp_h5_quiet quiet = lsp_h5_quiet_enter();
    hid_t id = H5I_INVALID_HID;
    lsp_status status = open_file(ctx, file, &id);
    dataset_visit to = {each, user};
    if (status == LSP_OK && H5Ovisit2(id, H5_INDEX_NAME, H5_ITER_INC, visit, &to, H5O_INFO_BASIC) < 0)
        status = lsp_context_fail(
            ctx, LSP_ERR_CONTENT,
            "the datasets of '%s' cannot be listed: it is damaged; copy or make it again", file);
    (void)lsp_h5_close_one(id);
    lsp_h5_quiet_leave(&quiet);
    return status;
}

lsp_status lsp_file_attribute_i64(lsp_context *ctx, const char *file, const char *name, int64_t *value,
                                  bool *found)
{
    lsp_h5_quiet quiet = lsp_h5_quiet_enter();
    hid_t id = H5I_INVALID_HID;
    lsp_status status = open_file(ctx, file, &id);
    *found = false;
    if (status == LSP_OK && H5Aexists(id, name) > 0) {
        lsp_h5_handles handles = {.count = 0};
        hid_t attribute = lsp_h5_keep(&handles, H5Aopen(id, name, H5P_DEFAULT));
        hid_t space = attribute < 0 ? attribute : lsp_h5_keep(&handles, H5Aget_space(attribute));
        hid_t type = attribute < 0 ? attribute : lsp_h5_keep(&handles, H5Aget_type(attribute));
        int64_t read = 0;
        *found = space >= 0 && type >= 0 && H5Sget_simple_extent_npoints(space) == 1 &&
                 H5Tget_class(type) == H5T_INTEGER && H5Aread(attribute, H5T_NATIVE_INT64, &read) >= 0;
        if (*found) *value = read;
        (void)lsp_h5_close(&handles);
    }
    (void)lsp_h5_close_one(id);
    lsp_h5_quiet_leave(&quiet);
    return status;
}

lsp_status lsp_file_attribute_text(lsp_context *ctx, const char *file, const char *name, char *text,
                                   size_t size, bool *found)
{
    lsp_h5_quiet quiet = lsp_h5_quiet_enter();
    hid_t id = H5I_INVALID_HID;
    lsp_status status = open_file(ctx, file, &id);
    *found = status == LSP_OK && lsp_h5_attribute_text(id, name, text, size);
    (void)lsp_h5_close_one(id);
    lsp_h5_quiet_leave(&quiet);
    return status;
}

const char *lsp_hdf5_version(void)
{
    static char text[40];
    unsigned major = 0, minor = 0, release = 0;
    if (H5get_libversion(&major, &minor, &release) < 0) return "unknown";
    (void)snprintf(text, sizeof text, "%u.%u.%u", major, minor, release);
    return text;
}
