# SPDX-License-Identifier: GPL-2.0
"""Which phases there are, and which of them are left to 'make check-all'."""

import threading
import unittest
from unittest import mock

import check
import common
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

    def test_kernels_come_before_all_lanes(self):
        """Else a lane would wait for a compiler that needs both of the host's CPUs."""
        names = list(check.PHASES)
        first = min(names.index(n) for n, phase in check.PHASES.items() if phase.lane)
        for name in names[first:]:
            self.assertFalse(name.startswith("kernel("), name)

    def test_a_kernel_boots_in_one_lane(self):
        for config in ("plain", "debug", "kcsan", "rt"):
            lanes = {phase.lane for phase in check.PHASES.values()
                     if phase.lane and phase.needs == f"kernel({config})"}
            self.assertEqual(len(lanes), 1, config)

    def test_slow_tests_exist(self):
        sources = {p.stem for p in (REPO / "tools/testing/selftests/vm").glob("*.c")}
        self.assertLessEqual(check.SLOW_TESTS, sources)


class LanesTest(unittest.TestCase):
    def setUp(self):
        phases = {"a": check.Phase(None), "b": check.Phase(None, lane=1),
                  "c": check.Phase(None, lane=2), "d": check.Phase(None, lane=1),
                  "e": check.Phase(None)}
        patched = mock.patch.object(check, "PHASES", phases)
        patched.start()
        self.addCleanup(patched.stop)

    def test_groups(self):
        self.assertEqual(list(check.groups("abcde")),
                         [[["a"]], [["b", "d"], ["c"]], [["e"]]])
        self.assertEqual(list(check.groups("abe")), [[["a"]], [["b"]], [["e"]]])

    def test_lanes_go_on_at_the_same_time(self):
        meet = threading.Barrier(2, timeout=10)
        order = []

        def act(name):
            if name in "bc":
                meet.wait()
            order.append(name)

        check.side_by_side([["b", "d"], ["c"]], act)
        self.assertEqual(sorted(order), ["b", "c", "d"])
        self.assertLess(order.index("b"), order.index("d"))

    def test_an_end_of_one_lane_ends_the_other(self):
        begun, done = threading.Event(), []

        def act(name):
            if name == "b":
                begun.wait(10)
                raise KeyboardInterrupt
            if name == "d":
                done.append(name)
                return
            with common.child(["sleep", "60"]) as proc:
                begun.set()
                done.append(proc.wait(10))

        with self.assertRaises(KeyboardInterrupt):
            check.side_by_side([["b", "d"], ["c"]], act)
        self.assertEqual(done, [-9])


if __name__ == "__main__":
    unittest.main()
