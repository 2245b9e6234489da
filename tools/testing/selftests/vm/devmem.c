// SPDX-License-Identifier: GPL-2.0
/* Shared by the tests of device memory; devmem.h has the words. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mm/gup_test.h>

#include "../kselftest.h"
#include "devmem.h"
#include "hmm_dev.h"

#define DAX_DEVICES	"/sys/bus/dax/devices"
#define DAX_DRIVER	"/sys/bus/dax/drivers/device_dax"
#define PMEM_DRIVER	"/sys/bus/nd/drivers/nd_pmem"
#define GUP_TEST	"/sys/kernel/debug/gup_test"

/* ---- Drivers ---- */

bool bond_holds(const struct bond *bond)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", bond->driver, bond->device);
	return !access(path, F_OK);
}

static bool bond_tell(const struct bond *bond, const char *what)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", bond->driver, what);
	return write_text(path, bond->device);
}

bool unbind(const struct bond *bond)
{
	return bond_tell(bond, "unbind") && !bond_holds(bond);
}

bool bind_again(const struct bond *bond)
{
	return bond_tell(bond, "bind") && bond_holds(bond);
}

uint64_t device_dax_number(const struct bond *bond, const char *file)
{
	char path[256], text[64];
	uint64_t number = 0;
	FILE *f;

	snprintf(path, sizeof(path), DAX_DEVICES "/%s/%s", bond->device, file);
	f = fopen(path, "r");
	if (!f)
		return 0;
	/* Some are decimal, some hexadecimal. */
	if (fgets(text, sizeof(text), f))
		number = strtoull(text, NULL, 0);
	fclose(f);
	return number;
}

bool find_device_dax(struct bond *bond, size_t align)
{
	int i;

	snprintf(bond->driver, sizeof(bond->driver), DAX_DRIVER);
	for (i = 0; i < 8; i++) {
		snprintf(bond->device, sizeof(bond->device), "dax%d.0", i);
		if (bond_holds(bond) && device_dax_number(bond, "align") == align)
			return true;
	}
	return false;
}

static bool is_mounted(const char *disk)
{
	char line[512], word[80];
	bool found = false;
	FILE *f = fopen("/proc/mounts", "r");

	snprintf(word, sizeof(word), "/dev/%s ", disk);
	while (f && !found && fgets(line, sizeof(line), f))
		found = !strncmp(line, word, strlen(word));
	if (f)
		fclose(f);
	return found;
}

bool find_spare_pmem(struct bond *bond, char *disk, size_t size)
{
	char path[128];
	int i;

	snprintf(bond->driver, sizeof(bond->driver), PMEM_DRIVER);
	for (i = 0; i < 8; i++) {
		sprintf(disk, "pmem%d", i);
		snprintf(path, sizeof(path), "/sys/block/%s/size", disk);
		if (read_number(path) < (long)(size >> 9) || is_mounted(disk))
			continue;
		snprintf(bond->device, sizeof(bond->device), "namespace%d.0", i);
		if (bond_holds(bond))
			return true;
	}
	return false;
}

/* ---- Peer-to-peer memory ---- */

const char *p2p_path(const struct bond *bond, const char *file)
{
	static char path[256];

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/p2pmem/%s", bond->device, file);
	return path;
}

long p2p_available(const struct bond *bond)
{
	return read_number(p2p_path(bond, "available"));
}

bool find_p2p(struct bond *bond)
{
	DIR *dir = opendir(PCI_DEVICES);
	struct dirent *entry;
	bool found = false;

	snprintf(bond->driver, sizeof(bond->driver), "/sys/bus/pci/drivers/nvme");
	while (dir && !found && (entry = readdir(dir))) {
		snprintf(bond->device, sizeof(bond->device), "%.60s", entry->d_name);
		found = bond_holds(bond) && p2p_available(bond) > 0;
	}
	if (dir)
		closedir(dir);
	return found;
}

char *p2p_map(const struct bond *bond, size_t len)
{
	int fd = open(p2p_path(bond, "allocate"), O_RDWR | O_CLOEXEC);
	char *at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	close(fd);
	return at;
}

/* ---- Tasks ---- */

/* Descriptors that keep pages: a child with copies of them would keep them, too. */
static int keepers[64];
static size_t nr_keepers;

