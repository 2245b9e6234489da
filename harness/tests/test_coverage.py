# SPDX-License-Identifier: GPL-2.0
"""Coverage: what a guest sends is unpacked, and the limits are limits."""

import base64
import contextlib
import io
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import coverage     # noqa: E402
import verdict as verdicts      # noqa: E402
from common import TEST_FAILED, Trouble     # noqa: E402


def archive(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


class Counted(unittest.TestCase):
    def results(self, text):
        where = tempfile.TemporaryDirectory()
        self.addCleanup(where.cleanup)
        path = Path(where.name) / "results"
        path.write_text(text)
        return path

    def test_what_was_sent_comes_out(self):
        sent = base64.encodebytes(archive({"sys/mm/hmm.gcda": b"counts"})).decode()
        path = self.results(f"ok 1\nhmm-guest: gcov begin\r\n{sent}hmm-guest: gcov end\n")
        coverage.unpack(coverage.counted(path), path.parent)
        self.assertEqual((path.parent / "hmm.gcda").read_bytes(), b"counts")

    def test_nothing_sent(self):
        for text in ("ok 1\n", "hmm-guest: gcov begin\nAAAA\n"):
            with self.subTest(text), self.assertRaises(Trouble) as caught:
                coverage.counted(self.results(text))
            self.assertEqual(caught.exception.code, TEST_FAILED)


class Limits(unittest.TestCase):
    def judged(self, lines, branches):
        verdict = verdicts.Verdict()
        with contextlib.redirect_stdout(io.StringIO()):
            coverage.judge(verdict, {"files": [], "line_percent": lines,
                                     "branch_percent": branches})
        return [name for name, _ in verdict.failed]

    def test_limits(self):
        self.assertEqual(self.judged(coverage.LINES, coverage.BRANCHES), [])
        self.assertEqual(self.judged(coverage.LINES - 0.1, 100.0), ["coverage:lines"])
        self.assertEqual(self.judged(100.0, coverage.BRANCHES - 0.1),
                         ["coverage:branches"])


SOURCE = "int one(void)\n{\n\treturn 1;\n}\n\nint two(void)\n{\n\treturn 2;\n}\n"


class Reasons(unittest.TestCase):
    def missed(self, *counts):
        """Of SOURCE's two lines of code, how often each was run."""
        lines = [{"line_number": number, "count": count}
                 for number, count in zip((3, 6), counts)]
        lines.append({"line_number": 1, "count": 0, "gcovr/noncode": True})
        return coverage.not_run({"files": [{"file": "mm/a.c", "lines": lines}]},
                                lambda _: SOURCE)

    def failed(self, missed, why):
        verdict, out = verdicts.Verdict(), io.StringIO()
        with contextlib.redirect_stdout(out):
            coverage.explain(verdict, missed, why)
        return bool(verdict.failed), out.getvalue()

    def test_lines_have_the_names_of_their_functions(self):
        self.assertEqual(self.missed(0, 0), {("mm/a.c", "one"): [3], ("mm/a.c", "two"): [6]})
        self.assertEqual(self.missed(1, 5), {})

    def test_a_line_without_a_reason_fails_and_is_named(self):
        failed, said = self.failed(self.missed(1, 0), {("mm/a.c", "one"): "no disk"})
        self.assertTrue(failed)
        self.assertIn("nobody says why: mm/a.c two: 6", said)
        self.assertIn("mm/a.c one: was run whole", said)

    def test_a_reason_is_enough(self):
        self.assertFalse(self.failed(self.missed(1, 0), {("mm/a.c", "two"): "no disk"})[0])

    def test_the_list_is_well_formed(self):
        found = coverage.reasons(coverage.read_text(coverage.REASONS))
        for path, name in found:
            source = coverage.read_text(coverage.HARNESS.parent / path)
            self.assertIn(name, [n for n, *_ in coverage.style.spans(source)], path)
        with self.assertRaises(Trouble):
            coverage.reasons("mm/hmm.c hmm_find\n")


if __name__ == "__main__":
    unittest.main()
