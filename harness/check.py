# SPDX-License-Identifier: GPL-2.0
"""'make check' and 'make check-all': phases in turn, cheap ones first, one verdict at
the end. The first is what must hold at every change; the second has the rest, too."""

import contextlib
import io
import itertools
import os
import re
import subprocess
import threading
import time
import unittest
from concurrent import futures
from collections.abc import Callable
from dataclasses import dataclass

import arm64
import builds
import config as configs
import coverage
import debian
import fuzz
import kbuild
import lint
import model
import mutants
import pedantic
import programs
import resume
import runs
import torture
import tree
import verdict as verdicts
from common import (BUILD, BUILD_FAILED, CODE_NAMES, HARNESS, OK, STATE, TEST_FAILED,
                    Trouble, building, end_children, load_json, log_for, read_text, run,
                    save_json, say)

# Minutes each on the debug kernel, and mostly core's work; 'make check' has them on the
# plain kernel.
SLOW_TESTS = {"hmm_pressure", "hmm_numa", "devmem_fsdax", "devmem_p2p", "devmem_poison",
              "devmem_unplug"}
TIMES = STATE / "phase-times.json"
_saving = threading.Lock()


def one(name):
    """The verdict of a phase that is a single check."""
    return verdicts.Verdict(state="finished", passed=[name], code=OK)


def finish(verdict, code=TEST_FAILED):
    """Close the verdict of a phase that made it without a guest."""
    verdict.state = "finished"
    verdict.code = code if verdict.failed else OK
    return verdict


# --- the phases -------------------------------------------------------------

def phase_deps(_settings):
    done = subprocess.run([HARNESS / "deps.sh"], check=False)
    if done.returncode:
        raise Trouble(done.returncode, "packages are missing")
    return one("packages")


def phase_tree(settings):
    tree.ensure_tree(settings)
    stale = [path for path in tree.replaced_files(tree.REPO)
             if (settings.tree / path).is_file() and (tree.REPO / path).is_file()
             and (settings.tree / path).read_bytes() != (tree.REPO / path).read_bytes()]
    if stale:
        raise Trouble(BUILD_FAILED, "still the stock file: " + " ".join(stale))
    return one("tree")


class Recorder(unittest.TextTestResult):
    """Keeps the names of what passed, which unittest does not."""

    def __init__(self, *args):
        super().__init__(*args)
        self.passed = []

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed.append(test.id())


def phase_selfcheck(settings):
    """The harness's own tests, on recorded logs and small made-up trees."""
    os.environ["HMM_TREE"] = str(settings.tree)
    stream = io.StringIO()
    suite = unittest.defaultTestLoader.discover(str(HARNESS / "tests"),
                                                top_level_dir=str(HARNESS))
    result = unittest.TextTestRunner(stream, resultclass=Recorder).run(suite)
    log = log_for("selfcheck")
    log.write_text(stream.getvalue())
    verdict = verdicts.Verdict(passed=[f"harness:{n}" for n in result.passed])
    for test, trace in result.failures + result.errors:
        verdict.fail(f"harness:{test.id()}", trace.strip().splitlines()[-1])
    verdict.skipped = [(f"harness:{t.id()}", why) for t, why in result.skipped]
    if not result.testsRun:
        verdict.fail("harness", "no test was found")
    return finish(verdict)


def phase_kernel(config):
    def phase(settings):
        log = log_for(f"kernel-{config}")
        configs.ensure_config(settings, config, log)
        kbuild.build_kernel(settings, config, log)
        runs.install_selftests(settings, config, log)
        return one(f"kernel({config})")
    return phase


def phase_boot(config, cpus):
    def phase(settings):
        verdict, this = runs.test_boot(settings, config, cpus)
        verdict.run = this
        return verdict
    return phase


def phase_quick(settings):
    """The debug kernel without what costs most for what it finds: kmemleak, the page
    owner, poison, pages of 1 GiB, and SLOW_TESTS. 'make check-debug' has the whole."""
    chosen = [name for name in runs.available_selftests(settings, "debug")
              if name not in SLOW_TESTS | {fuzz.PROGRAM}]
    verdict, this = runs.test_boot(settings, "debug", 2, selftests=chosen, quick=True)
    verdict.run = this
    return verdict


def phase_dma(machine):
    """DMA once more, on another machine."""
    def phase(settings):
        verdict, this = runs.test_boot(settings, "plain", 2, "hmm_dma", ["hmm_dma"], machine)
        verdict.run = this
        return verdict
    return phase


def phase_conformance(driver):
    def phase(settings):
        verdict, this = runs.conformance_boot(settings, "plain", 2, driver)
        verdict.run = this
        return verdict
    return phase


def phase_sparse(settings):
    return finish(lint.sparse(settings, log_for("sparse")))


def phase_lint(settings):
    return finish(lint.everything(settings, log_for("lint")))


