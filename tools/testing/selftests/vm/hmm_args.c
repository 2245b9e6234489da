// SPDX-License-Identifier: GPL-2.0
/*
 * What the device is told and what it says: arguments, descriptors, signals,
 * and processes that end in the middle of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "hmm_dev.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT DEV_TIMEOUT

#define PARAMETERS	"/sys/module/test_hmm/parameters/"
#define PAGES		16

FIXTURE(args)
{
	int fd;
	char *at;
	char *buf;
};

FIXTURE_SETUP(args)
{
	self->fd = dev_open(0);
	ASSERT_LE(0, self->fd);
	self->at = buffer(PAGES * page_size);
	self->buf = buffer(PAGES * page_size);
}

FIXTURE_TEARDOWN(args)
{
	close(self->fd);
}

static const unsigned long served[] = {
	HMM_DMIRROR_READ, HMM_DMIRROR_WRITE, HMM_DMIRROR_SNAPSHOT,
	HMM_DMIRROR_MIGRATE_TO_DEV, HMM_DMIRROR_EXCLUSIVE,
	/* From here on without a buffer. */
	HMM_DMIRROR_MIGRATE_TO_SYS, HMM_DMIRROR_CHECK_EXCLUSIVE,
	HMM_DMIRROR_RELEASE,
};

#define WITH_BUFFER	5

TEST_F(args, layout)
{
	EXPECT_EQ(40, sizeof(struct hmm_dmirror_cmd));
	EXPECT_EQ(0, offsetof(struct hmm_dmirror_cmd, addr));
	EXPECT_EQ(8, offsetof(struct hmm_dmirror_cmd, ptr));
	EXPECT_EQ(16, offsetof(struct hmm_dmirror_cmd, npages));
	EXPECT_EQ(24, offsetof(struct hmm_dmirror_cmd, cpages));
	EXPECT_EQ(32, offsetof(struct hmm_dmirror_cmd, faults));
	EXPECT_EQ(0xc0284800, HMM_DMIRROR_READ);
	EXPECT_EQ(0xc0284807, HMM_DMIRROR_RELEASE);
}

/* Runs of pages that are wrong whatever is mapped. */
TEST_F(args, bad_runs)
{
	const uintptr_t at = (uintptr_t)self->at, top = -page_size;
	const struct {
		uint64_t addr, pages;
	} bad[] = {
		{ at, 0 },			/* empty */
		{ at + 1, 1 }, { at + page_size - 1, 1 }, { 8, 1 },
		{ at, UINT64_MAX },		/* the length wraps */
		{ at, UINT64_MAX / page_size + 1 },
		{ at, 1ULL << 63 },
		{ top, 1 }, { top, 2 },		/* the end wraps */
		{ at, UINT64_MAX / page_size },
		{ UINT64_MAX, 1 },
	};
	size_t i, j;

	for (i = 0; i < ARRAY_LEN(served); i++) {
		for (j = 0; j < ARRAY_LEN(bad); j++) {
			EXPECT_EQ(-EINVAL, dev_request(self->fd, served[i],
						       (void *)bad[j].addr,
						       self->buf,
						       bad[j].pages).err)
				TH_LOG("request %zu, run %zu", i, j);
		}
	}
}

/* A page that no process can have: not an argument error, just not there. */
TEST_F(args, beyond_user_memory)
{
	const uint64_t far[] = {
		0xffff888000000000ULL, 0xffffffff81000000ULL,
		0x0000800000000000ULL, -2 * page_size,
	};
	size_t i;

	for (i = 0; i < ARRAY_LEN(far); i++) {
		EXPECT_EQ(-EFAULT, dev_read(self->fd, (void *)far[i], self->buf,
					    1).err);
		EXPECT_EQ(-EFAULT, dev_write(self->fd, (void *)far[i],
					     self->buf, 1).err);
		EXPECT_EQ(HMM_DMIRROR_PROT_ERROR, dev_snap(self->fd,
							   (void *)far[i]));
	}
}

/* The caller's buffer is not what it should be. */
TEST_F(args, bad_buffers)
{
	char *const bad[] = { NULL, (char *)1, (char *)-1, (char *)-page_size,
			      (char *)0xffff888000000000ULL };
	char *ro = mmap(NULL, page_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS,
			-1, 0);
	size_t i, j;

	pattern_fill(self->at, PAGES * page_size, 1);
	for (i = 0; i < WITH_BUFFER; i++) {
		for (j = 0; j < ARRAY_LEN(bad); j++) {
			EXPECT_EQ(-EFAULT, dev_request(self->fd, served[i],
						       self->at, bad[j], 1).err)
				TH_LOG("request %zu, buffer %zu", i, j);
		}
	}
	EXPECT_EQ(-EFAULT, dev_read(self->fd, self->at, ro, 1).err);
	EXPECT_EQ(-EFAULT, dev_snapshot(self->fd, self->at, ro, 1).err);
	EXPECT_EQ(-1, pattern_check(self->at, PAGES * page_size, 1));
}

