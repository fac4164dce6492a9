/* SPDX-License-Identifier: BSD-3-Clause */
#include "app/format.h"

#include <stdio.h>

const char *lsp_format_bytes(double bytes, char *text)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    int unit = 0;
    for (; bytes >= 1024 && unit < 5; unit++) bytes /= 1024;
    (void)snprintf(text, LSP_FORMAT_SIZE,
                   unit == 0    ? "%.0f %s"
                   : bytes < 10 ? "%.2f %s"
                                : "%.1f %s",
                   bytes, units[unit]);
    return text;
}

const char *lsp_format_seconds(double seconds, char *text)
{
    if (seconds < 0.0995) {
        (void)snprintf(text, LSP_FORMAT_SIZE, "%.4f s", seconds);
    } else if (seconds < 9.995) {
        (void)snprintf(text, LSP_FORMAT_SIZE, "%.3f s", seconds);
    } else if (seconds < 120) {
        (void)snprintf(text, LSP_FORMAT_SIZE, "%.1f s", seconds);
    } else if (seconds < 7200) {
        int whole = (int)(seconds + 0.5);
        (void)snprintf(text, LSP_FORMAT_SIZE, "%d min %02d s", whole / 60, whole % 60);
    } else {
        double minutes = seconds / 60;
        (void)snprintf(text, LSP_FORMAT_SIZE, "%.0f h %02d min", (double)(int64_t)(minutes / 60),
                       (int)((int64_t)minutes % 60));
    }
    return text;
}

const char *lsp_format_rate(double flops_per_second, char *text)
{
    double giga = flops_per_second * 1e-9;
    if (giga >= 1e6) {
        (void)snprintf(text, LSP_FORMAT_SIZE, "%.2f PFLOP/s", giga * 1e-6);
    } else if (giga >= 1e4) {
        (void)snprintf(text, LSP_FORMAT_SIZE, "%.2f TFLOP/s", giga * 1e-3);
    } else {
        (void)snprintf(text, LSP_FORMAT_SIZE, giga < 10 ? "%.3f GFLOP/s" : "%.1f GFLOP/s", giga);
    }
    return text;
}

const char *lsp_format_shape(const lsp_tensor_shape *shape, char *text)
{
    bool swapped = shape->layout == LSP_BNHD && shape->axes > 2;
    long long n = swapped ? shape->heads : shape->n, h = swapped ? shape->n : shape->heads;
    long long b = shape->batch, d = shape->d;
    const char *type = lsp_dtype_name(shape->type);
    switch (shape->axes) {
    case 4: (void)snprintf(text, LSP_FORMAT_SIZE, "[%lld, %lld, %lld, %lld] %s", b, h, n, d, type); break;
    case 3: (void)snprintf(text, LSP_FORMAT_SIZE, "[%lld, %lld, %lld] %s", h, n, d, type); break;
    case 1: (void)snprintf(text, LSP_FORMAT_SIZE, "[%lld] %s", n, type); break;
    default: (void)snprintf(text, LSP_FORMAT_SIZE, "[%lld, %lld] %s", n, d, type); break;
    }
    return text;
}
