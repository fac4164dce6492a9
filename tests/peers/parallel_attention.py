#!/usr/bin/env python3
"""Makes inputs/parallel-attention.h5: block attention as a PyTorch module computes it. By hand, once:

    python3 -m venv venv && venv/bin/pip install h5py torch
    venv/bin/python tests/peers/parallel_attention.py inputs/parallel-attention.h5

The module is the class ParallelAttention of the document that Longspan comes from, read as it is meant: its loop goes
over the batch where it should go over the blocks, its last rearrangement has one axis too many, and it never splits the
heads. x is cut into blocks of block_size rows; each block goes through qkv_proj, attends inside itself with num_heads
heads of d_model / num_heads numbers and scale head_dim^-1/2; the blocks are joined and go through out_proj.

The file has x, the weights under the module's own names, and y_pytorch. tests/e2e/test_layer_golden.py wants the same of
`longspan layer inputs/layer.ini`.

SPDX-License-Identifier: BSD-3-Clause
"""

import sys

import h5py
import torch
from torch import nn

BATCH, SEQUENCE, D_MODEL, NUM_HEADS, BLOCK_SIZE = 2, 96, 64, 4, 24


class ParallelAttention(nn.Module):
    def __init__(self, d_model, num_heads, block_size):
        super().__init__()
        self.num_heads = num_heads
        self.block_size = block_size
        self.head_dim = d_model // num_heads
        self.scale = self.head_dim**-0.5
        self.qkv_proj = nn.Linear(d_model, 3 * d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, x):
        outputs = []
        for block in x.split(self.block_size, dim=1):
            q, k, v = (self.split_heads(t) for t in self.qkv_proj(block).chunk(3, dim=-1))
            out = self.attention(q, k, v)
            outputs.append(out.transpose(1, 2).reshape(block.shape))
        return self.out_proj(torch.cat(outputs, dim=1))

    def split_heads(self, t):
        """[b, n, d_model] -> [b, num_heads, n, head_dim]"""
        return t.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def attention(self, q, k, v):
        weights = torch.softmax(torch.matmul(q, k.transpose(-2, -1)) * self.scale, dim=-1)
        return torch.matmul(weights, v)


def main():
    torch.manual_seed(5)
    module = ParallelAttention(D_MODEL, NUM_HEADS, BLOCK_SIZE).eval()
    # Scores of some size, so that the softmax is not flat.
    x = 3 * torch.randn(BATCH, SEQUENCE, D_MODEL)
    with torch.no_grad():
        y = module(x)
        exact = module.double()(x.double())
    print(f"float against double: {float((y - exact).norm() / exact.norm()):.2e}")
    with h5py.File(sys.argv[1], "w") as file:
        file["x"] = x.numpy()
        for name, tensor in module.float().state_dict().items():
            file[name] = tensor.numpy()
        file["y_pytorch"] = y.numpy()
        file.attrs["heads"] = NUM_HEADS
        file.attrs["block_size"] = BLOCK_SIZE
        file.attrs["torch"] = str(torch.__version__)


if __name__ == "__main__":
    main()
