// SPDX-License-Identifier: GPL-2.0
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stats.h"

/* A row in which nothing was counted for so many samples goes: mms are reused */
#define IDLE_SAMPLES	10
/* Who has so many votes may still be outvoted soon, for the same reason */
#define MOST_VOTES	16

const char * const counter_names[NR_COUNTERS] = {
	[FAULTS]	= "faults",
	[PAGES]		= "pages",
	[COLLISIONS]	= "collisions",
	[WAITS]		= "waits",
	[WAIT_NS]	= "wait_ns",
	[BRACKETS]	= "brackets",
	[HITS]		= "hits",
	[MIGRATED]	= "migrated",
};

int counter_by_name(const char *name)
{
	int i;

	for (i = 0; i < NR_COUNTERS; i++)
		if (!strcmp(name, counter_names[i]))
			return i;
	return -1;
}

void counts_add(struct counts *to, const struct counts *from)
{
	int i;

	for (i = 0; i < NR_COUNTERS; i++)
		to->n[i] += from->n[i];
}

bool counts_any(const struct counts *counts)
{
	int i;

	for (i = 0; i < NR_COUNTERS; i++)
		if (counts->n[i])
			return true;
	return false;
}

static void no_memory(void)
{
	fputs("hmmtop: no memory\n", stderr);
	exit(1);
}

void *allocate(size_t nr, size_t size)
{
	void *memory = calloc(nr, size);

	if (!memory)
		no_memory();
	return memory;
}

/* The node that equals @key, or a copy of it that is one from now on */
static void *tree_get(void **tree, const void *key, size_t size,
		      int (*compare)(const void *, const void *))
{
	void **found = tfind(key, tree, compare);
	void *node;

	if (found)
		return *found;
	node = allocate(1, size);
	memcpy(node, key, size);
	if (!tsearch(node, tree, compare))
		no_memory();
	return node;
}

/* ---- Threads and processes ---- */

static int compare_threads(const void *a, const void *b)
{
	const struct thread *one = a, *other = b;

	return (one->pid > other->pid) - (one->pid < other->pid);
}

struct thread *stats_thread(struct stats *stats, int pid)
{
	struct thread key = { .pid = pid }, *thread;

	thread = tree_get(&stats->threads, &key, sizeof(key), compare_threads);
	if (!thread->tgid) {
		thread->tgid = pid;
		thread->gone = !stats->whose(thread);
	}
	thread->seen = stats->sample;
	return thread;
}

static struct process *new_process(struct stats *stats)
{
	struct process *process = allocate(1, sizeof(*process));
	struct process **all;

	all = reallocarray(stats->processes, stats->nr_processes + 1, sizeof(*all));
	if (!all)
		no_memory();
	stats->processes = all;
	all[stats->nr_processes++] = process;
	return process;
}

/*
 * Most of what happens to an address space its own threads do. So let each event
 * vote for the process of its thread, and one against another (Boyer and Moore).
 */
static void vote(struct stats *stats, struct process *process,
		 const struct thread *thread)
{
	if (thread->kernel || (thread->gone && process->tgid))
		return;
	if (process->tgid == thread->tgid) {
		if (process->votes < MOST_VOTES)
			process->votes++;
	} else if (process->votes) {
		process->votes--;
	} else {
		process->tgid = thread->tgid;
		process->votes = 1;
		stats->name(process->tgid, process->name);
	}
}

/* What no user thread has acted on yet bears the name of a kernel thread */
static void lend_name(struct stats *stats, struct process *process,
		      const struct thread *thread)
{
	if (!process->tgid && !process->name[0])
		stats->name(thread->tgid, process->name);
}

struct process *stats_process(struct stats *stats, uint64_t mm,
			      const struct thread *thread)
{
	struct process *process = NULL;
	size_t i;

	for (i = 0; i < stats->nr_processes && !process; i++) {
		struct process *other = stats->processes[i];

		if (mm ? other->mm == mm : other->tgid == thread->tgid)
			process = other;
	}
	if (!process) {
		process = new_process(stats);
		process->mm = mm;
		/* Without an mm it has to be found by this again */
		if (!mm) {
			process->tgid = thread->tgid;
			stats->name(process->tgid, process->name);
		}
	}
	process->seen = stats->sample;
	if (mm)
		vote(stats, process, thread);
	lend_name(stats, process, thread);
	return process;
}

/* ---- Counting ---- */

static int compare_blocks(const void *a, const void *b)
{
	const struct block *one = a, *other = b;

	if (one->process != other->process)
		return one->process < other->process ? -1 : 1;
	return (one->start > other->start) - (one->start < other->start);
}

void stats_count(struct process *process, enum counter counter, uint64_t n)
{
	process->counts.n[counter] += n;
}

static void count_block(struct stats *stats, struct process *process,
			uint64_t addr, enum counter counter, uint64_t n)
{
	struct block key = {
		.process = process, .start = addr & ~(stats->block_size - 1),
	};
	struct block *block;

	if (!n)
		return;
	block = tree_get(&stats->blocks, &key, sizeof(key), compare_blocks);
	block->counts.n[counter] += n;
}

