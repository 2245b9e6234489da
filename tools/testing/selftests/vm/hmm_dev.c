// SPDX-License-Identifier: GPL-2.0
/* Shared by the tests of the dummy device; hmm_dev.h has the words. */
#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "../kselftest.h"
#include "hmm_dev.h"

/* Of device DAX, as much as tests may look at. */
#define DEVICE_DAX_CLEAR	(8UL << 20)

size_t page_size;
size_t pmd_size;

/* ---- The device ---- */

int dev_open(int minor)
{
	char path[32];

	snprintf(path, sizeof(path), "/dev/hmm_dmirror%d", minor);
	return open(path, O_RDWR | O_CLOEXEC);
}

/* Before main(): the sizes are there, and so is a device. */
static void __attribute__((constructor)) dev_require(void)
{
	long pmd = read_number("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size");
	int fd = dev_open(0);

	page_size = sysconf(_SC_PAGESIZE);
	pmd_size = pmd > 0 ? pmd : 0;
	/* With a policy, NUMA balancing does not take entries away to look on. */
	syscall(SYS_set_mempolicy, MPOL_LOCAL, NULL, 0);
	if (fd >= 0) {
		close(fd);
		return;
	}
	ksft_print_header();
	ksft_exit_skip("/dev/hmm_dmirror0: %s (CONFIG_TEST_HMM, root)\n",
		       strerror(errno));
}

struct reply dev_request(int fd, unsigned long request, const void *addr,
			 const void *buf, size_t pages)
{
	struct hmm_dmirror_cmd cmd = {
		.addr = (uintptr_t)addr,
		.ptr = (uintptr_t)buf,
		.npages = pages,
	};
	struct reply reply = { 0 };

	if (ioctl(fd, request, &cmd)) {
		reply.err = -errno;
		return reply;
	}
	reply.pages = cmd.cpages;
	reply.batches = cmd.faults;
	return reply;
}

int dev_snap(int fd, const void *addr)
{
	unsigned char byte;
	struct reply reply = dev_snapshot(fd, addr, &byte, 1);

	return reply.err ? reply.err : byte;
}

long dev_peek(int fd, const void *addr)
{
	long words[page_size / sizeof(long)];

	return dev_read(fd, addr, words, 1).err ? -1 : words[0];
}

int dev_poke(int fd, void *addr, long word)
{
	size_t i, n = page_size / sizeof(long);
	long words[n];

	for (i = 0; i < n; i++)
		words[i] = word;
	return dev_write(fd, addr, words, 1).err;
}

/* ---- Sizes and data ---- */

static uint64_t pattern_word(size_t i, unsigned int seed)
{
	/* An odd multiplier keeps words apart, the low bit keeps them from 0. */
	return (i * 0x9e3779b97f4a7c15ULL + seed * 0xbf58476d1ce4e5b9ULL) << 1 | 1;
}

void pattern_fill(void *addr, size_t len, unsigned int seed)
{
	uint64_t *p = addr;
	size_t i;

	for (i = 0; i < len / sizeof(*p); i++)
		p[i] = pattern_word(i, seed);
}

long pattern_check(const void *addr, size_t len, unsigned int seed)
{
	const uint64_t *p = addr;
	size_t i;

	for (i = 0; i < len / sizeof(*p); i++)
		if (p[i] != pattern_word(i, seed))
			return i * sizeof(*p);
	return -1;
}

long zero_check(const void *addr, size_t len)
{
	const char *p = addr;
	size_t i;

	for (i = 0; i < len; i++)
		if (p[i])
			return i;
	return -1;
}

void *buffer(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED)
		ksft_exit_fail_msg("out of memory: %zu bytes\n", len);
	return p;
}

char *map_small_as(size_t len, int prot, int flags)
{
	char *at = mmap(NULL, len, prot, flags | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED || no_huge_pages(at, len))
		ksft_exit_fail_msg("out of memory: %zu bytes\n", len);
	return at;
}

char *map_small(size_t len)
{
	return map_small_as(len, PROT_READ | PROT_WRITE, MAP_PRIVATE);
}

static bool enough;

void count_begin(void)
{
	__atomic_store_n(&enough, false, __ATOMIC_SEQ_CST);
}

