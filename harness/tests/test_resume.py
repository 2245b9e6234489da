# SPDX-License-Identifier: GPL-2.0
"""What RESUME=1 leaves out: what was green with the same sources, nothing else."""

import os
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import resume
import series
import verdict as verdicts
from common import OK, TEST_FAILED, Settings, Trouble


class ResumeTest(unittest.TestCase):
    def setUp(self):
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        self.path = Path(made.name) / "green.json"
        self.sources = "one"
        patched = mock.patch.object(resume, "fingerprint", lambda _settings: self.sources)
        patched.start()
        self.addCleanup(patched.stop)

    def record(self, wanted="1"):
        with mock.patch.dict(os.environ, RESUME=wanted):
            return resume.Record(None, self.path)

    def run_one(self, name, code=OK, record=None):
        record = record or self.record()
        record.begin(name)
        record.end(name, verdicts.Verdict(passed=["x"], skipped=[("y", "why")], code=code))

    def test_green_is_left_out(self):
        self.run_one("docs")
        found = self.record().find("docs")
        self.assertEqual((found.code, found.passed, found.skipped),
                         (OK, ["x"], [("y", "why")]))

    def test_steps_of_a_series(self):
        calls = []

        def judge(why):
            return series.judge(self.record(), "01-x", lambda: calls.append(why) or why)

        def fails():
            raise Trouble(TEST_FAILED, "no build")

        self.assertEqual(judge("bad"), "bad")
        self.assertEqual(series.judge(self.record(), "01-x", fails), "no build")
        self.assertIsNone(judge(None))
        with mock.patch.object(series, "say", calls.append):
            self.assertIsNone(judge("not asked any more"))
        self.sources = "two"
        self.assertEqual(judge("again"), "again")
        self.assertEqual(calls, ["bad", None, "  ok, as before", "again"])

    def test_not_unless_asked(self):
        self.run_one("docs")
        self.assertIsNone(self.record("").find("docs"))
        self.assertIsNone(self.record("0").find("docs"))

    def test_what_was_not_green_runs(self):
        self.run_one("docs", TEST_FAILED)
        self.assertIsNone(self.record().find("docs"))
        self.assertIsNone(self.record().find("um"))

    def test_red_after_green_runs(self):
        self.run_one("docs")
        self.run_one("docs", TEST_FAILED)
        self.assertIsNone(self.record().find("docs"))

    def test_cut_off_after_green_runs(self):
        self.run_one("docs")
        self.record("").begin("docs")
        self.assertIsNone(self.record().find("docs"))

    def test_other_sources_run(self):
        self.run_one("docs")
        self.sources = "two"
        self.assertIsNone(self.record().find("docs"))

    def test_sources_that_change_under_a_phase(self):
        record = self.record()
        record.begin("docs")
        self.sources = "two"
        record.end("docs", verdicts.Verdict(code=OK))
        self.sources = "one"
        self.assertIsNone(self.record().find("docs"))

    def test_two_runs_share_it(self):
        one, two = self.record(), self.record()
        self.run_one("docs", record=one)
        self.run_one("um", record=two)
        self.run_one("docs", TEST_FAILED, record=two)
        self.run_one("arm64", record=one)
        self.assertIsNone(self.record().find("docs"))
        self.assertTrue(self.record().find("um") and self.record().find("arm64"))

    def test_preparations_always_run(self):
        for name in ("deps", "tree", "kernel(plain)"):
            self.run_one(name)
            self.assertIsNone(self.record().find(name))


class FingerprintTest(unittest.TestCase):
    def setUp(self):
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        self.top = Path(made.name)
        patched = mock.patch.object(resume.tree, "base_identity", lambda ksrc: f"base {ksrc}")
        patched.start()
        self.addCleanup(patched.stop)
        subprocess.run(["git", "init", "-q", self.top], check=True)
        (self.top / ".gitignore").write_text("build/\n")
        (self.top / "hmm.c").write_text("one\n")

    def prints(self, **env):
        return resume.fingerprint(Settings(env), self.top)

    def test_what_counts(self):
        seen = [self.prints(), self.prints(APPEND="nokaslr"), self.prints(KSRC="/k")]
        with mock.patch.dict(os.environ, SEED="7"):
            seen.append(self.prints())
        (self.top / "hmm.c").write_text("two\n")
        seen.append(self.prints())
        (self.top / "hmm.c").chmod(0o755)
        seen.append(self.prints())
        (self.top / "hmm.c").rename(self.top / "hmm2.c")
        seen.append(self.prints())
        self.assertEqual(len(set(seen)), len(seen))

    def test_some_files_do_not_count(self):
        def of_some():
            return resume.fingerprint(Settings({}), self.top, lambda name: name != "hmm.c")
        before = of_some()
        (self.top / "hmm.c").write_text("two\n")
        self.assertEqual(of_some(), before)
        (self.top / "other.c").write_text("two\n")
        self.assertNotEqual(of_some(), before)

    def test_without_git(self):
        (self.top / ".git").rename(self.top.parent / (self.top.name + ".git"))
        self.addCleanup(subprocess.run, ["rm", "-rf", f"{self.top}.git"], check=False)
        before = self.prints()
        (self.top / "hmm.c").write_text("two\n")
        self.assertNotEqual(before, self.prints())

    def test_what_is_made_does_not_count(self):
        before = self.prints()
        (self.top / "build").mkdir()
        (self.top / "build/x.o").write_text("x")
        self.assertEqual(before, self.prints())


if __name__ == "__main__":
    unittest.main()
