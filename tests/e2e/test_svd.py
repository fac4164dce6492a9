#!/usr/bin/env python3
"""`longspan svd`: singular values, vectors, errors and ranks against NumPy's SVD of the matrix by definition.

SPDX-License-Identifier: BSD-3-Clause
"""

import json
import math
import os
import shutil
import struct
import unittest

import h5py
import numpy as np
from common import BIN, Case, environment, error_lines, execute, operands, oracle, run, write_input

SOURCE_DIR = os.environ.get("LONGSPAN_SOURCE_DIR", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
USAGE, CONTENT, LIMIT, FILE = 2, 3, 5, 6


def matrices(q, k, **rule):
    """[B, H, n, m]: attention whose values are the identity."""
    q4, k4 = oracle.as_bhnd(q), oracle.as_bhnd(k)
    m = k4.shape[2]
    identity = np.broadcast_to(np.eye(m), k4.shape[:2] + (m, m))
    w, _ = oracle.attention(q4, k4, identity, **rule)
    return w


def file_of(path):
    with h5py.File(path) as file:
        return {name: file[name][...] for name in ("singular_values", "u", "vt") if name in file}


class Svd(Case):
    def svd(self, source, ranks, **keys):
        output, report = self.fresh("svd.h5"), self.fresh("report.json")
        keys = {key.replace("__", "."): value for key, value in keys.items()}
        keys = {"input.file": source, "output.file": output, "report.json": report, **keys}
        self.told = self.run_ok("svd", ranks, keys)
        with open(report, encoding="utf-8") as file:
            return file_of(output), json.load(file)

    def check_inputs(self, source, n, **keys):
        """Rank 32 of the heads in a file, their first n rows and keys."""
        with h5py.File(source) as file:
            q, k = (file[name][...].reshape((-1,) + file[name].shape[-2:])[:, :n] for name in "qk")
        got, report = self.svd(source, 2, attention__rank=32, **keys)
        self.assertEqual(len(report["heads"]), len(q))
        for i, (told, w) in enumerate(zip(report["heads"], oracle.softmax_matrix(q, k))):
            names = ("singular_values", "u", "vt")
            factors = [got[name].reshape((len(q),) + got[name].shape[-d:])[i] for name, d in zip(names, (1, 2, 2))]
            self.check_head(w, factors, told, 4e-6, 1.005, f"{source}, head {i}")

    def check_head(self, w, got, told, limit, ratio, what):
        """One head's factors and report against its matrix w."""
        sigma, u, vt = got
        rank = told["certificate"]["rank"]
        exact = np.linalg.svd(w, compute_uv=False)
        norm, best = np.linalg.norm(w), math.sqrt((exact[rank:] ** 2).sum())
        self.assertEqual(len(told["singular_values"]), rank, what)
        np.testing.assert_allclose(sigma[:rank], told["singular_values"], rtol=1e-15, err_msg=what)
        self.assertFalse(
            np.any(sigma[rank:]) or np.any(u[:, rank:]) or np.any(vt[rank:]), f"{what}: not zero past rank"
        )
        u, vt, sigma = u[:, :rank], vt[:rank], sigma[:rank]
        np.testing.assert_allclose(u.T @ u, np.eye(rank), atol=1e-12, err_msg=what)
        np.testing.assert_allclose(vt @ vt.T, np.eye(rank), atol=1e-12, err_msg=what)
        error = np.linalg.norm(w - (u * sigma) @ vt)
        self.assertLessEqual(error, ratio * best + limit * norm, what)
        certificate = told["certificate"]
        self.near(certificate["norm"], norm, limit, what)
        if certificate["meaningful"]:
            self.assertLessEqual(abs(certificate["frobenius_error"] / error - 1), 0.01, what)
        else:
            self.assertLessEqual(error, certificate["floor"] * norm, what)
        p = sigma / sigma.sum()
        p = p[p > 0]
        self.assertAlmostEqual(told["effective_rank"], math.exp(-(p * np.log(p)).sum()), places=9)
        for key, share in (("rank_90", 0.9), ("rank_99", 0.99), ("rank_999", 0.999)):
            enough = np.flatnonzero(np.cumsum(sigma**2) >= share * certificate["norm"] ** 2)
            self.assertEqual(told[key], enough[0] + 1 if len(enough) else None, f"{what}: {key}")
        self.assertTrue(told["verify"]["passed"])

    def check(self, source, q, k, ranks, rule=None, limit=4e-6, ratio=1.005, **keys):
        """All heads; rule: what the oracle is told. Returns the report."""
        got, report = self.svd(source, ranks, **keys)
        w = matrices(q, k, **(rule or {}))
        batch, heads = w.shape[:2]
        sigma, u, vt = (
            got[name].reshape((batch, heads) + got[name].shape[-d:])
            for name, d in (("singular_values", 1), ("u", 2), ("vt", 2))
        )
        self.assertEqual(len(report["heads"]), batch * heads)
        for i, told in enumerate(report["heads"]):
            b, h = divmod(i, heads)
            self.assertEqual(told["batch"], b)
            self.check_head(
                w[b, h], (sigma[b, h], u[b, h], vt[b, h]), told, limit, ratio, f"{ranks} ranks, head {i}, {keys}"
            )
        return report

    # ---- right ------------------------------------------------------------------------------------

    def test_shapes_and_ranks(self):
        for ranks, n, m, d, rank in (
            (1, 130, 97, 16, 10),
            (2, 61, 300, 8, 7),
            (3, 700, 40, 24, 5),
            (4, 5, 90, 3, 4),
            (7, 640, 650, 16, 20),
        ):
            with self.subTest(ranks=ranks, n=n, m=m):
                q, k, v = operands((n, d), (m, d), seed=n, reach=9)
                source = self.fresh("in.h5")
                write_input(source, q, k, v)
                report = self.check(source, q, k, ranks, attention__rank=rank)
                self.assertEqual(report["certificate"]["rank"], min(rank, n, m))
                with h5py.File(self.path(f"{self.made - 1}-svd.h5")) as file:
                    self.assertEqual(file["singular_values"].shape, (min(rank, n, m),))
                    self.assertEqual(file["u"].shape, (n, min(rank, n, m)))
                    self.assertEqual(file["vt"].shape, (min(rank, n, m), m))

    def test_heads_batches_and_rules(self):
        q, k, v = operands((2, 4, 150, 12), (2, 2, 170, 12), seed=5, reach=8)
        source = self.path("in.h5")
        write_input(source, q, k, v, key_lengths=[170, 120])
        lengths = dict(input__key_lengths="/key_lengths", attention__alibi="yes")
        self.check(source, q, k, 2, dict(key_lengths=[170, 120], alibi=True), attention__rank=6, **lengths)
        self.check(source, q, k, 3, dict(heads=[3, 1]), attention__rank=6, input__heads="3,1")
        part = dict(input__rows="20:140", input__keys="10:160")
        got, report = self.svd(source, 2, attention__rank=5, compute__dtype="f64", **part)
        w = matrices(q, k, rows=(20, 140), keys=(10, 160))[..., 10:160]
        self.assertEqual(got["u"].shape, (2, 4, 120, 5))
        self.assertEqual(got["vt"].shape, (2, 4, 5, 150))
        for i, told in enumerate(report["heads"]):
            at = divmod(i, 4)
            factors = tuple(got[name][at] for name in ("singular_values", "u", "vt"))
            self.check_head(w[at], factors, told, 2e-13, 1.005, "a part")

    def test_walk(self):
        """Rows that change slowly: singular values that fall fast."""
        source = self.path("in.h5")
        shape = {"shape.n": 700, "shape.d_k": 64, "shape.distribution": "walk"}
        self.run_ok("generate", 2, {"output.file": source, **shape})
        self.check_inputs(source, 700)

    def test_text(self):
        """Heads of a real transformer: two without a low rank, and two with one."""
        part = dict(input__rows="0:700", input__keys="0:700")
        self.check_inputs(os.path.join(SOURCE_DIR, "inputs/gpl3-minilm.h5"), 700, **part)

    def test_full_is_exact(self):
        q, k, v = operands((2, 70, 8), (2, 55, 8), seed=6, reach=7)
        source = self.path("in.h5")
        write_input(source, q, k, v)
        for ranks in (1, 4):
            report = self.check(
                source, q, k, ranks, limit=2e-13, ratio=1 + 1e-9, attention__rank=9, attention__svd="full"
            )
            for told, w in zip(report["heads"], matrices(q, k)[0]):
                exact = np.linalg.svd(w, compute_uv=False)[:9]
                np.testing.assert_allclose(told["singular_values"], exact, rtol=1e-10)

    def test_tolerance_chooses_the_rank(self):
        """Heads of different ranks: those that need fewer are followed by zeros."""
        q, k, v = operands((2, 200, 16), (2, 180, 16), seed=7)
        q[1] *= 6
        source = self.path("in.h5")
        write_input(source, q, k, v)
        report = self.check(source, q, k, 2, attention__tolerance=0.25)
        needed = []
        for w in matrices(q, k)[0]:
            left = np.sqrt(np.maximum(0, 1 - np.cumsum(np.linalg.svd(w, compute_uv=False) ** 2) / (w**2).sum()))
            needed.append(int(np.flatnonzero(left <= 0.25)[0]) + 1)
        ranks = [told["certificate"]["rank"] for told in report["heads"]]
        self.assertNotEqual(*ranks)
        for rank, least, told in zip(ranks, needed, report["heads"]):
            self.assertIn(rank, (least, least + 1))
            self.assertTrue(told["tolerance_met"])
            self.assertLessEqual(told["certificate"]["frobenius_relative"], 0.25)
        report = self.check(source, q, k, 2, attention__tolerance=0.25, attention__rank=min(needed))
        self.assertFalse(all(told["tolerance_met"] for told in report["heads"]))
        self.assertIn("did not meet the tolerance", self.told.stdout)

    def test_tolerance_beyond_the_basis(self):
        """A hundred singular values of 1, and steps that leave columns for 65, where the rank ends."""
        source, report = self.path("in.h5"), self.path("report.json")
        none, (_, _, v) = np.zeros((8300, 1)), operands((1, 1), (8300, 1))
        write_input(source, none, none, v, documents=range(0, 8301, 83))
        keys = {
            "input.file": source,
            "input.documents": "/documents",
            "attention.tolerance": 0.5,
            "attention.steps": 100,
            "compute.dtype": "f64",
            "verify.rows": 0,
            "report.json": report,
        }
        told = self.run_ok("svd", 2, keys)
        with open(report, encoding="utf-8") as file:
            head = json.load(file)["heads"][0]
        self.assertEqual((head["certificate"]["rank"], head["tolerance_met"]), (65, False))
        self.assertIn("1 head did not meet the tolerance at rank 65: all of the matrix, or the largest with these", told.stdout)

    def test_certificate_that_says_nothing_says_so(self):
        q, k, v = operands((90, 8), (80, 8), seed=8, reach=2)
        q[:] = q[np.arange(90) % 3]  # three different rows: rank 3
        source = self.path("in.h5")
        write_input(source, q, k, v)
        report = self.check(source, q, k, 2, attention__rank=5, ratio=1)
        self.assertFalse(report["certificate"]["meaningful"])
        self.assertIn("the certificate tells no more", self.told.stdout)

    def test_causal_needs_leave(self):
        q, k, v = operands((60, 8), (60, 8), seed=9, reach=6)
        source = self.path("in.h5")
        write_input(source, q, k, v)
        rule = dict(mask="causal")
        report = self.check(
            source, q, k, 2, rule, attention__rank=4, attention__mask="causal", attention__allow_leak="yes"
        )
        self.assertTrue(report["leak"])
        self.assertIn("later keys", self.told.stdout)

    def test_every_mask_leaks(self):
        """A window on one side needs leave; with keys after the row, or documents, it is told."""
        q, k, v = operands((60, 8), (60, 8), seed=9, reach=6)
        source = self.path("in.h5")
        write_input(source, q, k, v, documents=[0, 20, 60])
        left = dict(attention__mask="window", attention__window_left=9)
        for keys, rule in (
            (left | dict(attention__allow_leak="yes"), dict(mask="window", window_left=9, window_right=0)),
            (left | dict(attention__window_right=1), dict(mask="window", window_left=9, window_right=1)),
            (dict(input__documents="/documents"), dict(documents=[0, 20, 60])),
            ({}, {}),
        ):
            report = self.check(source, q, k, 2, rule, attention__rank=4, **keys)
            self.assertEqual(report["leak"], bool(rule), keys)
            self.assertEqual("do not keep the mask" in self.told.stdout, bool(rule), keys)

    def test_shipped_deck(self):
        """The deck in inputs/, on the first 512 rows, with the picture."""
        if not shutil.which("gnuplot"):
            self.fail("gnuplot is missing (Debian: gnuplot-nox)")
        output, plot, report = self.path("o.h5"), self.path("o.png"), self.path("r.json")
        options = [
            "--input.rows=0:512",
            "--input.keys=0:512",
            "--attention.rank=32",
            f"--output.file={output}",
            f"--report.plot={plot}",
            f"--report.json={report}",
            "--output.vectors=no",
        ]
        result = run("svd", 2, "inputs/svd.ini", *options, cwd=SOURCE_DIR)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        with open(plot, "rb") as file:
            head = file.read(24)
        self.assertEqual(head[:8], b"\x89PNG\r\n\x1a\n")
        self.assertEqual(struct.unpack(">II", head[16:24]), (1280, 560))
        self.assertEqual(sorted(file_of(output)), ["singular_values"])
        self.assertEqual(sorted(os.listdir(self.folder)), ["o.h5", "o.png", "r.json"])
        with h5py.File(os.path.join(SOURCE_DIR, "inputs/gpl3-minilm.h5")) as file:
            q, k = (file[name][:, :512] for name in "qk")
        with open(report, encoding="utf-8") as file:
            told = json.load(file)["heads"]
        # The part has the positions of the whole, which no mask looks at.
        for head, w in zip(told, oracle.softmax_matrix(q, k)):
            exact = np.linalg.svd(w, compute_uv=False)
            error = math.sqrt((w**2).sum() - (np.array(head["singular_values"]) ** 2).sum())
            self.assertLessEqual(error, 1.005 * math.sqrt((exact[32:] ** 2).sum()))

    # ---- refused ----------------------------------------------------------------------------------

    def refused(self, code, *words, command="svd", env=None, **keys):
        """A key that is None is left out."""
        before = sorted(os.listdir(self.folder))
        keys = {
            "input.file": self.source,
            "output.file": self.path("out.h5"),
            **{key.replace("__", "."): value for key, value in keys.items()},
        }
        options = (f"--{key}={value}" for key, value in keys.items() if value is not None)
        result = run(command, 2, *options, env=env)
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
        self.refused(USAGE, "attention.rank is missing", "attention.tolerance")
        self.refused(USAGE, "attention.rank", "0", attention__rank=0)
        self.refused(USAGE, "attention.rank", "-4", attention__rank=-4)
        self.refused(USAGE, "attention.tolerance", attention__tolerance=0)
        self.refused(USAGE, "attention.tolerance", attention__tolerance=-0.1)
        self.refused(USAGE, "attention.tolerance", attention__tolerance=1.5)
        self.refused(USAGE, "attention.steps", attention__rank=2, attention__steps=-1)
        self.refused(USAGE, "attention.oversample", attention__rank=2, attention__oversample=-1)
        self.refused(USAGE, "attention.allow_leak", "later keys", attention__rank=2, attention__mask="causal")
        window = dict(attention__mask="window", attention__window_left=5)
        self.refused(USAGE, "attention.allow_leak", "later keys", attention__rank=2, **window)
        self.refused(USAGE, "bf16", attention__rank=2, compute__dtype="bf16")
        self.refused(FILE, "picture", "no-such", attention__rank=2, report__plot="/no-such/folder/x.png")

    def test_memory_that_does_not_suffice(self):
        q, k, v = operands((2000, 4), (2000, 4), seed=13)
        self.source = self.path("in.h5")
        write_input(self.source, q, k, v)
        self.refused(LIMIT, "rank 500", "attention.steps", attention__rank=500, plan__memory_per_node="80M")

    def test_full_that_is_too_large(self):
        q, k, v = operands((50000, 1), (50000, 1), seed=13)
        self.source = self.path("in.h5")
        write_input(self.source, q, k, v)
        full = dict(attention__rank=2, attention__svd="full")
        self.refused(LIMIT, "32-bit", "attention.svd = krylov", **full)
        self.refused(LIMIT, "32-bit", "attention.svd = krylov", command="attend", attention__method="lowrank", **full)
        part = dict(input__rows="0:2000", input__keys="0:2000", plan__memory_per_node="80M")
        self.refused(LIMIT, "2000 x 2000", "attention.svd = krylov", **part, **full)

    def test_full_of_what_is_not_finite(self):
        q, k, v = operands((40, 8), (30, 8), seed=10)
        q[4, 2] = np.nan
        self.source = self.path("in.h5")
        write_input(self.source, q, k, v)
        full = dict(attention__rank=2, attention__svd="full")
        self.refused(CONTENT, "NaN", "[4, 2]", **full)
        self.refused(CONTENT, "not finite", "row 4", compute__nonfinite="propagate", **full)

    def test_basis_that_is_too_large(self):
        """Known before anything is computed, whoever decomposes."""
        q, k, v = operands((8300, 1), (8300, 1), seed=13)
        self.source = self.path("in.h5")
        write_input(self.source, q, k, v)
        much = dict(attention__rank=8200, attention__steps=0)
        told = "8216 columns, more than the 8192"
        self.refused(LIMIT, told, "attention.rank", "attention.steps", "attention.svd = full", **much)
        self.refused(LIMIT, told, command="attend", attention__method="lowrank", **much)
        self.refused(LIMIT, told, command="compare", output__file=None, **much)
        shape = dict(shape__n=8300, shape__d_k=1, input__file=None, output__file=None)
        self.refused(LIMIT, told, command="plan", **much, **shape)
        self.refused(LIMIT, "8193 columns", command="plan", attention__rank=2715, **shape)

    def test_output_is_neither_replaced_nor_needed(self):
        q, k, v = operands((30, 8), (30, 8), seed=11)
        self.source = self.path("in.h5")
        write_input(self.source, q, k, v)
        open(self.path("out.h5"), "wb").close()
        self.refused(FILE, "out.h5", attention__rank=2)
        self.refused(FILE, "out.h5", attention__tolerance=0.5)  # known before time is spent
        result = run("svd", 2, f"--input.file={self.source}", "--attention.rank=2")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("no output was asked for", result.stdout)

    def test_without_gnuplot(self):
        q, k, v = operands((30, 8), (30, 8), seed=12)
        source, plot = self.path("in.h5"), self.path("x.png")
        write_input(source, q, k, v)
        os.mkdir(self.path("bin"))
        os.symlink("/bin/true", self.path("bin/ssh"))  # Open MPI looks for it, and does not use it here
        env = dict(environment(), PATH=self.path("bin"))
        result = execute([BIN, "svd", f"--input.file={source}", "--attention.rank=2", f"--report.plot={plot}"], env)
        self.assertEqual(result.returncode, USAGE, result.stdout + result.stderr)
        self.assertIn("needs gnuplot", error_lines(result)[0])
        self.assertIn("gnuplot-nox", error_lines(result)[0])
        # One that fails: the numbers are told, the picture is not there.
        with open(self.path("bin/gnuplot"), "w", encoding="ascii") as file:
            file.write("#!/bin/sh\nexit 1\n")
        os.chmod(self.path("bin/gnuplot"), 0o755)
        result = execute([BIN, "svd", f"--input.file={source}", "--attention.rank=2", f"--report.plot={plot}"], env)
        self.assertEqual(result.returncode, FILE, result.stdout + result.stderr)
        self.assertIn("did not draw", error_lines(result)[0])
        self.assertEqual(sorted(os.listdir(self.folder)), ["bin", "in.h5"])


if __name__ == "__main__":
    unittest.main()
