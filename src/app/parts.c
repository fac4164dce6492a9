/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/parts.h"

#include "app/collect.h"
#include "app/format.h"
#include "base/checked.h"
#include "base/memory.h"

#include <inttypes.h>
#include <string.h>

/* The names of input.parts, without blanks around them. */
static lsp_status take_names(lsp_app *app, lsp_parts *parts)
{
    lsp_status status = lsp_app_require(app, LSP_KEY_INPUT_PARTS);
    if (status != LSP_OK) return status;
    const char *text = lsp_options_text(app->options, LSP_KEY_INPUT_PARTS);
    int64_t names = 1;
    for (const char *at = text; *at; at++) names += *at == ',';
    parts->parts = lsp_memory_zalloc(names, sizeof *parts->parts);
    for (int64_t i = 0; parts->parts && i < names; i++) {
        text += strspn(text, " \t");
        size_t length = strcspn(text, ","), used = length;
        while (used > 0 && strchr(" \t", text[used - 1])) used--;
        char *name = lsp_memory_zalloc((int64_t)used + 1, 1);
        if (!name) break;
        memcpy(name, text, used);
        parts->parts[parts->count++].file = name;
        text += length + (text[length] == ',');
        if (used == 0 || names < 2) {
            return lsp_context_fail(app->ctx, LSP_ERR_USAGE,
                                    "%s: input.parts = %s: wanted are two files or more, as a.h5, b.h5",
                                    lsp_options_origin(app->options, LSP_KEY_INPUT_PARTS),
                                    lsp_options_text(app->options, LSP_KEY_INPUT_PARTS));
        }
    }
    if (parts->count < names) status = lsp_context_fail(app->ctx, LSP_ERR_LIMIT, "no memory for input.parts");
    return lsp_context_agree(app->ctx, status);
}

/* Rank 0 reads the attributes that attend left. */
static lsp_status read_ranges(lsp_app *app, lsp_part *part)
{
    static const char *const names[] = {"key_begin", "key_end", "row_begin", "row_end", "n", "m"};
    int64_t values[6] = {0};
    lsp_status status = LSP_OK;
    for (int i = 0; i < 6 && app->layout.rank == 0 && status == LSP_OK; i++) {
        bool found = false;
        status = lsp_file_attribute_i64(app->ctx, part->file, names[i], &values[i], &found);
        if (status == LSP_OK && !found)
            status = lsp_context_fail(app->ctx, LSP_ERR_CONTENT,
                                      "%s lacks the attribute %s, so it is no output of longspan attend",
                                      part->file, names[i]);
    }
    status = lsp_context_agree(app->ctx, status);
    if (status != LSP_OK) return status;
    lsp_collect_broadcast(app->comm, values, sizeof values);
    part->key_begin = values[0];
    part->key_end = values[1];
    part->row_begin = values[2];
    part->row_end = values[3];
    part->n = values[4];
    part->m = values[5];
    return LSP_OK;
}

static lsp_status open_part(lsp_app *app, lsp_part *part)
{
    lsp_layout layout = (lsp_layout)lsp_options_choice(app->options, LSP_KEY_INPUT_LAYOUT);
    lsp_status status = lsp_tensor_open(app->ctx, part->file, "/out", LSP_VIEW_ROWS, layout, &part->out);
    if (status == LSP_OK)
        status = lsp_tensor_open(app->ctx, part->file, "/lse", LSP_VIEW_SCALARS, layout, &part->lse);
    if (status == LSP_OK) status = read_ranges(app, part);
    if (status != LSP_OK) return status;
    part->shape = lsp_tensor_get_shape(part->out);
    lsp_tensor_shape lse = lsp_tensor_get_shape(part->lse);
    bool same = lse.batch == part->shape.batch && lse.heads == part->shape.heads && lse.n == part->shape.n &&
                lse.type == part->shape.type && (lse.type == LSP_F32 || lse.type == LSP_F64);
    if (same) return LSP_OK;
    return lsp_context_fail(app->ctx, LSP_ERR_CONTENT,
                            "/out and /lse of %s do not fit together; wanted are f32 or f64 of the same rows",
                            part->file);
}

static lsp_status check_pair(lsp_app *app, const lsp_part *a, const lsp_part *b)
{
    char one[LSP_FORMAT_SIZE], other[LSP_FORMAT_SIZE];
    const lsp_tensor_shape *x = &a->shape, *y = &b->shape;
    if (x->batch != y->batch || x->heads != y->heads || x->n != y->n || x->d != y->d || x->axes != y->axes ||
        x->type != y->type) {
        return lsp_context_fail(app->ctx, LSP_ERR_CONTENT, "/out of %s is %s, of %s %s; parts must be alike",
                                a->file, lsp_format_shape(x, one), b->file, lsp_format_shape(y, other));
    }
    if (a->row_begin != b->row_begin || a->row_end != b->row_end || a->n != b->n || a->m != b->m) {
        return lsp_context_fail(
            app->ctx, LSP_ERR_CONTENT,
            "%s has rows %" PRId64 ":%" PRId64 " of %" PRId64 " x %" PRId64 ", %s rows %" PRId64 ":%" PRId64
            " of %" PRId64 " x %" PRId64 "; parts must have the same rows",
            a->file, a->row_begin, a->row_end, a->n, a->m, b->file, b->row_begin, b->row_end, b->n, b->m);
    }
    if (a->key_begin < b->key_end && b->key_begin < a->key_end) {
        return lsp_context_fail(app->ctx, LSP_ERR_CONTENT,
                                "%s has keys %" PRId64 ":%" PRId64 ", %s keys %" PRId64 ":%" PRId64
                                "; parts must not share keys",
                                a->file, a->key_begin, a->key_end, b->file, b->key_begin, b->key_end);
    }
    return LSP_OK;
}

