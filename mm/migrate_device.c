// SPDX-License-Identifier: GPL-2.0
/*
 * Migration of pages between system memory and the memory of a device
 */

/**
 * DOC: Overview
 *
 * A migration has three steps, and between them the driver does its part:
 *
 * 1. *Collect* (migrate_vma_setup()): each page that can move is locked, off its
 *    LRU list, mapped nowhere, and has one reference, which is the migration's. In
 *    page tables a migration entry stands for it; who touches that waits.
 * 2. *Take over* (migrate_vma_pages()): the driver has allocated new pages and
 *    copied the data; a new page becomes what the old one was. Where there was
 *    none, the new one is mapped.
 * 3. *Map again* (migrate_vma_finalize()): each migration entry becomes an entry
 *    for the new page, or for the old one if that could not be replaced; then both
 *    are unlocked and let go.
 *
 * Migration works by page table, not by page. All entries of one table are dealt
 * with under one hold of its lock, and its TLB entries are flushed once, before
 * the lock is dropped. That goes without a reverse-map walk for a page that is
 * *single*: anonymous and mapped once, which is then by the entry at hand. Nothing
 * can map it elsewhere afterwards: that takes the folio lock, or, for a fork, the
 * mmap lock, and the migration has both. When it is to be mapped again its entry is
 * looked at once more under the lock of the table, and only if it is no longer
 * there the reverse map is asked. Pages with more than one mapping take that
 * general way from the start, by try_to_migrate() and remove_migration_ptes().
 *
 * What has to be done by page and may sleep, allocate or notify comes before, in
 * a pass of its own (*prepare*): huge pages are split, per-CPU LRU batches are
 * drained and, if asked for, pages are faulted in. So none of that happens while
 * folios are locked or an invalidation is open.
 *
 * A page that cannot move is left out before its entry is touched, as far as
 * that can be told; its neighbours do not notice, and the owner's device keeps its
 * mapping.
 */

/**
 * DOC: Locking
 *
 * Lock order, outermost first::
 *
 *	mmap lock		the caller's, from setup to finalize, read or write
 *	  folio lock		of each collected page, from collecting to finalize
 *	    anon_vma		in the general way only
 *	      page-table lock
 *	        lruvec lock, swap locks
 *
 * Under a page-table lock folios are only ever tried to be locked, and so are those
 * behind the first one: two threads that migrate the same pages in opposite
 * directions each leave what the other has. Nobody waits while he has a page.
 *
 * The page of a CPU fault on device memory (migrate_vma.fault_page) is locked by
 * the fault handler, which has a reference, too: of several threads that touch the
 * page one is there and the others wait for it.
 */

/*
 * Short names: n is a number of pages, i one of them; src and dst are the entries
 * of the arrays or what they stand for, the old page and the new one.
 */
#include <linux/export.h>
#include <linux/ksm.h>
#include <linux/ktime.h>
#include <linux/memcontrol.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/oom.h>
#include <linux/pagevec.h>
#include <linux/rmap.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include <linux/userfaultfd_k.h>
#include <asm/tlbflush.h>

#include "internal.h"
#include "migrate_device_internal.h"

#define CREATE_TRACE_POINTS
#include <trace/events/migrate_device.h>

static u64 trace_start(bool enabled)
{
	return enabled ? ktime_get_ns() : 0;
}

static u64 trace_passed(u64 start)
{
	return start ? ktime_get_ns() - start : 0;
}

/* ---- migrate_vma_setup() ---- */

static int check_args(struct migrate_vma *migrate)
{
	struct vm_area_struct *vma = migrate->vma;
	unsigned long start = migrate->start & PAGE_MASK;
	unsigned long end = migrate->end & PAGE_MASK;
	struct page *fault = migrate->fault_page;

	if (!vma || is_vm_hugetlb_page(vma) || vma->vm_flags & VM_SPECIAL ||
	    vma_is_dax(vma))
		return -EINVAL;
	if (start >= end || start < vma->vm_start || end > vma->vm_end)
		return -EINVAL;
	if (!migrate->src || !migrate->dst)
		return -EINVAL;
	if (fault && (!is_device_private_page(fault) || !PageLocked(fault)))
		return -EINVAL;
	return 0;
}

