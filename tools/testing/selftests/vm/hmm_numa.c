// SPDX-License-Identifier: GPL-2.0
/*
 * NUMA hinting: a page that is there, in an entry that nobody may use, so that
 * the next touch is noticed. To the device such a page is not there; it faults as
 * the CPU would, and its touch counts.
 *
 * The kernel's scanner makes the hints, made quick by its knobs in debugfs. A hint
 * is known by what pagemap says, a page that is there, and what the device has of
 * it, nothing; memory that may be read and written has no other such pages.
 */
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "hmm_dev.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT DEV_TIMEOUT

#define NONE	HMM_DMIRROR_PROT_NONE
#define WRITE	HMM_DMIRROR_PROT_WRITE
#define PMD	HMM_DMIRROR_PROT_PMD

#define KNOBS	"/sys/kernel/debug/sched/numa_balancing/"
#define ON	"/proc/sys/kernel/numa_balancing"

static const struct knob {
	const char *path;
	long quick;
} knobs[] = {
	{ KNOBS "scan_delay_ms", 1 },
	{ KNOBS "scan_period_min_ms", 10 },
	{ KNOBS "scan_period_max_ms", 20 },
	{ ON, 1 },
};

FIXTURE(numa)
{
	int fd;
	struct mem mem;
	char *at;
	char *buf;
	size_t pages;
	unsigned char leaf;
	long before[ARRAY_LEN(knobs)];
	pthread_t thread;
};

FIXTURE_VARIANT(numa)
{
	enum kind kind;
	size_t pages;
};

FIXTURE_VARIANT_ADD(numa, small) { ANON_PRIVATE, 64 };
FIXTURE_VARIANT_ADD(numa, shared) { ANON_SHARED, 64 };
FIXTURE_VARIANT_ADD(numa, huge) { ANON_THP, 1024 };

static void *idle(void *arg)
{
	pause();
	return NULL;
}

FIXTURE_SETUP(numa)
{
	size_t i;

	for (i = 0; i < ARRAY_LEN(knobs); i++)
		self->before[i] = -1;
	if (access("/sys/devices/system/node/node1", F_OK))
		SKIP(return, "one node only");
	if (access(knobs[0].path, W_OK))
		SKIP(return, "no knobs at " KNOBS);
	if (!mem_map(&self->mem, variant->kind, variant->pages * page_size))
		SKIP(return, "%s", self->mem.why);
	self->fd = dev_open(0);
	ASSERT_LE(0, self->fd);
	self->at = self->mem.addr;
	self->pages = self->mem.len / page_size;
	self->leaf = self->mem.leaf > page_size ? PMD : 0;
	self->buf = buffer(self->mem.len);
	/* Pages on the node of a process with one thread are let alone. */
	ASSERT_EQ(0, pthread_create(&self->thread, NULL, idle, NULL));
	for (i = 0; i < ARRAY_LEN(knobs); i++) {
		self->before[i] = read_number(knobs[i].path);
		write_number(knobs[i].path, knobs[i].quick);
	}
}

FIXTURE_TEARDOWN(numa)
{
	size_t i;

	for (i = 0; i < ARRAY_LEN(knobs); i++)
		if (self->before[i] >= 0)
			write_number(knobs[i].path, self->before[i]);
	mem_unmap(&self->mem);
	close(self->fd);
}

static long faults_taken(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt + usage.ru_majflt;
}

/* Is it there, but out of reach? */
static bool is_hint(int fd, const char *at)
{
	return dev_snap(fd, at) == NONE && pagemap_entry(at) & PM_PRESENT;
}

/*
 * Run until all of the memory is hints. The scanner is paid in time that the
 * task ran; it lets memory alone that no more than one task has touched lately,
 * but looks at it the first time.
 */
static bool make_hints(int fd, const char *at, size_t pages, char *work)
{
	double end = seconds() + 60;
	bool done = false;
	size_t i;

	syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0);
	while (!done && seconds() < end) {
		pattern_fill(work, 256 << 10, 9);
		done = is_hint(fd, at);
		for (i = 0; done && i < pages; i++)
			done = is_hint(fd, at + i * page_size);
	}
	/* No new ones from here on. */
	write_number(ON, 0);
	return done;
}

