// SPDX-License-Identifier: GPL-2.0
/*
 * A device that works on a process's memory, made of nothing but software.
 *
 * Opening /dev/hmm_dmirrorN gives the device a *shadow* of the opener's address
 * space: a mirror (mm/hmm_mirror.c) with an empty page table of the device's own.
 * READ and WRITE run as device accesses: each page goes through the shadow table;
 * the first one that is not there, or may not be written, stops the access and
 * makes a *batch*: the rest of the run is faulted in and entered in the table,
 * and the access goes on where it stopped. SNAPSHOT reports what the CPU has mapped
 * and enters nothing.
 *
 * Why an entry may be trusted
 *
 * The shadow holds no page references. An entry stands for "the CPU's page
 * table maps this page here, with at least this permission". It is entered under
 * shadow->lock, free of collisions, and shadow_invalidate() mends it before that
 * stops being true: it takes out the entry, or its permission to write if the
 * page stays. All uses of an entry happen under shadow->lock, too, so that a page
 * in use by the device cannot go away under it.
 *
 * What the device wrote
 *
 * No CPU page-table entry tells that the device wrote to a page, so the shadow
 * remembers (SHADOW_DIRTY) and hands the news on with folio_mark_dirty() when
 * the entry goes or loses its permission: in the callback, that is before the CPU
 * unmaps or cleans the page, and at the latest when the file is closed. The CPU's mapping keeps
 * the page from being truncated meanwhile, which is why no folio lock is needed.
 *
 * Lock order
 *
 *	shadow->lock			see DOC: Locking of mirrors
 *	  the XArray's own spinlock
 *	  what folio_mark_dirty() takes (spinlocks)
 *
 * No user memory may be touched under it: data passes through a buffer of the
 * kernel's.
 *
 * What invalidations did to the entries that they met is counted for each event,
 * in the module parameter "invalidations".
 */
#include <linux/atomic.h>
#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/hmm.h>
#include <linux/hmm_mirror.h>
#include <linux/init.h>
#include <linux/jiffies.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/overflow.h>
#include <linux/pgtable.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/xarray.h>

#include "test_hmm_uapi.h"

/*
 * Minors: two devices of private memory, two of coherent memory. The latter
 * need memory of their own to exist.
 */
#define TDEV_MINORS	4
#define TDEV_PRESENT	2

/* Pages translated at once. */
#define WINDOW_PAGES	512UL
/* Pages moved under one hold of shadow->lock. */
#define BOUNCE_PAGES	32UL
/* What one mmap() of the device may take. */
#define MMAP_PAGES	256UL

/* An entry: the pfn, above one bit of permission. */
#define ENTRY_WRITE	1UL
#define ENTRY_SHIFT	1

/* Mark of an entry through which the device has written. */
#define SHADOW_DIRTY	XA_MARK_1

/**
 * struct shadow - the device's view of one address space
 * @mirror: of all of the address space
 * @lock: guards @table, and is held over every use of an entry
 * @table: page number to entry
 */
struct shadow {
	struct hmm_mirror mirror;
	struct mutex lock;		/* see "Lock order" above */
	struct xarray table;
};

/**
 * struct access - one request, in progress
 * @shadow: whose memory
 * @range: what is being translated
 * @xas: where in the table that goes
 * @bytes: a snapshot goes here instead
 * @next: first byte that is still to be done
 * @end: first byte behind the run
 * @buf: where the user's data or bytes come from or go to next
 * @write: the device stores
 * @batches: how often translations had to be asked for
 * @barren: how many of the last ones were of no use
 * @until: when to stop asking for them (jiffies)
 */
struct access {
	struct shadow *shadow;
	struct hmm_range range;
	struct xa_state xas;
	u8 *bytes;
	unsigned long next;
	unsigned long end;
	void __user *buf;
	bool write;
	u64 batches;
	unsigned int barren;
	unsigned long until;
};

/* How long collisions may go on. */
static unsigned long patience(void)
{
	return msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT);
}

static unsigned long page_index(unsigned long addr)
{
	return addr >> PAGE_SHIFT;
}

static unsigned long pages_left(const struct access *acc)
{
	return page_index(acc->end - acc->next);
}

