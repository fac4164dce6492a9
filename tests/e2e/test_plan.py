#!/usr/bin/env python3
"""plan beside real runs: counts agree to the last one, parts add up, the line that submits says what is advised. Times are
never asserted (tests/peers/plan_check.py measures them).

SPDX-License-Identifier: BSD-3-Clause
"""

import json
import os
import re
import shlex
import unittest

import h5py
import numpy as np
from common import Case, error_lines, operands, run, write_input

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
PARTS = {"read", "project", "compute", "gather_exposed", "verify", "write", "other"}
USAGE, CONTENT, FILE = 2, 3, 6


class Plans(Case):
    def plan(self, *options, deck=None, ranks=1, cwd=None, flops=1e11, **keys):
        """Its report, and what it says."""
        report = self.fresh("plan.json")
        keys = {"report.json": report, **{key.replace("__", "."): value for key, value in keys.items()}}
        if flops:
            keys["plan.flops_per_rank"] = flops
        arguments = [f"--{key}={value}" for key, value in keys.items()] + list(options)
        result = run("plan", ranks, *([deck] if deck else []), *arguments, cwd=cwd)
        self.assertEqual(result.returncode, 0, f"{arguments}\n{result.stdout}\n{result.stderr}")
        with open(report, encoding="utf-8") as file:
            return json.load(file), result.stdout

    def refused(self, code, *words, **keys):
        keys = {"shape.n": 100, "shape.d_k": 8, **{key.replace("__", "."): value for key, value in keys.items()}}
        result = run("plan", 2, *(f"--{key}={value}" for key, value in keys.items()))
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        self.assertEqual(len(error_lines(result)), 1, result.stderr)
        for word in words:
            self.assertIn(word, error_lines(result)[0])


