// SPDX-License-Identifier: GPL-2.0
/*
 * The code that Documentation/vm/ shows
 *
 * Compiled, so that it is what the headers say, and linked nowhere: what is of the
 * driver's own device is declared in hmm_manual.h and exists no more than the
 * device. For a driver that runs see hmm_sample.c.
 *
 * The lines with dashes are where the manual begins and ends to quote.
 */
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/jiffies.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "hmm_manual.h"

/* ---- subscription: invalidate ---- */
static bool my_invalidate(struct mmu_interval_notifier *sub,
			  const struct mmu_notifier_range *range,
			  unsigned long cur_seq)
{
	struct my_buffer *buf = container_of(sub, struct my_buffer, sub);

	if (mmu_notifier_range_blockable(range))
		mutex_lock(&buf->lock);
	else if (!mutex_trylock(&buf->lock))
		return false;
	mmu_interval_set_seq(sub, cur_seq);
	my_table_clear(buf->table, range->start, range->end - 1);
	my_flush_and_wait(buf->table);
	mutex_unlock(&buf->lock);
	return true;
}

static const struct mmu_interval_notifier_ops my_sub_ops = {
	.invalidate = my_invalidate,
};

/* ---- subscription: come and go ---- */
static int my_open(struct my_buffer *buf, unsigned long start, unsigned long length)
{
	mutex_init(&buf->lock);
	return mmu_interval_notifier_insert(&buf->sub, current->mm, start, length,
					    &my_sub_ops);
}

static void my_close(struct my_buffer *buf)
{
	mmu_interval_notifier_remove(&buf->sub);
}

/* ---- range: pfns ---- */
/* Called with buf->lock held */
static void my_enter(struct my_buffer *buf, const struct hmm_range *range)
{
	unsigned long i;

	for (i = 0; i < range->populated; i++) {
		unsigned long entry = range->hmm_pfns[i];

		if (entry & HMM_PFN_VALID)
			my_table_enter(buf->table, range->start + (i << PAGE_SHIFT),
				       page_to_pfn(hmm_pfn_to_page(entry)), 1,
				       entry & HMM_PFN_WRITE);
	}
}

/* ---- range: fault ---- */
static int my_fault(struct my_buffer *buf, unsigned long start, unsigned long end,
		    unsigned long *pfns)
{
	struct hmm_range range = {
		.notifier = &buf->sub,
		.start = start,
		.end = end,
		.hmm_pfns = pfns,
		.default_flags = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE,
	};
	unsigned long timeout = msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT);
	unsigned long until = jiffies + timeout;
	bool done;
	int ret;

	do {
		ret = hmm_range_fault_unlocked_timeout(&range, timeout);
		if (ret)
			return ret;
		mutex_lock(&buf->lock);
		done = !mmu_interval_read_retry(range.notifier,
						range.notifier_seq);
		if (done)
			my_enter(buf, &range);
		mutex_unlock(&buf->lock);
	} while (!done && time_before(jiffies, until));
	return done ? 0 : -EBUSY;
}

/* ---- range: requests ---- */
/* Write to the first page, read the others if they are there */
static int my_fault_first(struct my_buffer *buf, struct hmm_range *range,
			  unsigned long timeout)
{
	unsigned long npages = (range->end - range->start) >> PAGE_SHIFT;

	memset(range->hmm_pfns, 0, npages * sizeof(*range->hmm_pfns));
	range->hmm_pfns[0] = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE;
	range->default_flags = 0;
	range->pfn_flags_mask = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE;
	return hmm_range_fault_unlocked_timeout(range, timeout);
}

/* ---- range: extents ---- */
/* Under the lock of the driver; -EAGAIN on a collision */
static int my_enter_extents(struct my_buffer *buf, const struct hmm_range *range)
{
	unsigned long i;
	int ret = -EAGAIN;

	mutex_lock(&buf->lock);
	if (mmu_interval_read_retry(range->notifier, range->notifier_seq))
		goto out;
	for (i = 0; i < range->nr_extents; i++) {
		const struct hmm_extent *ext = range->extents + i;

		if (ext->flags & HMM_EXTENT_VALID)
			my_table_enter(buf->table, ext->start, ext->pfn, ext->npages,
				       ext->flags & HMM_EXTENT_WRITE);
	}
	ret = 0;
out:
	mutex_unlock(&buf->lock);
	return ret;
}

