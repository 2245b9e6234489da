# SPDX-License-Identifier: GPL-2.0
"""Which changes of Debian's changelog concern us, and since when."""

import contextlib
import gzip
import io
import tempfile
import unittest
from pathlib import Path

import fixes
from common import ENVIRONMENT, USAGE, Trouble

CHANGELOG = """\
linux-6.12 (6.12.119-1~deb12u1) bookworm-security; urgency=high

  * Rebuild for bookworm

 -- A. Maintainer <a@example.org>  Sat, 28 Nov 2026 13:56:01 +0100

linux (6.12.119-1) trixie-security; urgency=high

  * New upstream stable update:
    https://www.kernel.org/pub/linux/kernel/v6.x/ChangeLog-6.12.118
    - mm/hmm: a change of the older one of two
    - ksmbd: wait for negotiation before receiving another PDU
    https://www.kernel.org/pub/linux/kernel/v6.x/ChangeLog-6.12.119
    - mm: migrate_device: a subject that goes on
      in the next line (CVE-2026-1)
    - [arm64] KVM: arm64: Transfer the hyp stack pages

  [ A. Maintainer ]
  * mm/memremap: a change of Debian's own

 -- A. Maintainer <a@example.org>  Sat, 28 Nov 2026 13:56:01 +0100

linux (6.12.117-1) trixie-security; urgency=high

  * New upstream stable update:
    https://www.kernel.org/pub/linux/kernel/v6.x/ChangeLog-6.12.117
    - mm/mmu_notifier.c: a change that is in the base
"""

OURS = {"hmm", "mmu_notifier", "memremap", "migrate_device", "test_hmm", "hmm_tests"}
EDITED = {"migrate", "mprotect", "memory_failure"}


class EntriesTest(unittest.TestCase):
    def test_each_has_the_stable_version_that_it_came_with(self):
        found = dict((subject, when) for when, subject in fixes.entries(CHANGELOG))
        self.assertEqual(found["mm/hmm: a change of the older one of two"], (6, 12, 118))
        self.assertEqual(found["mm/mmu_notifier.c: a change that is in the base"],
                         (6, 12, 117))
        self.assertEqual(found["mm/memremap: a change of Debian's own"], (6, 12, 119))

    def test_lines_that_go_on_are_one_subject(self):
        self.assertIn("mm: migrate_device: a subject that goes on in the next line "
                      "(CVE-2026-1)", [subject for _, subject in fixes.entries(CHANGELOG)])

    def test_other_text_has_none(self):
        self.assertEqual(list(fixes.entries("all: hmm\n    - mm/hmm: no version\n")), [])


class KindTest(unittest.TestCase):
    def kind(self, subject):
        return fixes.kind(subject, OURS, EDITED)

    def test_files_that_ours_replace(self):
        for subject in ("mm/hmm: fix it", "mm: hmm: fix it", "mm/mmu_notifier.c: fix it",
                        "lib/test_hmm.c: fix it", "lib: test_hmm: fix it",
                        "selftests/mm: hmm-tests: fix it", "[x86] mm/memremap: fix it",
                        'Revert "mm/hmm: fix it"', "mm, hmm: fix it"):
            self.assertEqual(self.kind(subject), "replaced", subject)

    def test_files_that_patches_edit(self):
        for subject in ("mm/migrate: fix it", "mm: mprotect: fix it",
                        "mm/memory-failure: fix it"):
            self.assertEqual(self.kind(subject), "patched", subject)

    def test_what_is_around_them(self):
        for subject in ("mm/mm_init: fix struct pages for ZONE_DEVICE",
                        "block: relax a check for compatible zone device pages",
                        "drm/amdkfd: take the MMU notifier first",
                        "mm/memcg: fix device private memcg accounting"):
            self.assertEqual(self.kind(subject), "around", subject)

    def test_other_things_of_the_same_name(self):
        for subject in ("[arm64] hwmon: (xgene) Fix ioremap and memremap leak",
                        "arm/memremap: fix arch_memremap_can_ram_remap()",
                        "thermal: core: Fix thermal zone device registration error path",
                        "thermal: Fix deadlock in thermal thermal_zone_device_check",
                        "drm/i915: migrate: fix it", "mm/damon/core: error out"):
            self.assertIsNone(self.kind(subject), subject)


class SelectTest(unittest.TestCase):
    def test_newest_first_and_nothing_of_the_base(self):
        found = [(when, what) for when, what, _ in fixes.select(CHANGELOG, (6, 12, 117))]
        self.assertEqual(found, [((6, 12, 119), "replaced"), ((6, 12, 119), "replaced"),
                                 ((6, 12, 118), "replaced")])

    def test_nothing_since_the_last(self):
        self.assertEqual(fixes.select(CHANGELOG, (6, 12, 119)), [])

    def test_the_lists_are_those_of_the_repository(self):
        self.assertLessEqual(OURS, fixes.replaced())
        self.assertLessEqual(EDITED, fixes.patched())


class VerbTest(unittest.TestCase):
    def run_verb(self, data, **env):
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "changelog"
            path.write_bytes(data)
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                code = fixes.verb_fixes({"FILE": str(path), **env})
        return code, out.getvalue()

    def test_compressed_or_not(self):
        for data in (CHANGELOG.encode(), gzip.compress(CHANGELOG.encode())):
            code, out = self.run_verb(data, SINCE="6.12.117")
            self.assertEqual(code, 0)
            self.assertIn("6.12.118   replaced  mm/hmm: a change", out)
            self.assertIn("3 changes concern us, after 6.12.117 and up to 6.12.119", out)

    def test_what_is_no_changelog_is_an_error(self):
        for data in (b"", b"Hello\n", gzip.compress(CHANGELOG.encode())[:50]):
            with self.assertRaises(Trouble) as caught:
                self.run_verb(data)
            self.assertEqual(caught.exception.code, ENVIRONMENT)

    def test_a_file_that_is_not_there_is_an_error(self):
        with self.assertRaises(Trouble) as caught:
            fixes.verb_fixes({"FILE": "/nonexistent/changelog"})
        self.assertEqual(caught.exception.code, ENVIRONMENT)

    def test_a_version_that_is_none_is_wrong_usage(self):
        for since in ("x", "6", "6.12.x", "6.12.1.2"):
            with self.assertRaises(Trouble) as caught:
                self.run_verb(CHANGELOG.encode(), SINCE=since)
            self.assertEqual(caught.exception.code, USAGE, since)


if __name__ == "__main__":
    unittest.main()
