/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Progress under a storm of invalidations: P2, P5, with weak fairness.
 *
 * What is modelled, by function of mm/mmu_notifier.c:
 *
 *	mn_record(), mn_walk_starts(),
 *	mn_unrecord()			storm: range A has a bracket in flight at
 *					any time, for ever, and never the same
 *	the same			stuck: a bracket over range C that never
 *					ends, nor does its callback
 *	mn_read_begin_wait()		reader, of A and of B, over and over
 *	mmu_interval_notifier_remove(),
 *	mmu_interval_notifier_insert()	owner, of A and of B, over and over
 *
 * Ranges are names that overlap if they are equal. The clock is not kept: all
 * that is done with it is to compare the stamp of a bracket with the horizon of a
 * reader, so @counted says of a bracket and a reader whether the bracket was on
 * the record when the reader came. That makes the model finite. Memory order and
 * the sequence values are in retry.pml.
 *
 * The property: who waits will be done, in spite of the storm (A: those in flight
 * at the call end) and of the bracket that never ends (A and B: it is elsewhere).
 * Asserted besides: a reader goes on only when no overlapping bracket that it met
 * is left.
 */

#define A	0
#define B	1
#define C	2

#define NB	3	/* brackets: two take turns in the storm, one is stuck */

/* Under subs->lock */
bool inflight[NB];
bool counted[NB * 2];	/* a bracket and a reader */
bool waiting[2];
byte pending[2];
bool completed[2];
bool in_tree[2];	/* the subscriptions of the owners */
byte running[NB];	/* the range of the subscription that is called */
bool awaited[NB];
bool asleep[2];

/* What the properties are about */
bool reads[2];
bool removes[2];

#define NONE		3
#define RANGE(b)	((b) == 2 -> C : A)
#define MET(b, r)	((b) * 2 + (r))

#ifdef TWIN_ALL_RANGES
#define COUNTS(b, r)	inflight[b]
#else
#define COUNTS(b, r)	(inflight[b] && RANGE(b) == r)
#endif
#define NR_INFLIGHT(r)	(COUNTS(0, r) + COUNTS(1, r) + COUNTS(2, r))

#ifdef TWIN_NO_WAKE
#define COMPLETE(r)	skip
#else
#define COMPLETE(r)	completed[r] = 1
#endif
#ifdef TWIN_NO_HORIZON
#define CONCERNS(b, r)	(RANGE(b) == r)
#else
#define CONCERNS(b, r)	(RANGE(b) == r && counted[MET(b, r)])
#endif

#define RELEASE_READER(b, r)					\
	if							\
	:: waiting[r] && CONCERNS(b, r) ->			\
		pending[r]--;					\
		if						\
		:: pending[r] == 0 -> waiting[r] = 0; COMPLETE(r)	\
		:: else						\
		fi						\
	:: else							\
	fi;							\
	counted[MET(b, r)] = 0

/* A newer bracket concerns no reader that waits already */
#ifdef TWIN_NEWER_COUNTS
#define COUNT_NEWER(b)						\
	if							\
	:: waiting[A] && RANGE(b) == A ->			\
		pending[A]++; counted[MET(b, A)] = 1		\
	:: else							\
	fi
#else
#define COUNT_NEWER(b)	skip
#endif

#define RECORD(b)						\
	d_step { inflight[b] = 1; COUNT_NEWER(b) };		\
	d_step {						\
		if						\
		:: RANGE(b) == A && in_tree[A] -> running[b] = A	\
		:: else						\
		fi						\
	};							\
	d_step {						\
		running[b] = NONE;				\
		if						\
		:: awaited[b] ->				\
			awaited[b] = 0; asleep[A] = 0; asleep[B] = 0	\
		:: else						\
		fi						\
	}
#define UNRECORD(b)						\
	d_step {						\
		inflight[b] = 0;				\
		RELEASE_READER(b, A);				\
		RELEASE_READER(b, B)				\
	}

proctype storm()
{
	RECORD(0);
	do
	:: RECORD(1);
		/* The newer may end first, and another come before the older ends */
		if
		:: UNRECORD(1); RECORD(1)
		:: true
		fi;
		UNRECORD(0);
		RECORD(0);
		UNRECORD(1)
	od
}

proctype stuck()
{
	d_step { inflight[2] = 1; running[2] = C };
	false
}

proctype reader(byte r)
{
	do
	:: d_step {
		reads[r] = 1;
		pending[r] = NR_INFLIGHT(r);
		counted[MET(0, r)] = inflight[0];
		counted[MET(1, r)] = inflight[1];
		counted[MET(2, r)] = inflight[2];
		waiting[r] = (pending[r] != 0);
		completed[r] = (pending[r] == 0)
	   };
#ifdef TWIN_WAIT_FOR_NONE
		/* Until nothing is in flight at all, anywhere */
		d_step { !inflight[0] && !inflight[1] && !inflight[2] -> skip };
#else
		completed[r];
#endif
		d_step {
			assert(!(RANGE(0) == r && counted[MET(0, r)]));
			assert(!(RANGE(1) == r && counted[MET(1, r)]));
			completed[r] = 0;
			counted[MET(0, r)] = 0;
			counted[MET(1, r)] = 0;
			counted[MET(2, r)] = 0;
			reads[r] = 0
		}
	od
}

#ifdef TWIN_REMOVE_WAITS
#define BUSY(b, o)	(inflight[b])
#elif defined(TWIN_REMOVE_ANY_WALK)
#define BUSY(b, o)	(running[b] != NONE)
#else
#define BUSY(b, o)	(running[b] == o)
#endif
#define UNCALLED(o)						\
	idle = !BUSY(0, o) && !BUSY(1, o) && !BUSY(2, o);	\
	awaited[0] = awaited[0] || BUSY(0, o);			\
	awaited[1] = awaited[1] || BUSY(1, o);			\
	awaited[2] = awaited[2] || BUSY(2, o)

proctype owner(byte o)
{
	bool idle;

	do
	:: d_step { in_tree[o] = 1 };
		d_step {
			removes[o] = 1;
			in_tree[o] = 0;
			UNCALLED(o)
		};
		do
		:: !idle ->
			asleep[o] = 1;
			d_step { UNCALLED(o) };
			if
			:: !idle -> !asleep[o]
			:: else -> asleep[o] = 0
			fi
		:: else -> break
		od;
		atomic { idle = 0; removes[o] = 0 }
	od
}

init {
	atomic {
		running[0] = NONE;
		running[1] = NONE;
		running[2] = NONE;
		run storm();
		run stuck();
		run reader(A);
		run reader(B);
		run owner(A);
		run owner(B)
	}
}

ltl all_done {
	([] (reads[A] -> <> !reads[A])) && ([] (reads[B] -> <> !reads[B])) &&
	([] (removes[A] -> <> !removes[A])) && ([] (removes[B] -> <> !removes[B]))
}
