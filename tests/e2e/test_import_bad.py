#!/usr/bin/env python3
"""import refuses what is wrong: one clear line, the exit code, no output, no hang.

SPDX-License-Identifier: BSD-3-Clause
"""

import json
import os
import struct
import unittest

import numpy as np
from common import BIN, Case, environment, error_lines, execute, run
from foreign import npy_bytes, safetensors, write_bytes, write_raw, write_safetensors

D = 12


def entry(dtype="F32", shape=(2, 3), offsets=(0, 24)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def layer(prefix="l.0.self_attn.", **shapes):
    made = {"q_proj.weight": (D, D), "k_proj.weight": (D, D), "v_proj.weight": (D, D), "o_proj.weight": (D, D)}
    made |= {name.replace("__", "."): shape for name, shape in shapes.items()}
    return {prefix + name: (np.zeros(shape), "F32") for name, shape in made.items() if shape is not None}


def start(command, ranks, *options):
    """One rank starts without the launcher, which takes most of the time of a command that refuses. The search for leaks
    of a sanitized build cannot look into such a process."""
    if ranks > 1:
        return run(command, ranks, *options)
    env = environment()
    env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
    return execute([BIN, command, *options], env)


class Refused(Case):
    def refuse(self, code, wanted, *options, ranks=1, output=True):
        output = [f"--output.file={self.path('out.h5')}"] if output else []
        before = sorted(os.listdir(self.folder))
        result = start("import", ranks, *options, *output)
        lines = error_lines(result)
        self.assertEqual(result.returncode, code, f"{options}\n{result.stdout}\n{result.stderr}")
        self.assertEqual(len(lines), 1, result.stderr)
        for text in [wanted] if isinstance(wanted, str) else wanted:
            self.assertIn(text, lines[0])
        self.assertEqual(sorted(os.listdir(self.folder)), before, "nothing is left behind")
        return lines[0]

    def refuse_file(self, wanted, header, data=b"", code=3, ranks=1):
        path = write_raw(self.path("bad.safetensors"), header, data)
        self.refuse(code, wanted, f"--import.source={path}", "--import.list=yes", ranks=ranks, output=False)

    def refuse_npy(self, wanted, data, ranks=1):
        path = write_bytes(self.path("bad.npy"), data)
        self.refuse(3, wanted, f"--import.arrays=x={path}", ranks=ranks)

    # ---- safetensors ---------------------------------------------------------------------------------

    def test_lengths(self):
        path = self.path("bad.safetensors")
        for wanted, data in (
            ("is empty", b""),
            ("is cut short", b"\0\0\0"),
            ("header should have 1000 bytes, and 2 follow", struct.pack("<Q", 1000) + b"{}"),
            ("header should have 18446744073709551615 bytes", b"\xff" * 40),
            ("at most 16777216 are read", struct.pack("<Q", 17 << 20) + b"{" + b" " * (17 << 20)),
            ("does not begin with {", struct.pack("<Q", 0) + b"{}"),
            ("is an HDF5 file", b"\x89HDF\r\n\x1a\n" + bytes(100)),
            ("zip archive", b"PK\x03\x04" + bytes(100)),
        ):
            with self.subTest(wanted=wanted):
                write_bytes(path, data)
                self.refuse(3, wanted, f"--import.source={path}")

    def test_json(self):
        deep = b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"
        for wanted, header in (
            ("does not begin with {", b"[1, 2, 3]"),
            ("no JSON object: it breaks off at byte", b'{"a": {"dtype": "F32", '),
            ("no JSON object: it breaks off at byte", b"{} {}   "),
            ("no JSON object: it breaks off at byte", deep),
            ("zero bytes", b'{"a\\u0000b": 1}'),
            ("zero bytes", b'{"a": 1}\0\0'),
            ("control characters", b'{"a\\nb": 1}'),
            ("not in UTF-8", b'{"a\xff": 1}'),
            ("is not described by an object", b'{"a": 1}'),
            ("lacks dtype, shape or data_offsets", b'{"a": {"dtype": "F32", "shape": [1]}}'),
            ("tells the same thing twice", b'{"a": {"dtype": "F32", "dtype": "F32"}}'),
        ):
            with self.subTest(header=header[:40]):
                self.refuse_file(wanted, header)

    def test_lies(self):
        two = {"a": entry(), "b": entry(offsets=(24, 48))}
        for wanted, header, size in (
            ("lies at bytes 0 to 24 of 20: the file is cut short", {"a": entry()}, 20),
            ("its end is before its begin", {"a": entry(offsets=(24, 0))}, 24),
            ("lies at bytes 0 to 9007199254740992 of 24", {"a": entry(offsets=(0, 2**53))}, 24),
            ("not two whole numbers", {"a": entry(offsets=(0, 2**60))}, 24),
            ("not two whole numbers", {"a": entry(offsets=(-24, 0))}, 24),
            ("not two whole numbers", {"a": entry(offsets=(0, 23.5))}, 24),
            ("not two whole numbers", {"a": entry(offsets=(0, 1, 24))}, 24),
            ("not two whole numbers", {"a": {**entry(), "data_offsets": "0, 24"}}, 24),
            ("24 bytes, and its data_offsets span 20", {"a": entry(offsets=(0, 20))}, 20),
            ("they overlap", {**two, "b": entry(offsets=(20, 44))}, 44),
            ("they overlap", {**two, "b": entry()}, 24),
            ("bytes between belong to no tensor", {**two, "b": entry(offsets=(28, 52))}, 52),
            ("bytes between belong to no tensor", {"a": entry(offsets=(4, 28))}, 28),
            ("has 6 bytes behind its last tensor", two, 54),
            ("larger than a file can be", {"a": entry(shape=(2**52, 2**52), offsets=(0, 0))}, 0),
            ("not of whole numbers from 0", {"a": entry(shape=(-2, -3))}, 24),
            ("not of whole numbers from 0", {"a": entry(shape=(2.5, 3))}, 24),
            ("not of whole numbers from 0", {"a": entry(shape=("2", 3))}, 24),
            ("a shape that is no list", {"a": {**entry(), "shape": 6}}, 24),
            ("more than 8 axes", {"a": entry(shape=(1,) * 9)}, 4),
            ("has the dtype 'F31', which is not one", {"a": entry("F31")}, 24),
            ("has a dtype that is no text", {"a": entry(32)}, 24),
            ("does not fill whole bytes", {"a": entry("F4", (3,), (0, 1))}, 1),
            ("more than 512 bytes", {"a" * 600: entry()}, 24),
            ("is not described by an object", {"__metadata__": "pt", "a": entry()}, 24),
        ):
            with self.subTest(wanted=wanted, header=str(header)[:80]):
                self.refuse_file(wanted, header, bytes(size))
        one = json.dumps(entry())
        self.refuse_file(
            "two tensors called 'a'",
            b'{"a":%s,"a":%s}' % (one.encode(), json.dumps(entry(offsets=(24, 48))).encode()),
            bytes(48),
        )

    def test_on_many_ranks(self):
        self.refuse_file("they overlap", {"a": entry(), "b": entry(offsets=(20, 44))}, bytes(44), ranks=3)
        self.refuse_npy(
            "it is cut short", npy_bytes("{'descr':'<f4','fortran_order':True,'shape':(4, 4)}", bytes(60)), ranks=4
        )

    def test_info(self):
        for wanted, path in (
            (
                "they overlap",
                write_raw(self.path("bad.safetensors"), {"a": entry(), "b": entry(offsets=(20, 44))}, bytes(44)),
            ),
            ("does not begin with \\x93NUMPY", write_bytes(self.path("bad.npy"), b"1, 2\n")),
        ):
            result = start("info", 1, path)
            self.assertEqual(result.returncode, 3, result.stderr)
            self.assertIn(wanted, error_lines(result)[0])

    def test_cut_short(self):
        """A valid file that lost its end, at every place where the end may be."""
        header, data = safetensors({"a": (np.zeros((3, 5)), "F32"), "b": (np.zeros(4), "F16")})
        whole = struct.pack("<Q", len(json.dumps(header))) + json.dumps(header).encode() + data
        path = self.path("cut.safetensors")
        for size in (1, 7, 8, 9, len(whole) - len(data) - 1, len(whole) - len(data), len(whole) - 9, len(whole) - 1):
            write_bytes(path, whole[:size])
            self.refuse(3, "cut.safetensors", f"--import.source={path}")

    # ---- .npy ----------------------------------------------------------------------------------------

    def test_npy(self):
        good = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }"
        for wanted, data in (
            ("is empty", b""),
            ("does not begin with \\x93NUMPY", b"1, 2, 3\n"),
            ("not even a .npy's header", b"\x93NUMPY\1\0"),
            ("version 4.0; 1 to 3 are read", npy_bytes(good, bytes(48), 4)),
            ("header should have 60 bytes, and 30 follow", npy_bytes(good, b"")[:40]),
            ("says that it holds <f4 [3, 4], 48 bytes, and has 47", npy_bytes(good, bytes(47))),
            ("48 bytes, and has 52", npy_bytes(good, bytes(52))),
            ("larger than a file can be", npy_bytes(good.replace("3, 4", f"{2**60}, {2**40}"), bytes(48))),
            ("a whole number of at most 63 bits", npy_bytes(good.replace("3", str(2**63)), bytes(48))),
            ("a whole number", npy_bytes(good.replace("3", "-3"), bytes(48))),
            ("(n,) for one axis", npy_bytes(good.replace("3, 4", "12"), bytes(48))),
            ("at most 8 axes", npy_bytes(good.replace("3, 4", "1, 1, 1, 1, 1, 1, 1, 3, 4"), bytes(48))),
            ("holds numbers of type '<c8'", npy_bytes(good.replace("<f4", "<c8"), bytes(96))),
            ("holds numbers of type '|O'", npy_bytes(good.replace("<f4", "|O"), bytes(96))),
            ("holds numbers of type '=f4'", npy_bytes(good.replace("<f4", "=f4"), bytes(48))),
            ("records are not read", npy_bytes(good.replace("'<f4'", "[('a', '<f4')]"), bytes(48))),
            ("True or False", npy_bytes(good.replace("False", "0"), bytes(48))),
            ("one of the keys", npy_bytes(good.replace("shape", "size"), bytes(48))),
            ("each key once", npy_bytes(good.replace("}", "'shape': (3, 4)}"), bytes(48))),
            ("a dictionary with descr", npy_bytes("{'descr': '<f4', 'shape': (3, 4)}", bytes(48))),
            ("{ is expected", npy_bytes("('descr', '<f4')", bytes(48))),
            ("the end of the header", npy_bytes(good + " {}", bytes(48))),
            ("is expected", npy_bytes(good[:30], bytes(48))),
            ("is expected", npy_bytes(good.replace(",", "\0"), bytes(48))),
            ("has 70001 bytes; at most 65536", npy_bytes(good + " " * (70000 - len(good)), bytes(48), 2)),
            ("datasets have 1 to 4 axes", npy_bytes(good.replace("3, 4", ""), bytes(4))),
            ("datasets have 1 to 4 axes", npy_bytes(good.replace("3, 4", "1, 1, 3, 2, 2"), bytes(48))),
            ("at least one number", npy_bytes(good.replace("3, 4", "3, 0"), b"")),
        ):
            with self.subTest(wanted=wanted):
                self.refuse_npy(wanted, data)

    # ---- what is asked for ---------------------------------------------------------------------------

    def test_files(self):
        good = write_safetensors(self.path("a.safetensors"), layer())
        array = self.path("x.npy")
        np.save(array, np.zeros((3, 4)))
        self.refuse(6, "it is a folder", f"--import.source={self.folder}")
        self.refuse(6, "No such file", "--import.source=/nowhere/a.safetensors")
        self.refuse(3, "import.source wants safetensors", f"--import.source={array}")
        self.refuse(3, "import.arrays wants NAME=FILE.npy", f"--import.arrays=x={good}")
        self.refuse(3, "name files of one model", f"--import.source={good},{good}")
        self.refuse(
            2, "is an input", f"--import.source={good}", f"--output.file={good}", "--output.overwrite=yes", output=False
        )
        self.refuse(2, "output.file", f"--import.source={good}", output=False)
        self.refuse(2, "import.source", output=True)
        with open(self.path("out.h5"), "wb"):
            pass
        self.refuse(6, "exists already", f"--import.source={good}")

    def test_names(self):
        source = write_safetensors(
            self.path("a.safetensors"), layer() | layer("l.1.self_attn.") | layer("x.l.1.self_attn.")
        )
        name = f"--import.source={source}"
        self.refuse(
            2,
            ["3 attention layers are there: 'l.0.self_attn' (llama), 'l.1.self_attn' (llama)", "import.layer or"],
            name,
        )
        self.refuse(2, "2 attention layers are there", name, "--import.layer=1")
        self.refuse(3, ["has 3 attention layers", "none has import.layer = 2"], name, "--import.layer=2")
        self.refuse(
            3,
            ["'l.2.self_attn.q_proj.weight' (llama)", "nearest is 'l.0.self_attn.q_proj.weight'"],
            name,
            "--import.prefix=l.2.self_attn",
            "--import.names=llama",
        )
        self.refuse(3, ["none of 'PREFIX.c_attn.weight' (gpt2)", "nearest is"], name, "--import.names=gpt2")
        self.refuse(
            3, "is no tensor 'l.0.self_attn.q'", name, "--import.names=none", "--import.tensors=l.0.self_attn.q=/q"
        )
        self.refuse(2, "nothing is to be imported", name, "--import.names=none")
        self.refuse(2, "bad value 'bart'", name, "--import.names=bart")
        for pair in ("l.0.self_attn.q_proj.weight", "=/q", "l.0.self_attn.q_proj.weight="):
            self.refuse(2, "not of the form NAME=/path", name, "--import.names=none", f"--import.tensors={pair}")
        for path in ("/", "/a//b", "/a/", "/..", "/a/./b", "/a b", "/a:b"):
            self.refuse(
                2,
                "is no path of a dataset",
                name,
                "--import.names=none",
                f"--import.tensors=l.0.self_attn.q_proj.weight={path}",
            )
        for path in ("/q,{0}=/q", "/q,{0}=/q/k", "/q/k,{0}=/q"):
            pair = ("l.0.self_attn.q_proj.weight=" + path).format("l.0.self_attn.k_proj.weight")
            self.refuse(2, "cannot be written beside", name, "--import.names=none", f"--import.tensors={pair}")

    def test_missing(self):
        for missing, nearest in (("k_proj.weight", "q_proj.weight"), ("o_proj.weight", "v_proj.weight")):
            made = layer(**{missing.replace(".", "__"): None})
            source = write_safetensors(self.path("a.safetensors"), made)
            self.refuse(
                3,
                [f"has no tensor 'l.0.self_attn.{missing}", "by the names of llama", "the nearest is"],
                f"--import.source={source}",
            )
        made = layer() | {"l.0.self_attn.q_norm.weight": (np.zeros(4), "F32")}
        self.refuse(
            3,
            "one of q_norm.weight and k_norm.weight",
            "--import.source=" + write_safetensors(self.path("a.safetensors"), made),
        )
        made = layer() | {"l.0.self_attn.sinks": (np.zeros(4), "F32")}
        self.refuse(
            3,
            "changes what the layer computes",
            "--import.source=" + write_safetensors(self.path("a.safetensors"), made),
        )

    def test_shapes(self):
        fit = "do not fit each other"
        for shapes, options, wanted in (
            (dict(k_proj__weight=(D, D + 1)), [], [fit, "k_proj.weight' [12, 13] F32", "d_model"]),
            (dict(v_proj__weight=(D - 1, D)), [], [fit, "those of k and v must be alike"]),
            (dict(o_proj__weight=(D, D + 2)), [], [fit, "as many numbers as q has"]),
            (dict(o_proj__weight=(D + 2, D)), [], [fit, "gives as many numbers"]),
            (dict(k_proj__weight=(8, D), v_proj__weight=(8, D)), [], [fit, "must be a multiple"]),
            (dict(q_proj__weight=(D, D, 1)), [], ["must have two axes"]),
            (dict(q_proj__bias=(D, 1)), [], ["must have one axis"]),
            (dict(q_proj__bias=(D + 1,)), [], [fit, "a number for each output"]),
            (dict(q_norm__weight=(5,), k_norm__weight=(5,)), [], [fit, "head_dim"]),
            (dict(q_norm__weight=(3,), k_norm__weight=(4,)), [], [fit, "head_dim"]),
            (dict(q_norm__weight=(4,), k_norm__weight=(4,)), ["--import.heads=4"], [fit, "head_dim"]),
            (dict(q_proj__weight=(D, 0)), [], ["has no numbers"]),
            ({}, ["--import.heads=5"], ["cannot be shared by import.heads = 5"]),
            ({}, ["--import.heads=4", "--import.kv_heads=2"], ["do not make heads of one size"]),
            ({}, ["--import.kv_heads=5"], ["do not make heads of one size"]),
        ):
            with self.subTest(shapes=shapes, options=options):
                source = write_safetensors(self.path("a.safetensors"), layer(**shapes))
                self.refuse(3, wanted, f"--import.source={source}", *options)
        fused = {"a.in_proj_weight": (np.zeros((3 * D + 1, D)), "F32"), "a.out_proj.weight": (np.zeros((D, D)), "F32")}
        source = write_safetensors(self.path("a.safetensors"), fused)
        self.refuse(3, [fit, "the first makes q, k and v"], f"--import.source={source}", ranks=2)
        for dtype, array in (("U8", np.zeros((D, D))), ("I64", np.zeros((D, D)))):
            made = layer() | {"l.0.self_attn.q_proj.weight": (array, dtype)}
            source = write_safetensors(self.path("a.safetensors"), made)
            self.refuse(3, "of a type that is not read", f"--import.source={source}")


if __name__ == "__main__":
    unittest.main()
