// SPDX-License-Identifier: GPL-2.0
/*
 * Migration to the device and back while threads and processes are at the same
 * pages: all touch them at once, change the mappings under the migration, die in the
 * middle of it, or lose the device. Each test ends in bounded time, with every byte
 * where it belongs, and no page left on the device.
 *
 * What a page must hold is decided by one thread at any time, or by words of which
 * each has one writer: so all of it is compared, not a part that is out of reach.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "devmem.h"
#include "hmm_dev.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT DEV_TIMEOUT

#define PARAMETERS	"/sys/module/test_hmm/parameters/"
#define PAGES		64
#define THREADS		8
/* Of the device, where not all of it counts: to add it takes time by its size. */
#define SMALL_MIB	16
#define USUAL_MIB	256
/* Seconds that no test needs, not even on a kernel that checks itself. */
#define LIMIT		120.0

FIXTURE(races)
{
	int fd;
	char *at;
	char *buf;
	size_t bytes;
	double begin;
};

FIXTURE_VARIANT(races)
{
	int minor;
	bool is_private;
};

FIXTURE_VARIANT_ADD(races, private) { 0, true };
FIXTURE_VARIANT_ADD(races, coherent) { 2, false };

FIXTURE_SETUP(races)
{
	self->fd = dev_open(variant->minor);
	if (self->fd < 0 && !variant->is_private)
		SKIP(return, "no coherent device (test_hmm.spm_addr_dev0, _dev1)");
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, release(self->fd));
	ASSERT_TRUE(write_number(PARAMETERS "memory_mib", SMALL_MIB));
	self->bytes = PAGES * page_size;
	self->at = map_small(self->bytes);
	self->buf = buffer(self->bytes);
	self->begin = seconds();
}

/* Nobody has pages there any more: one that is lost would keep the memory. */
FIXTURE_TEARDOWN(races)
{
	if (self->fd < 0)
		return;
	EXPECT_GT(LIMIT, seconds() - self->begin);
	munmap(self->at, self->bytes);
	EXPECT_EQ(0, release(self->fd));
	write_number(PARAMETERS "memory_mib", USUAL_MIB);
	close(self->fd);
}

/* ---- Many threads fault ---- */

struct crowd {
	char *at;
	size_t pages;
	int rounds;
	pthread_barrier_t barrier;
};

struct member {
	struct crowd *crowd;
	pthread_t thread;
	int number;
	long wrong;		/* what it read that it had not written */
};

static bool crowd_start(struct crowd *crowd, struct member *members,
			void *(*work)(void *member))
{
	int i;

	if (pthread_barrier_init(&crowd->barrier, NULL, THREADS + 1))
		return false;
	for (i = 0; i < THREADS; i++) {
		members[i] = (struct member){ .crowd = crowd, .number = i };
		if (pthread_create(&members[i].thread, NULL, work, &members[i]))
			return false;
	}
	return true;
}

static long crowd_join(struct member *members)
{
	long wrong = 0;
	int i;

	for (i = 0; i < THREADS; i++) {
		pthread_join(members[i].thread, NULL);
		wrong += members[i].wrong;
	}
	return wrong;
}

/* Every second one only reads, until the last round. */
static void *touch_one_page(void *data)
{
	struct member *member = data;
	struct crowd *crowd = member->crowd;
	long *word = (long *)crowd->at + member->number, had = 0;
	int round;

	for (round = 0; round < crowd->rounds; round++) {
		pthread_barrier_wait(&crowd->barrier);
		member->wrong += load(word) != had;
		if (!(member->number & 1))
			store(word, ++had);
		pthread_barrier_wait(&crowd->barrier);
	}
	return NULL;
}

