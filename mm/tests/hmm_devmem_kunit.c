// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of devices' memory: how it comes and goes, and who gets its pages
 *
 * Each case has a device of its own, whose memory is hot-added for real, at physical
 * addresses with nothing behind them: no case reads or writes what is in a page. At
 * the end /proc/iomem must have as many entries as at the beginning.
 *
 * Where threads or CPUs compete, a table says of each page whether somebody has it,
 * and a page that two have at a time is counted. What they use is all in the
 * environment, which stays for ever if a thread does not end (test_thread.h).
 *
 * In this file: e is the environment of the case, m a memory, p a page.
 */
#include <kunit/test.h>
#include <linux/bitmap.h>
#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/device.h>
#include <linux/hmm_devmem.h>
#include <linux/ioport.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/nodemask.h>
#include <linux/pagemap.h>
#include <linux/platform_device.h>
#include <linux/prandom.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/swap.h>
#include <linux/topology.h>
#include <linux/vmalloc.h>
#include <linux/vmstat.h>

#include "../internal.h"
#include "fail_nth.h"
#include "test_thread.h"
#include "warnings.h"

#define DM_PAGES		1024UL
#define DM_SIZE		(DM_PAGES << PAGE_SHIFT)

/* One for each CPU, where a case has them */
struct dm_thread {
	struct dm_env *e;
	struct test_thread *thread;
	struct rnd_state rnd;
	unsigned int rounds;
	unsigned long taken, missed, late;
	struct completion first;	/* has taken a page, or has ended */
};

struct dm_env {
	struct device *dev;
	unsigned int resources;
	struct hmm_devmem *m;
	bool lost;			/* somebody uses it for ever */
	bool over;			/* no page may be handed out any more */
	struct dm_thread *threads;	/* by CPU */
	struct page **pages;		/* room for DM_PAGES */
	atomic_t freed;			/* calls of page_free */
	atomic_t odd;			/* what must not happen */
	atomic_t *owners;		/* of each page: who has it */
	void *seen;			/* zone_device_data in page_free */
};

/* ---- Environment ---- */

static vm_fault_t dm_migrate_to_ram(struct vm_fault *vmf)
{
	return VM_FAULT_SIGBUS;
}

static void dm_page_free(struct hmm_devmem *m, struct page *p)
{
	struct dm_env *e = hmm_devmem_private(m);

	WRITE_ONCE(e->seen, p->zone_device_data);
	if (page_ref_count(p) || hmm_devmem_from_page(p) != m)
		atomic_inc(&e->odd);
	atomic_inc(&e->freed);
}

static unsigned long dm_failed_pfn, dm_failed_nr;

static int dm_memory_failure(struct hmm_devmem *m, unsigned long pfn,
			     unsigned long nr_pages, int mf_flags)
{
	dm_failed_pfn = pfn;
	dm_failed_nr = nr_pages;
	return mf_flags;
}

static const struct hmm_devmem_ops dm_ops = {
	.migrate_to_ram = dm_migrate_to_ram,
	.page_free = dm_page_free,
};

static struct hmm_devmem_desc dm_desc(struct dm_env *e)
{
	return (struct hmm_devmem_desc){
		.name = "hmm_devmem_kunit",
		.type = MEMORY_DEVICE_PRIVATE,
		.size = DM_SIZE,
		.nid = NUMA_NO_NODE,
		.owner = e,
		.private = e,
		.ops = &dm_ops,
	};
}

/* Nothing else comes and goes while the tests run */
static unsigned int dm_resources(struct resource *parent)
{
	struct resource *res;
	unsigned int nr = 0;

	for (res = parent->child; res; res = res->sibling)
		nr += 1 + dm_resources(res);
	return nr;
}

static void dm_env_free(struct dm_env *e)
{
	kfree(e->threads);
	kfree(e->pages);
	kfree(e->owners);
	kfree(e);
}

static int dm_init(struct kunit *test)
{
	struct dm_env *e = kzalloc(sizeof(*e), GFP_KERNEL);

	if (!e)
		return -ENOMEM;
	e->resources = dm_resources(&iomem_resource);
	e->threads = kcalloc(nr_cpu_ids, sizeof(*e->threads), GFP_KERNEL);
	e->pages = kcalloc(DM_PAGES, sizeof(*e->pages), GFP_KERNEL);
	e->owners = kcalloc(DM_PAGES, sizeof(*e->owners), GFP_KERNEL);
	if (!e->threads || !e->pages || !e->owners)
		goto free;
	/* Not one of KUnit's, which go even if something is lost */
	e->dev = root_device_register("hmm_devmem_kunit");
	if (IS_ERR(e->dev))
		goto free;
	test->priv = e;
	return 0;

free:
	dm_env_free(e);
	return -ENOMEM;
}

static void dm_work_unregister(struct test_thread *thread)
{
	struct dm_env *e = thread->arg;

	root_device_unregister(e->dev);
}

static void dm_exit(struct kunit *test)
{
	struct dm_env *e = test->priv;
	struct test_thread *t;

	if (!e || e->lost)
		return;
	/* Waits for pages, for ever if the case failed while it had some */
	t = test_thread_start(test, -1, dm_work_unregister, e);
	if (!t || !test_thread_join(test, t))
		return;
	KUNIT_EXPECT_EQ(test, dm_resources(&iomem_resource), e->resources);
	KUNIT_EXPECT_EQ(test, atomic_read(&e->odd), 0);
	dm_env_free(e);
}

/* The one memory that most cases have */
static struct hmm_devmem *dm_add(struct kunit *test)
{
	struct dm_env *e = test->priv;
	struct hmm_devmem_desc desc = dm_desc(e);

	e->m = devm_hmm_devmem_add(e->dev, &desc);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, e->m);
	return e->m;
}

static void dm_put(struct page *p)
{
	unlock_page(p);
	put_page(p);
}

static void dm_put_all(struct page **pages, unsigned long nr)
{
	while (nr--)
		dm_put(pages[nr]);
}

/* ==== Adding and removing ==== */

