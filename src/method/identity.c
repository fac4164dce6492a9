/* Lines that say what a saved state belongs to. SPDX-License-Identifier: BSD-3-Clause */
#include "method/identity.h"

#include "base/checked.h"
#include "method/method.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { STATE_VERSION = 2 }; /* of the arrays and what they mean */

typedef struct writer {
    char *text;
    size_t size, used;
} writer;

static void add(writer *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(writer *w, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    size_t left = w->used < w->size ? w->size - w->used : 0;
    int length = vsnprintf(left ? w->text + w->used : NULL, left, format, args);
    va_end(args);
    w->used += length >= 0 ? (size_t)length : w->size;
}

static uint64_t hash_of(const void *data, size_t bytes)
{
    const unsigned char *byte = data;
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < bytes; i++) hash = (hash ^ byte[i]) * 0x100000001b3u;
    return hash;
}

/* A table by what it holds: its numbers are too many for a line. */
static void add_table(writer *w, const char *name, const void *data, int64_t count)
{
    if (data)
        add(w, "%s = %" PRId64 " numbers, hash %016" PRIx64 "\n", name, count,
            hash_of(data, (size_t)count * sizeof(int64_t)));
    else
        add(w, "%s = none\n", name);
}

static void add_method(writer *w, const lsp_attention_desc *d)
{
    add(w, "attention.method = %s\n", lsp_method_name(d->method));
    if (d->method == LSP_METHOD_BLOCK) add(w, "attention.block_size = %" PRId64 "\n", d->block_size);
    if (d->method == LSP_METHOD_TOPK)
        add(w, "attention.topk = %" PRId64 "\nattention.renormalize = %s\n", d->topk,
            d->renormalize ? "yes" : "no");
}

static void add_mask(writer *w, const lsp_problem *p)
{
    static const char *const masks[] = {"none", "causal", "window"};
    const lsp_attention_desc *d = &p->desc;
    add(w, "attention.mask = %s\n", masks[d->mask]);
    if (d->mask == LSP_MASK_WINDOW)
        add(w, "attention.window = %" PRId64 " left, %" PRId64 " right\n", d->window_left, d->window_right);
    if (d->mask != LSP_MASK_NONE || p->slopes)
        add(w, "attention.causal_align = %s\n", d->align == LSP_ALIGN_TOP_LEFT ? "top-left" : "bottom-right");
    add(w, "attention.scale = %.17g\nattention.softcap = %.17g\n", d->scale, d->softcap);
    add_table(w, "attention.alibi", p->slopes, d->heads);
    add_table(w, "input.documents", p->documents, d->document_count + 1);
    add_table(w, "input.documents_k", p->documents_k, d->document_count + 1);
    add_table(w, "input.key_lengths", p->key_lengths, d->batch);
    add_table(w, "the heads of k and v", p->kv_head_of, d->heads);
}

bool lsp_identity_write(const lsp_attention *plan, const char *marks, char *text, size_t size)
{
    const lsp_attention_desc *d = &plan->problem.desc;
    writer w = {text, size, 0};
    add(&w, "the program's version = %s (state %d)\n", lsp_version(), (int)STATE_VERSION);
    add_method(&w, d);
    add(&w,
        "the shape = %" PRId64 " x %" PRId64 " (%" PRId64 ") x %" PRId64 " x %" PRId64 ", d_k %" PRId64
        ", d_v %" PRId64 "\n",
        d->batch, d->heads, d->kv_heads, d->n, d->m, d->d_k, d->d_v);
    add(&w, "input.rows = %" PRId64 ":%" PRId64 "\ninput.keys = %" PRId64 ":%" PRId64 "\n", d->row_begin,
        d->row_end, d->key_begin, d->key_end);
    add(&w, "the types = %s, %s, %s\n", lsp_dtype_name(d->q_type), lsp_dtype_name(d->k_type),
        lsp_dtype_name(d->v_type));
    add_mask(&w, &plan->problem);
    add(&w, "compute.dtype = %s\n", lsp_dtype_name(d->compute));
    add(&w, "compute.isa = %s\n", lsp_isa_name(plan->kernel->isa));
    add(&w, "keys of a tile = %" PRId64 ", folded by %d\n", plan->shape.tile_keys, (int)LSP_FOLD_TILES);
    add(&w, "%s", marks);
    return w.used < size;
}

void lsp_identity_digest(const char *text, char id[LSP_STATE_ID])
{
    (void)snprintf(id, LSP_STATE_ID, "%016" PRIx64, hash_of(text, strlen(text)));
}

/* ---- reading ----------------------------------------------------------------------------------- */

typedef struct line {
    const char *name, *value;
    int name_length, value_length;
} line;

/* The line at *text, which moves on; false at the end. */
static bool next_line(const char **text, line *out)
{
    const char *begin = *text, *end = strchr(begin, '\n');
    if (!*begin) return false;
    if (!end) end = begin + strlen(begin);
    const char *equals = strstr(begin, " = ");
    bool has = equals && equals < end;
    *out = (line){begin, has ? equals + 3 : end, (int)((has ? equals : end) - begin),
                  has ? (int)(end - equals - 3) : 0};
    *text = *end ? end + 1 : end;
    return true;
}

static bool find_line(const char *text, const char *name, size_t length, line *out)
{
    while (next_line(&text, out))
        if ((size_t)out->name_length == length && strncmp(out->name, name, length) == 0) return true;
    return false;
}

bool lsp_identity_value(const char *text, const char *name, char *value, size_t size)
{
    line at;
    if (!find_line(text, name, strlen(name), &at)) return false;
    (void)snprintf(value, size, "%.*s", at.value_length, at.value);
    return true;
}

/* Values are compared whole, and cut off for show: what differs may stand behind. */
static bool differs_from(const char *one, const char *other, char name[128], char value[256],
                         char value_other[256])
{
    for (line at, like; next_line(&one, &at);) {
        bool there = find_line(other, at.name, (size_t)at.name_length, &like);
        if (there && at.value_length == like.value_length &&
            strncmp(at.value, like.value, (size_t)at.value_length) == 0)
            continue;
        (void)snprintf(name, 128, "%.*s", at.name_length, at.name);
        (void)snprintf(value, 256, "%.*s", at.value_length, at.value);
        (void)snprintf(value_other, 256, "%.*s", there ? like.value_length : 7,
                       there ? like.value : "missing");
        return true;
    }
    return false;
}

bool lsp_identity_differs(const char *was, const char *is, char name[128], char value_was[256],
                          char value_is[256])
{
    return differs_from(was, is, name, value_was, value_is) ||
           differs_from(is, was, name, value_is, value_was);
}
