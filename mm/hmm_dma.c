// SPDX-License-Identifier: GPL-2.0
/*
 * Heterogeneous memory management: DMA mapping of what a range found
 */

/**
 * DOC: DMA mapping
 *
 * A device behind the DMA API cannot use a pfn: the page has to be *mapped*, and
 * then has an address that the device can use. A &struct hmm_dma_map keeps the
 * entries of a stretch of address space and the addresses that belong to them.
 *
 * hmm_dma_map_range() does all that a device fault takes: it faults the pages in,
 * takes the driver's lock, looks for a collision, maps, and lets the driver fill
 * the device's page table, under that same lock. A driver that has a loop of its
 * own calls hmm_dma_map_pfn() in the place where it has found no collision.
 *
 * A page that the process may write is mapped for both directions, any other to
 * be read by the device. It counts as written to, and is made dirty, when a
 * mapping for both directions ends.
 *
 * CPU and device use such memory at the same time: there is no moment at which it
 * changes hands. So no device is accepted that would be given copies of the pages
 * (bounce buffers). For one that is not coherent with the CPUs, caches are seen to
 * when a mapping begins and ends; in between that is for the driver to do.
 */

/**
 * DOC: Runs
 *
 * Pages with consecutive pfns and the same permission are mapped as one *run*: a
 * huge page is one call of the DMA API, and one contiguous stretch of an IOMMU.
 * The DMA API unmaps what it mapped, and nothing less. So if one page of a run has
 * to go, all of the run goes, also what lies outside of the range that was
 * invalidated. The driver is told by &hmm_dma_ops.drop, which takes all of it from
 * the device. The device faults again on what it misses.
 *
 * hmm_dma_map_pfn() makes no runs. A driver that uses nothing else is never told
 * of more than it asked for, and needs no operations.
 *
 * A run is no longer than dma_get_max_seg_size(), does not cross
 * dma_get_seg_boundary(), and is one stretch for the device, too: where a bus has
 * regions of memory at different offsets (dma_range_map), it ends with its region.
 * Drivers whose devices know no such limit say so by
 * dma_set_max_seg_size(); the default is 64 KiB.
 */

/**
 * DOC: Locking
 *
 * Mapping and unmapping need *the driver's lock*: the one that its invalidate
 * callback takes. It is taken by the caller of hmm_dma_map_pfn(),
 * hmm_dma_unmap_pfn() and hmm_dma_unmap_range(), and by hmm_dma_map_range() itself
 * through &hmm_dma_ops. Nothing sleeps and nothing is allocated with a right to
 * reclaim under it: it may be a spinlock, and reclaim may wait for it.
 *
 * The invalidate callback unmaps before it returns, as the page may be gone
 * afterwards: it takes the lock, calls mmu_interval_set_seq(), takes the device's
 * entries out, and calls hmm_dma_unmap_range(). Before a subscription is removed
 * everything is unmapped, because behind it nobody keeps the pages.
 *
 * &hmm_dma_map.pfn_list is written by the walk, without that lock. Two walks over
 * the same entries would not do:
 *
 * ::
 *
 *	walk A				walk B
 *	reads PTE: page P
 *	    (invalidation: P goes, Q comes)
 *					read_begin, reads PTE: page Q
 *					writes entry: Q
 *	writes entry: P
 *					read_retry: no collision
 *					maps P
 *
 * hmm_dma_map_range() lets one walk at a time into a map. A driver with a loop of
 * its own sees to that itself.
 */

/*
 * What is mapped
 *
 * The walk may write an entry at any moment. It may find another permission than
 * the page was mapped with, or nothing at all, and it loses HMM_PFN_DMA_MAPPED if it
 * was not asked to keep it. So none of what is needed to unmap a page is read from
 * its entry. @mapped has it, one word for each, changed under the driver's lock only:
 *
 *	0			not mapped
 *	pfn | flags		mapped
 *
 * with HMM_PFN_DMA_MAPPED always; HMM_PFN_WRITE if it was mapped for both
 * directions; the two flags of P2PDMA; and, in the place of the order, where runs
 * begin and end. HMM_PFN_INOUT_FLAGS of the entry are a copy.
 *
 * Pages are not referenced. What @mapped names is there for as long as the CPU
 * maps it, and that is until the invalidate callback has returned.
 *
 * Lock order
 *
 *	map->walk
 *	  mmap_lock and what faults take
 *	  the driver's lock
 *	    what folio_mark_dirty() takes (spinlocks)
 *	    what the DMA API takes (spinlocks)
 *
 * map->walk is never taken by an invalidation.
 *
 * Short names: idx is the index of an entry, n a number of entries, first and end
 * (exclusive) bound a run or a range of entries.
 */

