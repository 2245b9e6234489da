# SPDX-License-Identifier: GPL-2.0
"""Boots with a purpose: tests, the demo, a prompt, a debugger. Each keeps what it
takes to repeat it in build/runs/<time>."""

import collections
import datetime
import fnmatch
import re
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import config as configs
import initramfs
import kbuild
import qemu
import tree
import verdict as verdicts
from common import (BUILD, CODE_NAMES, ENVIRONMENT, HANG, OK, REPO, RUNS, TEST_FAILED,
                    USAGE, Trouble, building, child, log_for, read_text, say)

KEEP_RUNS = 40
DRIVERS = ("ours", "stock")


@dataclass
class Run:
    """One boot: where its files lie and how to do it again."""

    title: str
    directory: Path
    repeat: str
    config: str = ""
    seconds: float = 0.0


# --- what a run keeps -------------------------------------------------------

_directories = threading.Lock()


def new_run(settings, title, config):
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    slug = "".join(c if c.isalnum() else "-" for c in title).strip("-")
    directory = RUNS / f"{stamp}-{slug}"
    with _directories:
        directory.mkdir(parents=True, exist_ok=True)
        latest = RUNS / "latest"
        latest.unlink(missing_ok=True)
        latest.symlink_to(directory.name)
        for old in sorted(p for p in RUNS.iterdir() if p.name != "latest")[:-KEEP_RUNS]:
            shutil.rmtree(old, ignore_errors=True)
    git = ["git", "-C", str(REPO)]
    for name, argv in (("commit", [*git, "log", "-1", "--format=%H %s"]),
                       ("status", [*git, "status", "--short"]),
                       ("diff", [*git, "diff", "HEAD"])):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        (directory / name).write_text(done.stdout)
    shutil.copy(settings.obj(config) / ".config", directory / "config")
    return Run(title, directory, f"make {title}", config)


# --- what to run ------------------------------------------------------------

def select(settings):
    """(KUnit globs, self tests) that T names; (["*"], None) for everything.

    T is one or more globs, each of a suite, suite.case or a self test.
    """
    if not settings.tests:
        return "*", None
    names = available_selftests(settings, settings.config)
    suites = verdicts.expected_kunit(settings.tree)
    kunit, selftests = [], []
    for glob in settings.tests.replace(",", " ").split():
        glob = glob.removeprefix("kunit:").removeprefix("vm:")
        hits = [n for n in names if fnmatch.fnmatch(n, glob)]
        selftests += [h for h in hits if h not in selftests]
        if any(verdicts.matches(s, c, glob) for s, cases in suites.items() for c in cases):
            kunit.append(glob)
        elif not hits:
            raise Trouble(USAGE, f"no test matches {glob}; suites: " + " ".join(suites)
                          + "; self tests: " + " ".join(names))
    if len(kunit) > 1:
        raise Trouble(USAGE, "KUnit takes one glob at a time: " + " ".join(kunit))
    return (kunit[0] if kunit else None), selftests


def available_selftests(settings, config):
    with building():
        install = install_selftests(settings, config)
    return verdicts.expected_selftests(install)


def install_selftests(settings, config, log=None):
    """The vm collection, linked statically, installed for the guest."""
    install = settings.obj(config) / "hmm-selftests"
    source = settings.tree / "tools/testing/selftests/vm"
    if not (source / "Makefile").is_file():
        return install
    log = log or BUILD / "log/selftests.log"
    kbuild.selftests(settings, config, "vm", install, log, "LDFLAGS=-static")
    bad = initramfs.check_static(install)
    if bad:
        raise Trouble(ENVIRONMENT, "not linked statically: " + " ".join(bad))
    return install


def kernel(settings, config):
    """Bring tree, configuration and kernel up to date; returns the image."""
    log = log_for(f"kernel-{config}")
    with building():
        tree.ensure_tree(settings)
        configs.ensure_config(settings, config, log)
        return kbuild.build_kernel(settings, config, log)


