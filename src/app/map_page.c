/* The page of `longspan map`: the numbers that it shows. SPDX-License-Identifier: BSD-3-Clause */
#include "app/map_page.h"

#include "app/map_draw.h"
#include "base/checked.h"
#include "base/memory.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum {
    PIXELS_MOST = 6 << 20, /* of all heads shown: four bytes each */
    LEVELS = 4094,         /* of a weight in two characters of six bits, beside 0 */
    TOP_KEYS = 50,
    LINKS_MOST = 1000,
    LABEL_WIDTH = 60,
    LABEL_ROOM = 4 * LABEL_WIDTH + 4
};

/* ---- pictures ------------------------------------------------------------------------------------ */

/* Natural logarithms of the least and the largest value above 0. */
typedef struct value_range {
    double low, high;
} value_range;

static value_range range_of(const lsp_map_job *job, int64_t heads, bool max)
{
    value_range r = {INFINITY, 0};
    int64_t pixels = job->shape.pixel_rows * job->shape.pixel_keys;
    for (int64_t i = 0; i < heads; i++)
        for (int64_t p = 0; p < pixels; p++) {
            double value = lsp_map_pixel(job, &job->heads[i], p, max);
            if (value > 0 && value < r.low) r.low = value;
            if (value > r.high) r.high = value;
        }
    if (r.high == 0) return (value_range){-1, 0};
    return (value_range){log(fmax(r.low, r.high * 1e-15)) - 1e-9, log(r.high) + 1e-9};
}

static bool write_plane(FILE *stream, const lsp_map_job *job, const lsp_map_head *head, bool max,
                        value_range range)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    int64_t keys = job->shape.pixel_keys;
    char *line = lsp_memory_alloc(2 * keys, 1);
    bool fine = line != NULL;
    for (int64_t r = 0; fine && r < job->shape.pixel_rows; r++) {
        for (int64_t c = 0; c < keys; c++) {
            double value = lsp_map_pixel(job, head, r * keys + c, max);
            int code = 0;
            if (value > 0) {
                double place = (log(value) - range.low) / (range.high - range.low);
                code = 1 + (int)lround(fmax(0, fmin(1, place)) * LEVELS);
            }
            line[2 * c] = digits[code / 64];
            line[2 * c + 1] = digits[code % 64];
        }
        fine = fwrite(line, 1, (size_t)(2 * keys), stream) == (size_t)(2 * keys);
    }
    lsp_memory_free(line);
    return fine;
}

/* ---- figures and words --------------------------------------------------------------------------- */

static void add_numbers(cJSON *object, const char *name, const double *values, int64_t count)
{
    cJSON *array = cJSON_AddArrayToObject(object, name);
    for (int64_t i = 0; array && i < count; i++) {
        char text[32];
        (void)snprintf(text, sizeof text, "%.5g", values[i]);
        lsp_json_add_item(array, isfinite(values[i]) ? cJSON_CreateRaw(text) : cJSON_CreateNull());
    }
}

static void add_mass(cJSON *object, const lsp_map_job *job, const lsp_map_head *head)
{
    const lsp_map_shape *s = &job->shape;
    double *mean = lsp_memory_zalloc(2 * s->pixel_keys, sizeof *mean), *most = mean + s->pixel_keys;
    if (!mean) return; /* found when the page is written */
    for (int64_t j = 0; j < s->keys; j++) {
        int64_t c = j / s->keys_per_pixel;
        mean[c] += head->column_mass[j];
        most[c] = fmax(most[c], head->column_mass[j]);
    }
    for (int64_t c = 0; c < s->pixel_keys; c++)
        mean[c] /= (double)lsp_min(s->keys_per_pixel, s->keys - c * s->keys_per_pixel);
    add_numbers(object, "mass", mean, s->pixel_keys);
    add_numbers(object, "mass_max", most, s->pixel_keys);
    lsp_memory_free(mean);
}

static void add_word(cJSON *array, const lsp_labels *labels, int64_t i)
{
    char room[LABEL_ROOM];
    lsp_json_add_item(array, cJSON_CreateString(lsp_labels_short(labels, i, LABEL_WIDTH, room)));
}

static bool has_labels(const lsp_map_job *job)
{
    return job->row_labels.count > 0 || job->key_labels.count > 0;
}

static void add_links(cJSON *object, const lsp_map_job *job, const lsp_map_head *head)
{
    cJSON *links = cJSON_AddArrayToObject(object, "links");
    for (int64_t i = 0; links && i < head->link_count && i < LINKS_MOST; i++) {
        cJSON *one = cJSON_CreateArray();
        lsp_json_add_item(one, cJSON_CreateNumber((double)head->links[i].row));
        lsp_json_add_item(one, cJSON_CreateNumber((double)head->links[i].key));
        lsp_json_add_item(one, cJSON_CreateNumber(head->links[i].weight));
        if (has_labels(job)) add_word(one, &job->row_labels, head->links[i].row);
        if (has_labels(job)) add_word(one, &job->key_labels, head->links[i].key);
        lsp_json_add_item(links, one);
    }
    int64_t top[TOP_KEYS], count = lsp_map_top_keys(job, head, TOP_KEYS, top);
    cJSON *keys = cJSON_AddArrayToObject(object, "top_keys");
    for (int64_t i = 0; keys && i < count; i++) {
        cJSON *one = cJSON_CreateArray();
        double mass = head->column_mass[top[i] - job->input.desc.key_begin];
        lsp_json_add_item(one, cJSON_CreateNumber((double)top[i]));
        lsp_json_add_item(one, cJSON_CreateNumber(mass));
        if (has_labels(job)) add_word(one, &job->key_labels, top[i]);
        lsp_json_add_item(keys, one);
    }
}

