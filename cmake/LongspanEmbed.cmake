# Files of the source that the command carries inside it.
# SPDX-License-Identifier: BSD-3-Clause

# Makes a C file in the build folder that defines NAME_text (zero-ended) and NAME_size from FILE; OUT: its path.
function(longspan_embed file header name out)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${file}")
    file(READ "${file}" hex HEX)
    string(LENGTH "${hex}" digits)
    math(EXPR size "${digits} / 2")
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${hex}")
    string(REGEX REPLACE "(('.x[0-9a-f][0-9a-f]',){16})" "\\1\n" bytes "${bytes}")
    get_filename_component(stem "${file}" NAME)
    file(CONFIGURE OUTPUT "${CMAKE_CURRENT_BINARY_DIR}/${stem}.c" @ONLY CONTENT
"/* From ${stem}, by the build. SPDX-License-Identifier: BSD-3-Clause */
#include \"${header}\"

const char ${name}_text[] = {
${bytes}0};
const size_t ${name}_size = ${size};
")
    set(${out} "${CMAKE_CURRENT_BINARY_DIR}/${stem}.c" PARENT_SCOPE)
endfunction()
