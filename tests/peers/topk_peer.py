#!/usr/bin/env python3
"""attend with method = topk beside torch.topk on the dense softmax matrix: times, and whether both keep the same keys.

    python3 -m venv venv
    venv/bin/pip install numpy h5py torch --extra-index-url https://download.pytorch.org/whl/cpu
    LONGSPAN_BIN=build/release/bin/longspan venv/bin/python tests/peers/topk_peer.py [--threads T] [--n N] [--k 64,1024]

PyTorch: softmax(Q K^T / sqrt d), torch.topk of its rows, then either what is kept scattered into a matrix of zeros,
times V, or rows of V gathered and added up; the faster of the two counts. All with operands in memory, and the matrix
formed at once. Longspan: `seconds.compute` and the wait for the gather of the JSON report, one process, as many threads;
it also makes lse and the certificate. A round runs each of them once; the best round of each counts.

Where the sets of keys of a row differ, the keys that only one of them has are looked at in double: a near-tie is a row
in which all of them are within 1e-5 of each other in the score (natural units), which f32 cannot tell apart.

Prints a table in Markdown, and below it the first rows that differ. Exit status 1 when a row differs that is no near-tie. SPDX-License-Identifier: BSD-3-Clause
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time

import h5py

parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--n", type=int, default=8192)
parser.add_argument("--d", type=int, default=64)
parser.add_argument("--k", default="64,1024")
OPTIONS = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(OPTIONS.threads)  # before PyTorch starts its threads
os.environ["OMP_WAIT_POLICY"] = "passive"  # no thread of one turns in circles while the other is measured

import numpy as np  # noqa: E402
import torch  # noqa: E402

BINARY = os.environ.get("LONGSPAN_BIN", "build/release/bin/longspan")
NEAR = 1e-5
LINES = 20  # of rows that differ


def choose_dense(q, k, top):
    weights = torch.softmax(torch.mm(q * (OPTIONS.d**-0.5), k.T), dim=-1)
    return weights, *torch.topk(weights, top, dim=-1, sorted=False)


def by_scatter(q, k, v, top):
    weights, kept, keys = choose_dense(q, k, top)
    return torch.mm(weights.zero_().scatter_(1, keys, kept), v), keys


def by_gather(q, k, v, top):
    _, kept, keys = choose_dense(q, k, top)
    return torch.cat([torch.bmm(a[:, None], v[b])[:, 0] for a, b in zip(kept.split(512), keys.split(512))]), keys


def run_torch(how, operands, top):
    begin = time.perf_counter()
    with torch.inference_mode():
        out, keys = how(*operands, top)
    return time.perf_counter() - begin, out.numpy(), keys.numpy()


def run_longspan(folder, top):
    """Seconds, output and kept keys [n, top]."""
    output, report = os.path.join(folder, "out.h5"), os.path.join(folder, "report.json")
    keys = {
        "input.file": os.path.join(folder, "in.h5"),
        "output.file": output,
        "output.overwrite": "yes",
        "output.weights": "yes",
        "attention.method": "topk",
        "attention.topk": top,
        "compute.threads": OPTIONS.threads,
        "verify.rows": 0,
        "report.json": report,
    }
    command = [BINARY, "attend", *(f"--{key}={value}" for key, value in keys.items())]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"topk_peer.py: {' '.join(command)}\n{result.stdout}{result.stderr}")
    with open(report, encoding="utf-8") as file:
        seconds = json.load(file)["seconds"]
    with h5py.File(output, "r") as file:
        out, kept = file["out"][()].reshape(OPTIONS.n, OPTIONS.d), file["weights/indices"][()]
    return seconds["compute"] + seconds["gather_exposed"], out, kept.reshape(OPTIONS.n, top)


def compare_keys(operands, ours, theirs):
    """[(row, keys, gap)] of rows whose sets differ: the keys that only one has, and the distance in double between the
    largest and the smallest of their scores."""
    q, k = (x.numpy().astype(np.float64) for x in operands[:2])
    differing = []
    for row in range(OPTIONS.n):
        alone = np.setxor1d(ours[row], theirs[row])
        if alone.size:
            scores = k[alone] @ q[row] / np.sqrt(OPTIONS.d)
            differing.append((row, alone.tolist(), scores.max() - scores.min()))
    return differing


def measure(folder, operands, top):
    """Prints a line of the table; the rows that differ."""
    times = {"longspan": [], "scatter": [], "gather": []}
    for _ in range(OPTIONS.rounds):
        seconds, out, ours = run_longspan(folder, top)
        times["longspan"].append(seconds)
        for name, how in (("scatter", by_scatter), ("gather", by_gather)):
            seconds, reference, theirs = run_torch(how, operands, top)
            times[name].append(seconds)
    best = {name: min(values) for name, values in times.items()}
    peer = min(best["scatter"], best["gather"])
    differing = compare_keys(operands, ours, theirs)
    widest = max((gap for _, _, gap in differing), default=0.0)
    error = np.linalg.norm(out - reference) / np.linalg.norm(reference)
    print(
        f"| {top} | {best['longspan']:.3f} | {best['scatter']:.3f} | {best['gather']:.3f} "
        f"| **{peer / best['longspan']:.1f}** | {OPTIONS.n - len(differing)} of {OPTIONS.n} "
        f"| {len(differing)} | {widest:.1e} | {error:.1e} |",
        flush=True,
    )
    return differing


def print_differing(tops, differing):
    """The first LINES rows of all k together."""
    lines = [
        f"- k = {top}, row {row}: keys {', '.join(map(str, keys))}; scores {gap:.1e} apart"
        for top, rows in zip(tops, differing)
        for row, keys, gap in rows
    ]
    if lines:
        print("\nRows with other keys, and the keys that one of both has alone:\n")
        print("\n".join(lines[:LINES]))
    if len(lines) > LINES:
        print(f"\nand {len(lines) - LINES} more")


def processor():
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return names[0] if names else "unknown processor"


def main():
    torch.set_num_threads(OPTIONS.threads)
    random = np.random.default_rng(1)
    operands = [random.standard_normal((OPTIONS.n, OPTIONS.d), dtype=np.float32) for _ in range(3)]
    version = subprocess.run([BINARY, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    print(
        f"{datetime.date.today()}, {processor()}, {OPTIONS.threads} threads; Longspan {version}, PyTorch "
        f"{torch.__version__}; n = m = {OPTIONS.n}, d = {OPTIONS.d}, f32, N(0,1); seconds, best of {OPTIONS.rounds} rounds.\n"
    )
    print(
        "| k | Longspan | PyTorch, scatter | PyTorch, gather | ratio | rows with the same keys | near-ties "
        "| widest gap of scores | output |"
    )
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="longspan-topk-") as folder:
        with h5py.File(os.path.join(folder, "in.h5"), "w") as file:
            for name, values in zip("qkv", operands):
                file[name] = values[None, None]
        tensors = [torch.from_numpy(x) for x in operands]
        tops = [int(top) for top in OPTIONS.k.split(",")]
        differing = [measure(folder, tensors, top) for top in tops]
    print("\nratio: the faster of PyTorch's ways over Longspan. output: relative distance between both outputs.")
    print_differing(tops, differing)
    return 0 if all(gap <= NEAR for rows in differing for _, _, gap in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
