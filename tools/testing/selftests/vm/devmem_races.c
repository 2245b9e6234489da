// SPDX-License-Identifier: GPL-2.0
/*
 * Processes that get at pages of device memory while it comes and goes.
 *
 * Who finds an entry of a page table for such a page asks get_dev_pagemap() whether
 * the page behind it still exists, and has to hear no from the moment on at which
 * removal has begun to wait. What may come of it is an error or a SIGBUS, and no
 * page that is gone.
 *
 *	one who pins			one who unbinds
 *
 *	finds the entry
 *					kills the count
 *	get_dev_pagemap(): NULL		  or waits until this is put
 *	the fault: SIGBUS, -EFAULT
 *					waits for each page
 *					struct pages go
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "devmem.h"
#include "hmm_dev.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT DEV_TIMEOUT

#define ROUNDS		15
#define WORKERS		2
#define SPACE		(300UL << 20)
#define BYTES		(2UL << 20)
#define FILE_PATH	FS_DIR "/file"

/* What the processes that pin and the one that unbinds share */
struct shared {
	long stop;
	long pinned;		/* how often pages were had */
	long refused;		/* and how often not */
	long trouble;		/* an errno that may not come */
	long round;		/* how often the memory has come */
	long open;		/* how many have it open */
};

struct job {
	struct shared *shared;
	char path[80];		/* what to map */
	bool by_pipe;		/* keep pages for a moment, or read them only */
};

static bool once(const struct job *job, char *at)
{
	struct shared *shared = job->shared;
	char bytes[64];
	struct iovec here = { bytes, sizeof(bytes) };
	struct iovec there = { at, sizeof(bytes) };
	struct pin pages;
	bool had;

	if (job->by_pipe) {
		had = pin(&pages, at, 4 * page_size);
		if (had)
			unpin(&pages);
	} else {
		had = process_vm_readv(getpid(), &here, 1, &there, 1, 0) ==
			sizeof(bytes);
	}
	if (!had && errno != EFAULT)
		store(&shared->trouble, errno);
	__atomic_add_fetch(had ? &shared->pinned : &shared->refused, 1,
			   __ATOMIC_SEQ_CST);
	return had;
}

/* Have pages, with an entry in the way or a fault, until there are none. */
static void pin_until_refused(const struct job *job, char *at)
{
	while (!load(&job->shared->stop)) {
		if (!once(job, at + (random() % 256) * page_size))
			return;
		if (random() % 8)
			continue;
		madvise(at, BYTES, MADV_DONTNEED);
		bus_error(at, true, NULL);
	}
}

static void map_and_pin(const struct job *job, int fd)
{
	char *at = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (at == MAP_FAILED)
		return;
	pin_until_refused(job, at);
	munmap(at, BYTES);
}

/*
 * One round for each time that the memory is there. Opened only while it is sure to
 * stay: drivers/dax/device.c does not look at that, and falls over its own feet in
 * mmap() afterwards.
 */
static bool pins_in_rounds(void *arg)
{
	struct job *job = arg;
	struct shared *shared = job->shared;
	long round = 0;
	int fd;

	while (!load(&shared->stop)) {
		fd = open(job->path, O_RDWR | O_CLOEXEC);
		__atomic_add_fetch(&shared->open, 1, __ATOMIC_SEQ_CST);
		map_and_pin(job, fd);
		close(fd);
		__atomic_sub_fetch(&shared->open, 1, __ATOMIC_SEQ_CST);
		wait_until(load(&shared->round) > round || load(&shared->stop), SOON);
		round = load(&shared->round);
	}
	return true;
}

/* Again and again, whoever else is at work */
static bool pins_on(void *arg)
{
	struct job *job = arg;

	int fd = open(job->path, O_RDWR | O_CLOEXEC);

	while (!load(&job->shared->stop))
		map_and_pin(job, fd);
	close(fd);
	return true;
}

FIXTURE(races)
{
	struct bond bond;
	struct world world;
	struct shared *shared;
};

FIXTURE_VARIANT(races)
{
	size_t leaf;
	bool by_pipe;
};

FIXTURE_VARIANT_ADD(races, pipes) { 2UL << 20, true };
FIXTURE_VARIANT_ADD(races, reads) { 2UL << 20, false };

FIXTURE_SETUP(races)
{
	if (!find_device_dax(&self->bond, variant->leaf))
		SKIP(return, "no device DAX with pages of this size");
	self->shared = mmap(NULL, page_size, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->shared);
	world_take(&self->world);
}

FIXTURE_TEARDOWN(races)
{
	const char *changed;

	if (!self->shared)
		return;
	EXPECT_TRUE(bond_holds(&self->bond));
	changed = world_changed(&self->world);
	EXPECT_EQ(NULL, changed)
		TH_LOG("%s", changed);
}

TEST_F(races, removal_and_pins)
{
	struct shared *shared = self->shared;
	struct job job = { .shared = shared, .by_pipe = variant->by_pipe };
	pid_t pids[WORKERS];
	long had;
	int i;

	snprintf(job.path, sizeof(job.path), "/dev/%s", self->bond.device);
	for (i = 0; i < WORKERS; i++)
		pids[i] = start(pins_in_rounds, &job);
	for (i = 0; i < ROUNDS; i++) {
		had = load(&shared->pinned);
		ASSERT_TRUE(wait_until(load(&shared->open) == WORKERS &&
				       load(&shared->pinned) > had + 20, SOON));
		ASSERT_TRUE(unbind(&self->bond));
		/* Nobody has it open when it is bound again: see devmem_device. */
		ASSERT_TRUE(wait_until(!load(&shared->open), SOON));
		ASSERT_TRUE(bind_again(&self->bond));
		store(&shared->round, i + 1);
	}
	store(&shared->stop, 1);
	for (i = 0; i < WORKERS; i++)
		EXPECT_TRUE(finished(pids[i]));
	EXPECT_EQ(0, shared->trouble);
	TH_LOG("pages had %ld times, refused %ld times", shared->pinned,
	       shared->refused);
}

