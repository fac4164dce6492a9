/* A result that is there already: of a run that was killed between the renaming of its output and the removal of its
 * checkpoint. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_APP_COMPLETED_H
#define LSP_APP_COMPLETED_H

#include "app/checkpoint.h"

/* Collective. Whether there may be one: a checkpoint was found, and an output that is not to be replaced. */
bool lsp_completed_may_be(lsp_keeper *keeper);

/* Local. The keeper's marks and what else the output depends on, for the id of the run (lsp_memory_free); NULL when out
 * of memory. */
char *lsp_completed_marks(const lsp_keeper *keeper);

/* Collective. Names the run in its output, by lsp_checkpoint_id with these marks; nothing where there is no id. */
lsp_status lsp_completed_sign(lsp_output *output, const char *id);

/* Collective. Whether the output is the result of the run with this id. Then its checksums are checked, the checkpoints
 * removed, and all is told, also in report.json. LSP_ERR_VERIFY: it is damaged. */
lsp_status lsp_completed_take(lsp_keeper *keeper, const char *id, bool *taken);

#endif
