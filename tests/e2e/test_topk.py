#!/usr/bin/env python3
"""attend with method = topk: which keys are kept, their weights, the output, bits, certificate and refusals.

SPDX-License-Identifier: BSD-3-Clause
"""

import json
import unittest

import h5py
import numpy as np
from common import Case, error_lines, isas, operands, oracle, read_output, run, text, write_input

NORMAL, DOUBLE, BRAIN = 1.5e-6, 1e-13, 2.0**-8
LIMITS = {"f32": NORMAL, "f64": DOUBLE, "bf16": BRAIN}
NEAR = {"f32": 1e-5, "f64": 1e-13}  # relative difference of weights that may be taken for a tie


def dense(q, k, **rules):
    """The softmax matrix [.., n, m]: attention with the identity for values."""
    m = k.shape[-2]
    identity = np.broadcast_to(np.eye(m), k.shape[:-2] + (m, m))
    return oracle.attention(q, k, identity, **rules)


def read_weights(path):
    with h5py.File(path) as file:
        group = file["weights"]
        return {name: (group[name][...], text(group[name].attrs["xxh64"])) for name in ("indptr", "indices", "data")}


def sparse_matrix(sparse, weights):
    """weights [.., n, m] where a row keeps them, else 0."""
    kept, counts = np.zeros_like(weights), np.diff(sparse["indptr"][0]).ravel()
    at = np.repeat(np.arange(counts.size), counts), sparse["indices"][0]
    kept.reshape(counts.size, -1)[at] = weights.reshape(counts.size, -1)[at]
    return kept


def choose(scores, most):
    """Indices of the `most` largest scores of visible keys, whatever they weigh; of equal ones the lower, ascending."""
    order = np.argsort(-scores, kind="stable")[:most]
    return np.sort(order[~np.isneginf(scores[order])])


