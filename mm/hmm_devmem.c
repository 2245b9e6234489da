// SPDX-License-Identifier: GPL-2.0
/*
 * Memory of a device: a physical range, its struct pages, and who gets them
 */

/**
 * DOC: Memory of a device
 *
 * mm/memremap.c gives struct pages to memory that a driver describes. What a driver
 * needs around that is the same for each: a physical range that nobody uses, a list
 * of pages that are free, and the way back when the device goes. It is here.
 *
 * There are three places where a page can be:
 *
 * *in use*: From when it has been handed out, with one reference and locked, to the
 * last put. page->zone_device_data is the driver's, and starts as NULL.
 *
 * *in a cache*: Each CPU has one for each memory. What is put on a CPU goes into its
 * cache, and what is asked for there comes from it, so that CPUs do not meet.
 *
 * *at the centre*: What no cache has. Pages that came back from the caches are on a
 * list, @returned; those that nobody has ever had are all that have a number of at
 * least @untouched. They are on no list, and their struct pages are not looked at:
 * however large the memory is, to add it costs nothing here.
 *
 * Pages go from the centre to a cache and back in batches. A cache holds at most two
 * of them, less in a small memory. An empty cache is filled from the centre; if there
 * is nothing, either, the caches of the other CPUs are searched. So the last free page
 * is found wherever it is, see devmem_search().
 *
 * The list links go through page->zone_device_data, with a mark in the upper bits
 * that no pointer has: that is how a page is known that comes back twice. The mark
 * is of use to nobody else, and while a page is in use there is none.
 *
 * A memory is of one NUMA node. A device with memory on several has an umbrella, a
 * &struct device of class hmm_devmem, to which all of them belong, and from which
 * pages are taken by their distance to the caller.
 */

/**
 * DOC: The end of a memory
 *
 * 1. hmm_devmem_stop(): no page is handed out any more. Who was about to take one
 *    has it, or gets none: to look at @stopped and to take a page are one read
 *    section of RCU.
 * 2. The driver gets its pages back, by migration or by its users' leaving.
 * 3. devm_hmm_devmem_remove(), or the end of the device: waits for the last page, and
 *    says so if that takes long. From 1 on what comes back goes to the centre, and
 *    whoever waits here is woken.
 * 4. The struct pages go, the physical range, and the object.
 */

/**
 * DOC: Locking of device memory
 *
 * Lock order, outermost first::
 *
 *	umbrella_lock			names of umbrella devices
 *
 *	umbrella->lock			adding to the memories, and taking out
 *
 *	cache->lock			one at a time
 *	  devmem->lock			the centre
 *
 * The last two are taken with interrupts off: the last put of a page may come
 * anywhere. A cache is locked by its own CPU most of the time; another one comes only
 * when it has found nothing elsewhere.
 */

#define pr_fmt(fmt) "hmm_devmem: " fmt

#include <linux/cpumask.h>
#include <linux/device.h>
#include <linux/device/class.h>
#include <linux/err.h>
#include <linux/export.h>
#include <linux/hmm_devmem.h>
#include <linux/init.h>
#include <linux/ioport.h>
#include <linux/memremap.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/nodemask.h>
#include <linux/percpu.h>
#include <linux/rculist.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/swap.h>
#include <linux/topology.h>
#include <linux/wait.h>

/* Pages between a cache and the centre at a time, at most */
#define DEVMEM_BATCH	32U
/* How many to look for with interrupts off */
#define DEVMEM_BITE	256UL
/* How often to look again for a page, while others put and take them */
#define DEVMEM_TRIES	100
/* How long removal waits for pages in use before it says so */
#define DEVMEM_PATIENCE	(10 * HZ)

struct hmm_devmem_cache {
	spinlock_t lock;	/* mostly taken by the CPU that it is of */
	struct hmm_devmem_list free;
	unsigned long arrivals;	/* how often pages came here */
};

/* ---- Lists of free pages ---- */

/* No pointer looks like this on any 64-bit machine, nor does a small number */
#define FREE_MARK	(0x5a5aUL << 48)
#define FREE_MARK_MASK	(0xffffUL << 48)

