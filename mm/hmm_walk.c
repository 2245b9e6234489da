// SPDX-License-Identifier: GPL-2.0
/*
 * The walk of a range: from page tables to results
 *
 * The walk goes down from the top of the page tables, and then along a table of
 * PMDs, one PMD after the other: a table of PTEs, a leaf, a hole. What it finds,
 * of whatever kind, comes down to two things: the *flags* of a page, those of an
 * extent, and its pfn. The flags say what can be asked of the page without a
 * fault. A page that is asked for more stops the walk: the pages before it have
 * their results, page tables and locks of the walk are let go, and the caller
 * handles the fault. Then the walk goes on at that very page, in the same table.
 * So no fault is handled inside a walk, a fault is taken for no page but the one
 * that wants it, and the one that brings a huge page is the only one for all of
 * it.
 *
 * There is no case for migration entries, swap entries, markers and the like: to
 * a snapshot they are pages that are not there, and handle_mm_fault() knows best
 * what each needs, be it to wait until a migration is over or to report poison.
 *
 * Runs of PTEs
 *
 * Most PTEs differ from their neighbour in nothing but the pfn. So it is enough to
 * work out the flags of the first, and to see of each further one that the rest of
 * its bits is the same: its entry is then the first one's with the same bits of
 * the pfn changed. Which bits a pfn takes in a PTE is asked of pfn_pte() at boot.
 * Of a PTE that is not a plain page the run is those that equal it in full.
 *
 * Locks
 *
 * The caller holds the mmap lock, or that of the one VMA; so VMAs stay, and so do
 * tables down to those of PMDs. A table of PTEs is kept by pte_offset_map(), one
 * of hugetlb by the hugetlb VMA lock, both only while entries are being read.
 * Entries are read without their lock: one that changes right after is a
 * collision, and the caller will find it. Only with HMM_RANGE_FOLIO_ORDER the lock
 * is taken, to keep the folios of the pages what they are while they are asked for
 * their size.
 *
 * Short names: flags is of enum hmm_extent_flags, n is a number of pages, i one of
 * them; wide says that an entry is a u64, and is a constant on 64-bit.
 */
#include <linux/hugetlb.h>
#include <linux/memblock.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/pgtable.h>
#include <linux/sched/signal.h>
#include <linux/string.h>
#include <linux/swap.h>
#include <linux/swapops.h>

#include <trace/events/hmm.h>

#include "hmm_internal.h"

/*
 * Bits in which two PTEs of pages with the same flags may differ: those of the
 * pfn, as far as there is memory, and the one that says it has been accessed. 0
 * where a pfn is not simply shifted.
 */
static u64 hmm_pte_varying __ro_after_init;

static int __init hmm_walk_setup(void)
{
	u64 pfns = (1ULL << fls_long(max_pfn)) - 1;
	pgprot_t prot = vm_get_page_prot(VM_READ);
	pte_t pte = pfn_pte(0, prot);
	u64 young = pte_val(pte_mkyoung(pte)) ^ pte_val(pte_mkold(pte));

	if ((pte_val(pfn_pte(pfns, prot)) ^ pte_val(pte)) !=
	    pfns << PFN_PTE_SHIFT)
		return 0;
	hmm_pte_varying = pfns << PFN_PTE_SHIFT;
	/* What is below the pfn is shifted out with no further ado */
	hmm_pte_varying |= young & ((1ULL << PFN_PTE_SHIFT) - 1);
	return 0;
}
core_initcall(hmm_walk_setup);

/* ---- Requests and entries ---- */

#define HMM_EXTENT_RW		(HMM_EXTENT_VALID | HMM_EXTENT_WRITE)
#define HMM_EXTENT_PRIVATE	(HMM_EXTENT_VALID | HMM_EXTENT_DEVICE_PRIVATE)
#define HMM_EXTENT_NO_PAGE	(HMM_EXTENT_ERROR | HMM_EXTENT_SPECIAL)

static const u64 hmm_pfn_bits[HMM_NR_FLAGS] = {
	[HMM_EXTENT_VALID] = HMM_PFN_VALID,
	[HMM_EXTENT_RW] = HMM_PFN_VALID | HMM_PFN_WRITE,
	[HMM_EXTENT_PRIVATE] = HMM_PFN_VALID,
	[HMM_EXTENT_PRIVATE | HMM_EXTENT_WRITE] = HMM_PFN_VALID | HMM_PFN_WRITE,
	[HMM_EXTENT_ERROR] = HMM_PFN_ERROR,
	[HMM_EXTENT_NO_PAGE] = HMM_PFN_ERROR,
};

