/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests of the dummy device share: requests to it, kinds of memory,
 * patterns to fill them with, and the page tables as /proc shows them.
 *
 * A request returns 0 or a negative errno in .err, so that one comparison
 * checks it. Memory of a kind that this machine does not have is a reason in
 * words, for SKIP(). A program that starts without a device ends as skipped.
 */
#ifndef HMM_DEV_H
#define HMM_DEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#include <lib/test_hmm_uapi.h>

#define ARRAY_LEN(a)	(sizeof(a) / sizeof((a)[0]))

/* ---- The device ---- */

struct reply {
	int err;
	unsigned long pages;
	unsigned long batches;
};

int dev_open(int minor);
struct reply dev_request(int fd, unsigned long request, const void *addr,
			 const void *buf, size_t pages);

static inline struct reply dev_read(int fd, const void *addr, void *buf,
				    size_t pages)
{
	return dev_request(fd, HMM_DMIRROR_READ, addr, buf, pages);
}

static inline struct reply dev_write(int fd, void *addr, const void *buf,
				     size_t pages)
{
	return dev_request(fd, HMM_DMIRROR_WRITE, addr, buf, pages);
}

static inline struct reply dev_snapshot(int fd, const void *addr, void *bytes,
					size_t pages)
{
	return dev_request(fd, HMM_DMIRROR_SNAPSHOT, addr, bytes, pages);
}

/* The byte that a snapshot has for one page; -errno if there is none. */
int dev_snap(int fd, const void *addr);
/* The first word of a page as the device sees it, -1 if it does not. */
long dev_peek(int fd, const void *addr);
/* Set all words of a page through the device; 0 or -errno. */
int dev_poke(int fd, void *addr, long word);

/* For a program with the test harness: a request that succeeds, and how well. */
#define EXPECT_DONE(request, npages, nbatches) do {		\
	struct reply done = (request);				\
								\
	EXPECT_EQ(0, done.err);					\
	EXPECT_EQ(npages, done.pages);				\
	EXPECT_EQ(nbatches, done.batches);			\
} while (0)

/* ---- Sizes and data ---- */

extern size_t page_size;
extern size_t pmd_size;		/* 0 without transparent huge pages */

/*
 * No huge pages here, please; a kernel without any refuses to hear of it. Either way it
 * is a VMA of its own then: what lies beside it is not like it.
 */
static inline int no_huge_pages(void *at, size_t len)
{
	return madvise(at, len, pmd_size ? MADV_NOHUGEPAGE : MADV_DONTDUMP);
}

/* Different for every word, page and seed; never 0 for a seed that is not. */
void pattern_fill(void *addr, size_t len, unsigned int seed);
/* Offset of the first word that differs, or -1. */
long pattern_check(const void *addr, size_t len, unsigned int seed);
/* Offset of the first byte that is not zero, or -1. */
long zero_check(const void *addr, size_t len);
/* One word of memory that others may be changing. */
static inline long load(const void *addr)
{
	return __atomic_load_n((const long *)addr, __ATOMIC_SEQ_CST);
}

static inline void store(void *addr, long word)
{
	__atomic_store_n((long *)addr, word, __ATOMIC_SEQ_CST);
}

/* Populated memory of the test's own, for requests to read from and fill. */
void *buffer(size_t len);
/* Anonymous memory without huge pages, and nothing there yet; private, if not told. */
char *map_small_as(size_t len, int prot, int flags);
char *map_small(size_t len);

/* A thread that adds 1 to @word until count_end(), and returns how often. */
void count_begin(void);
void *count_up(void *word);
void count_end(void);

/* ---- Kinds of memory ---- */

#ifndef MAP_HUGE_SHIFT
#define MAP_HUGE_SHIFT	26
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

enum kind {
	ANON_PRIVATE,
	ANON_SHARED,
	ANON_THP,
	SHMEM_THP,
	MEMFD,
	TMPFS_SHARED,
	TMPFS_PRIVATE,
	DISK_SHARED,
	DISK_PRIVATE,
	DAX_SHARED,
	DAX_PRIVATE,
	DAX_2M,			/* a shared file again, in one extent */
	DEVICE_DAX_2M,
	DEVICE_DAX_1G,
	HUGETLB_2M,
	HUGETLB_1G,
};

struct mem {
	enum kind kind;
	char *addr;
	size_t len;		/* a multiple of the leaf size */
	size_t leaf;		/* bytes under one page-table leaf */
	bool is_private;	/* fork() makes copies of it */
	int fd;			/* of the file behind it, or -1 */
	char why[128];		/* if there is none of this kind */
};

bool mem_map(struct mem *mem, enum kind kind, size_t len);
void mem_unmap(struct mem *mem);

/* A directory on a disk (or DAX) file system, or NULL. */
const char *disk_dir(bool dax);
/* An unlinked file of @len zero bytes in @dir; -1 on failure. */
int temp_file(const char *dir, size_t len);
/* Is there swap to page out to? */
bool have_swap(void);

/* ---- What /proc and /sys say ---- */

/* Of the CPU's page tables */
#define PM_SOFT_DIRTY	0x0080000000000000ULL
#define PM_UFFD_WP	0x0200000000000000ULL
#define PM_FILE		0x2000000000000000ULL
#define PM_SWAPPED	0x4000000000000000ULL
#define PM_PRESENT	0x8000000000000000ULL

uint64_t pagemap_entry(const void *addr);
/* How many of a run of pages have one of @bits there. */
size_t pagemap_count(const void *addr, size_t pages, uint64_t bits);
/* Until all is in swap: for a moment batches of other CPUs keep pages from it. */
bool page_out(void *at, size_t pages);
/* Page frame under @addr; 0 if there is none, or none that may be told. */
uint64_t pagemap_pfn(const void *addr);
/* Flags of a page frame, 1 << KPF_*; 0 if there is no such. */
uint64_t page_flags(uint64_t pfn);
/* Is it in persistent memory? */
bool is_pmem(uint64_t pfn);

/* Of the mapping that @addr lies in: a field in KiB, or -1; two-letter flag. */
long smaps_field(const void *addr, const char *field);
bool smaps_flag(const void *addr, const char *flag);
/* Of all mappings that lie within @len bytes: the sum of a field, in KiB. */
long smaps_sum(const void *addr, size_t len, const char *field);

/* First number in a file of /proc or /sys, or -1; and write one there. */
long read_number(const char *path);
bool write_number(const char *path, long number);
bool write_text(const char *path, const char *text);
/* The number behind @key in a file of keys and numbers, or -1. */
long read_keyed(const char *path, const char *key);

/* ---- A memory cgroup, for a child at a time ---- */

#define CGROUPS		"/sys/fs/cgroup"
#define GROUP		CGROUPS "/hmm_dev"

const char *group_path(const char *file);
bool group_make(size_t limit);
long group_event(const char *event);
long group_anon(void);

/* ---- CPUs and time ---- */

/* The calling thread runs on this one from now on. */
void stay_on(int cpu);

double seconds(void);
/* How long to wait for what has to come: emulated machines are slow. */
#define SOON	60.0

/* Look every millisecond; for events that nobody reports. */
#define wait_until(cond, limit) ({				\
	double end_ = seconds() + (limit);			\
	bool met_;						\
								\
	while (!(met_ = (cond)) && seconds() < end_)		\
		usleep(1000);					\
	met_;							\
})

/* Emulated machines are slow, and some tests look on for seconds. */
#define DEV_TIMEOUT	240

#endif /* HMM_DEV_H */
