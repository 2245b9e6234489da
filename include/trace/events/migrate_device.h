/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM migrate_device

#if !defined(_TRACE_MIGRATE_DEVICE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_MIGRATE_DEVICE_H

#include <linux/tracepoint.h>

#ifndef _MIGRATE_DEVICE_LEFT
#define _MIGRATE_DEVICE_LEFT
/* Why a page is left where it is */
enum migrate_device_left {
	LEFT_KIND,	/* of a file, shared by KSM, poisoned */
	LEFT_LARGE,	/* part of a large folio that could not be split */
	LEFT_LOCKED,	/* somebody else has the folio lock */
	LEFT_LRU,	/* off its LRU list: somebody else moves it */
	LEFT_IO,	/* being written to swap */
	LEFT_PINNED,	/* has references that page tables do not account for */
	LEFT_MAPPED,	/* still mapped somewhere */
	LEFT_NR
};
#endif

/*
 * Pages have been collected: @collected of @npages, and why the others were not.
 * @start is an address, or a pfn where pages are collected by pfn.
 */
TRACE_EVENT(migrate_device_collect,

	TP_PROTO(const void *owner, unsigned long start, unsigned long npages,
		 unsigned long collected, const unsigned int *left, u64 ns),

	TP_ARGS(owner, start, npages, collected, left, ns),

	TP_STRUCT__entry(
		__field(const void *, owner)
		__field(unsigned long, start)
		__field(unsigned long, npages)
		__field(unsigned long, collected)
		__array(unsigned int, left, LEFT_NR)
		__field(u64, ns)
	),

	TP_fast_assign(
		__entry->owner = owner;
		__entry->start = start;
		__entry->npages = npages;
		__entry->collected = collected;
		memcpy(__entry->left, left, sizeof(__entry->left));
		__entry->ns = ns;
	),

	TP_printk("owner=%p start=%lx npages=%lu collected=%lu kind=%u large=%u locked=%u lru=%u io=%u pinned=%u mapped=%u ns=%llu",
		  __entry->owner, __entry->start, __entry->npages,
		  __entry->collected, __entry->left[LEFT_KIND],
		  __entry->left[LEFT_LARGE], __entry->left[LEFT_LOCKED],
		  __entry->left[LEFT_LRU], __entry->left[LEFT_IO],
		  __entry->left[LEFT_PINNED], __entry->left[LEFT_MAPPED],
		  __entry->ns)
);

/*
 * New pages have taken the place of @moved old ones and of @filled holes; for
 * @absent the driver had none; @pinned are in use, and @refused new ones cannot go
 * where they were to go.
 */
TRACE_EVENT(migrate_device_pages,

	TP_PROTO(unsigned long npages, unsigned long moved, unsigned long filled,
		 unsigned long absent, unsigned long pinned,
		 unsigned long refused, u64 ns),

	TP_ARGS(npages, moved, filled, absent, pinned, refused, ns),

	TP_STRUCT__entry(
		__field(unsigned long, npages)
		__field(unsigned long, moved)
		__field(unsigned long, filled)
		__field(unsigned long, absent)
		__field(unsigned long, pinned)
		__field(unsigned long, refused)
		__field(u64, ns)
	),

	TP_fast_assign(
		__entry->npages = npages;
		__entry->moved = moved;
		__entry->filled = filled;
		__entry->absent = absent;
		__entry->pinned = pinned;
		__entry->refused = refused;
		__entry->ns = ns;
	),

	TP_printk("npages=%lu moved=%lu filled=%lu absent=%lu pinned=%lu refused=%lu ns=%llu",
		  __entry->npages, __entry->moved, __entry->filled,
		  __entry->absent, __entry->pinned, __entry->refused,
		  __entry->ns)
);

/* All pages are mapped again, be it the new ones or the old ones, and let go */
TRACE_EVENT(migrate_device_finalize,

	TP_PROTO(unsigned long npages, u64 ns),

	TP_ARGS(npages, ns),

	TP_STRUCT__entry(
		__field(unsigned long, npages)
		__field(u64, ns)
	),

	TP_fast_assign(
		__entry->npages = npages;
		__entry->ns = ns;
	),

	TP_printk("npages=%lu ns=%llu", __entry->npages, __entry->ns)
);

#endif /* _TRACE_MIGRATE_DEVICE_H */

/* This part must be outside protection */
#include <trace/define_trace.h>
