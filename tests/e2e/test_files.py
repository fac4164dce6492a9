#!/usr/bin/env python3
"""HDF5 files as others write them, and the files that Longspan writes.

SPDX-License-Identifier: BSD-3-Clause
"""

import json
import os
import unittest

import h5py
import numpy as np
from common import Case, error_lines, operands, oracle, read_output, rounded, run, text, write_dataset, write_input

LIMIT = 7e-7


class Files(Case):
    def setUp(self):
        super().setUp()
        self.q, self.k, self.v = operands((3, 201, 20), (3, 340, 20), 12, seed=1, reach=5)
        self.source = self.path("in.h5")

    def expect(self, result, dtype="f32"):
        out, lse = oracle.attention(*(rounded(x, dtype) for x in (self.q, self.k, self.v)))
        self.near(result["out"][0], out, LIMIT)
        self.near(result["lse"][0], lse, LIMIT, least=1.0)

    def test_storage(self):
        """Chunked, filtered and big-endian datasets, of every type."""
        for dtype, options in [
            ("f32", dict(chunks=(1, 50, 7))),
            ("f32", dict(chunks=(3, 64, 20), compression="gzip")),
            ("f64", dict(chunks=(2, 33, 20), compression="gzip", shuffle=True, fletcher32=True)),
            ("f32be", {}),
            ("f64be", dict(chunks=(1, 128, 20), compression="gzip")),
            ("f16be", {}),
            ("f16", dict(chunks=True)),
            ("bf16", dict(chunks=(1, 100, 10), compression="gzip")),
        ]:
            for ranks in (1, 3):
                with self.subTest(dtype=dtype, ranks=ranks, **options):
                    with h5py.File(self.source, "w") as file:
                        for name, x in (("q", self.q), ("k", self.k), ("v", self.v)):
                            how = dict(options)
                            if isinstance(how.get("chunks"), tuple):
                                how["chunks"] = tuple(np.minimum(how["chunks"], x.shape))
                            write_dataset(file, name, x, dtype, **how)
                    result, _ = self.attend(self.source, ranks)
                    self.expect(result, dtype.replace("be", ""))

    def test_mixed_types(self):
        with h5py.File(self.source, "w") as file:
            write_dataset(file, "q", self.q, "f64")
            write_dataset(file, "k", self.k, "f32")
            write_dataset(file, "v", self.v, "f32be")
        result, _ = self.attend(self.source, 2)
        self.expect(result)

    def test_several_files(self):
        paths = {}
        for name, x in (("q", self.q), ("k", self.k), ("v", self.v)):
            paths[name] = self.path(f"only {name}.h5")
            with h5py.File(paths[name], "w") as file:
                write_dataset(file, f"deep/group/{name}", x, "f32")
        tables = self.path("tables.h5")
        with h5py.File(tables, "w") as file:
            file["rows"] = np.array([0, 20, 201], ">i4")
            file["keys"] = np.array([0, 100, 340], "<u2")
        keys = {f"input__{name}": f"{path}:/deep/group/{name}" for name, path in paths.items()}
        keys["input__v"] = "/deep/group/v"  # in input.file
        result, _ = self.attend(paths["v"], 3, **keys)
        self.expect(result)
        result, _ = self.attend(
            paths["v"], 2, **keys, input__documents=tables + ":/rows", input__documents_k=tables + ":/keys"
        )
        out, _ = oracle.attention(self.q, self.k, self.v, documents=[0, 20, 201], documents_k=[0, 100, 340])
        self.near(result["out"][0], out, LIMIT)

    def test_names_of_datasets(self):
        with h5py.File(self.source, "w") as file:
            for name, x in (("query", self.q), ("key", self.k), ("value", self.v)):
                write_dataset(file, name, x)
        result, _ = self.attend(self.source, 2, input__q="/query", input__k="/key", input__v="/value")
        self.expect(result)

    def test_output(self):
        """Shape, type, attributes and dimension scales of what is written; no lse when not wanted."""
        write_input(self.source, self.q, self.k, self.v)
        output = self.path("out.h5")
        self.run_ok("attend", 2, {"input.file": self.source, "output.file": output, "attention.mask": "causal"})
        self.assertEqual(sorted(os.listdir(self.folder)), ["deck.ini", "in.h5", "out.h5"])
        with h5py.File(output) as file:
            self.assertEqual(file["out"].shape, (3, 201, 12))
            self.assertEqual(file["lse"].shape, (3, 201))
            self.assertEqual(file["out"].dtype, np.dtype("<f4"))
            attributes = {name: text(value) for name, value in file.attrs.items()}
            self.assertIn("mask = causal", str(attributes.get("deck")))
            said = " ".join(attributes).lower()
            self.assertIn("version", said)
            self.assertIn("schema", said)
            for name, axes in (("out", 3), ("lse", 2)):
                self.assertIn("units", file[name].attrs)
                labels = [list(file[name].dims[axis].keys()) + [file[name].dims[axis].label] for axis in range(axes)]
                self.assertTrue(all(any(label) for label in labels), f"/{name} names its axes: {labels}")
            for name, scalars in (("out", False), ("lse", True)):
                self.assertEqual(int(text(file[name].attrs["xxh64"]), 16), oracle.checksum(file[name][...], scalars))
        with_lse = read_output(output)["out"][1]
        self.run_ok(
            "attend",
            3,
            {
                "input.file": self.source,
                "output.file": output,
                "output.overwrite": "yes",
                "output.lse": "no",
                "attention.mask": "causal",
            },
        )
        result = read_output(output)
        self.assertEqual(list(result), ["out"])
        self.assertEqual(result["out"][1], with_lse)

    def test_checksum_of_damaged_input(self):
        """A generated file carries checksums; one changed number is found on reading."""
        self.run_ok("generate", 2, {"output.file": self.source, "shape.n": 300, "shape.d_k": 8, "shape.heads": 2})
        self.attend(self.source, 3)
        with h5py.File(self.source, "r+") as file:
            file["k"][1, 123, 4] += 0.5
        for ranks in (1, 3):
            output = self.fresh("out.h5")
            result = run("attend", ranks, self.deck({"input.file": self.source, "output.file": output}))
            self.assertEqual(result.returncode, 3, result.stderr)
            self.assertEqual(len(error_lines(result)), 1, result.stderr)
            self.assertIn("/k", error_lines(result)[0])
            self.assertIn("checksum", error_lines(result)[0])
            self.assertFalse(os.path.exists(output))

    def test_report(self):
        """The JSON report has what is documented, and numbers that fit the problem."""
        write_input(self.source, self.q, self.k, self.v)
        _, report = self.attend(self.source, 3, attention__mask="causal", attention__causal_align="top-left")
        for key in ("schema", "version", "nodes", "certificate", "gflops", "fma_peak_gflops", "efficiency"):
            self.assertIn(key, report)
        self.assertEqual(
            (report["command"], report["method"], report["ranks"], report["threads"]), ("attend", "exact", 3, 1)
        )
        self.assertEqual(
            report["shape"], {"batch": 1, "heads": 3, "kv_heads": 3, "n": 201, "m": 340, "d_k": 20, "d_v": 12}
        )
        self.assertEqual(report["flops"], 2 * (20 + 12) * 3 * 201 * 202 // 2)
        for key in ("total", "read", "compute", "gather_exposed", "write"):
            self.assertGreaterEqual(report["seconds"][key], 0)
        self.assertGreaterEqual(report["seconds"]["total"], report["seconds"]["compute"])
        self.assertGreater(report["bytes"]["peak_rss_max"], 1 << 20)
        self.assertEqual(report["verify"]["rows"], 16)
        self.assertLess(report["verify"]["max_rel_err"], 1e-5)
        self.assertAlmostEqual(
            report["gflops"], report["flops"] / report["seconds"]["compute"] / 1e9, delta=0.01 * report["gflops"]
        )
        self.assertNotIn("NaN", json.dumps(report))

    def test_last_line(self):
        write_input(self.source, self.q, self.k, self.v)
        result = self.run_ok("attend", 2, {"input.file": self.source, "output.file": self.path("out.h5")})
        self.assertRegex(result.stdout.strip().splitlines()[-1], r"^longspan: PASSED\b")


if __name__ == "__main__":
    unittest.main()
