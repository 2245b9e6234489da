/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _LINUX_MMU_NOTIFIER_H
#define _LINUX_MMU_NOTIFIER_H

/*
 * MMU notifiers: how the owner of a secondary MMU (a hypervisor, an IOMMU with
 * shared virtual addressing, a GPU, an RDMA card) learns that the page tables
 * of a process are about to change.
 *
 * The page-table headers of some architectures include this file while
 * linux/mm.h is still being parsed: nothing that is declared only there may be
 * used in an inline function below.
 */

#include <linux/atomic.h>
#include <linux/bits.h>
#include <linux/list.h>
#include <linux/llist.h>
#include <linux/spinlock.h>
#include <linux/mm_types.h>
#include <linux/mmap_lock.h>
#include <linux/srcu.h>
#include <linux/interval_tree.h>

struct mmu_notifier_subscriptions;
struct mmu_notifier;
struct mmu_notifier_range;
struct mmu_interval_notifier;
struct mmu_interval_notifier_finish;

/**
 * enum mmu_notifier_event - why a range of page tables changes
 *
 * @MMU_NOTIFY_UNMAP: The range goes away: munmap(), the source of mremap(),
 *	exit. A mirror may free what it holds for these addresses.
 *
 * @MMU_NOTIFY_CLEAR: Entries are cleared and may come back with other pages:
 *	reclaim, copy-on-write, madvise(), THP split and collapse, KSM.
 *
 * @MMU_NOTIFY_PROTECTION_VMA: Permissions of the VMA change, as mprotect() does.
 *
 * @MMU_NOTIFY_PROTECTION_PAGE: Permissions of single pages change under an
 *	unchanged VMA: write-back and fork write-protect.
 *
 * @MMU_NOTIFY_SOFT_DIRTY: Entries are write-protected for soft-dirty tracking.
 *
 * @MMU_NOTIFY_RELEASE: The address space is being torn down; raised once, by
 *	the last mmput(), for interval subscriptions.
 *
 * @MMU_NOTIFY_MIGRATE: Pages move between system and device memory. The owner
 *	of the range tells a driver its own migration from anybody else's.
 *
 * @MMU_NOTIFY_EXCLUSIVE: A device takes exclusive access (the owner is the one
 *	given to make_device_exclusive_range()), or loses it (owner is NULL).
 */
enum mmu_notifier_event {
	MMU_NOTIFY_UNMAP = 0,
	MMU_NOTIFY_CLEAR,
	MMU_NOTIFY_PROTECTION_VMA,
	MMU_NOTIFY_PROTECTION_PAGE,
	MMU_NOTIFY_SOFT_DIRTY,
	MMU_NOTIFY_RELEASE,
	MMU_NOTIFY_MIGRATE,
	MMU_NOTIFY_EXCLUSIVE,
};

/* Bits of mmu_notifier_range.flags; callbacks ask mmu_notifier_range_blockable() */
#define MMU_NOTIFIER_RANGE_BLOCKABLE	BIT(0)
/* Private to mm/mmu_notifier.c: the bracket is in its mm's record */
#define MMU_NOTIFIER_RANGE_RECORDED	BIT(1)
/* What a MMU_NOTIFY_PROTECTION_VMA leaves; see mmu_notifier_range_access() */
#define MMU_NOTIFIER_RANGE_READ		BIT(2)
#define MMU_NOTIFIER_RANGE_WRITE	BIT(3)

/*
 * The two bits for a change of protection: what the VMA allows by now, but no
 * writing if the pages are write-protected. A macro, because VM_READ is not
 * declared yet at this point.
 */
#define mmu_notifier_vma_access(vma, write_protect)			\
({									\
	unsigned long __flags = (vma)->vm_flags;			\
									\
	(__flags & VM_READ ? MMU_NOTIFIER_RANGE_READ : 0) |		\
	(__flags & VM_WRITE && !(write_protect) ?			\
	 MMU_NOTIFIER_RANGE_WRITE : 0);					\
})

/**
 * struct mmu_notifier_ops - callbacks of a list subscription
 *
 * Every member is optional. @arch_invalidate_secondary_tlbs cannot be combined
 * with the invalidate_range pair: a secondary TLB that walks the CPU's own page
 * tables needs the one, a secondary MMU with tables of its own the other.
 */
