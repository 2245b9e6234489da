/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MM_TESTS_FAIL_NTH_H
#define _MM_TESTS_FAIL_NTH_H

/*
 * The nth allocation of a call fails, for n = 1, 2, 3, ... until the call needs no
 * more than n - 1
 *
 * By the kernel's own fault injection: a task with current->fail_nth of n sees its
 * nth allocation fail, and whoever works on behalf of it elsewhere sees nothing. By
 * default allocations that may sleep are spared, which is told by files of debugfs
 * only. KUnit runs before anybody could write to them, so what they stand for is
 * written: the private data of such a file is the address of its value.
 */
#include <kunit/resource.h>
#include <kunit/test.h>
#include <linux/dcache.h>
#include <linux/debugfs.h>
#include <linux/fs.h>
#include <linux/kconfig.h>
#include <linux/sched.h>

#if IS_ENABLED(CONFIG_FAULT_INJECTION_DEBUG_FS) && IS_ENABLED(CONFIG_FAILSLAB) && \
	IS_ENABLED(CONFIG_FAIL_PAGE_ALLOC)

struct fail_nth {
	bool *slab_spares_sleepers, *page_spares_sleepers;
	unsigned long *slab_verbose, *page_verbose;
	u32 *page_min_order;
	struct {
		bool slab_spares_sleepers, page_spares_sleepers;
		unsigned long slab_verbose, page_verbose;
		u32 page_min_order;
	} was;
};

static inline void *fail_nth_value(const char *dir, const char *file)
{
	struct dentry *parent = debugfs_lookup(dir, NULL), *dentry;
	void *value = NULL;

	if (!parent)
		return NULL;
	dentry = debugfs_lookup(file, parent);
	if (dentry)
		value = d_inode(dentry)->i_private;
	dput(dentry);
	dput(parent);
	return value;
}

static inline bool fail_nth_find(struct fail_nth *f)
{
	f->slab_spares_sleepers = fail_nth_value("failslab", "ignore-gfp-wait");
	f->slab_verbose = fail_nth_value("failslab", "verbose");
	f->page_spares_sleepers = fail_nth_value("fail_page_alloc", "ignore-gfp-wait");
	f->page_verbose = fail_nth_value("fail_page_alloc", "verbose");
	f->page_min_order = fail_nth_value("fail_page_alloc", "min-order");
	return f->slab_spares_sleepers && f->slab_verbose && f->page_spares_sleepers &&
	       f->page_verbose && f->page_min_order;
}

static inline void fail_nth_restore(void *data)
{
	struct fail_nth *f = data;

	*f->slab_spares_sleepers = f->was.slab_spares_sleepers;
	*f->slab_verbose = f->was.slab_verbose;
	*f->page_spares_sleepers = f->was.page_spares_sleepers;
	*f->page_verbose = f->was.page_verbose;
	*f->page_min_order = f->was.page_min_order;
}

/*
 * Until the case ends: all allocations, but for those of less than 1 << @min_order
 * pages, may be made to fail, and no word of it on the console.
 */
static inline void fail_nth_begin(struct kunit *test, u32 min_order)
{
	struct fail_nth *f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, f);
	if (!fail_nth_find(f))
		kunit_skip(test, "no files of fault injection in debugfs");
	f->was.slab_spares_sleepers = *f->slab_spares_sleepers;
	f->was.slab_verbose = *f->slab_verbose;
	f->was.page_spares_sleepers = *f->page_spares_sleepers;
	f->was.page_verbose = *f->page_verbose;
	f->was.page_min_order = *f->page_min_order;
	KUNIT_ASSERT_EQ(test, kunit_add_action(test, fail_nth_restore, f), 0);
	*f->slab_spares_sleepers = false;
	*f->slab_verbose = 0;
	*f->page_spares_sleepers = false;
	*f->page_verbose = 0;
	*f->page_min_order = min_order;
}

/* The next one but @n - 1 of this task fails */
static inline void fail_nth_arm(unsigned int n)
{
	WRITE_ONCE(current->fail_nth, n);
}

/* None fails any more. Has one? */
static inline bool fail_nth_disarm(void)
{
	bool failed = !READ_ONCE(current->fail_nth);

	WRITE_ONCE(current->fail_nth, 0);
	return failed;
}

#else

static inline void fail_nth_begin(struct kunit *test, u32 min_order)
{
	kunit_skip(test, "no fault injection in this kernel");
}

static inline void fail_nth_arm(unsigned int n)
{
}

static inline bool fail_nth_disarm(void)
{
	return false;
}

#endif

#endif /* _MM_TESTS_FAIL_NTH_H */
