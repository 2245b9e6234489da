// SPDX-License-Identifier: GPL-2.0
/*
 * Memory of a device that goes while processes use what is in it.
 *
 * RELEASE has all pages brought home, whoever has them, and removes the memory. No
 * access of anybody may notice: not the CPU's, not that of the kernel by
 * get_user_pages() and its fast path, of a disk, of those who look into page tables,
 * of the device and of another one, of a process that is being forked or ends. A
 * reference to a page keeps it where it is, and so the memory: RELEASE waits for it,
 * and gives up in the end.
 *
 *	users				RELEASE
 *
 *	have the page
 *					an entry for migration: new users wait
 *					copies
 *	let go of it			  or leaves it if somebody has it
 *	find the copy			new entries
 *					frees the last page, removes the memory
 *
 * And what came and went a hundred times leaves nothing behind.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mm/gup_test.h>

#include "../kselftest_harness.h"
#include "devmem.h"
#include "hmm_dev.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT DEV_TIMEOUT

#define PAGES		64
/* One more, that CPUs write to */
#define TALLY		PAGES
#define ROUNDS		15
/* Of each user, while the memory goes in a round */
#define ACCESSES	4
/* How many pages one access of a user's is about */
#define PIECE		4

FIXTURE(unplug)
{
	int fd;
	char *at;
	char *buf;
	char *data;		/* what is in @at: in memory that never moves */
	size_t bytes;
	struct world world;
};

FIXTURE_VARIANT(unplug)
{
	int minor;
	bool is_private;
};

FIXTURE_VARIANT_ADD(unplug, private) { 0, true };
FIXTURE_VARIANT_ADD(unplug, coherent) { 2, false };

/* A mapping without neighbours that it could be merged with */
static char *map_alone(size_t bytes)
{
	char *at = mmap(NULL, bytes + 2 * page_size, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		return NULL;
	at += page_size;
	if (mprotect(at, bytes, PROT_READ | PROT_WRITE) ||
	    no_huge_pages(at, bytes))
		return NULL;
	return at;
}

FIXTURE_SETUP(unplug)
{
	self->fd = dev_open(variant->minor);
	if (self->fd < 0 && !variant->is_private)
		SKIP(return, "no coherent device (test_hmm.spm_addr_dev0, _dev1)");
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, release(self->fd));
	world_take(&self->world);
	self->bytes = PAGES * page_size;
	self->at = map_alone(self->bytes + page_size);
	ASSERT_NE(NULL, self->at);
	self->buf = buffer(self->bytes);
	self->data = buffer(self->bytes);
	pattern_fill(self->at, self->bytes, 1);
	pattern_fill(self->data, self->bytes, 1);
	store(self->at + TALLY * page_size, 0);
}

FIXTURE_TEARDOWN(unplug)
{
	const char *changed;

	if (!self->data)
		return;
	EXPECT_EQ(0, release(self->fd));
	close(self->fd);
	changed = world_changed(&self->world);
	EXPECT_EQ(NULL, changed)
		TH_LOG("%s", changed);
}

#define MOVE_IN() do {							\
	ASSERT_EQ(0, move_in(self->fd, self->at, self->buf, PAGES));	\
	ASSERT_EQ(0, memcmp(self->buf, self->data, self->bytes));	\
	ASSERT_EQ(PAGES, pages_in(self->fd, self->at, PAGES));		\
} while (0)

/* ---- Users ---- */

struct job {
	const struct user *user;
	pthread_t thread;
	pthread_barrier_t *barrier;
	int fd;			/* of the device, */
	int other;		/* and another one of its kind */
	int file;		/* for O_DIRECT */
	int gup_test;
	char *at;
	const char *data;
	char *buf;		/* of its own */
	long done;		/* accesses that went well */
	int err;
};

static bool same(const struct job *job, size_t page, size_t pages)
{
	return !memcmp(job->buf, job->data + page * page_size, pages * page_size);
}

/* Where the next access begins */
static size_t piece(const struct job *job)
{
	return (job->done * 7) % (PAGES - PIECE + 1);
}

/* A thread or a child, the CPU simply looks. */
static bool touches(struct job *job)
{
	return !memcmp(job->at, job->data, PAGES * page_size);
}

