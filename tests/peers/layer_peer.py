#!/usr/bin/env python3
"""A layer's time beside PyTorch's nn.MultiheadAttention: same shape, as many threads as ranks, alternating in one run.

    make layer_bench longspan-cli             in the build folder
    python3 -m venv venv && venv/bin/pip install h5py torch
    venv/bin/python tests/peers/layer_peer.py BUILD_FOLDER [options]

Both have x and the weights in memory (f32, biases, no gradients, need_weights = False), and ran once before the clock
starts. PyTorch ran with and without its fast path for inference then, and the faster goes on. A round measures each, one
after the other. Told are the ratios of the best times and of the medians: by the wall, and by the processor's time of
a thread (PyTorch: of the process over its threads), which means more on a machine that does other things as well.
Before, `longspan layer` computes what PyTorch does, and the two must agree to 1e-5.

SPDX-License-Identifier: BSD-3-Clause
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import h5py
import numpy as np
import torch


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("build", help="build folder, with bin/longspan and bin/layer_bench")
    parser.add_argument("--n", type=int, default=16384)
    parser.add_argument("--d-model", type=int, default=768)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--ranks", type=int, default=2, help="of Longspan, and threads of PyTorch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--agree-rows", type=int, default=1024, help="rows of the comparison of values")
    return parser.parse_args()


def mpirun(options, *command):
    environment = dict(os.environ, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
    launcher = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(options.ranks)]
    result = subprocess.run([*launcher, *command], capture_output=True, text=True, env=environment)
    if result.returncode != 0:
        sys.exit(f"layer_peer.py: {' '.join(command)}\n{result.stdout}{result.stderr}")
    return result.stdout


def check_agreement(options, module):
    x = torch.randn(options.agree_rows, options.d_model)
    with tempfile.TemporaryDirectory(prefix="longspan-peers-") as folder:
        source, output = os.path.join(folder, "in.h5"), os.path.join(folder, "y.h5")
        with h5py.File(source, "w") as file:
            file["x"] = x.numpy()
            names = {"in_proj_weight": "qkv_proj.weight", "in_proj_bias": "qkv_proj.bias"}
            for name, tensor in module.state_dict().items():
                file[names.get(name, name)] = tensor.numpy()
        longspan = os.path.join(options.build, "bin", "longspan")
        keys = {"input.file": source, "output.file": output, "layer.heads": options.heads, "layer.bias": "yes"}
        mpirun(options, longspan, "layer", *(f"--{key}={value}" for key, value in keys.items()))
        with h5py.File(output) as file:
            mine = file["y"][...].astype(np.float64)
    with torch.no_grad():
        theirs = module(x[None], x[None], x[None], need_weights=False)[0][0].numpy().astype(np.float64)
    error = np.linalg.norm(mine - theirs) / np.linalg.norm(theirs)
    print(f"values: relative difference {error:.1e}", file=sys.stderr)
    if not error <= 1e-5:
        sys.exit("layer_peer.py: PyTorch and Longspan compute different things")


def run_torch(module, x, fast, threads):
    """(wall, processor) seconds of one forward pass."""
    torch.backends.mha.set_fastpath_enabled(fast)
    wall, cpu = time.perf_counter(), time.process_time()
    with torch.no_grad():
        module(x, x, x, need_weights=False)
    return time.perf_counter() - wall, (time.process_time() - cpu) / threads


def main():
    options = parse()
    torch.set_num_threads(options.ranks)
    torch.manual_seed(0)
    module = torch.nn.MultiheadAttention(options.d_model, options.heads, batch_first=True).eval()
    torch.nn.init.normal_(module.in_proj_bias, std=0.1)
    check_agreement(options, module)
    x = torch.randn(1, options.n, options.d_model)
    bench = os.path.join(options.build, "bin", "layer_bench")
    shape = [str(v) for v in (options.n, options.d_model, options.heads)]
    first = {fast: run_torch(module, x, fast, options.ranks)[1] for fast in (False, True)}
    fast = first[True] < first[False]
    print(f"PyTorch: {first[False]:.2f} s, with its fast path {first[True]:.2f} s", file=sys.stderr)
    theirs, mine = [], []
    for r in range(options.rounds):
        theirs.append(run_torch(module, x, fast, options.ranks))
        mine.append(json.loads(mpirun(options, bench, *shape, "0", "1").splitlines()[-1]))
        print(
            f"round {r + 1}: PyTorch {theirs[-1][0]:.2f} s, Longspan {mine[-1]['seconds'][0]:.2f} s",
            file=sys.stderr,
        )
    print(f"n = {options.n}, d_model = {options.d_model}, {options.heads} heads, f32, {options.ranks} threads or ranks")
    for what, index, key in (("wall", 0, "seconds"), ("processor", 1, "cpu")):
        best, median = min(t[index] for t in theirs), statistics.median(t[index] for t in theirs)
        ours, our_median = min(m[key][0] for m in mine), statistics.median(m[key][1] for m in mine)
        print(
            f"{what:9}: PyTorch {torch.__version__} {best:.2f} s (median {median:.2f}), Longspan {ours:.2f} s "
            f"({our_median:.2f}): {best / ours:.2f} times as fast (medians: {median / our_median:.2f})"
        )
    share = max(m["projection_share"] for m in mine)
    print(
        f"projections: {max(m['project_gflops'] for m in mine):.0f} GFLOP/s a rank, {share:.2f} of one large product of "
        f"OpenBLAS on one thread (best of {options.rounds}; median "
        f"{statistics.median(m['projection_share'] for m in mine):.2f})"
    )


if __name__ == "__main__":
    main()
