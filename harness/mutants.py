# SPDX-License-Identifier: GPL-2.0
"""'make mutants': do the tests notice what they are for?

Each patch in harness/mutants/ breaks one thing, and names a test that must go red with
it and is green without. A patch that no longer applies is a failure, too: what it broke
may have lost its test unseen.

The patches go into the source tree for as long as the kernel is built, never into the
repository, and what they changed is put back byte by byte.
"""

import contextlib
import fnmatch
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import kbuild
import programs
import runs
import verdict as verdicts
from common import (BUILD, HANG, HARNESS, OK, SPLAT, TEST_FAILED, USAGE, Trouble,
                    building, read_text, say)

MUTANTS = HARNESS / "mutants"
KINDS = ("kunit", "vm", "programs")


@dataclass
class Mutant:
    """What a patch breaks, and the test that has to notice: kind:name."""

    name: str
    path: Path
    breaks: str
    test: str


def parse(name, text, path=None):
    """The header of a patch: why, an empty line, "Test: kind:name"."""
    header = text.split("\n--- a/", 1)[0]
    test = re.search(r"^Test: (\S+)$", header, re.M)
    why = re.split(r"^Test:", header, maxsplit=1, flags=re.M)[0].strip()
    if not test or test[1].split(":")[0] not in KINDS or not why:
        raise Trouble(USAGE, f"mutant {name}: no text, or no line 'Test: kunit:NAME', "
                      "'Test: vm:NAME' or 'Test: programs:NAME'")
    return Mutant(name, path, " ".join(why.split()), test[1])


def select(wanted):
    """Those whose names match one of the globs; all without."""
    found = [parse(p.stem, read_text(p), p) for p in sorted(MUTANTS.glob("*.patch"))]
    globs = wanted.replace(",", " ").split() or ["*"]
    chosen = [m for m in found if any(fnmatch.fnmatch(m.name, g) for g in globs)]
    if not chosen:
        raise Trouble(USAGE, f"no mutant matches {wanted}: "
                      + " ".join(m.name for m in found))
    return chosen


def apply(tree, patch, *options):
    """None, or why it does not apply: exactly, without any fuzz."""
    done = subprocess.run(["patch", "-p1", "-F0", "-f", "--no-backup-if-mismatch",
                           *options, "-i", patch], cwd=tree, capture_output=True,
                          text=True, check=False)
    if not done.returncode:
        return None
    return ((done.stdout + done.stderr).strip().splitlines() or ["no reason given"])[-1]


@contextlib.contextmanager
def mutated(tree, mutant):
    """The tree with the patch in it; gives None, or why it does not apply."""
    touched = re.findall(r"^--- a/(\S+)", read_text(mutant.path), re.M)
    before = {tree / name: (tree / name).read_bytes() for name in touched
              if (tree / name).is_file()}
    try:
        yield apply(tree, mutant.path, "--dry-run") or apply(tree, mutant.path)
    finally:
        for path, data in before.items():
            if path.read_bytes() != data:
                path.write_bytes(data)
            for litter in (".orig", ".rej"):
                path.with_name(path.name + litter).unlink(missing_ok=True)


def boot(settings, test):
    """Boot for one test; its verdict."""
    kind, name = test.split(":", 1)
    if kind == "programs":
        return programs.boot(settings, programs.select(name))[0]
    kunit, selftests = (name, []) if kind == "kunit" else (None, [name])
    return runs.test_boot(settings, settings.config, settings.cpus, kunit, selftests)[0]


def belongs(test, name):
    """Is `name`, of a verdict, (a part of) the test?"""
    kind, glob = test.split(":", 1)
    if kind == "programs":
        return name.startswith(f"programs.{glob}_")
    parts = name.removeprefix(f"{kind}:").split(".")
    if not name.startswith(f"{kind}:"):
        return False
    return any(fnmatch.fnmatch(".".join(parts[:n]), glob)
               for n in range(1, len(parts) + 1))


def caught_by(verdict, test):
    """What noticed, shortly; None if nothing did. A splat or a hang counts, as nothing
    but the test ran."""
    names = [name for name, _ in verdict.failed if belongs(test, name)]
    if names:
        return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
    if verdict.code == SPLAT:
        return f"console: {verdict.splats[0]}"
    if verdict.code == HANG:
        return "the guest hung"
    return None


def build(settings):
    return kbuild.build_kernel(settings, settings.config, BUILD / "log/mutants.log")


def one(settings, mutant):
    """(what caught it or None, why not)."""
    with building(), mutated(settings.tree, mutant) as trouble:
        if trouble:
            return None, f"does not apply: {trouble}"
        build(settings)
    caught = caught_by(boot(settings, mutant.test), mutant.test)
    return caught, f"{mutant.test} did not notice"


def green_first(settings, mutants, verdict):
    """Each test that is named, without any mutant. What fails already proves nothing."""
    red = set()
    for test in sorted({m.test for m in mutants}):
        without = boot(settings, test)
        if without.code != OK:
            why = without.failed[0] if without.failed else ("?", "")
            verdict.fail(f"without mutants: {test}", ": ".join(why))
            red.add(test)
        else:
            say(f"  {test}: green without mutants")
    return red


def judge(settings, mutants):
    verdict = verdicts.Verdict(state="finished")
    red = green_first(settings, mutants, verdict)
    try:
        for mutant in mutants:
            name = f"mutant:{mutant.name}"
            if mutant.test in red:
                verdict.fail(name, "not tried: its test is red without it")
                continue
            try:
                caught, why = one(settings, mutant)
            except Trouble as trouble:
                caught, why = None, str(trouble)
            if caught:
                verdict.passed.append(name)
            else:
                verdict.fail(name, why)
            say(f"  {mutant.name}: " + (f"caught by {caught}" if caught else why))
    finally:
        with building():
            build(settings)
    verdict.code = TEST_FAILED if verdict.failed else OK
    return verdict


def phase_mutants(settings):
    """All of them, for 'make check-all'."""
    return judge(settings, select(""))


def verb_mutants(settings):
    """Those that T names. The kernel has been built without any."""
    verdict = judge(settings, select(settings.tests))
    again = runs.Run("mutants", BUILD / "log", "make mutants")
    runs.report(settings, [("mutants", verdict, again)])
    return verdict.code
