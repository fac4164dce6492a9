/* The picture of `longspan compare`: error against time. SPDX-License-Identifier: BSD-3-Clause */
#include "app/compare.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

/* How a method's points look: filled where no other is better. */
typedef struct look {
    lsp_method method;
    const char *title, *colour;
    int filled, hollow; /* gnuplot's point types */
} look;

static const look looks[] = {
    {LSP_METHOD_BLOCK, "block (rows of a block)", "#365c8d", 5, 4},
    {LSP_METHOD_TOPK, "topk (weights of a row)", "#1f9e77", 7, 6},
};
enum { LOOKS = sizeof looks / sizeof *looks };

typedef struct frame {
    double x_low, x_high, y_low, y_high;
    double floor; /* errors of 0 stand here */
} frame;

static const double FEW_DECADES = 2e3;

static double share_of(const lsp_compare_job *job, int64_t i)
{
    double exact = job->results[0].seconds;
    return exact > 0 ? job->results[i].seconds / exact : 1;
}

static double shown(const frame *f, double error)
{
    return error > f->floor ? error : f->floor;
}

static frame make_frame(const lsp_compare_job *job)
{
    double least = INFINITY, most = 0, low = 1, high = 1;
    for (int64_t i = 1; i < job->count; i++) {
        const lsp_compare_result *r = &job->results[i];
        low = fmin(low, share_of(job, i));
        high = fmax(high, share_of(job, i));
        if (r->out_error > 0) least = fmin(least, r->out_error);
        if (isfinite(r->row_error))
            most = fmax(most, fmax(r->row_error, isfinite(r->out_error) ? r->out_error : 0));
    }
    if (!isfinite(least)) least = 1e-7;
    if (most < least) most = least;
    double floor_at = pow(10, floor(log10(least) - 0.3));
    return (frame){.x_low = low / 1.7,
                   .x_high = fmax(high * 1.7, 2.2),
                   .y_low = floor_at / 1.6,
                   .y_high = most * 2.5,
                   .floor = floor_at};
}