static void collect_init(struct collect *c, const struct migrate_vma *migrate)
{
	c->vma = migrate->vma;
	c->flags = migrate->flags;
	c->owner = migrate->pgmap_owner;
	c->fault_folio = migrate->fault_page ?
			 page_folio(migrate->fault_page) : NULL;
	/*
	 * Of a locked page try_to_migrate() knows what batches of mlock() have to
	 * be drained, and of the stack of an exec() that it has to stay.
	 */
	c->single = !(c->vma->vm_flags & VM_LOCKED) &&
		    !vma_is_temporary_stack(c->vma);
}

/* To the driver it is its own migration; nobody else has this owner, or none */
static void *bracket_owner(struct migrate_vma *migrate)
{
	return migrate->pgmap_owner ?: migrate;
}

/**
 * migrate_vma_setup() - collect the pages of a range that can be migrated
 * @migrate: what to migrate; the caller sets @vma, @src, @dst, @start, @end, and, as
 *	they apply, @pgmap_owner, @flags and @fault_page
 *
 * Pages that @flags select (MIGRATE_VMA_SELECT_*) are locked and unmapped; who
 * touches one waits until migrate_vma_finalize(). For each page of the range there
 * is an entry in @src:
 *
 * * 0: cannot be migrated, or has not been selected; it is as it was.
 * * with %MIGRATE_PFN_VALID and %MIGRATE_PFN_MIGRATE: a page, and also
 *   %MIGRATE_PFN_WRITE if it was mapped writable.
 * * with %MIGRATE_PFN_MIGRATE alone: nothing is there, or the zero page. The driver
 *   may supply a page; it need not copy, but clear it.
 *
 * @dst is set to 0. For each page that it wants to move the driver stores
 * migrate_pfn() of a new page there, which is locked and has one reference, and
 * copies; then it calls migrate_vma_pages() and migrate_vma_finalize(). If @cpages
 * is 0 on return, nothing is held and neither need be called.
 *
 * @start and @end are rounded down to pages, and @npages is set.
 *
 * @pgmap_owner tells whose device pages are selected, and is the owner in the
 * %MMU_NOTIFY_MIGRATE event by which others hear of the migration. Without an owner
 * that has a value that no driver has.
 *
 * @fault_page is the page of a migrate_to_ram call, which is locked and has a
 * reference for it. It stays locked throughout.
 *
 * With %MIGRATE_VMA_FAULT pages that are not there are faulted in first.
 *
 * Context: Sleeps. The mmap lock of @vma is held, for reading or writing, from here
 * to migrate_vma_finalize().
 * Return: 0, also if no page can be migrated. -EINVAL, with nothing changed, if the
 * VMA is missing, is of hugetlb, DAX or special mappings, or does not contain the
 * range, if the range is empty, if an array is missing, or if @fault_page is no
 * locked device-private page.
 */
int migrate_vma_setup(struct migrate_vma *migrate)
{
	u64 begin = trace_start(trace_migrate_device_collect_enabled());
	struct mmu_notifier_range range;
	struct collect c = {};
	int ret;

	ret = check_args(migrate);
	if (ret)
		return ret;
	mmap_assert_locked(migrate->vma->vm_mm);

	migrate->start &= PAGE_MASK;
	migrate->end &= PAGE_MASK;
	migrate->npages = (migrate->end - migrate->start) >> PAGE_SHIFT;
	migrate->cpages = 0;
	memset(migrate->dst, 0, migrate->npages * sizeof(*migrate->dst));

	collect_init(&c, migrate);
	if (c.flags & MIGRATE_VMA_SELECT_SYSTEM)
		migrate_prepare(migrate);

	mmu_notifier_range_init_owner(&range, MMU_NOTIFY_MIGRATE, 0,
				      c.vma->vm_mm, migrate->start, migrate->end,
				      bracket_owner(migrate));
	mmu_notifier_invalidate_range_start(&range);
	migrate_collect_vma(&c, migrate);
	mmu_notifier_invalidate_range_end(&range);
	/* The CPU comes again for its page: it shall not find it in a batch once more */
	if (migrate->fault_page && c.left[LEFT_PINNED])
		lru_add_drain_all();

	trace_migrate_device_collect(c.owner, migrate->start, migrate->npages,
				     migrate->cpages, c.left, trace_passed(begin));
	return 0;
}
EXPORT_SYMBOL(migrate_vma_setup);

