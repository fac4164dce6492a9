/* Saving what a comparison has found, and going on from it. SPDX-License-Identifier: BSD-3-Clause */
#include "base/memory.h"
#include "method/attention.h"
#include "method/checkpoint.h"
#include "method/identity.h"
#include "study/compare_inside.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STATE_VERSION = 1 };
_Static_assert(sizeof(lsp_compare_result) % sizeof(int64_t) == 0, "results are saved as whole numbers");
_Static_assert(sizeof(lsp_compare_head) % sizeof(int64_t) == 0, "heads are saved as whole numbers");

bool lsp_compare_describe(lsp_compare *c)
{
    c->identity = lsp_memory_alloc(LSP_SAVED_TEXT, 1);
    return c->identity && lsp_identity_write(c->plan, "", c->identity, LSP_SAVED_TEXT);
}

/* Times of different ranks, threads or ways of gathering do not belong into one table. */
static bool write_identity(const lsp_compare *c, const char *marks, char *text)
{
    const lsp_attention_desc *d = &c->desc;
    const lsp_compare_options *o = &c->options;
    const lsp_context_layout *at = &c->ctx->layout;
    int length =
        snprintf(text, LSP_SAVED_TEXT,
                 "a comparison = state %d, results of %zu and %zu bytes\n%s"
                 "ranks = %d, of %d threads\ncompute.gather = %d\ncompute.partition = %d\n"
                 "compute.head_groups = %" PRId64 "\ncompute.panel_rows = %" PRId64 "\n"
                 "compare.repeats = %" PRId64 "\nverify.rows = %" PRId64 "\nverify.tolerance = %.17g\n"
                 "%s",
                 (int)STATE_VERSION, sizeof(lsp_compare_result), sizeof(lsp_compare_head), c->identity,
                 at->ranks, at->threads, (int)d->gather, (int)d->partition, (int64_t)d->head_groups,
                 (int64_t)d->panel_rows, o->repeats, o->verify_rows, o->verify_tolerance, marks);
    return length > 0 && length < LSP_SAVED_TEXT;
}

/* ---- a state as the file has it ------------------------------------------------------------------ */

/* Results and heads are rank 0's to write and to read, as an image of their bytes: the identity knows version and sizes. */
typedef struct whole_image {
    int64_t *numbers;
    int64_t count; /* of numbers */
    lsp_run all;
    lsp_run *rows; /* of exact's output, counted from the part's first */
} whole_image;

static int64_t matrices_of(const lsp_compare *c)
{
    return c->desc.batch * c->desc.heads;
}

/* Bytes of the results of `count` methods, and of all. */
static size_t result_bytes(int64_t count)
{
    return (size_t)count * sizeof(lsp_compare_result);
}

static size_t head_bytes(const lsp_compare *c, int64_t count)
{
    return (size_t)(count * matrices_of(c)) * sizeof(lsp_compare_head);
}

static lsp_status make_image(const lsp_compare *c, int64_t count, whole_image *image)
{
    const lsp_compare_rows *r = &c->rows;
    /* One more, as an array of none is none. */
    image->count = 1 + (int64_t)((result_bytes(count) + head_bytes(c, count)) / sizeof(int64_t));
    image->all = (lsp_run){0, 0, 0, image->count};
    image->numbers = lsp_memory_zalloc(image->count, sizeof *image->numbers);
    image->rows = lsp_memory_alloc(r->run_count, sizeof *image->rows);
    if (!image->numbers || !image->rows)
        return lsp_context_fail(c->ctx, LSP_ERR_LIMIT, "compare: no memory for the state of a comparison");
    for (int64_t i = 0; i < r->run_count; i++) {
        image->rows[i] = r->runs[i];
        image->rows[i].begin -= c->desc.row_begin;
    }
    return LSP_OK;
}

static void free_image(whole_image *image)
{
    lsp_memory_free(image->numbers);
    lsp_memory_free(image->rows);
}

/* The arrays of the file; returns how many. Exact's output is what later methods are held against. */
enum { ARRAYS_MOST = 3 };
static int list_arrays(const lsp_compare *c, whole_image *image, int64_t count,
                       lsp_saved_rows arrays[ARRAYS_MOST])
{
    const lsp_attention_desc *d = &c->desc;
    const lsp_compare_rows *r = &c->rows;
    int64_t height = d->row_end - d->row_begin;
    arrays[0] = (lsp_saved_rows){
        "/results", LSP_I64, 1, 1, image->count, 1, &image->all, c->ctx->layout.rank == 0, image->numbers};
    if (count == 0) return 1;
    arrays[1] = (lsp_saved_rows){"/exact_out", r->type,     d->batch,     d->heads, height,
                                 d->d_v,       image->rows, r->run_count, r->out};
    arrays[2] = (lsp_saved_rows){"/exact_lse", r->type,      d->batch, d->heads, height, 1,
                                 image->rows,  r->run_count, r->lse};
    return ARRAYS_MOST;
}

/* ---- saving -------------------------------------------------------------------------------------- */

