/* What `longspan compare` runs: the methods and their values. SPDX-License-Identifier: BSD-3-Clause */
#include "app/compare.h"
#include "base/checked.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>

enum { SCALED_MOST = 3 };

/* A method, the key whose list gives its values, and what a power of two near the root of the length is multiplied by
 * for values where there is no list (in quarters; 0 ends them). At n = m = 4096: block_size 256, 1024, topk 16, 64, 256, rank 16, 64. */
typedef struct choice {
    lsp_method method;
    lsp_key key;
    int64_t quarters[SCALED_MOST];
} choice;

static const choice choices[] = {
    {LSP_METHOD_BLOCK, LSP_KEY_ATTENTION_BLOCK_SIZE, {16, 64, 0}},
    {LSP_METHOD_TOPK, LSP_KEY_ATTENTION_TOPK, {1, 4, 16}},
    {LSP_METHOD_LOWRANK, LSP_KEY_ATTENTION_RANK, {1, 4, 0}},
};
enum { CHOICES = sizeof choices / sizeof *choices };

const char *lsp_compare_name(const lsp_compare_item *item, char *text)
{
    const char *method = lsp_method_name(item->desc.method);
    bool ranked = item->desc.method != LSP_METHOD_LOWRANK || item->desc.rank > 0;
    if (!*item->parameter)
        (void)snprintf(text, LSP_COMPARE_NAME, "%s", method);
    else
        (void)snprintf(text, LSP_COMPARE_NAME, "%s%s %.15g", method, ranked ? "" : " to", item->value);
    return text;
}

int64_t lsp_compare_file_head(const lsp_compare_job *job, int64_t head)
{
    return job->input.heads ? job->input.heads[head] : head;
}

/* ---- values -------------------------------------------------------------------------------------- */

/* The length, of the part that is computed, that a method's values are scaled to and limited by. */
static int64_t length_of(const lsp_attention_desc *d, lsp_method method)
{
    int64_t rows = d->row_end - d->row_begin, keys = d->key_end - d->key_begin;
    if (method == LSP_METHOD_LOWRANK) return lsp_min(rows, keys);
    return method == LSP_METHOD_BLOCK ? rows : keys;
}

static int64_t scaled_values(const choice *c, int64_t length, int64_t values[LSP_ITEMS_MOST])
{
    int64_t root = 1, count = 0, most = lsp_max(1, length / 2); /* what keeps all would be exact again */
    while (2 * root <= length / (2 * root)) root *= 2;
    for (int i = 0; i < SCALED_MOST && c->quarters[i] > 0; i++) {
        int64_t value = lsp_min(lsp_max(1, root * c->quarters[i] / 4), most);
        if (count == 0 || value > values[count - 1]) values[count++] = value;
    }
    return count;
}

/* A tolerance says as much as a rank. */
static bool is_given(const lsp_options *options, const choice *c)
{
    return lsp_options_is_set(options, c->key) ||
           (c->method == LSP_METHOD_LOWRANK && lsp_options_is_set(options, LSP_KEY_ATTENTION_TOLERANCE));
}

static bool is_named(lsp_options *options, const choice *c)
{
    int64_t named[LSP_ITEMS_MOST], count = lsp_options_items(options, LSP_KEY_COMPARE_METHODS, named);
    for (int64_t i = 0; i < count; i++)
        if (named[i] + 1 == (int64_t)c->method) return true; /* in the order of the constants, after exact */
    return false;
}

/* Whether a method is run: those named; without names those whose key is given, or all. */
static bool is_wanted(lsp_options *options, const choice *c)
{
    if (lsp_options_is_set(options, LSP_KEY_COMPARE_METHODS)) return is_named(options, c);
    bool given = false;
    for (int i = 0; i < CHOICES; i++) given = given || is_given(options, &choices[i]);
    return !given || is_given(options, c);
}

