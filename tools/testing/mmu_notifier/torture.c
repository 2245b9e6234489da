// SPDX-License-Identifier: GPL-2.0
/*
 * Torture of mm/mmu_notifier.c: random use of the whole interface by real
 * threads, against a checker that knows what must be visible.
 *
 * An address space has NR_PAGES pages, each with a version that grows only inside
 * a bracket that covers the page. Mirrors (interval subscriptions, and list
 * subscriptions that count brackets as KVM does) take copies of versions by
 * collision-retry. What is checked:
 *
 * - Whoever holds a copy, under the lock of the mirror, finds the page at that
 *   very version: nothing stale survives, neither in bits nor, as the version is
 *   also kept in a plain variable, in the eyes of ThreadSanitizer.
 * - From the return of a start to the call of the end no mirror holds or makes a
 *   copy of a page of the bracket.
 * - Each subscription that was there for all of a start is called once by it, no
 *   other more than once. Starts and ends are paired; refusals are taken back.
 * - Finishes come once each, after all starts of their bracket, in their order.
 * - Exit releases each interval subscription that has a release and was there for
 *   all of it, once, no other more than once; when its bracket is over and closed,
 *   and nothing is left to be dropped.
 * - Nothing is called after remove or unregister returned, or exit: what has been
 *   removed is overwritten or freed, and put to use again.
 * - Every pin on an address space is given back.
 *
 * What the checker itself shares between threads it accesses by relaxed atomics
 * where the CPU keeps the order anyway: it must not order what it watches.
 *
 * A thread decides by a generator of its own, seeded from -s and its number: with
 * the same seed each takes the same decisions as long as it meets the same answers.
 */

#include <stdarg.h>
#include <unistd.h>

#include "shim.h"
#include <linux/mmu_notifier.h>

#define NR_PAGES	32
#define PAGE_SHIFT	12
#define NR_DEVS		12
#define NR_LISTS	6
#define NR_WORLDS	2
#define MAX_THREADS	60
#define MAX_NESTED	3
#define STALL_SECONDS	20
#define DOOMED		(~0ull)

enum { EXIT_CHECK = 1, EXIT_USAGE = 2, EXIT_HANG = 4 };

#define peek(x)		__atomic_load_n(&(x), SHIM_WATCH)
#define poke(x, v)	__atomic_store_n(&(x), (v), SHIM_WATCH)
#define bump(x, n)	__atomic_add_fetch(&(x), (n), SHIM_WATCH)

/* An address space; @serial is never used twice */
struct space {
	struct mm_struct mm;
	u64 serial;
	bool released;			/* mmu_notifier_release() has returned */
	bool dead;			/* under mm.brackets */
	spinlock_t pte_lock;
	u64 version[NR_PAGES];
	u64 plain[NR_PAGES];		/* the same, accessed without any mark */
	int busy[NR_PAGES];		/* brackets open over the page */
};

/* What there is of a secondary MMU, whichever way it subscribes */
struct mirror {
	u64 serial;			/* of the space; stable while gen is odd */
	u64 gen;			/* odd: subscribed; changes before it ends */
	unsigned long first, last;	/* pages */
	u64 copy[NR_PAGES];		/* 0: none, or DOOMED */
};

/* The part of a device that comes and goes with its subscription */
struct box {
	struct mmu_interval_notifier ini;
	struct dev *dev;
	bool gone;
	int inside;			/* callbacks, and finishes to come */
	int releases;			/* not marked: removal is what orders it */
};

struct dev {
	struct mirror mirror;
	struct rw_semaphore op;		/* of the driver: insert, remove; fault */
	struct mutex lock;		/* what the callback takes */
	struct box *box;
	struct space *space;
	bool inserted;
	bool releases;			/* its ops do; stable while gen is odd */
	u64 old_serial;			/* of the last space, and the last value */
	unsigned long old_seq;
};

struct finish {
	struct mmu_interval_notifier_finish finish;
	struct bracket *bracket;
	struct box *box;
	unsigned long first, last;
	unsigned int number;
};

enum list_kind { KIND_PAIR, KIND_START, KIND_TLB, NR_KINDS };

struct lst {
	struct mirror mirror;
	struct mmu_notifier mn;
	pthread_mutex_t op;
	spinlock_t lock;		/* what the callbacks take */
	struct space *space;
	enum list_kind kind;
	bool registered;
	int open;			/* brackets */
	unsigned long seq;		/* of ends */
	int releases, frees;
};

/* The object that mmu_notifier_get() makes */
struct shared {
	struct mmu_notifier mn;
	int open;
	int gifts;			/* references for release to put */
	int releases;
};

struct bracket {
	struct mmu_notifier_range range;
	struct space *space;
	struct bracket *outer;
	u64 dev_gen[NR_DEVS], list_gen[NR_LISTS];	/* 0: nothing is demanded */
	u8 called[NR_DEVS], released[NR_DEVS];
	u8 starts[NR_LISTS], ends[NR_LISTS];
	bool nonblock, refused, finishing;
	unsigned int left, finished;			/* finishes */
	u8 held_starts, held_ends;			/* of thread.held */
};

struct thread {
	pthread_t pthread;
	unsigned int nr;
	u64 random;
	unsigned long ops;
	const char *doing;
	struct bracket *bracket;			/* innermost */
	struct bracket *exiting;
	struct mmu_notifier *held;
	struct mmu_notifier *kept;			/* to be put later */
	bool done;
};

__thread unsigned int shim_spinlocks, shim_nonblock, shim_srcu_depth, shim_slot;
__thread unsigned int shim_looks;
static __thread struct thread *me;

static struct thread threads[MAX_THREADS];
static unsigned int nr_threads = 8;
static u64 seed;
static int seconds = 10;
static bool stop;

static struct dev devs[NR_DEVS];
static struct lst lists[NR_LISTS];
static struct { pthread_mutex_t lock; struct space *space; } worlds[NR_WORLDS];
static u64 serials;
static long spaces_made, spaces_freed, shared_made, shared_freed;
static struct {
	unsigned long brackets, refused, faults, retries, inserts, finishes;
	unsigned long registers, exits, releases, failures;
} count;

#define tally(what)	__atomic_add_fetch(&count.what, 1, __ATOMIC_RELAXED)

/* ---- Failing ---- */

static void __noreturn __printf(1, 2) fail(const char *fmt, ...)
{
	char text[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	dprintf(STDOUT_FILENO, "torture: FAILED: %s (thread %d, %s; seed %llu)\n",
		text, me ? (int)me->nr : -1, me && me->doing ? me->doing : "-",
		(unsigned long long)seed);
	_exit(EXIT_CHECK);
}

#define check(x, ...)	do { if (!(x)) fail(__VA_ARGS__); } while (0)

void shim_bug(const char *file, int line, const char *what)
{
	fail("%s:%d: %s", file, line, what);
}

const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
	return "halt_on_error=1:exitcode=66:history_size=4:second_deadlock_stack=1";
}

