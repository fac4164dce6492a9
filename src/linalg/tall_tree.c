/* The tree of block QRs. SPDX-License-Identifier: BSD-3-Clause */
#include "linalg/tall_tree.h"

#include "base/checked.h"
#include "base/memory.h"
#include "linalg/fortran.h"

#include <omp.h>
#include <string.h>

enum { REFLECTORS = 32, LEAST_ROWS = 512, ROWS_PER_COL = 6 };

/* Rows of a block are at least this (when there is more than one), and less than twice this. Six times as
 * many rows as columns make the levels above cost a fifth of the lowest. */
static int64_t chunk_rows(int64_t cols)
{
    return lsp_max(LEAST_ROWS, ROWS_PER_COL * cols);
}

static int64_t count_chunks(int64_t rows, int64_t cols)
{
    return lsp_max(1, rows / chunk_rows(cols));
}

static int64_t chunk_begin(const lsp_tall_level *level, int64_t chunk)
{
    int64_t each = level->rows / level->chunks, extra = level->rows % level->chunks;
    return chunk * each + lsp_min(chunk, extra);
}

/* A block's reflectors, and with them how many of its rows the next level gets. */
static int64_t rank_of(int64_t rows, int64_t cols)
{
    return lsp_min(rows, cols);
}

/* Two blocks of a matrix (one is transposed into, or is worked on), and LAPACK's work. */
static int64_t room_of(int64_t rows, int64_t cols)
{
    int64_t most = lsp_min(rows, 2 * chunk_rows(cols));
    return most * cols + REFLECTORS * cols;
}

int64_t lsp_tall_tree_bytes(int64_t rows, int64_t cols, int threads)
{
    int64_t doubles = threads * room_of(rows, cols);
    for (int64_t at = rows; at > 0;) {
        int64_t chunks = count_chunks(at, cols);
        doubles += chunks * REFLECTORS * cols;
        if (chunks == 1) break;
        at = chunks * cols;
        doubles += at * cols;
    }
    return doubles * (int64_t)sizeof(double);
}

bool lsp_tall_tree_make(int64_t rows, int64_t cols, int threads, lsp_tall_tree *tree)
{
    *tree = (lsp_tall_tree){.cols = cols, .threads = threads, .room = room_of(rows, cols)};
    tree->rooms = lsp_memory_alloc(threads * tree->room, sizeof(double));
    bool ok = tree->rooms != NULL;
    for (int64_t at = rows; ok;) {
        lsp_tall_level *level = &tree->level[tree->levels++];
        level->rows = at;
        level->chunks = count_chunks(at, cols);
        level->t = lsp_memory_alloc(level->chunks * REFLECTORS * cols, sizeof(double));
        ok = level->t != NULL;
        if (tree->levels > 1 && ok) {
            level->a = lsp_memory_alloc(at * cols, sizeof(double));
            ok = level->a != NULL;
        }
        if (level->chunks == 1) break;
        at = level->chunks * cols; /* at most a sixth of the rows: levels suffice for any int64 */
    }
    return ok;
}

void lsp_tall_tree_free(lsp_tall_tree *tree)
{
    for (int l = 0; l < tree->levels; l++) {
        lsp_memory_free(tree->level[l].t);
        if (l > 0) lsp_memory_free(tree->level[l].a);
    }
    lsp_memory_free(tree->rooms);
    *tree = (lsp_tall_tree){0};
}

/* to[c][r] = from[r][c]. In tiles, so that neither side jumps through memory. */
static void transpose(const double *from, int64_t rows, int64_t cols, double *to)
{
    enum { TILE = 16 };
    for (int64_t r0 = 0; r0 < rows; r0 += TILE)
        for (int64_t c0 = 0; c0 < cols; c0 += TILE)
            for (int64_t c = c0; c < lsp_min(cols, c0 + TILE); c++)
                for (int64_t r = r0; r < lsp_min(rows, r0 + TILE); r++) to[c * rows + r] = from[r * cols + c];
}

/* Sizes that LAPACK takes as int. They fit: lsp_tall_qr has checked the columns. */
typedef struct sizes {
    int rows, cols, rank, block;
} sizes;

static sizes sizes_of(int64_t rows, int64_t cols)
{
    int64_t rank = rank_of(rows, cols);
    return (sizes){(int)rows, (int)cols, (int)rank, (int)lsp_min(REFLECTORS, rank)};
}

static void factor_chunk(double *a, int64_t rows, int64_t cols, double *t, double *room, double *r)
{
    sizes s = sizes_of(rows, cols);
    int info = 0;
    transpose(a, rows, cols, room);
    dgeqrt_(&s.rows, &s.cols, &s.block, room, &s.rows, t, &s.block, room + rows * cols, &info);
    for (int64_t i = 0; i < s.rank; i++)
        for (int64_t c = 0; c < cols; c++) r[i * cols + c] = c < i ? 0 : room[c * rows + i];
    memcpy(a, room, (size_t)(rows * cols) * sizeof *a);
}

/* Q [b; 0] of one block. room becomes [width][rows], then goes back row by row. */
static void expand_chunk(double *a, int64_t rows, int64_t cols, const double *t, double *room,
                         const double *b, int64_t b_lead, int64_t width)
{
    sizes s = sizes_of(rows, cols);
    int wide = (int)width, info = 0;
    memset(room, 0, (size_t)(rows * width) * sizeof *room);
    for (int64_t i = 0; i < s.rank; i++)
        for (int64_t c = 0; c < width; c++) room[c * rows + i] = b[i * b_lead + c];
    dgemqrt_("L", "N", &s.rows, &wide, &s.rank, &s.block, a, &s.rows, t, &s.block, room, &s.rows,
             room + rows * width, &info, 1, 1);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < width; c++) a[r * cols + c] = room[c * rows + r];
        for (int64_t c = width; c < cols; c++) a[r * cols + c] = 0;
    }
}

void lsp_tall_tree_factor(lsp_tall_tree *tree, double *a, double *r)
{
    int64_t cols = tree->cols;
    tree->level[0].a = a;
    for (int l = 0; l < tree->levels; l++) {
        const lsp_tall_level *level = &tree->level[l];
        double *above = l + 1 < tree->levels ? tree->level[l + 1].a : r;
#pragma omp parallel for schedule(dynamic) num_threads(tree->threads)
        for (int64_t k = 0; k < level->chunks; k++) {
            int64_t begin = chunk_begin(level, k), end = chunk_begin(level, k + 1);
            factor_chunk(level->a + begin * cols, end - begin, cols, level->t + k * REFLECTORS * cols,
                         tree->rooms + omp_get_thread_num() * tree->room, above + k * cols * cols);
        }
    }
}

void lsp_tall_tree_expand(lsp_tall_tree *tree, const double *b, int64_t width)
{
    int64_t cols = tree->cols;
    for (int l = tree->levels - 1; l >= 0; l--) {
        const lsp_tall_level *level = &tree->level[l];
        bool top = l + 1 == tree->levels;
        const double *above = top ? b : tree->level[l + 1].a;
        int64_t lead = top ? width : cols;
#pragma omp parallel for schedule(dynamic) num_threads(tree->threads)
        for (int64_t k = 0; k < level->chunks; k++) {
            int64_t begin = chunk_begin(level, k), end = chunk_begin(level, k + 1);
            expand_chunk(level->a + begin * cols, end - begin, cols, level->t + k * REFLECTORS * cols,
                         tree->rooms + omp_get_thread_num() * tree->room, above + k * cols * lead, lead,
                         width);
        }
    }
}