static void hmm_walk_encode(struct hmm_walk *walk,
			    const struct hmm_encoding *enc)
{
	const u64 private = enc->valid | enc->device_private;

	walk->shift = enc->pfn_shift;
	walk->bits = walk->encoded;
	walk->encoded[0] = enc->empty;
	walk->encoded[HMM_EXTENT_ERROR] = enc->empty | enc->error;
	walk->encoded[HMM_EXTENT_NO_PAGE] = enc->empty | enc->error |
					    enc->special;
	walk->encoded[HMM_EXTENT_VALID] = enc->valid;
	walk->encoded[HMM_EXTENT_RW] = enc->valid | enc->write;
	walk->encoded[HMM_EXTENT_PRIVATE] = private;
	walk->encoded[HMM_EXTENT_PRIVATE | HMM_EXTENT_WRITE] = private |
							       enc->write;
}

/**
 * hmm_walk_init() - begin a walk
 * @walk: anything
 * @range: has been checked
 */
void hmm_walk_init(struct hmm_walk *walk, struct hmm_range *range)
{
	const struct hmm_encoding *enc = range->encoding;
	unsigned long mask = range->pfn_flags_mask;

	/* Not all of it: @encoded is large */
	memset(walk, 0, offsetof(struct hmm_walk, encoded));
	walk->range = range;
	walk->addr = range->start;
	walk->out = range->hmm_pfns;
	walk->bits = hmm_pfn_bits;
	if (enc)
		hmm_walk_encode(walk, enc);
	if (mask & HMM_PFN_REQ_FAULT)
		walk->ask_fault = enc ? enc->valid : HMM_PFN_REQ_FAULT;
	if (mask & HMM_PFN_REQ_WRITE)
		walk->ask_write = enc ? enc->write : HMM_PFN_REQ_WRITE;
	if (mask & HMM_PFN_REQ_SYSMEM)
		walk->ask_sysmem = enc ? enc->error : HMM_PFN_REQ_SYSMEM;
	if (range->flags & HMM_RANGE_KEEP_FLAGS)
		walk->keep = HMM_PFN_INOUT_FLAGS;
	walk->reads = walk->ask_fault | walk->ask_write | walk->ask_sysmem |
		      walk->keep;
}

static bool hmm_wide(const struct hmm_walk *walk)
{
	return IS_ENABLED(CONFIG_64BIT) || walk->range->encoding;
}

static __always_inline u64 hmm_get(const void *out, unsigned long i, bool wide)
{
	return wide ? READ_ONCE(((const u64 *)out)[i]) :
		      READ_ONCE(((const unsigned long *)out)[i]);
}

static __always_inline void hmm_put(void *out, unsigned long i, u64 entry,
				    bool wide)
{
	if (wide)
		((u64 *)out)[i] = entry;
	else
		((unsigned long *)out)[i] = entry;
}

/* Does @request want more of a page than its @flags offer? */
static bool hmm_lacks(unsigned long request, unsigned int flags)
{
	if (!(request & HMM_PFN_REQ_FAULT))
		return false;
	if (!(flags & HMM_EXTENT_VALID))
		return true;
	return (request & HMM_PFN_REQ_WRITE && !(flags & HMM_EXTENT_WRITE)) ||
	       (request & HMM_PFN_REQ_SYSMEM &&
		flags & HMM_EXTENT_DEVICE_PRIVATE);
}

/* What is asked of the page whose entry holds @old */
static unsigned long hmm_request(const struct hmm_walk *walk, u64 old)
{
	return walk->range->default_flags |
	       (old & walk->ask_fault ? HMM_PFN_REQ_FAULT : 0) |
	       (old & walk->ask_write ? HMM_PFN_REQ_WRITE : 0) |
	       (old & walk->ask_sysmem ? HMM_PFN_REQ_SYSMEM : 0);
}

