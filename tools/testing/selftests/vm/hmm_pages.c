// SPDX-License-Identifier: GPL-2.0
/*
 * What the kernel does to the pages of a process behind its back, or at its
 * bidding, and that the device neither loses data nor keeps stale pages.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "hmm_dev.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT DEV_TIMEOUT

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

#define PAGES	64

FIXTURE(pages)
{
	int fd;
	struct mem mem;
	char *at;
	char *buf;
	size_t bytes;
};

FIXTURE_SETUP(pages)
{
	self->bytes = PAGES * page_size;
	ASSERT_TRUE(mem_map(&self->mem, ANON_PRIVATE, self->bytes));
	self->fd = dev_open(0);
	ASSERT_LE(0, self->fd);
	self->at = self->mem.addr;
	self->buf = buffer(self->bytes);
	no_huge_pages(self->at, self->bytes);
}

FIXTURE_TEARDOWN(pages)
{
	mem_unmap(&self->mem);
	close(self->fd);
}

/* ---- Swap ---- */

TEST_F(pages, swapped_out_and_read)
{
	if (!have_swap())
		SKIP(return, "no swap");
	pattern_fill(self->buf, self->bytes, 1);
	ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, PAGES).err);
	ASSERT_EQ(0, madvise(self->at, self->bytes, MADV_PAGEOUT));
	if (!pagemap_count(self->at, PAGES, PM_SWAPPED))
		SKIP(return, "nothing went out");
	memset(self->buf, 0, self->bytes);
	EXPECT_EQ(0, dev_read(self->fd, self->at, self->buf, PAGES).err);
	EXPECT_EQ(-1, pattern_check(self->buf, self->bytes, 1));
	EXPECT_EQ(0, pagemap_count(self->at, PAGES, PM_SWAPPED));
}

/* Out, in by a read, written by the device, and out again. */
TEST_F(pages, swapped_back_and_forth)
{
	unsigned int seed;

	if (!have_swap())
		SKIP(return, "no swap");
	pattern_fill(self->at, self->bytes, 1);
	for (seed = 1; seed < 6; seed++) {
		ASSERT_EQ(0, madvise(self->at, self->bytes, MADV_PAGEOUT));
		ASSERT_EQ(0, dev_read(self->fd, self->at, self->buf, PAGES).err);
		ASSERT_EQ(-1, pattern_check(self->buf, self->bytes, seed));
		pattern_fill(self->buf, self->bytes, seed + 1);
		ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, PAGES).err);
	}
	ASSERT_EQ(0, madvise(self->at, self->bytes, MADV_PAGEOUT));
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, seed));
}

/* Cold pages stay mapped; the device's view of them may be kept or not. */
TEST_F(pages, made_cold)
{
	pattern_fill(self->at, self->bytes, 1);
	ASSERT_EQ(0, dev_read(self->fd, self->at, self->buf, PAGES).err);
	ASSERT_EQ(0, madvise(self->at, self->bytes, MADV_COLD));
	pattern_fill(self->buf, self->bytes, 2);
	ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, PAGES).err);
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 2));
}

/* ---- Memory given back ---- */

/*
 * Pages given back lazily are writable and clean: a device that writes without
 * a word finds its data gone with the next reclaim.
 */
TEST_F(pages, freed_then_written_by_the_device)
{
	pattern_fill(self->at, self->bytes, 1);
	ASSERT_EQ(0, madvise(self->at, self->bytes, MADV_FREE));
	pattern_fill(self->buf, self->bytes, 2);
	ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, PAGES).err);
	ASSERT_EQ(0, madvise(self->at, self->bytes, MADV_PAGEOUT));
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 2));
}

/* The same, but closing the device is all that happens before. */
TEST_F(pages, freed_then_written_then_closed)
{
	pattern_fill(self->at, self->bytes, 1);
	ASSERT_EQ(0, madvise(self->at, self->bytes, MADV_FREE));
	pattern_fill(self->buf, self->bytes, 2);
	ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, PAGES).err);
	ASSERT_EQ(0, close(self->fd));
	ASSERT_EQ(0, madvise(self->at, self->bytes, MADV_PAGEOUT));
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 2));
	self->fd = dev_open(0);
}

TEST_F(pages, given_back_after_a_write)
{
	pattern_fill(self->buf, self->bytes, 1);
	ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, PAGES).err);
	ASSERT_EQ(0, madvise(self->at, self->bytes, MADV_DONTNEED));
	EXPECT_EQ(-1, zero_check(self->at, self->bytes));
	ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, PAGES).err);
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 1));
}

