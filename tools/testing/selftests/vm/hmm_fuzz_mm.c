// SPDX-License-Identifier: GPL-2.0
/*
 * What a thread of the fuzzer does to its arena without a device: accesses, mappings,
 * advice, children, userfaultfd.
 *
 * While threads run nobody maps memory at an address of the kernel's choice: it might
 * be a hole in somebody's arena.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hmm_fuzz.h"

#define RW	(PROT_READ | PROT_WRITE)
#define UFFD_PAGES	16

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ	22
#define MADV_POPULATE_WRITE	23
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP	4
#endif

static int failed(int ret)
{
	return ret ? -errno : 0;
}

/* ---- Accesses ---- */

void cpu_check(struct thread *t, struct span run)
{
	check_data(t, run, page_at(t, run.at), "the CPU");
}

void cpu_write(struct thread *t, struct span run)
{
	unsigned int epoch = epoch_now(t);
	uint32_t values[ARENA_PAGES];

	fill_buf(t, run.n, values);
	memcpy(page_at(t, run.at), t->buf, run.n * page_size);
	run_written(t, run, values, epoch);
}

static bool op_cpu_read(struct thread *t)
{
	struct span run;

	if (!pick(t, &run, ARENA_PAGES, MAPPED, PROT_READ, false))
		return false;
	note(t, run, 0);
	cpu_check(t, run);
	went(t, 0);
	return true;
}

static bool op_cpu_write(struct thread *t)
{
	struct span run;

	if (!pick(t, &run, 64, MAPPED, RW, false))
		return false;
	note(t, run, 0);
	cpu_write(t, run);
	went(t, 0);
	return true;
}

/* All that there is, by the CPU. */
static bool op_check_all(struct thread *t)
{
	struct span run = { 0, 1 };

	note(t, (struct span) { 0, ARENA_PAGES }, 0);
	for (run.at = 0; run.at < ARENA_PAGES; run.at++)
		if (t->page[run.at].prot & PROT_READ)
			cpu_check(t, run);
	went(t, 0);
	return true;
}

/* By the kernel, which gets the pages one by one. */
static bool op_kernel_access(struct thread *t)
{
	unsigned int epoch = epoch_now(t), good;
	struct span run = pick_any(t, 64);
	uint32_t values[64];
	struct iovec mine = { t->buf, run.n * page_size };
	struct iovec arena = { page_at(t, run.at), run.n * page_size };
	bool write = below(t, 2);
	ssize_t len;

	if (below(t, 8))
		pick(t, &run, 64, MAPPED, write ? RW : PROT_READ, false);
	arena.iov_base = page_at(t, run.at);
	mine.iov_len = run.n * page_size;
	arena.iov_len = mine.iov_len;
	good = first_without(t, run, write ? RW : PROT_READ);
	note(t, run, write);
	if (write) {
		fill_buf(t, run.n, values);
		len = process_vm_writev(getpid(), &mine, 1, &arena, 1, 0);
	} else {
		len = process_vm_readv(getpid(), &mine, 1, &arena, 1, 0);
	}
	if (len != (ssize_t)(good * page_size) && !(len < 0 && !good))
		finding(t, "the kernel accessed %zd bytes of %u pages, %u of them good",
			len, run.n, good);
	run.n = good;
	if (write)
		run_written(t, run, values, epoch);
	else
		check_data(t, run, t->buf, "the kernel");
	went(t, 0);
	return true;
}

/* ---- Mappings ---- */

static int some_prot(struct thread *t)
{
	static const int prots[] = { RW, RW, RW, RW, RW, PROT_READ, PROT_READ, PROT_NONE };

	return prots[below(t, ARRAY_LEN(prots))];
}

static void map_run(struct thread *t, struct span run, enum page_kind kind, int prot)
{
	unsigned int offset = 0;
	int flags = MAP_FIXED, fd = -1;
	char *at;

	if (kind == OBJECT)
		offset = below(t, OBJECT_PAGES - run.n + 1);
	else if (kind == FILED)
		offset = below(t, ARENA_PAGES - run.n + 1);
	flags |= KIND(kind) & PRIVATE ? MAP_PRIVATE : MAP_SHARED;
	if (kind == OBJECT)
		fd = t->object_fd;
	else if (kind == FILED)
		fd = t->process->file;
	else
		flags |= MAP_ANONYMOUS;
	if (!below(t, 4))
		flags |= MAP_POPULATE;
	at = mmap(page_at(t, run.at), run.n * page_size, prot, flags, fd,
		  offset * page_size);
	if (at == MAP_FAILED)
		finding(t, "mmap(): %s", strerror(errno));
	run_mapped(t, run, kind, prot, offset);
}

