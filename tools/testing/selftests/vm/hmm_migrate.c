// SPDX-License-Identifier: GPL-2.0
/*
 * Memory that goes to a device and comes back: nothing of it is lost, whatever the
 * process, its children or another device do meanwhile. Each test runs on a device
 * whose memory no CPU can reach, and on one where CPUs can.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "hmm_dev.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT DEV_TIMEOUT

#define PARAMETERS	"/sys/module/test_hmm/parameters/"
#define PAGES		96
#define ORIGIN		0xf0	/* bits of a snapshot byte */
#define WRITABLE	HMM_DMIRROR_PROT_WRITE
#define READABLE	HMM_DMIRROR_PROT_READ

FIXTURE(migrate)
{
	int fd;
	int other;		/* the second device of this kind */
	char *at;
	char *buf;
	size_t bytes;
};

FIXTURE_VARIANT(migrate)
{
	int minor;
	bool is_private;
	unsigned char local;	/* what a snapshot calls its memory */
	unsigned char remote;	/* and the other one; NONE if it sees nothing */
};

FIXTURE_VARIANT_ADD(migrate, private)
{
	0, true, HMM_DMIRROR_PROT_DEV_PRIVATE_LOCAL, HMM_DMIRROR_PROT_NONE,
};

FIXTURE_VARIANT_ADD(migrate, coherent)
{
	2, false, HMM_DMIRROR_PROT_DEV_COHERENT_LOCAL,
	HMM_DMIRROR_PROT_DEV_COHERENT_REMOTE | WRITABLE,
};

FIXTURE_SETUP(migrate)
{
	self->fd = dev_open(variant->minor);
	if (self->fd < 0 && !variant->is_private)
		SKIP(return, "no coherent device (test_hmm.spm_addr_dev0, _dev1)");
	ASSERT_LE(0, self->fd);
	self->other = dev_open(variant->minor + 1);
	ASSERT_LE(0, self->other);
	self->bytes = PAGES * page_size;
	self->at = map_small(self->bytes);
	self->buf = buffer(self->bytes);
	pattern_fill(self->at, self->bytes, 1);
}

FIXTURE_TEARDOWN(migrate)
{
	write_number(PARAMETERS "memory_mib", 256);
	close(self->other);
	close(self->fd);
}

static struct reply to_dev(int fd, const void *at, void *buf, size_t pages)
{
	return dev_request(fd, HMM_DMIRROR_MIGRATE_TO_DEV, at, buf, pages);
}

static struct reply to_sys(int fd, const void *at, size_t pages)
{
	return dev_request(fd, HMM_DMIRROR_MIGRATE_TO_SYS, at, NULL, pages);
}

static int release(int fd, const void *at)
{
	return dev_request(fd, HMM_DMIRROR_RELEASE, at, NULL, 1).err;
}

/* How many of a run of pages a snapshot describes by @byte. */
static size_t count(int fd, const char *at, size_t pages, unsigned char byte)
{
	unsigned char bytes[pages];
	size_t i, n = 0;

	if (dev_snapshot(fd, at, bytes, pages).err)
		return -1;
	for (i = 0; i < pages; i++)
		n += bytes[i] == byte;
	return n;
}

/* How many of them are on the device. */
static size_t count_local(int fd, const char *at, size_t pages, unsigned char local)
{
	unsigned char bytes[pages];
	size_t i, n = 0;

	if (dev_snapshot(fd, at, bytes, pages).err)
		return -1;
	for (i = 0; i < pages; i++)
		n += (bytes[i] & ORIGIN) == local;
	return n;
}

#define LOCAL(npages)	count_local(self->fd, self->at, npages, variant->local)

/* All of self->at is on the device, as it was. */
#define MOVE_IN() do {							\
	memset(self->buf, 0, self->bytes);				\
	EXPECT_DONE(to_dev(self->fd, self->at, self->buf, PAGES), PAGES, 0); \
	ASSERT_EQ(0, memcmp_pattern(self->buf, self->bytes));		\
	ASSERT_EQ(PAGES, LOCAL(PAGES));					\
} while (0)