static bool page_is_marked(const struct page *page)
{
	return ((unsigned long)page->zone_device_data & FREE_MARK_MASK) ==
	       FREE_MARK;
}

static void page_set_next(struct page *page, unsigned long index)
{
	page->zone_device_data = (void *)(FREE_MARK | index);
}

static unsigned long page_next(const struct page *page)
{
	return (unsigned long)page->zone_device_data & ~FREE_MARK_MASK;
}

static void pages_push(struct hmm_devmem *devmem, struct hmm_devmem_list *list,
		       unsigned long index)
{
	page_set_next(hmm_devmem_page(devmem, index), list->head);
	list->head = index;
	list->nr++;
}

/* Up to @nr pages from the head of one list to the head of the other, in order */
static void pages_move(struct hmm_devmem *devmem, struct hmm_devmem_list *to,
		       struct hmm_devmem_list *from, unsigned long nr)
{
	unsigned long head = from->head, i;
	struct page *last;

	nr = min(nr, from->nr);
	if (!nr)
		return;
	last = hmm_devmem_page(devmem, head);
	for (i = 1; i < nr; i++)
		last = hmm_devmem_page(devmem, page_next(last));

	from->head = page_next(last);
	from->nr -= nr;
	page_set_next(last, to->head);
	to->head = head;
	to->nr += nr;
}

/* ---- The centre and the caches ---- */

/* Pairs with devmem_arrivals() */
static void cache_set_arrived(struct hmm_devmem_cache *cache)
{
	WRITE_ONCE(cache->arrivals, cache->arrivals + 1);
}

static void cache_fill(struct hmm_devmem *devmem,
		       struct hmm_devmem_cache *cache, unsigned long nr)
{
	unsigned long first, fresh = 0;

	lockdep_assert_held(&cache->lock);

	spin_lock(&devmem->lock);
	first = devmem->untouched;
	if (devmem->returned.nr) {
		pages_move(devmem, &cache->free, &devmem->returned, nr);
	} else {
		fresh = min(nr, devmem->nr_pages - first);
		WRITE_ONCE(devmem->untouched, first + fresh);
	}
	spin_unlock(&devmem->lock);

	/* From the last to the first, so that they are taken in order */
	while (fresh--)
		pages_push(devmem, &cache->free, first + fresh);
	if (cache->free.nr)
		cache_set_arrived(cache);
}

static void cache_spill(struct hmm_devmem *devmem,
			struct hmm_devmem_cache *cache, unsigned long nr)
{
	lockdep_assert_held(&cache->lock);

	spin_lock(&devmem->lock);
	pages_move(devmem, &devmem->returned, &cache->free, nr);
	spin_unlock(&devmem->lock);
}

static void cache_take(struct hmm_devmem *devmem, int cpu,
		       struct hmm_devmem_list *got, unsigned long nr)
{
	struct hmm_devmem_cache *cache = per_cpu_ptr(devmem->caches, cpu);
	unsigned long flags;

	spin_lock_irqsave(&cache->lock, flags);
	if (!cache->free.nr)
		cache_fill(devmem, cache, max(nr, devmem->batch));
	pages_move(devmem, got, &cache->free, nr);
	spin_unlock_irqrestore(&cache->lock, flags);
}

/* The CPU may change under our feet: what counts is that few others come */
static void cache_put(struct hmm_devmem *devmem, unsigned long index)
{
	struct hmm_devmem_cache *cache = raw_cpu_ptr(devmem->caches);
	unsigned long flags;

	spin_lock_irqsave(&cache->lock, flags);
	pages_push(devmem, &cache->free, index);
	cache_set_arrived(cache);
	if (cache->free.nr > 2 * devmem->batch)
		cache_spill(devmem, cache, devmem->batch);
	spin_unlock_irqrestore(&cache->lock, flags);
}

static void centre_put(struct hmm_devmem *devmem, unsigned long index)
{
	unsigned long flags;

	spin_lock_irqsave(&devmem->lock, flags);
	pages_push(devmem, &devmem->returned, index);
	spin_unlock_irqrestore(&devmem->lock, flags);
}

