// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of mirrors: how they come and go, what they are told, how they end
 *
 * Each case has an mm of its own that nobody runs in, with anonymous memory or
 * with "slow" memory, whose fault handler can be stopped. Devices
 * keep no table: they count their calls, note what they were told, and answer as
 * the case wants. Opening a bracket stands for what core mm does.
 *
 * Whatever may wait runs in a workqueue, as a worker of a driver would, and the
 * case waits for it with a timeout. A case that failed leaks its mm and its devices
 * on purpose: somebody may still be using them. One that passed must have given
 * back every pin.
 *
 * In this file: e is the environment of the case, d a device, j a job for the
 * workqueue.
 */
#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/hmm.h>
#include <linux/hmm_mirror.h>
#include <linux/kthread.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/workqueue.h>
#include <asm/tlb.h>

/* Longer than anything takes on a slow machine, shorter than KUnit's patience */
#define M_PATIENCE	(20 * HZ)
/* How long somebody who waits must go on waiting to be believed */
#define M_STILL		msecs_to_jiffies(30)
#define M_BASE		0x40000000UL
#define M_PAGES		16UL
#define M_MAGIC		0x6d697272U
#define M_STORM		(2 * HZ)

#define AT(n)		(M_BASE + (unsigned long)(n) * PAGE_SIZE)
#define PG(n)		((unsigned long)(n) << PAGE_SHIFT)

/* ---- Gates ---- */

struct m_gate {
	unsigned int armed;	/* stops the next one, and only that */
	struct completion entered;
	struct completion leave;
};

static void m_gate_init(struct m_gate *gate)
{
	gate->armed = 0;
	init_completion(&gate->entered);
	init_completion(&gate->leave);
}

static void m_gate_pass(struct m_gate *gate)
{
	if (!xchg(&gate->armed, 0))
		return;
	complete_all(&gate->entered);
	WARN_ON(!wait_for_completion_timeout(&gate->leave, 2 * M_PATIENCE));
}

static bool m_wait(struct completion *done)
{
	return wait_for_completion_timeout(done, M_PATIENCE);
}

/* ---- Environment ---- */

struct m_env {
	struct mm_struct *mm;
	bool exited;		/* our reference on its users is gone */
	struct workqueue_struct *wq;
	struct page *page;	/* all that slow memory is copied from */
	struct m_gate fault;	/* inside the fault handler of slow memory */
	void (*on_fault)(struct m_env *e);
	struct list_head devs;
};

struct m_dev {
	struct hmm_mirror mirror;
	struct list_head node;
	struct mutex lock;	/* given to the mirror */
	unsigned int magic;
	struct m_env *e;
	unsigned int invalidated, mapped, refilled, released, freed;
	unsigned int odd;	/* calls that should not have come like this */

	/* the last invalidation */
	struct mmu_notifier_range seen;
	unsigned int access;
	unsigned long first, last;
	bool seen_locked;
	/* what release found */
	unsigned int invalidated_before;
	enum mmu_notifier_event event_before;

	/* the last map, and the one before */
	unsigned long npages, seq, seq_before;
	bool held_up;

	/* what to answer */
	unsigned int busy, again;
	int map_error, refill_error;
	bool refuse;
	bool flush;		/* release waits for the queue */
	void (*in_map)(struct m_dev *d);
	void (*in_release)(struct m_dev *d);
	struct m_gate gate;	/* inside release */
	struct completion over;	/* release has returned */
	struct completion gone;	/* free has been called */
};

static vm_fault_t m_slow_fault(struct vm_fault *vmf)
{
	struct m_env *e = vmf->vma->vm_private_data;

	m_gate_pass(&e->fault);
	if (e->on_fault)
		e->on_fault(e);
	vmf->page = e->page;
	get_page(e->page);
	lock_page(e->page);
	return VM_FAULT_LOCKED;
}

static const struct vm_operations_struct m_slow_ops = {
	.fault = m_slow_fault,
};

static int m_init(struct kunit *test)
{
	struct m_env *e = kzalloc(sizeof(*e), GFP_KERNEL);

	if (!e)
		return -ENOMEM;
	INIT_LIST_HEAD(&e->devs);
	m_gate_init(&e->fault);
	e->mm = mm_alloc();
	e->page = alloc_page(GFP_KERNEL | __GFP_ZERO);
	e->wq = alloc_workqueue("hmm_mirror_kunit", WQ_UNBOUND, 0);
	/* A failure here is one of the machine: what there is, is left */
	if (!e->mm || !e->page || !e->wq)
		return -ENOMEM;
	__SetPageUptodate(e->page);
	/* Beside the one on its users, to look at it after exit */
	mmgrab(e->mm);
	test->priv = e;
	return 0;
}

/* The last user goes */
static void m_exit_mm(struct m_env *e)
{
	e->exited = true;
	mmput(e->mm);
}

/* An exit by mmput_async() lets go of the mm last of all */
static bool m_unpinned(struct m_env *e)
{
	unsigned long until = jiffies + M_PATIENCE;

	while (atomic_read(&e->mm->mm_users) || atomic_read(&e->mm->mm_count) != 1) {
		if (time_after(jiffies, until))
			return false;
		schedule_timeout_uninterruptible(1);
	}
	return true;
}

static void m_exit(struct kunit *test)
{
	struct m_env *e = test->priv;
	struct m_dev *d, *next;

	if (!e || test->status == KUNIT_FAILURE)
		return;
	if (!e->exited)
		m_exit_mm(e);
	KUNIT_EXPECT_TRUE_MSG(test, m_unpinned(e), "%d users, %d pins are left",
			      atomic_read(&e->mm->mm_users),
			      atomic_read(&e->mm->mm_count));
	if (test->status == KUNIT_FAILURE)
		return;
	destroy_workqueue(e->wq);
	mmdrop(e->mm);
	put_page(e->page);
	list_for_each_entry_safe(d, next, &e->devs, node)
		kfree(d);
	kfree(e);
}

static int m_pins(struct m_env *e)
{
	return atomic_read(&e->mm->mm_count);
}

static void m_map_ops(struct kunit *test, unsigned long idx, unsigned long n,
		      const struct vm_operations_struct *ops)
{
	struct m_env *e = test->priv;
	struct vm_area_struct *vma = vm_area_alloc(e->mm);
	int ret;

	KUNIT_ASSERT_NOT_NULL(test, vma);
	vma->vm_start = AT(idx);
	vma->vm_end = AT(idx + n);
	vm_flags_init(vma, VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE);
	vma->vm_page_prot = vm_get_page_prot(vma->vm_flags);
	vma->vm_ops = ops;
	vma->vm_private_data = ops ? e : NULL;
	mmap_write_lock(e->mm);
	ret = insert_vm_struct(e->mm, vma);
	/* munmap() takes it back */
	if (!ret)
		vm_stat_account(e->mm, vma->vm_flags, n);
	mmap_write_unlock(e->mm);
	KUNIT_ASSERT_EQ(test, ret, 0);
}

static void m_map(struct kunit *test, unsigned long idx, unsigned long n)
{
	m_map_ops(test, idx, n, NULL);
}

