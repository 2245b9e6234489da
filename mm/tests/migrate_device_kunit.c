// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of migration between system and device memory
 *
 * There are two devices, each with device-private memory of its own; what a CPU
 * cannot reach is kept in a buffer beside it. Their driver is the shortest that
 * there can be. Each case has an mm of its own, attached to its thread, and an
 * interval subscription that writes down what it is told; the thread works on the
 * memory by copy_to_user() and copy_from_user(), and processes by forking itself.
 *
 * Whatever a case does, in the end it unmaps its memory, and then no device page is
 * in use any more and the counters of the mm are what they were (md_done()).
 *
 * Short names: t is the fixture, m one migration, i and n pages.
 */
#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/highmem.h>
#include <linux/huge_mm.h>
#include <linux/kcsan-checks.h>
#include <linux/kthread.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/mmu_notifier.h>
#include <linux/rmap.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/shmem_fs.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <linux/wait.h>

#include <trace/events/migrate_device.h>

#include "../internal.h"

#define MD_BASE		0x40000000UL
#define MD_AT(i)	(MD_BASE + ((unsigned long)(i) << PAGE_SHIFT))
#define MD_PAGES	1024UL	/* of each device */
#define MD_CAP		MD_PAGES	/* entries of the arrays */
#define MD_GARBAGE	(~0UL / 0xff * 0xa7)
#define MD_TIMEOUT	(60 * HZ)

#define MD_SYSTEM	MIGRATE_VMA_SELECT_SYSTEM
#define MD_PRIVATE	MIGRATE_VMA_SELECT_DEVICE_PRIVATE

struct md_dev {
	struct dev_pagemap pgmap;
	struct resource *res;
	char *data;
	spinlock_t lock;	/* of the free list */
	struct page *free;
	atomic_long_t in_use, faults, futile;
};

static struct md_dev md_devs[2];

struct md {
	struct kunit *test;
	struct mm_struct *mm;
	struct mmu_interval_notifier ni;
	bool inserted;
	unsigned long src[MD_CAP], dst[MD_CAP];
	/* What a case does to a migration after setup, and after the new pages */
	void (*after_setup)(struct md *t, struct migrate_vma *m);
	void (*after_pages)(struct md *t, struct migrate_vma *m);
	unsigned long arg;
	/* Told of, under the lock */
	spinlock_t lock;
	unsigned long nr_migrate, nr_other, nr_ownerless, told_start, told_end;
	void *told_owner;
	char page[PAGE_SIZE];
};

/* ---- The devices ---- */

static char *md_data(struct page *page)
{
	struct md_dev *dev = container_of(page->pgmap, struct md_dev, pgmap);

	return dev->data + ((page_to_pfn(page) - PHYS_PFN(dev->res->start)) << PAGE_SHIFT);
}

static void md_page_free(struct page *page)
{
	struct md_dev *dev = container_of(page->pgmap, struct md_dev, pgmap);
	unsigned long flags;

	spin_lock_irqsave(&dev->lock, flags);
	page->zone_device_data = dev->free;
	dev->free = page;
	spin_unlock_irqrestore(&dev->lock, flags);
	atomic_long_dec(&dev->in_use);
}

static struct page *md_alloc(struct md_dev *dev)
{
	unsigned long flags;
	struct page *page;

	spin_lock_irqsave(&dev->lock, flags);
	page = dev->free;
	if (page)
		dev->free = page->zone_device_data;
	spin_unlock_irqrestore(&dev->lock, flags);
	if (page) {
		atomic_long_inc(&dev->in_use);
		zone_device_page_init(page);
	}
	return page;
}

static void md_copy(struct page *to, struct page *from)
{
	char *dst = is_device_private_page(to) ? md_data(to) : kmap_local_page(to);

	if (!from)
		memset(dst, 0, PAGE_SIZE);
	else if (is_device_private_page(from))
		memcpy(dst, md_data(from), PAGE_SIZE);
	else
		memcpy_from_page(dst, from, 0, PAGE_SIZE);
	if (!is_device_private_page(to))
		kunmap_local(dst);
}

/* Pages fresh from the allocator that somebody has locked; md_done() looks at it */
static atomic_long_t md_stale_locks;

static struct page *md_alloc_system(void)
{
	struct page *page = alloc_page(GFP_HIGHUSER_MOVABLE);

	if (!page || trylock_page(page))
		return page;
	/* Left alone: nobody knows what else is wrong with it */
	atomic_long_inc(&md_stale_locks);
	return NULL;
}

/* New pages for all that can be migrated: of @dev, or of the system */
static void md_supply(struct md_dev *dev, unsigned long *src, unsigned long *dst,
		      unsigned long n)
{
	struct page *new;
	unsigned long i;

	for (i = 0; i < n; i++) {
		if (!(src[i] & MIGRATE_PFN_MIGRATE))
			continue;
		new = dev ? md_alloc(dev) : md_alloc_system();
		if (!new)
			continue;
		md_copy(new, migrate_pfn_to_page(src[i]));
		dst[i] = migrate_pfn(page_to_pfn(new));
	}
}

static unsigned long md_moved(const unsigned long *src, unsigned long n)
{
	unsigned long i, moved = 0;

	for (i = 0; i < n; i++)
		moved += !!(src[i] & MIGRATE_PFN_MIGRATE);
	return moved;
}

static vm_fault_t md_to_ram(struct vm_fault *vmf)
{
	struct md_dev *dev = container_of(vmf->page->pgmap, struct md_dev, pgmap);
	unsigned long src = MD_GARBAGE, dst = MD_GARBAGE;
	struct migrate_vma m = {
		.vma = vmf->vma,
		.src = &src,
		.dst = &dst,
		.start = vmf->address & PAGE_MASK,
		.end = (vmf->address & PAGE_MASK) + PAGE_SIZE,
		.pgmap_owner = dev,
		.flags = MD_PRIVATE,
		.fault_page = vmf->page,
	};

	atomic_long_inc(&dev->faults);
	if (migrate_vma_setup(&m))
		return VM_FAULT_SIGBUS;
	if (!m.cpages) {
		atomic_long_inc(&dev->futile);
		return 0;
	}
	md_supply(NULL, &src, &dst, 1);
	migrate_vma_pages(&m);
	if (!(src & MIGRATE_PFN_MIGRATE))
		atomic_long_inc(&dev->futile);
	migrate_vma_finalize(&m);
	return 0;
}

static const struct dev_pagemap_ops md_ops = {
	.page_free	= md_page_free,
	.migrate_to_ram	= md_to_ram,
};

static int md_dev_add(struct md_dev *dev)
{
	unsigned long i;
	void *ret;

	memset(dev, 0, sizeof(*dev));
	spin_lock_init(&dev->lock);
	dev->data = vzalloc(MD_PAGES << PAGE_SHIFT);
	if (!dev->data)
		return -ENOMEM;
	dev->res = request_free_mem_region(&iomem_resource, MD_PAGES << PAGE_SHIFT,
					   "migrate_device_kunit");
	if (IS_ERR(dev->res))
		return PTR_ERR(dev->res);
	dev->pgmap.type = MEMORY_DEVICE_PRIVATE;
	dev->pgmap.range.start = dev->res->start;
	dev->pgmap.range.end = dev->res->end;
	dev->pgmap.nr_range = 1;
	dev->pgmap.ops = &md_ops;
	dev->pgmap.owner = dev;
	ret = memremap_pages(&dev->pgmap, numa_node_id());
	if (IS_ERR(ret))
		return PTR_ERR(ret);
	atomic_long_set(&dev->in_use, MD_PAGES);
	for (i = MD_PAGES; i--;)
		md_page_free(pfn_to_page(PHYS_PFN(dev->res->start) + i));
	return 0;
}

static int md_suite_init(struct kunit_suite *suite)
{
	return md_dev_add(&md_devs[0]) ?: md_dev_add(&md_devs[1]);
}

static void md_suite_exit(struct kunit_suite *suite)
{
	struct md_dev *dev;
	int tries;

	for (dev = md_devs; dev < md_devs + ARRAY_SIZE(md_devs); dev++) {
		if (IS_ERR_OR_NULL(dev->res))
			continue;
		/* The mm of the last case may still be on its way out */
		for (tries = 500; atomic_long_read(&dev->in_use) && tries; tries--)
			msleep(20);
		if (!tries) {
			kunit_err(suite, "device pages leaked: the region stays\n");
			continue;
		}
		memunmap_pages(&dev->pgmap);
		release_mem_region(dev->res->start, resource_size(dev->res));
		vfree(dev->data);
	}
}

/* ---- The fixture ---- */

static bool md_invalidate(struct mmu_interval_notifier *ni,
			  const struct mmu_notifier_range *range,
			  unsigned long cur_seq)
{
	struct md *t = container_of(ni, struct md, ni);

	spin_lock(&t->lock);
	mmu_interval_set_seq(ni, cur_seq);
	if (range->event == MMU_NOTIFY_MIGRATE) {
		t->nr_migrate++;
		t->nr_ownerless += !range->owner;
		t->told_owner = range->owner;
		t->told_start = range->start;
		t->told_end = range->end;
	} else {
		t->nr_other++;
	}
	spin_unlock(&t->lock);
	return true;
}

static const struct mmu_interval_notifier_ops md_ni_ops = {
	.invalidate = md_invalidate,
};

static int md_init(struct kunit *test)
{
	struct md *t = vzalloc(sizeof(*t));
	unsigned long addr;
	int ret;

	if (!t)
		return -ENOMEM;
	test->priv = t;
	t->test = test;
	spin_lock_init(&t->lock);
	/* Attaches an mm to this thread; the page itself is not wanted */
	addr = kunit_vm_mmap(test, NULL, 0, PAGE_SIZE, PROT_READ,
			     MAP_PRIVATE | MAP_ANONYMOUS, 0);
	if (!addr || IS_ERR_VALUE(addr))
		return -ENOMEM;
	vm_munmap(addr, PAGE_SIZE);
	t->mm = current->mm;
	mmgrab(t->mm);
	ret = mmu_interval_notifier_insert(&t->ni, t->mm, 0, ULONG_MAX & PAGE_MASK,
					   &md_ni_ops);
	t->inserted = !ret;
	return ret;
}

