/* The header of a safetensors file: {"name": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}, ...,
 * "__metadata__": {"key": "text"}}, padded with blanks (github.com/huggingface/safetensors, "Format").
 * SPDX-License-Identifier: BSD-3-Clause */
#include "store/foreign.h"

#include "base/memory.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHOWN = 100 }; /* bytes of a name in a message */

static const struct {
    const char *name;
    lsp_foreign_code code;
} types[] = {
    {"F64", {'f', 64, false}},  {"F32", {'f', 32, false}},  {"F16", {'f', 16, false}},
    {"BF16", {'b', 16, false}}, {"I64", {'i', 64, false}},  {"I32", {'i', 32, false}},
    {"I16", {'i', 16, false}},  {"I8", {'i', 8, false}},    {"U32", {'u', 32, false}},
    {"U16", {'u', 16, false}},  {"U8", {'u', 8, false}},    {"U64", {0, 64, false}},
    {"BOOL", {0, 8, false}},    {"F8_E5M2", {0, 8, false}}, {"F8_E4M3", {0, 8, false}},
    {"F8_E8M0", {0, 8, false}}, {"F6_E2M3", {0, 6, false}}, {"F6_E3M2", {0, 6, false}},
    {"F4", {0, 4, false}},      {"C64", {0, 64, false}},
};

/* One header while it is taken apart. */
typedef struct header {
    lsp_foreign *file;
    int64_t base, data_bytes;
    lsp_error *err;
} header;

static lsp_status refuse(header *h, const char *name, const char *what)
{
    return lsp_error_set(h->err, LSP_ERR_CONTENT, "tensor '%.*s' of '%s' %s; the header is broken", SHOWN,
                         name, h->file->path, what);
}

/* JSON has doubles: a whole number that one holds exactly. */
static bool whole(const cJSON *value, int64_t *number)
{
    if (!cJSON_IsNumber(value)) return false;
    double real = value->valuedouble;
    if (!(real >= 0 && real <= 9007199254740992.0) || real != floor(real)) return false;
    *number = (int64_t)real;
    return true;
}

static lsp_status take_type(header *h, const cJSON *value, lsp_foreign_item *item)
{
    if (!cJSON_IsString(value) || !lsp_foreign_printable(value->valuestring))
        return refuse(h, item->name, "has a dtype that is no text");
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (strcmp(types[i].name, value->valuestring) != 0) continue;
        item->code = types[i].code;
        (void)snprintf(item->type_name, sizeof item->type_name, "%s", types[i].name);
        return LSP_OK;
    }
    return lsp_error_set(h->err, LSP_ERR_CONTENT,
                         "tensor '%.*s' of '%s' has the dtype '%.20s', which is not one of safetensors (F64, "
                         "F32, F16, BF16, I64, ...)",
                         SHOWN, item->name, h->file->path, value->valuestring);
}

static lsp_status take_shape(header *h, const cJSON *value, lsp_foreign_item *item)
{
    if (!cJSON_IsArray(value)) return refuse(h, item->name, "has a shape that is no list");
    const cJSON *dim = NULL;
    cJSON_ArrayForEach(dim, value)
    {
        if (item->axes == LSP_FOREIGN_AXES) return refuse(h, item->name, "has more than 8 axes");
        if (!whole(dim, &item->dims[item->axes]))
            return refuse(h, item->name, "has a shape that is not of whole numbers from 0");
        item->axes++;
    }
    return LSP_OK;
}

static lsp_status take_offsets(header *h, const cJSON *value, lsp_foreign_item *item)
{
    int64_t end = 0;
    const cJSON *first = cJSON_IsArray(value) ? value->child : NULL, *second = first ? first->next : NULL;
    if (!second || second->next || !whole(first, &item->begin) || !whole(second, &end))
        return refuse(h, item->name, "has data_offsets that are not two whole numbers");
    if (end < item->begin || end > h->data_bytes)
        return lsp_error_set(
            h->err, LSP_ERR_CONTENT, "tensor '%.*s' of '%s' lies at bytes %lld to %lld of %lld: %s", SHOWN,
            item->name, h->file->path, (long long)item->begin, (long long)end, (long long)h->data_bytes,
            end < item->begin ? "its end is before its begin" : "the file is cut short, or the header lies");
    item->bytes = end - item->begin;
    return LSP_OK;
}

static lsp_status take_field(header *h, const cJSON *field, lsp_foreign_item *item, unsigned *seen)
{
    static const char *const names[] = {"dtype", "shape", "data_offsets"};
    static lsp_status (*const take[])(header *, const cJSON *, lsp_foreign_item *) = {take_type, take_shape,
                                                                                      take_offsets};
    for (unsigned i = 0; i < 3; i++) {
        if (strcmp(field->string, names[i]) != 0) continue;
        if (*seen & 1u << i) return refuse(h, item->name, "tells the same thing twice");
        *seen |= 1u << i;
        return take[i](h, field, item);
    }
    return LSP_OK; /* what later versions may add */
}

