// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of states that a range can meet, and that no program can bring
 * about or look into: what happens to reference counts, entries that the kernel's
 * own helpers made for memory without struct pages, a protection key that denies
 * whoever walks, and one call over 64 GiB.
 *
 * Each case runs on an mm of its own, made by kunit_vm_mmap() and torn down when
 * the thread of the case ends. A case that maps frames of its own unmaps them
 * before it frees them.
 *
 * The cases never put a call to use, so that none of them ends a collision-retry:
 * the sequence is fresh, or wrong on purpose.
 *
 * Short names: t is the fixture, addr a page-aligned user address, n a count of
 * pages, req what is asked of each page.
 */
#include <kunit/test.h>
#include <linux/anon_inodes.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/hmm.h>
#include <linux/hrtimer.h>
#include <linux/huge_mm.h>
#include <linux/hugetlb.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/memblock.h>
#include <linux/mman.h>
#include <linux/mmu_notifier.h>
#include <linux/pfn_t.h>
#include <linux/pgtable.h>
#include <linux/pkeys.h>
#include <linux/sched/coredump.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/swap.h>
#include <linux/syscalls.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>
#include <asm/tlb.h>

/* A multiple of what a PUD covers, with nothing mapped before or behind. */
#define STATES_BASE	0x40000000UL
#define STATES_PAGES	8UL

#define REQ_R		((unsigned long)HMM_PFN_REQ_FAULT)
#define REQ_RW		((unsigned long)(HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE))
#define FLAGS		((unsigned long)(HMM_PFN_VALID | HMM_PFN_WRITE | HMM_PFN_ERROR))

struct states {
	struct kunit *test;
	struct mm_struct *mm;
	struct mmu_interval_notifier ni;
	bool inserted;
	struct file *file;
	unsigned long *pfns;	/* room for all pages of a PMD and one more */

	/* frames behind the file, and how a fault maps one */
	struct page *pages;
	unsigned int order;
	vm_flags_t vm_flags;
	vm_fault_t (*map)(struct states *t, struct vm_fault *vmf);
	vm_fault_t (*map_huge)(struct states *t, struct vm_fault *vmf,
			       unsigned int order);
	struct work_struct work;
	int ret;
};

/* ---- The fixture ---- */

static bool states_invalidate(struct mmu_interval_notifier *ni,
			      const struct mmu_notifier_range *range,
			      unsigned long cur_seq)
{
	mmu_interval_set_seq(ni, cur_seq);
	return true;
}

static const struct mmu_interval_notifier_ops states_ni_ops = {
	.invalidate = states_invalidate,
};

static vm_fault_t states_fault(struct vm_fault *vmf)
{
	struct states *t = vmf->vma->vm_private_data;

	return t->map(t, vmf);
}

static vm_fault_t states_huge_fault(struct vm_fault *vmf, unsigned int order)
{
	struct states *t = vmf->vma->vm_private_data;

	return t->map_huge ? t->map_huge(t, vmf, order) : VM_FAULT_FALLBACK;
}

static const struct vm_operations_struct states_vm_ops = {
	.fault		= states_fault,
	.huge_fault	= states_huge_fault,
};

static int states_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct states *t = file->private_data;

	vma->vm_private_data = t;
	vma->vm_ops = &states_vm_ops;
	vm_flags_set(vma, t->vm_flags);
	return 0;
}

static const struct file_operations states_fops = {
	.owner	= THIS_MODULE,
	.mmap	= states_mmap,
};

static int states_init(struct kunit *test)
{
	struct states *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	unsigned long addr;
	int ret;

	if (!t)
		return -ENOMEM;
	test->priv = t;
	t->test = test;
	t->pfns = kunit_kcalloc(test, PTRS_PER_PTE + 1, sizeof(*t->pfns),
				GFP_KERNEL);
	if (!t->pfns)
		return -ENOMEM;
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
	t->file = anon_inode_getfile("[hmm_states]", &states_fops, t, O_RDWR);
	if (IS_ERR(t->file)) {
		ret = PTR_ERR(t->file);
		t->file = NULL;
		return ret;
	}
	ret = mmu_interval_notifier_insert(&t->ni, t->mm, 0, ULONG_MAX & PAGE_MASK,
					   &states_ni_ops);
	t->inserted = !ret;
	return ret;
}

