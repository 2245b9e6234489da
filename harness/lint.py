# SPDX-License-Identifier: GPL-2.0
"""What tools say of our files: checkpatch, kernel-doc, coccinelle, shellcheck, flake8,
sparse, Sphinx; and the rules of this project's own, in style.py.

They run on the files as they lie in the tree, and only what they say of ours
counts.
"""

import hashlib
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import kbuild
import links
import style
import tree
import verdict as verdicts
from common import (BUILD, HARNESS, REPO, STATE, Heartbeat, have, load_json, read_text,
                    run, save_json)

# Said of every new file; MAINTAINERS is merged rather than patched.
IGNORED = "FILE_PATH_CHANGES"
IGNORED_IN = {
    # Said of every header of tracepoints: they are not C but lists for macros.
    "include/trace/": "COMPLEX_MACRO,CAMELCASE,MACRO_ARG_UNUSED,TRAILING_SEMICOLON,"
                      "PARENTHESIS_ALIGNMENT,OPEN_ENDED_LINE",
    # It defines for user space what checkpatch wants kernel code to use.
    "tools/testing/mmu_notifier/": "MACRO_ARG_REUSE,MACRO_ARG_UNUSED,COMPLEX_MACRO,"
                                   "MACRO_ARG_PRECEDENCE,NEW_TYPEDEFS,MEMORY_BARRIER,"
                                   "PREFER_DEFINED_ATTRIBUTE_MACRO,EXPORT_SYMBOL,"
                                   "CAMELCASE,ARCH_DEFINES",
}


def ours(*suffixes):
    return [p for p in tree.overlay_files(REPO) if p.endswith(suffixes)]


def kernel_sources():
    return [p for p in ours(".c", ".h") if p.startswith(("mm/", "include/", "lib/", "samples/"))]


def note(log, text):
    with open(log, "a", encoding="utf-8") as out:
        out.write(text + "\n")


def verdict_of(verdict, name, complaints, log):
    """Passed when a tool has no complaints; otherwise the first one is shown."""
    if not complaints:
        verdict.passed.append(name)
        return
    note(log, "\n".join(complaints))
    more = f" (and {len(complaints) - 1} more in {log})" if len(complaints) > 1 else ""
    verdict.fail(name, complaints[0] + more)


def checkpatch(settings, path):
    ignored = ",".join([IGNORED] + [types for where, types in IGNORED_IN.items()
                                    if path.startswith(where)])
    done = subprocess.run(["perl", "scripts/checkpatch.pl", "--strict", "--terse",
                           "--no-summary", "--show-types", "--ignore", ignored,
                           "-f", path], cwd=settings.tree, capture_output=True,
                          text=True, check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]


def kernel_doc(settings, path):
    done = subprocess.run(["scripts/kernel-doc", "-Wall", "-none", path],
                          cwd=settings.tree, capture_output=True, text=True,
                          check=False)
    return [line for line in done.stderr.splitlines() if line.strip()]


def shellcheck(path):
    done = subprocess.run(["shellcheck", "-f", "gcc", path], capture_output=True,
                          text=True, check=False)
    return done.stdout.splitlines()


class Clean:
    """Files that a semantic patch had nothing to say of, by the content of both. All
    of them take minutes; a warm run asks only about what has changed."""

    def __init__(self, path):
        self.path = path
        self.known = set(load_json(path, []))
        self.now = set()

    def keys(self, script, sources):
        """{path: key} of sources, {path: text}."""
        return {path: hashlib.sha256(f"{script}\0{path}\0{text}".encode()).hexdigest()
                for path, text in sources.items()}

    def save(self):
        save_json(self.path, sorted(self.now))