static int memcmp_pattern(const char *at, size_t bytes)
{
	return pattern_check(at, bytes, 1) != -1;
}

/* What a child has to say: 0 if all was well. */
static int reap(pid_t child)
{
	int status = -1;

	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* ---- There and back ---- */

TEST_F(migrate, back_by_request)
{
	MOVE_IN();
	EXPECT_EQ(PAGES, count(self->fd, self->at, PAGES, variant->local | WRITABLE));
	EXPECT_DONE(to_sys(self->fd, self->at, PAGES), PAGES, 0);
	EXPECT_EQ(PAGES, count(self->fd, self->at, PAGES, WRITABLE));
	EXPECT_EQ(PAGES, pagemap_count(self->at, PAGES, PM_PRESENT));
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 1));
}

TEST_F(migrate, back_by_touch)
{
	size_t i;

	MOVE_IN();
	for (i = 0; i < PAGES; i++) {
		EXPECT_EQ(-1, pattern_check(self->at, (i + 1) * page_size, 1));
		EXPECT_EQ(variant->is_private ? PAGES - i - 1 : PAGES, LOCAL(PAGES));
	}
	/* The CPU has written: the device gets the new data. */
	pattern_fill(self->at, self->bytes, 2);
	EXPECT_DONE(dev_read(self->fd, self->at, self->buf, PAGES), PAGES,
		    variant->is_private ? 1 : 0);
	EXPECT_EQ(-1, pattern_check(self->buf, self->bytes, 2));
}

TEST_F(migrate, back_by_touch_of_the_kernel)
{
	int pair[2];

	MOVE_IN();
	ASSERT_EQ(0, pipe(pair));
	ASSERT_EQ(page_size, write(pair[1], self->at, page_size));
	ASSERT_EQ(page_size, read(pair[0], self->buf, page_size));
	EXPECT_EQ(-1, pattern_check(self->buf, page_size, 1));
	EXPECT_EQ(variant->is_private ? PAGES - 1 : PAGES, LOCAL(PAGES));
}

/* The device works on its own memory, and no page comes home for that. */
TEST_F(migrate, device_writes)
{
	MOVE_IN();
	pattern_fill(self->buf, self->bytes, 2);
	EXPECT_DONE(dev_write(self->fd, self->at, self->buf, PAGES), PAGES, 0);
	EXPECT_EQ(PAGES, LOCAL(PAGES));
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 2));
}

TEST_F(migrate, untouched)
{
	char *fresh = map_small(self->bytes);

	memset(self->buf, 0xff, self->bytes);
	EXPECT_DONE(to_dev(self->fd, fresh, self->buf, PAGES), PAGES, 0);
	EXPECT_EQ(-1, zero_check(self->buf, self->bytes));
	EXPECT_EQ(PAGES, count(self->fd, fresh, PAGES, variant->local | WRITABLE));
	EXPECT_EQ(-1, zero_check(fresh, self->bytes));
}

/* The page of zeroes stays what it is for everybody else. */
TEST_F(migrate, zero_page)
{
	char *mine = map_small(self->bytes);
	char *others = map_small_as(self->bytes, PROT_READ, MAP_PRIVATE);

	EXPECT_EQ(-1, zero_check(mine, self->bytes));
	EXPECT_EQ(-1, zero_check(others, self->bytes));
	ASSERT_EQ(PAGES, count(self->fd, mine, PAGES,
			       READABLE | HMM_DMIRROR_PROT_ZERO));
	EXPECT_DONE(to_dev(self->fd, mine, self->buf, PAGES), PAGES, 0);
	EXPECT_EQ(-1, zero_check(self->buf, self->bytes));
	pattern_fill(self->buf, self->bytes, 2);
	EXPECT_EQ(0, dev_write(self->fd, mine, self->buf, PAGES).err);
	EXPECT_EQ(-1, pattern_check(mine, self->bytes, 2));
	EXPECT_EQ(-1, zero_check(others, self->bytes));
}