const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "exitcode=67:detect_stack_use_after_return=1";
}

/* ---- Chance ---- */

static u64 rnd(u64 below)
{
	u64 z = (me->random += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return (z ^ (z >> 31)) % below;
}

static bool one_in(u64 n)
{
	return !rnd(n);
}

bool shim_inject(void)
{
	if (!me || !one_in(16))
		return false;
	tally(failures);
	return true;
}

/* Let others in, so that what takes no time takes some; sleeps where it may */
static void jitter(void)
{
	switch (rnd(8)) {
	case 0:
		if (!shim_spinlocks && !shim_nonblock)
			usleep(rnd(60));
		break;
	case 1:
	case 2:
		sched_yield();
		break;
	case 3:
		for (unsigned int i = rnd(200); i; i--)
			barrier();
		break;
	}
}

/* ---- SRCU and what it defers ---- */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct rcu_head *first, **last;
	unsigned long queued, called;
	struct srcu_struct *srcu;
} deferred = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.cond = PTHREAD_COND_INITIALIZER,
	.last = &deferred.first,
};

static void srcu_wait(struct srcu_struct *srcu, int idx)
{
	for (unsigned int i = 0; i < SHIM_SLOTS; i++) {
		/* Not a load: it has to be ordered after what the caller wrote */
		while (__atomic_fetch_add(&srcu->readers[idx][i], 0,
					  __ATOMIC_SEQ_CST))
			sched_yield();
	}
}

void synchronize_srcu(struct srcu_struct *srcu)
{
	int idx;

	might_sleep();
	if (shim_srcu_depth)
		fail("a reader waits for readers");
	pthread_mutex_lock(&srcu->sync);
	idx = srcu->idx;
	/* Who took the other index long ago and counts only now */
	srcu_wait(srcu, !idx);
	__atomic_store_n(&srcu->idx, !idx, __ATOMIC_SEQ_CST);
	srcu_wait(srcu, idx);
	pthread_mutex_unlock(&srcu->sync);
}

void call_srcu(struct srcu_struct *srcu, struct rcu_head *head,
	       void (*func)(struct rcu_head *head))
{
	head->func = func;
	head->next = NULL;
	pthread_mutex_lock(&deferred.lock);
	deferred.srcu = srcu;
	*deferred.last = head;
	deferred.last = &head->next;
	deferred.queued++;
	pthread_cond_broadcast(&deferred.cond);
	pthread_mutex_unlock(&deferred.lock);
}

void srcu_barrier(struct srcu_struct *srcu)
{
	unsigned long queued;

	might_sleep();
	pthread_mutex_lock(&deferred.lock);
	queued = deferred.queued;
	while (deferred.called < queued)
		pthread_cond_wait(&deferred.cond, &deferred.lock);
	pthread_mutex_unlock(&deferred.lock);
}

/* In the kernel a softirq or a kworker; what it calls must not sleep */
static void *srcu_worker(void *unused)
{
	struct rcu_head *head, *next;
	struct srcu_struct *srcu;
	unsigned long n;

	shim_slot = SHIM_SLOTS - 1;
	for (;;) {
		pthread_mutex_lock(&deferred.lock);
		while (!deferred.first)
			pthread_cond_wait(&deferred.cond, &deferred.lock);
		head = deferred.first;
		srcu = deferred.srcu;
		deferred.first = NULL;
		deferred.last = &deferred.first;
		pthread_mutex_unlock(&deferred.lock);

		synchronize_srcu(srcu);
		shim_nonblock++;
		for (n = 0; head; head = next, n++) {
			next = head->next;
			head->func(head);
		}
		shim_nonblock--;

		pthread_mutex_lock(&deferred.lock);
		deferred.called += n;
		pthread_cond_broadcast(&deferred.cond);
		pthread_mutex_unlock(&deferred.lock);
	}
	return NULL;
}

/* ---- Mirrors ---- */

static void mirror_subscribed(struct mirror *m)
{
	check(!(peek(m->gen) & 1), "subscribed twice");
	bump(m->gen, 1);
}

/* From now on nothing is demanded of it; exit and its owner may meet here */
static void mirror_leaves(struct mirror *m)
{
	u64 gen = peek(m->gen);

	if (gen & 1)
		__atomic_compare_exchange_n(&m->gen, &gen, gen + 1, false,
					    SHIM_WATCH, SHIM_WATCH);
}

static void mirror_drop(struct mirror *m, unsigned long first, unsigned long last)
{
	for (unsigned long p = first; p <= last; p++)
		poke(m->copy[p], 0);
}

/* First pass of two: not to be used any more, but not yet gone either */
static void mirror_doom(struct mirror *m, unsigned long first, unsigned long last)
{
	for (unsigned long p = first; p <= last; p++) {
		u64 copy = peek(m->copy[p]);

		/* The finish of another bracket drops it without a lock */
		if (copy)
			__atomic_compare_exchange_n(&m->copy[p], &copy, DOOMED,
						    false, SHIM_WATCH, SHIM_WATCH);
	}
}

static bool mirror_overlaps(struct mirror *m, unsigned long first,
			    unsigned long last)
{
	return peek(m->first) <= last && peek(m->last) >= first;
}

/* gen, if @m is subscribed to @space over these pages, else 0 */
static u64 mirror_present(struct mirror *m, struct space *space,
			  unsigned long first, unsigned long last)
{
	u64 gen = peek(m->gen);

	if (!(gen & 1) || peek(m->serial) != space->serial ||
	    !mirror_overlaps(m, first, last))
		return 0;
	return peek(m->gen) == gen ? gen : 0;
}

/* Under the lock of the mirror: every copy is what the page table says now */
static void mirror_verify(struct mirror *m, struct space *space)
{
	for (unsigned int p = 0; p < NR_PAGES; p++) {
		u64 copy = peek(m->copy[p]);

		if (!copy || copy == DOOMED)
			continue;
		check(copy == peek(space->version[p]),
		      "page %u: stale copy %llu of %llu", p,
		      (unsigned long long)copy,
		      (unsigned long long)peek(space->version[p]));
		/* Not marked: that this is no race is what the retry is for */
		check(copy == space->plain[p], "page %u: stale contents", p);
	}
}

static void mirror_install(struct mirror *m, struct space *space,
			   unsigned long p, u64 version)
{
	check(!peek(space->busy[p]), "page %lu: copied inside a bracket", p);
	check(version == peek(space->version[p]), "page %lu: read before a change", p);
	check(version == space->plain[p], "page %lu: read before a change", p);
	poke(m->copy[p], version);
}

