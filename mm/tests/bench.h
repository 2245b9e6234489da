/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MM_TESTS_BENCH_H
#define _MM_TESTS_BENCH_H

/*
 * What benchmarks have in common: to count, and to say what was counted
 *
 * Cycles are those of the time stamp counter. On an emulator that advances it by
 * one for each instruction (QEMU's -icount shift=0) that is the number of
 * instructions, exactly; a real machine, or User Mode Linux on one, gives cycles.
 *
 * A figure is a line "bench: NAME VALUE UNIT" in the log of its case.
 */
#include <kunit/test.h>
#include <linux/delay.h>
#include <linux/math64.h>
#include <linux/rcupdate.h>
#include <linux/sort.h>
#include <linux/timex.h>

/* User Mode Linux has no counter of its own */
#if defined(CONFIG_UML) && defined(__x86_64__)
static __always_inline u64 b_cycles(void)
{
	u32 low, high;

	asm volatile("lfence; rdtsc" : "=a" (low), "=d" (high) : : "memory");
	return (u64)high << 32 | low;
}
#else
#define b_cycles()	((u64)get_cycles())
#endif

/*
 * Nothing may be pending that would make a cond_resched() do more than look:
 * idle for a moment, and RCU has what it wanted.
 */
static inline void b_settle(void)
{
	synchronize_rcu();
	msleep(20);
}

/* From right after a tick: the next is 4 million cycles away under -icount */
static inline void b_after_tick(void)
{
	unsigned long now;

	b_settle();
	now = READ_ONCE(jiffies);
	while (READ_ONCE(jiffies) == now)
		cpu_relax();
}

static inline int b_compare(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return x < y ? -1 : x > y;
}

static inline u64 b_median(u64 *cycles, unsigned int n)
{
	sort(cycles, n, sizeof(*cycles), b_compare, NULL);
	return cycles[n / 2];
}

/* Cycles for @loops runs of @body, which may look at @i; their own cost is off */
#define b_count(loops, body)						\
({									\
	unsigned int __loops = (loops), i;				\
	u64 __a, __b, __c;						\
									\
	__a = b_cycles();						\
	for (i = 0; i < __loops; i++)					\
		barrier();						\
	__b = b_cycles();						\
	for (i = 0; i < __loops; i++) {					\
		barrier();						\
		body;							\
	}								\
	__c = b_cycles();						\
	(__c - __b) - (__b - __a);					\
})

/* The same where nothing can come between; @body must not sleep */
#define b_measure(loops, body)						\
({									\
	unsigned long __flags;						\
	u64 __cycles;							\
									\
	b_settle();							\
	local_irq_save(__flags);					\
	__cycles = b_count(loops, body);				\
	local_irq_restore(__flags);					\
	__cycles;							\
})

/* @total cycles for @count things, with two decimals */
static inline void b_say(struct kunit *test, const char *name, u64 total, u64 count)
{
	u64 value = div64_u64(total * 100 + count / 2, count);
	u32 part;

	value = div_u64_rem(value, 100, &part);
	kunit_info(test, "bench: %s %llu.%02u cycles", name, value, part);
}

static inline void b_say_n(struct kunit *test, const char *name, unsigned int n,
			   u64 total, u64 count)
{
	char full[64];

	snprintf(full, sizeof(full), "%s/%u", name, n);
	b_say(test, full, total, count);
}

#endif /* _MM_TESTS_BENCH_H */
