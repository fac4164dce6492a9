#!/usr/bin/env python3
"""The shipped deck of `longspan layer` against what a PyTorch module gave with the same weights on the same x.

SPDX-License-Identifier: BSD-3-Clause
"""

import os
import unittest

import h5py
import numpy as np
from common import Case, oracle, run

import layer_oracle

SOURCE = os.environ.get("LONGSPAN_SOURCE_DIR", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
GOLDEN = os.path.join(SOURCE, "inputs", "parallel-attention.h5")


class Golden(Case):
    def setUp(self):
        super().setUp()
        with h5py.File(GOLDEN) as file:
            self.x, self.expected = file["x"][...], file["y_pytorch"][...]
            self.weights = {name: file[name][...] for name in file if name.endswith(("weight", "bias"))}
            self.heads, self.block_size = int(file.attrs["heads"]), int(file.attrs["block_size"])

    def largest(self, y):
        """Largest relative error of a row."""
        y = np.asarray(y, np.float64)
        self.assertEqual(y.shape, self.expected.shape)
        return (np.linalg.norm(y - self.expected, axis=-1) / np.linalg.norm(self.expected, axis=-1)).max()

    def test_deck(self):
        sums = set()
        for ranks in (1, 2, 3):
            output = self.fresh("y.h5")
            deck = os.path.join(SOURCE, "inputs", "layer.ini")
            result = run("layer", ranks, deck, f"--output.file={output}", "--compute.threads=1", cwd=SOURCE)
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
            with h5py.File(output) as file:
                self.assertLessEqual(self.largest(file["y"][...]), 1e-5, f"{ranks} ranks")
                sums.add(file["y"].attrs["xxh64"])
        self.assertEqual(len(sums), 1)

    def test_blocks_matter(self):
        """The golden file tells blocks from whole attention, and from other blocks."""
        rule = [dict(block_size=self.block_size), dict(), dict(block_size=2 * self.block_size)]
        errors = [self.largest(layer_oracle.layer(self.x, self.weights, self.heads, **r)) for r in rule]
        self.assertLessEqual(errors[0], 1e-5)
        self.assertGreater(min(errors[1:]), 1e-2)

    def test_definition(self):
        """Each block as a sequence of its own."""
        blocks = self.x.reshape(-1, self.block_size, self.x.shape[-1])
        y = layer_oracle.layer(blocks, self.weights, self.heads, attend=oracle.attention)
        self.assertLessEqual(self.largest(y.reshape(self.x.shape)), 1e-5)


if __name__ == "__main__":
    unittest.main()
