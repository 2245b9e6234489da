// SPDX-License-Identifier: GPL-2.0
/*
 * Device memory that goes bad.
 *
 * No other page can take the place of one that is storage, or a device's: whoever
 * maps it is told by SIGBUS, with the size of the mapping that is lost, which is
 * that of the page-table leaf. The memory stays where it is; here nothing is really
 * wrong with it, so that it can be mapped again.
 *
 * mm/memory-failure.c finds the memory's owner by get_dev_pagemap(), and asks it
 * first: persistent memory has the file system tell, if that knows (XFS with its map
 * from blocks to files), and otherwise everybody who maps the page is told.
 *
 * The memory is removed and added after each test: its struct pages remember.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "devmem.h"
#include "hmm_dev.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT DEV_TIMEOUT

#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif

#define SPACE		(300UL << 20)
#define NO_FS		-1

FIXTURE(poison)
{
	struct bond bond;
	char disk[16];
	struct mem mem;
	bool made;
	int log;
	char *bad;		/* somewhere in the middle of a leaf */
	uint64_t phys;		/* of @bad */
	struct world world;
};

FIXTURE_VARIANT(poison)
{
	int fs;
	enum kind kind;
	size_t leaf;
	int shift;
};

FIXTURE_VARIANT_ADD(poison, ext4_4k) { EXT4, DAX_SHARED, 4096, 12 };
FIXTURE_VARIANT_ADD(poison, ext4_2m) { EXT4, DAX_2M, 2UL << 20, 21 };
FIXTURE_VARIANT_ADD(poison, xfs_4k) { XFS, DAX_SHARED, 4096, 12 };
FIXTURE_VARIANT_ADD(poison, device_2m) { NO_FS, DEVICE_DAX_2M, 2UL << 20, 21 };
FIXTURE_VARIANT_ADD(poison, device_1g) { NO_FS, DEVICE_DAX_1G, 1UL << 30, 30 };

/* What there is no memory of this kind for, or NULL */
static const char *memory_make(struct bond *bond, char *disk, int fs, size_t leaf)
{
	if (fs == NO_FS)
		return find_device_dax(bond, leaf) ? NULL :
			"no device DAX with pages of this size";
	if (!find_spare_pmem(bond, disk, SPACE))
		return "no persistent memory of 300 MiB that nobody uses";
	setenv("HMM_DAX_DIR", FS_DIR, 1);
	return fs_make(fs, disk);
}

FIXTURE_SETUP(poison)
{
	const char *why;

	if (access(HARD_OFFLINE, W_OK))
		SKIP(return, "no " HARD_OFFLINE " (CONFIG_MEMORY_FAILURE, root)");
	if (variant->leaf > page_size && !pmd_size)
		SKIP(return, "no transparent huge pages");
	world_take(&self->world);
	why = memory_make(&self->bond, self->disk, variant->fs, variant->leaf);
	if (why)
		SKIP(return, "%s", why);
	self->made = true;
	/* The first file of a file system is not in one piece: the second is. */
	ASSERT_TRUE(mem_map(&self->mem, variant->kind, variant->leaf))
		TH_LOG("%s", self->mem.why);
	mem_unmap(&self->mem);
	ASSERT_TRUE(mem_map(&self->mem, variant->kind, variant->leaf));
	self->bad = self->mem.addr + (variant->leaf / 2 & -page_size);
	store(self->bad, 1234);
	if (variant->fs == NO_FS)
		self->phys = device_dax_number(&self->bond, "resource") +
			(self->bad - self->mem.addr);
	else
		self->phys = pagemap_pfn(self->bad) * page_size;
	ASSERT_NE(0, self->phys);
	self->log = log_open();
	ASSERT_LE(0, self->log);
}

FIXTURE_TEARDOWN(poison)
{
	const char *changed;

	if (!self->made)
		return;
	close(self->log);
	mem_unmap(&self->mem);
	if (variant->fs != NO_FS)
		EXPECT_TRUE(fs_unmount());
	/* No reference has been left behind: removal would wait for it. */
	EXPECT_TRUE(unbind(&self->bond));
	EXPECT_TRUE(bind_again(&self->bond));
	changed = world_changed(&self->world);
	EXPECT_EQ(NULL, changed)
		TH_LOG("%s", changed);
}

#define expect_told(info, how, at) do {				\
	const siginfo_t *info_ = (info);			\
								\
	EXPECT_EQ(SIGBUS, info_->si_signo);			\
	EXPECT_EQ(how, info_->si_code);				\
	EXPECT_EQ((void *)((uintptr_t)(at) & -page_size),	\
		  (void *)((uintptr_t)info_->si_addr & -page_size)); \
	EXPECT_EQ(variant->shift, info_->si_addr_lsb);		\
} while (0)

/* Is @addr what the kernel names, which for a compound page is its start? */
static char *told_of(char *bad, char *start, enum kind kind)
{
	return kind == DEVICE_DAX_2M || kind == DEVICE_DAX_1G ? start : bad;
}