# --- boots ------------------------------------------------------------------

def prepare(settings, config):
    """(initramfs, install directory) for one configuration."""
    with building():
        install = install_selftests(settings, config)
        demo = install / "vm/hmm_demo"
        extra = [("/bin/hmm_demo", demo)] if demo.is_file() else []
        extra += drivers(our_modules(settings, config))
        return initramfs.build(settings.obj(config), install, extra), install


def drivers(modules):
    """Where the guest finds the modules that it is to load."""
    return [(f"/lib/modules/{module.name}", module) for module in modules]


def our_modules(settings, config):
    """The drivers under test: part of the kernel's build, or built beside it."""
    return (kbuild.modules(settings, config)
            or kbuild.our_driver(settings, config, BUILD / "log/driver.log"))


def words_for(kunit, selftests, timeout):
    words = ["hmm.do=tests", f"hmm.timeout={timeout}"]
    words.append(f"kunit.enable={0 if kunit is None else 1}")
    if kunit not in (None, "*"):
        words.append(f"kunit.filter_glob={kunit}")
    if selftests is not None:
        words.append("hmm.tests=" + (",".join(selftests) or "none"))
    return words


def boot_guest(settings, run, cpus, initrd, words, machine="pc", quick=False, seconds=0):
    """Boot once, keep what repeats it; returns what verdicts.judge() wants to know:
    console, results, how it ended, QEMU's status. It may take so many seconds more than
    others; a quick boot goes without the slowest detectors."""
    config, accel = run.config, qemu.accelerator()
    factor = qemu.scale(accel, config) + seconds / qemu.BOOT_SECONDS
    console, results = run.directory / "console", run.directory / "results"
    argv = qemu.command(accel, kbuild.image(settings, config), initrd,
                        qemu.cmdline([*words, "hmm.results=ttyS1", settings.append],
                                     config, machine, quick),
                        cpus, f"file:{console}", f"file:{results}", machine=machine)
    (run.directory / "qemu-command").write_text(qemu.quoted(argv) + "\n")
    began = time.monotonic()
    ended, status = qemu.boot(argv, console, results, run.title, factor,
                              verbose=settings.verbose)
    run.seconds = time.monotonic() - began
    return read_text(console), read_text(results), ended, status


def our_functions(settings, config):
    """Names of all functions of ours in a kernel that reports data races, in its core
    as in ours; None for others."""
    if config != "kcsan":
        return None
    built = [settings.obj(config) / Path(name).with_suffix(".o")
             for name in tree.overlay_files(REPO) if name.endswith(".c")]
    done = subprocess.run(["nm", "--defined-only", *(o for o in built if o.is_file())],
                          capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in re.findall(r" [tTwW] (\S+)$", done.stdout, re.M)}


def conclude(settings, run, verdict):
    """What a run keeps of its verdict."""
    decode(settings, run.config, verdict, run)
    (run.directory / "verdict").write_text("\n".join(summary(verdict)) + "\n")
    return verdict, run


def test_boot(settings, config, cpus, kunit="*", selftests=None, machine="pc",
              quick=False, seconds=0):
    """Boot once and run tests; returns (verdict, run)."""
    initrd, install = prepare(settings, config)
    other = "" if machine == "pc" else f" MACHINE={machine}"
    run = new_run(settings, f"test CONFIG={config} CPUS={cpus}{other}", config)
    timeout = qemu.selftest_seconds(qemu.accelerator(), config) + seconds
    console, results, ended, status = boot_guest(
        settings, run, cpus, initrd, words_for(kunit, selftests, timeout), machine, quick,
        seconds)
    suites = {} if kunit is None else verdicts.expected_kunit(settings.tree, kunit)
    absent = verdicts.absent_kunit(settings.tree, settings.obj(config) / ".config")
    expected = {"kunit": {suite: [c for c in cases if f"{suite}.{c}" not in absent]
                          for suite, cases in suites.items()},
                "kselftest": verdicts.expected_selftests(install)
                if selftests is None else selftests}
    verdict = verdicts.judge(settings.tree, console, results, expected, ended, status,
                             our_functions(settings, config))
    if not (verdict.passed or verdict.failed or verdict.skipped):
        verdict.fail("tests", "nothing ran")
        verdict.code = TEST_FAILED
    verdict.skipped += [(f"kunit:{name}", f"not in this kernel: {option}")
                        for name, option in absent.items()
                        if name.split(".")[1] in suites.get(name.split(".")[0], ())]
    return conclude(settings, run, verdict)


