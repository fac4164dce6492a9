/* Element types between files and memory. SPDX-License-Identifier: BSD-3-Clause */
#include "store/h5.h"

#include <stdio.h>
#include <string.h>

/* A floating-point type of 16 bits: sign, then exponent, then fraction. */
static hid_t make_float16(size_t exponent_bits, size_t bias, H5T_order_t order)
{
    hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    if (type < 0) return type;
    size_t fraction_bits = 15 - exponent_bits;
    if (H5Tset_fields(type, 15, fraction_bits, exponent_bits, 0, fraction_bits) < 0 ||
        H5Tset_precision(type, 16) < 0 || H5Tset_size(type, 2) < 0 || H5Tset_ebias(type, bias) < 0 ||
        H5Tset_order(type, order) < 0) {
        (void)H5Tclose(type);
        return H5I_INVALID_HID;
    }
    return type;
}

hid_t lsp_h5_file_type(lsp_dtype type)
{
    switch (type) {
    case LSP_F16: return make_float16(5, 15, H5T_ORDER_LE);
    case LSP_BF16: return H5Tcopy(H5T_STD_U16LE);
    case LSP_F32: return H5Tcopy(H5T_IEEE_F32LE);
    case LSP_F64: return H5Tcopy(H5T_IEEE_F64LE);
    case LSP_I64: return H5Tcopy(H5T_STD_I64LE);
    }
    return H5I_INVALID_HID;
}

hid_t lsp_h5_memory_type(lsp_dtype type)
{
    hid_t id = lsp_h5_file_type(type);
    if (id >= 0 && H5Tset_order(id, H5Tget_order(H5T_NATIVE_INT)) < 0) {
        (void)H5Tclose(id);
        return H5I_INVALID_HID;
    }
    return id;
}

static bool is_float(hid_t type, lsp_dtype *out)
{
    static const lsp_dtype floats[] = {LSP_F16, LSP_F32, LSP_F64};
    for (size_t i = 0; i < sizeof floats / sizeof floats[0]; i++) {
        hid_t little = lsp_h5_file_type(floats[i]), big = little < 0 ? little : H5Tcopy(little);
        bool same = big >= 0 && H5Tset_order(big, H5T_ORDER_BE) >= 0 &&
                    (H5Tequal(type, little) > 0 || H5Tequal(type, big) > 0);
        (void)lsp_h5_close_one(big);
        (void)lsp_h5_close_one(little);
        if (same) {
            *out = floats[i];
            return true;
        }
    }
    return false;
}

bool lsp_h5_dataset_type(hid_t dataset, lsp_dtype *out)
{
    hid_t type = H5Dget_type(dataset);
    if (type < 0) return false;
    bool known = false;
    size_t size = H5Tget_size(type);
    if (H5Tget_class(type) == H5T_FLOAT) {
        known = is_float(type, out);
    } else if (H5Tget_class(type) == H5T_INTEGER) {
        char text[16] = "";
        if (size == 2 && lsp_h5_attribute_text(dataset, "dtype", text, sizeof text) &&
            strcmp(text, "bf16") == 0) {
            *out = LSP_BF16;
            known = true;
        } else if (size == 8 && H5Tget_sign(type) == H5T_SGN_2) {
            *out = LSP_I64;
            known = true;
        }
    }
    (void)H5Tclose(type);
    return known;
}

const char *lsp_h5_type_name(hid_t type, char *name, size_t size)
{
    const char *big = "";
    int bits = (int)(8 * H5Tget_size(type));
    switch (H5Tget_class(type)) {
    case H5T_INTEGER:
        if (bits > 8 && H5Tget_order(type) == H5T_ORDER_BE) big = " (big-endian)";
        (void)snprintf(name, size, "%sint%d%s", H5Tget_sign(type) == H5T_SGN_NONE ? "u" : "", bits, big);
        return name;
    case H5T_FLOAT: {
        lsp_dtype known = LSP_F32;
        bool standard = is_float(type, &known);
        if (H5Tget_order(type) == H5T_ORDER_BE) big = " (big-endian)";
        (void)snprintf(name, size, "%s%d%s%s", standard ? "f" : "float", bits, standard ? "" : " (not IEEE)",
                       big);
        return name;
    }
    case H5T_STRING: (void)snprintf(name, size, "string"); return name;
    case H5T_COMPOUND: (void)snprintf(name, size, "compound"); return name;
    case H5T_ENUM: (void)snprintf(name, size, "enumeration"); return name;
    case H5T_VLEN: (void)snprintf(name, size, "variable-length"); return name;
    case H5T_ARRAY: (void)snprintf(name, size, "array"); return name;
    case H5T_REFERENCE: (void)snprintf(name, size, "reference"); return name;
    case H5T_OPAQUE: (void)snprintf(name, size, "opaque"); return name;
    default: (void)snprintf(name, size, "unknown"); return name;
    }
}
