#!/usr/bin/env python3
"""attend with method = lowrank: outputs, certificates and bounds against NumPy's SVD of the matrix by definition;
masks, heads, documents, verification, plans and refusals.

SPDX-License-Identifier: BSD-3-Clause
"""

import json
import math
import os
import unittest

import h5py
import numpy as np
from common import Case, error_lines, operands, oracle, run, text, write_input

USAGE, CONTENT, VERIFY, LIMIT = 2, 3, 4, 5


def matrices(q, k, **rule):
    """[B, H, n, m]: attention whose values are the identity."""
    q4, k4 = oracle.as_bhnd(q), oracle.as_bhnd(k)
    m = k4.shape[2]
    w, _ = oracle.attention(q4, k4, np.broadcast_to(np.eye(m), k4.shape[:2] + (m, m)), **rule)
    return w


class LowRank(Case):
    def lowrank(self, source, ranks, **keys):
        return self.attend(source, ranks, attention__method="lowrank", **keys)

    def check_head(self, w, v, out, told, limit, ratio, what):
        """One head's output [n, d_v] and report. Returns its squared errors: of W, and of the output."""
        rank = told["rank"]
        u, sigma, vt = np.linalg.svd(w, full_matrices=False)
        norm, best = np.linalg.norm(w), math.sqrt((sigma[rank:] ** 2).sum())
        size = np.linalg.norm(w) * np.linalg.norm(v, 2)
        truncated = (u[:, :rank] * sigma[:rank]) @ (vt[:rank] @ v)
        error = np.linalg.norm(w @ v - out)
        self.assertLessEqual(error, told["out_error_bound"] + limit * size, f"{what}: the bound holds")
        self.near(told["norm"], norm, limit, what)
        if told["meaningful"]:
            self.assertLessEqual(told["frobenius_error"], 1.01 * ratio * best, what)
            self.assertGreaterEqual(told["frobenius_error"], 0.99 * best, what)
            # What of V lies outside of the kept space, as NumPy has it: the bound is no larger.
            left = np.linalg.norm(v - vt[:rank].T @ (vt[:rank] @ v), 2)
            self.assertLessEqual(told["out_error_bound"], 1.1 * ratio * best * left + limit * size, what)
        else:
            self.assertLessEqual(best, told["floor"] * norm, what)
        if ratio == 1:
            self.assertLessEqual(np.linalg.norm(out - truncated), 100 * limit * size, f"{what}: NumPy's output")
        else:
            self.assertLessEqual(
                error, 1.02 * np.linalg.norm(w @ v - truncated) + 0.02 * best * np.linalg.norm(v, 2) + limit * size, what
            )
        return told["frobenius_error"] ** 2, error**2

    def check(self, source, q, k, v, ranks, rule=None, limit=4e-6, ratio=1.005, **keys):
        """All heads; rule: what the oracle is told. Returns the report."""
        (result, report), rule = self.lowrank(source, ranks, **keys), rule or {}
        what = f"{ranks} ranks, {keys}"
        w = matrices(q, k, **rule)
        out = oracle.as_bhnd(np.asarray(result["out"][0], np.float64))
        exact, lse = oracle.attention(oracle.as_bhnd(q), oracle.as_bhnd(k), oracle.as_bhnd(v), **rule)
        self.assertEqual(out.shape, exact.shape, what)
        self.near(oracle.as_bhnd(result["lse"][0][..., None])[..., 0], lse, limit, what + ": lse", least=1.0)
        certificate, squares, v4 = report["certificate"], [], oracle.as_bhnd(v)
        self.assertEqual(len(certificate["heads"]), w.shape[0] * w.shape[1])
        chosen = rule.get("heads") or list(range(w.shape[1]))
        for told in certificate["heads"]:
            b, h = told["batch"], chosen.index(told["head"])
            group = oracle.as_bhnd(q).shape[1] // v4.shape[1]
            squares.append(
                self.check_head(
                    w[b, h], v4[b, told["head"] // group], out[b, h], told, limit, ratio, f"{what}, head {told['head']}"
                )
            )
        self.near(certificate["frobenius_error"], math.sqrt(sum(s[0] for s in squares)), 1e-9, what)
        self.assertEqual(certificate["rank"], max(told["rank"] for told in certificate["heads"]))
        self.assertLessEqual(
            math.sqrt(sum(s[1] for s in squares)), certificate["out_error_bound"] * (1 + 1e-9) + limit * np.linalg.norm(exact)
        )
        self.assertEqual(certificate["meaningful"], all(told["meaningful"] for told in certificate["heads"]))
        self.assertTrue(report["verify"]["passed"], what)
        return report

    # ---- right ------------------------------------------------------------------------------------

    def test_shapes_and_ranks(self):
        for ranks, n, m, d_k, d_v, rank in (
            (1, 130, 97, 16, 24, 10),
            (2, 61, 300, 8, 3, 7),
            (3, 700, 1040, 24, 31, 12),
            (4, 5, 90, 3, 1, 4),
            (7, 640, 1650, 16, 16, 20),
            (7, 3, 5, 2, 4, 1),
            (2, 1, 40, 4, 4, 3),
            (2, 40, 1, 4, 4, 3),
        ):
            with self.subTest(ranks=ranks, n=n, m=m):
                q, k, v = operands((n, d_k), (m, d_k), d_v, seed=n, reach=9)
                source = self.fresh("in.h5")
                write_input(source, q, k, v)
                report = self.check(source, q, k, v, ranks, attention__rank=rank)
                self.assertEqual(report["certificate"]["rank"], min(rank, n, m))
                self.assertEqual(report["method"], "lowrank")
                self.assertFalse(report["certificate"]["leak"])

    def test_full_is_numpys(self):
        q, k, v = operands((2, 70, 8), (2, 55, 8), 13, seed=6, reach=7)
        source = self.path("in.h5")
        write_input(source, q, k, v)
        for ranks in (1, 3, 4):
            self.check(source, q, k, v, ranks, ratio=1, attention__rank=9, attention__svd="full")
        self.check(
            source, q, k, v, 2, limit=1e-12, ratio=1, attention__rank=9, attention__svd="full", compute__dtype="f64"
        )

    def test_heads_batches_and_rules(self):
        q, k, v = operands((2, 4, 150, 12), (2, 2, 170, 12), 10, seed=5, reach=8)
        source = self.path("in.h5")
        write_input(source, q, k, v, key_lengths=[170, 120], documents=[0, 40, 40, 150], documents_k=[0, 60, 66, 170])
        lengths = dict(input__key_lengths="/key_lengths", attention__alibi="yes")
        self.check(source, q, k, v, 2, dict(key_lengths=[170, 120], alibi=True), attention__rank=6, **lengths)
        self.check(source, q, k, v, 3, dict(heads=[3, 1]), attention__rank=6, input__heads="3,1")
        causal = dict(attention__mask="causal", attention__allow_leak="yes")
        report = self.check(source, q, k, v, 2, dict(mask="causal"), attention__rank=8, **causal)
        self.assertTrue(report["certificate"]["leak"])
        self.assertEqual(report["partition"], "balanced")
        window = dict(attention__mask="window", attention__window_left=30, attention__window_right=5)
        rule = dict(mask="window", window_left=30, window_right=5)
        self.check(source, q, k, v, 4, rule, attention__rank=40, **window)
        documents = dict(input__documents="/documents", input__documents_k="/documents_k")
        rule = dict(documents=[0, 40, 40, 150], documents_k=[0, 60, 66, 170])
        self.check(source, q, k, v, 3, rule, attention__rank=12, compute__gather="node", **documents)

    def test_part(self):
        q, k, v = operands((2, 150, 12), (2, 170, 12), 10, seed=3, reach=8)
        source = self.path("in.h5")
        write_input(source, q, k, v)
        for ranks in (2, 3):
            self.check(
                source,
                q,
                k,
                v,
                ranks,
                dict(rows=(20, 140), keys=(10, 160)),
                attention__rank=7,
                input__rows="20:140",
                input__keys="10:160",
            )

    def test_rows_without_keys_and_keys_without_rows(self):
        q, k, v = operands((40, 8), (10, 8), seed=1)
        source = self.path("in.h5")
        write_input(source, q, k, v)
        causal = dict(attention__mask="causal", attention__allow_leak="yes")
        result, report = self.lowrank(source, 2, attention__rank=3, **causal)
        self.assertTrue((result["out"][0][:30] == 0).all())
        self.assertTrue(np.isneginf(result["lse"][0][:30]).all())
        self.assertEqual(report["empty_rows"], 30)
        q, k, v = operands((1, 1, 30, 8), (1, 1, 50, 8), seed=1)
        write_input(source, q, k, v, key_lengths=[41])
        clean, _ = self.lowrank(source, 2, attention__rank=3, input__key_lengths="/key_lengths")
        v[..., 41:, :] = np.nan
        write_input(source, q, k, v, key_lengths=[41])
        keys = dict(attention__rank=3, input__key_lengths="/key_lengths", compute__nonfinite="propagate")
        dirty, _ = self.lowrank(source, 2, **keys)
        np.testing.assert_array_equal(clean["out"][0], dirty["out"][0])

    def test_values_that_are_not_numbers(self):
        q, k, v = operands((30, 8), (50, 8), seed=2)
        v[3, 1] = np.nan
        source = self.path("in.h5")
        write_input(source, q, k, v)
        result, report = self.lowrank(source, 2, attention__rank=3, compute__nonfinite="propagate")
        self.assertTrue(np.isnan(result["out"][0]).any())
        self.assertIsNone(report["certificate"]["out_error_bound"])

    def test_degenerate_matrices(self):
        """Rank deficient, all scores equal, one-hot rows: with all of the rank, the output is exact attention's."""
        q, k, v = operands((90, 8), (80, 8), 6, seed=8, reach=2)
        source = self.path("in.h5")
        q[:] = q[np.arange(90) % 3]
        for name, rank in (("three rows", 5), ("all equal", 1)):
            if name == "all equal":
                q[:] = 0
            write_input(source, q, k, v)
            report = self.check(source, q, k, v, 3, attention__rank=rank)
            self.assertFalse(report["certificate"]["meaningful"], name)
            self.assertIn("the certificate tells no more", self.told)
            result, _ = self.lowrank(source, 3, attention__rank=rank)
            self.near(result["out"][0], oracle.attention(q, k, v)[0], 4e-6, name)
        q, k = np.zeros((40, 60)), 50 * np.eye(60)
        q[np.arange(40), np.arange(40) % 5] = 50  # five keys are seen, each by eight rows
        v = operands((1, 2), (60, 2), 7, seed=1)[2]
        write_input(source, q, k, v)
        self.check(source, q, k, v, 2, attention__rank=5)
        _, report = self.lowrank(source, 2, attention__rank=4)  # any four of five equal values will do
        self.near(report["certificate"]["frobenius_error"], math.sqrt(8), 1e-5, "one-hot rows")

    def attend(self, source, ranks=1, **keys):
        output, report = self.fresh("out.h5"), self.fresh("report.json")
        keys = {
            "input.file": source,
            "output.file": output,
            "report.json": report,
            **{key.replace("__", "."): value for key, value in keys.items()},
        }
        self.told = self.run_ok("attend", ranks, keys).stdout
        with h5py.File(output) as file:
            result = {name: (file[name][...], file[name].attrs["xxh64"]) for name in ("out", "lse")}
        with open(report, encoding="utf-8") as file:
            return result, json.load(file)

    def test_tolerance_chooses_the_rank(self):
        q, k, v = operands((2, 200, 16), (2, 180, 16), seed=7)
        q[1] *= 6
        source = self.path("in.h5")
        write_input(source, q, k, v)
        report = self.check(source, q, k, v, 2, attention__tolerance=0.25)
        ranks = [told["rank"] for told in report["certificate"]["heads"]]
        for rank, w in zip(ranks, matrices(q, k)[0]):
            left = np.sqrt(np.maximum(0, 1 - np.cumsum(np.linalg.svd(w, compute_uv=False) ** 2) / (w**2).sum()))
            least = int(np.flatnonzero(left <= 0.25)[0]) + 1
            self.assertIn(rank, (least, least + 1))
        self.assertTrue(report["certificate"]["tolerance_met"])
        report = self.check(source, q, k, v, 2, attention__tolerance=0.25, attention__rank=min(ranks))
        self.assertFalse(report["certificate"]["tolerance_met"])
        self.assertIn("did not meet the tolerance", self.told)

    def test_error_of_all_rows(self):
        """With every row sampled, the sample is the truth."""
        q, k, v = operands((60, 8), (70, 8), 5, seed=4, reach=6)
        source = self.path("in.h5")
        write_input(source, q, k, v)
        result, report = self.lowrank(source, 2, attention__rank=4, verify__rows=60)
        exact, _ = oracle.attention(q, k, v)
        off = np.linalg.norm(result["out"][0] - exact, axis=-1)
        certificate = report["certificate"]
        self.assertEqual(certificate["sampled"], 60)
        self.assertAlmostEqual(certificate["out_distance_max"], off.max(), delta=1e-5 * off.max())
        relative = off / np.linalg.norm(exact, axis=-1)
        self.assertAlmostEqual(certificate["out_error_max"], relative.max(), delta=1e-5 * relative.max())
        self.assertLessEqual(np.linalg.norm(off), certificate["out_error_bound"])
        self.assertIn("against exact attention", self.told)

    def test_bits_repeat_and_agree(self):
        source = self.path("in.h5")
        write_input(source, *operands((2, 700, 16), (2, 1700, 16), 9, seed=9, reach=6))
        outs, seen = {}, {}
        for ranks, threads, seed in ((1, 1, 0), (1, 2, 0), (2, 1, 0), (2, 2, 0), (3, 1, 0), (3, 1, 0), (3, 1, 4)):
            result, _ = self.lowrank(source, ranks, attention__rank=8, compute__threads=threads, attention__seed=seed)
            seen.setdefault((ranks, seed), set()).add(text(result["out"][1]))
            outs[ranks, seed] = result["out"][0].astype(np.float64)
        for key, sums in seen.items():
            self.assertEqual(len(sums), 1, f"ranks, seed {key}")
        self.assertNotEqual(seen[3, 0], seen[3, 4])
        for ranks in (2, 3):
            self.near(outs[ranks, 0], outs[1, 0], 2e-5, f"{ranks} ranks against one")

    def test_axes_of_the_file(self):
        q, k, v = operands((2, 3, 50, 8), (2, 3, 60, 8), 5, seed=3, reach=5)
        source = self.path("in.h5")
        write_input(source, q, k, v)
        heads_first, _ = self.lowrank(source, 2, attention__rank=5)
        write_input(source, *(np.swapaxes(x, 1, 2) for x in (q, k, v)))
        rows_first, _ = self.lowrank(source, 2, attention__rank=5, input__layout="bnhd")
        np.testing.assert_array_equal(heads_first["out"][0], np.swapaxes(rows_first["out"][0], 1, 2))
        self.assertEqual(text(heads_first["out"][1]), text(rows_first["out"][1]))

    # ---- other commands ------------------------------------------------------------------------------

    def test_verify_command(self):
        source, output = self.path("in.h5"), self.path("out.h5")
        write_input(source, *operands((4, 300, 16), (2, 1500, 16), 11, seed=2, reach=6))
        keys = {
            "input.file": source,
            "output.file": output,
            "attention.method": "lowrank",
            "attention.rank": 20,
            "attention.mask": "causal",
            "attention.allow_leak": "yes",
            "verify.rows": 100,
        }
        self.run_ok("attend", 2, keys)
        for ranks in (2, 3):
            self.run_ok("verify", ranks, keys)
        for wrong in ({"attention.rank": 19}, {"attention.rank": 21}):
            result = run("verify", 2, self.deck({**keys, **wrong}))
            self.assertEqual(result.returncode, VERIFY, f"{wrong}: {result.stdout + result.stderr}")
        with h5py.File(output, "r+") as file:
            del file["out"].attrs["xxh64"]
            file["out"][1, 17, 3] += 0.01
        result = run("verify", 2, self.deck({**keys, "verify.rows": 1200}))
        self.assertEqual(result.returncode, VERIFY, result.stdout + result.stderr)
        self.assertIn("row 17 of head 1", error_lines(result)[0])

    def test_svd_takes_the_same_deck(self):
        source, plain, deck = self.path("in.h5"), self.path("plain.h5"), self.path("deck.h5")
        write_input(source, *operands((90, 8), (80, 8), seed=2))
        keys = {"input.file": source, "attention.rank": 5}
        self.run_ok("svd", 2, {**keys, "output.file": plain})
        self.run_ok("svd", 2, {**keys, "output.file": deck, "attention.method": "lowrank"})
        with h5py.File(plain) as one, h5py.File(deck) as other:
            np.testing.assert_array_equal(one["u"][...], other["u"][...])

    def test_plan(self):
        shape = {
            "shape.n": 65536,
            "shape.d_k": 64,
            "shape.heads": 2,
            "attention.method": "lowrank",
            "attention.rank": 128,
            "plan.ranks": 2,
            "plan.flops_per_rank": 1e11,
            "plan.memory_per_node": "1T",
        }
        told = {}
        for name, more in (("exact", {"attention.method": "exact"}), ("lowrank", {}), ("double", {"compute.dtype": "f64"})):
            path = self.fresh("plan.json")
            self.run_ok("plan", 1, {**shape, **more, "report.json": path})
            with open(path, encoding="utf-8") as file:
                told[name] = json.load(file)
        basis = 3 * (128 + 16)
        # T joined, Q of it in place, P; U and V.
        self.assertGreater(told["lowrank"]["bytes"]["work"], 8 * 32768 * 3 * basis)
        self.assertLess(told["lowrank"]["bytes"]["work"], 8 * 32768 * 8 * basis)
        self.assertGreater(told["double"]["bytes"]["work"], told["lowrank"]["bytes"]["work"])
        pairs, columns = 2 * 65536.0**2, 144
        self.assertGreaterEqual(told["lowrank"]["work"], 7 * 2 * (64 + columns) * pairs)
        self.assertLess(told["lowrank"]["work"], 1.1 * 7 * 2 * (64 + columns) * pairs)
        self.assertEqual(told["exact"]["work"], told["exact"]["flops"])
        self.assertEqual(told["lowrank"]["flops"], told["exact"]["flops"])
        result = run("plan", 1, self.deck({**shape, "attention.svd": "full", "shape.n": 200000}))
        self.assertEqual(result.returncode, LIMIT, result.stdout + result.stderr)
        self.assertIn("32-bit", error_lines(result)[0])

    def test_plan_counts_what_a_run_takes(self):
        """Peak memory of a run, less that of a tiny one, against the plan's number."""
        peaks = []
        for n in (64, 6000):
            source = self.fresh("in.h5")
            self.run_ok("generate", 1, {"shape.n": n, "shape.d_k": 16, "output.file": source})
            _, report = self.lowrank(source, 1, attention__rank=40, verify__rows=0, compute__threads=1)
            peaks.append(report["bytes"]["peak_rss_max"])
        path = self.fresh("plan.json")
        keys = {"input.file": source, "attention.method": "lowrank", "attention.rank": 40, "report.json": path}
        self.run_ok("plan", 1, keys)
        with open(path, encoding="utf-8") as file:
            planned = json.load(file)["bytes"]["total"]
        taken = peaks[1] - peaks[0]
        self.assertGreater(planned, 0.9 * taken, f"planned {planned}, taken {taken}")
        self.assertLess(planned, 3 * taken, f"planned {planned}, taken {taken}")

    # ---- refused ----------------------------------------------------------------------------------

    def refused(self, code, *words, command="attend", **keys):
        before = sorted(os.listdir(self.folder))
        keys = {
            "input.file": self.source,
            "output.file": self.path("out.h5"),
            "attention.method": "lowrank",
            **{key.replace("__", "."): value for key, value in keys.items()},
        }
        result = run(command, 2, *(f"--{key}={value}" for key, value in keys.items()))
        told = f"{keys}\n{result.stdout}\n{result.stderr}"
        self.assertEqual(result.returncode, code, told)
        lines = error_lines(result)
        self.assertEqual(len(lines), 1, told)
        for word in words:
            self.assertIn(word, lines[0])
        self.assertEqual(sorted(os.listdir(self.folder)), before, "nothing is left behind")

    def test_bad_values(self):
        self.source = self.path("in.h5")
        write_input(self.source, *operands((30, 8), (30, 8), seed=10))
        for command in ("attend", "plan", "verify"):
            self.refused(USAGE, "attention.rank", "0", command=command, attention__rank=0)
        self.refused(USAGE, "attention.rank is missing", "attention.tolerance")
        self.refused(USAGE, "attention.rank is missing", command="plan")
        self.refused(USAGE, "attention.rank", "-4", attention__rank=-4)
        self.refused(USAGE, "attention.tolerance", attention__tolerance=0)
        self.refused(USAGE, "attention.tolerance", attention__tolerance=-0.1)
        self.refused(USAGE, "attention.tolerance", attention__tolerance=1.5)
        self.refused(USAGE, "attention.svd", attention__rank=2, attention__svd="some")
        self.refused(USAGE, "attention.steps", attention__rank=2, attention__steps=-1)
        self.refused(USAGE, "attention.oversample", attention__rank=2, attention__oversample=-1)
        self.refused(USAGE, "attention.allow_leak", "later keys", attention__rank=2, attention__mask="causal")
        window = dict(attention__mask="window", attention__window_left=5)
        self.refused(USAGE, "attention.allow_leak", "later keys", attention__rank=2, **window)
        self.refused(USAGE, "bf16", attention__rank=2, compute__dtype="bf16")
        self.refused(USAGE, "head_groups", attention__rank=2, compute__head_groups=2)

    def test_none_is_not_the_default(self):
        """oversample = 0 and steps = 0 mean none, and show."""
        q, k, v = operands((200, 8), (180, 8), seed=10)
        source = self.path("in.h5")
        write_input(source, q, k, v)
        errors = [
            self.lowrank(source, 1, attention__rank=6, **keys)[1]["certificate"]["frobenius_error"]
            for keys in ({}, {"attention__oversample": 0}, {"attention__oversample": 0, "attention__steps": 0})
        ]
        self.assertLess(errors[0], errors[1])
        self.assertLess(errors[1] * 1.01, errors[2])

    def test_memory_that_does_not_suffice(self):
        self.source = self.path("in.h5")
        write_input(self.source, *operands((2000, 4), (2000, 4), seed=13))
        self.refused(LIMIT, "attention.rank", "more nodes", attention__rank=500, plan__memory_per_node="80M")
        self.refused(LIMIT, "node", command="plan", attention__rank=500, plan__memory_per_node="80M")
        full = dict(attention__rank=5, attention__svd="full", plan__memory_per_node="80M")
        self.refused(LIMIT, "attention.svd = krylov", **full)

    def test_operands_that_are_not_numbers(self):
        q, k, v = operands((30, 8), (30, 8), seed=10)
        q[4, 2] = np.inf
        self.source = self.path("in.h5")
        write_input(self.source, q, k, v)
        self.refused(CONTENT, "W is not finite", attention__rank=2, compute__nonfinite="propagate")

    def test_merge_refuses_parts(self):
        source, parts = self.path("in.h5"), []
        write_input(source, *operands((50, 4), (60, 4)))
        for keys in ("0:30", "30:60"):
            parts.append(self.fresh("part.h5"))
            rank = {"attention.method": "lowrank", "attention.rank": 5}
            self.run_ok("attend", 1, {"input.file": source, "input.keys": keys, "output.file": parts[-1], **rank})
        result = run("merge", 2, self.deck({"input.parts": ", ".join(parts), "output.file": self.path("o.h5")}))
        self.assertEqual(result.returncode, CONTENT, result.stdout + result.stderr)
        self.assertIn("lowrank", error_lines(result)[0])


if __name__ == "__main__":
    unittest.main()
