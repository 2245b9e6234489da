// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of DMA mapping: runs, directions, failures, and what is left
 *
 * The device is a fake with DMA operations of its own. They note every mapping
 * ("live"), fail when they are told to, and complain if something is unmapped
 * that is not mapped exactly so. An address is the physical one plus
 * DMA_TEST_OFFSET, so that none is right by chance.
 *
 * Each case runs on an mm of its own, made by kunit_vm_mmap(), with one
 * subscription over all of it. It maps the "test file", whose pages are
 * contiguous, and read-only until somebody asks to write. Page n of the file is
 * at dma_at(n) and has entry n of the map.
 *
 * After each step dma_check() compares what is live with what the map says.
 *
 * Short names: t is the fixture, n a count of pages, idx an entry.
 */
#include <kunit/device.h>
#include <kunit/test.h>
#include <linux/anon_inodes.h>
#include <linux/dma-direct.h>
#include <linux/dma-map-ops.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/hmm.h>
#include <linux/hmm-dma.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/mmu_notifier.h>
#include <linux/pagemap.h>
#include <linux/prandom.h>
#include <linux/sched/mm.h>
#include <linux/sizes.h>
#include <linux/swiotlb.h>

#include "warnings.h"

#define DMA_TEST_BASE		0x40000000UL
#define DMA_TEST_OFFSET		BIT_ULL(45)
#define DMA_TEST_ORDER		6
#define DMA_TEST_NPAGES		BIT(DMA_TEST_ORDER)
/* Collisions may go on for so long; where they end, it is not waited for. */
#define DMA_TEST_TIMEOUT	(10 * HZ)

#define REQ_NONE	0UL
#define REQ_READ	((unsigned long)HMM_PFN_REQ_FAULT)
#define REQ_WRITE	((unsigned long)(HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE))

struct live {
	dma_addr_t addr;
	size_t size;
	enum dma_data_direction dir;
};

struct dma_test {
	struct kunit *test;
	struct device *dev;
	struct device_dma_parameters parms;
	struct hmm_dma_map map;
	bool allocated;

	struct mm_struct *mm;
	struct mmu_interval_notifier sub;
	bool inserted;
	spinlock_t lock;	/* the driver's */
	struct file *file;
	struct page *pages;
	unsigned int collide;	/* so many faults collide */
	unsigned int collide_late;	/* so often, between walk and lock */

	struct live live[DMA_TEST_NPAGES];
	size_t nr_live, nr_maps, nr_wrong;
	size_t fail_at;		/* which call of map_page fails, from 1 on */

	int enter_error;
	size_t nr_enter, nr_drop, drop_first, drop_npages;
};

static unsigned long dma_at(size_t idx)
{
	return DMA_TEST_BASE + idx * PAGE_SIZE;
}

static struct dma_test *dma_of(struct device *dev)
{
	return dev_get_drvdata(dev);
}

/* ---- The DMA operations ---- */

static dma_addr_t dma_test_map_page(struct device *dev, struct page *page,
				    unsigned long offset, size_t size,
				    enum dma_data_direction dir,
				    unsigned long attrs)
{
	struct dma_test *t = dma_of(dev);
	dma_addr_t addr = page_to_phys(page) + offset + DMA_TEST_OFFSET;

	t->nr_maps++;
	if (t->fail_at && !--t->fail_at)
		return DMA_MAPPING_ERROR;
	if (t->nr_live == ARRAY_SIZE(t->live))
		return DMA_MAPPING_ERROR;
	t->live[t->nr_live++] = (struct live) { addr, size, dir };
	return addr;
}

static void dma_test_unmap_page(struct device *dev, dma_addr_t addr, size_t size,
				enum dma_data_direction dir, unsigned long attrs)
{
	struct dma_test *t = dma_of(dev);
	size_t i;

	for (i = 0; i < t->nr_live; i++) {
		struct live *l = &t->live[i];

		if (l->addr != addr || l->size != size || l->dir != dir)
			continue;
		*l = t->live[--t->nr_live];
		return;
	}
	t->nr_wrong++;
}

static const struct dma_map_ops dma_test_dma_ops = {
	.map_page = dma_test_map_page,
	.unmap_page = dma_test_unmap_page,
};

/* ---- The driver ---- */

static void dma_test_collide(struct dma_test *t, size_t idx)
{
	struct mmu_notifier_range range;

	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, t->mm, dma_at(idx),
				dma_at(idx + 1));
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_end(&range);
}

static void dma_test_lock(struct hmm_dma_map *map)
	__acquires(map)
{
	struct dma_test *t = container_of(map, struct dma_test, map);

	if (t->collide_late) {
		t->collide_late--;
		mmap_read_lock(t->mm);
		dma_test_collide(t, 0);
		mmap_read_unlock(t->mm);
	}
	spin_lock(&t->lock);
}

static void dma_test_unlock(struct hmm_dma_map *map)
	__releases(map)
{
	spin_unlock(&container_of(map, struct dma_test, map)->lock);
}

static int dma_test_enter(struct hmm_dma_map *map, size_t first, size_t npages)
{
	struct dma_test *t = container_of(map, struct dma_test, map);

	lockdep_assert_held(&t->lock);
	t->nr_enter++;
	return t->enter_error;
}

static void dma_test_drop(struct hmm_dma_map *map, size_t first, size_t npages)
{
	struct dma_test *t = container_of(map, struct dma_test, map);

	lockdep_assert_held(&t->lock);
	t->nr_drop++;
	t->drop_first = first;
	t->drop_npages = npages;
}

static const struct hmm_dma_ops dma_test_ops = {
	.lock = dma_test_lock,
	.unlock = dma_test_unlock,
	.enter = dma_test_enter,
	.drop = dma_test_drop,
};

