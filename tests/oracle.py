#!/usr/bin/env python3
"""What Longspan has to compute, in NumPy double precision, written for clarity alone.

attention() follows the published rules: positions, masks, documents, key lengths, softcap, ALiBi and
grouped-query heads. checksum() is the sum of row hashes stored beside every tensor. Run as a program it
tests itself against a triple loop.

SPDX-License-Identifier: BSD-3-Clause
"""

import math
import sys
import unittest

import numpy as np

BLOCK_ROWS = 256  # query rows at a time, so that n = m = 8192 fits in memory
U64 = (1 << 64) - 1


def alibi_slope(head, heads):
    """Press et al. 2022: 2^(-8 i / heads) for i = 1, 2, ... when heads is a power of two. Otherwise the
    slopes of the power of two below, then every second one of twice that power of two."""
    below = 1 << (heads.bit_length() - 1)
    if head < below:
        return 2.0 ** (-8.0 * (head + 1) / below)
    return 2.0 ** (-8.0 * (2 * (head - below) + 1) / (2 * below))


def as_bhnd(tensor):
    """[n, d], [H, n, d] or [B, H, n, d] -> [B, H, n, d]"""
    return tensor.reshape((1,) * (4 - tensor.ndim) + tensor.shape)


def sight(rows, m, n, mask, causal_align, window_left, window_right):
    """(visible [rows, m], position [rows]) for one sequence of n rows and m keys."""
    position = rows + (m - n if causal_align == "bottom-right" else 0)
    key = np.arange(m)
    if mask == "none":
        visible = np.ones((len(rows), m), bool)
    elif mask == "causal":
        visible = key[None, :] <= position[:, None]
    elif mask == "window":
        visible = (key[None, :] >= position[:, None] - window_left) & (key[None, :] <= position[:, None] + window_right)
    else:
        raise ValueError(mask)
    return visible, position


def softmax_rows(scores, visible, v):
    """(out [rows, d_v], lse [rows]); hidden keys do not contribute, whatever their score and v are."""
    out = np.zeros((len(scores), v.shape[1]))
    lse = np.full(len(scores), -np.inf)
    for row in range(len(scores)):
        seen = np.flatnonzero(visible[row])
        if len(seen) == 0:
            continue
        s = scores[row, seen]
        if not np.isfinite(s.max()):
            out[row], lse[row] = np.nan, np.nan
            continue
        weights = np.exp(s - s.max())
        out[row] = weights @ v[seen] / weights.sum()
        lse[row] = s.max() + math.log(weights.sum())
    return out, lse


