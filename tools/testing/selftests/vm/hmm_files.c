// SPDX-License-Identifier: GPL-2.0
/*
 * Files under the device: what it writes through a mapping reaches the file,
 * what happens to the file reaches the device.
 *
 * The page-table entry of a page that only the device wrote may be clean. In
 * these tests the data is lost unless the device tells the kernel that it wrote.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "hmm_dev.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT DEV_TIMEOUT

#define PAGES	32

FIXTURE(files)
{
	int fd;
	struct mem mem;
	char *at;
	char *buf;
	size_t bytes;
};

FIXTURE_VARIANT(files)
{
	enum kind kind;
};

FIXTURE_VARIANT_ADD(files, memfd) { .kind = MEMFD };
FIXTURE_VARIANT_ADD(files, tmpfs) { .kind = TMPFS_SHARED };
FIXTURE_VARIANT_ADD(files, disk) { .kind = DISK_SHARED };
FIXTURE_VARIANT_ADD(files, dax) { .kind = DAX_SHARED };
FIXTURE_VARIANT_ADD(files, dax_2m) { .kind = DAX_2M };

FIXTURE_SETUP(files)
{
	self->bytes = PAGES * page_size;
	if (!mem_map(&self->mem, variant->kind, self->bytes))
		SKIP(return, "%s", self->mem.why);
	self->fd = dev_open(0);
	ASSERT_LE(0, self->fd);
	self->at = self->mem.addr;
	self->buf = buffer(self->bytes);
}

FIXTURE_TEARDOWN(files)
{
	mem_unmap(&self->mem);
	close(self->fd);
}

static void forget_cached(int fd)
{
	fsync(fd);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	write_number("/proc/sys/vm/drop_caches", 1);
}

/* What a program finds that knows nothing of the mapping. */
static long file_check(int fd, char *buf, size_t len, unsigned int seed)
{
	memset(buf, 0, len);
	if (pread(fd, buf, len, 0) != (ssize_t)len)
		return -2;
	return pattern_check(buf, len, seed);
}

TEST_F(files, device_writes_file_reads)
{
	pattern_fill(self->buf, self->bytes, 1);
	ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, PAGES).err);
	EXPECT_EQ(-1, file_check(self->mem.fd, self->buf, self->bytes, 1));
}

TEST_F(files, file_writes_device_reads)
{
	unsigned int seed;

	for (seed = 1; seed < 4; seed++) {
		pattern_fill(self->buf, self->bytes, seed);
		ASSERT_EQ(self->bytes, pwrite(self->mem.fd, self->buf,
					      self->bytes, 0));
		memset(self->buf, 0, self->bytes);
		ASSERT_EQ(0, dev_read(self->fd, self->at, self->buf, PAGES).err);
		EXPECT_EQ(-1, pattern_check(self->buf, self->bytes, seed));
	}
}

/*
 * Each msync() cleans the pages under the device's hands; it may not go on
 * writing through what it had, or the next msync() has nothing to write.
 */
TEST_F(files, msync_and_drop_caches)
{
	unsigned int seed;

	for (seed = 1; seed < 5; seed++) {
		pattern_fill(self->buf, self->bytes, seed);
		ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, PAGES).err);
		ASSERT_EQ(0, msync(self->at, self->bytes, MS_SYNC));
		ASSERT_EQ(0, madvise(self->at, self->bytes, MADV_DONTNEED));
		forget_cached(self->mem.fd);
		EXPECT_EQ(-1, file_check(self->mem.fd, self->buf, self->bytes,
					 seed));
		EXPECT_EQ(-1, pattern_check(self->at, self->bytes, seed));
	}
}

/* No msync(): munmap() is the last that the kernel hears of the pages. */
TEST_F(files, unmapped_and_dropped)
{
	/* A first touch by reading maps the pages clean. */
	EXPECT_EQ(-1, zero_check(self->at, self->bytes));
	pattern_fill(self->buf, self->bytes, 1);
	ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, PAGES).err);
	ASSERT_EQ(0, munmap(self->at, self->bytes));
	self->mem.addr = NULL;
	forget_cached(self->mem.fd);
	EXPECT_EQ(-1, file_check(self->mem.fd, self->buf, self->bytes, 1));
}

/* Reclaim takes pages that nobody said were dirty without writing them. */
TEST_F(files, reclaimed)
{
	EXPECT_EQ(-1, zero_check(self->at, self->bytes));
	pattern_fill(self->buf, self->bytes, 1);
	ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, PAGES).err);
	ASSERT_EQ(0, madvise(self->at, self->bytes, MADV_PAGEOUT));
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 1));
	EXPECT_EQ(-1, file_check(self->mem.fd, self->buf, self->bytes, 1));
}

/* The file of the device is closed first: nothing is left to be told later. */
TEST_F(files, closed_then_reclaimed)
{
	EXPECT_EQ(-1, zero_check(self->at, self->bytes));
	pattern_fill(self->buf, self->bytes, 1);
	ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, PAGES).err);
	ASSERT_EQ(0, close(self->fd));
	ASSERT_EQ(0, madvise(self->at, self->bytes, MADV_PAGEOUT));
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 1));
	self->fd = dev_open(0);
}

