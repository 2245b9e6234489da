// SPDX-License-Identifier: GPL-2.0
/*
 * MMU notifiers: subscriptions to the page-table changes of an mm
 */

/**
 * DOC: Overview
 *
 * Whoever changes the page tables of an mm puts the change into a *bracket*:
 * mmu_notifier_invalidate_range_start(), the change,
 * mmu_notifier_invalidate_range_end(). Between the two the bracket is *in
 * flight*. Two kinds of subscription hear of it.
 *
 * A *list subscription* (&struct mmu_notifier) hears of every bracket of the mm,
 * of its start and of its end. Its owner keeps count of the brackets that are
 * open and sets up no mapping meanwhile. Hypervisors work this way.
 *
 * An *interval subscription* (&struct mmu_interval_notifier) covers a range of
 * addresses and hears only of the start of brackets that overlap it. Its owner
 * sets up mappings by *collision-retry*::
 *
 *	again:
 *		seq = mmu_interval_read_begin(&sub);
 *		read the CPU's page tables (hmm_range_fault());
 *		lock(driver);
 *		if (mmu_interval_read_retry(&sub, seq)) {
 *			unlock(driver);
 *			goto again;
 *		}
 *		write the device's page tables;
 *		unlock(driver);
 *
 * while the invalidate callback takes the same driver lock, stores a new
 * sequence value by mmu_interval_set_seq(), and clears the device's page tables.
 */

/**
 * DOC: Collision-retry
 *
 * Every bracket of an mm that has interval subscriptions is *recorded* while it
 * is in flight. mmu_interval_read_begin() samples two things as one: the
 * sequence value of the subscription, and the recorded brackets that overlap it.
 * It then waits until those, and only those, have ended. A bracket elsewhere, or
 * one that starts later, is never waited for, so that no storm of invalidations
 * holds a reader up for longer than the brackets that it met on arrival::
 *
 *	reader				bracket over the same page
 *	------				--------------------------
 *					start: recorded, callback stores new seq
 *	read_begin: sample new seq,
 *	  the bracket is in flight
 *	  wait				clear the page-table entry
 *					end: off the record, wake the reader
 *	  return the sampled seq
 *	read the cleared entry
 *	read_retry: no collision	=> nothing stale can be used
 *
 * What was sampled *before* the wait is returned after it. To sample again after
 * the wait would be wrong, because another bracket may have begun::
 *
 *	reader				second bracket
 *	------				--------------
 *	  wait is over			start: recorded, callback stores seq 2
 *	  sample seq 2 (wrong)
 *	read the entry, still present
 *					clear the page-table entry
 *	read_retry: seq is still 2	=> a stale mapping goes to the device
 *
 * With the first sample the reader finds the collision and starts again. A fresh
 * sample is taken only if, under the lock, no overlapping bracket is in flight:
 * then whatever stored the value has also ended, and the reader is spared a
 * retry for a change that is already complete.
 */

/**
 * DOC: Progress
 *
 * What each call waits for, and what it never waits for, however many brackets
 * begin while it does:
 *
 * * A bracket waits for the callbacks of those whom it hits. They are the ones
 *   that were there when it began; later ones are passed over.
 *
 * * mmu_interval_read_begin() waits for the end of the brackets over its own
 *   interval that had begun when it was called.
 *
 * * mmu_interval_notifier_insert() waits for nobody, but for the first on its mm:
 *   that one takes the locks under which brackets are opened, and so waits for
 *   those in flight to end. The locks are fair: later ones come after it.
 *
 * * mmu_interval_notifier_remove() waits for callbacks that run on its own
 *   subscription. As it is off the tree by then, no further one begins.
 *
 * * mmu_notifier_unregister() waits for list callbacks that have begun, of any
 *   mm: they share one SRCU domain.
 *
 * Nobody waits until *no* bracket is in flight. Under a storm of overlapping
 * brackets without a gap that moment never comes.
 */

/**
 * DOC: Two passes
 *
 * A device that needs a millisecond to drop its mappings does so by itself; the
 * CPU only waits. Where one bracket hits several devices, an interval
 * subscription with invalidate_start and invalidate_finish lets them work at the
 * same time::
 *
 *	one pass			two passes
 *	--------			----------
 *	invalidate(A): begin, wait	invalidate_start(A): begin
 *	invalidate(B): begin, wait	invalidate_start(B): begin
 *	invalidate(C): begin, wait	invalidate_start(C): begin
 *					invalidate_finish(A): wait
 *					invalidate_finish(B): wait
 *					invalidate_finish(C): wait
 *
 * Both kinds may be mixed. Every first pass comes before every second one, those
 * in the order of the first, all of it inside the start of the bracket. What a
 * first pass has begun is finished also if a later subscription refuses.
 */

/**
 * DOC: Locking
 *
 * Lock order, outermost first::
 *
 *	mm->mmap_lock
 *	  mm_take_all_locks()		while subscribing only
 *	  locks of the drivers		callbacks run with none of ours held
 *	    subscriptions->lock		leaf; never held over a callback
 *
 * SRCU: the callbacks of list subscriptions run inside an SRCU read section,
 * in which they may sleep. Whoever ends a subscription unlinks it first and
 * waits for the readers then.
 *
 * No lock and no read section is held from the start of a bracket to its end.
 * mmu_interval_read_begin() and mmu_interval_notifier_remove() are called with
 * the mmap lock held, so they take none of the mm's locks.
 */

#include <linux/atomic.h>
#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/err.h>
#include <linux/export.h>
#include <linux/interval_tree_generic.h>
#include <linux/llist.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/overflow.h>
#include <linux/rculist.h>
#include <linux/sched.h>
#include <linux/sched/clock.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/srcu.h>
#include <linux/timekeeping.h>
#include <linux/wait.h>

#define CREATE_TRACE_POINTS
#include <trace/events/mmu_notifier.h>

/*
 * In this file: @subs is mm->notifier_subscriptions, @mn a list subscription,
 * @ini an interval subscription, @tick a value of subs->clock.
 */

/* Guards the list subscriptions of all mms; see DOC: Locking */
DEFINE_STATIC_SRCU(mn_srcu);

#ifdef CONFIG_LOCKDEP
/*
 * Stands for "inside a callback". Held while callbacks run and where somebody
 * waits for them, acquired also by every allocation that may reclaim: an
 * allocation under a lock that a callback takes is reported the first time it
 * happens, not the first time it deadlocks.
 */
struct lockdep_map __mmu_notifier_invalidate_range_start_map = {
	.name = "mmu_notifier_invalidate_range_start"
};
#endif

/* The first value that is handed out is greater; see mn_tick() */
#define MN_CLOCK_START	16

/**
 * struct mmu_notifier_subscriptions - everything that listens to one mm
 * @inflight: recorded brackets, oldest first; they live on their callers' stacks;
 *	mmu_interval_read_begin() looks without the lock whether there are any
 * @list: list subscriptions, newest first, so @born falls from head to tail;
 *	read under SRCU, written under @lock
 * @recording: brackets are recorded; set once, by the first interval insertion,
 *	while mm_take_all_locks() keeps brackets out: none is in flight that
 *	is not recorded
 * @listed: there has been a list subscription; set like @recording
 * @lock: guards everything below, and @inflight
 * @clock: stamps brackets and subscriptions in the order in which they came
 * @itree: interval subscriptions by address
 * @sorted: the same in the order of the tree, for going from one to the next
 * @walks: brackets that are calling several interval subscriptions right now, and
 *	the exit while it calls release
 * @readers: those who wait in mmu_interval_read_begin()
 * @removers: those who wait in mmu_interval_notifier_remove()
 *
 * Made by the first subscription, published in mm->notifier_subscriptions by a
 * release, freed together with the mm_struct, which every subscription pins.
 */
struct mmu_notifier_subscriptions {
	struct list_head inflight; /* first: its address is what is asked for most */
	struct hlist_head list;
	bool recording;
	bool listed;
	spinlock_t lock; /* inflight, and everything below */
	u64 clock;
	struct rb_root_cached itree;
	struct list_head sorted;
	struct hlist_head walks;
	struct hlist_head readers;
	wait_queue_head_t removers;
};