static void m_map_slow(struct kunit *test, unsigned long idx)
{
	m_map_ops(test, idx, 1, &m_slow_ops);
}

static void m_unmap(struct kunit *test, unsigned long idx, unsigned long n)
{
	struct m_env *e = test->priv;
	struct mm_struct *parking = mm_alloc();
	int ret;

	KUNIT_ASSERT_NOT_NULL(test, parking);
	/*
	 * To unmap is for those who run in the mm. Leave nothing behind: a CPU
	 * keeps the last mm that it ran in for as long as it sees no other.
	 */
	migrate_disable();
	kthread_use_mm(e->mm);
	ret = vm_munmap(AT(idx), PG(n));
	kthread_unuse_mm(e->mm);
	kthread_use_mm(parking);
	kthread_unuse_mm(parking);
	migrate_enable();
	mmput(parking);
	KUNIT_ASSERT_EQ(test, ret, 0);
}

/* ---- Devices ---- */

static struct m_dev *m_of(struct hmm_mirror *mirror)
{
	struct m_dev *d = container_of(mirror, struct m_dev, mirror);

	/* Half-registered, or gone already */
	d->odd += d->magic != M_MAGIC || mirror->lock != &d->lock ||
		  !refcount_read(&mirror->refs) ||
		  READ_ONCE(mirror->sub.mm) != d->e->mm;
	return d;
}

static bool m_invalidate(struct hmm_mirror *mirror,
			 const struct mmu_notifier_range *range)
{
	struct m_dev *d = m_of(mirror);

	d->odd += d->freed;
	d->invalidated++;
	/* The record in it is not for us, and may be changing */
	d->seen = data_race(*range);
	d->access = mmu_notifier_range_access(range);
	d->first = hmm_mirror_first(mirror, range);
	d->last = hmm_mirror_last(mirror, range);
	d->seen_locked = mutex_is_locked(&d->lock);
	return !d->refuse;
}

static int m_map_cb(struct hmm_mirror *mirror, struct hmm_range *range)
{
	struct m_dev *d = m_of(mirror);

	d->odd += d->released || !mutex_is_locked(&d->lock) ||
		  mmu_interval_check_retry(&mirror->sub, range->notifier_seq);
	d->mapped++;
	d->seq_before = d->seq;
	d->seq = range->notifier_seq;
	d->npages = PHYS_PFN(range->end - range->start);
	d->held_up = rwsem_is_locked(&d->e->mm->mmap_lock);
	if (d->in_map)
		d->in_map(d);
	if (d->busy && d->busy--)
		return -EBUSY;
	if (d->again && d->again--)
		return -EAGAIN;
	return d->map_error;
}

static int m_refill(struct hmm_mirror *mirror, struct hmm_range *range)
{
	struct m_dev *d = m_of(mirror);

	d->odd += mutex_is_locked(&d->lock);
	d->refilled++;
	return d->refill_error;
}

static void m_release(struct hmm_mirror *mirror)
{
	struct m_dev *d = m_of(mirror);

	d->released++;
	d->invalidated_before = d->invalidated;
	d->event_before = d->seen.event;
	m_gate_pass(&d->gate);
	if (d->in_release)
		d->in_release(d);
	if (d->flush)
		flush_workqueue(d->e->wq);
	complete_all(&d->over);
}

static void m_free(struct hmm_mirror *mirror)
{
	struct m_dev *d = container_of(mirror, struct m_dev, mirror);

	d->odd += !d->released;
	d->freed++;
	complete_all(&d->gone);
}

static const struct hmm_mirror_ops m_ops = {
	.invalidate = m_invalidate,
	.map = m_map_cb,
	.release = m_release,
	.refill = m_refill,
	.free = m_free,
};

static void m_dev_init(struct m_dev *d, struct m_env *e)
{
	d->e = e;
	d->magic = M_MAGIC;
	mutex_init(&d->lock);
	m_gate_init(&d->gate);
	init_completion(&d->over);
	init_completion(&d->gone);
}

static struct m_dev *m_dev(struct kunit *test)
{
	struct m_dev *d = kzalloc(sizeof(*d), GFP_KERNEL);
	struct m_env *e = test->priv;

	KUNIT_ASSERT_NOT_NULL(test, d);
	m_dev_init(d, e);
	list_add(&d->node, &e->devs);
	return d;
}

static int m_register(struct m_dev *d, unsigned long idx, unsigned long n)
{
	return hmm_mirror_register(&d->mirror, d->e->mm, AT(idx), PG(n), &m_ops,
				   &d->lock);
}

/* A device over some of the pages */
static struct m_dev *m_mirror(struct kunit *test, unsigned long idx,
			      unsigned long n)
{
	struct m_dev *d = m_dev(test);

	KUNIT_ASSERT_EQ(test, m_register(d, idx, n), 0);
	return d;
}

static void m_unregister(struct kunit *test, struct m_dev *d)
{
	hmm_mirror_unregister(&d->mirror);
	KUNIT_EXPECT_EQ(test, d->released, 1);
	KUNIT_EXPECT_EQ(test, d->odd, 0);
}

static int m_fault_for(struct m_dev *d, unsigned long idx, unsigned long n,
		       unsigned long timeout)
{
	unsigned long pfns[M_PAGES];
	struct hmm_range range = {
		.start = AT(idx),
		.end = AT(idx + n),
		.hmm_pfns = pfns,
		.default_flags = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE,
	};

	return hmm_mirror_fault(&d->mirror, &range, timeout);
}

static int m_fault(struct m_dev *d, unsigned long idx, unsigned long n)
{
	return m_fault_for(d, idx, n, M_PATIENCE);
}

/* ---- Jobs ---- */

struct m_job {
	struct work_struct work;
	struct completion done;
	void (*fn)(struct m_job *j);
	struct m_dev *d;
	int ret;
};

static void m_work(struct work_struct *work)
{
	struct m_job *j = container_of(work, struct m_job, work);

	j->fn(j);
	complete_all(&j->done);
}

/* By a worker of the driver's; the memory is the case's */
static void m_start(struct m_job *j, void (*fn)(struct m_job *j), struct m_dev *d)
{
	INIT_WORK(&j->work, m_work);
	init_completion(&j->done);
	j->fn = fn;
	j->d = d;
	j->ret = 1;
	queue_work(d->e->wq, &j->work);
}

/* Not by a worker of the driver's: release may wait for those */
static void m_start_apart(struct m_job *j, void (*fn)(struct m_job *j),
			  struct m_dev *d)
{
	INIT_WORK(&j->work, m_work);
	init_completion(&j->done);
	j->fn = fn;
	j->d = d;
	j->ret = 1;
	queue_work(system_unbound_wq, &j->work);
}

static struct m_job *m_job(struct kunit *test)
{
	return kunit_kzalloc(test, sizeof(struct m_job), GFP_KERNEL);
}

static void job_fault(struct m_job *j)
{
	j->ret = m_fault(j->d, 0, 1);
}

static void job_unregister(struct m_job *j)
{
	hmm_mirror_unregister(&j->d->mirror);
	j->ret = 0;
}

static void job_exit(struct m_job *j)
{
	m_exit_mm(j->d->e);
	j->ret = 0;
}

