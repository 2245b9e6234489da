/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What is counted, and for whom.
 *
 * The events tell an address space by the address of its mm_struct, and a thread by
 * its number. People know processes. So there is one row for each address space, and
 * it bears the name of the process whose threads act on it most: others do too, be
 * it a driver's worker, or who reclaims memory.
 *
 * A sample is what was counted between two moments.
 */
#ifndef HMMTOP_STATS_H
#define HMMTOP_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NAME_LEN	16	/* as in the kernel */
#define NSEC_PER_SEC	1000000000ULL
#define ARRAY_LEN(a)	(sizeof(a) / sizeof((a)[0]))

enum counter {
	FAULTS,
	PAGES,
	COLLISIONS,
	WAITS,
	WAIT_NS,
	BRACKETS,
	HITS,
	MIGRATED,
	NR_COUNTERS
};

struct counts {
	unsigned long long n[NR_COUNTERS];
};

/* The names in a record, which is also what to sort by */
extern const char * const counter_names[NR_COUNTERS];
int counter_by_name(const char *name);

void counts_add(struct counts *to, const struct counts *from);
bool counts_any(const struct counts *counts);

struct thread {
	int pid;
	int tgid;
	bool kernel;		/* a thread of the kernel's: no process's */
	bool gone;		/* before anybody could ask whose it is */
	uint64_t bracket;	/* mm of the last bracket that it began */
	uint64_t migrates;	/* mm that it migrates pages of, if known */
	uint64_t seen;		/* in this sample */
};

struct process {
	uint64_t mm;		/* 0: has never been told */
	int tgid;		/* 0: has never been told */
	int votes;		/* for @tgid */
	uint64_t seen;
	char name[NAME_LEN];
	struct counts counts;
};

/* A naturally aligned part of an address space */
struct block {
	const struct process *process;
	uint64_t start;
	struct counts counts;
};

/* Find out whose thread @pid is; false if it is gone */
typedef bool (*whose_fn)(struct thread *thread);
/* And the name of a process */
typedef void (*name_fn)(int tgid, char *name);

struct stats {
	whose_fn whose;
	name_fn name;
	uint64_t block_size;
	uint64_t page_size;
	uint64_t sample;	/* number of the present one */
	unsigned long long lost;	/* events; at least so many */
	void *threads, *blocks;	/* trees of tsearch() */
	struct process **processes;
	size_t nr_processes;
};

struct thread *stats_thread(struct stats *stats, int pid);
/* Of an mm, or of a thread where an event tells none: then @mm is 0 */
struct process *stats_process(struct stats *stats, uint64_t mm,
			      const struct thread *thread);
void stats_count(struct process *process, enum counter counter, uint64_t n);
/* Also for the block that @addr lies in */
void stats_count_at(struct stats *stats, struct process *process, uint64_t addr,
		    enum counter counter, uint64_t n);
/* Pages, each for the block that it lies in */
void stats_count_pages(struct stats *stats, struct process *process,
		       uint64_t addr, uint64_t pages);

struct counts stats_total(const struct stats *stats);
/* Those that something was counted for, most of it first; free() the array */
struct process **stats_processes(const struct stats *stats, enum counter by,
				 size_t *nr);
struct block **stats_blocks(const struct stats *stats, enum counter by, size_t *nr);

/* The sample is over */
void stats_next(struct stats *stats);
void stats_free(struct stats *stats);

/* calloc() that does not fail */
void *allocate(size_t nr, size_t size);

#endif /* HMMTOP_STATS_H */