/*
 * The next stamp. Its low word serves as the sequence value of collision-retry,
 * so it must never be one that drivers use to say "none": 0, LONG_MAX, ULONG_MAX.
 *
 * On 64-bit the clock does not get there. On 32-bit the sequence value wraps,
 * and a reader takes an old value for its own if exactly 2^32 brackets and
 * insertions went by between its read_begin and its read_retry, during all of
 * which it would have had to be stopped. Order is judged by the whole clock,
 * which does not wrap.
 */
static u64 mn_tick(struct mmu_notifier_subscriptions *subs)
{
	unsigned long value;

	lockdep_assert_held(&subs->lock);

	do {
		value = ++subs->clock;
	} while (!IS_ENABLED(CONFIG_64BIT) &&
		 (value <= 2 || value == LONG_MAX || value == ULONG_MAX));

	return subs->clock;
}

/*
 * might_sleep() for functions that as a rule do not: the debugging check without
 * the call of the scheduler, which would cost more than all the rest.
 */
static __always_inline void mn_might_sleep(void)
{
	__might_sleep(__FILE__, __LINE__);
}

/* Nobody asks what time it is while nobody traces: then it is 0 */
static u64 mn_traced_since(bool traced)
{
	return traced ? ktime_get_ns() : 0;
}

/* Tracing may have been switched on meanwhile: then it is 0, too */
static u64 mn_traced_ns(u64 began)
{
	return began ? ktime_get_ns() - began : 0;
}

/* ---- The record of brackets in flight ---- */

/* No limit, and no signal ends it either */
#define MN_UNKILLABLE	ULONG_MAX

/*
 * How long a reader spins: about what it costs to put it to sleep and wake it. And
 * how often it looks at most, for clocks that go by ticks.
 */
#define MN_SPIN_NS	(10 * NSEC_PER_USEC)
#define MN_SPIN_LOOKS	1000

struct mn_reader {
	struct hlist_node node;
	unsigned long start;
	unsigned long last;
	u64 horizon;		/* brackets that came later do not concern it */
	unsigned int pending;	/* brackets that it still waits for */
	struct completion done;
};

static bool mn_range_overlaps(const struct mmu_notifier_range *range,
			      unsigned long start, unsigned long last)
{
	return range->start <= last && range->end - 1 >= start;
}

static unsigned int mn_count_inflight(struct mmu_notifier_subscriptions *subs,
				      unsigned long start, unsigned long last)
{
	struct mmu_notifier_range *range;
	unsigned int n = 0;

	lockdep_assert_held(&subs->lock);

	list_for_each_entry(range, &subs->inflight, inflight)
		n += mn_range_overlaps(range, start, last);

	return n;
}

static void mn_record(struct mmu_notifier_subscriptions *subs,
		      struct mmu_notifier_range *range)
{
	lockdep_assert_held(&subs->lock);

	range->seq = mn_tick(subs);
	range->flags |= MMU_NOTIFIER_RANGE_RECORDED;
	/*
	 * Visible before any callback of this bracket stores its sequence value:
	 * that store is a release, mmu_interval_set_seq().
	 */
	list_add_tail(&range->inflight, &subs->inflight);
}

/* As a rule nobody waits: a call that is spared shall cost one comparison */
static noinline __noclone void
mn_release_readers(struct mmu_notifier_subscriptions *subs,
		   struct mmu_notifier_range *range)
{
	struct mn_reader *reader;
	struct hlist_node *next;

	lockdep_assert_held(&subs->lock);

	hlist_for_each_entry_safe(reader, next, &subs->readers, node) {
		if (range->seq > reader->horizon ||
		    !mn_range_overlaps(range, reader->start, reader->last))
			continue;
		/* mn_spin() looks at it without the lock */
		WRITE_ONCE(reader->pending, reader->pending - 1);
		if (reader->pending)
			continue;
		hlist_del(&reader->node);
		complete(&reader->done);
	}
}

static __always_inline void
mn_unrecord(struct mmu_notifier_subscriptions *subs,
	    struct mmu_notifier_range *range)
{
	struct list_head *prev, *next;

	spin_lock(&subs->lock);
	range->flags &= ~MMU_NOTIFIER_RANGE_RECORDED;
	prev = range->inflight.prev;
	next = range->inflight.next;
	next->prev = prev;
	/*
	 * list_del() with a release: a reader who sees no bracket in flight, by
	 * the second load of mmu_interval_read_begin(), must find the page
	 * tables as this bracket and, through the lock, all before it left them.
	 */
	smp_store_release(&prev->next, next);
	if (unlikely(subs->readers.first))
		mn_release_readers(subs, range);
	spin_unlock(&subs->lock);
}

/*
 * Most brackets are over before a sleep and a wake-up would be: @reader looks for
 * a moment whether those that it waits for are. With one CPU they never are.
 */
static bool mn_spin(const struct mn_reader *reader)
{
	unsigned int looks;
	u64 until;

	if (num_online_cpus() == 1)
		return false;

	until = local_clock() + MN_SPIN_NS;
	for (looks = 0; looks < MN_SPIN_LOOKS; looks++) {
		if (!READ_ONCE(reader->pending))
			return true;
		if (need_resched() || local_clock() > until)
			return false;
		cpu_relax();
	}
	return false;
}

/* Sleep, for at most @timeout jiffies; 0 if that was too short, or an error */
static long mn_sleep(struct mn_reader *reader, unsigned long timeout)
{
	if (timeout != MN_UNKILLABLE)
		return wait_for_completion_killable_timeout(&reader->done,
							    timeout);
	wait_for_completion(&reader->done);
	return 1;
}

/*
 * Wait for the brackets in flight that overlap @reader: 0 if there are none, 1 when
 * they have ended, -EBUSY if some have not after @timeout jiffies, -EINTR on a fatal
 * signal. Drops subs->lock while it waits.
 */
static int mn_wait(struct mmu_interval_notifier *ini, struct mn_reader *reader,
		   unsigned long timeout)
{
	struct mmu_notifier_subscriptions *subs = ini->mm->notifier_subscriptions;
	long left = 0;
	u64 began;

	lockdep_assert_held(&subs->lock);

	reader->horizon = subs->clock;
	reader->pending = mn_count_inflight(subs, reader->start, reader->last);
	if (!reader->pending)
		return 0;
	init_completion(&reader->done);
	hlist_add_head(&reader->node, &subs->readers);
	spin_unlock(&subs->lock);

	began = mn_traced_since(trace_mmu_notifier_wait_enabled());
	if (!mn_spin(reader))
		left = mn_sleep(reader, timeout);
	trace_mmu_notifier_wait(ini, mn_traced_ns(began));

	spin_lock(&subs->lock);
	/* Released after all; if not, nobody does it who has the lock later */
	if (!reader->pending)
		return 1;
	hlist_del(&reader->node);
	return left ? -EINTR : -EBUSY;
}

static int mn_read_begin_wait(struct mmu_interval_notifier *ini,
			      unsigned long *seq, unsigned long timeout)
{
	struct mmu_notifier_subscriptions *subs = ini->mm->notifier_subscriptions;
	struct mn_reader reader = {
		.start = ini->interval_tree.start,
		.last = ini->interval_tree.last,
	};
	int ret;

	spin_lock(&subs->lock);
	/*
	 * Sampled as one with the brackets in flight, see DOC: Collision-retry.
	 * No acquire: a bracket whose value can be seen here was recorded in an
	 * earlier hold of the lock, so it is either counted below or has ended.
	 */
	*seq = READ_ONCE(ini->seq);
	ret = mn_wait(ini, &reader, timeout);
	/* Whatever stored the value has ended: lock order makes it visible */
	if (ret > 0 && !mn_count_inflight(subs, reader.start, reader.last))
		*seq = READ_ONCE(ini->seq);
	spin_unlock(&subs->lock);
	return min(ret, 0);
}

/* Not inlined: the way without waiting needs no stack */
static noinline unsigned long mn_read_begin_slow(struct mmu_interval_notifier *ini)
{
	unsigned long seq;

	mn_read_begin_wait(ini, &seq, MN_UNKILLABLE);
	return seq;
}