#define ASSERT_DONE(test, done)	KUNIT_ASSERT_TRUE(test, m_wait(done))
#define EXPECT_WAITS(test, done)						\
	KUNIT_EXPECT_FALSE(test, wait_for_completion_timeout(done, M_STILL))

/* A worker that is stopped inside the page fault of page 0 */
static struct m_job *m_stop_in_fault(struct kunit *test, struct m_dev *d)
{
	struct m_job *j = m_job(test);

	d->e->fault.armed = 1;
	m_start(j, job_fault, d);
	ASSERT_DONE(test, &d->e->fault.entered);
	return j;
}

/* ---- Brackets ---- */

static int m_bracket_of(struct m_env *e, enum mmu_notifier_event event,
			unsigned int flags, void *owner, unsigned long start,
			unsigned long end, bool nonblock)
{
	struct mmu_notifier_range range;

	mmu_notifier_range_init_owner(&range, event, flags, e->mm, start, end,
				      owner);
	if (!nonblock)
		mmu_notifier_invalidate_range_start(&range);
	else if (mmu_notifier_invalidate_range_start_nonblock(&range))
		return -EAGAIN;
	mmu_notifier_invalidate_range_end(&range);
	return 0;
}

static void m_bracket(struct m_env *e, unsigned long idx, unsigned long n)
{
	m_bracket_of(e, MMU_NOTIFY_CLEAR, 0, NULL, AT(idx), AT(idx + n), false);
}

static int m_nonblock(struct m_env *e, unsigned long idx, unsigned long n)
{
	return m_bracket_of(e, MMU_NOTIFY_CLEAR, 0, NULL, AT(idx), AT(idx + n),
			    true);
}

/* ---- Coming and going ---- */

static const struct hmm_mirror_ops no_invalidate = {
	.map = m_map_cb, .release = m_release,
};

static const struct hmm_mirror_ops no_map = {
	.invalidate = m_invalidate, .release = m_release,
};

static const struct hmm_mirror_ops no_release = {
	.invalidate = m_invalidate, .map = m_map_cb,
};

static const struct refusal {
	const char *name;
	unsigned long start, length;
	const struct hmm_mirror_ops *ops;
	bool no_lock;
	int error;
} refusals[] = {
	{ "no ops", M_BASE, PAGE_SIZE, NULL, false, -EINVAL },
	{ "no invalidate", M_BASE, PAGE_SIZE, &no_invalidate, false, -EINVAL },
	{ "no map", M_BASE, PAGE_SIZE, &no_map, false, -EINVAL },
	{ "no release", M_BASE, PAGE_SIZE, &no_release, false, -EINVAL },
	{ "no lock", M_BASE, PAGE_SIZE, &m_ops, true, -EINVAL },
	{ "odd start", M_BASE + 1, PAGE_SIZE, &m_ops, false, -EINVAL },
	{ "odd length", M_BASE, PAGE_SIZE + 1, &m_ops, false, -EINVAL },
	{ "no length", M_BASE, 0, &m_ops, false, -EOVERFLOW },
	{ "wraps", M_BASE, ULONG_MAX & PAGE_MASK, &m_ops, false, -EOVERFLOW },
};

