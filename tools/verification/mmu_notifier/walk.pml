/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Walks over the interval subscriptions, with insert and remove: P2, P3, P4.
 *
 * What is modelled, by function of mm/mmu_notifier.c:
 *
 *	mn_itree_start(), mn_walk()		walker
 *	mn_next(), mn_next_sorted()		STEP
 *	mn_walk_starts()			the first loop of walker
 *	mn_walk_finishes()			the second loop
 *	mn_call_over()				OVER
 *	mn_call_only()				@only, in the first loop
 *	mn_only_call_over()			ONLY_OVER
 *	mn_walk_call_start()			LINK_FINISH
 *	mn_calls_over()				UNCALLED
 *	mmu_interval_notifier_remove(),
 *	mn_remove_from_walks()			REMOVE
 *	mn_walks_skip()				SKIP
 *	mn_interval_link()			INSERT
 *
 * One walk or two at once. The bracket of one is not blockable and may be refused
 * by any subscription. Each subscription leaves a finish or not. Three
 * subscriptions, in the order of the tree; those at the ends belong to one owner
 * and the middle one to another, or all to one. An owner takes one of its own, in
 * the tree or not, and removes and inserts it, in the order that this allows.
 *
 * All that is shared is guarded by subs->lock, so a critical section is one step,
 * and no weak order can be seen. The one exception is the end of an only call: its
 * two steps, the count and the queue of those who wait, are fully ordered in the
 * code and may have others between them. A removed object is freed memory:
 * whoever touches it fails an assertion.
 *
 * P2: a remover that sleeps on is an invalid end state. P3 and P4 are asserted;
 * @present is the set of subscriptions that a bracket has to call: those there at
 * its start and not removed since.
 */

#define N	3	/* subscriptions */
#define W	2	/* walks */
#define NONE	N

#ifndef WALKS
#define WALKS	1
#endif
#ifndef OWNERS
#define OWNERS	1
#endif

/* Under subs->lock */
byte clock;
bool in_tree[N];
byte born[N];
bool walking[W];
byte range_seq[W];
byte cursor[W];
byte calls[N];
byte only_calls[N];
bool asleep[2];		/* the owners, on subs->removers */

/* Private to a walk: the head; one finish for a walk and a subscription */
byte finishes[W];
byte next_finish[W * N];

/* What must be true; no part of the code */
bool alive[N];
bool present[W * N];
byte called[W * N];
bool owes[W * N];	/* a finish */
byte inside[W];		/* whose callback runs */

#define AT(w, s)	((w) * N + (s))

#ifdef TWIN_NO_BORN
#define IS_YOUNGER(w, s)	false
#else
#define IS_YOUNGER(w, s)	(born[s] > range_seq[w])
#endif

/* @w is the walk; the cursor moves on to the next one that is called */
#define STEP(w)								\
	assert(in_tree[cursor[w]] && alive[cursor[w]]);			\
	cursor[w]++;							\
	do								\
	:: cursor[w] < N && !in_tree[cursor[w]] -> cursor[w]++		\
	:: cursor[w] < N && in_tree[cursor[w]] &&			\
	   IS_YOUNGER(w, cursor[w]) -> cursor[w]++				\
	:: else -> break						\
	od

#ifdef TWIN_NO_WAKE
#define WAKE		skip
#else
#define WAKE		asleep[0] = 0; asleep[1] = 0
#endif

/* The call on @s is over; who removed it meanwhile may be waiting */
#ifdef TWIN_WAKE_IN_TREE
#define GONE(s)		in_tree[s]
#else
#define GONE(s)		(!in_tree[s])
#endif
#define OVER								\
	assert(calls[s] > 0);						\
	calls[s]--;							\
	if								\
	:: GONE(s) -> WAKE						\
	:: else								\
	fi

