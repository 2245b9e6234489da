# SPDX-License-Identifier: GPL-2.0
"""The series of patches, on a small made-up base and repository."""

import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import common                   # noqa: E402
import series                   # noqa: E402
import test_tree                # noqa: E402
import tree                     # noqa: E402

KCONFIG = ("# Ours\n\n# Said of all\n\nconfig ONE\n\tbool\n\thelp\n\t  First.\n\n"
           "\t  Second.\n\n# Of TWO\nconfig TWO\n\tbool\n")
REPO = {**test_tree.REPO, "Kconfig": KCONFIG,
        "lib/Makefile": "obj-y += one.o\nobj-y += two.o\n", "lib/two.c": "two\n"}
PLAN = {
    "00-cover": "All of it\n\nWhy.\n",
    "01-one": "one: first\n\nWhy.\n%%\nfile mm/hmm.c lib/Makefile\nkconfig ONE\n"
              "patch source.patch\n",
    "02-two": "two: second\n\nWhy, too.\n%%\nfile lib/two.c lib/new_*.c\nkconfig TWO\n"
              "lines lib/Makefile two\\.o\nmaintainers\n",
}


class PlanTest(unittest.TestCase):
    """Parsing, and that nothing is left out."""

    def test_the_plan_of_this_repository_is_complete(self):
        steps = series.read_plan()
        self.assertTrue(steps)
        for step in steps:
            self.assertLess(len(step.subject), 76, step.name)
            self.assertNotIn("Signed-off-by", step.message)

    def test_what_a_step_brings_can_be_switched_on(self):
        """What has no prompt is selected by an entry that is there by then."""
        entries = {name: "\n".join(text) for name, text in series.kconfig_entries(
            common.read_text(series.REPO / "Kconfig")) if name}
        there = set()
        for step in series.read_plan():
            there |= set(step.kconfig)
            selected = {symbol for name in there
                        for symbol in re.findall(r"^\tselect (\w+)", entries[name], re.M)}
            for name in step.kconfig:
                if re.search(r"^\tbool$", entries[name], re.M):
                    self.assertIn(name, selected, step.name)

    def test_a_step_is_parsed(self):
        step = series.parse_step("01-x", "s: x\n\nb\n%%\nfile a b\nlines p q r\n"
                                 "maintainers\ncheck make x\n")
        self.assertEqual((step.subject, step.globs, step.maintainers, step.checks),
                         ("s: x", ["a", "b"], True, ["make x"]))
        self.assertEqual(step.lines, [("p", re.compile("q r"))])

    def test_nonsense_is_refused(self):
        for text in ("only a message\n", "\n%%\nfile x\n", "s\n%%\nfyle x\n",
                     "s\n%%\nlines p\n"):
            with self.assertRaises(common.Trouble):
                series.parse_step("01-x", text)

    def test_entries_of_kconfig_come_apart_and_together(self):
        self.assertEqual([n for n, _ in series.kconfig_entries(KCONFIG)],
                         [None, "ONE", "TWO"])
        self.assertEqual(series.kconfig_of(KCONFIG, {"ONE", "TWO"}), KCONFIG)
        one = series.kconfig_of(KCONFIG, {"ONE"})
        self.assertTrue(one.endswith("\t  Second.\n") and "TWO" not in one)

    def test_the_kconfig_of_this_repository_comes_together(self):
        text = common.read_text(common.REPO / "Kconfig")
        names = {n for n, _ in series.kconfig_entries(text)}
        self.assertEqual(series.kconfig_of(text, names), text)

    def test_self_tests_of_a_makefile(self):
        self.assertEqual(series.listed("TEST_GEN_PROGS := a\nTEST_GEN_PROGS += b\n"
                                       "TEST_PROGS += c.sh\nTEST_GEN_FILES := d\n"),
                         ["a", "b", "c.sh"])

    def test_what_lint_bears_is_borne(self):
        self.assertTrue(series.borne("include/trace/events/hmm.h:9: CHECK:CAMELCASE: x"))
        self.assertFalse(series.borne("mm/hmm.c:9: CHECK:CAMELCASE: x"))
        self.assertFalse(series.borne("include/trace/events/hmm.h:9: WARNING:SPACING: x"))