static void refusal_desc(const struct refusal *r, char *desc)
{
	strscpy(desc, r->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(refusal, refusals, refusal_desc);

static void register_refused(struct kunit *test)
{
	const struct refusal *r = test->param_value;
	struct m_env *e = test->priv;
	struct m_dev *d = m_dev(test);
	int pins = m_pins(e), users = atomic_read(&e->mm->mm_users);

	KUNIT_EXPECT_EQ(test, r->error,
			hmm_mirror_register(&d->mirror, e->mm, r->start,
					    r->length, r->ops,
					    r->no_lock ? NULL : &d->lock));
	KUNIT_EXPECT_EQ(test, m_pins(e), pins);
	KUNIT_EXPECT_EQ(test, atomic_read(&e->mm->mm_users), users);
	m_bracket(e, 0, 1);
	KUNIT_EXPECT_EQ(test, d->invalidated + d->released + d->freed, 0);
}

static void register_without_users(struct kunit *test)
{
	struct m_env *e = test->priv;
	struct m_dev *d = m_dev(test);

	m_exit_mm(e);
	KUNIT_EXPECT_EQ(test, m_register(d, 0, 1), -EINVAL);
	KUNIT_EXPECT_EQ(test, m_pins(e), 1);
}

static void job_register_killed(struct m_job *j)
{
	send_sig(SIGKILL, current, 1);
	j->ret = m_register(j->d, 0, 1);
	flush_signals(current);
}

/* Signals of a worker are dealt with: a thread of its own takes them */
static int m_thread(void *data)
{
	struct m_job *j = data;

	allow_signal(SIGKILL);
	j->fn(j);
	complete_all(&j->done);
	return 0;
}

static int m_run_thread(struct kunit *test, void (*fn)(struct m_job *j),
			struct m_dev *d)
{
	struct m_job *j = m_job(test);
	struct task_struct *task;

	init_completion(&j->done);
	j->fn = fn;
	j->d = d;
	task = kthread_run(m_thread, j, "hmm_mirror_kunit");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	ASSERT_DONE(test, &j->done);
	return j->ret;
}

/* The first registration on an mm takes all its locks, and can be interrupted */
static void register_interrupted(struct kunit *test)
{
	struct m_env *e = test->priv;
	struct m_dev *d = m_dev(test);
	int pins = m_pins(e);

	m_map(test, 0, 2);
	KUNIT_EXPECT_EQ(test, m_run_thread(test, job_register_killed, d), -EINTR);
	KUNIT_EXPECT_EQ(test, m_pins(e), pins);
	KUNIT_EXPECT_EQ(test, m_register(d, 0, 1), 0);
	m_unregister(test, d);
	KUNIT_EXPECT_EQ(test, m_pins(e), pins);
}

/* Each hears of its own addresses, and all give back their pins */
static void many_in_one_mm(struct kunit *test)
{
	struct m_env *e = test->priv;
	struct m_dev *d[M_PAGES * 2];
	int pins = m_pins(e), i;

	for (i = 0; i < ARRAY_SIZE(d); i++)
		d[i] = m_mirror(test, i / 2, 1 + i % 2);
	m_bracket(e, 4, 1);
	for (i = 0; i < ARRAY_SIZE(d); i++)
		KUNIT_EXPECT_EQ_MSG(test, d[i]->invalidated,
				    i / 2 == 4 || (i / 2 == 3 && i % 2),
				    "mirror %d", i);
	for (i = 0; i < ARRAY_SIZE(d); i++) {
		/* In some other order than they came */
		m_unregister(test, d[i * 7 % ARRAY_SIZE(d)]);
		KUNIT_EXPECT_EQ(test, d[i * 7 % ARRAY_SIZE(d)]->freed, 1);
	}
	KUNIT_EXPECT_EQ(test, m_pins(e), pins);
}

static void again_after_unregister(struct kunit *test)
{
	struct m_dev *d = m_dev(test);
	int i;

	for (i = 1; i <= 3; i++) {
		d->released = 0;
		d->freed = 0;
		KUNIT_ASSERT_EQ(test, m_register(d, 0, 1), 0);
		m_bracket(test->priv, 0, 1);
		m_unregister(test, d);
		m_bracket(test->priv, 0, 1);
		KUNIT_EXPECT_EQ(test, d->invalidated, i);
		KUNIT_EXPECT_EQ(test, d->freed, 1);
	}
}

/* A reference keeps the mirror and the mm_struct, and nothing else */
static void references(struct kunit *test)
{
	struct m_env *e = test->priv;
	struct m_dev *d = m_mirror(test, 0, 1);

	m_map(test, 0, 1);
	hmm_mirror_get(&d->mirror);
	m_unregister(test, d);
	KUNIT_EXPECT_EQ(test, d->freed, 0);
	KUNIT_EXPECT_EQ(test, m_fault(d, 0, 1), -ESRCH);
	KUNIT_EXPECT_EQ(test, d->mapped, 0);
	m_exit_mm(e);
	/* Ours and the reference's */
	KUNIT_EXPECT_EQ(test, m_pins(e), 2);
	KUNIT_EXPECT_FALSE(test, hmm_mirror_mmget(&d->mirror));
	KUNIT_EXPECT_EQ(test, m_fault(d, 0, 1), -ESRCH);
	hmm_mirror_put(&d->mirror);
	KUNIT_EXPECT_EQ(test, d->freed, 1);
	KUNIT_EXPECT_EQ(test, m_pins(e), 1);
}

/* The process is gone first: the last mirror to go frees the mm_struct */
static void last_one_unpins(struct kunit *test)
{
	struct m_env *e = test->priv;
	struct m_dev *d[3];
	int i;

	for (i = 0; i < ARRAY_SIZE(d); i++)
		d[i] = m_mirror(test, i, 1);
	m_exit_mm(e);
	for (i = 0; i < ARRAY_SIZE(d); i++) {
		KUNIT_EXPECT_GT(test, m_pins(e), 1);
		m_unregister(test, d[i]);
	}
	KUNIT_EXPECT_EQ(test, m_pins(e), 1);
}

/* ---- Invalidation ---- */

static int owner_of_tests;

static const struct told {
	enum mmu_notifier_event event;
	unsigned int flags, access;
} told[] = {
	{ MMU_NOTIFY_UNMAP, 0, 0 },
	{ MMU_NOTIFY_CLEAR, 0, 0 },
	{ MMU_NOTIFY_PROTECTION_VMA, 0, 0 },
	{ MMU_NOTIFY_PROTECTION_VMA, MMU_NOTIFIER_RANGE_READ,
	  MMU_NOTIFIER_RANGE_READ },
	{ MMU_NOTIFY_PROTECTION_VMA,
	  MMU_NOTIFIER_RANGE_READ | MMU_NOTIFIER_RANGE_WRITE,
	  MMU_NOTIFIER_RANGE_READ | MMU_NOTIFIER_RANGE_WRITE },
	{ MMU_NOTIFY_PROTECTION_PAGE, 0, MMU_NOTIFIER_RANGE_READ },
	{ MMU_NOTIFY_SOFT_DIRTY, 0,
	  MMU_NOTIFIER_RANGE_READ | MMU_NOTIFIER_RANGE_WRITE },
	{ MMU_NOTIFY_MIGRATE, 0, 0 },
	{ MMU_NOTIFY_EXCLUSIVE, 0, 0 },
};

static void told_desc(const struct told *told, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "event %d flags %x", told->event,
		 told->flags);
}

KUNIT_ARRAY_PARAM(told, told, told_desc);

static void invalidate_is_told(struct kunit *test)
{
	const struct told *want = test->param_value;
	struct m_env *e = test->priv;
	struct m_dev *d = m_mirror(test, 2, 4);
	unsigned long seq = mmu_interval_read_begin(&d->mirror.sub);

	m_bracket_of(e, want->event, want->flags, &owner_of_tests, AT(0), AT(4),
		     false);
	KUNIT_EXPECT_EQ(test, d->invalidated, 1);
	KUNIT_EXPECT_TRUE(test, d->seen_locked);
	KUNIT_EXPECT_EQ(test, d->seen.event, want->event);
	KUNIT_EXPECT_PTR_EQ(test, d->seen.owner, (void *)&owner_of_tests);
	KUNIT_EXPECT_EQ(test, d->seen.start, AT(0));
	KUNIT_EXPECT_EQ(test, d->seen.end, AT(4));
	KUNIT_EXPECT_EQ(test, d->access, want->access);
	KUNIT_EXPECT_EQ(test, d->first, AT(2));
	KUNIT_EXPECT_EQ(test, d->last, AT(4) - 1);
	/* Whatever the device makes of it */
	KUNIT_EXPECT_TRUE(test, mmu_interval_read_retry(&d->mirror.sub, seq));
	m_unregister(test, d);
}

/* The real thing: what mprotect() leaves */
static void downgrade_by_mprotect(struct kunit *test)
{
	struct m_env *e = test->priv;
	struct m_dev *d = m_mirror(test, 0, 4);
	struct vm_area_struct *vma, *prev;
	struct vma_iterator vmi;
	struct mmu_gather tlb;
	int ret;

	m_map(test, 0, 4);
	KUNIT_EXPECT_EQ(test, m_fault(d, 0, 4), 0);
	mmap_write_lock(e->mm);
	vma_iter_init(&vmi, e->mm, AT(0));
	vma = vma_find(&vmi, AT(4));
	prev = vma_prev(&vmi);
	vma_iter_init(&vmi, e->mm, AT(0));
	vma_find(&vmi, AT(4));
	tlb_gather_mmu(&tlb, e->mm);
	ret = mprotect_fixup(&vmi, &tlb, vma, &prev, AT(0), AT(4),
			     vma->vm_flags & ~VM_WRITE);
	tlb_finish_mmu(&tlb);
	mmap_write_unlock(e->mm);
	KUNIT_ASSERT_EQ(test, ret, 0);
	KUNIT_EXPECT_EQ(test, d->seen.event, MMU_NOTIFY_PROTECTION_VMA);
	KUNIT_EXPECT_EQ(test, d->access, MMU_NOTIFIER_RANGE_READ);
	KUNIT_EXPECT_EQ(test, m_fault(d, 0, 1), -EPERM);
	m_unregister(test, d);
}

/* Somebody else has the lock: lockdep knows that its holder may not invalidate */
static void job_hold_lock(struct m_job *j)
{
	mutex_lock(&j->d->lock);
	m_gate_pass(&j->d->gate);
	mutex_unlock(&j->d->lock);
}

/* Nobody waits for the lock, and only those need it who are hit */
static void nonblocking(struct kunit *test)
{
	struct m_job *holder = m_job(test);
	struct m_env *e = test->priv;
	struct m_dev *d = m_mirror(test, 4, 4);
	unsigned long seq = mmu_interval_read_begin(&d->mirror.sub);

	d->gate.armed = 1;
	m_start_apart(holder, job_hold_lock, d);
	ASSERT_DONE(test, &d->gate.entered);
	KUNIT_EXPECT_EQ(test, m_nonblock(e, 4, 1), -EAGAIN);
	KUNIT_EXPECT_EQ(test, m_nonblock(e, 7, 2), -EAGAIN);
	KUNIT_EXPECT_EQ(test, m_nonblock(e, 3, 1), 0);
	KUNIT_EXPECT_EQ(test, m_nonblock(e, 8, 1), 0);
	KUNIT_EXPECT_EQ(test, d->invalidated, 0);
	KUNIT_EXPECT_FALSE(test, mmu_interval_read_retry(&d->mirror.sub, seq));
	complete_all(&d->gate.leave);
	ASSERT_DONE(test, &holder->done);

	KUNIT_EXPECT_EQ(test, m_nonblock(e, 4, 1), 0);
	KUNIT_EXPECT_EQ(test, d->invalidated, 1);
	KUNIT_EXPECT_FALSE(test, mmu_notifier_range_blockable(&d->seen));
	/* The driver may have reasons of its own */
	d->refuse = true;
	KUNIT_EXPECT_EQ(test, m_nonblock(e, 4, 1), -EAGAIN);
	KUNIT_EXPECT_FALSE(test, mutex_is_locked(&d->lock));
	m_unregister(test, d);
}

/* A mirror is of addresses: half of the mapping goes, the mirror does not */
static void half_unmapped(struct kunit *test)
{
	struct m_dev *d = m_mirror(test, 0, 8);
	struct m_dev *upper = m_mirror(test, 4, 4);

	m_map(test, 0, 8);
	KUNIT_EXPECT_EQ(test, m_fault(d, 0, 8), 0);
	KUNIT_EXPECT_EQ(test, d->npages, 8UL);
	d->invalidated = 0;
	upper->invalidated = 0;

	m_unmap(test, 4, 4);
	KUNIT_EXPECT_EQ(test, d->invalidated, 1);
	KUNIT_EXPECT_EQ(test, d->seen.event, MMU_NOTIFY_UNMAP);
	KUNIT_EXPECT_EQ(test, d->first, AT(4));
	KUNIT_EXPECT_EQ(test, d->last, AT(8) - 1);
	KUNIT_EXPECT_EQ(test, upper->invalidated, 1);

	KUNIT_EXPECT_EQ(test, m_fault(d, 0, 4), 0);
	KUNIT_EXPECT_EQ(test, m_fault(d, 4, 1), -EFAULT);
	KUNIT_EXPECT_EQ(test, m_fault(d, 0, 8), -EFAULT);
	KUNIT_EXPECT_EQ(test, m_fault(upper, 4, 4), -EFAULT);
	m_map(test, 4, 4);
	KUNIT_EXPECT_EQ(test, m_fault(d, 0, 8), 0);
	KUNIT_EXPECT_EQ(test, m_fault(upper, 4, 4), 0);
	m_unregister(test, upper);
	m_unregister(test, d);
}

/* ---- Faults ---- */

static void fault_arguments(struct kunit *test)
{
	struct m_dev *d = m_mirror(test, 2, 4);
	unsigned long pfns[M_PAGES];
	struct hmm_range range = { .hmm_pfns = pfns };
	static const struct { unsigned long start, end; } bad[] = {
		{ AT(1), AT(3) }, { AT(5), AT(7) }, { AT(0), AT(1) },
		{ AT(3), AT(3) }, { AT(4), AT(3) }, { AT(3) + 1, AT(4) },
		{ AT(3), AT(4) - 1 }, { AT(3), 0 },
	};
	int i;

	m_map(test, 0, M_PAGES);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		range.start = bad[i].start;
		range.end = bad[i].end;
		KUNIT_EXPECT_EQ_MSG(test, -EINVAL, hmm_mirror_fault(&d->mirror,
								    &range, 1),
				    "range %d", i);
	}
	range.start = AT(2);
	range.end = AT(6);
	range.pfn_flags_mask = HMM_PFN_REQ_FAULT;
	KUNIT_EXPECT_EQ(test, hmm_mirror_fault(&d->mirror, &range, 1), -EINVAL);
	range.pfn_flags_mask = 0;
	KUNIT_EXPECT_EQ(test, hmm_mirror_fault(&d->mirror, &range, 1), 0);
	KUNIT_EXPECT_EQ(test, d->mapped, 1);
	KUNIT_EXPECT_EQ(test, d->npages, 4UL);
	m_unregister(test, d);
}

