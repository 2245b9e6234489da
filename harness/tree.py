# SPDX-License-Identifier: GPL-2.0
"""The patched kernel tree: the base, minus what ours replaces, plus ours, plus
the patches.

A tree directory holds exactly that. What else is needed to bring it up to date
(which files were touched, and the stock text of each) lies in build/state.
Every run works out afresh what each touched file should hold, and writes only
the files that hold something else, so that a build after an edit is short.
"""

import fnmatch
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from common import (BUILD, BUILD_FAILED, ENVIRONMENT, REPO, STATE, Trouble,
                    load_json, read_text, run, save_json, write_if_changed)

WANTED = "6.12"
TARBALL = Path("/usr/src/linux-source-6.12.tar.xz")
OVERLAY_DIRS = ("mm", "include", "lib", "tools", "Documentation", "samples")
LITTER = ("*~", ".*.swp", "*.orig", "*.rej", "*.o", "*.ko", "*.pyc", "*.part")
OBJECTS = ("*.o", "*.ko", "*.a", ".*.cmd", "*.order", "*.symvers", ".config",
           "/.config.old", "/vmlinux*", "/System.map", "/include/generated",
           "/include/config", "/arch/*/include/generated", ".git", "/build")


# --- the base ---------------------------------------------------------------

def makefile_version(text):
    """VERSION.PATCHLEVEL of a kernel's top Makefile, or None."""
    found = dict(re.findall(r"^(VERSION|PATCHLEVEL) = (\d+)$", text, re.M))
    if len(found) != 2:
        return None
    return f"{found['VERSION']}.{found['PATCHLEVEL']}"


def check_version(directory):
    """Refuse a base that is not the kernel our files were written for."""
    makefile = Path(directory) / "Makefile"
    version = makefile_version(read_text(makefile)) if makefile.is_file() else None
    if version is None:
        raise Trouble(ENVIRONMENT, f"{directory} is not a kernel source tree")
    if version != WANTED:
        raise Trouble(ENVIRONMENT, f"{directory} is Linux {version}; this project "
                      f"replaces parts of Linux {WANTED}")


def base_identity(ksrc):
    """A value that changes when the base does."""
    if ksrc:
        source = Path(ksrc).resolve()
        check_version(source)
        head = subprocess.run(["git", "-C", source, "rev-parse", "HEAD"],
                              capture_output=True, text=True, check=False)
        top = hashlib.sha256((source / "Makefile").read_bytes()).hexdigest()[:16]
        commit = head.stdout.strip() if (source / ".git").exists() else "-"
        return f"{source} {top} {commit}"
    if not TARBALL.is_file():
        raise Trouble(ENVIRONMENT, f"{TARBALL} is missing: run 'make deps', or "
                      f"give KSRC=/path/to/linux-{WANTED}.y")
    stat = TARBALL.stat()
    return f"{TARBALL} {stat.st_size} {int(stat.st_mtime)}"


def unpack(ksrc, part, verbose):
    """Fill the empty directory `part` with the base."""
    if ksrc:
        excludes = [f"--exclude={pattern}" for pattern in OBJECTS]
        argv = ["rsync", "-a", *excludes, f"{Path(ksrc).resolve()}/", f"{part}/"]
        label = "copying the base"
    else:
        argv = ["tar", "-C", part, "--strip-components=1", "-xf", TARBALL]
        label = f"unpacking {TARBALL.name}"
    status, tail = run(argv, label, verbose=verbose)
    if status:
        raise Trouble(ENVIRONMENT, f"{label} failed:\n{tail}")
    check_version(part)


