// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of ranges: random address spaces against a naive reference
 *
 * A *world* is a stretch of an address space, made up by chance: VMAs and holes,
 * protections, huge pages and small ones, pages that are there, cannot be written
 * to, are swapped out, under migration, poisoned or no pages at all. Over it go
 * random calls of hmm_range_fault(): ranges, requests, forms of output.
 *
 * What each must report is worked out by the reference. It looks at one page at a
 * time, from the top of the page tables, and says what the page is: its flags, its
 * pfn, the order of its mapping. It knows no shortcut and no output; from what it
 * says entries of any encoding are made, and extents are taken apart into pages.
 *
 * The mmap lock is held from the first look of the reference to the last, so that
 * nothing but the call itself changes the page tables. khugepaged is kept off the
 * mm altogether: between calls it would make another world of it, and the pages
 * that it takes off the LRU lists and puts back have references of its CPU's, which
 * go in the middle of a call.
 *
 * Entries that the kernel itself must not come across are *injected*: written over
 * a sound one under the page-table lock, and taken back before the mmap lock is let
 * go. A migration is one that is taken back by a work, while a call waits for it.
 *
 * Each world has a seed, which is printed with every failure. To repeat it, boot
 * with hmm_random_kunit.seed=SEED hmm_random_kunit.worlds=1.
 *
 * Locks: mmap lock, folio lock of a page under migration, page-table lock.
 *
 * Short names: w is the world, c a call, i the number of a page in the world, k one
 * in a range, p what the reference says of a page, req a request (HMM_PFN_REQ_*).
 */
#include <kunit/test.h>
#include <linux/hmm.h>
#include <linux/huge_mm.h>
#include <linux/jiffies.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/memblock.h>
#include <linux/mmu_notifier.h>
#include <linux/moduleparam.h>
#include <linux/pagemap.h>
#include <linux/pgtable.h>
#include <linux/prandom.h>
#include <linux/random.h>
#include <linux/sched/coredump.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include <linux/workqueue.h>
#include <asm/tlb.h>
#include <asm/tlbflush.h>

/* On both sides of where a table of PMDs ends */
#define R_PMDS		4
#define R_PAGES		((unsigned long)R_PMDS * PTRS_PER_PTE)
#define R_BASE		(0x80000000UL - R_PMDS / 2 * PMD_SIZE)
/* Holes before and behind, that calls may reach into */
#define R_EDGE		3
#define R_INJECTED	128
#define R_CANARY	0x5a5aa5a55a5aa5a5ULL
/* KUnit ends a case after 300 s, as failed; on a slow machine a world takes 10 */
#define R_SECONDS	240

#define R_F		((unsigned long)HMM_PFN_REQ_FAULT)
#define R_W		((unsigned long)HMM_PFN_REQ_WRITE)
#define R_S		((unsigned long)HMM_PFN_REQ_SYSMEM)

#define R_VALID		HMM_EXTENT_VALID
#define R_WRITE		HMM_EXTENT_WRITE
#define R_ERROR		HMM_EXTENT_ERROR
#define R_NO_PAGE	(HMM_EXTENT_ERROR | HMM_EXTENT_SPECIAL)

static unsigned long seed;
module_param(seed, ulong, 0444);
MODULE_PARM_DESC(seed, "of the first world; 0: any");

static unsigned int worlds = 32;
module_param(worlds, uint, 0444);
MODULE_PARM_DESC(worlds, "how many to fault in; four times as many snapshots");

static unsigned int calls = 24;
module_param(calls, uint, 0444);
MODULE_PARM_DESC(calls, "how many in each world");

/* What the reference says of a page */
struct r_page {
	struct vm_area_struct *vma;
	unsigned int flags;	/* enum hmm_extent_flags */
	unsigned int order;	/* of the entry that maps it */
	bool plain;		/* by a PTE, and neither the zero page nor a device's */
	unsigned long pfn;
	u64 rest;		/* of its PTE, but for the pfn and the accessed bit */
	struct folio *folio;	/* whose references count; or NULL */
	int refs;
	bool lru;		/* not isolated by compaction, with a reference of its own */
};

/* An entry that is not to stay */
struct r_injected {
	unsigned long i;
	pte_t old, new;
	pmd_t old_pmd;
	bool huge;
	struct folio *locked;	/* as for a migration */
};

enum r_kind {
	R_PLAIN,
	R_ENCODED,
	R_EXTENTS,
};

struct r_call {
	enum r_kind kind;
	unsigned long first, n;
	unsigned long def, mask;
	unsigned int flags;
	unsigned long max_extents;
	struct hmm_encoding enc;
};

struct r_world {
	struct kunit *test;
	struct mm_struct *mm;
	struct mmu_interval_notifier ini;
	bool inserted;
	bool kept_off;		/* khugepaged, by us */
	struct rnd_state rnd;
	u64 seed;
	unsigned int nr_calls;

	struct r_page *before, *after;
	unsigned long *req;	/* in the entries of a call, each its own */
	bool *moving;		/* under migration while a call runs */
	u64 *old;		/* entries as a call finds them, */
	u64 *room;		/* and as it leaves them, a canary on both sides */

	struct r_injected injected[R_INJECTED];
	unsigned int nr_injected;
	struct work_struct arrive;
};

