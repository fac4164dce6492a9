#!/usr/bin/env python3
"""The simulator against this machine's two hosts: what tests/network/study.py measured beside what is predicted for it.

    calibrate.py NETWORK_FOLDER        the reports that tests/network/study.py INPUT.h5 NETWORK_FOLDER left

Two simulated hosts with the same link; computing takes what was measured, so that what is compared is the gather that it does
not hide. Then the link's share that MPI over TCP makes use of is taken from mode all (predicted over measured), and mode chain
is predicted with that bandwidth. SIMULATED: the program.

SPDX-License-Identifier: BSD-3-Clause
"""

import glob
import json
import os
import statistics
import sys
import tempfile

import simulated

RATES = {"10gbit": 10e9, "1gbit": 1e9, "100mbit": 1e8}
LATENCY = 15e-6  # of a virtual link and TCP, one way; two links between hosts


def measured(folder, rate, mode):
    """Medians over runs: computing, exposed gather; and the shape."""
    reports = []
    for name in glob.glob(os.path.join(folder, f"{rate}-{mode}-*.json")):
        with open(name, encoding="utf-8") as file:
            reports.append(json.load(file))
    if not reports:
        return None
    if reports[0]["ranks"] != 2 or reports[0]["nodes"] != 2:
        sys.exit(f"{folder}: not runs of two hosts")
    times = [(r["seconds"]["compute"], r["seconds"]["gather_exposed"]) for r in reports]
    return *(statistics.median(t) for t in zip(*times)), reports[0]["shape"]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print("| link | gather | measured, s | predicted, s | share of the link, of `all` | predicted with that, s |\n"
          "|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="longspan-calibrate-") as folder:
        for rate, bits in RATES.items():
            share = 1.0
            for mode in ("all", "chain"):
                seen = measured(sys.argv[1], rate, mode)
                if seen is None:
                    continue
                compute, exposed, shape = seen
                flops = 4.0 * shape["heads"] * shape["d_k"] * shape["n"] * shape["m"] / 2 / compute

                def predict(bandwidth, shape=shape, mode=mode, flops=flops):
                    told = simulated.run(folder, 2, shape["n"], shape["m"], shape["d_k"], shape["heads"], 1, mode, flops,
                                         bits_per_second=bandwidth, latency=LATENCY)
                    return told["total"] - told["compute"]

                plain = predict(bits)
                if mode == "all":
                    share = min(1.0, plain / exposed)
                again = "" if mode == "all" else f"{predict(bits * share):.4f}"
                print(f"| {rate} | `{mode}` | {exposed:.4f} | {plain:.4f} | {f'{share:.2f}' if mode == 'all' else ''} | {again} |",
                      flush=True)


if __name__ == "__main__":
    main()
