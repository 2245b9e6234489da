/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * What a program needs to drive the dummy device of lib/test_hmm_main.c: one command
 * block, eight requests, and the alphabet of a snapshot.
 *
 * Every request takes a run of whole pages of the address space that opened
 * the device. A request either succeeds as a whole, and only then is the block
 * written back, or it fails and the block stays as the caller left it.
 */
#ifndef _LIB_TEST_HMM_UAPI_H
#define _LIB_TEST_HMM_UAPI_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * struct hmm_dmirror_cmd - one request to the device
 * @addr: first byte of the run; a multiple of the page size
 * @ptr: the caller's own buffer. READ, WRITE and the migrating requests move
 *       one page of data for each page of the run, SNAPSHOT fills one byte.
 * @npages: length of the run in pages, at least one
 * @cpages: (out) pages that the device dealt with
 * @faults: (out) how often the device stopped at a page that it had no usable
 *          translation for, and asked for all of the run that was left
 */
struct hmm_dmirror_cmd {
	__u64 addr;
	__u64 ptr;
	__u64 npages;
	__u64 cpages;
	__u64 faults;
};

/* The device loads from, or stores to, memory through its own page table. */
#define HMM_DMIRROR_READ		_IOWR('H', 0x00, struct hmm_dmirror_cmd)
#define HMM_DMIRROR_WRITE		_IOWR('H', 0x01, struct hmm_dmirror_cmd)

/* Pages move into the device's memory, and back. */
#define HMM_DMIRROR_MIGRATE_TO_DEV	_IOWR('H', 0x02, struct hmm_dmirror_cmd)
#define HMM_DMIRROR_MIGRATE_TO_SYS	_IOWR('H', 0x03, struct hmm_dmirror_cmd)

/* What the CPU's page tables say, without faulting anything in. */
#define HMM_DMIRROR_SNAPSHOT		_IOWR('H', 0x04, struct hmm_dmirror_cmd)

/* Memory that the device alone may touch, for atomics. */
#define HMM_DMIRROR_EXCLUSIVE		_IOWR('H', 0x05, struct hmm_dmirror_cmd)
#define HMM_DMIRROR_CHECK_EXCLUSIVE	_IOWR('H', 0x06, struct hmm_dmirror_cmd)

/* All of the device's memory is emptied and unplugged. */
#define HMM_DMIRROR_RELEASE		_IOWR('H', 0x07, struct hmm_dmirror_cmd)

/*
 * A snapshot byte is NONE, or ERROR, or exactly one of READ and WRITE with at
 * most one leaf size (PMD, PUD) and at most one origin (ZERO, DEV_*) or'ed in.
 */
enum {
	/* No translation, but a fault may make one. */
	HMM_DMIRROR_PROT_NONE			= 0x00,
	/* Access. WRITE includes reading. */
	HMM_DMIRROR_PROT_READ			= 0x01,
	HMM_DMIRROR_PROT_WRITE			= 0x02,
	/* Size of the page-table leaf. */
	HMM_DMIRROR_PROT_PMD			= 0x04,
	HMM_DMIRROR_PROT_PUD			= 0x08,
	/* The shared page of zeroes. */
	HMM_DMIRROR_PROT_ZERO			= 0x10,
	/* Device memory: LOCAL to the device that was asked, or another's. */
	HMM_DMIRROR_PROT_DEV_PRIVATE_LOCAL	= 0x20,
	HMM_DMIRROR_PROT_DEV_PRIVATE_REMOTE	= 0x30,
	HMM_DMIRROR_PROT_DEV_COHERENT_LOCAL	= 0x40,
	HMM_DMIRROR_PROT_DEV_COHERENT_REMOTE	= 0x50,
	/* Out of any device's reach. */
	HMM_DMIRROR_PROT_ERROR			= 0xFF,
};

/* Kind of memory that a device carries. */
enum {
	HMM_DMIRROR_MEMORY_DEVICE_PRIVATE	= 1,
	HMM_DMIRROR_MEMORY_DEVICE_COHERENT	= 2,
};

#endif /* _LIB_TEST_HMM_UAPI_H */
