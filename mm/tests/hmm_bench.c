// SPDX-License-Identifier: GPL-2.0
/*
 * What ranges cost: hmm_range_fault() for each page that it reports
 *
 * Built against any implementation of <linux/hmm.h>, so that two can be laid side
 * by side: nothing but the public interface is used. Rows that need more than
 * Linux 6.12 has are left out where it is not there (B_EXTRAS).
 *
 * Each row is a case of its own, with an mm of its own: its pages are prepared,
 * then the walk is measured B_REPS times, and the row is the median. Walks that
 * find everything there run with interrupts off: all repetitions cost the same
 * under -icount. Walks that fault cannot; they start right after a timer tick, end
 * before the next, and each repetition prepares its pages anew.
 *
 * In this file: n is a number of pages, i one of them, def and mask the requests
 * of a range.
 */
#include <kunit/test.h>
#include <linux/hmm.h>
#include <linux/huge_mm.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/mmu_notifier.h>
#include <linux/prandom.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "bench.h"

#define B_BASE		0x40000000UL
#define B_PAGES		2048
#define B_REPS		9
#define B_AT(i)		(B_BASE + ((unsigned long)(i) << PAGE_SHIFT))
/* Of a row with huge pages: what a call costs is no part of it */
#define B_HUGE_PAGES	(64UL * PTRS_PER_PTE)
/* Of a row with faults: 2 tables, and well under a tick */
#define B_FAULTS	256

#define B_READ		((unsigned long)HMM_PFN_REQ_FAULT)
#define B_WRITE		((unsigned long)(HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE))

/* The one macro that only an implementation with further outputs has */
#ifdef HMM_PFN_META_BITS
#define B_EXTRAS
#endif

struct b_env {
	struct mm_struct *mm;
	struct mmu_interval_notifier ini;
	bool inserted;
	unsigned long n;
	unsigned long *out;	/* room for any output of n pages */
};

struct b_row {
	const char *name;
	void (*map)(struct kunit *test);
	unsigned long n;	/* pages; 0: B_PAGES */
	unsigned int loops;	/* calls in one measurement; 0: one */
	unsigned long def, mask;
	unsigned long entry;	/* in each, before the call */
	/* what only some implementations have */
	void (*extra)(struct kunit *test, struct hmm_range *range);
};

static bool b_invalidate(struct mmu_interval_notifier *ini,
			 const struct mmu_notifier_range *range,
			 unsigned long cur_seq)
{
	mmu_interval_set_seq(ini, cur_seq);
	return true;
}

static const struct mmu_interval_notifier_ops b_ops = {
	.invalidate = b_invalidate,
};

static int b_init(struct kunit *test)
{
	struct b_env *b = kunit_kzalloc(test, sizeof(*b), GFP_KERNEL);
	unsigned long addr;
	int ret;

	if (!b)
		return -ENOMEM;
	test->priv = b;
	/* Attaches an mm to this thread; the page itself is not wanted */
	addr = kunit_vm_mmap(test, NULL, 0, PAGE_SIZE, PROT_READ,
			     MAP_PRIVATE | MAP_ANONYMOUS, 0);
	if (!addr || IS_ERR_VALUE(addr))
		return -ENOMEM;
	vm_munmap(addr, PAGE_SIZE);
	b->mm = current->mm;
	mmgrab(b->mm);
	ret = mmu_interval_notifier_insert(&b->ini, b->mm, 0,
					   ULONG_MAX & PAGE_MASK, &b_ops);
	b->inserted = !ret;
	return ret;
}

static void b_exit(struct kunit *test)
{
	struct b_env *b = test->priv;

	if (!b)
		return;
	if (b->inserted)
		mmu_interval_notifier_remove(&b->ini);
	if (b->mm)
		mmdrop(b->mm);
	kvfree(b->out);
}

static void b_alloc(struct kunit *test, unsigned long n)
{
	struct b_env *b = test->priv;

	b->n = n;
	b->out = kvcalloc(n, 32, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, b->out);
}

/* ---- What is mapped ---- */

