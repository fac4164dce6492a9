#!/usr/bin/env python3
"""Four hosts of this machine over TCP: every gather mode gives the bits of one rank; the slow link shows where it should.

SPDX-License-Identifier: BSD-3-Clause
"""

import json
import os
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
import common  # noqa: E402 (tests/e2e/common.py)

HOSTS = os.path.join(HERE, "hosts.sh")
NAME = f"ls{os.getpid() % 10000}"


class Network(common.Case):
    @classmethod
    def setUpClass(cls):
        if subprocess.run(["unshare", "--net", "--uts", "--mount", "true"], check=False).returncode:
            raise unittest.SkipTest("this machine allows no namespaces, of which the hosts are made")
        cls.addClassCleanup(subprocess.run, [HOSTS, "down", NAME, "4"], check=False)
        subprocess.run([HOSTS, "up", NAME, "4", "1gbit"], check=True)

    def attend_over(self, source, count, **keys):
        output, report = self.fresh("out.h5"), self.fresh("report.json")
        options = {"input.file": source, "output.file": output, "report.json": report, "compute.threads": 1,
                   **{key.replace("__", "."): value for key, value in keys.items()}}
        result = common.execute([HOSTS, "run", NAME, str(count), "--", common.BIN, "attend",
                                 *(f"--{key}={value}" for key, value in options.items())])
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        with open(report, encoding="utf-8") as file:
            return common.read_output(output), json.load(file)

    def test_modes(self):
        source = self.path("in.h5")
        common.write_input(source, *common.operands((2, 1501, 64), (2, 3001, 64), 48))
        expected, _ = self.attend(source)
        for count in (2, 4):
            for mode in ("all", "panels", "chain", "node"):
                got, report = self.attend_over(source, count, compute__gather=mode, compute__panel_rows=256, compute__head_groups=1)
                self.assertEqual(report["nodes"], count)
                for name in ("out", "lse"):
                    self.assertEqual(got[name][1], expected[name][1], f"{mode} on {count} hosts")

    def test_causal_and_window(self):
        source = self.path("in.h5")
        common.write_input(source, *common.operands((2001, 64), (2001, 64)))
        for keys in ({"attention__mask": "causal"}, {"attention__mask": "window", "attention__window_left": 100}):
            expected, _ = self.attend(source, **keys)
            got, report = self.attend_over(source, 4, compute__gather="panels", **keys)
            self.assertEqual(got["out"][1], expected["out"][1])
            self.assertGreater(report["bytes"]["gathered"], 0)

    def test_slow_link(self):
        """An allgather of 1.5 MB at 10 Mb/s is seen: K and V of the other host need a second."""
        source = self.path("in.h5")
        common.write_input(source, *common.operands((64, 64), (6000, 64)))
        subprocess.run([HOSTS, "rate", NAME, "4", "10mbit"], check=True)
        self.addCleanup(subprocess.run, [HOSTS, "rate", NAME, "4", "1gbit"], check=True)
        _, report = self.attend_over(source, 2, compute__gather="all")
        alone = report["bytes"]["gathered"] / 2 * 8 / 10e6
        self.assertGreater(report["seconds"]["gather_exposed"], 0.7 * alone)


if __name__ == "__main__":
    unittest.main()
