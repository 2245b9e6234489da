// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of mm/memremap.c: device memory, from hot-add to removal
 *
 * What memremap_pages() refuses and what it leaves then, how memory is looked up,
 * what removal waits for, and the life of a page: what its last put makes undone,
 * and that nobody touches it once its owner has it back.
 *
 * A test that waits for another thread waits for what that one does, and not for ever.
 * That something does not happen can only be waited for by time (TEST_SETTLE).
 *
 * Short names as in memremap_test.h.
 */
#include <kunit/device.h>
#include <linux/cpumask.h>
#include <linux/irqflags.h>
#include <linux/jiffies.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/page-flags.h>
#include <linux/pagemap.h>
#include <linux/percpu-refcount.h>
#include <linux/percpu.h>
#include <linux/sched.h>
#include <linux/sizes.h>
#include <linux/swap.h>
#include <linux/wait_bit.h>

#include "../internal.h"
#include "fail_nth.h"
#include "memremap_test.h"
#include "test_thread.h"
#include "warnings.h"

#define SIZE	MAX(SZ_4M, DM_ALIGN)

/* ---- Helpers ---- */

/* References to the whole, while it is not being removed: per CPU, and at rest */
static long dm_refs(struct dm *dm)
{
	unsigned long ptr = dm->pgmap->ref.percpu_count_ptr, refs = 0;
	int cpu;

	KUNIT_ASSERT_EQ(dm->test, ptr & __PERCPU_REF_ATOMIC_DEAD, 0);
	for_each_possible_cpu(cpu)
		refs += *per_cpu_ptr((unsigned long __percpu *)ptr, cpu);
	return refs;
}

static bool dm_found(unsigned long pfn)
{
	struct dev_pagemap *pgmap = get_dev_pagemap(pfn, NULL);

	put_dev_pagemap(pgmap);
	return pgmap;
}

static bool dm_is_dying_now(struct dm *dm)
{
	/* To look from outside, while it is set, is nobody's business but a test's */
	return data_race(percpu_ref_is_dying(&dm->pgmap->ref));
}

static bool dm_is_dying(struct dm *dm)
{
	unsigned long limit = jiffies + TEST_LIMIT;

	while (!dm_is_dying_now(dm) && time_before(jiffies, limit))
		cond_resched();
	return dm_is_dying_now(dm);
}

/* Removal has begun, and goes on until the caller joins it */
static struct test_thread *remove_start(struct dm *dm)
{
	struct test_thread *t = dm_remove_start(dm);

	KUNIT_EXPECT_TRUE(dm->test, !t || dm_is_dying(dm));
	return t;
}

static void page_use(struct page *page)
{
	zone_device_page_init(page);
	unlock_page(page);
}

/* ---- No memory at some time or other ---- */

/* No more of them, however many errors are missing */
#define FAIL_SWEEPS	8

struct fail_shape {
	const char *name;
	enum memory_type type;
	/*
	 * Core code takes the page tables of the linear mapping, single pages, to be
	 * there: these must not fail.
	 */
	u32 min_order;
	unsigned int least;		/* errors, or allocations went unnoticed */
};

static const struct fail_shape fail_shapes[] = {
	{ "private", MEMORY_DEVICE_PRIVATE, 0, 20 },
	/* The count, and what each of three sections needs */
	{ "coherent", MEMORY_DEVICE_COHERENT, 1, 2 },
	{ "fs_dax", MEMORY_DEVICE_FS_DAX, 1, 2 },
};

