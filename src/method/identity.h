/* What a saved state belongs to, as lines "name = value": whatever its bits depend on.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_METHOD_IDENTITY_H
#define LSP_METHOD_IDENTITY_H

#include "method/attention.h"

#include <longspan/checkpoint.h>

/* Local. The plan's lines, then `marks`. False when they do not fit. */
bool lsp_identity_write(const lsp_attention *plan, const char *marks, char *text, size_t size);

/* Local. The digits of lsp_checkpoint_id for a text. */
void lsp_identity_digest(const char *text, char id[LSP_STATE_ID]);

/* Local. The value of a line; false (and *value as it was) when there is none. */
bool lsp_identity_value(const char *text, const char *name, char *value, size_t size);

/* Local. Whether two texts differ; then the first line that does: its name, and both values ("missing"). */
bool lsp_identity_differs(const char *was, const char *is, char name[128], char value_was[256],
                          char value_is[256]);

#endif
