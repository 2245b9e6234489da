// SPDX-License-Identifier: GPL-2.0
/*
 * PCI peer-to-peer memory: the buffer of an NVMe controller, of which processes can
 * have pages through the file p2pmem/allocate in sysfs.
 *
 * A page that is mapped has the reference that it has while it is idle, and goes
 * back to its driver at the last put: what is "available" tells. Each page in use has
 * a reference to the whole, too, and removal waits for it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "devmem.h"
#include "hmm_dev.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT DEV_TIMEOUT

#define PIECE		(1024UL << 10)
#define ROUNDS		5

FIXTURE(p2p)
{
	struct bond bond;
	struct world world;
	long before;		/* bytes available */
};

/* The disk behind the controller, as the bus names it now; -1 while there is none */
static int open_disk(const struct bond *bond)
{
	char path[256];
	DIR *dir;
	struct dirent *entry;
	int number = -1;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/nvme", bond->device);
	dir = opendir(path);
	while (dir && number < 0 && (entry = readdir(dir)))
		sscanf(entry->d_name, "nvme%d", &number);
	if (dir)
		closedir(dir);
	snprintf(path, sizeof(path), "/dev/nvme%dn1", number);
	return open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
}

static bool opens(const struct bond *bond)
{
	int fd = open_disk(bond);

	if (fd < 0)
		return false;
	close(fd);
	return true;
}

/* Queues are set up, and the disk is there: what is available stays the same. */
static bool is_settled(const struct bond *bond)
{
	return wait_until(opens(bond), SOON);
}

FIXTURE_SETUP(p2p)
{
	if (!find_p2p(&self->bond))
		SKIP(return, "no NVMe controller with memory for others");
	ASSERT_TRUE(is_settled(&self->bond));
	world_take(&self->world);
	self->before = p2p_available(&self->bond);
}

FIXTURE_TEARDOWN(p2p)
{
	const char *changed;

	if (!self->before)
		return;
	EXPECT_TRUE(bond_holds(&self->bond));
	EXPECT_TRUE(is_settled(&self->bond));
	EXPECT_TRUE(wait_until(p2p_available(&self->bond) == self->before, SOON))
		TH_LOG("%ld bytes available, were %ld", p2p_available(&self->bond),
		       self->before);
	changed = world_changed(&self->world);
	EXPECT_EQ(NULL, changed)
		TH_LOG("%s", changed);
}

TEST_F(p2p, told)
{
	long size = read_number(p2p_path(&self->bond, "size"));

	EXPECT_EQ(1, read_number(p2p_path(&self->bond, "published")));
	EXPECT_LE(PIECE, size);
	EXPECT_LE(self->before, size);
}

TEST_F(p2p, mapped)
{
	char *at = p2p_map(&self->bond, PIECE), *more;

	ASSERT_NE(MAP_FAILED, at);
	EXPECT_EQ(self->before - (long)PIECE, p2p_available(&self->bond));
	pattern_fill(at, PIECE, 1);
	more = p2p_map(&self->bond, PIECE);
	ASSERT_NE(MAP_FAILED, more);
	EXPECT_EQ(self->before - 2 * (long)PIECE, p2p_available(&self->bond));
	pattern_fill(more, PIECE, 2);
	EXPECT_EQ(-1, pattern_check(at, PIECE, 1));
	EXPECT_EQ(-1, pattern_check(more, PIECE, 2));
	/* A part of it goes back before the rest. */
	ASSERT_EQ(0, munmap(at + page_size, page_size));
	EXPECT_EQ(self->before - 2 * (long)PIECE + (long)page_size,
		  p2p_available(&self->bond));
	ASSERT_EQ(0, munmap(at, PIECE));
	EXPECT_EQ(-1, pattern_check(more, PIECE, 2));
	ASSERT_EQ(0, munmap(more, PIECE));
}

/* Who ends without a word gives back, too; a child has what its parent had. */
TEST_F(p2p, forked)
{
	char *at = p2p_map(&self->bond, PIECE);
	int status = -1;

	ASSERT_NE(MAP_FAILED, at);
	pattern_fill(at, PIECE, 3);
	if (!fork()) {
		bool same = pattern_check(at, PIECE, 3) < 0;

		munmap(at, PIECE / 2);
		p2p_map(&self->bond, PIECE);
		_exit(!same);
	}
	wait(&status);
	EXPECT_EQ(0, status);
	EXPECT_EQ(self->before - (long)PIECE, p2p_available(&self->bond));
	EXPECT_EQ(-1, pattern_check(at, PIECE, 3));
	ASSERT_EQ(0, munmap(at, PIECE));
}

/* Until nothing is left; and nothing is lost by asking for too much. */
TEST_F(p2p, used_up)
{
	size_t left = self->before & -page_size;
	char *at;

	EXPECT_EQ(MAP_FAILED, p2p_map(&self->bond, left + page_size));
	EXPECT_EQ(ENOMEM, errno);
	EXPECT_EQ(self->before, p2p_available(&self->bond));
	at = p2p_map(&self->bond, left / 2 & -page_size);
	ASSERT_NE(MAP_FAILED, at);
	EXPECT_EQ(MAP_FAILED, p2p_map(&self->bond, left));
	ASSERT_EQ(0, munmap(at, left / 2 & -page_size));
}