/**
 * mmu_interval_read_begin() - start reading page tables for a subscription
 * @ini: the subscription
 *
 * Waits until the invalidations that overlap @ini and were in flight at the call
 * have ended. Neither invalidations of other addresses nor any that start later
 * are waited for, and with none in flight no lock is taken.
 *
 * Context: May sleep. The mmap lock may be held; a lock that the invalidate
 * callback takes may not.
 * Return: an opaque value for mmu_interval_read_retry(). It is the same at each
 * call as long as no invalidate callback stores another one, and never 0,
 * LONG_MAX or ULONG_MAX.
 */
unsigned long mmu_interval_read_begin(struct mmu_interval_notifier *ini)
{
	struct mmu_notifier_subscriptions *subs = ini->mm->notifier_subscriptions;
	unsigned long seq;

	mn_might_sleep();
	lock_map_acquire(&__mmu_notifier_invalidate_range_start_map);
	/*
	 * The order of the two loads matters.
	 *
	 * The first, an acquire, pairs with the release in
	 * mmu_interval_set_seq(): who gets the value of a bracket also finds
	 * that bracket in flight, unless it has ended.
	 *
	 * The second, an acquire, pairs with the release in mn_unrecord(): who
	 * finds no bracket in flight reads page-table entries not older than
	 * those that the last bracket left.
	 *
	 * A bracket that begins after the second load stores a value that
	 * mmu_interval_read_retry() tells from this one.
	 */
	seq = smp_load_acquire(&ini->seq); /* first */
	if (smp_load_acquire(&subs->inflight.next) != &subs->inflight) /* second */
		seq = mn_read_begin_slow(ini);
	lock_map_release(&__mmu_notifier_invalidate_range_start_map);

	return seq;
}
EXPORT_SYMBOL_GPL(mmu_interval_read_begin);

/* Jiffies to wait; the interface calls it 0 if there is no limit */
static unsigned long mn_timeout(unsigned long timeout)
{
	return min_t(unsigned long, timeout ?: MAX_SCHEDULE_TIMEOUT,
		     MAX_SCHEDULE_TIMEOUT);
}

/**
 * mmu_interval_read_begin_timeout() - start reading, but do not wait for ever
 * @ini: the subscription
 * @seq: where to put the value for mmu_interval_read_retry()
 * @timeout: how long to wait at most, in jiffies; 0: as long as it takes
 *
 * As mmu_interval_read_begin(), but gives up after a while, and on a signal that
 * kills.
 *
 * Context: May sleep. The mmap lock may be held; a lock that the invalidate
 * callback takes may not.
 * Return: 0; -EBUSY if an invalidation is still in flight after @timeout; -EINTR
 * on a fatal signal. On error *@seq means nothing.
 */
int mmu_interval_read_begin_timeout(struct mmu_interval_notifier *ini,
				    unsigned long *seq, unsigned long timeout)
{
	struct mmu_notifier_subscriptions *subs = ini->mm->notifier_subscriptions;
	int ret = 0;

	mn_might_sleep();
	lock_map_acquire(&__mmu_notifier_invalidate_range_start_map);
	/* Both as in mmu_interval_read_begin() */
	*seq = smp_load_acquire(&ini->seq); /* first */
	if (smp_load_acquire(&subs->inflight.next) != &subs->inflight) /* second */
		ret = mn_read_begin_wait(ini, seq, mn_timeout(timeout));
	lock_map_release(&__mmu_notifier_invalidate_range_start_map);

	return ret;
}
EXPORT_SYMBOL_GPL(mmu_interval_read_begin_timeout);

/**
 * mmu_interval_wait_timeout() - wait until an address range is left alone
 * @ini: a subscription to the mm
 * @start: first byte; need not be within @ini
 * @last: last byte
 * @timeout: how long at most, in jiffies; 0: as long as it takes
 *
 * Waits until the invalidations that overlap the range and were in flight at the
 * call have ended. That promises nothing about the next one: it is for those who
 * would only collide now. Who reads page tables goes by
 * mmu_interval_read_begin().
 *
 * Context: May sleep. The mmap lock need not be held; a lock that an invalidate
 * callback takes may not.
 * Return: 0; -EBUSY if one of them is still in flight after @timeout; -EINTR on a
 * fatal signal.
 */
int mmu_interval_wait_timeout(struct mmu_interval_notifier *ini,
			      unsigned long start, unsigned long last,
			      unsigned long timeout)
{
	struct mmu_notifier_subscriptions *subs = ini->mm->notifier_subscriptions;
	struct mn_reader reader = { .start = start, .last = last };
	int ret;

	mn_might_sleep();
	lock_map_acquire(&__mmu_notifier_invalidate_range_start_map);
	spin_lock(&subs->lock);
	ret = mn_wait(ini, &reader, mn_timeout(timeout));
	spin_unlock(&subs->lock);
	lock_map_release(&__mmu_notifier_invalidate_range_start_map);

	return min(ret, 0);
}
EXPORT_SYMBOL_GPL(mmu_interval_wait_timeout);

/* Is a callback of @ini under way? */
static bool mn_in_call(const struct mmu_interval_notifier *ini)
{
	/* An acquire: what the last one did comes before what a remover does */
	return ini->calls || atomic_read_acquire(&ini->only_calls);
}

/* For mmu_interval_set_seq() with CONFIG_DEBUG_VM */
void __mmu_interval_check_seq(struct mmu_interval_notifier *ini,
			      unsigned long cur_seq)
{
	struct mmu_notifier_subscriptions *subs = ini->mm->notifier_subscriptions;
	struct mmu_notifier_range *range;
	bool found = false;

	spin_lock(&subs->lock);
	list_for_each_entry(range, &subs->inflight, inflight)
		found |= mn_in_call(ini) &&
			 (unsigned long)range->seq == cur_seq;
	spin_unlock(&subs->lock);
	WARN_ONCE(!found, "%ps: sequence value set outside of a callback\n",
		  __builtin_return_address(0));
}
EXPORT_SYMBOL_GPL(__mmu_interval_check_seq);

/* ---- Walking the interval subscriptions ---- */

/*
 * A walk calls every subscription that overlaps its bracket and was there when
 * it began. The tree changes meanwhile: nothing is frozen. Under subs->lock the
 * walk notes where it will go on (@cursor), and drops the lock for the call. All
 * that have a cursor are on subs->walks, so that mmu_interval_notifier_remove() can
 * move on one that stands at what it takes out.
 *
 * Each subscription counts the calls under way on it; calls begin under the lock.
 * Who removes it waits for the count to fall to zero. It is off the tree by then,
 * so no further call begins; and a walk that ends a call and finds its
 * subscription off the tree knows that somebody may be waiting.
 *
 * A bracket that hits any as a rule hits one. Such a walk has no cursor and is on
 * no list, and the end of its only call takes no lock. These calls have a count of
 * their own, and who ends one must not look at the subscription any more, but at
 * the queue of those who wait.
 *
 * A subscription inserted after the walk began is passed over: its stamp is
 * younger. Its own read_begin waits for the bracket, so it needs no call, and
 * nobody can keep a walk going by inserting in front of it.
 *
 * Subscriptions with two passes leave a finish behind, which is called after the
 * last start. Until it is over the call counts as under way.
 */
struct mn_walk {
	struct hlist_node node;
	struct mmu_notifier_range *range;
	struct mmu_interval_notifier *cursor;	/* to be called next, or NULL */
	struct llist_node *finishes;		/* to come, the latest first */
};

#define MN_START(ini)	((ini)->interval_tree.start)
#define MN_LAST(ini)	((ini)->interval_tree.last)

/*
 * An interval tree of our own rather than that of interval_tree.h, which it is like
 * in all else: every bracket looks into it, so that shall be inlined, and
 * mn_itree_add() needs the callbacks.
 */
INTERVAL_TREE_DEFINE(struct mmu_interval_notifier, interval_tree.rb,
		     unsigned long, interval_tree.__subtree_last,
		     MN_START, MN_LAST, static __always_inline __maybe_unused,
		     mn_itree)

static __always_inline struct mmu_interval_notifier *
mn_first(struct mmu_notifier_subscriptions *subs,
	 const struct mmu_notifier_range *range)
{
	return mn_itree_iter_first(&subs->itree, range->start, range->end - 1);
}

/* The next one after @ini that overlaps, by the tree */
static struct mmu_interval_notifier *
mn_next(const struct mmu_notifier_range *range, struct mmu_interval_notifier *ini)
{
	do {
		ini = mn_itree_iter_next(ini, range->start, range->end - 1);
	} while (ini && unlikely(ini->born > range->seq));

	return ini;
}