static void devmem_adds(struct kunit *test)
{
	struct hmm_devmem *m = dm_add(test);
	unsigned long first = hmm_devmem_first_pfn(m), i;
	struct dm_env *e = test->priv;

	KUNIT_EXPECT_EQ(test, hmm_devmem_nr_pages(m), DM_PAGES);
	KUNIT_EXPECT_EQ(test, hmm_devmem_nr_free(m), DM_PAGES);
	KUNIT_EXPECT_PTR_EQ(test, hmm_devmem_private(m), (void *)e);
	KUNIT_EXPECT_EQ(test, (int)region_intersects(PFN_PHYS(first), DM_SIZE, 0,
						     IORES_DESC_DEVICE_PRIVATE_MEMORY),
			(int)REGION_INTERSECTS);
	for (i = 0; i < DM_PAGES; i++) {
		struct page *p = pfn_to_page(first + i);

		KUNIT_ASSERT_TRUE(test, is_device_private_page(p));
		KUNIT_ASSERT_PTR_EQ(test, hmm_devmem_from_page(p), m);
		KUNIT_ASSERT_EQ(test, hmm_devmem_page_index(p), i);
		KUNIT_ASSERT_PTR_EQ(test, hmm_devmem_page(m, i), p);
		KUNIT_ASSERT_EQ(test, page_ref_count(p), 0);
	}

	devm_hmm_devmem_remove(e->dev, m);
	KUNIT_EXPECT_EQ(test, (int)region_intersects(PFN_PHYS(first), DM_SIZE, 0,
						     IORES_DESC_NONE),
			(int)REGION_DISJOINT);
	KUNIT_EXPECT_NULL(test, get_dev_pagemap(first, NULL));
}

/* So many allocations at least, of those that may be made to fail */
#define DM_FAIL_LEAST	8

/* The nth allocation fails, for each n: nothing is left, and then it works */
static void devmem_no_memory(struct kunit *test)
{
	struct dm_env *e = test->priv;
	struct hmm_devmem_desc desc = dm_desc(e);
	unsigned int n, errors = 0;
	struct hmm_devmem *m;

	fail_nth_begin(test, 0);
	/* Core code warns of what it could not add: once, since that is its way */
	allow_warning_begin(test);
	for (n = 1;; n++) {
		fail_nth_arm(n);
		m = devm_hmm_devmem_add(e->dev, &desc);
		if (!fail_nth_disarm())
			break;
		if (IS_ERR(m)) {
			KUNIT_EXPECT_EQ_MSG(test, PTR_ERR(m), -ENOMEM, "n %u", n);
			errors++;
		} else {
			devm_hmm_devmem_remove(e->dev, m);
		}
		KUNIT_EXPECT_EQ_MSG(test, dm_resources(&iomem_resource), e->resources,
				    "n %u", n);
	}
	allow_warning_end(test);
	kunit_info(test, "%u allocations failed, %u of them the call", n - 1, errors);
	KUNIT_EXPECT_GE(test, errors, DM_FAIL_LEAST);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, m);
	KUNIT_EXPECT_EQ(test, hmm_devmem_alloc_pages(m, DM_PAGES, e->pages), DM_PAGES);
	dm_put_all(e->pages, DM_PAGES);
}

static void dm_refused(struct kunit *test, struct hmm_devmem_desc desc,
		       const char *what)
{
	struct dm_env *e = test->priv;

	KUNIT_EXPECT_EQ_MSG(test, PTR_ERR(devm_hmm_devmem_add(e->dev, &desc)),
			    -EINVAL, "%s", what);
	KUNIT_EXPECT_EQ_MSG(test, dm_resources(&iomem_resource), e->resources,
			    "%s", what);
}

#define DM_REFUSED(t, change...)					\
({									\
	struct kunit *__test = (t);					\
	struct hmm_devmem_desc desc = dm_desc(__test->priv);		\
									\
	change;								\
	dm_refused(__test, desc, #change);				\
})

static void devmem_bad_desc(struct kunit *test)
{
	static const struct hmm_devmem_ops no_migrate = {};
	struct resource res = { .start = SZ_4M, .end = SZ_8M - 1 };
	struct dm_env *e = test->priv;
	struct hmm_devmem_desc good = dm_desc(e);

	KUNIT_EXPECT_EQ(test, PTR_ERR(devm_hmm_devmem_add(NULL, &good)), -EINVAL);
	KUNIT_EXPECT_EQ(test, PTR_ERR(devm_hmm_devmem_add(e->dev, NULL)), -EINVAL);
	DM_REFUSED(test, desc.name = NULL);
	DM_REFUSED(test, desc.name = "");
	DM_REFUSED(test, desc.ops = NULL);
	DM_REFUSED(test, desc.ops = &no_migrate);
	DM_REFUSED(test, desc.owner = NULL);
	DM_REFUSED(test, desc.type = 0);
	DM_REFUSED(test, desc.type = MEMORY_DEVICE_FS_DAX);
	DM_REFUSED(test, desc.type = MEMORY_DEVICE_GENERIC);
	DM_REFUSED(test, desc.type = MEMORY_DEVICE_PCI_P2PDMA);
	DM_REFUSED(test, desc.nid = -2);
	DM_REFUSED(test, desc.nid = MAX_NUMNODES);
	DM_REFUSED(test, desc.nid = INT_MAX);
	DM_REFUSED(test, desc.size = 0);
	DM_REFUSED(test, desc.size = PAGE_SIZE);
	DM_REFUSED(test, desc.size = DM_SIZE + 1);
	DM_REFUSED(test, desc.size = U64_MAX);
	DM_REFUSED(test, desc.res = &res);
	DM_REFUSED(test, desc.type = MEMORY_DEVICE_COHERENT);
	DM_REFUSED(test, desc.type = MEMORY_DEVICE_COHERENT; desc.res = &res);
	DM_REFUSED(test, desc.type = MEMORY_DEVICE_COHERENT; desc.res = &res;
		   desc.size = 0; res.start++);
	DM_REFUSED(test, desc.type = MEMORY_DEVICE_COHERENT; desc.res = &res;
		   desc.size = 0; res.start = res.end + 1);
}

/* As many as there are at all, of which others have some, and more than that */
static void devmem_no_addresses(struct kunit *test)
{
	u64 all = min_t(u64, iomem_resource.end, PHYSMEM_END) + 1;
	u64 sizes[] = { all, 2 * all, 1ULL << 60, 1ULL << 63, 0 - SZ_2M };
	struct dm_env *e = test->priv;
	struct hmm_devmem_desc desc = dm_desc(e);
	int i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		desc.size = sizes[i];
		KUNIT_EXPECT_EQ_MSG(test,
				    PTR_ERR(devm_hmm_devmem_add(e->dev, &desc)),
				    -ERANGE, "size %llx", sizes[i]);
		KUNIT_EXPECT_EQ(test, dm_resources(&iomem_resource), e->resources);
	}
}

