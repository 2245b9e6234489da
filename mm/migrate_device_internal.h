/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MM_MIGRATE_DEVICE_INTERNAL_H
#define _MM_MIGRATE_DEVICE_INTERNAL_H

/*
 * What mm/migrate_device.c and mm/migrate_device_collect.c share: a call that
 * collects pages, and what is in src[] beside the public bits.
 */

#include <linux/bits.h>
#include <linux/memcontrol.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/vmstat.h>

#include <trace/events/migrate_device.h>

/*
 * Single: our reference to the page was that of its one entry; a driver that
 * overwrites the bit loses speed, not pages. Replaced: single, and it is the new page
 * that has been mapped and released; set and used within migrate_vma_finalize().
 * Rmap: no VMA is kept by the caller, so there is a reference to the anon_vma.
 */
#define MIGRATE_PFN_SINGLE	BIT(2)
#define MIGRATE_PFN_REPLACED	BIT(4)
#define MIGRATE_PFN_RMAP	BIT(5)

/**
 * struct mapped_count - mappings that have come or gone, and are not yet in statistics
 * @lruvec: of the pages that they are of
 * @nr: how many; less than zero if they have gone
 *
 * The statistics of a node and of all memory cgroups above cost more than all else that
 * is done to unmap a page, or to map it. Neighbours are of one lruvec nearly always.
 */
struct mapped_count {
	struct lruvec *lruvec;
	long nr;
};

static inline void mapped_count_end(struct mapped_count *count)
{
	if (count->nr)
		mod_lruvec_state(count->lruvec, NR_ANON_MAPPED, count->nr);
	count->nr = 0;
}

/*
 * @folio is locked, or else mapped by an entry of a table whose lock is held until
 * mapped_count_end(): so its memory cgroup is there, and its own.
 */
static inline void mapped_count_add(struct mapped_count *count, struct folio *folio,
				    int nr)
{
	struct lruvec *lruvec;

	if (!mem_cgroup_disabled() && unlikely(!folio_memcg(folio))) {
		lruvec_stat_mod_folio(folio, NR_ANON_MAPPED, nr);
		return;
	}
	lruvec = folio_lruvec(folio);
	if (lruvec != count->lruvec) {
		mapped_count_end(count);
		count->lruvec = lruvec;
	}
	count->nr += nr;
}

/*
 * What folio_remove_rmap_pte() and folio_add_anon_rmap_pte() come to, but for the
 * statistics: @folio is locked, small and anonymous; nobody else maps it, nor unmaps
 * it, under the lock of the table with its only entry; and that is not mlock()ed.
 */
static inline void unmap_single(struct folio *folio, struct mapped_count *count)
{
	VM_WARN_ON_ONCE_FOLIO(folio_mapcount(folio) != 1, folio);
	atomic_set(&folio->_mapcount, -1);
	mapped_count_add(count, folio, -1);
}

static inline void map_single(struct folio *folio, bool exclusive,
			      struct mapped_count *count)
{
	VM_WARN_ON_ONCE_FOLIO(folio_mapped(folio) || !folio_test_anon(folio), folio);
	atomic_set(&folio->_mapcount, 0);
	mapped_count_add(count, folio, 1);
	if (exclusive)
		SetPageAnonExclusive(&folio->page);
}

/**
 * struct collect - one call that collects pages
 * @vma: where; NULL if pages are collected by pfn
 * @flags: MIGRATE_VMA_*, what is selected
 * @owner: of device memory that is selected
 * @fault_folio: locked by the caller, which has a reference; or NULL
 * @single: mappings in @vma may be dealt with without the reverse map
 * @flush_start: first address in the table at hand whose TLB entry may be stale
 * @flush_end: the end of those; 0: none
 * @mapped: pages that have been unmapped in that table
 * @left: for each reason how many pages are left where they are
 */
struct collect {
	struct vm_area_struct *vma;
	unsigned long flags;
	void *owner;
	struct folio *fault_folio;
	bool single;
	unsigned long flush_start, flush_end;
	struct mapped_count mapped;
	unsigned int left[LEFT_NR];
};

void migrate_prepare(struct migrate_vma *migrate);
void migrate_collect_vma(struct collect *c, struct migrate_vma *migrate);
enum migrate_device_left migrate_collect_folio(struct collect *c,
					       struct folio *folio);
unsigned long migrate_collect_pfn(struct collect *c, unsigned long pfn);

/* No entry is of a tail page: those of src[] are of small folios, those of dst[] locked */
static inline struct folio *entry_folio(unsigned long entry)
{
	return (struct folio *)migrate_pfn_to_page(entry);
}

/* From the page of this address to the end of its table, or to @end */
static inline unsigned long pages_of_table(unsigned long addr, unsigned long end)
{
	return (pmd_addr_end(addr, end) - addr) >> PAGE_SHIFT;
}

#endif /* _MM_MIGRATE_DEVICE_INTERNAL_H */