static void b_map_nothing(struct kunit *test)
{
	struct b_env *b = test->priv;
	unsigned long ret;

	ret = vm_mmap(NULL, B_BASE, b->n << PAGE_SHIFT, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, 0);
	KUNIT_ASSERT_EQ(test, ret, B_BASE);
}

static void b_touch(struct kunit *test, unsigned long i, unsigned int flags)
{
	struct b_env *b = test->priv;
	int ret;

	mmap_read_lock(b->mm);
	ret = fixup_user_fault(b->mm, B_AT(i), flags, NULL);
	mmap_read_unlock(b->mm);
	KUNIT_ASSERT_EQ(test, ret, 0);
}

static void b_map_pages(struct kunit *test)
{
	struct b_env *b = test->priv;
	unsigned long i;

	b_map_nothing(test);
	for (i = 0; i < b->n; i++)
		b_touch(test, i, FAULT_FLAG_WRITE);
}

/* Touched in a random order: no page is where its neighbour's would be */
static void b_map_scattered(struct kunit *test)
{
	struct b_env *b = test->priv;
	unsigned long i, k, *order = b->out;
	struct rnd_state rnd;

	b_map_nothing(test);
	prandom_seed_state(&rnd, 1);
	for (i = 0; i < b->n; i++)
		order[i] = i;
	for (i = b->n - 1; i; i--) {
		k = prandom_u32_state(&rnd) % (i + 1);
		swap(order[i], order[k]);
	}
	for (i = 0; i < b->n; i++)
		b_touch(test, order[i], FAULT_FLAG_WRITE);
}

/* Every other page can only be read, in one VMA, as after a fork() */
static void b_map_mixed(struct kunit *test)
{
	struct b_env *b = test->priv;
	unsigned long i;
	spinlock_t *ptl; /* of the table */
	pte_t *ptep;

	b_map_pages(test);
	mmap_read_lock(b->mm);
	for (i = 0; i < b->n; i += 2) {
		ptep = get_locked_pte(b->mm, B_AT(i), &ptl);
		if (!ptep)
			break;
		ptep_set_wrprotect(b->mm, B_AT(i), ptep);
		pte_unmap_unlock(ptep, ptl);
	}
	mmap_read_unlock(b->mm);
	KUNIT_ASSERT_GE(test, i, b->n);
}

/* Every other page is the zero page */
static void b_map_zero(struct kunit *test)
{
	struct b_env *b = test->priv;
	unsigned long i;

	b_map_nothing(test);
	for (i = 0; i < b->n; i++)
		b_touch(test, i, i % 2 ? FAULT_FLAG_WRITE : 0);
}

/* Page tables, and nothing in them */
static void b_map_table(struct kunit *test)
{
	struct b_env *b = test->priv;

	b_map_pages(test);
	KUNIT_ASSERT_EQ(test, do_madvise(b->mm, B_BASE, b->n << PAGE_SHIFT,
					 MADV_DONTNEED), 0);
}

static __maybe_unused pmd_t *b_pmdp(struct mm_struct *mm, unsigned long addr)
{
	return pmd_offset(pud_offset(p4d_offset(pgd_offset(mm, addr), addr), addr),
			  addr);
}

static void b_map_thp(struct kunit *test)
{
	struct b_env *b = test->priv;
	unsigned long i, faults = 0;

	if (!IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE))
		kunit_skip(test, "no transparent huge pages in this kernel");
	b_map_nothing(test);
	KUNIT_ASSERT_EQ(test, do_madvise(b->mm, B_BASE, b->n << PAGE_SHIFT,
					 MADV_HUGEPAGE), 0);
	for (i = 0; i < b->n; i += PTRS_PER_PTE) {
		b_touch(test, i, FAULT_FLAG_WRITE);
		faults++;
	}
	/* Each has brought a huge page */
	KUNIT_ASSERT_EQ(test, get_mm_counter(b->mm, MM_ANONPAGES),
			faults * PTRS_PER_PTE);
}

