#!/bin/sh
# Installs what Longspan needs on Debian 12 and does not find installed. Does nothing when all is there.
#   jobs/install-debian.sh [build|test|cross]     test: also what the tests need (default: test); cross: a compiler and
#                                                 an emulator for arm64 alone, which are part of test too
# SPDX-License-Identifier: BSD-3-Clause
set -eu
build="gcc libc6-dev make cmake pkgconf openmpi-bin libopenmpi-dev libhdf5-openmpi-dev libscalapack-openmpi-dev
       libopenblas-dev libinih-dev libcjson-dev libxxhash-dev libcairo2-dev help2man"
tests="libcmocka-dev python3 python3-numpy python3-h5py gnuplot-nox slurm-wlm munge iproute2 libsimgrid-dev"
cross=
[ "$(uname -m)" != x86_64 ] || cross="gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
case ${1:-test} in
build) wanted=$build ;;
test) wanted="$build $tests $cross" ;;
cross) wanted=$cross ;;
*)
    echo "install-debian.sh: usage: install-debian.sh [build|test|cross]" >&2
    exit 2
    ;;
esac

missing=
for package in $wanted; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "install-debian.sh: error: missing packages, and neither root nor sudo to install them; as root:" >&2
        echo "    apt-get install$missing" >&2
        exit 1
    fi
    as_root=sudo
fi
echo "Installing Debian packages:$missing"
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -q
# shellcheck disable=SC2086 # several words
$as_root apt-get install -q -y --no-install-recommends $missing
