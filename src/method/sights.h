/* What methods ask of a plan about some rows and a panel's tiles. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_METHOD_SIGHTS_H
#define LSP_METHOD_SIGHTS_H

#include "method/attention.h"

#define LSP_LOG2_E 1.4426950408889634074

/* Local. Fills the sights of local rows [begin, begin + rows) of any matrix of a batch; returns their pairs among keys
 * [low, high). */
double lsp_attention_look(const lsp_attention *plan, int64_t batch, int64_t begin, int64_t rows, int64_t low,
                          int64_t high, lsp_sight *sight);

/* Local. Whether any of local rows [begin, begin + rows) may see keys [low, high): sights never go back. */
bool lsp_attention_may_see(const lsp_attention *plan, int64_t batch, int64_t begin, int64_t rows, int64_t low,
                           int64_t high);

/* Local. Whether all rows have met all keys of tiles [begin, end) of the group, as far as they use them. */
bool lsp_attention_has_met(const lsp_attention *plan, int64_t begin, int64_t end);

/* Local. Rows of the rank's from `row` on, before `end`, that have met the same keys. */
int64_t lsp_attention_alike(const lsp_attention *plan, int64_t row, int64_t end);

/* Local. Rule of the scores of a query head. */
lsp_score_rule lsp_attention_rule(const lsp_attention_desc *desc, int64_t head);

/* Local. Place of the index-th packed tile of K and of V. */
void *lsp_attention_packed_k(const lsp_attention *plan, int64_t index);
void *lsp_attention_packed_v(const lsp_attention *plan, int64_t index);

#endif
