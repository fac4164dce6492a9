/* What `longspan compare` runs: the methods and their values. SPDX-License-Identifier: BSD-3-Clause */
#include "app/compare.h"
#include "base/checked.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>

enum { SCALED_MOST = 3 };

/* A method, the key whose list gives its values, and what a power of two near the root of the length is multiplied by
 * for values where there is no list (in quarters; 0 ends them). At n = m = 4096: block_size 256, 1024, topk 16, 64,
 * 256. */
typedef struct choice {
    lsp_method method;
    lsp_key key;
    int64_t quarters[SCALED_MOST];
} choice;

static const choice choices[] = {
    {LSP_METHOD_BLOCK, LSP_KEY_ATTENTION_BLOCK_SIZE, {16, 64, 0}},
    {LSP_METHOD_TOPK, LSP_KEY_ATTENTION_TOPK, {1, 4, 16}},
};
enum { CHOICES = sizeof choices / sizeof *choices };

const char *lsp_compare_name(const lsp_compare_item *item, char *text)
{
    if (!*item->parameter)
        (void)snprintf(text, LSP_COMPARE_NAME, "exact");
    else
        (void)snprintf(text, LSP_COMPARE_NAME, "%s %" PRId64, item->parameter, item->value);
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
    return method == LSP_METHOD_BLOCK ? d->row_end - d->row_begin : d->key_end - d->key_begin;
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

/* Whether a method is asked for by name; without names those count whose key is given, or all. */
static bool is_wanted(lsp_options *options, const choice *c)
{
    int64_t named[LSP_ITEMS_MOST], count = lsp_options_items(options, LSP_KEY_COMPARE_METHODS, named);
    for (int64_t i = 0; i < count; i++)
        if (named[i] + 1 == (int64_t)c->method) return true; /* in the order of the constants, after exact */
    if (count > 0) return false;
    bool given = false;
    for (int i = 0; i < CHOICES; i++) given = given || lsp_options_is_set(options, choices[i].key);
    return !given || lsp_options_is_set(options, c->key);
}

/* ---- items --------------------------------------------------------------------------------------- */

static lsp_compare_item make_item(const lsp_compare_job *job, const choice *c, int64_t value)
{
    lsp_compare_item item = {
        .desc = job->input.desc, .parameter = lsp_option_get(c->key)->name, .value = value};
    item.desc.method = c->method;
    if (c->method == LSP_METHOD_BLOCK) item.desc.block_size = value;
    if (c->method == LSP_METHOD_TOPK) {
        item.desc.topk = value;
        item.desc.renormalize = lsp_options_yes(job->app->options, LSP_KEY_ATTENTION_RENORMALIZE);
    }
    return item;
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
        if (lsp_options_is_set(options, c->key)) {
            count = lsp_options_items(options, c->key, values);
        } else {
            count = scaled_values(c, length_of(&job->input.desc, c->method), values);
            job->scaled |= 1u << c->method;
        }
        for (int64_t j = 0; j < count; j++) job->items[job->count++] = make_item(job, c, values[j]);
    }
    return give_results(job);
}
