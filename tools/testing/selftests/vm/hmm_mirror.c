// SPDX-License-Identifier: GPL-2.0
/*
 * What the dummy device does to its entries when the process changes the pages
 * under them: it leaves them alone, takes away writing, or drops them. The device
 * counts entries for each event, for all who use it; nobody else does so here.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "hmm_dev.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT DEV_TIMEOUT

#define PARAMETERS	"/sys/module/test_hmm/parameters/"
#define PAGES		16

struct fates {
	long kept, downgraded, dropped;
};

FIXTURE(mirror)
{
	int fd;
	char *at;
	char *buf;
	struct fates before;
};

static bool ignore_soft_dirty(bool ignore)
{
	FILE *file = fopen(PARAMETERS "ignore_soft_dirty", "w");
	bool done = file && fputs(ignore ? "Y" : "N", file) >= 0;

	return file && !fclose(file) && done;
}

/* All -1 if there is no such event. */
static struct fates count(const char *event)
{
	FILE *file = fopen(PARAMETERS "invalidations", "r");
	struct fates fates = { -1, -1, -1 }, row;
	char name[32], line[128];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "%31s %ld %ld %ld", name, &row.kept,
			   &row.downgraded, &row.dropped) == 4 &&
		    !strcmp(name, event))
			fates = row;
	if (file)
		fclose(file);
	return fates;
}

FIXTURE_SETUP(mirror)
{
	self->fd = dev_open(0);
	ASSERT_LE(0, self->fd);
	self->at = mmap(NULL, PAGES * page_size, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->at);
	ASSERT_EQ(0, no_huge_pages(self->at, PAGES * page_size));
	self->buf = buffer(PAGES * page_size);
	pattern_fill(self->buf, PAGES * page_size, 1);
	/* The device has all of it, and may write. */
	ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, PAGES).err);
}

FIXTURE_TEARDOWN(mirror)
{
	ignore_soft_dirty(false);
	close(self->fd);
}

#define EXPECT_FATES(event, nkept, ndowngraded, ndropped) do {		\
	struct fates now = count(event);				\
									\
	EXPECT_EQ(nkept, now.kept - self->before.kept);			\
	EXPECT_EQ(ndowngraded, now.downgraded - self->before.downgraded); \
	EXPECT_EQ(ndropped, now.dropped - self->before.dropped);	\
} while (0)

/* How often the device has to ask for the pages in order to use them. */
static long read_batches(int fd, void *at, void *buf, size_t pages)
{
	struct reply reply = dev_read(fd, at, buf, pages);

	return reply.err ? reply.err : (long)reply.batches;
}

static long write_batches(int fd, void *at, void *buf, size_t pages)
{
	struct reply reply = dev_write(fd, at, buf, pages);

	return reply.err ? reply.err : (long)reply.batches;
}

static bool soft_dirty(const void *at)
{
	return pagemap_entry(at) & PM_SOFT_DIRTY;
}

TEST_F(mirror, soft_dirty_keeps)
{
	if (!soft_dirty(self->at))
		SKIP(return, "no soft-dirty bits");
	ASSERT_TRUE(ignore_soft_dirty(true));
	self->before = count("soft_dirty");
	ASSERT_LE(0, self->before.kept);
	ASSERT_TRUE(write_number("/proc/self/clear_refs", 4));
	EXPECT_FATES("soft_dirty", PAGES, 0, 0);
	EXPECT_EQ(0, write_batches(self->fd, self->at, self->buf, PAGES));
	/* That is the price. */
	EXPECT_FALSE(soft_dirty(self->at));
}

/* A device whose writes are to be seen keeps its pages, for reading. */
TEST_F(mirror, soft_dirty_downgrades)
{
	if (!soft_dirty(self->at))
		SKIP(return, "no soft-dirty bits");
	self->before = count("soft_dirty");
	ASSERT_TRUE(write_number("/proc/self/clear_refs", 4));
	EXPECT_FATES("soft_dirty", 0, PAGES, 0);
	EXPECT_EQ(0, read_batches(self->fd, self->at, self->buf, PAGES));
	EXPECT_FALSE(soft_dirty(self->at));
	/* What may only be read is kept from now on. */
	ASSERT_TRUE(write_number("/proc/self/clear_refs", 4));
	EXPECT_FATES("soft_dirty", PAGES, PAGES, 0);
	EXPECT_LT(0, write_batches(self->fd, self->at, self->buf, PAGES));
	EXPECT_TRUE(soft_dirty(self->at));
}

