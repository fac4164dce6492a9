#!/usr/bin/env python3
"""Runs that are killed at any moment: the next one goes on, and the last one ends with the checksum of a run never stopped.

LONGSPAN_KILL_RUNS is how many runs are killed (default 6; 30 and more for a soak); LONGSPAN_KILL_SEED chooses when.

SPDX-License-Identifier: BSD-3-Clause
"""

import collections
import ctypes
import glob
import json
import os
import random
import signal
import subprocess
import time
import unittest

from common import BIN, TIMEOUT, Case, environment, launcher, operands, read_output, write_input

RUNS = int(os.environ.get("LONGSPAN_KILL_RUNS", "6"))
SEED = int(os.environ.get("LONGSPAN_KILL_SEED", "1"))
STOPPED = 75


def ranks_of(process):
    """Process ids of the ranks that the launcher has started."""
    found = []
    for path in glob.glob(f"/proc/{process.pid}/task/*/children"):
        try:
            with open(path, encoding="ascii") as file:
                found += [int(pid) for pid in file.read().split()]
        except OSError:
            pass
    return sorted(found)


def listens(pid):
    """Whether a process is the command, and takes USR1 and TERM by now."""
    try:
        if os.readlink(f"/proc/{pid}/exe") != os.path.realpath(BIN):
            return False
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            caught = next(int(line.split()[1], 16) for line in file if line.startswith("SigCgt"))
    except (OSError, StopIteration):
        return False
    return all(caught >> (number - 1) & 1 for number in (signal.SIGUSR1, signal.SIGTERM))