TEST_F(poison, told_at_once)
{
	char *at = told_of(self->bad, self->mem.addr, variant->kind);
	siginfo_t info;

	bus_errors_begin();
	EXPECT_EQ(0, madvise(self->bad, page_size, MADV_HWPOISON));
	ASSERT_TRUE(bus_errors_end(&info));
	expect_told(&info, BUS_MCEERR_AR, at);
	EXPECT_TRUE(log_says(self->log, "recovery action for dax page: Recovered",
			     SOON));
	/* The machine lives, and so does the process: the next touch maps it again. */
	EXPECT_EQ(1234, load(self->bad));
	store(self->bad, 5678);
	EXPECT_EQ(5678, load(self->bad));
}

/* One that asked for it hears of what others have found. */
static bool waits_for_news(void *arg)
{
	struct { char *bad; char *at; int shift; } *task = arg;
	struct timespec limit = { SOON, 0 };
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	sigprocmask(SIG_BLOCK, &set, NULL);
	prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0);
	if (load(task->bad) != 1234)
		return false;
	store(task->bad + 8, 1);
	return sigtimedwait(&set, &info, &limit) == SIGBUS &&
	       info.si_code == BUS_MCEERR_AO && info.si_addr == task->at &&
	       info.si_addr_lsb == task->shift;
}

TEST_F(poison, told_of_what_others_found)
{
	struct { char *bad; char *at; int shift; } task = {
		self->bad, told_of(self->bad, self->mem.addr, variant->kind),
		variant->shift,
	};
	char *mine = self->mem.addr;
	siginfo_t info;
	pid_t pid;

	store(self->bad + 8, 0);
	pid = start(waits_for_news, &task);
	ASSERT_TRUE(wait_until(load(self->bad + 8) == 1, SOON));
	/* The finder maps nothing of it. */
	ASSERT_EQ(0, munmap(mine, self->mem.len));
	bus_errors_begin();
	EXPECT_TRUE(tell_frame(HARD_OFFLINE, self->phys / page_size));
	EXPECT_FALSE(bus_errors_end(&info));
	EXPECT_TRUE(finished(pid));
	self->mem.addr = mmap(mine, self->mem.len, PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_FIXED, self->mem.fd, 0);
	EXPECT_EQ(1234, load(self->bad));
}

/* There is no other page to move the data to. */
TEST_F(poison, not_taken_offline)
{
	siginfo_t info;

	bus_errors_begin();
	EXPECT_EQ(-1, madvise(self->bad, page_size, MADV_SOFT_OFFLINE));
	EXPECT_EQ(EIO, errno);
	EXPECT_FALSE(tell_frame(SOFT_OFFLINE, self->phys / page_size));
	EXPECT_EQ(EIO, errno);
	EXPECT_FALSE(bus_errors_end(&info));
	EXPECT_EQ(1234, load(self->bad));
}

/* ---- Bad, and in use ---- */

/* With a file system on it, that would have to be unmounted first: see devmem_fsdax. */
FIXTURE(pinned)
{
	struct bond bond;
	struct mem mem;
};

FIXTURE_VARIANT(pinned)
{
	enum kind kind;
	size_t leaf;
};

FIXTURE_VARIANT_ADD(pinned, device_2m) { DEVICE_DAX_2M, 2UL << 20 };
FIXTURE_VARIANT_ADD(pinned, device_1g) { DEVICE_DAX_1G, 1UL << 30 };

FIXTURE_SETUP(pinned)
{
	if (access(HARD_OFFLINE, W_OK))
		SKIP(return, "no " HARD_OFFLINE " (CONFIG_MEMORY_FAILURE, root)");
	if (!find_device_dax(&self->bond, variant->leaf))
		SKIP(return, "no device DAX with pages of this size");
	ASSERT_TRUE(mem_map(&self->mem, variant->kind, variant->leaf));
}

FIXTURE_TEARDOWN(pinned)
{
}

static bool unbinds(void *bond)
{
	return unbind(bond);
}

/* Removal waits for bad memory as for any other. */
TEST_F(pinned, removal_waits)
{
	char *at = self->mem.addr;
	uint64_t phys = device_dax_number(&self->bond, "resource");
	struct pin page;
	pid_t pid;

	store(at, 1);
	ASSERT_TRUE(pin(&page, at, page_size));
	bus_errors_begin();
	EXPECT_TRUE(tell_frame(HARD_OFFLINE, phys / page_size));
	EXPECT_TRUE(bus_errors_end(NULL));
	pid = start(unbinds, &self->bond);
	EXPECT_TRUE(wait_until(in_removal(pid), SOON));
	usleep(A_WHILE);
	EXPECT_TRUE(is_running(pid));
	/* What is on its way out is nobody's any more: there is nobody to tell. */
	EXPECT_FALSE(tell_frame(HARD_OFFLINE, phys / page_size));
	EXPECT_EQ(ENXIO, errno);
	unpin(&page);
	ASSERT_TRUE(finished(pid));
	/* Nobody has it open when it is bound again: see devmem_device. */
	mem_unmap(&self->mem);
	EXPECT_TRUE(bind_again(&self->bond));
}

TEST_HARNESS_MAIN