static void devmem_coherent(struct kunit *test)
{
	struct dm_env *e = test->priv;
	struct hmm_devmem_desc desc = dm_desc(e);
	struct resource *res;
	struct hmm_devmem *m;
	struct page *p;

	res = request_free_mem_region(&iomem_resource, DM_SIZE, "devmem_coherent");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, res);
	desc.type = MEMORY_DEVICE_COHERENT;
	desc.size = 0;
	desc.res = res;
	m = devm_hmm_devmem_add(e->dev, &desc);
	if (IS_ERR(m)) {
		release_mem_region(res->start, resource_size(res));
		KUNIT_FAIL_AND_ABORT(test, "not added: %pe\n", m);
	}
	KUNIT_EXPECT_EQ(test, PFN_PHYS(hmm_devmem_first_pfn(m)), res->start);
	KUNIT_EXPECT_EQ(test, hmm_devmem_nr_pages(m),
			resource_size(res) >> PAGE_SHIFT);
	p = hmm_devmem_alloc_page(m);
	KUNIT_EXPECT_NOT_NULL(test, p);
	if (p) {
		KUNIT_EXPECT_TRUE(test, is_device_coherent_page(p));
		dm_put(p);
	}
	devm_hmm_devmem_remove(e->dev, m);
	/* The caller's, as before */
	KUNIT_EXPECT_EQ(test, dm_resources(&iomem_resource), e->resources + 1);
	release_mem_region(res->start, resource_size(res));
}

static void devmem_nodes(struct kunit *test)
{
	struct dm_env *e = test->priv;
	struct hmm_devmem_desc desc = dm_desc(e);
	struct hmm_devmem *m;
	int nid;

	for_each_online_node(nid) {
		desc.nid = nid;
		m = devm_hmm_devmem_add(e->dev, &desc);
		KUNIT_ASSERT_NOT_ERR_OR_NULL(test, m);
		KUNIT_EXPECT_EQ(test, page_to_nid(hmm_devmem_page(m, 0)), nid);
		/* None said: that of the device */
		desc.nid = NUMA_NO_NODE;
		set_dev_node(e->dev, nid);
		m = devm_hmm_devmem_add(e->dev, &desc);
		KUNIT_ASSERT_NOT_ERR_OR_NULL(test, m);
		KUNIT_EXPECT_EQ(test, page_to_nid(hmm_devmem_page(m, 0)), nid);
	}
}

static void devmem_passes_memory_failure_on(struct kunit *test)
{
	static const struct hmm_devmem_ops ops = {
		.migrate_to_ram = dm_migrate_to_ram,
		.memory_failure = dm_memory_failure,
	};
	struct dm_env *e = test->priv;
	struct hmm_devmem_desc desc = dm_desc(e);
	struct hmm_devmem *m = dm_add(test);

	KUNIT_EXPECT_FALSE(test, pgmap_has_memory_failure(&m->pgmap));
	desc.ops = &ops;
	m = devm_hmm_devmem_add(e->dev, &desc);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, m);
	KUNIT_ASSERT_TRUE(test, pgmap_has_memory_failure(&m->pgmap));
	KUNIT_EXPECT_EQ(test, m->pgmap.ops->memory_failure(&m->pgmap, 42, 3, 7), 7);
	KUNIT_EXPECT_EQ(test, dm_failed_pfn, 42UL);
	KUNIT_EXPECT_EQ(test, dm_failed_nr, 3UL);
}

/* To the page: with what each CPU has not added to the sum yet */
static long dm_slab_pages(void)
{
	long pages;
	pg_data_t *node;
	int cpu;

	rcu_barrier();
	kvfree_rcu_barrier();
	pages = global_node_page_state_pages(NR_SLAB_UNRECLAIMABLE_B);
	for_each_online_pgdat(node) {
		for_each_online_cpu(cpu)
			pages += per_cpu_ptr(node->per_cpu_nodestats, cpu)
					 ->vm_node_stat_diff[NR_SLAB_UNRECLAIMABLE_B];
	}
	return pages;
}

static void dm_add_and_remove(struct kunit *test, unsigned int times)
{
	/* A long name, so that one that is lost is noticed */
	static const char name[] = { [0 ... 1999] = 'x', '\0' };
	struct dm_env *e = test->priv;
	struct hmm_devmem_desc desc = dm_desc(e);

	desc.name = name;
	while (times--) {
		struct hmm_devmem *m = devm_hmm_devmem_add(e->dev, &desc);
		struct page *p;

		KUNIT_ASSERT_NOT_ERR_OR_NULL(test, m);
		p = hmm_devmem_alloc_page(m);
		KUNIT_ASSERT_NOT_NULL(test, p);
		dm_put(p);
		devm_hmm_devmem_remove(e->dev, m);
		KUNIT_ASSERT_EQ(test, dm_resources(&iomem_resource), e->resources);
	}
}

static void devmem_leaves_nothing(struct kunit *test)
{
	long before, after;

	/* What is allocated once is no leak */
	dm_add_and_remove(test, 5);
	before = dm_slab_pages();
	dm_add_and_remove(test, 100);
	after = dm_slab_pages();
	/* KASAN keeps what has been freed; such a kernel has kmemleak for this */
	if (IS_ENABLED(CONFIG_KASAN_GENERIC))
		return;
	/* An object or a name lost each time are 25 pages at least */
	KUNIT_EXPECT_LT(test, after - before, 20L);
}

