// SPDX-License-Identifier: GPL-2.0
/*
 * What a snapshot says of every state that a page of a process can be in, and
 * that taking it changes nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
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

FIXTURE(snapshot)
{
	int fd;
	struct mem mem;
};

FIXTURE_SETUP(snapshot)
{
	self->fd = dev_open(0);
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(snapshot)
{
	mem_unmap(&self->mem);
	close(self->fd);
}

static char *anon(size_t pages, int prot)
{
	return mmap(NULL, pages * page_size, prot, MAP_PRIVATE | MAP_ANONYMOUS,
		    -1, 0);
}

/* Are all bytes for the run the same as @byte? */
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

/* One request over all that may lie side by side. */
TEST_F(snapshot, a_row_of_states)
{
	const unsigned char expect[] = {
		ERROR, ERROR, ZERO | READ, READ, WRITE, NONE, WRITE,
	};
	unsigned char bytes[ARRAY_LEN(expect)];
	char *at = anon(7, PROT_READ | PROT_WRITE);
	struct reply reply;
	size_t i;

	ASSERT_NE(MAP_FAILED, at);
	no_huge_pages(at, 7 * page_size);
	ASSERT_EQ(0, mprotect(at, page_size, PROT_NONE));
	ASSERT_EQ(0, munmap(at + page_size, page_size));
	load(at + 2 * page_size);
	at[3 * page_size] = 1;
	ASSERT_EQ(0, mprotect(at + 3 * page_size, page_size, PROT_READ));
	at[4 * page_size] = 1;
	at[6 * page_size] = 1;

	reply = dev_snapshot(self->fd, at, bytes, 7);
	EXPECT_EQ(0, reply.err);
	EXPECT_EQ(7, reply.pages);
	EXPECT_EQ(0, reply.batches);
	for (i = 0; i < 7; i++) {
		EXPECT_EQ(expect[i], bytes[i])
			TH_LOG("page %zu", i);
	}
	/* READ does not put up with what a snapshot only reports. */
	EXPECT_EQ(-EFAULT, dev_read(self->fd, at, buffer(7 * page_size), 7).err);
	EXPECT_EQ(-EFAULT, dev_read(self->fd, at + page_size,
				    buffer(7 * page_size), 4).err);
	EXPECT_EQ(0, dev_read(self->fd, at + 2 * page_size,
			      buffer(5 * page_size), 5).err);
}

TEST_F(snapshot, faults_nothing_in)
{
	char *at = anon(16, PROT_READ | PROT_WRITE);
	uint64_t entries = 0;
	int i;

	EXPECT_TRUE(all_are(self->fd, at, 16 * page_size, NONE));
	EXPECT_TRUE(all_are(self->fd, at, 16 * page_size, NONE));
	for (i = 0; i < 16; i++)
		entries |= pagemap_entry(at + i * page_size);
	EXPECT_EQ(0, entries & PM_PRESENT);
}

TEST_F(snapshot, prot_none_keeps_its_pages)
{
	char *at = anon(1, PROT_READ | PROT_WRITE);

	at[0] = 7;
	ASSERT_EQ(0, mprotect(at, page_size, PROT_NONE));
	EXPECT_EQ(ERROR, dev_snap(self->fd, at));
	ASSERT_EQ(0, mprotect(at, page_size, PROT_READ));
	EXPECT_EQ(READ, dev_snap(self->fd, at));
	EXPECT_EQ(7, at[0]);
}

/* Writable again, but the page-table entry waits for a fault. */
TEST_F(snapshot, write_protected_until_touched)
{
	char *at = anon(1, PROT_READ | PROT_WRITE);
	int byte;

	at[0] = 7;
	ASSERT_EQ(0, mprotect(at, page_size, PROT_READ));
	ASSERT_EQ(0, mprotect(at, page_size, PROT_READ | PROT_WRITE));
	byte = dev_snap(self->fd, at);
	EXPECT_TRUE(byte == READ || byte == WRITE);
	at[0] = 8;
	EXPECT_EQ(WRITE, dev_snap(self->fd, at));
}

