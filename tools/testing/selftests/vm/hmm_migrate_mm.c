// SPDX-License-Identifier: GPL-2.0
/*
 * What the rest of memory management does with pages that are on a device, and with
 * those that are about to go there: advice, merging, userfaultfd, pins, swapping,
 * limits, soft-dirty bits. Whether it takes such pages, lets them be or says no is
 * its own affair, and is stated here as Linux 6.12 does it; their data is not.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mm/gup_test.h>

#include "../kselftest_harness.h"
#include "devmem.h"
#include "hmm_dev.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT DEV_TIMEOUT

#define PARAMETERS	"/sys/module/test_hmm/parameters/"
#define KSM		"/sys/kernel/mm/ksm/"
#define KHUGEPAGED	"/sys/kernel/mm/transparent_hugepage/khugepaged/"
#define GUP_TEST	"/sys/kernel/debug/gup_test"
#define MIB		(1024UL * 1024)
#define PAGES		48
#define HALF		(PAGES / 2)
/* Of /proc/kpageflags: for the kernel's own people */
#define KPF_MLOCKED	33
#define KPF_SWAPBACKED	14

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE	0x08
#endif

FIXTURE(mm)
{
	int fd;
	char *at;
	char *buf;
	char *want;		/* what was there first */
	size_t bytes;
};

FIXTURE_VARIANT(mm)
{
	int minor;
	bool is_private;
};

FIXTURE_VARIANT_ADD(mm, private) { 0, true };
FIXTURE_VARIANT_ADD(mm, coherent) { 2, false };

FIXTURE_SETUP(mm)
{
	self->fd = dev_open(variant->minor);
	if (self->fd < 0 && !variant->is_private)
		SKIP(return, "no coherent device (test_hmm.spm_addr_dev0, _dev1)");
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, release(self->fd));
	/* To add it takes time by its size. */
	ASSERT_TRUE(write_number(PARAMETERS "memory_mib", 16));
	self->bytes = PAGES * page_size;
	self->at = map_small(self->bytes);
	self->buf = buffer(self->bytes);
	self->want = buffer(self->bytes);
	pattern_fill(self->at, self->bytes, 1);
	pattern_fill(self->want, self->bytes, 1);
}

/* Nothing has stayed behind on the device: a page that is lost would keep it. */
FIXTURE_TEARDOWN(mm)
{
	if (self->fd < 0)
		return;
	munmap(self->at, self->bytes);
	EXPECT_EQ(0, release(self->fd));
	write_number(PARAMETERS "memory_mib", 256);
	close(self->fd);
}

/* The i-th page, of any memory. */
static char *nth(char *at, size_t i)
{
	return at + i * page_size;
}

#define AT(i)		nth(self->at, i)
#define LOCAL(npages)	pages_in(self->fd, self->at, npages)
/* What is left on the device of pages that a CPU has touched. */
#define TOUCHED(n)	(variant->is_private ? 0 : (n))

static bool all_go(int fd, char *at, char *buf, size_t pages)
{
	return !move_in(fd, at, buf, pages) && pages_in(fd, at, pages) == pages;
}

#define MOVE_IN(at, npages)						\
	ASSERT_TRUE(all_go(self->fd, at, self->buf, npages))

/* Pages that hold neither what they held first, nor zeroes instead. */
static size_t neither(char *at, char *want, size_t pages)
{
	size_t i, wrong = 0;

	for (i = 0; i < pages; i++)
		wrong += memcmp(nth(at, i), nth(want, i), page_size) &&
			 zero_check(nth(at, i), page_size) != -1;
	return wrong;
}

/*
 * All but @n of a run go to the device; a page that somebody has in hand for a moment
 * goes at a later try, those not at any.
 */
static bool all_go_but(int fd, char *at, char *buf, size_t pages, size_t n)
{
	int tries;

	for (tries = 0; tries < 20; tries++) {
		if (dev_request(fd, HMM_DMIRROR_MIGRATE_TO_DEV, at, buf,
				pages).err != -ENOENT)
			return false;
		if (pages_in(fd, at, pages) == pages - n && tries >= 2)
			return true;
	}
	return false;
}

/* ---- Advice ---- */

/* Every third page is dropped; that one is zero, whoever reads. */
TEST_F(mm, dontneed)
{
	size_t i;

	MOVE_IN(self->at, PAGES);
	for (i = 0; i < PAGES; i += 3) {
		ASSERT_EQ(0, madvise(AT(i), page_size, MADV_DONTNEED));
		memset(nth(self->want, i), 0, page_size);
	}
	EXPECT_EQ(PAGES - PAGES / 3, LOCAL(PAGES));
	EXPECT_EQ((long)((PAGES - PAGES / 3) * page_size >> 10),
		  smaps_field(self->at, "Rss"));
	MOVE_IN(self->at, PAGES);
	EXPECT_EQ(0, memcmp(self->buf, self->want, self->bytes));
	EXPECT_EQ(0, memcmp(self->at, self->want, self->bytes));
}