static void md_exit(struct kunit *test)
{
	struct md *t = test->priv;

	if (!t)
		return;
	if (t->inserted)
		mmu_interval_notifier_remove(&t->ni);
	if (t->mm)
		mmdrop(t->mm);
	vfree(t);
}

static void md_map(struct md *t, unsigned long n, unsigned long prot)
{
	unsigned long ret;

	ret = vm_mmap(NULL, MD_BASE, n << PAGE_SHIFT, prot,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, 0);
	KUNIT_ASSERT_EQ(t->test, ret, MD_BASE);
}

/* Page @i as it has been written the @k-th time */
static void md_pattern(char *page, unsigned long i, unsigned int k)
{
	u32 *word = (u32 *)page, x = i * 2654435761u + k * 40503u + 1;
	int w;

	for (w = 0; w < PAGE_SIZE / sizeof(*word); w++) {
		x = x * 1664525u + 1013904223u;
		word[w] = x;
	}
}

static void md_write(struct md *t, unsigned long i, unsigned long n, unsigned int k)
{
	for (; n--; i++) {
		md_pattern(t->page, i, k);
		if (copy_to_user((void __user *)MD_AT(i), t->page, PAGE_SIZE))
			KUNIT_FAIL(t->test, "cannot write page %lu", i);
	}
}

/* How many of the pages are not as they have been written */
static unsigned long md_wrong(unsigned long i, unsigned long n, unsigned int k)
{
	char *two = kmalloc(2 * PAGE_SIZE, GFP_KERNEL);
	unsigned long wrong = 0;

	if (!two)
		return n;
	for (; n--; i++) {
		md_pattern(two, i, k);
		wrong += copy_from_user(two + PAGE_SIZE, (void __user *)MD_AT(i),
					PAGE_SIZE) ||
			 memcmp(two, two + PAGE_SIZE, PAGE_SIZE);
	}
	kfree(two);
	return wrong;
}

static void md_check(struct md *t, unsigned long i, unsigned long n, unsigned int k)
{
	KUNIT_EXPECT_EQ(t->test, md_wrong(i, n, k), 0);
}

static void md_check_zero(struct md *t, unsigned long i, unsigned long n)
{
	for (; n--; i++) {
		if (copy_from_user(t->page, (void __user *)MD_AT(i), PAGE_SIZE) ||
		    memchr_inv(t->page, 0, PAGE_SIZE))
			KUNIT_FAIL(t->test, "page %lu is not zero", i);
	}
}

static pte_t md_pte(struct md *t, unsigned long i)
{
	pmd_t *pmd = pmd_off(t->mm, MD_AT(i));
	spinlock_t *ptl; /* of the table */
	pte_t *ptep, pte;

	ptep = pte_offset_map_lock(t->mm, pmd, MD_AT(i), &ptl);
	if (!ptep)
		return __pte(0);
	pte = ptep_get(ptep);
	pte_unmap_unlock(ptep, ptl);
	return pte;
}

/* Put an entry there that only differs in bits that are nobody else's business */
static void md_set_pte(struct md *t, unsigned long i, pte_t pte)
{
	pmd_t *pmd = pmd_off(t->mm, MD_AT(i));
	spinlock_t *ptl; /* of the table */
	pte_t *ptep = pte_offset_map_lock(t->mm, pmd, MD_AT(i), &ptl);

	KUNIT_ASSERT_NOT_NULL(t->test, ptep);
	set_pte_at(t->mm, MD_AT(i), ptep, pte);
	flush_tlb_page(vma_lookup(t->mm, MD_AT(i)), MD_AT(i));
	pte_unmap_unlock(ptep, ptl);
}

static bool md_on_device(struct md *t, unsigned long i)
{
	pte_t pte = md_pte(t, i);

	return is_swap_pte(pte) && is_device_private_entry(pte_to_swp_entry(pte));
}

/* May the device write to it, where the CPU has only an entry for the device? */
static bool md_device_writes(struct md *t, unsigned long i)
{
	return is_writable_device_private_entry(pte_to_swp_entry(md_pte(t, i)));
}

static unsigned long md_nr_on_device(struct md *t, unsigned long i, unsigned long n)
{
	unsigned long found = 0;

	for (; n--; i++)
		found += md_on_device(t, i);
	return found;
}

/* The page of a present entry, with a reference */
static struct page *md_page(struct md *t, unsigned long i)
{
	pte_t pte = md_pte(t, i);
	struct page *page;

	KUNIT_ASSERT_TRUE(t->test, pte_present(pte));
	page = pte_page(pte);
	get_page(page);
	return page;
}

static struct migrate_vma md_args(struct md *t, struct md_dev *dev,
				  unsigned long i, unsigned long n,
				  unsigned long flags)
{
	memset(t->src, 0xa7, sizeof(t->src));
	memset(t->dst, 0xa7, sizeof(t->dst));
	return (struct migrate_vma) {
		.vma = vma_lookup(t->mm, MD_AT(i)),
		.src = t->src,
		.dst = t->dst,
		.start = MD_AT(i),
		.end = MD_AT(i + n),
		.cpages = MD_GARBAGE,
		.npages = MD_GARBAGE,
		.pgmap_owner = dev,
		.flags = flags,
	};
}

/* All of a migration, to @to or, if that is NULL, to the system. How many moved. */
static unsigned long md_migrate(struct md *t, struct md_dev *owner,
				struct md_dev *to, unsigned long i,
				unsigned long n, unsigned long flags)
{
	unsigned long moved = 0;
	struct migrate_vma m;

	mmap_read_lock(t->mm);
	m = md_args(t, owner, i, n, flags);
	KUNIT_EXPECT_EQ(t->test, migrate_vma_setup(&m), 0);
	KUNIT_EXPECT_EQ(t->test, m.npages, n);
	KUNIT_EXPECT_EQ(t->test, m.cpages, md_moved(t->src, n));
	if (m.cpages) {
		if (t->after_setup)
			t->after_setup(t, &m);
		md_supply(to, m.src, m.dst, n);
		migrate_vma_pages(&m);
		moved = md_moved(m.src, n);
		if (t->after_pages)
			t->after_pages(t, &m);
		migrate_vma_finalize(&m);
	}
	mmap_read_unlock(t->mm);
	return moved;
}

static unsigned long md_go(struct md *t, unsigned long i, unsigned long n)
{
	return md_migrate(t, &md_devs[0], &md_devs[0], i, n, MD_SYSTEM);
}

static unsigned long md_home(struct md *t, unsigned long i, unsigned long n)
{
	return md_migrate(t, &md_devs[0], NULL, i, n, MD_PRIVATE);
}

static void md_untold(struct md *t)
{
	t->nr_migrate = 0;
	t->nr_other = 0;
}

/* All that a case has mapped goes; nothing may be left of it */
static void md_done(struct md *t)
{
	KUNIT_EXPECT_EQ(t->test, vm_munmap(MD_BASE, MD_CAP << PAGE_SHIFT), 0);
	KUNIT_EXPECT_EQ(t->test, atomic_long_read(&md_devs[0].in_use), 0);
	KUNIT_EXPECT_EQ(t->test, atomic_long_read(&md_devs[1].in_use), 0);
	KUNIT_EXPECT_EQ(t->test, get_mm_counter_sum(t->mm, MM_ANONPAGES), 0);
	KUNIT_EXPECT_EQ(t->test, atomic_long_xchg(&md_stale_locks, 0), 0);
}

/* ---- There and back ---- */

static void md_test_round_trip(struct kunit *test)
{
	struct md *t = test->priv;
	unsigned long i, n = 600;

	/* More than a table, and not aligned to one */
	md_map(t, MD_CAP, PROT_READ | PROT_WRITE);
	md_write(t, 100, n, 1);
	KUNIT_EXPECT_EQ(test, md_go(t, 100, n), n);
	for (i = 0; i < n; i++)
		KUNIT_EXPECT_EQ(test, t->src[i] & 0xb, MIGRATE_PFN_VALID |
				MIGRATE_PFN_MIGRATE | MIGRATE_PFN_WRITE);
	KUNIT_EXPECT_EQ(test, md_nr_on_device(t, 0, MD_CAP), n);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&md_devs[0].in_use), n);
	KUNIT_EXPECT_EQ(test, get_mm_counter_sum(t->mm, MM_ANONPAGES), n);
	KUNIT_EXPECT_EQ(test, md_home(t, 100, n), n);
	KUNIT_EXPECT_EQ(test, md_nr_on_device(t, 0, MD_CAP), 0);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&md_devs[0].in_use), 0);
	KUNIT_EXPECT_EQ(test, get_mm_counter_sum(t->mm, MM_ANONPAGES), n);
	md_check(t, 100, n, 1);
	/* They are writable without a fault, and can go again */
	md_write(t, 100, n, 2);
	KUNIT_EXPECT_EQ(test, md_go(t, 100, n), n);
	md_check(t, 100, n, 2);
	md_done(t);
}

/* The CPU touches pages on the device, first to write */
static void md_test_cpu_fault(struct kunit *test)
{
	struct md *t = test->priv;
	long before = atomic_long_read(&md_devs[0].faults);

	md_map(t, 64, PROT_READ | PROT_WRITE);
	md_write(t, 0, 64, 1);
	KUNIT_EXPECT_EQ(test, md_go(t, 0, 64), 64);
	md_write(t, 0, 32, 2);
	md_check(t, 32, 32, 1);
	md_check(t, 0, 32, 2);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&md_devs[0].faults) - before, 64);
	KUNIT_EXPECT_EQ(test, md_nr_on_device(t, 0, 64), 0);
	md_done(t);
}

