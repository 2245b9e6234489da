# SPDX-License-Identifier: GPL-2.0
"""'make bench': the same benchmarks in the stock kernel and in ours.

Both are built from one configuration. The figures of one CPU are counted under
-icount, where the guest's time stamp counter counts its instructions: the same
kernel prints the same figures to the digit, whatever this machine is doing. The
figures of several CPUs are rates of an emulator on the CPUs that there are; look
at their ratios, and not closely.
"""

import copy
import json
import os
import re
import statistics

import bench_report
import config as configs
import kbuild
import qemu
import runs
import tree
import verdict as verdicts
from common import (BUILD, HARNESS, OK, TEST_FAILED, Trouble, building, have,
                    log_for, read_text, run, say, write_if_changed)

# Fixed, so that figures can be compared with those of another day. The kernel
# chooses its code paths by the CPU's features.
CPU = "Nehalem"
EXACT = ["-accel", "tcg", "-icount", "shift=0,sleep=off", "-cpu", CPU]
CROWD = ["-accel", "tcg,thread=multi", "-cpu", CPU]
CROWD_CPUS = 4
CROWD_BOOTS = 7         # the median of them counts
MEMORY = "2G"

# What is counted on one CPU: a suite, and what the N of its rows NAME/N counts, if it
# has any.
SUITES = {"mmu_notifier_bench": "subscriptions",
          "hmm_bench": "pages of a range (or VMAs, or huge pages)",
          "memremap_bench": "", "migrate_device_bench": ""}

FIGURE = re.compile(r"# ?(?:.*?)bench: (\S+) ([\d.]+) (\S+)\s*$")
NATIVE = "hmm_bench"
RESULTS = BUILD / "bench.json"


# Emulated CPUs may still run the breakpoint of a text patching that is over.
STALE = re.compile(r"Oops: int3: .* SMP")


class StaleBreakpoint(Trouble):
    """The emulator's fault; worth another boot."""


def kernels(settings):
    """(name, settings, configuration) of the two that are compared."""
    stock = copy.copy(settings)
    stock.tree = BUILD / "linux-stock"
    return (("stock", stock, "stock", tree.Baseline), ("ours", settings, "bench",
                                                       tree.Overlay))


def build(settings, config, kind):
    log = log_for(f"kernel-{config}")
    with building():
        tree.ensure_tree(settings, kind=kind)
        configs.ensure_config(settings, config, log)
        return kbuild.build_kernel(settings, config, log)


def boot(settings, config, suite, machine, cpus):
    """Run one suite; returns its figures as {name: (value, unit)}."""
    this = runs.new_run(settings, f"bench {config} {suite}", config)
    console, results = this.directory / "console", this.directory / "results"
    words = ["console=ttyS0", "ignore_loglevel", "panic=-1", qemu.WATCHDOG, qemu.CLOCK,
             "kunit.enable=1", f"kunit.filter_glob={suite}", "kunit_shutdown=poweroff",
             "nokaslr"]
    argv = [qemu.QEMU, "-nodefaults", "-no-user-config", "-no-reboot", "-display",
            "none", "-M", "pc", *machine, "-m", MEMORY, "-smp", str(cpus), "-kernel",
            str(kbuild.image(settings, config)), "-append", " ".join(words),
            "-serial", f"file:{console}"]
    (this.directory / "qemu-command").write_text(qemu.quoted(argv) + "\n")
    ended, status = qemu.boot(argv, console, results, f"{suite} ({config})", 10)
    text = read_text(console)
    verdict = verdicts.Verdict()
    verdicts.add_splats(verdict, text)
    if STALE.search(text):
        raise StaleBreakpoint(TEST_FAILED, f"{suite} ({config}): int3; see {console}")
    if ended != "exited" or status or verdict.splats:
        raise Trouble(TEST_FAILED, f"{suite} ({config}) ended badly; see {console}")
    return figures(text, f"{suite} ({config}); see {console}")


def native(settings, config):
    """The suite of ranges as native code, on User Mode Linux; cycles of this CPU."""
    obj, log = BUILD / f"obj-um-{config}", log_for(f"um-{config}")
    options = [w for word in kbuild.compiler(settings) for w in ("--make_options", word)]
    argv = ["python3", "-B", "tools/testing/kunit/kunit.py", "run", "--arch", "um",
            "--kunitconfig", HARNESS / "config/um-bench.config", "--build_dir", obj,
            "--jobs", str(settings.jobs), "--timeout", "600", *options, NATIVE]
    console = obj / "test.log"
    console.unlink(missing_ok=True)
    status, tail = run(argv, f"um ({config})", log, settings.verbose,
                       cwd=settings.tree, env=kbuild.env())
    if status or not console.is_file():
        raise Trouble(TEST_FAILED, f"{NATIVE} did not run on um:\n" + tail[-1500:])
    return figures(read_text(console), f"{NATIVE} on um ({config})")


def figures(text, what):
    """The figures on a console; Trouble when the suite did not pass."""
    text = verdicts.TIMESTAMP.sub("", text)
    found = {}
    for line in text.splitlines():
        match = FIGURE.search(line)
        if match:
            found[match[1]] = (float(match[2]), match[3])
    passed = re.search(r"^ok \d+ ", text, re.M)
    if not found or not passed or re.search(r"^ *not ok", text, re.M):
        raise Trouble(TEST_FAILED, f"no figures of {what}")
    return found


def targets():
    """What each row should cost at most."""
    wanted = {}
    for line in read_text(HARNESS / "bench.targets").splitlines():
        words = line.split("#")[0].split()
        if words:
            wanted[words[0]] = float(words[1])
    return wanted


