/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MM_HMM_INTERNAL_H
#define _MM_HMM_INTERNAL_H

/*
 * Between mm/hmm.c, which takes locks and handles faults, and mm/hmm_walk.c,
 * which reads page tables and writes results.
 */

#include <linux/hmm.h>
#include <linux/mmu_notifier.h>
#include <linux/sched/signal.h>

/* Result of hmm_walk_on() beside 0 and errors: no room for another extent */
#define HMM_WALK_FULL	1

/* What a walk holds by itself, where the caller holds nothing */
enum hmm_lock {
	HMM_LOCK_NONE,
	HMM_LOCK_VMA,	/* of the one that covers the range */
	HMM_LOCK_MMAP,
};

/* What a page can be; where there is one, the last four */
enum hmm_kind {
	HMM_HOLE,
	HMM_ERROR,
	HMM_SPECIAL,
	HMM_READABLE,
	HMM_WRITABLE,
	HMM_OWN_READABLE,	/* device-private memory of the caller */
	HMM_OWN_WRITABLE,
	HMM_NR_KINDS
};

/**
 * struct hmm_walk - where a walk stands
 * @range: as the caller gave it
 * @fault: gets the page at @addr what it wants; may drop and retake the lock, and
 *	sets @vma and @pmdp to NULL then
 * @vma: of @addr, or the first one behind it; NULL if not looked up
 * @lock: for @fault
 * @collided: go on in spite of collisions, see DOC: Getting through
 * @addr: the first page without a result
 * @pmdp: of @addr; NULL to go down from the top
 * @pmd_end: where the table of @pmdp ends, or the VMA or the range before it
 * @out: the entry of @addr, if there are entries
 * @write: the page at @addr wants to be written to
 * @faulted: where the last fault was
 * @faults: how many it took so far
 * @clock: for @fault
 * @refused: the kinds that the default request is not content with, as bits
 * @reads: entries are looked at before they are written
 * @shift: where the pfn is in an entry
 * @keep: bits of an entry that are kept
 * @ask_write: the bit of an entry that asks for writing
 * @needs_fault: the bits of an entry without which it asks for nothing
 * @alarm: of each kind, the bits of an entry that may ask for more than it has
 * @bits: of each kind, the bits of an entry beside the pfn
 * @encoded: room for @bits if the driver has an encoding
 */
struct hmm_walk {
	struct hmm_range *range;
	int (*fault)(struct hmm_walk *walk);
	struct vm_area_struct *vma;
	enum hmm_lock lock;
	bool collided;
	bool write;
	unsigned long addr;
	pmd_t *pmdp;
	unsigned long pmd_end;
	void *out;
	unsigned long faulted;
	unsigned long faults;
	struct hmm_clock *clock;

	u8 refused;
	bool reads;
	u8 shift;
	u64 keep;
	u64 ask_write;
	u64 needs_fault;
	u64 alarm[HMM_NR_KINDS];
	const u64 *bits;
	u64 encoded[HMM_NR_KINDS];
};

void hmm_walk_init(struct hmm_walk *walk, struct hmm_range *range);
int hmm_walk_on(struct hmm_walk *walk);

static inline bool hmm_collided(const struct hmm_range *range)
{
	return mmu_interval_check_retry(range->notifier, range->notifier_seq);
}

/* Is anything up for this thread: a signal, or somebody else's turn? */
static inline bool hmm_disturbed(void)
{
	return read_thread_flags() & (_TIF_SIGPENDING | _TIF_NEED_RESCHED);
}

/*
 * Write an entry of which HMM_RANGE_KEEP_FLAGS keeps a part. The invalidate
 * callback may be clearing just that.
 */
static inline void hmm_put_keeping(unsigned long *slot, unsigned long entry)
{
	unsigned long old = READ_ONCE(*slot);

	do {
		entry = (entry & ~HMM_PFN_INOUT_FLAGS) |
			(old & HMM_PFN_INOUT_FLAGS);
	} while (!try_cmpxchg(slot, &old, entry));
}

#endif /* _MM_HMM_INTERNAL_H */
