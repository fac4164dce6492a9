"""What a layer has to compute, in NumPy double precision, written for clarity alone.

layer() goes from x, a context and the weights to y: projections in PyTorch's order, norm, rotary positions, attention
(oracle.attention), output projection.

SPDX-License-Identifier: BSD-3-Clause
"""

import numpy as np
import oracle


def rms_norm(heads, weight, eps):
    """heads [..., head_dim] over the root of their mean square."""
    scaled = heads / np.sqrt((heads**2).mean(-1, keepdims=True) + eps)
    return scaled if weight is None else scaled * weight


def rotate(heads, positions, base, pairing):
    """heads [B, H, n, head_dim]; positions [n] or [B, n]: pair c turns by position * base^(-2 c / head_dim)."""
    d = heads.shape[-1]
    speed = base ** (-2.0 * np.arange(d // 2) / d)
    angle = np.asarray(positions, np.float64)[..., None] * speed
    angle = angle[None, None] if angle.ndim == 2 else angle[:, None]
    if pairing == "half":
        first, second = heads[..., : d // 2], heads[..., d // 2 :]
    else:
        first, second = heads[..., 0::2], heads[..., 1::2]
    turned = np.empty_like(heads)
    a, b = first * np.cos(angle) - second * np.sin(angle), first * np.sin(angle) + second * np.cos(angle)
    if pairing == "half":
        turned[..., : d // 2], turned[..., d // 2 :] = a, b
    else:
        turned[..., 0::2], turned[..., 1::2] = a, b
    return turned


def split_heads(rows, heads):
    """[B, n, heads * head_dim] -> [B, heads, n, head_dim]"""
    batch, n, columns = rows.shape
    return rows.reshape(batch, n, heads, columns // heads).transpose(0, 2, 1, 3)


def layer(
    x,
    weights,
    heads,
    kv_heads=None,
    context=None,
    rope_base=0.0,
    rope_pairing="half",
    qk_norm=False,
    qk_norm_eps=1e-6,
    attend=oracle.attention,
    key_lengths=None,
    causal_align="bottom-right",
    **rule,
):
    """y as x, [n, d_model] or [B, n, d_model]. weights: {"qkv_proj.weight": ..., ...}, biases and norms optional."""
    kv_heads = kv_heads or heads
    rows = x.reshape((-1,) + x.shape[-2:]).astype(np.float64)
    source = rows if context is None else context.reshape((-1,) + context.shape[-2:]).astype(np.float64)
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    d = w["qkv_proj.weight"].shape[0] // (heads + 2 * kv_heads)
    cuts = [heads * d, (heads + kv_heads) * d]
    w_q, w_k, w_v = np.split(w["qkv_proj.weight"], cuts)
    b_q, b_k, b_v = np.split(w.get("qkv_proj.bias", np.zeros(cuts[1] + kv_heads * d)), cuts)
    q = split_heads(rows @ w_q.T + b_q, heads)
    k, v = split_heads(source @ w_k.T + b_k, kv_heads), split_heads(source @ w_v.T + b_v, kv_heads)
    if qk_norm:
        q = rms_norm(q, w.get("q_norm.weight"), qk_norm_eps)
        k = rms_norm(k, w.get("k_norm.weight"), qk_norm_eps)
    n, m = q.shape[2], k.shape[2]
    if rope_base > 0:
        positions = np.arange(n)[None, :]
        if context is not None and causal_align == "bottom-right":
            lengths = np.array(key_lengths if key_lengths is not None else [m] * len(rows))
            positions = positions + lengths[:, None] - n
        q = rotate(q, np.broadcast_to(positions, (len(rows), n)), rope_base, rope_pairing)
        k = rotate(k, np.arange(m), rope_base, rope_pairing)
    if key_lengths is not None:
        rule["key_lengths"] = key_lengths
    out, _ = attend(q, k, v, causal_align=causal_align, **rule)
    y = out.transpose(0, 2, 1, 3).reshape(len(rows), n, heads * d) @ w["out_proj.weight"].T
    return (y + w.get("out_proj.bias", 0.0)).reshape(x.shape)