static int my_fault_extents(struct my_buffer *buf, unsigned long start,
			    unsigned long end)
{
	struct hmm_extent extents[16];
	struct hmm_range range = {
		.notifier = &buf->sub,
		.start = start,
		.end = end,
		.extents = extents,
		.max_extents = ARRAY_SIZE(extents),
		.default_flags = HMM_PFN_REQ_FAULT,
	};
	unsigned long timeout = msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT);
	int ret;

	while (range.start < range.end) {
		ret = hmm_range_fault_unlocked_timeout(&range, timeout);
		if (!ret)
			ret = my_enter_extents(buf, &range);
		if (!ret)
			range.start += range.populated << PAGE_SHIFT;
		else if (ret != -EAGAIN)
			return ret;
	}
	return 0;
}

/* ---- range: encoding ---- */
static const struct hmm_encoding my_encoding = {
	.valid = MY_PTE_VALID,
	.write = MY_PTE_WRITE,
	.device_private = MY_PTE_VRAM,
	.pfn_shift = 12,
};

static int my_fault_entries(struct my_buffer *buf, struct hmm_range *range,
			    u64 *my_entries, unsigned long timeout)
{
	range->encoding = &my_encoding;
	range->entries = my_entries;
	return hmm_range_fault_unlocked_timeout(range, timeout);
}

/* ---- range: with the lock ---- */
static int my_commit(struct my_buffer *buf, struct hmm_range *range)
{
	int ret = -EBUSY;

	mutex_lock(&buf->lock);
	if (!mmu_interval_read_retry(range->notifier, range->notifier_seq)) {
		my_enter(buf, range);
		ret = 0;
	}
	mutex_unlock(&buf->lock);
	return ret;
}

/* The mmap lock is held */
static int my_try(struct my_buffer *buf, struct hmm_range *range)
{
	int ret;

	range->notifier_seq = mmu_interval_read_begin(range->notifier);
	ret = hmm_range_fault(range);
	return ret ?: my_commit(buf, range);
}

static int my_fault_locked(struct my_buffer *buf, struct hmm_range *range)
{
	struct mm_struct *mm = range->notifier->mm;
	int ret, tries = 0;

	do {
		ret = mmap_read_lock_killable(mm);
		if (ret)
			return ret;
		ret = my_try(buf, range);
		mmap_read_unlock(mm);
	} while (ret == -EBUSY && ++tries < 4);
	if (ret != -EBUSY)
		return ret;

	ret = hmm_range_lock(range);
	if (ret)
		return ret;
	ret = my_try(buf, range);
	if (ret == -EBUSY)
		ret = my_try(buf, range);
	hmm_range_unlock(range);
	return ret;
}

/* ---- list: callbacks ---- */
static int my_vm_start(struct mmu_notifier *mn,
		       const struct mmu_notifier_range *range)
{
	struct my_vm *vm = container_of(mn, struct my_vm, mn);

	spin_lock(&vm->lock);
	vm->open++;
	my_table_clear(vm->table, range->start, range->end - 1);
	spin_unlock(&vm->lock);
	return 0;
}

static void my_vm_end(struct mmu_notifier *mn,
		      const struct mmu_notifier_range *range)
{
	struct my_vm *vm = container_of(mn, struct my_vm, mn);

	spin_lock(&vm->lock);
	vm->closed++;
	vm->open--;
	spin_unlock(&vm->lock);
}

static void my_vm_release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	struct my_vm *vm = container_of(mn, struct my_vm, mn);

	spin_lock(&vm->lock);
	my_table_clear(vm->table, 0, ULONG_MAX);
	spin_unlock(&vm->lock);
}

static const struct mmu_notifier_ops my_vm_ops = {
	.invalidate_range_start = my_vm_start,
	.invalidate_range_end = my_vm_end,
	.release = my_vm_release,
};

/* ---- list: commit ---- */
/* @closed is vm->closed from before the page tables were read, under the lock */
static bool my_vm_commit(struct my_vm *vm, unsigned long closed,
			 unsigned long addr, unsigned long pfn, bool write)
{
	bool good;

	spin_lock(&vm->lock);
	good = !vm->open && vm->closed == closed;
	if (good)
		my_table_enter(vm->table, addr, pfn, 1, write);
	spin_unlock(&vm->lock);
	return good;
}