static bool dma_test_invalidate(struct mmu_interval_notifier *sub,
				const struct mmu_notifier_range *range,
				unsigned long cur_seq)
{
	struct dma_test *t = container_of(sub, struct dma_test, sub);
	unsigned long start = max(range->start, DMA_TEST_BASE);

	spin_lock(&t->lock);
	mmu_interval_set_seq(sub, cur_seq);
	if (t->allocated && range->end > start)
		hmm_dma_unmap_range(t->dev, &t->map,
				    (start - DMA_TEST_BASE) >> PAGE_SHIFT,
				    (range->end - start) >> PAGE_SHIFT);
	spin_unlock(&t->lock);
	return true;
}

static const struct mmu_interval_notifier_ops dma_test_sub_ops = {
	.invalidate = dma_test_invalidate,
};

/* ---- The test file ---- */

static vm_fault_t dma_file_fault(struct vm_fault *vmf)
{
	struct dma_test *t = vmf->vma->vm_private_data;

	if (t->collide) {
		t->collide--;
		dma_test_collide(t, 0);
	}
	vmf->page = t->pages + vmf->pgoff % DMA_TEST_NPAGES;
	get_page(vmf->page);
	return 0;
}

static vm_fault_t dma_file_mkwrite(struct vm_fault *vmf)
{
	lock_page(vmf->page);
	return VM_FAULT_LOCKED;
}

static const struct vm_operations_struct dma_file_vm_ops = {
	.fault		= dma_file_fault,
	.page_mkwrite	= dma_file_mkwrite,
};

static int dma_file_mmap(struct file *file, struct vm_area_struct *vma)
{
	vma->vm_private_data = file->private_data;
	vma->vm_ops = &dma_file_vm_ops;
	return 0;
}

static const struct file_operations dma_file_ops = {
	.owner	= THIS_MODULE,
	.mmap	= dma_file_mmap,
};

/* Pages [@from, @from + @n) of the file at dma_at(@idx) */
static void dma_mmap(struct dma_test *t, size_t idx, size_t n, size_t from)
{
	unsigned long ret;

	ret = vm_mmap(t->file, dma_at(idx), n * PAGE_SIZE,
		      PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		      from * PAGE_SIZE);
	KUNIT_ASSERT_EQ(t->test, ret, dma_at(idx));
}

/* What the process has written to before */
static void dma_touch(struct dma_test *t, size_t idx)
{
	int ret;

	mmap_read_lock(t->mm);
	ret = fixup_user_fault(t->mm, dma_at(idx), FAULT_FLAG_WRITE, NULL);
	mmap_read_unlock(t->mm);
	KUNIT_ASSERT_EQ(t->test, ret, 0);
}

/* ---- The calls under test ---- */

static const struct live *dma_live_at(struct dma_test *t, dma_addr_t addr)
{
	size_t i;

	for (i = 0; i < t->nr_live; i++)
		if (addr - t->live[i].addr < t->live[i].size)
			return &t->live[i];
	return NULL;
}

static bool dma_mapped(struct dma_test *t, size_t idx)
{
	return t->map.pfn_list[idx] & HMM_PFN_DMA_MAPPED;
}

/* Entry, address and what is live agree. Counts what is mapped. */
static size_t dma_check(struct dma_test *t)
{
	size_t idx, mapped = 0, size = 0;
	const struct live *l;

	for (idx = 0; idx < DMA_TEST_NPAGES; idx++) {
		unsigned long entry = t->map.pfn_list[idx];

		if (!dma_mapped(t, idx)) {
			KUNIT_EXPECT_EQ(t->test, t->map.dma_list[idx],
					DMA_MAPPING_ERROR);
			continue;
		}
		mapped++;
		KUNIT_EXPECT_EQ(t->test, t->map.dma_list[idx],
				page_to_phys(hmm_pfn_to_page(entry)) +
				DMA_TEST_OFFSET);
		l = dma_live_at(t, t->map.dma_list[idx]);
		KUNIT_EXPECT_NOT_NULL(t->test, l);
		if (l)
			KUNIT_EXPECT_EQ(t->test, l->dir, entry & HMM_PFN_WRITE ?
					DMA_BIDIRECTIONAL : DMA_TO_DEVICE);
	}
	for (idx = 0; idx < t->nr_live; idx++)
		size += t->live[idx].size;
	KUNIT_EXPECT_EQ(t->test, size, mapped * PAGE_SIZE);
	KUNIT_EXPECT_EQ(t->test, t->nr_wrong, 0);
	return mapped;
}

static long dma_map_unchecked(struct dma_test *t, size_t idx, size_t n,
			      unsigned long req)
{
	struct hmm_range range = {
		.notifier = &t->sub,
		.start = dma_at(idx),
		.end = dma_at(idx + n),
		.default_flags = req,
	};

	return hmm_dma_map_range(t->dev, &t->map, idx, &range, DMA_TEST_TIMEOUT);
}

static long dma_map(struct dma_test *t, size_t idx, size_t n, unsigned long req)
{
	long ret = dma_map_unchecked(t, idx, n, req);

	dma_check(t);
	return ret;
}

static size_t dma_unmap(struct dma_test *t, size_t idx, size_t n)
{
	size_t ret;

	spin_lock(&t->lock);
	ret = hmm_dma_unmap_range(t->dev, &t->map, idx, n);
	spin_unlock(&t->lock);
	dma_check(t);
	return ret;
}

static void dma_unmap_all(struct dma_test *t)
{
	dma_unmap(t, 0, DMA_TEST_NPAGES);
	KUNIT_EXPECT_EQ(t->test, t->nr_live, 0);
}