void *count_up(void *word)
{
	long n;

	for (n = 0; !__atomic_load_n(&enough, __ATOMIC_SEQ_CST); n++)
		__atomic_fetch_add((long *)word, 1, __ATOMIC_SEQ_CST);
	return (void *)n;
}

void count_end(void)
{
	__atomic_store_n(&enough, true, __ATOMIC_SEQ_CST);
}

/* ---- /proc and /sys ---- */

long read_number(const char *path)
{
	FILE *f = fopen(path, "r");
	long n = -1;

	if (!f)
		return -1;
	if (fscanf(f, "%ld", &n) != 1)
		n = -1;
	fclose(f);
	return n;
}

bool write_text(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");
	bool ok;

	if (!f)
		return false;
	ok = fputs(text, f) >= 0;
	return !fclose(f) && ok;
}

bool write_number(const char *path, long number)
{
	char text[32];

	snprintf(text, sizeof(text), "%ld\n", number);
	return write_text(path, text);
}

long read_keyed(const char *path, const char *key)
{
	FILE *f = fopen(path, "r");
	size_t len = strlen(key);
	char line[256];
	long n = -1;

	if (!f)
		return -1;
	while (n < 0 && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, len) && strchr(" :\t", line[len]))
			sscanf(line + len, "%*[: \t]%ld", &n);
	fclose(f);
	return n;
}

/* One of the many u64 in a file of /proc, or 0. */
static uint64_t read_u64(const char *path, uint64_t index)
{
	int fd = open(path, O_RDONLY);
	uint64_t entry = 0;

	if (fd < 0)
		return 0;
	if (pread(fd, &entry, sizeof(entry), index * sizeof(entry)) !=
	    sizeof(entry))
		entry = 0;
	close(fd);
	return entry;
}

uint64_t pagemap_entry(const void *addr)
{
	return read_u64("/proc/self/pagemap", (uintptr_t)addr / page_size);
}

size_t pagemap_count(const void *addr, size_t pages, uint64_t bits)
{
	size_t i, n = 0;

	for (i = 0; i < pages; i++)
		n += !!(pagemap_entry(addr + i * page_size) & bits);
	return n;
}

bool page_out(void *at, size_t pages)
{
	return wait_until(!madvise(at, pages * page_size, MADV_PAGEOUT) &&
			  !pagemap_count(at, pages, PM_PRESENT), SOON);
}

uint64_t pagemap_pfn(const void *addr)
{
	uint64_t entry = pagemap_entry(addr);

	return entry & PM_PRESENT ? entry & ((1ULL << 55) - 1) : 0;
}

uint64_t page_flags(uint64_t pfn)
{
	return read_u64("/proc/kpageflags", pfn);
}

bool is_pmem(uint64_t pfn)
{
	FILE *f = fopen("/proc/iomem", "r");
	unsigned long start, end;
	char line[256], name[64];
	bool found = false;

	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f)) {
		if (sscanf(line, " %lx-%lx : %63[^\n]", &start, &end, name) != 3)
			continue;
		found = !strncmp(name, "Persistent Memory", 17) &&
			pfn * page_size >= start && pfn * page_size <= end;
	}
	fclose(f);
	return found;
}

/* The line of smaps that opens with @key, of the mapping that has @addr. */
static bool smaps_line(const void *addr, const char *key, char *line, int size)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	unsigned long start, end;
	bool mine = false, found = false;

	if (!f)
		return false;
	while (!found && fgets(line, size, f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			mine = start <= (uintptr_t)addr && (uintptr_t)addr < end;
		else
			found = mine && !strncmp(line, key, strlen(key));
	}
	fclose(f);
	return found;
}

long smaps_field(const void *addr, const char *field)
{
	char line[512];
	long n = -1;

	if (smaps_line(addr, field, line, sizeof(line)))
		sscanf(line + strlen(field), ": %ld", &n);
	return n;
}

bool smaps_flag(const void *addr, const char *flag)
{
	char line[512], word[8];

	snprintf(word, sizeof(word), " %.2s ", flag);
	return smaps_line(addr, "VmFlags:", line, sizeof(line)) &&
	       strstr(line, word);
}