TEST_F(snapshot, copy_on_write)
{
	char *at = anon(1, PROT_READ | PROT_WRITE);
	int to_child[2];
	pid_t child;
	char c;

	at[0] = 7;
	EXPECT_EQ(WRITE, dev_snap(self->fd, at));
	ASSERT_EQ(0, pipe(to_child));
	child = fork();
	if (!child)
		_exit(read(to_child[0], &c, 1) != 1);
	EXPECT_EQ(READ, dev_snap(self->fd, at));
	EXPECT_EQ(0, dev_poke(self->fd, at, 8));
	EXPECT_EQ(WRITE, dev_snap(self->fd, at));
	ASSERT_EQ(1, write(to_child[1], "", 1));
	waitpid(child, NULL, 0);
}

TEST_F(snapshot, private_file)
{
	if (!mem_map(&self->mem, TMPFS_PRIVATE, 2 * page_size))
		SKIP(return, "%s", self->mem.why);
	EXPECT_EQ(NONE, dev_snap(self->fd, self->mem.addr));
	load(self->mem.addr);
	EXPECT_EQ(READ, dev_snap(self->fd, self->mem.addr));
	self->mem.addr[0] = 1;
	EXPECT_EQ(WRITE, dev_snap(self->fd, self->mem.addr));
}

TEST_F(snapshot, shared_file)
{
	if (!mem_map(&self->mem, TMPFS_SHARED, 2 * page_size))
		SKIP(return, "%s", self->mem.why);
	self->mem.addr[0] = 1;
	EXPECT_EQ(WRITE, dev_snap(self->fd, self->mem.addr));
	ASSERT_EQ(0, ftruncate(self->mem.fd, 0));
	EXPECT_EQ(NONE, dev_snap(self->fd, self->mem.addr));
	EXPECT_EQ(-EFAULT, dev_poke(self->fd, self->mem.addr, 1));
}

/* Clean pages of a file on disk wait for the first write to each. */
TEST_F(snapshot, file_on_disk)
{
	if (!mem_map(&self->mem, DISK_SHARED, page_size))
		SKIP(return, "%s", self->mem.why);
	load(self->mem.addr);
	EXPECT_EQ(READ, dev_snap(self->fd, self->mem.addr));
	self->mem.addr[0] = 1;
	EXPECT_EQ(WRITE, dev_snap(self->fd, self->mem.addr));
	ASSERT_EQ(0, msync(self->mem.addr, page_size, MS_SYNC));
	EXPECT_EQ(READ, dev_snap(self->fd, self->mem.addr));
}

TEST_F(snapshot, dax_file)
{
	if (!mem_map(&self->mem, DAX_SHARED, 2 * page_size))
		SKIP(return, "%s", self->mem.why);
	self->mem.addr[0] = 1;
	EXPECT_EQ(WRITE, dev_snap(self->fd, self->mem.addr));
	EXPECT_EQ(0, dev_poke(self->fd, self->mem.addr + page_size, 1));
	EXPECT_EQ(WRITE, dev_snap(self->fd, self->mem.addr + page_size));
}

TEST_F(snapshot, huge_page)
{
	char *at;

	if (!mem_map(&self->mem, ANON_THP, 2 * pmd_size))
		SKIP(return, "%s", self->mem.why);
	at = self->mem.addr;
	at[0] = 1;
	EXPECT_TRUE(all_are(self->fd, at, pmd_size, WRITE | PMD));
	EXPECT_TRUE(all_are(self->fd, at + pmd_size, pmd_size, NONE));
	/* A part of it, too, lies under the large leaf. */
	EXPECT_TRUE(all_are(self->fd, at + 3 * page_size, 5 * page_size,
			    WRITE | PMD));

	ASSERT_EQ(0, mprotect(at, pmd_size, PROT_READ));
	EXPECT_TRUE(all_are(self->fd, at, pmd_size, READ | PMD));
}

TEST_F(snapshot, huge_page_of_zeroes)
{
	int byte;

	if (!mem_map(&self->mem, ANON_THP, pmd_size))
		SKIP(return, "%s", self->mem.why);
	load(self->mem.addr);
	byte = dev_snap(self->fd, self->mem.addr);
	/* One zero page of either size. */
	EXPECT_TRUE(byte == (READ | PMD) || byte == (READ | PMD | ZERO) ||
		    byte == (READ | ZERO));
	EXPECT_EQ(0, dev_poke(self->fd, self->mem.addr + page_size, 9));
	EXPECT_EQ(0, *(long *)self->mem.addr);
	EXPECT_EQ(9, *(long *)(self->mem.addr + page_size));
}

