// SPDX-License-Identifier: GPL-2.0
/*
 * What MMU notifiers cost
 *
 * Built against any implementation of <linux/mmu_notifier.h>, so that two can be
 * laid side by side: nothing but the public interface is used.
 *
 * The cases of the first suite count cycles on one CPU with interrupts off, see
 * bench.h. Loops are charged their own cost, an empty one.
 *
 * The second suite counts operations per second on several CPUs at once. Only
 * ratios within one run mean anything.
 *
 * In this file: n is a number of subscriptions, i one of them; subscription i
 * covers page 2 * i + 1 of its own, so that page 2 * i is between two of them.
 */
#include <kunit/test.h>
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "bench.h"

#define B_LOOPS		1000
#define B_MANY		65536
#define PAGE_AT(n)	((unsigned long)(n) << PAGE_SHIFT)
#define OWN(i)		PAGE_AT(2 * (unsigned long)(i) + 1)
#define GAP(i)		PAGE_AT(2 * (unsigned long)(i))

struct b_env {
	struct mm_struct *mm;
	struct mmu_interval_notifier *inis;
	unsigned int n;
};

static bool b_invalidate(struct mmu_interval_notifier *ini,
			 const struct mmu_notifier_range *range,
			 unsigned long cur_seq)
{
	mmu_interval_set_seq(ini, cur_seq);
	return true;
}

static const struct mmu_interval_notifier_ops b_ops = {
	.invalidate = b_invalidate,
};

static int b_list_start(struct mmu_notifier *mn,
			const struct mmu_notifier_range *range)
{
	return 0;
}

static void b_list_end(struct mmu_notifier *mn,
		       const struct mmu_notifier_range *range)
{
}

static const struct mmu_notifier_ops b_list_ops = {
	.invalidate_range_start = b_list_start,
	.invalidate_range_end = b_list_end,
};

static int b_init(struct kunit *test)
{
	struct b_env *b = kunit_kzalloc(test, sizeof(*b), GFP_KERNEL);

	if (!b)
		return -ENOMEM;
	b->mm = mm_alloc();
	if (!b->mm)
		return -ENOMEM;
	test->priv = b;
	return 0;
}

static void b_depopulate(struct b_env *b)
{
	while (b->n)
		mmu_interval_notifier_remove(&b->inis[--b->n]);
	kvfree(b->inis);
	b->inis = NULL;
}

static void b_exit(struct kunit *test)
{
	struct b_env *b = test->priv;

	if (!b)
		return;
	b_depopulate(b);
	mmput(b->mm);
}

static int b_insert(struct b_env *b, unsigned int i)
{
	return mmu_interval_notifier_insert(&b->inis[i], b->mm, OWN(i),
					    PAGE_SIZE, &b_ops);
}

static void b_alloc(struct kunit *test, unsigned int n)
{
	struct b_env *b = test->priv;

	b->inis = kvcalloc(n, sizeof(*b->inis), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, b->inis);
}

static void b_populate(struct kunit *test, unsigned int n)
{
	struct b_env *b = test->priv;

	b_alloc(test, n);
	while (b->n < n) {
		KUNIT_ASSERT_EQ(test, b_insert(b, b->n), 0);
		b->n++;
	}
}

static void b_range(struct b_env *b, struct mmu_notifier_range *range,
		    unsigned long start, unsigned long end)
{
	mmu_notifier_range_init(range, MMU_NOTIFY_CLEAR, 0, b->mm, start, end);
}

static __always_inline void b_bracket(struct mmu_notifier_range *range)
{
	mmu_notifier_invalidate_range_start(range);
	mmu_notifier_invalidate_range_end(range);
}

/* ---- One CPU, exact ---- */

/* A pair of calls, at subscription n / 2 */
static void b_pair(struct kunit *test, unsigned int n)
{
	struct b_env *b = test->priv;
	struct mmu_interval_notifier *ini = &b->inis[n / 2];
	bool collided = false;
	unsigned long seq;
	u64 t;

	t = b_measure(B_LOOPS, ({
		seq = mmu_interval_read_begin(ini);
		/* A branch, as in a driver */
		if (mmu_interval_read_retry(ini, seq))
			WRITE_ONCE(collided, true);
	}));
	KUNIT_EXPECT_FALSE(test, collided);
	b_say_n(test, "read_begin+read_retry", n, t, B_LOOPS);
}