/* ---- A new page where there was none ---- */

/* All that is needed for it; the bracket is opened for the first one */
struct insert {
	struct migrate_vma *migrate;	/* NULL: no address to insert at */
	struct mmu_notifier_range range;
	bool open;
};

static void insert_begin(struct insert *ins, unsigned long addr)
{
	struct migrate_vma *migrate = ins->migrate;

	if (ins->open)
		return;
	mmu_notifier_range_init_owner(&ins->range, MMU_NOTIFY_MIGRATE, 0,
				      migrate->vma->vm_mm, addr, migrate->end,
				      bracket_owner(migrate));
	mmu_notifier_invalidate_range_start(&ins->range);
	ins->open = true;
}

static void insert_end(struct insert *ins)
{
	if (ins->open)
		mmu_notifier_invalidate_range_end(&ins->range);
}

/* The table for @addr, allocated if there is none; NULL if there cannot be one */
static pmd_t *insert_table(struct mm_struct *mm, unsigned long addr)
{
	p4d_t *p4d = p4d_alloc(mm, pgd_offset(mm, addr), addr);
	pud_t *pud = p4d ? pud_alloc(mm, p4d, addr) : NULL;
	pmd_t *pmd = pud ? pmd_alloc(mm, pud, addr) : NULL;
	pmd_t now;

	if (!pmd)
		return NULL;
	now = pmdp_get_lockless(pmd);
	if (pmd_trans_huge(now) || pmd_devmap(now) || pte_alloc(mm, pmd))
		return NULL;
	return pmd;
}

static pte_t insert_make_pte(struct vm_area_struct *vma, struct page *page)
{
	unsigned long pfn = page_to_pfn(page);
	bool write = vma->vm_flags & VM_WRITE;
	pte_t pte;

	if (is_device_private_page(page)) {
		pte = swp_entry_to_pte(write ?
				       make_writable_device_private_entry(pfn) :
				       make_readable_device_private_entry(pfn));
		return pte_swp_mksoft_dirty(pte);
	}
	pte = pte_sw_mkyoung(mk_pte(page, vma->vm_page_prot));
	return write ? pte_mkwrite(pte_mkdirty(pte), vma) : pte;
}

/* Is there still nothing, and nobody who has to be asked first? */
static bool insert_may(struct vm_area_struct *vma, pte_t pte)
{
	if (pte_present(pte)) {
		if (!is_zero_pfn(pte_pfn(pte)) || pte_uffd_wp(pte))
			return false;
	} else if (!pte_none(pte)) {
		return false;
	}
	return !check_stable_address_space(vma->vm_mm) && !userfaultfd_missing(vma);
}

static void insert_at(struct vm_area_struct *vma, pte_t *ptep,
		      unsigned long addr, struct page *page)
{
	struct folio *folio = page_folio(page);
	pte_t pte = insert_make_pte(vma, page);
	pte_t old = ptep_get(ptep);

	folio_get(folio);
	inc_mm_counter(vma->vm_mm, MM_ANONPAGES);
	folio_add_new_anon_rmap(folio, vma, addr, RMAP_EXCLUSIVE);
	if (!folio_is_zone_device(folio))
		folio_add_lru_vma(folio, vma);
	if (pte_present(old)) {
		ksm_might_unmap_zero_page(vma->vm_mm, old);
		flush_cache_page(vma, addr, pte_pfn(old));
		ptep_clear_flush(vma, addr, ptep);
	}
	set_pte_at(vma->vm_mm, addr, ptep, pte);
	update_mmu_cache(vma, addr, ptep);
}

