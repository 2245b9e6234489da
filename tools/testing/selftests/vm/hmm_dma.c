// SPDX-License-Identifier: GPL-2.0
/*
 * A real DMA device on the memory of this process: QEMU's edu, driven by
 * lib/test_hmm_dma.c.
 *
 * What load_dev() returns the device has read; what store_dev() is given it
 * writes. Each page takes the device four tenths of a second, so few are moved,
 * while look() and fault_in() are free.
 *
 * A device that writes to a page it should have let go of is caught by keeping
 * that page in sight elsewhere: by a second mapping of a file, or in a child.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <lib/test_hmm_dma_uapi.h>

#include "../kselftest_harness.h"
#include "devmem.h"
#include "hmm_dev.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT DEV_TIMEOUT

#define PAGES		16
#define NO_DEVICE	"no /dev/hmm_dma: CONFIG_TEST_HMM_DMA, and in QEMU " \
			"-device edu,dma_mask=0xffffffffffffffff"

static int open_dev(void)
{
	return open("/dev/hmm_dma", O_RDWR | O_CLOEXEC);
}

static int request(int fd, unsigned long what, struct hmm_dma_cmd *cmd)
{
	return ioctl(fd, what, cmd) ? -errno : 0;
}

static int mirror(int fd, void *addr, size_t pages)
{
	struct hmm_dma_cmd cmd = { .addr = (uintptr_t)addr, .npages = pages };

	return request(fd, HMM_DMA_MIRROR, &cmd);
}

static int fault_in(int fd, void *addr, size_t pages, bool write,
		    struct hmm_dma_cmd *cmd)
{
	*cmd = (struct hmm_dma_cmd) {
		.addr = (uintptr_t)addr,
		.npages = pages,
		.write = write,
	};
	return request(fd, HMM_DMA_FAULT, cmd);
}

static int look(int fd, void *addr, size_t pages, struct hmm_dma_cmd *cmd)
{
	*cmd = (struct hmm_dma_cmd) {
		.addr = (uintptr_t)addr,
		.npages = pages,
	};
	return request(fd, HMM_DMA_LOOK, cmd);
}

/* How many pages the device has */
static long seen(int fd, void *addr, size_t pages)
{
	struct hmm_dma_cmd cmd;
	int err = look(fd, addr, pages, &cmd);

	return err ? err : (long)cmd.pages;
}

static int load_dev(int fd, const void *addr, void *buf, size_t bytes)
{
	ssize_t ret = pread(fd, buf, bytes, (uintptr_t)addr);

	return ret < 0 ? -errno : ret == (ssize_t)bytes ? 0 : -EIO;
}

static int store_dev(int fd, void *addr, const void *buf, size_t bytes)
{
	ssize_t ret = pwrite(fd, buf, bytes, (uintptr_t)addr);

	return ret < 0 ? -errno : ret == (ssize_t)bytes ? 0 : -EIO;
}

/* ---- Every kind of memory ---- */

FIXTURE(dma_kinds)
{
	int fd;
	struct mem mem;
	char *at;
	char *buf;
};

FIXTURE_VARIANT(dma_kinds)
{
	enum kind kind;
	size_t len;
};

FIXTURE_VARIANT_ADD(dma_kinds, anon) { ANON_PRIVATE, 0 };
FIXTURE_VARIANT_ADD(dma_kinds, anon_thp) { ANON_THP, 0 };
FIXTURE_VARIANT_ADD(dma_kinds, shmem_thp) { SHMEM_THP, 0 };
FIXTURE_VARIANT_ADD(dma_kinds, memfd) { MEMFD, 0 };
FIXTURE_VARIANT_ADD(dma_kinds, disk) { DISK_SHARED, 0 };
FIXTURE_VARIANT_ADD(dma_kinds, disk_private) { DISK_PRIVATE, 0 };
FIXTURE_VARIANT_ADD(dma_kinds, dax) { DAX_SHARED, 0 };
FIXTURE_VARIANT_ADD(dma_kinds, hugetlb_2m) { HUGETLB_2M, 2UL << 20 };
FIXTURE_VARIANT_ADD(dma_kinds, hugetlb_1g) { HUGETLB_1G, 1UL << 30 };

