// SPDX-License-Identifier: GPL-2.0
/*
 * What device memory costs: to add it and to remove it, for each page
 *
 * Built against any implementation of <linux/memremap.h>, so that two can be laid
 * side by side: nothing but the public interface is used.
 *
 * A call is measured as a whole, with the locks that it takes and the memory that it
 * allocates, and divided by the pages. It sleeps, so that interrupts are on. It waits
 * for grace periods of RCU too; these are short ones, since tests run before the
 * boot is over. A row is the median of B_REPS calls.
 *
 * An emulator counts an instruction that copies a string once for each word, which
 * is 8 for a struct page of 64 bytes.
 */
#include <kunit/test.h>
#include <linux/ioport.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/sizes.h>

#include "bench.h"

#define B_SIZE		SZ_1G
#define B_REPS		9

struct b_row {
	const char *name;
	enum memory_type type;
	unsigned long vmemmap_shift;
};

static const struct b_row b_rows[] = {
	{ "private", MEMORY_DEVICE_PRIVATE },
	{ "coherent", MEMORY_DEVICE_COHERENT },
	{ "generic", MEMORY_DEVICE_GENERIC },
	{ "generic-2m", MEMORY_DEVICE_GENERIC, 9 },
};

static void b_page_free(struct page *page)
{
}

static vm_fault_t b_migrate_to_ram(struct vm_fault *vmf)
{
	return VM_FAULT_SIGBUS;
}

static const struct dev_pagemap_ops b_ops = {
	.page_free	= b_page_free,
	.migrate_to_ram	= b_migrate_to_ram,
};

static void b_row_desc(const struct b_row *row, char *desc)
{
	strscpy(desc, row->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(b_rows, b_rows, b_row_desc);

/* Cycles of one adding and one removal */
static int b_once(struct dev_pagemap *pgmap, u64 *add, u64 *remove)
{
	void *addr;

	b_settle();
	*add = b_cycles();
	addr = memremap_pages(pgmap, 0);
	*add = b_cycles() - *add;
	if (IS_ERR(addr))
		return PTR_ERR(addr);
	b_settle();
	*remove = b_cycles();
	memunmap_pages(pgmap);
	*remove = b_cycles() - *remove;
	return 0;
}

static void b_say_row(struct kunit *test, const char *what, u64 *cycles)
{
	const struct b_row *row = test->param_value;
	char name[64];

	snprintf(name, sizeof(name), "%s-%s", what, row->name);
	b_say(test, name, b_median(cycles, B_REPS), B_SIZE / PAGE_SIZE);
}

static void hotplug(struct kunit *test)
{
	const struct b_row *row = test->param_value;
	struct dev_pagemap *pgmap = kunit_kzalloc(test, sizeof(*pgmap), GFP_KERNEL);
	u64 add[B_REPS], remove[B_REPS];
	struct resource *res;
	int rep, ret = 0;

	KUNIT_ASSERT_NOT_NULL(test, pgmap);
	res = request_free_mem_region(&iomem_resource, B_SIZE, "memremap bench");
	KUNIT_ASSERT_FALSE(test, IS_ERR(res));
	pgmap->type = row->type;
	pgmap->vmemmap_shift = row->vmemmap_shift;
	pgmap->ops = &b_ops;
	pgmap->owner = pgmap;
	pgmap->nr_range = 1;
	pgmap->range.start = res->start;
	pgmap->range.end = res->end;

	for (rep = 0; rep < B_REPS && !ret; rep++)
		ret = b_once(pgmap, &add[rep], &remove[rep]);
	release_mem_region(res->start, resource_size(res));
	KUNIT_ASSERT_EQ(test, ret, 0);
	b_say_row(test, "hot-add", add);
	b_say_row(test, "hot-remove", remove);
}

static struct kunit_case cases[] = {
	KUNIT_CASE_PARAM_ATTR(hotplug, b_rows_gen_params, { .speed = KUNIT_SPEED_SLOW }),
	{}
};

static struct kunit_suite suite = {
	.name = "memremap_bench",
	.test_cases = cases,
};

kunit_test_suite(suite);
