// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for MMU notifiers: what core mm and drivers may rely on
 *
 * Every case has an address space of its own, empty unless it asks for a VMA,
 * and opens brackets on it the way core mm does. Subscriptions are recorders:
 * they count their calls, keep what they were told, and append a word to the log
 * of the case, so that an order of events is compared as one string.
 *
 * Whatever could wait for ever in a broken kernel runs in a thread (t_op), and
 * the case waits for it with a timeout. A callback can be stopped inside (t_gate).
 * A case that failed leaks its address space and its memory on purpose: somebody
 * may still be using them. One that passed must have given back every pin.
 *
 * In this file: l is a list subscription, s an interval subscription, r a
 * bracket, e the environment of the case, op something that a thread does.
 */
#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/pgtable.h>
#include <linux/prandom.h>
#include <linux/rmap.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/shmem_fs.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <trace/events/mmu_notifier.h>

#include "warnings.h"

/*
 * Longer than anything takes on a slow machine, shorter than KUnit's patience;
 * in slices, so that a guest that stood still for a while loses only one.
 */
#define T_SLICES	200
#define T_SLICE		(HZ / 10)
/* How long somebody who waits must go on waiting to be believed */
#define T_STILL		msecs_to_jiffies(20)

#define PG(n)		((unsigned long)(n) << PAGE_SHIFT)

/* ---- Environment ---- */

struct t_env {
	struct mm_struct *mm;
	bool exited;		/* mm_users is gone, one mm_count is ours */
	struct kthread_worker *worker;	/* for t_do() */
	unsigned int threads;	/* not yet waited for */
	struct list_head chunks;
	spinlock_t lock;	/* of every device's sequence */
	raw_spinlock_t log_lock; /* probes log, too, and must not sleep on RT */
	size_t len;
	char log[512];
	unsigned int alloced;	/* by alloc_notifier */
	unsigned int freed;	/* by free_notifier */
};

struct t_chunk {
	struct list_head node;
	u8 data[] __aligned(8);
};

/* For alloc_notifier, which is given nothing but the mm */
static struct t_env *t_env;
static struct kunit *t_test;

static void *t_alloc(struct kunit *test, size_t size)
{
	struct t_env *e = test->priv;
	struct t_chunk *chunk = kzalloc(sizeof(*chunk) + size, GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, chunk);
	list_add(&chunk->node, &e->chunks);
	return chunk->data;
}

static void t_log(struct t_env *e, char what, unsigned int id)
{
	raw_spin_lock(&e->log_lock);
	if (e->len < sizeof(e->log))
		e->len += scnprintf(e->log + e->len, sizeof(e->log) - e->len,
				    "%c%u ", what, id);
	raw_spin_unlock(&e->log_lock);
}

/* The log since the last look at it */
static const char *t_log_take(void)
{
	static char taken[sizeof_field(struct t_env, log)];

	raw_spin_lock(&t_env->log_lock);
	strscpy(taken, t_env->log, sizeof(taken));
	t_env->log[0] = 0;
	t_env->len = 0;
	raw_spin_unlock(&t_env->log_lock);
	return taken;
}

/* Word for word; @want ends in a blank */
#define EXPECT_LOG(test, want)						\
	KUNIT_EXPECT_STREQ(test, t_log_take(), want)

static int t_init(struct kunit *test)
{
	struct t_env *e = kzalloc(sizeof(*e), GFP_KERNEL);

	if (!e)
		return -ENOMEM;
	INIT_LIST_HEAD(&e->chunks);
	spin_lock_init(&e->lock);
	raw_spin_lock_init(&e->log_lock);
	e->worker = kthread_create_worker(0, "mmu_notifier_kunit");
	if (IS_ERR(e->worker))
		goto free;
	e->mm = mm_alloc();
	if (!e->mm)
		goto destroy;
	test->priv = e;
	t_env = e;
	t_test = test;
	return 0;
destroy:
	kthread_destroy_worker(e->worker);
free:
	kfree(e);
	return -ENOMEM;
}

static void t_exit(struct kunit *test)
{
	struct t_env *e = test->priv;
	struct t_chunk *chunk, *next;

	if (!e || test->status == KUNIT_FAILURE)
		return;
	KUNIT_EXPECT_EQ(test, e->threads, 0);
	if (e->mm)
		KUNIT_EXPECT_EQ_MSG(test, atomic_read(&e->mm->mm_count), 1,
				    "somebody still pins the address space");
	if (test->status == KUNIT_FAILURE)
		return;

	kthread_destroy_worker(e->worker);
	if (e->mm && e->exited)
		mmdrop(e->mm);
	else if (e->mm)
		mmput(e->mm);
	list_for_each_entry_safe(chunk, next, &e->chunks, node)
		kfree(chunk);
	kfree(e);
}

static int t_pins(struct kunit *test)
{
	struct t_env *e = test->priv;

	return atomic_read(&e->mm->mm_count);
}

static bool t_wait(struct completion *done)
{
	unsigned int i;

	for (i = 0; i < T_SLICES; i++)
		if (wait_for_completion_timeout(done, T_SLICE))
			return true;
	return false;
}

/* ---- Gates: a callback is stopped where the case wants it ---- */

struct t_gate {
	bool armed;		/* stops the next one, and only that */
	struct completion entered;
	struct completion leave;
};

static void t_gate_init(struct t_gate *gate)
{
	gate->armed = false;
	init_completion(&gate->entered);
	init_completion(&gate->leave);
}

static void t_gate_arm(struct t_gate *gate)
{
	t_gate_init(gate);
	/* Pairs with the xchg() in t_gate_pass(): the completions are ready */
	smp_store_release(&gate->armed, true);
}

static void t_gate_open(struct t_gate *gate)
{
	complete_all(&gate->leave);
}

/* A kernel that looks for sleepers gets none where a bracket may not sleep */
static void t_gate_pass(struct t_gate *gate, bool may_sleep)
{
	unsigned long limit = jiffies + 2 * T_SLICES * T_SLICE;

	if (!xchg(&gate->armed, false))
		return;
	complete_all(&gate->entered);
	/* Who waits for something behind the gate gives up first, and is red */
	if (may_sleep || !IS_ENABLED(CONFIG_DEBUG_ATOMIC_SLEEP)) {
		if (!t_wait(&gate->leave) && !t_wait(&gate->leave))
			KUNIT_FAIL(t_test, "a gate was not opened");
		return;
	}
	while (!completion_done(&gate->leave) && time_before(jiffies, limit))
		cpu_relax();
}

static void t_need_spinning(struct kunit *test)
{
	if (IS_ENABLED(CONFIG_DEBUG_ATOMIC_SLEEP) && num_online_cpus() == 1)
		kunit_skip(test, "a callback would have to sleep on one CPU");
}

#define ASSERT_ENTERED(test, gate)					\
	KUNIT_ASSERT_TRUE(test, t_wait(&(gate)->entered))

/* ---- Things that may wait, done by a thread ---- */

struct t_op {
	void (*fn)(struct t_op *op);
	void *arg;
	unsigned long ret;
	struct task_struct *task;
	struct kthread_work work;
	struct completion done;
};

static int t_op_thread(void *data)
{
	struct t_op *op = data;

	op->fn(op);
	complete_all(&op->done);
	return 0;
}

static void t_op_work(struct kthread_work *work)
{
	t_op_thread(container_of(work, struct t_op, work));
}

static struct t_op *t_op(struct kunit *test, void (*fn)(struct t_op *op),
			 void *arg)
{
	struct t_op *op = t_alloc(test, sizeof(*op));

	op->fn = fn;
	op->arg = arg;
	init_completion(&op->done);
	kthread_init_work(&op->work, t_op_work);
	return op;
}

/* By a thread of its own, while the case goes on */
static struct t_op *t_start(struct kunit *test, void (*fn)(struct t_op *op),
			    void *arg)
{
	struct t_op *op = t_op(test, fn, arg);
	struct t_env *e = test->priv;

	op->task = kthread_create(t_op_thread, op, "mmu_notifier_kunit");
	KUNIT_ASSERT_FALSE(test, IS_ERR(op->task));
	get_task_struct(op->task);
	e->threads++;
	wake_up_process(op->task);
	return op;
}

static bool t_op_returned(struct t_op *op)
{
	if (!t_wait(&op->done))
		return false;
	if (op->task) {
		put_task_struct(op->task);
		op->task = NULL;
		t_env->threads--;
	}
	return true;
}

/* Is it asleep, and stays so? */
static bool t_op_waits(struct t_op *op)
{
	unsigned int i;

	for (i = 0; i < T_SLICES * T_SLICE && !completion_done(&op->done); i++) {
		if (READ_ONCE(op->task->__state) & TASK_NORMAL)
			break;
		schedule_timeout_uninterruptible(1);
	}
	return !wait_for_completion_timeout(&op->done, T_STILL);
}

#define EXPECT_WAITS(test, op)	KUNIT_EXPECT_TRUE(test, t_op_waits(op))
#define ASSERT_RETURNED(test, op) KUNIT_ASSERT_TRUE(test, t_op_returned(op))

/* To its end, by the worker of the case: cheaper than a thread */
static unsigned long t_do(struct kunit *test, void (*fn)(struct t_op *op),
			  void *arg)
{
	struct t_op *op = t_op(test, fn, arg);
	struct t_env *e = test->priv;

	kthread_queue_work(e->worker, &op->work);
	KUNIT_ASSERT_TRUE(test, t_wait(&op->done));
	return op->ret;
}

/* To its end, by a thread that nobody else uses: it dies with its signals */
static unsigned long t_do_apart(struct kunit *test, void (*fn)(struct t_op *op),
				void *arg)
{
	struct t_op *op = t_start(test, fn, arg);

	ASSERT_RETURNED(test, op);
	return op->ret;
}

/* ---- Brackets ---- */

struct t_bracket {
	struct mmu_notifier_range range;
	bool nonblock;
	struct t_gate gate;	/* between start and end */
};

static struct t_bracket *t_bracket(struct kunit *test, unsigned long start,
				   unsigned long end)
{
	struct t_bracket *r = t_alloc(test, sizeof(*r));
	struct t_env *e = test->priv;

	t_gate_init(&r->gate);
	mmu_notifier_range_init(&r->range, MMU_NOTIFY_CLEAR, 0, e->mm, start,
				end);
	return r;
}

static int t_open_range(struct t_bracket *r)
{
	if (r->nonblock)
		return mmu_notifier_invalidate_range_start_nonblock(&r->range);
	mmu_notifier_invalidate_range_start(&r->range);
	return 0;
}

static void op_open(struct t_op *op)
{
	op->ret = t_open_range(op->arg);
}

static void op_close(struct t_op *op)
{
	struct t_bracket *r = op->arg;

	mmu_notifier_invalidate_range_end(&r->range);
}

static void op_bracket(struct t_op *op)
{
	struct t_bracket *r = op->arg;

	op->ret = t_open_range(r);
	if (op->ret)
		return;
	t_gate_pass(&r->gate, true);
	mmu_notifier_invalidate_range_end(&r->range);
}

static struct t_bracket *t_open(struct kunit *test, unsigned long start,
				unsigned long end)
{
	struct t_bracket *r = t_bracket(test, start, end);

	KUNIT_ASSERT_EQ(test, t_do(test, op_open, r), 0);
	return r;
}

static void t_close(struct kunit *test, struct t_bracket *r)
{
	t_do(test, op_close, r);
}

static void t_invalidate(struct kunit *test, unsigned long start,
			 unsigned long end)
{
	t_close(test, t_open(test, start, end));
}

/* A whole bracket of the kind that may not sleep; -EAGAIN where one refused */
static int t_nonblock(struct kunit *test, unsigned long start, unsigned long end)
{
	struct t_bracket *r = t_bracket(test, start, end);

	r->nonblock = true;
	return t_do(test, op_bracket, r);
}

/* Does lockdep know that callbacks run? */
static bool t_map_held(void)
{
#ifdef CONFIG_LOCKDEP
	return lock_is_held(&__mmu_notifier_invalidate_range_start_map);
#else
	return false;
#endif
}

/* ---- List subscriptions ---- */

enum t_hook {
	T_START, T_END, T_RELEASE, T_FLUSH_YOUNG, T_YOUNG, T_TEST, T_TLB, T_HOOKS
};

struct t_list {
	struct mmu_notifier mn;
	struct t_env *e;
	unsigned int id;
	int refuse;		/* what start returns */
	int young;		/* what the aging hooks return */
	struct mmu_notifier *put_in_start;
	struct mmu_notifier *put_in_release;
	atomic_t calls[T_HOOKS];
	struct mmu_notifier_range seen;
	const struct mmu_notifier_range *range;
	bool map_held;		/* lockdep's view of the last start or end */
	struct mm_struct *mm;
	unsigned long start, end;
	struct t_gate gate;	/* inside start */
	struct t_gate release_gate;
};

static struct t_list *t_list_of(struct mmu_notifier *mn)
{
	return container_of(mn, struct t_list, mn);
}

static int calls(struct t_list *l, enum t_hook hook)
{
	return atomic_read(&l->calls[hook]);
}

static void t_list_saw(struct t_list *l, enum t_hook hook,
		       const struct mmu_notifier_range *range)
{
	atomic_inc(&l->calls[hook]);
	/* The record in it is not for us, and may be changing */
	l->seen = data_race(*range);
	l->range = range;
	l->map_held = t_map_held();
	t_log(l->e, hook == T_START ? 'S' : 'E', l->id);
}

static int t_list_start(struct mmu_notifier *mn,
			const struct mmu_notifier_range *range)
{
	struct t_list *l = t_list_of(mn);

	t_list_saw(l, T_START, range);
	if (l->put_in_start)
		mmu_notifier_put(l->put_in_start);
	t_gate_pass(&l->gate, mmu_notifier_range_blockable(range));
	return l->refuse;
}

static void t_list_end(struct mmu_notifier *mn,
		       const struct mmu_notifier_range *range)
{
	t_list_saw(t_list_of(mn), T_END, range);
}

static void t_list_release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	struct t_list *l = t_list_of(mn);

	atomic_inc(&l->calls[T_RELEASE]);
	l->mm = mm;
	t_log(l->e, 'R', l->id);
	if (l->put_in_release)
		mmu_notifier_put(l->put_in_release);
	t_gate_pass(&l->release_gate, true);
}

static int t_list_aged(struct t_list *l, enum t_hook hook, struct mm_struct *mm,
		       unsigned long start, unsigned long end)
{
	atomic_inc(&l->calls[hook]);
	l->mm = mm;
	l->start = start;
	l->end = end;
	return l->young;
}

static int t_list_flush_young(struct mmu_notifier *mn, struct mm_struct *mm,
			      unsigned long start, unsigned long end)
{
	return t_list_aged(t_list_of(mn), T_FLUSH_YOUNG, mm, start, end);
}

static int t_list_young(struct mmu_notifier *mn, struct mm_struct *mm,
			unsigned long start, unsigned long end)
{
	return t_list_aged(t_list_of(mn), T_YOUNG, mm, start, end);
}

static int t_list_test_young(struct mmu_notifier *mn, struct mm_struct *mm,
			     unsigned long address)
{
	return t_list_aged(t_list_of(mn), T_TEST, mm, address, address);
}

static void t_list_tlb(struct mmu_notifier *mn, struct mm_struct *mm,
		       unsigned long start, unsigned long end)
{
	t_list_aged(t_list_of(mn), T_TLB, mm, start, end);
}

static struct mmu_notifier *t_list_alloc(struct mm_struct *mm);

static struct mmu_notifier *t_list_alloc_fails(struct mm_struct *mm)
{
	return ERR_PTR(-ESRCH);
}

static void t_list_free(struct mmu_notifier *mn)
{
	struct t_list *l = t_list_of(mn);

	l->e->freed++;
	l->mm = mn->mm;
	/* Whoever looks at it once more falls over */
	memset(mn, 0x6b, sizeof(*mn));
}

#define T_OPS_AGING					\
	.release = t_list_release,			\
	.clear_flush_young = t_list_flush_young,	\
	.clear_young = t_list_young,			\
	.test_young = t_list_test_young

#define T_OPS_RANGE					\
	.invalidate_range_start = t_list_start,		\
	.invalidate_range_end = t_list_end

#define T_OPS_GET					\
	.alloc_notifier = t_list_alloc,			\
	.free_notifier = t_list_free

static const struct mmu_notifier_ops full_ops = { T_OPS_AGING, T_OPS_RANGE,
						  T_OPS_GET };
static const struct mmu_notifier_ops other_ops = { T_OPS_AGING, T_OPS_RANGE,
						   T_OPS_GET };
static const struct mmu_notifier_ops end_only_ops = {
	.invalidate_range_end = t_list_end,
};

/* As nouveau: may refuse, so has no end */
static const struct mmu_notifier_ops start_only_ops = {
	.release = t_list_release,
	.invalidate_range_start = t_list_start,
	.free_notifier = t_list_free,
};

static const struct mmu_notifier_ops tlb_ops = {
	T_OPS_AGING,
	.arch_invalidate_secondary_tlbs = t_list_tlb,
};

static const struct mmu_notifier_ops empty_ops = {};

/* Alloc succeeds, registration does not */
static const struct mmu_notifier_ops contrary_ops = {
	T_OPS_RANGE, T_OPS_GET,
	.arch_invalidate_secondary_tlbs = t_list_tlb,
};

static const struct mmu_notifier_ops no_alloc_ops = {
	T_OPS_RANGE,
	.alloc_notifier = t_list_alloc_fails,
	.free_notifier = t_list_free,
};

/* Drivers hand in memory that they have never written to */
static struct t_list *t_list(struct kunit *test, unsigned int id,
			     const struct mmu_notifier_ops *ops)
{
	struct t_list *l = t_alloc(test, sizeof(*l));

	memset(&l->mn, 0xa5, sizeof(l->mn));
	l->mn.ops = ops;
	l->e = test->priv;
	l->id = id;
	t_gate_init(&l->gate);
	t_gate_init(&l->release_gate);
	return l;
}

static struct mmu_notifier *t_list_alloc(struct mm_struct *mm)
{
	struct t_list *l = t_list(t_test, 9, NULL);

	mmap_assert_write_locked(mm);
	l->e->alloced++;
	return &l->mn;
}

static void op_register(struct t_op *op)
{
	struct t_list *l = op->arg;

	op->ret = mmu_notifier_register(&l->mn, l->e->mm);
}

static void op_unregister(struct t_op *op)
{
	struct t_list *l = op->arg;

	mmu_notifier_unregister(&l->mn, l->e->mm);
}

static void op_synchronize(struct t_op *op)
{
	mmu_notifier_synchronize();
}

static struct t_list *t_register(struct kunit *test, unsigned int id,
				 const struct mmu_notifier_ops *ops)
{
	struct t_list *l = t_list(test, id, ops);

	KUNIT_ASSERT_EQ(test, t_do(test, op_register, l), 0);
	return l;
}

static void t_unregister(struct kunit *test, struct t_list *l)
{
	t_do(test, op_unregister, l);
	/* Nobody may look at it any more */
	memset(&l->mn, 0x6b, sizeof(l->mn));
}

static void t_put(struct kunit *test, struct t_list *l)
{
	mmu_notifier_put(&l->mn);
	t_do(test, op_synchronize, NULL);
}

/* ---- Interval subscriptions ---- */

struct t_ini {
	struct mmu_interval_notifier ini;
	struct t_env *e;
	unsigned int id;
	unsigned long at, len;	/* for op_insert() */
	bool quiet;		/* does not set the sequence value */
	bool refuse;
	atomic_t hits;
	unsigned long cur_seq;
	struct mmu_notifier_range seen;
	bool map_held;
	struct t_gate gate;	/* before the sequence value is set */
	struct t_gate late_gate;
	bool releases;
	atomic_t released;
	struct t_gate release_gate;
	/* two passes */
	bool two;
	bool whole;		/* the first pass does it all */
	atomic_t finished;
	struct t_gate finish_gate;
};

static bool t_ini_invalidate(struct mmu_interval_notifier *ini,
			     const struct mmu_notifier_range *range,
			     unsigned long cur_seq)
{
	struct t_ini *s = container_of(ini, struct t_ini, ini);
	bool blockable = mmu_notifier_range_blockable(range);

	s->map_held = t_map_held();
	atomic_inc(&s->hits);
	t_log(s->e, 'i', s->id);
	t_gate_pass(&s->gate, blockable);
	scoped_guard(spinlock, &s->e->lock) {
		/* As above */
		s->seen = data_race(*range);
		s->cur_seq = cur_seq;
		if (!s->quiet && !s->refuse)
			mmu_interval_set_seq(ini, cur_seq);
	}
	t_gate_pass(&s->late_gate, blockable);
	return !s->refuse;
}

