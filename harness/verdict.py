# SPDX-License-Identifier: GPL-2.0
"""What a boot amounts to.

A verdict starts as "not started" and turns to passed only when all of this
holds: every expected test reported, none failed, the guest said that it was
done, QEMU ended well, and the console shows no splat. KTAP is read by the
kernel's own parser; this file only cuts the results channel into the pieces
that the parser takes, and flattens what the parser returns.
"""

import contextlib
import fnmatch
import io
import re
import sys
from dataclasses import dataclass, field

from common import HANG, OK, SPLAT, STDOUT, TEST_FAILED, read_text

GUEST = "hmm-guest: "
TIMESTAMP = re.compile(r"^(?:<\d+>)?\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ?", re.M)

SPLATS = re.compile(
    r"\bWARNING:|\bBUG:|\bkernel BUG at|\bKASAN:|\bKCSAN:|\bUBSAN:|possible circular"
    r"|possible recursive|INFO: possible|inconsistent lock state|suspicious RCU"
    r"|INFO: rcu|INFO: task .* blocked for more|soft lockup|hard LOCKUP"
    r"|unreferenced object|\bOops\b|Kernel panic|general protection|Internal error:"
    r"|Bad page state|refcount_t:|nobody cared|stack-protector:")
SPLATS_NAMED = 6
PLAIN_WARNING = re.compile(r"\bWARNING: CPU: \d+ PID: \d+ at ")
BRACKET = re.compile(r"kunit-(?:(expect|allow)s)-warning: (begin|end) (\S+)")


@dataclass
class Verdict:
    """Counts are lists of names, so that each can be shown."""

    state: str = "not started"
    passed: list = field(default_factory=list)
    failed: list = field(default_factory=list)      # (name, why)
    skipped: list = field(default_factory=list)     # (name, reason)
    splats: list = field(default_factory=list)      # first line of each
    races: list = field(default_factory=list)       # data races of others alone
    first_splat: list = field(default_factory=list)  # all lines of the first
    code: int = TEST_FAILED
    status: int = None                              # what a demo exited with

    def fail(self, name, why):
        self.failed.append((name, why))

    def settle(self, name, why):
        """Passed if the reason is None, or else failed; the code follows."""
        if why is None:
            self.passed.append(name)
        else:
            self.fail(name, why)
            self.code = TEST_FAILED

    def names(self):
        return (set(self.passed) | {n for n, _ in self.failed}
                | {n for n, _ in self.skipped})


# --- the console ------------------------------------------------------------

RACE = re.compile(r"BUG: KCSAN: data-race in (\S+)(?: / (\S+))?")


def is_race_of_others(line, ours):
    """A data race in whose two accesses none of the functions `ours` has a part. Core
    has many that it knows of and lives with."""
    found = RACE.search(line)
    return bool(found and ours is not None
                and not {name.split(".")[0] for name in found.groups() if name} & ours)


def find_splats(text):
    """(splats, trouble with expected warnings), each a list of (line, text).

    Between the two marks of a KUnit case that provokes a warning on purpose
    there must be exactly one plain warning, or at most one where it is only
    allowed; nothing else is let pass.
    """
    splats, trouble = [], []
    inside, warned, opened = None, 0, 0
    for number, line in enumerate(text.splitlines()):
        mark = BRACKET.search(line)
        if mark:
            how, what, name = mark.groups()
            if what == "begin":
                if inside:
                    trouble.append((opened, f"expected warning of {inside}: never closed"))
                inside, warned, opened = name, 0, number
                continue
            if inside != name:
                trouble.append((number, f"expected warning of {name}: end without begin"))
            elif warned > 1 or (how == "expect" and not warned):
                trouble.append((number, f"{how}ed one warning in {name}, saw {warned}"))
            inside = None
        elif SPLATS.search(line):
            if inside and PLAIN_WARNING.search(line):
                warned += 1
            else:
                splats.append((number, TIMESTAMP.sub("", line).strip()))
    if inside:
        trouble.append((opened, f"expected warning of {inside}: never closed"))
    return splats, trouble


