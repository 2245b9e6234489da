/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM mmu_notifier

#if !defined(_TRACE_MMU_NOTIFIER_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_MMU_NOTIFIER_H

#include <linux/mmu_notifier.h>
#include <linux/tracepoint.h>

#define MMU_NOTIFIER_EVENTS						\
	EM(MMU_NOTIFY_UNMAP,		"unmap")			\
	EM(MMU_NOTIFY_CLEAR,		"clear")			\
	EM(MMU_NOTIFY_PROTECTION_VMA,	"protection_vma")		\
	EM(MMU_NOTIFY_PROTECTION_PAGE,	"protection_page")		\
	EM(MMU_NOTIFY_SOFT_DIRTY,	"soft_dirty")			\
	EM(MMU_NOTIFY_RELEASE,		"release")			\
	EM(MMU_NOTIFY_MIGRATE,		"migrate")			\
	EMe(MMU_NOTIFY_EXCLUSIVE,	"exclusive")

/* User space gets the values by their names */
#undef EM
#undef EMe
#define EM(a, b)	TRACE_DEFINE_ENUM(a);
#define EMe(a, b)	TRACE_DEFINE_ENUM(a);

MMU_NOTIFIER_EVENTS

#undef EM
#undef EMe
#define EM(a, b)	{ a, b },
#define EMe(a, b)	{ a, b }

/* The start of a bracket is over: who was called, and how long that took */
TRACE_EVENT(mmu_notifier_start,

	TP_PROTO(const struct mmu_notifier_range *range, unsigned int hits,
		 u64 ns, int ret),

	TP_ARGS(range, hits, ns, ret),

	TP_STRUCT__entry(
		__field(struct mm_struct *, mm)
		__field(unsigned long, start)
		__field(unsigned long, end)
		__field(int, event)
		__field(bool, blockable)
		__field(unsigned int, hits)
		__field(u64, ns)
		__field(int, ret)
	),

	TP_fast_assign(
		__entry->mm = range->mm;
		__entry->start = range->start;
		__entry->end = range->end;
		__entry->event = range->event;
		__entry->blockable = mmu_notifier_range_blockable(range);
		__entry->hits = hits;
		__entry->ns = ns;
		__entry->ret = ret;
	),

	TP_printk("mm=%p range=[%lx,%lx) event=%s blockable=%d hits=%u ns=%llu ret=%d",
		  __entry->mm, __entry->start, __entry->end,
		  __print_symbolic(__entry->event, MMU_NOTIFIER_EVENTS),
		  __entry->blockable, __entry->hits, __entry->ns, __entry->ret)
);

/* The end of a bracket is over */
TRACE_EVENT(mmu_notifier_end,

	TP_PROTO(const struct mmu_notifier_range *range, u64 ns),

	TP_ARGS(range, ns),

	TP_STRUCT__entry(
		__field(struct mm_struct *, mm)
		__field(unsigned long, start)
		__field(unsigned long, end)
		__field(int, event)
		__field(u64, ns)
	),

	TP_fast_assign(
		__entry->mm = range->mm;
		__entry->start = range->start;
		__entry->end = range->end;
		__entry->event = range->event;
		__entry->ns = ns;
	),

	TP_printk("mm=%p range=[%lx,%lx) event=%s ns=%llu",
		  __entry->mm, __entry->start, __entry->end,
		  __print_symbolic(__entry->event, MMU_NOTIFIER_EVENTS),
		  __entry->ns)
);

DECLARE_EVENT_CLASS(mmu_notifier_interval,

	TP_PROTO(const struct mmu_interval_notifier *ini, u64 value),

	TP_ARGS(ini, value),

	TP_STRUCT__entry(
		__field(struct mm_struct *, mm)
		__field(const void *, ini)
		__field(unsigned long, start)
		__field(unsigned long, last)
		__field(u64, value)
	),

	TP_fast_assign(
		__entry->mm = ini->mm;
		__entry->ini = ini;
		__entry->start = ini->interval_tree.start;
		__entry->last = ini->interval_tree.last;
		__entry->value = value;
	),

	TP_printk("mm=%p ini=%p interval=[%lx,%lx] ns=%llu",
		  __entry->mm, __entry->ini, __entry->start, __entry->last,
		  __entry->value)
);

/* A callback has stored the sequence value of its bracket: who reads must retry */
DEFINE_EVENT_PRINT(mmu_notifier_interval, mmu_notifier_collision,
	TP_PROTO(const struct mmu_interval_notifier *ini, u64 value),
	TP_ARGS(ini, value),
	TP_printk("mm=%p ini=%p interval=[%lx,%lx] seq=%llu",
		  __entry->mm, __entry->ini, __entry->start, __entry->last,
		  __entry->value)
);

/* mmu_interval_read_begin() has waited for brackets over its interval */
DEFINE_EVENT(mmu_notifier_interval, mmu_notifier_wait,
	TP_PROTO(const struct mmu_interval_notifier *ini, u64 value),
	TP_ARGS(ini, value)
);

DEFINE_EVENT_PRINT(mmu_notifier_interval, mmu_notifier_insert,
	TP_PROTO(const struct mmu_interval_notifier *ini, u64 value),
	TP_ARGS(ini, value),
	TP_printk("mm=%p ini=%p interval=[%lx,%lx] seq=%llu",
		  __entry->mm, __entry->ini, __entry->start, __entry->last,
		  __entry->value)
);

/* A subscription is off, after waiting for callbacks on it */
DEFINE_EVENT(mmu_notifier_interval, mmu_notifier_remove,
	TP_PROTO(const struct mmu_interval_notifier *ini, u64 value),
	TP_ARGS(ini, value)
);

#endif /* _TRACE_MMU_NOTIFIER_H */

/* This part must be outside protection */
#include <trace/define_trace.h>