/* Ranges in any form go through, also those that end early */
static void fault_outputs(struct kunit *test)
{
	const struct hmm_encoding enc = {
		.valid = BIT(0), .write = BIT(1), .pfn_shift = PAGE_SHIFT,
	};
	struct m_dev *d = m_mirror(test, 0, 4);
	struct hmm_extent extents[4];
	u64 entries[4] = {};
	struct hmm_range range = {
		.start = AT(0),
		.end = AT(4),
		.entries = entries,
		.encoding = &enc,
		.default_flags = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE,
	};
	int i;

	m_map(test, 0, 4);
	KUNIT_EXPECT_EQ(test, hmm_mirror_fault(&d->mirror, &range, HZ), 0);
	KUNIT_EXPECT_EQ(test, range.populated, 4UL);
	for (i = 0; i < ARRAY_SIZE(entries); i++)
		KUNIT_EXPECT_EQ(test, entries[i] & ~PAGE_MASK,
				(u64)(enc.valid | enc.write));

	m_unmap(test, 1, 1);
	range.encoding = NULL;
	range.extents = extents;
	range.max_extents = 1;
	range.default_flags = 0;
	d->mapped = 0;
	KUNIT_EXPECT_EQ(test, hmm_mirror_fault(&d->mirror, &range, HZ), 0);
	KUNIT_EXPECT_EQ(test, d->mapped, 1);
	KUNIT_EXPECT_EQ(test, range.nr_extents, 1UL);
	KUNIT_EXPECT_EQ(test, range.populated, 1UL);
	KUNIT_EXPECT_EQ(test, extents[0].flags,
			HMM_EXTENT_VALID | HMM_EXTENT_WRITE);
	m_unregister(test, d);
}

static void collide_once(struct m_env *e)
{
	e->on_fault = NULL;
	m_bracket(e, 0, 1);
}

/* What collided is not mapped */
static void fault_collides(struct kunit *test)
{
	struct m_env *e = test->priv;
	struct m_dev *d = m_mirror(test, 0, 1);

	m_map_slow(test, 0);
	e->on_fault = collide_once;
	KUNIT_EXPECT_EQ(test, m_fault(d, 0, 1), 0);
	KUNIT_EXPECT_EQ(test, d->invalidated, 1);
	KUNIT_EXPECT_EQ(test, d->mapped, 1);
	m_unregister(test, d);
}

/* The lock is dropped for memory; a collision meanwhile is found */
static void collide_unlocked(struct m_dev *d, unsigned int again)
{
	d->in_map = NULL;
	d->again = again;
	/* Not under the lock: the next call is after a collision */
	mutex_unlock(&d->lock);
	m_bracket(d->e, 0, 1);
	mutex_lock(&d->lock);
}