#define r_expect(world, condition, fmt, ...)				\
do {									\
	const struct r_world *__w = (world);				\
									\
	KUNIT_EXPECT_TRUE_MSG(__w->test, condition,			\
			      "seed=%llu call %u: " fmt, __w->seed,	\
			      __w->nr_calls, ##__VA_ARGS__);		\
} while (0)

static u32 r_rnd(struct r_world *w, u32 below)
{
	return prandom_u32_state(&w->rnd) % below;
}

static bool r_once_in(struct r_world *w, u32 times)
{
	return !r_rnd(w, times);
}

static unsigned long r_at(unsigned long i)
{
	return R_BASE + (i << PAGE_SHIFT);
}

/* ---- The reference ---- */

static void r_leaf(struct r_page *p, unsigned long pfn, bool write,
		   unsigned int order)
{
	p->flags = R_VALID | (write ? R_WRITE : 0);
	p->pfn = pfn;
	p->order = order;
}

static void r_look_pte(struct r_page *p, pte_t pte)
{
	if (pte_none(pte) || !pte_present(pte) || pte_protnone(pte))
		return;
	if (is_zero_pfn(pte_pfn(pte))) {
		r_leaf(p, pte_pfn(pte), pte_write(pte), 0);
		return;
	}
	if (pte_special(pte)) {
		p->flags = R_NO_PAGE;
		return;
	}
	r_leaf(p, pte_pfn(pte), pte_write(pte), 0);
	p->plain = true;
	p->rest = pte_val(pte_mkold(pte)) ^ pte_val(pfn_pte(p->pfn, __pgprot(0)));
	p->folio = pfn_folio(pte_pfn(pte));
}

static void r_look_table(struct r_world *w, struct r_page *p, unsigned long addr,
			 pmd_t *pmdp)
{
	spinlock_t *ptl; /* of the table */
	pte_t *ptep;

	ptep = pte_offset_map_lock(w->mm, pmdp, addr, &ptl);
	if (!ptep)
		return;
	r_look_pte(p, ptep_get(ptep));
	pte_unmap_unlock(ptep, ptl);
}

static void r_look_pmd(struct r_world *w, struct r_page *p, unsigned long addr,
		       pmd_t *pmdp)
{
	pmd_t pmd = pmdp_get_lockless(pmdp);

	if (pmd_none(pmd))
		return;
	if (!pmd_present(pmd)) {
		p->flags = is_pmd_migration_entry(pmd) ? 0 : R_ERROR;
		return;
	}
	if (!pmd_leaf(pmd)) {
		r_look_table(w, p, addr, pmdp);
		return;
	}
#ifdef CONFIG_TRANSPARENT_HUGEPAGE
	p->order = PMD_SHIFT - PAGE_SHIFT;
	if (pmd_protnone(pmd))
		return;
	r_leaf(p, pmd_pfn(pmd) + ((addr & ~PMD_MASK) >> PAGE_SHIFT),
	       pmd_write(pmd), PMD_SHIFT - PAGE_SHIFT);
	if (!is_huge_zero_pmd(pmd))
		p->folio = pfn_folio(p->pfn);
#endif
}

static pmd_t *r_pmdp(struct r_world *w, unsigned long addr)
{
	pgd_t *pgdp = pgd_offset(w->mm, addr);
	p4d_t *p4dp;
	pud_t *pudp;

	if (pgd_none(*pgdp))
		return NULL;
	p4dp = p4d_offset(pgdp, addr);
	if (p4d_none(p4dp_get(p4dp)))
		return NULL;
	pudp = pud_offset(p4dp, addr);
	return pud_none(pudp_get(pudp)) ? NULL : pmd_offset(pudp, addr);
}

static void r_look(struct r_world *w, struct r_page *p, unsigned long addr)
{
	pmd_t *pmdp;

	memset(p, 0, sizeof(*p));
	p->vma = vma_lookup(w->mm, addr);
	if (!p->vma) {
		p->flags = R_ERROR;
	} else if (p->vma->vm_flags & (VM_IO | VM_PFNMAP)) {
		p->flags = R_NO_PAGE;
	} else if (!(p->vma->vm_flags & VM_READ)) {
		p->flags = R_ERROR;
	} else {
		pmdp = r_pmdp(w, addr);
		if (pmdp)
			r_look_pmd(w, p, addr, pmdp);
	}
	if (p->folio) {
		p->refs = folio_ref_count(p->folio);
		p->lru = folio_test_lru(p->folio);
	}
}

static void r_look_all(struct r_world *w, struct r_page *pages)
{
	unsigned long i;

	for (i = 0; i < R_PAGES; i++)
		r_look(w, &pages[i], r_at(i));
}

static bool r_same(const struct r_page *a, const struct r_page *b)
{
	return a->flags == b->flags && a->pfn == b->pfn && a->order == b->order;
}

/* Can all of these 2^order pages be taken as one piece of a folio? */
static bool r_one_piece(const struct r_page *p, unsigned int order, bool exact)
{
	unsigned long k;

	if (p->pfn & ((1UL << order) - 1))
		return false;
	for (k = 0; k < 1UL << order; k++)
		if (!p[k].plain || p[k].vma != p->vma || p[k].flags != p->flags ||
		    p[k].folio != p->folio || p[k].pfn != p->pfn + k ||
		    (exact && p[k].rest != p->rest))
			return false;
	return true;
}

/*
 * The order to report for page @i, if that of its folio counts: of the largest
 * piece with equal permissions, or with PTEs that are @exact in all else, too
 */
static unsigned int r_folio_order(const struct r_page *pages, unsigned long i,
				  const struct r_call *c, bool exact)
{
	unsigned int order = PMD_SHIFT - PAGE_SHIFT;
	unsigned long head;

	if (!pages[i].plain)
		return pages[i].order;
	order = min(order, folio_order(pages[i].folio));
	for (; order; order--) {
		head = i & ~((1UL << order) - 1);
		if (head >= c->first && head + (1UL << order) <= c->first + c->n &&
		    r_one_piece(&pages[head], order, exact))
			return order;
	}
	return 0;
}

/* Does a page with @flags lack what is asked of it? */
static bool r_lacks(unsigned long req, unsigned int flags)
{
	if (!(req & R_F))
		return false;
	return !(flags & R_VALID) || (req & R_W && !(flags & R_WRITE));
}

/* ---- From the reference to entries ---- */

static u64 r_encoded(const struct hmm_encoding *enc, const struct r_page *p)
{
	if (p->flags & R_VALID)
		return (u64)p->pfn << enc->pfn_shift | enc->valid |
		       (p->flags & R_WRITE ? enc->write : 0);
	return enc->empty | (p->flags & R_ERROR ? enc->error : 0) |
	       (p->flags & HMM_EXTENT_SPECIAL ? enc->special : 0);
}

/* What has to be in an entry that held @old, for a page that is like @p */
static u64 r_entry(const struct r_call *c, const struct r_page *p,
		   unsigned int order, u64 old)
{
	unsigned long entry = 0;

	if (c->kind == R_ENCODED)
		return r_encoded(&c->enc, p);
	if (p->flags & R_VALID)
		entry = p->pfn | HMM_PFN_VALID |
			(p->flags & R_WRITE ? HMM_PFN_WRITE : 0) |
			(unsigned long)order << HMM_PFN_ORDER_SHIFT;
	else if (p->flags & R_ERROR)
		entry = HMM_PFN_ERROR;
	if (c->flags & HMM_RANGE_KEEP_FLAGS)
		entry |= old & HMM_PFN_INOUT_FLAGS;
	return entry;
}

static u64 r_get(struct r_world *w, const struct r_call *c, unsigned long k)
{
	void *out = w->room + 1;

	return c->kind == R_PLAIN ? ((unsigned long *)out)[k] : ((u64 *)out)[k];
}

/* Entries before a call: requests of each page, and anything in the other bits */
static void r_fill(struct r_world *w, const struct r_call *c)
{
	u64 requests = R_F | R_W | R_S, entry;
	void *out = w->room + 1;
	unsigned long k;

	if (c->kind == R_ENCODED)
		requests = c->enc.valid | c->enc.write | c->enc.error;
	w->room[0] = R_CANARY;
	for (k = 0; k < c->n; k++) {
		entry = (u64)prandom_u32_state(&w->rnd) << 32 |
			prandom_u32_state(&w->rnd);
		entry &= ~requests;
		if (c->kind == R_ENCODED)
			entry |= hmm_encode_request(&c->enc, w->req[c->first + k]);
		else
			entry |= w->req[c->first + k];
		if (c->kind == R_PLAIN)
			((unsigned long *)out)[k] = entry;
		else
			((u64 *)out)[k] = entry;
		w->old[k] = r_get(w, c, k);
	}
	if (c->kind == R_PLAIN)
		((unsigned long *)out)[k] = (unsigned long)R_CANARY;
	else
		((u64 *)out)[k] = R_CANARY;
}

static void r_check_canaries(struct r_world *w, const struct r_call *c)
{
	u64 behind = c->kind == R_PLAIN ? (unsigned long)R_CANARY : R_CANARY;

	r_expect(w, w->room[0] == R_CANARY, "wrote before the array");
	r_expect(w, r_get(w, c, c->n) == behind, "wrote behind the array");
}

/* ---- Random encodings ---- */

/* Some of the bits that are left, and not left any more */
static u64 r_take_bits(struct r_world *w, u64 *left, unsigned int n)
{
	u64 bits = 0;
	unsigned int bit;

	while (n && *left) {
		bit = r_rnd(w, 64);
		if (!(*left & BIT_ULL(bit)))
			continue;
		bits |= BIT_ULL(bit);
		*left &= ~BIT_ULL(bit);
		n--;
	}
	return bits;
}

static void r_encoding(struct r_world *w, struct hmm_encoding *enc)
{
	/* Room for the largest pfn, and 12 bits for all else at the least */
	unsigned int pfn_bits = fls64(max_pfn);
	u64 left;

	enc->pfn_shift = r_rnd(w, 64 - 12 - pfn_bits);
	left = ~(((1ULL << pfn_bits) - 1) << enc->pfn_shift);
	enc->valid = r_take_bits(w, &left, 1 + r_rnd(w, 2));
	enc->write = r_take_bits(w, &left, r_rnd(w, 3));
	enc->error = r_take_bits(w, &left, r_rnd(w, 3));
	enc->special = r_take_bits(w, &left, r_rnd(w, 3));
	enc->device_private = r_take_bits(w, &left, r_rnd(w, 3));
	enc->empty = r_take_bits(w, &left, r_rnd(w, 3));
}

/* ---- Injected entries ---- */

/* A PTE that is there, or may be; NULL where something huge is */
static inline pte_t *r_lock_pte(struct r_world *w, unsigned long i,
				spinlock_t **ptl)
{
	pmd_t *pmdp = r_pmdp(w, r_at(i));

	if (!pmdp || pmd_none(pmdp_get_lockless(pmdp)))
		return NULL;
	return pte_offset_map_lock(w->mm, pmdp, r_at(i), ptl);
}

static struct r_injected *r_inject_pte(struct r_world *w, unsigned long i,
				       pte_t pte)
{
	struct r_injected *in = &w->injected[w->nr_injected];
	spinlock_t *ptl; /* of the table */
	pte_t *ptep;

	if (w->nr_injected == R_INJECTED)
		return NULL;
	ptep = r_lock_pte(w, i, &ptl);
	if (!ptep)
		return NULL;
	*in = (struct r_injected) { .i = i, .old = ptep_get(ptep) };
	set_pte_at(w->mm, r_at(i), ptep, pte);
	in->new = ptep_get(ptep);
	pte_unmap_unlock(ptep, ptl);
	w->nr_injected++;
	return in;
}

#ifdef CONFIG_ARCH_ENABLE_THP_MIGRATION
static void r_set_pmd(struct r_world *w, unsigned long i, pmd_t pmd)
{
	pmd_t *pmdp = r_pmdp(w, r_at(i));
	spinlock_t *ptl = pmd_lock(w->mm, pmdp);

	set_pmd_at(w->mm, r_at(i) & PMD_MASK, pmdp, pmd);
	spin_unlock(ptl);
}

static struct r_injected *r_inject_pmd(struct r_world *w, unsigned long i,
				       swp_entry_t entry)
{
	struct r_injected *in = &w->injected[w->nr_injected];

	if (w->nr_injected == R_INJECTED)
		return NULL;
	*in = (struct r_injected) {
		.i = i, .huge = true, .old_pmd = *r_pmdp(w, r_at(i)),
	};
	r_set_pmd(w, i, swp_entry_to_pmd(entry));
	w->nr_injected++;
	return in;
}
#else
static void r_set_pmd(struct r_world *w, unsigned long i, pmd_t pmd)
{
}

static struct r_injected *r_inject_pmd(struct r_world *w, unsigned long i,
				       swp_entry_t entry)
{
	return NULL;
}
#endif

static void r_take_back(struct r_world *w, struct r_injected *in)
{
	spinlock_t *ptl; /* of the table */
	pte_t *ptep;

	if (in->huge) {
		r_set_pmd(w, in->i, in->old_pmd);
	} else {
		ptep = r_lock_pte(w, in->i, &ptl);
		if (pte_same(ptep_get(ptep), in->new))
			set_pte_at(w->mm, r_at(in->i), ptep, in->old);
		pte_unmap_unlock(ptep, ptl);
	}
	if (in->locked) {
		folio_unlock(in->locked);
		folio_put(in->locked);
	}
}

static void r_take_all_back(struct r_world *w)
{
	while (w->nr_injected)
		r_take_back(w, &w->injected[--w->nr_injected]);
	flush_tlb_mm(w->mm);
}

/* Migrations come to their end, in the middle of a call or before it */
static void r_arrive(struct work_struct *work)
{
	struct r_world *w = container_of(work, struct r_world, arrive);
	unsigned int n;

	for (n = 0; n < w->nr_injected; n++) {
		if (!w->injected[n].locked)
			continue;
		r_take_back(w, &w->injected[n]);
		w->injected[n--] = w->injected[--w->nr_injected];
		cond_resched();
	}
}

static bool r_inject_migration(struct r_world *w, unsigned long i,
			       const struct r_page *p)
{
	struct r_injected *in;
	swp_entry_t entry;

	if (!IS_ENABLED(CONFIG_MIGRATION) || !p->folio ||
	    !folio_trylock(p->folio))
		return false;
	folio_get(p->folio);
	if (p->flags & R_WRITE)
		entry = make_writable_migration_entry(p->pfn);
	else
		entry = make_readable_migration_entry(p->pfn);
	if (p->plain)
		in = r_inject_pte(w, i, swp_entry_to_pte(entry));
	else
		in = r_inject_pmd(w, i, entry);
	if (in) {
		in->locked = p->folio;
		return true;
	}
	folio_unlock(p->folio);
	folio_put(p->folio);
	return false;
}

/* A pfn without a struct page */
static unsigned long r_bare_pfn(void)
{
	unsigned long pfn = roundup_pow_of_two(max_pfn + 1);

	while (pfn_valid(pfn))
		pfn <<= 1;
	return pfn;
}

/* Something that a fault must not meet; in the place of a sound entry */
static void r_inject(struct r_world *w, unsigned long i, const struct r_page *p)
{
	switch (r_rnd(w, 4)) {
	case 0:
		r_inject_migration(w, i, p);
		break;
	case 1:
		if (p->plain)
			r_inject_pte(w, i, swp_entry_to_pte(swp_entry(0, 1 + i)));
		else if (p->order && p->folio)
			r_inject_pmd(w, i, swp_entry(0, 0x1234 + r_rnd(w, 2)));
		break;
	default:
		if (IS_ENABLED(CONFIG_ARCH_HAS_PTE_SPECIAL) && p->plain)
			r_inject_pte(w, i, pte_mkspecial(pfn_pte(r_bare_pfn(),
								 PAGE_SHARED)));
		break;
	}
}

static void r_inject_some(struct r_world *w)
{
	unsigned int n = r_rnd(w, R_INJECTED);
	struct r_page p;
	unsigned long i;

	while (n--) {
		i = r_rnd(w, R_PAGES);
		/* It may have been chosen before: the sound entry is below then */
		r_look(w, &p, r_at(i));
		r_inject(w, i, &p);
	}
	flush_tlb_mm(w->mm);
}

/* ---- Making a world ---- */

static int r_protect(struct r_world *w, unsigned long start, unsigned long end,
		     unsigned long prot)
{
	struct vm_area_struct *vma, *prev;
	struct vma_iterator vmi;
	struct mmu_gather tlb;
	vm_flags_t flags;
	int ret;

	mmap_write_lock(w->mm);
	vma = vma_lookup(w->mm, start);
	vma_iter_init(&vmi, w->mm, start);
	prev = vma_prev(&vmi);
	if (start > vma->vm_start)
		prev = vma;
	vma_iter_init(&vmi, w->mm, start);
	vma_find(&vmi, start + 1);
	flags = (vma->vm_flags & ~VM_ACCESS_FLAGS) | calc_vm_prot_bits(prot, 0);
	tlb_gather_mmu(&tlb, w->mm);
	ret = mprotect_fixup(&vmi, &tlb, vma, &prev, start, end, flags);
	tlb_finish_mmu(&tlb);
	mmap_write_unlock(w->mm);
	return ret;
}

/* A VMA that maps no pages; nothing has been touched in it */
static void r_make_pageless(struct r_world *w, unsigned long start)
{
	struct vm_area_struct *vma;

	mmap_write_lock(w->mm);
	vma = vma_lookup(w->mm, start);
	vm_flags_set(vma, r_once_in(w, 2) ? VM_IO : VM_PFNMAP);
	mmap_write_unlock(w->mm);
}

static void r_touch(struct r_world *w, unsigned long i, bool write)
{
	int ret;

	mmap_read_lock(w->mm);
	ret = fixup_user_fault(w->mm, r_at(i), write ? FAULT_FLAG_WRITE : 0, NULL);
	mmap_read_unlock(w->mm);
	r_expect(w, !ret, "page %lu cannot be touched", i);
}

/* One page in so many is touched; of those, one in @reads is only read */
static void r_populate(struct r_world *w, unsigned long i, unsigned long end)
{
	static const u8 densities[] = { 0, 1, 1, 2, 5, 40 };
	unsigned int in = densities[r_rnd(w, ARRAY_SIZE(densities))];
	unsigned int reads = 1 + r_rnd(w, 8);

	for (; in && i < end; i++)
		if (r_once_in(w, in))
			r_touch(w, i, !r_once_in(w, reads));
}

/* Huge pages, some of them mapped by small entries */
static void r_populate_huge(struct r_world *w, unsigned long i, unsigned long end)
{
	struct vm_area_struct *vma;
	pmd_t *pmdp;

	i = ALIGN(i, PTRS_PER_PTE);
	for (; i + PTRS_PER_PTE <= end; i += PTRS_PER_PTE) {
		if (r_once_in(w, 6))
			continue;
		r_touch(w, i + r_rnd(w, PTRS_PER_PTE), !r_once_in(w, 4));
		if (!r_once_in(w, 3))
			continue;
		mmap_write_lock(w->mm);
		vma = vma_lookup(w->mm, r_at(i));
		pmdp = r_pmdp(w, r_at(i));
		split_huge_pmd(vma, pmdp, r_at(i));
		mmap_write_unlock(w->mm);
	}
}

/*
 * Entries that the kernel knows how to handle, in places where it would put them.
 * @how is the same for a run of pages.
 */
static pte_t r_alter_pte(struct r_world *w, pte_t pte, u32 how)
{
	if (pte_none(pte))
		return r_once_in(w, 64) ? make_pte_marker(PTE_MARKER_POISONED) : pte;
	if (!pte_present(pte) || pte_special(pte))
		return pte;
	switch (how) {
	case 0:
		return pte_wrprotect(pte);
	case 1:
		return pte_mkold(pte);
	case 2:
		return pte_mkclean(pte);
	case 3:
		return IS_ENABLED(CONFIG_NUMA_BALANCING) ?
		       pte_modify(pte, PAGE_NONE) : pte;
	default:
		return pte_mkyoung(pte);
	}
}

static void r_alter_pmd(struct r_world *w, unsigned long i, pmd_t *pmdp)
{
#ifdef CONFIG_TRANSPARENT_HUGEPAGE
	spinlock_t *ptl = pmd_lock(w->mm, pmdp);
	pmd_t pmd = *pmdp;

	if (pmd_trans_huge(pmd)) {
		if (r_once_in(w, 2))
			pmd = pmd_wrprotect(pmd);
		else if (IS_ENABLED(CONFIG_NUMA_BALANCING) && !is_huge_zero_pmd(pmd))
			pmd = pmd_modify(pmd, PAGE_NONE);
		set_pmd_at(w->mm, r_at(i) & PMD_MASK, pmdp, pmd);
	}
	spin_unlock(ptl);
#endif
}

static void r_alter_page(struct r_world *w, unsigned long i, u32 how)
{
	pmd_t *pmdp = r_pmdp(w, r_at(i));
	spinlock_t *ptl; /* of the table */
	pte_t *ptep;

	if (!pmdp || !vma_lookup(w->mm, r_at(i)))
		return;
	if (pmd_leaf(pmdp_get_lockless(pmdp)) && r_once_in(w, 200))
		r_alter_pmd(w, i, pmdp);
	ptep = r_lock_pte(w, i, &ptl);
	if (!ptep)
		return;
	set_pte_at(w->mm, r_at(i), ptep, r_alter_pte(w, ptep_get(ptep), how));
	pte_unmap_unlock(ptep, ptl);
}

/* Runs of pages that are altered, one over the other, and single ones */
static void r_alter(struct r_world *w)
{
	unsigned int n = r_rnd(w, 200);
	unsigned long i, end;
	u32 how;

	mmap_read_lock(w->mm);
	while (n--) {
		i = r_rnd(w, R_PAGES);
		end = min(R_PAGES, i + 1 + r_rnd(w, 1U << r_rnd(w, 8)));
		for (how = r_rnd(w, 5); i < end; i++)
			r_alter_page(w, i, how);
	}
	flush_tlb_mm(w->mm);
	mmap_read_unlock(w->mm);
}

/* Pages @k and on of a large folio, from page @i to @end; returns the next */
static unsigned long r_map_folio(struct r_world *w, struct vm_area_struct *vma,
				 unsigned int order, unsigned long k,
				 unsigned long i, unsigned long end)
{
	struct folio *folio = folio_alloc(GFP_USER | __GFP_ZERO, order);

	if (!folio)
		return end;
	for (; i < end && k < folio_nr_pages(folio); i++, k++)
		if (vm_insert_page(vma, r_at(i), folio_page(folio, k)))
			break;
	folio_put(folio);
	return i;
}

/*
 * Large folios: parts of them, at addresses that are not aligned as they are; or
 * all of each, from the top down, which is how the allocator deals them out.
 */
static void r_populate_odd(struct r_world *w, unsigned long i, unsigned long end)
{
	unsigned int order = 1 + r_rnd(w, 5);
	unsigned long n = 1UL << order;
	struct vm_area_struct *vma;

	mmap_write_lock(w->mm);
	vma = vma_lookup(w->mm, r_at(i));
	if (r_once_in(w, 2)) {
		while (i < end)
			i = r_map_folio(w, vma, order, r_rnd(w, n),
					i + r_rnd(w, 4), end);
	} else {
		for (end = ALIGN_DOWN(end, n); end >= i + n; end -= n)
			r_map_folio(w, vma, order, 0, end - n, end);
	}
	mmap_write_unlock(w->mm);
}

/* A VMA from page @i on, up to @end */
static void r_make_vma(struct r_world *w, unsigned long i, unsigned long end)
{
	static const unsigned long prots[] = {
		PROT_READ, PROT_READ, PROT_READ | PROT_EXEC, PROT_NONE, PROT_WRITE,
	};
	unsigned long start = r_at(i), len = r_at(end) - start, ret;

	ret = vm_mmap(NULL, start, len, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, 0);
	KUNIT_ASSERT_EQ(w->test, ret, start);
	if (r_once_in(w, 8)) {
		r_make_pageless(w, start);
		return;
	}
	if (IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) && r_once_in(w, 6)) {
		r_populate_odd(w, i, min(end, i + 100));
	} else if (IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) && r_once_in(w, 2)) {
		r_expect(w, !do_madvise(w->mm, start, len, MADV_HUGEPAGE),
			 "no huge pages");
		r_populate_huge(w, i, end);
	}
	r_populate(w, i, end);
	if (r_once_in(w, 3))
		r_expect(w, !r_protect(w, start, r_at(end),
				       prots[r_rnd(w, ARRAY_SIZE(prots))]),
			 "pages %lu to %lu cannot be protected", i, end);
}