static bool op_mmap(struct thread *t)
{
	static const enum page_kind kinds[] = {
		ANON, ANON, ANON, ANON, SHARED, FILED, OBJECT,
	};
	enum page_kind kind = kinds[below(t, ARRAY_LEN(kinds))];
	struct span run = pick_any(t, kind == OBJECT ? OBJECT_PAGES : ARENA_PAGES);

	note(t, run, kind);
	map_run(t, run, kind, some_prot(t));
	went(t, 0);
	return true;
}

/* Where a huge page fits, and one word of it written. */
static bool op_huge(struct thread *t)
{
	size_t skip = pmd_size ? -(uintptr_t)t->arena % pmd_size : 0;
	struct span run = { skip / page_size, pmd_size / page_size };
	struct span touched = { run.at, 1 };

	if (!pmd_size || run.at + run.n > ARENA_PAGES)
		return false;
	note(t, run, 0);
	map_run(t, run, ANON, RW);
	madvise(page_at(t, run.at), pmd_size, MADV_HUGEPAGE);
	touched.at += below(t, run.n);
	cpu_write(t, touched);
	went(t, 0);
	return true;
}

static bool op_munmap(struct thread *t)
{
	struct span run = pick_any(t, 128);

	note(t, run, 0);
	if (munmap(page_at(t, run.at), run.n * page_size))
		finding(t, "munmap(): %s", strerror(errno));
	run_unmapped(t, run);
	went(t, 0);
	return true;
}

static bool op_mprotect(struct thread *t)
{
	int prot = some_prot(t);
	struct span run;
	unsigned int i;

	if (!pick(t, &run, ARENA_PAGES, MAPPED, 0, false))
		return false;
	note(t, run, prot);
	if (mprotect(page_at(t, run.at), run.n * page_size, prot))
		finding(t, "mprotect(): %s", strerror(errno));
	for (i = 0; i < run.n; i++)
		t->page[run.at + i].prot = prot;
	went(t, 0);
	return true;
}

/* A place of the same size that does not overlap; it is unmapped first. */
static bool make_room(struct thread *t, struct span from, unsigned int *to)
{
	*to = below(t, ARENA_PAGES);
	if (*to + from.n > ARENA_PAGES)
		*to = ARENA_PAGES - from.n;
	if (*to < from.at + from.n && from.at < *to + from.n)
		return false;
	if (munmap(page_at(t, *to), from.n * page_size))
		finding(t, "munmap(): %s", strerror(errno));
	run_unmapped(t, (struct span) { *to, from.n });
	return true;
}

static int move_run(struct thread *t, struct span run, unsigned int to, int flags)
{
	void *at = mremap(page_at(t, run.at), run.n * page_size, run.n * page_size,
			  MREMAP_MAYMOVE | MREMAP_FIXED | flags, page_at(t, to));

	return failed(at == MAP_FAILED);
}

static bool op_mremap_move(struct thread *t)
{
	struct span run;
	unsigned int to;
	int err;

	if (!pick(t, &run, 300, MAPPED, 0, true) || !make_room(t, run, &to))
		return false;
	note(t, run, to);
	err = move_run(t, run, to, 0);
	/* Pages that look alike to the model may be in several mappings. */
	WANT(t, err, 0, -EFAULT);
	if (!err)
		run_moved(t, run, to);
	went(t, err);
	return true;
}

static bool op_mremap_dontunmap(struct thread *t)
{
	struct page left[ARENA_PAGES];
	struct span run;
	unsigned int to;
	int err;

	if (!pick(t, &run, 300, PRIVATE | KIND(OBJECT), 0, true) ||
	    !make_room(t, run, &to))
		return false;
	note(t, run, to);
	err = move_run(t, run, to, MREMAP_DONTUNMAP);
	WANT(t, err, 0, -EFAULT, -EINVAL);
	if (!err) {
		memcpy(left, &t->page[run.at], run.n * sizeof(left[0]));
		run_moved(t, run, to);
		memcpy(&t->page[run.at], left, run.n * sizeof(left[0]));
		run_dropped(t, run);
	}
	went(t, err);
	return true;
}

