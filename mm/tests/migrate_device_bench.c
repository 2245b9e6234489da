// SPDX-License-Identifier: GPL-2.0
/*
 * What it costs to migrate a page to a device and back
 *
 * Built against any implementation of the device half of <linux/migrate.h>, so that
 * two can be laid side by side: nothing but the public interface is used.
 *
 * Pages are anonymous and mapped once. Only what the kernel does is counted: the
 * driver's part, to allocate and to copy, comes between the counts, and there is no
 * data to copy. Each repetition starts right after a timer tick and ends before the
 * next; the row is the median.
 *
 * A driver that takes a fault of its device and wants the page near may fault it in by
 * hmm_range_fault() and migrate it then. Where MIGRATE_VMA_FAULT is known, that is
 * measured beside it: the same migration, and nothing before.
 */
#include <kunit/test.h>
#include <linux/hmm.h>
#include <linux/ioport.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/mmu_notifier.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>

#include "bench.h"

#define B_BASE		0x40000000UL
#define B_PAGES		512UL	/* a table of PTEs */
#define B_REPS		9
#define B_END		(B_BASE + (B_PAGES << PAGE_SHIFT))

enum { B_SETUP, B_COMMIT, B_FINALIZE, B_STEPS };

static const char * const b_names[2][B_STEPS] = {
	{ "migrate-out-setup", "migrate-out-pages", "migrate-out-finalize" },
	{ "migrate-back-setup", "migrate-back-pages", "migrate-back-finalize" },
};

static struct dev_pagemap b_pgmap;
static struct resource *b_res;
static struct page *b_free;
static unsigned long b_in_use;

static void b_page_free(struct page *page)
{
	page->zone_device_data = b_free;
	b_free = page;
	b_in_use--;
}

/* Pages come home by b_migrate() only */
static vm_fault_t b_to_ram(struct vm_fault *vmf)
{
	return VM_FAULT_SIGBUS;
}

static const struct dev_pagemap_ops b_ops = {
	.page_free	= b_page_free,
	.migrate_to_ram	= b_to_ram,
};

static int b_suite_init(struct kunit_suite *suite)
{
	unsigned long i;
	void *ret;

	b_res = request_free_mem_region(&iomem_resource, B_PAGES << PAGE_SHIFT,
					"migrate_device_bench");
	if (IS_ERR(b_res))
		return PTR_ERR(b_res);
	b_pgmap.type = MEMORY_DEVICE_PRIVATE;
	b_pgmap.range.start = b_res->start;
	b_pgmap.range.end = b_res->end;
	b_pgmap.nr_range = 1;
	b_pgmap.ops = &b_ops;
	b_pgmap.owner = &b_pgmap;
	ret = memremap_pages(&b_pgmap, numa_node_id());
	if (IS_ERR(ret))
		return PTR_ERR(ret);
	b_in_use = B_PAGES;
	for (i = B_PAGES; i--;)
		b_page_free(pfn_to_page(PHYS_PFN(b_res->start) + i));
	return 0;
}

static void b_suite_exit(struct kunit_suite *suite)
{
	if (IS_ERR_OR_NULL(b_res) || b_in_use)
		return;
	memunmap_pages(&b_pgmap);
	release_mem_region(b_res->start, resource_size(b_res));
}

static unsigned long b_supply(bool home)
{
	struct page *page;

	if (home) {
		page = alloc_page(GFP_HIGHUSER_MOVABLE);
		if (page)
			lock_page(page);
	} else {
		page = b_free;
		b_free = page->zone_device_data;
		b_in_use++;
		zone_device_page_init(page);
	}
	return page ? migrate_pfn(page_to_pfn(page)) : 0;
}

static void b_supply_all(struct migrate_vma *m, bool home)
{
	unsigned long n;

	for (n = 0; n < B_PAGES; n++)
		m->dst[n] = b_supply(home);
}

static struct migrate_vma b_args(unsigned long *src, unsigned long *dst,
				 unsigned long flags)
{
	return (struct migrate_vma) {
		.vma = vma_lookup(current->mm, B_BASE),
		.src = src,
		.dst = dst,
		.start = B_BASE,
		.end = B_END,
		.pgmap_owner = &b_pgmap,
		.flags = flags,
	};
}

/* One migration of all pages; what each step costs goes to @cycles */
static void b_migrate(struct kunit *test, unsigned long *src, unsigned long *dst,
		      bool home, u64 *cycles)
{
	struct migrate_vma m = b_args(src, dst, home ? MIGRATE_VMA_SELECT_DEVICE_PRIVATE :
				      MIGRATE_VMA_SELECT_SYSTEM);
	unsigned long n;
	int ret = 0;

	b_after_tick();
	cycles[B_SETUP] = b_count(1, ret = migrate_vma_setup(&m));
	KUNIT_EXPECT_EQ(test, ret, 0);
	KUNIT_EXPECT_EQ(test, m.cpages, B_PAGES);
	b_supply_all(&m, home);
	b_after_tick();
	cycles[B_COMMIT] = b_count(1, migrate_vma_pages(&m));
	for (n = 0; n < B_PAGES; n++)
		KUNIT_EXPECT_TRUE(test, src[n] & MIGRATE_PFN_MIGRATE);
	b_after_tick();
	cycles[B_FINALIZE] = b_count(1, migrate_vma_finalize(&m));
}

static void b_say_way(struct kunit *test, bool home, u64 cycles[B_STEPS][B_REPS])
{
	u64 t, sum = 0;
	int step;

	for (step = 0; step < B_STEPS; step++) {
		t = b_median(cycles[step], B_REPS);
		b_say(test, b_names[home][step], t, B_PAGES);
		sum += t;
	}
	b_say(test, home ? "migrate-back" : "migrate-out", sum, B_PAGES);
}

