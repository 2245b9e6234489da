// SPDX-License-Identifier: GPL-2.0
/*
 * Heterogeneous memory management: a range of a process's page tables, as a
 * device sees it
 */

/**
 * DOC: Ranges
 *
 * A *range* is a run of pages of one process; its array has an *entry* for each
 * page. hmm_range_fault() fills the entries from the CPU's page tables. With no
 * request that is a *snapshot*: nothing is faulted, and what is not there is
 * reported so. With requests, pages that are missing, or not writable where
 * writing is asked for, are faulted in exactly as if the process had touched
 * them, and nothing else is.
 *
 * The result is true for as long as no invalidation hits the range. Who uses it
 * must do so by collision-retry, see mmu_interval_read_begin().
 */

/**
 * DOC: Getting through
 *
 * A try can collide, and so can the next. Three things bound how many it takes.
 *
 * A fault may itself invalidate: a page that is copied on a write is first taken
 * from everybody, the device that asks for it included. hmm_range_fault() then
 * goes on, faults in the rest of the range, and reports the collision at the end.
 * The next try finds everything there. So a range is faulted in once, not once
 * for each page that was copied.
 *
 * A process may invalidate the range without end, by madvise() or mprotect() or
 * fork() from another thread. It holds the mmap lock, or that of a VMA, from
 * before the start of each invalidation until after its end. A driver whose tries
 * went wrong a few times takes those locks itself, by hmm_range_lock(), and tries
 * again: whatever was in flight has ended, and nothing of the kind begins. Two
 * tries under the lock are enough then, one to fault and one to read.
 *
 * What remains comes through the reverse map. On private anonymous memory that
 * is reclaim, migration and KSM, which come back to a page only after it has been
 * put to use again, and all who could are kept out. On files it is also whoever
 * else maps, writes or truncates the file: they need not ask this process, and no
 * number of tries is enough against them. So a driver keeps a time limit.
 *
 * The lock has a price: while the range is faulted in, I/O included, the process
 * waits. It is for ranges that were there a moment ago, and not for files that the
 * process serves to itself.
 *
 * To hold up invalidations as such would be a shorter way, and a wrong one: an
 * invalidation may begin under a folio lock that a fault waits for, or inside
 * another invalidation that would have to end first. Either is a deadlock.
 */

/**
 * DOC: Outputs
 *
 * The result of a range comes in one of three forms.
 *
 * *Pfns*, the plain one: an array of unsigned long, an entry for each page, see
 * &enum hmm_pfn_flags.
 *
 * *Entries*: an array of u64, in the encoding of the driver's own page table, see
 * &struct hmm_encoding. It is as fast as the plain one, and saves a driver the loop
 * that translates one into the other.
 *
 * *Extents*: one for each run of pages that are alike, with pfns that follow one
 * another; holes and errors are runs, too. See &struct hmm_extent. Memory in huge
 * pages costs as much as there are huge pages, not pages. An array that is full
 * ends the call with success: &hmm_range.populated tells how many pages have been
 * dealt with, and the next call begins behind them.
 */

/*
 * Where is what: the walk over the page tables is in mm/hmm_walk.c. At a page that
 * needs a fault it lets go of everything and calls back. What is done then is here,
 * in two ways: with the mmap lock held by the caller, who must find it held all
 * through; and without, where handle_mm_fault() is free to drop whatever lock there
 * is.
 *
 * Locks: mmap lock or VMA lock, then those of the walk. None of the walk's is held
 * over a fault.
 */

#include <linux/export.h>
#include <linux/hmm.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/oom.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/userfaultfd_k.h>

#include "hmm_internal.h"

#define CREATE_TRACE_POINTS
#include <trace/events/hmm.h>

/* ---- What a caller may ask for ---- */

static bool hmm_range_valid(const struct hmm_range *range)
{
	return range->start < range->end &&
	       !offset_in_page(range->start | range->end);
}

static bool hmm_encoding_valid(const struct hmm_encoding *enc)
{
	const u64 bits[] = {
		enc->valid, enc->write, enc->error, enc->special,
		enc->device_private, enc->empty,
	};
	u64 seen = 0;
	int i;

	for (i = 0; i < ARRAY_SIZE(bits); i++) {
		if (seen & bits[i])
			return false;
		seen |= bits[i];
	}
	return enc->valid && enc->pfn_shift < 64;
}