/* ---- two passes ---- */
struct my_flush {
	struct mmu_interval_notifier_finish finish;
	struct dma_fence *fence;
};

static bool my_flush_start(struct mmu_interval_notifier *sub,
			   const struct mmu_notifier_range *range,
			   unsigned long cur_seq,
			   struct mmu_interval_notifier_finish **finish)
{
	struct my_buffer *buf = container_of(sub, struct my_buffer, sub);
	struct my_flush *flush = NULL;

	if (mmu_notifier_range_blockable(range))
		mutex_lock(&buf->lock);
	else if (!mutex_trylock(&buf->lock))
		return false;
	mmu_interval_set_seq(sub, cur_seq);
	my_table_clear(buf->table, range->start, range->end - 1);
	/* A fence is waited for asleep, if sleep is allowed */
	if (mmu_notifier_range_blockable(range))
		flush = my_flush_begin(buf, range);
	if (!flush)
		my_flush_and_wait(buf->table);
	mutex_unlock(&buf->lock);
	if (flush)
		*finish = &flush->finish;
	return true;
}

static void my_flush_finish(struct mmu_interval_notifier_finish *finish)
{
	struct my_flush *flush = container_of(finish, struct my_flush, finish);

	dma_fence_wait(flush->fence, false);
	my_flush_put(flush);
}

static const struct mmu_interval_notifier_ops my_two_pass_ops = {
	.invalidate_start = my_flush_start,
	.invalidate_finish = my_flush_finish,
};

/* ---- mirror: invalidate ---- */
static bool my_mirror_invalidate(struct hmm_mirror *mirror,
				 const struct mmu_notifier_range *range)
{
	struct my_context *ctx = container_of(mirror, struct my_context, mirror);
	unsigned int access = mmu_notifier_range_access(range);
	unsigned long first = hmm_mirror_first(mirror, range);
	unsigned long last = hmm_mirror_last(mirror, range);

	if (access & MMU_NOTIFIER_RANGE_WRITE)
		return true;
	if (access & MMU_NOTIFIER_RANGE_READ)
		my_table_write_protect(ctx->table, first, last);
	else
		my_table_clear(ctx->table, first, last);
	my_flush_and_wait(ctx->table);
	if (range->event == MMU_NOTIFY_UNMAP)
		my_table_free_empty(ctx->table, first, last);
	return true;
}

/* ---- mirror: map ---- */
struct my_fault {
	struct hmm_range range;
	unsigned long entered;
};

static int my_mirror_map(struct hmm_mirror *mirror, struct hmm_range *range)
{
	struct my_context *ctx = container_of(mirror, struct my_context, mirror);
	struct my_fault *fault = container_of(range, struct my_fault, range);
	unsigned long i;

	for (i = 0; i < range->populated; i++)
		my_table_set(ctx->table, range->start + (i << PAGE_SHIFT),
			     range->entries[i]);
	fault->entered = i;
	return 0;
}

/* ---- mirror: fault ---- */
static int my_mirror_fault(struct my_context *ctx, unsigned long start,
			   unsigned long end, u64 *entries)
{
	struct my_fault fault = {
		.range = {
			.start = start,
			.end = end,
			.encoding = &my_encoding,
			.entries = entries,
			.default_flags = HMM_PFN_REQ_FAULT,
		},
	};

	return hmm_mirror_fault(&ctx->mirror, &fault.range,
				msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT));
}

/* ---- mirror: tree ---- */
static int my_tree_map(struct hmm_mirror *mirror, struct hmm_range *range)
{
	struct my_tree *tree = container_of(mirror, struct my_tree, mirror);
	unsigned long first = range->start >> PAGE_SHIFT, i;

	for (i = 0; i < range->populated; i++) {
		unsigned long pfn = range->hmm_pfns[i];
		int ret;

		if (!(pfn & HMM_PFN_VALID))
			continue;
		ret = xa_err(xa_store(&tree->pages, first + i,
				      xa_tag_pointer(hmm_pfn_to_page(pfn),
						     !!(pfn & HMM_PFN_WRITE)),
				      GFP_NOWAIT | __GFP_NOWARN));
		/* What has been stored is true, and may stay */
		if (ret)
			return ret == -ENOMEM ? -EAGAIN : ret;
	}
	return 0;
}

