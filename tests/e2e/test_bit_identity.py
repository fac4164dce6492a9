#!/usr/bin/env python3
"""The bits of /out and /lse depend on the input, the rules and the instruction set alone.

Every configuration (ranks, threads, gather mode, head groups, partition, panel height) of a case must
give the checksums of the plainest one: 1 rank, 1 thread. Checksums are the sums of row hashes, so one
changed bit anywhere shows.

SPDX-License-Identifier: BSD-3-Clause
"""

import unittest

import numpy as np
from common import Case, isas, operands, oracle, read_output, text, write_input

# ranks, threads, keys of [compute]
CONFIGURATIONS = [
    (2, 1, dict(gather="panels", partition="contiguous")),
    (3, 2, dict(gather="all", partition="cyclic")),
    (4, 1, dict(gather="node", partition="balanced", panel_rows=1)),
    (7, 1, dict(gather="chain", partition="cyclic", panel_rows=600)),
    (1, 2, dict(gather="panels", panel_rows=1)),
]
# The same again with everything crossed, for one case.
CROSSED = [
    (ranks, threads, dict(gather=gather, partition=partition, head_groups=1))
    for ranks, threads in ((2, 1), (3, 1), (4, 2), (7, 1))
    for gather, partition in (("panels", "balanced"), ("all", "contiguous"), ("node", "cyclic"), ("chain", "balanced"))
]


class BitIdentity(Case):
    def sums(self, source, isa, ranks, threads, compute, keys):
        configuration = {f"compute__{key}": value for key, value in compute.items()}
        result, report = self.attend(source, ranks, compute__isa=isa, compute__threads=threads, **configuration, **keys)
        got = tuple(text(result[name][1]) for name in ("out", "lse"))
        self.assertEqual(report["output_xxh64"], got[0])
        self.assertEqual(report["isa"], isa)
        return got

    def same_everywhere(self, source, configurations, **keys):
        """{isa: checksums}, the same for each configuration."""
        result = {}
        for isa in isas():
            result[isa] = self.sums(source, isa, 1, 1, {}, keys)
            for ranks, threads, compute in configurations:
                with self.subTest(isa=isa, ranks=ranks, threads=threads, **compute, **keys):
                    self.assertEqual(self.sums(source, isa, ranks, threads, compute, keys), result[isa])
        if {"avx2", "avx512"} <= set(result):
            self.assertEqual(result["avx2"], result["avx512"], "AVX2 and AVX-512 agree bit for bit")
        return result

    def test_square(self):
        source = self.path("in.h5")
        write_input(source, *operands((1030, 64), (1030, 64), seed=1, reach=9))
        self.same_everywhere(source, CONFIGURATIONS)

    def test_crossed(self):
        source = self.path("in.h5")
        write_input(source, *operands((2, 301, 48), (2, 1537, 48), 40, seed=2, reach=9))
        best = isas()[-1]
        plain = self.sums(source, best, 1, 1, {}, {})
        for ranks, threads, compute in CROSSED:
            with self.subTest(ranks=ranks, threads=threads, **compute):
                self.assertEqual(self.sums(source, best, ranks, threads, compute, {}), plain)

    def test_causal_grouped_f16(self):
        source = self.path("in.h5")
        write_input(source, *operands((6, 331, 33), (2, 700, 33), 17, seed=3, reach=14), "f16")
        head_groups = [
            (2, 1, dict(head_groups=2)),
            (3, 1, dict(head_groups=3, gather="all")),
            (6, 1, dict(head_groups=6)),
            (4, 1, dict(head_groups=2, gather="chain")),
        ]
        self.same_everywhere(
            source,
            CONFIGURATIONS[1:4] + head_groups,
            attention__mask="causal",
            attention__alibi="yes",
            attention__softcap=20,
        )

    def test_window_double(self):
        source = self.path("in.h5")
        write_input(source, *operands((777, 20), (1200, 20), 130, seed=4, reach=9), "f64")
        self.same_everywhere(
            source,
            CONFIGURATIONS[:4],
            attention__mask="window",
            attention__window_left=150,
            attention__window_right=60,
            compute__dtype="f64",
        )

    def test_bf16_computing(self):
        source = self.path("in.h5")
        write_input(source, *operands((4, 331, 40), (2, 1100, 40), 33, seed=10, reach=9), "bf16")
        configurations = CONFIGURATIONS[1:3] + [(4, 1, dict(head_groups=2, gather="chain"))]
        self.same_everywhere(source, configurations, attention__mask="causal", compute__dtype="bf16")

    def test_documents_and_lengths(self):
        source = self.path("in.h5")
        write_input(
            source,
            *operands((3, 2, 190, 16), (3, 1, 190, 16), seed=5, reach=9),
            documents=[0, 3, 100, 100, 190],
            key_lengths=[190, 99, 0],
        )
        self.same_everywhere(
            source,
            CONFIGURATIONS[:4],
            input__documents="/documents",
            input__key_lengths="/key_lengths",
            attention__mask="causal",
        )

    def test_few_rows_many_keys(self):
        source = self.path("in.h5")
        write_input(source, *operands((2, 128), (9001, 128), seed=6, reach=9))
        self.same_everywhere(source, CONFIGURATIONS[:4])

    def test_values_that_do_not_fit(self):
        """Overflowing and non-finite values, which rows that see them pass on the same way everywhere."""
        q, k, v = operands((150, 24), (1100, 24), seed=7, reach=9)
        v[1000, 3], v[700, 5], k[900, 0] = np.inf, np.nan, 3e38
        source = self.path("in.h5")
        write_input(source, q, k, v)
        self.same_everywhere(
            source,
            CONFIGURATIONS[1:4],
            attention__mask="window",
            attention__window_left=40,
            attention__window_right=0,
            attention__causal_align="bottom-right",
            compute__nonfinite="propagate",
        )

    def test_checksum_is_that_of_the_data(self):
        """The stored checksum, recomputed independently."""
        source, output = self.path("in.h5"), self.path("out.h5")
        write_input(source, *operands((2, 3, 65, 16), (2, 3, 80, 16), 9, seed=8))
        self.run_ok("attend", 3, {"input.file": source, "output.file": output})
        result = read_output(output)
        self.assertEqual(int(text(result["out"][1]), 16), oracle.checksum(result["out"][0]))
        self.assertEqual(int(text(result["lse"][1]), 16), oracle.checksum(result["lse"][0], scalars=True))


if __name__ == "__main__":
    unittest.main()
