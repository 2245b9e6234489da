# SPDX-License-Identifier: GPL-2.0
"""'make programs': programs of the host, unmodified, while a device reads all of their
memory, or takes it away. What they put out has to be what they put out without.

guest/programs runs them and says of each, in KTAP, how it went; hmm_preload.c is what
brings the device in.
"""

import fnmatch
import os
import shutil
import subprocess

import initramfs
import runs
import verdict as verdicts
from common import (BUILD, BUILD_FAILED, ENVIRONMENT, HARNESS, USAGE, Trouble,
                    building, read_text, say)

PROGRAMS = ("sqlite3", "gcc", "redis", "stress_vm", "stress_mremap",
            "stress_userfaultfd", "stress_fork")
MODES = ("reference", "mirror", "private", "coherent")

# What they consist of. The server of Redis is a program of redis-tools under its other
# name: the package redis-server would start one on the host.
TOOLS = ("sqlite3", "gcc", "redis-cli", "redis-benchmark", "stress-ng")
REDIS = "redis-check-rdb"

# What the compiler is given, from the tree: ours, so that it is there, and not small.
UNIT = "tools/testing/selftests/vm/hmm_dev.c"


def select(wanted):
    """The programs that T names, by globs; all without."""
    if not wanted:
        return list(PROGRAMS)
    globs = wanted.replace(",", " ").split()
    for glob in globs:
        if not fnmatch.filter(PROGRAMS, glob):
            raise Trouble(USAGE, f"no program matches {glob}: " + " ".join(PROGRAMS))
    return [p for p in PROGRAMS if any(fnmatch.fnmatch(p, glob) for glob in globs)]


def tests(programs):
    """What guest/programs reports."""
    return [f"{program}_{mode}" for program in programs for mode in MODES]


def located(name):
    path = shutil.which(name)
    if not path:
        raise Trouble(ENVIRONMENT, f"{name} is missing: run 'make deps'")
    return path


def parts_of_gcc():
    """Programs that gcc calls, where it looks for them."""
    found = []
    for part in ("cc1", "as"):
        done = subprocess.run(["gcc", f"-print-prog-name={part}"], capture_output=True,
                              text=True, check=False)
        path = done.stdout.strip()
        found.append(path if os.path.isabs(path) else located(part))
    return found


def preprocess(settings):
    """UNIT without what it includes: the guest has no headers."""
    unit = BUILD / "programs.i"
    argv = ["gcc", "-E", "-P", "-D_GNU_SOURCE", f"-I{settings.tree}", "-isystem",
            settings.obj(settings.config) / "usr/include", settings.tree / UNIT,
            "-o", unit]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Trouble(BUILD_FAILED, f"preprocessing {UNIT}: {done.stderr}")
    return unit


def guest(settings):
    """The initramfs, with the programs in it."""
    with building():
        install = runs.install_selftests(settings, settings.config)
        extra = [("/programs/run", HARNESS / "guest/programs"),
                 ("/programs/programs.sql", HARNESS / "guest/programs.sql"),
                 ("/programs/unit.i", preprocess(settings)),
                 ("/usr/bin/redis-server", located(REDIS)),
                 *runs.drivers(runs.our_modules(settings, settings.config))]
        tools = [*map(located, TOOLS), located(REDIS), *parts_of_gcc()]
        return initramfs.build(settings.obj(settings.config), install, extra, tools)


def boot(settings, programs):
    """Boot once and run them; returns (verdict, run)."""
    config, cpus = settings.config, settings.cpus
    initrd = guest(settings)
    run = runs.new_run(settings, f"programs CONFIG={config} CPUS={cpus}", config)
    words = ["kunit.enable=0", "hmm.do=programs", "hmm.tests=" + ",".join(programs)]
    console, results, ended, status = runs.boot_guest(settings, run, cpus, initrd, words)
    verdict = verdicts.judge(settings.tree, console, results,
                             {"programs": tests(programs)}, ended, status)
    return runs.conclude(settings, run, verdict)


def phase_programs(settings):
    """All of them, for 'make check-all'."""
    verdict, this = boot(settings, PROGRAMS)
    verdict.run = this
    return verdict


def verb_programs(settings):
    """Those that T names; all of them without. The kernel has been built."""
    verdict, run = boot(settings, select(settings.tests))
    if settings.tests:
        run.repeat += f" T='{settings.tests}'"
    for line in figures(read_text(run.directory / "results")):
        say(f"    {line}")
    runs.report(settings, [(run.title, verdict, run)])
    return verdict.code


def figures(results):
    """How much the device did, for people."""
    return [line.lstrip("# ") for line in results.splitlines()
            if line.startswith("# ") and " pages compared" in line]
