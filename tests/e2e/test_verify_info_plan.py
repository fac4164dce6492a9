#!/usr/bin/env python3
"""verify, info, plan, help, and the memory check before a run.

SPDX-License-Identifier: BSD-3-Clause
"""

import json
import os
import unittest

import h5py
import numpy as np
from common import BIN, Case, environment, error_lines, execute, operands, oracle, run, text, write_input


class Verify(Case):
    def setUp(self):
        super().setUp()
        self.source, self.output = self.path("in.h5"), self.path("out.h5")
        write_input(self.source, *operands((4, 130, 16), (2, 300, 16), seed=1, reach=6))
        self.keys = {
            "input.file": self.source,
            "output.file": self.output,
            "attention.mask": "causal",
            "verify.rows": 40,
        }
        self.run_ok("attend", 2, self.keys)

    def change(self, with_checksum, factor=1.001):
        with h5py.File(self.output, "r+") as file:
            out = file["out"]
            out[...] = out[...] * factor
            if with_checksum:
                length = len(text(out.attrs["xxh64"]))
                out.attrs.modify("xxh64", f"{oracle.checksum(out[...]):0{length}x}".encode())

    def fails(self, *words, keys=None, operand=None):
        for ranks in (1, 3):
            result = run("verify", ranks, operand or self.deck(keys or self.keys))
            self.assertEqual(result.returncode, 4, result.stdout + result.stderr)
            self.assertEqual(len(error_lines(result)), 1, result.stderr)
            for word in words:
                self.assertIn(word, result.stdout + result.stderr)
            self.assertNotIn("PASSED", result.stdout)

    def test_good(self):
        for ranks in (1, 3):
            result = self.run_ok("verify", ranks, self.keys)
            self.assertRegex(result.stdout.strip().splitlines()[-1], r"^longspan: PASSED\b")
        self.assertEqual(run("verify", 2, self.output).returncode, 0, "checksums alone")

    def test_part(self):
        keys = {
            **self.keys,
            "output.file": self.path("part.h5"),
            "input.rows": "20:100",
            "input.heads": "1,3",
            "input.keys": "7:200",
        }
        self.run_ok("attend", 3, keys)
        self.run_ok("verify", 2, keys)

    def test_changed_values(self):
        self.change(with_checksum=True)
        self.fails()

    def test_values_that_are_no_numbers(self):
        """The error is infinite, which JSON does not have: null, and not passed."""
        report = self.path("report.json")
        for factor in (np.nan, np.inf):
            self.change(with_checksum=True, factor=factor)
            self.fails("inf", keys={**self.keys, "report.json": report})
            with open(report, encoding="utf-8") as file:
                verify = json.load(file, parse_constant=self.fail)["verify"]
            self.assertIsNone(verify["max_rel_err"])
            self.assertIs(verify["passed"], False)
            self.assertEqual(verify["rows"], 40)

    def test_changed_values_and_stale_checksum(self):
        self.change(with_checksum=False)
        self.fails("checksum")
        self.fails("checksum", operand=self.output)

    def test_other_deck(self):
        """The output of another mask is not this deck's."""
        self.fails(keys={**self.keys, "attention.mask": "none"})

    def test_attend_fails_on_impossible_tolerance(self):
        keys = {**self.keys, "output.file": self.path("other.h5"), "verify.tolerance": 1e-12}
        result = run("attend", 2, self.deck(keys))
        self.assertEqual(result.returncode, 4, result.stderr)
        self.assertIn("FAILED", result.stdout + result.stderr)


