# SPDX-License-Identifier: GPL-2.0
"""What bench writes down, and what it calls worse."""

import copy
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import bench_report
import style
from common import have

UNIT = "cycles"
KEPT = {
    "exact": {
        "stock": {"a": [20.0, UNIT], "snapshot-4k/1": [9.0, UNIT],
                  "snapshot-4k/16": [8.0, UNIT]},
        "ours": {"a": [10.0, UNIT], "snapshot-4k/1": [7.0, UNIT],
                 "snapshot-4k/16": [2.0, UNIT], "tiny": [0.01, UNIT]},
    },
    "crowd": {"ours": {"pair/4": [300.0, "ops"], "pair/1": [100.0, "ops"],
                       "new/2": [5.0, "ops"]},
              "stock": {"pair/1": [50.0, "ops"], "pair/4": [600.0, "ops"]}},
}


class Worse(unittest.TestCase):
    def worse(self, name, value):
        kept = copy.deepcopy(KEPT)
        if value is None:
            del kept["exact"]["ours"][name]
        else:
            kept["exact"]["ours"][name][0] = value
        return bench_report.worse(kept, KEPT)

    def test_more_than_two_per_cent(self):
        self.assertEqual(self.worse("a", 10.2), [])
        self.assertEqual(self.worse("a", 5.0), [])
        self.assertEqual(self.worse("a", 10.3), ["a: 10.3, was 10.0"])

    def test_the_last_digit_alone_is_not_worse(self):
        self.assertEqual(self.worse("tiny", 0.02), [])

    def test_a_row_that_is_gone(self):
        self.assertEqual(self.worse("a", None), ["a: gone, was 10.0"])

    def test_nothing_committed(self):
        self.assertEqual(bench_report.worse(KEPT, None), [])


class Plots(unittest.TestCase):
    def test_series(self):
        self.assertEqual(bench_report.series(KEPT, ("snapshot-4k", "none")), {
            "snapshot-4k, stock": [(1, 9.0), (16, 8.0)],
            "snapshot-4k, ours": [(1, 7.0), (16, 2.0)]})

    def test_crowd_is_a_multiple_of_stock(self):
        self.assertEqual(bench_report.crowd_ratios(KEPT), {"pair": [(1, 2.0), (4, 0.5)]})

    @unittest.skipUnless(have("gnuplot"), "gnuplot is not installed")
    def test_all_is_written(self):
        kept = copy.deepcopy(KEPT)
        for _, _, _, what in bench_report.PLOTS:
            for stem in what:
                kept["exact"]["ours"][f"{stem}/1"] = [1.0, UNIT]
                kept["exact"]["ours"][f"{stem}/2"] = [2.0, UNIT]
        with tempfile.TemporaryDirectory() as where, \
                mock.patch.object(bench_report, "WHERE", Path(where)):
            bench_report.write(kept, ["a line  ", ""], {"a": 12.0})
            names = {p.name for p in Path(where).iterdir()}
            self.assertEqual(names, {"bench.json", "bench.txt", "targets.svg", "cpus.svg"}
                             | {f"{plot[0]}.svg" for plot in bench_report.PLOTS})
            for path in Path(where).glob("*.svg"):
                self.assertIn("</svg>", path.read_text(encoding="utf-8"))
            for path in Path(where).iterdir():
                self.assertEqual(style.blanks(path, path.read_text(encoding="utf-8")), [])


if __name__ == "__main__":
    unittest.main()
