#!/bin/sh
# `longspan svd` beside SLEPc's trlanczos and ScaLAPACK's pdgesvd on this machine: prints the README's tables.
#   tests/peers/slepc/slepc.sh [FOLDER] [options of slepc.py]     FOLDER: for the program and operands (default: build/slepc)
# Wants the command in build/release/bin/longspan, or LONGSPAN_BIN; and SLEPc (Debian: libslepc-real-dev). PYTHON: one
# that has NumPy and h5py.
# SPDX-License-Identifier: BSD-3-Clause
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
folder=$root/build/slepc
case ${1:-} in
'' | -*) ;;
*)
    folder=$1
    shift
    ;;
esac
export LONGSPAN_BIN="${LONGSPAN_BIN:-$root/build/release/bin/longspan}"
if [ ! -x "$LONGSPAN_BIN" ]; then
    echo "slepc.sh: error: there is no command $LONGSPAN_BIN; build it, or set LONGSPAN_BIN" >&2
    exit 2
fi
if ! pkg-config --exists slepc; then
    echo "slepc.sh: error: SLEPc is missing (Debian: libslepc-real-dev)" >&2
    exit 2
fi
mkdir -p "$folder"
# shellcheck disable=SC2046 # several words
mpicc -O3 -march=native -fno-math-errno -fopenmp-simd -std=gnu17 -Wall -Wextra "$here/slepc_svd.c" -o "$folder/slepc_svd" \
    $(pkg-config --cflags --libs slepc petsc) -lm
exec "${PYTHON:-/usr/bin/python3}" "$here/slepc.py" "$folder" "$@"