/* The bits without which no entry asks a page with @flags for more than it has */
static u64 hmm_suspect(const struct hmm_walk *walk, unsigned int flags)
{
	u64 bits = 0;

	if (!(flags & HMM_EXTENT_WRITE))
		bits |= walk->ask_write;
	if (flags & HMM_EXTENT_DEVICE_PRIVATE)
		bits |= walk->ask_sysmem;
	/* Where the default asks for nothing, but would with this one beside */
	if (!(flags & HMM_EXTENT_VALID) ||
	    walk->range->default_flags & (HMM_PFN_REQ_WRITE |
					  HMM_PFN_REQ_SYSMEM))
		bits |= walk->ask_fault;
	return bits;
}

/* Write an entry that has to be looked at first; false if its request stops it */
static __always_inline bool
hmm_put_asked(const struct hmm_walk *walk, unsigned long i, u64 entry,
	      unsigned int flags, u64 suspect, bool wide)
{
	u64 old = hmm_get(walk->out, i, wide);

	if (unlikely(old & suspect) && hmm_lacks(hmm_request(walk, old), flags))
		return false;
	if (unlikely(old & walk->keep))
		hmm_put_keeping((unsigned long *)walk->out + i, entry);
	else
		hmm_put(walk->out, i, entry, wide);
	return true;
}

/* ---- Stopping and filling ---- */

/* The page at walk->addr wants more than there is: what is to be done? */
static int hmm_stop(struct hmm_walk *walk, unsigned long request,
		    unsigned int flags)
{
	walk->want = request;
	return flags & HMM_EXTENT_ERROR ? -EFAULT : HMM_WALK_FAULT;
}

static void hmm_advance(struct hmm_walk *walk, unsigned long n)
{
	walk->addr += n << PAGE_SHIFT;
	walk->out += n * (hmm_wide(walk) ? sizeof(u64) : sizeof(long));
}

/* Room for one more kind of page; a run that goes on needs none */
static int hmm_extend(struct hmm_walk *walk, unsigned long n,
		      unsigned int flags, unsigned long pfn)
{
	struct hmm_range *range = walk->range;
	struct hmm_extent *last = range->extents + range->nr_extents - 1;

	if (range->nr_extents && last->flags == flags &&
	    (!(flags & HMM_EXTENT_VALID) || last->pfn + last->npages == pfn)) {
		last->npages += n;
	} else {
		if (range->nr_extents == range->max_extents)
			return HMM_WALK_FULL;
		range->nr_extents++;
		*++last = (struct hmm_extent) {
			.start = walk->addr,
			.npages = n,
			.pfn = pfn,
			.flags = flags,
		};
	}
	walk->addr += n << PAGE_SHIFT;
	return 0;
}

/* @n entries, each its neighbour plus @step */
static void hmm_put_run(struct hmm_walk *walk, unsigned long n, u64 entry,
			u64 step)
{
	unsigned long i = 0;
	u64 *out = walk->out;

	if (!hmm_wide(walk)) {
		for (; i < n; i++, entry += step)
			hmm_put(out, i, entry, false);
		return;
	}
	if (!step) {
		memset64(out, entry, n);
		return;
	}
	/* Unrolled: a store an entry, and next to nothing else */
	for (; i + 4 <= n; i += 4, entry += 4 * step) {
		out[i] = entry;
		out[i + 1] = entry + step;
		out[i + 2] = entry + 2 * step;
		out[i + 3] = entry + 3 * step;
	}
	for (; i < n; i++, entry += step)
		out[i] = entry;
}

static unsigned long hmm_put_run_asked(struct hmm_walk *walk, unsigned long n,
				       u64 entry, u64 step, unsigned int flags)
{
	u64 suspect = hmm_suspect(walk, flags);
	bool wide = hmm_wide(walk);
	unsigned long i;

	for (i = 0; i < n; i++, entry += step)
		if (!hmm_put_asked(walk, i, entry, flags, suspect, wide))
			break;
	return i;
}

/*
 * Results for the pages up to @next, all with @flags: a part of a leaf of this
 * @order, whose first page here is @pfn, a hole, or an error. An array gets no
 * more than one PMD's worth at a time.
 */