static void *entry_make(struct page *page, bool write)
{
	return xa_mk_value((page_to_pfn(page) << ENTRY_SHIFT) |
			   (write ? ENTRY_WRITE : 0));
}

static struct page *entry_page(void *entry)
{
	return pfn_to_page(xa_to_value(entry) >> ENTRY_SHIFT);
}

static bool entry_allows(void *entry, bool write)
{
	return entry && (!write || (xa_to_value(entry) & ENTRY_WRITE));
}

/* ---- What invalidations do to entries ---- */

enum fate { KEPT, DOWNGRADED, DROPPED, FATES };

static const char * const event_names[] = {
	[MMU_NOTIFY_UNMAP] = "unmap",
	[MMU_NOTIFY_CLEAR] = "clear",
	[MMU_NOTIFY_PROTECTION_VMA] = "protection_vma",
	[MMU_NOTIFY_PROTECTION_PAGE] = "protection_page",
	[MMU_NOTIFY_SOFT_DIRTY] = "soft_dirty",
	[MMU_NOTIFY_RELEASE] = "release",
	[MMU_NOTIFY_MIGRATE] = "migrate",
	[MMU_NOTIFY_EXCLUSIVE] = "exclusive",
};

static atomic_long_t fates[ARRAY_SIZE(event_names)][FATES];

static int invalidations_get(char *buffer, const struct kernel_param *kp)
{
	int len = sysfs_emit(buffer, "event kept downgraded dropped\n");
	size_t i;

	for (i = 0; i < ARRAY_SIZE(event_names); i++)
		len += sysfs_emit_at(buffer, len, "%s %ld %ld %ld\n",
				     event_names[i],
				     atomic_long_read(&fates[i][KEPT]),
				     atomic_long_read(&fates[i][DOWNGRADED]),
				     atomic_long_read(&fates[i][DROPPED]));
	return len;
}

static const struct kernel_param_ops invalidations_ops = {
	.get = invalidations_get,
};
module_param_cb(invalidations, &invalidations_ops, NULL, 0444);
MODULE_PARM_DESC(invalidations, "Entries that invalidations met, by event");

static bool ignore_soft_dirty;
module_param(ignore_soft_dirty, bool, 0644);
MODULE_PARM_DESC(ignore_soft_dirty,
		 "Writes through old entries do not make a page soft-dirty again");

/* ---- The shadow table and its mirror ---- */

/* The CPU still maps the page: the moment to tell that the device wrote to it. */
static void shadow_clean(struct shadow *shadow, unsigned long index, void *entry)
{
	if (!xa_get_mark(&shadow->table, index, SHADOW_DIRTY))
		return;
	folio_mark_dirty(page_folio(entry_page(entry)));
	xa_clear_mark(&shadow->table, index, SHADOW_DIRTY);
}

/* Leave one entry with no more than @access, which is of the pages of a range. */
static enum fate shadow_restrict(struct shadow *shadow, unsigned long index,
				 void *entry, unsigned int access)
{
	if (access & MMU_NOTIFIER_RANGE_WRITE)
		return KEPT;
	if (access && !entry_allows(entry, true))
		return KEPT;

	shadow_clean(shadow, index, entry);
	if (!access) {
		xa_erase(&shadow->table, index);
		return DROPPED;
	}
	/* There is an entry already: nothing is allocated */
	xa_store(&shadow->table, index, entry_make(entry_page(entry), false), 0);
	return DOWNGRADED;
}

static bool shadow_invalidate(struct hmm_mirror *mirror,
			      const struct mmu_notifier_range *range)
{
	struct shadow *shadow = container_of(mirror, struct shadow, mirror);
	unsigned int access = mmu_notifier_range_access(range);
	unsigned long index;
	enum fate fate;
	void *entry;

	/* Unless told otherwise, writes are to be seen */
	if (range->event == MMU_NOTIFY_SOFT_DIRTY && !READ_ONCE(ignore_soft_dirty))
		access &= ~MMU_NOTIFIER_RANGE_WRITE;

	xa_for_each_range(&shadow->table, index, entry,
			  page_index(hmm_mirror_first(mirror, range)),
			  page_index(hmm_mirror_last(mirror, range))) {
		fate = shadow_restrict(shadow, index, entry, access);
		atomic_long_inc(&fates[range->event][fate]);
	}
	return true;
}

