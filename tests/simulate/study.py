#!/usr/bin/env python3
"""Strong scaling beyond this machine, simulated: CSV, Markdown tables, plots.

    study.py FOLDER FLOPS_PER_NODE        FLOPS_PER_NODE: what attention reaches on a node (longspan bench, times its cores)

Exact attention in f32, d = 128, 1M and 16M rows and keys, 1 and 32 heads in every number of groups, on 64, 256 and 1024 nodes
of a fat tree with 100 Gb/s links. Three things keep it short:

- Head groups are alike and next to each other, and the tree has a link up for every link down: one group is simulated, on
  the first nodes of the cluster. Its heads are one head with as many times the keys.
- Chains: of many panels PANELS / nodes take part, spread over their owners. A chain loses time while it fills, by its length,
  and then only what its messages cost a processor (MESSAGE_SECONDS each), which is added for the panels left out.
- An allgather of more keys than ALL_KEYS is simulated with so many; all of it is exposed, and taken as linear in its bytes.
  One of more than ALL_BYTES on a node is left out: nobody would run it.

What FOLDER/scaling.csv has is not simulated again. SIMULATED: the program. CASES: a regular expression of the labels to run.

SPDX-License-Identifier: BSD-3-Clause
"""

import csv
import os
import re
import subprocess
import sys
import time

import simulated

M, D, HEADS = 1 << 20, 128, 32
NODES = (64, 256, 1024)
PANELS, PANELS_LEAST, PANELS_WHOLE = 8192, 16, 256
ALL_BYTES, ALL_KEYS = 32 << 30, 2 << 20
SEGMENT_BYTES = 1 << 18   # src/comm/chain.c
MESSAGE_SECONDS = 1.5e-6  # smpi/os, or, ois: of a message passed on
COLUMNS = ["n", "heads", "mode", "nodes", "groups", "gathered_bytes", "panels", "simulated", "seconds", "compute", "exposed",
           "efficiency", "cpu_seconds"]