class SeriesTest(unittest.TestCase):
    """Each case has a base, a repository and a plan."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        top = Path(scratch.name)
        self.repo, self.plan = top / "repo", top / "plan"
        test_tree.fill(top / "base", test_tree.BASE)
        test_tree.fill(self.repo, REPO)
        test_tree.fill(self.plan, PLAN)
        git = ["git", "-C", self.repo, "-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run([*git[:3], "init", "-q"], check=True)
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
        for module, name, value in (
                (series, "SERIES", top / "series"), (series, "PLAN", self.plan),
                (series, "REPO", self.repo), (series, "LOG", top / "log/series.log"),
                (tree, "STATE", top / "state"), (tree, "BUILD", top)):
            self.addCleanup(setattr, module, name, getattr(module, name))
            setattr(module, name, value)
        self.settings = common.Settings({"TREE": str(top / "tree"),
                                         "KSRC": str(top / "base")})

    def steps(self):
        return series.read_plan(self.plan, self.repo)

    def make(self):
        tree.ensure_tree(self.settings, self.repo)
        steps = self.steps()
        repository = series.Repository(self.settings)
        repository.commit_steps(steps)
        return repository, series.write_patches(repository)

    def test_the_patches_make_the_tree(self):
        repository, patches = self.make()
        series.verify(repository, self.settings, patches)
        self.assertEqual([p.name for p in patches],
                         ["0000-cover-letter.patch", "0001-one-first.patch",
                          "0002-two-second.patch"])
        letter = common.read_text(patches[0])
        self.assertTrue("All of it" in letter and "***" not in letter)

    def test_a_step_has_what_is_its_own(self):
        repository, _ = self.make()
        self.assertEqual(repository.git("show", "01-one:lib/Makefile"), "obj-y += one.o\n")
        self.assertNotIn("TWO", repository.git("show", "01-one:mm/Kconfig.hmm"))
        # Stock's goes when ours comes, not before
        self.assertIn("lib/old_name.c", repository.git("ls-tree", "-r", "--name-only",
                                                       "01-one"))
        self.assertNotIn("lib/old_name.c", repository.git("ls-tree", "-r", "--name-only",
                                                          "02-two"))
        self.assertEqual(repository.git("show", "01-one:mm/hmm.c"), "our hmm\n")

    def test_again_after_an_edit_and_from_any_step(self):
        repository, first = self.make()
        first = [common.read_text(p) for p in first]
        repository.git("checkout", "-q", "-f", "01-one")
        self.assertEqual([common.read_text(p) for p in self.make()[1]], first)
        (self.repo / "lib/two.c").write_text("other\n")
        repository, patches = self.make()
        series.verify(repository, self.settings, patches)

    def test_a_tree_that_is_another_is_noticed(self):
        repository, patches = self.make()
        for name, text in (("mm/other.c", "edited\n"), ("mm/extra.c", "new\n")):
            path = self.settings.tree / name
            before = path.read_text() if path.exists() else None
            path.write_text(text)
            with self.assertRaises(common.Trouble) as caught:
                series.verify(repository, self.settings, patches)
            self.assertIn(name, str(caught.exception))
            path.write_text(before) if before else path.unlink()

    def test_what_no_step_or_two_steps_bring_is_refused(self):
        for name, text, why in (
                ("02-two", PLAN["02-two"].replace("lib/two.c", ""), "lib/two.c: in no step"),
                ("02-two", PLAN["02-two"].replace("two.c", "two.c mm/hmm.c"), "01-one and"),
                ("02-two", PLAN["02-two"].replace("kconfig TWO\n", ""), "TWO: in no step"),
                ("02-two", PLAN["02-two"].replace("two.c", "none.c"), "no file of ours"),
                ("01-one", PLAN["01-one"].replace("source.patch", "no.patch"), "no patch")):
            test_tree.fill(self.plan, {**PLAN, name: text})
            with self.assertRaises(common.Trouble) as caught:
                self.steps()
            self.assertIn(why, str(caught.exception))

    def test_a_step_that_changes_nothing_is_refused(self):
        test_tree.fill(self.plan, {"03-three": "three: none\n\nb\n%%\n"})
        with self.assertRaises(common.Trouble):
            self.make()

    def test_what_git_says_is_in_the_log(self):
        repository, _ = self.make()
        with self.assertRaises(common.Trouble):
            repository.git("no-such-command")
        self.assertIn("no-such-command", common.read_text(series.LOG))

    def keys(self):
        repository, _ = self.make()
        steps = self.steps()
        return [series.key(repository, step, series.symbols_of(steps[number:]))
                for number, step in enumerate(steps, 1)]

    def test_what_was_tested_of_a_step(self):
        before = self.keys()
        self.assertEqual(self.keys(), before)
        (self.repo / "lib/two.c").write_text("other\n")
        after = self.keys()
        self.assertEqual([a == b for a, b in zip(before, after)], [True, False])
        test_tree.fill(self.plan, {"02-two": PLAN["02-two"].replace("too", "more")})
        self.assertEqual(self.keys(), after)
        test_tree.fill(self.plan, {"02-two": PLAN["02-two"] + "check true\n"})
        self.assertEqual([a == b for a, b in zip(self.keys(), after)], [True, False])

    def test_what_a_step_tests_with(self):
        for name, yes in (("harness/runs.py", True), ("harness/config/plain", True),
                          ("harness/series/01-x", False), ("harness/tests/x.py", False),
                          ("README.md", False), ("mm/hmm.c", False)):
            self.assertEqual(series.counts(name), yes, name)

    def test_steps_are_chosen_by_globs(self):
        steps = self.steps()
        self.assertEqual([s.name for s in series.chosen_steps(steps, "02*")], ["02-two"])
        self.assertEqual(len(series.chosen_steps(steps, "")), 2)
        with self.assertRaises(common.Trouble):
            series.chosen_steps(steps, "09*")


if __name__ == "__main__":
    unittest.main()