/* Holes and the zero page get new pages, writable if the VMA is */
static void md_test_holes(struct kunit *test)
{
	struct md *t = test->priv;
	unsigned long i;

	/* Page 1020 on are in another table, that is not there */
	md_map(t, MD_CAP, PROT_READ | PROT_WRITE);
	md_write(t, 3, 1, 1);
	md_check_zero(t, 5, 1);
	KUNIT_EXPECT_TRUE(test, is_zero_pfn(pte_pfn(md_pte(t, 5))));
	KUNIT_EXPECT_EQ(test, md_go(t, 0, 8), 8);
	for (i = 0; i < 8; i++) {
		KUNIT_EXPECT_EQ(test, !!(t->src[i] & MIGRATE_PFN_VALID), i == 3);
		KUNIT_EXPECT_TRUE(test, md_on_device(t, i));
		KUNIT_EXPECT_TRUE(test, md_device_writes(t, i));
	}
	KUNIT_EXPECT_EQ(test, md_go(t, 1000, 24), 24);
	KUNIT_EXPECT_EQ(test, get_mm_counter_sum(t->mm, MM_ANONPAGES), 32);
	md_check_zero(t, 0, 3);
	md_check(t, 3, 1, 1);
	md_check_zero(t, 4, 4);
	md_check_zero(t, 1000, 24);
	md_done(t);

	md_map(t, 8, PROT_READ);
	KUNIT_EXPECT_EQ(test, md_go(t, 0, 8), 8);
	for (i = 0; i < 8; i++)
		KUNIT_EXPECT_FALSE(test, md_device_writes(t, i));
	md_check_zero(t, 0, 8);
	md_done(t);
}

/* A system page, too, can be supplied for a hole */
static void md_test_hole_system_page(struct kunit *test)
{
	struct md *t = test->priv;

	md_map(t, 8, PROT_READ | PROT_WRITE);
	md_check_zero(t, 1, 1);
	KUNIT_EXPECT_EQ(test, md_migrate(t, NULL, NULL, 0, 8, MD_SYSTEM), 8);
	KUNIT_EXPECT_EQ(test, get_mm_counter_sum(t->mm, MM_ANONPAGES), 8);
	KUNIT_EXPECT_TRUE(test, pte_write(md_pte(t, 0)));
	KUNIT_EXPECT_TRUE(test, pte_write(md_pte(t, 1)));
	md_check_zero(t, 0, 8);
	md_write(t, 0, 8, 1);
	KUNIT_EXPECT_EQ(test, md_go(t, 0, 8), 8);
	md_check(t, 0, 8, 1);
	md_done(t);
}

/* ---- Pages that stay ---- */

/* Pages 1, 3 and 5 of 8 cannot go; the others do, and nobody but MIGRATE is told */
static void md_stay(struct md *t, unsigned long reason)
{
	unsigned long i;

	md_untold(t);
	KUNIT_EXPECT_EQ(t->test, md_go(t, 0, 8), 5);
	KUNIT_EXPECT_EQ(t->test, t->nr_other, 0);
	for (i = 0; i < 8; i++) {
		bool stays = i == 1 || i == 3 || i == 5;

		KUNIT_EXPECT_EQ(t->test, md_on_device(t, i), !stays);
		if (!stays)
			continue;
		KUNIT_EXPECT_EQ(t->test, t->src[i], 0);
		KUNIT_EXPECT_TRUE(t->test, pte_present(md_pte(t, i)));
		KUNIT_EXPECT_TRUE(t->test, pte_write(md_pte(t, i)));
	}
}

static void md_test_referenced(struct kunit *test)
{
	struct md *t = test->priv;
	struct page *pages[3];
	int i;

	md_map(t, 8, PROT_READ | PROT_WRITE);
	md_write(t, 0, 8, 1);
	for (i = 0; i < 3; i++)
		pages[i] = md_page(t, 2 * i + 1);
	md_stay(t, 0);
	for (i = 0; i < 3; i++)
		put_page(pages[i]);
	KUNIT_EXPECT_EQ(test, md_go(t, 0, 8), 3);
	md_check(t, 0, 8, 1);
	md_done(t);
}

static void md_test_pinned(struct kunit *test)
{
	struct md *t = test->priv;
	struct page *pages[3];
	int i;

	md_map(t, 8, PROT_READ | PROT_WRITE);
	md_write(t, 0, 8, 1);
	for (i = 0; i < 3; i++)
		KUNIT_ASSERT_EQ(test, pin_user_pages_fast(MD_AT(2 * i + 1), 1,
							  FOLL_WRITE, &pages[i]), 1);
	md_stay(t, 0);
	/* What is pinned is what is mapped */
	for (i = 0; i < 3; i++) {
		KUNIT_EXPECT_EQ(test, pte_pfn(md_pte(t, 2 * i + 1)),
				page_to_pfn(pages[i]));
		unpin_user_page(pages[i]);
	}
	KUNIT_EXPECT_EQ(test, md_go(t, 0, 8), 3);
	md_check(t, 0, 8, 1);
	md_done(t);
}

static void md_test_locked(struct kunit *test)
{
	struct md *t = test->priv;
	struct page *pages[3];
	int i;

	md_map(t, 8, PROT_READ | PROT_WRITE);
	md_write(t, 0, 8, 1);
	for (i = 0; i < 3; i++) {
		pages[i] = md_page(t, 2 * i + 1);
		lock_page(pages[i]);
		put_page(pages[i]);
	}
	md_stay(t, 0);
	for (i = 0; i < 3; i++)
		unlock_page(pages[i]);
	md_check(t, 0, 8, 1);
	md_done(t);
}

/* Somebody else has taken them off their LRU list */
static void md_test_isolated(struct kunit *test)
{
	struct md *t = test->priv;
	struct page *pages[3];
	int i;

	md_map(t, 8, PROT_READ | PROT_WRITE);
	md_write(t, 0, 8, 1);
	lru_add_drain_all();
	for (i = 0; i < 3; i++) {
		pages[i] = md_page(t, 2 * i + 1);
		KUNIT_EXPECT_TRUE(test, folio_isolate_lru(page_folio(pages[i])));
		put_page(pages[i]);
	}
	md_stay(t, 0);
	for (i = 0; i < 3; i++)
		folio_putback_lru(page_folio(pages[i]));
	md_check(t, 0, 8, 1);
	md_done(t);
}

/* None can go: nothing is held afterwards, though finalize is not called */
static void md_test_none_can(struct kunit *test)
{
	struct md *t = test->priv;
	struct page *pages[4];
	int i;

	md_map(t, 4, PROT_READ | PROT_WRITE);
	md_write(t, 0, 4, 1);
	for (i = 0; i < 4; i++)
		pages[i] = md_page(t, i);
	KUNIT_EXPECT_EQ(test, md_go(t, 0, 4), 0);
	lru_add_drain_all();
	for (i = 0; i < 4; i++) {
		KUNIT_EXPECT_FALSE(test, PageLocked(pages[i]));
		KUNIT_EXPECT_TRUE(test, PageLRU(pages[i]));
		KUNIT_EXPECT_EQ(test, page_count(pages[i]), 2);
		KUNIT_EXPECT_EQ(test, folio_mapcount(page_folio(pages[i])), 1);
		put_page(pages[i]);
	}
	md_check(t, 0, 4, 1);
	md_done(t);
}

static struct page *md_sneaked;

/* A reference that comes after the page has been collected */
static void md_sneak_reference(struct md *t, struct migrate_vma *m)
{
	md_sneaked = migrate_pfn_to_page(m->src[t->arg]);
	get_page(md_sneaked);
}

static void md_test_late_reference(struct kunit *test)
{
	struct md *t = test->priv;

	md_map(t, 8, PROT_READ | PROT_WRITE);
	md_write(t, 0, 8, 1);
	t->after_setup = md_sneak_reference;
	t->arg = 2;
	KUNIT_EXPECT_EQ(test, md_go(t, 0, 8), 7);
	KUNIT_EXPECT_FALSE(test, t->src[2] & MIGRATE_PFN_MIGRATE);
	KUNIT_EXPECT_TRUE(test, pte_write(md_pte(t, 2)));
	KUNIT_EXPECT_EQ(test, pte_pfn(md_pte(t, 2)), page_to_pfn(md_sneaked));
	put_page(md_sneaked);
	t->after_setup = NULL;
	KUNIT_EXPECT_EQ(test, md_go(t, 0, 8), 1);

	/* The same on the way back: it stays on the device */
	t->after_setup = md_sneak_reference;
	KUNIT_EXPECT_EQ(test, md_home(t, 0, 8), 7);
	KUNIT_EXPECT_TRUE(test, md_on_device(t, 2));
	put_page(md_sneaked);
	t->after_setup = NULL;
	md_check(t, 0, 8, 1);
	md_done(t);
}

/* Pages of a file stay; its private copies go */
static void md_test_file(struct kunit *test)
{
	struct file *file = shmem_file_setup("migrate_device", 8 << PAGE_SHIFT, 0);
	struct md *t = test->priv;
	unsigned long ret;

	KUNIT_ASSERT_FALSE(test, IS_ERR(file));
	ret = vm_mmap(file, MD_BASE, 8 << PAGE_SHIFT, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_FIXED, 0);
	KUNIT_EXPECT_EQ(test, ret, MD_BASE);
	md_write(t, 0, 5, 1);
	KUNIT_EXPECT_EQ(test, md_go(t, 0, 8), 0);
	/* Nothing that is shared can go: the file gets no page by the attempt */
	KUNIT_EXPECT_EQ(test, md_migrate(t, &md_devs[0], &md_devs[0], 0, 8,
					 MD_SYSTEM | MIGRATE_VMA_FAULT), 0);
	KUNIT_EXPECT_EQ(test, file->f_mapping->nrpages, 5);
	vm_munmap(MD_BASE, 8 << PAGE_SHIFT);

	/* Nor by one that could not make a copy */
	ret = vm_mmap(file, MD_BASE, 8 << PAGE_SHIFT, PROT_READ,
		      MAP_PRIVATE | MAP_FIXED, 0);
	KUNIT_EXPECT_EQ(test, ret, MD_BASE);
	KUNIT_EXPECT_EQ(test, md_migrate(t, &md_devs[0], &md_devs[0], 0, 8,
					 MD_SYSTEM | MIGRATE_VMA_FAULT), 0);
	KUNIT_EXPECT_EQ(test, file->f_mapping->nrpages, 5);
	vm_munmap(MD_BASE, 8 << PAGE_SHIFT);

	ret = vm_mmap(file, MD_BASE, 8 << PAGE_SHIFT, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_FIXED, 0);
	KUNIT_EXPECT_EQ(test, ret, MD_BASE);
	md_check(t, 0, 5, 1);
	md_check_zero(t, 5, 1);
	md_write(t, 2, 2, 2);
	KUNIT_EXPECT_EQ(test, md_go(t, 0, 8), 2);
	KUNIT_EXPECT_EQ(test, md_nr_on_device(t, 2, 2), 2);
	/* Asked for, the others are copied first */
	KUNIT_EXPECT_EQ(test, md_migrate(t, &md_devs[0], &md_devs[0], 6, 2,
					 MD_SYSTEM | MIGRATE_VMA_FAULT), 2);
	md_check(t, 0, 2, 1);
	md_check(t, 2, 2, 2);
	md_check_zero(t, 6, 2);
	md_done(t);
	fput(file);
}

