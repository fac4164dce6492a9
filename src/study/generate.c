/* Synthetic tensors: every element a pure function of (distribution, role, seed, index).
 *
 * normal   N(0, 1).
 * peaked   128 directions u_r of length sqrt(d), the same for all roles, heads and batches. Row i of Q is
 *          0.9 u_r + 0.44 noise, row j of K is t / (0.9 sqrt(d)) u_r + noise, with r drawn for each row
 *          and t drawn for each K row from [-10.5, 10.5]. So a query meets one key in 128 with a score of
 *          about t, give or take 1.2 (extremes near 15), and all others near 0: a few keys have nearly
 *          all of the weight.
 * walk     N(0, 1) at every row, but like its neighbours: between knots every 256 rows (of length
 *          sqrt(d), common to all roles and heads of a batch) each tensor goes by a random walk of
 *          its own that is tied to the knots at both ends (a Brownian bridge). The steps' variance
 *          2/256 just makes up for what interpolation takes away, so that every row has variance 1.
 *          K is multiplied by 10 / sqrt(d): a query's score with keys near its own place is about 10
 *          at the knots, 5 between them (extremes near 15), and about 0 far away. Blocks between
 *          knots do not depend on each other, so any rank can make any row.
 * V is N(0, 1) always; X is N(0, 1) also under peaked.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "base/checked.h"
#include "base/convert.h"
#include "base/memory.h"
#include "base/random.h"

#include <longspan/study.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum {
    DIRECTIONS = 128,
    KNOT_ROWS = 256,
    CHUNK_VALUES = 8192, /* of rows without ties to their neighbours: they stay in the first caches */
};

/* Streams of random numbers; the role is added to the first three. */
enum {
    STREAM_VALUES = 0x100,
    STREAM_CHOICES = 0x200,
    STREAM_STEPS = 0x300,
    STREAM_DIRECTIONS = 0x400,
    STREAM_KNOTS = 0x500 /* the batch, times 65536, is added */
};

static const double query_share = 0.9, peak_score = 10.5, walk_score = 10.0;

typedef struct source {
    lsp_distribution distribution; /* as it is for the role */
    lsp_tensor_role role;
    uint64_t seed;
    int64_t heads, n, d;
    double *directions; /* [DIRECTIONS][d], peaked only */
} source;

static uint64_t stream_of(const source *s, int base)
{
    return (uint64_t)base + (uint64_t)s->role;
}

/* Number of row i of head h of batch b when each head has `height` rows, modulo 2^64. */
static uint64_t row_number(const source *s, const lsp_run *run, int64_t height, int64_t row)
{
    return ((uint64_t)run->batch * (uint64_t)s->heads + (uint64_t)run->head) * (uint64_t)height +
           (uint64_t)row;
}

/* Vectors of independent normal numbers, made sqrt(d) long. */
static void make_vectors(const source *s, uint64_t stream, uint64_t first, int64_t count, double *vectors)
{
    lsp_random_normals(s->seed, stream, first, count * s->d, vectors);
    for (int64_t r = 0; r < count; r++) {
        double *vector = vectors + r * s->d, norm = 0;
        for (int64_t c = 0; c < s->d; c++) norm += vector[c] * vector[c];
        for (int64_t c = 0; c < s->d; c++) vector[c] *= sqrt((double)s->d / norm);
    }
}

static bool make_directions(source *s)
{
    s->directions = lsp_memory_alloc(DIRECTIONS, (size_t)s->d * sizeof *s->directions);
    if (!s->directions) return false;
    make_vectors(s, STREAM_DIRECTIONS, 0, DIRECTIONS, s->directions);
    return true;
}

static void fill_normal(const source *s, const lsp_run *run, int64_t first, int64_t count, double *values)
{
    uint64_t index = row_number(s, run, s->n, first) * (uint64_t)s->d;
    lsp_random_normals(s->seed, stream_of(s, STREAM_VALUES), index, count * s->d, values);
}

static void fill_peaked(const source *s, const lsp_run *run, int64_t first, int64_t count, double *values)
{
    fill_normal(s, run, first, count, values);
    for (int64_t i = 0; i < count; i++) {
        uint64_t number = row_number(s, run, s->n, first + i);
        double uniform[2];
        for (uint64_t u = 0; u < 2; u++)
            uniform[u] = lsp_random_uniform(s->seed, stream_of(s, STREAM_CHOICES), 2 * number + u);
        int64_t chosen = lsp_min((int64_t)(uniform[0] * DIRECTIONS), DIRECTIONS - 1);
        double score = peak_score * (2 * uniform[1] - 1);
        bool query = s->role == LSP_ROLE_Q;
        double share = query ? query_share : score / (query_share * sqrt((double)s->d));
        double noise = query ? sqrt(1 - query_share * query_share) : 1;
        const double *direction = s->directions + chosen * s->d;
        for (int64_t c = 0; c < s->d; c++) {
            double *value = &values[i * s->d + c];
            *value = share * direction[c] + noise * *value;
        }
    }
}

/* Rows [block, block + KNOT_ROWS) of the walk, block a multiple of KNOT_ROWS; the last one may reach
 * beyond n. values is [KNOT_ROWS][d], knots [2][d], position [d]. */
