# SPDX-License-Identifier: GPL-2.0
"""Mutants: their headers, how they go in and out, and what counts as caught."""

import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import mutants      # noqa: E402
import verdict as verdicts      # noqa: E402
from common import (HANG, OK, REPO, SPLAT, TEST_FAILED, USAGE, Trouble,     # noqa: E402
                    read_text)

TEXT = "The sum is off\nby one.\n\nTest: kunit:sums.add*\n\n"
DIFF = "--- a/sum.c\n+++ b/sum.c\n@@ -1,3 +1,3 @@\n int sum\n-a + b\n+a + b + 1\n end\n"
SOURCE = "int sum\na + b\nend\n"


class Ours(unittest.TestCase):
    def test_each_has_a_header_and_applies(self):
        for mutant in mutants.select(""):
            with self.subTest(mutant.name):
                self.assertIsNone(mutants.apply(REPO, mutant.path, "--dry-run"))

    def test_each_test_is_there(self):
        suites = {}
        for path in (REPO / "mm/tests").glob("*_kunit.c"):
            suites.update(verdicts.suites_in(read_text(path)))
        for mutant in mutants.select(""):
            kind, glob = mutant.test.split(":", 1)
            if kind == "kunit":
                with self.subTest(mutant.name):
                    self.assertTrue(any(verdicts.matches(s, c, glob)
                                        for s, cases in suites.items() for c in cases))


class Header(unittest.TestCase):
    def test_what_it_says(self):
        got = mutants.parse("off", TEXT + DIFF)
        self.assertEqual((got.breaks, got.test), ("The sum is off by one.",
                                                  "kunit:sums.add*"))

    def test_without_a_test_or_a_reason(self):
        for text in ("Off by one.\n\n", "Test: kunit:sums\n\n", "Off.\n\nTest: sums\n\n"):
            with self.subTest(text), self.assertRaises(Trouble) as caught:
                mutants.parse("off", text + DIFF)
            self.assertEqual(caught.exception.code, USAGE)

    def test_a_name_that_none_has(self):
        with self.assertRaises(Trouble):
            mutants.select("no-such-mutant")


class InAndOut(unittest.TestCase):
    def mutated(self, source):
        """(why it did not apply, what was there meanwhile, what is there now)."""
        with tempfile.TemporaryDirectory() as where:
            tree = Path(where)
            (tree / "sum.c").write_text(source)
            (tree / "off.patch").write_text(TEXT + DIFF)
            mutant = mutants.parse("off", TEXT + DIFF, tree / "off.patch")
            with mutants.mutated(tree, mutant) as trouble:
                meanwhile = (tree / "sum.c").read_text()
            left = sorted(p.name for p in tree.iterdir())
            self.assertEqual(left, ["off.patch", "sum.c"])
            return trouble, meanwhile, (tree / "sum.c").read_text()

    def test_it_is_put_back(self):
        self.assertEqual(self.mutated(SOURCE),
                         (None, "int sum\na + b + 1\nend\n", SOURCE))

    def test_one_that_no_longer_applies_changes_nothing(self):
        trouble, meanwhile, after = self.mutated("int sum\na - b\nend\n")
        self.assertTrue(trouble)
        self.assertEqual(meanwhile, after)


class Caught(unittest.TestCase):
    def verdict(self, *failed, code=TEST_FAILED, splats=()):
        return verdicts.Verdict(failed=[(n, "failed") for n in failed], code=code,
                                splats=list(splats))

    def test_by_the_test_that_it_names(self):
        for test, name in (("kunit:sums.add*", "kunit:sums.add_two"),
                           ("kunit:sums.add*", "kunit:sums.add_two.case 3"),
                           ("kunit:sums", "kunit:sums.add_two"),
                           ("vm:hmm_races", "vm:hmm_races.races.cow"),
                           ("programs:gcc", "programs.gcc_private")):
            with self.subTest(test):
                self.assertIn(name, mutants.caught_by(self.verdict(name), test))

    def test_not_by_another(self):
        for test, name in (("kunit:sums.add*", "kunit:sums.take_two"),
                           ("kunit:sums.add*", "vm:sums.add_two"),
                           ("vm:hmm_races", "vm:hmm_pages.swap"),
                           ("programs:gcc", "programs.sqlite3_private"),
                           ("programs:gcc", "guest")):
            with self.subTest(name):
                self.assertIsNone(mutants.caught_by(self.verdict(name), test))

    def test_by_a_splat_or_a_hang(self):
        splat = self.verdict("console", code=SPLAT, splats=["BUG: Bad page state"])
        self.assertIn("Bad page", mutants.caught_by(splat, "kunit:sums"))
        self.assertTrue(mutants.caught_by(self.verdict("guest", code=HANG), "vm:a"))

    def test_by_nothing(self):
        self.assertIsNone(mutants.caught_by(self.verdict(code=OK), "kunit:sums"))


if __name__ == "__main__":
    unittest.main()