/* ==== With the device ==== */

struct dm_order {
	struct dm_env *e;
	unsigned long pfn;
	struct page *held;
	int before, after;	/* is the memory there; -1: not called */
};

static int dm_memory_there(unsigned long pfn)
{
	struct dev_pagemap *pgmap = get_dev_pagemap(pfn, NULL);

	put_dev_pagemap(pgmap);
	return !!pgmap;
}

static void dm_released_first(void *data)
{
	struct dm_order *o = data;

	o->after = dm_memory_there(o->pfn);
	/* As a driver does, when what it set up later goes before the memory */
	dm_put(o->held);
}

static void dm_released_last(void *data)
{
	struct dm_order *o = data;

	o->before = dm_memory_there(o->pfn);
}

static void devmem_goes_in_order(struct kunit *test)
{
	struct dm_env *e = test->priv;
	struct dm_order o = { .e = e, .before = -1, .after = -1 };
	struct device *dev = hmm_devmem_device_create("devmem_goes_in_order");
	struct hmm_devmem_desc desc = dm_desc(e);
	struct hmm_devmem *m;

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, dev);
	KUNIT_EXPECT_EQ(test, devm_add_action(dev, dm_released_last, &o), 0);
	m = devm_hmm_devmem_add(dev, &desc);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, m);
	o.pfn = hmm_devmem_first_pfn(m);
	o.held = hmm_devmem_alloc_page(m);
	KUNIT_ASSERT_NOT_NULL(test, o.held);
	KUNIT_EXPECT_EQ(test, devm_add_action(dev, dm_released_first, &o), 0);

	hmm_devmem_device_destroy(dev);
	KUNIT_EXPECT_EQ(test, o.after, 1);
	KUNIT_EXPECT_EQ(test, o.before, 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&e->freed), 1);
}

static struct dm_env *dm_probing;
static unsigned long dm_probed_pfn;
static int dm_probe_result;

static int dm_probe(struct platform_device *pdev)
{
	struct hmm_devmem_desc desc = dm_desc(dm_probing);
	struct hmm_devmem *m = devm_hmm_devmem_add(&pdev->dev, &desc);
	struct page *p;

	if (IS_ERR(m))
		return PTR_ERR(m);
	dm_probed_pfn = hmm_devmem_first_pfn(m);
	p = hmm_devmem_alloc_page(m);
	if (p)
		dm_put(p);
	return dm_probe_result;
}

static struct platform_driver dm_driver = {
	.probe = dm_probe,
	.driver = {
		.name = "hmm_devmem_kunit",
		.probe_type = PROBE_FORCE_SYNCHRONOUS,
	},
};

static void dm_try_probe(struct kunit *test, int result)
{
	struct platform_device *pdev;
	bool there = !result;

	dm_probing = test->priv;
	dm_probed_pfn = 0;
	dm_probe_result = result;
	pdev = platform_device_register_simple("hmm_devmem_kunit",
					       PLATFORM_DEVID_NONE, NULL, 0);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, pdev);
	KUNIT_EXPECT_NE(test, dm_probed_pfn, 0UL);
	KUNIT_EXPECT_EQ(test, !!pdev->dev.driver, there);
	KUNIT_EXPECT_EQ(test, dm_memory_there(dm_probed_pfn), there);
	platform_device_unregister(pdev);
	KUNIT_EXPECT_FALSE(test, dm_memory_there(dm_probed_pfn));
}

static void devmem_goes_with_failed_probe(struct kunit *test)
{
	KUNIT_ASSERT_EQ(test, platform_driver_register(&dm_driver), 0);
	dm_try_probe(test, -ENODEV);
	dm_try_probe(test, 0);
	platform_driver_unregister(&dm_driver);
}

/* ==== Pages ==== */

static void devmem_each_page_once(struct kunit *test)
{
	struct dm_env *e = test->priv;
	struct hmm_devmem *m = dm_add(test);
	unsigned long round, i;

	/* Pages that nobody had before, and then those from the lists */
	for (round = 0; round < 3; round++) {
		DECLARE_BITMAP(had, DM_PAGES) = {};

		for (i = 0; i < DM_PAGES; i++) {
			struct page *p = hmm_devmem_alloc_page(m);

			KUNIT_ASSERT_NOT_NULL(test, p);
			KUNIT_EXPECT_PTR_EQ(test, hmm_devmem_from_page(p), m);
			KUNIT_EXPECT_FALSE(test, test_and_set_bit(hmm_devmem_page_index(p), had));
			KUNIT_EXPECT_EQ(test, page_ref_count(p), 1);
			KUNIT_EXPECT_TRUE(test, PageLocked(p));
			KUNIT_EXPECT_NULL(test, p->zone_device_data);
			KUNIT_EXPECT_EQ(test, hmm_devmem_nr_free(m),
					DM_PAGES - 1 - i);
			p->zone_device_data = (void *)-1UL;
			e->pages[i] = p;
		}
		KUNIT_EXPECT_NULL(test, hmm_devmem_alloc_page(m));
		KUNIT_EXPECT_TRUE(test, bitmap_full(had, DM_PAGES));
		dm_put_all(e->pages, DM_PAGES);
		KUNIT_EXPECT_EQ(test, hmm_devmem_nr_free(m), DM_PAGES);
		KUNIT_EXPECT_EQ(test, atomic_read(&e->freed),
				(int)(DM_PAGES * (round + 1)));
	}
}

static void devmem_many_at_once(struct kunit *test)
{
	struct dm_env *e = test->priv;
	struct hmm_devmem *m = dm_add(test);
	unsigned long i;

	KUNIT_EXPECT_EQ(test, hmm_devmem_alloc_pages(m, 0, e->pages), 0UL);
	KUNIT_ASSERT_EQ(test, hmm_devmem_alloc_pages(m, 600, e->pages), 600UL);
	for (i = 0; i < 600; i++)
		KUNIT_EXPECT_EQ(test, hmm_devmem_page_index(e->pages[i]), i);
	/* No more than there are */
	KUNIT_EXPECT_EQ(test, hmm_devmem_alloc_pages(m, DM_PAGES, e->pages + 600),
			DM_PAGES - 600);
	KUNIT_EXPECT_EQ(test, hmm_devmem_alloc_pages(m, 1, e->pages), 0UL);
	dm_put_all(e->pages, DM_PAGES);
}

