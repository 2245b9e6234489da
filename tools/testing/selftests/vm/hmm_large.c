// SPDX-License-Identifier: GPL-2.0
/*
 * Runs of pages from one to as many as 64 GiB have, nearly all of them not
 * there: none takes longer than its length is worth, and a kill ends any.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "hmm_dev.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT DEV_TIMEOUT

#define LARGEST		(64UL << 30)
/* What a snapshot byte never is. */
#define UNTOLD		0xaa
/* Seconds from a signal to its effect, on a machine that is one. */
#define KILL_LIMIT	0.1
/* How much slower an emulated one may be, other guests beside it. */
#define EMULATED	6
/* And a kernel that checks itself all the time. */
#define CHECKED		4

FIXTURE(large)
{
	int fd;
	char *at;
	unsigned char *bytes;	/* one for each page, shared with children */
};

static void *sparse(size_t len, int flags)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
		       flags | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p != MAP_FAILED)
		no_huge_pages(p, len);
	return p;
}

FIXTURE_SETUP(large)
{
	self->fd = dev_open(0);
	ASSERT_LE(0, self->fd);
	self->at = sparse(LARGEST, MAP_PRIVATE);
	self->bytes = sparse(LARGEST / page_size, MAP_SHARED);
	if (self->at == MAP_FAILED || self->bytes == MAP_FAILED)
		SKIP(return, "no address space for 64 GiB");
}

FIXTURE_TEARDOWN(large)
{
	close(self->fd);
	munmap(self->at, LARGEST);
	munmap(self->bytes, LARGEST / page_size);
}

static double kill_limit(void)
{
	double limit = access("/proc/lockdep", F_OK) ? KILL_LIMIT :
						       CHECKED * KILL_LIMIT;
	FILE *f = fopen("/proc/cpuinfo", "r");
	bool emulated = false;
	char line[256];

	if (!f)
		return limit;
	while (!emulated && fgets(line, sizeof(line), f))
		emulated = strstr(line, "QEMU TCG");
	fclose(f);
	return emulated ? EMULATED * limit : limit;
}

/* Of the first @pages, only those are there whose number is a power of two. */
static size_t wrong_bytes(const unsigned char *bytes, size_t pages)
{
	size_t i, wrong = 0;

	for (i = 0; i < pages; i++)
		wrong += bytes[i] != (!i || i & (i - 1) ?
				      HMM_DMIRROR_PROT_NONE :
				      HMM_DMIRROR_PROT_WRITE);
	return wrong;
}

TEST_F(large, every_length)
{
	size_t pages, all = LARGEST / page_size, i;
	struct reply reply;
	double start = 0;

	for (i = 1; i < all; i *= 2)
		self->at[i * page_size] = 1;
	for (pages = 1; pages <= all; pages *= 2) {
		size_t lengths[] = { pages, pages - 1, pages + 1 };
		size_t k, n = pages > 4096 ? 1 : 3;

		for (k = 0; k < n; k++) {
			if (!lengths[k] || lengths[k] > all)
				continue;
			start = seconds();
			self->bytes[lengths[k] - 1] = UNTOLD;
			reply = dev_snapshot(self->fd, self->at, self->bytes,
					     lengths[k]);
			ASSERT_EQ(0, reply.err);
			ASSERT_EQ(lengths[k], reply.pages);
			ASSERT_EQ(0, wrong_bytes(self->bytes, lengths[k]));
		}
	}
	TH_LOG("64 GiB: %.2f s", seconds() - start);
	/* Looking brought nothing in. */
	EXPECT_EQ(0, pagemap_count(self->at + 3 * page_size, 1, PM_PRESENT));
	EXPECT_GE(4 << 10, smaps_field(self->at, "Rss"));
}

/* How many faults a process took so far; of more than one thread, the first's. */
static long faults_of(pid_t pid)
{
	char path[64], line[512] = "", *end;
	long faults = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "r");
	if (!f)
		return -1;
	if (!fgets(line, sizeof(line), f))
		line[0] = 0;
	fclose(f);
	end = strrchr(line, ')');
	if (end)
		sscanf(end + 2, "%*c %*d %*d %*d %*d %*d %*u %ld", &faults);
	return faults;
}

static pid_t request_for_ever(unsigned long request, char *at, void *out,
			      size_t pages)
{
	pid_t child = fork();
	int fd;

	if (child)
		return child;
	fd = dev_open(0);
	for (;;)
		dev_request(fd, request, at, out, pages);
}

/* Seconds from the signal until the child is no more. */
static double time_to_kill(pid_t child)
{
	double start = seconds();

	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	return seconds() - start;
}

TEST_F(large, killed_in_a_snapshot)
{
	size_t pages = LARGEST / page_size, i;
	unsigned char *bytes = self->bytes;
	double took, worst = 0;
	bool begun;
	pid_t child;

	/* It is in the middle: some of the result is there, the rest is not. */
	for (i = 0; i < 5; i++) {
		size_t look = pages / 64 << i;

		bytes[look] = UNTOLD;
		bytes[pages - 1] = UNTOLD;
		child = request_for_ever(HMM_DMIRROR_SNAPSHOT, self->at,
					 self->bytes, pages);
		begun = wait_until(bytes[look] != UNTOLD, 60);
		took = time_to_kill(child);
		ASSERT_TRUE(begun);
		EXPECT_EQ(UNTOLD, bytes[pages - 1]);
		worst = took > worst ? took : worst;
	}
	TH_LOG("killed within %.0f ms", worst * 1e3);
	EXPECT_GT(kill_limit(), worst);
}

/* The same while pages are faulted in: of zeroes, so that none is used up. */
TEST_F(large, killed_in_a_fault)
{
	size_t pages = LARGEST / page_size, i;
	double took, worst = 0;
	bool begun;
	pid_t child;

	for (i = 1; i <= 5; i++) {
		child = request_for_ever(HMM_DMIRROR_READ, self->at, self->bytes,
					 pages);
		begun = wait_until(faults_of(child) > 5000 * (long)i, 60);
		took = time_to_kill(child);
		ASSERT_TRUE(begun);
		worst = took > worst ? took : worst;
	}
	TH_LOG("killed within %.0f ms", worst * 1e3);
	EXPECT_GT(kill_limit(), worst);
}

TEST_HARNESS_MAIN
