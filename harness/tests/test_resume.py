# SPDX-License-Identifier: GPL-2.0
"""What RESUME=1 leaves out: what was green on the same sources, nothing else."""

import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import resume
import verdict as verdicts
from common import OK, TEST_FAILED, Settings


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

    def keep(self, name, code=OK):
        self.record().keep(name, verdicts.Verdict(passed=["x"], skipped=[("y", "why")],
                                                  code=code))

    def test_green_is_left_out(self):
        self.keep("docs")
        found = self.record().find("docs")
        self.assertEqual((found.code, found.passed, found.skipped),
                         (OK, ["x"], [("y", "why")]))

    def test_not_unless_asked(self):
        self.keep("docs")
        self.assertIsNone(self.record("").find("docs"))
        self.assertIsNone(self.record("0").find("docs"))

    def test_what_was_not_green_runs(self):
        self.keep("docs", TEST_FAILED)
        self.assertIsNone(self.record().find("docs"))
        self.assertIsNone(self.record().find("um"))

    def test_red_after_green_runs(self):
        self.keep("docs")
        self.keep("docs", TEST_FAILED)
        self.assertIsNone(self.record().find("docs"))

    def test_other_sources_run(self):
        self.keep("docs")
        self.sources = "two"
        self.assertIsNone(self.record().find("docs"))

    def test_preparations_always_run(self):
        for name in ("deps", "tree", "kernel(plain)"):
            self.keep(name)
            self.assertIsNone(self.record().find(name))


class FingerprintTest(unittest.TestCase):
    def setUp(self):
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        self.top = Path(made.name)
        (self.top / "mm").mkdir()
        (self.top / "mm/hmm.c").write_text("one\n")

    def prints(self, **env):
        return resume.fingerprint(Settings(env), self.top)

    def test_contents_names_and_settings_count(self):
        seen = {self.prints(), self.prints(APPEND="nokaslr")}
        (self.top / "mm/hmm.c").write_text("two\n")
        seen.add(self.prints())
        (self.top / "mm/hmm.c").rename(self.top / "mm/hmm2.c")
        seen.add(self.prints())
        self.assertEqual(len(seen), 4)

    def test_what_is_made_does_not_count(self):
        before = self.prints()
        (self.top / "__pycache__").mkdir()
        (self.top / "__pycache__/x.pyc").write_text("x")
        self.assertEqual(before, self.prints())


if __name__ == "__main__":
    unittest.main()
