#!/usr/bin/env python3
"""bench: what it measures, its table and report, comparing with an earlier one. No speed is asserted.

SPDX-License-Identifier: BSD-3-Clause
"""

import json
import os
import unittest

from common import Case, error_lines, isas, run

USAGE, CONTENT, LIMIT, FILE = 2, 3, 5, 6

# Small enough for a test: cells take milliseconds, arrays of the bandwidth a megabyte.
SMALL = {
    "bench.types": "f32",
    "bench.d": "16",
    "bench.n": "96",
    "bench.masks": "none",
    "bench.threads": "1",
    "bench.row_keys": "0",
    "bench.seconds": "0",
    "bench.read_bytes": "1M",
}


def options(keys):
    return [f"--{key}={value}" for key, value in keys.items()]


class Bench(Case):
    def bench(self, ranks=1, *more, **keys):
        """Returns (standard output, report)."""
        path = self.fresh("bench.json")
        keys = {**SMALL, "report.json": path, **{key.replace("__", "."): value for key, value in keys.items()}}
        result = run("bench", ranks, *options(keys), *more)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        with open(path, encoding="utf-8") as file:
            return result.stdout, json.load(file)

    def refused(self, code, words, *more, on=(1, 2), **keys):
        keys = {**SMALL, **{key.replace("__", "."): value for key, value in keys.items()}}
        for ranks in on:
            result = run("bench", ranks, *options(keys), *more)
            self.assertEqual(result.returncode, code, result.stdout + result.stderr)
            self.assertEqual(len(error_lines(result)), 1, result.stderr)
            for word in words:
                self.assertIn(word, error_lines(result)[0])

    def write(self, name, content):
        path = self.path(name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(content if isinstance(content, str) else json.dumps(content))
        return path

    # ---- the grid and its numbers ---------------------------------------------------------------------

    def test_grid(self):
        """Every combination once, in the table and in the report."""
        stdout, report = self.bench(
            bench__types="f32,bf16", bench__d="16, 40", bench__n="64,100", bench__masks="none,causal,window"
        )
        cells = report["cells"]
        seen = {(c["dtype"], c["shape"]["d_k"], c["shape"]["n"], c["mask"]) for c in cells}
        self.assertEqual((len(cells), len(seen)), (24, 24))
        self.assertEqual(stdout.count("64 x 64"), 12)
        self.assertEqual(stdout.count("window 511+0"), 8)
        for cell in cells:
            self.assertEqual(cell["operands"], cell["dtype"])
            self.assertTrue(cell["verify"]["passed"])
            self.assertEqual(cell["verify"]["rows"], 16)
        self.assertRegex(stdout.strip().splitlines()[-1], r"^longspan: PASSED, 24 measurements\b")

    def test_numbers_belong_together(self):
        """Flops count visible pairs; rates, shares and scatter follow from times and peaks."""
        _, report = self.bench(
            bench__masks="none,causal,window", attention__window_left=9, shape__heads=3, shape__d_v=24, bench__d=16
        )
        pairs = {"none": 96 * 96, "causal": 96 * 97 // 2, "window": 10 * 96 - 45}
        for cell in report["cells"]:
            self.assertEqual(cell["flops"], 2 * (16 + 24) * 3 * pairs[cell["mask"]], cell["mask"])
            seconds = cell["seconds"]
            self.assertGreaterEqual(seconds["median"], seconds["best"])
            self.assertGreaterEqual(cell["repetitions"], 5)
            for got, expected in (
                (cell["gflops"], cell["flops"] / seconds["best"] / 1e9),
                (cell["gflops_median"], cell["flops"] / seconds["median"] / 1e9),
                (cell["efficiency"], cell["gflops"] / cell["fma_peak_gflops"]),
                (cell["scatter"], seconds["median"] / seconds["best"] - 1),
                (cell["efficiency_burst"], cell["gflops"] / cell["fma_burst_gflops"]),
            ):
                self.assertAlmostEqual(got, expected, delta=1e-9 * (1 + abs(expected)))
            self.assertGreater(cell["efficiency_median"], 0)
            self.assertGreaterEqual(cell["fma_burst_gflops"], cell["fma_peak_gflops"])
            self.assertGreaterEqual(cell["limit_scatter"], 0)

    def test_one_row(self):
        """Bytes of K and V, each once; grouped heads share them."""
        stdout, report = self.bench(
            bench__types="f32,f64", bench__row_keys=5000, shape__heads=4, shape__kv_heads=2, verify__rows=3
        )
        rows = [cell for cell in report["cells"] if cell["limit"] == "read"]
        self.assertEqual([cell["bytes_read"] for cell in rows], [2 * 5000 * 32 * size for size in (4, 8)])
        for cell in rows:
            self.assertEqual((cell["shape"]["n"], cell["shape"]["m"]), (1, 5000))
            self.assertTrue(cell["verify"]["passed"])
            rate = cell["bytes_read"] / cell["seconds"]["best"] / 1e9
            self.assertAlmostEqual(cell["gbytes_per_second"], rate, delta=1e-9 * rate)
        self.assertEqual(stdout.count("1 x 5000"), 2)

    def test_machine(self):
        """A peak for each type on each instruction set, and the bandwidth, for each number of threads."""
        stdout, report = self.bench(bench__threads="1,2")
        peaks = {(peak["isa"], peak["dtype"], peak["threads"]) for peak in report["fma_peak"]}
        wanted = {(isa, dtype, t) for isa in isas() for dtype in ("f32", "f64", "bf16") for t in (1, 2)}
        self.assertEqual(peaks, wanted)
        self.assertTrue(all(peak["gflops"] > 0 for peak in report["fma_peak"]))
        self.assertEqual([read["threads"] for read in report["read_bandwidth"]], [1, 2])
        self.assertTrue(all(read["gbytes_per_second"] > 0 for read in report["read_bandwidth"]))
        self.assertTrue(all(read["array_bytes"] == 1 << 20 for read in report["read_bandwidth"]))
        self.assertEqual([cell["threads"] for cell in report["cells"]], [1, 2])
        self.assertEqual((report["command"], report["ranks"]), ("bench", 1))
        self.assertIn("read bandwidth", stdout)

    def test_ranks(self):
        """Several ranks share the rows; the whole is counted."""
        for ranks in (2, 3):
            stdout, report = self.bench(ranks, bench__masks="none,causal", bench__row_keys=3000)
            self.assertEqual(report["ranks"], ranks)
            self.assertEqual([cell["flops"] for cell in report["cells"][:2]], [64 * 96 * 96, 64 * 96 * 97 / 2])
            self.assertEqual(report["cells"][2]["bytes_read"], 3000 * 32 * 4)
            self.assertEqual(stdout.count("longspan: PASSED"), 1)

    def test_keys_of_attend_stand_for_lists(self):
        """A deck of `attend` measures its own type, shape and mask."""
        path = self.fresh("bench.json")
        keys = {key: SMALL[key] for key in ("bench.row_keys", "bench.seconds", "bench.read_bytes")}
        keys |= {"compute.dtype": "f64", "compute.threads": 2, "compute.isa": "portable", "report.json": path}
        keys |= {"attention.mask": "causal", "shape.n": 70, "shape.m": 90, "shape.d_k": 20, "shape.type": "f16"}
        self.run_ok("bench", 1, {**keys, "attention.softcap": 30})
        with open(path, encoding="utf-8") as file:
            (cell,) = json.load(file)["cells"]
        shape = {"batch": 1, "heads": 1, "kv_heads": 1, "n": 70, "m": 90, "d_k": 20, "d_v": 20}
        self.assertEqual(cell["shape"], shape)
        told = (cell["dtype"], cell["operands"], cell["mask"], cell["threads"], cell["isa"])
        self.assertEqual(told, ("f64", "f16", "causal", 2, "portable"))

    def test_unused_keys_are_told(self):
        stdout, _ = self.bench(1, "--attention.softcap=30")
        self.assertRegex(stdout, r"unused +attention\.softcap\n")

    # ---- comparing ------------------------------------------------------------------------------------

    def test_compare(self):
        """Cells are found by what they measure; slower is what lies beyond the scatter of both runs."""
        _, report = self.bench(bench__masks="none,causal", bench__row_keys=2000)
        none, causal, row = report["cells"]
        none.update(gflops=none["gflops"] * 1e6, scatter=0.5)
        causal.update(gflops=causal["gflops"] / 1e6)
        row.update(gbytes_per_second=row["gbytes_per_second"] * 1e6, scatter=1e9)
        earlier = self.write("earlier.json", {**report, "cells": [row, causal, none]})
        stdout, now = self.bench(
            1, "--compare", earlier, bench__masks="window,none,causal", bench__row_keys=2000, attention__window_left=5
        )
        window, none_now, causal_now, row_now = now["cells"]
        self.assertNotIn("earlier", window)
        for cell, old, key, slower in (
            (none_now, none, "gflops", True),
            (causal_now, causal, "gflops", False),
            (row_now, row, "gbytes_per_second", False),
        ):
            self.assertAlmostEqual(cell["earlier"][key] / old[key], 1, places=9)
            self.assertAlmostEqual(cell["earlier"]["ratio"] / (cell[key] / old[key]), 1, places=9)
            self.assertEqual(cell["earlier"]["slower"], slower, key)
        self.assertEqual(stdout.count("SLOWER"), 1)
        self.assertIn("1 measurements are not in that file", stdout)
        self.assertIn("1 slower than in " + earlier, stdout.strip().splitlines()[-1])
        self.assertEqual(now["compared_with"], earlier)

    def test_ways_to_say_compare(self):
        path = self.write("first.json", self.bench()[1])
        for more in (["--compare", path], [f"--compare={path}"], [f"--bench.compare={path}"]):
            stdout, report = self.bench(1, *more)
            self.assertIn("compared with " + path, stdout)
            self.assertIn("earlier", report["cells"][0])

    def test_compare_refuses(self):
        """Before anything is measured."""
        _, report = self.bench()
        for what, content, words in (
            ("JSON", "no JSON at all", ["JSON"]),
            ("empty", "", ["JSON"]),
            ("cut", json.dumps(report)[:-20], ["JSON"]),
            ("other command", {**report, "command": "attend"}, ["command"]),
            ("no command", [1, 2], ["command"]),
            ("no cells", {**report, "cells": None}, ["cells"]),
            ("no number", {**report, "cells": [{**report["cells"][0], "gflops": "fast"}]}, ["numbers"]),
            ("other cells", {**report, "cells": [{**report["cells"][0], "dtype": "f64"}]}, ["none of the"]),
            ("nothing", {**report, "cells": []}, ["none of the"]),
            ("other ranks", {**report, "ranks": 5}, ["none of the"]),
        ):
            with self.subTest(what):
                path = self.write("earlier.json", content)
                on = (2,) if what == "JSON" else (1,)  # rank 0 alone reads it; all hear the verdict
                self.refused(CONTENT, ["earlier.json", *words], "--compare", path, on=on)

    def test_compare_with_no_file(self):
        self.refused(FILE, ["absent.json"], "--compare", self.path("absent.json"))
        self.refused(FILE, [self.folder], f"--compare={self.folder}")
        self.refused(USAGE, ["--compare"], "--compare")
        self.refused(USAGE, ["bench.compare"], "--compare=")

    def test_compare_is_benchs_alone(self):
        result = run("plan", 1, "--shape.n=10", "--shape.d_k=8", f"--compare={self.path('x.json')}")
        self.assertEqual(result.returncode, USAGE, result.stderr)

    # ---- what cannot be measured ----------------------------------------------------------------------

    def test_bad_values(self):
        for key, value, word in (
            ("bench.types", "f16", "bf16, f32, f64"),
            ("bench.types", "f32,f32", "bench.types"),
            ("bench.types", "", "bench.types"),
            ("bench.d", "64,", "bench.d"),
            ("bench.d", "0", "from 1"),
            ("bench.n", "16,x", "bench.n"),
            ("bench.n", "16,16", "different"),
            ("bench.masks", "none;causal", "bench.masks"),
            ("bench.threads", "0", "from 1"),
            ("bench.row_keys", "-1", "from 0"),
            ("bench.mask", "none", "bench.masks"),
        ):
            with self.subTest(f"{key}={value}"):
                self.refused(USAGE, [word], f"--{key}={value}", on=(1,))

    def test_impossible_runs(self):
        self.refused(USAGE, ["heads"], shape__heads=3, shape__kv_heads=2)
        self.refused(LIMIT, ["1000000 x 1000000", "plan.memory_per_node"], bench__n=1000000, plan__memory_per_node="1M")
        many = ",".join(str(i) for i in range(1, 61))
        self.refused(USAGE, ["10000"], bench__n=many, bench__d=many, bench__masks="none,causal,window")
        nowhere = os.path.join(self.folder, "absent", "report.json")
        self.refused(FILE, [nowhere], report__json=nowhere)


if __name__ == "__main__":
    unittest.main()