def cases():
    """(n, heads, mode, nodes, groups), the shortest simulations first."""
    every = [(n, heads, mode, nodes, groups) for n in (M, 16 * M) for heads in (1, HEADS) for mode in ("all", "chain")
             for nodes in NODES for groups in ((1,) if heads == 1 else (1, 2, 4, 8, 16, 32))]
    return sorted(every, key=lambda case: (case[3] // case[4], case[0], case[2]))


def simulate(folder, flops, n, heads, mode, nodes, groups):
    ranks, keys = nodes // groups, n * heads // groups
    if mode == "all" and keys * 8 * D > ALL_BYTES:
        return None
    limit = max(PANELS_LEAST, min(PANELS_WHOLE, PANELS // ranks)) if mode == "chain" else 0
    some = min(keys, ALL_KEYS) if mode == "all" else keys
    began = os.times()
    told = simulated.run(folder, ranks, n, some, D, 1, 1, mode, flops, panels=limit, cluster=nodes)
    spent = os.times()
    panel_keys = keys // ranks // max(1, keys // ranks // panel_rows(keys, ranks))
    panels = keys // panel_keys
    exposed = (told["total"] - told["compute"]) * keys / some
    if mode == "chain" and told["panels"] < panels:
        segments = 2 * -(-panel_keys * 4 * D // SEGMENT_BYTES)
        exposed += (panels - told["panels"]) * segments * MESSAGE_SECONDS
    compute = 4.0 * D * heads * n * n / nodes / flops
    return {"n": n, "heads": heads, "mode": mode, "nodes": nodes, "groups": groups,
            "gathered_bytes": keys * 8 * D * (ranks - 1) // ranks, "panels": panels,
            "simulated": int(told["panels"]), "seconds": compute + exposed, "compute": compute,
            "exposed": exposed, "efficiency": compute / (compute + exposed),
            "cpu_seconds": f"{spent.children_user + spent.children_system - began.children_user - began.children_system:.1f}"}


def panel_rows(keys, ranks):
    """As src/method/partition.c cuts panels: 4 MiB, but four a rank."""
    tile, tile_bytes = 512, 512 * 8 * D
    return tile * max(1, min((4 << 20) // tile_bytes, keys // tile // (4 * ranks)))


def key(row):
    return int(row["n"]), int(row["heads"]), row["mode"], int(row["nodes"]), int(row["groups"])


def simulate_all(folder, flops, table):
    done = {}
    if os.path.exists(table):
        with open(table, encoding="ascii", newline="") as file:
            done = {key(row): row for row in csv.DictReader(file)}
    wanted = re.compile(os.environ.get("CASES", ""))
    for case in cases():
        label = "{}M, {} heads, {}, {} nodes, {} groups".format(case[0] // M, *case[1:])
        if case in done or not wanted.search(label):
            continue
        began = time.monotonic()
        row = simulate(folder, flops, *case)
        if row is None:
            continue
        done[case] = row
        write(table, [done[c] for c in sorted(done)])
        print(f"{label}: {row['exposed']:.4f} s exposed beside {row['compute']:.3f} s, took {time.monotonic() - began:.0f} s",
              file=sys.stderr, flush=True)
    return [done[c] for c in sorted(done)]


def write(table, rows):
    with open(table + ".tmp", "w", encoding="ascii", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(table + ".tmp", table)


def show(rows):
    """A table for each length: exposed seconds by mode and nodes."""
    found = {key(row): row for row in rows}
    for n in sorted({k[0] for k in found}):
        print(f"\nn = m = {n // M}M; exposed seconds, and the efficiency that they leave\n")
        print("| heads in groups | gather | " + " | ".join(f"{nodes} nodes" for nodes in NODES) + " |")
        print("|---|---|" + "---|" * len(NODES))
        for heads, groups in [(1, 1)] + [(HEADS, g) for g in (1, 2, 4, 8, 16, 32)]:
            for mode in ("all", "chain"):
                cells = []
                for nodes in NODES:
                    row = found.get((n, heads, mode, nodes, groups))
                    cells.append(f"{float(row['exposed']):.3g} ({float(row['efficiency']):.3f})" if row else "")
                if any(cells):
                    print(f"| {heads} in {groups} | `{mode}` | " + " | ".join(cells) + " |")
        times = [f"{heads} head{'s' if heads > 1 else ''} {float(row['compute']):.4g} s on {nodes} nodes"
                 for heads in (1, HEADS) for nodes in NODES[:1] for row in [found.get((n, heads, "chain", nodes, 1))] if row]
        print(f"\nComputing: {', '.join(times)}, a quarter on each next size.")


STYLE = """set border 3 lc rgb '#505050'
set tics nomirror out scale 0.6
set grid lt 1 lw 0.6 lc rgb '#e4e4e4'
set logscale x 2
set xtics (64,256,1024)
set xlabel 'nodes (simulated)'
set xrange [56:1200]
set linetype 1 lc rgb '#365c8d'
set linetype 2 lc rgb '#d1495b'
set linetype 3 lc rgb '#1fa187'
set linetype 4 lc rgb '#e8a33d'
"""


def plot(folder, rows):
    """Exposed seconds and efficiency of 1M keys; solid: chain, dashed: all."""
    curves = {}
    for row in rows:
        n, heads, mode, nodes, groups = key(row)
        if n == M and (heads, groups) in ((1, 1), (HEADS, 1), (HEADS, 8), (HEADS, 32)):
            curves.setdefault((heads, groups, mode), []).append((nodes, row["exposed"], row["efficiency"]))
    colours = {(1, 1): 1, (HEADS, 1): 2, (HEADS, 8): 3, (HEADS, 32): 4}
    lowest = min(int(20 * float(efficiency)) / 20 for points in curves.values() for _, _, efficiency in points)
    script = os.path.join(folder, "scaling.gp")
    with open(script, "w", encoding="ascii") as file:
        for i, points in enumerate(curves.values()):
            file.write(f"$c{i} << EOD\n" + "".join(f"{a} {b} {c}\n" for a, b, c in sorted(points)) + "EOD\n")
        file.write(STYLE)
        for terminal, ending in (("pngcairo", "png"), ("svg", "svg")):
            file.write(f"set terminal {terminal} size 1150,480 font 'sans,11' background '#ffffff'\n"
                       f"set output '{folder}/scaling.{ending}'\nset multiplot layout 1,2\n")
            for column, title in ((2, "seconds of gather not hidden, n = m = 1M; dashed: all, solid: chain"), (3, "efficiency")):
                file.write(f"set title '{title}'\n" + ("set logscale y\nset format y '%g'\nset key outside bottom center horizontal noenhanced\n"
                           if column == 2 else f"unset logscale y\nset format y '%.2f'\nset yrange [{lowest}:1.005]\nunset key\n") + "plot ")
                file.write(", ".join(
                    f"$c{i} using 1:{column} with linespoints lw 2 pt 7 ps 0.6 dt {2 if mode == 'all' else 1} lt {colours[heads, groups]} "
                    + (f"title '{heads} head{'s' * (heads > 1)} in {groups} group{'s' * (groups > 1)}'" if mode == "chain" else "notitle")
                    for i, (heads, groups, mode) in enumerate(curves)) + "\n")
            file.write("unset multiplot\nset yrange [*:*]\n")
    subprocess.run(["gnuplot", script], check=True)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    folder, flops = sys.argv[1], float(sys.argv[2])
    os.makedirs(folder, exist_ok=True)
    rows = simulate_all(folder, flops, os.path.join(folder, "scaling.csv"))
    show(rows)
    plot(folder, rows)


if __name__ == "__main__":
    main()
