/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _LINUX_MIGRATE_DEVICE_H
#define _LINUX_MIGRATE_DEVICE_H

/*
 * What migration between system and device memory has beside the device half of
 * linux/migrate.h, which includes this file. See mm/migrate_device.c.
 */
#include <linux/bits.h>

/**
 * DOC: MIGRATE_VMA_FAULT
 *
 * In &migrate_vma.flags: fault first, then migrate.
 *
 * Pages of the range that are not there, be they swapped out or on another device,
 * are faulted in by migrate_vma_setup() before anybody is told of the migration. Where
 * a file is mapped for private writing and nothing is there yet, a copy is made, as by a
 * write. One that cannot be faulted in is left out, and so is one that a userfaultfd
 * would have to supply. What has not been touched yet in anonymous memory need not be
 * faulted in: the driver supplies a page that is cleared. The caller must be able to bear
 * a page fault: no lock that one of its own callbacks takes.
 *
 * Pages that the caller's device has, by &migrate_vma.pgmap_owner, stay there.
 */
#define MIGRATE_VMA_FAULT	BIT(16)

int migrate_device_pfns(unsigned long *src_pfns, unsigned long npages);

#endif /* _LINUX_MIGRATE_DEVICE_H */
