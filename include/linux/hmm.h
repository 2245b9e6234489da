/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _LINUX_HMM_H
#define _LINUX_HMM_H

/*
 * Heterogeneous memory management: what a device that works on a process's
 * memory needs to know of its page tables. See Documentation/vm/hmm.rst.
 */

#include <linux/bits.h>
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
 * flags and order 64-bit entries have three bits for the state of DMA mappings.
 */
#ifdef CONFIG_64BIT
#define HMM_PFN_META_BITS	11
#define HMM_PFN_64BIT		1UL
#else
#define HMM_PFN_META_BITS	8
#define HMM_PFN_64BIT		0UL
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
 * @HMM_PFN_DMA_MAPPED: The page is mapped for DMA. This and the next two are set
 *	and cleared by whoever maps, see <linux/hmm-dma.h>. The walk keeps them
 *	with %HMM_RANGE_KEEP_FLAGS, and clears them without. 64-bit only.
 * @HMM_PFN_P2PDMA: The page is memory of a PCI device. 64-bit only.
 * @HMM_PFN_P2PDMA_BUS: It is reached by its address on the bus. 64-bit only.
 * @HMM_PFN_INOUT_FLAGS: These three.
 * @HMM_PFN_REQ_FAULT: In: fault the page in, for reading, unless it is there.
 * @HMM_PFN_REQ_WRITE: In: beside %HMM_PFN_REQ_FAULT, fault for writing. Alone it
 *	asks for nothing.
 * @HMM_PFN_REQ_SYSMEM: In: beside %HMM_PFN_REQ_FAULT, bring the page home to
 *	system memory if it is in device-private memory, the caller's own
 *	included. Alone it asks for nothing.
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
	HMM_PFN_DMA_MAPPED = HMM_PFN_64BIT << (BITS_PER_LONG - 4),
	HMM_PFN_P2PDMA = HMM_PFN_64BIT << (BITS_PER_LONG - 5),
	HMM_PFN_P2PDMA_BUS = HMM_PFN_64BIT << (BITS_PER_LONG - 6),
	HMM_PFN_INOUT_FLAGS = HMM_PFN_DMA_MAPPED | HMM_PFN_P2PDMA |
			      HMM_PFN_P2PDMA_BUS,
	HMM_PFN_ORDER_SHIFT = BITS_PER_LONG - HMM_PFN_META_BITS,

	HMM_PFN_REQ_FAULT = HMM_PFN_VALID,
	HMM_PFN_REQ_WRITE = HMM_PFN_WRITE,
	HMM_PFN_REQ_SYSMEM = HMM_PFN_ERROR,

	HMM_PFN_FLAGS = ~((1UL << HMM_PFN_ORDER_SHIFT) - 1),
};

/**
 * hmm_pfn_to_page() - the page of an entry
 * @hmm_pfn: an entry with %HMM_PFN_VALID
 *
 * No reference is held on the page: it stays what it is only as long as
 * mmu_interval_read_retry() says so, under the driver's lock.
 *
 * Context: Any.
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
 * Context: Any.
 * Return: 0 for a page mapped on its own.
 */
static inline unsigned int hmm_pfn_to_map_order(unsigned long hmm_pfn)
{
	return (hmm_pfn >> HMM_PFN_ORDER_SHIFT) & 0x1F;
}

/**
 * struct hmm_encoding - how a driver writes its own entries
 * @valid: set where there is a page, and the device may read it
 * @write: set beside @valid where the device may write to the page
 * @error: set where no access is possible, see %HMM_PFN_ERROR
 * @special: set beside @error where there is a mapping, but not one of pages:
 *	VM_PFNMAP, VM_IO, secret memory, a shadow stack, or an entry without a page
 * @device_private: set beside @valid for device-private memory of the caller
 * @empty: what is in the place of a page that is not there, @error and @special
 *	aside; must not have any bit in common with the members above
 * @pfn_shift: where the pfn begins; it is stored whole, so above it there must be
 *	room for the largest
 *
 * An entry is a u64, on 32-bit as well. Bits that the device has no use for are
 * 0, but @valid must not be. So that the array can be the device's own page
 * table, or be copied to it, without a second pass.
 *
 * A range with an encoding takes its per-page requests in the same encoding:
 * @valid for %HMM_PFN_REQ_FAULT, @write for %HMM_PFN_REQ_WRITE, @error for
 * %HMM_PFN_REQ_SYSMEM. &hmm_range.default_flags and &hmm_range.pfn_flags_mask
 * remain HMM_PFN_REQ_*.
 */
struct hmm_encoding {
	u64 valid;
	u64 write;
	u64 error;
	u64 special;
	u64 device_private;
	u64 empty;
	u8 pfn_shift;
};

/**
 * hmm_encode() - write one entry of a driver
 * @enc: the encoding
 * @pfn: the page
 * @write: may the device write to it?
 *
 * Context: Any.
 * Return: the entry.
 */
static inline u64 hmm_encode(const struct hmm_encoding *enc, unsigned long pfn,
			     bool write)
{
	return ((u64)pfn << enc->pfn_shift) | enc->valid |
	       (write ? enc->write : 0);
}

/**
 * hmm_encode_request() - write one request of a driver
 * @enc: the encoding
 * @flags: HMM_PFN_REQ_*
 *
 * Context: Any.
 * Return: what to put in the entry before the call.
 */
