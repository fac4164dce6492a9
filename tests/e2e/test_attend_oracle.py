#!/usr/bin/env python3
"""attend against the oracle: every mask, rule, shape and type. A failure here means wrong numbers.

SPDX-License-Identifier: BSD-3-Clause
"""

import unittest

import numpy as np
from common import Case, isas, operands, oracle, rounded, write_input

# Limits of the relative error (Frobenius) for scores within +-6, +-15, +-150.
NORMAL, PEAKED, EXTREME, DOUBLE = 7e-7, 1.5e-6, 5e-6, 1e-14
# What the project promises of the error for m = 8192 and N(0,1) operands, with scores 1, 3 and 30 times as large.
PROMISES = ((1, 5.5e-7), (3, 1.2e-6), (30, 4e-6))
# Computing in bf16: to the formula on operands as they are, and on rounded ones, where weights alone are rounded.
BRAIN, BRAIN_WEIGHTS = 4e-3, 2.5e-3


class AttendOracle(Case):
    def check(self, q, k, v, ranks, limit=NORMAL, dtype="f32", compute="f32", tables=None, keys=None, **rules):
        """rules are the oracle's arguments; keys the same thing said in the deck."""
        source = self.fresh("in.h5")
        tables = tables or {}
        write_input(source, q, k, v, dtype, **tables)
        keys = dict(keys or {}, compute__dtype=compute, **{f"input__{name}": f"/{name}" for name in tables})
        for name in ("mask", "causal_align", "window_left", "window_right", "softcap", "scale"):
            if name in rules:
                keys[f"attention__{name}"] = rules[name]
        if rules.get("alibi"):
            keys["attention__alibi"] = "yes"
        result, report = self.attend(source, ranks, **keys)
        q, k, v = (rounded(x, dtype) for x in (q, k, v))
        if compute == "bf16":
            q, k, v = (rounded(x, compute) for x in (q, k, v))
        out, lse = oracle.attention(q, k, v, **rules, **tables)
        what = f"q {q.shape} k {k.shape} {dtype} {compute} {rules} {tables} on {ranks} ranks"
        self.assertEqual(result["out"][0].dtype, np.float64 if compute == "f64" else np.float32)
        self.near(result["out"][0], out, limit, what + ": out")
        self.near(result["lse"][0], lse, limit, what + ": lse", least=1.0)
        self.assertTrue(report["verify"]["passed"], what)
        return result, report

    # ---- shapes -------------------------------------------------------------------------------------

    def test_shapes(self):
        """Tile and panel borders, primes, ones, more ranks than rows, n != m, d_k != d_v."""
        for (n, m, d_k, d_v), ranks in [
            ((1, 1, 1, 1), 1),
            ((1, 1, 1, 1), 3),
            ((3, 5, 2, 7), 7),
            ((1, 1031, 64, 64), 4),
            ((257, 1, 3, 5), 2),
            ((509, 1021, 64, 64), 3),
            ((512, 512, 64, 64), 2),
            ((513, 1025, 128, 96), 4),
            ((97, 2053, 31, 33), 7),
            ((64, 640, 256, 1), 2),
            ((600, 100, 1, 130), 3),
        ]:
            with self.subTest(shape=(n, m, d_k, d_v), ranks=ranks):
                # With one row, or one column of V, the norm is over too little for the limit of whole heads.
                limit = EXTREME if n == 1 or d_v == 1 else NORMAL
                self.check(*operands((n, d_k), (m, d_k), d_v, seed=n + m, reach=6), ranks, limit)

    def test_axes(self):
        """Heads, batches and grouped-query heads."""
        for shape_q, shape_k, ranks in [
            ((3, 70, 16), (3, 70, 16), 2),
            ((2, 3, 41, 16), (2, 3, 77, 16), 4),
            ((6, 131, 32), (2, 131, 32), 3),
            ((2, 8, 33, 8), (2, 1, 530, 8), 7),
            ((1, 1, 9, 4), (1, 1, 5, 4), 1),
            ((12, 50, 24), (12, 50, 24), 4),
        ]:
            with self.subTest(q=shape_q, k=shape_k, ranks=ranks):
                self.check(*operands(shape_q, shape_k, 20, seed=5, reach=6), ranks)

    def test_layout_bnhd(self):
        q, k, v = operands((2, 6, 53, 16), (2, 2, 71, 16), 24, seed=9, reach=6)
        out, lse = oracle.attention(q, k, v)
        for drop in (0, 1):
            source = self.fresh("in.h5")
            write_input(source, *(np.swapaxes(x, 1, 2)[drop if drop else slice(None)] for x in (q, k, v)))
            result, _ = self.attend(source, 3, input__layout="bnhd")
            got, got_lse = result["out"][0], result["lse"][0]
            self.near(np.swapaxes(got, -3, -2), out[1] if drop else out, NORMAL, "out")
            expected = lse[1] if drop else lse
            if got_lse.shape != expected.shape:
                got_lse = np.swapaxes(got_lse, -2, -1)
            self.near(got_lse, expected, NORMAL, "lse", least=1.0)

    # ---- accuracy -----------------------------------------------------------------------------------

    def test_score_ranges(self):
        """Real scores: even, peaked, and as far as +-150."""
        for reach, limit in ((0.01, NORMAL), (6, NORMAL), (15, PEAKED), (150, EXTREME)):
            for d, ranks in ((64, 2), (128, 3), (256, 2)):
                with self.subTest(reach=reach, d=d):
                    q, k, v = operands((401, d), (3001, d), seed=11, reach=reach)
                    self.check(q, k, v, ranks, limit)
                    self.check(q, k, v, ranks, DOUBLE, dtype="f64", compute="f64")

    def test_promised_accuracy(self):
        """As tests/bench/kernel_accuracy.c measures it, all rows together; a head for each range of scores."""
        for d in (64, 128):
            q, k, v = operands((len(PROMISES), 64, d), (1, 8192, d), seed=20)
            q = rounded(q * np.array([factor for factor, _ in PROMISES])[:, None, None], "f32")
            source = self.fresh("in.h5")
            write_input(source, q, k, v)
            out, lse = oracle.attention(q, k, v)
            for isa in isas():
                result, _ = self.attend(source, 2, compute__isa=isa)
                for head, (factor, limit) in enumerate(PROMISES):
                    what = f"{isa}, d = {d}, scores times {factor}"
                    self.near(result["out"][0][head], out[head], limit, what + ": out")
                    self.near(result["lse"][0][head], lse[head], limit, what + ": lse", least=1.0)

    def test_error_does_not_grow_with_keys(self):
        self.check(*operands((32, 64), (262144, 64), seed=14, reach=6), 2)

    def test_types(self):
        for dtype in ("f16", "bf16", "f32", "f64"):
            with self.subTest(dtype=dtype):
                q, k, v = operands((2, 130, 40), (2, 333, 40), 24, seed=2, reach=5.5)
                self.check(q, k, v, 3, NORMAL, dtype)
                self.check(q, k, v, 2, DOUBLE, dtype, "f64", mask="causal")

    def test_bf16_computing(self):
        """Operands rounded once, so that it does not matter whether the file's were; weights rounded, sums in f32."""
        brain = dict(limit=BRAIN_WEIGHTS, compute="bf16")
        q, k, v = operands((97, 64), (2053, 64), 33, seed=16)
        result, _ = self.check(q, k, v, 2, **brain)
        self.near(result["out"][0], oracle.attention(q, k, v)[0], BRAIN, "operands not rounded")
        same, _ = self.check(q, k, v, 3, dtype="bf16", **brain)
        self.assertEqual(result["out"][0].tobytes(), same["out"][0].tobytes())
        self.assertEqual(result["lse"][0].tobytes(), same["lse"][0].tobytes())
        self.check(*operands((2, 6, 131, 32), (2, 2, 300, 32), 20, seed=19), 4, dtype="f64", **brain)
        q, k, v = operands((4, 150, 24), (2, 611, 24), 40, seed=17)
        self.check(q, k, v, 2, mask="causal", **brain)
        self.check(q, k, v, 3, mask="causal", causal_align="top-left", softcap=2.5, **brain)
        self.check(q, k, v, 2, mask="window", window_left=60, window_right=5, alibi=True, **brain)
        q, k, v = operands((2, 2, 150, 16), (2, 1, 150, 16), 9, seed=18)
        tables = {"documents": [0, 1, 1, 70, 150], "key_lengths": [150, 60]}
        self.check(q, k, v, 3, dtype="f16", mask="causal", tables=tables, **brain)

    def test_f16_small_and_large(self):
        """Denormals and the largest numbers of f16 come through its conversion."""
        q, k, v = operands((90, 16), (200, 16), seed=4, reach=2)
        v[:50] *= 2.0**-20
        v[50] = 65504.0
        self.check(q, k, v, 2, NORMAL, "f16")

    # ---- masks and rules ----------------------------------------------------------------------------

    def test_causal(self):
        for n, m, ranks in ((700, 700, 2), (130, 611, 3), (611, 130, 4), (5, 2, 7), (1, 64, 1)):
            for align in ("bottom-right", "top-left"):
                with self.subTest(n=n, m=m, align=align):
                    self.check(
                        *operands((2, n, 24), (2, m, 24), seed=n, reach=6), ranks, mask="causal", causal_align=align
                    )

    def test_rows_without_keys_are_counted(self):
        q, k, v = operands((3, 40, 8), (3, 10, 8), seed=1)
        result, _ = self.check(q, k, v, 2, mask="causal")
        self.assertTrue((result["out"][0][:, :30] == 0).all())
        source = self.fresh("in.h5")
        write_input(source, q, k, v)
        said = self.run_ok(
            "attend", 2, {"input.file": source, "output.file": self.fresh("out.h5"), "attention.mask": "causal"}
        )
        self.assertIn("90", said.stdout, "the summary counts rows that see no key")

    def test_window(self):
        for n, m, left, right, align, ranks in [
            (600, 600, 64, 0, "bottom-right", 2),
            (600, 600, 0, 0, "bottom-right", 3),
            (300, 900, 5, 130, "top-left", 4),
            (300, 900, 130, 5, "bottom-right", 7),
            (900, 300, 40, 700, "top-left", 2),
            (77, 1200, 100000, 3, "bottom-right", 1),
            (900, 100, 10, 10, "bottom-right", 3),
            (257, 257, 0, 9, "top-left", 4),
        ]:
            with self.subTest(n=n, m=m, left=left, right=right, align=align):
                self.check(
                    *operands((n, 32), (m, 32), seed=left + 1, reach=6),
                    ranks,
                    mask="window",
                    window_left=left,
                    window_right=right,
                    causal_align=align,
                )

    def test_documents(self):
        same = [0, 1, 1, 300, 301, 650]
        other = [0, 4, 9, 250, 800, 820]
        for mask, align, ranks in (
            ("none", "bottom-right", 2),
            ("causal", "bottom-right", 3),
            ("causal", "top-left", 4),
            ("window", "bottom-right", 7),
        ):
            rules = {"mask": mask, "causal_align": align}
            if mask == "window":
                rules.update(window_left=20, window_right=11)
            with self.subTest(**rules):
                self.check(
                    *operands((2, 650, 16), (2, 650, 16), seed=6, reach=6), ranks, tables={"documents": same}, **rules
                )
                self.check(
                    *operands((2, 650, 16), (2, 820, 16), seed=7, reach=6),
                    ranks,
                    alibi=True,
                    limit=PEAKED,
                    tables={"documents": same, "documents_k": other},
                    **rules,
                )

    def test_key_lengths(self):
        for mask, ranks in (("none", 2), ("causal", 3), ("window", 4)):
            rules = {"mask": mask}
            if mask == "window":
                rules.update(window_left=100, window_right=30)
            with self.subTest(mask=mask):
                q, k, v = operands((4, 2, 150, 16), (4, 2, 700, 16), seed=8, reach=6)
                self.check(q, k, v, ranks, tables={"key_lengths": [700, 513, 1, 0]}, **rules)

    def test_key_lengths_inside_documents(self):
        """A length that cuts a document shortens it: positions count what is left."""
        q, k, v = operands((2, 1, 200, 16), (2, 1, 200, 16), seed=8, reach=6)
        self.check(q, k, v, 2, mask="causal", tables={"documents": [0, 120, 200], "key_lengths": [200, 90]})
        self.check(q, k, v, 2, mask="causal", tables={"documents": [0, 200], "key_lengths": [180, 90]})

    def test_softcap_scale_alibi(self):
        q, k, v = operands((6, 210, 32), (3, 410, 32), seed=12, reach=6)
        self.check(q, k, v, 2, softcap=2.5)
        self.check(q, k, v, 3, scale=0.05)
        self.check(q, k, v, 2, scale=0.05, softcap=30.0, alibi=True, mask="causal", limit=PEAKED)
        self.check(q, k, v, 4, alibi=True, limit=EXTREME)
        self.check(
            q,
            k,
            v,
            2,
            alibi=True,
            causal_align="top-left",
            mask="window",
            window_left=90,
            window_right=20,
            limit=PEAKED,
        )
        self.check(q, k, v, 3, DOUBLE * 2, "f64", "f64", softcap=2.5, alibi=True, mask="causal")

    def test_masked_keys_never_contribute(self):
        """Non-finite keys and values that no row sees leave no trace."""
        q, k, v = operands((2, 2, 100, 16), (2, 2, 300, 16), seed=13, reach=6)
        k[:, :, 200:], v[:, :, 200:] = np.nan, np.inf
        self.check(q, k, v, 3, tables={"key_lengths": [200, 77]}, keys={"compute__nonfinite": "propagate"})


if __name__ == "__main__":
    unittest.main()
