// SPDX-License-Identifier: GPL-2.0
/*
 * A device on the memory of programs that know nothing of it.
 *
 * Preloaded with LD_PRELOAD, this gives each process of a program a thread more. It
 * opens the dummy device, goes over /proc/self/maps again and again, has the device
 * read what the process may read, and compares that with what a CPU finds there. It
 * may also move private memory to a device, and leave it to the program to get it
 * back. The environment says what is wanted:
 *
 *	HMM_PRELOAD_RECORD	file of counters, enum counter; there must be one. What
 *				is wrong is told, in words, in a file of this name
 *				and ".findings".
 *	HMM_PRELOAD_MIGRATE	minor of the device that memory goes to, if it is to go;
 *				without, device 0 reads
 *
 * A *pass* goes over the mappings once: over those that may be written, and every now
 * and then over all. The first is done before main(), the last after it has ended, so
 * that no program is too fast to be seen.
 *
 * Not to be seen
 *
 * The program is to do what it does without us. The thread blocks all signals, has a
 * table of open files of its own, allocates nothing and prints nothing. All that it
 * touches, its stack included, is in one mapping, the *arena*, which it leaves out. It
 * reads the process's memory by process_vm_readv(), which fails where a load would
 * end the process.
 *
 * What a finding is
 *
 * Memory changes while it is compared, and mappings go. A word counts as wrong if the
 * CPU found it the same before and after the device found it different, several times
 * in a row. What has gone meanwhile is no finding, nor is a refusal; errors that
 * nobody should see are.
 *
 * Nobody but the thread writes to the *canary*, some pages of the arena. There each
 * word is known, and the device may write, too.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <lib/test_hmm_uapi.h>

/* Pages compared or moved by one request. */
#define CHUNK_PAGES	32UL
#define CANARY_PAGES	8UL
#define STACK_BYTES	(256UL << 10)
#define MAPS_BYTES	(32UL << 10)

/* One pass in so many is over all that may be read. */
#define PASSES_ALL	8

/* How often in a row a word must be wrong, and how long to look for that. */
#define WRONG_TIMES	20
#define LOOKS		200
/* Findings that one process tells in words. */
#define WORDS_MOST	20
/* How long the last pass may take. Emulated machines are slow. */
#define LAST_SECONDS	120
#define NAP_NS		(2 * 1000 * 1000)

/* In this order in the record, 64 bits each. */
enum counter {
	PROCESSES,		/* that had a thread */
	PASSES,
	COMPARED,		/* pages found equal */
	MOVED,			/* pages that went to a device */
	RETRIES,		/* pages that had to be looked at again */
	UNSETTLED,		/* pages that changed too often to tell */
	REFUSED,		/* requests that the device did not serve */
	FINDINGS,
	COUNTERS,
};

/* One of these for each process; fork() copies it, but for the record. */
static struct {
	uint64_t *record;
	char findings_path[256];
	int migrate_to;		/* a minor, or -1: nowhere */
	size_t page_size;
	char *arena;
	size_t arena_size;
	char *stack;		/* of the thread */
	char *maps;		/* what was read of /proc/self/maps */
	char *seen;		/* CHUNK_PAGES of the device's */
	char *cpu;		/* CHUNK_PAGES of the CPU's */
	char *cpu_later;	/* one page */
	char *canary;		/* CANARY_PAGES */
	pthread_t thread;
	bool running;		/* there is a thread to wait for */
	bool last;		/* one pass more, and that is it */
	sem_t first;		/* posted after the first pass */
} me = { .migrate_to = -1 };

/* The thread's own files */
static int device_fd;
static int maps_fd;
static int findings_fd;
static int told;		/* findings */

static void count(enum counter what, uint64_t n)
{
	__atomic_fetch_add(&me.record[what], n, __ATOMIC_RELAXED);
}

static void nap(void)
{
	struct timespec ts = { .tv_nsec = NAP_NS };

	nanosleep(&ts, NULL);
}

/* ---- What is wrong ---- */

static void finding(const char *what, const void *addr, long is, long wanted)
{
	char line[200];
	int len;

	count(FINDINGS, 1);
	if (told++ >= WORDS_MOST)
		return;
	len = snprintf(line, sizeof(line), "%s[%d]: %p: %s: %#lx, not %#lx\n",
		       program_invocation_short_name, getpid(), addr, what, is,
		       wanted);
	if (len > (int)sizeof(line) - 1)
		len = sizeof(line) - 1;
	if (write(findings_fd, line, len) != len)
		told = WORDS_MOST;
}