static bool insert_page(struct insert *ins, unsigned long i, struct page *page)
{
	struct vm_area_struct *vma;
	unsigned long addr;
	spinlock_t *ptl; /* of the table */
	bool done = false;
	pte_t *ptep;
	pmd_t *pmd;

	if (!ins->migrate)
		return false;
	vma = ins->migrate->vma;
	addr = ins->migrate->start + i * PAGE_SIZE;
	if (!vma_is_anonymous(vma) || anon_vma_prepare(vma))
		return false;
	pmd = insert_table(vma->vm_mm, addr);
	if (!pmd || mem_cgroup_charge(page_folio(page), vma->vm_mm, GFP_KERNEL))
		return false;
	/* Also orders the data before the entry */
	__folio_mark_uptodate(page_folio(page));

	insert_begin(ins, addr);
	ptep = pte_offset_map_lock(vma->vm_mm, pmd, addr, &ptl);
	if (!ptep)
		return false;
	if (insert_may(vma, ptep_get(ptep))) {
		insert_at(vma, ptep, addr, page);
		done = true;
	}
	pte_unmap_unlock(ptep, ptl);
	return done;
}

/* ---- A new page for an old one ---- */

/* What became of the pages of one call, for the tracepoint */
struct taken {
	unsigned long moved, filled, absent, pinned, refused;
};

/* A page as the driver has to supply it: single, locked and new */
static bool is_new_page(struct page *page)
{
	struct folio *folio = page_folio(page);

	if (folio_test_large(folio) || WARN_ON_ONCE(!folio_test_locked(folio)))
		return false;
	if (folio_is_zone_device(folio) && !folio_is_device_private(folio) &&
	    !folio_is_device_coherent(folio))
		return false;
	return !folio->mapping;
}

/*
 * What folio_migrate_mapping() does for a page that is in no cache: only by a
 * reference could somebody use the old one yet, and there is none but @ours.
 */
static bool take_over_mapping(struct folio *dst, struct folio *src, int ours)
{
	if (folio_test_swapcache(src))
		return !folio_migrate_mapping(folio_mapping(src), dst, src, ours - 1);
	if (folio_ref_count(src) != ours)
		return false;
	dst->index = src->index;
	dst->mapping = src->mapping;
	if (folio_test_swapbacked(src))
		__folio_set_swapbacked(dst);
	return true;
}

/* MAP_DROPPABLE; what is collected by pfn is on a device already */
static bool may_be_dropped(const struct insert *ins)
{
	return ins->migrate && ins->migrate->vma->vm_flags & VM_DROPPABLE;
}

/* Both are locked, and @src is mapped nowhere. The data has been copied. */
static bool take_over(struct insert *ins, struct folio *dst, struct folio *src,
		      bool fault)
{
	bool to_device = folio_is_zone_device(dst);

	/* A page on a device has no place in the swap cache */
	if (to_device && folio_test_swapcache(src) && !folio_free_swap(src))
		return false;
	if (!take_over_mapping(dst, src, 1 + fault))
		return false;
	folio_migrate_flags(dst, src);
	/*
	 * No dirty bit tells when a device writes: there is nothing that could be
	 * dropped (MADV_FREE), or found in swap, instead of this page. But what may be
	 * dropped at any time never goes to swap.
	 */
	if (to_device && !folio_is_zone_device(src) && !may_be_dropped(ins))
		folio_set_swapbacked(dst);
	if (folio_is_device_private(src))
		folio_set_dirty(dst);
	return true;
}

static bool take_over_one(struct insert *ins, struct folio *fault_folio,
			  unsigned long i, unsigned long src, unsigned long dst,
			  struct taken *taken)
{
	struct page *new = migrate_pfn_to_page(dst);
	struct folio *old = entry_folio(src);
	unsigned long *count = &taken->moved;
	bool done = false;