static void mirror_holds_none(struct mirror *m, struct space *space,
			      unsigned long first, unsigned long last,
			      const char *when)
{
	u64 gen = mirror_present(m, space, first, last);
	bool copied = false;

	if (!gen)
		return;
	for (unsigned long p = first; p <= last; p++)
		copied |= peek(m->copy[p]);
	check(!copied || peek(m->gen) != gen, "a copy is held %s", when);
}

static void nobody_holds(struct space *space, unsigned long first,
			 unsigned long last, const char *when)
{
	for (unsigned int i = 0; i < NR_DEVS; i++)
		mirror_holds_none(&devs[i].mirror, space, first, last, when);
	for (unsigned int i = 0; i < NR_LISTS; i++)
		mirror_holds_none(&lists[i].mirror, space, first, last, when);
}

static unsigned long first_page(const struct mmu_notifier_range *range)
{
	return range->start >> PAGE_SHIFT;
}

static unsigned long last_page(const struct mmu_notifier_range *range)
{
	return min((range->end - 1) >> PAGE_SHIFT, NR_PAGES - 1ul);
}

/* ---- Devices: the callbacks ---- */

static struct bracket *bracket_of(const struct mmu_notifier_range *range)
{
	struct bracket *b = container_of(range, struct bracket, range);

	if (range->event == MMU_NOTIFY_RELEASE)
		b = me->exiting;
	check(b, "a callback outside of any bracket");
	return b;
}

static struct bracket *dev_called(struct box *box,
				  const struct mmu_notifier_range *range)
{
	struct interval_tree_node *node = &box->ini.interval_tree;
	struct bracket *b = bracket_of(range);
	unsigned int nr = box->dev - devs;

	check(!peek(box->gone), "device %u: called after its removal", nr);
	check(!b->called[nr], "device %u: called twice", nr);
	check(!b->finishing, "device %u: started after the first finish", nr);
	check(!b->refused, "device %u: started after a refusal", nr);
	check(node->start < range->end && node->last >= range->start,
	      "device %u: not concerned", nr);
	check(range->mm == box->ini.mm, "device %u: another mm", nr);
	check(mmu_notifier_range_blockable(range) == !b->nonblock,
	      "device %u: blockable or not?", nr);
	b->called[nr] = 1;
	return b;
}

static bool dev_lock(struct dev *dev, struct bracket *b)
{
	if (!b->nonblock) {
		mutex_lock(&dev->lock);
		return true;
	}
	if (!one_in(8) && mutex_trylock(&dev->lock))
		return true;
	b->refused = true;
	return false;
}

static bool dev_invalidate(struct mmu_interval_notifier *ini,
			   const struct mmu_notifier_range *range,
			   unsigned long cur_seq)
{
	struct box *box = container_of(ini, struct box, ini);
	struct bracket *b = dev_called(box, range);
	struct dev *dev = box->dev;

	bump(box->inside, 1);
	jitter();
	if (!dev_lock(dev, b)) {
		bump(box->inside, -1);
		return false;
	}
	mmu_interval_set_seq(ini, cur_seq);
	mirror_drop(&dev->mirror, first_page(range), last_page(range));
	if (!b->nonblock)
		jitter();
	mutex_unlock(&dev->lock);
	jitter();
	bump(box->inside, -1);
	return true;
}

static bool dev_invalidate_start(struct mmu_interval_notifier *ini,
				 const struct mmu_notifier_range *range,
				 unsigned long cur_seq,
				 struct mmu_interval_notifier_finish **finish)
{
	struct box *box = container_of(ini, struct box, ini);
	struct finish *f;
	struct bracket *b;

	check(!*finish, "a finish before the start");
	if (one_in(3))
		return dev_invalidate(ini, range, cur_seq);

	b = dev_called(box, range);
	bump(box->inside, 1);
	if (!dev_lock(box->dev, b)) {
		/* Not to be looked at */
		*finish = (void *)0x6b6b6b6b;
		bump(box->inside, -1);
		return false;
	}
	mmu_interval_set_seq(ini, cur_seq);
	mirror_doom(&box->dev->mirror, first_page(range), last_page(range));
	mutex_unlock(&box->dev->lock);

	f = malloc(sizeof(*f));
	f->bracket = b;
	f->box = box;
	f->first = first_page(range);
	f->last = last_page(range);
	f->number = b->left++;
	*finish = &f->finish;
	jitter();
	return true;
}

static void dev_invalidate_finish(struct mmu_interval_notifier_finish *finish)
{
	struct finish *f = container_of(finish, struct finish, finish);
	struct bracket *b = f->bracket;
	struct box *box = f->box;

	check(finish->notifier == &box->ini, "a finish of another device");
	check(!peek(box->gone), "a finish after the removal");
	check(f->number == b->finished, "finish %u in the place of %u", f->number,
	      b->finished);
	b->finished++;
	b->finishing = true;
	tally(finishes);
	jitter();
	/* The device is done: no lock, its copies just cease to be */
	mirror_drop(&box->dev->mirror, f->first, f->last);
	memset(f, 0x6b, sizeof(*f));
	free(f);
	bump(box->inside, -1);
}

static void dev_release_allowed(struct box *box, struct bracket *b)
{
	unsigned int nr = box->dev - devs;

	check(!peek(box->gone), "device %u: released after its removal", nr);
	check(b, "device %u: released outside of any exit", nr);
	check(box->ini.mm == &b->space->mm, "device %u: released from another mm", nr);
	check(!peek(b->space->released), "device %u: released after exit", nr);
	check(b->called[nr], "device %u: released before the bracket", nr);
	check(b->left == b->finished, "device %u: released before the finishes", nr);
	check(!b->released[nr] && !box->releases, "device %u: released twice", nr);
}

static void dev_release(struct mmu_interval_notifier *ini)
{
	struct box *box = container_of(ini, struct box, ini);
	struct bracket *b = me->exiting;
	struct dev *dev = box->dev;

	might_sleep();
	bump(box->inside, 1);
	dev_release_allowed(box, b);
	b->released[dev - devs] = 1;
	box->releases++;
	tally(releases);
	jitter();
	/* Others may be in brackets, and will leave them; that of exit is closed */
	if (one_in(4))
		mmu_interval_read_begin(ini);
	mutex_lock(&dev->lock);
	for (unsigned int p = 0; p < NR_PAGES; p++)
		check(!peek(dev->mirror.copy[p]), "device %u: a copy at its release",
		      (unsigned int)(dev - devs));
	mutex_unlock(&dev->lock);
	jitter();
	check(!peek(box->gone), "device %u: removed during its release",
	      (unsigned int)(dev - devs));
	bump(box->inside, -1);
}