#include <linux/dma-direct.h>
#include <linux/dma-map-ops.h>
#include <linux/dma-mapping.h>
#include <linux/export.h>
#include <linux/hmm.h>
#include <linux/hmm-dma.h>
#include <linux/iommu-dma.h>
#include <linux/jiffies.h>
#include <linux/log2.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/overflow.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/swiotlb.h>

#ifdef CONFIG_SWIOTLB_XEN
#include <xen/swiotlb-xen.h>
#endif

#define RUN_FIRST	BIT(HMM_PFN_ORDER_SHIFT)
#define RUN_LAST	BIT(HMM_PFN_ORDER_SHIFT + 1)
/* On the first page of a run: made by the call in progress */
#define RUN_NEW		BIT(HMM_PFN_ORDER_SHIFT + 2)

static unsigned long word_pfn(unsigned long word)
{
	return word & ~(unsigned long)HMM_PFN_FLAGS;
}

/* A walk may be writing */
static unsigned long entry_read(const struct hmm_dma_map *map, size_t idx)
{
	return READ_ONCE(map->pfn_list[idx]);
}

/*
 * Say in the entry what is mapped. A walk may be writing it: what the walk has
 * found must not be replaced by what was there before. So no plain store.
 */
static void entry_tell(struct hmm_dma_map *map, size_t idx)
{
	const unsigned long flags = HMM_PFN_INOUT_FLAGS;
	unsigned long entry = entry_read(map, idx), told;

	do {
		told = (entry & ~flags) | (map->mapped[idx] & flags);
		if (told == entry)
			return;
	} while (!try_cmpxchg_relaxed(&map->pfn_list[idx], &entry, told));
}

static size_t block_pages(const struct hmm_dma_map *map)
{
	return map->dma_entry_size >> PAGE_SHIFT;
}

/* ---- Runs ---- */

static size_t run_first(const struct hmm_dma_map *map, size_t idx)
{
	while (!(map->mapped[idx] & RUN_FIRST))
		idx--;
	return idx;
}

static size_t run_end(const struct hmm_dma_map *map, size_t idx)
{
	while (!(map->mapped[idx] & RUN_LAST))
		idx++;
	return idx + 1;
}

static enum dma_data_direction run_direction(unsigned long word)
{
	return word & HMM_PFN_WRITE ? DMA_BIDIRECTIONAL : DMA_TO_DEVICE;
}

/*
 * A coherent device has nothing to synchronise; and a page may well be mapped
 * twice, which the DMA API allows to those only who say that they know.
 */
static unsigned long run_attrs(struct device *dev)
{
	return dev_is_dma_coherent(dev) ? DMA_ATTR_SKIP_CPU_SYNC : 0;
}

/* The CPU still maps the pages, so they have a folio, and it stays as it is. */
static void run_mark_dirty(unsigned long pfn, size_t n)
{
	struct folio *folio;
	struct page *page;
	size_t part;

	for (; n; n -= part, pfn += part) {
		page = pfn_to_page(pfn);
		folio = page_folio(page);
		part = min_t(size_t, n, folio_nr_pages(folio) -
					folio_page_idx(folio, page));
		folio_mark_dirty(folio);
	}
}

static void run_unmap(struct device *dev, struct hmm_dma_map *map, size_t first,
		      size_t end, bool dirty)
{
	unsigned long word = map->mapped[first];
	size_t idx;

	if (!(word & HMM_PFN_P2PDMA_BUS))
		dma_unmap_page_attrs(dev, map->dma_list[first],
				     (end - first) << PAGE_SHIFT,
				     run_direction(word), run_attrs(dev));
	if (dirty && word & HMM_PFN_WRITE && !(word & HMM_PFN_P2PDMA))
		run_mark_dirty(word_pfn(word), end - first);

	for (idx = first; idx < end; idx++) {
		map->mapped[idx] = 0;
		map->dma_list[idx] = DMA_MAPPING_ERROR;
		entry_tell(map, idx);
	}
	map->nr_mapped -= end - first;
}

