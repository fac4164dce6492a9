#!/usr/bin/env python3
"""attend with method = block: numbers, bits, traffic, certificate and refusals.

SPDX-License-Identifier: BSD-3-Clause
"""

import json
import unittest

import numpy as np
from common import Case, error_lines, isas, operands, oracle, run, text, write_input

NORMAL, DOUBLE = 7e-7, 1e-14


class Block(Case):
    def check(self, q, k, v, block_size, ranks, limit=NORMAL, tables=None, keys=None, **rules):
        """Against the oracle; rules are the oracle's arguments, keys those of the deck besides."""
        source, tables = self.fresh("in.h5"), tables or {}
        write_input(source, q, k, v, **tables)
        keys = dict(keys or {}, **{f"input__{name}": f"/{name}" for name in tables})
        for name in ("mask", "causal_align", "window_left", "window_right", "softcap", "scale"):
            if name in rules:
                keys[f"attention__{name}"] = rules[name]
        if rules.get("alibi"):
            keys["attention__alibi"] = "yes"
        result, report = self.attend(
            source, ranks, attention__method="block", attention__block_size=block_size, **keys
        )
        out, lse = oracle.attention(q, k, v, block_size=block_size, **rules, **tables)
        what = f"q {q.shape} k {k.shape} blocks of {block_size} {rules} on {ranks} ranks"
        self.near(result["out"][0], out, limit, what + ": out")
        self.near(result["lse"][0], lse, limit, what + ": lse", least=1.0)
        self.assertTrue(report["verify"]["passed"], what)
        self.assertEqual(report["method"], "block")
        return result, report

    def test_shapes(self):
        """Blocks of one row, of all rows, short last blocks, n != m in both directions, more ranks than blocks."""
        for (n, m, d, block_size), ranks in [
            ((1, 1, 4, 1), 1),
            ((7, 9, 3, 3), 7),
            ((1024, 1024, 64, 512), 2),
            ((1500, 1500, 32, 512), 3),
            ((1301, 907, 24, 100), 4),
            ((301, 2111, 48, 77), 7),
            ((640, 640, 16, 640), 3),
            ((97, 1031, 8, 1), 2),
            ((1000, 10, 8, 13), 4),
        ]:
            with self.subTest(n=n, m=m, block_size=block_size, ranks=ranks):
                q, k, v = operands((n, d), (m, d), d + 3, seed=n + m, reach=6)
                self.check(q, k, v, block_size, ranks, 5e-6 if n == 1 else NORMAL)

    def test_composes(self):
        q, k, v = operands((6, 331, 24), (2, 700, 24), 17, seed=3, reach=6)
        for rules in (
            dict(mask="causal"),
            dict(mask="causal", causal_align="top-left"),
            dict(mask="window", window_left=90, window_right=20),
            dict(mask="causal", softcap=5.0),
        ):
            with self.subTest(**rules):
                self.check(q, k, v, 100, 3, **rules)
        self.check(q, k, v, 100, 3, 5e-6, alibi=True)
        q, k, v = operands((2, 2, 200, 16), (2, 2, 200, 16), seed=8, reach=6)
        self.check(q, k, v, 64, 2, tables={"documents": [0, 3, 100, 100, 200]}, mask="causal")
        self.check(q, k, v, 64, 4, tables={"key_lengths": [150, 0]})

    def test_part(self):
        """Rows and keys of a part belong to the blocks of the whole."""
        q, k, v = operands((900, 16), (900, 16), seed=4, reach=6)
        out, lse = oracle.attention(q, k, v, block_size=128, rows=(100, 777), keys=(50, 800))
        source = self.path("in.h5")
        write_input(source, q, k, v)
        for ranks in (1, 3, 7):
            result, _ = self.attend(
                source,
                ranks,
                attention__method="block",
                attention__block_size=128,
                input__rows="100:777",
                input__keys="50:800",
            )
            self.near(result["out"][0], out, NORMAL, "out")
            self.near(result["lse"][0], lse, NORMAL, "lse", least=1.0)

    def test_one_block_is_exact(self):
        source = self.path("in.h5")
        write_input(source, *operands((2, 700, 32), (2, 900, 32), seed=6, reach=6))
        exact, _ = self.attend(source, 2)
        block, _ = self.attend(source, 3, attention__method="block", attention__block_size=700)
        self.assertEqual(text(exact["out"][1]), text(block["out"][1]))
        self.assertEqual(text(exact["lse"][1]), text(block["lse"][1]))

    def test_bits(self):
        source = self.path("in.h5")
        write_input(source, *operands((3, 1337, 40), (3, 1200, 40), seed=9, reach=9))
        for isa, dtype in [(isa, "f32") for isa in isas()] + [(isas()[-1], "f64")]:
            seen = set()
            for ranks, threads, compute in (
                (1, 1, {}),
                (2, 1, {}),
                (3, 2, dict(compute__gather="all")),
                (4, 1, dict(compute__gather="node", compute__partition="balanced")),
                (7, 1, dict(compute__gather="chain", compute__partition="cyclic")),
                (3, 1, dict(compute__panel_rows=1, compute__head_groups=3)),
                (6, 1, dict(compute__head_groups=2)),
                (4, 1, dict(compute__head_groups=2)),
            ):
                result, _ = self.attend(
                    source,
                    ranks,
                    compute__isa=isa,
                    compute__dtype=dtype,
                    compute__threads=threads,
                    attention__method="block",
                    attention__block_size=190,
                    **compute,
                )
                seen.add((text(result["out"][1]), text(result["lse"][1])))
            self.assertEqual(len(seen), 1, f"{isa} {dtype}: {seen}")

    def test_no_traffic_when_ranks_own_blocks(self):
        """Whatever the block's size: keys lie with the rows. With blocks cut by ranks they travel."""
        source = self.path("in.h5")
        write_input(source, *operands((4, 1500, 32), (2, 1234, 32), seed=5, reach=6))
        for block_size, ranks, travels in ((512, 2, False), (100, 3, False), (333, 4, False), (1500, 2, True)):
            for gather in ("auto", "panels", "node", "chain"):
                with self.subTest(block_size=block_size, ranks=ranks, gather=gather):
                    _, report = self.attend(
                        source,
                        ranks,
                        attention__method="block",
                        attention__block_size=block_size,
                        compute__gather=gather,
                        compute__head_groups=1,
                    )
                    self.assertEqual(report["bytes"]["gathered"] > 0, travels)

    def test_certificate(self):
        """The dropped mass and the error of all rows, from the oracle's exact answer."""
        q, k, v = operands((2, 60, 16), (2, 300, 16), seed=7, reach=5)
        source = self.path("in.h5")
        write_input(source, q, k, v)
        out, lse = oracle.attention(q, k, v)
        block_out, block_lse = oracle.attention(q, k, v, block_size=25)
        dropped = 1 - np.exp(block_lse - lse)
        error = np.linalg.norm(block_out - out, axis=-1) / np.linalg.norm(out, axis=-1)
        for ranks in (1, 3):
            _, report = self.attend(
                source, ranks, attention__method="block", attention__block_size=25, verify__rows=120
            )
            certificate = report["certificate"]
            self.assertEqual(certificate["sampled"], 120)
            self.assertAlmostEqual(certificate["dropped_mass_mean"], dropped.mean(), places=12)
            self.assertAlmostEqual(certificate["dropped_mass_max"], dropped.max(), places=12)
            self.assertAlmostEqual(certificate["out_error_mean"] / error.mean(), 1, places=5)
            self.assertAlmostEqual(certificate["out_error_max"] / error.max(), 1, places=5)
        result, report = self.attend(
            source, 2, attention__method="block", attention__block_size=25, verify__rows=0
        )
        self.assertIsNone(report["certificate"], "without a sample nothing is known")

    def test_certificate_says_that_it_is_a_sample(self):
        source = self.path("in.h5")
        write_input(source, *operands((60, 16), (60, 16), seed=7))
        keys = {"input.file": source, "attention.method": "block", "attention.block_size": 25}
        for rows, words in ((7, "a sample of 7 rows"), (0, "no row was sampled")):
            keys |= {"output.file": self.fresh("out.h5"), "verify.rows": rows}
            said = self.run_ok("attend", 1, keys).stdout
            lines = [line for line in said.splitlines() if line.split()[:1] in (["dropped"], ["error"])]
            self.assertGreater(len(lines), 0, said)
            for line in lines:
                self.assertIn(words, line)

    def test_exact_has_no_certificate(self):
        source = self.path("in.h5")
        write_input(source, *operands((9, 4), (9, 4)))
        _, report = self.attend(source, 1, attention__block_size=3)
        self.assertIsNone(report["certificate"])
        self.assertEqual(report["method"], "exact")

    def test_verify_command(self):
        """verify knows the method: it passes with the deck, and fails with another block size."""
        source, output = self.path("in.h5"), self.path("out.h5")
        write_input(source, *operands((2, 300, 16), (2, 280, 16), seed=2, reach=6))
        keys = {
            "input.file": source,
            "output.file": output,
            "attention.method": "block",
            "attention.block_size": 64,
            "report.json": self.path("report.json"),
        }
        self.run_ok("attend", 2, keys)
        self.run_ok("verify", 3, keys)
        with open(self.path("report.json"), encoding="utf-8") as file:
            self.assertTrue(json.load(file)["verify"]["passed"])
        result = run("verify", 1, self.deck({**keys, "attention.block_size": 63}))
        self.assertEqual(result.returncode, 4, result.stdout + result.stderr)

    def test_refusals(self):
        source = self.path("in.h5")
        write_input(source, *operands((50, 4), (60, 4)))
        for block_size, said in ((0, "from 1"), (-3, "from 1"), (51, "at most the 50 rows"), (None, "block_size")):
            keys = {"input.file": source, "output.file": self.path("o.h5"), "attention.method": "block"}
            if block_size is not None:
                keys["attention.block_size"] = block_size
            result = run("attend", 2, self.deck(keys))
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertEqual(len(error_lines(result)), 1, result.stderr)
            self.assertIn(said, error_lines(result)[0])


if __name__ == "__main__":
    unittest.main()
