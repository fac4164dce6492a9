"""What the end-to-end tests share: running the command, making inputs, reading outputs.

Environment: LONGSPAN_BIN, the command under test; MPIEXEC, the launcher (mpirun).

SPDX-License-Identifier: BSD-3-Clause
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import unittest

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import oracle  # noqa: E402 (tests/oracle.py)

BIN = os.path.abspath(os.environ.get("LONGSPAN_BIN", "build/release/bin/longspan"))
MPIEXEC = shlex.split(os.environ.get("MPIEXEC", "mpirun"))
TIMEOUT = 120  # seconds; a hang is a failure


def environment():
    env = dict(
        os.environ,
        OPENBLAS_NUM_THREADS="1",
        OMPI_ALLOW_RUN_AS_ROOT="1",
        OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
        OMPI_MCA_btl_vader_single_copy_mechanism="none",
        # The launcher does not end the other ranks when one fails: they must find out by themselves.
        OMPI_MCA_orte_abort_on_non_zero_status="0",
    )
    env.pop("OMP_NUM_THREADS", None)
    return env


def execute(arguments, env=None, cwd=None, timeout=TIMEOUT):
    """subprocess.run in a process group of its own, all of it killed when the time is over."""
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=env or environment(),
        start_new_session=True,
        errors="replace",
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"no end after {timeout} s: {shlex.join(arguments)}\n{out}\n{err}") from None
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def launcher(ranks):
    return [*MPIEXEC, "--oversubscribe", "--bind-to", "none", "-n", str(ranks)]


def each_rank(*arguments):
    """The command for launch(): every rank tells how it ended."""
    return ["sh", "-c", '"$@"; code=$?; echo "rank ended with $code"; exit $code', "sh", BIN, *arguments]


def launch(arguments, ranks, env=None, cwd=None, timeout=TIMEOUT):
    """execute() for commands made by each_rank(). All ranks must end with the same code: the result's."""
    result = execute(arguments, env, cwd, timeout)
    lines = result.stdout.splitlines(keepends=True)
    ends = [int(line.split()[-1]) for line in lines if line.startswith("rank ended with ")]
    told = f"{shlex.join(arguments)}\n{result.stdout}\n{result.stderr}"
    assert len(ends) == ranks, f"{len(ends)} of {ranks} ranks came to an end: {told}"
    assert len(set(ends)) == 1, f"ranks ended with different codes {ends}: {told}"
    result.stdout = "".join(line for line in lines if not line.startswith("rank ended with "))
    result.returncode = ends[0]
    return result


def run(command, ranks, *options, env=None, cwd=None, timeout=TIMEOUT):
    """`longspan COMMAND OPTIONS...` on so many ranks."""
    return launch([*launcher(ranks), *each_rank(command, *options)], ranks, env, cwd, timeout)


def error_lines(result):
    """The command's own error lines (the launcher adds lines of its own)."""
    return [line for line in (result.stderr + result.stdout).splitlines() if line.startswith("longspan: error:")]


def has_isa(name):
    """Whether this processor runs an instruction set of the command."""
    needed = {"portable": set(), "avx2": {"avx2", "fma"}, "avx512": {"avx512f", "avx512dq", "avx512vl", "avx512bw"}}
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        flags = next((set(line.split()) for line in file if line.startswith("flags")), set())
    return needed[name] <= flags


def isas():
    return [name for name in ("portable", "avx2", "avx512") if has_isa(name)]


def bf16_bits(x):
    """float32 array -> uint16 bits of bf16, rounded to nearest even (finite values)."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def bf16_values(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def rounded(x, dtype):
    """x as the file's type can hold it, in double."""
    if dtype == "bf16":
        return bf16_values(bf16_bits(x)).astype(np.float64)
    return x.astype({"f16": np.float16, "f32": np.float32, "f64": np.float64}[dtype]).astype(np.float64)


def write_dataset(file, name, x, dtype="f32", **options):
    """One operand; options go to h5py (chunks, compression, ...)."""
    if dtype == "bf16":
        dataset = file.create_dataset(name, data=bf16_bits(x), **options)
        dataset.attrs["dtype"] = "bf16"
        return dataset
    types = {"f16": "<f2", "f32": "<f4", "f64": "<f8", "f16be": ">f2", "f32be": ">f4", "f64be": ">f8"}
    return file.create_dataset(name, data=x.astype(types[dtype]), **options)


