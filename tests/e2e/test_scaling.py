#!/usr/bin/env python3
"""longspan scaling: figures against a reckoning of our own, real reports, bad input.

SPDX-License-Identifier: BSD-3-Clause
"""

import csv
import json
import os
import shutil
import statistics
import unittest

from common import Case, error_lines, operands, run, write_input


def made_report(nodes, ranks, threads, n, compute, exposed, io, rest, **more):
    return {
        "schema": 1, "command": "attend", "version": "0", "ranks": ranks, "threads": threads, "nodes": nodes,
        "shape": {"batch": 1, "heads": 1, "kv_heads": 1, "n": n, "m": n, "d_k": 64, "d_v": 64},
        "method": "exact", "dtype": "f32", "rule": "no mask", "gather": "panels", "flops": 256.0 * n * n,
        "seconds": {"read": io * 0.75, "compute": compute, "gather_exposed": exposed, "write": io * 0.25,
                    "total": compute + exposed + io + rest},
    } | more


class Scaling(Case):
    def folder_of(self, reports):
        folder = self.fresh("study")
        os.mkdir(folder)
        for i, report in enumerate(reports):
            with open(os.path.join(folder, f"{i}.json"), "w", encoding="utf-8") as file:
                json.dump(report, file)
        return folder

    def study(self, folder, **keys):
        report, table = self.fresh("scaling.json"), self.fresh("table.csv")
        result = run("scaling", 1, f"--scaling.folder={folder}", f"--scaling.csv={table}", f"--report.json={report}",
                     *(f"--{key.replace('__', '.')}={value}" for key, value in keys.items()))
        self.assertEqual(result.returncode, 0, result.stderr)
        with open(report, encoding="utf-8") as file:
            told = json.load(file)
        with open(table, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual(len(rows), len(told["points"]))
        return told, rows, result.stdout

    def test_strong(self):
        """Medians of three and of four runs, speed-up, efficiency; curves by label; threads against ranks."""
        runs = {(1, 1, 1): [10.0, 10.4, 10.1], (1, 2, 1): [5.2, 5.9, 5.1, 5.4], (1, 1, 2): [5.6], (2, 4, 1): [2.9, 3.0]}
        reports = [made_report(*size, 1000, t * 0.8, t * 0.05, t * 0.1, t * 0.05) for size, times in runs.items() for t in times]
        other = [made_report(1, r, 1, 1000, 6.0 / r, 0, 0.5, 0, gather="chain") for r in (1, 2)]
        told, rows, text = self.study(self.folder_of(reports + other))
        self.assertEqual(told["kind"], "strong")
        points = {(p["nodes"], p["ranks"], p["threads"]): p for p in told["points"] if "panels" in p["label"]}
        self.assertEqual(set(points), set(runs))
        for size, times in runs.items():
            point, middle = points[size], statistics.median(times)
            self.assertAlmostEqual(point["seconds"]["total"], middle)
            self.assertAlmostEqual(point["seconds"]["io"], middle * 0.1)
            self.assertAlmostEqual(point["speedup"], 10.1 / middle)
            self.assertAlmostEqual(point["efficiency"], 10.1 / middle / (size[1] * size[2]))
            self.assertEqual(point["runs"], len(times))
            self.assertEqual(point["seconds"]["total_most"], max(point["seconds"]["total_most"], point["seconds"]["total"]))
        chain = [p for p in told["points"] if "chain" in p["label"]]
        self.assertAlmostEqual(chain[1]["speedup"], 6.5 / 3.5)
        self.assertAlmostEqual(chain[1]["work_efficiency"], 1.0)
        for row, point in zip(rows, told["points"]):
            self.assertEqual(row["label"], point["label"])
            self.assertAlmostEqual(float(row["speedup"]), point["speedup"], 6)
            self.assertEqual(int(row["cores"]), point["ranks"] * point["threads"])
        self.assertIn("a strong study, 12 runs", text)

    def test_weak(self):
        """Twice the rows on four times the cores, in the same time, is ideal."""
        reports = [made_report(1, 1, 1, 1000, 2, 0, 0, 0), made_report(1, 4, 1, 2000, 2, 0, 0, 0),
                   made_report(4, 16, 1, 4000, 3, 1, 0, 0)]
        told, _, _ = self.study(self.folder_of(reports))
        self.assertEqual(told["kind"], "weak")
        self.assertAlmostEqual(told["points"][1]["speedup"], 4)
        self.assertAlmostEqual(told["points"][1]["efficiency"], 1)
        self.assertAlmostEqual(told["points"][2]["efficiency"], 0.5)
        result = run("scaling", 1, f"--scaling.folder={self.folder_of(reports)}", "--scaling.kind=strong")
        self.assertEqual(result.returncode, 3)
        self.assertIn("no strong study", error_lines(result)[0])

    def test_real_reports(self):
        """Of attend on 1 and 2 ranks; the picture in both forms; the study's own report in the folder is passed over."""
        folder = self.folder_of([])
        source = self.path("in.h5")
        write_input(source, *operands((500, 32), (600, 32)))
        for ranks in (1, 2):
            self.run_ok("attend", ranks, {"input.file": source, "output.file": self.fresh("out.h5"),
                                          "report.json": os.path.join(folder, f"{ranks}.json")})
        picture = self.path("study.png") if shutil.which("gnuplot") else ""
        keys = {"report__plot": picture} if picture else {}
        for _ in range(2):
            result = run("scaling", 2, f"--scaling.folder={folder}", f"--report.json={folder}/scaling.json",
                         *(f"--{key.replace('__', '.')}={value}" for key, value in keys.items()))
            self.assertEqual(result.returncode, 0, result.stderr)
        with open(os.path.join(folder, "scaling.json"), encoding="utf-8") as file:
            self.assertEqual([p["ranks"] for p in json.load(file)["points"]], [1, 2])
        if picture:
            with open(picture, "rb") as file:
                self.assertEqual(file.read(8), b"\x89PNG\r\n\x1a\n")
            with open(self.path("study.svg"), encoding="utf-8") as file:
                self.assertIn("<svg", file.read(500))

    def test_bad(self):
        good = made_report(1, 1, 1, 10, 1, 0, 0, 0)
        lacking = {key: value for key, value in good.items() if key != "flops"}
        broken = self.folder_of([])
        with open(os.path.join(broken, "a.json"), "w", encoding="utf-8") as file:
            file.write('{"ranks": 1,')
        for options, code, words in (
            ([], 2, "needs reports"),
            ([f"--scaling.folder={self.path('none')}"], 6, "cannot be read"),
            ([f"--scaling.folder={self.folder_of([])}"], 3, "no report"),
            ([f"--scaling.folder={broken}"], 3, "not JSON"),
            ([f"--scaling.folder={self.folder_of([good, lacking])}"], 3, "1.json is no report of a run"),
            ([f"--scaling.folder={self.folder_of([{**good, 'ranks': 0}])}"], 3, "no report of a run"),
            ([f"--scaling.reports={self.path('x.json')}"], 6, "cannot be opened"),
            ([f"--scaling.folder={self.folder_of([good])}", f"--scaling.csv={self.path('no/such.csv')}"], 6, "cannot be written"),
            (["--scaling.kind=both"], 2, "auto, strong, weak"),
        ):
            result = run("scaling", 2, *options)
            self.assertEqual(result.returncode, code, f"{options}\n{result.stderr}")
            self.assertEqual(len(error_lines(result)), 1, result.stderr)
            self.assertIn(words, error_lines(result)[0])


if __name__ == "__main__":
    unittest.main()
