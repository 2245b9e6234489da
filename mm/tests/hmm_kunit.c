// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of ranges: hmm_range_fault() and the encoding of its entries
 *
 * Each case runs on an mm of its own, made by kunit_vm_mmap() and torn down when
 * the thread of the case ends. One interval subscription covers all of it. Memory
 * is of three kinds: anonymous, hugetlb, and mappings of the "test file", whose
 * fault handler counts what it is asked for, and can be made to fail, to collide
 * or to send a signal.
 *
 * Page-table states that are hard to reach are written straight into the tables
 * under the page-table lock ("injected") and taken back before anything else
 * sees them. Between the two a case uses KUNIT_EXPECT, never KUNIT_ASSERT.
 *
 * What the walk ought to report is worked out by hmm_ref(), which looks at one
 * page at a time with the generic page-table helpers and knows no shortcut.
 *
 * Nothing waits for ever: each call is guarded by a timer that kills the calling
 * thread (HMM_TEST_TIMEOUT).
 *
 * Short names: t is the fixture, addr a page-aligned user address, n a count of
 * pages, idx the number of a page in a range, col a column of the state table
 * (0: nothing requested, 1: fault, 2: fault for write).
 */
#include <kunit/test.h>
#include <linux/anon_inodes.h>
#include <linux/delay.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/hmm.h>
#include <linux/huge_mm.h>
#include <linux/hugetlb.h>
#include <linux/ioport.h>
#include <linux/kthread.h>
#include <linux/memblock.h>
#include <linux/memcontrol.h>
#include <linux/memremap.h>
#include <linux/mman.h>
#include <linux/mmu_notifier.h>
#include <linux/pfn_t.h>
#include <linux/pgtable.h>
#include <linux/prandom.h>
#include <linux/rmap.h>
#include <linux/sched/coredump.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/swap.h>
#include <linux/swapops.h>
#include <linux/syscalls.h>
#include <linux/timer.h>
#include <linux/workqueue.h>
#include <asm/tlb.h>
#include <asm/tlbflush.h>
#include <trace/events/hmm.h>

#define HMM_TEST_BASE		0x40000000UL
#define HMM_TEST_TIMEOUT	(15 * HZ)
/* Pages behind the test file: physically contiguous, taken in turn. */
#define HMM_TEST_ORDER		6
#define HMM_TEST_NPAGES		BIT(HMM_TEST_ORDER)
/* Entries in the output array of the fixture: those of four tables, or more */
#define HMM_TEST_CAP		MAX(8192UL, 4UL * PTRS_PER_PTE)
/* What the array holds before a call: all kinds of flags and requests. */
#define HMM_TEST_POISON		(~0UL / 0xff * 0xf5)
#define HMM_TEST_CANARY		(~0UL / 0xff * 0x5a)

#define T_V	((unsigned long)HMM_PFN_VALID)
#define T_VW	((unsigned long)(HMM_PFN_VALID | HMM_PFN_WRITE))
#define T_E	((unsigned long)HMM_PFN_ERROR)
#define T_MASK	(T_VW | T_E)
/* In an expectation: WRITE may be there or not. */
#define T_WMAY	1UL
#define REQ_F	((unsigned long)HMM_PFN_REQ_FAULT)
#define REQ_W	((unsigned long)HMM_PFN_REQ_WRITE)
#define REQ_FW	(REQ_F | REQ_W)
/* In an expectation: any number of faults; a column that is not run. */
#define ANY	(-1)
#define NORUN	1

struct hmm_test {
	struct kunit *test;
	struct mm_struct *mm;
	struct mmu_interval_notifier ni;
	bool inserted;
	struct mutex lock;	/* the "driver lock", taken by the callback */
	unsigned long nr_inval;
	bool write_locked;	/* call with the mmap lock held for write */

	unsigned long *room;	/* canary, CAP entries, canary */
	unsigned long *pfns;
	void *owner;
	unsigned long faults;	/* that this thread completed in the last call */

	struct timer_list watchdog;
	struct task_struct *caller;
	bool bitten;

	struct file *file;
	vm_flags_t vm_flags;	/* added to mappings of the test file */
	struct page *pages;
	unsigned long nr_fault, nr_mkwrite, nr_odd;
	u8 asked[HMM_TEST_NPAGES];
	vm_fault_t (*on_fault)(struct hmm_test *t, struct vm_fault *vmf);
	unsigned long arg;

	/* the injected entry: what it replaced, and what it is */
	unsigned long inj_addr;
	pte_t inj_old, inj_new;
	pmd_t inj_old_pmd, inj_new_pmd;
	struct delayed_work restore;
	void (*undo)(struct hmm_test *t);
	struct page *locked;
	bool restored;
};

static unsigned long hmm_test_at(unsigned long idx)
{
	return HMM_TEST_BASE + idx * PAGE_SIZE;
}

/* ---- the subscription ---- */

static bool hmm_test_invalidate(struct mmu_interval_notifier *ni,
				const struct mmu_notifier_range *range,
				unsigned long cur_seq)
{
	struct hmm_test *t = container_of(ni, struct hmm_test, ni);

	if (mmu_notifier_range_blockable(range))
		mutex_lock(&t->lock);
	else if (!mutex_trylock(&t->lock))
		return false;
	mmu_interval_set_seq(ni, cur_seq);
	t->nr_inval++;
	mutex_unlock(&t->lock);
	return true;
}

static const struct mmu_interval_notifier_ops hmm_test_ni_ops = {
	.invalidate = hmm_test_invalidate,
};

static void hmm_test_collide(struct hmm_test *t, unsigned long addr)
{
	struct mmu_notifier_range range;

	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, t->mm, addr,
				addr + PAGE_SIZE);
	mmu_notifier_invalidate_range_start(&range);
	mmu_notifier_invalidate_range_end(&range);
}

/* ---- the test file ---- */

static vm_fault_t hmm_file_fault(struct vm_fault *vmf)
{
	struct hmm_test *t = vmf->vma->vm_private_data;
	unsigned long idx = vmf->pgoff % HMM_TEST_NPAGES;
	vm_fault_t ret;

	t->nr_fault++;
	t->asked[idx] |= vmf->flags & FAULT_FLAG_WRITE ? 2 : 1;
	/* Whoever calls us must be remote and must not drop the mmap lock. */
	if (!(vmf->flags & FAULT_FLAG_REMOTE) ||
	    (vmf->flags & (FAULT_FLAG_ALLOW_RETRY | FAULT_FLAG_RETRY_NOWAIT)) ==
		    FAULT_FLAG_ALLOW_RETRY)
		t->nr_odd++;
	ret = t->on_fault ? t->on_fault(t, vmf) : 0;
	if (ret)
		return ret;
	vmf->page = t->pages + idx;
	get_page(vmf->page);
	return 0;
}

static vm_fault_t hmm_file_mkwrite(struct vm_fault *vmf)
{
	struct hmm_test *t = vmf->vma->vm_private_data;

	t->nr_mkwrite++;
	t->asked[vmf->pgoff % HMM_TEST_NPAGES] |= 2;
	lock_page(vmf->page);
	return VM_FAULT_LOCKED;
}

static const struct vm_operations_struct hmm_file_vm_ops = {
	.fault		= hmm_file_fault,
	.page_mkwrite	= hmm_file_mkwrite,
};

static int hmm_file_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct hmm_test *t = file->private_data;

	vma->vm_private_data = t;
	vma->vm_ops = &hmm_file_vm_ops;
	vm_flags_set(vma, t->vm_flags);
	return 0;
}

static const struct file_operations hmm_file_ops = {
	.owner	= THIS_MODULE,
	.mmap	= hmm_file_mmap,
};

/* ---- mappings ---- */

static unsigned long hmm_mmap(struct hmm_test *t, unsigned long addr,
			      unsigned long n, unsigned long prot)
{
	unsigned long ret;

	ret = vm_mmap(NULL, addr, n * PAGE_SIZE, prot,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE,
		      0);
	KUNIT_ASSERT_EQ(t->test, ret, addr);
	return addr;
}

static unsigned long hmm_mmap_file(struct hmm_test *t, unsigned long addr,
				   unsigned long n, unsigned long flags)
{
	unsigned long ret;

	ret = vm_mmap(t->file, addr, n * PAGE_SIZE, PROT_READ | PROT_WRITE,
		      flags | MAP_FIXED, 0);
	KUNIT_ASSERT_EQ(t->test, ret, addr);
	return addr;
}

/* Protect what lies inside one VMA. */
static void hmm_protect(struct hmm_test *t, unsigned long addr, unsigned long n,
			unsigned long prot)
{
	struct vm_area_struct *vma, *prev;
	struct vma_iterator vmi;
	struct mmu_gather tlb;
	vm_flags_t flags;
	int ret = -ENOMEM;

	mmap_write_lock(t->mm);
	vma_iter_init(&vmi, t->mm, addr);
	vma = vma_find(&vmi, addr + 1);
	if (vma) {
		prev = vma_prev(&vmi);
		if (addr > vma->vm_start)
			prev = vma;
		flags = (vma->vm_flags & ~VM_ACCESS_FLAGS) | calc_vm_prot_bits(prot, 0);
		vma_iter_init(&vmi, t->mm, addr);
		vma_find(&vmi, addr + 1);
		tlb_gather_mmu(&tlb, t->mm);
		ret = mprotect_fixup(&vmi, &tlb, vma, &prev, addr,
				     addr + n * PAGE_SIZE, flags);
		tlb_finish_mmu(&tlb);
	}
	mmap_write_unlock(t->mm);
	KUNIT_EXPECT_EQ(t->test, ret, 0);
}

static int hmm_touch(struct hmm_test *t, unsigned long addr, unsigned long n,
		     bool write)
{
	int ret = 0;

	mmap_read_lock(t->mm);
	for (; n && !ret; n--, addr += PAGE_SIZE)
		ret = fixup_user_fault(t->mm, addr, write ? FAULT_FLAG_WRITE : 0, NULL);
	mmap_read_unlock(t->mm);
	KUNIT_EXPECT_EQ(t->test, ret, 0);
	return ret;
}

/* ---- the call under test ---- */

static void hmm_test_bite(struct timer_list *timer)
{
	struct hmm_test *t = from_timer(t, timer, watchdog);

	t->bitten = true;
	send_sig(SIGKILL, t->caller, 1);
}

static void hmm_test_lock(struct hmm_test *t)
{
	if (t->write_locked)
		mmap_write_lock(t->mm);
	else
		mmap_read_lock(t->mm);
}

static void hmm_test_unlock(struct hmm_test *t)
{
	if (t->write_locked)
		mmap_write_unlock(t->mm);
	else
		mmap_read_unlock(t->mm);
}

/* One call, with the sequence that the range brings. */
static int hmm_once(struct hmm_test *t, struct hmm_range *range)
{
	unsigned long before = current->min_flt + current->maj_flt;
	int ret;

	/* Once is enough to know. */
	if (t->bitten)
		return -EINTR;
	t->caller = current;
	mod_timer(&t->watchdog, jiffies + HMM_TEST_TIMEOUT);
	hmm_test_lock(t);
	ret = hmm_range_fault(range);
	if (rwsem_is_locked(&t->mm->mmap_lock))
		hmm_test_unlock(t);
	else
		KUNIT_FAIL(t->test, "mmap lock dropped, ret %d", ret);
	timer_delete_sync(&t->watchdog);
	if (t->bitten) {
		flush_signals(current);
		KUNIT_FAIL(t->test, "hmm_range_fault() had to be killed, ret %d", ret);
	}
	t->faults += current->min_flt + current->maj_flt - before;
	return ret;
}

static void hmm_fill(struct hmm_test *t, unsigned long n, const unsigned long *req)
{
	unsigned long i;

	t->room[0] = HMM_TEST_CANARY;
	for (i = 0; i < n; i++)
		t->pfns[i] = req ? req[i] : HMM_TEST_POISON;
	t->pfns[n] = HMM_TEST_CANARY;
}

static struct hmm_range hmm_test_range(struct hmm_test *t, unsigned long addr,
				       unsigned long n, unsigned long def)
{
	return (struct hmm_range) {
		.notifier = &t->ni,
		.notifier_seq = mmu_interval_read_begin(&t->ni),
		.start = addr,
		.end = addr + n * PAGE_SIZE,
		.hmm_pfns = t->pfns,
		.default_flags = def,
		.dev_private_owner = t->owner,
	};
}

/* The loop that every driver has: again, from fresh requests, after a collision. */
static int hmm_call_req(struct hmm_test *t, unsigned long addr, unsigned long n,
			unsigned long def, unsigned long mask,
			const unsigned long *req)
{
	struct hmm_range range = hmm_test_range(t, addr, n, def);
	int tries = 100, ret;

	KUNIT_ASSERT_LE(t->test, n, HMM_TEST_CAP);
	range.pfn_flags_mask = mask;
	t->faults = 0;
	do {
		hmm_fill(t, n, req);
		range.notifier_seq = mmu_interval_read_begin(&t->ni);
		ret = hmm_once(t, &range);
	} while (ret == -EBUSY && !t->bitten && --tries);
	KUNIT_EXPECT_EQ(t->test, t->room[0], HMM_TEST_CANARY);
	KUNIT_EXPECT_EQ(t->test, t->pfns[n], HMM_TEST_CANARY);
	return ret;
}

static int hmm_call(struct hmm_test *t, unsigned long addr, unsigned long n,
		    unsigned long def)
{
	return hmm_call_req(t, addr, n, def, 0, NULL);
}

/* ---- the reference ---- */

static unsigned long hmm_ref_leaf(unsigned long pfn, bool write, unsigned int order)
{
	return pfn | T_V | (write ? REQ_W : 0) |
	       (unsigned long)order << HMM_PFN_ORDER_SHIFT;
}

static unsigned long hmm_ref_swap(struct hmm_test *t, swp_entry_t entry)
{
	if (!is_device_private_entry(entry) ||
	    pfn_swap_entry_to_page(entry)->pgmap->owner != t->owner)
		return 0;
	return hmm_ref_leaf(swp_offset_pfn(entry),
			    is_writable_device_private_entry(entry), 0);
}

static unsigned long hmm_ref_pte(struct hmm_test *t, struct vm_area_struct *vma,
				 unsigned long addr, pte_t pte)
{
	if (pte_none(pte))
		return 0;
	if (!pte_present(pte))
		return hmm_ref_swap(t, pte_to_swp_entry(pte));
	if (pte_protnone(pte))
		return 0;
	if (is_zero_pfn(pte_pfn(pte)) || pte_devmap(pte) ||
	    vm_normal_page(vma, addr, pte))
		return hmm_ref_leaf(pte_pfn(pte), pte_write(pte), 0);
	return T_E;
}

static unsigned long hmm_ref_table(struct hmm_test *t,
				   struct vm_area_struct *vma,
				   unsigned long addr, pmd_t *pmdp)
{
	unsigned long entry;
	spinlock_t *ptl; /* of the table */
	pte_t *ptep;

	ptep = pte_offset_map_lock(t->mm, pmdp, addr, &ptl);
	if (!ptep)
		return T_E;
	entry = hmm_ref_pte(t, vma, addr, ptep_get(ptep));
	pte_unmap_unlock(ptep, ptl);
	return entry;
}

static unsigned long hmm_ref_pmd(struct hmm_test *t, struct vm_area_struct *vma,
				 unsigned long addr, pmd_t *pmdp)
{
	pmd_t pmd = pmdp_get(pmdp);

	if (pmd_none(pmd) || is_pmd_migration_entry(pmd))
		return 0;
	if (!pmd_present(pmd))
		return T_E;
#ifdef CONFIG_TRANSPARENT_HUGEPAGE
	if (pmd_protnone(pmd))
		return 0;
	if (pmd_leaf(pmd) || pmd_devmap(pmd))
		return hmm_ref_leaf(pmd_pfn(pmd) + PHYS_PFN(addr & ~PMD_MASK),
				    pmd_write(pmd), PMD_SHIFT - PAGE_SHIFT);
#endif
	if (pmd_bad(pmd))
		return T_E;
	return hmm_ref_table(t, vma, addr, pmdp);
}

static pud_t *hmm_test_pudp(struct hmm_test *t, unsigned long addr)
{
	pgd_t *pgd = pgd_offset(t->mm, addr);
	p4d_t *p4d;

	if (pgd_none(*pgd))
		return NULL;
	p4d = p4d_offset(pgd, addr);
	return p4d_none(*p4d) ? NULL : pud_offset(p4d, addr);
}

static pmd_t *hmm_test_pmdp(struct hmm_test *t, unsigned long addr)
{
	pud_t *pudp = hmm_test_pudp(t, addr);

	return !pudp || pud_none(*pudp) ? NULL : pmd_offset(pudp, addr);
}

static unsigned long hmm_ref_tree(struct hmm_test *t,
				  struct vm_area_struct *vma,
				  unsigned long addr)
{
	pud_t *pudp = hmm_test_pudp(t, addr);

	if (!pudp || pud_none(*pudp))
		return 0;
#ifdef CONFIG_HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD
	if (pud_leaf(*pudp) || pud_devmap(*pudp))
		return hmm_ref_leaf(pud_pfn(*pudp) + PHYS_PFN(addr & ~PUD_MASK),
				    pud_write(*pudp), PUD_SHIFT - PAGE_SHIFT);
#endif
	return hmm_ref_pmd(t, vma, addr, pmd_offset(pudp, addr));
}

#ifdef CONFIG_HUGETLB_PAGE
static unsigned long hmm_ref_hugetlb(struct hmm_test *t,
				     struct vm_area_struct *vma,
				     unsigned long addr)
{
	struct hstate *h = hstate_vma(vma);
	unsigned long head = addr & huge_page_mask(h);
	pte_t *ptep = hugetlb_walk(vma, head, huge_page_size(h));
	pte_t pte;

	if (!ptep)
		return 0;
	pte = huge_ptep_get(t->mm, head, ptep);
	if (huge_pte_none(pte) || !pte_present(pte))
		return 0;
	return hmm_ref_leaf(pte_pfn(pte) + ((addr - head) >> PAGE_SHIFT),
			    huge_pte_write(pte), huge_page_order(h));
}
#else
static unsigned long hmm_ref_hugetlb(struct hmm_test *t,
				     struct vm_area_struct *vma,
				     unsigned long addr)
{
	return T_E;
}
#endif

static bool hmm_ref_readable(struct vm_area_struct *vma)
{
	return vma && (vma->vm_flags & VM_READ) &&
	       !(vma->vm_flags & (VM_IO | VM_PFNMAP | VM_SHADOW_STACK));
}

/* What a snapshot of the page at @addr must say now. */
static unsigned long hmm_ref(struct hmm_test *t, unsigned long addr)
{
	struct vm_area_struct *vma;
	unsigned long entry = T_E;

	mmap_read_lock(t->mm);
	vma = vma_lookup(t->mm, addr);
	if (hmm_ref_readable(vma) && is_vm_hugetlb_page(vma)) {
		hugetlb_vma_lock_read(vma);
		entry = hmm_ref_hugetlb(t, vma, addr);
		hugetlb_vma_unlock_read(vma);
	} else if (hmm_ref_readable(vma)) {
		entry = hmm_ref_tree(t, vma, addr);
	}
	mmap_read_unlock(t->mm);
	return entry;
}

static void hmm_expect_ref(struct hmm_test *t, unsigned long addr,
			   unsigned long n, const char *what)
{
	unsigned long i;

	for (i = 0; i < n; i++) {
		unsigned long want = hmm_ref(t, addr + i * PAGE_SIZE);

		KUNIT_EXPECT_EQ_MSG(t->test, t->pfns[i], want,
				    "%s: page %lu of %lu", what, i, n);
		if (t->pfns[i] != want)
			return;
	}
}

static void hmm_expect_snapshot(struct hmm_test *t, unsigned long addr,
				unsigned long n, const char *what)
{
	KUNIT_EXPECT_EQ_MSG(t->test, hmm_call(t, addr, n, 0), 0, "%s", what);
	KUNIT_EXPECT_EQ_MSG(t->test, t->faults, 0UL, "%s", what);
	hmm_expect_ref(t, addr, n, what);
}

static void hmm_expect_flags(struct hmm_test *t, unsigned long idx,
			     unsigned long want, const char *what)
{
	unsigned long got = t->pfns[idx] & T_MASK;

	if (want & T_WMAY)
		got &= ~REQ_W;
	KUNIT_EXPECT_EQ_MSG(t->test, got, want & T_MASK, "%s: entry %lu is %lx",
			    what, idx, t->pfns[idx]);
}

/* ---- injected entries ---- */

static pte_t hmm_xchg_pte(struct hmm_test *t, unsigned long addr, pte_t pte,
			  const pte_t *expect)
{
	spinlock_t *ptl; /* of the table */
	pte_t *ptep, old;

	ptep = get_locked_pte(t->mm, addr, &ptl);
	KUNIT_EXPECT_NOT_NULL(t->test, ptep);
	if (!ptep)
		return __pte(0);
	old = ptep_get(ptep);
	if (!expect || pte_same(old, *expect))
		set_pte_at(t->mm, addr, ptep, pte);
	pte_unmap_unlock(ptep, ptl);
	flush_tlb_mm(t->mm);
	return old;
}

static pte_t hmm_get_pte(struct hmm_test *t, unsigned long addr)
{
	pte_t none = __pte(~0UL);

	return hmm_xchg_pte(t, addr, none, &none);
}

/* A fault may have put something else there: then it stays. */
static void hmm_undo_pte(struct hmm_test *t)
{
	hmm_xchg_pte(t, t->inj_addr, t->inj_old, &t->inj_new);
}

static void hmm_inject_pte(struct hmm_test *t, unsigned long addr, pte_t pte)
{
	t->inj_addr = addr;
	t->inj_old = hmm_xchg_pte(t, addr, pte, NULL);
	t->inj_new = hmm_get_pte(t, addr);
	t->undo = hmm_undo_pte;
}

static void hmm_inject_swp(struct hmm_test *t, unsigned long addr, swp_entry_t entry)
{
	hmm_inject_pte(t, addr, swp_entry_to_pte(entry));
}

static void hmm_undo(struct hmm_test *t)
{
	if (t->undo)
		t->undo(t);
	t->undo = NULL;
	if (t->locked) {
		unlock_page(t->locked);
		put_page(t->locked);
		t->locked = NULL;
	}
}

static void hmm_restore_work(struct work_struct *work)
{
	struct hmm_test *t = container_of(work, struct hmm_test, restore.work);

	WRITE_ONCE(t->restored, true);
	hmm_undo(t);
}

/* Lock the page behind @pfn for as long as the injected entry stays. */
static struct page *hmm_lock_pfn(struct hmm_test *t, unsigned long pfn)
{
	t->locked = pfn_to_page(pfn);
	get_page(t->locked);
	lock_page(t->locked);
	return t->locked;
}

