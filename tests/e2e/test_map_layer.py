#!/usr/bin/env python3
"""`longspan map` of a layer's input: the map of q and k that NumPy projects, on any number of ranks.

SPDX-License-Identifier: BSD-3-Clause
"""

import json
import os
import unittest

import h5py
import numpy as np
from common import error_lines, run
from test_layer import LayerCase, make_rows, make_weights

import layer_oracle
import oracle

USAGE, CONTENT = 2, 3


def heads_of(x, weights, heads, kv_heads, context=None, rope_base=0.0, rope_pairing="half", norm=False):
    """q [B, heads, n, d] and k [B, kv_heads, m, d] in double."""
    x = x[None] if x.ndim == 2 else x
    context = x if context is None else context[None] if context.ndim == 2 else context
    weight, bias = weights["qkv_proj.weight"], weights.get("qkv_proj.bias", 0)
    d = len(weight) // (heads + 2 * kv_heads)
    bias = np.broadcast_to(bias, len(weight))
    first, second = heads * d, (heads + kv_heads) * d
    q = layer_oracle.split_heads(x @ weight[:first].T + bias[:first], heads)
    k = layer_oracle.split_heads(context @ weight[first:second].T + bias[first:second], kv_heads)
    if norm:
        q = layer_oracle.rms_norm(q, weights["q_norm.weight"], 1e-6)
        k = layer_oracle.rms_norm(k, weights["k_norm.weight"], 1e-6)
    if rope_base:
        n, m = x.shape[1], context.shape[1]
        at = np.arange(n) + (m - n if context is not x else 0)
        q = layer_oracle.rotate(q, at, rope_base, rope_pairing)
        k = layer_oracle.rotate(k, np.arange(m), rope_base, rope_pairing)
    return q, k


def weights_of(q, k, **rule):
    identity = np.broadcast_to(np.eye(k.shape[2]), k.shape[:2] + (k.shape[2],) * 2)
    return oracle.attention(q, k, identity, **rule)[0]


