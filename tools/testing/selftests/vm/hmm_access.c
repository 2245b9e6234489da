// SPDX-License-Identifier: GPL-2.0
/*
 * The device reads and writes memory of every kind: what it sees is what the
 * CPU sees, before and after all that a process may do to its own mappings.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "hmm_dev.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT DEV_TIMEOUT

/* Of a mapping of gigantic pages, a part that does not take all day. */
#define MOST_BYTES	(4UL << 20)

FIXTURE(access)
{
	int fd;
	struct mem mem;
	char *at;
	char *buf;
	size_t pages;
	size_t bytes;
};

FIXTURE_VARIANT(access)
{
	enum kind kind;
	size_t pages;
};

FIXTURE_VARIANT_ADD(access, anon) { ANON_PRIVATE, 64 };
FIXTURE_VARIANT_ADD(access, anon_shared) { ANON_SHARED, 64 };
FIXTURE_VARIANT_ADD(access, thp) { ANON_THP, 1024 };
FIXTURE_VARIANT_ADD(access, shmem_thp) { SHMEM_THP, 1024 };
FIXTURE_VARIANT_ADD(access, memfd) { MEMFD, 64 };
FIXTURE_VARIANT_ADD(access, tmpfs_shared) { TMPFS_SHARED, 64 };
FIXTURE_VARIANT_ADD(access, tmpfs_private) { TMPFS_PRIVATE, 64 };
FIXTURE_VARIANT_ADD(access, disk_shared) { DISK_SHARED, 64 };
FIXTURE_VARIANT_ADD(access, disk_private) { DISK_PRIVATE, 64 };
FIXTURE_VARIANT_ADD(access, dax_shared) { DAX_SHARED, 64 };
FIXTURE_VARIANT_ADD(access, dax_private) { DAX_PRIVATE, 64 };
FIXTURE_VARIANT_ADD(access, dax_2m) { DAX_2M, 1024 };
FIXTURE_VARIANT_ADD(access, device_dax_2m) { DEVICE_DAX_2M, 1024 };
FIXTURE_VARIANT_ADD(access, device_dax_1g) { DEVICE_DAX_1G, 1024 };
FIXTURE_VARIANT_ADD(access, hugetlb_2m) { HUGETLB_2M, 1024 };
FIXTURE_VARIANT_ADD(access, hugetlb_1g) { HUGETLB_1G, 1024 };

FIXTURE_SETUP(access)
{
	if (!mem_map(&self->mem, variant->kind, variant->pages * page_size))
		SKIP(return, "%s", self->mem.why);
	self->fd = dev_open(0);
	ASSERT_LE(0, self->fd);
	self->at = self->mem.addr;
	self->bytes = self->mem.len < MOST_BYTES ? self->mem.len : MOST_BYTES;
	self->pages = self->bytes / page_size;
	self->buf = buffer(self->bytes);
}

FIXTURE_TEARDOWN(access)
{
	mem_unmap(&self->mem);
	close(self->fd);
}

#define EXPECT_FAILS(request, error)	EXPECT_EQ(-(error), (request).err)

TEST_F(access, read)
{
	pattern_fill(self->at, self->bytes, 1);
	EXPECT_DONE(dev_read(self->fd, self->at, self->buf, self->pages),
		    self->pages, 1);
	EXPECT_EQ(-1, pattern_check(self->buf, self->bytes, 1));
}

TEST_F(access, read_untouched)
{
	memset(self->buf, 0xff, self->bytes);
	EXPECT_DONE(dev_read(self->fd, self->at, self->buf, self->pages),
		    self->pages, 1);
	EXPECT_EQ(-1, zero_check(self->buf, self->bytes));
}

/* The device finds a page of zeroes; the CPU's first write replaces it. */
TEST_F(access, read_then_cpu_writes)
{
	ASSERT_EQ(0, dev_read(self->fd, self->at, self->buf, self->pages).err);
	pattern_fill(self->at, self->bytes, 2);
	ASSERT_EQ(0, dev_read(self->fd, self->at, self->buf, self->pages).err);
	EXPECT_EQ(-1, pattern_check(self->buf, self->bytes, 2));
}