/* Huge pages mapped by small entries: pages in order, each part of a large folio */
static void b_map_split(struct kunit *test)
{
	struct b_env *b = test->priv;
	struct vm_area_struct *vma;
	unsigned long i;

	b_map_thp(test);
	/* Or khugepaged puts together what is taken apart here */
	KUNIT_ASSERT_EQ(test, do_madvise(b->mm, B_BASE, b->n << PAGE_SHIFT,
					 MADV_NOHUGEPAGE), 0);
	mmap_write_lock(b->mm);
	vma = vma_lookup(b->mm, B_BASE);
	for (i = 0; i < b->n; i += PTRS_PER_PTE)
		split_huge_pmd(vma, b_pmdp(b->mm, B_AT(i)), B_AT(i));
	mmap_write_unlock(b->mm);
}

/* ---- The walk, everything there ---- */

static struct hmm_range b_range(struct b_env *b, unsigned long def, unsigned long mask)
{
	return (struct hmm_range) {
		.notifier = &b->ini,
		.notifier_seq = mmu_interval_read_begin(&b->ini),
		.start = B_BASE,
		.end = B_AT(b->n),
		.hmm_pfns = b->out,
		.default_flags = def,
		.pfn_flags_mask = mask,
	};
}

static u64 b_walks(struct kunit *test, struct hmm_range *range, unsigned int loops)
{
	struct b_env *b = test->priv;
	int ret = 0;
	u64 t;

	mmap_read_lock(b->mm);
	t = b_measure(loops, ret |= hmm_range_fault(range));
	mmap_read_unlock(b->mm);
	KUNIT_ASSERT_EQ(test, ret, 0);
	return t;
}

/* The median of one walk; more than one where a walk is a short one */
static u64 b_row(struct kunit *test, const struct b_row *row)
{
	unsigned int loops = row->loops ?: 1, rep;
	struct b_env *b = test->priv;
	struct hmm_range range;
	u64 cycles[B_REPS];

	for (rep = 0; rep < B_REPS; rep++) {
		range = b_range(b, row->def, row->mask);
		memset_l(b->out, row->entry, b->n);
		if (row->extra)
			row->extra(test, &range);
		cycles[rep] = b_walks(test, &range, loops);
	}
	return b_median(cycles, B_REPS);
}

#ifdef B_EXTRAS
static const struct hmm_encoding b_encoding = {
	.valid = BIT_ULL(0),
	.write = BIT_ULL(1),
	.error = BIT_ULL(2),
	.pfn_shift = 12,
};

/* The entries of the walk before, each page mapped for DMA meanwhile */
static void b_sticky(struct kunit *test, struct hmm_range *range)
{
	struct b_env *b = test->priv;
	unsigned long i;

	b_walks(test, range, 1);
	for (i = 0; i < b->n; i++)
		b->out[i] |= HMM_PFN_INOUT_FLAGS;
	range->flags = HMM_RANGE_KEEP_FLAGS;
}

static void b_folio_order(struct kunit *test, struct hmm_range *range)
{
	range->flags = HMM_RANGE_FOLIO_ORDER;
}

static void b_extents(struct kunit *test, struct hmm_range *range)
{
	struct b_env *b = test->priv;

	range->max_extents = b->n;
}

static void b_encoded(struct kunit *test, struct hmm_range *range)
{
	range->encoding = &b_encoding;
}

static void b_encoded_requests(struct kunit *test, struct hmm_range *range)
{
	struct b_env *b = test->priv;
	unsigned long i;

	range->encoding = &b_encoding;
	for (i = 0; i < b->n; i++)
		range->entries[i] = hmm_encode_request(&b_encoding, B_READ);
}
#endif