/* The driver's word in the page is there to the last, and gone for the next one */
static void devmem_page_data(struct kunit *test)
{
	struct dm_env *e = test->priv;
	struct hmm_devmem *m = dm_add(test);
	struct page *p = hmm_devmem_alloc_page(m);

	KUNIT_ASSERT_NOT_NULL(test, p);
	p->zone_device_data = e;
	dm_put(p);
	KUNIT_EXPECT_PTR_EQ(test, e->seen, (void *)e);
	KUNIT_EXPECT_PTR_EQ(test, hmm_devmem_alloc_page(m), p);
	KUNIT_EXPECT_NULL(test, p->zone_device_data);
	/* Put while locked, as a driver does that undoes an allocation */
	put_page(p);
	KUNIT_EXPECT_EQ(test, hmm_devmem_nr_free(m), DM_PAGES);
	p = hmm_devmem_alloc_page(m);
	KUNIT_ASSERT_NOT_NULL(test, p);
	KUNIT_EXPECT_TRUE(test, PageLocked(p));
	dm_put(p);
}

/* A page that nobody has had is on no list */
static void devmem_large_is_not_listed(struct kunit *test)
{
	struct dm_env *e = test->priv;
	struct hmm_devmem_desc desc = dm_desc(e);
	struct hmm_devmem *m;
	unsigned long i;

	desc.size = SZ_512M;
	m = devm_hmm_devmem_add(e->dev, &desc);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, m);
	for (i = 0; i < 100; i++) {
		e->pages[i] = hmm_devmem_alloc_page(m);
		KUNIT_ASSERT_NOT_NULL(test, e->pages[i]);
	}
	dm_put_all(e->pages, 100);
	/* One batch more than what was used, on each CPU that this ran on */
	for (i = 100 + 32 * nr_cpu_ids; i < hmm_devmem_nr_pages(m); i++)
		KUNIT_ASSERT_NULL(test, hmm_devmem_page(m, i)->zone_device_data);
	KUNIT_EXPECT_EQ(test, hmm_devmem_nr_free(m), hmm_devmem_nr_pages(m));
}

static void devmem_double_put(struct kunit *test)
{
	struct hmm_devmem *m = dm_add(test);
	struct page *p = hmm_devmem_alloc_page(m);
	struct dm_env *e = test->priv;

	KUNIT_ASSERT_NOT_NULL(test, p);
	dm_put(p);
	expect_warning_begin(test);
	set_page_count(p, 1);
	put_page(p);
	/* And one that nobody has had; the warning comes once */
	set_page_count(hmm_devmem_page(m, DM_PAGES - 1), 1);
	put_page(hmm_devmem_page(m, DM_PAGES - 1));
	expect_warning_end(test);
	KUNIT_EXPECT_EQ(test, atomic_read(&e->freed), 1);
	KUNIT_EXPECT_EQ(test, hmm_devmem_nr_free(m), DM_PAGES);
	KUNIT_EXPECT_EQ(test, hmm_devmem_alloc_pages(m, DM_PAGES + 1, e->pages),
			DM_PAGES);
	dm_put_all(e->pages, DM_PAGES);
}

static void devmem_reference_on_free_page(struct kunit *test)
{
	struct hmm_devmem *m = dm_add(test);
	struct page *p = hmm_devmem_alloc_page(m);
	struct dm_env *e = test->priv;
	unsigned long nr;

	KUNIT_ASSERT_NOT_NULL(test, p);
	dm_put(p);
	set_page_count(p, 1);
	expect_warning_begin(test);
	nr = hmm_devmem_alloc_pages(m, DM_PAGES, e->pages);
	expect_warning_end(test);
	KUNIT_EXPECT_EQ(test, nr, DM_PAGES - 1);
	while (nr--) {
		KUNIT_EXPECT_PTR_NE(test, e->pages[nr], p);
		dm_put(e->pages[nr]);
	}
	/* Removal does not wait for it */
	set_page_count(p, 0);
	devm_hmm_devmem_remove(e->dev, m);
}

/* ==== CPUs ==== */

static void dm_put_half_in_irq(void *data)
{
	struct dm_env *e = data;

	dm_put_all(e->pages, DM_PAGES / 2);
}

/* In an interrupt of that CPU; on the real-time kernel, where locks sleep, in a thread */
static void dm_call_on(int cpu, void (*call)(void *), void *data)
{
	if (!IS_ENABLED(CONFIG_PREEMPT_RT)) {
		smp_call_function_single(cpu, call, data, 1);
		return;
	}
	set_cpus_allowed_ptr(current, cpumask_of(cpu));
	call(data);
	set_cpus_allowed_ptr(current, cpu_possible_mask);
}

struct dm_take {
	struct dm_env *e;
	unsigned long want, got;
};

static void dm_take_in_irq(void *data)
{
	struct dm_take *t = data;

	t->got = hmm_devmem_alloc_pages(t->e->m, t->want, t->e->pages);
}

/*
 * Pages in the cache of one CPU, all others in use: another CPU finds each of them.
 * Both in an interrupt.
 */
static void devmem_finds_others_caches(struct kunit *test)
{
	struct dm_env *e = test->priv;
	struct hmm_devmem *m = dm_add(test);
	struct dm_take t = { .e = e };
	int from, to;

	if (num_online_cpus() < 2)
		kunit_skip(test, "needs two CPUs");
	KUNIT_ASSERT_EQ(test, hmm_devmem_alloc_pages(m, DM_PAGES, e->pages), DM_PAGES);
	for_each_online_cpu(from) {
		for_each_online_cpu(to) {
			dm_call_on(from, dm_put_half_in_irq, e);
			t.want = DM_PAGES / 2 + 1;
			dm_call_on(to, dm_take_in_irq, &t);
			KUNIT_ASSERT_EQ(test, t.got, DM_PAGES / 2);
		}
	}
	KUNIT_EXPECT_EQ(test, hmm_devmem_nr_free(m), 0UL);
	dm_put_all(e->pages, DM_PAGES);
}

