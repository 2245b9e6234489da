// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of mm/memremap_init.c: what struct pages of device memory look like
 *
 * memmap_init_zone_device() in mm/mm_init.c makes them one by one. mm/memremap_init.c
 * takes its place and makes them by copying, so the one is the reference of the
 * other: memory is added, its struct pages are noted, the reference makes them once
 * more, and they must be the same byte by byte.
 *
 * Besides: how much memory can be added at once, and that adding and removing it
 * again and again leaves nothing behind.
 */
#include <linux/align.h>
#include <linux/gfp.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/pageblock-flags.h>
#include <linux/sizes.h>
#include <linux/vmstat.h>

#include "memremap_test.h"

/* ---- Byte by byte ---- */

struct shape {
	const char *name;
	enum memory_type type;
	u64 size;			/* of each range */
	unsigned int vmemmap_shift;
	int nr_range;			/* 0: one */
	u64 offset;			/* of the first, from the start of a section */
	unsigned long reserve, free;	/* of an altmap */
};

/* With pages of 4 KiB. Where they are larger it is more. */
#define MB(n)	((u64)(n) * (DM_ALIGN / 2))

static const struct shape shapes[] = {
	{ "private", MEMORY_DEVICE_PRIVATE, MB(128) },
	{ "coherent", MEMORY_DEVICE_COHERENT, MB(128) },
	{ "fs_dax", MEMORY_DEVICE_FS_DAX, MB(128) },
	{ "generic", MEMORY_DEVICE_GENERIC, MB(128) },
	{ "p2pdma", MEMORY_DEVICE_PCI_P2PDMA, MB(128) },

	{ "subsection", MEMORY_DEVICE_PRIVATE, MB(2), .offset = MB(6) },
	{ "part_of_sections", MEMORY_DEVICE_PRIVATE, MB(134), .offset = MB(122) },
	{ "part_of_sections_linear", MEMORY_DEVICE_GENERIC, MB(134), .offset = MB(122) },
	{ "ranges", MEMORY_DEVICE_PRIVATE, MB(34), .nr_range = 3 },
	{ "ranges_linear", MEMORY_DEVICE_COHERENT, MB(34), .nr_range = 3 },

	/* A page of struct pages holds 64: around one, two and more of them */
	{ "order_1", MEMORY_DEVICE_GENERIC, MB(16), 1 },
	{ "order_2", MEMORY_DEVICE_GENERIC, MB(16), 2 },
	{ "order_6", MEMORY_DEVICE_GENERIC, MB(16), 6 },
	{ "order_7", MEMORY_DEVICE_GENERIC, MB(16), 7 },
	{ "order_8", MEMORY_DEVICE_GENERIC, MB(16), 8 },
	{ "order_9", MEMORY_DEVICE_GENERIC, MB(256), 9 },
	{ "order_9_coherent", MEMORY_DEVICE_COHERENT, MB(128), 9 },
	{ "order_9_private", MEMORY_DEVICE_PRIVATE, MB(128), 9 },
	{ "order_9_fs_dax", MEMORY_DEVICE_FS_DAX, MB(128), 9 },
	{ "order_9_part", MEMORY_DEVICE_GENERIC, MB(6), 9, .offset = MB(2) },
	{ "order_9_ranges", MEMORY_DEVICE_GENERIC, MB(34), 9, .nr_range = 3 },
	{ "order_18", MEMORY_DEVICE_GENERIC, MB(2048), 18 },

	{ "altmap", MEMORY_DEVICE_GENERIC, MB(64), .reserve = 5, .free = 1026 },
	{ "altmap_fs_dax", MEMORY_DEVICE_FS_DAX, MB(64), .reserve = 2, .free = 510 },
	{ "altmap_order_9", MEMORY_DEVICE_GENERIC, MB(64), 9, .reserve = 2,
	  .free = 1534 },
};

