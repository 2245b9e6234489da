// SPDX-License-Identifier: GPL-2.0
/*
 * Memory that a device has for itself, until a CPU wants it back: the device knows
 * at any time whether it still has it, and no write of either is lost.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "hmm_dev.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT DEV_TIMEOUT

#define PAGES	80

FIXTURE(exclusive)
{
	int fd;
	int other;
	char *at;
	char *buf;
	size_t bytes;
};

FIXTURE_SETUP(exclusive)
{
	self->fd = dev_open(0);
	self->other = dev_open(1);
	ASSERT_LE(0, self->fd);
	ASSERT_LE(0, self->other);
	self->bytes = PAGES * page_size;
	self->at = map_small(self->bytes);
	self->buf = buffer(self->bytes);
	pattern_fill(self->at, self->bytes, 1);
}

FIXTURE_TEARDOWN(exclusive)
{
	close(self->other);
	close(self->fd);
}

static struct reply take(int fd, void *at, void *buf, size_t pages)
{
	return dev_request(fd, HMM_DMIRROR_EXCLUSIVE, at, buf, pages);
}

/* How many of a run of pages the device has for itself. */
static size_t held(int fd, char *at, size_t pages)
{
	size_t i, n = 0;
	int err;

	for (i = 0; i < pages; i++) {
		err = dev_request(fd, HMM_DMIRROR_CHECK_EXCLUSIVE,
				  at + i * page_size, NULL, 1).err;
		if (err && err != -EPERM)
			return -1;
		n += err == -EPERM;
	}
	return n;
}

static int check(int fd, char *at, size_t pages)
{
	return dev_request(fd, HMM_DMIRROR_CHECK_EXCLUSIVE, at, NULL, pages).err;
}

/* The device has all of it, and has seen what the CPU wrote. */
#define TAKE(nr) do {							\
	struct reply done;						\
									\
	memset(self->buf, 0, self->bytes);				\
	done = take(self->fd, self->at, self->buf, PAGES);		\
	ASSERT_EQ(0, done.err);						\
	EXPECT_EQ(PAGES, done.pages);					\
	EXPECT_EQ(-1, pattern_check(self->buf, self->bytes, nr));	\
	ASSERT_EQ(PAGES, held(self->fd, self->at, PAGES));		\
	EXPECT_EQ(-EPERM, check(self->fd, self->at, PAGES));		\
	ASSERT_EQ(0, pagemap_count(self->at, PAGES, PM_PRESENT));	\
} while (0)

static int reap(pid_t child)
{
	int status = -1;

	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_F(exclusive, cpu_reads)
{
	size_t i;

	EXPECT_EQ(0, check(self->fd, self->at, PAGES));
	TAKE(1);
	for (i = 0; i < PAGES; i++) {
		EXPECT_EQ(-1, pattern_check(self->at, (i + 1) * page_size, 1));
		EXPECT_EQ(PAGES - i - 1, held(self->fd, self->at, PAGES));
	}
	EXPECT_EQ(0, check(self->fd, self->at, PAGES));
}

TEST_F(exclusive, cpu_writes)
{
	TAKE(1);
	pattern_fill(self->at, self->bytes, 2);
	EXPECT_EQ(0, check(self->fd, self->at, PAGES));
	TAKE(2);
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 2));
}

/* The device goes on with what it has, and has it still. */
TEST_F(exclusive, device_writes)
{
	struct reply reply;

	TAKE(1);
	pattern_fill(self->buf, self->bytes, 3);
	reply = dev_write(self->fd, self->at, self->buf, PAGES);
	EXPECT_EQ(0, reply.err);
	EXPECT_EQ(0, reply.batches);
	EXPECT_EQ(PAGES, held(self->fd, self->at, PAGES));
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 3));
	EXPECT_EQ(0, held(self->fd, self->at, PAGES));
}

TEST_F(exclusive, twice)
{
	TAKE(1);
	TAKE(1);
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 1));
}

TEST_F(exclusive, untouched)
{
	char *fresh = map_small(self->bytes);

	EXPECT_EQ(0, take(self->fd, fresh, self->buf, PAGES).err);
	EXPECT_EQ(-1, zero_check(self->buf, self->bytes));
	EXPECT_EQ(PAGES, held(self->fd, fresh, PAGES));
	EXPECT_EQ(-1, zero_check(fresh, self->bytes));
}

/* One device takes it from another. */
TEST_F(exclusive, two_devices)
{
	TAKE(1);
	EXPECT_EQ(0, take(self->other, self->at, self->buf, PAGES).err);
	EXPECT_EQ(0, held(self->fd, self->at, PAGES));
	EXPECT_EQ(PAGES, held(self->other, self->at, PAGES));
	EXPECT_EQ(0, dev_read(self->fd, self->at, self->buf, PAGES).err);
	EXPECT_EQ(0, held(self->other, self->at, PAGES));
	EXPECT_EQ(-1, pattern_check(self->buf, self->bytes, 1));
}

/* It comes home from a device's memory first. */
TEST_F(exclusive, on_a_device)
{
	ASSERT_EQ(0, dev_request(self->fd, HMM_DMIRROR_MIGRATE_TO_DEV, self->at,
				 self->buf, PAGES).err);
	TAKE(1);
	/* From another one's, too. */
	ASSERT_EQ(0, dev_request(self->other, HMM_DMIRROR_READ, self->at,
				 self->buf, PAGES).err);
	ASSERT_EQ(0, dev_request(self->other, HMM_DMIRROR_MIGRATE_TO_DEV,
				 self->at, self->buf, PAGES).err);
	TAKE(1);
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 1));
}

