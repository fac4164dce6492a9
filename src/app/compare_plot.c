/* The picture of `longspan compare`: error against time. SPDX-License-Identifier: BSD-3-Clause */
#include "app/compare.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

enum { HEADS_MOST = 16 };

static const double few_decades = 2e3;

/* How a method's points look: filled where no other is better. */
typedef struct look {
    lsp_method method;
    const char *title, *colour;
    int filled, hollow; /* gnuplot's point types */
} look;

static const look looks[] = {
    {LSP_METHOD_BLOCK, "block (rows of a block)", "#365c8d", 5, 4},
    {LSP_METHOD_TOPK, "topk (weights of a row)", "#1f9e77", 7, 6},
    {LSP_METHOD_LOWRANK, "lowrank (singular values)", "#c2571a", 9, 8},
};
enum { LOOKS = sizeof looks / sizeof *looks };

typedef struct frame {
    double x_low, x_high, y_low, y_high;
    double floor; /* errors of 0 stand here */
} frame;

static double share_of(const lsp_compare_job *job, int64_t i)
{
    double exact = job->results[0].seconds;
    return exact > 0 ? job->results[i].seconds / exact : 1;
}

static double shown(const frame *f, double error)
{
    return error > f->floor ? error : f->floor;
}

/* Heads that are drawn by themselves: one is all there is, and many would hide the rest. */
static int64_t shown_heads(const lsp_compare_job *job)
{
    int64_t count = job->input.desc.batch * job->input.desc.heads;
    return count > 1 && count <= HEADS_MOST ? count : 0;
}

static void widen(double value, double *low, double *high)
{
    if (!isfinite(value)) return;
    if (value > 0) *low = fmin(*low, value);
    *high = fmax(*high, value);
}

static frame make_frame(const lsp_compare_job *job)
{
    double least = INFINITY, most = 0, low = 1, high = 1;
    for (int64_t i = 1; i < job->count; i++) {
        const lsp_compare_result *r = &job->results[i];
        widen(share_of(job, i), &low, &high);
        widen(r->out_error, &least, &most);
        for (int64_t h = 0; h < shown_heads(job); h++) widen(job->items[i].heads[h].out_error, &least, &most);
        if (isfinite(r->row_error)) most = fmax(most, r->row_error);
    }
    if (!isfinite(least)) least = 1e-7;
    if (most < least) most = least;
    double below = least / 2;
    return (frame){low / 1.7, fmax(high * 1.7, 2.2), below / 1.6, most * 2.5, below};
}

/* For each method a block of points (share, error, worst row, value, whether it is on the front) and one of heads. */
static void write_data(FILE *stream, const lsp_compare_job *job, const frame *f)
{
    for (int l = 0; l < LOOKS; l++) {
        (void)fprintf(stream, "$points%d << EOD\n", l);
        for (int64_t i = 1; i < job->count; i++) {
            const lsp_compare_result *r = &job->results[i];
            if (r->method != looks[l].method || !isfinite(r->out_error)) continue;
            double row = isfinite(r->row_error) ? r->row_error : f->y_high;
            (void)fprintf(stream, "%.6g %.6g %.6g %.15g %d\n", share_of(job, i), shown(f, r->out_error),
                          shown(f, row), job->items[i].value, job->front[i]);
        }
        (void)fprintf(stream, "EOD\n$heads%d << EOD\n", l);
        for (int64_t i = 1; i < job->count; i++) {
            for (int64_t h = 0; h < shown_heads(job); h++) {
                double error = job->items[i].heads[h].out_error;
                if (job->results[i].method == looks[l].method && isfinite(error))
                    (void)fprintf(stream, "%.6g %.6g\n", share_of(job, i), shown(f, error));
            }
        }
        (void)fprintf(stream, "EOD\n");
    }
}

/* The front as a staircase, from the fastest to exact, whose error is none. */
static void write_front(FILE *stream, const lsp_compare_job *job, const frame *f)
{
    double after = 0;
    (void)fprintf(stream, "$front << EOD\n");
    for (;;) {
        int64_t next = -1;
        for (int64_t i = 1; i < job->count; i++) {
            double share = share_of(job, i);
            bool better = next < 0 || share < share_of(job, next);
            if (job->front[i] && isfinite(job->results[i].out_error) && share > after && better) next = i;
        }
        if (next < 0) break;
        after = share_of(job, next);
        (void)fprintf(stream, "%.6g %.6g\n", after, shown(f, job->results[next].out_error));
    }
    if (job->front[0]) (void)fprintf(stream, "1 %.6g\n", f->y_low);
    (void)fprintf(stream, "EOD\n");
}

/* Over few decades 1, 2 and 5 of each are named, else the choice is gnuplot's. */
static void write_tics(FILE *stream, char axis, double low, double high)
{
    static const int steps[] = {1, 2, 5};
    const char *between = "";
    (void)fprintf(stream, "set format %c '%s'\n", axis,
                  axis == 'y' && high / low > few_decades ? "10^{%L}" : "%g");
    if (high / low > few_decades) return;
    (void)fprintf(stream, "set %ctics (", axis);
    for (int decade = (int)floor(log10(low)); decade <= (int)ceil(log10(high)); decade++) {
        for (int s = 0; s < 3; s++) {
            (void)fprintf(stream, "%s%de%d", between, steps[s], decade);
            between = ", ";
        }
    }
    (void)fprintf(stream, ")\n");
}