TEST_F(access, write_untouched)
{
	pattern_fill(self->buf, self->bytes, 3);
	EXPECT_DONE(dev_write(self->fd, self->at, self->buf, self->pages),
		    self->pages, 1);
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 3));
}

/* Some of the pages are there, some are not, some only for reading. */
TEST_F(access, write_mixed)
{
	size_t i;
	long found = 0;

	for (i = 0; i < self->pages; i += 3)
		self->at[i * page_size] = 1;
	for (i = 1; i < self->pages; i += 3)
		found |= load(self->at + i * page_size);
	EXPECT_EQ(0, found);
	pattern_fill(self->buf, self->bytes, 4);
	EXPECT_DONE(dev_write(self->fd, self->at, self->buf, self->pages),
		    self->pages, 1);
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 4));
}

TEST_F(access, write_some)
{
	size_t half = self->bytes / 2;

	pattern_fill(self->at, self->bytes, 5);
	memset(self->buf, 0, self->bytes);
	EXPECT_EQ(0, dev_write(self->fd, self->at + half, self->buf, 1).err);
	EXPECT_EQ(-1, zero_check(self->at + half, page_size));
	ASSERT_EQ(0, dev_read(self->fd, self->at, self->buf, self->pages).err);
	EXPECT_EQ(half, pattern_check(self->buf, self->bytes, 5));
	pattern_fill(self->buf, self->bytes, 5);
	memset(self->buf + half, 0, page_size);
	EXPECT_EQ(0, memcmp(self->at, self->buf, self->bytes));
}

/* Nothing happens between two requests: the second has all it needs. */
TEST_F(access, translations_last)
{
	pattern_fill(self->at, self->bytes, 6);
	ASSERT_EQ(0, mlock(self->at, self->mem.len));
	ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, self->pages).err);
	EXPECT_DONE(dev_read(self->fd, self->at, self->buf, self->pages),
		    self->pages, 0);
	EXPECT_DONE(dev_write(self->fd, self->at, self->buf, self->pages),
		    self->pages, 0);
}

TEST_F(access, back_and_forth)
{
	unsigned int round;

	for (round = 10; round < 20; round += 2) {
		pattern_fill(self->at, self->bytes, round);
		ASSERT_EQ(0, dev_read(self->fd, self->at, self->buf,
				      self->pages).err);
		ASSERT_EQ(-1, pattern_check(self->buf, self->bytes, round));
		pattern_fill(self->buf, self->bytes, round + 1);
		ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf,
				       self->pages).err);
		ASSERT_EQ(-1, pattern_check(self->at, self->bytes, round + 1));
	}
}

TEST_F(access, two_devices)
{
	int other = dev_open(1);

	ASSERT_LE(0, other);
	ASSERT_EQ(0, dev_read(other, self->at, self->buf, self->pages).err);
	pattern_fill(self->buf, self->bytes, 20);
	ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, self->pages).err);
	memset(self->buf, 0, self->bytes);
	ASSERT_EQ(0, dev_read(other, self->at, self->buf, self->pages).err);
	EXPECT_EQ(-1, pattern_check(self->buf, self->bytes, 20));
	close(other);
}

/*
 * In 6.12.y fork() may take the table that holds gigantic pages for a shared
 * one, and leave the child without them: there is nothing to compare.
 */
#define LOST_BY_FORK	"fork() may lose gigantic pages"

/* In the child: a device of its own finds the parent's data, and writes. */
static int child_writes(char *at, char *buf, size_t pages, int seed)
{
	int fd = dev_open(0);

	if (fd < 0 || dev_read(fd, at, buf, pages).err)
		return 1;
	if (pattern_check(buf, pages * page_size, seed) != -1)
		return 2;
	pattern_fill(buf, pages * page_size, seed + 1);
	if (dev_write(fd, at, buf, pages).err)
		return 3;
	return pattern_check(at, pages * page_size, seed + 1) == -1 ? 0 : 4;
}