struct mmu_notifier_ops {
	/**
	 * @release: The address space goes away, or the subscription leaves
	 * before that happened: drop every secondary mapping. Called exactly
	 * once for a subscription that ends by exit or by
	 * mmu_notifier_unregister(), never for one that ends by
	 * mmu_notifier_put(). May sleep. The pages are freed after it returned.
	 */
	void (*release)(struct mmu_notifier *mn, struct mm_struct *mm);

	/**
	 * @clear_flush_young: Test and clear the accessed bits of [start, end)
	 * and flush the secondary TLB. Called under a page-table lock; must not
	 * sleep. Returns non-zero if any page was accessed.
	 */
	int (*clear_flush_young)(struct mmu_notifier *mn, struct mm_struct *mm,
				 unsigned long start, unsigned long end);

	/**
	 * @clear_young: As @clear_flush_young, but the secondary TLB need not
	 * be flushed: the result is a hint.
	 */
	int (*clear_young)(struct mmu_notifier *mn, struct mm_struct *mm,
			   unsigned long start, unsigned long end);

	/**
	 * @test_young: Test the accessed bit of the page at @address without
	 * changing anything. Called under a page-table lock; must not sleep.
	 */
	int (*test_young)(struct mmu_notifier *mn, struct mm_struct *mm,
			  unsigned long address);

	/**
	 * @invalidate_range_start: Entries in the range are about to change:
	 * drop the secondary mappings and set up none until
	 * @invalidate_range_end. May sleep iff the range is blockable. Returns
	 * 0; -EAGAIN is allowed only where the range is not blockable and the
	 * subscription has no @invalidate_range_end, which would go unpaired.
	 */
	int (*invalidate_range_start)(struct mmu_notifier *mn,
				      const struct mmu_notifier_range *range);

	/**
	 * @invalidate_range_end: The change is complete. Called for every
	 * bracket whose @invalidate_range_start returned 0, and in the
	 * non-blocking case also to take back a bracket that another
	 * subscription refused. May sleep iff the range is blockable.
	 */
	void (*invalidate_range_end)(struct mmu_notifier *mn,
				     const struct mmu_notifier_range *range);

	/**
	 * @arch_invalidate_secondary_tlbs: Flush a TLB that caches the CPU's
	 * own page tables, for [start, end); (0, ULONG_MAX) stands for the
	 * whole address space. Called wherever the CPU's TLB is flushed, mostly
	 * under a page-table lock: must not sleep.
	 */
	void (*arch_invalidate_secondary_tlbs)(struct mmu_notifier *mn,
					       struct mm_struct *mm,
					       unsigned long start,
					       unsigned long end);

	/**
	 * @alloc_notifier: Makes the object for the first mmu_notifier_get() of
	 * these ops on @mm. Called with the mmap lock held for writing; returns
	 * an ERR_PTR() to refuse.
	 */
	struct mmu_notifier *(*alloc_notifier)(struct mm_struct *mm);

	/**
	 * @free_notifier: Frees the object after the last mmu_notifier_put(),
	 * once no callback can run on it, or after a registration by
	 * mmu_notifier_get() that failed. Must not sleep.
	 */
	void (*free_notifier)(struct mmu_notifier *mn);
};

/**
 * struct mmu_notifier - a list subscription: told of every change in an mm
 * @hlist: private
 * @ops: set by the owner before registration
 * @mm: the address space; valid from registration on, also after it ended
 * @rcu: private
 * @users: private
 *
 * The memory need not be initialised apart from @ops. It lives inside an object
 * of the driver, which must outlive mmu_notifier_unregister(), or the
 * free_notifier callback after mmu_notifier_put().
 */
struct mmu_notifier {
	struct hlist_node hlist;
	const struct mmu_notifier_ops *ops;
	struct mm_struct *mm;
	struct rcu_head rcu;
	unsigned int users;
	/* private: owned by mm/mmu_notifier.c */
	bool released;
	u64 born;
};

