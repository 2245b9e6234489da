// SPDX-License-Identifier: GPL-2.0
/*
 * Mirrors of address spaces: the loop of a fault, and the end of a process
 */

/**
 * DOC: Mirrors
 *
 * A *mirror* is a device's own page table for a range of addresses of a process.
 * A driver gives an mm, a range, a lock, and three callbacks: @invalidate takes
 * entries out, @map enters what a fault has found, @release ends it all. What lies
 * between is done here: beginning, faulting, trying again after a collision,
 * holding the process up if that does not help, the check under the lock, and the
 * way a mirror ends.
 *
 * There is no object for each mm, and a fault allocates nothing: a mirror is an
 * interval subscription with a lock. A process may have any number of them, of one
 * driver or of many, side by side or over the same addresses. They know nothing of
 * each other.
 *
 * A mirror is of addresses, not of mappings. If the process unmaps half of it, the
 * mirror stays what it is: @invalidate is told of the half that goes, with
 * MMU_NOTIFY_UNMAP, and may free its tables there; a fault in that half fails
 * with -EFAULT, one in the other half does not notice; and whatever the process
 * maps there later is found by the next fault, as if it had been there from the
 * start. To tell which parts are mapped is up to mmap() and the like, and a driver
 * that wants to follow them unregisters the mirror and registers two.
 *
 * A mirror is counted: hmm_mirror_register() makes the first reference, and
 * hmm_mirror_unregister() drops it. Whoever else uses the mirror, a worker most
 * likely, has a reference of its own for as long. A reference keeps the memory of
 * the mirror and the mm_struct, nothing more: neither the process, nor its pages,
 * nor its page tables. The last one to go unpins the mm.
 */

/**
 * DOC: Commit
 *
 * What a fault has read is entered in the device's page table under the lock that
 * @invalidate takes, and only after a look for collisions under that same lock.
 * Whichever of the two comes first, nothing stale is left::
 *
 *	hmm_mirror_fault()		CPU
 *	------------------		---
 *	begin: seq
 *	hmm_range_fault(): the page
 *					lock, new seq, invalidate(), unlock
 *					clear the entry, free the page
 *	lock
 *	has seq changed? yes
 *	unlock, begin again		=> map() is not called
 *
 *	begin: seq
 *	hmm_range_fault(): the page
 *	lock
 *	has seq changed? no
 *	map(), unlock
 *					lock, new seq, invalidate(), unlock
 *					clear the entry, free the page
 *					=> the entry is out before the page is
 *
 * The new sequence value is stored for every event, also for one that @invalidate
 * has no use for. A driver that leaves its entries alone over an event knows that
 * they stay right; of an entry that is being read just then nobody knows, and to
 * read it again is cheap.
 *
 * If @map has to allocate, it says so by -EAGAIN. The lock is dropped, @refill gets
 * the memory, and everything from taking the lock on is done again, the look for
 * collisions included. What @map had entered until then is right, or has been
 * taken out by @invalidate.
 *
 * A fault that has collided several times takes the locks by which the process
 * changes its mappings, see DOC: Getting through in mm/hmm.c. It does so only
 * where all memory in the range is anonymous, shared anonymous or of hugetlb, and
 * no userfaultfd is registered: such a fault waits for the kernel alone. Others may
 * wait for the very process that would be held up.
 */

