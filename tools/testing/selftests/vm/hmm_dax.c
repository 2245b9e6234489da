// SPDX-License-Identifier: GPL-2.0
/*
 * Persistent memory under the device: files of a file system mounted with DAX,
 * and device DAX, by page-table leaves of 4 KiB, 2 MiB and 1 GiB.
 *
 * Each test first proves that it has what it is about, by other means than the
 * device: the page frames lie in persistent memory, and one fault of the CPU
 * brought all of a leaf. /proc/self/pagemap is asked last, and not at all of
 * leaves of 1 GiB: a look at one of those breaks it up.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "hmm_dev.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT DEV_TIMEOUT

#define NONE	HMM_DMIRROR_PROT_NONE
#define ERROR	HMM_DMIRROR_PROT_ERROR
#define READ	HMM_DMIRROR_PROT_READ
#define WRITE	HMM_DMIRROR_PROT_WRITE
#define PMD	HMM_DMIRROR_PROT_PMD
#define PUD	HMM_DMIRROR_PROT_PUD
#define ZERO	HMM_DMIRROR_PROT_ZERO

/* Of a leaf, as much as is moved about. */
#define MOST_BYTES	(2UL << 20)

FIXTURE(dax)
{
	int fd;
	struct mem mem;
	char *at;
	char *buf;
	size_t bytes;
	unsigned char leaf;	/* what a snapshot says beside READ or WRITE */
};

FIXTURE_VARIANT(dax)
{
	enum kind kind;
	size_t len;
	unsigned char leaf;
};

FIXTURE_VARIANT_ADD(dax, file_4k) { DAX_SHARED, 64UL << 10, 0 };
FIXTURE_VARIANT_ADD(dax, file_2m) { DAX_2M, 4UL << 20, PMD };
FIXTURE_VARIANT_ADD(dax, device_2m) { DEVICE_DAX_2M, 4UL << 20, PMD };
FIXTURE_VARIANT_ADD(dax, device_1g) { DEVICE_DAX_1G, 1UL << 30, PUD };

FIXTURE_SETUP(dax)
{
	if (!mem_map(&self->mem, variant->kind, variant->len))
		SKIP(return, "%s", self->mem.why);
	self->fd = dev_open(0);
	ASSERT_LE(0, self->fd);
	self->at = self->mem.addr;
	self->leaf = variant->leaf;
	self->bytes = self->mem.len < MOST_BYTES ? self->mem.len : MOST_BYTES;
	self->buf = buffer(self->bytes);
}

FIXTURE_TEARDOWN(dax)
{
	mem_unmap(&self->mem);
	close(self->fd);
}

static long faults_taken(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt + usage.ru_majflt;
}

/* Are all bytes for @len bytes of memory the same as @byte? */
static bool all_are(int fd, const char *at, size_t len, unsigned char byte)
{
	size_t i, pages = len / page_size;
	unsigned char *bytes = buffer(pages);
	bool same = !dev_snapshot(fd, at, bytes, pages).err;

	for (i = 0; same && i < pages; i++)
		same = bytes[i] == byte;
	munmap(bytes, pages);
	return same;
}

/* Faults that the CPU takes to write to first and last page of one leaf. */
static long touch_leaf(char *at, size_t leaf)
{
	long before = faults_taken();

	store(at, 1);
	store(at + leaf - page_size, 2);
	return faults_taken() - before;
}

/* Are the page frames persistent memory, and one behind the other in a leaf? */
static bool proved(const struct mem *mem)
{
	uint64_t pfn = pagemap_pfn(mem->addr);
	size_t i, pages = mem->leaf / page_size;

	if (!is_pmem(pfn) || pfn % pages)
		return false;
	for (i = 1; i < pages; i++)
		if (pagemap_pfn(mem->addr + i * page_size) != pfn + i)
			return false;
	return true;
}

/* The CPU's one fault makes a leaf, the device sees it, and its size. */
TEST_F(dax, leaf_of_the_cpu)
{
	size_t leaf = self->mem.leaf;

	EXPECT_TRUE(all_are(self->fd, self->at, self->bytes, NONE));
	ASSERT_EQ(1, touch_leaf(self->at, leaf));
	EXPECT_TRUE(all_are(self->fd, self->at, self->bytes < leaf ?
			    self->bytes : leaf, WRITE | self->leaf));
	/* The end of it, too; and a part, which starts inside. */
	EXPECT_EQ(WRITE | self->leaf, dev_snap(self->fd,
					       self->at + leaf - page_size));
	if (leaf > page_size) {
		EXPECT_TRUE(all_are(self->fd, self->at + 3 * page_size,
				    5 * page_size, WRITE | self->leaf));
	}
	if (leaf < self->mem.len)
		EXPECT_EQ(NONE, dev_snap(self->fd, self->at + leaf));
	if (self->leaf != PUD)
		EXPECT_TRUE(proved(&self->mem));
}

/* The device's one fault makes it, and the CPU needs none any more. */
TEST_F(dax, leaf_of_the_device)
{
	size_t leaf = self->mem.leaf;

	ASSERT_EQ(0, dev_poke(self->fd, self->at, 7));
	EXPECT_EQ(WRITE | self->leaf, dev_snap(self->fd, self->at));
	EXPECT_EQ(WRITE | self->leaf, dev_snap(self->fd,
					       self->at + leaf - page_size));
	if (leaf > page_size)
		EXPECT_EQ(0, touch_leaf(self->at + page_size, leaf - page_size));
	EXPECT_EQ(7, load(self->at));
	if (self->leaf != PUD)
		EXPECT_TRUE(proved(&self->mem));
}

