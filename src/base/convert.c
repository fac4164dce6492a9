/* Scalar conversions, kept apart from the kernels' own so that each can check the other.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "base/convert.h"

#include <string.h>

/* A binary format of 16 bits. */
typedef struct format {
    int fraction;      /* bits of the fraction */
    int least;         /* exponent of the smallest normal number */
    uint64_t infinity; /* bits of +Inf */
} format;

static const format half = {10, -14, 0x7C00}, brain = {7, -126, 0x7F80};

static double widen(format f, uint16_t bits)
{
    uint64_t sign = (uint64_t)(bits >> 15) << 63, magnitude = bits & 0x7FFFu;
    uint64_t fraction = magnitude & ((UINT64_C(1) << f.fraction) - 1);
    uint64_t exponent = magnitude >> f.fraction;
    double value = 0;
    if (exponent == 0) { /* zero or subnormal: fraction units of 2^(least - fraction bits) */
        uint64_t unit = (uint64_t)(1023 + f.least - f.fraction) << 52;
        memcpy(&value, &unit, sizeof value);
        value *= (double)fraction;
        return sign ? -value : value;
    }
    uint64_t wide = magnitude >= f.infinity ? 0x7FF : exponent - 1 + (uint64_t)(1023 + f.least);
    uint64_t whole = sign | wide << 52 | fraction << (52 - f.fraction);
    memcpy(&value, &whole, sizeof value);
    return value;
}

static uint16_t narrow(format f, double value)
{
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof bits);
    uint64_t sign = bits >> 63 << 15, magnitude = bits & (UINT64_MAX >> 1);
    if (magnitude > UINT64_C(0x7FF) << 52) /* NaN: quiet, whatever its payload */
        return (uint16_t)(sign | f.infinity | UINT64_C(1) << (f.fraction - 1));
    int exponent = (int)(magnitude >> 52) - 1023;
    if (exponent > 127) return (uint16_t)(sign | f.infinity);
    uint64_t significand = (magnitude & (UINT64_MAX >> 12)) | UINT64_C(1) << 52;
    int shift = 52 - f.fraction + (exponent < f.least ? f.least - exponent : 0);
    if (shift > 53) return (uint16_t)sign; /* below half of the smallest number */
    uint64_t below_half = (UINT64_C(1) << (shift - 1)) - 1;
    uint64_t rounded = (significand + below_half + (significand >> shift & 1)) >> shift;
    /* A carry out of the fraction goes into the exponent, which is what rounding up means. */
    uint64_t biased = exponent < f.least ? 0 : (uint64_t)(exponent - f.least);
    uint64_t result = (biased << f.fraction) + rounded;
    return (uint16_t)(sign | (result < f.infinity ? result : f.infinity));
}

double lsp_convert_from_f16(uint16_t bits)
{
    return widen(half, bits);
}

double lsp_convert_from_bf16(uint16_t bits)
{
    return widen(brain, bits);
}

uint16_t lsp_convert_to_f16(double value)
{
    return narrow(half, value);
}

uint16_t lsp_convert_to_bf16(double value)
{
    return narrow(brain, value);
}

void lsp_convert_load(lsp_dtype type, const void *array, int64_t first, int64_t count, double *values)
{
    if (type == LSP_F64) {
        memcpy(values, (const double *)array + first, (size_t)count * sizeof *values);
    } else if (type == LSP_F32) {
        const float *from = (const float *)array + first;
        for (int64_t i = 0; i < count; i++) values[i] = from[i];
    } else {
        const format f = type == LSP_F16 ? half : brain;
        const uint16_t *from = (const uint16_t *)array + first;
        for (int64_t i = 0; i < count; i++) values[i] = widen(f, from[i]);
    }
}

void lsp_convert_store(lsp_dtype type, const double *values, int64_t count, void *array, int64_t first)
{
    if (type == LSP_F64) {
        memcpy((double *)array + first, values, (size_t)count * sizeof *values);
    } else if (type == LSP_F32) {
        float *to = (float *)array + first;
        for (int64_t i = 0; i < count; i++) to[i] = (float)values[i];
    } else {
        const format f = type == LSP_F16 ? half : brain;
        uint16_t *to = (uint16_t *)array + first;
        for (int64_t i = 0; i < count; i++) to[i] = narrow(f, values[i]);
    }
}
