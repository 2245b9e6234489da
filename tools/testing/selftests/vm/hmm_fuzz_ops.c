// SPDX-License-Identifier: GPL-2.0
/*
 * What a thread of the fuzzer asks devices for, right and wrong.
 *
 * Which errors a request may bring follows from the model. -EBUSY is among them
 * wherever collisions or somebody's pins may go on for longer than the device has
 * patience; that this stays rare is seen from the count of those that succeeded.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hmm_fuzz.h"

int any_device(struct thread *t, int *minor)
{
	unsigned int i = below(t, MINORS + 2);
	int some;

	if (i < MINORS && t->process->fd[i] >= 0) {
		some = i;
		i = t->process->fd[i];
	} else {
		some = t->minor;
		i = t->fd;
	}
	if (minor)
		*minor = some;
	return i;
}

static bool op_reopen(struct thread *t)
{
	int minor = below(t, MINORS);

	if (t->process->fd[minor] < 0)
		minor = 0;
	note(t, (struct span) { 0 }, minor);
	if (t->fd >= 0)
		close(t->fd);
	t->minor = minor;
	t->fd = dev_open(minor);
	if (t->fd < 0)
		finding(t, "device %d cannot be opened: %s", minor, strerror(errno));
	went(t, 0);
	return true;
}

/* ---- Requests, and what the model says of them ---- */

/* What pages of a run are in the way of a request that wants @prot of them. */
struct obstacles {
	bool unmapped;
	bool unreadable;
	bool unwritable;
};

static struct obstacles obstacles(struct thread *t, struct span run, int prot)
{
	struct obstacles in_way = { 0 };
	unsigned int i;

	for (i = run.at; i < run.at + run.n; i++) {
		const struct page *page = &t->page[i];

		if (page->kind == HOLE)
			in_way.unmapped = true;
		else if (!(page->prot & PROT_READ))
			in_way.unreadable = true;
		else if (prot & ~page->prot)
			in_way.unwritable = true;
	}
	return in_way;
}

static struct reply request(struct thread *t, int fd, unsigned long what,
			    struct span run)
{
	struct reply reply;

	reply = dev_request(fd, what, page_at(t, run.at), t->buf, run.n);
	if (!reply.err && reply.pages > run.n)
		finding(t, "%lu pages done of %u", reply.pages, run.n);
	return reply;
}

/* An access that is in order ends well, or is too busy; others are refused. */
static void judge_access(struct thread *t, int err, struct span run, int prot)
{
	struct obstacles in_way = obstacles(t, run, prot);

	/* Of memory that is neither readable nor writable, either may be said. */
	if (prot & PROT_WRITE && in_way.unreadable)
		in_way.unwritable = true;
	if (!in_way.unmapped && !in_way.unreadable && !in_way.unwritable)
		WANT(t, err, 0, -EBUSY);
	else if (!in_way.unwritable)
		WANT(t, err, -EFAULT, -EBUSY);
	else if (!in_way.unmapped && !in_way.unreadable)
		WANT(t, err, -EPERM, -EBUSY);
	else
		WANT(t, err, -EPERM, -EFAULT, -EBUSY);
}

int device_read(struct thread *t, int fd, struct span run)
{
	struct reply reply = request(t, fd, HMM_DMIRROR_READ, run);

	judge_access(t, reply.err, run, PROT_READ);
	if (reply.err)
		return reply.err;
	if (reply.pages != run.n)
		finding(t, "read %lu pages of %u", reply.pages, run.n);
	check_data(t, run, t->buf, "the device");
	return 0;
}

/* Has the device memory that CPUs can reach? */
static bool is_coherent(struct thread *t, int fd)
{
	int minor;

	for (minor = 2; minor < MINORS; minor++)
		if (fd == t->process->fd[minor])
			return true;
	return fd == t->fd && t->minor >= 2;
}

/*
 * Soft-dirty bits are for those who write by way of page tables of the CPU: that a
 * device has written to private memory of its own nothing tells. It makes no claims.
 */
static unsigned int device_epoch(struct thread *t, int fd)
{
	return is_coherent(t, fd) ? epoch_now(t) : 1;
}

int device_write(struct thread *t, int fd, struct span run)
{
	unsigned int epoch = device_epoch(t, fd);
	uint32_t values[ARENA_PAGES];
	int err;

	fill_buf(t, run.n, values);
	err = request(t, fd, HMM_DMIRROR_WRITE, run).err;
	judge_access(t, err, run, PROT_READ | PROT_WRITE);
	if (!err) {
		run_written(t, run, values, epoch);
		return 0;
	}
	/* What comes before the first page that cannot be written may have been. */
	run.n = first_without(t, run, PROT_READ | PROT_WRITE);
	run_maybe_written(t, run, values);
	return err;
}

