#!/usr/bin/env python3
"""`longspan map`: every figure against NumPy's in double, pictures and page, labels, bad input.

SPDX-License-Identifier: BSD-3-Clause
"""

import json
import os
import re
import struct
import unittest
import zlib

import h5py
import numpy as np
from common import BIN, Case, environment, error_lines, execute, operands, oracle, run, write_input

USAGE, CONTENT, LIMIT, FILE = 2, 3, 5, 6
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
FIGURES = ("entropy", "distance", "self", "first", "near")


def matrices(q, k, **rule):
    """[B, H, n, m]: attention whose values are the identity."""
    q4, k4 = oracle.as_bhnd(q), oracle.as_bhnd(k)
    m = k4.shape[2]
    identity = np.broadcast_to(np.eye(m), k4.shape[:2] + (m, m))
    w, _ = oracle.attention(q4, k4, identity, **rule)
    return w


def places(n, m, align="bottom-right", documents=None, documents_k=None, length=None):
    """(position of each row, first key of each row's document), by hand."""
    length = m if length is None else length
    offsets = [0, n] if documents is None else documents
    offsets_k = [0, m] if documents is None else (documents_k or documents)
    position, first = np.zeros(n, int), np.zeros(n, int)
    for d in range(len(offsets) - 1):
        a, b = offsets[d], offsets[d + 1]
        c, e = min(offsets_k[d], length), min(offsets_k[d + 1], length)
        shift = c - a + ((e - c) - (b - a) if align == "bottom-right" else 0)
        position[a:b] = np.arange(a, b) + shift
        first[a:b] = c
    return position, first


def pooled(w, rows, keys, how):
    """Blocks of rows x keys of w, those at the end smaller."""
    return np.array(
        [[how(w[r : r + rows, c : c + keys]) for c in range(0, w.shape[1], keys)] for r in range(0, w.shape[0], rows)]
    )


def figures_of(w, position, first, first_row=0, first_key=0):
    rows, keys = np.arange(w.shape[0]), first_key + np.arange(w.shape[1])
    away = np.abs(position[first_row : first_row + len(rows), None] - keys[None, :])
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(w > 0, w * np.log(w), 0).sum(1)
    begin = np.maximum(first[first_row : first_row + len(rows)], first_key)
    result = dict(
        entropy=entropy,
        distance=(w * away).sum(1),
        self=(w * (away == 0)).sum(1),
        first=(w * (keys[None, :] == begin[:, None])).sum(1),
        near=(w * (away < 128)).sum(1),
    )
    seen = w.sum(1) > 0
    return {name: np.where(seen, values, np.nan) for name, values in result.items()}


def read_png(path):
    """(width, height, bytes a pixel, rows without their filter bytes): every chunk's checksum is checked."""
    with open(path, "rb") as file:
        data = file.read()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, packed, header, kinds = 8, b"", None, []
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + body)
        kinds.append(kind)
        if kind == b"IHDR":
            header = struct.unpack(">IIBBBBB", body)
        if kind == b"IDAT":
            packed += body
        at += 12 + size
    assert kinds[-1] == b"IEND" and at == len(data)
    width, height, depth, colour, _, _, interlace = header
    assert depth == 8 and colour in (2, 6) and interlace == 0
    rows = zlib.decompress(packed)
    channels = 3 if colour == 2 else 4
    assert len(rows) == height * (1 + channels * width)
    return width, height, channels, rows


def read_page(path):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S).group(1)
    return text, json.loads(data)


def decode(text, bounds):
    codes = np.array([DIGITS.index(c) for c in text]).reshape(-1, 2)
    code = codes[:, 0] * 64 + codes[:, 1]
    return np.where(code == 0, 0, np.exp(bounds[0] + (code - 1) * (bounds[1] - bounds[0]) / 4094))