def conformance_boot(settings, config, cpus, driver="ours"):
    """The older tests of the dummy device, in selftests/mm: they are the yardstick of
    its interface. Their scripts hide failures, so the program runs without them, and
    what it skips counts as failed: this guest has all that it needs. The device is
    ours, or the base's own on our core."""
    obj = settings.obj(config)
    with building():
        log = BUILD / "log/conformance.log"
        program = kbuild.one_selftest(settings, config, "mm", "hmm-tests",
                                      obj / "hmm-conformance", log)
        modules = (our_modules(settings, config) if driver == "ours" else
                   kbuild.stock_driver(settings, config,
                                       tree.state_dir(settings.tree) / "stock/lib", log))
        initrd = initramfs.build(obj, None, [("/bin/hmm-tests", program),
                                             *drivers(modules)])
    run = new_run(settings, f"conformance DRIVER={driver}", config)
    console, results, ended, status = boot_guest(
        settings, run, cpus, initrd, ["kunit.enable=0", "hmm.do=conformance"])
    verdict = verdicts.judge(settings.tree, console, results, {"program": ["hmm-tests"]},
                             ended, status)
    for name, why in verdict.skipped:
        verdict.fail(name, f"skipped: {why}")
    verdict.skipped = []
    verdict.code = verdicts.exit_code(verdict, ended)
    return conclude(settings, run, verdict)


def decode(settings, config, verdict, run):
    """Put the first splat, with source lines where possible, beside the log."""
    if not verdict.first_splat:
        return
    text = "\n".join(verdict.first_splat) + "\n"
    script = settings.tree / "scripts/decode_stacktrace.sh"
    try:
        done = subprocess.run(["bash", script, settings.obj(config) / "vmlinux",
                               settings.tree], input=text, capture_output=True,
                              text=True, timeout=120, check=False)
        text = done.stdout if done.returncode == 0 and done.stdout else text
    except (OSError, subprocess.TimeoutExpired):
        pass
    (run.directory / "splat").write_text(text)
    verdict.first_splat = text.splitlines()


def summary(verdict):
    """What a reader wants of one verdict, failures last."""
    lines = [f"  skipped: {name}: {why}" for name, why in verdict.skipped]
    lines += noted(verdict)
    lines += [f"  FAILED: {name}: {why}" for name, why in verdict.failed]
    return lines + [totals([verdict])]


def noted(verdict):
    """What does not count against us, and is not to be hidden either."""
    return [f"  noted: {times} times, not ours: {line}"
            for line, times in collections.Counter(verdict.races).most_common()]


def totals(all_verdicts):
    return "{} passed, {} failed, {} skipped".format(*(
        sum(len(getattr(v, kind)) for v in all_verdicts)
        for kind in ("passed", "failed", "skipped")))


def repeat_command(run, name):
    """The one command that repeats just a failing test."""
    test = name.removeprefix("kunit:").removeprefix("vm:")
    parts = test.split(".")
    if name.startswith("vm:"):
        return f"{run.repeat} T={parts[0]}"
    if name.startswith("kunit:"):
        return f"{run.repeat} T='{'.'.join(parts[:2])}'"
    return run.repeat


def reasons(run, name):
    """What the run's own logs tell of a test that failed."""
    if not run or not (run.directory / "results").is_file():
        return []
    return verdicts.evidence(name, read_text(run.directory / "console"),
                             read_text(run.directory / "results"))