/* Rank 0. How each part was made, compared whole: a list of heads may be long. */
static lsp_status compare_texts(lsp_app *app, const lsp_parts *parts, const char *name, char *first,
                                char *other, size_t size)
{
    lsp_status status = LSP_OK;
    first[0] = '\0';
    for (int i = 0; i < parts->count && status == LSP_OK; i++) {
        bool found = false;
        char *text = i == 0 ? first : other;
        text[0] = '\0';
        status = lsp_file_attribute_text(app->ctx, parts->parts[i].file, name, text, size, &found);
        if (status == LSP_OK && i > 0 && strcmp(first, other) != 0)
            status =
                lsp_context_fail(app->ctx, LSP_ERR_CONTENT,
                                 "%s was made with %s '%.100s', %s with '%.100s'; parts must be made alike",
                                 parts->parts[0].file, name, first, parts->parts[i].file, other);
    }
    return status;
}

/* What must be alike. */
static lsp_status check_rules(lsp_app *app, const lsp_parts *parts)
{
    static const char *const names[] = {"rule", "heads"};
    enum { TEXT = 65536 }; /* the most that an attribute holds */
    lsp_status status = LSP_OK;
    if (app->layout.rank == 0) {
        char *texts = lsp_app_alloc(app, 2, TEXT, "how the parts were made", &status);
        for (int name = 0; name < 2 && status == LSP_OK; name++)
            status = compare_texts(app, parts, names[name], texts, texts + TEXT, TEXT);
        lsp_memory_free(texts);
    }
    return lsp_context_agree(app->ctx, status);
}

/* The largest weights of parts are not those of the whole. */
static lsp_status check_methods(lsp_app *app, const lsp_parts *parts)
{
    lsp_status status = LSP_OK;
    for (int i = 0; i < parts->count && app->layout.rank == 0 && status == LSP_OK; i++) {
        char method[32] = "";
        bool found = false;
        status =
            lsp_file_attribute_text(app->ctx, parts->parts[i].file, "method", method, sizeof method, &found);
        if (status == LSP_OK && found && strcmp(method, "exact") != 0 && strcmp(method, "block") != 0)
            status = lsp_context_fail(
                app->ctx, LSP_ERR_CONTENT,
                "%s was made with method %s, whose outputs over some keys do not join to that "
                "over all; compute the whole at once",
                parts->parts[i].file, method);
    }
    return lsp_context_agree(app->ctx, status);
}

lsp_status lsp_parts_open(lsp_app *app, lsp_parts *parts)
{
    *parts = (lsp_parts){0};
    lsp_status status = take_names(app, parts);
    int64_t keys = 0;
    for (int i = 0; status == LSP_OK && i < parts->count; i++) {
        lsp_part *part = &parts->parts[i];
        status = open_part(app, part);
        for (int j = 0; status == LSP_OK && j < i; j++) status = check_pair(app, &parts->parts[j], part);
        keys += part->key_end - part->key_begin;
        parts->key_begin = i == 0 ? part->key_begin : lsp_min(parts->key_begin, part->key_begin);
        parts->key_end = lsp_max(parts->key_end, part->key_end);
    }
    parts->gap = keys < parts->key_end - parts->key_begin;
    if (status == LSP_OK) status = check_rules(app, parts);
    return status == LSP_OK ? check_methods(app, parts) : status;
}

lsp_status lsp_parts_check(lsp_app *app, const lsp_parts *parts)
{
    lsp_status status = LSP_OK;
    for (int i = 0; status == LSP_OK && i < 2 * parts->count; i++) {
        const lsp_part *part = &parts->parts[i / 2];
        lsp_tensor *tensor = i % 2 == 0 ? part->out : part->lse;
        lsp_tensor_shape shape = lsp_tensor_get_shape(tensor);
        uint64_t checksum = 0;
        if (!shape.has_checksum) continue;
        status = lsp_tensor_checksum(tensor, &checksum);
        if (status == LSP_OK && checksum != shape.checksum)
            return lsp_context_fail(app->ctx, LSP_ERR_CONTENT,
                                    "%s of %s does not fit its checksum (stored %016" PRIx64
                                    ", computed %016" PRIx64 "); compute this part again",
                                    i % 2 == 0 ? "/out" : "/lse", part->file, shape.checksum, checksum);
    }
    return status;
}

void lsp_parts_close(lsp_parts *parts)
{
    for (int i = 0; i < parts->count; i++) {
        lsp_part *part = &parts->parts[i];
        if (part->out) (void)lsp_tensor_close(&part->out);
        if (part->lse) (void)lsp_tensor_close(&part->lse);
        lsp_memory_free(part->file);
    }
    lsp_memory_free(parts->parts);
    *parts = (lsp_parts){0};
}