/* They only grow: if the sum has not changed, none of them has */
static unsigned long devmem_arrivals(struct hmm_devmem *devmem)
{
	unsigned long arrivals = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		arrivals += READ_ONCE(per_cpu_ptr(devmem->caches, cpu)->arrivals);
	return arrivals;
}

/*
 * The own cache and the centre are empty: look into all caches. To find nothing in
 * each of them proves little if pages come and go meanwhile:
 *
 *	this CPU		CPU 1			CPU 2
 *	--------		-----			-----
 *	cache 1: empty
 *				puts a page: cache 1
 *							takes the page of cache 3
 *	cache 3: empty		=> there was a free page all the time
 *
 * If nothing has come to any cache while we looked, there was none when we finished.
 * What goes to the centre comes to a cache first, see cache_put(). Whoever took the
 * page of cache 3 had its lock before us, so that we see what it knew of: that
 * cache 1 has got a page.
 */
static void devmem_search(struct hmm_devmem *devmem,
			  struct hmm_devmem_list *got, unsigned long nr)
{
	int cpu, self = raw_smp_processor_id(), tries = DEVMEM_TRIES;
	unsigned long arrivals;

	do {
		arrivals = devmem_arrivals(devmem);
		/* That was before we look into the first; a lock is no barrier for it */
		smp_mb();
		for_each_cpu_wrap(cpu, cpu_possible_mask, self) {
			cache_take(devmem, cpu, got, nr);
			if (got->nr)
				return;
		}
	} while (devmem_arrivals(devmem) != arrivals && --tries);
}

/* ---- Handing out, and taking back ---- */

static void devmem_set_bad(struct hmm_devmem *devmem, struct page *page)
{
	unsigned long flags;

	WARN_ONCE(1, "%s: free pfn %lx has %d references: kept from use\n",
		  devmem->name, page_to_pfn(page), page_ref_count(page));
	spin_lock_irqsave(&devmem->lock, flags);
	devmem->bad++;
	spin_unlock_irqrestore(&devmem->lock, flags);
}

/* How many pages of @got can be used */
static unsigned long devmem_hand_out(struct hmm_devmem *devmem,
				     struct hmm_devmem_list *got,
				     struct page **pages)
{
	unsigned long n = 0;

	for (; got->nr; got->nr--) {
		struct page *page = hmm_devmem_page(devmem, got->head);

		got->head = page_next(page);
		/*
		 * Put once too often, or got by whoever had no business. It stays
		 * marked as free, so that it does not come back by its last put.
		 */
		if (unlikely(page_ref_count(page))) {
			devmem_set_bad(devmem, page);
			continue;
		}
		page->zone_device_data = NULL;
		zone_device_page_init(page);
		pages[n++] = page;
	}
	return n;
}

/**
 * hmm_devmem_alloc_pages() - free pages of a device's memory get in use
 * @devmem: the memory
 * @nr: how many
 * @pages: where to put them
 *
 * Each page has one reference and is locked, page->zone_device_data is NULL. The last
 * put gives it back. Pages that nobody had before come in ascending order, but there
 * is no promise that any two are neighbours.
 *
 * Context: Any, but no hard interrupt of the real-time kernel. Does not sleep.
 * Return: how many pages there are in @pages: less than @nr if there are no more, 0
 * after hmm_devmem_stop().
 */
unsigned long hmm_devmem_alloc_pages(struct hmm_devmem *devmem,
				     unsigned long nr, struct page **pages)
{
	unsigned long n = 0;

	/* Pairs with synchronize_rcu() in hmm_devmem_stop() */
	rcu_read_lock();
	while (n < nr && !READ_ONCE(devmem->stopped)) {
		unsigned long bite = min(nr - n, DEVMEM_BITE);
		struct hmm_devmem_list got = {};

		cache_take(devmem, raw_smp_processor_id(), &got, bite);
		if (!got.nr)
			devmem_search(devmem, &got, bite);
		if (!got.nr)
			break;
		n += devmem_hand_out(devmem, &got, pages + n);
	}
	rcu_read_unlock();

	return n;
}
EXPORT_SYMBOL_GPL(hmm_devmem_alloc_pages);