/* Without the lock: who wakes nobody has looked when nobody was there */
#ifdef TWIN_ONLY_LOOK_FIRST
#define LOOK_EARLY	some = asleep[0] || asleep[1]
#define LOOK		skip
#else
#define LOOK_EARLY	skip
#define LOOK		some = asleep[0] || asleep[1]
#endif
#ifdef TWIN_ONLY_TOUCHES
#define TOUCH		assert(alive[s])
#else
#define TOUCH		skip
#endif
#define ONLY_OVER							\
	LOOK_EARLY;							\
	d_step {							\
		assert(only_calls[s] > 0);				\
		only_calls[s]--;					\
		idle = (only_calls[s] == 0)				\
	};								\
	TOUCH;								\
	LOOK;								\
	d_step {							\
		if							\
		:: idle && some -> WAKE					\
		:: else							\
		fi;							\
		idle = 0;						\
		some = 0						\
	}

#define LINK_FINISH							\
	next_finish[AT(w, s)] = finishes[w];				\
	finishes[w] = s;						\
	owes[AT(w, s)] = 1

/* Order of the finishes: nobody before @s in the tree still owes one */
#define IN_ORDER							\
	((s == 0 || !owes[AT(w, 0)]) && (s < 2 || !owes[AT(w, 1)]))

#define REVERSE								\
	s = NONE;							\
	do								\
	:: finishes[w] != NONE ->					\
		t = next_finish[AT(w, finishes[w])];			\
		next_finish[AT(w, finishes[w])] = s;			\
		s = finishes[w];					\
		finishes[w] = t						\
	:: else -> break						\
	od;								\
	finishes[w] = s;						\
	t = 0

#ifdef TWIN_FINISH_EARLY
#define MORE_STARTS	(cursor[w] != NONE && finishes[w] == NONE)
#else
#define MORE_STARTS	(cursor[w] != NONE)
#endif

proctype walker(byte w)
{
	byte s, t;
	bool refused, first, only, idle, some;

	d_step {
		first = 1;
		/* mn_record(), mn_first() */
		clock++;
		range_seq[w] = clock;
		walking[w] = 1;
		present[AT(w, 0)] = in_tree[0];
		present[AT(w, 1)] = in_tree[1];
		present[AT(w, 2)] = in_tree[2];
		cursor[w] = (in_tree[0] -> 0 : (in_tree[1] -> 1 :
			     (in_tree[2] -> 2 : NONE)))
	}
	do
	:: atomic {
		!refused && MORE_STARTS ->
			s = cursor[w];
			STEP(w);
			/* It stays off the list of walks: no cursor */
			only = (first && cursor[w] == NONE);
			walking[w] = !only;
			first = 0;
			if
			:: only -> only_calls[s]++
			:: else -> calls[s]++
			fi;
			inside[w] = s;
			/* P4: only whom it should, and once */
			assert(alive[s] && present[AT(w, s)]);
			assert(called[AT(w, s)] == 0);
			called[AT(w, s)]++
	   };
		/* invalidate_start() returns */
		if
		:: only ->
			atomic {
				/* invalidate_finish() included, if it has one */
				assert(alive[s]);
				inside[w] = NONE;
				if
				:: w == 1 -> refused = 1
				:: true
				fi;
				only = 0
			};
			ONLY_OVER
		:: !only -> d_step {
			assert(alive[s]);
			inside[w] = NONE;
			LINK_FINISH;
#ifdef TWIN_FINISH_UNCOUNTED
			OVER
#endif
		   }
		:: !only -> d_step { assert(alive[s]); inside[w] = NONE; OVER }
		:: !only && w == 1 ->
			d_step {
				assert(alive[s]);
				inside[w] = NONE;
				refused = 1;
				OVER
			}
		fi;
		s = 0
	:: else -> break
	od;
	atomic {
#ifndef TWIN_NO_REVERSE
		REVERSE;
#endif
		s = 0
	}
	do
	:: atomic {
		finishes[w] != NONE ->
			s = finishes[w];
			finishes[w] = next_finish[AT(w, s)];
			next_finish[AT(w, s)] = 0;
			inside[w] = s;
			/* P4: after all starts, in their order, once */
			assert(refused || cursor[w] == NONE);
			assert(owes[AT(w, s)] && IN_ORDER);
			assert(alive[s]);
#ifdef TWIN_OVER_EARLY
			OVER;
#endif
			owes[AT(w, s)] = 0
	   };
		d_step {
			assert(alive[s]);
			inside[w] = NONE;
#if !defined(TWIN_FINISH_UNCOUNTED) && !defined(TWIN_OVER_EARLY)
			OVER
#endif
		};
		s = 0
	:: else -> break
	od;
	atomic {
		/* P4: all whom it should; each finish */
		s = 0;
		do
		:: s < N ->
			assert(refused || !present[AT(w, s)] ||
			       called[AT(w, s)] == 1);
			assert(!owes[AT(w, s)]);
			present[AT(w, s)] = 0;
			called[AT(w, s)] = 0;
			s++
		:: else -> break
		od;
		s = 0;
		refused = 0;
		first = 0;
		cursor[w] = NONE;
		walking[w] = 0
	}
}

