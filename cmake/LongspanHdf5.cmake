# Parallel HDF5 on the MPI that was found; a serial one, or one on another MPI, is refused.
# SPDX-License-Identifier: BSD-3-Clause
set(HDF5_ROOT "" CACHE PATH "Prefix of a parallel HDF5 (empty: found by pkg-config)")
set(LONGSPAN_HDF5_PKGCONFIG "hdf5-openmpi;hdf5-mpi;hdf5" CACHE STRING
    "pkg-config names of HDF5, the first one found is taken")

# Makes target longspan_hdf5 and LONGSPAN_HDF5_LIBRARY when there is some HDF5.
function(longspan_find_hdf5)
    set(find_options "")
    if(HDF5_ROOT)
        set(include_hints "${HDF5_ROOT}/include")
        set(library_hints "${HDF5_ROOT}/lib" "${HDF5_ROOT}/lib64")
        set(find_options NO_DEFAULT_PATH)
    else()
        pkg_search_module(longspan_hdf5_pc QUIET ${LONGSPAN_HDF5_PKGCONFIG})
        if(NOT longspan_hdf5_pc_FOUND)
            return()
        endif()
        set(include_hints ${longspan_hdf5_pc_INCLUDE_DIRS})
        set(library_hints ${longspan_hdf5_pc_LIBRARY_DIRS})
    endif()
    # Not cached: another HDF5_ROOT in the same build folder must be looked at again.
    find_path(include_dir NAMES H5pubconf.h HINTS ${include_hints} ${find_options} NO_CACHE)
    find_library(library NAMES hdf5 HINTS ${library_hints} ${find_options} NO_CACHE)
    find_library(scales NAMES hdf5_hl HINTS ${library_hints} ${find_options} NO_CACHE) # dimension scales
    if(NOT include_dir OR NOT library OR NOT scales)
        return()
    endif()
    add_library(longspan_hdf5 INTERFACE)
    target_include_directories(longspan_hdf5 SYSTEM INTERFACE "${include_dir}")
    target_link_libraries(longspan_hdf5 INTERFACE "${scales}" "${library}" MPI::MPI_C)
    set(LONGSPAN_HDF5_INCLUDE_DIR "${include_dir}" PARENT_SCOPE)
    set(LONGSPAN_HDF5_LIBRARY "${library}" PARENT_SCOPE)
    set(LONGSPAN_HDF5_LIBRARIES "${scales}" "${library}" PARENT_SCOPE)
endfunction()

# The MPI library that a shared library loads, as a real path; "" when it loads none.
function(longspan_mpi_of library out)
    execute_process(COMMAND ldd "${library}" OUTPUT_VARIABLE loaded ERROR_QUIET)
    set(${out} "" PARENT_SCOPE)
    if(loaded MATCHES "lib(mpi|mpich|mpi_mt)\\.so[^ ]* => ([^ ]+)")
        file(REAL_PATH "${CMAKE_MATCH_2}" path)
        set(${out} "${path}" PARENT_SCOPE)
    endif()
endfunction()

function(longspan_check_hdf5)
    set(remedy "Longspan needs a parallel HDF5 built on the same Open MPI (Debian: libhdf5-openmpi-dev); "
               "choose it with -DHDF5_ROOT=PREFIX or -DLONGSPAN_HDF5_PKGCONFIG=NAME.")
    string(CONCAT remedy ${remedy})
    try_compile(parallel "${PROJECT_BINARY_DIR}/configure/hdf5"
        "${PROJECT_SOURCE_DIR}/cmake/check_hdf5_parallel.c"
        CMAKE_FLAGS "-DINCLUDE_DIRECTORIES=${LONGSPAN_HDF5_INCLUDE_DIR}")
    if(NOT parallel)
        message(FATAL_ERROR "The HDF5 in ${LONGSPAN_HDF5_INCLUDE_DIR} is serial (no H5_HAVE_PARALLEL). ${remedy}")
    endif()

    if(LONGSPAN_HDF5_LIBRARY MATCHES "\\.a$")
        # A static library loads nothing, but one built on Open MPI refers to its constants.
        execute_process(COMMAND "${CMAKE_NM}" -u "${LONGSPAN_HDF5_LIBRARY}" OUTPUT_VARIABLE symbols ERROR_QUIET)
        if(NOT symbols MATCHES "ompi_mpi_")
            message(FATAL_ERROR "${LONGSPAN_HDF5_LIBRARY} was not built on Open MPI. ${remedy}")
        endif()
        return()
    endif()
    longspan_mpi_of("${LONGSPAN_HDF5_LIBRARY}" theirs)
    set(ours "")
    foreach(library IN LISTS MPI_C_LIBRARIES)
        if(library MATCHES "libmpi[^/]*$")
            file(REAL_PATH "${library}" path)
            list(APPEND ours "${path}")
        endif()
    endforeach()
    if(NOT theirs IN_LIST ours)
        message(FATAL_ERROR "${LONGSPAN_HDF5_LIBRARY} was built on another MPI (${theirs}) "
            "than the one found (${ours}). ${remedy}")
    endif()
endfunction()