/**
 * hmm_devmem_alloc_page() - a free page of a device's memory gets in use
 * @devmem: the memory
 *
 * As hmm_devmem_alloc_pages(), for one page.
 *
 * Context: Any, but no hard interrupt of the real-time kernel. Does not sleep.
 * Return: the page, locked and with one reference; NULL if there is none, or after
 * hmm_devmem_stop().
 */
struct page *hmm_devmem_alloc_page(struct hmm_devmem *devmem)
{
	struct page *page;

	return hmm_devmem_alloc_pages(devmem, 1, &page) ? page : NULL;
}
EXPORT_SYMBOL_GPL(hmm_devmem_alloc_page);

/* Best effort: the page may be handed out while we look */
static bool page_is_free(struct hmm_devmem *devmem, struct page *page)
{
	return page_is_marked(page) ||
	       hmm_devmem_page_index(page) >= READ_ONCE(devmem->untouched);
}

/* From the last put, wherever that is */
static void devmem_page_free(struct page *page)
{
	struct hmm_devmem *devmem = hmm_devmem_from_page(page);
	unsigned long index = hmm_devmem_page_index(page);

	if (WARN_ONCE(page_is_free(devmem, page),
		      "%s: pfn %lx comes back, but was free\n",
		      devmem->name, page_to_pfn(page))) {
		/* Our caller drops one for a page in use, and this was none */
		percpu_ref_get(&devmem->pgmap.ref);
		return;
	}
	if (devmem->ops->page_free)
		devmem->ops->page_free(devmem, page);

	/* Pairs with synchronize_rcu() in hmm_devmem_stop() */
	rcu_read_lock();
	if (likely(!READ_ONCE(devmem->stopped))) {
		cache_put(devmem, index);
	} else {
		centre_put(devmem, index);
		/* The pgmap's reference for this page keeps @devmem */
		wake_up(&devmem->idle);
	}
	rcu_read_unlock();
}

static int devmem_memory_failure(struct dev_pagemap *pgmap, unsigned long pfn,
				 unsigned long nr_pages, int mf_flags)
{
	struct hmm_devmem *devmem = container_of(pgmap, struct hmm_devmem,
						 pgmap);

	return devmem->ops->memory_failure(devmem, pfn, nr_pages, mf_flags);
}

/**
 * hmm_devmem_nr_free() - how many pages of a device's memory are free
 * @devmem: the memory
 *
 * Context: Any. Takes the lock of each cache in turn.
 * Return: the number of pages. Exact while nobody takes or puts one, as after
 * hmm_devmem_stop() when all are back.
 */
unsigned long hmm_devmem_nr_free(struct hmm_devmem *devmem)
{
	unsigned long flags, nr = 0;
	int cpu;

	for_each_possible_cpu(cpu) {
		struct hmm_devmem_cache *cache = per_cpu_ptr(devmem->caches,
							     cpu);

		spin_lock_irqsave(&cache->lock, flags);
		nr += cache->free.nr;
		spin_unlock_irqrestore(&cache->lock, flags);
	}
	spin_lock_irqsave(&devmem->lock, flags);
	nr += devmem->returned.nr + devmem->nr_pages - devmem->untouched;
	spin_unlock_irqrestore(&devmem->lock, flags);

	/* What moved meanwhile may have been seen twice */
	return min(nr, devmem->nr_pages);
}
EXPORT_SYMBOL_GPL(hmm_devmem_nr_free);

/* ---- Umbrella devices ---- */

struct umbrella {
	struct device dev;
	spinlock_t lock;		/* for who writes to @memories */
	struct list_head memories;	/* for readers of RCU */
};

/* To look for a name and to take it as one */
static DEFINE_MUTEX(umbrella_lock);

static void umbrella_release(struct device *dev)
{
	kfree(container_of(dev, struct umbrella, dev));
}

