// SPDX-License-Identifier: GPL-2.0
/*
 * The device at work while other threads change the memory under it.
 *
 * Each test is a game of two: a *mover* thread changes mappings and publishes
 * what the memory now holds, the main thread is the device and checks what
 * it sees against what was published before and after its request. What it
 * may never see is the past: a generation that was over before it asked.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "hmm_dev.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT DEV_TIMEOUT

/* How long a game lasts, seconds. */
#define GAME	1.5

struct game {
	char *at;		/* one page, or two for those who need them */
	char *spare;
	size_t bytes;
	int fd;
	atomic_long begun;	/* generation that is being made */
	atomic_long done;	/* generation that surely is in memory */
	atomic_bool over;
	atomic_long trouble;	/* the mover saw what it should not */
	long moves;
	void (*move)(struct game *game);
};

FIXTURE(races)
{
	struct game game;
};

FIXTURE_SETUP(races)
{
	struct game *game = &self->game;

	game->fd = dev_open(0);
	ASSERT_LE(0, game->fd);
	game->bytes = 16 * page_size;
	game->at = buffer(game->bytes);
	game->spare = buffer(game->bytes);
}

FIXTURE_TEARDOWN(races)
{
	close(self->game.fd);
}

static void *mover(void *arg)
{
	struct game *game = arg;

	while (!game->over) {
		game->move(game);
		game->moves++;
	}
	return NULL;
}

static bool start(pthread_t *threads, size_t n, void *(*fn)(void *),
		  struct game *game)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (pthread_create(&threads[i], NULL, fn, game))
			return false;
	return true;
}

/* The next generation: @make puts its number into the first word of memory. */
static void generation(struct game *game, void (*make)(struct game *, long))
{
	long gen = game->begun + 1;

	game->begun = gen;
	make(game, gen);
	game->done = gen;
}

/* ---- Movers that make generations ---- */

