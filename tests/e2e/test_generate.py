#!/usr/bin/env python3
"""generate: the same contents for every number of ranks, and distributions as described.

SPDX-License-Identifier: BSD-3-Clause
"""

import unittest

import h5py
import numpy as np
from common import Case, bf16_values, environment, operands, oracle, text, write_input

SHAPE = {
    "shape.heads": 4,
    "shape.kv_heads": 2,
    "shape.n": 1027,
    "shape.m": 2050,
    "shape.d_k": 24,
    "shape.d_v": 17,
    "shape.seed": 5,
}


def threads_of_regions(stderr):
    """How many threads OpenMP's parallel regions had, from what OMP_DISPLAY_AFFINITY prints."""
    return {int(line.split()[-1]) for line in stderr.splitlines() if line.startswith("openmp team of ")}


class Generate(Case):
    def make(self, ranks, keys):
        output = self.fresh("made.h5")
        self.run_ok("generate", ranks, {**keys, "output.file": output})
        with h5py.File(output) as file:
            return {name: (file[name][...], text(file[name].attrs["xxh64"]), dict(file[name].attrs)) for name in "qkv"}

    def test_same_for_every_rank_count(self):
        for distribution in ("normal", "peaked", "walk"):
            for dtype, ranks in (("f32", (2, 3, 7)), ("f16", (3,)), ("bf16", (2,)), ("f64", (4,))):
                keys = {**SHAPE, "shape.distribution": distribution, "shape.type": dtype}
                plain = self.make(1, keys)
                for name, (x, checksum, _) in plain.items():
                    self.assertEqual(int(checksum, 16), oracle.checksum(x), f"/{name} {distribution} {dtype}")
                for count in ranks:
                    with self.subTest(distribution=distribution, dtype=dtype, ranks=count):
                        other = self.make(count, {**keys, "compute.threads": 1 + count % 2})
                        for name, (x, checksum, _) in plain.items():
                            self.assertEqual(checksum, other[name][1])
                            self.assertEqual(x.tobytes(), other[name][0].tobytes())

    def test_shapes_and_types(self):
        for keys, shape_q, shape_k in (
            (SHAPE, (4, 1027, 24), (2, 2050, 24)),
            ({"shape.n": 5, "shape.d_k": 3}, (5, 3), (5, 3)),
            ({"shape.batch": 2, "shape.n": 5, "shape.d_k": 3}, (2, 1, 5, 3), (2, 1, 5, 3)),
        ):
            made = self.make(2, keys)
            self.assertEqual(made["q"][0].shape, shape_q)
            self.assertEqual(made["k"][0].shape, shape_k)
            self.assertEqual(made["v"][0].shape, shape_k[:-1] + (keys.get("shape.d_v", keys["shape.d_k"]),))
        self.assertEqual(made["q"][0].dtype, np.dtype("<f4"))
        made = self.make(2, {**SHAPE, "shape.type": "bf16"})
        self.assertEqual(text(made["k"][2]["dtype"]), "bf16")
        self.assertEqual(made["k"][0].dtype, np.dtype("<u2"))

    def test_seeds_differ(self):
        first, second = (self.make(1, {**SHAPE, "shape.seed": seed})["q"][0] for seed in (0, 1))
        self.assertLess(abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]), 0.02)

    def test_types_hold_the_same_numbers(self):
        double = self.make(1, {**SHAPE, "shape.type": "f64"})["q"][0]
        single = self.make(1, {**SHAPE, "shape.type": "f32"})["q"][0]
        half = self.make(1, {**SHAPE, "shape.type": "f16"})["q"][0]
        brain = bf16_values(self.make(1, {**SHAPE, "shape.type": "bf16"})["q"][0])
        for x, limit in ((single, 1e-7), (half, 1e-3), (brain, 8e-3)):
            np.testing.assert_allclose(x.astype(float), double, rtol=limit, atol=limit)

    def normal(self, x):
        """N(0, 1): moments, tails, and no correlation along either axis (five standard errors each)."""
        x = x.astype(float)
        count = x.size
        self.assertLess(abs(x.mean()), 5 / np.sqrt(count))
        self.assertLess(abs(x.var() - 1), 5 * np.sqrt(2 / count))
        self.assertLess(abs((x**3).mean()), 5 * np.sqrt(15 / count))
        self.assertLess(abs((x**4).mean() - 3), 5 * np.sqrt(96 / count))
        self.assertLess(abs((np.abs(x) < 1).mean() - 0.682689), 5 * 0.4654 / np.sqrt(count))
        self.assertLess(abs((x[..., 1:, :] * x[..., :-1, :]).mean()), 5 / np.sqrt(count))
        self.assertLess(abs((x[..., 1:] * x[..., :-1]).mean()), 5 / np.sqrt(count))
        self.assertEqual(len(np.unique(x)) / count > 0.95, True)

    def test_normal(self):
        made = self.make(2, {"shape.heads": 2, "shape.n": 4096, "shape.d_k": 64, "shape.type": "f64"})
        for name in "qkv":
            self.normal(made[name][0])
        for a, b in (("q", "k"), ("q", "v"), ("k", "v")):
            self.assertLess(abs((made[a][0] * made[b][0]).mean()), 5 / np.sqrt(made[a][0].size))
        self.assertLess(abs((made["q"][0][0] * made["q"][0][1]).mean()), 5 / np.sqrt(made["q"][0][0].size))

    def scores(self, made, d):
        q, k = made["q"][0].astype(float), made["k"][0].astype(float)
        return q @ np.swapaxes(k, -1, -2) / np.sqrt(d)

    def test_score_ranges(self):
        for d in (32, 64, 128):
            keys = {"shape.n": 2048, "shape.d_k": d}
            normal = np.abs(self.scores(self.make(1, keys), d)).max()
            peaked = np.abs(self.scores(self.make(1, {**keys, "shape.distribution": "peaked"}), d)).max()
            with self.subTest(d=d, normal=normal, peaked=peaked):
                self.assertLess(normal, 8)
                self.assertGreater(peaked, 10)
                self.assertLess(peaked, 20)

    def test_peaked_rows_have_a_peak(self):
        made = self.make(1, {"shape.n": 1024, "shape.d_k": 64, "shape.distribution": "peaked"})
        scores = self.scores(made, 64)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        self.assertGreater(weights.max(axis=-1).mean(), 0.1, "the largest weight of a row, on the average")
        self.normal(made["v"][0])

    def test_walk_is_smooth(self):
        made = self.make(2, {"shape.n": 4096, "shape.d_k": 32, "shape.distribution": "walk"})
        for name in "qk":
            x = made[name][0].astype(float)
            steps = np.linalg.norm(np.diff(x, axis=0), axis=1).mean()
            spread = np.linalg.norm(x[2000:] - x[:-2000], axis=1).mean()
            self.assertGreater(steps, 0)
            self.assertLess(steps, spread / 5, "neighbouring rows are near each other, distant ones are not")
            self.assertTrue(np.isfinite(x).all())
        self.normal(made["v"][0])

    def test_threads(self):
        """generate and merge use compute.threads, not what OpenMP would take by itself."""
        env = dict(environment(), OMP_NUM_THREADS="5", OMP_DISPLAY_AFFINITY="true")
        env["OMP_AFFINITY_FORMAT"] = "openmp team of %N"
        source, parts = self.path("in.h5"), [self.path("a.h5"), self.path("b.h5")]
        write_input(source, *operands((60, 8), (90, 8), seed=1))
        for part, keys in zip(parts, ("0:40", "40:90")):
            self.run_ok("attend", 1, {"input.file": source, "output.file": part, "input.keys": keys})
        for threads in (1, 3):
            for command, keys in (("generate", SHAPE), ("merge", {"input.parts": ",".join(parts)})):
                keys = {**keys, "output.file": self.fresh("made.h5"), "compute.threads": threads}
                result = self.run_ok(command, 1, keys, env=env)
                teams = threads_of_regions(result.stderr)
                self.assertEqual(teams - {1}, {threads} - {1}, f"{command}: {result.stderr}")


if __name__ == "__main__":
    unittest.main()