/* A pfn without a struct page. */
static unsigned long hmm_bare_pfn(void)
{
	unsigned long pfn = roundup_pow_of_two(max_pfn + 1);

	while (pfn_valid(pfn))
		pfn <<= 1;
	return pfn;
}

/* ---- device memory ---- */

#ifdef CONFIG_DEVICE_PRIVATE
static struct {
	struct dev_pagemap pgmap;
	struct resource *res;
	unsigned long next, allocated;
	atomic_long_t freed, to_ram;
	bool on;
} hmm_dev;

static void hmm_dev_page_free(struct page *page)
{
	atomic_long_inc(&hmm_dev.freed);
}

/* Put @new in the place of the device page. No secondary MMU needs be told. */
static void hmm_dev_replace(struct vm_fault *vmf, struct page *new)
{
	struct vm_area_struct *vma = vmf->vma;
	pte_t pte = mk_pte(new, vma->vm_page_prot);

	if (is_writable_device_private_entry(pte_to_swp_entry(vmf->orig_pte)))
		pte = pte_mkwrite(pte_mkdirty(pte), vma);
	folio_remove_rmap_pte(page_folio(vmf->page), vmf->page, vma);
	folio_add_new_anon_rmap(page_folio(new), vma, vmf->address, RMAP_EXCLUSIVE);
	folio_add_lru_vma(page_folio(new), vma);
	set_pte_at(vma->vm_mm, vmf->address, vmf->pte, pte);
	put_page(vmf->page);
}

static vm_fault_t hmm_dev_to_ram(struct vm_fault *vmf)
{
	struct mm_struct *mm = vmf->vma->vm_mm;
	struct page *new = alloc_page(GFP_HIGHUSER_MOVABLE | __GFP_ZERO);

	atomic_long_inc(&hmm_dev.to_ram);
	if (!new)
		return VM_FAULT_OOM;
	if (mem_cgroup_charge(page_folio(new), mm, GFP_KERNEL)) {
		put_page(new);
		return VM_FAULT_OOM;
	}
	__SetPageUptodate(new);
	vmf->pte = pte_offset_map_lock(mm, vmf->pmd, vmf->address, &vmf->ptl);
	if (vmf->pte && pte_same(ptep_get(vmf->pte), vmf->orig_pte))
		hmm_dev_replace(vmf, new);
	else
		put_page(new);
	if (vmf->pte)
		pte_unmap_unlock(vmf->pte, vmf->ptl);
	return 0;
}

static const struct dev_pagemap_ops hmm_dev_ops = {
	.page_free	= hmm_dev_page_free,
	.migrate_to_ram	= hmm_dev_to_ram,
};

static int hmm_dev_setup(void)
{
	void *ret;

	memset(&hmm_dev, 0, sizeof(hmm_dev));
	hmm_dev.res = request_free_mem_region(&iomem_resource, PMD_SIZE, "hmm_kunit");
	if (IS_ERR(hmm_dev.res))
		return PTR_ERR(hmm_dev.res);
	hmm_dev.pgmap.type = MEMORY_DEVICE_PRIVATE;
	hmm_dev.pgmap.range.start = hmm_dev.res->start;
	hmm_dev.pgmap.range.end = hmm_dev.res->end;
	hmm_dev.pgmap.nr_range = 1;
	hmm_dev.pgmap.ops = &hmm_dev_ops;
	hmm_dev.pgmap.owner = &hmm_dev;
	ret = memremap_pages(&hmm_dev.pgmap, numa_node_id());
	if (IS_ERR(ret)) {
		release_mem_region(hmm_dev.res->start, resource_size(hmm_dev.res));
		return PTR_ERR(ret);
	}
	hmm_dev.next = PHYS_PFN(hmm_dev.res->start);
	hmm_dev.on = true;
	return 0;
}

/* The mm of the last case may still be on its way out. */
static void hmm_dev_teardown(struct kunit_suite *suite)
{
	int tries = 500;

	if (!hmm_dev.on)
		return;
	while (atomic_long_read(&hmm_dev.freed) != hmm_dev.allocated && --tries)
		msleep(20);
	if (!tries) {
		kunit_err(suite, "device pages leaked: the region stays\n");
		return;
	}
	memunmap_pages(&hmm_dev.pgmap);
	release_mem_region(hmm_dev.res->start, resource_size(hmm_dev.res));
	hmm_dev.on = false;
}

static bool hmm_dev_on(void)
{
	return hmm_dev.on;
}

static void *hmm_dev_owner(void)
{
	return &hmm_dev;
}

static unsigned long hmm_dev_nr_to_ram(void)
{
	return atomic_long_read(&hmm_dev.to_ram);
}

/* Map a fresh device page at @addr, where nothing is mapped. Return its pfn. */
static unsigned long hmm_dev_map(struct hmm_test *t, unsigned long addr, bool write)
{
	unsigned long pfn = hmm_dev.next++;
	swp_entry_t entry = write ? make_writable_device_private_entry(pfn) :
				    make_readable_device_private_entry(pfn);
	struct page *page = pfn_to_page(pfn);
	struct vm_area_struct *vma;
	spinlock_t *ptl; /* of the table */
	pte_t *ptep;

	zone_device_page_init(page);
	hmm_dev.allocated++;
	mmap_read_lock(t->mm);
	vma = vma_lookup(t->mm, addr);
	KUNIT_EXPECT_EQ(t->test, anon_vma_prepare(vma), 0);
	ptep = get_locked_pte(t->mm, addr, &ptl);
	KUNIT_EXPECT_TRUE(t->test, pte_none(ptep_get(ptep)));
	folio_add_new_anon_rmap(page_folio(page), vma, addr, RMAP_EXCLUSIVE);
	inc_mm_counter(t->mm, MM_ANONPAGES);
	set_pte_at(t->mm, addr, ptep, swp_entry_to_pte(entry));
	pte_unmap_unlock(ptep, ptl);
	mmap_read_unlock(t->mm);
	unlock_page(page);
	return pfn;
}
#else
static int hmm_dev_setup(void)
{
	return 0;
}

static void hmm_dev_teardown(struct kunit_suite *suite)
{
}

static bool hmm_dev_on(void)
{
	return false;
}

static void *hmm_dev_owner(void)
{
	return NULL;
}

static unsigned long hmm_dev_nr_to_ram(void)
{
	return 0;
}

static unsigned long hmm_dev_map(struct hmm_test *t, unsigned long addr, bool write)
{
	return 0;
}
#endif

/* ---- the fixture ---- */

static int hmm_test_file(struct hmm_test *t)
{
	t->pages = alloc_pages(GFP_USER | __GFP_ZERO, HMM_TEST_ORDER);
	if (!t->pages)
		return -ENOMEM;
	split_page(t->pages, HMM_TEST_ORDER);
	t->file = anon_inode_getfile("[hmm_kunit]", &hmm_file_ops, t, O_RDWR);
	if (IS_ERR(t->file)) {
		int ret = PTR_ERR(t->file);

		t->file = NULL;
		return ret;
	}
	return 0;
}

static int hmm_test_subscribe(struct hmm_test *t)
{
	int ret = mmu_interval_notifier_insert(&t->ni, t->mm, 0, ULONG_MAX & PAGE_MASK,
					       &hmm_test_ni_ops);

	t->inserted = !ret;
	return ret;
}

static int hmm_test_init(struct kunit *test)
{
	struct hmm_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	unsigned long addr;
	int ret;

	if (!t)
		return -ENOMEM;
	test->priv = t;
	t->test = test;
	mutex_init(&t->lock);
	timer_setup(&t->watchdog, hmm_test_bite, 0);
	INIT_DELAYED_WORK(&t->restore, hmm_restore_work);
	t->room = kvcalloc(HMM_TEST_CAP + 2, sizeof(*t->room), GFP_KERNEL);
	if (!t->room)
		return -ENOMEM;
	t->pfns = t->room + 1;
	/* Attaches an mm to this thread; the page itself is not wanted. */
	addr = kunit_vm_mmap(test, NULL, 0, PAGE_SIZE, PROT_READ,
			     MAP_PRIVATE | MAP_ANONYMOUS, 0);
	if (!addr || IS_ERR_VALUE(addr))
		return -ENOMEM;
	vm_munmap(addr, PAGE_SIZE);
	t->mm = current->mm;
	mmgrab(t->mm);
	/* khugepaged takes it for one that it has on its list, and leaves it alone */
	set_bit(MMF_VM_HUGEPAGE, &t->mm->flags);
	allow_signal(SIGKILL);
	ret = hmm_test_file(t);
	return ret ? ret : hmm_test_subscribe(t);
}

/* Runs in another thread, perhaps while the mm is still being torn down. */
static void hmm_test_exit(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	unsigned long i;

	if (!t)
		return;
	timer_shutdown_sync(&t->watchdog);
	flush_delayed_work(&t->restore);
	if (t->inserted)
		mmu_interval_notifier_remove(&t->ni);
	if (t->file)
		fput(t->file);
	for (i = 0; t->pages && i < HMM_TEST_NPAGES; i++)
		put_page(t->pages + i);
	if (t->mm)
		mmdrop(t->mm);
	kvfree(t->room);
}

static int hmm_suite_init(struct kunit_suite *suite)
{
	return hmm_dev_setup();
}

/* ---- encoding and arguments ---- */

static void hmm_test_encoding(struct kunit *test)
{
	unsigned long flags = HMM_PFN_FLAGS, order;

	KUNIT_EXPECT_EQ(test, T_V, 1UL << (BITS_PER_LONG - 1));
	KUNIT_EXPECT_EQ(test, REQ_W, 1UL << (BITS_PER_LONG - 2));
	KUNIT_EXPECT_EQ(test, T_E, 1UL << (BITS_PER_LONG - 3));
	KUNIT_EXPECT_EQ(test, REQ_F, T_V);
	KUNIT_EXPECT_EQ(test, (unsigned long)HMM_PFN_WRITE, REQ_W);
	KUNIT_EXPECT_EQ(test, flags & T_MASK, T_MASK);
	/* Contiguous from the top, so that a pfn stands alone in what is left. */
	KUNIT_EXPECT_EQ(test, ~flags & (~flags + 1), 0UL);
	if (BITS_PER_LONG == 64)
		KUNIT_EXPECT_EQ(test, flags << PAGE_SHIFT, 0UL);
	for (order = 0; order < 32; order++) {
		unsigned long entry = order << HMM_PFN_ORDER_SHIFT |
				      (~flags & ~0UL) | T_VW;

		KUNIT_EXPECT_EQ(test, hmm_pfn_to_map_order(entry), (unsigned int)order);
		KUNIT_EXPECT_EQ(test, order << HMM_PFN_ORDER_SHIFT & ~flags, 0UL);
		KUNIT_EXPECT_EQ(test, order << HMM_PFN_ORDER_SHIFT & T_MASK, 0UL);
	}
	KUNIT_EXPECT_EQ(test, HMM_RANGE_DEFAULT_TIMEOUT, 1000);
}

static void hmm_test_to_page(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	unsigned long pfn = page_to_pfn(t->pages + 5);

	KUNIT_EXPECT_PTR_EQ(test, hmm_pfn_to_page(pfn), t->pages + 5);
	KUNIT_EXPECT_PTR_EQ(test, hmm_pfn_to_page(pfn | HMM_PFN_FLAGS), t->pages + 5);
	KUNIT_EXPECT_PTR_EQ(test, hmm_pfn_to_page(0), pfn_to_page(0));
}

static void hmm_test_arguments(struct kunit *test)
{
	static const struct {
		long start, end;	/* from hmm_test_at(0) */
	} bad[] = {
		{ 0, 0 },
		{ PAGE_SIZE, 0 },
		{ PAGE_SIZE, PAGE_SIZE },
		{ 1, PAGE_SIZE },
		{ 0, PAGE_SIZE + 1 },
		{ 0, 1 },
		{ 8, PAGE_SIZE + 8 },
		{ 0, PAGE_SIZE - 1 },
		{ 0, -(long)HMM_TEST_BASE },
	};
	struct hmm_test *t = test->priv;
	int i, k;

	hmm_mmap(t, HMM_TEST_BASE, 4, PROT_READ | PROT_WRITE);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		struct hmm_range range = hmm_test_range(t, HMM_TEST_BASE, 1, REQ_F);

		range.start = HMM_TEST_BASE + bad[i].start;
		range.end = HMM_TEST_BASE + bad[i].end;
		hmm_fill(t, 4, NULL);
		t->faults = 0;
		KUNIT_EXPECT_EQ_MSG(test, hmm_once(t, &range), -EINVAL, "row %d", i);
		KUNIT_EXPECT_EQ(test, t->faults, 0UL);
		for (k = 0; k < 4; k++)
			KUNIT_EXPECT_EQ_MSG(test, t->pfns[k], HMM_TEST_POISON,
					    "row %d", i);
	}
}

/* ---- the state table ---- */

struct hmm_col {
	int ret;
	unsigned long flags;
	int faults;
};

struct hmm_row {
	const char *name;
	/* Map some pages and return the first; the middle one is under test. */
	unsigned long (*map)(struct hmm_test *t, unsigned long n);
	vm_flags_t vm_flags;
	/* Put the state there, return -EOPNOTSUPP where that cannot be had. */
	int (*make)(struct hmm_test *t, unsigned long addr);
	/* What comes between: a change of the protection of all pages */
	bool protect;
	unsigned long prot;
	int (*late)(struct hmm_test *t, unsigned long addr);
	void *(*owner)(void);
	struct hmm_col col[3];
};

static const unsigned long hmm_col_req[] = { 0, REQ_F, REQ_FW };

static unsigned long map_anon(struct hmm_test *t, unsigned long n)
{
	hmm_mmap(t, HMM_TEST_BASE, n, PROT_READ | PROT_WRITE);
	hmm_touch(t, hmm_test_at(0), n / 2, true);
	hmm_touch(t, hmm_test_at(n / 2 + 1), n / 2, true);
	return HMM_TEST_BASE;
}

static unsigned long map_shared(struct hmm_test *t, unsigned long n)
{
	return hmm_mmap_file(t, HMM_TEST_BASE, n, MAP_SHARED);
}

static unsigned long map_private(struct hmm_test *t, unsigned long n)
{
	return hmm_mmap_file(t, HMM_TEST_BASE, n, MAP_PRIVATE);
}

static int mk_write(struct hmm_test *t, unsigned long addr)
{
	return hmm_touch(t, addr, 1, true);
}

/* The VMA alone says so, and there is no need for a page */
static int mk_shadow(struct hmm_test *t, unsigned long addr)
{
	return VM_SHADOW_STACK ? 0 : -EOPNOTSUPP;
}

static int mk_read(struct hmm_test *t, unsigned long addr)
{
	return hmm_touch(t, addr, 1, false);
}

static int mk_readonly(struct hmm_test *t, unsigned long addr)
{
	hmm_touch(t, addr, 1, true);
	hmm_xchg_pte(t, addr, pte_wrprotect(hmm_get_pte(t, addr)), NULL);
	return 0;
}

/* Neither young nor dirty: that is nobody's business. */
static int mk_old(struct hmm_test *t, unsigned long addr)
{
	hmm_touch(t, addr, 1, true);
	hmm_inject_pte(t, addr, pte_mkold(pte_mkclean(hmm_get_pte(t, addr))));
	return 0;
}

static int mk_writable(struct hmm_test *t, unsigned long addr)
{
	struct vm_area_struct *vma = vma_lookup(t->mm, addr);

	hmm_inject_pte(t, addr, pte_mkwrite(pte_mkdirty(hmm_get_pte(t, addr)), vma));
	return 0;
}

static int mk_hole(struct hmm_test *t, unsigned long addr)
{
	return vm_munmap(addr, PAGE_SIZE);
}

static int mk_swap(struct hmm_test *t, unsigned long addr)
{
	hmm_inject_swp(t, addr, swp_entry(0, 0x1234));
	return 0;
}

static int mk_uffd_marker(struct hmm_test *t, unsigned long addr)
{
	if (!IS_ENABLED(CONFIG_PTE_MARKER_UFFD_WP))
		return -EOPNOTSUPP;
	hmm_inject_swp(t, addr, make_pte_marker_entry(PTE_MARKER_UFFD_WP));
	return 0;
}

static int mk_poison_marker(struct hmm_test *t, unsigned long addr)
{
	hmm_inject_swp(t, addr, make_poisoned_swp_entry());
	return 0;
}

static int mk_hwpoison(struct hmm_test *t, unsigned long addr)
{
	struct page *page;

	if (!IS_ENABLED(CONFIG_MEMORY_FAILURE))
		return -EOPNOTSUPP;
	hmm_touch(t, addr, 1, true);
	page = hmm_lock_pfn(t, pte_pfn(hmm_get_pte(t, addr)));
	hmm_inject_swp(t, addr, make_hwpoison_entry(page));
	return 0;
}

static int mk_migration(struct hmm_test *t, unsigned long addr)
{
	unsigned long pfn;

	if (!IS_ENABLED(CONFIG_MIGRATION))
		return -EOPNOTSUPP;
	hmm_touch(t, addr, 1, true);
	pfn = pte_pfn(hmm_get_pte(t, addr));
	hmm_lock_pfn(t, pfn);
	hmm_inject_swp(t, addr, make_writable_migration_entry(pfn));
	return 0;
}

static int mk_protnone(struct hmm_test *t, unsigned long addr)
{
	if (!IS_ENABLED(CONFIG_NUMA_BALANCING))
		return -EOPNOTSUPP;
	hmm_touch(t, addr, 1, true);
	hmm_inject_pte(t, addr, pte_modify(hmm_get_pte(t, addr), PAGE_NONE));
	return 0;
}

static int mk_exclusive(struct hmm_test *t, unsigned long addr)
{
#ifdef CONFIG_DEVICE_PRIVATE
	struct page *page = NULL;
	int ret;

	mmap_read_lock(t->mm);
	ret = make_device_exclusive_range(t->mm, addr, addr + PAGE_SIZE, &page, NULL);
	mmap_read_unlock(t->mm);
	KUNIT_EXPECT_EQ(t->test, ret, 1);
	KUNIT_EXPECT_NOT_NULL(t->test, page);
	if (page) {
		unlock_page(page);
		put_page(page);
	}
	return 0;
#else
	return -EOPNOTSUPP;
#endif
}

static int mk_dev_write(struct hmm_test *t, unsigned long addr)
{
	if (!hmm_dev_on())
		return -EOPNOTSUPP;
	hmm_dev_map(t, addr, true);
	return 0;
}

static int mk_dev_read(struct hmm_test *t, unsigned long addr)
{
	if (!hmm_dev_on())
		return -EOPNOTSUPP;
	hmm_dev_map(t, addr, false);
	return 0;
}

static int mk_devmap(struct hmm_test *t, unsigned long addr)
{
#ifdef CONFIG_ARCH_HAS_PTE_DEVMAP
	hmm_touch(t, addr, 1, true);
	hmm_inject_pte(t, addr, pte_mkdevmap(hmm_get_pte(t, addr)));
	return 0;
#else
	return -EOPNOTSUPP;
#endif
}

static int mk_special(struct hmm_test *t, unsigned long addr)
{
	pte_t pte = pte_mkspecial(pfn_pte(hmm_bare_pfn(), PAGE_SHARED));

	hmm_inject_pte(t, addr, pte_mkdirty(pte_mkyoung(pte)));
	return 0;
}

static int mk_special_read(struct hmm_test *t, unsigned long addr)
{
	hmm_inject_pte(t, addr, pte_mkspecial(pfn_pte(hmm_bare_pfn(), PAGE_READONLY)));
	return 0;
}

static void *own(void)
{
	return hmm_dev_owner();
}

static void *foreign(void)
{
	return foreign;
}