/* The same by the list, for @ini that does not begin before the range */
static __always_inline struct mmu_interval_notifier *
mn_next_sorted(struct mmu_notifier_subscriptions *subs,
	       const struct mmu_notifier_range *range,
	       struct mmu_interval_notifier *ini)
{
	list_for_each_entry_continue(ini, &subs->sorted, sorted) {
		if (MN_START(ini) >= range->end)
			break;
		if (likely(ini->born <= range->seq))
			return ini;
	}
	return NULL;
}

/* A call is over. Unless others are under way, @ini may be freed after unlock. */
static __always_inline void mn_call_over(struct mmu_notifier_subscriptions *subs,
					 struct mmu_interval_notifier *ini)
{
	lockdep_assert_held(&subs->lock);

	ini->calls--;
	if (unlikely(!ini->born))
		wake_up_all(&subs->removers);
}

/* An only call is over, without the lock: @ini may be freed at once */
static __always_inline void mn_only_call_over(struct mmu_notifier_subscriptions *subs,
					      struct mmu_interval_notifier *ini)
{
	if (!atomic_dec_and_test(&ini->only_calls))
		return;
	/*
	 * It went down fully ordered: either a remover, who queues itself before
	 * it looks at the count, finds it down, or this finds the remover.
	 */
	if (waitqueue_active(&subs->removers))
		wake_up_all(&subs->removers);
}

static __always_inline void mn_trace_collision(struct mmu_interval_notifier *ini,
					       const struct mmu_notifier_range *range)
{
	/* Another bracket's callback may be storing its own */
	if (trace_mmu_notifier_collision_enabled() &&
	    READ_ONCE(ini->seq) == (unsigned long)range->seq)
		trace_mmu_notifier_collision(ini, range->seq);
}

/* As mn_walk_call(), for two passes: it is over if the first one did it all */
static noinline bool mn_walk_call_start(struct mmu_notifier_subscriptions *subs,
					struct mmu_notifier_range *range,
					struct mn_walk *walk,
					struct mmu_interval_notifier *ini)
	__acquires(&subs->lock)
{
	struct mmu_interval_notifier_finish *finish = NULL;
	bool done;

	done = ini->ops->invalidate_start(ini, range, range->seq, &finish);
	spin_lock(&subs->lock);
	mn_trace_collision(ini, range);
	if (!done || !finish) {
		mn_call_over(subs, ini);
	} else {
		finish->notifier = ini;
		finish->link.next = walk->finishes;
		walk->finishes = &finish->link;
	}
	return done;
}

/* Call @ini, whom the cursor has left; false if it refused */
static __always_inline bool mn_walk_call(struct mmu_notifier_subscriptions *subs,
					 struct mmu_notifier_range *range,
					 struct mn_walk *walk,
					 struct mmu_interval_notifier *ini)
	__must_hold(&subs->lock)
{
	bool done;

	ini->calls++;
	spin_unlock(&subs->lock);
	if (unlikely(ini->ops->invalidate_start)) {
		done = mn_walk_call_start(subs, range, walk, ini);
	} else {
		done = ini->ops->invalidate(ini, range, range->seq);
		spin_lock(&subs->lock);
		mn_trace_collision(ini, range);
		mn_call_over(subs, ini);
	}

	/* Who may wait has no reason to refuse, and is not heard */
	return likely(done) || WARN_ON_ONCE(mmu_notifier_range_blockable(range));
}

/*
 * The first passes, until one refuses. Of those that begin before the range, many
 * may end too early: the tree skips them. All the others overlap up to the one
 * that begins behind the range, and going through the list is cheaper.
 */
static bool mn_walk_starts(struct mmu_notifier_subscriptions *subs,
			   struct mmu_notifier_range *range,
			   struct mn_walk *walk)
	__must_hold(&subs->lock)
{
	struct mmu_interval_notifier *ini;

	while ((ini = walk->cursor) && ini->interval_tree.start < range->start) {
		walk->cursor = mn_next(range, ini);
		if (!mn_walk_call(subs, range, walk, ini))
			return false;
	}
	while ((ini = walk->cursor)) {
		walk->cursor = mn_next_sorted(subs, range, ini);
		if (!mn_walk_call(subs, range, walk, ini))
			return false;
	}
	return true;
}

/* The second passes, in the order of the first ones */
static void mn_walk_finishes(struct mmu_notifier_subscriptions *subs,
			     struct mn_walk *walk)
	__must_hold(&subs->lock)
{
	struct mmu_interval_notifier_finish *finish, *next;
	struct mmu_interval_notifier *ini;
	struct llist_node *first = llist_reverse_order(walk->finishes);

	spin_unlock(&subs->lock);
	llist_for_each_entry_safe(finish, next, first, link) {
		ini = finish->notifier;
		/* After this, @finish belongs to the driver again */
		ini->ops->invalidate_finish(finish);
		spin_lock(&subs->lock);
		mn_call_over(subs, ini);
		spin_unlock(&subs->lock);
	}
	spin_lock(&subs->lock);
}

/* Not inlined: most brackets hit one at most */
static noinline bool mn_walk(struct mmu_notifier_subscriptions *subs,
			     struct mmu_notifier_range *range,
			     struct mmu_interval_notifier *first)
	__releases(&subs->lock)
{
	struct mn_walk walk = { .range = range, .cursor = first };
	bool done;

	hlist_add_head(&walk.node, &subs->walks);
	done = mn_walk_starts(subs, range, &walk);
	/* Also if one refused: what has been started is finished */
	if (unlikely(walk.finishes))
		mn_walk_finishes(subs, &walk);
	__hlist_del(&walk.node);
	spin_unlock(&subs->lock);

	return done;
}

/* Both passes of @ini, the only one that the bracket hits; false if it refused */
static bool mn_call_only(struct mmu_notifier_subscriptions *subs,
			 struct mmu_notifier_range *range,
			 struct mmu_interval_notifier *ini)
	__releases(&subs->lock)
{
	struct mmu_interval_notifier_finish *finish = NULL;
	bool done;

	atomic_inc(&ini->only_calls);
	spin_unlock(&subs->lock);
	if (unlikely(ini->ops->invalidate_start))
		done = ini->ops->invalidate_start(ini, range, range->seq, &finish);
	else
		done = ini->ops->invalidate(ini, range, range->seq);
	mn_trace_collision(ini, range);
	if (unlikely(done && finish)) {
		finish->notifier = ini;
		ini->ops->invalidate_finish(finish);
	}
	mn_only_call_over(subs, ini);

	/* As in mn_walk_call() */
	return likely(done) || WARN_ON_ONCE(mmu_notifier_range_blockable(range));
}

/* Nobody comes after @first, the first whom the bracket hits */
static __always_inline bool mn_is_only(struct mmu_notifier_subscriptions *subs,
				       const struct mmu_notifier_range *range,
				       struct mmu_interval_notifier *first)
{
	if (first->interval_tree.start < range->start)
		return !mn_next(range, first);
	return !mn_next_sorted(subs, range, first);
}

/* Not inlined: most brackets hit nobody */
static noinline bool mn_hit(struct mmu_notifier_subscriptions *subs,
			    struct mmu_notifier_range *range,
			    struct mmu_interval_notifier *first)
	__releases(&subs->lock)
{
	if (likely(mn_is_only(subs, range, first)))
		return mn_call_only(subs, range, first);
	return mn_walk(subs, range, first);
}

static bool mn_calls_over(struct mmu_notifier_subscriptions *subs,
			  const struct mmu_interval_notifier *ini)
{
	bool over;

	spin_lock(&subs->lock);
	over = !mn_in_call(ini);
	spin_unlock(&subs->lock);
	return over;
}

/* No walk will begin to call @ini */
static void mn_walks_skip(struct mmu_notifier_subscriptions *subs,
			  struct mmu_interval_notifier *ini)
{
	struct mn_walk *walk;

	lockdep_assert_held(&subs->lock);

	hlist_for_each_entry(walk, &subs->walks, node) {
		if (walk->cursor == ini)
			walk->cursor = mn_next(walk->range, ini);
	}
}