static bool counts(struct job *job)
{
	__atomic_fetch_add((long *)(job->at + TALLY * page_size), 1,
			   __ATOMIC_SEQ_CST);
	return true;
}

/* The fast path, and a reference for a while */
static bool splices(struct job *job)
{
	size_t page = piece(job), len = PIECE * page_size;
	struct pin pages;
	bool good;

	if (!pin(&pages, job->at + page * page_size, len))
		return false;
	good = read(pages.ends[0], job->buf, len) == (ssize_t)len &&
		same(job, page, PIECE);
	unpin(&pages);
	return good;
}

static bool reads_by_call(struct job *job)
{
	size_t page = piece(job), len = PIECE * page_size;
	struct iovec here = { job->buf, len };
	struct iovec there = { job->at + page * page_size, len };

	return process_vm_readv(getpid(), &here, 1, &there, 1, 0) == (ssize_t)len &&
		same(job, page, PIECE);
}

static bool pins_fast(struct job *job)
{
	size_t len = PIECE * page_size;
	struct gup_test args = {
		.addr = (uintptr_t)job->at + piece(job) * page_size,
		.size = len,
		.nr_pages_per_call = PIECE,
	};

	return !ioctl(job->gup_test, PIN_FAST_BENCHMARK, &args) && args.size == len;
}

/* The disk reads the pages themselves. */
static bool writes_to_disk(struct job *job)
{
	size_t page = piece(job), len = PIECE * page_size;

	return pwrite(job->file, job->at + page * page_size, len, 0) ==
			(ssize_t)len &&
		pread(job->file, job->buf, len, 0) == (ssize_t)len &&
		same(job, page, PIECE);
}

/* In whatever state an entry is: there is a page. */
static bool looks(struct job *job)
{
	unsigned char vec[PAGES + 1];
	size_t i, n = PAGES + 1;

	if (mincore(job->at, n * page_size, vec))
		return false;
	for (i = 0; i < n; i++)
		if (!(vec[i] & 1))
			return false;
	return pagemap_count(job->at, n, PM_PRESENT | PM_SWAPPED) == n &&
		smaps_field(job->at, "Rss") == (long)(n * page_size >> 10);
}

static bool reads_by_device(struct job *job)
{
	int err = dev_read(job->done % 2 ? job->fd : job->other, job->at, job->buf,
			   PAGES).err;

	if (err)
		job->err = err;
	return !err && same(job, 0, PAGES);
}

/* What somebody has in hand just now does not move. */
static bool moves_in(struct job *job)
{
	size_t page = piece(job);
	int err = move_in(job->fd, job->at + page * page_size, job->buf, PIECE);

	if (err && err != -ENOENT)
		job->err = err;
	return err == -ENOENT || (!err && same(job, page, PIECE));
}

static bool forks(struct job *job)
{
	pid_t child = fork();
	int status;

	if (!child)
		_exit(!touches(job));
	return waitpid(child, &status, 0) == child && !status;
}

static const struct user {
	const char *name;
	bool (*use)(struct job *job);
} users[] = {
	{ "touches", touches },
	{ "counts", counts },
	{ "splices", splices },
	{ "reads_by_call", reads_by_call },
	{ "pins_fast", pins_fast },
	{ "writes_to_disk", writes_to_disk },
	{ "looks", looks },
	{ "reads_by_device", reads_by_device },
	{ "moves_in", moves_in },
	{ "forks", forks },
};

#define NR_USERS	ARRAY_LEN(users)

/* All begin a round together, and end it. */
static void *uses(void *arg)
{
	struct job *job = arg;
	int round, i;

	for (round = 0; round < ROUNDS; round++) {
		pthread_barrier_wait(job->barrier);
		for (i = 0; i < ACCESSES; i++) {
			errno = 0;
			if (job->user->use(job))
				job->done++;
			else if (!job->err)
				job->err = -errno;
		}
		pthread_barrier_wait(job->barrier);
	}
	return NULL;
}

