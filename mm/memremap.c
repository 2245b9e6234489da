// SPDX-License-Identifier: GPL-2.0
/*
 * Device memory: pages of ZONE_DEVICE, from hot-add to removal
 */

/**
 * DOC: Overview
 *
 * A driver describes its memory by a &struct dev_pagemap and hands it to
 * memremap_pages(). From then on the memory has struct pages, which point back to
 * the pgmap. They never were and never will be in the page allocator: the last
 * put of such a page ends here, in free_zone_device_folio(), and the page goes
 * back to its owner. memunmap_pages() waits until all of them have come back.
 *
 * References. The pgmap has one count for all of its memory (@ref). Who may use
 * the memory holds a reference:
 *
 * ============ ============== ============================= ======================
 * type         idle page has  in use by                     counts on the pgmap
 * ============ ============== ============================= ======================
 * PRIVATE,     no reference   zone_device_page_init() until one for each page
 * COHERENT                    the last put                  in use
 * FS_DAX       one reference  any further one, until the    none, see below
 *                             last but one
 * PCI_P2PDMA   one reference  the owner's own               what the owner takes
 * GENERIC      one reference  any further one               none, see below
 * ============ ============== ============================= ======================
 *
 * Beside these there are short ones: get_dev_pagemap() by those who have found an
 * entry of a page table or a pfn and do not know whether the page behind it still
 * exists.
 *
 * Removal goes by these steps, and each makes the next one final:
 *
 * 1. The count is killed: get_dev_pagemap() fails from here on, and so does
 *    zone_device_page_init(). Nobody new comes to a page.
 * 2. The count falls to zero: pages of PRIVATE and COHERENT memory are all back,
 *    and nobody is between finding a pgmap and taking a page.
 * 3. Pages of the other types, which have no part in the count, are waited for
 *    one by one, until each has its one reference.
 * 4. A grace period: nor does GUP-fast look at a page that it has found before.
 * 5. The memory goes, and with it the struct pages and the way to look it up.
 */

/**
 * DOC: Where core code hands over
 *
 * All of these but do_swap_page() and the last stand in 6.12 as they are:
 *
 * * __folio_put() and folios_put_refs() in mm/swap.c: a folio of ZONE_DEVICE whose
 *   last reference went is given to free_zone_device_folio(), and so never comes
 *   near a free list of the page allocator.
 * * put_devmap_managed_folio_refs() in include/linux/mm.h, which put_page(),
 *   folios_put_refs() and gup_put_folio() call first: for FS_DAX the last reference
 *   but one is what counts. A static key, devmap_managed_key, keeps it out of the
 *   way while there is no such memory.
 * * memmap_init_range() in mm/mm_init.c leaves pages of ZONE_DEVICE out, but for
 *   those that hold struct pages: mm/memremap_init.c makes the others, after the
 *   hotplug lock has been released. Nobody but a test calls
 *   memmap_init_zone_device() any more.
 * * mm/page_alloc.c has no hook: it never hears of these pages, whose zone has
 *   nothing that it manages.
 * * pfn_to_online_page() in mm/memory_hotplug.c asks get_dev_pagemap() where a
 *   section has both kinds of memory.
 * * do_swap_page() in mm/memory.c calls migrate_to_ram, patched to lock the page for
 *   the call.
 * * GUP in mm/gup.c takes a pgmap by get_dev_pagemap() before it takes a page that
 *   a devmap entry maps, with interrupts off or under the page-table lock.
 * * mf_generic_kill_procs() in mm/memory-failure.c refuses private and coherent
 *   pages, patched to do so before it takes them for pages of DAX files.
 */

/**
 * DOC: Locking
 *
 * Lock order, outermost first::
 *
 *	pgmaps_lock			adding and removing what is looked up
 *	  the XArray's own lock
 *
 *	mem_hotplug_begin()		adding and removing struct pages; not held
 *					while they are initialised
 *
 * get_dev_pagemap() takes no lock: RCU keeps the pgmap from being given back to its
 * driver while it is looked up. free_zone_device_folio() is called under any lock
 * and takes none.
 */

#define pr_fmt(fmt) "memremap: " fmt

#include <linux/cleanup.h>
#include <linux/completion.h>
#include <linux/device.h>
#include <linux/err.h>
#include <linux/export.h>
#include <linux/ioport.h>
#include <linux/jump_label.h>
#include <linux/kasan.h>
#include <linux/memcontrol.h>
#include <linux/memory_hotplug.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/mutex.h>
#include <linux/nodemask.h>
#include <linux/pagemap.h>
#include <linux/percpu-refcount.h>
#include <linux/pgtable.h>
#include <linux/sched.h>
#include <linux/swap.h>
#include <linux/topology.h>
#include <linux/types.h>
#include <linux/vmstat.h>
#include <linux/wait_bit.h>
#include <linux/xarray.h>

