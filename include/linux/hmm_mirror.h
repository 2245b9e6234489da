/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _LINUX_HMM_MIRROR_H
#define _LINUX_HMM_MIRROR_H

/*
 * Mirrors: the loop that every driver with a page table of its own needs, and the
 * end of the process, written once. See Documentation/vm/hmm_mirror.rst, and
 * samples/hmm/ for a driver to start from.
 */

#include <linux/completion.h>
#include <linux/minmax.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/refcount.h>

struct hmm_mirror;
struct hmm_range;

/**
 * struct hmm_mirror_ops - what the driver of a mirror does itself
 *
 * The first three make a driver.
 */
struct hmm_mirror_ops {
	/**
	 * @invalidate: The CPU's page tables are about to change: take out of
	 * the device's what the change makes wrong, from hmm_mirror_first() to
	 * hmm_mirror_last(), and wait until the device has noticed. The event
	 * and the owner of the range say what happens, and
	 * mmu_notifier_range_access() what access remains. A driver may leave
	 * its entries as they are over MMU_NOTIFY_SOFT_DIRTY, and over a
	 * migration of its own those of pages that take no part in it; take
	 * away writing over a change of protection, and free its tables over
	 * MMU_NOTIFY_UNMAP. Faults that are under way collide in any case.
	 *
	 * Called under the lock, the pages are still mapped. May sleep iff the
	 * range is blockable. Returns true; false is allowed only where the
	 * range is not blockable and the work needs sleep: then nothing changes
	 * and whoever wanted the change goes without.
	 */
	bool (*invalidate)(struct hmm_mirror *mirror,
			   const struct mmu_notifier_range *range);

	/**
	 * @map: Enter what @range has found in the device's page table. It is
	 * true now, and remains so until the next @invalidate. Extents may end
	 * early: &hmm_range.populated tells.
	 *
	 * Called under the lock, the mmap lock may be held, too. Must
	 * not allocate with a right to reclaim, nor touch user memory. Returns
	 * 0; -EAGAIN for memory, see @refill; -EBUSY to begin anew as after a
	 * collision; or an error for the caller of hmm_mirror_fault().
	 */
	int (*map)(struct hmm_mirror *mirror, struct hmm_range *range);

	/**
	 * @release: It is over: drop all of the device's tables, and wait for
	 * the driver's own workers if they shall not outlive it. Called exactly
	 * once, by the exit of the process or by hmm_mirror_unregister(),
	 * whichever comes first; no @map is called any more, but @invalidate
	 * still may be. See DOC: The end of a mirror.
	 *
	 * Called with nothing held. May sleep.
	 */
	void (*release)(struct hmm_mirror *mirror);

	/**
	 * @refill: Optional. @map has returned -EAGAIN: get the memory that it
	 * needs; it is called again unless there has been a collision.
	 *
	 * Called without the lock, may sleep and reclaim; the mmap lock may be
	 * held. Returns 0, or an error for the caller of
	 * hmm_mirror_fault(). Without it, -EAGAIN goes to the caller.
	 */
	int (*refill)(struct hmm_mirror *mirror, struct hmm_range *range);

	/**
	 * @free: Optional. The last reference is gone: free the memory of the
	 * mirror. Called wherever hmm_mirror_put() is.
	 */
	void (*free)(struct hmm_mirror *mirror);

	/**
	 * @no_userfault: Do not wait for a userfaultfd: memory that one would
	 * have to supply is an error, -EFAULT. For drivers whose workers serve
	 * more than one process, so that none can bring them to a halt.
	 */
	bool no_userfault;
};

/**
 * struct hmm_mirror - a device's view of a range of an address space
 * @sub: the interval subscription; its mm and its interval are for reading
 * @ops: set by registration
 * @lock: set by registration; guards the device's page table
 *
 * A member of an object of the driver. Need not be initialised.
 */
struct hmm_mirror {
	struct mmu_interval_notifier sub;
	const struct hmm_mirror_ops *ops;
	struct mutex *lock;	/* the driver's; several mirrors may share it */
	/* private: owned by mm/hmm_mirror.c */
	refcount_t refs;
	bool ended;
	unsigned int registered;
	struct completion released;
};

/**
 * hmm_mirror_first() - the first byte of a mirror that an invalidation hits
 * @mirror: the mirror
 * @range: what its invalidate callback was given
 *
 * Context: Any; as a rule the invalidate callback.
 * Return: the address.
 */
static inline unsigned long
hmm_mirror_first(const struct hmm_mirror *mirror,
		 const struct mmu_notifier_range *range)
{
	return max(range->start, mirror->sub.interval_tree.start);
}

/**
 * hmm_mirror_last() - the last byte of a mirror that an invalidation hits
 * @mirror: the mirror
 * @range: what its invalidate callback was given
 *
 * Context: Any; as a rule the invalidate callback.
 * Return: the address.
 */
static inline unsigned long
hmm_mirror_last(const struct hmm_mirror *mirror,
		const struct mmu_notifier_range *range)
{
	return min(range->end - 1, mirror->sub.interval_tree.last);
}

int hmm_mirror_register(struct hmm_mirror *mirror, struct mm_struct *mm,
			unsigned long start, unsigned long length,
			const struct hmm_mirror_ops *ops, struct mutex *lock);
void hmm_mirror_unregister(struct hmm_mirror *mirror);
void hmm_mirror_get(struct hmm_mirror *mirror);
void hmm_mirror_put(struct hmm_mirror *mirror);
bool hmm_mirror_mmget(struct hmm_mirror *mirror);
void hmm_mirror_mmput(struct hmm_mirror *mirror);
int hmm_mirror_fault(struct hmm_mirror *mirror, struct hmm_range *range,
		     unsigned long timeout);

#endif /* _LINUX_HMM_MIRROR_H */
