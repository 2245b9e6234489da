/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of the dummy device share: test_hmm_main.c, its files;
 * test_hmm_shadow.c, which translates and accesses; and test_hmm_memory.c, which has
 * the device's own memory.
 */
#ifndef _LIB_TEST_HMM_H
#define _LIB_TEST_HMM_H

#include <linux/atomic.h>
#include <linux/cdev.h>
#include <linux/hmm.h>
#include <linux/hmm_mirror.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/wait.h>
#include <linux/xarray.h>

struct hmm_devmem;
struct mmu_notifier_range;
struct resource;

/* Pages translated at once; hmm_pfns of a request has room for as many. */
#define TDEV_WINDOW_PAGES	512UL

/**
 * struct tdev - one device
 * @cdev: its file
 * @name: of the file, and of the memory in /proc/iomem
 * @type: of its memory
 * @spm_addr: where MEMORY_DEVICE_COHERENT is, in bytes
 * @home: what the memory belongs to
 * @plug: guards @memory and @res; held for reading while pages are handed out
 * @memory: NULL before the first migration, and after RELEASE
 * @res: the part of /proc/iomem that it takes, if it is coherent
 * @in_use: pages that have been handed out and not come back
 * @idle: waits for that to be none
 * @inbound: its address is the owner of migrations to the device; that of @self
 *	is the owner of the memory, and of whatever else the device causes
 */
struct tdev {
	struct cdev cdev;
	char name[16];
	enum memory_type type;
	unsigned long spm_addr;
	struct device *home;
	struct rw_semaphore plug;
	struct hmm_devmem *memory;
	struct resource *res;
	atomic_long_t in_use;
	wait_queue_head_t idle;
	char inbound;
};

/**
 * struct shadow - the device's view of one address space
 * @mirror: of all of the address space
 * @tdev: the device
 * @lock: guards @table, and is held over every use of an entry
 * @table: page number to entry
 */
struct shadow {
	struct hmm_mirror mirror;
	struct tdev *tdev;
	struct mutex lock;	/* see "Lock order" in test_hmm_shadow.c */
	struct xarray table;
};

/**
 * struct access - one request, in progress
 * @shadow: whose memory
 * @range: what is being translated
 * @xas: where in the table that goes
 * @own_only: only pages of the device's own memory go there
 * @bytes: a snapshot goes here instead
 * @next: first byte that is still to be done
 * @end: first byte behind the run
 * @buf: where the user's data or bytes come from or go to next
 * @write: the device stores
 * @pages: that the device dealt with
 * @batches: how often translations had to be asked for
 * @barren: how many of the last ones were of no use
 * @until: when to stop asking for them (jiffies)
 */
struct access {
	struct shadow *shadow;
	struct hmm_range range;
	struct xa_state xas;
	bool own_only;
	u8 *bytes;
	unsigned long next;
	unsigned long end;
	void __user *buf;
	bool write;
	u64 pages;
	u64 batches;
	unsigned int barren;
	unsigned long until;
};

/* Is @page, which does not go away meanwhile, memory of this device? */
static inline bool tdev_owns(const struct tdev *tdev, const struct page *page)
{
	return is_zone_device_page(page) && page_pgmap(page)->owner == tdev;
}

/*
 * Where the bytes of @page are, which is of system memory or of a dummy device in
 * use. Device-private memory does not exist: a page of system memory plays it.
 */
static inline struct page *tdev_page_data(struct page *page)
{
	return is_device_private_page(page) ? page->zone_device_data : page;
}

/* test_hmm_shadow.c; what takes an access is a request */
struct shadow *tdev_shadow_create(struct tdev *tdev, struct mm_struct *mm);
int tdev_access(struct access *acc);
int tdev_snapshot(struct access *acc);
int tdev_migrate(struct access *acc);
int tdev_exclusive(struct access *acc);
int tdev_check_exclusive(struct access *acc);

/* test_hmm_memory.c */
int tdev_memory_init(struct tdev *tdev);
void tdev_memory_exit(struct tdev *tdev);
unsigned int tdev_memory_access(const struct tdev *tdev, const struct page *page,
				const struct mmu_notifier_range *range);
int tdev_migrate_to_dev(struct access *acc);
int tdev_migrate_to_sys(struct access *acc);
int tdev_unplug(struct access *acc);

#endif /* _LIB_TEST_HMM_H */
