# SPDX-License-Identifier: GPL-2.0
"""'make model': the Spin models of the collision-retry, and their broken twins.

A model holds only if Spin searched all of it, found no error, and reached every
statement that is not listed as unreachable. A twin passes only if Spin finds the
error that the list names, and no other.
"""

import re
import shlex
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import verdict as verdicts
from common import (BUILD, BUILD_FAILED, ENVIRONMENT, OK, REPO, TEST_FAILED, Trouble, have,
                    log_for, read_text, run, say)

MODELS = REPO / "tools/verification/mmu_notifier"
LIMIT = {"seconds": 60, "megabytes": 3000, "depth": 1000000}
JOBS = 2

# What makes a search incomplete, and an "errors: 0" worth nothing
TRUNCATED = (("max search depth too small", "the search was cut off in depth"),
             ("out of memory", "out of memory"), ("memory limit", "out of memory"),
             ("hash-table is full", "out of memory"), ("interrupted", "interrupted"))


@dataclass
class Property:
    """A line of the list: what to run, and what must come out."""

    model: str
    kind: str           # safety or liveness
    defines: list
    shows: str          # P1 and so on, for the reader of the list
    expect: str         # holds, stuck, cycle, or assertion TEXT

    @property
    def name(self):
        return f"model:{self.model}({' '.join(d[2:] for d in self.defines) or 'as is'})"


def parse(text):
    """(properties, {model: unreachable statements}) of the list."""
    found, unreachable = [], {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = [c.strip() for c in line.split("|")]
        if cells[0] == "unreached" and len(cells) == 4:
            unreachable.setdefault(cells[1], set()).add((cells[2], cells[3]))
        elif len(cells) == 5:
            model, kind, defines, shows, expect = cells
            defines = [] if defines == "-" else ["-D" + d for d in shlex.split(defines)]
            found.append(Property(model, kind, defines, shows, expect))
        else:
            raise Trouble(TEST_FAILED, f"properties, line {number}: {line}")
    return found, unreachable


def unreached(output):
    """(proctype, statement) pairs that the search never came to."""
    found, proctype = set(), None
    for line in output.splitlines():
        begin = re.match(r"unreached in (?:proctype )?(\w+)", line)
        if begin:
            proctype = None if "unreached in claim" in line else begin[1]
        state = re.match(r'\t\S+:\d+, state \d+, "(.*)"$', line)
        if state and proctype:
            found.add((proctype, state[1]))
    return found


def error_in(output):
    """What pan found: an expectation's word and its text, or None."""
    asserted = re.search(r"pan:\d+: assertion violated (.*) \(at depth", output)
    if asserted:
        return "assertion " + asserted[1]
    if re.search(r"pan:\d+: invalid end state", output):
        return "stuck"
    if re.search(r"pan:\d+: acceptance cycle", output):
        return "cycle"
    if re.search(r"pan:\d+: non-progress cycle", output):
        return "non-progress"
    other = re.search(r"pan:\d+: (.*)", output)
    return other[1] if other else None


def complaint(output, expect, unreachable=frozenset()):
    """Why the output of pan is not what is expected; None if it is."""
    error = error_in(output)
    if expect != "holds":
        if not error:
            return "not caught" + (": " + cut if (cut := cut_off(output)) else "")
        want, got = expect.split(None, 1), error.split(None, 1)
        same = want[0] == got[0] and all(squeeze(w) in squeeze(error) for w in want[1:])
        return None if same else f"caught for another reason: {error}"
    if error:
        return error
    if cut_off(output):
        return cut_off(output)
    if not re.search(r"errors: 0$", output, re.M):
        return "pan did not finish"
    never = unreached(output) - set(unreachable)
    if never:
        proctype, statement = sorted(never)[0]
        return f"never reached: {statement} in {proctype}" + (
            f" (and {len(never) - 1} more)" if len(never) > 1 else "")
    return None


def squeeze(text):
    """Spin prints an expression with parentheses and blanks of its own."""
    return re.sub(r"[\s()]", "", text)


def cut_off(output):
    for sign, why in TRUNCATED:
        if sign in output.lower():
            return why
    return "Search not completed" if "Search not completed" in output else None


def figures(output):
    """States, seconds and memory, for people."""
    states = re.search(r"([\d.e+]+) states, stored", output)
    seconds = re.search(r"elapsed time ([\d.]+)", output)
    memory = re.search(r"([\d.]+)\s+total actual memory", output)
    return (f"{states[1] if states else '?'} states, "
            f"{seconds[1] if seconds else '?'} s, {memory[1] if memory else '?'} MB")


def commands(prop):
    """Make the verifier, compile it, run it."""
    safety = prop.kind == "safety"
    cflags = ["-DSAFETY"] if safety else ["-DNFAIR=3"]
    return (["spin", *prop.defines, "-a", str(MODELS / f"{prop.model}.pml")],
            ["gcc", "-O1", "-w", "-DCOLLAPSE", f"-DMEMLIM={LIMIT['megabytes']}", *cflags,
             "-o", "pan", "pan.c"],
            ["./pan", f"-m{LIMIT['depth']}", "-w22", *([] if safety else ["-a", "-f"])])


def check(prop, number, unreachable, log):
    """(complaint or None, the output of pan) for one property."""
    where = BUILD / "model" / str(number)
    where.mkdir(parents=True, exist_ok=True)
    own = where / "log"
    own.write_bytes(b"")
    for argv in commands(prop):
        status, tail = run(argv, prop.name, own, timeout=LIMIT["seconds"], cwd=where)
        if status is None:
            return f"{argv[0]}: more than {LIMIT['seconds']} s", read_text(own)
        if status and argv[0] != "./pan":
            raise Trouble(BUILD_FAILED, f"{prop.name}: {argv[0]} failed\n{tail}\n"
                          f"  whole log: {log}")
    return complaint(read_text(own), prop.expect, unreachable), read_text(own)


def phase_model(settings):
    """Every line of the list, two at a time."""
    if not have("spin"):
        raise Trouble(ENVIRONMENT, "spin is missing: apt-get install spin")
    log = log_for("model")
    props, unreachable = parse(read_text(MODELS / "properties"))
    verdict = verdicts.Verdict()
    with ThreadPoolExecutor(min(JOBS, settings.jobs)) as pool:
        futures = [pool.submit(check, p, n, unreachable.get(p.model, ()), log)
                   for n, p in enumerate(props)]
        for prop, future in zip(props, futures):
            wrong, output = future.result()
            report(prop, wrong, output, log)
            if wrong:
                verdict.fail(prop.name, wrong)
            else:
                verdict.passed.append(prop.name)
    if not props:
        verdict.fail("model", "the list of properties is empty")
    verdict.state = "finished"
    verdict.code = TEST_FAILED if verdict.failed else OK
    return verdict


def report(prop, wrong, output, log):
    with open(log, "a", encoding="utf-8") as out:
        out.write(f"==== {prop.name}: {prop.shows}: {wrong or 'ok'}\n{output}\n")
    say(f"    {prop.name:44} {prop.shows:10} {wrong or prop.expect.split()[0]:10} "
        f"{figures(output)}")