TEST_F(files, exit_then_read)
{
	pid_t child;
	int status;

	EXPECT_EQ(-1, zero_check(self->at, self->bytes));
	pattern_fill(self->buf, self->bytes, 1);
	child = fork();
	if (!child) {
		int fd = dev_open(0);

		zero_check(self->at, self->bytes);
		if (dev_write(fd, self->at, self->buf, PAGES).err)
			_exit(1);
		_exit(0);
	}
	waitpid(child, &status, 0);
	ASSERT_EQ(0, status);
	ASSERT_EQ(0, madvise(self->at, self->bytes, MADV_PAGEOUT));
	forget_cached(self->mem.fd);
	EXPECT_EQ(-1, file_check(self->mem.fd, self->buf, self->bytes, 1));
}

TEST_F(files, truncated)
{
	size_t half = self->bytes / 2;

	pattern_fill(self->buf, self->bytes, 1);
	ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, PAGES).err);
	ASSERT_EQ(0, ftruncate(self->mem.fd, half));
	EXPECT_EQ(-EFAULT, dev_read(self->fd, self->at, self->buf, PAGES).err);
	EXPECT_EQ(-EFAULT, dev_poke(self->fd, self->at + half, 1));
	memset(self->buf, 0, self->bytes);
	EXPECT_EQ(0, dev_read(self->fd, self->at, self->buf, PAGES / 2).err);
	EXPECT_EQ(-1, pattern_check(self->buf, half, 1));

	/* Longer again, the file has nothing of what was cut off. */
	ASSERT_EQ(0, ftruncate(self->mem.fd, self->bytes));
	EXPECT_EQ(0, dev_read(self->fd, self->at, self->buf, PAGES).err);
	EXPECT_EQ(-1, zero_check(self->buf + half, half));
	EXPECT_EQ(0, dev_poke(self->fd, self->at + half, 2));
	EXPECT_EQ(2, *(long *)(self->at + half));
}

TEST_F(files, truncated_again_and_again)
{
	int round;

	for (round = 1; round <= 50; round++) {
		ASSERT_EQ(0, dev_poke(self->fd, self->at, round));
		ASSERT_EQ(0, dev_poke(self->fd, self->at + page_size, round));
		ASSERT_EQ(0, ftruncate(self->mem.fd, page_size));
		ASSERT_EQ(0, ftruncate(self->mem.fd, self->bytes));
		ASSERT_EQ(round, dev_peek(self->fd, self->at));
		ASSERT_EQ(0, dev_peek(self->fd, self->at + page_size));
	}
}

TEST_F(files, hole_punched)
{
	pattern_fill(self->buf, self->bytes, 1);
	ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, PAGES).err);
	if (fallocate(self->mem.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      page_size, 2 * page_size))
		SKIP(return, "no holes: %s", strerror(errno));
	ASSERT_EQ(0, dev_read(self->fd, self->at, self->buf, PAGES).err);
	EXPECT_EQ(-1, zero_check(self->buf + page_size, 2 * page_size));
	EXPECT_EQ(page_size, pattern_check(self->buf, self->bytes, 1));
	EXPECT_EQ(0, dev_poke(self->fd, self->at + page_size, 3));
	EXPECT_EQ(3, *(long *)(self->at + page_size));
}

/* Two mappings of one file: the device writes through one of them. */
TEST_F(files, mapped_twice)
{
	char *again = mmap(NULL, self->bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
			   self->mem.fd, 0);

	ASSERT_NE(MAP_FAILED, again);
	pattern_fill(self->buf, self->bytes, 1);
	ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, PAGES).err);
	EXPECT_EQ(-1, pattern_check(again, self->bytes, 1));
	EXPECT_EQ(0, dev_read(self->fd, again, self->buf, PAGES).err);
	EXPECT_EQ(-1, pattern_check(self->buf, self->bytes, 1));
	munmap(again, self->bytes);
}

/* A private mapping copies on the device's first write to a page. */
TEST_F(files, private_beside_shared)
{
	char *own = mmap(NULL, self->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE,
			 self->mem.fd, 0);

	ASSERT_NE(MAP_FAILED, own);
	pattern_fill(self->at, self->bytes, 1);
	ASSERT_EQ(0, dev_read(self->fd, own, self->buf, PAGES).err);
	EXPECT_EQ(-1, pattern_check(self->buf, self->bytes, 1));
	pattern_fill(self->buf, self->bytes, 2);
	ASSERT_EQ(0, dev_write(self->fd, own, self->buf, PAGES).err);
	EXPECT_EQ(-1, pattern_check(own, self->bytes, 2));
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 1));
	EXPECT_EQ(-1, file_check(self->mem.fd, self->buf, self->bytes, 1));
	munmap(own, self->bytes);
}

/* The descriptor may write the file, the mapping may not. */
TEST_F(files, mapped_for_reading)
{
	char *ro = mmap(NULL, self->bytes, PROT_READ, MAP_SHARED, self->mem.fd,
			0);

	ASSERT_NE(MAP_FAILED, ro);
	pattern_fill(self->at, self->bytes, 1);
	EXPECT_EQ(0, dev_read(self->fd, ro, self->buf, PAGES).err);
	EXPECT_EQ(-1, pattern_check(self->buf, self->bytes, 1));
	EXPECT_EQ(-EPERM, dev_write(self->fd, ro, self->buf, PAGES).err);
	munmap(ro, self->bytes);
}

TEST_F(files, past_the_end)
{
	ASSERT_EQ(0, ftruncate(self->mem.fd, page_size / 2));
	EXPECT_EQ(0, dev_poke(self->fd, self->at, 1));
	EXPECT_EQ(-EFAULT, dev_poke(self->fd, self->at + page_size, 1));
	EXPECT_EQ(-EFAULT, dev_write(self->fd, self->at, self->buf, 2).err);
}

TEST_HARNESS_MAIN