/* A hole in a huge page, or another protection in its middle, splits it. */
TEST_F(snapshot, huge_page_in_parts)
{
	char *at;

	if (!mem_map(&self->mem, ANON_THP, 2 * pmd_size))
		SKIP(return, "%s", self->mem.why);
	at = self->mem.addr;
	pattern_fill(at, 2 * pmd_size, 1);
	ASSERT_TRUE(all_are(self->fd, at, 2 * pmd_size, WRITE | PMD));

	ASSERT_EQ(0, madvise(at + 4 * page_size, page_size, MADV_DONTNEED));
	EXPECT_TRUE(all_are(self->fd, at, 4 * page_size, WRITE));
	EXPECT_EQ(NONE, dev_snap(self->fd, at + 4 * page_size));
	EXPECT_TRUE(all_are(self->fd, at + 5 * page_size,
			    pmd_size - 5 * page_size, WRITE));
	EXPECT_TRUE(all_are(self->fd, at + pmd_size, pmd_size, WRITE | PMD));

	ASSERT_EQ(0, mprotect(at + pmd_size, page_size, PROT_READ));
	EXPECT_EQ(READ, dev_snap(self->fd, at + pmd_size));
	EXPECT_TRUE(all_are(self->fd, at + pmd_size + page_size,
			    pmd_size - page_size, WRITE));
}

static void expect_hugetlb(struct __test_metadata *_metadata, int fd,
			   struct mem *mem, enum kind kind, size_t size,
			   unsigned char leaf)
{
	size_t part = 1024 * page_size;

	if (!mem_map(mem, kind, size))
		SKIP(return, "%s", mem->why);
	if (part > size)
		part = size;
	EXPECT_EQ(NONE, dev_snap(fd, mem->addr));
	mem->addr[0] = 1;
	EXPECT_TRUE(all_are(fd, mem->addr, part, WRITE | leaf));
	EXPECT_TRUE(all_are(fd, mem->addr + size - part, part, WRITE | leaf));
	ASSERT_EQ(0, mprotect(mem->addr, size, PROT_READ));
	EXPECT_TRUE(all_are(fd, mem->addr, part, READ | leaf));
}

TEST_F(snapshot, hugetlb_pmd)
{
	expect_hugetlb(_metadata, self->fd, &self->mem, HUGETLB_2M, 2UL << 20,
		       pmd_size && pmd_size != 2UL << 20 ? 0 : PMD);
}

TEST_F(snapshot, hugetlb_pud)
{
	if (pmd_size != 2UL << 20)
		SKIP(return, "1 GiB is no page-table level here");
	expect_hugetlb(_metadata, self->fd, &self->mem, HUGETLB_1G, 1UL << 30,
		       PUD);
}

/* Kernel pages in a private mapping of the device itself. */
TEST_F(snapshot, mapping_of_the_device)
{
	char *at = mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE,
			self->fd, 0);

	ASSERT_NE(MAP_FAILED, at);
	EXPECT_EQ(READ, dev_snap(self->fd, at));
	EXPECT_EQ(0, dev_peek(self->fd, at));
	EXPECT_EQ(0, dev_poke(self->fd, at, 5));
	EXPECT_EQ(WRITE, dev_snap(self->fd, at));
	EXPECT_EQ(5, *(long *)at);
	EXPECT_EQ(0, munmap(at, page_size));

	at = mmap(NULL, 4 * page_size, PROT_READ | PROT_WRITE, MAP_SHARED,
		  self->fd, 0);
	ASSERT_NE(MAP_FAILED, at);
	EXPECT_EQ(0, dev_poke(self->fd, at + 3 * page_size, 6));
	EXPECT_EQ(6, *(long *)(at + 3 * page_size));
	/* The mapping keeps the file, and its pages, alive. */
	ASSERT_EQ(0, close(self->fd));
	EXPECT_EQ(6, *(long *)(at + 3 * page_size));
	self->fd = dev_open(0);
	EXPECT_EQ(6, dev_peek(self->fd, at + 3 * page_size));

	EXPECT_EQ(MAP_FAILED, mmap(NULL, 1UL << 30, PROT_READ, MAP_PRIVATE,
				   self->fd, 0));
}