static bool hmm_output_valid(const struct hmm_range *range)
{
	const unsigned int of_pfns = HMM_RANGE_KEEP_FLAGS | HMM_RANGE_FOLIO_ORDER;

	if (range->flags & ~(of_pfns | HMM_RANGE_NO_USERFAULT))
		return false;
	if (!range->encoding && !range->max_extents)
		return true;
	if (range->flags & of_pfns)
		return false;
	if (range->max_extents)
		return !range->encoding && !range->pfn_flags_mask;
	return hmm_encoding_valid(range->encoding);
}

/* Begin; on error there is no result at all */
static int hmm_begin(struct hmm_walk *walk, struct hmm_range *range)
{
	range->populated = 0;
	range->nr_extents = 0;
	if (!hmm_range_valid(range) || !hmm_output_valid(range))
		return -EINVAL;
	hmm_walk_init(walk, range);
	trace_hmm_range_begin(range);
	return 0;
}

/* Nobody asks what time it is while nobody traces: then it is 0 */
static u64 hmm_traced_since(void)
{
	return trace_hmm_range_end_enabled() ? ktime_get_ns() : 0;
}

static void hmm_end(const struct hmm_walk *walk, u64 began, int ret)
{
	struct hmm_range *range = walk->range;

	range->populated = (walk->addr - range->start) >> PAGE_SHIFT;
	/* Tracing may have been switched on meanwhile */
	trace_hmm_range_end(range, walk->faults,
			    began ? ktime_get_ns() - began : 0, ret);
}

/* ---- With the mmap lock held by the caller ---- */

/* Get the page at walk->addr what it wants; the walk will see the result */
static vm_fault_t hmm_fault(struct hmm_walk *walk, unsigned int flags)
{
	walk->faults++;
	flags |= FAULT_FLAG_REMOTE;
	if (walk->write)
		flags |= FAULT_FLAG_WRITE;
	return handle_mm_fault(walk->vma, walk->addr, flags, NULL);
}

static bool hmm_permitted(const struct hmm_walk *walk)
{
	return !walk->write || walk->vma->vm_flags & VM_WRITE;
}

static void hmm_note_collision(struct hmm_walk *walk)
{
	if (likely(!hmm_collided(walk->range)) || walk->collided)
		return;
	walk->collided = true;
	trace_hmm_collision(walk->range, walk->addr);
}

/* A page that is gone again after a collision: that can go on for ever */
static bool hmm_in_vain(const struct hmm_walk *walk)
{
	return walk->collided && walk->addr == walk->faulted;
}

/* A collision during a fault is reported at the end */
static int hmm_fault_locked(struct hmm_walk *walk)
{
	vm_fault_t fault;

	if (hmm_in_vain(walk))
		return -EBUSY;
	if (!hmm_permitted(walk))
		return -EPERM;
	walk->faulted = walk->addr;
	fault = hmm_fault(walk, 0);
	hmm_note_collision(walk);
	if (likely(!(fault & (VM_FAULT_ERROR | VM_FAULT_RETRY |
			      VM_FAULT_COMPLETED))))
		return 0;
	/* Without FAULT_FLAG_ALLOW_RETRY the mmap lock cannot have been dropped */
	if (WARN_ON_ONCE(fault & (VM_FAULT_RETRY | VM_FAULT_COMPLETED)))
		return -EFAULT;
	return vm_fault_to_errno(fault, 0);
}

/* The end of a walk that was free to go on in spite of collisions */
static int hmm_result(const struct hmm_walk *walk, int ret)
{
	if (ret < 0)
		return ret;
	return walk->collided ? -EBUSY : 0;
}

/**
 * hmm_range_fault() - fill a range from the page tables, faulting on request
 * @range: filled in by the caller, see &struct hmm_range
 *
 * Entries say what the CPU's page tables hold, and what they hold after a fault
 * where one was asked for. On success every page that was asked for is
 * %HMM_PFN_VALID, and %HMM_PFN_WRITE if that was asked for. No page reference is
 * taken. For results of another form see DOC: Outputs; extents may end before the
 * range does, &hmm_range.populated tells.
 *
 * The result may be put to use only if mmu_interval_read_retry() still finds no
 * collision, under the lock that the invalidate callback of the driver takes.
 *
 * On error &hmm_range.populated tells how many pages have a result; the entries
 * behind them hold what the caller put there. After -EBUSY any may be filled, with
 * what was found before the collision or after it.
 *
 * Context: Process context, may sleep. The caller holds the mmap lock of the mm
 * of @range->notifier, for reading or writing, and a reference on its users; the
 * lock is held all through and on return. May be called for the mm of another
 * process.
 *
 * Return: 0; or
 *
 * * -EINVAL if the range is empty, wraps, or is not page aligned, or if members of
 *   @range do not go together,
 * * -EBUSY if there was a collision since @range->notifier_seq was read: begin
 *   again at mmu_interval_read_begin(). If it came during a fault, all the rest
 *   has been faulted in first, see DOC: Getting through,
 * * -EPERM if writing is asked for where the VMA does not allow it,
 * * -EFAULT if a page that is asked for cannot be had: no VMA, not readable, no
 *   struct page, poisoned, beyond the end of its file, a userfaultfd's to supply,
 * * -ENOMEM if there is no memory for a fault,
 * * -EINTR on a fatal signal.
 */