/**
 * struct mmu_interval_notifier_ops - callbacks of an interval subscription
 * @invalidate: Entries that may overlap the subscription's interval are about
 *	to change. The driver takes the lock under which it also calls
 *	mmu_interval_read_retry(), stores @cur_seq by mmu_interval_set_seq(),
 *	drops its mappings of the range, and returns true. A driver that knows
 *	the change not to concern it may return true without storing @cur_seq;
 *	readers then see no collision. May sleep iff the range is blockable;
 *	where it is not, and the work cannot be done without sleeping, it
 *	returns false and the caller of the invalidation goes without.
 * @invalidate_start: In place of @invalidate, where the work ends in waiting for
 *	the device: do all of it but the wait, and leave in *@finish, which is
 *	NULL before, what the wait needs. The device works on while the others
 *	are started. What cannot be split for lack of a finish is done here in
 *	full, *@finish left NULL. No lock may be kept until the finish: two
 *	invalidations may start their subscriptions in another order. Rules and
 *	return value as for @invalidate; on false *@finish is not looked at.
 * @invalidate_finish: Required with @invalidate_start. Called once for each
 *	finish that it left, when every subscription that the change concerns
 *	has been started, and in that order. Waits for the device; on return it
 *	must not reach the old pages any more. May sleep iff the range of its
 *	start was blockable. The finish belongs to the driver again.
 * @release: Optional. The address space goes away: called once, when the
 *	invalidation with MMU_NOTIFY_RELEASE is over, and before the pages are
 *	freed. Nothing is held, no invalidation is open; nobody uses the mm any
 *	more. May sleep, and wait for whoever does not wait for the exit. Not
 *	called on a subscription that has been removed;
 *	mmu_interval_notifier_remove() waits for it as for the others.
 *
 * Either @invalidate, or @invalidate_start and @invalidate_finish.
 */
struct mmu_interval_notifier_ops {
	bool (*invalidate)(struct mmu_interval_notifier *ini,
			   const struct mmu_notifier_range *range,
			   unsigned long cur_seq);
	bool (*invalidate_start)(struct mmu_interval_notifier *ini,
				 const struct mmu_notifier_range *range,
				 unsigned long cur_seq,
				 struct mmu_interval_notifier_finish **finish);
	void (*invalidate_finish)(struct mmu_interval_notifier_finish *finish);
	void (*release)(struct mmu_interval_notifier *ini);
};

/**
 * struct mmu_interval_notifier_finish - the second pass of one invalidation
 * @link: private
 * @notifier: the subscription, when @invalidate_finish is called
 *
 * Usually a member of something larger that says what to wait for. Several
 * invalidations of one subscription may be under way at once, each with a finish
 * of its own. They come from a small pool, or from an allocation that does not
 * reclaim (%GFP_NOWAIT): reclaim waits for invalidations.
 */
struct mmu_interval_notifier_finish {
	struct llist_node link;
	struct mmu_interval_notifier *notifier;
};

/**
 * struct mmu_interval_notifier - told of the changes in one interval of an mm
 * @interval_tree: .start and .last are the first and the last byte, for the
 *	driver to read
 * @ops: set by insertion
 * @mm: set by a successful insertion; left as it is by removal
 */
struct mmu_interval_notifier {
	struct interval_tree_node interval_tree;
	const struct mmu_interval_notifier_ops *ops;
	struct mm_struct *mm;
	/* private: owned by mm/mmu_notifier.c; born is 0 while not inserted */
	unsigned long seq;
	u64 born;
	struct list_head sorted;
	unsigned int calls;
	atomic_t only_calls;
};

#ifdef CONFIG_MMU_NOTIFIER

#ifdef CONFIG_LOCKDEP
extern struct lockdep_map __mmu_notifier_invalidate_range_start_map;
#endif

/**
 * struct mmu_notifier_range - one change to the page tables of an mm
 * @mm: the address space
 * @start: first byte
 * @end: exclusive; ULONG_MAX stands for the end of the address space
 * @flags: see mmu_notifier_range_blockable()
 * @event: why
 * @owner: of MMU_NOTIFY_MIGRATE and MMU_NOTIFY_EXCLUSIVE events, else NULL
 *
 * Lives on the stack of the one who makes the change, from
 * mmu_notifier_range_init() until mmu_notifier_invalidate_range_end().
 */
struct mmu_notifier_range {
	struct mm_struct *mm;
	unsigned long start;
	unsigned long end;
	unsigned int flags;
	enum mmu_notifier_event event;
	void *owner;
	/* private: owned by mm/mmu_notifier.c while the range is recorded */
	struct list_head inflight;
	u64 seq;
};

/*
 * Plain, so that a bracket over which nobody is heard looks only once: the first
 * subscription comes while no bracket is in flight. To all others the answer is
 * a hint. Whoever follows the pointer comes after the release that published it,
 * by the dependency; an Alpha with a secondary MMU would need more.
 */
