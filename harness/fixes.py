# SPDX-License-Identifier: GPL-2.0
"""What has been fixed in 6.12.y, since our base, in files that ours replace.

Debian's changelog lists each stable commit by its subject line and nothing else, so
the subject has to tell which file it is about. Which files matter is read from
harness/replaces and from patches/, so that this list cannot fall behind those.
"""

import gzip
import os
import re
import zlib
from pathlib import Path

import tree
from common import ENVIRONMENT, OK, REPO, USAGE, Trouble, read_text, say

# The stock files that ours were last compared with. Raise it when what 'make fixes'
# lists has been looked at, one by one.
BASE = "6.12.117"
CHANGELOG = Path("/usr/share/doc/linux-source-6.12/changelog.Debian.gz")

# Where a subject can begin that is about a file of ours: no 'arm64/memremap: '.
PLACES = ("mm", "lib", "selftests", "tools", "include", "docs", "documentation",
          "samples", "revert")
AROUND = re.compile(r"device[-_ ](?:private|coherent|exclusive)|\bzone_device|"
                    r"\bzone device (?:page|folio|memory)|\bhmm\b|"
                    r"mmu[-_ ](?:interval[-_ ])?notifier|dev_?pagemap|\bpgmap\b|"
                    r"memremap_pages|migrate_(?:vma|device)", re.I)


def version(text):
    """(6, 12, 117) of '6.12.117', or of a Debian version that begins like that."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?(?![\d.])", text)
    return tuple(int(n or 0) for n in found.groups()) if found else None


def dotted(numbers):
    return ".".join(str(n) for n in numbers)


def entries(text):
    """(version, subject) of each change, in the order of the changelog.

    The version is the stable one that the change came with, named by the address of
    its ChangeLog; for a change of Debian's own, that of the package.
    """
    current = subject = None
    for line in text.splitlines() + [""]:
        more = re.match(r"      (?! )(.*)", line)
        if subject and more:
            subject += " " + more[1]
            continue
        if subject and current:
            yield current, subject
        subject = None
        if found := re.match(r"linux\S* \(([^)]+)\)", line):
            current = version(found[1])
        elif found := re.search(r"/ChangeLog-(\S+)$", line):
            current = version(found[1])
        elif found := re.match(r"(?:    -|  \*) (.*)", line):
            subject = found[1]


def areas(subject):
    """('mm', 'hmm') of '[x86] mm/hmm.c: keep it', or of 'mm: hmm: keep it'."""
    subject = re.sub(r"^(?:\[[^]]*\] )+", "", subject)
    subject = re.sub(r'^Revert "', "revert/", subject)
    parts = subject.split(": ")[:-1]
    words = re.split(r"[/,\s]+", " ".join(parts).lower())
    return tuple(re.sub(r"\.[chs]$|\.rst$", "", w).replace("-", "_") for w in words if w)


def stems(paths):
    return {Path(path).stem.replace("-", "_") for path in paths}


def replaced():
    """The stems of stock files that go, and of the tests that measure ours."""
    lines = read_text(REPO / "harness/replaces").splitlines()
    paths = [line.split()[0] for line in lines if line.split("#")[0].strip()]
    return stems(paths) | {"hmm_tests", "mmu_notifiers"}


def patched():
    """The stems of core files that patches/ edits: 'migrate' of mm/migrate.c."""
    paths = [path for name in tree.series(REPO)
             for path in tree.patched_files(read_text(REPO / "patches" / name))]
    return stems(p for p in paths if re.fullmatch(r"mm/\w[\w-]*\.c", p))


def kind(subject, ours, edited):
    """How a change concerns us: 'replaced', 'patched', 'around', or None."""
    where = areas(subject)
    if where and where[0] in PLACES:
        if ours & set(where[1:]):
            return "replaced"
        if where[0] in ("mm", "revert") and edited & set(where[1:]):
            return "patched"
    return "around" if AROUND.search(subject) else None


def select(text, since):
    """(version, kind, subject) of what concerns us, newest first, each once."""
    ours, edited = replaced(), patched()
    found = {}
    for when, subject in entries(text):
        what = kind(subject, ours, edited)
        if what and when > since:
            found.setdefault((when, subject), what)
    chosen = [(when, what, subject) for (when, subject), what in found.items()]
    return sorted(chosen, key=lambda entry: entry[0], reverse=True)


def read_changelog(path):
    """The text of a changelog, compressed or not."""
    try:
        data = Path(path).read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or error
        raise Trouble(ENVIRONMENT, f"{path}: {why}") from error
    return data.decode("utf-8", "replace")


def verb_fixes(env=None):
    env = os.environ if env is None else env
    path, since = env.get("FILE") or CHANGELOG, env.get("SINCE") or BASE
    after = version(since)
    if after is None:
        raise Trouble(USAGE, f"SINCE={since}: a version such as {BASE}")
    text = read_changelog(path)
    newest = max((when for when, _ in entries(text)), default=None)
    if newest is None:
        raise Trouble(ENVIRONMENT, f"{path}: no change found: is it a changelog of "
                      "Debian's kernel?")
    found = select(text, after)
    for when, what, subject in found:
        say(f"{dotted(when):10} {what:9} {subject}")
    say(f"{path}: {len(found)} changes concern us, after {dotted(after)} and up to "
        f"{dotted(newest)}")
    return OK