#include "internal.h"
#include "memremap_internal.h"

/* Who has which pfns; the entry of a pgmap covers all of each of its ranges */
static DEFINE_XARRAY(pgmaps);
/* To look and to store as one */
static DEFINE_MUTEX(pgmaps_lock);

#ifdef CONFIG_FS_DAX
struct static_key_false devmap_managed_key = STATIC_KEY_FALSE_INIT;
EXPORT_SYMBOL(devmap_managed_key);

static void devmap_managed_get(struct dev_pagemap *pgmap)
{
	if (pgmap->type == MEMORY_DEVICE_FS_DAX)
		static_branch_inc(&devmap_managed_key);
}

static void devmap_managed_put(struct dev_pagemap *pgmap)
{
	if (pgmap->type == MEMORY_DEVICE_FS_DAX)
		static_branch_dec(&devmap_managed_key);
}
#else
static void devmap_managed_get(struct dev_pagemap *pgmap)
{
}

static void devmap_managed_put(struct dev_pagemap *pgmap)
{
}
#endif

/* ---- Ranges ---- */

static void range_refused(const struct range *range, const char *why)
{
	pr_warn("[%#llx-%#llx] not added: %s\n", range->start, range->end, why);
}

static unsigned long first_pfn(const struct range *range)
{
	return PHYS_PFN(range->start);
}

static unsigned long last_pfn(const struct range *range)
{
	return PHYS_PFN(range->end);
}

static unsigned long nr_pfns(const struct range *range)
{
	return PHYS_PFN(range_len(range));
}

/* Pages at the start of the first range that are no memory for use */
static unsigned long pgmap_offset(struct dev_pagemap *pgmap, int i)
{
	struct vmem_altmap *altmap = pgmap_altmap(pgmap);

	return altmap && !i ? vmem_altmap_offset(altmap) : 0;
}

static bool pgmap_covers(struct dev_pagemap *pgmap, unsigned long pfn)
{
	int i;

	for (i = 0; i < pgmap->nr_range; i++) {
		if (pfn >= first_pfn(&pgmap->ranges[i]) &&
		    pfn <= last_pfn(&pgmap->ranges[i]))
			return true;
	}
	return false;
}

/**
 * pgmap_pfn_valid() - is this a page that the owner can use
 * @pgmap: a pgmap to which the caller has a reference
 * @pfn: any page
 *
 * Context: Any.
 * Return: true if @pfn is in one of the ranges of @pgmap and does not hold its
 * struct pages, or what stands in front of them.
 */
bool pgmap_pfn_valid(struct dev_pagemap *pgmap, unsigned long pfn)
{
	unsigned long first = first_pfn(&pgmap->ranges[0]);

	return pgmap_covers(pgmap, pfn) &&
	       !(pfn >= first && pfn - first < pgmap_offset(pgmap, 0) &&
		 pfn <= last_pfn(&pgmap->ranges[0]));
}

#ifndef CONFIG_ARCH_HAS_MEMREMAP_COMPAT_ALIGN
/**
 * memremap_compat_align() - what device memory has to be aligned to
 *
 * Context: Any.
 * Return: in bytes, what the start and the length of a range must be multiples of
 * on every machine of this architecture.
 */
unsigned long memremap_compat_align(void)
{
	return SUBSECTION_SIZE;
}
EXPORT_SYMBOL_GPL(memremap_compat_align);
#endif

/* ---- Looking up ---- */

static void pgmap_erase(const struct range *range)
{
	lockdep_assert_held(&pgmaps_lock);

	/* Takes no memory: entries go as they came */
	xa_store_range(&pgmaps, first_pfn(range), last_pfn(range), NULL,
		       GFP_KERNEL);
}

/* All of the range, or nothing of it */
static int pgmap_publish(struct dev_pagemap *pgmap, int i)
{
	struct range *range = &pgmap->ranges[i];
	unsigned long pfn = first_pfn(range);
	int ret;

	guard(mutex)(&pgmaps_lock);
	if (xa_find(&pgmaps, &pfn, last_pfn(range), XA_PRESENT)) {
		range_refused(range, "other device memory is there");
		return -ENOMEM;
	}
	ret = xa_err(xa_store_range(&pgmaps, first_pfn(range), last_pfn(range),
				    pgmap, GFP_KERNEL));
	/* It takes several entries, and memory may end between two */
	if (ret)
		pgmap_erase(range);
	return ret;
}

