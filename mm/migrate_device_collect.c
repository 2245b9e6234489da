// SPDX-License-Identifier: GPL-2.0
/*
 * Collecting the pages of a migration: from page tables to locked folios
 *
 * First comes what may sleep, allocate or notify (migrate_prepare()), with nothing
 * held; then, within the bracket of the migration, one table of PTEs after the
 * other (migrate_collect_vma()). A page goes through these states:
 *
 * claimed	locked, and PG_lru cleared, so that nobody else takes it off its list;
 *		it is still on it, and mapped. All of this is tried, not waited for:
 *		the lock of the table is held. It is undone by unclaim().
 * replaced	if it is single: its entry is a migration entry, and the reference
 *		of that is ours. The CPUs' TLB entries go before the lock does.
 * settled	after the lock of the table has been dropped: off the list, mapped
 *		nowhere, all references accounted for. A page for which that cannot be
 *		is mapped again at once, by give_back().
 *
 * Why pages are left where they are is counted by reason, for the tracepoint.
 *
 * Locks: see mm/migrate_device.c. n is a number of pages, i one of them.
 */
#include <linux/ksm.h>
#include <linux/memcontrol.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/page-flags.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/sched/signal.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include <linux/userfaultfd_k.h>
#include <asm/tlbflush.h>

#include "internal.h"
#include "migrate_device_internal.h"

/* ---- Locking a page, and letting it go ---- */

/* References to @folio, small and anonymous, that nothing accounts for */
static bool has_more_refs(struct folio *folio, int ours)
{
	int mappings = atomic_read(&folio->_mapcount) + 1;

	return folio_ref_count(folio) != ours + mappings + folio_test_swapcache(folio);
}

static int fault_refs(const struct collect *c, const struct folio *folio)
{
	return folio == c->fault_folio;
}

/*
 * Lock @folio, which is mapped, and claim its place on the LRU list. Without
 * waiting: the page-table lock may be held. Returns LEFT_NR if it can go.
 */
static __always_inline enum migrate_device_left
claim(struct collect *c, struct folio *folio, int refs)
{
	if (folio_test_large(folio))
		return LEFT_LARGE;
	if (!folio_test_anon(folio) || folio_test_ksm(folio) ||
	    PageHWPoison(&folio->page))
		return LEFT_KIND;
	if (has_more_refs(folio, refs + fault_refs(c, folio)))
		return LEFT_PINNED;
	if (folio != c->fault_folio && !folio_trylock(folio))
		return LEFT_LOCKED;
	if (folio_test_writeback(folio))
		goto io;
	/* It is still on the list: see settle() */
	if (!folio_is_zone_device(folio) && !folio_test_clear_lru(folio))
		goto lru;
	return LEFT_NR;
io:
	if (folio != c->fault_folio)
		folio_unlock(folio);
	return LEFT_IO;
lru:
	folio_unlock(folio);
	return LEFT_LRU;
}

/* Back from claim(), with nothing done yet */
static void unclaim(struct collect *c, struct folio *folio)
{
	if (!folio_is_zone_device(folio))
		folio_set_lru(folio);
	if (folio != c->fault_folio)
		folio_unlock(folio);
}

/* Take claimed folios off their LRU lists, one lock for as many as possible */
static void take_off_lru(const unsigned long *src, unsigned long n)
{
	struct lruvec *lruvec = NULL;
	struct folio *folio;
	unsigned long i;

	for (i = 0; i < n; i++) {
		folio = entry_folio(src[i]);
		if (folio && !folio_is_zone_device(folio)) {
			lruvec = folio_lruvec_relock_irq(folio, lruvec);
			lruvec_del_folio(lruvec, folio);
		}
		/* Do not keep interrupts off for long */
		if (lruvec && i % SWAP_CLUSTER_MAX == SWAP_CLUSTER_MAX - 1) {
			unlock_page_lruvec_irq(lruvec);
			lruvec = NULL;
		}
	}
	if (lruvec)
		unlock_page_lruvec_irq(lruvec);
}

/* Give up a folio that has been collected, mapped as it was */
static void give_back(struct collect *c, struct folio *folio)
{
	remove_migration_ptes(folio, folio, 0);
	if (folio != c->fault_folio)
		folio_unlock(folio);
	if (!folio_is_zone_device(folio))
		folio_putback_lru(folio);
	else
		folio_put(folio);
}