static bool op_mremap_shrink(struct thread *t)
{
	struct span run;
	unsigned int keep;
	void *at;

	if (!pick(t, &run, 64, MAPPED, 0, true) || run.n < 2)
		return false;
	keep = 1 + below(t, run.n - 1);
	note(t, run, keep);
	at = mremap(page_at(t, run.at), run.n * page_size, keep * page_size, 0);
	if (at == MAP_FAILED)
		finding(t, "mremap() to less: %s", strerror(errno));
	run_unmapped(t, (struct span) { run.at + keep, run.n - keep });
	went(t, 0);
	return true;
}

/* The last page of an anonymous mapping, and holes after it. */
static bool op_mremap_grow(struct thread *t)
{
	unsigned int i, start = below(t, ARENA_PAGES), skip, more = 0;
	void *at;

	for (skip = 0; skip < ARENA_PAGES; skip++) {
		i = (start + skip) % ARENA_PAGES;
		if (i + 1 < ARENA_PAGES && t->page[i].kind == ANON &&
		    t->page[i + 1].kind == HOLE)
			break;
	}
	if (skip == ARENA_PAGES)
		return false;
	while (more < 32 && i + 1 + more < ARENA_PAGES &&
	       t->page[i + 1 + more].kind == HOLE)
		more++;
	more = 1 + below(t, more);
	note(t, (struct span) { i, 1 }, more);
	at = mremap(page_at(t, i), page_size, (1 + more) * page_size, 0);
	if (at == MAP_FAILED)
		finding(t, "mremap() to more: %s", strerror(errno));
	run_mapped(t, (struct span) { i + 1, more }, ANON, t->page[i].prot, 0);
	went(t, 0);
	return true;
}

/* ---- Advice ---- */

static bool op_dontneed(struct thread *t)
{
	struct span run;
	int err;

	if (!pick(t, &run, 300, MAPPED, 0, false))
		return false;
	note(t, run, 0);
	err = failed(madvise(page_at(t, run.at), run.n * page_size, MADV_DONTNEED));
	WANT(t, err, 0);
	run_dropped(t, run);
	went(t, err);
	return true;
}

static bool op_free(struct thread *t)
{
	struct span run;
	unsigned int i;
	int err;

	if (!pick(t, &run, 300, KIND(ANON), 0, false))
		return false;
	note(t, run, 0);
	err = failed(madvise(page_at(t, run.at), run.n * page_size, MADV_FREE));
	WANT(t, err, 0);
	for (i = run.at; i < run.at + run.n; i++) {
		cell_add(&t->page[i].own, 0);
		t->page[i].own.lazy = true;
		t->page[i].claim = 0;
	}
	went(t, err);
	return true;
}

/* None of these changes what a page holds, whatever it says. */
static bool op_advise(struct thread *t)
{
	static const int advice[] = {
		MADV_COLD, MADV_PAGEOUT, MADV_PAGEOUT, MADV_WILLNEED, MADV_HUGEPAGE,
		MADV_NOHUGEPAGE, MADV_COLLAPSE, MADV_COLLAPSE, MADV_MERGEABLE,
		MADV_UNMERGEABLE, MADV_POPULATE_READ, MADV_POPULATE_WRITE,
		MADV_NORMAL, MADV_SEQUENTIAL, MADV_RANDOM,
	};
	int what = advice[below(t, ARRAY_LEN(advice))];
	struct span run = pick_any(t, ARENA_PAGES);
	int err;

	if (what == MADV_COLLAPSE)
		run = (struct span) { 0, ARENA_PAGES };
	note(t, run, what);
	err = failed(madvise(page_at(t, run.at), run.n * page_size, what));
	/* EHWPOISON would be one of those that are not expected */
	WANT(t, err, 0, -EINVAL, -ENOMEM, -EAGAIN, -EBUSY, -EFAULT, -EBADF);
	went(t, err);
	return true;
}

static bool op_mlock(struct thread *t)
{
	int fd = any_device(t, NULL), err;
	struct span run;

	if (!pick(t, &run, 64, MAPPED, PROT_READ, false))
		return false;
	note(t, run, 0);
	err = failed(mlock(page_at(t, run.at), run.n * page_size));
	WANT(t, err, 0, -EAGAIN, -ENOMEM);
	device_take(t, fd, run);
	device_read(t, fd, run);
	munlock(page_at(t, run.at), run.n * page_size);
	went(t, err);
	return true;
}