static void pgmap_withdraw(struct dev_pagemap *pgmap, int i)
{
	guard(mutex)(&pgmaps_lock);
	pgmap_erase(&pgmap->ranges[i]);
}

/**
 * get_dev_pagemap() - the device memory that a page belongs to
 * @pfn: the page
 * @pgmap: what an earlier call returned, or NULL
 *
 * For those who walk over many pages: if @pgmap covers @pfn, it is returned, and
 * its reference is the caller's as before; if not, the reference is given up.
 *
 * Context: Any, with interrupts off too.
 * Return: the pgmap with a reference for put_dev_pagemap(); NULL if @pfn is no
 * device memory, or is being removed.
 */
struct dev_pagemap *get_dev_pagemap(unsigned long pfn, struct dev_pagemap *pgmap)
{
	if (pgmap) {
		if (pgmap_covers(pgmap, pfn))
			return pgmap;
		put_dev_pagemap(pgmap);
	}

	guard(rcu)();
	pgmap = xa_load(&pgmaps, pfn);
	return pgmap && percpu_ref_tryget_live_rcu(&pgmap->ref) ? pgmap : NULL;
}
EXPORT_SYMBOL_GPL(get_dev_pagemap);

/* ---- What memremap_pages() takes ---- */

static bool pgmap_counts_pages(const struct dev_pagemap *pgmap)
{
	return pgmap->type == MEMORY_DEVICE_PRIVATE ||
	       pgmap->type == MEMORY_DEVICE_COHERENT;
}

/* Why @pgmap cannot be, or NULL */
static const char *pgmap_type_trouble(const struct dev_pagemap *pgmap)
{
	const struct dev_pagemap_ops *ops = pgmap->ops;

	switch (pgmap->type) {
	case MEMORY_DEVICE_PRIVATE:
		if (!IS_ENABLED(CONFIG_DEVICE_PRIVATE))
			return "no device-private memory in this kernel";
		if (!ops || !ops->migrate_to_ram)
			return "no migrate_to_ram";
		fallthrough;
	case MEMORY_DEVICE_COHERENT:
		if (!ops || !(ops->page_free || ops->folio_free))
			return "no page_free";
		if (!pgmap->owner)
			return "no owner";
		return NULL;
	case MEMORY_DEVICE_FS_DAX:
		if (IS_ENABLED(CONFIG_FS_DAX_LIMITED))
			return "no FS_DAX memory in this kernel";
		return NULL;
	case MEMORY_DEVICE_GENERIC:
	case MEMORY_DEVICE_PCI_P2PDMA:
		return NULL;
	}
	return "no type of memory";
}

/* Struct pages in the first range have to fit, and somebody has to write them */
static const char *pgmap_altmap_trouble(struct dev_pagemap *pgmap)
{
	struct vmem_altmap *altmap = pgmap_altmap(pgmap);
	unsigned long nr = nr_pfns(&pgmap->ranges[0]);

	if (!altmap)
		return NULL;
	if (pgmap->type == MEMORY_DEVICE_PRIVATE)
		return "struct pages where no CPU reaches them";
	if (altmap->base_pfn != first_pfn(&pgmap->ranges[0]))
		return "struct pages of another range";
	if (altmap->reserve >= nr || altmap->free >= nr - altmap->reserve)
		return "no room beside the struct pages";
	return NULL;
}

static const char *pgmap_range_trouble(struct dev_pagemap *pgmap, int i)
{
	const char *trouble = i ? NULL : pgmap_altmap_trouble(pgmap);
	struct range *range = &pgmap->ranges[i];
	bool linear = pgmap->type != MEMORY_DEVICE_PRIVATE;

	if (range->end < range->start || !range_len(range))
		return "empty";
	if (!IS_ALIGNED(range->start, SUBSECTION_SIZE) ||
	    !IS_ALIGNED(range_len(range), SUBSECTION_SIZE))
		return "not aligned";
	if (trouble)
		return trouble;
	/* Compound pages are aligned to their size, and fill what is there */
	if (!IS_ALIGNED(first_pfn(range) + pgmap_offset(pgmap, i),
			pgmap_vmemmap_nr(pgmap)) ||
	    !IS_ALIGNED(last_pfn(range) + 1, pgmap_vmemmap_nr(pgmap)))
		return "not whole compound pages";
	if (!mhp_range_allowed(range->start, range_len(range), linear))
		return "not addressable";
	return NULL;
}