long smaps_sum(const void *addr, size_t len, const char *field)
{
	uintptr_t first = (uintptr_t)addr, start, end;
	FILE *f = fopen("/proc/self/smaps", "r");
	long kib, sum = 0;
	bool mine = false;
	char line[512];

	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			mine = first <= start && end <= first + len;
		else if (mine && !strncmp(line, field, strlen(field)) &&
			 sscanf(line + strlen(field), ": %ld", &kib) == 1)
			sum += kib;
	}
	fclose(f);
	return sum;
}

/* ---- A memory cgroup ---- */

const char *group_path(const char *file)
{
	static char path[128];

	snprintf(path, sizeof(path), GROUP "/%s", file);
	return path;
}

bool group_make(size_t limit)
{
	write_text(CGROUPS "/cgroup.subtree_control", "+memory");
	if (mkdir(GROUP, 0755) && errno != EEXIST)
		return false;
	return write_number(group_path("memory.max"), limit);
}

long group_event(const char *event)
{
	return read_keyed(group_path("memory.events"), event);
}

long group_anon(void)
{
	return read_keyed(group_path("memory.stat"), "anon");
}

double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

void stay_on(int cpu)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	sched_setaffinity(0, sizeof(one), &one);
}

bool have_swap(void)
{
	FILE *f = fopen("/proc/swaps", "r");
	char line[256];
	int lines = 0;

	if (!f)
		return false;
	while (fgets(line, sizeof(line), f))
		lines++;
	fclose(f);
	return lines > 1;
}

static bool is_disk(const char *type)
{
	static const char * const types[] = { "ext2", "ext4", "xfs", "btrfs",
					      "f2fs" };
	size_t i;

	for (i = 0; i < ARRAY_LEN(types); i++)
		if (!strcmp(type, types[i]))
			return true;
	return false;
}

/*
 * The environment may name the directories; otherwise the first mounted
 * file system that will do.
 */
const char *disk_dir(bool dax)
{
	static char dirs[2][256];
	const char *named = getenv(dax ? "HMM_DAX_DIR" : "HMM_DISK_DIR");
	char type[64], opts[512], *dir = dirs[dax];
	FILE *f;

	if (named)
		return named;
	f = fopen("/proc/mounts", "r");
	if (!f)
		return NULL;
	while (fscanf(f, "%*s %255s %63s %511s %*d %*d", dir, type, opts) == 3) {
		if (!is_disk(type) || access(dir, W_OK))
			continue;
		if (!!strstr(opts, "dax") != dax || strstr(opts, "dax=never"))
			continue;
		fclose(f);
		return dir;
	}
	fclose(f);
	return NULL;
}

/* ---- Kinds of memory ---- */

int temp_file(const char *dir, size_t len)
{
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s/hmm_dev.XXXXXX", dir);
	fd = mkstemp(path);
	if (fd < 0)
		return -1;
	unlink(path);
	if (!ftruncate(fd, len))
		return fd;
	close(fd);
	return -1;
}

static bool mem_none(struct mem *mem, const char *why)
{
	snprintf(mem->why, sizeof(mem->why), "%s", why);
	if (mem->fd >= 0)
		close(mem->fd);
	mem->fd = -1;
	mem->addr = NULL;
	return false;
}

static bool mem_finish(struct mem *mem, int flags)
{
	mem->is_private = flags & MAP_PRIVATE;
	mem->addr = mmap(NULL, mem->len, PROT_READ | PROT_WRITE, flags, mem->fd, 0);
	if (mem->addr == MAP_FAILED)
		return mem_none(mem, "mmap failed");
	return true;
}

static bool mem_file(struct mem *mem, const char *dir, int flags,
		     const char *none)
{
	if (!dir)
		return mem_none(mem, none);
	mem->fd = temp_file(dir, mem->len);
	if (mem->fd < 0)
		return mem_none(mem, "cannot make a temporary file");
	return mem_finish(mem, flags);
}

/*
 * A mapping that starts on a boundary of @align: reserve more, cut the rest off,
 * and map over what is left.
 */
