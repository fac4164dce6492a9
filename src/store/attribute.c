/* Scalar attributes of HDF5 objects. SPDX-License-Identifier: BSD-3-Clause */
#include "base/memory.h"
#include "store/h5.h"

#include <stdio.h>
#include <string.h>

static bool read_variable(hid_t attribute, char *text, size_t size)
{
    lsp_h5_handles handles = {.count = 0};
    hid_t memory = lsp_h5_keep(&handles, H5Tcopy(H5T_C_S1));
    hid_t stored = lsp_h5_keep(&handles, H5Aget_type(attribute));
    hid_t space = lsp_h5_keep(&handles, H5Aget_space(attribute));
    char *value = NULL;
    bool fine = memory >= 0 && stored >= 0 && space >= 0 && H5Sget_simple_extent_npoints(space) == 1 &&
                H5Tset_size(memory, H5T_VARIABLE) >= 0 && H5Tset_cset(memory, H5Tget_cset(stored)) >= 0 &&
                H5Aread(attribute, memory, &value) >= 0 && value;
    if (fine) (void)snprintf(text, size, "%s", value);
    if (value) (void)H5free_memory(value);
    (void)lsp_h5_close(&handles);
    return fine;
}

static bool read_fixed(hid_t attribute, char *text, size_t size)
{
    lsp_h5_handles handles = {.count = 0};
    hid_t memory = lsp_h5_keep(&handles, H5Tcopy(H5T_C_S1));
    hid_t stored = lsp_h5_keep(&handles, H5Aget_type(attribute));
    hid_t space = lsp_h5_keep(&handles, H5Aget_space(attribute));
    /* One more for the null that a padded string does not have. */
    size_t length = stored < 0 ? 1 : H5Tget_size(stored) + 1;
    char *value = lsp_memory_alloc((int64_t)length, 1);
    bool fine = value && memory >= 0 && stored >= 0 && space >= 0 &&
                H5Sget_simple_extent_npoints(space) == 1 && H5Tset_size(memory, length) >= 0 &&
                H5Tset_strpad(memory, H5T_STR_NULLTERM) >= 0 &&
                H5Tset_cset(memory, H5Tget_cset(stored)) >= 0 && H5Aread(attribute, memory, value) >= 0;
    if (fine) (void)snprintf(text, size, "%s", value);
    lsp_memory_free(value);
    (void)lsp_h5_close(&handles);
    return fine;
}

bool lsp_h5_attribute_text(hid_t object, const char *name, char *text, size_t size)
{
    if (H5Aexists(object, name) <= 0) return false;
    lsp_h5_handles handles = {.count = 0};
    hid_t attribute = lsp_h5_keep(&handles, H5Aopen(object, name, H5P_DEFAULT));
    hid_t type = attribute < 0 ? attribute : lsp_h5_keep(&handles, H5Aget_type(attribute));
    bool fine = false;
    if (type >= 0 && H5Tget_class(type) == H5T_STRING)
        fine = H5Tis_variable_str(type) > 0 ? read_variable(attribute, text, size)
                                            : read_fixed(attribute, text, size);
    (void)lsp_h5_close(&handles);
    return fine;
}

/* Replaces by delete and create: the value before may have had another type or length. */
static bool put_scalar(hid_t object, const char *name, hid_t file_type, hid_t memory_type, const void *value)
{
    if (H5Aexists(object, name) > 0 && H5Adelete(object, name) < 0) return false;
    lsp_h5_handles handles = {.count = 0};
    hid_t space = lsp_h5_keep(&handles, H5Screate(H5S_SCALAR));
    hid_t attribute =
        space < 0
            ? space
            : lsp_h5_keep(&handles, H5Acreate2(object, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT));
    bool fine = attribute >= 0 && H5Awrite(attribute, memory_type, value) >= 0;
    return lsp_h5_close(&handles) && fine;
}

bool lsp_h5_put_text(hid_t object, const char *name, const char *value)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    size_t length = strlen(value);
    /* HDF5 has no string of size 0; a null-padded one of size 1 reads as "". */
    bool fine = type >= 0 && H5Tset_size(type, length ? length : 1) >= 0 &&
                H5Tset_strpad(type, H5T_STR_NULLPAD) >= 0 && H5Tset_cset(type, H5T_CSET_UTF8) >= 0 &&
                put_scalar(object, name, type, type, value);
    return lsp_h5_close_one(type) && fine;
}

bool lsp_h5_put_i64(hid_t object, const char *name, int64_t value)
{
    return put_scalar(object, name, H5T_STD_I64LE, H5T_NATIVE_INT64, &value);
}

bool lsp_h5_put_f64(hid_t object, const char *name, double value)
{
    return put_scalar(object, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &value);
}