/* ---- Files ---- */

/* A file of its own on memory that nobody else uses */
struct place {
	enum fs fs;
	struct bond bond;
	char disk[16];
	struct world world;
	struct shared *shared;
	int fd;
};

/* What there is none for, or NULL */
static const char *place_make(struct place *place, enum fs fs)
{
	const char *why;

	if (!find_spare_pmem(&place->bond, place->disk, SPACE))
		return "no persistent memory of 300 MiB that nobody uses";
	world_take(&place->world);
	why = fs_make(fs, place->disk);
	if (why)
		return why;
	place->fd = open(FILE_PATH, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (place->fd < 0 || ftruncate(place->fd, BYTES))
		return "no file can be made";
	place->shared = mmap(NULL, page_size, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return place->shared == MAP_FAILED ? "out of memory" : NULL;
}

/* What is not as it was, or NULL */
static const char *place_unmake(struct place *place)
{
	close(place->fd);
	if (!fs_unmount())
		return "the file system cannot be unmounted";
	return world_changed(&place->world);
}

FIXTURE(files)
{
	struct place place;
};

FIXTURE_VARIANT(files)
{
	enum fs fs;
};

FIXTURE_VARIANT_ADD(files, ext4) { EXT4 };
FIXTURE_VARIANT_ADD(files, xfs) { XFS };

FIXTURE_SETUP(files)
{
	const char *why = place_make(&self->place, variant->fs);

	if (why)
		SKIP(return, "%s", why);
}

FIXTURE_TEARDOWN(files)
{
	const char *changed = NULL;

	if (self->place.shared)
		changed = place_unmake(&self->place);
	EXPECT_EQ(NULL, changed)
		TH_LOG("%s", changed);
}

/* Truncation waits for those who have pages, and none is had after it. */
TEST_F(files, truncation_and_pins)
{
	struct shared *shared = self->place.shared;
	struct job job = { shared, FILE_PATH, true };
	pid_t pids[WORKERS];
	long had;
	int i;

	for (i = 0; i < WORKERS; i++)
		pids[i] = start(pins_on, &job);
	for (i = 0; i < 10 * ROUNDS; i++) {
		had = load(&shared->pinned);
		EXPECT_TRUE(wait_until(load(&shared->pinned) > had, SOON));
		ASSERT_EQ(0, ftruncate(self->place.fd, 0));
		ASSERT_EQ(0, ftruncate(self->place.fd, BYTES));
	}
	store(&shared->stop, 1);
	for (i = 0; i < WORKERS; i++)
		EXPECT_TRUE(finished(pids[i]));
	EXPECT_EQ(0, shared->trouble);
	TH_LOG("pages had %ld times, refused %ld times", shared->pinned,
	       shared->refused);
}

/*
 * XFS hears that its memory goes, unmaps it everywhere, and tells the processes by
 * SIGBUS. With ext4, which does not, entries stay, and this would not end before a
 * signal: in 6.12 a fault has nothing to do where an entry is present, and GUP, to
 * which get_dev_pagemap() says no, faults again.
 */
FIXTURE(file_removal)
{
	struct place place;
};

FIXTURE_SETUP(file_removal)
{
	const char *why = place_make(&self->place, XFS);

	if (why)
		SKIP(return, "%s", why);
}

FIXTURE_TEARDOWN(file_removal)
{
	const char *changed = NULL;

	if (self->place.shared)
		changed = place_unmake(&self->place);
	EXPECT_EQ(NULL, changed)
		TH_LOG("%s", changed);
}

/*
 * Has pages until it is told that they are gone. The last one it touches no more: a
 * fault that comes at once may map those in use again.
 */
static bool pins_until_told(void *arg)
{
	struct job *job = arg;
	struct shared *shared = job->shared;
	int fd = open(job->path, O_RDWR | O_CLOEXEC);
	char *at = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	siginfo_t info;

	store(at + BYTES - page_size, 1);
	bus_errors_begin();
	while (!bus_errors_seen() && once(job, at))
		;
	if (!wait_until(load(&shared->stop), SOON))
		return false;
	return bus_errors_end(&info) && info.si_code == BUS_MCEERR_AO &&
	       bus_error(at + BYTES - page_size, false, NULL);
}

TEST_F(file_removal, removal_and_pins)
{
	struct place *place = &self->place;
	struct shared *shared = place->shared;
	struct job job = { shared, FILE_PATH, true };
	pid_t pids[WORKERS];
	int i;

	for (i = 0; i < WORKERS; i++)
		pids[i] = start(pins_until_told, &job);
	EXPECT_TRUE(wait_until(load(&shared->pinned) > 100, SOON));
	EXPECT_TRUE(unbind(&place->bond));
	store(&shared->stop, 1);
	for (i = 0; i < WORKERS; i++)
		EXPECT_TRUE(finished(pids[i]));
	EXPECT_EQ(0, shared->trouble);
	EXPECT_TRUE(bind_again(&place->bond));
	TH_LOG("pages had %ld times", shared->pinned);
}

TEST_HARNESS_MAIN