def write_input(path, q, k, v, dtype="f32", **tables):
    """/q, /k, /v in the type asked for, and int64 tables such as documents=[0, 5, 9]."""
    with h5py.File(path, "w") as file:
        for name, x in (("q", q), ("k", k), ("v", v)):
            write_dataset(file, name, np.asarray(x), dtype)
        for name, values in tables.items():
            file[name] = np.array(values, "<i8")


def read_output(path):
    """(out, lse) with their stored checksums, as {name: (array, xxh64)}."""
    with h5py.File(path) as file:
        return {name: (file[name][...], file[name].attrs["xxh64"]) for name in ("out", "lse") if name in file}


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def operands(shape_q, shape_k, d_v=None, seed=0, reach=None):
    """Random q, k, v (float64, f32 values); reach: the largest |q . k| / sqrt(d_k) is scaled to it."""
    random = np.random.default_rng(seed)
    q, k = random.standard_normal(shape_q), random.standard_normal(shape_k)
    v = random.standard_normal(shape_k[:-1] + (d_v or shape_k[-1],))
    if reach is not None:
        q4, k4 = oracle.as_bhnd(q), oracle.as_bhnd(k)
        k4 = np.repeat(k4, q4.shape[1] // k4.shape[1], axis=1)
        q *= reach / np.abs(q4 @ np.swapaxes(k4, -1, -2)).max() * np.sqrt(q.shape[-1])
    return tuple(x.astype(np.float32).astype(np.float64) for x in (q, k, v))


class Case(unittest.TestCase):
    """A test with a folder of its own."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="longspan-e2e-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.made = 0

    def path(self, name):
        return os.path.join(self.folder, name)

    def fresh(self, name):
        """A path not used before in this test."""
        self.made += 1
        return self.path(f"{self.made}-{name}")

    def deck(self, keys, name="deck.ini"):
        """Writes a deck from {"section.key": value}."""
        sections = {}
        for key, value in keys.items():
            section, _, rest = key.partition(".")
            sections.setdefault(section, []).append(f"{rest} = {value}\n")
        path = self.path(name)
        with open(path, "w", encoding="utf-8") as file:
            for section, lines in sections.items():
                file.write(f"[{section}]\n" + "".join(lines))
        return path

    def run_ok(self, command, ranks, keys, **how):
        """Runs with a deck of these keys, one thread a rank, and wants exit code 0."""
        keys = {"compute.threads": 1, **keys}
        result = run(command, ranks, self.deck(keys), **how)
        self.assertEqual(result.returncode, 0, f"{command} {keys} on {ranks} ranks\n{result.stdout}\n{result.stderr}")
        return result

    def attend(self, source, ranks=1, **keys):
        """Attends over a file; keys as section__key=value. Returns ({out, lse}, report)."""
        output, report = self.fresh("out.h5"), self.fresh("report.json")
        keys = {
            "input.file": source,
            "output.file": output,
            "report.json": report,
            **{key.replace("__", "."): value for key, value in keys.items()},
        }
        self.run_ok("attend", ranks, keys)
        with open(report, encoding="utf-8") as file:
            return read_output(output), json.load(file)

    def near(self, got, expected, limit, what="", least=0.0):
        """Relative Frobenius distance (to `least` an element, at least); -inf stands where it should."""
        got, expected = np.asarray(got, np.float64), np.asarray(expected)
        self.assertEqual(got.shape, expected.shape, what)
        np.testing.assert_array_equal(np.isneginf(got), np.isneginf(expected), what)
        self.assertFalse(np.isnan(got).any(), f"{what}: NaN")
        seen = np.isfinite(expected)
        distance = np.linalg.norm(got[seen] - expected[seen])
        size = max(np.linalg.norm(expected[seen]), np.sqrt(seen.sum()) * least)
        error = distance / size if distance > 0 else 0.0
        self.assertLessEqual(error, limit, what)