static inline u64 hmm_encode_request(const struct hmm_encoding *enc,
				     unsigned long flags)
{
	return (flags & HMM_PFN_REQ_FAULT ? enc->valid : 0) |
	       (flags & HMM_PFN_REQ_WRITE ? enc->write : 0) |
	       (flags & HMM_PFN_REQ_SYSMEM ? enc->error : 0);
}

/**
 * hmm_encoded_pfn() - read the pfn of a driver's entry
 * @enc: the encoding
 * @entry: has @enc->valid
 *
 * Context: Any.
 * Return: the pfn.
 */
static inline unsigned long hmm_encoded_pfn(const struct hmm_encoding *enc,
					    u64 entry)
{
	return (entry & ~(enc->valid | enc->write | enc->error | enc->special |
			  enc->device_private)) >> enc->pfn_shift;
}

/**
 * enum hmm_extent_flags - what the pages of an extent are
 * @HMM_EXTENT_VALID: There are pages, and the device may read them.
 * @HMM_EXTENT_WRITE: The device may write to them.
 * @HMM_EXTENT_ERROR: No access is possible, see %HMM_PFN_ERROR.
 * @HMM_EXTENT_SPECIAL: Beside %HMM_EXTENT_ERROR: there is a mapping, but not one
 *	of pages.
 * @HMM_EXTENT_DEVICE_PRIVATE: Device-private memory of the caller.
 *
 * 0 is a hole: pages that are not there, and that a fault may bring.
 */
enum hmm_extent_flags {
	HMM_EXTENT_VALID = BIT(0),
	HMM_EXTENT_WRITE = BIT(1),
	HMM_EXTENT_ERROR = BIT(2),
	HMM_EXTENT_SPECIAL = BIT(3),
	HMM_EXTENT_DEVICE_PRIVATE = BIT(4),
};

/**
 * struct hmm_extent - a run of pages that are alike
 * @start: address of the first
 * @npages: how many
 * @pfn: of the first with %HMM_EXTENT_VALID, and each further page has the next
 *	one; else 0
 * @flags: of all of them, &enum hmm_extent_flags
 */
struct hmm_extent {
	unsigned long start;
	unsigned long npages;
	unsigned long pfn;
	unsigned int flags;
};

/**
 * enum hmm_range_flags - choices of a caller
 * @HMM_RANGE_KEEP_FLAGS: The array has been initialised: keep the
 *	%HMM_PFN_INOUT_FLAGS of each entry, whatever else becomes of it. They
 *	belong to whoever set them, and who takes them back in the invalidate
 *	callback, atomically, while a walk may be writing the entry.
 * @HMM_RANGE_FOLIO_ORDER: Report a map order also where page-table entries of
 *	single pages map a large folio, or a naturally aligned part of it, as one
 *	piece with equal permissions, inside the range. It costs the page-table
 *	lock, and a look at the folio for each.
 *
 * @HMM_RANGE_NO_USERFAULT: Do not wait for a userfaultfd: memory that one would
 *	have to supply is an error, -EFAULT. hmm_range_fault() never waits for one.
 *
 * The first two are for arrays of pfns: not with &hmm_range.encoding or
 * &hmm_range.max_extents.
 */
enum hmm_range_flags {
	HMM_RANGE_KEEP_FLAGS = BIT(0),
	HMM_RANGE_FOLIO_ORDER = BIT(1),
	HMM_RANGE_NO_USERFAULT = BIT(2),
};

/**
 * struct hmm_range - a request to hmm_range_fault() and its result
 * @notifier: the interval subscription that covers the range
 * @notifier_seq: what mmu_interval_read_begin(@notifier) returned
 * @start: first byte, page aligned
 * @end: exclusive end, page aligned
 * @hmm_pfns: an entry for each page: in, the requests that @pfn_flags_mask lets
 *	through; out, what the CPU's page tables have. Need not be initialised
 *	where the mask is 0, and must be written anew before each try where not.
 * @entries: in place of @hmm_pfns with @encoding
 * @extents: in place of @hmm_pfns with @max_extents; out only
 * @default_flags: the request for every page, HMM_PFN_REQ_*
 * @pfn_flags_mask: the bits of each entry that count as its own request, added
 *	to @default_flags; 0 for none, and with @max_extents
 * @dev_private_owner: pages of device-private memory with this pgmap owner are
 *	the caller's own and are reported as they are; all others are faulted
 *	back to system memory on request. NULL owns none.
 * @flags: &enum hmm_range_flags
 * @encoding: fill @entries, in this encoding
 * @max_extents: fill @extents, which has room for as many
 * @populated: out: how many pages, from @start on, have a result; also on error
 * @nr_extents: out: how many extents they make
 *
 * Members that are not used are 0.
 */
struct hmm_range {
	struct mmu_interval_notifier *notifier;
	unsigned long notifier_seq;
	unsigned long start;
	unsigned long end;
	union {
		unsigned long *hmm_pfns;
		u64 *entries;
		struct hmm_extent *extents;
	};
	unsigned long default_flags;
	unsigned long pfn_flags_mask;
	void *dev_private_owner;
	unsigned int flags;
	const struct hmm_encoding *encoding;
	unsigned long max_extents;
	unsigned long populated;
	unsigned long nr_extents;
};

int hmm_range_fault(struct hmm_range *range);
int hmm_range_fault_unlocked_timeout(struct hmm_range *range,
				     unsigned long timeout);
int hmm_range_wait_timeout(const struct hmm_range *range, unsigned long timeout);
int hmm_range_lock(const struct hmm_range *range);
void hmm_range_unlock(const struct hmm_range *range);

#endif /* _LINUX_HMM_H */
