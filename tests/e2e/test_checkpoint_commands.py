#!/usr/bin/env python3
"""What `compare`, `layer` and `map` do on signals: what is finished is kept, or they end cleanly.

SPDX-License-Identifier: BSD-3-Clause
"""

import glob
import json
import os
import shutil
import signal
import time
import unittest

import h5py
import numpy as np
from common import operands, text, write_input
from test_kill import STOPPED, Running, ranks_of, send
from test_layer import make_rows, make_weights

CONTENT, FILE, TERMINATED = 3, 6, 143
TIMES = {"seconds", "share_of_exact", "front"}


def holds(image, number):
    """Whether the number stands in the bytes; JSON has 15 or 17 digits of it, so its last bit may be another."""
    for at in range(8):
        stored = np.frombuffer(image, "<f8", count=(len(image) - at) // 8, offset=at)
        with np.errstate(all="ignore"):
            if np.any(np.abs(stored - number) <= 1e-15 * number):
                return True
    return False


class Stopping(Running):
    def stop(self, command, phase, rank=0, number=signal.SIGUSR1, ranks=2, **changes):
        """A run that gets a signal in a phase, at whose begin one of its ranks waits for it."""
        there = self.path("waits")
        process = self.start(
            ranks, env={"LONGSPAN_TEST_STALL": f"{rank}:{phase}:60:{there}"}, command=command, **changes
        )
        self.assertTrue(self.wait_for(lambda: os.path.exists(there), process), "the run was over before " + phase)
        send(ranks_of(process), number)
        time.sleep(0.05)
        os.remove(there)
        return self.end(process)

    def expect_stop(self, result):
        code, told = result
        self.assertEqual(code, STOPPED, told)
        self.assertIn("stopped as asked, the state is in " + self.checkpoint, told)
        self.assertNotIn("longspan: error", told)
        self.assertTrue(os.path.exists(self.checkpoint))
        self.expect_nothing_half_written()

    def expect_nothing_half_written(self):
        left = os.listdir(self.folder)
        self.assertEqual([name for name in left if "partial" in name or "probe" in name], [], left)

    def refused(self, command, code, *words, ranks=2, **changes):
        got, told = self.end(self.start(ranks, command=command, **changes))
        lines = [line for line in told.splitlines() if line.startswith("longspan: error:")]
        self.assertEqual((got, len(lines)), (code, 1), told)
        for word in words:
            self.assertIn(word, lines[0])

    def finish(self, command, ranks=2, **changes):
        code, told = self.end(self.start(ranks, command=command, **changes))
        self.assertEqual(code, 0, told)
        self.expect_nothing_left()
        return told


class Compare(Stopping):
    def setUp(self):
        super().setUp()
        q, k, v = operands((2, 601, 16), (1, 803, 16), 12, seed=6)
        write_input(self.source, q, k, v)
        self.checkpoint = self.report + ".checkpoint"

    def keys(self, **changes):
        keys = super().keys(**changes)
        keys.pop("output.file")
        keys.pop("compute.panel_rows")
        keys = {"compare.repeats": 2, "attention.block_size": 100, "attention.topk": "10,50", "attention.rank": 5, **keys}
        return {key: value for key, value in keys.items() if value is not None}

    def methods(self):
        """What the report tells of the methods, but times."""
        return [{key: value for key, value in one.items() if key not in TIMES} for one in self.told()["methods"]]

    def whole(self):
        self.finish("compare")
        methods = self.methods()
        os.remove(self.report)
        return methods

    def done_of(self):
        with h5py.File(self.checkpoint) as file:
            return text(file.attrs["progress"]).splitlines()[0]

    def test_it_goes_on(self):
        """Stopped in the second method and in the third; times of finished methods are those measured before."""
        expected = self.whole()
        self.expect_stop(self.stop("compare", "block"))
        self.assertFalse(os.path.exists(self.report))
        self.assertEqual(self.done_of(), "methods = 1")
        self.expect_stop(self.stop("compare", "topk", rank=1, number=signal.SIGTERM))
        self.assertEqual(self.done_of(), "methods = 2")
        with h5py.File(self.checkpoint) as file:
            image = file["results"][...].tobytes()
        told = self.finish("compare")
        self.assertIn("going on from " + self.checkpoint, told)
        self.assertEqual(self.methods(), expected)
        for one in self.told()["methods"][:2]:
            self.assertTrue(holds(image, one["seconds"]["total"]), one)
        state = self.told()["checkpoint"]
        self.assertTrue(state["resumed"])
        self.assertTrue(0 < state["resumed_done"] < 1, state)

    def test_nothing_finished_yet(self):
        """On USR1 the run goes on to the end of the first method; on TERM it ends, to be started anew."""
        expected = self.whole()
        code, told = self.stop("compare", "exact")
        self.expect_stop((code, told))
        self.assertIn("warning: asked to stop, but no method is finished since the start", told)
        self.assertEqual(self.done_of(), "methods = 1")
        os.remove(self.checkpoint)
        self.expect_stop(self.stop("compare", "exact", number=signal.SIGTERM))
        self.assertEqual(self.done_of(), "methods = 0")
        self.finish("compare")
        self.assertEqual(self.methods(), expected)

    def test_killed(self):
        """Before a truncated matrix, which cannot stop in its middle, the others are saved."""
        expected = self.whole()
        env = {"LONGSPAN_TEST_STALL": "0:lowrank:60"}
        process = self.start(2, env=env, command="compare")
        self.assertTrue(self.wait_for(lambda: os.path.exists(self.checkpoint), process))
        send(self.until_it_listens(process, 2), signal.SIGKILL)
        self.assertNotIn(self.end(process)[0], (0, STOPPED))
        self.assertEqual(self.done_of(), "methods = 4")
        self.finish("compare")
        self.assertEqual(self.methods(), expected)

    def test_end_of_the_job_and_every_seconds(self):
        end = {"SLURM_JOB_END_TIME": str(int(time.time()) - 5)}
        self.expect_stop(self.end(self.start(2, env=end, command="compare")))
        self.assertEqual(self.done_of(), "methods = 1")
        self.finish("compare", checkpoint__every_seconds=1e-9)
        self.assertEqual(self.told()["checkpoint"]["written"], 3)

    def test_what_does_not_fit(self):
        expected = self.whole()
        self.expect_stop(self.stop("compare", "block"))
        self.refused("compare", CONTENT, "method 1 was block 100", attention__block_size=101)
        self.refused("compare", CONTENT, "attention.scale was", attention__scale=0.3)
        self.refused("compare", CONTENT, "compare.repeats was 2", compare__repeats=3)
        self.refused("compare", CONTENT, "ranks was 2", ranks=1)
        self.refused("compare", CONTENT, "compute.isa was portable", compute__isa="avx2")
        with open(self.source, "rb") as file:
            before = file.read()
        times = os.stat(self.source)
        with h5py.File(self.source, "r+") as file:
            file["v"][0, 0, 0] += 1
        self.refused("compare", CONTENT, "input.q was")
        with open(self.source, "wb") as file:
            file.write(before)
        os.utime(self.source, ns=(times.st_atime_ns, times.st_mtime_ns))
        self.finish("compare", checkpoint__resume="no")
        self.assertEqual(self.methods(), expected)

    def test_damage(self):
        expected = self.whole()
        self.expect_stop(self.stop("compare", "block"))
        shutil.copy(self.checkpoint, self.path("kept"))
        for how in ("results", "exact_out", "exact_lse", "truncated"):
            with self.subTest(how):
                shutil.copy(self.path("kept"), self.checkpoint)
                if how == "truncated":
                    os.truncate(self.checkpoint, os.path.getsize(self.checkpoint) // 2)
                else:
                    with h5py.File(self.checkpoint, "r+") as file:
                        file[how][(0,) * file[how].ndim] += 1
                self.refused("compare", CONTENT, self.checkpoint)
        shutil.copy(self.path("kept"), self.checkpoint + ".prev")
        told = self.finish("compare")
        self.assertIn("warning: the last checkpoint cannot be used", told)
        self.assertEqual(self.methods(), expected)

    def test_no_file(self):
        """Without a report there is nothing that a state could be called by: TERM ends the program."""
        code, told = self.stop("compare", "block", number=signal.SIGTERM, report__json=None)
        self.assertNotIn(code, (0, STOPPED), told)
        self.assertEqual(sorted(os.listdir(self.folder)), ["in.h5"])


class Layer(Stopping):
    def setUp(self):
        super().setUp()
        weights = make_weights(24, 3, 3, 8)
        with h5py.File(self.source, "w") as file:
            file["x"] = make_rows((2001, 24)).astype("<f4")
            for name, x in weights.items():
                file[name] = x.astype("<f4")

    def keys(self, **changes):
        return {"layer.heads": 3, "layer.rope_base": 10000, **super().keys(**changes)}

    def sum_of(self):
        with h5py.File(self.output) as file:
            return text(file["y"].attrs["xxh64"])

    def whole(self, **changes):
        self.finish("layer", ranks=1, **changes)
        sum_ = self.sum_of()
        os.remove(self.output)
        return sum_

    def test_it_goes_on(self):
        """Stopped at the begin of attention and in the middle of it; other ranks and partitions give the same bits."""
        for changes in ({"attention__mask": "causal"}, {"attention__method": "topk", "attention__topk": 30}):
            with self.subTest(**changes):
                sum_ = self.whole(**changes)
                self.expect_stop(self.stop("layer", "compute", **changes))
                self.assertFalse(os.path.exists(self.output))
                end = {"SLURM_JOB_END_TIME": str(int(time.time()) - 5)}
                self.expect_stop(self.end(self.start(3, env=end, command="layer", compute__gather="chain", **changes)))
                told = self.finish("layer", ranks=1, checkpoint__every_seconds=0.01, **changes)
                self.assertIn("going on from " + self.checkpoint, told)
                self.assertEqual(self.sum_of(), sum_)
                self.assertTrue(self.told()["verify"]["passed"])
                state = self.told()["checkpoint"]
                self.assertTrue(state["resumed"])
                self.assertGreater(state["written"], 0)
                os.remove(self.output)

    def test_what_does_not_fit(self):
        sum_ = self.whole()
        self.expect_stop(self.stop("layer", "compute", number=signal.SIGTERM))
        self.refused("layer", CONTENT, "layer.rope_base was 10000", layer__rope_base=5000)
        self.refused("layer", CONTENT, "attention.scale was", attention__scale=0.3)
        saved = self.path("saved.h5")
        shutil.copy2(self.source, saved)
        with h5py.File(self.source, "r+") as file:
            file["out_proj.weight"][0, 0] += 1
        self.refused("layer", CONTENT, "input.x was")
        shutil.copy2(saved, self.source)
        self.finish("layer", checkpoint__resume="yes")
        self.assertEqual(self.sum_of(), sum_)

    def test_completed_before(self):
        """Killed between the renaming of the output and the removal of the checkpoint."""
        sum_ = self.whole()
        self.expect_stop(self.stop("layer", "compute"))
        shutil.copy(self.checkpoint, self.path("kept"))
        self.finish("layer")
        os.rename(self.path("kept"), self.checkpoint)
        self.assertIn("nothing was left to do", self.finish("layer"))
        self.assertEqual(self.sum_of(), sum_)

    def test_lowrank(self):
        """It saves nothing: USR1 changes nothing."""
        keys = {"attention__method": "lowrank", "attention__rank": 4}
        code, told = self.stop("layer", "open", **keys)
        self.assertEqual(code, 0, told)
        self.assertIsNone(self.told()["checkpoint"])


class Map(Stopping):
    def setUp(self):
        super().setUp()
        q, k, v = operands((2, 1801, 32), (1, 3003, 32), 24, seed=6)
        write_input(self.source, q, k, v)

    def test_signals(self):
        """TERM ends it cleanly; USR1 changes nothing."""
        page, picture = self.path("page.html"), self.path("map.png")
        files = {"report__html": page, "report__plot": picture}
        code, told = self.stop("map", "compute", number=signal.SIGTERM, **files)
        self.assertEqual(code, TERMINATED, told)
        lines = [line for line in told.splitlines() if line.startswith("longspan: error:")]
        self.assertEqual(len(lines), 1, told)
        self.assertIn("ended by SIGTERM; map keeps no state", lines[0])
        self.assertEqual(sorted(os.listdir(self.folder)), ["in.h5"])
        code, told = self.stop("map", "compute")
        self.assertEqual(code, 0, told)
        with open(self.report, encoding="utf-8") as file:
            self.assertTrue(json.load(file)["verify"]["passed"])
        self.assertTrue(os.path.exists(self.output))
        self.assertEqual(glob.glob(self.path("*.partial")), [])


if __name__ == "__main__":
    unittest.main()
