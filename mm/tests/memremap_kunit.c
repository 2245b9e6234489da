// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of mm/memremap.c: device memory, from hot-add to removal
 *
 * What memremap_pages() refuses and what it leaves then, how memory is looked up,
 * what removal waits for, and the life of a page: what its last put makes undone,
 * and that nobody touches it once its owner has it back.
 *
 * A test that waits for another thread waits for what that one does. That something
 * does not happen can only be waited for by time (SETTLE).
 *
 * Short names as in memremap_test.h.
 */
#include <kunit/device.h>
#include <linux/completion.h>
#include <linux/irqflags.h>
#include <linux/kthread.h>
#include <linux/memcontrol.h>
#include <linux/mmzone.h>
#include <linux/page-flags.h>
#include <linux/pagemap.h>
#include <linux/percpu-refcount.h>
#include <linux/percpu.h>
#include <linux/sched.h>
#include <linux/sizes.h>
#include <linux/wait_bit.h>

#include "../internal.h"
#include "memremap_test.h"

#define SIZE	SZ_4M
/* Long enough for what must not happen */
#define SETTLE	(HZ / 5)
/* For what must happen; only a failure takes that long */
#define LIMIT	(60 * HZ)

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

/* A thread that does one thing, and says when it has */
struct job {
	void (*work)(void *arg);
	void *arg;
	struct task_struct *task;
	struct completion done;
};

static int job_thread(void *data)
{
	struct job *job = data;

	job->work(job->arg);
	complete_all(&job->done);
	return 0;
}

static void job_start(struct kunit *test, struct job *job, void (*work)(void *arg),
		      void *arg)
{
	job->work = work;
	job->arg = arg;
	init_completion(&job->done);
	job->task = kthread_run(job_thread, job, "memremap_kunit");
	KUNIT_ASSERT_FALSE(test, IS_ERR(job->task));
}

/* No way on without it: it uses what the test has on its stack */
static void job_wait(struct kunit *test, struct job *job)
{
	KUNIT_EXPECT_NE(test, wait_for_completion_timeout(&job->done, LIMIT), 0);
	wait_for_completion(&job->done);
}

static void work_remove(void *arg)
{
	dm_remove(arg);
}

/* Removal has begun, and goes on in a thread of its own */
static void remove_start(struct dm *dm, struct job *job)
{
	job_start(dm->test, job, work_remove, dm);
	while (!percpu_ref_is_dying(&dm->pgmap->ref))
		cond_resched();
}

static void page_use(struct page *page)
{
	zone_device_page_init(page);
	unlock_page(page);
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
	keys = static_key_count(&devmap_managed_key.key);

	KUNIT_EXPECT_EQ(test, PTR_ERR_OR_ZERO(dm_try(dm)), bad->error);
	expect_unchanged(test, dm->pgmap, was);
	KUNIT_EXPECT_EQ(test, static_key_count(&devmap_managed_key.key), keys);
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
	struct job job;

	remove_start(dm, &job);
	KUNIT_EXPECT_NULL(test, get_dev_pagemap(dm_pfn(dm, 0), NULL));
	KUNIT_EXPECT_PTR_EQ(test, get_dev_pagemap(dm_pfn(dm, 0) + 1, pgmap), pgmap);
	KUNIT_EXPECT_EQ(test, wait_for_completion_timeout(&job.done, SETTLE), 0);
	put_dev_pagemap(pgmap);
	job_wait(test, &job);
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
		struct job job;

		page_use(page);
		KUNIT_EXPECT_EQ(test, dm_refs(dm), 1);
		remove_start(dm, &job);
		KUNIT_EXPECT_EQ(test, wait_for_completion_timeout(&job.done, SETTLE),
				0);
		KUNIT_EXPECT_EQ(test, atomic_read(&dm->freed), 0);
		put_page(page);
		job_wait(test, &job);
		KUNIT_EXPECT_EQ(test, atomic_read(&dm->freed), 1);
	}
}

