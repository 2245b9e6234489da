# SPDX-License-Identifier: GPL-2.0
"""Rules of this project that no common tool checks: how long a function may be, and
which room may call which, that each public function says where it may be called, and
that no line ends in blanks."""

import re
from pathlib import Path

LONGEST = 100
MOST = 60           # lines, of 95 functions in 100

# Who may include which of our headers: the floors of the house. The first pattern that
# a file matches is its room. Tests may look everywhere.
GROUND = ("linux/mmu_notifier.h", "trace/events/mmu_notifier.h")
MEMORY = ("linux/memremap.h", "memremap_internal.h")
RANGES = (*GROUND, "linux/memremap.h", "linux/hmm.h", "hmm_internal.h",
          "trace/events/hmm.h")
ROOMS = (
    (r"mm/tests/", None),
    (r"(mm|include/linux|include/trace/events)/mmu_notifier\.[ch]", GROUND),
    (r"(mm|include/linux)/memremap\w*\.[ch]", (*MEMORY, "internal.h")),
    (r"(mm|include/linux)/hmm_devmem\.[ch]", ("linux/memremap.h", "linux/hmm_devmem.h")),
    (r"(mm|include/linux)/hmm_mirror\.[ch]",
     (*GROUND, "linux/hmm.h", "linux/hmm_mirror.h")),
    (r"(mm|include/linux)/hmm[-_]dma\.[ch]",
     (*GROUND, "linux/memremap.h", "linux/hmm.h", "linux/hmm-dma.h")),
    (r"(mm|include/linux|include/trace/events)/hmm\w*\.[ch]", RANGES),
    (r"(mm|include/linux|include/trace/events)/migrate_device\w*\.[ch]",
     (*GROUND, "linux/memremap.h", "linux/migrate.h", "linux/migrate_device.h",
      "migrate_device_internal.h", "internal.h", "trace/events/migrate_device.h")),
    # Drivers: public headers alone.
    (r"(lib|samples)/", (*GROUND[:1], "linux/memremap.h", "linux/hmm.h",
                         "linux/hmm_mirror.h", "linux/hmm-dma.h", "linux/hmm_devmem.h",
                         "linux/migrate.h", "linux/migrate_device.h", "test_hmm.h",
                         "test_hmm_uapi.h", "test_hmm_dma_uapi.h", "hmm_manual.h")),
)
# Headers that have a floor; any other may be included by all.
HOUSE = re.compile(r"^#include [<\"]((?:linux/|trace/events/)?(?:mmu_notifier|memremap|"
                   r"hmm[-\w]*|migrate(?:_device)?|migrate_device_\w+|memremap_\w+|"
                   r"test_hmm\w*|(?:\.\./)*(?:mm/)?internal)\.h)[>\"]", re.M)

FUNCTION = re.compile(r"^\w[^\n;={}]*\([^;{}]*\)[^;{}()]*\n\{\n(.*?)^\}", re.M | re.S)
DOC = re.compile(r"^/\*\*\n \* (\w+)\(\) - .*?\*/", re.M | re.S)
EXPORT = re.compile(r"^EXPORT_SYMBOL(?:_GPL)?\((\w+)\);", re.M)


def parted(source):
    """(name, match of FUNCTION) of each function, as kernel style writes them."""
    for match in FUNCTION.finditer(source):
        head = match[0][:match[0].index("\n{")]
        name = re.search(r"(\w+)\s*\(", head)
        yield name[1] if name else "?", match


def functions(source):
    """(name, lines between its braces) of each function."""
    for name, match in parted(source):
        yield name, match[1].count("\n")


def spans(source):
    """(name, first line, last line) of each function."""
    for name, match in parted(source):
        yield (name, source.count("\n", 0, match.start()) + 1,
               source.count("\n", 0, match.end()) + 1)


def room_of(path):
    for pattern, headers in ROOMS:
        if re.match(pattern, path):
            return headers
    return None


def upwards(path, source):
    """Headers that this file may not include: of a floor above its own."""
    allowed = room_of(path)
    if allowed is None:
        return []
    return [f"{path}: <{name}> is not below it" for name in HOUSE.findall(source)
            if name not in allowed]


def without_context(path, source):
    """Functions whose kernel-doc does not say where they may be called. All exported
    ones have kernel-doc at all."""
    bad = [f"{path}: {doc[1]}() has no Context" for doc in DOC.finditer(source)
           if " * Context: " not in doc[0]]
    known = {doc[1] for doc in DOC.finditer(source)}
    return bad + [f"{path}: {name}() is exported and has no kernel-doc"
                  for name in EXPORT.findall(source)
                  if name + "(" in source and not name.startswith("__") and name not in known]


def too_long(sources):
    """Complaints about the lengths of all functions of {path: source}."""
    found = [(lines, path, name) for path, source in sources.items()
             for name, lines in functions(source)]
    bad = [f"{path}: {name}() has {lines} lines, at most {LONGEST}"
           for lines, path, name in sorted(found, reverse=True) if lines > LONGEST]
    lengths = sorted(lines for lines, _, _ in found)
    if lengths and lengths[len(lengths) * 95 // 100] > MOST:
        bad.append(f"of 100 functions, 5 have more than "
                   f"{lengths[len(lengths) * 95 // 100]} lines, at most {MOST}")
    return bad


def blanks(path, source):
    """Lines that end in blanks: no patch may have them, and checkpatch says so of each."""
    return [f"{path}:{number}: blanks at the end of the line"
            for number, line in enumerate(source.split("\n"), 1) if line != line.rstrip()]


def read(root, paths):
    return {path: (root / path).read_text(encoding="utf-8") for path in map(str, paths)
            if Path(path).suffix in (".c", ".h")}