def splat_lines(text, number, most=120):
    """The lines of the splat that begins near line `number`."""
    lines = text.splitlines()
    begin = number
    while begin > max(0, number - 3) and "cut here" not in lines[begin]:
        begin -= 1
    if "cut here" not in lines[begin]:
        begin = number
    end = begin + 1
    while end < min(len(lines), begin + most):
        end += 1
        if re.search(r"end trace|end Kernel panic", lines[end - 1]):
            break
    return lines[begin:end]


# --- KTAP, by the kernel's parser -------------------------------------------

def parser(tree):
    """kunit_parser of the tree, its own printing kept quiet."""
    where = str(tree / "tools/testing/kunit")
    if where not in sys.path:
        sys.path.insert(0, where)
    import kunit_parser     # pylint: disable=import-outside-toplevel
    import kunit_printer    # pylint: disable=import-outside-toplevel
    quiet = kunit_printer.Printer(io.StringIO())
    kunit_parser.stdout = quiet
    return kunit_parser, quiet


def parse_ktap(tree, text):
    """(root test, the parser's complaints)."""
    with STDOUT:
        module, quiet = parser(tree)
        with contextlib.redirect_stdout(io.StringIO()):
            root = module.parse_run_tests(text.splitlines())
        said = quiet._output.getvalue()     # pylint: disable=protected-access
    return root, re.findall(r"\[ERROR\] Test: (.*)", said)


SKIP = re.compile(r"^\s*(?:# )*(?:not )?ok \d+ (?:- )?(.*?)\s*# SKIP\s*(.*)$", re.M)


def skip_reasons(text):
    return {name: reason.strip() for name, reason in SKIP.findall(text)}


def add_tree(verdict, test, name, reasons):
    """Add a parsed test and everything below it; True when all is well."""
    label = test.status.name
    if not test.subtests:
        if label == "SUCCESS":
            verdict.passed.append(name)
        elif label == "SKIPPED":
            verdict.skipped.append((name, reasons.get(test.name, "") or "no reason given"))
        else:
            verdict.fail(name, {"FAILURE": "failed", "NO_TESTS": "ran no tests"}.get(
                label, "no result (crashed or cut off)"))
        return label in ("SUCCESS", "SKIPPED")
    well = True
    for number, sub in enumerate(test.subtests, 1):
        below = f"{name}.{sub.name or f'(number {number})'}" if name else sub.name
        well &= add_tree(verdict, sub, below, reasons)
    if well and label not in ("SUCCESS", "SKIPPED"):
        verdict.fail(name, "failed as a whole, though each part passed")
        well = False
    return well


def add_kunit(verdict, tree, suite, text):
    """One suite's results as debugfs gives them."""
    root, errors = parse_ktap(tree, text)
    before = len(verdict.failed)
    found = [t for t in root.subtests if t.name == suite]
    if not found:
        verdict.fail(f"kunit:{suite}", "no result")
        return
    add_tree(verdict, found[0], f"kunit:{suite}", skip_reasons(text))
    if errors and len(verdict.failed) == before:
        verdict.fail(f"kunit:{suite}", "; ".join(errors))


RUNNER_RESULT = re.compile(r"^(ok|not ok) \d+ selftests: (\S+): (\S+)(?: # (.*))?$")


def add_program(verdict, tree, name, text, status):
    """A program that ran by itself; its exit status has to agree with what it says."""
    before = len(verdict.failed)
    add_one_selftest(verdict, tree, f"mm:{name}", "ok", "", text)
    if f"mm:{name}" in verdict.passed:
        verdict.passed.remove(f"mm:{name}")
        verdict.fail(f"mm:{name}", "no results")
    elif status != 0 and len(verdict.failed) == before:
        verdict.fail(f"mm:{name}", f"exit status {status}")