/* One page: one of them brings it home, all others wait for that. */
TEST_F(races, one_page)
{
	struct crowd crowd = { .at = self->at, .pages = 1, .rounds = 40 };
	struct member members[THREADS];
	int round, i;

	ASSERT_TRUE(crowd_start(&crowd, members, touch_one_page));
	for (round = 0; round < crowd.rounds; round++) {
		EXPECT_EQ(0, move_in(self->fd, self->at, self->buf, 1));
		EXPECT_EQ(1, pages_in(self->fd, self->at, 1));
		pthread_barrier_wait(&crowd.barrier);
		pthread_barrier_wait(&crowd.barrier);
		EXPECT_EQ(!variant->is_private, pages_in(self->fd, self->at, 1));
		if (!variant->is_private)
			EXPECT_EQ(0, move_out(self->fd, self->at, 1));
	}
	EXPECT_EQ(0, crowd_join(members));
	for (i = 0; i < THREADS; i++)
		EXPECT_EQ(i & 1 ? 0 : crowd.rounds, load((long *)self->at + i));
	EXPECT_EQ(-1, zero_check(self->at + THREADS * sizeof(long),
				 page_size - THREADS * sizeof(long)));
}

/* Each in another order, from another place: they meet here and there. */
static void *touch_all_pages(void *data)
{
	static const size_t steps[THREADS] = { 1, 3, 5, 4099, 8191, 11, 7, 12289 };
	struct member *member = data;
	struct crowd *crowd = member->crowd;
	size_t i, page = crowd->pages / THREADS * member->number;
	long *words;

	pthread_barrier_wait(&crowd->barrier);
	for (i = 0; i < crowd->pages; i++) {
		words = (long *)(crowd->at + page * page_size);
		member->wrong += load(words + THREADS) != (long)page + 1;
		member->wrong += load(words + member->number) != 0;
		store(words + member->number, page ^ member->number);
		page = (page + steps[member->number]) % crowd->pages;
	}
	return NULL;
}

TEST_F(races, all_pages)
{
	size_t bytes = 64UL << 20, pages = bytes / page_size, i, wrong = 0;
	struct crowd crowd = { .at = map_small(bytes), .pages = pages };
	struct member members[THREADS];
	char *buf = buffer(bytes);
	long *words;
	int t;

	ASSERT_TRUE(write_number(PARAMETERS "memory_mib", bytes >> 20));
	for (i = 0; i < pages; i++) {
		words = (long *)(crowd.at + i * page_size);
		pattern_fill(words, page_size, i);
		memset(words, 0, THREADS * sizeof(long));
		words[THREADS] = i + 1;
	}
	ASSERT_EQ(0, move_in(self->fd, crowd.at, buf, pages));
	ASSERT_TRUE(crowd_start(&crowd, members, touch_all_pages));
	pthread_barrier_wait(&crowd.barrier);
	EXPECT_EQ(0, crowd_join(members));
	EXPECT_EQ(variant->is_private ? 0 : pages,
		  pages_in(self->fd, crowd.at, pages));

	for (i = 0; i < pages; i++) {
		words = (long *)(crowd.at + i * page_size);
		for (t = 0; t < THREADS; t++)
			wrong += words[t] != (long)(i ^ t);
		wrong += words[THREADS] != (long)i + 1;
		pattern_fill(self->buf, page_size, i);
		wrong += !!memcmp(words + THREADS + 1,
				  (long *)self->buf + THREADS + 1,
				  page_size - (THREADS + 1) * sizeof(long));
	}
	EXPECT_EQ(0, wrong);
	munmap(crowd.at, bytes);
}

/* ---- To and fro ---- */

/* A thread that sends pages one way, or both, until it is told to stop. */
struct mover {
	int fd;
	char *at;
	char *buf;
	size_t pages;
	bool in, out;
	atomic_bool stop;
	atomic_long moves;	/* requests that found all of the memory */
	int err;		/* the first that should not have been */
	pthread_t thread;
};

/*
 * Mappings come and go: then there is nothing to be moved. And on a slow machine the
 * device may meet collisions for longer than it has patience.
 */