/**
 * DOC: The end of a mirror
 *
 * A mirror ends in one of two ways, and @release is called once.
 *
 * By *exit*: the last user of the mm has gone. First comes an invalidation of
 * everything, MMU_NOTIFY_RELEASE, under the rules of all invalidations: the
 * device's entries go. When it is over @release is called, before the CPU's page
 * tables and pages are freed; @invalidate is told of that, too, and finds nothing. The
 * mirror still has to be unregistered, now or later; until then it pins the
 * mm_struct.
 *
 * By hmm_mirror_unregister(): @release is called while the process lives, and the
 * pages are still mapped. Invalidations may go on until it has returned.
 *
 * Held around @release: nothing of ours. No lock, no invalidation, no read section of
 * SRCU or RCU, no reference on the users of the mm. The caller of the last mmput() may
 * hold locks of its own: execve() holds exec_update_lock and cred_guard_mutex, and
 * who reads /proc/PID/maps the lock of that file. A worker that @release waits for
 * must not take those, and current may be any task. (It is not a list subscription
 * for that reason, too: those are released inside a read section that every
 * mmu_notifier_unregister() in the system waits for. And one for each mirror would
 * stop all of the process' page-table changes to be registered.) So @release may
 * wait for a workqueue of the driver whose worker is inside a fault, or inside
 * migrate_vma_setup() or any other part of a migration: what such a worker waits
 * for goes on.
 *
 * A worker inside a fault holds a reference on the users of the mm, and exit does
 * not begin before that is dropped. So at exit none is inside a fault on that
 * mirror, nor ever will be again: a further fault fails with -ESRCH. This is the
 * order of things when a process is killed while a worker faults for it::
 *
 *	threads of the process		worker of the driver
 *	----------------------		--------------------
 *					hmm_mirror_fault(): users + 1
 *					  inside a page fault
 *	killed: users - 1, not 0
 *	files are closed
 *	gone
 *					  the page is there; map()
 *					users - 1 = 0, by mmput_async()
 *					  next item: -ESRCH, returns
 *	system workqueue: exit
 *	  invalidate(), release()
 *	    flush the driver's queue	  returns
 *	  the pages are freed
 *
 * The last reference is dropped by mmput_async(), which has the exit done by a
 * system workqueue. Were it mmput(), the worker itself would run the exit, and
 * @release would wait for the worker that it runs in.
 *
 * The signal that kills a process does not reach a worker, but what a page fault
 * waits for comes about without the process: disks answer, and a userfaultfd is
 * closed with the other files of its owner, which ends the fault. If the owner is
 * another process, it is that one's word that counts; a driver that cannot wait for
 * it says so, @no_userfault. Between two tries a worker looks whether the mirror has
 * ended or it is the last user, and gives up. Several workers that collide without an
 * end keep the mm for one another: against that, and against collisions that others
 * cause in files, a worker has a timeout.
 *
 * What follows for a worker that @release waits for. It must not
 *
 * * drop a reference on the users of the mm by mmput(): hmm_mirror_mmput() is for
 *   that, after hmm_mirror_mmget();
 * * call hmm_mirror_unregister() on that mirror;
 * * wait for the exit of the process, or for anything that its files' release
 *   does, the driver's own file included;
 * * run on one of the system's workqueues, nor take a lock that is held by whoever
 *   calls hmm_mirror_unregister().
 *
 * A file's release that calls hmm_mirror_unregister() may run in the exit of a
 * process before the file is closed that a worker's page fault waits for, a
 * userfaultfd. There @release must not wait for workers that fault. It need not:
 * they have references on the mirror, @map is not called any more, and @free comes
 * after the last of them.
 */

/**
 * DOC: Locking of mirrors
 *
 * Lock order, outermost first::
 *
 *	mm->mmap_lock			by hmm_mirror_fault()
 *	  locks of the VMAs, i_mmap_rwsem, folio locks: around invalidations
 *	    mirror->lock		around map() and invalidate()
 *	      locks of the driver's inside
 *
 * The lock is a mutex of the driver's, which several mirrors may share. A device
 * whose table is also guarded by a spinlock takes that inside the callbacks.
 * Whoever uses an entry of the table does so under one of them.
 *
 * Reclaim may wait for the lock, by way of an invalidation. Nothing is allocated
 * under it with a right to reclaim, and no user memory is touched. In an
 * invalidation that must not wait, the lock is tried: if somebody has it, the
 * invalidation of addresses of this mirror is refused.
 */

#include <linux/export.h>
#include <linux/hmm.h>
#include <linux/hmm_mirror.h>
#include <linux/hugetlb_inline.h>
#include <linux/jiffies.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/sched/mm.h>
#include <linux/shmem_fs.h>
#include <linux/userfaultfd_k.h>

/*
 * The first collision may be our own: a page that is copied on a write is taken
 * from the device, too. With more of them somebody is at work on this range.
 */
#define MIRROR_TRIES	4
/* How long one try may go on by itself, in jiffies */
#define MIRROR_SLICE	max(HZ / 50, 1)

static struct hmm_mirror *mirror_of(struct mmu_interval_notifier *sub)
{
	return container_of(sub, struct hmm_mirror, sub);
}

/* ---- The end ---- */