/* ---- Reading, twice ---- */

/* Pages from @addr on that the CPU could read. */
static size_t cpu_read(char *addr, char *buf, size_t pages)
{
	struct iovec to = { buf, pages * me.page_size };
	struct iovec from = { addr, pages * me.page_size };
	ssize_t n = process_vm_readv(getpid(), &to, 1, &from, 1, 0);

	return n < 0 ? 0 : n / me.page_size;
}

/* May a request fail like this, in a process that changes its mappings? */
static bool refusal(int err, bool moving)
{
	switch (err) {
	case EFAULT:	/* no memory there, or none for devices */
	case EPERM:	/* memory that may not be read */
	case EBUSY:	/* it changes all the time */
	case ENOMEM:
	case EINTR:	/* the process is being killed, */
	case ESRCH:	/* or was */
		return true;
	case EINVAL:	/* memory that does not move, or has gone */
	case ENOENT:	/* the CPU had some of it back at once */
		return moving;
	}
	return false;
}

/* The request's count of pages, or -1. */
static long device(unsigned long request, char *addr, char *buf, size_t pages)
{
	struct hmm_dmirror_cmd cmd = {
		.addr = (uintptr_t)addr,
		.ptr = (uintptr_t)buf,
		.npages = pages,
	};

	if (!ioctl(device_fd, request, &cmd))
		return cmd.cpages;
	if (!refusal(errno, request == HMM_DMIRROR_MIGRATE_TO_DEV))
		finding("error of a request", addr, errno, 0);
	count(REFUSED, 1);
	return -1;
}

static bool device_read(char *addr, size_t pages)
{
	return device(HMM_DMIRROR_READ, addr, me.seen, pages) >= 0;
}

/* ---- Comparing ---- */

/*
 * The first word of a page that the CPU found the same in @cpu and @cpu_later, and the
 * device different in between. -1 if there is none.
 */
static long wrong_word(void)
{
	const long *before = (long *)me.cpu, *after = (long *)me.cpu_later;
	const long *between = (long *)me.seen;
	size_t i;

	for (i = 0; i < me.page_size / sizeof(long); i++)
		if (before[i] == after[i] && between[i] != before[i])
			return i;
	return -1;
}

/*
 * One page that differed: does it still? Where a word turns from one value to another
 * and back, each look may see the device in the middle; not the same word every time.
 */
static void settle(char *addr)
{
	int look, times = 0;
	long i, last = -1;

	count(RETRIES, 1);
	for (look = 0; look < LOOKS && times < WRONG_TIMES; look++) {
		if (!cpu_read(addr, me.cpu, 1) || !device_read(addr, 1) ||
		    !cpu_read(addr, me.cpu_later, 1))
			return;
		i = wrong_word();
		if (i < 0) {
			count(COMPARED, 1);
			return;
		}
		times = i == last ? times + 1 : 1;
		last = i;
		nap();
	}
	if (times < WRONG_TIMES)
		count(UNSETTLED, 1);
	else
		finding("the device reads", addr + last * sizeof(long),
			((long *)me.seen)[last], ((long *)me.cpu)[last]);
}

/* What the device has read, is that what is there? Settling uses the same buffers. */
static void compare_seen(char *addr, size_t pages)
{
	size_t i, n = cpu_read(addr, me.cpu, pages), page = me.page_size;
	bool differs[CHUNK_PAGES];

	for (i = 0; i < n; i++)
		differs[i] = !!memcmp(me.seen + i * page, me.cpu + i * page, page);
	for (i = 0; i < n; i++)
		if (differs[i])
			settle(addr + i * page);
		else
			count(COMPARED, 1);
}

static bool is_mapped(char *addr, size_t pages)
{
	unsigned char in_core[CHUNK_PAGES];

	return !mincore(addr, pages * me.page_size, in_core);
}

/* A page that cannot be read does not hide its neighbours. */
static void compare(char *addr, size_t pages)
{
	if (device_read(addr, pages)) {
		compare_seen(addr, pages);
	} else if (pages > 1 && is_mapped(addr, pages)) {
		compare(addr, pages / 2);
		compare(addr + pages / 2 * me.page_size, pages - pages / 2);
	}
}