/* Runs in another thread, perhaps while the mm is still being torn down. */
static void states_exit(struct kunit *test)
{
	struct states *t = test->priv;
	unsigned long i;

	if (!t)
		return;
	if (t->inserted)
		mmu_interval_notifier_remove(&t->ni);
	if (t->file)
		fput(t->file);
	for (i = 0; t->pages && i < 1UL << t->order; i++)
		put_page(t->pages + i);
	if (t->mm)
		mmdrop(t->mm);
}

/* ---- Mappings ---- */

static void states_frames(struct states *t, unsigned int order)
{
	t->pages = alloc_pages(GFP_USER | __GFP_ZERO, order);
	if (!t->pages)
		kunit_skip(t->test, "no memory of order %u", order);
	split_page(t->pages, order);
	t->order = order;
}

static void states_map(struct states *t, unsigned long n, unsigned long prot,
		       unsigned long flags)
{
	struct file *file = flags & MAP_ANONYMOUS ? NULL : t->file;
	unsigned long addr;

	addr = vm_mmap(file, STATES_BASE, n * PAGE_SIZE, prot,
		       flags | MAP_FIXED | MAP_NORESERVE, 0);
	KUNIT_ASSERT_EQ(t->test, addr, STATES_BASE);
}

static void states_touch(struct states *t, unsigned long n, bool write)
{
	unsigned long addr = STATES_BASE;
	int ret = 0;

	mmap_read_lock(t->mm);
	for (; n && !ret; n--, addr += PAGE_SIZE)
		ret = fixup_user_fault(t->mm, addr, write ? FAULT_FLAG_WRITE : 0,
				       NULL);
	mmap_read_unlock(t->mm);
	KUNIT_EXPECT_EQ(t->test, ret, 0);
}

static struct hmm_range states_range(struct states *t, unsigned long n,
				     unsigned long req)
{
	return (struct hmm_range) {
		.notifier = &t->ni,
		.notifier_seq = mmu_interval_read_begin(&t->ni),
		.start = STATES_BASE,
		.end = STATES_BASE + n * PAGE_SIZE,
		.hmm_pfns = t->pfns,
		.default_flags = req,
	};
}

static int states_once(struct states *t, struct hmm_range *range)
{
	int ret;

	mmap_read_lock(t->mm);
	ret = hmm_range_fault(range);
	mmap_read_unlock(t->mm);
	return ret;
}

static int states_call(struct states *t, unsigned long n, unsigned long req)
{
	struct hmm_range range;
	int ret, tries = 100;

	do {
		range = states_range(t, n, req);
		ret = states_once(t, &range);
	} while (ret == -EBUSY && --tries);
	return ret;
}

/* Are all pages as @flags say, and is a request refused with @ret, or not? */
static void states_expect(struct states *t, unsigned long n, unsigned long flags,
			  int ret)
{
	unsigned long i;

	KUNIT_EXPECT_EQ(t->test, states_call(t, n, 0), 0);
	for (i = 0; i < n; i++)
		KUNIT_EXPECT_EQ(t->test, t->pfns[i] & FLAGS, flags);
	KUNIT_EXPECT_EQ(t->test, states_call(t, n, REQ_R), ret);
	KUNIT_EXPECT_EQ(t->test, states_call(t, n, REQ_RW), ret);
}

/* ---- Entries of memory that has no struct page, or hides it ---- */

static vm_fault_t states_map_page(struct states *t, struct vm_fault *vmf)
{
	return vmf_insert_page(vmf->vma, vmf->address, t->pages + vmf->pgoff);
}

static vm_fault_t states_map_mixed(struct states *t, struct vm_fault *vmf)
{
	pfn_t pfn = page_to_pfn_t(t->pages + vmf->pgoff);

	return vmf_insert_mixed_mkwrite(vmf->vma, vmf->address, pfn);
}

static void states_expect_refs(struct states *t, int refs)
{
	unsigned long i;

	for (i = 0; i < 1UL << t->order; i++)
		KUNIT_EXPECT_EQ(t->test, page_ref_count(t->pages + i), refs);
}

static pte_t states_pte(struct states *t, unsigned long addr)
{
	spinlock_t *ptl; /* of the table */
	pte_t *ptep = get_locked_pte(t->mm, addr, &ptl);
	pte_t pte = ptep_get(ptep);

	pte_unmap_unlock(ptep, ptl);
	return pte;
}