/* What keeps lowrank from running; NULL: nothing. Where it was asked for, the library says so. */
static const char *obstacle(lsp_options *options, const lsp_attention_desc *d)
{
    if (d->compute == LSP_BF16) return "it computes in f32 or f64, not in bf16";
    if (d->head_groups > 1) return "it takes all ranks for each head, not groups of them";
    if (lsp_attention_hides_later(d) && !lsp_options_yes(options, LSP_KEY_ATTENTION_ALLOW_LEAK))
        return "a truncated matrix is not causal, as the mask is; attention.allow_leak = yes lets it run";
    return NULL;
}

/* ---- items --------------------------------------------------------------------------------------- */

static lsp_compare_item make_item(const lsp_compare_job *job, const choice *c, int64_t value)
{
    lsp_compare_item item = {
        .desc = job->input.desc, .parameter = lsp_option_get(c->key)->name, .value = (double)value};
    item.desc.method = c->method;
    if (c->method == LSP_METHOD_BLOCK) item.desc.block_size = value;
    if (c->method == LSP_METHOD_TOPK) {
        item.desc.topk = value;
        item.desc.renormalize = lsp_options_yes(job->app->options, LSP_KEY_ATTENTION_RENORMALIZE);
    }
    if (c->method == LSP_METHOD_LOWRANK) {
        lsp_input_take_truncation(job->app, &item.desc);
        item.desc.rank = value;
        if (value == 0) {
            item.parameter = lsp_option_get(LSP_KEY_ATTENTION_TOLERANCE)->name;
            item.value = item.desc.tolerance;
        }
    }
    return item;
}

/* The values of a method: its list; of lowrank a tolerance alone, as rank 0; or such as fit the length. */
static int64_t values_of(lsp_compare_job *job, const choice *c, int64_t values[LSP_ITEMS_MOST])
{
    lsp_options *options = job->app->options;
    if (lsp_options_is_set(options, c->key)) return lsp_options_items(options, c->key, values);
    if (is_given(options, c)) {
        values[0] = 0;
        return 1;
    }
    if (c->method == LSP_METHOD_LOWRANK && !is_named(options, c)) {
        job->left_out = obstacle(options, &job->input.desc);
        if (job->left_out) return 0;
    }
    job->scaled |= 1u << c->method;
    return scaled_values(c, length_of(&job->input.desc, c->method), values);
}

static lsp_status give_results(lsp_compare_job *job)
{
    int64_t heads = job->input.desc.batch * job->input.desc.heads;
    lsp_status status = LSP_OK;
    job->results = lsp_app_alloc(job->app, job->count, sizeof *job->results, "the results", &status);
    job->front = lsp_app_alloc(job->app, job->count, sizeof *job->front, "the results", &status);
    job->heads =
        lsp_app_alloc(job->app, job->count * heads, sizeof *job->heads, "the heads of all methods", &status);
    for (int64_t i = 0; status == LSP_OK && i < job->count; i++) {
        job->items[i].result = &job->results[i];
        job->items[i].heads = job->heads + i * heads;
    }
    return status;
}

lsp_status lsp_compare_items(lsp_compare_job *job)
{
    lsp_options *options = job->app->options;
    lsp_status status = LSP_OK;
    job->items = lsp_app_alloc(job->app, 1 + CHOICES * LSP_ITEMS_MOST, sizeof *job->items,
                               "the list of methods", &status);
    if (status != LSP_OK) return status;
    job->items[job->count++] = (lsp_compare_item){.desc = job->input.desc, .parameter = ""};
    for (int i = 0; i < CHOICES; i++) {
        const choice *c = &choices[i];
        int64_t values[LSP_ITEMS_MOST], count = 0;
        if (!is_wanted(options, c)) continue;
        count = values_of(job, c, values);
        for (int64_t j = 0; j < count; j++) job->items[job->count++] = make_item(job, c, values[j]);
    }
    return give_results(job);
}
