/* Values of deck keys: checking, keeping, reading. SPDX-License-Identifier: BSD-3-Clause */
#include "app/options.h"

#include "app/value.h"
#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct option_value {
    char *text, *origin; /* NULL: not given */
    bool used;
} option_value;

struct lsp_options {
    option_value values[LSP_KEY_COUNT];
};

lsp_options *lsp_options_create(void)
{
    return lsp_memory_zalloc(1, sizeof(lsp_options));
}

void lsp_options_destroy(lsp_options *options)
{
    if (!options) return;
    for (int key = 0; key < LSP_KEY_COUNT; key++) {
        lsp_memory_free(options->values[key].text);
        lsp_memory_free(options->values[key].origin);
    }
    lsp_memory_free(options);
}

/* ---- unknown names ------------------------------------------------------------------------------ */

/* A name that begins as the one given is meant more likely than one of the same length. */
static int unlikeness(const char *given, const char *candidate)
{
    size_t length = strlen(given);
    return length >= 3 && strncmp(given, candidate, length) == 0 ? 1 : lsp_value_distance(given, candidate);
}

static lsp_status refuse_section(const char *section, const char *origin, lsp_error *error)
{
    const char *nearest = NULL;
    int least = 1000;
    for (int key = 0; key < LSP_KEY_COUNT; key++) {
        const char *candidate = lsp_option_get((lsp_key)key)->section;
        int distance = unlikeness(section, candidate);
        if (distance < least) {
            least = distance;
            nearest = candidate;
        }
    }
    return lsp_error_set(error, LSP_ERR_USAGE, "%s: unknown section '%s'; the nearest is '%s'", origin,
                         section, nearest);
}

static lsp_status refuse_key(const char *section, const char *name, const char *origin, lsp_error *error)
{
    const lsp_option *nearest = NULL;
    bool known_section = false;
    int least = 1000;
    for (int key = 0; key < LSP_KEY_COUNT; key++) {
        const lsp_option *candidate = lsp_option_get((lsp_key)key);
        bool same = strcmp(candidate->section, section) == 0;
        known_section = known_section || same;
        /* A name in the section meant is likelier than one elsewhere that is a letter nearer. */
        int distance = 2 * unlikeness(name, candidate->name) + (same ? 0 : 3);
        if (distance < least) {
            least = distance;
            nearest = candidate;
        }
    }
    if (!known_section) return refuse_section(section, origin, error);
    return lsp_error_set(error, LSP_ERR_USAGE, "%s: unknown key '%s.%s'; the nearest is '%s.%s'", origin,
                         section, name, nearest->section, nearest->name);
}

/* ---- checking a value --------------------------------------------------------------------------- */

static bool number_fits(const lsp_option *option, const char *text)
{
    double real = 0;
    int64_t integer = 0;
    if (option->words && strcmp(text, option->words) == 0) return true;
    switch (option->kind) {
    case LSP_OPTION_INT:
        if (!lsp_value_int(text, &integer)) return false;
        real = (double)integer;
        break;
    case LSP_OPTION_BYTES:
        if (!lsp_value_bytes(text, &real)) return false;
        break;
    default:
        if (!lsp_value_real(text, &real)) return false;
        break;
    }
    return real >= option->low && real <= option->high;
}

static bool items_fit(const lsp_option *option, const char *text)
{
    int64_t items[LSP_ITEMS_MOST];
    bool numbers = option->kind != LSP_OPTION_WORDS;
    if (numbers && option->words && strcmp(text, option->words) == 0) return true;
    int64_t count = lsp_value_items(text, numbers ? NULL : option->words, items, LSP_ITEMS_MOST);
    for (int64_t i = 0; numbers && i < count; i++) {
        if ((double)items[i] < option->low || (double)items[i] > option->high) return false;
    }
    return count > 0;
}