static dma_addr_t dma_map_pfn(struct dma_test *t, size_t idx)
{
	dma_addr_t addr;

	spin_lock(&t->lock);
	addr = hmm_dma_map_pfn(t->dev, &t->map, idx, NULL);
	spin_unlock(&t->lock);
	return addr;
}

static bool dma_unmap_pfn(struct dma_test *t, size_t idx)
{
	bool ret;

	spin_lock(&t->lock);
	ret = hmm_dma_unmap_pfn(t->dev, &t->map, idx);
	spin_unlock(&t->lock);
	return ret;
}

static int dma_alloc(struct dma_test *t, size_t entry_size)
{
	int ret;

	ret = hmm_dma_map_alloc(t->dev, &t->map, DMA_TEST_NPAGES, entry_size);
	t->allocated = !ret;
	return ret;
}

/* Anew, for limits that have changed */
static void dma_realloc(struct dma_test *t, size_t entry_size)
{
	dma_unmap_all(t);
	spin_lock(&t->lock);
	t->allocated = false;
	spin_unlock(&t->lock);
	hmm_dma_map_free(t->dev, &t->map);
	KUNIT_ASSERT_EQ(t->test, dma_alloc(t, entry_size), 0);
}

/* ---- Runs ---- */

static void dma_one_run(struct kunit *test)
{
	struct dma_test *t = test->priv;

	KUNIT_EXPECT_EQ(test, dma_map(t, 0, 16, REQ_WRITE), 16);
	KUNIT_ASSERT_EQ(test, t->nr_live, 1);
	KUNIT_EXPECT_EQ(test, t->live[0].size, 16 * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, t->nr_enter, 1);
	dma_unmap_all(t);
}

static void dma_run_limits(struct kunit *test)
{
	struct dma_test *t = test->priv;
	size_t i;

	/* 5, 5, 5, 1; and a boundary behind each eighth page */
	dma_set_max_seg_size(t->dev, 5 * PAGE_SIZE + 1);
	dma_realloc(t, PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, dma_map(t, 0, 16, REQ_READ), 16);
	KUNIT_EXPECT_EQ(test, t->nr_live, 4);
	for (i = 0; i < t->nr_live; i++)
		KUNIT_EXPECT_LE(test, t->live[i].size, 5 * PAGE_SIZE);

	dma_set_max_seg_size(t->dev, UINT_MAX);
	dma_set_seg_boundary(t->dev, 8 * PAGE_SIZE - 1);
	dma_realloc(t, PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, dma_map(t, 3, 16, REQ_READ), 16);
	KUNIT_EXPECT_EQ(test, t->nr_live, 3);
	for (i = 0; i < t->nr_live; i++) {
		dma_addr_t last = t->live[i].addr + t->live[i].size - 1;

		KUNIT_EXPECT_EQ(test, t->live[i].addr / (8 * PAGE_SIZE),
				last / (8 * PAGE_SIZE));
	}
	dma_unmap_all(t);

	/* Less than a page is a page. */
	dma_set_max_seg_size(t->dev, 512);
	dma_realloc(t, PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, dma_map(t, 0, 4, REQ_READ), 4);
	KUNIT_EXPECT_EQ(test, t->nr_live, 4);
	dma_unmap_all(t);
}

static void dma_permission_ends_run(struct kunit *test)
{
	struct dma_test *t = test->priv;
	const struct live *l;

	dma_touch(t, 5);
	KUNIT_EXPECT_EQ(test, dma_map(t, 0, 16, REQ_READ), 16);
	KUNIT_EXPECT_EQ(test, t->nr_live, 3);
	l = dma_live_at(t, t->map.dma_list[5]);
	KUNIT_ASSERT_NOT_NULL(test, l);
	KUNIT_EXPECT_EQ(test, l->dir, DMA_BIDIRECTIONAL);
	KUNIT_EXPECT_EQ(test, l->size, PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, dma_live_at(t, t->map.dma_list[4])->dir, DMA_TO_DEVICE);
	KUNIT_EXPECT_EQ(test, dma_live_at(t, t->map.dma_list[6])->dir, DMA_TO_DEVICE);
	dma_unmap_all(t);
}

static void dma_order_ends_run(struct kunit *test)
{
	struct dma_test *t = test->priv;

	dma_mmap(t, 0, 4, 20);
	dma_mmap(t, 4, 4, 16);
	KUNIT_EXPECT_EQ(test, dma_map(t, 0, 8, REQ_READ), 8);
	KUNIT_EXPECT_EQ(test, t->nr_live, 2);
	dma_unmap_all(t);
}

/* Without a request: what is there, and nothing is faulted in */
static void dma_snapshot(struct kunit *test)
{
	struct dma_test *t = test->priv;

	dma_touch(t, 2);
	dma_touch(t, 3);
	dma_touch(t, 7);
	KUNIT_EXPECT_EQ(test, dma_map(t, 0, 16, REQ_NONE), 3);
	KUNIT_EXPECT_EQ(test, t->nr_live, 2);
	KUNIT_EXPECT_FALSE(test, dma_mapped(t, 1));
	KUNIT_EXPECT_TRUE(test, dma_mapped(t, 2));
	dma_unmap_all(t);
}

/* ---- What goes, and what stays ---- */