class Map(Case):
    def map(self, source, ranks=1, **keys):
        output, report = self.fresh("map.h5"), self.fresh("report.json")
        keys = {key.replace("__", "."): value for key, value in keys.items()}
        keys = {"input.file": source, "output.file": output, "report.json": report, **keys}
        self.told = self.run_ok("map", ranks, keys)
        with open(report, encoding="utf-8") as file, h5py.File(output) as h5:
            data = {}
            h5["map"].visititems(lambda name, o: data.update({name: o[...]}) if isinstance(o, h5py.Dataset) else None)
            data["lse"] = h5["lse"][...] if "lse" in h5 else None
            return data, json.load(file)

    def check_head(self, w, got, told, place, limit, what, part=(0, 0)):
        """One head's datasets and report against its matrix w."""
        h, w_pixel = told["map"]["rows_per_pixel"], told["map"]["keys_per_pixel"]
        right = figures_of(w, *place, *part)
        seen = ~np.isnan(right["entropy"])
        for name in FIGURES:
            np.testing.assert_array_equal(np.isnan(got[name]), ~seen, f"{what} {name}")
            np.testing.assert_allclose(got[name][seen], right[name][seen], rtol=limit, atol=limit, err_msg=f"{what} {name}")
        np.testing.assert_allclose(got["mean"], pooled(w, h, w_pixel, np.mean), rtol=limit, atol=limit, err_msg=what)
        np.testing.assert_allclose(got["max"], pooled(w, h, w_pixel, np.max), rtol=limit, atol=limit, err_msg=what)
        np.testing.assert_allclose(got["column_mass"], w.sum(0), rtol=limit, atol=limit * max(1, seen.sum()), err_msg=what)
        area = pooled(np.ones_like(w), h, w_pixel, np.sum)
        self.assertAlmostEqual((got["mean"].astype(float) * area).sum(), seen.sum(), delta=1e-5 * max(1, seen.sum()))
        if "links/row" in got:
            rows, keys, weights = (got[f"links/{name}"] for name in ("row", "key", "weight"))
            count = min(len(rows), int((w > 0).sum()))
            self.assertTrue((rows[count:] == -1).all() and (weights[count:] == 0).all(), what)
            order = np.sort(w.ravel())[::-1][:count]
            np.testing.assert_allclose(weights[:count], order, rtol=limit, atol=limit, err_msg=what)
            at = (rows[:count] - part[0], keys[:count] - part[1])
            np.testing.assert_allclose(w[at], weights[:count], rtol=limit, atol=limit, err_msg=what)
            self.assertEqual(len(set(zip(rows[:count].tolist(), keys[:count].tolist()))), count, what)

    def check(self, source, q, k, ranks, rule=None, place=None, limit=4e-6, part=(0, 0), **keys):
        data, report = self.map(source, ranks, **keys)
        w = matrices(q, k, **(rule or {}))
        batch, heads = w.shape[:2]
        self.assertEqual(len(report["heads"]), batch * heads)
        self.assertTrue(report["verify"]["passed"])
        for i, told in enumerate(report["heads"]):
            b, h = divmod(i, heads)
            got = {}
            for name, values in data.items():
                if values is not None:
                    trail = 2 if name in ("mean", "max") else 1
                    got[name] = values.reshape((batch, heads) + values.shape[-trail:])[b, h]
            where = place[b] if isinstance(place, list) else place or places(q.shape[-2], k.shape[-2])
            self.check_head(w[b, h], got, report, where, limit, f"{ranks} ranks, head {i}, {keys}", part)
            for name in FIGURES:
                mean = np.nanmean(got[name].astype(float)) if told["rows_weighed"] else None
                if mean is None:
                    self.assertIsNone(told[name])
                else:
                    self.assertAlmostEqual(told[name], mean, delta=1e-5 * (1 + abs(mean)))
        return data, report

    def source(self, q, k, **tables):
        path = self.fresh("in.h5")
        write_input(path, q, k, k, **tables)
        return path

    # ---- right ------------------------------------------------------------------------------------

    def test_shapes_and_ranks(self):
        for ranks, n, m, d, pixels, links in (
            (1, 211, 97, 16, 16, 10),
            (2, 61, 300, 8, 512, 100),
            (3, 700, 40, 24, 37, 7),
            (4, 1, 90, 3, 5, 200),
            (7, 5, 3, 4, 2, 0),
            (2, 1, 1, 1, 1, 3),
        ):
            with self.subTest(ranks=ranks, n=n, m=m):
                q, k, _ = operands((n, d), (m, d), seed=n, reach=9)
                data, report = self.check(self.source(q, k), q, k, ranks, map__pixels=pixels, map__links=links)
                self.assertEqual("links/row" in data, links > 0)
                self.assertLessEqual(max(data["mean"].shape), pixels)

    def test_masks_heads_batches_and_parts(self):
        q, k, _ = operands((2, 4, 150, 12), (2, 2, 170, 12), seed=5, reach=8)
        source = self.source(q, k, key_lengths=[170, 120])
        lengths = dict(input__key_lengths="/key_lengths", map__pixels=40)
        at = [places(150, 170), places(150, 170, length=120)]
        self.check(source, q, k, 2, dict(key_lengths=[170, 120], alibi=True), at, attention__alibi="yes", **lengths)
        self.check(source, q, k, 3, dict(heads=[3, 1], mask="causal"), input__heads="3,1", attention__mask="causal")
        part = dict(input__rows="20:140", input__keys="10:160")
        w = matrices(q, k, rows=(20, 140), keys=(10, 160))[..., 10:160]
        data, report = self.map(source, 2, compute__dtype="f64", map__pixels=33, **part)
        where = places(150, 170)
        for b in range(2):
            for h in range(4):
                got = {name: values[b, h] for name, values in data.items()}
                self.check_head(w[b, h], got, report, where, 1e-10, f"part, head {b} {h}", (20, 10))

    def test_window_documents_and_rows_without_keys(self):
        q, k, _ = operands((2, 130, 8), (2, 101, 8), seed=8, reach=8)
        offsets, offsets_k = [0, 50, 50, 130], [0, 30, 41, 101]
        source = self.source(q, k, documents=offsets, documents_k=offsets_k)
        rule = dict(mask="window", window_left=9, window_right=2, documents=offsets, documents_k=offsets_k)
        where = places(130, 101, documents=offsets, documents_k=offsets_k)
        keys = dict(attention__mask="window", attention__window_left=9, attention__window_right=2)
        documents = dict(input__documents="/documents", input__documents_k="/documents_k")
        data, report = self.check(source, q, k, 3, rule, where, map__pixels=20, **keys, **documents)
        self.assertGreater(report["heads"][0]["rows_empty"], 0)
        self.assertIn("rows see no key", self.told.stdout)

    def test_entropy_at_2048_and_lse_of_attend(self):
        q, k, v = operands((2048, 64), (2048, 64), seed=3)
        source = self.path("in.h5")
        write_input(source, q, k, v)
        data, _ = self.map(source, 2)
        right = figures_of(matrices(q, k)[0, 0], *places(2048, 2048))
        self.assertLess(np.abs(data["entropy"] - right["entropy"]).max(), 1e-5)
        attended, _ = self.attend(source)
        np.testing.assert_array_equal(data["lse"], attended["lse"][0])

    def test_bits_do_not_depend_on_ranks(self):
        q, k, _ = operands((3, 900, 16), (3, 700, 16), seed=4, reach=12)
        source = self.source(q, k)
        first = None
        for ranks, keys in (
            (1, {}),
            (2, dict(compute__gather="panels", compute__panel_rows=512)),
            (3, dict(compute__gather="node", compute__head_groups=3)),
            (7, dict(compute__gather="chain", compute__threads=2)),
        ):
            data, report = self.map(source, ranks, attention__mask="causal", map__pixels=25, **keys)
            links = [head["links"] for head in report["heads"]]
            if first is None:
                first = (data, links)
            for name in first[0]:
                np.testing.assert_array_equal(first[0][name], data[name], f"{ranks} ranks: {name}")
            self.assertEqual(first[1], links)

    # ---- pictures ---------------------------------------------------------------------------------

    def labelled(self, n, m=None, awkward=False):
        words = [f"word{i}" for i in range(n)]
        if awkward:
            words[0], words[1] = "</script><b>", 'quote" \\ & tab\there'
            words[2] = "é" * 200
        path = self.fresh("labels.txt")
        with open(path, "wb") as file:
            file.write(("\n".join(words) + "\n").encode() if not awkward else
                       ("\r\n".join(words)).encode().replace(b"word3\r", b"bad\xff\xc3\r"))
        return path, words

    def test_picture_and_page(self):
        for heads, ranks in ((1, 1), (12, 2)):
            q, k, _ = operands((heads, 90, 8), (heads, 90, 8), seed=heads, reach=10)
            png, html = self.fresh("map.png"), self.fresh("map.html")
            labels, words = self.labelled(90, awkward=True)
            data, report = self.map(
                self.source(q, k), ranks, report__plot=png, report__html=html, map__labels=labels, map__pixels=45,
                attention__mask="causal",
            )
            width, height, _, rows = read_png(png)
            self.assertGreater(min(width, height), 500)
            self.assertGreater(len(set(rows[i : i + 3] for i in range(1, len(rows) - 3, 101))), 50, "nothing is drawn")
            text, page = read_page(html)
            self.assertNotRegex(text, r"https?://|src=|@import|url\(")
            self.assertEqual(len(page["heads"]), heads)
            self.assertEqual((page["rows"], page["keys"], page["rows_per_pixel"]), (90, 90, 2))
            for i, head in enumerate(page["heads"]):
                for which in ("mean", "max"):
                    right = np.atleast_3d(data[which].reshape((heads, 45, 45)))[i].ravel()
                    got = decode(head[which], page[which + "_range"])
                    np.testing.assert_array_equal(got > 0, right > 0)
                    np.testing.assert_allclose(got, right, rtol=0.01)
                link, told = head["links"][0], report["heads"][i]["links"][0]
                self.assertEqual(link[:3], [told["row"], told["key"], told["weight"]])
                self.assertEqual(told["row_label"], self.cleaned(words, told["row"]))
                self.assertEqual(told["key_label"], self.cleaned(words, told["key"]))
                np.testing.assert_allclose(np.array(head["mass"]) * 2, data["column_mass"].reshape(heads, 45, 2).sum(2)[i],
                                           rtol=1e-4)
            told = [l for head in report["heads"] for l in head["links"] if l["key"] == 0]
            self.assertTrue(told and all(l["key_label"] == "</script><b>" for l in told))

    @staticmethod
    def cleaned(words, i):
        return "bad??" if words[i] == "word3" else words[i].replace("\t", " ")

    def test_summary_shows_words(self):
        q, k, _ = operands((40, 8), (60, 8), seed=2, reach=12)
        labels, words = self.labelled(40)
        keys, key_words = self.labelled(60)
        _, report = self.map(self.source(q, k), 2, map__labels=labels, map__labels_k=keys)
        link = report["heads"][0]["links"][0]
        self.assertIn(f"{words[link['row']]} -> {key_words[link['key']]}", self.told.stdout)
        self.assertEqual(link["row_label"], words[link["row"]])

    # ---- refused ----------------------------------------------------------------------------------

    def refused(self, code, wanted, **keys):
        keys = {key.replace("__", "."): value for key, value in keys.items()}
        output = self.fresh("refused.h5")
        keys = {"input.file": self.path("in.h5"), "output.file": output, "compute.threads": 1, **keys}
        before = sorted(os.listdir(self.folder))
        result = run("map", 2, *[f"--{key}={value}" for key, value in keys.items()])
        self.assertEqual(result.returncode, code, f"{keys}\n{result.stdout}\n{result.stderr}")
        lines = error_lines(result)
        self.assertEqual(len(lines), 1, lines)
        for text in wanted if isinstance(wanted, tuple) else (wanted,):
            self.assertIn(text, lines[0])
        self.assertEqual(sorted(os.listdir(self.folder)), before, "something was left behind")

    def test_bad_input(self):
        q, k, v = operands((20, 8), (33, 8), seed=1)
        write_input(self.path("in.h5"), q, k, v)
        short, _ = self.labelled(19)
        right, _ = self.labelled(20)
        self.refused(CONTENT, ("19 lines", "20 rows"), map__labels=short)
        self.refused(CONTENT, ("20 lines", "33 keys", "map.labels_k"), map__labels=right)
        self.refused(CONTENT, ("19 lines", "33 keys"), map__labels=right, map__labels_k=short)
        self.refused(FILE, "map.labels", map__labels=self.path("no-such-file"))
        self.refused(FILE, "map.labels", map__labels=self.folder)
        self.refused(USAGE, "map.pixels", map__pixels=0)
        self.refused(USAGE, "map.pixels", map__pixels=9000)
        self.refused(USAGE, "map.links", map__links=-1)
        self.refused(USAGE, "attention.method", attention__method="topk", attention__topk=3)
        self.refused(USAGE, "compute.dtype", compute__dtype="bf16")
        self.refused(FILE, "report.html", report__html=self.path("no/such/folder.html"))
        self.refused(FILE, "report.plot", report__plot=self.path("no/such/folder.png"))
        self.refused(USAGE, "is an input", output__file=self.path("in.h5"))

    def test_an_output_that_exists(self):
        q, k, v = operands((20, 8), (20, 8), seed=1)
        write_input(self.path("in.h5"), q, k, v)
        with open(self.path("there.h5"), "w", encoding="ascii") as file:
            file.write("keep me")
        self.refused(FILE, "overwrite", output__file=self.path("there.h5"))
        with open(self.path("there.h5"), encoding="ascii") as file:
            self.assertEqual(file.read(), "keep me")
        keys = {"input.file": self.path("in.h5"), "output.file": self.path("there.h5"), "output.overwrite": "yes"}
        self.run_ok("map", 1, keys)
        with h5py.File(self.path("there.h5")) as file:
            self.assertEqual(file["map/mean"].shape, (20, 20))

    def test_nan_is_refused(self):
        q, k, v = operands((20, 8), (20, 8), seed=1)
        k[3, 1] = np.nan
        write_input(self.path("in.h5"), q, k, v)
        self.refused(CONTENT, "NaN")

    def test_help_names_the_keys(self):
        result = execute([BIN, "map", "--help"], environment())
        self.assertEqual(result.returncode, 0)
        for key in ("pixels", "links", "labels", "labels_k", "html", "plot"):
            self.assertIn(key, result.stdout)


if __name__ == "__main__":
    unittest.main()
