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

/*
 * How the walk works
 *
 * The range is done in steps. A step starts at the first page without a result,
 * goes down from the top of the page tables, and fills at most what one PMD
 * covers: a table of PTEs, a part of a leaf, of a hole, or of the space between
 * VMAs. To go down again for each step costs next to nothing for each page, and
 * it makes a step independent of the one before, whatever happened in between.
 *
 * Two things describe what a step finds, whatever its kind: the entry to store,
 * and the most that can be asked of the page without a fault, its @has. A page
 * that wants more than it has stops the step: the pages before it are filled,
 * page tables and locks are let go, the fault is handled, and the next step
 * begins at that very page. So no fault is handled inside a walk, a fault is
 * taken for no page but the one that wants it, and the one that brought a huge
 * page is the only one for all of it.
 *
 * There is no case for migration entries, swap entries, markers and the like: to
 * a snapshot they are pages that are not there, and handle_mm_fault() knows best
 * what each needs, be it to wait until a migration is over or to report poison.
 *
 * Locks: the caller holds the mmap lock, so VMAs and the upper tables stay. A PTE
 * table is kept by pte_offset_map(), a table of hugetlb by the hugetlb VMA lock,
 * both only while entries are being read. Entries are read without their lock:
 * one that changes right after is a collision, and the caller will find it.
 */

#include <linux/export.h>
#include <linux/hmm.h>
#include <linux/hugetlb.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/pgtable.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/swap.h>
#include <linux/swapops.h>

/* What is asked of a page, and what it has; in order */
enum hmm_access {
	HMM_NOTHING,
	HMM_READ,
	HMM_WRITE,
};

/* Result of a step beside 0 and errors: the page at walk->addr needs a fault */
#define HMM_STEP_FAULT	1

/**
 * struct hmm_walk - where a walk stands
 * @range: as the caller gave it
 * @vma: of @addr, or the first one behind it; NULL if not looked up
 * @addr: the first page without a result
 * @out: the entry of @addr
 * @default_want: what is asked of every page
 * @per_page: entries hold requests of their own
 * @want: what the page asked for that stopped the last step
 */
struct hmm_walk {
	struct hmm_range *range;
	struct vm_area_struct *vma;
	unsigned long addr;
	unsigned long *out;
	enum hmm_access default_want;
	bool per_page;
	enum hmm_access want;
};

static enum hmm_access hmm_wanted(unsigned long request)
{
	if (!(request & HMM_PFN_REQ_FAULT))
		return HMM_NOTHING;
	return request & HMM_PFN_REQ_WRITE ? HMM_WRITE : HMM_READ;
}

static enum hmm_access hmm_page_wants(const struct hmm_walk *walk,
				      unsigned long entry)
{
	return hmm_wanted((entry & walk->range->pfn_flags_mask) |
			  walk->range->default_flags);
}

static unsigned long hmm_valid_entry(unsigned long pfn, bool write,
				     unsigned int order)
{
	return pfn | HMM_PFN_VALID | (write ? HMM_PFN_WRITE : 0) |
	       (unsigned long)order << HMM_PFN_ORDER_SHIFT;
}

/* The page at walk->addr wants more than there is: what is to be done? */
static int hmm_stop(struct hmm_walk *walk, enum hmm_access want,
		    unsigned long entry)
{
	walk->want = want;
	return entry & HMM_PFN_ERROR ? -EFAULT : HMM_STEP_FAULT;
}

/*
 * Fill the pages up to @next alike: a hole, an error, or, if @has says there is
 * something, a part of a leaf, where each entry is its neighbour plus one page.
 */
static int hmm_fill(struct hmm_walk *walk, unsigned long next,
		    unsigned long entry, enum hmm_access has)
{
	unsigned long *out = walk->out;
	unsigned long *end = out + ((next - walk->addr) >> PAGE_SHIFT);
	enum hmm_access want = walk->default_want;
	unsigned long step = has != HMM_NOTHING;

	if (!walk->per_page) {
		if (want > has)
			return hmm_stop(walk, want, entry);
		for (; out < end; entry += step)
			*out++ = entry;
	} else {
		for (; out < end; entry += step) {
			want = hmm_page_wants(walk, *out);
			if (want > has)
				break;
			*out++ = entry;
		}
	}

	walk->addr = next - ((end - out) << PAGE_SHIFT);
	walk->out = out;
	return out < end ? hmm_stop(walk, want, entry) : 0;
}

static int hmm_fill_missing(struct hmm_walk *walk, unsigned long next)
{
	return hmm_fill(walk, next, 0, HMM_NOTHING);
}