static void write_frame(FILE *stream, const frame *f)
{
    (void)fprintf(stream,
                  "set lmargin at screen 0.085\nset rmargin at screen 0.975\nset bmargin at screen 0.115\n"
                  "set tmargin at screen 0.875\n"
                  "set border 3 lw 1.2 lc rgb '#505050'\n"
                  "set tics nomirror out scale 0.6 textcolor rgb '#303030'\n"
                  "set grid xtics ytics lt 1 lw 0.6 lc rgb '#e4e4e4'\n"
                  "set logscale xy\n"
                  "set key bottom left reverse Left samplen 1.6 spacing 1.3 opaque box lc rgb '#d0d0d0' "
                  "textcolor rgb '#303030'\n"
                  "set xrange [%.6g:%.6g]\nset yrange [%.6g:%.6g]\n",
                  f->x_low, f->x_high, f->y_low, f->y_high);
    write_tics(stream, 'x', f->x_low, f->x_high);
    write_tics(stream, 'y', f->y_low, f->y_high);
    (void)fprintf(
        stream, "set xlabel 'time, as a share of exact attention''s' textcolor rgb '#303030'\n"
                "set ylabel 'relative error of the output' textcolor rgb '#303030'\n"
                "set object 1 rectangle from first 1,graph 0 to graph 1,graph 1 fc rgb '#f7f0ee' fs noborder "
                "behind\n"
                "set arrow 1 from first 1,graph 0 to first 1,graph 1 nohead lw 1.4 dt 2 lc rgb '#a06050'\n"
                "set label 3 'exact' at first 1,graph 0.985 right offset char -0.6,0 font ',11' textcolor "
                "rgb '#a06050'\n"
                "set label 4 'slower than exact' at first 1,graph 0.985 left offset char 0.6,0 font ',11' "
                "textcolor rgb '#a06050'\n");
}

static void write_title(FILE *stream, const lsp_compare_job *job)
{
    const lsp_attention_desc *d = &job->input.desc;
    char rule[LSP_RULE_TEXT];
    (void)fprintf(stream,
                  "set label 1 'Error against time: %s%" PRId64 " x %" PRId64 ", %" PRId64
                  " head%s, %s' at screen 0.085,0.95 font ',14' textcolor rgb '#202020'\n"
                  "set label 2 'Large: all rows together, a whisker to the worst row%s. Filled: no other is "
                  "better in both.' at screen 0.085,0.91 font ',10' textcolor rgb '#707070'\n",
                  d->batch > 1 ? "batches of " : "", d->row_end - d->row_begin, d->key_end - d->key_begin,
                  d->heads, d->heads == 1 ? "" : "s", lsp_summary_rule(d, rule),
                  shown_heads(job) ? "; small: single heads" : "");
}

static bool has_points(const lsp_compare_job *job, lsp_method method)
{
    for (int64_t i = 1; i < job->count; i++)
        if (job->results[i].method == method && isfinite(job->results[i].out_error)) return true;
    return false;
}

void lsp_compare_plot(FILE *stream, const void *user)
{
    const lsp_compare_job *job = user;
    frame f = make_frame(job);
    write_data(stream, job, &f);
    write_front(stream, job, &f);
    write_frame(stream, &f);
    write_title(stream, job);
    (void)fprintf(stream, "plot $front using 1:2 with steps lw 5 lc rgb '#f0e2b6' title 'best for its time'");
    for (int l = 0; l < LOOKS; l++) {
        const char *colour = looks[l].colour;
        int filled = looks[l].filled;
        if (!has_points(job, looks[l].method)) continue;
        (void)fprintf(stream,
                      ", $points%d using 1:2:2:3 with yerrorbars pt 0 ps 0 lw 0.8 lc rgb '%s' notitle", l,
                      colour);
        if (shown_heads(job))
            (void)fprintf(stream, ", $heads%d using 1:2 with points pt 7 ps 0.6 lc rgb '%s' notitle", l,
                          colour);
        (void)fprintf(stream,
                      ", $points%d using 1:2 with lines lw 1 lc rgb '%s' notitle"
                      ", '' using 1:2 with points pt %d ps 1.9 lc rgb '#ffffff' notitle"
                      ", '' using 1:2 with points pt %d ps 1.7 lw 1.8 lc rgb '%s' title '%s'"
                      ", '' using 1:($5 > 0 ? $2 : NaN) with points pt %d ps 1.7 lc rgb '%s' notitle"
                      ", '' using 1:2:4 with labels left offset char 0.9,0.75 font ',11' textcolor rgb '%s' "
                      "notitle",
                      l, colour, filled, looks[l].hollow, colour, looks[l].title, filled, colour, colour);
    }
    (void)fprintf(stream, "\n");
}