/* Take a run from the device, then from the DMA API; returns where it ended. */
static size_t run_drop(struct device *dev, struct hmm_dma_map *map, size_t idx)
{
	size_t first = run_first(map, idx), end = run_end(map, idx);

	if (map->ops && map->ops->drop)
		map->ops->drop(map, first, end - first);
	run_unmap(dev, map, first, end, true);
	return end;
}

static void run_record(struct hmm_dma_map *map, size_t first, size_t n,
		       unsigned long flags, dma_addr_t addr)
{
	unsigned long word = word_pfn(entry_read(map, first)) |
			     HMM_PFN_DMA_MAPPED | flags;
	size_t i;

	for (i = 0; i < n; i++) {
		map->mapped[first + i] = word + i;
		map->dma_list[first + i] = addr + (i << PAGE_SHIFT);
		entry_tell(map, first + i);
	}
	map->mapped[first] |= RUN_FIRST | RUN_NEW;
	map->mapped[first + n - 1] |= RUN_LAST;
	map->nr_mapped += n;
}

/* ---- Which pages can be mapped, and how many as one ---- */

/* Are its DMA addresses physical ones, but for an offset? */
static bool device_is_direct(struct device *dev)
{
	return !get_dma_ops(dev) && !use_dma_iommu(dev);
}

/* As far as it is known before it is mapped: an IOMMU keeps to boundaries by itself */
static unsigned long bus_pfn(struct device *dev, unsigned long pfn)
{
	return device_is_direct(dev) ? PHYS_PFN(phys_to_dma(dev, PFN_PHYS(pfn))) : pfn;
}

/*
 * Would the DMA API give the device a copy? What it writes there is lost with
 * DMA_ATTR_SKIP_CPU_SYNC, and what the CPU writes never arrives. There may be memory that
 * hmm_dma_map_alloc() knew nothing of: of other devices, or plugged in since.
 */
static bool run_bounces(struct device *dev, struct page *page, size_t n)
{
	return device_is_direct(dev) &&
	       !dma_capable(dev, phys_to_dma(dev, page_to_phys(page)),
			    n << PAGE_SHIFT, true);
}

/*
 * How a page of a PCI device is reached: flags, or an error. Where that is by its
 * address on the bus, there is nothing to map, and @bus is set.
 */
static long p2pdma_flags(struct device *dev, struct page *page,
			 struct pci_p2pdma_map_state *state, dma_addr_t *bus)
{
	struct scatterlist sg;

	if (!dma_pci_p2pdma_supported(dev))
		return -EREMOTEIO;

	sg_init_table(&sg, 1);
	sg_set_page(&sg, page, PAGE_SIZE, 0);
	switch (pci_p2pdma_map_segment(state, dev, &sg)) {
	case PCI_P2PDMA_MAP_BUS_ADDR:
		*bus = sg_dma_address(&sg);
		return HMM_PFN_P2PDMA | HMM_PFN_P2PDMA_BUS;
	case PCI_P2PDMA_MAP_THRU_HOST_BRIDGE:
		return HMM_PFN_P2PDMA;
	default:
		return -EREMOTEIO;
	}
}

/* No page of its own in memory that a device can reach by DMA */
static bool page_refused(const struct page *page)
{
	return is_device_private_page(page);
}

/*
 * How many entries from @first on can be mapped as one, up to @end: a multiple of
 * the block, 0 if there is not even one.
 */
static size_t run_length(struct device *dev, const struct hmm_dma_map *map,
			 size_t first, size_t end)
{
	const unsigned long alike = HMM_PFN_VALID | HMM_PFN_WRITE;
	unsigned long head = entry_read(map, first);
	unsigned long pfn = word_pfn(head), entry;
	unsigned long boundary = dma_get_seg_boundary(dev) >> PAGE_SHIFT;
	unsigned long bus = bus_pfn(dev, pfn);
	size_t n, max = min(end - first, map->max_run);
	struct page *page;

	/* The number of the last page before the boundary, less ours */
	max = min(max - 1, (bus | boundary) - bus) + 1;
	for (n = 0; n < max && !map->mapped[first + n]; n++) {
		entry = entry_read(map, first + n);
		if ((entry ^ head) & alike || word_pfn(entry) != pfn + n)
			break;
		page = pfn_to_page(pfn + n);
		if (!is_zone_device_page(page))
			continue;
		if (page_refused(page))
			break;
		if (is_pci_p2pdma_page(page))
			return n ? rounddown(n, block_pages(map)) :
				   block_pages(map) == 1;
	}
	/* Memory that is far apart on the bus: what follows is another run */
	while (n > 1 && bus_pfn(dev, pfn + n - 1) != bus + n - 1)
		n--;
	return rounddown(n, block_pages(map));
}