/* The lock is not held: an invalidation may undo it, and map asks again */
static int my_tree_refill(struct hmm_mirror *mirror, struct hmm_range *range)
{
	struct my_tree *tree = container_of(mirror, struct my_tree, mirror);
	unsigned long i;
	int ret = 0;

	for (i = range->start; i < range->end && !ret; i += PAGE_SIZE)
		ret = xa_reserve(&tree->pages, i >> PAGE_SHIFT, GFP_KERNEL);
	return ret;
}

static void my_tree_free(struct hmm_mirror *mirror)
{
	struct my_tree *tree = container_of(mirror, struct my_tree, mirror);

	xa_destroy(&tree->pages);
	kfree(tree);
}

/* ---- dma: callbacks ---- */
static void my_dma_lock(struct hmm_dma_map *map)
	__acquires(map)
{
	spin_lock(&container_of(map, struct my_dma_buffer, map)->lock);
}

static void my_dma_unlock(struct hmm_dma_map *map)
	__releases(map)
{
	spin_unlock(&container_of(map, struct my_dma_buffer, map)->lock);
}

static int my_dma_enter(struct hmm_dma_map *map, size_t first, size_t npages)
{
	size_t i;

	for (i = first; i < first + npages; i++)
		if (map->pfn_list[i] & HMM_PFN_DMA_MAPPED)
			my_set_entry(i, map->dma_list[i],
				     map->pfn_list[i] & HMM_PFN_WRITE);
	return 0;
}

static void my_dma_drop(struct hmm_dma_map *map, size_t first, size_t npages)
{
	my_clear_entries(first, npages);
	my_flush_tlb_and_wait(map);
}

static const struct hmm_dma_ops my_dma_ops = {
	.lock = my_dma_lock,
	.unlock = my_dma_unlock,
	.enter = my_dma_enter,
	.drop = my_dma_drop,
};

/* ---- dma: invalidate ---- */
static bool my_dma_invalidate(struct mmu_interval_notifier *sub,
			      const struct mmu_notifier_range *range,
			      unsigned long cur_seq)
{
	struct my_dma_buffer *buf = container_of(sub, struct my_dma_buffer, sub);
	unsigned long start = max(range->start, buf->start);
	unsigned long last = min(range->end - 1, sub->interval_tree.last);
	size_t first = (start - buf->start) >> PAGE_SHIFT;
	size_t npages = ((last - buf->start) >> PAGE_SHIFT) - first + 1;

	spin_lock(&buf->lock);
	mmu_interval_set_seq(sub, cur_seq);
	hmm_dma_unmap_range(buf->dev, &buf->map, first, npages);
	spin_unlock(&buf->lock);
	return true;
}

static const struct mmu_interval_notifier_ops my_dma_sub_ops = {
	.invalidate = my_dma_invalidate,
};

/* ---- dma: begin ---- */
static int my_dma_open(struct my_dma_buffer *buf, struct device *dev,
		       unsigned long start, size_t npages)
{
	int ret;

	spin_lock_init(&buf->lock);
	buf->dev = dev;
	buf->start = start;
	ret = hmm_dma_map_alloc(dev, &buf->map, npages, PAGE_SIZE);
	if (ret)
		return ret;
	buf->map.ops = &my_dma_ops;
	ret = mmu_interval_notifier_insert(&buf->sub, current->mm, start,
					   npages << PAGE_SHIFT, &my_dma_sub_ops);
	if (ret)
		hmm_dma_map_free(dev, &buf->map);
	return ret;
}

/* ---- dma: fault ---- */
static long my_dma_fault(struct my_dma_buffer *buf, unsigned long addr,
			 size_t npages)
{
	struct hmm_range range = {
		.notifier = &buf->sub,
		.start = addr,
		.end = addr + (npages << PAGE_SHIFT),
		.default_flags = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE,
	};
	size_t idx = (addr - buf->start) >> PAGE_SHIFT;

	return hmm_dma_map_range(buf->dev, &buf->map, idx, &range,
				 msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT));
}

/* ---- dma: end ---- */
static void my_dma_close(struct my_dma_buffer *buf, size_t npages)
{
	spin_lock(&buf->lock);
	hmm_dma_unmap_range(buf->dev, &buf->map, 0, npages);
	spin_unlock(&buf->lock);
	mmu_interval_notifier_remove(&buf->sub);
	hmm_dma_map_free(buf->dev, &buf->map);
}