TEST_F(pages, wiped_in_the_child)
{
	int status;

	ASSERT_EQ(0, madvise(self->at, self->bytes, MADV_WIPEONFORK));
	pattern_fill(self->buf, self->bytes, 1);
	ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, PAGES).err);
	if (!fork()) {
		int fd = dev_open(0);

		_exit(dev_read(fd, self->at, self->buf, PAGES).err ||
		      zero_check(self->buf, self->bytes) != -1);
	}
	wait(&status);
	EXPECT_EQ(0, status);
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 1));
}

/* ---- Locked ---- */

TEST_F(pages, locked)
{
	struct reply reply;

	pattern_fill(self->at, self->bytes, 1);
	ASSERT_EQ(0, mlock(self->at, self->bytes));
	ASSERT_EQ(0, dev_read(self->fd, self->at, self->buf, PAGES).err);
	EXPECT_EQ(-1, madvise(self->at, self->bytes, MADV_PAGEOUT));
	reply = dev_read(self->fd, self->at, self->buf, PAGES);
	EXPECT_EQ(0, reply.err);
	EXPECT_EQ(0, reply.batches);
	ASSERT_EQ(0, munlock(self->at, self->bytes));
	EXPECT_EQ(0, dev_poke(self->fd, self->at, 1));
}

/* ---- Soft-dirty ---- */

static bool clear_soft_dirty(void)
{
	return write_number("/proc/self/clear_refs", 4);
}

/* A write by the device counts as a write to the page. */
TEST_F(pages, soft_dirty)
{
	self->at[0] = 1;
	if (!(pagemap_entry(self->at) & PM_SOFT_DIRTY))
		SKIP(return, "no soft-dirty bits");
	ASSERT_EQ(0, dev_poke(self->fd, self->at, 1));
	ASSERT_TRUE(clear_soft_dirty());
	ASSERT_EQ(0, pagemap_entry(self->at) & PM_SOFT_DIRTY);
	EXPECT_EQ(1, dev_peek(self->fd, self->at));
	EXPECT_EQ(0, pagemap_entry(self->at) & PM_SOFT_DIRTY);
	EXPECT_EQ(0, dev_poke(self->fd, self->at, 2));
	EXPECT_NE(0, pagemap_entry(self->at) & PM_SOFT_DIRTY);
	EXPECT_EQ(2, *(long *)self->at);
}

/* ---- Nodes ---- */

/* Pages wander between nodes while the device holds on to them. */
TEST_F(pages, moved_between_nodes)
{
	void *where[PAGES];
	int status[PAGES], nodes[PAGES];
	int i, round, moved = 0;

	if (access("/sys/devices/system/node/node1", F_OK))
		SKIP(return, "one node only");
	for (i = 0; i < PAGES; i++)
		where[i] = self->at + i * page_size;
	for (round = 1; round < 8; round++) {
		pattern_fill(self->buf, self->bytes, round);
		ASSERT_EQ(0, dev_write(self->fd, self->at, self->buf, PAGES).err);
		for (i = 0; i < PAGES; i++)
			nodes[i] = round % 2;
		ASSERT_LE(0, syscall(SYS_move_pages, 0, (long)PAGES, where,
				     nodes, status, MPOL_MF_MOVE));
		for (i = 0; i < PAGES; i++)
			moved += status[i] == nodes[i];
		memset(self->buf, 0, self->bytes);
		ASSERT_EQ(0, dev_read(self->fd, self->at, self->buf, PAGES).err);
		ASSERT_EQ(-1, pattern_check(self->buf, self->bytes, round));
		ASSERT_EQ(-1, pattern_check(self->at, self->bytes, round));
	}
	EXPECT_LT(0, moved);
}

/* Is @at there, but not in the CPU's reach, for NUMA balancing to see a touch? */
static bool is_hinted(int fd, char *at)
{
	return dev_snap(fd, at) == HMM_DMIRROR_PROT_NONE &&
	       pagemap_entry(at) & PM_PRESENT;
}

static void *idle(void *arg)
{
	pause();
	return NULL;
}

TEST_F(pages, hinted_by_numa_balancing)
{
	char *last = self->at + self->bytes - page_size;
	time_t end = time(NULL) + 20;
	pthread_t thread;

	if (access("/sys/devices/system/node/node1", F_OK))
		SKIP(return, "one node only");
	/* Pages on the node of a process with one thread are let alone. */
	ASSERT_EQ(0, pthread_create(&thread, NULL, idle, NULL));
	write_number("/proc/sys/kernel/numa_balancing", 1);
	syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0);
	pattern_fill(self->at, self->bytes, 1);
	ASSERT_EQ(0, dev_poke(self->fd, last, 5));
	/* The scanner is paid in time that the task ran. */
	while (!is_hinted(self->fd, last) && time(NULL) < end)
		pattern_fill(self->buf, self->bytes, 2);
	if (!is_hinted(self->fd, last))
		SKIP(return, "NUMA balancing did not come by");
	EXPECT_EQ(5, dev_peek(self->fd, last));
	EXPECT_EQ(0, dev_poke(self->fd, last, 6));
	EXPECT_EQ(6, load(last));
	EXPECT_EQ(0, dev_read(self->fd, self->at, self->buf, PAGES - 1).err);
	EXPECT_EQ(-1, pattern_check(self->buf, self->bytes - page_size, 1));
}