FIXTURE_SETUP(dma_kinds)
{
	size_t len = variant->len ? variant->len : PAGES * page_size;

	self->fd = open_dev();
	if (self->fd < 0)
		SKIP(return, NO_DEVICE);
	if (!mem_map(&self->mem, variant->kind, len)) {
		close(self->fd);
		SKIP(return, "%s", self->mem.why);
	}
	/* In the middle of a huge page, and on no boundary of any order */
	self->at = self->mem.addr;
	if (self->mem.leaf > page_size)
		self->at += self->mem.leaf / 2 + 3 * page_size;
	self->buf = buffer(PAGES * page_size);
	ASSERT_EQ(0, mirror(self->fd, self->at, PAGES));
}

FIXTURE_TEARDOWN(dma_kinds)
{
	mem_unmap(&self->mem);
	close(self->fd);
}

TEST_F(dma_kinds, there_and_back)
{
	size_t all = PAGES * page_size, size = page_size + 300, i;
	char *there = self->at + 7 * page_size - 100;
	char *expected = buffer(all);

	/* Different from byte to byte, over two page boundaries */
	pattern_fill(self->at, all, 1);
	memset(self->buf, 0, all);
	ASSERT_EQ(0, load_dev(self->fd, there, self->buf, size));
	EXPECT_EQ(0, memcmp(self->buf, there, size));
	EXPECT_EQ(-1, zero_check(self->buf + size, all - size));

	for (i = 0; i < size; i++)
		self->buf[i] = i * 31 + i / 256;
	memcpy(expected, self->at, all);
	memcpy(expected + (there - self->at), self->buf, size);
	ASSERT_EQ(0, store_dev(self->fd, there, self->buf, size));
	EXPECT_EQ(0, memcmp(self->at, expected, all));
	munmap(expected, all);
}

/* A page of the CPU is a run for the device, from its middle on. */
TEST_F(dma_kinds, huge_page_is_one_run)
{
	struct hmm_dma_cmd cmd;

	ASSERT_EQ(0, fault_in(self->fd, self->at, PAGES, true, &cmd));
	EXPECT_EQ(PAGES, cmd.pages);
	EXPECT_EQ(PAGES, cmd.writable);
	EXPECT_GE(self->mem.leaf > page_size ? 1 : PAGES, cmd.extents);
}

/* One page goes. If the device has others in the same run, they go as well. */
TEST_F(dma_kinds, protected)
{
	struct hmm_dma_cmd cmd;
	char *end;

	pattern_fill(self->at, PAGES * page_size, 1);
	ASSERT_EQ(0, fault_in(self->fd, self->at, PAGES, true, &cmd));
	ASSERT_EQ(0, mprotect(self->mem.addr, self->mem.len, PROT_READ));
	ASSERT_EQ(0, look(self->fd, self->at, PAGES, &cmd));
	EXPECT_EQ(0, cmd.writable);
	EXPECT_EQ(-EPERM, store_dev(self->fd, self->at, self->buf, page_size));
	EXPECT_EQ(-1, pattern_check(self->at, PAGES * page_size, 1));

	end = self->at + (PAGES - 1) * page_size;
	EXPECT_EQ(0, load_dev(self->fd, end, self->buf, 64));
	EXPECT_EQ(0, memcmp(self->buf, end, 64));
	ASSERT_EQ(0, mprotect(self->mem.addr, self->mem.len,
			      PROT_READ | PROT_WRITE));
	EXPECT_EQ(0, store_dev(self->fd, end, self->at, 64));
	EXPECT_EQ(0, memcmp(self->at, end, 64));
}

TEST_F(dma_kinds, unmapped)
{
	struct hmm_dma_cmd cmd;

	ASSERT_EQ(0, fault_in(self->fd, self->at, PAGES, false, &cmd));
	EXPECT_EQ(PAGES, cmd.pages);
	ASSERT_EQ(0, munmap(self->mem.addr, self->mem.len));
	self->mem.addr = NULL;
	EXPECT_EQ(0, seen(self->fd, self->at, PAGES));
	EXPECT_EQ(-EFAULT, load_dev(self->fd, self->at, self->buf, page_size));
	EXPECT_EQ(-EFAULT, store_dev(self->fd, self->at, self->buf, page_size));
}