/* The pages are still mapped. A little later they may be anyone's. */
static void shadow_release(struct hmm_mirror *mirror)
{
	struct shadow *shadow = container_of(mirror, struct shadow, mirror);
	unsigned long index;
	void *entry;

	mutex_lock(&shadow->lock);
	xa_for_each(&shadow->table, index, entry)
		shadow_restrict(shadow, index, entry, 0);
	mutex_unlock(&shadow->lock);
}

static void shadow_free(struct hmm_mirror *mirror)
{
	struct shadow *shadow = container_of(mirror, struct shadow, mirror);

	WARN_ON_ONCE(!xa_empty(&shadow->table));
	xa_destroy(&shadow->table);
	mutex_destroy(&shadow->lock);
	kfree(shadow);
}

/* ---- Translating: from the CPU's page tables to a window of HMM pfns ---- */

static void window_enter(struct xa_state *xas, const struct hmm_range *range)
{
	unsigned long n = page_index(range->end - range->start);
	unsigned long i;
	void *old;

	xas_set(xas, page_index(range->start));
	xas_lock(xas);
	for (i = 0; i < n && !xas_error(xas); i++) {
		struct page *page = hmm_pfn_to_page(range->hmm_pfns[i]);
		bool write = range->hmm_pfns[i] & HMM_PFN_WRITE;

		/*
		 * The page of an entry cannot have changed without a call of
		 * shadow_invalidate(). A store over an entry keeps its marks.
		 */
		old = xas_store(xas, entry_make(page, write));
		WARN_ON_ONCE(old && !xas_error(xas) && entry_page(old) != page);
		xas_next(xas);
	}
	xas_unlock(xas);
}

static u8 snapshot_byte(unsigned long hmm_pfn)
{
	unsigned int order = hmm_pfn_to_map_order(hmm_pfn);
	u8 byte;

	if (hmm_pfn & HMM_PFN_ERROR)
		return HMM_DMIRROR_PROT_ERROR;
	if (!(hmm_pfn & HMM_PFN_VALID))
		return HMM_DMIRROR_PROT_NONE;

	byte = hmm_pfn & HMM_PFN_WRITE ? HMM_DMIRROR_PROT_WRITE :
					 HMM_DMIRROR_PROT_READ;
	if (order == PMD_SHIFT - PAGE_SHIFT)
		byte |= HMM_DMIRROR_PROT_PMD;
	else if (order == PUD_SHIFT - PAGE_SHIFT)
		byte |= HMM_DMIRROR_PROT_PUD;
	if (is_zero_pfn(page_to_pfn(hmm_pfn_to_page(hmm_pfn))))
		byte |= HMM_DMIRROR_PROT_ZERO;
	return byte;
}

/* The table is left alone. */
static void window_describe(u8 *bytes, const struct hmm_range *range)
{
	unsigned long n = page_index(range->end - range->start);
	unsigned long i;

	for (i = 0; i < n; i++)
		bytes[i] = snapshot_byte(range->hmm_pfns[i]);
}

static int shadow_map(struct hmm_mirror *mirror, struct hmm_range *range)
{
	struct access *acc = container_of(range, struct access, range);

	if (acc->bytes) {
		window_describe(acc->bytes, range);
		return 0;
	}
	window_enter(&acc->xas, range);
	return xas_error(&acc->xas) == -ENOMEM ? -EAGAIN : xas_error(&acc->xas);
}

static int shadow_refill(struct hmm_mirror *mirror, struct hmm_range *range)
{
	struct access *acc = container_of(range, struct access, range);

	return xas_nomem(&acc->xas, GFP_KERNEL) ? 0 : -ENOMEM;
}

static const struct hmm_mirror_ops shadow_ops = {
	.invalidate = shadow_invalidate,
	.map = shadow_map,
	.release = shadow_release,
	.refill = shadow_refill,
	.free = shadow_free,
	/* A request ends, whoever has promised to supply the memory */
	.no_userfault = true,
};

static struct shadow *shadow_create(struct mm_struct *mm)
{
	struct shadow *shadow;
	int ret;

	shadow = kzalloc(sizeof(*shadow), GFP_KERNEL);
	if (!shadow)
		return ERR_PTR(-ENOMEM);
	mutex_init(&shadow->lock);
	xa_init(&shadow->table);

