// SPDX-License-Identifier: GPL-2.0
/*
 * The sample driver, samples/hmm/: it inverts memory, through a page table of its
 * own, and has to see each change of the process's mappings.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
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

/* More than the device has slots for. */
#define PAGES	100

FIXTURE(sample)
{
	int fd;
	size_t len;
	unsigned char *at;
};

FIXTURE_SETUP(sample)
{
	self->len = PAGES * page_size;
	self->at = buffer(self->len);
	self->fd = open("/dev/hmm_sample", O_RDWR | O_CLOEXEC);
	if (self->fd < 0)
		SKIP(return, "no /dev/hmm_sample: CONFIG_SAMPLE_HMM");
}

FIXTURE_TEARDOWN(sample)
{
	close(self->fd);
}

/* 0 or -errno. */
static int invert(int fd, void *at, size_t len)
{
	unsigned long words[2] = { (unsigned long)at, len };

	return write(fd, words, sizeof(words)) == sizeof(words) ? 0 : -errno;
}

/* Offset of the first byte that is not @byte, or -1. */
static long bytes_check(const unsigned char *at, size_t len, unsigned char byte)
{
	size_t i;

	for (i = 0; i < len; i++)
		if (at[i] != byte)
			return i;
	return -1;
}

TEST_F(sample, inverts)
{
	size_t from = 3 * page_size / 2, len = self->len - 2 * page_size;

	memset(self->at, 0x5a, self->len);
	EXPECT_EQ(0, invert(self->fd, self->at + from, len));
	EXPECT_EQ(-1, bytes_check(self->at, from, 0x5a));
	EXPECT_EQ(-1, bytes_check(self->at + from, len, 0xa5));
	EXPECT_EQ(-1, bytes_check(self->at + from + len, page_size / 2, 0x5a));
	EXPECT_EQ(0, invert(self->fd, self->at + from, len));
	EXPECT_EQ(-1, bytes_check(self->at, self->len, 0x5a));
}

TEST_F(sample, refuses)
{
	unsigned long words[2] = { (unsigned long)self->at, -1UL };
	void *nowhere = mmap(NULL, sizeof(words), PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	EXPECT_EQ(-1, write(self->fd, words, sizeof(words)));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, write(self->fd, words, sizeof(words) - 1));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, write(self->fd, nowhere, sizeof(words)));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(0, invert(self->fd, self->at, 0));
}

/* Entries go when the mapping does, and come back with the new one. */
TEST_F(sample, follows_mappings)
{
	memset(self->at, 1, self->len);
	ASSERT_EQ(0, invert(self->fd, self->at, page_size));
	ASSERT_EQ(0, munmap(self->at, page_size));
	EXPECT_EQ(-EFAULT, invert(self->fd, self->at, page_size));
	ASSERT_EQ(self->at, mmap(self->at, page_size, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	EXPECT_EQ(0, invert(self->fd, self->at, page_size));
	EXPECT_EQ(-1, bytes_check(self->at, page_size, 0xff));
	EXPECT_EQ(-1, bytes_check(self->at + page_size, page_size, 1));
}

TEST_F(sample, follows_protection)
{
	memset(self->at, 1, self->len);
	ASSERT_EQ(0, invert(self->fd, self->at, page_size));
	ASSERT_EQ(0, mprotect(self->at, page_size, PROT_READ));
	EXPECT_EQ(-EPERM, invert(self->fd, self->at, page_size));
	EXPECT_EQ(-1, bytes_check(self->at, page_size, 0xfe));
	ASSERT_EQ(0, mprotect(self->at, page_size, PROT_READ | PROT_WRITE));
	EXPECT_EQ(0, invert(self->fd, self->at, page_size));
	EXPECT_EQ(-1, bytes_check(self->at, page_size, 1));
}

/* A child has its own pages, whatever the device writes into the parent. */
TEST_F(sample, spares_a_child)
{
	int status, go[2];
	pid_t child;
	char c;

	memset(self->at, 1, self->len);
	ASSERT_EQ(0, invert(self->fd, self->at, page_size));
	ASSERT_EQ(0, pipe(go));
	child = fork();
	if (!child) {
		if (read(go[0], &c, 1) != 1)
			_exit(2);
		_exit(bytes_check(self->at, page_size, 0xfe) != -1);
	}
	ASSERT_EQ(0, invert(self->fd, self->at, page_size));
	ASSERT_EQ(1, write(go[1], "", 1));
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_EQ(-1, bytes_check(self->at, page_size, 1));
}

/* The mirror is the opener's; who inherits the file has nothing to do with it. */
TEST_F(sample, ends_with_its_process)
{
	int pair[2], report[2], err = 1;
	pid_t opener;

	ASSERT_EQ(0, pipe(pair));
	ASSERT_EQ(0, pipe(report));
	opener = fork();
	if (!opener) {
		int fd = open("/dev/hmm_sample", O_RDWR);
		char c;

		if (invert(fd, self->at, page_size))
			_exit(1);
		if (fork())
			_exit(0);
		/* Until the opener is reaped, and its memory with it. */
		close(pair[1]);
		if (read(pair[0], &c, 1) < 0)
			_exit(1);
		err = invert(fd, self->at, page_size);
		if (write(report[1], &err, sizeof(err)) < 0)
			_exit(1);
		_exit(0);
	}
	ASSERT_EQ(opener, waitpid(opener, NULL, 0));
	close(pair[1]);
	ASSERT_EQ(sizeof(err), read(report[0], &err, sizeof(err)));
	EXPECT_EQ(-ESRCH, err);
}

/* A userfaultfd for the missing pages of one, or -1. */
static int serve_missing(void *at)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { .start = (unsigned long)at, .len = page_size },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int fd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) ||
	    ioctl(fd, UFFDIO_REGISTER, &reg))
		return -1;
	return fd;
}

