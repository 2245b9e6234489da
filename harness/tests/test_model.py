# SPDX-License-Identifier: GPL-2.0
"""What Spin's verifier prints, each with what it must be taken for."""

import sys
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import model        # noqa: E402

TAIL = """
State-vector 164 byte, depth reached 107, errors: %d
  1504281 states, stored
   81.1	total actual memory usage
unreached in proctype reader
	(0 of 134 states)
pan: elapsed time 1.73 seconds
"""
PASS = "\n(Spin Version 6.5.2 -- 6 December 2019)" + TAIL % 0
FAIL = "pan: wrote x.trail\nWarning: Search not completed" + TAIL % 1
ASSERTED = "pan:1: assertion violated ((dev==0)||(dev>=floor)) (at depth 53)\n" + FAIL
STUCK = "pan:1: invalid end state (at depth 12)\n" + FAIL
CYCLE = "pan:1: acceptance cycle (at depth 2178)\n" + FAIL
NO_PROGRESS = "pan:1: non-progress cycle (at depth 20)\n" + FAIL
SHALLOW = "error: max search depth too small\n" + PASS
NO_MEMORY = "pan: out of memory\n\t1.2e+09 bytes used" + PASS
UNREACHED = PASS.replace("	(0 of 134 states)", """	walk.pml:327, state 12, "x = (x+1)"
	walk.pml:330, state 34, "-end-"
	(2 of 134 states)""")


class Outcome(unittest.TestCase):

    def test_a_whole_search_without_errors_holds(self):
        self.assertIsNone(model.complaint(PASS, "holds"))

    def test_a_truncated_search_proves_nothing(self):
        self.assertIn("depth", model.complaint(SHALLOW, "holds"))
        self.assertIn("memory", model.complaint(NO_MEMORY, "holds"))
        self.assertEqual(model.complaint("Depth= 10 States= 1e+06", "holds"),
                         "pan did not finish")

    def test_an_error_is_not_holding(self):
        for output in (ASSERTED, STUCK, CYCLE, NO_PROGRESS):
            self.assertIsNotNone(model.complaint(output, "holds"))

    def test_a_twin_is_caught_by_the_error_expected(self):
        self.assertIsNone(model.complaint(ASSERTED, "assertion floor"))
        self.assertIsNone(model.complaint(ASSERTED, "assertion dev >= floor"))
        self.assertIsNone(model.complaint(STUCK, "stuck"))
        self.assertIsNone(model.complaint(CYCLE, "cycle"))
        self.assertIsNone(model.complaint(NO_PROGRESS, "non-progress"))

    def test_a_twin_caught_for_another_reason_fails(self):
        for output, expect in ((ASSERTED, "assertion alive"), (ASSERTED, "stuck"),
                               (STUCK, "cycle"), (CYCLE, "assertion floor")):
            self.assertIn("another reason", model.complaint(output, expect))

    def test_a_twin_that_holds_fails(self):
        self.assertEqual(model.complaint(PASS, "stuck"), "not caught")
        self.assertIn("depth", model.complaint(SHALLOW, "stuck"))

    def test_what_is_never_reached_fails_unless_listed(self):
        self.assertIn("x = (x+1)", model.complaint(
            UNREACHED, "holds", {("reader", "-end-")}))
        self.assertIsNone(model.complaint(
            UNREACHED, "holds", {("reader", "-end-"), ("reader", "x = (x+1)")}))


class List(unittest.TestCase):

    def test_lines(self):
        found, unreachable = model.parse(
            "# c\nwalk | safety | A=2 B | P1 | holds\nunreached | walk | reader | -end-\n")
        self.assertEqual(found[0].defines, ["-DA=2", "-DB"])
        self.assertEqual(unreachable, {"walk": {("reader", "-end-")}})

    def test_a_bad_line_is_trouble(self):
        with self.assertRaises(model.Trouble):
            model.parse("walk | safety")

    def test_every_model_has_twins(self):
        found, _ = model.parse(model.read_text(model.MODELS / "properties"))
        for path in model.MODELS.glob("*.pml"):
            mine = [p for p in found if p.model == path.stem]
            self.assertTrue([p for p in mine if p.expect == "holds"], path.stem)
            self.assertTrue([p for p in mine if p.expect != "holds"], path.stem)


if __name__ == "__main__":
    unittest.main()