/* Whatever the file system has been told or not, the data is there again. */
TEST_F(dma_kinds, what_is_written_is_kept)
{
	int i;

	if (self->mem.is_private && self->mem.fd < 0 && !have_swap())
		SKIP(return, "no swap");
	pattern_fill(self->buf, page_size, 3);
	/* A first touch by reading maps the page clean, where it can be. */
	EXPECT_EQ(-1, zero_check(self->at, page_size));
	ASSERT_EQ(0, store_dev(self->fd, self->at, self->buf, page_size));
	madvise(self->mem.addr, self->mem.len, MADV_PAGEOUT);
	if (variant->kind == ANON_PRIVATE || variant->kind == DISK_SHARED)
		EXPECT_EQ(0, seen(self->fd, self->at, 1));
	for (i = 0; i < 2; i++) {
		memset(self->buf, 0, page_size);
		ASSERT_EQ(0, load_dev(self->fd, self->at, self->buf, page_size));
		EXPECT_EQ(-1, pattern_check(self->buf, page_size, 3));
		EXPECT_EQ(-1, pattern_check(self->at, page_size, 3));
	}
}

/* ---- What happens to memory while the device has it ---- */

static void read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY);
	ssize_t len = fd < 0 ? 0 : read(fd, text, size - 1);

	text[len < 0 ? 0 : len] = 0;
	if (fd >= 0)
		close(fd);
}

/* A kernel that was told of an IOMMU has put it to use for the device. */
TEST(iommu_if_asked_for)
{
	char text[4096];
	int fd = open_dev();

	if (fd < 0)
		SKIP(return, NO_DEVICE);
	close(fd);
	read_text("/proc/cmdline", text, sizeof(text));
	if (!strstr(text, "intel_iommu=on"))
		return;
	read_text("/sys/class/misc/hmm_dma/device/iommu_group/type", text,
		  sizeof(text));
	EXPECT_EQ(0, strncmp(text, "DMA", 3)) TH_LOG("domain: \"%s\"", text);
}

FIXTURE(dma)
{
	int fd;
	char *at;
	char *buf;
	size_t bytes;
};

FIXTURE_SETUP(dma)
{
	self->fd = open_dev();
	if (self->fd < 0)
		SKIP(return, NO_DEVICE);
	self->bytes = PAGES * page_size;
	self->buf = buffer(self->bytes);
	self->at = mmap(NULL, self->bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->at);
	ASSERT_EQ(0, mirror(self->fd, self->at, PAGES));
}

FIXTURE_TEARDOWN(dma)
{
	close(self->fd);
}