static void keep(int fd)
{
	if (nr_keepers == ARRAY_LEN(keepers))
		ksft_exit_fail_msg("too many pins\n");
	keepers[nr_keepers++] = fd;
}

static void keep_no_more(int fd)
{
	size_t i;

	close(fd);
	for (i = 0; i < nr_keepers; i++)
		if (keepers[i] == fd)
			keepers[i] = keepers[--nr_keepers];
}

pid_t start(bool (*work)(void *arg), void *arg)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	/* After a failed test nobody is left that sleeps for good. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (nr_keepers)
		keep_no_more(keepers[0]);
	_exit(!work(arg));
}

bool is_in(pid_t pid, const char *text)
{
	char path[64], stack[4096];
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stack", pid);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return false;
	len = read(fd, stack, sizeof(stack) - 1);
	close(fd);
	if (len < 0)
		return false;
	stack[len] = 0;
	return strstr(stack, text);
}

bool is_running(pid_t pid)
{
	siginfo_t info = { 0 };

	return !waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT) &&
	       !info.si_pid;
}

bool finished(pid_t pid)
{
	int status;

	if (!wait_until(!is_running(pid), SOON))
		return false;
	return waitpid(pid, &status, 0) == pid && !status;
}

/* ---- Pages ---- */

bool pin(struct pin *pin, const void *addr, size_t len)
{
	struct iovec iov = { (void *)addr, len };
	ssize_t done;
	int err;

	if (pipe2(pin->ends, O_CLOEXEC))
		return false;
	keep(pin->ends[0]);
	keep(pin->ends[1]);
	if (len > 16 * page_size)
		fcntl(pin->ends[1], F_SETPIPE_SZ, len);
	done = vmsplice(pin->ends[1], &iov, 1, SPLICE_F_NONBLOCK);
	if (done == (ssize_t)len)
		return true;
	/* A part is as good as nothing: behind it there was no page. */
	err = done < 0 ? errno : EFAULT;
	unpin(pin);
	errno = err;
	return false;
}

void unpin(struct pin *pin)
{
	keep_no_more(pin->ends[0]);
	keep_no_more(pin->ends[1]);
}

int pin_longterm(const void *addr, size_t len)
{
	struct pin_longterm_test args = {
		.addr = (uintptr_t)addr,
		.size = len,
		.flags = PIN_LONGTERM_TEST_FLAG_USE_WRITE,
	};
	int err, fd = open(GUP_TEST, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (!ioctl(fd, PIN_LONGTERM_TEST_START, &args)) {
		keep(fd);
		return fd;
	}
	err = errno;
	close(fd);
	return -err;
}

void unpin_longterm(int fd)
{
	keep_no_more(fd);
}

/* The type of an entry that is not present, below the frame */
#define ENTRY_TYPE_BITS	5

uint64_t frame_of(const void *addr)
{
	uint64_t entry = pagemap_entry(addr), frame = entry & ((1ULL << 55) - 1);

	if (entry & PM_PRESENT)
		return frame;
	return entry & PM_SWAPPED ? frame >> ENTRY_TYPE_BITS : 0;
}

bool tell_frame(const char *path, uint64_t pfn)
{
	char text[32];

	snprintf(text, sizeof(text), "%#lx\n", pfn * page_size);
	return write_text(path, text);
}

/* A program has one thread that looks for these at a time. */
static sigjmp_buf bus_jump;
static int bus_jumps, bus_came;		/* atomic: a handler is at them, too */
static siginfo_t bus_info;

static void bus_handler(int signal, siginfo_t *info, void *context)
{
	bus_info = *info;
	__atomic_store_n(&bus_came, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&bus_jumps, __ATOMIC_SEQ_CST))
		siglongjmp(bus_jump, 1);
}

void bus_errors_begin(void)
{
	struct sigaction action = {
		.sa_sigaction = bus_handler,
		.sa_flags = SA_SIGINFO,
	};

	__atomic_store_n(&bus_came, 0, __ATOMIC_SEQ_CST);
	memset(&bus_info, 0, sizeof(bus_info));
	sigaction(SIGBUS, &action, NULL);
}

bool bus_errors_seen(void)
{
	return __atomic_load_n(&bus_came, __ATOMIC_SEQ_CST);
}

bool bus_errors_end(siginfo_t *info)
{
	signal(SIGBUS, SIG_DFL);
	if (info)
		*info = bus_info;
	return __atomic_load_n(&bus_came, __ATOMIC_SEQ_CST);
}

