# SPDX-License-Identifier: GPL-2.0
"""Which of sparse's words count."""

import unittest

import lint

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


if __name__ == "__main__":
    unittest.main()