static unsigned int md_faults;

static vm_fault_t md_fault(struct vm_fault *vmf)
{
	md_faults++;
	return VM_FAULT_SIGBUS;
}

static const struct vm_operations_struct md_fault_ops = {
	.fault = md_fault,
};

/*
 * A private mapping of a file's eight pages, two of which are copied already; if
 * @missing, a userfaultfd has to supply the others. Returns how many were asked for.
 */
static unsigned int md_copy_holes(struct md *t, bool missing)
{
	struct file *file = shmem_file_setup("migrate_device", 8 << PAGE_SHIFT, 0);
	const struct vm_operations_struct *ops;
	struct vm_area_struct *vma;

	KUNIT_ASSERT_FALSE(t->test, IS_ERR(file));
	KUNIT_EXPECT_EQ(t->test, vm_mmap(file, MD_BASE, 8 << PAGE_SHIFT, PROT_READ | PROT_WRITE,
					 MAP_PRIVATE | MAP_FIXED, 0), MD_BASE);
	md_write(t, 6, 2, 1);
	mmap_write_lock(t->mm);
	vma = vma_lookup(t->mm, MD_BASE);
	ops = vma->vm_ops;
	vma->vm_ops = &md_fault_ops;
	vm_flags_mod(vma, missing ? VM_UFFD_MISSING : 0, 0);
	mmap_write_unlock(t->mm);
	md_faults = 0;
	KUNIT_EXPECT_EQ(t->test, md_migrate(t, &md_devs[0], &md_devs[0], 0, 8,
					    MD_SYSTEM | MIGRATE_VMA_FAULT), 2);
	KUNIT_EXPECT_EQ(t->test, md_nr_on_device(t, 6, 2), 2);
	mmap_write_lock(t->mm);
	vm_flags_clear(vma, VM_UFFD_MISSING);
	vma->vm_ops = ops;
	mmap_write_unlock(t->mm);
	md_check(t, 6, 2, 1);
	vm_munmap(MD_BASE, 8 << PAGE_SHIFT);
	fput(file);
	return md_faults;
}

/* It is not for a migration to fill what a userfaultfd has to supply, or to wait for it. */
static void md_test_file_missing(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, md_copy_holes(test->priv, false), 6);
	KUNIT_EXPECT_EQ(test, md_copy_holes(test->priv, true), 0);
	md_done(test->priv);
}

/* ---- Giving up ---- */

/* Bits that have to be as they were: read-only, old, clean, write-protected, ... */
static pte_t md_variant(pte_t pte, unsigned long i)
{
	if (i & 1)
		pte = pte_wrprotect(pte);
	pte = i & 2 ? pte_mkold(pte) : pte_mkyoung(pte);
	pte = i & 4 ? pte_mkclean(pte) : pte_mkdirty(pte);
	pte = i & 8 ? pte_clear_soft_dirty(pte) : pte_mksoft_dirty(pte);
	if (i & 1 && i & 16)
		pte = pte_mkuffd_wp(pte);
	return i & 1 ? pte_wrprotect(pte) : pte;
}

static void md_test_restored(struct kunit *test)
{
	struct md *t = test->priv;
	struct migrate_vma m;
	unsigned long i;
	pte_t was[32];

	md_map(t, 32, PROT_READ | PROT_WRITE);
	md_write(t, 0, 32, 1);
	mmap_read_lock(t->mm);
	for (i = 0; i < 32; i++) {
		md_set_pte(t, i, md_variant(md_pte(t, i), i));
		was[i] = md_pte(t, i);
	}
	m = md_args(t, &md_devs[0], 0, 32, MD_SYSTEM);
	KUNIT_EXPECT_EQ(test, migrate_vma_setup(&m), 0);
	KUNIT_EXPECT_EQ(test, m.cpages, 32);
	for (i = 0; i < 32; i++) {
		KUNIT_EXPECT_FALSE(test, pte_present(md_pte(t, i)));
		KUNIT_EXPECT_EQ(test, !!(m.src[i] & MIGRATE_PFN_WRITE), !(i & 1));
		KUNIT_EXPECT_EQ(test, m.dst[i], 0);
	}
	migrate_vma_finalize(&m);
	for (i = 0; i < 32; i++) {
		KUNIT_EXPECT_EQ(test, pte_val(md_pte(t, i)), pte_val(was[i]));
		KUNIT_EXPECT_TRUE(test, PageAnonExclusive(pte_page(was[i])));
		KUNIT_EXPECT_FALSE(test, PageLocked(pte_page(was[i])));
	}
	mmap_read_unlock(t->mm);
	md_check(t, 0, 32, 1);
	md_done(t);
}

static bool md_soft_dirty(unsigned long i)
{
	return IS_ENABLED(CONFIG_MEM_SOFT_DIRTY) && !(i & 8);
}

/* The same bits, where a device page has room for them */
static void md_test_carried(struct kunit *test)
{
	struct md *t = test->priv;
	unsigned long i;
	pte_t pte;

	md_map(t, 32, PROT_READ | PROT_WRITE);
	md_write(t, 0, 32, 1);
	mmap_read_lock(t->mm);
	for (i = 0; i < 32; i++)
		md_set_pte(t, i, md_variant(md_pte(t, i), i));
	mmap_read_unlock(t->mm);
	KUNIT_EXPECT_EQ(test, md_go(t, 0, 32), 32);
	for (i = 0; i < 32; i++) {
		pte = md_pte(t, i);
		KUNIT_EXPECT_EQ(test, md_device_writes(t, i), !(i & 1));
		KUNIT_EXPECT_EQ(test, !!pte_swp_soft_dirty(pte), md_soft_dirty(i));
		KUNIT_EXPECT_EQ(test, !!pte_swp_uffd_wp(pte), (i & 17) == 17);
	}
	KUNIT_EXPECT_EQ(test, md_home(t, 0, 32), 32);
	for (i = 0; i < 32; i++) {
		pte = md_pte(t, i);
		KUNIT_EXPECT_EQ(test, !!pte_write(pte), !(i & 1));
		KUNIT_EXPECT_EQ(test, !!pte_soft_dirty(pte), md_soft_dirty(i));
		KUNIT_EXPECT_EQ(test, !!pte_uffd_wp(pte), (i & 17) == 17);
		KUNIT_EXPECT_TRUE(test, PageAnonExclusive(pte_page(pte)));
		/* What a device has written is not found anywhere else */
		KUNIT_EXPECT_TRUE(test, PageDirty(pte_page(pte)));
		KUNIT_EXPECT_TRUE(test, folio_test_swapbacked(pfn_folio(pte_pfn(pte))));
	}
	md_check(t, 0, 32, 1);
	md_done(t);
}

/* The driver has a page for some only, and forgets to say that it has any */
static void md_test_partial(struct kunit *test)
{
	struct md *t = test->priv;
	struct migrate_vma m;
	unsigned long i;

	md_map(t, 16, PROT_READ | PROT_WRITE);
	md_write(t, 0, 8, 1);
	mmap_read_lock(t->mm);
	m = md_args(t, &md_devs[0], 0, 16, MD_SYSTEM);
	KUNIT_EXPECT_EQ(test, migrate_vma_setup(&m), 0);
	KUNIT_EXPECT_EQ(test, m.cpages, 16);
	for (i = 0; i < 16; i += 2)
		md_supply(&md_devs[0], m.src + i, m.dst + i, 1);
	migrate_vma_pages(&m);
	for (i = 0; i < 16; i++)
		KUNIT_EXPECT_EQ(test, !!(m.src[i] & MIGRATE_PFN_MIGRATE), !(i % 2));
	migrate_vma_finalize(&m);
	KUNIT_EXPECT_EQ(test, md_nr_on_device(t, 0, 16), 8);

	/* Pages that are supplied, but never taken, go back */
	m = md_args(t, &md_devs[0], 1, 15, MD_SYSTEM);
	KUNIT_EXPECT_EQ(test, migrate_vma_setup(&m), 0);
	KUNIT_EXPECT_EQ(test, m.cpages, 8);
	md_supply(&md_devs[0], m.src, m.dst, 15);
	migrate_vma_finalize(&m);
	mmap_read_unlock(t->mm);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&md_devs[0].in_use), 8);
	md_check(t, 0, 8, 1);
	md_check_zero(t, 8, 8);
	md_done(t);
}

/* Between setup and finalize the memory goes */
static void md_zap_some(struct md *t, struct migrate_vma *m)
{
	zap_page_range_single(m->vma, m->start + 2 * PAGE_SIZE, 3 * PAGE_SIZE, NULL);
}

