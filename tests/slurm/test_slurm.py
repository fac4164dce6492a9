#!/usr/bin/env python3
"""The scripts of jobs/ on a Slurm cluster of four nodes that the test starts on this machine (as root; up.sh).

SPDX-License-Identifier: BSD-3-Clause
"""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import h5py
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
import common  # noqa: E402 (tests/e2e/common.py)

JOBS = os.path.join(os.environ.get("LONGSPAN_SOURCE_DIR", os.path.join(HERE, "..", "..")), "jobs")
LIMIT_SECONDS = 75  # of computing, for a job whose limit is 60 s


def call(*arguments, timeout=60, check=True):
    result = subprocess.run(arguments, env=ENVIRONMENT, cwd=FOLDER, text=True, timeout=timeout,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if check and result.returncode:
        raise AssertionError(f"{' '.join(arguments)}: {result.returncode}\n{result.stdout}")
    return result.stdout.strip()


def setUpModule():
    global FOLDER, ENVIRONMENT
    if subprocess.run(["unshare", "--uts", "--mount", "true"], check=False).returncode:
        raise unittest.SkipTest("this machine allows no namespaces, of which the nodes are made")
    FOLDER = tempfile.mkdtemp(prefix="longspan-slurm-")
    os.chmod(FOLDER, 0o755)  # munge wants its socket to be within reach of all
    unittest.addModuleCleanup(shutil.rmtree, FOLDER, ignore_errors=True)
    cluster = os.path.join(FOLDER, "cluster")
    unittest.addModuleCleanup(subprocess.run, [os.path.join(HERE, "down.sh"), cluster], check=False)
    port = str(17000 + os.getpid() % 200 * 110)
    subprocess.run([os.path.join(HERE, "up.sh"), cluster], check=True, env=dict(os.environ, PORT=port))
    # What env.sh sets, and nothing of an MPI job that the tests themselves may run in.
    told = subprocess.run(["sh", "-c", '. "$0"/env.sh; env -0', cluster], check=True, stdout=subprocess.PIPE,
                          env={key: os.environ[key] for key in ("PATH", "HOME", "LD_LIBRARY_PATH") if key in os.environ})
    ENVIRONMENT = dict(line.split("=", 1) for line in told.stdout.decode().split("\0") if line)
    ENVIRONMENT["LONGSPAN"] = common.BIN


def submit(script, *arguments, sbatch=(), **sizes):
    """The job's number. sizes: nodes, tasks a node, time in minutes."""
    size = {"nodes": 1, "ntasks_per_node": 1, "cpus_per_task": 1, "time": 10, **sizes}
    options = [f"--{key.replace('_', '-')}={value}" for key, value in size.items()]
    return call("sbatch", "--parsable", *options, *sbatch, os.path.join(JOBS, script), *arguments)


def show(job):
    """Slurm's record of the job as {name: value}."""
    return dict(field.split("=", 1) for field in call("scontrol", "-o", "show", "job", job).split() if "=" in field)


def state(job):
    return show(job)["JobState"]


def log(job):
    """What all lives of the job printed."""
    name = show(job)["StdOut"]
    with open(name, encoding="utf-8", errors="replace") as file:
        return file.read()


def until(condition, what, seconds=120, job=None):
    """The condition's value, when it has one."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {seconds} s" + (f"\n{show(job)}\n{log(job)}" if job else ""))


def ended(job, seconds=240):
    over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
    return until(lambda: state(job) if state(job) in over else None, f"end of job {job}", seconds, job)


def checksums(path):
    with h5py.File(path) as file:
        return {name: common.text(file[name].attrs["xxh64"]) for name in ("out", "lse")}


def ranks_of(job):
    """Processes of the command that belong to a job, as {rank: pid}."""
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:
                environ = dict(line.split(b"=", 1) for line in file.read().split(b"\0") if b"=" in line)
            program = os.readlink(f"/proc/{entry}/exe")
        except OSError:
            continue
        if program == os.path.realpath(common.BIN) and environ.get(b"SLURM_JOB_ID") == job.encode():
            found[int(environ[b"PMIX_RANK"])] = int(entry)
    return found


class Slurm(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.small = os.path.join(FOLDER, "small.h5")
        common.write_input(cls.small, *common.operands((4, 700, 32), (4, 900, 32), seed=3))
        cls.reference = cls.attend_here(cls.small, "small-reference.h5")
        # Jobs that must be caught at work compute for so long on one rank.
        trial = os.path.join(FOLDER, "trial.h5")
        common.write_input(trial, *common.operands((4096, 64), (4096, 64), seed=4))
        report = os.path.join(FOLDER, "trial.json")
        cls.attend_here(trial, "trial-out.h5", "--compute.isa=portable", f"--report.json={report}")
        with open(report, encoding="utf-8") as file:
            cls.speed = json.load(file)["gflops"] * 1e9
        cls.slow = cls.rows_for(12, "slow.h5")
        cls.slow_reference = cls.attend_here(cls.slow, "slow-reference.h5", "--compute.isa=portable", ranks=2)

    @classmethod
    def rows_for(cls, seconds, name):
        rows = int(math.sqrt(seconds * cls.speed / (4 * 64)))
        path = os.path.join(FOLDER, name)
        result = common.execute([common.BIN, "generate", f"--shape.n={rows}", "--shape.d_k=64", f"--output.file={path}"])
        assert result.returncode == 0, result.stderr
        return path

    @staticmethod
    def attend_here(source, output, *options, ranks=1):
        output = os.path.join(FOLDER, output)
        result = common.run("attend", ranks, f"--input.file={source}", f"--output.file={output}",
                            "--compute.threads=1", *options, timeout=300)
        assert result.returncode == 0, result.stderr
        return checksums(output)

    def deck(self, name, **keys):
        """A deck; keys as section__key=value. The output is NAME.h5."""
        self.output = os.path.join(FOLDER, f"{name}.h5")
        keys = {"input__file": self.small, "output__file": self.output, **keys}
        path = os.path.join(FOLDER, f"{name}.ini")
        sections = {}
        for key, value in keys.items():
            section, _, rest = key.partition("__")
            sections.setdefault(section, []).append(f"{rest} = {value}\n")
        with open(path, "w", encoding="utf-8") as file:
            for section, lines in sections.items():
                file.write(f"[{section}]\n{''.join(lines)}\n")
        return path

    def slow_deck(self, name, source=None, **keys):
        return self.deck(name, input__file=source or self.slow, compute__isa="portable", **keys)

    def completed(self, job, seconds=240):
        self.assertEqual(ended(job, seconds), "COMPLETED", log(job))

    def started(self, job, ranks):
        """Waits until that many ranks compute; their process numbers."""
        return until(lambda: (found := ranks_of(job)) and len(found) == ranks and found, "ranks", 60, job)

    def test_nodes(self):
        """The same bits on 1, 2 and 4 nodes, one job after the other (afterok)."""
        last = None
        made = []
        for nodes in (1, 2, 4):
            deck = self.deck(f"nodes{nodes}")
            chain = [f"--dependency=afterok:{last}"] if last else []
            last = submit("attend.sbatch", deck, nodes=nodes, ntasks_per_node=2, sbatch=chain)
            made.append((last, nodes, self.output))
        for job, nodes, output in made:
            self.completed(job)
            self.assertEqual(checksums(output), self.reference, nodes)
            self.assertIn(f"{2 * nodes} ranks", log(job))
            self.assertIn(f"on {nodes} node", log(job))

    def test_array(self):
        """One head a task."""
        deck = self.deck("heads")
        job = submit("array.sbatch", deck, "input.heads", sbatch=["--array=0-3"])
        for head in range(4):
            self.completed(f"{job}_{head}")
        q, k, v = common.operands((4, 700, 32), (4, 900, 32), seed=3)
        expected, _ = common.oracle.attention(q, k, v)
        for head in range(4):
            with h5py.File(os.path.join(FOLDER, f"heads-heads-{head}.h5")) as file:
                out = file["out"][...].reshape(expected[head].shape)
            self.assertLess(np.linalg.norm(out - expected[head]) / np.linalg.norm(expected[head]), 1e-6)

    def test_dependency_fails(self):
        """A job that fails keeps its successor back."""
        first = submit("attend.sbatch", self.deck("wrong", input__file=os.path.join(FOLDER, "none.h5")))
        second = submit("attend.sbatch", self.deck("after"), sbatch=[f"--dependency=afterok:{first}"])
        self.assertEqual(ended(first), "FAILED")
        self.assertIn("longspan: error: ", log(first))
        until(lambda: show(second)["Reason"] == "DependencyNeverSatisfied", "refusal", 60)
        call("scancel", second)

    def test_singletons(self):
        """Without --mpi=pmix srun starts copies that know nothing of each other: refused."""
        told = call("srun", "-N", "1", "-n", "2", "--mpi=none", common.BIN, "attend", self.deck("alone"), check=False)
        self.assertEqual(len(re.findall("longspan: error: ", told)), 1, told)
        self.assertIn("--mpi=pmix", told)
        self.assertFalse(os.path.exists(self.output))

    def test_requeue(self):
        """A signal to the ranks: checkpoint, back into the queue, the same bits on the same job number."""
        job = submit("attend.sbatch", self.slow_deck("requeue"), nodes=2)
        self.started(job, 2)
        time.sleep(2)
        call("scancel", "-s", "USR1", job)
        until(lambda: show(job)["Restarts"] == "1", "requeue", 60, job)
        self.completed(job)
        self.assertEqual(checksums(self.output), self.slow_reference)
        self.assertIn("life 2", log(job))
        self.assertFalse([name for name in os.listdir(FOLDER) if name.startswith("requeue.h5.")])

    def test_requeue_of_a_layer(self):
        """The same of a layer, on other nodes than it began on."""
        random = np.random.default_rng(8)
        source = os.path.join(FOLDER, "layer-input.h5")
        with h5py.File(self.slow) as file, h5py.File(source, "w") as to:
            to["x"] = random.standard_normal((file["q"].shape[0], 64)).astype("<f4")
            to["qkv_proj.weight"] = (random.standard_normal((192, 64)) / 8).astype("<f4")
            to["out_proj.weight"] = (random.standard_normal((64, 64)) / 8).astype("<f4")
        deck = self.slow_deck("layer", source, layer__heads=1)
        sums = []
        for stop in (True, False):
            job = submit("layer.sbatch", deck, nodes=2)
            if stop:
                self.started(job, 2)
                time.sleep(2)
                call("scancel", "-s", "USR1", job)
                until(lambda: show(job)["Restarts"] == "1", "requeue", 60, job)
            self.completed(job)
            self.assertEqual("life 2" in log(job), stop)
            with h5py.File(self.output) as file:
                sums.append(common.text(file["y"].attrs["xxh64"]))
            os.remove(self.output)
        self.assertEqual(sums[0], sums[1])

    def test_requeue_of_a_comparison(self):
        """A signal in the second method: the first is kept, and the table is whole after the second life."""
        deck = self.slow_deck("several", attention__block_size="1000", compare__repeats=1)
        job = submit("compare.sbatch", deck, "--attention.topk=64", nodes=2)
        self.started(job, 2)
        report = os.path.join(FOLDER, "several.json")
        time.sleep(2)
        call("scancel", "-s", "USR1", job)  # in the first: it goes on to the end of that
        until(lambda: show(job)["Restarts"] == "1", "requeue", 120, job)
        self.completed(job)
        with open(report, encoding="utf-8") as file:
            told = json.load(file)
        self.assertEqual([one["name"] for one in told["methods"]], ["exact", "block 1000", "topk 64"])
        self.assertTrue(told["checkpoint"]["resumed"])
        self.assertIn("no method is finished since the start", log(job))
        self.assertFalse(os.path.exists(report + ".checkpoint"))

    def test_limit(self):
        """The job's time is over before its work is: it goes on in a second life, or a third."""
        source = self.rows_for(LIMIT_SECONDS, "limit-input.h5")
        job = submit("attend.sbatch", self.slow_deck("limit", source), time=1, sbatch=["--signal=USR1@30"])
        output = self.output
        self.completed(job, 600)
        self.assertGreaterEqual(int(show(job)["Restarts"]), 1)
        self.assertEqual(checksums(output), self.attend_here(source, "limit-reference.h5", "--compute.isa=portable", ranks=2))

    def test_cancel(self):
        """scancel ends the job for good: no output, nothing left running, not requeued."""
        job = submit("attend.sbatch", self.slow_deck("cancel"), nodes=2)
        self.started(job, 2)
        call("scancel", job)
        self.assertEqual(ended(job, 60), "CANCELLED")
        until(lambda: not ranks_of(job), "end of its ranks", 30)
        time.sleep(6)  # longer than a requeued job waits
        self.assertEqual(state(job), "CANCELLED")
        self.assertFalse(os.path.exists(self.output))

    def test_killed_rank(self):
        """SIGKILL of a rank: the job ends at once without output; the next goes on from the last checkpoint."""
        deck = self.slow_deck("killed", checkpoint__file="killed.checkpoint.h5", checkpoint__every_seconds=1)
        job = submit("attend.sbatch", deck, nodes=2)
        ranks = self.started(job, 2)
        until(lambda: os.path.exists(os.path.join(FOLDER, "killed.checkpoint.h5")), "checkpoint", 60, job)
        os.kill(ranks[1], signal.SIGKILL)
        began = time.monotonic()
        self.assertEqual(ended(job, 60), "FAILED")
        self.assertLess(time.monotonic() - began, 20)
        self.assertFalse(os.path.exists(self.output))
        report = os.path.join(FOLDER, "killed.json")
        again = submit("attend.sbatch", deck, f"--report.json={report}", nodes=1, ntasks_per_node=2)
        self.completed(again)
        self.assertEqual(checksums(self.output), self.slow_reference)
        with open(report, encoding="utf-8") as file:
            self.assertTrue(json.load(file)["checkpoint"]["resumed"])

    def test_svd(self):
        deck = self.deck("spectrum", attention__rank=8, report__json=os.path.join(FOLDER, "spectrum.json"))
        self.completed(submit("svd.sbatch", deck, nodes=2, ntasks_per_node=2))
        with h5py.File(self.output) as file:
            values = file["singular_values"][...]
        self.assertEqual(values.shape, (4, 8))

    def test_scaling(self):
        """The study's script: reports of every size, a table, a picture."""
        for kind, rows in (("strong", {}), ("weak", {"ROWS": "600"})):
            ENVIRONMENT.update(REPEATS="2", FOLDER=os.path.join(FOLDER, kind), **rows)
            job = submit(f"scaling-{kind}.sbatch", self.deck(f"scaling-{kind}"), nodes=4)
            self.completed(job)
            reports = [name for name in os.listdir(os.path.join(FOLDER, kind)) if name.endswith(".json")]
            self.assertEqual(len([name for name in reports if name.startswith("nodes")]), 6, reports)
            self.assertTrue(os.path.exists(os.path.join(FOLDER, kind, f"{kind}.png")))
            for key in ("REPEATS", "FOLDER", *rows):
                ENVIRONMENT.pop(key)


if __name__ == "__main__":
    unittest.main(verbosity=2)