bool bus_error(void *addr, bool write, siginfo_t *info)
{
	bus_errors_begin();
	__atomic_store_n(&bus_jumps, 1, __ATOMIC_SEQ_CST);
	if (!sigsetjmp(bus_jump, 1)) {
		if (write)
			store(addr, 1);
		else
			load(addr);
	}
	__atomic_store_n(&bus_jumps, 0, __ATOMIC_SEQ_CST);
	return bus_errors_end(info);
}

/* ---- Memory of the dummy device ---- */

/*
 * A page that somebody has in hand for a moment, such as the batch of a CPU on
 * which it came home, stays behind: it is asked for again.
 */
int move_in(int fd, const void *at, void *buf, size_t pages)
{
	int tries = 20, err;

	do {
		err = dev_request(fd, HMM_DMIRROR_MIGRATE_TO_DEV, at, buf, pages).err;
	} while (err == -ENOENT && --tries && !usleep(10000));
	return err;
}

int move_out(int fd, const void *at, size_t pages)
{
	return dev_request(fd, HMM_DMIRROR_MIGRATE_TO_SYS, at, NULL, pages).err;
}

int release(int fd)
{
	return dev_request(fd, HMM_DMIRROR_RELEASE, (void *)page_size, NULL, 1).err;
}

size_t pages_in(int fd, const void *at, size_t pages)
{
	unsigned char bytes[pages];
	size_t i, n = 0;

	memset(bytes, 0, pages);
	if (dev_snapshot(fd, at, bytes, pages).err)
		return -1;
	for (i = 0; i < pages; i++) {
		bytes[i] &= 0xf0;
		n += bytes[i] == HMM_DMIRROR_PROT_DEV_PRIVATE_LOCAL ||
		     bytes[i] == HMM_DMIRROR_PROT_DEV_COHERENT_LOCAL;
	}
	return n;
}

bool frames_of(int minor, uint64_t *first, uint64_t *last)
{
	char line[256], name[64], mine[32];
	unsigned long start, end;
	bool found = false;
	FILE *f = fopen("/proc/iomem", "r");

	sprintf(mine, "hmm_dmirror%d", minor);
	while (f && !found && fgets(line, sizeof(line), f))
		found = sscanf(line, " %lx-%lx : %63[^\n]", &start, &end, name) == 3 &&
			!strcmp(name, mine);
	if (f)
		fclose(f);
	if (!found)
		return false;
	*first = start / page_size;
	*last = end / page_size;
	return true;
}

/* ---- File systems ---- */

static bool shell(const char *command)
{
	return !system(command);
}

/*
 * Busybox makes ext2; a bit of the superblock's, that of extents, lets files have
 * 2 MiB in one piece.
 */
static bool make_ext4(const char *path)
{
	char command[128];
	unsigned char incompat;
	bool done = false;
	int fd;

	snprintf(command, sizeof(command), "mke2fs -b 4096 %s >/dev/null 2>&1", path);
	if (!shell(command))
		return false;
	fd = open(path, O_RDWR);
	if (fd < 0)
		return false;
	if (pread(fd, &incompat, 1, 1024 + 96) == 1) {
		incompat |= 0x40;
		done = pwrite(fd, &incompat, 1, 1024 + 96) == 1;
	}
	close(fd);
	return done;
}

/* With a map from blocks to files, by which it tells who uses bad memory */
static bool make_xfs(const char *path)
{
	char command[128];

	snprintf(command, sizeof(command),
		 "mkfs.xfs -q -f -K -m rmapbt=1,reflink=0 %s >/dev/null 2>&1", path);
	return shell(command);
}

bool fs_mount(enum fs fs, const char *disk)
{
	char path[64];

	snprintf(path, sizeof(path), "/dev/%s", disk);
	mkdir(FS_DIR, 0700);
	return !mount(path, FS_DIR, fs == XFS ? "xfs" : "ext4", 0, "dax=always");
}

const char *fs_make(enum fs fs, const char *disk)
{
	char path[64];

	snprintf(path, sizeof(path), "/dev/%s", disk);
	if (fs == XFS && access("/usr/sbin/mkfs.xfs", X_OK))
		return "no mkfs.xfs";
	if (!(fs == XFS ? make_xfs(path) : make_ext4(path)))
		return "no file system can be made";
	if (!fs_mount(fs, disk))
		return "no file system of this kind, or no DAX";
	return NULL;
}