static int pgmap_check(struct dev_pagemap *pgmap, int nid)
{
	const char *trouble = pgmap_type_trouble(pgmap);
	int i;

	if (!trouble && pgmap->nr_range < 1)
		trouble = "no range";
	if (!trouble && (nid < 0 || nid >= MAX_NUMNODES || !node_possible(nid)))
		trouble = "no such node";
	if (!trouble && pgmap->vmemmap_shift > PUD_SHIFT - PAGE_SHIFT)
		trouble = "no such compound pages";
	if (trouble) {
		pr_warn("memory not added: %s\n", trouble);
		return -EINVAL;
	}
	for (i = 0; i < pgmap->nr_range; i++) {
		trouble = pgmap_range_trouble(pgmap, i);
		if (!trouble)
			continue;
		range_refused(&pgmap->ranges[i], trouble);
		return -EINVAL;
	}
	return 0;
}

static pgprot_t pgmap_pgprot(const struct dev_pagemap *pgmap)
{
	switch (pgmap->type) {
	case MEMORY_DEVICE_FS_DAX:
		return pgprot_decrypted(PAGE_KERNEL);
	case MEMORY_DEVICE_PCI_P2PDMA:
		return pgprot_noncached(PAGE_KERNEL);
	default:
		return PAGE_KERNEL;
	}
}

/* ---- Adding and removing one range ---- */

static struct zone *device_zone(int nid)
{
	return &NODE_DATA(nid)->node_zones[ZONE_DEVICE];
}

static bool has_struct_page(unsigned long pfn)
{
	struct mem_section *ms = __pfn_to_section(pfn);

	/* Not pfn_valid(): it takes a section for whole if it has system memory */
	return valid_section(ms) && pfn_section_valid(ms, pfn);
}

/* From the start of @range on, how many pages there are with a struct page */
static unsigned long nr_struct_pages(const struct range *range)
{
	unsigned long pfn = first_pfn(range);

	while (pfn <= last_pfn(range) && has_struct_page(pfn))
		pfn += PAGES_PER_SUBSECTION;
	return pfn - first_pfn(range);
}

static bool range_in_use(const struct range *range)
{
	unsigned long pfn;

	for (pfn = first_pfn(range); pfn <= last_pfn(range);
	     pfn += PAGES_PER_SUBSECTION)
		if (has_struct_page(pfn))
			return true;
	return false;
}

static void struct_pages_remove(struct dev_pagemap *pgmap, int i, unsigned long nr)
{
	struct vmem_altmap *altmap = i ? NULL : pgmap_altmap(pgmap);
	struct range *range = &pgmap->ranges[i];

	if (pgmap->type == MEMORY_DEVICE_PRIVATE)
		__remove_pages(first_pfn(range), nr, altmap, pgmap);
	else
		arch_remove_memory(range->start, PFN_PHYS(nr), altmap, pgmap);
}

/*
 * Core code adds section by section, and where it fails it leaves what it has added:
 * nobody else had struct pages here, so all that there are now are ours.
 */
static int struct_pages_add(struct dev_pagemap *pgmap, int i, int nid,
			    struct mhp_params *params)
{
	struct range *range = &pgmap->ranges[i];
	unsigned long added;
	int ret;

	if (pgmap->type == MEMORY_DEVICE_PRIVATE)
		ret = add_pages(nid, first_pfn(range), nr_pfns(range), params);
	else
		ret = arch_add_memory(nid, range->start, range_len(range), params);
	if (!ret)
		return 0;
	added = nr_struct_pages(range);
	if (added)
		struct_pages_remove(pgmap, i, added);
	return ret;
}

/*
 * Struct pages, and for all but PRIVATE memory, which no CPU can reach, the
 * kernel's own mapping. Under mem_hotplug_begin().
 */
static int range_hot_add(struct dev_pagemap *pgmap, int i, int nid,
			 struct mhp_params *params)
{
	bool linear = pgmap->type != MEMORY_DEVICE_PRIVATE;
	struct range *range = &pgmap->ranges[i];
	int ret = 0;

	if (range_in_use(range))
		return -EEXIST;
	if (linear)
		ret = kasan_add_zero_shadow(__va(range->start), range_len(range));
	if (ret)
		return ret;
	ret = struct_pages_add(pgmap, i, nid, params);
	if (ret) {
		if (linear)
			kasan_remove_zero_shadow(__va(range->start),
						 range_len(range));
		return ret;
	}
	move_pfn_range_to_zone(device_zone(nid), first_pfn(range), nr_pfns(range),
			       params->altmap, MIGRATE_MOVABLE);
	return 0;
}