static const struct mmu_interval_notifier_ops ini_ops = {
	.invalidate = t_ini_invalidate,
};

static void t_ini_release(struct mmu_interval_notifier *ini)
{
	struct t_ini *s = container_of(ini, struct t_ini, ini);

	s->map_held = t_map_held();
	t_log(s->e, 'r', s->id);
	atomic_inc(&s->released);
	t_gate_pass(&s->release_gate, true);
}

static const struct mmu_interval_notifier_ops release_ops = {
	.invalidate = t_ini_invalidate,
	.release = t_ini_release,
};

/* What the second pass needs of the first */
struct t_finish {
	struct mmu_interval_notifier_finish finish;
	struct t_ini *s;
	bool blockable;
};

/* Also left behind on a refusal: nobody may look at it then */
static bool t_ini_start(struct mmu_interval_notifier *ini,
			const struct mmu_notifier_range *range,
			unsigned long cur_seq,
			struct mmu_interval_notifier_finish **finish)
{
	struct t_ini *s = container_of(ini, struct t_ini, ini);
	bool blockable = mmu_notifier_range_blockable(range);
	struct t_finish *f;

	if (*finish)
		KUNIT_FAIL(t_test, "somebody else's finish was handed in");
	if (s->whole)
		return t_ini_invalidate(ini, range, cur_seq);

	f = kzalloc(sizeof(*f), GFP_ATOMIC | __GFP_NOFAIL);
	f->s = s;
	f->blockable = blockable;
	*finish = &f->finish;
	if (t_ini_invalidate(ini, range, cur_seq))
		return true;
	kfree(f);
	return false;
}

static void t_ini_finish(struct mmu_interval_notifier_finish *finish)
{
	struct t_finish *f = container_of(finish, struct t_finish, finish);
	struct t_ini *s = f->s;

	if (finish->notifier != &s->ini)
		KUNIT_FAIL(t_test, "a finish of another subscription");
	t_log(s->e, 'f', s->id);
	t_gate_pass(&s->finish_gate, f->blockable);
	/* Whoever looks at it once more falls over */
	memset(f, 0x6b, sizeof(*f));
	kfree(f);
	atomic_inc(&s->finished);
}

static const struct mmu_interval_notifier_ops two_ops = {
	.invalidate_start = t_ini_start,
	.invalidate_finish = t_ini_finish,
};

static struct t_ini *t_ini(struct kunit *test, unsigned int id)
{
	struct t_ini *s = t_alloc(test, sizeof(*s));

	s->e = test->priv;
	s->id = id;
	t_gate_init(&s->gate);
	t_gate_init(&s->late_gate);
	t_gate_init(&s->release_gate);
	t_gate_init(&s->finish_gate);
	return s;
}

static struct t_ini *t_ini_two(struct kunit *test, unsigned int id)
{
	struct t_ini *s = t_ini(test, id);

	s->two = true;
	return s;
}

static int hits(struct t_ini *s)
{
	return atomic_read(&s->hits);
}

static void op_insert(struct t_op *op)
{
	struct t_ini *s = op->arg;

	op->ret = mmu_interval_notifier_insert(&s->ini, s->e->mm, s->at, s->len,
					       s->two ? &two_ops :
					       s->releases ? &release_ops :
					       &ini_ops);
}

static void op_remove(struct t_op *op)
{
	struct t_ini *s = op->arg;

	mmu_interval_notifier_remove(&s->ini);
}

static void op_read_begin(struct t_op *op)
{
	struct t_ini *s = op->arg;

	op->ret = mmu_interval_read_begin(&s->ini);
}

static void t_reinsert(struct kunit *test, struct t_ini *s, unsigned long start,
		       unsigned long end)
{
	s->at = start;
	s->len = end - start;
	KUNIT_ASSERT_EQ(test, t_do(test, op_insert, s), 0);
}

static struct t_ini *t_insert(struct kunit *test, unsigned int id,
			      unsigned long start, unsigned long end)
{
	struct t_ini *s = t_ini(test, id);

	t_reinsert(test, s, start, end);
	return s;
}

/* As t_insert(), with two passes */
static struct t_ini *t_insert_two(struct kunit *test, unsigned int id,
				  unsigned long start, unsigned long end)
{
	struct t_ini *s = t_ini_two(test, id);

	t_reinsert(test, s, start, end);
	return s;
}

/* As t_insert(), to be told of the exit when its bracket is over */
static struct t_ini *t_insert_releasing(struct kunit *test, unsigned int id,
					unsigned long start, unsigned long end)
{
	struct t_ini *s = t_ini(test, id);

	s->releases = true;
	t_reinsert(test, s, start, end);
	return s;
}

static int finished(struct t_ini *s)
{
	return atomic_read(&s->finished);
}

static void t_remove(struct kunit *test, struct t_ini *s)
{
	t_do(test, op_remove, s);
	/* Nobody may look at it any more */
	memset(&s->ini, 0x6b, sizeof(s->ini));
}

static unsigned long t_read(struct kunit *test, struct t_ini *s)
{
	return t_do(test, op_read_begin, s);
}

static bool t_collided(struct t_ini *s, unsigned long seq)
{
	return mmu_interval_read_retry(&s->ini, seq);
}

/* ---- The address space ---- */

static void op_mmput(struct t_op *op)
{
	mmput(op->arg);
}

/* The last user goes; the mm_struct stays for the case to look at */
static struct t_op *t_exit_mm_start(struct kunit *test)
{
	struct t_env *e = test->priv;

	mmgrab(e->mm);
	e->exited = true;
	return t_start(test, op_mmput, e->mm);
}

static void t_exit_mm(struct kunit *test)
{
	struct t_op *op = t_exit_mm_start(test);

	ASSERT_RETURNED(test, op);
}

static const struct vm_operations_struct t_vm_ops = {};

/* A VMA for the locks that it has; nothing is ever mapped in it */
static struct vm_area_struct *t_vma(struct kunit *test, struct file *file,
				    unsigned long start, unsigned long end)
{
	struct t_env *e = test->priv;
	struct vm_area_struct *vma = vm_area_alloc(e->mm);
	int ret;

	KUNIT_ASSERT_NOT_NULL(test, vma);
	vma->vm_start = start;
	vma->vm_end = end;
	vm_flags_init(vma, VM_READ | VM_WRITE | (file ? VM_SHARED : 0));
	vma->vm_page_prot = vm_get_page_prot(vma->vm_flags);
	vma->vm_file = file;
	vma->vm_ops = file ? &t_vm_ops : NULL;
	mmap_write_lock(e->mm);
	ret = insert_vm_struct(e->mm, vma);
	mmap_write_unlock(e->mm);
	KUNIT_ASSERT_EQ(test, ret, 0);
	return vma;
}

/* ==== Lists: coming and going ==== */

static void list_register_unregister(struct kunit *test)
{
	struct t_env *e = test->priv;
	int users = atomic_read(&e->mm->mm_users);
	struct t_list *l;

	KUNIT_EXPECT_FALSE(test, mm_has_notifiers(e->mm));
	KUNIT_EXPECT_NULL(test, e->mm->notifier_subscriptions);
	l = t_register(test, 0, &full_ops);
	KUNIT_EXPECT_TRUE(test, mm_has_notifiers(e->mm));
	KUNIT_EXPECT_PTR_EQ(test, l->mn.mm, e->mm);
	KUNIT_EXPECT_EQ(test, t_pins(test), 2);
	KUNIT_EXPECT_EQ(test, atomic_read(&e->mm->mm_users), users);
	KUNIT_EXPECT_FALSE(test, rwsem_is_locked(&e->mm->mmap_lock));

	t_invalidate(test, PG(1), PG(2));
	EXPECT_LOG(test, "S0 E0 ");
	t_unregister(test, l);
	EXPECT_LOG(test, "R0 ");
	KUNIT_EXPECT_PTR_EQ(test, l->mm, e->mm);
	KUNIT_EXPECT_EQ(test, t_pins(test), 1);
	t_invalidate(test, PG(1), PG(2));
	EXPECT_LOG(test, "");
	KUNIT_EXPECT_TRUE(test, mm_has_notifiers(e->mm));
}

static void list_register_locked(struct kunit *test)
{
	struct t_env *e = test->priv;
	struct t_list *l = t_list(test, 0, &full_ops);

	mmap_write_lock(e->mm);
	KUNIT_EXPECT_EQ(test, __mmu_notifier_register(&l->mn, e->mm), 0);
	mmap_assert_write_locked(e->mm);
	mmap_write_unlock(e->mm);
	KUNIT_EXPECT_EQ(test, t_pins(test), 2);
	t_invalidate(test, PG(1), PG(2));
	EXPECT_LOG(test, "S0 E0 ");
	t_unregister(test, l);
}

static const struct mmu_notifier_ops tlb_and_start_ops = {
	.arch_invalidate_secondary_tlbs = t_list_tlb,
	.invalidate_range_start = t_list_start,
};

static const struct mmu_notifier_ops tlb_and_end_ops = {
	.arch_invalidate_secondary_tlbs = t_list_tlb,
	.invalidate_range_end = t_list_end,
};

/* A secondary TLB and a secondary MMU exclude each other; no warning either */
static void list_register_contrary_ops(struct kunit *test)
{
	static const struct mmu_notifier_ops * const ops[] = {
		&tlb_and_start_ops, &tlb_and_end_ops, &contrary_ops,
	};
	struct t_env *e = test->priv;
	struct t_list *l;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(ops); i++) {
		l = t_list(test, i, ops[i]);
		KUNIT_EXPECT_EQ(test, t_do(test, op_register, l), -EINVAL);
		KUNIT_EXPECT_FALSE(test, rwsem_is_locked(&e->mm->mmap_lock));
		KUNIT_EXPECT_EQ(test, t_pins(test), 1);
		/* s390 and ocxl do not look at the result */
		t_unregister(test, l);
		KUNIT_EXPECT_EQ(test, t_pins(test), 1);
	}
	t_invalidate(test, 0, PG(1));
	EXPECT_LOG(test, "");
}

static void register_without_users(struct kunit *test)
{
	struct t_env *e = test->priv;
	struct t_list *l = t_list(test, 0, &full_ops);
	struct t_ini *s = t_ini(test, 0);
	struct mmu_notifier *mn;

	t_exit_mm(test);
	KUNIT_EXPECT_EQ(test, t_do(test, op_register, l), -EINVAL);
	s->len = PAGE_SIZE;
	KUNIT_EXPECT_EQ(test, t_do(test, op_insert, s), -EINVAL);
	mn = mmu_notifier_get(&full_ops, e->mm);
	KUNIT_EXPECT_EQ(test, PTR_ERR(mn), -EINVAL);
	KUNIT_EXPECT_EQ(test, e->alloced, e->freed);
	KUNIT_EXPECT_NULL(test, e->mm->notifier_subscriptions);
}

/* Every member of the ops is optional */
static void list_empty_ops(struct kunit *test)
{
	struct t_env *e = test->priv;
	struct t_list *l = t_register(test, 0, &empty_ops);

	t_invalidate(test, 0, PG(1));
	KUNIT_EXPECT_EQ(test, t_nonblock(test, 0, PG(1)), 0);
	KUNIT_EXPECT_EQ(test, mmu_notifier_clear_flush_young(e->mm, 0, 1), 0);
	KUNIT_EXPECT_EQ(test, mmu_notifier_clear_young(e->mm, 0, 1), 0);
	KUNIT_EXPECT_EQ(test, mmu_notifier_test_young(e->mm, 0), 0);
	mmu_notifier_arch_invalidate_secondary_tlbs(e->mm, 0, -1UL);
	t_unregister(test, l);

	l = t_register(test, 1, &end_only_ops);
	t_invalidate(test, 0, PG(1));
	EXPECT_LOG(test, "E1 ");
	t_put(test, l);
	l = t_register(test, 2, &empty_ops);
	t_exit_mm(test);
	t_unregister(test, l);
}

/* On return of unregister nothing of the subscription is running */
static void list_unregister_waits(struct kunit *test)
{
	struct t_list *l = t_register(test, 0, &full_ops);
	struct t_op *bracket, *leave;

	t_gate_arm(&l->gate);
	bracket = t_start(test, op_bracket, t_bracket(test, 0, PG(1)));
	ASSERT_ENTERED(test, &l->gate);
	leave = t_start(test, op_unregister, l);
	EXPECT_WAITS(test, leave);
	t_gate_open(&l->gate);
	ASSERT_RETURNED(test, leave);
	ASSERT_RETURNED(test, bracket);
	KUNIT_EXPECT_EQ(test, calls(l, T_START), 1);
	KUNIT_EXPECT_EQ(test, calls(l, T_RELEASE), 1);
}

/* KVM copes with a start that has no end, but with nothing after unregister */
static void list_unregister_in_bracket(struct kunit *test)
{
	struct t_list *stays = t_register(test, 0, &full_ops);
	struct t_list *goes = t_register(test, 1, &full_ops);
	struct t_bracket *r = t_open(test, 0, PG(1));

	EXPECT_LOG(test, "S1 S0 ");
	t_unregister(test, goes);
	EXPECT_LOG(test, "R1 ");
	t_close(test, r);
	EXPECT_LOG(test, "E0 ");
	t_unregister(test, stays);
}

/* ==== Lists: what they are told ==== */

struct event_row {
	enum mmu_notifier_event event;
	const char *desc;
};

static const struct event_row event_rows[] = {
	{ MMU_NOTIFY_UNMAP, "UNMAP" },
	{ MMU_NOTIFY_CLEAR, "CLEAR" },
	{ MMU_NOTIFY_PROTECTION_VMA, "PROTECTION_VMA" },
	{ MMU_NOTIFY_PROTECTION_PAGE, "PROTECTION_PAGE" },
	{ MMU_NOTIFY_SOFT_DIRTY, "SOFT_DIRTY" },
	{ MMU_NOTIFY_RELEASE, "RELEASE" },
	{ MMU_NOTIFY_MIGRATE, "MIGRATE" },
	{ MMU_NOTIFY_EXCLUSIVE, "EXCLUSIVE" },
};

KUNIT_ARRAY_PARAM_DESC(event, event_rows, desc);

static void expect_range(struct kunit *test, const struct mmu_notifier_range *is,
			 const struct mmu_notifier_range *want, bool blockable)
{
	KUNIT_EXPECT_PTR_EQ(test, is->mm, want->mm);
	KUNIT_EXPECT_EQ(test, is->start, want->start);
	KUNIT_EXPECT_EQ(test, is->end, want->end);
	KUNIT_EXPECT_EQ(test, is->event, want->event);
	KUNIT_EXPECT_PTR_EQ(test, is->owner, want->owner);
	KUNIT_EXPECT_EQ(test, mmu_notifier_range_blockable(is), blockable);
}

/* Both kinds are told the whole truth, at both ends, blockable or not */
static void events_forwarded(struct kunit *test)
{
	const struct event_row *row = test->param_value;
	struct t_env *e = test->priv;
	struct t_list *l = t_register(test, 0, &full_ops);
	struct t_ini *s = t_insert(test, 0, 0, PG(16));
	struct t_bracket *r;
	int i;

	for (i = 0; i < 2; i++) {
		r = t_bracket(test, 0, 0);
		r->nonblock = i;
		mmu_notifier_range_init_owner(&r->range, row->event, 0, e->mm,
					      PG(3) + 1, PG(5) + i, l);
		KUNIT_ASSERT_EQ(test, t_do(test, op_open, r), 0);
		EXPECT_LOG(test, "i0 S0 ");
		expect_range(test, &s->seen, &r->range, !r->nonblock);
		expect_range(test, &l->seen, &r->range, !r->nonblock);
		KUNIT_EXPECT_PTR_EQ(test, l->range, &r->range);
		memset(&l->seen, 0xa5, sizeof(l->seen));
		t_close(test, r);
		EXPECT_LOG(test, "E0 ");
		expect_range(test, &l->seen, &r->range, !r->nonblock);
		KUNIT_EXPECT_PTR_EQ(test, l->range, &r->range);
	}
	t_remove(test, s);
	t_unregister(test, l);
}

/* Callers pass members of the very range that they initialise */
static void range_init(struct kunit *test)
{
	struct t_env *e = test->priv;
	struct mmu_notifier_range range;

	memset(&range, 0xa5, sizeof(range));
	range.start = PG(1);
	range.end = PG(2);
	mmu_notifier_range_init_owner(&range, MMU_NOTIFY_MIGRATE, 0, e->mm,
				      range.end, range.start, test);
	KUNIT_EXPECT_EQ(test, range.start, PG(2));
	KUNIT_EXPECT_EQ(test, range.end, PG(1));
	KUNIT_EXPECT_PTR_EQ(test, range.owner, test);
	KUNIT_EXPECT_EQ(test, range.flags, 0);
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, e->mm, range.end,
				range.start);
	KUNIT_EXPECT_EQ(test, range.start, PG(1));
	KUNIT_EXPECT_EQ(test, range.end, PG(2));
	KUNIT_EXPECT_EQ(test, range.event, MMU_NOTIFY_CLEAR);
	KUNIT_EXPECT_PTR_EQ(test, range.mm, e->mm);
	KUNIT_EXPECT_NULL(test, range.owner);
}

static void list_order(struct kunit *test)
{
	struct t_list *l[4];
	int i;

	for (i = 0; i < 4; i++)
		l[i] = t_register(test, i, &full_ops);
	t_invalidate(test, 0, PG(1));
	EXPECT_LOG(test, "S3 S2 S1 S0 E3 E2 E1 E0 ");
	t_unregister(test, l[2]);
	t_log_take();
	t_invalidate(test, 0, PG(1));
	EXPECT_LOG(test, "S3 S1 S0 E3 E1 E0 ");
	t_unregister(test, l[3]);
	t_unregister(test, l[0]);
	t_unregister(test, l[1]);
}

/* nouveau relies on it: intervals first, whichever came first */
static void intervals_before_lists(struct kunit *test)
{
	struct t_list *early = t_register(test, 0, &full_ops);
	struct t_ini *s = t_insert(test, 0, 0, PG(1));
	struct t_list *late = t_register(test, 1, &full_ops);

	t_invalidate(test, 0, PG(1));
	EXPECT_LOG(test, "i0 S1 S0 E1 E0 ");
	t_invalidate(test, PG(1), PG(2));
	EXPECT_LOG(test, "S1 S0 E1 E0 ");
	t_unregister(test, early);
	t_unregister(test, late);
	t_remove(test, s);
}

static void nested_brackets(struct kunit *test)
{
	struct t_list *l = t_register(test, 0, &full_ops);
	struct t_ini *s = t_insert(test, 0, 0, PG(8));
	struct t_bracket *outer = t_open(test, 0, PG(4));
	struct t_bracket *inner = t_open(test, PG(2), PG(6));
	struct t_op *op = t_start(test, op_read_begin, s);

	EXPECT_LOG(test, "i0 S0 i0 S0 ");
	EXPECT_WAITS(test, op);
	t_close(test, outer);
	EXPECT_WAITS(test, op);
	t_close(test, inner);
	ASSERT_RETURNED(test, op);
	KUNIT_EXPECT_FALSE(test, t_collided(s, op->ret));
	EXPECT_LOG(test, "E0 E0 ");
	t_remove(test, s);
	t_unregister(test, l);
}

static void other_mm_hears_nothing(struct kunit *test)
{
	struct t_env *e = test->priv;
	struct mm_struct *mm = e->mm, *other = mm_alloc();
	struct t_list *l = t_register(test, 0, &full_ops);
	struct t_ini *s = t_insert(test, 0, 0, PG(8)), *t;
	struct t_bracket *r;

	KUNIT_ASSERT_NOT_NULL(test, other);
	e->mm = other;
	t_invalidate(test, 0, PG(1));
	EXPECT_LOG(test, "");
	t = t_insert(test, 1, 0, PG(8));
	r = t_open(test, 0, PG(1));
	EXPECT_LOG(test, "i1 ");
	KUNIT_EXPECT_FALSE(test, t_collided(s, t_read(test, s)));
	t_close(test, r);
	t_remove(test, t);
	KUNIT_EXPECT_EQ(test, t_pins(test), 1);
	e->mm = mm;
	t_remove(test, s);
	t_unregister(test, l);
	mmput(other);
}