static void md_test_zapped(struct kunit *test)
{
	struct md *t = test->priv;

	md_map(t, 8, PROT_READ | PROT_WRITE);
	md_write(t, 0, 8, 1);
	t->after_setup = md_zap_some;
	md_go(t, 0, 8);
	t->after_setup = NULL;
	KUNIT_EXPECT_EQ(test, md_nr_on_device(t, 0, 8), 5);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&md_devs[0].in_use), 5);
	md_check(t, 0, 2, 1);
	md_check_zero(t, 2, 3);
	md_check(t, 5, 3, 1);

	md_write(t, 0, 8, 2);
	md_go(t, 0, 8);
	t->after_pages = md_zap_some;
	md_home(t, 0, 8);
	t->after_pages = NULL;
	KUNIT_EXPECT_EQ(test, atomic_long_read(&md_devs[0].in_use), 0);
	KUNIT_EXPECT_EQ(test, get_mm_counter_sum(t->mm, MM_ANONPAGES), 5);
	md_check(t, 0, 2, 2);
	md_check_zero(t, 2, 3);
	md_check(t, 5, 3, 2);
	md_done(t);
}

/* ---- Arguments ---- */

static void md_refused(struct md *t, struct migrate_vma m, const char *what)
{
	struct migrate_vma before = m;

	t->src[0] = MD_GARBAGE;
	t->dst[0] = MD_GARBAGE;
	KUNIT_EXPECT_EQ_MSG(t->test, migrate_vma_setup(&m), -EINVAL, "%s", what);
	KUNIT_EXPECT_EQ_MSG(t->test, memcmp(&m, &before, sizeof(m)), 0, "%s", what);
	KUNIT_EXPECT_EQ(t->test, t->src[0], MD_GARBAGE);
	KUNIT_EXPECT_EQ(t->test, t->dst[0], MD_GARBAGE);
}

#define md_refuse(where, field, value)				\
do {									\
	struct md *__t = (where);					\
	struct migrate_vma __m = md_args(__t, &md_devs[0], 1, 4, MD_SYSTEM); \
	__m.field = (value);						\
	md_refused(__t, __m, #field " = " #value);			\
} while (0)

static void md_test_arguments(struct kunit *test)
{
	struct md *t = test->priv;
	struct migrate_vma m;
	struct page *page;

	md_map(t, 8, PROT_READ | PROT_WRITE);
	md_write(t, 0, 8, 1);
	page = md_page(t, 0);
	md_untold(t);
	mmap_read_lock(t->mm);
	md_refuse(t, vma, NULL);
	md_refuse(t, src, NULL);
	md_refuse(t, dst, NULL);
	md_refuse(t, end, MD_AT(1));
	md_refuse(t, end, MD_AT(1) + 1);
	md_refuse(t, end, MD_AT(0));
	md_refuse(t, end, MD_AT(9));
	md_refuse(t, end, ULONG_MAX);
	md_refuse(t, start, MD_BASE - PAGE_SIZE);
	md_refuse(t, start, MD_BASE - 1);
	md_refuse(t, start, ULONG_MAX);
	md_refuse(t, fault_page, page);
	KUNIT_EXPECT_EQ(test, t->nr_migrate, 0);

	/* What is not aligned is rounded down */
	m = md_args(t, &md_devs[0], 1, 4, MD_PRIVATE);
	m.start += 5;
	m.end += 7;
	KUNIT_EXPECT_EQ(test, migrate_vma_setup(&m), 0);
	KUNIT_EXPECT_EQ(test, m.start, MD_AT(1));
	KUNIT_EXPECT_EQ(test, m.end, MD_AT(5));
	KUNIT_EXPECT_EQ(test, m.npages, 4);
	KUNIT_EXPECT_EQ(test, m.cpages, 0);
	KUNIT_EXPECT_EQ(test, m.src[3], 0);
	KUNIT_EXPECT_EQ(test, m.src[4], MD_GARBAGE);
	mmap_read_unlock(t->mm);
	put_page(page);
	md_done(t);
}

/* Who selects what; a device page that is not the owner's is nobody's */
static void md_test_selection(struct kunit *test)
{
	struct md *t = test->priv;
	struct md_dev *a = &md_devs[0], *b = &md_devs[1];

	md_map(t, 16, PROT_READ | PROT_WRITE);
	md_write(t, 0, 12, 1);
	KUNIT_EXPECT_EQ(test, md_migrate(t, a, a, 0, 4, MD_SYSTEM), 4);
	KUNIT_EXPECT_EQ(test, md_migrate(t, b, b, 4, 4, MD_SYSTEM), 4);
	KUNIT_EXPECT_EQ(test, md_migrate(t, a, NULL, 4, 12, MD_PRIVATE), 0);
	KUNIT_EXPECT_EQ(test, md_migrate(t, NULL, NULL, 0, 16, MD_PRIVATE), 0);
	KUNIT_EXPECT_EQ(test, md_migrate(t, a, a, 0, 16, 0), 0);
	KUNIT_EXPECT_EQ(test, md_migrate(t, a, a, 0, 8, MD_SYSTEM), 0);
	/* From one device straight to the other */
	KUNIT_EXPECT_EQ(test, md_migrate(t, a, b, 0, 8, MD_PRIVATE), 4);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&a->in_use), 0);
	/* Both kinds at once */
	KUNIT_EXPECT_EQ(test, md_migrate(t, b, NULL, 0, 12, MD_PRIVATE | MD_SYSTEM), 12);
	md_check(t, 0, 12, 1);
	md_done(t);
}

/* ---- Who hears of it ---- */

static void md_test_notified(struct kunit *test)
{
	struct md *t = test->priv;

	md_map(t, 16, PROT_READ | PROT_WRITE);
	md_write(t, 0, 8, 1);
	md_untold(t);
	KUNIT_EXPECT_EQ(test, md_go(t, 2, 4), 4);
	KUNIT_EXPECT_EQ(test, t->nr_migrate, 1);
	KUNIT_EXPECT_EQ(test, t->nr_other, 0);
	KUNIT_EXPECT_PTR_EQ(test, t->told_owner, (void *)&md_devs[0]);
	KUNIT_EXPECT_EQ(test, t->told_start, MD_AT(2));
	KUNIT_EXPECT_EQ(test, t->told_end, MD_AT(6));

	/* New pages are told of, too */
	md_untold(t);
	KUNIT_EXPECT_EQ(test, md_go(t, 6, 8), 8);
	KUNIT_EXPECT_EQ(test, t->nr_migrate, 2);
	KUNIT_EXPECT_EQ(test, t->told_start, MD_AT(8));
	KUNIT_EXPECT_EQ(test, t->told_end, MD_AT(14));
	KUNIT_EXPECT_EQ(test, t->nr_other, 0);

	/* Nobody's migration is not that of a driver without a name */
	md_untold(t);
	KUNIT_EXPECT_EQ(test, md_migrate(t, NULL, NULL, 0, 2, MD_SYSTEM), 2);
	KUNIT_EXPECT_EQ(test, t->nr_migrate, 1);
	KUNIT_EXPECT_EQ(test, t->nr_ownerless, 0);
	md_done(t);
}

/* ---- Faulting first ---- */

static void md_test_fault_first(struct kunit *test)
{
	unsigned long flags = MD_SYSTEM | MIGRATE_VMA_FAULT;
	struct md_dev *a = &md_devs[0], *b = &md_devs[1];
	long before = atomic_long_read(&a->faults);
	struct md *t = test->priv;

	md_map(t, 16, PROT_READ | PROT_WRITE);
	md_write(t, 0, 8, 1);
	KUNIT_EXPECT_EQ(test, md_migrate(t, a, a, 2, 4, MD_SYSTEM), 4);
	/* Those on the other device are brought home, what is not there is zero */
	KUNIT_EXPECT_EQ(test, md_migrate(t, b, b, 0, 16, flags), 16);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&a->faults) - before, 4);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&a->in_use), 0);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&b->in_use), 16);
	/* Those on the device itself stay */
	KUNIT_EXPECT_EQ(test, md_migrate(t, b, b, 0, 16, flags), 0);
	md_check(t, 0, 8, 1);
	md_check_zero(t, 8, 8);
	md_done(t);

	/* What may not be accessed is not */
	md_map(t, 4, PROT_NONE);
	md_migrate(t, b, b, 0, 4, flags);
	md_done(t);
}

/* ---- Huge pages ---- */

static void md_test_huge(struct kunit *test)
{
	unsigned long n = 300, first = 512 - 100;
	struct vm_area_struct *vma;
	struct md *t = test->priv;

	if (!IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE))
		kunit_skip(test, "no huge pages");
	md_map(t, MD_CAP, PROT_READ | PROT_WRITE);
	mmap_write_lock(t->mm);
	vma = vma_lookup(t->mm, MD_BASE);
	vma_start_write(vma);
	vm_flags_set(vma, VM_HUGEPAGE);
	mmap_write_unlock(t->mm);
	md_write(t, 0, MD_CAP, 1);
	if (!pmd_trans_huge(*pmd_off(t->mm, MD_AT(0))))
		kunit_skip(test, "no huge page to be had");
	/* The end of one and the start of the next */
	KUNIT_EXPECT_EQ(test, md_go(t, first, n), n);
	KUNIT_EXPECT_EQ(test, md_nr_on_device(t, 0, MD_CAP), n);
	md_check(t, 0, MD_CAP, 1);
	md_done(t);
}

/* One that cannot be split is left whole, and its neighbours go */
static void md_test_huge_pinned(struct kunit *test)
{
	struct vm_area_struct *vma;
	struct md *t = test->priv;
	struct page *page;

	if (!IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE))
		kunit_skip(test, "no huge pages");
	md_map(t, MD_CAP, PROT_READ | PROT_WRITE);
	mmap_write_lock(t->mm);
	vma = vma_lookup(t->mm, MD_BASE);
	vma_start_write(vma);
	vm_flags_set(vma, VM_HUGEPAGE);
	mmap_write_unlock(t->mm);
	md_write(t, 0, 512, 1);
	if (!pmd_trans_huge(*pmd_off(t->mm, MD_AT(0))))
		kunit_skip(test, "no huge page to be had");
	KUNIT_ASSERT_EQ(test, pin_user_pages_fast(MD_AT(7), 1, FOLL_WRITE, &page), 1);
	mmap_write_lock(t->mm);
	vm_flags_clear(vma, VM_HUGEPAGE);
	mmap_write_unlock(t->mm);
	md_write(t, 512, 8, 1);
	KUNIT_EXPECT_EQ(test, md_go(t, 500, 20), 8);
	KUNIT_EXPECT_EQ(test, md_nr_on_device(t, 500, 20), 8);
	KUNIT_EXPECT_TRUE(test, PageCompound(page));
	unpin_user_page(page);
	md_check(t, 0, 520, 1);
	md_done(t);
}