static void r_make_world(struct r_world *w, u64 seed)
{
	unsigned long i = R_EDGE, n;

	w->seed = seed;
	w->nr_calls = 0;
	prandom_seed_state(&w->rnd, seed);
	KUNIT_ASSERT_EQ(w->test, vm_munmap(r_at(0), R_PAGES << PAGE_SHIFT), 0);
	while (i < R_PAGES - R_EDGE) {
		if (r_once_in(w, 3))
			n = 1 + r_rnd(w, 8);
		else if (r_once_in(w, 2))
			n = 1 + r_rnd(w, 300);
		else
			n = ALIGN(i + 1, PTRS_PER_PTE) - i +
			    PTRS_PER_PTE * r_rnd(w, 2);
		n = min(n, R_PAGES - R_EDGE - i);
		if (!r_once_in(w, 5))
			r_make_vma(w, i, i + n);
		i += n;
	}
	r_alter(w);
}

/* ---- A call ---- */

/* Mostly short, mostly to where tables meet, sometimes all there is */
static void r_choose_range(struct r_world *w, struct r_call *c)
{
	unsigned long n = 1 + r_rnd(w, 1U << r_rnd(w, 11)), mid;

	mid = r_once_in(w, 2) ? PTRS_PER_PTE * r_rnd(w, R_PMDS + 1) :
				r_rnd(w, R_PAGES);
	c->first = mid - min_t(unsigned long, mid, r_rnd(w, n + 1));
	c->first = min(c->first, R_PAGES - 1);
	c->n = min(n, R_PAGES - c->first);
}