/* Pages of RAM, as good as any, in a mapping that says that there are none. */
static void states_pfnmap(struct kunit *test)
{
	struct states *t = test->priv;
	struct vm_area_struct *vma;
	int ret;

	states_frames(t, 3);
	states_map(t, STATES_PAGES, PROT_READ | PROT_WRITE, MAP_SHARED);
	mmap_write_lock(t->mm);
	vma = vma_lookup(t->mm, STATES_BASE);
	ret = remap_pfn_range(vma, STATES_BASE, page_to_pfn(t->pages),
			      STATES_PAGES * PAGE_SIZE, vma->vm_page_prot);
	KUNIT_EXPECT_TRUE(test, vma->vm_flags & VM_PFNMAP);
	mmap_write_unlock(t->mm);
	KUNIT_ASSERT_EQ(test, ret, 0);
	KUNIT_EXPECT_TRUE(test, pte_present(states_pte(t, STATES_BASE)));

	states_expect(t, STATES_PAGES, HMM_PFN_ERROR, -EFAULT);
	states_expect_refs(t, 1);
	vm_munmap(STATES_BASE, STATES_PAGES * PAGE_SIZE);
	states_expect_refs(t, 1);
}

/* A mixed mapping has entries that are pages, and says so entry by entry. */
static void states_mixedmap(struct kunit *test)
{
	struct states *t = test->priv;

	states_frames(t, 3);
	t->vm_flags = VM_MIXEDMAP;
	t->map = states_map_page;
	states_map(t, STATES_PAGES, PROT_READ | PROT_WRITE, MAP_SHARED);
	states_touch(t, STATES_PAGES, true);
	KUNIT_EXPECT_FALSE(test, pte_special(states_pte(t, STATES_BASE)));
	states_expect_refs(t, 2);
	states_expect(t, STATES_PAGES, HMM_PFN_VALID | HMM_PFN_WRITE, 0);
	KUNIT_EXPECT_PTR_EQ(test, hmm_pfn_to_page(t->pfns[3]), t->pages + 3);
	states_expect_refs(t, 2);
	vm_munmap(STATES_BASE, STATES_PAGES * PAGE_SIZE);

	t->map = states_map_mixed;
	states_map(t, STATES_PAGES, PROT_READ | PROT_WRITE, MAP_SHARED);
	states_touch(t, STATES_PAGES, true);
	if (!pte_special(states_pte(t, STATES_BASE)))
		kunit_skip(test, "no special entries here");
	states_expect_refs(t, 1);
	states_expect(t, STATES_PAGES, HMM_PFN_ERROR, -EFAULT);
	vm_munmap(STATES_BASE, STATES_PAGES * PAGE_SIZE);

	/* Nor does a fault help, that the walk itself causes. */
	states_map(t, STATES_PAGES, PROT_READ | PROT_WRITE, MAP_SHARED);
	KUNIT_EXPECT_EQ(test, states_call(t, 1, 0), 0);
	KUNIT_EXPECT_EQ(test, t->pfns[0], 0UL);
	KUNIT_EXPECT_EQ(test, states_call(t, 1, REQ_R), -EFAULT);
	KUNIT_EXPECT_TRUE(test, pte_special(states_pte(t, STATES_BASE)));
	vm_munmap(STATES_BASE, STATES_PAGES * PAGE_SIZE);
	states_expect_refs(t, 1);
}

#ifdef CONFIG_TRANSPARENT_HUGEPAGE
static vm_fault_t states_map_pmd(struct states *t, struct vm_fault *vmf,
				 unsigned int order)
{
	if (order != HPAGE_PMD_ORDER)
		return VM_FAULT_FALLBACK;
	return vmf_insert_pfn_pmd(vmf, page_to_pfn_t(t->pages), true);
}

static pud_t *states_pudp(struct states *t, unsigned long addr)
{
	pgd_t *pgd = pgd_offset(t->mm, addr);
	p4d_t *p4d = pgd_none(*pgd) ? NULL : p4d_offset(pgd, addr);

	return !p4d || p4d_none(*p4d) ? NULL : pud_offset(p4d, addr);
}

static pmd_t *states_pmdp(struct states *t, unsigned long addr)
{
	pud_t *pud = states_pudp(t, addr);

	return !pud || pud_none(*pud) ? NULL : pmd_offset(pud, addr);
}

