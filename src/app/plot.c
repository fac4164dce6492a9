/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/plot.h"

#include "app/whole_file.h"

#include <errno.h>
#include <limits.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static const char *plot_file(const lsp_app *app)
{
    return lsp_options_text(app->options, LSP_KEY_REPORT_PLOT);
}

/* A name beside the picture's: gnuplot's commands, and what it has drawn so far. */
static const char *beside(const char *file, const char *ending, char name[PATH_MAX])
{
    (void)snprintf(name, PATH_MAX, "%s.%ld.%s", file, (long)getpid(), ending);
    return name;
}

static bool is_svg(const char *file)
{
    size_t length = strlen(file);
    return length > 4 && strcmp(file + length - 4, ".svg") == 0;
}

static bool is_in_path(const char *program)
{
    const char *path = getenv("PATH");
    char name[PATH_MAX];
    while (path && *path) {
        size_t length = strcspn(path, ":");
        (void)snprintf(name, sizeof name, "%.*s/%s", (int)length, path, program);
        if (length > 0 && access(name, X_OK) == 0) return true;
        path += length + (path[length] == ':');
    }
    return false;
}

static lsp_status fail_file(lsp_app *app, const char *file, const char *what)
{
    return lsp_context_fail(app->ctx, LSP_ERR_FILE, "the picture %s cannot be %s: %s; check --report.plot",
                            file, what, strerror(errno));
}

lsp_status lsp_plot_probe(lsp_app *app)
{
    lsp_status status = lsp_whole_probe(app, LSP_KEY_REPORT_PLOT, "the picture");
    if (status == LSP_OK && *plot_file(app) && app->layout.rank == 0 && !is_in_path("gnuplot"))
        status = lsp_context_fail(app->ctx, LSP_ERR_USAGE,
                                  "report.plot = %s needs gnuplot, which is not in PATH; install it (Debian: "
                                  "gnuplot-nox), or leave report.plot out",
                                  plot_file(app));
    return lsp_context_agree(app->ctx, status);
}

/* Quoted as gnuplot wants it: a quote is doubled. */
static void write_quoted(FILE *stream, const char *text)
{
    (void)fputc('\'', stream);
    for (; *text; text++) {
        if (*text == '\'') (void)fputc('\'', stream);
        (void)fputc(*text, stream);
    }
    (void)fputc('\'', stream);
}

static bool write_commands(const char *script, const char *drawing, bool svg, int width, int height,
                           lsp_plot_fn commands, const void *user)
{
    FILE *stream = fopen(script, "w");
    if (!stream) return false;
    (void)fprintf(stream, "set terminal %s size %d,%d font 'sans,11' background '#ffffff'\nset output ",
                  svg ? "svg" : "pngcairo", width, height);
    write_quoted(stream, drawing);
    (void)fputc('\n', stream);
    commands(stream, user);
    bool written = ferror(stream) == 0;
    return fclose(stream) == 0 && written;
}

/* Whether gnuplot ran and was content. */
static bool run_gnuplot(const char *script)
{
    char program[] = "gnuplot", file[PATH_MAX];
    (void)snprintf(file, sizeof file, "%s", script);
    char *arguments[] = {program, file, NULL};
    pid_t child = 0;
    int ended = 0;
    errno = posix_spawnp(&child, program, NULL, NULL, arguments, environ);
    if (errno != 0) return false;
    while (waitpid(child, &ended, 0) < 0)
        if (errno != EINTR) return false;
    return WIFEXITED(ended) && WEXITSTATUS(ended) == 0;
}

static lsp_status draw(lsp_app *app, const char *file, int width, int height, lsp_plot_fn commands,
                       const void *user)
{
    lsp_status status = LSP_OK;
    char script[PATH_MAX], drawing[PATH_MAX];
    (void)beside(file, "gp", script);
    (void)beside(file, "tmp", drawing);
    if (!write_commands(script, drawing, is_svg(file), width, height, commands, user))
        status = fail_file(app, file, "prepared");
    else if (!run_gnuplot(script))
        status =
            lsp_context_fail(app->ctx, LSP_ERR_FILE,
                             "gnuplot did not draw %s (its own message is above); leave report.plot out to "
                             "have the numbers alone",
                             file);
    else if (rename(drawing, file) != 0)
        status = fail_file(app, file, "written");
    (void)unlink(script);
    if (status != LSP_OK) (void)unlink(drawing);
    return status;
}

lsp_status lsp_plot_make(lsp_app *app, int width, int height, lsp_plot_fn commands, const void *user)
{
    lsp_status status = LSP_OK;
    if (*plot_file(app) && app->layout.rank == 0)
        status = draw(app, plot_file(app), width, height, commands, user);
    return lsp_context_agree(app->ctx, status);
}

lsp_status lsp_plot_make_both(lsp_app *app, int width, int height, lsp_plot_fn commands, const void *user)
{
    const char *file = plot_file(app);
    lsp_status status = lsp_plot_make(app, width, height, commands, user);
    if (status != LSP_OK || !*file) return status;
    if (app->layout.rank == 0) {
        char other[PATH_MAX];
        size_t length = strlen(file), stem = length;
        if (is_svg(file) || (length > 4 && strcmp(file + length - 4, ".png") == 0)) stem = length - 4;
        (void)snprintf(other, sizeof other, "%.*s.%s", (int)stem, file, is_svg(file) ? "png" : "svg");
        status = draw(app, other, width, height, commands, user);
    }
    return lsp_context_agree(app->ctx, status);
}