static struct b_row b_rows[] = {
	{ "snapshot-4k", b_map_pages },
	{ "snapshot-4k-scattered", b_map_scattered },
	{ "snapshot-4k-mixed", b_map_mixed },
	{ "snapshot-4k-zero", b_map_zero },
	{ "snapshot-4k-mask", b_map_pages, .mask = B_WRITE },
	{ "fault-4k-present", b_map_pages, .def = B_READ },
	{ "fault-4k-present-write", b_map_pages, .def = B_WRITE },
	{ "fault-4k-mask", b_map_pages, .mask = B_WRITE, .entry = B_READ },
	{ "snapshot-4k-ordered", b_map_split },
	{ "snapshot-thp", b_map_thp, .n = B_HUGE_PAGES },
	{ "fault-thp-present", b_map_thp, .n = B_HUGE_PAGES, .def = B_READ },
	{ "snapshot-none", b_map_nothing },
	{ "snapshot-none-table", b_map_table },
	{ "snapshot-1-page", b_map_pages, .n = 1, .loops = 1000 },
#ifdef B_EXTRAS
	{ "snapshot-4k-sticky", b_map_pages, .extra = b_sticky },
	{ "snapshot-4k-folio-order", b_map_pages, .extra = b_folio_order },
	{ "snapshot-thp-extents", b_map_thp, .n = B_HUGE_PAGES, .extra = b_extents },
	{ "snapshot-4k-extents", b_map_pages, .extra = b_extents },
	{ "snapshot-4k-ordered-extents", b_map_split, .extra = b_extents },
	{ "snapshot-4k-ordered-folio-order", b_map_split, .extra = b_folio_order },
	{ "snapshot-4k-encoded", b_map_pages, .extra = b_encoded },
	{ "fault-4k-encoded-mask", b_map_pages, .mask = B_WRITE,
	  .extra = b_encoded_requests },
#endif
};

