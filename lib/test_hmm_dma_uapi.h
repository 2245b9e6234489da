/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * What a program needs to drive the device of lib/test_hmm_dma.c.
 *
 * After HMM_DMA_MIRROR, once for each file, pread() and pwrite() at the address of
 * mirrored memory let the device load from it and store to it: what pread()
 * returns, the device has read; what pwrite() is given, the device writes.
 */
#ifndef _LIB_TEST_HMM_DMA_UAPI_H
#define _LIB_TEST_HMM_DMA_UAPI_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * struct hmm_dma_cmd - a run of pages
 * @addr: first byte; a multiple of the page size
 * @npages: how many
 * @write: FAULT: for writing
 * @pages: (out) how many of them the device has in its page table
 * @writable: (out) how many of these it may write to
 * @extents: (out) how many contiguous stretches of addresses they make for the
 *           device, each with one permission
 */
struct hmm_dma_cmd {
	__u64 addr;
	__u64 npages;
	__u64 write;
	__u64 pages;
	__u64 writable;
	__u64 extents;
};

/* These pages, of the address space of the caller, are what the device works on. */
#define HMM_DMA_MIRROR	_IOWR('H', 0x40, struct hmm_dma_cmd)

/* Fault some of them in and map them for the device. */
#define HMM_DMA_FAULT	_IOWR('H', 0x41, struct hmm_dma_cmd)

/* What of them does the device have? */
#define HMM_DMA_LOOK	_IOWR('H', 0x42, struct hmm_dma_cmd)

#endif /* _LIB_TEST_HMM_DMA_UAPI_H */
