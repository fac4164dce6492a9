#!/usr/bin/env python3
"""`longspan layer` against NumPy in double precision: projections, heads, positions, methods, cross-attention.

SPDX-License-Identifier: BSD-3-Clause
"""

import json
import unittest

import h5py
import numpy as np
from common import Case, error_lines, oracle, run, text, write_dataset

import layer_oracle

USAGE, CONTENT, VERIFY, LIMIT, FILE = 2, 3, 4, 5, 6


def make_weights(d_model, heads, kv_heads, head_dim, bias=True, norm=False, seed=1):
    random = np.random.default_rng(seed)
    columns = (heads + 2 * kv_heads) * head_dim
    weights = {
        "qkv_proj.weight": random.standard_normal((columns, d_model)) / np.sqrt(d_model),
        "out_proj.weight": random.standard_normal((d_model, heads * head_dim)) / np.sqrt(heads * head_dim),
    }
    if bias:
        weights["qkv_proj.bias"] = random.standard_normal(columns) / 4
        weights["out_proj.bias"] = random.standard_normal(d_model) / 4
    if norm:
        weights["q_norm.weight"] = 1 + random.standard_normal(head_dim) / 4
        weights["k_norm.weight"] = 1 + random.standard_normal(head_dim) / 4
    return {name: value.astype(np.float32).astype(np.float64) for name, value in weights.items()}


def make_rows(shape, seed=2):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32).astype(np.float64)


class LayerCase(Case):
    def write(self, name, dtype="f32", group="", weights=None, tables=None, **rows):
        """A file of rows, weights (in a group) and int64 tables."""
        path = self.path(name)
        with h5py.File(path, "w") as file:
            for key, x in rows.items():
                write_dataset(file, key, x, dtype)
            for key, x in (weights or {}).items():
                write_dataset(file, f"{group}/{key}", x, dtype)
            for key, values in (tables or {}).items():
                file[key] = np.array(values, "<i8")
        return path

    def layer(self, source, ranks=1, **keys):
        """(y, its checksum, report); keys as section__key=value."""
        output, report = self.fresh("y.h5"), self.fresh("report.json")
        keys = {key.replace("__", "."): value for key, value in keys.items()}
        keys = {"input.file": source, "output.file": output, "report.json": report, **keys}
        self.told = self.run_ok("layer", ranks, keys)
        with h5py.File(output) as file, open(report, encoding="utf-8") as told:
            return file["y"][...], int(file["y"].attrs["xxh64"], 16), json.load(told)

    def check(self, ranks=(1, 3), limit=2e-6, dtype="f32", x=None, context=None, weights=None, rule=None, **keys):
        """Against the oracle, with the same bits on these ranks. rule: what the oracle is told, besides the heads."""
        rows = {"x": x} if context is None else {"x": x, "context": context}
        source = self.write("in.h5", dtype, weights=weights, tables=keys.pop("tables", None), **rows)
        if context is not None:
            keys["input__context"] = "/context"
        heads, kv_heads = keys["layer__heads"], keys.get("layer__kv_heads")
        expected = layer_oracle.layer(x, weights, heads, kv_heads, context, **(rule or {}))
        sums = set()
        for count in ranks:
            y, checksum, report = self.layer(source, count, **keys)
            self.near(y, expected, limit, f"{keys} on {count} ranks")
            self.assertTrue(report["verify"]["passed"])
            sums.add(checksum)
        self.assertEqual(len(sums), 1, f"{keys}: bits differ between {ranks} ranks")
        return report


