/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of the fuzzer share: hmm_fuzz.c, which runs processes and threads and
 * reports; hmm_fuzz_model.c, what each thread knows of its memory; hmm_fuzz_mm.c and
 * hmm_fuzz_ops.c, what it does to it.
 *
 * A *value* stands for the contents of a page: all zeroes for 0, and for others a
 * pattern that has the value in the upper half of each word. No value is used twice
 * soon, and each tells who wrote it. A *cell* is what a page may hold: one value,
 * or several where nobody can tell yet. A *run* is some pages of an arena in a row.
 *
 * Who says nothing else returns whether the operation could be tried: there may be no
 * memory of the kind that it needs.
 */
#ifndef HMM_FUZZ_H
#define HMM_FUZZ_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "../kselftest.h"
#include "hmm_dev.h"

/* 3 MiB: always room for a huge page, and page tables shared with the neighbour. */
#define ARENA_PAGES	768
#define OBJECT_PAGES	256
/* Memory that all threads of a process work on. */
#define COMMONS_PAGES	8
/* For what is mapped for the length of one operation. */
#define SCRATCH_PAGES	16
#define MINORS		4
#define MAX_PROCESSES	8
#define MAX_THREADS	16
#define MAX_OPS		64

/* ---- The model ---- */

#define CELL_VALUES	4
struct cell {
	uint32_t value[CELL_VALUES];
	uint8_t n;		/* 0: anything may be there */
	bool lazy;		/* after MADV_FREE: may turn to zeroes until written */
};

enum page_kind {
	HOLE,			/* nothing mapped */
	ANON,
	SHARED,			/* shared and anonymous */
	FILED,			/* a private mapping of a file that never changes */
	OBJECT,			/* a shared mapping of the thread's own file */
	KINDS,
};

#define KIND(k)		(1U << (k))
#define PRIVATE		(KIND(ANON) | KIND(FILED))
#define MAPPED		(PRIVATE | KIND(SHARED) | KIND(OBJECT))

struct page {
	enum page_kind kind;
	int prot;
	struct cell own;	/* unless it is of the object */
	uint32_t origin;	/* FILED: what is there without a write; OBJECT: offset */
	unsigned int claim;	/* surely soft-dirty in epoch claim - 1; 0 for none */
};

struct span {
	unsigned int at, n;
};

/* ---- Threads ---- */

struct line {
	unsigned int seq;
	int op;
	unsigned int at, n;
	long what;
	int err;
};

#define LINES	24

/* In memory of all processes: what is left to tell when one of them is gone. */
struct log {
	unsigned int seq;
	struct line line[LINES];
	unsigned long done[MAX_OPS];	/* tried */
	unsigned long good[MAX_OPS];	/* and succeeded */
	unsigned int child_ready;
};

struct shared {
	unsigned int stop;		/* somebody has found something */
	unsigned int time_up;
	struct log log[MAX_PROCESSES * MAX_THREADS];
};

struct process {
	int number;
	int fd[MINORS];			/* of the devices, or -1 */
	int file;			/* for FILED */
	int pagemap;
	int clear_refs;
	unsigned int epoch;		/* odd while soft-dirty bits are being cleared */
	pthread_mutex_t clearing;
	char *commons;
	int nthreads;
	pthread_t thread[MAX_THREADS];
};

struct thread {
	struct process *process;
	int number;
	uint64_t state;			/* of the generator */
	uint32_t next_value;
	char *arena;
	struct page page[ARENA_PAGES];
	struct cell object[OBJECT_PAGES];
	int object_fd;
	char *scratch;
	char *buf;			/* ARENA_PAGES, for data */
	unsigned char *bytes;		/* as many, for snapshots */
	int fd, minor;			/* a file of its own on some device */
	uint64_t count[COMMONS_PAGES];	/* what it added to each of the commons */
	struct log *log;
	bool is_child;
};

extern struct shared *shared;
extern uint64_t fuzz_seed;

/* ---- hmm_fuzz.c ---- */

