# SPDX-License-Identifier: GPL-2.0
"""Calls of the kernel's own build: the kernel, its self tests, single objects."""

import shutil
from pathlib import Path

from common import (BUILD, BUILD_FAILED, REPO, Trouble, build_env, have, require_status, run,
                    say, write_if_changed)

IMAGES = {"x86_64": "arch/x86/boot/bzImage", "arm64": "arch/arm64/boot/Image"}


def env():
    """kbuild's environment; ccache is told to see past where the clone lies."""
    values = build_env()
    values.setdefault("CCACHE_BASEDIR", str(BUILD))
    values.setdefault("CCACHE_NOHASHDIR", "1")
    return values


def compiler(settings):
    """The compilers, behind ccache where it is installed."""
    gcc = f"{settings.cross}gcc"
    if not have("ccache"):
        return [f"CC={gcc}"] if settings.cross else []
    return [f"CC=ccache {gcc}", "HOSTCC=ccache gcc"]


def measured():
    """Those of our files whose coverage is counted: the core, not its tests."""
    return sorted(str(p.relative_to(REPO)) for p in (REPO / "mm").glob("*.c"))


def argv(settings, config, targets, *more):
    """A make command line in the tree for one configuration."""
    line = ["make", "-C", settings.tree, f"O={settings.obj(config)}",
            f"ARCH={settings.arch}", f"-j{settings.jobs}",
            "KBUILD_BUILD_USER=hmm", "KBUILD_BUILD_HOST=hmm"]
    if config == "gcov":
        line += [f"GCOV_PROFILE_{Path(path).stem}.o=y" for path in measured()]
    if settings.cross:
        line.append(f"CROSS_COMPILE={settings.cross}")
    if settings.verbose:
        line.append("V=1")
    return [*line, *compiler(settings), *more, *targets]


def image(settings, config):
    path = settings.obj(config) / IMAGES.get(settings.arch, "vmlinux")
    return path


def warnings_in(log, start):
    """What the compiler warned of in a log, from byte `start` on."""
    with open(log, "rb") as file:
        file.seek(start)
        return [line for line in file.read().decode(errors="replace").splitlines()
                if ": warning: " in line]


def build_kernel(settings, config, log):
    """The kernel image, vmlinux beside it, its modules, and the user-space headers."""
    targets = [image(settings, config).name, "modules", "headers"]
    start = log.stat().st_size if log.exists() else 0
    status, tail = run(argv(settings, config, targets), f"kernel({config})", log,
                       settings.verbose, env=env())
    require_status(status, tail, f"building the {config} kernel", log)
    for line in warnings_in(log, start):
        say(f"    {line}")
    return image(settings, config)


def modules(settings, config):
    """The drivers under test, which the guest loads."""
    return sorted((settings.obj(config) / "lib").glob("test_hmm*.ko"))


def driver_beside(settings, config, directory, sources, makefile, log):
    """Build a driver from copies of its sources as modules beside a kernel, as any
    driver from outside of the tree is."""
    directory.mkdir(parents=True, exist_ok=True)
    for source in sources:
        write_if_changed(directory / source.name, source.read_bytes())
    write_if_changed(directory / "Makefile", makefile.encode())
    status, tail = run(argv(settings, config, ["modules"], f"M={directory}"),
                       f"driver({config})", log, settings.verbose, env=env())
    require_status(status, tail, f"building {directory.name}", log)
    return sorted(directory.glob("*.ko"))


def our_driver(settings, config, log):
    """Our dummy device for a kernel whose configuration cannot have it."""
    return driver_beside(
        settings, config, settings.obj(config) / "hmm-driver",
        sorted((settings.tree / "lib").glob("test_hmm*.[ch]")),
        "obj-m := test_hmm.o test_hmm_dma.o\n"
        "test_hmm-y := test_hmm_main.o test_hmm_memory.o test_hmm_shadow.o\n", log)


def stock_driver(settings, config, source, log):
    """The base's own dummy device, put aside in `source`, as a module of our kernel:
    nobody has to read it for that."""
    return driver_beside(settings, config, settings.obj(config) / "hmm-stock-driver",
                         [source / "test_hmm.c", source / "test_hmm_uapi.h"],
                         "obj-m := test_hmm.o\n", log)


def one_selftest(settings, config, collection, program, directory, log):
    """Build one program of a collection, linked statically, and nothing else of it."""
    directory.mkdir(parents=True, exist_ok=True)
    line = ["make", "-C", settings.tree / "tools/testing/selftests" / collection,
            f"OUTPUT={directory}", f"ARCH={settings.arch}", "LDFLAGS=-static",
            f"KHDR_INCLUDES=-isystem {settings.obj(config)}/usr/include"]
    if settings.cross:
        line.append(f"CROSS_COMPILE={settings.cross}")
    status, tail = run([*line, directory / program], f"{collection}/{program}", log,
                       settings.verbose, env=env())
    require_status(status, tail, f"building {collection}/{program}", log)
    return directory / program


def selftests(settings, config, collection, install, log, *more):
    """Build one kselftest collection and install it as `install`."""
    shutil.rmtree(install, ignore_errors=True)
    line = ["make", "-C", settings.tree / "tools/testing/selftests",
            f"O={settings.obj(config)}", f"ARCH={settings.arch}",
            f"-j{settings.jobs}", f"TARGETS={collection}", "FORCE_TARGETS=1",
            f"INSTALL_PATH={install}", f"KSFT_INSTALL_PATH={install}", *more]
    if settings.cross:
        line.append(f"CROSS_COMPILE={settings.cross}")
    status, tail = run([*line, "install"], f"selftests({collection})", log,
                       settings.verbose, env=env())
    require_status(status, tail, f"building the self tests of {collection}", log)
    if not (install / "kselftest-list.txt").is_file():
        raise Trouble(BUILD_FAILED, f"{install} has no list of tests")