static void dma_unmap_takes_run(struct kunit *test)
{
	struct dma_test *t = test->priv;

	KUNIT_EXPECT_EQ(test, dma_map(t, 0, 8, REQ_READ), 8);
	KUNIT_EXPECT_EQ(test, dma_map(t, 8, 8, REQ_READ), 8);
	KUNIT_EXPECT_EQ(test, dma_map(t, 24, 8, REQ_READ), 8);
	KUNIT_EXPECT_EQ(test, t->nr_live, 3);

	KUNIT_EXPECT_TRUE(test, dma_unmap_pfn(t, 11));
	KUNIT_EXPECT_EQ(test, dma_check(t), 16);
	KUNIT_EXPECT_EQ(test, t->nr_drop, 1);
	KUNIT_EXPECT_EQ(test, t->drop_first, 8);
	KUNIT_EXPECT_EQ(test, t->drop_npages, 8);
	KUNIT_EXPECT_FALSE(test, dma_unmap_pfn(t, 11));
	KUNIT_EXPECT_FALSE(test, dma_mapped(t, 15));
	KUNIT_EXPECT_TRUE(test, dma_mapped(t, 7));

	/* From within one run into another, with a gap between them */
	KUNIT_EXPECT_EQ(test, dma_unmap(t, 7, 18), 16);
	KUNIT_EXPECT_EQ(test, t->nr_drop, 2);
	KUNIT_EXPECT_EQ(test, t->drop_first, 0);
	KUNIT_EXPECT_EQ(test, t->drop_npages, 32);
	KUNIT_EXPECT_EQ(test, dma_unmap(t, 0, DMA_TEST_NPAGES), 0);
	KUNIT_EXPECT_EQ(test, dma_unmap(t, DMA_TEST_NPAGES, 1), 0);
	KUNIT_EXPECT_EQ(test, t->nr_drop, 2);
}

static void dma_invalidation_unmaps(struct kunit *test)
{
	struct dma_test *t = test->priv;

	KUNIT_EXPECT_EQ(test, dma_map(t, 0, 8, REQ_WRITE), 8);
	KUNIT_EXPECT_EQ(test, dma_map(t, 8, 8, REQ_WRITE), 8);
	KUNIT_EXPECT_EQ(test, vm_munmap(dma_at(7), PAGE_SIZE), 0);
	KUNIT_EXPECT_EQ(test, dma_check(t), 8);
	KUNIT_EXPECT_TRUE(test, dma_mapped(t, 8));
	KUNIT_EXPECT_EQ(test, dma_map(t, 0, 8, REQ_WRITE), -EFAULT);
	KUNIT_EXPECT_EQ(test, dma_check(t), 8);
	KUNIT_EXPECT_EQ(test, dma_map(t, 0, 7, REQ_WRITE), 7);
	dma_unmap_all(t);
}

static void dma_mapped_is_kept(struct kunit *test)
{
	struct dma_test *t = test->priv;
	size_t maps;

	KUNIT_EXPECT_EQ(test, dma_map(t, 4, 8, REQ_WRITE), 8);
	maps = t->nr_maps;
	KUNIT_EXPECT_EQ(test, dma_map(t, 4, 8, REQ_WRITE), 8);
	KUNIT_EXPECT_EQ(test, dma_map(t, 6, 2, REQ_READ), 2);
	KUNIT_EXPECT_EQ(test, t->nr_maps, maps);

	/* In the middle of the range; it is left as it is */
	KUNIT_EXPECT_EQ(test, dma_map(t, 0, 16, REQ_WRITE), 16);
	KUNIT_EXPECT_EQ(test, t->nr_maps, maps + 2);
	KUNIT_EXPECT_EQ(test, t->nr_drop, 0);
	dma_unmap_all(t);
}

/* Flags in entries are for reading: the walk may have lost or revived them. */
static void dma_flags_not_trusted(struct kunit *test)
{
	struct dma_test *t = test->priv;
	size_t maps;

	KUNIT_EXPECT_EQ(test, dma_map(t, 0, 4, REQ_READ), 4);
	maps = t->nr_maps;
	t->map.pfn_list[1] &= ~(unsigned long)HMM_PFN_DMA_MAPPED;
	KUNIT_EXPECT_EQ(test, dma_map(t, 0, 4, REQ_READ), 4);
	KUNIT_EXPECT_EQ(test, t->nr_maps, maps);

	dma_unmap_all(t);
	t->map.pfn_list[1] |= HMM_PFN_DMA_MAPPED;
	KUNIT_EXPECT_EQ(test, dma_map(t, 0, 4, REQ_READ), 4);
	KUNIT_EXPECT_EQ(test, t->nr_live, 1);
	dma_unmap_all(t);
}

static void dma_upgrade(struct kunit *test)
{
	struct dma_test *t = test->priv;

	KUNIT_EXPECT_EQ(test, dma_map(t, 0, 8, REQ_READ), 8);
	KUNIT_EXPECT_EQ(test, t->live[0].dir, DMA_TO_DEVICE);

	/* All of the run goes; what was asked for comes again. */
	KUNIT_EXPECT_EQ(test, dma_map(t, 3, 1, REQ_WRITE), 1);
	KUNIT_EXPECT_EQ(test, t->nr_drop, 1);
	KUNIT_EXPECT_EQ(test, t->drop_first, 0);
	KUNIT_EXPECT_EQ(test, t->drop_npages, 8);
	KUNIT_EXPECT_EQ(test, dma_check(t), 1);
	KUNIT_EXPECT_EQ(test, t->live[0].dir, DMA_BIDIRECTIONAL);

	KUNIT_EXPECT_EQ(test, dma_map(t, 0, 8, REQ_READ), 8);
	KUNIT_EXPECT_EQ(test, t->nr_live, 3);
	KUNIT_EXPECT_EQ(test, t->nr_drop, 1);
	dma_unmap_all(t);
}

static void dma_dirties_what_is_written(struct kunit *test)
{
	struct dma_test *t = test->priv;
	size_t i;

	dma_touch(t, 5);
	dma_touch(t, 6);
	for (i = 0; i < DMA_TEST_NPAGES; i++)
		ClearPageDirty(t->pages + i);
	KUNIT_EXPECT_EQ(test, dma_map(t, 0, 16, REQ_READ), 16);
	for (i = 0; i < 16; i++)
		KUNIT_EXPECT_FALSE(test, PageDirty(t->pages + i));
	dma_unmap_all(t);
	for (i = 0; i < 16; i++)
		KUNIT_EXPECT_EQ(test, !!PageDirty(t->pages + i),
				i == 5 || i == 6);
}

