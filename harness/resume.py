# SPDX-License-Identifier: GPL-2.0
"""RESUME=1: a long verb that was cut off goes on with what was not green yet.

Only what was green on these very sources, with these very settings, is left out: a file
that has changed, whatever it says, makes all phases run again. What prepares others is
never left out; it takes a moment if nothing is to be done.
"""

import dataclasses
import hashlib
import os
import threading

import verdict as verdicts
from common import BUILD, OK, REPO, STATE, load_json, save_json

GREEN = STATE / "green.json"
PREPARE = ("deps", "tree", "kernel(")
SKIP = {".git", "__pycache__"}
KEPT = ("passed", "skipped", "races")
_lock = threading.Lock()


def files(top):
    """All files below a directory that are not made by us, in order."""
    for directory, names, found in os.walk(top):
        names[:] = sorted(n for n in names if n not in SKIP
                          and os.path.join(directory, n) != str(BUILD))
        yield from (os.path.join(directory, name) for name in sorted(found))


def fingerprint(settings, top=REPO):
    """Of all that a verdict depends on, as far as it is ours."""
    digest = hashlib.sha256(repr(sorted(vars(settings).items())).encode())
    for path in files(top):
        digest.update(os.path.relpath(path, top).encode() + b"\0")
        if os.path.isfile(path):
            with open(path, "rb") as source:
                digest.update(hashlib.file_digest(source, "sha256").digest())
    return digest.hexdigest()


class Record:
    """What was green, by phase."""

    def __init__(self, settings, path=GREEN):
        self.path, self.sources = path, fingerprint(settings)
        self.wanted = os.environ.get("RESUME", "") not in ("", "0")
        known = load_json(path, {})
        self.phases = known["phases"] if known.get("sources") == self.sources else {}

    def find(self, name):
        """The verdict of a phase that need not run, or None."""
        if not self.wanted or name.startswith(PREPARE) or name not in self.phases:
            return None
        lists = {kind: [tuple(entry) if isinstance(entry, list) else entry
                        for entry in self.phases[name][kind]] for kind in KEPT}
        return verdicts.Verdict(state="finished", code=OK, **lists)

    def keep(self, name, verdict):
        """A phase has ended: it is on the record if it was green, and else not."""
        with _lock:
            self.phases.pop(name, None)
            if verdict.code == OK:
                everything = dataclasses.asdict(verdict)
                self.phases[name] = {kind: everything[kind] for kind in KEPT}
            save_json(self.path, {"sources": self.sources, "phases": self.phases})