/* A whole PMD of the same, before and behind which there are pages of RAM. */
static void states_special_pmd(struct kunit *test)
{
	struct states *t = test->priv;
	unsigned long n = PMD_SIZE / PAGE_SIZE;
	pmd_t *pmdp;

	states_frames(t, HPAGE_PMD_ORDER);
	t->vm_flags = VM_MIXEDMAP | VM_HUGEPAGE;
	t->map_huge = states_map_pmd;
	states_map(t, n, PROT_READ | PROT_WRITE, MAP_SHARED);
	states_touch(t, 1, true);
	pmdp = states_pmdp(t, STATES_BASE);
	if (!pmdp || !pmd_special(*pmdp))
		kunit_skip(test, "no special huge entries here");
	KUNIT_EXPECT_TRUE(test, pmd_leaf(*pmdp));
	states_expect(t, n, HMM_PFN_ERROR, -EFAULT);
	KUNIT_EXPECT_TRUE(test, pmd_special(*pmdp));
	vm_munmap(STATES_BASE, PMD_SIZE);
	states_expect_refs(t, 1);
}

#ifdef CONFIG_HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD
/*
 * The frames are never touched: they only have to be aligned, and nobody's.
 * With RAM behind them, CONFIG_PAGE_TABLE_CHECK counts a mapping of every page
 * of it, and stops the machine when somebody allocates or frees one of them.
 */
static vm_fault_t states_map_pud(struct states *t, struct vm_fault *vmf,
				 unsigned int order)
{
	unsigned long pfn = ALIGN(max_pfn, PUD_SIZE / PAGE_SIZE);

	if (order != PUD_SHIFT - PAGE_SHIFT)
		return VM_FAULT_FALLBACK;
	while (pfn_valid(pfn))
		pfn += PUD_SIZE / PAGE_SIZE;
	return vmf_insert_pfn_pud(vmf, pfn_to_pfn_t(pfn), true);
}

static vm_fault_t states_map_nothing(struct states *t, struct vm_fault *vmf)
{
	return VM_FAULT_SIGBUS;
}

/* And a whole PUD. */
static void states_special_pud(struct kunit *test)
{
	struct states *t = test->priv;
	pud_t *pudp;
	int ret;

	t->vm_flags = VM_MIXEDMAP | VM_HUGEPAGE;
	t->map = states_map_nothing;
	t->map_huge = states_map_pud;
	states_map(t, PUD_SIZE / PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED);
	mmap_read_lock(t->mm);
	ret = fixup_user_fault(t->mm, STATES_BASE, FAULT_FLAG_WRITE, NULL);
	mmap_read_unlock(t->mm);
	pudp = states_pudp(t, STATES_BASE);
	if (ret || !pudp || !pud_special(*pudp))
		kunit_skip(test, "no special entries of this size here");
	KUNIT_EXPECT_TRUE(test, pud_leaf(*pudp));
	states_expect(t, STATES_PAGES, HMM_PFN_ERROR, -EFAULT);
	KUNIT_EXPECT_TRUE(test, pud_special(*pudp));
	vm_munmap(STATES_BASE, PUD_SIZE);
}
#endif
#endif

/* ---- Reference counts ---- */

/* Counts of the folios that the range maps, found by pinning them. */
struct counts {
	unsigned long n;
	struct page *pages[STATES_PAGES];
	int refs[STATES_PAGES];
	int maps[STATES_PAGES];
};

static void states_count(struct states *t, struct counts *counts)
{
	long i, got;

	/* What waits in a CPU's batch has a reference more. */
	lru_add_drain_all();
	mmap_read_lock(t->mm);
	got = get_user_pages_remote(t->mm, STATES_BASE, STATES_PAGES, 0,
				    counts->pages, NULL);
	mmap_read_unlock(t->mm);
	KUNIT_EXPECT_EQ(t->test, got, (long)STATES_PAGES);
	counts->n = max(got, 0L);
	for (i = 0; i < got; i++)
		put_page(counts->pages[i]);
	lru_add_drain_all();
	for (i = 0; i < got; i++) {
		counts->refs[i] = folio_ref_count(page_folio(counts->pages[i]));
		counts->maps[i] = folio_mapcount(page_folio(counts->pages[i]));
	}
}

static void states_recount(struct states *t, const struct counts *counts,
			   const char *what)
{
	unsigned long i;

	lru_add_drain_all();
	for (i = 0; i < counts->n; i++) {
		struct folio *folio = page_folio(counts->pages[i]);

		KUNIT_EXPECT_EQ_MSG(t->test, folio_ref_count(folio),
				    counts->refs[i], "%s: page %lu", what, i);
		KUNIT_EXPECT_EQ_MSG(t->test, folio_mapcount(folio),
				    counts->maps[i], "%s: page %lu", what, i);
	}
}