class Counts(Plans):
    def agree(self, command, ranks, keys, names, written=None, most=False):
        """Numbers of the plan and of the run it plans. written: of the output's bytes, where all of it is counted.
        most: what is gathered is told as if nothing were hidden."""
        output, report = self.fresh("out.h5"), self.fresh("report.json")
        self.run_ok(command, ranks, {**keys, "output.file": output, "report.json": report})
        with open(report, encoding="utf-8") as file:
            ran = json.load(file)
        planned, _ = self.plan(
            deck=self.deck({"compute.threads": 1, **keys, "output.file": output}), plan__ranks=ranks, plan__command=command
        )
        self.assertEqual(planned["plan"]["command"], command)
        for name in names:
            self.assertEqual(planned[name], ran[name], f"{name} of {command} {keys} on {ranks} ranks")
        gathered = [report["bytes"]["gathered"] for report in (planned, ran)]
        self.assertTrue(gathered[0] == gathered[1] or (most and gathered[0] > gathered[1]), f"{gathered}, {keys}, {ranks}")
        if written:
            with h5py.File(output) as file:
                self.assertEqual(planned["bytes"]["output"], sum(file[name].nbytes for name in written))
        return planned, ran

    def test_attend(self):
        source = self.path("in.h5")
        write_input(source, *operands((4, 131, 16), (2, 1300, 16), 24, seed=1))
        names = ("flops", "panels", "panel_rows", "gather", "partition")
        for keys in (
            {"attention.mask": "causal"},
            {"attention.mask": "window", "attention.window_left": 100, "compute.gather": "panels"},
            {"attention.method": "block", "attention.block_size": 17},
            {"attention.method": "topk", "attention.topk": 5, "compute.gather": "chain"},
            {"attention.method": "lowrank", "attention.rank": 7, "compute.dtype": "f64"},
        ):
            for ranks in (1, 3):
                planned, _ = self.agree("attend", ranks, {"input.file": source, **keys}, names, ("out", "lse"))
                self.assertEqual(planned["bytes"]["input"], 4 * (4 * 131 * 16 + 2 * 1300 * (16 + 24)))
        keys = {"attention.method": "topk", "attention.topk": 5, "output.weights": "yes"}
        weights = ("out", "lse", "weights/indptr", "weights/indices", "weights/data")
        self.agree("attend", 2, {"input.file": source, **keys}, names, weights)

    def test_svd(self):
        """Also blocks in several turns of columns, and a basis that is as wide as the matrix."""
        source = self.path("in.h5")
        write_input(source, *operands((2, 640, 16), (1, 500, 16), seed=2, reach=40))
        for keys, most in (
            ({"attention.rank": 9, "attention.method": "block", "attention.block_size": 100}, 9),
            ({"attention.rank": 10, "attention.steps": 1}, 10),
            ({"attention.rank": 280, "attention.oversample": 0, "attention.steps": 0}, 280),
            ({"attention.rank": 210, "attention.oversample": 10, "attention.steps": 3}, 210),
        ):
            for ranks in (1, 3):
                keys = {"input.file": source, "compute.dtype": "f64", **keys}
                planned, _ = self.agree("svd", ranks, keys, ("flops",), ("singular_values", "u", "vt"), "attention.method" in keys)
                self.assertEqual(planned["bytes"]["output"], 8 * 2 * most * (1 + 640 + 500))

    def test_layer(self):
        source = self.path("in.h5")
        random = np.random.default_rng(3)
        with h5py.File(source, "w") as file:
            file["x"] = random.standard_normal((2, 700, 24)).astype(np.float32)
            file["qkv_proj.weight"] = random.standard_normal((6 + 2 * 2) * 8 * 24).reshape(-1, 24).astype(np.float32)
            file["out_proj.weight"] = random.standard_normal((24, 48)).astype(np.float32)
        keys = {"input.file": source, "layer.heads": 6, "layer.kv_heads": 2, "attention.mask": "causal"}
        for ranks in (1, 3):
            planned, _ = self.agree("layer", ranks, keys, ("flops", "project_flops"), ("y",))
            self.assertGreater(planned["plan"]["seconds"]["project"], 0)
            self.assertEqual(planned["bytes"]["input"], 4 * (2 * 700 * 24 + 10 * 8 * 24 + 24 * 48))
        # The same from [shape] alone, where d_model is that of all heads.
        shape = {"shape__n": 700, "shape__batch": 2, "shape__d_k": 8, "layer__heads": 6, "layer__kv_heads": 2}
        told, _ = self.plan(**shape, attention__mask="causal", plan__ranks=3)
        self.assertEqual(told["flops"], planned["flops"])
        self.assertEqual(told["project_flops"], planned["project_flops"] * 2)

    def test_map(self):
        source = self.path("in.h5")
        write_input(source, *operands((3, 200, 16), (3, 300, 16), seed=4))
        output, report = self.path("map.h5"), self.path("map.json")
        keys = {"input.file": source, "map.pixels": 10}
        self.run_ok("map", 2, {**keys, "output.file": output, "report.json": report})
        planned, _ = self.plan(deck=self.deck({**keys, "output.file": output}), plan__ranks=2)
        with open(report, encoding="utf-8") as file:
            self.assertEqual(planned["flops"], json.load(file)["flops"])


