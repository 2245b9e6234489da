// SPDX-License-Identifier: GPL-2.0
/*
 * Processes that have too little memory, and processes that end, with a device
 * in the middle of them: what is swapped out comes back, who is killed is gone
 * with all that was theirs.
 *
 * Memory is made scarce by a cgroup, for one child at a time. A fault that lasts
 * as long as a test wants is one on a file system that is frozen: to make a page
 * of a file writable waits until it is thawed, and no signal ends the wait.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "hmm_dev.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT DEV_TIMEOUT

#define MIB		(1024UL * 1024)

/* Be for a moment where a CPU that is idle holds on to the last address space. */
static void visit_all_cpus(void)
{
	cpu_set_t all;
	int cpu;

	sched_getaffinity(0, sizeof(all), &all);
	for (cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &all))
			stay_on(cpu);
	sched_setaffinity(0, sizeof(all), &all);
}

/*
 * What CPUs keep for a while, though nobody uses it: the last address space, where
 * they are idle; new pages that are not on an LRU list yet, up to 31 on each CPU,
 * with a reference that keeps them charged long after their process; and charge
 * in hand, for the next page.
 *
 * Both an exit and a scan put on the lists only the pages of the CPU on which they
 * run, so a limit alone does not get at the others. Before its last try
 * memory.reclaim collects those of all CPUs. A page with one more reference stays
 * charged, whoever holds it. A new limit then takes the charge in hand back.
 */
static void collect_from_cpus(void)
{
	visit_all_cpus();
	write_number(group_path("memory.reclaim"),
		     read_number(group_path("memory.current")));
	write_number(group_path("memory.high"), 0);
}

/*
 * Has the group nothing any more, not even the top of a page table? What is left
 * of a page that was charged for small objects, when the last of them is gone,
 * stays with the group: a part of a page from each CPU. Where nothing at all is
 * charged the kinds, which CPUs count for themselves first, need not be asked: no
 * limit collects them then.
 */
static const char * const kinds[] = {
	"anon", "file", "shmem", "kernel_stack", "pagetables", "slab",
};

static bool group_is_empty(void)
{
	size_t i;

	collect_from_cpus();
	if (!read_number(group_path("memory.current")))
		return true;
	for (i = 0; i < ARRAY_LEN(kinds); i++)
		if (read_keyed(group_path("memory.stat"), kinds[i]))
			return false;
	return read_number(group_path("memory.current")) <=
	       sysconf(_SC_NPROCESSORS_ONLN) * (long)page_size;
}

static void group_say(struct __test_metadata *_metadata)
{
	size_t i;

	TH_LOG("%ld bytes left", read_number(group_path("memory.current")));
	for (i = 0; i < ARRAY_LEN(kinds); i++)
		TH_LOG("  %s: %ld", kinds[i],
		       read_keyed(group_path("memory.stat"), kinds[i]));
}

/* ---- A child in it ---- */

struct child {
	pid_t pid;
	int out;	/* what it tells, one word at a time */
	int fd;		/* the device, as it has opened it */
};

static void tell(int to, long word)
{
	if (write(to, &word, sizeof(word)) != sizeof(word))
		_exit(99);
}

/* The next word of a child; -1 if it tells no more. */
static long hear(const struct child *child)
{
	long word;

	return read(child->out, &word, sizeof(word)) == sizeof(word) ? word : -1;
}

static void send_fd(int to, int fd)
{
	char room[CMSG_SPACE(sizeof(int))] = { 0 }, byte = 0;
	struct iovec one = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &one, .msg_iovlen = 1,
		.msg_control = room, .msg_controllen = sizeof(room),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));
	if (sendmsg(to, &msg, 0) != 1)
		_exit(98);
}

static int receive_fd(int from)
{
	char room[CMSG_SPACE(sizeof(int))], byte;
	struct iovec one = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &one, .msg_iovlen = 1,
		.msg_control = room, .msg_controllen = sizeof(room),
	};
	struct cmsghdr *cmsg;
	int fd = -1;

	if (recvmsg(from, &msg, MSG_CMSG_CLOEXEC) != 1)
		return -1;
	cmsg = CMSG_FIRSTHDR(&msg);
	if (cmsg && cmsg->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(cmsg), sizeof(int));
	return fd;
}

