// SPDX-License-Identifier: GPL-2.0
/*
 * A device that works on a process's memory, made of nothing but software.
 *
 * Opening /dev/hmm_dmirrorN gives the device a *shadow* of the opener's address
 * space: an empty page table of the device's own. READ and WRITE run as device
 * accesses: each page goes through the shadow table; the first one that is not
 * there, or may not be written, stops the access and makes a *batch*: the rest
 * of the run is faulted in with hmm_range_fault() and entered in the table, and
 * the access goes on where it stopped. SNAPSHOT reports what the CPU has mapped
 * and enters nothing.
 *
 * Why an entry may be trusted
 *
 * The shadow holds no page references. An entry stands for "the CPU's page
 * table maps this page here, with at least this permission". That stays true
 * as long as no invalidation has touched the address, and one subscription
 * over the whole address space sees them all: the callback takes the entry out
 * before the CPU's page table changes. All uses of an entry happen under
 * shadow->lock, which the callback needs, so that a page in use by the device
 * cannot go away under it:
 *
 *	device				CPU
 *
 *	read_begin() -> seq
 *	hmm_range_fault() -> pfn
 *					invalidate: lock, set_seq, erase, unlock
 *					page table changes, page is freed
 *	lock
 *	read_retry(seq): true
 *	unlock, start again		(the pfn is never looked at)
 *
 * and, with the callback after the commit, erase finds the entry and takes it
 * out while the page is still mapped.
 *
 * What the device wrote
 *
 * No CPU page-table entry tells that the device wrote to a page, so the shadow
 * remembers (SHADOW_DIRTY) and hands the news on with folio_mark_dirty() when
 * the entry goes: in the callback, that is before the CPU unmaps or cleans
 * the page, and at the latest when the file is closed. The CPU's mapping keeps
 * the page from being truncated meanwhile, which is why no folio lock is needed.
 *
 * Lock order
 *
 *	mmap_lock
 *	  the core's locks around an invalidation (i_mmap_rwsem, folio lock, ...)
 *	    __mmu_notifier_invalidate_range_start_map (lockdep)
 *	      shadow->lock
 *	        the XArray's own spinlock
 *	        what folio_mark_dirty() takes (spinlocks)
 *
 * Reclaim may wait for shadow->lock through the callback. Nothing may therefore
 * be allocated under it with a right to reclaim, and no user memory be touched:
 * data passes through a buffer of the kernel's.
 */
#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/hmm.h>
#include <linux/init.h>
#include <linux/jiffies.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/overflow.h>
#include <linux/pgtable.h>
#include <linux/sched/mm.h>
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

/* Pages translated between a read_begin() and its read_retry(). */
#define WINDOW_PAGES	512UL
/* Collisions before the process is held up. */
#define WINDOW_TRIES	4
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
 * @sub: subscription to all of the address space
 * @lock: guards @table, and is held over every use of an entry
 * @table: page number to entry
 */
struct shadow {
	struct mmu_interval_notifier sub;
	struct mutex lock;		/* see "Lock order" above */
	struct xarray table;
};

/**
 * struct access - one request, in progress
 * @shadow: whose memory
 * @next: first byte that is still to be done
 * @end: first byte behind the run
 * @buf: where the user's data or bytes come from or go to next
 * @write: the device stores
 * @batches: how often translations had to be asked for
 */
struct access {
	struct shadow *shadow;
	unsigned long next;
	unsigned long end;
	void __user *buf;
	bool write;
	u64 batches;
};

/**
 * struct patience - with a thing that collides, and has to be done again
 * @tried: how often it collided
 * @until: after the first time, when to stop trying (jiffies)
 */
struct patience {
	unsigned int tried;
	unsigned long until;
};

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

/* ---- The shadow table and its subscription ---- */

/*
 * Forget the pages from byte @start to byte @last. The CPU still maps them, so
 * that this is the moment to tell the kernel which ones the device wrote.
 */
static void shadow_drop(struct shadow *shadow, unsigned long start,
			unsigned long last)
{
	unsigned long index;
	void *entry;

	lockdep_assert_held(&shadow->lock);

	xa_for_each_range(&shadow->table, index, entry, page_index(start),
			  page_index(last)) {
		if (xa_get_mark(&shadow->table, index, SHADOW_DIRTY))
			folio_mark_dirty(page_folio(entry_page(entry)));
		xa_erase(&shadow->table, index);
	}
}

