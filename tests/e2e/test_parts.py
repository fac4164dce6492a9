#!/usr/bin/env python3
"""Selections (heads, rows, keys) and the merge of outputs over disjoint keys.

SPDX-License-Identifier: BSD-3-Clause
"""

import os
import unittest

import h5py
import numpy as np
from common import Case, error_lines, operands, oracle, read_output, run, text, write_input

LIMIT = 7e-7


class Parts(Case):
    def setUp(self):
        super().setUp()
        self.operands = operands((2, 6, 210, 16), (2, 2, 1300, 16), 24, seed=1, reach=6)
        self.source = self.path("in.h5")
        write_input(self.source, *self.operands)

    def test_rows_have_the_bits_of_the_whole(self):
        whole, _ = self.attend(self.source, 2, attention__mask="causal", attention__alibi="yes")
        for rows, (a, b), ranks in (
            ("0:1", (0, 1), 2),
            ("17:150", (17, 150), 3),
            ("209:210", (209, 210), 1),
            ("100:", (100, 210), 4),
        ):
            with self.subTest(rows=rows):
                part, _ = self.attend(
                    self.source, ranks, attention__mask="causal", attention__alibi="yes", input__rows=rows
                )
                np.testing.assert_array_equal(part["out"][0], whole["out"][0][:, :, a:b])
                np.testing.assert_array_equal(part["lse"][0], whole["lse"][0][:, :, a:b])

    def test_heads_have_the_bits_of_the_whole(self):
        """Also ALiBi slopes and the key head stay those of the head in the file."""
        whole, _ = self.attend(self.source, 2, attention__alibi="yes")
        for heads, index, ranks in (
            ("0", [0], 2),
            ("1,3-5", [1, 3, 4, 5], 3),
            ("5", [5], 1),
            ("0-5", list(range(6)), 4),
        ):
            with self.subTest(heads=heads):
                part, _ = self.attend(self.source, ranks, attention__alibi="yes", input__heads=heads)
                np.testing.assert_array_equal(part["out"][0], whole["out"][0][:, index])
                np.testing.assert_array_equal(part["lse"][0], whole["lse"][0][:, index])

    def test_keys(self):
        for keys, (a, b), ranks in (
            ("0:1", (0, 1), 2),
            ("511:513", (511, 513), 3),
            ("300:1300", (300, 1300), 2),
            (":700", (0, 700), 4),
        ):
            with self.subTest(keys=keys):
                part, _ = self.attend(self.source, ranks, attention__mask="causal", input__keys=keys)
                out, lse = oracle.attention(*self.operands, mask="causal", keys=(a, b))
                self.near(part["out"][0], out, LIMIT)
                self.near(part["lse"][0], lse, LIMIT, least=1.0)

    def test_all_three(self):
        part, _ = self.attend(
            self.source,
            3,
            input__heads="2,4",
            input__rows="50:200",
            input__keys="13:1000",
            attention__mask="window",
            attention__window_left=700,
            attention__window_right=5,
        )
        out, lse = oracle.attention(
            *self.operands,
            mask="window",
            window_left=700,
            window_right=5,
            heads=[2, 4],
            rows=(50, 200),
            keys=(13, 1000),
        )
        self.near(part["out"][0], out, LIMIT)
        self.near(part["lse"][0], lse, LIMIT, least=1.0)

    def pieces(self, ranges, **keys):
        """Outputs over key ranges, as files."""
        files = []
        for index, (a, b) in enumerate(ranges):
            files.append(self.fresh("part.h5"))
            self.run_ok(
                "attend",
                1 + index % 3,
                {
                    "input.file": self.source,
                    "output.file": files[-1],
                    "input.keys": f"{a}:{b}",
                    **{key.replace("__", "."): value for key, value in keys.items()},
                },
            )
        return files

    def test_merge(self):
        """Causal: some rows see no key of the later parts."""
        whole, _ = self.attend(self.source, 2, attention__mask="causal", attention__causal_align="top-left")
        files = self.pieces(
            [(0, 100), (100, 137), (137, 1300)], attention__mask="causal", attention__causal_align="top-left"
        )
        sums = set()
        for ranks in (1, 3):
            merged = self.fresh("merged.h5")
            self.run_ok("merge", ranks, {"input.parts": ",".join(files), "output.file": merged})
            result = read_output(merged)
            self.near(result["out"][0], whole["out"][0].astype(float), 1e-6)
            self.near(result["lse"][0], whole["lse"][0].astype(float), 1e-6, least=1.0)
            sums.add((text(result["out"][1]), text(result["lse"][1])))
            self.assertEqual(int(text(result["out"][1]), 16), oracle.checksum(result["out"][0]))
        self.assertEqual(len(sums), 1, "merge gives the same bits on 1 and 3 ranks")

    def test_merge_double(self):
        files = self.pieces([(0, 600), (600, 1300)], compute__dtype="f64")
        merged = self.fresh("merged.h5")
        self.run_ok("merge", 2, {"input.parts": ", ".join(files), "output.file": merged})
        out, lse = oracle.attention(*self.operands)
        result = read_output(merged)
        self.assertEqual(result["out"][0].dtype, np.float64)
        self.near(result["out"][0], out, 1e-14)
        self.near(result["lse"][0], lse, 1e-14, least=1.0)

    def refused(self, files, code, *words):
        merged = self.fresh("merged.h5")
        result = run("merge", 3, self.deck({"input.parts": ",".join(files), "output.file": merged}))
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertEqual(len(error_lines(result)), 1, result.stderr)
        for word in words:
            self.assertIn(word, error_lines(result)[0])
        self.assertFalse(os.path.exists(merged))

    def test_merge_refuses(self):
        first, second = self.pieces([(0, 600), (600, 1300)])
        overlapping = self.pieces([(599, 1300)])[0]
        other_rows = self.fresh("rows.h5")
        self.run_ok(
            "attend",
            2,
            {"input.file": self.source, "output.file": other_rows, "input.keys": "600:1300", "input.rows": "0:9"},
        )
        without_lse = self.fresh("nolse.h5")
        with h5py.File(second) as old, h5py.File(without_lse, "w") as new:
            old.copy("out", new)
        self.refused([first, overlapping], 3, "keys")
        self.refused([first, other_rows], 3)
        self.refused([first, without_lse], 3, "/lse")
        self.refused([first, self.path("absent.h5")], 6, "absent.h5")
        listed = ",".join(str(head) for head in range(0, 400, 2))
        for path, last in ((first, ",400"), (second, ",401")):
            with h5py.File(path, "r+") as file:
                file.attrs["heads"] = np.bytes_((listed + last).encode())
        self.refused([first, second], 3, "was made with heads")

    def test_selections_that_do_not_fit(self):
        for key, value in (("input.rows", "200:211"), ("input.keys", "0:1301"), ("input.heads", "6")):
            output = self.fresh("out.h5")
            result = run("attend", 2, self.deck({"input.file": self.source, "output.file": output, key: value}))
            self.assertIn(result.returncode, (2, 3), result.stderr)
            self.assertEqual(len(error_lines(result)), 1, result.stderr)
            self.assertIn(key.split(".")[1], error_lines(result)[0])
            self.assertFalse(os.path.exists(output))


if __name__ == "__main__":
    unittest.main()
