/* What is in a file, one line an object. SPDX-License-Identifier: BSD-3-Clause */
#include "comm/context.h"
#include "store/checksum.h"
#include "store/inspect.h"

#include <hdf5_hl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A line that grows, cut when full. */
typedef struct text_line {
    char text[2048];
    size_t used;
} text_line;

typedef struct description {
    void (*line)(void *user, const char *text);
    void *user;
} description;

__attribute__((format(printf, 2, 3))) static void append(text_line *line, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int written = vsnprintf(line->text + line->used, sizeof line->text - line->used, format, args);
    va_end(args);
    if (written < 0) return;
    size_t left = sizeof line->text - line->used - 1;
    line->used += (size_t)written < left ? (size_t)written : left;
}

/* Bytes as people read them. */
static void append_bytes(text_line *line, uint64_t bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    int unit = 0;
    for (; value >= 1024.0 && unit < 4; unit++) value /= 1024.0;
    append(line, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
}

/* ---- attributes -------------------------------------------------------------------------------------- */

static void append_number(text_line *line, hid_t attribute, hid_t type)
{
    if (H5Tget_class(type) == H5T_INTEGER) {
        int64_t value = 0;
        if (H5Aread(attribute, H5T_NATIVE_INT64, &value) >= 0) append(line, "%lld", (long long)value);
    } else {
        double value = 0.0;
        if (H5Aread(attribute, H5T_NATIVE_DOUBLE, &value) >= 0) append(line, "%.9g", value);
    }
}

/* Text on one line, cut when long. */
static void append_text(text_line *line, hid_t object, const char *name)
{
    enum { SHOWN = 60 };
    char text[256];
    if (!lsp_h5_attribute_text(object, name, text, sizeof text)) {
        append(line, "(text)");
        return;
    }
    for (char *c = text; *c; c++)
        if (*c == '\n' || *c == '\t' || *c == '\r') *c = ' ';
    if (strlen(text) > SHOWN)
        append(line, "\"%.*s...\"", SHOWN, text);
    else
        append(line, "\"%s\"", text);
}

typedef struct attribute_walk {
    text_line *line;
    int shown;
} attribute_walk;

/* What HDF5 itself keeps as attributes is told in other words. */
static bool is_internal(const char *name)
{
    static const char *const internal[] = {"CLASS",          "NAME",           "DIMENSION_LABELS",
                                           "DIMENSION_LIST", "REFERENCE_LIST", LSP_CHECKSUM_RULE_ATTRIBUTE};
    for (size_t i = 0; i < sizeof internal / sizeof internal[0]; i++)
        if (strcmp(name, internal[i]) == 0) return true;
    return false;
}

static herr_t append_attribute(hid_t object, const char *name, const H5A_info_t *info, void *user)
{
    (void)info;
    attribute_walk *walk = user;
    if (is_internal(name)) return 0;
    lsp_h5_handles handles = {.count = 0};
    hid_t attribute = lsp_h5_keep(&handles, H5Aopen(object, name, H5P_DEFAULT));
    hid_t type = attribute < 0 ? attribute : lsp_h5_keep(&handles, H5Aget_type(attribute));
    hid_t space = attribute < 0 ? attribute : lsp_h5_keep(&handles, H5Aget_space(attribute));
    if (type >= 0 && space >= 0) {
        append(walk->line, "%s%s=", walk->shown++ ? ", " : "  {", name);
        H5T_class_t kind = H5Tget_class(type);
        hssize_t points = H5Sget_simple_extent_npoints(space);
        if (points != 1)
            append(walk->line, "[%lld values]", (long long)points);
        else if (kind == H5T_STRING)
            append_text(walk->line, object, name);
        else if (kind == H5T_INTEGER || kind == H5T_FLOAT)
            append_number(walk->line, attribute, type);
        else
            append(walk->line, "(other)");
    }
    (void)lsp_h5_close(&handles);
    return 0;
}

static void append_attributes(text_line *line, hid_t object)
{
    attribute_walk walk = {.line = line};
    (void)H5Aiterate2(object, H5_INDEX_NAME, H5_ITER_INC, NULL, append_attribute, &walk);
    if (walk.shown) append(line, "}");
}

/* ---- objects ----------------------------------------------------------------------------------------- */

static void append_storage(text_line *line, hid_t id)
{
    hid_t properties = H5Dget_create_plist(id);
    if (properties < 0) return;
    switch (H5Pget_layout(properties)) {
    case H5D_CONTIGUOUS:
        append(line, H5Pget_external_count(properties) > 0 ? "  in external files" : "  contiguous");
        break;
    case H5D_COMPACT: append(line, "  compact"); break;
    case H5D_VIRTUAL: append(line, "  virtual"); break;
    case H5D_CHUNKED: {
        hsize_t chunk[H5S_MAX_RANK];
        int axes = H5Pget_chunk(properties, H5S_MAX_RANK, chunk);
        append(line, "  chunks [");
        for (int a = 0; a < axes; a++) append(line, "%s%llu", a ? ", " : "", (unsigned long long)chunk[a]);
        append(line, "]");
        break;
    }
    default: break;
    }
    int filters = H5Pget_nfilters(properties);
    for (int i = 0; i < filters; i++) {
        unsigned flags = 0, config = 0;
        size_t values = 0;
        char name[64] = "";
        H5Z_filter_t filter =
            H5Pget_filter2(properties, (unsigned)i, &flags, &values, NULL, sizeof name, name, &config);
        append(line, " %s%s", name[0] ? name : "filter",
               H5Zfilter_avail(filter) > 0 ? "" : " (not available)");
    }
    (void)H5Pclose(properties);
}

static void describe_dataset(text_line *line, hid_t id)
{
    lsp_h5_handles handles = {.count = 0};
    hid_t space = lsp_h5_keep(&handles, H5Dget_space(id)), type = lsp_h5_keep(&handles, H5Dget_type(id));
    hsize_t dims[H5S_MAX_RANK];
    char name[40];
    lsp_dtype known;
    bool bf16 = lsp_h5_dataset_type(id, &known) && known == LSP_BF16;
    append(line, "%s", bf16 ? "bf16" : lsp_h5_type_name(type, name, sizeof name));
    if (bf16 && H5Tget_order(type) == H5T_ORDER_BE) append(line, " (big-endian)");
    int axes = H5Sget_simple_extent_dims(space, dims, NULL);
    append(line, " [");
    for (int a = 0; a < axes; a++) append(line, "%s%llu", a ? ", " : "", (unsigned long long)dims[a]);
    append(line, "]");
    if (H5DSis_scale(id) > 0) {
        append(line, "  dimension scale");
    } else {
        append_storage(line, id);
        append(line, "  ");
        append_bytes(line, (uint64_t)H5Dget_storage_size(id));
        char label[64];
        for (int a = 0, shown = 0; a < axes; a++) {
            if (H5DSget_label(id, (unsigned)a, label, sizeof label) <= 0) continue;
            append(line, "%s%d: %s", shown++ ? ", " : "  axes ", a, label);
        }
    }
    (void)lsp_h5_close(&handles);
}

static herr_t describe_object(hid_t root, const char *name, const H5O_info_t *info, void *user)
{
    (void)info;
    description *to = user;
    text_line line = {.used = 0};
    hid_t id = H5Oopen(root, name, H5P_DEFAULT);
    append(&line, "%s%s  ", strcmp(name, ".") == 0 ? "" : "/", strcmp(name, ".") == 0 ? "/" : name);
    switch (id < 0 ? H5I_BADID : H5Iget_type(id)) {
    case H5I_DATASET: describe_dataset(&line, id); break;
    case H5I_GROUP: append(&line, "group"); break;
    case H5I_DATATYPE: append(&line, "named type"); break;
    default: append(&line, "cannot be opened"); break;
    }
    if (id >= 0) append_attributes(&line, id);
    (void)lsp_h5_close_one(id);
    to->line(to->user, line.text);
    return 0;
}

/* Links to other files or paths, which the walk over objects does not follow. */
static herr_t describe_link(hid_t root, const char *name, const H5L_info_t *info, void *user)
{
    description *to = user;
    char value[1024], *file = NULL, *path = NULL;
    text_line line = {.used = 0};
    if (info->type != H5L_TYPE_SOFT && info->type != H5L_TYPE_EXTERNAL) return 0;
    if (info->u.val_size > sizeof value || H5Lget_val(root, name, value, sizeof value, H5P_DEFAULT) < 0)
        return 0;
    value[sizeof value - 1] = '\0';
    if (info->type == H5L_TYPE_SOFT)
        append(&line, "/%s  link to %s", name, value);
    else if (H5Lunpack_elink_val(value, info->u.val_size, NULL, (const char **)&file, (const char **)&path) >=
             0)
        append(&line, "/%s  link to %s:%s", name, file, path);
    to->line(to->user, line.text);
    return 0;
}

lsp_status lsp_file_describe(lsp_context *ctx, const char *file, void (*line)(void *user, const char *text),
                             void *user)
{
    lsp_h5_quiet quiet = lsp_h5_quiet_enter();
    lsp_error err;
    hid_t id = H5I_INVALID_HID;
    int64_t bytes = 0;
    lsp_status status = lsp_inspect_file(file, &err, &id, &bytes);
    if (status == LSP_OK) {
        description to = {.line = line, .user = user};
        text_line head = {.used = 0};
        append(&head, "%s  HDF5, %lld bytes", file, (long long)bytes);
        line(user, head.text);
        (void)H5Ovisit2(id, H5_INDEX_NAME, H5_ITER_INC, describe_object, &to, H5O_INFO_BASIC);
        (void)H5Lvisit(id, H5_INDEX_NAME, H5_ITER_INC, describe_link, &to);
        (void)lsp_h5_close_one(id);
    } else {
        status = lsp_context_fail(ctx, status, "%s", err.text);
    }
    lsp_h5_quiet_leave(&quiet);
    return status;
}