/* ---- By pfn ---- */

static void md_evict(struct md *t, unsigned long *src, unsigned long n)
{
	memset(t->dst, 0, sizeof(t->dst));
	md_supply(NULL, src, t->dst, n);
	migrate_device_pages(src, t->dst, n);
	migrate_device_finalize(src, t->dst, n);
}

static void md_test_evict(struct kunit *test)
{
	unsigned long first = PHYS_PFN(md_devs[0].res->start), i;
	struct md *t = test->priv;

	md_map(t, 64, PROT_READ | PROT_WRITE);
	md_write(t, 0, 64, 1);
	KUNIT_EXPECT_EQ(test, md_go(t, 0, 64), 64);
	KUNIT_EXPECT_EQ(test, migrate_device_range(t->src, first, MD_PAGES), 0);
	KUNIT_EXPECT_EQ(test, md_moved(t->src, MD_PAGES), 64);
	md_evict(t, t->src, MD_PAGES);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&md_devs[0].in_use), 0);
	KUNIT_EXPECT_EQ(test, md_nr_on_device(t, 0, 64), 0);
	md_check(t, 0, 64, 1);

	KUNIT_EXPECT_EQ(test, md_go(t, 0, 64), 64);
	for (i = 0; i < 8; i++)
		t->src[i] = swp_offset_pfn(pte_to_swp_entry(md_pte(t, 60 - 7 * i)));
	/* System memory is not its business */
	t->src[8] = page_to_pfn(ZERO_PAGE(0));
	KUNIT_EXPECT_EQ(test, migrate_device_pfns(t->src, 9), 0);
	KUNIT_EXPECT_EQ(test, t->src[8], 0);
	KUNIT_EXPECT_EQ(test, md_moved(t->src, 9), 8);
	md_evict(t, t->src, 9);
	for (i = 0; i < 64; i++)
		KUNIT_EXPECT_EQ(test, md_on_device(t, i), !(i >= 11 && i <= 60 &&
							    !((60 - i) % 7)));
	md_check(t, 0, 64, 1);
	md_done(t);
}

/* One that the driver has another reference to stays */
static void md_test_evict_referenced(struct kunit *test)
{
	struct md *t = test->priv;
	struct page *page;

	md_map(t, 2, PROT_READ | PROT_WRITE);
	md_write(t, 0, 2, 1);
	KUNIT_EXPECT_EQ(test, md_go(t, 0, 2), 2);
	page = pfn_swap_entry_to_page(pte_to_swp_entry(md_pte(t, 0)));
	get_page(page);
	KUNIT_EXPECT_EQ(test, migrate_device_range(t->src,
						   PHYS_PFN(md_devs[0].res->start),
						   MD_PAGES), 0);
	KUNIT_EXPECT_EQ(test, md_moved(t->src, MD_PAGES), 1);
	md_evict(t, t->src, MD_PAGES);
	KUNIT_EXPECT_TRUE(test, md_on_device(t, 0));
	KUNIT_EXPECT_FALSE(test, PageLocked(page));
	/* That of its entry and ours; more would keep the device from going */
	KUNIT_EXPECT_EQ(test, page_count(page), 2);
	while (page_count(page) > 1)
		put_page(page);
	md_check(t, 0, 2, 1);
	md_done(t);
}

/* ---- Processes ---- */

struct md_child {
	struct completion ready, go;
	unsigned long n, wrong_before, wrong_after;
	bool writes;
	pid_t pid;
};

/* A process of its own: it looks, waits for its parent, writes and looks again */
static int md_child_main(void *data)
{
	struct md_child *child = data;
	char *page = kmalloc(PAGE_SIZE, GFP_KERNEL);
	unsigned long i;

	complete(&child->ready);
	wait_for_completion(&child->go);
	child->wrong_before = md_wrong(0, child->n, 1);
	for (i = 0; page && child->writes && i < child->n; i++) {
		md_pattern(page, i, 9);
		if (copy_to_user((void __user *)MD_AT(i), page, PAGE_SIZE))
			child->wrong_before++;
	}
	child->wrong_after = md_wrong(0, child->n, child->writes ? 9 : 1);
	kfree(page);
	do_exit(0);
}

static void md_fork(struct md *t, struct md_child *child, unsigned long n, bool writes)
{
	struct kernel_clone_args args = {
		.flags = CLONE_UNTRACED,
		.exit_signal = SIGCHLD,
		.fn = md_child_main,
		.fn_arg = child,
	};

	init_completion(&child->ready);
	init_completion(&child->go);
	child->n = n;
	child->writes = writes;
	kernel_sigaction(SIGCHLD, SIG_DFL);
	child->pid = kernel_clone(&args);
	KUNIT_ASSERT_GT(t->test, child->pid, 0);
	wait_for_completion(&child->ready);
}

static void md_reap(struct md *t, struct md_child *child)
{
	int status;

	complete(&child->go);
	kernel_wait(child->pid, &status);
	kernel_sigaction(SIGCHLD, SIG_IGN);
	KUNIT_EXPECT_EQ(t->test, child->wrong_before, 0);
	KUNIT_EXPECT_EQ(t->test, child->wrong_after, 0);
}

/* Pages of two processes go to the device, and come home for each as they were */
static void md_test_forked(struct kunit *test)
{
	struct md *t = test->priv;
	struct md_child child;

	md_map(t, 32, PROT_READ | PROT_WRITE);
	md_write(t, 0, 32, 1);
	md_fork(t, &child, 32, true);
	KUNIT_EXPECT_EQ(test, md_go(t, 0, 32), 32);
	KUNIT_EXPECT_EQ(test, md_nr_on_device(t, 0, 32), 32);
	KUNIT_EXPECT_FALSE(test, t->src[0] & MIGRATE_PFN_WRITE);
	/* Home from under the child */
	KUNIT_EXPECT_EQ(test, md_home(t, 0, 8), 8);
	md_reap(t, &child);
	md_check(t, 0, 32, 1);
	md_write(t, 0, 32, 2);
	md_check(t, 0, 32, 2);
	md_done(t);
}

/* Forked with its pages on the device; both write */
static void md_test_forked_on_device(struct kunit *test)
{
	struct md *t = test->priv;
	struct md_child child;

	md_map(t, 32, PROT_READ | PROT_WRITE);
	md_write(t, 0, 32, 1);
	KUNIT_EXPECT_EQ(test, md_go(t, 0, 32), 32);
	md_fork(t, &child, 32, true);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&md_devs[0].in_use), 32);
	md_write(t, 0, 16, 2);
	md_reap(t, &child);
	md_check(t, 0, 16, 2);
	md_check(t, 16, 16, 1);
	md_done(t);
}

/* Evicted by pfn, for two processes; one is gone before the pages are mapped again */
static void md_test_forked_evict(struct kunit *test)
{
	unsigned long first = PHYS_PFN(md_devs[0].res->start);
	struct md *t = test->priv;
	struct md_child child;

	md_map(t, 32, PROT_READ | PROT_WRITE);
	md_write(t, 0, 32, 1);
	KUNIT_EXPECT_EQ(test, md_go(t, 0, 32), 32);
	md_fork(t, &child, 32, false);
	migrate_device_range(t->src, first, MD_PAGES);
	KUNIT_EXPECT_EQ(test, md_moved(t->src, MD_PAGES), 32);
	vm_munmap(MD_BASE, 32 << PAGE_SHIFT);
	md_evict(t, t->src, MD_PAGES);
	md_reap(t, &child);
	md_done(t);
}

/* ---- Several threads ---- */

struct md_thread {
	struct md *t;
	struct completion *go;
	struct completion done;
	atomic_t *stop;
	unsigned int id;
	unsigned long arg, rounds, wrong;
};

/* Each reads one and the same page */
static int md_toucher(void *data)
{
	struct md_thread *th = data;

	kthread_use_mm(th->t->mm);
	wait_for_completion(th->go);
	th->wrong = md_wrong(th->arg, 1, 1);
	kthread_unuse_mm(th->t->mm);
	complete(&th->done);
	return 0;
}

#define MD_THREADS	8

static void md_start(struct md *t, struct md_thread *th, struct completion *go,
		     atomic_t *stop, int (*fn)(void *), unsigned int id)
{
	struct task_struct *task;

	memset(th, 0, sizeof(*th));
	th->t = t;
	th->go = go;
	th->stop = stop;
	th->id = id;
	init_completion(&th->done);
	task = kthread_run(fn, th, "migrate_device/%u", id);
	if (IS_ERR(task)) {
		KUNIT_FAIL(t->test, "no thread");
		complete(&th->done);
	}
}

static bool md_join(struct md *t, struct md_thread *th)
{
	bool ended = wait_for_completion_timeout(&th->done, MD_TIMEOUT);

	KUNIT_EXPECT_TRUE_MSG(t->test, ended, "thread %u makes no progress", th->id);
	KUNIT_EXPECT_EQ(t->test, th->wrong, 0);
	return ended;
}

/* One brings the page home, all others wait: no call is in vain */
static void md_test_same_page(struct kunit *test)
{
	long futile = atomic_long_read(&md_devs[0].futile);
	struct md *t = test->priv;
	struct md_thread *th = kunit_kcalloc(test, MD_THREADS, sizeof(*th), GFP_KERNEL);
	struct completion go;
	unsigned int i, round;

	KUNIT_ASSERT_NOT_NULL(test, th);
	md_map(t, 16, PROT_READ | PROT_WRITE);
	for (round = 0; round < 16; round++) {
		md_write(t, round, 1, 1);
		KUNIT_EXPECT_EQ(test, md_go(t, round, 1), 1);
		init_completion(&go);
		for (i = 0; i < MD_THREADS; i++) {
			md_start(t, th + i, &go, NULL, md_toucher, i);
			th[i].arg = round;
		}
		complete_all(&go);
		for (i = 0; i < MD_THREADS; i++)
			md_join(t, th + i);
	}
	KUNIT_EXPECT_EQ(test, atomic_long_read(&md_devs[0].futile) - futile, 0);
	md_done(t);
}