/* Map @n entries as one; run_length() allowed it. */
static int run_map(struct device *dev, struct hmm_dma_map *map, size_t first,
		   size_t n, struct pci_p2pdma_map_state *state)
{
	unsigned long entry = entry_read(map, first);
	struct page *page = hmm_pfn_to_page(entry);
	dma_addr_t addr;
	long flags = 0;

	if (is_pci_p2pdma_page(page)) {
		flags = p2pdma_flags(dev, page, state, &addr);
		if (flags < 0)
			return flags;
	}
	if (!(flags & HMM_PFN_P2PDMA_BUS)) {
		if (run_bounces(dev, page, n))
			return -EOPNOTSUPP;
		addr = dma_map_page_attrs(dev, page, 0, n << PAGE_SHIFT,
					  run_direction(entry), run_attrs(dev));
		if (dma_mapping_error(dev, addr))
			return -ENOMEM;
	}
	run_record(map, first, n, flags | (entry & HMM_PFN_WRITE), addr);
	return 0;
}

/* Does the mapping differ from what the entry, found without collision, says? */
static bool entry_differs(const struct hmm_dma_map *map, size_t idx)
{
	unsigned long entry = entry_read(map, idx), word = map->mapped[idx];

	if (!word || !(entry & HMM_PFN_VALID))
		return false;
	/* Another page, and no invalidation has unmapped the one before */
	if (WARN_ON_ONCE(word_pfn(entry) != word_pfn(word)))
		return true;
	return (entry ^ word) & HMM_PFN_WRITE;
}

/* ---- Coming and going ---- */

/* Its operations copy what is not contiguous on the machine that Xen has */
static bool device_is_xens(struct device *dev)
{
#ifdef CONFIG_SWIOTLB_XEN
	return get_dma_ops(dev) == &xen_swiotlb_dma_ops;
#else
	return false;
#endif
}

/* Would this device be given copies of the pages, or be kept from them? */
static bool device_bounces(struct device *dev)
{
	return dma_addressing_limited(dev) || device_is_xens(dev) || is_swiotlb_force_bounce(dev) ||
	       force_dma_unencrypted(dev);
}

/* How many pages the DMA API maps at a time for this device */
static size_t device_max_run(struct device *dev)
{
	return min_t(size_t, dma_get_max_seg_size(dev),
		     dma_max_mapping_size(dev)) >> PAGE_SHIFT;
}

/**
 * hmm_dma_map_alloc() - prepare for mapping a stretch of address space
 * @dev: the device that does DMA
 * @map: to be set up; .ops is left as it is
 * @nr_entries: how many pages, of PAGE_SIZE each
 * @dma_entry_size: the smallest that the device can have contiguous: a power of
 *	two, %PAGE_SIZE or more. Beyond %PAGE_SIZE, indices and lengths are
 *	multiples of it, and pages that are not contiguous cannot be mapped.
 *
 * All memory that mapping takes is allocated here, 24 bytes for each page.
 *
 * Context: Process context, may sleep.
 * Return: 0; or
 *
 * * -EINVAL if there are no entries, or not a whole number of @dma_entry_size, or
 *   that is not a size as above, or is more than can be mapped at a time,
 * * -EOPNOTSUPP if the device has no DMA mask, or would need bounce buffers: it
 *   cannot address all of memory, or bouncing is forced on it, or memory is encrypted,
 *   or Xen maps it,
 * * -ENOMEM.
 *
 * On error there is nothing to be freed.
 */