/* No CPU's dirty bit tells of a device's writes: these pages are let be. */
TEST_F(mm, free_on_device)
{
	MOVE_IN(self->at, PAGES);
	ASSERT_EQ(0, madvise(self->at, self->bytes, MADV_FREE));
	ASSERT_EQ(0, madvise(self->at, self->bytes, MADV_PAGEOUT));
	EXPECT_EQ(PAGES, LOCAL(PAGES));
	EXPECT_EQ(0, memcmp(self->at, self->want, self->bytes));
	EXPECT_EQ(0, move_out(self->fd, self->at, PAGES));
	EXPECT_EQ(0, memcmp(self->at, self->want, self->bytes));
}

/* Freed, then sent there: what the device writes is as good as a CPU's write. */
TEST_F(mm, free_before_device)
{
	if (!have_swap())
		SKIP(return, "no swap");
	ASSERT_EQ(0, madvise(self->at, self->bytes, MADV_FREE));
	MOVE_IN(self->at, PAGES);
	EXPECT_EQ(0, neither(self->buf, self->want, PAGES));
	pattern_fill(self->buf, HALF * page_size, 2);
	EXPECT_EQ(0, dev_write(self->fd, self->at, self->buf, HALF).err);
	EXPECT_EQ(HALF, LOCAL(HALF));
	EXPECT_EQ(0, move_out(self->fd, self->at, PAGES));
	ASSERT_TRUE(page_out(self->at, PAGES));
	EXPECT_EQ(-1, pattern_check(self->at, HALF * page_size, 2));
	EXPECT_EQ(0, neither(AT(HALF), nth(self->want, HALF), PAGES - HALF));
}

TEST_F(mm, cold)
{
	MOVE_IN(self->at, PAGES);
	ASSERT_EQ(0, madvise(self->at, self->bytes, MADV_COLD));
	EXPECT_EQ(PAGES, LOCAL(PAGES));
	EXPECT_EQ(0, memcmp(self->at, self->want, self->bytes));
}

/* Device memory is not reclaimed; what lies beside it is. */
TEST_F(mm, pageout)
{
	size_t i;

	if (!have_swap())
		SKIP(return, "no swap");
	MOVE_IN(self->at, HALF);
	ASSERT_TRUE(page_out(AT(HALF), PAGES - HALF));
	ASSERT_EQ(0, madvise(self->at, self->bytes, MADV_PAGEOUT));
	EXPECT_EQ(HALF, LOCAL(PAGES));
	/* What is swapped out is not there to go. */
	EXPECT_TRUE(all_go_but(self->fd, self->at, self->buf, PAGES, PAGES - HALF));
	for (i = HALF; i < PAGES; i++)
		EXPECT_EQ(0, memcmp(AT(i), nth(self->want, i), page_size));
	MOVE_IN(self->at, PAGES);
	EXPECT_EQ(0, memcmp(self->buf, self->want, self->bytes));
	EXPECT_EQ(0, memcmp(self->at, self->want, self->bytes));
}

/* To a child that shares it, what was swapped out once; the device's data is newer. */
TEST_F(mm, swap_cache)
{
	pid_t child;
	int go[2];
	char c;

	if (!have_swap())
		SKIP(return, "no swap");
	ASSERT_TRUE(page_out(self->at, PAGES));
	ASSERT_EQ(0, pipe(go));
	child = fork();
	if (!child) {
		close(go[1]);
		if (read(go[0], &c, 1) < 0)
			_exit(2);
		_exit(memcmp(self->at, self->want, self->bytes));
	}
	/* In the swap cache, and in swap for the child: it cannot go. */
	EXPECT_EQ(0, memcmp(self->at, self->want, self->bytes));
	EXPECT_TRUE(all_go_but(self->fd, self->at, self->buf, PAGES, PAGES));
	close(go[1]);
	ASSERT_EQ(child, waitpid(child, &(int){ 0 }, 0));

	MOVE_IN(self->at, PAGES);
	pattern_fill(self->buf, self->bytes, 2);
	EXPECT_EQ(0, dev_write(self->fd, self->at, self->buf, PAGES).err);
	EXPECT_EQ(0, move_out(self->fd, self->at, PAGES));
	ASSERT_TRUE(page_out(self->at, PAGES));
	EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 2));
	close(go[0]);
}

/*
 * One page of the huge page to be is on the device. 6.12 brings it home for that if
 * it is private, as it would from swap; with a coherent one there is no huge page.
 */
TEST_F(mm, collapse)
{
	size_t pages = pmd_size / page_size;
	int ret, tries = 20;
	struct mem mem;

	if (!mem_map(&mem, ANON_THP, pmd_size))
		SKIP(return, "%s", mem.why);
	ASSERT_EQ(0, madvise(mem.addr, mem.len, MADV_DONTNEED));
	ASSERT_EQ(0, no_huge_pages(mem.addr, mem.len));
	pattern_fill(mem.addr, mem.len, 5);
	MOVE_IN(nth(mem.addr, 7), 9);
	ASSERT_EQ(0, madvise(mem.addr, mem.len, MADV_HUGEPAGE));
	do {
		ret = madvise(mem.addr, mem.len, MADV_COLLAPSE);
	} while (ret && errno == EAGAIN && --tries && !usleep(10000));
	TH_LOG("collapse: %s", ret ? strerror(errno) : "done");
	EXPECT_EQ(variant->is_private ? 0 : -1, ret);
	EXPECT_EQ(TOUCHED(9), pages_in(self->fd, mem.addr, pages));
	EXPECT_EQ(ret ? 0 : (long)pmd_size >> 10,
		  smaps_field(mem.addr, "AnonHugePages"));
	EXPECT_EQ(-1, pattern_check(mem.addr, mem.len, 5));
	mem_unmap(&mem);
}