/*
 * Is @folio, locked, on no list and with a reference of ours, free to go? If it is
 * not a @single one, whose only entry has been replaced, that it is mapped is ended
 * first.
 */
static enum migrate_device_left settle(struct collect *c, struct folio *folio,
				       bool single)
{
	if (!single && folio_mapped(folio)) {
		try_to_migrate(folio, 0);
		if (folio_mapped(folio))
			return LEFT_MAPPED;
	}
	if (has_more_refs(folio, 1 + fault_refs(c, folio)))
		return LEFT_PINNED;
	return LEFT_NR;
}

/* What has been collected of a table, after its lock has been dropped */
static unsigned long settle_all(struct collect *c, unsigned long *src,
				unsigned long n)
{
	enum migrate_device_left left;
	unsigned long i, kept = 0;
	struct folio *folio;

	take_off_lru(src, n);
	for (i = 0; i < n; i++) {
		folio = entry_folio(src[i]);
		left = folio ? settle(c, folio, src[i] & MIGRATE_PFN_SINGLE) : LEFT_NR;
		if (left != LEFT_NR) {
			c->left[left]++;
			give_back(c, folio);
			src[i] = 0;
		}
		kept += !!src[i];
	}
	return kept;
}

/* ---- Collecting by page table ---- */

/* Nothing at this address: the driver may supply a page, if it is anonymous */
static unsigned long collect_hole(const struct collect *c)
{
	if (vma_is_anonymous(c->vma) && c->flags & MIGRATE_VMA_SELECT_SYSTEM)
		return MIGRATE_PFN_MIGRATE;
	return 0;
}

static __always_inline void set_entry(struct collect *c, pte_t *ptep,
				      unsigned long addr, struct folio *folio,
				      swp_entry_t entry, bool soft_dirty, bool uffd_wp)
{
	pte_t pte = swp_entry_to_pte(entry);

	if (soft_dirty)
		pte = pte_swp_mksoft_dirty(pte);
	if (uffd_wp)
		pte = pte_swp_mkuffd_wp(pte);
	set_pte_at(c->vma->vm_mm, addr, ptep, pte);
	unmap_single(folio, &c->mapped);
}

static swp_entry_t make_migration_entry(struct page *page, bool write,
					bool exclusive)
{
	if (write)
		return make_writable_migration_entry(page_to_pfn(page));
	if (exclusive)
		return make_readable_exclusive_migration_entry(page_to_pfn(page));
	return make_readable_migration_entry(page_to_pfn(page));
}

/*
 * The one mapping of a claimed page becomes a migration entry. The entry is
 * cleared before PG_anon_exclusive is, which fails if somebody has pinned the page
 * by GUP-fast meanwhile. The TLB is flushed later, but under the same lock.
 */
static bool replace_present(struct collect *c, pte_t *ptep, unsigned long addr,
			    struct page *page)
{
	struct folio *folio = page_folio(page);
	bool exclusive = PageAnonExclusive(page);
	struct mm_struct *mm = c->vma->vm_mm;
	swp_entry_t entry;
	pte_t pte;

	pte = ptep_get_and_clear(mm, addr, ptep);
	if (!c->flush_end)
		c->flush_start = addr;
	c->flush_end = addr + PAGE_SIZE;
	if (arch_unmap_one(mm, c->vma, addr, pte) < 0 ||
	    (exclusive && folio_try_share_anon_rmap_pte(folio, page))) {
		set_pte_at(mm, addr, ptep, pte);
		return false;
	}

	entry = make_migration_entry(page, pte_write(pte), exclusive);
	if (pte_young(pte))
		entry = make_migration_entry_young(entry);
	if (pte_dirty(pte)) {
		if (!folio_test_dirty(folio))
			folio_mark_dirty(folio);
		entry = make_migration_entry_dirty(entry);
	}
	set_entry(c, ptep, addr, folio, entry, pte_soft_dirty(pte),
		  pte_uffd_wp(pte));
	return true;
}