/* Caches full on all CPUs: removal does not mind */
static void devmem_removal_with_full_caches(struct kunit *test)
{
	struct dm_env *e = test->priv;
	struct hmm_devmem *m = dm_add(test);
	struct dm_take t = { .e = e, .want = DM_PAGES / 2 };
	int cpu;

	for_each_online_cpu(cpu) {
		dm_call_on(cpu, dm_take_in_irq, &t);
		KUNIT_ASSERT_EQ(test, t.got, DM_PAGES / 2);
		dm_call_on(cpu, dm_put_half_in_irq, e);
	}
	KUNIT_EXPECT_EQ(test, hmm_devmem_nr_free(m), DM_PAGES);
	devm_hmm_devmem_remove(e->dev, m);
}

static bool dm_own(struct dm_env *e, struct page *p)
{
	if (atomic_xchg(&e->owners[hmm_devmem_page_index(p)], 1)) {
		atomic_inc(&e->odd);
		return false;
	}
	return true;
}

static void dm_disown(struct dm_env *e, struct page *p)
{
	if (!atomic_xchg(&e->owners[hmm_devmem_page_index(p)], 0))
		atomic_inc(&e->odd);
	dm_put(p);
}

/* One call's worth of pages, and away with them */
static void dm_compete_round(struct dm_thread *t)
{
	/* Pairs with smp_store_release() in devmem_stop_is_final() */
	bool over = smp_load_acquire(&t->e->over);
	unsigned long want = 1 + prandom_u32_state(&t->rnd) % 64, n, i;
	struct page *mine[64];

	n = hmm_devmem_alloc_pages(t->e->m, want, mine);
	for (i = 0; i < n; i++)
		dm_own(t->e, mine[i]);
	if (n && !t->taken)
		complete_all(&t->first);
	t->taken += n;
	t->missed += n < want;
	t->late += over && n;
	cond_resched();
	while (n--)
		dm_disown(t->e, mine[n]);
}

static void dm_work_compete(struct test_thread *thread)
{
	struct dm_thread *t = thread->arg;
	unsigned int round;

	for (round = 0; round < t->rounds; round++) {
		if (test_thread_must_stop(thread))
			break;
		dm_compete_round(t);
	}
}

/* Until none is handed out any more, and once again */
static void dm_work_until_over(struct test_thread *thread)
{
	struct dm_thread *t = thread->arg;

	while (!READ_ONCE(t->e->over) && !test_thread_must_stop(thread))
		dm_compete_round(t);
	dm_compete_round(t);
}

static void dm_threads_start(struct kunit *test, void (*work)(struct test_thread *t),
			     unsigned int rounds)
{
	struct dm_env *e = test->priv;
	int cpu;

	for_each_online_cpu(cpu) {
		struct dm_thread *t = &e->threads[cpu];

		memset(t, 0, sizeof(*t));
		t->e = e;
		t->rounds = rounds;
		prandom_seed_state(&t->rnd, 1 + cpu);
		init_completion(&t->first);
		t->thread = test_thread_start(test, cpu, work, t);
	}
}

/* False if one of them did not end: then there is nothing more to be done */
static bool dm_threads_join(struct kunit *test)
{
	struct dm_env *e = test->priv;
	int cpu;

	for_each_online_cpu(cpu)
		if (!test_thread_join(test, e->threads[cpu].thread))
			e->lost = true;
	return !e->lost;
}

/*
 * On all CPUs at once, with plenty of pages, and with so few that the threads live
 * on each other's.
 */
static void devmem_no_page_twice(struct kunit *test)
{
	struct dm_env *e = test->priv;
	struct hmm_devmem *m = dm_add(test);
	unsigned long keep = 0, taken = 0;
	int cpu;

	for (;;) {
		dm_threads_start(test, dm_work_compete, 2000);
		if (!dm_threads_join(test))
			return;
		for_each_online_cpu(cpu)
			taken += e->threads[cpu].taken;
		KUNIT_EXPECT_EQ(test, atomic_read(&e->odd), 0);
		KUNIT_EXPECT_EQ(test, hmm_devmem_nr_free(m), DM_PAGES - keep);
		if (keep)
			break;
		keep = hmm_devmem_alloc_pages(m, DM_PAGES - 40, e->pages);
		KUNIT_EXPECT_EQ(test, keep, DM_PAGES - 40);
	}
	KUNIT_EXPECT_GT(test, taken, 2000UL);
	dm_put_all(e->pages, keep);
	KUNIT_EXPECT_EQ(test, hmm_devmem_nr_free(m), DM_PAGES);
}

/*
 * As many pages as there are CPUs: whoever asks for one while each has at most one
 * gets it. That nobody may miss one while it only moves is what is tested.
 */
static void dm_work_one_each(struct test_thread *thread)
{
	struct dm_thread *t = thread->arg;
	unsigned int round;

	for (round = 0; round < t->rounds; round++) {
		struct page *p = hmm_devmem_alloc_page(t->e->m);

		if (test_thread_must_stop(thread))
			t->rounds = 0;
		if (!p) {
			t->missed++;
			continue;
		}
		t->taken++;
		if (dm_own(t->e, p))
			dm_disown(t->e, p);
		if (!(round % 64))
			cond_resched();
	}
}

static void devmem_last_pages_are_found(struct kunit *test)
{
	struct dm_env *e = test->priv;
	struct hmm_devmem *m = dm_add(test);
	unsigned long keep = DM_PAGES - num_online_cpus();
	int cpu;

	KUNIT_ASSERT_EQ(test, hmm_devmem_alloc_pages(m, keep, e->pages), keep);
	dm_threads_start(test, dm_work_one_each, 20000);
	if (!dm_threads_join(test))
		return;
	for_each_online_cpu(cpu) {
		KUNIT_EXPECT_EQ(test, e->threads[cpu].missed, 0UL);
		KUNIT_EXPECT_EQ(test, e->threads[cpu].taken, 20000UL);
	}
	dm_put_all(e->pages, keep);
}

