/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _LINUX_MEMREMAP_H
#define _LINUX_MEMREMAP_H

/*
 * Memory that has struct pages but is no memory of the page allocator: it belongs
 * to a device. See Documentation/vm/device-memory.rst and mm/memremap.c.
 *
 * linux/mm.h includes this file, so nothing of what that one declares may be used
 * here.
 */

#include <linux/bits.h>
#include <linux/completion.h>
#include <linux/err.h>
#include <linux/ioport.h>
#include <linux/mmzone.h>
#include <linux/percpu-refcount.h>
#include <linux/range.h>

struct device;
struct vm_fault;

/**
 * struct vmem_altmap - struct pages that live in the memory that they describe
 * @base_pfn: first page of the memory
 * @end_pfn: last page that may hold struct pages
 * @reserve: pages at the start that are somebody else's: no struct pages go there
 * @free: pages behind @reserve that struct pages may be put into
 * @align: pages that were passed over to align what was put there
 * @alloc: pages that struct pages were put into
 * @inaccessible: the memory cannot be accessed until later, by whatever means
 */
struct vmem_altmap {
	unsigned long base_pfn;
	unsigned long end_pfn;
	unsigned long reserve;
	unsigned long free;
	unsigned long align;
	unsigned long alloc;
	bool inaccessible;
};

/**
 * enum memory_type - what CPUs and core code may do with device memory
 *
 * @MEMORY_DEVICE_PRIVATE: No CPU can reach it. A page of it that takes the place of
 *	an anonymous page is a special swap entry in the page tables, and comes home
 *	when a CPU touches it: &dev_pagemap_ops.migrate_to_ram. A free page has no
 *	reference.
 * @MEMORY_DEVICE_COHERENT: CPUs reach it as they reach system memory, and it may
 *	be mapped like that, but not pinned for long. A free page has no reference.
 * @MEMORY_DEVICE_FS_DAX: Storage that a file system maps into processes without
 *	a page cache. An idle page has one reference, and who waits for that is
 *	woken.
 * @MEMORY_DEVICE_GENERIC: Mapped by its driver, and never freed: a page always has
 *	a reference.
 * @MEMORY_DEVICE_PCI_P2PDMA: Memory of a PCI device, for others to access across
 *	the bus. A page that nobody uses has one reference.
 */
enum memory_type {
	MEMORY_DEVICE_PRIVATE = 1,
	MEMORY_DEVICE_COHERENT,
	MEMORY_DEVICE_FS_DAX,
	MEMORY_DEVICE_GENERIC,
	MEMORY_DEVICE_PCI_P2PDMA,
};

/**
 * struct dev_pagemap_ops - what the owner of the memory does
 * @page_free: The last reference to the page is gone: it is the owner's again, and
 *	nobody else writes to the struct page from here on. Called in any context,
 *	with spinlocks held: must not sleep. For %MEMORY_DEVICE_PRIVATE,
 *	%MEMORY_DEVICE_COHERENT (this or @folio_free must be there) and
 *	%MEMORY_DEVICE_PCI_P2PDMA.
 * @folio_free: The same for folios of any order; takes the place of @page_free.
 * @migrate_to_ram: A CPU has touched a page of %MEMORY_DEVICE_PRIVATE: bring
 *	vmf->page home, by migrate_vma_setup() and its like, with fault_page set. The
 *	mmap lock is held, for reading or writing. The page is locked and has a
 *	reference, both for the call and both the caller's. Returns 0 to have the
 *	access tried again, or a VM_FAULT_* code.
 * @memory_failure: Pages have gone bad. Returns 0, or -EOPNOTSUPP to have the
 *	processes killed that map them.
 */
struct dev_pagemap_ops {
	void (*page_free)(struct page *page);
	void (*folio_free)(struct folio *folio);
	vm_fault_t (*migrate_to_ram)(struct vm_fault *vmf);
	int (*memory_failure)(struct dev_pagemap *pgmap, unsigned long pfn,
			      unsigned long nr_pages, int mf_flags);
};

/* @altmap of struct dev_pagemap is to be used */
#define PGMAP_ALTMAP_VALID	BIT(0)

/**
 * struct dev_pagemap - memory of a device, as memremap_pages() takes it
 * @altmap: where struct pages go, with %PGMAP_ALTMAP_VALID in @flags
 * @ref: references to the whole: pages in use, and who has it by
 *	get_dev_pagemap(); initialised by memremap_pages()
 * @done: the last one of them is gone; initialised by memremap_pages()
 * @type: what may be done with the memory
 * @flags: PGMAP_*
 * @vmemmap_shift: order of the compound pages that the memory is divided into;
 *	0: single pages
 * @ops: what the owner does; optional for %MEMORY_DEVICE_FS_DAX and
 *	%MEMORY_DEVICE_GENERIC
 * @owner: by this value drivers and core code tell whose memory it is
 * @nr_range: how many ranges there are, at least 1
 * @range: the memory, in bytes, if there is one range; the end is inclusive
 * @ranges: all of them, in the order in which they are added
 *
 * Zeroed by the driver, but for what it sets. Stays where it is until
 * memunmap_pages() has returned, since each struct page points to it; can then
 * be used again.
 */
