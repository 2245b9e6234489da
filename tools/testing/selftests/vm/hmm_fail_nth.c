// SPDX-License-Identifier: GPL-2.0
/*
 * Every allocation on every way to success fails once.
 *
 * A *path* is something that a process asks of a device, and that succeeds. Each path
 * is gone again and again; the first time its first allocation fails, then the
 * second, and so on, until a call has needed no more than were to be spared. A call
 * that was struck may succeed all the same, if the kernel knows another way. Otherwise
 * it fails with -ENOMEM, or as the path says; nothing has changed then, and when it
 * is made again it succeeds. Its data is right in each case.
 *
 * Each time it is done by a child with an address space of its own, from the first
 * allocation on, which is gone with all that it had. The kernel's warnings are panics
 * meanwhile, but for one path: when memory cannot be added, core code warns of it,
 * once in a boot. Marks in the kernel's log say where that is all right.
 *
 * What fails: the kernel's failslab and fail_page_alloc, by the file fail-nth of the
 * task. They spare allocations that may sleep unless told otherwise, which happens
 * here, and is undone.
 *
 * The parent has a page of its own on each device all along, so that the memory of
 * the devices stays, but for the path that adds it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <lib/test_hmm_dma_uapi.h>

#include "../kselftest.h"
#include "devmem.h"
#include "hmm_dev.h"

#define PAGES		8
#define MOST		4000	/* allocations in one call */
#define SWEEPS		3	/* until there were enough of them */
#define BOUNDARY	(1024UL << 20)	/* what no table of page tables crosses */
#define PARAMETERS	"/sys/module/test_hmm/parameters/"
#define FAULTS		"/sys/kernel/debug/"

/* ---- What makes allocations fail ---- */

static struct knob {
	const char *path;
	const char *value;
	char was[16];
} knobs[] = {
	{ FAULTS "failslab/ignore-gfp-wait", "N" },
	{ FAULTS "failslab/verbose", "0" },
	{ FAULTS "fail_page_alloc/ignore-gfp-wait", "N" },
	{ FAULTS "fail_page_alloc/ignore-gfp-highmem", "N" },
	{ FAULTS "fail_page_alloc/verbose", "0" },
	{ FAULTS "fail_page_alloc/min-order", "0" },
	{ "/proc/sys/kernel/panic_on_warn", "1" },
};

#define MIN_ORDER	knobs[5].path
#define PANIC_ON_WARN	knobs[6].path

/* Small: what is added is not the point, but that it is. */
static struct knob memory = { PARAMETERS "memory_mib", "2" };

static bool knob_turn(struct knob *knob)
{
	int fd = open(knob->path, O_RDONLY);
	ssize_t len = -1;

	if (fd >= 0) {
		len = read(fd, knob->was, sizeof(knob->was) - 1);
		close(fd);
	}
	if (len <= 0)
		return false;
	knob->was[len] = 0;
	return write_text(knob->path, knob->value);
}

static pid_t owner;

static void knobs_restore(void)
{
	size_t i;

	if (getpid() != owner)
		return;
	for (i = 0; i < ARRAY_LEN(knobs); i++)
		if (knobs[i].was[0])
			write_text(knobs[i].path, knobs[i].was);
	if (memory.was[0])
		write_text(memory.path, memory.was);
}

static void on_term(int sig)
{
	knobs_restore();
	_exit(1);
}

static void knobs_turn(void)
{
	size_t i;

	owner = getpid();
	atexit(knobs_restore);
	signal(SIGTERM, on_term);
	for (i = 0; i < ARRAY_LEN(knobs); i++)
		if (!knob_turn(&knobs[i]))
			ksft_exit_skip("%s: %s (CONFIG_FAILSLAB, CONFIG_FAIL_PAGE_ALLOC)\n",
				       knobs[i].path, strerror(errno));
	if (!knob_turn(&memory))
		ksft_exit_skip("%s: %s\n", memory.path, strerror(errno));
}

static int nth_fd;

/* From here on the nth allocation of this task fails. */
static bool arm(unsigned int n)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", n);

	return pwrite(nth_fd, text, len, 0) == len;
}

