// SPDX-License-Identifier: GPL-2.0
/*
 * States that a page comes into by a roundabout way, each proved before the
 * device is asked: by the flags of the page frame, by the bits in pagemap, by the
 * flags of the mapping.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kernel-page-flags.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
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
#define ZERO	HMM_DMIRROR_PROT_ZERO

#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP	4
#endif

#define PAGES	16

#define KSM	"/sys/kernel/mm/ksm/"

/* ---- Merged pages ---- */

FIXTURE(ksm)
{
	int fd;
	char *at;
	size_t bytes;
	long run, zero;
};

FIXTURE_SETUP(ksm)
{
	self->run = read_number(KSM "run");
	self->zero = read_number(KSM "use_zero_pages");
	self->fd = dev_open(0);
	ASSERT_LE(0, self->fd);
	if (self->run < 0)
		SKIP(return, "no KSM");
	self->bytes = PAGES * page_size;
	self->at = buffer(self->bytes);
	write_number(KSM "sleep_millisecs", 0);
	write_number(KSM "smart_scan", 0);
}

FIXTURE_TEARDOWN(ksm)
{
	if (self->run >= 0) {
		write_number(KSM "use_zero_pages", self->zero);
		write_number(KSM "run", 2);
		write_number(KSM "run", self->run);
	}
	close(self->fd);
}

/* The device writes them alike, and has them all for writing. */
static bool write_alike(int fd, char *at, long word)
{
	size_t i;

	for (i = 0; i < PAGES; i++)
		if (dev_poke(fd, at + i * page_size, word) ||
		    dev_snap(fd, at + i * page_size) != WRITE)
			return false;
	return true;
}

/* Do all pages lie in one frame? */
static bool one_frame(const char *at)
{
	uint64_t pfn = pagemap_pfn(at);
	size_t i;

	for (i = 1; pfn && i < PAGES; i++)
		if (pagemap_pfn(at + i * page_size) != pfn)
			return false;
	return pfn;
}

/* The flag of a page frame will not do: all anonymous pages have it, in 6.12. */
static long merged_pages(void)
{
	return read_number("/proc/self/ksm_merging_pages");
}

/* Leave the scanner stopped. */
static bool merge(char *at, size_t bytes)
{
	bool merged;

	if (madvise(at, bytes, MADV_MERGEABLE))
		return false;
	write_number(KSM "run", 1);
	merged = wait_until(one_frame(at), 60);
	write_number(KSM "run", 0);
	return merged;
}

TEST_F(ksm, merged)
{
	uint64_t shared;
	size_t i;

	ASSERT_TRUE(write_alike(self->fd, self->at, 0x5a5a5a));
	ASSERT_TRUE(merge(self->at, self->bytes));
	ASSERT_LE(PAGES, merged_pages());
	shared = pagemap_pfn(self->at);

	for (i = 0; i < PAGES; i++) {
		EXPECT_EQ(READ, dev_snap(self->fd, self->at + i * page_size));
		EXPECT_EQ(0x5a5a5a, dev_peek(self->fd, self->at + i * page_size));
	}
	/* To read does not take it apart, to write does, for one page. */
	EXPECT_TRUE(one_frame(self->at));
	EXPECT_EQ(0, dev_poke(self->fd, self->at, 77));
	EXPECT_NE(shared, pagemap_pfn(self->at));
	EXPECT_EQ(77, load(self->at));
	for (i = 1; i < PAGES; i++) {
		EXPECT_EQ(shared, pagemap_pfn(self->at + i * page_size));
		EXPECT_EQ(0x5a5a5a, load(self->at + i * page_size));
	}
}

/* All taken apart again while the device has them for reading. */
TEST_F(ksm, unmerged)
{
	size_t i;

	ASSERT_TRUE(write_alike(self->fd, self->at, 0x6b6b6b));
	ASSERT_TRUE(merge(self->at, self->bytes));
	EXPECT_EQ(0x6b6b6b, dev_peek(self->fd, self->at));
	EXPECT_EQ(0x6b6b6b, dev_peek(self->fd, self->at + page_size));
	ASSERT_TRUE(write_number(KSM "run", 2));
	ASSERT_EQ(0, merged_pages());
	ASSERT_NE(pagemap_pfn(self->at), pagemap_pfn(self->at + page_size));
	for (i = 0; i < PAGES; i++)
		store(self->at + i * page_size, i);
	for (i = 0; i < PAGES; i++)
		EXPECT_EQ(i, dev_peek(self->fd, self->at + i * page_size));
}