/* A child starts without the subscriptions that fork has copied */
static void fork_inherits_nothing(struct kunit *test)
{
	struct mm_struct *mm = t_alloc(test, sizeof(*mm));

	mm->notifier_subscriptions = (void *)test;
	mmu_notifier_subscriptions_init(mm);
	KUNIT_EXPECT_FALSE(test, mm_has_notifiers(mm));
}

/* The real thing, once: core mm zaps a part of a VMA, and exits */
static void core_unmaps(struct kunit *test)
{
	struct t_env *e = test->priv;
	struct t_list *l = t_register(test, 0, &full_ops);
	struct t_ini *s = t_insert(test, 0, 0, TASK_SIZE);
	struct vm_area_struct *vma = t_vma(test, NULL, PG(256), PG(260));

	mmap_read_lock(e->mm);
	zap_page_range_single(vma, PG(257), PG(2), NULL);
	mmap_read_unlock(e->mm);
	EXPECT_LOG(test, "i0 S0 E0 ");
	KUNIT_EXPECT_EQ(test, s->seen.event, MMU_NOTIFY_CLEAR);
	KUNIT_EXPECT_EQ(test, s->seen.start, PG(257));
	KUNIT_EXPECT_EQ(test, s->seen.end, PG(259));

	t_exit_mm(test);
	EXPECT_LOG(test, "i0 R0 i0 ");
	KUNIT_EXPECT_EQ(test, s->seen.event, MMU_NOTIFY_UNMAP);
	KUNIT_EXPECT_EQ(test, s->seen.end, ULONG_MAX);
	t_remove(test, s);
	t_unregister(test, l);
}

/* ==== Lists: aging and secondary TLBs ==== */

/* Newest first: each answers for itself, and no answer keeps the next from it */
static void list_aging(struct kunit *test)
{
	struct t_env *e = test->priv;
	struct t_list *l[3];
	unsigned int i, mask;

	for (i = 0; i < 3; i++)
		l[i] = t_register(test, i, i == 2 ? &tlb_ops : &full_ops);
	for (mask = 0; mask < 8; mask++) {
		for (i = 0; i < 3; i++)
			l[i]->young = mask & BIT(i) ? 1 << i : 0;
		KUNIT_EXPECT_EQ(test, !!mask, !!mmu_notifier_clear_flush_young
				(e->mm, PG(1), PG(2)));
		KUNIT_EXPECT_EQ(test, !!mask,
				!!mmu_notifier_clear_young(e->mm, PG(3), PG(5)));
		KUNIT_EXPECT_EQ(test, !!mask,
				!!mmu_notifier_test_young(e->mm, PG(7)));
	}
	for (i = 0; i < 3; i++) {
		KUNIT_EXPECT_EQ(test, calls(l[i], T_FLUSH_YOUNG), 8);
		KUNIT_EXPECT_EQ(test, calls(l[i], T_YOUNG), 8);
		KUNIT_EXPECT_EQ(test, calls(l[i], T_TLB), 0);
		t_unregister(test, l[i]);
	}
}

static void list_aging_arguments(struct kunit *test)
{
	struct t_env *e = test->priv;
	struct t_list *l = t_register(test, 0, &full_ops);

	/* Called under a page-table lock */
	scoped_guard(spinlock, &e->lock)
		mmu_notifier_clear_flush_young(e->mm, PG(1), PG(2));
	KUNIT_EXPECT_PTR_EQ(test, l->mm, e->mm);
	KUNIT_EXPECT_EQ(test, l->start, PG(1));
	KUNIT_EXPECT_EQ(test, l->end, PG(2));
	mmu_notifier_clear_young(e->mm, PG(3), PG(5));
	KUNIT_EXPECT_EQ(test, l->start, PG(3));
	KUNIT_EXPECT_EQ(test, l->end, PG(5));
	mmu_notifier_test_young(e->mm, PG(7) + 1);
	KUNIT_EXPECT_EQ(test, l->start, PG(7) + 1);
	KUNIT_EXPECT_EQ(test, calls(l, T_FLUSH_YOUNG), 1);
	KUNIT_EXPECT_EQ(test, calls(l, T_YOUNG), 1);
	KUNIT_EXPECT_EQ(test, calls(l, T_TEST), 1);
	t_unregister(test, l);
}

struct young_row {
	bool flush, cpu, mmu;
	const char *desc;
};

static const struct young_row young_rows[] = {
	{ false, false, false, "neither young" },
	{ false, false, true, "mmu young" },
	{ false, true, false, "cpu young" },
	{ false, true, true, "both young" },
	{ true, false, false, "flush, neither young" },
	{ true, false, true, "flush, mmu young" },
	{ true, true, false, "flush, cpu young" },
	{ true, true, true, "flush, both young" },
};

KUNIT_ARRAY_PARAM_DESC(young, young_rows, desc);

/* The bit of the CPU and the bits of the MMUs are cleared both, always */
static void young_macros_pte(struct kunit *test)
{
	const struct young_row *row = test->param_value;
	struct t_env *e = test->priv;
	struct t_list *l = t_register(test, 0, &full_ops);
	struct vm_area_struct vma = { .vm_mm = e->mm };
	pte_t pte = pte_mkold(pfn_pte(0, PAGE_KERNEL));
	unsigned int once = 0;
	int ret;

	if (row->cpu)
		pte = pte_mkyoung(pte);
	l->young = row->mmu;
	if (row->flush)
		ret = ptep_clear_flush_young_notify(&vma, (once++, PG(3)), &pte);
	else
		ret = ptep_clear_young_notify(&vma, (once++, PG(3)), &pte);
	KUNIT_EXPECT_EQ(test, !!ret, row->cpu || row->mmu);
	KUNIT_EXPECT_FALSE(test, pte_young(pte));
	KUNIT_EXPECT_EQ(test, calls(l, T_FLUSH_YOUNG), row->flush);
	KUNIT_EXPECT_EQ(test, calls(l, T_YOUNG), !row->flush);
	KUNIT_EXPECT_EQ(test, l->start, PG(3));
	KUNIT_EXPECT_EQ(test, l->end, PG(4));
	KUNIT_EXPECT_EQ(test, once, 1);
	t_unregister(test, l);
}

#ifdef CONFIG_TRANSPARENT_HUGEPAGE
static void young_macros_pmd(struct kunit *test)
{
	const struct young_row *row = test->param_value;
	struct t_env *e = test->priv;
	struct t_list *l = t_register(test, 0, &full_ops);
	struct vm_area_struct vma = { .vm_mm = e->mm };
	pmd_t pmd = pmd_mkhuge(pmd_mkold(pfn_pmd(0, PAGE_KERNEL)));
	int ret;

	if (row->cpu)
		pmd = pmd_mkyoung(pmd);
	l->young = row->mmu;
	if (row->flush)
		ret = pmdp_clear_flush_young_notify(&vma, PMD_SIZE, &pmd);
	else
		ret = pmdp_clear_young_notify(&vma, PMD_SIZE, &pmd);
	KUNIT_EXPECT_EQ(test, !!ret, row->cpu || row->mmu);
	KUNIT_EXPECT_FALSE(test, pmd_young(pmd));
	KUNIT_EXPECT_EQ(test, calls(l, T_FLUSH_YOUNG), row->flush);
	KUNIT_EXPECT_EQ(test, calls(l, T_YOUNG), !row->flush);
	KUNIT_EXPECT_EQ(test, l->start, PMD_SIZE);
	KUNIT_EXPECT_EQ(test, l->end, 2 * PMD_SIZE);
	t_unregister(test, l);
}
#else
static void young_macros_pmd(struct kunit *test)
{
	kunit_skip(test, "no transparent huge pages");
}
#endif

/* "Everything" is told by exact values, which the SVA drivers look for */
static void list_secondary_tlb(struct kunit *test)
{
	static const unsigned long rows[][2] = {
		{ 0, -1UL }, { 0, PAGE_SIZE }, { 1, 2 }, { PAGE_SIZE, -1UL },
	};
	struct t_env *e = test->priv;
	struct t_list *l[2], *other = t_register(test, 2, &full_ops);
	unsigned int i, j;

	l[0] = t_register(test, 0, &tlb_ops);
	l[1] = t_register(test, 1, &tlb_ops);
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		/* Mostly called under a page-table lock */
		spin_lock(&e->lock);
		mmu_notifier_arch_invalidate_secondary_tlbs(e->mm, rows[i][0],
							    rows[i][1]);
		spin_unlock(&e->lock);
		for (j = 0; j < 2; j++) {
			KUNIT_EXPECT_EQ(test, calls(l[j], T_TLB), i + 1);
			KUNIT_EXPECT_PTR_EQ(test, l[j]->mm, e->mm);
			KUNIT_EXPECT_EQ(test, l[j]->start, rows[i][0]);
			KUNIT_EXPECT_EQ(test, l[j]->end, rows[i][1]);
		}
	}
	t_unregister(test, l[0]);
	t_unregister(test, l[1]);
	t_unregister(test, other);
}

/* ==== Lists: get and put ==== */

static struct t_list *t_get(struct kunit *test, const struct mmu_notifier_ops *ops)
{
	struct t_env *e = test->priv;
	struct mmu_notifier *mn = mmu_notifier_get(ops, e->mm);

	KUNIT_ASSERT_FALSE(test, IS_ERR(mn));
	KUNIT_EXPECT_FALSE(test, rwsem_is_locked(&e->mm->mmap_lock));
	return t_list_of(mn);
}

static void get_same_object(struct kunit *test)
{
	struct t_env *e = test->priv;
	struct t_list *l = t_get(test, &full_ops);
	struct t_list *other = t_get(test, &other_ops);
	struct mmu_notifier *mn;

	KUNIT_EXPECT_PTR_EQ(test, l->mn.mm, e->mm);
	KUNIT_EXPECT_PTR_NE(test, other, l);
	KUNIT_EXPECT_PTR_EQ(test, t_get(test, &full_ops), l);
	mmap_write_lock(e->mm);
	mn = mmu_notifier_get_locked(&full_ops, e->mm);
	mmap_write_unlock(e->mm);
	KUNIT_EXPECT_PTR_EQ(test, mn, &l->mn);
	KUNIT_EXPECT_EQ(test, e->alloced, 2);
	KUNIT_EXPECT_EQ(test, t_pins(test), 3);

	t_put(test, l);
	t_put(test, l);
	KUNIT_EXPECT_EQ(test, e->freed, 0);
	t_invalidate(test, 0, PG(1));
	EXPECT_LOG(test, "S9 S9 E9 E9 ");
	t_put(test, l);
	KUNIT_EXPECT_EQ(test, e->freed, 1);
	KUNIT_EXPECT_PTR_EQ(test, l->mm, e->mm);
	KUNIT_EXPECT_EQ(test, t_pins(test), 2);
	t_put(test, other);
	KUNIT_EXPECT_EQ(test, e->freed, 2);
	/* Put does not call release */
	EXPECT_LOG(test, "");
}

static void get_again_after_put(struct kunit *test)
{
	struct t_env *e = test->priv;
	struct t_list *first = t_get(test, &full_ops), *second;

	mmu_notifier_put(&first->mn);
	/* Whether it has been freed or not, it is not to be had any more */
	second = t_get(test, &full_ops);
	KUNIT_EXPECT_PTR_NE(test, first, second);
	KUNIT_EXPECT_EQ(test, e->alloced, 2);
	t_put(test, second);
	KUNIT_EXPECT_EQ(test, e->freed, 2);
}

static void get_fails(struct kunit *test)
{
	struct t_env *e = test->priv;
	struct mmu_notifier *mn;

	mn = mmu_notifier_get(&no_alloc_ops, e->mm);
	KUNIT_EXPECT_EQ(test, PTR_ERR(mn), -ESRCH);
	KUNIT_EXPECT_EQ(test, e->freed, 0);
	mn = mmu_notifier_get(&contrary_ops, e->mm);
	KUNIT_EXPECT_EQ(test, PTR_ERR(mn), -EINVAL);
	KUNIT_EXPECT_EQ(test, e->alloced, 1);
	KUNIT_EXPECT_EQ(test, e->freed, 1);
	KUNIT_EXPECT_FALSE(test, rwsem_is_locked(&e->mm->mmap_lock));
	KUNIT_EXPECT_EQ(test, t_pins(test), 1);
}

static void get_saturates(struct kunit *test)
{
	struct t_env *e = test->priv;
	struct t_list *l = t_get(test, &full_ops);
	struct mmu_notifier *mn;

	l->mn.users = UINT_MAX;
	mn = mmu_notifier_get(&full_ops, e->mm);
	KUNIT_EXPECT_EQ(test, PTR_ERR(mn), -EOVERFLOW);
	KUNIT_EXPECT_EQ(test, e->alloced, 1);
	KUNIT_EXPECT_EQ(test, l->mn.users, UINT_MAX);
	l->mn.users = 1;
	t_put(test, l);
}

/* SGX and the SVA drivers register, and put */
static void put_ends_register(struct kunit *test)
{
	struct t_env *e = test->priv;
	struct t_list *l = t_register(test, 0, &full_ops);

	/* It does not sleep */
	scoped_guard(spinlock, &e->lock)
		mmu_notifier_put(&l->mn);
	t_do(test, op_synchronize, NULL);
	KUNIT_EXPECT_EQ(test, e->freed, 1);
	KUNIT_EXPECT_EQ(test, t_pins(test), 1);
	t_invalidate(test, 0, PG(1));
	EXPECT_LOG(test, "");
}

/* Freed only when no callback runs on it any more; synchronize waits for that */
static void put_during_callback(struct kunit *test)
{
	struct t_env *e = test->priv;
	struct t_list *l = t_get(test, &full_ops);
	struct t_op *bracket, *sync;

	t_gate_arm(&l->gate);
	bracket = t_start(test, op_bracket, t_bracket(test, 0, PG(1)));
	ASSERT_ENTERED(test, &l->gate);
	mmu_notifier_put(&l->mn);
	sync = t_start(test, op_synchronize, NULL);
	EXPECT_WAITS(test, sync);
	KUNIT_EXPECT_EQ(test, e->freed, 0);
	t_invalidate(test, 0, PG(1));
	KUNIT_EXPECT_EQ(test, calls(l, T_START), 1);
	t_gate_open(&l->gate);
	ASSERT_RETURNED(test, bracket);
	ASSERT_RETURNED(test, sync);
	KUNIT_EXPECT_EQ(test, e->freed, 1);
}

/* SGX and amdkfd put from release, while core goes through the list */
static void put_inside_release(struct kunit *test)
{
	struct t_env *e = test->priv;
	struct t_list *l[3];
	int i;

	for (i = 0; i < 3; i++) {
		l[i] = t_register(test, i, &full_ops);
		l[i]->put_in_release = &l[i]->mn;
	}
	t_exit_mm(test);
	t_do(test, op_synchronize, NULL);
	for (i = 0; i < 3; i++)
		KUNIT_EXPECT_EQ(test, calls(l[i], T_RELEASE), 1);
	KUNIT_EXPECT_EQ(test, e->freed, 3);
}

static void put_after_exit(struct kunit *test)
{
	struct t_env *e = test->priv;
	struct t_list *l = t_get(test, &full_ops);

	t_exit_mm(test);
	KUNIT_EXPECT_EQ(test, calls(l, T_RELEASE), 1);
	KUNIT_EXPECT_EQ(test, t_pins(test), 2);
	t_put(test, l);
	KUNIT_EXPECT_EQ(test, e->freed, 1);
	KUNIT_EXPECT_EQ(test, calls(l, T_RELEASE), 1);
}

/* ==== Exit ==== */

static void exit_order(struct kunit *test)
{
	struct t_env *e = test->priv;
	struct t_list *l = t_register(test, 0, &full_ops);
	struct t_ini *low = t_insert(test, 0, 0, 1);
	struct t_ini *high = t_insert(test, 1, 0, ULONG_MAX);
	unsigned long seq = t_read(test, low);

	t_exit_mm(test);
	KUNIT_EXPECT_TRUE_MSG(test, !strcmp(e->log, "i0 i1 R0 ") ||
			      !strcmp(e->log, "i1 i0 R0 "), "got %s", e->log);
	t_log_take();
	KUNIT_EXPECT_EQ(test, low->seen.event, MMU_NOTIFY_RELEASE);
	KUNIT_EXPECT_TRUE(test, mmu_notifier_range_blockable(&low->seen));
	KUNIT_EXPECT_PTR_EQ(test, low->seen.mm, e->mm);
	KUNIT_EXPECT_EQ(test, low->seen.start, 0);
	KUNIT_EXPECT_EQ(test, low->seen.end, ULONG_MAX);
	KUNIT_EXPECT_TRUE(test, t_collided(low, seq));
	/* It is over: nobody has to wait for it */
	KUNIT_EXPECT_FALSE(test, t_collided(low, t_read(test, low)));
	t_remove(test, low);
	t_remove(test, high);
	t_unregister(test, l);
	EXPECT_LOG(test, "");
}

/* After exit lists hear nothing; intervals stay until they are removed */
static void exit_ends_lists(struct kunit *test)
{
	struct t_env *e = test->priv;
	struct t_list *l = t_register(test, 0, &full_ops);
	struct t_list *tlb = t_register(test, 1, &tlb_ops);
	struct t_ini *s = t_insert(test, 0, 0, PG(8));

	t_exit_mm(test);
	t_log_take();
	t_invalidate(test, 0, PG(1));
	KUNIT_EXPECT_EQ(test, t_nonblock(test, 0, PG(1)), 0);
	EXPECT_LOG(test, "i0 i0 ");
	mmu_notifier_arch_invalidate_secondary_tlbs(e->mm, 0, -1UL);
	mmu_notifier_clear_young(e->mm, 0, PG(1));
	KUNIT_EXPECT_EQ(test, calls(tlb, T_TLB), 0);
	KUNIT_EXPECT_EQ(test, calls(tlb, T_YOUNG), 0);
	KUNIT_EXPECT_EQ(test, t_pins(test), 4);
	t_unregister(test, l);
	t_unregister(test, tlb);
	t_remove(test, s);
	KUNIT_EXPECT_EQ(test, calls(l, T_RELEASE), 1);
	KUNIT_EXPECT_EQ(test, calls(tlb, T_RELEASE), 1);
}

/* Pages are freed next: exit waits for a release, whoever has called it */
static void exit_waits_for_unregister(struct kunit *test)
{
	struct t_list *l = t_register(test, 0, &full_ops);
	struct t_op *leave, *exit;

	t_gate_arm(&l->release_gate);
	leave = t_start(test, op_unregister, l);
	ASSERT_ENTERED(test, &l->release_gate);
	exit = t_exit_mm_start(test);
	EXPECT_WAITS(test, exit);
	t_gate_open(&l->release_gate);
	ASSERT_RETURNED(test, exit);
	ASSERT_RETURNED(test, leave);
	KUNIT_EXPECT_EQ(test, calls(l, T_RELEASE), 1);
}

/* It is off the list, but a callback on it is not over: exit waits for that, too */
static void exit_waits_for_leaver(struct kunit *test)
{
	struct t_list *l = t_register(test, 0, &full_ops);
	struct t_op *bracket, *leave, *exit;

	t_gate_arm(&l->gate);
	bracket = t_start(test, op_bracket, t_bracket(test, 0, PG(1)));
	ASSERT_ENTERED(test, &l->gate);
	leave = t_start(test, op_unregister, l);
	EXPECT_WAITS(test, leave);
	exit = t_exit_mm_start(test);
	EXPECT_WAITS(test, exit);
	t_gate_open(&l->gate);
	ASSERT_RETURNED(test, bracket);
	ASSERT_RETURNED(test, leave);
	ASSERT_RETURNED(test, exit);
	KUNIT_EXPECT_EQ(test, calls(l, T_RELEASE), 1);
}

static void unregister_waits_for_exit(struct kunit *test)
{
	struct t_list *l = t_register(test, 0, &full_ops);
	struct t_op *leave, *exit;

	t_gate_arm(&l->release_gate);
	exit = t_exit_mm_start(test);
	ASSERT_ENTERED(test, &l->release_gate);
	leave = t_start(test, op_unregister, l);
	EXPECT_WAITS(test, leave);
	t_gate_open(&l->release_gate);
	ASSERT_RETURNED(test, exit);
	ASSERT_RETURNED(test, leave);
	KUNIT_EXPECT_EQ(test, calls(l, T_RELEASE), 1);
}

