# SPDX-License-Identifier: GPL-2.0
"""'make check' and 'make check-all': phases in turn, cheap ones first, one verdict at
the end. The first is what must hold at every change; the second has the rest, too."""

import contextlib
import io
import os
import re
import subprocess
import time
import unittest

import config as configs
import kbuild
import lint
import model
import runs
import torture
import tree
import verdict as verdicts
from common import (BUILD, BUILD_FAILED, CODE_NAMES, HARNESS, OK, STATE, TEST_FAILED,
                    Trouble, building, load_json, read_text, run, save_json, say)

TIMES = STATE / "phase-times.json"


def log_for(name):
    """An empty log of this phase."""
    path = BUILD / "log" / (re.sub(r"\W+", "-", name).strip("-") + ".log")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


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


def phase_iommu(settings):
    """DMA once more, through an IOMMU."""
    verdict, this = runs.test_boot(settings, "plain", 2, "hmm_dma", ["hmm_dma"], "iommu")
    verdict.run = this
    return verdict


def phase_conformance(settings):
    verdict, this = runs.conformance_boot(settings, "plain", 2)
    verdict.run = this
    return verdict


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
    text = read_text(console)
    verdict = verdicts.Verdict()
    root, errors = verdicts.parse_ktap(settings.tree, verdicts.TIMESTAMP.sub("", text))
    for test in root.subtests:
        verdicts.add_tree(verdict, test, f"um:{test.name}", verdicts.skip_reasons(text),
                          text)
    for suite in verdicts.expected_kunit(settings.tree, dot=obj / ".config"):
        if not any(t.name == suite for t in root.subtests):
            verdict.fail(f"um:{suite}", "missing: the suite never reported")
    verdicts.add_splats(verdict, text)
    if status and not verdict.failed:
        verdict.fail("um", "; ".join(errors) or f"kunit.py exited with {status}")
    finish(verdict)
    if verdict.splats:
        verdict.code = verdicts.SPLAT
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


PHASES = {
    "deps": phase_deps,
    "tree": phase_tree,
    "selfcheck": phase_selfcheck,
    "lint": phase_lint,
    "model": model.phase_model,
    "torture": torture.phase_torture,
    "kernel(plain)": phase_kernel("plain"),
    "boot(plain, 2 CPUs)": phase_boot("plain", 2),
    "boot(plain, 4 CPUs)": phase_boot("plain", 4),
    "boot(plain, IOMMU)": phase_iommu,
    "boot(plain, conformance)": phase_conformance,
    "sparse": phase_sparse,
    "um": phase_um,
    "docs": phase_docs,
    "selftests(mm)": phase_mm_selftests,
    "kernel(debug)": phase_kernel("debug"),
    "boot(debug, 2 CPUs)": phase_boot("debug", 2),
    "boot(debug, 4 CPUs)": phase_boot("debug", 4),
    "users": phase_users,
}
# Only in 'make check-all': each kernel boots with another number of CPUs in 'make check'.
REST = {"boot(plain, 2 CPUs)", "boot(debug, 4 CPUs)"}
NEEDS = {
    "boot(plain, 2 CPUs)": "kernel(plain)", "boot(plain, 4 CPUs)": "kernel(plain)",
    "boot(plain, IOMMU)": "kernel(plain)",
    "boot(plain, conformance)": "kernel(plain)",
    "boot(debug, 2 CPUs)": "kernel(debug)", "boot(debug, 4 CPUs)": "kernel(debug)",
    "sparse": "kernel(plain)", "selftests(mm)": "kernel(plain)",
}
AGAIN = {"kernel(plain)": "make kernel CONFIG=plain", "sparse": "make lint",
         "kernel(debug)": "make kernel CONFIG=debug", "selftests(mm)": "make check"}


def guarded(name, settings, failed):
    """Run one phase; trouble in it becomes its verdict."""
    if failed & {"deps", "tree", NEEDS.get(name)}:
        verdict = verdicts.Verdict(code=TEST_FAILED)
        verdict.fail(name, "not run, because of an earlier failure")
        return verdict
    lock = contextlib.nullcontext() if name.startswith("boot") else building()
    try:
        with lock:
            return PHASES[name](settings)
    except Trouble as trouble:
        verdict = verdicts.Verdict(code=trouble.code)
        verdict.fail(name, str(trouble))
        return verdict


def timed(name, settings, failed, times):
    """Run one phase and say in one line how it went."""
    began = time.monotonic()
    verdict = guarded(name, settings, failed)
    took = time.monotonic() - began
    before = f"last time {times[name]:.0f} s" if name in times else "first time"
    word = "ok" if verdict.code == OK else CODE_NAMES[verdict.code].upper()
    say(f"{name:22} {word:6} {took:5.0f} s  ({before})  {runs.totals([verdict])}")
    if verdict.code == OK:
        times[name] = took
        save_json(TIMES, times)
    return verdict


def run_phases(settings, names):
    times = load_json(TIMES, {})
    outcomes, failed = [], set()
    for name in names:
        verdict = timed(name, settings, failed, times)
        if verdict.code != OK:
            failed.add(name)
        this = getattr(verdict, "run", None) or runs.Run(
            name, BUILD / "log", AGAIN.get(name, f"make {name}"))
        outcomes.append((name, verdict, this))
    runs.report(settings, outcomes)
    return next((v.code for _, v, _ in outcomes if v.code != OK), OK)


def at_every_change(settings):
    return run_phases(settings, [name for name in PHASES if name not in REST])


def everything(settings):
    return run_phases(settings, list(PHASES))


def only(settings, name):
    names = ["tree", name]
    if name == "lint":
        names += ["kernel(plain)", "sparse"]
    return run_phases(settings, names)
