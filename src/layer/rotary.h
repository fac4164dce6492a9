/* Rotary positions: cosines and sines of position * base^(-2 c / head_dim), for any position.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef LSP_LAYER_ROTARY_H
#define LSP_LAYER_ROTARY_H

#include <longspan/layer.h>

/* A position is 256 coarse + fine: one table for the fine part, the coarse part is kept from row to row. */
typedef struct lsp_rotary {
    lsp_rope_pairing pairing;
    int64_t pairs;      /* head_dim / 2 */
    long double *speed; /* [pairs] angle of one position */
    double *fine;       /* [256][pairs][2] cosine, sine */
} lsp_rotary;

/* What a thread keeps. */
typedef struct lsp_rotary_state {
    int64_t coarse;
    bool filled;
    double *turn; /* [pairs][2] of the coarse part */
} lsp_rotary_state;

/* Local. False when out of memory. */
bool lsp_rotary_make(lsp_rotary *rotary, double base, int64_t head_dim, lsp_rope_pairing pairing);
void lsp_rotary_free(lsp_rotary *rotary);

/* Local. Fills angle [pairs][2] (cosine, sine) for a position, which may be negative. Depends on the position alone. */
void lsp_rotary_place(const lsp_rotary *rotary, int64_t position, lsp_rotary_state *state, double *angle);

/* Local. Turns one head's values [head_dim] by the angles. */
void lsp_rotary_turn(const lsp_rotary *rotary, const double *angle, double *values);

#endif