	if (!new) {
		count = &taken->absent;
	} else if (!is_new_page(new)) {
		count = &taken->refused;
	} else if (!old) {
		done = insert_page(ins, i, new);
		count = done ? &taken->filled : &taken->refused;
	} else {
		done = take_over(ins, page_folio(new), old, old == fault_folio);
		count = done ? &taken->moved : &taken->pinned;
	}
	++*count;
	return done;
}

static void take_over_all(struct migrate_vma *migrate, unsigned long *src,
			  unsigned long *dst, unsigned long npages)
{
	u64 begin = trace_start(trace_migrate_device_pages_enabled());
	struct insert ins = { .migrate = migrate };
	struct folio *fault_folio = NULL;
	struct taken taken = {};
	unsigned long i;

	if (migrate && migrate->fault_page)
		fault_folio = page_folio(migrate->fault_page);
	for (i = 0; i < npages; i++) {
		if (src[i] & MIGRATE_PFN_MIGRATE &&
		    !take_over_one(&ins, fault_folio, i, src[i], dst[i], &taken))
			src[i] &= ~MIGRATE_PFN_MIGRATE;
	}
	insert_end(&ins);
	trace_migrate_device_pages(npages, taken.moved, taken.filled,
				   taken.absent, taken.pinned, taken.refused,
				   trace_passed(begin));
}

/**
 * migrate_vma_pages() - new pages become what the old ones were
 * @migrate: as migrate_vma_setup() left it, with @dst filled in
 *
 * Where @dst has a page to which the data has been copied, it takes the place of the
 * old one; where there was none, it is mapped. %MIGRATE_PFN_MIGRATE is cleared in
 * @src for each page that does not move after all: the driver looks at that before
 * it maps the new pages in the device. @dst must not be changed from here on.
 *
 * Context: Sleeps. The mmap lock is still held.
 */
void migrate_vma_pages(struct migrate_vma *migrate)
{
	take_over_all(migrate, migrate->src, migrate->dst, migrate->npages);
}
EXPORT_SYMBOL(migrate_vma_pages);

/**
 * migrate_device_pages() - migrate_vma_pages() for pages collected by pfn
 * @src: as migrate_device_range() or migrate_device_pfns() left it
 * @dst: new pages, as in &migrate_vma.dst
 * @npages: how many entries there are in each
 *
 * Context: Sleeps.
 */
void migrate_device_pages(unsigned long *src, unsigned long *dst,
			  unsigned long npages)
{
	take_over_all(NULL, src, dst, npages);
}
EXPORT_SYMBOL(migrate_device_pages);

/* ---- Mapping again ---- */

/*
 * Which one is to be mapped: a new page that has taken over has the mapping of the
 * old one, and no other has one.
 */
static struct folio *target_of(struct folio *src, struct folio *dst)
{
	return dst && dst->mapping && dst->mapping == src->mapping ? dst : src;
}

static pte_t remap_private(struct page *page, pte_t old, swp_entry_t entry)
{
	unsigned long pfn = page_to_pfn(page);
	pte_t pte;

	/* PAGEMAP_SCAN may have been at the migration entry */
	if (is_writable_migration_entry(entry) && !pte_swp_uffd_wp(old))
		pte = swp_entry_to_pte(make_writable_device_private_entry(pfn));
	else
		pte = swp_entry_to_pte(make_readable_device_private_entry(pfn));
	if (pte_swp_soft_dirty(old))
		pte = pte_swp_mksoft_dirty(pte);
	if (pte_swp_uffd_wp(old))
		pte = pte_swp_mkuffd_wp(pte);
	return pte;
}