/* One block for each method: share, error, worst row, value, whether it is on the front; and the front itself. */
static void write_data(FILE *stream, const lsp_compare_job *job, const frame *f)
{
    for (int l = 0; l < LOOKS; l++) {
        (void)fprintf(stream, "$points%d << EOD\n", l);
        for (int64_t i = 1; i < job->count; i++) {
            const lsp_compare_result *r = &job->results[i];
            if (r->method != looks[l].method || !isfinite(r->out_error)) continue;
            double row = isfinite(r->row_error) ? r->row_error : f->y_high;
            (void)fprintf(stream, "%.6g %.6g %.6g %" PRId64 " %d\n", share_of(job, i), shown(f, r->out_error),
                          shown(f, row), job->items[i].value, job->front[i]);
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

static bool has_points(const lsp_compare_job *job, lsp_method method)
{
    for (int64_t i = 1; i < job->count; i++)
        if (job->results[i].method == method && isfinite(job->results[i].out_error)) return true;
    return false;
}

/* Over few decades 1, 2 and 5 of each are named, else gnuplot's choice is. */
static void write_tics(FILE *stream, char axis, double low, double high)
{
    if (high / low > FEW_DECADES) return;
    const char *between = "";
    (void)fprintf(stream, "set %ctics (", axis);
    for (int decade = (int)floor(log10(low)); decade <= (int)ceil(log10(high)); decade++) {
        static const int steps[] = {1, 2, 5};
        for (int s = 0; s < 3; s++) {
            (void)fprintf(stream, "%s%de%d", between, steps[s], decade);
            between = ", ";
        }
    }
    (void)fprintf(stream, ")\n");
}

static void write_frame(FILE *stream, const lsp_compare_job *job, const frame *f)
{
    const lsp_attention_desc *d = &job->input.desc;
    char rule[LSP_RULE_TEXT];
    (void)fprintf(stream,
                  "set lmargin at screen 0.085\nset rmargin at screen 0.975\nset bmargin at screen 0.115\n"
                  "set tmargin at screen 0.875\n"
                  "set border 3 lw 1.2 lc rgb '#505050'\n"
                  "set tics nomirror out scale 0.6 textcolor rgb '#303030'\n"
                  "set grid xtics ytics lt 1 lw 0.6 lc rgb '#e4e4e4'\n"
                  "set logscale xy\nset format x '%%g'\nset format y '%s'\n"
                  "set key bottom left reverse Left samplen 1.6 spacing 1.3 textcolor rgb '#303030'\n"
                  "set xrange [%.6g:%.6g]\nset yrange [%.6g:%.6g]\n",
                  f->y_high / f->y_low > FEW_DECADES ? "10^{%L}" : "%g", f->x_low, f->x_high, f->y_low,
                  f->y_high);
    write_tics(stream, 'x', f->x_low, f->x_high);
    write_tics(stream, 'y', f->y_low, f->y_high);
    (void)fprintf(
        stream,
        "set xlabel 'time, as a share of exact attention''s' textcolor rgb '#303030'\n"
        "set ylabel 'relative error of the output' textcolor rgb '#303030'\n"
        "set label 1 'Error against time: %s%" PRId64 " x %" PRId64 ", %" PRId64
        " head%s, %s' at screen 0.085,0.95 font ',14' textcolor rgb '#202020'\n"
        "set label 2 'Points: all rows together; whiskers reach to the worst row. Filled: no other is "
        "better in both.' at screen 0.085,0.91 font ',10' textcolor rgb '#707070'\n",
        d->batch > 1 ? "batches of " : "", d->row_end - d->row_begin, d->key_end - d->key_begin, d->heads,
        d->heads == 1 ? "" : "s", lsp_summary_rule(d, rule));
    (void)fprintf(
        stream,
        "set object 1 rectangle from first 1,graph 0 to graph 1,graph 1 fc rgb '#f7f0ee' fs noborder "
        "behind\n"
        "set arrow 1 from first 1,graph 0 to first 1,graph 1 nohead lw 1.4 dt 2 lc rgb '#a06050'\n"
        "set label 3 'exact' at first 1,graph 0.985 right offset char -0.6,0 font ',11' textcolor rgb "
        "'#a06050'\n"
        "set label 4 'slower than exact' at first 1,graph 0.985 left offset char 0.6,0 font ',11' "
        "textcolor rgb '#a06050'\n");
}

void lsp_compare_plot(FILE *stream, const void *user)
{
    const lsp_compare_job *job = user;
    frame f = make_frame(job);
    write_data(stream, job, &f);
    write_front(stream, job, &f);
    write_frame(stream, job, &f);
    (void)fprintf(stream, "plot $front using 1:2 with steps lw 5 lc rgb '#f0e2b6' title 'the front'");
    for (int l = 0; l < LOOKS; l++) {
        const look *k = &looks[l];
        if (!has_points(job, k->method)) continue;
        (void)fprintf(
            stream,
            ", $points%d using 1:2:2:3 with yerrorbars pt 0 ps 0 lw 0.8 lc rgb '%s' notitle"
            ", '' using 1:2 with lines lw 1 lc rgb '%s' notitle"
            ", '' using 1:2 with points pt %d ps 1.9 lc rgb '#ffffff' notitle"
            ", '' using 1:2 with points pt %d ps 1.7 lw 1.8 lc rgb '%s' title '%s'"
            ", '' using 1:($5 > 0 ? $2 : NaN) with points pt %d ps 1.7 lc rgb '%s' notitle"
            ", '' using 1:2:4 with labels left offset char 1.1,0.5 font ',11' textcolor rgb '%s' notitle",
            l, k->colour, k->colour, k->filled, k->hollow, k->colour, k->title, k->filled, k->colour,
            k->colour);
    }
    (void)fprintf(stream, "\n");
}