/* Has a snapshot byte what page @i can have? */
static bool byte_is_sane(struct thread *t, unsigned int i, unsigned char byte,
			 int minor)
{
	const struct page *page = &t->page[i];
	unsigned int access = byte & (HMM_DMIRROR_PROT_READ | HMM_DMIRROR_PROT_WRITE);
	unsigned int origin = byte & 0xf0;

	if (page->kind == HOLE || !(page->prot & PROT_READ))
		return byte == HMM_DMIRROR_PROT_ERROR;
	if (byte == HMM_DMIRROR_PROT_NONE)
		return true;
	if (byte == HMM_DMIRROR_PROT_ERROR || !access || access == 3)
		return false;
	if (access == HMM_DMIRROR_PROT_WRITE && !(page->prot & PROT_WRITE))
		return false;
	switch (origin) {
	case 0:
		return true;
	case HMM_DMIRROR_PROT_ZERO:
		return access == HMM_DMIRROR_PROT_READ &&
			KIND(page->kind) & PRIVATE && cell_allows(&page->own, 0);
	case HMM_DMIRROR_PROT_DEV_PRIVATE_LOCAL:
		return minor < 2 && KIND(page->kind) & PRIVATE;
	case HMM_DMIRROR_PROT_DEV_COHERENT_LOCAL:
		return minor >= 2 && KIND(page->kind) & PRIVATE;
	case HMM_DMIRROR_PROT_DEV_COHERENT_REMOTE:
		return KIND(page->kind) & PRIVATE;
	}
	/* Another device's private memory cannot be had: there is nothing. */
	return false;
}

int device_snapshot(struct thread *t, int fd, int minor, struct span run)
{
	struct reply reply;
	unsigned int i;

	memset(t->bytes, 0xee, run.n);
	reply = dev_snapshot(fd, page_at(t, run.at), t->bytes, run.n);
	WANT(t, reply.err, 0, -EBUSY);
	if (reply.err)
		return reply.err;
	for (i = 0; i < run.n; i++)
		if (!byte_is_sane(t, run.at + i, t->bytes[i], minor))
			finding(t, "snapshot of page %u by device %d: %#x; kind %d, prot %d",
				run.at + i, minor, t->bytes[i],
				t->page[run.at + i].kind, t->page[run.at + i].prot);
	return 0;
}

/* fork() drops the soft-dirty bits of what is in private memory, and says so. */
static void no_claims(struct thread *t, struct span run)
{
	unsigned int i;

	for (i = run.at; i < run.at + run.n; i++)
		t->page[i].claim = 0;
}

/* To the device. A page may stay behind: pinned, of a file, in motion. */
int device_take(struct thread *t, int fd, struct span run)
{
	struct reply reply = request(t, fd, HMM_DMIRROR_MIGRATE_TO_DEV, run);
	struct obstacles in_way = obstacles(t, run, PROT_READ);

	if (!is_coherent(t, fd))
		no_claims(t, run);

	if (in_way.unmapped || in_way.unreadable)
		WANT(t, reply.err, -EINVAL);
	else
		WANT(t, reply.err, 0, -ENOENT, -EBUSY);
	if (!reply.err)
		check_data(t, run, t->buf, "the device, of its own memory,");
	return reply.err;
}

int device_give_back(struct thread *t, int fd, struct span run)
{
	int err = request(t, fd, HMM_DMIRROR_MIGRATE_TO_SYS, run).err;
	struct obstacles in_way = obstacles(t, run, PROT_READ);

	if (in_way.unmapped || in_way.unreadable)
		WANT(t, err, -EINVAL);
	else
		WANT(t, err, 0);
	return err;
}

int device_exclusive(struct thread *t, int fd, struct span run)
{
	struct reply reply = request(t, fd, HMM_DMIRROR_EXCLUSIVE, run);

	judge_access(t, reply.err, run, PROT_READ | PROT_WRITE);
	if (!reply.err)
		check_data(t, run, t->buf, "the device, alone,");
	return reply.err;
}

/* ---- On a run by chance ---- */

/* Mostly one that can be had, sometimes whatever is there. */
static bool run_for(struct thread *t, struct span *run, unsigned int kinds, int prot)
{
	if (below(t, 8) && pick(t, run, ARENA_PAGES, kinds, prot, false))
		return true;
	*run = pick_any(t, ARENA_PAGES);
	return true;
}

