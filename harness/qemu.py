# SPDX-License-Identifier: GPL-2.0
"""The machine: which accelerator works, how long things may take, one boot.

The console goes to one file and the results to another, through a second
serial port. Nothing is judged here: a boot ends as "exited", "hang" (too long
without a word) or "timeout", and verdict.py reads the two files.
"""

import re
import shlex
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from common import (ENVIRONMENT, HARNESS, STATE, Heartbeat, Trouble, child, have,
                    load_json, save_json, say)

QEMU = "qemu-system-x86_64"
# Two NUMA nodes. The second lies above 4 GiB, where nothing is in the way of two
# pages of 1 GiB; memory that the guest never touches costs the host nothing.
NODES = ("3G", "6G")
MEMORY = "9G"
# Four regions of persistent memory. Two are cut out of the first node: below 2 GiB,
# where each kind of machine has memory, and well below what its firmware uses at the
# top. The third, out of the second node, has one page of 1 GiB and as much again for
# its label. The fourth, next to it, is nobody's, and as large as the least that XFS
# takes: tests make file systems there, and take the memory away under them.
PMEM = ("memmap=128M!0x60000000 memmap=128M!0x68000000 memmap=2G!7G "
        "memmap=384M!9G")
# Memory for devices whose memory CPUs reach, two of 256 MiB. It is the start of the
# second node: what is left has room for the two pages of 1 GiB.
COHERENT = ("memmap=512M$0x100000000 test_hmm.spm_addr_dev0=0x100000000 "
            "test_hmm.spm_addr_dev1=0x110000000")
HUGE_PAGES = "hugepagesz=2M hugepages=32"
# Those of 1 GiB, which take minutes to clear where each byte has a shadow.
GIANT_PAGES = "hugepagesz=1G hugepages=1:2"

# A PCI device that does DMA, to any address, for the tests that want a real one.
EDU = "edu,dma_mask=0xffffffffffffffff{at}"
# An NVMe controller with memory of its own that other devices may use. What is behind
# it reads as zeroes, and no faster than 1 MiB a second: that a test can look on.
NVME = ["-drive", "if=none,id=nvme,driver=null-co,size=256M,read-zeroes=on,"
        "throttling.bps-total=1048576",
        "-device", "nvme,serial=hmm,drive=nvme,cmb_size_mb=64{at}"]

# A PCIe switch with two ports: devices behind it reach one another by themselves.
SWITCH = [word for device in ("pcie-root-port,id=root", "x3130-upstream,id=up,bus=root",
                              "xio3130-downstream,id=port0,bus=up,chassis=1",
                              "xio3130-downstream,id=port1,bus=up,chassis=2")
          for word in ("-device", device)]


@dataclass(frozen=True)
class Machine:
    """What QEMU is told, what the kernel is, and where those two devices are."""

    words: list
    append: tuple = ()
    edu: str = ""
    nvme: str = ""

    def devices(self):
        return [*self.words, "-device", EDU.format(at=self.edu),
                *(word.format(at=self.nvme) for word in NVME)]


# The second has an IOMMU between its devices and memory, the third a switch.
MACHINES = {
    "pc": Machine(["-M", "pc"]),
    "iommu": Machine(["-M", "q35,kernel-irqchip=split", "-device", "intel-iommu"],
                     ("intel_iommu=on",)),
    "switch": Machine(["-M", "q35", *SWITCH], edu=",bus=port0", nvme=",bus=port1"),
}

# A virtual CPU may wait for a real one; a lock-up lasts longer than that.
WATCHDOG = "watchdog_thresh=60"

# The kernel counts timer interrupts for a moment and panics if none came: on a
# busy host there may be none, though the timer is sound.
CLOCK = "no_timer_check"

# How each accelerator is asked for, and by how much its time limits stretch.
ACCELERATORS = {
    "kvm": (["-accel", "kvm", "-cpu", "host"], 1.0),
    "tcg": (["-accel", "tcg,thread=multi", "-cpu", "max"], 6.0),
}
CONFIG_FACTOR = {"debug": 4.0, "kcsan": 4.0, "rt": 2.0}

PROBE_SECONDS = 4
PROBE_EXIT = 0x21       # isa-debug-exit turns the guest's 0x10 into this

# Limits on real hardware, in seconds; scaled by what the guest runs on.
BOOT_SECONDS = 150
SILENT_SECONDS = 40
SELFTEST_SECONDS = 50


def build_probe(directory):
    """Assemble guest/probe.S into a flat 64 KiB ROM."""
    obj, rom = directory / "probe.o", directory / "probe.rom"
    directory.mkdir(parents=True, exist_ok=True)
    for argv in (["as", "--64", "-o", obj, HARNESS / "guest/probe.S"],
                 ["ld", "-m", "elf_x86_64", "-Ttext=0", "-e", "0",
                  "--oformat=binary", "-o", rom, obj]):
        subprocess.run(argv, check=True, capture_output=True)
    return rom


def probe(accel, rom):
    """Does a guest really run? Returns why not, or None when it does."""
    argv = [QEMU, "-nodefaults", "-display", "none", "-M", "pc", "-m", "32",
            "-bios", rom, "-device", "isa-debug-exit,iobase=0xf4,iosize=1",
            *ACCELERATORS[accel][0]]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=PROBE_SECONDS, text=True, check=False)
    except subprocess.TimeoutExpired:
        return f"a guest ran {PROBE_SECONDS} s without executing a loop"
    if done.returncode != PROBE_EXIT:
        return (done.stderr.strip().splitlines() or ["no reason given"])[0]
    return None