static void fail_desc(const struct fail_shape *shape, char *desc)
{
	strscpy(desc, shape->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(fail, fail_shapes, fail_desc);

/* Two ranges, the first of which has parts in three sections */
static struct dm *fail_new(struct kunit *test, enum memory_type type)
{
	struct dm *dm = dm_new(test, type);
	u64 start = dm_request(dm, SZ_512M);

	dm_range(dm, start + SZ_128M - SIZE, SZ_128M + 2 * SIZE);
	dm_range(dm, start + SZ_256M + 2 * SIZE, SIZE);
	return dm;
}

/* Pgmaps whose last puts go through put_devmap_managed_folio_refs() */
static int managed_keys(void)
{
#ifdef CONFIG_FS_DAX
	return static_key_count(&devmap_managed_key.key);
#else
	return 0;
#endif
}

struct fail_traces {
	unsigned long present, spanned, start;
	long keys;
};

static struct fail_traces fail_traces_now(void)
{
	struct zone *zone = &NODE_DATA(DM_NODE)->node_zones[ZONE_DEVICE];

	return (struct fail_traces) {
		.present = zone->present_pages,
		.spanned = zone->spanned_pages,
		.start = zone->zone_start_pfn,
		.keys = managed_keys(),
	};
}

/* No struct page is there any more, nobody finds it, and its count is gone */
static void expect_nothing_left(struct dm *dm, const struct fail_traces *before,
				unsigned int n)
{
	struct fail_traces after = fail_traces_now();
	unsigned long pfn, found = 0;
	int i;

	for (i = 0; i < dm->pgmap->nr_range; i++)
		for (pfn = dm_pfn(dm, i); pfn < dm_pfn(dm, i) + dm_n(dm, i);
		     pfn += PAGES_PER_SUBSECTION)
			found += dm_found(pfn) || pfn_valid(pfn);
	KUNIT_EXPECT_EQ_MSG(dm->test, found, 0, "n %u", n);
	KUNIT_EXPECT_MEMEQ_MSG(dm->test, &after, before, sizeof(after), "n %u", n);
	KUNIT_EXPECT_EQ_MSG(dm->test, dm->pgmap->nr_range, 2, "n %u", n);
	KUNIT_EXPECT_NULL_MSG(dm->test, dm->pgmap->ref.data, "n %u", n);
}

/* With the nth allocation failing: has it, and what became of that */
static bool fail_one(struct dm *dm, struct device *dev, unsigned int n, int *ret)
{
	void *addr;

	fail_nth_arm(n);
	addr = dev ? devm_memremap_pages(dev, dm->pgmap) :
		     memremap_pages(dm->pgmap, DM_NODE);
	*ret = PTR_ERR_OR_ZERO(addr);
	return fail_nth_disarm();
}

static void fail_undo(struct dm *dm, struct device *dev)
{
	if (dev)
		devm_memunmap_pages(dev, dm->pgmap);
	else
		memunmap_pages(dm->pgmap);
}

/* How many errors there were; the memory is there when the last call has done well */
static unsigned int fail_sweep(struct dm *dm, struct device *dev,
			       const struct fail_traces *before)
{
	unsigned int n, errors = 0;
	int ret;

	for (n = 1; fail_one(dm, dev, n, &ret); n++) {
		/* There may be another way to do it */
		if (ret) {
			KUNIT_EXPECT_EQ_MSG(dm->test, ret, -ENOMEM, "n %u", n);
			errors++;
		} else {
			fail_undo(dm, dev);
		}
		expect_nothing_left(dm, before, n);
	}
	KUNIT_ASSERT_EQ(dm->test, ret, 0);
	kunit_info(dm->test, "%u allocations failed, %u of them the call", n - 1, errors);
	return errors;
}

/*
 * By device if there is one; the memory is there at the end. Between two calls the
 * debug kernel may come to need more or less for itself, so that what failed in one of
 * them is not what comes next in the other: one sweep may miss what another one finds.
 */
static void fail_each(struct dm *dm, struct device *dev, unsigned int least)
{
	unsigned int sweep, errors = 0;
	struct fail_traces before;

	/* The zone grows to where it is, and never shrinks */
	dm_add(dm);
	dm_remove(dm);
	before = fail_traces_now();
	/* Core code warns of what it could not add: once, since that is its way */
	allow_warning_begin(dm->test);
	for (sweep = 0; errors < least && sweep < FAIL_SWEEPS; sweep++) {
		if (sweep)
			fail_undo(dm, dev);
		errors += fail_sweep(dm, dev, &before);
	}
	allow_warning_end(dm->test);
	dm->added = !dev;
	KUNIT_EXPECT_GE(dm->test, errors, least);
}

static void no_memory(struct kunit *test)
{
	const struct fail_shape *shape = test->param_value;
	struct dm *dm = fail_new(test, shape->type);

	fail_nth_begin(test, shape->min_order);
	fail_each(dm, NULL, shape->least);
	dm_remove(dm);
	dm_add(dm);
}

/* One more, for the device to know of it */
static void no_memory_devm(struct kunit *test)
{
	struct device *dev = kunit_device_register(test, "memremap_kunit");
	struct dm *dm = fail_new(test, MEMORY_DEVICE_FS_DAX);

	KUNIT_ASSERT_FALSE(test, IS_ERR(dev));
	fail_nth_begin(test, 1);
	fail_each(dm, dev, 3);
	kunit_device_unregister(test, dev);
	dm_add(dm);
}

/* ---- What is refused ---- */

struct bad {
	const char *name;
	void (*spoil)(struct dm *dm);
	enum memory_type type;
	int error;
};

static const struct dev_pagemap_ops ops_no_page_free = {
	.migrate_to_ram = dm_migrate_to_ram,
};

static const struct dev_pagemap_ops ops_no_migrate = {
	.page_free = dm_page_free,
};

static void bad_type_none(struct dm *dm)
{
	dm->pgmap->type = 0;
}

static void bad_type_unknown(struct dm *dm)
{
	dm->pgmap->type = MEMORY_DEVICE_PCI_P2PDMA + 1;
}

static void bad_no_ops(struct dm *dm)
{
	dm->pgmap->ops = NULL;
}

static void bad_no_page_free(struct dm *dm)
{
	dm->pgmap->ops = &ops_no_page_free;
}

static void bad_no_migrate(struct dm *dm)
{
	dm->pgmap->ops = &ops_no_migrate;
}

static void bad_no_owner(struct dm *dm)
{
	dm->pgmap->owner = NULL;
}

static void bad_no_range(struct dm *dm)
{
	dm->pgmap->nr_range = 0;
}

static void bad_negative_ranges(struct dm *dm)
{
	dm->pgmap->nr_range = -1;
}

static void bad_empty(struct dm *dm)
{
	dm->pgmap->range.end = dm->pgmap->range.start - 1;
}

static void bad_reversed(struct dm *dm)
{
	swap(dm->pgmap->range.start, dm->pgmap->range.end);
}

static void bad_everything(struct dm *dm)
{
	dm->pgmap->range = (struct range) { 0, U64_MAX };
}

static void bad_start(struct dm *dm)
{
	dm->pgmap->range.start += PAGE_SIZE;
}

static void bad_end(struct dm *dm)
{
	dm->pgmap->range.end -= PAGE_SIZE;
}

static void bad_second(struct dm *dm)
{
	dm->pgmap->nr_range = 2;
	dm->pgmap->ranges[1].start = dm->pgmap->range.end + 1 + SZ_4K;
	dm->pgmap->ranges[1].end = dm->pgmap->ranges[1].start + SIZE - 1;
}

static void bad_shift(struct dm *dm)
{
	dm->pgmap->vmemmap_shift = BITS_PER_LONG;
}

static void bad_compound(struct dm *dm)
{
	dm->pgmap->vmemmap_shift = get_order(SIZE) + 1;
}

/* Of the size of a compound page, but between two places for one; nothing is there */
static void bad_compound_start(struct dm *dm)
{
	struct range *range = &dm->pgmap->range;

	dm->pgmap->vmemmap_shift = 18;
	range->start = ALIGN_DOWN(range->start, SZ_1G) - SZ_2G + SZ_2M;
	range->end = range->start + SZ_1G - 1;
}

/* What is left of one */
static void bad_compound_rest(struct dm *dm)
{
	bad_compound_start(dm);
	dm->pgmap->range.end -= SZ_2M;
}

static void bad_altmap(struct dm *dm)
{
	dm->pgmap->flags = PGMAP_ALTMAP_VALID;
	dm->pgmap->altmap.base_pfn = dm_pfn(dm, 0);
	dm->pgmap->altmap.end_pfn = dm_pfn(dm, 0) + dm_n(dm, 0) - 1;
	dm->pgmap->altmap.free = dm_n(dm, 0);
}

static void bad_altmap_base(struct dm *dm)
{
	bad_altmap(dm);
	dm->pgmap->altmap.base_pfn += 1;
	dm->pgmap->altmap.free = 512;
}

static void bad_altmap_overflow(struct dm *dm)
{
	bad_altmap(dm);
	dm->pgmap->altmap.reserve = ULONG_MAX;
	dm->pgmap->altmap.free = 2;
}

static void bad_altmap_unreachable(struct dm *dm)
{
	bad_altmap(dm);
	dm->pgmap->altmap.free = 512;
}

static void bad_beyond(struct dm *dm)
{
	dm->pgmap->range.start = 1ULL << MAX_PHYSMEM_BITS;
	dm->pgmap->range.end = dm->pgmap->range.start + SIZE - 1;
}

static void bad_system_memory(struct dm *dm)
{
	dm->pgmap->range.start = ALIGN_DOWN(__pa(dm), SIZE);
	dm->pgmap->range.end = dm->pgmap->range.start + SIZE - 1;
}

static void bad_itself(struct dm *dm)
{
	dm->pgmap->nr_range = 2;
	dm->pgmap->ranges[1] = dm->pgmap->ranges[0];
}

static const struct bad bad[] = {
	{ "type_none", bad_type_none, MEMORY_DEVICE_GENERIC, -EINVAL },
	{ "type_unknown", bad_type_unknown, MEMORY_DEVICE_GENERIC, -EINVAL },
	{ "private_no_ops", bad_no_ops, MEMORY_DEVICE_PRIVATE, -EINVAL },
	{ "private_no_page_free", bad_no_page_free, MEMORY_DEVICE_PRIVATE, -EINVAL },
	{ "private_no_migrate", bad_no_migrate, MEMORY_DEVICE_PRIVATE, -EINVAL },
	{ "private_no_owner", bad_no_owner, MEMORY_DEVICE_PRIVATE, -EINVAL },
	{ "coherent_no_ops", bad_no_ops, MEMORY_DEVICE_COHERENT, -EINVAL },
	{ "coherent_no_page_free", bad_no_page_free, MEMORY_DEVICE_COHERENT, -EINVAL },
	{ "coherent_no_owner", bad_no_owner, MEMORY_DEVICE_COHERENT, -EINVAL },
	{ "no_range", bad_no_range, MEMORY_DEVICE_PRIVATE, -EINVAL },
	{ "negative_ranges", bad_negative_ranges, MEMORY_DEVICE_PRIVATE, -EINVAL },
	{ "empty", bad_empty, MEMORY_DEVICE_PRIVATE, -EINVAL },
	{ "reversed", bad_reversed, MEMORY_DEVICE_PRIVATE, -EINVAL },
	{ "everything", bad_everything, MEMORY_DEVICE_PRIVATE, -EINVAL },
	{ "start", bad_start, MEMORY_DEVICE_PRIVATE, -EINVAL },
	{ "end", bad_end, MEMORY_DEVICE_GENERIC, -EINVAL },
	{ "second", bad_second, MEMORY_DEVICE_PRIVATE, -EINVAL },
	{ "shift", bad_shift, MEMORY_DEVICE_GENERIC, -EINVAL },
	{ "compound", bad_compound, MEMORY_DEVICE_GENERIC, -EINVAL },
	{ "compound_start", bad_compound_start, MEMORY_DEVICE_GENERIC, -EINVAL },
	{ "compound_rest", bad_compound_rest, MEMORY_DEVICE_GENERIC, -EINVAL },
	{ "compound_start_private", bad_compound_start, MEMORY_DEVICE_PRIVATE, -EINVAL },
	{ "altmap", bad_altmap, MEMORY_DEVICE_GENERIC, -EINVAL },
	{ "altmap_base", bad_altmap_base, MEMORY_DEVICE_GENERIC, -EINVAL },
	{ "altmap_overflow", bad_altmap_overflow, MEMORY_DEVICE_GENERIC, -EINVAL },
	{ "altmap_private", bad_altmap_unreachable, MEMORY_DEVICE_PRIVATE, -EINVAL },
	{ "beyond", bad_beyond, MEMORY_DEVICE_PRIVATE, -EINVAL },
	{ "beyond_linear", bad_beyond, MEMORY_DEVICE_COHERENT, -EINVAL },
	{ "system_memory", bad_system_memory, MEMORY_DEVICE_PRIVATE, -ENXIO },
	{ "system_memory_linear", bad_system_memory, MEMORY_DEVICE_GENERIC, -ENXIO },
	{ "itself", bad_itself, MEMORY_DEVICE_PRIVATE, -ENOMEM },
	{ "itself_linear", bad_itself, MEMORY_DEVICE_FS_DAX, -ENOMEM },
};

static void bad_desc(const struct bad *bad, char *desc)
{
	strscpy(desc, bad->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(bad, bad, bad_desc);

/* All but what is initialised by any call: @ref and @done */
static void expect_unchanged(struct kunit *test, struct dev_pagemap *pgmap,
			     struct dev_pagemap *was)
{
	KUNIT_EXPECT_MEMEQ(test, &pgmap->altmap, &was->altmap, sizeof(was->altmap));
	KUNIT_EXPECT_EQ(test, pgmap->type, was->type);
	KUNIT_EXPECT_EQ(test, pgmap->flags, was->flags);
	KUNIT_EXPECT_EQ(test, pgmap->vmemmap_shift, was->vmemmap_shift);
	KUNIT_EXPECT_PTR_EQ(test, pgmap->ops, was->ops);
	KUNIT_EXPECT_PTR_EQ(test, pgmap->owner, was->owner);
	KUNIT_EXPECT_EQ(test, pgmap->nr_range, was->nr_range);
	KUNIT_EXPECT_MEMEQ(test, pgmap->ranges, was->ranges,
			   DM_RANGES * sizeof(struct range));
}

/* Its error, nothing changed, and nothing in the way of doing it right */
static void refused(struct kunit *test)
{
	const size_t size = sizeof(struct dev_pagemap) + DM_RANGES * sizeof(struct range);
	const struct bad *bad = test->param_value;
	struct dm *dm = dm_new(test, bad->type);
	struct dev_pagemap *good, *was;
	int keys;

	dm_range(dm, dm_request(dm, 2 * SIZE + SZ_2M), SIZE);
	good = kunit_kzalloc(test, size, GFP_KERNEL);
	was = kunit_kzalloc(test, size, GFP_KERNEL);
	KUNIT_ASSERT_TRUE(test, good && was);
	memcpy(good, dm->pgmap, size);
	bad->spoil(dm);
	memcpy(was, dm->pgmap, size);
	keys = managed_keys();

	KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(dm_try(dm)), bad->error);
	dm_remove(dm);
	expect_unchanged(test, dm->pgmap, was);
	KUNIT_EXPECT_EQ(test, managed_keys(), keys);
	KUNIT_EXPECT_FALSE(test, dm_found(PHYS_PFN(dm->res->start)));

	memcpy(dm->pgmap, good, size);
	KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(dm_try(dm)), 0);
	dm_remove(dm);
}

static void refused_node(struct kunit *test)
{
	static const int nids[] = { -2, INT_MIN, MAX_NUMNODES, INT_MAX };
	struct dm *dm = dm_new(test, MEMORY_DEVICE_PRIVATE);
	unsigned int i;

	dm_range(dm, dm_request(dm, SIZE), SIZE);
	for (i = 0; i < ARRAY_SIZE(nids); i++)
		KUNIT_EXPECT_EQ(test,
				PTR_ERR_OR_ZERO(memremap_pages(dm->pgmap, nids[i])),
				-EINVAL);
	dm->added = !IS_ERR(memremap_pages(dm->pgmap, NUMA_NO_NODE));
	KUNIT_EXPECT_TRUE(test, dm->added);
}

/* Others have a part of it: they keep it */
static void refused_overlap(struct kunit *test)
{
	struct dm *other = dm_simple(test, MEMORY_DEVICE_PRIVATE, 4 * SIZE);
	u64 start = other->res->start;
	const u64 parts[][2] = {
		{ start, 4 * SIZE }, { start, SIZE }, { start + 3 * SIZE, SIZE },
		{ start + SIZE, SIZE }, { start - SIZE, 2 * SIZE },
		{ start + 3 * SIZE, 2 * SIZE }, { start - SIZE, 6 * SIZE },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(parts); i++) {
		struct dm *dm = dm_new(test, MEMORY_DEVICE_PRIVATE);

		dm_range(dm, parts[i][0], parts[i][1]);
		KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(dm_try(dm)), -ENOMEM);
		KUNIT_EXPECT_FALSE(test, dm_found(PHYS_PFN(start) - 1));
		KUNIT_EXPECT_TRUE(test, dm_found(PHYS_PFN(start)));
		KUNIT_EXPECT_TRUE(test, dm_found(PHYS_PFN(start + 4 * SIZE) - 1));
		KUNIT_EXPECT_FALSE(test, dm_found(PHYS_PFN(start + 4 * SIZE)));
	}
	KUNIT_EXPECT_EQ(test, dm_refs(other), 0);
}

/* Range i of DM_RANGES fails: those before it are gone, those behind never came */
static void undone(struct kunit *test, enum memory_type type, int failing)
{
	struct dm *dm = dm_new(test, type), *other = dm_new(test, type);
	u64 start = dm_request(dm, DM_RANGES * SIZE);
	int i;

	for (i = 0; i < DM_RANGES; i++)
		dm_range(dm, start + i * SIZE, SIZE);
	dm_range(other, start + failing * SIZE + SIZE / 2, SIZE / 2);
	dm_add(other);

	KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(dm_try(dm)), -ENOMEM);
	KUNIT_EXPECT_EQ(test, dm->pgmap->nr_range, DM_RANGES);
	for (i = 0; i < DM_RANGES; i++)
		KUNIT_EXPECT_FALSE(test, dm_found(dm_pfn(dm, i)));
	dm_remove(other);
	dm_add(dm);
	for (i = 0; i < DM_RANGES; i++)
		KUNIT_EXPECT_TRUE(test, dm_found(dm_pfn(dm, i)));
	KUNIT_EXPECT_EQ(test, dm->pgmap->nr_range, DM_RANGES);
	kunit_release_action(test, dm_destroy, dm);
}

