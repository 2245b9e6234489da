/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MM_TESTS_TEST_THREAD_H
#define _MM_TESTS_TEST_THREAD_H

/*
 * Threads of a test, which are waited for, but not for ever
 *
 * A test that fails must not take away what its threads still use. So between the
 * start of the first thread and the end of the last one it only expects, and asserts
 * nothing; what the threads use is on no stack; and if one of them does not end
 * although it has been told to, all that is lost on purpose: test_thread_join() says
 * so, and whoever owns it keeps it.
 */
#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/err.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/sched/task.h>
#include <linux/slab.h>

/* For what must happen; only a failure takes that long */
#define TEST_LIMIT	(60 * HZ)
/* Long enough for what must not happen */
#define TEST_SETTLE	(HZ / 5)

struct test_thread {
	void (*work)(struct test_thread *t);
	void *arg;			/* what @work works on */
	struct task_struct *task;	/* with a reference: it may have ended */
	struct completion done;
	bool stop;			/* time is up */
};

static inline int test_thread_main(void *data)
{
	struct test_thread *t = data;

	t->work(t);
	complete_all(&t->done);
	return 0;
}

/* To be asked wherever @work waits for somebody else */
static inline bool test_thread_must_stop(const struct test_thread *t)
{
	return READ_ONCE(t->stop);
}

/* On @cpu, or on any if that is negative. NULL, and the test has failed, if there is none */
static inline struct test_thread *test_thread_start(struct kunit *test, int cpu,
						    void (*work)(struct test_thread *t),
						    void *arg)
{
	struct test_thread *t = kzalloc(sizeof(*t), GFP_KERNEL);

	if (!t) {
		KUNIT_FAIL(test, "no memory for a thread");
		return NULL;
	}
	t->work = work;
	t->arg = arg;
	init_completion(&t->done);
	t->task = cpu < 0 ? kthread_create(test_thread_main, t, "kunit") :
			    kthread_create_on_cpu(test_thread_main, t, cpu, "kunit/%u");
	if (IS_ERR(t->task)) {
		KUNIT_FAIL(test, "no thread: %pe", t->task);
		kfree(t);
		return NULL;
	}
	get_task_struct(t->task);
	wake_up_process(t->task);
	return t;
}

/* Is it at its work for some time yet, although others might think it had ended */
static inline bool test_thread_goes_on(struct test_thread *t)
{
	return t && !wait_for_completion_timeout(&t->done, TEST_SETTLE);
}

/*
 * True if @t, which may be NULL, has ended and is gone. False if it still runs, for
 * ever: what it uses must stay, and so must @t.
 */
static inline bool test_thread_join(struct kunit *test, struct test_thread *t)
{
	if (!t)
		return true;
	if (!wait_for_completion_timeout(&t->done, TEST_LIMIT)) {
		KUNIT_FAIL(test, "a thread does not end: %ps", t->work);
		WRITE_ONCE(t->stop, true);
		if (!wait_for_completion_timeout(&t->done, TEST_LIMIT))
			return false;
	}
	kthread_stop(t->task);
	put_task_struct(t->task);
	kfree(t);
	return true;
}

#endif /* _MM_TESTS_TEST_THREAD_H */
