/* HDF5's functions that Longspan calls, but for those that tell of errors or kinds (tests/fault/sweep.py checks that none is missing).
 * SPDX-License-Identifier: BSD-3-Clause */
#include "fault.h"

#include <hdf5.h>
#include <hdf5_hl.h>

#define H5_CALL(type, failed, name, parameters, arguments)                                                   \
    FAULT_CALL(FAULT_HDF5, type, failed, name, parameters, arguments)

static hid_t opened(hid_t id, const void *caller)
{
    if (id >= 0) fault_note(FAULT_HANDLES, caller, 1);
    return id;
}

static herr_t closed(herr_t result, bool fails, const void *caller)
{
    if (result >= 0) fault_note(FAULT_HANDLES, caller, -1);
    return fails ? -1 : result;
}

#define H5_OPEN(name, parameters, arguments)                                                                 \
    hid_t name parameters                                                                                    \
    {                                                                                                        \
        __typeof__(name) *real = fault_real(#name);                                                          \
        if (fault_now(FAULT_HDF5, #name, FAULT_CALLER)) return H5I_INVALID_HID;                              \
        return opened(real arguments, FAULT_CALLER);                                                         \
    }

/* What gives something back does so, and is told to have failed. */
#define H5_CLOSE(name, parameters, arguments)                                                                \
    herr_t name parameters                                                                                   \
    {                                                                                                        \
        __typeof__(name) *real = fault_real(#name);                                                          \
        bool fails = fault_now(FAULT_HDF5, #name, FAULT_CALLER);                                             \
        return closed(real arguments, fails, FAULT_CALLER);                                                  \
    }

H5_CLOSE(H5Aclose, (hid_t attr_id), (attr_id))
H5_OPEN(H5Acreate2,
        (hid_t loc_id, const char *attr_name, hid_t type_id, hid_t space_id, hid_t acpl_id, hid_t aapl_id),
        (loc_id, attr_name, type_id, space_id, acpl_id, aapl_id))
H5_CALL(herr_t, -1, H5Adelete, (hid_t loc_id, const char *attr_name), (loc_id, attr_name))
H5_CALL(htri_t, -1, H5Aexists, (hid_t obj_id, const char *attr_name), (obj_id, attr_name))
H5_OPEN(H5Aget_space, (hid_t attr_id), (attr_id))
H5_OPEN(H5Aget_type, (hid_t attr_id), (attr_id))
H5_CALL(herr_t, -1, H5Aiterate2,
        (hid_t loc_id, H5_index_t idx_type, H5_iter_order_t order, hsize_t *idx, H5A_operator2_t op,
         void *op_data),
        (loc_id, idx_type, order, idx, op, op_data))
H5_OPEN(H5Aopen, (hid_t obj_id, const char *attr_name, hid_t aapl_id), (obj_id, attr_name, aapl_id))
H5_CALL(herr_t, -1, H5Aread, (hid_t attr_id, hid_t type_id, void *buf), (attr_id, type_id, buf))
H5_CALL(herr_t, -1, H5Awrite, (hid_t attr_id, hid_t type_id, const void *buf), (attr_id, type_id, buf))
H5_CALL(herr_t, -1, H5DSattach_scale, (hid_t did, hid_t dsid, unsigned int idx), (did, dsid, idx))
H5_CALL(ssize_t, -1, H5DSget_label, (hid_t did, unsigned int idx, char *label, size_t size),
        (did, idx, label, size))
H5_CALL(htri_t, -1, H5DSis_scale, (hid_t did), (did))
H5_CALL(herr_t, -1, H5DSset_label, (hid_t did, unsigned int idx, const char *label), (did, idx, label))
H5_CALL(herr_t, -1, H5DSset_scale, (hid_t dsid, const char *dimname), (dsid, dimname))
H5_CLOSE(H5Dclose, (hid_t dset_id), (dset_id))
H5_OPEN(H5Dcreate2,
        (hid_t loc_id, const char *name, hid_t type_id, hid_t space_id, hid_t lcpl_id, hid_t dcpl_id,
         hid_t dapl_id),
        (loc_id, name, type_id, space_id, lcpl_id, dcpl_id, dapl_id))
H5_OPEN(H5Dget_create_plist, (hid_t dset_id), (dset_id))
H5_OPEN(H5Dget_space, (hid_t dset_id), (dset_id))
H5_CALL(haddr_t, HADDR_UNDEF, H5Dget_offset, (hid_t dset_id), (dset_id))
H5_CALL(hsize_t, 0, H5Dget_storage_size, (hid_t dset_id), (dset_id))
H5_OPEN(H5Dget_type, (hid_t dset_id), (dset_id))
H5_OPEN(H5Dopen2, (hid_t loc_id, const char *name, hid_t dapl_id), (loc_id, name, dapl_id))
H5_CALL(herr_t, -1, H5Dread,
        (hid_t dset_id, hid_t mem_type_id, hid_t mem_space_id, hid_t file_space_id, hid_t dxpl_id, void *buf),
        (dset_id, mem_type_id, mem_space_id, file_space_id, dxpl_id, buf))
H5_CLOSE(H5Fclose, (hid_t file_id), (file_id))
H5_OPEN(H5Fcreate, (const char *filename, unsigned flags, hid_t fcpl_id, hid_t fapl_id),
        (filename, flags, fcpl_id, fapl_id))
H5_OPEN(H5Fopen, (const char *filename, unsigned flags, hid_t fapl_id), (filename, flags, fapl_id))
H5_CLOSE(H5Gclose, (hid_t group_id), (group_id))
H5_CALL(htri_t, -1, H5Lexists, (hid_t loc_id, const char *name, hid_t lapl_id), (loc_id, name, lapl_id))
H5_CALL(herr_t, -1, H5Fflush, (hid_t object_id, H5F_scope_t scope), (object_id, scope))
H5_CALL(herr_t, -1, H5Lget_val, (hid_t loc_id, const char *name, void *buf, size_t size, hid_t lapl_id),
        (loc_id, name, buf, size, lapl_id))
H5_CALL(herr_t, -1, H5Lunpack_elink_val,
        (const void *ext_linkval, size_t link_size, unsigned *flags, const char **filename,
         const char **obj_path),
        (ext_linkval, link_size, flags, filename, obj_path))
H5_CALL(herr_t, -1, H5Lvisit,
        (hid_t grp_id, H5_index_t idx_type, H5_iter_order_t order, H5L_iterate_t op, void *op_data),
        (grp_id, idx_type, order, op, op_data))
H5_OPEN(H5Oopen, (hid_t loc_id, const char *name, hid_t lapl_id), (loc_id, name, lapl_id))
H5_CALL(herr_t, -1, H5Ovisit2,
        (hid_t obj_id, H5_index_t idx_type, H5_iter_order_t order, H5O_iterate_t op, void *op_data,
         unsigned fields),
        (obj_id, idx_type, order, op, op_data, fields))
H5_CLOSE(H5Pclose, (hid_t plist_id), (plist_id))
H5_OPEN(H5Pcreate, (hid_t cls_id), (cls_id))
H5_CALL(int, -1, H5Pget_chunk, (hid_t plist_id, int max_ndims, hsize_t dim[]), (plist_id, max_ndims, dim))
H5_CALL(int, -1, H5Pget_external_count, (hid_t plist_id), (plist_id))
H5_CALL(H5Z_filter_t, H5Z_FILTER_ERROR, H5Pget_filter2,
        (hid_t plist_id, unsigned idx, unsigned int *flags, size_t *cd_nelmts, unsigned cd_values[],
         size_t namelen, char name[], unsigned *filter_config),
        (plist_id, idx, flags, cd_nelmts, cd_values, namelen, name, filter_config))
H5_CALL(H5D_layout_t, H5D_LAYOUT_ERROR, H5Pget_layout, (hid_t plist_id), (plist_id))
H5_CALL(int, -1, H5Pget_nfilters, (hid_t plist_id), (plist_id))
H5_CALL(herr_t, -1, H5Pget_virtual_count, (hid_t dcpl_id, size_t *count), (dcpl_id, count))
H5_CALL(ssize_t, -1, H5Pget_virtual_filename, (hid_t dcpl_id, size_t index, char *name, size_t size),
        (dcpl_id, index, name, size))
H5_CALL(herr_t, -1, H5Pset_alignment, (hid_t fapl_id, hsize_t threshold, hsize_t alignment),
        (fapl_id, threshold, alignment))
H5_CALL(herr_t, -1, H5Pset_alloc_time, (hid_t plist_id, H5D_alloc_time_t alloc_time), (plist_id, alloc_time))
H5_CALL(herr_t, -1, H5Pset_chunk_cache,
        (hid_t dapl_id, size_t rdcc_nslots, size_t rdcc_nbytes, double rdcc_w0),
        (dapl_id, rdcc_nslots, rdcc_nbytes, rdcc_w0))
H5_CALL(herr_t, -1, H5Pset_create_intermediate_group, (hid_t plist_id, unsigned crt_intmd),
        (plist_id, crt_intmd))
H5_CALL(herr_t, -1, H5Pset_fapl_sec2, (hid_t fapl_id), (fapl_id))
H5_CALL(herr_t, -1, H5Pset_fclose_degree, (hid_t fapl_id, H5F_close_degree_t degree), (fapl_id, degree))
H5_CALL(herr_t, -1, H5Pset_file_locking,
        (hid_t fapl_id, hbool_t use_file_locking, hbool_t ignore_when_disabled),
        (fapl_id, use_file_locking, ignore_when_disabled))
H5_CALL(herr_t, -1, H5Pset_fill_time, (hid_t plist_id, H5D_fill_time_t fill_time), (plist_id, fill_time))
H5_CALL(herr_t, -1, H5Pset_layout, (hid_t plist_id, H5D_layout_t layout), (plist_id, layout))
H5_CALL(herr_t, -1, H5Pset_type_conv_cb, (hid_t dxpl_id, H5T_conv_except_func_t op, void *operate_data),
        (dxpl_id, op, operate_data))
H5_CLOSE(H5Sclose, (hid_t space_id), (space_id))
H5_OPEN(H5Screate, (H5S_class_t type), (type))
H5_OPEN(H5Screate_simple, (int rank, const hsize_t dims[], const hsize_t maxdims[]), (rank, dims, maxdims))
H5_CALL(int, -1, H5Sget_simple_extent_dims, (hid_t space_id, hsize_t dims[], hsize_t maxdims[]),
        (space_id, dims, maxdims))
H5_CALL(int, -1, H5Sget_simple_extent_ndims, (hid_t space_id), (space_id))
H5_CALL(hssize_t, -1, H5Sget_simple_extent_npoints, (hid_t space_id), (space_id))
H5_CALL(H5S_class_t, H5S_NO_CLASS, H5Sget_simple_extent_type, (hid_t space_id), (space_id))
H5_CALL(herr_t, -1, H5Sselect_hyperslab,
        (hid_t space_id, H5S_seloper_t op, const hsize_t start[], const hsize_t stride[],
         const hsize_t count[], const hsize_t block[]),
        (space_id, op, start, stride, count, block))
H5_CALL(herr_t, -1, H5Sset_extent_simple,
        (hid_t space_id, int rank, const hsize_t dims[], const hsize_t max[]), (space_id, rank, dims, max))
H5_CLOSE(H5Tclose, (hid_t type_id), (type_id))
H5_OPEN(H5Tcopy, (hid_t type_id), (type_id))
H5_CALL(htri_t, -1, H5Tequal, (hid_t type1_id, hid_t type2_id), (type1_id, type2_id))
H5_CALL(H5T_class_t, H5T_NO_CLASS, H5Tget_class, (hid_t type_id), (type_id))
H5_CALL(H5T_cset_t, H5T_CSET_ERROR, H5Tget_cset, (hid_t type_id), (type_id))
H5_CALL(H5T_order_t, H5T_ORDER_ERROR, H5Tget_order, (hid_t type_id), (type_id))
H5_CALL(H5T_sign_t, H5T_SGN_ERROR, H5Tget_sign, (hid_t type_id), (type_id))
H5_CALL(size_t, 0, H5Tget_size, (hid_t type_id), (type_id))
H5_CALL(htri_t, -1, H5Tis_variable_str, (hid_t type_id), (type_id))
H5_CALL(herr_t, -1, H5Tset_cset, (hid_t type_id, H5T_cset_t cset), (type_id, cset))
H5_CALL(herr_t, -1, H5Tset_ebias, (hid_t type_id, size_t ebias), (type_id, ebias))
H5_CALL(herr_t, -1, H5Tset_fields,
        (hid_t type_id, size_t spos, size_t epos, size_t esize, size_t mpos, size_t msize),
        (type_id, spos, epos, esize, mpos, msize))
H5_CALL(herr_t, -1, H5Tset_order, (hid_t type_id, H5T_order_t order), (type_id, order))
H5_CALL(herr_t, -1, H5Tset_precision, (hid_t type_id, size_t prec), (type_id, prec))
H5_CALL(herr_t, -1, H5Tset_size, (hid_t type_id, size_t size), (type_id, size))
H5_CALL(herr_t, -1, H5Tset_strpad, (hid_t type_id, H5T_str_t strpad), (type_id, strpad))
H5_CALL(htri_t, -1, H5Zfilter_avail, (H5Z_filter_t id), (id))