static void b_brackets(struct kunit *test, unsigned int n)
{
	unsigned long gap = GAP(n / 2), own = OWN(n / 2);
	struct mmu_notifier_range range;
	struct b_env *b = test->priv;
	u64 t;

	b_range(b, &range, gap, gap + PAGE_SIZE);
	t = b_measure(B_LOOPS, b_bracket(&range));
	b_say_n(test, "bracket-elsewhere", n, t, B_LOOPS);
	b_range(b, &range, own, own + PAGE_SIZE);
	t = b_measure(B_LOOPS, b_bracket(&range));
	b_say_n(test, "bracket-hit", n, t, B_LOOPS);
}

static void b_all(struct kunit *test, unsigned int n)
{
	struct mmu_notifier_range range;
	struct b_env *b = test->priv;
	u64 t;

	b_range(b, &range, 0, OWN(n));
	t = b_measure(1, b_bracket(&range));
	b_say_n(test, "bracket-hits-all-per-hit", n, t, n);
}

/* Take out some of n here and there and put them back, each for itself */
static void b_updates(struct kunit *test, unsigned int n)
{
	unsigned int count = min_t(unsigned int, n, B_LOOPS);
	struct b_env *b = test->priv;
	unsigned int step = n / count;
	u64 inserting, removing;

	removing = b_measure(count,
			     mmu_interval_notifier_remove(&b->inis[i * step]));
	inserting = b_measure(count, b_insert(b, i * step));
	b_say_n(test, "insert-scattered", n, inserting, count);
	b_say_n(test, "remove-scattered", n, removing, count);
}

static unsigned int b_sizes[] = { 1, 10, 1000, B_MANY, 100000 };

static void b_size_desc(unsigned int *n, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "%u", *n);
}

KUNIT_ARRAY_PARAM(b_sizes, b_sizes, b_size_desc);

static void intervals(struct kunit *test)
{
	unsigned int n = *(unsigned int *)test->param_value;
	struct b_env *b = test->priv;
	u64 t;

	b_alloc(test, n);
	/* The first one switches the mm over, which is another matter */
	KUNIT_ASSERT_EQ(test, b_insert(b, 0), 0);
	mmu_interval_notifier_remove(&b->inis[0]);
	t = b_measure(n, b_insert(b, i));
	b_say_n(test, "insert", n, t, n);
	b->n = n;
	b_pair(test, n);
	b_brackets(test, n);
	b_all(test, n);
	b_updates(test, n);
	b->n = 0;
	t = b_measure(n, mmu_interval_notifier_remove(&b->inis[i]));
	b_say_n(test, "remove", n, t, n);
}

static void nobody(struct kunit *test)
{
	struct mmu_notifier_range range;
	struct b_env *b = test->priv;
	u64 t;

	b_range(b, &range, 0, PAGE_SIZE);
	t = b_measure(B_LOOPS, b_bracket(&range));
	b_say(test, "bracket-no-subscription", t, B_LOOPS);
}

static void lists(struct kunit *test)
{
	unsigned int n = *(unsigned int *)test->param_value, i;
	struct mmu_notifier_range range;
	struct b_env *b = test->priv;
	struct mmu_notifier *mns;
	u64 t;

	if (n > 10)
		kunit_skip(test, "nobody has that many");
	mns = kunit_kcalloc(test, n, sizeof(*mns), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, mns);
	for (i = 0; i < n; i++) {
		mns[i].ops = &b_list_ops;
		KUNIT_ASSERT_EQ(test, mmu_notifier_register(&mns[i], b->mm), 0);
	}
	b_range(b, &range, 0, PAGE_SIZE);
	t = b_measure(B_LOOPS, b_bracket(&range));
	b_say_n(test, "bracket-list-only", n, t, B_LOOPS);
	for (i = 0; i < n; i++)
		mmu_notifier_unregister(&mns[i], b->mm);
}

static void memory(struct kunit *test)
{
	kunit_info(test, "bench: sizeof-interval-subscription %zu bytes",
		   sizeof(struct mmu_interval_notifier));
	kunit_info(test, "bench: sizeof-list-subscription %zu bytes",
		   sizeof(struct mmu_notifier));
	kunit_info(test, "bench: sizeof-bracket %zu bytes",
		   sizeof(struct mmu_notifier_range));
}

static struct kunit_case bench_cases[] = {
	KUNIT_CASE(nobody),
	KUNIT_CASE_PARAM(lists, b_sizes_gen_params),
	KUNIT_CASE_PARAM(intervals, b_sizes_gen_params),
	KUNIT_CASE(memory),
	{}
};

static struct kunit_suite bench_suite = {
	.name = "mmu_notifier_bench",
	.init = b_init,
	.exit = b_exit,
	.test_cases = bench_cases,
};

/* ---- Several CPUs ---- */

/* As long as each figure is measured */
#define B_MSECS		400
#define B_THREADS	8

struct b_thread {
	struct b_crowd *crowd;
	struct task_struct *task;
	unsigned int i;			/* the subscription it works at */
	unsigned long done;
};

