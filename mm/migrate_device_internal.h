/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MM_MIGRATE_DEVICE_INTERNAL_H
#define _MM_MIGRATE_DEVICE_INTERNAL_H

/*
 * What mm/migrate_device.c and mm/migrate_device_collect.c share: a call that
 * collects pages, and what is in src[] beside the public bits.
 */

#include <linux/bits.h>
#include <linux/migrate.h>
#include <linux/mm.h>

#include <trace/events/migrate_device.h>

/*
 * Single: our reference to the page was that of its one entry; a driver that
 * overwrites the bit loses speed, not pages. Rmap: no VMA is kept by the caller,
 * so there is a reference to the anon_vma.
 */
#define MIGRATE_PFN_SINGLE	BIT(2)
#define MIGRATE_PFN_RMAP	BIT(5)

/**
 * struct collect - one call that collects pages
 * @vma: where; NULL if pages are collected by pfn
 * @flags: MIGRATE_VMA_*, what is selected
 * @owner: of device memory that is selected
 * @fault_folio: locked by the caller, which has a reference; or NULL
 * @single: mappings in @vma may be dealt with without the reverse map
 * @flush_start: first address in the table at hand whose TLB entry may be stale
 * @flush_end: the end of those; 0: none
 * @left: for each reason how many pages are left where they are
 */
struct collect {
	struct vm_area_struct *vma;
	unsigned long flags;
	void *owner;
	struct folio *fault_folio;
	bool single;
	unsigned long flush_start, flush_end;
	unsigned int left[LEFT_NR];
};

void migrate_prepare(struct migrate_vma *migrate);
void migrate_collect_vma(struct collect *c, struct migrate_vma *migrate);
enum migrate_device_left migrate_collect_folio(struct collect *c,
					       struct folio *folio);
unsigned long migrate_collect_pfn(struct collect *c, unsigned long pfn);

static inline struct folio *entry_folio(unsigned long entry)
{
	struct page *page = migrate_pfn_to_page(entry);

	return page ? page_folio(page) : NULL;
}

/* From the page of this address to the end of its table, or to @end */
static inline unsigned long pages_of_table(unsigned long addr, unsigned long end)
{
	return (pmd_addr_end(addr, end) - addr) >> PAGE_SHIFT;
}

#endif /* _MM_MIGRATE_DEVICE_INTERNAL_H */
