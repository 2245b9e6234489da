# SPDX-License-Identifier: GPL-2.0
"""Debian's own configuration, a part of 'make builds': with our tree it settles on
every symbol that it settles on with stock's, with the same value; and our files compile
under it without a warning."""

import copy
import lzma
from pathlib import Path

import builds
import config as configs
import kbuild
import pedantic
import tree
import verdict as verdicts
from common import (BUILD, ENVIRONMENT, OK, REPO, USAGE, Trouble, log_for, read_text,
                    run, say)

PACKAGED = Path("/usr/src/linux-config-6.12")
FLAVOURS = ("none_amd64", "none_cloud-amd64", "rt_amd64")
# Whose objects are built: what such a kernel has of ours, no tests.
COMPILED = FLAVOURS[0]


def packaged(flavour):
    path = PACKAGED / f"config.amd64_{flavour}.xz"
    if not path.is_file():
        raise Trouble(ENVIRONMENT, f"{path} is missing: run 'make deps-all'")
    return lzma.decompress(path.read_bytes()).decode()


def place(settings, flavour, where):
    """Settings with an object directory for one flavour and one source."""
    there = copy.copy(settings)
    there.arch, there.cross = "x86_64", ""
    there.config, there.objdir = f"debian-{flavour}", str(BUILD / where)
    return there


def settled(there, flavour, log):
    """Symbol -> value, as Kconfig leaves the packaged configuration."""
    dot = there.obj(there.config) / ".config"
    dot.parent.mkdir(parents=True, exist_ok=True)
    dot.write_text(packaged(flavour))
    configs.make(there, there.config, ["olddefconfig"], log)
    return configs.parse(read_text(dot))


def changed(stock, ours):
    """Symbols of stock's that are gone or have another value, as lines."""
    return [f"CONFIG_{name}: {value} with stock, {ours.get(name, 'gone')} with ours"
            for name, value in sorted(stock.items()) if ours.get(name, "n") != value]


def compiled(there, log):
    """Why mm/ does not compile without a warning of our files, or None."""
    at = log.stat().st_size
    status, tail = run(kbuild.argv(there, there.config, ["mm/"]), "debian(mm)", log,
                       there.verbose, env=kbuild.env())
    found = pedantic.warned(read_text(log)[at:], tree.overlay_files(REPO))
    return builds.complaint("mm/", status, "\n".join(found) if found or not status else tail,
                            log)


def flavour(settings, stock, name):
    """Why one flavour is not as it was, or None."""
    log = log_for(f"debian-{name}")
    before = settled(place(stock, name, f"obj-debian-{name}-stock"), name, log)
    there = place(settings, name, f"obj-debian-{name}")
    different = changed(before, settled(there, name, log))
    if different:
        return f"{len(different)} symbols, {different[0]} (log: {log})"
    return compiled(there, log) if name == COMPILED else None


def check_chosen(settings):
    """'make builds' has these, too: does T=GLOB mean any of all?"""
    every = [*builds.names(), *(f"debian-{name}" for name in FLAVOURS)]
    if not any(builds.chosen(settings, name) for name in every):
        raise Trouble(USAGE, f"no build matches {settings.tests}: " + " ".join(every))


def phase_debian(settings):
    verdict = verdicts.Verdict(state="finished", code=OK)
    stock = builds.stock(settings)
    for name in FLAVOURS:
        if not builds.chosen(settings, f"debian-{name}"):
            continue
        try:
            why = flavour(settings, stock, name)
        except Trouble as trouble:
            why = str(trouble)
        say(f"    debian {name}: {why or 'ok'}")
        verdict.settle(f"debian:{name}", why)
    return verdict