/*
 * What moves is read by the device, not by the CPU: pages stay until the program
 * touches them, or the next pass compares.
 */
static void move(char *addr, size_t pages)
{
	long moved = device(HMM_DMIRROR_MIGRATE_TO_DEV, addr, me.seen, pages);

	if (moved > 0)
		count(MOVED, moved);
}

/* ---- The canary ---- */

static size_t canary_words(void)
{
	return CANARY_PAGES * me.page_size / sizeof(long);
}

static long canary_word(size_t i, long seed)
{
	return (i + 1) * 0x9e3779b97f4a7c15L ^ seed;
}

static void canary_fill(char *buf, long seed)
{
	size_t i;

	for (i = 0; i < canary_words(); i++)
		((long *)buf)[i] = canary_word(i, seed);
}

static void canary_check(const char *what, const char *buf, long seed)
{
	const long *words = (long *)buf;
	size_t i;

	for (i = 0; i < canary_words(); i++) {
		if (words[i] == canary_word(i, seed))
			continue;
		finding(what, me.canary + i * sizeof(long), words[i],
			canary_word(i, seed));
		return;
	}
}

/* Written by the CPU and the device in turn, and moved in between. */
static void canary_round(long seed)
{
	canary_fill(me.canary, seed);
	if (me.migrate_to >= 0) {
		move(me.canary, CANARY_PAGES);
		canary_check("moved memory", me.canary, seed);
		move(me.canary, CANARY_PAGES);
	}
	if (device_read(me.canary, CANARY_PAGES))
		canary_check("the device reads of the canary", me.seen, seed);
	canary_fill(me.seen, ~seed);
	if (device(HMM_DMIRROR_WRITE, me.canary, me.seen, CANARY_PAGES) < 0)
		return;
	canary_check("the device wrote to the canary", me.canary, ~seed);
}

/* ---- A pass ---- */

/* From @start to @end, but for the arena, which may lie within. */
static void sweep(char *start, char *end, void (*chunk)(char *addr, size_t pages))
{
	char *after = me.arena + me.arena_size, *addr, *stop;
	size_t pages;

	for (addr = start; addr < end; addr += pages * me.page_size) {
		if (addr >= me.arena && addr < after)
			addr = after;
		if (addr >= end)
			break;
		stop = addr < me.arena && me.arena < end ? me.arena : end;
		pages = (stop - addr) / me.page_size;
		if (pages > CHUNK_PAGES)
			pages = CHUNK_PAGES;
		chunk(addr, pages);
	}
}

/* Memory of the process, as opposed to the kernel's and of devices? */
static bool is_memory(const char *name)
{
	if (!strncmp(name, "[v", 2))
		return false;
	return strncmp(name, "/dev/", 5) || !strncmp(name, "/dev/shm/", 9) ||
	       !strncmp(name, "/dev/zero", 9);
}

/* Which mappings, and what is done to them. */
struct way {
	bool all;		/* or those that may be written alone */
	bool own;		/* those that no other process has */
	void (*chunk)(char *addr, size_t pages);
};

/* One line: start-end rwxp offset major:minor inode, and a name. */
static void mapping(char *line, const struct way *way)
{
	char *start, *end, *perms, *name;

	start = (char *)strtoul(line, &line, 16);
	end = (char *)strtoul(line + 1, &line, 16);
	perms = line + 1;
	name = strpbrk(perms, "/[");
	if (perms[0] != 'r' || (name && !is_memory(name)))
		return;
	if (perms[1] != 'w' && !way->all)
		return;
	if (perms[3] == 'p' || !way->own)
		sweep(start, end, way->chunk);
}

/* A read of this file ends with the end of a line. */
static void pass(const struct way *way)
{
	char *line, *newline;
	ssize_t n;

	lseek(maps_fd, 0, SEEK_SET);
	while ((n = read(maps_fd, me.maps, MAPS_BYTES - 1)) > 0) {
		me.maps[n] = 0;
		for (line = me.maps; *line; line = newline + 1) {
			newline = strchr(line, '\n');
			if (!newline)
				break;
			*newline = 0;
			mapping(line, way);
		}
	}
	count(PASSES, 1);
}

/* ---- The thread ---- */