static void collide_and_map(struct m_dev *d)
{
	collide_unlocked(d, 1);
}

static void collide_and_want_memory(struct m_dev *d)
{
	collide_unlocked(d, 2);
}

/* One fault, and how often it was mapped and refilled */
static void m_fault_counted(struct kunit *test, struct m_dev *d, unsigned int mapped,
			    unsigned int refilled)
{
	d->mapped = 0;
	d->refilled = 0;
	KUNIT_EXPECT_EQ(test, m_fault(d, 0, 1), 0);
	KUNIT_EXPECT_EQ(test, d->mapped, mapped);
	KUNIT_EXPECT_EQ(test, d->refilled, refilled);
}

static void map_wants_memory(struct kunit *test)
{
	struct m_dev *d = m_mirror(test, 0, 1);

	m_map(test, 0, 1);
	d->again = 3;
	m_fault_counted(test, d, 4, 3);
	KUNIT_EXPECT_EQ(test, d->seq, d->seq_before);

	/* -EAGAIN, refill, collision: begin anew; 0 */
	d->in_map = collide_and_map;
	m_fault_counted(test, d, 2, 1);
	KUNIT_EXPECT_NE(test, d->seq, d->seq_before);

	/* -EAGAIN, refill, collision: begin anew; -EAGAIN, refill, 0 */
	d->in_map = collide_and_want_memory;
	m_fault_counted(test, d, 3, 2);

	d->again = 1;
	d->refill_error = -ENOMEM;
	KUNIT_EXPECT_EQ(test, m_fault(d, 0, 1), -ENOMEM);
	d->map_error = -ENOSPC;
	KUNIT_EXPECT_EQ(test, m_fault(d, 0, 1), -ENOSPC);
	m_unregister(test, d);
}

/* After some collisions the process is held up, where that can be done */
static void held_up(struct kunit *test)
{
	struct m_env *e = test->priv;
	struct m_dev *d = m_mirror(test, 0, M_PAGES);

	m_map(test, 0, 2);
	m_map_slow(test, 2);
	d->busy = 1;
	KUNIT_EXPECT_EQ(test, m_fault(d, 0, 2), 0);
	KUNIT_EXPECT_FALSE(test, d->held_up);
	d->busy = 8;
	KUNIT_EXPECT_EQ(test, m_fault(d, 0, 2), 0);
	KUNIT_EXPECT_TRUE(test, d->held_up);
	KUNIT_EXPECT_FALSE(test, rwsem_is_locked(&e->mm->mmap_lock));
	d->busy = 8;
	KUNIT_EXPECT_EQ(test, m_fault(d, 0, 3), 0);
	KUNIT_EXPECT_FALSE(test, d->held_up);
	m_unregister(test, d);
}

static void fault_times_out(struct kunit *test)
{
	struct m_dev *d = m_mirror(test, 0, 1);
	unsigned long began = jiffies;

	m_map(test, 0, 1);
	d->busy = UINT_MAX;
	KUNIT_EXPECT_EQ(test, m_fault_for(d, 0, 1, HZ / 20), -EBUSY);
	KUNIT_EXPECT_GE(test, (long)(jiffies - began), (long)HZ / 20);
	KUNIT_EXPECT_GT(test, d->mapped, 1);
	m_unregister(test, d);
}

static void kill_us(struct m_dev *d)
{
	if (d->mapped == 10)
		send_sig(SIGKILL, current, 1);
}

static void job_fault_for_ever(struct m_job *j)
{
	j->ret = m_fault_for(j->d, 0, 1, 0);
	flush_signals(current);
}

static void fault_killed(struct kunit *test)
{
	struct m_dev *d = m_mirror(test, 0, 1);

	m_map(test, 0, 1);
	d->busy = UINT_MAX;
	d->in_map = kill_us;
	KUNIT_EXPECT_EQ(test, m_run_thread(test, job_fault_for_ever, d), -EINTR);
	m_unregister(test, d);
}

/* The process goes while a worker collides: the worker would keep it for ever */
static void exit_in_map(struct m_dev *d)
{
	if (d->mapped == 3)
		m_exit_mm(d->e);
}

static void fault_for_nobody(struct kunit *test)
{
	struct m_dev *d = m_mirror(test, 0, 1);
	struct m_job *j = m_job(test);

	m_map(test, 0, 1);
	d->busy = UINT_MAX;
	d->in_map = exit_in_map;
	m_start(j, job_fault_for_ever, d);
	ASSERT_DONE(test, &j->done);
	KUNIT_EXPECT_EQ(test, j->ret, -ESRCH);
	ASSERT_DONE(test, &d->over);
	m_unregister(test, d);
}

/* ---- The end ---- */

static void release_by_unregister(struct kunit *test)
{
	struct m_dev *d = m_mirror(test, 0, 1);

	m_unregister(test, d);
	KUNIT_EXPECT_EQ(test, d->invalidated, 0);
	m_exit_mm(test->priv);
	KUNIT_EXPECT_EQ(test, d->released, 1);
}

static void release_by_exit(struct kunit *test)
{
	struct m_dev *d = m_mirror(test, 0, 1);

	m_map(test, 0, 1);
	KUNIT_EXPECT_EQ(test, m_fault(d, 0, 1), 0);
	d->invalidated = 0;
	m_exit_mm(test->priv);
	KUNIT_EXPECT_EQ(test, d->released, 1);
	KUNIT_EXPECT_EQ(test, d->invalidated_before, 1);
	KUNIT_EXPECT_EQ(test, d->event_before, MMU_NOTIFY_RELEASE);
	/* Nothing was freed before that */
	KUNIT_EXPECT_EQ(test, d->invalidated, 2);
	KUNIT_EXPECT_EQ(test, d->seen.event, MMU_NOTIFY_UNMAP);
	KUNIT_EXPECT_EQ(test, d->freed, 0);
	KUNIT_EXPECT_EQ(test, m_fault(d, 0, 1), -ESRCH);
	m_unregister(test, d);
	KUNIT_EXPECT_EQ(test, d->freed, 1);
}

/* Whoever comes second waits for the release that the first has begun */
static void exit_meets_unregister(struct kunit *test)
{
	struct m_dev *d = m_mirror(test, 0, 1);
	struct m_job *first = m_job(test), *second = m_job(test);

	d->gate.armed = 1;
	m_start_apart(first, job_unregister, d);
	ASSERT_DONE(test, &d->gate.entered);
	m_start_apart(second, job_exit, d);
	EXPECT_WAITS(test, &second->done);
	complete_all(&d->gate.leave);
	ASSERT_DONE(test, &first->done);
	ASSERT_DONE(test, &second->done);
	KUNIT_EXPECT_EQ(test, d->released, 1);
	KUNIT_EXPECT_EQ(test, d->freed, 1);
}