def send(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


class Running(Case):
    """Starting runs, and looking at what they leave."""

    def setUp(self):
        super().setUp()
        self.source, self.output = self.path("in.h5"), self.path("out.h5")
        self.report, self.checkpoint = self.path("report.json"), self.path("out.h5.checkpoint")

    def keys(self, **changes):
        keys = {
            "input.file": self.source,
            "output.file": self.output,
            "report.json": self.report,
            "compute.isa": "portable",
            "compute.threads": 1,
            "compute.panel_rows": 1024,
        }
        keys.update({key.replace("__", "."): value for key, value in changes.items()})
        return keys

    def start(self, ranks, env=None, command="attend", **changes):
        options = [f"--{key}={value}" for key, value in self.keys(**changes).items()]
        process = subprocess.Popen(
            [*launcher(ranks), BIN, command, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # As users have it: the launcher's exit code is the ranks', and it ends the others when one is killed.
            env={**environment(), "OMPI_MCA_orte_abort_on_non_zero_status": "1", **(env or {})},
            start_new_session=True,
        )
        self.addCleanup(lambda: process.poll() is None and os.killpg(process.pid, signal.SIGKILL))
        return process

    def end(self, process, timeout=TIMEOUT):
        """Waits for the end; returns exit code and what was told."""
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            self.fail(f"no end after {timeout} s: {process.args}\n{out}\n{err}")
        return process.returncode, out + err

    def wait_for(self, condition, process):
        """Until the condition holds or the run is over; whether it does."""
        while process.poll() is None:
            value = condition()
            if value:
                return value
            time.sleep(0.002)
        return False

    def until_it_listens(self, process, ranks):
        def all_listen():
            pids = ranks_of(process)
            return pids if len(pids) == ranks and all(listens(pid) for pid in pids) else None

        return self.wait_for(all_listen, process)

    def run_whole(self, ranks=1, **changes):
        """Checksums of out and lse of a run that nobody disturbs."""
        output, report = self.path("whole.h5"), self.path("whole.json")
        code, told = self.end(self.start(ranks, output__file=output, report__json=report, **changes))
        self.assertEqual(code, 0, told)
        sums = {name: value for name, (_, value) in read_output(output).items()}
        os.remove(output)
        with open(report, encoding="utf-8") as file:
            self.seconds = json.load(file)["seconds"]["total"]
        return sums

    def told(self):
        with open(self.report, encoding="utf-8") as file:
            return json.load(file)

    def expect_result(self, sums, told=""):
        self.assertEqual({name: value for name, (_, value) in read_output(self.output).items()}, sums, told)

    def expect_nothing_left(self):
        left = sorted(os.listdir(self.folder))
        self.assertEqual([name for name in left if "checkpoint" in name or "partial" in name], [], left)


class Kill(Running):
    def kill(self, process, ranks, chance):
        """Kills one rank or all, in the moment that was drawn; what was being done."""
        moment = chance.choice(["any", "first checkpoint", "later checkpoint", "later checkpoint", "end"])
        pids = self.until_it_listens(process, ranks)
        if moment == "later checkpoint":
            self.wait_for(lambda: os.path.exists(self.checkpoint), process)
            time.sleep(self.seconds * chance.uniform(0, 0.5))
        if "checkpoint" in moment:
            self.wait_for(lambda: glob.glob(self.path(".out.h5.checkpoint.*.partial")), process)
            time.sleep(chance.choice([0, 0.001, 0.005]))
        elif moment == "end":
            # The report's probe apart, nothing tells that the output is being written: its time is drawn.
            time.sleep(max(0, self.seconds * chance.uniform(0.8, 1.3)))
        else:
            time.sleep(chance.uniform(0, self.seconds * 1.2))
        writing = bool(glob.glob(self.path(".out.h5.checkpoint.*.partial")))
        if process.poll() is not None or not pids:
            return "over"
        whom = "all" if chance.random() < 0.4 else "one"
        send(pids if whom == "all" else [chance.choice(pids)], signal.SIGKILL)
        return f"{whom}, {'writing a checkpoint' if writing else moment}"

    def chain(self, sums, chance, kills, outcomes, **changes):
        """Runs that are killed, then one that comes to its end."""
        for number in range(kills + 1):
            ranks = chance.choice([1, 2, 3])
            process = self.start(
                ranks,
                compute__gather=chance.choice(["panels", "all", "node", "chain"]),
                compute__partition=chance.choice(["contiguous", "balanced", "cyclic"]),
                checkpoint__every_seconds=chance.choice([0.03, 0.1]),
                **changes,
            )
            what = self.kill(process, ranks, chance) if number < kills else "left alone"
            code, told = self.end(process)
            resumed = "going on from" in told
            outcomes[f"{what}: {'ended' if code == 0 else 'killed'}{', had resumed' if resumed else ''}"] += 1
            if what in ("over", "left alone"):
                self.assertEqual(code, 0, told)
            if os.path.exists(self.output):
                break
            self.assertNotEqual(code, 0, told)
        # Complete under its name, however the run ended.
        self.expect_result(sums, told)
        if glob.glob(self.checkpoint + "*"):  # killed between its end and the removal
            code, told = self.end(self.start(2, **changes))
            self.assertEqual(code, 0, told)
            self.assertIn("nothing was left to do", told)
            self.expect_result(sums, told)
            outcomes["complete before"] += 1
        if code == 0:
            self.expect_nothing_left()
        os.remove(self.output)

    def soak(self, runs, shape, **changes):
        chance = random.Random(SEED)
        q, k, v = operands(*shape, seed=5)
        write_input(self.source, q, k, v)
        sums = self.run_whole(**changes)
        outcomes = collections.Counter()
        killed = 0
        while killed < runs:
            self.chain(sums, chance, chance.randint(1, 3), outcomes, **changes)
            killed = sum(count for what, count in outcomes.items() if ": killed" in what)
        print(f"{killed} runs killed; {dict(sorted(outcomes.items()))}")

    def test_what_killed_runs_leave_of_open_mpi(self):
        """A semaphore of the machine, by the file's name, that nobody will post."""
        q, k, v = operands((20, 8), (30, 8), seed=5)
        self.source = self.path(f"killed-{os.getpid()}.h5")
        write_input(self.source, q, k, v)
        name = b"/OMPIO_" + os.path.basename(self.source).encode()
        library = ctypes.CDLL(None, use_errno=True)
        library.sem_open.restype = ctypes.c_void_p
        self.assertTrue(library.sem_open(name, os.O_CREAT | os.O_EXCL, 0o644, 0))
        self.addCleanup(library.sem_unlink, name)
        code, told = self.end(self.start(2), timeout=60)
        self.assertEqual(code, 0, told)

    def test_exact(self):
        self.soak(RUNS - RUNS // 4, ((2, 2500, 32), (1, 5003, 32), 24), attention__mask="causal")

    def test_topk(self):
        self.soak(RUNS // 4, ((2, 1501, 16), (1, 4003, 16), 12), attention__method="topk", attention__topk=20)


if __name__ == "__main__":
    unittest.main()