class Plain(LayerCase):
    def test_self_attention(self):
        weights = make_weights(48, 3, 3, 16)
        report = self.check(ranks=(1, 2, 3), x=make_rows((601, 48)), weights=weights, layer__heads=3)
        self.assertEqual(report["command"], "layer")
        self.assertEqual(report["shape"], dict(batch=1, heads=3, kv_heads=3, n=601, m=601, d_k=16, d_v=16))
        self.assertTrue(report["verify"]["end_to_end"])
        for phase in ("read", "project", "compute", "gather_exposed", "write", "total"):
            self.assertGreaterEqual(report["seconds"][phase], 0, phase)
        self.assertEqual(report["project_flops"], 2 * 601 * 4 * 48 * 48)

    def test_threads_give_the_same_bits(self):
        source = self.write("in.h5", x=make_rows((700, 40)), weights=make_weights(40, 5, 5, 8))
        sums = {
            self.layer(source, ranks, layer__heads=5, compute__threads=threads)[1]
            for ranks, threads in ((1, 1), (1, 3), (2, 2))
        }
        self.assertEqual(len(sums), 1)

    def test_output(self):
        x = make_rows((2, 37, 24))
        source = self.write("in.h5", x=x, weights=make_weights(24, 2, 2, 12))
        y, checksum, report = self.layer(source, 2, layer__heads=2)
        self.assertEqual(y.dtype, np.float32)
        self.assertEqual(oracle.checksum(y), checksum)
        self.assertEqual(int(report["output_xxh64"], 16), checksum)
        with h5py.File(report["output"]) as file:
            self.assertEqual(text(file.attrs["command"]), "layer")
            self.assertEqual(int(file.attrs["head_dim"]), 12)
        result = run("verify", 1, report["output"])
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_batch(self):
        self.check(x=make_rows((3, 131, 40)), weights=make_weights(40, 4, 4, 10), layer__heads=4)

    def test_more_ranks_than_rows(self):
        self.check(ranks=(1, 4), x=make_rows((3, 20)), weights=make_weights(20, 2, 2, 10), layer__heads=2)
        self.check(ranks=(1, 3), x=make_rows((1, 7)), weights=make_weights(7, 1, 1, 5), layer__heads=1)

    def test_primes(self):
        self.check(x=make_rows((769, 37)), weights=make_weights(37, 5, 5, 7), layer__heads=5)

    def test_f64(self):
        weights, x = make_weights(40, 4, 4, 10), make_rows((300, 40))
        for dtype in ("f32", "f64"):
            self.check(limit=1e-13, dtype=dtype, x=x, weights=weights, layer__heads=4, compute__dtype="f64")
        self.check(dtype="f64", x=x, weights=weights, layer__heads=4)

    def test_bf16(self):
        self.check(
            limit=1e-2, x=make_rows((300, 64)), weights=make_weights(64, 2, 2, 32), layer__heads=2, compute__dtype="bf16"
        )

    def test_wide_columns(self):
        """More columns than one product takes; head_dim apart from d_model / heads."""
        self.check(ranks=(1, 2), x=make_rows((300, 100)), weights=make_weights(100, 9, 9, 48), layer__heads=9)


class Weights(LayerCase):
    def test_biases(self):
        x, weights = make_rows((90, 24)), make_weights(24, 3, 3, 8)
        bare = {name: value for name, value in weights.items() if "bias" not in name}
        half = {name: value for name, value in weights.items() if name != "out_proj.bias"}
        for given in (weights, bare, half):
            self.check(ranks=(1, 2), x=x, weights=given, layer__heads=3)
        source = self.write("biased.h5", x=x, weights=weights)
        y, _, report = self.layer(source, 1, layer__heads=3, layer__bias="no")
        self.near(y, layer_oracle.layer(x, bare, 3), 2e-6)
        self.assertFalse(report["layer"]["qkv_bias"])
        self.layer(source, 1, layer__heads=3, layer__bias="yes")

    def test_another_file_and_group(self):
        x, weights = make_rows((90, 24)), make_weights(24, 3, 3, 8)
        expected = layer_oracle.layer(x, weights, 3)
        source = self.write("rows.h5", x=x)
        apart = self.write("w.h5", weights=weights)
        grouped = self.write("g.h5", "f64", group="model/layer.3", weights=weights)
        for where in (apart, f"{grouped}:/model/layer.3", f"{grouped}:/model/layer.3/"):
            y, _, _ = self.layer(source, 2, layer__heads=3, input__weights=where)
            self.near(y, expected, 2e-6, where)

    def test_x_elsewhere(self):
        x, weights = make_rows((90, 24)), make_weights(24, 3, 3, 8)
        rows = self.write("rows.h5", hidden=x)
        apart = self.write("w.h5", weights=weights)
        y, _, _ = self.layer(apart, 1, layer__heads=3, input__x=f"{rows}:/hidden")
        self.near(y, layer_oracle.layer(x, weights, 3), 2e-6)

    def test_grouped_queries(self):
        for heads, kv_heads in ((6, 2), (4, 1)):
            self.check(
                x=make_rows((333, 36)),
                weights=make_weights(36, heads, kv_heads, 12),
                layer__heads=heads,
                layer__kv_heads=kv_heads,
            )