static void failure_undone(struct kunit *test)
{
	int failing;

	for (failing = 0; failing < DM_RANGES; failing++) {
		undone(test, MEMORY_DEVICE_PRIVATE, failing);
		undone(test, MEMORY_DEVICE_FS_DAX, failing);
	}
}

/* The object, and the addresses, once more and as something else */
static void reuse(struct kunit *test)
{
	struct dm *dm = dm_new(test, MEMORY_DEVICE_PRIVATE);
	int type;

	dm_range(dm, dm_request(dm, SIZE), SIZE);
	for (type = MEMORY_DEVICE_PRIVATE; type <= MEMORY_DEVICE_PCI_P2PDMA; type++) {
		dm->pgmap->type = type;
		dm_add(dm);
		KUNIT_EXPECT_PTR_EQ(test, dm_page(dm)->pgmap, dm->pgmap);
		dm_remove(dm);
		KUNIT_EXPECT_EQ(test, dm->pgmap->nr_range, 1);
		KUNIT_EXPECT_FALSE(test, dm_found(dm_pfn(dm, 0)));
	}
}

static void first_address(struct kunit *test)
{
	struct dm *dm = dm_new(test, MEMORY_DEVICE_GENERIC);

	dm_range(dm, dm_request(dm, 2 * SIZE) + SIZE, SIZE);
	KUNIT_EXPECT_PTR_EQ(test, dm_try(dm), __va(dm->pgmap->range.start));
}