static void range_hot_remove(struct dev_pagemap *pgmap, int i)
{
	unsigned long first = first_pfn(&pgmap->ranges[i]) + pgmap_offset(pgmap, i);
	struct range *range = &pgmap->ranges[i];

	mem_hotplug_begin();
	/* The zone from a page that is surely one of ours, while it has a struct */
	remove_pfn_range_from_zone(page_zone(pfn_to_page(first)), first_pfn(range),
				   nr_pfns(range));
	struct_pages_remove(pgmap, i, nr_pfns(range));
	if (pgmap->type != MEMORY_DEVICE_PRIVATE)
		kasan_remove_zero_shadow(__va(range->start), range_len(range));
	mem_hotplug_done();
}

static bool range_is_system_memory(const struct range *range)
{
	return region_intersects(range->start, range_len(range),
				 IORESOURCE_SYSTEM_RAM,
				 IORES_DESC_NONE) != REGION_DISJOINT;
}

static int range_add(struct dev_pagemap *pgmap, int i, int nid)
{
	struct range *range = &pgmap->ranges[i];
	struct mhp_params params = {
		/* Only the first range has room for struct pages */
		.altmap = i ? NULL : pgmap_altmap(pgmap),
		.pgprot = pgmap_pgprot(pgmap),
		.pgmap = pgmap,
	};
	int ret;

	/* First of all: pfn_to_online_page() takes what is found for ours */
	if (range_is_system_memory(range)) {
		range_refused(range, "system memory is there");
		return -ENXIO;
	}
	ret = pgmap_publish(pgmap, i);
	if (ret)
		return ret;
	/* May it be cached as the type demands? */
	ret = track_pfn_remap(NULL, &params.pgprot, first_pfn(range), 0,
			      range_len(range));
	if (ret)
		goto withdraw;
	mem_hotplug_begin();
	ret = range_hot_add(pgmap, i, nid, &params);
	mem_hotplug_done();
	if (ret)
		goto untrack;
	/* Takes long for much memory: without the lock */
	device_pages_init(pgmap, params.altmap, device_zone(nid),
			  first_pfn(range) + pgmap_offset(pgmap, i),
			  nr_pfns(range) - pgmap_offset(pgmap, i));
	return 0;

untrack:
	untrack_pfn(NULL, first_pfn(range), range_len(range), true);
withdraw:
	pgmap_withdraw(pgmap, i);
	return ret;
}

static void range_remove(struct dev_pagemap *pgmap, int i)
{
	struct range *range = &pgmap->ranges[i];

	range_hot_remove(pgmap, i);
	untrack_pfn(NULL, first_pfn(range), range_len(range), true);
	pgmap_withdraw(pgmap, i);
}

/* ---- Removal ---- */

/* How often to look at a page whose last put wakes nobody */
#define PAGE_IDLE_POLL	(HZ / 50 + 1)
/* How long to wait for one before saying so */
#define PAGE_IDLE_PATIENCE	(10 * HZ)

/*
 * Pages whose references have no part in pgmap->ref. Nobody can come to one any
 * more; who has it will let go. Not inlined: as a rule nobody has any.
 */
static noinline void page_wait_idle(struct page *page)
{
	unsigned long complain = jiffies + PAGE_IDLE_PATIENCE;

	while (page_ref_count(page) > 1) {
		/* Put by __put_devmap_managed_folio_refs() it wakes; by others not */
		wait_var_event_timeout(&page->_refcount, page_ref_count(page) <= 1,
				       PAGE_IDLE_POLL);
		if (time_before(jiffies, complain))
			continue;
		pr_warn("pfn %lx still has %d references, removal waits\n",
			page_to_pfn(page), page_ref_count(page) - 1);
		complain = jiffies + PAGE_IDLE_PATIENCE;
	}
}

static void range_wait_idle(struct dev_pagemap *pgmap, int i)
{
	unsigned long pfn = first_pfn(&pgmap->ranges[i]) + pgmap_offset(pgmap, i);
	unsigned long last = last_pfn(&pgmap->ranges[i]);
	unsigned long step = pgmap_vmemmap_nr(pgmap);
	struct page *page = pfn_to_page(pfn);

	/* All struct pages are in one array: ZONE_DEVICE needs a vmemmap */
	for (; pfn <= last; pfn += step, page += step) {
		if (unlikely(page_ref_count(page) > 1))
			page_wait_idle(page);
		if (!(pfn % PAGES_PER_SUBSECTION))
			cond_resched();
	}
}

