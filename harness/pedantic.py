# SPDX-License-Identifier: GPL-2.0
"""What W=1 says of our files, a part of 'make lint': each is compiled, and nothing else,
by both compilers, in a configuration that has them all."""

import re
from pathlib import Path

import builds
import config as configs
import kbuild
import lint
import tree
import verdict as verdicts
from common import OK, REPO, log_for, read_text, run

CONFIG = "warnings"
COMPILERS = {"gcc": (), "clang": (f"CC={builds.CLANG}", f"HOSTCC={builds.CLANG}")}


def warned(text, ours):
    """Lines that warn of our files. Core's headers have some of W=1 as well."""
    return [line for line in text.splitlines()
            if (found := re.match(r"(?:\S*?/)?((?:mm|lib|include|samples)/\S+?):\d+:.*warning: ",
                                  line)) and found[1] in ours]


def said(settings, log, name):
    """What one compiler says of all of them, as builds.complaint() does."""
    there = builds.place(settings, CONFIG, f"obj-{CONFIG}-{name}")
    configs.ensure_config(there, CONFIG, log)
    at = log.stat().st_size
    objects = [str(Path(path).with_suffix(".o")) for path in lint.kernel_sources()
               if path.endswith(".c")]
    status, tail = run(kbuild.argv(there, CONFIG, objects, "W=1", "KCFLAGS=-Wno-error",
                                   *COMPILERS[name]),
                       f"W=1({name})", log, settings.verbose, env=kbuild.env())
    found = warned(read_text(log)[at:], tree.overlay_files(REPO))
    return builds.complaint("W=1", status, "\n".join(found) if found or not status else tail,
                            log)


def phase_pedantic(settings):
    verdict = verdicts.Verdict(state="finished", code=OK)
    for name in COMPILERS:
        why = said(settings, log_for(f"warnings-{name}"), name)
        verdict.settle(f"W=1:{name}", why)
    return verdict