/* Not inlined, for the sake of the brackets that nobody refuses */
static noinline int mn_refused(struct mmu_notifier_subscriptions *subs,
			       struct mmu_notifier_range *range)
{
	mn_unrecord(subs, range);
	return -EAGAIN;
}

static __always_inline int mn_itree_start(struct mmu_notifier_subscriptions *subs,
					  struct mmu_notifier_range *range)
{
	struct mmu_interval_notifier *first;

	/* The caller never closed it: leave the record as it is, it is sound */
	if (WARN_ON_ONCE(range->flags & MMU_NOTIFIER_RANGE_RECORDED))
		return 0;

	spin_lock(&subs->lock);
	mn_record(subs, range);
	first = mn_first(subs, range);
	if (likely(!first))
		spin_unlock(&subs->lock);
	else if (unlikely(!mn_hit(subs, range, first)))
		return mn_refused(subs, range);
	return 0;
}

/* ---- List subscriptions ---- */

#define mn_for_each(mn, subs)						\
	hlist_for_each_entry_srcu(mn, &(subs)->list, hlist,		\
				  srcu_read_lock_held(&mn_srcu))

/*
 * One subscription refused: take back the starts that succeeded. They are the
 * ones before it in the list, whose stamps are younger than its own. To stop at
 * the stamp, not at the object, is right also when the object has been unlinked
 * meanwhile; none can have been added, since the caller of the bracket keeps
 * mm_take_all_locks() out.
 */
static void mn_list_undo(struct mmu_notifier_subscriptions *subs,
			 struct mmu_notifier_range *range, u64 refused)
{
	struct mmu_notifier *mn;

	mn_for_each(mn, subs) {
		if (mn->born <= refused)
			break;
		if (mn->ops->invalidate_range_start &&
		    mn->ops->invalidate_range_end)
			mn->ops->invalidate_range_end(mn, range);
	}
}

static noinline int mn_list_start(struct mmu_notifier_subscriptions *subs,
				  struct mmu_notifier_range *range)
{
	const struct mmu_notifier_ops *ops;
	struct mmu_notifier *mn;
	int idx, ret = 0;

	idx = srcu_read_lock(&mn_srcu);
	mn_for_each(mn, subs) {
		ops = mn->ops;
		if (!ops->invalidate_range_start)
			continue;
		ret = ops->invalidate_range_start(mn, range);
		if (likely(!ret))
			continue;
		/* Who may wait has no reason to refuse, and is not heard */
		if (WARN_ON_ONCE(mmu_notifier_range_blockable(range))) {
			ret = 0;
			continue;
		}
		/* Its end will not be called, but it looks as if it counted on it */
		WARN_ON_ONCE(ops->invalidate_range_end);
		mn_list_undo(subs, range, mn->born);
		ret = -EAGAIN;
		break;
	}
	srcu_read_unlock(&mn_srcu, idx);
	if (ret && (range->flags & MMU_NOTIFIER_RANGE_RECORDED))
		mn_unrecord(subs, range);
	return ret;
}

static noinline void mn_list_end(struct mmu_notifier_subscriptions *subs,
				 struct mmu_notifier_range *range)
{
	struct mmu_notifier *mn;
	int idx;

	lock_map_acquire(&__mmu_notifier_invalidate_range_start_map);
	idx = srcu_read_lock(&mn_srcu);
	mn_for_each(mn, subs) {
		if (mn->ops->invalidate_range_end)
			mn->ops->invalidate_range_end(mn, range);
	}
	srcu_read_unlock(&mn_srcu, idx);
	lock_map_release(&__mmu_notifier_invalidate_range_start_map);
}

/* ---- What core code calls ---- */

static __always_inline int mn_start_all(struct mmu_notifier_subscriptions *subs,
					struct mmu_notifier_range *range)
{
	int ret;

	/*
	 * Intervals first: a driver that has both kinds may rely on its interval
	 * callback having run when its list callback does. @recording needs no
	 * barrier: it is set while mm_take_all_locks() keeps brackets out. The
	 * list grows under the same locks. Who leaves it just now has let go of
	 * everything before, and takes care of walks over it by SRCU; that the
	 * change of this bracket comes behind is up to the page-table lock.
	 */
	if (likely(data_race(subs->recording))) {
		ret = mn_itree_start(subs, range);
		if (ret)
			return ret;
	}
	/* See above */
	if (likely(!data_race(subs->list.first)))
		return 0;
	return mn_list_start(subs, range);
}

static unsigned int mn_count_hits(struct mmu_notifier_subscriptions *subs,
				  const struct mmu_notifier_range *range)
{
	struct mmu_interval_notifier *ini;
	struct mmu_notifier *mn;
	unsigned int hits = 0;
	int idx;

	spin_lock(&subs->lock);
	for (ini = mn_first(subs, range); ini; ini = mn_next(range, ini))
		hits++;
	spin_unlock(&subs->lock);
	idx = srcu_read_lock(&mn_srcu);
	mn_for_each(mn, subs)
		hits += !!mn->ops->invalidate_range_start;
	srcu_read_unlock(&mn_srcu, idx);
	return hits;
}

/* Counts anew whom the bracket hits: who does not trace shall not count */
static noinline int mn_start_traced(struct mmu_notifier_subscriptions *subs,
				    struct mmu_notifier_range *range)
{
	u64 began = ktime_get_ns();
	int ret = mn_start_all(subs, range);
	u64 ns = ktime_get_ns() - began;

	trace_mmu_notifier_start(range, mn_count_hits(subs, range), ns, ret);
	return ret;
}

int __mmu_notifier_invalidate_range_start(struct mmu_notifier_range *range,
					  struct mmu_notifier_subscriptions *subs)
{
	/* On the real-time kernel spinlocks sleep, here as in any callback */
	bool check = IS_ENABLED(CONFIG_DEBUG_ATOMIC_SLEEP) &&
		     !IS_ENABLED(CONFIG_PREEMPT_RT) &&
		     !mmu_notifier_range_blockable(range);
	int ret;

	if (check)
		non_block_start();
	if (trace_mmu_notifier_start_enabled())
		ret = mn_start_traced(subs, range);
	else
		ret = mn_start_all(subs, range);
	if (check)
		non_block_end();
	return ret;
}

static __always_inline void mn_end_all(struct mmu_notifier_subscriptions *subs,
				       struct mmu_notifier_range *range)
{
	/* As in mn_start_all(): the list grows while no bracket is in flight */
	if (unlikely(data_race(subs->list.first)))
		mn_list_end(subs, range);
	/*
	 * The bit, not subs->recording, tells whether this bracket is on the
	 * record: it may have begun before the mm had any subscription.
	 */
	if (likely(range->flags & MMU_NOTIFIER_RANGE_RECORDED))
		mn_unrecord(subs, range);
}

static noinline void mn_end_traced(struct mmu_notifier_subscriptions *subs,
				   struct mmu_notifier_range *range)
{
	u64 began = ktime_get_ns();

	mn_end_all(subs, range);
	trace_mmu_notifier_end(range, ktime_get_ns() - began);
}

void __mmu_notifier_invalidate_range_end(struct mmu_notifier_range *range,
					 struct mmu_notifier_subscriptions *subs)
{
	if (trace_mmu_notifier_end_enabled())
		mn_end_traced(subs, range);
	else
		mn_end_all(subs, range);
}

int __mmu_notifier_clear_flush_young(struct mm_struct *mm, unsigned long start,
				     unsigned long end)
{
	struct mmu_notifier_subscriptions *subs = mm->notifier_subscriptions;
	struct mmu_notifier *mn;
	int idx, young = 0;

	if (hlist_empty(&subs->list))
		return 0;

	idx = srcu_read_lock(&mn_srcu);
	mn_for_each(mn, subs) {
		if (mn->ops->clear_flush_young)
			young |= mn->ops->clear_flush_young(mn, mm, start, end);
	}
	srcu_read_unlock(&mn_srcu, idx);
	return young;
}

int __mmu_notifier_clear_young(struct mm_struct *mm, unsigned long start,
			       unsigned long end)
{
	struct mmu_notifier_subscriptions *subs = mm->notifier_subscriptions;
	struct mmu_notifier *mn;
	int idx, young = 0;

	if (hlist_empty(&subs->list))
		return 0;

	idx = srcu_read_lock(&mn_srcu);
	mn_for_each(mn, subs) {
		if (mn->ops->clear_young)
			young |= mn->ops->clear_young(mn, mm, start, end);
	}
	srcu_read_unlock(&mn_srcu, idx);
	return young;
}

