/* Lists and finds names in a file. SPDX-License-Identifier: BSD-3-Clause */
#include "store/names.h"

#include <stdio.h>
#include <string.h>

#include <hdf5_hl.h>

typedef struct name_list {
    char *text;
    size_t size, used;
    int64_t left_out;
} name_list;

static herr_t add_name(hid_t object, const char *name, const H5O_info_t *info, void *user)
{
    name_list *list = user;
    if (info->type != H5O_TYPE_DATASET) return 0;
    hid_t id = H5Dopen2(object, name, H5P_DEFAULT);
    bool scale = id >= 0 && H5DSis_scale(id) > 0;
    (void)lsp_h5_close_one(id);
    if (scale) return 0;
    enum { ROOM_FOR_COUNT = 32 };
    size_t wanted = strlen(name) + sizeof ", /";
    if (list->used + wanted + ROOM_FOR_COUNT > list->size) {
        list->left_out++;
        return 0;
    }
    int written = snprintf(list->text + list->used, list->size - list->used, "%s/%s",
                           list->used ? ", " : "datasets ", name);
    if (written > 0) list->used += (size_t)written;
    return 0;
}

const char *lsp_names_list(hid_t file, char *text, size_t size)
{
    name_list list = {.text = text, .size = size};
    text[0] = '\0';
    (void)H5Ovisit2(file, H5_INDEX_NAME, H5_ITER_INC, add_name, &list, H5O_INFO_BASIC);
    if (list.left_out > 0)
        (void)snprintf(text + list.used, size - list.used, "%s%lld%s", list.used ? " and " : "",
                       (long long)list.left_out, list.used ? " more" : " datasets");
    else if (list.used == 0)
        (void)snprintf(text, size, "no datasets");
    return text;
}

bool lsp_names_has_link(hid_t file, const char *path)
{
    char part[1024];
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof part) return false;
    for (size_t i = 1; i <= length; i++) {
        if (path[i] != '/' && path[i] != '\0') continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (strcmp(part, "/") != 0 && H5Lexists(file, part, H5P_DEFAULT) <= 0) return false;
    }
    return true;
}