	ret = hmm_mirror_register(&shadow->mirror, mm, 0, ULONG_MAX & PAGE_MASK,
				  &shadow_ops, &shadow->lock);
	if (ret) {
		shadow_free(&shadow->mirror);
		return ERR_PTR(ret);
	}
	return shadow;
}

/* The next window of the run, from @addr on. */
static int access_window(struct access *acc, unsigned long addr)
{
	struct hmm_mirror *mirror = &acc->shadow->mirror;
	struct hmm_range *range = &acc->range;
	int ret;

	if (fatal_signal_pending(current))
		return -EINTR;
	range->start = addr;
	range->end = addr + min(acc->end - addr, WINDOW_PAGES << PAGE_SHIFT);
	ret = hmm_mirror_fault(mirror, range, patience());
	/* What is left of a refill, and after one that failed nothing new */
	if (!xas_error(&acc->xas))
		xas_nomem(&acc->xas, GFP_KERNEL);
	return ret;
}

/*
 * Translate all that is left of the run and enter it in the table. A batch whose
 * first page was gone before it could be used is a collision, too. The time is
 * counted from the first of them: a long run is no reason to fail.
 */
static int access_batch(struct access *acc)
{
	unsigned long addr;
	int ret = 0;

	if (acc->barren == 1)
		acc->until = jiffies + patience();
	else if (acc->barren && time_after(jiffies, acc->until))
		return -EBUSY;

	acc->barren++;
	acc->batches++;
	for (addr = acc->next; addr < acc->end && !ret; addr = acc->range.end)
		ret = access_window(acc, addr);
	return ret;
}

/* ---- READ and WRITE ---- */

/*
 * The device is played by a CPU, and needs the kernel to have the page mapped.
 * Secret memory is not: to touch it would be an oops.
 */
static bool page_reachable(const void *mem)
{
	u8 probe;

	return !get_kernel_nofault(probe, (const u8 *)mem);
}

static int page_move(struct page *page, void *bounce, bool write)
{
	void *mem = kmap_local_page(page);
	int ret = 0;

	if (!page_reachable(mem)) {
		ret = -EFAULT;
	} else if (write) {
		memcpy(mem, bounce, PAGE_SIZE);
		flush_dcache_page(page);
	} else {
		memcpy(bounce, mem, PAGE_SIZE);
	}
	kunmap_local(mem);
	return ret;
}

/*
 * Up to @max pages between the bounce buffer and memory, for as long as the
 * table has them. Returns how many, 0 if the first is not there.
 */
static long access_move(struct access *acc, void *bounce, unsigned long max)
{
	unsigned long index = page_index(acc->next);
	struct xarray *table = &acc->shadow->table;
	unsigned long done;
	void *entry;
	int ret = 0;

	mutex_lock(&acc->shadow->lock);
	for (done = 0; done < max; done++) {
		entry = xa_load(table, index + done);
		if (!entry_allows(entry, acc->write))
			break;
		ret = page_move(entry_page(entry), bounce + done * PAGE_SIZE,
				acc->write);
		if (ret)
			break;
		if (acc->write)
			xa_set_mark(table, index + done, SHADOW_DIRTY);
	}
	mutex_unlock(&acc->shadow->lock);
	return ret ?: done;
}

/* One bounce buffer's worth, user memory to device or the other way. */
static long access_chunk(struct access *acc, void *bounce)
{
	unsigned long max = min(pages_left(acc), BOUNCE_PAGES);
	long done;

	if (acc->write && copy_from_user(bounce, acc->buf, max * PAGE_SIZE))
		return -EFAULT;
	done = access_move(acc, bounce, max);
	if (done <= 0)
		return done;
	if (!acc->write && copy_to_user(acc->buf, bounce, done * PAGE_SIZE))
		return -EFAULT;

	acc->next += done * PAGE_SIZE;
	acc->buf += done * PAGE_SIZE;
	return done;
}

/* Chunks until one finds nothing, then a batch, and so on. */
static int access_loop(struct access *acc, void *bounce)
{
	long done;
	int ret;

	while (acc->next < acc->end) {
		if (fatal_signal_pending(current))
			return -EINTR;
		done = access_chunk(acc, bounce);
		if (done < 0)
			return done;
		if (done) {
			acc->barren = 0;
			continue;
		}
		ret = access_batch(acc);
		if (ret)
			return ret;
	}
	return 0;
}