/* Data that ends at the edge of a hole is enough, one byte less is not. */
TEST_F(args, buffer_edge)
{
	char *two = buffer(2 * page_size);

	ASSERT_EQ(0, munmap(two + page_size, page_size));
	EXPECT_EQ(0, dev_read(self->fd, self->at, two, 1).err);
	EXPECT_EQ(-EFAULT, dev_read(self->fd, self->at, two + 1, 1).err);
	EXPECT_EQ(0, dev_snapshot(self->fd, self->at, two + page_size - PAGES,
				  PAGES).err);
	EXPECT_EQ(-EFAULT, dev_snapshot(self->fd, self->at,
					two + page_size - PAGES + 1, PAGES).err);
	EXPECT_EQ(0, dev_write(self->fd, self->at, two, 1).err);
	EXPECT_EQ(-EFAULT, dev_write(self->fd, self->at, two + 1, 1).err);
}

/* The block comes back after a success only, and nothing but its results. */
TEST_F(args, block_is_copied_back)
{
	struct hmm_dmirror_cmd cmd = {
		.addr = (uintptr_t)self->at, .ptr = (uintptr_t)self->buf,
		.npages = PAGES, .cpages = 77, .faults = 88,
	};

	ASSERT_EQ(0, ioctl(self->fd, HMM_DMIRROR_READ, &cmd));
	EXPECT_EQ((uintptr_t)self->at, cmd.addr);
	EXPECT_EQ((uintptr_t)self->buf, cmd.ptr);
	EXPECT_EQ(PAGES, cmd.npages);
	EXPECT_EQ(PAGES, cmd.cpages);
	EXPECT_EQ(1, cmd.faults);

	cmd.faults = 99;
	ASSERT_EQ(0, ioctl(self->fd, HMM_DMIRROR_SNAPSHOT, &cmd));
	EXPECT_EQ(PAGES, cmd.cpages);
	EXPECT_EQ(0, cmd.faults);

	cmd.cpages = 77;
	cmd.faults = 88;
	ASSERT_EQ(0, munmap(self->at, PAGES * page_size));
	EXPECT_EQ(-1, ioctl(self->fd, HMM_DMIRROR_READ, &cmd));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(77, cmd.cpages);
	EXPECT_EQ(88, cmd.faults);
}

TEST_F(args, bad_block)
{
	char *ro = mmap(NULL, page_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS,
			-1, 0);
	size_t i;

	for (i = 0; i < ARRAY_LEN(served); i++) {
		EXPECT_EQ(-1, ioctl(self->fd, served[i], NULL));
		EXPECT_EQ(EFAULT, errno);
		EXPECT_EQ(-1, ioctl(self->fd, served[i], -1L));
		EXPECT_EQ(EFAULT, errno);
		/* All zeroes: an empty run, seen before the block is written. */
		EXPECT_EQ(-1, ioctl(self->fd, served[i], ro));
		EXPECT_EQ(EINVAL, errno);
	}
}

TEST_F(args, unknown_requests)
{
	const unsigned long unknown[] = {
		_IOWR('H', 0x08, struct hmm_dmirror_cmd),
		_IOWR('H', 0xff, struct hmm_dmirror_cmd),
		_IOWR('G', 0x00, struct hmm_dmirror_cmd),
		_IOR('H', 0x00, struct hmm_dmirror_cmd),
		_IOWR('H', 0x00, char), 0, 1,
	};
	size_t i;

	for (i = 0; i < ARRAY_LEN(unknown); i++) {
		EXPECT_EQ(-EINVAL, dev_request(self->fd, unknown[i], self->at,
					       self->buf, 1).err)
			TH_LOG("request %#lx", unknown[i]);
	}
}

