#!/usr/bin/env python3
"""Speed of Longspan beside ONNX Runtime and PyTorch: same shapes, same threads, alternating in one run.

    tests/peers/peers.sh [FOLDER] [options]     installs them, and runs this

ONNX Runtime: the operator com.microsoft.MultiHeadAttention on the CPU (unidirectional = 1 for causal). PyTorch:
scaled_dot_product_attention (is_causal). Longspan: `longspan bench`, packing included. All have operands in memory
and made their outputs once before the clock runs. A round measures each of them for a while, one after the other; the
best repetition of all rounds counts, and the median of the rounds' medians is told too. GFLOP/s count visible
pairs only: 4 d flops for each. Some rows of each peer's output are checked against NumPy in double.

Prints a table in Markdown on standard output, and what it is doing on standard error.

SPDX-License-Identifier: BSD-3-Clause
"""

import argparse
import datetime
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

FEWEST = 3  # repetitions of a peer in a round


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=4, help="of measuring all three (default 4)")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each in a round (default 0.5)")
    parser.add_argument("--types", default="f32,bf16")
    parser.add_argument("--masks", default="none,causal")
    parser.add_argument("--d", default="64,128")
    parser.add_argument("--shapes", default="8x2048,1x8192", help="heads x rows (default 8x2048,1x8192)")
    options = parser.parse_args()
    for name in ("types", "masks", "d", "shapes"):
        setattr(options, name, getattr(options, name).split(","))
    if not set(options.types) <= {"f32", "bf16"} or not set(options.masks) <= {"none", "causal"}:
        parser.error("types are f32 and bf16, masks none and causal")
    if min(options.threads, options.rounds) < 1:
        parser.error("threads and rounds are 1 or more")
    return options


OPTIONS = parse()
os.environ["OMP_NUM_THREADS"] = str(OPTIONS.threads)  # before PyTorch starts its threads

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime  # noqa: E402
import torch  # noqa: E402


