# SPDX-License-Identifier: GPL-2.0
"""'make fuzz': one boot in which hmm_fuzz does what it likes for as long as it may.

It is judged as any boot with tests is: a word of the kernel on the console is as bad
as a finding of the program.
"""

import copy
import random
import re

import runs
from common import read_text, say
from torture import number

PROGRAM = "hmm_fuzz"
CHECK_SECONDS = 60
# What the program may take beyond its time: until each operation has had its turn.
GRACE_SECONDS = 120

FOUND = re.compile(r"^[# ]*fuzz: FOUND: (.*)", re.M)
FIGURES = re.compile(r"^[# ]*fuzz: (seed \d+, \d+ operations .*)", re.M)


def again(config, cpus, seconds, seed):
    return f"make fuzz CONFIG={config} CPUS={cpus} SECONDS={seconds} SEED={seed}"


def boot(settings, config, cpus, seconds, seed):
    """(verdict, run) of one boot."""
    mine = copy.copy(settings)
    mine.append = f"{settings.append} hmm.fuzz={seconds},{seed}".strip()
    verdict, run = runs.test_boot(mine, config, cpus, None, [PROGRAM],
                                  seconds=seconds + GRACE_SECONDS)
    run.title = f"fuzz CONFIG={config} CPUS={cpus}"
    run.repeat = again(config, cpus, seconds, seed)
    results = read_text(run.directory / "results")
    # The program's own words tell more than that its test failed, and the command that
    # repeats it takes no T.
    found = FOUND.findall(results)
    verdict.failed = [(name.removeprefix("vm:"),
                       found[0] if found and name.endswith("nothing_found") else why)
                      for name, why in verdict.failed]
    say("    fuzz: " + (FIGURES.findall(results) or [f"seed {seed}, never ended"])[-1])
    return verdict, run


def some_seed():
    return number("SEED", random.randrange(1, 1 << 31))


def phase_fuzz(settings):
    """A short run on the kernel that tells most."""
    verdict, verdict.run = boot(settings, "debug", 2, CHECK_SECONDS, some_seed())
    return verdict


def verb_fuzz(settings):
    """As long as SECONDS says, with the decisions of SEED. The kernel is there."""
    seconds, seed = max(1, number("SECONDS", CHECK_SECONDS)), some_seed()
    say(f"    {again(settings.config, settings.cpus, seconds, seed)}")
    verdict, run = boot(settings, settings.config, settings.cpus, seconds, seed)
    runs.report(settings, [(run.title, verdict, run)])
    return verdict.code