TEST_F(ksm, merged_with_the_zero_page)
{
	if (!write_number(KSM "use_zero_pages", 1))
		SKIP(return, "no " KSM "use_zero_pages");
	ASSERT_TRUE(write_alike(self->fd, self->at, 0));
	ASSERT_TRUE(merge(self->at, self->bytes));
	ASSERT_EQ(1, page_flags(pagemap_pfn(self->at)) >> KPF_ZERO_PAGE & 1);
	EXPECT_EQ(READ | ZERO, dev_snap(self->fd, self->at));
	EXPECT_EQ(0, dev_peek(self->fd, self->at));
	EXPECT_EQ(0, dev_poke(self->fd, self->at, 5));
	EXPECT_EQ(5, load(self->at));
	EXPECT_EQ(0, load(self->at + page_size));
}

/* ---- Write protection by userfaultfd ---- */

FIXTURE(uffd)
{
	int fd;
	int uffd;
	struct mem mem;
	char *at;
	unsigned char leaf;
};

FIXTURE_VARIANT(uffd)
{
	enum kind kind;
	unsigned char leaf;
};

FIXTURE_VARIANT_ADD(uffd, anon) { ANON_PRIVATE, 0 };
FIXTURE_VARIANT_ADD(uffd, thp) { ANON_THP, PMD };
FIXTURE_VARIANT_ADD(uffd, shmem) { MEMFD, 0 };
FIXTURE_VARIANT_ADD(uffd, hugetlb) { HUGETLB_2M, PMD };

FIXTURE_SETUP(uffd)
{
	self->uffd = -1;
	self->fd = dev_open(0);
	ASSERT_LE(0, self->fd);
	if (!mem_map(&self->mem, variant->kind, 2 * page_size))
		SKIP(return, "%s", self->mem.why);
	self->at = self->mem.addr;
	self->leaf = variant->leaf;
}

FIXTURE_TEARDOWN(uffd)
{
	close(self->uffd);
	mem_unmap(&self->mem);
	close(self->fd);
}

