/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/whole_file.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *temporary_name(const char *file, char *name)
{
    (void)snprintf(name, PATH_MAX, "%s.%ld.tmp", file, (long)getpid());
    return name;
}

static lsp_status fail_file(lsp_app *app, lsp_key key, const char *what, const char *done)
{
    const lsp_option *option = lsp_option_get(key);
    return lsp_context_fail(app->ctx, LSP_ERR_FILE, "%s %s cannot be %s: %s; check --%s.%s", what,
                            lsp_options_text(app->options, key), done, errno ? strerror(errno) : "no memory",
                            option->section, option->name);
}

/* What is there may be an older one, and nothing else. */
static lsp_status check_target(lsp_app *app, lsp_key key, const char *what)
{
    static const lsp_key others[] = {LSP_KEY_INPUT_FILE, LSP_KEY_OUTPUT_FILE};
    const lsp_option *option = lsp_option_get(key);
    const char *file = lsp_options_text(app->options, key);
    struct stat about;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        const char *other = lsp_options_peek(app->options, others[i]);
        if (*other && lsp_app_same_file(file, other))
            return lsp_context_fail(app->ctx, LSP_ERR_USAGE,
                                    "%s would replace %s.%s = %s; name another file (--%s.%s)", what,
                                    lsp_option_get(others[i])->section, lsp_option_get(others[i])->name,
                                    other, option->section, option->name);
    }
    if (stat(file, &about) != 0 || S_ISREG(about.st_mode)) return LSP_OK;
    return lsp_context_fail(app->ctx, LSP_ERR_FILE, "%s cannot be made: %s is %s; name a file (--%s.%s)",
                            what, file, S_ISDIR(about.st_mode) ? "a folder" : "a device or pipe",
                            option->section, option->name);
}

lsp_status lsp_whole_probe(lsp_app *app, lsp_key key, const char *what)
{
    const char *file = lsp_options_text(app->options, key);
    lsp_status status = LSP_OK;
    if (*file && app->layout.rank == 0) status = check_target(app, key, what);
    if (*file && app->layout.rank == 0 && status == LSP_OK) {
        char name[PATH_MAX];
        FILE *stream = fopen(temporary_name(file, name), "w");
        if (!stream) {
            status = fail_file(app, key, what, "created");
        } else {
            (void)fclose(stream);
            (void)unlink(name);
        }
    }
    return lsp_context_agree(app->ctx, status);
}

lsp_status lsp_whole_write(lsp_app *app, lsp_key key, const char *what, lsp_whole_fn write, const void *user)
{
    const char *file = lsp_options_text(app->options, key);
    lsp_status status = LSP_OK;
    if (*file && app->layout.rank == 0) {
        char name[PATH_MAX];
        FILE *stream = fopen(temporary_name(file, name), "wb");
        if (!stream) {
            status = fail_file(app, key, what, "created");
        } else {
            errno = 0;
            bool written = write(stream, user) && ferror(stream) == 0;
            int why = errno;
            written = fclose(stream) == 0 && written;
            if (!written && why != 0) errno = why;
            if (!written || rename(name, file) != 0) {
                status = fail_file(app, key, what, "written");
                (void)unlink(name);
            }
        }
    }
    return lsp_context_agree(app->ctx, status);
}