int hmm_range_fault(struct hmm_range *range)
{
	struct hmm_walk walk = { .fault = hmm_fault_locked };
	u64 began = hmm_traced_since();
	int ret;

	mmap_assert_locked(range->notifier->mm);

	ret = hmm_begin(&walk, range);
	if (ret)
		return ret;
	ret = hmm_result(&walk, hmm_walk_on(&walk));
	hmm_end(&walk, began, ret);
	return ret;
}
EXPORT_SYMBOL(hmm_range_fault);

/* ---- Without a lock to hold ---- */

/**
 * struct hmm_clock - what collisions have cost so far
 * @limit: how much they may, in ns; 0: any
 * @spent: the duration of tries that came to nothing, their faults aside
 * @tries: how many there were
 * @began: the start of this try
 * @faulting: how much of this try went into faults
 */
struct hmm_clock {
	u64 limit;
	u64 spent;
	unsigned long tries;
	u64 began;
	u64 faulting;
};

static void hmm_clock_start(struct hmm_clock *clock)
{
	clock->began = ktime_get_ns();
	clock->faulting = 0;
}

/* This try collided: is there time for another? */
static bool hmm_clock_left(struct hmm_clock *clock)
{
	clock->tries++;
	clock->spent += ktime_get_ns() - clock->began - clock->faulting;
	return !clock->limit || clock->spent < clock->limit;
}

/* What is left, in jiffies, and not 0, which means no limit */
static unsigned long hmm_clock_rest(const struct hmm_clock *clock)
{
	if (!clock->limit)
		return 0;
	return max_t(u64, 1, nsecs_to_jiffies64(clock->limit - clock->spent));
}

/*
 * Lock the VMA, if one covers the range, or else the mmap lock. Once a fault has
 * dropped the VMA lock it is the mmap lock from there on: there are faults that
 * are never handled under the other.
 */
static int hmm_lock(struct hmm_walk *walk)
{
	struct hmm_range *range = walk->range;
	struct mm_struct *mm = range->notifier->mm;

	if (!walk->faults)
		walk->vma = lock_vma_under_rcu(mm, range->start);
	if (walk->vma && walk->vma->vm_end >= range->end) {
		walk->lock = HMM_LOCK_VMA;
	} else {
		if (walk->vma)
			vma_end_read(walk->vma);
		walk->vma = NULL;
		if (mmap_read_lock_killable(mm))
			return -EINTR;
		walk->lock = HMM_LOCK_MMAP;
	}
	return check_stable_address_space(mm) ? -EFAULT : 0;
}

/* Who has no lock has nothing of what it protects */
static void hmm_lock_lost(struct hmm_walk *walk)
{
	walk->lock = HMM_LOCK_NONE;
	walk->vma = NULL;
	walk->pmdp = NULL;
}

static void hmm_unlock(struct hmm_walk *walk)
{
	if (walk->lock == HMM_LOCK_VMA)
		vma_end_read(walk->vma);
	else if (walk->lock == HMM_LOCK_MMAP)
		mmap_read_unlock(walk->range->notifier->mm);
	hmm_lock_lost(walk);
}

/* A fault that may not drop the lock gives a userfaultfd no chance */
static int hmm_fault_no_userfault(struct hmm_walk *walk)
{
	if (walk->lock == HMM_LOCK_VMA) {
		/* It comes again, under the mmap lock */
		walk->faults++;
		hmm_unlock(walk);
		return hmm_lock(walk);
	}
	walk->faulted = walk->addr;
	return vm_fault_to_errno(hmm_fault(walk, 0), 0);
}