/* PAGEMAP_SCAN protects an entry of a device, but leaves it writable */
static bool private_writable(pte_t pte)
{
	return is_writable_device_private_entry(pte_to_swp_entry(pte)) &&
	       !pte_swp_uffd_wp(pte);
}

/* The same for a page that no CPU can reach: nothing to flush, nobody pins it */
static bool replace_private(struct collect *c, pte_t *ptep, unsigned long addr,
			    struct page *page)
{
	bool exclusive = PageAnonExclusive(page);
	struct folio *folio = page_folio(page);
	pte_t pte = ptep_get(ptep);

	if (exclusive)
		WARN_ON_ONCE(folio_try_share_anon_rmap_pte(folio, page));
	set_entry(c, ptep, addr, folio,
		  make_migration_entry(page, private_writable(pte), exclusive),
		  pte_swp_soft_dirty(pte), pte_swp_uffd_wp(pte));
	return true;
}

/* @page is what the caller has selected. Returns its entry in src[], or 0 */
static unsigned long collect_page(struct collect *c, pte_t *ptep,
				  unsigned long addr, struct page *page,
				  bool write)
{
	unsigned long entry = migrate_pfn(page_to_pfn(page)) | MIGRATE_PFN_MIGRATE;
	struct folio *folio = page_folio(page);
	enum migrate_device_left left;
	bool done;

	left = claim(c, folio, 0);
	if (left != LEFT_NR) {
		c->left[left]++;
		return 0;
	}
	if (write)
		entry |= MIGRATE_PFN_WRITE;
	/* The folio lock keeps it from getting one more */
	if (!c->single || folio_mapcount(folio) != 1) {
		folio_get(folio);
		return entry;
	}
	if (pte_present(ptep_get(ptep)))
		done = replace_present(c, ptep, addr, page);
	else
		done = replace_private(c, ptep, addr, page);
	if (!done) {
		c->left[LEFT_PINNED]++;
		unclaim(c, folio);
		return 0;
	}
	/* The reference of the entry is ours now */
	return entry | MIGRATE_PFN_SINGLE;
}

static bool selects_present(const struct collect *c, const struct page *page)
{
	if (!is_zone_device_page(page))
		return c->flags & MIGRATE_VMA_SELECT_SYSTEM;
	return c->flags & MIGRATE_VMA_SELECT_DEVICE_COHERENT &&
	       is_device_coherent_page(page) && page_pgmap(page)->owner == c->owner;
}

/* vm_normal_page() in a VMA of ordinary pages, as migrate_vma_setup() has seen to */
static __always_inline struct page *present_page(struct vm_area_struct *vma,
						 unsigned long addr, pte_t pte)
{
	if (IS_ENABLED(CONFIG_ARCH_HAS_PTE_SPECIAL) && !pte_special(pte) &&
	    !pte_devmap(pte))
		return pte_page(pte);
	return vm_normal_page(vma, addr, pte);
}

static unsigned long collect_present(struct collect *c, pte_t *ptep,
				     unsigned long addr, pte_t pte)
{
	struct page *page = present_page(c->vma, addr, pte);

	if (page)
		return selects_present(c, page) ?
		       collect_page(c, ptep, addr, page, pte_write(pte)) : 0;
	/* Stays until a page takes its place; write protection could not be kept */
	if (is_zero_pfn(pte_pfn(pte)) && !pte_uffd_wp(pte))
		return collect_hole(c);
	return 0;
}

static bool selects_private(const struct collect *c, swp_entry_t entry)
{
	return c->flags & MIGRATE_VMA_SELECT_DEVICE_PRIVATE &&
	       is_device_private_entry(entry) &&
	       page_pgmap(pfn_swap_entry_to_page(entry))->owner == c->owner;
}

static unsigned long collect_pte(struct collect *c, pte_t *ptep,
				 unsigned long addr)
{
	pte_t pte = ptep_get(ptep);
	swp_entry_t entry;

	if (pte_none(pte))
		return collect_hole(c);
	if (pte_present(pte))
		return collect_present(c, ptep, addr, pte);

	/* Migration entries too: whose they are, they will go on without us */
	entry = pte_to_swp_entry(pte);
	if (!selects_private(c, entry))
		return 0;
	return collect_page(c, ptep, addr, pfn_swap_entry_to_page(entry),
			    private_writable(pte));
}