def block_shows(rows, keys, n, m, block_size):
    """[rows, keys] whether a key lies in the row's block: rows [b s, e) with e = min((b + 1) s, n) see keys
    [floor(b s m / n), floor(e m / n)) of the whole sequence."""
    shows = np.zeros((len(rows), len(keys)), bool)
    for i, row in enumerate(rows):
        begin = int(row) // block_size * block_size
        end = min(begin + block_size, n)
        shows[i] = (keys >= begin * m // n) & (keys < end * m // n)
    return shows


def attend_head(q, k, v, rows, keys, rule, shows=True):
    """One head of one sequence: (out, lse) of the given rows over the given keys, where `shows` too."""
    n, m = len(q), len(k)
    chosen = np.zeros(m, bool)
    chosen[keys] = True
    visible, position = sight(rows, m, n, rule["mask"], rule["causal_align"], rule["window_left"], rule["window_right"])
    scores = rule["scale"] * (q[rows] @ k.T)
    if rule["softcap"]:
        scores = rule["softcap"] * np.tanh(scores / rule["softcap"])
    scores = scores - rule["slope"] * np.abs(position[:, None] - np.arange(m)[None, :])
    return softmax_rows(scores, visible & chosen & shows, v)


def attention(
    q,
    k,
    v,
    mask="none",
    causal_align="bottom-right",
    window_left=0,
    window_right=0,
    documents=None,
    documents_k=None,
    key_lengths=None,
    scale=None,
    softcap=0.0,
    alibi=False,
    heads=None,
    rows=None,
    keys=None,
    block_size=None,
):
    """(out, lse) as double arrays shaped like q with d_v last, and like q without the last axis.

    q [n, d_k], [H_q, n, d_k] or [B, H_q, n, d_k]; k and v with m rows and H_kv heads. documents: offsets
    over rows, documents_k over keys. key_lengths [B]: keys of each batch. heads: list of query heads,
    rows and keys: (begin, end); a part of the result, positions as in the whole. Keys outside `keys`
    hide, so the parts over disjoint keys merge to the whole. block_size: rows see the keys of their block only.
    """
    q4, k4, v4 = (as_bhnd(np.asarray(x, np.float64)) for x in (q, k, v))
    batch, query_heads, n, d_k = q4.shape
    kv_heads, m = k4.shape[1:3]
    heads = list(range(query_heads)) if heads is None else list(heads)
    first_row, end_row = rows or (0, n)
    first_key, end_key = keys or (0, m)
    row_offsets = np.array([0, n] if documents is None else documents)
    if documents is None:
        key_offsets = np.array([0, m])
    else:
        key_offsets = row_offsets if documents_k is None else np.array(documents_k)
    rule = dict(
        mask=mask,
        causal_align=causal_align,
        window_left=window_left,
        window_right=window_right,
        scale=1 / math.sqrt(d_k) if scale is None else scale,
        softcap=softcap,
    )

    out = np.zeros((batch, len(heads), end_row - first_row, v4.shape[3]))
    lse = np.full(out.shape[:3], -np.inf)
    for b in range(batch):
        length = m if key_lengths is None else int(key_lengths[b])
        for index, head in enumerate(heads):
            kv_head = head // (query_heads // kv_heads)
            rule["slope"] = alibi_slope(head, query_heads) if alibi else 0.0
            for d in range(len(row_offsets) - 1):
                r0, r1 = row_offsets[d], row_offsets[d + 1]
                k0, k1 = key_offsets[d], min(key_offsets[d + 1], length)
                k1 = max(k0, k1)
                qd, kd, vd = q4[b, head, r0:r1], k4[b, kv_head, k0:k1], v4[b, kv_head, k0:k1]
                seen_keys = np.arange(max(k0, first_key), min(k1, end_key)) - k0
                for r in range(max(r0, first_row), min(r1, end_row), BLOCK_ROWS):
                    r_end = min(r + BLOCK_ROWS, r1, end_row)
                    shows = True
                    if block_size is not None:
                        shows = block_shows(np.arange(r, r_end), np.arange(k0, k1), n, m, block_size)
                    part = attend_head(qd, kd, vd, np.arange(r, r_end) - r0, seen_keys, rule, shows)
                    out[b, index, r - first_row : r_end - first_row] = part[0]
                    lse[b, index, r - first_row : r_end - first_row] = part[1]
    drop = 4 - np.ndim(q)
    return out[(0,) * drop], lse[(0,) * drop]


def softmax_matrix(q, k):
    """W [.., n, m] of rows that see every key: attention() with the identity for values, for larger sizes."""
    scores = np.asarray(q, np.float64) @ np.swapaxes(np.asarray(k, np.float64), -1, -2) / math.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def merge(outs, lses):
    """The whole from parts over disjoint keys."""
    top = np.max(lses, axis=0)
    safe = np.where(np.isfinite(top), top, 0.0)
    weights = [np.exp(lse - safe) for lse in lses]
    total = np.sum(weights, axis=0)
    out = sum(w[..., None] * o for w, o in zip(weights, outs)) / np.where(total == 0, 1.0, total)[..., None]
    with np.errstate(divide="ignore"):
        return out, safe + np.log(total)


def xxh64(data, seed):
    """XXH64 of bytes, after its specification (xxHash, doc/xxhash_spec.md)."""
    p1, p2, p3, p4, p5 = (
        0x9E3779B185EBCA87,
        0xC2B2AE3D27D4EB4F,
        0x165667B19E3779F9,
        0x85EBCA77C2B2AE63,
        0x27D4EB2F165667C5,
    )

    def rotate(x, r):
        return ((x << r) | (x >> (64 - r))) & U64

    def mix(lane, word):
        return rotate((lane + word * p2) & U64, 31) * p1 & U64

    length, at = len(data), 0
    words = np.frombuffer(data, "<u8", length // 8).tolist()
    if length >= 32:
        lanes = [(seed + p1 + p2) & U64, (seed + p2) & U64, seed & U64, (seed - p1) & U64]
        for stripe in range(length // 32):
            lanes = [mix(lane, words[4 * stripe + i]) for i, lane in enumerate(lanes)]
        at = length // 32 * 32
        h = sum(rotate(lane, r) for lane, r in zip(lanes, (1, 7, 12, 18))) & U64
        for lane in lanes:
            h = ((h ^ mix(0, lane)) * p1 + p4) & U64
    else:
        h = (seed + p5) & U64
    h = (h + length) & U64
    for word in words[at // 8 :]:
        h = (rotate(h ^ mix(0, word), 27) * p1 + p4) & U64
    at = length // 8 * 8
    if length - at >= 4:
        h = (rotate(h ^ int.from_bytes(data[at : at + 4], "little") * p1 & U64, 23) * p2 + p3) & U64
        at += 4
    for byte in data[at:]:
        h = rotate(h ^ byte * p5 & U64, 11) * p1 & U64
    h = (h ^ h >> 33) * p2 & U64
    h = (h ^ h >> 29) * p3 & U64
    return h ^ h >> 32


def checksum(tensor, scalars=False, layout="bhnd"):
    """XXH64 of each row (little-endian bytes, seed = its index (b*H + h)*n + i) summed modulo 2^64. With
    scalars every number is a row of its own (lse); bnhd: the tensor is [(B,) n, H, d]."""
    tensor = np.asarray(tensor)
    if scalars:
        tensor = tensor[..., None]
    if layout == "bnhd" and tensor.ndim >= 3:
        tensor = np.swapaxes(tensor, -3, -2)
    rows = np.ascontiguousarray(tensor.reshape(-1, tensor.shape[-1]), tensor.dtype.newbyteorder("<"))
    return sum(xxh64(row.tobytes(), index) for index, row in enumerate(rows)) & U64


# ---- self-test ----------------------------------------------------------------------------------------


def triple_loop(q, k, v, visible, slope_of, scale, softcap, position_of):
    """[n, d] operands, entry by entry; visible(i, j), position_of(i, j) -> distance."""
    n, m, d_v = len(q), len(k), v.shape[1]
    out, lse = np.zeros((n, d_v)), np.full(n, -np.inf)
    for i in range(n):
        total, row = 0.0, [0.0] * d_v
        for j in range(m):
            if not visible(i, j):
                continue
            s = 0.0
            for c in range(q.shape[1]):
                s += q[i, c] * k[j, c]
            s *= scale
            if softcap:
                s = softcap * math.tanh(s / softcap)
            s -= slope_of * abs(position_of(i, j))
            total += math.exp(s)
            for c in range(d_v):
                row[c] += math.exp(s) * v[j, c]
        if total > 0:
            out[i], lse[i] = np.array(row) / total, math.log(total)
    return out, lse


class OracleTest(unittest.TestCase):
    n, m = 7, 9

    def setUp(self):
        random = np.random.default_rng(3)
        self.q = random.standard_normal((2, 4, self.n, 3))
        self.k = random.standard_normal((2, 2, self.m, 3))
        self.v = random.standard_normal((2, 2, self.m, 5))

    def check(self, visible, distance=lambda i, j: i + 2 - j, alibi=False, softcap=0.0, scale=3**-0.5, **options):
        """visible(b, i, j) is the rule written once more, by hand, for n = 7 and m = 9."""
        out, lse = attention(self.q, self.k, self.v, alibi=alibi, softcap=softcap, scale=scale, **options)
        for b in range(2):
            for h in range(4):
                slope = (0.25, 0.0625, 0.015625, 0.00390625)[h] if alibi else 0.0
                expected = triple_loop(
                    self.q[b, h],
                    self.k[b, h // 2],
                    self.v[b, h // 2],
                    lambda i, j: visible(b, i, j),
                    slope,
                    scale,
                    softcap,
                    distance,
                )
                np.testing.assert_allclose(out[b, h], expected[0], rtol=1e-13, atol=1e-13)
                np.testing.assert_allclose(lse[b, h], expected[1], rtol=1e-13, atol=1e-13)

    def test_plain(self):
        self.check(lambda b, i, j: True)
        self.check(lambda b, i, j: True, scale=0.3, softcap=0.9)

    def test_alibi(self):
        self.check(lambda b, i, j: True, alibi=True)
        self.check(lambda b, i, j: j <= i, lambda i, j: i - j, alibi=True, mask="causal", causal_align="top-left")

    def test_causal(self):
        self.check(lambda b, i, j: j <= i + 2, mask="causal")
        self.check(lambda b, i, j: j <= i, mask="causal", causal_align="top-left")

    def test_causal_rows_without_keys(self):
        self.k, self.v = self.k[:, :, :4], self.v[:, :, :4]
        self.check(lambda b, i, j: j <= i - 3, mask="causal")
        out, lse = attention(self.q, self.k, self.v, mask="causal")
        self.assertTrue((out[:, :, :3] == 0).all() and np.isneginf(lse[:, :, :3]).all())

    def test_window(self):
        self.check(lambda b, i, j: i + 1 <= j <= i + 4, mask="window", window_left=1, window_right=2)
        self.check(lambda b, i, j: i == j, mask="window", causal_align="top-left")

    def test_documents(self):
        def visible(b, i, j):
            row_doc, key_doc = (0 if i < 2 else 1), (0 if j < 5 else 1)
            return row_doc == key_doc and (j <= i + 3 if row_doc == 0 else j - 5 <= i - 2 - 1)

        self.check(visible, mask="causal", documents=[0, 2, 7], documents_k=[0, 5, 9])

    def test_documents_positions(self):
        """ALiBi distances count inside the document; an empty document is legal."""
        self.check(
            lambda b, i, j: (i < 3) == (j < 4),
            lambda i, j: i - j if i < 3 else i - 3 - (j - 4),
            alibi=True,
            causal_align="top-left",
            documents=[0, 3, 3, 7],
            documents_k=[0, 4, 4, 9],
        )

    def test_key_lengths(self):
        self.check(lambda b, i, j: j < (9, 4)[b], key_lengths=[9, 4])
        self.check(lambda b, i, j: j < (6, 0)[b] and j <= i + (6, 0)[b] - 7, mask="causal", key_lengths=[6, 0])

    def test_blocks(self):
        # Seven rows in blocks of three see keys 0-2, 3-6 and 7-8: floor(3 9 / 7) = 3, floor(6 9 / 7) = 7.
        first = [0, 0, 0, 3, 3, 3, 7]
        stop = [3, 3, 3, 7, 7, 7, 9]
        self.check(lambda b, i, j: first[i] <= j < stop[i], block_size=3)
        self.check(lambda b, i, j: first[i] <= j < stop[i] and j <= i + 2, mask="causal", block_size=3)
        self.check(lambda b, i, j: True, block_size=7)

    def test_parts(self):
        whole = attention(self.q, self.k, self.v, mask="causal", alibi=True)
        part = attention(self.q, self.k, self.v, mask="causal", alibi=True, heads=[1, 3], rows=(2, 6))
        np.testing.assert_array_equal(part[0], whole[0][:, [1, 3], 2:6])
        parts = [attention(self.q, self.k, self.v, mask="causal", alibi=True, keys=keys) for keys in ((0, 4), (4, 9))]
        joined = merge([p[0] for p in parts], [p[1] for p in parts])
        np.testing.assert_allclose(joined[0], whole[0], atol=1e-14)
        np.testing.assert_allclose(joined[1], whole[1], atol=1e-14)

    def test_softmax_matrix(self):
        identity = np.broadcast_to(np.eye(self.m), (2, 4, self.m, self.m))
        k = np.repeat(self.k, 2, axis=1)
        np.testing.assert_allclose(softmax_matrix(self.q, k), attention(self.q, k, identity)[0], atol=1e-15)

    def test_hidden_keys_never_contribute(self):
        clean = attention(self.q, self.k, self.v, key_lengths=[4, 4])
        self.k[:, :, 4:], self.v[:, :, 4:] = np.inf, np.nan
        dirty = attention(self.q, self.k, self.v, key_lengths=[4, 4])
        np.testing.assert_array_equal(clean[0], dirty[0])

    def test_slopes(self):
        self.assertEqual([alibi_slope(h, 8) for h in range(8)], [2.0**-i for i in range(1, 9)])
        # Twelve heads: those of 8, then the first, third, fifth and seventh of 16.
        expected = [2.0**-i for i in range(1, 9)] + [2.0**-0.5, 2.0**-1.5, 2.0**-2.5, 2.0**-3.5]
        np.testing.assert_allclose([alibi_slope(h, 12) for h in range(12)], expected, rtol=1e-15)
        np.testing.assert_allclose([alibi_slope(h, 3) for h in range(3)], [2.0**-4, 2.0**-8, 2.0**-2], rtol=1e-15)

    def test_xxh64(self):
        # Published test vectors (xxHash's sanity tests, and the specification's empty input).
        self.assertEqual(xxh64(b"", 0), 0xEF46DB3751D8E999)
        self.assertEqual(xxh64(b"abc", 0), 0x44BC2CF5AD770999)
        self.assertEqual(xxh64(b"Nobody inspects the spammish repetition", 0), 0xFBCEA83C8A378BF1)

    def test_checksum_by_rows(self):
        x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
        expected = sum(xxh64(x[h, i].tobytes(), h * 3 + i) for h in range(2) for i in range(3)) & U64
        self.assertEqual(checksum(x), expected)
        self.assertEqual(checksum(x.astype(">f4")), expected)
        self.assertEqual(checksum(np.swapaxes(x, 0, 1), layout="bnhd"), expected)
        self.assertNotEqual(checksum(x[:, ::-1]), expected)


if __name__ == "__main__":
    sys.exit(unittest.main())