class Shape:
    """One row of the table, and its operands [heads, n, d]."""

    def __init__(self, dtype, mask, d, heads, n):
        self.dtype, self.mask, self.d, self.heads, self.n = dtype, mask, d, heads, n
        pairs = n * (n + 1) // 2 if mask == "causal" else n * n
        self.flops = 4.0 * d * heads * pairs
        random = np.random.default_rng(1)
        self.operands = [random.standard_normal((heads, n, d), dtype=np.float32) for _ in range(3)]
        if dtype == "bf16":
            self.operands = [torch.from_numpy(x).bfloat16().float().numpy() for x in self.operands]

    def __str__(self):
        return f"{self.dtype}, {self.mask}, d {self.d}, {self.heads} x {self.n}"

    def check(self, name, out):
        """Some rows of a peer's output [heads, n, d] against double; the limit tells a wrong mask, no more."""
        q, k, v = (x.astype(np.float64) for x in self.operands)
        limit = 3e-2 if self.dtype == "bf16" else 1e-4
        for head, row in itertools.product({0, self.heads - 1}, {0, self.n // 3, self.n - 1}):
            end = row + 1 if self.mask == "causal" else self.n
            scores = k[head, :end] @ q[head, row] / np.sqrt(self.d)
            weights = np.exp(scores - scores.max())
            reference = weights @ v[head, :end] / weights.sum()
            error = np.linalg.norm(out[head, row] - reference) / np.linalg.norm(reference)
            if not error <= limit:
                sys.exit(f"peers.py: {name} computes something else ({self}): row {row} is off by {error:.1e}")


def measure_round(shape, run):
    """Best and median GFLOP/s of one run after the other."""
    times, start = [], time.perf_counter()
    while len(times) < FEWEST or time.perf_counter() - start < OPTIONS.seconds:
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return shape.flops / min(times) * 1e-9, shape.flops / statistics.median(times) * 1e-9


class PyTorch:
    name = "PyTorch"
    version = torch.__version__

    def __init__(self, shape):
        dtype = torch.bfloat16 if shape.dtype == "bf16" else torch.float32
        self.shape, self.causal = shape, shape.mask == "causal"
        self.operands = [torch.from_numpy(x).to(dtype)[None] for x in shape.operands]
        shape.check(self.name, self.run()[0].float().numpy())

    def run(self):
        with torch.inference_mode():
            return torch.nn.functional.scaled_dot_product_attention(*self.operands, is_causal=self.causal)

    def round(self):
        return measure_round(self.shape, self.run)


class OnnxRuntime:
    name = "ONNX Runtime"
    version = onnxruntime.__version__

    def __init__(self, shape):
        self.shape = shape
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = OPTIONS.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self.session = onnxruntime.InferenceSession(
            self.model(shape).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        if shape.dtype != "f32":
            sys.exit("peers.py: this ONNX Runtime has bf16 attention on the CPU: OnnxRuntime has to learn to feed it")
        # Q as [1, n, heads * d]; K and V as [1, heads, n, d], which is how its kernels use them.
        q, k, v = shape.operands
        columns = np.ascontiguousarray(q.transpose(1, 0, 2)).reshape(1, shape.n, -1)
        self.operands = {"q": columns, "k": k[None], "v": v[None]}
        out = self.run()[0].reshape(shape.n, shape.heads, shape.d).transpose(1, 0, 2)
        shape.check(self.name, out)

    @staticmethod
    def model(shape):
        element = onnx.TensorProto.BFLOAT16 if shape.dtype == "bf16" else onnx.TensorProto.FLOAT
        value = onnx.helper.make_tensor_value_info
        flat, deep = [1, shape.n, shape.heads * shape.d], [1, shape.heads, shape.n, shape.d]
        node = onnx.helper.make_node(
            "MultiHeadAttention",
            ["q", "k", "v"],
            ["out"],
            domain="com.microsoft",
            num_heads=shape.heads,
            unidirectional=int(shape.mask == "causal"),
        )
        graph = onnx.helper.make_graph(
            [node],
            "attention",
            [value("q", element, flat), value("k", element, deep), value("v", element, deep)],
            [value("out", element, flat)],
        )
        sets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
        return onnx.helper.make_model(graph, opset_imports=sets, ir_version=8)

    def run(self):
        return self.session.run(None, self.operands)

    def round(self):
        return measure_round(self.shape, self.run)


class Longspan:
    name = "Longspan"
    binary = os.environ.get("LONGSPAN_BIN", "build/release/bin/longspan")
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]

    def __init__(self, shape):
        self.shape, self.peaks, self.isa = shape, [], ""

    def round(self):
        """Best and median of one `longspan bench`; rows are verified by it."""
        s = self.shape
        with tempfile.TemporaryDirectory(prefix="longspan-peers-") as folder:
            report = os.path.join(folder, "bench.json")
            keys = {
                "bench.types": s.dtype,
                "bench.d": s.d,
                "bench.n": s.n,
                "bench.masks": s.mask,
                "bench.threads": OPTIONS.threads,
                "bench.row_keys": 0,
                "bench.read_bytes": "1M",
                "bench.seconds": OPTIONS.seconds,
                "shape.heads": s.heads,
                "report.json": report,
            }
            command = [self.binary, "bench", *(f"--{key}={value}" for key, value in keys.items())]
            result = subprocess.run(command, capture_output=True, text=True)
            if result.returncode != 0:
                sys.exit(f"peers.py: {' '.join(command)}\n{result.stdout}{result.stderr}")
            with open(report, encoding="utf-8") as file:
                (cell,) = json.load(file)["cells"]
        if cell["flops"] != s.flops:
            sys.exit(f"peers.py: longspan counts {cell['flops']} flops, not {s.flops} ({s})")
        self.peaks.append(cell["fma_peak_gflops"])
        self.isa = cell["isa"]
        return cell["gflops"], cell["gflops_median"]


def start(kind, shape, missing):
    """The peer, or None when it has no kernel for the type; `missing` keeps what it says."""
    try:
        return kind(shape)
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented as error:
        missing.setdefault((kind.name, shape.dtype), str(error).split("\n")[0])
        return None


def measure(shape, missing):
    """A line of the table as {name: (best, median)}, the FMA peak and the instruction set."""
    peers = [peer for peer in (start(kind, shape, missing) for kind in (OnnxRuntime, PyTorch)) if peer]
    longspan = Longspan(shape)
    rounds = {contestant.name: [] for contestant in (longspan, *peers)}
    for _ in range(OPTIONS.rounds):
        for contestant in (longspan, *peers):
            rounds[contestant.name].append(contestant.round())
    rates = {}
    for name, pairs in rounds.items():
        bests, medians = zip(*pairs)
        rates[name] = max(bests), statistics.median(medians)
    return rates, max(longspan.peaks), longspan.isa


def processor():
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return names[0] if names else "unknown processor"


def print_line(shape, rates, peak):
    def cell(name):
        return f"{rates[name][0]:.1f}" if name in rates else "-"

    ours = rates["Longspan"]
    peers = [rate for name, rate in rates.items() if name != "Longspan"]
    ratios = [ours[i] / max(rate[i] for rate in peers) for i in (0, 1)]
    print(
        f"| {shape.dtype} | {shape.mask} | {shape.d} | {shape.heads} x {shape.n} "
        f"| {cell('Longspan')} | {ours[0] / peak:.2f} | {cell('ONNX Runtime')} | {cell('PyTorch')} "
        f"| **{ratios[0]:.2f}** | {ratios[1]:.2f} |",
        flush=True,
    )


def main():
    torch.set_num_threads(OPTIONS.threads)
    load = os.getloadavg()[0]
    if load > 0.3:
        print(f"peers.py: warning: other work runs on this machine (load {load:.1f})", file=sys.stderr)
    threads = f"{OPTIONS.threads} thread{'s' if OPTIONS.threads > 1 else ''}"
    print(f"{datetime.date.today()}, {processor()}, {threads}; ", end="")
    print(", ".join(f"{kind.name} {kind.version}" for kind in (Longspan, OnnxRuntime, PyTorch)), end="")
    print(f". GFLOP/s of visible pairs, best of {OPTIONS.rounds} alternating rounds.\n")
    print("| type | mask | d | heads x n | Longspan | of the FMA peak | ONNX Runtime | PyTorch | ratio | of medians |")
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    missing, sets = {}, set()
    for dtype, mask, d, text in itertools.product(OPTIONS.types, OPTIONS.masks, OPTIONS.d, OPTIONS.shapes):
        heads, n = text.split("x")
        shape = Shape(dtype, mask, int(d), int(heads), int(n))
        print(f"peers.py: {shape}", file=sys.stderr)
        rates, peak, isa = measure(shape, missing)
        sets.add(isa)
        print_line(shape, rates, peak)
    print(f"\nratio: Longspan ({', '.join(sorted(sets))}) over the faster peer, best against best; then by medians.")
    for (name, dtype), why in missing.items():
        print(f"{name} has no {dtype} attention on the CPU ({why}).")


if __name__ == "__main__":
    main()
