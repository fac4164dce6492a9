#!/bin/sh
# Installs what is missing (Debian 12), builds, runs all tests. Quick when repeated.
# SPDX-License-Identifier: BSD-3-Clause
set -eu
cd "$(dirname "$0")/.."
./jobs/install-debian.sh test
cmake --preset release -DBUILD_TESTING=ON -DLONGSPAN_WERROR=ON
cmake --build --preset release --parallel "$(nproc)"
if ctest --preset release --parallel "$(nproc)" "$@"; then
    echo "tests: PASSED"
else
    echo "tests: FAILED (see above; one again: ctest --preset release -R NAME)" >&2
    exit 1
fi