static bool op_read(struct thread *t)
{
	int minor, fd = any_device(t, &minor);
	struct span run;

	run_for(t, &run, MAPPED, PROT_READ);
	note(t, run, minor);
	went(t, device_read(t, fd, run));
	return true;
}

static bool op_write(struct thread *t)
{
	int minor, fd = any_device(t, &minor);
	struct span run;

	run_for(t, &run, MAPPED, PROT_READ | PROT_WRITE);
	note(t, run, minor);
	went(t, device_write(t, fd, run));
	return true;
}

static bool op_snapshot(struct thread *t)
{
	int minor, fd = any_device(t, &minor);
	struct span run = pick_any(t, ARENA_PAGES);

	note(t, run, minor);
	went(t, device_snapshot(t, fd, minor, run));
	return true;
}

static bool op_take(struct thread *t)
{
	int minor, fd = any_device(t, &minor);
	struct span run;

	run_for(t, &run, below(t, 8) ? PRIVATE : MAPPED, PROT_READ);
	note(t, run, minor);
	went(t, device_take(t, fd, run));
	return true;
}

static bool op_give_back(struct thread *t)
{
	int minor, fd = any_device(t, &minor);
	struct span run;

	run_for(t, &run, MAPPED, PROT_READ);
	note(t, run, minor);
	went(t, device_give_back(t, fd, run));
	return true;
}

static bool op_exclusive(struct thread *t)
{
	int minor, fd = any_device(t, &minor);
	struct span run;

	run_for(t, &run, below(t, 8) ? PRIVATE : MAPPED, PROT_READ | PROT_WRITE);
	note(t, run, minor);
	went(t, device_exclusive(t, fd, run));
	return true;
}

static bool op_check_exclusive(struct thread *t)
{
	int minor, err, fd = any_device(t, &minor);
	struct span run = pick_any(t, ARENA_PAGES);

	note(t, run, minor);
	err = request(t, fd, HMM_DMIRROR_CHECK_EXCLUSIVE, run).err;
	WANT(t, err, 0, -EPERM);
	went(t, err);
	return true;
}

/* All of the device's memory is emptied, under everybody. */
static bool op_release(struct thread *t)
{
	int minor, err, fd = any_device(t, &minor);
	struct span run = { 0, 1 };

	note(t, run, minor);
	err = request(t, fd, HMM_DMIRROR_RELEASE, run).err;
	WANT(t, err, 0, -EBUSY);
	went(t, err);
	return true;
}

/* There and back, and what has been written there is here. */
static bool op_round_trip(struct thread *t)
{
	int minor, err, fd = any_device(t, &minor);
	struct span run;

	if (!pick(t, &run, 32, KIND(ANON), PROT_READ | PROT_WRITE, false))
		return false;
	note(t, run, minor);
	err = device_take(t, fd, run);
	if (!err)
		err = device_write(t, fd, run);
	if (!err && below(t, 2))
		err = device_give_back(t, fd, run);
	cpu_check(t, run);
	went(t, err);
	return true;
}

/* ---- Hostile ones ---- */

static const unsigned long requests[] = {
	HMM_DMIRROR_READ, HMM_DMIRROR_WRITE, HMM_DMIRROR_SNAPSHOT,
	/* From here on the buffer is looked at last, or never. */
	HMM_DMIRROR_MIGRATE_TO_DEV, HMM_DMIRROR_MIGRATE_TO_SYS,
	HMM_DMIRROR_EXCLUSIVE, HMM_DMIRROR_CHECK_EXCLUSIVE, HMM_DMIRROR_RELEASE,
};

/* Runs of pages that are wrong whatever is mapped. */
static void bad_run(struct thread *t, int fd)
{
	unsigned long what = requests[below(t, ARRAY_LEN(requests))];
	uintptr_t at = (uintptr_t)page_at(t, below(t, ARENA_PAGES));
	const struct {
		uint64_t addr, pages;
	} bad[] = {
		{ at, 0 }, { at + 1 + below(t, page_size - 1), 1 },
		{ at, UINT64_MAX }, { at, UINT64_MAX / page_size },
		{ at, UINT64_MAX / page_size + 1 }, { at, 1ULL << 63 },
		{ -page_size, 1 }, { -page_size, 2 }, { UINT64_MAX, 1 },
	};
	unsigned int i = below(t, ARRAY_LEN(bad));
	int err;

	err = dev_request(fd, what, (void *)bad[i].addr, t->buf, bad[i].pages).err;
	WANT(t, err, -EINVAL);
}

