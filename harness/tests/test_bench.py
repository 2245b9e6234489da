# SPDX-License-Identifier: GPL-2.0
"""Figures: read from a console, laid side by side, held against targets."""

import sys
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import bench                    # noqa: E402
from common import Trouble      # noqa: E402

CONSOLE = """\
[    0.1] KTAP version 1
[    0.1] 1..1
[    0.2]     # nobody: bench: bracket-none 8.0 cycles
[    0.2]     # intervals: bench: read/1 14.5 cycles
[    0.2]     ok 1 nobody
[    0.3] ok 1 mmu_notifier_bench
"""


class Bench(unittest.TestCase):
    def test_figures(self):
        self.assertEqual(bench.figures(CONSOLE, "it"),
                         {"bracket-none": (8.0, "cycles"), "read/1": (14.5, "cycles")})

    def test_failed_suite(self):
        for text in ("", CONSOLE.replace("ok 1 mmu", "not ok 1 mmu"),
                     CONSOLE.replace("[    0.3] ok 1 mmu_notifier_bench\n", ""),
                     CONSOLE.replace("bench:", "")):
            with self.assertRaises(Trouble):
                bench.figures(text, "it")

    def test_missed(self):
        ours = {"a": (10.0, "cycles"), "b": (10.0, "cycles")}
        self.assertEqual(bench.missed(ours, {"a": 10.0, "b": 9.9, "gone": 1.0}),
                         ["b", "gone"])

    def test_table(self):
        rows = {"ours": {"a": (8.0, "cycles"), "new": (1.0, "cycles")},
                "stock": {"a": (16.0, "cycles")}}
        lines = bench.table(rows, {"a": 7.0}, ["a", "new"])
        self.assertEqual(len(lines), 3)
        self.assertIn("0.50", lines[1])
        self.assertIn("MISSED", lines[1])
        self.assertNotIn("MISSED", lines[2])

    def test_scale(self):
        rows = {"ours": {"x/1": (8.0, "c"), "x/10": (9.0, "c"), "alone": (1.0, "c")},
                "stock": {"x/1": (7.0, "c")}}
        head, stock, ours = bench.scale(rows)
        self.assertEqual(head.split(), ["what", "1", "10"])
        self.assertEqual(stock.split(), ["x", "stock", "7.0"])
        self.assertEqual(ours.split(), ["x", "ours", "8.0", "9.0"])

    def test_targets(self):
        wanted = bench.targets()
        self.assertEqual(wanted["bracket-no-subscription"], 16.0)
        self.assertTrue(all(value > 0 for value in wanted.values()))

    def test_the_median_counts(self):
        boots = [{"x/1": (value, "ops")} for value in (9.0, 1.0, 4.0)]
        self.assertEqual(bench.middle(boots), {"x/1": (4.0, "ops")})

    def test_a_stale_breakpoint_is_worth_another_boot(self):
        compared = (("stock", None, "stock", None), ("ours", None, "bench", None))
        booted = []

        def boot(_these, config, *_):
            booted.append(config)
            if len(booted) == 3:
                raise bench.StaleBreakpoint(1, "int3")
            return {"x/1": (2.0 if config == "bench" else 1.0, "ops")}

        with mock.patch.object(bench, "boot", side_effect=boot):
            self.assertEqual(bench.crowd_of(compared), {"stock": {"x/1": (1.0, "ops")},
                                                        "ours": {"x/1": (2.0, "ops")}})
        self.assertEqual(booted[:5], ["stock", "bench", "stock", "stock", "bench"])
        self.assertEqual(len(booted), 2 * bench.CROWD_BOOTS + 1)
        with mock.patch.object(bench, "boot", side_effect=Trouble(1, "bad")), \
                self.assertRaises(Trouble):
            bench.crowd_of(compared)


if __name__ == "__main__":
    unittest.main()
