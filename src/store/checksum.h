/* Checksums that do not depend on who holds which row, and what a set of runs covers.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_STORE_CHECKSUM_H
#define LSP_STORE_CHECKSUM_H

#include "store/slab.h"

/* Attributes of a dataset: 16 hexadecimal digits, and the rule in words. */
#define LSP_CHECKSUM_ATTRIBUTE      "xxh64"
#define LSP_CHECKSUM_RULE_ATTRIBUTE "xxh64_rule"
#define LSP_CHECKSUM_RULE                                                                                    \
    "sum modulo 2^64 over all rows of XXH64(the row's little-endian bytes, seed = (b*H + h)*n + i)"

/* What checksums are compared for: rows seen, the sum of their indices, the sum of their hashes; the sums
 * modulo 2^64, so that ranks add theirs. */
typedef struct lsp_tally {
    uint64_t rows, indices, hashes;
} lsp_tally;

/* Local. Adds the rows of the runs, which stand one after the other in buffer, to the tally; hashes are left out when
 * buffer is NULL. Uses `threads` threads. */
void lsp_tally_add(lsp_tally *tally, const lsp_placing *placing, const lsp_run *runs, int64_t run_count,
                   const void *buffer, int threads);

/* Local. Whether the rows of all ranks (tally summed) are every row once, by their number and the sum of
 * their indices: a cheap rule, exact for any partition. */
bool lsp_tally_is_whole(const lsp_tally *tally, const lsp_placing *placing);

/* Local. The checksum stored with a dataset, if there is one; false when that cannot be read. */
bool lsp_checksum_stored(hid_t dataset, bool *stored, uint64_t *checksum);

/* Local. Stores it; false on failure. */
bool lsp_checksum_store(hid_t dataset, uint64_t checksum);

#endif
