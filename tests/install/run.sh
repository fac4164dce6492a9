#!/bin/sh
# Installs into an empty prefix, then builds and runs a program outside the tree against it, once by
# find_package and once by pkg-config.
#   run.sh CMAKE BUILD WORK CC LIBDIR [SANITIZERS]
# SPDX-License-Identifier: BSD-3-Clause
set -eu
cmake=$1 build=$2 work=$3 cc=$4 libdir=$5 sanitizers=${6-}
here=$(cd "$(dirname "$0")" && pwd)
prefix=$work/prefix
if [ -n "$sanitizers" ]; then CFLAGS="-fsanitize=$sanitizers"; else CFLAGS=; fi
export CFLAGS

run() { # program: on 2 ranks, and it must say so
    "$MPIEXEC" -n 2 "$@" >"$work/log" || { cat "$work/log"; echo "install: $1 failed" >&2; exit 1; }
    cat "$work/log"
    grep -q '2 ranks, 74 rows' "$work/log" || { echo "install: $1 did not run on 2 ranks" >&2; exit 1; }
}

rm -rf "$work"
mkdir -p "$work"
"$cmake" --install "$build" --prefix "$prefix" >"$work/install.log"
for file in bin/longspan include/longspan/longspan.h "$libdir/cmake/longspan/longspanConfig.cmake" \
    "$libdir/pkgconfig/longspan.pc" share/longspan/inputs/quickstart.ini; do
    [ -e "$prefix/$file" ] || { echo "install: $file is missing" >&2; exit 1; }
done

# The installed command finds its own library.
"$prefix/bin/longspan" --version
if [ -e "$build/longspan.1" ]; then
    grep -q '^\.SH' "$prefix/share/man/man1/longspan.1"
fi

"$cmake" -S "$here/program" -B "$work/program" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$cc" \
    -DCMAKE_C_FLAGS="$CFLAGS" >"$work/configure.log"
"$cmake" --build "$work/program"
run "$work/program/outside"

export PKG_CONFIG_PATH="$prefix/$libdir/pkgconfig"
flags=$(pkg-config --cflags --libs longspan)
# shellcheck disable=SC2086 # several words
"$cc" $CFLAGS "$here"/program/*.c -o "$work/outside" $flags -lm
LD_LIBRARY_PATH="$prefix/$libdir${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export LD_LIBRARY_PATH
run "$work/outside"
echo "install: find_package and pkg-config both work"