static pte_t remap_present(struct vm_area_struct *vma, struct page *page,
			   pte_t old, swp_entry_t entry)
{
	pte_t pte = mk_pte(page, READ_ONCE(vma->vm_page_prot));

	if (!is_migration_entry_young(entry))
		pte = pte_mkold(pte);
	if (is_migration_entry_dirty(entry) && PageDirty(page))
		pte = pte_mkdirty(pte);
	pte = pte_swp_soft_dirty(old) ? pte_mksoft_dirty(pte) :
					pte_clear_soft_dirty(pte);
	/* The first write must be seen where the bit was cleared while it was away */
	if (is_writable_migration_entry(entry) && !pte_needs_soft_dirty_wp(vma, pte))
		return pte_mkwrite(pte, vma);
	return pte_swp_uffd_wp(old) ? pte_mkuffd_wp(pte) : pte;
}

/* Map @folio where a migration entry stands for @src; false if it does not */
static bool remap_pte(struct vm_area_struct *vma, pte_t *ptep, unsigned long addr,
		      unsigned long src, struct folio *folio, struct mapped_count *count)
{
	struct page *page = &folio->page;
	pte_t pte, old = ptep_get(ptep);
	swp_entry_t entry;

	if (pte_none(old) || pte_present(old))
		return false;
	entry = pte_to_swp_entry(old);
	if (!is_migration_entry(entry) ||
	    swp_offset_pfn(entry) != src >> MIGRATE_PFN_SHIFT)
		return false;

	if (is_device_private_page(page))
		pte = remap_private(page, old, entry);
	else
		pte = remap_present(vma, page, old, entry);
	map_single(folio, !is_readable_migration_entry(entry), count);
	set_pte_at(vma->vm_mm, addr, ptep, pte);
	update_mmu_cache(vma, addr, ptep);
	return true;
}

/* What is mapped is ready for all others; its entry has the reference that was ours */
static void release_mapped(struct folio *folio, struct folio *fault_folio)
{
	if (!folio_is_zone_device(folio))
		folio_add_lru(folio);
	if (folio != fault_folio)
		folio_unlock(folio);
}

/*
 * Single pages of one table. %MIGRATE_PFN_SINGLE is left with those that are mapped by
 * way of their entry; for the others the reverse map is asked: returns if there are any.
 *
 * Once the table is unlocked, whoever unmaps such a page puts its last reference. So
 * it is released before that, and not looked at any more.
 */
static bool remap_table(struct vm_area_struct *vma, unsigned long addr,
			unsigned long *src, unsigned long *dst, unsigned long n,
			struct folio *fault_folio)
{
	pmd_t *pmd = mm_find_pmd(vma->vm_mm, addr);
	struct mapped_count count = {};
	pte_t *ptep = NULL;
	struct folio *folio;
	unsigned long i;
	bool others = false;
	spinlock_t *ptl; /* of the table */

	if (pmd)
		ptep = pte_offset_map_lock(vma->vm_mm, pmd, addr, &ptl);
	if (ptep)
		arch_enter_lazy_mmu_mode();
	for (i = 0; i < n; i++) {
		if (!(src[i] & MIGRATE_PFN_VALID))
			continue;
		if (!(src[i] & MIGRATE_PFN_SINGLE)) {
			others = true;
			continue;
		}
		folio = target_of(entry_folio(src[i]), entry_folio(dst[i]));
		if (!ptep || !remap_pte(vma, ptep + i, addr + i * PAGE_SIZE, src[i],
					folio, &count)) {
			src[i] &= ~MIGRATE_PFN_SINGLE;
			others = true;
			continue;
		}
		src[i] &= ~MIGRATE_PFN_REPLACED;
		if (folio != entry_folio(src[i]))
			src[i] |= MIGRATE_PFN_REPLACED;
		release_mapped(folio, fault_folio);
	}
	if (ptep) {
		arch_leave_lazy_mmu_mode();
		mapped_count_end(&count);
		pte_unmap_unlock(ptep, ptl);
	}
	return others;
}

/*
 * What the reverse map is asked for is on its LRU list before it is mapped: there
 * mlock() counts how many have it locked.
 */