static int open_direct(void)
{
	const char *dir = disk_dir(false);
	char path[300];
	int fd;

	if (!dir)
		return -1;
	snprintf(path, sizeof(path), "%s/devmem_unplug", dir);
	fd = open(path, O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
	unlink(path);
	return fd;
}

/* Everything there, then users and removal at once */
TEST_F(unplug, under_users)
{
	struct job job = { .fd = self->fd, .at = self->at, .data = self->data };
	char *tally = self->at + TALLY * page_size;
	struct job jobs[NR_USERS];
	pthread_barrier_t barrier;
	size_t i;

	job.other = dev_open(variant->minor + 1);
	job.gup_test = open("/sys/kernel/debug/gup_test", O_RDWR | O_CLOEXEC);
	job.file = open_direct();
	if (job.gup_test < 0 || job.file < 0)
		SKIP(return, "no gup_test, or no disk file system (HMM_DISK_DIR)");
	job.barrier = &barrier;
	pthread_barrier_init(&barrier, NULL, NR_USERS + 1);
	for (i = 0; i < NR_USERS; i++) {
		jobs[i] = job;
		jobs[i].user = &users[i];
		jobs[i].buf = buffer(self->bytes);
		ASSERT_EQ(0, pthread_create(&jobs[i].thread, NULL, uses, &jobs[i]));
	}
	for (i = 0; i < ROUNDS; i++) {
		MOVE_IN();
		ASSERT_EQ(0, move_in(self->fd, tally, self->buf, 1));
		pthread_barrier_wait(&barrier);
		EXPECT_EQ(0, release(self->fd));
		EXPECT_EQ(0, memcmp(self->at, self->data, self->bytes));
		pthread_barrier_wait(&barrier);
		EXPECT_EQ(0, memcmp(self->at, self->data, self->bytes));
	}
	for (i = 0; i < NR_USERS; i++) {
		pthread_join(jobs[i].thread, NULL);
		EXPECT_EQ(ROUNDS * ACCESSES, jobs[i].done)
			TH_LOG("%s: errno %d", users[i].name, -jobs[i].err);
	}
	EXPECT_EQ(ROUNDS * ACCESSES, load(tally));
	close(job.other);
}

/* ---- Processes that end ---- */

#define EXITS	15

struct process {
	int minor;
	int told;		/* that its pages are there */
	size_t round;
	char *at;
	char *buf;
};

/*
 * With pages on the device, by a call, a signal, or unmapped before; some may have
 * come home again while they were still being moved.
 */
static bool ends(void *arg)
{
	struct process *me = arg;
	int err, fd = dev_open(me->minor);

	pattern_fill(me->at, PAGES * page_size, 2);
	err = move_in(fd, me->at, me->buf, PAGES);
	if (write(me->told, "", 1) != 1 || (err && err != -ENOENT))
		return false;
	if (me->round % 3 == 1)
		raise(SIGKILL);
	if (me->round % 3 == 2)
		return !munmap(me->at, PAGES / 2 * page_size);
	return true;
}

TEST_F(unplug, under_exits)
{
	struct process process = { .minor = variant->minor, .at = self->at,
				   .buf = self->buf };
	size_t i, j;
	pid_t pids[2];
	int ends_of[2];
	char c;

	ASSERT_EQ(0, pipe(ends_of));
	process.told = ends_of[1];
	for (i = 0; i < EXITS; i++) {
		process.round = i;
		for (j = 0; j < 2; j++)
			pids[j] = start(ends, &process);
		ASSERT_EQ(1, read(ends_of[0], &c, 1));
		/* One has moved in and is about to end, the other may be at it. */
		EXPECT_EQ(0, release(self->fd));
		ASSERT_EQ(1, read(ends_of[0], &c, 1));
		for (j = 0; j < 2; j++)
			EXPECT_EQ(i % 3 != 1, finished(pids[j]));
		EXPECT_EQ(0, release(self->fd));
		EXPECT_EQ(0, memcmp(self->at, self->data, self->bytes));
	}
}

/* ---- A page that stays ---- */

/* Of private memory nobody can have a reference: the page comes home for it. */
FIXTURE(held)
{
	int fd;
	char *at;
	char *buf;
	struct pin pin;
};

#define COHERENT	2

FIXTURE_SETUP(held)
{
	self->fd = dev_open(COHERENT);
	if (self->fd < 0)
		SKIP(return, "no coherent device (test_hmm.spm_addr_dev0, _dev1)");
	self->at = map_alone(PAGES * page_size);
	ASSERT_NE(NULL, self->at);
	self->buf = buffer(PAGES * page_size);
	pattern_fill(self->at, PAGES * page_size, 1);
	ASSERT_EQ(0, move_in(self->fd, self->at, self->buf, PAGES));
	ASSERT_TRUE(pin(&self->pin, self->at + page_size, page_size));
}

FIXTURE_TEARDOWN(held)
{
}

/*
 * Only that one is still there, with what is in it; and then it goes, too. It is not
 * to be seen while somebody tries to move it.
 */
#define expect_one_left() do {						\
	EXPECT_TRUE(wait_until(pages_in(self->fd, self->at, PAGES) == 1 && \
			       pages_in(self->fd, self->at + page_size, 1), \
			       SOON));					\
	EXPECT_EQ(-1, pattern_check(self->at, PAGES * page_size, 1));	\
	EXPECT_EQ(0, dev_read(self->fd, self->at, self->buf, PAGES).err); \
	EXPECT_EQ(-1, pattern_check(self->buf, PAGES * page_size, 1));	\
} while (0)