static const struct mmu_interval_notifier_ops dev_ops[] = {
	{
		.invalidate = dev_invalidate,
	}, {
		.invalidate = dev_invalidate,
		.release = dev_release,
	}, {
		.invalidate_start = dev_invalidate_start,
		.invalidate_finish = dev_invalidate_finish,
	}, {
		.invalidate_start = dev_invalidate_start,
		.invalidate_finish = dev_invalidate_finish,
		.release = dev_release,
	},
};

/* ---- List subscriptions: the callbacks ---- */

static struct lst *lst_of(struct mmu_notifier *mn)
{
	struct lst *l = container_of(mn, struct lst, mn);

	check(mn->mm == &l->space->mm, "list %d: called after it ended",
	      (int)(l - lists));
	check(!peek(l->space->released), "list %d: in a callback after exit",
	      (int)(l - lists));
	return l;
}

static int lst_start(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct bracket *b = bracket_of(range);
	struct lst *l = lst_of(mn);
	unsigned int nr = l - lists;

	check(!b->starts[nr]++, "list %u: started twice", nr);
	check(b->left == b->finished, "list %u: before the finishes", nr);
	check(!b->refused, "list %u: started after a refusal", nr);
	jitter();
	lst_of(mn);
	if (l->kind == KIND_START) {
		b->refused = b->nonblock && one_in(6);
		return b->refused ? -EAGAIN : 0;
	}
	spin_lock(&l->lock);
	l->open++;
	mirror_drop(&l->mirror, first_page(range), last_page(range));
	spin_unlock(&l->lock);
	return 0;
}

static void lst_end(struct mmu_notifier *mn, const struct mmu_notifier_range *range)
{
	struct bracket *b = bracket_of(range);
	struct lst *l = lst_of(mn);
	unsigned int nr = l - lists;

	check(b->starts[nr] && !b->ends[nr]++, "list %u: an end without its start",
	      nr);
	jitter();
	lst_of(mn);
	spin_lock(&l->lock);
	l->seq++;
	check(--l->open >= 0, "list %u: more ends than starts", nr);
	spin_unlock(&l->lock);
}

static void lst_release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	struct lst *l = lst_of(mn);

	might_sleep();
	check(&l->space->mm == mm, "released from another mm");
	mirror_leaves(&l->mirror);
	jitter();
	spin_lock(&l->lock);
	check(!l->releases++, "list %d: released twice", (int)(l - lists));
	mirror_drop(&l->mirror, 0, NR_PAGES - 1);
	spin_unlock(&l->lock);
}

static void lst_flush(struct mmu_notifier *mn, struct mm_struct *mm,
		      unsigned long start, unsigned long end)
{
	lst_of(mn);
	check(start < end, "an empty flush");
	jitter();
}

static int lst_young(struct mmu_notifier *mn, struct mm_struct *mm,
		     unsigned long start, unsigned long end)
{
	lst_of(mn);
	jitter();
	return one_in(2);
}

static int lst_test_young(struct mmu_notifier *mn, struct mm_struct *mm,
			  unsigned long address)
{
	lst_of(mn);
	jitter();
	return one_in(2);
}

static void lst_free(struct mmu_notifier *mn)
{
	struct lst *l = container_of(mn, struct lst, mn);

	/* Read after mmu_notifier_synchronize(), which orders it */
	l->frees++;
}

static const struct mmu_notifier_ops list_ops[NR_KINDS] = {
	[KIND_PAIR] = {
		.invalidate_range_start = lst_start,
		.invalidate_range_end = lst_end,
		.release = lst_release,
		.test_young = lst_test_young,
		.free_notifier = lst_free,
	},
	[KIND_START] = {
		.invalidate_range_start = lst_start,
		.release = lst_release,
		.free_notifier = lst_free,
	},
	[KIND_TLB] = {
		.arch_invalidate_secondary_tlbs = lst_flush,
		.clear_young = lst_young,
		.clear_flush_young = lst_young,
		.release = lst_release,
		.free_notifier = lst_free,
	},
};

/* ---- Shared subscriptions: the callbacks ---- */

static int shared_start(struct mmu_notifier *mn,
			const struct mmu_notifier_range *range)
{
	struct shared *s = container_of(mn, struct shared, mn);

	bump(s->open, 1);
	if (mn == me->held)
		bracket_of(range)->held_starts++;
	jitter();
	return 0;
}

static void shared_end(struct mmu_notifier *mn,
		       const struct mmu_notifier_range *range)
{
	struct shared *s = container_of(mn, struct shared, mn);

	check(bump(s->open, -1) >= 0, "shared: an end without its start");
	if (mn == me->held)
		bracket_of(range)->held_ends++;
	jitter();
}

static void shared_release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	struct shared *s = container_of(mn, struct shared, mn);
	int gifts = __atomic_exchange_n(&s->gifts, 0, SHIM_WATCH);

	check(bump(s->releases, 1) == 1, "shared: released twice");
	while (gifts--)
		mmu_notifier_put(mn);
}

static struct mmu_notifier *shared_alloc(struct mm_struct *mm)
{
	struct shared *s = kzalloc(sizeof(*s), GFP_KERNEL);

	mmap_assert_write_locked(mm);
	if (!s)
		return ERR_PTR(-ENOMEM);
	bump(shared_made, 1);
	return &s->mn;
}

static void shared_free(struct mmu_notifier *mn)
{
	struct shared *s = container_of(mn, struct shared, mn);

	check(mn->mm, "shared: no mm to free it from");
	bump(shared_freed, 1);
	memset(s, 0x6b, sizeof(*s));
	kfree(s);
}

static const struct mmu_notifier_ops shared_ops = {
	.invalidate_range_start = shared_start,
	.invalidate_range_end = shared_end,
	.release = shared_release,
	.alloc_notifier = shared_alloc,
	.free_notifier = shared_free,
};

/* ---- Address spaces ---- */

static struct space *space_new(void)
{
	struct space *space = calloc(1, sizeof(*space));

	atomic_set(&space->mm.mm_users, 1);
	atomic_set(&space->mm.mm_count, 1);
	init_rwsem(&space->mm.mmap_lock);
	init_rwsem(&space->mm.brackets);
	spin_lock_init(&space->pte_lock);
	mmu_notifier_subscriptions_init(&space->mm);
	space->serial = bump(serials, 1);
	for (unsigned int p = 0; p < NR_PAGES; p++) {
		space->version[p] = 1;
		space->plain[p] = 1;
	}
	bump(spaces_made, 1);
	return space;
}

void __mmdrop(struct mm_struct *mm)
{
	struct space *space = container_of(mm, struct space, mm);

	check(space->dead, "freed before its exit");
	mmu_notifier_subscriptions_destroy(mm);
	memset(space, 0x6b, sizeof(*space));
	free(space);
	bump(spaces_freed, 1);
}

