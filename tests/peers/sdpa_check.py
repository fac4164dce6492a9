#!/usr/bin/env python3
"""Compares the oracle, and Longspan's output, with PyTorch's scaled_dot_product_attention in double.

PyTorch is too large to install in every test run, so this is run by hand:

    python3 -m venv venv
    venv/bin/pip install numpy h5py torch --extra-index-url https://download.pytorch.org/whl/cpu
    venv/bin/python tests/peers/sdpa_check.py                        # the oracle alone
    LONGSPAN_BIN=build/release/bin/longspan venv/bin/python tests/peers/sdpa_check.py

Passes when the oracle is within 1e-13 and Longspan within 7e-7 (f32) and 1e-14 (f64) of PyTorch.

SPDX-License-Identifier: BSD-3-Clause
"""

import os
import sys
import tempfile

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, ".."), os.path.join(HERE, "..", "e2e")]
import common  # noqa: E402
import oracle  # noqa: E402

# what, shape of q, shape of k, d_v, rules, keys of the deck
CASES = [
    ("plain", (2, 3, 200, 64), (2, 3, 333, 64), 64, {}, {}),
    ("d_v", (1, 2, 130, 32), (1, 2, 90, 32), 80, {}, {}),
    ("grouped heads", (1, 8, 100, 64), (1, 2, 700, 64), 64, {}, {}),
    ("causal", (1, 2, 300, 64), (1, 2, 300, 64), 64, {"mask": "causal"}, {"attention.mask": "causal"}),
    (
        "causal top-left",
        (1, 2, 100, 64),
        (1, 2, 300, 64),
        64,
        {"mask": "causal", "causal_align": "top-left"},
        {"attention.mask": "causal", "attention.causal_align": "top-left"},
    ),
    ("causal bottom-right", (1, 2, 100, 64), (1, 2, 300, 64), 64, {"mask": "causal"}, {"attention.mask": "causal"}),
    (
        "window",
        (1, 2, 400, 64),
        (1, 2, 400, 64),
        64,
        {"mask": "window", "window_left": 30, "window_right": 5},
        {"attention.mask": "window", "attention.window_left": 30, "attention.window_right": 5},
    ),
    ("scale", (1, 2, 100, 64), (1, 2, 300, 64), 64, {"scale": 0.03}, {"attention.scale": 0.03}),
    (
        "ALiBi",
        (1, 12, 90, 64),
        (1, 12, 120, 64),
        64,
        {"alibi": True, "mask": "causal"},
        {"attention.alibi": "yes", "attention.mask": "causal"},
    ),
]


def bias(n, m, heads, rules):
    """The mask as PyTorch takes it: a tensor added to the scores, written with its own operations."""
    result = torch.zeros(heads, n, m, dtype=torch.float64)
    ones = torch.ones(n, m, dtype=torch.bool)
    shift = 0 if rules.get("causal_align") == "top-left" else m - n
    if rules.get("mask") == "causal":
        result.masked_fill_(~ones.tril(shift), -torch.inf)
    if rules.get("mask") == "window":
        result.masked_fill_(
            ~(ones.tril(shift + rules["window_right"]) & ones.triu(shift - rules["window_left"])), -torch.inf
        )
    if rules.get("alibi"):
        # The paper's list for 12 heads: eight heads' slopes, then every second of sixteen heads'.
        slopes = torch.tensor(
            [2.0 ** -(i + 1) for i in range(8)] + [2.0 ** -(i / 2) for i in (1, 3, 5, 7)], dtype=torch.float64
        )
        distance = (torch.arange(n)[:, None] + shift - torch.arange(m)[None, :]).abs()
        result -= slopes[:, None, None] * distance
    return result


def distance(x, reference):
    return float(np.linalg.norm(x - reference) / np.linalg.norm(reference))


def longspan(folder, q, k, v, keys, compute):
    source, output = os.path.join(folder, "in.h5"), os.path.join(folder, "out.h5")
    common.write_input(source, q, k, v, "f64")
    options = {"input.file": source, "output.file": output, "output.overwrite": "yes", "compute.dtype": compute, **keys}
    result = common.run("attend", 2, *[f"--{key}={value}" for key, value in options.items()])
    if result.returncode != 0:
        sys.exit(result.stdout + result.stderr)
    return common.read_output(output)["out"][0].astype(np.float64)


def main():
    passed = True
    with tempfile.TemporaryDirectory() as folder:
        for what, shape_q, shape_k, d_v, rules, keys in CASES:
            q, k, v = common.operands(shape_q, shape_k, d_v, seed=7, reach=6)
            t = [torch.from_numpy(x) for x in (q, k, v)]
            group = shape_q[1] // shape_k[1]
            t[1:] = [x.repeat_interleave(group, dim=1) for x in t[1:]]
            peer = torch.nn.functional.scaled_dot_product_attention(
                *t, attn_mask=bias(shape_q[2], shape_k[2], shape_q[1], rules), scale=rules.get("scale")
            ).numpy()
            errors = [("oracle", distance(oracle.attention(q, k, v, **rules)[0], peer), 1e-13)]
            if os.environ.get("LONGSPAN_BIN"):
                errors += [
                    (compute, distance(longspan(folder, q, k, v, keys, compute), peer), limit)
                    for compute, limit in (("f32", 7e-7), ("f64", 1e-14))
                ]
            good = all(error <= limit for _, error, limit in errors)
            passed = passed and good
            print(f"{what:20}", "  ".join(f"{name} {error:.1e}" for name, error, _ in errors), "" if good else "FAILED")
    print("PASSED" if passed else "FAILED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
