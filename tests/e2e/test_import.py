#!/usr/bin/env python3
"""import: weights under the names of several models, single tensors, NumPy's arrays; listing them.

SPDX-License-Identifier: BSD-3-Clause
"""

import json
import os
import unittest

import h5py
import numpy as np
from common import Case, bf16_bits, bf16_values, oracle, rounded, run, text
from foreign import npy_bytes, write_bytes, write_safetensors

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
D, H, KV, SIZE = 20, 6, 2, 5  # d_model is not heads x head_dim


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


class Import(Case):
    def take(self, ranks=1, **keys):
        """Runs import with keys as import__layer=3; returns ({path: array}, report)."""
        output, report = self.fresh("weights.h5"), self.fresh("report.json")
        keys = {key.replace("__", "."): value for key, value in keys.items()}
        self.run_ok("import", ranks, {"output.file": output, "report.json": report, **keys})
        found = {}
        with h5py.File(output) as file:
            for name in self.names_of(file):
                dataset = file[name]
                found[name] = dataset[...]
                scalars = dataset.ndim == 1
                self.assertEqual(int(text(dataset.attrs["xxh64"]), 16), oracle.checksum(found[name], scalars), name)
                if text(dataset.attrs.get("dtype", "")) == "bf16":
                    found[name] = bf16_values(found[name])
            found["attributes"] = {name: text(value) for name, value in file.attrs.items()}
        with open(report, encoding="utf-8") as file:
            return found, json.load(file)

    @staticmethod
    def names_of(file):
        names = []
        file.visititems(
            lambda name, item: (
                names.append("/" + name) if isinstance(item, h5py.Dataset) and "xxh64" in item.attrs else None
            )
        )
        return names

    def same(self, got, expected, dtype="<f4"):
        self.assertEqual(got.dtype, np.dtype(dtype))
        np.testing.assert_array_equal(got, np.asarray(expected, dtype))

    def layer(self, q, k, v, o, prefix, names, biases=None, dtype="F32"):
        """Tensors of a layer, beside others of its model."""
        made = {
            "embeddings.weight": (numbers(7, D), "F32"),
            prefix + names[0]: (q, dtype),
            prefix + names[1]: (k, dtype),
            prefix + names[2]: (v, dtype),
            prefix + names[3]: (o, dtype),
            "last.LayerNorm.weight": (numbers(D), "F32"),
        }
        for name, bias in (biases or {}).items():
            made[prefix + name] = (bias, dtype)
        return made

    def test_bert(self):
        q, k, v, o = (numbers(D, D, seed=i) for i in range(4))
        bias = [numbers(D, seed=10 + i) for i in range(4)]
        names = [f"self.{part}.weight" for part in ("query", "key", "value")] + ["output.dense.weight"]
        for dtype, kind in (("F32", "f32"), ("F16", "f16"), ("BF16", "bf16"), ("F64", "f64")):
            made = {}
            for number in (0, 1, 11):
                prefix = f"encoder.layer.{number}.attention."
                biases = {name.replace("weight", "bias"): b * (number + 1) for name, b in zip(names, bias)}
                scaled = [x * (number + 1) for x in (q, k, v, o)]
                made |= self.layer(*scaled, prefix, names, biases, dtype)
            source = write_safetensors(self.path(dtype + ".safetensors"), made, {"format": "pt"})
            out = "<f8" if dtype == "F64" else "<f4"
            for ranks, how in ((1, {"import__layer": 1}), (3, {"import__prefix": "encoder.layer.1.attention"})):
                found, report = self.take(ranks, import__source=source, import__heads=4, **how)
                with self.subTest(dtype=dtype, ranks=ranks):
                    self.same(found["/qkv_proj.weight"], rounded(np.concatenate([q, k, v]) * 2, kind), out)
                    self.same(found["/qkv_proj.bias"], rounded(np.concatenate(bias[:3]) * 2, kind), out)
                    self.same(found["/out_proj.weight"], rounded(o * 2, kind), out)
                    self.same(found["/out_proj.bias"], rounded(bias[3] * 2, kind), out)
                    self.assertEqual(report["layer"]["names"], "bert")
                    self.assertEqual(report["layer"]["heads"], 4)
                    self.assertEqual(report["layer"]["left_out"], [])
                    self.assertEqual(found["attributes"]["prefix"], "encoder.layer.1.attention")
                    self.assertEqual(found["attributes"]["head_dim"], D // 4)

    def test_llama(self):
        """Grouped heads, norms of q and k, no biases, a model in two files."""
        q, k, v, o = (
            numbers(H * SIZE, D),
            numbers(KV * SIZE, D, seed=1),
            numbers(KV * SIZE, D, seed=2),
            numbers(D, H * SIZE),
        )
        made = self.layer(q, k, v, o, "model.layers.7.self_attn.", [f"{x}_proj.weight" for x in "qkvo"], dtype="BF16")
        made["model.layers.7.self_attn.q_norm.weight"] = (numbers(SIZE), "BF16")
        made["model.layers.7.self_attn.k_norm.weight"] = (numbers(SIZE, seed=3), "BF16")
        made["model.layers.7.self_attn.rotary_emb.inv_freq"] = (numbers(3), "F32")
        items = list(made.items())
        one = write_safetensors(self.path("a.safetensors"), dict(items[:3]))
        two = write_safetensors(self.path("b.safetensors"), dict(items[3:]))
        found, report = self.take(2, import__source=f"{one}, {two}")
        self.same(found["/qkv_proj.weight"], rounded(np.concatenate([q, k, v]), "bf16"))
        self.same(found["/out_proj.weight"], rounded(o, "bf16"))
        self.same(found["/q_norm.weight"], rounded(numbers(SIZE), "bf16"))
        self.same(found["/k_norm.weight"], rounded(numbers(SIZE, seed=3), "bf16"))
        self.assertEqual(
            set(found) - {"attributes"}, {"/qkv_proj.weight", "/out_proj.weight", "/q_norm.weight", "/k_norm.weight"}
        )
        self.assertEqual([report["layer"][x] for x in ("heads", "kv_heads", "head_dim")], [H, KV, SIZE])
        self.assertEqual(report["layer"]["left_out"], ["model.layers.7.self_attn.rotary_emb.inv_freq"])

    def test_some_biases(self):
        """Whisper's k has no bias, which stands for zeros."""
        q, k, v, o = (numbers(D, D, seed=i) for i in range(4))
        biases = {
            "q_proj.bias": numbers(D, seed=5),
            "v_proj.bias": numbers(D, seed=6),
            "out_proj.bias": numbers(D, seed=7),
        }
        names = [f"{x}_proj.weight" for x in ("q", "k", "v", "out")]
        source = write_safetensors(
            self.path("a.safetensors"), self.layer(q, k, v, o, "layers.0.self_attn.", names, biases)
        )
        found, report = self.take(3, import__source=source)
        zeros = np.zeros(D)
        self.same(
            found["/qkv_proj.bias"], np.concatenate([biases["q_proj.bias"], zeros, biases["v_proj.bias"]]).astype("<f4")
        )
        self.same(found["/out_proj.bias"], biases["out_proj.bias"].astype("<f4"))
        self.assertIn("zeros", report["datasets"][1]["from"])

    def test_gpt2(self):
        """One matrix for q, k and v, stored transposed."""
        qkv, out = numbers(D, 3 * D), numbers(D, D, seed=1)
        made = {
            "h.2.attn.bias": (np.tril(np.ones((1, 1, 4, 4))), "U8"),  # the mask that some checkpoints carry
            "h.2.attn.c_attn.weight": (qkv, "F32"),
            "h.2.attn.c_attn.bias": (numbers(3 * D), "F32"),
            "h.2.attn.c_proj.weight": (out, "F16"),
            "h.2.attn.c_proj.bias": (numbers(D), "F32"),
            "h.2.mlp.c_proj.weight": (numbers(4 * D, D), "F32"),
        }
        source = write_safetensors(self.path("a.safetensors"), made)
        for ranks in (1, 2, 7):
            found, report = self.take(ranks, import__source=source, import__heads=4)
            self.same(found["/qkv_proj.weight"], qkv.T.astype("<f4"))
            self.same(found["/qkv_proj.bias"], numbers(3 * D).astype("<f4"))
            self.same(found["/out_proj.weight"], rounded(out, "f16").T)
            self.same(found["/out_proj.bias"], numbers(D).astype("<f4"))
            self.assertEqual(report["layer"]["names"], "gpt2")
            self.assertEqual(report["layer"]["left_out"], ["h.2.attn.bias"])

    def test_pytorch(self):
        """nn.MultiheadAttention, also as a state_dict of its own: without prefix."""
        made = {"in_proj_weight": (numbers(3 * D, D), "F32"), "in_proj_bias": (numbers(3 * D), "F32")}
        made |= {"out_proj.weight": (numbers(D, D), "F32"), "out_proj.bias": (numbers(D), "F32")}
        for prefix in ("", "encoder.layers.0.self_attn."):
            source = write_safetensors(self.path("a.safetensors"), {prefix + name: x for name, x in made.items()})
            found, report = self.take(2, import__source=source, import__names="pytorch")
            self.same(found["/qkv_proj.weight"], numbers(3 * D, D).astype("<f4"))
            self.same(found["/qkv_proj.bias"], numbers(3 * D).astype("<f4"))
            self.same(found["/out_proj.weight"], numbers(D, D).astype("<f4"))
            self.same(found["/out_proj.bias"], numbers(D).astype("<f4"))
            self.assertEqual(report["layer"]["prefix"], prefix.rstrip("."))

    def test_tensors(self):
        """Copies of single tensors keep their type, or become what the layer reads."""
        x = numbers(3, 11, 5)
        made = {"a=b": (x, "BF16"), "c": (x[0], "F16"), "n": (np.array([0, -3, 2**31 - 1]), "I32"), "d": (x, "F64")}
        source = write_safetensors(self.path("a.safetensors"), made)
        found, _ = self.take(
            2,
            import__source=source,
            import__names="none",
            import__tensors="a=b=/q, a=b=/deep/x.y, c=x, n=documents,d=/v",
        )
        np.testing.assert_array_equal(found["/q"], rounded(x, "bf16"))
        np.testing.assert_array_equal(found["/deep/x.y"], rounded(x, "bf16"))
        self.same(found["/x"], rounded(x[0], "f16"))
        self.same(found["/documents"], [0, -3, 2**31 - 1], "<i8")
        self.same(found["/v"], x, "<f8")

    def test_arrays(self):
        """NumPy's own files: every type, order and byte order, 1 to 4 axes."""
        made, expected = [], {}
        codes = {
            "<f4": "<f4",
            ">f4": "<f4",
            "<f8": "<f8",
            ">f8": "<f8",
            "<f2": "<f2",
            ">i8": "<i8",
            "<u2": "<i8",
            "|i1": "<i8",
        }
        for shape in ((17,), (1,), (7, 5), (1, 3), (129, 65), (3, 7, 5), (2, 3, 7, 5), (5, 1, 2, 3)):
            for code, dtype in codes.items():
                for order in "CF":
                    x = (100 * numbers(*shape)).astype(code).copy(order)
                    name = f"t{len(made)}"
                    np.save(self.path(name + ".npy"), x)
                    made.append(f"{name}={name}.npy")
                    expected["/" + name] = (x, dtype)
        for ranks in (1, 3):
            output = self.fresh("arrays.h5")
            options = ("--import.arrays=" + ",".join(made), f"--output.file={output}")  # too long for a deck's line
            result = run("import", ranks, *options, cwd=self.folder)
            self.assertEqual(result.returncode, 0, result.stderr)
            with h5py.File(output) as file:
                for name, (x, dtype) in expected.items():
                    with self.subTest(shape=x.shape, ranks=ranks, name=name, dtype=x.dtype):
                        self.same(file[name][...], x, dtype)

    def test_npy_versions(self):
        x = numbers(3, 4).astype("<f4")
        head = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }"
        for version, header in (
            (1, head),
            (2, head),
            (3, head),
            (1, "{'shape':(3L,4L),\"fortran_order\":False,'descr':'<f4'}  "),
        ):
            path = write_bytes(self.path("x.npy"), npy_bytes(header, x.tobytes(), version))
            found, _ = self.take(1, import__arrays=f"x={path}")
            self.same(found["/x"], x)

    def test_large_rows_in_pieces(self):
        """More than a piece (16 MiB), by rows and by columns."""
        x = np.random.default_rng(1).standard_normal((1031, 4200), np.float32)
        for order in "CF":
            np.save(self.path("x.npy"), np.asarray(x, order=order))
            found, _ = self.take(1, import__arrays=f"x={self.path('x.npy')}")
            np.testing.assert_array_equal(found["/x"], x)

    def test_same_for_every_rank_count(self):
        qkv, out = numbers(D, 3 * D), numbers(D, D, seed=1)
        source = write_safetensors(
            self.path("a.safetensors"), {"h.0.attn.c_attn.weight": (qkv, "F16"), "h.0.attn.c_proj.weight": (out, "F16")}
        )
        sums = {
            tuple(x["xxh64"] for x in self.take(ranks, import__source=source)[1]["datasets"]) for ranks in (1, 2, 3, 5)
        }
        self.assertEqual(len(sums), 1)

    def test_list(self):
        source = write_safetensors(
            self.path("a.safetensors"),
            {"b.weight": (numbers(2, 3), "BF16"), "a": (np.array(1), "I64"), "c": (numbers(0, 3), "F32")},
        )
        array = self.path("x.npy")
        np.save(array, numbers(4, 5).astype(">f8"))
        report = self.path("r.json")
        result = run(
            "import",
            2,
            f"--import.source={source}",
            f"--import.arrays=x={array}",
            "--import.list=yes",
            f"--report.json={report}",
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        lines = result.stdout.splitlines()
        self.assertEqual(lines[0], f"{source}  safetensors, 3 tensors, {os.path.getsize(source)} bytes")
        self.assertEqual(lines[1:4], ["a  [] I64", "b.weight  [2, 3] BF16", "c  [0, 3] F32"])
        self.assertEqual(lines[4:], [f"{array}  npy, 1 tensor, {os.path.getsize(array)} bytes", "[4, 5] >f8"])
        with open(report, encoding="utf-8") as file:
            told = json.load(file)["files"]
        self.assertEqual(told[0]["tensors"][1], {"name": "b.weight", "type": "BF16", "shape": [2, 3]})
        self.assertEqual(sorted(os.listdir(self.folder)), ["a.safetensors", "r.json", "x.npy"])
        for path, wanted in ((source, lines[:4]), (array, lines[4:])):
            result = run("info", 2, path)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertEqual(result.stdout.splitlines(), wanted)

    def test_deck_of_the_readme(self):
        """The deck shown there works as it is."""
        with open(os.path.join(os.environ.get("LONGSPAN_SOURCE_DIR", ROOT), "README.md"), encoding="utf-8") as file:
            lines = file.read().split("## Weights and arrays")[1].splitlines()
        begin = next(i for i, line in enumerate(lines) if line.strip() == "[import]")
        end = next(i for i, line in enumerate(lines) if line.startswith("With this deck"))
        with open(self.path("deck.ini"), "w", encoding="utf-8") as file:
            file.write("\n".join(line.removeprefix("    ") for line in lines[begin:end]))
        names = [f"self.{part}.weight" for part in ("query", "key", "value")] + ["output.dense.weight"]
        weights = [numbers(24, 24, seed=i) for i in range(4)]
        made = self.layer(*weights, "encoder.layer.3.attention.", names) | self.layer(
            *weights, "encoder.layer.2.attention.", names
        )
        write_safetensors(self.path("model.safetensors"), made)
        np.save(self.path("tokens.npy"), numbers(9, 24))
        result = run("import", 2, "deck.ini", cwd=self.folder)
        self.assertEqual(result.returncode, 0, result.stderr)
        with h5py.File(self.path("layer3.h5")) as file:
            self.assertEqual({"qkv_proj.weight", "out_proj.weight", "x"} - set(file), set())
            self.assertEqual(file.attrs["head_dim"], 2)

    def test_special_values_stay(self):
        bits = np.array([0x0000, 0x8000, 0x0001, 0x03FF, 0x7BFF, 0x7C00, 0xFC00, 0x7E00], "<u2")
        source = write_safetensors(self.path("a.safetensors"), {"h": (bits.view("<f2").reshape(2, 4), "F16")})
        found, _ = self.take(1, import__source=source, import__names="none", import__tensors="h=/x,h=/q")
        np.testing.assert_array_equal(found["/x"].view("<u4"), bits.view("<f2").astype("<f4").reshape(2, 4).view("<u4"))
        np.testing.assert_array_equal(found["/q"].view("<u2").ravel(), bits)
        values = bf16_values(np.array([[1, 0x8000, 0x7F80, 0x3F81]], np.uint16))
        source = write_safetensors(self.path("b.safetensors"), {"h": (values, "BF16")})
        found, _ = self.take(1, import__source=source, import__names="none", import__tensors="h=/x")
        np.testing.assert_array_equal(bf16_bits(found["/x"]), [[1, 0x8000, 0x7F80, 0x3F81]])
        np.testing.assert_array_equal(found["/x"], values)


if __name__ == "__main__":
    unittest.main()