/* ---- The object ---- */

static void object_zeroed(struct thread *t, unsigned int from, unsigned int to)
{
	for (; from < to; from++)
		cell_set(&t->object[from], 0);
}

static bool op_remove(struct thread *t)
{
	struct span run;
	unsigned int i;
	int err;

	if (!pick(t, &run, 64, KIND(SHARED) | KIND(OBJECT), RW, true))
		return false;
	note(t, run, 0);
	err = failed(madvise(page_at(t, run.at), run.n * page_size, MADV_REMOVE));
	WANT(t, err, 0);
	for (i = run.at; i < run.at + run.n; i++)
		cell_set(cell_of(t, i), 0);
	went(t, err);
	return true;
}

/* What is cut off the file is nowhere, and zeroes when the file is long again. */
static bool op_truncate(struct thread *t)
{
	unsigned int i, cut = below(t, OBJECT_PAGES);
	int fd = any_device(t, NULL);

	note(t, (struct span) { 0 }, cut);
	if (ftruncate(t->object_fd, cut * page_size))
		finding(t, "ftruncate(): %s", strerror(errno));
	for (i = 0; i < ARENA_PAGES; i++) {
		if (t->page[i].kind != OBJECT || !(t->page[i].prot & PROT_READ) ||
		    t->page[i].origin < cut)
			continue;
		WANT(t, dev_read(fd, page_at(t, i), t->buf, 1).err, -EFAULT, -EBUSY);
		break;
	}
	if (ftruncate(t->object_fd, OBJECT_PAGES * page_size))
		finding(t, "ftruncate(): %s", strerror(errno));
	object_zeroed(t, cut, OBJECT_PAGES);
	went(t, 0);
	return true;
}

/* ---- Soft-dirty bits ---- */

static bool op_clear_soft_dirty(struct thread *t)
{
	struct process *p = t->process;
	ssize_t len;

	if (p->clear_refs < 0 || pthread_mutex_trylock(&p->clearing))
		return false;
	note(t, (struct span) { 0 }, 0);
	__atomic_fetch_add(&p->epoch, 1, __ATOMIC_SEQ_CST);
	len = write(p->clear_refs, "4", 1);
	__atomic_fetch_add(&p->epoch, 1, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&p->clearing);
	went(t, len == 1 ? 0 : -errno);
	return true;
}

/* What has been written since they were cleared has its bit, wherever it has been. */
static bool op_check_soft_dirty(struct thread *t)
{
	uint64_t entries[ARENA_PAGES];
	unsigned int i, epoch = epoch_now(t);
	off_t at = (uintptr_t)t->arena / page_size * sizeof(entries[0]);

	if (t->process->clear_refs < 0 || epoch & 1)
		return false;
	note(t, (struct span) { 0, ARENA_PAGES }, epoch);
	if (pread(t->process->pagemap, entries, sizeof(entries), at) != sizeof(entries))
		finding(t, "pagemap cannot be read: %s", strerror(errno));
	if (epoch != epoch_now(t))
		return false;
	for (i = 0; i < ARENA_PAGES; i++)
		if (t->page[i].claim == epoch + 1 && !(entries[i] & PM_SOFT_DIRTY))
			finding(t, "page %u was written and is not soft-dirty: %016llx",
				i, (unsigned long long)entries[i]);
	went(t, 0);
	return true;
}

/* ---- Children ---- */

/* The copy is right, and the inherited file is still about the parent. */
static void child_work(struct thread *t)
{
	struct span run;
	int fd;

	if (pick(t, &run, 64, MAPPED, PROT_READ, false) &&
	    !dev_read(t->fd, page_at(t, run.at), t->buf, run.n).err)
		check_only(t, run, t->buf, "the parent's device");
	if (pick(t, &run, ARENA_PAGES, PRIVATE, PROT_READ, false))
		cpu_check(t, run);
	if (pick(t, &run, 64, PRIVATE, RW, false)) {
		cpu_write(t, run);
		cpu_check(t, run);
	}
	fd = dev_open(t->minor);
	if (fd < 0)
		finding(t, "device %d cannot be opened: %s", t->minor, strerror(errno));
	if (pick(t, &run, 64, PRIVATE, PROT_READ, false)) {
		device_read(t, fd, run);
		device_take(t, fd, run);
		device_exclusive(t, fd, run);
	}
	if (pick(t, &run, 64, PRIVATE, RW, false)) {
		device_write(t, fd, run);
		cpu_check(t, run);
	}
}

