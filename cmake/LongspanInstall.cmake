# cmake --install: library, headers, command, man page, CMake package, pkg-config file, inputs and jobs.
# SPDX-License-Identifier: BSD-3-Clause
include(CMakePackageConfigHelpers)

set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/longspan")
set(share_dir "${CMAKE_INSTALL_DATADIR}/longspan")
file(RELATIVE_PATH bin_to_lib "${CMAKE_INSTALL_FULL_BINDIR}" "${CMAKE_INSTALL_FULL_LIBDIR}")
set_target_properties(longspan-cli PROPERTIES INSTALL_RPATH "$ORIGIN/${bin_to_lib}")

install(TARGETS longspan EXPORT longspanTargets)
install(TARGETS longspan-cli)
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/longspan" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
        FILES_MATCHING PATTERN "*.h")
install(DIRECTORY "${PROJECT_SOURCE_DIR}/inputs" "${PROJECT_SOURCE_DIR}/jobs" DESTINATION "${share_dir}"
        USE_SOURCE_PERMISSIONS
        PATTERN quickstart.sh EXCLUDE # these two build from the source tree
        PATTERN install-debian.sh EXCLUDE)
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" DESTINATION "${CMAKE_INSTALL_DOCDIR}")

install(EXPORT longspanTargets NAMESPACE longspan:: DESTINATION "${package_dir}")
configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/longspanConfig.cmake.in" longspanConfig.cmake
    INSTALL_DESTINATION "${package_dir}" NO_CHECK_REQUIRED_COMPONENTS_MACRO)
write_basic_package_version_file(longspanConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/longspanConfig.cmake" "${PROJECT_BINARY_DIR}/longspanConfigVersion.cmake"
        DESTINATION "${package_dir}")

# Programs that use pkg-config get MPI from Open MPI's own file (or compile with mpicc).
file(RELATIVE_PATH pc_to_prefix "${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig" "${CMAKE_INSTALL_PREFIX}")
set(pc_requires "ompi-c")
set(pc_libs "-L\${libdir} -llongspan")
if(NOT BUILD_SHARED_LIBS) # a static library brings what it stands on
    string(APPEND pc_requires " openblas libcjson libxxhash")
    list(JOIN LONGSPAN_HDF5_LIBRARIES " " pc_hdf5)
    list(JOIN LONGSPAN_SCALAPACK_LIBRARIES " " pc_scalapack)
    string(APPEND pc_libs " ${pc_hdf5} ${pc_scalapack} ${OpenMP_C_FLAGS} -lm")
endif()
configure_file("${PROJECT_SOURCE_DIR}/cmake/longspan.pc.in" longspan.pc @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/longspan.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")

if(LONGSPAN_MAN)
    # Leaks at exit are not what help2man is to report in a sanitized build.
    add_custom_command(OUTPUT "${PROJECT_BINARY_DIR}/longspan.1"
        COMMAND "${CMAKE_COMMAND}" -E env ASAN_OPTIONS=detect_leaks=0 "${HELP2MAN_EXECUTABLE}" --no-info
                "--name=exact attention over MPI ranks" --output=longspan.1 $<TARGET_FILE:longspan-cli>
        WORKING_DIRECTORY "${PROJECT_BINARY_DIR}"
        DEPENDS longspan-cli VERBATIM)
    add_custom_target(longspan-man ALL DEPENDS "${PROJECT_BINARY_DIR}/longspan.1")
    install(FILES "${PROJECT_BINARY_DIR}/longspan.1" DESTINATION "${CMAKE_INSTALL_MANDIR}/man1")
endif()