static const struct hmm_row hmm_pte_rows[] = {
	{ "empty", map_anon,
	  .col = { { 0, 0 }, { 0, T_V, 1 }, { 0, T_VW, 1 } } },
	{ "page", map_anon, .make = mk_write,
	  .col = { { 0, T_VW }, { 0, T_VW }, { 0, T_VW } } },
	{ "old and clean page", map_anon, .make = mk_old,
	  .col = { { 0, T_VW }, { 0, T_VW }, { 0, T_VW } } },
	{ "read-only page", map_anon, .make = mk_readonly,
	  .col = { { 0, T_V }, { 0, T_V }, { 0, T_VW, 1 } } },
	{ "zero page", map_anon, .make = mk_read,
	  .col = { { 0, T_V }, { 0, T_V }, { 0, T_VW, 1 } } },
	{ "swap entry", map_anon, .make = mk_swap,
	  .col = { { 0, 0 }, { NORUN }, { NORUN } } },
	{ "uffd-wp marker", map_anon, .make = mk_uffd_marker,
	  .col = { { 0, 0 }, { 0, T_V, ANY }, { 0, T_VW, ANY } } },
	{ "poison marker", map_anon, .make = mk_poison_marker,
	  .col = { { 0, 0 }, { -EFAULT }, { -EFAULT } } },
	{ "protnone entry", map_anon, .make = mk_protnone,
	  .col = { { 0, 0 }, { 0, T_V | T_WMAY, 1 }, { 0, T_VW, ANY } } },
	{ "hwpoison entry", map_anon, .make = mk_hwpoison,
	  .col = { { 0, 0 }, { -EFAULT }, { -EFAULT } } },
	{ "migration entry", map_anon, .make = mk_migration,
	  .col = { { 0, 0 }, { NORUN }, { NORUN } } },
	{ "device-exclusive entry", map_anon, .make = mk_exclusive,
	  .col = { { 0, 0 }, { 0, T_VW, 1 }, { 0, T_VW, 1 } } },
	{ "foreign device page", map_anon, .make = mk_dev_write, .owner = foreign,
	  .col = { { 0, 0 }, { 0, T_VW, 1 }, { 0, T_VW, 1 } } },
	{ "foreign read-only device page", map_anon, .make = mk_dev_read, .owner = foreign,
	  .col = { { 0, 0 }, { 0, T_V, 1 }, { 0, T_VW, 2 } } },
	{ "device page, no owner", map_anon, .make = mk_dev_write,
	  .col = { { 0, 0 }, { 0, T_VW, 1 }, { 0, T_VW, 1 } } },
	{ "own device page", map_anon, .make = mk_dev_write, .owner = own,
	  .col = { { 0, T_VW }, { 0, T_VW }, { 0, T_VW } } },
	{ "own read-only device page", map_anon, .make = mk_dev_read, .owner = own,
	  .col = { { 0, T_V }, { 0, T_V }, { 0, T_VW, 2 } } },
	{ "devmap entry", map_anon, .make = mk_devmap,
	  .col = { { 0, T_VW }, { 0, T_VW }, { 0, T_VW } } },
	{ "special entry", map_shared, VM_MIXEDMAP, .make = mk_special,
	  .col = { { 0, T_E }, { -EFAULT }, { -EFAULT } } },
	{ "read-only special entry", map_shared, VM_MIXEDMAP, .make = mk_special_read,
	  .col = { { 0, T_E }, { -EFAULT }, { -EFAULT } } },
	{ "page in a mixed map", map_shared, VM_MIXEDMAP, .make = mk_write,
	  .col = { { 0, T_VW }, { 0, T_VW }, { 0, T_VW } } },
	{ "empty shared file", map_shared,
	  .col = { { 0, 0 }, { 0, T_V, 1 }, { 0, T_VW, 1 } } },
	{ "clean page of a shared file", map_shared, .make = mk_read,
	  .col = { { 0, T_V }, { 0, T_V }, { 0, T_VW, 1 } } },
	{ "empty private file", map_private,
	  .col = { { 0, 0 }, { 0, T_V, 1 }, { 0, T_VW, 1 } } },
	{ "page of a private file", map_private, .make = mk_read,
	  .col = { { 0, T_V }, { 0, T_V }, { 0, T_VW, 1 } } },
	{ "copied page of a private file", map_private, .make = mk_write,
	  .col = { { 0, T_VW }, { 0, T_VW }, { 0, T_VW } } },
	{ "read-only VMA, empty", map_anon, .protect = true, .prot = PROT_READ,
	  .col = { { 0, 0 }, { 0, T_V, 1 }, { -EPERM } } },
	{ "read-only VMA, page", map_anon, .make = mk_write, .protect = true, .prot = PROT_READ,
	  .col = { { 0, T_V }, { 0, T_V }, { -EPERM } } },
	{ "read-only VMA, zero page", map_anon, .make = mk_read,
	  .protect = true, .prot = PROT_READ,
	  .col = { { 0, T_V }, { 0, T_V }, { -EPERM } } },
	{ "read-only VMA, writable entry", map_anon, .make = mk_write,
	  .protect = true, .prot = PROT_READ, .late = mk_writable,
	  .col = { { 0, T_VW }, { 0, T_VW }, { 0, T_VW } } },
	{ "read-only VMA, own device page", map_anon, .make = mk_dev_write, .owner = own,
	  .protect = true, .prot = PROT_READ,
	  .col = { { 0, T_V }, { 0, T_V }, { -EPERM } } },
	{ "read-only VMA, own writable device page", map_anon, .late = mk_dev_write,
	  .owner = own, .protect = true, .prot = PROT_READ,
	  .col = { { 0, T_VW }, { 0, T_VW }, { 0, T_VW } } },
	{ "read-only VMA, exclusive entry", map_anon, .make = mk_exclusive,
	  .protect = true, .prot = PROT_READ,
	  .col = { { 0, 0 }, { 0, T_V, 1 }, { -EPERM } } },
	{ "no VMA", map_anon, .late = mk_hole,
	  .col = { { 0, T_E }, { -EFAULT }, { -EFAULT } } },
	{ "PROT_NONE VMA, empty", map_anon, .protect = true, .prot = PROT_NONE,
	  .col = { { 0, T_E }, { -EFAULT }, { -EFAULT } } },
	{ "PROT_NONE VMA, page", map_anon, .make = mk_write,
	  .protect = true, .prot = PROT_NONE,
	  .col = { { 0, T_E }, { -EFAULT }, { -EFAULT } } },
	{ "write-only VMA", map_anon, .make = mk_write, .protect = true, .prot = PROT_WRITE,
	  .col = { { 0, T_E }, { -EFAULT }, { -EFAULT } } },
	{ "exec-only VMA", map_anon, .make = mk_write, .protect = true, .prot = PROT_EXEC,
	  .col = { { 0, T_E }, { -EFAULT }, { -EFAULT } } },
	{ "VM_IO VMA, empty", map_shared, VM_IO,
	  .col = { { 0, T_E }, { -EFAULT }, { -EFAULT } } },
	{ "VM_IO VMA, page", map_shared, VM_IO, .make = mk_write,
	  .col = { { 0, T_E }, { -EFAULT }, { -EFAULT } } },
	{ "VM_PFNMAP VMA", map_shared, VM_PFNMAP,
	  .col = { { 0, T_E }, { -EFAULT }, { -EFAULT } } },
	{ "shadow stack", map_shared, VM_SHADOW_STACK, .make = mk_shadow,
	  .col = { { 0, T_E }, { -EFAULT }, { -EFAULT } } },
};

static void hmm_row_desc(const struct hmm_row *row, char *desc)
{
	strscpy(desc, row->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(hmm_pte, hmm_pte_rows, hmm_row_desc);

/* Make the state of @row at the middle one of @n pages. */
static unsigned long hmm_row_setup(struct hmm_test *t,
				   const struct hmm_row *row, unsigned long n)
{
	unsigned long base, addr;
	int ret = 0;

	t->vm_flags = row->vm_flags;
	t->owner = row->owner ? row->owner() : NULL;
	base = row->map(t, n);
	addr = base + n / 2 * PAGE_SIZE;
	if (row->make)
		ret = row->make(t, addr);
	if (!ret && row->protect)
		hmm_protect(t, base, n, row->prot);
	if (!ret && row->late)
		ret = row->late(t, addr);
	if (ret == -EOPNOTSUPP) {
		vm_munmap(base, n * PAGE_SIZE);
		kunit_skip(t->test, "this kernel has no such entry");
	}
	KUNIT_EXPECT_EQ(t->test, ret, 0);
	t->nr_fault = 0;
	t->nr_mkwrite = 0;
	return base;
}

static void hmm_row_check(struct hmm_test *t, const struct hmm_row *row,
			  int col, int ret, unsigned long idx)
{
	const struct hmm_col *want = &row->col[col];

	KUNIT_EXPECT_EQ_MSG(t->test, ret, want->ret, "column %d", col);
	if (want->ret || ret) {
		KUNIT_EXPECT_EQ_MSG(t->test, t->nr_fault, 0UL, "column %d", col);
		return;
	}
	hmm_expect_flags(t, idx, want->flags, row->name);
	if (want->faults != ANY)
		KUNIT_EXPECT_EQ_MSG(t->test, t->faults, (unsigned long)want->faults,
				    "column %d", col);
}

/* Alone in its range, asked for by the default flags. */
static void hmm_row_alone(struct hmm_test *t, const struct hmm_row *row, int col)
{
	unsigned long base = hmm_row_setup(t, row, 3), addr = base + PAGE_SIZE;
	int ret = hmm_call(t, addr, 1, hmm_col_req[col]);

	hmm_row_check(t, row, col, ret, 0);
	if (!ret)
		hmm_expect_ref(t, addr, 1, row->name);
	hmm_undo(t);
	vm_munmap(base, 3 * PAGE_SIZE);
}

/* Between two pages that nobody asks for, asked for by its own entry. */
static void hmm_row_between(struct hmm_test *t, const struct hmm_row *row, int col)
{
	unsigned long base = hmm_row_setup(t, row, 3);
	unsigned long req[3] = { HMM_TEST_POISON & ~REQ_FW, hmm_col_req[col] };
	int ret = hmm_call_req(t, base, 3, 0, REQ_FW, req);

	hmm_row_check(t, row, col, ret, 1);
	if (!ret)
		hmm_expect_ref(t, base, 3, row->name);
	hmm_undo(t);
	vm_munmap(base, 3 * PAGE_SIZE);
}

static void hmm_test_pte_state(struct kunit *test)
{
	const struct hmm_row *row = test->param_value;
	int col;

	for (col = 0; col < 3; col++) {
		if (row->col[col].ret == NORUN)
			continue;
		hmm_row_alone(test->priv, row, col);
		hmm_row_between(test->priv, row, col);
	}
}

/* A device page leaves its device only when it must. */
static void hmm_test_device_stays(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	unsigned long pfn, before = hmm_dev_nr_to_ram();

	if (!hmm_dev_on())
		kunit_skip(test, "no device-private memory");
	hmm_mmap(t, HMM_TEST_BASE, 4, PROT_READ | PROT_WRITE);
	pfn = hmm_dev_map(t, hmm_test_at(0), true);
	hmm_dev_map(t, hmm_test_at(1), false);
	hmm_dev_map(t, hmm_test_at(2), true);
	hmm_dev_map(t, hmm_test_at(3), false);
	t->owner = hmm_dev_owner();
	KUNIT_EXPECT_EQ(test, hmm_call(t, HMM_TEST_BASE, 4, REQ_F), 0);
	KUNIT_EXPECT_EQ(test, t->pfns[0], pfn | T_VW);
	KUNIT_EXPECT_EQ(test, t->pfns[1], (pfn + 1) | T_V);
	KUNIT_EXPECT_EQ(test, t->pfns[2], (pfn + 2) | T_VW);
	KUNIT_EXPECT_EQ(test, t->pfns[3], (pfn + 3) | T_V);
	KUNIT_EXPECT_EQ(test, hmm_dev_nr_to_ram() - before, 0UL);
	KUNIT_EXPECT_EQ(test, hmm_call(t, HMM_TEST_BASE, 3, REQ_FW), 0);
	KUNIT_EXPECT_EQ(test, hmm_dev_nr_to_ram() - before, 1UL);
	KUNIT_EXPECT_EQ(test, t->pfns[0], pfn | T_VW);
	KUNIT_EXPECT_NE(test, t->pfns[1], (pfn + 1) | T_VW);
	t->owner = NULL;
	KUNIT_EXPECT_EQ(test, hmm_call(t, HMM_TEST_BASE, 1, REQ_F), 0);
	KUNIT_EXPECT_EQ(test, hmm_dev_nr_to_ram() - before, 2UL);
}

/* ---- requests ---- */

static void hmm_test_write_alone(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	unsigned long req[4] = { REQ_W, 0, REQ_W, REQ_W };

	hmm_mmap_file(t, HMM_TEST_BASE, 4, MAP_SHARED);
	hmm_touch(t, hmm_test_at(3), 1, false);
	KUNIT_EXPECT_EQ(test, hmm_call(t, HMM_TEST_BASE, 4, REQ_W), 0);
	KUNIT_EXPECT_EQ(test, hmm_call_req(t, HMM_TEST_BASE, 4, 0, ~0UL, req), 0);
	KUNIT_EXPECT_EQ(test, t->nr_fault, 1UL);
	KUNIT_EXPECT_EQ(test, t->nr_mkwrite, 0UL);
	hmm_expect_ref(t, HMM_TEST_BASE, 4, "write without fault");
	/* Nor does it make an error of a page that cannot be had. */
	KUNIT_EXPECT_EQ(test, hmm_call(t, HMM_TEST_BASE, 5, REQ_W), 0);
	KUNIT_EXPECT_EQ(test, t->pfns[4], T_E);
}

struct hmm_mix {
	const char *name;
	unsigned long def, mask;
	u8 asked[4];	/* 1: read, 2: write */
};

/* The entries ask for nothing, a write alone, a fault, a fault for write. */
static void hmm_test_requests(struct kunit *test)
{
	static const struct hmm_mix mix[] = {
		{ "no mask", 0, 0, { 0, 0, 0, 0 } },
		{ "all of the mask", 0, ~0UL, { 0, 0, 1, 2 } },
		{ "both bits", 0, REQ_FW, { 0, 0, 1, 2 } },
		{ "only fault", 0, REQ_F, { 0, 0, 1, 1 } },
		{ "only write", 0, REQ_W, { 0, 0, 0, 0 } },
		{ "default fault", REQ_F, REQ_FW, { 1, 2, 1, 2 } },
		{ "default fault, write masked in", REQ_F, REQ_W, { 1, 2, 1, 2 } },
		{ "default fault, no mask", REQ_F, 0, { 1, 1, 1, 1 } },
		{ "default write, fault masked in", REQ_W, REQ_F, { 0, 0, 2, 2 } },
		{ "default both", REQ_FW, REQ_FW, { 2, 2, 2, 2 } },
		{ "default fault, odd mask", REQ_F, T_E, { 1, 1, 1, 1 } },
	};
	static const unsigned long req[4] = { 0, REQ_W, REQ_F, REQ_FW };
	struct hmm_test *t = test->priv;
	int i, k;

	for (i = 0; i < ARRAY_SIZE(mix); i++) {
		unsigned long want = 0;

		hmm_mmap_file(t, HMM_TEST_BASE, 4, MAP_SHARED);
		memset(t->asked, 0, sizeof(t->asked));
		t->nr_fault = 0;
		KUNIT_EXPECT_EQ_MSG(test, 0,
				    hmm_call_req(t, HMM_TEST_BASE, 4,
						 mix[i].def, mix[i].mask, req),
				    "%s", mix[i].name);
		for (k = 0; k < 4; k++) {
			KUNIT_EXPECT_EQ_MSG(test, t->asked[k], mix[i].asked[k],
					    "%s: %d", mix[i].name, k);
			want += !!mix[i].asked[k];
		}
		KUNIT_EXPECT_EQ_MSG(test, t->nr_fault, want, "%s", mix[i].name);
		KUNIT_EXPECT_EQ_MSG(test, t->faults, want, "%s", mix[i].name);
		hmm_expect_ref(t, HMM_TEST_BASE, 4, mix[i].name);
		vm_munmap(HMM_TEST_BASE, 4 * PAGE_SIZE);
	}
	KUNIT_EXPECT_EQ(test, t->nr_odd, 0UL);
}

/* A bad page is an error only to whoever asks for it. */
static void hmm_test_requests_around_bad(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	unsigned long req[5] = { REQ_F, 0, REQ_FW, 0, REQ_F };

	hmm_mmap_file(t, HMM_TEST_BASE, 5, MAP_SHARED);
	vm_munmap(hmm_test_at(1), PAGE_SIZE);
	hmm_protect(t, hmm_test_at(3), 1, PROT_NONE);
	KUNIT_EXPECT_EQ(test, hmm_call_req(t, HMM_TEST_BASE, 5, 0, REQ_FW, req), 0);
	KUNIT_EXPECT_EQ(test, t->nr_fault, 3UL);
	hmm_expect_ref(t, HMM_TEST_BASE, 5, "around bad pages");
	KUNIT_EXPECT_EQ(test, t->pfns[1], T_E);
	KUNIT_EXPECT_EQ(test, t->pfns[3], T_E);
	req[1] = REQ_F;
	KUNIT_EXPECT_EQ(test, hmm_call_req(t, HMM_TEST_BASE, 5, 0, REQ_FW, req),
			-EFAULT);
	req[1] = 0;
	req[3] = REQ_F;
	KUNIT_EXPECT_EQ(test, hmm_call_req(t, HMM_TEST_BASE, 5, 0, REQ_FW, req),
			-EFAULT);
	req[3] = 0;
	hmm_protect(t, hmm_test_at(4), 1, PROT_READ);
	req[4] = REQ_FW;
	KUNIT_EXPECT_EQ(test, hmm_call_req(t, HMM_TEST_BASE, 5, 0, REQ_FW, req),
			-EPERM);
	KUNIT_EXPECT_EQ(test, t->nr_fault, 3UL);
}

/* Only pages of the range are faulted, wherever it lies in the VMA. */
static void hmm_test_edges(struct kunit *test)
{
	static const u8 cut[][2] = {
		{ 0, 1 }, { 15, 1 }, { 7, 1 }, { 0, 16 }, { 3, 9 }
	};
	struct hmm_test *t = test->priv;
	unsigned long i, k;

	for (i = 0; i < ARRAY_SIZE(cut); i++) {
		hmm_mmap_file(t, HMM_TEST_BASE, 16, MAP_SHARED);
		memset(t->asked, 0, sizeof(t->asked));
		KUNIT_EXPECT_EQ(test, 0,
				hmm_call(t, hmm_test_at(cut[i][0]), cut[i][1],
					 REQ_F));
		hmm_expect_ref(t, hmm_test_at(cut[i][0]), cut[i][1], "cut");
		KUNIT_EXPECT_EQ(test, t->faults, (unsigned long)cut[i][1]);
		for (k = 0; k < 16; k++)
			KUNIT_EXPECT_EQ_MSG(test, t->asked[k],
					    k >= cut[i][0] && k < cut[i][0] + cut[i][1],
					    "cut %lu, page %lu", i, k);
		vm_munmap(HMM_TEST_BASE, 16 * PAGE_SIZE);
	}
}

static void hmm_test_many_vmas(struct kunit *test)
{
	struct hmm_test *t = test->priv;

	/* hole, 3 anonymous, hole, 4 of the file, 2 read-only, hole */
	hmm_mmap(t, hmm_test_at(2), 3, PROT_READ | PROT_WRITE);
	hmm_mmap_file(t, hmm_test_at(6), 4, MAP_SHARED);
	hmm_mmap(t, hmm_test_at(10), 2, PROT_READ);
	hmm_touch(t, hmm_test_at(3), 2, true);
	hmm_touch(t, hmm_test_at(6), 1, true);
	hmm_touch(t, hmm_test_at(9), 2, false);
	hmm_expect_snapshot(t, HMM_TEST_BASE, 14, "all");
	hmm_expect_snapshot(t, hmm_test_at(1), 3, "hole first");
	hmm_expect_snapshot(t, hmm_test_at(4), 2, "hole last");
	hmm_expect_snapshot(t, hmm_test_at(5), 1, "only a hole");
	hmm_expect_snapshot(t, hmm_test_at(12), 2, "above everything");
	KUNIT_EXPECT_EQ(test, hmm_call(t, HMM_TEST_BASE, 14, REQ_F), -EFAULT);
	KUNIT_EXPECT_EQ(test, hmm_call(t, hmm_test_at(2), 4, REQ_F), -EFAULT);
	KUNIT_EXPECT_EQ(test, hmm_call(t, hmm_test_at(5), 2, REQ_F), -EFAULT);
	KUNIT_EXPECT_EQ(test, hmm_call(t, hmm_test_at(10), 3, REQ_F), -EFAULT);
	KUNIT_EXPECT_EQ(test, hmm_call(t, hmm_test_at(2), 3, REQ_FW), 0);
	hmm_expect_ref(t, hmm_test_at(2), 3, "anonymous");
	KUNIT_EXPECT_EQ(test, hmm_call(t, hmm_test_at(6), 6, REQ_FW), -EPERM);
	KUNIT_EXPECT_EQ(test, hmm_call(t, hmm_test_at(6), 6, REQ_F), 0);
	hmm_expect_ref(t, hmm_test_at(6), 6, "file and read-only");
}

/* ---- boundaries of page tables ---- */

static void hmm_cross(struct hmm_test *t, unsigned long boundary, const char *what)
{
	unsigned long addr = boundary - 4 * PAGE_SIZE;

	if (boundary + PMD_SIZE > TASK_SIZE || boundary < PMD_SIZE)
		return;
	hmm_mmap_file(t, addr, 8, MAP_SHARED);
	hmm_expect_snapshot(t, addr, 8, what);
	hmm_touch(t, boundary, 1, true);
	hmm_expect_snapshot(t, addr, 8, what);
	hmm_touch(t, boundary - 2 * PAGE_SIZE, 1, false);
	hmm_expect_snapshot(t, addr, 8, what);
	hmm_expect_snapshot(t, addr, 4, what);
	hmm_expect_snapshot(t, boundary, 4, what);
	t->nr_fault = 0;
	KUNIT_EXPECT_EQ_MSG(t->test, hmm_call(t, addr, 8, REQ_F), 0, "%s", what);
	KUNIT_EXPECT_EQ_MSG(t->test, t->nr_fault, 6UL, "%s", what);
	hmm_expect_ref(t, addr, 8, what);
	KUNIT_EXPECT_EQ_MSG(t->test, hmm_call(t, addr, 8, REQ_FW), 0, "%s", what);
	KUNIT_EXPECT_EQ_MSG(t->test, t->faults, 7UL, "%s", what);
	hmm_expect_ref(t, addr, 8, what);
	vm_munmap(addr, 8 * PAGE_SIZE);
}

static void hmm_test_boundaries(struct kunit *test)
{
	struct hmm_test *t = test->priv;

	hmm_cross(t, HMM_TEST_BASE + PMD_SIZE, "table");
	hmm_cross(t, ALIGN(HMM_TEST_BASE + 1, PUD_SIZE), "PUD");
	hmm_cross(t, ALIGN(HMM_TEST_BASE + 1, P4D_SIZE), "P4D");
	hmm_cross(t, ALIGN(HMM_TEST_BASE + 1, PGDIR_SIZE), "PGD");
}

/* The last page that a process can have, and what lies above. */
static void hmm_test_top(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	unsigned long addr = (TASK_SIZE & PAGE_MASK) - 4 * PAGE_SIZE, ret;

	ret = vm_mmap(NULL, addr, 4 * PAGE_SIZE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, 0);
	if (ret == addr) {
		hmm_touch(t, addr + PAGE_SIZE, 1, true);
		hmm_expect_snapshot(t, addr, 4, "top");
		KUNIT_EXPECT_EQ(test, hmm_call(t, addr, 4, REQ_FW), 0);
		hmm_expect_ref(t, addr, 4, "top, faulted");
		hmm_expect_snapshot(t, addr, 6, "beyond the top");
		KUNIT_EXPECT_EQ(test, hmm_call(t, addr, 5, REQ_F), -EFAULT);
	}
	/* Kernel addresses are a hole like any other. */
	addr = (unsigned long)t->room & PAGE_MASK;
	KUNIT_EXPECT_EQ(test, hmm_call(t, addr, 2, 0), 0);
	KUNIT_EXPECT_EQ(test, t->pfns[0], T_E);
	KUNIT_EXPECT_EQ(test, t->pfns[1], T_E);
	KUNIT_EXPECT_EQ(test, hmm_call(t, addr, 1, REQ_F), -EFAULT);
	addr = -2 * PAGE_SIZE;
	KUNIT_EXPECT_EQ(test, hmm_call(t, addr, 1, 0), 0);
	KUNIT_EXPECT_EQ(test, t->pfns[0], T_E);
}

/* Two pages far apart: what is empty is stepped over, not looked at page by page. */
static void hmm_test_sparse(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	unsigned long n = (IS_ENABLED(CONFIG_64BIT) ? 2UL : 1UL) * SZ_1G / PAGE_SIZE;
	unsigned long i, nr = 0, addr = HMM_TEST_BASE + 5 * PAGE_SIZE;
	struct hmm_range range = hmm_test_range(t, addr, n, 0);

	range.hmm_pfns = kvmalloc_array(n, sizeof(unsigned long), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, range.hmm_pfns);
	memset(range.hmm_pfns, 0xf5, n * sizeof(unsigned long));
	hmm_mmap(t, addr, n, PROT_READ | PROT_WRITE);
	hmm_touch(t, addr, 1, true);
	hmm_touch(t, addr + (n - 1) * PAGE_SIZE, 1, true);
	range.notifier_seq = mmu_interval_read_begin(&t->ni);
	KUNIT_EXPECT_EQ(test, hmm_once(t, &range), 0);
	KUNIT_EXPECT_EQ(test, range.hmm_pfns[0], hmm_ref(t, addr));
	KUNIT_EXPECT_EQ(test, range.hmm_pfns[n - 1], hmm_ref(t, range.end - PAGE_SIZE));
	for (i = 1; i < n - 1; i++)
		nr += range.hmm_pfns[i] != 0;
	KUNIT_EXPECT_EQ(test, nr, 0UL);
	kvfree(range.hmm_pfns);
	vm_munmap(addr, n * PAGE_SIZE);
}

/* One odd page in a run of pages that are contiguous in memory. */
static int (*const hmm_odd[])(struct hmm_test *t, unsigned long addr) = {
	mk_hole, mk_special, mk_special_read, mk_swap, mk_hwpoison,
	mk_migration, mk_old, mk_poison_marker, mk_protnone, mk_devmap,
	mk_readonly,
};

static void hmm_odd_one(struct hmm_test *t, unsigned long base, int kind,
			unsigned long pos)
{
	unsigned long n = HMM_TEST_NPAGES;

	t->vm_flags = VM_MIXEDMAP;
	hmm_mmap_file(t, base, n, MAP_SHARED);
	hmm_touch(t, base, n, true);
	if (!hmm_odd[kind](t, base + pos * PAGE_SIZE)) {
		hmm_expect_snapshot(t, base, n, "odd page");
		hmm_expect_snapshot(t, base + pos * PAGE_SIZE, n - pos,
				    "from the odd page");
		hmm_expect_snapshot(t, base, pos + 1, "up to the odd page");
	}
	hmm_undo(t);
	vm_munmap(base, n * PAGE_SIZE);
}

static void hmm_test_odd_page(struct kunit *test)
{
	/* first, last, about the end of the table, somewhere */
	static const u8 pos[] = { 0, 1, 20, 31, 32, 33, 62, 63 };
	unsigned long base = HMM_TEST_BASE + PMD_SIZE - HMM_TEST_NPAGES / 2 * PAGE_SIZE;
	int kind, i;

	for (kind = 0; kind < ARRAY_SIZE(hmm_odd); kind++)
		for (i = 0; i < ARRAY_SIZE(pos); i++)
			hmm_odd_one(test->priv, base, kind, pos[i]);
}

/*
 * The next entry has the next pfn, but there is no page. Where entries can be
 * marked as special they differ in more than the pfn.
 */
static void hmm_test_run_leaves_memory(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	unsigned long pfn = max_pfn - 1;
	pte_t old;

	if (IS_ENABLED(CONFIG_ARCH_HAS_PTE_SPECIAL))
		kunit_skip(test, "special entries are marked");
	if (!pfn_valid(pfn) || pfn_valid(pfn + 1))
		kunit_skip(test, "no page without a successor");
	t->vm_flags = VM_MIXEDMAP;
	hmm_mmap_file(t, HMM_TEST_BASE, 2, MAP_SHARED);
	old = hmm_xchg_pte(t, hmm_test_at(0), pfn_pte(pfn, PAGE_READONLY), NULL);
	hmm_inject_pte(t, hmm_test_at(1), pfn_pte(pfn + 1, PAGE_READONLY));
	hmm_expect_snapshot(t, HMM_TEST_BASE, 2, "end of memory");
	KUNIT_EXPECT_EQ(test, t->pfns[0], pfn | T_V);
	KUNIT_EXPECT_EQ(test, t->pfns[1], T_E);
	hmm_undo(t);
	hmm_xchg_pte(t, hmm_test_at(0), old, NULL);
}

/* ---- collisions, waits, errors, signals ---- */

static void hmm_test_stale(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	struct hmm_range range;
	unsigned long i, col;

	hmm_mmap_file(t, HMM_TEST_BASE, 8, MAP_SHARED);
	hmm_touch(t, HMM_TEST_BASE, 4, true);
	for (col = 0; col < 3; col++) {
		range = hmm_test_range(t, HMM_TEST_BASE, 8, hmm_col_req[col]);
		hmm_fill(t, 8, NULL);
		hmm_test_collide(t, hmm_test_at(3));
		t->faults = 0;
		t->nr_fault = 0;
		KUNIT_EXPECT_EQ(test, hmm_once(t, &range), -EBUSY);
		KUNIT_EXPECT_EQ(test, t->nr_fault, 0UL);
		for (i = 0; i < 8; i++)
			KUNIT_EXPECT_EQ(test, t->pfns[i], HMM_TEST_POISON);
	}
}

static vm_fault_t hmm_collide_at(struct hmm_test *t, struct vm_fault *vmf)
{
	if (vmf->pgoff == t->arg)
		hmm_test_collide(t, vmf->address);
	return 0;
}

/*
 * Pages 0 to 3 are there; the fault of page @k meets a collision. The rest is
 * faulted in all the same, so that the next try has nothing left to fault.
 */
static void hmm_collide_midway(struct hmm_test *t, unsigned long k)
{
	struct hmm_range range;
	unsigned long i;

	hmm_mmap_file(t, HMM_TEST_BASE, 16, MAP_SHARED);
	hmm_touch(t, HMM_TEST_BASE, 4, true);
	range = hmm_test_range(t, HMM_TEST_BASE, 16, REQ_F);
	hmm_fill(t, 16, NULL);
	t->on_fault = hmm_collide_at;
	t->arg = k;
	t->nr_fault = 0;
	KUNIT_EXPECT_EQ(t->test, hmm_once(t, &range), -EBUSY);
	KUNIT_EXPECT_EQ(t->test, t->nr_fault, 12UL);
	for (i = 0; i < 16; i++)
		KUNIT_EXPECT_EQ_MSG(t->test, t->pfns[i], hmm_ref(t, hmm_test_at(i)),
				    "%lu", i);
	t->on_fault = NULL;
	KUNIT_EXPECT_EQ(t->test, hmm_call(t, HMM_TEST_BASE, 16, REQ_F), 0);
	KUNIT_EXPECT_EQ(t->test, t->faults, 0UL);
	hmm_expect_ref(t, HMM_TEST_BASE, 16, "after the collision");
	vm_munmap(HMM_TEST_BASE, 16 * PAGE_SIZE);
}

static void hmm_test_collision(struct kunit *test)
{
	struct hmm_test *t = test->priv;

	hmm_collide_midway(t, 4);
	hmm_collide_midway(t, 9);
	hmm_collide_midway(t, 15);
}

/* Each page is copied on the write, and taken from the caller for that: twice is enough */
static void hmm_test_own_collisions(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	const unsigned long n = 64;
	struct hmm_range range;

	hmm_mmap(t, HMM_TEST_BASE, n, PROT_READ | PROT_WRITE);
	/* The zero page everywhere */
	hmm_touch(t, HMM_TEST_BASE, n, false);
	range = hmm_test_range(t, HMM_TEST_BASE, n, REQ_FW);
	hmm_fill(t, n, NULL);
	KUNIT_EXPECT_EQ(test, hmm_once(t, &range), -EBUSY);
	t->faults = 0;
	range.notifier_seq = mmu_interval_read_begin(&t->ni);
	KUNIT_EXPECT_EQ(test, hmm_once(t, &range), 0);
	KUNIT_EXPECT_EQ(test, t->faults, 0UL);
	hmm_expect_ref(t, HMM_TEST_BASE, n, "after the copies");
}

/* Faulted, and gone again each time: no reason to stay for ever */
static vm_fault_t hmm_collide_and_go(struct hmm_test *t, struct vm_fault *vmf)
{
	hmm_test_collide(t, vmf->address);
	return VM_FAULT_NOPAGE;
}

static void hmm_test_gone_again(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	struct hmm_range range;

	hmm_mmap_file(t, HMM_TEST_BASE, 8, MAP_SHARED);
	range = hmm_test_range(t, HMM_TEST_BASE, 8, REQ_F);
	hmm_fill(t, 8, NULL);
	t->on_fault = hmm_collide_and_go;
	t->nr_fault = 0;
	KUNIT_EXPECT_EQ(test, hmm_once(t, &range), -EBUSY);
	KUNIT_EXPECT_EQ(test, t->nr_fault, 1UL);
}

/* An error behind a collision is told, and at once */
static void hmm_test_collision_then_error(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	struct hmm_range range;

	hmm_mmap_file(t, HMM_TEST_BASE, 8, MAP_SHARED);
	range = hmm_test_range(t, HMM_TEST_BASE, 12, REQ_F);
	hmm_fill(t, 12, NULL);
	t->on_fault = hmm_collide_at;
	t->arg = 2;
	KUNIT_EXPECT_EQ(test, hmm_once(t, &range), -EFAULT);
}

/* ---- a process that never stops invalidating ---- */

#define HMM_GALES	4

struct hmm_gale {
	struct hmm_test *t;
	struct task_struct *task[HMM_GALES];
	struct completion going;
	atomic_t starts;
};

/* As madvise() would: the lock is held from before the start until after the end */
static int hmm_gale_thread(void *data)
{
	struct hmm_gale *gale = data;
	struct mmu_notifier_range range;

	while (!kthread_should_stop()) {
		mmap_read_lock(gale->t->mm);
		mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, gale->t->mm,
					HMM_TEST_BASE, HMM_TEST_BASE + PAGE_SIZE);
		mmu_notifier_invalidate_range_start(&range);
		atomic_inc(&gale->starts);
		complete_all(&gale->going);
		/* Long enough for another one to begin before this one ends */
		usleep_range(2000, 3000);
		mmu_notifier_invalidate_range_end(&range);
		mmap_read_unlock(gale->t->mm);
	}
	return 0;
}

static void hmm_gale_stop(void *data)
{
	struct hmm_gale *gale = data;
	unsigned int i;

	for (i = 0; i < HMM_GALES; i++)
		if (!IS_ERR_OR_NULL(gale->task[i]))
			kthread_stop(gale->task[i]);
}

static struct hmm_gale *hmm_gale_start(struct hmm_test *t)
{
	struct hmm_gale *gale = kunit_kzalloc(t->test, sizeof(*gale), GFP_KERNEL);
	unsigned int i;

	KUNIT_ASSERT_NOT_NULL(t->test, gale);
	gale->t = t;
	init_completion(&gale->going);
	for (i = 0; i < HMM_GALES; i++)
		gale->task[i] = kthread_run(hmm_gale_thread, gale, "hmm_gale");
	KUNIT_ASSERT_EQ(t->test, 0, kunit_add_action_or_reset(t->test,
							      hmm_gale_stop, gale));
	wait_for_completion(&gale->going);
	return gale;
}

/* Until somebody has begun once more; false if nobody does */
static bool hmm_gale_blows(struct hmm_gale *gale)
{
	int before = atomic_read(&gale->starts);
	unsigned int i;

	for (i = 0; i < 2000 && atomic_read(&gale->starts) == before; i++)
		schedule_timeout_uninterruptible(1);
	return atomic_read(&gale->starts) != before;
}

static int hmm_gale_try(struct hmm_test *t, struct hmm_range *range)
{
	range->notifier_seq = mmu_interval_read_begin(&t->ni);
	return hmm_range_fault(range);
}

/* The usual way: between the reading and the use somebody has begun */
static void hmm_gale_open(struct hmm_test *t, struct hmm_gale *gale,
			  struct hmm_range *range)
{
	int ret;

	mmap_read_lock(t->mm);
	ret = hmm_gale_try(t, range);
	mmap_read_unlock(t->mm);
	KUNIT_EXPECT_TRUE(t->test, hmm_gale_blows(gale));
	if (!ret)
		KUNIT_EXPECT_TRUE(t->test, mmu_interval_read_retry(&t->ni,
								   range->notifier_seq));
}

/* Two tries at most, and nobody begins in between */
static void hmm_gale_locked(struct hmm_test *t, struct hmm_gale *gale,
			    struct hmm_range *range)
{
	int ret, before;

	KUNIT_ASSERT_EQ(t->test, hmm_range_lock(range), 0);
	before = atomic_read(&gale->starts);
	ret = hmm_gale_try(t, range);
	if (ret == -EBUSY)
		ret = hmm_gale_try(t, range);
	msleep(20);
	KUNIT_EXPECT_EQ(t->test, ret, 0);
	KUNIT_EXPECT_FALSE(t->test, mmu_interval_read_retry(&t->ni,
							    range->notifier_seq));
	KUNIT_EXPECT_EQ(t->test, atomic_read(&gale->starts), before);
	hmm_range_unlock(range);
	KUNIT_EXPECT_TRUE(t->test, hmm_gale_blows(gale));
}

/*
 * Several threads invalidate the range, one always before another has ended. In
 * that storm no try of the usual kind succeeds; with the range locked two suffice,
 * also where each page is copied, and the storm goes on afterwards.
 */
static void hmm_test_range_lock(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	struct hmm_range range;
	struct hmm_gale *gale;
	unsigned int i;

	hmm_mmap(t, HMM_TEST_BASE, 4, PROT_READ | PROT_WRITE);
	gale = hmm_gale_start(t);
	range = hmm_test_range(t, HMM_TEST_BASE, 4, REQ_FW);
	hmm_fill(t, 4, NULL);
	for (i = 0; i < 5; i++)
		hmm_gale_open(t, gale, &range);
	for (i = 0; i < 5; i++) {
		/* The zero page is back */
		hmm_mmap(t, HMM_TEST_BASE, 4, PROT_READ | PROT_WRITE);
		hmm_touch(t, HMM_TEST_BASE, 4, false);
		hmm_gale_locked(t, gale, &range);
	}
	kunit_release_action(test, hmm_gale_stop, gale);
	hmm_expect_ref(t, HMM_TEST_BASE, 4, "after the storm");
}

static int hmm_hold_mmap_thread(void *data)
{
	struct hmm_gale *gale = data;

	mmap_read_lock(gale->t->mm);
	complete_all(&gale->going);
	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);
	mmap_read_unlock(gale->t->mm);
	return 0;
}