/* A truncation may be in the middle of a callback when the mm exits */
static void exit_waits_for_callbacks(struct kunit *test)
{
	struct t_list *l = t_register(test, 0, &full_ops);
	struct t_op *bracket, *exit;

	t_gate_arm(&l->gate);
	bracket = t_start(test, op_bracket, t_bracket(test, 0, PG(1)));
	ASSERT_ENTERED(test, &l->gate);
	exit = t_exit_mm_start(test);
	EXPECT_WAITS(test, exit);
	t_gate_open(&l->gate);
	ASSERT_RETURNED(test, bracket);
	ASSERT_RETURNED(test, exit);
	t_unregister(test, l);
}

static void exit_during_remove(struct kunit *test)
{
	struct t_ini *s = t_insert(test, 0, 0, PG(1));
	struct t_ini *neighbour = t_insert(test, 1, PG(1), PG(2));
	struct t_op *exit, *remove, *read;

	t_gate_arm(&s->gate);
	exit = t_exit_mm_start(test);
	ASSERT_ENTERED(test, &s->gate);
	read = t_start(test, op_read_begin, neighbour);
	EXPECT_WAITS(test, read);
	remove = t_start(test, op_remove, s);
	EXPECT_WAITS(test, remove);
	t_gate_open(&s->gate);
	ASSERT_RETURNED(test, exit);
	ASSERT_RETURNED(test, remove);
	ASSERT_RETURNED(test, read);
	KUNIT_EXPECT_EQ(test, hits(s), 1);
	KUNIT_EXPECT_EQ(test, hits(neighbour), 1);
	t_remove(test, neighbour);
}

/* Every invalidation comes before the first release, and lists come last */
static void interval_release_order(struct kunit *test)
{
	struct t_ini *first = t_insert_releasing(test, 0, 0, PG(1));
	struct t_ini *plain = t_insert(test, 1, PG(1), PG(2));
	struct t_ini *last = t_insert_releasing(test, 2, PG(1), PG(4));
	struct t_list *l = t_register(test, 3, &full_ops);

	t_log_take();
	t_exit_mm(test);
	EXPECT_LOG(test, "i0 i1 i2 r0 r2 R3 ");
	KUNIT_EXPECT_FALSE(test, first->map_held);
	t_remove(test, first);
	t_remove(test, plain);
	t_remove(test, last);
	EXPECT_LOG(test, "");
	t_unregister(test, l);
}

/*
 * While one is being released no bracket is open. To remove that one is to wait;
 * the next one can be removed at once, and is not called any more.
 */
static void remove_in_release(struct kunit *test)
{
	struct t_ini *s = t_insert_releasing(test, 0, 0, PG(2));
	struct t_ini *next = t_insert_releasing(test, 1, PG(1), PG(2));
	struct t_op *exit, *remove;

	t_gate_arm(&s->release_gate);
	exit = t_exit_mm_start(test);
	ASSERT_ENTERED(test, &s->release_gate);
	KUNIT_EXPECT_FALSE(test, t_collided(next, t_read(test, next)));
	remove = t_start(test, op_remove, s);
	EXPECT_WAITS(test, remove);
	t_remove(test, next);
	EXPECT_WAITS(test, exit);
	t_gate_open(&s->release_gate);
	ASSERT_RETURNED(test, remove);
	ASSERT_RETURNED(test, exit);
	KUNIT_EXPECT_EQ(test, atomic_read(&s->released), 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&next->released), 0);
}

/* ==== Subscribing while brackets are in flight ==== */

enum holder { HOLD_MMAP, HOLD_VMA, HOLD_FILE, HOLD_ANON };

struct holder_row {
	enum holder lock;
	bool interval;
	const char *desc;
};

static const struct holder_row holder_rows[] = {
	{ HOLD_MMAP, false, "list, bracket under the mmap lock" },
	{ HOLD_VMA, false, "list, bracket under a VMA lock" },
	{ HOLD_FILE, false, "list, bracket under i_mmap_rwsem" },
	{ HOLD_ANON, false, "list, bracket under the anon_vma lock" },
	{ HOLD_MMAP, true, "interval, bracket under the mmap lock" },
	{ HOLD_VMA, true, "interval, bracket under a VMA lock" },
	{ HOLD_FILE, true, "interval, bracket under i_mmap_rwsem" },
	{ HOLD_ANON, true, "interval, bracket under the anon_vma lock" },
};

KUNIT_ARRAY_PARAM_DESC(holder, holder_rows, desc);

struct t_held {
	enum holder lock;
	struct vm_area_struct *vma;
	struct t_bracket *bracket;
};

static bool t_lock(struct t_held *h)
{
	switch (h->lock) {
	case HOLD_MMAP:
		mmap_read_lock(h->vma->vm_mm);
		return true;
	case HOLD_VMA:
		return vma_start_read(h->vma);
	case HOLD_FILE:
		i_mmap_lock_read(h->vma->vm_file->f_mapping);
		return true;
	case HOLD_ANON:
		anon_vma_lock_read(h->vma->anon_vma);
		return true;
	}
	return false;
}

static void t_unlock(struct t_held *h)
{
	switch (h->lock) {
	case HOLD_MMAP:
		mmap_read_unlock(h->vma->vm_mm);
		break;
	case HOLD_VMA:
		vma_end_read(h->vma);
		break;
	case HOLD_FILE:
		i_mmap_unlock_read(h->vma->vm_file->f_mapping);
		break;
	case HOLD_ANON:
		anon_vma_unlock_read(h->vma->anon_vma);
		break;
	}
}

static void op_held_bracket(struct t_op *op)
{
	struct t_held *h = op->arg;
	struct t_op bracket = { .arg = h->bracket };

	if (!t_lock(h)) {
		op->ret = -EBUSY;
		return;
	}
	op_bracket(&bracket);
	t_unlock(h);
}

static struct t_held *t_held(struct kunit *test, enum holder lock)
{
	struct t_held *h = t_alloc(test, sizeof(*h));
	struct file *file = NULL;

	if (lock == HOLD_FILE) {
		file = shmem_kernel_file_setup("mmu_notifier_kunit", PG(4), 0);
		KUNIT_ASSERT_FALSE(test, IS_ERR(file));
	}
	h->lock = lock;
	h->vma = t_vma(test, file, PG(256), PG(260));
	if (lock == HOLD_ANON) {
		mmap_write_lock(h->vma->vm_mm);
		anon_vma_prepare(h->vma);
		mmap_write_unlock(h->vma->vm_mm);
		KUNIT_ASSERT_NOT_NULL(test, h->vma->anon_vma);
	}
	h->bracket = t_bracket(test, PG(256), PG(260));
	t_gate_arm(&h->bracket->gate);
	return h;
}

/*
 * Neither a list subscription nor the first interval of an mm may come in while
 * a bracket is in flight: the one would see an end without its start, the other
 * would not know of the bracket.
 */
static void subscribing_waits(struct kunit *test)
{
	const struct holder_row *row = test->param_value;
	struct t_list *first, *l = t_list(test, 1, &full_ops);
	struct t_ini *s = t_ini(test, 0);
	struct t_op *held, *come;
	struct t_held *h;

	if (row->lock == HOLD_VMA && !IS_ENABLED(CONFIG_PER_VMA_LOCK))
		kunit_skip(test, "no VMA locks");
	h = t_held(test, row->lock);
	first = t_register(test, 0, &full_ops);
	s->at = PG(256);
	s->len = PG(4);
	held = t_start(test, op_held_bracket, h);
	ASSERT_ENTERED(test, &h->bracket->gate);
	EXPECT_LOG(test, "S0 ");
	come = row->interval ? t_start(test, op_insert, s) :
			       t_start(test, op_register, l);
	EXPECT_WAITS(test, come);
	t_gate_open(&h->bracket->gate);
	ASSERT_RETURNED(test, held);
	ASSERT_RETURNED(test, come);
	KUNIT_ASSERT_EQ(test, held->ret, 0);
	KUNIT_ASSERT_EQ(test, come->ret, 0);
	EXPECT_LOG(test, "E0 ");
	if (row->interval)
		t_remove(test, s);
	else
		t_unregister(test, l);
	t_unregister(test, first);
}

/* Only the first interval needs the mmap lock: a storm does not keep others out */
static void later_inserts_do_not_wait(struct kunit *test)
{
	struct t_ini *first = t_insert(test, 0, 0, PG(1)), *s;
	struct t_held *h = t_held(test, HOLD_MMAP);
	struct t_op *held = t_start(test, op_held_bracket, h);

	ASSERT_ENTERED(test, &h->bracket->gate);
	s = t_insert(test, 1, PG(256), PG(257));
	KUNIT_EXPECT_EQ(test, hits(s), 0);
	t_remove(test, s);
	t_remove(test, first);
	s = t_insert(test, 2, PG(256), PG(257));
	t_remove(test, s);
	t_gate_open(&h->bracket->gate);
	ASSERT_RETURNED(test, held);
}

/* Several at once find that the mm has none yet */
static void first_ones_together(struct kunit *test)
{
	struct t_list *l = t_list(test, 4, &empty_ops);
	struct t_env *e = test->priv;
	struct t_op *op[5];
	struct t_ini *s[4];
	unsigned int i;

	mmap_write_lock(e->mm);
	for (i = 0; i < 4; i++) {
		s[i] = t_ini(test, i);
		s[i]->len = PAGE_SIZE;
		op[i] = t_start(test, op_insert, s[i]);
	}
	op[4] = t_start(test, op_register, l);
	for (i = 0; i < 5; i++)
		EXPECT_WAITS(test, op[i]);
	mmap_write_unlock(e->mm);
	for (i = 0; i < 5; i++) {
		ASSERT_RETURNED(test, op[i]);
		KUNIT_ASSERT_EQ(test, op[i]->ret, 0);
	}
	KUNIT_EXPECT_EQ(test, t_pins(test), 6);
	t_invalidate(test, 0, PG(1));
	for (i = 0; i < 4; i++) {
		KUNIT_EXPECT_EQ(test, hits(s[i]), 1);
		t_remove(test, s[i]);
	}
	t_unregister(test, l);
}

static void op_register_with_signal(struct t_op *op)
{
	allow_signal(SIGUSR1);
	send_sig(SIGUSR1, current, 1);
	op_register(op);
}

static void op_insert_with_signal(struct t_op *op)
{
	allow_signal(SIGUSR1);
	send_sig(SIGUSR1, current, 1);
	op_insert(op);
}

static void op_get_with_signal(struct t_op *op)
{
	struct t_env *e = op->arg;

	allow_signal(SIGUSR1);
	send_sig(SIGUSR1, current, 1);
	op->ret = PTR_ERR(mmu_notifier_get(&full_ops, e->mm));
}

/* A signal gives up a subscription without a trace */
static void subscribing_interrupted(struct kunit *test)
{
	struct t_env *e = test->priv;
	struct t_list *l = t_list(test, 0, &full_ops);
	struct t_ini *s = t_ini(test, 0);

	t_vma(test, NULL, PG(256), PG(260));
	s->len = PAGE_SIZE;
	KUNIT_EXPECT_EQ(test, t_do_apart(test, op_register_with_signal, l), -EINTR);
	KUNIT_EXPECT_EQ(test, t_do_apart(test, op_insert_with_signal, s), -EINTR);
	KUNIT_EXPECT_EQ(test, t_do_apart(test, op_get_with_signal, e), -EINTR);
	KUNIT_EXPECT_EQ(test, e->alloced, 1);
	KUNIT_EXPECT_EQ(test, e->freed, 1);
	KUNIT_EXPECT_NULL(test, s->ini.mm);
	KUNIT_EXPECT_EQ(test, t_pins(test), 1);
	KUNIT_EXPECT_FALSE(test, rwsem_is_locked(&e->mm->mmap_lock));
	t_invalidate(test, 0, PG(1));
	EXPECT_LOG(test, "");

	KUNIT_EXPECT_EQ(test, t_do(test, op_register, l), 0);
	KUNIT_EXPECT_EQ(test, t_do_apart(test, op_insert_with_signal, s), -EINTR);
	t_reinsert(test, s, 0, PG(1));
	/* A further one waits for nothing that a signal could cut short */
	KUNIT_EXPECT_EQ(test, t_do_apart(test, op_insert_with_signal, t_ini(test, 1)),
			-EOVERFLOW);
	t_invalidate(test, 0, PG(1));
	EXPECT_LOG(test, "i0 S0 E0 ");
	t_remove(test, s);
	t_unregister(test, l);
}

/* range_init pays nothing: an end must know by itself whether it was recorded */
static void bracket_older_than_object(struct kunit *test)
{
	struct t_bracket *old = t_open(test, 0, PG(1)), *r;
	struct t_ini *s = t_insert(test, 0, 0, PG(1));
	struct t_op *op;

	KUNIT_EXPECT_EQ(test, hits(s), 0);
	r = t_open(test, 0, PG(1));
	t_close(test, old);
	/* If the old end had taken anything off the record, this would not wait */
	op = t_start(test, op_read_begin, s);
	EXPECT_WAITS(test, op);
	t_close(test, r);
	ASSERT_RETURNED(test, op);
	KUNIT_EXPECT_FALSE(test, t_collided(s, op->ret));
	t_remove(test, s);
}

/* ==== Refusal: what began is undone, and nothing else ==== */

/* Lists run 3, 2, 1, 0; @refuses says no, so that those above it must be undone */
static void eagain_at(struct kunit *test, unsigned int refuses)
{
	struct t_list *l[4];
	unsigned int i;

	for (i = 0; i < 4; i++)
		l[i] = t_register(test, i, i == refuses ? &start_only_ops :
				  &full_ops);
	l[refuses]->refuse = -EAGAIN;
	KUNIT_EXPECT_EQ(test, t_nonblock(test, 0, PG(1)), -EAGAIN);
	for (i = 0; i < 4; i++) {
		KUNIT_EXPECT_EQ_MSG(test, calls(l[i], T_START), i >= refuses,
				    "starts of %u, %u refused", i, refuses);
		KUNIT_EXPECT_EQ_MSG(test, calls(l[i], T_END), i > refuses,
				    "ends of %u, %u refused", i, refuses);
	}

	/* Nothing is left behind: the next one is an ordinary bracket */
	l[refuses]->refuse = 0;
	t_log_take();
	t_invalidate(test, 0, PG(1));
	for (i = 0; i < 4; i++) {
		KUNIT_EXPECT_EQ(test, calls(l[i], T_START), 1 + (i >= refuses));
		t_unregister(test, l[i]);
	}
}

static void eagain_list_each_position(struct kunit *test)
{
	unsigned int i;

	for (i = 0; i < 4; i++)
		eagain_at(test, i);
}

/* The first refusal stops the walk; who is not asked cannot refuse */
static void eagain_first_of_two(struct kunit *test)
{
	struct t_list *last = t_register(test, 0, &start_only_ops);
	struct t_list *middle = t_register(test, 1, &full_ops);
	struct t_list *first = t_register(test, 2, &start_only_ops);
	struct t_list *quiet = t_register(test, 3, &start_only_ops);
	struct t_list *newest = t_register(test, 4, &full_ops);

	last->refuse = -EAGAIN;
	first->refuse = -EAGAIN;
	KUNIT_EXPECT_EQ(test, t_nonblock(test, 0, PG(1)), -EAGAIN);
	EXPECT_LOG(test, "S4 S3 S2 E4 ");
	t_unregister(test, last);
	t_unregister(test, middle);
	t_unregister(test, first);
	t_unregister(test, quiet);
	t_unregister(test, newest);
}

/* The walk of the intervals stops, and no list hears of the bracket at all */
static void eagain_interval(struct kunit *test)
{
	struct t_list *l = t_register(test, 0, &full_ops);
	struct t_ini *s[3];
	unsigned int i;

	for (i = 0; i < 3; i++)
		s[i] = t_insert(test, i, PG(i), PG(i + 1));
	s[1]->refuse = true;
	KUNIT_EXPECT_EQ(test, t_nonblock(test, 0, PG(3)), -EAGAIN);
	EXPECT_LOG(test, "i0 i1 ");
	KUNIT_EXPECT_FALSE(test, mmu_notifier_range_blockable(&s[1]->seen));
	/* It is off the record */
	for (i = 0; i < 3; i++)
		KUNIT_EXPECT_FALSE(test, t_collided(s[i], t_read(test, s[i])));
	KUNIT_EXPECT_EQ(test, t_nonblock(test, PG(2), PG(3)), 0);
	EXPECT_LOG(test, "i2 S0 E0 ");
	s[1]->refuse = false;
	t_invalidate(test, 0, PG(3));
	EXPECT_LOG(test, "i0 i1 i2 S0 E0 ");
	for (i = 0; i < 3; i++)
		t_remove(test, s[i]);
	t_unregister(test, l);
}

/* Intervals have been invalidated when a list refuses: that is a collision */
static void eagain_list_after_interval(struct kunit *test)
{
	struct t_list *refuses = t_register(test, 0, &start_only_ops);
	struct t_list *l = t_register(test, 1, &full_ops);
	struct t_ini *s = t_insert(test, 0, 0, PG(1));
	unsigned long seq = t_read(test, s);
	struct t_bracket *r = t_bracket(test, 0, PG(1));

	refuses->refuse = -EAGAIN;
	r->nonblock = true;
	KUNIT_EXPECT_EQ(test, t_do(test, op_open, r), -EAGAIN);
	EXPECT_LOG(test, "i0 S1 S0 E1 ");
	KUNIT_EXPECT_TRUE(test, t_collided(s, seq));
	KUNIT_EXPECT_FALSE(test, t_collided(s, t_read(test, s)));
	KUNIT_EXPECT_FALSE(test, r->range.flags & MMU_NOTIFIER_RANGE_RECORDED);
	/* The same range may be tried again */
	refuses->refuse = 0;
	KUNIT_EXPECT_EQ(test, t_do(test, op_bracket, r), 0);
	EXPECT_LOG(test, "i0 S1 S0 E1 ");
	t_remove(test, s);
	t_unregister(test, refuses);
	t_unregister(test, l);
}

struct leaver_row {
	unsigned int id;
	bool unregister;
	const char *desc;
};

/* Lists run 3, 2, 1, 0, and 1 refuses */
static const struct leaver_row leaver_rows[] = {
	{ 3, false, "the first is put" },
	{ 2, false, "the one before is put" },
	{ 1, false, "the one that refuses is put" },
	{ 0, false, "one not reached is put" },
	{ 3, true, "the first is unregistered" },
	{ 2, true, "the one before is unregistered" },
	{ 1, true, "the one that refuses is unregistered" },
	{ 0, true, "one not reached is unregistered" },
};

KUNIT_ARRAY_PARAM_DESC(leaver, leaver_rows, desc);

static void eagain_put_meanwhile(struct kunit *test, struct t_list **l,
				 struct t_list *leaver)
{
	l[1]->put_in_start = &leaver->mn;
	KUNIT_EXPECT_EQ(test, t_nonblock(test, 0, PG(1)), -EAGAIN);
	t_do(test, op_synchronize, NULL);
	KUNIT_EXPECT_EQ(test, ((struct t_env *)test->priv)->freed, 1);
}

static void eagain_unregister_meanwhile(struct kunit *test, struct t_list **l,
					struct t_list *leaver)
{
	struct t_bracket *r = t_bracket(test, 0, PG(1));
	struct t_op *bracket, *leave;

	r->nonblock = true;
	t_gate_arm(&l[1]->gate);
	bracket = t_start(test, op_bracket, r);
	ASSERT_ENTERED(test, &l[1]->gate);
	leave = t_start(test, op_unregister, leaver);
	EXPECT_WAITS(test, leave);
	t_gate_open(&l[1]->gate);
	ASSERT_RETURNED(test, bracket);
	ASSERT_RETURNED(test, leave);
	KUNIT_EXPECT_EQ(test, bracket->ret, -EAGAIN);
}