class MapLayer(LayerCase):
    def map(self, source, ranks, **keys):
        output, report = self.fresh("map.h5"), self.fresh("report.json")
        keys = {key.replace("__", "."): value for key, value in keys.items()}
        keys = {"input.file": source, "output.file": output, "report.json": report, **keys}
        self.told = self.run_ok("map", ranks, keys)
        data = {}
        with h5py.File(output) as file, open(report, encoding="utf-8") as told:
            file["map"].visititems(lambda name, o: data.update({name: o[...]}) if isinstance(o, h5py.Dataset) else None)
            return data, json.load(told)

    def check(self, w, source, ranks=(1, 3), limit=1e-5, **keys):
        """w [B, H, n, m]; the same bits on all of these ranks."""
        first = None
        for count in ranks:
            data, report = self.map(source, count, map__pixels=4096, **keys)
            self.assertTrue(report["verify"]["passed"])
            if first is None:
                first = data
                np.testing.assert_allclose(data["mean"].reshape(w.shape), w, atol=limit, err_msg=str(keys))
                np.testing.assert_allclose(data["column_mass"].reshape(w.sum(2).shape), w.sum(2), atol=limit * w.shape[2])
                with np.errstate(divide="ignore", invalid="ignore"):
                    entropy = -np.where(w > 0, w * np.log(w), 0).sum(3)
                np.testing.assert_allclose(data["entropy"].reshape(entropy.shape), entropy, atol=4 * limit)
            for name, values in data.items():
                np.testing.assert_array_equal(first[name], values, f"{name} on {count} ranks, {keys}")
        return first, report

    def test_self_attention_on_any_ranks(self):
        weights, x = make_weights(24, 4, 4, 8), make_rows((611, 24))
        source = self.write("in.h5", weights=weights, x=x)
        q, k = heads_of(x, weights, 4, 4)
        data, report = self.check(weights_of(q, k), source, (1, 2, 3, 7), layer__heads=4)
        self.assertEqual(data["mean"].shape, (4, 611, 611))
        self.assertEqual(report["shape"]["d_k"], 8)
        self.assertEqual(report["layer"]["weights"], source)
        self.assertGreaterEqual(report["layer"]["seconds_project"], 0)
        self.assertIn("through the weights", self.told.stdout)

    def test_grouped_rotated_normed_batches(self):
        weights, x = make_weights(20, 6, 2, 10, norm=True), make_rows((2, 97, 20))
        source = self.write("in.h5", weights=weights, x=x)
        q, k = heads_of(x, weights, 6, 2, rope_base=1e4, rope_pairing="interleaved", norm=True)
        layer = dict(layer__heads=6, layer__kv_heads=2, layer__rope_base=1e4, layer__rope_pairing="interleaved",
                     layer__qk_norm="yes", attention__mask="causal")
        w = weights_of(q, k, mask="causal")
        data, _ = self.check(w, source, **layer)
        self.assertEqual(data["mean"].shape, (2, 6, 97, 97))
        self.check(w[:, [5, 0]], source, (1, 2), input__heads="5,0", **layer)

    def test_cross_attention_weights_elsewhere_and_a_part(self):
        weights, x, context = make_weights(16, 2, 1, 6, bias=False), make_rows((50, 16)), make_rows((83, 16), 3)
        elsewhere = self.write("weights.h5", "f64", group="model/layer.0", weights=weights)
        source = self.write("in.h5", "f64", x=x, context=context)
        q, k = heads_of(x, weights, 2, 1, context, rope_base=500.0)
        keys = dict(input__weights=f"{elsewhere}:/model/layer.0", input__context="/context", layer__heads=2,
                    layer__kv_heads=1, layer__rope_base=500, compute__dtype="f64")
        self.check(weights_of(q, k), source, (1, 3), 1e-9, **keys)
        part = weights_of(q, k, rows=(7, 41), keys=(10, 70))[..., 10:70]
        self.check(part, source, (2,), 1e-9, input__rows="7:41", input__keys="10:70", **keys)

    def test_as_q_and_k_in_a_file(self):
        """The bits of a map do not depend on where q and k come from."""
        weights, x = make_weights(24, 3, 3, 8), make_rows((200, 24))
        for name in ("qkv_proj.weight", "qkv_proj.bias"):  # projections are exact in f32
            weights[name] = np.round(weights[name] * 64) / 64
        x = np.round(x * 64) / 64
        source = self.write("in.h5", weights=weights, x=x)
        q, k = heads_of(x, weights, 3, 3)
        with h5py.File(self.path("qk.h5"), "w") as file:
            file["q"], file["k"] = q[0].astype("f4"), k[0].astype("f4")
        one, _ = self.map(source, 2, layer__heads=3)
        other, _ = self.map(self.path("qk.h5"), 2)
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name], name)

    def refused(self, code, wanted, **keys):
        keys = {key.replace("__", "."): value for key, value in keys.items()}
        keys = {"output.file": self.fresh("refused.h5"), **keys}
        before = sorted(os.listdir(self.folder))
        result = run("map", 2, *[f"--{key}={value}" for key, value in keys.items()])
        self.assertEqual(result.returncode, code, f"{keys}\n{result.stdout}\n{result.stderr}")
        lines = error_lines(result)
        self.assertEqual(len(lines), 1, lines)
        for text in wanted:
            self.assertIn(text, lines[0])
        self.assertEqual(sorted(os.listdir(self.folder)), before, "something was left behind")

    def test_bad_input(self):
        weights, x = make_weights(24, 4, 4, 8), make_rows((40, 24))
        source = self.write("in.h5", weights=weights, x=x)
        self.refused(USAGE, ("input.q", "layer.heads", "leave one out"), input__file=source, input__q="/x", layer__heads=4)
        self.refused(USAGE, ("input.k", "input.x"), input__file=source, input__k="/x", input__x="/x")
        self.refused(USAGE, ("layer.heads",), input__file=source, input__x="/x")
        self.refused(CONTENT, ("qkv_proj.weight", "layer.heads"), input__file=source, layer__heads=5)
        self.refused(CONTENT, ("/y",), input__file=source, input__x="/y", layer__heads=4)
        self.refused(USAGE, ("attention.method",), input__file=source, layer__heads=4, attention__method="topk",
                     attention__topk=3)
        self.refused(USAGE, ("input.heads",), input__file=source, layer__heads=4, input__heads="4")
        self.refused(USAGE, ("is an input",), input__file=source, layer__heads=4, output__file=source)
        x[3, 2] = np.inf
        self.refused(CONTENT, ("NaN",), input__file=self.write("inf.h5", weights=weights, x=x), layer__heads=4)


if __name__ == "__main__":
    unittest.main()