static bool shadow_invalidate(struct mmu_interval_notifier *sub,
			      const struct mmu_notifier_range *range,
			      unsigned long cur_seq)
{
	struct shadow *shadow = container_of(sub, struct shadow, sub);

	if (mmu_notifier_range_blockable(range))
		mutex_lock(&shadow->lock);
	else if (!mutex_trylock(&shadow->lock))
		return false;

	mmu_interval_set_seq(sub, cur_seq);
	shadow_drop(shadow, range->start, range->end - 1);
	mutex_unlock(&shadow->lock);
	return true;
}

static const struct mmu_interval_notifier_ops shadow_sub_ops = {
	.invalidate = shadow_invalidate,
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

	ret = mmu_interval_notifier_insert(&shadow->sub, mm, 0,
					   ULONG_MAX & PAGE_MASK,
					   &shadow_sub_ops);
	if (ret) {
		mutex_destroy(&shadow->lock);
		kfree(shadow);
		return ERR_PTR(ret);
	}
	return shadow;
}

static void shadow_destroy(struct shadow *shadow)
{
	/*
	 * While the subscription stands the pages in the table are mapped.
	 * Behind remove() they may be anyone's, too late to mark them.
	 */
	mutex_lock(&shadow->lock);
	shadow_drop(shadow, 0, ULONG_MAX);
	mutex_unlock(&shadow->lock);

	mmu_interval_notifier_remove(&shadow->sub);
	WARN_ON_ONCE(!xa_empty(&shadow->table));
	xa_destroy(&shadow->table);
	mutex_destroy(&shadow->lock);
	kfree(shadow);
}

/* ---- Translating: from the CPU's page tables to a window of HMM pfns ---- */

/*
 * Try again after a collision? For a while, counted from the first collision
 * and not from the first try: a long run is no reason to fail, an address space
 * that never holds still is.
 */
static int patience_wait(struct patience *patience)
{
	if (fatal_signal_pending(current))
		return -EINTR;
	if (!patience->tried++) {
		patience->until = jiffies +
				  msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT);
	} else if (time_after(jiffies, patience->until)) {
		return -EBUSY;
	}
	cond_resched();
	return 0;
}

/* What is done with a window whose translations are known to be current. */
typedef void (*window_fn)(struct xa_state *xas, const struct hmm_range *range,
			  void *out);

/* Out: nothing. The translations go into the table at @xas. */
static void window_enter(struct xa_state *xas, const struct hmm_range *range,
			 void *out)
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

/* Out: one byte a page. The table is left alone. */
static void window_describe(struct xa_state *xas, const struct hmm_range *range,
			    void *out)
{
	unsigned long n = page_index(range->end - range->start);
	unsigned long i;
	u8 *bytes = out;

	for (i = 0; i < n; i++)
		bytes[i] = snapshot_byte(range->hmm_pfns[i]);
}

/*
 * Use the window under the lock, if it is still current. The XArray may want
 * memory, which it can only get with the lock dropped; whatever happens to
 * the window meanwhile, the check is made again.
 */
static int window_commit(struct shadow *shadow, struct hmm_range *range,
			 window_fn use, void *out)
{
	XA_STATE(xas, &shadow->table, 0);
	bool stale;

	do {
		mutex_lock(&shadow->lock);
		stale = mmu_interval_read_retry(&shadow->sub,
						range->notifier_seq);
		if (!stale)
			use(&xas, range, out);
		mutex_unlock(&shadow->lock);
	} while (xas_nomem(&xas, GFP_KERNEL));

	return stale ? -EBUSY : xas_error(&xas);
}

/* The mmap lock is held */
static int window_try(struct shadow *shadow, struct hmm_range *range,
		      window_fn use, void *out)
{
	int ret;

	range->notifier_seq = mmu_interval_read_begin(range->notifier);
	ret = hmm_range_fault(range);
	return ret ?: window_commit(shadow, range, use, out);
}

static int window_try_shared(struct shadow *shadow, struct hmm_range *range,
			     window_fn use, void *out)
{
	struct mm_struct *mm = shadow->sub.mm;
	int ret;

	ret = mmap_read_lock_killable(mm);
	if (ret)
		return ret;
	ret = window_try(shadow, range, use, out);
	mmap_read_unlock(mm);
	return ret;
}

/*
 * The process is held up meanwhile: it cannot be what we collide with. The first
 * try may be, if it has to fault.
 */
static int window_try_locked(struct shadow *shadow, struct hmm_range *range,
			     window_fn use, void *out)
{
	int ret;

	ret = hmm_range_lock(range);
	if (ret)
		return ret;
	ret = window_try(shadow, range, use, out);
	if (ret == -EBUSY)
		ret = window_try(shadow, range, use, out);
	hmm_range_unlock(range);
	return ret;
}

/*
 * The first collision may be our own: a page that is copied on a write is taken
 * from the device, too. With more of them somebody is at work on this window.
 */