/* Whoever comes second, exit or unregistration, waits for the first */
static void mirror_end(struct hmm_mirror *mirror)
{
	bool ended;

	mutex_lock(mirror->lock);
	ended = mirror->ended;
	WRITE_ONCE(mirror->ended, true);
	mutex_unlock(mirror->lock);

	if (ended) {
		wait_for_completion(&mirror->released);
		return;
	}
	mirror->ops->release(mirror);
	complete_all(&mirror->released);
}

static void mirror_exit(struct mmu_interval_notifier *sub)
{
	mirror_end(mirror_of(sub));
}

/* ---- Invalidation ---- */

static bool mirror_invalidate(struct mmu_interval_notifier *sub,
			      const struct mmu_notifier_range *range,
			      unsigned long cur_seq)
{
	struct hmm_mirror *mirror = mirror_of(sub);
	bool done;

	if (mmu_notifier_range_blockable(range))
		mutex_lock(mirror->lock);
	else if (!mutex_trylock(mirror->lock))
		return false;

	/* For every event, see DOC: Commit; also for a mirror that has ended */
	mmu_interval_set_seq(sub, cur_seq);
	done = mirror->ops->invalidate(mirror, range);
	mutex_unlock(mirror->lock);
	return done;
}

static const struct mmu_interval_notifier_ops mirror_sub_ops = {
	.invalidate = mirror_invalidate,
	.release = mirror_exit,
};

/* ---- Coming and going ---- */

/**
 * hmm_mirror_register() - begin to mirror a range of addresses
 * @mirror: need not be initialised
 * @mm: the address space, pinned by mm_users
 * @start: first byte, page aligned
 * @length: in bytes, page aligned; ULONG_MAX & PAGE_MASK from 0 on is everything
 * @ops: with invalidate, map and release
 * @lock: guards the device's page table, see DOC: Locking of mirrors
 *
 * The device's table is empty. Callbacks may be called before this returns, with
 * all of @mirror set up. The driver's own part of the object has to be ready, and
 * so does the lock.
 *
 * A successful call is followed by hmm_mirror_unregister(), also if the process
 * has exited.
 *
 * Context: Process context, sleeps. The first registration on an mm takes its mmap
 * lock for writing.
 * Return: 0; -EINVAL if a callback or the lock is missing, @start or @length is not
 * page aligned, or nobody uses @mm any more; -EOVERFLOW if @length is 0 or the
 * range wraps; -ENOMEM; -EINTR on a pending signal. On error nothing is left
 * behind, and @mirror is not looked at any more.
 */
int hmm_mirror_register(struct hmm_mirror *mirror, struct mm_struct *mm,
			unsigned long start, unsigned long length,
			const struct hmm_mirror_ops *ops, struct mutex *lock)
{
	int ret;

	if (!lock || !ops || !ops->invalidate || !ops->map || !ops->release)
		return -EINVAL;
	if (offset_in_page(start | length))
		return -EINVAL;

	mirror->ops = ops;
	mirror->lock = lock;
	mirror->ended = false;
	mirror->registered = 1;
	init_completion(&mirror->released);
	refcount_set(&mirror->refs, 1);

	/* The references on the mirror keep the mm, not the subscription alone */
	mmgrab(mm);
	ret = mmu_interval_notifier_insert(&mirror->sub, mm, start, length,
					   &mirror_sub_ops);
	if (ret) {
		mirror->registered = 0;
		mmdrop(mm);
	}
	return ret;
}
EXPORT_SYMBOL_GPL(hmm_mirror_register);

/**
 * hmm_mirror_unregister() - end a mirror
 * @mirror: from hmm_mirror_register()
 *
 * Calls release, or waits for it if the exit of the process has begun to. On return
 * none of invalidate, map and release runs or will run, a fault that is under way
 * ends with -ESRCH at the latest when its pages are there, and the first reference is
 * dropped. To do it twice is warned of, and nothing happens, provided that the memory
 * is still there.
 *
 * Context: Process context, sleeps. Not from a callback of a mirror, nor with
 * @mirror->lock or a lock held that release waits for, one way or another. The mmap
 * lock may be held only if release does not wait for a fault.
 */
