# SPDX-License-Identifier: GPL-2.0
"""'make series': what the overlay does to the base, as patches in the order in which
they can be reviewed and bisected.

harness/series/ has a file for each patch, in the order of their names: its message,
a line "%%", and what comes with it:

    file GLOB ...           files of ours
    patch NAME ...          patches of patches/
    kconfig SYMBOL ...      entries of our Kconfig
    lines PATH REGEX        lines of a file that is there before, or as a whole later
    maintainers             MAINTAINERS
    check COMMAND           what else has to succeed; O is a directory for objects

A file is as it is at the end, but for lines and entries that later steps bring. The
end of the series is the tree that 'make tree' makes, byte for byte, or there is none.
Nobody has to look at the base's files for that: git does.
"""

import fnmatch
import functools
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import config as configs
import kbuild
import lint
import resume
import runs
import tree
import verdict as verdicts
from common import (BUILD, BUILD_FAILED, HARNESS, OK, REPO, STATE, TEST_FAILED, USAGE,
                    Settings, Trouble, building, read_text, require_status, run, save_json,
                    say)

PLAN = HARNESS / "series"
COVER = "00-cover"
SERIES = BUILD / "series"
LOG = BUILD / "log/series.log"
GREEN = STATE / "green-series.json"
KCONFIG = "mm/Kconfig.hmm"
SELFTESTS = "tools/testing/selftests/vm/Makefile"

# Who submits the series signs it.
IGNORED = "FILE_PATH_CHANGES,MISSING_SIGN_OFF,NO_AUTHOR_SIGN_OFF"
# Taken for the name of the file itself: the one sources the other.
IGNORED_IN = {"mm/Kconfig": "EMBEDDED_FILENAME"}


# --- the plan ---------------------------------------------------------------

@dataclass
class Step:
    """One patch: why, and what belongs to it."""

    name: str
    message: str
    globs: list = field(default_factory=list)
    patches: list = field(default_factory=list)
    kconfig: list = field(default_factory=list)
    lines: list = field(default_factory=list)      # (path, pattern)
    checks: list = field(default_factory=list)
    maintainers: bool = False
    files: list = field(default_factory=list)      # that the globs stand for

    @property
    def subject(self):
        return self.message.split("\n", 1)[0]


def parse_step(name, text):
    """A file of the plan."""
    message, mark, rest = text.partition("\n%%\n")
    if not mark or not message.strip():
        raise Trouble(USAGE, f"series/{name}: no message, or no line %% behind it")
    step = Step(name, message.strip() + "\n")
    for line in rest.splitlines():
        word, _, value = line.partition(" ")
        if word in ("file", "patch", "kconfig"):
            getattr(step, {"file": "globs", "patch": "patches"}.get(word, word)).extend(
                value.split())
        elif word == "lines" and len(value.split(None, 1)) == 2:
            path, pattern = value.split(None, 1)
            step.lines.append((path, re.compile(pattern)))
        elif word == "check" and value:
            step.checks.append(value)
        elif line == "maintainers":
            step.maintainers = True
        elif line:
            raise Trouble(USAGE, f"series/{name}: what is '{line}'?")
    return step


def read_plan(plan=PLAN, repo=REPO):
    """All steps; each of our files, entries and patches belongs to one of them."""
    names = sorted(p.name for p in plan.iterdir() if p.name != COVER)
    steps = [parse_step(name, read_text(plan / name)) for name in names]
    for step in steps:
        for glob in step.globs:
            hits = fnmatch.filter(tree.overlay_files(repo), glob)
            if not hits:
                raise Trouble(USAGE, f"series/{step.name}: {glob} is no file of ours")
            step.files += hits
    entries = [name for name, _ in kconfig_entries(read_text(repo / "Kconfig")) if name]
    exactly_once("file", tree.overlay_files(repo), [(s, s.files) for s in steps])
    exactly_once("patch", tree.series(repo), [(s, s.patches) for s in steps])
    exactly_once("kconfig", entries, [(s, s.kconfig) for s in steps])
    return steps


def exactly_once(kind, wanted, claims):
    """Complain of what no step brings, what two do, and what there is not."""
    owners = {name: [] for name in wanted}
    for step, names in claims:
        for name in names:
            if name not in owners:
                raise Trouble(USAGE, f"series/{step.name}: there is no {kind} {name}")
            owners[name].append(step.name)
    wrong = [f"{kind} {name}: " + (" and ".join(steps) or "in no step of harness/series")
             for name, steps in owners.items() if len(steps) != 1]
    if wrong:
        raise Trouble(USAGE, "series: " + "\n  ".join(wrong))


