/* Element types. SPDX-License-Identifier: BSD-3-Clause */
#include <longspan/tensor.h>

size_t lsp_dtype_size(lsp_dtype type)
{
    switch (type) {
    case LSP_F16:
    case LSP_BF16: return 2;
    case LSP_F32: return 4;
    case LSP_F64:
    case LSP_I64: return 8;
    }
    return 0;
}

lsp_dtype lsp_dtype_result(lsp_dtype compute)
{
    return compute == LSP_BF16 ? LSP_F32 : compute;
}

const char *lsp_dtype_name(lsp_dtype type)
{
    switch (type) {
    case LSP_F16: return "f16";
    case LSP_BF16: return "bf16";
    case LSP_F32: return "f32";
    case LSP_F64: return "f64";
    case LSP_I64: return "i64";
    }
    return "unknown";
}