lsp_status lsp_compare_save(const lsp_compare *c, const char *file, const char *marks,
                            const lsp_compare_finished *done, int64_t *bytes)
{
    whole_image image = {.numbers = NULL};
    lsp_saved_rows arrays[ARRAYS_MOST];
    lsp_saved_head *head = lsp_memory_zalloc(1, sizeof *head);
    lsp_status status = make_image(c, done->count, &image);
    if (status == LSP_OK && (!head || !write_identity(c, marks, head->identity)))
        status = lsp_context_fail(c->ctx, LSP_ERR_LIMIT, "compare: the description of a state is too long");
    status = lsp_context_agree(c->ctx, status);
    if (status == LSP_OK) {
        size_t results = result_bytes(done->count);
        if (results > 0) memcpy(image.numbers, done->results, results);
        if (results > 0) memcpy((char *)image.numbers + results, done->heads, head_bytes(c, done->count));
        (void)snprintf(head->progress, sizeof head->progress, "methods = %" PRId64 "\ndone = %.6f\n",
                       done->count, done->share);
        int count = list_arrays(c, &image, done->count, arrays);
        status = lsp_saved_write(c->ctx, file, head, arrays, count, bytes);
    }
    free_image(&image);
    lsp_memory_free(head);
    return status;
}

/* ---- loading ------------------------------------------------------------------------------------- */

typedef struct load_job {
    lsp_compare *compare;
    const char *marks;
    lsp_compare_finished *done;
    int64_t most;
} load_job;

/* Local. How many methods the state has, if it is one of this comparison. */
static lsp_status take_head(const load_job *job, const char *file, const lsp_saved_head *head, int64_t *count)
{
    const lsp_compare *c = job->compare;
    char text[32] = "-1";
    lsp_saved_head *mine = lsp_memory_zalloc(1, sizeof *mine);
    lsp_status status = LSP_OK;
    if (!mine || !write_identity(c, job->marks, mine->identity))
        status = lsp_context_fail(c->ctx, LSP_ERR_LIMIT, "compare: not enough memory to compare '%s'", file);
    if (status == LSP_OK) status = lsp_checkpoint_fits(c->ctx, file, head, mine->identity);
    lsp_memory_free(mine);
    if (status != LSP_OK) return status;
    (void)lsp_identity_value(head->progress, "methods", text, sizeof text);
    *count = strtoll(text, NULL, 10);
    if (*count >= 0 && *count <= job->most) return LSP_OK;
    return lsp_context_fail(c->ctx, LSP_ERR_CONTENT, "'%s' has results of %s methods, of %" PRId64, file,
                            text, job->most);
}

static lsp_status make_room(lsp_compare *c)
{
    lsp_compare_rows *r = &c->rows;
    size_t size = lsp_dtype_size(r->type);
    if (!r->out) r->out = lsp_memory_alloc(r->rows, (size_t)c->desc.d_v * size);
    if (!r->lse) r->lse = lsp_memory_alloc(r->rows, size);
    return r->out && r->lse ? LSP_OK
                            : lsp_context_fail(c->ctx, LSP_ERR_LIMIT, "compare: no memory to keep an output");
}

static lsp_status load_arrays(const load_job *job, const char *file, int64_t count, bool *damaged)
{
    lsp_compare *c = job->compare;
    lsp_compare_finished *done = job->done;
    whole_image image = {.numbers = NULL};
    lsp_saved_rows arrays[ARRAYS_MOST];
    lsp_status status = make_image(c, count, &image);
    if (status == LSP_OK && count > 0) status = make_room(c);
    status = lsp_context_agree(c->ctx, status);
    if (status == LSP_OK) {
        *damaged = true;
        status = lsp_saved_read(c->ctx, file, arrays, list_arrays(c, &image, count, arrays));
    }
    if (status == LSP_OK)
        status =
            lsp_context_broadcast(c->ctx, 0, image.numbers, image.count * (int64_t)sizeof *image.numbers);
    if (status == LSP_OK) {
        size_t results = result_bytes(count);
        if (results > 0) memcpy(done->results, image.numbers, results);
        if (results > 0) memcpy(done->heads, (char *)image.numbers + results, head_bytes(c, count));
        done->count = count;
    }
    free_image(&image);
    return status;
}

static lsp_status load(void *user, const char *file, bool *damaged)
{
    const load_job *job = user;
    lsp_context *ctx = job->compare->ctx;
    int64_t count = 0;
    *damaged = false;
    lsp_saved_head *head = lsp_memory_zalloc(1, sizeof *head);
    lsp_status status =
        head ? LSP_OK : lsp_context_fail(ctx, LSP_ERR_LIMIT, "not enough memory to read '%s'", file);
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) {
        *damaged = true;
        status = lsp_saved_read_head(ctx, file, head);
    }
    if (status == LSP_OK) {
        *damaged = false;
        status = lsp_context_agree(ctx, take_head(job, file, head, &count));
    }
    if (status == LSP_OK) status = load_arrays(job, file, count, damaged);
    lsp_memory_free(head);
    return status;
}

lsp_status lsp_compare_load(lsp_compare *c, const char *file, const char *marks, const void *q, const void *k,
                            const void *v, int64_t most, lsp_compare_finished *done,
                            lsp_checkpoint_info *info)
{
    load_job job = {c, marks, done, most};
    lsp_status status = LSP_OK;
    done->count = 0;
    if (!c->plan)
        status = lsp_context_fail(c->ctx, LSP_ERR_USAGE, "compare: exact attention was computed already");
    status = lsp_context_agree(c->ctx, status);
    if (status == LSP_OK) status = lsp_checkpoint_try(c->ctx, file, load, &job, info);
    if (status != LSP_OK || done->count == 0) return status;
    c->q = q;
    c->k = k;
    c->v = v;
    (void)lsp_attention_destroy(&c->plan);
    return lsp_compare_rows_measure(&c->rows, c->key_runs, c->key_run_count, v);
}
