// SPDX-License-Identifier: GPL-2.0
/*
 * The walk of a range: from page tables to results
 *
 * The walk goes down from the top of the page tables, and then along a table of
 * PMDs, one PMD after the other: a table of PTEs, a leaf, a hole. What it finds
 * comes down to two things: the *kind* of a page, and its pfn. The kind says what
 * can be asked of the page without a fault. A page that is asked for more stops
 * the walk: the pages before it have their results, tables of PTEs and locks of
 * the walk are let go, and the fault is handled by @fault of the walk, which is the
 * part of mm/hmm.c. Then the walk goes on at that very page, in the same table of
 * PMDs. So no fault is handled while anything is held or mapped, a fault is taken
 * for no page but the one that wants it, and the one that brings a huge page is the
 * only one for all of it.
 *
 * There is no case for migration entries, swap entries, markers and the like: to
 * a snapshot they are pages that are not there, and handle_mm_fault() knows best
 * what each needs, be it to wait until a migration is over or to report poison.
 *
 * Runs of PTEs
 *
 * Most PTEs differ from their neighbour in nothing but the pfn. So it is enough to
 * work out the kind of the first, and to see of each further one that the rest of
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
 * Short names: n is a number of pages, i one of them; wide says that an entry is a
 * u64, and is a constant on 64-bit.
 */
#include <linux/hugetlb.h>
#include <linux/memblock.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/pgtable.h>
#include <linux/secretmem.h>
#include <linux/string.h>
#include <linux/swap.h>
#include <linux/swapops.h>

#include <trace/events/hmm.h>

#include "hmm_internal.h"

/*
 * Where a pfn begins in an entry, if it is simply shifted: hmm_varying() looks at that.
 * arm64 does not say, because it puts the top of a pfn of 52 bits elsewhere.
 */
#ifdef PFN_PTE_SHIFT
#define HMM_PTE_SHIFT	PFN_PTE_SHIFT
#else
#define HMM_PTE_SHIFT	PAGE_SHIFT
#endif

/*
 * Bits in which two PTEs of pages of the same kind may differ: those of the pfn, as
 * far as there is memory, and the one that says it has been accessed. 0 where a
 * pfn is not simply shifted.
 */
static u64 hmm_pte_varying __ro_after_init;

/* The same for PMDs that are leaves */
static u64 hmm_pmd_varying __ro_after_init;

/* From two entries that differ in @pfns, and two that differ in the accessed bit */
static u64 __init hmm_varying(u64 pfns, u64 differs, u64 young)
{
	if (differs != pfns << HMM_PTE_SHIFT)
		return 0;
	/* What is below the pfn is shifted out with no further ado */
	return differs | (young & ((1ULL << HMM_PTE_SHIFT) - 1));
}

static int __init hmm_walk_setup(void)
{
	u64 pfns = (1ULL << fls_long(max_pfn)) - 1;
	pgprot_t prot = vm_get_page_prot(VM_READ);
	pte_t pte = pfn_pte(0, prot);
#ifdef CONFIG_TRANSPARENT_HUGEPAGE
	u64 huge = pfns & ~(u64)(PTRS_PER_PTE - 1);
	pmd_t pmd = pmd_mkhuge(pfn_pmd(0, prot));

	hmm_pmd_varying =
		hmm_varying(huge, pmd_val(pmd_mkhuge(pfn_pmd(huge, prot))) ^
				  pmd_val(pmd),
			    pmd_val(pmd_mkyoung(pmd)) ^ pmd_val(pmd_mkold(pmd)));
#endif
	hmm_pte_varying =
		hmm_varying(pfns, pte_val(pfn_pte(pfns, prot)) ^ pte_val(pte),
			    pte_val(pte_mkyoung(pte)) ^ pte_val(pte_mkold(pte)));
	return 0;
}
core_initcall(hmm_walk_setup);

/* ---- Requests and entries ---- */

static const unsigned int hmm_kind_flags[HMM_NR_KINDS] = {
	[HMM_HOLE] = 0,
	[HMM_ERROR] = HMM_EXTENT_ERROR,
	[HMM_SPECIAL] = HMM_EXTENT_ERROR | HMM_EXTENT_SPECIAL,
	[HMM_READABLE] = HMM_EXTENT_VALID,
	[HMM_WRITABLE] = HMM_EXTENT_VALID | HMM_EXTENT_WRITE,
	[HMM_OWN_READABLE] = HMM_EXTENT_VALID | HMM_EXTENT_DEVICE_PRIVATE,
	[HMM_OWN_WRITABLE] = HMM_EXTENT_VALID | HMM_EXTENT_WRITE |
			     HMM_EXTENT_DEVICE_PRIVATE,
};