bool fs_unmount(void)
{
	return !umount(FS_DIR);
}

/* ---- The machine ---- */

/* What caches and lists of the kernel's may come to keep, in KiB */
#define SLACK	(32 << 10)

char *text_of(const char *path)
{
	size_t len = 0, room = 256 << 10;
	char *text = malloc(room);
	int fd = open(path, O_RDONLY);
	ssize_t got;

	if (!text)
		ksft_exit_fail_msg("out of memory\n");
	while (fd >= 0 && (got = read(fd, text + len, room - 1 - len)) > 0)
		len += got;
	text[len] = 0;
	if (fd >= 0)
		close(fd);
	return text;
}

long in_lists(void)
{
	char *zones = text_of("/proc/zoneinfo"), *line;
	long count, sum = 0;

	for (line = zones; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (sscanf(line, " count: %ld", &count) == 1)
			sum += count;
	}
	free(zones);
	return sum * (page_size / 1024);
}

void world_take(struct world *world)
{
	char *types = text_of("/proc/pagetypeinfo");
	char *blocks = strstr(types, "Number of blocks");

	world->iomem = text_of("/proc/iomem");
	world->blocks = strdup(blocks ? blocks : "");
	world->total = read_keyed("/proc/meminfo", "MemTotal");
	free(types);
	/* Pages on their way back, and caches that hide others */
	sync();
	write_text("/proc/sys/vm/drop_caches", "3");
	world->available = read_keyed("/proc/meminfo", "MemAvailable") + in_lists();
}

/* The lines about device memory: of the others, blocks change types at any time. */
static bool same_blocks(const char *a, const char *b)
{
	a = strstr(a, "zone   Device");
	b = strstr(b, "zone   Device");
	return !a == !b && (!a || !strncmp(a, b, strcspn(a, "\n")));
}

bool kernel_has(const char *symbol)
{
	FILE *f = fopen("/proc/kallsyms", "r");
	char line[512], end[64];
	bool found = false;

	snprintf(end, sizeof(end), " %s\n", symbol);
	while (f && !found && fgets(line, sizeof(line), f))
		found = strstr(line, end);
	if (f)
		fclose(f);
	return found;
}

/* KASAN keeps freed objects, to find out who uses them yet. */
bool has_kasan(void)
{
	return kernel_has("kasan_quarantine_put");
}

/* How much memory may be missing; of all of it KASAN keeps a 32nd, once it is full. */
static bool is_missing(const struct world *before, const struct world *now)
{
	long kib = before->available - now->available;

	return kib > SLACK && !(kib <= SLACK + now->total / 32 && has_kasan());
}

static const char *world_compare(const struct world *before)
{
	static char why[128];
	struct world now;

	why[0] = 0;
	world_take(&now);
	if (strcmp(before->iomem, now.iomem))
		sprintf(why, "/proc/iomem is not what it was");
	else if (!same_blocks(before->blocks, now.blocks))
		sprintf(why, "/proc/pagetypeinfo has other device memory");
	else if (before->total != now.total)
		sprintf(why, "MemTotal was %ld kB, is %ld", before->total, now.total);
	else if (is_missing(before, &now))
		sprintf(why, "MemAvailable was %ld kB, is %ld", before->available,
			now.available);
	free(now.iomem);
	free(now.blocks);
	return why[0] ? why : NULL;
}

/* Some of it is given back by others, when they get to it. */
const char *world_changed(const struct world *before)
{
	int seconds = 10;
	const char *why;

	while ((why = world_compare(before)) && seconds--)
		sleep(1);
	return why;
}

int log_open(void)
{
	int log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (log >= 0)
		lseek(log, 0, SEEK_END);
	return log;
}

bool log_says(int log, const char *text, double limit)
{
	double end = seconds() + limit;
	char record[2048];
	ssize_t len;

	do {
		struct pollfd poll_log = { .fd = log, .events = POLLIN };

		len = read(log, record, sizeof(record) - 1);
		if (len >= 0) {
			record[len] = 0;
			if (strstr(record, text))
				return true;
		} else if (errno == EAGAIN) {
			poll(&poll_log, 1, 50);
		} else if (errno != EPIPE) {
			return false;
		}
	} while (len >= 0 || seconds() < end);
	return false;
}