TEST_F(access, child_writes)
{
	int status, seen;

	if (variant->kind == HUGETLB_1G)
		SKIP(return, LOST_BY_FORK);
	pattern_fill(self->at, self->bytes, 30);
	ASSERT_EQ(0, dev_read(self->fd, self->at, self->buf, self->pages).err);
	if (!fork())
		_exit(child_writes(self->at, self->buf, self->pages, 30));
	wait(&status);
	EXPECT_EQ(0, status);

	seen = self->mem.is_private ? 30 : 31;
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, seen));
	ASSERT_EQ(0, dev_read(self->fd, self->at, self->buf, self->pages).err);
	EXPECT_EQ(-1, pattern_check(self->buf, self->bytes, seen));
}

/*
 * The parent's device may write before fork(), and has to come back for a copy
 * after it: a device that missed fork() would write into the child's memory.
 */
TEST_F(access, parent_writes)
{
	int to_child[2], status, seen = self->mem.is_private ? 40 : 41;
	pid_t child;
	char c;

	if (variant->kind == HUGETLB_1G)
		SKIP(return, LOST_BY_FORK);
	ASSERT_EQ(0, pipe(to_child));
	pattern_fill(self->buf, self->bytes, 40);
	ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, self->pages).err);
	child = fork();
	if (!child) {
		if (read(to_child[0], &c, 1) != 1)
			_exit(2);
		_exit(pattern_check(self->at, self->bytes, seen) != -1);
	}
	pattern_fill(self->buf, self->bytes, 41);
	EXPECT_EQ(0, dev_write(self->fd, self->at, self->buf, self->pages).err);
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 41));
	ASSERT_EQ(1, write(to_child[1], "", 1));
	waitpid(child, &status, 0);
	EXPECT_EQ(0, status);
}

TEST_F(access, write_protected)
{
	pattern_fill(self->buf, self->bytes, 50);
	ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, self->pages).err);
	ASSERT_EQ(0, mprotect(self->at, self->mem.len, PROT_READ));
	EXPECT_EQ(0, dev_read(self->fd, self->at, self->buf, self->pages).err);
	memset(self->buf, 0, self->bytes);
	EXPECT_FAILS(dev_write(self->fd, self->at, self->buf, self->pages), EPERM);
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 50));

	ASSERT_EQ(0, mprotect(self->at, self->mem.len, PROT_READ | PROT_WRITE));
	pattern_fill(self->buf, self->bytes, 51);
	EXPECT_DONE(dev_write(self->fd, self->at, self->buf, self->pages),
		    self->pages, 1);
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 51));
}

TEST_F(access, never_writable)
{
	ASSERT_EQ(0, mprotect(self->at, self->mem.len, PROT_READ));
	EXPECT_DONE(dev_read(self->fd, self->at, self->buf, 1), 1, 1);
	EXPECT_EQ(-1, zero_check(self->buf, page_size));
	EXPECT_FAILS(dev_write(self->fd, self->at, self->buf, self->pages), EPERM);
	EXPECT_EQ(-1, zero_check(self->at, self->bytes));
}

TEST_F(access, no_access)
{
	/* With CONFIG_DEBUG_VM; pudp_invalidate() takes it for not present. */
	if (variant->kind == DEVICE_DAX_1G)
		SKIP(return, "the kernel may warn of a PUD without access");
	pattern_fill(self->at, self->bytes, 60);
	ASSERT_EQ(0, dev_read(self->fd, self->at, self->buf, self->pages).err);
	ASSERT_EQ(0, mprotect(self->at, self->mem.len, PROT_NONE));
	memset(self->buf, 0x55, self->bytes);
	EXPECT_FAILS(dev_read(self->fd, self->at, self->buf, self->pages), EFAULT);
	EXPECT_FAILS(dev_write(self->fd, self->at, self->buf, self->pages), EFAULT);
	EXPECT_EQ(0x55, self->buf[0]);
	EXPECT_EQ(0, memcmp(self->buf, self->buf + 1, self->bytes - 1));

	ASSERT_EQ(0, mprotect(self->at, self->mem.len, PROT_READ | PROT_WRITE));
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 60));
	EXPECT_EQ(0, dev_read(self->fd, self->at, self->buf, self->pages).err);
	EXPECT_EQ(-1, pattern_check(self->buf, self->bytes, 60));
}