struct in_fault {
	int go[2];		/* to who uses the device */
	int report[2];		/* from both */
};

/* Has memory of its parent inverted, as a worker of a driver would do it. */
static void invert_for_parent(struct in_fault *f, int fd, void *at)
{
	int err;
	char c;

	close(f->go[1]);
	if (read(f->go[0], &c, 1) != 1)
		_exit(1);
	err = invert(fd, at, page_size);
	if (write(f->report[1], &err, sizeof(err)) != sizeof(err))
		_exit(1);
	_exit(0);
}

/* Opens the device, and leaves it inside a fault that is not served. */
static void sit_in_fault(struct in_fault *f)
{
	char *at = mmap(NULL, page_size, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct pollfd missing = { .events = POLLIN };
	int fd = open("/dev/hmm_sample", O_RDWR), begun = 1;

	/* Before there is a userfaultfd: nobody else shall keep it open. */
	if (!fork())
		invert_for_parent(f, fd, at);
	missing.fd = serve_missing(at);
	if (missing.fd < 0)
		begun = -ENXIO;
	else if (write(f->go[1], "", 1) != 1 || poll(&missing, 1, -1) != 1)
		begun = -EIO;
	if (write(f->report[1], &begun, sizeof(begun)) != sizeof(begun))
		_exit(1);
	pause();
}

/*
 * The process is killed while the device faults for it. Its death does not wait
 * for the fault, the fault ends by it, and so does the address space.
 */
TEST_F(sample, killed_in_a_fault)
{
	struct pollfd report = { .events = POLLIN };
	struct in_fault f;
	int err, status;
	pid_t child;

	ASSERT_EQ(0, pipe(f.go));
	ASSERT_EQ(0, pipe(f.report));
	report.fd = f.report[0];
	child = fork();
	if (!child)
		sit_in_fault(&f);
	ASSERT_EQ(sizeof(err), read(f.report[0], &err, sizeof(err)));
	ASSERT_EQ(0, kill(child, SIGKILL));
	ASSERT_EQ(child, waitpid(child, &status, 0));
	if (err == -ENXIO)
		SKIP(return, "no userfaultfd");
	ASSERT_EQ(1, err);
	EXPECT_TRUE(WIFSIGNALED(status));
	ASSERT_EQ(1, poll(&report, 1, DEV_TIMEOUT * 1000 / 4));
	ASSERT_EQ(sizeof(err), read(f.report[0], &err, sizeof(err)));
	EXPECT_TRUE(!err || err == -ESRCH || err == -EFAULT);
}

TEST_HARNESS_MAIN