/* No table: all holes, or something that came after migrate_prepare(), which is left out */
static unsigned long collect_no_table(struct collect *c, pmd_t *pmd,
				      unsigned long *src, unsigned long n)
{
	unsigned long i, entry = 0;

	if (!pmd || pmd_none(pmdp_get_lockless(pmd)))
		entry = collect_hole(c);
	for (i = 0; i < n; i++)
		src[i] = entry;
	return entry ? n : 0;
}

/* Fill in @n entries from one table. Returns how many can be migrated. */
static unsigned long collect_table(struct collect *c, unsigned long addr,
				   unsigned long *src, unsigned long n)
{
	pmd_t *pmd = mm_find_pmd(c->vma->vm_mm, addr);
	pte_t *ptep = NULL;
	unsigned long i;
	spinlock_t *ptl; /* of the table */

	if (pmd)
		ptep = pte_offset_map_lock(c->vma->vm_mm, pmd, addr, &ptl);
	if (!ptep)
		return collect_no_table(c, pmd, src, n);

	flush_cache_range(c->vma, addr, addr + n * PAGE_SIZE);
	c->flush_end = 0;
	arch_enter_lazy_mmu_mode();
	for (i = 0; i < n; i++)
		src[i] = collect_pte(c, ptep + i, addr + i * PAGE_SIZE);
	arch_leave_lazy_mmu_mode();
	if (c->flush_end)
		flush_tlb_range(c->vma, c->flush_start, c->flush_end);
	mapped_count_end(&c->mapped);
	pte_unmap_unlock(ptep, ptl);

	return settle_all(c, src, n);
}

/* Fill in src[], and count what can be migrated */
void migrate_collect_vma(struct collect *c, struct migrate_vma *migrate)
{
	unsigned long addr = migrate->start, *src = migrate->src, n;

	while (addr < migrate->end) {
		n = pages_of_table(addr, migrate->end);
		migrate->cpages += collect_table(c, addr, src, n);
		addr += n * PAGE_SIZE;
		src += n;
		cond_resched();
	}
}

/* ---- By pfn ---- */

/*
 * @folio has a reference of ours, which is put if it cannot go. If it can, there is
 * one to its anon_vma, too.
 */
enum migrate_device_left migrate_collect_folio(struct collect *c,
					       struct folio *folio)
{
	enum migrate_device_left left = claim(c, folio, 1);
	struct anon_vma *anon_vma;

	if (left != LEFT_NR) {
		folio_put(folio);
		return left;
	}
	/* Its processes may exit before it is mapped again */
	anon_vma = folio_get_anon_vma(folio);
	if (!anon_vma) {
		folio_unlock(folio);
		folio_put(folio);
		return LEFT_KIND;
	}
	left = settle(c, folio, false);
	if (left != LEFT_NR) {
		give_back(c, folio);
		put_anon_vma(anon_vma);
	}
	return left;
}

/* Returns the entry of the page in src[], or 0 */
unsigned long migrate_collect_pfn(struct collect *c, unsigned long pfn)
{
	struct page *page = pfn_valid(pfn) ? pfn_to_page(pfn) : NULL;
	enum migrate_device_left left;
	struct folio *folio;

	if (!page || !(is_device_private_page(page) || is_device_coherent_page(page)))
		return 0;
	folio = folio_get_nontail_page(page);
	if (!folio)
		return 0;
	left = migrate_collect_folio(c, folio);
	if (left == LEFT_NR)
		return migrate_pfn(pfn) | MIGRATE_PFN_MIGRATE | MIGRATE_PFN_RMAP;
	c->left[left]++;
	return 0;
}

/* ---- What comes before ---- */

struct prepare {
	struct vm_area_struct *vma;
	void *owner;
	bool fault;		/* bring what is not there */
	bool copy;		/* a hole is of a private file, to be copied by a write */
	bool drained;		/* the LRU batches of all CPUs */
	struct folio *whole;	/* could not be split; for comparison only */
	/* At one page: */
	bool missing, hole, off_lru;
	struct folio *large;	/* with a reference */
};

/*
 * Where nothing is a page of the driver's goes, or a copy of the file's. Nobody can be
 * asked here for what a userfaultfd has to supply.
 */