static void fill_walk(const source *s, const lsp_run *run, int64_t block, double *values, double *knots,
                      double *position)
{
    const double step = sqrt(2.0 / KNOT_ROWS),
                 factor = s->role == LSP_ROLE_K ? walk_score / sqrt((double)s->d) : 1;
    uint64_t knot_stream = STREAM_KNOTS + ((uint64_t)run->batch << 16);
    uint64_t knot = (uint64_t)(block / KNOT_ROWS) * (uint64_t)s->d;
    uint64_t index = row_number(s, run, lsp_round_up(s->n, KNOT_ROWS), block) * (uint64_t)s->d;
    make_vectors(s, knot_stream, knot, 2, knots);
    lsp_random_normals(s->seed, stream_of(s, STREAM_STEPS), index, KNOT_ROWS * s->d, values);
    memset(position, 0, (size_t)s->d * sizeof *position);
    for (int64_t i = 0; i < KNOT_ROWS; i++) /* row i: the walk after i of the block's steps */
        for (int64_t c = 0; c < s->d; c++) {
            double next = position[c] + step * values[i * s->d + c];
            values[i * s->d + c] = position[c];
            position[c] = next;
        }
    for (int64_t i = 0; i < KNOT_ROWS; i++) {
        double t = (double)i / KNOT_ROWS;
        for (int64_t c = 0; c < s->d; c++) {
            double line = (1 - t) * knots[c] + t * (knots[s->d + c] - position[c]);
            values[i * s->d + c] = factor * (values[i * s->d + c] + line);
        }
    }
}

/* Rows [begin, end) of a run's matrix, inside one piece, to the run's place in the buffer. */
static void fill_piece(const source *s, const lsp_run *run, int64_t begin, int64_t end, double *scratch,
                       lsp_dtype type, void *buffer, int64_t slot)
{
    int64_t skip = 0;
    if (s->distribution == LSP_WALK) {
        int64_t block = begin / KNOT_ROWS * KNOT_ROWS;
        double *knots = scratch + KNOT_ROWS * s->d;
        fill_walk(s, run, block, scratch, knots, knots + 2 * s->d);
        skip = begin - block;
    } else if (s->distribution == LSP_PEAKED) {
        fill_peaked(s, run, begin, end - begin, scratch);
    } else {
        fill_normal(s, run, begin, end - begin, scratch);
    }
    lsp_convert_store(type, scratch + skip * s->d, (end - begin) * s->d, buffer, slot * s->d);
}

/* Threads share the pieces of each run; a piece starts at a multiple of `piece`. */
static bool fill_runs(const source *s, lsp_dtype type, const lsp_run *runs, int64_t run_count, void *buffer)
{
    bool walk = s->distribution == LSP_WALK;
    int64_t piece = walk ? KNOT_ROWS : lsp_max(1, CHUNK_VALUES / s->d);
    int64_t scratch_rows = walk ? KNOT_ROWS + 3 : piece;
    atomic_bool short_of_memory = false;
#pragma omp parallel
    {
        double *scratch = lsp_memory_alloc(scratch_rows, (size_t)s->d * sizeof *scratch);
        if (!scratch) atomic_store(&short_of_memory, true);
        for (int64_t r = 0, before = 0; r < run_count; before += runs[r++].count) {
            const lsp_run *run = &runs[r];
            int64_t stop = run->begin + run->count;
#pragma omp for schedule(dynamic) nowait
            for (int64_t p = run->begin / piece; p < lsp_ceil_div(stop, piece); p++) {
                int64_t begin = lsp_max(run->begin, p * piece), end = lsp_min(stop, (p + 1) * piece);
                if (scratch && begin < end)
                    fill_piece(s, run, begin, end, scratch, type, buffer, before + begin - run->begin);
            }
        }
        lsp_memory_free(scratch);
    }
    return !atomic_load(&short_of_memory);
}

lsp_status lsp_generate_rows(lsp_distribution distribution, lsp_tensor_role role, uint64_t seed,
                             lsp_dtype type, int64_t heads, int64_t n, int64_t d, const lsp_run *runs,
                             int64_t run_count, void *buffer)
{
    bool known = distribution == LSP_NORMAL || distribution == LSP_PEAKED || distribution == LSP_WALK;
    known = known && (role == LSP_ROLE_Q || role == LSP_ROLE_K || role == LSP_ROLE_V || role == LSP_ROLE_X);
    known = known && (type == LSP_F16 || type == LSP_BF16 || type == LSP_F32 || type == LSP_F64);
    if (!known || heads < 1 || n < 1 || d < 1) return LSP_ERR_USAGE;
    for (int64_t r = 0; r < run_count; r++)
        if (runs[r].batch < 0 || runs[r].head < 0 || runs[r].head >= heads || runs[r].begin < 0 ||
            runs[r].count < 0 || runs[r].begin > n - runs[r].count)
            return LSP_ERR_USAGE;
    source s = {distribution, role, seed, heads, n, d, NULL};
    if (role == LSP_ROLE_V || (role == LSP_ROLE_X && distribution == LSP_PEAKED)) s.distribution = LSP_NORMAL;
    if (s.distribution == LSP_PEAKED && !make_directions(&s)) return LSP_ERR_LIMIT;
    bool filled = fill_runs(&s, type, runs, run_count, buffer);
    lsp_memory_free(s.directions);
    return filled ? LSP_OK : LSP_ERR_LIMIT;
}