/* Who is killed does not wait, and holds nothing */
static void hmm_test_range_lock_killed(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	struct hmm_gale *gale = kunit_kzalloc(test, sizeof(*gale), GFP_KERNEL);
	struct hmm_range range = hmm_test_range(t, HMM_TEST_BASE, 4, REQ_F);

	KUNIT_ASSERT_NOT_NULL(test, gale);
	gale->t = t;
	init_completion(&gale->going);
	gale->task[0] = kthread_run(hmm_hold_mmap_thread, gale, "hmm_hold_mmap");
	KUNIT_ASSERT_FALSE(test, IS_ERR(gale->task[0]));
	wait_for_completion(&gale->going);
	send_sig(SIGKILL, current, 1);
	KUNIT_EXPECT_EQ(test, hmm_range_lock(&range), -EINTR);
	flush_signals(current);
	kthread_stop(gale->task[0]);
	KUNIT_EXPECT_FALSE(test, rwsem_is_locked(&t->mm->mmap_lock));
	range.end = range.start;
	KUNIT_EXPECT_EQ(test, hmm_range_lock(&range), -EINVAL);
	KUNIT_EXPECT_FALSE(test, rwsem_is_locked(&t->mm->mmap_lock));
}

/* Page faults that take no mmap lock are kept out, too */
static void hmm_test_range_lock_vmas(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	struct hmm_range range;

	hmm_mmap(t, HMM_TEST_BASE, 4, PROT_READ | PROT_WRITE);
	hmm_mmap(t, hmm_test_at(8), 4, PROT_READ);
	range = hmm_test_range(t, HMM_TEST_BASE, 12, REQ_F);
	KUNIT_ASSERT_EQ(test, hmm_range_lock(&range), 0);
	mmap_assert_write_locked(t->mm);
#ifdef CONFIG_PER_VMA_LOCK
	KUNIT_EXPECT_NULL(test, lock_vma_under_rcu(t->mm, HMM_TEST_BASE));
	KUNIT_EXPECT_NULL(test, lock_vma_under_rcu(t->mm, hmm_test_at(9)));
#endif
	hmm_range_unlock(&range);
	KUNIT_EXPECT_FALSE(test, rwsem_is_locked(&t->mm->mmap_lock));
}

/* An invalidation elsewhere is not a collision. */
static void hmm_test_no_collision(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	struct hmm_range range;
	int ret;

	mmu_interval_notifier_remove(&t->ni);
	t->inserted = false;
	ret = mmu_interval_notifier_insert(&t->ni, t->mm, HMM_TEST_BASE,
					   4 * PAGE_SIZE, &hmm_test_ni_ops);
	KUNIT_ASSERT_EQ(test, ret, 0);
	t->inserted = true;
	hmm_mmap_file(t, HMM_TEST_BASE, 8, MAP_SHARED);
	range = hmm_test_range(t, HMM_TEST_BASE, 4, REQ_FW);
	hmm_fill(t, 4, NULL);
	hmm_test_collide(t, hmm_test_at(4));
	KUNIT_EXPECT_EQ(test, hmm_once(t, &range), 0);
	hmm_expect_ref(t, HMM_TEST_BASE, 4, "left alone");
	hmm_test_collide(t, hmm_test_at(3));
	KUNIT_EXPECT_EQ(test, hmm_once(t, &range), -EBUSY);
}

/* A snapshot does not wait for a migration; a fault does, for as long as it takes. */
static void hmm_wait_for_migration(struct hmm_test *t, unsigned long addr,
				   unsigned long n, unsigned long def)
{
	t->restored = false;
	KUNIT_EXPECT_EQ(t->test, hmm_call(t, addr, n, 0), 0);
	KUNIT_EXPECT_EQ(t->test, t->pfns[n / 2], 0UL);
	schedule_delayed_work(&t->restore, msecs_to_jiffies(60));
	KUNIT_EXPECT_EQ(t->test, hmm_call(t, addr, n, def), 0);
	KUNIT_EXPECT_TRUE(t->test, READ_ONCE(t->restored));
	/* Waits, does not poll. */
	KUNIT_EXPECT_LE(t->test, t->faults, 4UL);
	hmm_expect_ref(t, addr, n, "after the migration");
	hmm_expect_flags(t, n / 2, T_VW, "after the migration");
	flush_delayed_work(&t->restore);
}

static void hmm_test_migration(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	int col;

	for (col = 1; col < 3; col++) {
		map_anon(t, 3);
		if (mk_migration(t, hmm_test_at(1)))
			kunit_skip(test, "no migration");
		hmm_wait_for_migration(t, HMM_TEST_BASE, 3, hmm_col_req[col]);
		hmm_undo(t);
		vm_munmap(HMM_TEST_BASE, 3 * PAGE_SIZE);
	}
}

/*
 * A swap entry goes to the fault handler, again and again until there is a page.
 * This one names no swap device, for which the handler does nothing.
 */
static void hmm_test_swap_fault(struct kunit *test)
{
	struct hmm_test *t = test->priv;

	map_anon(t, 3);
	mk_write(t, hmm_test_at(1));
	hmm_inject_swp(t, hmm_test_at(1), swp_entry(0, 0));
	if (pte_none(t->inj_new) || pte_present(t->inj_new)) {
		hmm_undo(t);
		kunit_skip(test, "no such swap entry");
	}
	KUNIT_EXPECT_EQ(test, hmm_call(t, HMM_TEST_BASE, 3, 0), 0);
	KUNIT_EXPECT_EQ(test, t->pfns[1], 0UL);
	schedule_delayed_work(&t->restore, msecs_to_jiffies(20));
	KUNIT_EXPECT_EQ(test, hmm_call(t, HMM_TEST_BASE, 3, REQ_FW), 0);
	KUNIT_EXPECT_TRUE(test, READ_ONCE(t->restored));
	KUNIT_EXPECT_GT(test, t->faults, 0UL);
	flush_delayed_work(&t->restore);
	hmm_expect_ref(t, HMM_TEST_BASE, 3, "swapped in");
}

static vm_fault_t hmm_fail_at(struct hmm_test *t, struct vm_fault *vmf)
{
	return vmf->pgoff == 2 ? (__force vm_fault_t)t->arg : 0;
}

/* Nothing is put there the first three times. */
static vm_fault_t hmm_dawdle(struct hmm_test *t, struct vm_fault *vmf)
{
	return t->arg++ < 3 ? VM_FAULT_NOPAGE : 0;
}

static void hmm_test_fault_errors(struct kunit *test)
{
	static const struct {
		vm_fault_t fault;
		int ret;
	} rows[] = {
		{ VM_FAULT_SIGBUS, -EFAULT },
		{ VM_FAULT_SIGSEGV, -EFAULT },
		{ VM_FAULT_HWPOISON, -EFAULT },
		{ VM_FAULT_OOM, -ENOMEM },
	};
	struct hmm_test *t = test->priv;
	int i;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		hmm_mmap_file(t, HMM_TEST_BASE, 4, MAP_SHARED);
		t->on_fault = hmm_fail_at;
		t->arg = (__force unsigned long)rows[i].fault;
		t->nr_fault = 0;
		KUNIT_EXPECT_EQ_MSG(test, hmm_call(t, HMM_TEST_BASE, 4, REQ_F),
				    rows[i].ret, "row %d", i);
		/* It stops there. */
		KUNIT_EXPECT_EQ(test, t->nr_fault, 3UL);
		KUNIT_EXPECT_EQ(test, t->asked[3], 0);
		vm_munmap(HMM_TEST_BASE, 4 * PAGE_SIZE);
	}
	hmm_mmap_file(t, HMM_TEST_BASE, 1, MAP_SHARED);
	t->on_fault = hmm_dawdle;
	t->arg = 0;
	KUNIT_EXPECT_EQ(test, hmm_call(t, HMM_TEST_BASE, 1, REQ_F), 0);
	KUNIT_EXPECT_EQ(test, t->arg, 4UL);
	hmm_expect_ref(t, HMM_TEST_BASE, 1, "at the fourth try");
}

static vm_fault_t hmm_kill_at(struct hmm_test *t, struct vm_fault *vmf)
{
	if (vmf->pgoff == t->arg)
		send_sig(SIGKILL, current, 1);
	return 0;
}

/* A walk of many tables ends soon after a fatal signal. */
static void hmm_test_signal(struct kunit *test)
{
	unsigned long n = min(8UL * PTRS_PER_PTE, HMM_TEST_CAP),
		      limit = 2 * PTRS_PER_PTE;
	static const unsigned long at[] = { 0, 100, PTRS_PER_PTE };
	struct hmm_test *t = test->priv;
	struct hmm_range range;
	int i;

	for (i = 0; i < ARRAY_SIZE(at); i++) {
		hmm_mmap_file(t, HMM_TEST_BASE, n, MAP_SHARED);
		t->on_fault = hmm_kill_at;
		t->arg = at[i];
		t->nr_fault = 0;
		range = hmm_test_range(t, HMM_TEST_BASE, n, REQ_F);
		KUNIT_EXPECT_EQ(test, hmm_once(t, &range), -EINTR);
		KUNIT_EXPECT_LE(test, t->nr_fault, at[i] + limit);
		flush_signals(current);
		t->on_fault = NULL;
		KUNIT_EXPECT_EQ(test, hmm_call(t, HMM_TEST_BASE, n, REQ_F), 0);
		KUNIT_EXPECT_EQ(test, t->nr_fault, n);
		vm_munmap(HMM_TEST_BASE, n * PAGE_SIZE);
	}
	/* Nor does it begin. */
	hmm_mmap_file(t, HMM_TEST_BASE, n, MAP_SHARED);
	range = hmm_test_range(t, HMM_TEST_BASE, n, REQ_F);
	t->nr_fault = 0;
	send_sig(SIGKILL, current, 1);
	KUNIT_EXPECT_EQ(test, hmm_once(t, &range), -EINTR);
	KUNIT_EXPECT_LE(test, t->nr_fault, limit);
	flush_signals(current);
}