static void shape_desc(const struct shape *shape, char *desc)
{
	strscpy(desc, shape->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(shapes, shapes, shape_desc);

/* Memory that is there and not the kernel's, or 0 */
static u64 spare_memory(u64 size)
{
	u64 start = SZ_4G;

	if (region_intersects(start, size, IORESOURCE_MEM,
			      IORES_DESC_RESERVED) != REGION_INTERSECTS)
		return 0;
	return pfn_valid(PHYS_PFN(start)) ? 0 : start;
}

static void shape_altmap(struct dm *dm, const struct shape *shape)
{
	u64 start = spare_memory(shape->size);

	if (!start)
		kunit_skip(dm->test, "no reserved memory from 4 GiB on (memmap=512M$4G)");
	dm->pgmap->flags = PGMAP_ALTMAP_VALID;
	dm->pgmap->altmap = (struct vmem_altmap) {
		.base_pfn = PHYS_PFN(start),
		.end_pfn = PHYS_PFN(start + shape->size) - 1,
		.reserve = shape->reserve,
		.free = shape->free,
	};
	dm_range(dm, start, shape->size);
}

static struct dm *shape_new(struct kunit *test, const struct shape *shape)
{
	struct dm *dm = dm_new(test, shape->type);
	int i, nr = shape->nr_range ?: 1;
	u64 start;

	dm->pgmap->vmemmap_shift = shape->vmemmap_shift;
	if (shape->reserve) {
		shape_altmap(dm, shape);
		return dm;
	}
	start = dm_request(dm, shape->offset + nr * (shape->size + MB(2)) +
			       (PAGE_SIZE << shape->vmemmap_shift));
	start = ALIGN(start, PAGE_SIZE << shape->vmemmap_shift);
	/* Something is left out between two of them */
	for (i = 0; i < nr; i++)
		dm_range(dm, start + shape->offset + i * (shape->size + MB(2)),
			 shape->size);
	return dm;
}

static unsigned long shape_first(struct dm *dm, int i)
{
	struct vmem_altmap *altmap = pgmap_altmap(dm->pgmap);

	return dm_pfn(dm, i) + (altmap ? vmem_altmap_offset(altmap) : 0);
}

static void expect_same(struct kunit *test, const struct page *made,
			const struct page *reference, unsigned long n)
{
	const unsigned long *a, *b;
	unsigned long i;
	int word;

	for (i = 0; i < n && !memcmp(&made[i], &reference[i], sizeof(*made)); i++)
		if (!(i % SZ_64K))
			cond_resched();
	if (i == n)
		return;
	a = (const void *)&made[i];
	b = (const void *)&reference[i];
	for (word = 0; a[word] == b[word]; word++)
		;
	KUNIT_FAIL(test, "page %lu of %lu: word %d is %lx, not %lx", i, n, word,
		   a[word], b[word]);
}

static void expect_movable(struct kunit *test, unsigned long pfn, unsigned long end)
{
	for (pfn = pageblock_align(pfn); pfn < end; pfn += pageblock_nr_pages)
		KUNIT_ASSERT_EQ(test, get_pageblock_migratetype(pfn_to_page(pfn)),
				MIGRATE_MOVABLE);
}

static void expect_as_reference(struct dm *dm, int i)
{
	unsigned long first = shape_first(dm, i), end = dm_pfn(dm, i) + dm_n(dm, i);
	struct page *page = pfn_to_page(first), *made;

	expect_movable(dm->test, first, end);
	made = kvmalloc_array(end - first, sizeof(*made), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(dm->test, made);
	memcpy(made, page, (end - first) * sizeof(*made));
	memmap_init_zone_device(page_zone(page), dm_pfn(dm, i), dm_n(dm, i),
				dm->pgmap);
	expect_same(dm->test, made, page, end - first);
	kvfree(made);
}

static void as_reference(struct kunit *test)
{
	struct dm *dm = shape_new(test, test->param_value);
	int i;

	dm_add(dm);
	for (i = 0; i < dm->pgmap->nr_range; i++)
		expect_as_reference(dm, i);
	dm_remove(dm);
	KUNIT_EXPECT_EQ(test, dm->pgmap->altmap.alloc, 0);
}

/* An altmap is that of the first range; the second is as if there was none */
static void altmap_and_range(struct kunit *test)
{
	struct shape shape = { .type = MEMORY_DEVICE_GENERIC, .size = MB(64),
			       .vmemmap_shift = 9, .reserve = 2, .free = 1534 };
	struct dm *dm = shape_new(test, &shape);
	struct dev_pagemap *pgmap = dm->pgmap;

	dm_range(dm, dm_request(dm, MB(64)), MB(64));
	dm_add(dm);
	KUNIT_EXPECT_PTR_EQ(test, page_pgmap(pfn_to_page(shape_first(dm, 0))), pgmap);
	pgmap->flags = 0;
	expect_as_reference(dm, 1);
	pgmap->flags = PGMAP_ALTMAP_VALID;
	dm_remove(dm);
	KUNIT_EXPECT_EQ(test, pgmap->altmap.alloc, 0);
}

/* ---- Much of it ---- */

/* 2^24 struct pages, which are 1 GiB themselves; nobody is kept from running */
static void much(struct kunit *test)
{
	struct dm *dm = dm_new(test, MEMORY_DEVICE_PRIVATE);
	u64 size = 64ULL * SZ_1G;
	ktime_t start, added;

	if (si_mem_available() < PHYS_PFN(SZ_1G + SZ_256M))
		kunit_skip(test, "no room for the struct pages of 64 GiB");
	dm_range(dm, dm_request(dm, size), size);
	start = ktime_get();
	dm_add(dm);
	added = ktime_get();
	KUNIT_EXPECT_MEMEQ(test, dm_page(dm), pfn_to_page(dm_pfn(dm, 0) + dm_n(dm, 0) - 1),
			   sizeof(struct page));
	dm_remove(dm);
	kunit_info(test, "64 GiB: added in %lld ms, removed in %lld ms",
		   ktime_ms_delta(added, start), ktime_ms_delta(ktime_get(), added));
}

/* ---- Again and again ---- */

#define AGAIN	100
/* So many shapes of the list: those that need no memory of their own */
#define AGAIN_SHAPES	12

struct traces {
	unsigned long present, spanned, total, slab, free;
	unsigned int resources;
};

static int count_resource(struct resource *res, void *data)
{
	++*(unsigned int *)data;
	return 0;
}

static struct traces traces_now(void)
{
	struct zone *zone = &NODE_DATA(DM_NODE)->node_zones[ZONE_DEVICE];
	struct traces now = {
		.present = zone->present_pages,
		.spanned = zone->spanned_pages,
		.total = totalram_pages(),
	};

	rcu_barrier();
	/* What CPUs keep in hand is free, too */
	drain_all_pages(NULL);
	now.slab = global_node_page_state_pages(NR_SLAB_UNRECLAIMABLE_B);
	now.free = global_zone_page_state(NR_FREE_PAGES);
	walk_iomem_res_desc(IORES_DESC_DEVICE_PRIVATE_MEMORY, IORESOURCE_MEM, 0,
			    ULLONG_MAX, &now.resources, count_resource);
	return now;
}

static void add_and_remove(struct kunit *test, int round)
{
	const struct shape *shape = &shapes[round % AGAIN_SHAPES];
	struct dm *dm = shape_new(test, shape);

	dm_add(dm);
	kunit_release_action(test, dm_destroy, dm);
}

/* One page a round would be a leak; what others do meanwhile is less */
static bool memory_is_lost(const struct traces *before, const struct traces *after)
{
	return after->slab >= before->slab + AGAIN ||
	       after->free + AGAIN <= before->free;
}

static void again(struct kunit *test)
{
	struct traces before, after;
	int round, tries = 3;
	bool lost;

	/* Once for what is allocated for good: page tables of the direct map */
	for (round = 0; round < AGAIN_SHAPES; round++)
		add_and_remove(test, round);
	/* Others may take as much for once, on a slow kernel; a leak does each time */
	do {
		before = traces_now();
		for (round = 0; round < AGAIN; round++)
			add_and_remove(test, round);
		after = traces_now();
		lost = memory_is_lost(&before, &after);
		kunit_info(test, "slab %ld pages more, free %ld pages less",
			   (long)(after.slab - before.slab),
			   (long)(before.free - after.free));
	} while (lost && !IS_ENABLED(CONFIG_KASAN_GENERIC) && --tries);

	KUNIT_EXPECT_EQ(test, after.present, before.present);
	KUNIT_EXPECT_EQ(test, after.spanned, before.spanned);
	KUNIT_EXPECT_EQ(test, after.total, before.total);
	KUNIT_EXPECT_EQ(test, after.resources, before.resources);
	/* KASAN keeps what has been freed; such a kernel has kmemleak for this */
	if (!IS_ENABLED(CONFIG_KASAN_GENERIC))
		KUNIT_EXPECT_FALSE(test, lost);
}

static struct kunit_case cases[] = {
	KUNIT_CASE_PARAM(as_reference, shapes_gen_params),
	KUNIT_CASE(altmap_and_range),
	KUNIT_CASE_SLOW(much),
	KUNIT_CASE_SLOW(again),
	{}
};

static struct kunit_suite suite = {
	.name = "memremap_init",
	.test_cases = cases,
};

kunit_test_suite(suite);

MODULE_DESCRIPTION("KUnit tests of struct pages of device memory");
MODULE_LICENSE("GPL");
