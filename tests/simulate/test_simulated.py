#!/usr/bin/env python3
"""A small simulated cluster: the gather's time against what its bytes must take.

SPDX-License-Identifier: BSD-3-Clause
"""

import tempfile
import unittest

import simulated

NODES, KEYS, WIDTH, FLOPS, LINK = 16, 65536, 128, 1.6e12, 100e9


class Simulated(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="longspan-simulate-")
        cls.addClassCleanup(cls.folder.cleanup)

    def simulate(self, **changes):
        case = {"nodes": NODES, "n": KEYS, "m": KEYS, "d": WIDTH, "heads": 1, "groups": 1, "mode": "all", "flops": FLOPS}
        return simulated.run(self.folder.name, **{**case, **changes})

    def test_modes(self):
        """Bytes and computing are those of the formula; a slower link waits longer; the chain hides what `all` exposes."""
        share = KEYS * 8 * WIDTH * (NODES - 1) / NODES
        alone = share * 8 / LINK
        seen = {mode: self.simulate(mode=mode) for mode in ("all", "chain")}
        for told in seen.values():
            self.assertEqual(told["bytes"], share)
            self.assertAlmostEqual(told["compute"], 4 * WIDTH * KEYS * KEYS / NODES / FLOPS, 5)
            self.assertGreaterEqual(told["total"], told["compute"])
        self.assertGreater(seen["all"]["waited_mean"], 0.95 * alone)
        self.assertLess(seen["all"]["waited_mean"], 1.6 * alone)
        self.assertLess(seen["chain"]["waited_mean"], 0.5 * seen["all"]["waited_mean"])
        slow = self.simulate(bits_per_second=LINK / 10)
        self.assertGreater(slow["waited_mean"], 5 * seen["all"]["waited_mean"])

    def test_some_of_the_panels(self):
        """A chain loses its time while it fills: with half of the panels about as much."""
        whole, half = (self.simulate(mode="chain", panels=panels) for panels in (0, 32))
        self.assertEqual((whole["panels"], half["panels"]), (64, 32))
        self.assertAlmostEqual(half["compute"], whole["compute"] / 2, 5)
        lost = [told["total"] - told["compute"] for told in (whole, half)]
        self.assertGreater(lost[1], 0.5 * lost[0])
        self.assertLess(lost[1], 2 * lost[0])

    def test_repeats(self):
        self.assertEqual(self.simulate(mode="chain", n=4096), self.simulate(mode="chain", n=4096))

    def test_groups(self):
        """Heads over groups of nodes: less to gather for each."""
        whole, grouped = (self.simulate(heads=4, groups=groups, m=16384) for groups in (1, 4))
        self.assertEqual(grouped["groups"], 4)
        self.assertLess(grouped["bytes"], whole["bytes"] / 4)
        self.assertAlmostEqual(grouped["compute"], whole["compute"], 5)


if __name__ == "__main__":
    unittest.main()