void hmm_mirror_unregister(struct hmm_mirror *mirror)
{
	if (WARN_ON_ONCE(!xchg(&mirror->registered, 0)))
		return;

	mirror_end(mirror);
	mmu_interval_notifier_remove(&mirror->sub);
	hmm_mirror_put(mirror);
}
EXPORT_SYMBOL_GPL(hmm_mirror_unregister);

/**
 * hmm_mirror_get() - keep a mirror
 * @mirror: to which the caller has a reference already, or is inside a callback
 *
 * Context: Any.
 */
void hmm_mirror_get(struct hmm_mirror *mirror)
{
	refcount_inc(&mirror->refs);
}
EXPORT_SYMBOL_GPL(hmm_mirror_get);

/**
 * hmm_mirror_put() - let go of a mirror
 * @mirror: which the caller does not touch any more
 *
 * The last one unpins the mm, and calls free.
 *
 * Context: Any in which free may be called.
 */
void hmm_mirror_put(struct hmm_mirror *mirror)
{
	struct mm_struct *mm = mirror->sub.mm;

	if (!refcount_dec_and_test(&mirror->refs))
		return;
	if (mirror->ops->free)
		mirror->ops->free(mirror);
	mmdrop(mm);
}
EXPORT_SYMBOL_GPL(hmm_mirror_put);

/**
 * hmm_mirror_mmget() - keep a process from exiting
 * @mirror: the mirror
 *
 * For what needs the process beside hmm_mirror_fault(), which does so itself: a
 * migration. Only for as long as that takes.
 *
 * Context: Any.
 * Return: true, if hmm_mirror_mmput() is to follow; false if the process is gone.
 */
bool hmm_mirror_mmget(struct hmm_mirror *mirror)
{
	return mmget_not_zero(mirror->sub.mm);
}
EXPORT_SYMBOL_GPL(hmm_mirror_mmget);

/**
 * hmm_mirror_mmput() - let a process exit
 * @mirror: after hmm_mirror_mmget()
 *
 * If the caller is the last user, the exit is run by a system workqueue, so that
 * release can wait for the caller.
 *
 * Context: Any.
 */
void hmm_mirror_mmput(struct hmm_mirror *mirror)
{
	mmput_async(mirror->sub.mm);
}
EXPORT_SYMBOL_GPL(hmm_mirror_mmput);

/* ---- Faults ---- */

static int mirror_commit_once(struct hmm_mirror *mirror, struct hmm_range *range)
{
	int ret;

	mutex_lock(mirror->lock);
	if (mirror->ended)
		ret = -ESRCH;
	else if (mmu_interval_read_retry(&mirror->sub, range->notifier_seq))
		ret = -EBUSY;
	else
		ret = mirror->ops->map(mirror, range);
	mutex_unlock(mirror->lock);
	return ret;
}

static int mirror_commit(struct hmm_mirror *mirror, struct hmm_range *range)
{
	int ret;

	for (;;) {
		ret = mirror_commit_once(mirror, range);
		if (ret != -EAGAIN || !mirror->ops->refill)
			return ret;
		ret = mirror->ops->refill(mirror, range);
		if (ret)
			return ret;
		if (fatal_signal_pending(current))
			return -EINTR;
	}
}

/* One try, the mmap lock is held */
static int mirror_try_locked(struct hmm_mirror *mirror, struct hmm_range *range)
{
	int ret;

	ret = mmu_interval_read_begin_timeout(&mirror->sub, &range->notifier_seq,
					      MIRROR_SLICE);
	if (ret)
		return ret;
	ret = hmm_range_fault(range);
	return ret ?: mirror_commit(mirror, range);
}

static int mirror_try_shared(struct hmm_mirror *mirror, struct hmm_range *range)
{
	int ret;

	ret = hmm_range_fault_unlocked_timeout(range, MIRROR_SLICE);
	return ret ?: mirror_commit(mirror, range);
}

/* Can all of the range be faulted in while the process is held up? */
static bool mirror_may_hold(const struct hmm_range *range)
{
	struct vm_area_struct *vma;
	struct vma_iterator vmi;

	vma_iter_init(&vmi, range->notifier->mm, range->start);
	for_each_vma_range(vmi, vma, range->end) {
		if (userfaultfd_armed(vma))
			return false;
		if (!vma_is_anonymous(vma) && !vma_is_shmem(vma) &&
		    !is_vm_hugetlb_page(vma))
			return false;
	}
	return true;
}