def phase_um(settings):
    """KUnit on User Mode Linux, the way any kernel developer runs it."""
    obj, log = BUILD / "obj-um", log_for("um")
    wanted = configs.parse(read_text(HARNESS / "config/um.config"))
    options = [w for word in kbuild.compiler(settings) for w in ("--make_options", word)]
    options += [w for name, value in wanted.items() if value == "n"
                for w in ("--kconfig_add", f"CONFIG_{name}=n")]
    argv = ["python3", "-B", "tools/testing/kunit/kunit.py", "run", "--arch", "um",
            "--kunitconfig", "mm/tests", "--build_dir", obj, "--jobs",
            str(settings.jobs), "--timeout", "600", *options]
    console = obj / "test.log"
    console.unlink(missing_ok=True)
    status, tail = run(argv, "um", log, settings.verbose, cwd=settings.tree,
                       env=kbuild.env())
    if (obj / ".config").is_file():
        configs.check(wanted, obj / ".config", "um")
    if status is None or not console.is_file():
        raise Trouble(BUILD_FAILED, "KUnit on um did not run:\n" + tail[-1500:])
    verdict = verdicts.of_console(settings.tree, read_text(console), "um",
                                  obj / ".config")
    if status and not verdict.failed:
        verdict.fail("um", f"kunit.py exited with {status}")
        verdict.code = TEST_FAILED
    return verdict


def phase_mm_selftests(settings):
    """Stock's own collection still builds on our tree."""
    log = log_for("selftests-mm")
    install = settings.obj("plain") / "hmm-selftests-mm"
    kbuild.selftests(settings, "plain", "mm", install, log)
    for needed in ("hmm-tests", "test_hmm.sh"):
        if not (install / "mm" / needed).is_file():
            raise Trouble(BUILD_FAILED, f"TARGETS=mm did not build {needed}; see {log}")
    return one("kselftest TARGETS=mm")


def phase_users(settings):
    """Compile the in-tree users of our headers, with and without us."""
    verdict = verdicts.Verdict()
    for config in ("users-on", "users-off"):
        log = log_for(config)
        configs.ensure_config(settings, config, log)
        names = [line for line in read_text(HARNESS / "config" / f"{config}.targets")
                 .splitlines() if line and not line.startswith("#")]
        for targets in (["prepare", "modules_prepare"], names):
            argv = kbuild.argv(settings, config, targets, "-k")
            status, tail = run(argv, config, log, settings.verbose, env=kbuild.env())
            if status:
                errors = re.findall(r"^.*(?:error|\*\*\*).*$", tail, re.M)
                verdict.fail(config, (errors or ["failed"])[0] + f" (log: {log})")
                break
        else:
            verdict.passed += [f"{config}: {name}" for name in names]
    return finish(verdict, BUILD_FAILED)


def phase_docs(settings):
    return finish(lint.docs(settings, log_for("docs")))


@dataclass(frozen=True)
class Phase:
    """One line of the verdict. `needs` is the phase without which it means nothing,
    `again` what repeats it; `always` phases are in 'make check', all in check-all.
    Phases in a lane go on beside those of the other lane: a guest in which one test
    runs after the other leaves half of the host idle. All boots of a kernel are in one
    lane, because they write their initramfs to one place."""

    act: Callable
    needs: str = ""
    again: str = ""
    always: bool = False
    lane: int = 0


def kernel(config, **more):
    return Phase(phase_kernel(config), again=f"make kernel CONFIG={config}", **more)


def boot(config, cpus, lane, **more):
    return Phase(phase_boot(config, cpus), needs=f"kernel({config})", lane=lane, **more)


PHASES = {
    "deps": Phase(phase_deps, always=True),
    "tree": Phase(phase_tree, always=True),
    "selfcheck": Phase(phase_selfcheck, always=True),
    "lint": Phase(phase_lint, always=True),
    "W=1": Phase(pedantic.phase_pedantic, again="make lint", always=True),
    "model": Phase(model.phase_model, always=True),
    "torture": Phase(torture.phase_torture, always=True),
    "kernel(plain)": kernel("plain", always=True),
    "sparse": Phase(phase_sparse, "kernel(plain)", "make lint", always=True),
    "kernel(debug)": kernel("debug", always=True),
    "kernel(kcsan)": kernel("kcsan"),
    "kernel(rt)": kernel("rt"),
    "boot(plain, 4 CPUs)": boot("plain", 4, 1, always=True),
    "conformance(ours)": Phase(phase_conformance("ours"), "kernel(plain)",
                               "make conformance", always=True, lane=1),
    "conformance(stock)": Phase(phase_conformance("stock"), "kernel(plain)",
                                "make conformance", always=True, lane=1),
    "boot(debug, quick)": Phase(phase_quick, "kernel(debug)", always=True, lane=2),
    "fuzz": Phase(fuzz.phase_fuzz, "kernel(debug)", always=True, lane=2),
    "boot(plain, IOMMU)": Phase(phase_dma("iommu"), "kernel(plain)", lane=1),
    "boot(plain, switch)": Phase(phase_dma("switch"), "kernel(plain)", lane=1),
    "programs": Phase(programs.phase_programs, "kernel(plain)", lane=1),
    "boot(rt, 4 CPUs)": boot("rt", 4, 2),
    "boot(debug, 2 CPUs)": boot("debug", 2, 2),
    "boot(kcsan, 4 CPUs)": boot("kcsan", 4, 1),
    "mutants": Phase(mutants.phase_mutants, "kernel(plain)"),
    "coverage": Phase(coverage.phase_coverage),
    "selftests(mm)": Phase(phase_mm_selftests, "kernel(plain)", "make check-all"),
    "um": Phase(phase_um),
    "docs": Phase(phase_docs),
    "users": Phase(phase_users),
    "arm64": Phase(arm64.phase_arm64),
    "builds": Phase(builds.phase_builds),
    "debian": Phase(debian.phase_debian, again="make builds"),
}