def kconfig_entries(text):
    """[(symbol, its paragraphs)]; the first has no symbol: what precedes them all."""
    entries = [(None, [])]
    for paragraph in text.rstrip("\n").split("\n\n"):
        found = re.match(r"(?:#.*\n)*config (\w+)$", paragraph, re.M)
        if found:
            entries.append((found[1], []))
        entries[-1][1].append(paragraph)
    return entries


def kconfig_of(text, symbols):
    """Our Kconfig with some of its entries."""
    return "\n\n".join(p for name, paragraphs in kconfig_entries(text)
                       if name is None or name in symbols for p in paragraphs) + "\n"


def without_lines(text, patterns):
    """A text less the lines that any of the patterns finds."""
    return "".join(line for line in text.splitlines(True)
                   if not any(p.search(line) for p in patterns))


class Partial(tree.Overlay):
    """The overlay after some steps of the series."""

    def __init__(self, where, known, steps, number):
        super().__init__(REPO, *where, known["touched"])
        self.steps, self.later = steps[:number], steps[number:]

    def collect(self):
        files = {name for step in self.steps for name in step.files}
        for stock, ours in tree.replacements(self.repo):
            if ours in files:
                self.want(stock, None)
        for name in sorted(files):
            self.want_ours(name, name)
        self.hold_back(files)
        symbols = {name for step in self.steps for name in step.kconfig}
        if symbols:
            self.want_ours("Kconfig", KCONFIG)
            text, mode = self.wanted[KCONFIG]
            self.wanted[KCONFIG] = (kconfig_of(text.decode(), symbols).encode(), mode)
        if any(step.maintainers for step in self.steps):
            self.collect_maintainers()
        chosen = {name for step in self.steps for name in step.patches}
        self.collect_patches([n for n in tree.series(self.repo) if n in chosen])

    def hold_back(self, files):
        """Take out the lines that later steps bring."""
        for path in files:
            patterns = [p for step in self.later for name, p in step.lines if name == path]
            if patterns:
                text, mode = self.wanted[path]
                self.wanted[path] = (without_lines(text.decode(), patterns).encode(), mode)


# --- the repository of the series -------------------------------------------

class Repository:
    """The base as a commit, and one more for each step. Its .git is outside of the
    tree, so that no build takes note of the commit."""

    def __init__(self, settings):
        LOG.parent.mkdir(parents=True, exist_ok=True)
        self.tree, self.state = SERIES / "linux", SERIES / "state"
        self.git_dir = SERIES / "git"
        self.known = tree.ensure_base(self.tree, self.state, settings.ksrc,
                                      settings.verbose)
        self.env = {**os.environ, "GIT_DIR": str(self.git_dir),
                    "GIT_WORK_TREE": str(self.tree), "GIT_CONFIG_GLOBAL": os.devnull,
                    "GIT_CONFIG_SYSTEM": os.devnull, **identity()}
        mark = self.git_dir / "hmm-base"
        if not mark.is_file() or read_text(mark) != self.known["base"]:
            self.commit_base()
            mark.write_text(self.known["base"])

    def git(self, *argv, label="git", env=None):
        """git's output; what it says is never shown, since it may be the base's."""
        done = subprocess.run(["git", *map(str, argv)], cwd=self.tree, check=False,
                              env={**self.env, **(env or {})}, capture_output=True)
        if done.returncode:
            LOG.write_bytes(done.stdout + done.stderr)
            raise Trouble(BUILD_FAILED, f"{label} {argv[0]} failed; see {LOG}")
        return done.stdout.decode(errors="replace")

    def commit_base(self):
        shutil.rmtree(self.git_dir, ignore_errors=True)
        self.fill([], 0)
        self.git("init", "-q", "-b", "series")
        for key, value in (("gc.auto", "0"), ("core.autocrlf", "false")):
            self.git("config", key, value)
        status, tail = run(["git", "add", "-A", "-f", "."], "series: base", env=self.env,
                           cwd=self.tree)
        require_status(status, tail, "committing the base", LOG)
        self.git("commit", "-q", "-m", "base")
        self.git("tag", "base")

    def fill(self, steps, number):
        """Make the tree what it is after so many steps; returns what changed."""
        overlay = Partial((self.tree, self.state), self.known, steps, number)
        try:
            overlay.collect()
        finally:
            save_json(self.state / "state.json", self.known)
        changed = overlay.settle()
        save_json(self.state / "state.json", self.known)
        return changed

    def commit_steps(self, steps):
        self.git("checkout", "-q", "-f", "-B", "series", "base")
        for number, step in enumerate(steps, 1):
            changed = self.fill(steps, number)
            if not changed:
                raise Trouble(USAGE, f"series/{step.name} changes nothing")
            self.git("add", "-A", "-f", "--", *changed)
            self.git("commit", "-q", "-m", step.message, label=step.name)
            self.git("tag", "-f", step.name)

    def end(self):
        return self.git("rev-parse", "HEAD^{tree}").strip()

    def differs_from(self, other):
        """Paths in which another tree is not the end of the series."""
        env = {"GIT_INDEX_FILE": str(SERIES / "index"), "GIT_WORK_TREE": str(other)}
        self.git("read-tree", "series", env=env)
        changed = self.git("-C", other, "diff", "--name-only", env=env)
        extra = self.git("-C", other, "ls-files", "--others", "--exclude-standard", env=env)
        return [p for p in (changed + extra).splitlines()
                if not tree.is_litter(os.path.basename(p))]