class Positions(LayerCase):
    def test_rotary(self):
        x, weights = make_rows((531, 40)), make_weights(40, 4, 2, 10)
        for pairing in ("half", "interleaved"):
            for base in (10000, 37.5):
                self.check(
                    x=x,
                    weights=weights,
                    rule=dict(rope_base=base, rope_pairing=pairing, mask="causal"),
                    layer__heads=4,
                    layer__kv_heads=2,
                    layer__rope_base=base,
                    layer__rope_pairing=pairing,
                    attention__mask="causal",
                )

    def test_rotary_changes_with_the_pairing(self):
        source = self.write("in.h5", x=make_rows((50, 40)), weights=make_weights(40, 4, 4, 10))
        sums = {
            self.layer(source, 1, layer__heads=4, **more)[1]
            for more in (
                {},
                dict(layer__rope_base=10000),
                dict(layer__rope_base=10000, layer__rope_pairing="interleaved"),
            )
        }
        self.assertEqual(len(sums), 3)

    def test_rotary_in_double(self):
        self.check(
            limit=1e-12,
            x=make_rows((2, 300, 24)),
            weights=make_weights(24, 2, 2, 12),
            rule=dict(rope_base=500000),
            layer__heads=2,
            layer__rope_base=500000,
            compute__dtype="f64",
        )

    def test_norm(self):
        x = make_rows((270, 40))
        for norm in (False, True):
            self.check(
                x=x,
                weights=make_weights(40, 4, 2, 10, norm=norm),
                rule=dict(qk_norm=True, rope_base=10000),
                layer__heads=4,
                layer__kv_heads=2,
                layer__qk_norm="yes",
                layer__rope_base=10000,
            )
        self.check(
            x=x * 0.01,
            weights=make_weights(40, 4, 4, 10, bias=False),
            rule=dict(qk_norm=True, qk_norm_eps=1e-3),
            layer__heads=4,
            layer__qk_norm="yes",
            layer__qk_norm_eps=1e-3,
        )