TEST_F(numa, hinted)
{
	char *at = self->at, *last = at + self->mem.len - page_size;
	long faults;
	int fd;

	pattern_fill(at, self->mem.len, 1);
	ASSERT_EQ(0, dev_read(self->fd, at, self->buf, self->pages).err);
	ASSERT_EQ(WRITE | self->leaf, dev_snap(self->fd, at));
	ASSERT_TRUE(make_hints(self->fd, at, self->pages, buffer(256 << 10)));
	ASSERT_TRUE(smaps_flag(at, "rd") && smaps_flag(at, "wr"));

	/* A snapshot leaves it so. */
	EXPECT_TRUE(is_hint(self->fd, at));
	/* So does a device that has the page: what may be done is the same. */
	EXPECT_EQ(load(self->buf), dev_peek(self->fd, at));
	EXPECT_TRUE(is_hint(self->fd, at));
	/* The touch of a device that does not is a touch, of one leaf. */
	fd = dev_open(0);
	ASSERT_LE(0, fd);
	faults = faults_taken();
	EXPECT_EQ(load(self->buf), dev_peek(fd, at));
	EXPECT_LT(faults, faults_taken());
	EXPECT_NE(NONE, dev_snap(fd, at));
	EXPECT_TRUE(is_hint(fd, last));

	memset(self->buf, 0, self->mem.len);
	EXPECT_EQ(0, dev_read(fd, at, self->buf, self->pages).err);
	EXPECT_EQ(-1, pattern_check(self->buf, self->mem.len, 1));
	EXPECT_NE(NONE, dev_snap(fd, last));
	close(fd);
}

TEST_F(numa, hinted_and_written)
{
	long leaves = self->mem.len / self->mem.leaf, faults;
	char *at = self->at;

	pattern_fill(at, self->mem.len, 1);
	pattern_fill(self->buf, self->mem.len, 2);
	ASSERT_TRUE(make_hints(self->fd, at, self->pages, buffer(256 << 10)));
	faults = faults_taken();
	EXPECT_EQ(0, dev_write(self->fd, at, self->buf, self->pages).err);
	EXPECT_LE(faults + leaves, faults_taken());
	EXPECT_EQ(WRITE, dev_snap(self->fd, at) & WRITE);
	EXPECT_EQ(-1, pattern_check(at, self->mem.len, 2));
}

/* ---- Pages that wander ---- */

static int node_of(void *at)
{
	int status = -1;

	syscall(SYS_move_pages, 0, 1L, &at, NULL, &status, 0);
	return status;
}

static bool move_to(char *at, size_t pages, size_t step, int node)
{
	size_t i;

	for (i = 0; i < pages; i += step) {
		void *where = at + i * page_size;
		int status;

		if (syscall(SYS_move_pages, 0, 1L, &where, &node, &status,
			    MPOL_MF_MOVE) || status != node)
			return false;
	}
	return true;
}

/* A whole leaf changes its node, its page frames with it. */
TEST_F(numa, moved)
{
	size_t step = self->mem.leaf / page_size;
	int round, node;

	for (round = 1; round <= 4; round++) {
		uint64_t pfn;

		pattern_fill(self->buf, self->mem.len, round);
		ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf,
				       self->pages).err);
		pfn = pagemap_pfn(self->at);
		node = node_of(self->at);
		ASSERT_TRUE(move_to(self->at, self->pages, step, !node));
		EXPECT_EQ(!node, node_of(self->at));
		EXPECT_NE(pfn, pagemap_pfn(self->at));
		memset(self->buf, 0, self->mem.len);
		ASSERT_EQ(0, dev_read(self->fd, self->at, self->buf,
				      self->pages).err);
		ASSERT_EQ(-1, pattern_check(self->buf, self->mem.len, round));
		EXPECT_EQ(WRITE | self->leaf, dev_snap(self->fd, self->at));
	}
}

TEST_HARNESS_MAIN
