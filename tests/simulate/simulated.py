"""Runs gather_timed under SimGrid's smpirun on described clusters.

Environment: SIMULATED, the program (built by the CMake target `simulate`).

SPDX-License-Identifier: BSD-3-Clause
"""

import os
import re
import shutil
import subprocess

# Messages leave an adapter one after the other (concurrency-limit), as on one connection; shared out evenly all segments of a
# panel would arrive at its end. Compute is injected; a message costs what a node's 100 Gb/s adapter takes; SMPI's defaults are those of Gigabit Ethernet.
FLAGS = """smpi/simulate-computation:no smpi/host-speed:1Tf smpi/wtime:0 smpi/privatization:dlopen network/model:SMPI
    smpi/bw-factor:0:0.95 smpi/lat-factor:0:1 smpi/os:0:1e-6:0 smpi/or:0:1e-6:0 smpi/ois:0:5e-7:0 smpi/test:0
    smpi/iprobe:1e-6 smpi/grow-injected-times:no smpi/coll-selector:ompi smpi/allgatherv:ring network/crosstraffic:0 maxmin/concurrency-limit:1
    contexts/stack-size:256 smpi/shared-malloc:local""".split()

# Switches of a two-level fat tree without oversubscription: hosts a leaf, leaves.
TREES = {16: (4, 4), 64: (8, 8), 128: (16, 8), 256: (16, 16), 512: (32, 16), 1024: (32, 32)}


def platform(folder, nodes, bits_per_second, latency):
    """Writes the platform and the host file; returns their names. Sizes not in TREES: all hosts on one switch."""
    stem = os.path.join(folder, f"{nodes}-{bits_per_second:.0f}-{latency:g}")
    tree = ""
    if nodes in TREES:
        hosts, leaves = TREES[nodes]
        tree = f'topology="FAT_TREE" topo_parameters="2;{hosts},{leaves};1,{hosts};1,1"'
    with open(stem + ".xml", "w", encoding="ascii") as file:
        file.write(
            "<?xml version='1.0'?>\n<!DOCTYPE platform SYSTEM \"https://simgrid.org/simgrid.dtd\">\n<platform version=\"4.1\">\n"
            f'<cluster id="c" prefix="node-" suffix="" radical="0-{nodes - 1}" speed="1Tf" bw="{bits_per_second / 8:.0f}Bps" '
            f'lat="{latency:g}s" {tree} sharing_policy="SPLITDUPLEX" loopback_bw="50GBps" loopback_lat="200ns"/>\n</platform>\n')
    with open(stem + ".hosts", "w", encoding="ascii") as file:
        file.writelines(f"node-{i}\n" for i in range(nodes))
    return stem + ".xml", stem + ".hosts"


def run(folder, nodes, n, m, d, heads, groups, mode, flops, panel_rows=0, slices=0, segment=0, bits_per_second=100e9,
        latency=5e-7, timeout=7200, cluster=0, panels=0, flags=()):
    """One simulation; its numbers as {name: value}. The ranks stand on the first nodes of a cluster of `cluster`."""
    xml, hosts = platform(folder, max(nodes, cluster), bits_per_second, latency)
    command = [shutil.which("smpirun") or "smpirun", "-np", str(nodes), "-platform", xml, "-hostfile", hosts,
               *(f"--cfg={flag}" for flag in (*FLAGS, *flags)), "--log=root.thresh:warning", os.environ["SIMULATED"],
               *(str(x) for x in (n, m, d, heads, groups, mode, flops, panel_rows, slices, segment, panels))]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, check=False)
    told = dict(re.findall(r"(\w+) ([\d.e+-]+)", next((l for l in result.stdout.splitlines() if l.startswith("ranks ")), "")))
    if result.returncode != 0 or "total" not in told:
        raise RuntimeError(f"{' '.join(command)}\n{result.stdout[-2000:]}")
    return {name: float(value) for name, value in told.items()}