static void expect_calls(struct bracket *b)
{
	unsigned long first = first_page(&b->range), last = last_page(&b->range);

	for (unsigned int i = 0; i < NR_DEVS; i++)
		b->dev_gen[i] = mirror_present(&devs[i].mirror, b->space, first,
					       last);
	/* A list subscription has no range: all pages are its own */
	for (unsigned int i = 0; i < NR_LISTS; i++)
		b->list_gen[i] = mirror_present(&lists[i].mirror, b->space, first,
						last);
}

/* Those who were there from before the start until now */
static void verify_dev_calls(struct bracket *b)
{
	for (unsigned int i = 0; i < NR_DEVS; i++) {
		if (b->dev_gen[i] && peek(devs[i].mirror.gen) == b->dev_gen[i])
			check(b->called[i], "device %u: not called", i);
	}
}

static void verify_dev_releases(struct bracket *b)
{
	for (unsigned int i = 0; i < NR_DEVS; i++) {
		bool releases = peek(devs[i].releases);

		if (b->dev_gen[i] && peek(devs[i].mirror.gen) == b->dev_gen[i])
			check(b->released[i] == releases, "device %u: %s released", i,
			      releases ? "not" : "wrongly");
	}
}

static void verify_list_calls(struct bracket *b, bool ended)
{
	for (unsigned int i = 0; i < NR_LISTS; i++) {
		enum list_kind kind = lists[i].kind;

		if (!b->list_gen[i] || peek(lists[i].mirror.gen) != b->list_gen[i] ||
		    kind == KIND_TLB)
			continue;
		check(b->refused || b->starts[i], "list %u: not started", i);
		if (ended && kind == KIND_PAIR)
			check(b->ends[i] == b->starts[i], "list %u: not ended", i);
	}
}

/* The last user is gone: what exit_mmap() does, as far as it concerns us */
static void space_exit(struct space *space)
{
	struct bracket b = { .space = space };

	mmu_notifier_range_init(&b.range, MMU_NOTIFY_RELEASE, 0, &space->mm, 0,
				ULONG_MAX);
	expect_calls(&b);
	me->exiting = &b;
	mmu_notifier_release(&space->mm);
	me->exiting = NULL;
	poke(space->released, true);
	verify_dev_calls(&b);
	verify_dev_releases(&b);
	check(b.left == b.finished, "exit: %u finishes missing", b.left - b.finished);
	for (unsigned int i = 0; i < NR_LISTS; i++)
		check(!mirror_present(&lists[i].mirror, space, 0, NR_PAGES),
		      "list %u: not released at exit", i);
	nobody_holds(space, 0, NR_PAGES - 1, "after exit");

	/* Reverse mappings go: the last bracket is over */
	down_write(&space->mm.brackets);
	space->dead = true;
	up_write(&space->mm.brackets);
	tally(exits);
	mmdrop(&space->mm);
}

static void space_put(struct space *space)
{
	if (atomic_dec_and_test(&space->mm.mm_users))
		space_exit(space);
}

/* One of the current ones, with a user */
static struct space *space_get(void)
{
	unsigned int w = rnd(NR_WORLDS);
	struct space *space;

	pthread_mutex_lock(&worlds[w].lock);
	space = worlds[w].space;
	check(mmget_not_zero(&space->mm), "no user left");
	pthread_mutex_unlock(&worlds[w].lock);
	return space;
}

static void op_replace(void)
{
	struct space *fresh = space_new(), *old;
	unsigned int w = rnd(NR_WORLDS);

	poke(me->doing, "replace");
	pthread_mutex_lock(&worlds[w].lock);
	old = worlds[w].space;
	worlds[w].space = fresh;
	pthread_mutex_unlock(&worlds[w].lock);
	space_put(old);
}

/* ---- The CPU: brackets ---- */

static void pick_range(struct bracket *b)
{
	unsigned long start = rnd(NR_PAGES) << PAGE_SHIFT, end;
	static const enum mmu_notifier_event events[] = {
		MMU_NOTIFY_UNMAP, MMU_NOTIFY_CLEAR, MMU_NOTIFY_PROTECTION_VMA,
		MMU_NOTIFY_PROTECTION_PAGE, MMU_NOTIFY_SOFT_DIRTY,
		MMU_NOTIFY_MIGRATE, MMU_NOTIFY_EXCLUSIVE,
	};

	if (one_in(16)) {
		start = 0;
		end = ULONG_MAX;
	} else {
		end = start + ((1 + rnd(one_in(3) ? NR_PAGES : 3)) << PAGE_SHIFT);
		end = min(end, (unsigned long)NR_PAGES << PAGE_SHIFT);
	}
	mmu_notifier_range_init_owner(&b->range, events[rnd(ARRAY_SIZE(events))], 0,
				      &b->space->mm, start, end,
				      one_in(2) ? me : NULL);
}

static void change_pages(struct bracket *b)
{
	struct space *space = b->space;

	for (unsigned long p = first_page(&b->range); p <= last_page(&b->range); p++) {
		if (one_in(2))
			continue;
		spin_lock(&space->pte_lock);
		space->plain[p]++;
		bump(space->version[p], 1);
		spin_unlock(&space->pte_lock);
	}
}

static void mark_busy(struct bracket *b, int n)
{
	for (unsigned long p = first_page(&b->range); p <= last_page(&b->range); p++)
		bump(b->space->busy[p], n);
}

static bool bracket_start(struct bracket *b)
{
	int ret = 0;

	tally(brackets);
	b->nonblock = one_in(4);
	expect_calls(b);
	if (b->nonblock)
		ret = mmu_notifier_invalidate_range_start_nonblock(&b->range);
	else
		mmu_notifier_invalidate_range_start(&b->range);
	check(!shim_nonblock, "non_block_start() without its end");
	check(b->left == b->finished, "%u finishes missing", b->left - b->finished);
	check(!ret == !b->refused, "refused by %s, but %d returned",
	      b->refused ? "somebody" : "nobody", ret);
	verify_list_calls(b, ret);
	if (ret) {
		check(ret == -EAGAIN, "refused by %d", ret);
		tally(refused);
		return false;
	}
	verify_dev_calls(b);
	mark_busy(b, 1);
	return true;
}

static void bracket_end(struct bracket *b)
{
	nobody_holds(b->space, first_page(&b->range), last_page(&b->range),
		     "in a bracket");
	mark_busy(b, -1);
	mmu_notifier_invalidate_range_end(&b->range);
	verify_list_calls(b, true);
	check(b->held_starts == b->held_ends, "held: %u starts, %u ends",
	      b->held_starts, b->held_ends);
}