TEST_F(snapshot, swapped_out)
{
	char *at = anon(1, PROT_READ | PROT_WRITE);

	if (!have_swap())
		SKIP(return, "no swap");
	at[0] = 7;
	ASSERT_EQ(0, madvise(at, page_size, MADV_PAGEOUT));
	if (!(pagemap_entry(at) & PM_SWAPPED))
		SKIP(return, "the page did not go out");
	EXPECT_EQ(NONE, dev_snap(self->fd, at));
	EXPECT_NE(0, pagemap_entry(at) & PM_SWAPPED);
	EXPECT_EQ(0, dev_poke(self->fd, at, 8));
	EXPECT_EQ(8, at[0]);
}

/* A marker of userfaultfd in a page-table entry is no page. */
TEST_F(snapshot, uffd_write_protect_marker)
{
	struct uffdio_api api = {
		.api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP,
	};
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_WP };
	struct uffdio_writeprotect wp = { .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC);

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		SKIP(return, "no userfaultfd with write protection");
	if (!mem_map(&self->mem, MEMFD, 2 * page_size))
		SKIP(return, "%s", self->mem.why);
	reg.range.start = (uintptr_t)self->mem.addr;
	reg.range.len = self->mem.len;
	if (ioctl(uffd, UFFDIO_REGISTER, &reg))
		SKIP(return, "no write protection on shared memory");
	self->mem.addr[0] = 1;
	wp.range = reg.range;
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_WRITEPROTECT, &wp));
	/* The first page is there and protected, the second a marker. */
	EXPECT_EQ(READ, dev_snap(self->fd, self->mem.addr));
	EXPECT_EQ(NONE, dev_snap(self->fd, self->mem.addr + page_size));
	EXPECT_EQ(1, dev_peek(self->fd, self->mem.addr) & 1);
	/* Nobody handles the fault that a write needs. */
	EXPECT_EQ(-EFAULT, dev_poke(self->fd, self->mem.addr, 2));
	wp.mode = 0;
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_WRITEPROTECT, &wp));
	EXPECT_EQ(0, dev_poke(self->fd, self->mem.addr, 2));
	EXPECT_EQ(2, self->mem.addr[0]);
	close(uffd);
}

/* ---- The rest of the address space: vdso, vvar, stack, code, heap ---- */

struct area {
	uintptr_t start, end;
	char prot[5];
	char name[128];
};

/* All of /proc/self/maps, read before anything is compared. */
static size_t read_areas(struct area *areas, size_t max)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[512];
	size_t n = 0;

	if (!f)
		return 0;
	while (n < max && fgets(line, sizeof(line), f)) {
		struct area *a = &areas[n];

		a->name[0] = 0;
		if (sscanf(line, "%lx-%lx %4s %*s %*s %*s %127s", &a->start,
			   &a->end, a->prot, a->name) >= 3)
			n++;
	}
	fclose(f);
	return n;
}

static bool is_special(const struct area *a)
{
	return !strncmp(a->name, "[vvar", 5) || !strcmp(a->name, "[vsyscall]");
}

/* Does what a snapshot says of a page fit what pagemap says of it? */
static bool agree(const struct area *a, unsigned char byte, uint64_t entry)
{
	if (a->prot[0] != 'r' || is_special(a))
		return byte == ERROR;
	if (!(entry & PM_PRESENT))
		return byte == NONE;
	if (byte & ~(READ | WRITE | PMD | PUD | ZERO))
		return false;
	return (byte & WRITE) ? a->prot[1] == 'w' && !(byte & READ) : byte & READ;
}