static void put_on_lru(unsigned long *src, unsigned long *dst, unsigned long npages)
{
	struct folio *old, *target;
	unsigned long i;

	for (i = 0; i < npages; i++) {
		old = entry_folio(src[i]);
		if (!old || src[i] & MIGRATE_PFN_SINGLE)
			continue;
		target = target_of(old, entry_folio(dst[i]));
		if (!folio_is_zone_device(target))
			folio_add_lru(target);
	}
	lru_add_drain();
}

static void put_later(struct folio_batch *batch, struct folio *folio)
{
	if (!folio_batch_add(batch, folio))
		folios_put(batch);
}

static void unlock_and_put(struct folio_batch *batch, struct folio *folio,
			   struct folio *fault_folio)
{
	if (folio != fault_folio)
		folio_unlock(folio);
	put_later(batch, folio);
}

static void let_go_of_old(struct folio_batch *batch, unsigned long entry,
			  struct folio *src, struct folio *dst,
			  struct folio *fault_folio)
{
	struct folio *target;

	/* Of a pair that has been seen to under the table's lock, one is left */
	if (entry & MIGRATE_PFN_SINGLE) {
		target = entry & MIGRATE_PFN_REPLACED ? src : dst;
		if (target)
			unlock_and_put(batch, target, fault_folio);
		return;
	}
	target = target_of(src, dst);
	remove_migration_ptes(src, target, 0);
	if (entry & MIGRATE_PFN_RMAP)
		put_anon_vma(folio_anon_vma(src));
	unlock_and_put(batch, src, fault_folio);
	if (dst)
		unlock_and_put(batch, dst, NULL);
}

static void let_go(unsigned long *src, unsigned long *dst, unsigned long npages,
		   struct folio *fault_folio)
{
	struct folio *old, *new;
	struct folio_batch batch;
	unsigned long i;

	folio_batch_init(&batch);
	for (i = 0; i < npages; i++) {
		old = entry_folio(src[i]);
		new = entry_folio(dst[i]);
		if (old)
			let_go_of_old(&batch, src[i], old, new, fault_folio);
		else if (new)
			unlock_and_put(&batch, new, NULL);
	}
	folios_put(&batch);
}

/**
 * migrate_vma_finalize() - map all pages again and let them go
 * @migrate: as migrate_vma_pages() left it; that need not have been called, to
 *	give up
 *
 * Each page is mapped where it was before: the new one if it has taken over, else
 * the old one. Both are unlocked, and the references of the migration are put. So
 * are those of new pages that have not been used, but for those for which the driver
 * has done that itself, and set their entry in @dst to 0.
 *
 * Context: Sleeps. The mmap lock has been held since migrate_vma_setup().
 */
void migrate_vma_finalize(struct migrate_vma *migrate)
{
	u64 begin = trace_start(trace_migrate_device_finalize_enabled());
	unsigned long *src = migrate->src, *dst = migrate->dst;
	unsigned long addr = migrate->start, n;
	struct folio *fault_folio = NULL;

	if (migrate->fault_page)
		fault_folio = page_folio(migrate->fault_page);
	while (addr < migrate->end) {
		n = pages_of_table(addr, migrate->end);
		if (remap_table(migrate->vma, addr, src, dst, n, fault_folio))
			put_on_lru(src, dst, n);
		let_go(src, dst, n, fault_folio);
		addr += n * PAGE_SIZE;
		src += n;
		dst += n;
		cond_resched();
	}
	trace_migrate_device_finalize(migrate->npages, trace_passed(begin));
}
EXPORT_SYMBOL(migrate_vma_finalize);

/**
 * migrate_device_finalize() - migrate_vma_finalize() for pages collected by pfn
 * @src: as migrate_device_pages() left it
 * @dst: as then
 * @npages: how many entries there are in each
 *
 * Context: Sleeps.
 */
