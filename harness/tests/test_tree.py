# SPDX-License-Identifier: GPL-2.0
"""The overlay, on a small made-up base and repository."""

import os
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import common                   # noqa: E402
import tree                     # noqa: E402

BASE = {
    "Makefile": "VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 1\n",
    "MAINTAINERS": "Head\n\nMaintainers List\n----------------\n\n.. note:: sorted\n\n"
                   "AAA\nF:\ta/\n\nHMM\nF:\told\n\nZZZ\nF:\tz/\n\nTHE REST\nF:\t*\n",
    "mm/Kconfig": "menu\n\nsource \"mm/damon/Kconfig\"\n\nendmenu\n",
    "mm/hmm.c": "stock hmm\n",
    "mm/other.c": "stock other\n",
    "lib/old_name.c": "stock, of another name\n",
}
PATCH = """Subject: source ours

---
--- a/mm/Kconfig
+++ b/mm/Kconfig
@@ -3,3 +3,5 @@
 source "mm/damon/Kconfig"
 
+source "mm/Kconfig.hmm"
+
 endmenu
"""
REPO = {
    "Kconfig": "config OURS\n",
    "MAINTAINERS": "HMM\nF:\tnew\n\nMMU NOTIFIERS\nF:\tmm/mmu_notifier.c\n",
    "harness/replaces": "mm/hmm.c\nmm/memremap.c  # not ours yet\n"
                        "lib/old_name.c lib/new_name.c\n",
    "patches/series": "source.patch\n",
    "patches/source.patch": PATCH,
    "mm/hmm.c": "our hmm\n",
    "lib/new_name.c": "ours\n",
}


def fill(where, files):
    for name, text in files.items():
        path = where / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


class TreeTest(unittest.TestCase):
    """Each case starts with a base, a repository and no tree."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.top = Path(scratch.name)
        self.base, self.repo = self.top / "base", self.top / "repo"
        fill(self.base, BASE)
        fill(self.repo, REPO)
        saved = tree.STATE
        tree.STATE = self.top / "state"
        self.addCleanup(setattr, tree, "STATE", saved)
        self.settings = common.Settings({"TREE": str(self.top / "tree"),
                                         "KSRC": str(self.base)})
        self.tree = self.settings.tree

    def sync(self):
        return tree.ensure_tree(self.settings, self.repo)

    def read(self, name):
        return (self.tree / name).read_text()

    def trouble(self):
        with self.assertRaises(common.Trouble) as caught:
            self.sync()
        return caught.exception

    def test_ours_lie_over_stock(self):
        self.sync()
        self.assertEqual(self.read("mm/hmm.c"), "our hmm\n")
        self.assertEqual(self.read("mm/other.c"), "stock other\n")
        self.assertEqual(self.read("mm/Kconfig.hmm"), "config OURS\n")
        self.assertIn('source "mm/Kconfig.hmm"', self.read("mm/Kconfig"))

    def test_a_replaced_file_of_another_name_goes(self):
        self.sync()
        self.assertFalse((self.tree / "lib/old_name.c").exists())
        self.assertEqual(self.read("lib/new_name.c"), "ours\n")

    def test_the_tree_holds_nothing_else(self):
        self.sync()
        found = {str(p.relative_to(self.tree)) for p in self.tree.rglob("*")
                 if p.is_file()}
        self.assertEqual(found, set(BASE) - {"lib/old_name.c"}
                         | {"mm/Kconfig.hmm", "lib/new_name.c"})

    def test_objects_of_the_base_are_left_behind(self):
        fill(self.base, {"mm/hmm.o": "", ".config": "", "vmlinux": ""})
        self.sync()
        for name in ("mm/hmm.o", ".config", "vmlinux"):
            self.assertFalse((self.tree / name).exists(), name)

    def test_unchanged_files_keep_their_time(self):
        self.sync()
        for path in self.tree.rglob("*"):
            os.utime(path, (1, 1))
        self.assertEqual(self.sync(), [])
        for path in self.tree.rglob("*"):
            self.assertEqual(path.stat().st_mtime, 1, path)

    def test_an_edit_changes_one_file(self):
        self.sync()
        (self.repo / "mm/hmm.c").write_text("our newer hmm\n")
        self.assertEqual(self.sync(), ["mm/hmm.c"])
        self.assertEqual(self.read("mm/hmm.c"), "our newer hmm\n")

    def test_stock_returns_when_ours_goes(self):
        self.sync()
        for name in ("mm/hmm.c", "lib/new_name.c", "patches/source.patch"):
            (self.repo / name).unlink()
        (self.repo / "patches/series").write_text("")
        self.sync()
        for name in ("mm/hmm.c", "lib/old_name.c", "mm/Kconfig"):
            self.assertEqual(self.read(name), BASE[name])
        self.assertFalse((self.tree / "lib/new_name.c").exists())

    def test_a_failed_hunk_names_its_patch(self):
        text = PATCH.replace("damon", "demon")
        (self.repo / "patches/source.patch").write_text(text)
        error = self.trouble()
        self.assertEqual(error.code, common.BUILD_FAILED)
        self.assertIn("patches/source.patch", str(error))

    def test_fuzz_is_a_failure(self):
        text = PATCH.replace(' source "mm/damon/Kconfig"\n \n',
                             ' something else\n source "mm/damon/Kconfig"\n \n')
        text = text.replace("@@ -3,3 +3,5 @@", "@@ -2,4 +2,6 @@")
        (self.repo / "patches/source.patch").write_text(text)
        self.assertIn("does not apply", str(self.trouble()))

    def test_a_patch_outside_the_series_is_an_error(self):
        (self.repo / "patches/stray.patch").write_text(PATCH)
        self.assertIn("stray.patch", str(self.trouble()))

    def test_a_missing_patch_is_an_error(self):
        (self.repo / "patches/series").write_text("source.patch\ngone.patch\n")
        self.assertIn("gone.patch", str(self.trouble()))

    def test_an_unknown_version_is_named(self):
        (self.base / "Makefile").write_text("VERSION = 6\nPATCHLEVEL = 13\n")
        error = self.trouble()
        self.assertEqual(error.code, common.ENVIRONMENT)
        self.assertIn("6.13", str(error))

    def test_no_kernel_at_all(self):
        (self.base / "Makefile").unlink()
        self.assertIn("not a kernel source tree", str(self.trouble()))

    def test_a_foreign_directory_is_not_touched(self):
        fill(self.tree, {"precious": "data\n"})
        self.assertIn("was not made by", str(self.trouble()))
        self.assertEqual(self.read("precious"), "data\n")

    def test_maintainers_are_merged_in_order(self):
        self.sync()
        text = self.read("MAINTAINERS")
        self.assertNotIn("old", text)
        titles = [block.split("\n")[0] for block in text.split("\n\n")[3:]]
        self.assertEqual(titles, ["AAA", "HMM", "MMU NOTIFIERS", "ZZZ", "THE REST"])


if __name__ == "__main__":
    unittest.main()