# What 'make check' has because it has no time for the whole
PARTS = {"boot(debug, quick)"}

# The verb 'make check-debug': every detector that 'make check' has no time for.
DEBUG = ["kernel(debug)", "kernel(kcsan)", "kernel(rt)", "boot(rt, 4 CPUs)",
         "boot(kcsan, 4 CPUs)", "boot(debug, 2 CPUs)"]


def guarded(name, settings, failed):
    """Run one phase; trouble in it becomes its verdict."""
    phase = PHASES[name]
    if failed & {"deps", "tree", phase.needs}:
        verdict = verdicts.Verdict(code=TEST_FAILED)
        verdict.fail(name, "not run, because of an earlier failure")
        return verdict
    boots = phase.lane or name in ("mutants", "coverage", "arm64")
    lock = contextlib.nullcontext() if boots else building()
    try:
        with lock:
            return phase.act(settings)
    except Trouble as trouble:
        verdict = verdicts.Verdict(code=trouble.code)
        verdict.fail(name, str(trouble))
        return verdict


def timed(name, settings, failed, times, record):
    """Run one phase and say in one line how it went."""
    verdict = record.find(name)
    if verdict:
        say(f"{name:22} ok     before  {runs.totals([verdict])}")
        return verdict
    began = time.monotonic()
    record.begin(name)
    verdict = guarded(name, settings, failed)
    record.end(name, verdict)
    took = time.monotonic() - began
    before = f"last time {times[name]:.0f} s" if name in times else "first time"
    word = "ok" if verdict.code == OK else CODE_NAMES[verdict.code].upper()
    say(f"{name:22} {word:6} {took:5.0f} s  ({before})  {runs.totals([verdict])}")
    if verdict.code == OK:
        with _saving:
            times[name] = took
            save_json(TIMES, times)
    return verdict


def groups(names):
    """The same names, in lists: each of a single phase, or of lanes side by side."""
    for lanes, several in itertools.groupby(names, lambda name: bool(PHASES[name].lane)):
        if not lanes:
            yield from ([[name]] for name in several)
            continue
        several = list(several)
        yield [[n for n in several if PHASES[n].lane == lane]
               for lane in sorted({PHASES[n].lane for n in several})]


def side_by_side(lanes, act):
    """Do act(name) for all names of each lane in turn, the lanes at the same time."""
    stop = threading.Event()

    def walk(names):
        for name in names:
            if not stop.is_set():
                act(name)

    with futures.ThreadPoolExecutor(len(lanes)) as pool:
        walks = [pool.submit(walk, names) for names in lanes]
        try:
            for done in futures.as_completed(walks):
                done.result()
        except BaseException:
            stop.set()
            end_children()
            raise


def run_phases(settings, names, record=resume.Nothing()):
    times = load_json(TIMES, {})
    verdicts_of, failed = {}, set()

    def act(name):
        verdicts_of[name] = timed(name, settings, failed, times, record)
        if verdicts_of[name].code != OK:
            failed.add(name)

    for lanes in groups(names):
        if len(lanes) == 1:
            for name in lanes[0]:
                act(name)
        else:
            side_by_side(lanes, act)
    outcomes = [(name, verdicts_of[name],
                 getattr(verdicts_of[name], "run", None)
                 or runs.Run(name, BUILD / "log", PHASES[name].again or f"make {name}"))
                for name in names]
    runs.report(settings, outcomes)
    return next((v.code for _, v, _ in outcomes if v.code != OK), OK)


def whole(settings, names):
    """A check: all that belongs to its phases, and RESUME=1 goes on with it."""
    settings.tests = ""
    return run_phases(settings, names, resume.Record(settings))


def at_every_change(settings):
    return whole(settings, [name for name, phase in PHASES.items() if phase.always])


def everything(settings):
    """All of them, but for a boot that another one has all tests of."""
    return whole(settings, [name for name in PHASES if name not in PARTS])


def debug(settings):
    return whole(settings, ["tree", *DEBUG])


def only(settings, name):
    if name == "builds":
        debian.check_chosen(settings)
    names = ["tree", name]
    names += {"lint": ["W=1", "kernel(plain)", "sparse"], "builds": ["debian"]}.get(name, [])
    return run_phases(settings, names)