static int uffd_register(struct mem *mem, uint64_t features, uint64_t mode)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	struct uffdio_register reg = {
		.range = { (uintptr_t)mem->addr, mem->len }, .mode = mode,
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

static int uffd_protect(int uffd, struct mem *mem, bool on)
{
	struct uffdio_writeprotect wp = {
		.range = { (uintptr_t)mem->addr, mem->len },
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	return ioctl(uffd, UFFDIO_WRITEPROTECT, &wp);
}

/* Somebody has to answer, and nobody does: the device is told at once. */
TEST_F(uffd, write_protected)
{
	self->uffd = uffd_register(&self->mem, UFFD_FEATURE_PAGEFAULT_FLAG_WP,
				   UFFDIO_REGISTER_MODE_WP);
	if (self->uffd < 0)
		SKIP(return, "no write protection of this memory");
	ASSERT_EQ(0, dev_poke(self->fd, self->at, 1));
	ASSERT_EQ(WRITE | self->leaf, dev_snap(self->fd, self->at));
	ASSERT_EQ(0, uffd_protect(self->uffd, &self->mem, true));
	ASSERT_EQ(PM_UFFD_WP, pagemap_entry(self->at) & PM_UFFD_WP);

	EXPECT_EQ(READ | self->leaf, dev_snap(self->fd, self->at));
	EXPECT_EQ(1, dev_peek(self->fd, self->at));
	EXPECT_EQ(-EFAULT, dev_poke(self->fd, self->at, 2));
	EXPECT_EQ(1, load(self->at));
	EXPECT_EQ(PM_UFFD_WP, pagemap_entry(self->at) & PM_UFFD_WP);

	ASSERT_EQ(0, uffd_protect(self->uffd, &self->mem, false));
	EXPECT_EQ(0, dev_poke(self->fd, self->at, 3));
	EXPECT_EQ(3, load(self->at));
}

/* The kernel answers by itself, and notes that there was a write. */
TEST_F(uffd, write_tracked)
{
	self->uffd = uffd_register(&self->mem, UFFD_FEATURE_WP_ASYNC |
				   UFFD_FEATURE_WP_UNPOPULATED |
				   UFFD_FEATURE_PAGEFAULT_FLAG_WP,
				   UFFDIO_REGISTER_MODE_WP);
	if (self->uffd < 0)
		SKIP(return, "no tracking of writes to this memory");
	ASSERT_EQ(0, dev_poke(self->fd, self->at, 1));
	ASSERT_EQ(0, uffd_protect(self->uffd, &self->mem, true));
	ASSERT_EQ(PM_UFFD_WP, pagemap_entry(self->at) & PM_UFFD_WP);
	EXPECT_EQ(1, dev_peek(self->fd, self->at));
	EXPECT_EQ(PM_UFFD_WP, pagemap_entry(self->at) & PM_UFFD_WP);
	EXPECT_EQ(0, dev_poke(self->fd, self->at, 2));
	EXPECT_EQ(0, pagemap_entry(self->at) & PM_UFFD_WP);
	EXPECT_EQ(2, load(self->at));
}

/* Nobody has supplied the page: an error, until somebody has. */
TEST_F(uffd, missing)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)self->at, .len = self->mem.leaf,
	};

	self->uffd = uffd_register(&self->mem, 0, UFFDIO_REGISTER_MODE_MISSING);
	if (self->uffd < 0)
		SKIP(return, "no userfaultfd on this memory");
	ASSERT_EQ(0, pagemap_entry(self->at) & PM_PRESENT);
	EXPECT_EQ(NONE, dev_snap(self->fd, self->at));
	EXPECT_EQ(-EFAULT, dev_read(self->fd, self->at, buffer(page_size), 1).err);
	EXPECT_EQ(-EFAULT, dev_poke(self->fd, self->at, 1));
	EXPECT_EQ(0, pagemap_entry(self->at) & PM_PRESENT);
	copy.src = (uintptr_t)buffer(self->mem.leaf);
	pattern_fill((void *)copy.src, self->mem.leaf, 3);
	ASSERT_EQ(0, ioctl(self->uffd, UFFDIO_COPY, &copy));
	EXPECT_EQ(load((void *)copy.src), dev_peek(self->fd, self->at));
	EXPECT_EQ(0, dev_poke(self->fd, self->at, 5));
	EXPECT_EQ(5, load(self->at));
}

/* ---- Everything else ---- */

FIXTURE(states)
{
	int fd;
	struct mem mem;
	char *buf;
};

FIXTURE_SETUP(states)
{
	self->fd = dev_open(0);
	ASSERT_LE(0, self->fd);
	self->buf = buffer(PAGES * page_size);
}

FIXTURE_TEARDOWN(states)
{
	mem_unmap(&self->mem);
	close(self->fd);
}

/* ---- Memory failure ---- */

static void go_on(int sig)
{
}

/* Frames are good again after a test, where that can be had. */
static void make_good(uint64_t pfn)
{
	write_number("/sys/kernel/debug/hwpoison/unpoison-pfn", pfn);
}

/*
 * The page under @at goes bad while the device has it for writing. Returns its
 * frame, or 0 if there is no way to do that.
 */
static uint64_t go_bad(int fd, char *at)
{
	struct sigaction act = { .sa_handler = go_on };
	uint64_t pfn;

	/* Whoever asks for the error is told of it, too. */
	sigaction(SIGBUS, &act, NULL);
	if (dev_poke(fd, at, 4) || !(dev_snap(fd, at) & WRITE))
		return 0;
	pfn = pagemap_pfn(at);
	return madvise(at, page_size, MADV_HWPOISON) ? 0 : pfn;
}

static bool is_bad(uint64_t pfn)
{
	return page_flags(pfn) >> KPF_HWPOISON & 1;
}