def split_runner(text):
    """kselftest's runner output, cut by test: (name, result, remark, own lines)."""
    own = []
    for line in text.splitlines():
        match = RUNNER_RESULT.match(line)
        if match:
            yield match[3], match[1], match[4] or "", own
            own = []
        elif line.startswith("# "):
            own.append(line[2:])
        elif line.strip() == "#":
            own.append("")
    if any(re.match(r"selftests: ", line) for line in own):
        started = [line for line in own if line.startswith("selftests: ")][-1]
        yield started.split(": ")[-1], "cut off", "", own


def add_kselftest(verdict, tree, text):
    """All that kselftest's runner printed.

    The guest has the device that the tests need. One program may find that it
    lacks something else; when all of them skip, the device is not there.
    """
    programs = list(split_runner(text))
    for test, result, remark, own in programs:
        add_one_selftest(verdict, tree, f"vm:{test}", result, remark, "\n".join(own))
    if programs and all(remark.startswith("SKIP") for _, _, remark, _ in programs):
        verdict.fail("vm", "every self test skipped")


def add_one_selftest(verdict, tree, name, result, remark, own):
    if result == "ok" and remark.startswith("SKIP"):
        reason = re.findall(r"# ?SKIP[: ]*(.+)", own)
        verdict.skipped.append((name, reason[-1].strip() if reason else "no reason given"))
        return
    before = len(verdict.failed)
    start = re.search(r"^(?:K?TAP) version \d+$", own, re.M)
    if start:
        inner = own[start.start():]
        root, errors = parse_ktap(tree, inner)
        add_tree(verdict, root, name, skip_reasons(inner))
        if root.expected_count is None:
            verdict.fail(name, "no plan, so nobody knows what is missing")
        elif errors and len(verdict.failed) == before:
            verdict.fail(name, "; ".join(errors))
    elif result == "ok":
        verdict.passed.append(name)
    if result != "ok" and len(verdict.failed) == before:
        verdict.fail(name, remark or result)


# --- a whole boot -----------------------------------------------------------

def sections(results):
    """The results channel, cut at the guest's own marks.

    Returns (list of (kind, name, text, closed), other marks).
    """
    found, marks, current = [], [], None
    for line in results.splitlines():
        line = line.rstrip("\r")
        at = line.find(GUEST)
        if at < 0:
            if current:
                current[2].append(line)
            continue
        words = line[at + len(GUEST):].split()
        if len(words) == 3 and words[1] == "begin":
            current = [words[0], words[2], [], False]
            found.append(current)
        elif len(words) == 3 and words[1] == "end" and current:
            current[3] = True
            current = None
        else:
            marks.append(words)
    return [(k, n, "\n".join(t) + "\n", c) for k, n, t, c in found], marks


def console_ktap(verdict, tree, console, suite):
    """Name what failed in a suite of which only the console tells."""
    root, _ = parse_ktap(tree, TIMESTAMP.sub("", console))
    named = Verdict()
    for test in root.subtests:
        if test.name == suite or (not test.name and test.subtests):
            add_tree(named, test, f"kunit:{suite}", {})
    verdict.failed += named.failed
    return bool(named.failed)


def status_mark(marks):
    """What the guest's program exited with, None if it never did."""
    found = [int(words[1]) for words in marks if words[0] == "status"]
    return found[-1] if found else None


def judge(tree, console, results, expected, ended="exited", status=0, ours=None):
    """The verdict on one boot.

    expected: {"kunit": {suite: [cases]}, "kselftest": [tests], "program": [names],
    "programs": [names]}. With the names of our functions: a data race that concerns
    none of them is noted only.
    """
    verdict = Verdict()
    parts, marks = sections(results)
    if any(m[0] == "begin" for m in marks):
        verdict.state = "started"
    for kind, name, text, _ in parts:
        if kind == "kunit":
            add_kunit(verdict, tree, name, text)
        elif kind == "kselftest":
            add_kselftest(verdict, tree, text)
        elif kind == "program":
            add_program(verdict, tree, name, text, status_mark(marks))
        elif kind == "programs":
            add_one_selftest(verdict, tree, name, "ok", "", text)
    add_missing(verdict, tree, console, expected)
    add_splats(verdict, console, ours)
    finished = ["done"] in marks
    if not finished:
        verdict.fail("guest", f"did not finish: {verdict.state}, {ended}")
    elif status:
        verdict.fail("qemu", f"exit status {status}")
    verdict.status = status_mark(marks)
    verdict.state = "finished" if finished else verdict.state
    verdict.code = exit_code(verdict, ended)
    return verdict