static void mover_keep(struct mover *mover, int err)
{
	if (!err || err == -ENOENT)
		mover->moves++;
	else if (err == -EINVAL || err == -EFAULT || err == -EBUSY)
		sched_yield();
	else if (!mover->err)
		mover->err = err;
}

static void *mover_work(void *data)
{
	struct mover *mover = data;

	while (!mover->stop) {
		if (mover->in)
			mover_keep(mover,
				   dev_request(mover->fd, HMM_DMIRROR_MIGRATE_TO_DEV,
					       mover->at, mover->buf,
					       mover->pages).err);
		if (mover->out)
			mover_keep(mover, move_out(mover->fd, mover->at,
						   mover->pages));
	}
	return NULL;
}

static bool mover_start(struct mover *mover)
{
	return !pthread_create(&mover->thread, NULL, mover_work, mover) &&
	       wait_until(mover->moves >= 2, SOON);
}

/* Until it has done some more. */
static bool mover_goes_on(struct mover *mover, long moves)
{
	long had = mover->moves;

	return wait_until(mover->moves >= had + moves, SOON);
}

static int mover_stop(struct mover *mover)
{
	mover->stop = true;
	pthread_join(mover->thread, NULL);
	return mover->err;
}

/* One thread sends it all to the device, another brings it home. */
TEST_F(races, opposite_directions)
{
	struct mover in = { .fd = self->fd, .at = self->at, .buf = self->buf,
			    .pages = PAGES, .in = true };
	struct mover out = { .fd = self->fd, .at = self->at, .pages = PAGES,
			     .out = true };
	pthread_t threads[2];
	size_t last = PAGES - 1, i;
	void *n;

	pattern_fill(self->at, self->bytes, 3);
	store(self->at, 0);
	store(self->at + last * page_size, 0);
	count_begin();
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, count_up,
					    self->at + i * last * page_size));
	ASSERT_TRUE(mover_start(&in));
	ASSERT_TRUE(mover_start(&out));
	EXPECT_TRUE(mover_goes_on(&in, 30));
	EXPECT_TRUE(mover_goes_on(&out, 30));
	EXPECT_EQ(0, mover_stop(&in));
	EXPECT_EQ(0, mover_stop(&out));
	count_end();

	pattern_fill(self->buf, self->bytes, 3);
	for (i = 0; i < 2; i++) {
		pthread_join(threads[i], &n);
		EXPECT_EQ((long)n, load(self->at + i * last * page_size));
		store(self->buf + i * last * page_size, (long)n);
	}
	EXPECT_EQ(0, memcmp(self->at, self->buf, self->bytes));
}

/* ---- Against what the process does to its mappings ---- */

/*
 * Who changes them is the one who writes: @seeds says what is in each page now, 0
 * for zeroes.
 */
struct game {
	struct mover mover;
	char *at;
	char *spare;		/* as much address space */
	size_t pages;
	unsigned int *seeds;
	int round;
};

static char *page_at(struct game *game, size_t i)
{
	return game->at + i * page_size;
}

/* How many pages of a run do not hold what they must. */
static size_t pages_wrong(struct game *game, size_t from, size_t to)
{
	size_t i, wrong = 0;

	for (i = from; i < to; i++)
		wrong += (game->seeds[i] ?
			  pattern_check(page_at(game, i), page_size, game->seeds[i]) :
			  zero_check(page_at(game, i), page_size)) != -1;
	return wrong;
}

static void pages_write(struct game *game, size_t from, size_t to)
{
	size_t i;

	for (i = from; i < to; i++) {
		game->seeds[i] = 1 + game->round * game->pages + i;
		pattern_fill(page_at(game, i), page_size, game->seeds[i]);
	}
}

/* A part of it, another one in each round. */
static size_t part_from(const struct game *game)
{
	return game->round * 7 % (game->pages / 2);
}

static size_t part_to(const struct game *game)
{
	return part_from(game) + game->pages / 4;
}

