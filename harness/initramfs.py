# SPDX-License-Identifier: GPL-2.0
"""The guest's file system: a cpio made by the kernel's own gen_init_cpio from a
list, with a static busybox, our init, kselftest's installed tests, and what the
host has of programs that the tests call."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from common import BUILD_FAILED, ENVIRONMENT, HARNESS, Trouble

BUSYBOX = ("/usr/bin/busybox", "/bin/busybox")
DIRS = ("/bin", "/sbin", "/usr", "/usr/bin", "/usr/sbin", "/dev", "/proc", "/sys",
        "/tmp", "/mnt", "/root", "/etc", "/lib", "/lib/modules", "/kselftest",
        "/programs")

# Where the host has them: a test that misses one skips.
TOOLS = ("/usr/sbin/mkfs.xfs",)


def busybox():
    for path in BUSYBOX:
        if os.path.isfile(path):
            return path
    raise Trouble(ENVIRONMENT, "busybox-static is missing: run 'make deps'")


def spec(install, extra=(), more=()):
    """gen_init_cpio's list. `install` is kselftest's install directory, `more` what
    the guest has of the host's programs besides TOOLS."""
    lines = [f"dir {d} 755 0 0" for d in DIRS]
    lines += ["nod /dev/console 600 0 0 c 5 1",
              f"file /bin/busybox {busybox()} 755 0 0",
              "slink /bin/sh busybox 777 0 0",
              f"file /init {HARNESS}/guest/init 755 0 0",
              f"file /usr/bin/timeout {HARNESS}/guest/timeout 755 0 0",
              f"file /etc/passwd {HARNESS}/guest/passwd 644 0 0",
              f"file /etc/group {HARNESS}/guest/group 644 0 0"]
    lines += tools([*TOOLS, *more])
    for inside, outside in extra:
        lines.append(f"file {inside} {outside} 755 0 0")
    if install and install.is_dir():
        lines += installed(install)
    return "\n".join(lines) + "\n"


def tools(wanted):
    """Programs at the places that they have here, and the libraries of each."""
    files = set()
    for tool in filter(os.path.isfile, wanted):
        linked = subprocess.run(["ldd", tool], capture_output=True, text=True,
                                check=False).stdout
        files |= {tool, *re.findall(r"(/\S+) \(0x", linked)}
    dirs = {str(d) for f in files for d in Path(f).parents} - {*DIRS, "/"}
    return ([f"dir {d} 755 0 0" for d in sorted(dirs)]
            + [f"file {f} {os.path.realpath(f)} 755 0 0" for f in sorted(files)])


def installed(install):
    lines = []
    for top, dirs, files in os.walk(install):
        dirs.sort()
        inside = Path("/kselftest") / Path(top).relative_to(install)
        if str(inside) != "/kselftest":
            lines.append(f"dir {inside} 755 0 0")
        for name in sorted(files):
            path = Path(top) / name
            mode = "755" if os.access(path, os.X_OK) else "644"
            lines.append(f"file {inside / name} {path} {mode} 0 0")
    return lines


def build(obj, install, extra=(), more=()):
    """Make obj/hmm-initramfs.cpio and return its path."""
    tool = obj / "usr/gen_init_cpio"
    if not tool.is_file():
        raise Trouble(BUILD_FAILED, f"{tool} is missing: the kernel is not built")
    listing = obj / "hmm-initramfs.list"
    listing.write_text(spec(install, extra, more))
    target = obj / "hmm-initramfs.cpio"
    with open(target, "wb") as out:
        done = subprocess.run([tool, listing], stdout=out, stderr=subprocess.PIPE,
                              check=False)
    if done.returncode:
        raise Trouble(BUILD_FAILED, "gen_init_cpio: " + done.stderr.decode())
    return target


def check_static(install):
    """Names of installed binaries that need a dynamic loader."""
    bad = []
    if shutil.which("readelf") is None:
        return bad
    for top, _, files in os.walk(install):
        for name in files:
            path = Path(top) / name
            with open(path, "rb") as file:
                if file.read(4) != b"\x7fELF":
                    continue
            text = subprocess.run(["readelf", "-lW", path], capture_output=True,
                                  text=True, check=False).stdout
            if "INTERP" in text:
                bad.append(name)
    return bad
