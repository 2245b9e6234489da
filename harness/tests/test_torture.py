# SPDX-License-Identifier: GPL-2.0
"""What the torture programs print, each with what it must be taken for."""

import os
import sys
import unittest
from pathlib import Path
from unittest import mock

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import torture      # noqa: E402

SEED = "torture: seed 5, 10 s, 8 threads\n"
DONE = ("torture: 166900 brackets (8112 refused), 21811 faults (6186 retries), 12980 "
        "inserts, 48818 finishes, 4408 registers, 1151 exits, 893 injected failures\n")
PASS = SEED + DONE + "torture: ok\n"
CHECKER = SEED + ("torture: FAILED: page 12: copied inside a bracket (thread 1, fault; "
                  "seed 5)\n")
RACE = SEED + """==================
WARNING: ThreadSanitizer: data race (pid=16876)
  Write of size 8 at 0x7b5c000147c8 by thread T8 (mutexes: read M1017, write M1018):
    #0 change_pages torture.c:917 (torture-tsan+0x4fce)
SUMMARY: ThreadSanitizer: data race torture.c:917 in change_pages
"""
LATE = SEED + """==1==ERROR: AddressSanitizer: heap-use-after-free on address 0x60b0000000f0
SUMMARY: AddressSanitizer: heap-use-after-free mmu_notifier.c:560 in mn_call_over
"""
LEAK = PASS + """==1==ERROR: LeakSanitizer: detected memory leaks
SUMMARY: AddressSanitizer: 80 byte(s) leaked in 1 allocation(s).
"""
UNDEFINED = SEED + "mmu_notifier.c:300:9: runtime error: shift exponent 64 is too large\n"
LAYOUT = "FATAL: ThreadSanitizer: unexpected memory mapping 0x5f0000000000-0x5f0000001000\n"
HANG = SEED + """torture: thread 0: 1021 done, now bracket
torture: HANG: seed 5
"""


class Outcome(unittest.TestCase):

    def test_a_run_that_says_so_is_good(self):
        self.assertIsNone(torture.complaint(0, PASS))

    def test_the_checker(self):
        self.assertIn("inside a bracket", torture.complaint(1, CHECKER))

    def test_sanitizers(self):
        self.assertIn("data race", torture.complaint(66, RACE))
        self.assertIn("use-after-free", torture.complaint(67, LATE))
        self.assertIn("shift", torture.complaint(67, UNDEFINED))
        self.assertIn("memory mapping", torture.complaint(66, LAYOUT))

    def test_a_report_counts_whatever_the_status(self):
        self.assertIn("data race", torture.complaint(0, RACE + PASS))
        self.assertIn("leaked", torture.complaint(0, LEAK))

    def test_a_hang(self):
        for status, output in ((4, HANG), (None, SEED)):
            self.assertTrue(torture.complaint(status, output).startswith("hang"))

    def test_a_crash_without_a_message(self):
        self.assertEqual(torture.complaint(-11, SEED), "killed by signal 11")
        self.assertEqual(torture.complaint(-11, PASS), "killed by signal 11")
        self.assertEqual(torture.complaint(9, SEED), "exit status 9")

    def test_silence_is_not_success(self):
        for output in ("", SEED, SEED + DONE, PASS.replace("ok", "okay")):
            self.assertIsNotNone(torture.complaint(0, output))

    def test_figures(self):
        self.assertTrue(torture.figures(PASS).startswith("166900 brackets"))
        self.assertEqual(torture.figures(SEED), "")


class Options(unittest.TestCase):

    def test_numbers(self):
        with mock.patch.dict(os.environ, {"SEED": "7", "SECONDS": ""}):
            self.assertEqual(torture.number("SEED", 1), 7)
            self.assertEqual(torture.number("SECONDS", 60), 60)

    def test_nonsense_is_trouble(self):
        with mock.patch.dict(os.environ, {"SEED": "x"}):
            self.assertRaises(torture.Trouble, torture.number, "SEED", 1)


if __name__ == "__main__":
    unittest.main()
