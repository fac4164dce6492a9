/* Files of saved states. SPDX-License-Identifier: BSD-3-Clause */
#include "store/checkpoint.h"

#include "base/memory.h"
#include "store/output.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <longspan/checkpoint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* Attributes of the file. */
static const char name_identity[] = "identity", name_progress[] = "progress", name_sum[] = "head_xxh64";

bool lsp_saved_previous(const char *file, char previous[PATH_MAX])
{
    int length = snprintf(previous, PATH_MAX, "%s.prev", file);
    return length > 0 && length < PATH_MAX;
}

lsp_status lsp_saved_exists(lsp_context *ctx, const char *file, bool *exists)
{
    int64_t found = 0;
    struct stat about;
    lsp_status status = LSP_OK;
    if (ctx->layout.rank == 0) {
        found = stat(file, &about) == 0;
        if (!found && errno != ENOENT)
            status = lsp_context_fail(ctx, LSP_ERR_FILE, "cannot look for the checkpoint '%s': %s", file,
                                      strerror(errno));
    }
    status = lsp_context_agree(ctx, status);
    if (status == LSP_OK) status = lsp_context_broadcast(ctx, 0, &found, (int64_t)sizeof found);
    if (status == LSP_OK) *exists = found != 0;
    return status;
}

/* ---- writing --------------------------------------------------------------------------------------- */

static lsp_output_dataset dataset_of(const lsp_saved_rows *array)
{
    bool scalars = array->columns == 1;
    return (lsp_output_dataset){.name = array->name,
                                .type = array->type,
                                .axes = scalars ? 3 : 4,
                                .dims = {array->batch, array->heads, array->n, array->columns},
                                .view = scalars ? LSP_VIEW_SCALARS : LSP_VIEW_ROWS,
                                .layout = LSP_BHND};
}

static void sum_head(const lsp_saved_head *head, char text[17])
{
    uint64_t sum = XXH64(head->progress, strlen(head->progress), 0);
    sum = XXH64(head->identity, strlen(head->identity), sum);
    (void)snprintf(text, 17, "%016" PRIx64, sum);
}

static lsp_status write_all(lsp_output *output, const lsp_saved_head *head, const lsp_saved_rows *arrays,
                            int count)
{
    char sum[17];
    lsp_status status = LSP_OK;
    sum_head(head, sum);
    for (int i = 0; status == LSP_OK && i < count; i++)
        status = lsp_output_write(output, i, arrays[i].runs, arrays[i].run_count, arrays[i].rows);
    if (status == LSP_OK) status = lsp_output_attribute_text(output, -1, name_identity, head->identity);
    if (status == LSP_OK) status = lsp_output_attribute_text(output, -1, name_progress, head->progress);
    if (status == LSP_OK) status = lsp_output_attribute_text(output, -1, name_sum, sum);
    return status;
}

lsp_status lsp_saved_write(lsp_context *ctx, const char *file, const lsp_saved_head *head,
                           const lsp_saved_rows *arrays, int count, int64_t *bytes)
{
    lsp_output_dataset datasets[LSP_SAVED_MOST] = {{.name = NULL}};
    lsp_output *output = NULL;
    struct stat about = {.st_size = 0};
    if (count > LSP_SAVED_MOST)
        return lsp_context_fail(ctx, LSP_ERR_LIMIT, "a state has at most %d arrays, not %d",
                                (int)LSP_SAVED_MOST, count);
    for (int i = 0; i < count; i++) datasets[i] = dataset_of(&arrays[i]);
    lsp_status status = lsp_output_create(ctx, file, true, datasets, count, &output);
    if (status != LSP_OK) return status;
    output->keep_previous = true;
    status = write_all(output, head, arrays, count);
    if (status != LSP_OK) {
        (void)lsp_output_discard(&output);
        return status;
    }
    status = lsp_output_commit(&output);
    if (status != LSP_OK) return status;
    if (ctx->layout.rank == 0 && stat(file, &about) != 0) about.st_size = 0;
    int64_t size = (int64_t)about.st_size;
    status = lsp_context_broadcast(ctx, 0, &size, (int64_t)sizeof size);
    *bytes = size;
    return status;
}

/* ---- reading --------------------------------------------------------------------------------------- */