/* ---- devmem: where a page is ---- */
static u64 my_vram_address(struct page *page)
{
	return (u64)hmm_devmem_page_index(page) << PAGE_SHIFT;
}

/* ---- migration: to the device ---- */
/* The mmap lock of vma->vm_mm is held; at most MY_CHUNK pages */
static int my_migrate_to_device(struct my_gpu *gpu, struct vm_area_struct *vma,
				unsigned long start, unsigned long end,
				unsigned long *src, unsigned long *dst)
{
	struct migrate_vma args = {
		.vma = vma,
		.start = start,
		.end = end,
		.src = src,
		.dst = dst,
		.pgmap_owner = gpu,
		.flags = MIGRATE_VMA_SELECT_SYSTEM,
	};
	struct page *from, *page;
	unsigned long i;
	int ret;

	ret = migrate_vma_setup(&args);
	if (ret || !args.cpages)
		return ret;
	for (i = 0; i < args.npages; i++) {
		if (!(src[i] & MIGRATE_PFN_MIGRATE))
			continue;
		page = hmm_devmem_alloc_page(gpu->vram);
		if (!page)
			break;
		from = migrate_pfn_to_page(src[i]);
		if (from)
			my_copy_to_vram(gpu, my_vram_address(page), from);
		else
			my_clear_vram(gpu, my_vram_address(page));
		dst[i] = migrate_pfn(page_to_pfn(page));
	}
	my_wait_for_copies(gpu);
	migrate_vma_pages(&args);
	migrate_vma_finalize(&args);
	return 0;
}

/* ---- migration: home ---- */
static vm_fault_t my_migrate_to_ram(struct vm_fault *vmf)
{
	struct hmm_devmem *vram = hmm_devmem_from_page(vmf->page);
	struct my_gpu *gpu = hmm_devmem_private(vram);
	unsigned long src, dst;
	struct migrate_vma args = {
		.vma = vmf->vma,
		.start = vmf->address & PAGE_MASK,
		.end = (vmf->address & PAGE_MASK) + PAGE_SIZE,
		.src = &src,
		.dst = &dst,
		.pgmap_owner = gpu,
		.flags = MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
		.fault_page = vmf->page,
	};
	struct page *page;

	if (migrate_vma_setup(&args))
		return VM_FAULT_SIGBUS;
	if (!args.cpages)
		return 0;
	page = alloc_page_vma(GFP_HIGHUSER_MOVABLE, vmf->vma, vmf->address);
	if (page) {
		lock_page(page);
		my_copy_from_vram(gpu, page, my_vram_address(vmf->page));
		dst = migrate_pfn(page_to_pfn(page));
	}
	my_wait_for_copies(gpu);
	migrate_vma_pages(&args);
	migrate_vma_finalize(&args);
	return page ? 0 : VM_FAULT_OOM;
}

/* ---- migration: all ---- */
static void my_evict_chunk(struct my_gpu *gpu, unsigned long first,
			   unsigned long npages, unsigned long *src,
			   unsigned long *dst)
{
	struct page *from, *page;
	unsigned long i;

	migrate_device_range(src, first, npages);
	for (i = 0; i < npages; i++) {
		dst[i] = 0;
		if (!(src[i] & MIGRATE_PFN_MIGRATE))
			continue;
		page = alloc_page(GFP_HIGHUSER_MOVABLE);
		if (!page)
			continue;
		lock_page(page);
		from = migrate_pfn_to_page(src[i]);
		my_copy_from_vram(gpu, page, my_vram_address(from));
		dst[i] = migrate_pfn(page_to_pfn(page));
	}
	my_wait_for_copies(gpu);
	migrate_device_pages(src, dst, npages);
	migrate_device_finalize(src, dst, npages);
}

static int my_evict_all(struct my_gpu *gpu)
{
	unsigned long first = hmm_devmem_first_pfn(gpu->vram);
	unsigned long nr = hmm_devmem_nr_pages(gpu->vram), i;
	unsigned long *src;

	src = kcalloc(2 * MY_CHUNK, sizeof(*src), GFP_KERNEL);
	if (!src)
		return -ENOMEM;
	while (my_vram_in_use(gpu)) {
		for (i = 0; i < nr; i += MY_CHUNK)
			my_evict_chunk(gpu, first + i, min(nr - i, MY_CHUNK),
				       src, src + MY_CHUNK);
		/* What was pinned or locked by somebody is tried again */
		msleep(20);
	}
	kfree(src);
	return 0;
}