class Rules(LayerCase):
    x, weights = make_rows((601, 32)), make_weights(32, 4, 4, 8)

    def test_causal(self):
        for partition in ("auto", "contiguous", "balanced"):
            self.check(
                ranks=(1, 2, 3),
                x=self.x,
                weights=self.weights,
                rule=dict(mask="causal"),
                layer__heads=4,
                attention__mask="causal",
                compute__partition=partition,
            )

    def test_window_and_alibi(self):
        self.check(
            x=self.x,
            weights=self.weights,
            rule=dict(mask="window", window_left=40, window_right=3, alibi=True),
            layer__heads=4,
            attention__mask="window",
            attention__window_left=40,
            attention__window_right=3,
            attention__alibi="yes",
        )

    def test_documents(self):
        documents = [0, 100, 333, 601]
        self.check(
            x=self.x,
            weights=self.weights,
            tables=dict(docs=documents),
            rule=dict(mask="causal", documents=documents, rope_base=10000),
            layer__heads=4,
            layer__rope_base=10000,
            attention__mask="causal",
            input__documents="/docs",
        )

    def test_key_lengths(self):
        self.check(
            x=make_rows((3, 90, 32)),
            weights=self.weights,
            tables=dict(lengths=[90, 0, 17]),
            rule=dict(key_lengths=[90, 0, 17], rope_base=10000),
            layer__heads=4,
            layer__rope_base=10000,
            input__key_lengths="/lengths",
        )

    def test_scale_and_softcap(self):
        self.check(
            x=self.x,
            weights=self.weights,
            rule=dict(scale=0.7, softcap=3.0),
            layer__heads=4,
            attention__scale=0.7,
            attention__softcap=3.0,
        )

    def test_how_it_is_computed(self):
        """Gathering, head groups and panels do not change a bit."""
        source = self.write("in.h5", x=self.x, weights=self.weights)
        sums = {
            self.layer(source, 4, layer__heads=4, compute__head_groups=groups, compute__gather=gather)[1]
            for groups in (1, 2, 4)
            for gather in ("all", "panels", "chain")
        }
        self.assertEqual(len(sums), 1)

    def test_instruction_sets(self):
        self.check(
            ranks=(1, 2), x=self.x, weights=self.weights, layer__heads=4, compute__isa="portable", compute__threads=2
        )


class Methods(LayerCase):
    def test_block(self):
        for rows in (64, 150):
            report = self.check(
                x=make_rows((601, 32)),
                weights=make_weights(32, 4, 4, 8),
                rule=dict(block_size=rows),
                layer__heads=4,
                attention__method="block",
                attention__block_size=rows,
            )
            self.assertGreater(report["certificate"]["dropped_mass_mean"], 0)

    def test_topk(self):
        def keep(q, k, v, causal_align, topk):
            k, v = (np.repeat(t, q.shape[1] // t.shape[1], axis=1) for t in (k, v))
            scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1])
            w = np.exp(scores - scores.max(-1, keepdims=True))
            w /= w.sum(-1, keepdims=True)
            w[np.argsort(np.argsort(-w, axis=-1, kind="stable"), axis=-1) >= topk] = 0
            return w @ v, None

        report = self.check(
            x=make_rows((401, 32)),
            weights=make_weights(32, 4, 2, 8),
            rule=dict(attend=keep, topk=20),
            layer__heads=4,
            layer__kv_heads=2,
            attention__method="topk",
            attention__topk=20,
        )
        self.assertFalse(report["verify"]["end_to_end"])
        self.assertGreater(report["certificate"]["dropped_mass_mean"], 0)


class Cross(LayerCase):
    weights = make_weights(40, 4, 2, 10)

    def cross(self, n, m, batch=None, rule=None, **keys):
        lead = () if batch is None else (batch,)
        return self.check(
            ranks=(1, 2, 3),
            x=make_rows(lead + (n, 40)),
            context=make_rows(lead + (m, 40), seed=9),
            weights=self.weights,
            rule=rule,
            layer__heads=4,
            layer__kv_heads=2,
            **keys,
        )

    def test_lengths(self):
        for n, m in ((100, 613), (613, 100), (1, 257), (5, 1)):
            report = self.cross(n, m)
            self.assertEqual((report["shape"]["n"], report["shape"]["m"]), (n, m))

    def test_batch_and_key_lengths(self):
        self.cross(
            61,
            130,
            batch=3,
            tables=dict(lengths=[130, 1, 77]),
            rule=dict(key_lengths=[130, 1, 77]),
            input__key_lengths="/lengths",
        )

    def test_block(self):
        self.cross(300, 613, rule=dict(block_size=70), attention__method="block", attention__block_size=70)

    def test_causal_rotary(self):
        """Bottom-right: the rows are the last of the sequence of the context."""
        for align in ("bottom-right", "top-left"):
            self.cross(
                100,
                300,
                rule=dict(mask="causal", causal_align=align, rope_base=100.0),
                attention__mask="causal",
                attention__causal_align=align,
                layer__rope_base=100,
            )

    def test_rows_without_keys(self):
        """Their output is the bias."""
        report = self.cross(300, 100, rule=dict(mask="causal"), attention__mask="causal")
        self.assertEqual(report["empty_rows"], 4 * 200)

    def test_last_rows_as_in_the_whole(self):
        """The last rows with the whole as context: what self-attention gives them."""
        x = make_rows((300, 40))
        whole = self.write("whole.h5", x=x, weights=self.weights)
        last = self.write("last.h5", x=x[200:], context=x, weights=self.weights)
        keys = dict(layer__heads=4, layer__kv_heads=2, layer__rope_base=100, attention__mask="causal")
        expected, _, _ = self.layer(whole, 2, **keys)
        y, _, _ = self.layer(last, 2, input__context="/context", **keys)
        self.near(y, expected[200:], 2e-6)