static const u64 hmm_pfn_bits[HMM_NR_KINDS] = {
	[HMM_ERROR] = HMM_PFN_ERROR,
	[HMM_SPECIAL] = HMM_PFN_ERROR,
	[HMM_READABLE] = HMM_PFN_VALID,
	[HMM_WRITABLE] = HMM_PFN_VALID | HMM_PFN_WRITE,
	[HMM_OWN_READABLE] = HMM_PFN_VALID,
	[HMM_OWN_WRITABLE] = HMM_PFN_VALID | HMM_PFN_WRITE,
};

/* Each of these in a request, beside HMM_PFN_REQ_FAULT, takes a fault */
static const unsigned long hmm_kind_lacks[HMM_NR_KINDS] = {
	[HMM_HOLE] = HMM_PFN_REQ_FAULT,
	[HMM_ERROR] = HMM_PFN_REQ_FAULT,
	[HMM_SPECIAL] = HMM_PFN_REQ_FAULT,
	[HMM_READABLE] = HMM_PFN_REQ_WRITE,
	[HMM_OWN_READABLE] = HMM_PFN_REQ_WRITE | HMM_PFN_REQ_SYSMEM,
	[HMM_OWN_WRITABLE] = HMM_PFN_REQ_SYSMEM,
};

static bool hmm_is_page(enum hmm_kind kind)
{
	return kind >= HMM_READABLE;
}

static void hmm_walk_encode(struct hmm_walk *walk,
			    const struct hmm_encoding *enc)
{
	const u64 own = enc->valid | enc->device_private;

	walk->shift = enc->pfn_shift;
	walk->bits = walk->encoded;
	walk->encoded[HMM_HOLE] = enc->empty;
	walk->encoded[HMM_ERROR] = enc->empty | enc->error;
	walk->encoded[HMM_SPECIAL] = enc->empty | enc->error | enc->special;
	walk->encoded[HMM_READABLE] = enc->valid;
	walk->encoded[HMM_WRITABLE] = enc->valid | enc->write;
	walk->encoded[HMM_OWN_READABLE] = own;
	walk->encoded[HMM_OWN_WRITABLE] = own | enc->write;
}

static noinline void hmm_walk_ask(struct hmm_walk *walk, unsigned long mask,
				  const struct hmm_encoding *enc)
{
	u64 ask_fault = 0, ask_sysmem = 0;
	unsigned long lacks;
	int kind;

	if (mask & HMM_PFN_REQ_FAULT)
		ask_fault = enc ? enc->valid : HMM_PFN_REQ_FAULT;
	if (mask & HMM_PFN_REQ_WRITE)
		walk->ask_write = enc ? enc->write : HMM_PFN_REQ_WRITE;
	if (mask & HMM_PFN_REQ_SYSMEM)
		ask_sysmem = enc ? enc->error : HMM_PFN_REQ_SYSMEM;
	walk->needs_fault = walk->range->default_flags & HMM_PFN_REQ_FAULT ?
			    ~0ULL : ask_fault;

	for (kind = 0; kind < HMM_NR_KINDS; kind++) {
		lacks = hmm_kind_lacks[kind];
		if (lacks & HMM_PFN_REQ_WRITE)
			walk->alarm[kind] |= walk->ask_write;
		if (lacks & HMM_PFN_REQ_SYSMEM)
			walk->alarm[kind] |= ask_sysmem;
		/* Also where the default would want more, but does not fault */
		if ((lacks & HMM_PFN_REQ_FAULT) ||
		    (lacks & walk->range->default_flags))
			walk->alarm[kind] |= ask_fault;
	}
}

/* The kinds that do not have all that every page is asked for */
static u8 hmm_refused(unsigned long request)
{
	u8 kinds = 0;
	int kind;

	if (!(request & HMM_PFN_REQ_FAULT))
		return 0;
	for (kind = 0; kind < HMM_NR_KINDS; kind++)
		if (request & hmm_kind_lacks[kind])
			kinds |= BIT(kind);
	return kinds;
}

/**
 * hmm_walk_init() - begin a walk
 * @walk: zeroed
 * @range: has been checked
 *
 * Context: Any.
 */
