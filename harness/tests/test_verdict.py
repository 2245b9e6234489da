# SPDX-License-Identifier: GPL-2.0
"""Recorded logs, each with what it must be judged to be."""

import json
import os
import sys
import tempfile
import unittest
from concurrent import futures
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import verdict as verdicts      # noqa: E402
from common import BUILD, OK, TEST_FAILED        # noqa: E402

TREE = Path(os.environ.get("HMM_TREE") or BUILD / "linux")


class Settle(unittest.TestCase):
    def test_a_reason_is_a_failure(self):
        verdict = verdicts.Verdict(code=OK)
        verdict.settle("a", None)
        self.assertEqual((verdict.code, verdict.passed), (OK, ["a"]))
        verdict.settle("b", "why")
        verdict.settle("c", "")
        self.assertEqual(verdict.code, TEST_FAILED)
        self.assertEqual(verdict.failed, [("b", "why"), ("c", "")])
        self.assertEqual(verdict.passed, ["a"])


class Logs(unittest.TestCase):
    """One case for each directory in logs/; see add_log_cases()."""

    def judge(self, name):
        where = HERE / "logs" / name
        want = json.loads((where / "judged.json").read_text())
        got = verdicts.judge(TREE, (where / "console").read_text(),
                             (where / "results").read_text(), want["expected"],
                             want["ended"], want["status"])
        self.assertEqual(sorted(n for n, _ in got.failed), sorted(want["failed"]))
        self.assertEqual(sorted(n for n, _ in got.skipped), sorted(want["skipped"]))
        self.assertEqual(len(got.passed), want["passed"], got.passed)
        self.assertEqual(got.code, want["code"])
        return got


def add_log_cases():
    for where in sorted((HERE / "logs").iterdir()):
        def case(self, name=where.name):
            self.judge(name)
        setattr(Logs, "test_" + where.name.replace("-", "_"), case)


add_log_cases()


