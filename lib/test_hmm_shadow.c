// SPDX-License-Identifier: GPL-2.0
/*
 * The dummy device's page table, and its accesses by way of it.
 *
 * A *shadow* of an address space is a mirror (mm/hmm_mirror.c) with a page table of
 * the device's own, empty at first. READ and WRITE run as device accesses: each page
 * goes through the shadow table; the first one that is not there, or may not be
 * written, stops the access and makes a *batch*: the rest of the run is faulted in
 * and entered in the table, and the access goes on where it stopped. SNAPSHOT
 * reports what the CPU has mapped and enters nothing. For what the device does with
 * memory of its own, see test_hmm_memory.c.
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
 * Memory for the device alone
 *
 * EXCLUSIVE enters translations for writing first, and takes the pages away from
 * the CPU then, which is no reason to drop them: the device's own
 * MMU_NOTIFY_EXCLUSIVE leaves entries as they are. An entry that is still there
 * when that is done is of the page that was taken, and is marked (SHADOW_ATOMIC);
 * were it gone, so would be what was taken. The mark goes with the entry, or with
 * its permission to write, when the CPU wants the page back.
 *
 * Lock order
 *
 *	mm->mmap_lock			around taking pages from the CPU
 *	  folio locks			around marking entries of such pages
 *	    shadow->lock		see DOC: Locking of mirrors
 *	      the XArray's own spinlock
 *	      what folio_mark_dirty() takes (spinlocks)
 *
 * No user memory may be touched under it: data passes through a buffer of the
 * kernel's.
 *
 * What invalidations did to the entries that they met is counted for each event,
 * in the module parameter "invalidations".
 */
#include <linux/atomic.h>
#include <linux/highmem.h>
#include <linux/hmm.h>
#include <linux/hmm_mirror.h>
#include <linux/jiffies.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/overflow.h>
#include <linux/pagemap.h>
#include <linux/pgtable.h>
#include <linux/rmap.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/xarray.h>

#include "test_hmm.h"
#include "test_hmm_uapi.h"

/* Pages moved under one hold of shadow->lock. */
#define BOUNCE_PAGES	32UL
/* Pages taken from the CPU at once, and how often that is tried. */
#define EXCLUSIVE_PAGES	32UL
#define EXCLUSIVE_TRIES	4

/* An entry: the pfn, above one bit of permission. */
#define ENTRY_WRITE	1UL
#define ENTRY_SHIFT	1

/* Mark of an entry through which the device has written. */
#define SHADOW_DIRTY	XA_MARK_1
/* Mark of an entry whose page the CPU cannot reach. */
#define SHADOW_ATOMIC	XA_MARK_2

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
	xa_clear_mark(&shadow->table, index, SHADOW_ATOMIC);
	/* There is an entry already: nothing is allocated */
	xa_store(&shadow->table, index, entry_make(entry_page(entry), false), 0);
	return DOWNGRADED;
}