struct dev_pagemap {
	struct vmem_altmap altmap;
	struct percpu_ref ref;
	struct completion done;
	enum memory_type type;
	unsigned int flags;
	unsigned long vmemmap_shift;
	const struct dev_pagemap_ops *ops;
	void *owner;
	int nr_range;
	union {
		struct range range;
		DECLARE_FLEX_ARRAY(struct range, ranges);
	};
};

static inline bool pgmap_has_memory_failure(struct dev_pagemap *pgmap)
{
	return pgmap->ops && pgmap->ops->memory_failure;
}

static inline struct vmem_altmap *pgmap_altmap(struct dev_pagemap *pgmap)
{
	return pgmap->flags & PGMAP_ALTMAP_VALID ? &pgmap->altmap : NULL;
}

/* Pages of one compound page, of which the memory is made */
static inline unsigned long pgmap_vmemmap_nr(struct dev_pagemap *pgmap)
{
	return 1UL << pgmap->vmemmap_shift;
}

/**
 * page_pgmap() - whose memory a page is
 * @page: a page of ZONE_DEVICE; of a compound page any one
 *
 * The tails of a compound page have no pgmap of their own: its place is taken.
 *
 * Context: Any; while the memory is there.
 * Return: the pgmap, as memremap_pages() was given it.
 */
static inline struct dev_pagemap *page_pgmap(const struct page *page)
{
	return compound_head(page)->pgmap;
}

static inline bool __folio_is_device_type(const struct folio *folio,
					  enum memory_type type)
{
	return folio_is_zone_device(folio) && folio->page.pgmap->type == type;
}

static inline bool __page_is_device_type(const struct page *page,
					 enum memory_type type)
{
	return is_zone_device_page(page) && page_pgmap(page)->type == type;
}

/* False at compile time where there is none: callers go by it */
static inline bool is_device_private_page(const struct page *page)
{
	return IS_ENABLED(CONFIG_DEVICE_PRIVATE) &&
	       __page_is_device_type(page, MEMORY_DEVICE_PRIVATE);
}

static inline bool folio_is_device_private(const struct folio *folio)
{
	return IS_ENABLED(CONFIG_DEVICE_PRIVATE) &&
	       __folio_is_device_type(folio, MEMORY_DEVICE_PRIVATE);
}

static inline bool is_device_coherent_page(const struct page *page)
{
	return __page_is_device_type(page, MEMORY_DEVICE_COHERENT);
}

static inline bool folio_is_device_coherent(const struct folio *folio)
{
	return __folio_is_device_type(folio, MEMORY_DEVICE_COHERENT);
}

static inline bool is_pci_p2pdma_page(const struct page *page)
{
	return IS_ENABLED(CONFIG_PCI_P2PDMA) &&
	       __page_is_device_type(page, MEMORY_DEVICE_PCI_P2PDMA);
}

/* May be NULL */
static inline void put_dev_pagemap(struct dev_pagemap *pgmap)
{
	if (pgmap)
		percpu_ref_put(&pgmap->ref);
}

#ifdef CONFIG_ZONE_DEVICE

void *memremap_pages(struct dev_pagemap *pgmap, int nid);
void memunmap_pages(struct dev_pagemap *pgmap);
void *devm_memremap_pages(struct device *dev, struct dev_pagemap *pgmap);
void devm_memunmap_pages(struct device *dev, struct dev_pagemap *pgmap);
struct dev_pagemap *get_dev_pagemap(unsigned long pfn, struct dev_pagemap *pgmap);
bool pgmap_pfn_valid(struct dev_pagemap *pgmap, unsigned long pfn);
void zone_device_page_init(struct page *page);
void zone_device_folio_init(struct folio *folio, struct dev_pagemap *pgmap,
			    unsigned int order);
unsigned long memremap_compat_align(void);

#else /* !CONFIG_ZONE_DEVICE */

static inline void *devm_memremap_pages(struct device *dev,
					struct dev_pagemap *pgmap)
{
	return ERR_PTR(-ENXIO);
}

static inline void devm_memunmap_pages(struct device *dev,
				       struct dev_pagemap *pgmap)
{
}

static inline struct dev_pagemap *get_dev_pagemap(unsigned long pfn,
						  struct dev_pagemap *pgmap)
{
	return NULL;
}

static inline bool pgmap_pfn_valid(struct dev_pagemap *pgmap, unsigned long pfn)
{
	return false;
}

static inline unsigned long memremap_compat_align(void)
{
	return PAGE_SIZE;
}

#endif /* CONFIG_ZONE_DEVICE */

#endif /* _LINUX_MEMREMAP_H */