static int hmm_fill_error(struct hmm_walk *walk, unsigned long next)
{
	return hmm_fill(walk, next, HMM_PFN_ERROR, HMM_NOTHING);
}

static int hmm_fill_leaf(struct hmm_walk *walk, unsigned long next,
			 unsigned long pfn, bool write, unsigned int order)
{
	unsigned long offset = (walk->addr >> PAGE_SHIFT) & ((1UL << order) - 1);

	return hmm_fill(walk, next, hmm_valid_entry(pfn + offset, write, order),
			write ? HMM_WRITE : HMM_READ);
}

/* Present, but no page that a device could use as one */
static bool hmm_pte_pageless(const struct hmm_walk *walk, pte_t pte)
{
	if (!IS_ENABLED(CONFIG_ARCH_HAS_PTE_SPECIAL))
		return walk->vma->vm_flags & VM_MIXEDMAP &&
		       !pfn_valid(pte_pfn(pte));
	return pte_special(pte) && !pte_devmap(pte);
}

static bool hmm_owns(const struct hmm_walk *walk, swp_entry_t swap)
{
	void *owner = walk->range->dev_private_owner;

	return owner && pfn_swap_entry_to_page(swap)->pgmap->owner == owner;
}

/*
 * An entry that does not simply map a page. Sets @entry to what is to be
 * reported and returns what the page has.
 */
static noinline enum hmm_access hmm_odd_pte(const struct hmm_walk *walk,
					    pte_t pte, unsigned long *entry)
{
	swp_entry_t swap;
	bool write;

	*entry = 0;
	if (pte_present(pte)) {
		if (pte_protnone(pte))
			return HMM_NOTHING;
		if (is_zero_pfn(pte_pfn(pte))) {
			*entry = hmm_valid_entry(pte_pfn(pte), false, 0);
			return HMM_READ;
		}
		*entry = HMM_PFN_ERROR;
		return HMM_NOTHING;
	}
	if (pte_none(pte))
		return HMM_NOTHING;

	swap = pte_to_swp_entry(pte);
	if (!is_device_private_entry(swap) || !hmm_owns(walk, swap))
		return HMM_NOTHING;

	write = is_writable_device_private_entry(swap);
	*entry = hmm_valid_entry(swp_offset_pfn(swap), write, 0);
	return write ? HMM_WRITE : HMM_READ;
}

/* Compiled once for each value of @per_page */
static __always_inline int hmm_fill_ptes(struct hmm_walk *walk,
					 const pte_t *ptep, unsigned long next,
					 bool per_page)
{
	unsigned long *out = walk->out;
	unsigned long *end = out + ((next - walk->addr) >> PAGE_SHIFT);
	enum hmm_access want = walk->default_want, has;
	unsigned long entry;

	for (; out < end; out++, ptep++) {
		pte_t pte = ptep_get_lockless((pte_t *)ptep);

		if (per_page)
			want = hmm_page_wants(walk, *out);
		if (likely(pte_present(pte) && !pte_protnone(pte) &&
			   !hmm_pte_pageless(walk, pte))) {
			has = pte_write(pte) ? HMM_WRITE : HMM_READ;
			entry = hmm_valid_entry(pte_pfn(pte), pte_write(pte), 0);
		} else {
			has = hmm_odd_pte(walk, pte, &entry);
		}
		if (unlikely(want > has))
			break;
		*out = entry;
	}

	walk->addr = next - ((end - out) << PAGE_SHIFT);
	walk->out = out;
	return out < end ? hmm_stop(walk, want, entry) : 0;
}

static int hmm_step_ptes(struct hmm_walk *walk, pmd_t *pmdp, unsigned long next)
{
	pte_t *ptep = pte_offset_map(pmdp, walk->addr);
	int ret;

	/* The table went away: the next step finds what came instead */
	if (!ptep)
		return 0;
	if (walk->per_page)
		ret = hmm_fill_ptes(walk, ptep, next, true);
	else
		ret = hmm_fill_ptes(walk, ptep, next, false);
	pte_unmap(ptep);
	return ret;
}