static bool value_fits(const lsp_option *option, const char *text)
{
    int64_t begin = 0, end = 0;
    switch (option->kind) {
    case LSP_OPTION_PATH: return *text != '\0';
    case LSP_OPTION_YESNO: return lsp_value_word(text, "yes|no") >= 0;
    case LSP_OPTION_CHOICE: return lsp_value_word(text, option->words) >= 0;
    case LSP_OPTION_HEADS: return strcmp(text, "all") == 0 || lsp_value_list(text, NULL, 0) > 0;
    case LSP_OPTION_RANGE: return strcmp(text, "all") == 0 || lsp_value_range(text, &begin, &end);
    case LSP_OPTION_NUMBERS:
    case LSP_OPTION_CHOICES:
    case LSP_OPTION_WORDS: return items_fit(option, text);
    case LSP_OPTION_INT:
    case LSP_OPTION_REAL:
    case LSP_OPTION_BYTES: return number_fits(option, text);
    }
    return false;
}

/* "one of none, causal, window", for messages. */
static void describe_allowed(const lsp_option *option, char *text, size_t size)
{
    const char *word = option->words ? option->words : "";
    const char *or_word = option->words ? ", or " : "";
    const char *number = option->kind == LSP_OPTION_INT ? "a whole number" : "a number";
    switch (option->kind) {
    case LSP_OPTION_PATH: (void)snprintf(text, size, "a name"); return;
    case LSP_OPTION_YESNO: (void)snprintf(text, size, "yes or no"); return;
    case LSP_OPTION_HEADS: (void)snprintf(text, size, "all, or different numbers as 0,3-5"); return;
    case LSP_OPTION_RANGE: (void)snprintf(text, size, "all, or a:b with a < b"); return;
    case LSP_OPTION_BYTES:
        (void)snprintf(text, size, "bytes, or a number with K, M, G or T%s%s", or_word, word);
        return;
    case LSP_OPTION_NUMBERS:
        (void)snprintf(text, size, "different whole numbers from %.15g to %.15g as 3,5%s%s", option->low,
                       option->high, or_word, word);
        return;
    case LSP_OPTION_CHOICES:
        (void)snprintf(text, size, "a whole number from %.15g; with `compare` also different ones as 16,64",
                       option->low);
        return;
    case LSP_OPTION_INT:
    case LSP_OPTION_REAL:
        if (option->low > 0 && option->low < 1e-9) {
            (void)snprintf(text, size, "%s above 0%s%s", number, or_word, word);
        } else if (option->high > 1e14) {
            (void)snprintf(text, size, "%s from %.15g%s%s", number, option->low, or_word, word);
        } else {
            (void)snprintf(text, size, "%s from %.15g to %.15g%s%s", number, option->low, option->high,
                           or_word, word);
        }
        return;
    case LSP_OPTION_WORDS:
    case LSP_OPTION_CHOICE: break;
    }
    size_t at = option->kind == LSP_OPTION_WORDS ? (size_t)snprintf(text, size, "some of ") : 0;
    for (; *word && at + 3 < size; word++) {
        if (*word == '|') text[at++] = ',';
        text[at++] = *word == '|' ? ' ' : *word;
    }
    text[at] = '\0';
}

lsp_status lsp_options_set(lsp_options *options, const char *section, const char *name, const char *value,
                           const char *origin, lsp_error *error)
{
    lsp_key key = lsp_option_find(section, name);
    if (key == LSP_KEY_COUNT) return refuse_key(section, name, origin, error);
    const lsp_option *option = lsp_option_get(key);
    if (!value_fits(option, value)) {
        char allowed[256];
        describe_allowed(option, allowed, sizeof allowed);
        return lsp_error_set(error, LSP_ERR_USAGE, "%s: bad value '%s' of %s.%s; this version allows: %s",
                             origin, value, section, name, allowed);
    }
    char *text = lsp_memory_strdup(value), *from = lsp_memory_strdup(origin);
    if (!text || !from) {
        lsp_memory_free(text);
        lsp_memory_free(from);
        return lsp_error_set(error, LSP_ERR_LIMIT, "%s: out of memory", origin);
    }
    lsp_memory_free(options->values[key].text);
    lsp_memory_free(options->values[key].origin);
    options->values[key] = (option_value){text, from, false};
    return LSP_OK;
}

/* ---- reading ------------------------------------------------------------------------------------ */

const char *lsp_options_peek(const lsp_options *options, lsp_key key)
{
    return options->values[key].text ? options->values[key].text : lsp_option_get(key)->fallback;
}

