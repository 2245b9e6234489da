/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Collision-retry under weak memory order: P1, P2.
 *
 * What is modelled, by function of mm/mmu_notifier.c:
 *
 *	mn_record()		RECORD, the bracket's first step
 *	the callback		CALLBACK, of two kinds of driver: set_seq inside
 *				the driver's lock, or before it is taken
 *	the change		STORE_PTE; a bracket may also change nothing
 *	mn_unrecord(),
 *	mn_release_readers()	UNRECORD
 *	mmu_interval_read_begin()  the two loads of the reader
 *	mn_read_begin_wait()	SAMPLE, the wait, RESAMPLE
 *	mmu_interval_read_retry()  CHECK, under the driver's lock
 *
 * mn_spin() is not there: what it sees without the lock it believes only after it
 * has taken the lock, as after the completion.
 *
 * P1, the device has no entry from before an invalidation that has ended: @floor
 * is the newest page-table entry that an ended bracket left. The device's entry
 * is none or not older. Asserted wherever the one or the other changes.
 * P2, every waiter wakes: no invalid end state.
 *
 * Memory. Three locations are accessed outside of locks: ini->seq, the head of
 * subs->inflight, and the page-table entry. Each is the list of all values ever
 * stored to it, in coherence order. A thread has a view: for each location the
 * oldest value that it may still load. It loads any from there on, and its view
 * moves up. A store adds a value; if it is a release the value carries the
 * storer's view, and whoever loads it by an acquire joins that to its own. A
 * lock and a completion carry views in the same way. This is the operational
 * release-acquire semantics, weaker than the kernel's memory model: an unlock
 * followed by a lock orders nothing for third parties, and there is no order by
 * dependency. It has no reordering of a load with a later store: a load of value
 * that is stored only after it; the code has only acquires where that matters.
 * The reader loads the page-table entry without the page-table lock.
 *
 * A critical section is one step. That loses nothing: the data that it guards
 * are not touched outside, and each section has at most one access to the three
 * locations, at which it can be thought to happen as a whole.
 *
 * The record is a list whose head only the oldest bracket owns: a bracket that
 * comes to others, or leaves from behind them, does not store to the head.
 *
 * All brackets overlap the subscription; progress.pml has those that do not.
 */

/* Brackets of the first invalidator, one after the other; the second has one */
#ifndef ROUNDS
#define ROUNDS	1
#endif
#define NINV	2
#ifndef NREADERS
#define NREADERS 2
#endif
#define NTHREADS (NINV + NREADERS)

#define SEQ	0	/* ini->seq */
#define INF	1	/* subs->inflight.next: 0 is the empty list */
#define PTE	2	/* the page-table entry: its version */
#define NMSG	(1 + 2 * (ROUNDS + 1))

typedef view { byte at[3] }
typedef message { byte value; byte carries[3] }
typedef location { byte last; message m[NMSG] }

location mem[3];
view thread[NTHREADS];
view subs_lock, driver_lock, done_view[NREADERS];

#define MAX(a, b)	((a) < (b) -> (b) : (a))
#define JOIN(v, w)						\
	v[0] = MAX(v[0], w[0]);					\
	v[1] = MAX(v[1], w[1]);					\
	v[2] = MAX(v[2], w[2])
#define VIEW		thread[me].at
#define LOCK(l)		JOIN(VIEW, l.at)
#define UNLOCK(l)	JOIN(l.at, VIEW)
#define MSG(l, i)	mem[l].m[i]
#define LAST(l)		MSG(l, mem[l].last)

/* To be used inside atomic; @t is the thread's scratch variable */
#define PICK(l)							\
	t = VIEW[l];						\
	do							\
	:: t < mem[l].last -> t++				\
	:: break						\
	od;							\
	VIEW[l] = t

#define LOAD_RELAXED(l, var)					\
	PICK(l); var = MSG(l, t).value; t = 0
#define LOAD_ACQUIRE(l, var)					\
	PICK(l); var = MSG(l, t).value;				\
	JOIN(VIEW, MSG(l, t).carries); t = 0

#define STORE(l, val)						\
	mem[l].last++;						\
	LAST(l).value = val;					\
	VIEW[l] = mem[l].last;					\
	LAST(l).carries[l] = mem[l].last
#define STORE_RELAXED(l, val)	STORE(l, val)
#define STORE_RELEASE(l, val)	STORE(l, val); JOIN(LAST(l).carries, VIEW)

/* What the twins change, a line each */
#ifdef TWIN_SET_SEQ_RELAXED
#define SET_SEQ(val)	STORE_RELAXED(SEQ, val)
#else
#define SET_SEQ(val)	STORE_RELEASE(SEQ, val)
#endif
#ifdef TWIN_UNRECORD_RELAXED
#define STORE_UNRECORD(val)	STORE_RELAXED(INF, val)
#else
#define STORE_UNRECORD(val)	STORE_RELEASE(INF, val)
#endif
#ifdef TWIN_FIRST_RELAXED
#define LOAD_FIRST(l, var)	LOAD_RELAXED(l, var)
#else
#define LOAD_FIRST(l, var)	LOAD_ACQUIRE(l, var)
#endif
#ifdef TWIN_SECOND_RELAXED
#define LOAD_SECOND(l, var)	LOAD_RELAXED(l, var)
#else
#define LOAD_SECOND(l, var)	LOAD_ACQUIRE(l, var)
#endif