/* Somebody leaves between the starts and their undoing */
static void eagain_with_leaver(struct kunit *test)
{
	const struct leaver_row *row = test->param_value;
	struct t_list *l[4];
	unsigned int i;

	if (row->unregister)
		t_need_spinning(test);
	for (i = 0; i < 4; i++)
		l[i] = t_register(test, i, i == 1 ? &start_only_ops : &full_ops);
	l[1]->refuse = -EAGAIN;
	if (row->unregister)
		eagain_unregister_meanwhile(test, l, l[row->id]);
	else
		eagain_put_meanwhile(test, l, l[row->id]);

	for (i = 0; i < 4; i++) {
		KUNIT_EXPECT_EQ(test, calls(l[i], T_START), i >= 1);
		/* The one that leaves may have gone before its end */
		KUNIT_EXPECT_LE(test, calls(l[i], T_END), i > 1);
		if (i == row->id)
			continue;
		KUNIT_EXPECT_EQ(test, calls(l[i], T_END), i > 1);
		t_unregister(test, l[i]);
	}
}

/* Whoever waits for a bracket also hears that it has been given up */
static void eagain_wakes_readers(struct kunit *test)
{
	struct t_ini *s[2], *reader;
	struct t_op *bracket, *read;
	struct t_bracket *r;
	int i;

	t_need_spinning(test);
	s[0] = t_insert(test, 0, 0, PG(4));
	s[1] = t_insert(test, 1, PG(1), PG(4));
	for (i = 0; i < 2; i++) {
		s[i]->refuse = true;
		reader = s[!i];
		r = t_bracket(test, 0, PG(4));
		r->nonblock = true;
		t_gate_arm(&s[i]->late_gate);
		bracket = t_start(test, op_bracket, r);
		ASSERT_ENTERED(test, &s[i]->late_gate);
		read = t_start(test, op_read_begin, reader);
		EXPECT_WAITS(test, read);
		t_gate_open(&s[i]->late_gate);
		ASSERT_RETURNED(test, bracket);
		ASSERT_RETURNED(test, read);
		KUNIT_EXPECT_EQ(test, bracket->ret, -EAGAIN);
		KUNIT_EXPECT_FALSE(test, t_collided(reader, read->ret));
		s[i]->refuse = false;
	}
	t_remove(test, s[0]);
	t_remove(test, s[1]);
}

static void op_nonblock_counted(struct t_op *op)
{
	/* Where spinlocks sleep, nobody can tell which sleep was for one */
	bool check = !IS_ENABLED(CONFIG_PREEMPT_RT);
	unsigned long slept = current->nvcsw;

	if (check)
		non_block_start();
	op_bracket(op);
	if (check)
		non_block_end();
	op->ret |= current->nvcsw - slept;
}

static void nonblock_does_not_sleep(struct kunit *test)
{
	struct t_list *l = t_register(test, 0, &full_ops);
	struct t_bracket *r = t_bracket(test, 0, PG(64));
	struct t_ini *s[40];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(s); i++)
		s[i] = t_insert(test, i, PG(i), PG(i + 1));
	r->nonblock = true;
	KUNIT_EXPECT_EQ(test, t_do(test, op_nonblock_counted, r), 0);
	for (i = 0; i < ARRAY_SIZE(s); i++) {
		KUNIT_EXPECT_EQ(test, hits(s[i]), 1);
		KUNIT_EXPECT_FALSE(test,
				   mmu_notifier_range_blockable(&s[i]->seen));
		t_remove(test, s[i]);
	}
	KUNIT_EXPECT_FALSE(test, mmu_notifier_range_blockable(&l->seen));
	KUNIT_EXPECT_EQ(test, calls(l, T_END), 1);
	t_unregister(test, l);
}

/* ==== Intervals: coming and going ==== */

struct length_row {
	unsigned long start, length;
	int ret;
	const char *desc;
};

static const struct length_row length_rows[] = {
	{ 0, 0, -EOVERFLOW, "empty" },
	{ PG(4), 0, -EOVERFLOW, "empty in the middle" },
	{ ULONG_MAX, 2, -EOVERFLOW, "wraps by a byte" },
	{ PG(1), ULONG_MAX, -EOVERFLOW, "wraps far" },
	{ 2, ULONG_MAX, -EOVERFLOW, "everything and one, from 2" },
	{ 1, ULONG_MAX, 0, "everything but byte 0" },
	{ 0, ULONG_MAX, 0, "everything but the last byte" },
	{ 0, ULONG_MAX & PAGE_MASK, 0, "whole pages" },
	{ ULONG_MAX, 1, 0, "the last byte" },
	{ 0, 1, 0, "the first byte" },
};

KUNIT_ARRAY_PARAM_DESC(length, length_rows, desc);

static void interval_lengths(struct kunit *test)
{
	const struct length_row *row = test->param_value;
	struct t_ini *s = t_ini(test, 0);
	struct mmu_interval_notifier before;
	struct t_env *e = test->priv;

	memset(&s->ini, 0x5a, sizeof(s->ini));
	before = s->ini;
	s->at = row->start;
	s->len = row->length;
	KUNIT_EXPECT_EQ(test, t_do(test, op_insert, s), row->ret);
	KUNIT_EXPECT_EQ(test, t_pins(test), row->ret ? 1 : 2);
	if (row->ret) {
		KUNIT_EXPECT_MEMEQ(test, &s->ini, &before, sizeof(before));
		return;
	}
	KUNIT_EXPECT_EQ(test, s->ini.interval_tree.start, row->start);
	KUNIT_EXPECT_EQ(test, s->ini.interval_tree.last,
			row->start + row->length - 1);
	KUNIT_EXPECT_PTR_EQ(test, s->ini.mm, e->mm);
	t_remove(test, s);
}

static void interval_needs_callback(struct kunit *test)
{
	static const struct mmu_interval_notifier_ops no_callback = {};
	struct t_ini *s = t_ini(test, 0);
	struct t_env *e = test->priv;

	KUNIT_EXPECT_EQ(test, mmu_interval_notifier_insert(&s->ini, e->mm, 0, 1,
							   &no_callback),
			-EINVAL);
	KUNIT_EXPECT_EQ(test, mmu_interval_notifier_insert(&s->ini, e->mm, 0, 1,
							   NULL), -EINVAL);
	KUNIT_EXPECT_NULL(test, s->ini.mm);
}

static void interval_pins(struct kunit *test)
{
	struct t_env *e = test->priv;
	struct t_ini *s = t_ini(test, 0);

	KUNIT_EXPECT_FALSE(test, mm_has_notifiers(e->mm));
	t_reinsert(test, s, 0, PG(1));
	KUNIT_EXPECT_TRUE(test, mm_has_notifiers(e->mm));
	KUNIT_EXPECT_FALSE(test, rwsem_is_locked(&e->mm->mmap_lock));
	KUNIT_EXPECT_EQ(test, t_pins(test), 2);
	t_do(test, op_remove, s);
	KUNIT_EXPECT_EQ(test, t_pins(test), 1);
	/* Left for the driver to clear */
	KUNIT_EXPECT_PTR_EQ(test, s->ini.mm, e->mm);
	KUNIT_EXPECT_TRUE(test, mm_has_notifiers(e->mm));
	t_invalidate(test, 0, PG(1));
	EXPECT_LOG(test, "");
}

/* amdkfd moves its ranges like this, under the mmap lock */
static void interval_locked(struct kunit *test)
{
	struct t_env *e = test->priv;
	struct t_ini *s = t_ini(test, 0);

	mmap_write_lock(e->mm);
	KUNIT_EXPECT_EQ(test, -EOVERFLOW, mmu_interval_notifier_insert_locked
			(&s->ini, e->mm, 1, 0, &ini_ops));
	KUNIT_EXPECT_EQ(test, 0, mmu_interval_notifier_insert_locked
			(&s->ini, e->mm, 0, PG(1), &ini_ops));
	t_read(test, s);
	t_do(test, op_remove, s);
	KUNIT_EXPECT_EQ(test, 0, mmu_interval_notifier_insert_locked
			(&s->ini, e->mm, PG(1), PG(1), &ini_ops));
	t_invalidate(test, 0, PG(1));
	KUNIT_EXPECT_EQ(test, hits(s), 0);
	t_invalidate(test, PG(1), PG(2));
	KUNIT_EXPECT_EQ(test, hits(s), 1);
	t_do(test, op_remove, s);
	mmap_assert_write_locked(e->mm);
	mmap_write_unlock(e->mm);
}

static void interval_reinsert(struct kunit *test)
{
	struct t_ini *s = t_insert(test, 0, 0, PG(2));
	unsigned long seq = t_read(test, s);

	t_do(test, op_remove, s);
	t_reinsert(test, s, PG(4), PG(6));
	/* Whatever was read before has been forgotten by the device */
	KUNIT_EXPECT_TRUE(test, t_collided(s, seq));
	t_invalidate(test, 0, PG(4));
	KUNIT_EXPECT_EQ(test, hits(s), 0);
	t_invalidate(test, PG(5), PG(6));
	KUNIT_EXPECT_EQ(test, hits(s), 1);
	t_remove(test, s);
}

/* ==== Intervals: which ones are called ==== */

struct overlap_row {
	unsigned long start, last;	/* subscription */
	unsigned long from, to;		/* bracket, exclusive end */
	bool hit;
	const char *desc;
};

static const struct overlap_row overlap_rows[] = {
	{ PG(4), PG(8) - 1, PG(4), PG(8), true, "same" },
	{ PG(4), PG(8) - 1, PG(5), PG(6), true, "inside" },
	{ PG(4), PG(8) - 1, PG(1), PG(9), true, "around" },
	{ PG(4), PG(8) - 1, PG(3), PG(5), true, "across the start" },
	{ PG(4), PG(8) - 1, PG(7), PG(9), true, "across the end" },
	{ PG(4), PG(8) - 1, PG(3), PG(4), false, "adjacent below" },
	{ PG(4), PG(8) - 1, PG(8), PG(9), false, "adjacent above" },
	{ PG(4), PG(8) - 1, 0, PG(4) + 1, true, "up to the first byte" },
	{ PG(4), PG(8) - 1, PG(4) - 1, PG(4), false, "the byte below" },
	{ PG(4), PG(8) - 1, PG(4), PG(4) + 1, true, "the first byte" },
	{ PG(4), PG(8) - 1, PG(8) - 1, PG(8), true, "the last byte" },
	{ PG(4), PG(8) - 1, PG(8), PG(8) + 1, false, "the byte above" },
	{ PG(4), PG(8) - 1, 0, ULONG_MAX, true, "bracket of everything" },
	{ 0, ULONG_MAX - 1, PG(1), PG(2), true, "subscription to everything" },
	{ 0, ULONG_MAX - 1, 0, ULONG_MAX, true, "everything to everything" },
	{ 0, 0, 0, 1, true, "byte 0" },
	{ 0, 0, 1, ULONG_MAX, false, "all but byte 0" },
	{ PG(1), PG(1), 0, PG(1), false, "one byte, adjacent below" },
	{ PG(1), PG(1), PG(1), PG(2), true, "one byte" },
	{ ULONG_MAX - 1, ULONG_MAX - 1, 0, ULONG_MAX, true, "the last but one" },
};

KUNIT_ARRAY_PARAM_DESC(overlap, overlap_rows, desc);

static void interval_overlap(struct kunit *test)
{
	const struct overlap_row *row = test->param_value;
	struct t_ini *s = t_insert(test, 0, row->start, row->last + 1);
	unsigned long seq = t_read(test, s);

	t_invalidate(test, row->from, row->to);
	KUNIT_EXPECT_EQ(test, hits(s), row->hit);
	KUNIT_EXPECT_EQ(test, t_collided(s, seq), row->hit);
	t_remove(test, s);
}

/* Whom the tree finds first is one thing, who comes after it another */
static void interval_overlap_beside_others(struct kunit *test)
{
	const struct overlap_row *row = test->param_value;
	struct t_ini *across = t_insert(test, 0, 0, row->from + 1);
	struct t_ini *first = t_insert(test, 1, row->from, row->from + 1);
	struct t_ini *s = t_insert(test, 2, row->start, row->last + 1);

	t_invalidate(test, row->from, row->to);
	KUNIT_EXPECT_EQ(test, hits(across), 1);
	KUNIT_EXPECT_EQ(test, hits(first), 1);
	KUNIT_EXPECT_EQ(test, hits(s), row->hit);
	t_do(test, op_remove, across);
	t_invalidate(test, row->from, row->to);
	KUNIT_EXPECT_EQ(test, hits(first), 2);
	KUNIT_EXPECT_EQ(test, hits(s), 2 * row->hit);
	t_do(test, op_remove, first);
	t_remove(test, s);
}

/* Those who are not called do not wait either, however long it takes */
static void read_waits_for_overlap(struct kunit *test)
{
	const struct overlap_row *row = test->param_value;
	struct t_ini *s = t_insert(test, 0, row->start, row->last + 1);
	struct t_bracket *r = t_open(test, row->from, row->to);
	struct t_op *op = t_start(test, op_read_begin, s);

	if (row->hit)
		EXPECT_WAITS(test, op);
	else
		ASSERT_RETURNED(test, op);
	t_close(test, r);
	ASSERT_RETURNED(test, op);
	KUNIT_EXPECT_FALSE(test, t_collided(s, op->ret));
	t_remove(test, s);
}

/* Many with one start, so that a walk by key would lose its place */
static void interval_equal_starts(struct kunit *test)
{
	struct t_ini *s[100];
	unsigned int i, round;

	for (i = 0; i < ARRAY_SIZE(s); i++)
		s[i] = t_insert(test, i, PG(4), PG(5 + i % 7));
	for (round = 1; round <= 3; round++) {
		t_invalidate(test, PG(4), PG(5));
		for (i = 0; i < ARRAY_SIZE(s); i++)
			KUNIT_EXPECT_EQ(test, hits(s[i]), round);
	}
	for (i = 0; i < ARRAY_SIZE(s); i++)
		t_remove(test, s[i]);
}

/* ==== Intervals: collisions ==== */

static void collision_seen(struct kunit *test)
{
	struct t_ini *s = t_insert(test, 0, 0, PG(4));
	unsigned long seq, first = t_read(test, s);
	struct t_bracket *r = t_open(test, PG(1), PG(2));

	/* Told as soon as the callback has run, before the bracket ends */
	KUNIT_EXPECT_TRUE(test, mmu_interval_read_retry(&s->ini, first));
	KUNIT_EXPECT_TRUE(test, mmu_interval_check_retry(&s->ini, first));
	t_close(test, r);
	KUNIT_EXPECT_TRUE(test, mmu_interval_read_retry(&s->ini, first));
	seq = t_read(test, s);
	KUNIT_EXPECT_NE(test, seq, first);
	KUNIT_EXPECT_EQ(test, seq, s->cur_seq);
	KUNIT_EXPECT_FALSE(test, mmu_interval_read_retry(&s->ini, seq));
	KUNIT_EXPECT_FALSE(test, mmu_interval_check_retry(&s->ini, seq));
	t_remove(test, s);
}

/* A driver may know that an event does not concern it */
static void collision_not_set(struct kunit *test)
{
	struct t_ini *s = t_insert(test, 0, 0, PG(4));
	unsigned long seq = t_read(test, s);
	struct t_bracket *r;
	struct t_op *op;

	s->quiet = true;
	r = t_open(test, 0, PG(1));
	KUNIT_EXPECT_EQ(test, hits(s), 1);
	KUNIT_EXPECT_FALSE(test, t_collided(s, seq));
	/* The page tables change all the same */
	op = t_start(test, op_read_begin, s);
	EXPECT_WAITS(test, op);
	t_close(test, r);
	ASSERT_RETURNED(test, op);
	KUNIT_EXPECT_EQ(test, op->ret, seq);
	t_remove(test, s);
}

/* xe and i915 keep a value, and take it for "nothing happened" ever after */
static void sequence_stable(struct kunit *test)
{
	struct t_ini *s = t_insert(test, 0, PG(4), PG(8));
	unsigned long seq = t_read(test, s);
	struct t_ini *other = t_insert(test, 1, 0, PG(4));
	struct t_bracket *r;

	t_invalidate(test, 0, PG(4));
	KUNIT_EXPECT_EQ(test, t_read(test, s), seq);
	r = t_open(test, PG(8), ULONG_MAX);
	KUNIT_EXPECT_EQ(test, t_read(test, s), seq);
	t_close(test, r);
	t_remove(test, other);
	KUNIT_EXPECT_EQ(test, t_read(test, s), seq);
	KUNIT_EXPECT_FALSE(test, t_collided(s, seq));
	/* xe's fault injection */
	KUNIT_EXPECT_TRUE(test, t_collided(s, seq - 2));
	KUNIT_EXPECT_TRUE(test, t_collided(s, 0));
	KUNIT_EXPECT_TRUE(test, t_collided(s, LONG_MAX));
	KUNIT_EXPECT_TRUE(test, t_collided(s, ULONG_MAX));
	t_remove(test, s);
}

/* Unique in the mm: no value comes twice, by a hit or by an insertion */
static void sequence_unique(struct kunit *test)
{
	unsigned long *seq = t_alloc(test, 64 * sizeof(*seq));
	struct t_ini *s = t_ini(test, 0);
	struct t_ini *other = t_insert(test, 1, 0, PG(4));
	unsigned int i, j;

	for (i = 0; i < 64; i++) {
		if (i % 4 == 0)
			t_reinsert(test, s, 0, PG(4));
		else
			t_invalidate(test, 0, PG(1));
		seq[i] = t_read(test, i % 8 == 1 ? other : s);
		KUNIT_EXPECT_GT(test, seq[i], 2);
		KUNIT_EXPECT_LT(test, seq[i], LONG_MAX);
		for (j = 0; j < i; j++)
			KUNIT_EXPECT_NE(test, seq[i], seq[j]);
		if (i % 4 == 3)
			t_do(test, op_remove, s);
	}
	t_remove(test, other);
}

/* ==== Intervals: what read_begin waits for ==== */

/* Sampled before the callback, waited for, and nothing has happened since */
static void read_during_callback(struct kunit *test)
{
	struct t_ini *s = t_insert(test, 0, 0, PG(4));
	struct t_bracket *r = t_bracket(test, 0, PG(1));
	struct t_op *bracket, *read;

	t_gate_arm(&s->gate);
	t_gate_arm(&r->gate);
	bracket = t_start(test, op_bracket, r);
	ASSERT_ENTERED(test, &s->gate);
	read = t_start(test, op_read_begin, s);
	EXPECT_WAITS(test, read);
	t_gate_open(&s->gate);
	ASSERT_ENTERED(test, &r->gate);
	EXPECT_WAITS(test, read);
	t_gate_open(&r->gate);
	ASSERT_RETURNED(test, bracket);
	ASSERT_RETURNED(test, read);
	/* The change is complete: to read again would be for nothing */
	KUNIT_EXPECT_FALSE(test, t_collided(s, read->ret));
	t_remove(test, s);
}

/* Every bracket of the call, none that came later */
static void read_waits_for_all_older(struct kunit *test)
{
	struct t_ini *s = t_insert(test, 0, 0, PG(8));
	struct t_bracket *r[4], *later;
	struct t_op *op;
	int i;

	for (i = 0; i < 4; i++)
		r[i] = t_open(test, PG(i), PG(i + 1));
	op = t_start(test, op_read_begin, s);
	EXPECT_WAITS(test, op);
	t_close(test, r[2]);
	later = t_open(test, PG(1), PG(3));
	t_close(test, r[0]);
	t_invalidate(test, 0, PG(8));
	t_close(test, r[3]);
	EXPECT_WAITS(test, op);
	t_close(test, r[1]);
	ASSERT_RETURNED(test, op);
	/*
	 * The later one has not cleared its entries yet: what is read from here
	 * on must count as a collision, or the device keeps it for ever.
	 */
	KUNIT_EXPECT_TRUE(test, t_collided(s, op->ret));
	t_close(test, later);
	KUNIT_EXPECT_TRUE(test, t_collided(s, op->ret));
	KUNIT_EXPECT_FALSE(test, t_collided(s, t_read(test, s)));
	t_remove(test, s);
}

