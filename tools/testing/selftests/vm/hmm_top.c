// SPDX-License-Identifier: GPL-2.0
/*
 * Does hmmtop count what happened? Each test lets it watch, has a device work on its
 * memory, and compares. What depends on luck it compares with the counters of perf,
 * which come from the same tracepoints by another way.
 */
#include <libgen.h>
#include <limits.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "hmm_dev.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT DEV_TIMEOUT

#define PAGES		64
#define CHANGES		10
#define RACE_SECONDS	2.0
#define MOST_CPUS	16
#define EVENTS		"/sys/kernel/tracing/events/"

/* The columns of a record, behind the name. */
struct sums {
	unsigned long long faults, pages, collisions, waits, wait_ns, brackets;
	unsigned long long hits, migrated, lost;
};

struct counter {
	int fds[MOST_CPUS];
	int cpus;
};

enum { COLLISIONS, WAITS, BRACKETS, HITS, NR_COUNTERS };

static const char * const ids[NR_COUNTERS] = {
	[COLLISIONS]	= EVENTS "hmm/hmm_collision/id",
	[WAITS]		= EVENTS "mmu_notifier/mmu_notifier_wait/id",
	[BRACKETS]	= EVENTS "mmu_notifier/mmu_notifier_start/id",
	[HITS]		= EVENTS "mmu_notifier/mmu_notifier_collision/id",
};

/* Where hmmtop is, what it writes to, and its process, if it runs. */
struct watcher {
	char program[PATH_MAX];
	char record[64];
	pid_t pid;
};

FIXTURE(top)
{
	int device;
	struct counter counters[NR_COUNTERS];
	struct watcher watcher;
	char *at;
	char *buf;
};

/*
 * Of each CPU, whatever runs there: nobody else has a device at work. To count for one
 * process perf would patch the scheduler, see watch_with().
 */
static bool counter_open(struct counter *counter, const char *path)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_TRACEPOINT,
		.size = sizeof(attr),
		.config = read_number(path),
		.disabled = 1,
	};
	int cpu;

	counter->cpus = sysconf(_SC_NPROCESSORS_ONLN);
	if (counter->cpus > MOST_CPUS)
		return false;
	for (cpu = 0; cpu < counter->cpus; cpu++) {
		counter->fds[cpu] = syscall(SYS_perf_event_open, &attr, -1, cpu, -1, 0);
		if (counter->fds[cpu] < 0)
			return false;
	}
	return true;
}

FIXTURE_SETUP(top)
{
	struct watcher *watcher = &self->watcher;
	char self_path[PATH_MAX] = "";
	int i;

	self->device = dev_open(0);
	if (readlink("/proc/self/exe", self_path, sizeof(self_path) - 1) < 0)
		self_path[0] = 0;
	snprintf(watcher->program, sizeof(watcher->program), "%.4000s/hmmtop",
		 dirname(self_path));
	if (access(watcher->program, X_OK))
		SKIP(return, "no hmmtop beside this: it needs libtracefs");
	snprintf(watcher->record, sizeof(watcher->record), "/tmp/hmm_top.%d", getpid());
	for (i = 0; i < NR_COUNTERS; i++)
		ASSERT_TRUE(counter_open(&self->counters[i], ids[i]));
	self->at = map_small(PAGES * page_size);
	self->buf = buffer(PAGES * page_size);
}

FIXTURE_TEARDOWN(top)
{
	if (self->watcher.pid > 0)
		kill(self->watcher.pid, SIGTERM);
	unlink(self->watcher.record);
}

/* hmmtop with options, and what a shell makes of the rest. */
static pid_t start(struct watcher *watcher, const char *options)
{
	char command[2 * PATH_MAX];
	pid_t pid = fork();

	if (pid)
		return pid;
	snprintf(command, sizeof(command), "exec %s %s", watcher->program, options);
	execl("/bin/sh", "sh", "-c", command, NULL);
	_exit(127);
}

static int status_of(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool has_content(const char *path)
{
	struct stat st;

	return !stat(path, &st) && st.st_size;
}

/*
 * From here on it misses nothing. Nor does it change code under a CPU that may be
 * running it, until it ends: tracepoints are switched by patching, and an emulator
 * may run what was there a moment ago, which is a breakpoint that nobody expects.
 */
static bool watch_with(struct watcher *watcher, const char *options)
{
	watcher->pid = start(watcher, options);
	return wait_until(has_content(watcher->record), 60);
}

static bool watch(struct watcher *watcher)
{
	char options[128];

	snprintf(options, sizeof(options), "--delay=0.3 --record %s", watcher->record);
	return watch_with(watcher, options);
}

/* It has seen everything that has happened. */
static int end_watch(struct watcher *watcher)
{
	pid_t pid = watcher->pid;

	watcher->pid = 0;
	kill(pid, SIGINT);
	return status_of(pid);
}

/* What it has counted for a process, and what it lost. */
static bool counted(const char *record, pid_t pid, struct sums *sums)
{
	FILE *file = fopen(record, "r");
	unsigned long long n[9], *sum = (unsigned long long *)sums;
	char line[512];
	int who, i;

	if (!file)
		return false;
	memset(sums, 0, sizeof(*sums));
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%*f %*f %d %*s %llu %llu %llu %llu %llu %llu %llu %llu %llu",
			   &who, &n[0], &n[1], &n[2], &n[3], &n[4], &n[5], &n[6],
			   &n[7], &n[8]) != 10)
			continue;
		for (i = 0; i < 8 && who == pid; i++)
			sum[i] += n[i];
		sums->lost += n[8];
	}
	fclose(file);
	return true;
}

