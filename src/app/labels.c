/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/labels.h"

#include "base/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Bytes of a well-formed UTF-8 character at `at`, 0 when there is none. */
static int character_bytes(const unsigned char *at, const unsigned char *end)
{
    int more = *at < 0x80                  ? 0
               : *at >= 0xC2 && *at < 0xE0 ? 1
               : *at >= 0xE0 && *at < 0xF0 ? 2
               : *at >= 0xF0 && *at < 0xF5 ? 3
                                           : -1;
    if (more < 0 || end - at <= more) return 0;
    for (int i = 1; i <= more; i++)
        if ((at[i] & 0xC0) != 0x80) return 0;
    /* Too long a form, surrogates, beyond the last character. */
    if ((*at == 0xE0 && at[1] < 0xA0) || (*at == 0xED && at[1] >= 0xA0) || (*at == 0xF0 && at[1] < 0x90) ||
        (*at == 0xF4 && at[1] >= 0x90))
        return 0;
    return more + 1;
}

/* What no line of text can hold becomes a blank or a question mark. */
static void clean(unsigned char *text, const unsigned char *end)
{
    while (text < end) {
        int bytes = character_bytes(text, end);
        if (bytes == 0) *text = '?';
        if (*text < 0x20 || *text == 0x7F) *text = ' ';
        text += bytes > 0 ? bytes : 1;
    }
}

static int64_t count_lines(const char *text, int64_t size)
{
    int64_t lines = 0;
    for (int64_t i = 0; i < size; i++) lines += text[i] == '\n';
    return lines + (size > 0 && text[size - 1] != '\n');
}

static lsp_status fail_file(lsp_app *app, lsp_key key, const char *file)
{
    const lsp_option *option = lsp_option_get(key);
    return lsp_context_fail(app->ctx, LSP_ERR_FILE, "%s.%s: the file %s cannot be read: %s", option->section,
                            option->name, file, strerror(errno));
}

/* Rank 0. The whole file, and a zero byte. */
static lsp_status read_text(lsp_app *app, lsp_key key, const char *file, char **text, int64_t *size)
{
    FILE *stream = fopen(file, "rb");
    struct stat about;
    if (!stream) return fail_file(app, key, file);
    lsp_status status = LSP_OK;
    if (fstat(fileno(stream), &about) != 0 || S_ISDIR(about.st_mode)) {
        errno = errno ? errno : EISDIR;
        status = fail_file(app, key, file);
    }
    if (status == LSP_OK) *text = lsp_app_alloc(app, (int64_t)about.st_size + 1, 1, "the labels", &status);
    if (status == LSP_OK) {
        *size = (int64_t)fread(*text, 1, (size_t)about.st_size, stream);
        (*text)[*size] = '\0';
        if (ferror(stream)) status = fail_file(app, key, file);
    }
    (void)fclose(stream);
    return status;
}

static lsp_status cut_lines(lsp_app *app, int64_t size, lsp_labels *labels)
{
    lsp_status status = LSP_OK;
    labels->offsets =
        lsp_app_alloc(app, labels->count, sizeof *labels->offsets, "the places of labels", &status);
    for (int64_t line = 0, at = 0; status == LSP_OK && line < labels->count; line++) {
        char *end = memchr(labels->text + at, '\n', (size_t)(size - at));
        int64_t stop = end ? end - labels->text : size;
        labels->offsets[line] = at;
        labels->text[stop] = '\0';
        int64_t last = stop > at && labels->text[stop - 1] == '\r' ? stop - 1 : stop;
        labels->text[last] = '\0';
        clean((unsigned char *)labels->text + at, (unsigned char *)labels->text + last);
        at = stop + 1;
    }
    return status;
}

lsp_status lsp_labels_read(lsp_app *app, lsp_key key, int64_t count, const char *what, lsp_labels *labels)
{
    const char *file = lsp_options_text(app->options, key);
    const lsp_option *option = lsp_option_get(key);
    lsp_status status = LSP_OK;
    *labels = (lsp_labels){0};
    if (!*file) return LSP_OK;
    if (app->layout.rank == 0) {
        int64_t size = 0;
        errno = 0;
        status = read_text(app, key, file, &labels->text, &size);
        int64_t lines = status == LSP_OK ? count_lines(labels->text, size) : 0;
        if (status == LSP_OK && lines != count)
            status = lsp_context_fail(app->ctx, LSP_ERR_CONTENT,
                                      "%s.%s: %s has %" PRId64 " lines, but there are %" PRId64
                                      " %s; wanted is one label a line for each",
                                      option->section, option->name, file, lines, count, what);
        labels->count = count;
        if (status == LSP_OK) status = cut_lines(app, size, labels);
    }
    labels->count = count;
    return lsp_context_agree(app->ctx, status);
}

const char *lsp_labels_get(const lsp_labels *labels, int64_t i)
{
    return labels->text && i >= 0 && i < labels->count ? labels->text + labels->offsets[i] : NULL;
}

const char *lsp_labels_short(const lsp_labels *labels, int64_t i, int most, char *room)
{
    const char *text = lsp_labels_get(labels, i);
    int characters = 0;
    size_t at = 0, kept = 0;
    room[0] = '\0';
    if (!text) return room;
    for (; text[at]; at++) {
        if (((unsigned char)text[at] & 0xC0) == 0x80) continue;
        if (characters == most - 1) kept = at;
        if (++characters > most) break;
    }
    if (characters <= most) kept = at;
    memcpy(room, text, kept);
    memcpy(room + kept, characters > most ? "\xE2\x80\xA6" : "", characters > most ? 4 : 1);
    return room;
}

void lsp_labels_free(lsp_labels *labels)
{
    lsp_memory_free(labels->text);
    lsp_memory_free(labels->offsets);
    *labels = (lsp_labels){0};
}
