/* Checked integers: no size is narrowed or multiplied silently. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_BASE_CHECKED_H
#define LSP_BASE_CHECKED_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Local. *product = a * b; false on overflow. */
static inline bool lsp_checked_mul(int64_t a, int64_t b, int64_t *product)
{
    return !__builtin_mul_overflow(a, b, product);
}

static inline bool lsp_checked_mul_size(size_t a, size_t b, size_t *product)
{
    return !__builtin_mul_overflow(a, b, product);
}

/* Local. *narrow = value; false when it does not fit in int. */
static inline bool lsp_checked_int(int64_t value, int *narrow)
{
    if (value < INT_MIN || value > INT_MAX) return false;
    *narrow = (int)value;
    return true;
}

/* Local. a / b rounded up, for a >= 0, b > 0. */
static inline int64_t lsp_ceil_div(int64_t a, int64_t b)
{
    return a / b + (a % b != 0);
}

static inline int64_t lsp_round_up(int64_t a, int64_t b)
{
    return lsp_ceil_div(a, b) * b;
}

static inline int64_t lsp_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t lsp_max(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

#endif