static int access_run(struct access *acc)
{
	void *bounce;
	int ret;

	bounce = kvmalloc_array(min(pages_left(acc), BOUNCE_PAGES), PAGE_SIZE,
				GFP_KERNEL);
	if (!bounce)
		return -ENOMEM;
	acc->range.default_flags = HMM_PFN_REQ_FAULT |
				   (acc->write ? HMM_PFN_REQ_WRITE : 0);
	ret = access_loop(acc, bounce);
	kvfree(bounce);
	return ret;
}

/* ---- SNAPSHOT ---- */

static int snapshot_loop(struct access *acc)
{
	unsigned long pages;
	int ret;

	while (acc->next < acc->end) {
		ret = access_window(acc, acc->next);
		if (ret)
			return ret;
		pages = page_index(acc->range.end - acc->next);
		if (copy_to_user(acc->buf, acc->bytes, pages))
			return -EFAULT;
		acc->next = acc->range.end;
		acc->buf += pages;
	}
	return 0;
}

static int snapshot_run(struct access *acc)
{
	int ret;

	acc->bytes = kvmalloc(min(pages_left(acc), WINDOW_PAGES), GFP_KERNEL);
	if (!acc->bytes)
		return -ENOMEM;
	ret = snapshot_loop(acc);
	kvfree(acc->bytes);
	return ret;
}

/* ---- The files ---- */

static int tdev_open(struct inode *inode, struct file *file)
{
	struct shadow *shadow;

	/* A kernel thread has no address space to shadow. */
	if (!current->mm)
		return -EINVAL;
	shadow = shadow_create(current->mm);
	if (IS_ERR(shadow))
		return PTR_ERR(shadow);
	file->private_data = shadow;
	return nonseekable_open(inode, file);
}

static int tdev_release(struct inode *inode, struct file *file)
{
	struct shadow *shadow = file->private_data;

	hmm_mirror_unregister(&shadow->mirror);
	return 0;
}

/*
 * Whole pages, at least one, not past the end of the number space. Where the
 * run lies in the address space is for the page-table walk to judge.
 */
static int access_init(struct access *acc, const struct hmm_dmirror_cmd *cmd)
{
	unsigned long size;

	if (!cmd->npages || !PAGE_ALIGNED(cmd->addr))
		return -EINVAL;
	if (check_shl_overflow(cmd->npages, PAGE_SHIFT, &size) ||
	    check_add_overflow(cmd->addr, size, &acc->end))
		return -EINVAL;
	acc->next = acc->end - size;
	acc->buf = u64_to_user_ptr(cmd->ptr);
	return 0;
}

/* What the device is asked for; a request without @run needs its own memory. */
static const struct request {
	unsigned int command;
	bool write;
	int (*run)(struct access *acc);
} requests[] = {
	{ .command = HMM_DMIRROR_READ, .run = access_run },
	{ .command = HMM_DMIRROR_WRITE, .run = access_run, .write = true },
	{ .command = HMM_DMIRROR_SNAPSHOT, .run = snapshot_run },
	{ .command = HMM_DMIRROR_MIGRATE_TO_DEV },
	{ .command = HMM_DMIRROR_MIGRATE_TO_SYS },
	{ .command = HMM_DMIRROR_EXCLUSIVE },
	{ .command = HMM_DMIRROR_CHECK_EXCLUSIVE },
	{ .command = HMM_DMIRROR_RELEASE },
};

static int request_run(const struct request *req, struct access *acc)
{
	struct hmm_mirror *mirror = &acc->shadow->mirror;
	int ret = -ENOMEM;

	/* A file that outlived its process through fork() shadows nothing. */
	if (!hmm_mirror_mmget(mirror))
		return -ESRCH;
	acc->range.hmm_pfns = kvmalloc_array(min(pages_left(acc), WINDOW_PAGES),
					     sizeof(*acc->range.hmm_pfns),
					     GFP_KERNEL);
	if (acc->range.hmm_pfns) {
		acc->write = req->write;
		ret = req->run(acc);
	}
	kvfree(acc->range.hmm_pfns);
	hmm_mirror_mmput(mirror);
	return ret;
}