/* ---- What cannot be had ---- */

TEST_F(exclusive, no_access)
{
	ASSERT_EQ(0, mprotect(self->at, self->bytes, PROT_READ));
	EXPECT_EQ(-EPERM, take(self->fd, self->at, self->buf, PAGES).err);
	ASSERT_EQ(0, mprotect(self->at, self->bytes, PROT_NONE));
	EXPECT_EQ(-EFAULT, take(self->fd, self->at, self->buf, PAGES).err);
	ASSERT_EQ(0, munmap(self->at, self->bytes));
	EXPECT_EQ(-EFAULT, take(self->fd, self->at, self->buf, PAGES).err);
	EXPECT_EQ(0, check(self->fd, self->at, PAGES));
}

TEST_F(exclusive, shared)
{
	char *at = map_small_as(self->bytes, PROT_READ | PROT_WRITE, MAP_SHARED);

	pattern_fill(at, self->bytes, 4);
	EXPECT_EQ(-EBUSY, take(self->fd, at, self->buf, PAGES).err);
	EXPECT_EQ(0, held(self->fd, at, PAGES));
	EXPECT_EQ(-1, pattern_check(at, self->bytes, 4));
}

TEST_F(exclusive, huge_page)
{
	struct mem mem;

	if (!mem_map(&mem, ANON_THP, pmd_size))
		SKIP(return, "%s", mem.why);
	pattern_fill(mem.addr, mem.len, 5);
	EXPECT_EQ(-EBUSY, take(self->fd, mem.addr, self->buf, PAGES).err);
	EXPECT_EQ(-1, pattern_check(mem.addr, mem.len, 5));
	EXPECT_EQ(0, held(self->fd, mem.addr, PAGES));
	mem_unmap(&mem);
}

/* ---- What the process does ---- */

TEST_F(exclusive, mprotect)
{
	TAKE(1);
	ASSERT_EQ(0, mprotect(self->at, self->bytes, PROT_READ));
	EXPECT_EQ(0, check(self->fd, self->at, PAGES));
	EXPECT_EQ(-EPERM, dev_write(self->fd, self->at, self->buf, PAGES).err);
	EXPECT_EQ(0, dev_read(self->fd, self->at, self->buf, PAGES).err);
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 1));
}

TEST_F(exclusive, unmapped)
{
	TAKE(1);
	ASSERT_EQ(0, madvise(self->at, self->bytes, MADV_DONTNEED));
	EXPECT_EQ(0, check(self->fd, self->at, PAGES));
	EXPECT_EQ(0, dev_read(self->fd, self->at, self->buf, PAGES).err);
	EXPECT_EQ(-1, zero_check(self->buf, self->bytes));
	EXPECT_EQ(0, take(self->fd, self->at, self->buf, PAGES).err);
	ASSERT_EQ(0, munmap(self->at, self->bytes));
	EXPECT_EQ(0, check(self->fd, self->at, PAGES));
}

TEST_F(exclusive, mremap)
{
	char *to = map_small_as(self->bytes, PROT_NONE, MAP_PRIVATE);

	TAKE(1);
	ASSERT_EQ(to, mremap(self->at, self->bytes, self->bytes,
			     MREMAP_MAYMOVE | MREMAP_FIXED, to));
	EXPECT_EQ(0, check(self->fd, self->at, PAGES));
	EXPECT_EQ(-EFAULT, dev_read(self->fd, self->at, self->buf, 1).err);
	EXPECT_EQ(-1, pattern_check(to, self->bytes, 1));
}

TEST_F(exclusive, fork)
{
	pid_t child;

	TAKE(1);
	child = fork();
	if (!child) {
		if (pattern_check(self->at, self->bytes, 1) != -1)
			_exit(1);
		pattern_fill(self->at, self->bytes, 2);
		_exit(pattern_check(self->at, self->bytes, 2) != -1);
	}
	EXPECT_EQ(0, check(self->fd, self->at, PAGES));
	pattern_fill(self->buf, self->bytes, 3);
	EXPECT_EQ(0, dev_write(self->fd, self->at, self->buf, PAGES).err);
	EXPECT_EQ(0, reap(child));
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 3));
}

TEST_F(exclusive, exit)
{
	pid_t child = fork();

	if (!child) {
		int fd = dev_open(0);

		_exit(take(fd, self->at, self->buf, PAGES).err ||
		      held(fd, self->at, PAGES) != PAGES);
	}
	EXPECT_EQ(0, reap(child));
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 1));
}

/* The file goes, the entries in the page table stay, and the CPU gets its memory. */
TEST_F(exclusive, closed)
{
	TAKE(1);
	close(self->fd);
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 1));
	self->fd = dev_open(0);
	EXPECT_EQ(0, check(self->fd, self->at, PAGES));
}

/* ---- At the same time ---- */

TEST_F(exclusive, cpus_at_work)
{
	long *words = (long *)self->at, sum = 0, taken = 0;
	pthread_t threads[2];
	size_t i;
	void *n;

	memset(self->at, 0, self->bytes);
	count_begin();
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, count_up, words));
	for (i = 0; i < 100; i++)
		taken += !take(self->fd, self->at, self->buf, 1).err;
	count_end();
	for (i = 0; i < 2; i++) {
		pthread_join(threads[i], &n);
		sum += (long)n;
	}
	EXPECT_EQ(sum, load(words));
	EXPECT_LT(0, taken);
}

TEST_HARNESS_MAIN
