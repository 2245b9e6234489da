# SPDX-License-Identifier: GPL-2.0
"""What tools say of our files: checkpatch, kernel-doc, shellcheck, sparse, Sphinx.

They run on the files as they lie in the tree, and only what they say of ours
counts.
"""

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import kbuild
import tree
import verdict as verdicts
from common import BUILD, HARNESS, REPO, Heartbeat, have, read_text, run

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
    return [l for l in (done.stdout + done.stderr).splitlines() if l.strip()]


def kernel_doc(settings, path):
    done = subprocess.run(["scripts/kernel-doc", "-Wall", "-none", path],
                          cwd=settings.tree, capture_output=True, text=True,
                          check=False)
    return [l for l in done.stderr.splitlines() if l.strip()]


def shellcheck(path):
    done = subprocess.run(["shellcheck", "-f", "gcc", path], capture_output=True,
                          text=True, check=False)
    return done.stdout.splitlines()


def shell_scripts():
    found = [HARNESS / "deps.sh", HARNESS / "guest/init", HARNESS / "guest/timeout",
             HARNESS / "guest/programs", REPO / ".ci/run"]
    return [p for p in found + [REPO / p for p in ours(".sh")] if p.is_file()]


def everything(settings, log):
    """All but sparse, which needs a configured tree."""
    verdict = verdicts.Verdict()
    jobs = [(f"checkpatch: {p}", checkpatch, (settings, p)) for p in ours(".c", ".h")]
    jobs += [(f"kernel-doc: {p}", kernel_doc, (settings, p)) for p in kernel_sources()]
    for path in shell_scripts():
        name = f"shellcheck: {Path(path).relative_to(REPO)}"
        if have("shellcheck"):
            jobs.append((name, shellcheck, (path,)))
        else:
            verdict.skipped.append((name, "shellcheck is not installed"))
    heart = Heartbeat("lint")
    with ThreadPoolExecutor(settings.jobs) as pool:
        pending = [(name, pool.submit(tool, *args)) for name, tool, args in jobs]
        for name, job in pending:
            while not job.done():
                heart.beat(name)
                wait([job], timeout=1)
            verdict_of(verdict, name, job.result(), log)
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


def docs(settings, log):
    """htmldocs of mm and vm: no warning may touch our files."""
    verdict = verdicts.Verdict()
    obj = BUILD / "obj-docs"
    argv = ["make", "-C", settings.tree, f"O={obj}", f"-j{settings.jobs}",
            "SPHINXDIRS=mm vm", "PYTHON3=/usr/bin/python3", "htmldocs"]
    status, tail = run(argv, "docs", log, settings.verbose, env=kbuild.env())
    if status:
        verdict.fail("docs: htmldocs", (tail.splitlines() or ["failed"])[-1])
    warnings = [l for l in read_text(log).splitlines()
                if re.search(r"WARNING|ERROR|warning:", l) and DOC_FILES.search(l)]
    for name in ("mm", "vm"):
        mine = [w for w in warnings if f"/{name}/" in w]
        verdict_of(verdict, f"docs: {name}", mine, log)
    rest = [w for w in warnings if "/mm/" not in w and "/vm/" not in w]
    if rest:
        verdict_of(verdict, "docs: others", rest, log)
    return verdict