int __mmu_notifier_test_young(struct mm_struct *mm, unsigned long address)
{
	struct mmu_notifier_subscriptions *subs = mm->notifier_subscriptions;
	struct mmu_notifier *mn;
	int idx, young = 0;

	if (hlist_empty(&subs->list))
		return 0;

	idx = srcu_read_lock(&mn_srcu);
	mn_for_each(mn, subs) {
		if (mn->ops->test_young)
			young = mn->ops->test_young(mn, mm, address);
		/* There is nothing to clear: the first yes is the answer */
		if (young)
			break;
	}
	srcu_read_unlock(&mn_srcu, idx);
	return young;
}

void __mmu_notifier_arch_invalidate_secondary_tlbs(struct mm_struct *mm,
						   unsigned long start,
						   unsigned long end)
{
	struct mmu_notifier_subscriptions *subs = mm->notifier_subscriptions;
	struct mmu_notifier *mn;
	int idx;

	if (hlist_empty(&subs->list))
		return;

	idx = srcu_read_lock(&mn_srcu);
	mn_for_each(mn, subs) {
		if (mn->ops->arch_invalidate_secondary_tlbs)
			mn->ops->arch_invalidate_secondary_tlbs(mn, mm, start,
								end);
	}
	srcu_read_unlock(&mn_srcu, idx);
}

/* ---- The end of an address space ---- */

static void mn_unlink(struct mmu_notifier_subscriptions *subs,
		      struct mmu_notifier *mn)
{
	spin_lock(&subs->lock);
	/* No-op if exit or an earlier call has done it */
	hlist_del_init_rcu(&mn->hlist);
	spin_unlock(&subs->lock);
}

/*
 * Call release if nobody has: exit and mmu_notifier_unregister() may meet. Who
 * comes second does not call, and waits for the first by its grace period: the
 * call is inside a read section.
 */
static void mn_call_release(struct mmu_notifier_subscriptions *subs,
			    struct mmu_notifier *mn, struct mm_struct *mm)
{
	bool released;

	spin_lock(&subs->lock);
	released = mn->released;
	mn->released = true;
	spin_unlock(&subs->lock);

	if (!released && mn->ops->release)
		mn->ops->release(mn, mm);
}

static void mn_list_release(struct mmu_notifier_subscriptions *subs,
			    struct mm_struct *mm)
{
	struct mmu_notifier *mn;
	int idx;

	idx = srcu_read_lock(&mn_srcu);
	mn_for_each(mn, subs)
		mn_call_release(subs, mn, mm);

	spin_lock(&subs->lock);
	while (!hlist_empty(&subs->list))
		hlist_del_init_rcu(subs->list.first);
	spin_unlock(&subs->lock);
	srcu_read_unlock(&mn_srcu, idx);
	/*
	 * The pages are freed next. No callback may run after that: neither one
	 * of a walk that is under way, nor a release that
	 * mmu_notifier_unregister() has begun.
	 */
	synchronize_srcu(&mn_srcu);
}

/*
 * Call release of those whom the bracket of the exit has hit. It is a walk like
 * that of a bracket: a subscription may leave meanwhile, and who leaves waits for
 * its own call. Nothing else waits for a release that takes long, least of all
 * the subscribers of other mms: a read section of SRCU would make them.
 */
static void mn_walk_releases(struct mmu_notifier_subscriptions *subs,
			     struct mmu_notifier_range *range)
{
	struct mn_walk walk = { .range = range };
	struct mmu_interval_notifier *ini;

	spin_lock(&subs->lock);
	walk.cursor = mn_first(subs, range);
	hlist_add_head(&walk.node, &subs->walks);
	while ((ini = walk.cursor)) {
		walk.cursor = mn_next(range, ini);
		if (!ini->ops->release)
			continue;
		ini->calls++;
		spin_unlock(&subs->lock);
		ini->ops->release(ini);
		spin_lock(&subs->lock);
		mn_call_over(subs, ini);
	}
	__hlist_del(&walk.node);
	spin_unlock(&subs->lock);
}

/* Interval subscriptions hear of the exit as of a change to everything */
static void mn_itree_release(struct mmu_notifier_subscriptions *subs,
			     struct mm_struct *mm)
{
	struct mmu_notifier_range range;

	mmu_notifier_range_init(&range, MMU_NOTIFY_RELEASE,
				MMU_NOTIFIER_RANGE_BLOCKABLE, mm, 0, ULONG_MAX);
	lock_map_acquire(&__mmu_notifier_invalidate_range_start_map);
	mn_itree_start(subs, &range);
	lock_map_release(&__mmu_notifier_invalidate_range_start_map);
	mn_unrecord(subs, &range);
	mn_walk_releases(subs, &range);
}

/*
 * The last user of @mm is gone and its pages will be freed. List subscriptions
 * are ended here, interval subscriptions stay until their drivers remove them.
 */
void __mmu_notifier_release(struct mm_struct *mm)
{
	struct mmu_notifier_subscriptions *subs = mm->notifier_subscriptions;

	if (READ_ONCE(subs->recording))
		mn_itree_release(subs, mm);
	/*
	 * Also if none is left on the list: mmu_notifier_unregister() may have
	 * taken it off, and be waiting for its callbacks like us.
	 */
	if (READ_ONCE(subs->listed))
		mn_list_release(subs, mm);
}

/* From __mmdrop(), in any context: nothing here may sleep */
void __mmu_notifier_subscriptions_destroy(struct mm_struct *mm)
{
	struct mmu_notifier_subscriptions *subs = mm->notifier_subscriptions;

	WARN_ON_ONCE(!hlist_empty(&subs->list));
	WARN_ON_ONCE(!RB_EMPTY_ROOT(&subs->itree.rb_root));
	/* A bracket without its end has left its record on a dead stack */
	WARN_ON_ONCE(!list_empty(&subs->inflight));
	mm->notifier_subscriptions = LIST_POISON1;
	kfree(subs);
}

/* ---- Subscribing ---- */

static struct mmu_notifier_subscriptions *mn_subscriptions_alloc(void)
{
	struct mmu_notifier_subscriptions *subs;

	subs = kzalloc(sizeof(*subs), GFP_KERNEL);
	if (!subs)
		return NULL;

	INIT_HLIST_HEAD(&subs->list);
	spin_lock_init(&subs->lock);
	subs->clock = MN_CLOCK_START;
	INIT_LIST_HEAD(&subs->inflight);
	subs->itree = RB_ROOT_CACHED;
	INIT_LIST_HEAD(&subs->sorted);
	INIT_HLIST_HEAD(&subs->walks);
	INIT_HLIST_HEAD(&subs->readers);
	init_waitqueue_head(&subs->removers);
	return subs;
}

static void mn_link(struct mmu_notifier_subscriptions *subs,
		    struct mmu_notifier *mn, struct mm_struct *mm)
{
	mmgrab(mm);
	mn->mm = mm;
	mn->users = 1;
	mn->released = false;

	spin_lock(&subs->lock);
	mn->born = mn_tick(subs);
	hlist_add_head_rcu(&mn->hlist, &subs->list);
	spin_unlock(&subs->lock);
}

/*
 * Bring in what must not come while a bracket is in flight: list subscription
 * @mn, which would see an end without its start, or, if that is NULL, recording,
 * which would miss one. Brackets hold one of the locks that mm_take_all_locks()
 * takes.
 */
static int mn_subscribe(struct mm_struct *mm, struct mmu_notifier *mn)
{
	struct mmu_notifier_subscriptions *subs = mm->notifier_subscriptions;
	struct mmu_notifier_subscriptions *fresh = NULL;
	int ret;

	mmap_assert_write_locked(mm);

	if (!subs) {
		fresh = mn_subscriptions_alloc();
		if (!fresh)
			return -ENOMEM;
		subs = fresh;
	}

	ret = mm_take_all_locks(mm);
	if (ret) {
		kfree(fresh);
		return ret;
	}
	if (mn) {
		mn_link(subs, mn, mm);
		WRITE_ONCE(subs->listed, true);
	} else {
		WRITE_ONCE(subs->recording, true);
	}
	if (fresh) {
		/* Pairs with mm_has_notifiers() and mn_recording(), lockless */
		smp_store_release(&mm->notifier_subscriptions, fresh);
	}
	mm_drop_all_locks(mm);

	return 0;
}

