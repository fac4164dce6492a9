/* The picture of `longspan svd`: singular values, and what is left of the matrix at each rank.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "app/svd.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

enum { NAMED_HEADS = 16 /* more have no room beside the picture */, COLOURS = 9 };

/* From dark to light as in viridis, ends left out. */
static const char *const colours[COLOURS] = {"#440154", "#46327e", "#365c8d", "#277f8e", "#1fa187",
                                             "#4ac16d", "#a0da39", "#e8a33d", "#d1495b"};

static const char *colour_of(const lsp_svd_job *job, int64_t i)
{
    int64_t last = job->count > 1 ? job->count - 1 : 1;
    return colours[i * (COLOURS - 1) / last];
}

/* Block i: rank, sigma / sigma_1, and the relative Frobenius error when that many are kept. */
static void write_data(FILE *stream, const lsp_svd_job *job)
{
    for (int64_t i = 0; i < job->count; i++) {
        const lsp_svd *s = job->heads[i].svd;
        double square = s->certificate.norm * s->certificate.norm, rest = square;
        (void)fprintf(stream, "$head%" PRId64 " << EOD\n", i);
        for (int64_t r = 0; r < s->rank; r++) {
            rest -= s->sigma[r] * s->sigma[r];
            double error = square > 0 && rest > 0 ? sqrt(rest / square) : 0;
            if (error < s->certificate.floor) error = s->certificate.floor; /* all that is known */
            (void)fprintf(stream, "%" PRId64 " %.9g %.9g\n", r + 1,
                          s->sigma[0] > 0 ? s->sigma[r] / s->sigma[0] : 0, error);
        }
        (void)fprintf(stream, "EOD\n");
    }
}

static void write_curves(FILE *stream, const lsp_svd_job *job, int column)
{
    for (int64_t i = 0; i < job->count; i++) {
        const lsp_svd_head *h = &job->heads[i];
        int64_t head = job->input.heads ? job->input.heads[h->head] : h->head;
        char title[64];
        if (job->input.desc.batch > 1)
            (void)snprintf(title, sizeof title, "title 'batch %" PRId64 ", head %" PRId64 "'", h->batch,
                           head);
        else
            (void)snprintf(title, sizeof title, "title 'head %" PRId64 "'", head);
        (void)fprintf(stream, "%s$head%" PRId64 " using 1:%d with lines lw 2.2 lc rgb '%s' %s",
                      i == 0 ? "plot " : ", ", i, column, colour_of(job, i),
                      job->count > NAMED_HEADS ? "notitle" : title);
    }
    (void)fprintf(stream, "\n");
}

void lsp_svd_plot(FILE *stream, const void *user)
{
    const lsp_svd_job *job = user;
    const lsp_attention_desc *d = &job->input.desc;
    char rule[LSP_RULE_TEXT];
    write_data(stream, job);
    (void)fprintf(stream,
                  "set multiplot layout 1,2 margins 0.065,0.985,0.125,0.86 spacing 0.075,0.05\n"
                  "set border 3 lw 1.2 lc rgb '#505050'\n"
                  "set tics nomirror out scale 0.6 textcolor rgb '#303030'\n"
                  "set grid xtics ytics lt 1 lw 0.6 lc rgb '#e4e4e4'\n"
                  "set logscale xy\nset format y '10^{%%L}'\nset format x '%%g'\n"
                  "set key bottom left samplen 1.6 spacing 1.15 textcolor rgb '#303030'\n"
                  "set xlabel 'number of the singular value' textcolor rgb '#303030'\n"
                  "set xrange [1:%" PRId64 "]\nset yrange [*:1.25]\n",
                  job->rank > 1 ? job->rank : 2);
    (void)fprintf(stream,
                  "set label 1 'Attention matrices %" PRId64 " x %" PRId64
                  ", %s' at screen 0.065,0.945 font ',13' "
                  "textcolor rgb '#202020'\n",
                  d->row_end - d->row_begin, d->key_end - d->key_begin, lsp_summary_rule(d, rule));
    (void)fprintf(stream,
                  "set title 'singular values, over the largest' offset 0,-0.6 textcolor rgb '#303030'\n");
    write_curves(stream, job, 2);
    (void)fprintf(
        stream,
        "unset label 1\nunset key\n"
        "set xlabel 'rank kept'\n"
        "set title 'relative Frobenius error of the truncated matrix' offset 0,-0.6\n"
        "do for [share in '90 99 99.9'] { set arrow from graph 0,first sqrt(1-share/100.) to graph 1,first "
        "sqrt(1-share/100.) nohead lw 1 dt 3 lc rgb '#909090' back\n"
        "set label share.' %% of the energy' at graph 0.015,first sqrt(1-share/100.)*1.1 left font ',9' "
        "textcolor rgb '#808080' }\n");
    write_curves(stream, job, 3);
    (void)fprintf(stream, "unset multiplot\n");
}