/*
 * A fault that may drop the lock. If it did, the lock is taken anew, and the walk
 * goes on from the top of the tables with the results that it has: the sequence
 * value tells of any change since, whichever locks were held. That the fault is not
 * done, because it dropped the lock, the walk will find out by itself.
 */
static int hmm_fault_dropping(struct hmm_walk *walk)
{
	unsigned int flags = FAULT_FLAG_ALLOW_RETRY | FAULT_FLAG_KILLABLE;
	enum hmm_lock held = walk->lock;
	vm_fault_t fault;
	bool dropped;

	/* Such memory waits for nothing else that a signal would have to end */
	if (walk->range->flags & HMM_RANGE_NO_USERFAULT &&
	    userfaultfd_armed(walk->vma))
		return hmm_fault_no_userfault(walk);
	if (held == HMM_LOCK_VMA)
		flags |= FAULT_FLAG_VMA_LOCK;
	if (walk->addr == walk->faulted)
		flags |= FAULT_FLAG_TRIED;
	fault = hmm_fault(walk, flags);
	dropped = fault & (VM_FAULT_RETRY | VM_FAULT_COMPLETED);
	/* Who was only sent from one lock to the other has not tried yet */
	if (!dropped || held == HMM_LOCK_MMAP)
		walk->faulted = walk->addr;
	if (!dropped)
		return vm_fault_to_errno(fault, 0);
	hmm_lock_lost(walk);
	return hmm_lock(walk);
}

static int hmm_fault_unlocked(struct hmm_walk *walk)
{
	u64 began;
	int ret;

	if (hmm_in_vain(walk))
		return -EBUSY;
	if (!hmm_permitted(walk))
		return -EPERM;
	began = ktime_get_ns();
	ret = hmm_fault_dropping(walk);
	walk->clock->faulting += ktime_get_ns() - began;
	hmm_note_collision(walk);
	return ret;
}

static int hmm_try_unlocked(struct hmm_range *range, struct hmm_clock *clock)
{
	struct hmm_walk walk = { .fault = hmm_fault_unlocked, .clock = clock };
	u64 traced = hmm_traced_since();
	int ret;

	hmm_clock_start(clock);
	ret = hmm_begin(&walk, range);
	if (ret)
		return ret;
	ret = mmu_interval_read_begin_timeout(range->notifier,
					      &range->notifier_seq,
					      hmm_clock_rest(clock));
	if (!ret)
		ret = hmm_lock(&walk);
	if (!ret)
		ret = hmm_result(&walk, hmm_walk_on(&walk));
	hmm_unlock(&walk);
	hmm_end(&walk, traced, ret);
	return ret;
}

/* Results have taken the place of requests: there are more tries to come */
static void hmm_renew_requests(struct hmm_range *range, const void *requests)
{
	size_t size = range->encoding ? sizeof(u64) : sizeof(unsigned long);
	const unsigned long *from = requests;
	unsigned long i;

	if (!(range->flags & HMM_RANGE_KEEP_FLAGS)) {
		memcpy(range->entries, requests, range->populated * size);
		return;
	}
	for (i = 0; i < range->populated; i++) {
		hmm_put_keeping(range->hmm_pfns + i, from[i]);
		if (!(i % PTRS_PER_PTE))
			cond_resched();
	}
}

static int hmm_try_until(struct hmm_range *range, struct hmm_clock *clock,
			 const void *requests)
{
	int ret;

	while ((ret = hmm_try_unlocked(range, clock)) == -EBUSY) {
		if (!hmm_clock_left(clock)) {
			trace_hmm_timeout(range, clock->tries);
			break;
		}
		if (requests)
			hmm_renew_requests(range, requests);
	}
	return ret;
}

/**
 * hmm_range_fault_unlocked_timeout() - begin, fault, and again until it is right
 * @range: as for hmm_range_fault(), but @range->notifier_seq is an output, too
 * @timeout: how long collisions may go on, in jiffies; 0: as long as it takes
 *
 * Does what the caller of hmm_range_fault() has to do around it, all but the last
 * step: to look at mmu_interval_read_retry() under its own lock before it puts the
 * result to use. If that is true, it calls again.
 *
 * Only tries that collided count against @timeout, and not the time in which their
 * faults were handled: to wait for a disk, or for the handler of a userfaultfd, is
 * no collision. Requests of single pages are kept for all tries, in a copy.
 *
 * As no lock is held, faults may take any time and any path: those that a
 * userfaultfd has to serve work, too.
 *
 * Context: Process context, sleeps. Neither the mmap lock nor a VMA lock of the mm
 * may be held, nor a lock that the invalidate callback takes. No reference on the
 * users of the mm is needed; the one that is taken meanwhile never runs the exit
 * of the mm from here.
 *
 * Return: 0; or
 *
 * * -EINVAL as hmm_range_fault(),
 * * -EBUSY if collisions went on for longer than @timeout,
 * * -EINTR on a fatal signal,
 * * -EFAULT as hmm_range_fault(), and if the mm has no users any more or is being
 *   taken apart by the OOM killer,
 * * -EPERM, -ENOMEM as hmm_range_fault(); -ENOMEM also for the copy.
 */