static int device_open(int minor)
{
	char path[32];

	snprintf(path, sizeof(path), "/dev/hmm_dmirror%d", minor);
	return open(path, O_RDWR);
}

/* The program's files are not for us to keep open, nor ours for it to see. */
static bool files_open(void)
{
	findings_fd = -1;
	if (syscall(SYS_close_range, 0, ~0U, CLOSE_RANGE_UNSHARE))
		goto bad;
	findings_fd = open(me.findings_path, O_WRONLY | O_APPEND | O_CREAT, 0644);
	device_fd = device_open(me.migrate_to < 0 ? 0 : me.migrate_to);
	maps_fd = open("/proc/self/maps", O_RDONLY);
	if (findings_fd >= 0 && device_fd >= 0 && maps_fd >= 0)
		return true;
bad:
	finding("no files, error", NULL, errno, 0);
	return false;
}

/*
 * With a device to move to, a pass that moves is followed by one that compares, and
 * by comparing has it all back. A child of fork() has what its parent has, and often
 * little time: it begins with what may be written.
 */
static void *mirror(void *child)
{
	static const struct way moving = { .own = true, .chunk = move };
	struct way comparing = { .chunk = compare };
	long round, first = !!child;
	bool last = false;

	prctl(PR_SET_NAME, "hmm_preload");
	told = 0;
	last = !files_open();
	count(PROCESSES, 1);
	for (round = first; !last; round++) {
		last = __atomic_load_n(&me.last, __ATOMIC_ACQUIRE);
		if (me.migrate_to >= 0)
			pass(&moving);
		canary_round(round);
		comparing.all = round % PASSES_ALL == 0;
		pass(&comparing);
		if (round == first)
			sem_post(&me.first);
		nap();
	}
	sem_post(&me.first);
	return NULL;
}

static void start(void *child)
{
	pthread_attr_t attr;
	sigset_t all, old;

	me.last = false;
	sem_init(&me.first, 0, 0);
	pthread_attr_init(&attr);
	pthread_attr_setstack(&attr, me.stack, STACK_BYTES);
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	me.running = !pthread_create(&me.thread, &attr, mirror, child);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (!me.running)
		count(FINDINGS, 1);
}

static void forked(void)
{
	int saved = errno;

	start(&me);
	errno = saved;
}

/* ---- The beginning and the end ---- */

static bool record_open(const char *path)
{
	size_t size = COUNTERS * sizeof(*me.record);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

	if (fd < 0)
		return false;
	if (!ftruncate(fd, size))
		me.record = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return me.record && me.record != MAP_FAILED;
}

static bool arena_make(void)
{
	size_t chunk = CHUNK_PAGES * me.page_size;
	char *at;

	me.arena_size = STACK_BYTES + MAPS_BYTES + 2 * chunk + me.page_size +
			CANARY_PAGES * me.page_size;
	at = mmap(NULL, me.arena_size, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED)
		return false;
	me.arena = at;
	me.stack = at;
	me.maps = at + STACK_BYTES;
	me.seen = me.maps + MAPS_BYTES;
	me.cpu = me.seen + chunk;
	me.cpu_later = me.cpu + chunk;
	me.canary = me.cpu_later + me.page_size;
	return true;
}

static void __attribute__((constructor)) begin(void)
{
	const char *record = getenv("HMM_PRELOAD_RECORD");
	const char *minor = getenv("HMM_PRELOAD_MIGRATE");

	if (!record)
		return;
	me.page_size = sysconf(_SC_PAGESIZE);
	me.migrate_to = minor ? atoi(minor) : -1;
	snprintf(me.findings_path, sizeof(me.findings_path), "%s.findings", record);
	/* An allocator's handlers of fork() are to run before ours */
	free(malloc(1));
	if (!record_open(record) || !arena_make() ||
	    pthread_atfork(NULL, NULL, forked))
		abort();
	start(NULL);
	while (me.running && sem_wait(&me.first) && errno == EINTR)
		;
}

static void __attribute__((destructor)) end(void)
{
	struct timespec until;

	if (!me.running)
		return;
	__atomic_store_n(&me.last, true, __ATOMIC_RELEASE);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += LAST_SECONDS;
	if (pthread_timedjoin_np(me.thread, NULL, &until))
		count(FINDINGS, 1);
}
