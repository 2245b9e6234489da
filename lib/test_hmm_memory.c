// SPDX-License-Identifier: GPL-2.0
/*
 * The dummy device's own memory, and how pages of a process get there and back.
 *
 * Memory is added when the first page is to go to the device, by mm/hmm_devmem.c,
 * which has the free list, too. Of device-private memory there is nothing but
 * struct pages, since no CPU could get at it: the bytes of a page in use are in a
 * page of system memory, its *backing*, which page->zone_device_data points to
 * from hand-out to page_free. Device-coherent memory is reserved memory, named by
 * the module's parameters, and holds its bytes itself.
 *
 * Pages go to the device by MIGRATE_TO_DEV alone. They come back
 *
 * * by MIGRATE_TO_SYS, over a range of addresses,
 * * when a CPU touches one, if the memory is private: memory_to_ram(),
 * * when the memory is emptied, by pfn, whoever has them mapped: RELEASE, and the
 *   end of the module. Processes that had opened the device may have gone on
 *   without it, and some may have been forked since; their pages come home, too.
 *
 * What a migration does to translations
 *
 * Each migration over addresses begins with MMU_NOTIFY_MIGRATE, and the device
 * recognises its own by the owner. There are two owners, one a direction, because
 * the direction tells which pages stay where they are, and so which entries remain
 * true: on the way in those of pages that the device has already, on the way out
 * all others. Translations of pages that have arrived are not entered here: until
 * the migration has been finalized somebody might zap them unseen. They are read
 * from the CPU's page tables afterwards, as all others are.
 *
 * Lock order
 *
 *	tdev->plug			over hand-out, adding and emptying
 *	  mm->mmap_lock			over a migration by address
 *	    folio locks			from setup to finalize
 *	      shadow->lock		in the invalidate callback
 *
 * memory_to_ram() is called with the mmap lock held, for any process that has
 * pages on the device, and at any depth below a page fault. It takes nothing of
 * the above but what the migration itself takes: a page in use keeps the memory
 * where it is. So a page fault may happen with tdev->plug held, and none happens
 * under shadow->lock.
 */
#include <linux/dax.h>
#include <linux/err.h>
#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/hmm_devmem.h>
#include <linux/hugetlb_inline.h>
#include <linux/ioport.h>
#include <linux/jiffies.h>
#include <linux/migrate.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>

#include "test_hmm.h"

/* Pages that move at once. */
#define MIGRATE_PAGES	32UL
/* What is reserved for a device with coherent memory. */
#define SPM_BYTES	SZ_256M
/* How long to wait for pages that cannot be moved just now. */
#define EMPTY_PATIENCE	(10 * HZ)
#define EMPTY_POLL	(HZ / 20)

static uint memory_mib = SPM_BYTES / SZ_1M;
module_param(memory_mib, uint, 0644);
MODULE_PARM_DESC(memory_mib,
		 "Memory of a device, in MiB, when it is added (256; an even number)");

/* ---- Hand-out ---- */

/* A page of the device, locked and with one reference. NULL if it is full. */
static struct page *memory_take(struct tdev *tdev)
{
	struct page *backing = NULL, *page;

	if (tdev->type == MEMORY_DEVICE_PRIVATE) {
		backing = alloc_page(GFP_HIGHUSER);
		if (!backing)
			return NULL;
	}
	page = hmm_devmem_alloc_page(tdev->memory);
	if (!page) {
		if (backing)
			__free_page(backing);
		return NULL;
	}
	page->zone_device_data = backing;
	atomic_long_inc(&tdev->in_use);
	return page;
}

/* The same of system memory. */
static struct page *system_take(struct tdev *tdev)
{
	struct page *page = alloc_page(GFP_HIGHUSER_MOVABLE);

	if (page)
		lock_page(page);
	return page;
}

/* Called in any context */
static void memory_page_free(struct hmm_devmem *devmem, struct page *page)
{
	struct tdev *tdev = hmm_devmem_private(devmem);

	if (page->zone_device_data)
		__free_page(page->zone_device_data);
	page->zone_device_data = NULL;
	if (atomic_long_dec_and_test(&tdev->in_use))
		wake_up(&tdev->idle);
}

/* ---- Moving pages, once they have been collected ---- */

/* Fill the locked page @to, which is given up if that is impossible. */
static bool page_fill(struct page *to, struct page *from)
{
	if (!from) {
		clear_highpage(tdev_page_data(to));
		return true;
	}
	if (!copy_mc_highpage(tdev_page_data(to), tdev_page_data(from)))
		return true;
	unlock_page(to);
	put_page(to);
	return false;
}