/* Brackets that nest, or overlap: the first opened may be the first closed */
static void bracket_nest(struct space *space, unsigned int depth, bool held)
{
	struct bracket a = { .space = space }, b = { .space = space };
	bool second = false, crossed = one_in(2);

	pick_range(&a);
	if (!bracket_start(&a))
		return;
	check(!held || a.held_starts == 1, "held: %u starts", a.held_starts);
	change_pages(&a);
	jitter();
	if (depth && one_in(3)) {
		pick_range(&b);
		second = bracket_start(&b);
	}
	if (second && crossed)
		bracket_end(&a);
	if (second)
		change_pages(&b);
	if (depth > 1 && one_in(3))
		bracket_nest(space, depth - 2, held);
	if (second)
		bracket_end(&b);
	if (!second || !crossed) {
		change_pages(&a);
		bracket_end(&a);
	}
}

/* Under the locks that keep mm_take_all_locks() out */
static void brackets(struct space *space, bool held)
{
	bool mmap = one_in(4);

	poke(me->doing, "bracket");
	if (mmap)
		mmap_read_lock(&space->mm);
	down_read(&space->mm.brackets);
	if (!space->dead) {
		for (unsigned int n = 1 + rnd(4); n; n--)
			bracket_nest(space, MAX_NESTED, held);
	}
	up_read(&space->mm.brackets);
	if (mmap)
		mmap_read_unlock(&space->mm);
}

static void op_brackets(void)
{
	struct space *space = space_get();

	if (one_in(4)) {
		/* As reclaim does: pages have no users, exit may come any time */
		mmgrab(&space->mm);
		space_put(space);
		brackets(space, false);
		mmdrop(&space->mm);
	} else {
		brackets(space, false);
		space_put(space);
	}
}

static void op_age(void)
{
	struct space *space = space_get();
	unsigned long page = rnd(NR_PAGES) << PAGE_SHIFT;

	poke(me->doing, "age");
	spin_lock(&space->pte_lock);
	mmu_notifier_clear_flush_young(&space->mm, page, page + 1);
	mmu_notifier_clear_young(&space->mm, page, page + 1);
	mmu_notifier_test_young(&space->mm, page);
	mmu_notifier_arch_invalidate_secondary_tlbs(&space->mm, page, page + 1);
	spin_unlock(&space->pte_lock);
	space_put(space);
}

/* ---- Devices: what drivers do ---- */

static void dev_insert(struct dev *dev)
{
	const struct mmu_interval_notifier_ops *ops = &dev_ops[rnd(ARRAY_SIZE(dev_ops))];
	struct space *space = space_get();
	struct mirror *m = &dev->mirror;
	bool again = dev->old_serial == space->serial, locked = one_in(4);
	unsigned long first = rnd(NR_PAGES);
	unsigned long last = min(first + rnd(one_in(2) ? NR_PAGES : 4),
				 NR_PAGES - 1ul);
	int ret;

	poke(m->serial, space->serial);
	poke(m->first, first);
	poke(m->last, last);
	poke(dev->releases, ops->release);
	dev->space = space;
	dev->box->releases = 0;
	first <<= PAGE_SHIFT;
	last = (last + 1) << PAGE_SHIFT;
	poke(dev->box->gone, false);
	if (locked)
		mmap_write_lock(&space->mm);
	ret = (locked ? mmu_interval_notifier_insert_locked :
	       mmu_interval_notifier_insert)(&dev->box->ini, &space->mm, first,
					     last - first, ops);
	if (locked)
		mmap_write_unlock(&space->mm);
	if (!ret) {
		check(!again || mmu_interval_read_retry(&dev->box->ini, dev->old_seq),
		      "no collision with an earlier insertion");
		dev->inserted = true;
		mirror_subscribed(m);
		tally(inserts);
	} else {
		check(ret == -ENOMEM || ret == -EINTR, "insert: %d", ret);
	}
	space_put(space);
}

static void dev_remove(struct dev *dev)
{
	struct box *box = dev->box;
	struct mm_struct *mm = &dev->space->mm;
	bool locked = one_in(4);

	mirror_leaves(&dev->mirror);
	dev->old_serial = dev->space->serial;
	dev->old_seq = READ_ONCE(box->ini.seq);
	mutex_lock(&dev->lock);
	mirror_drop(&dev->mirror, 0, NR_PAGES - 1);
	mutex_unlock(&dev->lock);

	/* A pin for the lock: that of the subscription goes */
	if (locked) {
		mmgrab(mm);
		mmap_read_lock(mm);
	}
	mmu_interval_notifier_remove(&box->ini);
	check(!peek(box->inside), "removed with %d callbacks inside", box->inside);
	check(box->releases <= dev->releases, "released %d times", box->releases);
	poke(box->gone, true);
	if (locked) {
		mmap_read_unlock(mm);
		mmdrop(mm);
	}

	dev->inserted = false;
	memset(&box->ini, 0x6b, sizeof(box->ini));
	if (one_in(3)) {
		free(box);
		dev->box = calloc(1, sizeof(*dev->box));
		dev->box->dev = dev;
	}
}

static void op_dev_toggle(void)
{
	struct dev *dev = &devs[rnd(NR_DEVS)];

	poke(me->doing, "insert or remove");
	down_write(&dev->op);
	if (dev->inserted)
		dev_remove(dev);
	else
		dev_insert(dev);
	up_write(&dev->op);
}

/* One way or the other, and some wait for a part of it first */
static bool dev_read_begin(struct mmu_interval_notifier *ini, unsigned long *seq,
			   unsigned long first, unsigned long last)
{
	int ret = 0;

	if (one_in(4))
		ret = mmu_interval_wait_timeout(ini, first << PAGE_SHIFT,
						((last + 1) << PAGE_SHIFT) - 1,
						rnd(100));
	check(!ret || ret == -EBUSY, "wait: %d", ret);
	if (one_in(2)) {
		*seq = mmu_interval_read_begin(ini);
		return true;
	}
	ret = mmu_interval_read_begin_timeout(ini, seq, rnd(100));
	check(!ret || ret == -EBUSY, "read_begin: %d", ret);
	return !ret;
}

static bool dev_fault(struct dev *dev, unsigned long first, unsigned long last)
{
	struct mmu_interval_notifier *ini = &dev->box->ini;
	struct space *space = dev->space;
	u64 version[NR_PAGES];
	unsigned long seq;
	bool done = true;

	if (!dev_read_begin(ini, &seq, first, last))
		return false;
	check(seq && seq != LONG_MAX && seq != ULONG_MAX, "sequence %lu", seq);
	for (unsigned long p = first; p <= last; p++)
		version[p] = peek(space->version[p]);
	jitter();
	if (mmu_interval_check_retry(ini, seq) && one_in(2))
		return false;
	mutex_lock(&dev->lock);
	if (mmu_interval_read_retry(ini, seq)) {
		done = false;
		tally(retries);
	} else {
		for (unsigned long p = first; p <= last; p++)
			mirror_install(&dev->mirror, space, p, version[p]);
		jitter();
		mirror_verify(&dev->mirror, space);
	}
	mutex_unlock(&dev->lock);
	return done;
}