def coccinelle(settings, script, sources, clean):
    """What one of the kernel's semantic patches says of our files, all at once."""
    text = read_text(script)
    keys = clean.keys(text, sources)
    left = [path for path, key in keys.items() if key not in clean.known]
    said = []
    if left:
        options = " ".join(re.findall(r"^// Options: *(.*)$", text, re.M)).split()
        done = subprocess.run(["spatch", "-D", "report", "--no-show-diff", "--very-quiet",
                               "--cocci-file", script, *options, *left],
                              cwd=settings.tree, capture_output=True, text=True,
                              check=False)
        if done.returncode:
            return [f"{script.name}: spatch failed: {done.stderr.strip()[-200:]}"]
        said = [line for line in done.stdout.splitlines()
                if re.match(r"\S+:\d+:\d+-\d+: ", line)]
    bad = {line.split(":")[0] for line in said}
    clean.now.update(key for path, key in keys.items() if path not in bad)
    return said


def semantic_patches(settings):
    """The kernel's, but for those that have no mode in which they only report."""
    found = sorted((settings.tree / "scripts/coccinelle").glob("*/*.cocci"))
    return [path for path in found if re.search(r"^virtual.*\breport\b", read_text(path), re.M)]


def python(_settings):
    """flake8 on the harness. White space: in pieces of C and of patches."""
    done = subprocess.run(["flake8", "--max-line-length=100", "--extend-ignore=W191,W293,E101",
                           HARNESS], capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).splitlines()


def lengths(_settings):
    return style.too_long(style.read(REPO, ours(".c")))


def floors(_settings):
    return [said for path, source in style.read(REPO, ours(".c", ".h")).items()
            for said in style.upwards(path, source)]


def contexts(_settings):
    sources = [p for p in ours(".c", ".h") if not str(p).startswith(("tools/", "samples/"))]
    return [said for path, source in style.read(REPO, sources).items()
            for said in style.without_context(path, source)]


def ends_of_lines(_settings):
    """Of all that goes into the kernel's tree, the figures and drawings too."""
    return [said for path in ours("")
            for said in style.blanks(path, (REPO / path).read_text(encoding="utf-8"))]


def by_tool(settings, clean):
    """(name, the tool that it needs, what to call) of what is not file by file."""
    sources = style.read(settings.tree, [p for p in kernel_sources() if p.endswith(".c")])
    yield "length of functions", None, (lengths, (settings,))
    yield "floors of the house", None, (floors, (settings,))
    yield "contexts of functions", None, (contexts, (settings,))
    yield "ends of lines", None, (ends_of_lines, (settings,))
    yield "flake8", "flake8", (python, (settings,))
    for script in semantic_patches(settings):
        yield (f"coccinelle: {script.stem}", "spatch",
               (coccinelle, (settings, script, sources, clean)))


def shell_scripts():
    found = [HARNESS / "deps.sh", HARNESS / "guest/init", HARNESS / "guest/timeout",
             HARNESS / "guest/programs", REPO / ".ci/run"]
    return [p for p in found + [REPO / p for p in ours(".sh")] if p.is_file()]


def everything(settings, log):
    """All but sparse, which needs a configured tree."""
    verdict = verdicts.Verdict()
    clean = Clean(STATE / "coccinelle-clean.json")
    jobs = [(f"checkpatch: {p}", checkpatch, (settings, p)) for p in ours(".c", ".h")]
    jobs += [(f"kernel-doc: {p}", kernel_doc, (settings, p)) for p in kernel_sources()]
    several = [(f"shellcheck: {Path(path).relative_to(REPO)}", "shellcheck",
                (shellcheck, (path,))) for path in shell_scripts()]
    for name, tool, call in [*several, *by_tool(settings, clean)]:
        if tool and not have(tool):
            verdict.skipped.append((name, f"{tool} is not installed"))
        else:
            jobs.append((name, *call))
    heart = Heartbeat("lint")
    with ThreadPoolExecutor(settings.jobs) as pool:
        pending = [(name, pool.submit(tool, *args)) for name, tool, args in jobs]
        for name, job in pending:
            while not job.done():
                heart.beat(name)
                wait([job], timeout=1)
            verdict_of(verdict, name, job.result(), log)
    clean.save()
    for litter in settings.tree.glob(".checkpatch-camelcase.*"):
        litter.unlink()
    return verdict