#define COUNTED(pid, to) do {						\
	struct sums *sums_ = (to);					\
									\
	ASSERT_TRUE(counted(self->watcher.record, pid, sums_));		\
	EXPECT_EQ(0, sums_->lost);					\
} while (0)

static void counters_switch(const struct counter *counters, unsigned long request)
{
	int i, cpu;

	for (i = 0; i < NR_COUNTERS; i++)
		for (cpu = 0; cpu < counters[i].cpus; cpu++)
			ioctl(counters[i].fds[cpu], request, 0);
}

static uint64_t counter_sum(const struct counter *counter)
{
	uint64_t value, sum = 0;
	int cpu;

	for (cpu = 0; cpu < counter->cpus; cpu++) {
		if (read(counter->fds[cpu], &value, sizeof(value)) != sizeof(value))
			return -1;
		sum += value;
	}
	return sum;
}

/* Pages that nobody has touched: the device faults in each. */
TEST_F(top, faults)
{
	struct sums sums;

	ASSERT_TRUE(watch(&self->watcher));
	EXPECT_EQ(0, dev_read(self->device, self->at, self->buf, PAGES).err);
	/* Those that are there are no faults. */
	EXPECT_EQ(0, dev_snapshot(self->device, self->at, self->buf, PAGES).err);
	EXPECT_EQ(0, end_watch(&self->watcher));
	COUNTED(getpid(), &sums);
	EXPECT_EQ(PAGES, sums.faults);
	EXPECT_EQ(2 * PAGES, sums.pages);
	EXPECT_EQ(0, sums.collisions);
	EXPECT_EQ(0, sums.migrated);
}

TEST_F(top, invalidations)
{
	struct sums sums;
	int i;

	pattern_fill(self->at, PAGES * page_size, 1);
	ASSERT_TRUE(watch(&self->watcher));
	counters_switch(self->counters, PERF_EVENT_IOC_ENABLE);
	for (i = 0; i < CHANGES; i++) {
		mprotect(self->at, PAGES * page_size, PROT_READ);
		mprotect(self->at, PAGES * page_size, PROT_READ | PROT_WRITE);
	}
	counters_switch(self->counters, PERF_EVENT_IOC_DISABLE);
	EXPECT_EQ(0, end_watch(&self->watcher));
	COUNTED(getpid(), &sums);
	EXPECT_LE(CHANGES, sums.hits);
	EXPECT_EQ(counter_sum(&self->counters[BRACKETS]), sums.brackets);
	EXPECT_EQ(counter_sum(&self->counters[HITS]), sums.hits);
	EXPECT_EQ(0, sums.faults);
}

/* To the device's memory, and back by touching it. */
TEST_F(top, migrated)
{
	struct reply moved;
	struct sums sums;

	pattern_fill(self->at, PAGES * page_size, 1);
	ASSERT_TRUE(watch(&self->watcher));
	moved = dev_request(self->device, HMM_DMIRROR_MIGRATE_TO_DEV, self->at,
			    self->buf, PAGES);
	EXPECT_EQ(0, moved.err);
	EXPECT_EQ(-1, pattern_check(self->at, PAGES * page_size, 1));
	EXPECT_EQ(0, end_watch(&self->watcher));
	COUNTED(getpid(), &sums);
	EXPECT_LT(0, moved.pages);
	EXPECT_EQ(2 * moved.pages, sums.migrated);
}

static bool racing;

static void *change(void *at)
{
	while (__atomic_load_n(&racing, __ATOMIC_RELAXED)) {
		mprotect(at, page_size, PROT_READ);
		mprotect(at, page_size, PROT_READ | PROT_WRITE);
		madvise(at, page_size, MADV_DONTNEED);
	}
	return NULL;
}

