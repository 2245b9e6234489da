/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _LINUX_HMM_DMA_H
#define _LINUX_HMM_DMA_H

/*
 * DMA mapping of the pages that HMM found, for devices that are behind the DMA
 * API. See Documentation/vm/hmm_dma.rst.
 */

#include <linux/mutex.h>
#include <linux/types.h>

struct device;
struct hmm_dma_map;
struct hmm_range;
struct pci_p2pdma_map_state;

/**
 * struct hmm_dma_ops - what hmm_dma_map_range() needs of a driver
 *
 * @lock and @unlock are required.
 */
struct hmm_dma_ops {
	/**
	 * @lock: Take the lock that the invalidate callback takes. Nothing
	 * sleeps under it, so it may be a spinlock.
	 */
	void (*lock)(struct hmm_dma_map *map);

	/** @unlock: Drop it. */
	void (*unlock)(struct hmm_dma_map *map);

	/**
	 * @enter: @npages entries, from @first on, are as they will be: those
	 * with %HMM_PFN_DMA_MAPPED have an address in &hmm_dma_map.dma_list. Put
	 * them in the device's page table. Called under the lock, once for each
	 * call of hmm_dma_map_range(). After an error, which is passed on to the
	 * caller, the device must have none of those that it had not before.
	 */
	int (*enter)(struct hmm_dma_map *map, size_t first, size_t npages);

	/**
	 * @drop: Some of the @npages entries from @first on are going to be
	 * unmapped, all of them perhaps: take what is mapped there from the
	 * device, and return when it has stopped to use it. Called under the
	 * lock.
	 */
	void (*drop)(struct hmm_dma_map *map, size_t first, size_t npages);
};

/**
 * struct hmm_dma_map - the DMA mappings of a stretch of address space
 * @pfn_list: an entry for each page, for &hmm_range.hmm_pfns. The walk writes
 *	them; %HMM_PFN_INOUT_FLAGS are right under the driver's lock, unless a
 *	walk is in progress.
 * @dma_list: the address of each page for the device; %DMA_MAPPING_ERROR where
 *	nothing is mapped
 * @dma_entry_size: what one hmm_dma_map_pfn() maps, in bytes
 * @ops: set by the driver; may be NULL without hmm_dma_map_range()
 */
struct hmm_dma_map {
	unsigned long *pfn_list;
	dma_addr_t *dma_list;
	size_t dma_entry_size;
	const struct hmm_dma_ops *ops;

	/* private: see mm/hmm_dma.c */
	unsigned long *mapped;
	size_t nr_entries;
	size_t nr_mapped;
	size_t max_run;
	struct mutex walk;	/* one walk at a time; see "Locking" there */
};

int hmm_dma_map_alloc(struct device *dev, struct hmm_dma_map *map,
		      size_t nr_entries, size_t dma_entry_size);
void hmm_dma_map_free(struct device *dev, struct hmm_dma_map *map);

dma_addr_t hmm_dma_map_pfn(struct device *dev, struct hmm_dma_map *map,
			   size_t idx,
			   struct pci_p2pdma_map_state *p2pdma_state);
bool hmm_dma_unmap_pfn(struct device *dev, struct hmm_dma_map *map, size_t idx);

long hmm_dma_map_range(struct device *dev, struct hmm_dma_map *map, size_t idx,
		       struct hmm_range *range, unsigned long timeout);
size_t hmm_dma_unmap_range(struct device *dev, struct hmm_dma_map *map,
			   size_t idx, size_t npages);

#endif /* _LINUX_HMM_DMA_H */