class Refusals(LayerCase):
    def refuse(self, code, words, x=None, weights=None, source=None, ranks=2, dtype="f32", tables=None, **keys):
        if source is None:
            x = make_rows((30, 24)) if x is None else x
            weights = make_weights(24, 3, 3, 8) if weights is None else weights
            source = self.write("in.h5", dtype, x=x, weights=weights, tables=tables)
        output = self.fresh("y.h5")
        keys = {"layer__heads": 3, **keys}
        keys = {key.replace("__", "."): value for key, value in keys.items() if value is not None}
        keys = {"input.file": source, "output.file": output, "compute.threads": 1, **keys}
        result = run("layer", ranks, self.deck(keys))
        self.assertEqual(result.returncode, code, f"{keys}\n{result.stdout}\n{result.stderr}")
        lines = error_lines(result)
        self.assertEqual(len(lines), 1, result.stderr)
        for word in words:
            self.assertIn(word, lines[0])
        self.assertFalse(h5py.is_hdf5(output), "an output was left")

    def changed(self, **changes):
        weights = make_weights(24, 3, 3, 8)
        for name, value in changes.items():
            name = name.replace("__", ".")
            if value is None:
                del weights[name]
            else:
                weights[name] = value
        return weights

    def test_heads(self):
        self.refuse(USAGE, ["layer.heads"], layer__heads=None)
        self.refuse(USAGE, ["no multiple", "layer.kv_heads = 2"], layer__kv_heads=2)
        self.refuse(CONTENT, ["/qkv_proj.weight", "[72, 24]", "layer.heads = 5"], layer__heads=5)
        self.refuse(CONTENT, ["/out_proj.weight", "[24, 24]", "wanted is [24, 48]"], layer__heads=4, layer__kv_heads=1)

    def test_shapes(self):
        for name, shape, words in (
            ("qkv_proj__weight", (72, 23), ["/qkv_proj.weight", "d_model", "24"]),
            ("qkv_proj__weight", (72,), ["/qkv_proj.weight"]),
            ("out_proj__weight", (23, 24), ["/out_proj.weight", "[24, 24]"]),
            ("out_proj__weight", (24, 23), ["/out_proj.weight", "[24, 24]"]),
            ("qkv_proj__bias", (71,), ["/qkv_proj.bias", "[72]"]),
            ("qkv_proj__bias", (1, 72), ["/qkv_proj.bias"]),
            ("out_proj__bias", (25,), ["/out_proj.bias", "[24]"]),
        ):
            self.refuse(CONTENT, words, weights=self.changed(**{name: np.ones(shape)}))
        weights = make_weights(24, 3, 3, 8, norm=True)
        weights["k_norm.weight"] = np.ones(7)
        self.refuse(CONTENT, ["/k_norm.weight", "[8]"], weights=weights, layer__qk_norm="yes")

    def test_missing(self):
        for name in ("qkv_proj__weight", "out_proj__weight"):
            self.refuse(CONTENT, [name.replace("__", ".")], weights=self.changed(**{name: None}))
        for name in ("qkv_proj__bias", "out_proj__bias"):
            self.refuse(
                CONTENT,
                ["layer.bias = yes", name.replace("__", ".")],
                weights=self.changed(**{name: None}),
                layer__bias="yes",
            )
        self.refuse(CONTENT, ["/x"], source=self.write("no_x.h5", weights=make_weights(24, 3, 3, 8)))
        self.refuse(FILE, ["absent.h5"], input__weights=self.path("absent.h5"))

    def test_context(self):
        source = self.write("in.h5", x=make_rows((2, 9, 24)), narrow=make_rows((2, 9, 23)), one=make_rows((9, 24)),
                            weights=make_weights(24, 3, 3, 8))  # fmt: skip
        self.refuse(CONTENT, ["d_model", "/narrow", "[2, 9, 23]"], source=source, input__context="/narrow")
        self.refuse(CONTENT, ["batches", "/one", "[9, 24]"], source=source, input__context="/one")

    def test_types(self):
        for dtype in ("f16", "bf16"):
            self.refuse(CONTENT, ["/x", dtype, "f32 or f64"], dtype=dtype)
        source = self.write("in.h5", x=make_rows((30, 24)), weights=self.changed(qkv_proj__weight=None))
        with h5py.File(source, "a") as file:
            write_dataset(file, "qkv_proj.weight", make_weights(24, 3, 3, 8)["qkv_proj.weight"], "f16")
            file["whole"] = np.ones((30, 24), "<i4")
        self.refuse(CONTENT, ["/qkv_proj.weight", "f16", "f32 or f64"], source=source)
        self.refuse(CONTENT, ["/whole"], source=source, input__x="/whole")
        source = self.write("four.h5", x=make_rows((2, 3, 9, 24)), weights=make_weights(24, 3, 3, 8))
        self.refuse(CONTENT, ["/x", "[2, 3, 9, 24]"], source=source)

    def test_not_finite(self):
        x = make_rows((2, 30, 24))
        x[1, 17, 5] = np.nan
        self.refuse(CONTENT, ["/x", "1 NaN or Inf", "[1, 17, 5]"], x=x)
        for name, at in (("qkv_proj__weight", (70, 3)), ("qkv_proj__bias", (33,)), ("out_proj__bias", (2,))):
            value = make_weights(24, 3, 3, 8)[name.replace("__", ".")]
            value[at] = np.inf
            self.refuse(
                CONTENT,
                [name.replace("__", "."), f"[{', '.join(str(i) for i in at)}]"],
                weights=self.changed(**{name: value}),
            )

    def test_not_finite_rows_stay_where_they_are(self):
        x = make_rows((600, 24))
        x[400, 3] = np.nan
        source = self.write("nan.h5", x=x, weights=make_weights(24, 3, 3, 8))
        y, _, report = self.layer(
            source, 2, layer__heads=3, attention__mask="causal", compute__nonfinite="propagate", verify__rows=64
        )
        self.assertEqual(report["nonfinite"], 1)
        self.assertTrue(np.isfinite(y[:400]).all() and np.isnan(y[400:]).all())

    def test_odd_head_dim(self):
        weights = make_weights(24, 3, 3, 7)
        self.refuse(USAGE, ["head_dim is 7", "layer.rope_base"], weights=weights, layer__rope_base=10000)

    def test_memory(self):
        self.refuse(LIMIT, ["not enough memory", "plan.memory_per_node"], x=make_rows((3000, 24)),
                    plan__memory_per_node="2M")  # fmt: skip

    def test_output(self):
        source = self.write("in.h5", x=make_rows((30, 24)), weights=make_weights(24, 3, 3, 8))
        deck = self.deck({"input.file": source, "output.file": source, "output.overwrite": "yes", "layer.heads": 3})
        result = run("layer", 2, deck)
        self.assertEqual(result.returncode, USAGE, result.stderr)
        with h5py.File(source) as file:
            self.assertIn("x", file)

    def test_verification_that_fails(self):
        self.refuse(VERIFY, ["verification failed", "row"], verify__tolerance=1e-12)


if __name__ == "__main__":
    unittest.main()
