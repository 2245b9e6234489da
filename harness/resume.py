# SPDX-License-Identifier: GPL-2.0
"""RESUME=1: a long check that was cut off goes on with what was not green yet.

Only what was green with these very sources, base and settings is left out: a file that
has changed, whatever it says, makes all phases run again (of 'make series-check' the
patches from its own on). A phase that has begun and not ended is not green, whatever it
was before. What prepares others always runs; it takes a moment if nothing is to be done.
"""

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import os
import subprocess
from pathlib import Path

import tree
import verdict as verdicts
from common import BUILD, OK, REPO, STATE, load_json, save_json

GREEN = STATE / "green.json"
PREPARE = ("deps", "tree", "kernel(")
KEPT = ("passed", "skipped", "races")
# What phases read beside Settings
ENVIRONMENT = ("SEED", "SECONDS", "TORTURE_SECONDS")


def files(top):
    """All files of the repository, tracked or new, but not those that git ignores; of a
    copy without git, all that are not in build/."""
    done = subprocess.run(["git", "-C", top, "ls-files", "-z", "--cached", "--others",
                           "--exclude-standard"], capture_output=True, check=False)
    if done.returncode:
        return sorted(str(path.relative_to(top)) for path in Path(top).rglob("*")
                      if BUILD not in path.parents and "__pycache__" not in path.parts)
    return sorted(set(done.stdout.decode().split("\0")) - {""})


def fingerprint(settings, top=REPO, counts=None):
    """Of all that a verdict depends on, as far as it is not the machine; of the files
    only those that count, if not all do."""
    asked = [(name, os.environ.get(name)) for name in ENVIRONMENT]
    digest = hashlib.sha256(repr((sorted(vars(settings).items()), asked,
                                  tree.base_identity(settings.ksrc))).encode())
    for name in files(top):
        path = Path(top, name)
        if path.is_file() and (counts is None or counts(name)):
            digest.update(f"{name}\0{path.stat().st_mode & 0o111:o}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


class Nothing:
    """For runs that are too short to go on with."""

    def find(self, _name):
        return None

    def begin(self, _name):
        pass

    def end(self, _name, _verdict):
        pass


class Record:
    """What was green, by phase. Several runs may share the file."""

    def __init__(self, settings, path=GREEN, **of):
        self.path = path
        self.look = functools.partial(fingerprint, settings, **of)
        self.sources = self.look()
        self.wanted = os.environ.get("RESUME", "") not in ("", "0")

    def load(self):
        known = load_json(self.path, {})
        return known["phases"] if known.get("sources") == self.sources else {}

    @contextlib.contextmanager
    def phases(self):
        """What is on record, to be changed."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path.with_suffix(".lock"), "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            phases = self.load()
            yield phases
            save_json(self.path, {"sources": self.sources, "phases": phases})

    def find(self, name):
        """The verdict of a phase that need not run, or None."""
        known = self.load()
        if not self.wanted or name.startswith(PREPARE) or name not in known:
            return None
        lists = {kind: [tuple(entry) if isinstance(entry, list) else entry
                        for entry in known[name][kind]] for kind in KEPT}
        return verdicts.Verdict(state="finished", code=OK, **lists)

    def begin(self, name):
        """From here on it is not green, if it never ends either."""
        with self.phases() as phases:
            phases.pop(name, None)

    def end(self, name, verdict):
        """On record if it was green, and with the sources of now."""
        if verdict.code != OK or self.look() != self.sources:
            return
        everything = dataclasses.asdict(verdict)
        with self.phases() as phases:
            phases[name] = {kind: everything[kind] for kind in KEPT}