static bool mem_aligned(struct mem *mem, size_t align, int flags)
{
	size_t span = mem->len + align;
	char *start;

	mem->is_private = flags & MAP_PRIVATE;
	start = mmap(NULL, span, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (start == MAP_FAILED)
		return mem_none(mem, "mmap failed");
	mem->addr = (char *)(((uintptr_t)start + align - 1) / align * align);
	if (mem->addr > start)
		munmap(start, mem->addr - start);
	munmap(mem->addr + mem->len, start + align - mem->addr);
	if (mmap(mem->addr, mem->len, PROT_READ | PROT_WRITE, flags | MAP_FIXED,
		 mem->fd, 0) != MAP_FAILED)
		return true;
	munmap(mem->addr, mem->len);
	return mem_none(mem, "mmap failed");
}

/* Will the first touch of @mem make a huge page? Memory may be fragmented. */
static bool thp_works(struct mem *mem)
{
	bool works;
	int fd;

	if (madvise(mem->addr, mem->len, MADV_HUGEPAGE))
		return false;
	store(mem->addr, 1);
	fd = dev_open(0);
	works = dev_snap(fd, mem->addr) ==
		(HMM_DMIRROR_PROT_WRITE | HMM_DMIRROR_PROT_PMD);
	close(fd);
	store(mem->addr, 0);
	return works;
}

static bool mem_thp(struct mem *mem, int flags)
{
	if (!pmd_size)
		return mem_none(mem, "no transparent huge pages");
	mem->leaf = pmd_size;
	mem->len = (mem->len + pmd_size - 1) / pmd_size * pmd_size;
	if (!mem_aligned(mem, pmd_size, flags | MAP_ANONYMOUS))
		return false;
	if (thp_works(mem)) {
		/* Untouched again, like memory of any other kind. */
		madvise(mem->addr, mem->len, flags & MAP_SHARED ?
			MADV_REMOVE : MADV_DONTNEED);
		return true;
	}
	munmap(mem->addr, mem->len);
	return mem_none(mem, "no huge page to be had");
}

/* A pool too small is made larger, and stays so: others may be using it. */
static bool hugetlb_reserve(size_t size, size_t count)
{
	char path[128];
	long avail, total;

	snprintf(path, sizeof(path),
		 "/sys/kernel/mm/hugepages/hugepages-%zukB/free_hugepages",
		 size >> 10);
	avail = read_number(path);
	if (avail < 0)
		return false;
	if (avail >= (long)count)
		return true;
	snprintf(path, sizeof(path),
		 "/sys/kernel/mm/hugepages/hugepages-%zukB/nr_hugepages",
		 size >> 10);
	total = read_number(path);
	write_number(path, total + count - avail);
	return read_number(path) >= total + (long)count - avail;
}

static bool mem_hugetlb(struct mem *mem, size_t size)
{
	int log = __builtin_ctzl(size);
	/* One more for the copy that a write after fork() makes. */
	size_t count = (mem->len + size - 1) / size;

	mem->leaf = size;
	mem->len = count * size;
	if (!hugetlb_reserve(size, 2 * count))
		return mem_none(mem, "no hugetlb pages of this size to be had");
	return mem_finish(mem, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB |
			  (log << MAP_HUGE_SHIFT));
}

static bool mem_dax_2m(struct mem *mem)
{
	const char *dir = disk_dir(true);
	size_t size = 2UL << 20;

	if (!dir)
		return mem_none(mem, "no DAX file system (HMM_DAX_DIR)");
	if (!pmd_size)
		return mem_none(mem, "no transparent huge pages");
	mem->leaf = size;
	mem->len = (mem->len + size - 1) / size * size;
	mem->fd = temp_file(dir, mem->len);
	if (mem->fd < 0)
		return mem_none(mem, "cannot make a temporary file");
	if (posix_fallocate(mem->fd, 0, mem->len))
		return mem_none(mem, "no room for a file of its own blocks");
	return mem_aligned(mem, size, MAP_SHARED);
}

/* Bytes that a file of /sys/bus/dax tells of /dev/dax@number, or -1. */
static long device_dax(const char *number, const char *file)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/bus/dax/devices/dax%s/%s", number,
		 file);
	return read_number(path);
}

/* What was written to the device is still there: the first of it is cleared. */
static bool device_dax_clear(int fd, size_t len)
{
	void *all = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (all == MAP_FAILED)
		return false;
	memset(all, 0, len < DEVICE_DAX_CLEAR ? len : DEVICE_DAX_CLEAR);
	return !munmap(all, len);
}

