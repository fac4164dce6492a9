#!/bin/sh
# The base and kernel floors on arm64: built by a cross compiler, the kernels' unit tests run in an emulator, and the
# portable kernels' bits compared with this machine's. Installs the Debian packages it lacks.
#   tests/cross/run.sh FOLDER KERNEL_BITS MPI_INCLUDE_DIR...
# FOLDER: for what is built; KERNEL_BITS: this machine's build of kernel_bits.c. Of MPI only types in headers are used.
# SPDX-License-Identifier: BSD-3-Clause
set -eu
source=$(cd "$(dirname "$0")/../.." && pwd)
if [ $# -lt 3 ]; then
    echo "run.sh: usage: tests/cross/run.sh FOLDER KERNEL_BITS MPI_INCLUDE_DIR..." >&2
    exit 2
fi
folder=$1 bits=$2
shift 2
"$source/jobs/install-debian.sh" cross
mkdir -p "$folder"
cd "$folder"

includes="-I$source/tests/cross -I$source/src -I$source/include"
for directory in "$@"; do includes="$includes -isystem $directory"; done
# The project's flags, and warnings as errors.
flags="-std=gnu17 -O3 -ffp-contract=off -Wall -Wextra -Wconversion -Wshadow -Werror"

objects=
for file in "$source"/src/base/*.c "$source"/src/kernel/*.c; do
    object=$(basename "$file" .c).o
    # shellcheck disable=SC2086 # several words
    aarch64-linux-gnu-gcc $flags $includes -c "$file" -o "$object"
    objects="$objects $object"
done

# Not vectorised themselves: Debian 12's compiler fails over a loop of test_kernel_maxima.c.
units="test_kernel test_kernel_plain test_kernel_maxima test_kernel_pack test_kernel_parts test_map_kernel test_mask test_select"
for name in $units kernel_bits; do
    program=../unit/$name
    if [ "$name" = kernel_bits ]; then program=kernel_bits; fi
    # shellcheck disable=SC2086
    aarch64-linux-gnu-gcc $flags -fno-tree-vectorize $includes -static "$source/tests/cross/$program.c" $objects \
        -lm -o "$name"
    echo "== $name on arm64"
    if [ "$name" = kernel_bits ]; then
        qemu-aarch64 ./kernel_bits >arm64.txt
    else
        qemu-aarch64 "./$name"
    fi
done

"$bits" >here.txt
if ! diff here.txt arm64.txt; then
    echo "run.sh: error: the portable kernels give other bits on arm64 (>) than here (<)" >&2
    exit 1
fi
echo "portable kernels: $(wc -l <here.txt) results, the same bits on arm64 as here"
