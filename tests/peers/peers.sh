#!/bin/sh
# Longspan beside ONNX Runtime and PyTorch on this machine: prints the README's table.
#   tests/peers/peers.sh [FOLDER] [options of peers.py]     FOLDER: for the Python environment (default: build/peers)
# Wants the command in build/release/bin/longspan, or LONGSPAN_BIN. PYTHON: the Python to make the environment with.
# SPDX-License-Identifier: BSD-3-Clause
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=$root/build/peers
case ${1:-} in
'' | -*) ;;
*)
    folder=$1
    shift
    ;;
esac
export LONGSPAN_BIN="${LONGSPAN_BIN:-$root/build/release/bin/longspan}"
if [ ! -x "$LONGSPAN_BIN" ]; then
    echo "peers.sh: error: there is no command $LONGSPAN_BIN; build it, or set LONGSPAN_BIN" >&2
    exit 2
fi

# What is installed stays: the same versions until the folder is removed.
if ! "$folder/bin/python" -c "import numpy, onnx, onnxruntime, torch" 2>/dev/null; then
    "${PYTHON:-python3}" -m venv "$folder"
    "$folder/bin/pip" install --quiet numpy onnx onnxruntime >&2
    cpu_builds=https://download.pytorch.org/whl/cpu
    if ! "$folder/bin/pip" install --quiet --retries 0 --index-url "$cpu_builds" torch 2>/dev/null; then
        echo "peers.sh: $cpu_builds cannot be reached; installing PyPI's build of torch, some gigabytes" >&2
        "$folder/bin/pip" install --quiet torch >&2
    fi
fi
exec "$folder/bin/python" "$root/tests/peers/peers.py" "$@"