/*
 * Fork into the group, or not; open the device, hand it to the parent, and run
 * @fn, which does not return.
 */
static bool child_start(struct child *child, bool group,
			void (*fn)(int fd, int out, void *arg), void *arg)
{
	int pair[2], fd;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		return false;
	child->pid = fork();
	if (!child->pid) {
		close(pair[0]);
		if (group && !write_number(group_path("cgroup.procs"), 0))
			_exit(97);
		fd = dev_open(0);
		send_fd(pair[1], fd);
		fn(fd, pair[1], arg);
		_exit(0);
	}
	close(pair[1]);
	child->out = pair[0];
	child->fd = receive_fd(child->out);
	return child->fd >= 0;
}

static int child_wait(const struct child *child)
{
	int status = -1;

	waitpid(child->pid, &status, 0);
	return status;
}

FIXTURE(pressure)
{
	struct child child;
};

FIXTURE_SETUP(pressure)
{
	self->child.fd = -1;
	self->child.out = -1;
}

FIXTURE_TEARDOWN(pressure)
{
	close(self->child.fd);
	close(self->child.out);
	rmdir(GROUP);
}

/* ---- Swapping ---- */

#define SWAP_LIMIT	(16 * MIB)
#define SWAP_BYTES	(48 * MIB)

/* Tell what went wrong: 0, an errno, or 1000 and more for wrong data. */
static long swap_pass(int fd, char *at, char *buf, bool write)
{
	size_t off, pages = MIB / page_size;
	long err;

	for (off = 0; off < SWAP_BYTES; off += MIB) {
		if (write)
			pattern_fill(buf, MIB, 1 + off / MIB);
		do {
			err = write ? dev_write(fd, at + off, buf, pages).err :
				      dev_read(fd, at + off, buf, pages).err;
		} while (err == -EBUSY);
		if (err)
			return err;
		if (!write && pattern_check(buf, MIB, 1 + off / MIB) != -1)
			return 1000 + off / MIB;
	}
	return 0;
}

static void swap_in_and_out(int fd, int out, void *arg)
{
	char *at = map_small(SWAP_BYTES), *buf = buffer(MIB);
	size_t off;

	tell(out, swap_pass(fd, at, buf, true));
	tell(out, pagemap_count(at, SWAP_BYTES / page_size, PM_SWAPPED));
	tell(out, swap_pass(fd, at, buf, false));
	/* And the CPU finds what the device wrote. */
	for (off = 0; off < SWAP_BYTES; off += MIB)
		if (pattern_check(at + off, MIB, 1 + off / MIB) != -1)
			break;
	tell(out, off);
	tell(out, pagemap_count(at, SWAP_BYTES / page_size, PM_SWAPPED));
}

/* Three times as much as there is room for goes through the device, twice. */
TEST_F(pressure, swaps_under_the_device)
{
	long least = (SWAP_BYTES - SWAP_LIMIT) / page_size;

	if (!have_swap())
		SKIP(return, "no swap");
	if (!group_make(SWAP_LIMIT))
		SKIP(return, "no memory cgroup at " CGROUPS);
	ASSERT_TRUE(child_start(&self->child, true, swap_in_and_out, NULL));
	EXPECT_EQ(0, hear(&self->child));
	EXPECT_LE(least, hear(&self->child));
	EXPECT_EQ(0, hear(&self->child));
	EXPECT_EQ(SWAP_BYTES, hear(&self->child));
	EXPECT_LE(least, hear(&self->child));
	EXPECT_EQ(0, child_wait(&self->child));
	/* It really was reclaim, at the limit, that took them. */
	EXPECT_LT(0, group_event("max"));
	EXPECT_EQ(0, group_event("oom_kill"));
	EXPECT_LE(least, read_keyed(group_path("memory.stat"), "pgmajfault"));
	close(self->child.fd);
	EXPECT_TRUE(wait_until(group_is_empty(), 20));
}

/* ---- Out of memory ---- */

#define OOM_LIMIT	(24 * MIB)
#define OOM_BYTES	(96 * MIB)

/* The device brings pages in until there is no room for more. */
static void oom_by_device(int fd, int out, void *arg)
{
	char *at = map_small(OOM_BYTES), *buf = buffer(MIB);
	size_t off;

	for (off = 0; off < OOM_BYTES; off += MIB)
		tell(out, dev_write(fd, at + off, buf, MIB / page_size).err);
}