static void r_choose_output(struct r_world *w, struct r_call *c)
{
	c->kind = r_rnd(w, 3);
	c->flags = 0;
	switch (c->kind) {
	case R_PLAIN:
		c->flags = r_rnd(w, 4);
		break;
	case R_ENCODED:
		r_encoding(w, &c->enc);
		break;
	case R_EXTENTS:
		c->max_extents = r_once_in(w, 3) ? R_PAGES : 1 + r_rnd(w, 4);
		break;
	}
}

static void r_choose_requests(struct r_world *w, struct r_call *c)
{
	static const unsigned long some[] = {
		0, 0, 0, R_W, R_S, R_F, R_F | R_W, R_F | R_S,
	};
	static const unsigned long masks[] = {
		0, R_F, R_F | R_W, R_F | R_W, R_W, R_F | R_W | R_S, ~0UL,
	};
	unsigned int rare = 1 + r_rnd(w, 8);
	unsigned long i;

	c->def = some[r_rnd(w, ARRAY_SIZE(some))];
	c->mask = masks[r_rnd(w, ARRAY_SIZE(masks))];
	if (c->kind == R_EXTENTS)
		c->mask = 0;
	for (i = 0; i < R_PAGES; i++)
		w->req[i] = r_once_in(w, rare) ? r_rnd(w, 8) *
			    (HMM_PFN_REQ_SYSMEM) : 0;
}

