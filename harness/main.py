# SPDX-License-Identifier: GPL-2.0
"""The verbs. Each is a function of the settings that returns an exit code."""

import signal
import sys

import config as configs
import qemu
import runs
import tree
from common import (OK, USAGE, Settings, Trouble, building, log_for, main_guard, say)


def verb_tree(settings):
    with building():
        changed = tree.ensure_tree(settings)
    say(f"{settings.tree}: {len(changed)} files brought up to date")
    return OK


def verb_config(settings):
    with building():
        tree.ensure_tree(settings)
        dot = configs.ensure_config(settings, settings.config, log_for("config"))
    say(f"{dot}: as requested")
    return OK


def verb_kernel(settings):
    image = runs.kernel(settings, settings.config)
    say(f"kernel: {image}")
    return OK


def verb_test(settings):
    """KUnit suites and self tests whose names match T; all of them without."""
    runs.kernel(settings, settings.config)
    kunit, selftests = runs.select(settings)
    if settings.machine not in qemu.MACHINES:
        raise Trouble(USAGE, f"MACHINE={settings.machine}: " + ", ".join(qemu.MACHINES))
    verdict, run = runs.test_boot(settings, settings.config, settings.cpus,
                                  kunit, selftests, settings.machine)
    runs.report(settings, [(run.title, verdict, run)])
    return verdict.code


def verb_conformance(settings):
    """The older tests on our core, with our dummy device and with the base's."""
    runs.kernel(settings, settings.config)
    outcomes = []
    for driver in runs.DRIVERS:
        verdict, run = runs.conformance_boot(settings, settings.config, settings.cpus,
                                             driver)
        outcomes.append((run.title, verdict, run))
    runs.report(settings, outcomes)
    return next((v.code for _, v, _ in outcomes if v.code != OK), OK)


def verb_programs(settings):
    import programs
    runs.kernel(settings, settings.config)
    return programs.verb_programs(settings)


def verb_mutants(settings):
    import mutants
    runs.kernel(settings, settings.config)
    return mutants.verb_mutants(settings)


def verb_demo(settings):
    runs.kernel(settings, settings.config)
    return runs.demo(settings)


def verb_shell(settings):
    runs.kernel(settings, settings.config)
    return runs.shell(settings)


def verb_gdb(settings):
    runs.kernel(settings, settings.config)
    return runs.debugger(settings)


def verb_check(settings):
    import check
    return check.at_every_change(settings)


def verb_check_all(settings):
    import check
    return check.everything(settings)


def verb_check_debug(settings):
    import check
    return check.debug(settings)


def verb_bench(settings):
    import bench
    return bench.everything(settings)


def verb_fuzz(settings):
    import fuzz
    runs.kernel(settings, settings.config)
    return fuzz.verb_fuzz(settings)


def verb_torture(settings):
    import torture
    return torture.verb_torture(settings)


def verb_series(settings):
    import series
    return series.verb_series(settings)


def verb_series_check(settings):
    import series
    return series.verb_series_check(settings)


def verb_model(settings):
    """Needs no kernel tree."""
    import check
    return check.run_phases(settings, ["model"])


def verb_fixes(_settings):
    """Needs no kernel tree."""
    import fixes
    return fixes.verb_fixes()


def single(name):
    """A verb that is one phase of 'make check'."""
    def verb(settings):
        import check
        return check.only(settings, name)
    return verb


VERBS = {
    "conformance": verb_conformance,
    "tree": verb_tree, "config": verb_config, "kernel": verb_kernel,
    "test": verb_test, "demo": verb_demo, "shell": verb_shell,
    "gdb": verb_gdb, "check": verb_check, "check-all": verb_check_all,
    "check-debug": verb_check_debug,
    "bench": verb_bench, "model": verb_model,
    "torture": verb_torture, "fuzz": verb_fuzz, "programs": verb_programs,
    "mutants": verb_mutants, "fixes": verb_fixes,
    "series": verb_series, "series-check": verb_series_check,
    "um": single("um"), "users": single("users"), "docs": single("docs"),
    "lint": single("lint"), "builds": single("builds"),
    "arm64": single("arm64"),
    "coverage": single("coverage"),
    "selfcheck": single("selfcheck"),
}


def interrupted(*_):
    raise KeyboardInterrupt


def main():
    signal.signal(signal.SIGTERM, interrupted)
    if len(sys.argv) != 2 or sys.argv[1] not in VERBS:
        raise Trouble(USAGE, "usage: main.py " + "|".join(VERBS))
    return VERBS[sys.argv[1]](Settings())


if __name__ == "__main__":
    main_guard(main)