#define MD_STORM	64UL

/* Migrate @n pages from @at once, to one of the devices or home */
static void md_window(struct md_thread *th, unsigned long *src, unsigned long *dst,
		      unsigned long at, unsigned long n, bool home)
{
	struct md_dev *dev = &md_devs[th->id & 1];
	struct migrate_vma m;

	mmap_read_lock(th->t->mm);
	m = (struct migrate_vma) {
		.vma = vma_lookup(th->t->mm, MD_BASE),
		.src = src, .dst = dst,
		.start = MD_AT(at), .end = MD_AT(at + n),
		.pgmap_owner = dev,
		.flags = home ? MD_PRIVATE : MD_SYSTEM,
	};
	if (migrate_vma_setup(&m)) {
		th->wrong++;
	} else if (m.cpages) {
		md_supply(home ? NULL : dev, src, dst, n);
		migrate_vma_pages(&m);
		migrate_vma_finalize(&m);
	}
	mmap_read_unlock(th->t->mm);
}

/* Migrates a window there or back, from either end, again and again */
static int md_mover(void *data)
{
	struct md_thread *th = data;
	unsigned long src[8], dst[8], at;

	kthread_use_mm(th->t->mm);
	wait_for_completion(th->go);
	for (; !atomic_read(th->stop); th->rounds++) {
		at = th->rounds * 5 % (MD_STORM - 7);
		if (th->id & 4)
			at = MD_STORM - 8 - at;
		md_window(th, src, dst, at, 8, th->id & 2);
		cond_resched();
	}
	kthread_unuse_mm(th->t->mm);
	complete(&th->done);
	return 0;
}

/* Both devices take and give back, from both ends, while a CPU writes and reads */
static void md_test_storm(struct kunit *test)
{
	struct md *t = test->priv;
	struct md_thread *th = kunit_kcalloc(test, MD_THREADS, sizeof(*th), GFP_KERNEL);
	unsigned long until;
	struct completion go;
	atomic_t stop = ATOMIC_INIT(0);
	unsigned int i, k = 1;

	KUNIT_ASSERT_NOT_NULL(test, th);
	md_map(t, MD_STORM, PROT_READ | PROT_WRITE);
	md_write(t, 0, MD_STORM, k);
	init_completion(&go);
	for (i = 0; i < MD_THREADS; i++)
		md_start(t, th + i, &go, &stop, md_mover, i);
	complete_all(&go);
	for (until = jiffies + 3 * HZ; time_before(jiffies, until); ) {
		md_check(t, 0, MD_STORM, k);
		md_write(t, 0, MD_STORM, ++k);
	}
	atomic_set(&stop, 1);
	for (i = 0; i < MD_THREADS; i++) {
		md_join(t, th + i);
		KUNIT_EXPECT_GT(test, th[i].rounds, 0);
	}
	md_check(t, 0, MD_STORM, k);
	md_done(t);
}

/* Migrates all of it to a device, or home, again and again */
static int md_whole_mover(void *data)
{
	struct md_thread *th = data;

	kthread_use_mm(th->t->mm);
	wait_for_completion(th->go);
	for (; !atomic_read(th->stop); th->rounds++) {
		unsigned long *src = th->t->src + th->id * MD_STORM;
		unsigned long *dst = th->t->dst + th->id * MD_STORM;

		md_window(th, src, dst, 0, MD_STORM, th->id & 2);
		cond_resched();
	}
	kthread_unuse_mm(th->t->mm);
	complete(&th->done);
	return 0;
}

/*
 * Memory is dropped as soon as it is mapped again: with the table unlocked, that puts
 * the last reference of a page. Migration must be done with it by then, or it unlocks,
 * and puts on a list, what the next owner has.
 */
static void md_test_zapped_at_once(struct kunit *test)
{
	struct md *t = test->priv;
	struct md_thread *th = kunit_kcalloc(test, 4, sizeof(*th), GFP_KERNEL);
	atomic_t stop = ATOMIC_INIT(0);
	struct vm_area_struct *vma;
	unsigned long until, k = 0;
	struct completion go;
	unsigned int i;

	KUNIT_ASSERT_NOT_NULL(test, th);
	md_map(t, MD_STORM, PROT_READ | PROT_WRITE);
	init_completion(&go);
	for (i = 0; i < 4; i++)
		md_start(t, th + i, &go, &stop, md_whole_mover, i);
	complete_all(&go);
	for (until = jiffies + 3 * HZ; time_before(jiffies, until); ) {
		md_write(t, 0, MD_STORM, ++k);
		mmap_read_lock(t->mm);
		vma = vma_lookup(t->mm, MD_BASE);
		for (i = 0; i < 4; i++)
			zap_page_range_single(vma, MD_BASE, MD_STORM * PAGE_SIZE, NULL);
		mmap_read_unlock(t->mm);
	}
	atomic_set(&stop, 1);
	for (i = 0; i < 4; i++) {
		md_join(t, th + i);
		KUNIT_EXPECT_GT(test, th[i].rounds, 0);
	}
	md_done(t);
}

/* How many pages are mapped, and locked all the same */
static unsigned long md_mapped_and_locked(struct md *t)
{
	unsigned long i, n = 0;
	spinlock_t *ptl; /* of the table */
	pte_t *ptep;

	ptep = pte_offset_map_lock(t->mm, pmd_off(t->mm, MD_BASE), MD_BASE, &ptl);
	for (i = 0; ptep && i < MD_STORM; i++) {
		pte_t pte = ptep_get(ptep + i);

		n += pte_present(pte) && PageLocked(pte_page(pte));
	}
	if (ptep)
		pte_unmap_unlock(ptep, ptl);
	return n;
}

/* The same, seen from the other side: under the lock of the table they are unlocked */
static void md_test_released_in_time(struct kunit *test)
{
	struct md *t = test->priv;
	struct md_thread *th = kunit_kcalloc(test, 2, sizeof(*th), GFP_KERNEL);
	atomic_t stop = ATOMIC_INIT(0);
	unsigned long until, late = 0;
	struct completion go;

	KUNIT_ASSERT_NOT_NULL(test, th);
	md_map(t, MD_STORM, PROT_READ | PROT_WRITE);
	md_write(t, 0, MD_STORM, 1);
	init_completion(&go);
	/* There and back */
	md_start(t, th, &go, &stop, md_whole_mover, 0);
	md_start(t, th + 1, &go, &stop, md_whole_mover, 2);
	complete_all(&go);
	for (until = jiffies + 3 * HZ; time_before(jiffies, until); cond_resched())
		late += md_mapped_and_locked(t);
	atomic_set(&stop, 1);
	md_join(t, th);
	md_join(t, th + 1);
	KUNIT_EXPECT_GT(test, th[0].rounds, 0);
	KUNIT_EXPECT_GT(test, th[1].rounds, 0);
	KUNIT_EXPECT_EQ(test, late, 0);
	md_check(t, 0, MD_STORM, 1);
	md_done(t);
}

/*
 * Unheard by KCSAN: GUP asks a page for its node, which never changes, by a plain read
 * of the word in which its flags do.
 */
static bool md_pin(struct page **page)
{
	bool done;

	kcsan_disable_current();
	done = pin_user_pages_fast(MD_BASE, 1, FOLL_WRITE, page) == 1;
	kcsan_enable_current();
	return done;
}

static void md_unpin(struct page *page)
{
	kcsan_disable_current();
	unpin_user_page(page);
	kcsan_enable_current();
}

/* Pins the first page, has it come home for that, and counts in it */
static int md_pinner(void *data)
{
	struct md_thread *th = data;
	unsigned long *count;
	struct page *page;

	/* Away from who migrates, if there is another CPU */
	set_cpus_allowed_ptr(current, cpumask_of(cpumask_last(cpu_online_mask)));
	kthread_use_mm(th->t->mm);
	wait_for_completion(th->go);
	for (; !atomic_read(th->stop) && !th->wrong; th->rounds++) {
		if (!md_pin(&page)) {
			th->wrong++;
			break;
		}
		count = kmap_local_page(page);
		th->wrong += *count != th->rounds;
		*count = th->rounds + 1;
		kunmap_local(count);
		md_unpin(page);
		cond_resched();
	}
	kthread_unuse_mm(th->t->mm);
	complete(&th->done);
	return 0;
}

/*
 * GUP-fast takes no lock: it may pin a page that is about to go, when its references
 * have been looked at and its entry not yet cleared. Such a page stays, as it was.
 */
static void md_test_pinned_meanwhile(struct kunit *test)
{
	struct md *t = test->priv;
	struct md_thread *th = kunit_kcalloc(test, 2, sizeof(*th), GFP_KERNEL);
	atomic_t stop = ATOMIC_INIT(0);
	struct completion go;
	struct page *page;
	unsigned long i;

	KUNIT_ASSERT_NOT_NULL(test, th);
	md_map(t, MD_STORM, PROT_READ | PROT_WRITE);
	md_write(t, 1, MD_STORM - 1, 1);
	init_completion(&go);
	md_start(t, th, &go, &stop, md_whole_mover, 0);
	md_start(t, th + 1, &go, &stop, md_pinner, 1);
	complete_all(&go);
	schedule_timeout_uninterruptible(3 * HZ);
	atomic_set(&stop, 1);
	md_join(t, th);
	md_join(t, th + 1);
	KUNIT_EXPECT_GT(test, th[0].rounds, 0);
	KUNIT_EXPECT_GT(test, th[1].rounds, 0);
	md_check(t, 1, MD_STORM - 1, 1);
	md_write(t, 0, 1, 1);
	lru_add_drain_all();
	for (i = 0; i < MD_STORM; i++) {
		page = md_page(t, i);
		KUNIT_EXPECT_TRUE(test, PageLRU(page));
		KUNIT_EXPECT_TRUE(test, PageAnonExclusive(page));
		put_page(page);
	}
	md_done(t);
}