static const struct class umbrella_class = {
	.name = "hmm_devmem",
	.dev_release = umbrella_release,
};

/* NULL if @dev is any other device */
static struct umbrella *umbrella_of(struct device *dev)
{
	if (dev->class != &umbrella_class)
		return NULL;
	return container_of(dev, struct umbrella, dev);
}

static void umbrella_add(struct hmm_devmem *devmem)
{
	struct umbrella *umbrella = umbrella_of(devmem->dev);

	if (!umbrella)
		return;
	spin_lock(&umbrella->lock);
	list_add_tail_rcu(&devmem->node, &umbrella->memories);
	spin_unlock(&umbrella->lock);
}

/* Who has found @devmem may use it until the next grace period */
static void umbrella_del(struct hmm_devmem *devmem)
{
	struct umbrella *umbrella = umbrella_of(devmem->dev);

	if (!umbrella)
		return;
	spin_lock(&umbrella->lock);
	list_del_rcu(&devmem->node);
	spin_unlock(&umbrella->lock);
}

static int umbrella_register(struct umbrella *umbrella)
{
	struct device *dev = &umbrella->dev, *other;

	guard(mutex)(&umbrella_lock);
	other = class_find_device_by_name(&umbrella_class, dev_name(dev));
	if (other) {
		pr_err("device %s is there already\n", dev_name(dev));
		put_device(other);
		return -EEXIST;
	}
	return device_add(dev);
}

/**
 * hmm_devmem_device_create() - a device to which memories belong
 * @name: in /sys/class/hmm_devmem/; no other device there has it
 *
 * For memory that no one device of a bus has, or that is on several NUMA nodes. Used
 * as the device of devm_hmm_devmem_add(), any number of times; memories may come and
 * go while it stays.
 *
 * Context: Process context, sleeps.
 * Return: the device, for hmm_devmem_device_destroy(). ERR_PTR() of -EINVAL if there
 * is no @name, -EEXIST if it is taken, -ENOMEM, and what device_add() returns.
 */
struct device *hmm_devmem_device_create(const char *name)
{
	struct umbrella *umbrella;
	int ret;

	if (!name || !*name)
		return ERR_PTR(-EINVAL);
	umbrella = kzalloc(sizeof(*umbrella), GFP_KERNEL);
	if (!umbrella)
		return ERR_PTR(-ENOMEM);
	spin_lock_init(&umbrella->lock);
	INIT_LIST_HEAD(&umbrella->memories);
	device_initialize(&umbrella->dev);
	umbrella->dev.class = &umbrella_class;

	ret = dev_set_name(&umbrella->dev, "%s", name);
	if (!ret)
		ret = umbrella_register(umbrella);
	if (ret) {
		put_device(&umbrella->dev);
		return ERR_PTR(ret);
	}
	return &umbrella->dev;
}
EXPORT_SYMBOL_GPL(hmm_devmem_device_create);

/**
 * hmm_devmem_device_destroy() - end an umbrella device, and its memories
 * @dev: from hmm_devmem_device_create()
 *
 * Memories that are still there are removed, the last one first, and with it all else
 * that the device manages.
 *
 * Context: as devm_hmm_devmem_remove().
 */
void hmm_devmem_device_destroy(struct device *dev)
{
	if (!WARN_ON_ONCE(!umbrella_of(dev)))
		device_unregister(dev);
}
EXPORT_SYMBOL_GPL(hmm_devmem_device_destroy);

/* The least distance of a memory from node @nid that is more than @beyond; or 0 */
static int umbrella_next_distance(struct umbrella *umbrella, int nid,
				  int beyond)
{
	struct hmm_devmem *devmem;
	int least = 0;

	list_for_each_entry_rcu(devmem, &umbrella->memories, node) {
		int distance = node_distance(nid, devmem->nid);

		if (distance > beyond && (!least || distance < least))
			least = distance;
	}
	return least;
}