/*
 * A page from @take, with the bytes of its source, for each that can be migrated.
 * Where there is none, the source stays. What was never there needs no page but in
 * the device: elsewhere the CPU finds it by itself. Returns how many there are.
 */
static unsigned long pages_fill(struct tdev *tdev,
				struct page *(*take)(struct tdev *tdev),
				const unsigned long *src, unsigned long *dst,
				unsigned long npages)
{
	unsigned long i, filled = 0;

	for (i = 0; i < npages; i++) {
		struct page *from = migrate_pfn_to_page(src[i]), *page;

		if (!(src[i] & MIGRATE_PFN_MIGRATE))
			continue;
		if (!from && take != memory_take)
			continue;
		page = take(tdev);
		if (!page || !page_fill(page, from))
			continue;
		dst[i] = migrate_pfn(page_to_pfn(page));
		if (src[i] & MIGRATE_PFN_WRITE)
			dst[i] |= MIGRATE_PFN_WRITE;
		filled++;
	}
	return filled;
}

static unsigned long pages_migrated(const unsigned long *src, unsigned long npages)
{
	unsigned long i, migrated = 0;

	for (i = 0; i < npages; i++)
		migrated += !!(src[i] & MIGRATE_PFN_MIGRATE);
	return migrated;
}

/* A CPU has touched a private page. The mmap lock is held for reading. */
static vm_fault_t memory_to_ram(struct vm_fault *vmf)
{
	struct hmm_devmem *devmem = hmm_devmem_from_page(vmf->page);
	struct tdev *tdev = hmm_devmem_private(devmem);
	unsigned long addr = vmf->address & PAGE_MASK;
	unsigned long src = 0, dst = 0, filled;
	struct migrate_vma args = {
		.vma = vmf->vma,
		.start = addr,
		.end = addr + PAGE_SIZE,
		.src = &src,
		.dst = &dst,
		.pgmap_owner = tdev,
		.flags = MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
		.fault_page = vmf->page,
	};

	if (migrate_vma_setup(&args))
		return VM_FAULT_SIGBUS;
	/* Somebody else is at it: the access is tried again */
	if (!args.cpages)
		return 0;
	filled = pages_fill(tdev, system_take, &src, &dst, args.npages);
	migrate_vma_pages(&args);
	migrate_vma_finalize(&args);
	return filled ? 0 : VM_FAULT_OOM;
}

/* ---- Migration of a range of addresses ---- */

/**
 * struct route - where pages go
 * @select: what pages, MIGRATE_VMA_SELECT_*
 * @owner: see "What a migration does to translations"
 * @take: a page at the other end
 */
struct route {
	enum migrate_vma_direction select;
	void *owner;
	struct page *(*take)(struct tdev *tdev);
};

static struct route route_in(struct tdev *tdev)
{
	return (struct route) {
		.select = MIGRATE_VMA_SELECT_SYSTEM,
		.owner = &tdev->inbound,
		.take = memory_take,
	};
}

static struct route route_out(struct tdev *tdev)
{
	bool is_private = tdev->type == MEMORY_DEVICE_PRIVATE;

	return (struct route) {
		.select = is_private ? MIGRATE_VMA_SELECT_DEVICE_PRIVATE :
				       MIGRATE_VMA_SELECT_DEVICE_COHERENT,
		.owner = tdev,
		.take = system_take,
	};
}

/**
 * tdev_memory_access() - what remains of access to a page in a migration
 * @tdev: the device that asks
 * @page: that it has an entry for
 * @range: whatever happens to the entry
 *
 * Context: Any; as a rule the invalidate callback.
 * Return: as mmu_notifier_range_access(), and all access for pages that do not take
 * part in a migration of this device's, or that it has made its own exclusively.
 */
unsigned int tdev_memory_access(const struct tdev *tdev, const struct page *page,
				const struct mmu_notifier_range *range)
{
	const unsigned int all = MMU_NOTIFIER_RANGE_READ | MMU_NOTIFIER_RANGE_WRITE;

	switch (range->event) {
	case MMU_NOTIFY_MIGRATE:
		if (range->owner == &tdev->inbound)
			return tdev_owns(tdev, page) ? all : 0;
		if (range->owner == tdev)
			return tdev_owns(tdev, page) ? 0 : all;
		return 0;
	case MMU_NOTIFY_EXCLUSIVE:
		return range->owner == tdev ? all : 0;
	default:
		return mmu_notifier_range_access(range);
	}
}