static bool prepare_hole(struct prepare *p)
{
	p->hole = p->copy && !userfaultfd_missing(p->vma);
	p->missing = p->hole;
	return p->missing;
}

static bool prepare_entry(struct prepare *p, swp_entry_t entry)
{
	p->missing = p->fault;
	if (is_device_private_entry(entry) &&
	    page_pgmap(pfn_swap_entry_to_page(entry))->owner == p->owner)
		p->missing = false;
	return p->missing;
}

/* Has to be something done for this page? Under the lock of the table. */
static bool prepare_finds(struct prepare *p, unsigned long addr, pte_t pte)
{
	struct folio *folio;
	struct page *page;

	if (pte_none(pte))
		return prepare_hole(p);
	if (!pte_present(pte))
		return prepare_entry(p, pte_to_swp_entry(pte));
	page = present_page(p->vma, addr, pte);
	if (!page || is_zone_device_page(page))
		return false;
	folio = page_folio(page);
	if (!folio_test_anon(folio))
		return false;
	p->off_lru = !p->drained && !folio_test_lru(folio);
	if (folio_test_large(folio) && folio != p->whole) {
		folio_get(folio);
		p->large = folio;
	}
	return p->off_lru || p->large;
}

static void prepare_split(struct prepare *p)
{
	bool split = false;

	if (folio_trylock(p->large)) {
		split = !split_folio(p->large);
		folio_unlock(p->large);
	}
	if (!split)
		p->whole = p->large;
	folio_put(p->large);
}

static void prepare_fault(struct prepare *p, unsigned long addr)
{
	unsigned int flags = FAULT_FLAG_REMOTE;

	if (fatal_signal_pending(current)) {
		p->fault = false;
		return;
	}
	/* Only a write makes a copy */
	if (p->hole)
		flags |= FAULT_FLAG_WRITE;
	handle_mm_fault(p->vma, addr, flags, NULL);
}

/* Returns the first page of [@addr, @end) that needs something, or @end */
static unsigned long prepare_scan(struct prepare *p, unsigned long addr,
				  unsigned long end)
{
	struct mm_struct *mm = p->vma->vm_mm;
	pmd_t *pmd = mm_find_pmd(mm, addr);
	pte_t *table = NULL, *ptep;
	spinlock_t *ptl; /* of the table */

	if (pmd && pmd_trans_huge(pmdp_get_lockless(pmd)))
		split_huge_pmd(p->vma, pmd, addr);
	if (pmd)
		table = pte_offset_map_lock(mm, pmd, addr, &ptl);
	if (!table)
		return prepare_hole(p) ? addr : end;
	for (ptep = table; addr < end; ptep++, addr += PAGE_SIZE)
		if (prepare_finds(p, addr, ptep_get(ptep)))
			break;
	pte_unmap_unlock(table, ptl);
	return addr;
}

/*
 * All that sleeps, allocates or notifies. What does not succeed is left, and so is
 * what changes behind us: collecting looks again.
 */
void migrate_prepare(struct migrate_vma *migrate)
{
	unsigned long addr = migrate->start, next;
	struct prepare p = {
		.vma = migrate->vma,
		.owner = migrate->pgmap_owner,
		.fault = migrate->flags & MIGRATE_VMA_FAULT &&
			 migrate->vma->vm_flags & VM_ACCESS_FLAGS,
	};

	p.copy = p.fault && !vma_is_anonymous(p.vma) &&
		 (p.vma->vm_flags & (VM_SHARED | VM_WRITE)) == VM_WRITE;
	lru_add_drain();
	while (addr < migrate->end) {
		next = pmd_addr_end(addr, migrate->end);
		p.missing = false;
		p.hole = false;
		p.off_lru = false;
		p.large = NULL;
		addr = prepare_scan(&p, addr, next);
		if (p.off_lru) {
			lru_add_drain_all();
			p.drained = true;
		}
		if (p.large)
			prepare_split(&p);
		if (p.missing)
			prepare_fault(&p, addr);
		if (addr < next)
			addr += PAGE_SIZE;
		cond_resched();
	}
	/* Faulting has put new ones into the batches */
	if (migrate->flags & MIGRATE_VMA_FAULT)
		lru_add_drain();
}