static void unregister_meets_exit(struct kunit *test)
{
	struct m_dev *d = m_mirror(test, 0, 1);
	struct m_job *first = m_job(test), *second = m_job(test);

	d->gate.armed = 1;
	m_start_apart(first, job_exit, d);
	ASSERT_DONE(test, &d->gate.entered);
	m_start_apart(second, job_unregister, d);
	EXPECT_WAITS(test, &second->done);
	KUNIT_EXPECT_EQ(test, d->freed, 0);
	complete_all(&d->gate.leave);
	ASSERT_DONE(test, &first->done);
	ASSERT_DONE(test, &second->done);
	KUNIT_EXPECT_EQ(test, d->released, 1);
	KUNIT_EXPECT_EQ(test, d->freed, 1);
}

static void list_release(struct mmu_notifier *mn, struct mm_struct *mm)
{
}

static const struct mmu_notifier_ops list_ops = { .release = list_release };

/* Waits for every read section of list callbacks, so we are in none */
static void release_elsewhere(struct m_dev *d)
{
	struct mm_struct *mm = mm_alloc();
	struct mmu_notifier mn = { .ops = &list_ops };

	d->odd += mutex_is_locked(&d->lock) ||
		  rwsem_is_locked(&d->e->mm->mmap_lock) || rcu_preempt_depth();
#ifdef CONFIG_LOCKDEP
	d->odd += lock_is_held(&__mmu_notifier_invalidate_range_start_map) ==
		  LOCK_STATE_HELD;
#endif
	d->odd += mmu_interval_wait_timeout(&d->mirror.sub, 0, ULONG_MAX, 1) != 0;
	if (!mm)
		return;
	if (!mmu_notifier_register(&mn, mm))
		mmu_notifier_unregister(&mn, mm);
	mmput(mm);
}

static void release_holds_nothing(struct kunit *test)
{
	struct m_dev *d = m_mirror(test, 0, 1);
	struct m_job *j = m_job(test);

	d->in_release = release_elsewhere;
	m_start_apart(j, job_exit, d);
	ASSERT_DONE(test, &j->done);
	KUNIT_EXPECT_EQ(test, d->odd, 0);
	m_unregister(test, d);
}

/* A release that takes long holds up its own exit, and nobody else */
static void release_takes_long(struct kunit *test)
{
	struct m_dev *slow = m_mirror(test, 0, 1), *other = m_mirror(test, 0, 1);
	struct m_job *j = m_job(test), *leaver = m_job(test);

	slow->gate.armed = 1;
	m_start_apart(j, job_exit, slow);
	ASSERT_DONE(test, &slow->gate.entered);
	m_start_apart(leaver, job_unregister, other);
	ASSERT_DONE(test, &leaver->done);
	EXPECT_WAITS(test, &j->done);
	complete_all(&slow->gate.leave);
	ASSERT_DONE(test, &j->done);
	KUNIT_EXPECT_EQ(test, other->released, 1);
	m_unregister(test, slow);
}

/*
 * The process is killed while a worker is inside a page fault for it. Exit waits
 * for the fault, release waits for the worker, and the worker for nobody.
 */
static void exit_with_worker_in_fault(struct kunit *test)
{
	struct m_env *e = test->priv;
	struct m_dev *d = m_mirror(test, 0, 1);
	struct m_job *j, *next = m_job(test);

	m_map_slow(test, 0);
	d->flush = true;
	j = m_stop_in_fault(test, d);
	m_exit_mm(e);
	EXPECT_WAITS(test, &d->over);
	KUNIT_EXPECT_EQ(test, d->released, 0);
	KUNIT_EXPECT_GT(test, atomic_read(&e->mm->mm_users), 0);

	complete_all(&e->fault.leave);
	ASSERT_DONE(test, &j->done);
	KUNIT_EXPECT_EQ(test, j->ret, 0);
	ASSERT_DONE(test, &d->over);
	KUNIT_EXPECT_EQ(test, d->event_before, MMU_NOTIFY_RELEASE);
	m_start(next, job_fault, d);
	ASSERT_DONE(test, &next->done);
	KUNIT_EXPECT_EQ(test, next->ret, -ESRCH);
	m_unregister(test, d);
}

/* The driver leaves, and its release waits for a worker inside a page fault */
static void release_waits_for_fault(struct kunit *test)
{
	struct m_env *e = test->priv;
	struct m_dev *d = m_mirror(test, 0, 1);
	struct m_job *j, *leaver = m_job(test);

	m_map_slow(test, 0);
	d->flush = true;
	j = m_stop_in_fault(test, d);
	m_start_apart(leaver, job_unregister, d);
	EXPECT_WAITS(test, &leaver->done);
	/* Invalidations go on meanwhile */
	m_bracket(e, 0, 1);
	KUNIT_EXPECT_EQ(test, d->invalidated, 1);
	complete_all(&e->fault.leave);
	ASSERT_DONE(test, &leaver->done);
	ASSERT_DONE(test, &j->done);
	KUNIT_EXPECT_EQ(test, j->ret, -ESRCH);
	KUNIT_EXPECT_EQ(test, d->mapped, 0);
	KUNIT_EXPECT_EQ(test, d->odd, 0);
}

/* The driver leaves, and the worker follows by its reference */
static void unregister_in_fault(struct kunit *test)
{
	struct m_env *e = test->priv;
	struct m_dev *d = m_mirror(test, 0, 1);
	struct m_job *j;

	m_map_slow(test, 0);
	hmm_mirror_get(&d->mirror);
	j = m_stop_in_fault(test, d);
	m_unregister(test, d);
	KUNIT_EXPECT_EQ(test, d->freed, 0);
	complete_all(&e->fault.leave);
	ASSERT_DONE(test, &j->done);
	KUNIT_EXPECT_EQ(test, j->ret, -ESRCH);
	KUNIT_EXPECT_EQ(test, d->mapped, 0);
	hmm_mirror_put(&d->mirror);
	KUNIT_EXPECT_EQ(test, d->freed, 1);
}

#ifdef CONFIG_DEVICE_MIGRATION
static void job_migrate(struct m_job *j)
{
	struct m_env *e = j->d->e;
	unsigned long src[4] = {}, dst[4] = {};
	struct migrate_vma mig = {
		.start = AT(0),
		.end = AT(4),
		.src = src,
		.dst = dst,
		.pgmap_owner = &owner_of_tests,
		.flags = MIGRATE_VMA_SELECT_SYSTEM,
	};

	if (!hmm_mirror_mmget(&j->d->mirror))
		return;
	mmap_read_lock(e->mm);
	mig.vma = vma_lookup(e->mm, AT(0));
	j->ret = mig.vma ? migrate_vma_setup(&mig) : -EFAULT;
	m_gate_pass(&e->fault);
	if (!j->ret) {
		migrate_vma_pages(&mig);
		migrate_vma_finalize(&mig);
	}
	mmap_read_unlock(e->mm);
	hmm_mirror_mmput(&j->d->mirror);
}

