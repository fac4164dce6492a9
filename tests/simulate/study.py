#!/usr/bin/env python3
"""Strong scaling beyond this machine, simulated: CSV, a Markdown table, plots.

    study.py FOLDER FLOPS_PER_NODE        FLOPS_PER_NODE: what attention reaches on a node (longspan bench, times its cores)

Exact attention in f32, d = 128, on 64 to 1024 nodes of a fat tree with 100 Gb/s links. What FOLDER/scaling.csv has is not
simulated again. SIMULATED: the program. CASES: a regular expression of the labels to run. Takes an hour or two.

SPDX-License-Identifier: BSD-3-Clause
"""

import csv
import os
import re
import subprocess
import sys
import time

import simulated

M = 1 << 20
COLUMNS = ["label", "n", "heads", "mode", "groups", "nodes", "segment", "total", "compute", "waited_max", "waited_mean",
           "bytes", "panels", "speedup", "efficiency", "simulation_seconds"]


def cases():
    """(label, n, heads, groups, mode, panel_rows, segment). Messages cost real time: the larger the gather, the longer the
    segments that it is simulated with; allgather of 16M keys (16 GiB on a node) is left out."""
    yield "1M, 1 head, all", M, 1, 1, "all", 0, 0
    yield "1M, 1 head, chain", M, 1, 1, "chain", 0, M
    for groups in (4, 32):
        yield f"1M, 32 heads in {groups} groups, all", M, 32, groups, "all", 0, 0
        yield f"1M, 32 heads in {groups} groups, chain", M, 32, groups, "chain", 0, 4 * M
    yield "1M, 32 heads in 1 group, chain", M, 32, 1, "chain", 65536, 16 * M
    yield "16M, 1 head, chain", 16 * M, 1, 1, "chain", 65536, 16 * M
    yield "16M, 32 heads in 32 groups, chain", 16 * M, 32, 32, "chain", 65536, 16 * M


def simulate_all(folder, flops, table):
    done = {}
    if os.path.exists(table):
        with open(table, encoding="ascii", newline="") as file:
            done = {(row["label"], int(row["nodes"])): row for row in csv.DictReader(file)}
    wanted = re.compile(os.environ.get("CASES", ""))
    for label, n, heads, groups, mode, panel_rows, segment in cases():
        for nodes in (64, 256, 1024):
            if (label, nodes) in done or not wanted.search(label):
                continue
            began = time.monotonic()
            told = simulated.run(folder, nodes, n, n, 128, heads, groups, mode, flops, panel_rows, 8, segment)
            done[label, nodes] = {"label": label, "n": n, "heads": heads, "mode": mode, "groups": groups, "nodes": nodes,
                                  "segment": segment, "simulation_seconds": f"{time.monotonic() - began:.1f}",
                                  **{key: told[key] for key in ("total", "compute", "waited_max", "waited_mean", "bytes", "panels")}}
            write(table, relate(done.values()))
            print(f"{label}, {nodes} nodes: {told}", file=sys.stderr, flush=True)
    return relate(done.values())


def relate(rows):
    """Speed-up over one node's computing alone, which needs no gather."""
    rows = sorted(rows, key=lambda row: (row["label"], int(row["nodes"])))
    for row in rows:
        row["speedup"] = float(row["compute"]) * int(row["nodes"]) / float(row["total"])
        row["efficiency"] = row["speedup"] / int(row["nodes"])
    return rows


def write(table, rows):
    with open(table + ".tmp", "w", encoding="ascii", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(table + ".tmp", table)


def plot(folder, rows):
    labels = list(dict.fromkeys(row["label"] for row in rows))
    script = os.path.join(folder, "scaling.gp")
    with open(script, "w", encoding="ascii") as file:
        for i, label in enumerate(labels):
            file.write(f"$c{i} << EOD\n")
            file.writelines(f"{row['nodes']} {row['total']} {row['waited_mean']} {row['efficiency']}\n" for row in rows if row["label"] == label)
            file.write("EOD\n")
        file.write("set border 3 lc rgb '#505050'\nset tics nomirror out scale 0.6\nset grid lt 1 lw 0.6 lc rgb '#e4e4e4'\n"
                   "set logscale x 2\nset xtics (64,128,256,512,1024)\nset xlabel 'nodes (simulated)'\nset xrange [56:1200]\n"
                   "set linetype 1 lc rgb '#365c8d'\nset linetype 2 lc rgb '#d1495b'\nset linetype 3 lc rgb '#1fa187'\n"
                   "set linetype 4 lc rgb '#e8a33d'\nset linetype 5 lc rgb '#46327e'\nset linetype 6 lc rgb '#7a7a7a'\n")
        for terminal, ending in (("pngcairo", "png"), ("svg", "svg")):
            file.write(f"set terminal {terminal} size 1150,480 font 'sans,11' background '#ffffff'\n"
                       f"set output '{folder}/scaling.{ending}'\nset multiplot layout 1,2\nset key bottom left noenhanced font ',9'\n"
                       "set logscale y\nset title 'seconds; dashed: waiting for keys'\nset format y '%g'\nplot ")
            file.write(", ".join(f"$c{i} using 1:2 with linespoints lw 2 pt 7 lt {i + 1} title '{label}', "
                                 f"$c{i} using 1:3 with lines lw 1.4 dt 2 lt {i + 1} notitle" for i, label in enumerate(labels)))
            file.write("\nunset logscale y\nunset key\nset yrange [0:1.1]\nset title 'efficiency'\nplot 1 lc rgb '#909090' dt 3 notitle, ")
            file.write(", ".join(f"$c{i} using 1:4 with linespoints lw 2 pt 7 lt {i + 1} notitle" for i in range(len(labels))))
            file.write("\nunset multiplot\nset yrange [*:*]\n")
    subprocess.run(["gnuplot", script], check=True)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    folder, flops = sys.argv[1], float(sys.argv[2])
    os.makedirs(folder, exist_ok=True)
    rows = simulate_all(folder, flops, os.path.join(folder, "scaling.csv"))
    print("| study | nodes | seconds | waiting, mean (most) | efficiency |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {row['label']} | {row['nodes']} | {float(row['total']):.4g} | {float(row['waited_mean']):.3g} "
              f"({float(row['waited_max']):.3g}) | {row['efficiency']:.3f} |")
    plot(folder, rows)


if __name__ == "__main__":
    main()