/* None does any more. Has one? */
static bool disarm(void)
{
	char text[16] = "";
	/* To ask may be what is struck: then the call before has not been */
	bool asked = pread(nth_fd, text, sizeof(text) - 1, 0) > 0;

	while (pwrite(nth_fd, "0", 1, 0) != 1)
		;
	return asked && !strcmp(text, "0\n");
}

/* ---- Paths ---- */

/* What a child works with, and what it says of itself. */
struct work {
	int minor;
	int fd;
	char *at;		/* PAGES pages; half of them on each side of a boundary */
	char *buf;		/* as many, for data */
	struct hmm_dma_cmd dma;
	char *iomem;
};

struct path {
	const char *name;
	unsigned int least;	/* allocations that can be made to fail */
	unsigned int errors;	/* with which the call fails, at least */
	bool (*prepare)(struct work *w);
	int (*call)(struct work *w);
	bool (*unchanged)(struct work *w);	/* after an error */
	bool (*right)(struct work *w);		/* after success */
	int minor;
	int error;		/* that is as good as -ENOMEM */
	unsigned int min_order;
	bool warns;
};

static bool filled(const char *at, unsigned int seed)
{
	return pattern_check(at, PAGES * page_size, seed) == -1;
}

static bool zeroes(const char *at)
{
	return zero_check(at, PAGES * page_size) == -1;
}