static void compat_align(struct kunit *test)
{
	unsigned long align = memremap_compat_align();
	struct dm *dm = dm_new(test, MEMORY_DEVICE_GENERIC);

	KUNIT_EXPECT_TRUE(test, IS_ALIGNED(align, SUBSECTION_SIZE));
	dm_range(dm, dm_request(dm, SIZE) + align, align);
	dm_add(dm);
}

/* ---- Looking up ---- */

static void lookup(struct kunit *test)
{
	struct dm *dm = dm_simple(test, MEMORY_DEVICE_PRIVATE, SIZE);
	unsigned long first = dm_pfn(dm, 0), n = dm_n(dm, 0);
	const unsigned long pfns[] = { first, first + 1, first + n / 2, first + n - 1 };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(pfns); i++) {
		KUNIT_EXPECT_PTR_EQ(test, get_dev_pagemap(pfns[i], NULL), dm->pgmap);
		KUNIT_EXPECT_EQ(test, dm_refs(dm), 1);
		put_dev_pagemap(dm->pgmap);
	}
	KUNIT_EXPECT_NULL(test, get_dev_pagemap(first - 1, NULL));
	KUNIT_EXPECT_NULL(test, get_dev_pagemap(first + n, NULL));
	KUNIT_EXPECT_NULL(test, get_dev_pagemap(page_to_pfn(virt_to_page(dm)), NULL));
	KUNIT_EXPECT_NULL(test, get_dev_pagemap(ULONG_MAX, NULL));
	KUNIT_EXPECT_EQ(test, dm_refs(dm), 0);
	put_dev_pagemap(NULL);
}

static void lookup_ranges(struct kunit *test)
{
	struct dm *dm = dm_new(test, MEMORY_DEVICE_PRIVATE);
	u64 start = dm_request(dm, 3 * SIZE);

	dm_range(dm, start, SIZE);
	dm_range(dm, start + 2 * SIZE, SIZE);
	dm_add(dm);
	KUNIT_EXPECT_TRUE(test, dm_found(PHYS_PFN(start + SIZE) - 1));
	KUNIT_EXPECT_FALSE(test, dm_found(PHYS_PFN(start + SIZE)));
	KUNIT_EXPECT_FALSE(test, dm_found(PHYS_PFN(start + 2 * SIZE) - 1));
	KUNIT_EXPECT_TRUE(test, dm_found(PHYS_PFN(start + 2 * SIZE)));
	KUNIT_EXPECT_EQ(test, dm_refs(dm), 0);
}

/* What an earlier call gave is kept where it covers the page, or given up */
static void lookup_cached(struct kunit *test)
{
	struct dm *a = dm_simple(test, MEMORY_DEVICE_PRIVATE, SIZE);
	struct dm *b = dm_simple(test, MEMORY_DEVICE_PRIVATE, SIZE);
	struct dev_pagemap *pgmap = get_dev_pagemap(dm_pfn(a, 0), NULL);

	KUNIT_EXPECT_PTR_EQ(test, get_dev_pagemap(dm_pfn(a, 0) + 1, pgmap), a->pgmap);
	KUNIT_EXPECT_EQ(test, dm_refs(a), 1);
	pgmap = get_dev_pagemap(dm_pfn(b, 0), pgmap);
	KUNIT_EXPECT_PTR_EQ(test, pgmap, b->pgmap);
	KUNIT_EXPECT_EQ(test, dm_refs(a), 0);
	KUNIT_EXPECT_EQ(test, dm_refs(b), 1);
	KUNIT_EXPECT_NULL(test, get_dev_pagemap(page_to_pfn(virt_to_page(a)), pgmap));
	KUNIT_EXPECT_EQ(test, dm_refs(b), 0);
}

static void lookup_atomic(struct kunit *test)
{
	struct dm *dm = dm_simple(test, MEMORY_DEVICE_COHERENT, SIZE);
	struct dev_pagemap *pgmap;
	unsigned long flags;

	local_irq_save(flags);
	pgmap = get_dev_pagemap(dm_pfn(dm, 0), NULL);
	pgmap = get_dev_pagemap(dm_pfn(dm, 0) + 1, pgmap);
	put_dev_pagemap(pgmap);
	local_irq_restore(flags);
	KUNIT_EXPECT_PTR_EQ(test, pgmap, dm->pgmap);
	KUNIT_EXPECT_EQ(test, dm_refs(dm), 0);
}

/* Nobody new once removal has begun; who has it, keeps it, and removal waits */
static void lookup_dying(struct kunit *test)
{
	struct dm *dm = dm_simple(test, MEMORY_DEVICE_PRIVATE, SIZE);
	struct dev_pagemap *pgmap = get_dev_pagemap(dm_pfn(dm, 0), NULL);
	struct test_thread *t = remove_start(dm);

	KUNIT_EXPECT_NULL(test, get_dev_pagemap(dm_pfn(dm, 0), NULL));
	KUNIT_EXPECT_PTR_EQ(test, get_dev_pagemap(dm_pfn(dm, 0) + 1, pgmap), pgmap);
	KUNIT_EXPECT_TRUE(test, test_thread_goes_on(t));
	put_dev_pagemap(pgmap);
	dm_join(dm, t);
	KUNIT_EXPECT_NULL(test, get_dev_pagemap(dm_pfn(dm, 0), NULL));
}

static void pfn_usable(struct kunit *test)
{
	struct dm *dm = dm_new(test, MEMORY_DEVICE_GENERIC);
	struct dev_pagemap *pgmap = dm->pgmap;
	unsigned long first, n;

	dm_range(dm, SZ_4G, SIZE);
	dm_range(dm, SZ_4G + 2 * SIZE, SIZE);
	first = dm_pfn(dm, 0);
	n = dm_n(dm, 0);
	KUNIT_EXPECT_FALSE(test, pgmap_pfn_valid(pgmap, first - 1));
	KUNIT_EXPECT_TRUE(test, pgmap_pfn_valid(pgmap, first));
	KUNIT_EXPECT_TRUE(test, pgmap_pfn_valid(pgmap, first + n - 1));
	KUNIT_EXPECT_FALSE(test, pgmap_pfn_valid(pgmap, first + n));
	KUNIT_EXPECT_TRUE(test, pgmap_pfn_valid(pgmap, first + 2 * n));

	pgmap->altmap.reserve = 3;
	pgmap->altmap.free = 5;
	KUNIT_EXPECT_TRUE(test, pgmap_pfn_valid(pgmap, first));
	pgmap->flags = PGMAP_ALTMAP_VALID;
	KUNIT_EXPECT_FALSE(test, pgmap_pfn_valid(pgmap, first));
	KUNIT_EXPECT_FALSE(test, pgmap_pfn_valid(pgmap, first + 7));
	KUNIT_EXPECT_TRUE(test, pgmap_pfn_valid(pgmap, first + 8));
	KUNIT_EXPECT_TRUE(test, pgmap_pfn_valid(pgmap, first + 2 * n));
	KUNIT_EXPECT_FALSE(test, pgmap_pfn_valid(pgmap, first + 3 * n));
}

