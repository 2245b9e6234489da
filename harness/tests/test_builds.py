# SPDX-License-Identifier: GPL-2.0
"""Builds that nobody boots: which there are, and when one is not silent."""

import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import builds       # noqa: E402
import config as configs        # noqa: E402
import debian       # noqa: E402
import kbuild       # noqa: E402
import pedantic     # noqa: E402
from common import HARNESS, Settings, Trouble, read_text       # noqa: E402


class Builds(unittest.TestCase):
    def test_each_variant_has_a_configuration(self):
        for name in (*builds.VARIANTS, "i386", "nothing", "warnings"):
            self.assertTrue((HARNESS / f"config/builds/{name}.config").is_file(), name)

    def test_each_variant_takes_something_away(self):
        small = configs.parse(read_text(HARNESS / "config/builds/small.config"))
        for name in builds.VARIANTS[1:]:
            wanted = configs.parse(read_text(HARNESS / f"config/builds/{name}.config"))
            self.assertTrue(any(value == "n" and small.get(option) == "y"
                                for option, value in wanted.items()), name)

    def test_warnings_of_this_build_are_found(self):
        with tempfile.NamedTemporaryFile() as log:
            log.write(b"../old.c:1:2: warning: of a build before\n")
            start = log.tell()
            log.write(b"  CC      a.o\n../a.c:3:4: warning: unused variable\n")
            log.flush()
            self.assertEqual(kbuild.warnings_in(Path(log.name), start),
                             ["../a.c:3:4: warning: unused variable"])

    def test_our_headers_are_found(self):
        self.assertLessEqual({"hmm.h", "mmu_notifier.h", "memremap.h"},
                             set(builds.headers()))

    def test_some_are_chosen(self):
        for tests, name, want in (("", "i386", True), ("i386 no-*", "no-numa", True),
                                  ("i386", "clang", False), ("debian-*", "small", False)):
            settings = Settings({"T": tests})
            self.assertEqual(builds.chosen(settings, name), want)

    def test_a_glob_for_nothing_is_an_error(self):
        debian.check_chosen(Settings({"T": "no-numa"}))
        debian.check_chosen(Settings({"T": "*debian*"}))
        for tests in ("no-such-build", "debian-typo"):
            with self.assertRaises(Trouble):
                debian.check_chosen(Settings({"T": tests}))

    def test_the_names_are_those_of_the_builds(self):
        there = [name for name, *_ in builds.kernels(Settings({}))]
        self.assertEqual(there, [n for n in builds.names() if n != "nothing"])

    def test_a_warning_is_named(self):
        for status, tail in ((2, "CC x.o\nx.c:1: error: no"), (0, "x.c:1: warning: odd")):
            self.assertIn("x.c:1", builds.complaint("vmlinux", status, tail, "log"))
        tail = "CC uterror.o\nx.c:(.text+0x1): undefined reference to `y'"
        self.assertIn("x.c:", builds.complaint("vmlinux", 2, tail, "log"))
        self.assertIn("failed", builds.complaint("vmlinux", 2, "", "log"))
        self.assertIsNone(builds.complaint("vmlinux", 0, "CC error_inject.o", "log"))

    def test_only_warnings_of_ours_count_in_w1(self):
        text = ("/k/linux/include/linux/mm.h:1:2: warning: odd [-Wfoo]\n"
                "../linux/mm/hmm.c:3:4: warning: odd [-Wfoo]\nCC mm/hmm.o\n"
                "mm/hmm.c:5:6: note: here\n")
        self.assertEqual(pedantic.warned(text, ["mm/hmm.c"]),
                         ["../linux/mm/hmm.c:3:4: warning: odd [-Wfoo]"])


if __name__ == "__main__":
    unittest.main()
