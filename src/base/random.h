/* Counter-based random numbers: a pure function of (key, counter), so any rank can have any part.
 *
 * Philox-4x32-10: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_BASE_RANDOM_H
#define LSP_BASE_RANDOM_H

#include <stdint.h>

/* Local. Four 32-bit words for a counter of 128 bits and a key of 64. */
void lsp_random_words(uint64_t key, uint64_t counter_low, uint64_t counter_high, uint32_t words[4]);

/* Local. Uniform in [0, 1), 53 bits, for (key, stream, index). */
double lsp_random_uniform(uint64_t key, uint64_t stream, uint64_t index);

/* Local. Standard normal (Box-Muller) for (key, stream, index); numbers 2i and 2i+1 share one Philox
 * block, so filling in order costs one block for two. */
double lsp_random_normal(uint64_t key, uint64_t stream, uint64_t index);

/* Local. values[i] = lsp_random_normal(key, stream, first + i). */
void lsp_random_normals(uint64_t key, uint64_t stream, uint64_t first, int64_t count, double *values);

#endif