/* ---- Removal ---- */

static void removal_waits_for_count(struct kunit *test)
{
	static const enum memory_type types[] = {
		MEMORY_DEVICE_PRIVATE, MEMORY_DEVICE_COHERENT,
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(types); i++) {
		struct dm *dm = dm_simple(test, types[i], SIZE);
		struct page *page = dm_page(dm) + 7;
		struct test_thread *t;

		page_use(page);
		KUNIT_EXPECT_EQ(test, dm_refs(dm), 1);
		t = remove_start(dm);
		KUNIT_EXPECT_TRUE(test, test_thread_goes_on(t));
		KUNIT_EXPECT_EQ(test, atomic_read(&dm->freed), 0);
		put_page(page);
		dm_join(dm, t);
		KUNIT_EXPECT_EQ(test, atomic_read(&dm->freed), 1);
	}
}

/* What munlock() has left in the batch of a CPU that has nothing more to add to it */
static void removal_drains(struct kunit *test)
{
	struct dm *dm = dm_simple(test, MEMORY_DEVICE_PRIVATE, SIZE);
	struct page *page = dm_page(dm) + 7;
	struct test_thread *t;

	page_use(page);
	munlock_folio(page_folio(page));
	put_page(page);
	t = dm_remove_start(dm);
	if (t && !wait_for_completion_timeout(&t->done, 5 * HZ)) {
		KUNIT_FAIL(test, "the batch was not drained");
		lru_add_drain_all();
	}
	dm_join(dm, t);
	KUNIT_EXPECT_EQ(test, atomic_read(&dm->freed), 1);
}

/* Pages whose references are not counted in the whole, in each of two ranges */
static void waits_for_page(struct kunit *test, enum memory_type type,
			   unsigned long shift, int range)
{
	struct dm *dm = dm_new(test, type);
	u64 start = dm_request(dm, 3 * SIZE);
	struct test_thread *t;
	struct page *page;

	dm->pgmap->vmemmap_shift = shift;
	dm_range(dm, start, SIZE);
	dm_range(dm, start + 2 * SIZE, SIZE);
	dm_add(dm);
	page = pfn_to_page(dm_pfn(dm, range) + dm_n(dm, range) - (1UL << shift));
	get_page(page);
	t = remove_start(dm);
	KUNIT_EXPECT_TRUE(test, test_thread_goes_on(t));
	put_page(page);
	dm_join(dm, t);
	kunit_release_action(test, dm_destroy, dm);
}

static void removal_waits_for_pages(struct kunit *test)
{
	int range;

	for (range = 0; range < 2; range++) {
		waits_for_page(test, MEMORY_DEVICE_FS_DAX, 0, range);
		waits_for_page(test, MEMORY_DEVICE_GENERIC, 0, range);
		waits_for_page(test, MEMORY_DEVICE_PCI_P2PDMA, 0, range);
		waits_for_page(test, MEMORY_DEVICE_GENERIC, 9, range);
	}
}

/* ---- The life of a page ---- */

#define LIFE_ORDER	9
#define LIFE_PAGES	BIT(LIFE_ORDER)

/* What the owner finds: all as it was made, but for what is the owner's */
struct life {
	struct page *first;	/* of the folio */
	unsigned long pages;
	unsigned long bad;	/* first one that was not restored, + 1 */
	struct page fresh[LIFE_PAGES];
};

static bool page_is_fresh(const struct page *page, const struct page *fresh, bool head)
{
	struct page now = *page;

	/* The owner's, left alone in the first page of a folio */
	if (head)
		now.zone_device_data = fresh->zone_device_data;
	return !memcmp(&now, fresh, sizeof(now));
}

static void life_page_free(struct dm *dm, struct page *page)
{
	struct life *life = dm->priv;
	unsigned long i;

	if (page != life->first)
		life->bad = 1;
	for (i = 0; i < life->pages && !life->bad; i++)
		if (!page_is_fresh(page + i, &life->fresh[i], !i))
			life->bad = i + 1;
}

/* As they are now they shall be at the last put */
static void life_begin(struct life *life, struct page *first, unsigned long pages)
{
	life->first = first;
	life->pages = pages;
	life->bad = 0;
	memcpy(life->fresh, first, pages * sizeof(*first));
}

/* Of compound pages, if @shift is not 0 */
static struct dm *life_new(struct kunit *test, enum memory_type type,
			   unsigned long shift)
{
	struct dm *dm = dm_new(test, type);

	dm->priv = kunit_kzalloc(test, sizeof(struct life), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, dm->priv);
	dm->page_free = life_page_free;
	dm->pgmap->vmemmap_shift = shift;
	dm_range(dm, dm_request(dm, SIZE), SIZE);
	dm_add(dm);
	return dm;
}

/* As an anonymous page, mapped and unmapped again, with all that goes with it */
static void page_soil(struct kunit *test, struct page *page)
{
	struct folio *folio = page_folio(page);
	unsigned int i;

	KUNIT_EXPECT_EQ(test, mem_cgroup_charge(folio, NULL, GFP_KERNEL), 0);
	folio->mapping = (void *)(0x1000 | PAGE_MAPPING_ANON);
	folio->index = 0x1234;
	folio->private = (void *)0x5678;
	SetPageAnonExclusive(page);
	folio_set_swapbacked(folio);
	folio_mark_uptodate(folio);
	/* By the generational LRU these are counted, beside the flags */
	for (i = 0; i < 8; i++)
		folio_mark_accessed(folio);
	folio_set_referenced(folio);
	folio_set_workingset(folio);
	folio_set_active(folio);
	set_bit(PG_dirty, &folio->flags);
	folio_xchg_last_cpupid(folio, 1);
}

/* In use, soiled, put, and again; of compound memory @page is a head */
static void life_rounds(struct dm *dm, struct page *page)
{
	struct kunit *test = dm->test;
	struct life *life = dm->priv;
	int round;

	life_begin(life, page, pgmap_vmemmap_nr(dm->pgmap));
	for (round = 1; round < 4; round++) {
		page->zone_device_data = life;
		zone_device_page_init(page);
		KUNIT_EXPECT_EQ(test, page_count(page), 1);
		KUNIT_EXPECT_TRUE(test, PageLocked(page));
		KUNIT_EXPECT_PTR_EQ(test, page->zone_device_data, life);
		KUNIT_EXPECT_EQ(test, dm_refs(dm), 1);
		page_soil(test, page);
		unlock_page(page);
		get_page(page);
		put_page(page);
		KUNIT_EXPECT_EQ(test, atomic_read(&dm->freed), round - 1);
		put_page(page);
		KUNIT_EXPECT_EQ(test, atomic_read(&dm->freed), round);
		KUNIT_EXPECT_EQ(test, life->bad, 0);
		KUNIT_EXPECT_EQ(test, page_count(page), 0);
		KUNIT_EXPECT_PTR_EQ(test, page->zone_device_data, life);
		KUNIT_EXPECT_EQ(test, dm_refs(dm), 0);
	}
}

static void life_of_page(struct kunit *test, enum memory_type type)
{
	struct dm *dm = life_new(test, type, 0);

	life_rounds(dm, dm_page(dm) + 3);
}