/* Kill the count, and wait until nobody uses a page of the first @nr ranges */
static void pgmap_drain(struct dev_pagemap *pgmap, int nr)
{
	int i;

	percpu_ref_kill(&pgmap->ref);
	/* Of what was mlock()ed a CPU may have pages in a batch, and be idle */
	lru_add_drain_all();
	wait_for_completion(&pgmap->done);
	for (i = 0; i < nr && !pgmap_counts_pages(pgmap); i++)
		range_wait_idle(pgmap, i);
	/*
	 * GUP-fast takes no reference to a pgmap where an ordinary entry maps the
	 * page, and may still hold an entry that it read before the page was
	 * unmapped: with interrupts off it looks at the struct page once more.
	 */
	synchronize_rcu();
}

/* Undo the first @nr ranges, and all that goes with the whole */
static void pgmap_teardown(struct dev_pagemap *pgmap, int nr)
{
	struct vmem_altmap *altmap = pgmap_altmap(pgmap);
	int i;

	pgmap_drain(pgmap, nr);
	for (i = nr - 1; i >= 0; i--)
		range_remove(pgmap, i);
	/* Who looked it up may be about to ask for a reference */
	synchronize_rcu();
	percpu_ref_exit(&pgmap->ref);
	if (altmap && WARN_ON_ONCE(altmap->alloc))
		altmap->alloc = 0;
	devmap_managed_put(pgmap);
}

/**
 * memunmap_pages() - remove what memremap_pages() has added
 * @pgmap: the memory
 *
 * The driver has stopped to hand out pages, and has seen to it that those in use
 * come back: this call waits for the last reference to each. After it nothing of
 * the kernel's points to @pgmap, which may be used again or freed.
 *
 * Context: Sleeps, for as long as somebody keeps a page; every ten seconds it says
 * which one if the page is of a type that does not count on the pgmap.
 */
void memunmap_pages(struct dev_pagemap *pgmap)
{
	pgmap_teardown(pgmap, pgmap->nr_range);
}
EXPORT_SYMBOL_GPL(memunmap_pages);

/* ---- Adding ---- */

/*
 * Is there system memory in a section where a range begins or ends? The section is
 * online then, and pfn_to_online_page() tells the two apart by get_dev_pagemap().
 */
static bool pgmap_shares_sections(struct dev_pagemap *pgmap)
{
	int i;

	for (i = 0; i < pgmap->nr_range; i++) {
		if (online_section_nr(pfn_to_section_nr(first_pfn(&pgmap->ranges[i]))) ||
		    online_section_nr(pfn_to_section_nr(last_pfn(&pgmap->ranges[i]))))
			return true;
	}
	return false;
}

static void pgmap_released(struct percpu_ref *ref)
{
	complete(&container_of(ref, struct dev_pagemap, ref)->done);
}

/*
 * Who looks up a pfn takes what he gets for a page. So the count is dead, and
 * get_dev_pagemap() fails, until the struct pages of all ranges have been made; only
 * where sections are shared it cannot be, and who comes by a pfn alone meanwhile may
 * see a struct page that is not one yet.
 */
static int pgmap_count_init(struct dev_pagemap *pgmap)
{
	unsigned int flags = pgmap_shares_sections(pgmap) ? 0 : PERCPU_REF_INIT_DEAD;

	init_completion(&pgmap->done);
	return percpu_ref_init(&pgmap->ref, pgmap_released, flags, GFP_KERNEL);
}

static void pgmap_go_live(struct dev_pagemap *pgmap)
{
	if (percpu_ref_is_dying(&pgmap->ref))
		percpu_ref_reinit(&pgmap->ref);
}

/*
 * While range i is added, nr_range is i: mm/sparse-vmemmap.c finds the range at
 * work by that.
 */
static int pgmap_add_ranges(struct dev_pagemap *pgmap, int nr_range, int nid)
{
	int i, ret = 0;

	for (i = 0; i < nr_range; i++) {
		pgmap->nr_range = i;
		ret = range_add(pgmap, i, nid);
		if (ret)
			break;
	}
	pgmap->nr_range = nr_range;
	pgmap_go_live(pgmap);
	if (ret)
		pgmap_teardown(pgmap, i);
	return ret;
}