int hmm_dma_map_alloc(struct device *dev, struct hmm_dma_map *map,
		      size_t nr_entries, size_t dma_entry_size)
{
	size_t block = dma_entry_size >> PAGE_SHIFT, max_run;

	if (!nr_entries || !block || !is_power_of_2(dma_entry_size) ||
	    nr_entries % block)
		return -EINVAL;
	if (!dev->dma_mask || device_bounces(dev))
		return -EOPNOTSUPP;
	max_run = max_t(size_t, rounddown(device_max_run(dev), block), block);
	if (max_run << PAGE_SHIFT > dma_max_mapping_size(dev))
		return -EINVAL;

	map->pfn_list = kvcalloc(nr_entries, sizeof(*map->pfn_list), GFP_KERNEL);
	map->dma_list = kvmalloc_array(nr_entries, sizeof(*map->dma_list),
				       GFP_KERNEL);
	map->mapped = kvcalloc(nr_entries, sizeof(*map->mapped), GFP_KERNEL);
	if (!map->pfn_list || !map->dma_list || !map->mapped) {
		kvfree(map->pfn_list);
		kvfree(map->dma_list);
		kvfree(map->mapped);
		return -ENOMEM;
	}
	memset64((u64 *)map->dma_list, DMA_MAPPING_ERROR, nr_entries);
	map->dma_entry_size = dma_entry_size;
	map->nr_entries = nr_entries;
	map->nr_mapped = 0;
	map->max_run = max_run;
	mutex_init(&map->walk);
	return 0;
}
EXPORT_SYMBOL_GPL(hmm_dma_map_alloc);

/**
 * hmm_dma_map_free() - free what hmm_dma_map_alloc() has allocated
 * @dev: the device
 * @map: with nothing mapped
 *
 * Whatever is still mapped, in spite of that, is unmapped with a warning. It is
 * not made dirty: the pages may be somebody else's by now.
 *
 * Context: Process context, may sleep. Nobody else uses @map.
 */
void hmm_dma_map_free(struct device *dev, struct hmm_dma_map *map)
{
	size_t idx, end;

	if (WARN_ON_ONCE(map->nr_mapped)) {
		for (idx = 0; idx < map->nr_entries; idx = end) {
			end = idx + 1;
			if (!map->mapped[idx])
				continue;
			end = run_end(map, idx);
			run_unmap(dev, map, idx, end, false);
		}
	}
	mutex_destroy(&map->walk);
	kvfree(map->mapped);
	kvfree(map->dma_list);
	kvfree(map->pfn_list);
	map->mapped = NULL;
	map->dma_list = NULL;
	map->pfn_list = NULL;
	map->nr_entries = 0;
}
EXPORT_SYMBOL_GPL(hmm_dma_map_free);

/* ---- Single entries ---- */

/* Is there a page for every entry of the block? A device entry needs them all. */
static bool block_present(const struct hmm_dma_map *map, size_t idx)
{
	size_t end = idx + block_pages(map);

	while (idx < end && entry_read(map, idx) & HMM_PFN_VALID)
		idx++;
	return idx == end;
}

/* Unmap the block if any of it is not what it was mapped as */
static void block_refresh(struct device *dev, struct hmm_dma_map *map, size_t idx)
{
	size_t end = idx + block_pages(map);

	for (; idx < end; idx++)
		if (entry_differs(map, idx))
			run_drop(dev, map, idx);
}

/**
 * hmm_dma_map_pfn() - map one entry
 * @dev: the device
 * @map: its mappings
 * @idx: which entry; a multiple of &hmm_dma_map.dma_entry_size
 * @p2pdma_state: zeroed before the first of a number of calls, for pages of PCI
 *	devices; NULL if there is just one
 *
 * Maps &hmm_dma_map.dma_entry_size bytes from the page of the entry on, which a
 * walk has found and mmu_interval_read_retry() confirmed, and sets
 * %HMM_PFN_DMA_MAPPED. What is mapped already, with the same permission, is left
 * as it is. If the permission has changed, the entry is unmapped first, with its
 * run if hmm_dma_map_range() has made it part of one, and is mapped anew.
 *
 * Context: Any. The driver's lock is held.
 * Return: the address for the device; %DMA_MAPPING_ERROR if there is no such
 * entry, it has no page, its page is device-private or cannot be reached by the
 * device, it is not contiguous, or it could not be mapped.
 */
dma_addr_t hmm_dma_map_pfn(struct device *dev, struct hmm_dma_map *map,
			   size_t idx,
			   struct pci_p2pdma_map_state *p2pdma_state)
{
	size_t n = block_pages(map);
	struct pci_p2pdma_map_state state = {};
	int ret;