static int hmm_fill(struct hmm_walk *walk, unsigned long next,
		    unsigned int flags, unsigned long pfn, unsigned int order)
{
	unsigned long n = (next - walk->addr) >> PAGE_SHIFT, done;
	u64 step = 0, entry;

	if (hmm_lacks(walk->range->default_flags, flags))
		return hmm_stop(walk, walk->range->default_flags, flags);
	if (walk->range->max_extents)
		return hmm_extend(walk, n, flags, pfn);

	n = min_t(unsigned long, n, PTRS_PER_PTE);
	entry = walk->bits[flags];
	if (flags & HMM_EXTENT_VALID) {
		step = 1ULL << walk->shift;
		entry |= (u64)pfn << walk->shift;
		if (walk->bits == hmm_pfn_bits)
			entry |= (u64)order << HMM_PFN_ORDER_SHIFT;
	}
	if (!walk->reads) {
		hmm_put_run(walk, n, entry, step);
		hmm_advance(walk, n);
		return 0;
	}
	done = hmm_put_run_asked(walk, n, entry, step, flags);
	hmm_advance(walk, done);
	if (done == n)
		return 0;
	return hmm_stop(walk, hmm_request(walk, hmm_get(walk->out, 0,
							hmm_wide(walk))), flags);
}

static int hmm_fill_missing(struct hmm_walk *walk, unsigned long next)
{
	return hmm_fill(walk, next, 0, 0, 0);
}

static int hmm_fill_error(struct hmm_walk *walk, unsigned long next)
{
	return hmm_fill(walk, next, HMM_EXTENT_ERROR, 0, 0);
}

static int hmm_fill_special(struct hmm_walk *walk, unsigned long next)
{
	return hmm_fill(walk, next, HMM_EXTENT_NO_PAGE, 0, 0);
}

/* A part of a leaf of the page tables; @pfn is the first page of all of it */
static int hmm_fill_leaf(struct hmm_walk *walk, unsigned long next,
			 unsigned long pfn, bool write, unsigned int order)
{
	unsigned long offset = (walk->addr >> PAGE_SHIFT) & ((1UL << order) - 1);

	return hmm_fill(walk, next, write ? HMM_EXTENT_RW : HMM_EXTENT_VALID,
			pfn + offset, order);
}

/* ---- PTEs ---- */

/**
 * struct hmm_pte - a PTE, and what it stands for
 * @val: the PTE
 * @fixed: the bits that have to be the same for others to be like it
 * @pfn: of the page, if there is one
 * @flags: of the page
 */
struct hmm_pte {
	u64 val;
	u64 fixed;
	unsigned long pfn;
	unsigned int flags;
};

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

/* A PTE that does not simply map a page */
static noinline void hmm_odd_pte(const struct hmm_walk *walk, pte_t pte,
				 struct hmm_pte *p)
{
	swp_entry_t swap;

	p->fixed = ~0ULL;
	p->pfn = 0;
	p->flags = 0;
	if (pte_present(pte)) {
		if (pte_protnone(pte))
			return;
		if (is_zero_pfn(pte_pfn(pte))) {
			p->pfn = pte_pfn(pte);
			p->flags = HMM_EXTENT_VALID;
			return;
		}
		p->flags = HMM_EXTENT_NO_PAGE;
		return;
	}
	if (pte_none(pte))
		return;

	swap = pte_to_swp_entry(pte);
	if (!is_device_private_entry(swap) || !hmm_owns(walk, swap))
		return;
	p->pfn = swp_offset_pfn(swap);
	p->flags = HMM_EXTENT_PRIVATE;
	if (is_writable_device_private_entry(swap))
		p->flags |= HMM_EXTENT_WRITE;
}

static __always_inline void hmm_read_pte(const struct hmm_walk *walk,
					 const pte_t *ptep, struct hmm_pte *p)
{
	pte_t pte = ptep_get_lockless((pte_t *)ptep);

	p->val = pte_val(pte);
	if (unlikely(!pte_present(pte) || pte_protnone(pte) ||
		     hmm_pte_pageless(walk, pte))) {
		hmm_odd_pte(walk, pte, p);
		return;
	}
	p->fixed = ~hmm_pte_varying;
	/* Where no PTE says whether there is a page, each has to be asked */
	if (!IS_ENABLED(CONFIG_ARCH_HAS_PTE_SPECIAL) &&
	    walk->vma->vm_flags & VM_MIXEDMAP)
		p->fixed = ~0ULL;
	p->pfn = pte_pfn(pte);
	p->flags = pte_write(pte) ? HMM_EXTENT_RW : HMM_EXTENT_VALID;
}

