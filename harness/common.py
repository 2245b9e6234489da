# SPDX-License-Identifier: GPL-2.0
"""What every part of the harness shares: places, exit codes, settings, and
running a command so that it is never silent for long."""

import contextlib
import fcntl
import json
import os
import re
import selectors
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
HARNESS = REPO / "harness"
BUILD = Path(os.environ.get("BUILD") or REPO / "build").resolve()
STATE = BUILD / "state"
RUNS = BUILD / "runs"

# Exit codes, one a kind of trouble. make itself turns each into its own 2 and
# prints the code behind "Error"; the verdict spells it out too.
OK = 0
TEST_FAILED = 1
USAGE = 2
SPLAT = 3
HANG = 4
BUILD_FAILED = 5
CONFIG_WRONG = 6
ENVIRONMENT = 7

CODE_NAMES = {
    OK: "ok",
    TEST_FAILED: "test failed",
    USAGE: "wrong usage",
    SPLAT: "kernel splat",
    HANG: "hang",
    BUILD_FAILED: "build failed",
    CONFIG_WRONG: "config not as requested",
    ENVIRONMENT: "environment",
}

HEARTBEAT_SECONDS = 8


class Trouble(Exception):
    """Ends a verb: a message for the user and the exit code it stands for."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Settings:
    """What the user asked for on make's command line."""

    def __init__(self, env=None):
        env = os.environ if env is None else env
        self.verbose = env.get("V", "") not in ("", "0")
        self.tree = Path(env.get("TREE") or BUILD / "linux").resolve()
        self.ksrc = env.get("KSRC", "")
        self.objdir = env.get("O", "")
        self.arch = env.get("ARCH") or host_arch()
        self.cross = env.get("CROSS_COMPILE", "")
        self.tests = env.get("T", "")
        self.config = env.get("CONFIG") or "plain"
        self.cpus = int(env.get("CPUS") or 2)
        self.jobs = int(env.get("JOBS") or os.cpu_count() or 1)
        self.append = env.get("APPEND", "")
        self.machine = env.get("MACHINE") or "pc"

    def obj(self, config):
        """The object directory of one configuration."""
        if self.objdir:
            base = Path(self.objdir).resolve()
            return base if config == self.config else Path(f"{base}-{config}")
        suffix = "" if self.arch == host_arch() else f"-{self.arch}"
        return BUILD / f"obj-{config}{suffix}"


def host_arch():
    """The kernel's name of this machine's architecture."""
    machine = os.uname().machine
    return {"aarch64": "arm64"}.get(machine, machine)


# Who turns sys.stdout away holds it, so that no other thread's words are lost.
STDOUT = threading.RLock()


def say(text=""):
    with STDOUT:
        print(text, flush=True)


def read_text(path):
    return Path(path).read_text(encoding="utf-8", errors="replace")


def write_if_changed(path, data):
    """Write bytes so that an unchanged file keeps its time stamp."""
    path = Path(path)
    if path.is_file() and not path.is_symlink() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)
    return True


def load_json(path, default):
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError):
        return default


def save_json(path, value):
    write_if_changed(path, (json.dumps(value, indent=1) + "\n").encode())


def build_env():
    """The environment for kbuild: ours minus what make handed down to us."""
    env = dict(os.environ, LC_ALL="C")
    for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "O",
                 "V", "T", "TREE", "KSRC", "ARCH", "CROSS_COMPILE", "BUILD",
                 "CONFIG", "CPUS", "JOBS", "APPEND", "SEED", "SECONDS"):
        env.pop(name, None)
    return env


class Heartbeat:
    """Says that a long command is alive, at most every few seconds."""

    def __init__(self, label):
        self.label = label
        self.began = self.last = time.monotonic()

    def beat(self, line):
        now = time.monotonic()
        if now - self.last < HEARTBEAT_SECONDS:
            return
        self.last = now
        say(f"    {self.label}: {now - self.began:.0f} s  {line.strip()[:90]}")


def log_for(name):
    """An empty log, named for what is to be written there."""
    path = BUILD / "log" / (re.sub(r"\W+", "-", name).strip("-") + ".log")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def run(argv, label, log=None, verbose=False, timeout=None, **kwargs):
    """Run a command, its output to a log, a heartbeat to the user.

    Returns (status, tail of the output); status None means that the timeout
    ran out and the command was killed.
    """
    tail = []
    heart = Heartbeat(label)
    with (open(log, "ab") if log else contextlib.nullcontext() as out,
          child(argv, stdout=subprocess.PIPE, **kwargs) as proc):
        finished = _pump(proc, out, tail, heart, verbose, timeout)
    return (proc.returncode if finished else None), "\n".join(tail)


_children = set()


@contextlib.contextmanager
def child(argv, **kwargs):
    """A process that leads a group of its own. The group ends with the block."""
    with subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL,
                          stderr=subprocess.STDOUT, start_new_session=True,
                          **kwargs) as proc:
        _children.add(proc)
        try:
            yield proc
        finally:
            _children.discard(proc)
            if proc.poll() is None:
                kill_group(proc)


def end_children():
    """End what other threads wait for; they go on from there."""
    for proc in list(_children):
        kill_group(proc)


def kill_group(proc):
    """Kill a process that leads a group of its own, and that group."""
    try:
        os.killpg(proc.pid, 9)
    except ProcessLookupError:
        pass


def _pump(proc, out, tail, heart, verbose, timeout):
    """Copy output until the end; False when the time ran out first."""
    began = time.monotonic()
    last = ""
    partial = b""
    with selectors.DefaultSelector() as sel:
        sel.register(proc.stdout, selectors.EVENT_READ)
        while True:
            if sel.select(timeout=1):
                data = os.read(proc.stdout.fileno(), 65536)
                if not data:
                    proc.wait()
                    return True
                if out:
                    out.write(data)
                    out.flush()
                *lines, partial = (partial + data).split(b"\n")
                for raw in lines:
                    last = raw.decode("utf-8", "replace").rstrip()
                    tail.append(last)
                    if verbose:
                        say(last)
                del tail[:-400]
            heart.beat(last)
            if timeout and time.monotonic() - began > timeout:
                return False


_held = threading.local()


@contextlib.contextmanager
def building():
    """Only one thread of one run at a time may write below build/; boots may
    overlap."""
    if getattr(_held, "lock", None):
        yield
        return
    STATE.mkdir(parents=True, exist_ok=True)
    with open(STATE / "lock", "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"    waiting: another is building in {BUILD}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        _held.lock = lock
        try:
            yield
        finally:
            _held.lock = None


def have(tool):
    return shutil.which(tool) is not None


def require_status(status, tail, what, log, code=BUILD_FAILED):
    """Turn a failed command into Trouble that shows the lines that matter."""
    if status == 0:
        return
    lines = tail.splitlines()
    hints = [line for line in lines if "error" in line.lower() or "***" in line]
    shown = "\n".join("    " + line for line in (hints or lines)[-15:])
    raise Trouble(code, f"{what} failed\n{shown}\n  whole log: {log}")


def main_guard(function):
    """Run a verb; print Trouble as one message and exit with its code."""
    try:
        sys.exit(function())
    except Trouble as trouble:
        say(f"error: {trouble}")
        sys.exit(trouble.code)
    except KeyboardInterrupt:
        sys.exit(130)