/**
 * memremap_pages() - give struct pages to memory of a device
 * @pgmap: the memory, and what is to be done with it; stays where it is until
 *	memunmap_pages()
 * @nid: NUMA node of the memory; NUMA_NO_NODE: that of the caller
 *
 * All ranges are added, or none. Start and length of each are multiples of
 * memremap_compat_align(), and the resource is the caller's. %MEMORY_DEVICE_PRIVATE
 * needs ops with page_free or folio_free, and migrate_to_ram, and an owner;
 * %MEMORY_DEVICE_COHERENT all of that but migrate_to_ram.
 *
 * Context: Sleeps; takes the memory hotplug lock.
 * Return: the address of the first byte of the first range, which for
 * %MEMORY_DEVICE_PRIVATE no CPU may use. ERR_PTR() of -EINVAL if @pgmap asks for
 * what cannot be, -ENXIO if a range overlaps system memory, -ENOMEM if it overlaps
 * other device memory or if there is no memory for the struct pages, -EEXIST if
 * somebody else has made struct pages there, and what the architecture returns.
 */
void *memremap_pages(struct dev_pagemap *pgmap, int nid)
{
	int ret;

	if (nid == NUMA_NO_NODE)
		nid = numa_mem_id();
	ret = pgmap_check(pgmap, nid);
	if (ret)
		return ERR_PTR(ret);

	ret = pgmap_count_init(pgmap);
	if (ret)
		return ERR_PTR(ret);
	devmap_managed_get(pgmap);
	ret = pgmap_add_ranges(pgmap, pgmap->nr_range, nid);

	return ret ? ERR_PTR(ret) : __va(pgmap->ranges[0].start);
}
EXPORT_SYMBOL_GPL(memremap_pages);

static void pgmap_devm_release(void *pgmap)
{
	memunmap_pages(pgmap);
}

/**
 * devm_memremap_pages() - memremap_pages() that ends with the device
 * @dev: the device; its NUMA node is that of the memory
 * @pgmap: as for memremap_pages()
 *
 * Context: Sleeps.
 * Return: as memremap_pages(); also -ENOMEM if there is no memory to note the undoing.
 */
void *devm_memremap_pages(struct device *dev, struct dev_pagemap *pgmap)
{
	void *addr = memremap_pages(pgmap, dev_to_node(dev));
	int ret;

	if (IS_ERR(addr))
		return addr;
	ret = devm_add_action_or_reset(dev, pgmap_devm_release, pgmap);
	return ret ? ERR_PTR(ret) : addr;
}
EXPORT_SYMBOL_GPL(devm_memremap_pages);

/**
 * devm_memunmap_pages() - end devm_memremap_pages() before the device does
 * @dev: the device
 * @pgmap: what was given to devm_memremap_pages()
 *
 * Context: as memunmap_pages().
 */
void devm_memunmap_pages(struct device *dev, struct dev_pagemap *pgmap)
{
	devm_release_action(dev, pgmap_devm_release, pgmap);
}
EXPORT_SYMBOL_GPL(devm_memunmap_pages);

/* ---- The life of a page ---- */

/* Flags that are of a life; the others the page has while the memory is there */
#define LIFE_FLAGS	((PAGEFLAGS_MASK | LRU_GEN_MASK | LRU_REFS_MASK) & \
			 ~(BIT(PG_reserved) | BIT(PG_head)))

/* The tails of what was a large folio, from its head: single pages again */
static void device_tails_restore(struct page *head, unsigned long nr)
{
	struct page single = *head;
	unsigned long i;

	single.zone_device_data = NULL;
	for (i = 1; i < nr; i++)
		head[i] = single;
}

/*
 * What the last user left behind. Nobody has a reference, so that nobody else
 * writes; all is done before the owner hears of the page.
 */
static void device_folio_scrub(struct folio *folio, struct dev_pagemap *pgmap)
{
	struct page *page = &folio->page;
	unsigned long nr = folio_nr_pages(folio);

	mem_cgroup_uncharge(folio);
	/* The file's, also after a put too many */
	if (pgmap->type == MEMORY_DEVICE_FS_DAX)
		return;
	/* Mapped as mlock()ed; that munlock() passes it over, nobody else notices */
	if (unlikely(folio_test_mlocked(folio))) {
		zone_stat_mod_folio(folio, NR_MLOCK, -(long)nr);
		count_vm_events(UNEVICTABLE_PGCLEARED, nr);
	}
	page->mapping = NULL;
	page->index = 0;
	page->private = 0;
	page->flags &= ~LIFE_FLAGS;
	page_cpupid_reset_last(page);
	/* Those that are compound for as long as the memory is there stay so */
	if (pgmap->vmemmap_shift || nr == 1)
		return;
	folio_clear_head(folio);
	device_tails_restore(page, nr);
}

