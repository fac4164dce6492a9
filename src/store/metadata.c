/* The metadata of an output file, written by rank 0 alone. SPDX-License-Identifier: BSD-3-Clause */
#include "base/memory.h"
#include "store/output.h"

#include <hdf5_hl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum {
    SCHEMA_VERSION = 1,
    ALIGNMENT = 4096,         /* of datasets in the file */
    ALIGNED_FROM = 65536,     /* bytes of an object that is aligned */
    RESERVED_BYTES = 16 << 10 /* for attributes that come after the space is reserved */
};

/* Stands for attributes to come, so that they find room on a disk that is full by then. */
static const char reserved_name[] = "reserved";

static lsp_status fail(lsp_output *output, const char *what)
{
    char reason[LSP_H5_REASON];
    (void)lsp_h5_reason(reason, sizeof reason);
    return lsp_context_fail(
        output->ctx, LSP_ERR_FILE,
        "cannot write %s of '%s': %s; check space and quota there, or name another folder", what,
        output->file, reason);
}

static lsp_status put_reserve(lsp_output *output, hid_t file_id)
{
    char *blank = lsp_memory_alloc(RESERVED_BYTES + 1, 1);
    if (!blank)
        return lsp_context_fail(output->ctx, LSP_ERR_LIMIT, "not enough memory to create '%s'", output->file);
    memset(blank, ' ', RESERVED_BYTES);
    blank[RESERVED_BYTES] = '\0';
    lsp_status status = lsp_h5_put_text(file_id, reserved_name, blank) ? LSP_OK : fail(output, "the header");
    lsp_memory_free(blank);
    return status;
}

/* ---- datasets ---------------------------------------------------------------------------------------- */

/* *origin: where its storage begins, in a file that has no user block. */
static bool make_dataset(hid_t file_id, const lsp_output_dataset *dataset, int64_t *origin)
{
    lsp_h5_handles handles = {.count = 0};
    hsize_t dims[4];
    for (int a = 0; a < dataset->axes; a++) dims[a] = (hsize_t)dataset->dims[a];
    hid_t type = lsp_h5_keep(&handles, lsp_h5_file_type(dataset->type));
    hid_t space = lsp_h5_keep(&handles, H5Screate_simple(dataset->axes, dims, NULL));
    hid_t links = lsp_h5_keep(&handles, H5Pcreate(H5P_LINK_CREATE));
    hid_t storage = lsp_h5_keep(&handles, H5Pcreate(H5P_DATASET_CREATE));
    bool fine = type >= 0 && space >= 0 && links >= 0 && storage >= 0 &&
                H5Pset_create_intermediate_group(links, 1) >= 0 &&
                H5Pset_layout(storage, H5D_CONTIGUOUS) >= 0 &&
                H5Pset_alloc_time(storage, H5D_ALLOC_TIME_EARLY) >= 0 &&
                H5Pset_fill_time(storage, H5D_FILL_TIME_NEVER) >= 0;
    hid_t id = !fine ? H5I_INVALID_HID
                     : lsp_h5_keep(&handles, H5Dcreate2(file_id, dataset->name, type, space, links, storage,
                                                        H5P_DEFAULT));
    fine = id >= 0 && lsp_h5_put_text(id, "view", dataset->view == LSP_VIEW_SCALARS ? "scalars" : "rows") &&
           lsp_h5_put_text(id, "layout", dataset->layout == LSP_BNHD ? "bnhd" : "bhnd") &&
           (!dataset->units || lsp_h5_put_text(id, "units", dataset->units)) &&
           (dataset->type != LSP_BF16 || lsp_h5_put_text(id, "dtype", "bf16")) && lsp_checksum_store(id, 0);
    haddr_t address = fine ? H5Dget_offset(id) : HADDR_UNDEF;
    bool empty = false; /* nothing is stored, nowhere */
    for (int a = 0; a < dataset->axes; a++) empty = empty || dataset->dims[a] == 0;
    fine = fine && (empty || address != HADDR_UNDEF);
    *origin = empty ? 0 : (int64_t)address;
    return lsp_h5_close(&handles) && fine;
}

/* ---- dimension scales -------------------------------------------------------------------------------- */

/* Whether `name` is a scale of this length; *taken: the name is in use at all. */
static bool look_for_scale(hid_t file_id, const char *name, int64_t length, bool *taken, bool *found)
{
    htri_t exists = H5Lexists(file_id, name, H5P_DEFAULT);
    *taken = exists > 0;
    *found = false;
    if (!*taken) return exists == 0;
    hsize_t dim = 0;
    lsp_h5_handles handles = {.count = 0};
    hid_t id = lsp_h5_keep(&handles, H5Oopen(file_id, name, H5P_DEFAULT));
    H5I_type_t kind = id >= 0 ? H5Iget_type(id) : H5I_BADID;
    htri_t scale = kind == H5I_BADID ? -1 : kind == H5I_DATASET ? H5DSis_scale(id) : 0;
    hid_t space = scale > 0 ? lsp_h5_keep(&handles, H5Dget_space(id)) : H5I_INVALID_HID;
    int axes = space >= 0 ? H5Sget_simple_extent_dims(space, &dim, NULL) : -1;
    *found = axes == 1 && dim == (hsize_t)length;
    (void)lsp_h5_close(&handles);
    return scale == 0 || axes >= 0;
}

/* A scale without values takes no storage, however long the axis: its dataset is never written. The text is
 * netCDF's way to say so, and its tools and xarray know it. */
