/* Reading values of deck keys: numbers, lists, ranges, dataset paths, and the nearest of some words.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_VALUE_H
#define LSP_APP_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Local. The whole text must be the number; false otherwise. Integers also as 4e6 when exact. */
bool lsp_value_int(const char *text, int64_t *value);
bool lsp_value_real(const char *text, double *value);

/* Local. A number with an optional suffix K, M, G, T (powers of 1024). */
bool lsp_value_bytes(const char *text, double *value);

/* Local. Index of `text` in "a|b|c", or -1. */
int lsp_value_word(const char *text, const char *words);

/* Local. "a:b", "a:" or ":b" (half-open; an open end gives *end = -1). */
bool lsp_value_range(const char *text, int64_t *begin, int64_t *end);

/* Local. "0,3-5" as numbers in the order given. Fills at most `room` of them (NULL with room 0: only
 * counts) and returns how many there are; -1 when the text is no list or names a number twice (up to
 * 2^20 numbers). */
int64_t lsp_value_list(const char *text, int64_t *numbers, int64_t room);

/* Local. Items of a list separated by commas: whole numbers or, with `words` ("a|b|c"), the indices of words. Returns
 * how many there are; -1 when the text is no such list, has more than `room` items or one of them twice. */
int64_t lsp_value_items(const char *text, const char *words, int64_t *items, int64_t room);

/* Local. Splits a dataset value: "/path" gives *file_length 0, "FILE:/path" the length of FILE; *path
 * points to "/path" inside text. False when it is neither. */
bool lsp_value_dataset(const char *text, size_t *file_length, const char **path);

/* Local. Levenshtein distance (texts are compared up to 63 characters). */
int lsp_value_distance(const char *a, const char *b);

#endif