/* It stays compound: of head and tails nothing else may have changed, either */
static void life_of_compound(struct kunit *test, enum memory_type type)
{
	struct dm *dm = life_new(test, type, LIFE_ORDER);
	struct page *head = dm_page(dm) + LIFE_PAGES;

	life_rounds(dm, head);
	KUNIT_EXPECT_EQ(test, folio_order(page_folio(head)), LIFE_ORDER);
	KUNIT_EXPECT_PTR_EQ(test, compound_head(head + LIFE_PAGES - 1), head);
}

static void life_private(struct kunit *test)
{
	life_of_page(test, MEMORY_DEVICE_PRIVATE);
}

static void life_coherent(struct kunit *test)
{
	life_of_page(test, MEMORY_DEVICE_COHERENT);
}

static void life_compound_private(struct kunit *test)
{
	life_of_compound(test, MEMORY_DEVICE_PRIVATE);
}

static void life_compound_coherent(struct kunit *test)
{
	life_of_compound(test, MEMORY_DEVICE_COHERENT);
}

/* Has one reference again after the owner has been told */
static void life_p2pdma(struct kunit *test)
{
	struct dm *dm = dm_simple(test, MEMORY_DEVICE_PCI_P2PDMA, SIZE);
	struct page *page = dm_page(dm);
	int round;

	for (round = 1; round < 4; round++) {
		get_page(page);
		put_page(page);
		KUNIT_EXPECT_EQ(test, atomic_read(&dm->freed), round - 1);
		put_page(page);
		KUNIT_EXPECT_EQ(test, atomic_read(&dm->freed), round);
		KUNIT_EXPECT_EQ(test, page_count(page), 1);
	}
	KUNIT_EXPECT_EQ(test, dm_refs(dm), 0);
}

static void folio_in_use(struct kunit *test, struct dm *dm, struct folio *folio,
			 unsigned int order)
{
	long i;

	zone_device_folio_init(folio, dm->pgmap, order);
	KUNIT_EXPECT_EQ(test, folio_order(folio), order);
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), 1);
	KUNIT_EXPECT_TRUE(test, folio_test_locked(folio));
	KUNIT_EXPECT_EQ(test, dm_refs(dm), 1L << order);
	for (i = 1; i < 1L << order; i++)
		KUNIT_ASSERT_PTR_EQ(test, page_folio(folio_page(folio, i)), folio);
	page_soil(test, &folio->page);
	folio_unlock(folio);
}

/* At the last put of a large one all of its pages are as they were before */
static void life_folio(struct kunit *test)
{
	struct dm *dm = life_new(test, MEMORY_DEVICE_PRIVATE, 0);
	struct page first = *dm_page(dm);
	struct life *life = dm->priv;
	unsigned int order, round = 0;

	for (order = 0; order <= LIFE_ORDER; order++) {
		struct folio *folio = page_folio(dm_page(dm) + (1UL << order));

		life_begin(life, &folio->page, 1UL << order);
		folio_in_use(test, dm, folio, order);
		folio_put(folio);
		KUNIT_EXPECT_EQ(test, atomic_read(&dm->freed), ++round);
		KUNIT_EXPECT_EQ_MSG(test, life->bad, 0, "order %u", order);
		KUNIT_EXPECT_EQ(test, dm_refs(dm), 0);
	}
	/* The first page was in none of them */
	KUNIT_EXPECT_TRUE(test, page_is_fresh(dm_page(dm), &first, false));
}

static void wrong_page_free(struct page *page)
{
	struct dm *dm = page->pgmap->owner;

	KUNIT_FAIL(dm->test, "page_free, although there is folio_free");
}

static void dm_folio_free(struct folio *folio)
{
	dm_page_free(&folio->page);
}

/* Who has both is called by one of them */
static void life_folio_free(struct kunit *test)
{
	static const struct dev_pagemap_ops ops = {
		.page_free	= wrong_page_free,
		.folio_free	= dm_folio_free,
		.migrate_to_ram	= dm_migrate_to_ram,
	};
	struct dm *dm = life_new(test, MEMORY_DEVICE_PRIVATE, 0);
	struct folio *folio = page_folio(dm_page(dm) + LIFE_PAGES);
	struct life *life = dm->priv;
	unsigned int order, round = 0;

	dm->pgmap->ops = &ops;
	for (order = 0; order <= LIFE_ORDER; order += LIFE_ORDER) {
		life_begin(life, &folio->page, 1UL << order);
		folio_in_use(test, dm, folio, order);
		folio_put(folio);
		KUNIT_EXPECT_EQ(test, atomic_read(&dm->freed), ++round);
		KUNIT_EXPECT_EQ_MSG(test, life->bad, 0, "order %u", order);
	}
}

/* The first page is in use, and nothing else has been written to */
static void not_made(struct dm *dm, struct page *page, unsigned int order)
{
	unsigned long pages = pgmap_vmemmap_nr(dm->pgmap);
	struct kunit *test = dm->test;
	struct life *life = dm->priv;

	/* With some that would have been its tails */
	life_begin(life, page, max(pages, 8UL));
	zone_device_folio_init(page_folio(page), dm->pgmap, order);
	KUNIT_EXPECT_EQ(test, dm_refs(dm), 1);
	KUNIT_EXPECT_EQ(test, page_ref_count(page), 1);
	KUNIT_EXPECT_EQ(test, 1UL << folio_order(page_folio(page)), pages);
	KUNIT_EXPECT_TRUE(test, PageLocked(page));
	unlock_page(page);
	put_page(page);
	KUNIT_EXPECT_EQ(test, life->bad, 0);
	KUNIT_EXPECT_EQ(test, dm_refs(dm), 0);
}

/* Folios that cannot be: warned of once, however many there are */
static void life_no_such_folio(struct kunit *test)
{
	struct dm *single = life_new(test, MEMORY_DEVICE_PRIVATE, 0);
	struct dm *compound = life_new(test, MEMORY_DEVICE_COHERENT, LIFE_ORDER);

	expect_warning_begin(test);
	not_made(single, dm_page(single) + 3, 1);
	not_made(single, dm_page(single) + 4, 3);
	not_made(single, dm_page(single), BITS_PER_LONG - 1);
	not_made(single, dm_page(single), UINT_MAX);
	not_made(compound, dm_page(compound), 1);
	not_made(compound, dm_page(compound), LIFE_ORDER);
	expect_warning_end(test);
}

/*
 * The owner gives what comes back to whoever asks next, at once:
 *
 *	CPU 0					CPU 1
 *	put_page()
 *	  free_zone_device_folio()
 *	    page_free(): into the slot
 *						takes it out of the slot
 *						zone_device_page_init()
 *						writes what is its own
 *	    what is written here would
 *	    be seen
 *						is it still there?
 *
 * CPU 1 has two references while it looks: one is what CPU 0 might write.
 */
struct slot {
	struct dm *dm;
	unsigned int order;
	struct page *page;
	atomic_t rounds;
	atomic_t owned;		/* how often somebody has made it his own */
	atomic_t spoilt;
};

struct slot_shape {
	const char *name;
	enum memory_type type;
	unsigned int order;
};

static const struct slot_shape slot_shapes[] = {
	{ "private", MEMORY_DEVICE_PRIVATE, 0 },
	{ "coherent", MEMORY_DEVICE_COHERENT, 0 },
	{ "large", MEMORY_DEVICE_PRIVATE, 2 },
};