/* The CPU does; all of it that is there is in the device's table, too. */
static void oom_by_cpu(int fd, int out, void *arg)
{
	char *at = map_small(OOM_BYTES), *buf = buffer(MIB);
	size_t off;

	for (off = 0; off < OOM_BYTES; off += MIB) {
		memset(at + off, 1, MIB);
		tell(out, dev_write(fd, at + off, buf, MIB / page_size).err);
	}
}

#define FEW		8	/* pages, fewer than a CPU keeps in hand */

/* The first pages are in the hands of a CPU that none of the process is on then. */
static void oom_elsewhere(int fd, int out, void *arg)
{
	char *at = map_small(FEW * page_size);
	cpu_set_t all;
	int cpu = 0;

	sched_getaffinity(0, sizeof(all), &all);
	while (!CPU_ISSET(cpu, &all))
		cpu++;
	stay_on(cpu);
	memset(at, 1, FEW * page_size);
	tell(out, dev_peek(fd, at) == load(at) ? 0 : -EIO);
	/* Where there is no other CPU it stays. */
	CPU_CLR(cpu, &all);
	sched_setaffinity(0, sizeof(all), &all);
	oom_by_cpu(fd, out, arg);
}

struct busy {
	int fd;
	char *at;
};

static void *busy_device(void *arg)
{
	struct busy *busy = arg;
	char *buf = buffer(MIB);

	for (;;)
		dev_write(busy->fd, busy->at, buf, MIB / page_size);
	return NULL;
}

/* Other threads are in requests while the CPU does. */
static void oom_while_busy(int fd, int out, void *arg)
{
	char *at = map_small(OOM_BYTES);
	struct busy busy = { fd, at };
	pthread_t threads[2];
	size_t i, off;

	for (i = 0; i < ARRAY_LEN(threads); i++)
		if (pthread_create(&threads[i], NULL, busy_device, &busy))
			_exit(95);
	for (off = 0; off < OOM_BYTES; off += MIB) {
		memset(at + off, 1, MIB);
		tell(out, 0);
	}
}

FIXTURE(oom)
{
	struct child child;
};

FIXTURE_VARIANT(oom)
{
	void (*fn)(int fd, int out, void *arg);
};

FIXTURE_VARIANT_ADD(oom, by_device) { oom_by_device };
FIXTURE_VARIANT_ADD(oom, by_cpu) { oom_by_cpu };
FIXTURE_VARIANT_ADD(oom, elsewhere) { oom_elsewhere };
FIXTURE_VARIANT_ADD(oom, while_busy) { oom_while_busy };

FIXTURE_SETUP(oom)
{
	self->child.fd = -1;
	self->child.out = -1;
	if (!group_make(OOM_LIMIT))
		SKIP(return, "no memory cgroup at " CGROUPS);
	write_number(group_path("memory.swap.max"), 0);
}

FIXTURE_TEARDOWN(oom)
{
	close(self->child.fd);
	close(self->child.out);
	rmdir(GROUP);
}

/*
 * Killed for want of memory, and all of it comes back: though the file of the
 * device is still open, here. What it shadowed is no more.
 */
TEST_F(oom, teardown_is_complete)
{
	char *buf = buffer(page_size);
	long word, steps = 0;
	int status, fd;

	ASSERT_TRUE(child_start(&self->child, true, variant->fn, NULL));
	while ((word = hear(&self->child)) != -1) {
		ASSERT_EQ(0, word);
		steps++;
	}
	status = child_wait(&self->child);
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	EXPECT_LT(0, steps);
	EXPECT_GT(OOM_BYTES / MIB, steps);
	EXPECT_EQ(1, group_event("oom_kill"));

	EXPECT_TRUE(wait_until(!group_anon(), 20));
	EXPECT_EQ(-ESRCH, dev_read(self->child.fd, buf, buf, 1).err);
	ASSERT_EQ(0, close(self->child.fd));
	self->child.fd = -1;
	EXPECT_TRUE(wait_until(group_is_empty(), 20))
		group_say(_metadata);
	EXPECT_EQ(0, rmdir(GROUP));

	fd = dev_open(0);
	ASSERT_LE(0, fd);
	EXPECT_EQ(0, dev_poke(fd, buf, 5));
	EXPECT_EQ(5, load(buf));
	close(fd);
}

