/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM hmm

#if !defined(_TRACE_HMM_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_HMM_H

#include <linux/hmm.h>
#include <linux/mmu_notifier.h>
#include <linux/tracepoint.h>

/* A walk begins: what is asked for; flags are HMM_PFN_REQ_* */
TRACE_EVENT(hmm_range_begin,

	TP_PROTO(const struct hmm_range *range),

	TP_ARGS(range),

	TP_STRUCT__entry(
		__field(struct mm_struct *, mm)
		__field(unsigned long, start)
		__field(unsigned long, end)
		__field(unsigned long, request)
		__field(unsigned long, mask)
	),

	TP_fast_assign(
		__entry->mm = range->notifier->mm;
		__entry->start = range->start;
		__entry->end = range->end;
		__entry->request = range->default_flags;
		__entry->mask = range->pfn_flags_mask;
	),

	TP_printk("mm=%p start=%lx end=%lx request=%lx mask=%lx",
		  __entry->mm, __entry->start, __entry->end, __entry->request,
		  __entry->mask)
);

/* It is over: how far it came, what it took, and how long */
TRACE_EVENT(hmm_range_end,

	TP_PROTO(const struct hmm_range *range, unsigned long faults, u64 ns,
		 int ret),

	TP_ARGS(range, faults, ns, ret),

	TP_STRUCT__entry(
		__field(struct mm_struct *, mm)
		__field(unsigned long, start)
		__field(unsigned long, pages)
		__field(unsigned long, faults)
		__field(unsigned long, extents)
		__field(u64, ns)
		__field(int, ret)
	),

	TP_fast_assign(
		__entry->mm = range->notifier->mm;
		__entry->start = range->start;
		__entry->pages = range->populated;
		__entry->faults = faults;
		__entry->extents = range->nr_extents;
		__entry->ns = ns;
		__entry->ret = ret;
	),

	TP_printk("mm=%p start=%lx pages=%lu faults=%lu extents=%lu ns=%llu ret=%d",
		  __entry->mm, __entry->start, __entry->pages, __entry->faults,
		  __entry->extents, __entry->ns, __entry->ret)
);

/* A walk found that its range was invalidated after it began; this far it came */
TRACE_EVENT(hmm_collision,

	TP_PROTO(const struct hmm_range *range, unsigned long addr),

	TP_ARGS(range, addr),

	TP_STRUCT__entry(
		__field(struct mm_struct *, mm)
		__field(unsigned long, start)
		__field(unsigned long, end)
		__field(unsigned long, addr)
	),

	TP_fast_assign(
		__entry->mm = range->notifier->mm;
		__entry->start = range->start;
		__entry->end = range->end;
		__entry->addr = addr;
	),

	TP_printk("mm=%p start=%lx end=%lx addr=%lx",
		  __entry->mm, __entry->start, __entry->end, __entry->addr)
);

/*
 * Collisions went on for too long, and a call without a lock gave up. A mirror
 * begins another.
 */
TRACE_EVENT(hmm_timeout,

	TP_PROTO(const struct hmm_range *range, unsigned long tries),

	TP_ARGS(range, tries),

	TP_STRUCT__entry(
		__field(struct mm_struct *, mm)
		__field(unsigned long, start)
		__field(unsigned long, end)
		__field(unsigned long, tries)
	),

	TP_fast_assign(
		__entry->mm = range->notifier->mm;
		__entry->start = range->start;
		__entry->end = range->end;
		__entry->tries = tries;
	),

	TP_printk("mm=%p start=%lx end=%lx tries=%lu",
		  __entry->mm, __entry->start, __entry->end, __entry->tries)
);

#endif /* _TRACE_HMM_H */

#include <trace/define_trace.h>