/* Two tries are enough, one to fault and one to read */
static int mirror_hold(struct hmm_mirror *mirror, struct hmm_range *range)
{
	int ret;

	ret = hmm_range_lock(range);
	if (ret)
		return ret;
	if (!mirror_may_hold(range)) {
		hmm_range_unlock(range);
		return mirror_try_shared(mirror, range);
	}
	ret = mirror_try_locked(mirror, range);
	if (ret == -EBUSY)
		ret = mirror_try_locked(mirror, range);
	hmm_range_unlock(range);
	return ret;
}

/*
 * Try again? The time counts from the first collision: that a fault takes long is
 * no reason to fail, that an address space never holds still is. As the last user
 * of the mm we would only keep it from exiting.
 */
static int mirror_again(struct hmm_mirror *mirror, unsigned int tried,
			unsigned long *until, unsigned long timeout)
{
	if (fatal_signal_pending(current))
		return -EINTR;
	if (READ_ONCE(mirror->ended) ||
	    atomic_read(&mirror->sub.mm->mm_users) == 1)
		return -ESRCH;
	if (tried == 1)
		*until = jiffies + timeout;
	else if (timeout && time_after_eq(jiffies, *until))
		return -EBUSY;
	cond_resched();
	return 0;
}

static int mirror_fault(struct hmm_mirror *mirror, struct hmm_range *range,
			unsigned long timeout)
{
	unsigned long until = 0;
	unsigned int tried = 0;
	int ret, err;

	do {
		if (tried < MIRROR_TRIES)
			ret = mirror_try_shared(mirror, range);
		else
			ret = mirror_hold(mirror, range);
		if (ret != -EBUSY)
			return ret;
		err = mirror_again(mirror, ++tried, &until, timeout);
	} while (!err);
	return err;
}

static bool mirror_covers(const struct hmm_mirror *mirror,
			  const struct hmm_range *range)
{
	const struct interval_tree_node *all = &mirror->sub.interval_tree;

	return range->start < range->end && range->start >= all->start &&
	       range->end - 1 <= all->last;
}

/**
 * hmm_mirror_fault() - get a range into the device's page table
 * @mirror: to which the caller has a reference
 * @range: what is asked for, see hmm_range_fault(); in any of its outputs. Its
 *	notifier and notifier_seq are set here, and pfn_flags_mask is 0
 * @timeout: how long collisions may go on, from the first one on, in jiffies; 0: as
 *	long as it takes
 *
 * Begins, faults the range in as its request says, and calls map with the result,
 * under the lock, and free of collisions. If a page cannot be had map is not called,
 * not even for those before it. Of extents the result may be the first part:
 * &hmm_range.populated tells where to go on. Usually @range is a member of something
 * larger that tells map what this fault is for.
 *
 * Requests of single pages are refused: after a collision in the last step they
 * would have to be written anew.
 *
 * Context: Process context, sleeps; killable. Neither the mmap lock is held, nor
 * @mirror->lock, nor a lock that is taken inside one of them. A worker may be here
 * while release waits for it.
 * Return: 0, or what map or refill returned; -EINVAL if @range is not page aligned,
 * empty, not within @mirror, has a pfn_flags_mask, or members that do not go together;
 * -ESRCH if the process is gone or the mirror has ended; -EBUSY if collisions went on
 * for @timeout; -EINTR on a fatal signal; -EPERM, -EFAULT and -ENOMEM as
 * hmm_range_fault_unlocked_timeout().
 */
int hmm_mirror_fault(struct hmm_mirror *mirror, struct hmm_range *range,
		     unsigned long timeout)
{
	int ret;

	might_sleep();

	range->populated = 0;
	range->nr_extents = 0;
	if (!mirror_covers(mirror, range) || range->pfn_flags_mask)
		return -EINVAL;
	if (READ_ONCE(mirror->ended) || !hmm_mirror_mmget(mirror))
		return -ESRCH;
	range->notifier = &mirror->sub;
	if (mirror->ops->no_userfault)
		range->flags |= HMM_RANGE_NO_USERFAULT;
	ret = mirror_fault(mirror, range, timeout);
	hmm_mirror_mmput(mirror);
	return ret;
}
EXPORT_SYMBOL_GPL(hmm_mirror_fault);