def of_console(tree, console, prefix, dot):
    """The verdict on a boot whose KUnit results are on the console and nowhere else; all
    suites that the configuration `dot` has must be there."""
    verdict = Verdict()
    bare = TIMESTAMP.sub("", console)
    root, errors = parse_ktap(tree, bare)
    for test in root.subtests:
        add_tree(verdict, test, f"{prefix}:{test.name}", skip_reasons(bare))
    for suite in expected_kunit(tree, dot=dot):
        if not any(t.name == suite for t in root.subtests):
            verdict.fail(f"{prefix}:{suite}", "missing: the suite never reported")
    add_splats(verdict, console)
    if errors and not verdict.passed:
        verdict.fail(prefix, "; ".join(errors))
    verdict.state = "finished"
    verdict.code = SPLAT if verdict.splats else TEST_FAILED if verdict.failed else OK
    return verdict


def add_missing(verdict, tree, console, expected):
    seen = verdict.names()
    for suite, cases in expected.get("kunit", {}).items():
        name = f"kunit:{suite}"
        if not any(s == name or s.startswith(name + ".") for s in seen):
            if not console_ktap(verdict, tree, console, suite):
                verdict.fail(name, "missing: the suite never reported")
            continue
        for case in cases:
            full = f"{name}.{case}"
            if not any(s == full or s.startswith(full + ".") for s in seen):
                verdict.fail(full, "missing: never reported")
    names = [f"vm:{test}" for test in expected.get("kselftest", [])]
    names += [f"mm:{test}" for test in expected.get("program", [])]
    names += [f"programs.{test}" for test in expected.get("programs", [])]
    for name in names:
        if not any(s == name or s.startswith(name + ".") for s in seen):
            verdict.fail(name, "missing: never reported")


def add_splats(verdict, console, ours=None):
    splats, trouble = find_splats(console)
    verdict.races = [line for _, line in splats if is_race_of_others(line, ours)]
    found = sorted([splat for splat in splats if not is_race_of_others(splat[1], ours)]
                   + trouble)
    verdict.splats += [line for _, line in found]
    if found:
        verdict.first_splat = splat_lines(console, found[0][0])
        more = len(found) - SPLATS_NAMED
        verdict.fail("console", "; ".join(line for _, line in found[:SPLATS_NAMED])
                     + (f" (and {more} more)" if more > 0 else ""))


# --- why a test failed ------------------------------------------------------

EVIDENCE_LINES = 12
EVIDENCE_WIDTH = 160


def kunit_evidence(console, case):
    """What a case said of itself; of what it expected, the lines below, too."""
    found, open_until = [], 0
    for number, line in enumerate(TIMESTAMP.sub("", console).splitlines()):
        if re.search(rf"# {re.escape(case)}: ", line):
            found.append(line.strip())
            open_until = number + 5 if " FAILED at " in line else 0
        elif number < open_until and not re.match(r"\s*(?:#|(?:not )?ok )|\s*$", line):
            found.append("  " + line.strip())
    return found


def selftest_evidence(results, case):
    return [line.lstrip("# ") for line in results.splitlines()
            if re.match(rf"[# ]*\S+\.c:\d+:{re.escape(case)}:", line)]


def program_evidence(results, case):
    return [line.lstrip("# ") for line in results.splitlines()
            if line.startswith(f"# {case}: ")]