static void b_row_desc(struct b_row *row, char *desc)
{
	strscpy(desc, row->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(b_rows, b_rows, b_row_desc);

static void walk(struct kunit *test)
{
	const struct b_row *row = test->param_value;
	unsigned long n = row->n ?: B_PAGES;

	b_alloc(test, n);
	row->map(test);
	b_say(test, row->name, b_row(test, row), (u64)n * (row->loops ?: 1));
}

/* How many pages have their neighbour's as a neighbour: what the rows rest on */
static void neighbours(struct kunit *test)
{
	static const struct b_row rows[] = {
		{ "snapshot-4k", b_map_pages },
		{ "snapshot-4k-scattered", b_map_scattered },
	};
	struct b_env *b = test->priv;
	unsigned long i, r, n;

	b_alloc(test, B_PAGES);
	for (r = 0; r < ARRAY_SIZE(rows); r++) {
		rows[r].map(test);
		b_row(test, &rows[r]);
		for (i = 1, n = 0; i < b->n; i++)
			n += b->out[i] == b->out[i - 1] + 1;
		kunit_info(test, "%s: %lu of %lu pages follow their neighbour",
			   rows[r].name, n, b->n);
	}
}

static unsigned int b_sizes[] = { 1, 16, 512, 4096, 65536 };

static void b_size_desc(unsigned int *n, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "%u", *n);
}

KUNIT_ARRAY_PARAM(b_sizes, b_sizes, b_size_desc);

static void scale(struct kunit *test)
{
	unsigned int n = *(unsigned int *)test->param_value;
	struct b_row row = { .n = n, .loops = max(1, 4096 / n) };

	b_alloc(test, n);
	b_map_pages(test);
	b_say_n(test, "snapshot-4k", n, b_row(test, &row), (u64)n * row.loops);
}

static unsigned int b_vmas[] = { 1, 16, 256, B_PAGES };

KUNIT_ARRAY_PARAM(b_vmas, b_vmas, b_size_desc);

/* The same pages, in that many VMAs: every other is not for children */
static void scale_vmas(struct kunit *test)
{
	unsigned int n = *(unsigned int *)test->param_value;
	unsigned long i, each = B_PAGES / n;
	struct b_env *b = test->priv;
	struct b_row row = {};

	b_alloc(test, B_PAGES);
	b_map_pages(test);
	for (i = each; i < b->n; i += 2 * each)
		KUNIT_ASSERT_EQ(test, do_madvise(b->mm, B_AT(i), each << PAGE_SHIFT,
						 MADV_DONTFORK), 0);
	KUNIT_ASSERT_EQ(test, b->mm->map_count, (int)n);
	b_say_n(test, "snapshot-4k-vmas", n, b_row(test, &row), b->n);
}

static unsigned int b_huge[] = { 1, 4, 16, 64 };

KUNIT_ARRAY_PARAM(b_huge, b_huge, b_size_desc);

static void scale_huge(struct kunit *test)
{
	unsigned int n = *(unsigned int *)test->param_value;
	struct b_row row = {};

	b_alloc(test, n * PTRS_PER_PTE);
	b_map_thp(test);
	b_say_n(test, "snapshot-thp", n, b_row(test, &row), n * PTRS_PER_PTE);
#ifdef B_EXTRAS
	row.extra = b_extents;
	b_say_n(test, "snapshot-thp-extents", n, b_row(test, &row), n * PTRS_PER_PTE);
#endif
}

/* ---- The walk, with faults ---- */

/* A fresh region whose every other page is to be had, tables there or not alike */
static void b_map_fresh(struct kunit *test)
{
	struct b_env *b = test->priv;

	KUNIT_ASSERT_EQ(test, vm_munmap(B_BASE, b->n << PAGE_SHIFT), 0);
	b_map_nothing(test);
}

static u64 b_faults_by_walk(struct kunit *test, unsigned long def)
{
	struct b_env *b = test->priv;
	struct hmm_range range;
	unsigned long i;
	int ret = 0;
	u64 t;

	b_map_fresh(test);
	for (i = 0; i < b->n; i++)
		b->out[i] = i % 2 ? 0 : def;
	range = b_range(b, 0, B_WRITE);
	mmap_read_lock(b->mm);
	b_after_tick();
	t = b_count(1, ret = hmm_range_fault(&range));
	mmap_read_unlock(b->mm);
	KUNIT_ASSERT_EQ(test, ret, 0);
	return t;
}

static u64 b_faults_bare(struct kunit *test, unsigned long def)
{
	unsigned int flags = FAULT_FLAG_REMOTE;
	struct vm_area_struct *vma;
	struct b_env *b = test->priv;
	vm_fault_t fault = 0;
	bool failed;
	u64 t;

	if (def == B_WRITE)
		flags |= FAULT_FLAG_WRITE;
	b_map_fresh(test);
	mmap_read_lock(b->mm);
	vma = vma_lookup(b->mm, B_BASE);
	b_after_tick();
	t = b_count(B_FAULTS, fault |= handle_mm_fault(vma, B_AT(2 * i), flags, NULL));
	mmap_read_unlock(b->mm);
	failed = fault & VM_FAULT_ERROR;
	KUNIT_ASSERT_FALSE(test, failed);
	return t;
}

static void b_every_other(struct kunit *test, const char *name, const char *bare_name,
			  unsigned long def)
{
	u64 total[B_REPS], bare[B_REPS];
	unsigned int rep;
	u64 t, base;

	b_alloc(test, 2 * B_FAULTS);
	b_map_nothing(test);
	for (rep = 0; rep < B_REPS; rep++) {
		total[rep] = b_faults_by_walk(test, def);
		bare[rep] = b_faults_bare(test, def);
	}
	t = b_median(total, B_REPS);
	base = b_median(bare, B_REPS);
	kunit_info(test, "%llu..%llu in all, bare %llu..%llu", total[0],
		   total[B_REPS - 1], bare[0], bare[B_REPS - 1]);
	b_say(test, bare_name, base, B_FAULTS);
	b_say(test, name, t > base ? t - base : 0, B_FAULTS);
}

static void every_other(struct kunit *test)
{
	b_every_other(test, "fault-every-other", "fault-every-other-bare", B_WRITE);
}

/* The zero page each time: what is the walk's own stands out more */
static void every_other_read(struct kunit *test)
{
	b_every_other(test, "fault-every-other-read", "fault-every-other-read-bare",
		      B_READ);
}

static struct kunit_case bench_cases[] = {
	KUNIT_CASE_PARAM(walk, b_rows_gen_params),
	KUNIT_CASE(neighbours),
	KUNIT_CASE_PARAM(scale, b_sizes_gen_params),
	KUNIT_CASE_PARAM(scale_vmas, b_vmas_gen_params),
	KUNIT_CASE_PARAM(scale_huge, b_huge_gen_params),
	KUNIT_CASE(every_other),
	KUNIT_CASE(every_other_read),
	{}
};

static struct kunit_suite bench_suite = {
	.name = "hmm_bench",
	.init = b_init,
	.exit = b_exit,
	.test_cases = bench_cases,
};

kunit_test_suite(bench_suite);

MODULE_DESCRIPTION("Benchmarks of HMM ranges");
MODULE_LICENSE("GPL");