/* In which bits does this PTE differ from the first one of its run? */
static __always_inline u64 hmm_pte_differs(const pte_t *ptep,
					   const struct hmm_pte *first)
{
	return pte_val(ptep_get_lockless((pte_t *)ptep)) ^ first->val;
}

/*
 * Entries for the run of PTEs from page @i of @n on, like @first. Returns the
 * page that ends it: another kind, a request for more, or @n.
 */
static __always_inline unsigned long
hmm_put_ptes(const struct hmm_walk *walk, const pte_t *ptep, unsigned long i,
	     unsigned long n, const struct hmm_pte *first, bool reads, bool wide)
{
	const u64 suspect = reads ? hmm_suspect(walk, first->flags) : 0;
	const unsigned int shift = walk->shift;
	u64 base = walk->bits[first->flags], differs = 0, entry;
	void *out = walk->out;

	if (first->flags & HMM_EXTENT_VALID)
		base |= (u64)first->pfn << shift;
	do {
		entry = base ^ ((differs >> PFN_PTE_SHIFT) << shift);
		if (!reads)
			hmm_put(out, i, entry, wide);
		else if (!hmm_put_asked(walk, i, entry, first->flags, suspect,
					wide))
			break;
		if (++i == n)
			break;
		differs = hmm_pte_differs(ptep + i, first);
	} while (!(differs & first->fixed));
	return i;
}

static __always_inline int hmm_fill_ptes(struct hmm_walk *walk,
					 const pte_t *ptep, unsigned long n,
					 bool reads, bool wide)
{
	unsigned long request = walk->range->default_flags, i = 0;
	struct hmm_pte first;

	while (i < n) {
		hmm_read_pte(walk, ptep + i, &first);
		if (reads)
			request = hmm_request(walk,
					      hmm_get(walk->out, i, wide));
		if (unlikely(hmm_lacks(request, first.flags)))
			break;
		i = hmm_put_ptes(walk, ptep, i, n, &first, reads, wide);
	}
	hmm_advance(walk, i);
	return i < n ? hmm_stop(walk, request, first.flags) : 0;
}

/*
 * Compiled once for each kind of array. None is inlined any further: the loops
 * want the registers for themselves.
 */
static noinline int hmm_write_ptes(struct hmm_walk *walk, const pte_t *ptep,
				   unsigned long n)
{
	return hmm_fill_ptes(walk, ptep, n, false, true);
}

static noinline int hmm_update_ptes(struct hmm_walk *walk, const pte_t *ptep,
				    unsigned long n)
{
	return hmm_fill_ptes(walk, ptep, n, true, true);
}

/* 32-bit, not encoded: one copy is enough */
static noinline int hmm_update_narrow(struct hmm_walk *walk, const pte_t *ptep,
				      unsigned long n)
{
	return hmm_fill_ptes(walk, ptep, n, true, false);
}

static noinline int hmm_extend_ptes(struct hmm_walk *walk, const pte_t *ptep,
				    unsigned long n)
{
	unsigned long request = walk->range->default_flags, i, run;
	struct hmm_pte first;
	u64 differs;
	int ret;

	for (i = 0; i < n; i += run) {
		hmm_read_pte(walk, ptep + i, &first);
		if (hmm_lacks(request, first.flags))
			return hmm_stop(walk, request, first.flags);
		for (run = 1; i + run < n; run++) {
			differs = hmm_pte_differs(ptep + i + run, &first);
			if (differs & first.fixed)
				break;
			if (first.flags & HMM_EXTENT_VALID &&
			    (first.pfn ^ (differs >> PFN_PTE_SHIFT)) !=
			    first.pfn + run)
				break;
		}
		ret = hmm_extend(walk, run, first.flags, first.pfn);
		if (ret)
			return ret;
	}
	return 0;
}

/*
 * The order in which the run of PTEs at @ptep, at most @n of them, can be taken as
 * one piece of a large folio. The page-table lock is held.
 */