/* Each returns how much went wrong. */
static size_t play_fork(struct game *game)
{
	size_t wrong;
	int status;
	pid_t child = fork();

	if (!child) {
		wrong = pages_wrong(game, 0, game->pages);
		game->round++;
		pages_write(game, part_from(game), part_to(game));
		_exit(wrong || pages_wrong(game, 0, game->pages));
	}
	pages_write(game, part_from(game), part_to(game));
	return waitpid(child, &status, 0) != child || status;
}

static size_t play_mprotect(struct game *game)
{
	size_t from = part_from(game), to = part_to(game);
	size_t len = (to - from) * page_size, wrong = 0;

	wrong += !!mprotect(page_at(game, from), len, PROT_READ);
	wrong += pages_wrong(game, from, to);
	if (game->round & 1)
		wrong += !!mprotect(page_at(game, from), len, PROT_NONE);
	wrong += !!mprotect(page_at(game, from), len, PROT_READ | PROT_WRITE);
	pages_write(game, from, (from + to) / 2);
	return wrong;
}

static size_t play_mremap(struct game *game)
{
	size_t len = game->pages * page_size, wrong;
	char *home = game->at;

	if (mremap(home, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, game->spare) ==
	    MAP_FAILED)
		return 1;
	game->at = game->spare;
	wrong = pages_wrong(game, part_from(game), part_to(game));
	game->at = home;
	return wrong + (mremap(game->spare, len, len,
			       MREMAP_MAYMOVE | MREMAP_FIXED, home) != home);
}

static size_t play_munmap(struct game *game)
{
	size_t from = part_from(game), to = part_to(game);
	size_t len = (to - from) * page_size, wrong = 0;

	wrong += !!munmap(page_at(game, from), len);
	wrong += mmap(page_at(game, from), len, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) !=
		 page_at(game, from);
	memset(game->seeds + from, 0, (to - from) * sizeof(*game->seeds));
	if (game->round & 1)
		wrong += pages_wrong(game, from, to);
	pages_write(game, from, (from + to) / 2);
	return wrong;
}

static int play_advice(struct game *game, int advice)
{
	size_t from = part_from(game), to = part_to(game);

	return madvise(page_at(game, from), (to - from) * page_size, advice);
}

static size_t play_dontneed(struct game *game)
{
	size_t from = part_from(game), to = part_to(game), wrong;

	wrong = !!play_advice(game, MADV_DONTNEED);
	memset(game->seeds + from, 0, (to - from) * sizeof(*game->seeds));
	wrong += pages_wrong(game, from, (from + to) / 2);
	pages_write(game, (from + 2 * to) / 3, to);
	return wrong;
}

/* Zeroes from now on, or what it was, until it is written to. */
static size_t play_free(struct game *game)
{
	size_t from = part_from(game), to = part_to(game), wrong, i;

	wrong = !!play_advice(game, MADV_FREE);
	if (game->round & 1)
		wrong += !!play_advice(game, MADV_PAGEOUT);
	for (i = from; i < to; i++) {
		/* A write decides; the rest of the page is one or the other, too. */
		__atomic_fetch_add((long *)page_at(game, i), 0, __ATOMIC_SEQ_CST);
		if (!load(page_at(game, i)))
			game->seeds[i] = 0;
	}
	wrong += pages_wrong(game, from, to);
	pages_write(game, from, (from + to) / 2);
	return wrong;
}

static size_t play_pageout(struct game *game)
{
	size_t from = part_from(game), to = part_to(game), wrong;

	wrong = !!play_advice(game, MADV_PAGEOUT);
	if (game->round & 1)
		wrong += pages_wrong(game, from, to);
	pages_write(game, from, (from + to) / 2);
	return wrong;
}

/* It may well fail: the data is what counts. */
static size_t play_collapse(struct game *game)
{
	size_t from = part_from(game), to = part_to(game);

	madvise(game->at, game->pages * page_size, MADV_COLLAPSE);
	pages_write(game, from, to);
	return 0;
}