def identity():
    """Who has written our last commit, and when: the same commit, the same patches."""
    done = subprocess.run(["git", "-C", REPO, "log", "-1", "--format=%an%n%ae%n%aI"],
                          capture_output=True, text=True, check=True)
    values = zip(("NAME", "EMAIL", "DATE"), done.stdout.splitlines())
    return {f"GIT_{who}_{what}": value for what, value in values
            for who in ("AUTHOR", "COMMITTER")}


# --- patches ----------------------------------------------------------------

def write_patches(repository):
    """The patches and the letter before them; returns their paths."""
    for old in SERIES.glob("*.patch"):
        old.unlink()
    repository.git("format-patch", "-q", "-n", "--cover-letter", "--zero-commit",
                   "--no-renames", "--break-rewrites", "-o", SERIES, "base..series")
    patches = sorted(SERIES.glob("*.patch"))
    subject, _, text = read_text(PLAN / COVER).partition("\n\n")
    letter = read_text(patches[0])
    letter = letter.replace("*** SUBJECT HERE ***", subject)
    patches[0].write_text(letter.replace("*** BLURB HERE ***", text.strip()))
    return patches


def verify(repository, settings, patches):
    """What 'git am' makes of the patches is the tree that is tested."""
    differing = repository.differs_from(settings.tree)
    if differing:
        raise Trouble(BUILD_FAILED, f"the series does not end as {settings.tree}: "
                      + " ".join(differing[:10]))
    end = repository.end()
    repository.git("checkout", "-q", "-f", "-B", "applied", "base")
    repository.git("am", "-q", "--keep-cr", *patches[1:])
    if repository.end() != end:
        raise Trouble(BUILD_FAILED, "git am of the patches does not make the same tree")
    repository.git("checkout", "-q", "-f", "series")


def checkpatch(repository, patch):
    """What checkpatch says of what a patch adds, less what 'make lint' bears."""
    done = subprocess.run(["perl", "scripts/checkpatch.pl", "--strict", "--terse",
                           "--no-summary", "--show-types", "--showfile", "--ignore",
                           IGNORED, patch], cwd=repository.tree, capture_output=True,
                          text=True, check=False)
    return [line for line in done.stdout.splitlines() if line.strip() and not borne(line)]


def borne(line):
    """Is it of a type that is not minded in that file?"""
    found = re.match(r"#?\d*:? ?(?:FILE: )?(\S+?):\d+: \w+:(\w+):", line)
    return bool(found) and any(found[1].startswith(where) and found[2] in types.split(",")
                               for where, types in {**lint.IGNORED_IN, **IGNORED_IN}.items())


def verb_series(settings):
    """Write build/series/*.patch and check them."""
    with building():
        steps = read_plan()
        tree.ensure_tree(settings)
        repository = Repository(settings)
        repository.commit_steps(steps)
        patches = write_patches(repository)
        verify(repository, settings, patches)
        with ThreadPoolExecutor(settings.jobs) as pool:
            said = list(pool.map(lambda p: checkpatch(repository, p), patches[1:]))
        for litter in repository.tree.glob(".checkpatch-camelcase.*"):
            litter.unlink()
    for patch, lines in zip(patches[1:], said):
        for line in lines:
            say(f"  {patch.name}: {line}")
    say(f"{len(steps)} patches in {SERIES}; applied by git am, they make {settings.tree}")
    complaints = sum(map(len, said))
    say(f"checkpatch --strict: {complaints or 'no'} complaints")
    return TEST_FAILED if complaints else OK


# --- each step alone --------------------------------------------------------

def chosen_steps(steps, wanted):
    """Those that T names, by globs; all without."""
    globs = wanted.replace(",", " ").split() or ["*"]
    for glob in globs:
        if not fnmatch.filter([s.name for s in steps], glob):
            raise Trouble(USAGE, f"no step matches {glob}: "
                          + " ".join(s.name for s in steps))
    return [s for s in steps if any(fnmatch.fnmatch(s.name, g) for g in globs)]