uint64_t draw(struct thread *t);
static inline unsigned int below(struct thread *t, unsigned int limit)
{
	return draw(t) % limit;
}

/* What the operation under way is about, and how it went. */
void note(struct thread *t, struct span run, long what);
void went(struct thread *t, int err);

/* Print what was found and the operations that led to it. The process ends. */
void __noreturn __printf(2, 3) finding(struct thread *t, const char *format, ...);

/* The operation failed as it may, or it is a finding. */
void want_errors(struct thread *t, int err, const int *errors, size_t n,
		 const char *where);
#define WANT(t, err, ...) do {						\
	const int errors_[] = { __VA_ARGS__ };				\
									\
	want_errors(t, err, errors_, ARRAY_LEN(errors_), __func__);	\
} while (0)

/* ---- hmm_fuzz_model.c ---- */

void page_fill(void *page, uint32_t value);
/* False if the page has not one value all over. */
bool page_value(const void *page, uint32_t *value);

void cell_set(struct cell *cell, uint32_t value);
void cell_add(struct cell *cell, uint32_t value);
bool cell_allows(const struct cell *cell, uint32_t value);
struct cell *cell_of(struct thread *t, unsigned int i);

uint32_t new_value(struct thread *t);
static inline char *page_at(const struct thread *t, unsigned int i)
{
	return t->arena + i * page_size;
}

/*
 * A run by chance, of at most @max pages: all of one of @kinds and with the access
 * @prot; if @alike of one kind and protection. False if none was found.
 */
bool pick(struct thread *t, struct span *run, unsigned int max, unsigned int kinds,
	  int prot, bool alike);
/* Of whatever is there. */
struct span pick_any(struct thread *t, unsigned int max);
/* First page of a run without the access; run.n if there is none. */
unsigned int first_without(struct thread *t, struct span run, int prot);

/* What was read from a run has to be what the model allows, and settles it. */
void check_data(struct thread *t, struct span run, const char *data, const char *who);
/* The same of another's memory: nothing is settled. */
void check_only(struct thread *t, struct span run, const char *data, const char *who);
/* New values for a run in t->buf, whatever becomes of them. */
void fill_buf(struct thread *t, unsigned int n, uint32_t *values);
/* All of a run was written, with soft-dirty bits as they were in @epoch. */
void run_written(struct thread *t, struct span run, const uint32_t *values,
		 unsigned int epoch);
/* Some of it may have been. */
void run_maybe_written(struct thread *t, struct span run, const uint32_t *values);
/* The mapping's own pages have gone: what is behind it shows. */
void run_dropped(struct thread *t, struct span run);
void run_unmapped(struct thread *t, struct span run);
void run_mapped(struct thread *t, struct span run, enum page_kind kind, int prot,
		unsigned int offset);
void run_moved(struct thread *t, struct span from, unsigned int to);
unsigned int epoch_now(struct thread *t);

#define FILE_VALUE(i)	(0xff000000U | (i))

/* ---- Operations ---- */

struct op {
	const char *name;
	bool (*run)(struct thread *t);
	unsigned int weight;
	bool may_fail;		/* a machine may be unable to do it, ever */
};

extern const struct op mm_ops[], device_ops[];
extern const size_t nr_mm_ops, nr_device_ops;

/* A device by chance: its file, of the process or of the thread, and its minor. */
int any_device(struct thread *t, int *minor);
/* A request; what it says of the run is checked, and an error against the model. */
int device_read(struct thread *t, int fd, struct span run);
int device_write(struct thread *t, int fd, struct span run);
int device_snapshot(struct thread *t, int fd, int minor, struct span run);
int device_take(struct thread *t, int fd, struct span run);
int device_give_back(struct thread *t, int fd, struct span run);
int device_exclusive(struct thread *t, int fd, struct span run);
void cpu_check(struct thread *t, struct span run);
void cpu_write(struct thread *t, struct span run);

#endif /* HMM_FUZZ_H */
