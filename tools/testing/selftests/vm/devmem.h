/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests of device memory share: drivers bound and unbound through sysfs,
 * pages pinned across system calls, tasks looked at while they sleep, and what
 * /proc says of the machine's memory before and after.
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

/* How long to wait for what has to come: emulated machines are slow. */
#define SOON	60.0
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

/* Removal of device memory that waits for its pages: names of functions */
#define in_removal(pid)	(is_in(pid, "pgmap_") || is_in(pid, "memunmap_pages") || \
			 is_in(pid, "_wait_idle"))

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