/* Locked memory is so again when it is home. */
TEST_F(mm, mlock)
{
	const uint64_t locked = 1ULL << KPF_MLOCKED;
	size_t i, n = 0;

	ASSERT_EQ(0, mlock(AT(8), 8 * page_size));
	MOVE_IN(self->at, PAGES);
	ASSERT_EQ(0, mlock(AT(16), 8 * page_size));
	EXPECT_EQ(0, move_out(self->fd, self->at, PAGES));
	EXPECT_EQ(16 * (long)page_size >> 10,
		  smaps_sum(AT(8), 16 * page_size, "Locked"));
	for (i = 8; i < 24; i++)
		n += !!(page_flags(pagemap_pfn(AT(i))) & locked);
	EXPECT_EQ(16, n);
	EXPECT_EQ(0, munlock(self->at, self->bytes));
	EXPECT_EQ(0, memcmp(self->at, self->want, self->bytes));
}

/* In pages, those included that CPUs keep in batches. */
static long locked_pages(void)
{
	write_number("/proc/sys/vm/drop_caches", 1);
	write_number("/proc/sys/vm/stat_refresh", 1);
	return read_keyed("/proc/vmstat", "nr_mlock");
}

/* A page that is unlocked on the device is so in statistics when it is free. */
TEST_F(mm, mlock_ends_on_device)
{
	long before = locked_pages();

	ASSERT_EQ(0, mlock(self->at, self->bytes));
	EXPECT_EQ(before + PAGES, locked_pages());
	MOVE_IN(self->at, PAGES);
	ASSERT_EQ(0, munlock(self->at, self->bytes));
	EXPECT_EQ(0, move_out(self->fd, self->at, HALF));
	EXPECT_EQ(0, memcmp(self->at, self->want, HALF * page_size));
	ASSERT_EQ(0, munmap(self->at, self->bytes));
	EXPECT_EQ(before, locked_pages());
}

/* It drains the batches of all CPUs each time it looks for something to do. */
static long khugepaged_sleeps(long ms)
{
	long before = read_number(KHUGEPAGED "scan_sleep_millisecs");

	write_number(KHUGEPAGED "scan_sleep_millisecs", ms);
	/* That wakes it. */
	usleep(200000);
	return before;
}

/* Unmapped there, it is still in a batch of that CPU, which the device need not await. */
TEST_F(mm, mlock_unmapped_on_device)
{
	long before = locked_pages(), ms = khugepaged_sleeps(60000);
	double began;

	ASSERT_EQ(0, mlock(self->at, HALF * page_size));
	MOVE_IN(self->at, HALF);
	stay_on(0);
	ASSERT_EQ(0, munmap(self->at, HALF * page_size));
	stay_on(sysconf(_SC_NPROCESSORS_ONLN) - 1);
	began = seconds();
	EXPECT_EQ(0, release(self->fd));
	EXPECT_GT(5.0, seconds() - began);
	EXPECT_EQ(before, locked_pages());
	khugepaged_sleeps(ms);
}

/* On a CPU of its own, if there are two, until @go is closed. */
static void child_maps_no_more(char *at, size_t bytes, int ready, int go)
{
	char c = 0;

	stay_on(0);
	if (syscall(SYS_mlock2, at, bytes, MLOCK_ONFAULT) || munmap(at, bytes) ||
	    write(ready, &c, 1) != 1 || read(go, &c, 1) < 0)
		_exit(1);
	_exit(0);
}

/* A reference in such a batch is no reason why a CPU should not get its page. */
TEST_F(mm, mlock_unmapped_by_child)
{
	size_t bytes = HALF / 2 * page_size;
	long ms = khugepaged_sleeps(60000);
	int ready[2], go[2], status;
	double began;
	pid_t child;
	char c;

	MOVE_IN(self->at, HALF / 2);
	ASSERT_EQ(0, pipe(ready));
	ASSERT_EQ(0, pipe(go));
	child = fork();
	if (!child) {
		close(go[1]);
		child_maps_no_more(self->at, bytes, ready[1], go[0]);
	}
	stay_on(sysconf(_SC_NPROCESSORS_ONLN) - 1);
	ASSERT_EQ(1, read(ready[0], &c, 1));
	began = seconds();
	EXPECT_EQ(0, memcmp(self->at, self->want, bytes));
	EXPECT_GT(5.0, seconds() - began);
	khugepaged_sleeps(ms);
	close(go[1]);
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(0, status);
}

static void child_locks(char *at, size_t bytes, int ready, int go)
{
	char c = 0;

	if (mlock(at, bytes) || write(ready, &c, 1) != 1 || read(go, &c, 1) < 0)
		_exit(1);
	_exit(0);
}

