/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _LINUX_HMM_H
#define _LINUX_HMM_H

/*
 * Heterogeneous memory management: what a device that works on a process's
 * memory needs to know of its page tables. See Documentation/vm/hmm.rst.
 */

#include <linux/mm.h>

struct mmu_interval_notifier;

/*
 * How long a driver may reasonably repeat hmm_range_fault() on -EBUSY before it
 * gives up, in milliseconds.
 */
#define HMM_RANGE_DEFAULT_TIMEOUT 1000

/*
 * An entry: the pfn in the low bits, unshifted; then the order of the mapping;
 * the flags on top. On 64-bit nothing but the pfn is below bit 52, so that
 * (entry << PAGE_SHIFT) is the physical address, all else shifted out. Between
 * flags and order 64-bit entries keep three bits for the state of DMA mappings.
 */
#ifdef CONFIG_64BIT
#define HMM_PFN_META_BITS	11
#else
#define HMM_PFN_META_BITS	8
#endif

/**
 * enum hmm_pfn_flags - layout of the entries of a range
 *
 * @HMM_PFN_VALID: Out: there is a page, and the device may read it.
 * @HMM_PFN_WRITE: Out: the device may write to the page; implies
 *	%HMM_PFN_VALID.
 * @HMM_PFN_ERROR: Out: no access is possible here, a fault would fail: there is
 *	no VMA, the VMA cannot be read or maps no pages, or the entry has no
 *	struct page.
 * @HMM_PFN_REQ_FAULT: In: fault the page in, for reading, unless it is there.
 * @HMM_PFN_REQ_WRITE: In: beside %HMM_PFN_REQ_FAULT, fault for writing. Alone it
 *	asks for nothing.
 * @HMM_PFN_ORDER_SHIFT: Where the order of the mapping stands; read it by
 *	hmm_pfn_to_map_order().
 * @HMM_PFN_FLAGS: Everything that is not the pfn.
 *
 * An entry of 0 is a page that is not there, or that the device cannot use as it
 * is, and that a fault may bring.
 */
enum hmm_pfn_flags {
	HMM_PFN_VALID = 1UL << (BITS_PER_LONG - 1),
	HMM_PFN_WRITE = 1UL << (BITS_PER_LONG - 2),
	HMM_PFN_ERROR = 1UL << (BITS_PER_LONG - 3),
	HMM_PFN_ORDER_SHIFT = BITS_PER_LONG - HMM_PFN_META_BITS,

	HMM_PFN_REQ_FAULT = HMM_PFN_VALID,
	HMM_PFN_REQ_WRITE = HMM_PFN_WRITE,

	HMM_PFN_FLAGS = ~((1UL << HMM_PFN_ORDER_SHIFT) - 1),
};

/**
 * hmm_pfn_to_page() - the page of an entry
 * @hmm_pfn: an entry with %HMM_PFN_VALID
 *
 * No reference is held on the page: it stays what it is only as long as
 * mmu_interval_read_retry() says so, under the driver's lock.
 *
 * Return: the struct page; meaningless for an entry without %HMM_PFN_VALID.
 */
static inline struct page *hmm_pfn_to_page(unsigned long hmm_pfn)
{
	return pfn_to_page(hmm_pfn & ~HMM_PFN_FLAGS);
}

/**
 * hmm_pfn_to_map_order() - the order of the mapping that an entry is part of
 * @hmm_pfn: an entry with %HMM_PFN_VALID
 *
 * The page-table entry of the CPU maps 2^order pages at a multiple of as many,
 * in virtual addresses and in pfns, all with the same permissions; so may the
 * device, within its range.
 *
 * Return: 0 for a page mapped on its own.
 */
static inline unsigned int hmm_pfn_to_map_order(unsigned long hmm_pfn)
{
	return (hmm_pfn >> HMM_PFN_ORDER_SHIFT) & 0x1F;
}

/**
 * struct hmm_range - a request to hmm_range_fault() and its result
 * @notifier: the interval subscription that covers the range
 * @notifier_seq: what mmu_interval_read_begin(@notifier) returned
 * @start: first byte, page aligned
 * @end: exclusive end, page aligned
 * @hmm_pfns: an entry for each page: in, the requests that @pfn_flags_mask lets
 *	through; out, what the CPU's page tables have. Need not be initialised
 *	where the mask is 0, and must be written anew before each try where not.
 * @default_flags: the request for every page, HMM_PFN_REQ_*
 * @pfn_flags_mask: the bits of each entry that count as its own request, added
 *	to @default_flags; 0 for none
 * @dev_private_owner: pages of device-private memory with this pgmap owner are
 *	the caller's own and are reported as they are; all others are faulted
 *	back to system memory on request. NULL owns none.
 */
struct hmm_range {
	struct mmu_interval_notifier *notifier;
	unsigned long notifier_seq;
	unsigned long start;
	unsigned long end;
	unsigned long *hmm_pfns;
	unsigned long default_flags;
	unsigned long pfn_flags_mask;
	void *dev_private_owner;
};

int hmm_range_fault(struct hmm_range *range);
int hmm_range_lock(const struct hmm_range *range);
void hmm_range_unlock(const struct hmm_range *range);

#endif /* _LINUX_HMM_H */