static struct mm_struct *access_mm(const struct access *acc)
{
	return acc->shadow->mirror.sub.mm;
}

/* Memory that pages could be taken from, if there are any. */
static bool vma_suits(const struct vm_area_struct *vma)
{
	return vma->vm_flags & VM_READ && !(vma->vm_flags & VM_SPECIAL) &&
	       !is_vm_hugetlb_page((struct vm_area_struct *)vma) &&
	       !vma_is_dax(vma);
}

/* All of it, before anything is moved. */
static int migrate_check(const struct access *acc)
{
	struct mm_struct *mm = access_mm(acc);
	unsigned long addr = acc->next;
	struct vm_area_struct *vma;
	struct vma_iterator vmi;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	vma_iter_init(&vmi, mm, addr);
	for_each_vma_range(vmi, vma, acc->end) {
		if (vma->vm_start > addr || !vma_suits(vma))
			break;
		addr = vma->vm_end;
	}
	mmap_read_unlock(mm);
	return addr < acc->end ? -EINVAL : 0;
}

/* One piece of one VMA. The mmap lock is held. */
static int migrate_piece(struct access *acc, const struct route *route,
			 struct vm_area_struct *vma, unsigned long start,
			 unsigned long end)
{
	unsigned long src[MIGRATE_PAGES], dst[MIGRATE_PAGES];
	struct migrate_vma args = {
		.vma = vma,
		.start = start,
		.end = end,
		.src = src,
		.dst = dst,
		.pgmap_owner = route->owner,
		.flags = route->select,
	};
	int ret;

	ret = migrate_vma_setup(&args);
	if (ret || !args.cpages)
		return ret;
	pages_fill(acc->shadow->tdev, route->take, src, dst, args.npages);
	migrate_vma_pages(&args);
	acc->pages += pages_migrated(src, args.npages);
	migrate_vma_finalize(&args);
	return 0;
}

/* The mappings may have changed since they were checked. */
static int migrate_range(struct access *acc, const struct route *route)
{
	struct mm_struct *mm = access_mm(acc);
	unsigned long addr, next;
	struct vm_area_struct *vma;
	int ret = 0;

	for (addr = acc->next; addr < acc->end && !ret; addr = next) {
		if (fatal_signal_pending(current) || mmap_read_lock_killable(mm))
			return -EINTR;
		vma = vma_lookup(mm, addr);
		if (vma && vma_suits(vma)) {
			next = min3(addr + MIGRATE_PAGES * PAGE_SIZE, acc->end,
				    vma->vm_end);
			ret = migrate_piece(acc, route, vma, addr, next);
		} else {
			ret = -EINVAL;
		}
		mmap_read_unlock(mm);
		cond_resched();
	}
	return ret;
}

/* ---- Adding and emptying ---- */

static const struct hmm_devmem_ops private_ops = {
	.migrate_to_ram = memory_to_ram,
	.page_free = memory_page_free,
};

static const struct hmm_devmem_ops coherent_ops = {
	.page_free = memory_page_free,
};

static void memory_unclaim(struct tdev *tdev)
{
	if (tdev->res)
		release_mem_region(tdev->res->start, resource_size(tdev->res));
	tdev->res = NULL;
}

static int memory_add(struct tdev *tdev)
{
	bool is_private = tdev->type == MEMORY_DEVICE_PRIVATE;
	u64 size = (u64)READ_ONCE(memory_mib) * SZ_1M;
	struct hmm_devmem_desc desc = {
		.name = tdev->name,
		.type = tdev->type,
		.size = is_private ? size : 0,
		.nid = NUMA_NO_NODE,
		.owner = tdev,
		.private = tdev,
		.ops = is_private ? &private_ops : &coherent_ops,
	};
	struct hmm_devmem *memory;

	if (!is_private) {
		size = min_t(u64, size, SPM_BYTES);
		tdev->res = request_mem_region(tdev->spm_addr, size, tdev->name);
		if (!tdev->res)
			return -EBUSY;
		desc.res = tdev->res;
	}
	memory = devm_hmm_devmem_add(tdev->home, &desc);
	if (IS_ERR(memory)) {
		memory_unclaim(tdev);
		return PTR_ERR(memory);
	}
	tdev->memory = memory;
	return 0;
}

