/* The header of a .npy: a Python dictionary as {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }, padded with
 * blanks (numpy.lib.format). Read by a parser of that and nothing else.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "store/foreign.h"

#include "base/memory.h"

#include <stdio.h>
#include <string.h>

typedef struct header {
    lsp_foreign *file;
    const char *text, *at;
    lsp_error *err;
} header;

static lsp_status refuse(header *h, const char *wanted)
{
    return lsp_error_set(
        h->err, LSP_ERR_CONTENT,
        "the header of '%s' is broken at byte %lld: %s is expected; save the array again with "
        "numpy.save",
        h->file->path, (long long)(h->at - h->text), wanted);
}

static void skip_blanks(header *h)
{
    while (*h->at == ' ' || *h->at == '\t' || *h->at == '\n' || *h->at == '\r') h->at++;
}

/* Skips blanks, the character, and blanks; false (and nothing skipped but blanks) when it is another one. */
static bool take(header *h, char wanted)
{
    skip_blanks(h);
    if (*h->at != wanted) return false;
    h->at++;
    skip_blanks(h);
    return true;
}

/* A text in quotes without escapes, cut off at size. */
static bool take_text(header *h, char *text, size_t size)
{
    skip_blanks(h);
    char quote = *h->at;
    if (quote != '\'' && quote != '"') return false;
    const char *begin = h->at + 1, *end = strchr(begin, quote);
    if (!end || memchr(begin, '\\', (size_t)(end - begin))) return false;
    (void)snprintf(text, size, "%.*s", (int)(end - begin), begin);
    h->at = end + 1;
    return lsp_foreign_printable(text);
}

/* ---- the three values ------------------------------------------------------------------------------- */

static lsp_status take_descr(header *h, lsp_foreign_item *item)
{
    static const struct {
        const char *letters; /* kind and bytes */
        lsp_foreign_code code;
    } types[] = {{"f2", {'f', 16, false}}, {"f4", {'f', 32, false}}, {"f8", {'f', 64, false}},
                 {"i1", {'i', 8, false}},  {"i2", {'i', 16, false}}, {"i4", {'i', 32, false}},
                 {"i8", {'i', 64, false}}, {"u1", {'u', 8, false}},  {"u2", {'u', 16, false}},
                 {"u4", {'u', 32, false}}};
    char text[sizeof item->type_name];
    if (!take_text(h, text, sizeof text))
        return refuse(h, "a plain type such as '<f4' (records are not read)");
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (!*text || !strchr("<>|", *text) || strcmp(text + 1, types[i].letters) != 0) continue;
        /* | says that there is no order, which is so for single bytes alone. */
        if ((*text == '|') != (types[i].code.bits == 8)) continue;
        item->code = types[i].code;
        item->code.big = *text == '>';
        memcpy(item->type_name, text, sizeof text);
        return LSP_OK;
    }
    return lsp_error_set(
        h->err, LSP_ERR_CONTENT,
        "'%s' holds numbers of type '%s'; read are f2, f4, f8, i1 to i8 and u1 to u4 of either "
        "byte order",
        h->file->path, text);
}

static lsp_status take_order(header *h, lsp_foreign_item *item)
{
    skip_blanks(h);
    item->fortran = strncmp(h->at, "True", 4) == 0;
    if (!item->fortran && strncmp(h->at, "False", 5) != 0) return refuse(h, "True or False");
    h->at += item->fortran ? 4 : 5;
    return LSP_OK;
}

static bool take_number(header *h, int64_t *value)
{
    if (*h->at < '0' || *h->at > '9') return false;
    for (*value = 0; *h->at >= '0' && *h->at <= '9'; h->at++)
        if (__builtin_mul_overflow(*value, 10, value) || __builtin_add_overflow(*value, *h->at - '0', value))
            return false;
    if (*h->at == 'L') h->at++; /* as Python 2 wrote it */
    skip_blanks(h);
    return true;
}

static lsp_status take_shape(header *h, lsp_foreign_item *item)
{
    if (!take(h, '(')) return refuse(h, "(");
    bool comma = true;
    while (!take(h, ')')) {
        if (!comma) return refuse(h, "a comma, or )");
        if (item->axes == LSP_FOREIGN_AXES) return refuse(h, "a shape of at most 8 axes");
        if (!take_number(h, &item->dims[item->axes])) return refuse(h, "a whole number of at most 63 bits");
        item->axes++;
        comma = take(h, ',');
    }
    /* (3) is a number in Python. */
    return item->axes == 1 && !comma ? refuse(h, "(n,) for one axis") : LSP_OK;
}

/* ---- the dictionary --------------------------------------------------------------------------------- */

static lsp_status take_entry(header *h, lsp_foreign_item *item, unsigned *seen)
{
    static const char *const names[] = {"descr", "fortran_order", "shape"};
    static lsp_status (*const takes[])(header *, lsp_foreign_item *) = {take_descr, take_order, take_shape};
    char name[24];
    if (!take_text(h, name, sizeof name)) return refuse(h, "a key in quotes, or }");
    for (unsigned i = 0; i < 3; i++) {
        if (strcmp(name, names[i]) != 0) continue;
        if (*seen & 1u << i) return refuse(h, "each key once");
        *seen |= 1u << i;
        return take(h, ':') ? takes[i](h, item) : refuse(h, "a colon");
    }
    return refuse(h, "one of the keys descr, fortran_order and shape");
}

static lsp_status take_dictionary(header *h, lsp_foreign_item *item)
{
    unsigned seen = 0;
    bool comma = true;
    if (!take(h, '{')) return refuse(h, "{");
    while (!take(h, '}')) {
        lsp_status status = comma ? take_entry(h, item, &seen) : refuse(h, "a comma, or }");
        if (status != LSP_OK) return status;
        comma = take(h, ',');
    }
    return seen == 7 ? LSP_OK : refuse(h, "a dictionary with descr, fortran_order and shape");
}

lsp_status lsp_npy_parse(const char *text, int64_t length, int64_t base, int64_t data_bytes,
                         lsp_foreign *file, lsp_error *err)
{
    header h = {.file = file, .text = text, .at = text, .err = err};
    file->items = lsp_memory_zalloc(1, sizeof *file->items);
    if (file->items) file->items->name = lsp_memory_strdup("");
    if (!file->items || !file->items->name)
        return lsp_error_set(err, LSP_ERR_LIMIT, "no memory for the header of '%s'", file->path);
    file->count = 1;
    lsp_foreign_item *item = file->items;
    lsp_status status = take_dictionary(&h, item);
    if (status != LSP_OK) return status;
    if (h.at != text + length) return refuse(&h, "the end of the header");
    int64_t bytes = 0;
    char shape[LSP_FOREIGN_SHAPE_TEXT];
    status = lsp_foreign_measure(file, item, &bytes, err);
    if (status == LSP_OK && bytes != data_bytes)
        status =
            lsp_error_set(err, LSP_ERR_CONTENT,
                          "'%s' says that it holds %s %s, %lld bytes, and has %lld: it is cut short, or its "
                          "header lies",
                          file->path, item->type_name, lsp_foreign_shape(item, shape), (long long)bytes,
                          (long long)data_bytes);
    item->begin = base;
    item->bytes = bytes;
    return status;
}