static lsp_status take_tensor(header *h, const cJSON *entry, lsp_foreign_item *item)
{
    unsigned seen = 0;
    int64_t bytes = 0;
    char text[LSP_FOREIGN_SHAPE_TEXT];
    if (strlen(entry->string) > LSP_FOREIGN_NAME_MOST || !lsp_foreign_printable(entry->string))
        return lsp_error_set(
            h->err, LSP_ERR_CONTENT,
            "a tensor of '%s' has a name of more than %d bytes, with control characters, or not "
            "in UTF-8; the header is broken",
            h->file->path, LSP_FOREIGN_NAME_MOST);
    item->name = lsp_memory_strdup(entry->string);
    if (!item->name)
        return lsp_error_set(h->err, LSP_ERR_LIMIT, "no memory for the tensors of '%s'", h->file->path);
    if (!cJSON_IsObject(entry)) return refuse(h, item->name, "is not described by an object");
    const cJSON *field = NULL;
    cJSON_ArrayForEach(field, entry)
    {
        lsp_status status = take_field(h, field, item, &seen);
        if (status != LSP_OK) return status;
    }
    if (seen != 7) return refuse(h, item->name, "lacks dtype, shape or data_offsets");
    lsp_status status = lsp_foreign_measure(h->file, item, &bytes, h->err);
    if (status == LSP_OK && bytes != item->bytes)
        status = lsp_error_set(h->err, LSP_ERR_CONTENT,
                               "tensor '%.*s' of '%s' is %s %s, %lld bytes, and its data_offsets span %lld",
                               SHOWN, item->name, h->file->path, item->type_name,
                               lsp_foreign_shape(item, text), (long long)bytes, (long long)item->bytes);
    return status;
}

/* ---- all tensors together --------------------------------------------------------------------------- */

static int by_place(const void *a, const void *b)
{
    const lsp_foreign_item *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const lsp_foreign_item *)a)->name, ((const lsp_foreign_item *)b)->name);
}

/* The format wants the data whole: no byte belongs to two tensors, none to none. */
static lsp_status check_places(header *h)
{
    lsp_foreign *file = h->file;
    int64_t at = 0;
    qsort(file->items, (size_t)file->count, sizeof *file->items, by_place);
    for (int64_t i = 0; i < file->count; i++) {
        const lsp_foreign_item *item = &file->items[i];
        if (item->begin != at)
            return lsp_error_set(h->err, LSP_ERR_CONTENT,
                                 "tensor '%.*s' of '%s' begins at byte %lld of the data, %s at byte %lld: %s",
                                 SHOWN, item->name, file->path, (long long)item->begin,
                                 i ? "and the one before it ends" : "which begins", (long long)at,
                                 item->begin < at ? "they overlap" : "bytes between belong to no tensor");
        at = item->begin + item->bytes;
    }
    if (at != h->data_bytes)
        return lsp_error_set(h->err, LSP_ERR_CONTENT,
                             "'%s' has %lld bytes behind its last tensor; the header lies, or the file was "
                             "written twice",
                             file->path, (long long)(h->data_bytes - at));
    return LSP_OK;
}

static lsp_status check_names(header *h)
{
    lsp_foreign *file = h->file;
    qsort(file->items, (size_t)file->count, sizeof *file->items, by_name);
    for (int64_t i = 1; i < file->count; i++)
        if (strcmp(file->items[i].name, file->items[i - 1].name) == 0)
            return lsp_error_set(h->err, LSP_ERR_CONTENT, "'%s' has two tensors called '%.*s'", file->path,
                                 SHOWN, file->items[i].name);
    return LSP_OK;
}

static lsp_status take_tensors(header *h, const cJSON *root)
{
    lsp_foreign *file = h->file;
    int64_t entries = 0;
    const cJSON *entry = NULL;
    cJSON_ArrayForEach(entry, root) entries++;
    file->items = lsp_memory_zalloc(entries, sizeof *file->items);
    if (!file->items)
        return lsp_error_set(h->err, LSP_ERR_LIMIT, "no memory for the tensors of '%s'", file->path);
    lsp_status status = LSP_OK;
    cJSON_ArrayForEach(entry, root)
    {
        if (strcmp(entry->string, "__metadata__") == 0 && cJSON_IsObject(entry)) continue;
        if (status == LSP_OK) status = take_tensor(h, entry, &file->items[file->count++]);
    }
    if (status == LSP_OK) status = check_places(h);
    if (status == LSP_OK) status = check_names(h);
    for (int64_t i = 0; i < file->count; i++) file->items[i].begin += h->base;
    return status;
}

/* cJSON's texts end at a zero: one inside would make two names of one. */
static bool holds_zero(const char *text, int64_t length)
{
    return memchr(text, '\0', (size_t)length) != NULL || strstr(text, "\\u0000") != NULL;
}

lsp_status lsp_safetensors_parse(const char *text, int64_t length, int64_t base, int64_t data_bytes,
                                 lsp_foreign *file, lsp_error *err)
{
    header h = {.file = file, .base = base, .data_bytes = data_bytes, .err = err};
    if (length < 2 || text[0] != '{')
        return lsp_error_set(err, LSP_ERR_CONTENT,
                             "'%s' is no safetensors file: its header does not begin with {", file->path);
    if (holds_zero(text, length))
        return lsp_error_set(err, LSP_ERR_CONTENT, "the header of '%s' holds zero bytes; it is broken",
                             file->path);
    const char *end = NULL;
    cJSON *root = cJSON_ParseWithOpts(text, &end, false);
    int64_t at = end ? (int64_t)(end - text) : 0;
    bool all = root != NULL && text + at + strspn(text + at, " \t\r\n") == text + length;
    lsp_status status = all ? take_tensors(&h, root)
                            : lsp_error_set(err, LSP_ERR_CONTENT,
                                            "the header of '%s' is no JSON object: it breaks off at byte "
                                            "%lld of %lld",
                                            file->path, (long long)at, (long long)length);
    cJSON_Delete(root);
    return status;
}