static struct hmm_range r_range(struct r_world *w, const struct r_call *c)
{
	return (struct hmm_range) {
		.notifier = &w->ini,
		.notifier_seq = mmu_interval_read_begin(&w->ini),
		.start = r_at(c->first),
		.end = r_at(c->first + c->n),
		.hmm_pfns = (unsigned long *)(w->room + 1),
		.default_flags = c->def,
		.pfn_flags_mask = c->mask,
		.flags = c->flags,
		.encoding = c->kind == R_ENCODED ? &c->enc : NULL,
	};
}

/* What is asked of page @i */
static unsigned long r_request(struct r_world *w, const struct r_call *c,
			       unsigned long i)
{
	unsigned long own = w->req[i];

	/* Bits that an encoding has no use for cannot be asked for */
	if (c->kind == R_ENCODED && !c->enc.write)
		own &= ~R_W;
	if (c->kind == R_ENCODED && !c->enc.error)
		own &= ~R_S;
	return (own & c->mask) | c->def;
}

/* ---- Snapshots, and requests that are satisfied ---- */

/* One extent, page by page; false if anything is wrong */
static bool r_check_extent(struct r_world *w, const struct hmm_extent *e)
{
	unsigned long i = (e->start - R_BASE) >> PAGE_SHIFT, k;
	const struct r_page *p = &w->after[i];

	if (!e->npages || i + e->npages > R_PAGES)
		return false;
	for (k = 0; k < e->npages; k++) {
		if (e->flags != p[k].flags)
			return false;
		if (e->pfn + (e->flags & R_VALID ? k : 0) != p[k].pfn)
			return false;
	}
	return true;
}