/* Pages that are there already stay, and so do the device's entries for them. */
TEST_F(migrate, twice)
{
	struct reply reply;
	size_t i;

	MOVE_IN();
	ASSERT_EQ(0, to_sys(self->fd, self->at, PAGES / 2).err);
	for (i = 0; i < PAGES; i += 3)
		ASSERT_EQ(0, to_sys(self->fd, self->at + i * page_size, 1).err);
	MOVE_IN();
	/* Nothing is left to be done. */
	MOVE_IN();
	reply = dev_read(self->fd, self->at, self->buf, PAGES);
	EXPECT_EQ(0, reply.batches);
}

TEST_F(migrate, huge_pages)
{
	struct mem mem;
	size_t pages;
	char *buf;

	if (!mem_map(&mem, ANON_THP, pmd_size))
		SKIP(return, "%s", mem.why);
	pages = mem.len / page_size;
	buf = buffer(mem.len);
	pattern_fill(mem.addr, mem.len, 3);
	EXPECT_DONE(to_dev(self->fd, mem.addr, buf, pages), pages, 0);
	EXPECT_EQ(-1, pattern_check(buf, mem.len, 3));
	EXPECT_DONE(to_sys(self->fd, mem.addr, pages), pages, 0);
	EXPECT_EQ(-1, pattern_check(mem.addr, mem.len, 3));
	mem_unmap(&mem);
}

/* Neighbours that stay where they are, and pages that never were there. */
TEST_F(migrate, back_in_part)
{
	char *fresh = map_small(self->bytes);

	EXPECT_DONE(to_dev(self->fd, self->at, self->buf, 10), 10, 0);
	EXPECT_DONE(to_sys(self->fd, self->at, PAGES), 10, 0);
	EXPECT_DONE(to_sys(self->fd, self->at, PAGES), 0, 0);
	EXPECT_DONE(to_sys(self->fd, fresh, PAGES), 0, 0);
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 1));
}

/* ---- What cannot move ---- */

TEST_F(migrate, holes)
{
	const unsigned long requests[] = {
		HMM_DMIRROR_MIGRATE_TO_DEV, HMM_DMIRROR_MIGRATE_TO_SYS,
	};
	char *hole = self->at + (PAGES - 1) * page_size;
	size_t i;

	for (i = 0; i < ARRAY_LEN(requests); i++) {
		ASSERT_EQ(0, mprotect(hole, page_size, PROT_NONE));
		EXPECT_EQ(-EINVAL, dev_request(self->fd, requests[i], self->at,
					       self->buf, PAGES).err);
		EXPECT_EQ(-EINVAL, dev_request(self->fd, requests[i], hole,
					       self->buf, 1).err);
		ASSERT_EQ(0, mprotect(hole, page_size, PROT_READ | PROT_WRITE));
	}
	ASSERT_EQ(0, munmap(hole, page_size));
	for (i = 0; i < ARRAY_LEN(requests); i++) {
		EXPECT_EQ(-EINVAL, dev_request(self->fd, requests[i], self->at,
					       self->buf, PAGES).err);
		EXPECT_EQ(-EINVAL, dev_request(self->fd, requests[i], hole,
					       self->buf, 1).err);
	}
	/* Not even the part that could have. */
	EXPECT_EQ(0, LOCAL(PAGES - 1));
}

TEST_F(migrate, hugetlb)
{
	struct mem mem;

	if (!mem_map(&mem, HUGETLB_2M, page_size))
		SKIP(return, "%s", mem.why);
	mem.addr[0] = 1;
	EXPECT_EQ(-EINVAL, to_dev(self->fd, mem.addr, self->buf, 1).err);
	EXPECT_EQ(1, mem.addr[0]);
	mem_unmap(&mem);
}

TEST_F(migrate, shared)
{
	char *at = map_small_as(self->bytes, PROT_READ | PROT_WRITE, MAP_SHARED);

	EXPECT_EQ(-ENOENT, to_dev(self->fd, at, self->buf, PAGES).err);
	pattern_fill(at, self->bytes, 4);
	EXPECT_EQ(-ENOENT, to_dev(self->fd, at, self->buf, PAGES).err);
	/* That the device can read it does not mean that it has it. */
	EXPECT_EQ(0, dev_read(self->fd, at, self->buf, PAGES).err);
	EXPECT_EQ(-ENOENT, to_dev(self->fd, at, self->buf, PAGES).err);
	EXPECT_EQ(-1, pattern_check(at, self->bytes, 4));
}