class Details(unittest.TestCase):
    """What the recorded logs do not show by themselves."""

    def test_a_verdict_starts_as_not_started(self):
        fresh = verdicts.Verdict()
        self.assertEqual(fresh.state, "not started")
        self.assertNotEqual(fresh.code, 0)

    def test_skip_keeps_its_reason(self):
        got = Logs().judge("skip")
        self.assertIn(("kunit:mmu_notifier.release_order", "needs two nodes"),
                      got.skipped)
        self.assertIn(("vm:hmm_args", "/dev/hmm_dmirror0 is not there"), got.skipped)

    def test_skip_on_a_console_with_times_keeps_its_reason(self):
        console = "\n".join("[    1.234567] " + line for line in (
            "KTAP version 1", "1..1", "    KTAP version 1", "    # Subtest: hmm",
            "    1..2", "    ok 1 plain", "    ok 2 stack # SKIP no such entry",
            "ok 1 hmm"))
        with tempfile.NamedTemporaryFile() as dot:
            got = verdicts.of_console(TREE, console, "arm64", Path(dot.name))
        self.assertEqual(got.skipped, [("arm64:hmm.stack", "no such entry")])
        self.assertEqual(got.passed, ["arm64:hmm.plain"])

    def test_the_first_splat_is_shown_whole(self):
        got = Logs().judge("splat-after-pass")
        self.assertIn("cut here", got.first_splat[0])
        self.assertIn("end trace", got.first_splat[-1])

    def test_each_kind_of_splat_is_seen(self):
        for line in ("WARNING: possible circular locking dependency detected",
                     "WARNING: inconsistent lock state",
                     "BUG: KASAN: slab-use-after-free in foo",
                     "BUG: KCSAN: data-race in a / b",
                     "UBSAN: array-index-out-of-bounds in mm/hmm.c:1:2",
                     "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
                     "INFO: task hmm_races:77 blocked for more than 120 seconds.",
                     "watchdog: BUG: soft lockup - CPU#1 stuck for 22s!",
                     "unreferenced object 0xffff888003ab1c40 (size 64):",
                     "Oops: general protection fault, probably for non-canonical",
                     "Kernel panic - not syncing: Attempted to kill init!",
                     "kernel BUG at mm/hmm.c:12!",
                     "BUG: Bad page state in process hmm_pages  pfn:1234"):
            with self.subTest(line):
                splats, _ = verdicts.find_splats("[    1.000000] " + line + "\n")
                self.assertEqual(len(splats), 1)

    def test_cases_that_need_an_option(self):
        source = """#ifdef CONFIG_A
static void a(struct kunit *test)
{
}
#endif
static struct kunit_case cases[] = {
	KUNIT_CASE(always),
#ifdef CONFIG_A
	KUNIT_CASE(a),
#ifdef CONFIG_B
	KUNIT_CASE_PARAM(b, gen),
#endif
#endif
	{}
};
static struct kunit_suite suite = {
	.name = "suite",
	.test_cases = cases,
};
"""
        self.assertEqual(verdicts.conditions_in(source),
                         {"always": [], "a": ["CONFIG_A"], "b": ["CONFIG_A", "CONFIG_B"]})
        with tempfile.TemporaryDirectory() as where:
            tests = Path(where) / "mm/tests"
            tests.mkdir(parents=True)
            (tests / "x_kunit.c").write_text(source)
            dot = Path(where) / ".config"
            dot.write_text("CONFIG_A=y\n# CONFIG_B is not set\n")
            self.assertEqual(verdicts.absent_kunit(Path(where), dot),
                             {"suite.b": "CONFIG_B"})

    def test_two_threads_that_parse_leave_stdout_alone(self):
        text = "TAP version 13\n1..1\n" + "# a\n" * 200 + "ok 1 a\n"
        before = sys.stdout
        with futures.ThreadPoolExecutor(8) as pool:
            roots = list(pool.map(lambda _: verdicts.parse_ktap(TREE, text), range(1000)))
        after, sys.stdout = sys.stdout, before
        self.assertIs(after, before)
        self.assertTrue(all(errors == [] for _, errors in roots))

    def test_only_data_races_of_ours_count_where_ours_are_known(self):
        ours = {"hmm_range_fault", "remap_table"}
        theirs = "[ 1.000000] BUG: KCSAN: data-race in folio_batch_add / lru_add\n"
        for line, counts in ((theirs, False),
                             (theirs.replace("lru_add", "remap_table.isra.0"), True),
                             (theirs.replace(" / lru_add", ""), False),
                             ("BUG: KCSAN: data-race in hmm_range_fault\n", True),
                             ("BUG: KASAN: slab-use-after-free in lru_add\n", True)):
            with self.subTest(line):
                verdict = verdicts.Verdict()
                verdicts.add_splats(verdict, line, ours)
                self.assertEqual((len(verdict.splats), len(verdict.races)),
                                 (int(counts), int(not counts)))
        verdict = verdicts.Verdict()
        verdicts.add_splats(verdict, theirs)
        self.assertEqual(len(verdict.splats), 1)

    def test_an_allowed_warning_may_come_once_or_not_at_all(self):
        warning = "[ 1.000000] WARNING: CPU: 0 PID: 7 at mm/x.c:1 add_pages+0x1/0x2\n"
        for times in range(3):
            text = ("[ 1.000000]     # c: kunit-allows-warning: begin c\n"
                    + times * warning
                    + "[ 1.000000]     # c: kunit-allows-warning: end c\n")
            splats, trouble = verdicts.find_splats(text)
            self.assertEqual((len(splats), len(trouble)), (0, int(times > 1)))

    def test_a_failed_test_tells_why(self):
        console = ("[    1.000000]     # faults: seed=7: 32 worlds\n"
                   "[    1.100000]     # faults: EXPECTATION FAILED at mm/x.c:9\n"
                   "[    1.100000]     Expected a == 1, but\n"
                   "[    1.100000]         a == 2 (0x2)\n"
                   "[    1.200000]     not ok 1 faults\n"
                   "[    1.300000]     # other: seed=8\n")
        self.assertEqual(verdicts.evidence("kunit:hmm_random.faults", console, ""),
                         ["# faults: seed=7: 32 worlds",
                          "# faults: EXPECTATION FAILED at mm/x.c:9",
                          "  Expected a == 1, but", "  a == 2 (0x2)"])
        results = ("# #  RUN           p2p.kept ...\n"
                   "# # p2p.c:29:kept:Expected 1 (1) == n (2)\n"
                   "# # p2p.c:30:other:Expected 0 (0) == n (2)\n")
        self.assertEqual(verdicts.evidence("vm:p2p.p2p.kept", "", results),
                         ["p2p.c:29:kept:Expected 1 (1) == n (2)"])
        self.assertEqual(verdicts.evidence("console", console, results), [])

    def test_ordinary_lines_are_no_splats(self):
        for line in ("kasan: KernelAddressSanitizer initialized",
                     "kmemleak: Kernel memory leak detector initialized",
                     "rcu: \tRCU lockdep checking is enabled.",
                     "Lock dependency validator: Copyright (c) 2006 Red Hat",
                     "ok 3 warning_for_a_start_that_can_fail",
                     "debug: ignoring loglevel setting."):
            self.assertEqual(verdicts.find_splats(line), ([], []))

    def test_expected_cases_come_from_the_source(self):
        source = """
        static struct kunit_case hmm_cases[] = {
                KUNIT_CASE(first),
                /* KUNIT_CASE(not_this_one), */
                KUNIT_CASE_SLOW(second),
                KUNIT_CASE_PARAM(third, third_gen_params),
                {}
        \n};
        static struct kunit_suite hmm_suite = {
                .name = "hmm",
                .test_cases = hmm_cases,
        \n};
        """
        self.assertEqual(verdicts.suites_in(source),
                         {"hmm": ["first", "second", "third"]})

    def test_suites_that_cannot_be_built_are_not_expected(self):
        with tempfile.TemporaryDirectory() as scratch:
            tests, dot = Path(scratch) / "mm/tests", Path(scratch) / ".config"
            tests.mkdir(parents=True)
            for name in ("one", "two", "three"):
                (tests / f"{name}_kunit.c").write_text(
                    f"struct kunit_case cases[] = {{\nKUNIT_CASE(it),\n}};\n"
                    f"struct kunit_suite s = {{\n.name = \"{name}\",\n"
                    ".test_cases = cases,\n};\n")
            (tests / "Makefile").write_text("obj-$(CONFIG_ONE) += one_kunit.o\n"
                                            "obj-$(CONFIG_TWO)\t\t+= two_kunit.o\n")
            dot.write_text("CONFIG_ONE=y\n# CONFIG_TWO is not set\n")
            self.assertEqual(sorted(verdicts.expected_kunit(Path(scratch), dot=dot)),
                             ["one", "three"])
            self.assertEqual(len(verdicts.expected_kunit(Path(scratch))), 3)

    def test_globs_choose_suites_and_cases(self):
        self.assertTrue(verdicts.matches("hmm", "first", "*"))
        self.assertTrue(verdicts.matches("hmm", "first", "hmm"))
        self.assertTrue(verdicts.matches("hmm", "first", "hmm.fi*"))
        self.assertFalse(verdicts.matches("hmm", "first", "mmu_*"))


if __name__ == "__main__":
    unittest.main()
