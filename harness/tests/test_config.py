# SPDX-License-Identifier: GPL-2.0
"""Fragments, and that a line which Kconfig drops is noticed."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import config                   # noqa: E402
from common import Trouble      # noqa: E402


class ConfigTest(unittest.TestCase):
    """parse(), render() and mismatches() on small texts."""

    WANTED = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_N=8\n# a remark\n"

    def test_parse_and_render(self):
        wanted = config.parse(self.WANTED)
        self.assertEqual(wanted, {"A": "y", "B": "n", "N": "8"})
        self.assertEqual(config.parse(config.render(wanted)), wanted)

    def test_all_honoured(self):
        got = config.parse("CONFIG_A=y\nCONFIG_N=8\nCONFIG_C=m\n")
        self.assertEqual(config.mismatches(config.parse(self.WANTED), got), [])

    def test_a_dropped_line_is_listed(self):
        got = config.parse("CONFIG_N=8\n")
        self.assertEqual(config.mismatches(config.parse(self.WANTED), got),
                         ["CONFIG_A=y: is n"])

    def test_a_line_that_came_out_otherwise_is_listed(self):
        got = config.parse("CONFIG_A=m\nCONFIG_B=y\nCONFIG_N=4\n")
        self.assertEqual(len(config.mismatches(config.parse(self.WANTED), got)), 3)

    def test_the_last_fragment_wins(self):
        debug = config.requested("debug", "x86_64")
        plain = config.requested("plain", "x86_64")
        self.assertNotEqual(debug["DEFAULT_HUNG_TASK_TIMEOUT"],
                            plain["DEFAULT_HUNG_TASK_TIMEOUT"])
        self.assertEqual(debug["TEST_HMM"], "m")

    def test_unknown_names_are_refused(self):
        with self.assertRaises(Trouble):
            config.fragments("nonsense", "x86_64")
        with self.assertRaises(Trouble):
            config.fragments("plain", "pdp11")


if __name__ == "__main__":
    unittest.main()