def unlocks_for_core(text, function):
    """Does a function of this source let go of what core code has locked unseen?

    pte_offset_map() takes the RCU read lock only if it returns a table. Sparse
    cannot follow that and calls each pte_unmap() behind a test of the result an
    unexpected unlock, wherever in the kernel it stands. folio_lruvec_lock_irq() does
    not say that it takes a lock, but unlock_page_lruvec_irq() is inline.
    """
    body = re.search(rf"^\S[^;{{}}]*\b{function}\([^;{{}}]*\)\n\{{.*?^\}}", text, re.M | re.S)
    return bool(body) and ("pte_unmap" in body[0] or "unlock_page_lruvec" in body[0])


def said_of(source, output, text):
    """What sparse says of one source file and means."""
    found = re.findall(rf"^.*{re.escape(source)}:\d+:\d+: .*$", output, re.M)
    imbalance = re.compile(r"context imbalance in '(\w+)' - unexpected unlock")
    return [line for line in dict.fromkeys(found)
            if not ((m := imbalance.search(line)) and unlocks_for_core(text, m[1]))]


def sparse(settings, log):
    """Build our objects once more under sparse."""
    verdict = verdicts.Verdict()
    if not have("sparse"):
        verdict.skipped.append(("sparse", "sparse is not installed"))
        return verdict
    objects = [p[:-2] + ".o" for p in ours(".c") if p.startswith(("mm/", "lib/", "samples/"))]
    status, tail = run(kbuild.argv(settings, "plain", objects, "C=2"), "sparse", log,
                       settings.verbose, env=kbuild.env())
    text = read_text(log)
    if status:
        verdict.fail("sparse", tail.splitlines()[-1] if tail else "failed")
    for path in objects:
        source = path[:-2] + ".c"
        said = said_of(source, text, read_text(settings.tree / source))
        verdict_of(verdict, f"sparse: {source}", said, log)
    return verdict


DOC_FILES = re.compile(r"Documentation/vm/|Documentation/mm/(?:hmm|mmu_notifier)|vm/\w+\.rst|"
                       r"(?:mm|linux)/(?:hmm|mmu_notifier|memremap|migrate_device)")


def htmldocs(settings, name, log, *more):
    """One directory of the documentation in HTML; the status, and the last words.

    From scratch, because Sphinx says nothing of a page that it need not read again.
    """
    obj = BUILD / "obj-docs"
    shutil.rmtree(obj / "Documentation/output" / name, ignore_errors=True)
    shutil.rmtree(obj / "Documentation/output/.doctrees" / name, ignore_errors=True)
    argv = ["make", "-C", settings.tree, f"O={obj}", f"-j{settings.jobs}",
            f"SPHINXDIRS={name}", "PYTHON3=/usr/bin/python3", *more, "htmldocs"]
    return run(argv, f"docs: {name}", log, settings.verbose, env=kbuild.env())


def docs(settings, log):
    """htmldocs of vm, where every warning is an error, and of mm, where it is one if
    it is of our files; then the links."""
    verdict = verdicts.Verdict()
    status, tail = htmldocs(settings, "vm", log, "SPHINXOPTS=-W --keep-going")
    if status:
        found = [line for line in tail.splitlines()
                 if re.search(r"WARNING|ERROR|rror:", line)]
        verdict_of(verdict, "docs: vm", found or tail.splitlines()[-1:] or ["failed"], log)
    else:
        verdict.passed.append("docs: vm")
    status, tail = htmldocs(settings, "mm", log)
    found = [line for line in read_text(log).splitlines()
             if re.search(r"WARNING|ERROR|warning:", line) and DOC_FILES.search(line)]
    if status:
        found.append((tail.splitlines() or ["failed"])[-1])
    verdict_of(verdict, "docs: mm", found, log)
    verdict_of(verdict, "docs: links",
               links.dangling(BUILD / "obj-docs/Documentation/output/vm"), log)
    texts = [REPO / p for p in ours(".rst")] + [REPO / "README.md"]
    verdict_of(verdict, "docs: files named", links.lost_files(texts, (settings.tree, REPO)),
               log)
    return verdict
