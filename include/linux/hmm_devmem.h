/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _LINUX_HMM_DEVMEM_H
#define _LINUX_HMM_DEVMEM_H

/*
 * Memory of a device, as a driver has it after one call: an unused physical range,
 * its struct pages, and a free list. See Documentation/vm/device-memory.rst.
 */

#include <linux/container_of.h>
#include <linux/list.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/wait.h>

struct device;
struct hmm_devmem;
struct hmm_devmem_cache;

/**
 * struct hmm_devmem_ops - what the driver does
 * @migrate_to_ram: As in &struct dev_pagemap_ops. %MEMORY_DEVICE_PRIVATE must have
 *	it, %MEMORY_DEVICE_COHERENT has none.
 * @page_free: Optional. The last reference to a page is gone; @page_free is called
 *	before anybody can be given the page again, and page->zone_device_data still
 *	is what the driver left there. In any context, with spinlocks held: must not
 *	sleep.
 * @memory_failure: Optional, as in &struct dev_pagemap_ops.
 */
struct hmm_devmem_ops {
	vm_fault_t (*migrate_to_ram)(struct vm_fault *vmf);
	void (*page_free)(struct hmm_devmem *devmem, struct page *page);
	int (*memory_failure)(struct hmm_devmem *devmem, unsigned long pfn,
			      unsigned long nr_pages, int mf_flags);
};

/**
 * struct hmm_devmem_desc - the memory that a driver asks for
 * @name: for /proc/iomem and messages; copied
 * @type: %MEMORY_DEVICE_PRIVATE or %MEMORY_DEVICE_COHERENT
 * @size: in bytes, of %MEMORY_DEVICE_PRIVATE: a multiple of
 *	memremap_compat_align(); for %MEMORY_DEVICE_COHERENT 0
 * @res: the bytes of %MEMORY_DEVICE_COHERENT, aligned like @size; claimed by the
 *	caller, and looked at during the call alone; for %MEMORY_DEVICE_PRIVATE NULL
 * @nid: NUMA node; NUMA_NO_NODE: that of the device, or else of the caller
 * @owner: by this value the driver and core code tell whose memory it is; not NULL
 * @private: for hmm_devmem_private()
 * @ops: what the driver does; stays where it is
 */
struct hmm_devmem_desc {
	const char *name;
	enum memory_type type;
	u64 size;
	struct resource *res;
	int nid;
	void *owner;
	void *private;
	const struct hmm_devmem_ops *ops;
};

/**
 * struct hmm_devmem_list - free pages, linked by their struct pages
 * @head: number of the first page, if there is one
 * @nr: how many
 */
struct hmm_devmem_list {
	unsigned long head;
	unsigned long nr;
};

/**
 * struct hmm_devmem - memory of a device
 * @pgmap: what page_pgmap() returns for each of its pages
 *
 * Made and freed by mm/hmm_devmem.c.
 */
struct hmm_devmem {
	struct dev_pagemap pgmap;
	/* private: owned by mm/hmm_devmem.c */
	struct dev_pagemap_ops pgmap_ops;
	const struct hmm_devmem_ops *ops;
	void *private;
	struct device *dev;
	const char *name;
	int nid;
	u64 reserved;		/* bytes of physical addresses that are ours */
	unsigned long first_pfn;
	unsigned long nr_pages;
	struct list_head node;	/* in the memories of an umbrella device */

	bool stopped;
	wait_queue_head_t idle;	/* once stopped: a page has come back */
	struct hmm_devmem_cache __percpu *caches;
	unsigned int batch;	/* pages between a cache and the centre at a time */

	/* The centre: what no cache has */
	spinlock_t lock ____cacheline_aligned_in_smp;
	struct hmm_devmem_list returned;
	unsigned long untouched; /* pages from this number on were never in use */
	unsigned long bad;	/* pages that are kept from everybody */
};

/**
 * hmm_devmem_from_page() - the memory that a page is of
 * @page: of a memory that devm_hmm_devmem_add() has made: the caller knows
 *
 * Context: Any; while the memory is there.
 * Return: the memory.
 */
static inline struct hmm_devmem *hmm_devmem_from_page(const struct page *page)
{
	return container_of(page_pgmap(page), struct hmm_devmem, pgmap);
}

/**
 * hmm_devmem_private() - what the driver has handed in
 * @devmem: the memory
 *
 * Context: Any.
 * Return: hmm_devmem_desc.private.
 */
static inline void *hmm_devmem_private(const struct hmm_devmem *devmem)
{
	return devmem->private;
}

/**
 * hmm_devmem_first_pfn() - where a memory begins, for migrate_device_range()
 * @devmem: the memory
 *
 * Context: Any.
 * Return: the pfn of its first page.
 */
static inline unsigned long
hmm_devmem_first_pfn(const struct hmm_devmem *devmem)
{
	return devmem->first_pfn;
}

/**
 * hmm_devmem_nr_pages() - how large a memory is
 * @devmem: the memory
 *
 * Context: Any.
 * Return: its size in pages, used or not.
 */
static inline unsigned long hmm_devmem_nr_pages(const struct hmm_devmem *devmem)
{
	return devmem->nr_pages;
}

/**
 * hmm_devmem_page_index() - where on the device a page is
 * @page: of a memory that devm_hmm_devmem_add() has made
 *
 * Context: Any; while the memory is there.
 * Return: the number of @page within its memory, from 0 on.
 */
static inline unsigned long hmm_devmem_page_index(const struct page *page)
{
	return page_to_pfn(page) - hmm_devmem_from_page(page)->first_pfn;
}

/**
 * hmm_devmem_page() - which page is at a place on the device
 * @devmem: the memory
 * @index: number of the page; less than hmm_devmem_nr_pages()
 *
 * Context: Any; while the memory is there.
 * Return: the page, in use or not.
 */
static inline struct page *hmm_devmem_page(const struct hmm_devmem *devmem,
					   unsigned long index)
{
	return pfn_to_page(devmem->first_pfn + index);
}

struct hmm_devmem *devm_hmm_devmem_add(struct device *dev,
				       const struct hmm_devmem_desc *desc);
void devm_hmm_devmem_remove(struct device *dev, struct hmm_devmem *devmem);
void hmm_devmem_stop(struct hmm_devmem *devmem);

struct page *hmm_devmem_alloc_page(struct hmm_devmem *devmem);
unsigned long hmm_devmem_alloc_pages(struct hmm_devmem *devmem,
				     unsigned long nr, struct page **pages);
unsigned long hmm_devmem_nr_free(struct hmm_devmem *devmem);

struct device *hmm_devmem_device_create(const char *name);
void hmm_devmem_device_destroy(struct device *dev);
struct page *hmm_devmem_device_alloc_page(struct device *dev);
unsigned long hmm_devmem_device_alloc_pages(struct device *dev,
					    unsigned long nr,
					    struct page **pages);

#endif /* _LINUX_HMM_DEVMEM_H */