static int window_run(struct shadow *shadow, struct hmm_range *range,
		      window_fn use, void *out)
{
	struct patience patience = {};
	int ret, err;

	do {
		if (patience.tried < WINDOW_TRIES)
			ret = window_try_shared(shadow, range, use, out);
		else
			ret = window_try_locked(shadow, range, use, out);
		if (ret != -EBUSY)
			return ret;
		err = patience_wait(&patience);
	} while (!err);
	return err;
}

/* Translate all that is left of the run and enter it in the table. */
static int access_batch(struct access *acc, struct hmm_range *range)
{
	unsigned long addr, len;
	int ret = 0;

	acc->batches++;
	for (addr = acc->next; addr < acc->end && !ret; addr += len) {
		len = min(acc->end - addr, WINDOW_PAGES << PAGE_SHIFT);
		range->start = addr;
		range->end = addr + len;
		if (fatal_signal_pending(current))
			return -EINTR;
		ret = window_run(acc->shadow, range, window_enter, NULL);
	}
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

/*
 * Chunks until one finds nothing, then a batch, and so on. A batch whose first
 * page was gone before it could be used is a collision, too.
 */
static int access_loop(struct access *acc, struct hmm_range *range,
		       void *bounce)
{
	struct patience patience = {};
	bool batched = false;
	long done;
	int ret;

	while (acc->next < acc->end) {
		if (fatal_signal_pending(current))
			return -EINTR;
		done = access_chunk(acc, bounce);
		if (done < 0)
			return done;
		if (done) {
			patience.tried = 0;
			batched = false;
			continue;
		}
		ret = batched ? patience_wait(&patience) : 0;
		if (!ret)
			ret = access_batch(acc, range);
		if (ret)
			return ret;
		batched = true;
	}
	return 0;
}

static int access_run(struct access *acc)
{
	struct hmm_range range = {
		.notifier = &acc->shadow->sub,
		.default_flags = HMM_PFN_REQ_FAULT |
				 (acc->write ? HMM_PFN_REQ_WRITE : 0),
	};
	unsigned long pages = pages_left(acc);
	void *bounce;
	int ret = -ENOMEM;

	bounce = kvmalloc_array(min(pages, BOUNCE_PAGES), PAGE_SIZE,
				GFP_KERNEL);
	range.hmm_pfns = kvmalloc_array(min(pages, WINDOW_PAGES),
					sizeof(*range.hmm_pfns), GFP_KERNEL);
	if (bounce && range.hmm_pfns)
		ret = access_loop(acc, &range, bounce);
	kvfree(range.hmm_pfns);
	kvfree(bounce);
	return ret;
}

/* ---- SNAPSHOT ---- */

static int snapshot_loop(struct access *acc, struct hmm_range *range, u8 *bytes)
{
	unsigned long pages;
	int ret;

	while (acc->next < acc->end) {
		if (fatal_signal_pending(current))
			return -EINTR;
		pages = min(pages_left(acc), WINDOW_PAGES);
		range->start = acc->next;
		range->end = acc->next + pages * PAGE_SIZE;
		ret = window_run(acc->shadow, range, window_describe, bytes);
		if (ret)
			return ret;
		if (copy_to_user(acc->buf, bytes, pages))
			return -EFAULT;
		acc->next = range->end;
		acc->buf += pages;
		cond_resched();
	}
	return 0;
}

static int snapshot_run(struct access *acc)
{
	struct hmm_range range = { .notifier = &acc->shadow->sub };
	unsigned long pages = min(pages_left(acc), WINDOW_PAGES);
	u8 *bytes;
	int ret = -ENOMEM;

	bytes = kvmalloc(pages, GFP_KERNEL);
	range.hmm_pfns = kvmalloc_array(pages, sizeof(*range.hmm_pfns),
					GFP_KERNEL);
	if (bytes && range.hmm_pfns)
		ret = snapshot_loop(acc, &range, bytes);
	kvfree(range.hmm_pfns);
	kvfree(bytes);
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
	shadow_destroy(file->private_data);
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
	struct mm_struct *mm = acc->shadow->sub.mm;
	int ret;

	/* A file that outlived its process through fork() shadows nothing. */
	if (!mmget_not_zero(mm))
		return -ESRCH;
	acc->write = req->write;
	ret = req->run(acc);
	/* Possibly the last user: no lock of ours may be held here. */
	mmput(mm);
	return ret;
}

static long request_serve(const struct request *req, struct shadow *shadow,
			  struct hmm_dmirror_cmd __user *ucmd)
{
	struct access acc = { .shadow = shadow };
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