TEST_F(states, poisoned)
{
	char *at = buffer(PAGES * page_size);
	uint64_t pfn;

	pfn = go_bad(self->fd, at + page_size);
	if (!pfn)
		SKIP(return, "MADV_HWPOISON: %s", strerror(errno));
	ASSERT_TRUE(is_bad(pfn));
	EXPECT_EQ(NONE, dev_snap(self->fd, at + page_size));
	EXPECT_EQ(-EFAULT, dev_poke(self->fd, at + page_size, 1));
	EXPECT_EQ(-EFAULT, dev_read(self->fd, at, self->buf, PAGES).err);
	EXPECT_EQ(0, dev_read(self->fd, at, self->buf, 1).err);
	/* Other memory in its place is good. */
	ASSERT_EQ(0, munmap(at, PAGES * page_size));
	ASSERT_EQ(at, mmap(at, PAGES * page_size, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	EXPECT_EQ(0, dev_poke(self->fd, at + page_size, 1));
	make_good(pfn);
}

/* One bad page of a huge one: the others are split off, and good. */
TEST_F(states, poisoned_huge_page)
{
	char *at, *bad;
	uint64_t pfn;

	if (!mem_map(&self->mem, ANON_THP, pmd_size))
		SKIP(return, "%s", self->mem.why);
	at = self->mem.addr;
	bad = at + 5 * page_size;
	ASSERT_EQ(0, dev_poke(self->fd, at + 6 * page_size, 6));
	ASSERT_EQ(WRITE | PMD, dev_snap(self->fd, at));
	pfn = go_bad(self->fd, bad);
	if (!pfn)
		SKIP(return, "MADV_HWPOISON: %s", strerror(errno));
	ASSERT_TRUE(is_bad(pfn));
	EXPECT_EQ(NONE, dev_snap(self->fd, bad));
	EXPECT_EQ(-EFAULT, dev_poke(self->fd, bad, 1));
	EXPECT_EQ(0, dev_poke(self->fd, at, 1));
	EXPECT_EQ(WRITE, dev_snap(self->fd, at));
	EXPECT_EQ(6, dev_peek(self->fd, at + 6 * page_size));
	mem_unmap(&self->mem);
	make_good(pfn);
}

TEST_F(states, poisoned_hugetlb)
{
	uint64_t pfn;
	char *bad;

	if (!mem_map(&self->mem, HUGETLB_2M, 2UL << 20))
		SKIP(return, "%s", self->mem.why);
	bad = self->mem.addr + 5 * page_size;
	pfn = go_bad(self->fd, bad);
	if (!pfn)
		SKIP(return, "MADV_HWPOISON: %s", strerror(errno));
	/* The flag is the whole page's as long as there is one. */
	ASSERT_TRUE(is_bad(pfn) || is_bad(pfn - 5));
	/* All of it is lost. */
	EXPECT_EQ(NONE, dev_snap(self->fd, self->mem.addr));
	EXPECT_EQ(-EFAULT, dev_poke(self->fd, bad, 1));
	EXPECT_EQ(-EFAULT, dev_read(self->fd, bad + page_size, self->buf, 1).err);
	mem_unmap(&self->mem);
	make_good(pfn);
}

/* Only about to go bad: the data moves to another frame. */
TEST_F(states, soft_offlined)
{
	char *at = buffer(PAGES * page_size);
	uint64_t pfn;

	ASSERT_EQ(0, dev_poke(self->fd, at, 8));
	pfn = pagemap_pfn(at);
	if (madvise(at, page_size, MADV_SOFT_OFFLINE))
		SKIP(return, "MADV_SOFT_OFFLINE: %s", strerror(errno));
	ASSERT_NE(pfn, pagemap_pfn(at));
	ASSERT_TRUE(is_bad(pfn));
	EXPECT_EQ(8, dev_peek(self->fd, at));
	EXPECT_EQ(0, dev_poke(self->fd, at, 9));
	EXPECT_EQ(9, load(at));
	/*
	 * A frame that is made good again after this has been freed twice in the eyes
	 * of 6.12's page owner, which warns of that when it meets the place again that
	 * allocated it. Where there is a page owner the frame stays as it is.
	 */
	if (access("/sys/kernel/debug/page_owner", F_OK))
		make_good(pfn);
}

/* ---- mremap() ---- */

/* The pages move, and leave a mapping behind that is empty. */
TEST_F(states, moved_but_not_unmapped)
{
	char *at = buffer(PAGES * page_size), *to;
	uint64_t pfn;

	pattern_fill(self->buf, PAGES * page_size, 1);
	ASSERT_EQ(0, dev_write(self->fd, at, self->buf, PAGES).err);
	pfn = pagemap_pfn(at);
	to = mremap(at, PAGES * page_size, PAGES * page_size, MREMAP_MAYMOVE |
		    MREMAP_DONTUNMAP);
	ASSERT_NE(MAP_FAILED, to);
	ASSERT_EQ(pfn, pagemap_pfn(to));
	EXPECT_EQ(NONE, dev_snap(self->fd, at));
	EXPECT_EQ(0, dev_peek(self->fd, at));
	EXPECT_EQ(0, dev_poke(self->fd, at, 3));
	memset(self->buf, 0, PAGES * page_size);
	EXPECT_EQ(0, dev_read(self->fd, to, self->buf, PAGES).err);
	EXPECT_EQ(-1, pattern_check(self->buf, PAGES * page_size, 1));
}

TEST_F(states, grown_and_shrunk)
{
	char *at = buffer(PAGES * page_size), *to;

	ASSERT_EQ(0, munmap(at + page_size, (PAGES - 1) * page_size));
	ASSERT_EQ(0, dev_poke(self->fd, at, 5));
	to = mremap(at, page_size, PAGES * page_size, MREMAP_MAYMOVE);
	ASSERT_NE(MAP_FAILED, to);
	EXPECT_EQ(5, dev_peek(self->fd, to));
	EXPECT_EQ(0, dev_write(self->fd, to, self->buf, PAGES).err);
	ASSERT_EQ(to, mremap(to, PAGES * page_size, page_size, 0));
	EXPECT_EQ(ERROR, dev_snap(self->fd, to + page_size));
	EXPECT_EQ(-EFAULT, dev_write(self->fd, to, self->buf, 2).err);
	EXPECT_EQ(0, dev_poke(self->fd, to, 6));
}

/* Moved within its table, over a place that the device knows. */
TEST_F(states, moved_over_another)
{
	char *at = buffer(3 * page_size);

	ASSERT_EQ(0, dev_poke(self->fd, at, 1));
	ASSERT_EQ(0, dev_poke(self->fd, at + 2 * page_size, 2));
	ASSERT_EQ(at + 2 * page_size,
		  mremap(at, page_size, page_size, MREMAP_MAYMOVE | MREMAP_FIXED,
			 at + 2 * page_size));
	EXPECT_EQ(-1, dev_peek(self->fd, at));
	EXPECT_EQ(1, dev_peek(self->fd, at + 2 * page_size));
	EXPECT_EQ(0, dev_poke(self->fd, at + 2 * page_size, 3));
	EXPECT_EQ(3, load(at + 2 * page_size));
}

/* ---- Mappings of no pages, and of pages of the kernel's ---- */

static char *find_mapping(const char *name)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[512], is[128];
	unsigned long start;
	char *at = NULL;

	if (!f)
		return NULL;
	while (!at && fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx-%*x %*s %*s %*s %*s %127s", &start, is) == 2 &&
		    !strcmp(is, name))
			at = (char *)start;
	fclose(f);
	return at;
}

TEST_F(states, pfnmap)
{
	char *at = find_mapping("[vvar]");

	if (!at || !smaps_flag(at, "pf"))
		SKIP(return, "no VM_PFNMAP mapping in this process");
	EXPECT_EQ(ERROR, dev_snap(self->fd, at));
	EXPECT_EQ(-EFAULT, dev_read(self->fd, at, self->buf, 1).err);
	EXPECT_EQ(-EFAULT, dev_poke(self->fd, at, 1));
}

TEST_F(states, mixedmap)
{
	char *at = mmap(NULL, 2 * page_size, PROT_READ | PROT_WRITE, MAP_SHARED,
			self->fd, 0);

	ASSERT_NE(MAP_FAILED, at);
	ASSERT_TRUE(smaps_flag(at, "mm"));
	EXPECT_EQ(WRITE, dev_snap(self->fd, at));
	EXPECT_EQ(0, dev_poke(self->fd, at + page_size, 5));
	EXPECT_EQ(5, load(at + page_size));
	EXPECT_EQ(0, munmap(at, 2 * page_size));
	EXPECT_EQ(ERROR, dev_snap(self->fd, at));
}

/* ---- Soft-dirty ---- */

TEST_F(states, soft_dirty_huge_page)
{
	char *at;

	if (!mem_map(&self->mem, ANON_THP, pmd_size))
		SKIP(return, "%s", self->mem.why);
	at = self->mem.addr;
	ASSERT_EQ(0, dev_poke(self->fd, at, 1));
	if (!(pagemap_entry(at) & PM_SOFT_DIRTY))
		SKIP(return, "no soft-dirty bits");
	ASSERT_TRUE(write_number("/proc/self/clear_refs", 4));
	ASSERT_EQ(0, pagemap_entry(at) & PM_SOFT_DIRTY);
	EXPECT_EQ(READ | PMD, dev_snap(self->fd, at));
	EXPECT_EQ(1, dev_peek(self->fd, at));
	EXPECT_EQ(0, pagemap_entry(at) & PM_SOFT_DIRTY);
	EXPECT_EQ(0, dev_poke(self->fd, at, 2));
	EXPECT_EQ(PM_SOFT_DIRTY, pagemap_entry(at) & PM_SOFT_DIRTY);
	EXPECT_EQ(2, load(at));
}

/* ---- Protection keys ---- */

#if defined(__x86_64__)
static void set_pkru(unsigned int pkru)
{
	asm volatile(".byte 0x0f,0x01,0xef" : : "a" (pkru), "c" (0), "d" (0));
}

static void note_denial(int sig, siginfo_t *info, void *context)
{
	_exit(info->si_code == SEGV_PKUERR ? 0 : 1);
}

/* Is this task kept from @at by its key? A child tries. */
static bool key_denies(const char *at)
{
	struct sigaction act = {
		.sa_sigaction = note_denial, .sa_flags = SA_SIGINFO,
	};
	int status;

	if (!fork()) {
		sigaction(SIGSEGV, &act, NULL);
		load(at);
		_exit(2);
	}
	wait(&status);
	return !status;
}

/*
 * Keys are the rights of a task; a device has none and works for the address
 * space. A page that is there and a page that is not, both with @word in them.
 */
static int through_the_key(int fd, char *at, long word)
{
	if (dev_snap(fd, at) != WRITE || dev_snap(fd, at + page_size) != NONE)
		return 1;
	if (dev_peek(fd, at) != word || dev_peek(fd, at + page_size) != word)
		return 2;
	if (dev_poke(fd, at, word + 1) || dev_poke(fd, at + page_size, word + 1))
		return 3;
	return 0;
}

TEST_F(states, protection_key)
{
	int key = syscall(SYS_pkey_alloc, 0, 0), status;
	unsigned int all = ~3U & 0x55555555U;
	char *at;

	if (key < 0)
		SKIP(return, "no protection keys: %s", strerror(errno));
	/* Shared: fork() leaves its entries writable. */
	ASSERT_TRUE(mem_map(&self->mem, ANON_SHARED, 2 * page_size));
	at = self->mem.addr;
	store(at, 5);
	store(at + page_size, 5);
	ASSERT_EQ(0, madvise(at + page_size, page_size, MADV_DONTNEED));
	ASSERT_EQ(0, syscall(SYS_pkey_mprotect, at, 2 * page_size,
			     PROT_READ | PROT_WRITE, key));
	ASSERT_EQ(key, smaps_field(at, "ProtectionKey"));

	/* A child denies itself the key, and drives the parent's device. */
	if (!fork()) {
		set_pkru(all);
		_exit(key_denies(at) ? through_the_key(self->fd, at, 5) : 9);
	}
	wait(&status);
	EXPECT_EQ(0, WEXITSTATUS(status));

	ASSERT_EQ(0, madvise(at + page_size, page_size, MADV_DONTNEED));
	set_pkru(all);
	EXPECT_TRUE(key_denies(at));
	EXPECT_EQ(0, through_the_key(self->fd, at, 6));
	set_pkru(0);
	EXPECT_EQ(7, load(at));
	EXPECT_EQ(7, load(at + page_size));
	syscall(SYS_pkey_free, key);
}
#endif

TEST_HARNESS_MAIN