const char *lsp_options_text(lsp_options *options, lsp_key key)
{
    options->values[key].used = true;
    return lsp_options_peek(options, key);
}

double lsp_options_real(lsp_options *options, lsp_key key)
{
    const lsp_option *option = lsp_option_get(key);
    const char *text = lsp_options_text(options, key);
    double value = 0;
    if (*text == '\0' || (option->words && strcmp(text, option->words) == 0)) return 0;
    if (option->kind == LSP_OPTION_BYTES) return lsp_value_bytes(text, &value) ? value : 0;
    return lsp_value_real(text, &value) ? value : 0;
}

int64_t lsp_options_int(lsp_options *options, lsp_key key)
{
    int64_t value = 0;
    if (lsp_value_int(lsp_options_text(options, key), &value)) return value;
    return (int64_t)lsp_options_real(options, key);
}

bool lsp_options_yes(lsp_options *options, lsp_key key)
{
    return strcmp(lsp_options_text(options, key), "yes") == 0;
}

int lsp_options_choice(lsp_options *options, lsp_key key)
{
    return lsp_value_word(lsp_options_text(options, key), lsp_option_get(key)->words);
}

int64_t lsp_options_items(lsp_options *options, lsp_key key, int64_t items[LSP_ITEMS_MOST])
{
    const lsp_option *option = lsp_option_get(key);
    const char *words = option->kind == LSP_OPTION_WORDS ? option->words : NULL;
    int64_t count = lsp_value_items(lsp_options_text(options, key), words, items, LSP_ITEMS_MOST);
    return count > 0 ? count : 0;
}

lsp_status lsp_options_one(lsp_options *options, lsp_key key, const char *why, int64_t *value,
                           lsp_error *error)
{
    int64_t items[LSP_ITEMS_MOST];
    const lsp_option *option = lsp_option_get(key);
    int64_t count = lsp_options_items(options, key, items);
    if (count > 1)
        return lsp_error_set(
            error, LSP_ERR_USAGE,
            "%s: %s.%s = %s names several numbers, and %s takes one; `longspan compare` takes several",
            lsp_options_origin(options, key), option->section, option->name, lsp_options_peek(options, key),
            why);
    *value = count == 1 ? items[0] : 0;
    return LSP_OK;
}

bool lsp_options_is_set(const lsp_options *options, lsp_key key)
{
    return options->values[key].text != NULL;
}

const char *lsp_options_origin(const lsp_options *options, lsp_key key)
{
    return options->values[key].origin ? options->values[key].origin : "default";
}

lsp_status lsp_options_require(const lsp_options *options, lsp_key key, const char *why, lsp_error *error)
{
    if (lsp_options_is_set(options, key)) return LSP_OK;
    const lsp_option *wanted = lsp_option_get(key);
    bool section = false;
    for (int other = 0; other < LSP_KEY_COUNT; other++) {
        const lsp_option *option = lsp_option_get((lsp_key)other);
        section =
            section || (strcmp(option->section, wanted->section) == 0 && options->values[other].text != NULL);
    }
    if (!section) {
        return lsp_error_set(
            error, LSP_ERR_USAGE,
            "section [%s] is missing: %s needs its key %s; set it in the deck or with --%s.%s=VALUE",
            wanted->section, why, wanted->name, wanted->section, wanted->name);
    }
    return lsp_error_set(error, LSP_ERR_USAGE,
                         "%s.%s is missing: %s needs it; set it in the deck or with --%s.%s=VALUE",
                         wanted->section, wanted->name, why, wanted->section, wanted->name);
}

void lsp_options_unused(const lsp_options *options, char *text, size_t size)
{
    size_t at = 0;
    text[0] = '\0';
    for (int key = 0; key < LSP_KEY_COUNT; key++) {
        const option_value *value = &options->values[key];
        if (!value->text || value->used) continue;
        const lsp_option *option = lsp_option_get((lsp_key)key);
        int length = snprintf(text + at, size - at, "%s%s.%s", at ? ", " : "", option->section, option->name);
        if (length < 0 || (size_t)length >= size - at) return;
        at += (size_t)length;
    }
}