TEST_F(access, unmapped)
{
	size_t half = self->mem.len / 2;

	if (half < self->mem.leaf)
		half = 0;
	pattern_fill(self->at, self->bytes, 70);
	ASSERT_EQ(0, dev_read(self->fd, self->at, self->buf, self->pages).err);
	ASSERT_EQ(0, munmap(self->at + half, self->mem.len - half));
	EXPECT_FAILS(dev_read(self->fd, self->at, self->buf, self->pages), EFAULT);
	EXPECT_FAILS(dev_write(self->fd, self->at + half, self->buf, 1), EFAULT);
	if (half) {
		EXPECT_DONE(dev_read(self->fd, self->at, self->buf,
				     half / page_size), half / page_size, 0);
		EXPECT_EQ(-1, pattern_check(self->buf, half, 70));
	}
	self->mem.len = half;
	if (!half)
		self->mem.addr = NULL;
}

/* Other memory takes the place of memory that the device knows. */
TEST_F(access, replaced)
{
	pattern_fill(self->at, self->bytes, 80);
	ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, self->pages).err);
	ASSERT_EQ(self->at, mmap(self->at, self->mem.len, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	ASSERT_EQ(0, dev_read(self->fd, self->at, self->buf, self->pages).err);
	EXPECT_EQ(-1, zero_check(self->buf, self->bytes));
	pattern_fill(self->buf, self->bytes, 81);
	ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, self->pages).err);
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 81));
}

TEST_F(access, moved)
{
	size_t leaf = self->mem.leaf, len = self->mem.len;
	char *to, *room;

	pattern_fill(self->buf, self->bytes, 90);
	ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, self->pages).err);
	room = mmap(NULL, len + leaf, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT_NE(MAP_FAILED, room);
	to = (char *)(((uintptr_t)room + leaf - 1) / leaf * leaf);
	ASSERT_EQ(to, mremap(self->at, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to));

	EXPECT_FAILS(dev_read(self->fd, self->at, self->buf, self->pages), EFAULT);
	memset(self->buf, 0, self->bytes);
	EXPECT_EQ(0, dev_read(self->fd, to, self->buf, self->pages).err);
	EXPECT_EQ(-1, pattern_check(self->buf, self->bytes, 90));
	pattern_fill(self->buf, self->bytes, 91);
	EXPECT_EQ(0, dev_write(self->fd, to, self->buf, self->pages).err);
	EXPECT_EQ(-1, pattern_check(to, self->bytes, 91));
	self->mem.addr = to;
}

/* Private memory loses what was written; shared memory is the file's. */
TEST_F(access, dropped)
{
	pattern_fill(self->buf, self->bytes, 100);
	ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, self->pages).err);
	ASSERT_EQ(0, madvise(self->at, self->mem.len, MADV_DONTNEED));
	ASSERT_EQ(0, dev_read(self->fd, self->at, self->buf, self->pages).err);
	EXPECT_EQ(-1, self->mem.is_private ?
		  zero_check(self->buf, self->bytes) :
		  pattern_check(self->buf, self->bytes, 100));
	EXPECT_EQ(0, memcmp(self->at, self->buf, self->bytes));
}

/* After the device is gone, what it wrote stays. */
TEST_F(access, closed)
{
	pattern_fill(self->buf, self->bytes, 110);
	ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, self->pages).err);
	ASSERT_EQ(0, close(self->fd));
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 110));
	self->fd = dev_open(0);
	ASSERT_EQ(0, dev_read(self->fd, self->at, self->buf, self->pages).err);
	EXPECT_EQ(-1, pattern_check(self->buf, self->bytes, 110));
}

TEST_HARNESS_MAIN