/* Locked by two, and moved: it takes two to unlock it. */
TEST_F(mm, mlock_of_two)
{
	const uint64_t locked = 1ULL << KPF_MLOCKED;
	int ready[2], go[2], status;
	size_t i, n = 0;
	pid_t child;
	char c;

	ASSERT_EQ(0, mprotect(self->at, self->bytes, PROT_READ));
	ASSERT_EQ(0, pipe(ready));
	ASSERT_EQ(0, pipe(go));
	child = fork();
	if (!child) {
		close(go[1]);
		child_locks(self->at, self->bytes, ready[1], go[0]);
	}
	ASSERT_EQ(1, read(ready[0], &c, 1));
	ASSERT_EQ(0, mlock(self->at, self->bytes));
	MOVE_IN(self->at, PAGES);
	EXPECT_EQ(0, move_out(self->fd, self->at, PAGES));
	locked_pages();
	close(go[1]);
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(0, status);
	locked_pages();
	for (i = 0; i < PAGES; i++)
		n += !!(page_flags(pagemap_pfn(AT(i))) & locked);
	EXPECT_EQ(PAGES, n);
	EXPECT_EQ(0, memcmp(self->at, self->want, self->bytes));
}

/* ---- Memory that may be dropped ---- */

static size_t swap_backed(char *at, size_t pages)
{
	size_t i, n = 0;

	for (i = 0; i < pages; i++)
		n += page_flags(pagemap_pfn(nth(at, i))) >> KPF_SWAPBACKED & 1;
	return n;
}