int hmm_range_fault_unlocked_timeout(struct hmm_range *range,
				     unsigned long timeout)
{
	struct mm_struct *mm = range->notifier->mm;
	struct hmm_clock clock = { .limit = jiffies64_to_nsecs(timeout) };
	size_t size = range->encoding ? sizeof(u64) : sizeof(unsigned long);
	void *requests = NULL;
	int ret;

	might_sleep();

	range->populated = 0;
	range->nr_extents = 0;
	if (!hmm_range_valid(range))
		return -EINVAL;
	if (!mmget_not_zero(mm))
		return -EFAULT;
	if (range->pfn_flags_mask && !range->max_extents) {
		requests = kvmemdup(range->entries, size *
				    ((range->end - range->start) >> PAGE_SHIFT),
				    GFP_KERNEL | __GFP_NOWARN);
		ret = -ENOMEM;
		if (!requests)
			goto out;
	}
	ret = hmm_try_until(range, &clock, requests);
	kvfree(requests);
out:
	mmput_async(mm);
	return ret;
}
EXPORT_SYMBOL_GPL(hmm_range_fault_unlocked_timeout);

/**
 * hmm_range_wait_timeout() - wait until a range is not being invalidated
 * @range: .notifier, .start and .end are looked at
 * @timeout: how long at most, in jiffies; 0: as long as it takes
 *
 * See mmu_interval_wait_timeout().
 *
 * Context: Process context, may sleep. The mmap lock need not be held.
 * Return: 0; -EINVAL as hmm_range_fault(); -EBUSY after @timeout; -EINTR on a
 * fatal signal.
 */
int hmm_range_wait_timeout(const struct hmm_range *range, unsigned long timeout)
{
	if (!hmm_range_valid(range))
		return -EINVAL;
	return mmu_interval_wait_timeout(range->notifier, range->start,
					 range->end - 1, timeout);
}
EXPORT_SYMBOL_GPL(hmm_range_wait_timeout);

/**
 * hmm_range_lock() - keep a process from invalidating a range
 * @range: .notifier, .start and .end are looked at
 *
 * For a driver that has collided several times in a row, see DOC: Getting
 * through, which also says what this does not keep out. Takes the mmap lock for
 * writing, and the locks of the VMAs in the range: on return the process neither
 * changes its mappings there nor takes a page fault. Begin again at
 * mmu_interval_read_begin() then, call hmm_range_fault(), look for a collision as
 * always, do so once more if there was one, and drop everything by
 * hmm_range_unlock() as soon as the result is in use.
 *
 * Context: Process context, sleeps. The caller holds a reference on the users of
 * the mm. The mmap lock is not held, nor any lock that is taken under it or
 * inside an invalidate callback.
 * Return: 0; -EINVAL as hmm_range_fault(); -EINTR if a fatal signal came while
 * waiting for the mmap lock. On error nothing is locked.
 */
int hmm_range_lock(const struct hmm_range *range)
{
	struct mm_struct *mm = range->notifier->mm;
	struct vm_area_struct *vma;
	struct vma_iterator vmi;

	if (!hmm_range_valid(range))
		return -EINVAL;
	if (mmap_write_lock_killable(mm))
		return -EINTR;
	vma_iter_init(&vmi, mm, range->start);
	for_each_vma_range(vmi, vma, range->end)
		vma_start_write(vma);
	return 0;
}
EXPORT_SYMBOL_GPL(hmm_range_lock);

/**
 * hmm_range_unlock() - let a process go on that hmm_range_lock() has held up
 * @range: as given to hmm_range_lock()
 *
 * Context: Process context.
 */
void hmm_range_unlock(const struct hmm_range *range)
{
	mmap_write_unlock(range->notifier->mm);
}
EXPORT_SYMBOL_GPL(hmm_range_unlock);
