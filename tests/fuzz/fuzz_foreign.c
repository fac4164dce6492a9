/* Fuzz target of the parsers of safetensors and .npy: any bytes are refused, or everything told of them can be read.
 *
 * Built into tests/fuzz/mutate.c for the test suite; with libFuzzer by tests/fuzz/run.sh.
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef _GNU_SOURCE
#    define _GNU_SOURCE
#endif
#include "fuzz_foreign.h"

#include "store/foreign.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { READ_MOST = 1 << 20 };

static long taken;

long fuzz_foreign_taken(void)
{
    return taken;
}

static void must(bool holds, const char *what)
{
    if (holds) return;
    (void)fprintf(stderr, "fuzz_foreign: not so: %s\n", what);
    abort();
}

/* A tensor's numbers, in the types and orders that there are. */
static void read_tensor(const lsp_foreign *file, int64_t index)
{
    lsp_foreign_tensor tensor = lsp_foreign_get(file, index);
    lsp_error error = {LSP_OK, ""};
    must(tensor.axes >= 0 && tensor.axes <= LSP_FOREIGN_AXES, "axes");
    must(tensor.bytes >= 0 && tensor.bytes <= lsp_foreign_bytes(file), "bytes lie in the file");
    must(lsp_foreign_find(file, tensor.name) == index, "a name is found");
    if (!tensor.known || tensor.axes < 1 || tensor.axes > 4 || tensor.bytes > READ_MOST) return;
    int64_t rows = tensor.dims[tensor.axes > 1 ? tensor.axes - 2 : 0];
    char *buffer = malloc((size_t)tensor.bytes * 8 + 8);
    must(buffer != NULL, "memory");
    must(lsp_foreign_rows(file, index, false, 0, rows, tensor.type, buffer, &error) == LSP_OK,
         "rows are read");
    if (tensor.type != LSP_I64)
        must(lsp_foreign_rows(file, index, false, rows / 2, rows - rows / 2, LSP_F64, buffer, &error) ==
                 LSP_OK,
             "half of them, as f64");
    if (tensor.axes == 2)
        must(lsp_foreign_rows(file, index, true, 0, tensor.dims[1], tensor.type, buffer, &error) == LSP_OK,
             "columns are read");
    must(lsp_foreign_rows(file, index, false, rows, 1, tensor.type, buffer, &error) == LSP_ERR_USAGE,
         "a row behind the last is refused");
    free(buffer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    static char name[40];
    if (fd < 0) {
        fd = memfd_create("fuzz", 0);
        must(fd >= 0, "a file in memory");
        (void)snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    }
    must(ftruncate(fd, (off_t)size) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size,
         "the file is written");
    lsp_foreign *file = NULL;
    lsp_error error = {LSP_OK, ""};
    lsp_status status = lsp_foreign_load(name, &file, &error);
    if (status != LSP_OK) {
        must(status == LSP_ERR_CONTENT && error.text[0] && !strchr(error.text, '\n') && !file,
             "what is refused gets one line, as content");
        return 0;
    }
    taken++;
    for (int64_t i = 0; i < lsp_foreign_count(file); i++) read_tensor(file, i);
    lsp_foreign_unload(file);
    return 0;
}