static bool mn_ops_valid(const struct mmu_notifier_ops *ops)
{
	return !ops->arch_invalidate_secondary_tlbs ||
	       !(ops->invalidate_range_start || ops->invalidate_range_end);
}

/**
 * __mmu_notifier_register() - add a list subscription, mmap lock held
 * @mn: with ops set; the other members need no initial value
 * @mm: the address space, pinned by mm_users
 *
 * As mmu_notifier_register(), for callers who hold the mmap lock.
 *
 * Context: Process context, may sleep; the mmap lock of @mm is held for writing.
 * Return: 0, or an error as of mmu_notifier_register().
 */
int __mmu_notifier_register(struct mmu_notifier *mn, struct mm_struct *mm)
{
	INIT_HLIST_NODE(&mn->hlist);
	mn->mm = NULL;

	if (atomic_read(&mm->mm_users) <= 0 || !mn_ops_valid(mn->ops))
		return -EINVAL;

	return mn_subscribe(mm, mn);
}
EXPORT_SYMBOL_GPL(__mmu_notifier_register);

/**
 * mmu_notifier_register() - add a list subscription
 * @mn: with ops set; the other members need no initial value
 * @mm: the address space, pinned by mm_users
 *
 * From the return on, @mn hears of every change to the page tables of @mm. No
 * bracket is in flight at that moment: the first event of @mn is never an end.
 * The subscription ends by mmu_notifier_unregister(), or by mmu_notifier_put().
 *
 * Context: Process context, may sleep; takes the mmap lock for writing.
 * Return: 0; -ENOMEM; -EINTR on a pending signal; -EINVAL if nobody uses @mm any
 * more or if the ops exclude each other, see &struct mmu_notifier_ops.
 */
int mmu_notifier_register(struct mmu_notifier *mn, struct mm_struct *mm)
{
	int ret;

	mmap_write_lock(mm);
	ret = __mmu_notifier_register(mn, mm);
	mmap_write_unlock(mm);
	return ret;
}
EXPORT_SYMBOL_GPL(mmu_notifier_register);

/**
 * mmu_notifier_unregister() - end a list subscription and wait
 * @mn: the subscription
 * @mm: the address space it was registered with; need not have users any more
 *
 * Calls release unless exit has done so. On return no callback of @mn runs or
 * will run, and its pin on @mm is gone. To do it twice, or after the last
 * mmu_notifier_put(), is warned of. Does nothing if the registration of @mn
 * had failed.
 *
 * Context: Process context, sleeps; not from a callback of a list subscription.
 */
void mmu_notifier_unregister(struct mmu_notifier *mn, struct mm_struct *mm)
{
	struct mmu_notifier_subscriptions *subs;
	int idx;

	if (!mn->mm || WARN_ON_ONCE(!mn->users))
		return;

	subs = mm->notifier_subscriptions;
	/*
	 * Release before unlinking: exit, if it comes now, still finds @mn and
	 * by that knows that it has to wait.
	 */
	idx = srcu_read_lock(&mn_srcu);
	mn_call_release(subs, mn, mm);
	srcu_read_unlock(&mn_srcu, idx);
	mn_unlink(subs, mn);
	mn->users = 0;
	synchronize_srcu(&mn_srcu);
	mmdrop(mm);
}
EXPORT_SYMBOL_GPL(mmu_notifier_unregister);

/* The subscription of @ops with one more reference, NULL, or an ERR_PTR() */
static struct mmu_notifier *mn_find_get(struct mmu_notifier_subscriptions *subs,
					const struct mmu_notifier_ops *ops)
{
	struct mmu_notifier *mn;

	spin_lock(&subs->lock);
	hlist_for_each_entry(mn, &subs->list, hlist) {
		if (mn->ops == ops)
			break;
	}
	if (mn && mn->users == UINT_MAX)
		mn = ERR_PTR(-EOVERFLOW);
	else if (mn)
		mn->users++;
	spin_unlock(&subs->lock);
	return mn;
}

/**
 * mmu_notifier_get_locked() - mmu_notifier_get(), mmap lock held
 * @ops: callbacks; must have alloc_notifier and free_notifier
 * @mm: the address space, pinned by mm_users
 *
 * Context: Process context, may sleep; the mmap lock of @mm is held for writing.
 * Return: the subscription with one more reference; ERR_PTR() of what
 * alloc_notifier returned, of an error of mmu_notifier_register(), or of
 * -EOVERFLOW if there are too many references.
 */
struct mmu_notifier *mmu_notifier_get_locked(const struct mmu_notifier_ops *ops,
					     struct mm_struct *mm)
{
	struct mmu_notifier *mn;
	int ret;

	mmap_assert_write_locked(mm);

	if (mm->notifier_subscriptions) {
		mn = mn_find_get(mm->notifier_subscriptions, ops);
		if (mn)
			return mn;
	}

	mn = ops->alloc_notifier(mm);
	if (IS_ERR(mn))
		return mn;
	mn->ops = ops;
	ret = __mmu_notifier_register(mn, mm);
	if (ret) {
		/* mn->mm for a free_notifier that looks at it */
		mn->mm = mm;
		ops->free_notifier(mn);
		return ERR_PTR(ret);
	}
	return mn;
}
EXPORT_SYMBOL_GPL(mmu_notifier_get_locked);

static void mn_free(struct rcu_head *rcu)
{
	struct mmu_notifier *mn = container_of(rcu, struct mmu_notifier, rcu);
	struct mm_struct *mm = mn->mm;

	if (mn->ops->free_notifier)
		mn->ops->free_notifier(mn);
	mmdrop(mm);
}

/**
 * mmu_notifier_put() - drop a reference to a list subscription
 * @mn: from mmu_notifier_get(), or registered and held by its one reference
 *
 * The last reference ends the subscription without calling release. When no
 * callback can run on it any more, free_notifier is called; until then callbacks
 * may still run. A module waits by mmu_notifier_synchronize() before it goes.
 *
 * Context: Does not sleep; may be called from release and with any lock held
 * that free_notifier does not take.
 */
void mmu_notifier_put(struct mmu_notifier *mn)
{
	struct mmu_notifier_subscriptions *subs = mn->mm->notifier_subscriptions;
	bool last;

	spin_lock(&subs->lock);
	last = !WARN_ON_ONCE(!mn->users) && !--mn->users;
	if (last)
		hlist_del_init_rcu(&mn->hlist);
	spin_unlock(&subs->lock);

	if (last)
		call_srcu(&mn_srcu, &mn->rcu, mn_free);
}
EXPORT_SYMBOL_GPL(mmu_notifier_put);

/**
 * mmu_notifier_synchronize() - wait for what mmu_notifier_put() has begun
 *
 * On return every free_notifier call has returned that a put before this call
 * has made due: the module with that function may be unloaded.
 *
 * Context: Process context, sleeps.
 */
void mmu_notifier_synchronize(void)
{
	srcu_barrier(&mn_srcu);
}
EXPORT_SYMBOL_GPL(mmu_notifier_synchronize);

static bool mn_recording(struct mm_struct *mm)
{
	struct mmu_notifier_subscriptions *subs;

	/* Pairs with the release in mn_subscribe() */
	subs = smp_load_acquire(&mm->notifier_subscriptions);
	/* Never switched off; who misses it looks again under the mmap lock */
	return subs && data_race(subs->recording);
}

/*
 * mn_itree_insert(), written out because the place in the list is found on the
 * same way down: a new leaf comes right before its parent, or right behind it.
 */
static void mn_itree_add(struct mmu_notifier_subscriptions *subs,
			 struct mmu_interval_notifier *ini)
{
	struct rb_node **link = &subs->itree.rb_root.rb_node, *rb = *link;
	unsigned long start = MN_START(ini), last = MN_LAST(ini);
	struct mmu_interval_notifier *at = NULL;
	bool leftmost = false;

	lockdep_assert_held(&subs->lock);

	while (rb) {
		at = rb_entry(rb, struct mmu_interval_notifier, interval_tree.rb);
		if (at->interval_tree.__subtree_last < last)
			at->interval_tree.__subtree_last = last;
		rb = start < MN_START(at) ? rb->rb_left : rb->rb_right;
	}