/* ==== The end ==== */

static void devmem_stop(struct kunit *test)
{
	struct dm_env *e = test->priv;
	struct hmm_devmem *m = dm_add(test);
	struct page *p = hmm_devmem_alloc_page(m);

	KUNIT_ASSERT_NOT_NULL(test, p);
	hmm_devmem_stop(m);
	KUNIT_EXPECT_NULL(test, hmm_devmem_alloc_page(m));
	KUNIT_EXPECT_EQ(test, hmm_devmem_alloc_pages(m, 10, e->pages), 0UL);
	KUNIT_EXPECT_EQ(test, hmm_devmem_nr_free(m), DM_PAGES - 1);
	dm_put(p);
	KUNIT_EXPECT_EQ(test, atomic_read(&e->freed), 1);
	KUNIT_EXPECT_EQ(test, hmm_devmem_nr_free(m), DM_PAGES);
	hmm_devmem_stop(m);
	KUNIT_EXPECT_NULL(test, hmm_devmem_alloc_page(m));
	devm_hmm_devmem_remove(e->dev, m);
}

/* Once hmm_devmem_stop() has returned, who asks gets none, on whatever CPU */
static void devmem_stop_is_final(struct kunit *test)
{
	struct dm_env *e = test->priv;
	struct hmm_devmem *m = dm_add(test);
	int cpu;

	dm_threads_start(test, dm_work_until_over, 0);
	for_each_online_cpu(cpu)
		KUNIT_EXPECT_TRUE(test,
				  !e->threads[cpu].thread ||
				  wait_for_completion_timeout(&e->threads[cpu].first,
							      TEST_LIMIT));
	hmm_devmem_stop(m);
	/* Pairs with smp_load_acquire() in dm_compete_round() */
	smp_store_release(&e->over, true);
	if (!dm_threads_join(test))
		return;
	for_each_online_cpu(cpu)
		KUNIT_EXPECT_EQ(test, e->threads[cpu].late, 0UL);
	KUNIT_EXPECT_EQ(test, hmm_devmem_nr_free(m), DM_PAGES);
}

static void dm_work_remove(struct test_thread *thread)
{
	struct dm_env *e = thread->arg;

	devm_hmm_devmem_remove(e->dev, e->m);
}

static void devmem_removal_waits(struct kunit *test)
{
	struct dm_env *e = test->priv;
	struct test_thread *t;
	unsigned long nr = 40;

	KUNIT_ASSERT_EQ(test, hmm_devmem_alloc_pages(dm_add(test), nr, e->pages), nr);
	t = test_thread_start(test, -1, dm_work_remove, e);
	for (; nr; nr /= 2) {
		KUNIT_EXPECT_TRUE(test, test_thread_goes_on(t));
		dm_put_all(e->pages + nr / 2, nr - nr / 2);
	}
	/* Woken, not after the wait that precedes a message */
	KUNIT_EXPECT_TRUE(test,
			  t && wait_for_completion_timeout(&t->done, 5 * HZ));
	e->lost = !test_thread_join(test, t);
}

/* What munlock() has left in the batch of a CPU that has nothing more to add to it */
static void devmem_removal_drains(struct kunit *test)
{
	struct dm_env *e = test->priv;
	struct page *p = hmm_devmem_alloc_page(dm_add(test));
	struct test_thread *t;

	KUNIT_ASSERT_NOT_NULL(test, p);
	munlock_folio(page_folio(p));
	dm_put(p);
	t = test_thread_start(test, -1, dm_work_remove, e);
	/* Not after the wait that precedes a message */
	if (t && !wait_for_completion_timeout(&t->done, 5 * HZ)) {
		KUNIT_FAIL(test, "the batch was not drained");
		lru_add_drain_all();
	}
	e->lost = !test_thread_join(test, t);
	KUNIT_EXPECT_EQ(test, atomic_read(&e->freed), 1);
}

/* ==== Umbrella devices ==== */

static void umbrella_names(struct kunit *test)
{
	struct device *dev, *again;

	KUNIT_EXPECT_EQ(test, PTR_ERR(hmm_devmem_device_create(NULL)), -EINVAL);
	KUNIT_EXPECT_EQ(test, PTR_ERR(hmm_devmem_device_create("")), -EINVAL);
	dev = hmm_devmem_device_create("umbrella_names");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, dev);
	KUNIT_EXPECT_STREQ(test, dev->class->name, "hmm_devmem");
	KUNIT_EXPECT_STREQ(test, dev_name(dev), "umbrella_names");
	KUNIT_EXPECT_EQ(test, PTR_ERR(hmm_devmem_device_create("umbrella_names")),
			-EEXIST);
	hmm_devmem_device_destroy(dev);
	again = hmm_devmem_device_create("umbrella_names");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, again);
	hmm_devmem_device_destroy(again);
}

/* Memories come and go; those that are left go with it */
static void umbrella_holds_several(struct kunit *test)
{
	struct device *dev = hmm_devmem_device_create("umbrella_holds_several");
	struct dm_env *e = test->priv;
	struct hmm_devmem_desc desc = dm_desc(e);
	struct hmm_devmem *m[4];
	struct page *p;
	int i;

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, dev);
	KUNIT_EXPECT_NULL(test, hmm_devmem_device_alloc_page(dev));
	for (i = 0; i < 4; i++) {
		m[i] = devm_hmm_devmem_add(dev, &desc);
		KUNIT_ASSERT_NOT_ERR_OR_NULL(test, m[i]);
	}
	for (i = 0; i < 3; i++) {
		p = hmm_devmem_device_alloc_page(dev);
		KUNIT_ASSERT_NOT_NULL(test, p);
		KUNIT_EXPECT_PTR_EQ(test, hmm_devmem_from_page(p), m[i]);
		dm_put(p);
		devm_hmm_devmem_remove(dev, m[i]);
	}
	hmm_devmem_stop(m[3]);
	KUNIT_EXPECT_NULL(test, hmm_devmem_device_alloc_page(dev));
	devm_hmm_devmem_remove(dev, m[3]);
	KUNIT_EXPECT_NULL(test, hmm_devmem_device_alloc_page(dev));
	for (i = 0; i < 2; i++)
		KUNIT_EXPECT_NOT_ERR_OR_NULL(test, devm_hmm_devmem_add(dev, &desc));
	hmm_devmem_device_destroy(dev);
	KUNIT_EXPECT_EQ(test, dm_resources(&iomem_resource), e->resources);
}