static bool shadow_invalidate(struct hmm_mirror *mirror,
			      const struct mmu_notifier_range *range)
{
	struct shadow *shadow = container_of(mirror, struct shadow, mirror);
	unsigned int access;
	unsigned long index;
	enum fate fate;
	void *entry;

	xa_for_each_range(&shadow->table, index, entry,
			  page_index(hmm_mirror_first(mirror, range)),
			  page_index(hmm_mirror_last(mirror, range))) {
		access = tdev_memory_access(shadow->tdev, entry_page(entry), range);
		/* Unless told otherwise, writes are to be seen */
		if (range->event == MMU_NOTIFY_SOFT_DIRTY &&
		    !READ_ONCE(ignore_soft_dirty))
			access &= ~MMU_NOTIFIER_RANGE_WRITE;
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

/* Is there something to enter for a page of the window? */
static bool access_wants(const struct access *acc, unsigned long hmm_pfn)
{
	return !acc->own_only ||
	       (hmm_pfn & HMM_PFN_VALID &&
		tdev_owns(acc->shadow->tdev, hmm_pfn_to_page(hmm_pfn)));
}

static void window_enter(struct access *acc, const struct hmm_range *range)
{
	unsigned long n = page_index(range->end - range->start);
	unsigned long index = page_index(range->start);
	struct xa_state *xas = &acc->xas;
	unsigned long i;
	void *old;

	xas_set(xas, index);
	xas_lock(xas);
	for (i = 0; i < n && !xas_error(xas); i++) {
		struct page *page = hmm_pfn_to_page(range->hmm_pfns[i]);
		bool write = range->hmm_pfns[i] & HMM_PFN_WRITE;

		if (!access_wants(acc, range->hmm_pfns[i])) {
			xas_set(xas, index + i + 1);
			continue;
		}
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

/* Whose memory a page is, if a device's. */
static u8 snapshot_origin(const struct tdev *tdev, const struct page *page)
{
	bool own = tdev_owns(tdev, page);

	if (is_zero_pfn(page_to_pfn(page)))
		return HMM_DMIRROR_PROT_ZERO;
	if (is_device_private_page(page))
		return own ? HMM_DMIRROR_PROT_DEV_PRIVATE_LOCAL :
			     HMM_DMIRROR_PROT_DEV_PRIVATE_REMOTE;
	if (is_device_coherent_page(page))
		return own ? HMM_DMIRROR_PROT_DEV_COHERENT_LOCAL :
			     HMM_DMIRROR_PROT_DEV_COHERENT_REMOTE;
	return 0;
}

static u8 snapshot_byte(const struct tdev *tdev, unsigned long hmm_pfn)
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
	return byte | snapshot_origin(tdev, hmm_pfn_to_page(hmm_pfn));
}

/* The table is left alone. */
static void window_describe(struct access *acc, const struct hmm_range *range)
{
	unsigned long n = page_index(range->end - range->start);
	unsigned long i;

	for (i = 0; i < n; i++)
		acc->bytes[i] = snapshot_byte(acc->shadow->tdev,
					      range->hmm_pfns[i]);
}

static int shadow_map(struct hmm_mirror *mirror, struct hmm_range *range)
{
	struct access *acc = container_of(range, struct access, range);

	if (acc->bytes) {
		window_describe(acc, range);
		return 0;
	}
	window_enter(acc, range);
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

struct shadow *tdev_shadow_create(struct tdev *tdev, struct mm_struct *mm)
{
	struct shadow *shadow;
	int ret;

	shadow = kzalloc(sizeof(*shadow), GFP_KERNEL);
	if (!shadow)
		return ERR_PTR(-ENOMEM);
	shadow->tdev = tdev;
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

static int access_translate(struct access *acc, unsigned long start,
			    unsigned long end)
{
	struct hmm_range *range = &acc->range;
	int ret;

	if (fatal_signal_pending(current))
		return -EINTR;
	range->start = start;
	range->end = end;
	range->dev_private_owner = acc->shadow->tdev;
	ret = hmm_mirror_fault(&acc->shadow->mirror, range, patience());
	/* What is left of a refill, and after one that failed nothing new */
	if (!xas_error(&acc->xas))
		xas_nomem(&acc->xas, GFP_KERNEL);
	return ret;
}

/* The next window of the run, from @addr on. */
static int access_window(struct access *acc, unsigned long addr)
{
	unsigned long bytes = min(acc->end - addr, TDEV_WINDOW_PAGES << PAGE_SHIFT);

	return access_translate(acc, addr, addr + bytes);
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
	struct page *data = tdev_page_data(page);
	void *mem = kmap_local_page(data);
	int ret = 0;

	if (!page_reachable(mem)) {
		ret = -EFAULT;
	} else if (write) {
		memcpy(mem, bounce, PAGE_SIZE);
		flush_dcache_page(data);
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

/* Chunks as long as the table has all of the run. */
static int access_translated(struct access *acc, void *bounce)
{
	long done = 0;

	while (acc->next < acc->end) {
		if (fatal_signal_pending(current))
			return -EINTR;
		done = access_chunk(acc, bounce);
		if (done <= 0)
			return done ?: -ENOENT;
	}
	return 0;
}

static int access_bounced(struct access *acc,
			  int (*loop)(struct access *acc, void *bounce))
{
	void *bounce;
	int ret;

	bounce = kvmalloc_array(min(pages_left(acc), BOUNCE_PAGES), PAGE_SIZE,
				GFP_KERNEL);
	if (!bounce)
		return -ENOMEM;
	ret = loop(acc, bounce);
	kvfree(bounce);
	return ret;
}

/* READ and WRITE */
int tdev_access(struct access *acc)
{
	acc->range.default_flags = HMM_PFN_REQ_FAULT |
				   (acc->write ? HMM_PFN_REQ_WRITE : 0);
	return access_bounced(acc, access_loop);
}

/* ---- MIGRATE_TO_DEV ---- */

/* Enter what the device has of its own memory, without faulting anything in. */
static int access_enter_own(struct access *acc)
{
	unsigned long addr;
	int ret = 0;

	acc->range.default_flags = 0;
	acc->own_only = true;
	for (addr = acc->next; addr < acc->end && !ret; addr = acc->range.end)
		ret = access_window(acc, addr);
	return ret;
}

/* The data is read where it has gone: a page that stayed behind is an error. */
int tdev_migrate(struct access *acc)
{
	u64 pages = acc->pages;
	int ret;

	ret = tdev_migrate_to_dev(acc);
	ret = ret ?: access_enter_own(acc);
	ret = ret ?: access_bounced(acc, access_translated);
	acc->pages = pages;
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

int tdev_snapshot(struct access *acc)
{
	int ret;

	acc->bytes = kvmalloc(min(pages_left(acc), TDEV_WINDOW_PAGES), GFP_KERNEL);
	if (!acc->bytes)
		return -ENOMEM;
	ret = snapshot_loop(acc);
	kvfree(acc->bytes);
	return ret;
}

/* ---- EXCLUSIVE ---- */

/* Mark what is still there of pages that the CPU has lost, and let go of them. */
static long exclusive_mark(struct shadow *shadow, unsigned long index,
			   struct page **pages, long npages)
{
	long i, marked = 0;
	void *entry;

	mutex_lock(&shadow->lock);
	for (i = 0; i < npages; i++) {
		entry = xa_load(&shadow->table, index + i);
		if (!pages[i] || !entry_allows(entry, true) ||
		    entry_page(entry) != pages[i])
			continue;
		xa_set_mark(&shadow->table, index + i, SHADOW_ATOMIC);
		marked++;
	}
	mutex_unlock(&shadow->lock);

	for (i = 0; i < npages; i++) {
		if (!pages[i])
			continue;
		unlock_page(pages[i]);
		put_page(pages[i]);
	}
	return marked;
}

/* Returns how many pages the device has for itself now, from the first one on. */
static long exclusive_take(struct access *acc, unsigned long start,
			   unsigned long end)
{
	struct page *pages[EXCLUSIVE_PAGES];
	struct shadow *shadow = acc->shadow;
	struct mm_struct *mm = shadow->mirror.sub.mm;
	long found;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	found = make_device_exclusive_range(mm, start, end, pages, shadow->tdev);
	if (found > 0)
		found = exclusive_mark(shadow, page_index(start), pages, found);
	mmap_read_unlock(mm);
	return found;
}

/*
 * To find the pages may change them: one comes home from a device, a huge one is
 * split. That takes their entries away, and a second try keeps them.
 */
static int exclusive_piece(struct access *acc, unsigned long start,
			   unsigned long end)
{
	unsigned int tries;
	long taken;
	int ret;

	for (tries = 0; tries < EXCLUSIVE_TRIES; tries++) {
		ret = access_translate(acc, start, end);
		if (ret)
			return ret;
		taken = exclusive_take(acc, start, end);
		if (taken < 0)
			return taken;
		if (taken == page_index(end - start))
			return 0;
		cond_resched();
	}
	return -EBUSY;
}

int tdev_exclusive(struct access *acc)
{
	unsigned long addr, next;
	int ret = 0;

	acc->range.default_flags = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE;
	for (addr = acc->next; addr < acc->end && !ret; addr = next) {
		/* What is left, before anything is added that might wrap */
		next = addr + min(acc->end - addr, EXCLUSIVE_PAGES * PAGE_SIZE);
		ret = exclusive_piece(acc, addr, next);
	}
	/* What the device has lost meanwhile is read as anything else is. */
	return ret ?: tdev_access(acc);
}

int tdev_check_exclusive(struct access *acc)
{
	unsigned long index = page_index(acc->next);

	return xa_find(&acc->shadow->table, &index, page_index(acc->end) - 1,
		       SHADOW_ATOMIC) ? -EPERM : 0;
}
