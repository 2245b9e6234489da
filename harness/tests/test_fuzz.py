# SPDX-License-Identifier: GPL-2.0
"""What a boot of the fuzzer is taken for, and the command that repeats it."""

import os
import sys
import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import fuzz         # noqa: E402
import verdict as verdicts  # noqa: E402

GOOD = """# # fuzz: seed 7, 60 s
# # fuzz: seed 7, 27699 operations in 70 s by 2 processes of 4 threads
# # fuzz: cpu_read: 2008, 2008 succeeded
"""
BAD = """# # fuzz: seed 7, 60 s
# # fuzz: FOUND: page 12: the CPU saw 01000003, not 01000004
# # fuzz: seed 7, process 0, thread 3
# # fuzz: seed 7, 54 operations in 1 s by 2 processes of 4 threads
"""


class Boot(unittest.TestCase):

    def setUp(self):
        self.said = []
        self.asked = {}
        where = tempfile.TemporaryDirectory()
        self.addCleanup(where.cleanup)
        self.directory = Path(where.name)
        self.settings = SimpleNamespace(append="quiet", config="plain", cpus=2)

    def boot(self, results, failed=()):
        """fuzz.boot() of a guest that said `results`."""
        def test_boot(settings, config, cpus, kunit, selftests, seconds):
            self.asked = {"append": settings.append, "config": config, "cpus": cpus,
                          "kunit": kunit, "selftests": selftests, "seconds": seconds}
            (self.directory / "results").write_text(results)
            run = SimpleNamespace(title="", repeat="", directory=self.directory)
            return verdicts.Verdict(failed=list(failed)), run

        with mock.patch.object(fuzz.runs, "test_boot", test_boot), \
             mock.patch.object(fuzz, "say", self.said.append):
            return fuzz.boot(self.settings, "debug", 4, 600, 7)

    def test_the_guest_is_told(self):
        self.boot(GOOD)
        self.assertEqual(self.asked["append"], "quiet hmm.fuzz=600,7")
        self.assertEqual(self.settings.append, "quiet")
        self.assertEqual(self.asked["selftests"], ["hmm_fuzz"])
        self.assertIsNone(self.asked["kunit"])
        self.assertGreater(self.asked["seconds"], 600)

    def test_figures_are_shown(self):
        self.boot(GOOD)
        self.assertIn("27699 operations", self.said[-1])

    def test_a_guest_that_never_ended(self):
        self.boot("")
        self.assertIn("never ended", self.said[-1])

    def test_what_was_found_and_how_to_find_it_again(self):
        verdict, run = self.boot(BAD, [("vm:hmm_fuzz.nothing_found", "failed"),
                                       ("console", "BUG: KASAN")])
        self.assertEqual(verdict.failed[0][0], "hmm_fuzz.nothing_found")
        self.assertIn("not 01000004", verdict.failed[0][1])
        self.assertEqual(verdict.failed[1], ("console", "BUG: KASAN"))
        self.assertEqual(run.repeat, "make fuzz CONFIG=debug CPUS=4 SECONDS=600 SEED=7")

    def test_seeds(self):
        with mock.patch.dict(os.environ, {"SEED": "12"}):
            self.assertEqual(fuzz.some_seed(), 12)
        with mock.patch.dict(os.environ, {"SEED": ""}):
            self.assertGreater(fuzz.some_seed(), 0)

    def test_the_guest_hands_it_on(self):
        """Both words of hmm.fuzz reach the program's environment."""
        init = (HERE.parent / "guest/init").read_text()
        self.assertIn('HMM_FUZZ_SECONDS="${fuzz%%,*}"', init)
        self.assertIn('HMM_FUZZ_SEED="${fuzz##*,}"', init)


if __name__ == "__main__":
    unittest.main()