FIXTURE(mappings)
{
	struct game game;
	struct mem mem;
	size_t bytes;
	double begin;
};

FIXTURE_VARIANT(mappings)
{
	int minor;
	size_t (*play)(struct game *game);
	enum kind kind;
};

FIXTURE_VARIANT_ADD(mappings, private_fork) { 0, play_fork, ANON_PRIVATE };
FIXTURE_VARIANT_ADD(mappings, private_mprotect) { 0, play_mprotect, ANON_PRIVATE };
FIXTURE_VARIANT_ADD(mappings, private_mremap) { 0, play_mremap, ANON_PRIVATE };
FIXTURE_VARIANT_ADD(mappings, private_munmap) { 0, play_munmap, ANON_PRIVATE };
FIXTURE_VARIANT_ADD(mappings, private_dontneed) { 0, play_dontneed, ANON_PRIVATE };
FIXTURE_VARIANT_ADD(mappings, private_free) { 0, play_free, ANON_PRIVATE };
FIXTURE_VARIANT_ADD(mappings, private_pageout) { 0, play_pageout, ANON_PRIVATE };
FIXTURE_VARIANT_ADD(mappings, private_collapse) { 0, play_collapse, ANON_THP };
FIXTURE_VARIANT_ADD(mappings, coherent_fork) { 2, play_fork, ANON_PRIVATE };
FIXTURE_VARIANT_ADD(mappings, coherent_mprotect) { 2, play_mprotect, ANON_PRIVATE };
FIXTURE_VARIANT_ADD(mappings, coherent_mremap) { 2, play_mremap, ANON_PRIVATE };
FIXTURE_VARIANT_ADD(mappings, coherent_munmap) { 2, play_munmap, ANON_PRIVATE };
FIXTURE_VARIANT_ADD(mappings, coherent_dontneed) { 2, play_dontneed, ANON_PRIVATE };
FIXTURE_VARIANT_ADD(mappings, coherent_free) { 2, play_free, ANON_PRIVATE };
FIXTURE_VARIANT_ADD(mappings, coherent_pageout) { 2, play_pageout, ANON_PRIVATE };
FIXTURE_VARIANT_ADD(mappings, coherent_collapse) { 2, play_collapse, ANON_THP };

FIXTURE_SETUP(mappings)
{
	struct game *game = &self->game;

	game->mover.fd = dev_open(variant->minor);
	if (game->mover.fd < 0 && variant->minor)
		SKIP(return, "no coherent device (test_hmm.spm_addr_dev0, _dev1)");
	ASSERT_LE(0, game->mover.fd);
	self->bytes = variant->kind == ANON_THP ? pmd_size : 128 * page_size;
	if (!mem_map(&self->mem, variant->kind, self->bytes))
		SKIP(return, "%s", self->mem.why);
	ASSERT_EQ(0, release(game->mover.fd));
	/* After the last SKIP: nothing is put back then. */
	ASSERT_TRUE(write_number(PARAMETERS "memory_mib", SMALL_MIB));
	game->at = self->mem.addr;
	game->spare = mmap(NULL, self->bytes, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, game->spare);
	game->pages = self->bytes / page_size;
	game->seeds = buffer(game->pages * sizeof(*game->seeds));
	game->mover.at = game->at;
	game->mover.buf = buffer(self->bytes);
	game->mover.pages = game->pages;
	game->mover.in = true;
	game->mover.out = true;
	self->begin = seconds();
}

FIXTURE_TEARDOWN(mappings)
{
	if (self->game.mover.fd < 0)
		return;
	EXPECT_GT(LIMIT, seconds() - self->begin);
	mem_unmap(&self->mem);
	EXPECT_EQ(0, release(self->game.mover.fd));
	write_number(PARAMETERS "memory_mib", USUAL_MIB);
	close(self->game.mover.fd);
}

