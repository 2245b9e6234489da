# SPDX-License-Identifier: GPL-2.0
"""Do the links of the manual lead anywhere?

Sphinx complains of references of its own that dangle, and of nothing else: not of a
file of the tree that a sentence names, nor of an anchor that a page does not have.
"""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from common import read_text

# A path of the tree in running text: a directory that we have files in, and a file.
NAMED = re.compile(r"(?<![\w/.$])((?:Documentation|include|lib|mm|samples|tools|drivers|"
                   r"harness|patches)/[\w./*{},-]*\w/?)")
# Made at build time, by the reader, or more than one path.
SPARED = re.compile(r"[*{},]|\.k?o$|/my_")
# The subject of a commit begins like a path.
SUBJECT = re.compile(r"\bmm/\w+: [a-z]")


class Page(HTMLParser):
    """What one page of HTML links to, and what may be linked to in it."""

    def __init__(self, text):
        super().__init__()
        self.links = []
        self.anchors = {""}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors.update(v for k, v in attrs.items() if k in ("id", "name") and v)
        link = attrs.get({"a": "href", "img": "src", "object": "data"}.get(tag, ""))
        if link:
            self.links.append(link)


def dangling(directory):
    """Complaints of the links in the HTML pages of a directory."""
    pages = {p: Page(read_text(p)) for p in sorted(Path(directory).rglob("*.html"))}
    said = []
    for path, page in pages.items():
        for link in dict.fromkeys(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path.parent / unquote(parts.path) if parts.path else path
            target = target.resolve()
            if not target.is_file():
                said.append(f"{path.name}: {link}: no such file")
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                said.append(f"{path.name}: {link}: no such place in it")
    return said


def lost_files(sources, roots):
    """Complaints of files that texts name and that none of the roots has."""
    said = []
    for source in sources:
        for name in dict.fromkeys(NAMED.findall(SUBJECT.sub("", read_text(source)))):
            if not SPARED.search(name) and not any((Path(r) / name).exists() for r in roots):
                said.append(f"{Path(source).name}: {name}: no such file")
    return said
