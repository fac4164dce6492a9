#!/bin/sh
# From a fresh clone to exact attention of a real text on 2 MPI ranks (Debian 12). Quick when repeated.
# SPDX-License-Identifier: BSD-3-Clause
set -eu
cd "$(dirname "$0")/.."
say() { printf '== %s\n' "$*"; }
output=build/gpl3-attention.h5

say "Packages (installs what is missing, as root or with sudo)"
./jobs/install-debian.sh build

say "Build in build/release"
mkdir -p build
log=build/quickstart.log
[ -e build/release/CMakeCache.txt ] || set -- -DBUILD_TESTING=OFF
if ! { cmake --preset release "$@" && cmake --build --preset release --parallel "$(nproc)"; } >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    echo "quickstart: error: the build failed; all of its output is in $log" >&2
    exit 1
fi

say "Exact attention of inputs/quickstart.ini on 2 ranks"
root=
if [ "$(id -u)" -eq 0 ]; then # Open MPI asks root to confirm
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    root="OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
fi
export OMPI_MCA_btl_vader_single_copy_mechanism=none # containers may forbid it, and Open MPI then complains
mpirun -n 2 --oversubscribe --bind-to none build/release/bin/longspan attend inputs/quickstart.ini \
    --output.file="$output" --output.overwrite=yes

say "The result: $PWD/$output (/out and /lse; any HDF5 program reads it)"
echo "   look:   build/release/bin/longspan info $output"
echo "   again:  ${root}mpirun -n 2 build/release/bin/longspan attend inputs/quickstart.ini"
