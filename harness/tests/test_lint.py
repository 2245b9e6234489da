# SPDX-License-Identifier: GPL-2.0
"""Which of sparse's words count."""

import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import lint
from common import have

SOURCE = """\
static int locks(struct foo *foo)
{
	spin_unlock(&foo->lock);
}

static int maps(pmd_t *pmd,
		unsigned long addr)
{
	if (!ptep)
		return 0;
	pte_unmap(ptep);
	return 1;
}

static void lists(struct folio *folio)
{
	unlock_page_lruvec_irq(folio_lruvec_lock_irq(folio));
}
"""


def warning(function, what="unexpected unlock"):
    return (f"/x/mm/hmm.c:261:18: warning: context imbalance in '{function}' - {what}")


class SparseTest(unittest.TestCase):
    def said(self, *lines):
        return lint.said_of("mm/hmm.c", "\n".join(lines), SOURCE)

    def test_unmapping_a_table_is_no_imbalance(self):
        self.assertEqual(self.said(warning("maps")), [])

    def test_the_lock_of_lru_lists_is_no_imbalance(self):
        self.assertEqual(self.said(warning("lists")), [])

    def test_other_imbalances_count(self):
        lines = [warning("locks"), warning("maps", "wrong count at exit")]
        self.assertEqual(self.said(*lines), lines)

    def test_a_function_elsewhere_counts(self):
        self.assertEqual(self.said(warning("nowhere")), [warning("nowhere")])

    def test_other_files_do_not_count(self):
        self.assertEqual(self.said(warning("locks").replace("hmm.c", "gup.c")), [])

    def test_repeated_words_count_once(self):
        self.assertEqual(self.said(warning("locks"), warning("locks")), [warning("locks")])


SCRIPT = """// Options: --no-includes
virtual report

@r@
position p;
@@
foo@p(...)

@script:python depends on report@
p << r.p;
@@
coccilib.report.print_report(p[0], "foo is not to be called")
"""


@unittest.skipUnless(have("spatch"), "coccinelle is not installed")
class CoccinelleTest(unittest.TestCase):
    def setUp(self):
        where = tempfile.TemporaryDirectory()
        self.addCleanup(where.cleanup)
        self.tree = Path(where.name)
        self.script = self.tree / "foo.cocci"
        self.script.write_text(SCRIPT)
        self.sources = {"a.c": "int a(void)\n{\n\treturn foo();\n}\n",
                        "b.c": "int b(void)\n{\n\treturn 0;\n}\n"}

    def said(self):
        """What it says now, and of which files it was asked."""
        for path, text in self.sources.items():
            (self.tree / path).write_text(text)
        clean = lint.Clean(self.tree / "clean.json")
        with mock.patch.object(lint.subprocess, "run", wraps=lint.subprocess.run) as run:
            said = lint.coccinelle(SimpleNamespace(tree=self.tree), self.script,
                                   self.sources, clean)
        clean.save()
        asked = run.call_args[0][0] if run.called else []
        return said, [path for path in self.sources if path in asked]

    def test_only_what_is_not_known_to_be_clean_is_asked_again(self):
        said, asked = self.said()
        self.assertEqual((len(said), asked), (1, ["a.c", "b.c"]))
        said, asked = self.said()
        self.assertEqual((len(said), asked), (1, ["a.c"]))
        self.sources["a.c"] = self.sources["b.c"].replace(" b", " a")
        self.assertEqual(self.said(), ([], ["a.c"]))
        self.assertEqual(self.said(), ([], []))
        self.sources["b.c"] = self.sources["b.c"].replace("0", "foo()")
        said, asked = self.said()
        self.assertEqual((len(said), asked), (1, ["b.c"]))

    def test_another_script_asks_anew(self):
        self.sources.pop("a.c")
        self.assertEqual(self.said(), ([], ["b.c"]))
        self.script.write_text(SCRIPT.replace("foo@p", "bar@p"))
        self.assertEqual(self.said(), ([], ["b.c"]))


if __name__ == "__main__":
    unittest.main()