TEST_F(mirror, mprotect_downgrades)
{
	self->before = count("protection_vma");
	ASSERT_EQ(0, mprotect(self->at, PAGES * page_size, PROT_READ));
	EXPECT_FATES("protection_vma", 0, PAGES, 0);
	memset(self->buf, 0, PAGES * page_size);
	EXPECT_EQ(0, read_batches(self->fd, self->at, self->buf, PAGES));
	EXPECT_EQ(-1, pattern_check(self->buf, PAGES * page_size, 1));
	EXPECT_EQ(-EPERM, write_batches(self->fd, self->at, self->buf, PAGES));
	/* Nothing is added by it: the device has to ask. */
	ASSERT_EQ(0, mprotect(self->at, PAGES * page_size,
			      PROT_READ | PROT_WRITE));
	EXPECT_FATES("protection_vma", PAGES, PAGES, 0);
	EXPECT_EQ(1, write_batches(self->fd, self->at, self->buf, PAGES));
}

TEST_F(mirror, no_access_drops)
{
	self->before = count("protection_vma");
	ASSERT_EQ(0, mprotect(self->at, PAGES * page_size, PROT_NONE));
	EXPECT_FATES("protection_vma", 0, 0, PAGES);
	EXPECT_EQ(-EFAULT, read_batches(self->fd, self->at, self->buf, PAGES));
}

/*
 * Processes that share hugetlb memory may share its page tables, and a change of
 * protection then takes the table away: nothing may be kept.
 */
TEST_F(mirror, mprotect_of_hugetlb)
{
	size_t len = 2UL << 20;
	char *at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED |
			MAP_ANONYMOUS | MAP_HUGETLB | 21 << MAP_HUGE_SHIFT,
			-1, 0);

	if (at == MAP_FAILED)
		SKIP(return, "no huge pages of 2 MiB");
	EXPECT_EQ(0, dev_write(self->fd, at, self->buf, PAGES).err);
	self->before = count("protection_vma");
	EXPECT_EQ(0, mprotect(at, len, PROT_READ));
	EXPECT_FATES("protection_vma", 0, 0, PAGES);
	EXPECT_LT(0, read_batches(self->fd, at, self->buf, PAGES));
	munmap(at, len);
}

/* The child shares the pages: the parent's device may read them meanwhile. */
TEST_F(mirror, fork_downgrades)
{
	pid_t child;

	self->before = count("protection_page");
	child = fork();
	if (!child)
		_exit(0);
	ASSERT_EQ(child, waitpid(child, NULL, 0));
	EXPECT_FATES("protection_page", 0, PAGES, 0);
	EXPECT_EQ(0, read_batches(self->fd, self->at, self->buf, PAGES));
	EXPECT_LT(0, write_batches(self->fd, self->at, self->buf, PAGES));
	EXPECT_EQ(-1, pattern_check(self->at, PAGES * page_size, 1));
}

/* Half of it goes, and the device notices nothing of it in the other half. */
TEST_F(mirror, munmap_drops)
{
	size_t half = PAGES / 2 * page_size;

	self->before = count("unmap");
	ASSERT_EQ(0, munmap(self->at + half, half));
	EXPECT_FATES("unmap", 0, 0, PAGES / 2);
	EXPECT_EQ(0, write_batches(self->fd, self->at, self->buf, PAGES / 2));
	EXPECT_EQ(-EFAULT, dev_read(self->fd, self->at, self->buf, PAGES).err);
}

/* A process that exits with its device open. */
TEST_F(mirror, exit_drops)
{
	pid_t child;

	self->before = count("release");
	child = fork();
	if (!child) {
		int fd = dev_open(1);

		_exit(dev_read(fd, self->at, self->buf, PAGES).err != 0);
	}
	ASSERT_EQ(child, waitpid(child, NULL, 0));
	/* By the exit of the mm: files are closed after it. */
	EXPECT_FATES("release", 0, 0, PAGES);
}

TEST_HARNESS_MAIN