static void op_fault(void)
{
	struct dev *dev = &devs[rnd(NR_DEVS)];
	struct space *space = NULL;
	unsigned long first, last;

	poke(me->doing, "fault");
	down_read(&dev->op);
	if (dev->inserted && mmget_not_zero(&dev->space->mm)) {
		bool mmap = one_in(2);

		space = dev->space;
		first = dev->mirror.first +
			rnd(dev->mirror.last - dev->mirror.first + 1);
		last = min(first + rnd(4), dev->mirror.last);
		if (mmap)
			mmap_read_lock(&space->mm);
		for (int tries = 4; tries && !dev_fault(dev, first, last); tries--)
			;
		if (mmap)
			mmap_read_unlock(&space->mm);
		tally(faults);
	}
	up_read(&dev->op);
	if (space)
		space_put(space);
}

static void op_dev_use(void)
{
	struct dev *dev = &devs[rnd(NR_DEVS)];

	poke(me->doing, "use");
	down_read(&dev->op);
	if (dev->inserted) {
		mutex_lock(&dev->lock);
		mirror_verify(&dev->mirror, dev->space);
		mutex_unlock(&dev->lock);
	}
	up_read(&dev->op);
}

/* ---- List subscriptions: what drivers do ---- */

static void lst_register(struct lst *l)
{
	struct space *space = space_get();
	bool locked = one_in(2);
	int ret;

	l->space = space;
	l->open = 0;
	l->releases = 0;
	l->frees = 0;
	poke(l->mirror.serial, space->serial);
	poke(l->mirror.first, 0);
	poke(l->mirror.last, NR_PAGES - 1);
	l->mn.ops = &list_ops[l->kind];
	if (locked)
		mmap_write_lock(&space->mm);
	ret = (locked ? __mmu_notifier_register : mmu_notifier_register)(&l->mn,
									&space->mm);
	if (locked)
		mmap_write_unlock(&space->mm);
	if (!ret) {
		l->registered = true;
		mirror_subscribed(&l->mirror);
		tally(registers);
	} else {
		check(ret == -ENOMEM || ret == -EINTR, "register: %d", ret);
		/* Nothing, as it has failed */
		mmu_notifier_unregister(&l->mn, &space->mm);
	}
	space_put(space);
}

static void lst_unregister(struct lst *l)
{
	bool put = one_in(4);

	mirror_leaves(&l->mirror);
	spin_lock(&l->lock);
	mirror_drop(&l->mirror, 0, NR_PAGES - 1);
	spin_unlock(&l->lock);
	if (put) {
		mmu_notifier_put(&l->mn);
		mmu_notifier_synchronize();
	} else {
		mmu_notifier_unregister(&l->mn, &l->space->mm);
		check(l->releases == 1, "released %d times", l->releases);
	}
	check(l->frees == put, "freed %d times", l->frees);
	l->registered = false;
	memset(&l->mn, 0x6b, sizeof(l->mn));
}

static void op_lst_toggle(void)
{
	struct lst *l = &lists[rnd(NR_LISTS)];

	poke(me->doing, "register or unregister");
	pthread_mutex_lock(&l->op);
	if (l->registered)
		lst_unregister(l);
	else
		lst_register(l);
	pthread_mutex_unlock(&l->op);
}

/* As KVM does: no copy while a bracket is open, or after one has been */
static void lst_copy(struct lst *l, struct space *space, unsigned long p)
{
	unsigned long seq;
	u64 version;

	spin_lock(&l->lock);
	seq = l->seq;
	spin_unlock(&l->lock);
	version = peek(space->version[p]);
	jitter();
	spin_lock(&l->lock);
	if (!l->open && l->seq == seq)
		mirror_install(&l->mirror, space, p, version);
	mirror_verify(&l->mirror, space);
	spin_unlock(&l->lock);
}

/* With all brackets kept out the count of the open ones must be zero */
static void lst_balance(struct lst *l, struct space *space)
{
	mmap_write_lock(&space->mm);
	if (!mm_take_all_locks(&space->mm)) {
		check(!l->open, "%d brackets open while none is", l->open);
		mm_drop_all_locks(&space->mm);
	}
	mmap_write_unlock(&space->mm);
}

static void op_lst_use(void)
{
	struct lst *l = &lists[rnd(NR_LISTS)];
	struct space *space = NULL;

	poke(me->doing, "use of a list subscription");
	pthread_mutex_lock(&l->op);
	if (l->registered && l->kind == KIND_PAIR &&
	    mmget_not_zero(&l->space->mm)) {
		space = l->space;
		for (unsigned int n = rnd(4); n; n--)
			lst_copy(l, space, rnd(NR_PAGES));
		if (one_in(4))
			lst_balance(l, space);
	}
	pthread_mutex_unlock(&l->op);
	if (space)
		space_put(space);
}

static void op_shared(void)
{
	struct space *space = space_get();
	struct mmu_notifier *mn = mmu_notifier_get(&shared_ops, &space->mm);
	struct shared *s = container_of(mn, struct shared, mn);

	poke(me->doing, "get and put");
	if (!IS_ERR(mn)) {
		check(mn->mm == &space->mm, "got that of another mm");
		me->held = mn;
		if (one_in(2))
			brackets(space, true);
		me->held = NULL;
		if (!me->kept && one_in(8))
			me->kept = mn;
		else if (one_in(8))
			bump(s->gifts, 1);
		else
			mmu_notifier_put(mn);
	}
	space_put(space);
	if (me->kept && one_in(8)) {
		mmu_notifier_put(me->kept);
		me->kept = NULL;
	}
	if (one_in(32))
		mmu_notifier_synchronize();
}

/* ---- Threads ---- */

static const struct role {
	void (*op)(void);
	unsigned int weight[3];		/* CPU, device, everything else */
} roles[] = {
	{ op_brackets,	{ 20, 2, 4 } },
	{ op_age,	{ 4, 0, 2 } },
	{ op_fault,	{ 2, 20, 4 } },
	{ op_dev_use,	{ 0, 8, 2 } },
	{ op_dev_toggle, { 1, 8, 6 } },
	{ op_lst_toggle, { 0, 1, 6 } },
	{ op_lst_use,	{ 1, 1, 6 } },
	{ op_shared,	{ 1, 1, 5 } },
	{ op_replace,	{ 0, 0, 1 } },
};