static void make_by_mmap(struct game *game, long gen)
{
	/* Made aside, put in place at once: there is no moment in between. */
	char *fresh = mmap(NULL, page_size, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	store(fresh, gen);
	mremap(fresh, page_size, page_size, MREMAP_MAYMOVE | MREMAP_FIXED,
	       game->at);
}

static void make_by_writing(struct game *game, long gen)
{
	madvise(game->at, page_size, MADV_DONTNEED);
	store(game->at, gen);
}

static void make_by_cow(struct game *game, long gen)
{
	pid_t child = fork();

	/* The child keeps the old page for as long as it takes to copy it. */
	if (!child) {
		usleep(1000);
		_exit(0);
	}
	store(game->at, gen);
	waitpid(child, NULL, 0);
}

static void make_by_pageout(struct game *game, long gen)
{
	store(game->at, gen);
	madvise(game->at, page_size, MADV_PAGEOUT);
}

static void make_by_protection(struct game *game, long gen)
{
	mprotect(game->at, page_size, PROT_NONE);
	mprotect(game->at, page_size, PROT_READ | PROT_WRITE);
	store(game->at, gen);
}

static void move_mmap(struct game *game)
{
	generation(game, make_by_mmap);
}

static void move_writing(struct game *game)
{
	generation(game, make_by_writing);
}

static void move_cow(struct game *game)
{
	generation(game, make_by_cow);
}

static void move_pageout(struct game *game)
{
	generation(game, make_by_pageout);
}

static void move_protection(struct game *game)
{
	generation(game, make_by_protection);
}

struct score {
	long reads, errors, stale;
};

/* Zero is the page between two generations, seen only if one is being made. */
static struct score watch(struct game *game, int error)
{
	struct score score = { 0 };
	long before, after, seen, *page = buffer(page_size);
	double end = seconds() + GAME;
	int err;

	while (seconds() < end || (!score.reads && seconds() < end + 10)) {
		before = game->done;
		err = dev_read(game->fd, game->at, page, 1).err;
		after = game->begun;
		seen = page[0];
		if (err) {
			if (err != error && err != -EBUSY)
				score.stale++;
			score.errors++;
			continue;
		}
		score.reads++;
		if (seen > after || (seen < before && (seen || before == after)))
			score.stale++;
	}
	return score;
}

FIXTURE(generations)
{
	struct game game;
};

FIXTURE_VARIANT(generations)
{
	void (*move)(struct game *game);
	int error;		/* that a request in between may meet */
};

FIXTURE_VARIANT_ADD(generations, mmap) { move_mmap, 0 };
FIXTURE_VARIANT_ADD(generations, dontneed) { move_writing, 0 };
FIXTURE_VARIANT_ADD(generations, cow) { move_cow, 0 };
FIXTURE_VARIANT_ADD(generations, pageout) { move_pageout, 0 };
FIXTURE_VARIANT_ADD(generations, mprotect) { move_protection, -EFAULT };

FIXTURE_SETUP(generations)
{
	struct game *game = &self->game;

	game->fd = dev_open(0);
	ASSERT_LE(0, game->fd);
	game->bytes = page_size;
	game->at = buffer(game->bytes);
	game->move = variant->move;
}

FIXTURE_TEARDOWN(generations)
{
	close(self->game.fd);
}

TEST_F(generations, never_stale)
{
	struct game *game = &self->game;
	struct score score;
	pthread_t thread;

	if (variant->move == move_pageout && !have_swap())
		SKIP(return, "no swap");
	ASSERT_EQ(0, pthread_create(&thread, NULL, mover, game));
	score = watch(game, variant->error);
	game->over = true;
	pthread_join(thread, NULL);
	EXPECT_EQ(0, score.stale);
	EXPECT_LT(0, score.reads);
	EXPECT_LT(0, game->moves);
	TH_LOG("%ld moves, %ld reads, %ld errors", game->moves, score.reads,
	       score.errors);
	/* All quiet: the device sees the last of it. */
	EXPECT_EQ(game->done, dev_peek(game->fd, game->at));
}

/* ---- The device writes ---- */

/*
 * Protected memory holds still, from the moment mprotect() returns. A look at
 * it a little later must find what a look at once found.
 */
static void move_protect_and_look(struct game *game)
{
	long once;

	mprotect(game->at, page_size, PROT_READ);
	once = load(game->at);
	usleep(200);
	if (load(game->at) != once)
		game->trouble++;
	mprotect(game->at, page_size, PROT_READ | PROT_WRITE);
	usleep(200);
}

TEST_F(races, no_write_to_protected_memory)
{
	struct game *game = &self->game;
	double end = seconds() + 2 * GAME;
	long value = 0, written = 0, refused = 0;
	pthread_t thread;
	int err;

	game->move = move_protect_and_look;
	ASSERT_EQ(0, pthread_create(&thread, NULL, mover, game));
	while (seconds() < end || (!written && seconds() < end + 10)) {
		err = dev_poke(game->fd, game->at, ++value);
		ASSERT_TRUE(!err || err == -EPERM || err == -EBUSY);
		written += !err;
		refused += err == -EPERM;
	}
	game->over = true;
	pthread_join(thread, NULL);
	EXPECT_EQ(0, game->trouble);
	EXPECT_LT(0, written);
	TH_LOG("%ld moves, %ld written, %ld refused", game->moves, written,
	       refused);
}

/*
 * A child made by fork() keeps the memory of that moment, whatever the device
 * writes into its parent.
 */
static void move_fork_and_look(struct game *game)
{
	int status;
	pid_t child = fork();

	if (!child) {
		long once = load(game->at);

		usleep(1000);
		_exit(load(game->at) != once);
	}
	waitpid(child, &status, 0);
	if (status)
		game->trouble++;
}

TEST_F(races, no_write_to_a_childs_memory)
{
	struct game *game = &self->game;
	double end = seconds() + 2 * GAME;
	long value = 0, written = 0;
	pthread_t thread;
	int err;

	game->move = move_fork_and_look;
	ASSERT_EQ(0, pthread_create(&thread, NULL, mover, game));
	while (seconds() < end || (!written && seconds() < end + 10)) {
		err = dev_poke(game->fd, game->at, ++value);
		ASSERT_TRUE(!err || err == -EBUSY);
		written += !err;
		/* Every write that was done is there, and not in a copy. */
		ASSERT_TRUE(err || load(game->at) == value);
	}
	game->over = true;
	pthread_join(thread, NULL);
	EXPECT_EQ(0, game->trouble);
	EXPECT_LT(0, written);
	TH_LOG("%ld moves, %ld written", game->moves, written);
}

/* What the device wrote is never lost to reclaim, nor to a split or a move. */
static void move_reclaim(struct game *game)
{
	madvise(game->at, game->bytes, MADV_PAGEOUT);
}

static void move_away_and_back(struct game *game)
{
	char *away = mremap(game->at, game->bytes, game->bytes,
			    MREMAP_MAYMOVE | MREMAP_FIXED, game->spare);

	mremap(away, game->bytes, game->bytes, MREMAP_MAYMOVE | MREMAP_FIXED,
	       game->at);
}

static void nothing_lost(struct __test_metadata *_metadata, struct game *game,
			 void (*move)(struct game *game), int error)
{
	double end = seconds() + 2 * GAME;
	unsigned int seed = 0;
	char *data = buffer(game->bytes), *seen = buffer(game->bytes);
	size_t pages = game->bytes / page_size;
	pthread_t thread;
	int err;

	game->move = move;
	ASSERT_EQ(0, pthread_create(&thread, NULL, mover, game));
	while (seconds() < end || (!seed && seconds() < end + 10)) {
		pattern_fill(data, game->bytes, ++seed);
		do {
			err = dev_write(game->fd, game->at, data, pages).err;
		} while (err == -EBUSY || (err && err == error));
		ASSERT_EQ(0, err);
		do {
			err = dev_read(game->fd, game->at, seen, pages).err;
		} while (err == -EBUSY || (err && err == error));
		ASSERT_EQ(0, err);
		ASSERT_EQ(-1, pattern_check(seen, game->bytes, seed));
	}
	game->over = true;
	pthread_join(thread, NULL);
	EXPECT_EQ(-1, pattern_check(game->at, game->bytes, seed));
	TH_LOG("%ld moves, %u writes", game->moves, seed);
}

TEST_F(races, nothing_lost_to_reclaim)
{
	if (!have_swap())
		SKIP(return, "no swap");
	nothing_lost(_metadata, &self->game, move_reclaim, 0);
}

TEST_F(races, nothing_lost_to_mremap)
{
	nothing_lost(_metadata, &self->game, move_away_and_back, -EFAULT);
}

/* ---- The end of a mapping ---- */

static void move_halve(struct game *game)
{
	size_t half = game->bytes / 2;

	munmap(game->at + half, half);
	mmap(game->at + half, half, PROT_READ | PROT_WRITE, MAP_PRIVATE |
	     MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

/*
 * The upper half goes and comes back empty. A request that succeeds has the
 * lower half right, and zeroes above it.
 */
TEST_F(races, unmapped_while_read)
{
	struct game *game = &self->game;
	size_t half = game->bytes / 2, pages = game->bytes / page_size;
	double end = seconds() + 2 * GAME;
	long done = 0, failed = 0;
	char *seen = buffer(game->bytes);
	pthread_t thread;
	struct reply reply;

	pattern_fill(game->at, half, 1);
	game->move = move_halve;
	ASSERT_EQ(0, pthread_create(&thread, NULL, mover, game));
	while (seconds() < end || (!done && seconds() < end + 10)) {
		memset(seen, 0x55, game->bytes);
		reply = dev_read(game->fd, game->at, seen, pages);
		if (reply.err) {
			ASSERT_TRUE(reply.err == -EFAULT || reply.err == -EBUSY);
			failed++;
			continue;
		}
		done++;
		ASSERT_EQ(pages, reply.pages);
		ASSERT_EQ(-1, pattern_check(seen, half, 1));
		ASSERT_EQ(-1, zero_check(seen + half, half));
	}
	game->over = true;
	pthread_join(thread, NULL);
	EXPECT_LT(0, done);
	TH_LOG("%ld moves, %ld done, %ld failed", game->moves, done, failed);
}

/* ---- Storms ---- */

static void move_elsewhere(struct game *game)
{
	madvise(game->spare, page_size, MADV_DONTNEED);
	store(game->spare, 1);
}

/* Invalidations without a pause do not keep a device out for good. */
TEST_F(races, a_storm_elsewhere)
{
	struct game *game = &self->game;
	pthread_t threads[3];
	long done = 0, busy = 0;
	double end;
	size_t i;
	int err, fd;

	game->move = move_elsewhere;
	ASSERT_TRUE(start(threads, ARRAY_LEN(threads), mover, game));
	end = seconds() + 2 * GAME;
	while (seconds() < end || (!done && seconds() < end + 20)) {
		fd = dev_open(done % 2);
		ASSERT_LE(0, fd);
		err = dev_poke(fd, game->at, ++done);
		ASSERT_TRUE(!err || err == -EBUSY);
		busy += !!err;
		ASSERT_TRUE(err || load(game->at) == done);
		ASSERT_EQ(0, close(fd));
	}
	game->over = true;
	for (i = 0; i < ARRAY_LEN(threads); i++)
		pthread_join(threads[i], NULL);
	EXPECT_LT(busy, done);
	TH_LOG("%ld moves, %ld requests, %ld of them busy", game->moves, done,
	       busy);
}

static void *open_and_close(void *arg)
{
	struct game *game = arg;
	int fd;

	while (!game->over) {
		fd = dev_open(game->moves++ % 2);
		if (fd < 0 || dev_poke(fd, game->at + page_size, 1) == -EFAULT)
			game->trouble++;
		close(fd);
	}
	return NULL;
}

/* Devices come and go in several threads while memory does. */
TEST_F(races, opened_and_closed)
{
	struct game *game = &self->game;
	pthread_t threads[3], moves;
	double end = seconds() + 2 * GAME;
	long done = 0;
	size_t i;
	int err;

	game->move = move_elsewhere;
	ASSERT_EQ(0, pthread_create(&moves, NULL, mover, game));
	ASSERT_TRUE(start(threads, ARRAY_LEN(threads), open_and_close, game));
	while (seconds() < end) {
		err = dev_poke(game->fd, game->at, ++done);
		ASSERT_TRUE(!err || err == -EBUSY);
	}
	game->over = true;
	pthread_join(moves, NULL);
	for (i = 0; i < ARRAY_LEN(threads); i++)
		pthread_join(threads[i], NULL);
	EXPECT_EQ(0, game->trouble);
}

/* Several threads drive one file: its requests do not mix. */
static void *own_page(void *arg)
{
	struct game *game = arg;
	long gen, n = atomic_fetch_add(&game->begun, 1);
	char *mine = game->at + n * page_size;

	for (gen = 1; !game->over; gen++) {
		int err = dev_poke(game->fd, mine, gen);

		if (err == -EBUSY)
			continue;
		if (err || load(mine) != gen)
			game->trouble++;
		if (gen % 16 == 0)
			madvise(mine, page_size, MADV_DONTNEED);
	}
	return NULL;
}

TEST_F(races, shared_by_threads)
{
	struct game *game = &self->game;
	pthread_t threads[6];
	size_t i;

	ASSERT_TRUE(start(threads, ARRAY_LEN(threads), own_page, game));
	usleep(2e6 * GAME);
	game->over = true;
	for (i = 0; i < ARRAY_LEN(threads); i++)
		pthread_join(threads[i], NULL);
	EXPECT_EQ(0, game->trouble);
}

/* Snapshots while everything changes: any state will do, hanging will not. */
TEST_F(races, snapshots_in_a_storm)
{
	struct game *game = &self->game;
	size_t i, pages = game->bytes / page_size;
	unsigned char bytes[pages];
	double end = seconds() + GAME;
	pthread_t thread;
	long done = 0, wrong = 0;
	int err;

	game->move = move_halve;
	ASSERT_EQ(0, pthread_create(&thread, NULL, mover, game));
	while (seconds() < end || (!done && seconds() < end + 10)) {
		err = dev_snapshot(game->fd, game->at, bytes, pages).err;
		ASSERT_TRUE(!err || err == -EBUSY);
		done += !err;
		for (i = 0; !err && i < pages / 2; i++)
			wrong += bytes[i] != HMM_DMIRROR_PROT_WRITE;
	}
	game->over = true;
	pthread_join(thread, NULL);
	EXPECT_LT(0, done);
	EXPECT_EQ(0, wrong);
}

/* A process is killed with threads in requests and in mmap calls. */
TEST_F(races, killed_at_work)
{
	struct game *game = &self->game;
	int round, status;
	pid_t child;

	for (round = 0; round < 20; round++) {
		child = fork();
		if (!child) {
			pthread_t threads[3];

			game->fd = dev_open(0);
			game->move = move_halve;
			/* The mover last: it leaves holes that a stack fits. */
			pthread_create(&threads[0], NULL, own_page, game);
			pthread_create(&threads[1], NULL, open_and_close, game);
			pthread_create(&threads[2], NULL, mover, game);
			pause();
		}
		usleep(5000 + round * 3000);
		kill(child, SIGKILL);
		waitpid(child, &status, 0);
		ASSERT_TRUE(WIFSIGNALED(status));
	}
}

TEST_HARNESS_MAIN