/* Would these two pages be in one extent? */
static bool r_alike(const struct r_page *a, const struct r_page *b)
{
	return a->flags == b->flags &&
	       (!(a->flags & R_VALID) || a->pfn + 1 == b->pfn);
}

/* The extents of one call, from page @at on; returns where they end */
static unsigned long r_check_extents(struct r_world *w, const struct hmm_range *range,
				     unsigned long at)
{
	unsigned long n, begin = at;

	for (n = 0; n < range->nr_extents; n++) {
		const struct hmm_extent *e = &range->extents[n];

		r_expect(w, e->start == r_at(at) && r_check_extent(w, e),
			 "extent %lu at page %lu: %lx+%lu, pfn %lx, flags %x", n, at,
			 e->start, e->npages, e->pfn, e->flags);
		at += e->npages;
		/* It ends where its kind does, or the range */
		r_expect(w, at >= R_PAGES || r_at(at) >= range->end ||
			 !r_alike(&w->after[at - 1], &w->after[at]),
			 "extent %lu ends before page %lu", n, at);
		if (at > R_PAGES)
			break;
	}
	r_expect(w, range->populated == at - begin, "populated %lu, extents %lu",
		 range->populated, at - begin);
	return at;
}

/* All of a range in pieces, each as long as there is room for its extents */
static void r_snapshot_extents(struct r_world *w, const struct r_call *c)
{
	struct hmm_range range = r_range(w, c);
	unsigned long at = c->first, next;
	struct hmm_extent *canary = (void *)(w->room + 1);
	int ret;

	canary += c->max_extents;
	do {
		canary->start = (unsigned long)R_CANARY;
		range.max_extents = c->max_extents;
		range.start = r_at(at);
		ret = hmm_range_fault(&range);
		r_expect(w, !ret, "extents: %d", ret);
		r_expect(w, canary->start == (unsigned long)R_CANARY &&
			 range.nr_extents <= c->max_extents, "too many extents");
		next = ret ? at : r_check_extents(w, &range, at);
		r_expect(w, next > at, "extents: no progress at page %lu", at);
		r_expect(w, range.nr_extents == c->max_extents ||
			 next >= c->first + c->n, "extents end early");
		if (next <= at || w->test->status != KUNIT_SUCCESS)
			return;
		at = next;
	} while (at < c->first + c->n);
}

/* Is it the right entry for page @i, whose order may be told in two ways? */
static bool r_entry_is(struct r_world *w, const struct r_call *c, unsigned long i)
{
	const struct r_page *p = &w->after[i];
	u64 old = w->old[i - c->first], got = r_get(w, c, i - c->first);

	if (!(c->flags & HMM_RANGE_FOLIO_ORDER))
		return got == r_entry(c, p, p->order, old);
	return got == r_entry(c, p, r_folio_order(w->after, i, c, false), old) ||
	       got == r_entry(c, p, r_folio_order(w->after, i, c, true), old);
}

static void r_snapshot_entries(struct r_world *w, const struct r_call *c)
{
	struct hmm_range range = r_range(w, c);
	unsigned long k, i;
	int ret;

	r_fill(w, c);
	ret = hmm_range_fault(&range);
	r_expect(w, !ret && range.populated == c->n, "ret %d, populated %lu", ret,
		 range.populated);
	r_check_canaries(w, c);
	for (k = 0; k < c->n && w->test->status == KUNIT_SUCCESS; k++) {
		i = c->first + k;
		r_expect(w, r_entry_is(w, c, i),
			 "page %lu of %lu+%lu, kind %d, flags %x: %llx for %llx", i,
			 c->first, c->n, c->kind, c->flags, r_get(w, c, k),
			 r_entry(c, &w->after[i], w->after[i].order, w->old[k]));
	}
}

/* Ask for no more than there is */
static void r_satisfied(struct r_world *w, struct r_call *c)
{
	unsigned long i;

	for (i = c->first; i < c->first + c->n; i++)
		if (r_lacks(r_request(w, c, i), w->after[i].flags))
			c->def = 0;
	for (i = c->first; i < c->first + c->n; i++)
		if (r_lacks(r_request(w, c, i), w->after[i].flags))
			w->req[i] = 0;
}

static void r_check_unchanged(struct r_world *w)
{
	unsigned long i;

	for (i = 0; i < R_PAGES; i++)
		r_expect(w, r_same(&w->before[i], &w->after[i]) &&
			 w->before[i].refs == w->after[i].refs,
			 "page %lu: flags %x, %x, references %d, %d", i,
			 w->before[i].flags, w->after[i].flags, w->before[i].refs,
			 w->after[i].refs);
}

static void r_snapshots(struct r_world *w)
{
	unsigned long faults;
	struct r_call c;

	lru_add_drain_all();
	mmap_read_lock(w->mm);
	r_inject_some(w);
	r_look_all(w, w->after);
	memcpy(w->before, w->after, R_PAGES * sizeof(*w->after));
	faults = current->min_flt + current->maj_flt;
	while (w->nr_calls++ < calls && w->test->status == KUNIT_SUCCESS) {
		r_choose_range(w, &c);
		r_choose_output(w, &c);
		r_choose_requests(w, &c);
		r_satisfied(w, &c);
		if (c.kind == R_EXTENTS)
			r_snapshot_extents(w, &c);
		else
			r_snapshot_entries(w, &c);
	}
	r_expect(w, faults == current->min_flt + current->maj_flt, "faults");
	r_look_all(w, w->after);
	r_check_unchanged(w);
	r_take_all_back(w);
	mmap_read_unlock(w->mm);
}

/* ---- Faults ---- */

struct r_outcome {
	int ret;
	unsigned long stop;	/* the page at fault, or the end of the range */
	unsigned long faults;	/* no more than these */
};