void stats_count_at(struct stats *stats, struct process *process, uint64_t addr,
		    enum counter counter, uint64_t n)
{
	stats_count(process, counter, n);
	count_block(stats, process, addr, counter, n);
}

void stats_count_pages(struct stats *stats, struct process *process,
		       uint64_t addr, uint64_t pages)
{
	uint64_t here;

	stats_count(process, PAGES, pages);
	for (; pages; pages -= here, addr += here * stats->page_size) {
		here = stats->block_size - (addr & (stats->block_size - 1));
		here /= stats->page_size;
		if (here > pages)
			here = pages;
		count_block(stats, process, addr, PAGES, here);
	}
}

/* ---- Looking ---- */

struct counts stats_total(const struct stats *stats)
{
	struct counts total = {};
	size_t i;

	for (i = 0; i < stats->nr_processes; i++)
		counts_add(&total, &stats->processes[i]->counts);
	return total;
}

/* Most first; where that is equal, most of anything in the order of counters */
static int compare_counts(const struct counts *a, const struct counts *b,
			  enum counter by)
{
	int i;

	if (a->n[by] != b->n[by])
		return a->n[by] > b->n[by] ? -1 : 1;
	for (i = 0; i < NR_COUNTERS; i++)
		if (a->n[i] != b->n[i])
			return a->n[i] > b->n[i] ? -1 : 1;
	return 0;
}

static int process_order(const void *a, const void *b, void *by)
{
	const struct process *one = *(const struct process **)a;
	const struct process *other = *(const struct process **)b;
	int order = compare_counts(&one->counts, &other->counts,
				   *(enum counter *)by);

	return order ?: one->tgid - other->tgid;
}

static int block_order(const void *a, const void *b, void *by)
{
	const struct block *one = *(const struct block **)a;
	const struct block *other = *(const struct block **)b;
	int order = compare_counts(&one->counts, &other->counts,
				   *(enum counter *)by);

	return order ?: compare_blocks(one, other);
}

struct process **stats_processes(const struct stats *stats, enum counter by,
				 size_t *nr)
{
	struct process **rows = allocate(stats->nr_processes + 1, sizeof(*rows));
	size_t i;

	*nr = 0;
	for (i = 0; i < stats->nr_processes; i++)
		if (counts_any(&stats->processes[i]->counts))
			rows[(*nr)++] = stats->processes[i];
	qsort_r(rows, *nr, sizeof(*rows), process_order, &by);
	return rows;
}

struct gathered {
	struct block **blocks;
	size_t nr;
};

static void gather(const void *node, VISIT visit, void *arg)
{
	struct gathered *to = arg;

	if (visit != postorder && visit != leaf)
		return;
	if (to->blocks)
		to->blocks[to->nr] = *(struct block **)node;
	to->nr++;
}

struct block **stats_blocks(const struct stats *stats, enum counter by, size_t *nr)
{
	struct gathered all = {};

	twalk_r(stats->blocks, gather, &all);
	all.blocks = allocate(all.nr + 1, sizeof(*all.blocks));
	all.nr = 0;
	twalk_r(stats->blocks, gather, &all);
	qsort_r(all.blocks, all.nr, sizeof(*all.blocks), block_order, &by);
	*nr = all.nr;
	return all.blocks;
}

/* ---- The next sample ---- */

static void forget_processes(struct stats *stats)
{
	size_t i, kept = 0;

	for (i = 0; i < stats->nr_processes; i++) {
		struct process *process = stats->processes[i];

		memset(&process->counts, 0, sizeof(process->counts));
		if (stats->sample - process->seen < IDLE_SAMPLES)
			stats->processes[kept++] = process;
		else
			free(process);
	}
	stats->nr_processes = kept;
}

struct stale {
	struct thread **threads;
	size_t nr;
	uint64_t before;
};

static void gather_stale(const void *node, VISIT visit, void *arg)
{
	struct thread *thread = *(struct thread **)node;
	struct stale *stale = arg;

	if ((visit != postorder && visit != leaf) || thread->seen >= stale->before)
		return;
	if (stale->threads)
		stale->threads[stale->nr] = thread;
	stale->nr++;
}

/* Numbers of threads are reused, too */
static void forget_threads(struct stats *stats)
{
	struct stale stale = { .before = stats->sample };
	size_t i;

	twalk_r(stats->threads, gather_stale, &stale);
	stale.threads = allocate(stale.nr + 1, sizeof(*stale.threads));
	stale.nr = 0;
	twalk_r(stats->threads, gather_stale, &stale);
	for (i = 0; i < stale.nr; i++) {
		tdelete(stale.threads[i], &stats->threads, compare_threads);
		free(stale.threads[i]);
	}
	free(stale.threads);
}

void stats_next(struct stats *stats)
{
	tdestroy(stats->blocks, free);
	stats->blocks = NULL;
	forget_processes(stats);
	forget_threads(stats);
	stats->lost = 0;
	stats->sample++;
}

void stats_free(struct stats *stats)
{
	size_t i;

	tdestroy(stats->blocks, free);
	tdestroy(stats->threads, free);
	for (i = 0; i < stats->nr_processes; i++)
		free(stats->processes[i]);
	free(stats->processes);
	memset(stats, 0, sizeof(*stats));
}