/* A fault that never gets anywhere can be killed. */
static vm_fault_t hmm_stuck(struct hmm_test *t, struct vm_fault *vmf)
{
	if (++t->arg == 10)
		send_sig(SIGKILL, current, 1);
	return t->arg < 1000 ? VM_FAULT_NOPAGE : VM_FAULT_SIGBUS;
}

static void hmm_test_stuck(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	struct hmm_range range;

	hmm_mmap_file(t, HMM_TEST_BASE, 1, MAP_SHARED);
	t->on_fault = hmm_stuck;
	range = hmm_test_range(t, HMM_TEST_BASE, 1, REQ_F);
	KUNIT_EXPECT_EQ(test, hmm_once(t, &range), -EINTR);
	KUNIT_EXPECT_LT(test, t->arg, 100UL);
	flush_signals(current);
}

/* ---- what the caller may rely on ---- */

static void hmm_test_no_reference(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	int before[8], i;

	hmm_mmap_file(t, HMM_TEST_BASE, 8, MAP_SHARED);
	hmm_touch(t, HMM_TEST_BASE, 4, true);
	for (i = 0; i < 8; i++)
		before[i] = page_ref_count(t->pages + i);
	KUNIT_EXPECT_EQ(test, hmm_call(t, HMM_TEST_BASE, 8, 0), 0);
	KUNIT_EXPECT_EQ(test, hmm_call(t, HMM_TEST_BASE, 4, REQ_FW), 0);
	for (i = 0; i < 4; i++)
		KUNIT_EXPECT_EQ(test, page_ref_count(t->pages + i), before[i]);
	/* Each page that is faulted gets the reference of its entry, no more. */
	KUNIT_EXPECT_EQ(test, hmm_call(t, HMM_TEST_BASE, 8, REQ_FW), 0);
	for (i = 0; i < 8; i++) {
		KUNIT_EXPECT_EQ(test, page_ref_count(t->pages + i),
				before[i] + (i > 3));
		KUNIT_EXPECT_PTR_EQ(test, hmm_pfn_to_page(t->pfns[i]), t->pages + i);
	}
}

static void hmm_test_zero_page(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	int i;

	hmm_mmap(t, HMM_TEST_BASE, 4, PROT_READ | PROT_WRITE);
	KUNIT_EXPECT_EQ(test, hmm_call(t, HMM_TEST_BASE, 4, REQ_F), 0);
	KUNIT_EXPECT_EQ(test, t->faults, 4UL);
	for (i = 0; i < 4; i++)
		KUNIT_EXPECT_EQ(test, t->pfns[i], my_zero_pfn(hmm_test_at(i)) | T_V);
}

static void hmm_test_write_locked(struct kunit *test)
{
	struct hmm_test *t = test->priv;

	t->write_locked = true;
	hmm_mmap(t, HMM_TEST_BASE, 4, PROT_READ | PROT_WRITE);
	KUNIT_EXPECT_EQ(test, hmm_call(t, HMM_TEST_BASE, 4, REQ_F), 0);
	KUNIT_EXPECT_EQ(test, hmm_call(t, HMM_TEST_BASE, 4, REQ_FW), 0);
	hmm_expect_ref(t, HMM_TEST_BASE, 4, "write lock");
}

static void hmm_remote_work(struct work_struct *work)
{
	struct hmm_test *t = container_of(work, struct hmm_test, restore.work);

	allow_signal(SIGKILL);
	t->arg = hmm_call(t, HMM_TEST_BASE, 4, REQ_FW);
	disallow_signal(SIGKILL);
}

/* The caller's own mm is another one, or none. */
static void hmm_test_remote(struct kunit *test)
{
	struct hmm_test *t = test->priv;

	hmm_mmap_file(t, HMM_TEST_BASE, 2, MAP_SHARED);
	hmm_mmap(t, hmm_test_at(2), 2, PROT_READ | PROT_WRITE);
	t->arg = 1;
	INIT_DELAYED_WORK(&t->restore, hmm_remote_work);
	schedule_delayed_work(&t->restore, 0);
	flush_delayed_work(&t->restore);
	KUNIT_EXPECT_EQ(test, t->arg, 0UL);
	KUNIT_EXPECT_EQ(test, t->nr_fault, 2UL);
	KUNIT_EXPECT_EQ(test, t->faults, 4UL);
	KUNIT_EXPECT_EQ(test, t->nr_odd, 0UL);
	hmm_expect_ref(t, HMM_TEST_BASE, 4, "remote");
}

/* ---- huge pages of anonymous memory ---- */

static pmd_t hmm_xchg_pmd(struct hmm_test *t, unsigned long addr, pmd_t pmd,
			  const pmd_t *expect)
{
	pmd_t *pmdp = hmm_test_pmdp(t, addr), old;
	spinlock_t *ptl = pmd_lock(t->mm, pmdp);

	old = pmdp_get(pmdp);
	if (!expect || pmd_same(old, *expect)) {
#ifdef CONFIG_TRANSPARENT_HUGEPAGE
		set_pmd_at(t->mm, addr & PMD_MASK, pmdp, pmd);
#else
		set_pmd(pmdp, pmd);
#endif
	}
	spin_unlock(ptl);
	return old;
}

static void hmm_undo_pmd(struct hmm_test *t)
{
	hmm_xchg_pmd(t, t->inj_addr, t->inj_old_pmd, &t->inj_new_pmd);
	flush_tlb_mm(t->mm);
}

static void hmm_inject_pmd(struct hmm_test *t, unsigned long addr, pmd_t pmd)
{
	t->inj_addr = addr;
	t->inj_old_pmd = hmm_xchg_pmd(t, addr, pmd, NULL);
	t->inj_new_pmd = pmdp_get(hmm_test_pmdp(t, addr));
	t->undo = hmm_undo_pmd;
}

/* A PMD that points to a table, but not as it should. */
static void hmm_test_bad_pmd(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	int col;

	map_anon(t, 5);
#ifdef _PAGE_DIRTY
	hmm_inject_pmd(t, HMM_TEST_BASE,
		       __pmd(pmd_val(*hmm_test_pmdp(t, HMM_TEST_BASE)) & ~_PAGE_DIRTY));
#endif
	if (!t->undo || !pmd_bad(t->inj_new_pmd) || !pmd_present(t->inj_new_pmd)) {
		hmm_undo(t);
		kunit_skip(test, "cannot make a bad PMD here");
	}
	for (col = 0; col < 3; col++) {
		KUNIT_EXPECT_EQ(test, hmm_call(t, HMM_TEST_BASE, 5, hmm_col_req[col]),
				col ? -EFAULT : 0);
		KUNIT_EXPECT_EQ(test, t->faults, 0UL);
		if (!col)
			hmm_expect_ref(t, HMM_TEST_BASE, 5, "bad PMD");
		KUNIT_EXPECT_TRUE(test, pmd_same(*hmm_test_pmdp(t, HMM_TEST_BASE),
						 t->inj_new_pmd));
	}
	hmm_undo(t);
}

#define HMM_TEST_NTHP (PMD_SIZE / PAGE_SIZE)

#ifdef CONFIG_TRANSPARENT_HUGEPAGE
static unsigned long map_thp_empty(struct hmm_test *t, unsigned long n)
{
	hmm_mmap(t, HMM_TEST_BASE, n, PROT_READ | PROT_WRITE);
	KUNIT_EXPECT_EQ(t->test, 0, do_madvise(t->mm, HMM_TEST_BASE, n * PAGE_SIZE,
					       MADV_HUGEPAGE));
	return HMM_TEST_BASE;
}

static bool hmm_is_thp(struct hmm_test *t, unsigned long addr)
{
	pmd_t *pmdp = hmm_test_pmdp(t, addr);

	return pmdp && pmd_trans_huge(*pmdp);
}

static unsigned long hmm_map_thp(struct hmm_test *t, unsigned long n, bool write)
{
	unsigned long i;

	map_thp_empty(t, n);
	for (i = 0; i < n; i += HMM_TEST_NTHP)
		hmm_touch(t, hmm_test_at(i), 1, write);
	if (!hmm_is_thp(t, HMM_TEST_BASE))
		kunit_skip(t->test, "no transparent huge page to be had");
	return HMM_TEST_BASE;
}

static unsigned long map_thp(struct hmm_test *t, unsigned long n)
{
	return hmm_map_thp(t, n, true);
}

static unsigned long map_thp_zero(struct hmm_test *t, unsigned long n)
{
	return hmm_map_thp(t, n, false);
}

static int mk_thp_readonly(struct hmm_test *t, unsigned long addr)
{
	hmm_inject_pmd(t, addr, pmd_wrprotect(*hmm_test_pmdp(t, addr)));
	return 0;
}

static int mk_thp_protnone(struct hmm_test *t, unsigned long addr)
{
	if (!IS_ENABLED(CONFIG_NUMA_BALANCING))
		return -EOPNOTSUPP;
	hmm_inject_pmd(t, addr, pmd_modify(*hmm_test_pmdp(t, addr), PAGE_NONE));
	return 0;
}

static int mk_thp_devmap(struct hmm_test *t, unsigned long addr)
{
#ifdef CONFIG_ARCH_HAS_PTE_DEVMAP
	hmm_inject_pmd(t, addr, pmd_mkdevmap(*hmm_test_pmdp(t, addr)));
	return 0;
#else
	return -EOPNOTSUPP;
#endif
}

static int mk_thp_migration(struct hmm_test *t, unsigned long addr)
{
	unsigned long pfn = pmd_pfn(*hmm_test_pmdp(t, addr));

	if (!IS_ENABLED(CONFIG_ARCH_ENABLE_THP_MIGRATION))
		return -EOPNOTSUPP;
	hmm_lock_pfn(t, pfn);
	hmm_inject_pmd(t, addr, swp_entry_to_pmd(make_writable_migration_entry(pfn)));
	return 0;
}

/* Not present, and no migration either. */
static int mk_thp_swap(struct hmm_test *t, unsigned long addr)
{
	if (!IS_ENABLED(CONFIG_ARCH_ENABLE_THP_MIGRATION))
		return -EOPNOTSUPP;
	hmm_inject_pmd(t, addr, swp_entry_to_pmd(swp_entry(0, 0x1234)));
	return 0;
}

/* The same, with other bits where those of a present entry would be */
static int mk_thp_swap_odd(struct hmm_test *t, unsigned long addr)
{
	if (!IS_ENABLED(CONFIG_ARCH_ENABLE_THP_MIGRATION))
		return -EOPNOTSUPP;
	hmm_inject_pmd(t, addr, swp_entry_to_pmd(swp_entry(0, 0x1235)));
	return 0;
}

static const struct hmm_row hmm_pmd_rows[] = {
	{ "empty", map_thp_empty,
	  .col = { { 0, 0 }, { 0, T_V, 1 }, { 0, T_VW, 1 } } },
	{ "huge page", map_thp,
	  .col = { { 0, T_VW }, { 0, T_VW }, { 0, T_VW } } },
	{ "read-only huge page", map_thp, .make = mk_thp_readonly,
	  .col = { { 0, T_V }, { 0, T_V }, { 0, T_VW, 1 } } },
	{ "huge zero page", map_thp_zero,
	  .col = { { 0, T_V }, { 0, T_V }, { 0, T_VW, ANY } } },
	{ "protnone huge page", map_thp, .make = mk_thp_protnone,
	  .col = { { 0, 0 }, { 0, T_V | T_WMAY, 1 }, { 0, T_VW, ANY } } },
	{ "devmap huge page", map_thp, .make = mk_thp_devmap,
	  .col = { { 0, T_VW }, { 0, T_VW }, { 0, T_VW } } },
	{ "migration entry", map_thp, .make = mk_thp_migration,
	  .col = { { 0, 0 }, { NORUN }, { NORUN } } },
	{ "other entry", map_thp, .make = mk_thp_swap,
	  .col = { { 0, T_E }, { -EFAULT }, { -EFAULT } } },
	{ "other entry, odd offset", map_thp, .make = mk_thp_swap_odd,
	  .col = { { 0, T_E }, { -EFAULT }, { -EFAULT } } },
	{ "read-only VMA", map_thp, .protect = true, .prot = PROT_READ,
	  .col = { { 0, T_V }, { 0, T_V }, { -EPERM } } },
	{ "read-only VMA, empty", map_thp_empty, .protect = true, .prot = PROT_READ,
	  .col = { { 0, 0 }, { 0, T_V, 1 }, { -EPERM } } },
	{ "PROT_NONE VMA", map_thp, .protect = true, .prot = PROT_NONE,
	  .col = { { 0, T_E }, { -EFAULT }, { -EFAULT } } },
};

KUNIT_ARRAY_PARAM(hmm_pmd, hmm_pmd_rows, hmm_row_desc);

/* @n pages out of the middle of one huge page. */
static void hmm_pmd_row(struct hmm_test *t, const struct hmm_row *row, int col,
			unsigned long n)
{
	unsigned long base, addr, i;
	int ret = 0;

	base = row->map(t, HMM_TEST_NTHP);
	addr = base + 5 * PAGE_SIZE;
	if (row->make)
		ret = row->make(t, base);
	if (ret == -EOPNOTSUPP)
		kunit_skip(t->test, "this kernel has no such entry");
	if (row->protect)
		hmm_protect(t, base, HMM_TEST_NTHP, row->prot);
	ret = hmm_call(t, addr, n, hmm_col_req[col]);
	hmm_row_check(t, row, col, ret, 0);
	for (i = 0; !ret && i < n; i++)
		hmm_expect_flags(t, i, row->col[col].flags, row->name);
	if (!ret)
		hmm_expect_ref(t, addr, n, row->name);
	hmm_undo(t);
	vm_munmap(base, PMD_SIZE);
}

static void hmm_test_pmd_state(struct kunit *test)
{
	const struct hmm_row *row = test->param_value;
	int col;

	for (col = 0; col < 3; col++)
		if (row->col[col].ret != NORUN)
			hmm_pmd_row(test->priv, row, col, 7);
}

static void hmm_test_pmd_migration(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	int col;

	for (col = 1; col < 3; col++) {
		map_thp(t, HMM_TEST_NTHP);
		if (mk_thp_migration(t, HMM_TEST_BASE))
			kunit_skip(test, "no migration of huge pages");
		hmm_wait_for_migration(t, hmm_test_at(9), 5, hmm_col_req[col]);
		hmm_undo(t);
		vm_munmap(HMM_TEST_BASE, PMD_SIZE);
	}
}

/* Ranges that begin or end in a huge page, with small pages around it. */
static void hmm_test_thp_edges(struct kunit *test)
{
	unsigned long n = HMM_TEST_NTHP, pfn, i;
	struct hmm_test *t = test->priv;

	hmm_mmap(t, hmm_test_at(2 * n), 4, PROT_READ | PROT_WRITE);
	hmm_touch(t, hmm_test_at(2 * n), 3, true);
	map_thp(t, 2 * n);
	pfn = pmd_pfn(*hmm_test_pmdp(t, HMM_TEST_BASE));
	hmm_expect_snapshot(t, HMM_TEST_BASE, 2 * n, "both whole");
	KUNIT_EXPECT_EQ(test, hmm_pfn_to_map_order(t->pfns[0]), HPAGE_PMD_ORDER);
	for (i = 0; i < n; i++)
		KUNIT_EXPECT_EQ(test, t->pfns[i],
				(pfn + i) | T_VW | (unsigned long)HPAGE_PMD_ORDER <<
				HMM_PFN_ORDER_SHIFT);
	hmm_expect_snapshot(t, HMM_TEST_BASE, 1, "first page");
	hmm_expect_snapshot(t, hmm_test_at(n - 1), 1, "last page");
	hmm_expect_snapshot(t, hmm_test_at(n - 1), 2, "last and first");
	hmm_expect_snapshot(t, hmm_test_at(n - 3), n + 6, "begins and ends inside");
	hmm_expect_snapshot(t, hmm_test_at(2 * n - 3), 7, "huge, small, nothing");
	KUNIT_EXPECT_EQ(test, hmm_call(t, hmm_test_at(n + 7), n - 7, REQ_FW), 0);
	KUNIT_EXPECT_EQ(test, t->faults, 0UL);
	hmm_expect_ref(t, hmm_test_at(n + 7), n - 7, "present");
}

/* One fault maps a huge page: nobody asks again for what it brought. */
static void hmm_test_thp_one_fault(struct kunit *test)
{
	unsigned long n = HMM_TEST_NTHP, i;
	struct hmm_test *t = test->priv;
	unsigned long *req = kunit_kcalloc(test, n, sizeof(*req), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, req);
	map_thp_empty(t, 3 * n);
	KUNIT_EXPECT_EQ(test, hmm_call(t, hmm_test_at(3), 2 * n, REQ_FW), 0);
	if (!hmm_is_thp(t, HMM_TEST_BASE))
		kunit_skip(test, "no transparent huge page to be had");
	KUNIT_EXPECT_EQ(test, t->faults, 3UL);
	hmm_expect_ref(t, hmm_test_at(3), 2 * n, "written");
	vm_munmap(HMM_TEST_BASE, 3 * PMD_SIZE);

	/* One page asked for: those after it are there, those before may be. */
	map_thp_empty(t, n);
	req[100] = REQ_F;
	KUNIT_EXPECT_EQ(test, hmm_call_req(t, HMM_TEST_BASE, n, 0, REQ_FW, req), 0);
	KUNIT_EXPECT_EQ(test, t->faults, 1UL);
	for (i = 0; i < n; i++)
		if (i >= 100 || t->pfns[i])
			KUNIT_EXPECT_EQ(test, t->pfns[i], hmm_ref(t, hmm_test_at(i)));
	/* None asked for: none faulted. */
	vm_munmap(HMM_TEST_BASE, PMD_SIZE);
	map_thp_empty(t, n);
	hmm_expect_snapshot(t, HMM_TEST_BASE, n, "nothing asked for");
}

/* Requests for a few pages of a read-only huge page. */
static void hmm_test_thp_requests(struct kunit *test)
{
	unsigned long n = HMM_TEST_NTHP;
	struct hmm_test *t = test->priv;
	unsigned long *req = kunit_kcalloc(test, n, sizeof(*req), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, req);
	map_thp(t, n);
	mk_thp_readonly(t, HMM_TEST_BASE);
	req[17] = REQ_F;
	req[18] = REQ_W;
	KUNIT_EXPECT_EQ(test, hmm_call_req(t, HMM_TEST_BASE, n, 0, REQ_FW, req), 0);
	KUNIT_EXPECT_EQ(test, t->faults, 0UL);
	hmm_expect_ref(t, HMM_TEST_BASE, n, "read");
	req[19] = REQ_FW;
	KUNIT_EXPECT_EQ(test, hmm_call_req(t, HMM_TEST_BASE, n, 0, REQ_FW, req), 0);
	KUNIT_EXPECT_EQ(test, t->faults, 1UL);
	hmm_expect_flags(t, 19, T_VW, "written");
	hmm_expect_flags(t, n - 1, T_VW, "after it");
	hmm_expect_ref(t, HMM_TEST_BASE, n, "before it, too");
	req[n - 1] = REQ_FW;
	KUNIT_EXPECT_EQ(test, hmm_call_req(t, HMM_TEST_BASE, n, 0, REQ_FW, req), 0);
	KUNIT_EXPECT_EQ(test, t->faults, 0UL);
	hmm_undo(t);
	/* The last one alone, when nobody wrote before. */
	mk_thp_readonly(t, HMM_TEST_BASE);
	memset(req, 0, n * sizeof(*req));
	req[n - 1] = REQ_FW;
	KUNIT_EXPECT_EQ(test, hmm_call_req(t, HMM_TEST_BASE, n, 0, REQ_FW, req), 0);
	KUNIT_EXPECT_EQ(test, t->faults, 1UL);
	hmm_expect_flags(t, n - 1, T_VW, "the last one");
	hmm_undo(t);
}

/* One page of it may not be had: those before it have their results, no other has */
static void hmm_test_thp_refused(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	unsigned long n = HMM_TEST_NTHP;
	unsigned long *req = kunit_kcalloc(test, n, sizeof(*req), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, req);
	map_thp(t, n);
	hmm_protect(t, HMM_TEST_BASE, n, PROT_READ);
	req[19] = REQ_FW;
	KUNIT_EXPECT_EQ(test, hmm_call_req(t, HMM_TEST_BASE, n, 0, REQ_FW, req), -EPERM);
	KUNIT_EXPECT_EQ(test, t->faults, 0UL);
	hmm_expect_ref(t, HMM_TEST_BASE, 19, "before it");
	KUNIT_EXPECT_EQ(test, t->pfns[19], REQ_FW);
	KUNIT_EXPECT_EQ(test, t->pfns[20], 0UL);
}

/* A huge page mapped by small entries: each has order 0, whatever its folio. */
static void hmm_test_thp_split(struct kunit *test)
{
	unsigned long n = HMM_TEST_NTHP, i;
	struct hmm_test *t = test->priv;
	struct vm_area_struct *vma;

	map_thp(t, n);
	mmap_read_lock(t->mm);
	vma = vma_lookup(t->mm, HMM_TEST_BASE);
	split_huge_pmd(vma, hmm_test_pmdp(t, HMM_TEST_BASE), HMM_TEST_BASE);
	mmap_read_unlock(t->mm);
	KUNIT_EXPECT_FALSE(test, hmm_is_thp(t, HMM_TEST_BASE));
	mk_readonly(t, hmm_test_at(33));
	vm_munmap(hmm_test_at(44), PAGE_SIZE);
	hmm_expect_snapshot(t, HMM_TEST_BASE, n, "split");
	for (i = 0; i < n; i++)
		KUNIT_EXPECT_EQ(test, hmm_pfn_to_map_order(t->pfns[i]), 0U);
	KUNIT_EXPECT_EQ(test, hmm_call(t, hmm_test_at(10), 30, REQ_FW), 0);
	KUNIT_EXPECT_EQ(test, t->faults, 1UL);
	hmm_expect_ref(t, hmm_test_at(10), 30, "split and written");
}
#endif /* CONFIG_TRANSPARENT_HUGEPAGE */

