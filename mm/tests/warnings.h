/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MM_TESTS_WARNINGS_H
#define _MM_TESTS_WARNINGS_H

/*
 * Warnings that belong to a test
 *
 * Whoever judges a boot by its console takes a warning for a failure, except between
 * two marks. Where a warning is expected there must be one, and only one. Where it is
 * allowed, since it is the way of the core code below and comes once in a boot, there
 * may be none.
 */
#include <kunit/test.h>
#include <linux/bug.h>
#include <linux/panic.h>

static inline void warnings_mark(struct kunit *test, const char *what, const char *end)
{
	kunit_info(test, "kunit-%s-warning: %s %s\n", what, end, test->name);
}

static inline void warnings_begin(struct kunit *test, const char *what)
{
	if (panic_on_warn)
		kunit_skip(test, "the warning would panic");
	/* Of those that come once in a boot */
	generic_bug_clear_once();
	warnings_mark(test, what, "begin");
}

static inline void expect_warning_begin(struct kunit *test)
{
	warnings_begin(test, "expects");
}

static inline void expect_warning_end(struct kunit *test)
{
	warnings_mark(test, "expects", "end");
}

static inline void allow_warning_begin(struct kunit *test)
{
	warnings_begin(test, "allows");
}

static inline void allow_warning_end(struct kunit *test)
{
	warnings_mark(test, "allows", "end");
}

#endif /* _MM_TESTS_WARNINGS_H */