#define expect_gone() do {						\
	uint64_t first, last;						\
									\
	EXPECT_EQ(0, pages_in(self->fd, self->at, PAGES));		\
	EXPECT_EQ(-1, pattern_check(self->at, PAGES * page_size, 1));	\
	EXPECT_FALSE(frames_of(COHERENT, &first, &last));		\
} while (0)

static bool releases(void *unused)
{
	return !release(dev_open(COHERENT));
}

TEST_F(held, waited_for)
{
	pid_t pid = start(releases, NULL);

	expect_one_left();
	EXPECT_TRUE(wait_until(is_in(pid, "tdev_unplug"), SOON));
	EXPECT_TRUE(is_running(pid));
	unpin(&self->pin);
	EXPECT_TRUE(finished(pid));
	expect_gone();
}

TEST_F(held, given_up)
{
	EXPECT_EQ(-EBUSY, release(self->fd));
	expect_one_left();
	/* The memory is as good as before. */
	EXPECT_EQ(0, move_in(self->fd, self->at, self->buf, PAGES));
	EXPECT_EQ(PAGES, pages_in(self->fd, self->at, PAGES));
	unpin(&self->pin);
	EXPECT_EQ(0, release(self->fd));
	expect_gone();
}

TEST_F(held, killed)
{
	pid_t pid = start(releases, NULL);

	expect_one_left();
	EXPECT_TRUE(is_running(pid));
	EXPECT_EQ(0, kill(pid, SIGKILL));
	EXPECT_FALSE(finished(pid));
	expect_one_left();
	EXPECT_EQ(0, move_in(self->fd, self->at, self->buf, PAGES));
	unpin(&self->pin);
	EXPECT_EQ(0, release(self->fd));
	expect_gone();
}

/* ---- A hundred times ---- */

#define TIMES		100
#define WARM_UP		10
/* Of memory, in MiB: struct pages cost time. The module's own is 256. */
#define LITTLE		64
#define USUAL		256
#define MEMORY_MIB	"/sys/module/test_hmm/parameters/memory_mib"
/* Objects of a kind, if one were left each time: half of that is no noise. */
#define MORE_OBJECTS	(TIMES / 2)
/* Others may take as many for once; what is left each time is left again. */
#define TRIES		3
/* How long freed memory may be on its way back */
#define SETTLED		20.0

#define MOST_CACHES	400

/* The kernel's memory, but for what caches and lists keep for a while */
struct heap {
	long objects[MOST_CACHES];
	long kib[4];
};

/* Of /proc/meminfo: what is used, in KiB, and how much more is noise */
static const struct {
	const char *key;
	long limit;
} figures[] = {
	/* The pages moved would be 25 MiB, the struct pages 100 MiB. */
	{ "MemFree", -2048 },	/* with those in lists of CPUs */
	{ "SUnreclaim", 512 },
	{ "VmallocUsed", 256 },
	{ "Percpu", 64 },
};

/*
 * The kernel's caches, by two files of each: open all the time, since to open one takes
 * objects of the kind that are to be counted
 */
static struct cache {
	char name[64];
	int objects, shrink;
} caches[MOST_CACHES];
static size_t nr_caches;

static int open_cache(const char *cache, const char *file, int flags)
{
	char path[512];

	snprintf(path, sizeof(path), "/sys/kernel/slab/%s/%s", cache, file);
	return open(path, flags | O_CLOEXEC);
}

