# SPDX-License-Identifier: GPL-2.0
"""'make arm64': all KUnit suites on another architecture, with pages of 4 KiB and of
64 KiB. The results come on the console; there is no user land."""

import copy

import kbuild
import qemu
import runs
import verdict as verdicts
from common import (ENVIRONMENT, HANG, OK, Trouble, have, read_text)

QEMU = "qemu-system-aarch64"
CROSS = "aarch64-linux-gnu-"
SIZES = ("4k", "64k")
MACHINE = ["-M", "virt,gic-version=3", "-cpu", "cortex-a72", "-accel",
           "tcg,thread=multi", "-m", "8G", "-smp", "2"]
WORDS = ["console=ttyAMA0", "ignore_loglevel", "panic=-1", qemu.WATCHDOG,
         "kunit.enable=1", "kunit_shutdown=poweroff"]
FACTOR = 8.0


def boot(settings, config):
    """(verdict, run) of one page size."""
    run = runs.new_run(settings, f"arm64 CONFIG={config}", config)
    console, results = run.directory / "console", run.directory / "results"
    argv = [QEMU, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
            *MACHINE, "-kernel", str(kbuild.image(settings, config)), "-append",
            " ".join([*WORDS, settings.append]), "-serial", f"file:{console}"]
    (run.directory / "qemu-command").write_text(qemu.quoted(argv) + "\n")
    ended, status = qemu.boot(argv, console, results, config, FACTOR,
                              verbose=settings.verbose)
    verdict = verdicts.of_console(settings.tree, read_text(console), config,
                                  settings.obj(config) / ".config")
    if ended != "exited" or status:
        verdict.fail(config, f"{ended}, exit status {status}")
        verdict.code = verdict.code or HANG
    runs.decode(settings, config, verdict, run)
    return verdict, run


def phase_arm64(settings):
    for tool in (QEMU, CROSS + "gcc"):
        if not have(tool):
            raise Trouble(ENVIRONMENT, f"{tool} is missing: run 'make deps-all'")
    there = copy.copy(settings)
    there.arch, there.cross = "arm64", CROSS
    both = verdicts.Verdict(state="finished", code=OK)
    for size in SIZES:
        config = f"arm64-{size}"
        runs.kernel(there, config)
        verdict, both.run = boot(there, config)
        for kind in ("passed", "failed", "skipped", "splats"):
            getattr(both, kind).extend(getattr(verdict, kind))
        both.first_splat = both.first_splat or verdict.first_splat
        both.code = both.code or verdict.code
    return both