/* As often as perf says, and it does happen. */
TEST_F(top, collisions)
{
	pthread_t thread;
	struct sums sums;
	double end;

	pattern_fill(self->at, page_size, 1);
	ASSERT_TRUE(watch(&self->watcher));
	counters_switch(self->counters, PERF_EVENT_IOC_ENABLE);
	racing = true;
	ASSERT_EQ(0, pthread_create(&thread, NULL, change, self->at));
	for (end = seconds() + RACE_SECONDS; seconds() < end;)
		dev_write(self->device, self->at, self->buf, 1);
	__atomic_store_n(&racing, false, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	counters_switch(self->counters, PERF_EVENT_IOC_DISABLE);
	EXPECT_EQ(0, end_watch(&self->watcher));
	COUNTED(getpid(), &sums);
	TH_LOG("%llu collisions, %llu waits, %llu brackets", sums.collisions,
	       sums.waits, sums.brackets);
	EXPECT_EQ(counter_sum(&self->counters[COLLISIONS]), sums.collisions);
	EXPECT_EQ(counter_sum(&self->counters[WAITS]), sums.waits);
	EXPECT_EQ(counter_sum(&self->counters[BRACKETS]), sums.brackets);
	EXPECT_EQ(counter_sum(&self->counters[HITS]), sums.hits);
	EXPECT_LT(0, sums.collisions + sums.waits);
	EXPECT_EQ(!sums.waits, !sums.wait_ns);
}

/* A child has its own memory, and half as much to do. */
TEST_F(top, two_processes)
{
	struct sums mine, others;
	pid_t child;

	ASSERT_TRUE(watch(&self->watcher));
	child = fork();
	ASSERT_LE(0, child);
	if (!child) {
		int device = dev_open(1);

		_exit(!!dev_read(device, self->at, self->buf, PAGES / 2).err);
	}
	EXPECT_EQ(0, dev_read(self->device, self->at, self->buf, PAGES).err);
	/* Not reaped yet, so that hmmtop can ask who it is. */
	usleep(300000);
	EXPECT_EQ(0, status_of(child));
	EXPECT_EQ(0, end_watch(&self->watcher));
	COUNTED(getpid(), &mine);
	COUNTED(child, &others);
	EXPECT_EQ(PAGES, mine.faults);
	EXPECT_EQ(PAGES / 2, others.faults);
}

/* This process is in the tables, and the range that was asked for. */
TEST_F(top, view)
{
	struct watcher *watcher = &self->watcher;
	char line[256], row[32], range[64];
	int tables = 0, rows = 0, ranges = 0;
	double end;
	unsigned long block;
	FILE *file;

	block = (unsigned long)self->at & ~0x1fffffUL;
	snprintf(row, sizeof(row), "%7d hmm_top ", getpid());
	snprintf(range, sizeof(range), "%7d %-15lx %lx", getpid(), block,
		 block + 0x200000);
	snprintf(line, sizeof(line), "-b --delay=0.5 > %s", watcher->record);
	ASSERT_TRUE(watch_with(watcher, line));
	for (end = seconds() + 1.5; seconds() < end;) {
		dev_read(self->device, self->at, self->buf, 1);
		madvise(self->at, page_size, MADV_DONTNEED);
	}
	EXPECT_EQ(0, end_watch(watcher));
	file = fopen(watcher->record, "r");
	ASSERT_NE(NULL, file);
	while (fgets(line, sizeof(line), file)) {
		tables += !strncmp(line, "hmmtop: at ", 11);
		rows += !strncmp(line, row, strlen(row));
		ranges += !strncmp(line, range, strlen(range));
	}
	fclose(file);
	/* In the last one there may be nothing. */
	EXPECT_LT(2, tables);
	EXPECT_LE(tables - 1, rows);
	EXPECT_EQ(rows, ranges);
}

TEST_F(top, as_many_samples)
{
	char options[128], line[256];
	int tables = 0;
	FILE *file;

	snprintf(options, sizeof(options), "-b --samples=2 --delay=0.2 > %s",
		 self->watcher.record);
	EXPECT_EQ(0, status_of(start(&self->watcher, options)));
	file = fopen(self->watcher.record, "r");
	ASSERT_NE(NULL, file);
	while (fgets(line, sizeof(line), file))
		tables += !strncmp(line, "hmmtop: at ", 11);
	fclose(file);
	EXPECT_EQ(2, tables);
}

/* It leaves no instance behind, whatever ends it. */
TEST_F(top, leaves_nothing)
{
	pid_t pid;
	char path[96];

	ASSERT_TRUE(watch(&self->watcher));
	pid = self->watcher.pid;
	snprintf(path, sizeof(path), "/sys/kernel/tracing/instances/hmmtop-%d", pid);
	EXPECT_EQ(0, access(path, F_OK));
	kill(pid, SIGTERM);
	EXPECT_EQ(0, status_of(pid));
	self->watcher.pid = 0;
	EXPECT_NE(0, access(path, F_OK));
}

TEST_F(top, bad_options)
{
	static const char * const bad[] = {
		"--delay=0", "--delay=x", "--samples=0", "--rows=1x", "--sort=none",
		"--block=3", "--buffer=-1", "--unknown", "surplus",
	};
	char options[64];
	size_t i;

	for (i = 0; i < ARRAY_LEN(bad); i++) {
		snprintf(options, sizeof(options), "%s 2> /dev/null", bad[i]);
		EXPECT_EQ(2, status_of(start(&self->watcher, options)))
			TH_LOG("%s", bad[i]);
	}
}

TEST_HARNESS_MAIN
