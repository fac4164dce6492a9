/* Element types of tensors from and to double, one element at a time; rounds to nearest even.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_BASE_CONVERT_H
#define LSP_BASE_CONVERT_H

#include <longspan/tensor.h>
#include <stdint.h>

/* Local. One number from and to the bits of IEEE binary16 and of bfloat16. Too large gives infinity,
 * NaN stays a (quiet) NaN, subnormal numbers are kept. */
double lsp_convert_from_f16(uint16_t bits);
double lsp_convert_from_bf16(uint16_t bits);
uint16_t lsp_convert_to_f16(double value);
uint16_t lsp_convert_to_bf16(double value);

/* Local. values[i] = element first + i of an array of type f16, bf16, f32 or f64; and back. */
void lsp_convert_load(lsp_dtype type, const void *array, int64_t first, int64_t count, double *values);
void lsp_convert_store(lsp_dtype type, const double *values, int64_t count, void *array, int64_t first);

#endif