def listed(makefile):
    """Self tests that a Makefile of a collection names."""
    return re.findall(r"^TEST_(?:GEN_)?PROGS\s*[:+]?=\s*(\S+)", makefile, re.M)


def tests_of(repository, step):
    """Self tests that this step brings."""
    def at(commit):
        names = repository.git("ls-tree", "--name-only", commit, SELFTESTS)
        return listed(repository.git("show", f"{commit}:{SELFTESTS}")) if names else []
    before = at(f"{step.name}~")
    return [test for test in at(step.name) if test not in before]


def touches_kernel(repository, step):
    paths = repository.git("diff", "--name-only", f"{step.name}~", step.name).split()
    return any(not p.startswith(("tools/", "Documentation/", "MAINTAINERS"))
               for p in paths)


def settings_at(settings):
    """Ours, for the tree and the objects of the series."""
    here = Settings({**os.environ, "TREE": str(SERIES / "linux"), "T": "",
                     "O": str(SERIES / "obj"), "CONFIG": "plain"})
    here.verbose, here.jobs = settings.verbose, settings.jobs
    return here


def symbols_of(steps):
    """Symbols of Kconfig that come with them."""
    symbols = {name for step in steps for name in step.kconfig}
    return symbols | {symbol for step in steps for name in step.patches
                      for symbol in re.findall(r"^\+config (\w+)",
                                               read_text(REPO / "patches" / name), re.M)}


def configure(settings, absent):
    """The plain configuration, but for the symbols that later steps bring."""
    wanted = configs.requested("plain", settings.arch)
    settings.obj("plain").mkdir(parents=True, exist_ok=True)
    configs.from_nothing(settings, "plain", wanted, LOG)
    configs.check({k: v for k, v in wanted.items() if k not in absent},
                  settings.obj("plain") / ".config", "plain")


def check_step(repository, settings, step, absent):
    """Build one step, boot it with all unit tests that it has and the self tests that
    are new; returns why it is bad, or None."""
    tests = tests_of(repository, step)
    kernel = touches_kernel(repository, step)
    with building():
        repository.git("checkout", "-q", "-f", step.name)
        if kernel or tests:
            configure(settings, absent)
            kbuild.build_kernel(settings, "plain", LOG)
        for command in step.checks:
            out = SERIES / "check"
            status, tail = run(["sh", "-c", command], f"{step.name}: {command}"[:60], LOG,
                               settings.verbose, cwd=repository.tree,
                               env={**kbuild.env(), "O": str(out)})
            require_status(status, tail, command, LOG)
    if not kernel and not tests:
        return None
    verdict, this = boot_step(settings, kernel, tests)
    say(f"  {runs.totals([verdict])}")
    return None if verdict.code == OK else f"see {this.directory}"


def boot_step(settings, kernel, tests):
    """Before there is a unit test, the older tests of the dummy device have to do."""
    suites = "*" if kernel and (settings.tree / "mm/tests").is_dir() else None
    if suites or tests:
        return runs.test_boot(settings, "plain", settings.cpus, suites, tests)
    return runs.conformance_boot(settings, "plain", settings.cpus)


def counts(name):
    """A file on which the verdict of a step depends, beside its tree."""
    return name.startswith("harness/") and not name.startswith(("harness/series/",
                                                                "harness/tests/"))


def key(repository, step, absent):
    """A step and what is tested of it: one that changes leaves those before it as they
    are."""
    trees = [repository.git("rev-parse", f"{commit}^{{tree}}").strip()
             for commit in (f"{step.name}~", step.name)]
    return repr((step.name, trees, step.checks, sorted(absent)))


def judge(record, name, check):
    """Why a step is bad, or None; with RESUME=1 not looked for again if it was good."""
    if record.find(name):
        say("  ok, as before")
        return None
    record.begin(name)
    try:
        why = check()
    except Trouble as trouble:
        why = str(trouble)
    if not why:
        record.end(name, verdicts.Verdict(state="finished", code=OK))
    return why


def verb_series_check(settings):
    """All steps, or those that T names, each built and booted alone."""
    with building():
        steps = read_plan()
        repository = Repository(settings)
        repository.commit_steps(steps)
    here, bad = settings_at(settings), {}
    record = resume.Record(here, GREEN, counts=counts)
    for step in chosen_steps(steps, settings.tests):
        say(f"{step.name}: {step.subject}")
        absent = symbols_of(steps[steps.index(step) + 1:])
        why = judge(record, key(repository, step, absent),
                    functools.partial(check_step, repository, here, step, absent))
        if why:
            bad[step.name] = why
            say(f"  FAILED: {why}")
    say(f"{len(bad)} steps failed" + (": " + " ".join(bad) if bad else ""))
    return TEST_FAILED if bad else OK
