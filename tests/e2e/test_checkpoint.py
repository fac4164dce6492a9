#!/usr/bin/env python3
"""Checkpoints of the command: signals, time limit, what is refused, damage, full disks.

SPDX-License-Identifier: BSD-3-Clause
"""

import os
import shutil
import signal
import subprocess
import time
import unittest

import h5py
import numpy as np
from common import operands, oracle, text, write_input
from test_kill import STOPPED, Running, send

USAGE, CONTENT, VERIFY, FILE = 2, 3, 4, 6


class Checkpoint(Running):
    def setUp(self):
        super().setUp()
        q, k, v = operands((2, 1801, 32), (1, 3003, 32), 24, seed=6)
        write_input(self.source, q, k, v)

    def stop(self, ranks, number=signal.SIGUSR1, whom=all, after=0.0, **changes):
        """A run that gets a signal as soon as it listens; its code and words."""
        process = self.start(ranks, **changes)
        pids = self.until_it_listens(process, ranks)
        self.assertTrue(pids, "the run was over before it listened")
        time.sleep(after)
        send(pids if whom is all else [pids[whom]], number)
        return self.end(process)

    def expect_stop(self, result):
        code, told = result
        self.assertEqual(code, STOPPED, told)
        self.assertIn("the state is in " + self.checkpoint, told)
        self.assertNotIn("longspan: error", told)
        self.assertTrue(os.path.exists(self.checkpoint))
        self.assertFalse(os.path.exists(self.output))

    def expect_end(self, ranks, sums, **changes):
        code, told = self.end(self.start(ranks, **changes))
        self.assertEqual(code, 0, told)
        self.expect_result(sums, told)
        self.expect_nothing_left()
        os.remove(self.output)
        return told

    def refused(self, code, *words, ranks=2, **changes):
        got, told = self.end(self.start(ranks, **changes))
        lines = [line for line in told.splitlines() if line.startswith("longspan: error:")]
        self.assertEqual((got, len(lines)), (code, 1), told)
        for word in words:
            self.assertIn(word, lines[0])
        self.assertFalse(os.path.exists(self.output))

    # ---- stopping ----

    def test_signals(self):
        """USR1 and TERM, to all ranks or one, before the first tile and later, once and twice."""
        sums = self.run_whole()
        self.expect_stop(self.stop(2, signal.SIGTERM))
        self.expect_stop(self.stop(3, signal.SIGUSR1, whom=2, compute__gather="chain"))
        self.expect_stop(self.stop(1, signal.SIGUSR1, compute__isa="auto"))
        process = self.start(2, compute__gather="panels")
        pids = self.until_it_listens(process, 2)
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1):
            send(pids, number)
            time.sleep(0.005)
        self.expect_stop(self.end(process))
        told = self.expect_end(3, sums, compute__partition="cyclic")
        self.assertIn("going on from " + self.checkpoint, told)
        report = self.told()["checkpoint"]
        self.assertTrue(report["resumed"])
        self.assertEqual(report["resumed_from"], self.checkpoint)
        self.assertTrue(0 <= report["resumed_done"] < 1, report)

    def test_end_of_the_job(self):
        """The state is saved before the time that Slurm names, and not at once where it is near from the start."""
        sums = self.run_whole()
        end = {"SLURM_JOB_END_TIME": str(int(time.time()) - 5)}
        self.expect_stop(self.end(self.start(2, env=end)))
        self.expect_end(1, sums)
        later = {"SLURM_JOB_END_TIME": str(int(time.time()) + 1000)}
        code, told = self.end(self.start(2, env=later))
        self.assertEqual(code, 0, told)
        os.remove(self.output)
        code, told = self.end(self.start(2, env=end, checkpoint__file="none"))
        self.assertEqual(code, 0, told)

    def test_every_seconds(self):
        sums = self.run_whole()
        self.expect_end(2, sums, checkpoint__every_seconds=0.01)
        report = self.told()["checkpoint"]
        self.assertGreater(report["written"], 0)
        self.assertGreater(report["bytes"], 1801 * 2 * 24 * 4)
        self.assertGreater(report["seconds"], 0)
        self.assertIsNone(report["resumed_from"])
        self.expect_end(2, sums)
        self.assertEqual(self.told()["checkpoint"]["written"], 0)

    def test_none(self):
        """Without checkpoints USR1 does nothing, and TERM ends the program."""
        sums = self.run_whole()
        code, told = self.stop(2, signal.SIGUSR1, after=0.3, checkpoint__file="none")
        self.assertEqual(code, 0, told)
        self.expect_result(sums)
        os.remove(self.output)
        self.assertIsNone(self.told()["checkpoint"])
        stall = {"LONGSPAN_TEST_STALL": "0:compute:30"}
        code, told = self.stop(1, signal.SIGTERM, env=stall, checkpoint__file="none")
        self.assertNotIn(code, (0, STOPPED), told)
        self.assertFalse(os.path.exists(self.checkpoint))

    # ---- going on ----

    def test_what_does_not_fit(self):
        sums = self.run_whole()
        self.expect_stop(self.stop(2))
        self.refused(CONTENT, "attention.scale was", "and is 0.25", "checkpoint.resume=no", attention__scale=0.25)
        self.refused(CONTENT, "the shape was", input__heads="0")
        self.refused(CONTENT, "compute.isa was portable and is avx2", compute__isa="avx2")
        saved = self.path("saved.h5")
        shutil.copy2(self.source, saved)
        with h5py.File(self.source, "r+") as file:
            file["q"][0, 0, 0] += 1
        self.refused(CONTENT, "input.q was")
        shutil.copy2(saved, self.source)
        self.edit_head(lambda text: text.replace("version = ", "version = 9", 1))
        self.refused(CONTENT, "the program's version was 9")
        self.expect_end(2, sums, checkpoint__resume="no")

    def edit_head(self, change):
        """The identity of a checkpoint, with a checksum that fits."""
        with h5py.File(self.checkpoint, "r+") as file:
            identity, progress = (bytes(file.attrs[name]) for name in ("identity", "progress"))
            identity = change(identity.decode()).encode()
            file.attrs["identity"] = np.bytes_(identity)
            sum_ = oracle.xxh64(identity, oracle.xxh64(progress, 0))
            file.attrs["head_xxh64"] = np.bytes_(f"{sum_:016x}")

    def test_resume(self):
        sums = self.run_whole()
        self.refused(FILE, "there is no checkpoint", checkpoint__resume="yes")
        self.expect_stop(self.stop(2))
        told = self.expect_end(1, sums, checkpoint__resume="yes")
        self.assertIn("going on from", told)
        self.expect_stop(self.stop(1))
        told = self.expect_end(2, sums, checkpoint__resume="no")
        self.assertNotIn("going on from", told)

    def test_damage(self):
        """The one before the last is used, with a notice; a damaged file alone is refused."""
        sums = self.run_whole()
        previous = self.checkpoint + ".prev"
        for how in ("byte", "head", "truncated", "missing"):
            with self.subTest(how):
                self.expect_stop(self.stop(2))
                if not os.path.exists(previous):
                    shutil.copy(self.checkpoint, previous)
                self.damage(how)
                if how != "missing":
                    os.rename(previous, previous + ".away")
                    self.refused(CONTENT, self.checkpoint)
                    os.rename(previous + ".away", previous)
                told = self.expect_end(2, sums)
                self.assertIn("warning: the last checkpoint cannot be used", told)
                self.assertEqual(self.told()["checkpoint"]["resumed_from"], previous)

    def damage(self, how):
        if how == "byte":
            with h5py.File(self.checkpoint, "r+") as file:
                file["out"][0, 1, 1234, 5] += 1  # a row like any other
        elif how == "head":
            with h5py.File(self.checkpoint, "r+") as file:
                file.attrs["progress"] = np.bytes_(b"phase = 0\ndone = 0.9\n")
        elif how == "truncated":
            os.truncate(self.checkpoint, os.path.getsize(self.checkpoint) // 2)
        else:
            os.remove(self.checkpoint)

    # ---- killed between the renaming of the output and the removal of the checkpoint ----

    def leave_both(self):
        """A run's output beside the checkpoint that it went on from."""
        shutil.copy(self.checkpoint, self.path("kept"))
        code, told = self.end(self.start(2))
        self.assertEqual(code, 0, told)
        os.rename(self.path("kept"), self.checkpoint)

    def expect_complete(self, ranks, **changes):
        """The run sees that nothing is left to do, and touches nothing but the checkpoint."""
        os.remove(self.report)
        with open(self.output, "rb") as file:
            before = file.read()
        code, told = self.end(self.start(ranks, **changes))
        self.assertEqual(code, 0, told)
        self.assertIn("nothing was left to do", told)
        with open(self.output, "rb") as file:
            self.assertEqual(file.read(), before)
        self.expect_nothing_left()
        self.assertTrue(self.told()["complete_before"])
        self.assertEqual(self.told()["checksums"]["failed"], 0)

    def test_completed_before(self):
        sums = self.run_whole()
        self.expect_stop(self.stop(2))
        self.leave_both()
        for changes in ({"attention__scale": 0.25}, {"output__lse": "no"}, {"checkpoint__resume": "no"}):
            with self.subTest(**changes):
                code, told = self.end(self.start(2, **changes))
                self.assertEqual(code, FILE, told)
                self.assertIn("exists already", told)
        self.assertTrue(os.path.exists(self.checkpoint))
        self.expect_complete(3, compute__gather="chain", compute__partition="cyclic")
        self.expect_result(sums)
        code, told = self.end(self.start(2))  # without a checkpoint it is any output
        self.assertEqual(code, FILE, told)
        os.remove(self.output)

    def test_completed_before_and_damaged(self):
        sums = self.run_whole()
        self.expect_stop(self.stop(2))
        self.leave_both()
        with h5py.File(self.output, "r+") as file:
            file["out"][1, 7, 3] += 1
        code, told = self.end(self.start(2))
        self.assertEqual(code, VERIFY, told)
        self.assertIn("remove it, and start again to go on from " + self.checkpoint, told)
        os.remove(self.output)
        self.assertIn("going on from", self.expect_end(2, sums))

    # ---- other methods ----

    def test_block_and_topk(self):
        for changes in (
            {"attention__method": "block", "attention__block_size": 700},
            {"attention__method": "topk", "attention__topk": 40, "attention__renormalize": "yes"},
        ):
            with self.subTest(**changes):
                sums = self.run_whole(**changes)
                self.expect_stop(self.stop(2, **changes))
                self.expect_end(3, sums, checkpoint__every_seconds=0.01, **changes)

    def svd(self, ranks, after=None, command="svd", **changes):
        """A decomposition, stopped some seconds after it listens."""
        keys = {"attention__rank": 12, "attention__oversample": 4, "verify__rows": 4, **changes}
        process = self.start(ranks, command=command, **keys)
        if after is not None:
            pids = self.until_it_listens(process, ranks)
            time.sleep(after)
            send(pids, signal.SIGUSR1)
        return self.end(process)

    def test_svd(self):
        """Between two products: the same bits on the same ranks, singular values to 1e-10 on others."""
        code, told = self.svd(2)
        self.assertEqual(code, 0, told)
        with h5py.File(self.output) as file:
            values = file["singular_values"][...]
            sums = {name: text(file[name].attrs["xxh64"]) for name in ("singular_values", "u", "vt")}
        os.remove(self.output)
        seconds = self.told()["seconds"]["total"]
        for ranks_of_run in ([2], [3, 1]):
            stopped, resumed = 0, 0
            for number in range(9):
                ranks = ranks_of_run[number % len(ranks_of_run)]
                code, told = self.svd(ranks, after=seconds * 0.3 if number < 2 else None)
                resumed += "going on from" in told
                if code == 0:
                    break
                self.assertEqual(code, STOPPED, told)
                stopped += 1
            self.assertTrue(stopped > 0 and resumed > 0, (stopped, resumed))
            with h5py.File(self.output) as file:
                np.testing.assert_allclose(file["singular_values"][...], values, rtol=1e-10)
                if ranks_of_run == [2]:
                    self.assertEqual({name: text(file[name].attrs["xxh64"]) for name in sums}, sums)
            self.expect_nothing_left()
            os.remove(self.output)

    def test_svd_of_several_heads(self):
        """Stopped in the first head of two: the second has no checkpoint, and needs none. Damage is told of."""
        keys = {"command": "svd", "attention__rank": 5, "verify__rows": 4}
        first = self.checkpoint + ".0"
        code, told = self.stop(2, **keys)
        self.assertEqual((code, os.path.exists(first)), (STOPPED, True), told)
        shutil.copy(first, first + ".prev")
        with h5py.File(first, "r+") as file:
            name = next(name for name in file if name[0] in "pqtu" and name[1:].isdigit())
            file[name][0, 0, 3, 1] += 1
        shutil.copy(first + ".prev", self.checkpoint + ".kept")
        code, told = self.end(self.start(2, checkpoint__resume="yes", **keys))
        self.assertEqual(code, 0, told)
        self.assertIn("warning: the last checkpoint cannot be used", told)
        self.assertIn(f"going on from {first}.prev", told)
        self.assertEqual(self.told()["checkpoint"]["resumed_from"], first + ".prev")
        os.rename(self.checkpoint + ".kept", first)
        self.expect_complete(1, **keys)

    # ---- names ----

    def test_names_of_other_files(self):
        """A checkpoint's file is replaced and removed: it must be nobody's."""
        with open(self.source, "rb") as file:
            before = file.read()
        other = self.path("other")
        with open(other, "w", encoding="ascii") as file:
            file.write("what is not ours\n")
        for name in (self.source, self.output, os.path.join(self.folder, ".", "in.h5")):
            self.refused(USAGE, "name another file", checkpoint__file=name, checkpoint__resume="no")
        os.rename(self.source, self.source + ".prev")
        self.refused(USAGE, "in.h5.prev", input__file=self.source + ".prev", checkpoint__file=self.source)
        os.rename(self.source + ".prev", self.source)
        self.refused(CONTENT, other, checkpoint__file=other, checkpoint__resume="no")
        self.assertTrue(os.path.exists(other))
        with open(self.source, "rb") as file:
            self.assertEqual(file.read(), before)

    # ---- disks ----

    def test_folder_that_cannot_be_written(self):
        self.refused(FILE, "cannot be made", checkpoint__file="/proc/longspan.checkpoint")
        self.refused(FILE, "cannot be made", checkpoint__file=self.path("no folder/x"))
        self.refused(FILE, "it is a folder", checkpoint__file=self.folder)

    def test_full_disk(self):
        """The run goes on, says so, and what was saved before stays; when it is to end, it ends with the error."""
        sums = self.run_whole()
        disk = self.path("disk")
        os.mkdir(disk)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True, text=True)
        if mounted.returncode != 0:
            self.skipTest(f"mounting a small tmpfs is refused here: {mounted.stderr}")
        self.addCleanup(subprocess.run, ["umount", disk], check=True)
        small = os.path.join(disk, "state")
        with open(os.path.join(disk, "filler"), "wb") as file:
            file.write(b"x" * (800 << 10))
        code, told = self.stop(2, signal.SIGTERM, checkpoint__file=small)
        self.assertEqual(code, FILE, told)
        self.assertIn("not enough space", told)
        told = self.expect_end(2, sums, checkpoint__file=small, checkpoint__every_seconds=0.01)
        self.assertIn("longspan: warning: no checkpoint was written: not enough space", told)
        report = self.told()["checkpoint"]
        self.assertEqual(report["written"], 0)
        self.assertGreater(report["failed"], 0)
        self.assertEqual(sorted(os.listdir(disk)), ["filler"])


if __name__ == "__main__":
    unittest.main()