static int wait_for(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return status;
}

static bool op_fork(struct thread *t)
{
	int status;
	pid_t pid;

	note(t, (struct span) { 0 }, 0);
	pid = fork();
	if (pid < 0)
		finding(t, "fork(): %s", strerror(errno));
	if (!pid) {
		t->is_child = true;
		child_work(t);
		_exit(0);
	}
	status = wait_for(pid);
	if (status)
		finding(t, "a child ended with status %#x", status);
	went(t, 0);
	return true;
}

/* Requests on a mirror of the child's own, until it is killed. */
static void child_toil(struct thread *t)
{
	int fd = dev_open(t->minor);
	unsigned int i;

	/* What it wrote to files would be the parent's: it has none. */
	for (i = 0; i < ARENA_PAGES; i++)
		if (!(KIND(t->page[i].kind) & PRIVATE))
			munmap(page_at(t, i), page_size);
	for (i = 0; i < 2000; i++) {
		struct span run = pick_any(t, ARENA_PAGES);

		dev_request(fd, HMM_DMIRROR_READ + below(t, 7), page_at(t, run.at),
			    t->buf, run.n);
		__atomic_store_n(&t->log->child_ready, 1, __ATOMIC_SEQ_CST);
	}
}

static bool op_kill(struct thread *t)
{
	unsigned int spin = below(t, 200);
	int status;
	pid_t pid;

	note(t, (struct span) { 0 }, spin);
	__atomic_store_n(&t->log->child_ready, 0, __ATOMIC_SEQ_CST);
	pid = fork();
	if (pid < 0)
		finding(t, "fork(): %s", strerror(errno));
	if (!pid) {
		t->is_child = true;
		child_toil(t);
		_exit(0);
	}
	while (!__atomic_load_n(&t->log->child_ready, __ATOMIC_SEQ_CST))
		sched_yield();
	while (spin--)
		sched_yield();
	kill(pid, SIGKILL);
	status = wait_for(pid);
	if (status && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL))
		finding(t, "a killed child ended with status %#x", status);
	went(t, 0);
	return true;
}

static bool op_signal(struct thread *t)
{
	unsigned int i = below(t, t->process->nthreads);

	note(t, (struct span) { 0 }, i);
	pthread_kill(t->process->thread[i], SIGUSR1);
	went(t, 0);
	return true;
}

/* ---- userfaultfd ---- */

static int uffd_on(struct thread *t, struct span run, uint64_t mode)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { (uintptr_t)page_at(t, run.at), run.n * page_size },
		.mode = mode,
	};
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (uffd < 0)
		return -1;
	if (mode == UFFDIO_REGISTER_MODE_WP)
		api.features = UFFD_FEATURE_PAGEFAULT_FLAG_WP;
	if (!ioctl(uffd, UFFDIO_API, &api) && !ioctl(uffd, UFFDIO_REGISTER, &reg))
		return uffd;
	close(uffd);
	return -1;
}

/* Whatever the pages were: nobody supplies them, then somebody does. */
static bool op_uffd_missing(struct thread *t)
{
	uint32_t values[UFFD_PAGES];
	struct span run, one;
	int uffd, err, fd = any_device(t, NULL);

	if (!pick(t, &run, UFFD_PAGES, KIND(ANON), RW, true))
		return false;
	madvise(page_at(t, run.at), run.n * page_size, MADV_DONTNEED);
	run_dropped(t, run);
	uffd = uffd_on(t, run, UFFDIO_REGISTER_MODE_MISSING);
	if (uffd < 0)
		return false;
	note(t, run, 0);
	one = (struct span) { run.at + below(t, run.n), 1 };
	err = dev_read(fd, page_at(t, one.at), t->buf, 1).err;
	/* Unless a huge page has been made of it and its neighbours meanwhile */
	WANT(t, err, 0, -EFAULT, -EBUSY);
	if (!err)
		check_data(t, one, t->buf, "the device, of nothing,");
	fill_buf(t, run.n, values);
	for (one.at = run.at; one.at < run.at + run.n; one.at++) {
		struct uffdio_copy copy = {
			.dst = (uintptr_t)page_at(t, one.at), .len = page_size,
			.src = (uintptr_t)t->buf + (one.at - run.at) * page_size,
		};

		if (!ioctl(uffd, UFFDIO_COPY, &copy))
			cell_set(&t->page[one.at].own, values[one.at - run.at]);
		else if (errno != EEXIST && errno != EAGAIN)
			finding(t, "UFFDIO_COPY: %s", strerror(errno));
	}
	device_read(t, fd, run);
	close(uffd);
	went(t, err == -EFAULT ? 0 : -EBUSY);
	return true;
}

