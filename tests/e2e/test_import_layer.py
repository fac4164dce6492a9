#!/usr/bin/env python3
"""A trained model's layer, imported and run: MiniLM-L6 on a real text against PyTorch's result (tests/data).

SPDX-License-Identifier: BSD-3-Clause
"""

import os
import unittest

import h5py
import numpy as np
from common import Case, oracle, text
from foreign import write_safetensors

import layer_oracle

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data")
LIMIT = 1e-5  # relative; measured: 7e-7, 1.2e-6 for the worst row


class Trained(Case):
    def import_all(self, ranks, **keys):
        output = self.fresh("layer.h5")
        self.run_ok("import", ranks, {"output.file": output, **{key.replace("__", "."): keys[key] for key in keys}})
        return output

    def run_layer(self, source, ranks, **keys):
        output = self.fresh("y.h5")
        keys = {key.replace("__", "."): value for key, value in keys.items()}
        self.run_ok("layer", ranks, {"input.file": source, "input.weights": source, "output.file": output, **keys})
        with h5py.File(output) as file:
            return file["y"][...], text(file["y"].attrs["xxh64"])

    def test_minilm(self):
        expected = np.load(os.path.join(DATA, "minilm-y.npy")).astype(np.float64)
        sums = set()
        for ranks in (1, 2, 3):
            source = self.import_all(
                ranks,
                import__source=os.path.join(DATA, "minilm-layer3.safetensors"),
                import__arrays="x=" + os.path.join(DATA, "minilm-x.npy"),
                import__heads=12,
            )
            y, checksum = self.run_layer(source, ranks, layer__heads=12)
            sums.add(checksum)
            self.near(y, expected, LIMIT, f"{ranks} ranks")
            worst = np.linalg.norm(y - expected, axis=1) / np.linalg.norm(expected, axis=1)
            self.assertLessEqual(worst.max(), LIMIT, f"row {worst.argmax()} on {ranks} ranks")
        self.assertEqual(len(sums), 1, "bits differ between ranks")

    def test_grouped_with_norms(self):
        """A layer as Qwen3 has it: grouped heads, norms of q and k, rotary positions."""
        random = np.random.default_rng(5)
        d_model, heads, kv_heads, size = 40, 6, 2, 8
        made = {
            "q_proj.weight": random.standard_normal((heads * size, d_model)) / np.sqrt(d_model),
            "k_proj.weight": random.standard_normal((kv_heads * size, d_model)) / np.sqrt(d_model),
            "v_proj.weight": random.standard_normal((kv_heads * size, d_model)) / np.sqrt(d_model),
            "o_proj.weight": random.standard_normal((d_model, heads * size)) / np.sqrt(heads * size),
            "q_norm.weight": 1 + random.standard_normal(size) / 4,
            "k_norm.weight": 1 + random.standard_normal(size) / 4,
        }
        x = random.standard_normal((131, d_model)).astype("<f4")
        np.save(self.path("x.npy"), x)
        write_safetensors(
            self.path("m.safetensors"), {"model.layers.4.self_attn." + name: (w, "F32") for name, w in made.items()}
        )
        made = {name: w.astype("<f4").astype(float) for name, w in made.items()}
        weights = {
            "qkv_proj.weight": np.concatenate([made[f"{part}_proj.weight"] for part in "qkv"]),
            "out_proj.weight": made["o_proj.weight"],
            "q_norm.weight": made["q_norm.weight"],
            "k_norm.weight": made["k_norm.weight"],
        }
        rule = {"qk_norm": True, "rope_base": 1e6, "mask": "causal"}
        expected = layer_oracle.layer(x.astype(float), weights, heads, kv_heads, **rule)
        source = self.import_all(
            2, import__source=self.path("m.safetensors"), import__layer=4, import__arrays=f"x={self.path('x.npy')}"
        )
        y, _ = self.run_layer(
            source,
            3,
            layer__heads=heads,
            layer__kv_heads=kv_heads,
            layer__qk_norm="yes",
            layer__rope_base=1e6,
            attention__mask="causal",
        )
        self.near(y, expected, LIMIT)


if __name__ == "__main__":
    unittest.main()