class Told(Plans):
    def check(self, planned, stdout=None):
        plan = planned["plan"]
        seconds = dict(plan["seconds"])
        total = seconds.pop("total")
        self.assertEqual(set(seconds), PARTS)
        self.assertTrue(all(value >= 0 for value in seconds.values()), seconds)
        self.assertAlmostEqual(sum(seconds.values()), total, delta=1e-9 * total)
        self.assertEqual(planned["seconds"]["compute"], seconds["compute"])
        self.assertIn(plan["limit"], ("compute", "memory", "link", "file"))
        suggest = plan["suggest"]
        words = shlex.split(plan["sbatch"])
        self.assertEqual(words[0], "sbatch")
        for name, wanted in (
            ("nodes", suggest["nodes"]),
            ("ntasks-per-node", suggest["ranks_per_node"]),
            ("cpus-per-task", suggest["threads"]),
        ):
            self.assertIn(f"--{name}={wanted}", words)
        time = next(word for word in words if word.startswith("--time=")).removeprefix("--time=")
        hours, minutes, rest = (int(part) for part in time.split(":"))
        self.assertGreater(3600 * hours + 60 * minutes + rest, 1.2 * max(total, suggest["total"]))
        memory = next(word for word in words if word.startswith("--mem=")).removeprefix("--mem=")
        self.assertTrue(memory.endswith("G") and int(memory[:-1]) >= 1, memory)
        if stdout:
            self.assertIn(plan["sbatch"], stdout)
            self.assertRegex(stdout.strip().splitlines()[-1], r"^longspan: PASSED, .*about ")
        return words

    def test_shipped_decks(self):
        """Each is recognised as the command's that its first lines name, and the script for that is there."""
        for deck, command in (
            ("quickstart", "attend"),
            ("topk", "attend"),
            ("lowrank", "attend"),
            ("documents", "attend"),
            ("layer", "layer"),
            ("svd", "svd"),
            ("map", "map"),
            ("compare", "compare"),
        ):
            planned, stdout = self.plan(deck=f"inputs/{deck}.ini", cwd=ROOT, plan__ranks=2)
            self.assertEqual(planned["plan"]["command"], command, deck)
            self.assertIn(f"plan of `{command}`", stdout)
            self.assertNotIn("unused", stdout, deck)
            words = self.check(planned, stdout)
            if command == "map":
                self.assertIn("longspan map inputs/map.ini", words[-1])
                continue
            script, named = words[-2:]
            self.assertTrue(os.path.exists(os.path.join(ROOT, script)), script)
            self.assertEqual((script, named), (f"jobs/{command}.sbatch", f"inputs/{deck}.ini"))

    def test_large(self):
        """Of a cluster that is not here: the deck's keys as options go along, the job's size does not."""
        keys = {"shape__n": 1 << 22, "shape__d_k": 128, "shape__heads": 8, "plan__ranks": 128, "plan__ranks_per_node": 2}
        planned, stdout = self.plan(
            **keys,
            plan__threads=32,
            plan__memory_per_node="256G",
            attention__mask="causal",
            compute__threads=2,
            output__file="it's here.h5",
            flops=3e12,
        )
        words = self.check(planned, stdout)
        self.assertEqual(planned["plan"]["suggest"]["nodes"], 64)
        self.assertEqual(planned["plan"]["suggest"]["ranks_per_node"], 2)
        self.assertEqual(planned["plan"]["limit"], "compute")
        self.assertIn("--attention.mask=causal", words)
        self.assertIn("--output.file=it's here.h5", words)
        self.assertFalse([word for word in words if re.match("--(plan|shape|compute.threads|report)", word)], words)
        # The slower the link the longer the wait, which in the end is the limit.
        waits = []
        for bandwidth in (1e11, 1e9, 1e7):
            slow, _ = self.plan(**keys, plan__threads=32, plan__bandwidth=bandwidth, flops=3e12)
            waits.append(slow["plan"]["seconds"]["gather_exposed"])
            self.check(slow)
        self.assertEqual(waits, sorted(waits))
        self.assertGreater(waits[2], 100 * waits[0])
        self.assertEqual(slow["plan"]["limit"], "link")
        slow, _ = self.plan(**keys, plan__read_bandwidth=1e6, flops=1e15)
        self.assertEqual(slow["plan"]["limit"], "file")
        self.assertGreaterEqual(slow["plan"]["seconds"]["read"], slow["bytes"]["input"] / 1e6)

    def test_awkward_names(self):
        """The line is what a shell makes of it, also where it is a word within a word."""
        for command, name in (("map", "it's a map.ini"), ("attend", "a $deck; \"x\".ini")):
            deck = self.deck({"shape.n": 100, "shape.d_k": 8, "plan.command": command}, name)
            planned, _ = self.plan("--output.file=a 'b'.h5", deck=deck)
            words = self.check(planned)
            if command == "map":
                self.assertTrue(words[-1].startswith("--wrap=srun "), words)
                words = shlex.split(words[-1])
            self.assertEqual(words[-2:], [deck, "--output.file=a 'b'.h5"])

    def test_which_command(self):
        shape = {"shape__n": 300, "shape__d_k": 8}
        for keys, command in (
            ({}, "attend"),
            ({"attention__rank": 4}, "svd"),
            ({"attention__rank": 4, "attention__method": "lowrank"}, "attend"),
            ({"attention__rank": 4, "attention__method": "lowrank", "plan__command": "svd"}, "svd"),
            ({"attention__rank": 4, "plan__command": "attend"}, "attend"),
            ({"attention__rank": 4, "attention__method": "exact"}, "attend"),
            ({"attention__rank": 4, "attention__method": "exact", "output__vectors": "no"}, "svd"),
            ({"layer__heads": 2}, "layer"),
            ({"map__pixels": 9}, "map"),
            ({"compare__repeats": 2, "attention__topk": "4,8"}, "compare"),
        ):
            planned, _ = self.plan(**shape, **keys)
            self.assertEqual(planned["plan"]["command"], command, keys)
            self.check(planned)
        self.refused(USAGE, "plan.command", "layer", plan__command="attent")
        self.refused(USAGE, "attention.rank is missing", plan__command="svd")
        self.refused(USAGE, "layer.heads", plan__command="layer")

    def test_measured(self):
        """Something is measured, for types and columns of every kind."""
        for keys in ({}, {"compute__dtype": "f64", "attention__rank": 3}, {"attention__mask": "window", "attention__window_left": 50}):
            planned, _ = self.plan(ranks=2, flops=None, shape__n=1000, shape__d_k=24, compute__threads=1, **keys)
            self.check(planned)
            rates = planned["plan"]["rates"]
            self.assertIn("measured", rates["source"])
            self.assertTrue(all(rates[name] > 0 for name in ("kernel", "peak", "dense", "memory", "slowness")), rates)
            self.assertEqual(planned["flops_per_rank"], rates["kernel"])

    def test_of_a_bench(self):
        """Rates of another machine, by the report that `bench` made there."""
        bench = self.path("bench.json")
        keys = ["types=f32,f64", "d=16,64", "n=300", "masks=none", "threads=1", "row_keys=0", "seconds=0", "read_bytes=1M"]
        result = run("bench", 1, *(f"--bench.{key}" for key in keys), f"--report.json={bench}")
        self.assertEqual(result.returncode, 0, result.stderr)
        with open(bench, encoding="utf-8") as file:
            measured = json.load(file)
        for dtype in ("f32", "f64"):
            peak = max(p["gflops"] for p in measured["fma_peak"] if p["dtype"] == dtype and p["isa"] == measured["isa"])
            cell = next(c for c in measured["cells"] if c["dtype"] == dtype and c["shape"]["d_k"] == 64)
            planned, _ = self.plan(
                flops=None, shape__n=5000, shape__d_k=80, compute__dtype=dtype, plan__bench=bench, plan__threads=4
            )
            rates = planned["plan"]["rates"]
            self.assertAlmostEqual(rates["kernel"] / (cell["efficiency_median"] * peak * 1e9), 1, places=6)
            self.assertAlmostEqual(planned["flops_per_rank"] / rates["kernel"], 4, places=6)
            self.assertIn(bench, rates["source"])
        self.refused(CONTENT, "plan.bench", plan__bench=bench, compute__dtype="bf16")
        self.refused(FILE, "no-such", "plan.bench", plan__bench="/no-such/bench.json")
        attend, junk = self.path("attend.json"), self.path("junk.json")
        measured["command"] = "attend"
        with open(attend, "w", encoding="utf-8") as file:
            json.dump(measured, file)
        with open(junk, "w", encoding="utf-8") as file:
            file.write("{")
        self.refused(CONTENT, "command is not bench", plan__bench=attend)
        self.refused(CONTENT, "JSON", plan__bench=junk)


if __name__ == "__main__":
    unittest.main()
