# SPDX-License-Identifier: GPL-2.0
"""Links that lead nowhere, and files that are named and are not there."""

import tempfile
import unittest
from pathlib import Path

import links


class Scratch(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.dir = Path(scratch.name)

    def put(self, name, text):
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


class DanglingTest(Scratch):
    def said(self, link, **pages):
        self.put("a.html", f'<p id="here">{link}</p>')
        for name, text in pages.items():
            self.put(f"{name}.html", text)
        return links.dangling(self.dir)

    def test_good_links(self):
        self.assertEqual(self.said('<a href="b.html#there">x</a><a href="#here">y</a>'
                                   '<a href="https://example.org/z">z</a><a href="#">t</a>'
                                   '<a name="n"></a><a href="a.html#n">n</a>',
                                   b='<h1 id="there">b</h1>'), [])

    def test_no_page(self):
        self.assertEqual(self.said('<a href="b.html">x</a>'), ["a.html: b.html: no such file"])

    def test_no_anchor(self):
        self.assertEqual(self.said('<a href="b.html#x">x</a>', b="<p>"),
                         ["a.html: b.html#x: no such place in it"])
        self.assertEqual(self.said('<a href="#x">x</a>'), ["a.html: #x: no such place in it"])

    def test_no_picture(self):
        self.assertEqual(self.said('<img src="p.svg">'), ["a.html: p.svg: no such file"])
        self.assertEqual(self.said('<object data="p.svg"></object>'),
                         ["a.html: p.svg: no such file"])

    def test_each_once(self):
        self.assertEqual(len(self.said('<a href="b.html">x</a><a href="b.html">y</a>')), 1)


class LostFilesTest(Scratch):
    def said(self, text):
        self.put("tree/mm/hmm.c", "")
        self.put("tree/Documentation/vm/hmm.rst", "")
        return links.lost_files([self.put("page.rst", text)],
                                (self.dir / "other", self.dir / "tree"))

    def test_what_is_there(self):
        self.assertEqual(self.said("See Documentation/vm/hmm.rst. In mm/hmm.c, ``mm/``."), [])

    def test_what_is_not(self):
        self.assertEqual(self.said("See Documentation/vm/gone.rst."),
                         ["page.rst: Documentation/vm/gone.rst: no such file"])
        self.assertEqual(self.said("``mm/gone.c``"), ["page.rst: mm/gone.c: no such file"])

    def test_what_is_made_or_more_than_one(self):
        self.assertEqual(self.said("mm/gone.o, mm/{a,b}.c, samples/hmm/my_driver.c, "
                                   "https://example.org/mm/gone.c, 'mm/gone: clear it'"), [])


if __name__ == "__main__":
    unittest.main()