/* ---- Merged pages ---- */

static long pages_merged(void)
{
	return read_number("/proc/self/ksm_merging_pages");
}

TEST_F(pages, merged_then_written)
{
	long run = read_number("/sys/kernel/mm/ksm/run");
	int i, wait_for = 200;

	if (run < 0)
		SKIP(return, "no KSM");
	memset(self->at, 0x5a, self->bytes);
	ASSERT_EQ(0, dev_write(self->fd, self->at, self->at, PAGES).err);
	ASSERT_EQ(0, madvise(self->at, self->bytes, MADV_MERGEABLE));
	write_number("/sys/kernel/mm/ksm/sleep_millisecs", 0);
	write_number("/sys/kernel/mm/ksm/run", 1);
	while (pages_merged() < PAGES / 2 && wait_for--)
		usleep(50000);
	write_number("/sys/kernel/mm/ksm/run", 0);
	if (pages_merged() <= 0)
		SKIP(return, "nothing was merged");

	/* One page now stands for many: a write makes a copy. */
	EXPECT_EQ(HMM_DMIRROR_PROT_READ, dev_snap(self->fd, self->at));
	EXPECT_EQ(0, dev_poke(self->fd, self->at, 77));
	EXPECT_EQ(77, *(long *)self->at);
	for (i = 1; i < PAGES; i++) {
		EXPECT_EQ(0x5a5a5a5a5a5a5a5aL,
			  *(long *)(self->at + i * page_size));
	}
	write_number("/sys/kernel/mm/ksm/run", run == 1 ? 1 : 2);
}

/* ---- Huge pages, made and unmade ---- */

TEST_F(pages, collapsed)
{
	struct mem thp;
	char *buf;

	if (!mem_map(&thp, ANON_THP, pmd_size))
		SKIP(return, "%s", thp.why);
	no_huge_pages(thp.addr, thp.len);
	buf = buffer(thp.len);
	pattern_fill(buf, thp.len, 1);
	ASSERT_EQ(0, dev_write(self->fd, thp.addr, buf, thp.len / page_size).err);
	EXPECT_EQ(HMM_DMIRROR_PROT_WRITE, dev_snap(self->fd, thp.addr));
	madvise(thp.addr, thp.len, MADV_HUGEPAGE);
	if (madvise(thp.addr, thp.len, MADV_COLLAPSE)) {
		mem_unmap(&thp);
		SKIP(return, "MADV_COLLAPSE: %s", strerror(errno));
	}
	EXPECT_EQ(HMM_DMIRROR_PROT_WRITE | HMM_DMIRROR_PROT_PMD,
		  dev_snap(self->fd, thp.addr));
	memset(buf, 0, thp.len);
	EXPECT_EQ(0, dev_read(self->fd, thp.addr, buf, thp.len / page_size).err);
	EXPECT_EQ(-1, pattern_check(buf, thp.len, 1));
	pattern_fill(buf, thp.len, 2);
	EXPECT_EQ(0, dev_write(self->fd, thp.addr, buf, thp.len / page_size).err);
	EXPECT_EQ(-1, pattern_check(thp.addr, thp.len, 2));
	mem_unmap(&thp);
}

TEST_F(pages, huge_page_partly_unmapped)
{
	struct mem thp;
	size_t rest;
	char *buf;

	if (!mem_map(&thp, ANON_THP, pmd_size))
		SKIP(return, "%s", thp.why);
	buf = buffer(thp.len);
	pattern_fill(buf, thp.len, 1);
	ASSERT_EQ(0, dev_write(self->fd, thp.addr, buf, thp.len / page_size).err);
	rest = thp.len - 8 * page_size;
	ASSERT_EQ(0, munmap(thp.addr + rest, 8 * page_size));
	EXPECT_EQ(-EFAULT, dev_read(self->fd, thp.addr, buf,
				    thp.len / page_size).err);
	EXPECT_EQ(0, dev_read(self->fd, thp.addr, buf, rest / page_size).err);
	EXPECT_EQ(-1, pattern_check(buf, rest, 1));
	/* Split in the folio, too, if there is a way to ask for it. */
	madvise(thp.addr, rest, MADV_PAGEOUT);
	EXPECT_EQ(0, dev_read(self->fd, thp.addr, buf, rest / page_size).err);
	EXPECT_EQ(-1, pattern_check(buf, rest, 1));
	thp.len = rest;
	mem_unmap(&thp);
}

