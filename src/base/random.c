/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/random.h"

#include <math.h>

void lsp_random_words(uint64_t key, uint64_t counter_low, uint64_t counter_high, uint32_t words[4])
{
    uint32_t c0 = (uint32_t)counter_low, c1 = (uint32_t)(counter_low >> 32);
    uint32_t c2 = (uint32_t)counter_high, c3 = (uint32_t)(counter_high >> 32);
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    words[0] = c0;
    words[1] = c1;
    words[2] = c2;
    words[3] = c3;
}

static double unit_interval(uint32_t high, uint32_t low)
{
    uint64_t bits = ((uint64_t)high << 32 | low) >> 11;
    return (double)bits * 0x1p-53;
}

double lsp_random_uniform(uint64_t key, uint64_t stream, uint64_t index)
{
    uint32_t w[4];
    lsp_random_words(key, index, stream, w);
    return unit_interval(w[0], w[1]);
}

static void normal_pair(uint64_t key, uint64_t stream, uint64_t pair, double *a, double *b)
{
    const double two_pi = 6.283185307179586476925286766559;
    uint32_t w[4];
    lsp_random_words(key, pair, stream, w);
    double u = unit_interval(w[0], w[1]), angle = two_pi * unit_interval(w[2], w[3]);
    double radius = sqrt(-2.0 * log(1.0 - u));
    *a = radius * cos(angle);
    *b = radius * sin(angle);
}

double lsp_random_normal(uint64_t key, uint64_t stream, uint64_t index)
{
    double pair[2];
    normal_pair(key, stream, index / 2, &pair[0], &pair[1]);
    return pair[index % 2];
}

void lsp_random_normals(uint64_t key, uint64_t stream, uint64_t first, int64_t count, double *values)
{
    double a, b;
    int64_t i = 0;
    if (count > 0 && first % 2) {
        normal_pair(key, stream, first / 2, &a, &b);
        values[i++] = b;
    }
    for (; i + 1 < count; i += 2)
        normal_pair(key, stream, (first + (uint64_t)i) / 2, &values[i], &values[i + 1]);
    if (i < count) {
        normal_pair(key, stream, (first + (uint64_t)i) / 2, &a, &b);
        values[i] = a;
    }
}