static bool make_scale(hid_t file_id, const char *name, int64_t length)
{
    char text[96];
    lsp_h5_handles handles = {.count = 0};
    hsize_t dim = (hsize_t)length;
    (void)snprintf(text, sizeof text, "This is a netCDF dimension but not a netCDF variable.%10lld",
                   (long long)length);
    hid_t space = lsp_h5_keep(&handles, H5Screate_simple(1, &dim, NULL));
    hid_t id = space < 0 ? space
                         : lsp_h5_keep(&handles, H5Dcreate2(file_id, name, H5T_STD_U8LE, space, H5P_DEFAULT,
                                                            H5P_DEFAULT, H5P_DEFAULT));
    bool fine = id >= 0 && H5DSset_scale(id, text) >= 0;
    return lsp_h5_close(&handles) && fine;
}

/* Axes of the same name and length share a scale; another length gets the length in its name. Where a
 * dataset has that name already, the label alone must do. */
static bool attach_axis(hid_t file_id, hid_t dataset_id, unsigned axis, const char *label, int64_t length)
{
    char name[80];
    bool taken = false, found = false;
    if (H5DSset_label(dataset_id, axis, label) < 0) return false;
    (void)snprintf(name, sizeof name, "%.50s", label);
    if (!look_for_scale(file_id, name, length, &taken, &found)) return false;
    if (taken && !found) {
        (void)snprintf(name, sizeof name, "%.50s_%lld", label, (long long)length);
        if (!look_for_scale(file_id, name, length, &taken, &found)) return false;
        if (taken && !found) return true;
    }
    if (!found && !make_scale(file_id, name, length)) return false;
    hid_t scale = H5Dopen2(file_id, name, H5P_DEFAULT);
    bool fine = scale >= 0 && H5DSattach_scale(dataset_id, scale, axis) >= 0;
    return lsp_h5_close_one(scale) && fine;
}

static bool attach_scales(hid_t file_id, const lsp_output_dataset *dataset)
{
    hid_t id = H5Dopen2(file_id, dataset->name, H5P_DEFAULT);
    bool fine = id >= 0;
    for (int a = 0; fine && a < dataset->axes; a++)
        if (dataset->axis_names[a])
            fine = attach_axis(file_id, id, (unsigned)a, dataset->axis_names[a], dataset->dims[a]);
    return lsp_h5_close_one(id) && fine;
}

/* ---- the file ---------------------------------------------------------------------------------------- */

lsp_status lsp_output_make(lsp_output *output, const lsp_output_dataset *datasets, int64_t *bytes)
{
    lsp_status status = LSP_OK;
    hid_t access = lsp_h5_access_serial(false);
    hid_t file_id = H5I_INVALID_HID;
    if (access >= 0 && H5Pset_alignment(access, ALIGNED_FROM, ALIGNMENT) >= 0)
        file_id = H5Fcreate(output->temporary, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    if (file_id < 0) status = fail(output, "the header");
    if (status == LSP_OK) status = put_reserve(output, file_id);
    for (int i = 0; status == LSP_OK && i < output->count; i++)
        if (!make_dataset(file_id, &datasets[i], &output->parts[i].origin))
            status = fail(output, datasets[i].name);
    for (int i = 0; status == LSP_OK && i < output->count; i++)
        if (!attach_scales(file_id, &datasets[i])) status = fail(output, datasets[i].name);
    if (!lsp_h5_close_written(file_id, output->fd, status == LSP_OK) && status == LSP_OK)
        status = fail(output, "the header");
    (void)lsp_h5_close_one(access);
    if (status != LSP_OK) return status;
    struct stat about;
    if (fstat(output->fd, &about) != 0) return fail(output, "the size");
    *bytes = (int64_t)about.st_size;
    return LSP_OK;
}

static bool put_attribute(hid_t object, const lsp_attribute *attribute)
{
    switch (attribute->kind) {
    case LSP_ATTRIBUTE_TEXT: return lsp_h5_put_text(object, attribute->name, attribute->text);
    case LSP_ATTRIBUTE_I64: return lsp_h5_put_i64(object, attribute->name, attribute->integer);
    case LSP_ATTRIBUTE_F64: return lsp_h5_put_f64(object, attribute->name, attribute->real);
    }
    return false;
}

static lsp_status put_all(lsp_output *output, hid_t file_id, const uint64_t *checksums)
{
    if (H5Adelete(file_id, reserved_name) < 0 || !lsp_h5_put_i64(file_id, "schema_version", SCHEMA_VERSION) ||
        !lsp_h5_put_text(file_id, "longspan_version", lsp_version()))
        return fail(output, "the attributes");
    for (const lsp_attribute *a = output->attributes; a; a = a->next)
        if (a->index < 0 && !put_attribute(file_id, a)) return fail(output, a->name);
    for (int i = 0; i < output->count; i++) {
        hid_t id = H5Dopen2(file_id, output->parts[i].name, H5P_DEFAULT);
        bool fine = id >= 0 && lsp_checksum_store(id, checksums[i]);
        for (const lsp_attribute *a = output->attributes; fine && a; a = a->next)
            if (a->index == i) fine = put_attribute(id, a);
        lsp_status status = fine ? LSP_OK : fail(output, output->parts[i].name);
        (void)lsp_h5_close_one(id);
        if (status != LSP_OK) return status;
    }
    return LSP_OK;
}

lsp_status lsp_output_finish(lsp_output *output, const uint64_t *checksums)
{
    hid_t access = lsp_h5_access_serial(false);
    hid_t file_id = access < 0 ? access : H5Fopen(output->temporary, H5F_ACC_RDWR, access);
    lsp_status status = file_id < 0 ? fail(output, "the attributes") : put_all(output, file_id, checksums);
    if (!lsp_h5_close_written(file_id, output->fd, status == LSP_OK) && status == LSP_OK)
        status = fail(output, "the attributes");
    (void)lsp_h5_close_one(access);
    return status;
}