static void one_op(unsigned int role)
{
	unsigned int sum = 0, dice;

	for (unsigned int i = 0; i < ARRAY_SIZE(roles); i++)
		sum += roles[i].weight[role];
	dice = rnd(sum);
	for (unsigned int i = 0; i < ARRAY_SIZE(roles); i++) {
		if (dice < roles[i].weight[role]) {
			roles[i].op();
			return;
		}
		dice -= roles[i].weight[role];
	}
}

static void thread_init(struct thread *thread)
{
	me = thread;
	shim_slot = thread->nr;
	thread->random = seed + thread->nr * 0x2545f4914f6cdd1dull;
}

static void *thread_main(void *arg)
{
	struct thread *thread = arg;
	/* Most of the time there is one of each */
	unsigned int role = thread->nr % 3;

	thread_init(thread);
	while (!peek(stop)) {
		one_op(role);
		bump(thread->ops, 1);
		check(!shim_spinlocks && !shim_srcu_depth && !shim_nonblock,
		      "%s leaves a lock behind", thread->doing);
	}
	if (thread->kept)
		mmu_notifier_put(thread->kept);
	poke(thread->doing, "nothing");
	poke(thread->done, true);
	return NULL;
}

static void hang(void)
{
	for (unsigned int i = 0; i <= nr_threads; i++)
		dprintf(STDOUT_FILENO, "torture: thread %u: %lu done, now %s\n", i,
			peek(threads[i].ops), peek(threads[i].done) ? "done" :
			peek(threads[i].doing) ?: "-");
	dprintf(STDOUT_FILENO, "torture: HANG: seed %llu\n",
		(unsigned long long)seed);
	_exit(EXIT_HANG);
}

/* One thread that gets nowhere is a hang, whatever the others do */
static void *watchdog(void *unused)
{
	unsigned long seen[MAX_THREADS + 1] = { 0 };
	unsigned int still[MAX_THREADS + 1] = { 0 };

	for (;;) {
		sleep(1);
		for (unsigned int i = 0; i <= nr_threads; i++) {
			unsigned long ops = peek(threads[i].ops);

			if (ops != seen[i] || peek(threads[i].done))
				still[i] = 0;
			else if (++still[i] >= STALL_SECONDS)
				hang();
			seen[i] = ops;
		}
	}
	return NULL;
}

static void start(pthread_t *thread, void *(*func)(void *arg), void *arg)
{
	if (pthread_create(thread, NULL, func, arg))
		fail("pthread_create");
}

static void setup(void)
{
	for (unsigned int i = 0; i < NR_DEVS; i++) {
		init_rwsem(&devs[i].op);
		mutex_init(&devs[i].lock);
		devs[i].box = calloc(1, sizeof(*devs[i].box));
		devs[i].box->dev = &devs[i];
	}
	for (unsigned int i = 0; i < NR_LISTS; i++) {
		pthread_mutex_init(&lists[i].op, NULL);
		spin_lock_init(&lists[i].lock);
		lists[i].kind = i % NR_KINDS;
	}
	for (unsigned int i = 0; i < NR_WORLDS; i++) {
		pthread_mutex_init(&worlds[i].lock, NULL);
		worlds[i].space = space_new();
	}
}

/* Everybody unsubscribes, before or after the last exit; then all must be gone */
static void teardown(void)
{
	struct mm_struct *mm;

	for (unsigned int i = 0; i < NR_WORLDS; i++) {
		mmgrab(&worlds[i].space->mm);
		if (one_in(2))
			space_put(worlds[i].space);
	}
	for (unsigned int i = 0; i < NR_DEVS; i++) {
		if (devs[i].inserted)
			dev_remove(&devs[i]);
		free(devs[i].box);
	}
	for (unsigned int i = 0; i < NR_LISTS; i++) {
		if (lists[i].registered)
			lst_unregister(&lists[i]);
	}
	for (unsigned int i = 0; i < NR_WORLDS; i++) {
		mm = &worlds[i].space->mm;
		if (atomic_read(&mm->mm_users))
			space_put(worlds[i].space);
		mmu_notifier_synchronize();
		check(atomic_read(&mm->mm_count) == 1, "%d pins left",
		      atomic_read(&mm->mm_count));
		mmdrop(mm);
	}
	check(spaces_made == spaces_freed, "%ld address spaces left",
	      spaces_made - spaces_freed);
	check(shared_made == shared_freed, "%ld shared subscriptions left",
	      shared_made - shared_freed);
}

static void options(int argc, char **argv)
{
	int option;

	seed = time(NULL) ^ getpid();
	while ((option = getopt(argc, argv, "s:t:T:")) != -1) {
		if (option == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (option == 't')
			seconds = atoi(optarg);
		else if (option == 'T')
			nr_threads = atoi(optarg);
		else
			exit(EXIT_USAGE);
	}
	if (seconds < 1 || nr_threads < 1 || nr_threads >= MAX_THREADS) {
		fprintf(stderr, "usage: %s [-s SEED] [-t SECONDS] [-T THREADS]\n",
			argv[0]);
		exit(EXIT_USAGE);
	}
}

int main(int argc, char **argv)
{
	pthread_t pthread;
	unsigned int i;

	options(argc, argv);
	printf("torture: seed %llu, %d s, %u threads\n", (unsigned long long)seed,
	       seconds, nr_threads);
	fflush(stdout);
	/* The last one is this thread */
	for (i = 0; i <= nr_threads; i++)
		threads[i].nr = i;
	thread_init(&threads[nr_threads]);
	setup();
	start(&pthread, srcu_worker, NULL);
	start(&pthread, watchdog, NULL);
	for (i = 0; i < nr_threads; i++)
		start(&threads[i].pthread, thread_main, &threads[i]);
	for (i = 0; i < (unsigned int)seconds * 10; i++) {
		usleep(100000);
		bump(me->ops, 1);
	}
	poke(me->doing, "waiting for the others");
	poke(stop, true);
	for (i = 0; i < nr_threads; i++)
		pthread_join(threads[i].pthread, NULL);
	poke(me->doing, "teardown");
	teardown();
	printf("torture: %lu brackets (%lu refused), %lu faults (%lu retries), ",
	       count.brackets, count.refused, count.faults, count.retries);
	printf("%lu inserts, %lu finishes, %lu registers, %lu exits, %lu releases, ",
	       count.inserts, count.finishes, count.registers, count.exits,
	       count.releases);
	printf("%lu injected failures\n", count.failures);
	printf("torture: ok\n");
	fflush(stdout);
	/* The worker and the watchdog sleep: nothing is to be run behind them */
	return 0;
}