/**
 * hmm_devmem_device_alloc_pages() - pages of the memory that is nearest
 * @dev: from hmm_devmem_device_create()
 * @nr: how many
 * @pages: where to put them
 *
 * As hmm_devmem_alloc_pages(), from the memories of @dev by their distance to the
 * caller's NUMA node. Among those that are as far the one that was added first is
 * used up first.
 *
 * Context: Any, but no hard interrupt of the real-time kernel. Does not sleep.
 * Return: how many pages there are in @pages.
 */
unsigned long hmm_devmem_device_alloc_pages(struct device *dev,
					    unsigned long nr,
					    struct page **pages)
{
	struct umbrella *umbrella = umbrella_of(dev);
	int nid = numa_node_id(), distance = 0;
	struct hmm_devmem *devmem;
	unsigned long n = 0;

	if (WARN_ON_ONCE(!umbrella))
		return 0;

	/* Pairs with synchronize_rcu() in hmm_devmem_stop() */
	rcu_read_lock();
	while (n < nr) {
		distance = umbrella_next_distance(umbrella, nid, distance);
		if (!distance)
			break;
		list_for_each_entry_rcu(devmem, &umbrella->memories, node) {
			if (node_distance(nid, devmem->nid) == distance)
				n += hmm_devmem_alloc_pages(devmem, nr - n,
							    pages + n);
		}
	}
	rcu_read_unlock();

	return n;
}
EXPORT_SYMBOL_GPL(hmm_devmem_device_alloc_pages);

/**
 * hmm_devmem_device_alloc_page() - a page of the memory that is nearest
 * @dev: from hmm_devmem_device_create()
 *
 * As hmm_devmem_device_alloc_pages(), for one page.
 *
 * Context: Any, but no hard interrupt of the real-time kernel. Does not sleep.
 * Return: the page, locked and with one reference; NULL if no memory of @dev has one.
 */
struct page *hmm_devmem_device_alloc_page(struct device *dev)
{
	struct page *page;

	return hmm_devmem_device_alloc_pages(dev, 1, &page) ? page : NULL;
}
EXPORT_SYMBOL_GPL(hmm_devmem_device_alloc_page);

/* ---- Removal ---- */

/**
 * hmm_devmem_stop() - hand out no page any more
 * @devmem: the memory
 *
 * For a driver that is about to evict what is in use, so that nothing new comes. When
 * this returns, each page is free for good, or was handed out before. Can be called
 * again.
 *
 * Context: Process context, sleeps.
 */
void hmm_devmem_stop(struct hmm_devmem *devmem)
{
	WRITE_ONCE(devmem->stopped, true);
	/* Who has not seen that has finished to take, or to put */
	synchronize_rcu();
}
EXPORT_SYMBOL_GPL(hmm_devmem_stop);

static unsigned long devmem_in_use(struct hmm_devmem *devmem)
{
	return devmem->nr_pages - hmm_devmem_nr_free(devmem) -
	       READ_ONCE(devmem->bad);
}

static void devmem_wait_idle(struct hmm_devmem *devmem)
{
	while (devmem_in_use(devmem)) {
		/* Of what was mlock()ed a CPU may have pages in a batch, and be idle */
		lru_add_drain_all();
		if (wait_event_timeout(devmem->idle, !devmem_in_use(devmem),
				       DEVMEM_PATIENCE))
			break;
		dev_warn(devmem->dev, "%s: %lu pages are in use, removal waits\n",
			 devmem->name, devmem_in_use(devmem));
	}
}

/* What devmem_alloc() and devmem_reserve() have done */
static void devmem_free(struct hmm_devmem *devmem)
{
	if (devmem->reserved)
		release_mem_region(devmem->pgmap.range.start, devmem->reserved);
	free_percpu(devmem->caches);
	kfree(devmem->name);
	kfree(devmem);
}

static void devmem_remove(void *data)
{
	struct hmm_devmem *devmem = data;

	umbrella_del(devmem);
	hmm_devmem_stop(devmem);
	devmem_wait_idle(devmem);
	memunmap_pages(&devmem->pgmap);
	devmem_free(devmem);
}