class InfoAndHelp(Case):
    def test_info(self):
        source, output = self.path("in.h5"), self.path("out.h5")
        write_input(source, *operands((4, 130, 16), (2, 300, 16), 24, seed=1), documents=[0, 130])
        self.run_ok("attend", 2, {"input.file": source, "output.file": output})
        result = run("info", 1, source)
        self.assertEqual(result.returncode, 0, result.stderr)
        for word in ("q", "k", "v", "documents", "4", "130", "300", "24", "f32"):
            self.assertIn(word, result.stdout)
        result = run("info", 3, output)
        for word in ("out", "lse", "xxh64"):
            self.assertIn(word, result.stdout)
        self.assertEqual(result.stdout.count("xxh64="), 2, "one rank speaks, of two datasets")

    def test_info_of_bad_files(self):
        junk = self.path("junk.h5")
        with open(junk, "w", encoding="ascii") as file:
            file.write("no HDF5")
        for path, code in ((junk, 3), (self.path("absent.h5"), 6)):
            result = run("info", 2, path)
            self.assertEqual(result.returncode, code)
            self.assertEqual(len(error_lines(result)), 1, result.stderr)

    def test_help_and_version(self):
        """Without the launcher, and with no rank but one speaking."""
        general = execute([BIN, "--help"])
        self.assertEqual((general.returncode, general.stderr), (0, ""))
        for command in ("attend", "bench", "generate", "info", "merge", "plan", "svd", "verify"):
            self.assertIn(command, general.stdout)
            result = execute([BIN, command, "--help"])
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            self.assertIn(command, result.stdout)
        self.assertIn("causal_align", execute([BIN, "attend", "--help"]).stdout)
        version = execute([BIN, "--version"])
        self.assertEqual(version.returncode, 0)
        for word in ("MPI", "HDF5"):
            self.assertIn(word, version.stdout)
        if "avx" in version.stdout.split("Instruction set:")[1]:
            self.assertNotIn("Prescott", version.stdout, "OpenBLAS was not told a core")


class Plan(Case):
    def plan(self, ranks, **keys):
        report = self.fresh("plan.json")
        keys = {"report.json": report, **{key.replace("__", "."): value for key, value in keys.items()}}
        result = self.run_ok("plan", ranks, keys)
        with open(report, encoding="utf-8") as file:
            return result.stdout, json.load(file)

    def test_numbers(self):
        """For ranks that are not there; flops as documented."""
        stdout, report = self.plan(
            1, shape__n=1 << 20, shape__d_k=64, plan__ranks=64, plan__ranks_per_node=16, plan__flops_per_rank=1e11
        )
        self.assertEqual(report["flops"], 2.0 * 128 * (1 << 40))
        self.assertEqual(report["planned_ranks"], 64)
        self.assertIn("64 ranks", stdout)
        _, causal = self.plan(
            2, shape__n=1 << 20, shape__d_k=64, plan__ranks=64, attention__mask="causal", plan__flops_per_rank=1e11
        )
        self.assertEqual(causal["flops"], 2.0 * 128 * (1 << 20) * ((1 << 20) + 1) / 2)

    def test_of_an_input(self):
        source = self.path("in.h5")
        write_input(source, *operands((4, 130, 16), (2, 300, 16), 24, seed=1))
        _, report = self.plan(2, input__file=source, plan__flops_per_rank=1e11)
        self.assertEqual(report["flops"], 2 * (16 + 24) * 4 * 130 * 300)

    def test_one_rank_gathers_nothing(self):
        for ranks, words in ((1, "nothing gathered"), (2, "keys by ")):
            stdout, report = self.plan(1, shape__n=4096, shape__d_k=64, plan__ranks=ranks, plan__flops_per_rank=1e11)
            self.assertIn(words, stdout)
            self.assertEqual(report["bytes"]["gathered"] > 0, ranks > 1)

    def test_does_not_fit(self):
        deck = self.deck(
            {
                "shape.n": 1 << 30,
                "shape.d_k": 128,
                "plan.ranks": 4,
                "plan.ranks_per_node": 4,
                "plan.memory_per_node": "1G",
                "plan.flops_per_rank": 1e11,
            }
        )
        result = run("plan", 1, deck)
        self.assertEqual(result.returncode, 5, result.stdout + result.stderr)
        self.assertEqual(len(error_lines(result)), 1, result.stderr)

    def test_attend_refuses(self):
        """Before anything large is read; by the deck's limit, and by Slurm's."""
        source, output = self.path("in.h5"), self.path("out.h5")
        write_input(source, *operands((40000, 16), (40000, 16), seed=1))
        for option, env in (
            ("--plan.memory_per_node=8M", environment()),
            ("--report.progress=no", dict(environment(), SLURM_MEM_PER_NODE="8")),
        ):
            for ranks in (1, 3):
                result = run("attend", ranks, self.deck({"input.file": source, "output.file": output}), option, env=env)
                self.assertEqual(result.returncode, 5, result.stdout + result.stderr)
                self.assertEqual(len(error_lines(result)), 1, result.stderr)
                self.assertRegex(error_lines(result)[0], "[0-9]", "the numbers are told")
                self.assertFalse(os.path.exists(output))


if __name__ == "__main__":
    unittest.main()