/* ---- Failures ---- */

/* Two mappings from before, and up to six new ones of which the nth fails */
static void dma_nth_fails(struct kunit *test)
{
	struct dma_test *t = test->priv;
	dma_addr_t before[2];
	size_t nth;
	long ret;

	dma_set_max_seg_size(t->dev, 2 * PAGE_SIZE);
	dma_realloc(t, PAGE_SIZE);
	for (nth = 1; nth < 10; nth++) {
		KUNIT_ASSERT_EQ(test, dma_map(t, 4, 4, REQ_WRITE), 4);
		before[0] = t->map.dma_list[4];
		before[1] = t->map.dma_list[7];
		t->fail_at = nth;
		ret = dma_map(t, 0, 16, REQ_WRITE);
		if (t->fail_at)
			break;
		KUNIT_EXPECT_EQ(test, ret, -ENOMEM);
		KUNIT_EXPECT_EQ(test, dma_check(t), 4);
		KUNIT_EXPECT_EQ(test, t->map.dma_list[4], before[0]);
		KUNIT_EXPECT_EQ(test, t->map.dma_list[7], before[1]);
		KUNIT_EXPECT_EQ(test, t->nr_drop, nth - 1);
		dma_unmap_all(t);
	}
	KUNIT_EXPECT_EQ(test, nth, 7);
	KUNIT_EXPECT_EQ(test, ret, 16);
	t->fail_at = 0;
	dma_unmap_all(t);
}

static void dma_enter_fails(struct kunit *test)
{
	struct dma_test *t = test->priv;

	KUNIT_EXPECT_EQ(test, dma_map(t, 4, 4, REQ_WRITE), 4);
	t->enter_error = -ENOSPC;
	KUNIT_EXPECT_EQ(test, dma_map(t, 0, 16, REQ_WRITE), -ENOSPC);
	KUNIT_EXPECT_EQ(test, dma_check(t), 4);
	t->enter_error = 0;
	KUNIT_EXPECT_EQ(test, dma_map(t, 0, 16, REQ_WRITE), 16);
	dma_unmap_all(t);
}

static void dma_collision(struct kunit *test)
{
	struct dma_test *t = test->priv;

	KUNIT_EXPECT_EQ(test, dma_map(t, 0, 4, REQ_WRITE), 4);
	/* Takes away what was mapped, and that is mapped again. */
	t->collide = 2;
	KUNIT_EXPECT_EQ(test, dma_map(t, 0, 16, REQ_WRITE), 16);
	KUNIT_EXPECT_EQ(test, t->collide, 0);
	KUNIT_EXPECT_EQ(test, t->nr_enter, 2);
	KUNIT_EXPECT_EQ(test, t->nr_drop, 1);
	dma_unmap_all(t);
}

/* Behind the walk, where nothing but the look under the lock finds it */
static void dma_late_collision(struct kunit *test)
{
	struct dma_test *t = test->priv;
	struct hmm_range range = {
		.notifier = &t->sub,
		.start = dma_at(0),
		.end = dma_at(4),
		.default_flags = REQ_READ,
	};

	t->collide_late = 3;
	KUNIT_EXPECT_EQ(test, dma_map(t, 0, 4, REQ_READ), 4);
	KUNIT_EXPECT_EQ(test, t->collide_late, 0);
	KUNIT_EXPECT_EQ(test, t->nr_enter, 1);
	KUNIT_EXPECT_EQ(test, t->nr_maps, 1);
	dma_unmap_all(t);

	/* Without end */
	t->collide_late = UINT_MAX;
	KUNIT_EXPECT_EQ(test, -EBUSY,
			hmm_dma_map_range(t->dev, &t->map, 0, &range, 2));
	t->collide_late = 0;
	KUNIT_EXPECT_EQ(test, dma_check(t), 0);
	KUNIT_EXPECT_EQ(test, t->nr_enter, 1);
}

static void dma_bad_arguments(struct kunit *test)
{
	struct dma_test *t = test->priv;
	struct hmm_range range = {
		.notifier = &t->sub,
		.start = dma_at(0),
		.end = dma_at(4),
	};
	struct hmm_range bad;

#define BAD(idx, member, value) do {					\
	bad = range;							\
	bad.member = value;						\
	KUNIT_EXPECT_EQ(test, -EINVAL, hmm_dma_map_range(t->dev, &t->map, \
							 idx, &bad, 1));	\
} while (0)
	BAD(0, end, dma_at(0));
	BAD(0, end, dma_at(0) - PAGE_SIZE);
	BAD(0, start, dma_at(0) + 1);
	BAD(0, end, dma_at(DMA_TEST_NPAGES + 1));
	BAD(DMA_TEST_NPAGES - 3, end, dma_at(4));
	BAD(DMA_TEST_NPAGES, end, dma_at(4));
	BAD(SIZE_MAX, end, dma_at(4));
	BAD(0, pfn_flags_mask, REQ_READ);
	BAD(0, dev_private_owner, t);
	BAD(0, max_extents, 1);
#undef BAD
	t->map.ops = NULL;
	KUNIT_EXPECT_EQ(test, -EINVAL,
			hmm_dma_map_range(t->dev, &t->map, 0, &range, 1));
	t->map.ops = &dma_test_ops;
	KUNIT_EXPECT_EQ(test, t->nr_maps + t->nr_enter, 0);
}