static inline struct mmu_notifier_subscriptions *
mm_notifiers(struct mm_struct *mm)
{
	/* See above */
	return data_race(mm->notifier_subscriptions);
}

/**
 * mm_has_notifiers() - has anybody ever subscribed to @mm?
 * @mm: the address space
 *
 * Context: Any; takes no lock.
 * Return: non-zero from the first subscription of either kind on.
 */
static inline int mm_has_notifiers(struct mm_struct *mm)
{
	return unlikely(mm_notifiers(mm));
}

int mmu_notifier_register(struct mmu_notifier *mn,
			  struct mm_struct *mm);
int __mmu_notifier_register(struct mmu_notifier *mn,
			    struct mm_struct *mm);
void mmu_notifier_unregister(struct mmu_notifier *mn,
			     struct mm_struct *mm);

struct mmu_notifier *mmu_notifier_get_locked(const struct mmu_notifier_ops *ops,
					     struct mm_struct *mm);
void mmu_notifier_put(struct mmu_notifier *mn);
void mmu_notifier_synchronize(void);

/**
 * mmu_notifier_get() - the one subscription of @ops to @mm, made when missing
 * @ops: callbacks; must have alloc_notifier and free_notifier
 * @mm: the address space, pinned by mm_users
 *
 * Context: Process context, may sleep; takes the mmap lock for writing.
 * Return: the subscription with one more reference, to be dropped by
 * mmu_notifier_put(), or an error as of mmu_notifier_get_locked().
 */
static inline struct mmu_notifier *
mmu_notifier_get(const struct mmu_notifier_ops *ops, struct mm_struct *mm)
{
	struct mmu_notifier *mn;

	mmap_write_lock(mm);
	mn = mmu_notifier_get_locked(ops, mm);
	mmap_write_unlock(mm);
	return mn;
}

int mmu_interval_notifier_insert(struct mmu_interval_notifier *ini,
				 struct mm_struct *mm, unsigned long start,
				 unsigned long length,
				 const struct mmu_interval_notifier_ops *ops);
int mmu_interval_notifier_insert_locked(struct mmu_interval_notifier *ini,
					struct mm_struct *mm,
					unsigned long start,
					unsigned long length,
					const struct mmu_interval_notifier_ops *ops);
void mmu_interval_notifier_remove(struct mmu_interval_notifier *ini);
unsigned long mmu_interval_read_begin(struct mmu_interval_notifier *ini);
int mmu_interval_read_begin_timeout(struct mmu_interval_notifier *ini,
				    unsigned long *seq, unsigned long timeout);
int mmu_interval_wait_timeout(struct mmu_interval_notifier *ini,
			      unsigned long start, unsigned long last,
			      unsigned long timeout);
void __mmu_interval_check_seq(struct mmu_interval_notifier *ini,
			      unsigned long cur_seq);

/**
 * mmu_interval_set_seq() - record the collision that an invalidation causes
 * @ini: the subscription whose invalidate callback is running
 * @cur_seq: what the callback was given
 *
 * To be called from the invalidate callback, as a rule under the lock that
 * serialises it against mmu_interval_read_retry(). The store is a release: it
 * pairs with the first load of mmu_interval_read_begin(), which takes no lock
 * of the driver either, so that a reader who gets the new value also finds the
 * invalidation recorded as in flight.
 *
 * Context: The invalidate callback of @ini; does not sleep.
 */
static inline void
mmu_interval_set_seq(struct mmu_interval_notifier *ini,
		     unsigned long cur_seq)
{
	if (IS_ENABLED(CONFIG_DEBUG_VM))
		__mmu_interval_check_seq(ini, cur_seq);
	smp_store_release(&ini->seq, cur_seq); /* see above */
}

/**
 * mmu_interval_read_retry() - was there a collision since read_begin?
 * @ini: the subscription
 * @seq: what mmu_interval_read_begin() returned
 *
 * Called under the lock that the invalidate callback takes. While that lock is
 * held, the answer stays false once it is: what was read from the page tables
 * since mmu_interval_read_begin() may be put to use before the lock is dropped.
 * Without it the answer holds for some moment since the last barrier.
 *
 * Context: Any.
 * Return: true if the driver has to start again at mmu_interval_read_begin().
 */
static inline bool
mmu_interval_read_retry(struct mmu_interval_notifier *ini,
			unsigned long seq)
{
	/* The lock of the driver orders it against the callback */
	return data_race(ini->seq) != seq;
}