static void slot_desc(const struct slot_shape *shape, char *desc)
{
	strscpy(desc, shape->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(slot, slot_shapes, slot_desc);

#define SLOT_ROUNDS	5000
#define SLOT_LOOKS	100
#define SLOT_PATIENCE	1000

/* Returns when CPU 1 looks already, if there is one: what comes then, comes late */
static void slot_page_free(struct dm *dm, struct page *page)
{
	struct slot *slot = dm->priv;
	int owned = atomic_read(&slot->owned), i;

	/* All that was written before; pairs with xchg() in slot_take() */
	smp_store_release(&slot->page, page);
	for (i = 0; i < SLOT_PATIENCE && atomic_read(&slot->owned) == owned; i++)
		cpu_relax();
}

/* NULL if there is nothing more to do */
static struct page *slot_take(struct test_thread *t, struct slot *slot)
{
	struct page *page;

	if (atomic_inc_return(&slot->rounds) > SLOT_ROUNDS)
		return NULL;
	while (!(page = xchg(&slot->page, NULL))) {
		if (test_thread_must_stop(t))
			return NULL;
		cond_resched();
	}
	return page;
}

static bool slot_spoilt(struct slot *slot, struct page *page, unsigned long own)
{
	unsigned long i;

	for (i = 1; i < 1UL << slot->order; i++)
		if (compound_head(page + i) != page)
			return true;
	return READ_ONCE(page->index) != own || READ_ONCE(page->private) != ~own ||
	       READ_ONCE(page->mapping) != (void *)(own << 2) ||
	       READ_ONCE(page->zone_device_data) != (void *)own ||
	       !test_bit(PG_referenced, &page->flags) || page_ref_count(page) != 2;
}

static void slot_own(struct slot *slot, struct page *page, unsigned long own)
{
	int look;

	if (slot->order)
		zone_device_folio_init(page_folio(page), slot->dm->pgmap, slot->order);
	else
		zone_device_page_init(page);
	get_page(page);
	page->zone_device_data = (void *)own;
	page->index = own;
	page->private = ~own;
	page->mapping = (void *)(own << 2);
	set_bit(PG_referenced, &page->flags);
	atomic_inc(&slot->owned);
	for (look = 0; look < SLOT_LOOKS; look++) {
		if (slot_spoilt(slot, page, own))
			atomic_inc(&slot->spoilt);
		cpu_relax();
	}
	/* As it should be, so that the rest comes to an end */
	set_page_count(page, 2);
	unlock_page(page);
	put_page(page);
	put_page(page);
}

static void work_slot(struct test_thread *t)
{
	unsigned long own = (unsigned long)current;
	struct slot *slot = t->arg;
	struct page *page;

	while ((page = slot_take(t, slot)))
		slot_own(slot, page, own++);
}

static void never_written_later(struct kunit *test)
{
	const struct slot_shape *shape = test->param_value;
	struct dm *dm = dm_simple(test, shape->type, SIZE);
	struct slot *slot = kzalloc(sizeof(*slot), GFP_KERNEL);
	struct test_thread *t[2];
	unsigned int i, cpu;

	KUNIT_ASSERT_NOT_NULL(test, slot);
	slot->dm = dm;
	slot->order = shape->order;
	slot->page = dm_page(dm);
	dm->priv = slot;
	dm->page_free = slot_page_free;
	for (i = 0; i < ARRAY_SIZE(t); i++) {
		cpu = cpumask_nth(i % num_online_cpus(), cpu_online_mask);
		t[i] = test_thread_start(test, cpu, work_slot, slot);
	}
	for (i = 0; i < ARRAY_SIZE(t); i++)
		dm_join(dm, t[i]);
	if (dm->lost)
		return;
	KUNIT_EXPECT_EQ(test, atomic_read(&slot->spoilt), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&dm->freed), SLOT_ROUNDS);
	KUNIT_EXPECT_EQ(test, dm_refs(dm), 0);
	kfree(slot);
}

/* ---- Found while it is added ---- */

struct finder {
	unsigned long pfn;
	atomic_t looks, early;
};

/* Looks up a pfn until it is there: what is behind it must be made by then */
static void work_find(struct test_thread *t)
{
	struct finder *f = t->arg;
	struct dev_pagemap *pgmap;

	while (!test_thread_must_stop(t)) {
		pgmap = get_dev_pagemap(f->pfn, NULL);
		atomic_inc(&f->looks);
		if (pgmap) {
			if (pfn_to_page(f->pfn)->pgmap != pgmap)
				atomic_inc(&f->early);
			put_dev_pagemap(pgmap);
			return;
		}
		cond_resched();
	}
}

/* The last page of many, which is made long after the first one could be found */
static void found_when_made(struct kunit *test)
{
	struct dm *dm = dm_new(test, MEMORY_DEVICE_PRIVATE);
	struct test_thread *t;
	struct finder *f;

	if (num_online_cpus() < 2)
		kunit_skip(test, "one CPU only");
	f = kzalloc(sizeof(*f), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, f);
	dm_range(dm, dm_request(dm, SZ_2G), SZ_2G);
	f->pfn = dm_pfn(dm, 0) + dm_n(dm, 0) - 1;
	t = test_thread_start(test, -1, work_find, f);
	while (t && !atomic_read(&f->looks))
		cond_resched();
	KUNIT_EXPECT_FALSE(test, IS_ERR(dm_try(dm)));
	if (!test_thread_join(test, t)) {
		dm->lost = true;
		return;
	}
	KUNIT_EXPECT_EQ(test, atomic_read(&f->early), 0);
	kunit_info(test, "looked up %d times", atomic_read(&f->looks));
	kfree(f);
}

/* ---- FS_DAX ---- */

struct idle_wait {
	struct page *page;
	atomic_t looks;
};

/*
 * Truncation in small. From the second look on it is on the list of those who are to
 * be woken, whether asleep already or not.
 */
static void work_wait_idle(struct test_thread *t)
{
	struct idle_wait *w = t->arg;

	wait_var_event(&w->page->_refcount,
		       atomic_inc_return(&w->looks) &&
		       (page_ref_count(w->page) == 1 || test_thread_must_stop(t)));
}

static bool idle_wait_looked(struct idle_wait *w, int times)
{
	unsigned long limit = jiffies + TEST_LIMIT;

	while (atomic_read(&w->looks) < times && time_before(jiffies, limit))
		cond_resched();
	return atomic_read(&w->looks) == times;
}

/* Truncation is woken by the last put but one, and by no other */
static void fs_dax_wakes(struct kunit *test)
{
	struct dm *dm = dm_simple(test, MEMORY_DEVICE_FS_DAX, SIZE);
	struct idle_wait *w = kzalloc(sizeof(*w), GFP_KERNEL);
	struct page *page = dm_page(dm);
	struct test_thread *t;

	KUNIT_ASSERT_NOT_NULL(test, w);
	w->page = page;
	get_page(page);
	get_page(page);
	t = test_thread_start(test, -1, work_wait_idle, w);
	KUNIT_EXPECT_TRUE(test, !t || idle_wait_looked(w, 2));
	put_page(page);
	KUNIT_EXPECT_TRUE(test, test_thread_goes_on(t));
	KUNIT_EXPECT_EQ(test, atomic_read(&w->looks), 2);
	put_page(page);
	if (t && !wait_for_completion_timeout(&t->done, 5 * HZ)) {
		KUNIT_FAIL(test, "not woken");
		wake_up_var(&page->_refcount);
	}
	dm_join(dm, t);
	KUNIT_EXPECT_EQ(test, page_ref_count(page), 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&dm->freed), 0);
	if (!dm->lost)
		kfree(w);
}