static void dma_alloc_refuses(struct kunit *test)
{
	struct dma_test *t = test->priv;
	struct hmm_dma_map map = {};

	KUNIT_EXPECT_EQ(test, -EINVAL, hmm_dma_map_alloc(t->dev, &map, 0, PAGE_SIZE));
	KUNIT_EXPECT_EQ(test, -EINVAL, hmm_dma_map_alloc(t->dev, &map, 8, 0));
	KUNIT_EXPECT_EQ(test, -EINVAL, hmm_dma_map_alloc(t->dev, &map, 8, PAGE_SIZE / 2));
	KUNIT_EXPECT_EQ(test, -EINVAL, hmm_dma_map_alloc(t->dev, &map, 9, 3 * PAGE_SIZE));
	KUNIT_EXPECT_EQ(test, -EINVAL, hmm_dma_map_alloc(t->dev, &map, 9, 2 * PAGE_SIZE));

	t->dev->coherent_dma_mask = DMA_BIT_MASK(24);
	KUNIT_EXPECT_EQ(test, -EOPNOTSUPP, hmm_dma_map_alloc(t->dev, &map, 8, PAGE_SIZE));
	t->dev->coherent_dma_mask = DMA_BIT_MASK(64);
	t->dev->bus_dma_limit = DMA_BIT_MASK(24);
	KUNIT_EXPECT_EQ(test, -EOPNOTSUPP, hmm_dma_map_alloc(t->dev, &map, 8, PAGE_SIZE));
	t->dev->bus_dma_limit = 0;
	KUNIT_EXPECT_NULL(test, map.pfn_list);
}

static void dma_forced_bounce_refused(struct kunit *test)
{
#ifdef CONFIG_SWIOTLB
	struct dma_test *t = test->priv;
	struct io_tlb_mem pool = { .force_bounce = true };
	struct io_tlb_mem *old = t->dev->dma_io_tlb_mem;
	struct hmm_dma_map map = {};

	t->dev->dma_io_tlb_mem = &pool;
	KUNIT_EXPECT_EQ(test, -EOPNOTSUPP, hmm_dma_map_alloc(t->dev, &map, 8, PAGE_SIZE));
	t->dev->dma_io_tlb_mem = old;
	KUNIT_EXPECT_EQ(test, 0, hmm_dma_map_alloc(t->dev, &map, 8, PAGE_SIZE));
	hmm_dma_map_free(t->dev, &map);
#else
	kunit_skip(test, "no bounce buffers: CONFIG_SWIOTLB is not set");
#endif
}

/* Memory that was not there when it was asked whether the device can address all */
static void dma_bounce_refused(struct kunit *test)
{
	struct dma_test *t = test->priv;

	set_dma_ops(t->dev, NULL);
	t->dev->bus_dma_limit = DMA_BIT_MASK(PAGE_SHIFT);
	KUNIT_EXPECT_EQ(test, dma_map_unchecked(t, 0, 4, REQ_WRITE), -EOPNOTSUPP);
	KUNIT_EXPECT_EQ(test, t->map.nr_mapped, 0);
	KUNIT_EXPECT_EQ(test, t->nr_enter, 0);
	t->dev->bus_dma_limit = 0;
	KUNIT_EXPECT_EQ(test, dma_map_unchecked(t, 0, 4, REQ_WRITE), 4);
	spin_lock(&t->lock);
	KUNIT_EXPECT_EQ(test, hmm_dma_unmap_range(t->dev, &t->map, 0, 4), 4);
	spin_unlock(&t->lock);
	set_dma_ops(t->dev, &dma_test_dma_ops);
}

/* A boundary is one of the device's addresses, not of the pages' */
static void dma_boundary_of_bus(struct kunit *test)
{
	const struct bus_dma_region regions[] = {
		{ .dma_start = 3 * PAGE_SIZE, .size = DMA_TEST_OFFSET }, { }
	};
	struct dma_test *t = test->priv;
	size_t i, n, left;

	set_dma_ops(t->dev, NULL);
	t->dev->dma_range_map = regions;
	dma_set_seg_boundary(t->dev, 8 * PAGE_SIZE - 1);
	KUNIT_EXPECT_EQ(test, dma_map_unchecked(t, 0, 32, REQ_READ), 32);
	for (i = 0; i < 32; i += left) {
		left = min(32 - i, 8 - PHYS_PFN(t->map.dma_list[i]) % 8);
		spin_lock(&t->lock);
		n = hmm_dma_unmap_range(t->dev, &t->map, i, 1);
		spin_unlock(&t->lock);
		KUNIT_EXPECT_EQ(test, n, left);
	}
	t->dev->dma_range_map = NULL;
	set_dma_ops(t->dev, &dma_test_dma_ops);
}

/* Memory that is one run for the CPU, and far apart on the bus */
static void dma_regions_end_run(struct kunit *test)
{
	struct dma_test *t = test->priv;
	phys_addr_t from = page_to_phys(t->pages), middle = from + 10 * PAGE_SIZE;
	const struct bus_dma_region regions[] = {
		{ .cpu_start = from, .dma_start = SZ_4G, .size = 10 * PAGE_SIZE },
		{ .cpu_start = middle, .dma_start = SZ_8G, .size = SZ_1G }, { }
	};
	size_t i;

	set_dma_ops(t->dev, NULL);
	t->dev->dma_range_map = regions;
	KUNIT_EXPECT_EQ(test, dma_map_unchecked(t, 0, 32, REQ_READ), 32);
	for (i = 0; i < 32; i++)
		KUNIT_EXPECT_EQ(test, t->map.dma_list[i],
				i < 10 ? SZ_4G + i * PAGE_SIZE : SZ_8G + (i - 10) * PAGE_SIZE);
	spin_lock(&t->lock);
	KUNIT_EXPECT_EQ(test, hmm_dma_unmap_range(t->dev, &t->map, 0, 1), 10);
	KUNIT_EXPECT_EQ(test, hmm_dma_unmap_range(t->dev, &t->map, 10, 1), 22);
	spin_unlock(&t->lock);
	t->dev->dma_range_map = NULL;
	set_dma_ops(t->dev, &dma_test_dma_ops);
}

