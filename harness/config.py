# SPDX-License-Identifier: GPL-2.0
"""Kernel configurations: fragments merged on a base, each line checked.

A fragment line that Kconfig silently drops is the usual way to test something
else than one thinks, so what was asked for is compared with what came out.
"""

import hashlib
import re
from pathlib import Path

from common import (CONFIG_WRONG, HARNESS, REPO, Trouble, read_text, require_status,
                    run)
import kbuild

CONFIGS = {
    "plain": ("tinyconfig", ["plain", "@arch"]),
    "debug": ("tinyconfig", ["plain", "@arch", "debug"]),
    "kcsan": ("tinyconfig", ["plain", "@arch", "kcsan"]),
    "rt": ("tinyconfig", ["plain", "@arch", "rt"]),
    "gcov": ("tinyconfig", ["plain", "@arch", "gcov"]),
    "arm64-4k": ("tinyconfig", ["plain", "arm64", "arm64-4k"]),
    "arm64-64k": ("tinyconfig", ["plain", "arm64", "arm64-64k"]),
    "bench": ("tinyconfig", ["plain", "@arch", "bench"]),
    "stock": ("tinyconfig", ["plain", "@arch", "bench"]),
    "small": ("tinyconfig", ["builds/small"]),
    "warnings": ("tinyconfig", ["builds/small", "builds/warnings"]),
    "no-mmu-notifier": ("tinyconfig", ["builds/small", "builds/no-mmu-notifier"]),
    "no-hmm-mirror": ("tinyconfig", ["builds/small", "builds/no-hmm-mirror"]),
    "no-device-private": ("tinyconfig", ["builds/small", "builds/no-device-private"]),
    "no-zone-device": ("tinyconfig", ["builds/small", "builds/no-zone-device"]),
    "no-huge-pages": ("tinyconfig", ["builds/small", "builds/no-huge-pages"]),
    "no-numa": ("tinyconfig", ["builds/small", "builds/no-numa"]),
    "no-fs-dax": ("tinyconfig", ["builds/small", "builds/no-fs-dax"]),
    "i386": ("tinyconfig", ["builds/small", "builds/i386"]),
    "nothing": ("tinyconfig", ["builds/nothing"]),
    "users-on": ("x86_64_defconfig", ["users-on"]),
    "users-off": ("x86_64_defconfig", ["users-off"]),
}

LINE = re.compile(r"^(?:CONFIG_(\w+)=(.*)|# CONFIG_(\w+) is not set)$")


def parse(text):
    """Symbol -> value of a fragment or a .config; 'n' for 'is not set'."""
    found = {}
    for line in text.splitlines():
        match = LINE.match(line.strip())
        if match:
            found[match[1] or match[3]] = match[2] if match[1] else "n"
    return found


def render(symbols):
    return "".join(f"# CONFIG_{name} is not set\n" if value == "n"
                   else f"CONFIG_{name}={value}\n"
                   for name, value in symbols.items())


def mismatches(wanted, got):
    """Requested lines that the final .config does not honour."""
    return [f"CONFIG_{name}={value}: is {got.get(name, 'n')}"
            for name, value in wanted.items() if got.get(name, "n") != value]


def fragments(config, arch):
    if config not in CONFIGS:
        raise Trouble(CONFIG_WRONG, f"no configuration named {config}; there are: "
                      + " ".join(CONFIGS))
    names = [arch if n == "@arch" else n for n in CONFIGS[config][1]]
    paths = [HARNESS / "config" / f"{name}.config" for name in names]
    for path in paths:
        if not path.is_file():
            raise Trouble(CONFIG_WRONG, f"{path.relative_to(REPO)} does not exist")
    return paths


def requested(config, arch):
    """All that the fragments ask for; a later fragment has the last word."""
    wanted = {}
    for path in fragments(config, arch):
        wanted.update(parse(read_text(path)))
    return wanted


def stamp(settings, config, wanted):
    """Changes when the configuration has to be made afresh."""
    kconfig = settings.tree / "mm/Kconfig.hmm"
    text = render(wanted) + CONFIGS[config][0] + (
        read_text(kconfig) if kconfig.is_file() else "") + str(settings.tree)
    return hashlib.sha256(text.encode()).hexdigest()


def ensure_config(settings, config, log):
    """Make obj/.config what the fragments ask for, or say what is not."""
    obj = settings.obj(config)
    wanted = requested(config, settings.arch)
    mark = obj / ".hmm-config"
    value = stamp(settings, config, wanted)
    dot = obj / ".config"
    if not (mark.is_file() and dot.is_file() and read_text(mark) == value):
        obj.mkdir(parents=True, exist_ok=True)
        mark.unlink(missing_ok=True)
        if CONFIGS[config][0] == "tinyconfig":
            from_nothing(settings, config, wanted, log)
        else:
            from_defconfig(settings, config, wanted, log)
    check(wanted, dot, config)
    mark.write_text(value)
    return Path(dot)


def check(wanted, dot, config):
    """Trouble with its own exit code when a requested line did not come out."""
    wrong = mismatches(wanted, parse(read_text(dot)))
    if wrong:
        raise Trouble(CONFIG_WRONG, f"{config}: Kconfig did not give what was "
                      "asked for\n    " + "\n    ".join(wrong))


def from_nothing(settings, config, wanted, log):
    """Merge on tinyconfig; symbols that nobody names stay off.

    tinyconfig is allnoconfig told about the kernel's tiny*.config. Telling it
    about ours in the same breath keeps out what a symbol of ours only makes
    visible, such as the drivers that PCI would bring by default.
    """
    arch = {"x86_64": "x86", "i386": "x86"}.get(settings.arch, settings.arch)
    merged = {}
    for name in ("kernel/configs/tiny-base.config", "kernel/configs/tiny.config",
                 f"arch/{arch}/configs/tiny.config"):
        path = settings.tree / name
        merged.update(parse(read_text(path)) if path.is_file() else {})
    merged.update(wanted)
    told = settings.obj(config) / "hmm-requested.config"
    told.write_text(render(merged))
    make(settings, config, ["allnoconfig"], log, f"KCONFIG_ALLCONFIG={told}")
    make(settings, config, ["olddefconfig"], log)


def from_defconfig(settings, config, wanted, log):
    """Merge on an architecture's own default configuration."""
    make(settings, config, [CONFIGS[config][0]], log)
    dot = settings.obj(config) / ".config"
    merged = parse(read_text(dot))
    merged.update(wanted)
    dot.write_text(render(merged))
    make(settings, config, ["olddefconfig"], log)


def make(settings, config, targets, log, *more):
    status, tail = run(kbuild.argv(settings, config, targets, *more), f"config({config})",
                       log, settings.verbose, env=kbuild.env())
    require_status(status, tail, f"make {' '.join(targets)} ({config})", log)