/* The same inside a migration, entries of which stand in the page table */
static void release_waits_for_migration(struct kunit *test)
{
	struct m_env *e = test->priv;
	struct m_dev *d = m_mirror(test, 0, 4);
	struct m_job *j = m_job(test), *leaver = m_job(test);

	m_map(test, 0, 4);
	KUNIT_EXPECT_EQ(test, m_fault(d, 0, 4), 0);
	d->flush = true;
	e->fault.armed = 1;
	m_start(j, job_migrate, d);
	ASSERT_DONE(test, &e->fault.entered);
	KUNIT_EXPECT_EQ(test, d->seen.event, MMU_NOTIFY_MIGRATE);
	KUNIT_EXPECT_PTR_EQ(test, d->seen.owner, (void *)&owner_of_tests);
	m_start_apart(leaver, job_unregister, d);
	EXPECT_WAITS(test, &leaver->done);
	complete_all(&e->fault.leave);
	ASSERT_DONE(test, &leaver->done);
	ASSERT_DONE(test, &j->done);
	KUNIT_EXPECT_EQ(test, j->ret, 0);
	KUNIT_EXPECT_EQ(test, d->odd, 0);
}

/* And with the process gone: the last reference is the worker's */
static void exit_with_worker_in_migration(struct kunit *test)
{
	struct m_env *e = test->priv;
	struct m_dev *d = m_mirror(test, 0, 4);
	struct m_job *j = m_job(test);

	m_map(test, 0, 4);
	KUNIT_EXPECT_EQ(test, m_fault(d, 0, 4), 0);
	d->flush = true;
	e->fault.armed = 1;
	m_start(j, job_migrate, d);
	ASSERT_DONE(test, &e->fault.entered);
	m_exit_mm(e);
	EXPECT_WAITS(test, &d->over);
	complete_all(&e->fault.leave);
	ASSERT_DONE(test, &d->over);
	ASSERT_DONE(test, &j->done);
	m_unregister(test, d);
}
#endif

/* ---- Storm ---- */

struct m_storm {
	struct m_dev *d;	/* stands all the time */
	struct m_env *e;
	unsigned long end;
	atomic_t rounds, faults, brackets, trouble;
};

static void storm_comes_and_goes(struct m_storm *s)
{
	struct m_dev *d = kzalloc(sizeof(*d), GFP_KERNEL);
	int i, ret;

	while (d && time_before(jiffies, s->end)) {
		memset(d, 0, sizeof(*d));
		m_dev_init(d, s->e);
		if (m_register(d, 0, 4)) {
			atomic_inc(&s->trouble);
			continue;
		}
		for (i = 0; i < 3; i++) {
			ret = m_fault(d, i, 1);
			if (ret && ret != -EBUSY)
				atomic_inc(&s->trouble);
		}
		hmm_mirror_unregister(&d->mirror);
		atomic_add(d->odd || d->released != 1 || d->freed != 1,
			   &s->trouble);
		mutex_destroy(&d->lock);
		atomic_inc(&s->rounds);
		cond_resched();
	}
	kfree(d);
}

static void storm_faults(struct m_storm *s)
{
	int ret;

	while (time_before(jiffies, s->end)) {
		ret = m_fault(s->d, 0, 4);
		atomic_add(ret && ret != -EBUSY, &s->trouble);
		atomic_add(!ret, &s->faults);
		cond_resched();
	}
}

static void storm_brackets(struct m_storm *s)
{
	int i;

	for (i = 0; time_before(jiffies, s->end); i++) {
		mmap_read_lock(s->e->mm);
		if (i % 8)
			m_bracket(s->e, i % 4, 1);
		else
			m_nonblock(s->e, i % 4, 1);
		mmap_read_unlock(s->e->mm);
		atomic_inc(&s->brackets);
		cond_resched();
	}
}

static void (*const storm_parts[])(struct m_storm *s) = {
	storm_comes_and_goes, storm_comes_and_goes, storm_faults, storm_brackets,
};

struct m_part {
	struct m_job j;
	struct m_storm *s;
	void (*fn)(struct m_storm *s);
};

static void job_part(struct m_job *j)
{
	struct m_part *part = container_of(j, struct m_part, j);

	part->fn(part->s);
}

static void storm(struct kunit *test)
{
	struct m_storm *s = kunit_kzalloc(test, sizeof(*s), GFP_KERNEL);
	struct m_part *parts;
	int i;

	parts = kunit_kcalloc(test, ARRAY_SIZE(storm_parts), sizeof(*parts),
			      GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, s);
	KUNIT_ASSERT_NOT_NULL(test, parts);
	m_map(test, 0, 4);
	s->e = test->priv;
	s->d = m_mirror(test, 0, 4);
	s->end = jiffies + M_STORM;
	for (i = 0; i < ARRAY_SIZE(storm_parts); i++) {
		parts[i].s = s;
		parts[i].fn = storm_parts[i];
		m_start(&parts[i].j, job_part, s->d);
	}
	for (i = 0; i < ARRAY_SIZE(storm_parts); i++)
		ASSERT_DONE(test, &parts[i].j.done);
	KUNIT_EXPECT_EQ(test, atomic_read(&s->trouble), 0);
	KUNIT_EXPECT_GT(test, atomic_read(&s->rounds), 0);
	KUNIT_EXPECT_GT(test, atomic_read(&s->faults), 0);
	kunit_info(test, "%d rounds, %d faults, %d brackets",
		   atomic_read(&s->rounds), atomic_read(&s->faults),
		   atomic_read(&s->brackets));
	m_unregister(test, s->d);
}

static struct kunit_case m_cases[] = {
	KUNIT_CASE_PARAM(register_refused, refusal_gen_params),
	KUNIT_CASE(register_without_users),
	KUNIT_CASE(register_interrupted),
	KUNIT_CASE(many_in_one_mm),
	KUNIT_CASE(again_after_unregister),
	KUNIT_CASE(references),
	KUNIT_CASE(last_one_unpins),
	KUNIT_CASE_PARAM(invalidate_is_told, told_gen_params),
	KUNIT_CASE(downgrade_by_mprotect),
	KUNIT_CASE(nonblocking),
	KUNIT_CASE(half_unmapped),
	KUNIT_CASE(fault_arguments),
	KUNIT_CASE(fault_outputs),
	KUNIT_CASE(fault_collides),
	KUNIT_CASE(map_wants_memory),
	KUNIT_CASE(held_up),
	KUNIT_CASE(fault_times_out),
	KUNIT_CASE(fault_killed),
	KUNIT_CASE(fault_for_nobody),
	KUNIT_CASE(release_by_unregister),
	KUNIT_CASE(release_by_exit),
	KUNIT_CASE(exit_meets_unregister),
	KUNIT_CASE(unregister_meets_exit),
	KUNIT_CASE(release_holds_nothing),
	KUNIT_CASE(release_takes_long),
	KUNIT_CASE(exit_with_worker_in_fault),
	KUNIT_CASE(release_waits_for_fault),
	KUNIT_CASE(unregister_in_fault),
#ifdef CONFIG_DEVICE_MIGRATION
	KUNIT_CASE(release_waits_for_migration),
	KUNIT_CASE(exit_with_worker_in_migration),
#endif
	KUNIT_CASE_SLOW(storm),
	{}
};

static struct kunit_suite hmm_mirror_suite = {
	.name = "hmm_mirror",
	.init = m_init,
	.exit = m_exit,
	.test_cases = m_cases,
};

kunit_test_suite(hmm_mirror_suite);

MODULE_DESCRIPTION("KUnit tests of mirrors of address spaces");
MODULE_LICENSE("GPL");
