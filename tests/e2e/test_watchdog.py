#!/usr/bin/env python3
"""A run in which a rank stands still ends with that rank's number, phase and stack; one that was merely paused goes on.

SPDX-License-Identifier: BSD-3-Clause
"""

import glob
import os
import signal
import time
import unittest

import h5py
from common import operands, write_input
from test_kill import Running, send
from test_layer import make_rows, make_weights

STUCK = 70
LIMIT = 2  # seconds
KEYS = {
    "svd": {"attention__rank": 5},
    "layer": {"layer__heads": 2},
    "generate": {"shape__n": 100, "shape__d_k": 8},
    "compare": {"attention__topk": 9, "attention__rank": 5},
}


class Watchdog(Running):
    def setUp(self):
        super().setUp()
        q, k, v = operands((2, 2500, 32), (1, 5003, 32), 24, seed=6)
        write_input(self.source, q, k, v)
        with h5py.File(self.source, "r+") as file:
            file["x"] = make_rows((1501, 16)).astype("<f4")
            for name, x in make_weights(16, 2, 2, 8).items():
                file[name] = x.astype("<f4")

    def expect_verdict(self, result, *words):
        code, told = result
        self.assertEqual(code, STUCK, told)
        lines = [line for line in told.splitlines() if line.startswith("longspan: error:")]
        self.assertEqual(len(lines), 1, told)
        for word in words:
            self.assertIn(word, lines[0])
        self.assertFalse(os.path.exists(self.output))
        self.assertGreater(sum("(" in line and "[0x" in line for line in told.splitlines()), 3, "no stack: " + told)

    def until_it_watches(self, process):
        """Its watchdogs have heard of each other: the output has been made since they started."""
        for name in glob.glob(self.path(".out.h5.*.partial")):
            os.remove(name)  # of a run before
        pids = self.until_it_listens(process, 2)
        self.assertTrue(self.wait_for(lambda: glob.glob(self.path(".out.h5.*.partial")), process))
        time.sleep(LIMIT / 5)
        return pids

    def test_a_rank_that_sleeps(self):
        """The others wait for it in MPI, and are not to blame."""
        for command, rank, phase in (
            ("attend", 2, "compute"),
            ("attend", 0, "read"),
            ("svd", 1, "compute"),
            ("layer", 2, "compute"),
            ("map", 1, "compute"),
            ("compare", 0, "topk"),
            ("compare", 1, "lowrank"),
            ("verify", 1, "verify"),
            ("generate", 2, "generate"),
        ):
            with self.subTest(command=command, rank=rank, phase=phase):
                env = {"LONGSPAN_TEST_STALL": f"{rank}:{phase}:60"}
                process = self.start(3, env=env, command=command, checkpoint__watchdog=LIMIT, **KEYS.get(command, {}))
                self.expect_verdict(self.end(process), f"rank {rank} made no progress", f"in phase '{phase}'")

    def test_a_rank_that_is_stopped(self):
        """Its own watchdog is stopped too: another rank's notices."""
        for rank in (0, 1):
            with self.subTest(rank=rank):
                # Long enough to be stopped in the middle: the other rank sleeps less than the limit.
                env = {"LONGSPAN_TEST_STALL": f"{1 - rank}:compute:{LIMIT * 0.8}"}
                process = self.start(2, env=env, checkpoint__watchdog=LIMIT)
                pids = self.until_it_watches(process)
                # The launcher numbers its children in the order of their ranks.
                send([pids[rank]], signal.SIGSTOP)
                self.expect_verdict(self.end(process), f"rank {rank} stands still or is gone", "last in phase")

    def test_all_wait_for_each_other(self):
        process = self.start(3, env={"LONGSPAN_TEST_STALL": "1:compute:0"}, checkpoint__watchdog=LIMIT)
        code, told = self.end(process)
        self.assertEqual(code, STUCK, told)
        # Several may notice at once.
        self.assertIn("no rank made progress", told)
        self.assertIn("all wait for each other", told)
        self.assertIn("MPI_", told)

    def test_a_pause_of_all_is_none(self):
        sums = self.run_whole()
        env = {"LONGSPAN_TEST_STALL": f"0:compute:{LIMIT * 0.5}"}
        process = self.start(2, env=env, checkpoint__watchdog=LIMIT)
        pids = self.until_it_watches(process)
        send(pids, signal.SIGSTOP)
        time.sleep(LIMIT * 2)
        self.assertIsNone(process.poll(), "the run was over before it was stopped")
        send(pids, signal.SIGCONT)
        code, told = self.end(process)
        self.assertEqual(code, 0, told)
        self.expect_result(sums)

    def test_a_healthy_run_is_left_alone(self):
        """Computing, reading and writing are signs of life."""
        for command in ("compare", "layer", "map"):
            with self.subTest(command=command):
                code, told = self.end(self.start(2, command=command, checkpoint__watchdog=LIMIT, **KEYS.get(command, {})))
                self.assertEqual(code, 0, told)
                if os.path.exists(self.output):
                    os.remove(self.output)

    def test_it_can_be_switched_off(self):
        sums = self.run_whole()
        env = {"LONGSPAN_TEST_STALL": "1:compute:3"}
        code, told = self.end(self.start(2, env=env, checkpoint__watchdog=0))
        self.assertEqual(code, 0, told)
        self.expect_result(sums)


if __name__ == "__main__":
    unittest.main()