/* ---- The end comes during a fault ---- */

FIXTURE(frozen)
{
	struct child child;
	struct mem mem;
	int dir;		/* of the file system; -1 unless frozen */
};

FIXTURE_SETUP(frozen)
{
	const char *dir = disk_dir(false);

	self->dir = -1;
	self->child.fd = -1;
	self->child.out = -1;
	if (!mem_map(&self->mem, DISK_SHARED, 4 * page_size))
		SKIP(return, "%s", self->mem.why);
	/* Blocks of its own, and clean: only the first write needs the disk. */
	memset(self->mem.addr, 1, self->mem.len);
	ASSERT_EQ(0, fsync(self->mem.fd));
	self->dir = open(dir, O_RDONLY | O_DIRECTORY);
	ASSERT_LE(0, self->dir);
	if (ioctl(self->dir, FIFREEZE, 0)) {
		close(self->dir);
		self->dir = -1;
		SKIP(return, "%s cannot be frozen: %s", dir, strerror(errno));
	}
}

FIXTURE_TEARDOWN(frozen)
{
	if (self->dir >= 0)
		ioctl(self->dir, FITHAW, 0);
	close(self->dir);
	mem_unmap(&self->mem);
	close(self->child.fd);
	close(self->child.out);
}

/* State of a process, as a letter; 0 if there is none. */
static char state_of(pid_t pid)
{
	char path[64], line[512] = "", *end;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "r");
	if (!f)
		return 0;
	if (!fgets(line, sizeof(line), f))
		line[0] = 0;
	fclose(f);
	end = strrchr(line, ')');
	return end ? end[2] : 0;
}

static void write_to_file(int fd, int out, void *arg)
{
	tell(out, 1);
	tell(out, dev_poke(fd, arg, 7));
}

/* Killed in the middle of a fault that the device has caused. */
TEST_F(frozen, killed_in_a_fault)
{
	char *buf = buffer(page_size);
	int status;

	ASSERT_TRUE(child_start(&self->child, false, write_to_file,
				self->mem.addr));
	ASSERT_EQ(1, hear(&self->child));
	/* It waits as nothing else does that the child could be doing. */
	ASSERT_TRUE(wait_until(state_of(self->child.pid) == 'D', 20));
	ASSERT_EQ(0, kill(self->child.pid, SIGKILL));
	EXPECT_EQ('D', state_of(self->child.pid));
	ASSERT_EQ(0, ioctl(self->dir, FITHAW, 0));

	status = child_wait(&self->child);
	EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	EXPECT_EQ(-1, hear(&self->child));
	EXPECT_EQ(-ESRCH, dev_read(self->child.fd, buf, buf, 1).err);
}

/* A grandchild drives the device; whose memory it is ends first. */
static void leave_request_behind(int fd, int out, void *arg)
{
	pid_t grandchild = fork();

	if (!grandchild) {
		tell(out, getpid());
		tell(out, dev_poke(fd, arg, 7));
		tell(out, dev_poke(fd, arg, 8));
		_exit(0);
	}
	pause();
}

/*
 * The process is killed, and reaped, while somebody else's request is in a fault
 * on its memory. The request is in the right until it ends, and is what ends the
 * address space then.
 */
TEST_F(frozen, outlived_by_a_fault)
{
	int status, fd;
	pid_t other;
	long err;

	ASSERT_TRUE(child_start(&self->child, false, leave_request_behind,
				self->mem.addr));
	other = hear(&self->child);
	ASSERT_LT(0, other);
	ASSERT_TRUE(wait_until(state_of(other) == 'D', 20));
	ASSERT_EQ(0, kill(self->child.pid, SIGKILL));
	status = child_wait(&self->child);
	EXPECT_TRUE(WIFSIGNALED(status));
	EXPECT_EQ('D', state_of(other));
	ASSERT_EQ(0, ioctl(self->dir, FITHAW, 0));

	err = hear(&self->child);
	EXPECT_EQ(0, err);
	EXPECT_EQ(-ESRCH, hear(&self->child));
	/* What it wrote has reached the file. */
	EXPECT_EQ(7, load(self->mem.addr));
	fd = dev_open(0);
	EXPECT_EQ(7, dev_peek(fd, self->mem.addr));
	close(fd);
}

TEST_HARNESS_MAIN