static unsigned int hmm_folio_order(const struct hmm_walk *walk,
				    const pte_t *ptep, unsigned long n,
				    const struct hmm_pte *first)
{
	unsigned long index = walk->addr >> PAGE_SHIFT, run = 1;
	struct page *page = pfn_to_page(first->pfn);
	struct folio *folio = page_folio(page);
	unsigned int order;

	n = min_t(unsigned long, n,
		  folio_nr_pages(folio) - folio_page_idx(folio, page));
	while (run < n && !(hmm_pte_differs(ptep + run, first) & first->fixed) &&
	       pte_pfn(ptep_get_lockless((pte_t *)ptep + run)) == first->pfn + run)
		run++;

	order = ilog2(run);
	if (index | first->pfn)
		order = min_t(unsigned int, order, __ffs(index | first->pfn));
	return order;
}

static int hmm_fill_folios(struct hmm_walk *walk, const pte_t *ptep,
			   unsigned long n)
{
	unsigned int order;
	struct hmm_pte pte;
	int ret = 0;

	while (n && !ret) {
		hmm_read_pte(walk, ptep, &pte);
		order = pte.fixed == ~0ULL ? 0 :
			hmm_folio_order(walk, ptep, n, &pte);
		ret = hmm_fill(walk, walk->addr + (PAGE_SIZE << order),
			       pte.flags, pte.pfn, order);
		ptep += 1UL << order;
		n -= 1UL << order;
	}
	return ret;
}

static int hmm_walk_folios(struct hmm_walk *walk, pmd_t *pmdp, unsigned long n)
{
	spinlock_t *ptl; /* of the table */
	pte_t *ptep;
	int ret;

	ptep = pte_offset_map_lock(walk->vma->vm_mm, pmdp, walk->addr, &ptl);
	if (!ptep)
		return 0;
	ret = hmm_fill_folios(walk, ptep, n);
	pte_unmap_unlock(ptep, ptl);
	return ret;
}

static int hmm_walk_ptes(struct hmm_walk *walk, pmd_t *pmdp, unsigned long next)
{
	unsigned long n = (next - walk->addr) >> PAGE_SHIFT;
	pte_t *ptep;
	int ret;

	if (walk->range->flags & HMM_RANGE_FOLIO_ORDER)
		return hmm_walk_folios(walk, pmdp, n);

	ptep = pte_offset_map(pmdp, walk->addr);
	/* The table went away: the caller finds what came instead */
	if (!ptep)
		return 0;
	if (walk->range->max_extents)
		ret = hmm_extend_ptes(walk, ptep, n);
	else if (!hmm_wide(walk))
		ret = hmm_update_narrow(walk, ptep, n);
	else if (walk->reads)
		ret = hmm_update_ptes(walk, ptep, n);
	else
		ret = hmm_write_ptes(walk, ptep, n);
	pte_unmap(ptep);
	return ret;
}

/* ---- Going down ---- */

static int hmm_walk_pmd(struct hmm_walk *walk, pmd_t *pmdp, unsigned long next)
{
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
			return hmm_fill_special(walk, next);
		return hmm_fill_leaf(walk, next, pmd_pfn(pmd), pmd_write(pmd),
				     PMD_SHIFT - PAGE_SHIFT);
	}
	if (pmd_bad(pmd))
		return hmm_fill_error(walk, next);
	return hmm_walk_ptes(walk, pmdp, next);
}

static bool hmm_collided(const struct hmm_range *range)
{
	return mmu_interval_check_retry(range->notifier, range->notifier_seq);
}

/* Between two steps: is there a reason to go no further? */
static __always_inline int hmm_poll(struct hmm_walk *walk)
{
	if (unlikely(!walk->collided && hmm_collided(walk->range))) {
		trace_hmm_collision(walk->range, walk->addr);
		return -EBUSY;
	}
	if (unlikely(fatal_signal_pending(current)))
		return -EINTR;
	cond_resched();
	return 0;
}

/* Along a table of PMDs, up to the end of it, of the VMA, or of the range */
static int hmm_walk_pmds(struct hmm_walk *walk)
{
	unsigned long end = walk->pmd_end;
	unsigned long next;
	int ret;

	do {
		next = pmd_addr_end(walk->addr, end);
		ret = hmm_walk_pmd(walk, walk->pmdp, next);
		if (unlikely(ret))
			return ret;
		walk->pmdp += walk->addr == next;
		ret = hmm_poll(walk);
		if (unlikely(ret))
			return ret;
	} while (walk->addr < end);
	walk->pmdp = NULL;
	return 0;
}