static int uffd_protect(struct thread *t, int uffd, struct span run, bool on)
{
	struct uffdio_writeprotect wp = {
		.range = { (uintptr_t)page_at(t, run.at), run.n * page_size },
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	return failed(ioctl(uffd, UFFDIO_WRITEPROTECT, &wp));
}

/* Nobody may write, wherever the pages are, until it is said otherwise. */
static void refused_writes(struct thread *t, int uffd, struct span run)
{
	int minor, fd = any_device(t, &minor);
	unsigned int i, round;

	for (round = 0; round < 3; round++) {
		i = run.at + below(t, run.n);
		WANT(t, dev_write(fd, page_at(t, i), t->buf, 1).err, -EFAULT, -EBUSY);
		device_read(t, fd, run);
		if (!device_snapshot(t, fd, minor, run))
			for (i = 0; i < run.n; i++)
				if (t->bytes[i] != HMM_DMIRROR_PROT_ERROR &&
				    t->bytes[i] & HMM_DMIRROR_PROT_WRITE)
					finding(t, "page %u is write-protected: %#x",
						run.at + i, t->bytes[i]);
		if (!round)
			device_take(t, fd, run);
		else
			device_give_back(t, fd, run);
	}
}

static bool op_uffd_wp(struct thread *t)
{
	int uffd, err, fd = any_device(t, NULL);
	struct span run;

	if (!pick(t, &run, UFFD_PAGES, KIND(ANON), RW, true))
		return false;
	cpu_write(t, run);
	uffd = uffd_on(t, run, UFFDIO_REGISTER_MODE_WP);
	if (uffd < 0)
		return false;
	note(t, run, 0);
	err = uffd_protect(t, uffd, run, true);
	WANT(t, err, 0, -EAGAIN);
	if (!err) {
		refused_writes(t, uffd, run);
		err = uffd_protect(t, uffd, run, false);
		WANT(t, err, 0, -EAGAIN);
		if (!err)
			device_write(t, fd, run);
	}
	close(uffd);
	went(t, err);
	return true;
}

const struct op mm_ops[] = {
	{ "cpu_read", op_cpu_read, 12 },
	{ "cpu_write", op_cpu_write, 14 },
	{ "check_all", op_check_all, 2 },
	{ "kernel_access", op_kernel_access, 5 },
	{ "mmap", op_mmap, 5 },
	{ "huge", op_huge, 1, true },
	{ "munmap", op_munmap, 3 },
	{ "mprotect", op_mprotect, 6 },
	{ "mremap_move", op_mremap_move, 4 },
	{ "mremap_dontunmap", op_mremap_dontunmap, 2 },
	{ "mremap_shrink", op_mremap_shrink, 2 },
	{ "mremap_grow", op_mremap_grow, 2 },
	{ "dontneed", op_dontneed, 3 },
	{ "free", op_free, 3 },
	{ "advise", op_advise, 8 },
	{ "mlock", op_mlock, 1 },
	{ "remove", op_remove, 1 },
	{ "truncate", op_truncate, 1 },
	{ "clear_soft_dirty", op_clear_soft_dirty, 2, true },
	{ "check_soft_dirty", op_check_soft_dirty, 3, true },
	{ "fork", op_fork, 2 },
	{ "kill", op_kill, 1 },
	{ "signal", op_signal, 3 },
	{ "uffd_missing", op_uffd_missing, 1, true },
	{ "uffd_wp", op_uffd_wp, 1, true },
};

const size_t nr_mm_ops = ARRAY_LEN(mm_ops);
