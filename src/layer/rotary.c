/* SPDX-License-Identifier: BSD-3-Clause */
#include "layer/rotary.h"

#include "base/memory.h"

#include <math.h>

enum { FINE = 256 };

bool lsp_rotary_make(lsp_rotary *rotary, double base, int64_t head_dim, lsp_rope_pairing pairing)
{
    int64_t pairs = head_dim / 2;
    *rotary = (lsp_rotary){.pairing = pairing, .pairs = pairs};
    rotary->speed = lsp_memory_alloc(pairs, sizeof *rotary->speed);
    rotary->fine = lsp_memory_alloc(FINE * pairs, 2 * sizeof *rotary->fine);
    if (!rotary->speed || !rotary->fine) return false;
    for (int64_t c = 0; c < pairs; c++)
        rotary->speed[c] = powl((long double)base, -2 * (long double)c / (long double)head_dim);
    for (int64_t p = 0; p < FINE; p++)
        for (int64_t c = 0; c < pairs; c++) {
            long double angle = (long double)p * rotary->speed[c];
            rotary->fine[2 * (p * pairs + c)] = (double)cosl(angle);
            rotary->fine[2 * (p * pairs + c) + 1] = (double)sinl(angle);
        }
    return true;
}

void lsp_rotary_free(lsp_rotary *rotary)
{
    lsp_memory_free(rotary->speed);
    lsp_memory_free(rotary->fine);
    *rotary = (lsp_rotary){.pairs = 0};
}

void lsp_rotary_place(const lsp_rotary *rotary, int64_t position, lsp_rotary_state *state, double *angle)
{
    int64_t fine = position % FINE;
    if (fine < 0) fine += FINE;
    int64_t coarse = position - fine;
    if (!state->filled || state->coarse != coarse) {
        /* In long double: at position 10^7 a double's angle is already off by 1e-9. */
        for (int64_t c = 0; c < rotary->pairs; c++) {
            long double turn = (long double)coarse * rotary->speed[c];
            state->turn[2 * c] = (double)cosl(turn);
            state->turn[2 * c + 1] = (double)sinl(turn);
        }
        state->coarse = coarse;
        state->filled = true;
    }
    const double *table = rotary->fine + 2 * fine * rotary->pairs;
    for (int64_t c = 0; c < rotary->pairs; c++) {
        double c1 = state->turn[2 * c], s1 = state->turn[2 * c + 1], c2 = table[2 * c], s2 = table[2 * c + 1];
        angle[2 * c] = c1 * c2 - s1 * s2;
        angle[2 * c + 1] = s1 * c2 + c1 * s2;
    }
}

void lsp_rotary_turn(const lsp_rotary *rotary, const double *angle, double *values)
{
    bool half = rotary->pairing == LSP_ROPE_HALF;
    int64_t step = half ? 1 : 2, apart = half ? rotary->pairs : 1;
    for (int64_t c = 0; c < rotary->pairs; c++) {
        double *a = values + c * step, *b = a + apart, x = *a, y = *b;
        *a = x * angle[2 * c] - y * angle[2 * c + 1];
        *b = y * angle[2 * c] + x * angle[2 * c + 1];
    }
}
