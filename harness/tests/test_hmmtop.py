# SPDX-License-Identifier: GPL-2.0
"""hmmtop's records and drawings. What it counts tells the self test hmm_top, in a
guest."""

import shutil
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common import REPO         # noqa: E402

HEAD = ("# hmmtop 1\n# time\tseconds\tpid\tname\tfaults\tpages\tcollisions\twaits\twait_ns"
        "\tbrackets\thits\tmigrated\tlost\n")
SAMPLES = ("1.000\t1.000\t91\thmm_demo\t2176\t6479\t1\t4\t21000000\t2411\t2411\t4224\t0\n"
           "1.000\t1.000\t95\ta \"$(b)\" c\t5\t5\t0\t0\t0\t0\t0\t0\t0\n"
           "1.000\t1.000\t0\tall\t2181\t6484\t1\t4\t21000000\t2411\t2411\t4224\t0\n"
           "2.000\t1.000\t0\tall\t0\t0\t0\t0\t0\t0\t0\t0\t7\n"
           "2.500\t0.500\t91\thmm_demo\t10\t20\t0\t0\t0\t0\t0\t0\t0\n"
           "2.500\t0.500\t0\tall\t10\t20\t0\t0\t0\t0\t0\t0\t0\n")


def pkg_config(what):
    done = subprocess.run(["pkg-config", what, "libtracefs", "libtraceevent"],
                          capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else None


@unittest.skipUnless(shutil.which("pkg-config") and shutil.which("gnuplot")
                     and pkg_config("--libs"), "run 'make deps'")
class HmmtopTest(unittest.TestCase):
    """Built once, as the Makefile does but without a kernel tree."""

    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory(prefix="hmmtop-")
        cls.addClassCleanup(cls.scratch.cleanup)
        cls.program = Path(cls.scratch.name) / "hmmtop"
        subprocess.run(["gcc", "-Wall", "-Werror", "-D_GNU_SOURCE", *pkg_config("--cflags"),
                        "-fsanitize=address,undefined", "-o", cls.program,
                        *sorted((REPO / "tools/hmm").glob("*.c")), *pkg_config("--libs")],
                       check=True)

    def plot(self, text):
        record = Path(self.scratch.name) / "record"
        record.write_text(text, encoding="ascii")
        return subprocess.run([self.program, "--plot", record], capture_output=True,
                              text=True, check=False)

    def refused(self, text, why):
        done = self.plot(text)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stdout, "")
        self.assertIn(why, done.stderr)

    def test_plot_is_svg_with_a_line_for_each_process(self):
        done = self.plot(HEAD + SAMPLES)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertTrue(ElementTree.fromstring(done.stdout).tag.endswith("svg"))
        wanted = ("hmm_demo 91", "all", "7 events lost", "faults / s", "pages migrated / s")
        self.assertEqual([t for t in wanted if t not in done.stdout], [])

    def test_one_process_is_one_line(self):
        lines = [line for line in SAMPLES.splitlines(True) if "\t95\t" not in line]
        done = self.plot(HEAD + "".join(lines))
        self.assertEqual(done.returncode, 0)
        self.assertTrue("hmm_demo 91" in done.stdout)
        self.assertFalse(">all<" in done.stdout)

    def test_names_run_nothing(self):
        done = self.plot(HEAD + SAMPLES.replace("hmm_demo", "`touch x`\";!x"))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertTrue("touch x" in done.stdout)

    def test_what_is_no_record_is_refused(self):
        self.refused("", "no samples")
        self.refused("something else\n", "not a record")
        self.refused(HEAD, "no samples")
        self.refused(HEAD + "1.0\t1.0\t91\thmm_demo\t2176\n", "record:3: not a row")
        self.refused(HEAD + SAMPLES.replace("\t7\n", "\t7 7\n"), "record:6: not a row")
        self.refused(HEAD + SAMPLES.replace("0.500", "0.000"), "record:7: not a row")

    def test_a_record_that_is_not_there(self):
        done = subprocess.run([self.program, "--plot", "/nonexistent/record"],
                              capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("/nonexistent/record: No such file", done.stderr)


if __name__ == "__main__":
    unittest.main()
