#!/usr/bin/env python3
"""`longspan compare`: errors, retained mass and the front against NumPy; lists, refusals, report and picture.

SPDX-License-Identifier: BSD-3-Clause
"""

import json
import math
import os
import struct
import unittest

import h5py
import numpy as np
from common import Case, error_lines, operands, oracle, run, write_input

SOURCE_DIR = os.environ.get("LONGSPAN_SOURCE_DIR", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
USAGE, LIMIT, FILE = 2, 5, 6


def matrices(q, k, **rule):
    """[B, H, n, m]: attention whose values are the identity."""
    q4, k4 = oracle.as_bhnd(q), oracle.as_bhnd(k)
    m = k4.shape[2]
    return oracle.attention(q4, k4, np.broadcast_to(np.eye(m), k4.shape[:2] + (m, m)), **rule)[0]


def times_values(w, v):
    v4 = oracle.as_bhnd(v)
    return w @ np.repeat(v4, w.shape[1] // v4.shape[1], axis=1)


def largest(w, k, renormalize):
    """Of each row the k largest weights; scores are random, so that there are no ties."""
    order = np.argsort(-w, axis=-1, kind="stable")[..., :k]
    kept = np.zeros_like(w)
    np.put_along_axis(kept, order, np.take_along_axis(w, order, -1), -1)
    mass = kept.sum(-1)
    if renormalize:
        kept /= np.where(mass > 0, mass, 1)[..., None]
    return kept, mass


def truncated(w, rank):
    u, sigma, vt = np.linalg.svd(w, full_matrices=False)
    return (u[..., :rank] * sigma[..., None, :rank]) @ vt[..., :rank, :]


def approximate(q, k, v, exact, told, **rule):
    """(out, retained mass of each row) of one entry of the report."""
    if told["method"] == "lowrank":
        return times_values(truncated(exact, told["rank"]), v), None
    if told["method"] == "block":
        shows = matrices(q, k, block_size=told["block_size"], **rule) > 0
        kept = np.where(shows, exact, 0)
        mass = kept.sum(-1)
        return times_values(kept / np.where(mass > 0, mass, 1)[..., None], v), mass
    kept, mass = largest(exact, told["topk"], told["renormalize"])
    return times_values(kept, v), mass


def relative(error, size):
    return np.linalg.norm(error) / np.linalg.norm(size)


class Compare(Case):
    def compare(self, source, ranks, **keys):
        report = self.fresh("report.json")
        keys = {key.replace("__", "."): value for key, value in keys.items()}
        keys = {"input.file": source, "report.json": report, "compare.repeats": 1, **keys}
        self.told = self.run_ok("compare", ranks, keys).stdout
        with open(report, encoding="utf-8") as file:
            return json.load(file)

    def close(self, got, expected, limit, what):
        self.assertLessEqual(abs(got - expected), limit * (1 + abs(expected)), f"{what}: {got}, not {expected}")

    def check_entry(self, q, k, v, exact, told, limit, rule):
        """One method: everything that NumPy can tell about it."""
        out = times_values(exact, v)
        approximation, mass = approximate(q, k, v, exact, told, **rule)
        difference, seen = approximation - out, exact.sum(-1) > 0.5
        self.close(told["out_error"]["frobenius_relative"], relative(difference, out), limit, told["name"])
        rows = np.linalg.norm(difference, axis=-1) / np.where(seen, np.linalg.norm(out, axis=-1), 1)
        self.close(told["out_error"]["row_max"], rows.max(), 20 * limit, told["name"])
        worst = told["out_error"]["worst"]
        self.close(rows[worst["batch"], worst["head"], worst["row"]], rows.max(), 20 * limit, told["name"])
        self.assertEqual(told["out_error"]["rows"], rows.size)
        if told["method"] == "lowrank":
            self.check_energy(v, exact, told, difference, limit)
            return
        self.close(told["retained"]["mean"], mass[seen].mean(), 10 * limit, told["name"])
        self.close(told["retained"]["min"], mass[seen].min(), 10 * limit, told["name"])
        self.assertEqual(told["retained"]["from"], {"block": "lse", "topk": "certificate"}[told["method"]])
        certificate = told["certificate"]
        self.close(certificate["dropped_mass_max"], 1 - mass[seen].min(), 10 * limit, told["name"])
        self.assertLessEqual(np.linalg.norm(difference, axis=-1).max(), certificate["out_error_bound"] + limit)
        self.assertEqual(len(told["heads"]), exact.shape[0] * exact.shape[1])
        for head in told["heads"]:
            b, h = head["batch"], head["head"]
            self.close(head["out_error"], relative(difference[b, h], out[b, h]), limit, told["name"])
            self.close(head["row_max"], rows[b, h].max(), 20 * limit, told["name"])
            if told["method"] == "block":
                self.close(head["retained"], mass[b, h][seen[b, h]].mean(), 10 * limit, told["name"])
        self.assertTrue(told["verify"]["passed"])

    def check_energy(self, v, exact, told, difference, limit):
        """The certificate of lowrank, of all heads and each."""
        left = ((exact - truncated(exact, told["rank"])) ** 2).sum((-1, -2))
        whole = (exact**2).sum((-1, -2))
        self.assertEqual(told["retained"]["from"], "energy")
        self.close(told["retained"]["mean"], 1 - left.sum() / whole.sum(), 10 * limit, told["name"])
        self.close(told["retained"]["min"], (1 - left / whole).min(), 10 * limit, told["name"])
        self.close(told["certificate"]["frobenius_error"], math.sqrt(left.sum()), 10 * limit, told["name"])
        self.assertLessEqual(np.linalg.norm(difference), told["certificate"]["out_error_bound"] + limit)
        for head in told["heads"]:
            b, h = head["batch"], head["head"]
            self.close(head["out_error"], relative(difference[b, h], times_values(exact, v)[b, h]), limit, told["name"])
            self.close(head["retained"], 1 - left[b, h] / whole[b, h], 10 * limit, told["name"])
            self.close(head["certificate"]["frobenius_error"], math.sqrt(left[b, h]), 10 * limit, told["name"])
        self.assertTrue(told["verify"]["passed"])

    def check_front(self, methods):
        """Exact is one of them, with no error."""
        points = [(one["out_error"]["frobenius_relative"], one["seconds"]["total"]) for one in methods]
        for one, (error, seconds) in zip(methods, points):
            beaten = any(e <= error and s <= seconds and (e < error or s < seconds) for e, s in points)
            self.assertEqual(one["front"], not beaten, one["name"])
            share = seconds / methods[0]["seconds"]["total"]
            self.close(one["share_of_exact"], share, 1e-12, one["name"])
        stars = [line.split()[1] for line in self.told.splitlines() if line.startswith("  * ")]
        wanted = [one["name"].split()[0] for one in methods if one["front"]]
        self.assertEqual(stars[: len(wanted)], wanted, self.told)

    def check(self, q, k, v, ranks, wanted, limit=2e-5, rule=None, dtype="f32", tables=None, **keys):
        """wanted: names of the methods in order; rule: what the oracle is told."""
        source = self.fresh("in.h5")
        write_input(source, q, k, v, dtype, **(tables or {}))
        rule = dict(rule or {}, **(tables or {}))
        keys.update({f"input__{name}": f"/{name}" for name in tables or {}})
        report = self.compare(source, ranks, **keys)
        exact = matrices(q, k, **rule)
        methods = report["methods"]
        self.assertEqual([one["name"] for one in methods], ["exact", *wanted])
        self.assertEqual(methods[0]["out_error"]["frobenius_relative"], 0)
        self.assertEqual(methods[0]["retained"], {"from": "all", "mean": 1, "min": 1})
        self.assertIsNone(methods[0]["certificate"])
        for told in methods[1:]:
            self.check_entry(q, k, v, exact, told, limit, rule)
        self.check_front(methods)
        return report

    # ---- right ------------------------------------------------------------------------------------

    def test_shapes_and_ranks(self):
        for ranks, n, m, d, d_v in ((1, 130, 97, 16, 16), (2, 61, 300, 8, 5), (3, 700, 40, 24, 7), (7, 5, 90, 3, 1)):
            with self.subTest(ranks=ranks, n=n, m=m):
                q, k, v = operands((n, d), (m, d), d_v, seed=n, reach=7)
                lists = dict(attention__block_size=f"{max(1, n // 3)},2, {n}", attention__topk="1,7,500")
                blocks = [f"block {max(1, n // 3)}", "block 2", f"block {n}"]
                names = blocks + ["topk 1", "topk 7", "topk 500"]
                report = self.check(q, k, v, ranks, names, **lists)
                whole = report["methods"][3]
                self.assertEqual(whole["out_error"]["frobenius_relative"], 0)  # one block is everything, bit by bit
                self.assertEqual(whole["retained"]["mean"], 1)

    def test_heads_batches_and_rules(self):
        q, k, v = operands((2, 4, 90, 12), (2, 2, 110, 12), 6, seed=5, reach=8)
        lists = dict(attention__block_size=20, attention__topk="3,9")
        names = ["block 20", "topk 3", "topk 9"]
        tables = dict(key_lengths=[110, 70])
        rule = dict(mask="causal", alibi=True)
        keys = dict(attention__mask="causal", attention__alibi="yes", attention__renormalize="yes")
        report = self.check(q, k, v, 2, names, rule=rule, tables=tables, **lists, **keys)
        self.assertGreater(report["empty_rows"], 0)  # of the second batch
        window = dict(mask="window", window_left=15, window_right=4)
        keys = {f"attention__{name}": value for name, value in window.items()}
        tables = dict(documents=[0, 33, 33, 90], documents_k=[0, 50, 60, 110])
        self.check(q, k, v, 3, names, rule=window, tables=tables, **lists, **keys)
        part = dict(input__heads="3,0", input__rows="11:80", input__keys="4:101")
        self.check_part(q, k, v, lists, part)

    def check_part(self, q, k, v, lists, part):
        """Heads 3 and 0 as matrices of their own, rows and keys of the whole."""
        source = self.fresh("in.h5")
        write_input(source, q, k, v)
        report = self.compare(source, 2, compute__dtype="f64", **lists, **part)
        exact = matrices(q, k, heads=[3, 0], rows=(11, 80), keys=(4, 101))
        values = v[:, [1, 0]]
        for told in report["methods"][1:]:
            if told["method"] == "topk":
                kept, mass = largest(exact, told["topk"], False)
            else:
                shows = matrices(q, k, heads=[3, 0], rows=(11, 80), keys=(4, 101), block_size=told["block_size"]) > 0
                kept = np.where(shows, exact, 0)
                mass = kept.sum(-1)
                kept = kept / np.where(mass > 0, mass, 1)[..., None]
            out = exact @ values
            self.close(told["out_error"]["frobenius_relative"], relative(kept @ values - out, out), 1e-12, told["name"])
            self.close(told["retained"]["mean"], mass.mean(), 1e-12, told["name"])
            self.assertEqual([head["head"] for head in told["heads"]], [3, 0, 3, 0])

    def test_numbers_do_not_depend_on_ranks(self):
        q, k, v = operands((3, 1100, 16), (3, 700, 16), 9, seed=8, reach=9)
        source = self.path("in.h5")
        write_input(source, q, k, v)
        lists = dict(attention__block_size="50,300", attention__topk="4,40")
        first = None
        for ranks in (1, 2, 3, 7):
            methods = self.compare(source, ranks, **lists)["methods"]
            told = [(one["name"], one["out_error"], one["heads"]) for one in methods]
            first = first or told
            self.assertEqual(told, first, f"{ranks} ranks")

    def test_bytes(self):
        """Of a rank: its share of operands and results, of what a method keeps of its rows, and room for gathered keys.
        There is one K/V head, so that ranks share its keys: each one's go to all others, but with blocks."""
        q, k, v = (x.astype(np.float32) for x in operands((2, 1600, 32), (1, 1200, 32), 48, seed=15))
        source, rows, topk, rank = self.path("in.h5"), 2 * 1600, 200, 40
        write_input(source, q, k, v)
        keys = k.nbytes + v.nbytes
        share = q.nbytes + keys + 4 * rows * (v.shape[-1] + 1)
        basis = 8 * (2 + 2) * (rank + 16) * (1600 + 1200)  # the blocks of a head's Krylov basis, in double
        # Bytes that ranks share, at least and at most, and those of each one.
        kept = dict.fromkeys(("exact", "block"), (0, 0, 1 << 19))
        kept["topk"] = 8 * rows * topk, 8 * rows * (2 * topk + 2 * v.shape[-1]), 1 << 19
        kept["lowrank"] = basis, 3 * basis, 12 << 20  # stages of rows for W^T Y, small decompositions
        lists = dict(attention__block_size=100, attention__topk=topk, attention__rank=rank)
        for ranks in (1, 2, 3):
            for told in self.compare(source, ranks, **lists, compute__gather="panels")["methods"]:
                what, (least, most, alone) = f"{told['name']} on {ranks} ranks", kept[told["method"]]
                self.assertGreaterEqual(told["bytes"]["per_rank"], (share + least) / ranks, what)
                self.assertLessEqual(told["bytes"]["per_rank"], 1.25 * (share + most) / ranks + 4 * keys + alone, what)
                if told["method"] != "lowrank":
                    travel = 0 if told["method"] == "block" else (ranks - 1) * keys
                    self.assertEqual(told["bytes"]["gathered"], travel, what)

    def test_types(self):
        q, k, v = operands((2, 60, 8), (2, 60, 8), seed=3, reach=6)
        names = ["block 7", "topk 5"]
        lists = dict(attention__block_size=7, attention__topk=5)
        self.check(q, k, v, 2, names, limit=1e-12, compute__dtype="f64", dtype="f64", **lists)
        self.check(q, k, v, 2, names, limit=0.05, compute__dtype="bf16", **lists)

    def test_lowrank(self):
        """By the full decomposition in double, which is the best there is; by Krylov's, which comes near."""
        q, k, v = operands((3, 70, 8), (3, 55, 8), 5, seed=12, reach=7)
        lists = dict(attention__rank="3,20", attention__block_size=9)
        names = ["block 9", "lowrank 3", "lowrank 20"]
        full = dict(compute__dtype="f64", attention__svd="full", dtype="f64")
        self.check(q, k, v, 3, names, limit=1e-9, **lists, **full)
        source = self.path("in.h5")
        write_input(source, q, k, v)
        best = [one["certificate"]["frobenius_error"] for one in self.compare(source, 2, **lists)["methods"][2:]]
        left = [np.linalg.norm(w - truncated(w, rank)) for w in [matrices(q, k)] for rank in (3, 20)]
        for got, least in zip(best, left):
            self.assertLess(abs(got / least - 1), 0.01)
        told = self.compare(source, 2, attention__tolerance=0.5)["methods"]
        self.assertEqual([one["name"] for one in told], ["exact", "lowrank to 0.5"])
        self.assertTrue(told[1]["certificate"]["tolerance_met"])
        self.assertLessEqual(told[1]["certificate"]["frobenius_relative"], 0.5)

    def test_lowrank_that_cannot_run(self):
        q, k, v = operands((40, 8), (40, 8), seed=14)
        self.source = source = self.path("in.h5")
        write_input(source, q, k, v)
        for keys, why in (
            (dict(attention__mask="causal"), "not causal"),
            (dict(attention__mask="window", attention__window_left=7), "not causal"),
            (dict(compute__dtype="bf16"), "f32 or f64"),
        ):
            report = self.compare(source, 2, **keys)
            self.assertNotIn("lowrank", [one["method"] for one in report["methods"]])
            self.assertIn(why, report["lowrank_left_out"])
            self.assertIn(f"lowrank left out: {report['lowrank_left_out']}", self.told)
            self.refused(USAGE, "lowrank", ranks=2, attention__rank=4, **keys)
            self.refused(USAGE, "lowrank", compare__methods="topk,lowrank", **keys)
        report = self.compare(source, 2, attention__mask="causal", attention__allow_leak="yes", attention__rank=4)
        self.assertEqual(report["methods"][1]["method"], "lowrank")
        self.assertIn("do not keep the mask", self.told)

    def test_which_methods(self):
        q, k, v = operands((400, 8), (300, 8), seed=4)
        source = self.path("in.h5")
        write_input(source, q, k, v)

        def names(**keys):
            return [one["name"] for one in self.compare(source, 1, **keys)["methods"]]

        every = ["exact", "block 64", "block 200", "topk 4", "topk 16", "topk 64", "lowrank 4", "lowrank 16"]
        self.assertEqual(names(), every)
        self.assertIn("attention.topk", self.told)
        self.assertIn("not given: values scaled to 400 x 300", self.told)
        self.assertEqual(names(attention__topk="9,2"), ["exact", "topk 9", "topk 2"])
        self.assertNotIn("scaled", self.told)
        both = names(attention__topk=3, compare__methods="block,topk")
        self.assertEqual(both, ["exact", "block 64", "block 200", "topk 3"])
        only = names(attention__topk=3, attention__block_size=5, compare__methods="block")
        self.assertEqual(only, ["exact", "block 5"])
        self.assertIn("unused   attention.topk", self.told)
        # The method of `attend` does not matter; the smallest input has values too.
        self.assertEqual(names(attention__method="topk", attention__topk=3), ["exact", "topk 3"])
        write_input(self.path("one.h5"), q[:1], k[:1], v[:1])
        source = self.path("one.h5")
        self.assertEqual(names(), ["exact", "block 1", "topk 1", "lowrank 1"])

    def test_shipped_deck(self):
        """The deck in inputs/, on the first 512 rows, with the picture; both files replace older ones."""
        plot, report = self.path("o.png"), self.path("r.json")
        options = [
            "--input.rows=0:512",
            "--input.keys=0:512",
            "--compare.repeats=2",
            f"--report.plot={plot}",
            f"--report.json={report}",
        ]
        for path in (plot, report):
            with open(path, "w", encoding="ascii") as file:
                file.write("old")
        result = run("compare", 2, "inputs/compare.ini", *options, cwd=SOURCE_DIR)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        with open(plot, "rb") as file:
            head = file.read(24)
        self.assertEqual(head[:8], b"\x89PNG\r\n\x1a\n")
        self.assertEqual(struct.unpack(">II", head[16:24]), (1080, 720))
        self.assertEqual(sorted(os.listdir(self.folder)), ["o.png", "r.json"])
        with open(report, encoding="utf-8") as file:
            told = json.load(file)
        self.assertEqual(told["command"], "compare")
        self.assertEqual(told["repeats"], 2)
        with h5py.File(os.path.join(SOURCE_DIR, "inputs/gpl3-minilm.h5")) as file:
            q, k, v = (file[name][:, :512].astype(np.float64) for name in "qkv")
        exact = matrices(q, k)
        out = times_values(exact, v)
        for one in told["methods"]:
            if one["method"] != "topk":
                continue
            kept, mass = largest(exact, one["topk"], False)
            # Equal tokens have equal scores, or nearly: what is kept of them is not sure, its weight is.
            self.close(one["retained"]["mean"], mass.mean(), 1e-4, one["name"])
            difference = times_values(kept, v) - out
            self.close(one["out_error"]["frobenius_relative"], relative(difference, out), 1e-2, one["name"])

    def test_errors_of_nothing(self):
        """Every method exact, on a picture with a logarithmic axis; one row."""
        q, k, v = operands((1, 4), (9, 4), seed=2)
        source, plot = self.path("in.h5"), self.path("x.png")
        write_input(source, q, k, v)
        report = self.compare(source, 2, attention__block_size=1, attention__topk=9, report__plot=plot)
        for one in report["methods"]:
            self.assertLess(one["out_error"]["frobenius_relative"], 1e-6)
        self.assertTrue(os.path.exists(plot))

    def test_nonfinite_rows_are_left_out(self):
        q, k, v = operands((40, 8), (40, 8), seed=6)
        q[7, 3] = math.inf
        source = self.path("in.h5")
        write_input(source, q, k, v)
        report = self.compare(source, 2, attention__topk=5, attention__block_size=8, compute__nonfinite="propagate")
        for one in report["methods"]:
            self.assertEqual((one["out_error"]["rows"], one["out_error"]["left_out"]), (39, 1))
            self.assertTrue(math.isfinite(one["out_error"]["frobenius_relative"]))

    # ---- refused ----------------------------------------------------------------------------------

    def refused(self, code, *words, command="compare", ranks=1, **keys):
        before = sorted(os.listdir(self.folder))
        keys = {"input.file": self.source, **{key.replace("__", "."): value for key, value in keys.items()}}
        result = run(command, ranks, *(f"--{key}={value}" for key, value in keys.items()))
        told = f"{keys}\n{result.stdout}\n{result.stderr}"
        self.assertEqual(result.returncode, code, told)
        lines = error_lines(result)
        self.assertEqual(len(lines), 1, told)
        for word in words:
            self.assertIn(word, lines[0])
        self.assertEqual(sorted(os.listdir(self.folder)), before, "nothing is left behind")

    def test_bad_values(self):
        q, k, v = operands((30, 8), (30, 8), seed=10)
        self.source = self.path("in.h5")
        write_input(self.source, q, k, v)
        for value in ("0", "4,0", "-3", "", "4,,5", "4,x", "4;5", "4,4", "2.5"):
            self.refused(USAGE, "attention.topk", f"'{value}'", attention__topk=value)
        for name in ("block_size", "rank"):
            self.refused(USAGE, f"attention.{name}", "'0'", "from 1", **{f"attention__{name}": "0"})
            self.refused(USAGE, f"attention.{name}", "'8,'", **{f"attention__{name}": "8,"})
        for value in ("0", "-1"):
            self.refused(USAGE, "attention.tolerance", f"'{value}'", "above 0", ranks=2, attention__tolerance=value)
        self.refused(USAGE, "block 31", "at most the 30 rows", ranks=3, attention__block_size="4,31")
        self.refused(USAGE, "compare.methods", "block", compare__methods="exact")
        self.refused(USAGE, "compare.methods", compare__methods="")
        self.refused(USAGE, "compare.repeats", compare__repeats=0)
        self.refused(FILE, "report", "no-such", report__json="/no-such/folder/x.json")
        self.refused(FILE, "picture", "no-such", report__plot="/no-such/folder/x.png")
        self.refused(LIMIT, "memory", "plan.memory_per_node", plan__memory_per_node="10K")

    def test_lists_are_for_compare(self):
        q, k, v = operands((30, 8), (30, 8), seed=11)
        self.source = self.path("in.h5")
        write_input(self.source, q, k, v)
        output = dict(output__file=self.path("o.h5"))
        for method, name in (("topk", "topk"), ("block", "block_size")):
            keys = {"attention__method": method, f"attention__{name}": "4,5"}
            self.refused(USAGE, f"attention.{name} = 4,5", "compare", command="attend", **keys, **output)
            self.refused(USAGE, f"attention.{name} = 4,5", "compare", command="plan", **keys)
        self.refused(USAGE, "attention.rank = 4,5", "compare", command="svd", attention__rank="4,5", **output)
        # A deck may be shared: lists that a command does not use are fine.
        keys = [f"--input.file={self.source}", f"--output.file={self.path('o.h5')}", "--attention.topk=4,5"]
        result = run("attend", 1, *keys)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("unused   attention.topk", result.stdout)


if __name__ == "__main__":
    unittest.main()