static void b_map(struct kunit *test)
{
	unsigned long addr;

	addr = kunit_vm_mmap(test, NULL, B_BASE, B_PAGES << PAGE_SHIFT,
			     PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, 0);
	KUNIT_ASSERT_EQ(test, addr, B_BASE);
}

static void b_touch(struct kunit *test)
{
	unsigned long addr = B_BASE;
	int ret = 0;

	b_map(test);
	mmap_read_lock(current->mm);
	for (; addr < B_END && !ret; addr += PAGE_SIZE)
		ret = fixup_user_fault(current->mm, addr, FAULT_FLAG_WRITE, NULL);
	mmap_read_unlock(current->mm);
	KUNIT_ASSERT_EQ(test, ret, 0);
}

static unsigned long *b_array(struct kunit *test)
{
	unsigned long *array = kunit_kcalloc(test, B_PAGES, sizeof(*array), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, array);
	return array;
}

static void there_and_back(struct kunit *test)
{
	unsigned long *src = b_array(test), *dst = b_array(test);
	u64 (*cycles)[B_STEPS][B_REPS];
	u64 now[B_STEPS];
	int rep, home, step;

	cycles = kunit_kcalloc(test, 2, sizeof(*cycles), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, cycles);
	b_touch(test);
	mmap_read_lock(current->mm);
	for (rep = 0; rep < B_REPS; rep++) {
		for (home = 0; home < 2; home++) {
			b_migrate(test, src, dst, home, now);
			for (step = 0; step < B_STEPS; step++)
				cycles[home][step][rep] = now[step];
		}
	}
	mmap_read_unlock(current->mm);
	b_say_way(test, false, cycles[0]);
	b_say_way(test, true, cycles[1]);
}

/* ---- A fault of the device ---- */

static bool b_invalidate(struct mmu_interval_notifier *ini,
			 const struct mmu_notifier_range *range, unsigned long seq)
{
	mmu_interval_set_seq(ini, seq);
	return true;
}

static const struct mmu_interval_notifier_ops b_ini_ops = {
	.invalidate = b_invalidate,
};

/* Cycles until the device has all pages, faulted in by a walk of their own if @ini */
static u64 b_device_fault(struct kunit *test, struct mmu_interval_notifier *ini,
			  unsigned long *src, unsigned long *dst, unsigned long flags)
{
	struct migrate_vma m = b_args(src, dst, MIGRATE_VMA_SELECT_SYSTEM | flags);
	struct hmm_range range = {
		.notifier = ini,
		.start = B_BASE,
		.end = B_END,
		.hmm_pfns = src,
		.default_flags = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE,
	};
	u64 cycles = 0;
	int ret = 0;

	b_after_tick();
	if (ini) {
		range.notifier_seq = mmu_interval_read_begin(ini);
		cycles += b_count(1, ret = hmm_range_fault(&range));
		KUNIT_EXPECT_EQ(test, ret, 0);
	}
	b_after_tick();
	cycles += b_count(1, ret = migrate_vma_setup(&m));
	KUNIT_EXPECT_EQ(test, ret, 0);
	KUNIT_EXPECT_EQ(test, m.cpages, B_PAGES);
	b_supply_all(&m, false);
	b_after_tick();
	cycles += b_count(1, migrate_vma_pages(&m));
	b_after_tick();
	cycles += b_count(1, migrate_vma_finalize(&m));
	return cycles;
}

static void b_device_faults(struct kunit *test, const char *name,
			    struct mmu_interval_notifier *ini, bool touched,
			    unsigned long flags)
{
	unsigned long *src = b_array(test), *dst = b_array(test);
	u64 cycles[B_REPS];
	int rep;

	for (rep = 0; rep < B_REPS; rep++) {
		if (touched)
			b_touch(test);
		else
			b_map(test);
		mmap_read_lock(current->mm);
		cycles[rep] = b_device_fault(test, ini, src, dst, flags);
		mmap_read_unlock(current->mm);
	}
	b_say(test, name, b_median(cycles, B_REPS), B_PAGES);
	vm_munmap(B_BASE, B_PAGES << PAGE_SHIFT);
}

static void device_fault(struct kunit *test)
{
	struct mmu_interval_notifier *ini = kunit_kzalloc(test, sizeof(*ini), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, ini);
	b_map(test);
	KUNIT_ASSERT_EQ(test, mmu_interval_notifier_insert(ini, current->mm, B_BASE,
							   B_PAGES << PAGE_SHIFT,
							   &b_ini_ops), 0);
	b_device_faults(test, "device-fault-two-walks", ini, false, 0);
	b_device_faults(test, "device-fault-present-two-walks", ini, true, 0);
#ifdef MIGRATE_VMA_FAULT
	b_device_faults(test, "device-fault-one-walk", NULL, false, MIGRATE_VMA_FAULT);
	b_device_faults(test, "device-fault-present-one-walk", NULL, true,
			MIGRATE_VMA_FAULT);
#endif
	mmu_interval_notifier_remove(ini);
}

static struct kunit_case bench_cases[] = {
	KUNIT_CASE(there_and_back),
	KUNIT_CASE(device_fault),
	{}
};

static struct kunit_suite bench_suite = {
	.name = "migrate_device_bench",
	.suite_init = b_suite_init,
	.suite_exit = b_suite_exit,
	.test_cases = bench_cases,
};

kunit_test_suite(bench_suite);

MODULE_DESCRIPTION("Benchmarks of migration to and from devices");
MODULE_LICENSE("GPL");