static int hmm_walk_pud(struct hmm_walk *walk, p4d_t *p4dp, unsigned long end)
{
	unsigned long next = pud_addr_end(walk->addr, end);
	pud_t *pudp = pud_offset(p4dp, walk->addr);
	pud_t pud = pudp_get(pudp);

	if (pud_none(pud))
		return hmm_fill_missing(walk, next);
	if (!pud_present(pud))
		return hmm_fill_error(walk, next);
	if (pud_trans_huge(pud) || pud_devmap(pud)) {
		if (pud_special(pud))
			return hmm_fill_special(walk, next);
		return hmm_fill_leaf(walk, next, pud_pfn(pud), pud_write(pud),
				     PUD_SHIFT - PAGE_SHIFT);
	}
	if (pud_bad(pud))
		return hmm_fill_error(walk, next);
	walk->pmdp = pmd_offset(pudp, walk->addr);
	walk->pmd_end = next;
	return 0;
}

static int hmm_walk_tables(struct hmm_walk *walk, unsigned long end)
{
	pgd_t *pgdp = pgd_offset(walk->vma->vm_mm, walk->addr);
	p4d_t *p4dp;

	/* Levels that are folded do not end by themselves, but with the one above */
	end = pgd_addr_end(walk->addr, end);
	if (pgd_none(pgdp_get(pgdp)))
		return hmm_fill_missing(walk, end);
	if (pgd_bad(pgdp_get(pgdp)))
		return hmm_fill_error(walk, end);
	p4dp = p4d_offset(pgdp, walk->addr);
	end = p4d_addr_end(walk->addr, end);
	if (p4d_none(p4dp_get(p4dp)))
		return hmm_fill_missing(walk, end);
	if (p4d_bad(p4dp_get(p4dp)))
		return hmm_fill_error(walk, end);
	return hmm_walk_pud(walk, p4dp, end);
}

static int hmm_walk_hugetlb(struct hmm_walk *walk, unsigned long end)
{
	struct vm_area_struct *vma = walk->vma;
	struct hstate *h = hstate_vma(vma);
	unsigned long head = walk->addr & huge_page_mask(h);
	unsigned long next = min(end - 1, head + huge_page_size(h) - 1) + 1;
	pte_t *ptep, pte = {};

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

/*
 * One step from the top: results for what is outside of VMAs, or for what a high
 * level of the tables has to say, or else the table of PMDs to go along.
 */
static int hmm_walk_vma(struct hmm_walk *walk)
{
	struct hmm_range *range = walk->range;
	struct vm_area_struct *vma = walk->vma;
	unsigned long end;

	if (!vma || walk->addr >= vma->vm_end) {
		vma = find_vma(range->notifier->mm, walk->addr);
		walk->vma = vma;
	}
	if (!vma)
		return hmm_fill_error(walk, range->end);
	if (walk->addr < vma->vm_start)
		return hmm_fill_error(walk, min(range->end, vma->vm_start));

	end = min(range->end, vma->vm_end);
	/* Can a device have mappings here at all? */
	if (vma->vm_flags & (VM_IO | VM_PFNMAP))
		return hmm_fill_special(walk, end);
	if (!(vma->vm_flags & VM_READ))
		return hmm_fill_error(walk, end);
	if (is_vm_hugetlb_page(vma))
		return hmm_walk_hugetlb(walk, end);
	return hmm_walk_tables(walk, end);
}

/**
 * hmm_walk_on() - walk as far as it goes without a fault
 * @walk: begun by hmm_walk_init()
 *
 * Context: The mmap lock is held, or that of walk->vma, which covers the range then.
 * May sleep.
 * Return: 0 at the end of the range; %HMM_WALK_FAULT if walk->addr needs
 * walk->want first; %HMM_WALK_FULL if there is no room for more extents; -EFAULT
 * if a fault would not help; -EBUSY on a collision, -EINTR on a fatal signal.
 */
int hmm_walk_on(struct hmm_walk *walk)
{
	int ret = hmm_poll(walk);

	while (!ret && walk->addr < walk->range->end) {
		if (walk->pmdp) {
			ret = hmm_walk_pmds(walk);
			continue;
		}
		ret = hmm_walk_vma(walk);
		/* Down to a table of PMDs is no step yet */
		if (!ret && !walk->pmdp)
			ret = hmm_poll(walk);
	}
	return ret;
}