class TopK(Case):
    def attend_topk(self, source, topk, ranks, **keys):
        output, report = self.fresh("out.h5"), self.fresh("report.json")
        keys = {
            "input.file": source,
            "output.file": output,
            "output.weights": "yes",
            "report.json": report,
            "attention.method": "topk",
            "attention.topk": topk,
            **{key.replace("__", "."): value for key, value in keys.items()},
        }
        self.run_ok("attend", ranks, keys)
        with open(report, encoding="utf-8") as file:
            return read_output(output), json.load(file), read_weights(output)

    def check(self, q, k, v, topk, ranks, compute="f32", tables=None, keys=None, renormalize=False, **rules):
        source, tables = self.fresh("in.h5"), tables or {}
        write_input(source, q, k, v, compute, **tables)
        keys = dict(keys or {}, compute__dtype=compute, **{f"input__{name}": f"/{name}" for name in tables})
        for name in ("mask", "causal_align", "window_left", "window_right", "softcap", "scale"):
            if name in rules:
                keys[f"attention__{name}"] = rules[name]
        if rules.get("alibi"):
            keys["attention__alibi"] = "yes"
        if renormalize:
            keys["attention__renormalize"] = "yes"
        result, report, sparse = self.attend_topk(source, topk, ranks, **keys)
        self.compare(q, k, v, topk, compute, result, report, sparse, renormalize, **rules, **tables)
        return result, report, sparse

    def compare(self, q, k, v, topk, compute, result, report, sparse, renormalize, **rules):
        what = f"q {q.shape} k {k.shape} top {topk} {compute} {rules}"
        limit = LIMITS[compute]
        matrix, lse = dense(q, k, **rules)
        matrix, v4 = oracle.as_bhnd(matrix), oracle.as_bhnd(v)
        batch, heads, n = matrix.shape[:3]
        out = oracle.as_bhnd(np.asarray(result["out"][0], np.float64))
        self.near(result["lse"][0], lse, limit, what + ": lse", least=1.0)
        indptr = sparse["indptr"][0].reshape(batch, heads, n + 1)
        indices, data = sparse["indices"][0], sparse["data"][0]
        self.assertEqual(data.dtype, np.float64 if compute == "f64" else np.float32)
        self.assertEqual(indptr[-1, -1, -1], len(indices), what)
        self.assertEqual(len(indices), len(data), what)
        expected_out, dropped, bound = np.zeros_like(out), [], 0.0
        for b in range(batch):
            for h in range(heads):
                values = v4[b, h // (heads // v4.shape[1])]
                longest = np.linalg.norm(values, axis=-1).max()
                self.assertEqual(indptr[b, h, 0], indptr.reshape(-1, n + 1)[b * heads + h - 1, -1] if b + h else 0)
                for i in range(n):
                    kept = indices[indptr[b, h, i] : indptr[b, h, i + 1]]
                    row = matrix[b, h, i]
                    with np.errstate(divide="ignore"):
                        wanted = choose(np.log(row), topk)
                    here = f"{what}: batch {b} head {h} row {i}"
                    self.assertEqual(len(kept), len(wanted), here)
                    self.assertTrue((np.diff(kept) > 0).all(), here)
                    if (kept != wanted).any():
                        swapped = np.concatenate([np.setdiff1d(kept, wanted), np.setdiff1d(wanted, kept)])
                        spread = row[swapped].max() / row[swapped].min() - 1
                        self.assertLess(spread, NEAR[compute], f"{here}: wrong keys {swapped}")
                    weights = row[kept] / row[kept].sum() if renormalize and len(kept) else row[kept]
                    if len(kept):
                        got = data[indptr[b, h, i] : indptr[b, h, i + 1]]
                        self.assertLess(np.abs(got / weights - 1).max(), 40 * limit, here)
                        dropped.append(1 - row[kept].sum())
                        bound = max(bound, dropped[-1] * longest * (2 if renormalize else 1))
                    expected_out[b, h, i] = weights @ values[kept]
        self.near(out, expected_out, limit * 2, what + ": out")
        certificate = report["certificate"]
        dropped, slack = np.maximum(dropped, 0) if dropped else np.zeros(1), 4e-6 if compute == "f32" else 1e-12
        self.assertAlmostEqual(certificate["dropped_mass_mean"], dropped.mean(), delta=slack, msg=what)
        self.assertAlmostEqual(certificate["dropped_mass_max"], dropped.max(), delta=slack, msg=what)
        exact, _ = oracle.attention(q, k, v, **rules)
        worst = np.linalg.norm(out - oracle.as_bhnd(exact), axis=-1).max()
        size = np.linalg.norm(exact, axis=-1).max()
        self.assertLessEqual(worst, certificate["out_error_bound"] + limit * 4 * size, what + ": the bound holds")
        if topk < k.shape[-2] and dropped.max() > slack:
            self.assertLess(certificate["out_error_bound"], bound * 1.01 + 20 * slack, what + ": and is no larger")
        self.assertEqual(certificate["kept"], len(indices))
        self.check_histogram(certificate, dropped if len(indices) else [], slack, what)
        self.assertTrue(report["verify"]["passed"], what)

    def check_histogram(self, certificate, dropped, slack, what):
        """Rows below each limit; those within rounding of it may be on either side."""
        self.assertEqual(certificate["rows"], len(dropped), what)
        rows, limits = 0, (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1)
        self.assertEqual(tuple(entry["below"] for entry in certificate["dropped_mass_histogram"]), limits)
        for entry, limit in zip(certificate["dropped_mass_histogram"], limits):
            rows += entry["rows"]
            surely, perhaps = (int(np.sum(np.asarray(dropped) < limit + shift)) for shift in (-slack, slack))
            self.assertLessEqual(surely, rows, f"{what}: below {limit}")
            self.assertGreaterEqual(perhaps, rows, f"{what}: below {limit}")
        self.assertEqual(rows, len(dropped), what)

    def test_shapes(self):
        """Tile borders, one row, one key, more ranks than rows, k = 1, k = m, k > m, k beyond a tile."""
        for (n, m, d_k, d_v, topk), ranks in [
            ((1, 1, 1, 1, 1), 1),
            ((3, 5, 2, 7, 2), 7),
            ((5, 1031, 64, 64, 64), 4),
            ((257, 1, 3, 5, 3), 2),
            ((60, 1021, 64, 33, 16), 3),
            ((40, 2053, 31, 65, 700), 3),
            ((30, 300, 16, 8, 300), 2),
            ((30, 300, 16, 8, 5000), 4),
            ((31, 640, 256, 1, 1), 2),
        ]:
            with self.subTest(shape=(n, m, d_k, d_v), topk=topk, ranks=ranks):
                self.check(*operands((n, d_k), (m, d_k), d_v, seed=n + m, reach=5), topk, ranks)

    def test_many_candidates(self):
        """Scores that rise with the key: every key is a candidate, and all but the last k leave again."""
        q, k, v = operands((9, 8), (3000, 8), seed=1)
        q[:] = np.abs(q[0])
        k[:] = k[0] * 0 + np.linspace(-1, 1, 3000)[:, None]
        for topk in (1, 64, 100, 1000):
            self.check(q, k, v, topk, 2)
        self.check(q, k[::-1].copy(), v, 64, 3)

    def test_axes_and_types(self):
        self.check(*operands((2, 6, 33, 16), (2, 2, 77, 16), 20, seed=5, reach=6), 9, 4)
        self.check(*operands((2, 3, 41, 24), (2, 1, 530, 24), 40, seed=6, reach=6), 17, 2, compute="f64")
        self.check(*operands((3, 41, 24), (3, 230, 24), 40, seed=7, reach=6), 12, 3, renormalize=True)

    def test_masks(self):
        q, k, v = operands((4, 150, 16), (2, 210, 16), 10, seed=3, reach=6)
        self.check(q, k, v, 20, 3, mask="causal")
        self.check(q, k, v, 20, 2, mask="causal", causal_align="top-left", renormalize=True)
        self.check(q, k, v, 20, 4, mask="window", window_left=30, window_right=5)
        self.check(q, k, v, 20, 2, alibi=True, mask="causal", softcap=4.0)
        q, k, v = operands((2, 2, 120, 16), (2, 2, 120, 16), seed=8, reach=6)
        self.check(q, k, v, 15, 2, tables={"documents": [0, 3, 60, 60, 120]}, mask="causal")
        self.check(q, k, v, 15, 7, tables={"key_lengths": [110, 0]})
        self.check(q, k, v, 15, 3, tables={"key_lengths": [7, 0]})

    def test_rows_without_keys(self):
        """Fewer keys than rows and causal: nothing is kept in rows that see nothing; also when no row sees any."""
        q, k, v = operands((40, 8), (10, 8), seed=1)
        result, _, _ = self.check(q, k, v, 3, 2, mask="causal")
        self.assertTrue((result["out"][0][:30] == 0).all())
        q, k, v = operands((1, 1, 12, 8), (1, 1, 10, 8), seed=1)
        _, report, sparse = self.check(q, k, v, 3, 2, tables={"key_lengths": [0]})
        self.assertEqual(len(sparse["indices"][0]), 0)
        self.assertEqual(report["certificate"]["rows"], 0)

    def test_ties(self):
        """Equal keys have equal scores, to the bit: the lower ones are kept."""
        q, k, v = operands((20, 24), (1300, 24), 5, seed=2, reach=4)
        source = self.path("in.h5")
        for kinds, topk in ((1, 7), (1, 600), (5, 100), (5, 700), (40, 33)):
            k[:] = k[np.arange(1300) % kinds]
            write_input(source, q, k, v)
            scores = (q @ k[:kinds].T)[:, np.arange(1300) % kinds]
            for ranks, threads, isa in ((1, 2, isas()[-1]), (3, 1, isas()[0])):
                _, report, sparse = self.attend_topk(source, topk, ranks, compute__threads=threads, compute__isa=isa)
                for i in range(20):
                    kept = sparse["indices"][0][sparse["indptr"][0][i] : sparse["indptr"][0][i + 1]]
                    order = np.argsort(-scores[i], kind="stable")[:topk]
                    np.testing.assert_array_equal(kept, np.sort(order), f"{kinds} kinds of keys, top {topk}, row {i}")
                self.assertTrue(report["verify"]["passed"])
                self.assertEqual(report["verify"]["near_ties"], 0)

    def test_one_hot_rows(self):
        """Scores so far apart that one weight is 1 and the others are 0: k entries are kept all the same."""
        n, m, d, topk = 60, 700, 8, 12
        random = np.random.default_rng(11)
        q, k, v = np.zeros((n, d)), random.integers(-40, 41, (m, d)).astype(float), random.integers(-9, 10, (m, 5))
        q[np.arange(n), np.arange(n) % d] = 1000
        source = self.path("in.h5")
        write_input(source, q, k, v)
        for dtype, mask, ranks in (("f32", "none", 3), ("f64", "causal", 2), ("bf16", "causal", 1)):
            what, scores = f"{dtype} {mask}", q @ k.T  # whole numbers, the same in every type: ties are ties
            if mask == "causal":
                scores[np.arange(m) > np.arange(n)[:, None]] = -np.inf  # the first rows see less than they may keep
            weights = scores == scores.max(-1, keepdims=True)
            weights = weights / weights.sum(-1, keepdims=True)
            rule = dict(attention__mask=mask, attention__causal_align="top-left", attention__scale=1)
            result, report, sparse = self.attend_topk(source, topk, ranks, compute__dtype=dtype, **rule)
            kept = [choose(row, topk) for row in scores]
            np.testing.assert_array_equal(np.diff(sparse["indptr"][0]), [len(keys) for keys in kept], what)
            np.testing.assert_array_equal(sparse["indices"][0], np.concatenate(kept), what)
            wanted, limit = np.concatenate([row[keys] for row, keys in zip(weights, kept)]), LIMITS[dtype]
            np.testing.assert_array_equal(sparse["data"][0] == 0, wanted == 0, what)
            np.testing.assert_allclose(sparse["data"][0], wanted, rtol=limit, err_msg=what)
            weights = sparse_matrix(sparse, weights)
            self.near(result["out"][0], weights @ v, limit, what)
            self.check_histogram(report["certificate"], 1 - weights.sum(-1), limit, what)
            self.assertEqual(report["certificate"]["kept"], len(wanted), what)
            self.assertTrue(report["verify"]["passed"], what)

    def test_certificate(self):
        """The dropped masses and the errors of all rows, which are all sampled, from the oracle's exact answer."""
        q, k, v = operands((2, 60, 16), (2, 300, 16), 24, seed=12)
        q *= np.geomspace(0.3, 12, 60)[:, None]  # rows that drop nearly all, to rows that drop next to nothing
        matrix, _ = dense(q, k)
        for dtype, ranks, places in (("f32", 1, 5), ("f64", 3, 9)):
            _, report, sparse = self.check(q, k, v, 20, ranks, dtype, keys=dict(verify__rows=120))
            certificate = report["certificate"]
            distance = np.linalg.norm((matrix - sparse_matrix(sparse, matrix)) @ v, axis=-1)
            error = distance / np.linalg.norm(matrix @ v, axis=-1)
            self.assertEqual(certificate["sampled"], 120)
            self.assertAlmostEqual(certificate["out_error_mean"] / error.mean(), 1, places=places)
            self.assertAlmostEqual(certificate["out_error_max"] / error.max(), 1, places=places)
            self.assertAlmostEqual(certificate["out_distance_max"] / distance.max(), 1, places=places)
            bins = [entry["rows"] for entry in certificate["dropped_mass_histogram"]]
            self.assertGreater(min(bins), 0, "an input for every bin")

    def test_lse_is_that_of_all_keys(self):
        source = self.path("in.h5")
        write_input(source, *operands((2, 300, 32), (2, 20000, 32), seed=6, reach=6))
        exact, _ = self.attend(source, 2)
        topk, _, _ = self.attend_topk(source, 5, 2)
        self.assertEqual(text(exact["lse"][1]), text(topk["lse"][1]))

    def test_bits(self):
        source = self.path("in.h5")
        write_input(source, *operands((4, 337, 40), (2, 1800, 40), 33, seed=9, reach=9))
        sums = {}
        for isa in isas():
            seen = set()
            for ranks, threads, compute in (
                (1, 1, {}),
                (2, 2, dict(compute__gather="panels", compute__panel_rows=1)),
                (3, 1, dict(compute__gather="all", compute__partition="cyclic")),
                (4, 1, dict(compute__gather="node", compute__partition="balanced", compute__head_groups=2)),
                (7, 1, dict(compute__gather="chain")),
            ):
                result, _, sparse = self.attend_topk(
                    source, 50, ranks, compute__isa=isa, compute__threads=threads, attention__mask="causal", **compute
                )
                seen.add(tuple(text(result[name][1]) for name in ("out", "lse")) + tuple(s for _, s in sparse.values()))
            self.assertEqual(len(seen), 1, f"{isa}: {seen}")
            sums[isa] = seen
        if {"avx2", "avx512"} <= set(sums):
            self.assertEqual(sums["avx2"], sums["avx512"])

    def test_values_that_do_not_fit(self):
        """A NaN among the scores spoils its rows and no others; scores of -inf take places without weight."""
        q, k, v = operands((60, 8), (900, 8), seed=7, reach=5)
        q = np.abs(q)
        k[100] = -3e38
        k[850, 2] = np.nan
        source, seen = self.path("in.h5"), set()
        write_input(source, q, k, v)
        for ranks, topk in ((1, 895), (3, 895)):
            result, report, sparse = self.attend_topk(
                source, topk, ranks, compute__nonfinite="propagate", attention__mask="causal", verify__rows=60
            )
            out = result["out"][0]
            self.assertTrue(np.isnan(out[10:]).all(), "rows from 10 on see key 850")
            self.assertTrue(np.isfinite(out[:10]).all())
            self.assertEqual(sparse["indptr"][0][10], sum(min(topk, 841 + i) for i in range(10)))
            self.assertIn(100, sparse["indices"][0][: sparse["indptr"][0][1]])
            self.assertIsNone(report["certificate"]["dropped_mass_max"])
            self.assertTrue(report["verify"]["passed"])
            seen.add((text(result["out"][1]), sparse["indices"][1], sparse["data"][1]))
        self.assertEqual(len(seen), 1)

    def test_part(self):
        q, k, v = operands((3, 200, 16), (3, 400, 16), seed=4, reach=6)
        source = self.path("in.h5")
        write_input(source, q, k, v)
        _, _, whole = self.attend_topk(source, 10, 2, input__keys="50:333")
        result, _, part = self.attend_topk(source, 10, 3, input__keys="50:333", input__rows="17:150", input__heads="2,0")
        pointers = whole["indptr"][0]
        for index, head in enumerate((2, 0)):
            rows = slice(pointers[head, 17], pointers[head, 150])
            got = slice(part["indptr"][0][index, 0], part["indptr"][0][index, -1])
            np.testing.assert_array_equal(part["indices"][0][got], whole["indices"][0][rows])
            np.testing.assert_array_equal(part["data"][0][got], whole["data"][0][rows])
        self.assertTrue((part["indices"][0] >= 50).all() and (part["indices"][0] < 333).all())
        self.assertEqual(result["out"][0].shape, (2, 133, 16))

    def test_verify_command(self):
        source, output = self.path("in.h5"), self.path("out.h5")
        write_input(source, *operands((2, 300, 16), (2, 500, 16), seed=2, reach=6))
        keys = {
            "input.file": source,
            "output.file": output,
            "output.weights": "yes",
            "attention.method": "topk",
            "attention.topk": 20,
            "verify.rows": 100,
        }
        self.run_ok("attend", 2, keys)
        self.run_ok("verify", 3, keys)
        for wrong in ({"attention.topk": 19}, {"attention.topk": 21}, {"attention.renormalize": "yes"}):
            result = run("verify", 2, self.deck({**keys, **wrong}))
            self.assertEqual(result.returncode, 4, f"{wrong}: {result.stdout + result.stderr}")

    def test_bf16(self):
        q, k, v = operands((2, 100, 32), (2, 700, 32), 24, seed=5, reach=5)
        source = self.path("in.h5")
        write_input(source, q, k, v, "bf16")
        result, report, _ = self.attend_topk(source, 40, 2, compute__dtype="bf16", attention__renormalize="yes")
        single, _, _ = self.attend_topk(source, 40, 1, attention__renormalize="yes")
        self.assertTrue(report["verify"]["passed"])
        self.near(result["out"][0], single["out"][0].astype(np.float64), 0.05, "bf16 against f32")

    def test_refusals(self):
        source = self.path("in.h5")
        write_input(source, *operands((50, 4), (60, 4)))
        for topk, said in ((0, "from 1"), (-3, "from 1"), (None, "attention.topk")):
            keys = {"input.file": source, "output.file": self.path("o.h5"), "attention.method": "topk"}
            if topk is not None:
                keys["attention.topk"] = topk
            result = run("attend", 2, self.deck(keys))
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertEqual(len(error_lines(result)), 1, result.stderr)
            self.assertIn(said, error_lines(result)[0])

    def test_merge_refuses_parts(self):
        source, parts = self.path("in.h5"), []
        write_input(source, *operands((50, 4), (60, 4)))
        for keys in ("0:30", "30:60"):
            parts.append(self.fresh("part.h5"))
            self.run_ok(
                "attend",
                1,
                {
                    "input.file": source,
                    "input.keys": keys,
                    "output.file": parts[-1],
                    "attention.method": "topk",
                    "attention.topk": 5,
                },
            )
        result = run("merge", 2, self.deck({"input.parts": ", ".join(parts), "output.file": self.path("o.h5")}))
        self.assertEqual(result.returncode, 3, result.stdout + result.stderr)
        self.assertIn("topk", error_lines(result)[0])


if __name__ == "__main__":
    unittest.main()
