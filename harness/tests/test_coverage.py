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


if __name__ == "__main__":
    unittest.main()
