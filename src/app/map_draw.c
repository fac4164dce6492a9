/* What is shown of a map, and where it is written. SPDX-License-Identifier: BSD-3-Clause */
#include "app/map_draw.h"

#include "app/whole_file.h"
#include "base/checked.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

double lsp_map_pixel(const lsp_map_job *job, const lsp_map_head *head, int64_t pixel, bool max)
{
    const lsp_map_shape *s = &job->shape;
    if (max) return head->max[pixel];
    int64_t r = pixel / s->pixel_keys, c = pixel % s->pixel_keys;
    int64_t rows = lsp_min(s->rows_per_pixel, s->rows - r * s->rows_per_pixel);
    int64_t keys = lsp_min(s->keys_per_pixel, s->keys - c * s->keys_per_pixel);
    /* Below the unit of its sum a pixel is not less than its largest weight: what shows nothing sees nothing. */
    return fmax(head->sum[pixel], head->max[pixel]) / ((double)rows * (double)keys);
}

const char *lsp_map_title(const lsp_map_job *job, char *text)
{
    const lsp_attention_desc *d = &job->input.desc;
    char rule[LSP_RULE_TEXT];
    (void)snprintf(text, LSP_MAP_TITLE,
                   "What %" PRId64 " head%s attend%s to: %" PRId64 " rows, %" PRId64 " keys, %s", job->count,
                   job->count == 1 ? "" : "s", job->count == 1 ? "s" : "", job->shape.rows, job->shape.keys,
                   lsp_summary_rule(d, rule));
    return text;
}

const char *lsp_map_about(const lsp_map_job *job, int64_t heads, char *text)
{
    const lsp_map_shape *s = &job->shape;
    const char *files[3];
    (void)lsp_map_input_files(job, files);
    const char *name = strrchr(files[0], '/');
    size_t used = 0;
    if (heads < job->count) {
        int length = snprintf(text, LSP_MAP_TITLE,
                              "The first %" PRId64 " heads (input.heads chooses others). ", heads);
        used = length > 0 ? (size_t)length : 0;
    }
    (void)snprintf(text + used, LSP_MAP_TITLE - used,
                   "%s. A pixel is %" PRId64 " row%s by %" PRId64 " key%s. longspan %s.",
                   name ? name + 1 : files[0], s->rows_per_pixel, s->rows_per_pixel == 1 ? "" : "s",
                   s->keys_per_pixel, s->keys_per_pixel == 1 ? "" : "s", lsp_version());
    return text;
}

lsp_status lsp_map_probe(lsp_app *app)
{
    const char *file = lsp_options_text(app->options, LSP_KEY_REPORT_PLOT);
    if (*file && !lsp_map_picture_built())
        return lsp_context_fail(app->ctx, LSP_ERR_USAGE,
                                "report.plot = %s: this longspan was built without pictures "
                                "(-DLONGSPAN_PICTURES=OFF); use report.html, or build it with cairo",
                                file);
    size_t length = strlen(file);
    if (length > 4 && strcmp(file + length - 4, ".svg") == 0)
        return lsp_context_fail(app->ctx, LSP_ERR_USAGE,
                                "report.plot = %s: the picture of a map is a PNG; name it so", file);
    lsp_status status = lsp_whole_probe(app, LSP_KEY_REPORT_PLOT, "the picture");
    return status == LSP_OK ? lsp_whole_probe(app, LSP_KEY_REPORT_HTML, "the page") : status;
}

lsp_status lsp_map_draw(const lsp_map_job *job)
{
    lsp_status status =
        lsp_whole_write(job->app, LSP_KEY_REPORT_PLOT, "the picture", lsp_map_picture_write, job);
    if (status != LSP_OK) return status;
    return lsp_whole_write(job->app, LSP_KEY_REPORT_HTML, "the page", lsp_map_page_write, job);
}