void migrate_device_finalize(unsigned long *src, unsigned long *dst,
			     unsigned long npages)
{
	u64 begin = trace_start(trace_migrate_device_finalize_enabled());

	put_on_lru(src, dst, npages);
	let_go(src, dst, npages, NULL);
	trace_migrate_device_finalize(npages, trace_passed(begin));
}
EXPORT_SYMBOL(migrate_device_finalize);

/* ---- By pfn ---- */

static void collect_pfns(unsigned long *src, unsigned long start,
			 unsigned long npages, bool listed)
{
	u64 begin = trace_start(trace_migrate_device_collect_enabled());
	unsigned long i, pfn, cpages = 0;
	struct collect c = {};
	bool drained = false;

	for (i = 0; i < npages; i++) {
		pfn = listed ? src[i] : start + i;
		src[i] = migrate_collect_pfn(&c, pfn);
		/* What was mlock()ed may be in a batch of a CPU, with a reference */
		if (c.left[LEFT_PINNED] && !drained) {
			lru_add_drain_all();
			drained = true;
			c.left[LEFT_PINNED] = 0;
			src[i] = migrate_collect_pfn(&c, pfn);
		}
		cpages += !!src[i];
		cond_resched();
	}
	trace_migrate_device_collect(NULL, start, npages, cpages, c.left,
				     trace_passed(begin));
}

/**
 * migrate_device_range() - collect device pages by pfn, whoever maps them
 * @src_pfns: room for @npages entries, as in &migrate_vma.src
 * @start: first pfn
 * @npages: how many
 *
 * For a driver that wants its memory back. Each page in use is locked and unmapped
 * from all processes; an entry of 0 is for a page that is free, or cannot be
 * migrated now. Processes' mirrors hear of it by %MMU_NOTIFY_CLEAR. Then come
 * migrate_device_pages() and migrate_device_finalize().
 *
 * The pages must not go away meanwhile: they are %MEMORY_DEVICE_PRIVATE or
 * %MEMORY_DEVICE_COHERENT, and the driver's own. Of others the entry is 0.
 *
 * Context: Sleeps. No mmap lock is needed.
 * Return: 0.
 */
int migrate_device_range(unsigned long *src_pfns, unsigned long start,
			 unsigned long npages)
{
	collect_pfns(src_pfns, start, npages, false);
	return 0;
}
EXPORT_SYMBOL(migrate_device_range);

/**
 * migrate_device_pfns() - migrate_device_range() for pages here and there
 * @src_pfns: pfns, which are replaced by entries as in &migrate_vma.src
 * @npages: how many
 *
 * Context: Sleeps. No mmap lock is needed.
 * Return: 0.
 */
int migrate_device_pfns(unsigned long *src_pfns, unsigned long npages)
{
	collect_pfns(src_pfns, 0, npages, true);
	return 0;
}
EXPORT_SYMBOL(migrate_device_pfns);

/* ---- For GUP ---- */

static bool replace_coherent(struct folio *folio)
{
	unsigned long src = migrate_pfn(folio_pfn(folio)) | MIGRATE_PFN_MIGRATE |
			    MIGRATE_PFN_RMAP;
	struct page *new = alloc_page(GFP_USER | __GFP_NOWARN);
	unsigned long dst = 0;

	if (new) {
		lock_page(new);
		dst = migrate_pfn(page_to_pfn(new));
		copy_highpage(new, &folio->page);
	}
	take_over_all(NULL, &src, &dst, 1);
	put_on_lru(&src, &dst, 1);
	let_go(&src, &dst, 1, NULL);
	return src & MIGRATE_PFN_MIGRATE;
}

/*
 * Bring a coherent page home that is to be pinned for long, to memory for which that
 * is in order. @folio is a single page, with a reference of the caller's, which is
 * consumed in any case. Returns 0 or -EBUSY.
 *
 * The mmap lock is held; this waits for no folio lock.
 */
int migrate_device_coherent_folio(struct folio *folio)
{
	struct collect c = {};

	if (migrate_collect_folio(&c, folio) != LEFT_NR)
		return -EBUSY;
	return replace_coherent(folio) ? 0 : -EBUSY;
}