def ensure_base(tree, state, ksrc, verbose=False):
    """Make `tree` exist as a copy of the base; a new base starts afresh."""
    identity = base_identity(ksrc)
    known = load_json(state / "state.json", {})
    if tree.is_dir() and known.get("base") == identity:
        return known
    if tree.is_dir() and any(tree.iterdir()):
        if not known and BUILD not in tree.parents:
            raise Trouble(ENVIRONMENT, f"{tree} exists and was not made by "
                          "'make tree'; remove it first")
        shutil.rmtree(tree)
    elif tree.is_dir():
        tree.rmdir()
    part = tree.with_name(tree.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(state, ignore_errors=True)
    part.mkdir(parents=True)
    unpack(ksrc, part, verbose)
    part.rename(tree)
    known = {"base": identity, "tree": str(tree), "touched": {}}
    save_json(state / "state.json", known)
    return known


# --- what the touched files should hold -------------------------------------

def is_litter(name):
    return any(fnmatch.fnmatch(name, pattern) for pattern in LITTER)


def overlay_files(repo):
    """Relative paths of our files that land in the tree."""
    dirs = [d for d in OVERLAY_DIRS if (repo / d).is_dir()]
    listed = subprocess.run(["git", "-C", repo, "ls-files", "-z", "-co",
                             "--exclude-standard", "--", *dirs],
                            capture_output=True, text=True, check=False)
    if dirs and listed.returncode == 0:
        names = [n for n in listed.stdout.split("\0") if n]
    else:
        names = [str((Path(top) / f).relative_to(repo)) for d in dirs
                 for top, _, files in os.walk(repo / d) for f in files]
    return sorted(n for n in set(names)
                  if (repo / n).is_file() and not is_litter(Path(n).name))


def replacements(repo):
    """(Stock file, our counterpart) where ours exists."""
    pairs = []
    for line in read_text(repo / "harness/replaces").splitlines():
        words = line.split("#")[0].split()
        if words and (repo / words[-1]).is_file():
            pairs.append((words[0], words[-1]))
    return pairs


def replaced_files(repo):
    """Stock files that go."""
    return [stock for stock, _ in replacements(repo)]


def series(repo):
    """The patches, in order."""
    names = [line.split("#")[0].strip()
             for line in read_text(repo / "patches/series").splitlines()]
    names = [n for n in names if n]
    for name in names:
        if not (repo / "patches" / name).is_file():
            raise Trouble(BUILD_FAILED, f"patches/series names {name}, which does not exist")
    unlisted = {p.name for p in (repo / "patches").glob("*.patch")} - set(names)
    if unlisted:
        raise Trouble(BUILD_FAILED, "not in patches/series: " + " ".join(sorted(unlisted)))
    return names


def patched_files(patch_text):
    """Paths that a patch writes to."""
    return re.findall(r"^\+\+\+ b/(\S+)", patch_text, re.M)


def merge_maintainers(stock, ours):
    """Stock's MAINTAINERS with our entries sorted in; same titles give way."""
    marker = "Maintainers List\n----------------\n"
    if marker not in stock:
        raise Trouble(BUILD_FAILED, "MAINTAINERS: no 'Maintainers List' heading")
    head, body = stock.split(marker, 1)
    preamble, *entries = body.strip("\n").split("\n\n")
    own = [e.strip("\n") for e in ours.split("\n\n") if re.match(r"[^#\s]", e)]
    titles = {e.split("\n", 1)[0] for e in own}
    kept = [e for e in entries if e.split("\n", 1)[0] not in titles]
    for entry in own:
        key = entry.split("\n", 1)[0].upper()
        at = next((i for i, e in enumerate(kept)
                   if e.split("\n", 1)[0].upper() > key), len(kept))
        # "THE REST" closes the list whatever its name sorts as.
        if at == len(kept) and kept and kept[-1].startswith("THE REST"):
            at -= 1
        kept.insert(at, entry)
    return head + marker + "\n" + "\n\n".join([preamble, *kept]) + "\n"


class Overlay:
    """One run of bringing a tree up to date."""

    def __init__(self, repo, tree, state, touched):
        self.repo = repo
        self.tree = tree
        self.stock = state / "stock"
        self.touched = touched      # path -> had stock text?
        self.wanted = {}            # path -> (bytes, mode) or None: no such file

    def stock_text(self, path):
        """The base's text of a file, put aside before we first touch it."""
        if path not in self.touched:
            source = self.tree / path
            self.touched[path] = source.is_file()
            if source.is_file():
                keep = self.stock / path
                keep.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, keep)
        if not self.touched[path]:
            return None
        keep = self.stock / path
        return keep.read_bytes(), keep.stat().st_mode & 0o777

    def want(self, path, content):
        self.stock_text(path)
        self.wanted[path] = content

    def want_ours(self, name, path):
        """Our file `name` lands at `path`."""
        source = self.repo / name
        self.want(path, (source.read_bytes(), source.stat().st_mode & 0o777))

    def collect(self):
        for path in replaced_files(self.repo):
            self.want(path, None)
        for path in overlay_files(self.repo):
            self.want_ours(path, path)
        if (self.repo / "Kconfig").is_file():
            self.want_ours("Kconfig", "mm/Kconfig.hmm")
        self.collect_maintainers()
        self.collect_patches()

    def collect_maintainers(self):
        ours = self.repo / "MAINTAINERS"
        stock = self.stock_text("MAINTAINERS")
        if ours.is_file() and stock:
            text = merge_maintainers(stock[0].decode(), read_text(ours))
            self.want("MAINTAINERS", (text.encode(), stock[1]))

    def collect_patches(self, names=None):
        """Apply patches, the whole series if none are named, to copies of the files
        that they touch."""
        with tempfile.TemporaryDirectory(prefix="hmm-patch-") as scratch:
            for name in series(self.repo) if names is None else names:
                self.apply(name, Path(scratch))

    def apply(self, name, scratch):
        patch = self.repo / "patches" / name
        paths = patched_files(read_text(patch))
        if not paths:
            raise Trouble(BUILD_FAILED, f"patches/{name} patches nothing")
        for path in paths:
            content = self.wanted.get(path) or self.stock_text(path)
            if content is None:
                raise Trouble(BUILD_FAILED, f"patches/{name}: the base has no {path}")
            target = scratch / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content[0])
            target.chmod(content[1])
        done = subprocess.run(
            ["patch", "-p1", "-F0", "-s", "-f", "--no-backup-if-mismatch",
             "-d", scratch, "-i", patch], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Trouble(BUILD_FAILED, f"patches/{name} does not apply:\n"
                          f"{(done.stdout + done.stderr).strip()}")
        for path in paths:
            target = scratch / path
            self.wanted[path] = (target.read_bytes(), target.stat().st_mode & 0o777)

    def settle(self):
        """Write what differs; give stock's text back where ours has gone."""
        changed = []
        for path in sorted(set(self.touched) - set(self.wanted)):
            stock = self.stock_text(path)
            if self.put(path, stock):
                changed.append(path)
            if path not in self.wanted:
                del self.touched[path]
        for path, content in sorted(self.wanted.items()):
            if self.put(path, content):
                changed.append(path)
        return changed

    def put(self, path, content):
        target = self.tree / path
        if content is None:
            if not target.exists():
                return False
            target.unlink()
            self.prune(target.parent)
            return True
        changed = write_if_changed(target, content[0])
        if target.stat().st_mode & 0o777 != content[1]:
            target.chmod(content[1])
        return changed

    def prune(self, directory):
        """Remove directories that our vanished files leave empty."""
        while directory != self.tree and not any(directory.iterdir()):
            directory.rmdir()
            directory = directory.parent


class Baseline(Overlay):
    """The base with our benchmarks and nothing else of ours: what we are measured
    against."""

    FILES = ("mm/tests/Makefile", "mm/tests/*_bench.c", "mm/tests/bench.h")
    PATCHES = ("mm-kconfig-source-hmm.patch", "mm-makefile-build-tests.patch")

    def collect(self):
        for path in overlay_files(self.repo):
            if any(fnmatch.fnmatch(path, pattern) for pattern in self.FILES):
                self.want_ours(path, path)
        self.want_ours("Kconfig", "mm/Kconfig.hmm")
        self.collect_patches(self.PATCHES)


class Pristine(Overlay):
    """The base, and nothing of ours."""

    def collect(self):
        pass


def state_dir(tree):
    return STATE / ("tree-" + hashlib.sha256(str(tree).encode()).hexdigest()[:12])


def ensure_tree(settings, repo=REPO, kind=Overlay):
    """Bring settings.tree up to date; returns the paths that changed."""
    tree, state = settings.tree, state_dir(settings.tree)
    known = ensure_base(tree, state, settings.ksrc, settings.verbose)
    overlay = kind(repo, tree, state, known["touched"])
    try:
        overlay.collect()
    finally:
        save_json(state / "state.json", known)
    changed = overlay.settle()
    save_json(state / "state.json", known)
    return changed