#ifdef CONFIG_HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD
static pud_t *hmm_alloc_pud(struct hmm_test *t, unsigned long addr)
{
	p4d_t *p4d = p4d_alloc(t->mm, pgd_offset(t->mm, addr), addr);

	return p4d ? pud_alloc(t->mm, p4d, addr) : NULL;
}

/* @n pages out of the leaf, from its page @idx on */
static void hmm_pud_part(struct hmm_test *t, pud_t pud, unsigned long idx, unsigned long n)
{
	unsigned long entry = hmm_ref_leaf(pud_pfn(pud) + idx, pud_write(pud),
					   PUD_SHIFT - PAGE_SHIFT);
	int col, ret;
	unsigned long i;

	for (col = 0; col < (pud_write(pud) ? 3 : 2); col++) {
		ret = hmm_call(t, hmm_test_at(idx), n, hmm_col_req[col]);
		KUNIT_EXPECT_EQ(t->test, ret, 0);
		KUNIT_EXPECT_EQ(t->test, t->faults, 0UL);
		for (i = 0; i < n; i++)
			KUNIT_EXPECT_EQ(t->test, t->pfns[i], entry + i);
	}
}

static void hmm_pud_leaf(struct hmm_test *t, pud_t pud)
{
	unsigned long n = PUD_SIZE / PAGE_SIZE;
	pud_t *pudp = hmm_alloc_pud(t, HMM_TEST_BASE);

	KUNIT_ASSERT_NOT_NULL(t->test, pudp);
	KUNIT_ASSERT_TRUE(t->test, pud_none(*pudp));
	hmm_mmap(t, HMM_TEST_BASE, n, PROT_READ | PROT_WRITE);
	set_pud(pudp, pud);
	hmm_pud_part(t, pud, 0, 6);
	hmm_pud_part(t, pud, HMM_TEST_NTHP - 3, 6);
	hmm_pud_part(t, pud, 1000, 2 * HMM_TEST_NTHP);
	hmm_pud_part(t, pud, n - 6, 6);
	pud_clear(pudp);
	vm_munmap(HMM_TEST_BASE, PUD_SIZE);
}

static void hmm_test_pud_leaf(struct kunit *test)
{
	/* Never touched: it only has to be aligned. */
	pud_t pud = pfn_pud(PUD_SIZE / PAGE_SIZE * 3, PAGE_SHARED);

	pud = pud_mkdevmap(pud_mkhuge(pud));
	if (!IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) || !has_transparent_pud_hugepage())
		kunit_skip(test, "no huge PUD in this kernel, or on this CPU");
	hmm_pud_leaf(test->priv, pud);
	hmm_pud_leaf(test->priv, pud_wrprotect(pud));
}
#endif

/* ---- hugetlb ---- */

#ifdef CONFIG_HUGETLB_PAGE
static unsigned long hmm_huge_pages(void)
{
	return huge_page_size(&default_hstate) / PAGE_SIZE;
}

/* Two huge pages. */
static unsigned long map_hugetlb(struct hmm_test *t, unsigned long flags)
{
	unsigned long ret;

	default_hstate.nr_overcommit_huge_pages = 8;
	ret = ksys_mmap_pgoff(HMM_TEST_BASE, 2 * huge_page_size(&default_hstate),
			      PROT_READ | PROT_WRITE,
			      flags | MAP_ANONYMOUS | MAP_FIXED | MAP_HUGETLB, -1, 0);
	if (ret != HMM_TEST_BASE)
		kunit_skip(t->test, "no hugetlb pages to be had");
	return ret;
}

/*
 * The walk must leave the lock of the VMA as it found it. If it did not, let go
 * of what it holds, or whatever comes next would wait for ever.
 */
static void hmm_hugetlb_unlocked(struct hmm_test *t)
{
	struct vm_area_struct *vma;
	int held = 0;

	mmap_read_lock(t->mm);
	vma = vma_lookup(t->mm, HMM_TEST_BASE);
	while (!hugetlb_vma_trylock_write(vma) && held++ < 10000)
		hugetlb_vma_unlock_read(vma);
	if (held < 10000)
		hugetlb_vma_unlock_write(vma);
	mmap_read_unlock(t->mm);
	KUNIT_EXPECT_EQ(t->test, held, 0);
}

static void unmap_hugetlb(struct hmm_test *t)
{
	hmm_undo(t);
	hmm_hugetlb_unlocked(t);
	vm_munmap(HMM_TEST_BASE, 2 * huge_page_size(&default_hstate));
}

static pte_t hmm_xchg_huge(struct hmm_test *t, pte_t pte, const pte_t *expect)
{
	unsigned long sz = huge_page_size(&default_hstate);
	pte_t *ptep = huge_pte_offset(t->mm, HMM_TEST_BASE, sz), old;
	spinlock_t *ptl = huge_pte_lock(&default_hstate, t->mm, ptep);

	old = huge_ptep_get(t->mm, HMM_TEST_BASE, ptep);
	if (!expect || pte_same(old, *expect))
		set_huge_pte_at(t->mm, HMM_TEST_BASE, ptep, pte, sz);
	spin_unlock(ptl);
	flush_tlb_mm(t->mm);
	return old;
}

static void hmm_undo_huge(struct hmm_test *t)
{
	hmm_xchg_huge(t, t->inj_old, &t->inj_new);
}

static unsigned long hmm_huge_pfn(struct hmm_test *t)
{
	pte_t none = __pte(~0UL);

	return pte_pfn(hmm_xchg_huge(t, none, &none));
}

static void hmm_inject_huge(struct hmm_test *t, pte_t pte)
{
	t->inj_new = pte;
	t->inj_old = hmm_xchg_huge(t, pte, NULL);
	t->undo = hmm_undo_huge;
}

static void hmm_hugetlb_basic(struct hmm_test *t, unsigned long flags)
{
	unsigned long n = hmm_huge_pages();

	map_hugetlb(t, flags);
	KUNIT_EXPECT_EQ(t->test, hmm_call(t, HMM_TEST_BASE, 2 * n, 0), 0);
	hmm_hugetlb_unlocked(t);
	hmm_expect_ref(t, HMM_TEST_BASE, 2 * n, "empty");
	KUNIT_EXPECT_EQ(t->test, hmm_call(t, hmm_test_at(n - 3), 6, REQ_F), 0);
	KUNIT_EXPECT_EQ(t->test, t->faults, 2UL);
	hmm_expect_ref(t, hmm_test_at(n - 3), 6, "read");
	hmm_expect_flags(t, 2, T_V | T_WMAY, "read");
	KUNIT_EXPECT_EQ(t->test, hmm_call(t, hmm_test_at(2), 2 * n - 5, REQ_FW), 0);
	hmm_expect_ref(t, hmm_test_at(2), 2 * n - 5, "written");
	hmm_expect_flags(t, 0, T_VW, "written");
	hmm_expect_flags(t, 2 * n - 6, T_VW, "written");
	KUNIT_EXPECT_EQ(t->test, hmm_pfn_to_map_order(t->pfns[0]),
			huge_page_order(&default_hstate));
	KUNIT_EXPECT_EQ(t->test, t->pfns[1], t->pfns[0] + 1);
	hmm_expect_snapshot(t, hmm_test_at(n), 1, "first page");
	hmm_expect_snapshot(t, hmm_test_at(n - 1), 1, "last page");
	hmm_expect_snapshot(t, hmm_test_at(2 * n - 1), 3, "and beyond");
	unmap_hugetlb(t);
}

static void hmm_test_hugetlb(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	unsigned long n = hmm_huge_pages(), req[6] = { 0, 0, REQ_FW };

	hmm_hugetlb_basic(t, MAP_PRIVATE);
	hmm_hugetlb_basic(t, MAP_SHARED);
	/* Only the page asked for. */
	map_hugetlb(t, MAP_PRIVATE);
	KUNIT_EXPECT_EQ(test,
			hmm_call_req(t, hmm_test_at(n - 3), 6, 0, REQ_FW, req),
			0);
	KUNIT_EXPECT_EQ(test, t->faults, 1UL);
	KUNIT_EXPECT_EQ(test, t->pfns[2], hmm_ref(t, hmm_test_at(n - 1)));
	KUNIT_EXPECT_EQ(test, t->pfns[3], 0UL);
	KUNIT_EXPECT_EQ(test, hmm_ref(t, hmm_test_at(n)), 0UL);
	unmap_hugetlb(t);
}

static void hmm_test_hugetlb_denied(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	unsigned long n = hmm_huge_pages();

	map_hugetlb(t, MAP_PRIVATE);
	hmm_touch(t, HMM_TEST_BASE, 1, true);
	hmm_protect(t, HMM_TEST_BASE, 2 * n, PROT_READ);
	hmm_expect_snapshot(t, hmm_test_at(n - 2), 4, "read-only VMA");
	hmm_expect_flags(t, 0, T_V, "read-only VMA");
	KUNIT_EXPECT_EQ(test, hmm_call(t, HMM_TEST_BASE, 4, REQ_FW), -EPERM);
	KUNIT_EXPECT_EQ(test, hmm_call(t, hmm_test_at(n), 4, REQ_FW), -EPERM);
	KUNIT_EXPECT_EQ(test, t->faults, 0UL);
	hmm_hugetlb_unlocked(t);
	hmm_protect(t, HMM_TEST_BASE, 2 * n, PROT_NONE);
	hmm_expect_snapshot(t, hmm_test_at(n - 2), 4, "PROT_NONE VMA");
	hmm_expect_flags(t, 0, T_E, "PROT_NONE VMA");
	KUNIT_EXPECT_EQ(test, hmm_call(t, HMM_TEST_BASE, 4, REQ_F), -EFAULT);
	KUNIT_EXPECT_EQ(test, t->faults, 0UL);
	unmap_hugetlb(t);
}

/* The states in which a huge entry is not present, and the read-only one. */
static void hmm_test_hugetlb_states(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	unsigned long pfn, col;
	pte_t pte;

	map_hugetlb(t, MAP_PRIVATE);
	hmm_touch(t, HMM_TEST_BASE, 1, true);
	pfn = hmm_huge_pfn(t);
	pte = swp_entry_to_pte(IS_ENABLED(CONFIG_MEMORY_FAILURE) ?
			       make_hwpoison_entry(hmm_lock_pfn(t, pfn)) :
			       make_poisoned_swp_entry());
	hmm_inject_huge(t, pte);
	for (col = 0; col < 3; col++)
		KUNIT_EXPECT_EQ(test, hmm_call(t, hmm_test_at(4), 4, hmm_col_req[col]),
				col ? -EFAULT : 0);
	hmm_expect_snapshot(t, hmm_test_at(4), 4, "hwpoison");
	hmm_hugetlb_unlocked(t);
	hmm_undo(t);
	hmm_inject_huge(t, huge_pte_wrprotect(hmm_xchg_huge(t, pte, &pte)));
	KUNIT_EXPECT_EQ(test, hmm_call(t, hmm_test_at(4), 4, REQ_F), 0);
	KUNIT_EXPECT_EQ(test, t->faults, 0UL);
	hmm_expect_flags(t, 3, T_V, "read-only");
	KUNIT_EXPECT_EQ(test, hmm_call(t, hmm_test_at(4), 4, REQ_FW), 0);
	KUNIT_EXPECT_EQ(test, t->faults, 1UL);
	hmm_expect_flags(t, 3, T_VW, "written");
	unmap_hugetlb(t);
}

static void hmm_test_hugetlb_migration(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	unsigned long pfn, flags;
	swp_entry_t entry;

	for (flags = MAP_SHARED; flags <= MAP_PRIVATE; flags++) {
		map_hugetlb(t, flags);
		hmm_touch(t, HMM_TEST_BASE, 1, true);
		pfn = hmm_huge_pfn(t);
		hmm_lock_pfn(t, pfn);
		entry = make_writable_migration_entry(pfn);
		hmm_inject_huge(t, swp_entry_to_pte(entry));
		hmm_wait_for_migration(t, hmm_test_at(9), 5, REQ_FW);
		unmap_hugetlb(t);
	}
}
#endif /* CONFIG_HUGETLB_PAGE */

/* ---- random layouts against the reference ---- */

#define HMM_RND_PAGES 96UL

struct hmm_rnd {
	struct rnd_state rnd;
	unsigned long base;
	unsigned long poison;	/* address of a poison marker, or 0 */
	unsigned long before[HMM_RND_PAGES], req[HMM_RND_PAGES];
	/* prediction */
	bool need[HMM_RND_PAGES];
	unsigned long nr_need, stop;
	int ret;
};

static u32 hmm_rnd(struct hmm_rnd *r, u32 below)
{
	return prandom_u32_state(&r->rnd) % below;
}

/* What a stretch of pages is: how it is mapped, and how it is protected then. */
static const struct {
	bool file;
	unsigned long flags;
	vm_flags_t vm_flags;
	bool protect;
	unsigned long prot;
} hmm_rnd_kinds[] = {
	{ false },
	{ false },
	{ false, .protect = true, .prot = PROT_READ },
	{ false, .protect = true, .prot = PROT_NONE },
	{ true, MAP_SHARED },
	{ true, MAP_PRIVATE },
	{ true, MAP_SHARED, VM_IO },
	{ true, MAP_SHARED, VM_MIXEDMAP },
	{ true, MAP_SHARED, .protect = true, .prot = PROT_READ },
	{ true, MAP_PRIVATE, .protect = true, .prot = PROT_WRITE },
};

static void hmm_rnd_populate(struct hmm_test *t, struct hmm_rnd *r,
			     unsigned long addr, int kind)
{
	switch (hmm_rnd(r, 8)) {
	case 0 ... 2:
		hmm_touch(t, addr, 1, true);
		break;
	case 3 ... 4:
		hmm_touch(t, addr, 1, false);
		break;
	case 5:
		if (!hmm_rnd_kinds[kind].file && hmm_dev_on())
			hmm_dev_map(t, addr, true);
		else if (hmm_rnd_kinds[kind].vm_flags & VM_MIXEDMAP)
			hmm_xchg_pte(t, addr,
				     pte_mkspecial(pfn_pte(hmm_bare_pfn(),
							   PAGE_SHARED)),
				     NULL);
		break;
	}
}

static void hmm_rnd_stretch(struct hmm_test *t, struct hmm_rnd *r, unsigned long addr,
			    unsigned long n)
{
	int kind = hmm_rnd(r, ARRAY_SIZE(hmm_rnd_kinds) + 1);
	unsigned long i;

	if (kind == ARRAY_SIZE(hmm_rnd_kinds))
		return;
	t->vm_flags = hmm_rnd_kinds[kind].vm_flags;
	if (hmm_rnd_kinds[kind].file)
		hmm_mmap_file(t, addr, n, hmm_rnd_kinds[kind].flags);
	else
		hmm_mmap(t, addr, n, PROT_READ | PROT_WRITE);
	for (i = 0; i < n; i++)
		hmm_rnd_populate(t, r, addr + i * PAGE_SIZE, kind);
	if (hmm_rnd_kinds[kind].protect)
		hmm_protect(t, addr, n, hmm_rnd_kinds[kind].prot);
}

static bool hmm_rnd_writable(struct hmm_test *t, unsigned long addr)
{
	struct vm_area_struct *vma;
	bool ret;

	mmap_read_lock(t->mm);
	vma = vma_lookup(t->mm, addr);
	ret = vma && (vma->vm_flags & VM_WRITE);
	mmap_read_unlock(t->mm);
	return ret;
}

static void hmm_rnd_layout(struct hmm_test *t, struct hmm_rnd *r)
{
	unsigned long pos, n, addr;

	for (pos = 0; pos < HMM_RND_PAGES; pos += n) {
		n = min(1UL + hmm_rnd(r, 12), HMM_RND_PAGES - pos);
		hmm_rnd_stretch(t, r, r->base + pos * PAGE_SIZE, n);
	}
	r->poison = 0;
	addr = r->base + hmm_rnd(r, HMM_RND_PAGES) * PAGE_SIZE;
	if (hmm_rnd(r, 4) || !hmm_rnd_writable(t, addr) || hmm_ref(t, addr))
		return;
	/* Something not present but not empty either is not ours to replace. */
	if (!pte_none(hmm_get_pte(t, addr)))
		return;
	mk_poison_marker(t, addr);
	r->poison = addr;
}

static void hmm_rnd_requests(struct hmm_test *t, struct hmm_rnd *r)
{
	static const unsigned long bits[] = { 0, REQ_F, REQ_FW, REQ_W };
	u32 shy = hmm_rnd(r, 12);
	unsigned long i;

	t->owner = hmm_rnd(r, 2) ? hmm_dev_owner() : NULL;
	for (i = 0; i < HMM_RND_PAGES; i++) {
		r->before[i] = hmm_ref(t, r->base + i * PAGE_SIZE);
		r->req[i] = bits[hmm_rnd(r, 4)];
		/* Else hardly a call would succeed. */
		if ((r->before[i] & T_E) && shy)
			r->req[i] = 0;
		if (shy && !hmm_rnd_writable(t, r->base + i * PAGE_SIZE))
			r->req[i] &= ~REQ_W;
	}
}

/* 0: satisfied, 1: needs a fault, else the error */
static int hmm_rnd_need(struct hmm_test *t, struct hmm_rnd *r, unsigned long i,
			unsigned long req)
{
	unsigned long addr = r->base + i * PAGE_SIZE, entry = r->before[i];

	if (!(req & REQ_F))
		return 0;
	if ((entry & T_E) || addr == r->poison)
		return -EFAULT;
	if ((entry & T_V) && !(req & REQ_W & ~entry))
		return 0;
	return (req & REQ_W) && !hmm_rnd_writable(t, addr) ? -EPERM : 1;
}

static void hmm_rnd_predict(struct hmm_test *t, struct hmm_rnd *r, unsigned long first,
			    unsigned long n, unsigned long def, unsigned long mask)
{
	unsigned long i;

	memset(r->need, 0, sizeof(r->need));
	r->nr_need = 0;
	r->ret = 0;
	for (i = first; i < first + n && r->ret >= 0; i++) {
		r->ret = hmm_rnd_need(t, r, i, (r->req[i] & mask) | def);
		r->need[i] = r->ret > 0;
		r->nr_need += r->need[i];
	}
	r->stop = i;
	r->ret = min(r->ret, 0);
}

static void hmm_rnd_check(struct hmm_test *t, struct hmm_rnd *r, int ret,
			  const char *what)
{
	unsigned long i;

	KUNIT_EXPECT_EQ_MSG(t->test, ret, r->ret, "%s", what);
	if (ret)
		KUNIT_EXPECT_LE_MSG(t->test, t->faults, r->nr_need, "%s", what);
	else
		KUNIT_EXPECT_EQ_MSG(t->test, t->faults, r->nr_need, "%s", what);
	/* Nobody else's page was touched. */
	for (i = 0; i < HMM_RND_PAGES; i++)
		if (!r->need[i])
			KUNIT_EXPECT_EQ_MSG(t->test, r->before[i],
					    hmm_ref(t, r->base + i * PAGE_SIZE),
					    "%s: page %lu", what, i);
}

static void hmm_rnd_round(struct hmm_test *t, struct hmm_rnd *r, int round)
{
	static const unsigned long defs[] = { 0, 0, REQ_F, REQ_FW, REQ_W };
	static const unsigned long masks[] = { 0, REQ_FW, REQ_FW, ~0UL, REQ_F };
	unsigned long first = hmm_rnd(r, HMM_RND_PAGES), n, i;
	unsigned long def = defs[hmm_rnd(r, 5)], mask = masks[hmm_rnd(r, 5)];
	char what[64];
	int ret;

	n = 1 + hmm_rnd(r, min(HMM_RND_PAGES - first, 1UL << hmm_rnd(r, 8)));
	snprintf(what, sizeof(what), "round %d, %lu+%lu, def %lx, mask %lx",
		 round, first, n, def, mask);
	hmm_rnd_requests(t, r);
	hmm_rnd_predict(t, r, first, n, def, mask);
	ret = hmm_call_req(t, r->base + first * PAGE_SIZE, n, def, mask,
			   r->req + first);
	hmm_rnd_check(t, r, ret, what);
	if (ret)
		return;
	hmm_expect_ref(t, r->base + first * PAGE_SIZE, n, what);
	for (i = 0; i < n; i++)
		if (((r->req[first + i] & mask) | def) & REQ_F)
			KUNIT_EXPECT_EQ_MSG(t->test, t->pfns[i] & (T_E | T_V), T_V,
					    "%s: page %lu", what, i);
}

static void hmm_test_random(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	struct hmm_rnd *r = kunit_kzalloc(test, sizeof(*r), GFP_KERNEL);
	int layout, round;

	KUNIT_ASSERT_NOT_NULL(test, r);
	prandom_seed_state(&r->rnd, 20241117);
	/* Half on each side of the end of a table. */
	r->base = HMM_TEST_BASE + PMD_SIZE - HMM_RND_PAGES / 2 * PAGE_SIZE;
	for (layout = 0; layout < 40 && test->status == KUNIT_SUCCESS; layout++) {
		hmm_rnd_layout(t, r);
		for (round = 0; round < 12; round++)
			hmm_rnd_round(t, r, layout * 100 + round);
		hmm_undo(t);
		vm_munmap(r->base, HMM_RND_PAGES * PAGE_SIZE);
	}
}

/* ---- a mirror, while somebody else tears at the page tables ---- */

#define HMM_RACE_PAGES 24UL

static int hmm_churn(void *data)
{
	struct hmm_test *t = data;
	struct rnd_state rnd;

	prandom_seed_state(&rnd, 7);
	while (!kthread_should_stop()) {
		unsigned long n = 1 + prandom_u32_state(&rnd) % HMM_RACE_PAGES;
		unsigned long idx = prandom_u32_state(&rnd) % (HMM_RACE_PAGES - n + 1);

		if (prandom_u32_state(&rnd) % 4)
			hmm_touch(t, hmm_test_at(idx), n, prandom_u32_state(&rnd) % 2);
		else
			do_madvise(t->mm, hmm_test_at(idx), n * PAGE_SIZE,
				   MADV_DONTNEED);
		cond_resched();
	}
	return 0;
}

/* The entry at @addr; takes no sleeping lock. */
static pte_t hmm_peek(struct hmm_test *t, unsigned long addr)
{
	pmd_t *pmdp = hmm_test_pmdp(t, addr);
	spinlock_t *ptl; /* of the table */
	pte_t *ptep, pte;

	ptep = pmdp && !pmd_none(*pmdp) ?
		       pte_offset_map_lock(t->mm, pmdp, addr, &ptl) :
		       NULL;
	if (!ptep)
		return __pte(0);
	pte = ptep_get(ptep);
	pte_unmap_unlock(ptep, ptl);
	return pte;
}