/* It never goes to swap, and that is so after it has been on a device, too. */
TEST_F(mm, droppable)
{
	char *at = mmap(NULL, self->bytes, PROT_READ | PROT_WRITE,
			MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		SKIP(return, "no memory that may be dropped: %s", strerror(errno));
	memcpy(at, self->want, self->bytes);
	EXPECT_EQ(0, swap_backed(at, PAGES));
	MOVE_IN(at, PAGES);
	EXPECT_EQ(0, move_out(self->fd, at, PAGES));
	EXPECT_EQ(0, swap_backed(at, PAGES));
	EXPECT_EQ(0, neither(at, self->want, PAGES));
	munmap(at, self->bytes);
}

/* ---- Soft-dirty bits ---- */

static bool soft_dirty_clear(void)
{
	return write_text("/proc/self/clear_refs", "4");
}

#define DIRTY(from, n)	pagemap_count(AT(from), n, PM_SOFT_DIRTY)

/* Every page keeps its own, in both directions; home by request and by a touch. */
TEST_F(mm, soft_dirty)
{
	size_t round, i;

	if (!soft_dirty_clear() || DIRTY(0, PAGES))
		SKIP(return, "no soft-dirty bits");
	for (round = 0; round < 2; round++) {
		ASSERT_TRUE(soft_dirty_clear());
		for (i = 0; i < PAGES; i += 4)
			store(AT(i), round);
		ASSERT_EQ(PAGES / 4, DIRTY(0, PAGES));
		MOVE_IN(self->at, PAGES);
		EXPECT_EQ(PAGES / 4, DIRTY(0, PAGES));
		if (round)
			EXPECT_EQ(0, move_out(self->fd, self->at, PAGES));
		for (i = 0; i < PAGES; i++) {
			EXPECT_EQ(i % 4 ? load(nth(self->want, i)) : (long)round,
				  load(AT(i)));
			EXPECT_EQ(!(i % 4), DIRTY(i, 1));
		}
	}
}

/* Cleared there: the first write after that tells, not before. */
TEST_F(mm, soft_dirty_cleared_on_device)
{
	if (!soft_dirty_clear() || DIRTY(0, PAGES))
		SKIP(return, "no soft-dirty bits");
	pattern_fill(self->at, self->bytes, 1);
	MOVE_IN(self->at, PAGES);
	ASSERT_EQ(PAGES, DIRTY(0, PAGES));
	ASSERT_TRUE(soft_dirty_clear());
	EXPECT_EQ(0, DIRTY(0, PAGES));
	EXPECT_EQ(0, memcmp(self->at, self->want, self->bytes));
	EXPECT_EQ(0, DIRTY(0, PAGES));
	store(AT(3), 3);
	EXPECT_EQ(1, DIRTY(0, PAGES));
	EXPECT_EQ(1, DIRTY(3, 1));
}

/* ---- Merged pages ---- */

/* Leave the scanner stopped. */
static bool ksm_scan(double limit)
{
	long had = read_number(KSM "full_scans");
	bool done;

	write_number(KSM "sleep_millisecs", 0);
	write_number(KSM "smart_scan", 0);
	write_number(KSM "run", 1);
	/* The first one computes checksums, the second merges. */
	done = wait_until(read_number(KSM "full_scans") >= had + 3, limit);
	write_number(KSM "run", 0);
	return done;
}

static void fill_alike(char *at, size_t from, size_t to)
{
	memset(nth(at, from), 0x5c, (to - from) * page_size);
}

/* A page that stands for many stays; so does the data when it is taken apart. */
TEST_F(mm, merged_before)
{
	if (read_number(KSM "run") < 0)
		SKIP(return, "no KSM");
	fill_alike(self->at, 0, PAGES);
	ASSERT_EQ(0, madvise(self->at, self->bytes, MADV_MERGEABLE));
	ASSERT_TRUE(ksm_scan(SOON));
	ASSERT_EQ(pagemap_pfn(AT(0)), pagemap_pfn(AT(PAGES - 1)));
	EXPECT_TRUE(all_go_but(self->fd, self->at, self->buf, PAGES, PAGES));
	/* A write makes a page of its own, which goes. */
	store(AT(5), 55);
	MOVE_IN(AT(5), 1);
	EXPECT_EQ(1, LOCAL(PAGES));
	fill_alike(self->want, 0, PAGES);
	store(nth(self->want, 5), 55);
	EXPECT_EQ(0, memcmp(self->at, self->want, self->bytes));
	write_number(KSM "run", 2);
}

/* The scanner goes past pages that are on a device, though they are alike. */
TEST_F(mm, merged_on_device)
{
	if (read_number(KSM "run") < 0)
		SKIP(return, "no KSM");
	fill_alike(self->at, 0, PAGES);
	fill_alike(self->want, 0, PAGES);
	MOVE_IN(self->at, HALF);
	ASSERT_EQ(0, madvise(self->at, self->bytes, MADV_MERGEABLE));
	ASSERT_TRUE(ksm_scan(SOON));
	EXPECT_EQ(pagemap_pfn(AT(HALF)), pagemap_pfn(AT(PAGES - 1)));
	EXPECT_EQ(HALF, LOCAL(PAGES));
	EXPECT_EQ(0, dev_poke(self->fd, AT(1), 11));
	EXPECT_EQ(0, memcmp(AT(2), nth(self->want, 2), self->bytes - 2 * page_size));
	EXPECT_EQ(11, load(AT(1)));
	write_number(KSM "run", 2);
}

/* Pages of zeroes may stand merged as the zero page: who fills one is counted out. */
TEST_F(mm, merged_zeroes)
{
	long before = read_number(KSM "ksm_zero_pages");

	if (before < 0)
		SKIP(return, "no KSM");
	write_number(KSM "use_zero_pages", 1);
	memset(self->at, 0, self->bytes);
	ASSERT_EQ(0, madvise(self->at, self->bytes, MADV_MERGEABLE));
	ASSERT_TRUE(ksm_scan(SOON));
	write_number(KSM "use_zero_pages", 0);
	ASSERT_EQ(before + PAGES, read_number(KSM "ksm_zero_pages"));
	MOVE_IN(self->at, HALF);
	EXPECT_EQ(HALF, LOCAL(PAGES));
	EXPECT_EQ(before + PAGES - HALF, read_number(KSM "ksm_zero_pages"));
	store(AT(PAGES - 1), 77);
	EXPECT_EQ(before + PAGES - HALF - 1, read_number(KSM "ksm_zero_pages"));
	memset(self->want, 0, self->bytes);
	store(nth(self->want, PAGES - 1), 77);
	EXPECT_EQ(0, memcmp(self->at, self->want, self->bytes));
	write_number(KSM "run", 2);
}

/* ---- userfaultfd ---- */

/* For @features and @mode; or -1. Faults that nobody handles are a SIGBUS. */
static int uffd_open(void *at, size_t len, uint64_t features, uint64_t mode)
{
	struct uffdio_api api = {
		.api = UFFD_API, .features = features | UFFD_FEATURE_SIGBUS,
	};
	struct uffdio_register reg = {
		.range = { (uintptr_t)at, len }, .mode = mode,
	};
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (uffd < 0)
		return -1;
	if (!ioctl(uffd, UFFDIO_API, &api) && !ioctl(uffd, UFFDIO_REGISTER, &reg))
		return uffd;
	close(uffd);
	return -1;
}

static int uffd_protect(int uffd, void *at, size_t len, bool on)
{
	struct uffdio_writeprotect wp = {
		.range = { (uintptr_t)at, len },
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	return ioctl(uffd, UFFDIO_WRITEPROTECT, &wp) ? -errno : 0;
}

/* A hole is the handler's to fill, and not the device's. */
TEST_F(mm, uffd_missing)
{
	struct uffdio_copy copy = { .len = page_size };
	int uffd = uffd_open(self->at, self->bytes, 0, UFFDIO_REGISTER_MODE_MISSING);
	size_t i;

	if (uffd < 0)
		SKIP(return, "no userfaultfd");
	ASSERT_EQ(0, madvise(AT(HALF), (PAGES - HALF) * page_size, MADV_DONTNEED));
	EXPECT_TRUE(all_go_but(self->fd, self->at, self->buf, PAGES, PAGES - HALF));
	EXPECT_EQ(HALF, LOCAL(HALF));
	EXPECT_EQ(0, pagemap_count(AT(HALF), PAGES - HALF, PM_PRESENT | PM_SWAPPED));
	EXPECT_TRUE(bus_error(AT(HALF), false, NULL));
	EXPECT_TRUE(bus_error(AT(PAGES - 1), true, NULL));

	/* Beside pages that are on the device now, and stay there. */
	for (i = HALF; i < PAGES; i++) {
		copy.src = (uintptr_t)nth(self->want, i);
		copy.dst = (uintptr_t)AT(i);
		ASSERT_EQ(0, ioctl(uffd, UFFDIO_COPY, &copy));
	}
	EXPECT_EQ(HALF, LOCAL(PAGES));
	MOVE_IN(self->at, PAGES);
	copy.dst = (uintptr_t)AT(0);
	EXPECT_EQ(-1, ioctl(uffd, UFFDIO_COPY, &copy));
	EXPECT_EQ(EEXIST, errno);
	/* They are not missing: nobody asks the handler. */
	EXPECT_FALSE(bus_error(AT(0), false, NULL));
	EXPECT_EQ(0, memcmp(self->at, self->want, self->bytes));
	close(uffd);
}

/* How pages that are protected come home */
enum way { BY_REQUEST, BY_READ, BY_WRITE, BY_RELEASE, WAYS };

static int come_home(int fd, char *at, enum way way)
{
	size_t i;

	switch (way) {
	case BY_REQUEST:
		return move_out(fd, at, PAGES);
	case BY_READ:
		for (i = 0; i < PAGES; i++)
			load(nth(at, i));
		return 0;
	case BY_RELEASE:
		return release(fd);
	default:
		return 0;
	}
}

#define PROTECTED()	pagemap_count(self->at, PAGES, PM_UFFD_WP)

static void uffd_round(struct __test_metadata *_metadata,
		       struct _test_data_mm *self, int uffd, enum way way,
		       bool before)
{
	size_t i;

	if (before)
		for (i = 0; i < PAGES; i += 3)
			ASSERT_EQ(0, uffd_protect(uffd, AT(i), page_size, true));
	MOVE_IN(self->at, PAGES);
	if (!before)
		for (i = 0; i < PAGES; i += 3)
			ASSERT_EQ(0, uffd_protect(uffd, AT(i), page_size, true));
	EXPECT_EQ(PAGES / 3, PROTECTED());
	EXPECT_EQ(-EFAULT, dev_poke(self->fd, AT(3), 9));
	ASSERT_EQ(0, come_home(self->fd, self->at, way));
	EXPECT_EQ(PAGES / 3, PROTECTED());
	EXPECT_EQ(0, memcmp(self->at, self->want, self->bytes));
	for (i = 0; i < PAGES; i++)
		EXPECT_EQ(!(i % 3), bus_error(AT(i), true, NULL));
	for (i = 0; i < PAGES; i += 3)
		EXPECT_EQ(0, memcmp(AT(i), nth(self->want, i), page_size));
	EXPECT_EQ(0, uffd_protect(uffd, self->at, self->bytes, false));
	EXPECT_EQ(0, PROTECTED());
	memcpy(self->at, self->want, self->bytes);
}

/* Protected here or there: the next write has to ask, wherever the page has been. */
TEST_F(mm, uffd_write_protected)
{
	int uffd = uffd_open(self->at, self->bytes, UFFD_FEATURE_PAGEFAULT_FLAG_WP,
			     UFFDIO_REGISTER_MODE_WP);
	enum way way;

	if (uffd < 0)
		SKIP(return, "no userfaultfd with write protection");
	for (way = 0; way < WAYS; way++) {
		uffd_round(_metadata, self, uffd, way, true);
		uffd_round(_metadata, self, uffd, way, false);
	}
	close(uffd);
}

/* How many pages have been written to since the last look; or an error */
static long uffd_written(void *at, size_t len)
{
	struct page_region regions[PAGES];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
		.start = (uintptr_t)at, .end = (uintptr_t)at + len,
		.vec = (uintptr_t)regions, .vec_len = PAGES,
		.category_mask = PAGE_IS_WRITTEN, .return_mask = PAGE_IS_WRITTEN,
	};
	int fd = open("/proc/self/pagemap", O_RDONLY);
	long i, n, written = 0;

	n = fd < 0 ? -1 : ioctl(fd, PAGEMAP_SCAN, &arg);
	if (n < 0)
		written = -errno;
	close(fd);
	for (i = 0; i < n; i++)
		written += (regions[i].end - regions[i].start) / page_size;
	return written;
}

/* Who keeps track of writes hears of those of the device as well. */
TEST_F(mm, uffd_tracked)
{
	int uffd;

	/* An entry that is writable, and has the bit: 6.12 makes it, and warns of it. */
	if (variant->is_private && kernel_has("__page_table_check_ptes_set"))
		SKIP(return, "PAGEMAP_SCAN of device entries warns with page_table_check");
	uffd = uffd_open(self->at, self->bytes, UFFD_FEATURE_WP_ASYNC |
			 UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_PAGEFAULT_FLAG_WP,
			 UFFDIO_REGISTER_MODE_WP);
	if (uffd < 0)
		SKIP(return, "no tracking of writes");
	MOVE_IN(self->at, PAGES);
	EXPECT_EQ(PAGES, uffd_written(self->at, self->bytes));
	EXPECT_EQ(0, uffd_written(self->at, self->bytes));
	EXPECT_EQ(0, dev_poke(self->fd, AT(5), 55));
	EXPECT_EQ(1, uffd_written(self->at, self->bytes));
	EXPECT_EQ(0, move_out(self->fd, self->at, PAGES));
	EXPECT_EQ(0, uffd_written(self->at, self->bytes));
	MOVE_IN(self->at, PAGES);
	EXPECT_EQ(0, dev_poke(self->fd, AT(2), 22));
	EXPECT_EQ(1, uffd_written(self->at, self->bytes));
	EXPECT_EQ(22, load(AT(2)));
	EXPECT_EQ(55, load(AT(5)));
	close(uffd);
}

/* 6.12 moves what is present, wherever it lies, and nothing else: -EFAULT. */
TEST_F(mm, uffd_move)
{
	char *to = map_small(self->bytes);
	struct uffdio_move move = {
		.dst = (uintptr_t)to, .src = (uintptr_t)self->at, .len = page_size,
	};
	int uffd = uffd_open(to, self->bytes, UFFD_FEATURE_MOVE,
			     UFFDIO_REGISTER_MODE_MISSING);
	size_t i;
	int ret;

	if (uffd < 0)
		SKIP(return, "no userfaultfd that moves pages");
	MOVE_IN(self->at, PAGES);
	for (i = 0; i < HALF; i++, move.dst += page_size, move.src += page_size) {
		ret = ioctl(uffd, UFFDIO_MOVE, &move) ? -errno : 0;
		EXPECT_EQ(variant->is_private ? -EFAULT : 0, ret);
		EXPECT_EQ(0, memcmp(ret ? AT(i) : nth(to, i), nth(self->want, i),
				    page_size));
		if (!ret)
			EXPECT_EQ(-1, zero_check(AT(i), page_size));
	}
	EXPECT_EQ(0, memcmp(AT(HALF), nth(self->want, HALF),
			    (PAGES - HALF) * page_size));
	munmap(to, self->bytes);
	close(uffd);
}

/* ---- Pins ---- */

/* By a pipe, for writes by GUP: that one stays, its neighbours go. */
TEST_F(mm, pinned_before)
{
	struct pin one;

	ASSERT_TRUE(pin(&one, AT(9), page_size));
	EXPECT_TRUE(all_go_but(self->fd, self->at, self->buf, PAGES, 1));
	EXPECT_EQ(0, pages_in(self->fd, AT(9), 1));
	/* It is the page that was pinned, still. */
	store(AT(9), 99);
	ASSERT_EQ(page_size, read(one.ends[0], self->buf, page_size));
	EXPECT_EQ(99, load(self->buf));
	unpin(&one);
	MOVE_IN(self->at, PAGES);
	store(nth(self->want, 9), 99);
	EXPECT_EQ(0, memcmp(self->at, self->want, self->bytes));
}

/* Pins, by any way; what to unpin by, or -errno. */
static int pin_by(void *at, size_t len, bool fast)
{
	struct pin_longterm_test args = {
		.addr = (uintptr_t)at,
		.size = len,
		.flags = PIN_LONGTERM_TEST_FLAG_USE_WRITE |
			 (fast ? PIN_LONGTERM_TEST_FLAG_USE_FAST : 0),
	};
	int err, fd = open(GUP_TEST, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (!ioctl(fd, PIN_LONGTERM_TEST_START, &args))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

/* A pin for long brings home what is to be pinned, and keeps it there. */
TEST_F(mm, pinned_for_long)
{
	__u64 to = (uintptr_t)self->buf;
	int fast, fd;

	if (access(GUP_TEST, F_OK))
		SKIP(return, "no " GUP_TEST);
	for (fast = 0; fast < 2; fast++) {
		MOVE_IN(self->at, PAGES);
		fd = pin_by(AT(4), 8 * page_size, fast);
		ASSERT_LE(0, fd);
		EXPECT_EQ(PAGES - 8, LOCAL(PAGES));
		EXPECT_EQ(0, pages_in(self->fd, AT(4), 8));
		EXPECT_EQ(0, memcmp(AT(4), nth(self->want, 4), 8 * page_size));
		EXPECT_TRUE(all_go_but(self->fd, self->at, self->buf, PAGES, 8));
		EXPECT_EQ(0, pages_in(self->fd, AT(4), 8));
		/* What is written is seen through the pin. */
		pattern_fill(AT(4), 8 * page_size, 2 + fast);
		ASSERT_EQ(0, ioctl(fd, PIN_LONGTERM_TEST_READ, &to));
		EXPECT_EQ(-1, pattern_check(self->buf, 8 * page_size, 2 + fast));
		memcpy(AT(4), nth(self->want, 4), 8 * page_size);
		close(fd);
	}
	MOVE_IN(self->at, PAGES);
	EXPECT_EQ(0, memcmp(self->at, self->want, self->bytes));
}

/* For a moment, fast and slow, with FOLL_GET and FOLL_PIN. */
TEST_F(mm, pinned_for_a_moment)
{
	const unsigned long requests[] = { GUP_FAST_BENCHMARK, PIN_FAST_BENCHMARK,
					   GUP_BASIC_TEST, PIN_BASIC_TEST };
	int fd = open(GUP_TEST, O_RDWR | O_CLOEXEC);
	size_t i;

	if (fd < 0)
		SKIP(return, "no " GUP_TEST);
	for (i = 0; i < ARRAY_LEN(requests); i++) {
		struct gup_test args = {
			.addr = (uintptr_t)self->at, .size = HALF * page_size,
			.nr_pages_per_call = HALF, .gup_flags = i & 1,
		};

		MOVE_IN(self->at, PAGES);
		EXPECT_EQ(0, ioctl(fd, requests[i], &args));
		EXPECT_EQ(HALF * page_size, args.size);
		EXPECT_EQ(TOUCHED(HALF), LOCAL(HALF));
		EXPECT_EQ(PAGES - HALF, pages_in(self->fd, AT(HALF), PAGES - HALF));
		EXPECT_EQ(0, memcmp(self->at, self->want, self->bytes));
	}
	close(fd);
}

/* ---- Side by side ---- */

/*
 * A huge page, and behind it small ones of which one is pinned, one locked and four
 * are merged: all go but the pinned one and those four.
 */
TEST_F(mm, neighbours)
{
	size_t huge = pmd_size / page_size, pages = huge + PAGES, i, wrong = 0;
	char *small, *buf, *want;
	struct mem mem;
	struct pin one;

	if (read_number(KSM "run") < 0)
		SKIP(return, "no KSM");
	if (!mem_map(&mem, ANON_THP, 2 * pmd_size))
		SKIP(return, "%s", mem.why);
	buf = buffer(2 * pmd_size);
	want = buffer(2 * pmd_size);
	small = mem.addr + pmd_size;
	ASSERT_EQ(0, no_huge_pages(small, pmd_size));
	pattern_fill(mem.addr, pages * page_size, 6);
	fill_alike(small, 20, 24);
	memcpy(want, mem.addr, pages * page_size);
	ASSERT_EQ(0, madvise(nth(small, 20), 4 * page_size, MADV_MERGEABLE));
	ASSERT_TRUE(ksm_scan(SOON));
	ASSERT_EQ(pagemap_pfn(nth(small, 20)), pagemap_pfn(nth(small, 23)));
	ASSERT_EQ(0, mlock(nth(small, 10), page_size));
	ASSERT_TRUE(pin(&one, nth(small, 3), page_size));
	ASSERT_EQ((long)pmd_size >> 10, smaps_field(mem.addr, "AnonHugePages"));

	EXPECT_TRUE(all_go_but(self->fd, mem.addr, buf, pages, 5));
	EXPECT_EQ(0, pages_in(self->fd, nth(small, 3), 1));
	EXPECT_EQ(0, pages_in(self->fd, nth(small, 20), 4));
	EXPECT_EQ(1, pages_in(self->fd, nth(small, 10), 1));
	for (i = 0; i < pages; i++)
		wrong += !!memcmp(nth(mem.addr, i), nth(want, i), page_size);
	EXPECT_EQ(0, wrong);
	unpin(&one);
	write_number(KSM "run", 2);
	EXPECT_EQ(0, memcmp(mem.addr, want, pages * page_size));
	mem_unmap(&mem);
}

/* ---- Too little memory ---- */

#define LIMIT_BYTES	(24 * MIB)
#define THERE_BYTES	(8 * MIB)
#define MORE_BYTES	(32 * MIB)

struct task {
	int minor;
	bool is_private;
	bool swaps;
};

/* Pages on the device stay charged, and come home though the group is full. */
static bool limited(void *arg)
{
	struct task *task = arg;
	size_t pages = THERE_BYTES / page_size;
	char *at, *buf, *more;
	long charged;
	int fd;

	if (!write_number(group_path("cgroup.procs"), 0))
		return false;
	fd = dev_open(task->minor);
	at = map_small(THERE_BYTES);
	buf = buffer(THERE_BYTES);
	pattern_fill(at, THERE_BYTES, 7);
	if (move_in(fd, at, buf, pages) || pages_in(fd, at, pages) != pages)
		return false;
	charged = read_number(group_path("memory.current"));
	if (charged < (long)(THERE_BYTES + THERE_BYTES))
		return false;
	if (task->swaps) {
		more = map_small(MORE_BYTES);
		pattern_fill(more, MORE_BYTES, 8);
		if (pages_in(fd, at, pages) != pages ||
		    pattern_check(more, MORE_BYTES, 8) != -1)
			return false;
	}
	if (pattern_check(at, THERE_BYTES / 2, 7) != -1 ||
	    move_out(fd, at, pages) || pages_in(fd, at, pages))
		return false;
	return pattern_check(at, THERE_BYTES, 7) == -1;
}

static void in_group(struct __test_metadata *_metadata, struct task *task)
{
	pid_t pid;

	if (!group_make(LIMIT_BYTES))
		SKIP(return, "no memory cgroup at " CGROUPS);
	if (!task->swaps)
		write_number(group_path("memory.swap.max"), 0);
	pid = start(limited, task);
	EXPECT_TRUE(finished(pid));
	EXPECT_EQ(0, group_event("oom_kill"));
	if (task->swaps)
		EXPECT_LT(0, group_event("max"));
	EXPECT_TRUE(wait_until(!group_anon(), 20));
	/* What CPUs have in hand may stay charged; see hmm_pressure. */
	rmdir(GROUP);
}

TEST_F(mm, limit)
{
	struct task task = { variant->minor, variant->is_private, false };

	in_group(_metadata, &task);
}

TEST_F(mm, limit_and_swap)
{
	struct task task = { variant->minor, variant->is_private, true };

	if (!have_swap())
		SKIP(return, "no swap");
	in_group(_metadata, &task);
}

TEST_HARNESS_MAIN
