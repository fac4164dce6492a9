#!/bin/sh
# Fuzzes the parsers of safetensors and .npy with libFuzzer under the address and undefined-behaviour sanitizers.
#   tests/fuzz/run.sh [SECONDS] [FOLDER]     default: 60, build/fuzz; what is found stays in FOLDER
# Wants clang with its runtime (Debian: clang libclang-rt-14-dev). cJSON's source beside it (CJSON_SOURCE=FILE.c) is
# compiled in, so that the sanitizers see it too.
# SPDX-License-Identifier: BSD-3-Clause
set -eu
seconds=${1:-60}
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=${2:-$root/build/fuzz}
mkdir -p "$folder/corpus"
cjson=${CJSON_SOURCE:--lcjson}
flags="-g -O1 -std=gnu17 -I$root/src -I$root/include -I$root/tests/fuzz $(pkg-config --cflags ompi-c libcjson)"
flags="$flags -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
sources="$root/src/store/foreign.c $root/src/store/foreign_read.c $root/src/store/safetensors.c $root/src/store/npy.c
         $root/src/base/error.c $root/src/base/memory.c $root/src/base/convert.c $root/src/base/dtype.c
         $root/tests/fuzz/fuzz_foreign.c $root/tests/fuzz/no_context.c"
# shellcheck disable=SC2086 # several words
"${CC:-clang}" $flags $sources "$root/tests/fuzz/mutate.c" $cjson -lm -o "$folder/mutate"
# shellcheck disable=SC2086
"${CC:-clang}" $flags -fsanitize=fuzzer $sources $cjson -lm -o "$folder/fuzz_foreign"
"$folder/mutate" 200000
"$folder/mutate" 0 "$folder/corpus"
cd "$folder"
exec ./fuzz_foreign -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 corpus