/* Rank 0. */
static lsp_status read_head(lsp_context *ctx, const char *file, lsp_saved_head *head)
{
    char stored[32] = "", computed[17];
    bool found[3] = {false, false, false};
    lsp_status status =
        lsp_file_attribute_text(ctx, file, name_identity, head->identity, sizeof head->identity, &found[0]);
    if (status == LSP_OK)
        status = lsp_file_attribute_text(ctx, file, name_progress, head->progress, sizeof head->progress,
                                         &found[1]);
    if (status == LSP_OK)
        status = lsp_file_attribute_text(ctx, file, name_sum, stored, sizeof stored, &found[2]);
    if (status != LSP_OK) return status;
    if (!found[0] || !found[1] || !found[2])
        return lsp_context_fail(ctx, LSP_ERR_CONTENT,
                                "'%s' is not a checkpoint, or a damaged one: remove it, or name another "
                                "file (checkpoint.file)",
                                file);
    sum_head(head, computed);
    if (strcmp(stored, computed) == 0) return LSP_OK;
    return lsp_context_fail(
        ctx, LSP_ERR_CONTENT,
        "the head of '%s' does not fit its checksum: the file is damaged; remove it to start "
        "anew",
        file);
}

lsp_status lsp_saved_read_head(lsp_context *ctx, const char *file, lsp_saved_head *head)
{
    lsp_status status = ctx->layout.rank == 0 ? read_head(ctx, file, head) : LSP_OK;
    status = lsp_context_agree(ctx, status);
    return status == LSP_OK ? lsp_context_broadcast(ctx, 0, head, (int64_t)sizeof *head) : status;
}

static lsp_status check_shape(lsp_context *ctx, const char *file, const lsp_saved_rows *array,
                              const lsp_tensor_shape *shape)
{
    if (shape->type == array->type && shape->batch == array->batch && shape->heads == array->heads &&
        shape->n == array->n && shape->d == array->columns && shape->has_checksum)
        return LSP_OK;
    return lsp_context_fail(ctx, LSP_ERR_CONTENT, "dataset '%s' of '%s' has another shape than the state",
                            array->name, file);
}

lsp_status lsp_saved_read(lsp_context *ctx, const char *file, const lsp_saved_rows *arrays, int count)
{
    lsp_status status = LSP_OK;
    for (int i = 0; status == LSP_OK && i < count; i++) {
        const lsp_saved_rows *array = &arrays[i];
        lsp_tensor *tensor = NULL;
        lsp_view view = array->columns == 1 ? LSP_VIEW_SCALARS : LSP_VIEW_ROWS;
        status = lsp_tensor_open(ctx, file, array->name, view, LSP_BHND, &tensor);
        if (status != LSP_OK) break;
        lsp_tensor_shape shape = lsp_tensor_get_shape(tensor);
        status = lsp_context_agree(ctx, check_shape(ctx, file, array, &shape));
        if (status == LSP_OK) status = lsp_tensor_read(tensor, array->runs, array->run_count, array->rows);
        lsp_status closed = lsp_tensor_close(&tensor);
        if (status == LSP_OK) status = closed;
    }
    return status;
}

/* ---- around it ------------------------------------------------------------------------------------- */

lsp_status lsp_checkpoint_remove(lsp_context *ctx, const char *file)
{
    char previous[PATH_MAX];
    lsp_status status = LSP_OK;
    if (ctx->layout.rank == 0) {
        bool named = lsp_saved_previous(file, previous);
        int why = unlink(file) == 0 || errno == ENOENT ? 0 : errno;
        if (named && unlink(previous) != 0 && errno != ENOENT) why = errno;
        if (why != 0)
            status = lsp_context_fail(
                ctx, LSP_ERR_FILE, "cannot remove the checkpoint '%s': %s; remove it, the result is complete",
                file, strerror(why));
    }
    return lsp_context_agree(ctx, status);
}

lsp_status lsp_checkpoint_probe(lsp_context *ctx, const char *file)
{
    char name[PATH_MAX];
    struct stat about;
    lsp_status status = LSP_OK;
    if (ctx->layout.rank == 0) {
        int length = snprintf(name, sizeof name, "%s.%ld.probe", file, (long)getpid());
        bool folder = stat(file, &about) == 0 && S_ISDIR(about.st_mode);
        bool fits = length < (int)sizeof name;
        if (!fits) errno = ENAMETOOLONG;
        /* One of a process of that number that was killed here may be left. */
        int fd = fits && !folder ? open(name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666) : -1;
        if (fd < 0)
            status = lsp_context_fail(ctx, LSP_ERR_FILE,
                                      "a checkpoint '%s' cannot be made: %s; name another file "
                                      "(checkpoint.file), or none",
                                      file, folder ? "it is a folder" : strerror(errno));
        if (fd >= 0) {
            (void)close(fd);
            (void)unlink(name);
        }
    }
    return lsp_context_agree(ctx, status);
}