/* Under the driver lock and without a collision, what we hold is what the CPU has. */
static void hmm_race_compare(struct hmm_test *t)
{
	unsigned long i;

	for (i = 0; i < HMM_RACE_PAGES; i++) {
		pte_t pte = hmm_peek(t, hmm_test_at(i));
		unsigned long entry = t->pfns[i];

		if (!(entry & T_V))
			continue;
		KUNIT_EXPECT_TRUE(t->test, pte_present(pte));
		KUNIT_EXPECT_EQ(t->test, entry & ~HMM_PFN_FLAGS, pte_pfn(pte));
		if (entry & REQ_W)
			KUNIT_EXPECT_TRUE(t->test, pte_write(pte));
	}
}

static void hmm_race_once(struct hmm_test *t, unsigned long def, unsigned long *good)
{
	struct hmm_range range = hmm_test_range(t, HMM_TEST_BASE, HMM_RACE_PAGES, def);
	int ret;

	hmm_fill(t, HMM_RACE_PAGES, NULL);
	ret = hmm_once(t, &range);
	if (ret) {
		KUNIT_EXPECT_EQ(t->test, ret, -EBUSY);
		return;
	}
	mutex_lock(&t->lock);
	if (!mmu_interval_read_retry(&t->ni, range.notifier_seq)) {
		hmm_race_compare(t);
		++*good;
	}
	mutex_unlock(&t->lock);
}

static void hmm_test_race(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	unsigned long stop = jiffies + HZ / 2, good = 0, n = 0;
	struct task_struct *churn;

	hmm_mmap(t, HMM_TEST_BASE, HMM_RACE_PAGES, PROT_READ | PROT_WRITE);
	churn = kthread_run(hmm_churn, t, "hmm_kunit_churn");
	KUNIT_ASSERT_FALSE(test, IS_ERR(churn));
	while (time_before(jiffies, stop) && test->status == KUNIT_SUCCESS) {
		hmm_race_once(t, hmm_col_req[n++ % 3], &good);
		if (!(n % 16))
			usleep_range(50, 100);
		cond_resched();
	}
	kthread_stop(churn);
	KUNIT_EXPECT_GT(test, good, 0UL);
	KUNIT_EXPECT_GT(test, t->nr_inval, 0UL);
}

/* ---- outputs ---- */

/*
 * Sixteen pages of every kind an output tells apart: three of the test file
 * written, one only read, two not there; two outside of any VMA; four of a
 * mapping without pages; two of anonymous memory; and two of the file again.
 */
#define HMM_MIX_PAGES	16UL

static void hmm_mix(struct hmm_test *t)
{
	hmm_mmap_file(t, hmm_test_at(0), 6, MAP_SHARED);
	hmm_touch(t, hmm_test_at(0), 3, true);
	hmm_touch(t, hmm_test_at(3), 1, false);
	t->vm_flags = VM_PFNMAP;
	hmm_mmap_file(t, hmm_test_at(8), 4, MAP_SHARED);
	t->vm_flags = 0;
	hmm_mmap(t, hmm_test_at(12), 2, PROT_READ | PROT_WRITE);
	hmm_touch(t, hmm_test_at(12), 2, true);
	hmm_mmap_file(t, hmm_test_at(14), 2, MAP_SHARED);
	hmm_touch(t, hmm_test_at(14), 2, true);
}

/* The same kinds as flags of extents, from the entry and from the VMA */
static unsigned int hmm_mix_flags(unsigned long i, unsigned long entry)
{
	if (entry & T_E)
		return HMM_EXTENT_ERROR |
		       (i >= 8 && i < 12 ? HMM_EXTENT_SPECIAL : 0);
	return (entry & T_V ? HMM_EXTENT_VALID : 0) |
	       (entry & REQ_W ? HMM_EXTENT_WRITE : 0);
}

static void hmm_test_output_arguments(struct kunit *test)
{
	static const struct hmm_encoding good = {
		.valid = 1, .write = 2, .error = 4, .pfn_shift = 12,
	};
	static const struct {
		struct hmm_encoding enc;
		bool extents, encoded;
		unsigned int flags;
		unsigned long mask;
	} bad[] = {
		{ .flags = BIT(3) },
		{ .flags = ~0U },
		{ .extents = true, .flags = HMM_RANGE_KEEP_FLAGS },
		{ .extents = true, .flags = HMM_RANGE_FOLIO_ORDER },
		{ .extents = true, .mask = REQ_F },
		{ .extents = true, .encoded = true, .enc = good },
		{ .encoded = true, .enc = good, .flags = HMM_RANGE_KEEP_FLAGS },
		{ .encoded = true, .enc = { .write = 2 } },
		{ .encoded = true, .enc = { .valid = 1, .write = 3 } },
		{ .encoded = true, .enc = { .valid = 1, .empty = 1 } },
		{ .encoded = true, .enc = { .valid = 1, .error = 4, .special = 4 } },
		{ .encoded = true, .enc = { .valid = 1, .pfn_shift = 64 } },
	};
	struct hmm_test *t = test->priv;
	struct hmm_range range;
	int i;

	hmm_mix(t);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		range = hmm_test_range(t, HMM_TEST_BASE, 1, REQ_F);
		range.flags = bad[i].flags;
		range.pfn_flags_mask = bad[i].mask;
		range.encoding = bad[i].encoded ? &bad[i].enc : NULL;
		range.max_extents = bad[i].extents;
		range.populated = 7;
		hmm_fill(t, 8, NULL);
		KUNIT_EXPECT_EQ_MSG(test, hmm_once(t, &range), -EINVAL, "%d", i);
		KUNIT_EXPECT_EQ_MSG(test, t->pfns[0], HMM_TEST_POISON, "%d", i);
		KUNIT_EXPECT_EQ_MSG(test, range.populated, 0UL, "%d", i);
	}
	range = hmm_test_range(t, HMM_TEST_BASE, 1, REQ_F);
	range.encoding = &good;
	KUNIT_EXPECT_EQ(test, hmm_once(t, &range), 0);
	KUNIT_EXPECT_EQ(test, range.populated, 1UL);
}

/* Extents in calls of at most @max, checked page by page against the array */
static unsigned long hmm_mix_extents(struct hmm_test *t, const unsigned long *want,
				     unsigned long max)
{
	struct hmm_extent ext[HMM_MIX_PAGES + 1];
	unsigned long page = 0, total = 0, i, k;
	struct hmm_range range;
	unsigned int flags;

	while (page < HMM_MIX_PAGES && t->test->status == KUNIT_SUCCESS) {
		range = hmm_test_range(t, hmm_test_at(page), HMM_MIX_PAGES - page, 0);
		range.extents = ext;
		range.max_extents = max;
		ext[max].start = HMM_TEST_CANARY;
		KUNIT_EXPECT_EQ(t->test, hmm_once(t, &range), 0);
		KUNIT_EXPECT_EQ(t->test, ext[max].start, HMM_TEST_CANARY);
		KUNIT_ASSERT_GT(t->test, range.nr_extents, 0UL);
		KUNIT_ASSERT_LE(t->test, range.nr_extents, max);
		for (i = 0, k = page; i < range.nr_extents; k += ext[i++].npages) {
			KUNIT_EXPECT_EQ(t->test, ext[i].start, hmm_test_at(k));
			flags = hmm_mix_flags(k, want[k]);
			KUNIT_EXPECT_EQ_MSG(t->test, ext[i].flags, flags, "%lu", k);
			KUNIT_EXPECT_EQ_MSG(t->test, ext[i].pfn,
					    want[k] & ~HMM_PFN_FLAGS, "%lu", k);
		}
		KUNIT_EXPECT_EQ(t->test, k - page, range.populated);
		total += range.nr_extents;
		page = k;
	}
	KUNIT_EXPECT_EQ(t->test, page, HMM_MIX_PAGES);
	return total;
}

static void hmm_test_extents(struct kunit *test)
{
	unsigned long want[HMM_MIX_PAGES], max;
	struct hmm_test *t = test->priv;
	unsigned long n;

	hmm_mix(t);
	KUNIT_EXPECT_EQ(test, hmm_call(t, HMM_TEST_BASE, HMM_MIX_PAGES, 0), 0);
	memcpy(want, t->pfns, sizeof(want));
	n = hmm_mix_extents(t, want, HMM_MIX_PAGES);
	/* 0-2, 3, 4-5, 6-7, 8-11, 12(-13), 14-15 */
	KUNIT_EXPECT_EQ(test, n, want[13] == want[12] + 1 ? 7UL : 8UL);
	for (max = 1; max <= n; max++)
		KUNIT_EXPECT_EQ_MSG(test, hmm_mix_extents(t, want, max), n, "%lu", max);
}

/* An error behind what is there: how far it came is told all the same */
static void hmm_test_populated(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	struct hmm_extent ext[4];
	struct hmm_range range;

	hmm_mix(t);
	range = hmm_test_range(t, HMM_TEST_BASE, HMM_MIX_PAGES, REQ_F);
	KUNIT_EXPECT_EQ(test, hmm_once(t, &range), -EFAULT);
	KUNIT_EXPECT_EQ(test, range.populated, 6UL);
	range = hmm_test_range(t, HMM_TEST_BASE, HMM_MIX_PAGES, REQ_FW);
	range.extents = ext;
	range.max_extents = ARRAY_SIZE(ext);
	KUNIT_EXPECT_EQ(test, hmm_once(t, &range), -EFAULT);
	KUNIT_EXPECT_EQ(test, range.populated, 6UL);
	KUNIT_EXPECT_EQ(test, range.nr_extents, 1UL);
	KUNIT_EXPECT_EQ(test, ext[0].npages, 6UL);
}

static const struct hmm_encoding hmm_test_enc = {
	.valid = BIT_ULL(0),
	.write = BIT_ULL(5),
	.error = BIT_ULL(62),
	.special = BIT_ULL(63),
	.device_private = BIT_ULL(9),
	.empty = BIT_ULL(10),
	.pfn_shift = 12,
};

static u64 hmm_mix_encoded(unsigned long i, unsigned long entry)
{
	unsigned int flags = hmm_mix_flags(i, entry);

	if (flags & HMM_EXTENT_VALID)
		return hmm_encode(&hmm_test_enc, entry & ~HMM_PFN_FLAGS,
				  flags & HMM_EXTENT_WRITE);
	return hmm_test_enc.empty |
	       (flags & HMM_EXTENT_ERROR ? hmm_test_enc.error : 0) |
	       (flags & HMM_EXTENT_SPECIAL ? hmm_test_enc.special : 0);
}

static void hmm_test_encoded(struct kunit *test)
{
	unsigned long want[HMM_MIX_PAGES], i;
	struct hmm_test *t = test->priv;
	struct hmm_range range;
	u64 entry;

	hmm_mix(t);
	KUNIT_EXPECT_EQ(test, hmm_call(t, HMM_TEST_BASE, HMM_MIX_PAGES, 0), 0);
	memcpy(want, t->pfns, sizeof(want));
	range = hmm_test_range(t, HMM_TEST_BASE, HMM_MIX_PAGES, 0);
	range.encoding = &hmm_test_enc;
	KUNIT_EXPECT_EQ(test, hmm_once(t, &range), 0);
	for (i = 0; i < HMM_MIX_PAGES; i++) {
		entry = range.entries[i];
		KUNIT_EXPECT_EQ_MSG(test, entry, hmm_mix_encoded(i, want[i]), "%lu", i);
		if (want[i] & T_V)
			KUNIT_EXPECT_EQ(test, hmm_encoded_pfn(&hmm_test_enc, entry),
					want[i] & ~HMM_PFN_FLAGS);
	}
}

/* Requests of single pages, as the driver writes them */
static void hmm_test_encoded_requests(struct kunit *test)
{
	static const unsigned long ask[8] = {
		0, REQ_F, REQ_W, REQ_FW, 0, REQ_FW, REQ_F, 0,
	};
	struct hmm_test *t = test->priv;
	struct hmm_range range;
	unsigned long i;

	hmm_mmap_file(t, HMM_TEST_BASE, 8, MAP_SHARED);
	range = hmm_test_range(t, HMM_TEST_BASE, 8, 0);
	range.encoding = &hmm_test_enc;
	range.pfn_flags_mask = REQ_FW;
	for (i = 0; i < 8; i++)
		range.entries[i] = hmm_encode_request(&hmm_test_enc, ask[i]);
	t->nr_fault = 0;
	KUNIT_EXPECT_EQ(test, hmm_once(t, &range), 0);
	KUNIT_EXPECT_EQ(test, t->nr_fault, 4UL);
	for (i = 0; i < 8; i++) {
		KUNIT_EXPECT_EQ_MSG(test, (u64)!!(ask[i] & REQ_F),
				    range.entries[i] & hmm_test_enc.valid, "%lu", i);
		KUNIT_EXPECT_EQ_MSG(test, !!(t->asked[i] & 2), ask[i] == REQ_FW, "%lu", i);
	}
	/* What the mask does not let through is no request */
	vm_munmap(HMM_TEST_BASE, 8 * PAGE_SIZE);
	hmm_mmap_file(t, HMM_TEST_BASE, 8, MAP_SHARED);
	range.pfn_flags_mask = REQ_W;
	for (i = 0; i < 8; i++)
		range.entries[i] = hmm_encode_request(&hmm_test_enc, ask[i]);
	range.notifier_seq = mmu_interval_read_begin(&t->ni);
	t->nr_fault = 0;
	KUNIT_EXPECT_EQ(test, hmm_once(t, &range), 0);
	KUNIT_EXPECT_EQ(test, t->nr_fault, 0UL);
}

/* Pages 1 and 3 of six device pages are asked home, in either form of array */
static void hmm_sysmem(struct hmm_test *t, const struct hmm_encoding *enc)
{
	unsigned long pfn, before, i;
	struct hmm_range range;

	hmm_mmap(t, HMM_TEST_BASE, 6, PROT_READ | PROT_WRITE);
	pfn = hmm_dev_map(t, hmm_test_at(0), true);
	for (i = 1; i < 6; i++)
		hmm_dev_map(t, hmm_test_at(i), i % 2);
	before = hmm_dev_nr_to_ram();
	range = hmm_test_range(t, HMM_TEST_BASE, 6, 0);
	range.encoding = enc;
	range.pfn_flags_mask = REQ_FW | HMM_PFN_REQ_SYSMEM;
	for (i = 0; i < 6; i++) {
		unsigned long ask = REQ_F | (i == 1 || i == 3 ? HMM_PFN_REQ_SYSMEM : 0);

		if (i == 5)
			ask = HMM_PFN_REQ_SYSMEM;
		if (enc)
			range.entries[i] = hmm_encode_request(enc, ask);
		else
			range.hmm_pfns[i] = ask;
	}
	KUNIT_EXPECT_EQ(t->test, hmm_once(t, &range), 0);
	KUNIT_EXPECT_EQ(t->test, hmm_dev_nr_to_ram() - before, 2UL);
	for (i = 0; i < 6; i++) {
		bool home = i == 1 || i == 3;
		unsigned long got = enc ? hmm_encoded_pfn(enc, range.entries[i]) :
					  range.hmm_pfns[i] & ~HMM_PFN_FLAGS;

		KUNIT_EXPECT_EQ_MSG(t->test, got == pfn + i, !home, "%lu", i);
		if (enc)
			KUNIT_EXPECT_EQ_MSG(t->test, !home,
					    !!(range.entries[i] & enc->device_private),
					    "%lu", i);
	}
	/* And all of them, by default */
	range = hmm_test_range(t, HMM_TEST_BASE, 6, REQ_F | HMM_PFN_REQ_SYSMEM);
	range.encoding = enc;
	KUNIT_EXPECT_EQ(t->test, hmm_once(t, &range), 0);
	KUNIT_EXPECT_EQ(t->test, hmm_dev_nr_to_ram() - before, 6UL);
	vm_munmap(HMM_TEST_BASE, 6 * PAGE_SIZE);
}

static void hmm_test_sysmem(struct kunit *test)
{
	struct hmm_test *t = test->priv;

	if (!hmm_dev_on())
		kunit_skip(test, "no device-private memory");
	t->owner = hmm_dev_owner();
	hmm_sysmem(t, NULL);
	hmm_sysmem(t, &hmm_test_enc);
}

static vm_fault_t hmm_clear_kept(struct hmm_test *t, struct vm_fault *vmf)
{
	if (vmf->pgoff == 5) {
		t->pfns[2] &= ~HMM_PFN_INOUT_FLAGS;
		t->pfns[9] &= ~HMM_PFN_INOUT_FLAGS;
	}
	return 0;
}

/* Flags of entries are kept, those that are taken away meanwhile are not */
static void hmm_test_keep_flags(struct kunit *test)
{
	const unsigned long keep = HMM_PFN_DMA_MAPPED | HMM_PFN_P2PDMA_BUS;
	struct hmm_test *t = test->priv;
	struct hmm_range range;
	unsigned long i, want;

	if (!keep)
		kunit_skip(test, "entries have no such flags on 32-bit");
	hmm_mmap_file(t, HMM_TEST_BASE, 12, MAP_SHARED);
	hmm_touch(t, HMM_TEST_BASE, 4, true);
	for (i = 0; i < 12; i++)
		t->pfns[i] = i % 4 == 3 ? 0 : keep;
	t->on_fault = hmm_clear_kept;
	range = hmm_test_range(t, HMM_TEST_BASE, 12, REQ_F);
	range.flags = HMM_RANGE_KEEP_FLAGS;
	KUNIT_EXPECT_EQ(test, hmm_once(t, &range), 0);
	for (i = 0; i < 12; i++) {
		want = hmm_ref(t, hmm_test_at(i));
		if (i % 4 != 3 && i != 2 && i != 9)
			want |= keep;
		KUNIT_EXPECT_EQ_MSG(test, t->pfns[i], want, "%lu", i);
	}
	range = hmm_test_range(t, HMM_TEST_BASE, 12, REQ_F);
	KUNIT_EXPECT_EQ(test, hmm_once(t, &range), 0);
	hmm_expect_ref(t, HMM_TEST_BASE, 12, "not kept");
}

#ifdef CONFIG_TRANSPARENT_HUGEPAGE
/* Pages @from to @to as extents, held against the array of all of them */
static void hmm_thp_extents(struct hmm_test *t, const unsigned long *want,
			    unsigned long from, unsigned long to, unsigned long least)
{
	struct hmm_range range = hmm_test_range(t, hmm_test_at(from), to - from, 0);
	unsigned long i, k, page = from;
	struct hmm_extent ext[8];

	range.extents = ext;
	range.max_extents = ARRAY_SIZE(ext);
	KUNIT_ASSERT_EQ(t->test, hmm_once(t, &range), 0);
	/* As many as follow each other in memory are one */
	KUNIT_EXPECT_GE(t->test, range.nr_extents, least);
	for (i = 0; i < range.nr_extents; i++) {
		KUNIT_EXPECT_EQ(t->test, ext[i].start, hmm_test_at(page));
		for (k = 0; k < ext[i].npages && page < to; k++, page++) {
			KUNIT_EXPECT_EQ_MSG(t->test, ext[i].pfn + k,
					    want[page] & ~HMM_PFN_FLAGS, "%lu", page);
			KUNIT_EXPECT_EQ_MSG(t->test, ext[i].flags,
					    hmm_mix_flags(0, want[page]), "%lu", page);
		}
		KUNIT_ASSERT_EQ(t->test, k, ext[i].npages);
	}
	KUNIT_EXPECT_EQ(t->test, page, to);
}

/* Whole huge pages are taken by their entries; the third can only be read */
static void hmm_test_thp_extents(struct kunit *test)
{
	unsigned long h = HMM_TEST_NTHP, *want;
	struct hmm_test *t = test->priv;

	map_thp(t, 4 * h);
	mk_thp_readonly(t, hmm_test_at(2 * h));
	want = kunit_kmalloc_array(test, 4 * h, sizeof(*want), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, want);
	KUNIT_EXPECT_EQ(test, hmm_call(t, HMM_TEST_BASE, 4 * h, 0), 0);
	memcpy(want, t->pfns, 4 * h * sizeof(*want));
	hmm_thp_extents(t, want, 0, 4 * h, 3);
	hmm_thp_extents(t, want, 1, 4 * h - 1, 3);
	hmm_thp_extents(t, want, h, 2 * h, 1);
	hmm_thp_extents(t, want, 2 * h - 1, 3 * h + 1, 3);
}

/* The largest aligned block of alike pages around page @i that is inside */
static unsigned int hmm_ref_order(struct hmm_test *t, unsigned long first,
				  unsigned long n, unsigned long i)
{
	unsigned int order = 0, try;
	unsigned long base, k;

	for (try = 1; try <= HPAGE_PMD_ORDER; try++) {
		base = (first + i) & ~((1UL << try) - 1);
		if (base < first || base + (1UL << try) > first + n)
			break;
		for (k = 0; k < 1UL << try; k++)
			if (hmm_ref(t, hmm_test_at(base + k)) !=
			    hmm_ref(t, hmm_test_at(base)) + k)
				return order;
		order = try;
	}
	return order;
}

static void hmm_expect_orders(struct hmm_test *t, unsigned long first,
			      unsigned long n, unsigned long step)
{
	struct hmm_range range = hmm_test_range(t, hmm_test_at(first), n, 0);
	unsigned long i, want;

	range.flags = HMM_RANGE_FOLIO_ORDER;
	KUNIT_EXPECT_EQ(t->test, hmm_once(t, &range), 0);
	for (i = 0; i < n; i += step) {
		want = hmm_ref(t, hmm_test_at(first + i)) |
		       (unsigned long)hmm_ref_order(t, first, n, i) <<
		       HMM_PFN_ORDER_SHIFT;
		KUNIT_EXPECT_EQ_MSG(t->test, t->pfns[i], want, "%lu of %lu", i, n);
	}
}

/* A large folio in a table of PTEs, with changes in the middle of it */
static void hmm_test_folio_order(struct kunit *test)
{
	unsigned long n = HMM_TEST_NTHP;
	struct hmm_test *t = test->priv;
	struct vm_area_struct *vma;
	struct hmm_range range;
	pte_t pte;

	map_thp(t, n);
	mmap_read_lock(t->mm);
	vma = vma_lookup(t->mm, HMM_TEST_BASE);
	split_huge_pmd(vma, hmm_test_pmdp(t, HMM_TEST_BASE), HMM_TEST_BASE);
	mmap_read_unlock(t->mm);
	hmm_expect_orders(t, 0, n, 61);
	KUNIT_EXPECT_EQ(test, hmm_pfn_to_map_order(t->pfns[0]), HPAGE_PMD_ORDER);
	hmm_expect_orders(t, 3, n - 40, 37);
	mk_readonly(t, hmm_test_at(33));
	vm_munmap(hmm_test_at(44), PAGE_SIZE);
	hmm_expect_orders(t, 0, 128, 1);
	hmm_expect_orders(t, 31, 40, 1);
	hmm_expect_orders(t, 64, n - 64, 53);
	/* Dirty or not is no matter of permission */
	pte = hmm_get_pte(t, hmm_test_at(100));
	hmm_xchg_pte(t, hmm_test_at(100), pte_mkclean(pte), NULL);
	hmm_expect_orders(t, 64, n - 64, 11);
	hmm_xchg_pte(t, hmm_test_at(100), pte, NULL);
	/* Small pages have none, however they follow one another */
	hmm_mmap_file(t, hmm_test_at(n), 16, MAP_SHARED);
	hmm_touch(t, hmm_test_at(n), 16, true);
	range = hmm_test_range(t, hmm_test_at(n), 16, 0);
	range.flags = HMM_RANGE_FOLIO_ORDER;
	KUNIT_EXPECT_EQ(test, hmm_once(t, &range), 0);
	hmm_expect_ref(t, hmm_test_at(n), 16, "small pages");
}
#endif

