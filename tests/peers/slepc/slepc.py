#!/usr/bin/env python3
"""`longspan svd` (krylov) beside SLEPc's trlanczos, which is given the formed matrix, and beside ScaLAPACK's pdgesvd.

    tests/peers/slepc/slepc.sh [FOLDER] [options]     builds the SLEPc program, and runs this

Same operands (N(0, 1), d = 64), same ranks, one thread each, alternating: a round runs each once. Seconds are those of the
decomposition alone, the best of all rounds, and the medians. SLEPc's leave out forming W (told apart), and it
is in memory in double; Longspan's hold everything from Q and K on, as it never forms W: kernels in f32, QR and small SVD in
double. Both errors are ||W - W_r||_F / ||W||_F with r singular values. OPENBLAS_CORETYPE is set for both as the command sets it.
SLEPc runs with its default tolerance (1e-8), and again with a loose one, at which its error is about Longspan's.

--large runs n = 65536, r = 128 instead, which has no peer: W in double would be 34 GB.

Prints tables in Markdown on standard output, and what it is doing on standard error.

SPDX-License-Identifier: BSD-3-Clause
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys

import h5py
import numpy as np

D = 64


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", help="where slepc_svd is, and operands go")
    parser.add_argument("--cases", default="2048:32,4096:128,8192:128", help="n:rank, ... (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--tolerances", default="1e-8,1e-2", help="of SLEPc (default %(default)s)")
    parser.add_argument("--full", default="2048:32", help="n:rank for pdgesvd, or none (default %(default)s)")
    parser.add_argument("--large", action="store_true", help="n = 65536, r = 128 alone")
    options = parser.parse_args()
    pairs = lambda text: [tuple(int(x) for x in case.split(":")) for case in text.split(",") if case and case != "none"]
    options.cases, options.full = pairs(options.cases), pairs(options.full)
    options.tolerances = options.tolerances.split(",")
    return options


def environment():
    env = dict(
        os.environ,
        OPENBLAS_NUM_THREADS="1",
        OMP_NUM_THREADS="1",
        OMPI_ALLOW_RUN_AS_ROOT="1",
        OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
    )
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        flags = next((set(line.split()) for line in file if line.startswith("flags")), set())
    core = "SkylakeX" if "avx512f" in flags else "Haswell" if "avx2" in flags else None
    if core:
        env.setdefault("OPENBLAS_CORETYPE", core)
    return env


def tell(text):
    print(text, file=sys.stderr, flush=True)


def mpirun(options, *command):
    arguments = ["mpirun", "--bind-to", "none", "-n", str(options.ranks), *command]
    result = subprocess.run(arguments, env=environment(), capture_output=True, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"slepc.py: error: {' '.join(arguments)}\n{result.stdout}\n{result.stderr}")
    return result.stdout


def make(options, n):
    """/q and /k of n rows in an HDF5 file, and the same as raw floats."""
    h5, raw = (os.path.join(options.folder, f"operands-{n}.{end}") for end in ("h5", "f32"))
    longspan = os.environ["LONGSPAN_BIN"]
    mpirun(options, longspan, "generate", f"--shape.n={n}", f"--shape.d_k={D}", f"--output.file={h5}", "--output.overwrite=yes")
    with h5py.File(h5) as file, open(raw, "wb") as out:
        for name in ("q", "k"):
            np.ascontiguousarray(file[name][...], "<f4").tofile(out)
    return h5, raw


def run_longspan(options, h5, rank, *more):
    report = os.path.join(options.folder, "report.json")
    keys = (f"--input.file={h5}", f"--attention.rank={rank}", "--verify.rows=0", "--compute.threads=1", f"--report.json={report}")
    mpirun(options, os.environ["LONGSPAN_BIN"], "svd", *keys, *more)
    with open(report, encoding="utf-8") as file:
        return json.load(file)


def run_slepc(options, raw, n, rank, tolerance):
    program = os.path.join(options.folder, "slepc_svd")
    sizes = ("-operands", raw, "-n", str(n), "-m", str(n), "-d", str(D), "-rank", str(rank))
    return json.loads(mpirun(options, program, *sizes, "-svd_tol", tolerance))


class Times:
    """Seconds of several runs."""

    def __init__(self):
        self.seconds, self.error = [], None

    def add(self, seconds, error):
        self.seconds.append(seconds)
        self.error = error

    def __str__(self):
        return f"{min(self.seconds):.3f} ({statistics.median(self.seconds):.3f})"


def compare(options, n, rank):
    h5, raw = make(options, n)
    longspan, peers, forming, products = Times(), {t: Times() for t in options.tolerances}, [], []
    for number in range(options.rounds):
        tell(f"n = m = {n}, r = {rank}, round {number + 1} of {options.rounds}")
        head = run_longspan(options, h5, rank)["heads"][0]
        longspan.add(head["seconds"], head["certificate"]["frobenius_relative"])
        products.append(head["seconds_products"])
        for tolerance, times in peers.items():
            told = run_slepc(options, raw, n, rank, tolerance)
            times.add(told["seconds"][0], told["frobenius_relative"])
            forming.append(told["forming"])
    rows = [f"| {n} | {rank} | Longspan, krylov | {longspan.error:.6f} | {longspan} | |"]
    for tolerance, times in peers.items():
        ratio = min(times.seconds) / min(longspan.seconds)
        rows.append(f"| | | SLEPc trlanczos, tolerance {tolerance} | {times.error:.6f} | {times} | {ratio:.1f} |")
    tell(f"forming W took {min(forming):.2f} s, not counted; of Longspan's time {min(products):.3f} s are W X and W^T Y")
    return rows


def compare_full(options, n, rank):
    """pdgesvd once, as it takes a minute, between two runs of krylov."""
    h5, _ = make(options, n)
    krylov = Times()
    for number in range(2):
        head = run_longspan(options, h5, rank)["heads"][0]
        krylov.add(head["seconds"], head["certificate"]["frobenius_relative"])
        if number == 0:
            tell(f"n = m = {n}, r = {rank}: pdgesvd")
            full = run_longspan(options, h5, rank, "--attention.svd=full")["heads"][0]
    error = full["certificate"]["frobenius_relative"]
    return [
        f"| {n} | {rank} | Longspan, krylov | {krylov.error:.6f} | {krylov} | |",
        f"| | | ScaLAPACK pdgesvd (svd = full) | {error:.6f} | {full['seconds']:.3f} | {full['seconds'] / min(krylov.seconds):.0f} |",
    ]


def large(options):
    h5, _ = make(options, 65536)
    tell("n = m = 65536, r = 128")
    report = run_longspan(options, h5, 128)
    head = report["heads"][0]
    print("| n = m | r | ‖W − W_r‖ / ‖W‖ | meaningful | seconds | of them W X, WᵀY | GFLOP/s | of the FMA peak | peak memory of a rank |")
    print("|---|---|---|---|---|---|---|---|---|")
    print(
        f"| 65536 | 128 | {head['certificate']['frobenius_relative']:.6f} | {head['certificate']['meaningful']} "
        f"| {head['seconds']:.2f} | {report['seconds_products']:.2f} | {report['gflops']:.0f} | {report['efficiency']:.3f} "
        f"| {report['bytes']['peak_rss_max'] / 2**20:.0f} MiB |"
    )


def main():
    options = parse()
    print(f"{datetime.date.today()}, {options.ranks} ranks x 1 thread, d = {D}, N(0, 1); seconds: best (median) of {options.rounds}\n")
    if options.large:
        large(options)
        return
    print("| n = m | r | | ‖W − W_r‖ / ‖W‖ | seconds | times Longspan's |")
    print("|---|---|---|---|---|---|")
    for n, rank in options.cases:
        print("\n".join(compare(options, n, rank)), flush=True)
    for n, rank in options.full:
        print("\n".join(compare_full(options, n, rank)), flush=True)


if __name__ == "__main__":
    main()