TEST_F(snapshot, agrees_with_pagemap)
{
	size_t i, n, page, pages, compared = 0, max = 512 * page_size;
	struct area *areas = buffer(256 * sizeof(*areas));
	unsigned char *bytes = buffer(max);
	uint64_t *entries = buffer(max * sizeof(*entries));
	int pm = open("/proc/self/pagemap", O_RDONLY);

	ASSERT_LE(0, pm);
	n = read_areas(areas, 256);
	ASSERT_LT(3, n);
	for (i = 0; i < n; i++) {
		pages = (areas[i].end - areas[i].start) / page_size;
		if (pages > max || !strcmp(areas[i].name, "[vsyscall]"))
			continue;
		ASSERT_EQ(0, dev_snapshot(self->fd, (void *)areas[i].start,
					  bytes, pages).err);
		ASSERT_EQ(pages * 8, pread(pm, entries, pages * 8,
					   areas[i].start / page_size * 8));
		for (page = 0; page < pages; page++, compared++) {
			EXPECT_TRUE(agree(&areas[i], bytes[page], entries[page]))
				TH_LOG("%s page %zu: %#x, pagemap %#lx",
				       areas[i].name, page, bytes[page],
				       (long)entries[page]);
		}
	}
	EXPECT_LT(100, compared);
	close(pm);
}

TEST_F(snapshot, vdso_and_vvar)
{
	struct area *areas = buffer(256 * sizeof(*areas));
	size_t i, n = read_areas(areas, 256);
	int found = 0;

	for (i = 0; i < n; i++) {
		void *at = (void *)areas[i].start;

		if (!strncmp(areas[i].name, "[vvar", 5)) {
			EXPECT_EQ(ERROR, dev_snap(self->fd, at));
			EXPECT_EQ(-EFAULT, dev_poke(self->fd, at, 1));
			EXPECT_EQ(-1, dev_peek(self->fd, at));
			found++;
		}
		if (!strcmp(areas[i].name, "[vdso]")) {
			load(at);
			EXPECT_EQ(READ, dev_snap(self->fd, at));
			/* The device reads the head of an ELF file. */
			EXPECT_EQ(*(long *)at, dev_peek(self->fd, at));
			EXPECT_EQ(-EPERM, dev_poke(self->fd, at, 1));
		}
	}
	if (!found)
		SKIP(return, "no [vvar] on this architecture");
}

/* ---- Address 0 ---- */

static char *map_at_zero(size_t len)
{
	long floor = read_number("/proc/sys/vm/mmap_min_addr");
	char *at;

	if (floor > 0)
		write_number("/proc/sys/vm/mmap_min_addr", 0);
	at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE |
		  MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
	if (floor > 0)
		write_number("/proc/sys/vm/mmap_min_addr", floor);
	if (at != MAP_FAILED)
		no_huge_pages(at, len);
	return at;
}

/*
 * Address 0 is an address like any other: the invalidation that mprotect()
 * makes there reaches the device, and it ends, or the device would wait for
 * its end for ever.
 */
static void protect_at_zero(struct __test_metadata *_metadata, int fd,
			    size_t len)
{
	char *at = map_at_zero(len), *last = (char *)len - page_size;

	if (at == MAP_FAILED)
		SKIP(return, "cannot map address 0");
	ASSERT_EQ(NULL, at);
	ASSERT_EQ(0, dev_poke(fd, at, 1));
	ASSERT_EQ(0, dev_poke(fd, last, 2));
	ASSERT_EQ(0, mprotect(at, len, PROT_READ));
	EXPECT_EQ(-EPERM, dev_poke(fd, at, 3));
	EXPECT_EQ(-EPERM, dev_poke(fd, last, 3));
	EXPECT_EQ(last ? 1 : 2, dev_peek(fd, at));
	EXPECT_EQ(2, dev_peek(fd, last));
	ASSERT_EQ(0, mprotect(at, len, PROT_READ | PROT_WRITE));
	EXPECT_EQ(0, dev_poke(fd, at, 4));
	EXPECT_EQ(4, dev_peek(fd, at));
	ASSERT_EQ(0, munmap(at, len));
	EXPECT_EQ(-1, dev_peek(fd, at));
}

TEST_F(snapshot, mprotect_page_zero)
{
	protect_at_zero(_metadata, self->fd, page_size);
}

/* From 0, over more than one entry of the table above the PMDs. */
TEST_F(snapshot, mprotect_from_zero)
{
	size_t len = (1UL << 30) + (4UL << 20);

	if ((uintptr_t)&page_size < len)
		SKIP(return, "this program itself is linked low");
	protect_at_zero(_metadata, self->fd, len);
}

TEST_HARNESS_MAIN