/* ---- devmem: free ---- */
static void my_page_free(struct hmm_devmem *vram, struct page *page)
{
	struct my_gpu *gpu = hmm_devmem_private(vram);

	my_chunk_put(gpu, page->zone_device_data);
}

/* ---- devmem: add ---- */
static const struct hmm_devmem_ops my_vram_ops = {
	.migrate_to_ram = my_migrate_to_ram,
	.page_free = my_page_free,		/* optional */
};

static int my_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct hmm_devmem_desc desc = {
		.name = "my_gpu vram",
		.type = MEMORY_DEVICE_PRIVATE,
		.nid = NUMA_NO_NODE,
		.ops = &my_vram_ops,
	};
	struct my_gpu *gpu;

	gpu = devm_kzalloc(&pdev->dev, sizeof(*gpu), GFP_KERNEL);
	if (!gpu)
		return -ENOMEM;
	gpu->dev = &pdev->dev;
	desc.size = my_vram_size(gpu);
	desc.owner = gpu;
	desc.private = gpu;
	gpu->vram = devm_hmm_devmem_add(&pdev->dev, &desc);
	if (IS_ERR(gpu->vram))
		return PTR_ERR(gpu->vram);
	pci_set_drvdata(pdev, gpu);
	return my_start(gpu);
}

/* ---- devmem: remove ---- */
static void my_remove(struct pci_dev *pdev)
{
	struct my_gpu *gpu = pci_get_drvdata(pdev);

	hmm_devmem_stop(gpu->vram);
	if (my_evict_all(gpu))
		dev_warn(gpu->dev, "waiting for the owners of the memory\n");
}

/* ---- devmem: coherent ---- */
static int my_add_hbm(struct my_gpu *gpu, resource_size_t start,
		      resource_size_t size)
{
	struct hmm_devmem_desc desc = {
		.name = "my_gpu hbm",
		.type = MEMORY_DEVICE_COHERENT,
		.nid = NUMA_NO_NODE,
		.owner = gpu,
		.private = gpu,
		.ops = &my_hbm_ops,
	};

	desc.res = devm_request_mem_region(gpu->dev, start, size, desc.name);
	if (!desc.res)
		return -EBUSY;
	gpu->hbm[0] = devm_hmm_devmem_add(gpu->dev, &desc);
	return PTR_ERR_OR_ZERO(gpu->hbm[0]);
}

/* ---- devmem: nodes ---- */
static struct device *my_add_nodes(struct my_gpu *gpu, struct hmm_devmem_desc *desc,
				   int nr)
{
	struct device *umbrella = hmm_devmem_device_create("my_gpu0");
	int i;

	for (i = 0; i < nr && !IS_ERR(umbrella); i++) {
		desc->nid = my_node_of(gpu, i);
		gpu->hbm[i] = devm_hmm_devmem_add(umbrella, desc);
		if (IS_ERR(gpu->hbm[i])) {
			hmm_devmem_device_destroy(umbrella);
			umbrella = ERR_CAST(gpu->hbm[i]);
		}
	}
	return umbrella;
}

/* Locked and with one reference, from the memory that is nearest */
static struct page *my_take_near(struct device *umbrella, int *nid)
{
	struct page *page = hmm_devmem_device_alloc_page(umbrella);

	if (page)
		*nid = page_to_nid(page);
	return page;
}

/* ---- pgmap: add ---- */
static const struct dev_pagemap_ops my_pgmap_ops = {
	.page_free = my_pgmap_page_free,
};

static int my_add_pages(struct device *dev, struct dev_pagemap *pgmap,
			const struct resource *res, void *my_owner)
{
	void *addr;

	pgmap->type = MEMORY_DEVICE_COHERENT;
	pgmap->range.start = res->start;
	pgmap->range.end = res->end;
	pgmap->nr_range = 1;
	pgmap->ops = &my_pgmap_ops;
	pgmap->owner = my_owner;
	addr = devm_memremap_pages(dev, pgmap);
	return PTR_ERR_OR_ZERO(addr);
}

/* ---- end ---- */
