/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MMU_NOTIFIER_SHIM_H
#define _MMU_NOTIFIER_SHIM_H

/*
 * What mm/mmu_notifier.c needs of the kernel, for a user program. Every header in
 * include/ leads here; lists and trees are the kernel's own, see Makefile.
 *
 * ThreadSanitizer has to understand each primitive, or it would report what is
 * ordered and miss what is not: locks are pthread locks, marked accesses are
 * __atomic builtins. Plain accesses stay plain. Of three things it knows nothing:
 *
 * - Fences. Nothing here is ordered by one alone.
 * - Dependencies. A marked load of a pointer is therefore an acquire; one of a
 *   scalar is relaxed, so that an acquire forgotten there is reported.
 * - That an unlock and a later lock of another order what is before the one and
 *   behind the other, on the same CPU. See hlist_del_init_rcu().
 *
 * Contexts are checked as CONFIG_DEBUG_ATOMIC_SLEEP and lockdep_assert_held()
 * would: whatever sleeps in the kernel calls might_sleep() here.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <linux/kconfig.h>

#define CONFIG_MMU_NOTIFIER	1
#define CONFIG_DEBUG_ATOMIC_SLEEP	1
#if __SIZEOF_LONG__ == 8
#define CONFIG_64BIT		1
#endif

/* ---- Words ---- */

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t s64;
typedef unsigned int gfp_t;

struct list_head { struct list_head *next, *prev; };
struct hlist_head { struct hlist_node *first; };
struct hlist_node { struct hlist_node *next, **pprev; };
struct rcu_head { struct rcu_head *next; void (*func)(struct rcu_head *head); };

#define BIT(n)			(1UL << (n))
#define likely(x)		__builtin_expect(!!(x), 1)
#define unlikely(x)		__builtin_expect(!!(x), 0)
#define noinline		__attribute__((noinline))
#ifdef __clang__
#define __noclone
#else
#define __noclone		__attribute__((__noclone__))
#endif
#undef __always_inline
#define __always_inline		inline __attribute__((always_inline))
#define __must_check		__attribute__((warn_unused_result))
#define __maybe_unused		__attribute__((unused))
#define __noreturn		__attribute__((noreturn))
#define __printf(f, a)		__attribute__((format(printf, f, a)))
#define __read_mostly
#define __rcu
#define __user
#define __acquires(x)
#define __releases(x)
#define __must_hold(x)
#define EXPORT_SYMBOL(x)
#define EXPORT_SYMBOL_GPL(x)
#define barrier()		__asm__ __volatile__("" : : : "memory")
#ifndef offsetof
#define offsetof(type, member)	__builtin_offsetof(type, member)
#endif
#define container_of(ptr, type, member)					\
	((type *)((char *)(ptr) - offsetof(type, member)))
#define ARRAY_SIZE(a)		(sizeof(a) / sizeof((a)[0]))
#define BUILD_BUG_ON(x)		_Static_assert(!(x), #x)
#define LIST_POISON1		((void *)0x100)
#define LIST_POISON2		((void *)0x122)
#define check_add_overflow(a, b, d) __builtin_add_overflow(a, b, d)
#define min(a, b) ({ typeof(a) _a = (a); typeof(b) _b = (b); _a < _b ? _a : _b; })
#define min_t(t, a, b)		min((t)(a), (t)(b))
#define max(a, b) ({ typeof(a) _a = (a); typeof(b) _b = (b); _a > _b ? _a : _b; })

#define MAX_ERRNO		4095
#define IS_ERR_VALUE(x)		((unsigned long)(x) >= (unsigned long)-MAX_ERRNO)
#define ERR_PTR(error)		((void *)(long)(error))
#define PTR_ERR(ptr)		((long)(ptr))
#define IS_ERR(ptr)		IS_ERR_VALUE(ptr)
#define IS_ERR_OR_NULL(ptr)	(!(ptr) || IS_ERR(ptr))

/* ---- What the program provides ---- */