/* No device but an umbrella has pages of the nearest memory */
static void umbrella_is_none(struct kunit *test)
{
	struct dm_env *e = test->priv;

	expect_warning_begin(test);
	KUNIT_EXPECT_NULL(test, hmm_devmem_device_alloc_page(e->dev));
	expect_warning_end(test);
}

struct dm_near {
	struct device *dev;
	struct page *p;
};

static void dm_take_nearest(void *data)
{
	struct dm_near *n = data;

	n->p = hmm_devmem_device_alloc_page(n->dev);
}

/* Each CPU gets pages of its own node, and when they are used up, of the other */
static void umbrella_nearest_first(struct kunit *test)
{
	struct dm_near n = { hmm_devmem_device_create("umbrella_nearest_first") };
	struct dm_env *e = test->priv;
	struct hmm_devmem_desc desc = dm_desc(e);
	struct hmm_devmem *m;
	unsigned long nr;
	int nid, cpu;

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, n.dev);
	if (num_online_nodes() < 2) {
		hmm_devmem_device_destroy(n.dev);
		kunit_skip(test, "needs two NUMA nodes");
	}
	for_each_online_node(nid) {
		desc.nid = nid;
		KUNIT_ASSERT_NOT_ERR_OR_NULL(test, devm_hmm_devmem_add(n.dev, &desc));
	}
	for_each_online_cpu(cpu) {
		dm_call_on(cpu, dm_take_nearest, &n);
		KUNIT_ASSERT_NOT_NULL(test, n.p);
		KUNIT_EXPECT_EQ(test, page_to_nid(n.p), cpu_to_node(cpu));
		dm_put(n.p);
	}
	for_each_online_cpu(cpu) {
		dm_call_on(cpu, dm_take_nearest, &n);
		KUNIT_ASSERT_NOT_NULL(test, n.p);
		m = hmm_devmem_from_page(n.p);
		dm_put(n.p);
		nr = hmm_devmem_alloc_pages(m, DM_PAGES, e->pages);
		KUNIT_EXPECT_EQ(test, nr, DM_PAGES);
		dm_call_on(cpu, dm_take_nearest, &n);
		KUNIT_ASSERT_NOT_NULL(test, n.p);
		KUNIT_EXPECT_NE(test, page_to_nid(n.p), cpu_to_node(cpu));
		dm_put(n.p);
		dm_put_all(e->pages, nr);
	}
	hmm_devmem_device_destroy(n.dev);
}

/* A call that one memory cannot serve is served by several */
static void umbrella_many_at_once(struct kunit *test)
{
	struct device *dev = hmm_devmem_device_create("umbrella_many_at_once");
	struct dm_env *e = test->priv;
	struct hmm_devmem_desc desc = dm_desc(e);
	struct page **pages;
	unsigned long nr;

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, dev);
	pages = kunit_kcalloc(test, 3 * DM_PAGES, sizeof(*pages), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, pages);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, devm_hmm_devmem_add(dev, &desc));
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, devm_hmm_devmem_add(dev, &desc));
	nr = hmm_devmem_device_alloc_pages(dev, 3 * DM_PAGES, pages);
	KUNIT_EXPECT_EQ(test, nr, 2 * DM_PAGES);
	dm_put_all(pages, nr);
	hmm_devmem_device_destroy(dev);
}

static struct kunit_case devmem_cases[] = {
	KUNIT_CASE(devmem_adds),
	KUNIT_CASE_SLOW(devmem_no_memory),
	KUNIT_CASE(devmem_bad_desc),
	KUNIT_CASE(devmem_no_addresses),
	KUNIT_CASE(devmem_coherent),
	KUNIT_CASE(devmem_nodes),
	KUNIT_CASE(devmem_passes_memory_failure_on),
	KUNIT_CASE_SLOW(devmem_leaves_nothing),
	KUNIT_CASE(devmem_goes_in_order),
	KUNIT_CASE(devmem_goes_with_failed_probe),
	KUNIT_CASE(devmem_each_page_once),
	KUNIT_CASE(devmem_many_at_once),
	KUNIT_CASE(devmem_page_data),
	KUNIT_CASE(devmem_large_is_not_listed),
	KUNIT_CASE(devmem_double_put),
	KUNIT_CASE(devmem_reference_on_free_page),
	KUNIT_CASE(devmem_finds_others_caches),
	KUNIT_CASE(devmem_removal_with_full_caches),
	KUNIT_CASE(devmem_no_page_twice),
	KUNIT_CASE(devmem_last_pages_are_found),
	KUNIT_CASE(devmem_stop),
	KUNIT_CASE(devmem_stop_is_final),
	KUNIT_CASE(devmem_removal_waits),
	KUNIT_CASE(devmem_removal_drains),
	KUNIT_CASE(umbrella_names),
	KUNIT_CASE(umbrella_holds_several),
	KUNIT_CASE(umbrella_is_none),
	KUNIT_CASE(umbrella_nearest_first),
	KUNIT_CASE(umbrella_many_at_once),
	{}
};

static struct kunit_suite hmm_devmem_suite = {
	.name = "hmm_devmem",
	.init = dm_init,
	.exit = dm_exit,
	.test_cases = devmem_cases,
};

kunit_test_suite(hmm_devmem_suite);

MODULE_DESCRIPTION("KUnit tests of memory of HMM devices");
MODULE_LICENSE("GPL");