static cJSON *describe_head(const lsp_map_job *job, int64_t i)
{
    const lsp_map_head *head = &job->heads[i];
    cJSON *object = cJSON_CreateObject();
    lsp_json_add_number(object, "batch", (double)lsp_map_batch_of(job, i));
    lsp_json_add_number(object, "head", (double)lsp_map_head_of(job, i));
    lsp_json_add_number(object, "weighed", (double)head->weighed);
    lsp_json_add_number(object, "empty", (double)head->empty);
    cJSON *figures = cJSON_AddObjectToObject(object, "mean_figures");
    cJSON *pooled = cJSON_AddObjectToObject(object, "pooled");
    for (int f = 0; f < LSP_MAP_FIGURES; f++) {
        const char *name = lsp_map_figure_name((lsp_map_figure)f);
        lsp_json_add_number(figures, name, head->mean[f]);
        add_numbers(pooled, name, head->pooled[f], job->shape.pixel_rows);
    }
    add_mass(object, job, head);
    add_links(object, job, head);
    return object;
}

/* ---- the page ------------------------------------------------------------------------------------ */

static cJSON *describe(const lsp_map_job *job, int64_t heads, const value_range *ranges)
{
    const lsp_attention_desc *d = &job->input.desc;
    const lsp_map_shape *s = &job->shape;
    char text[LSP_MAP_TITLE];
    cJSON *object = cJSON_CreateObject();
    const struct {
        const char *name;
        int64_t value;
    } numbers[] = {{"rows", s->rows},
                   {"keys", s->keys},
                   {"row_begin", d->row_begin},
                   {"key_begin", d->key_begin},
                   {"pixel_rows", s->pixel_rows},
                   {"pixel_keys", s->pixel_keys},
                   {"rows_per_pixel", s->rows_per_pixel},
                   {"keys_per_pixel", s->keys_per_pixel},
                   {"batches", d->batch},
                   {"window", LSP_MAP_WINDOW}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        lsp_json_add_number(object, numbers[i].name, (double)numbers[i].value);
    (void)cJSON_AddStringToObject(object, "title", lsp_map_title(job, text));
    (void)cJSON_AddStringToObject(object, "about", lsp_map_about(job, heads, text));
    (void)cJSON_AddBoolToObject(object, "labelled", has_labels(job));
    for (int max = 0; max < 2; max++) {
        const double range[2] = {ranges[max].low, ranges[max].high};
        cJSON *item = cJSON_CreateDoubleArray(range, 2);
        if (!cJSON_AddItemToObject(object, max ? "max_range" : "mean_range", item)) cJSON_Delete(item);
    }
    return object;
}

/* As it may stand inside of a script element. Takes the object. */
static bool write_json(FILE *stream, cJSON *object, bool open)
{
    char *text = object ? cJSON_PrintUnformatted(object) : NULL;
    size_t length = text ? strlen(text) : 0;
    bool fine = length > 1 && !lsp_json_starved();
    if (fine && open) text[--length] = '\0'; /* more members follow */
    for (size_t i = 0; fine && i < length;) {
        size_t run = strcspn(text + i, "<");
        fine = fwrite(text + i, 1, run, stream) == run;
        i += run;
        if (fine && i < length) fine = fputs("\\u003c", stream) >= 0, i++;
    }
    cJSON_free(text);
    cJSON_Delete(object);
    return fine;
}

static bool write_heads(FILE *stream, const lsp_map_job *job, int64_t heads, const value_range *ranges)
{
    bool fine = fputs(",\"heads\":[", stream) >= 0;
    for (int64_t i = 0; fine && i < heads; i++) {
        fine = (i == 0 || fputs(",\n", stream) >= 0) && write_json(stream, describe_head(job, i), true);
        for (int max = 0; fine && max < 2; max++)
            fine = fprintf(stream, ",\"%s\":\"", max ? "max" : "mean") > 0 &&
                   write_plane(stream, job, &job->heads[i], max == 1, ranges[max]) &&
                   fputc('"', stream) != EOF;
        fine = fine && fputc('}', stream) != EOF;
    }
    return fine && fputs("]}", stream) >= 0;
}

bool lsp_map_page_write(FILE *stream, const void *user)
{
    const lsp_map_job *job = user;
    const char marker[] = "@DATA@", *text = lsp_map_page_text, *at = strstr(text, marker);
    int64_t pixels = job->shape.pixel_rows * job->shape.pixel_keys;
    int64_t heads = lsp_max(1, lsp_min(job->count, PIXELS_MOST / pixels));
    const value_range ranges[2] = {range_of(job, heads, false), range_of(job, heads, true)};
    size_t before = at ? (size_t)(at - text) : 0, after = before + sizeof marker - 1;
    return at && fwrite(text, 1, before, stream) == before &&
           write_json(stream, describe(job, heads, ranges), true) &&
           write_heads(stream, job, heads, ranges) &&
           fwrite(text + after, 1, lsp_map_page_size - after, stream) == lsp_map_page_size - after;
}
