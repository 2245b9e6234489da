# SPDX-License-Identifier: GPL-2.0
"""Which phases there are, and which of them are left to 'make check-all'."""

import unittest

import check
from common import REPO


class PhasesTest(unittest.TestCase):
    def test_what_is_needed_comes_before(self):
        names = list(check.PHASES)
        for name, phase in check.PHASES.items():
            if phase.needs:
                self.assertLess(names.index(phase.needs), names.index(name))

    def test_what_is_needed_is_done_as_often(self):
        for phase in check.PHASES.values():
            if phase.always and phase.needs:
                self.assertTrue(check.PHASES[phase.needs].always)

    def test_each_kernel_boots_at_every_change(self):
        for config in ("plain", "debug"):
            self.assertTrue(any(phase.always and name.startswith(f"boot({config}, ")
                                for name, phase in check.PHASES.items()))

    def test_the_debug_verb_names_phases(self):
        self.assertLessEqual(set(check.DEBUG), set(check.PHASES))


    def test_slow_tests_exist(self):
        sources = {p.stem for p in (REPO / "tools/testing/selftests/vm").glob("*.c")}
        self.assertLessEqual(check.SLOW_TESTS, sources)


if __name__ == "__main__":
    unittest.main()