void hmm_walk_init(struct hmm_walk *walk, struct hmm_range *range)
{
	walk->range = range;
	walk->addr = range->start;
	walk->faulted = ULONG_MAX;
	walk->out = range->hmm_pfns;
	walk->bits = hmm_pfn_bits;
	walk->refused = hmm_refused(range->default_flags);
	if (range->encoding)
		hmm_walk_encode(walk, range->encoding);
	if (range->flags & HMM_RANGE_KEEP_FLAGS)
		walk->keep = HMM_PFN_INOUT_FLAGS;
	if (range->pfn_flags_mask)
		hmm_walk_ask(walk, range->pfn_flags_mask, range->encoding);
	walk->reads = walk->keep | range->pfn_flags_mask;
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

/*
 * Write an entry that has to be looked at first; false if its request stops it:
 * it raises @alarm, and it, or the default, is a request at all.
 */
static __always_inline bool
hmm_put_asked(void *out, unsigned long i, u64 entry, u64 alarm, u64 fault,
	      u64 keep, bool wide)
{
	u64 old = hmm_get(out, i, wide);

	if (unlikely(old & alarm) && old & fault)
		return false;
	if (unlikely(old & keep))
		hmm_put_keeping((unsigned long *)out + i, entry);
	else
		hmm_put(out, i, entry, wide);
	return true;
}

/* ---- Stopping and filling ---- */

static void hmm_advance(struct hmm_walk *walk, unsigned long n)
{
	walk->addr += n << PAGE_SHIFT;
	walk->out += n * (hmm_wide(walk) ? sizeof(u64) : sizeof(long));
}

/* The page at walk->addr wants more than there is */
static int hmm_stop(struct hmm_walk *walk, enum hmm_kind kind)
{
	if (kind == HMM_ERROR || kind == HMM_SPECIAL)
		return -EFAULT;
	walk->write = walk->range->default_flags & HMM_PFN_REQ_WRITE;
	if (walk->reads && hmm_get(walk->out, 0, hmm_wide(walk)) & walk->ask_write)
		walk->write = true;
	return walk->fault(walk);
}

/* Room for one more kind of page; a run that goes on needs none */
static __always_inline int hmm_extend(struct hmm_walk *walk, unsigned long n,
				      enum hmm_kind kind, unsigned long pfn)
{
	struct hmm_range *range = walk->range;
	unsigned int flags = hmm_kind_flags[kind];
	struct hmm_extent *last = range->extents + range->nr_extents;

	if (range->nr_extents && last[-1].flags == flags &&
	    (!hmm_is_page(kind) || last[-1].pfn + last[-1].npages == pfn)) {
		last[-1].npages += n;
	} else {
		if (range->nr_extents == range->max_extents)
			return HMM_WALK_FULL;
		range->nr_extents++;
		last->start = walk->addr;
		last->npages = n;
		last->pfn = pfn;
		last->flags = flags;
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

/* The first of @n pages of a @kind that asks for more, or @n */
static unsigned long hmm_find_asking(const struct hmm_walk *walk, unsigned long n,
				     enum hmm_kind kind)
{
	const u64 alarm = walk->alarm[kind];
	unsigned long i = alarm ? 0 : n;
	u64 old;

	for (; i < n; i++) {
		old = hmm_get(walk->out, i, hmm_wide(walk));
		if (old & alarm && old & walk->needs_fault)
			break;
	}
	return i;
}

/*
 * Returns how many have a result. What is mapped as one is reported as one, or not
 * at all: then the page that asks for more is faulted in first, see hmm_stop_at().
 */
static unsigned long hmm_put_run_asked(struct hmm_walk *walk, unsigned long n,
				       u64 entry, u64 step, enum hmm_kind kind)
{
	const u64 alarm = walk->alarm[kind];
	bool wide = hmm_wide(walk);
	unsigned long i;

	for (i = 0; i < n; i++, entry += step)
		if (!hmm_put_asked(walk->out, i, entry, alarm, walk->needs_fault,
				   walk->keep, wide))
			break;
	return i;
}

/*
 * Page @i from here on wants more, and what it is a part of is not written before
 * its fault. If there is none, the pages before it are as they were: @entry.
 */
static int hmm_stop_at(struct hmm_walk *walk, unsigned long i, u64 entry,
		       enum hmm_kind kind)
{
	u64 step = hmm_is_page(kind) ? 1ULL << walk->shift : 0;
	unsigned long addr = walk->addr;
	void *out = walk->out;
	int ret;

	hmm_advance(walk, i);
	ret = hmm_stop(walk, kind);
	walk->addr = addr;
	walk->out = out;
	if (ret)
		hmm_advance(walk, hmm_put_run_asked(walk, i, entry, step, kind));
	return ret;
}

/*
 * Entries for @n pages, all of a @kind: a part of a leaf of this @order, whose
 * first page here is @pfn, a hole, or an error. No more than one PMD's worth at a
 * time.
 */
static int hmm_fill_entries(struct hmm_walk *walk, unsigned long n,
			    enum hmm_kind kind, unsigned long pfn,
			    unsigned int order)
{
	u64 step = 0, entry = walk->bits[kind];
	unsigned long done;

	n = min_t(unsigned long, n, PTRS_PER_PTE);
	if (hmm_is_page(kind)) {
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
	/* A part of something larger must not be written before the fault */
	if (order) {
		done = hmm_find_asking(walk, n, kind);
		if (done < n)
			return hmm_stop_at(walk, done, entry, kind);
	}
	done = hmm_put_run_asked(walk, n, entry, step, kind);
	hmm_advance(walk, done);
	return done < n ? hmm_stop(walk, kind) : 0;
}

/* The result for the pages up to @next, which are all alike */
static int hmm_fill(struct hmm_walk *walk, unsigned long next,
		    enum hmm_kind kind, unsigned long pfn, unsigned int order)
{
	unsigned long n = (next - walk->addr) >> PAGE_SHIFT;

	if (walk->refused & BIT(kind))
		return hmm_stop(walk, kind);
	if (walk->range->max_extents)
		return hmm_extend(walk, n, kind, pfn);
	return hmm_fill_entries(walk, n, kind, pfn, order);
}

static int hmm_fill_alike(struct hmm_walk *walk, unsigned long next,
			  enum hmm_kind kind)
{
	return hmm_fill(walk, next, kind, 0, 0);
}

/* A part of a leaf of the page tables; @pfn is the first page of all of it */
static int hmm_fill_leaf(struct hmm_walk *walk, unsigned long next,
			 unsigned long pfn, bool write, unsigned int order)
{
	unsigned long offset = (walk->addr >> PAGE_SHIFT) & ((1UL << order) - 1);

	return hmm_fill(walk, next, write ? HMM_WRITABLE : HMM_READABLE,
			pfn + offset, order);
}

static int hmm_disturbance(void)
{
	if (fatal_signal_pending(current))
		return -EINTR;
	cond_resched();
	return 0;
}

/* Between two steps: is there a reason to go no further? */
static __always_inline int hmm_poll(struct hmm_walk *walk)
{
	if (unlikely(!walk->collided && hmm_collided(walk->range))) {
		trace_hmm_collision(walk->range, walk->addr);
		return -EBUSY;
	}
	return unlikely(hmm_disturbed()) ? hmm_disturbance() : 0;
}

/* ---- PTEs ---- */

/**
 * struct hmm_pte - a PTE, and what it stands for
 * @val: the PTE
 * @fixed: the bits that have to be the same for others to be like it
 * @pfn: of the page, if there is one
 * @kind: of page
 */
struct hmm_pte {
	u64 val;
	u64 fixed;
	unsigned long pfn;
	enum hmm_kind kind;
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

/* What hmm_odd_pte() has to say, in one word: pfn and kind */
#define HMM_KIND_BITS	3
#define HMM_KIND_MASK	((1U << HMM_KIND_BITS) - 1)

static_assert(HMM_NR_KINDS <= 1U << HMM_KIND_BITS);

static u64 hmm_pfn_of_kind(unsigned long pfn, enum hmm_kind kind)
{
	return (u64)pfn << HMM_KIND_BITS | kind;
}

/* A PTE that neither simply maps a page nor is none */
static noinline u64 hmm_odd_pte(const struct hmm_walk *walk, pte_t pte)
{
	swp_entry_t swap;

	if (pte_present(pte)) {
		if (pte_protnone(pte))
			return HMM_HOLE;
		if (is_zero_pfn(pte_pfn(pte)))
			return hmm_pfn_of_kind(pte_pfn(pte), HMM_READABLE);
		return HMM_SPECIAL;
	}

	swap = pte_to_swp_entry(pte);
	if (!is_device_private_entry(swap) || !hmm_owns(walk, swap))
		return HMM_HOLE;
	/* PAGEMAP_SCAN, to hear of writes, leaves the entry as it is but for a bit */
	return hmm_pfn_of_kind(swp_offset_pfn(swap),
			       is_writable_device_private_entry(swap) &&
			       !pte_swp_uffd_wp(pte) ?
			       HMM_OWN_WRITABLE : HMM_OWN_READABLE);
}

static __always_inline struct hmm_pte hmm_read_pte(const struct hmm_walk *walk,
						   const pte_t *ptep)
{
	pte_t pte = ptep_get_lockless((pte_t *)ptep);
	struct hmm_pte p = { .val = pte_val(pte), .fixed = ~0ULL };
	u64 odd;

	if (likely(pte_present(pte) && !pte_protnone(pte) &&
		   !hmm_pte_pageless(walk, pte))) {
		/* Where no PTE tells if there is a page, each has to be asked */
		if (IS_ENABLED(CONFIG_ARCH_HAS_PTE_SPECIAL) ||
		    !(walk->vma->vm_flags & VM_MIXEDMAP))
			p.fixed = ~hmm_pte_varying;
		p.pfn = pte_pfn(pte);
		p.kind = pte_write(pte) ? HMM_WRITABLE : HMM_READABLE;
	} else if (!pte_none(pte)) {
		odd = hmm_odd_pte(walk, pte);
		p.pfn = odd >> HMM_KIND_BITS;
		p.kind = odd & HMM_KIND_MASK;
	}
	return p;
}

/* In which bits does this PTE differ from the first one of its run? */
static __always_inline u64 hmm_pte_differs(const pte_t *ptep,
					   struct hmm_pte first)
{
	return pte_val(ptep_get_lockless((pte_t *)ptep)) ^ first.val;
}

/*
 * Entries for @n PTEs. @first is the first one of the run that a PTE belongs to.
 * Returns how many have a result; *@kind is that of the one that wants more.
 */
static __always_inline unsigned long
hmm_fill_ptes(const struct hmm_walk *walk, const pte_t *ptep, unsigned long n,
	      enum hmm_kind *kind, bool reads, bool wide)
{
	const u64 fault = walk->needs_fault, keep = walk->keep;
	const unsigned int shift = walk->shift;
	u64 differs, base, entry, alarm;
	void *out = walk->out;
	struct hmm_pte first;
	unsigned long i = 0;

	for (;;) {
		first = hmm_read_pte(walk, ptep + i);
		if (unlikely(walk->refused & BIT(first.kind)))
			break;
		base = walk->bits[first.kind] | (u64)first.pfn << shift;
		alarm = walk->alarm[first.kind];
		differs = 0;
		do {
			entry = base ^ ((differs >> HMM_PTE_SHIFT) << shift);
			if (!reads)
				hmm_put(out, i, entry, wide);
			else if (!hmm_put_asked(out, i, entry, alarm, fault,
						keep, wide))
				goto wants;
			if (++i == n)
				return n;
			differs = hmm_pte_differs(ptep + i, first);
		} while (!(differs & first.fixed));
	}
wants:
	*kind = first.kind;
	return i;
}

/*
 * Compiled once for each kind of array. None is inlined any further: the loops
 * want the registers for themselves.
 */
static noinline unsigned long hmm_write_ptes(const struct hmm_walk *walk,
					     const pte_t *ptep, unsigned long n,
					     enum hmm_kind *kind)
{
	return hmm_fill_ptes(walk, ptep, n, kind, false, true);
}

static noinline unsigned long hmm_update_ptes(const struct hmm_walk *walk,
					      const pte_t *ptep, unsigned long n,
					      enum hmm_kind *kind)
{
	return hmm_fill_ptes(walk, ptep, n, kind, true, true);
}

/* 32-bit, not encoded: one copy is enough */
static noinline unsigned long hmm_update_narrow(const struct hmm_walk *walk,
						const pte_t *ptep,
						unsigned long n,
						enum hmm_kind *kind)
{
	return hmm_fill_ptes(walk, ptep, n, kind, true, false);
}

/* A table of PTEs. It is looked up again after each fault, and may be gone then. */
static int hmm_walk_entries(struct hmm_walk *walk, pmd_t *pmdp, unsigned long n)
{
	enum hmm_kind kind;
	unsigned long done;
	pte_t *ptep;
	int ret;

	while ((ptep = pte_offset_map(pmdp, walk->addr))) {
		if (!hmm_wide(walk))
			done = hmm_update_narrow(walk, ptep, n, &kind);
		else if (walk->reads)
			done = hmm_update_ptes(walk, ptep, n, &kind);
		else
			done = hmm_write_ptes(walk, ptep, n, &kind);
		pte_unmap(ptep);
		hmm_advance(walk, done);
		n -= done;
		if (!n)
			return 0;
		ret = hmm_stop(walk, kind);
		if (ret || !walk->pmdp)
			return ret;
		ret = hmm_poll(walk);
		if (ret)
			return ret;
	}
	/* The caller finds what has come instead */
	return 0;
}

/* As hmm_fill_ptes(), into extents; *@ret is 0, or HMM_WALK_FULL */
static unsigned long hmm_extend_ptes(struct hmm_walk *walk, const pte_t *ptep,
				     unsigned long n, enum hmm_kind *kind,
				     int *ret)
{
	unsigned long i, run;
	struct hmm_pte first;
	u64 differs;

	for (i = 0; i < n; i += run) {
		first = hmm_read_pte(walk, ptep + i);
		*kind = first.kind;
		if (walk->refused & BIT(first.kind))
			break;
		for (run = 1; i + run < n; run++) {
			differs = hmm_pte_differs(ptep + i + run, first);
			if (differs & first.fixed)
				break;
			if (hmm_is_page(first.kind) &&
			    (first.pfn ^ (differs >> HMM_PTE_SHIFT)) !=
			    first.pfn + run)
				break;
		}
		*ret = hmm_extend(walk, run, first.kind, first.pfn);
		if (*ret)
			break;
	}
	return i;
}

static int hmm_walk_extents(struct hmm_walk *walk, pmd_t *pmdp, unsigned long n)
{
	pte_t *ptep = pte_offset_map(pmdp, walk->addr);
	enum hmm_kind kind;
	unsigned long done;
	int ret = 0;

	if (!ptep)
		return 0;
	done = hmm_extend_ptes(walk, ptep, n, &kind, &ret);
	pte_unmap(ptep);
	return ret || done == n ? ret : hmm_stop(walk, kind);
}

/*
 * The order in which the run of PTEs at @ptep, at most @n of them, can be taken as
 * one piece of a large folio. The page-table lock is held.
 */
static unsigned int hmm_folio_order(const struct hmm_walk *walk,
				    const pte_t *ptep, unsigned long n,
				    struct hmm_pte first)
{
	unsigned long index = walk->addr >> PAGE_SHIFT, run = 1;
	struct page *page = pfn_to_page(first.pfn);
	struct folio *folio = page_folio(page);
	struct hmm_pte next;

	n = min_t(unsigned long, n,
		  folio_nr_pages(folio) - folio_page_idx(folio, page));
	if (index | first.pfn)
		n = min(n, 1UL << __ffs(index | first.pfn));
	for (; run < n; run++) {
		/* Dirty or not is no matter of permission */
		next = hmm_read_pte(walk, ptep + run);
		if (next.kind != first.kind || next.pfn != first.pfn + run)
			break;
	}

	return ilog2(run);
}

/*
 * Returns how many have a result; @kind is that of the one that stopped it. The page
 * that asks for more is *@at behind it, and *@entry is what it would have been.
 */
static unsigned long hmm_fill_folios(struct hmm_walk *walk, const pte_t *ptep,
				     unsigned long n, enum hmm_kind *kind,
				     unsigned long *at, u64 *entry)
{
	unsigned long i, size;
	unsigned int order;
	struct hmm_pte pte;

	*at = 0;
	for (i = 0; i < n; i += size) {
		pte = hmm_read_pte(walk, ptep + i);
		*kind = pte.kind;
		if (walk->refused & BIT(pte.kind))
			break;
		order = pte.fixed == ~0ULL ? 0 :
			hmm_folio_order(walk, ptep + i, n - i, pte);
		size = 1UL << order;
		*entry = walk->bits[pte.kind] | pte.pfn |
			 (u64)order << HMM_PFN_ORDER_SHIFT;
		*at = hmm_find_asking(walk, size, pte.kind);
		if (*at < size)
			break;
		hmm_put_run_asked(walk, size, *entry, hmm_is_page(pte.kind),
				  pte.kind);
		hmm_advance(walk, size);
		*at = 0;
	}
	return i;
}

static int hmm_walk_folios(struct hmm_walk *walk, pmd_t *pmdp, unsigned long n)
{
	spinlock_t *ptl; /* of the table */
	unsigned long done, at;
	enum hmm_kind kind;
	u64 entry = 0;
	pte_t *ptep;

	ptep = pte_offset_map_lock(walk->vma->vm_mm, pmdp, walk->addr, &ptl);
	if (!ptep)
		return 0;
	done = hmm_fill_folios(walk, ptep, n, &kind, &at, &entry);
	pte_unmap_unlock(ptep, ptl);
	return done < n ? hmm_stop_at(walk, at, entry, kind) : 0;
}

static int hmm_walk_ptes(struct hmm_walk *walk, pmd_t *pmdp, unsigned long next)
{
	unsigned long n = (next - walk->addr) >> PAGE_SHIFT;

	if (walk->range->max_extents)
		return hmm_walk_extents(walk, pmdp, n);
	if (walk->range->flags & HMM_RANGE_FOLIO_ORDER)
		return hmm_walk_folios(walk, pmdp, n);
	return hmm_walk_entries(walk, pmdp, n);
}

/* ---- Going down ---- */

/*
 * Extents for leaves of PMDs, one after the other for as long as they are like the
 * first, @val, whose page is @pfn.
 */
static noinline int hmm_extend_leaves(struct hmm_walk *walk, const pmd_t *pmdp,
				      u64 val, enum hmm_kind kind,
				      unsigned long pfn)
{
	u64 differs = 0;
	int ret;

	do {
		ret = hmm_extend(walk, PTRS_PER_PTE, kind,
				 pfn ^ (differs >> HMM_PTE_SHIFT));
		if (ret || walk->pmd_end - walk->addr < PMD_SIZE)
			return ret;
		ret = hmm_poll(walk);
		if (ret)
			return ret;
		pmdp++;
		differs = pmd_val(pmdp_get_lockless((pmd_t *)pmdp)) ^ val;
	} while (!(differs & ~hmm_pmd_varying));
	return 0;
}

static int hmm_fill_pmd(struct hmm_walk *walk, const pmd_t *pmdp, pmd_t pmd,
			unsigned long next)
{
	enum hmm_kind kind = pmd_write(pmd) ? HMM_WRITABLE : HMM_READABLE;

	if (walk->range->max_extents && !(walk->refused & BIT(kind)) &&
	    next - walk->addr == PMD_SIZE)
		return hmm_extend_leaves(walk, pmdp, pmd_val(pmd), kind,
					 pmd_pfn(pmd));
	return hmm_fill_leaf(walk, next, pmd_pfn(pmd), pmd_write(pmd),
			     PMD_SHIFT - PAGE_SHIFT);
}

static int hmm_walk_pmd(struct hmm_walk *walk, pmd_t *pmdp, unsigned long next)
{
	pmd_t pmd = pmdp_get_lockless(pmdp);

	if (pmd_none(pmd) || is_pmd_migration_entry(pmd))
		return hmm_fill_alike(walk, next, HMM_HOLE);
	/* First: what is not present may have any other bit set */
	if (!pmd_present(pmd))
		return hmm_fill_alike(walk, next, HMM_ERROR);
	if (pmd_trans_huge(pmd) || pmd_devmap(pmd)) {
		if (pmd_protnone(pmd))
			return hmm_fill_alike(walk, next, HMM_HOLE);
		if (pmd_special(pmd))
			return hmm_fill_alike(walk, next, HMM_SPECIAL);
		return hmm_fill_pmd(walk, pmdp, pmd, next);
	}
	if (pmd_bad(pmd))
		return hmm_fill_alike(walk, next, HMM_ERROR);
	return hmm_walk_ptes(walk, pmdp, next);
}

/*
 * Along a table of PMDs, up to the end of it, of the VMA, or of the range; or until
 * a fault has dropped the lock that keeps it.
 */
static int hmm_walk_pmds(struct hmm_walk *walk)
{
	unsigned long from, next;
	int ret;

	do {
		from = walk->addr;
		next = pmd_addr_end(from, walk->pmd_end);
		ret = hmm_walk_pmd(walk, walk->pmdp, next);
		if (unlikely(ret))
			return ret;
		if (unlikely(!walk->pmdp))
			return 0;
		walk->pmdp += (walk->addr >> PMD_SHIFT) - (from >> PMD_SHIFT);
		ret = hmm_poll(walk);
		if (unlikely(ret))
			return ret;
	} while (walk->addr < walk->pmd_end);
	walk->pmdp = NULL;
	return 0;
}

static int hmm_walk_pud(struct hmm_walk *walk, p4d_t *p4dp, unsigned long end)
{
	unsigned long next = pud_addr_end(walk->addr, end);
	pud_t *pudp = pud_offset(p4dp, walk->addr);
	pud_t pud = pudp_get(pudp);

	if (pud_none(pud))
		return hmm_fill_alike(walk, next, HMM_HOLE);
	if (!pud_present(pud))
		return hmm_fill_alike(walk, next, HMM_ERROR);
	if (pud_trans_huge(pud) || pud_devmap(pud)) {
		if (pud_special(pud))
			return hmm_fill_alike(walk, next, HMM_SPECIAL);
		return hmm_fill_leaf(walk, next, pud_pfn(pud), pud_write(pud),
				     PUD_SHIFT - PAGE_SHIFT);
	}
	if (pud_bad(pud))
		return hmm_fill_alike(walk, next, HMM_ERROR);
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
	if (pgd_none(*pgdp))
		return hmm_fill_alike(walk, end, HMM_HOLE);
	if (pgd_bad(*pgdp))
		return hmm_fill_alike(walk, end, HMM_ERROR);
	p4dp = p4d_offset(pgdp, walk->addr);
	end = p4d_addr_end(walk->addr, end);
	if (p4d_none(p4dp_get(p4dp)))
		return hmm_fill_alike(walk, end, HMM_HOLE);
	if (p4d_bad(p4dp_get(p4dp)))
		return hmm_fill_alike(walk, end, HMM_ERROR);
	return hmm_walk_pud(walk, p4dp, end);
}

static int hmm_walk_hugetlb(struct hmm_walk *walk, unsigned long end)
{
	struct vm_area_struct *vma = walk->vma;
	struct hstate *h = hstate_vma(vma);
	unsigned long head = walk->addr & huge_page_mask(h);
	unsigned long next = min(end - 1, head + huge_page_size(h) - 1) + 1;
	pte_t *ptep, pte = __pte(0);

	hugetlb_vma_lock_read(vma);
	ptep = hugetlb_walk(vma, head, huge_page_size(h));
	if (ptep)
		pte = huge_ptep_get(vma->vm_mm, head, ptep);
	hugetlb_vma_unlock_read(vma);

	if (!ptep || !pte_present(pte))
		return hmm_fill_alike(walk, next, HMM_HOLE);
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
		return hmm_fill_alike(walk, range->end, HMM_ERROR);
	if (walk->addr < vma->vm_start)
		return hmm_fill_alike(walk, min(range->end, vma->vm_start),
				      HMM_ERROR);

	end = min(range->end, vma->vm_end);
	/* Can a device have mappings here at all? */
	if (vma->vm_flags & (VM_IO | VM_PFNMAP | VM_SHADOW_STACK) ||
	    (!vma_is_anonymous(vma) && vma_is_secretmem(vma)))
		return hmm_fill_alike(walk, end, HMM_SPECIAL);
	if (!(vma->vm_flags & VM_READ))
		return hmm_fill_alike(walk, end, HMM_ERROR);
	if (is_vm_hugetlb_page(vma))
		return hmm_walk_hugetlb(walk, end);
	return hmm_walk_tables(walk, end);
}

/**
 * hmm_walk_on() - walk to the end, faults included
 * @walk: begun by hmm_walk_init()
 *
 * Context: The mmap lock is held, or that of walk->vma, which covers the range;
 * walk->fault may exchange one for the other. May sleep.
 * Return: 0 at the end of the range; %HMM_WALK_FULL if there is no room for more
 * extents; -EFAULT if a fault would not help; -EBUSY on a collision; -EINTR on a
 * fatal signal; or what walk->fault returned.
 */
int hmm_walk_on(struct hmm_walk *walk)
{
	int ret = hmm_poll(walk);

	while (!ret && walk->addr < walk->range->end) {
		ret = hmm_walk_vma(walk);
		if (!ret && walk->pmdp)
			ret = hmm_walk_pmds(walk);
		else if (!ret)
			ret = hmm_poll(walk);
	}
	return ret;
}
