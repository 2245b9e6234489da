// SPDX-License-Identifier: GPL-2.0
/*
 * Struct pages of device memory, made by the million
 *
 * Memory of 64 GiB has 2^24 struct pages, and when it is added all of them are
 * equal: the zone, the pgmap and the reference count are those of the whole, and
 * nothing in a struct page says which page it describes. So one is made, by the
 * functions that make those of system memory, and the rest are copies of it. A page
 * full of struct pages is copied at once, by copy_page(), which on each
 * architecture is the fastest way to fill a page: the source never leaves the
 * nearest cache.
 *
 * Compound pages are the same with two to copy. All heads are equal, and of one
 * compound page all tails are equal but the first, which holds what there is to say
 * of the whole. Where the struct pages of the tails share their memory
 * (Documentation/mm/vmemmap_dedup.rst) no more of them are written than exist.
 *
 * Locks: none. Nobody finds these pages: memremap_pages() has not returned.
 */

#include <linux/align.h>
#include <linux/build_bug.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/page-isolation.h>
#include <linux/page_ref.h>
#include <linux/pageblock-flags.h>
#include <linux/sched.h>
#include <linux/sizes.h>

#include "internal.h"
#include "memremap_internal.h"

/* What would make one struct page differ from the next: its section, its address */
static_assert(SECTIONS_WIDTH == 0);
#ifdef WANT_PAGE_VIRTUAL
#error "Device memory needs struct pages without an address of their own"
#endif

/* How many struct pages are a page; 0 if a page has no room for a whole number */
#define PAGE_STRUCTS	(PAGE_SIZE % sizeof(struct page) ? 0 : \
			 PAGE_SIZE / sizeof(struct page))

/* ---- Copying ---- */

static void copy_each(struct page *to, const struct page *end,
		      const struct page *like)
{
	for (; to < end; to++)
		*to = *like;
}

/* @first has been made, the others up to @end become like it */
static void copy_first(struct page *first, struct page *end)
{
	/* The first page that is full of those that are wanted */
	struct page *full = PTR_ALIGN(first, PAGE_SIZE);
	struct page *to = full + PAGE_STRUCTS;

	if (!PAGE_STRUCTS || to >= end) {
		copy_each(first + 1, end, first);
		return;
	}
	copy_each(first + 1, to, first);
	for (; to + PAGE_STRUCTS <= end; to += PAGE_STRUCTS) {
		copy_page(to, full);
		/* Some 2^15 struct pages later */
		if (IS_ALIGNED((unsigned long)to, SZ_2M))
			cond_resched();
	}
	copy_each(to, end, first);
}

/* ---- Making ---- */

/* A page that nobody uses; of what types it has a reference is in mm/memremap.c */
static void make_single(struct page *page, unsigned long pfn, struct zone *zone,
			struct dev_pagemap *pgmap)
{
	__init_single_page(page, pfn, zone_idx(zone), zone_to_nid(zone));
	__folio_set_reserved(page_folio(page));
	page->pgmap = pgmap;
	page->zone_device_data = NULL;
	if (pgmap->type == MEMORY_DEVICE_PRIVATE ||
	    pgmap->type == MEMORY_DEVICE_COHERENT)
		set_page_count(page, 0);
}

/* @head, a single page, becomes the head of a compound page of which @nr struct pages exist */
static void make_compound(struct page *head, unsigned long nr, unsigned int order)
{
	struct page tail;

	head[1] = *head;
	prep_compound_tail(head, 1);
	set_page_count(&head[1], 0);
	tail = head[1];

	__folio_set_head((struct folio *)head);
	/*
	 * Writes into the first two tails. What it has for the second, a list of
	 * folios to be split, device memory has no use for: that one is like all
	 * others.
	 */
	prep_compound_head(head, order);
	if (nr > 2) {
		head[2] = tail;
		copy_first(head + 2, head + nr);
	}
}

/* Struct pages of a compound page that have memory of their own */
static unsigned long compound_structs(struct dev_pagemap *pgmap,
				      struct vmem_altmap *altmap, unsigned long pfn)
{
	/* Memory that shares a section with system memory uses what that one has */
	if (early_section(__pfn_to_section(pfn)) ||
	    !vmemmap_can_optimize(altmap, pgmap))
		return pgmap_vmemmap_nr(pgmap);
	return VMEMMAP_RESERVE_NR * PAGE_STRUCTS;
}

static void make_compounds(struct dev_pagemap *pgmap, struct vmem_altmap *altmap,
			   struct page *first, unsigned long pfn, unsigned long end)
{
	struct page single = *first;

	for (; pfn < end; pfn += pgmap_vmemmap_nr(pgmap)) {
		struct page *head = pfn_to_page(pfn);

		*head = single;
		make_compound(head, compound_structs(pgmap, altmap, pfn),
			      pgmap->vmemmap_shift);
		if (IS_ALIGNED(pfn, PAGES_PER_SECTION))
			cond_resched();
	}
}

/* As compaction and others expect of all memory that has struct pages */
static void make_pageblocks(unsigned long pfn, unsigned long end)
{
	for (pfn = pageblock_align(pfn); pfn < end; pfn += pageblock_nr_pages) {
		set_pageblock_migratetype(pfn_to_page(pfn), MIGRATE_MOVABLE);
		if (IS_ALIGNED(pfn, PAGES_PER_SECTION))
			cond_resched();
	}
}

/*
 * The struct pages of @nr pages from @pfn on: not of those that hold struct pages.
 * @altmap is that of their range, which is not always that of @pgmap. Without the
 * hotplug lock, since it takes long: after move_pfn_range_to_zone().
 */
void device_pages_init(struct dev_pagemap *pgmap, struct vmem_altmap *altmap,
		       struct zone *zone, unsigned long pfn, unsigned long nr)
{
	struct page *first = pfn_to_page(pfn);

	make_single(first, pfn, zone, pgmap);
	if (pgmap->vmemmap_shift)
		make_compounds(pgmap, altmap, first, pfn, pfn + nr);
	else
		copy_first(first, first + nr);
	make_pageblocks(pfn, pfn + nr);
}