TEST_F(mappings, move)
{
	struct game *game = &self->game;
	long kib = self->bytes >> 10;
	size_t i;

	pages_write(game, 0, game->pages);
	ASSERT_TRUE(mover_start(&game->mover));
	for (game->round = 1; game->round <= 20; game->round++) {
		ASSERT_EQ(0, variant->play(game));
		ASSERT_EQ(0, pages_wrong(game, part_from(game), part_to(game)));
		if (!(game->round % 8))
			ASSERT_EQ(0, pages_wrong(game, 0, game->pages));
	}
	EXPECT_TRUE(mover_goes_on(&game->mover, 1));
	EXPECT_EQ(0, mover_stop(&game->mover));
	EXPECT_EQ(0, pages_wrong(game, 0, game->pages));
	TH_LOG("%ld requests", (long)game->mover.moves);

	/* What is there is counted once, wherever it is. */
	for (i = 0; i < game->pages; i++)
		__atomic_fetch_add((long *)page_at(game, i), 0, __ATOMIC_SEQ_CST);
	EXPECT_EQ(kib, smaps_sum(game->at, self->bytes, "Rss"));
	EXPECT_EQ(kib, smaps_sum(game->at, self->bytes, "Anonymous"));
	EXPECT_EQ(0, smaps_sum(game->at, self->bytes, "Swap"));
	EXPECT_EQ(0, madvise(game->at, self->bytes, MADV_DONTNEED));
	EXPECT_EQ(0, smaps_sum(game->at, self->bytes, "Rss"));
}

/* ---- Processes, and a device that is emptied under them ---- */

#define WORKERS		4

/* Of the workers and of who starts them. */
struct shared {
	long rounds[WORKERS];
	long stop;
	long trouble;		/* the round, from 1, */
	long error;		/* what the device said to it, */
	long wrong;		/* or the first wrong byte, from 1 */
};

struct worker {
	struct shared *shared;
	int minor;
	int number;
	size_t bytes;
};

