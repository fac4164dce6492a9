#!/usr/bin/env python3
"""What `longspan plan` predicts beside what a run takes: exact, topk and the SVD at three sizes each.

    LONGSPAN_BIN=build/release/bin/longspan python3 tests/peers/plan_check.py [--ranks P] [--threads T] [--rounds R] [--parts]

A round plans and runs every case, one after the other, so that both meet the machine in the same state; the median round
by the ratio of totals counts. The plan measures the machine on as many ranks and threads as the run has. Predicted total
(`plan.seconds.total`) and measured one (`seconds.total`) are without the start of processes. N(0,1), f32, d = 64. With
--bench FILE the plan takes its rates from a report of `longspan bench`.

Prints a table in Markdown. SPDX-License-Identifier: BSD-3-Clause
"""

import argparse
import datetime
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile

parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
parser.add_argument("--ranks", type=int, default=2)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--topk", type=int, default=64)
parser.add_argument("--rank", type=int, default=64)
parser.add_argument("--bench", default="")
parser.add_argument("--cases", default="exact,topk,svd")
parser.add_argument("--parts", action="store_true", help="also the parts of every case")
OPTIONS = parser.parse_args()

BINARY = os.path.abspath(os.environ.get("LONGSPAN_BIN", "build/release/bin/longspan"))
LAUNCH = [*shlex.split(os.environ.get("MPIEXEC", "mpirun")), "--bind-to", "none", "-n", str(OPTIONS.ranks)]
SIZES = {"exact": (8192, 32768, 65536), "topk": (8192, 32768, 65536), "svd": (4096, 16384, 32768)}
PARTS = ("read", "compute", "gather_exposed", "verify", "write")


def longspan(command, *options):
    environment = dict(os.environ, OPENBLAS_NUM_THREADS="1")
    result = subprocess.run([*LAUNCH, BINARY, command, *options], capture_output=True, text=True, env=environment)
    if result.returncode != 0:
        sys.exit(f"longspan {command} {' '.join(options)} failed:\n{result.stdout}{result.stderr}")


def report_of(command, folder, *options):
    report = os.path.join(folder, f"{command}.json")
    longspan(command, f"--report.json={report}", *options)
    with open(report, encoding="utf-8") as file:
        return json.load(file)


def compare(case, n, folder):
    """Predicted and measured parts of one round, with the total."""
    source = os.path.join(folder, f"{n}.h5")
    if not os.path.exists(source):
        longspan("generate", f"--shape.n={n}", "--shape.d_k=64", f"--output.file={source}")
    keys = [f"--input.file={source}", f"--output.file={folder}/out.h5", f"--compute.threads={OPTIONS.threads}"]
    if case == "topk":
        keys += ["--attention.method=topk", f"--attention.topk={OPTIONS.topk}"]
    if case == "svd":
        keys += [f"--attention.rank={OPTIONS.rank}"]
    bench = [f"--plan.bench={OPTIONS.bench}"] if OPTIONS.bench else []
    plan = report_of("plan", folder, *keys, *bench)
    run = report_of("svd" if case == "svd" else "attend", folder, "--output.overwrite=yes", *keys)
    assert plan["flops"] == run["flops"], (plan["flops"], run["flops"])
    return plan["plan"]["seconds"], run["seconds"]


def main():
    found = {}
    cases = [(case, n) for case in OPTIONS.cases.split(",") for n in SIZES[case]]
    with tempfile.TemporaryDirectory(prefix="longspan-plan-") as folder:
        for _ in range(OPTIONS.rounds):
            for case in cases:
                found.setdefault(case, []).append(compare(*case, folder))
                predicted, measured = found[case][-1]
                print(f"{case[0]} {case[1]}: {predicted['total']:.3f} s, {measured['total']:.3f} s", file=sys.stderr)
    load = os.getloadavg()[1]
    print(
        f"{datetime.date.today()}, {OPTIONS.ranks} ranks x {OPTIONS.threads} threads, {OPTIONS.rounds} rounds, load {load:.1f}.\n"
    )
    print("| method | n = m | predicted, s | measured, s | ratio | ratios of all rounds |\n|---|---|---|---|---|---|")
    names = {"exact": "exact", "topk": f"topk {OPTIONS.topk}", "svd": f"svd, rank {OPTIONS.rank}"}
    for (case, n), rounds in found.items():
        ratios = sorted(p["total"] / m["total"] for p, m in rounds)
        middle = statistics.median_low(ratios)
        predicted, measured = next((p, m) for p, m in rounds if p["total"] / m["total"] == middle)
        print(
            f"| {names[case]} | {n} | {predicted['total']:.3f} | {measured['total']:.3f} | {middle:.2f} | "
            + ", ".join(f"{ratio:.2f}" for ratio in ratios)
            + " |"
        )
        if OPTIONS.parts:
            parts = ", ".join(f"{part} {predicted[part]:.4f} / {measured[part]:.4f}" for part in PARTS)
            print(f"    {parts}", file=sys.stderr)


main()
