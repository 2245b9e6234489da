# SPDX-License-Identifier: GPL-2.0
"""What 'make programs' chooses, expects, and puts into the guest."""

import re
import sys
import unittest
from pathlib import Path
from unittest import mock

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import initramfs    # noqa: E402
import programs     # noqa: E402
import verdict as verdicts      # noqa: E402
from common import ENVIRONMENT, HARNESS, REPO, USAGE, Trouble, read_text    # noqa: E402

SCRIPT = read_text(HARNESS / "guest/programs")
SOURCE = read_text(REPO / "tools/testing/selftests/vm/hmm_preload.c")


class Choice(unittest.TestCase):
    def test_all_without_a_wish(self):
        self.assertEqual(programs.select(""), list(programs.PROGRAMS))

    def test_globs_keep_the_order(self):
        self.assertEqual(programs.select("stress_f*,gcc"), ["gcc", "stress_fork"])

    def test_a_name_that_nothing_has(self):
        with self.assertRaises(Trouble) as caught:
            programs.select("gcc emacs")
        self.assertEqual(caught.exception.code, USAGE)
        self.assertIn("emacs", str(caught.exception))

    def test_each_program_is_expected_in_each_mode(self):
        self.assertEqual(programs.tests(["gcc"]),
                         ["gcc_reference", "gcc_mirror", "gcc_private", "gcc_coherent"])


class TwoSides(unittest.TestCase):
    """What the host and the guest have to agree on."""

    def test_the_guest_knows_each_program(self):
        for name in programs.PROGRAMS:
            with self.subTest(name):
                self.assertRegex(SCRIPT, rf"(?m)^run_{name}\(\)")

    def test_the_modes(self):
        modes = re.search(r"for mode in (.*); do", SCRIPT)[1].split()
        self.assertEqual(modes, list(programs.MODES))
        self.assertIn(f"$(($# * {len(modes)}))", SCRIPT)

    def test_the_counters_are_read_in_their_order(self):
        listed = re.search(r"enum counter \{(.*?)COUNTERS", SOURCE, re.S)[1]
        named = [n.lower() for n in re.findall(r"^\t([A-Z]+),", listed, re.M)]
        read = re.findall(r"(\w+)=\$\{(\d):-0\}", SCRIPT)
        self.assertEqual([n for n, _ in read], named)
        self.assertEqual([int(at) for _, at in read], list(range(1, len(named) + 1)))


class Files(unittest.TestCase):
    def test_a_program_comes_with_its_libraries(self):
        said = "\tlibc.so.6 => /lib/x/libc.so.6 (0x7f00)\n\t/lib64/ld.so.2 (0x7f01)\n"
        with mock.patch("os.path.isfile", return_value=True), \
             mock.patch("subprocess.run", return_value=mock.Mock(stdout=said)):
            lines = initramfs.tools(["/usr/bin/thing"])
        self.assertIn("dir /lib/x 755 0 0", lines)
        self.assertEqual([line.split()[1] for line in lines if line.startswith("file ")],
                         ["/lib/x/libc.so.6", "/lib64/ld.so.2", "/usr/bin/thing"])

    def test_a_program_that_is_missing(self):
        with mock.patch("shutil.which", return_value=None):
            with self.assertRaises(Trouble) as caught:
                programs.located("sqlite3")
        self.assertEqual(caught.exception.code, ENVIRONMENT)


class Evidence(unittest.TestCase):
    def test_what_the_device_found_is_shown(self):
        results = read_text(HERE / "logs/programs-finding/results")
        shown = verdicts.evidence("programs.sqlite3_mirror", "", results)
        self.assertIn("the device reads: 0, not 0x1", shown[-1])
        self.assertEqual(len(programs.figures(results)), 1)


if __name__ == "__main__":
    unittest.main()