/**
 * devm_hmm_devmem_remove() - end devm_hmm_devmem_add() before the device does
 * @dev: the device
 * @devmem: what devm_hmm_devmem_add() has returned for @dev
 *
 * The driver sees to it that pages in use come back: this call stops further ones,
 * and waits.
 *
 * Context: Process context. Sleeps for as long as a page is in use, and says so every
 * ten seconds. Takes the memory hotplug lock.
 */
void devm_hmm_devmem_remove(struct device *dev, struct hmm_devmem *devmem)
{
	devm_release_action(dev, devmem_remove, devmem);
}
EXPORT_SYMBOL_GPL(devm_hmm_devmem_remove);

/* ---- Adding ---- */

static const char *desc_size_trouble(const struct hmm_devmem_desc *desc)
{
	bool private = desc->type == MEMORY_DEVICE_PRIVATE;
	u64 start = private ? 0 : desc->res->start;
	u64 size = private ? desc->size : resource_size(desc->res);

	if (!size)
		return "no size";
	if (!IS_ALIGNED(start | size, memremap_compat_align()))
		return "not aligned";
	return NULL;
}

static bool nid_is_sane(int nid)
{
	if (nid == NUMA_NO_NODE)
		return true;
	return nid >= 0 && nid < MAX_NUMNODES && node_possible(nid);
}

/* Why there can be no such memory, or NULL */
static const char *desc_trouble(const struct hmm_devmem_desc *desc)
{
	if (!desc || !desc->name || !*desc->name)
		return "no name";
	if (!desc->ops)
		return "no ops";
	if (!desc->owner)
		return "no owner";
	if (!nid_is_sane(desc->nid))
		return "no such node";

	switch (desc->type) {
	case MEMORY_DEVICE_PRIVATE:
		if (!desc->ops->migrate_to_ram)
			return "no migrate_to_ram";
		if (desc->res)
			return "private memory has no resource of its own";
		break;
	case MEMORY_DEVICE_COHERENT:
		if (!desc->res)
			return "no resource";
		if (desc->size)
			return "the size is that of the resource";
		break;
	default:
		return "no type of memory with free pages";
	}
	return desc_size_trouble(desc);
}

static int devmem_nid(struct device *dev, const struct hmm_devmem_desc *desc)
{
	if (desc->nid != NUMA_NO_NODE)
		return desc->nid;
	if (dev_to_node(dev) != NUMA_NO_NODE)
		return dev_to_node(dev);
	return numa_mem_id();
}

static struct hmm_devmem *devmem_alloc(struct device *dev,
				       const struct hmm_devmem_desc *desc)
{
	int nid = devmem_nid(dev, desc), cpu;
	struct hmm_devmem *devmem;

	devmem = kzalloc_node(sizeof(*devmem), GFP_KERNEL, nid);
	if (!devmem)
		return NULL;
	devmem->dev = dev;
	devmem->nid = nid;
	devmem->ops = desc->ops;
	devmem->private = desc->private;
	init_waitqueue_head(&devmem->idle);
	spin_lock_init(&devmem->lock);
	devmem->name = kstrdup(desc->name, GFP_KERNEL);
	devmem->caches = alloc_percpu(struct hmm_devmem_cache);
	if (!devmem->name || !devmem->caches) {
		devmem_free(devmem);
		return NULL;
	}
	for_each_possible_cpu(cpu)
		spin_lock_init(&per_cpu_ptr(devmem->caches, cpu)->lock);
	return devmem;
}

/* Physical addresses that nobody uses; they mean nothing to the device */
static int devmem_reserve(struct hmm_devmem *devmem, u64 size)
{
	struct resource *res;

	/* request_free_mem_region() counts on an address space that is larger */
	if (size - 1 > min_t(u64, iomem_resource.end, PHYSMEM_END))
		res = ERR_PTR(-ERANGE);
	else
		res = request_free_mem_region(&iomem_resource, size,
					      devmem->name);
	if (IS_ERR(res)) {
		if (PTR_ERR(res) == -ERANGE)
			dev_err(devmem->dev,
				"%s: no %llu MiB of physical addresses unused\n",
				devmem->name, size >> 20);
		return PTR_ERR(res);
	}
	devmem->pgmap.range.start = res->start;
	devmem->pgmap.range.end = res->start + size - 1;
	/* Rounded up, perhaps */
	devmem->reserved = resource_size(res);
	return 0;
}