TEST_F(p2p, refused)
{
	int fd = open(p2p_path(&self->bond, "allocate"), O_RDWR | O_CLOEXEC);
	char *at;
	struct pin page;

	ASSERT_LE(0, fd);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, PIECE, PROT_READ, MAP_PRIVATE, fd, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, PIECE, PROT_READ, MAP_SHARED, fd, page_size));
	EXPECT_EQ(EINVAL, errno);
	close(fd);
	/* To get at the pages takes somebody who knows that they are a device's. */
	at = p2p_map(&self->bond, PIECE);
	ASSERT_NE(MAP_FAILED, at);
	EXPECT_FALSE(pin(&page, at, page_size));
	ASSERT_EQ(0, munmap(at, PIECE));
}

/* The disk reads as zeroes. The data do not pass through system memory. */
TEST_F(p2p, dma_from_the_disk)
{
	char *at = p2p_map(&self->bond, PIECE);
	int fd = open_disk(&self->bond);
	ssize_t got;

	ASSERT_NE(MAP_FAILED, at);
	ASSERT_LE(0, fd);
	pattern_fill(at, PIECE, 4);
	got = pread(fd, at, PIECE / 2, 0);
	if (got < 0 && (errno == EREMOTEIO || errno == EFAULT))
		SKIP(goto out, "no DMA between devices on this bus: %s",
		     strerror(errno));
	EXPECT_EQ((ssize_t)PIECE / 2, got);
	EXPECT_EQ(-1, zero_check(at, PIECE / 2));
	EXPECT_EQ(0, zero_check(at + PIECE / 2, 1));
	EXPECT_EQ((ssize_t)PIECE / 2, pwrite(fd, at + PIECE / 2, PIECE / 2, 0));
out:
	close(fd);
	munmap(at, PIECE);
}

struct transfer {
	int fd;
	char *at;
	size_t len;
	ssize_t got;
	pid_t tid;
	long over;
};

static ssize_t transfer(struct transfer *transfer, size_t len)
{
	return pread(transfer->fd, transfer->at, len, 0);
}

/* A thread, not a process: a child would have a mapping of its own. */
static void *transfers(void *arg)
{
	struct transfer *job = arg;

	__atomic_store_n(&job->tid, gettid(), __ATOMIC_SEQ_CST);
	job->got = transfer(job, job->len);
	store(&job->over, 1);
	return NULL;
}

static bool is_at_work(const struct transfer *job)
{
	pid_t tid = __atomic_load_n(&job->tid, __ATOMIC_SEQ_CST);

	return tid && (is_in(tid, "io_schedule") || is_in(tid, "blkdev_"));
}

/* While the device is at work on pages, they are in use, mapped or not. */
TEST_F(p2p, kept_by_dma)
{
	struct transfer job = { .fd = open_disk(&self->bond), .len = 4 * PIECE };
	long low = self->before - (long)job.len;
	pthread_t thread;

	job.at = p2p_map(&self->bond, job.len);
	ASSERT_NE(MAP_FAILED, job.at);
	ASSERT_LE(0, job.fd);
	if (transfer(&job, page_size) < 0)
		SKIP(goto out, "no DMA between devices on this bus: %s",
		     strerror(errno));
	/* After as much as this the next one has to wait. */
	ASSERT_EQ((ssize_t)job.len, transfer(&job, job.len));
	ASSERT_EQ(0, pthread_create(&thread, NULL, transfers, &job));
	ASSERT_TRUE(wait_until(is_at_work(&job), SOON));
	ASSERT_EQ(0, munmap(job.at, job.len));
	EXPECT_EQ(low, p2p_available(&self->bond));
	EXPECT_EQ(0, load(&job.over));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ((ssize_t)job.len, job.got);
	/* The last of it wakes its reader first, and lets go of its pages then. */
	EXPECT_TRUE(wait_until(p2p_available(&self->bond) == self->before, SOON));
	job.at = NULL;
out:
	close(job.fd);
	if (job.at)
		munmap(job.at, job.len);
}

/*
 * The driver goes: mappings go first, so that nothing holds it up. With KASAN the memory
 * takes most of a minute to go and come back.
 */
TEST_F_TIMEOUT(p2p, unbound_under_a_mapping, 2 * DEV_TIMEOUT)
{
	char *at;
	int i;

	for (i = 0; i < ROUNDS; i++) {
		at = p2p_map(&self->bond, PIECE);
		ASSERT_NE(MAP_FAILED, at);
		pattern_fill(at, PIECE, i);
		ASSERT_TRUE(unbind(&self->bond));
		EXPECT_TRUE(bus_error(at, false, NULL));
		EXPECT_EQ(-1, p2p_available(&self->bond));
		ASSERT_TRUE(bind_again(&self->bond));
		ASSERT_TRUE(is_settled(&self->bond));
		EXPECT_EQ(self->before, p2p_available(&self->bond));
		/* The mapping of before is dead. */
		EXPECT_TRUE(bus_error(at, false, NULL));
		ASSERT_EQ(0, munmap(at, PIECE));
	}
}

TEST_HARNESS_MAIN