/**
 * mmu_interval_check_retry() - has a collision been seen already?
 * @ini: the subscription
 * @seq: what mmu_interval_read_begin() returned
 *
 * As mmu_interval_read_retry(), but without the lock: true is final, false says
 * nothing. For giving up early in a long operation.
 *
 * Context: Any.
 * Return: true if mmu_interval_read_retry() is bound to return true.
 */
static inline bool
mmu_interval_check_retry(struct mmu_interval_notifier *ini,
			 unsigned long seq)
{
	return READ_ONCE(ini->seq) != seq;
}

void __mmu_notifier_subscriptions_destroy(struct mm_struct *mm);
void __mmu_notifier_release(struct mm_struct *mm);
int __mmu_notifier_clear_flush_young(struct mm_struct *mm, unsigned long start,
				     unsigned long end);
int __mmu_notifier_clear_young(struct mm_struct *mm, unsigned long start,
			       unsigned long end);
int __mmu_notifier_test_young(struct mm_struct *mm, unsigned long address);
int __mmu_notifier_invalidate_range_start(struct mmu_notifier_range *range,
					  struct mmu_notifier_subscriptions *subs);
void __mmu_notifier_invalidate_range_end(struct mmu_notifier_range *range,
					 struct mmu_notifier_subscriptions *subs);
void __mmu_notifier_arch_invalidate_secondary_tlbs(struct mm_struct *mm,
						   unsigned long start,
						   unsigned long end);

/**
 * mmu_notifier_range_blockable() - may a callback sleep over this range?
 * @range: what the callback was given
 *
 * Context: Any; as a rule a callback.
 * Return: false where the caller cannot wait, as in the OOM reaper.
 */
static inline bool
mmu_notifier_range_blockable(const struct mmu_notifier_range *range)
{
	return range->flags & MMU_NOTIFIER_RANGE_BLOCKABLE;
}

/**
 * mmu_notifier_range_access() - what may still be done with the pages of a range
 * @range: what the callback was given
 *
 * Tells a callback, without a look at VMAs, what may remain of a mapping that
 * was right until now: a device that maps a page for writing keeps it for
 * reading if only that is left. Nothing is ever added, and the page is the same.
 *
 * After MMU_NOTIFY_SOFT_DIRTY all is left: the process wants to know which pages
 * are written to from now on. A device that keeps its mappings is not seen then.
 *
 * Context: Any; as a rule a callback.
 * Return: MMU_NOTIFIER_RANGE_READ, with MMU_NOTIFIER_RANGE_WRITE or without; 0
 * where the pages may go away, or the cause has not said.
 */
static inline unsigned int
mmu_notifier_range_access(const struct mmu_notifier_range *range)
{
	const unsigned int both = MMU_NOTIFIER_RANGE_READ |
				  MMU_NOTIFIER_RANGE_WRITE;

	switch (range->event) {
	case MMU_NOTIFY_PROTECTION_VMA:
		return range->flags & MMU_NOTIFIER_RANGE_READ ?
			range->flags & both : 0;
	case MMU_NOTIFY_PROTECTION_PAGE:
		return MMU_NOTIFIER_RANGE_READ;
	case MMU_NOTIFY_SOFT_DIRTY:
		return both;
	default:
		return 0;
	}
}

/* The exit of an address space; see __mmu_notifier_release() */
static inline void mmu_notifier_release(struct mm_struct *mm)
{
	if (mm_has_notifiers(mm))
		__mmu_notifier_release(mm);
}

static inline int mmu_notifier_clear_flush_young(struct mm_struct *mm,
						 unsigned long start,
						 unsigned long end)
{
	return mm_has_notifiers(mm) ?
		__mmu_notifier_clear_flush_young(mm, start, end) : 0;
}

static inline int mmu_notifier_clear_young(struct mm_struct *mm,
					   unsigned long start,
					   unsigned long end)
{
	return mm_has_notifiers(mm) ?
		__mmu_notifier_clear_young(mm, start, end) : 0;
}

static inline int mmu_notifier_test_young(struct mm_struct *mm,
					  unsigned long address)
{
	return mm_has_notifiers(mm) ? __mmu_notifier_test_young(mm, address) : 0;
}

static inline void
mmu_notifier_arch_invalidate_secondary_tlbs(struct mm_struct *mm,
					    unsigned long start,
					    unsigned long end)
{
	if (mm_has_notifiers(mm))
		__mmu_notifier_arch_invalidate_secondary_tlbs(mm, start, end);
}