/* Brackets that end elsewhere, or end later, must not be taken for one's own */
static void read_not_woken_by_others(struct kunit *test)
{
	struct t_ini *s = t_insert(test, 0, PG(4), PG(8));
	struct t_bracket *elsewhere = t_open(test, 0, PG(4));
	struct t_bracket *mine = t_open(test, PG(4), PG(5));
	struct t_op *op = t_start(test, op_read_begin, s);

	EXPECT_WAITS(test, op);
	t_close(test, elsewhere);
	t_invalidate(test, 0, PG(4));
	t_invalidate(test, PG(4), PG(8));
	t_invalidate(test, 0, ULONG_MAX);
	EXPECT_WAITS(test, op);
	t_close(test, mine);
	ASSERT_RETURNED(test, op);
	KUNIT_EXPECT_FALSE(test, t_collided(s, op->ret));
	t_remove(test, s);
}

static void read_wakes_everybody(struct kunit *test)
{
	struct t_ini *s[2];
	struct t_bracket *r;
	struct t_op *op[6];
	int i;

	s[0] = t_insert(test, 0, 0, PG(4));
	s[1] = t_insert(test, 1, PG(2), PG(6));
	r = t_open(test, PG(3), PG(4));
	for (i = 0; i < ARRAY_SIZE(op); i++)
		op[i] = t_start(test, op_read_begin, s[i % 2]);
	for (i = 0; i < ARRAY_SIZE(op); i++)
		EXPECT_WAITS(test, op[i]);
	t_close(test, r);
	for (i = 0; i < ARRAY_SIZE(op); i++)
		ASSERT_RETURNED(test, op[i]);
	t_remove(test, s[0]);
	t_remove(test, s[1]);
}

struct t_storm {
	struct t_bracket *r[2];
	unsigned long rounds;
	bool stop;
	struct completion going;
};

/* At no moment is there no bracket in flight */
static void op_storm(struct t_op *op)
{
	struct t_storm *storm = op->arg;
	unsigned int i = 0;

	t_open_range(storm->r[0]);
	complete_all(&storm->going);
	while (!READ_ONCE(storm->stop)) {
		t_open_range(storm->r[!i]);
		mmu_notifier_invalidate_range_end(&storm->r[i]->range);
		i = !i;
		WRITE_ONCE(storm->rounds, storm->rounds + 1);
		cond_resched();
	}
	mmu_notifier_invalidate_range_end(&storm->r[i]->range);
}

struct storm_row {
	unsigned long from, to;
	unsigned int storms;
	const char *desc;
};

#define STORMS	3

static const struct storm_row storm_rows[] = {
	{ PG(8), PG(9), 1, "elsewhere" },
	{ PG(8), PG(9), STORMS, "elsewhere, on all CPUs" },
	{ PG(1), PG(2), 1, "over the subscription itself" },
	{ PG(1), PG(2), STORMS, "over the subscription itself, on all CPUs" },
};

KUNIT_ARRAY_PARAM_DESC(storm, storm_rows, desc);

struct t_weather {
	struct t_storm storm[STORMS];
	struct t_op *op[STORMS];
	struct t_ini *witness;
	unsigned int n;
};

static unsigned long t_rounds(struct t_weather *w)
{
	unsigned long rounds = 0;
	unsigned int i;

	for (i = 0; i < w->n; i++)
		rounds += READ_ONCE(w->storm[i].rounds);
	return rounds;
}

static struct t_weather *t_storms_begin(struct kunit *test,
					const struct storm_row *row)
{
	struct t_weather *w = t_alloc(test, sizeof(*w));
	struct t_storm *storm;

	w->witness = t_insert(test, 1, row->from, row->to);
	for (w->n = 0; w->n < row->storms; w->n++) {
		storm = &w->storm[w->n];
		storm->r[0] = t_bracket(test, row->from, row->to);
		storm->r[1] = t_bracket(test, row->from, row->to);
		init_completion(&storm->going);
		w->op[w->n] = t_start(test, op_storm, storm);
		KUNIT_ASSERT_TRUE(test, t_wait(&storm->going));
	}
	return w;
}

/* It went on to the last, whatever the case has done meanwhile */
static void t_storms_end(struct kunit *test, struct t_weather *w)
{
	unsigned long before = t_rounds(w);
	unsigned int i;

	for (i = 0; i < T_SLICES * T_SLICE && t_rounds(w) == before; i++)
		schedule_timeout_uninterruptible(1);
	KUNIT_EXPECT_GT(test, t_rounds(w), before);
	for (i = 0; i < w->n; i++)
		WRITE_ONCE(w->storm[i].stop, true);
	for (i = 0; i < w->n; i++)
		ASSERT_RETURNED(test, w->op[i]);
	KUNIT_EXPECT_GE(test, hits(w->witness), t_rounds(w));
	t_remove(test, w->witness);
}

/*
 * The storm ends after everything else has returned: had any of it waited for a
 * gap, it would wait still.
 */
static void storm_insert_and_read(struct kunit *test)
{
	struct t_weather *w = t_storms_begin(test, test->param_value);
	struct t_ini *s = t_insert(test, 0, 0, PG(4));

	t_read(test, s);
	t_storms_end(test, w);
	t_remove(test, s);
}

/*
 * The first insertion takes the locks under which brackets are opened, so that it
 * comes between those of a storm that holds them as core mm does.
 */
static void op_locked_storm(struct t_op *op)
{
	struct t_storm *storm = op->arg;
	struct t_bracket *r = storm->r[0];

	while (!READ_ONCE(storm->stop)) {
		mmap_read_lock(r->range.mm);
		t_open_range(r);
		complete_all(&storm->going);
		usleep_range(500, 1000);
		mmu_notifier_invalidate_range_end(&r->range);
		mmap_read_unlock(r->range.mm);
	}
}

static void storm_first_insert(struct kunit *test)
{
	struct t_storm *storm = t_alloc(test, STORMS * sizeof(*storm));
	struct t_op *op[STORMS];
	struct t_ini *s;
	unsigned int i;

	for (i = 0; i < STORMS; i++) {
		storm[i].r[0] = t_bracket(test, PG(8), PG(9));
		init_completion(&storm[i].going);
		op[i] = t_start(test, op_locked_storm, &storm[i]);
		KUNIT_ASSERT_TRUE(test, t_wait(&storm[i].going));
	}
	s = t_insert(test, 0, 0, PG(4));
	t_read(test, s);
	for (i = 0; i < STORMS; i++)
		WRITE_ONCE(storm[i].stop, true);
	for (i = 0; i < STORMS; i++)
		ASSERT_RETURNED(test, op[i]);
	t_remove(test, s);
}

static void storm_read(struct kunit *test)
{
	struct t_ini *s = t_insert(test, 0, 0, PG(4));
	struct t_weather *w = t_storms_begin(test, test->param_value);
	unsigned int i;

	for (i = 0; i < 10; i++)
		t_read(test, s);
	t_storms_end(test, w);
	t_remove(test, s);
}

static void storm_remove(struct kunit *test)
{
	struct t_ini *s = t_insert(test, 0, 0, PG(4));
	struct t_weather *w = t_storms_begin(test, test->param_value);

	t_remove(test, s);
	t_storms_end(test, w);
}

/* Neither one's own life nor that of others in the same interval takes longer */
static void storm_starves_nobody(struct kunit *test)
{
	struct t_weather *w = t_storms_begin(test, test->param_value);
	struct t_ini *s;
	int i;

	for (i = 0; i < 30; i++) {
		s = t_insert(test, 0, 0, PG(4));
		t_read(test, s);
		t_remove(test, s);
	}
	t_storms_end(test, w);
}

/* ==== Intervals: two passes ==== */

static void two_passes_need_both(struct kunit *test)
{
	static const struct mmu_interval_notifier_ops no_finish = {
		.invalidate = t_ini_invalidate,
		.invalidate_start = t_ini_start,
	};
	static const struct mmu_interval_notifier_ops only_finish = {
		.invalidate_finish = t_ini_finish,
	};
	struct t_ini *s = t_ini(test, 0);
	struct t_env *e = test->priv;

	KUNIT_EXPECT_EQ(test, mmu_interval_notifier_insert(&s->ini, e->mm, 0,
							   PG(1), &no_finish),
			-EINVAL);
	KUNIT_EXPECT_EQ(test, mmu_interval_notifier_insert(&s->ini, e->mm, 0,
							   PG(1), &only_finish),
			-EINVAL);
	KUNIT_EXPECT_NULL(test, s->ini.mm);
	KUNIT_EXPECT_EQ(test, t_pins(test), 1);
	s->two = true;
	t_reinsert(test, s, 0, PG(1));
	t_remove(test, s);
}

/* All starts, then all finishes in the same order, then the lists */
static void two_passes_order(struct kunit *test)
{
	struct t_list *l = t_register(test, 9, &full_ops);
	struct t_ini *s[5];
	unsigned int i;

	for (i = 0; i < 5; i++)
		s[i] = i == 2 ? t_insert(test, i, PG(i), PG(8)) :
				t_insert_two(test, i, PG(i), PG(8));
	s[3]->whole = true;
	t_invalidate(test, PG(1), PG(8));
	EXPECT_LOG(test, "i0 i1 i2 i3 i4 f0 f1 f4 S9 E9 ");
	t_invalidate(test, PG(2), PG(3));
	EXPECT_LOG(test, "i0 i1 i2 f0 f1 S9 E9 ");
	for (i = 0; i < 5; i++)
		t_remove(test, s[i]);
	t_unregister(test, l);
}

/* The collision is seen and the bracket is in flight until its end, as ever */
static void two_passes_collide(struct kunit *test)
{
	struct t_ini *s = t_insert_two(test, 0, 0, PG(4));
	unsigned long seq = t_read(test, s);
	struct t_op *bracket, *read;

	t_gate_arm(&s->finish_gate);
	bracket = t_start(test, op_bracket, t_bracket(test, 0, PG(1)));
	ASSERT_ENTERED(test, &s->finish_gate);
	KUNIT_EXPECT_TRUE(test, t_collided(s, seq));
	read = t_start(test, op_read_begin, s);
	EXPECT_WAITS(test, read);
	t_gate_open(&s->finish_gate);
	ASSERT_RETURNED(test, bracket);
	ASSERT_RETURNED(test, read);
	KUNIT_EXPECT_FALSE(test, t_collided(s, read->ret));
	t_remove(test, s);
}

/* Two brackets are inside the same subscription: each has its own finish */
static void two_passes_at_once(struct kunit *test)
{
	struct t_ini *s = t_insert_two(test, 0, 0, PG(4));
	struct t_op *first, *remove;

	t_gate_arm(&s->finish_gate);
	first = t_start(test, op_bracket, t_bracket(test, 0, PG(1)));
	ASSERT_ENTERED(test, &s->finish_gate);
	t_invalidate(test, 0, PG(1));
	KUNIT_EXPECT_EQ(test, hits(s), 2);
	KUNIT_EXPECT_EQ(test, finished(s), 1);
	remove = t_start(test, op_remove, s);
	EXPECT_WAITS(test, remove);
	t_gate_open(&s->finish_gate);
	ASSERT_RETURNED(test, first);
	ASSERT_RETURNED(test, remove);
	KUNIT_EXPECT_EQ(test, finished(s), 2);
}

/* What has begun is finished, in order; what has not is not called at all */
static void two_passes_refused(struct kunit *test)
{
	struct t_ini *s[4];
	struct t_op *read;
	unsigned long seq;
	unsigned int i;

	t_need_spinning(test);
	for (i = 0; i < 4; i++)
		s[i] = t_insert_two(test, i, PG(i), PG(8));
	s[2]->refuse = true;
	seq = t_read(test, s[0]);
	KUNIT_EXPECT_EQ(test, t_nonblock(test, 0, PG(8)), -EAGAIN);
	EXPECT_LOG(test, "i0 i1 i2 f0 f1 ");
	KUNIT_EXPECT_TRUE(test, t_collided(s[0], seq));
	/* No longer in flight */
	read = t_start(test, op_read_begin, s[0]);
	ASSERT_RETURNED(test, read);
	s[2]->refuse = false;
	KUNIT_EXPECT_EQ(test, t_nonblock(test, 0, PG(8)), 0);
	EXPECT_LOG(test, "i0 i1 i2 i3 f0 f1 f2 f3 ");
	for (i = 0; i < 4; i++)
		t_remove(test, s[i]);
}

/* The same where the one that refuses is the only one */
static void two_passes_refused_alone(struct kunit *test)
{
	struct t_ini *s = t_insert_two(test, 0, 0, PG(8));
	unsigned long seq;

	t_need_spinning(test);
	s->refuse = true;
	seq = t_read(test, s);
	KUNIT_EXPECT_EQ(test, t_nonblock(test, 0, PG(8)), -EAGAIN);
	EXPECT_LOG(test, "i0 ");
	KUNIT_EXPECT_EQ(test, finished(s), 0);
	/* It has stored nothing, and neither a bracket nor a call is left behind */
	KUNIT_EXPECT_EQ(test, t_read(test, s), seq);
	KUNIT_EXPECT_FALSE(test, t_collided(s, seq));
	t_remove(test, s);
}

/* A list subscription refuses: by then the intervals are through */
static void two_passes_refused_by_list(struct kunit *test)
{
	struct t_ini *s = t_insert_two(test, 0, 0, PG(8));
	struct t_list *l = t_register(test, 9, &start_only_ops);

	l->refuse = -EAGAIN;
	KUNIT_EXPECT_EQ(test, t_nonblock(test, 0, PG(8)), -EAGAIN);
	EXPECT_LOG(test, "i0 f0 S9 ");
	t_read(test, s);
	t_remove(test, s);
	t_unregister(test, l);
}

static void two_passes_at_exit(struct kunit *test)
{
	struct t_ini *one = t_insert_two(test, 0, 0, PG(8));
	struct t_ini *two = t_insert_two(test, 1, PG(1), PG(8));

	t_exit_mm(test);
	EXPECT_LOG(test, "i0 i1 f0 f1 ");
	t_remove(test, one);
	t_remove(test, two);
}

/* Started, the others are still being started: not over before its finish */
static void remove_waits_for_finish(struct kunit *test)
{
	struct t_ini *first = t_insert_two(test, 0, 0, PG(8));
	struct t_ini *last = t_insert_two(test, 1, PG(1), PG(8));
	struct t_op *bracket, *remove;

	t_gate_arm(&last->gate);
	t_gate_arm(&first->finish_gate);
	bracket = t_start(test, op_bracket, t_bracket(test, 0, PG(8)));
	ASSERT_ENTERED(test, &last->gate);
	remove = t_start(test, op_remove, first);
	EXPECT_WAITS(test, remove);
	t_gate_open(&last->gate);
	ASSERT_ENTERED(test, &first->finish_gate);
	EXPECT_WAITS(test, remove);
	t_gate_open(&first->finish_gate);
	ASSERT_RETURNED(test, remove);
	ASSERT_RETURNED(test, bracket);
	KUNIT_EXPECT_EQ(test, finished(first), 1);
	t_remove(test, last);
}

/* The same where nobody else is hit, and nothing is put off */
static void remove_waits_for_only_finish(struct kunit *test)
{
	struct t_ini *s = t_insert_two(test, 0, 0, PG(8));
	struct t_op *bracket, *remove;

	t_gate_arm(&s->finish_gate);
	bracket = t_start(test, op_bracket, t_bracket(test, 0, PG(8)));
	ASSERT_ENTERED(test, &s->finish_gate);
	remove = t_start(test, op_remove, s);
	EXPECT_WAITS(test, remove);
	t_gate_open(&s->finish_gate);
	ASSERT_RETURNED(test, remove);
	ASSERT_RETURNED(test, bracket);
	KUNIT_EXPECT_EQ(test, finished(s), 1);
	EXPECT_LOG(test, "i0 f0 ");
}

/* Its own finish is over: it does not wait for those of others */
static void remove_after_finish(struct kunit *test)
{
	struct t_ini *first = t_insert_two(test, 0, 0, PG(8));
	struct t_ini *last = t_insert_two(test, 1, PG(1), PG(8));
	struct t_op *bracket;

	t_gate_arm(&last->finish_gate);
	bracket = t_start(test, op_bracket, t_bracket(test, 0, PG(8)));
	ASSERT_ENTERED(test, &last->finish_gate);
	KUNIT_EXPECT_EQ(test, finished(first), 1);
	t_remove(test, first);
	t_gate_open(&last->finish_gate);
	ASSERT_RETURNED(test, bracket);
	t_remove(test, last);
}

/* ---- What it is for ---- */

#define FLUSH_DEVS	8
/* How long a device takes: beside it our own work, and a busy host, must not count */
#define FLUSH_US	10000
#define FLUSH_TRIES	8

/* A device that takes a while for a flush, and does it by itself */
struct t_flusher {
	struct mmu_interval_notifier ini;
	struct mmu_interval_notifier_finish finish;
	ktime_t due;
};

static void t_flush_begin(struct t_flusher *f)
{
	f->due = ktime_add_us(ktime_get(), FLUSH_US);
}

static void t_flush_wait(struct t_flusher *f)
{
	while (ktime_before(ktime_get(), f->due))
		usleep_range(FLUSH_US / 20, FLUSH_US / 10);
}

static bool flush_invalidate(struct mmu_interval_notifier *ini,
			     const struct mmu_notifier_range *range,
			     unsigned long cur_seq)
{
	struct t_flusher *f = container_of(ini, struct t_flusher, ini);

	mmu_interval_set_seq(ini, cur_seq);
	t_flush_begin(f);
	t_flush_wait(f);
	return true;
}

static bool flush_start(struct mmu_interval_notifier *ini,
			const struct mmu_notifier_range *range,
			unsigned long cur_seq,
			struct mmu_interval_notifier_finish **finish)
{
	struct t_flusher *f = container_of(ini, struct t_flusher, ini);

	mmu_interval_set_seq(ini, cur_seq);
	t_flush_begin(f);
	*finish = &f->finish;
	return true;
}

static void flush_finish(struct mmu_interval_notifier_finish *finish)
{
	t_flush_wait(container_of(finish, struct t_flusher, finish));
}

static const struct mmu_interval_notifier_ops flush_one_pass = {
	.invalidate = flush_invalidate,
};

static const struct mmu_interval_notifier_ops flush_two_passes = {
	.invalidate_start = flush_start,
	.invalidate_finish = flush_finish,
};

/* Microseconds of a bracket over all devices, the best of some */
static s64 t_flush_time(struct kunit *test,
			const struct mmu_interval_notifier_ops *ops)
{
	struct t_flusher *f = t_alloc(test, FLUSH_DEVS * sizeof(*f));
	struct t_env *e = test->priv;
	s64 best = S64_MAX;
	ktime_t began;
	unsigned int i;

	for (i = 0; i < FLUSH_DEVS; i++)
		KUNIT_ASSERT_EQ(test, mmu_interval_notifier_insert(&f[i].ini, e->mm,
								   0, PG(1), ops),
				0);
	for (i = 0; i < FLUSH_TRIES; i++) {
		began = ktime_get();
		t_invalidate(test, 0, PG(1));
		best = min(best, ktime_us_delta(ktime_get(), began));
	}
	for (i = 0; i < FLUSH_DEVS; i++)
		mmu_interval_notifier_remove(&f[i].ini);
	return best;
}

/* Eight devices that flush, each for some time: together, not one after the other */
static void two_passes_overlap(struct kunit *test)
{
	s64 one = t_flush_time(test, &flush_one_pass);
	s64 two = t_flush_time(test, &flush_two_passes);

	kunit_info(test, "%d devices of %d us: %lld us in one pass, %lld us in two",
		   FLUSH_DEVS, FLUSH_US, one, two);
	KUNIT_EXPECT_GE(test, one, FLUSH_DEVS * FLUSH_US);
	KUNIT_EXPECT_GE(test, two, FLUSH_US);
	KUNIT_EXPECT_LT(test, 3 * two, one);
}

/* ==== Intervals: insertion and removal while brackets are in flight ==== */

/* Not called for what has begun, but its read_begin waits for it */
static void insert_in_bracket(struct kunit *test)
{
	struct t_ini *first = t_insert(test, 0, PG(4), PG(8)), *s, *apart;
	struct t_bracket *r = t_open(test, 0, PG(8));
	struct t_op *op;

	s = t_insert(test, 1, PG(5), PG(6));
	apart = t_insert(test, 2, PG(8), PG(9));
	t_read(test, apart);
	op = t_start(test, op_read_begin, s);
	EXPECT_WAITS(test, op);
	t_close(test, r);
	ASSERT_RETURNED(test, op);
	KUNIT_EXPECT_FALSE(test, t_collided(s, op->ret));
	EXPECT_LOG(test, "i0 ");
	t_remove(test, first);
	t_remove(test, s);
	t_remove(test, apart);
}

