/* Prints what the portable kernels give for fixed operands, as hashes of bits: the same text on every processor.
 * Operands come from integers and correctly rounded operations alone.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "../unit/kernel_case.h"

#include <inttypes.h>
#include <stdio.h>

static const int64_t shapes[][4] = {
    /* n, m, d_k, d_v */
    {7, 513, 64, 64},
    {13, 1100, 80, 31},
    {5, 700, 17, 100},
    {2, 130, 600, 700},
};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

/* FNV-1a. */
static uint64_t hash(const void *data, size_t size)
{
    const unsigned char *bytes = data;
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < size; i++) h = (h ^ bytes[i]) * UINT64_C(0x100000001b3);
    return h;
}

static void fill(float *values, int64_t count, uint64_t stream)
{
    for (int64_t i = 0; i < count; i++)
        values[i] = (float)(8 * lsp_random_uniform(1, stream, (uint64_t)i) - 4);
}

static kernel_case make(int s, int variant)
{
    kernel_case c = case_make(shapes[s][0], shapes[s][1], shapes[s][2], shapes[s][3], 0);
    fill(c.q, c.n * c.d_k, 1), fill(c.k, c.m * c.d_k, 2), fill(c.v, c.m * c.d_v, 3);
    if (variant == 1) c.softcap = 2.5, c.slope = 0.03125;
    if (variant == 2) {
        c.key_begin = 5, c.key_end = c.m - 3;
        case_random_sights(&c, 1);
        c.v[c.m / 2 * c.d_v] = INFINITY;
        c.k[c.m / 3 * c.d_k] = NAN;
    }
    return c;
}

int main(void)
{
    for (int type = LSP_BF16; type <= LSP_F64; type++) {
        const lsp_kernel *kernel = lsp_kernel_get(LSP_ISA_PORTABLE, (lsp_dtype)type);
        for (int s = 0; s < SHAPES; s++) {
            for (int variant = 0; variant < 3; variant++) {
                kernel_case c = make(s, variant);
                kernel_result r = case_run(kernel, &c, 3);
                size_t rows = (size_t)c.n * r.size, numbers = rows * (size_t)c.d_v;
                (void)printf("%s %d %d out %016" PRIx64 " max %016" PRIx64 " sum %016" PRIx64
                             " lse %016" PRIx64 "\n",
                             lsp_dtype_name(kernel->compute), s, variant, hash(r.out, numbers),
                             hash(r.max, rows), hash(r.sum, rows), hash(r.lse, rows));
                result_free(&r);
                case_free(&c);
            }
        }
    }
    return 0;
}