	if (!at) {
		leftmost = true;
		list_add(&ini->sorted, &subs->sorted);
	} else if (start < MN_START(at)) {
		leftmost = list_is_first(&at->sorted, &subs->sorted);
		link = &at->interval_tree.rb.rb_left;
		list_add_tail(&ini->sorted, &at->sorted);
	} else {
		link = &at->interval_tree.rb.rb_right;
		list_add(&ini->sorted, &at->sorted);
	}

	ini->interval_tree.__subtree_last = last;
	rb_link_node(&ini->interval_tree.rb,
		     at ? &at->interval_tree.rb : NULL, link);
	rb_insert_augmented_cached(&ini->interval_tree.rb, &subs->itree,
				   leftmost, &mn_itree_augment);
}

/* Cannot fail; returns 0 for its callers to return */
static int mn_interval_link(struct mmu_interval_notifier *ini,
			    struct mm_struct *mm, unsigned long start,
			    unsigned long last,
			    const struct mmu_interval_notifier_ops *ops)
{
	struct mmu_notifier_subscriptions *subs = mm->notifier_subscriptions;

	mmgrab(mm);
	ini->mm = mm;
	ini->ops = ops;
	ini->interval_tree.start = start;
	ini->interval_tree.last = last;

	spin_lock(&subs->lock);
	/*
	 * A fresh sequence value, so that a driver that kept one from an earlier
	 * insertion of the same object finds a collision.
	 */
	ini->born = mn_tick(subs);
	ini->calls = 0;
	ini->only_calls = (atomic_t)ATOMIC_INIT(0);
	WRITE_ONCE(ini->seq, ini->born);
	mn_itree_add(subs, ini);
	trace_mmu_notifier_insert(ini, ini->born);
	spin_unlock(&subs->lock);
	return 0;
}

/* The first of its mm: brackets are recorded from now on */
static noinline int mn_interval_link_first(struct mmu_interval_notifier *ini,
					   struct mm_struct *mm,
					   unsigned long start, unsigned long last,
					   const struct mmu_interval_notifier_ops *ops)
{
	int ret;

	mmap_write_lock(mm);
	ret = mn_recording(mm) ? 0 : mn_subscribe(mm, NULL);
	mmap_write_unlock(mm);

	return ret ?: mn_interval_link(ini, mm, start, last, ops);
}

static bool mn_interval_ops_valid(const struct mmu_interval_notifier_ops *ops)
{
	if (!ops)
		return false;
	if (ops->invalidate_start)
		return ops->invalidate_finish;
	return ops->invalidate;
}

static int mn_interval_check(struct mm_struct *mm, unsigned long start,
			     unsigned long length, unsigned long *last,
			     const struct mmu_interval_notifier_ops *ops)
{
	if (!length || check_add_overflow(start, length - 1, last))
		return -EOVERFLOW;
	if (!mn_interval_ops_valid(ops) || atomic_read(&mm->mm_users) <= 0)
		return -EINVAL;
	return 0;
}

/**
 * mmu_interval_notifier_insert() - add an interval subscription
 * @ini: the subscription; need not be initialised, left untouched on error
 * @mm: the address space, pinned by mm_users
 * @start: first byte of the interval
 * @length: in bytes
 * @ops: with the invalidate callback
 *
 * The driver holds no mapping of the interval yet: it gets them by
 * collision-retry, beginning with mmu_interval_read_begin(). An invalidation
 * that is in flight now does not call @ini; mmu_interval_read_begin() waits for
 * it. An object that has been removed may be inserted again.
 *
 * Context: Process context, may sleep. The mmap lock is not held: the first
 * insertion on an mm takes it for writing, further ones do not.
 * Return: 0; -EOVERFLOW if @length is 0 or the interval wraps; -EINVAL if there
 * is no callback or nobody uses @mm any more; -ENOMEM; -EINTR on a pending
 * signal.
 */
int mmu_interval_notifier_insert(struct mmu_interval_notifier *ini,
				 struct mm_struct *mm, unsigned long start,
				 unsigned long length,
				 const struct mmu_interval_notifier_ops *ops)
{
	unsigned long last;
	int ret;

	might_lock(&mm->mmap_lock);

	ret = mn_interval_check(mm, start, length, &last, ops);
	if (unlikely(ret))
		return ret;
	if (likely(mn_recording(mm)))
		return mn_interval_link(ini, mm, start, last, ops);
	return mn_interval_link_first(ini, mm, start, last, ops);
}
EXPORT_SYMBOL_GPL(mmu_interval_notifier_insert);

/**
 * mmu_interval_notifier_insert_locked() - add a subscription, mmap lock held
 * @ini: the subscription; need not be initialised, left untouched on error
 * @mm: the address space, pinned by mm_users
 * @start: first byte of the interval
 * @length: in bytes
 * @ops: with the invalidate callback
 *
 * As mmu_interval_notifier_insert(), for callers who hold the mmap lock.
 *
 * Context: Process context, may sleep; the mmap lock of @mm is held for writing.
 * Return: as mmu_interval_notifier_insert().
 */
int mmu_interval_notifier_insert_locked(struct mmu_interval_notifier *ini,
					struct mm_struct *mm,
					unsigned long start,
					unsigned long length,
					const struct mmu_interval_notifier_ops *ops)
{
	unsigned long last;
	int ret;

	mmap_assert_write_locked(mm);

	ret = mn_interval_check(mm, start, length, &last, ops);
	if (!ret && !mn_recording(mm))
		ret = mn_subscribe(mm, NULL);
	return ret ?: mn_interval_link(ini, mm, start, last, ops);
}
EXPORT_SYMBOL_GPL(mmu_interval_notifier_insert_locked);

static __always_inline void
mn_interval_unlink(struct mmu_notifier_subscriptions *subs,
		   struct mmu_interval_notifier *ini)
{
	lockdep_assert_held(&subs->lock);

	__list_del_entry(&ini->sorted);
	mn_itree_remove(ini, &subs->itree);
	ini->born = 0;
}

/* Not inlined: as a rule nobody walks or calls */
static noinline void mn_remove_from_walks(struct mmu_notifier_subscriptions *subs,
					  struct mmu_interval_notifier *ini)
	__releases(&subs->lock)
{
	u64 began = mn_traced_since(trace_mmu_notifier_remove_enabled());

	/* While it is in the tree: a cursor moves on from its place there */
	mn_walks_skip(subs, ini);
	mn_interval_unlink(subs, ini);
	spin_unlock(&subs->lock);

	wait_event(subs->removers, mn_calls_over(subs, ini));
	trace_mmu_notifier_remove(ini, mn_traced_ns(began));
}

/**
 * mmu_interval_notifier_remove() - end an interval subscription
 * @ini: the subscription
 *
 * On return no callback of @ini runs or will run, and its pin on the mm is gone.
 * Waits only for callbacks that run on @ini itself, on however many CPUs, not
 * for the end of any invalidation. With two passes that is until the second one
 * is over, and the first passes of the others come before it. The mm member is
 * left for the driver to clear. Warns once and does nothing if @ini is not
 * inserted: zeroed, or removed before.
 *
 * Context: May sleep; not from a callback of an interval subscription, nor with
 * a lock held that one takes. The mmap lock may be held.
 */
void mmu_interval_notifier_remove(struct mmu_interval_notifier *ini)
{
	struct mmu_notifier_subscriptions *subs;

	mn_might_sleep();

	if (WARN_ON_ONCE(!ini->born))
		return;

	lock_map_acquire(&__mmu_notifier_invalidate_range_start_map);
	subs = ini->mm->notifier_subscriptions;
	spin_lock(&subs->lock);
	/* No walk: then nobody is in a call of one; an acquire as in mn_in_call() */
	if (likely(!subs->walks.first &&
		   !atomic_read_acquire(&ini->only_calls))) {
		mn_interval_unlink(subs, ini);
		spin_unlock(&subs->lock);
		trace_mmu_notifier_remove(ini, 0);
	} else {
		mn_remove_from_walks(subs, ini);
	}
	lock_map_release(&__mmu_notifier_invalidate_range_start_map);

	mmdrop(ini->mm);
}
EXPORT_SYMBOL_GPL(mmu_interval_notifier_remove);