/* Pages whose references are not counted in the whole, in each of two ranges */
static void waits_for_page(struct kunit *test, enum memory_type type,
			   unsigned long shift, int range)
{
	struct dm *dm = dm_new(test, type);
	u64 start = dm_request(dm, 3 * SIZE);
	struct page *page;
	struct job job;

	dm->pgmap->vmemmap_shift = shift;
	dm_range(dm, start, SIZE);
	dm_range(dm, start + 2 * SIZE, SIZE);
	dm_add(dm);
	page = pfn_to_page(dm_pfn(dm, range) + dm_n(dm, range) - (1UL << shift));
	get_page(page);
	remove_start(dm, &job);
	KUNIT_EXPECT_EQ(test, wait_for_completion_timeout(&job.done, SETTLE), 0);
	put_page(page);
	job_wait(test, &job);
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

/* What the owner finds: all as it was made, but for what is the owner's */
struct life {
	struct page fresh;
	unsigned long pages;	/* of the folio */
	unsigned long bad;	/* first one that was not restored, + 1 */
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

	for (i = 0; i < life->pages && !life->bad; i++)
		if (!page_is_fresh(page + i, &life->fresh, !i))
			life->bad = i + 1;
}

static struct dm *life_new(struct kunit *test, enum memory_type type,
			   struct life *life)
{
	struct dm *dm = dm_simple(test, type, SIZE);

	life->fresh = *dm_page(dm);
	life->pages = 1;
	life->bad = 0;
	dm->priv = life;
	dm->page_free = life_page_free;
	return dm;
}

/* As an anonymous page, mapped and unmapped again, with all that goes with it */
static void page_soil(struct kunit *test, struct page *page)
{
	struct folio *folio = page_folio(page);

	KUNIT_EXPECT_EQ(test, mem_cgroup_charge(folio, NULL, GFP_KERNEL), 0);
	folio->mapping = (void *)(0x1000 | PAGE_MAPPING_ANON);
	folio->index = 0x1234;
	folio->private = (void *)0x5678;
	SetPageAnonExclusive(page);
	folio_set_swapbacked(folio);
	folio_mark_uptodate(folio);
	folio_set_referenced(folio);
	folio_set_workingset(folio);
	folio_set_active(folio);
	set_bit(PG_dirty, &folio->flags);
	folio_xchg_last_cpupid(folio, 1);
}

static void life_of_page(struct kunit *test, enum memory_type type)
{
	struct life life;
	struct dm *dm = life_new(test, type, &life);
	struct page *page = dm_page(dm) + 3;
	int round;

	for (round = 1; round < 4; round++) {
		page->zone_device_data = &life;
		zone_device_page_init(page);
		KUNIT_EXPECT_EQ(test, page_count(page), 1);
		KUNIT_EXPECT_TRUE(test, PageLocked(page));
		KUNIT_EXPECT_PTR_EQ(test, page->zone_device_data, &life);
		KUNIT_EXPECT_EQ(test, dm_refs(dm), 1);
		page_soil(test, page);
		unlock_page(page);
		get_page(page);
		put_page(page);
		KUNIT_EXPECT_EQ(test, atomic_read(&dm->freed), round - 1);
		put_page(page);
		KUNIT_EXPECT_EQ(test, atomic_read(&dm->freed), round);
		KUNIT_EXPECT_EQ(test, life.bad, 0);
		KUNIT_EXPECT_EQ(test, page_count(page), 0);
		KUNIT_EXPECT_PTR_EQ(test, page->zone_device_data, &life);
		KUNIT_EXPECT_EQ(test, dm_refs(dm), 0);
	}
}

static void life_private(struct kunit *test)
{
	life_of_page(test, MEMORY_DEVICE_PRIVATE);
}

static void life_coherent(struct kunit *test)
{
	life_of_page(test, MEMORY_DEVICE_COHERENT);
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
	struct life life;
	struct dm *dm = life_new(test, MEMORY_DEVICE_PRIVATE, &life);
	unsigned int order, round = 0;

	for (order = 0; order <= 9; order++) {
		struct folio *folio = page_folio(dm_page(dm) + (1UL << order));

		life.pages = 1UL << order;
		folio_in_use(test, dm, folio, order);
		folio_put(folio);
		KUNIT_EXPECT_EQ(test, atomic_read(&dm->freed), ++round);
		KUNIT_EXPECT_EQ_MSG(test, life.bad, 0, "order %u", order);
		KUNIT_EXPECT_EQ(test, dm_refs(dm), 0);
	}
	/* The first page was in none of them */
	KUNIT_EXPECT_TRUE(test, page_is_fresh(dm_page(dm), &life.fresh, false));
}

/*
 * The owner gives a page that comes back to whoever asks next, at once:
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
 */
struct slot {
	struct page *page;
	atomic_t rounds;
	atomic_t spoilt;
};

#define SLOT_ROUNDS	20000
#define SLOT_LOOKS	40

static void slot_page_free(struct dm *dm, struct page *page)
{
	struct slot *slot = dm->priv;

	/* All that was written before; pairs with xchg() in slot_work() */
	smp_store_release(&slot->page, page);
}

static bool slot_spoilt(struct page *page, unsigned long own)
{
	return READ_ONCE(page->index) != own || READ_ONCE(page->private) != ~own ||
	       READ_ONCE(page->mapping) != (void *)(own << 2) ||
	       page_ref_count(page) != 1 ||
	       READ_ONCE(page->zone_device_data) != (void *)own;
}

static void slot_own(struct slot *slot, struct page *page, unsigned long own)
{
	int look;

	zone_device_page_init(page);
	page->zone_device_data = (void *)own;
	page->index = own;
	page->private = ~own;
	page->mapping = (void *)(own << 2);
	set_bit(PG_referenced, &page->flags);
	for (look = 0; look < SLOT_LOOKS; look++) {
		if (slot_spoilt(page, own) || !test_bit(PG_referenced, &page->flags))
			atomic_inc(&slot->spoilt);
		cpu_relax();
	}
	unlock_page(page);
	put_page(page);
}

static void slot_work(void *arg)
{
	unsigned long own = (unsigned long)current;
	struct slot *slot = arg;
	struct page *page;

	while (atomic_inc_return(&slot->rounds) <= SLOT_ROUNDS) {
		while (!(page = xchg(&slot->page, NULL)))
			cond_resched();
		slot_own(slot, page, own++);
	}
}

static void never_written_later(struct kunit *test)
{
	struct dm *dm = dm_simple(test, MEMORY_DEVICE_PRIVATE, SIZE);
	struct slot slot = { .page = dm_page(dm) };
	struct job job[2];
	int i;

	dm->priv = &slot;
	dm->page_free = slot_page_free;
	for (i = 0; i < ARRAY_SIZE(job); i++)
		job_start(test, &job[i], slot_work, &slot);
	for (i = 0; i < ARRAY_SIZE(job); i++)
		job_wait(test, &job[i]);
	KUNIT_EXPECT_EQ(test, atomic_read(&slot.spoilt), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&dm->freed), SLOT_ROUNDS);
	KUNIT_EXPECT_EQ(test, dm_refs(dm), 0);
}