/* The page is still in sight elsewhere, and the device may not write to it. */
TEST_F(dma, replaced)
{
	int file = memfd_create("hmm_dma", MFD_CLOEXEC);
	struct hmm_dma_cmd cmd;
	char *old;

	ASSERT_EQ(0, ftruncate(file, self->bytes));
	ASSERT_EQ(self->at, mmap(self->at, self->bytes, PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_FIXED, file, 0));
	old = mmap(NULL, self->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	ASSERT_NE(MAP_FAILED, old);
	pattern_fill(old, self->bytes, 1);
	ASSERT_EQ(0, fault_in(self->fd, self->at, PAGES, true, &cmd));
	EXPECT_EQ(PAGES, cmd.writable);

	ASSERT_EQ(self->at, mmap(self->at, self->bytes, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	EXPECT_EQ(0, seen(self->fd, self->at, PAGES));
	pattern_fill(self->buf, page_size, 2);
	ASSERT_EQ(0, store_dev(self->fd, self->at, self->buf, page_size));
	EXPECT_EQ(-1, pattern_check(old, self->bytes, 1));
	EXPECT_EQ(-1, pattern_check(self->at, page_size, 2));
	munmap(old, self->bytes);
	close(file);
}

/* After a fork() the device writes to the copy of the one that opened it. */
TEST_F(dma, forked)
{
	struct hmm_dma_cmd cmd;
	int go[2], status;
	pid_t child;
	char c;

	pattern_fill(self->at, self->bytes, 1);
	ASSERT_EQ(0, fault_in(self->fd, self->at, PAGES, true, &cmd));
	ASSERT_EQ(0, pipe(go));
	child = fork();
	if (!child) {
		close(go[1]);
		if (read(go[0], &c, 1) != 1)
			_exit(2);
		_exit(pattern_check(self->at, self->bytes, 1) != -1);
	}
	ASSERT_EQ(0, look(self->fd, self->at, PAGES, &cmd));
	EXPECT_EQ(0, cmd.writable);
	pattern_fill(self->buf, page_size, 2);
	EXPECT_EQ(0, store_dev(self->fd, self->at, self->buf, page_size));
	ASSERT_EQ(1, write(go[1], "", 1));
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_EQ(-1, pattern_check(self->at, page_size, 2));
}

TEST_F(dma, swapped_out)
{
	struct hmm_dma_cmd cmd;

	if (!have_swap())
		SKIP(return, "no swap");
	pattern_fill(self->at, self->bytes, 1);
	ASSERT_EQ(0, fault_in(self->fd, self->at, PAGES, true, &cmd));
	pattern_fill(self->buf, page_size, 2);
	ASSERT_EQ(0, store_dev(self->fd, self->at + page_size, self->buf,
			       page_size));
	ASSERT_TRUE(page_out(self->at, PAGES));
	EXPECT_EQ(0, seen(self->fd, self->at, PAGES));
	ASSERT_EQ(0, load_dev(self->fd, self->at, self->buf, 2 * page_size));
	EXPECT_EQ(page_size, pattern_check(self->buf, self->bytes, 1));
	EXPECT_EQ(-1, pattern_check(self->buf + page_size, page_size, 2));
	EXPECT_EQ(-1, pattern_check(self->at + page_size, page_size, 2));
}

/* The same pages mapped twice, as by two devices */
TEST_F(dma, mirrored_twice)
{
	struct hmm_dma_cmd cmd;
	int fd = open_dev();

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, mirror(fd, self->at, PAGES));
	ASSERT_EQ(0, fault_in(self->fd, self->at, PAGES, true, &cmd));
	ASSERT_EQ(0, fault_in(fd, self->at, PAGES, true, &cmd));
	EXPECT_EQ(PAGES, seen(self->fd, self->at, PAGES));
	pattern_fill(self->buf, page_size, 1);
	ASSERT_EQ(0, store_dev(self->fd, self->at, self->buf, page_size));
	memset(self->buf, 0, page_size);
	ASSERT_EQ(0, load_dev(fd, self->at, self->buf, page_size));
	EXPECT_EQ(-1, pattern_check(self->buf, page_size, 1));
	ASSERT_EQ(0, munmap(self->at, self->bytes));
	EXPECT_EQ(0, seen(self->fd, self->at, PAGES));
	EXPECT_EQ(0, seen(fd, self->at, PAGES));
	close(fd);
}

/* The first read maps the shared page of zeroes; nobody may write to that. */
TEST_F(dma, zero_page)
{
	struct hmm_dma_cmd cmd;

	memset(self->buf, 1, page_size);
	ASSERT_EQ(0, load_dev(self->fd, self->at, self->buf, page_size));
	EXPECT_EQ(-1, zero_check(self->buf, page_size));
	ASSERT_EQ(0, fault_in(self->fd, self->at, PAGES, false, &cmd));
	EXPECT_EQ(PAGES, cmd.pages);
	EXPECT_EQ(0, cmd.writable);
	pattern_fill(self->buf, page_size, 1);
	ASSERT_EQ(0, store_dev(self->fd, self->at, self->buf, page_size));
	EXPECT_EQ(-1, pattern_check(self->at, page_size, 1));
	EXPECT_EQ(-1, zero_check(self->at + page_size, self->bytes - page_size));
}

/* The same page, first to be read by the device, then to be written */
TEST_F(dma, upgraded)
{
	struct hmm_dma_cmd cmd;
	struct mem mem;
	int fd;

	if (!mem_map(&mem, DISK_SHARED, self->bytes))
		SKIP(return, "%s", mem.why);
	fd = open_dev();
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, mirror(fd, mem.addr, PAGES));
	ASSERT_EQ(0, fault_in(fd, mem.addr, PAGES, false, &cmd));
	EXPECT_EQ(PAGES, cmd.pages);
	EXPECT_EQ(0, cmd.writable);
	ASSERT_EQ(0, fault_in(fd, mem.addr + page_size, 1, true, &cmd));
	EXPECT_EQ(1, cmd.writable);
	pattern_fill(self->buf, page_size, 1);
	ASSERT_EQ(0, store_dev(fd, mem.addr + page_size, self->buf, page_size));
	ASSERT_EQ(0, fault_in(fd, mem.addr, PAGES, false, &cmd));
	EXPECT_EQ(PAGES, cmd.pages);
	EXPECT_EQ(1, cmd.writable);
	EXPECT_EQ(-1, pattern_check(mem.addr + page_size, page_size, 1));
	mem_unmap(&mem);
	close(fd);
}

/* Nobody but the device has written, and nothing is mapped any more. */
TEST_F(dma, file_is_written)
{
	struct mem mem;
	int fd;

	if (!mem_map(&mem, DISK_SHARED, self->bytes))
		SKIP(return, "%s", mem.why);
	EXPECT_EQ(-1, zero_check(mem.addr, self->bytes));
	fd = open_dev();
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, mirror(fd, mem.addr, PAGES));
	pattern_fill(self->buf, self->bytes, 1);
	ASSERT_EQ(0, store_dev(fd, mem.addr, self->buf, page_size));
	/* Clean again, and the device writes once more */
	ASSERT_EQ(0, msync(mem.addr, self->bytes, MS_SYNC));
	pattern_fill(self->buf, self->bytes, 2);
	ASSERT_EQ(0, store_dev(fd, mem.addr, self->buf, page_size));
	ASSERT_EQ(0, close(fd));

	ASSERT_EQ(0, munmap(mem.addr, mem.len));
	mem.addr = NULL;
	fsync(mem.fd);
	posix_fadvise(mem.fd, 0, 0, POSIX_FADV_DONTNEED);
	write_number("/proc/sys/vm/drop_caches", 1);
	memset(self->buf, 0, self->bytes);
	ASSERT_EQ(page_size, pread(mem.fd, self->buf, page_size, 0));
	EXPECT_EQ(-1, pattern_check(self->buf, page_size, 2));
	mem_unmap(&mem);
}