/* Of a private mapping, what has been written to. */
TEST_F(migrate, file)
{
	struct mem mem;

	if (!mem_map(&mem, TMPFS_PRIVATE, self->bytes))
		SKIP(return, "%s", mem.why);
	EXPECT_EQ(-1, zero_check(mem.addr, mem.len));
	EXPECT_EQ(-ENOENT, to_dev(self->fd, mem.addr, self->buf, PAGES).err);
	pattern_fill(mem.addr, mem.len, 5);
	EXPECT_DONE(to_dev(self->fd, mem.addr, self->buf, PAGES), PAGES, 0);
	EXPECT_EQ(-1, pattern_check(self->buf, self->bytes, 5));
	EXPECT_EQ(-1, pattern_check(mem.addr, self->bytes, 5));
	mem_unmap(&mem);
}

/* ---- Two devices ---- */

TEST_F(migrate, other_device)
{
	MOVE_IN();
	EXPECT_EQ(PAGES, count(self->other, self->at, PAGES, variant->remote));
	EXPECT_EQ(-ENOENT, to_dev(self->other, self->at, self->buf, PAGES).err);
	EXPECT_DONE(to_sys(self->other, self->at, PAGES), 0, 0);
	EXPECT_EQ(PAGES, LOCAL(PAGES));

	/* To read it the other one brings it home, if it has to. */
	memset(self->buf, 0, self->bytes);
	EXPECT_DONE(dev_read(self->other, self->at, self->buf, PAGES), PAGES, 1);
	EXPECT_EQ(-1, pattern_check(self->buf, self->bytes, 1));
	EXPECT_EQ(variant->is_private ? 0 : PAGES, LOCAL(PAGES));

	EXPECT_EQ(0, to_sys(self->fd, self->at, PAGES).err);
	EXPECT_DONE(to_dev(self->other, self->at, self->buf, PAGES), PAGES, 0);
	EXPECT_EQ(0, LOCAL(PAGES));
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 1));
}

/* One device reads; its translation goes when another takes the page. */
TEST_F(migrate, taken_from_a_reader)
{
	EXPECT_DONE(dev_read(self->other, self->at, self->buf, PAGES), PAGES, 1);
	MOVE_IN();
	pattern_fill(self->buf, self->bytes, 2);
	EXPECT_EQ(0, dev_write(self->fd, self->at, self->buf, PAGES).err);
	EXPECT_DONE(dev_read(self->other, self->at, self->buf, PAGES), PAGES, 1);
	EXPECT_EQ(-1, pattern_check(self->buf, self->bytes, 2));
}

/* ---- What the process does ---- */

TEST_F(migrate, mprotect)
{
	MOVE_IN();
	ASSERT_EQ(0, mprotect(self->at, self->bytes, PROT_READ));
	EXPECT_EQ(PAGES, count(self->fd, self->at, PAGES, variant->local | READABLE));
	EXPECT_EQ(-EPERM, dev_write(self->fd, self->at, self->buf, PAGES).err);
	EXPECT_EQ(0, dev_read(self->fd, self->at, self->buf, PAGES).err);
	EXPECT_EQ(-1, pattern_check(self->buf, self->bytes, 1));
	EXPECT_EQ(PAGES, LOCAL(PAGES));
	ASSERT_EQ(0, mprotect(self->at, self->bytes, PROT_NONE));
	EXPECT_EQ(-EFAULT, dev_read(self->fd, self->at, self->buf, 1).err);
	ASSERT_EQ(0, mprotect(self->at, self->bytes, PROT_READ | PROT_WRITE));
	pattern_fill(self->buf, self->bytes, 2);
	EXPECT_EQ(0, dev_write(self->fd, self->at, self->buf, PAGES).err);
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 2));
}

