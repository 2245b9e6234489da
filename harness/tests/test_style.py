# SPDX-License-Identifier: GPL-2.0
"""The project's own rules: how long functions are, and who includes whom."""

import unittest

import style
from common import REPO

SOURCE = """\
struct foo {
	int a;
};

static int two(struct foo *foo,
	       int b)
{
	foo->a = b;
	return 0;
}

void one(void)
{
	two(NULL, 1);
}
"""


class LengthTest(unittest.TestCase):
    def test_functions_and_their_lines(self):
        self.assertEqual(list(style.functions(SOURCE)), [("two", 2), ("one", 1)])

    def test_most_functions_are_found(self):
        text = (REPO / "mm/hmm_walk.c").read_text(encoding="utf-8")
        names = [name for name, _ in style.functions(text)]
        for name in ("hmm_walk_on", "hmm_walk_pud", "hmm_fill_folios"):
            self.assertIn(name, names)
        self.assertLessEqual(abs(text.count("\n{\n") - len(names)), 1)

    def test_a_long_one_is_named(self):
        long = "int f(void)\n{\n" + "\tg();\n" * (style.LONGEST + 1) + "}\n"
        self.assertIn("a.c: f()", style.too_long({"a.c": long, "b.c": SOURCE * 20})[0])
        self.assertEqual(style.too_long({"b.c": SOURCE}), [])

    def test_many_that_are_too_long(self):
        long = "int f(void)\n{\n" + "\tg();\n" * (style.MOST + 1) + "}\n"
        self.assertEqual(len(style.too_long({"a.c": long * 10 + SOURCE})), 1)


class ContextTest(unittest.TestCase):
    GOOD = ("/**\n * f() - does it\n * @x: what\n *\n * Context: Any.\n * Return: 0.\n */\n"
            "int f(int x)\n{\n}\nEXPORT_SYMBOL_GPL(f);\n")

    def test_good(self):
        self.assertEqual(style.without_context("a.c", self.GOOD), [])
        self.assertEqual(style.without_context(
            "a.c", "/**\n * struct f - it\n */\nEXPORT_SYMBOL_GPL(key);\n"), [])

    def test_no_context(self):
        bad = self.GOOD.replace(" * Context: Any.\n", "")
        self.assertEqual(style.without_context("a.c", bad), ["a.c: f() has no Context"])

    def test_no_kernel_doc(self):
        bad = self.GOOD.replace("/**", "/*")
        self.assertEqual(style.without_context("a.c", bad),
                         ["a.c: f() is exported and has no kernel-doc"])


class FloorTest(unittest.TestCase):
    def said(self, path, *headers):
        return style.upwards(path, "".join(f"#include {name}\n" for name in headers))

    def test_upwards_is_named(self):
        self.assertTrue(self.said("mm/mmu_notifier.c", "<linux/hmm.h>"))
        self.assertTrue(self.said("include/linux/hmm.h", "<linux/hmm_mirror.h>"))
        self.assertTrue(self.said("mm/memremap.c", "<linux/hmm_devmem.h>"))

    def test_drivers_have_public_headers_alone(self):
        for path in ("lib/test_hmm_main.c", "samples/hmm/hmm_sample.c"):
            self.assertEqual(self.said(path, "<linux/hmm.h>", "<linux/slab.h>"), [])
            self.assertTrue(self.said(path, '"../mm/internal.h"'))
            self.assertTrue(self.said(path, '"hmm_internal.h"'))

    def test_downwards_and_others_are_not(self):
        self.assertEqual(self.said("mm/hmm_mirror.c", "<linux/hmm.h>", "<linux/mm.h>",
                                   "<linux/mmu_notifier.h>"), [])
        self.assertEqual(self.said("mm/tests/hmm_kunit.c", '"../hmm_internal.h"'), [])


class BlanksTest(unittest.TestCase):
    def test_each_line_is_named(self):
        self.assertEqual(style.blanks("a.svg", "<svg \n>\n\t\n"),
                         ["a.svg:1: blanks at the end of the line",
                          "a.svg:3: blanks at the end of the line"])
        self.assertEqual(style.blanks("a.svg", "<svg\n>\n\n"), [])


if __name__ == "__main__":
    unittest.main()