/* In front of a walk that is under way: it would never come to its end */
static void insert_in_walk(struct kunit *test)
{
	struct t_ini *first = t_insert(test, 0, PG(4), PG(8));
	struct t_bracket *r = t_bracket(test, 0, PG(16));
	struct t_op *bracket, *read;
	struct t_ini *s[20], *old[20];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(old); i++)
		old[i] = t_insert(test, 1, PG(10 + i % 5), PG(16));
	t_gate_arm(&first->gate);
	t_gate_arm(&r->gate);
	bracket = t_start(test, op_bracket, r);
	ASSERT_ENTERED(test, &first->gate);
	for (i = 0; i < ARRAY_SIZE(s); i++)
		s[i] = t_insert(test, 2, PG(3 + i % 13), PG(16));
	read = t_start(test, op_read_begin, s[0]);
	EXPECT_WAITS(test, read);
	t_gate_open(&first->gate);
	ASSERT_ENTERED(test, &r->gate);
	EXPECT_WAITS(test, read);
	t_gate_open(&r->gate);
	ASSERT_RETURNED(test, bracket);
	ASSERT_RETURNED(test, read);
	KUNIT_EXPECT_FALSE(test, t_collided(s[0], read->ret));
	for (i = 0; i < ARRAY_SIZE(s); i++) {
		KUNIT_EXPECT_EQ(test, hits(s[i]), 0);
		KUNIT_EXPECT_EQ(test, hits(old[i]), 1);
		t_remove(test, s[i]);
		t_remove(test, old[i]);
	}
	t_remove(test, first);
}

/* Removed and inserted again, it is a new one to a walk that is under way */
static void reinsert_in_walk(struct kunit *test)
{
	struct t_ini *first = t_insert(test, 0, 0, PG(8));
	struct t_ini *s[40];
	struct t_op *bracket;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(s); i++)
		s[i] = t_insert(test, i, PG(1), PG(8));
	t_gate_arm(&first->gate);
	bracket = t_start(test, op_bracket, t_bracket(test, 0, PG(8)));
	ASSERT_ENTERED(test, &first->gate);
	for (i = 0; i < ARRAY_SIZE(s); i++) {
		t_do(test, op_remove, s[i]);
		t_reinsert(test, s[i], PG(1 + i % 4), PG(8));
	}
	t_gate_open(&first->gate);
	ASSERT_RETURNED(test, bracket);
	for (i = 0; i < ARRAY_SIZE(s); i++) {
		KUNIT_EXPECT_EQ(test, hits(s[i]), 0);
		t_remove(test, s[i]);
	}
	t_remove(test, first);
}

/* Nobody's end is waited for, once the callback is over */
static void remove_in_bracket(struct kunit *test)
{
	struct t_ini *s = t_insert(test, 0, 0, PG(4));
	struct t_ini *stays = t_insert(test, 1, PG(2), PG(8));
	struct t_bracket *r = t_open(test, 0, PG(4));
	struct t_op *op;

	t_remove(test, s);
	KUNIT_EXPECT_EQ(test, t_pins(test), 2);
	op = t_start(test, op_read_begin, stays);
	EXPECT_WAITS(test, op);
	t_close(test, r);
	ASSERT_RETURNED(test, op);
	t_remove(test, stays);
}

static void remove_waits_for_callback(struct kunit *test)
{
	struct t_ini *s = t_insert(test, 0, 0, PG(4));
	struct t_bracket *r = t_bracket(test, 0, PG(1));
	struct t_op *bracket, *remove;

	t_gate_arm(&s->gate);
	t_gate_arm(&r->gate);
	bracket = t_start(test, op_bracket, r);
	ASSERT_ENTERED(test, &s->gate);
	remove = t_start(test, op_remove, s);
	EXPECT_WAITS(test, remove);
	KUNIT_EXPECT_EQ(test, t_pins(test), 2);
	t_gate_open(&s->gate);
	ASSERT_RETURNED(test, remove);
	memset(&s->ini, 0x6b, sizeof(s->ini));
	ASSERT_ENTERED(test, &r->gate);
	t_gate_open(&r->gate);
	ASSERT_RETURNED(test, bracket);
	KUNIT_EXPECT_EQ(test, hits(s), 1);
}

/*
 * Two brackets inside the callback of one, which end in either order. In the last
 * rounds the second of them has another one to call.
 */
static void remove_waits_for_both(struct kunit *test)
{
	struct t_op *one, *two, *remove;
	struct t_gate *first, *second;
	struct t_ini *s, *other = NULL;
	int i;

	for (i = 0; i < 4; i++) {
		if (i == 2)
			other = t_insert(test, 1, PG(1), PG(2));
		s = t_insert(test, 0, 0, PG(4));
		t_gate_arm(&s->gate);
		one = t_start(test, op_bracket, t_bracket(test, 0, PG(1)));
		ASSERT_ENTERED(test, &s->gate);
		t_gate_arm(&s->late_gate);
		two = t_start(test, op_bracket, t_bracket(test, 0, PG(2)));
		ASSERT_ENTERED(test, &s->late_gate);
		remove = t_start(test, op_remove, s);
		EXPECT_WAITS(test, remove);
		first = i & 1 ? &s->gate : &s->late_gate;
		second = i & 1 ? &s->late_gate : &s->gate;
		t_gate_open(first);
		EXPECT_WAITS(test, remove);
		t_gate_open(second);
		ASSERT_RETURNED(test, remove);
		memset(&s->ini, 0x6b, sizeof(s->ini));
		ASSERT_RETURNED(test, one);
		ASSERT_RETURNED(test, two);
		KUNIT_EXPECT_EQ(test, hits(s), 2);
	}
	KUNIT_EXPECT_EQ(test, hits(other), 2);
	t_remove(test, other);
}

#define T_BATCH	40

struct batch_row {
	unsigned int stop;	/* the walk stands in the callback of this one */
	unsigned int keep;	/* every so many-th stays */
	const char *desc;
};

static const struct batch_row batch_rows[] = {
	{ 0, 3, "at the first" },
	{ 0, 100, "at the first, all others go" },
	{ 7, 2, "in a batch" },
	{ 15, 5, "at the last of a batch" },
	{ 16, 3, "at the first of a batch" },
	{ 30, 4, "late" },
	{ T_BATCH - 1, 3, "at the last" },
};

KUNIT_ARRAY_PARAM_DESC(batch, batch_rows, desc);

/* Who has not been called leaves at once, and is not called, wherever the walk is */
static void remove_in_walk(struct kunit *test)
{
	const struct batch_row *row = test->param_value;
	struct t_ini *s[T_BATCH];
	bool called[T_BATCH];
	struct t_op *bracket, *remove;
	unsigned int i;

	for (i = 0; i < T_BATCH; i++)
		s[i] = t_insert(test, i, PG(i / 2), PG(64));
	t_gate_arm(&s[row->stop]->gate);
	bracket = t_start(test, op_bracket, t_bracket(test, 0, PG(64)));
	ASSERT_ENTERED(test, &s[row->stop]->gate);

	for (i = 0; i < T_BATCH; i++) {
		called[i] = hits(s[i]);
		if (i != row->stop && i % row->keep)
			t_remove(test, s[i]);
	}
	remove = t_start(test, op_remove, s[row->stop]);
	EXPECT_WAITS(test, remove);
	t_gate_open(&s[row->stop]->gate);
	ASSERT_RETURNED(test, bracket);
	ASSERT_RETURNED(test, remove);

	for (i = 0; i < T_BATCH; i++) {
		if (i == row->stop || i % row->keep) {
			KUNIT_EXPECT_EQ(test, hits(s[i]), called[i]);
			continue;
		}
		KUNIT_EXPECT_EQ(test, hits(s[i]), 1);
		t_remove(test, s[i]);
	}
}

/* Two walks have noted the same ones for later; a remover finds both */
static void remove_in_two_walks(struct kunit *test)
{
	struct t_ini *low = t_insert(test, 0, 0, PG(1));
	struct t_ini *mid = t_insert(test, 1, PG(1), PG(2));
	struct t_ini *s[T_BATCH];
	struct t_op *one, *two;
	unsigned int i;

	for (i = 0; i < T_BATCH; i++)
		s[i] = t_insert(test, i, PG(2), PG(8));
	t_gate_arm(&low->gate);
	one = t_start(test, op_bracket, t_bracket(test, 0, PG(8)));
	ASSERT_ENTERED(test, &low->gate);
	t_gate_arm(&mid->gate);
	two = t_start(test, op_bracket, t_bracket(test, PG(1), PG(8)));
	ASSERT_ENTERED(test, &mid->gate);
	for (i = 0; i < T_BATCH; i++)
		t_remove(test, s[i]);
	t_gate_open(&low->gate);
	t_gate_open(&mid->gate);
	ASSERT_RETURNED(test, one);
	ASSERT_RETURNED(test, two);
	for (i = 0; i < T_BATCH; i++)
		KUNIT_EXPECT_EQ(test, hits(s[i]), 0);
	KUNIT_EXPECT_EQ(test, hits(mid), 2);
	t_remove(test, low);
	t_remove(test, mid);
}

/* Callbacks run and waits happen under the map that reclaim and dma-resv know */
static void lockdep_is_told(struct kunit *test)
{
	struct t_list *l;
	struct t_ini *s;

	if (!IS_ENABLED(CONFIG_LOCKDEP))
		kunit_skip(test, "no lockdep");
	l = t_register(test, 0, &full_ops);
	s = t_insert(test, 0, 0, PG(1));
	mmu_notifier_invalidate_range_start(&t_bracket(test, 0, PG(1))->range);
	KUNIT_EXPECT_TRUE(test, l->map_held);
	KUNIT_EXPECT_TRUE(test, s->map_held);
	KUNIT_EXPECT_FALSE(test, t_map_held());
	l->map_held = false;
	mmu_notifier_invalidate_range_end((void *)l->range);
	KUNIT_EXPECT_TRUE(test, l->map_held);
	KUNIT_EXPECT_FALSE(test, t_map_held());
	s->map_held = false;
	KUNIT_EXPECT_EQ(test, t_nonblock(test, 0, PG(1)), 0);
	KUNIT_EXPECT_TRUE(test, s->map_held);
	t_unregister(test, l);
	t_exit_mm(test);
	KUNIT_EXPECT_TRUE(test, s->map_held);
	t_remove(test, s);
}

/* ==== A random history against a naive model ==== */

#define MODEL_SUBS	24
#define MODEL_OPEN	5
#define MODEL_PAGES	32
#define MODEL_STEPS	500

struct t_model {
	struct kunit *test;
	struct rnd_state rnd;
	struct {
		struct t_ini *s;
		bool in;
		bool read;		/* seq is valid */
		bool collided;		/* since then */
		int hits;
		unsigned long seq;
	} sub[MODEL_SUBS];
	struct {
		struct t_bracket *r;
		bool open;
	} bracket[MODEL_OPEN];
};

static unsigned int t_random(struct rnd_state *rnd, unsigned int below)
{
	return prandom_u32_state(rnd) % below;
}

/* Byte borders, and often page borders */
static void model_interval(struct t_model *m, unsigned long *start,
			   unsigned long *end)
{
	*start = PG(t_random(&m->rnd, MODEL_PAGES));
	*end = *start + PG(1 + t_random(&m->rnd, 6));
	if (!t_random(&m->rnd, 3))
		*start += t_random(&m->rnd, PAGE_SIZE);
	if (!t_random(&m->rnd, 3))
		*end -= t_random(&m->rnd, *end - *start);
}

static bool model_overlap(struct t_model *m, unsigned int i, unsigned int j)
{
	struct mmu_notifier_range *range = &m->bracket[j].r->range;
	struct t_ini *s = m->sub[i].s;

	return range->start < s->at + s->len && s->at < range->end;
}

static bool model_blocked(struct t_model *m, unsigned int i)
{
	unsigned int j;

	for (j = 0; j < MODEL_OPEN; j++)
		if (m->bracket[j].open && model_overlap(m, i, j))
			return true;
	return false;
}

static void model_toggle_sub(struct t_model *m, unsigned int i)
{
	unsigned long start, end;

	if (m->sub[i].in) {
		t_do(m->test, op_remove, m->sub[i].s);
	} else {
		model_interval(m, &start, &end);
		t_reinsert(m->test, m->sub[i].s, start, end);
		/* A value of its last life is a collision */
		m->sub[i].collided = true;
	}
	m->sub[i].in = !m->sub[i].in;
}

static void model_toggle_bracket(struct t_model *m, unsigned int j)
{
	unsigned long start, end;
	struct t_bracket *r = m->bracket[j].r;
	unsigned int i;

	m->bracket[j].open = !m->bracket[j].open;
	if (!m->bracket[j].open) {
		t_close(m->test, r);
		return;
	}
	model_interval(m, &start, &end);
	mmu_notifier_range_init(&r->range, MMU_NOTIFY_CLEAR, 0,
				r->range.mm, start, end);
	r->nonblock = t_random(&m->rnd, 2);
	for (i = 0; i < MODEL_SUBS; i++) {
		if (!m->sub[i].in || !model_overlap(m, i, j))
			continue;
		m->sub[i].hits++;
		m->sub[i].collided = true;
	}
	KUNIT_ASSERT_EQ(m->test, t_do(m->test, op_open, r), 0);
}

static void model_read(struct t_model *m, unsigned int i)
{
	struct t_op *op;
	unsigned int j;

	if (!m->sub[i].in)
		return;
	op = t_start(m->test, op_read_begin, m->sub[i].s);
	if (model_blocked(m, i)) {
		EXPECT_WAITS(m->test, op);
		for (j = 0; j < MODEL_OPEN; j++)
			if (m->bracket[j].open && model_overlap(m, i, j))
				model_toggle_bracket(m, j);
	}
	ASSERT_RETURNED(m->test, op);
	if (m->sub[i].read && !m->sub[i].collided)
		KUNIT_EXPECT_EQ(m->test, op->ret, m->sub[i].seq);
	KUNIT_EXPECT_FALSE(m->test, t_collided(m->sub[i].s, op->ret));
	m->sub[i].seq = op->ret;
	m->sub[i].read = true;
	m->sub[i].collided = false;
}

static void model_compare(struct t_model *m, unsigned int step)
{
	unsigned int i;

	for (i = 0; i < MODEL_SUBS; i++) {
		KUNIT_ASSERT_EQ_MSG(m->test, hits(m->sub[i].s), m->sub[i].hits,
				    "subscription %u, step %u", i, step);
		if (!m->sub[i].in || !m->sub[i].read)
			continue;
		KUNIT_ASSERT_EQ_MSG(m->test,
				    t_collided(m->sub[i].s, m->sub[i].seq),
				    m->sub[i].collided,
				    "subscription %u, step %u", i, step);
	}
}

static struct t_model *model_make(struct kunit *test, unsigned int seed)
{
	struct t_model *m = t_alloc(test, sizeof(*m));
	unsigned int i;

	m->test = test;
	prandom_seed_state(&m->rnd, seed);
	for (i = 0; i < MODEL_SUBS; i++)
		m->sub[i].s = t_ini(test, i);
	for (i = 0; i < MODEL_OPEN; i++)
		m->bracket[i].r = t_bracket(test, 0, 1);
	/* From here on every bracket is recorded */
	model_toggle_sub(m, 0);
	return m;
}

static const unsigned int seeds[] = { 1, 612, 4711 };

static void seed_desc(const unsigned int *seed, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "seed %u", *seed);
}

KUNIT_ARRAY_PARAM(seed, seeds, seed_desc);

static void random_history(struct kunit *test)
{
	struct t_model *m = model_make(test, *(unsigned int *)test->param_value);
	unsigned int i, step;

	for (step = 0; step < MODEL_STEPS; step++) {
		switch (t_random(&m->rnd, 16)) {
		case 0 ... 5:
			model_toggle_sub(m, t_random(&m->rnd, MODEL_SUBS));
			break;
		case 6 ... 14:
			model_toggle_bracket(m, t_random(&m->rnd, MODEL_OPEN));
			break;
		default:
			model_read(m, t_random(&m->rnd, MODEL_SUBS));
			break;
		}
		model_compare(m, step);
	}
	for (i = 0; i < MODEL_OPEN; i++)
		if (m->bracket[i].open)
			model_toggle_bracket(m, i);
	for (i = 0; i < MODEL_SUBS; i++)
		if (m->sub[i].in)
			model_toggle_sub(m, i);
}

/* ==== Everything at once ==== */

#define STRESS_PAGES	24
#define STRESS_DEVS	2
#define STRESS_CPUS	2
#define STRESS_TIME	HZ

/*
 * The page tables of the CPU are a version number a page, which only ever grows,
 * and only inside a bracket. A device keeps copies. The one property that all of
 * this is for: no copy of an old version outlives the bracket that replaced it.
 */
struct t_stress {
	struct t_env *e;
	spinlock_t ptl;			/* of pte */
	u32 pte[STRESS_PAGES];
	struct t_dev {
		struct mmu_interval_notifier ini;
		struct t_stress *st;
		struct rnd_state rnd;
		struct mutex lock;	/* of copy */
		u32 copy[STRESS_PAGES];	/* 0: none */
		unsigned long installs, retries;
		atomic_t to_finish;
	} dev[STRESS_DEVS];
	struct mmu_notifier mn;
	atomic_t open;			/* starts without an end, as @mn sees it */
	atomic_t brackets, refused, registered;
	atomic_t stale, orphans;
	bool stop;
};

static bool stress_invalidate(struct mmu_interval_notifier *ini,
			      const struct mmu_notifier_range *range,
			      unsigned long cur_seq)
{
	struct t_dev *d = container_of(ini, struct t_dev, ini);
	unsigned long at = max(range->start, ini->interval_tree.start);
	unsigned long last = min(range->end - 1, ini->interval_tree.last);

	if (mmu_notifier_range_blockable(range))
		mutex_lock(&d->lock);
	else if (!mutex_trylock(&d->lock))
		return false;
	mmu_interval_set_seq(ini, cur_seq);
	for (; at <= last; at += PAGE_SIZE)
		d->copy[at >> PAGE_SHIFT] = 0;
	mutex_unlock(&d->lock);
	return true;
}

/* The other device: told first, and waited for when all have been told */
static bool stress_invalidate_start(struct mmu_interval_notifier *ini,
				    const struct mmu_notifier_range *range,
				    unsigned long cur_seq,
				    struct mmu_interval_notifier_finish **finish)
{
	struct mmu_interval_notifier_finish *f = kzalloc(sizeof(*f), GFP_NOWAIT);
	struct t_dev *d = container_of(ini, struct t_dev, ini);

	if (!stress_invalidate(ini, range, cur_seq)) {
		kfree(f);
		return false;
	}
	if (f)
		atomic_inc(&d->to_finish);
	*finish = f;
	return true;
}

static void stress_invalidate_finish(struct mmu_interval_notifier_finish *finish)
{
	struct t_dev *d = container_of(finish->notifier, struct t_dev, ini);

	kfree(finish);
	atomic_dec(&d->to_finish);
}

static const struct mmu_interval_notifier_ops stress_ini_ops[STRESS_DEVS] = {
	{ .invalidate = stress_invalidate },
	{ .invalidate_start = stress_invalidate_start,
	  .invalidate_finish = stress_invalidate_finish },
};

static int stress_start(struct mmu_notifier *mn,
			const struct mmu_notifier_range *range)
{
	atomic_inc(&container_of(mn, struct t_stress, mn)->open);
	return 0;
}

static void stress_end(struct mmu_notifier *mn,
		       const struct mmu_notifier_range *range)
{
	struct t_stress *st = container_of(mn, struct t_stress, mn);

	if (atomic_dec_return(&st->open) < 0)
		atomic_inc(&st->orphans);
}

static const struct mmu_notifier_ops stress_ops = {
	.invalidate_range_start = stress_start,
	.invalidate_range_end = stress_end,
};

/* Inside a bracket nobody has a copy of these pages, nor makes one */
static void stress_check(struct t_stress *st, unsigned int first,
			 unsigned int end)
{
	unsigned int i, page;

	for (i = 0; i < STRESS_DEVS; i++) {
		guard(mutex)(&st->dev[i].lock);
		for (page = first; page < end; page++)
			if (st->dev[i].copy[page])
				atomic_inc(&st->stale);
	}
}