static struct shared *shared_new(void)
{
	struct shared *shared = mmap(NULL, page_size, PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return shared == MAP_FAILED ? NULL : shared;
}

static int worker_seed(const struct worker *worker, long round)
{
	return 1 + round * WORKERS + worker->number;
}

/* 0 if all of it is @seed's, seen by the CPU, or by the device that has it */
static int worker_sees(struct worker *worker, int fd, char *at, char *buf, int seed,
		       bool by_device)
{
	int err = 0;
	long wrong;

	if (by_device)
		err = dev_read(fd, at, buf, worker->bytes / page_size).err;
	if (err)
		return err;
	wrong = pattern_check(by_device ? buf : at, worker->bytes, seed);
	if (wrong == -1)
		return 0;
	/* Others may be right, and must not say so over it */
	store(&worker->shared->wrong, wrong + 1);
	return -EIO;
}

/* One of them writes all of it, moves it, and looks at it; 0 or -errno. */
static int worker_round(struct worker *worker, int fd, char *at, char *buf, long round)
{
	size_t pages = worker->bytes / page_size;
	int seed = worker_seed(worker, round), err = 0;

	pattern_fill(round & 1 ? buf : at, worker->bytes, seed);
	if (round & 1)
		err = dev_write(fd, at, buf, pages).err;
	err = err ?: dev_request(fd, HMM_DMIRROR_MIGRATE_TO_DEV, at, buf, pages).err;
	/* It may be emptied before all of it has been read. */
	if (err && err != -ENOENT)
		return err;
	return worker_sees(worker, fd, at, buf, seed, round & 2);
}

/*
 * By way of the CPU or of the device, by turns, over and over. A round in which the
 * memory was emptied for as long as a fault may take is done again, as drivers do.
 */
static bool worker_runs(void *arg)
{
	struct worker *worker = arg;
	char *at = map_small(worker->bytes), *buf = buffer(worker->bytes);
	long round = 0, *rounds = &worker->shared->rounds[worker->number];
	int fd = dev_open(worker->minor), err;

	do {
		err = worker_round(worker, fd, at, buf, round);
		if (!err)
			store(rounds, ++round);
	} while (err == -EBUSY || (!err && !load(&worker->shared->stop)));
	err = err ?: worker_sees(worker, fd, at, buf, worker_seed(worker, round - 1),
				 false);
	if (err) {
		store(&worker->shared->trouble, round + 1);
		store(&worker->shared->error, err);
	}
	return !err;
}

/* They fill the memory of the device, which goes away again and again. */
TEST_F(races, emptied_under_processes)
{
	struct shared *shared = shared_new();
	struct worker workers[WORKERS];
	pid_t pids[WORKERS];
	int i, round;
	long had;

	ASSERT_NE(NULL, shared);
	for (i = 0; i < WORKERS; i++) {
		workers[i] = (struct worker){
			shared, variant->minor, i, (SMALL_MIB << 20) / WORKERS,
		};
		pids[i] = start(worker_runs, &workers[i]);
	}
	for (round = 0; round < 3; round++) {
		for (i = 0; i < WORKERS; i++) {
			had = load(&shared->rounds[i]);
			ASSERT_TRUE(wait_until(load(&shared->rounds[i]) > had ||
					       load(&shared->trouble), SOON));
		}
		EXPECT_EQ(0, release(self->fd));
	}
	store(&shared->stop, 1);
	for (i = 0; i < WORKERS; i++)
		EXPECT_TRUE(finished(pids[i]));
	EXPECT_EQ(0, load(&shared->trouble))
		TH_LOG("error %ld, wrong byte %ld", load(&shared->error),
		       load(&shared->wrong));
}

/* ---- Killed, and released at the same time ---- */

struct victim {
	struct shared *shared;
	int minor;
	char *at;
	char *buf;
};

static void *victim_faults(void *data)
{
	struct victim *victim = data;
	size_t i;

	for (i = 0;; i = (i + 5) % PAGES)
		__atomic_fetch_add((long *)(victim->at + i * page_size), 1,
				   __ATOMIC_SEQ_CST);
	return NULL;
}

/* One thread sends it there, another wants it back, page by page. */
static bool victim_runs(void *arg)
{
	struct victim *victim = arg;
	int fd = dev_open(victim->minor);
	pthread_t thread;
	long round;

	if (pthread_create(&thread, NULL, victim_faults, victim))
		return false;
	for (round = 1;; round++) {
		dev_request(fd, HMM_DMIRROR_MIGRATE_TO_DEV, victim->at,
			    victim->buf, PAGES);
		if (round % 3 == 0)
			move_out(fd, victim->at, PAGES);
		store(&victim->shared->rounds[0], round);
	}
}

static bool releaser_runs(void *arg)
{
	struct victim *victim = arg;
	int fd = dev_open(victim->minor);
	long round;

	for (round = 1; !load(&victim->shared->stop); round++) {
		if (release(fd))
			return false;
		store(&victim->shared->rounds[1], round);
	}
	return true;
}

TEST_F(races, killed_while_it_is_emptied)
{
	struct victim victim = { shared_new(), variant->minor, self->at, self->buf };
	long *rounds = victim.shared->rounds;
	pid_t releaser, pid;
	int round, status;

	pattern_fill(self->at, self->bytes, 1);
	releaser = start(releaser_runs, &victim);
	for (round = 0; round < 4; round++) {
		long had = load(&rounds[1]);

		store(&rounds[0], 0);
		pid = start(victim_runs, &victim);
		EXPECT_TRUE(wait_until(load(&rounds[0]) > round &&
				       load(&rounds[1]) > had, SOON));
		kill(pid, SIGKILL);
		ASSERT_TRUE(wait_until(!is_running(pid), SOON));
		waitpid(pid, &status, 0);
		EXPECT_TRUE(WIFSIGNALED(status));
	}
	store(&victim.shared->stop, 1);
	EXPECT_TRUE(finished(releaser));
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 1));
}

TEST_HARNESS_MAIN