/* A driver that leaves something mapped is told so, and its pages are let go. */
static void dma_free_unmaps(struct kunit *test)
{
	struct dma_test *t = test->priv;

	KUNIT_EXPECT_EQ(test, dma_map(t, 0, 8, REQ_WRITE), 8);
	KUNIT_EXPECT_EQ(test, dma_map(t, 24, 4, REQ_READ), 4);
	KUNIT_EXPECT_EQ(test, t->nr_live, 2);
	ClearPageDirty(t->pages + 1);
	expect_warning_begin(test);
	spin_lock(&t->lock);
	t->allocated = false;
	spin_unlock(&t->lock);
	hmm_dma_map_free(t->dev, &t->map);
	expect_warning_end(test);
	KUNIT_EXPECT_EQ(test, t->nr_live, 0);
	KUNIT_EXPECT_EQ(test, t->nr_wrong, 0);
	KUNIT_EXPECT_FALSE(test, PageDirty(t->pages + 1));
	KUNIT_EXPECT_EQ(test, t->map.nr_entries, 0);
}

/* ---- Single entries ---- */

static void dma_single_entries(struct kunit *test)
{
	struct dma_test *t = test->priv;
	dma_addr_t addr;

	KUNIT_EXPECT_EQ(test, dma_map_pfn(t, 0), DMA_MAPPING_ERROR);
	KUNIT_EXPECT_EQ(test, dma_map_pfn(t, DMA_TEST_NPAGES), DMA_MAPPING_ERROR);

	/* Entries as a walk leaves them: the map has been emptied, they have not. */
	KUNIT_EXPECT_EQ(test, dma_map(t, 0, 4, REQ_READ), 4);
	dma_unmap_all(t);
	t->map.ops = NULL;
	addr = dma_map_pfn(t, 1);
	KUNIT_EXPECT_EQ(test, addr, page_to_phys(t->pages + 1) + DMA_TEST_OFFSET);
	KUNIT_EXPECT_EQ(test, dma_map_pfn(t, 1), addr);
	dma_map_pfn(t, 2);
	KUNIT_EXPECT_EQ(test, dma_check(t), 2);
	KUNIT_EXPECT_EQ(test, t->nr_live, 2);

	/* Another permission */
	t->map.pfn_list[1] |= HMM_PFN_WRITE;
	ClearPageDirty(t->pages + 1);
	KUNIT_EXPECT_EQ(test, dma_map_pfn(t, 1), addr);
	KUNIT_EXPECT_EQ(test, dma_check(t), 2);
	KUNIT_EXPECT_FALSE(test, PageDirty(t->pages + 1));
	KUNIT_EXPECT_TRUE(test, dma_unmap_pfn(t, 1));
	KUNIT_EXPECT_TRUE(test, PageDirty(t->pages + 1));
	KUNIT_EXPECT_FALSE(test, dma_unmap_pfn(t, 1));
	KUNIT_EXPECT_EQ(test, dma_check(t), 1);

	t->fail_at = 1;
	KUNIT_EXPECT_EQ(test, dma_map_pfn(t, 3), DMA_MAPPING_ERROR);
	KUNIT_EXPECT_EQ(test, dma_check(t), 1);
	dma_unmap_all(t);
	t->map.ops = &dma_test_ops;
}

static void dma_blocks(struct kunit *test)
{
	struct dma_test *t = test->priv;

	dma_set_max_seg_size(t->dev, 11 * PAGE_SIZE);
	dma_realloc(t, 4 * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, dma_map(t, 0, 6, REQ_READ), -EINVAL);
	KUNIT_EXPECT_EQ(test, dma_map(t, 2, 4, REQ_READ), -EINVAL);
	KUNIT_EXPECT_EQ(test, dma_map(t, 4, 20, REQ_READ), 20);
	KUNIT_EXPECT_EQ(test, t->nr_live, 3);
	KUNIT_EXPECT_EQ(test, t->live[0].size, 8 * PAGE_SIZE);
	dma_unmap_all(t);
	KUNIT_EXPECT_EQ(test, dma_map_pfn(t, 5), DMA_MAPPING_ERROR);
	KUNIT_EXPECT_NE(test, dma_map_pfn(t, 8), DMA_MAPPING_ERROR);
	KUNIT_EXPECT_EQ(test, dma_check(t), 4);
	dma_unmap_all(t);

	/* Contiguous for two pages only */
	dma_mmap(t, 14, 2, 40);
	KUNIT_EXPECT_EQ(test, dma_map(t, 8, 8, REQ_READ), -EINVAL);
	KUNIT_EXPECT_EQ(test, dma_check(t), 0);
	KUNIT_EXPECT_EQ(test, dma_map_pfn(t, 12), DMA_MAPPING_ERROR);
	dma_unmap_all(t);
}

/* ---- All of it ---- */

