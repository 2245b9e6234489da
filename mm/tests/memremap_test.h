/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MM_TESTS_MEMREMAP_TEST_H
#define _MM_TESTS_MEMREMAP_TEST_H

/*
 * What the tests of device memory have in common: a piece of it
 *
 * It is at addresses where there is nothing. That is enough for struct pages, and
 * for a linear mapping as long as nobody reads or writes through it. What a test
 * leaves behind, even one that failed, goes when it ends.
 *
 * Removal waits until all pages are back, which may be for ever after a failure: such
 * memory is @lost, see test_thread.h.
 *
 * Short names: dm is such a piece, n a count of pages.
 */
#include <kunit/resource.h>
#include <kunit/test.h>
#include <linux/err.h>
#include <linux/ioport.h>
#include <linux/memremap.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/slab.h>

#include "test_thread.h"

#define DM_RANGES	4
/*
 * Such memory has pages full of struct pages, and shares none of them. With pages of
 * 64 KiB two ranges might, and what removes one takes it from the other
 * (Documentation/vm/device-memory.rst, "Rules for memory").
 */
#define DM_ALIGN	MAX(SUBSECTION_SIZE, PAGE_SIZE / sizeof(struct page) * PAGE_SIZE)
/* Two NUMA nodes or one: this one is there, and has CPUs and free memory */
#define DM_NODE		0

struct dm {
	struct kunit *test;
	struct dev_pagemap *pgmap;	/* room for DM_RANGES; owned by dm */
	struct resource *res;		/* the addresses, all ranges in one */
	bool added;
	bool lost;			/* somebody uses it for ever */
	atomic_t freed;			/* calls of page_free or folio_free */
	void (*page_free)(struct dm *dm, struct page *page);
	void *priv;
};

static inline void dm_page_free(struct page *page)
{
	struct dm *dm = page->pgmap->owner;

	if (dm->page_free)
		dm->page_free(dm, page);
	atomic_inc(&dm->freed);
}

static inline vm_fault_t dm_migrate_to_ram(struct vm_fault *vmf)
{
	return VM_FAULT_SIGBUS;
}

static const struct dev_pagemap_ops dm_ops = {
	.page_free	= dm_page_free,
	.migrate_to_ram	= dm_migrate_to_ram,
};

static inline void dm_work_unmap(struct test_thread *t)
{
	struct dm *dm = t->arg;

	memunmap_pages(dm->pgmap);
}

/* In a thread, for dm_join(): removal waits for as long as somebody has a page */
static inline struct test_thread *dm_remove_start(struct dm *dm)
{
	struct test_thread *t = test_thread_start(dm->test, -1, dm_work_unmap, dm);

	dm->added = false;
	dm->lost = !t;
	return t;
}

static inline void dm_join(struct dm *dm, struct test_thread *t)
{
	if (!test_thread_join(dm->test, t))
		dm->lost = true;
}

static inline void dm_remove(struct dm *dm)
{
	if (dm->added)
		dm_join(dm, dm_remove_start(dm));
}

static inline void dm_destroy(void *data)
{
	struct dm *dm = data;

	dm_remove(dm);
	if (dm->lost)
		return;
	if (dm->res)
		release_mem_region(dm->res->start, resource_size(dm->res));
	kfree(dm->pgmap);
	kfree(dm);
}

/* One of @type, without a range so far */
static inline struct dm *dm_new(struct kunit *test, enum memory_type type)
{
	struct dm *dm = kzalloc(sizeof(*dm), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, dm);
	dm->test = test;
	dm->pgmap = kzalloc(sizeof(*dm->pgmap) + DM_RANGES * sizeof(struct range),
			    GFP_KERNEL);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, dm_destroy, dm), 0);
	KUNIT_ASSERT_NOT_NULL(test, dm->pgmap);
	dm->pgmap->type = type;
	dm->pgmap->ops = &dm_ops;
	dm->pgmap->owner = dm;
	return dm;
}

static inline void dm_range(struct dm *dm, u64 start, u64 size)
{
	struct dev_pagemap *pgmap = dm->pgmap;

	KUNIT_ASSERT_LT(dm->test, pgmap->nr_range, DM_RANGES);
	pgmap->ranges[pgmap->nr_range].start = start;
	pgmap->ranges[pgmap->nr_range].end = start + size - 1;
	pgmap->nr_range++;
}

/* Addresses that are nobody's; what they begin with, aligned to a section */
static inline u64 dm_request(struct dm *dm, u64 size)
{
	struct resource *res = request_free_mem_region(&iomem_resource, size,
						       "memremap test");

	KUNIT_ASSERT_FALSE(dm->test, IS_ERR(res));
	dm->res = res;
	return res->start;
}

static inline void *dm_try(struct dm *dm)
{
	void *addr = memremap_pages(dm->pgmap, DM_NODE);

	dm->added = !IS_ERR(addr);
	return addr;
}

static inline void dm_add(struct dm *dm)
{
	KUNIT_ASSERT_FALSE(dm->test, IS_ERR(dm_try(dm)));
}

/* Memory of one range of @size bytes, in place */
static inline struct dm *dm_simple(struct kunit *test, enum memory_type type,
				   u64 size)
{
	struct dm *dm = dm_new(test, type);

	dm_range(dm, dm_request(dm, size), size);
	dm_add(dm);
	return dm;
}

static inline unsigned long dm_pfn(struct dm *dm, int i)
{
	return PHYS_PFN(dm->pgmap->ranges[i].start);
}

static inline unsigned long dm_n(struct dm *dm, int i)
{
	return PHYS_PFN(range_len(&dm->pgmap->ranges[i]));
}

static inline struct page *dm_page(struct dm *dm)
{
	return pfn_to_page(dm_pfn(dm, 0));
}

#endif /* _MM_TESTS_MEMREMAP_TEST_H */