/* Says what is wrong and ends the run */
void __noreturn shim_bug(const char *file, int line, const char *what);
/* Shall an operation that may fail do so now? */
bool shim_inject(void);
/* The last pin of an mm is gone */
struct mm_struct;
void __mmdrop(struct mm_struct *mm);

/* A warning ends the run, too: nothing that the program does deserves one */
#define WARN_ON(x)							\
	({								\
		bool _warn = (x);					\
									\
		if (unlikely(_warn))					\
			shim_bug(__FILE__, __LINE__, "WARN_ON " #x);	\
		_warn;							\
	})
#define WARN_ON_ONCE(x)		WARN_ON(x)
#define WARN(x, ...)		WARN_ON(x)
#define WARN_ONCE(x, ...)	WARN_ON(x)
#define VM_WARN_ON_ONCE(x)	WARN_ON(x)

/* ---- Marked accesses ---- */

#define shim_is_pointer(x)	(__builtin_classify_type(x) == 5)
#define shim_load(x)							\
	__builtin_choose_expr(shim_is_pointer(x),			\
			      __atomic_load_n(&(x), __ATOMIC_ACQUIRE),	\
			      __atomic_load_n(&(x), __ATOMIC_RELAXED))
#define READ_ONCE(x)		shim_load(x)
#define WRITE_ONCE(x, v)	__atomic_store_n(&(x), (v), __ATOMIC_RELAXED)
/* In these files always around an lvalue */
#define data_race(x)		shim_load(x)
#define smp_load_acquire(p)	__atomic_load_n((p), __ATOMIC_ACQUIRE)
#define smp_store_release(p, v)	__atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define rcu_assign_pointer(p, v) __atomic_store_n(&(p), (v), __ATOMIC_RELEASE)
#define rcu_dereference(p)	__atomic_load_n(&(p), __ATOMIC_ACQUIRE)
#define cmpxchg(p, old, new)						\
	({ typeof(*(p)) _old = (old);					\
	   __atomic_compare_exchange_n((p), &_old, (new), false,	\
				       __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
	   _old; })
#define xchg(p, v)		__atomic_exchange_n((p), (v), __ATOMIC_SEQ_CST)

/*
 * For who watches and must not order: loads, stores and read-modify-writes stay in
 * order among their like on x86, atomic or not.
 */
#if defined(__x86_64__) || defined(__i386__)
#define SHIM_WATCH		__ATOMIC_RELAXED
#else
#define SHIM_WATCH		__ATOMIC_SEQ_CST
#endif

typedef struct { int counter; } atomic_t;

#define ATOMIC_INIT(v)		{ (v) }

#define atomic_read(a)		__atomic_load_n(&(a)->counter, __ATOMIC_RELAXED)
#define atomic_read_acquire(a)	__atomic_load_n(&(a)->counter, __ATOMIC_ACQUIRE)
#define atomic_set(a, v)	__atomic_store_n(&(a)->counter, v, __ATOMIC_RELAXED)
#define atomic_inc(a)							\
	((void)__atomic_add_fetch(&(a)->counter, 1, __ATOMIC_RELAXED))
#define atomic_dec(a)							\
	((void)__atomic_sub_fetch(&(a)->counter, 1, __ATOMIC_RELAXED))
#define atomic_inc_return(a)						\
	__atomic_add_fetch(&(a)->counter, 1, __ATOMIC_SEQ_CST)
#define atomic_dec_return(a)						\
	__atomic_sub_fetch(&(a)->counter, 1, __ATOMIC_SEQ_CST)
#define atomic_dec_and_test(a)	(!atomic_dec_return(a))

static inline bool atomic_inc_not_zero(atomic_t *a)
{
	int old = atomic_read(a);

	do {
		if (!old)
			return false;
	} while (!__atomic_compare_exchange_n(&a->counter, &old, old + 1, false,
					      __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
	return true;
}

/* ---- Contexts ---- */

extern __thread unsigned int shim_spinlocks, shim_nonblock, shim_srcu_depth;
extern __thread unsigned int shim_looks;

#define might_sleep()							\
	do {								\
		if (shim_spinlocks || shim_nonblock)			\
			shim_bug(__FILE__, __LINE__, "sleeps where it must not"); \
	} while (0)
#define __might_sleep(file, line)	might_sleep()
#define might_lock(lock)		((void)(lock))
#define might_lock_read(lock)		((void)(lock))
#define non_block_start()		((void)shim_nonblock++)
#define non_block_end()			((void)shim_nonblock--)
/* Now and then somebody else wants the CPU */
#define need_resched()			(++shim_looks % 16 == 0)
#define tif_need_resched()		false
#define cond_resched()			({ might_sleep(); sched_yield(); 0; })
#define cpu_relax()			sched_yield()
#define num_online_cpus()		2

#define lock_map_acquire(map)		do { } while (0)
#define lock_map_release(map)		do { } while (0)
#define lockdep_assert(cond)		WARN_ON(!(cond))

static inline u64 ktime_get_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

#define NSEC_PER_USEC			1000L
#define local_clock()			ktime_get_ns()
#define sched_clock()			ktime_get_ns()

/* ---- Locks ---- */

/* Who holds a lock: the address of a thread-local variable */
#define shim_me				((void *)&shim_spinlocks)
#define shim_own(lock, who) \
	__atomic_store_n(&(lock)->owner, (void *)(who), __ATOMIC_RELAXED)
#define shim_held(lock) \
	(__atomic_load_n(&(lock)->owner, __ATOMIC_RELAXED) == shim_me)
#define lockdep_assert_held(lock)	WARN_ON(!shim_held(lock))
#define lockdep_is_held(lock)		shim_held(lock)

typedef struct shim_lock { pthread_mutex_t mutex; void *owner; } spinlock_t;
struct mutex { struct shim_lock lock; };

#define DEFINE_SPINLOCK(name)	spinlock_t name = { PTHREAD_MUTEX_INITIALIZER, NULL }

static inline void spin_lock_init(spinlock_t *lock)
{
	pthread_mutex_init(&lock->mutex, NULL);
	lock->owner = NULL;
}

static inline void spin_lock(spinlock_t *lock)
{
	if (shim_held(lock))
		shim_bug(__FILE__, __LINE__, "a spinlock is taken twice");
	pthread_mutex_lock(&lock->mutex);
	shim_own(lock, shim_me);
	shim_spinlocks++;
}

static inline bool spin_trylock(spinlock_t *lock)
{
	if (pthread_mutex_trylock(&lock->mutex))
		return false;
	shim_own(lock, shim_me);
	shim_spinlocks++;
	return true;
}

static inline void spin_unlock(spinlock_t *lock)
{
	lockdep_assert_held(lock);
	shim_spinlocks--;
	shim_own(lock, NULL);
	pthread_mutex_unlock(&lock->mutex);
}

#define spin_lock_irq(l)		spin_lock(l)
#define spin_unlock_irq(l)		spin_unlock(l)
#define spin_lock_irqsave(l, f)		do { (f) = 0; spin_lock(l); } while (0)
#define spin_unlock_irqrestore(l, f)	do { (void)(f); spin_unlock(l); } while (0)
#define assert_spin_locked(l)		lockdep_assert_held(l)
#define spin_is_contended(l)		false

static inline void mutex_init(struct mutex *mutex)
{
	spin_lock_init(&mutex->lock);
}

static inline void mutex_lock(struct mutex *mutex)
{
	might_sleep();
	pthread_mutex_lock(&mutex->lock.mutex);
	shim_own(&mutex->lock, shim_me);
}

static inline bool mutex_trylock(struct mutex *mutex)
{
	if (pthread_mutex_trylock(&mutex->lock.mutex))
		return false;
	shim_own(&mutex->lock, shim_me);
	return true;
}

static inline void mutex_unlock(struct mutex *mutex)
{
	shim_own(&mutex->lock, NULL);
	pthread_mutex_unlock(&mutex->lock.mutex);
}

struct rw_semaphore { pthread_rwlock_t rw; void *owner; };

static inline void init_rwsem(struct rw_semaphore *sem)
{
	pthread_rwlockattr_t attr;

	/* As the kernel's: writers are not starved, readers do not nest */
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr,
				      PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&sem->rw, &attr);
	sem->owner = NULL;
}

static inline void down_read(struct rw_semaphore *sem)
{
	might_sleep();
	pthread_rwlock_rdlock(&sem->rw);
}

static inline void up_read(struct rw_semaphore *sem)
{
	pthread_rwlock_unlock(&sem->rw);
}

static inline void down_write(struct rw_semaphore *sem)
{
	might_sleep();
	pthread_rwlock_wrlock(&sem->rw);
	shim_own(sem, shim_me);
}

static inline void up_write(struct rw_semaphore *sem)
{
	shim_own(sem, NULL);
	pthread_rwlock_unlock(&sem->rw);
}

/* ---- Waiting ---- */

typedef struct wait_queue_head {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	unsigned int wakeups;
	unsigned int waiters;
} wait_queue_head_t;

static inline void init_waitqueue_head(wait_queue_head_t *wq)
{
	pthread_mutex_init(&wq->mutex, NULL);
	pthread_cond_init(&wq->cond, NULL);
	wq->wakeups = 0;
	wq->waiters = 0;
}

/* Ordered against the condition of a waiter as in the kernel: by the caller */
static inline bool waitqueue_active(wait_queue_head_t *wq)
{
	return __atomic_load_n(&wq->waiters, __ATOMIC_SEQ_CST);
}

static inline void wake_up_all(wait_queue_head_t *wq)
{
	pthread_mutex_lock(&wq->mutex);
	wq->wakeups++;
	pthread_cond_broadcast(&wq->cond);
	pthread_mutex_unlock(&wq->mutex);
}

#define wake_up(wq)			wake_up_all(wq)

static inline unsigned int shim_wakeups(wait_queue_head_t *wq)
{
	unsigned int wakeups;

	pthread_mutex_lock(&wq->mutex);
	wakeups = wq->wakeups;
	pthread_mutex_unlock(&wq->mutex);
	return wakeups;
}

static inline void shim_wait(wait_queue_head_t *wq, unsigned int wakeups)
{
	pthread_mutex_lock(&wq->mutex);
	while (wq->wakeups == wakeups)
		pthread_cond_wait(&wq->cond, &wq->mutex);
	pthread_mutex_unlock(&wq->mutex);
}

/* The condition may take locks: none of ours is held while it is looked at */
#define wait_event(wq, condition)					\
	do {								\
		unsigned int _wakeups;					\
									\
		might_sleep();						\
		__atomic_add_fetch(&(wq).waiters, 1, __ATOMIC_SEQ_CST);	\
		for (;;) {						\
			_wakeups = shim_wakeups(&(wq));			\
			if (condition)					\
				break;					\
			shim_wait(&(wq), _wakeups);			\
		}							\
		__atomic_sub_fetch(&(wq).waiters, 1, __ATOMIC_SEQ_CST);	\
	} while (0)

struct completion {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	unsigned int done;
};

static inline void init_completion(struct completion *x)
{
	pthread_mutex_init(&x->mutex, NULL);
	pthread_cond_init(&x->cond, NULL);
	x->done = 0;
}

static inline void complete(struct completion *x)
{
	pthread_mutex_lock(&x->mutex);
	x->done++;
	pthread_cond_broadcast(&x->cond);
	pthread_mutex_unlock(&x->mutex);
}

static inline void wait_for_completion(struct completion *x)
{
	might_sleep();
	pthread_mutex_lock(&x->mutex);
	while (!x->done)
		pthread_cond_wait(&x->cond, &x->mutex);
	x->done--;
	pthread_mutex_unlock(&x->mutex);
}

/* A jiffy is a microsecond here, and nobody is ever killed */
#define MAX_SCHEDULE_TIMEOUT	LONG_MAX

static inline long
wait_for_completion_killable_timeout(struct completion *x, unsigned long timeout)
{
	struct timespec until;
	long left = 1;

	might_sleep();
	if (timeout == MAX_SCHEDULE_TIMEOUT) {
		wait_for_completion(x);
		return left;
	}
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += timeout % 1000000 * 1000;
	until.tv_sec += timeout / 1000000 + until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&x->mutex);
	while (!x->done && left)
		left = !pthread_cond_timedwait(&x->cond, &x->mutex, &until);
	if (x->done) {
		x->done--;
		left = 1;
	}
	pthread_mutex_unlock(&x->mutex);
	return left;
}

/* ---- SRCU: two counters a thread, as in the kernel two a CPU ---- */

#define SHIM_SLOTS	64

struct srcu_struct {
	pthread_mutex_t sync;			/* one grace period at a time */
	int idx;
	int readers[2][SHIM_SLOTS];
};

#define DEFINE_SRCU(name) \
	struct srcu_struct name = { .sync = PTHREAD_MUTEX_INITIALIZER }

#define DEFINE_STATIC_SRCU(name)	static DEFINE_SRCU(name)

extern __thread unsigned int shim_slot;

static inline int srcu_read_lock(struct srcu_struct *srcu)
{
	int idx = __atomic_load_n(&srcu->idx, __ATOMIC_RELAXED) & 1;

	shim_srcu_depth++;
	__atomic_add_fetch(&srcu->readers[idx][shim_slot % SHIM_SLOTS], 1,
			   __ATOMIC_SEQ_CST);
	return idx;
}

static inline void srcu_read_unlock(struct srcu_struct *srcu, int idx)
{
	__atomic_sub_fetch(&srcu->readers[idx][shim_slot % SHIM_SLOTS], 1,
			   __ATOMIC_RELEASE);
	shim_srcu_depth--;
}

#define srcu_read_lock_held(srcu)	(shim_srcu_depth > 0)

void synchronize_srcu(struct srcu_struct *srcu);
void call_srcu(struct srcu_struct *srcu, struct rcu_head *head,
	       void (*func)(struct rcu_head *head));
void srcu_barrier(struct srcu_struct *srcu);

/* ---- Lists ---- */

#include <linux/list.h>

#define hlist_next_shim(n, type, member) \
	hlist_entry_safe(rcu_dereference((n)->member.next), type, member)
#define hlist_for_each_entry_srcu(pos, head, member, cond)		\
	for (WARN_ON(!(cond)),						\
	     pos = hlist_entry_safe(rcu_dereference((head)->first),	\
				    typeof(*(pos)), member);		\
	     pos; pos = hlist_next_shim(pos, typeof(*(pos)), member))

static inline void hlist_add_head_rcu(struct hlist_node *n, struct hlist_head *h)
{
	struct hlist_node *first = h->first;

	n->next = first;
	WRITE_ONCE(n->pprev, &h->first);
	rcu_assign_pointer(h->first, n);
	if (first)
		WRITE_ONCE(first->pprev, &n->next);
}

/*
 * A release, where the kernel has WRITE_ONCE(): who finds the list without @n must
 * come after what its driver did before, by an unlock and a lock on this CPU, and
 * by a dependency there.
 */
static inline void hlist_del_init_rcu(struct hlist_node *n)
{
	if (hlist_unhashed(n))
		return;
	smp_store_release(n->pprev, n->next);
	if (n->next)
		WRITE_ONCE(n->next->pprev, n->pprev);
	WRITE_ONCE(n->pprev, NULL);
}

struct llist_node { struct llist_node *next; };
struct llist_head { struct llist_node *first; };

#define llist_entry(ptr, type, member)	container_of(ptr, type, member)
#define shim_llist(ptr, pos, member) \
	((ptr) ? llist_entry(ptr, typeof(*(pos)), member) : NULL)
#define llist_for_each_entry(pos, node, member)				\
	for (pos = shim_llist(node, pos, member); pos;			\
	     pos = shim_llist((pos)->member.next, pos, member))
#define llist_for_each_entry_safe(pos, n, node, member)			\
	for (pos = shim_llist(node, pos, member);			\
	     pos && ((n = shim_llist((pos)->member.next, n, member)), 1); \
	     pos = n)
#define llist_for_each(pos, node)					\
	for (pos = (node); pos; pos = (pos)->next)
#define llist_for_each_safe(pos, n, node)				\
	for (pos = (node); pos && ((n = (pos)->next), 1); pos = n)

static inline struct llist_node *llist_reverse_order(struct llist_node *head)
{
	struct llist_node *reversed = NULL, *next;

	for (; head; head = next) {
		next = head->next;
		head->next = reversed;
		reversed = head;
	}
	return reversed;
}

/* ---- Memory ---- */

#define GFP_KERNEL		0u
#define GFP_NOWAIT		1u

static inline void *kzalloc(size_t size, gfp_t gfp)
{
	if (gfp == GFP_KERNEL)
		might_sleep();
	return shim_inject() ? NULL : calloc(1, size);
}

static inline void kfree(const void *ptr)
{
	free((void *)ptr);
}

struct mmu_notifier_subscriptions;

/* @brackets stands for the locks of which mm_take_all_locks() takes all */
struct mm_struct {
	atomic_t mm_users;
	atomic_t mm_count;
	struct rw_semaphore mmap_lock;
	struct rw_semaphore brackets;
	struct mmu_notifier_subscriptions *notifier_subscriptions;
};

struct vm_area_struct { struct mm_struct *vm_mm; };

static inline void mmgrab(struct mm_struct *mm)
{
	atomic_inc(&mm->mm_count);
}

static inline void mmdrop(struct mm_struct *mm)
{
	if (atomic_dec_and_test(&mm->mm_count))
		__mmdrop(mm);
}

static inline bool mmget_not_zero(struct mm_struct *mm)
{
	return atomic_inc_not_zero(&mm->mm_users);
}

#define mmap_read_lock(mm)		down_read(&(mm)->mmap_lock)
#define mmap_read_unlock(mm)		up_read(&(mm)->mmap_lock)
#define mmap_write_lock(mm)		down_write(&(mm)->mmap_lock)
#define mmap_write_unlock(mm)		up_write(&(mm)->mmap_lock)
#define mmap_assert_write_locked(mm)	lockdep_assert_held(&(mm)->mmap_lock)

static inline int mm_take_all_locks(struct mm_struct *mm)
{
	mmap_assert_write_locked(mm);
	if (shim_inject())
		return -EINTR;
	down_write(&mm->brackets);
	return 0;
}

static inline void mm_drop_all_locks(struct mm_struct *mm)
{
	up_write(&mm->brackets);
}

/* ---- Trace events: arguments are compiled, not evaluated ---- */

static inline void shim_trace(int unused, ...)
{
}

#define SHIM_TRACE(...)							\
	do {								\
		if (0)							\
			shim_trace(0, ##__VA_ARGS__);			\
	} while (0)

#define trace_mmu_notifier_start(...)		SHIM_TRACE(__VA_ARGS__)
#define trace_mmu_notifier_end(...)		SHIM_TRACE(__VA_ARGS__)
#define trace_mmu_notifier_collision(...)	SHIM_TRACE(__VA_ARGS__)
#define trace_mmu_notifier_wait(...)		SHIM_TRACE(__VA_ARGS__)
#define trace_mmu_notifier_insert(...)		SHIM_TRACE(__VA_ARGS__)
#define trace_mmu_notifier_remove(...)		SHIM_TRACE(__VA_ARGS__)
#define trace_mmu_notifier_start_enabled()	false
#define trace_mmu_notifier_end_enabled()	false
#define trace_mmu_notifier_collision_enabled()	false
#define trace_mmu_notifier_wait_enabled()	false
#define trace_mmu_notifier_insert_enabled()	false
#define trace_mmu_notifier_remove_enabled()	false

#endif /* _MMU_NOTIFIER_SHIM_H */