/* Under subs->lock */
byte clock;
byte nr_inflight;
byte inflight[NINV];	/* the invalidators, oldest first */
byte range_seq[NINV];
bool waiting[NREADERS];
byte horizon[NREADERS];
byte pending[NREADERS];
bool done[NREADERS];

byte dev;		/* the device's entry, 0: none; under the driver's lock */
byte floor;		/* of P1 */

#define P1_HOLDS	(dev == 0 || dev >= floor)

#define RELEASE_READER(r)					\
	if							\
	:: waiting[r] && RELEASES(r) ->				\
		pending[r]--;					\
		if						\
		:: pending[r] == 0 ->				\
			waiting[r] = 0;				\
			COMPLETE(r)				\
		:: else						\
		fi						\
	:: else							\
	fi
#define RELEASES(r)	(range_seq[me] <= horizon[r])
#ifdef TWIN_NO_WAKE
#define COMPLETE(r)	skip
#else
#define COMPLETE(r)	done[r] = 1; JOIN(done_view[r].at, VIEW)
#endif

#define RECORD							\
	d_step {						\
		LOCK(subs_lock);				\
		clock++;					\
		range_seq[me] = clock;				\
		inflight[nr_inflight] = me;			\
		nr_inflight++;					\
		if						\
		:: nr_inflight == 1 -> STORE_RELAXED(INF, 1)	\
		:: else						\
		fi;						\
		UNLOCK(subs_lock)				\
	}

#define CALLBACK						\
	if							\
	:: d_step {						\
		LOCK(driver_lock);				\
		SET_SEQ(range_seq[me]);				\
		dev = 0;					\
		UNLOCK(driver_lock)				\
	   }							\
	:: d_step { SET_SEQ(range_seq[me]) };			\
	   d_step {						\
		LOCK(driver_lock);				\
		dev = 0;					\
		UNLOCK(driver_lock)				\
	   }							\
	fi

proctype invalidator(byte me)
{
	byte round;

	do
	:: round < (me == 0 -> ROUNDS : 1) ->
#ifdef TWIN_RECORD_LATE
		d_step { range_seq[me] = clock + 1 };
		CALLBACK;
		RECORD;
#else
		RECORD;
		CALLBACK;
#endif
		/* Versions count from 1: 0 in the device is no entry */
		if
		:: d_step {
			STORE_RELAXED(PTE, mem[PTE].last + 1)
		   }
		:: true
		fi;
		/* UNRECORD */
		d_step {
			LOCK(subs_lock);
			nr_inflight--;
			if
			:: inflight[0] == me ->
				inflight[0] = inflight[1];
				STORE_UNRECORD(nr_inflight)
			:: else
			fi;
			inflight[1] = 0;
			RELEASE_READER(0);
#if NREADERS > 1
			RELEASE_READER(1);
#endif
			UNLOCK(subs_lock);
		}
		d_step {
			/* The bracket has ended */
			floor = MAX(floor, MSG(PTE, VIEW[PTE]).value);
			assert(P1_HOLDS);
			round++
		}
	:: else -> break
	od
}

proctype reader(byte r)
{
	byte seq, now, pte, t;
	byte me = NINV + r;

again:
#ifdef TWIN_SWAPPED
	atomic { LOAD_SECOND(INF, now) };
	atomic { LOAD_FIRST(SEQ, seq) };
#else
	atomic { LOAD_FIRST(SEQ, seq) };
	atomic { LOAD_SECOND(INF, now) };
#endif
	if
	:: now ->
		/* SAMPLE */
		atomic {
			LOCK(subs_lock);
			LOAD_RELAXED(SEQ, seq);
			horizon[r] = clock;
			pending[r] = nr_inflight;
			now = (nr_inflight != 0);
			waiting[r] = now;
			UNLOCK(subs_lock)
		};
		if
		:: now ->
			d_step {
				done[r] ->
				done[r] = 0;
				JOIN(VIEW, done_view[r].at)
			};
			/* RESAMPLE */
			atomic {
				LOCK(subs_lock);
				if
#ifdef TWIN_RESAMPLE
				:: true ->
#else
				:: nr_inflight == 0 ->
#endif
					LOAD_RELAXED(SEQ, seq)
				:: else
				fi;
				UNLOCK(subs_lock)
			}
		:: else
		fi
	:: else
	fi;
	now = 0;
	atomic { LOAD_RELAXED(PTE, pte) };
#ifdef TWIN_CHECK_UNLOCKED
	atomic { LOAD_RELAXED(SEQ, now) };
#endif
	/* CHECK: the driver's lock, read_retry, the device's page table */
	atomic {
		LOCK(driver_lock);
#ifndef TWIN_CHECK_UNLOCKED
		LOAD_RELAXED(SEQ, now);
#endif
		if
		:: now == seq ->
			dev = pte;
			now = 0;
			seq = 0;
			pte = 0;
			horizon[r] = 0;
			UNLOCK(driver_lock)
		:: else ->
			now = 0;
			seq = 0;
			pte = 0;
			horizon[r] = 0;
			UNLOCK(driver_lock);
			goto again
		fi;
		assert(P1_HOLDS)
	}
}

init {
	byte i;

	atomic {
		MSG(PTE, 0).value = 1;
		floor = 1;
		do
		:: i < NINV -> run invalidator(i); i++
		:: else -> break
		od;
		i = 0;
		do
		:: i < NREADERS -> run reader(i); i++
		:: else -> break
		od;
		i = 0
	}
}