/*
 * Objects in use. Free ones in the slabs that CPUs have at hand count as in use, some
 * 150 for the small sizes: so a cache is shrunk right before.
 */
static long objects_of(const struct cache *cache)
{
	char number[32] = "";

	if (write(cache->shrink, "1", 1) != 1 ||
	    pread(cache->objects, number, sizeof(number) - 1, 0) <= 0)
		return 0;
	return strtol(number, NULL, 10);
}

static void open_caches(void)
{
	DIR *dir = opendir("/sys/kernel/slab");
	struct dirent *entry;
	struct cache *cache;

	while (dir && nr_caches < MOST_CACHES && (entry = readdir(dir))) {
		if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
			continue;
		cache = &caches[nr_caches++];
		snprintf(cache->name, sizeof(cache->name), "%.63s", entry->d_name);
		cache->objects = open_cache(entry->d_name, "objects", O_RDONLY);
		cache->shrink = open_cache(entry->d_name, "shrink", O_WRONLY);
		/* The first read takes a buffer, for as long as the file is open */
		objects_of(cache);
	}
	if (dir)
		closedir(dir);
}

static void heap_take(struct heap *heap)
{
	size_t i;

	sync();
	write_text("/proc/sys/vm/drop_caches", "3");
	for (i = 0; i < nr_caches; i++)
		heap->objects[i] = objects_of(&caches[i]);
	for (i = 0; i < ARRAY_LEN(figures); i++)
		heap->kib[i] = read_keyed("/proc/meminfo", figures[i].key);
	heap->kib[0] += in_lists();
}

/* A cache that has grown, or NULL */
static const char *slabs_grown(const struct heap *before, const struct heap *now)
{
	static char why[128];
	size_t i;

	for (i = 0; i < nr_caches; i++) {
		if (now->objects[i] - before->objects[i] <= MORE_OBJECTS)
			continue;
		snprintf(why, sizeof(why), "%s: %ld objects, before %ld",
			 caches[i].name, now->objects[i], before->objects[i]);
		return why;
	}
	return NULL;
}

static const char *meminfo_grown(const struct heap *before, const struct heap *now)
{
	static char why[128];
	size_t i;

	for (i = 0; i < ARRAY_LEN(figures); i++) {
		long limit = figures[i].limit, more = now->kib[i] - before->kib[i];

		snprintf(why, sizeof(why), "%s: %ld kB, before %ld", figures[i].key,
			 now->kib[i], before->kib[i]);
		if (limit < 0 ? more < limit : more > limit)
			return why;
	}
	return NULL;
}

static const char *heap_grown(const struct heap *before, bool kasan)
{
	struct heap now;

	heap_take(&now);
	return (kasan ? NULL : slabs_grown(before, &now)) ?:
		meminfo_grown(before, &now);
}

#define come_and_go(times) do {						\
	int left_ = (times);						\
									\
	while (left_--) {						\
		MOVE_IN();						\
		ASSERT_TRUE(frames_of(variant->minor, &first, &last));	\
		ASSERT_EQ(0, release(self->fd));			\
		ASSERT_FALSE(frames_of(variant->minor, &first, &last));	\
		ASSERT_EQ(0, pages_in(self->fd, self->at, PAGES));	\
		ASSERT_EQ(0, memcmp(self->at, self->data, self->bytes)); \
	}								\
} while (0)

TEST_F(unplug, a_hundred_times)
{
	uint64_t first, last;
	bool kasan = has_kasan();
	struct heap before;
	const char *grown;
	int tries = TRIES;

	ASSERT_TRUE(write_number(MEMORY_MIB, LITTLE));
	/* To shrink a cache makes KASAN let go, too, so that memory can be compared. */
	open_caches();
	if (!nr_caches)
		TH_LOG("no caches are looked at");
	if (kasan)
		TH_LOG("objects are not compared: KASAN keeps them for a while");
	come_and_go(WARM_UP);
	do {
		heap_take(&before);
		come_and_go(TIMES);
		wait_until(!(grown = heap_grown(&before, kasan)), SETTLED);
		if (grown)
			TH_LOG("%s", grown);
	} while (grown && --tries);
	EXPECT_EQ(NULL, grown);
	EXPECT_TRUE(write_number(MEMORY_MIB, USUAL));
}

TEST_HARNESS_MAIN
