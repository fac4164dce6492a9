/* Decks, read with libinih. SPDX-License-Identifier: BSD-3-Clause */
#include "app/deck.h"

#include "base/memory.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <string.h>

enum {
    /* Debian's libinih keeps 200 bytes of a line (with the end of line and the zero) and cuts the rest
     * without a word. */
    LINE_MOST = 196,
    DECK_MOST = 1 << 20
};

/* What the reader and the handler share: libinih hands no line number to the handler. */
typedef struct deck_parser {
    const char *at; /* next line of the text */
    int line;       /* number of the line last given to libinih */
    char raw[LINE_MOST + 4];
    const char *file;
    lsp_options *options;
    int given[LSP_KEY_COUNT]; /* line that gave a key, or 0 */
    lsp_error *error;
    lsp_status status;
} deck_parser;

lsp_status lsp_deck_read(const char *file, char **text, lsp_error *error)
{
    FILE *stream = fopen(file, "rb");
    if (!stream) {
        return lsp_error_set(error, LSP_ERR_FILE, "the deck %s cannot be opened: %s", file, strerror(errno));
    }
    char *buffer = lsp_memory_alloc(DECK_MOST + 1, 1);
    size_t bytes = buffer ? fread(buffer, 1, DECK_MOST + 1, stream) : 0;
    bool failed = ferror(stream) != 0;
    int reason = errno;
    (void)fclose(stream);
    lsp_status status = LSP_OK;
    if (!buffer) {
        status = lsp_error_set(error, LSP_ERR_LIMIT, "no memory to read the deck %s", file);
    } else if (failed) {
        status = lsp_error_set(error, LSP_ERR_FILE, "the deck %s cannot be read: %s", file, strerror(reason));
    } else if (bytes > DECK_MOST || memchr(buffer, '\0', bytes)) {
        status = lsp_error_set(error, LSP_ERR_USAGE,
                               "%s is not a deck (a text file of [section] and key = "
                               "value lines)",
                               file);
    }
    if (status != LSP_OK) {
        lsp_memory_free(buffer);
        return status;
    }
    buffer[bytes] = '\0';
    *text = buffer;
    return LSP_OK;
}

/* libinih's reader. Leading blanks go, so that an indented line is a key of its own and not the
 * continuation of the value before. */
static char *next_line(char *line, int size, void *user)
{
    deck_parser *parser = user;
    if (*parser->at == '\0' || parser->status != LSP_OK) return NULL;
    parser->line++;
    while (*parser->at == ' ' || *parser->at == '\t') parser->at++;
    size_t length = strcspn(parser->at, "\n");
    const char *begin = parser->at;
    parser->at += length + (begin[length] == '\n');
    while (length > 0 && isspace((unsigned char)begin[length - 1])) length--;
    if (length > LINE_MOST || length + 2 > (size_t)size) {
        parser->status = lsp_error_set(parser->error, LSP_ERR_USAGE,
                                       "%s:%d: the line has %zu characters, a deck's lines at most %d; give "
                                       "the value with --section.key=value",
                                       parser->file, parser->line, length, LINE_MOST);
        return NULL;
    }
    memcpy(line, begin, length);
    memcpy(line + length, "\n", 2);
    memcpy(parser->raw, line, length + 2);
    return line;
}

/* Whether libinih took the end of the line for a comment. */
static bool has_comment(const char *raw)
{
    for (const char *at = raw; *at; at++) {
        if (*at == ';' && at > raw && isspace((unsigned char)at[-1])) return true;
    }
    return false;
}

static int take_value(void *user, const char *section, const char *name, const char *value)
{
    deck_parser *parser = user;
    if (parser->status != LSP_OK) return 1;
    char origin[512];
    (void)snprintf(origin, sizeof origin, "%s:%d", parser->file, parser->line);
    if (*section == '\0') {
        parser->status = lsp_error_set(parser->error, LSP_ERR_USAGE,
                                       "%s: key '%s' stands before any [section]", origin, name);
        return 1;
    }
    lsp_key key = lsp_option_find(section, name);
    if (key != LSP_KEY_COUNT && lsp_option_get(key)->kind == LSP_OPTION_PATH && has_comment(parser->raw)) {
        parser->status =
            lsp_error_set(parser->error, LSP_ERR_USAGE,
                          "%s: ' ;' after a name (%s.%s) is ambiguous; put the comment on a line "
                          "of its own, or give the name with --%s.%s=NAME",
                          origin, section, name, section, name);
        return 1;
    }
    if (key != LSP_KEY_COUNT && parser->given[key]) {
        parser->status = lsp_error_set(parser->error, LSP_ERR_USAGE, "%s: %s.%s was given before, in line %d",
                                       origin, section, name, parser->given[key]);
        return 1;
    }
    parser->status = lsp_options_set(parser->options, section, name, value, origin, parser->error);
    if (key != LSP_KEY_COUNT) parser->given[key] = parser->line;
    return 1;
}

lsp_status lsp_deck_parse(const char *text, const char *file, lsp_options *options, lsp_error *error)
{
    deck_parser *parser = lsp_memory_zalloc(1, sizeof *parser);
    if (!parser) return lsp_error_set(error, LSP_ERR_LIMIT, "no memory to read the deck %s", file);
    if (strncmp(text, "\xEF\xBB\xBF", 3) == 0) text += 3;
    parser->at = text;
    parser->file = file;
    parser->options = options;
    parser->error = error;
    int bad_line = ini_parse_stream(next_line, parser, take_value, parser);
    lsp_status status = parser->status;
    /* The earlier of the two errors: what follows a broken [section] is read as part of another. */
    bool syntax = bad_line != 0 && (status == LSP_OK || bad_line < parser->line);
    lsp_memory_free(parser);
    if (syntax) {
        return lsp_error_set(error, LSP_ERR_USAGE, "%s:%d: neither [section] nor key = value", file,
                             bad_line);
    }
    return status;
}

char *lsp_deck_write(const lsp_options *options)
{
    char *text = NULL;
    size_t size = 0;
    for (int pass = 0; pass < 2; pass++) {
        size_t at = 0;
        const char *section = "";
        for (int key = 0; key < LSP_KEY_COUNT; key++) {
            if (!lsp_options_is_set(options, (lsp_key)key)) continue;
            const lsp_option *option = lsp_option_get((lsp_key)key);
            bool opens = strcmp(section, option->section) != 0;
            section = option->section;
            int length = snprintf(text ? text + at : NULL, text ? size - at : 0, "%s%s%s%s = %s\n",
                                  opens ? "[" : "", opens ? section : "", opens ? "]\n" : "", option->name,
                                  lsp_options_peek(options, (lsp_key)key));
            if (length > 0) at += (size_t)length;
        }
        if (pass == 1) break;
        size = at + 1;
        text = lsp_memory_alloc((int64_t)size, 1);
        if (!text) return NULL;
        text[0] = '\0';
    }
    return text;
}
