/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/value.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LIST_MOST = 1 << 20, WORD_MOST = 63 };

bool lsp_value_real(const char *text, double *value)
{
    if (*text == '\0' || isspace((unsigned char)*text)) return false;
    char *end = NULL;
    double number = strtod(text, &end);
    if (*end != '\0' || !isfinite(number)) return false;
    *value = number;
    return true;
}

bool lsp_value_int(const char *text, int64_t *value)
{
    if (*text == '\0' || isspace((unsigned char)*text)) return false;
    char *end = NULL;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (*end == '\0') {
        if (errno == ERANGE) return false;
        *value = number;
        return true;
    }
    double real = 0;
    if (!lsp_value_real(text, &real) || fabs(real) > 9007199254740992.0 || real != floor(real)) return false;
    *value = (int64_t)real;
    return true;
}

bool lsp_value_bytes(const char *text, double *value)
{
    static const char suffixes[] = "KMGT";
    size_t length = strlen(text);
    if (length == 0 || length > WORD_MOST) return false;
    char number[WORD_MOST + 1];
    memcpy(number, text, length + 1);
    const char *suffix = strchr(suffixes, toupper((unsigned char)text[length - 1]));
    double factor = 1;
    if (suffix) {
        factor = ldexp(1.0, 10 * (int)(suffix - suffixes + 1));
        number[length - 1] = '\0';
    }
    if (!lsp_value_real(number, value)) return false;
    *value *= factor;
    return true;
}

int lsp_value_word(const char *text, const char *words)
{
    size_t length = strlen(text);
    for (int index = 0;; index++) {
        size_t word = strcspn(words, "|");
        if (word == length && strncmp(words, text, length) == 0) return index;
        if (words[word] == '\0') return -1;
        words += word + 1;
    }
}

/* Digits only; advances *text past them. */
static bool read_number(const char **text, int64_t *value)
{
    if (!isdigit((unsigned char)**text)) return false;
    char *end = NULL;
    errno = 0;
    long long number = strtoll(*text, &end, 10);
    if (errno == ERANGE) return false;
    *value = number;
    *text = end;
    return true;
}

static void skip_blanks(const char **text)
{
    while (**text == ' ' || **text == '\t') ++*text;
}

bool lsp_value_range(const char *text, int64_t *begin, int64_t *end)
{
    int64_t first = 0, last = -1;
    bool has_first = read_number(&text, &first);
    skip_blanks(&text);
    if (*text++ != ':') return false;
    skip_blanks(&text);
    bool has_last = read_number(&text, &last);
    if (*text != '\0' || (!has_first && !has_last)) return false;
    if (has_last && last <= first) return false;
    *begin = first;
    *end = last;
    return true;
}

static int compare_numbers(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Lists are short or ascending, most of them; only others need memory. */
static bool has_twice(const int64_t *numbers, int64_t count)
{
    enum { FEW = 2048 };
    bool ascending = true, same = false;
    for (int64_t i = 1; i < count; i++) ascending = ascending && numbers[i] > numbers[i - 1];
    for (int64_t i = 1; !ascending && count <= FEW && i < count; i++)
        for (int64_t j = 0; j < i; j++) same = same || numbers[i] == numbers[j];
    if (ascending || count <= FEW) return same;
    size_t bytes = (size_t)count * sizeof *numbers;
    int64_t *sorted = malloc(bytes);
    if (!sorted) return true;
    memcpy(sorted, numbers, bytes);
    qsort(sorted, (size_t)count, sizeof *sorted, compare_numbers);
    bool twice = false;
    for (int64_t i = 1; i < count; i++) twice = twice || sorted[i] == sorted[i - 1];
    free(sorted);
    return twice;
}

int64_t lsp_value_list(const char *text, int64_t *numbers, int64_t room)
{
    int64_t count = 0;
    for (;;) {
        int64_t first = 0;
        skip_blanks(&text);
        if (!read_number(&text, &first)) return -1;
        int64_t last = first;
        if (*text == '-') {
            text++;
            if (!read_number(&text, &last) || last < first) return -1;
        }
        if (last - first >= LIST_MOST - count) return -1;
        for (int64_t number = first; number <= last; number++, count++) {
            if (count < room) numbers[count] = number;
        }
        skip_blanks(&text);
        if (*text == '\0') break;
        if (*text++ != ',') return -1;
    }
    if (count <= room && has_twice(numbers, count)) return -1;
    return count;
}

/* The next item of a list without the blanks around it; *text then stands at the comma, or at the end. */
static bool next_item(const char **text, char *item)
{
    skip_blanks(text);
    size_t whole = strcspn(*text, ","), length = whole;
    while (length > 0 && isspace((unsigned char)(*text)[length - 1])) length--;
    if (length == 0 || length > WORD_MOST) return false;
    memcpy(item, *text, length);
    item[length] = '\0';
    *text += whole;
    return true;
}

int64_t lsp_value_items(const char *text, const char *words, int64_t *items, int64_t room)
{
    for (int64_t count = 0; count < room; text++) {
        char item[WORD_MOST + 1];
        if (!next_item(&text, item)) return -1;
        if (words) items[count] = lsp_value_word(item, words);
        if (words ? items[count] < 0 : !lsp_value_int(item, &items[count])) return -1;
        count++;
        if (*text == '\0') return has_twice(items, count) ? -1 : count;
    }
    return -1;
}

bool lsp_value_dataset(const char *text, size_t *file_length, const char **path)
{
    *file_length = 0;
    *path = text;
    if (*text == '/' && strstr(text, ":/") == NULL) return text[1] != '\0';
    const char *colon = NULL;
    for (const char *at = strstr(text, ":/"); at; at = strstr(at + 1, ":/")) colon = at;
    if (!colon || colon == text || colon[2] == '\0') return false;
    *file_length = (size_t)(colon - text);
    *path = colon + 1;
    return true;
}

int lsp_value_distance(const char *a, const char *b)
{
    int row[WORD_MOST + 1];
    int a_length = (int)strnlen(a, WORD_MOST), b_length = (int)strnlen(b, WORD_MOST);
    for (int j = 0; j <= b_length; j++) row[j] = j;
    for (int i = 1; i <= a_length; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= b_length; j++) {
            int changed = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            int least = diagonal < row[j - 1] ? diagonal + 1 : row[j - 1] + 1;
            row[j] = changed < least ? changed : least;
        }
    }
    return row[b_length];
}