static int hmm_step_pmd(struct hmm_walk *walk, pud_t *pudp, unsigned long next)
{
	pmd_t *pmdp = pmd_offset(pudp, walk->addr);
	pmd_t pmd = pmdp_get_lockless(pmdp);

	if (pmd_none(pmd) || is_pmd_migration_entry(pmd))
		return hmm_fill_missing(walk, next);
	/* First: what is not present may have any other bit set */
	if (!pmd_present(pmd))
		return hmm_fill_error(walk, next);
	if (pmd_trans_huge(pmd) || pmd_devmap(pmd)) {
		if (pmd_protnone(pmd))
			return hmm_fill_missing(walk, next);
		if (pmd_special(pmd))
			return hmm_fill_error(walk, next);
		return hmm_fill_leaf(walk, next, pmd_pfn(pmd), pmd_write(pmd),
				     PMD_SHIFT - PAGE_SHIFT);
	}
	if (pmd_bad(pmd))
		return hmm_fill_error(walk, next);
	return hmm_step_ptes(walk, pmdp, next);
}

static int hmm_step_pud(struct hmm_walk *walk, p4d_t *p4dp, unsigned long next)
{
	pud_t *pudp = pud_offset(p4dp, walk->addr);
	pud_t pud = pudp_get(pudp);

	if (pud_none(pud))
		return hmm_fill_missing(walk, next);
	if (!pud_present(pud))
		return hmm_fill_error(walk, next);
	if (pud_trans_huge(pud) || pud_devmap(pud)) {
		if (pud_special(pud))
			return hmm_fill_error(walk, next);
		return hmm_fill_leaf(walk, next, pud_pfn(pud), pud_write(pud),
				     PUD_SHIFT - PAGE_SHIFT);
	}
	if (pud_bad(pud))
		return hmm_fill_error(walk, next);
	return hmm_step_pmd(walk, pudp, next);
}

static int hmm_step_tables(struct hmm_walk *walk, unsigned long next)
{
	pgd_t *pgdp = pgd_offset(walk->vma->vm_mm, walk->addr);
	p4d_t *p4dp;

	if (pgd_none(pgdp_get(pgdp)))
		return hmm_fill_missing(walk, next);
	if (pgd_bad(pgdp_get(pgdp)))
		return hmm_fill_error(walk, next);
	p4dp = p4d_offset(pgdp, walk->addr);
	if (p4d_none(p4dp_get(p4dp)))
		return hmm_fill_missing(walk, next);
	if (p4d_bad(p4dp_get(p4dp)))
		return hmm_fill_error(walk, next);
	return hmm_step_pud(walk, p4dp, next);
}

static int hmm_step_hugetlb(struct hmm_walk *walk, unsigned long next)
{
	struct vm_area_struct *vma = walk->vma;
	struct hstate *h = hstate_vma(vma);
	unsigned long head = walk->addr & huge_page_mask(h);
	pte_t *ptep, pte = {};

	next = min(next, head + huge_page_size(h));

	hugetlb_vma_lock_read(vma);
	ptep = hugetlb_walk(vma, head, huge_page_size(h));
	if (ptep)
		pte = huge_ptep_get(vma->vm_mm, head, ptep);
	hugetlb_vma_unlock_read(vma);

	if (!ptep || !pte_present(pte))
		return hmm_fill_missing(walk, next);
	/* huge_pte_write() is the same, but not there without HUGETLB_PAGE */
	return hmm_fill_leaf(walk, next, pte_pfn(pte), pte_write(pte),
			     huge_page_order(h));
}

/* Can a device have mappings of @vma at all? */
static bool hmm_vma_usable(const struct vm_area_struct *vma)
{
	return vma->vm_flags & VM_READ &&
	       !(vma->vm_flags & (VM_IO | VM_PFNMAP));
}

/*
 * Fill what one PMD covers, or less where a VMA begins or ends. A step may also
 * fill nothing, if tables change under it.
 */
static int hmm_step(struct hmm_walk *walk)
{
	struct hmm_range *range = walk->range;
	unsigned long next = pmd_addr_end(walk->addr, range->end);
	struct vm_area_struct *vma = walk->vma;

	if (!vma || walk->addr >= vma->vm_end) {
		vma = find_vma(range->notifier->mm, walk->addr);
		walk->vma = vma;
	}
	if (!vma)
		return hmm_fill_error(walk, next);
	if (walk->addr < vma->vm_start)
		return hmm_fill_error(walk, min(next, vma->vm_start));

	next = min(next, vma->vm_end);
	if (!hmm_vma_usable(vma))
		return hmm_fill_error(walk, next);
	if (is_vm_hugetlb_page(vma))
		return hmm_step_hugetlb(walk, next);
	return hmm_step_tables(walk, next);
}