/* ---- without a lock to hold ---- */

static int hmm_unlocked(struct hmm_test *t, struct hmm_range *range,
			unsigned long timeout)
{
	int users = atomic_read(&t->mm->mm_users), ret;

	t->caller = current;
	mod_timer(&t->watchdog, jiffies + HMM_TEST_TIMEOUT);
	ret = hmm_range_fault_unlocked_timeout(range, timeout);
	timer_delete_sync(&t->watchdog);
	if (t->bitten) {
		flush_signals(current);
		KUNIT_FAIL(t->test, "had to be killed, ret %d", ret);
	}
	KUNIT_EXPECT_FALSE(t->test, rwsem_is_locked(&t->mm->mmap_lock));
	KUNIT_EXPECT_EQ(t->test, atomic_read(&t->mm->mm_users), users);
	return ret;
}

static void hmm_unlocked_ok(struct hmm_test *t, unsigned long n,
			    unsigned long def, const char *what)
{
	struct hmm_range range = hmm_test_range(t, HMM_TEST_BASE, n, def);

	range.notifier_seq = 1;
	hmm_fill(t, n, NULL);
	KUNIT_EXPECT_EQ_MSG(t->test, hmm_unlocked(t, &range, 0), 0, "%s", what);
	KUNIT_EXPECT_FALSE(t->test, mmu_interval_read_retry(&t->ni, range.notifier_seq));
	KUNIT_EXPECT_EQ(t->test, range.populated, n);
	hmm_expect_ref(t, HMM_TEST_BASE, n, what);
}

static void hmm_test_unlocked(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	struct hmm_range range;

	hmm_mmap(t, HMM_TEST_BASE, 8, PROT_READ | PROT_WRITE);
	hmm_unlocked_ok(t, 8, 0, "nothing there");
	hmm_unlocked_ok(t, 4, REQ_F, "zero pages");
	hmm_unlocked_ok(t, 8, REQ_FW, "copies");
	hmm_mmap_file(t, hmm_test_at(8), 8, MAP_SHARED);
	hmm_unlocked_ok(t, 16, REQ_FW, "two VMAs");
	hmm_unlocked_ok(t, 20, 0, "and a gap");
	hmm_protect(t, hmm_test_at(0), 8, PROT_READ);

	range = hmm_test_range(t, HMM_TEST_BASE, 8, REQ_FW);
	KUNIT_EXPECT_EQ(test, hmm_unlocked(t, &range, 0), -EPERM);
	vm_munmap(HMM_TEST_BASE, 8 * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, hmm_unlocked(t, &range, 0), -EFAULT);
	hmm_mmap(t, HMM_TEST_BASE, 8, PROT_READ);
	KUNIT_EXPECT_EQ(test, hmm_unlocked(t, &range, 0), -EPERM);
	range.end = range.start;
	KUNIT_EXPECT_EQ(test, hmm_unlocked(t, &range, 0), -EINVAL);
}

/* Lets go of the lock, once for each page, as a slow fault does */
static vm_fault_t hmm_drop_lock(struct hmm_test *t, struct vm_fault *vmf)
{
	if (!(vmf->flags & FAULT_FLAG_ALLOW_RETRY)) {
		t->nr_odd++;
		return 0;
	}
	t->nr_odd = 0;
	if (vmf->flags & FAULT_FLAG_TRIED)
		return 0;
	t->arg++;
	release_fault_lock(vmf);
	return VM_FAULT_RETRY;
}

static void hmm_test_unlocked_drops(struct kunit *test)
{
	struct hmm_test *t = test->priv;

	hmm_mmap_file(t, HMM_TEST_BASE, 8, MAP_SHARED);
	t->on_fault = hmm_drop_lock;
	t->arg = 0;
	hmm_unlocked_ok(t, 8, REQ_FW, "lock dropped");
	KUNIT_EXPECT_EQ(test, t->nr_odd, 0UL);
	KUNIT_EXPECT_EQ(test, t->arg, 8UL);
	t->on_fault = NULL;
}

static vm_fault_t hmm_collide_twice(struct hmm_test *t, struct vm_fault *vmf)
{
	if (t->arg) {
		t->arg--;
		hmm_test_collide(t, vmf->address);
		return VM_FAULT_NOPAGE;
	}
	return 0;
}

/* Collisions are overcome; requests outlive the tries that they cost */
static void hmm_test_unlocked_collides(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	struct hmm_range range;
	unsigned long i;

	hmm_mmap_file(t, HMM_TEST_BASE, 16, MAP_SHARED);
	hmm_touch(t, HMM_TEST_BASE, 4, true);
	t->on_fault = hmm_collide_twice;
	t->arg = 5;
	range = hmm_test_range(t, HMM_TEST_BASE, 16, 0);
	range.pfn_flags_mask = REQ_FW;
	for (i = 0; i < 16; i++)
		t->pfns[i] = i % 3 ? 0 : REQ_F;
	t->nr_fault = 0;
	KUNIT_EXPECT_EQ(test, hmm_unlocked(t, &range, 0), 0);
	KUNIT_EXPECT_EQ(test, t->arg, 0UL);
	for (i = 4; i < 16; i++)
		KUNIT_EXPECT_EQ_MSG(test, !!(t->asked[i]), !(i % 3), "%lu", i);
	hmm_expect_ref(t, HMM_TEST_BASE, 16, "after collisions");
}

/* An invalidation that collides takes away what the driver had for an entry, too */
static vm_fault_t hmm_collide_and_clear(struct hmm_test *t, struct vm_fault *vmf)
{
	if (t->arg)
		t->pfns[2] &= ~HMM_PFN_INOUT_FLAGS;
	return hmm_collide_twice(t, vmf);
}

/* Requests are renewed, flags that are gone are not */
static void hmm_test_unlocked_keeps(struct kunit *test)
{
	const unsigned long keep = HMM_PFN_DMA_MAPPED | HMM_PFN_P2PDMA_BUS;
	struct hmm_test *t = test->priv;
	struct hmm_range range;
	unsigned long i, want;

	if (!keep)
		kunit_skip(test, "entries have no such flags on 32-bit");
	hmm_mmap_file(t, HMM_TEST_BASE, 16, MAP_SHARED);
	hmm_touch(t, HMM_TEST_BASE, 4, true);
	t->on_fault = hmm_collide_and_clear;
	t->arg = 5;
	range = hmm_test_range(t, HMM_TEST_BASE, 16, 0);
	range.pfn_flags_mask = REQ_FW;
	range.flags = HMM_RANGE_KEEP_FLAGS;
	for (i = 0; i < 16; i++)
		t->pfns[i] = (i % 3 ? 0 : REQ_F) | (i % 4 ? keep : 0);
	KUNIT_EXPECT_EQ(test, hmm_unlocked(t, &range, 0), 0);
	KUNIT_EXPECT_EQ(test, t->arg, 0UL);
	for (i = 0; i < 16; i++) {
		want = hmm_ref(t, hmm_test_at(i)) | (i % 4 && i != 2 ? keep : 0);
		KUNIT_EXPECT_EQ_MSG(test, t->pfns[i], want, "%lu", i);
	}
}

static void hmm_test_unlocked_times_out(struct kunit *test)
{
	const unsigned long limit = msecs_to_jiffies(60);
	struct hmm_test *t = test->priv;
	struct hmm_range range;
	unsigned long began;

	hmm_mmap_file(t, HMM_TEST_BASE, 4, MAP_SHARED);
	t->on_fault = hmm_collide_and_go;
	range = hmm_test_range(t, HMM_TEST_BASE, 4, REQ_F);
	began = jiffies;
	KUNIT_EXPECT_EQ(test, hmm_unlocked(t, &range, limit), -EBUSY);
	KUNIT_EXPECT_GE(test, jiffies - began, limit - 1);
	/* For ever, but not beyond the end of the caller */
	send_sig(SIGKILL, current, 1);
	KUNIT_EXPECT_EQ(test, hmm_unlocked(t, &range, 0), -EINTR);
	flush_signals(current);
}

static vm_fault_t hmm_slow_collision(struct hmm_test *t, struct vm_fault *vmf)
{
	if (!t->arg)
		return 0;
	t->arg--;
	msleep(50);
	hmm_test_collide(t, vmf->address);
	return 0;
}

/* A fault may take its time */
static void hmm_test_unlocked_waits(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	struct hmm_range range;

	hmm_mmap_file(t, HMM_TEST_BASE, 4, MAP_SHARED);
	t->on_fault = hmm_slow_collision;
	t->arg = 3;
	range = hmm_test_range(t, HMM_TEST_BASE, 4, REQ_F);
	KUNIT_EXPECT_EQ(test, hmm_unlocked(t, &range, msecs_to_jiffies(40)), 0);
	KUNIT_EXPECT_EQ(test, t->arg, 0UL);
}

static bool hmm_plain_invalidate(struct mmu_interval_notifier *ni,
				 const struct mmu_notifier_range *range,
				 unsigned long cur_seq)
{
	mmu_interval_set_seq(ni, cur_seq);
	return true;
}

static const struct mmu_interval_notifier_ops hmm_plain_ops = {
	.invalidate = hmm_plain_invalidate,
};

static void hmm_test_unlocked_dying(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	struct mmu_interval_notifier ni;
	struct hmm_range range;
	struct mm_struct *mm;

	hmm_mmap(t, HMM_TEST_BASE, 4, PROT_READ | PROT_WRITE);
	range = hmm_test_range(t, HMM_TEST_BASE, 4, 0);
	set_bit(MMF_UNSTABLE, &t->mm->flags);
	KUNIT_EXPECT_EQ(test, hmm_unlocked(t, &range, 0), -EFAULT);
	clear_bit(MMF_UNSTABLE, &t->mm->flags);
	KUNIT_EXPECT_EQ(test, hmm_unlocked(t, &range, 0), 0);

	mm = mm_alloc();
	KUNIT_ASSERT_NOT_NULL(test, mm);
	KUNIT_ASSERT_EQ(test, 0, mmu_interval_notifier_insert(&ni, mm, 0,
							      ULONG_MAX & PAGE_MASK,
							      &hmm_plain_ops));
	mmput(mm);
	range.notifier = &ni;
	KUNIT_EXPECT_EQ(test, hmm_range_fault_unlocked_timeout(&range, 0), -EFAULT);
	mmu_interval_notifier_remove(&ni);
}

/* Only what overlaps is waited for, and not for ever */
static void hmm_test_range_wait(struct kunit *test)
{
	const unsigned long limit = msecs_to_jiffies(30);
	struct hmm_test *t = test->priv;
	struct hmm_range range = hmm_test_range(t, hmm_test_at(4), 4, 0);
	struct mmu_notifier_range bracket;
	unsigned long began, seq;

	KUNIT_EXPECT_EQ(test, hmm_range_wait_timeout(&range, 0), 0);
	mmu_notifier_range_init(&bracket, MMU_NOTIFY_CLEAR, 0, t->mm,
				hmm_test_at(7), hmm_test_at(9));
	mmu_notifier_invalidate_range_start(&bracket);
	began = jiffies;
	KUNIT_EXPECT_EQ(test, hmm_range_wait_timeout(&range, limit), -EBUSY);
	KUNIT_EXPECT_EQ(test, mmu_interval_read_begin_timeout(&t->ni, &seq, limit),
			-EBUSY);
	KUNIT_EXPECT_GE(test, jiffies - began, 2 * limit);
	send_sig(SIGKILL, current, 1);
	KUNIT_EXPECT_EQ(test, hmm_range_wait_timeout(&range, 0), -EINTR);
	KUNIT_EXPECT_EQ(test, mmu_interval_read_begin_timeout(&t->ni, &seq, 0), -EINTR);
	flush_signals(current);
	range.end = hmm_test_at(7);
	KUNIT_EXPECT_EQ(test, hmm_range_wait_timeout(&range, 0), 0);
	range.start = hmm_test_at(9);
	range.end = hmm_test_at(10);
	KUNIT_EXPECT_EQ(test, hmm_range_wait_timeout(&range, 0), 0);
	mmu_notifier_invalidate_range_end(&bracket);
	range.start = hmm_test_at(7);
	KUNIT_EXPECT_EQ(test, hmm_range_wait_timeout(&range, 0), 0);
	KUNIT_EXPECT_EQ(test, mmu_interval_read_begin_timeout(&t->ni, &seq, 0), 0);
	KUNIT_EXPECT_EQ(test, seq, mmu_interval_read_begin(&t->ni));
	range.end = range.start;
	KUNIT_EXPECT_EQ(test, hmm_range_wait_timeout(&range, 0), -EINVAL);
}

/* ---- tracepoints ---- */

#ifdef CONFIG_TRACEPOINTS
static struct {
	unsigned long begins, ends, collisions, timeouts, faults, tries, at;
	u64 ns;
	int ret;
} hmm_traced;

static void hmm_probe_begin(void *t, const struct hmm_range *range)
{
	if (range->notifier == &((struct hmm_test *)t)->ni)
		hmm_traced.begins++;
}

static void hmm_probe_end(void *t, const struct hmm_range *range,
			  unsigned long faults, u64 ns, int ret)
{
	if (range->notifier != &((struct hmm_test *)t)->ni)
		return;
	hmm_traced.ends++;
	hmm_traced.faults = faults;
	hmm_traced.ns = ns;
	hmm_traced.ret = ret;
}

static void hmm_probe_collision(void *t, const struct hmm_range *range,
				unsigned long addr)
{
	if (range->notifier != &((struct hmm_test *)t)->ni)
		return;
	hmm_traced.collisions++;
	hmm_traced.at = addr;
}

static void hmm_probe_timeout(void *t, const struct hmm_range *range,
			      unsigned long tries)
{
	if (range->notifier != &((struct hmm_test *)t)->ni)
		return;
	hmm_traced.timeouts++;
	hmm_traced.tries = tries;
}

static void hmm_untrace(void *t)
{
	unregister_trace_hmm_range_begin(hmm_probe_begin, t);
	unregister_trace_hmm_range_end(hmm_probe_end, t);
	unregister_trace_hmm_collision(hmm_probe_collision, t);
	unregister_trace_hmm_timeout(hmm_probe_timeout, t);
	tracepoint_synchronize_unregister();
}

static void hmm_test_trace(struct kunit *test)
{
	struct hmm_test *t = test->priv;
	struct hmm_range range;

	memset(&hmm_traced, 0, sizeof(hmm_traced));
	KUNIT_ASSERT_EQ(test, register_trace_hmm_range_begin(hmm_probe_begin, t), 0);
	KUNIT_ASSERT_EQ(test, register_trace_hmm_range_end(hmm_probe_end, t), 0);
	KUNIT_ASSERT_EQ(test, register_trace_hmm_collision(hmm_probe_collision, t), 0);
	KUNIT_ASSERT_EQ(test, register_trace_hmm_timeout(hmm_probe_timeout, t), 0);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, hmm_untrace, t), 0);

	hmm_mmap_file(t, HMM_TEST_BASE, 8, MAP_SHARED);
	KUNIT_EXPECT_EQ(test, hmm_call(t, HMM_TEST_BASE, 6, REQ_F), 0);
	KUNIT_EXPECT_EQ(test, hmm_traced.begins, 1UL);
	KUNIT_EXPECT_EQ(test, hmm_traced.ends, 1UL);
	KUNIT_EXPECT_EQ(test, hmm_traced.faults, 6UL);
	KUNIT_EXPECT_EQ(test, hmm_traced.ret, 0);
	KUNIT_EXPECT_GT(test, hmm_traced.ns, 0ULL);
	KUNIT_EXPECT_EQ(test, hmm_traced.collisions, 0UL);

	/* Stale from the start */
	range = hmm_test_range(t, hmm_test_at(2), 2, 0);
	hmm_test_collide(t, hmm_test_at(2));
	KUNIT_EXPECT_EQ(test, hmm_once(t, &range), -EBUSY);
	KUNIT_EXPECT_EQ(test, hmm_traced.collisions, 1UL);
	KUNIT_EXPECT_EQ(test, hmm_traced.at, hmm_test_at(2));
	KUNIT_EXPECT_EQ(test, hmm_traced.ret, -EBUSY);

	t->on_fault = hmm_collide_and_go;
	range = hmm_test_range(t, hmm_test_at(6), 2, REQ_F);
	KUNIT_EXPECT_EQ(test, hmm_unlocked(t, &range, 1), -EBUSY);
	KUNIT_EXPECT_EQ(test, hmm_traced.timeouts, 1UL);
	KUNIT_EXPECT_GT(test, hmm_traced.tries, 0UL);
	KUNIT_EXPECT_EQ(test, hmm_traced.begins, hmm_traced.ends);
}
#endif

static struct kunit_case hmm_output_cases[] = {
	KUNIT_CASE(hmm_test_output_arguments),
	KUNIT_CASE(hmm_test_extents),
	KUNIT_CASE(hmm_test_populated),
	KUNIT_CASE(hmm_test_encoded),
	KUNIT_CASE(hmm_test_encoded_requests),
	KUNIT_CASE(hmm_test_sysmem),
	KUNIT_CASE(hmm_test_keep_flags),
#ifdef CONFIG_TRANSPARENT_HUGEPAGE
	KUNIT_CASE(hmm_test_folio_order),
	KUNIT_CASE(hmm_test_thp_extents),
#endif
	{}
};

static struct kunit_case hmm_unlocked_cases[] = {
	KUNIT_CASE(hmm_test_unlocked),
	KUNIT_CASE(hmm_test_unlocked_drops),
	KUNIT_CASE(hmm_test_unlocked_collides),
	KUNIT_CASE(hmm_test_unlocked_keeps),
	KUNIT_CASE(hmm_test_unlocked_times_out),
	KUNIT_CASE(hmm_test_unlocked_waits),
	KUNIT_CASE(hmm_test_unlocked_dying),
	KUNIT_CASE(hmm_test_range_wait),
#ifdef CONFIG_TRACEPOINTS
	KUNIT_CASE(hmm_test_trace),
#endif
	{}
};

static struct kunit_case hmm_cases[] = {
	KUNIT_CASE(hmm_test_encoding),
	KUNIT_CASE(hmm_test_to_page),
	KUNIT_CASE(hmm_test_arguments),
	KUNIT_CASE_PARAM(hmm_test_pte_state, hmm_pte_gen_params),
	KUNIT_CASE(hmm_test_device_stays),
	KUNIT_CASE(hmm_test_write_alone),
	KUNIT_CASE(hmm_test_requests),
	KUNIT_CASE(hmm_test_requests_around_bad),
	KUNIT_CASE(hmm_test_edges),
	KUNIT_CASE(hmm_test_many_vmas),
	KUNIT_CASE(hmm_test_boundaries),
	KUNIT_CASE(hmm_test_top),
	KUNIT_CASE(hmm_test_sparse),
	KUNIT_CASE(hmm_test_odd_page),
	KUNIT_CASE(hmm_test_run_leaves_memory),
	KUNIT_CASE(hmm_test_stale),
	KUNIT_CASE(hmm_test_collision),
	KUNIT_CASE(hmm_test_own_collisions),
	KUNIT_CASE(hmm_test_gone_again),
	KUNIT_CASE(hmm_test_collision_then_error),
	KUNIT_CASE(hmm_test_range_lock),
	KUNIT_CASE(hmm_test_range_lock_killed),
	KUNIT_CASE(hmm_test_range_lock_vmas),
	KUNIT_CASE(hmm_test_no_collision),
	KUNIT_CASE(hmm_test_migration),
	KUNIT_CASE(hmm_test_swap_fault),
	KUNIT_CASE(hmm_test_fault_errors),
	KUNIT_CASE(hmm_test_signal),
	KUNIT_CASE(hmm_test_stuck),
	KUNIT_CASE(hmm_test_no_reference),
	KUNIT_CASE(hmm_test_zero_page),
	KUNIT_CASE(hmm_test_write_locked),
	KUNIT_CASE(hmm_test_remote),
	KUNIT_CASE(hmm_test_bad_pmd),
#ifdef CONFIG_TRANSPARENT_HUGEPAGE
	KUNIT_CASE_PARAM(hmm_test_pmd_state, hmm_pmd_gen_params),
	KUNIT_CASE(hmm_test_pmd_migration),
	KUNIT_CASE(hmm_test_thp_edges),
	KUNIT_CASE(hmm_test_thp_one_fault),
	KUNIT_CASE(hmm_test_thp_requests),
	KUNIT_CASE(hmm_test_thp_refused),
	KUNIT_CASE(hmm_test_thp_split),
#endif
#ifdef CONFIG_HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD
	KUNIT_CASE(hmm_test_pud_leaf),
#endif
#ifdef CONFIG_HUGETLB_PAGE
	KUNIT_CASE(hmm_test_hugetlb),
	KUNIT_CASE(hmm_test_hugetlb_denied),
	KUNIT_CASE(hmm_test_hugetlb_states),
	KUNIT_CASE(hmm_test_hugetlb_migration),
#endif
	KUNIT_CASE(hmm_test_random),
	KUNIT_CASE(hmm_test_race),
	{}
};

static struct kunit_suite hmm_suite = {
	.name = "hmm",
	.suite_init = hmm_suite_init,
	.suite_exit = hmm_dev_teardown,
	.init = hmm_test_init,
	.exit = hmm_test_exit,
	.test_cases = hmm_cases,
};

static struct kunit_suite hmm_output_suite = {
	.name = "hmm_outputs",
	.suite_init = hmm_suite_init,
	.suite_exit = hmm_dev_teardown,
	.init = hmm_test_init,
	.exit = hmm_test_exit,
	.test_cases = hmm_output_cases,
};

static struct kunit_suite hmm_unlocked_suite = {
	.name = "hmm_unlocked",
	.init = hmm_test_init,
	.exit = hmm_test_exit,
	.test_cases = hmm_unlocked_cases,
};

kunit_test_suites(&hmm_suite, &hmm_output_suite, &hmm_unlocked_suite);

MODULE_DESCRIPTION("KUnit tests of HMM ranges");
MODULE_LICENSE("GPL");