static void refs_anon(struct states *t)
{
	states_map(t, STATES_PAGES, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS);
	states_touch(t, STATES_PAGES, true);
}

static void refs_zero(struct states *t)
{
	states_map(t, STATES_PAGES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS);
	states_touch(t, STATES_PAGES, false);
}

static void refs_shmem(struct states *t)
{
	states_map(t, STATES_PAGES, PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_ANONYMOUS);
	states_touch(t, STATES_PAGES, true);
}

static void refs_mixed(struct states *t)
{
	states_frames(t, 3);
	t->vm_flags = VM_MIXEDMAP;
	t->map = states_map_page;
	states_map(t, STATES_PAGES, PROT_READ | PROT_WRITE, MAP_SHARED);
	states_touch(t, STATES_PAGES, true);
}

static void refs_thp(struct states *t)
{
	states_map(t, PTRS_PER_PTE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS);
	KUNIT_EXPECT_EQ(t->test, 0, do_madvise(t->mm, STATES_BASE, PMD_SIZE,
					       MADV_HUGEPAGE));
	states_touch(t, 1, true);
}

static void refs_hugetlb(struct states *t)
{
#ifdef CONFIG_HUGETLB_PAGE
	unsigned long addr;

	default_hstate.nr_overcommit_huge_pages = 8;
	addr = ksys_mmap_pgoff(STATES_BASE, huge_page_size(&default_hstate),
			       PROT_READ | PROT_WRITE, MAP_PRIVATE |
			       MAP_ANONYMOUS | MAP_FIXED | MAP_HUGETLB, -1, 0);
	if (addr != STATES_BASE)
		kunit_skip(t->test, "no hugetlb pages to be had");
	states_touch(t, 1, true);
#else
	kunit_skip(t->test, "no hugetlb");
#endif
}

static const struct refs_row {
	const char *name;
	void (*map)(struct states *t);
	/* entries have this order; 0: do not look */
	unsigned int order;
	bool readonly;
} refs_rows[] = {
	{ "anonymous pages", refs_anon },
	{ "zero pages", refs_zero, .readonly = true },
	{ "shared memory", refs_shmem },
	{ "pages of a driver", refs_mixed },
	{ "huge page", refs_thp, .order = PMD_SHIFT - PAGE_SHIFT },
	{ "hugetlb page", refs_hugetlb, .order = PMD_SHIFT - PAGE_SHIFT },
};