/* More than there is, up to all there could be, fails in good time. */
TEST_F(args, oversized)
{
	const size_t sizes[] = { PAGES + (1UL << 10), 1UL << 30, 1UL << 35,
				 1UL << 46 };
	double start = seconds();
	size_t i;

	ASSERT_EQ(0, munmap(self->at + (PAGES - 1) * page_size, page_size));
	for (i = 0; i < ARRAY_LEN(sizes); i++) {
		EXPECT_EQ(-EFAULT, dev_read(self->fd, self->at, self->buf,
					    sizes[i]).err);
		EXPECT_EQ(-EFAULT, dev_snapshot(self->fd, self->at, self->buf,
						sizes[i] + 1024 * page_size).err);
	}
	EXPECT_GT(20, seconds() - start);
}

/* A gigabyte of nothing can be described. */
TEST_F(args, snapshot_of_much)
{
	size_t pages = (1UL << 30) / page_size;
	char *none = mmap(NULL, 1UL << 30, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *bytes = buffer(pages);
	struct reply reply;

	ASSERT_NE(MAP_FAILED, none);
	no_huge_pages(none, 1UL << 30);
	none[0] = 1;
	none[(1UL << 30) - 1] = 1;
	memset(bytes, 0xaa, pages);
	reply = dev_snapshot(self->fd, none, bytes, pages);
	EXPECT_EQ(0, reply.err);
	EXPECT_EQ(pages, reply.pages);
	EXPECT_EQ(HMM_DMIRROR_PROT_WRITE, bytes[0]);
	EXPECT_EQ(HMM_DMIRROR_PROT_WRITE, bytes[pages - 1]);
	EXPECT_EQ(-1, zero_check(bytes + 1, pages - 2));
}

/* The coherent pair needs memory of its own, and there are both or none. */
TEST_F(args, coherent_devices)
{
	bool given = read_number(PARAMETERS "spm_addr_dev0") > 0 &&
		     read_number(PARAMETERS "spm_addr_dev1") > 0;
	int minor, fd;

	for (minor = 2; minor < 4; minor++) {
		fd = dev_open(minor);
		EXPECT_EQ(given, fd >= 0);
		if (fd < 0) {
			EXPECT_EQ(ENOENT, errno);
			continue;
		}
		close(fd);
	}
	EXPECT_EQ(-1, dev_open(4));
	EXPECT_EQ(ENOENT, errno);
}

/* ---- Whose memory is it? ---- */

/* A file shadows the process that opened it, whoever uses the descriptor. */
TEST_F(args, inherited_descriptor)
{
	int status;

	pattern_fill(self->at, PAGES * page_size, 2);
	if (!fork()) {
		memset(self->at, 0, PAGES * page_size);
		if (dev_read(self->fd, self->at, self->buf, PAGES).err)
			_exit(1);
		if (pattern_check(self->buf, PAGES * page_size, 2) != -1)
			_exit(2);
		pattern_fill(self->buf, PAGES * page_size, 3);
		if (dev_write(self->fd, self->at, self->buf, PAGES).err)
			_exit(3);
		_exit(zero_check(self->at, PAGES * page_size) != -1);
	}
	wait(&status);
	EXPECT_EQ(0, status);
	EXPECT_EQ(-1, pattern_check(self->at, PAGES * page_size, 3));
}

/* The opener is gone, the descriptor is not. */
TEST_F(args, outlives_its_process)
{
	int pair[2], report[2], err = 0;
	pid_t opener;

	ASSERT_EQ(0, pipe(pair));
	ASSERT_EQ(0, pipe(report));
	opener = fork();
	if (!opener) {
		int fd = dev_open(0);
		char c;

		if (dev_poke(fd, self->at, 5))
			_exit(1);
		if (fork())
			_exit(0);
		/* Wait until the opener is reaped, and its memory with it. */
		close(pair[1]);
		if (read(pair[0], &c, 1) < 0)
			_exit(1);
		err = dev_read(fd, self->at, self->buf, 1).err;
		if (write(report[1], &err, sizeof(err)) < 0)
			_exit(1);
		_exit(0);
	}
	waitpid(opener, NULL, 0);
	close(pair[1]);
	ASSERT_EQ(sizeof(err), read(report[0], &err, sizeof(err)));
	EXPECT_EQ(-ESRCH, err);
}

/* Another process writes, through the kernel. */
TEST_F(args, written_from_outside)
{
	pid_t parent = getpid();
	int status;

	ASSERT_EQ(0, dev_read(self->fd, self->at, self->buf, PAGES).err);
	if (!fork()) {
		struct iovec from = { self->buf, PAGES * page_size };
		struct iovec to = { self->at, PAGES * page_size };

		pattern_fill(self->buf, PAGES * page_size, 6);
		_exit(process_vm_writev(parent, &from, 1, &to, 1, 0) !=
		      (ssize_t)(PAGES * page_size));
	}
	wait(&status);
	ASSERT_EQ(0, status);
	ASSERT_EQ(0, dev_read(self->fd, self->at, self->buf, PAGES).err);
	EXPECT_EQ(-1, pattern_check(self->buf, PAGES * page_size, 6));
}

TEST_F(args, many_files)
{
	int fds[64];
	size_t i;

	for (i = 0; i < ARRAY_LEN(fds); i++) {
		fds[i] = dev_open(i % 2);
		ASSERT_LE(0, fds[i]);
		ASSERT_EQ(0, dev_read(fds[i], self->at, self->buf, PAGES).err);
	}
	for (i = 0; i < ARRAY_LEN(fds); i++) {
		ASSERT_EQ(0, dev_poke(fds[i], self->at, i));
		EXPECT_EQ(i, dev_peek(fds[ARRAY_LEN(fds) - 1 - i], self->at));
	}
	ASSERT_EQ(0, munmap(self->at, PAGES * page_size));
	for (i = 0; i < ARRAY_LEN(fds); i++) {
		EXPECT_EQ(-EFAULT, dev_read(fds[i], self->at, self->buf, 1).err);
		close(fds[i]);
	}
}

/* Exit with files open, and memory behind them that the device wrote. */
TEST_F(args, exit_with_live_mirrors)
{
	int round, status;

	for (round = 0; round < 20; round++) {
		if (!fork()) {
			int a = dev_open(0), b = dev_open(1);

			if (dev_write(a, self->at, self->buf, PAGES).err ||
			    dev_read(b, self->at, self->buf, PAGES).err)
				_exit(1);
			if (round % 2)
				kill(getpid(), SIGKILL);
			_exit(0);
		}
		wait(&status);
		EXPECT_EQ(round % 2 ? SIGKILL : 0, status);
	}
}

TEST_F(args, exec_closes)
{
	int status;

	if (!fork()) {
		int fd = dev_open(0);

		if (dev_write(fd, self->at, self->buf, PAGES).err)
			_exit(1);
		close(STDOUT_FILENO);
		close(STDERR_FILENO);
		execl("/proc/self/exe", "hmm_args", "-h", NULL);
		_exit(2);
	}
	wait(&status);
	EXPECT_TRUE(WIFEXITED(status));
	EXPECT_NE(1, WEXITSTATUS(status));
	EXPECT_NE(2, WEXITSTATUS(status));
}

/* ---- Signals ---- */

static char *big_mapping(size_t len)
{
	char *p = mmap(NULL, len, PROT_READ,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	no_huge_pages(p, len);
	return p;
}

/* A read of 64 GiB of nothing would take minutes; a kill ends it now. */
TEST_F(args, killed_in_a_request)
{
	size_t len = 64UL << 30;
	double start;
	pid_t child;
	int status;

	child = fork();
	if (!child) {
		char *from = big_mapping(len), *to;
		int fd = dev_open(0);

		to = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE |
			  MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (from == MAP_FAILED || to == MAP_FAILED)
			_exit(1);
		dev_read(fd, from, to, len / page_size);
		_exit(0);
	}
	usleep(300000);
	start = seconds();
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 1)
		SKIP(return, "no address space for a long request");
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	EXPECT_GT(10, seconds() - start);
}

static atomic_int alarms;

static void count_alarm(int sig)
{
	alarms++;
}

/* A signal that is handled does not tear a request apart. */
TEST_F(args, signals_do_not_interrupt)
{
	struct sigaction act = { .sa_handler = count_alarm };
	size_t pages = 4096;
	char *from = big_mapping(pages * page_size);
	char *to = buffer(pages * page_size);
	struct itimerspec tick = { { 0, 1000000 }, { 0, 1000000 } };
	timer_t timer;
	int round;

	ASSERT_NE(MAP_FAILED, from);
	sigaction(SIGALRM, &act, NULL);
	if (timer_create(CLOCK_MONOTONIC, NULL, &timer))
		SKIP(return, "no POSIX timers");
	timer_settime(timer, 0, &tick, NULL);
	for (round = 0; round < 50 && alarms < 20; round++) {
		ASSERT_EQ(0, dev_read(self->fd, from, to, pages).err);
		ASSERT_EQ(0, madvise(from, pages * page_size, MADV_DONTNEED));
	}
	timer_delete(timer);
	EXPECT_LT(0, alarms);
}

TEST_HARNESS_MAIN