def report(settings, outcomes):
    """Print (title, verdict, run) triples: details first, totals last."""
    for title, verdict, run in outcomes:
        for name, why in verdict.skipped:
            say(f"  skipped: {name}: {why}")
        for line in noted(verdict):
            say(line)
    for title, verdict, run in outcomes:
        if verdict.first_splat:
            say(f"first splat of {title}:")
            for line in verdict.first_splat[:60]:
                say("    " + line)
    for title, verdict, run in outcomes:
        if not verdict.failed:
            continue
        say(f"{title}: {CODE_NAMES[verdict.code]}"
            + (f"; see {run.directory}" if run else ""))
        if run:
            say(f"  again: {repeat_command(run, verdict.failed[0][0])}")
        for name, why in verdict.failed:
            say(f"  FAILED: {name}: {why}")
            for line in reasons(run, name):
                say(f"      {line}")
    say(totals([v for _, v, _ in outcomes]))


# --- not tests --------------------------------------------------------------

def special(settings, what, serial, results, more=(), words=()):
    """(QEMU command, run) for a boot that is not a test."""
    config = settings.config
    initrd, _ = prepare(settings, config)
    run = new_run(settings, what, config)
    accel = qemu.accelerator()
    append = qemu.cmdline(["kunit.enable=0", *words, settings.append], config)
    argv = qemu.command(accel, kbuild.image(settings, config), initrd, append,
                        settings.cpus, serial.format(run.directory),
                        results.format(run.directory), more)
    (run.directory / "qemu-command").write_text(qemu.quoted(argv) + "\n")
    return argv, run, accel


def demo(settings):
    """Run /bin/hmm_demo in the guest, its words on our terminal."""
    argv, run, accel = special(settings, "demo", "file:{}/console", "file:{}/results",
                               words=["hmm.do=demo", "hmm.results=ttyS1"])
    console, results = run.directory / "console", run.directory / "results"
    pending = [""]

    def show(text):
        *lines, pending[0] = (pending[0] + text.replace("\r", "")).split("\n")
        for line in lines:
            if not line.startswith(verdicts.GUEST):
                say(line)

    say("  booting ...")
    ended, status = qemu.boot(argv, console, results, "demo",
                              qemu.scale(accel, settings.config), show=show)
    verdict = verdicts.judge(settings.tree, read_text(console), read_text(results),
                             {}, ended, status)
    if verdict.status not in (0, None):
        verdict.fail("hmm_demo", f"exit status {verdict.status}")
        verdict.code = verdict.code or TEST_FAILED
    if verdict.status is None and not verdict.failed:
        verdict.fail("hmm_demo", "never ended")
        verdict.code = HANG
    for name, why in verdict.failed:
        say(f"FAILED: {name}: {why}")
    if verdict.failed:
        say(f"console: {console}")
        decode(settings, settings.config, verdict, run)
        for line in verdict.first_splat[:40]:
            say("    " + line)
    return verdict.code


def shell(settings):
    """A prompt in the guest, on this terminal."""
    argv, _, _ = special(settings, "shell", "mon:stdio", "null",
                         words=["hmm.do=shell", "quiet", "loglevel=4"])
    argv = [w.replace("ignore_loglevel ", "") for w in argv]
    return OK if subprocess.run(argv, check=False).returncode == 0 else TEST_FAILED


def debugger(settings):
    """The same guest, stopped at its first instruction, and gdb on it."""
    gdb = shutil.which("gdb")
    if not gdb:
        raise Trouble(ENVIRONMENT, "gdb is missing: run 'make deps'")
    argv, run, _ = special(settings, "gdb", "file:{}/console", "null",
                           more=["-s", "-S"], words=["nokaslr", "hmm.do=tests"])
    say(f"  console: {run.directory}/console")
    with child(argv):
        return subprocess.run(
            [gdb, "-q", settings.obj(settings.config) / "vmlinux",
             "-ex", "target remote :1234", "-ex", "hbreak start_kernel",
             "-ex", "continue"], check=False).returncode