/**
 * mmu_notifier_range_init_owner() - describe a change that has an owner
 * @range: to be filled in
 * @event: why the page tables change
 * @flags: 0
 * @mm: the address space
 * @start: first byte
 * @end: exclusive end
 * @owner: passed to the callbacks
 *
 * Context: Any.
 */
static inline void
mmu_notifier_range_init_owner(struct mmu_notifier_range *range,
			      enum mmu_notifier_event event, unsigned int flags,
			      struct mm_struct *mm, unsigned long start,
			      unsigned long end, void *owner)
{
	range->mm = mm;
	range->start = start;
	range->end = end;
	range->flags = flags;
	range->event = event;
	range->owner = owner;
}

/**
 * mmu_notifier_range_init() - describe a change that is nobody's own
 * @range: to be filled in
 * @event: why the page tables change
 * @flags: 0
 * @mm: the address space
 * @start: first byte
 * @end: exclusive end
 *
 * Context: Any.
 */
static inline void mmu_notifier_range_init(struct mmu_notifier_range *range,
					   enum mmu_notifier_event event,
					   unsigned int flags,
					   struct mm_struct *mm,
					   unsigned long start,
					   unsigned long end)
{
	mmu_notifier_range_init_owner(range, event, flags, mm, start, end, NULL);
}

/**
 * mmu_notifier_invalidate_range_start() - open a bracket around a change
 * @range: the change, initialised; must stay as it is until the end
 *
 * From the return until mmu_notifier_invalidate_range_end() no subscriber has
 * or makes a mapping of the range. Brackets nest and overlap as they like; no
 * lock of the notifiers is held in between.
 *
 * Context: Process context, may sleep, may not allocate with reclaim inside a
 * lock that a callback takes. Some lock of the mm that excludes
 * mm_take_all_locks() is held: the mmap lock, a VMA lock, or the rmap lock of a
 * VMA that overlaps the range; it is kept until the bracket is closed.
 */
static inline void
mmu_notifier_invalidate_range_start(struct mmu_notifier_range *range)
{
	struct mmu_notifier_subscriptions *subs = mm_notifiers(range->mm);

	/* Loops over many ranges count on this, so be brief but do it */
	__might_sleep(__FILE__, __LINE__);
	if (unlikely(tif_need_resched()))
		might_sleep();
	lock_map_acquire(&__mmu_notifier_invalidate_range_start_map);
	if (unlikely(subs)) {
		range->flags |= MMU_NOTIFIER_RANGE_BLOCKABLE;
		__mmu_notifier_invalidate_range_start(range, subs);
	}
	lock_map_release(&__mmu_notifier_invalidate_range_start_map);
}

/**
 * mmu_notifier_invalidate_range_start_nonblock() - open a bracket, never sleep
 * @range: the change, initialised; must stay as it is until the end
 *
 * Context: As mmu_notifier_invalidate_range_start(), but nothing in it sleeps.
 * Return: 0, or -EAGAIN if a subscriber would have had to sleep; then every
 * subscriber is told that nothing happened and the bracket must not be closed.
 */
static inline int __must_check
mmu_notifier_invalidate_range_start_nonblock(struct mmu_notifier_range *range)
{
	struct mmu_notifier_subscriptions *subs = mm_notifiers(range->mm);
	int ret = 0;

	lock_map_acquire(&__mmu_notifier_invalidate_range_start_map);
	if (unlikely(subs)) {
		range->flags &= ~MMU_NOTIFIER_RANGE_BLOCKABLE;
		ret = __mmu_notifier_invalidate_range_start(range, subs);
	}
	lock_map_release(&__mmu_notifier_invalidate_range_start_map);
	return ret;
}

/**
 * mmu_notifier_invalidate_range_end() - close a bracket
 * @range: as given to the start
 *
 * Context: May sleep iff the range is blockable.
 */
static inline void
mmu_notifier_invalidate_range_end(struct mmu_notifier_range *range)
{
	struct mmu_notifier_subscriptions *subs = mm_notifiers(range->mm);

	if (mmu_notifier_range_blockable(range))
		__might_sleep(__FILE__, __LINE__);
	if (unlikely(subs))
		__mmu_notifier_invalidate_range_end(range, subs);
}