/* The PTE of a page; none where there is no table */
static pte_t r_peek(struct r_world *w, unsigned long i)
{
	pte_t pte = __pte(0);
	spinlock_t *ptl; /* of the table */
	pte_t *ptep;

	ptep = r_lock_pte(w, i, &ptl);
	if (ptep) {
		pte = ptep_get(ptep);
		pte_unmap_unlock(ptep, ptl);
	}
	return pte;
}

static bool r_poisoned(struct r_world *w, unsigned long i)
{
	pte_t pte = r_peek(w, i);

	return is_swap_pte(pte) && is_poisoned_swp_entry(pte_to_swp_entry(pte));
}

/* A first fault may only clear a hint away, or split a huge page */
static unsigned int r_faults_for(struct r_world *w, unsigned long i)
{
	const struct r_page *p = &w->before[i];

	if (p->order || p->vma->vm_flags & VM_HUGEPAGE)
		return 2;
	return p->flags & R_VALID || pte_none(r_peek(w, i)) ? 1 : 2;
}

/* What a fault of page @i with this request comes to, by the table of states */
static int r_predict_page(struct r_world *w, unsigned long i, unsigned long req)
{
	const struct r_page *p = &w->before[i];

	if (p->flags & R_ERROR)
		return -EFAULT;
	if (req & R_W && !(p->vma->vm_flags & VM_WRITE))
		return -EPERM;
	return r_poisoned(w, i) ? -EFAULT : 0;
}

static struct r_outcome r_predict(struct r_world *w, const struct r_call *c)
{
	struct r_outcome o = { .stop = c->first };
	unsigned long req;

	for (; o.stop < c->first + c->n; o.stop++) {
		req = r_request(w, c, o.stop);
		if (w->moving[o.stop] && req & R_F)
			o.faults++;
		if (!r_lacks(req, w->before[o.stop].flags))
			continue;
		o.ret = r_predict_page(w, o.stop, req);
		if (o.ret)
			return o;
		o.faults += r_faults_for(w, o.stop);
	}
	return o;
}

/* Was it a huge page that changed this one, for another that asked for it? */
static bool r_beside(struct r_world *w, const struct r_call *c,
		     const struct r_outcome *o, unsigned long i)
{
	unsigned long k = i & ~(PTRS_PER_PTE - 1UL), end = k + PTRS_PER_PTE;
	const struct r_page *was = &w->before[i], *is = &w->after[i];
	bool huge = was->order || is->order;

	/* A NUMA hint goes for all of a folio at once, which may go to another node */
	huge |= is->plain && folio_test_large(is->folio) &&
		(!was->flags || was->pfn != is->pfn);
	/* A huge zero page that has come and gone */
	huge |= !was->flags && is->flags && is_zero_pfn(is->pfn) &&
		was->vma->vm_flags & VM_HUGEPAGE;
	for (; k < end; k++)
		if (k >= c->first && k < o->stop &&
		    r_lacks(r_request(w, c, k), w->before[k].flags) && huge)
			return true;
	return false;
}

/* Nothing that was not asked for has changed, nothing that was is missing */
static void r_check_pages(struct r_world *w, const struct r_call *c,
			  const struct r_outcome *o)
{
	const struct r_page *was, *is;
	unsigned long i, req;

	for (i = 0; i < R_PAGES && w->test->status == KUNIT_SUCCESS; i++) {
		was = &w->before[i];
		is = &w->after[i];
		req = i >= c->first && i < o->stop ? r_request(w, c, i) : 0;
		r_expect(w, !r_lacks(req, is->flags), "page %lu was left out", i);
		if (r_lacks(req, was->flags))
			continue;
		r_expect(w, r_same(was, is) || r_beside(w, c, o, i),
			 "page %lu was not asked for: %x, %lx/%u, now %x, %lx/%u", i,
			 was->flags, was->pfn, was->order, is->flags, is->pfn,
			 is->order);
		/* A large folio loses those of its pages that are copied */
		if (r_same(was, is) && is->folio && !folio_test_large(is->folio))
			r_expect(w, was->refs == is->refs || was->lru != is->lru,
				 "page %lu: %d references, were %d", i, is->refs,
				 was->refs);
	}
}

/* Is this what page @i was, or has become, or may have been between? */
static bool r_entry_right(struct r_world *w, const struct r_call *c,
			  const struct r_outcome *o, unsigned long i)
{
	static const struct r_page missing;
	u64 got = r_get(w, c, i - c->first), old = w->old[i - c->first];
	unsigned long req = r_request(w, c, i);
	u64 order = 0;

	/* How large a piece was changes while its neighbours are faulted in */
	if (c->flags & HMM_RANGE_FOLIO_ORDER)
		order = 0x1fULL << HMM_PFN_ORDER_SHIFT;
	if (!((r_entry(c, &w->after[i], w->after[i].order, old) ^ got) & ~order))
		return true;
	if (r_beside(w, c, o, i) &&
	    !((r_entry(c, &w->before[i], w->before[i].order, old) ^ got) & ~order))
		return !r_lacks(req, w->before[i].flags);
	if (w->moving[i] && !(req & R_F))
		return got == r_entry(c, &missing, 0, old);
	/* A huge zero page, read before the next one wrote to it */
	return r_beside(w, c, o, i) && w->before[i].order != w->after[i].order;
}

static void r_check_entries(struct r_world *w, const struct r_call *c,
			    const struct r_outcome *o)
{
	unsigned long i, k;

	for (k = 0; k < c->n && w->test->status == KUNIT_SUCCESS; k++) {
		i = c->first + k;
		if (i < o->stop)
			r_expect(w, r_entry_right(w, c, o, i),
				 "page %lu of %lu+%lu, kind %d, flags %x: %llx", i,
				 c->first, c->n, c->kind, c->flags, r_get(w, c, k));
		else
			r_expect(w, r_get(w, c, k) == w->old[k],
				 "page %lu, behind the error: %llx for %llx", i,
				 r_get(w, c, k), w->old[k]);
	}
}

/* A few of the pages in the range go on a journey */
static void r_depart(struct r_world *w, const struct r_call *c)
{
	unsigned int n = r_rnd(w, 6);
	unsigned long i, k;

	memset(w->moving, 0, R_PAGES * sizeof(*w->moving));
	while (n--) {
		i = c->first + r_rnd(w, c->n);
		if (w->moving[i] || !r_inject_migration(w, i, &w->before[i]))
			continue;
		w->moving[i] = true;
		for (k = i & ~(PTRS_PER_PTE - 1UL); w->before[i].order &&
		     k < ALIGN(i + 1, PTRS_PER_PTE); k++)
			w->moving[k] = true;
	}
	flush_tlb_mm(w->mm);
	schedule_work(&w->arrive);
}

/*
 * As every driver does: again, from fresh requests, after a collision. It may take
 * as many tries as there are @faults: a page that needs two of them ends a try in
 * which there has been a collision. But nobody else collides, so that each try that
 * ends like this is a fault nearer to the end.
 */