def evidence(name, console, results):
    """The lines that tell why test `name` failed, as far as there are any."""
    parts = name.split(".")
    if name.startswith("kunit:") and len(parts) > 1:
        found = kunit_evidence(console, parts[1])
    elif name.startswith(("vm:", "mm:")) and len(parts) > 1:
        found = selftest_evidence(results, parts[-1])
    elif name.startswith("programs."):
        found = program_evidence(results, parts[-1])
    else:
        found = []
    return [line[:EVIDENCE_WIDTH] for line in found[:EVIDENCE_LINES]]


def exit_code(verdict, ended):
    if verdict.splats:
        return SPLAT
    if ended in ("hang", "timeout"):
        return HANG
    return TEST_FAILED if verdict.failed else OK


# --- what is expected -------------------------------------------------------

SUITE = re.compile(r"struct kunit_suite\s+(\w+)\s*=\s*\{(.*?)\n\};", re.S)
CASES = re.compile(r"struct kunit_case\s+(\w+)\s*\[\]\s*=\s*\{(.*?)\n\};", re.S)
CASE = re.compile(r"\bKUNIT_CASE\w*\(\s*(\w+)")


def suites_in(source):
    """Suite name -> case names, as a test's source declares them."""
    source = re.sub(r"/\*.*?\*/", "", source, flags=re.S)
    tables = {name: CASE.findall(body) for name, body in CASES.findall(source)}
    found = {}
    for _, body in SUITE.findall(source):
        name = re.search(r'\.name\s*=\s*"([^"]+)"', body)
        table = re.search(r"\.test_cases\s*=\s*(\w+)", body)
        if name:
            found[name[1]] = tables.get(table[1], []) if table else []
    return found


def conditions_in(source):
    """Case name -> the options without which the table that lists it has no such line."""
    found, around = {}, []
    for line in source.splitlines():
        directive = re.match(r"\s*#\s*(ifdef|if|ifndef|endif)\b\s*(\w*)", line)
        if directive and directive[1] == "endif":
            around.pop()
        elif directive:
            around.append(directive[2] if directive[1] == "ifdef" else "")
        for case in CASE.findall(line):
            found[case] = [option for option in around if option.startswith("CONFIG_")]
    return found


def absent_kunit(tree, dot):
    """{suite.case: option} of what the configuration in `dot` leaves out of a suite."""
    has = set(re.findall(r"^(CONFIG_\w+)=y$", read_text(dot), re.M))
    found = {}
    for path in sorted((tree / "mm/tests").glob("*_kunit.c")):
        source = read_text(path)
        needs = conditions_in(source)
        for suite, cases in suites_in(source).items():
            found.update({f"{suite}.{case}": option for case in cases
                          for option in needs.get(case, ()) if option not in has})
    return found


def is_built(path, dot):
    """Does mm/tests/Makefile build this suite with the configuration in `dot`?"""
    rule = re.search(rf"^obj-\$\((\w+)\)\s*\+=\s*{path.stem}\.o$",
                     read_text(path.parent / "Makefile"), re.M)
    return not rule or bool(re.search(f"^{rule[1]}=y$", read_text(dot), re.M))


def expected_kunit(tree, wanted="*", dot=None):
    """All suites in the tree's mm/tests that `wanted` (suite.case) selects.

    With a configuration: only those that it can have. It is for architectures
    that lack what a suite depends on; where a suite is asked for by name, it has
    been checked to be in the configuration.
    """
    chosen = {}
    for path in sorted((tree / "mm/tests").glob("*_kunit.c")):
        if dot and not is_built(path, dot):
            continue
        for suite, cases in suites_in(read_text(path)).items():
            keep = [c for c in cases if matches(suite, c, wanted)]
            if keep or (not cases and fnmatch.fnmatch(suite, wanted)):
                chosen[suite] = keep
    return chosen


def matches(suite, case, wanted):
    if "." in wanted:
        return fnmatch.fnmatch(f"{suite}.{case}", wanted)
    return fnmatch.fnmatch(suite, wanted)


def expected_selftests(install):
    """Names on the list that kselftest's own install wrote."""
    listing = install / "kselftest-list.txt"
    if not listing.is_file():
        return []
    return [line.split(":", 1)[1] for line in read_text(listing).split() if ":" in line]
