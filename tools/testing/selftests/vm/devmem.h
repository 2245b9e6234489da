/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests of device memory share: drivers bound and unbound through sysfs,
 * pages pinned across system calls, tasks looked at while they sleep, memory of the
 * dummy device, and what /proc says of the machine's memory before and after.
 *
 * Who says nothing else returns true for success.
 */
#ifndef DEVMEM_H
#define DEVMEM_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* How long to look on while nothing may happen, in microseconds. */
#define A_WHILE	200000

/* ---- Drivers ---- */

/* A device and its driver; both as sysfs names them. */
struct bond {
	char driver[128];
	char device[64];
};

bool bond_holds(const struct bond *bond);
bool unbind(const struct bond *bond);
bool bind_again(const struct bond *bond);

/* The device-DAX device with pages of @align bytes; of the whole, in bytes. */
bool find_device_dax(struct bond *bond, size_t align);
uint64_t device_dax_number(const struct bond *bond, const char *file);

/* Persistent memory as a block device that nobody uses, say "pmem3". */
bool find_spare_pmem(struct bond *bond, char *disk, size_t size);

/* ---- Peer-to-peer memory ---- */

#define PCI_DEVICES	"/sys/bus/pci/devices"

/* The NVMe controller that has some of it. */
bool find_p2p(struct bond *bond);
/* A file of it in sysfs, until the next call. */
const char *p2p_path(const struct bond *bond, const char *file);
/* How much of it nobody has, in bytes. */
long p2p_available(const struct bond *bond);
/* A mapping of so many bytes of it, or MAP_FAILED. */
char *p2p_map(const struct bond *bond, size_t len);

/* ---- Tasks ---- */

/*
 * A child that does something which may take long, and has none of the pins of its
 * parent; its status is 0 if it went well.
 */
pid_t start(bool (*work)(void *arg), void *arg);
/* Has it a function with @text in its name on its kernel stack? */
bool is_in(pid_t pid, const char *text);
bool is_running(pid_t pid);
/* Wait for it; true if it went well, and in time. */
bool finished(pid_t pid);

/* Is it in removal of device memory, which waits for pages? */
static inline bool in_removal(pid_t pid)
{
	return is_in(pid, "pgmap_") || is_in(pid, "memunmap_pages") ||
		is_in(pid, "_wait_idle");
}

/* ---- Pages ---- */

/* References by way of a pipe: they stay until unpin(), mapped or not. */
struct pin {
	int ends[2];
};

/* The pages under @len bytes; false with errno, and no reference. */
bool pin(struct pin *pin, const void *addr, size_t len);
void unpin(struct pin *pin);

/* Pins for long, by the kernel's gup_test: what to unpin by, or -errno. */
int pin_longterm(const void *addr, size_t len);
void unpin_longterm(int fd);

/*
 * One access. True if it brought a SIGBUS, which is in @info then, unless that is
 * NULL.
 */
bool bus_error(void *addr, bool write, siginfo_t *info);
/* The same for a SIGBUS that somebody else's call brings. */
void bus_errors_begin(void);
bool bus_errors_seen(void);
bool bus_errors_end(siginfo_t *info);

/* The frame behind @addr: on a device where no CPU gets at it, or bad, too; or 0. */
uint64_t frame_of(const void *addr);
/* Say to the file @path of sysfs that one went bad; false with errno. */
bool tell_frame(const char *path, uint64_t pfn);
#define HARD_OFFLINE	"/sys/devices/system/memory/hard_offline_page"
#define SOFT_OFFLINE	"/sys/devices/system/memory/soft_offline_page"

/* ---- Memory of the dummy device ---- */

/* Pages to the device, with a copy of them to @buf, and back; 0 or -errno. */
int move_in(int fd, const void *at, void *buf, size_t pages);
int move_out(int fd, const void *at, size_t pages);
/* All of them come home, whoever has them, and the memory goes; 0 or -errno. */
int release(int fd);
/* How many of a run of pages are there; -1 on trouble. */
size_t pages_in(int fd, const void *at, size_t pages);
/* First and last frame of device @minor's memory; false while it has none. */
bool frames_of(int minor, uint64_t *first, uint64_t *last);

/* ---- File systems ---- */

enum fs { EXT4, XFS };

/* A DAX file system on @disk, mounted; NULL, or what there is none for. */
const char *fs_make(enum fs fs, const char *disk);
/* Only mounted. */
bool fs_mount(enum fs fs, const char *disk);
bool fs_unmount(void);
/* Where: a directory */
#define FS_DIR	"/tmp/devmem"

/* ---- The machine ---- */

/* What a test leaves as it was. */
struct world {
	char *iomem;
	char *blocks;		/* of /proc/pagetypeinfo: pageblocks of each type */
	long total;		/* of /proc/meminfo, in KiB */
	long available;
};

/* All of a file of /proc, which may be freed */
char *text_of(const char *path);
/* Has it been built with what defines this function? */
bool kernel_has(const char *symbol);
bool has_kasan(void);

/* In KiB: free pages that CPUs keep in lists of their own, which count as used */
long in_lists(void);
void world_take(struct world *world);
/*
 * What differs now, for a message, or NULL. Available memory may be less by what
 * caches and per-CPU lists keep.
 */
const char *world_changed(const struct world *before);

/* The kernel's log from here on */
int log_open(void);
/* Has it a line with @text, now or soon? */
bool log_says(int log, const char *text, double limit);

#endif /* DEVMEM_H */