/* Pages in the LRU batch of another CPU go, too */
static int md_writer(void *data)
{
	struct md_thread *th = data;
	char *page = kmalloc(PAGE_SIZE, GFP_KERNEL);
	unsigned long i;

	kthread_use_mm(th->t->mm);
	for (i = 0; page && i < 4; i++) {
		md_pattern(page, i, 1);
		th->wrong += copy_to_user((void __user *)MD_AT(i), page, PAGE_SIZE);
	}
	kthread_unuse_mm(th->t->mm);
	kfree(page);
	complete(&th->done);
	return 0;
}

static void md_test_other_cpu(struct kunit *test)
{
	int here = raw_smp_processor_id(), there = cpumask_any_but(cpu_online_mask, here);
	struct md *t = test->priv;
	struct md_thread th = { .t = t };
	struct task_struct *task;

	if (there >= nr_cpu_ids)
		kunit_skip(test, "one CPU only");
	md_map(t, 4, PROT_READ | PROT_WRITE);
	init_completion(&th.done);
	task = kthread_create(md_writer, &th, "migrate_device/w");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	kthread_bind(task, there);
	wake_up_process(task);
	md_join(t, &th);
	KUNIT_EXPECT_EQ(test, md_go(t, 0, 4), 4);
	md_check(t, 0, 4, 1);
	md_done(t);
}

/* ---- Statistics ---- */

/* Pages of anonymous memory that are mapped; exact, but not of this mm alone */
static long md_mapped(void)
{
	struct pglist_data *pgdat;
	long sum = 0;
	int cpu;

	for_each_online_pgdat(pgdat) {
		sum += atomic_long_read(&pgdat->vm_stat[NR_ANON_MAPPED]);
		for_each_online_cpu(cpu)
			sum += per_cpu_ptr(pgdat->per_cpu_nodestats,
					   cpu)->vm_node_stat_diff[NR_ANON_MAPPED];
	}
	return sum;
}

/* How far from what they must be, either way */
static long md_mapped_off(long expected)
{
	return abs(md_mapped() - expected);
}

static void md_test_statistics(struct kunit *test)
{
	/* What others may map and unmap meanwhile */
	const long n = 512, noise = 100;
	struct md *t = test->priv;
	long before;

	md_map(t, n, PROT_READ | PROT_WRITE);
	md_write(t, 0, n, 1);
	before = md_mapped();
	KUNIT_EXPECT_EQ(test, md_go(t, 0, n), n);
	KUNIT_EXPECT_LT(test, md_mapped_off(before), noise);
	KUNIT_EXPECT_EQ(test, md_home(t, 0, n), n);
	KUNIT_EXPECT_LT(test, md_mapped_off(before), noise);
	md_done(t);
	KUNIT_EXPECT_LT(test, md_mapped_off(before - n), noise);
}

/* ---- Tracepoints ---- */

/* The last event of each kind, and how many there were */
struct md_traced {
	const void *owner;
	unsigned long start, collected, moved, filled, absent, pinned, refused;
	unsigned int left[LEFT_NR];
	unsigned int collects, pages, finals;
	unsigned long npages[3];
	u64 ns;
};

static void md_trace_collect(void *data, const void *owner, unsigned long start,
			     unsigned long npages, unsigned long collected,
			     const unsigned int *left, u64 ns)
{
	struct md_traced *tr = data;

	tr->collects++;
	tr->owner = owner;
	tr->start = start;
	tr->npages[0] = npages;
	tr->collected = collected;
	memcpy(tr->left, left, sizeof(tr->left));
	tr->ns += ns;
}

static void md_trace_pages(void *data, unsigned long npages, unsigned long moved,
			   unsigned long filled, unsigned long absent,
			   unsigned long pinned, unsigned long refused, u64 ns)
{
	struct md_traced *tr = data;

	tr->pages++;
	tr->npages[1] = npages;
	tr->moved = moved;
	tr->filled = filled;
	tr->absent = absent;
	tr->pinned = pinned;
	tr->refused = refused;
	tr->ns += ns;
}

static void md_trace_finalize(void *data, unsigned long npages, u64 ns)
{
	struct md_traced *tr = data;

	tr->finals++;
	tr->npages[2] = npages;
	tr->ns += ns;
}

static int md_trace_begin(struct md_traced *tr)
{
	return register_trace_migrate_device_collect(md_trace_collect, tr) ?:
	       register_trace_migrate_device_pages(md_trace_pages, tr) ?:
	       register_trace_migrate_device_finalize(md_trace_finalize, tr);
}

static void md_trace_end(void *tr)
{
	unregister_trace_migrate_device_collect(md_trace_collect, tr);
	unregister_trace_migrate_device_pages(md_trace_pages, tr);
	unregister_trace_migrate_device_finalize(md_trace_finalize, tr);
	tracepoint_synchronize_unregister();
}

/* Somebody finds a way to a page that has been collected */
static void md_late(struct md *t, struct migrate_vma *m)
{
	get_page(migrate_pfn_to_page(m->src[4]));
}

/* Of 16 pages 10 are there; one of them is pinned, one locked, and one found later */
static void md_test_traced(struct kunit *test)
{
	struct md_traced *tr = kunit_kzalloc(test, sizeof(*tr), GFP_KERNEL);
	struct md *t = test->priv;
	struct page *pinned, *locked, *late;

	KUNIT_ASSERT_NOT_NULL(test, tr);
	if (!IS_ENABLED(CONFIG_TRACEPOINTS))
		kunit_skip(test, "no tracepoints");
	KUNIT_ASSERT_EQ(test, md_trace_begin(tr), 0);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, md_trace_end, tr), 0);
	md_map(t, 16, PROT_READ | PROT_WRITE);
	md_write(t, 0, 10, 1);
	KUNIT_ASSERT_EQ(test, pin_user_pages_fast(MD_AT(1), 1, FOLL_WRITE, &pinned), 1);
	late = md_page(t, 4);
	put_page(late);
	locked = md_page(t, 2);
	lock_page(locked);
	put_page(locked);
	t->after_setup = md_late;
	KUNIT_EXPECT_EQ(test, md_go(t, 0, 16), 13);
	t->after_setup = NULL;
	unlock_page(locked);
	unpin_user_page(pinned);
	put_page(late);

	KUNIT_EXPECT_EQ(test, tr->collects, 1);
	KUNIT_EXPECT_PTR_EQ(test, tr->owner, md_devs[0].pgmap.owner);
	KUNIT_EXPECT_EQ(test, tr->start, MD_AT(0));
	KUNIT_EXPECT_EQ(test, tr->collected, 14);
	KUNIT_EXPECT_EQ(test, tr->left[LEFT_PINNED], 1);
	KUNIT_EXPECT_EQ(test, tr->left[LEFT_LOCKED], 1);
	KUNIT_EXPECT_EQ(test, tr->pages, 1);
	KUNIT_EXPECT_EQ(test, tr->filled, 6);
	KUNIT_EXPECT_EQ(test, tr->moved, 7);
	KUNIT_EXPECT_EQ(test, tr->pinned, 1);
	KUNIT_EXPECT_EQ(test, tr->absent + tr->refused, 0);
	KUNIT_EXPECT_EQ(test, tr->finals, 1);
	KUNIT_EXPECT_EQ(test, tr->npages[0], 16);
	KUNIT_EXPECT_EQ(test, tr->npages[1], 16);
	KUNIT_EXPECT_EQ(test, tr->npages[2], 16);
	KUNIT_EXPECT_GT(test, tr->ns, 0);
	md_check(t, 0, 10, 1);
	md_done(t);
}

static struct kunit_case md_cases[] = {
	KUNIT_CASE(md_test_round_trip),
	KUNIT_CASE(md_test_cpu_fault),
	KUNIT_CASE(md_test_holes),
	KUNIT_CASE(md_test_hole_system_page),
	KUNIT_CASE(md_test_referenced),
	KUNIT_CASE(md_test_pinned),
	KUNIT_CASE(md_test_locked),
	KUNIT_CASE(md_test_isolated),
	KUNIT_CASE(md_test_none_can),
	KUNIT_CASE(md_test_late_reference),
	KUNIT_CASE(md_test_file),
	KUNIT_CASE(md_test_file_missing),
	KUNIT_CASE(md_test_restored),
	KUNIT_CASE(md_test_carried),
	KUNIT_CASE(md_test_partial),
	KUNIT_CASE(md_test_zapped),
	KUNIT_CASE(md_test_arguments),
	KUNIT_CASE(md_test_selection),
	KUNIT_CASE(md_test_notified),
	KUNIT_CASE(md_test_fault_first),
	KUNIT_CASE(md_test_huge),
	KUNIT_CASE(md_test_huge_pinned),
	KUNIT_CASE(md_test_evict),
	KUNIT_CASE(md_test_evict_referenced),
	KUNIT_CASE(md_test_forked),
	KUNIT_CASE(md_test_forked_on_device),
	KUNIT_CASE(md_test_forked_evict),
	KUNIT_CASE(md_test_same_page),
	KUNIT_CASE_SLOW(md_test_storm),
	KUNIT_CASE_SLOW(md_test_zapped_at_once),
	KUNIT_CASE_SLOW(md_test_released_in_time),
	KUNIT_CASE_SLOW(md_test_pinned_meanwhile),
	KUNIT_CASE(md_test_other_cpu),
	KUNIT_CASE(md_test_statistics),
	KUNIT_CASE(md_test_traced),
	{}
};

static struct kunit_suite md_suite = {
	.name = "migrate_device",
	.suite_init = md_suite_init,
	.suite_exit = md_suite_exit,
	.init = md_init,
	.exit = md_exit,
	.test_cases = md_cases,
};

kunit_test_suites(&md_suite);

MODULE_DESCRIPTION("KUnit tests of migration to and from devices");
MODULE_LICENSE("GPL");