/* ---- FS_DAX ---- */

static void work_wait_idle(void *arg)
{
	struct page *page = arg;

	wait_var_event(&page->_refcount, page_ref_count(page) == 1);
}

/* Truncation is woken by the last put but one */
static void fs_dax_wakes(struct kunit *test)
{
	struct dm *dm = dm_simple(test, MEMORY_DEVICE_FS_DAX, SIZE);
	struct page *page = dm_page(dm);
	struct job job;

	get_page(page);
	get_page(page);
	job_start(test, &job, work_wait_idle, page);
	while (!wait_task_inactive(job.task, TASK_UNINTERRUPTIBLE))
		cond_resched();
	put_page(page);
	KUNIT_EXPECT_EQ(test, wait_for_completion_timeout(&job.done, SETTLE), 0);
	put_page(page);
	if (!wait_for_completion_timeout(&job.done, 5 * HZ)) {
		KUNIT_FAIL(test, "not woken");
		wake_up_var(&page->_refcount);
		wait_for_completion(&job.done);
	}
	KUNIT_EXPECT_EQ(test, page_ref_count(page), 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&dm->freed), 0);
}

/* Others pay nothing while there is no FS_DAX memory */
static void fs_dax_key(struct kunit *test)
{
	int keys = static_key_count(&devmap_managed_key.key);
	struct dm *a = dm_simple(test, MEMORY_DEVICE_FS_DAX, SIZE);
	struct dm *b = dm_simple(test, MEMORY_DEVICE_FS_DAX, SIZE);

	KUNIT_EXPECT_EQ(test, static_key_count(&devmap_managed_key.key), keys + 2);
	dm_simple(test, MEMORY_DEVICE_GENERIC, SIZE);
	KUNIT_EXPECT_EQ(test, static_key_count(&devmap_managed_key.key), keys + 2);
	dm_remove(a);
	KUNIT_EXPECT_EQ(test, static_key_count(&devmap_managed_key.key), keys + 1);
	dm_remove(b);
	KUNIT_EXPECT_EQ(test, static_key_count(&devmap_managed_key.key), keys);
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
	KUNIT_CASE(reuse),
	KUNIT_CASE(first_address),
	KUNIT_CASE(compat_align),
	KUNIT_CASE(lookup),
	KUNIT_CASE(lookup_ranges),
	KUNIT_CASE(lookup_cached),
	KUNIT_CASE(lookup_atomic),
	KUNIT_CASE(lookup_dying),
	KUNIT_CASE(pfn_usable),
	KUNIT_CASE(removal_waits_for_count),
	KUNIT_CASE(removal_waits_for_pages),
	KUNIT_CASE(life_private),
	KUNIT_CASE(life_coherent),
	KUNIT_CASE(life_p2pdma),
	KUNIT_CASE(life_folio),
	KUNIT_CASE(never_written_later),
	KUNIT_CASE(fs_dax_wakes),
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