/* A fork must not inherit what dup_mm() copied: a child has no subscriptions */
static inline void mmu_notifier_subscriptions_init(struct mm_struct *mm)
{
	mm->notifier_subscriptions = NULL;
}

static inline void mmu_notifier_subscriptions_destroy(struct mm_struct *mm)
{
	if (mm_has_notifiers(mm))
		__mmu_notifier_subscriptions_destroy(mm);
}

/*
 * Age the entry of the CPU and the ones of the secondary MMUs. Both sides are
 * always asked, also when the first has the answer: each has a bit to clear.
 * Macros, because the page-table helpers are not declared yet at this point.
 */
#define mmu_notifier_age(cpu_age, mmu_age, vma, addr, entryp, size)	\
({									\
	struct vm_area_struct *__age_vma = (vma);			\
	unsigned long __age_addr = (addr);				\
	int __age_young = cpu_age(__age_vma, __age_addr, entryp);	\
									\
	__age_young | (mmu_age)(__age_vma->vm_mm, __age_addr,		\
				__age_addr + (size));			\
})

#define ptep_clear_flush_young_notify(vma, addr, ptep)			\
	mmu_notifier_age(ptep_clear_flush_young,			\
			 mmu_notifier_clear_flush_young,		\
			 vma, addr, ptep, PAGE_SIZE)

#define pmdp_clear_flush_young_notify(vma, addr, pmdp)			\
	mmu_notifier_age(pmdp_clear_flush_young,			\
			 mmu_notifier_clear_flush_young,		\
			 vma, addr, pmdp, PMD_SIZE)

#define ptep_clear_young_notify(vma, addr, ptep)			\
	mmu_notifier_age(ptep_test_and_clear_young,			\
			 mmu_notifier_clear_young,			\
			 vma, addr, ptep, PAGE_SIZE)

#define pmdp_clear_young_notify(vma, addr, pmdp)			\
	mmu_notifier_age(pmdp_test_and_clear_young,			\
			 mmu_notifier_clear_young,			\
			 vma, addr, pmdp, PMD_SIZE)

#else /* CONFIG_MMU_NOTIFIER */

/* Core code reads and writes the bounds whether anybody listens or not */
struct mmu_notifier_range {
	unsigned long start;
	unsigned long end;
};

static inline void
mmu_notifier_range_init_owner(struct mmu_notifier_range *range,
			      enum mmu_notifier_event event, unsigned int flags,
			      struct mm_struct *mm, unsigned long start,
			      unsigned long end, void *owner)
{
	range->start = start;
	range->end = end;
}

static inline void mmu_notifier_range_init(struct mmu_notifier_range *range,
					   enum mmu_notifier_event event,
					   unsigned int flags,
					   struct mm_struct *mm,
					   unsigned long start,
					   unsigned long end)
{
	mmu_notifier_range_init_owner(range, event, flags, mm, start, end, NULL);
}

static inline bool
mmu_notifier_range_blockable(const struct mmu_notifier_range *range)
{
	return true;
}

static inline int mm_has_notifiers(struct mm_struct *mm)
{
	return 0;
}

static inline void
mmu_notifier_invalidate_range_start(struct mmu_notifier_range *range)
{
}

static inline int __must_check
mmu_notifier_invalidate_range_start_nonblock(struct mmu_notifier_range *range)
{
	return 0;
}

static inline void
mmu_notifier_invalidate_range_end(struct mmu_notifier_range *range)
{
}

static inline void
mmu_notifier_arch_invalidate_secondary_tlbs(struct mm_struct *mm,
					    unsigned long start,
					    unsigned long end)
{
}

static inline int mmu_notifier_test_young(struct mm_struct *mm,
					  unsigned long address)
{
	return 0;
}

static inline void mmu_notifier_release(struct mm_struct *mm)
{
}

static inline void mmu_notifier_subscriptions_init(struct mm_struct *mm)
{
}

static inline void mmu_notifier_subscriptions_destroy(struct mm_struct *mm)
{
}

static inline void mmu_notifier_synchronize(void)
{
}

#define ptep_clear_flush_young_notify	ptep_clear_flush_young
#define pmdp_clear_flush_young_notify	pmdp_clear_flush_young
#define ptep_clear_young_notify		ptep_test_and_clear_young
#define pmdp_clear_young_notify		pmdp_test_and_clear_young

#endif /* CONFIG_MMU_NOTIFIER */

#endif /* _LINUX_MMU_NOTIFIER_H */