static void stress_change(struct t_stress *st, struct rnd_state *rnd)
{
	unsigned int first = t_random(rnd, STRESS_PAGES), page;
	unsigned int end = min(first + 1 + t_random(rnd, 6), STRESS_PAGES);
	struct mmu_notifier_range range;

	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, st->e->mm,
				PG(first), PG(end));
	if (t_random(rnd, 4)) {
		mmu_notifier_invalidate_range_start(&range);
	} else if (mmu_notifier_invalidate_range_start_nonblock(&range)) {
		atomic_inc(&st->refused);
		return;
	}
	stress_check(st, first, end);
	scoped_guard(spinlock, &st->ptl)
		for (page = first; page < end; page++)
			st->pte[page]++;
	if (!t_random(rnd, 16))
		schedule_timeout_uninterruptible(1);
	stress_check(st, first, end);
	mmu_notifier_invalidate_range_end(&range);
	atomic_inc(&st->brackets);
}

static void op_stress_cpu(struct t_op *op)
{
	struct t_stress *st = op->arg;
	struct rnd_state rnd;

	prandom_seed_state(&rnd, (unsigned long)op >> 3);
	while (!READ_ONCE(st->stop)) {
		mmap_read_lock(st->e->mm);
		stress_change(st, &rnd);
		mmap_read_unlock(st->e->mm);
		cond_resched();
	}
}

/* One turn of collision-retry */
static void stress_fault(struct t_dev *d)
{
	unsigned long start = d->ini.interval_tree.start >> PAGE_SHIFT;
	unsigned long last = d->ini.interval_tree.last >> PAGE_SHIFT;
	unsigned int page = start + t_random(&d->rnd, last - start + 1);
	unsigned long seq = mmu_interval_read_begin(&d->ini);
	u32 version;

	scoped_guard(spinlock, &d->st->ptl)
		version = d->st->pte[page];
	if (!t_random(&d->rnd, 64))
		schedule_timeout_uninterruptible(1);
	else if (!t_random(&d->rnd, 4))
		schedule();
	guard(mutex)(&d->lock);
	if (mmu_interval_read_retry(&d->ini, seq)) {
		d->retries++;
		return;
	}
	d->copy[page] = version;
	d->installs++;
}

static int stress_dev_insert(struct t_dev *d)
{
	unsigned int first = t_random(&d->rnd, STRESS_PAGES);
	unsigned int nr = 1 + t_random(&d->rnd, STRESS_PAGES - first);

	return mmu_interval_notifier_insert(&d->ini, d->st->e->mm, PG(first),
					    PG(nr),
					    &stress_ini_ops[d - d->st->dev]);
}

static void op_stress_dev(struct t_op *op)
{
	struct t_dev *d = op->arg;

	while (!READ_ONCE(d->st->stop)) {
		op->ret = stress_dev_insert(d);
		if (op->ret)
			return;
		while (t_random(&d->rnd, 64) && !READ_ONCE(d->st->stop)) {
			stress_fault(d);
			cond_resched();
		}
		/* While the subscription stands: later nobody calls for them */
		scoped_guard(mutex, &d->lock)
			memset(d->copy, 0, sizeof(d->copy));
		mmu_interval_notifier_remove(&d->ini);
		if (atomic_read(&d->to_finish))
			atomic_inc(&d->st->orphans);
	}
}

static void op_stress_list(struct t_op *op)
{
	struct t_stress *st = op->arg;

	while (!READ_ONCE(st->stop)) {
		atomic_set(&st->open, 0);
		st->mn.ops = &stress_ops;
		op->ret = mmu_notifier_register(&st->mn, st->e->mm);
		if (op->ret)
			return;
		atomic_inc(&st->registered);
		schedule_timeout_uninterruptible(2);
		mmu_notifier_unregister(&st->mn, st->e->mm);
		memset(&st->mn, 0x6b, sizeof(st->mn));
	}
}

static struct t_stress *stress_make(struct kunit *test)
{
	struct t_stress *st = t_alloc(test, sizeof(*st));
	unsigned int i;

	st->e = test->priv;
	spin_lock_init(&st->ptl);
	for (i = 0; i < STRESS_PAGES; i++)
		st->pte[i] = 1;
	for (i = 0; i < STRESS_DEVS; i++) {
		st->dev[i].st = st;
		mutex_init(&st->dev[i].lock);
		prandom_seed_state(&st->dev[i].rnd, 100 + i);
	}
	return st;
}

static void stress_report(struct kunit *test, struct t_stress *st)
{
	unsigned int i;

	KUNIT_EXPECT_EQ_MSG(test, atomic_read(&st->stale), 0,
			    "copies of pages under invalidation");
	KUNIT_EXPECT_EQ_MSG(test, atomic_read(&st->orphans), 0,
			    "ends without a start");
	KUNIT_EXPECT_GT(test, atomic_read(&st->brackets), 0);
	KUNIT_EXPECT_GT(test, atomic_read(&st->registered), 0);
	kunit_info(test, "%d brackets, %d refused, %d registrations\n",
		   atomic_read(&st->brackets), atomic_read(&st->refused),
		   atomic_read(&st->registered));
	for (i = 0; i < STRESS_DEVS; i++) {
		KUNIT_EXPECT_GT(test, st->dev[i].installs, 0);
		kunit_info(test, "device %u: %lu copies, %lu retries\n", i,
			   st->dev[i].installs, st->dev[i].retries);
	}
}

static void stress(struct kunit *test)
{
	struct t_op *op[STRESS_CPUS + STRESS_DEVS + 1];
	struct t_stress *st = stress_make(test);
	unsigned int i, n = 0;

	for (i = 0; i < STRESS_CPUS; i++)
		op[n++] = t_start(test, op_stress_cpu, st);
	for (i = 0; i < STRESS_DEVS; i++)
		op[n++] = t_start(test, op_stress_dev, &st->dev[i]);
	op[n++] = t_start(test, op_stress_list, st);
	schedule_timeout_uninterruptible(STRESS_TIME);
	WRITE_ONCE(st->stop, true);
	for (i = 0; i < n; i++) {
		ASSERT_RETURNED(test, op[i]);
		KUNIT_EXPECT_EQ(test, op[i]->ret, 0);
	}
	stress_report(test, st);
}

/* ==== What callers cannot cause is a warning, with a safe way on ==== */

static void warns_of_blockable_refusal(struct kunit *test)
{
	struct t_list *l = t_register(test, 0, &full_ops);
	struct t_list *refuses, *newest;

	expect_warning_begin(test);
	refuses = t_register(test, 1, &start_only_ops);
	newest = t_register(test, 2, &full_ops);
	refuses->refuse = -EAGAIN;
	t_invalidate(test, 0, PG(1));
	expect_warning_end(test);
	/* A start that may sleep cannot fail: it goes on as if it had not */
	EXPECT_LOG(test, "S2 S1 S0 E2 E0 ");
	t_unregister(test, l);
	t_unregister(test, refuses);
	t_unregister(test, newest);
}

/* It counts on an end that will not be called */
static void warns_of_refusal_with_end(struct kunit *test)
{
	struct t_list *l, *refuses, *newest;

	expect_warning_begin(test);
	l = t_register(test, 0, &full_ops);
	refuses = t_register(test, 1, &full_ops);
	newest = t_register(test, 2, &full_ops);
	refuses->refuse = -EAGAIN;
	KUNIT_EXPECT_EQ(test, t_nonblock(test, 0, PG(1)), -EAGAIN);
	expect_warning_end(test);
	EXPECT_LOG(test, "S2 S1 E2 ");
	t_unregister(test, l);
	t_unregister(test, refuses);
	t_unregister(test, newest);
}

static void warns_of_interval_refusal(struct kunit *test)
{
	struct t_ini *s, *next;
	struct t_list *l;

	expect_warning_begin(test);
	s = t_insert(test, 0, 0, PG(1));
	next = t_insert(test, 1, PG(1), PG(2));
	l = t_register(test, 0, &full_ops);
	s->refuse = true;
	t_invalidate(test, 0, PG(2));
	expect_warning_end(test);
	EXPECT_LOG(test, "i0 i1 S0 E0 ");
	t_remove(test, s);
	t_remove(test, next);
	t_unregister(test, l);
}

static void warns_of_only_refusal(struct kunit *test)
{
	struct t_list *l;
	struct t_ini *s;

	expect_warning_begin(test);
	s = t_insert(test, 0, 0, PG(1));
	l = t_register(test, 0, &full_ops);
	s->refuse = true;
	t_invalidate(test, 0, PG(1));
	expect_warning_end(test);
	EXPECT_LOG(test, "i0 S0 E0 ");
	t_remove(test, s);
	t_unregister(test, l);
}

static void warns_of_second_start(struct kunit *test)
{
	struct t_bracket *r;
	struct t_ini *s;

	expect_warning_begin(test);
	s = t_insert(test, 0, 0, PG(1));
	r = t_open(test, 0, PG(1));
	KUNIT_EXPECT_EQ(test, t_do(test, op_open, r), 0);
	expect_warning_end(test);
	/* The record is as it was: one end closes it */
	t_close(test, r);
	KUNIT_EXPECT_FALSE(test, t_collided(s, t_read(test, s)));
	t_remove(test, s);
}

/* Zeroed, or removed before: nothing happens, and the pins are as they were */
static void warns_of_remove(struct kunit *test)
{
	struct t_ini *s = t_ini(test, 0);

	expect_warning_begin(test);
	t_do(test, op_remove, s);
	t_reinsert(test, s, 0, PG(1));
	t_do(test, op_remove, s);
	t_do(test, op_remove, s);
	expect_warning_end(test);
	KUNIT_EXPECT_EQ(test, t_pins(test), 1);
	t_invalidate(test, 0, PG(1));
	KUNIT_EXPECT_EQ(test, hits(s), 0);
}

static void warns_of_unregister(struct kunit *test)
{
	struct t_list *l = t_register(test, 0, &full_ops);

	expect_warning_begin(test);
	t_do(test, op_unregister, l);
	t_do(test, op_unregister, l);
	expect_warning_end(test);
	KUNIT_EXPECT_EQ(test, t_pins(test), 1);
	KUNIT_EXPECT_EQ(test, calls(l, T_RELEASE), 1);
}

/* A value that no bracket over the subscription has handed out just now */
static void warns_of_stray_seq(struct kunit *test)
{
	struct t_ini *s;

	if (!IS_ENABLED(CONFIG_DEBUG_VM))
		kunit_skip(test, "looked at with CONFIG_DEBUG_VM only");
	s = t_insert(test, 0, 0, PG(1));
	expect_warning_begin(test);
	mmu_interval_set_seq(&s->ini, t_read(test, s) + 1);
	expect_warning_end(test);
	t_invalidate(test, 0, PG(1));
	t_remove(test, s);
}

static void warns_of_missing_end(struct kunit *test)
{
	struct t_env *e = test->priv;
	struct t_ini *s;

	expect_warning_begin(test);
	s = t_insert(test, 0, 0, PG(1));
	t_open(test, PG(1), PG(2));
	t_remove(test, s);
	KUNIT_EXPECT_EQ(test, t_pins(test), 1);
	mmput(e->mm);
	e->mm = NULL;
	expect_warning_end(test);
}

/* ---- Tracepoints ---- */

#ifdef CONFIG_TRACEPOINTS
static void probe_start(void *mm, const struct mmu_notifier_range *range,
			unsigned int hits, u64 ns, int ret)
{
	if (range->mm != mm)
		return;
	t_log(t_env, 'h', hits);
	t_log(t_env, ret ? 'n' : 'y', 0);
}

static void probe_end(void *mm, const struct mmu_notifier_range *range, u64 ns)
{
	if (range->mm == mm)
		t_log(t_env, 'c', range->start >> PAGE_SHIFT);
}

/* Collisions may be told with the lock of the subscriptions held: not for the log */
static atomic_t collisions_told;

static void probe_collision(void *mm, const struct mmu_interval_notifier *ini,
			    u64 seq)
{
	if (ini->mm == mm && ini->interval_tree.start == PG(1))
		atomic_inc(&collisions_told);
}

static void untrace(void *mm)
{
	unregister_trace_mmu_notifier_start(probe_start, mm);
	unregister_trace_mmu_notifier_end(probe_end, mm);
	unregister_trace_mmu_notifier_collision(probe_collision, mm);
	tracepoint_synchronize_unregister();
}

/* Brackets that refused have no end; nobody is counted whom a bracket misses */
static void brackets_traced(struct kunit *test)
{
	struct mm_struct *mm = t_env->mm;
	struct t_list *l = t_register(test, 0, &start_only_ops);
	struct t_ini *s = t_insert(test, 0, PG(1), PG(2));
	struct t_ini *two = t_insert_two(test, 1, PG(1), PG(3));

	KUNIT_ASSERT_EQ(test, register_trace_mmu_notifier_start(probe_start, mm), 0);
	KUNIT_ASSERT_EQ(test, register_trace_mmu_notifier_end(probe_end, mm), 0);
	KUNIT_ASSERT_EQ(test,
			register_trace_mmu_notifier_collision(probe_collision, mm),
			0);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, untrace, mm), 0);

	atomic_set(&collisions_told, 0);
	t_invalidate(test, PG(1), PG(3));
	EXPECT_LOG(test, "i0 i1 f1 S0 h3 y0 c1 ");
	KUNIT_EXPECT_EQ(test, atomic_read(&collisions_told), 2);
	t_invalidate(test, PG(2), PG(3));
	EXPECT_LOG(test, "i1 f1 S0 h2 y0 c2 ");
	KUNIT_EXPECT_EQ(test, atomic_read(&collisions_told), 3);
	t_invalidate(test, PG(3), PG(4));
	EXPECT_LOG(test, "S0 h1 y0 c3 ");
	KUNIT_EXPECT_EQ(test, atomic_read(&collisions_told), 3);
	l->refuse = -EAGAIN;
	KUNIT_EXPECT_EQ(test, t_nonblock(test, PG(3), PG(4)), -EAGAIN);
	EXPECT_LOG(test, "S0 h1 n0 ");
	l->refuse = 0;
	kunit_release_action(test, untrace, mm);
	t_remove(test, two);
	t_remove(test, s);
	t_unregister(test, l);
}
#endif

static struct kunit_case mmu_notifier_cases[] = {
	KUNIT_CASE(list_register_unregister),
	KUNIT_CASE(list_register_locked),
	KUNIT_CASE(list_register_contrary_ops),
	KUNIT_CASE(register_without_users),
	KUNIT_CASE(list_empty_ops),
	KUNIT_CASE(list_unregister_waits),
	KUNIT_CASE(list_unregister_in_bracket),
	KUNIT_CASE_PARAM(events_forwarded, event_gen_params),
	KUNIT_CASE(range_init),
	KUNIT_CASE(list_order),
	KUNIT_CASE(intervals_before_lists),
	KUNIT_CASE(nested_brackets),
	KUNIT_CASE(other_mm_hears_nothing),
	KUNIT_CASE(fork_inherits_nothing),
	KUNIT_CASE(core_unmaps),
	KUNIT_CASE(list_aging),
	KUNIT_CASE(list_aging_arguments),
	KUNIT_CASE_PARAM(young_macros_pte, young_gen_params),
	KUNIT_CASE_PARAM(young_macros_pmd, young_gen_params),
	KUNIT_CASE(list_secondary_tlb),
	KUNIT_CASE(get_same_object),
	KUNIT_CASE(get_again_after_put),
	KUNIT_CASE(get_fails),
	KUNIT_CASE(get_saturates),
	KUNIT_CASE(put_ends_register),
	KUNIT_CASE(put_during_callback),
	KUNIT_CASE(put_inside_release),
	KUNIT_CASE(put_after_exit),
	KUNIT_CASE(exit_order),
	KUNIT_CASE(exit_ends_lists),
	KUNIT_CASE(exit_waits_for_unregister),
	KUNIT_CASE(exit_waits_for_leaver),
	KUNIT_CASE(unregister_waits_for_exit),
	KUNIT_CASE(exit_waits_for_callbacks),
	KUNIT_CASE(exit_during_remove),
	KUNIT_CASE(interval_release_order),
	KUNIT_CASE(remove_in_release),
	KUNIT_CASE_PARAM(subscribing_waits, holder_gen_params),
	KUNIT_CASE(later_inserts_do_not_wait),
	KUNIT_CASE(first_ones_together),
	KUNIT_CASE(subscribing_interrupted),
	KUNIT_CASE(bracket_older_than_object),
	KUNIT_CASE(eagain_list_each_position),
	KUNIT_CASE(eagain_first_of_two),
	KUNIT_CASE(eagain_interval),
	KUNIT_CASE(eagain_list_after_interval),
	KUNIT_CASE_PARAM(eagain_with_leaver, leaver_gen_params),
	KUNIT_CASE(eagain_wakes_readers),
	KUNIT_CASE(nonblock_does_not_sleep),
	KUNIT_CASE_PARAM(interval_lengths, length_gen_params),
	KUNIT_CASE(interval_needs_callback),
	KUNIT_CASE(interval_pins),
	KUNIT_CASE(interval_locked),
	KUNIT_CASE(interval_reinsert),
	KUNIT_CASE_PARAM(interval_overlap, overlap_gen_params),
	KUNIT_CASE_PARAM(interval_overlap_beside_others, overlap_gen_params),
	KUNIT_CASE_PARAM(read_waits_for_overlap, overlap_gen_params),
	KUNIT_CASE(interval_equal_starts),
	KUNIT_CASE(collision_seen),
	KUNIT_CASE(collision_not_set),
	KUNIT_CASE(sequence_stable),
	KUNIT_CASE(sequence_unique),
	KUNIT_CASE(read_during_callback),
	KUNIT_CASE(read_waits_for_all_older),
	KUNIT_CASE(read_not_woken_by_others),
	KUNIT_CASE(read_wakes_everybody),
	KUNIT_CASE_PARAM(storm_insert_and_read, storm_gen_params),
	KUNIT_CASE(storm_first_insert),
	KUNIT_CASE_PARAM(storm_read, storm_gen_params),
	KUNIT_CASE_PARAM(storm_remove, storm_gen_params),
	KUNIT_CASE_PARAM(storm_starves_nobody, storm_gen_params),
	KUNIT_CASE(two_passes_need_both),
	KUNIT_CASE(two_passes_order),
	KUNIT_CASE(two_passes_collide),
	KUNIT_CASE(two_passes_at_once),
	KUNIT_CASE(two_passes_refused),
	KUNIT_CASE(two_passes_refused_alone),
	KUNIT_CASE(two_passes_refused_by_list),
	KUNIT_CASE(two_passes_at_exit),
	KUNIT_CASE(remove_waits_for_finish),
	KUNIT_CASE(remove_waits_for_only_finish),
	KUNIT_CASE(remove_after_finish),
	KUNIT_CASE(two_passes_overlap),
	KUNIT_CASE(insert_in_bracket),
	KUNIT_CASE(insert_in_walk),
	KUNIT_CASE(reinsert_in_walk),
	KUNIT_CASE(remove_in_bracket),
	KUNIT_CASE(remove_waits_for_callback),
	KUNIT_CASE(remove_waits_for_both),
	KUNIT_CASE_PARAM(remove_in_walk, batch_gen_params),
	KUNIT_CASE(remove_in_two_walks),
	KUNIT_CASE(lockdep_is_told),
	KUNIT_CASE_PARAM(random_history, seed_gen_params),
	KUNIT_CASE_SLOW(stress),
	KUNIT_CASE(warns_of_blockable_refusal),
	KUNIT_CASE(warns_of_refusal_with_end),
	KUNIT_CASE(warns_of_interval_refusal),
	KUNIT_CASE(warns_of_only_refusal),
	KUNIT_CASE(warns_of_second_start),
	KUNIT_CASE(warns_of_missing_end),
	KUNIT_CASE(warns_of_remove),
	KUNIT_CASE(warns_of_unregister),
	KUNIT_CASE(warns_of_stray_seq),
#ifdef CONFIG_TRACEPOINTS
	KUNIT_CASE(brackets_traced),
#endif
	{}
};

static struct kunit_suite mmu_notifier_suite = {
	.name = "mmu_notifier",
	.init = t_init,
	.exit = t_exit,
	.test_cases = mmu_notifier_cases,
};

kunit_test_suite(mmu_notifier_suite);

MODULE_DESCRIPTION("KUnit tests for MMU notifiers");
MODULE_LICENSE("GPL");