#ifdef TWIN_NO_WAIT
#define UNCALLED	idle = 1
#else
#define UNCALLED	idle = (calls[s] == 0 && only_calls[s] == 0)
#endif

#ifdef TWIN_NO_SKIP
#define SKIP(w)		skip
#else
#define SKIP(w)								\
	if								\
	:: walking[w] && cursor[w] == s -> STEP(w)			\
	:: else								\
	fi
#endif

#if WALKS > 1
#define SKIP_FIRST	SKIP(0)
#else
#define SKIP_FIRST	skip
#endif

#ifdef TWIN_ONLY_FORGOTTEN
#define AT_ONCE		(!walking[0] && !walking[1])
#else
#define AT_ONCE		(!walking[0] && !walking[1] && only_calls[s] == 0)
#endif

#define REMOVE								\
	atomic {							\
		if							\
		:: AT_ONCE ->						\
			/* Who is in a call of a walk is in a walk */	\
			assert(calls[s] == 0);				\
			idle = 1					\
		:: else ->						\
			SKIP_FIRST;					\
			SKIP(1)						\
		fi;							\
		in_tree[s] = 0;						\
		present[AT(0, s)] = 0;					\
		present[AT(1, s)] = 0					\
	};								\
	do								\
	:: !idle ->							\
		d_step { UNCALLED };					\
		if							\
		:: !idle -> WAIT					\
		:: else							\
		fi							\
	:: else -> break						\
	od;								\
	atomic {							\
		/* P3 */						\
		assert(inside[0] != s && inside[1] != s);		\
		assert(!owes[AT(0, s)] && !owes[AT(1, s)]);		\
		alive[s] = 0;						\
		born[s] = 0;						\
		idle = 0						\
	}

/* wait_event(): on the queue first, then look once more */
#ifdef TWIN_LOOK_FIRST
#define WAIT								\
	d_step { UNCALLED };						\
	if								\
	:: !idle -> asleep[o] = 1; !asleep[o]				\
	:: else								\
	fi
#else
#define WAIT								\
	asleep[o] = 1;							\
	d_step { UNCALLED };						\
	if								\
	:: !idle -> !asleep[o]						\
	:: else -> asleep[o] = 0					\
	fi
#endif

#define INSERT								\
	d_step {							\
		clock++;						\
		born[s] = clock;					\
		alive[s] = 1;						\
		in_tree[s] = 1						\
	}

proctype owner(byte o)
{
	byte s;
	bool idle;

	if
	:: o == 0 -> s = 0
	:: o == 0 -> s = 2
	:: o == OWNERS - 1 -> s = 1
	fi;
	if
	:: in_tree[s] -> REMOVE; INSERT
	:: else -> INSERT; REMOVE
	fi
}

init {
	byte i;

	atomic {
		do
		:: i < N ->
			if
			:: clock++; born[i] = clock; alive[i] = 1; in_tree[i] = 1
			:: true
			fi;
			i++
		:: else -> break
		od;
		i = 0;
		clock = N;
		do
		:: i < W ->
			cursor[i] = NONE;
			finishes[i] = NONE;
			inside[i] = NONE;
			i++
		:: else -> break
		od;
		i = 0;
		run walker(1);
		run owner(0);
#if WALKS > 1
		run walker(0);
#endif
#if OWNERS > 1
		run owner(1)
#endif
	}
}