TEST_F(migrate, read_only_mapping)
{
	ASSERT_EQ(0, mprotect(self->at, self->bytes, PROT_READ));
	EXPECT_DONE(to_dev(self->fd, self->at, self->buf, PAGES), PAGES, 0);
	EXPECT_EQ(PAGES, count(self->fd, self->at, PAGES, variant->local | READABLE));
	EXPECT_EQ(-EPERM, dev_write(self->fd, self->at, self->buf, 1).err);
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 1));
}

TEST_F(migrate, munmap)
{
	size_t half = self->bytes / 2;

	MOVE_IN();
	ASSERT_EQ(0, munmap(self->at, half));
	EXPECT_EQ(-EFAULT, dev_read(self->fd, self->at, self->buf, 1).err);
	EXPECT_EQ(0, dev_read(self->fd, self->at + half, self->buf, PAGES / 2).err);
	ASSERT_EQ(0, madvise(self->at + half, half, MADV_DONTNEED));
	EXPECT_EQ(0, dev_read(self->fd, self->at + half, self->buf, PAGES / 2).err);
	EXPECT_EQ(-1, zero_check(self->buf, half));
	EXPECT_EQ(-1, zero_check(self->at + half, half));
	EXPECT_EQ(0, release(self->fd, self->at));
}

TEST_F(migrate, mremap)
{
	char *to = map_small_as(self->bytes, PROT_NONE, MAP_PRIVATE);

	MOVE_IN();
	ASSERT_EQ(to, mremap(self->at, self->bytes, self->bytes,
			     MREMAP_MAYMOVE | MREMAP_FIXED, to));
	EXPECT_EQ(-EFAULT, dev_read(self->fd, self->at, self->buf, 1).err);
	EXPECT_EQ(PAGES, count_local(self->fd, to, PAGES, variant->local));
	EXPECT_EQ(0, dev_read(self->fd, to, self->buf, PAGES).err);
	EXPECT_EQ(-1, pattern_check(self->buf, self->bytes, 1));
	EXPECT_EQ(-1, pattern_check(to, self->bytes, 1));
}

/* Wherever the pages are, they are the process's. */
TEST_F(migrate, rss)
{
	long kib = self->bytes >> 10;

	ASSERT_EQ(kib, smaps_field(self->at, "Rss"));
	MOVE_IN();
	EXPECT_EQ(kib, smaps_field(self->at, "Rss"));
	EXPECT_EQ(0, to_sys(self->fd, self->at, PAGES / 2).err);
	EXPECT_EQ(kib, smaps_field(self->at, "Rss"));
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 1));
	EXPECT_EQ(kib, smaps_field(self->at, "Rss"));
	MOVE_IN();
	ASSERT_EQ(0, madvise(self->at, self->bytes, MADV_DONTNEED));
	EXPECT_EQ(0, smaps_field(self->at, "Rss"));
}

/* The file is closed, the memory stays where it is, and comes home all the same. */
TEST_F(migrate, closed)
{
	MOVE_IN();
	close(self->fd);
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 1));
	pattern_fill(self->at, self->bytes, 2);
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 2));
	self->fd = dev_open(variant->minor);
	EXPECT_EQ(0, dev_read(self->fd, self->at, self->buf, PAGES).err);
	EXPECT_EQ(-1, pattern_check(self->buf, self->bytes, 2));
}

/* ---- Children ---- */

TEST_F(migrate, child_reads_and_writes)
{
	pid_t child;

	MOVE_IN();
	child = fork();
	if (!child) {
		if (pattern_check(self->at, self->bytes, 1) != -1)
			_exit(1);
		pattern_fill(self->at, self->bytes, 2);
		_exit(pattern_check(self->at, self->bytes, 2) != -1);
	}
	EXPECT_EQ(0, reap(child));
	EXPECT_EQ(0, dev_read(self->fd, self->at, self->buf, PAGES).err);
	EXPECT_EQ(-1, pattern_check(self->buf, self->bytes, 1));
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 1));
}

