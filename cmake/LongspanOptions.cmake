# What can be chosen at configure time, and the compiler flags of all C files.
# SPDX-License-Identifier: BSD-3-Clause
option(BUILD_SHARED_LIBS "Build liblongspan as a shared library" ON)
option(BUILD_TESTING "Build the tests" ON)
option(LONGSPAN_MAN "Make the man page (needs help2man)" ON)
option(LONGSPAN_PICTURES "longspan map makes pictures (needs cairo)" ON)
option(LONGSPAN_WERROR "Take warnings for errors" OFF)
set(LONGSPAN_SANITIZE "" CACHE STRING "Sanitizers, as for -fsanitize= (address,undefined)")

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON) # gnu17: POSIX declarations without a macro in every file
set(CMAKE_POSITION_INDEPENDENT_CODE ON) # the same objects make the shared library and the tests
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bin")
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/lib")
set(CMAKE_ARCHIVE_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/lib")

# -ffp-contract=off: which products are fused must be the source's choice, or bits would differ
# between compilers.
add_library(longspan_flags INTERFACE)
target_compile_options(longspan_flags INTERFACE -ffp-contract=off -Wall -Wextra -Wconversion -Wshadow)
if(LONGSPAN_WERROR)
    target_compile_options(longspan_flags INTERFACE -Werror)
endif()
if(LONGSPAN_SANITIZE)
    set(sanitize "-fsanitize=${LONGSPAN_SANITIZE}" -fno-sanitize-recover=undefined
                 -fno-omit-frame-pointer)
    target_compile_options(longspan_flags INTERFACE ${sanitize})
    target_link_options(longspan_flags INTERFACE ${sanitize})
endif()