def boot_id():
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"


def accelerator():
    """The accelerator to use; probed once for each boot of this machine."""
    if not have(QEMU):
        raise Trouble(ENVIRONMENT, f"{QEMU} is missing: run 'make deps'")
    cache = STATE / "accelerator.json"
    known = load_json(cache, {})
    if known.get("boot") != boot_id():
        known = {"boot": boot_id(), **choose()}
        save_json(cache, known)
    say(f"  accelerator: {known['name']}" +
        (f" (kvm: {known['why']})" if known.get("why") else ""))
    return known["name"]


def choose():
    rom = build_probe(STATE)
    why = "no /dev/kvm"
    if Path("/dev/kvm").exists():
        why = probe("kvm", rom)
    if why is None:
        return {"name": "kvm"}
    trouble = probe("tcg", rom)
    if trouble:
        raise Trouble(ENVIRONMENT, f"QEMU does not run a guest: {trouble}")
    return {"name": "tcg", "why": why}


def scale(accel, config):
    return ACCELERATORS[accel][1] * CONFIG_FACTOR.get(config, 1.0)


def selftest_seconds(accel, config):
    return int(SELFTEST_SECONDS * scale(accel, config))


def cmdline(words, config, machine="pc", quick=False):
    """The kernel's command line; `words` say what the guest is to do."""
    common = ["console=ttyS0", "ignore_loglevel", "panic=-1", WATCHDOG, CLOCK, PMEM,
              COHERENT, *MACHINES[machine].append]
    common += ["hmm.giant=no", HUGE_PAGES] if quick else [GIANT_PAGES, HUGE_PAGES]
    if config == "debug" and quick:
        common.append("kmemleak=off")
    elif config == "debug":
        common += ["kmemleak=on", "page_owner=on", "page_poison=1"]
    return " ".join([*common, *words])


def nodes(cpus):
    """Memory and CPUs dealt out to the NUMA nodes."""
    words = []
    for node, size in enumerate(NODES):
        mine = ",".join(f"cpus={c}" for c in range(cpus) if c % len(NODES) == node)
        words += ["-object", f"memory-backend-ram,id=mem{node},size={size}", "-numa",
                  f"node,nodeid={node},memdev=mem{node}" + ("," + mine if mine else "")]
    return words


def command(accel, kernel, initrd, append, cpus, console, results, more=(),
            machine="pc"):
    return [QEMU, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
            *MACHINES[machine].devices(), *ACCELERATORS[accel][0], "-m", MEMORY, "-smp",
            f"{cpus},sockets={cpus},cores=1,threads=1", *nodes(cpus),
            "-kernel", str(kernel), "-initrd", str(initrd), "-append", append,
            "-serial", console, "-serial", results, *more]


def quoted(argv):
    return " ".join(shlex.quote(str(word)) for word in argv)


class Tail:
    """New text of a file that another process is writing."""

    def __init__(self, path):
        self.path = Path(path)
        self.at = 0

    def more(self):
        try:
            with open(self.path, "rb") as file:
                file.seek(self.at)
                data = file.read()
        except OSError:
            return ""
        self.at += len(data)
        return data.decode("utf-8", "replace")


class Times:
    """When each part began, in seconds since the start, for whoever wonders."""

    PART = re.compile(r"^(?:# selftests: \S+ (\S+)|hmm-guest: (\w+ begin \S+))", re.M)

    def __init__(self, path):
        self.path = Path(path)
        self.path.write_text("", encoding="ascii")
        self.began = time.monotonic()

    def see(self, text):
        with open(self.path, "a", encoding="ascii") as file:
            for match in self.PART.finditer(text):
                file.write(f"{time.monotonic() - self.began:7.1f} "
                           f"{match[1] or match[2]}\n")


def boot(argv, console, results, label, factor, show=None, verbose=False):
    """Run one guest to its end; returns (how it ended, QEMU's status).

    show(text) gets the results as they come. A guest that says nothing on
    either channel for too long is a hang, and is killed.
    """
    for path in (console, results):
        Path(path).write_bytes(b"")
    tails = (Tail(console), Tail(results))
    heart = Heartbeat(label)
    log = Path(console).with_name("qemu.log")
    with open(log, "wb") as out, child(argv, stdout=out) as proc:
        how = _watch(proc, tails, heart, factor, show, verbose,
                     Times(log.with_name("times")))
    rest = tails[1].more()
    if show and rest:
        show(rest)
    return how, proc.returncode


def _watch(proc, tails, heart, factor, show, verbose, times):
    began = spoke = time.monotonic()
    last = "booting"
    while True:
        ended = proc.poll() is not None
        for tail in tails:
            text = tail.more()
            if not text:
                continue
            spoke = time.monotonic()
            last = (text.strip().splitlines() or [last])[-1]
            if tail is tails[1]:
                times.see(text)
            if show and tail is tails[1]:
                show(text)
            elif verbose:
                say(text.rstrip("\n"))
        if ended:
            return "exited"
        if not show:
            heart.beat(last)
        now = time.monotonic()
        if now - spoke > SILENT_SECONDS * factor:
            return "hang"
        if now - began > BOOT_SECONDS * factor:
            return "timeout"
        time.sleep(0.1)