struct b_crowd {
	struct b_env *b;
	bool stop;
	unsigned int n;
	ktime_t began;
	u64 us;
	struct b_thread t[B_THREADS];
};

/* A device fault without the walk and the lock: read, and look for a collision */
static int b_fault_thread(void *data)
{
	struct b_thread *t = data;
	struct mmu_interval_notifier *ini = &t->crowd->b->inis[t->i];
	unsigned long seq;

	while (!READ_ONCE(t->crowd->stop)) {
		seq = mmu_interval_read_begin(ini);
		if (!mmu_interval_read_retry(ini, seq))
			t->done++;
		cond_resched();
	}
	return 0;
}

static int b_invalidate_thread(void *data)
{
	struct mmu_notifier_range range;
	struct b_thread *t = data;

	b_range(t->crowd->b, &range, OWN(t->i), OWN(t->i) + PAGE_SIZE);
	while (!READ_ONCE(t->crowd->stop)) {
		b_bracket(&range);
		t->done++;
		cond_resched();
	}
	return 0;
}

static void b_join(struct kunit *test, struct b_crowd *c,
		   int (*fn)(void *data), unsigned int i)
{
	struct b_thread *t = &c->t[c->n];
	struct task_struct *task;

	t->crowd = c;
	t->i = i;
	task = kthread_create_on_cpu(fn, t, c->n, "bench/%u");
	/* None of them runs yet */
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	t->task = get_task_struct(task);
	c->n++;
}

static void b_go(struct b_crowd *c)
{
	unsigned int i;

	c->began = ktime_get();
	for (i = 0; i < c->n; i++)
		wake_up_process(c->t[i].task);
	msleep(B_MSECS);
	WRITE_ONCE(c->stop, true);
	c->us = ktime_us_delta(ktime_get(), c->began);
	for (i = 0; i < c->n; i++)
		kthread_stop_put(c->t[i].task);
}

static void b_rate(struct kunit *test, const char *name, struct b_crowd *c,
		   unsigned int from, unsigned int to)
{
	unsigned long done = 0;
	unsigned int i;

	for (i = from; i < to; i++)
		done += c->t[i].done;
	kunit_info(test, "bench: %s/%u %llu ops/ms", name, c->n,
		   div64_u64(done * 1000ULL, c->us));
}

static struct b_crowd *b_crowd(struct kunit *test)
{
	struct b_crowd *c = kunit_kzalloc(test, sizeof(*c), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, c);
	c->b = test->priv;
	return c;
}

/* Operations of @fn on @cpus CPUs, one thread each, all of them disjoint */
static void b_alike(struct kunit *test, const char *name,
		    int (*fn)(void *data), unsigned int cpus)
{
	struct b_crowd *c = b_crowd(test);

	while (c->n < cpus)
		b_join(test, c, fn, c->n * 100);
	b_go(c);
	b_rate(test, name, c, 0, c->n);
}

/*
 * Device faults on one half of the CPUs while the other half invalidates: the
 * same subscription, if @apart is 0, or all disjoint.
 */
static void b_mixed(struct kunit *test, unsigned int cpus, unsigned int apart)
{
	struct b_crowd *c = b_crowd(test);
	unsigned int half = cpus / 2;

	while (c->n < half)
		b_join(test, c, b_invalidate_thread, c->n * apart);
	while (c->n < cpus)
		b_join(test, c, b_fault_thread, c->n * apart);
	b_go(c);
	b_rate(test, apart ? "fault-beside-invalidations" : "fault-amid-invalidations",
	       c, half, cpus);
	b_rate(test, apart ? "invalidate-beside-faults" : "invalidate-amid-faults",
	       c, 0, half);
}

static void crowd(struct kunit *test)
{
	unsigned int cpus;

	b_populate(test, 1000);
	for (cpus = 1; cpus <= min(num_online_cpus(), B_THREADS); cpus *= 2) {
		b_alike(test, "invalidate", b_invalidate_thread, cpus);
		b_alike(test, "fault", b_fault_thread, cpus);
		if (cpus == 1)
			continue;
		b_mixed(test, cpus, 100);
		b_mixed(test, cpus, 0);
	}
}

static struct kunit_case crowd_cases[] = {
	KUNIT_CASE_SLOW(crowd),
	{}
};

static struct kunit_suite crowd_suite = {
	.name = "mmu_notifier_crowd",
	.init = b_init,
	.exit = b_exit,
	.test_cases = crowd_cases,
};

kunit_test_suites(&bench_suite, &crowd_suite);

MODULE_DESCRIPTION("Benchmarks of MMU notifiers");
MODULE_LICENSE("GPL");