/* A good run, and nowhere to put the data, or nothing to take it from. */
static void bad_buffer(struct thread *t, int fd)
{
	char *const bad[] = {
		NULL, (char *)1, (char *)-1, (char *)-page_size,
		(char *)0xffff888000000000ULL,
	};
	unsigned long what = requests[below(t, 3)];
	struct span run;
	int err;

	if (!pick(t, &run, 64, MAPPED, PROT_READ | PROT_WRITE, false))
		return;
	err = dev_request(fd, what, page_at(t, run.at), bad[below(t, ARRAY_LEN(bad))],
			  run.n).err;
	WANT(t, err, -EFAULT, -EBUSY);
}

/* The buffer ends before the data does. */
static void short_buffer(struct thread *t, int fd)
{
	unsigned int cut, epoch = device_epoch(t, fd);
	char *edge = t->scratch + SCRATCH_PAGES * page_size;
	uint32_t values[SCRATCH_PAGES + 1];
	struct span run;
	int err;

	if (!pick(t, &run, SCRATCH_PAGES, MAPPED, PROT_READ | PROT_WRITE, false))
		return;
	if (mmap(t->scratch, SCRATCH_PAGES * page_size, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		return;
	cut = 1 + below(t, page_size - 1);
	fill_buf(t, run.n, values);
	memcpy(edge - run.n * page_size + cut, t->buf, run.n * page_size - cut);
	err = dev_write(fd, page_at(t, run.at), edge - run.n * page_size + cut,
			run.n).err;
	WANT(t, err, -EFAULT, -EBUSY);
	run_maybe_written(t, run, values);
	/* The same with all of it there, so that not everything is refused. */
	memcpy(edge - run.n * page_size, t->buf, run.n * page_size);
	err = dev_write(fd, page_at(t, run.at), edge - run.n * page_size, run.n).err;
	WANT(t, err, 0, -EBUSY);
	if (!err)
		run_written(t, run, values, epoch);
	munmap(t->scratch, SCRATCH_PAGES * page_size);
}

static void bad_request(struct thread *t, int fd)
{
	const unsigned long unknown[] = {
		_IOWR('H', 0x08, struct hmm_dmirror_cmd), _IOWR('H', 0x00, char),
		_IOR('H', 0x01, struct hmm_dmirror_cmd), 0, -1UL,
		_IOWR('H', 0x40, struct hmm_dmirror_cmd),
	};
	int err = 0;

	if (below(t, 2)) {
		err = dev_request(fd, unknown[below(t, ARRAY_LEN(unknown))],
				  page_at(t, 0), t->buf, 1).err;
		WANT(t, err, -EINVAL);
		return;
	}
	if (ioctl(fd, requests[below(t, ARRAY_LEN(requests))],
		  below(t, 2) ? NULL : (void *)-64L))
		err = -errno;
	WANT(t, err, -EFAULT);
}

/* Where no process can have memory. */
static void far_away(struct thread *t, int fd)
{
	const uint64_t far[] = {
		0xffff888000000000ULL, 0xffffffff81000000ULL,
		0x0000800000000000ULL, -2 * page_size,
	};
	void *at = (void *)far[below(t, ARRAY_LEN(far))];
	unsigned int i = below(t, 6);
	int err = dev_request(fd, requests[i], at, t->buf, 1).err;

	if (requests[i] == HMM_DMIRROR_SNAPSHOT)
		WANT(t, err, 0, -EBUSY);
	else if (requests[i] == HMM_DMIRROR_MIGRATE_TO_DEV ||
		 requests[i] == HMM_DMIRROR_MIGRATE_TO_SYS)
		WANT(t, err, -EINVAL);
	else
		WANT(t, err, -EFAULT, -EBUSY);
}

static bool op_hostile(struct thread *t)
{
	static void (*const ways[])(struct thread *t, int fd) = {
		bad_run, bad_buffer, short_buffer, bad_request, far_away,
	};
	unsigned int way = below(t, ARRAY_LEN(ways));

	note(t, (struct span) { 0 }, way);
	ways[way](t, any_device(t, NULL));
	went(t, 0);
	return true;
}

/* Kernel pages in a mapping, which the device may describe and read. */
static bool op_map_device(struct thread *t)
{
	unsigned int n = 1 + below(t, SCRATCH_PAGES);
	int err, minor, fd = any_device(t, &minor);
	char *at;

	note(t, (struct span) { 0, n }, minor);
	at = mmap(t->scratch, n * page_size, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_FIXED, fd, 0);
	if (at == MAP_FAILED)
		finding(t, "mmap() of device %d: %s", minor, strerror(errno));
	err = dev_snapshot(fd, at, t->bytes, n).err;
	WANT(t, err, 0, -EBUSY);
	err = dev_write(fd, at, t->buf, n).err;
	WANT(t, err, 0, -EBUSY);
	if (!err && memcmp(at, t->buf, n * page_size))
		finding(t, "the device wrote to kernel pages, and it is not there");
	err = dev_request(fd, HMM_DMIRROR_MIGRATE_TO_DEV, at, t->buf, n).err;
	WANT(t, err, -EINVAL);
	munmap(at, n * page_size);
	went(t, 0);
	return true;
}

/* ---- The commons ---- */

/* This thread's word of each of the commons is what it made it. */
static void check_commons(struct thread *t, const char *data, struct span run,
			  const char *who)
{
	unsigned int i;

	for (i = 0; i < run.n; i++) {
		uint64_t word = ((uint64_t *)(data + i * page_size))[t->number];

		if (word != t->count[run.at + i])
			finding(t, "common page %u: %s saw %lu, not %lu", run.at + i,
				who, (unsigned long)word,
				(unsigned long)t->count[run.at + i]);
	}
}

static struct span some_commons(struct thread *t)
{
	struct span run = { .at = below(t, COMMONS_PAGES) };

	run.n = 1 + below(t, COMMONS_PAGES - run.at);
	return run;
}

static bool op_common_add(struct thread *t)
{
	struct span run = some_commons(t);
	char *at = t->process->commons + run.at * page_size;
	unsigned int i, times = 1 + below(t, 64);

	note(t, run, times);
	for (i = 0; i < times * run.n; i++) {
		unsigned int page = i % run.n;
		uint64_t *word = (uint64_t *)(at + page * page_size) + t->number;
		uint64_t seen = __atomic_fetch_add(word, 1, __ATOMIC_SEQ_CST);

		if (seen != t->count[run.at + page]++)
			finding(t, "common page %u: the CPU saw %lu, not %lu",
				run.at + page, (unsigned long)seen,
				(unsigned long)t->count[run.at + page] - 1);
	}
	went(t, 0);
	return true;
}

static bool op_common_device(struct thread *t)
{
	static const unsigned long what[] = {
		HMM_DMIRROR_READ, HMM_DMIRROR_EXCLUSIVE, HMM_DMIRROR_MIGRATE_TO_DEV,
		HMM_DMIRROR_MIGRATE_TO_SYS,
	};
	unsigned int i = below(t, ARRAY_LEN(what));
	struct span run = some_commons(t);
	char *at = t->process->commons + run.at * page_size;
	int fd = any_device(t, NULL);
	int err;

	note(t, run, i);
	err = dev_request(fd, what[i], at, t->buf, run.n).err;
	if (what[i] == HMM_DMIRROR_MIGRATE_TO_DEV)
		WANT(t, err, 0, -ENOENT, -EBUSY);
	else
		WANT(t, err, 0, -EBUSY);
	if (!err && what[i] != HMM_DMIRROR_MIGRATE_TO_SYS)
		check_commons(t, t->buf, run, "the device");
	went(t, err);
	return true;
}

static bool op_common_advise(struct thread *t)
{
	static const int advice[] = {
		MADV_COLD, MADV_PAGEOUT, MADV_WILLNEED, MADV_NORMAL,
	};
	struct span run = some_commons(t);
	char *at = t->process->commons + run.at * page_size;
	unsigned int i = below(t, ARRAY_LEN(advice));

	note(t, run, advice[i]);
	madvise(at, run.n * page_size, advice[i]);
	check_commons(t, at, run, "the CPU");
	went(t, 0);
	return true;
}

const struct op device_ops[] = {
	{ "read", op_read, 12 },
	{ "write", op_write, 12 },
	{ "snapshot", op_snapshot, 6 },
	{ "migrate_to_dev", op_take, 10 },
	{ "migrate_to_sys", op_give_back, 4 },
	{ "exclusive", op_exclusive, 8 },
	{ "check_exclusive", op_check_exclusive, 2 },
	{ "release", op_release, 1 },
	{ "round_trip", op_round_trip, 4 },
	{ "hostile", op_hostile, 6 },
	{ "map_device", op_map_device, 1 },
	{ "reopen", op_reopen, 1 },
	{ "common_add", op_common_add, 4 },
	{ "common_device", op_common_device, 6 },
	{ "common_advise", op_common_advise, 1 },
};

const size_t nr_device_ops = ARRAY_LEN(device_ops);