TEST_F(dax, data_both_ways)
{
	size_t pages = self->bytes / page_size;

	pattern_fill(self->at, self->bytes, 1);
	ASSERT_EQ(0, dev_read(self->fd, self->at, self->buf, pages).err);
	EXPECT_EQ(-1, pattern_check(self->buf, self->bytes, 1));
	pattern_fill(self->buf, self->bytes, 2);
	ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, pages).err);
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 2));
	/* Memory of its own kind, and not a copy: another mapping has it, too. */
	ASSERT_EQ(0, munmap(self->at, self->mem.len));
	self->mem.addr = mmap(self->at, self->mem.len, PROT_READ,
			      MAP_SHARED | MAP_FIXED, self->mem.fd, 0);
	ASSERT_EQ(self->at, self->mem.addr);
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 2));
	if (self->leaf != PUD)
		EXPECT_TRUE(is_pmem(pagemap_pfn(self->at)));
}

/* Protection changes the leaf and does not break it. */
TEST_F(dax, protected)
{
	ASSERT_EQ(0, dev_poke(self->fd, self->at, 3));
	ASSERT_EQ(0, mprotect(self->at, self->mem.len, PROT_READ));
	EXPECT_EQ(READ | self->leaf, dev_snap(self->fd, self->at));
	EXPECT_EQ(3, dev_peek(self->fd, self->at));
	EXPECT_EQ(-EPERM, dev_poke(self->fd, self->at, 4));
	ASSERT_EQ(0, mprotect(self->at, self->mem.len, PROT_READ | PROT_WRITE));
	EXPECT_EQ(0, dev_poke(self->fd, self->at, 5));
	EXPECT_EQ(WRITE | self->leaf, dev_snap(self->fd, self->at));
	EXPECT_EQ(5, load(self->at));
}

/* A child shares the memory, through leaves of its own. */
TEST_F(dax, shared_with_a_child)
{
	int status;

	ASSERT_EQ(0, dev_poke(self->fd, self->at, 3));
	if (!fork()) {
		int fd = dev_open(0);

		if (dev_peek(fd, self->at) != 3)
			_exit(1);
		if (dev_poke(fd, self->at, 4))
			_exit(2);
		_exit(dev_snap(fd, self->at) != (WRITE | self->leaf));
	}
	wait(&status);
	EXPECT_EQ(0, status);
	EXPECT_EQ(4, dev_peek(self->fd, self->at));
}

TEST_F(dax, unmapped)
{
	ASSERT_EQ(0, dev_poke(self->fd, self->at, 3));
	ASSERT_EQ(0, munmap(self->at, self->mem.len));
	self->mem.addr = NULL;
	EXPECT_EQ(ERROR, dev_snap(self->fd, self->at));
	EXPECT_EQ(-EFAULT, dev_poke(self->fd, self->at, 4));
}

/* ---- Holes of files ---- */

FIXTURE(holes)
{
	int fd;
	struct mem mem;
	char *at;
};

FIXTURE_VARIANT(holes)
{
	enum kind kind;
	size_t len;
};

FIXTURE_VARIANT_ADD(holes, file_4k) { DAX_SHARED, 64UL << 10 };
FIXTURE_VARIANT_ADD(holes, file_2m) { DAX_2M, 4UL << 20 };

FIXTURE_SETUP(holes)
{
	if (!mem_map(&self->mem, variant->kind, variant->len))
		SKIP(return, "%s", self->mem.why);
	self->fd = dev_open(0);
	ASSERT_LE(0, self->fd);
	self->at = self->mem.addr;
}

FIXTURE_TEARDOWN(holes)
{
	mem_unmap(&self->mem);
	close(self->fd);
}

static int punch(const struct mem *mem, size_t from, size_t len)
{
	return fallocate(mem->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			 from, len);
}

/* What a hole of a file reads as is not its own memory, until it is written. */
TEST_F(holes, read_then_written)
{
	size_t leaf = self->mem.leaf;
	int byte;

	ASSERT_EQ(0, punch(&self->mem, 0, self->mem.len));
	EXPECT_EQ(0, dev_peek(self->fd, self->at));
	byte = dev_snap(self->fd, self->at);
	EXPECT_TRUE(byte == (READ | ZERO) ||
		    (leaf == pmd_size && byte == (READ | PMD)));
	EXPECT_FALSE(is_pmem(pagemap_pfn(self->at)));
	EXPECT_EQ(0, dev_poke(self->fd, self->at, 9));
	EXPECT_EQ(WRITE, dev_snap(self->fd, self->at) & ~PMD);
	EXPECT_TRUE(is_pmem(pagemap_pfn(self->at)));
	EXPECT_EQ(9, load(self->at));
	if (leaf > page_size)
		EXPECT_EQ(0, load(self->at + leaf - page_size));
}

/* Under the device's hands; of a leaf, small pages come in its place. */
TEST_F(holes, punched)
{
	char *gone = self->at + 4 * page_size;

	ASSERT_EQ(0, dev_poke(self->fd, self->at, 1));
	ASSERT_EQ(0, dev_poke(self->fd, gone, 2));
	ASSERT_EQ(self->mem.leaf > page_size ? WRITE | PMD : WRITE,
		  dev_snap(self->fd, self->at));
	ASSERT_TRUE(is_pmem(pagemap_pfn(gone)));
	ASSERT_EQ(0, punch(&self->mem, 4 * page_size, page_size));
	EXPECT_EQ(NONE, dev_snap(self->fd, gone));
	EXPECT_EQ(1, dev_peek(self->fd, self->at));
	EXPECT_EQ(0, dev_peek(self->fd, gone));
	EXPECT_EQ(0, dev_poke(self->fd, self->at, 3));
	EXPECT_EQ(WRITE, dev_snap(self->fd, self->at));
	EXPECT_TRUE(is_pmem(pagemap_pfn(self->at)));
}

TEST_HARNESS_MAIN