/* On success there is memory, and tdev->plug is held for reading. */
static int memory_hold(struct tdev *tdev)
{
	int ret;

	if (down_read_killable(&tdev->plug))
		return -EINTR;
	if (tdev->memory)
		return 0;
	up_read(&tdev->plug);

	if (down_write_killable(&tdev->plug))
		return -EINTR;
	ret = tdev->memory ? 0 : memory_add(tdev);
	if (ret)
		up_write(&tdev->plug);
	else
		downgrade_write(&tdev->plug);
	return ret;
}

/* Bring home what can be moved of a few pages, whoever has mapped them. */
static void memory_evict(struct tdev *tdev, unsigned long pfn, unsigned long npages)
{
	unsigned long src[MIGRATE_PAGES] = { 0 }, dst[MIGRATE_PAGES] = { 0 };

	migrate_device_range(src, pfn, npages);
	pages_fill(tdev, system_take, src, dst, npages);
	migrate_device_pages(src, dst, npages);
	migrate_device_finalize(src, dst, npages);
}

static void memory_evict_all(struct tdev *tdev)
{
	unsigned long npages = hmm_devmem_nr_pages(tdev->memory);
	unsigned long first = hmm_devmem_first_pfn(tdev->memory);
	unsigned long i;

	for (i = 0; i < npages && atomic_long_read(&tdev->in_use);
	     i += MIGRATE_PAGES) {
		memory_evict(tdev, first + i, min(npages - i, MIGRATE_PAGES));
		cond_resched();
	}
}

static bool memory_is_idle(struct tdev *tdev)
{
	return !atomic_long_read(&tdev->in_use);
}

/*
 * Pages that somebody has locked or pinned are left over by a pass. Those that a CPU
 * has touched are about to come home: the wait is for them, more than for time.
 */
static int memory_empty(struct tdev *tdev)
{
	unsigned long until = jiffies + EMPTY_PATIENCE;
	long left;

	for (;;) {
		memory_evict_all(tdev);
		left = wait_event_killable_timeout(tdev->idle,
						   memory_is_idle(tdev),
						   EMPTY_POLL);
		if (left > 0)
			return 0;
		if (left < 0)
			return -EINTR;
		if (time_after(jiffies, until))
			return -EBUSY;
	}
}

/* Nothing of it is in use. */
static void memory_remove(struct tdev *tdev)
{
	devm_hmm_devmem_remove(tdev->home, tdev->memory);
	tdev->memory = NULL;
	memory_unclaim(tdev);
}

/* ---- Requests ---- */

/* MIGRATE_TO_DEV, the first half; the second is to read it all from there. */
int tdev_migrate_to_dev(struct access *acc)
{
	struct tdev *tdev = acc->shadow->tdev;
	struct route route = route_in(tdev);
	int ret;

	ret = migrate_check(acc) ?: memory_hold(tdev);
	if (ret)
		return ret;
	ret = migrate_range(acc, &route);
	up_read(&tdev->plug);
	return ret;
}

/* MIGRATE_TO_SYS: pages that are not of this device stay where they are. */
int tdev_migrate_to_sys(struct access *acc)
{
	struct route route = route_out(acc->shadow->tdev);

	acc->pages = 0;
	return migrate_check(acc) ?: migrate_range(acc, &route);
}

/* RELEASE: if the device cannot be emptied, all that is left stays as it was. */
int tdev_unplug(struct access *acc)
{
	struct tdev *tdev = acc->shadow->tdev;
	int ret = 0;

	if (down_write_killable(&tdev->plug))
		return -EINTR;
	if (tdev->memory) {
		ret = memory_empty(tdev);
		if (!ret)
			memory_remove(tdev);
	}
	up_write(&tdev->plug);
	return ret;
}

/* ---- Coming and going ---- */

int tdev_memory_init(struct tdev *tdev)
{
	init_rwsem(&tdev->plug);
	init_waitqueue_head(&tdev->idle);
	tdev->home = hmm_devmem_device_create(tdev->name);
	return PTR_ERR_OR_ZERO(tdev->home);
}

/* Nobody has the device open. What is still in use comes home, or is waited for. */
void tdev_memory_exit(struct tdev *tdev)
{
	while (tdev->memory) {
		memory_evict_all(tdev);
		if (wait_event_timeout(tdev->idle, memory_is_idle(tdev), EMPTY_POLL))
			memory_remove(tdev);
	}
	hmm_devmem_device_destroy(tdev->home);
}