def table(rows, wanted, names):
    """Some figures side by side, as lines."""
    lines = [f"{'what':32} {'unit':8} {'stock':>10} {'ours':>10} {'ratio':>6} "
             f"{'target':>7}"]
    for name in names:
        value, unit = rows["ours"][name]
        stock = rows["stock"].get(name, (None, unit))[0]
        ratio = f"{value / stock:6.2f}" if stock else "     -"
        goal = wanted.get(name)
        lines.append(f"{name:32} {unit:8} {stock if stock is not None else '-':>10} "
                     f"{value:>10} {ratio} {goal if goal is not None else '':>7}"
                     + ("  MISSED" if goal is not None and value > goal else ""))
    return lines


def scale(rows):
    """Figures named WHAT/N: a line for each WHAT and kernel, a column for each N."""
    what = {}
    for name in rows["ours"]:
        stem, _, number = name.rpartition("/")
        if stem:
            what.setdefault(stem, []).append(number)
    columns = sorted({n for numbers in what.values() for n in numbers}, key=int)
    lines = [f"{'what':28} {'':5} " + " ".join(f"{n:>9}" for n in columns)]
    for stem in what:
        for kernel in ("stock", "ours"):
            cells = [str(rows[kernel].get(f"{stem}/{n}", ("",))[0]) for n in columns]
            lines.append(f"{stem:28} {kernel:5} " + " ".join(f"{c:>9}" for c in cells))
    return lines


def missed(rows, wanted):
    """Targets that were not reached, or not measured at all."""
    return [name for name, goal in wanted.items()
            if name not in rows or rows[name][0] > goal]


def versions():
    """What the figures depend on besides the source."""
    named = []
    for argv in (["gcc", "--version"], [qemu.QEMU, "--version"]):
        if have(argv[0]):
            _, tail = run(argv, argv[0])
            named.append(tail.splitlines()[0])
    return [*named, f"QEMU CPU model {CPU}, x86-64"]


def titled(title, lines):
    return [title, *("  " + line for line in lines), ""]


def of_suite(rows, wanted, counted):
    """Both tables of a suite that was counted on one CPU."""
    alone = [n for n in rows["ours"] if n in wanted or "/" not in n]
    lines = titled("Instructions (or bytes), one CPU (-icount shift=0):",
                   table(rows, wanted, alone))
    if any("/" in name for name in rows["ours"]):
        lines += titled(f"Instructions against the number of {counted}:", scale(rows))
    return lines


def merged(suites, kernel):
    """All figures of one kernel."""
    return {name: figure for rows in suites.values()
            for name, figure in rows[kernel].items()}


def middle(boots):
    """The median of each figure."""
    return {name: (statistics.median(figures[name][0] for figures in boots), unit)
            for name, (_, unit) in boots[0].items()}


def crowd_of(compared):
    """Of so many boots; some more where the emulator failed. The kernels take turns: what
    else this machine does changes within minutes, and then it changes both."""
    boots, failures = {name: [] for name, *_ in compared}, 0
    while any(len(done) < CROWD_BOOTS for done in boots.values()):
        name, these, config, _ = min(compared, key=lambda one: len(boots[one[0]]))
        try:
            boots[name].append(boot(these, config, "mmu_notifier_crowd", CROWD,
                                    CROWD_CPUS))
        except StaleBreakpoint:
            failures += 1
            if failures > CROWD_BOOTS:
                raise
    return {name: middle(figures) for name, figures in boots.items()}


def measure(settings):
    """Build both, measure both: figures of each suite, of a crowd of CPUs, and native."""
    suites, um = {suite: {} for suite in SUITES}, {}
    for name, these, config, kind in kernels(settings):
        build(these, config, kind)
        for suite, rows in suites.items():
            rows[name] = boot(these, config, suite, EXACT, 1)
        um[name] = native(these, config)
    return suites, crowd_of(kernels(settings)), um


def report(suites, crowd, um, wanted):
    """All tables, as lines."""
    lines = titled("Built and run with:", versions())
    for suite, rows in suites.items():
        lines += of_suite(rows, wanted, SUITES[suite])
    lines += titled(f"Operations a ms against the CPUs at work, of {CROWD_CPUS} virtual ones "
                    f"on {os.cpu_count()} real ones, median of {CROWD_BOOTS} boots; ratios "
                    "count:", scale(crowd))
    return lines + titled("Cycles of this machine, natively on User Mode Linux; ratios "
                          "count:", table(um, {}, [n for n in um["ours"] if "/" not in n]))


def everything(settings):
    """Measure, print, write down for the manual, and name what is not as it was to be."""
    suites, crowd, um = measure(settings)
    wanted, ours = targets(), merged(suites, "ours")
    lines = report(suites, crowd, um, wanted)
    for line in lines:
        say(line)
    exact = {kernel: merged(suites, kernel) for kernel in ("stock", "ours")}
    kept = {"versions": versions(), "exact": exact, "crowd": crowd, "um": um}
    write_if_changed(RESULTS, (json.dumps(kept, indent=1) + "\n").encode())
    worse = bench_report.worse(kept, bench_report.committed())
    bench_report.write(kept, lines, wanted)
    left = missed(ours, wanted)
    for name in left:
        say(f"MISSED: {name}")
    for what in worse:
        say(f"WORSE than the last commit: {what}")
    say(f"{len(wanted) - len(left)} of {len(wanted)} targets met; {bench_report.WHERE}")
    return OK if not left and not worse else TEST_FAILED
