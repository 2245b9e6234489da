# SPDX-License-Identifier: GPL-2.0
"""'make torture': mm/mmu_notifier.c as a user program, real threads, sanitizers.

A run is good only if the program says so, exits with 0, and no sanitizer has
reported anything: silence is not success.
"""

import os
import random
import re
import subprocess

import tree
import verdict as verdicts
from common import (BUILD, ENVIRONMENT, HANG, OK, TEST_FAILED, USAGE,
                    Trouble, build_env, building, have, log_for, read_text,
                    require_status, run, say)

WHERE = "tools/testing/mmu_notifier"
PROGRAMS = ("torture-tsan", "torture-asan")
CHECK_SECONDS = 10
GRACE_SECONDS = 120     # the program finds a hang by itself, in less

REPORTS = (r"SUMMARY: (\w+Sanitizer: .*)", r"((?:WARNING|ERROR|FATAL): \w+Sanitizer: .*)",
           r"(runtime error: .*)")


def complaint(status, output):
    """Why this is not the output of a good run; None if it is."""
    if status is None:
        return "hang: the program did not even notice"
    if hang := re.search(r"^torture: HANG.*", output, re.M):
        return f"hang: {hang[0]}"
    if failed := re.search(r"^torture: FAILED: (.*)", output, re.M):
        return failed[1]
    for pattern in REPORTS:
        if report := re.search(pattern, output):
            return report[1]
    if status < 0:
        return f"killed by signal {-status}"
    if status:
        return f"exit status {status}"
    if not re.search(r"^torture: ok$", output, re.M):
        return "never said that it was ok"
    return None


def figures(output):
    """What was done, for people."""
    done = re.search(r"^torture: (\d+ brackets .*)", output, re.M)
    return done[1] if done else ""


def number(name, default):
    """A number that the user may have given on the command line."""
    text = os.environ.get(name) or str(default)
    if not text.isdigit():
        raise Trouble(USAGE, f"{name}={text}: not a number")
    return int(text)


def still():
    """What keeps the address space where ThreadSanitizer can follow."""
    argv = ["setarch", "-R"]
    works = have("setarch") and not subprocess.run(
        [*argv, "true"], capture_output=True, check=False).returncode
    return argv if works else []


def build(settings, where, log):
    if not have("make") or not have("gcc"):
        raise Trouble(ENVIRONMENT, "gcc or make is missing: harness/deps.sh")
    where.mkdir(parents=True, exist_ok=True)
    argv = ["make", "-C", settings.tree / WHERE, f"O={where}", "CC=gcc",
            f"KTREE={settings.tree}", f"-j{settings.jobs}"]
    status, tail = run(argv, "torture", log, settings.verbose, env=build_env())
    require_status(status, tail, "building the torture", log)


def one_run(where, program, seed, seconds, log):
    """(complaint or None, the output) of one program."""
    own = where / f"{program}.log"
    own.write_bytes(b"")
    argv = [*still(), where / program, "-s", seed, "-t", seconds]
    status, _ = run(argv, program, own, timeout=seconds + GRACE_SECONDS)
    output = read_text(own)
    with open(log, "a", encoding="utf-8") as out:
        out.write(f"==== {program} -s {seed} -t {seconds}\n{output}\n")
    return complaint(status, output), output


def torture(settings, seconds):
    where, log = BUILD / "torture", log_for("torture")
    seed = number("SEED", random.randrange(1, 1 << 31))
    build(settings, where, log)
    say(f"    torture: seed {seed}, {seconds} s each")
    verdict = verdicts.Verdict()
    for program in PROGRAMS:
        wrong, output = one_run(where, program, seed, seconds, log)
        say(f"    {program}: {wrong or 'ok'}  {figures(output)}")
        if wrong:
            verdict.fail(f"torture:{program}", f"{wrong}; again: make torture "
                         f"SEED={seed} SECONDS={max(seconds, 60)} (log: {log})")
            if wrong.startswith("hang"):
                verdict.code = HANG
        else:
            verdict.passed.append(f"torture:{program}")
    verdict.state = "finished"
    if verdict.code != HANG:
        verdict.code = TEST_FAILED if verdict.failed else OK
    return verdict


def phase_torture(settings):
    """A short run of each program; TORTURE_SECONDS makes it longer."""
    return torture(settings, number("TORTURE_SECONDS", CHECK_SECONDS))


def verb_torture(settings):
    """As long as SECONDS says, with the decisions of SEED."""
    with building():
        tree.ensure_tree(settings)
        verdict = torture(settings, max(1, number("SECONDS", 60)))
    for name, why in verdict.failed:
        say(f"not ok {name}: {why}")
    say("torture: " + ("ok" if verdict.code == OK else "FAILED"))
    return verdict.code