struct storm {
	char *at;
	bool stop;
	unsigned long rounds;
};

/* Takes pages from the device, and with them the runs that they are part of */
static void *storm_run(void *arg)
{
	struct storm *storm = arg;

	while (!__atomic_load_n(&storm->stop, __ATOMIC_RELAXED)) {
		madvise(storm->at, page_size, MADV_DONTNEED);
		store(storm->at, 1);
		mprotect(storm->at + page_size, page_size, PROT_READ);
		mprotect(storm->at + page_size, page_size,
			 PROT_READ | PROT_WRITE);
		storm->rounds++;
		usleep(20000);
	}
	return NULL;
}

TEST_F(dma, storm)
{
	struct storm storm = { .at = self->at + 2 * page_size };
	struct hmm_dma_cmd cmd;
	unsigned int seed;
	pthread_t thread;

	memset(self->at, 1, self->bytes);
	ASSERT_EQ(0, pthread_create(&thread, NULL, storm_run, &storm));
	for (seed = 1; seed <= 6; seed++) {
		/* Not for writing: one page cannot be written to at times */
		ASSERT_EQ(0, fault_in(self->fd, self->at, PAGES, false, &cmd));
		pattern_fill(self->buf, page_size, seed);
		ASSERT_EQ(0, store_dev(self->fd, self->at, self->buf, page_size));
		EXPECT_EQ(-1, pattern_check(self->at, page_size, seed));
		pattern_fill(self->at + 4 * page_size, page_size, seed);
		ASSERT_EQ(0, load_dev(self->fd, self->at + 4 * page_size,
				      self->buf, page_size));
		EXPECT_EQ(-1, pattern_check(self->buf, page_size, seed));
	}
	__atomic_store_n(&storm.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	EXPECT_LT(6, storm.rounds);
}

/* The process ends with all of it mapped; so does one whose file lives on. */
TEST_F(dma, exits)
{
	struct hmm_dma_cmd cmd;
	int status;
	pid_t child;

	child = fork();
	if (!child) {
		int fd = open_dev();

		if (fd < 0 || mirror(fd, self->at, PAGES) ||
		    fault_in(fd, self->at, PAGES, true, &cmd))
			_exit(1);
		_exit(0);
	}
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(0, status);

	/* This file mirrors the parent; in the child it still does. */
	memset(self->at, 1, self->bytes);
	child = fork();
	if (!child) {
		memset(self->at, 2, self->bytes);
		if (load_dev(self->fd, self->at, self->buf, 64))
			_exit(1);
		_exit(self->buf[0] != 1);
	}
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(0, status);
}

TEST_F(dma, bad_arguments)
{
	struct hmm_dma_cmd cmd = { .addr = (uintptr_t)self->at, .npages = 1 };
	int fd = open_dev();

	ASSERT_LE(0, fd);
	/* Nothing is mirrored yet */
	EXPECT_EQ(-EFAULT, request(fd, HMM_DMA_FAULT, &cmd));
	EXPECT_EQ(-EFAULT, load_dev(fd, self->at, self->buf, 1));
	EXPECT_EQ(-EINVAL, mirror(fd, self->at, 0));
	EXPECT_EQ(-EINVAL, mirror(fd, self->at + 1, 1));
	EXPECT_EQ(-EINVAL, mirror(fd, self->at, 1UL << 40));
	EXPECT_EQ(-EINVAL, mirror(fd, self->at, ~0UL));
	EXPECT_EQ(-EOVERFLOW, mirror(fd, (void *)-page_size, 2));
	EXPECT_EQ(0, mirror(fd, self->at, 2));
	EXPECT_EQ(-EBUSY, mirror(fd, self->at, 2));
	EXPECT_EQ(-ENOTTY, request(fd, HMM_DMA_LOOK + 1, &cmd));

	/* Beyond what is mirrored */
	EXPECT_EQ(-EFAULT, load_dev(fd, self->at + 2 * page_size, self->buf, 1));
	EXPECT_EQ(-EFAULT, load_dev(fd, self->at, self->buf, 2 * page_size + 1));
	EXPECT_EQ(-EFAULT, store_dev(fd, self->at - 1, self->buf, 1));
	cmd.npages = 3;
	EXPECT_EQ(-EFAULT, request(fd, HMM_DMA_LOOK, &cmd));
	close(fd);
}

/* ---- Memory of another device ---- */

/* Is there a bridge above both, on the way to the root of their bus? */
static bool bridge_above_both(const struct bond *bond)
{
	char path[PATH_MAX], edu[PATH_MAX], nvme[PATH_MAX];
	size_t i, slashes = 0;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s", bond->device);
	if (!realpath(path, nvme) || !realpath("/sys/class/misc/hmm_dma/device", edu))
		return false;
	/* "/sys/devices/pci0000:00/" has four of them */
	for (i = 0; edu[i] && edu[i] == nvme[i]; i++)
		slashes += edu[i] == '/';
	return slashes > 4;
}

FIXTURE(peer)
{
	struct bond bond;
	int fd;
	char *at;
	char *buf;
	size_t bytes;
};

FIXTURE_SETUP(peer)
{
	self->fd = open_dev();
	if (self->fd < 0)
		SKIP(return, NO_DEVICE);
	if (!find_p2p(&self->bond))
		SKIP(return, "no NVMe controller with memory for others");
	self->bytes = PAGES * page_size;
	self->at = p2p_map(&self->bond, self->bytes);
	ASSERT_NE(MAP_FAILED, self->at);
	self->buf = buffer(self->bytes);
	ASSERT_EQ(0, mirror(self->fd, self->at, PAGES));
}

FIXTURE_TEARDOWN(peer)
{
	close(self->fd);
}

/*
 * Behind one switch they reach one another by addresses on their bus. The way over
 * a host bridge that the kernel does not know is no way, and nothing is mapped.
 */
TEST_F(peer, reached_or_refused)
{
	struct hmm_dma_cmd cmd;

	pattern_fill(self->at, self->bytes, 1);
	if (!bridge_above_both(&self->bond)) {
		EXPECT_EQ(-EREMOTEIO, fault_in(self->fd, self->at, PAGES, true, &cmd));
		EXPECT_EQ(0, seen(self->fd, self->at, PAGES));
		EXPECT_EQ(-1, pattern_check(self->at, self->bytes, 1));
		return;
	}
	ASSERT_EQ(0, fault_in(self->fd, self->at, PAGES, true, &cmd));
	EXPECT_EQ(PAGES, cmd.pages);
	EXPECT_EQ(PAGES, cmd.writable);

	ASSERT_EQ(0, load_dev(self->fd, self->at, self->buf, page_size));
	EXPECT_EQ(-1, pattern_check(self->buf, page_size, 1));
	pattern_fill(self->buf, page_size, 2);
	ASSERT_EQ(0, store_dev(self->fd, self->at + 3 * page_size, self->buf,
			       page_size));
	EXPECT_EQ(-1, pattern_check(self->at + 3 * page_size, page_size, 2));

	ASSERT_EQ(0, munmap(self->at, self->bytes));
	EXPECT_EQ(0, seen(self->fd, self->at, PAGES));
	EXPECT_EQ(-EFAULT, load_dev(self->fd, self->at, self->buf, page_size));
}

TEST_HARNESS_MAIN