/* A page that two processes have: what one writes is not the other's. */
#define WITH_CHILD(work) do {						\
	int go[2];							\
	pid_t child;							\
	char c;								\
									\
	ASSERT_EQ(0, pipe(go));						\
	child = fork();							\
	if (!child) {							\
		close(go[1]);						\
		if (read(go[0], &c, 1) < 0)				\
			_exit(2);					\
		_exit(pattern_check(self->at, self->bytes, 1) != -1);	\
	}								\
	work;								\
	close(go[1]);							\
	EXPECT_EQ(0, reap(child));					\
	close(go[0]);							\
} while (0)

TEST_F(migrate, parent_writes)
{
	MOVE_IN();
	WITH_CHILD(pattern_fill(self->at, self->bytes, 2));
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 2));
}

TEST_F(migrate, device_writes_for_parent)
{
	MOVE_IN();
	pattern_fill(self->buf, self->bytes, 2);
	WITH_CHILD(EXPECT_EQ(0, dev_write(self->fd, self->at, self->buf,
					  PAGES).err));
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 2));
}

TEST_F(migrate, parent_takes_back)
{
	MOVE_IN();
	WITH_CHILD(EXPECT_DONE(to_sys(self->fd, self->at, PAGES), PAGES, 0));
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 1));
}

TEST_F(migrate, shared_with_a_child_first)
{
	WITH_CHILD(EXPECT_DONE(to_dev(self->fd, self->at, self->buf, PAGES),
			       PAGES, 0));
	EXPECT_EQ(-1, pattern_check(self->buf, self->bytes, 1));
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 1));
}

/* Processes that end with pages on the device leave none behind. */
TEST_F(migrate, exit_on_device)
{
	int round;

	for (round = 0; round < 6; round++) {
		pid_t child = fork();

		if (!child) {
			int fd = dev_open(variant->minor);

			if (to_dev(fd, self->at, self->buf, PAGES).err)
				_exit(1);
			if (round % 2)
				raise(SIGKILL);
			_exit(0);
		}
		EXPECT_EQ(round % 2 ? -1 : 0, reap(child));
	}
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 1));
	EXPECT_EQ(0, release(self->fd, self->at));
}

/* Killed at any point of a migration. */
TEST_F(migrate, killed_at_work)
{
	int round;

	for (round = 0; round < 20; round++) {
		int ready[2];
		pid_t child;
		char c;

		ASSERT_EQ(0, pipe(ready));
		child = fork();
		if (!child) {
			int fd = dev_open(variant->minor);

			if (write(ready[1], "", 1) != 1)
				_exit(1);
			for (;;) {
				to_dev(fd, self->at, self->buf, PAGES);
				to_sys(fd, self->at, PAGES / 2);
			}
		}
		ASSERT_EQ(1, read(ready[0], &c, 1));
		usleep(round * 1000);
		kill(child, SIGKILL);
		EXPECT_EQ(-1, reap(child));
		close(ready[0]);
		close(ready[1]);
	}
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 1));
	EXPECT_EQ(0, release(self->fd, self->at));
}

/* ---- All of the memory ---- */

TEST_F(migrate, release)
{
	EXPECT_EQ(0, release(self->fd, self->at));
	MOVE_IN();
	EXPECT_EQ(0, release(self->fd, self->at));
	EXPECT_EQ(PAGES, count(self->fd, self->at, PAGES, WRITABLE));
	EXPECT_EQ(0, release(self->fd, self->at));
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 1));
	MOVE_IN();
}

/* Whoever has pages there: another process, a child that never asked for it. */
TEST_F(migrate, release_with_others)
{
	int moved[2], go[2], i;
	pid_t child[3];
	char c;

	ASSERT_EQ(0, pipe(moved));
	ASSERT_EQ(0, pipe(go));
	for (i = 0; i < 3; i++) {
		child[i] = fork();
		if (child[i])
			continue;
		close(go[1]);
		self->fd = dev_open(variant->minor);
		pattern_fill(self->at, self->bytes, 10 + i);
		if (to_dev(self->fd, self->at, self->buf, PAGES).err)
			_exit(1);
		/* Its own child has the same pages, and no device. */
		if (!fork())
			close(self->fd);
		if (write(moved[1], "", 1) != 1 || read(go[0], &c, 1) < 0)
			_exit(2);
		_exit(pattern_check(self->at, self->bytes, 10 + i) != -1);
	}
	for (i = 0; i < 6; i++)
		ASSERT_EQ(1, read(moved[0], &c, 1));
	MOVE_IN();
	EXPECT_EQ(0, release(self->fd, self->at));
	EXPECT_EQ(0, LOCAL(PAGES));
	close(go[1]);
	for (i = 0; i < 3; i++)
		EXPECT_EQ(0, reap(child[i]));
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 1));
}

