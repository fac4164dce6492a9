# ScaLAPACK on the MPI that was found.
# SPDX-License-Identifier: BSD-3-Clause

# Makes target longspan_scalapack and LONGSPAN_SCALAPACK_LIBRARIES from what pkg-config found. Of what its
# file requires, MPI and BLAS are those that Longspan found itself: where several are installed, that file
# may name others.
function(longspan_find_scalapack)
    set(libraries "${SCALAPACK_LINK_LIBRARIES}")
    list(FILTER libraries INCLUDE REGEX "(scalapack|blacs)[^/]*$")
    if(NOT libraries)
        set(libraries "${SCALAPACK_LINK_LIBRARIES}") # one with its own BLAS, under another name
    endif()
    add_library(longspan_scalapack INTERFACE)
    target_link_libraries(longspan_scalapack INTERFACE ${libraries} MPI::MPI_C)
    target_compile_definitions(longspan_scalapack INTERFACE LSP_SCALAPACK_VERSION="${SCALAPACK_VERSION}")
    set(LONGSPAN_SCALAPACK_LIBRARIES "${libraries}" PARENT_SCOPE)
endfunction()

function(longspan_check_scalapack)
    set(ours "")
    foreach(library IN LISTS MPI_C_LIBRARIES)
        if(library MATCHES "libmpi[^/]*$")
            file(REAL_PATH "${library}" path)
            list(APPEND ours "${path}")
        endif()
    endforeach()
    foreach(library IN LISTS LONGSPAN_SCALAPACK_LIBRARIES)
        if(NOT library MATCHES "\\.so")
            continue() # a static one loads nothing
        endif()
        longspan_mpi_of("${library}" theirs)
        if(theirs AND NOT theirs IN_LIST ours)
            message(FATAL_ERROR "${library} was built on another MPI (${theirs}) than the one found (${ours}). "
                "Longspan needs a ScaLAPACK on the same Open MPI (Debian: libscalapack-openmpi-dev); choose it "
                "with -DLONGSPAN_SCALAPACK_PKGCONFIG=NAME.")
        endif()
    endforeach()
endfunction()