/* ---- Memory that a program supplies: userfaultfd ---- */

static int uffd_missing(char *at, size_t len)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { (uintptr_t)at, len },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (uffd < 0)
		return -1;
	if (!ioctl(uffd, UFFDIO_API, &api) &&
	    !ioctl(uffd, UFFDIO_REGISTER, &reg))
		return uffd;
	close(uffd);
	return -1;
}

/* Nobody answers: the device gets an error, and does not hang. */
TEST_F(pages, nobody_supplies)
{
	struct timespec from, to;
	int uffd = uffd_missing(self->at, self->bytes);

	if (uffd < 0)
		SKIP(return, "no userfaultfd");
	clock_gettime(CLOCK_MONOTONIC, &from);
	EXPECT_EQ(-EFAULT, dev_read(self->fd, self->at, self->buf, 1).err);
	EXPECT_EQ(-EFAULT, dev_write(self->fd, self->at, self->buf, 1).err);
	clock_gettime(CLOCK_MONOTONIC, &to);
	EXPECT_GT(10, to.tv_sec - from.tv_sec);
	EXPECT_EQ(HMM_DMIRROR_PROT_NONE, dev_snap(self->fd, self->at));
	close(uffd);
	EXPECT_EQ(0, dev_read(self->fd, self->at, self->buf, PAGES).err);
}

TEST_F(pages, supplied_before)
{
	struct uffdio_copy copy = { 0 };
	int uffd = uffd_missing(self->at, self->bytes);

	if (uffd < 0)
		SKIP(return, "no userfaultfd");
	pattern_fill(self->buf, self->bytes, 1);
	copy.dst = (uintptr_t)self->at;
	copy.src = (uintptr_t)self->buf;
	copy.len = self->bytes;
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_COPY, &copy));
	memset(self->buf, 0, self->bytes);
	EXPECT_EQ(0, dev_read(self->fd, self->at, self->buf, PAGES).err);
	EXPECT_EQ(-1, pattern_check(self->buf, self->bytes, 1));
	EXPECT_EQ(0, dev_poke(self->fd, self->at, 2));
	close(uffd);
}

/* ---- Memory that even the kernel cannot reach ---- */

TEST_F(pages, secret_memory)
{
	int secret = syscall(SYS_memfd_secret, 0);
	char *at;

	if (secret < 0)
		SKIP(return, "no secret memory");
	ASSERT_EQ(0, ftruncate(secret, page_size));
	at = mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_SHARED, secret, 0);
	ASSERT_NE(MAP_FAILED, at);
	*(long *)at = 5;
	/* It is nobody's but the process's own, as for get_user_pages(). */
	EXPECT_EQ(-EFAULT, dev_read(self->fd, at, self->buf, 1).err);
	EXPECT_EQ(-EFAULT, dev_poke(self->fd, at, 6));
	EXPECT_EQ(HMM_DMIRROR_PROT_ERROR, dev_snap(self->fd, at));
	EXPECT_EQ(5, *(long *)at);
	munmap(at, page_size);
	close(secret);
}

/* ---- Pages that went bad ---- */

static void go_on(int sig)
{
}

TEST_F(pages, poisoned)
{
	struct sigaction act = { .sa_handler = go_on };

	pattern_fill(self->at, self->bytes, 1);
	ASSERT_EQ(0, dev_read(self->fd, self->at, self->buf, PAGES).err);
	/* Whoever asks for the error is told of it, too. */
	sigaction(SIGBUS, &act, NULL);
	if (madvise(self->at + page_size, page_size, MADV_HWPOISON))
		SKIP(return, "MADV_HWPOISON: %s", strerror(errno));
	EXPECT_EQ(-EFAULT, dev_read(self->fd, self->at, self->buf, PAGES).err);
	EXPECT_EQ(-EFAULT, dev_poke(self->fd, self->at + page_size, 1));
	EXPECT_EQ(HMM_DMIRROR_PROT_NONE, dev_snap(self->fd,
						  self->at + page_size));
	EXPECT_EQ(0, dev_read(self->fd, self->at, self->buf, 1).err);
	EXPECT_EQ(0, dev_read(self->fd, self->at + 2 * page_size, self->buf,
			      PAGES - 2).err);
}

TEST_HARNESS_MAIN