/* What does not fit stays behind, and is not lost. */
TEST_F(migrate, full)
{
	size_t room = (2 << 20) / page_size, pages = 2 * room;
	size_t bytes = pages * page_size;
	char *at = map_small(bytes);
	char *buf = buffer(bytes);

	pattern_fill(at, bytes, 6);
	ASSERT_TRUE(write_number(PARAMETERS "memory_mib", 2));
	ASSERT_EQ(0, release(self->fd, at));
	EXPECT_EQ(-ENOENT, to_dev(self->fd, at, buf, pages).err);
	EXPECT_EQ(room, count_local(self->fd, at, pages, variant->local));
	EXPECT_EQ(-ENOENT, to_dev(self->fd, at, buf, pages).err);
	EXPECT_EQ(0, dev_read(self->fd, at, buf, pages).err);
	EXPECT_EQ(-1, pattern_check(buf, bytes, 6));
	EXPECT_DONE(to_sys(self->fd, at, pages), room, 0);
	/* All pages have come back: it fits as much again. */
	EXPECT_EQ(0, to_dev(self->fd, at + bytes / 2, buf, room).err);
	EXPECT_EQ(-1, pattern_check(at, bytes, 6));

	ASSERT_TRUE(write_number(PARAMETERS "memory_mib", 256));
	ASSERT_EQ(0, release(self->fd, at));
	EXPECT_DONE(to_dev(self->fd, at, buf, pages), pages, 0);
	EXPECT_EQ(-1, pattern_check(at, bytes, 6));
}

/* Memory that cannot be had is an error, and the next try is a new one. */
TEST_F(migrate, impossible_size)
{
	const long sizes[] = { 0, 1, 3 };
	size_t i;

	for (i = 0; i < ARRAY_LEN(sizes); i++) {
		ASSERT_EQ(0, release(self->fd, self->at));
		ASSERT_TRUE(write_number(PARAMETERS "memory_mib", sizes[i]));
		EXPECT_GT(0, to_dev(self->fd, self->at, self->buf, PAGES).err);
		ASSERT_TRUE(write_number(PARAMETERS "memory_mib", 256));
		MOVE_IN();
	}
}

/* ---- At the same time ---- */

/* No increment of a CPU's is lost while the page under it goes to and fro. */
TEST_F(migrate, cpus_at_work)
{
	long *words = (long *)self->at, sums[2] = { 0 };
	pthread_t threads[3];
	size_t i, moves = 0;
	void *n;
	int err;

	memset(self->at, 0, self->bytes);
	count_begin();
	/* The first increments find it there. */
	ASSERT_EQ(0, to_dev(self->fd, self->at, self->buf, 2).err);
	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, count_up,
					    self->at + i / 2 * page_size));
	for (i = 0; i < 100; i++) {
		err = to_dev(self->fd, self->at, self->buf, 2).err;
		/* It came too late to read: a CPU had taken the page back already. */
		EXPECT_TRUE(!err || err == -ENOENT);
		moves += !err;
		to_sys(self->fd, self->at, 1);
	}
	count_end();
	for (i = 0; i < 3; i++) {
		pthread_join(threads[i], &n);
		sums[i / 2] += (long)n;
	}
	EXPECT_EQ(sums[0], load(words));
	EXPECT_EQ(sums[1], load(self->at + page_size));
	TH_LOG("read on the device %zu times of 100", moves);
}

TEST_HARNESS_MAIN