/* It is the file system's, which takes it back when the file goes, even if that is late */
static void fs_dax_keeps_mapping(struct kunit *test)
{
	struct dm *dm = dm_simple(test, MEMORY_DEVICE_FS_DAX, SIZE);
	struct page *page = dm_page(dm) + 3;

	page->mapping = (void *)0x1000;
	page->index = 0x1234;
	get_page(page);
	put_page(page);
	KUNIT_EXPECT_PTR_EQ(test, page->mapping, (void *)0x1000);
	KUNIT_EXPECT_EQ(test, page->index, 0x1234);
	KUNIT_EXPECT_EQ(test, page_ref_count(page), 1);
	/* Past the key, to the owner */
	folio_put(page_folio(page));
	KUNIT_EXPECT_EQ(test, atomic_read(&dm->freed), 1);
	KUNIT_EXPECT_PTR_EQ(test, page->mapping, (void *)0x1000);
	KUNIT_EXPECT_EQ(test, page->index, 0x1234);
	KUNIT_EXPECT_EQ(test, page_ref_count(page), 1);
	page->mapping = NULL;
}

/* Others pay nothing while there is no FS_DAX memory */
static void fs_dax_key(struct kunit *test)
{
	int keys = managed_keys();
	struct dm *a = dm_simple(test, MEMORY_DEVICE_FS_DAX, SIZE);
	struct dm *b = dm_simple(test, MEMORY_DEVICE_FS_DAX, SIZE);

	KUNIT_EXPECT_EQ(test, managed_keys(), keys + 2);
	dm_simple(test, MEMORY_DEVICE_GENERIC, SIZE);
	KUNIT_EXPECT_EQ(test, managed_keys(), keys + 2);
	dm_remove(a);
	KUNIT_EXPECT_EQ(test, managed_keys(), keys + 1);
	dm_remove(b);
	KUNIT_EXPECT_EQ(test, managed_keys(), keys);
}

/* ---- The page allocator ---- */

static unsigned long zone_free_device_pages(struct zone *zone)
{
	unsigned long flags, found = 0;
	unsigned int order, type;
	struct page *page;

	spin_lock_irqsave(&zone->lock, flags);
	for_each_migratetype_order(order, type)
		list_for_each_entry(page, &zone->free_area[order].free_list[type],
				    buddy_list)
			found += is_zone_device_page(page);
	spin_unlock_irqrestore(&zone->lock, flags);
	return found;
}

/* However they were used: no page of a device gets to it */
static void not_in_the_allocator(struct kunit *test)
{
	struct dm *dm = dm_simple(test, MEMORY_DEVICE_PRIVATE, SIZE);
	struct folio_batch batch;
	unsigned long i, n = dm_n(dm, 0), found = 0;
	struct zone *zone;

	for (i = 0; i < n; i++)
		page_use(dm_page(dm) + i);
	for (i = 0; i < n / 2; i++)
		put_page(dm_page(dm) + i);
	/* The same by the other way to put */
	folio_batch_init(&batch);
	for (; i < n; i++)
		if (!folio_batch_add(&batch, page_folio(dm_page(dm) + i)))
			folios_put(&batch);
	if (folio_batch_count(&batch))
		folios_put(&batch);
	KUNIT_EXPECT_EQ(test, atomic_read(&dm->freed), n);
	for (i = 0; i < n; i++)
		found += PageBuddy(dm_page(dm) + i) || PageLRU(dm_page(dm) + i);
	KUNIT_EXPECT_EQ(test, found, 0);
	drain_all_pages(NULL);
	for_each_populated_zone(zone)
		KUNIT_EXPECT_EQ(test, zone_free_device_pages(zone), 0);
}

/* ---- With a device ---- */

static struct device *dm_device(struct dm *dm, u64 size)
{
	struct device *dev = kunit_device_register(dm->test, "memremap_kunit");

	KUNIT_ASSERT_FALSE(dm->test, IS_ERR(dev));
	dm_range(dm, dm_request(dm, size), size);
	return dev;
}

static void devm_ends_with_device(struct kunit *test)
{
	struct dm *dm = dm_new(test, MEMORY_DEVICE_PRIVATE);
	struct device *dev = dm_device(dm, SIZE);
	void *addr = devm_memremap_pages(dev, dm->pgmap);

	KUNIT_EXPECT_PTR_EQ(test, addr, __va(dm->res->start));
	KUNIT_EXPECT_TRUE(test, dm_found(dm_pfn(dm, 0)));
	kunit_device_unregister(test, dev);
	KUNIT_EXPECT_FALSE(test, dm_found(dm_pfn(dm, 0)));
}

static void devm_ends_before_device(struct kunit *test)
{
	struct dm *dm = dm_new(test, MEMORY_DEVICE_PRIVATE);
	struct device *dev = dm_device(dm, SIZE);

	KUNIT_ASSERT_FALSE(test, IS_ERR(devm_memremap_pages(dev, dm->pgmap)));
	devm_memunmap_pages(dev, dm->pgmap);
	KUNIT_EXPECT_FALSE(test, dm_found(dm_pfn(dm, 0)));
	/* By its end the device has nothing left to undo */
	dm_add(dm);
	kunit_device_unregister(test, dev);
	KUNIT_EXPECT_TRUE(test, dm_found(dm_pfn(dm, 0)));
}

static void devm_fails(struct kunit *test)
{
	struct dm *dm = dm_new(test, MEMORY_DEVICE_PRIVATE);
	struct device *dev = dm_device(dm, SIZE);

	dm->pgmap->owner = NULL;
	KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(devm_memremap_pages(dev, dm->pgmap)),
			-EINVAL);
	dm->pgmap->owner = dm;
	dm_add(dm);
	kunit_device_unregister(test, dev);
	KUNIT_EXPECT_TRUE(test, dm_found(dm_pfn(dm, 0)));
}

static struct kunit_case cases[] = {
	KUNIT_CASE_PARAM(refused, bad_gen_params),
	KUNIT_CASE(refused_node),
	KUNIT_CASE(refused_overlap),
	KUNIT_CASE(failure_undone),
	KUNIT_CASE_PARAM_ATTR(no_memory, fail_gen_params,
			      ((struct kunit_attributes){ .speed = KUNIT_SPEED_SLOW })),
	KUNIT_CASE_SLOW(no_memory_devm),
	KUNIT_CASE(reuse),
	KUNIT_CASE(first_address),
	KUNIT_CASE(compat_align),
	KUNIT_CASE(lookup),
	KUNIT_CASE(lookup_ranges),
	KUNIT_CASE(lookup_cached),
	KUNIT_CASE(lookup_atomic),
	KUNIT_CASE(lookup_dying),
	KUNIT_CASE(found_when_made),
	KUNIT_CASE(pfn_usable),
	KUNIT_CASE(removal_waits_for_count),
	KUNIT_CASE(removal_drains),
	KUNIT_CASE(removal_waits_for_pages),
	KUNIT_CASE(life_private),
	KUNIT_CASE(life_coherent),
	KUNIT_CASE(life_compound_private),
	KUNIT_CASE(life_compound_coherent),
	KUNIT_CASE(life_p2pdma),
	KUNIT_CASE(life_folio),
	KUNIT_CASE(life_folio_free),
	KUNIT_CASE(life_no_such_folio),
	KUNIT_CASE_PARAM(never_written_later, slot_gen_params),
	KUNIT_CASE(fs_dax_wakes),
	KUNIT_CASE(fs_dax_keeps_mapping),
	KUNIT_CASE(fs_dax_key),
	KUNIT_CASE(not_in_the_allocator),
	KUNIT_CASE(devm_ends_with_device),
	KUNIT_CASE(devm_ends_before_device),
	KUNIT_CASE(devm_fails),
	{}
};

static struct kunit_suite suite = {
	.name = "memremap",
	.test_cases = cases,
};

kunit_test_suite(suite);

MODULE_DESCRIPTION("KUnit tests of device memory");
MODULE_LICENSE("GPL");