static void refs_desc(const struct refs_row *row, char *desc)
{
	strscpy(desc, row->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(refs, refs_rows, refs_desc);

/* Calls that end well, for each request. */
static void refs_when_done(struct states *t, const struct counts *counts,
			   const struct refs_row *row)
{
	static const unsigned long reqs[] = { 0, REQ_R, REQ_RW };
	int i;

	for (i = 0; i < (row->readonly ? 2 : 3); i++) {
		KUNIT_EXPECT_EQ(t->test, states_call(t, STATES_PAGES, reqs[i]), 0);
		KUNIT_EXPECT_TRUE(t->test, t->pfns[STATES_PAGES - 1] & HMM_PFN_VALID);
		if (row->order) {
			KUNIT_EXPECT_EQ(t->test, hmm_pfn_to_map_order(t->pfns[0]),
					row->order);
		}
		states_recount(t, counts, "done");
	}
}

/* Calls that do not: of the wrong time, killed, denied, and too long. */
static void refs_when_failed(struct states *t, const struct counts *counts,
			     const struct refs_row *row)
{
	struct hmm_range range = states_range(t, STATES_PAGES, REQ_R);

	range.notifier_seq -= 2;
	KUNIT_EXPECT_EQ(t->test, states_once(t, &range), -EBUSY);
	states_recount(t, counts, "stale");

	send_sig(SIGKILL, current, 1);
	KUNIT_EXPECT_EQ(t->test, states_call(t, STATES_PAGES, REQ_R), -EINTR);
	flush_signals(current);
	states_recount(t, counts, "killed");

	if (row->readonly) {
		KUNIT_EXPECT_EQ(t->test, states_call(t, STATES_PAGES, REQ_RW), -EPERM);
		states_recount(t, counts, "denied");
	}

	/* Most of it is filled by the time the page behind is found missing. */
	range = states_range(t, 1, REQ_R);
	range.start = STATES_BASE + (row->order ? PMD_SIZE : STATES_PAGES * PAGE_SIZE) -
		      3 * PAGE_SIZE;
	range.end = range.start + 4 * PAGE_SIZE;
	KUNIT_EXPECT_EQ(t->test, states_once(t, &range), -EFAULT);
	states_recount(t, counts, "too long");
}

static void states_references(struct kunit *test)
{
	const struct refs_row *row = test->param_value;
	struct states *t = test->priv;
	struct counts *counts = kunit_kzalloc(test, sizeof(*counts), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, counts);
	if (row->order && !IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE))
		kunit_skip(test, "no huge pages");
	row->map(t);
	KUNIT_EXPECT_EQ(test, states_call(t, 1, 0), 0);
	if (row->order && hmm_pfn_to_map_order(t->pfns[0]) != row->order)
		kunit_skip(test, "no huge page to be had");
	states_count(t, counts);
	refs_when_done(t, counts, row);
	refs_when_failed(t, counts, row);
	vm_munmap(STATES_BASE, row->order ? PMD_SIZE : STATES_PAGES * PAGE_SIZE);
}

/* A page that a call has faulted in belongs to the mapping alone. */
static void states_faulted_references(struct kunit *test)
{
	struct states *t = test->priv;
	unsigned long i;

	states_map(t, STATES_PAGES, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS);
	KUNIT_EXPECT_EQ(test, states_call(t, STATES_PAGES, REQ_RW), 0);
	lru_add_drain_all();
	for (i = 0; i < STATES_PAGES; i++) {
		struct folio *folio = page_folio(hmm_pfn_to_page(t->pfns[i]));

		KUNIT_EXPECT_EQ(test, folio_mapcount(folio), folio_ref_count(folio));
	}
	vm_munmap(STATES_BASE, STATES_PAGES * PAGE_SIZE);
}

/* ---- Protection keys ---- */

#ifdef CONFIG_X86_INTEL_MEMORY_PROTECTION_KEYS
#define STATES_KEY	5

/* Put the mapping under the key: what pkey_mprotect() does. */
static int states_set_key(struct states *t)
{
	struct vm_area_struct *vma, *prev = NULL;
	struct vma_iterator vmi;
	struct mmu_gather tlb;
	vm_flags_t flags;
	int ret = -ENOMEM;

	mmap_write_lock(t->mm);
	vma_iter_init(&vmi, t->mm, STATES_BASE);
	vma = vma_find(&vmi, STATES_BASE + 1);
	if (vma) {
		flags = vma->vm_flags | (vm_flags_t)STATES_KEY << VM_PKEY_SHIFT;
		tlb_gather_mmu(&tlb, t->mm);
		ret = mprotect_fixup(&vmi, &tlb, vma, &prev, vma->vm_start,
				     vma->vm_end, flags);
		tlb_finish_mmu(&tlb);
		vma = vma_lookup(t->mm, STATES_BASE);
		KUNIT_EXPECT_EQ(t->test, vma_pkey(vma), STATES_KEY);
	}
	mmap_write_unlock(t->mm);
	return ret;
}

/* By a thread that may use no key but the first. */
static int states_call_denied(struct states *t, unsigned long req)
{
	u32 before = read_pkru();
	int ret;

	write_pkru(~0U & ~3U);
	ret = states_call(t, STATES_PAGES, req);
	write_pkru(before);
	return ret;
}

static void states_call_elsewhere(struct work_struct *work)
{
	struct states *t = container_of(work, struct states, work);

	t->ret = states_call_denied(t, REQ_RW);
}

static void states_protection_key(struct kunit *test)
{
	struct states *t = test->priv;
	unsigned long i;
	int round;

	if (!cpu_feature_enabled(X86_FEATURE_OSPKE))
		kunit_skip(test, "no protection keys on this CPU");
	states_map(t, STATES_PAGES, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS);
	states_touch(t, STATES_PAGES / 2, true);
	KUNIT_ASSERT_EQ(test, states_set_key(t), 0);
	KUNIT_EXPECT_EQ(test, pte_flags_pkey(pte_flags(states_pte(t, STATES_BASE))),
			STATES_KEY);

	/* Pages that are there: entries do not look at the thread's rights. */
	KUNIT_EXPECT_EQ(test, states_call_denied(t, 0), 0);
	for (i = 0; i < STATES_PAGES / 2; i++)
		KUNIT_EXPECT_EQ(test, t->pfns[i] & FLAGS,
				(unsigned long)(HMM_PFN_VALID | HMM_PFN_WRITE));
	/* Nor do faults: in the thread's own address space, and in another. */
	KUNIT_EXPECT_EQ(test, states_call_denied(t, REQ_R), 0);
	for (round = 0; round < 2; round++) {
		vm_munmap(STATES_BASE, STATES_PAGES * PAGE_SIZE);
		states_map(t, STATES_PAGES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS);
		KUNIT_ASSERT_EQ(test, states_set_key(t), 0);
		INIT_WORK(&t->work, states_call_elsewhere);
		if (round) {
			schedule_work(&t->work);
			flush_work(&t->work);
		} else {
			states_call_elsewhere(&t->work);
		}
		KUNIT_EXPECT_EQ(test, t->ret, 0);
		KUNIT_EXPECT_EQ(test, t->pfns[0] & FLAGS,
				(unsigned long)(HMM_PFN_VALID | HMM_PFN_WRITE));
	}
}
#endif

/* ---- 64 GiB ---- */

#ifdef CONFIG_64BIT
#define SPARSE_BYTES	(64UL * SZ_1G)
#define SPARSE_PAGES	(SPARSE_BYTES / PAGE_SIZE)

/* How long a kill may take to end a call; emulated machines get more. */
#define KILL_NS		(100 * NSEC_PER_MSEC)
#define EMULATED	6

struct sparse {
	struct states *t;
	struct hmm_range range;
	struct task_struct *caller;
	struct hrtimer killer;
	ktime_t killed;
	/* of the companion, so far */
	unsigned long runs;
};

static void sparse_setup(struct states *t, struct sparse *s)
{
	unsigned long addr;

	s->t = t;
	s->caller = current;
	addr = vm_mmap(NULL, STATES_BASE, SPARSE_BYTES, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, 0);
	if (addr != STATES_BASE)
		kunit_skip(t->test, "no address space for 64 GiB");
	s->range = states_range(t, SPARSE_PAGES, 0);
	s->range.hmm_pfns = vmalloc(SPARSE_PAGES * sizeof(unsigned long));
	if (!s->range.hmm_pfns)
		kunit_skip(t->test, "no memory for as many entries");
}

/* One call, timed. */
static u64 sparse_call(struct sparse *s, int *ret)
{
	u64 start;

	s->range.notifier_seq = mmu_interval_read_begin(s->range.notifier);
	start = ktime_get_ns();
	*ret = states_once(s->t, &s->range);
	return ktime_get_ns() - start;
}

static void sparse_teardown(struct sparse *s)
{
	vfree(s->range.hmm_pfns);
	vm_munmap(STATES_BASE, SPARSE_BYTES);
}

/* Wants to run every millisecond, on the CPU of the caller. */
static int sparse_companion(void *data)
{
	struct sparse *s = data;

	while (!kthread_should_stop()) {
		usleep_range(900, 1100);
		WRITE_ONCE(s->runs, s->runs + 1);
	}
	return 0;
}

/* The walk lets others run: the CPU is no more locked up than by a short one. */
static void states_sparse(struct kunit *test)
{
	struct states *t = test->priv;
	struct sparse *s = kunit_kzalloc(test, sizeof(*s), GFP_KERNEL);
	unsigned long i, wrong = 0, runs;
	struct task_struct *companion;
	int ret;
	u64 ns;

	KUNIT_ASSERT_NOT_NULL(test, s);
	sparse_setup(t, s);
	states_touch(t, 1, true);
	companion = kthread_create(sparse_companion, s, "hmm_companion");
	KUNIT_ASSERT_FALSE(test, IS_ERR(companion));
	migrate_disable();
	kthread_bind(companion, smp_processor_id());
	wake_up_process(companion);
	while (READ_ONCE(s->runs) < 2)
		usleep_range(1000, 2000);
	runs = READ_ONCE(s->runs);
	ns = sparse_call(s, &ret);
	runs = READ_ONCE(s->runs) - runs;
	migrate_enable();
	kthread_stop(companion);

	KUNIT_EXPECT_EQ(test, ret, 0);
	KUNIT_EXPECT_TRUE(test, s->range.hmm_pfns[0] & HMM_PFN_VALID);
	for (i = 1; i < SPARSE_PAGES; i++)
		wrong += s->range.hmm_pfns[i] != 0;
	KUNIT_EXPECT_EQ(test, wrong, 0UL);
	/* At the least once in 20 ms. */
	KUNIT_EXPECT_GE(test, (u64)runs, div_u64(ns, 20 * NSEC_PER_MSEC));
	kunit_info(test, "64 GiB in %llu ms, others ran %lu times\n",
		   div_u64(ns, NSEC_PER_MSEC), runs);
	sparse_teardown(s);
}

static enum hrtimer_restart sparse_kill(struct hrtimer *timer)
{
	struct sparse *s = container_of(timer, struct sparse, killer);

	s->killed = ktime_get();
	send_sig(SIGKILL, s->caller, 1);
	return HRTIMER_NORESTART;
}

static u64 sparse_limit(void)
{
#ifdef CONFIG_X86
	if (strstr(boot_cpu_data.x86_model_id, "QEMU TCG"))
		return EMULATED * KILL_NS;
#endif
	return KILL_NS;
}

/*
 * Nanoseconds from a signal, @after the start of a call, to its end; -1 if it came so
 * late that there was nothing to kill any more.
 */
static s64 sparse_killed_after(struct sparse *s, u64 after)
{
	ktime_t end;
	int ret;

	s->killed = KTIME_MAX / 2;
	hrtimer_init(&s->killer, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
	s->killer.function = sparse_kill;
	hrtimer_start(&s->killer, ns_to_ktime(after), HRTIMER_MODE_REL);
	sparse_call(s, &ret);
	end = ktime_get();
	hrtimer_cancel(&s->killer);
	flush_signals(current);
	if (!ret && ktime_after(ktime_add_ns(s->killed, sparse_limit()), end))
		return -1;
	KUNIT_EXPECT_EQ(s->t->test, ret, -EINTR);
	return ktime_to_ns(ktime_sub(end, s->killed));
}

static void states_sparse_killed(struct kunit *test)
{
	struct states *t = test->priv;
	struct sparse *s = kunit_kzalloc(test, sizeof(*s), GFP_KERNEL);
	s64 took, limit = sparse_limit(), worst = -1;
	u64 whole;
	int ret, i;

	KUNIT_ASSERT_NOT_NULL(test, s);
	if (IS_ENABLED(CONFIG_UML) || IS_ENABLED(CONFIG_PREEMPT_RT))
		kunit_skip(test, "timers of this kernel come at any time");
	sparse_setup(t, s);
	whole = sparse_call(s, &ret);
	KUNIT_EXPECT_EQ(test, ret, 0);
	/* In the first half: the second call may be quicker than the first. */
	for (i = 1; i <= 8; i++) {
		took = sparse_killed_after(s, div_u64(whole * i, 24));
		worst = max(worst, took);
	}
	KUNIT_EXPECT_GE_MSG(test, worst, 0, "no timer was on time");
	KUNIT_EXPECT_LT(test, worst, limit);
	kunit_info(test, "of %llu us, killed within %lld us\n",
		   div_u64(whole, NSEC_PER_USEC), div_s64(worst, NSEC_PER_USEC));
	sparse_teardown(s);
}
#endif

static struct kunit_case states_cases[] = {
	KUNIT_CASE(states_pfnmap),
	KUNIT_CASE(states_mixedmap),
#ifdef CONFIG_TRANSPARENT_HUGEPAGE
	KUNIT_CASE(states_special_pmd),
#ifdef CONFIG_HAVE_ARCH_TRANSPARENT_HUGEPAGE_PUD
	KUNIT_CASE(states_special_pud),
#endif
#endif
	KUNIT_CASE_PARAM(states_references, refs_gen_params),
	KUNIT_CASE(states_faulted_references),
#ifdef CONFIG_X86_INTEL_MEMORY_PROTECTION_KEYS
	KUNIT_CASE(states_protection_key),
#endif
#ifdef CONFIG_64BIT
	KUNIT_CASE_SLOW(states_sparse),
	KUNIT_CASE_SLOW(states_sparse_killed),
#endif
	{}
};

static struct kunit_suite states_suite = {
	.name = "hmm_states",
	.init = states_init,
	.exit = states_exit,
	.test_cases = states_cases,
};

kunit_test_suite(states_suite);

MODULE_DESCRIPTION("KUnit tests of the states that an HMM range can meet");
MODULE_LICENSE("GPL");
