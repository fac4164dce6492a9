#!/usr/bin/env python3
"""Bad input: one clear error from one rank, the right exit code, no hang, no output left.

SPDX-License-Identifier: BSD-3-Clause
"""

import os
import shutil
import subprocess
import unittest

import h5py
import numpy as np
from common import (
    BIN,
    Case,
    each_rank,
    environment,
    error_lines,
    execute,
    launch,
    launcher,
    operands,
    oracle,
    read_output,
    run,
    write_dataset,
    write_input,
)

USAGE, CONTENT, FILE = 2, 3, 6
TIMEOUT = 60


class BadInput(Case):
    def setUp(self):
        super().setUp()
        self.q, self.k, self.v = operands((2, 60, 8), (2, 90, 8), seed=1)
        self.source = self.path("in.h5")
        write_input(self.source, self.q, self.k, self.v)
        self.output = self.path("out.h5")

    def keys(self, **changes):
        keys = {"input.file": self.source, "output.file": self.output, "compute.threads": 1}
        keys.update({key.replace("__", "."): value for key, value in changes.items()})
        return {key: value for key, value in keys.items() if value is not None}

    def check(self, result, code, words, before):
        told = f"{result.args}\n{result.stdout}\n{result.stderr}"
        self.assertEqual(result.returncode, code, told)
        lines = error_lines(result)
        self.assertEqual(len(lines), 1, told)
        for word in words:
            self.assertIn(word, lines[0])
        self.assertNotIn("HDF5-DIAG", result.stderr)
        self.assertNotIn("PASSED", result.stdout)
        self.assertEqual(sorted(os.listdir(self.folder)), before, "no output or temporary file is left")

    def refused(self, code, *words, command="attend", **changes):
        deck = self.deck(self.keys(**changes))
        before = sorted(os.listdir(self.folder))
        for ranks in (1, 3):
            with self.subTest(ranks=ranks, **changes):
                self.check(run(command, ranks, deck, timeout=TIMEOUT), code, words, before)

    def rewritten(self, **datasets):
        """in.h5 with other datasets; None removes one."""
        operands_ = {"q": self.q, "k": self.k, "v": self.v, **datasets}
        with h5py.File(self.source, "w") as file:
            for name, x in operands_.items():
                if x is not None:
                    file.create_dataset(name, data=x.astype("<f4") if x.dtype == np.float64 else x)

    # ---- files ----------------------------------------------------------------------------------------

    def test_missing_file(self):
        self.refused(FILE, "absent.h5", input__file=self.path("absent.h5"))

    def test_folder_for_file(self):
        self.refused(FILE, self.folder, input__file=self.folder)

    def test_missing_dataset(self):
        """Those that are there are named."""
        self.refused(CONTENT, "/keys", "/k", "/v", input__k="/keys")

    def test_group_for_dataset(self):
        with h5py.File(self.source, "r+") as file:
            file.create_group("group")
        self.refused(CONTENT, "/group", input__v="/group")

    def test_not_hdf5(self):
        with open(self.source, "wb") as file:
            file.write(b"not HDF5 at all\n" * 1000)
        self.refused(CONTENT, "in.h5", "HDF5")

    def test_empty_file(self):
        open(self.source, "wb").close()
        self.refused(CONTENT, "in.h5")

    def test_truncated(self):
        """At several places: in the data, in the header."""
        size = os.path.getsize(self.source)
        for keep in (size - 1, size // 2, 700, 100):
            write_input(self.source, self.q, self.k, self.v)
            os.truncate(self.source, keep)
            with self.subTest(keep=keep):
                self.refused(CONTENT, "in.h5")

    def test_damaged_chunk(self):
        """Only the rank that owns the last rows meets it; all stop with its message."""
        with h5py.File(self.source, "w") as file:
            for name, x in (("q", self.q), ("v", self.v)):
                write_dataset(file, name, x)
            dataset = write_dataset(file, "k", self.k, chunks=(1, 10, 8), compression="gzip")
            chunk = dataset.id.get_chunk_info_by_coord((1, 80, 0))
        with open(self.source, "r+b") as file:
            file.seek(chunk.byte_offset)
            file.write(b"\xff" * chunk.size)
        self.refused(CONTENT, "/k", "in.h5")

    def test_rank_alone_cannot_open(self):
        """Rank 1 is started in a folder where the relative path leads nowhere."""
        elsewhere = os.path.join(self.folder, "elsewhere")
        os.mkdir(elsewhere)
        deck = self.deck(self.keys(input__file="in.h5"))
        before = sorted(os.listdir(self.folder))
        command = each_rank("attend", deck)
        result = launch(
            [*launcher(1), "-wdir", self.folder, *command, ":", "-n", "2", "-wdir", elsewhere, *command],
            3,
            timeout=TIMEOUT,
        )
        self.check(result, FILE, ["in.h5", "rank 1"], before)

    def test_rank_alone_reads_damaged_data(self):
        """Rank 1 has a damaged copy; rank 0's is whole."""
        with h5py.File(self.source, "w") as file:
            for name, x in (("q", self.q), ("k", self.k), ("v", self.v)):
                dataset = write_dataset(file, name, x, chunks=(1, 10, 8), compression="gzip")
            places = [dataset.id.get_chunk_info(i) for i in range(dataset.id.get_num_chunks())]
        elsewhere = os.path.join(self.folder, "elsewhere")
        os.mkdir(elsewhere)
        shutil.copy(self.source, elsewhere)
        with open(os.path.join(elsewhere, "in.h5"), "r+b") as file:
            for chunk in places:
                file.seek(chunk.byte_offset)
                file.write(b"\xff" * chunk.size)
        deck = self.deck(self.keys(input__file="in.h5"))
        before = sorted(os.listdir(self.folder))
        command = each_rank("attend", deck)
        result = launch(
            [*launcher(1), "-wdir", self.folder, *command, ":", "-n", "1", "-wdir", elsewhere, *command],
            2,
            timeout=TIMEOUT,
        )
        self.check(result, CONTENT, ["/v", "rank 1"], before)

    # ---- shapes, types, values ------------------------------------------------------------------------

    def test_shapes(self):
        for what, datasets, words in [
            ("one axis", dict(q=np.zeros(8)), ["/q"]),
            ("five axes", dict(k=np.zeros((1, 1, 2, 90, 8))), ["/k"]),
            ("d_k differs", dict(k=np.zeros((2, 90, 9))), ["8", "9"]),
            ("m differs", dict(v=np.zeros((2, 91, 8))), ["90", "91"]),
            ("heads", dict(k=np.zeros((3, 90, 8)), v=np.zeros((3, 90, 8))), ["2", "3"]),
            ("heads of k and v", dict(v=np.zeros((1, 90, 8))), []),
            (
                "batch",
                dict(q=np.zeros((3, 2, 60, 8)), k=np.zeros((2, 2, 90, 8)), v=np.zeros((2, 2, 90, 8))),
                ["3", "2"],
            ),
        ]:
            with self.subTest(what):
                self.rewritten(**datasets)
                self.refused(CONTENT, *words)

    def test_zero_axes(self):
        for datasets, word in (
            (dict(q=np.zeros((2, 0, 8))), "/q"),
            (dict(k=np.zeros((2, 0, 8)), v=np.zeros((2, 0, 8))), "/k"),
            (dict(q=np.zeros((2, 60, 0)), k=np.zeros((2, 90, 0))), "/q"),
            (dict(v=np.zeros((2, 90, 0))), "/v"),
        ):
            self.rewritten(**datasets)
            self.refused(CONTENT, word)

    def test_types(self):
        for x in (
            np.zeros((2, 90, 8), "<i4"),
            np.zeros((2, 90, 8), "<u2"),
            np.zeros((2, 90, 8), "<c8"),
            np.zeros((2, 90, 8), "S4"),
        ):
            self.rewritten(k=x)
            self.refused(CONTENT, "/k", "f32")

    def test_nonfinite_is_refused(self):
        """How many, and where the first one is."""
        self.q[0, 59, 7] = np.nan
        self.q[1, 3, 2], self.q[1, 3, 4] = np.inf, -np.inf
        self.rewritten()
        self.refused(CONTENT, "/q", "3", "59", "7", "nonfinite")

    def test_nonfinite_propagates(self):
        self.q[1, 3, 2] = np.nan
        self.rewritten()
        for ranks in (1, 3):
            result, _ = self.attend(self.source, ranks, compute__nonfinite="propagate")
            out, _ = oracle.attention(self.q, self.k, self.v)
            self.assertTrue(np.isnan(result["out"][0][1, 3]).all())
            got, expected = np.delete(result["out"][0][1], 3, axis=0), np.delete(out[1], 3, axis=0)
            self.near(got, expected, 7e-7)

    def test_tables(self):
        """documents and key_lengths that do not fit; documents_k is needed when n != m."""
        write_input(self.source, self.q, self.k, self.v, table=[0, 60])
        self.refused(USAGE, "documents_k", input__documents="/table")
        for name, values in (
            ("key_lengths", [91]),
            ("key_lengths", [-1]),
            ("key_lengths", [3, 3]),
            ("documents", [0, 61]),
            ("documents", [1, 60]),
            ("documents", [0, 40, 30, 60]),
            ("documents", [60]),
        ):
            square = name == "documents"
            write_input(self.source, self.q, self.q if square else self.k, self.q if square else self.v, table=values)
            with self.subTest(name=name, values=values):
                self.refused(CONTENT, name, **{f"input__{name}": "/table"})

    # ---- decks ----------------------------------------------------------------------------------------

    def test_missing_deck(self):
        before = sorted(os.listdir(self.folder))
        for ranks in (1, 3):
            self.check(run("attend", ranks, self.path("absent.ini"), timeout=TIMEOUT), FILE, ["absent.ini"], before)

    def test_unknown_key(self):
        """File, line and the nearest key are named."""
        self.refused(USAGE, "deck.ini:", "maks", "mask", attention__maks="causal")
        self.refused(USAGE, "deck.ini:", "atention", "attention", atention__mask="causal")

    def test_unknown_option(self):
        deck = self.deck(self.keys())
        before = sorted(os.listdir(self.folder))
        for option, words in (
            ("--attention.maks=causal", ["maks", "attention.mask"]),
            ("--attention.mask=casual", ["casual", "causal"]),
            ("--nonsense", ["nonsense"]),
            ("--compute.threads=0", ["threads"]),
        ):
            self.check(run("attend", 3, deck, option, timeout=TIMEOUT), USAGE, words, before)

    def test_bad_values(self):
        for changes, words in (
            (dict(attention__mask="casual"), ["casual", "causal"]),
            (dict(attention__softcap="-1"), ["softcap"]),
            (dict(attention__scale="nan"), ["scale"]),
            (dict(attention__mask="window", attention__window_left="1.5"), ["window_left"]),
            (dict(compute__threads="many"), ["many"]),
            (dict(compute__dtype="f16"), ["f16", "f32"]),
            (dict(input__rows="9:3"), ["rows"]),
            (dict(input__heads="x"), ["heads"]),
            (dict(output__overwrite="maybe"), ["maybe"]),
            (dict(verify__rows="-1"), ["rows"]),
            (dict(compute__head_groups="2"), ["head_groups"]),
        ):
            deck = self.deck(self.keys(**changes))
            before = sorted(os.listdir(self.folder))
            with self.subTest(**changes):
                self.check(run("attend", 3, deck, timeout=TIMEOUT), USAGE, words, before)

    def test_missing_keys(self):
        self.refused(USAGE, "input.file", input__file=None)
        self.refused(USAGE, "output.file", output__file=None)
        self.refused(USAGE, "window_left", attention__mask="window")
        self.refused(USAGE, "shape.n", command="generate", input__file=None)

    def test_broken_deck(self):
        for content, words in (
            ("mask = causal\n", [":1"]),
            ("[input\nfile = x\n", ["section"]),
            ("[input]\nfile\n", [":2"]),
            ("[input]\nfile = " + "x" * 300 + "\n", [":2"]),
        ):
            deck = self.path("broken.ini")
            with open(deck, "w", encoding="ascii") as file:
                file.write(content)
            before = sorted(os.listdir(self.folder))
            with self.subTest(content=content[:40]):
                self.check(run("attend", 3, deck, timeout=TIMEOUT), USAGE, ["broken.ini", *words], before)

    def test_unknown_command(self):
        before = sorted(os.listdir(self.folder))
        self.check(run("atend", 3, timeout=TIMEOUT), USAGE, ["atend", "attend"], before)

    # ---- outputs --------------------------------------------------------------------------------------

    def test_existing_output(self):
        with open(self.output, "w", encoding="ascii") as file:
            file.write("precious")
        self.refused(FILE, "out.h5", "overwrite")
        with open(self.output, encoding="ascii") as file:
            self.assertEqual(file.read(), "precious")

    def test_output_is_input(self):
        self.refused(USAGE, "in.h5", output__file=self.source, output__overwrite="yes")
        with h5py.File(self.source) as file:
            self.assertIn("q", file)

    def test_report_is_another_file(self):
        """A report would replace input or output, or what is no file; a picture likewise."""
        self.refused(USAGE, "input.file", "--report.json", report__json=self.source)
        self.refused(USAGE, "output.file", "--report.json", report__json=os.path.join(self.folder, ".", "out.h5"))
        self.refused(FILE, "a device", "--report.json", report__json="/dev/null")
        self.refused(FILE, "a folder", "--report.json", report__json=self.folder)
        self.refused(USAGE, "output.file", "--report.plot", command="svd", attention__rank=2, report__plot=self.output)

    def test_folder_that_cannot_be_written(self):
        """/proc refuses also root."""
        self.refused(FILE, "/proc/out.h5", output__file="/proc/out.h5")
        self.refused(FILE, "absent", output__file=self.path("absent/out.h5"))
        self.refused(FILE, "in.h5", output__file=self.source + "/out.h5")

    def test_failure_leaves_old_output(self):
        """Overwriting begins only when the new file is complete."""
        write_input(self.output, self.q, self.k, self.v)
        with open(self.output, "rb") as file:
            before = file.read()
        self.refused(CONTENT, "/keys", input__k="/keys", output__overwrite="yes")
        with open(self.output, "rb") as file:
            self.assertEqual(file.read(), before)

    def test_full_disk(self):
        """A tmpfs of 1 MiB, in a mount namespace of its own, for an output of 4.2 MB."""
        write_input(self.source, *operands((8192, 8), (8, 8), 128, seed=1))
        small = os.path.join(self.folder, "small")
        os.mkdir(small)
        script = 'mount -t tmpfs -o size=1m none "$1" || exit 99; shift; "$@"; code=$?; ls -A "$0"; exit $code'
        namespace = ["unshare", "--mount"] + ([] if os.geteuid() == 0 else ["--map-root-user"])
        if subprocess.run(
            [*namespace, "sh", "-c", 'mount -t tmpfs -o size=1m none "$0"', small], capture_output=True, check=False
        ).returncode:
            self.skipTest("no mount namespace to be had here")
        for command, keys in (
            ("attend", self.keys(output__file=small + "/out.h5")),
            ("generate", {"shape.n": 8192, "shape.d_k": 64, "output.file": small + "/out.h5"}),
        ):
            deck = self.deck(keys)
            before = sorted(os.listdir(self.folder))
            for ranks in (1, 3):
                result = launch(
                    [*namespace, "sh", "-c", script, small, small, *launcher(ranks), *each_rank(command, deck)],
                    ranks,
                    timeout=TIMEOUT,
                )
                self.check(result, FILE, ["small"], before)
                self.assertNotIn(
                    "out.h5",
                    [line for line in result.stdout.splitlines() if not line.startswith("longspan")],
                    "nothing is left on the small disk",
                )

    def test_file_size_limit(self):
        """`ulimit -f` on all ranks is found before computing; on rank 1 alone, a write fails in the middle."""
        write_input(self.source, *operands((12288, 8), (8, 8), 1024, seed=1))  # an output of 50 MB
        blocks = 24 << 11  # of 512 bytes: 24 MiB, enough for what MPI maps
        deck = self.deck(self.keys())
        before = sorted(os.listdir(self.folder))
        whole = each_rank("attend", deck)
        limited = ["sh", "-c", f'ulimit -f {blocks}; exec "$@"', "sh", *whole]
        for ranks in (1, 3):
            result = launch([*launcher(ranks), *limited], ranks, timeout=TIMEOUT)
            self.check(result, FILE, ["out.h5", "ulimit -f"], before)
        result = launch([*launcher(1), *whole, ":", "-n", "1", *limited], 2, timeout=TIMEOUT)
        self.check(result, FILE, ["out.h5", "ulimit -f", "rank 1"], before)

    # ---- ranks ----------------------------------------------------------------------------------------

    def test_more_ranks_than_rows(self):
        q, k, v = operands((2, 8), (3, 8), seed=2)
        write_input(self.source, q, k, v)
        result, _ = self.attend(self.source, 7)
        self.near(result["out"][0], oracle.attention(q, k, v)[0], 7e-7)

    def test_singletons(self):
        """srun without PMIx starts tasks that do not know each other; only one speaks."""
        deck = self.deck(self.keys())
        before = sorted(os.listdir(self.folder))
        for task in ("0", "1"):
            env = dict(
                environment(),
                SLURM_JOB_ID="1",
                SLURM_STEP_ID="0",
                SLURM_NTASKS="4",
                SLURM_STEP_NUM_TASKS="4",
                SLURM_PROCID=task,
                SLURM_LOCALID=task,
            )
            result = execute([BIN, "attend", deck], env=env, timeout=TIMEOUT)
            self.assertEqual(result.returncode, USAGE, result.stderr)
            self.assertEqual(len(error_lines(result)), 1 if task == "0" else 0, result.stderr)
            if task == "0":
                self.assertIn("srun --mpi=pmix", result.stderr)
            self.assertEqual(sorted(os.listdir(self.folder)), before)
        self.assertEqual(execute([BIN, "attend", deck], timeout=TIMEOUT).returncode, 0, "alone it works without Slurm")
        self.assertEqual(list(read_output(self.output)), ["out", "lse"])


if __name__ == "__main__":
    unittest.main()
