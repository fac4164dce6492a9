/* The picture of `longspan scaling`: speed-up with the ideal line, and efficiency with the shares of time.
 * SPDX-License-Identifier: BSD-3-Clause */
#include "app/scaling.h"

#include <inttypes.h>
#include <string.h>

enum { COLOURS = 6 };
static const char *const colours[COLOURS] = {"#365c8d", "#d1495b", "#1fa187",
                                             "#e8a33d", "#46327e", "#7a7a7a"};

static bool begins_curve(const lsp_scaling *s, int64_t i)
{
    const lsp_scaling_run *r = s->points[i].first, *before = i > 0 ? s->points[i - 1].first : NULL;
    return !before || strcmp(r->label, before->label) != 0 || r->threads != before->threads;
}

/* A block for each curve: cores, speed-up, the work's, efficiency, the work's. */
static int64_t write_data(FILE *stream, const lsp_scaling *s)
{
    int64_t curves = 0;
    for (int64_t i = 0; i < s->point_count; i++) {
        const lsp_scaling_point *p = &s->points[i];
        int64_t cores = lsp_scaling_cores(p->first);
        if (begins_curve(s, i))
            (void)fprintf(stream, "%s$curve%" PRId64 " << EOD\n", i ? "EOD\n" : "", curves++);
        (void)fprintf(stream, "%" PRId64 " %.9g %.9g %.9g %.9g\n", cores, p->speedup, p->work_speedup,
                      p->efficiency, p->work_efficiency);
    }
    (void)fprintf(stream, "EOD\n");
    return curves;
}

static void write_titles(FILE *stream, const lsp_scaling *s)
{
    int64_t curve = 0;
    bool one_label = strcmp(s->points[0].first->label, s->points[s->point_count - 1].first->label) == 0;
    for (int64_t i = 0; i < s->point_count; i++) {
        const lsp_scaling_run *r = s->points[i].first;
        if (!begins_curve(s, i)) continue;
        (void)fprintf(stream, "title%" PRId64 " = \"", curve++);
        for (const char *c = r->label; !one_label && *c; c++)
            if (*c != '"' && *c != '\\') (void)fputc(*c, stream);
        (void)fprintf(stream, "%s%" PRId64 " thread%s a rank\"\n", one_label ? "" : ", ", r->threads,
                      r->threads == 1 ? "" : "s");
    }
}

static void write_curves(FILE *stream, int64_t curves, int total, int work)
{
    for (int64_t i = 0; i < curves; i++) {
        const char *colour = colours[i % COLOURS];
        (void)fprintf(stream,
                      ", $curve%" PRId64
                      " using 1:%d with linespoints lw 2.2 pt 7 ps 1 lc rgb '%s' title title%" PRId64
                      ", $curve%" PRId64 " using 1:%d with lines lw 1.6 dt 2 lc rgb '%s' notitle",
                      i, total, colour, i, i, work, colour);
    }
    (void)fprintf(stream, "\n");
}

void lsp_scaling_plot(FILE *stream, const void *scaling)
{
    const lsp_scaling *s = scaling;
    int64_t least = INT64_MAX, most = 1;
    for (int64_t i = 0; i < s->point_count; i++) {
        int64_t cores = lsp_scaling_cores(s->points[i].first);
        if (cores < least) least = cores;
        if (cores > most) most = cores;
    }
    int64_t curves = write_data(stream, s);
    write_titles(stream, s);
    (void)fprintf(stream,
                  "set multiplot layout 1,2 margins 0.06,0.985,0.125,0.86 spacing 0.075,0.05\n"
                  "set border 3 lw 1.2 lc rgb '#505050'\n"
                  "set tics nomirror out scale 0.6 textcolor rgb '#303030'\n"
                  "set grid xtics ytics lt 1 lw 0.6 lc rgb '#e4e4e4'\n"
                  "set key top left samplen 1.8 spacing 1.15 noenhanced textcolor rgb '#303030'\n"
                  "set logscale x 2\nset xlabel 'cores (ranks x threads)' textcolor rgb '#303030'\n"
                  "set xrange [%.9g:%.9g]\nset xtics noenhanced (",
                  (double)least / 1.15, (double)most * 1.15);
    for (int64_t i = 0, written = 0; i < s->point_count; i++) {
        bool seen = false;
        for (int64_t j = 0; j < i; j++)
            seen = seen || lsp_scaling_cores(s->points[j].first) == lsp_scaling_cores(s->points[i].first);
        if (!seen)
            (void)fprintf(stream, "%s%" PRId64, written++ ? ", " : "", lsp_scaling_cores(s->points[i].first));
    }
    (void)fprintf(
        stream,
        ")\nset label 1 '%s scaling, %" PRId64
        " runs' at screen 0.06,0.945 font ',13' textcolor rgb '#202020'\n"
        "set title 'speed-up over the fewest cores (dashed: computing and gather alone)' offset 0,-0.6 "
        "textcolor rgb '#303030'\n"
        "set logscale y 2\nset yrange [0.8:*]\n"
        "plot x/%" PRId64 ". with lines lw 1.2 dt 3 lc rgb '#808080' title 'ideal'",
        s->weak ? "Weak" : "Strong", s->run_count, least);
    write_curves(stream, curves, 2, 3);
    (void)fprintf(stream,
                  "unset label 1\nunset logscale y\nunset key\nset yrange [0:1.15]\nset format y '%%.1f'\n"
                  "set title 'efficiency' offset 0,-0.6\n"
                  "plot 1 with lines lw 1.2 dt 3 lc rgb '#808080' notitle");
    write_curves(stream, curves, 4, 5);
    (void)fprintf(stream, "unset multiplot\n");
}