/* Memory with nothing there, not even the tables that it would take. */
static bool map_far(struct work *w)
{
	char *all = mmap(NULL, 2 * BOUNDARY, PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *edge;

	if (all == MAP_FAILED)
		return false;
	edge = all + -(uintptr_t)all % BOUNDARY;
	if (edge == all)
		edge += BOUNDARY;
	w->at = mmap(edge - PAGES / 2 * page_size, PAGES * page_size,
		     PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		     -1, 0);
	return w->at != MAP_FAILED && !no_huge_pages(w->at, PAGES * page_size);
}

static bool opened(struct work *w)
{
	w->fd = dev_open(w->minor);
	return w->fd >= 0;
}

static bool empty(struct work *w)
{
	return map_far(w) && opened(w);
}

static bool populated(struct work *w)
{
	if (!empty(w))
		return false;
	pattern_fill(w->at, PAGES * page_size, 1);
	return true;
}

static bool on_device(struct work *w)
{
	return populated(w) && !move_in(w->fd, w->at, w->buf, PAGES) &&
	       pages_in(w->fd, w->at, PAGES) == PAGES;
}

static bool exclusive(struct work *w)
{
	return populated(w) && !dev_request(w->fd, HMM_DMIRROR_EXCLUSIVE, w->at, w->buf,
					    PAGES).err;
}

static int call_open(struct work *w)
{
	w->fd = dev_open(w->minor);
	return w->fd < 0 ? -errno : 0;
}

static int call_read(struct work *w)
{
	return dev_read(w->fd, w->at, w->buf, PAGES).err;
}

static int call_write(struct work *w)
{
	pattern_fill(w->buf, PAGES * page_size, 2);
	return dev_write(w->fd, w->at, w->buf, PAGES).err;
}

static int call_snapshot(struct work *w)
{
	return dev_snapshot(w->fd, w->at, w->buf, PAGES).err;
}

static int call_exclusive(struct work *w)
{
	return dev_request(w->fd, HMM_DMIRROR_EXCLUSIVE, w->at, w->buf, PAGES).err;
}

static int call_move_in(struct work *w)
{
	return dev_request(w->fd, HMM_DMIRROR_MIGRATE_TO_DEV, w->at, w->buf, PAGES).err;
}

static int call_move_out(struct work *w)
{
	return move_out(w->fd, w->at, PAGES);
}

/* A page fault that fails for want of memory is tried again. */
static int call_touch(struct work *w)
{
	size_t i;

	for (i = 0; i < PAGES; i++)
		store(w->at + i * page_size, load(w->at + i * page_size));
	return 0;
}

static int call_mmap(struct work *w)
{
	char *at = mmap(NULL, PAGES * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE,
			w->fd, 0);

	if (at == MAP_FAILED)
		return -errno;
	w->at = at;
	return 0;
}

static int call_release(struct work *w)
{
	return release(w->fd);
}

/* Nothing that was there is different. */
static bool still_zero(struct work *w)
{
	return zeroes(w->at);
}

static bool still_filled(struct work *w)
{
	return filled(w->at, 1);
}

static bool reads_zero(struct work *w)
{
	return zeroes(w->buf) && zeroes(w->at);
}

static bool reads_filled(struct work *w)
{
	return filled(w->buf, 1) && filled(w->at, 1);
}

static bool was_written(struct work *w)
{
	return filled(w->at, 2);
}

/* A file that has been opened, or opened at last, is good for what it is for. */
static bool works(struct work *w)
{
	if (!w->at && !map_far(w))
		return false;
	pattern_fill(w->at, PAGES * page_size, 1);
	return !call_read(w) && filled(w->buf, 1);
}

static bool snapshot_right(struct work *w)
{
	size_t i;

	for (i = 0; i < PAGES; i++)
		if (w->buf[i] != HMM_DMIRROR_PROT_WRITE)
			return false;
	return true;
}

static bool mapped(struct work *w)
{
	return zeroes(w->at) && !dev_snapshot(w->fd, w->at, w->buf, PAGES).err;
}

/* All is here, and none there. */
static bool came_home(struct work *w)
{
	return !call_move_out(w) && !pages_in(w->fd, w->at, PAGES) && filled(w->at, 1);
}

/* ---- Memory that is added ---- */

static bool unplugged(struct work *w)
{
	if (!populated(w) || release(w->fd))
		return false;
	w->iomem = text_of("/proc/iomem");
	return true;
}

/* The memory may be there now, and pages not; but it is one of the two. */
static bool added_or_not(struct work *w)
{
	char *now = text_of("/proc/iomem");
	uint64_t first, last;
	bool same = !strcmp(now, w->iomem) || frames_of(w->minor, &first, &last);

	free(now);
	return same && filled(w->at, 1);
}

static bool added(struct work *w)
{
	return filled(w->buf, 1) && pages_in(w->fd, w->at, PAGES) == PAGES &&
	       filled(w->at, 1);
}

static bool unplugged_now(struct work *w)
{
	uint64_t first, last;

	return !frames_of(w->minor, &first, &last) && filled(w->at, 1);
}

/* ---- The device that does DMA ---- */

static int dma_request(struct work *w, unsigned long what)
{
	w->dma = (struct hmm_dma_cmd) {
		.addr = (uintptr_t)w->at, .npages = PAGES, .write = 1,
	};
	return ioctl(w->fd, what, &w->dma) ? -errno : 0;
}

static int call_dma_open(struct work *w)
{
	w->fd = open("/dev/hmm_dma", O_RDWR | O_CLOEXEC);
	return w->fd < 0 ? -errno : 0;
}

static int call_dma_mirror(struct work *w)
{
	return dma_request(w, HMM_DMA_MIRROR);
}

static int call_dma_fault(struct work *w)
{
	return dma_request(w, HMM_DMA_FAULT);
}

static bool dma_opened(struct work *w)
{
	return map_far(w) && !call_dma_open(w);
}

static bool dma_mirrored(struct work *w)
{
	return dma_opened(w) && !call_dma_mirror(w);
}

/* Nothing is in the device's table, and no memory lost. */
static bool dma_empty(struct work *w)
{
	return !dma_request(w, HMM_DMA_LOOK) && !w->dma.pages && zeroes(w->at);
}

static bool dma_full(struct work *w)
{
	return !dma_request(w, HMM_DMA_LOOK) && w->dma.pages == PAGES &&
	       w->dma.writable == PAGES && zeroes(w->at);
}

static bool dma_works(struct work *w)
{
	return (w->at || map_far(w)) && !call_dma_mirror(w) && !call_dma_fault(w) &&
	       dma_full(w);
}

static bool dma_mirror_works(struct work *w)
{
	return !call_dma_fault(w) && dma_full(w);
}

/* ---- All of them ---- */

static const struct path paths[] = {
	{ "open_first", 3, 1, map_far, call_open, still_zero, works },
	{ "open_another", 3, 1, populated, call_open, still_filled, works },
	{ "snapshot", 2, 1, populated, call_snapshot, still_filled, snapshot_right },
	{ "read", 3, 1, populated, call_read, still_filled, reads_filled },
	{ "read_nothing", 11, 6, empty, call_read, still_zero, reads_zero },
	{ "write_nothing", 12, 8, empty, call_write, still_zero, was_written },
	{ "exclusive", 3, 1, populated, call_exclusive, still_filled, reads_filled },
	{ "exclusive_touched", 0, 0, exclusive, call_touch, still_filled, still_filled },
	{ "mmap", 8, 6, empty, call_mmap, still_zero, mapped },
	{ "to_private", 8, 4, populated, call_move_in, still_filled, reads_filled, 0,
	  -ENOENT },
	{ "to_coherent", 3, 1, populated, call_move_in, still_filled, reads_filled, 2,
	  -ENOENT },
	{ "nothing_to_private", 12, 8, empty, call_move_in, still_zero, reads_zero, 0,
	  -ENOENT },
	{ "read_on_private", 3, 1, on_device, call_read, still_filled, reads_filled },
	{ "write_on_coherent", 3, 1, on_device, call_write, still_filled, was_written, 2 },
	{ "from_private", 8, 1, on_device, call_move_out, still_filled, came_home },
	{ "from_coherent", 8, 1, on_device, call_move_out, still_filled, came_home, 2 },
	{ "touched_on_private", 6, 0, on_device, call_touch, still_filled, came_home },
	{ "dma_open", 5, 2, map_far, call_dma_open, still_zero, dma_works, -1 },
	{ "dma_mirror", 5, 2, dma_opened, call_dma_mirror, still_zero, dma_mirror_works,
	  -1 },
	{ "dma_fault", 20, 10, dma_mirrored, call_dma_fault, dma_empty, dma_full, -1 },
	/* From here on without memory of the parent's on the device */
	{ "release_private", 8, 1, on_device, call_release, still_filled,
	  unplugged_now },
	{ "release_coherent", 8, 1, on_device, call_release, still_filled,
	  unplugged_now, 2 },
	{ "add_private", 30, 10, unplugged, call_move_in, added_or_not, added, 0,
	  -ENOENT, .warns = true },
	/*
	 * No table of the kernel's own mapping may be missing: it cannot be undone. Why
	 * a region cannot be claimed is not said.
	 */
	{ "add_coherent", 2, 1, unplugged, call_move_in, added_or_not, added, 2, -EBUSY, 1,
	  .warns = true },
};

/* ---- One call ---- */

struct outcome {
	bool struck;
	int err;
	char wrong[128];	/* empty, if all was right */
};

static struct outcome *outcome;

static bool say_wrong(const char *what, int err)
{
	snprintf(outcome->wrong, sizeof(outcome->wrong), "%s (%d)", what, err);
	return false;
}

static bool judge(const struct path *path, struct work *w)
{
	int err = outcome->err;

	if (err && !outcome->struck)
		return say_wrong("failed by itself", err);
	if (err && err != -ENOMEM && err != path->error)
		return say_wrong("another error", err);
	if (err && !path->unchanged(w))
		return say_wrong("failed, and changed something", err);
	if (err)
		err = path->call(w);
	if (err)
		return say_wrong("failed once more", err);
	if (!path->right(w))
		return say_wrong("not what it should be", outcome->err);
	return true;
}

/* In a child. What @call writes to is there, so that no fault of the kernel's fails. */
static void work_once(const struct path *path, unsigned int n)
{
	struct work w = { .minor = path->minor, .fd = -1, .buf = buffer(PAGES * page_size) };
	char here[4 * 4096];

	memset(here, n, sizeof(here));
	asm volatile("" : : "r" (here) : "memory");
	nth_fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	if (nth_fd < 0 || !path->prepare(&w)) {
		say_wrong("could not be prepared", -errno);
		return;
	}
	if (!arm(n)) {
		say_wrong("no failures", -errno);
		return;
	}
	outcome->err = path->call(&w);
	outcome->struck = disarm();
	judge(path, &w);
}

/* False if something is wrong, which has been told then. */
static bool go(const struct path *path, unsigned int n)
{
	int status;
	pid_t pid;

	memset(outcome, 0, sizeof(*outcome));
	fflush(NULL);
	pid = fork();
	if (!pid) {
		work_once(path, n);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		ksft_exit_fail_msg("no child: %s\n", strerror(errno));
	if (status)
		say_wrong("the child ended with a status", status);
	if (outcome->wrong[0])
		ksft_print_msg("%s: allocation %u: %s\n", path->name, n, outcome->wrong);
	return !outcome->wrong[0];
}

/* ---- All calls of a path ---- */

static void mark(const struct path *path, const char *what)
{
	char line[128];

	snprintf(line, sizeof(line), "kunit-allows-warning: %s hmm_fail_nth.%s\n", what,
		 path->name);
	write_text("/dev/kmsg", line);
}

static void begin(const struct path *path)
{
	write_number(MIN_ORDER, path->min_order);
	if (!path->warns)
		return;
	mark(path, "begin");
	write_number(PANIC_ON_WARN, 0);
}

static void end(const struct path *path)
{
	if (path->warns) {
		write_number(PANIC_ON_WARN, 1);
		mark(path, "end");
	}
	write_number(MIN_ORDER, 0);
}

/* From the first allocation to the last; false if something is wrong. */
static bool sweep_once(const struct path *path, unsigned int *struck,
		       unsigned int *errors)
{
	unsigned int n;

	for (n = 1; n < MOST; n++) {
		if (!go(path, n))
			return false;
		if (!outcome->struck)
			return true;
		*errors += outcome->err != 0;
		++*struck;
	}
	ksft_print_msg("%s: does not end\n", path->name);
	return false;
}

/*
 * Between two calls the debug kernel may come to need more or less for itself, so that
 * what failed in one of them is not what comes next in the other: what one sweep
 * misses another one finds.
 */
static bool sweep(const struct path *path)
{
	unsigned int struck = 0, errors = 0, i;
	bool enough = false, well = true;

	begin(path);
	for (i = 0; i < SWEEPS && well && !enough; i++) {
		well = sweep_once(path, &struck, &errors);
		enough = struck >= path->least && errors >= path->errors;
	}
	end(path);
	ksft_print_msg("%s: %u allocations failed, %u of them the call\n", path->name,
		       struck, errors);
	if (!enough)
		ksft_print_msg("%s: expected %u and %u, at least\n", path->name,
			       path->least, path->errors);
	return well && enough;
}

static const char *missing(const struct path *path)
{
	const char *name = path->minor < 0 ? "/dev/hmm_dma" : "/dev/hmm_dmirror2";

	if (path->minor < 0 || path->minor >= 2)
		return access(name, R_OK | W_OK) ? name : NULL;
	return NULL;
}

/* ---- Memory that stays on the devices meanwhile ---- */

static int anchors[3] = { -1, -1, -1 };

static void anchor(int minor)
{
	char *at = map_small(page_size), *buf = buffer(page_size);

	anchors[minor] = dev_open(minor);
	if (anchors[minor] < 0)
		return;
	madvise(at, page_size, MADV_DONTFORK);
	store(at, 1);
	if (move_in(anchors[minor], at, buf, 1))
		ksft_exit_fail_msg("no memory on device %d\n", minor);
}

static void release_all(void)
{
	int minor;

	for (minor = 0; minor < 3; minor++)
		if (anchors[minor] >= 0 && release(anchors[minor]))
			ksft_exit_fail_msg("device %d cannot be emptied\n", minor);
}

int main(void)
{
	struct world world;
	const char *why;
	size_t i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	ksft_print_header();
	knobs_turn();
	ksft_set_plan(ARRAY_LEN(paths) + 1);
	outcome = mmap(NULL, sizeof(*outcome), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	anchor(0);
	anchor(2);
	release_all();
	world_take(&world);
	anchor(0);
	anchor(2);
	for (i = 0; i < ARRAY_LEN(paths); i++) {
		if (missing(&paths[i]))
			ksft_test_result_skip("%s: no %s\n", paths[i].name,
					      missing(&paths[i]));
		else
			ksft_test_result(sweep(&paths[i]), "%s\n", paths[i].name);
	}
	release_all();
	why = world_changed(&world);
	if (why)
		ksft_print_msg("%s\n", why);
	ksft_test_result(!why, "all_as_before\n");
	ksft_finished();
}