	if (idx >= map->nr_entries || idx % n ||
	    !(entry_read(map, idx) & HMM_PFN_VALID))
		return DMA_MAPPING_ERROR;
	block_refresh(dev, map, idx);
	if (map->mapped[idx]) {
		entry_tell(map, idx);
		return map->dma_list[idx];
	}
	if (!run_length(dev, map, idx, idx + n))
		return DMA_MAPPING_ERROR;
	ret = run_map(dev, map, idx, n, p2pdma_state ?: &state);
	if (ret)
		return DMA_MAPPING_ERROR;
	map->mapped[idx] &= ~RUN_NEW;
	return map->dma_list[idx];
}
EXPORT_SYMBOL_GPL(hmm_dma_map_pfn);

/**
 * hmm_dma_unmap_pfn() - unmap one entry, and the run that it is part of
 * @dev: the device, which has stopped to use the entry
 * @map: its mappings
 * @idx: which entry
 *
 * As hmm_dma_unmap_range() for a single entry.
 *
 * Context: Any. The driver's lock is held, the CPU still maps the page.
 * Return: was it mapped?
 */
bool hmm_dma_unmap_pfn(struct device *dev, struct hmm_dma_map *map, size_t idx)
{
	return hmm_dma_unmap_range(dev, map, idx, 1);
}
EXPORT_SYMBOL_GPL(hmm_dma_unmap_pfn);

/* ---- Ranges ---- */

/**
 * hmm_dma_unmap_range() - unmap every run that a range of entries touches
 * @dev: the device
 * @map: its mappings
 * @idx: the first entry
 * @npages: how many; those beyond the end of @map do not count
 *
 * All that is going to be unmapped is first taken from the device by one call of
 * &hmm_dma_ops.drop. Pages that the device may have written to are made dirty.
 *
 * To be called by the invalidate callback, and for everything before the
 * subscription is removed.
 *
 * Context: Any. The driver's lock is held, the CPU still maps the pages.
 * Return: how many entries were unmapped, those outside of the range included.
 */
size_t hmm_dma_unmap_range(struct device *dev, struct hmm_dma_map *map,
			   size_t idx, size_t npages)
{
	size_t before = map->nr_mapped, first, end, next;

	if (!before || idx >= map->nr_entries || !npages)
		return 0;
	end = idx + min(npages, map->nr_entries - idx);

	while (idx < end && !map->mapped[idx])
		idx++;
	if (idx == end)
		return 0;
	while (!map->mapped[end - 1])
		end--;
	first = run_first(map, idx);
	end = run_end(map, end - 1);

	if (map->ops && map->ops->drop)
		map->ops->drop(map, first, end - first);
	for (idx = first; idx < end; idx = next) {
		next = idx + 1;
		if (!map->mapped[idx])
			continue;
		next = run_end(map, idx);
		run_unmap(dev, map, idx, next, true);
	}
	return before - map->nr_mapped;
}
EXPORT_SYMBOL_GPL(hmm_dma_unmap_range);

/* Map what is not mapped. New runs are marked, for range_settle(). */
static int range_map(struct device *dev, struct hmm_dma_map *map, size_t first,
		     size_t end)
{
	struct pci_p2pdma_map_state state = {};
	size_t idx, n;
	int ret;

	for (idx = first; idx < end; idx++)
		if (entry_differs(map, idx))
			run_drop(dev, map, idx);

	for (idx = first; idx < end; idx += n) {
		n = block_pages(map);
		if (map->mapped[idx] || !block_present(map, idx))
			continue;
		n = run_length(dev, map, idx, end);
		if (!n)
			return page_refused(hmm_pfn_to_page(entry_read(map, idx))) ?
				-EOPNOTSUPP : -EINVAL;
		ret = run_map(dev, map, idx, n, &state);
		if (ret)
			return ret;
	}
	return 0;
}

/*
 * After success new runs are no longer new, after an error they are unmapped, and
 * may be dirty if the driver has @entered them. Either way the entries say what is
 * mapped. Returns how many are.
 */
static long range_settle(struct device *dev, struct hmm_dma_map *map,
			 size_t first, size_t end, bool success, bool entered)
{
	long mapped = 0;
	size_t idx;

	for (idx = first; idx < end; idx++) {
		if (map->mapped[idx] & RUN_NEW) {
			if (success)
				map->mapped[idx] &= ~RUN_NEW;
			else
				run_unmap(dev, map, idx, run_end(map, idx),
					  entered);
		}
		entry_tell(map, idx);
		mapped += !!map->mapped[idx];
	}
	return mapped;
}