static void device_folio_give_back(const struct dev_pagemap_ops *ops,
				   struct folio *folio)
{
	if (ops && ops->folio_free)
		ops->folio_free(folio);
	else if (ops && ops->page_free)
		ops->page_free(&folio->page);
	else
		/* FS_DAX or GENERIC: somebody has put one reference too many */
		WARN_ON_ONCE(1);
}

/*
 * The last reference to @folio is gone. May come with the page-table lock held.
 * After the owner has been told, another CPU may have taken the page: whatever
 * is needed then has been read before.
 */
void free_zone_device_folio(struct folio *folio)
{
	struct dev_pagemap *pgmap = folio->page.pgmap;
	const struct dev_pagemap_ops *ops = pgmap->ops;
	unsigned long nr;

	nr = pgmap->vmemmap_shift ? 1 : folio_nr_pages(folio);
	device_folio_scrub(folio, pgmap);
	if (pgmap_counts_pages(pgmap)) {
		device_folio_give_back(ops, folio);
		percpu_ref_put_many(&pgmap->ref, nr);
	} else {
		/* Idle, but still there */
		folio_set_count(folio, 1);
		device_folio_give_back(ops, folio);
	}
}

static void device_folio_get(struct page *page, struct dev_pagemap *pgmap,
			     unsigned long nr)
{
	/* The last put gives them back, whether they should have been taken or not */
	if (WARN_ON_ONCE(!percpu_ref_tryget_live(&pgmap->ref)))
		percpu_ref_get(&pgmap->ref);
	if (nr > 1)
		percpu_ref_get_many(&pgmap->ref, nr - 1);
	__folio_set_locked(page_folio(page));
	/* A release: who gets at the page now finds it locked */
	page_ref_unfreeze(page, 1);
}

/**
 * zone_device_page_init() - a free page of device memory gets in use
 * @page: a page of %MEMORY_DEVICE_PRIVATE or %MEMORY_DEVICE_COHERENT that the
 *	owner has taken off its list
 *
 * The page has one reference, which is the caller's, and is locked.
 * page->zone_device_data is left alone. The memory must not be on its way out:
 * that is warned of.
 *
 * Context: Any. Does not sleep: nobody can hold the lock of a free page.
 */
void zone_device_page_init(struct page *page)
{
	device_folio_get(page, page->pgmap, 1);
}
EXPORT_SYMBOL_GPL(zone_device_page_init);

/**
 * zone_device_folio_init() - free pages of device memory get in use as one folio
 * @folio: the first of 1 << @order pages, as for zone_device_page_init(); aligned
 *	to the number of them
 * @pgmap: the memory that they belong to; its vmemmap_shift is 0
 * @order: of the folio
 *
 * As zone_device_page_init(), for all of them as one. At its last put the folio
 * comes apart: the owner gets single pages back, by one call for the first.
 *
 * In this kernel core code takes no large folio of device memory, neither in page
 * tables nor by migration: those with an @order above 0 are for the driver alone.
 * Of the tails page->zone_device_data is lost.
 *
 * What cannot be made a folio of that order is warned of, and its first page alone
 * gets in use.
 *
 * Context: Any. Does not sleep.
 */
void zone_device_folio_init(struct folio *folio, struct dev_pagemap *pgmap,
			    unsigned int order)
{
	struct page *page = &folio->page;

	if (WARN_ON_ONCE(order && (pgmap->vmemmap_shift || order > PUD_ORDER ||
				   !IS_ALIGNED(page_to_pfn(page), 1UL << order))))
		order = 0;
	if (order) {
		prep_compound_page(page, order);
		folio_set_large_rmappable(folio);
	}
	device_folio_get(page, pgmap, 1UL << order);
}
EXPORT_SYMBOL_GPL(zone_device_folio_init);

#ifdef CONFIG_FS_DAX
/*
 * From put_page() and its like, while there is FS_DAX memory: true if the
 * references have been put here. Truncation waits for the last one but one.
 */
bool __put_devmap_managed_folio_refs(struct folio *folio, int refs)
{
	bool ours = folio->page.pgmap->type == MEMORY_DEVICE_FS_DAX;

	if (ours && folio_ref_sub_return(folio, refs) == 1)
		wake_up_var(&folio->_refcount);
	return ours;
}
EXPORT_SYMBOL(__put_devmap_managed_folio_refs);
#endif /* CONFIG_FS_DAX */
