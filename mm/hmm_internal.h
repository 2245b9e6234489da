/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MM_HMM_INTERNAL_H
#define _MM_HMM_INTERNAL_H

/*
 * Between mm/hmm.c, which takes locks and handles faults, and mm/hmm_walk.c,
 * which reads page tables and writes results.
 */

#include <linux/hmm.h>

/* Results of hmm_walk_on() beside 0 and errors */
#define HMM_WALK_FAULT	1	/* the page at walk->addr needs a fault first */
#define HMM_WALK_FULL	2	/* no room for another extent */

/* What a walk holds by itself, where the caller holds nothing */
enum hmm_lock {
	HMM_LOCK_NONE,
	HMM_LOCK_VMA,	/* of the one that covers the range */
	HMM_LOCK_MMAP,
};

/* Every combination of &enum hmm_extent_flags */
#define HMM_NR_FLAGS	(HMM_EXTENT_DEVICE_PRIVATE << 1)

/**
 * struct hmm_walk - where a walk stands
 * @range: as the caller gave it
 * @vma: of @addr, or the first one behind it; NULL if not looked up
 * @lock: for mm/hmm.c
 * @collided: go on in spite of collisions, see DOC: Getting through
 * @addr: the first page without a result
 * @pmdp: of @addr; NULL to go down from the top
 * @pmd_end: where the table of @pmdp ends, or the VMA or the range before it
 * @out: the entry of @addr, if there are entries
 * @want: the request that stopped the walk, HMM_PFN_REQ_*
 * @faults: how many it took so far
 * @reads: entries are looked at before they are written
 * @shift: where the pfn is in an entry
 * @keep: bits of an entry that are kept
 * @ask_fault: the bits of an entry that count as a request: to fault,
 * @ask_write: to write,
 * @ask_sysmem: and to have the page at home
 * @bits: flags of a page to the bits of its entry
 * @encoded: room for @bits if the driver has an encoding
 */
struct hmm_walk {
	struct hmm_range *range;
	struct vm_area_struct *vma;
	enum hmm_lock lock;
	bool collided;
	unsigned long addr;
	pmd_t *pmdp;
	unsigned long pmd_end;
	void *out;
	unsigned long want;
	unsigned long faults;

	bool reads;
	u8 shift;
	u64 keep;
	u64 ask_fault;
	u64 ask_write;
	u64 ask_sysmem;
	const u64 *bits;
	u64 encoded[HMM_NR_FLAGS];
};

void hmm_walk_init(struct hmm_walk *walk, struct hmm_range *range);
int hmm_walk_on(struct hmm_walk *walk);

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
