# SPDX-License-Identifier: GPL-2.0
"""'make coverage': which lines and branches of our core the tests run through.

A kernel with gcov in our files alone runs all KUnit suites and self tests, those of DMA
behind an IOMMU and behind a switch once more, and the older tests with both drivers.
What each boot counted comes out on the results' serial line; gcovr adds it up, writes
the pages, and the limits below are checked.

What no test goes through has to be in coverage.reasons, function by function, and why."""

import base64
import json
import re
import subprocess
import tarfile
from io import BytesIO

import runs
import style
import verdict as verdicts
from common import (BUILD, ENVIRONMENT, HARNESS, OK, TEST_FAILED, USAGE, Trouble, have,
                    read_text, say)

CONFIG = "gcov"
WHERE = BUILD / "coverage"
LINES, BRANCHES = 95.0, 85.0    # per cent, of all measured files together
REASONS = HARNESS / "coverage.reasons"


def counted(results):
    """The archive in a run's results; Trouble when the guest sent none."""
    found = re.search(r"^hmm-guest: gcov begin\r?\n(.*?)^hmm-guest: gcov end",
                      read_text(results), re.M | re.S)
    if not found:
        raise Trouble(TEST_FAILED, f"{results}: the guest counted nothing")
    return base64.b64decode("".join(found[1].split()))


def unpack(archive, directory):
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        for member in tar:
            if member.isfile():
                name = member.name.rsplit("/", 1)[-1]
                (directory / name).write_bytes(tar.extractfile(member).read())


def gcovr(settings, *more):
    tool = ["gcovr", "--root", settings.tree, "--object-directory", settings.obj(CONFIG),
            "--filter", str(settings.tree / "mm") + "/", "--exclude-unreachable-branches",
            "--exclude-throw-branches"]
    done = subprocess.run([*map(str, tool), *map(str, more)], capture_output=True,
                          text=True, check=False, cwd=settings.obj(CONFIG))
    if done.returncode:
        raise Trouble(ENVIRONMENT, "gcovr: " + done.stderr.strip()[-500:])
    return done.stdout


def tracefile(settings, title, results):
    """One boot's counts as gcovr's own format."""
    mm = settings.obj(CONFIG) / "mm"
    for old in mm.glob("*.gcda"):
        old.unlink()
    unpack(counted(results), mm)
    path = WHERE / (re.sub(r"\W+", "-", title).strip("-") + ".json")
    gcovr(settings, "--json", path, mm)
    return path


def boots(settings):
    yield runs.test_boot(settings, CONFIG, settings.cpus)
    for machine in ("iommu", "switch"):
        yield runs.test_boot(settings, CONFIG, 2, "hmm_dma", ["hmm_dma"], machine)
    for driver in runs.DRIVERS:
        yield runs.conformance_boot(settings, CONFIG, 2, driver)


def judge(verdict, report):
    """Compare the sums with the limits, and say what each file has."""
    for file in report["files"]:
        say("    {filename:28} lines {line_percent:5.1f} %  branches {branch_percent} %"
            .format(**file))
    for what, got, least in (("lines", report["line_percent"], LINES),
                             ("branches", report["branch_percent"], BRANCHES)):
        say(f"    all: {what} {got} %, at least {least} %")
        if got >= least:
            verdict.passed.append(f"coverage:{what}")
        else:
            verdict.fail(f"coverage:{what}", f"{got} %, less than {least} %")


def reasons(text):
    """{(file, function): why} of lines "file function: why"."""
    found = {}
    for line in text.splitlines():
        match = re.match(r"(\S+) (\w+): (\S.*)$", line)
        if match:
            found[match[1], match[2]] = match[3]
        elif line and not line.startswith("#"):
            raise Trouble(USAGE, f"{REASONS.name}: not 'file function: why': {line}")
    return found


def not_run(merged, source_of):
    """{(file, function): lines} that are code and that no test went through."""
    found = {}
    for file in merged["files"]:
        missed = [line["line_number"] for line in file["lines"]
                  if not line.get("gcovr/noncode") and not line["count"]]
        functions = list(style.spans(source_of(file["file"]))) if missed else []
        for number in missed:
            name = next((n for n, first, last in functions if first <= number <= last), "?")
            found.setdefault((file["file"], name), []).append(number)
    return found


def explain(verdict, missed, why):
    """Each function with lines that no test goes through needs a reason."""
    unknown = [f"{file} {name}: {' '.join(map(str, lines))}"
               for (file, name), lines in sorted(missed.items()) if (file, name) not in why]
    for line in unknown:
        say(f"    not run, and nobody says why: {line}")
    for file, name in sorted(set(why) - set(missed)):
        say(f"    {file} {name}: was run whole this time")
    if unknown:
        verdict.fail("coverage:reasons", f"{len(unknown)} functions, {unknown[0]}")
    else:
        verdict.passed.append("coverage:reasons")


def phase_coverage(settings):
    if not have("gcovr"):
        raise Trouble(ENVIRONMENT, "gcovr is missing: run 'make deps-all'")
    runs.kernel(settings, CONFIG)
    WHERE.mkdir(parents=True, exist_ok=True)
    verdict, traces = verdicts.Verdict(), []
    for tested, this in boots(settings):
        for name, why in tested.failed:
            verdict.fail(name, why)
        traces += ["--add-tracefile",
                   tracefile(settings, this.title, this.directory / "results")]
    report = json.loads(gcovr(settings, *traces, "--json-summary-pretty", "--json-summary", "-"))
    gcovr(settings, *traces, "--html-details", WHERE / "index.html")
    judge(verdict, report)
    explain(verdict, not_run(json.loads(gcovr(settings, *traces, "--json")),
                             lambda path: read_text(settings.tree / path)),
            reasons(read_text(REASONS)))
    say(f"    pages: {WHERE}/index.html")
    verdict.state = "finished"
    verdict.code = TEST_FAILED if verdict.failed else OK
    return verdict