/* The walk is done, or failed with @ret: the rest, under the driver's lock. */
static long range_commit(struct device *dev, struct hmm_dma_map *map,
			 size_t first, struct hmm_range *range, long ret,
			 bool *collided)
{
	size_t n = (range->end - range->start) >> PAGE_SHIFT;
	size_t end = first + n;
	bool entered = false;
	long mapped;

	map->ops->lock(map);
	*collided = !ret && mmu_interval_read_retry(range->notifier,
						    range->notifier_seq);
	if (*collided)
		ret = -EBUSY;
	if (!ret)
		ret = range_map(dev, map, first, end);
	if (!ret && map->ops->enter) {
		entered = true;
		ret = map->ops->enter(map, first, n);
	}
	mapped = range_settle(dev, map, first, end, !ret, entered);
	map->ops->unlock(map);
	return ret ?: mapped;
}

static bool range_fits(const struct hmm_dma_map *map, size_t first,
		       const struct hmm_range *range)
{
	size_t n = (range->end - range->start) >> PAGE_SHIFT;

	if (range->start >= range->end ||
	    offset_in_page(range->start | range->end))
		return false;
	return first < map->nr_entries && n <= map->nr_entries - first &&
	       !((first | n) % block_pages(map));
}

/* Ours are entries of HMM pfns, and of memory that DMA can reach. */
static bool range_is_plain(const struct hmm_range *range)
{
	return !range->pfn_flags_mask && !range->encoding &&
	       !range->max_extents && !range->dev_private_owner;
}

/**
 * hmm_dma_map_range() - fault a range in and map it for a device
 * @dev: the device
 * @map: its mappings, with &hmm_dma_map.ops
 * @idx: the entry of the first page
 * @range: .notifier, .start, .end and .default_flags are filled in by the caller,
 *	.flags if need be, and all else is 0. .hmm_pfns is set to the entries, and
 *	what is mapped is kept, see %HMM_RANGE_KEEP_FLAGS.
 * @timeout: how long collisions may go on, in jiffies; 0: as long as it takes
 *
 * Faults the pages in as hmm_range_fault_unlocked_timeout() does, takes the
 * driver's lock, begins again if there was a collision, maps all pages there are,
 * in runs, and calls &hmm_dma_ops.enter. With requests that is every page of the
 * range; without any, it is what the CPU has mapped already.
 *
 * What is mapped already stays so. An entry that is mapped for reading and may
 * now be written to is unmapped, with all of its run, and mapped anew for both
 * directions. This is not undone on error; the device has lost the entries then.
 *
 * On error exactly what this call has mapped is unmapped.
 *
 * Context: Process context, sleeps. Neither the mmap lock nor the driver's lock
 * is held.
 * Return: how many pages of the range are mapped; or
 *
 * * -EINVAL if the range is empty, wraps, is not page aligned, or exceeds @map;
 *   if members that must be 0 are not, or operations are missing; or if pages are
 *   not contiguous over &hmm_dma_map.dma_entry_size,
 * * -EBUSY if collisions went on for @timeout,
 * * -ENOMEM if the DMA API failed, or there is no memory for a fault,
 * * -EREMOTEIO if a page is memory of a PCI device that @dev cannot reach,
 * * -EOPNOTSUPP if a page is device-private memory, or where @dev cannot address it,
 * * -EINTR on a fatal signal,
 * * -EPERM or -EFAULT as hmm_range_fault(),
 * * what &hmm_dma_ops.enter returned.
 */
long hmm_dma_map_range(struct device *dev, struct hmm_dma_map *map, size_t idx,
		       struct hmm_range *range, unsigned long timeout)
{
	unsigned long until = 0;
	bool collided;
	long ret;

	if (!map->ops || !map->ops->lock || !map->ops->unlock ||
	    !range_fits(map, idx, range) || !range_is_plain(range))
		return -EINVAL;

	if (mutex_lock_killable(&map->walk))
		return -EINTR;
	range->hmm_pfns = map->pfn_list + idx;
	range->flags |= HMM_RANGE_KEEP_FLAGS;
	do {
		ret = hmm_range_fault_unlocked_timeout(range, timeout);
		ret = range_commit(dev, map, idx, range, ret, &collided);
		/* From the first collision on: faults may take their time. */
		if (collided && !until)
			until = (jiffies + timeout) | 1;
	} while (collided && (!timeout || time_before(jiffies, until)));
	mutex_unlock(&map->walk);
	return ret;
}
EXPORT_SYMBOL_GPL(hmm_dma_map_range);
