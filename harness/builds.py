# SPDX-License-Identifier: GPL-2.0
"""'make builds': the kernels that nobody boots here. A small kernel with all of ours,
the same without each of the options that it knows, on 32 bits, and by clang; each of
our headers alone in each of them; and the smallest kernel, which must be no larger than
stock's. A warning is an error (CONFIG_WERROR)."""

import copy
import fnmatch
import re
import subprocess
from pathlib import Path

import config as configs
import kbuild
import tree
import verdict as verdicts
from common import (BUILD, OK, REPO, Trouble, log_for, run, say,
                    write_if_changed)

# One object directory for all that differ in options alone: each variant compiles
# only what its options concern.
VARIANTS = ("small", "no-mmu-notifier", "no-hmm-mirror", "no-device-private",
            "no-zone-device", "no-huge-pages", "no-numa", "no-fs-dax")
CLANG = "clang-19"
# Of a compiler, a linker or make; not the name of a file
COMPLAINT = re.compile(r"error: |warning: |undefined reference|\*\*\*")


def place(settings, config, where, **changes):
    """Settings that put one configuration into the object directory `where`."""
    there = copy.copy(settings)
    there.config, there.objdir = config, str(BUILD / where)
    for name, value in changes.items():
        setattr(there, name, value)
    return there


def headers():
    return sorted(p.name for p in (REPO / "include/linux").glob("*.h"))


def headers_alone(settings, config, log, more):
    """Compile each of our headers as the only thing that a file includes."""
    directory = settings.obj(config) / "hmm-headers"
    directory.mkdir(exist_ok=True)
    objects = []
    for name in headers():
        stem = "alone_" + Path(name).stem
        write_if_changed(directory / f"{stem}.c", f"#include <linux/{name}>\n".encode())
        objects.append(f"{stem}.o")
    write_if_changed(directory / "Makefile", ("obj-m := " + " ".join(objects) + "\n"
                                              "ccflags-y := -Wall -Wextra -Wno-unused-parameter"
                                              " -Wno-sign-compare\n").encode())
    return run(kbuild.argv(settings, config, objects, f"M={directory}", *more),
               f"headers({config})", log, settings.verbose, env=kbuild.env())


def complaint(what, status, tail, log):
    """Why a build that has to be silent was not, or None."""
    bad = [line for line in tail.splitlines() if COMPLAINT.search(line)]
    if status or any("warning:" in line for line in bad):
        return f"{what}: {(bad or ['failed'])[0]} (log: {log})"
    return None


def one(settings, config, log, *more):
    """Why one kernel does not build without a warning, or None."""
    configs.ensure_config(settings, config, log)
    done = run(kbuild.argv(settings, config, ["vmlinux"], *more), f"build({config})", log,
               settings.verbose, env=kbuild.env())
    return (complaint("vmlinux", *done, log)
            or complaint("headers", *headers_alone(settings, config, log, more), log))


def kernels(settings):
    """(name, settings, configuration, words for make) of each."""
    for variant in VARIANTS:
        yield variant, place(settings, variant, "obj-small"), variant, ()
    yield ("i386", place(settings, "i386", "obj-i386", arch="i386", cross=""), "i386", ())
    yield ("clang", place(settings, "small", "obj-clang"), "small",
           (f"CC={CLANG}", f"HOSTCC={CLANG}"))


def sizes(vmlinux):
    """text, data and bss of a kernel, in bytes."""
    done = subprocess.run(["size", vmlinux], capture_output=True, text=True, check=True)
    return tuple(int(n) for n in done.stdout.splitlines()[1].split()[:3])


def stock(settings):
    """Settings of a tree that has nothing of ours."""
    there = copy.copy(settings)
    there.tree = BUILD / "linux-base"
    tree.ensure_tree(there, kind=tree.Pristine)
    return there


def size_of_nothing(settings, verdict):
    """With all of it switched off, a kernel is as large as if we did not exist."""
    found = {}
    for name, source in (("stock", stock(settings)), ("ours", settings)):
        there = place(source, "nothing", f"obj-nothing-{name}")
        log = log_for(f"builds-nothing-{name}")
        configs.ensure_config(there, "nothing", log)
        status, tail = run(kbuild.argv(there, "nothing", ["vmlinux"]), f"nothing({name})",
                           log, settings.verbose, env=kbuild.env())
        if status:
            verdict.settle("builds:nothing", complaint(f"nothing({name})", status, tail, log))
            return
        found[name] = sizes(there.obj("nothing") / "vmlinux")
    say(f"    text, data, bss with nothing of ours: stock {found['stock']}, "
        f"ours {found['ours']}")
    same = found["stock"] == found["ours"]
    verdict.settle("builds:nothing",
                   None if same else f"stock {found['stock']}, ours {found['ours']}")


def names():
    return [*VARIANTS, "i386", "clang", "nothing"]


def chosen(settings, name):
    """Does T=GLOB, if there is one, mean this build?"""
    globs = settings.tests.replace(",", " ").split() or ["*"]
    return any(fnmatch.fnmatch(name, glob) for glob in globs)


def phase_builds(settings):
    verdict = verdicts.Verdict(state="finished", code=OK)
    for name, there, config, more in kernels(settings):
        if not chosen(settings, name):
            continue
        try:
            why = one(there, config, log_for(f"builds-{name}"), *more)
        except Trouble as trouble:
            why = str(trouble)
        say(f"    {name}: {why or 'ok'}")
        verdict.settle(f"builds:{name}", why)
    if chosen(settings, "nothing"):
        size_of_nothing(settings, verdict)
    return verdict