/* Get the page at walk->addr what it wants; the next step will see the result */
static int hmm_handle_fault(struct hmm_walk *walk)
{
	unsigned int flags = FAULT_FLAG_REMOTE;
	vm_fault_t fault;

	if (walk->want == HMM_WRITE) {
		if (!(walk->vma->vm_flags & VM_WRITE))
			return -EPERM;
		flags |= FAULT_FLAG_WRITE;
	}

	fault = handle_mm_fault(walk->vma, walk->addr, flags, NULL);
	/* Without FAULT_FLAG_ALLOW_RETRY the mmap lock cannot have been dropped */
	if (WARN_ON_ONCE(fault & (VM_FAULT_RETRY | VM_FAULT_COMPLETED)))
		return -EFAULT;
	return vm_fault_to_errno(fault, 0);
}

static bool hmm_range_valid(const struct hmm_range *range)
{
	return range->start < range->end &&
	       !offset_in_page(range->start | range->end);
}

static bool hmm_collided(const struct hmm_range *range)
{
	return mmu_interval_check_retry(range->notifier, range->notifier_seq);
}

/**
 * hmm_range_fault() - fill a range from the page tables, faulting on request
 * @range: filled in by the caller, see &struct hmm_range
 *
 * Entries say what the CPU's page tables hold, and what they hold after a fault
 * where one was asked for. On success every page that was asked for is
 * %HMM_PFN_VALID, and %HMM_PFN_WRITE if that was asked for. No page reference is
 * taken.
 *
 * The result may be put to use only if mmu_interval_read_retry() still finds no
 * collision, under the lock that the invalidate callback of the driver takes.
 *
 * On error the entries from the page at fault on hold what the caller put there.
 * After -EBUSY, any may be filled, with what was found before the collision or
 * after it.
 *
 * Context: Process context, may sleep. The caller holds the mmap lock of the mm
 * of @range->notifier, for reading or writing, and a reference on its users; the
 * lock is held all through and on return. May be called for the mm of another
 * process.
 *
 * Return: 0; or
 *
 * * -EINVAL if the range is empty, wraps, or is not page aligned,
 * * -EBUSY if there was a collision since @range->notifier_seq was read: begin
 *   again at mmu_interval_read_begin(). If it came during a fault, all the rest
 *   has been faulted in first, see DOC: Getting through,
 * * -EPERM if writing is asked for where the VMA does not allow it,
 * * -EFAULT if a page that is asked for cannot be had: no VMA, not readable, no
 *   struct page, poisoned, beyond the end of its file,
 * * -ENOMEM if there is no memory for a fault,
 * * -EINTR on a fatal signal.
 */
int hmm_range_fault(struct hmm_range *range)
{
	struct hmm_walk walk = {
		.range = range,
		.addr = range->start,
		.out = range->hmm_pfns,
		.default_want = hmm_wanted(range->default_flags),
		.per_page = range->pfn_flags_mask,
	};
	unsigned long faulted = ULONG_MAX;
	bool collided = false;
	int ret;

	mmap_assert_locked(range->notifier->mm);

	if (!hmm_range_valid(range))
		return -EINVAL;

	do {
		if (!collided && hmm_collided(range))
			return -EBUSY;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();

		ret = hmm_step(&walk);
		if (ret == HMM_STEP_FAULT) {
			/* Gone again after a collision: that can go on for ever */
			if (collided && walk.addr == faulted)
				return -EBUSY;
			faulted = walk.addr;
			ret = hmm_handle_fault(&walk);
			collided |= hmm_collided(range);
		}
		if (ret)
			return ret;
	} while (walk.addr < range->end);

	return collided ? -EBUSY : 0;
}
EXPORT_SYMBOL(hmm_range_fault);

/**
 * hmm_range_fault_unlocked_timeout() - begin, fault, and again until it is right
 * @range: as for hmm_range_fault(), but @range->notifier_seq is an output, too
 * @timeout: how long collisions may go on, in jiffies; 0: as long as it takes
 *
 * Context: Process context, sleeps. The mmap lock is not held.
 * Return: as hmm_range_fault(); -EBUSY means that the time is over.
 */
int hmm_range_fault_unlocked_timeout(struct hmm_range *range,
				     unsigned long timeout)
{
	struct mm_struct *mm = range->notifier->mm;
	unsigned long until = jiffies + timeout;
	int ret;

	if (!mmget_not_zero(mm))
		return -EFAULT;
	do {
		ret = mmu_interval_read_begin_timeout(range->notifier,
						      &range->notifier_seq,
						      timeout);
		if (ret)
			break;
		if (mmap_read_lock_killable(mm)) {
			ret = -EINTR;
			break;
		}
		ret = hmm_range_fault(range);
		mmap_read_unlock(mm);
	} while (ret == -EBUSY && (!timeout || time_before(jiffies, until)));
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