static void dma_random(struct kunit *test)
{
	struct dma_test *t = test->priv;
	const unsigned long reqs[] = { REQ_NONE, REQ_READ, REQ_WRITE };
	struct rnd_state rnd;
	size_t idx, n, step;

	prandom_seed_state(&rnd, 20);
	dma_set_max_seg_size(t->dev, 7 * PAGE_SIZE);
	dma_realloc(t, PAGE_SIZE);
	for (step = 0; step < 2000; step++) {
		idx = prandom_u32_state(&rnd) % DMA_TEST_NPAGES;
		n = 1 + prandom_u32_state(&rnd) % (DMA_TEST_NPAGES - idx);
		switch (prandom_u32_state(&rnd) % 6) {
		case 0:
			dma_test_collide(t, idx);
			KUNIT_EXPECT_FALSE(test, dma_mapped(t, idx));
			break;
		case 1:
			dma_unmap(t, idx, min(n, 8));
			KUNIT_EXPECT_FALSE(test, dma_mapped(t, idx));
			break;
		case 2:
			t->fail_at = 1 + prandom_u32_state(&rnd) % 4;
			dma_map(t, idx, n, REQ_READ);
			t->fail_at = 0;
			break;
		case 3:
			/* Read-only once more */
			dma_mmap(t, idx, 1, idx);
			KUNIT_EXPECT_FALSE(test, dma_mapped(t, idx));
			break;
		default:
			dma_map(t, idx, n, reqs[prandom_u32_state(&rnd) % 3]);
		}
		dma_check(t);
	}
	dma_unmap_all(t);
}

/* ---- The fixture ---- */

static int dma_test_device(struct dma_test *t)
{
	t->dev = kunit_device_register(t->test, "hmm_dma");
	if (IS_ERR(t->dev))
		return PTR_ERR(t->dev);
	dev_set_drvdata(t->dev, t);
	set_dma_ops(t->dev, &dma_test_dma_ops);
	t->dev->coherent_dma_mask = DMA_BIT_MASK(64);
	t->dev->dma_parms = &t->parms;
	dma_set_max_seg_size(t->dev, UINT_MAX);
	t->map.ops = &dma_test_ops;
	return dma_alloc(t, PAGE_SIZE);
}

static int dma_test_mm(struct dma_test *t)
{
	unsigned long addr;
	int ret;

	/* Attaches an mm to this thread; the page itself is not wanted. */
	addr = kunit_vm_mmap(t->test, NULL, 0, PAGE_SIZE, PROT_READ,
			     MAP_PRIVATE | MAP_ANONYMOUS, 0);
	if (!addr || IS_ERR_VALUE(addr))
		return -ENOMEM;
	vm_munmap(addr, PAGE_SIZE);
	t->mm = current->mm;
	mmgrab(t->mm);
	ret = mmu_interval_notifier_insert(&t->sub, t->mm, 0,
					   ULONG_MAX & PAGE_MASK,
					   &dma_test_sub_ops);
	t->inserted = !ret;
	return ret;
}

static int dma_test_init(struct kunit *test)
{
	struct dma_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	int ret;

	if (!t)
		return -ENOMEM;
	test->priv = t;
	t->test = test;
	spin_lock_init(&t->lock);
	t->pages = alloc_pages(GFP_USER | __GFP_ZERO, DMA_TEST_ORDER);
	if (!t->pages)
		return -ENOMEM;
	split_page(t->pages, DMA_TEST_ORDER);
	t->file = anon_inode_getfile("[hmm_dma_kunit]", &dma_file_ops, t, O_RDWR);
	if (IS_ERR(t->file)) {
		ret = PTR_ERR(t->file);
		t->file = NULL;
		return ret;
	}
	ret = dma_test_device(t) ?: dma_test_mm(t);
	if (!ret)
		dma_mmap(t, 0, DMA_TEST_NPAGES, 0);
	return ret;
}

/* Runs in another thread, perhaps while the mm is still being torn down. */
static void dma_test_exit(struct kunit *test)
{
	struct dma_test *t = test->priv;
	size_t i;

	if (!t)
		return;
	if (t->inserted)
		mmu_interval_notifier_remove(&t->sub);
	if (t->allocated)
		hmm_dma_map_free(t->dev, &t->map);
	KUNIT_EXPECT_EQ(test, t->nr_live + t->nr_wrong, 0);
	if (t->file)
		fput(t->file);
	for (i = 0; t->pages && i < DMA_TEST_NPAGES; i++)
		put_page(t->pages + i);
	if (t->mm)
		mmdrop(t->mm);
}

static struct kunit_case dma_cases[] = {
	KUNIT_CASE(dma_one_run),
	KUNIT_CASE(dma_run_limits),
	KUNIT_CASE(dma_permission_ends_run),
	KUNIT_CASE(dma_order_ends_run),
	KUNIT_CASE(dma_snapshot),
	KUNIT_CASE(dma_unmap_takes_run),
	KUNIT_CASE(dma_invalidation_unmaps),
	KUNIT_CASE(dma_mapped_is_kept),
	KUNIT_CASE(dma_flags_not_trusted),
	KUNIT_CASE(dma_upgrade),
	KUNIT_CASE(dma_dirties_what_is_written),
	KUNIT_CASE(dma_nth_fails),
	KUNIT_CASE(dma_enter_fails),
	KUNIT_CASE(dma_collision),
	KUNIT_CASE(dma_late_collision),
	KUNIT_CASE(dma_bad_arguments),
	KUNIT_CASE(dma_alloc_refuses),
	KUNIT_CASE(dma_forced_bounce_refused),
	KUNIT_CASE(dma_bounce_refused),
	KUNIT_CASE(dma_boundary_of_bus),
	KUNIT_CASE(dma_regions_end_run),
	KUNIT_CASE(dma_free_unmaps),
	KUNIT_CASE(dma_single_entries),
	KUNIT_CASE(dma_blocks),
	KUNIT_CASE(dma_random),
	{}
};

static struct kunit_suite hmm_dma_suite = {
	.name = "hmm_dma",
	.init = dma_test_init,
	.exit = dma_test_exit,
	.test_cases = dma_cases,
};

kunit_test_suite(hmm_dma_suite);

MODULE_DESCRIPTION("KUnit tests of DMA mapping of HMM ranges");
MODULE_LICENSE("GPL");