/* The first device with pages of @size. */
static bool mem_device_dax(struct mem *mem, size_t size)
{
	static const char * const numbers[] = { "0.0", "1.0", "2.0", "3.0" };
	char path[32];
	size_t i;

	mem->leaf = size;
	mem->len = (mem->len + size - 1) / size * size;
	for (i = 0; i < ARRAY_LEN(numbers); i++)
		if (device_dax(numbers[i], "align") == (long)size &&
		    device_dax(numbers[i], "size") >= (long)mem->len)
			break;
	if (i == ARRAY_LEN(numbers))
		return mem_none(mem, "no device DAX with pages of this size");
	snprintf(path, sizeof(path), "/dev/dax%s", numbers[i]);
	mem->fd = open(path, O_RDWR | O_CLOEXEC);
	if (mem->fd < 0)
		return mem_none(mem, "device DAX cannot be opened");
	if (!device_dax_clear(mem->fd, mem->len))
		return mem_none(mem, "device DAX cannot be mapped");
	return mem_aligned(mem, size, MAP_SHARED);
}

static bool mem_memfd(struct mem *mem)
{
	mem->fd = memfd_create("hmm_dev", MFD_CLOEXEC);
	if (mem->fd < 0 || ftruncate(mem->fd, mem->len))
		return mem_none(mem, "no memfd");
	return mem_finish(mem, MAP_SHARED);
}

/* To clear one, and its shadow, takes KASAN many seconds. */
static bool no_giants(void)
{
	const char *set = getenv("HMM_NO_GIANT");

	return set && *set;
}

bool mem_map(struct mem *mem, enum kind kind, size_t len)
{
	const char *shm = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";

	memset(mem, 0, sizeof(*mem));
	mem->kind = kind;
	mem->len = len;
	mem->leaf = page_size;
	mem->fd = -1;

	if ((kind == DEVICE_DAX_1G || kind == HUGETLB_1G) && no_giants())
		return mem_none(mem, "no pages of 1 GiB wanted (HMM_NO_GIANT)");
	switch (kind) {
	case ANON_PRIVATE:
		return mem_finish(mem, MAP_PRIVATE | MAP_ANONYMOUS);
	case ANON_SHARED:
		return mem_finish(mem, MAP_SHARED | MAP_ANONYMOUS);
	case ANON_THP:
		return mem_thp(mem, MAP_PRIVATE);
	case SHMEM_THP:
		return mem_thp(mem, MAP_SHARED);
	case MEMFD:
		return mem_memfd(mem);
	case TMPFS_SHARED:
		return mem_file(mem, shm, MAP_SHARED, NULL);
	case TMPFS_PRIVATE:
		return mem_file(mem, shm, MAP_PRIVATE, NULL);
	case DISK_SHARED:
		return mem_file(mem, disk_dir(false), MAP_SHARED,
				"no disk file system (HMM_DISK_DIR)");
	case DISK_PRIVATE:
		return mem_file(mem, disk_dir(false), MAP_PRIVATE,
				"no disk file system (HMM_DISK_DIR)");
	case DAX_SHARED:
		return mem_file(mem, disk_dir(true), MAP_SHARED,
				"no DAX file system (HMM_DAX_DIR)");
	case DAX_PRIVATE:
		return mem_file(mem, disk_dir(true), MAP_PRIVATE,
				"no DAX file system (HMM_DAX_DIR)");
	case DAX_2M:
		return mem_dax_2m(mem);
	case DEVICE_DAX_2M:
		return mem_device_dax(mem, 2UL << 20);
	case DEVICE_DAX_1G:
		return mem_device_dax(mem, 1UL << 30);
	case HUGETLB_2M:
		return mem_hugetlb(mem, 2UL << 20);
	case HUGETLB_1G:
		return mem_hugetlb(mem, 1UL << 30);
	}
	return mem_none(mem, "unknown kind");
}

void mem_unmap(struct mem *mem)
{
	if (mem->addr)
		munmap(mem->addr, mem->len);
	if (mem->fd >= 0)
		close(mem->fd);
	mem->addr = NULL;
	mem->fd = -1;
}