static int r_fault(struct r_world *w, const struct r_call *c,
		   struct hmm_range *range, unsigned long faults)
{
	unsigned long tries = faults + 10;
	int ret;

	do {
		*range = r_range(w, c);
		r_fill(w, c);
		ret = hmm_range_fault(range);
		r_check_canaries(w, c);
	} while (ret == -EBUSY && --tries);
	return ret;
}

static void r_fault_once(struct r_world *w, const struct r_call *c)
{
	unsigned long faults = current->min_flt + current->maj_flt;
	struct hmm_range range;
	struct r_outcome o;
	int ret;

	r_look_all(w, w->before);
	r_depart(w, c);
	o = r_predict(w, c);
	ret = r_fault(w, c, &range, o.faults);
	flush_work(&w->arrive);
	r_look_all(w, w->after);
	faults = current->min_flt + current->maj_flt - faults;

	r_expect(w, ret == o.ret && range.populated == o.stop - c->first,
		 "ret %d for %d, populated %lu for %lu", ret, o.ret, range.populated,
		 o.stop - c->first);
	if (ret != o.ret)
		return;
	r_expect(w, faults <= o.faults, "%lu faults for %lu", faults, o.faults);
	r_check_pages(w, c, &o);
	r_check_entries(w, c, &o);
}

/*
 * Most pages that would end a call with an error are not asked for: the default
 * goes no further than to the first of them
 */
static void r_avoid_errors(struct r_world *w, struct r_call *c)
{
	unsigned long i, own;

	r_look_all(w, w->before);
	for (i = c->first; i < c->first + c->n; i++) {
		own = r_request(w, c, i);
		if (!r_lacks(own, w->before[i].flags) ||
		    !r_predict_page(w, i, own) || r_once_in(w, 200))
			continue;
		w->req[i] = 0;
		own = r_request(w, c, i);
		if (!r_lacks(own, w->before[i].flags) || !r_predict_page(w, i, own))
			continue;
		if (i > c->first)
			c->n = i - c->first; /* and the loop ends */
		else
			c->def = 0;
	}
}

static void r_faults(struct r_world *w)
{
	struct r_call c;

	while (w->nr_calls++ < calls && w->test->status == KUNIT_SUCCESS) {
		do {
			r_choose_output(w, &c);
		} while (c.kind == R_EXTENTS);
		r_choose_range(w, &c);
		r_choose_requests(w, &c);
		lru_add_drain_all();
		mmap_read_lock(w->mm);
		r_avoid_errors(w, &c);
		r_fault_once(w, &c);
		r_take_all_back(w);
		mmap_read_unlock(w->mm);
	}
}

/* ---- The suite ---- */

static bool r_invalidate(struct mmu_interval_notifier *ini,
			 const struct mmu_notifier_range *range,
			 unsigned long cur_seq)
{
	mmu_interval_set_seq(ini, cur_seq);
	return true;
}

static const struct mmu_interval_notifier_ops r_ops = {
	.invalidate = r_invalidate,
};

static int r_alloc(struct r_world *w)
{
	w->before = kvcalloc(R_PAGES, sizeof(*w->before), GFP_KERNEL);
	w->after = kvcalloc(R_PAGES, sizeof(*w->after), GFP_KERNEL);
	w->req = kvcalloc(R_PAGES, sizeof(*w->req), GFP_KERNEL);
	w->moving = kvcalloc(R_PAGES, sizeof(*w->moving), GFP_KERNEL);
	w->old = kvcalloc(R_PAGES, sizeof(*w->old), GFP_KERNEL);
	w->room = kvcalloc(R_PAGES + 2, sizeof(struct hmm_extent), GFP_KERNEL);
	if (!w->before || !w->after || !w->req || !w->moving || !w->old || !w->room)
		return -ENOMEM;
	return 0;
}

static int r_init(struct kunit *test)
{
	struct r_world *w = kunit_kzalloc(test, sizeof(*w), GFP_KERNEL);
	unsigned long addr;
	int ret;

	if (!w)
		return -ENOMEM;
	test->priv = w;
	w->test = test;
	INIT_WORK(&w->arrive, r_arrive);
	ret = r_alloc(w);
	if (ret)
		return ret;
	/* Attaches an mm to this thread; the page itself is not wanted */
	addr = kunit_vm_mmap(test, NULL, 0, PAGE_SIZE, PROT_READ,
			     MAP_PRIVATE | MAP_ANONYMOUS, 0);
	if (!addr || IS_ERR_VALUE(addr))
		return -ENOMEM;
	vm_munmap(addr, PAGE_SIZE);
	w->mm = current->mm;
	mmgrab(w->mm);
	/* It takes the mm for one that it has on its list */
	w->kept_off = !test_and_set_bit(MMF_VM_HUGEPAGE, &w->mm->flags);
	ret = mmu_interval_notifier_insert(&w->ini, w->mm, 0,
					   ULONG_MAX & PAGE_MASK, &r_ops);
	w->inserted = !ret;
	return ret;
}

static void r_exit(struct kunit *test)
{
	struct r_world *w = test->priv;

	if (!w)
		return;
	if (w->inserted)
		mmu_interval_notifier_remove(&w->ini);
	if (w->kept_off)
		clear_bit(MMF_VM_HUGEPAGE, &w->mm->flags);
	if (w->mm)
		mmdrop(w->mm);
	kvfree(w->before);
	kvfree(w->after);
	kvfree(w->req);
	kvfree(w->moving);
	kvfree(w->old);
	kvfree(w->room);
}

static void r_run(struct kunit *test, void (*fn)(struct r_world *w),
		  unsigned int count)
{
	unsigned long end = jiffies + R_SECONDS * HZ;
	u64 first = seed ?: get_random_u32();
	struct r_world *w = test->priv;
	unsigned int n;

	kunit_info(test, "hmm_random_kunit.seed=%llu: %u worlds", first, count);
	for (n = 0; n < count && test->status == KUNIT_SUCCESS; n++) {
		if (time_after(jiffies, end)) {
			kunit_info(test, "out of time after %u worlds", n);
			break;
		}
		r_make_world(w, first + n);
		fn(w);
	}
}

static void snapshots(struct kunit *test)
{
	/* They are quick */
	r_run(test, r_snapshots, worlds > 1 ? 4 * worlds : worlds);
}

static void faults(struct kunit *test)
{
	r_run(test, r_faults, worlds);
}

static struct kunit_case random_cases[] = {
	KUNIT_CASE_SLOW(snapshots),
	KUNIT_CASE_SLOW(faults),
	{}
};

static struct kunit_suite random_suite = {
	.name = "hmm_random",
	.init = r_init,
	.exit = r_exit,
	.test_cases = random_cases,
};

kunit_test_suite(random_suite);

MODULE_DESCRIPTION("KUnit tests of HMM ranges at random");
MODULE_LICENSE("GPL");