static long request_serve(const struct request *req, struct shadow *shadow,
			  struct hmm_dmirror_cmd __user *ucmd)
{
	struct access acc = {
		.shadow = shadow,
		.xas = __XA_STATE(&shadow->table, 0, 0, 0),
	};
	struct hmm_dmirror_cmd cmd;
	int ret;

	if (!req->run)
		return -ENOTTY;
	if (copy_from_user(&cmd, ucmd, sizeof(cmd)))
		return -EFAULT;
	ret = access_init(&acc, &cmd);
	if (!ret)
		ret = request_run(req, &acc);
	if (ret)
		return ret;

	cmd.cpages = cmd.npages;
	cmd.faults = acc.batches;
	return copy_to_user(ucmd, &cmd, sizeof(cmd)) ? -EFAULT : 0;
}

static long tdev_ioctl(struct file *file, unsigned int command,
		       unsigned long arg)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(requests); i++)
		if (requests[i].command == command)
			return request_serve(&requests[i], file->private_data,
					     (void __user *)arg);
	return -EINVAL;
}

/*
 * Kernel pages in a user mapping, a sight that a snapshot has to cope with.
 * A private mapping gets them read-only, and copies on the first write.
 */
static int tdev_mmap(struct file *file, struct vm_area_struct *vma)
{
	unsigned long addr;
	struct page *page;
	int ret = 0;

	if (vma_pages(vma) > MMAP_PAGES)
		return -EINVAL;
	vm_flags_set(vma, VM_DONTEXPAND);
	for (addr = vma->vm_start; addr < vma->vm_end && !ret;
	     addr += PAGE_SIZE) {
		page = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);
		if (!page)
			return -ENOMEM;
		ret = vm_insert_page(vma, addr, page);
		/* From here on the mapping is the page's only owner. */
		put_page(page);
	}
	return ret;
}

static const struct file_operations tdev_fops = {
	.owner = THIS_MODULE,
	.open = tdev_open,
	.release = tdev_release,
	.unlocked_ioctl = tdev_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = tdev_mmap,
};

/* ---- Coming and going ---- */

static dev_t tdev_first;
static struct class *tdev_class;
static struct cdev tdev_cdev[TDEV_PRESENT];

static int tdev_add(unsigned int n)
{
	struct device *dev;
	int ret;

	cdev_init(&tdev_cdev[n], &tdev_fops);
	tdev_cdev[n].owner = THIS_MODULE;
	ret = cdev_add(&tdev_cdev[n], tdev_first + n, 1);
	if (ret)
		return ret;
	dev = device_create(tdev_class, NULL, tdev_first + n, NULL,
			    "hmm_dmirror%u", n);
	if (IS_ERR(dev))
		cdev_del(&tdev_cdev[n]);
	return PTR_ERR_OR_ZERO(dev);
}

static void tdev_del(unsigned int n)
{
	device_destroy(tdev_class, tdev_first + n);
	cdev_del(&tdev_cdev[n]);
}

static int tdev_add_all(void)
{
	unsigned int n;
	int ret;

	for (n = 0; n < TDEV_PRESENT; n++) {
		ret = tdev_add(n);
		if (ret) {
			while (n--)
				tdev_del(n);
			return ret;
		}
	}
	return 0;
}

static int __init tdev_init(void)
{
	int ret;

	ret = alloc_chrdev_region(&tdev_first, 0, TDEV_MINORS, "HMM_DMIRROR");
	if (ret)
		return ret;
	tdev_class = class_create("hmm_dmirror");
	if (IS_ERR(tdev_class)) {
		ret = PTR_ERR(tdev_class);
		goto drop_region;
	}
	ret = tdev_add_all();
	if (ret)
		goto drop_class;
	return 0;

drop_class:
	class_destroy(tdev_class);
drop_region:
	unregister_chrdev_region(tdev_first, TDEV_MINORS);
	return ret;
}

static void __exit tdev_exit(void)
{
	unsigned int n;

	for (n = 0; n < TDEV_PRESENT; n++)
		tdev_del(n);
	class_destroy(tdev_class);
	unregister_chrdev_region(tdev_first, TDEV_MINORS);
}

module_init(tdev_init);
module_exit(tdev_exit);
MODULE_DESCRIPTION("Dummy device on a process's memory, for tests of HMM");
MODULE_LICENSE("GPL");
