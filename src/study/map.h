/* Inside of a map: what its parts share. SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_STUDY_MAP_H
#define LSP_STUDY_MAP_H

#include "method/map.h"

/* One head over all ranks. */
typedef struct lsp_map_whole {
    int64_t matrix; /* of this rank's plan; -1: none */
    /* [pixels], [pixels], [keys]: the plan's own where it has the head, which are added up in place. */
    double *sum, *max, *mass;
    double *pooled; /* [LSP_MAP_FIGURES][pixel_rows] */
    lsp_link *links;
    lsp_map_head head;
} lsp_map_whole;

struct lsp_map {
    lsp_context *ctx;
    lsp_attention *plan;
    lsp_map_layout layout;
    lsp_map_whole *wholes; /* [batch][heads] */
    bool done;
};

#endif
