#!/usr/bin/env python3
"""What of the gather stays visible: attention over 2 hosts of this machine (hosts.sh) at several bandwidths and gather modes.

    study.py INPUT.h5 [FOLDER]        as root; LONGSPAN_BIN: the command (build/release/bin/longspan)

Prints a Markdown table: seconds of computing and of exposed gather (medians of RUNS), and the time that the bytes alone need
at that bandwidth. Reports stay in FOLDER (default: network-study).

SPDX-License-Identifier: BSD-3-Clause
"""

import json
import os
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
HOSTS = os.path.join(HERE, "hosts.sh")
BIN = os.path.abspath(os.environ.get("LONGSPAN_BIN", os.path.join(HERE, "..", "..", "build", "release", "bin", "longspan")))
RATES = {"10gbit": 10e9, "1gbit": 1e9, "100mbit": 1e8}
MODES = ("all", "panels", "chain")
RUNS = int(os.environ.get("RUNS", "3"))
NAME, COUNT = "lsnet", "2"


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    source, folder = os.path.abspath(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "network-study"
    os.makedirs(folder, exist_ok=True)
    subprocess.run([HOSTS, "up", NAME, COUNT, "10gbit"], check=True)
    try:
        print("| link | gather | compute, s | exposed gather, s | the bytes alone, s | hidden |\n|---|---|---|---|---|---|")
        for rate, bits in RATES.items():
            subprocess.run([HOSTS, "rate", NAME, COUNT, rate], check=True)
            for mode in MODES:
                seconds, received, checksums = [], 0, set()
                for run in range(RUNS):
                    report = os.path.join(folder, f"{rate}-{mode}-{run}.json")
                    output = os.path.join(folder, "output.h5")
                    subprocess.run([HOSTS, "run", NAME, COUNT, "--", BIN, "attend", f"--input.file={source}",
                                    f"--output.file={output}", "--output.overwrite=yes", "--compute.threads=1",
                                    f"--compute.gather={mode}", f"--report.json={report}", "--report.progress=no",
                                    "--verify.rows=1", *os.environ.get("OPTIONS", "").split()],
                                   check=True, stdout=subprocess.DEVNULL)
                    with open(report, encoding="utf-8") as file:
                        told = json.load(file)
                    seconds.append((told["seconds"]["compute"], told["seconds"]["gather_exposed"]))
                    received = told["bytes"]["gathered"] / 2
                    checksums.add(told["output_xxh64"])
                assert len(checksums) == 1, checksums
                compute, exposed = (statistics.median(times) for times in zip(*seconds))
                alone = received * 8 / bits
                print(f"| {rate} | {mode} | {compute:.3f} | {exposed:.3f} | {alone:.3f} | {1 - exposed / alone:.0%} |", flush=True)
        os.remove(output)
    finally:
        subprocess.run([HOSTS, "down", NAME, COUNT], check=True)


if __name__ == "__main__":
    main()