static int devmem_set_range(struct hmm_devmem *devmem,
			    const struct hmm_devmem_desc *desc)
{
	struct range *range = &devmem->pgmap.range;
	int ret;

	if (desc->type == MEMORY_DEVICE_PRIVATE) {
		ret = devmem_reserve(devmem, desc->size);
		if (ret)
			return ret;
	} else {
		range->start = desc->res->start;
		range->end = desc->res->end;
	}
	devmem->first_pfn = PHYS_PFN(range->start);
	devmem->nr_pages = PHYS_PFN(range_len(range));
	/* All caches together shall not hold more than a part of it */
	devmem->batch = clamp(devmem->nr_pages / (8 * num_possible_cpus()),
			      1UL, DEVMEM_BATCH);
	return 0;
}

static int devmem_add_pages(struct hmm_devmem *devmem,
			    const struct hmm_devmem_desc *desc)
{
	struct dev_pagemap *pgmap = &devmem->pgmap;

	devmem->pgmap_ops.page_free = devmem_page_free;
	devmem->pgmap_ops.migrate_to_ram = desc->ops->migrate_to_ram;
	if (desc->ops->memory_failure)
		devmem->pgmap_ops.memory_failure = devmem_memory_failure;
	pgmap->type = desc->type;
	pgmap->owner = desc->owner;
	pgmap->ops = &devmem->pgmap_ops;
	pgmap->nr_range = 1;

	return PTR_ERR_OR_ZERO(memremap_pages(pgmap, devmem->nid));
}

/**
 * devm_hmm_devmem_add() - add the memory of a device
 * @dev: the device: of any bus, or from hmm_devmem_device_create()
 * @desc: what memory; not looked at any more when this has returned
 *
 * %MEMORY_DEVICE_PRIVATE gets an unused range of physical addresses, reserved in
 * /proc/iomem; %MEMORY_DEVICE_COHERENT is where its resource is. Either has struct
 * pages then, all of them free, and they can be had from hmm_devmem_alloc_pages().
 *
 * All is undone by devm_hmm_devmem_remove(), or when the driver is unbound from @dev,
 * or fails to probe it: in the opposite order of all that @dev manages.
 *
 * Context: Process context, sleeps; takes the memory hotplug lock.
 * Return: the memory. ERR_PTR() of -EINVAL if @desc is not as described there,
 * -ERANGE if no range of physical addresses is as large and unused, -ENOMEM, and what
 * memremap_pages() returns. The reason of a bad @desc, of -ERANGE and of -ENXIO is in
 * the kernel log.
 */
struct hmm_devmem *devm_hmm_devmem_add(struct device *dev,
				       const struct hmm_devmem_desc *desc)
{
	const char *trouble = dev ? desc_trouble(desc) : "no device";
	struct hmm_devmem *devmem;
	int ret;

	if (trouble) {
		dev_err(dev, "device memory not added: %s\n", trouble);
		return ERR_PTR(-EINVAL);
	}
	devmem = devmem_alloc(dev, desc);
	if (!devmem)
		return ERR_PTR(-ENOMEM);
	ret = devmem_set_range(devmem, desc);
	if (!ret)
		ret = devmem_add_pages(devmem, desc);
	if (ret) {
		devmem_free(devmem);
		return ERR_PTR(ret);
	}
	umbrella_add(devmem);
	ret = devm_add_action_or_reset(dev, devmem_remove, devmem);

	return ret ? ERR_PTR(ret) : devmem;
}
EXPORT_SYMBOL_GPL(devm_hmm_devmem_add);

static int __init hmm_devmem_init(void)
{
	return class_register(&umbrella_class);
}
subsys_initcall(hmm_devmem_init);
