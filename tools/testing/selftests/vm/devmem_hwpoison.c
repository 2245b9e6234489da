// SPDX-License-Identifier: GPL-2.0
/*
 * Bad memory of a device that keeps pages of processes.
 *
 * What mm/memory-failure.c does for other memory, it cannot do here: only the driver
 * knows what its device can spare. So the answer to a frame that is such memory is
 * -ENXIO, and to one that is to be taken offline -EIO, and nothing has changed: the
 * page stays where it is, in use or free, with what is in it.
 *
 * Who names a page by its address in a process reaches it as any CPU does:
 *
 * * coherent memory: the page itself, and the same answer.
 * * private memory: the fault brings the page home first. It is the page of system
 *   memory that goes bad, with all that follows, and none of the device's.
 */
#include <errno.h>
#include <linux/kernel-page-flags.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "devmem.h"
#include "hmm_dev.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT DEV_TIMEOUT

#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif

#define UNPOISON	"/sys/kernel/debug/hwpoison/unpoison-pfn"
#define PAGES		16
/* The one that is said to be bad */
#define BAD		5
/* How often, while pages travel */
#define REPORTS		60

FIXTURE(hwpoison)
{
	int fd;
	int log;
	char *at;
	char *bad;
	char *buf;
	char *data;		/* what is in @at: in memory that never moves */
	size_t bytes;
	struct world world;
};

FIXTURE_VARIANT(hwpoison)
{
	int minor;
	bool is_private;
};

FIXTURE_VARIANT_ADD(hwpoison, private) { 0, true };
FIXTURE_VARIANT_ADD(hwpoison, coherent) { 2, false };

FIXTURE_SETUP(hwpoison)
{
	if (access(HARD_OFFLINE, W_OK))
		SKIP(return, "no " HARD_OFFLINE " (CONFIG_MEMORY_FAILURE, root)");
	self->fd = dev_open(variant->minor);
	if (self->fd < 0 && !variant->is_private)
		SKIP(return, "no coherent device (test_hmm.spm_addr_dev0, _dev1)");
	ASSERT_LE(0, self->fd);
	self->log = log_open();
	ASSERT_LE(0, self->log);
	ASSERT_EQ(0, release(self->fd));
	world_take(&self->world);
	self->bytes = PAGES * page_size;
	self->at = buffer(self->bytes);
	self->bad = self->at + BAD * page_size;
	self->buf = buffer(self->bytes);
	self->data = buffer(self->bytes);
	ASSERT_EQ(0, no_huge_pages(self->at, self->bytes));
	pattern_fill(self->at, self->bytes, 1);
	pattern_fill(self->data, self->bytes, 1);
}

/* A reference that had been left behind would keep the memory. */
FIXTURE_TEARDOWN(hwpoison)
{
	const char *changed;

	if (!self->data)
		return;
	EXPECT_EQ(0, release(self->fd));
	close(self->fd);
	close(self->log);
	changed = world_changed(&self->world);
	EXPECT_EQ(NULL, changed)
		TH_LOG("%s", changed);
}

static bool is_frame_of(int minor, uint64_t pfn)
{
	uint64_t first, last;

	return frames_of(minor, &first, &last) && first <= pfn && pfn <= last;
}

#define MOVE_IN() do {							\
	ASSERT_EQ(0, move_in(self->fd, self->at, self->buf, PAGES));	\
	ASSERT_EQ(PAGES, pages_in(self->fd, self->at, PAGES));		\
	ASSERT_TRUE(is_frame_of(variant->minor, frame_of(self->bad)));	\
} while (0)

#define expect_refused(path, pfn, why) do {				\
	EXPECT_FALSE(tell_frame(path, pfn));				\
	EXPECT_EQ(why, errno);						\
} while (0)

#define expect_failure_logged()						\
	EXPECT_TRUE(log_says(self->log,					\
			     "recovery action for dax page: Failed", SOON))

/* All of it is on the device, as it was, and nothing in its ways there and back. */
#define expect_unharmed() do {						\
	EXPECT_EQ(PAGES, pages_in(self->fd, self->at, PAGES));		\
	memset(self->buf, 0, self->bytes);				\
	EXPECT_EQ(0, dev_read(self->fd, self->at, self->buf, PAGES).err); \
	EXPECT_EQ(0, memcmp(self->buf, self->data, self->bytes));	\
	EXPECT_EQ(PAGES, pages_in(self->fd, self->at, PAGES));		\
	EXPECT_EQ(0, move_out(self->fd, self->at, PAGES));		\
	EXPECT_EQ(0, pages_in(self->fd, self->at, PAGES));		\
	EXPECT_EQ(0, memcmp(self->at, self->data, self->bytes));	\
	EXPECT_EQ(0, move_in(self->fd, self->at, self->buf, PAGES));	\
	EXPECT_EQ(0, memcmp(self->buf, self->data, self->bytes));	\
} while (0)

/* ---- By frame ---- */

TEST_F(hwpoison, frame_in_use)
{
	uint64_t pfn;

	MOVE_IN();
	pfn = frame_of(self->bad);
	bus_errors_begin();
	expect_refused(HARD_OFFLINE, pfn, ENXIO);
	expect_failure_logged();
	/* It has not come to be known as bad: the answer stays. */
	expect_refused(HARD_OFFLINE, pfn, ENXIO);
	EXPECT_EQ(pfn, frame_of(self->bad));
	expect_unharmed();
	EXPECT_FALSE(bus_errors_end(NULL));
}

TEST_F(hwpoison, frame_in_use_offline)
{
	uint64_t pfn;

	MOVE_IN();
	pfn = frame_of(self->bad);
	bus_errors_begin();
	expect_refused(SOFT_OFFLINE, pfn, EIO);
	EXPECT_EQ(pfn, frame_of(self->bad));
	expect_unharmed();
	EXPECT_FALSE(bus_errors_end(NULL));
}

/* One that has been in use, and one that never was */
TEST_F(hwpoison, frame_free)
{
	uint64_t pfn, first, last;

	MOVE_IN();
	pfn = frame_of(self->bad);
	ASSERT_TRUE(frames_of(variant->minor, &first, &last));
	ASSERT_EQ(0, move_out(self->fd, self->at, PAGES));
	expect_refused(HARD_OFFLINE, pfn, ENXIO);
	expect_failure_logged();
	expect_refused(SOFT_OFFLINE, pfn, EIO);
	expect_refused(HARD_OFFLINE, last, ENXIO);
	expect_failure_logged();
	expect_refused(SOFT_OFFLINE, last, EIO);
	MOVE_IN();
	expect_unharmed();
}

/* Nobody knows the frame any more. */
TEST_F(hwpoison, frame_gone)
{
	uint64_t pfn;

	MOVE_IN();
	pfn = frame_of(self->bad);
	ASSERT_EQ(0, release(self->fd));
	expect_refused(HARD_OFFLINE, pfn, ENXIO);
	EXPECT_TRUE(log_says(self->log, "memory outside kernel control", SOON));
	expect_refused(SOFT_OFFLINE, pfn, ENXIO);
	EXPECT_EQ(0, memcmp(self->at, self->data, self->bytes));
	MOVE_IN();
	expect_unharmed();
}

/* Reports of all frames, in turn; nobody may believe one. */
static bool reports(void *first)
{
	uint64_t pfn = *(uint64_t *)first;
	const char *path;
	size_t i;

	for (i = 0; i < REPORTS; i++) {
		path = i % 3 ? HARD_OFFLINE : SOFT_OFFLINE;
		if (tell_frame(path, pfn + i % PAGES))
			return false;
		if (errno != ENXIO && errno != EIO)
			return false;
	}
	return true;
}

/* They come, go and are removed under the reports. */
TEST_F(hwpoison, frames_that_travel)
{
	uint64_t first, last;
	size_t round = 0;
	pid_t pid;

	MOVE_IN();
	ASSERT_TRUE(frames_of(variant->minor, &first, &last));
	pid = start(reports, &first);
	while (is_running(pid)) {
		ASSERT_EQ(0, move_in(self->fd, self->at, self->buf, PAGES));
		ASSERT_EQ(0, memcmp(self->buf, self->data, self->bytes));
		ASSERT_EQ(0, round++ % 8 ? move_out(self->fd, self->at, PAGES) :
					   release(self->fd));
		ASSERT_EQ(0, memcmp(self->at, self->data, self->bytes));
	}
	EXPECT_TRUE(finished(pid));
	MOVE_IN();
	expect_unharmed();
	TH_LOG("%zu rounds", round);
}

/* ---- By address ---- */

/* A page of system memory that is bad: not lost to other tests. */
static bool make_good(uint64_t pfn)
{
	return page_flags(pfn) >> KPF_HWPOISON & 1 && write_number(UNPOISON, pfn);
}

/* What is left of private memory when one page has come home and gone bad */
TEST_F(hwpoison, address)
{
	size_t others = PAGES - BAD - 1;
	char *next = self->bad + page_size;
	siginfo_t info;
	uint64_t pfn;

	MOVE_IN();
	if (!variant->is_private) {
		bus_errors_begin();
		EXPECT_EQ(-1, madvise(self->bad, page_size, MADV_HWPOISON));
		EXPECT_EQ(ENXIO, errno);
		expect_failure_logged();
		expect_unharmed();
		EXPECT_FALSE(bus_errors_end(NULL));
		return;
	}
	bus_errors_begin();
	EXPECT_EQ(0, madvise(self->bad, page_size, MADV_HWPOISON));
	EXPECT_TRUE(bus_errors_end(&info));
	EXPECT_EQ(BUS_MCEERR_AR, info.si_code);
	EXPECT_TRUE(bus_error(self->bad, false, &info));
	EXPECT_EQ(self->bad, (char *)info.si_addr);
	pfn = frame_of(self->bad);
	EXPECT_FALSE(is_frame_of(variant->minor, pfn));
	EXPECT_EQ(-EFAULT, dev_read(self->fd, self->bad, self->buf, 1).err);
	/* It cannot go there again; its neighbours have not moved. */
	EXPECT_NE(0, move_in(self->fd, self->bad, self->buf, 1));
	EXPECT_EQ(BAD, pages_in(self->fd, self->at, BAD));
	EXPECT_EQ(others, pages_in(self->fd, next, others));
	EXPECT_EQ(0, memcmp(self->at, self->data, BAD * page_size));
	EXPECT_EQ(0, memcmp(next, self->data + (BAD + 1) * page_size,
			    others * page_size));
	ASSERT_EQ(0, munmap(self->bad, page_size));
	EXPECT_TRUE(make_good(pfn));
}

TEST_F(hwpoison, address_offline)
{
	MOVE_IN();
	bus_errors_begin();
	if (variant->is_private) {
		/*
		 * The page has come home, and moved to another frame there. The
		 * one in between is known to nobody who could make it good.
		 */
		EXPECT_EQ(0, madvise(self->bad, page_size, MADV_SOFT_OFFLINE));
		EXPECT_EQ(PAGES - 1, pages_in(self->fd, self->at, PAGES));
		EXPECT_EQ(0, move_in(self->fd, self->at, self->buf, PAGES));
	} else {
		EXPECT_EQ(-1, madvise(self->bad, page_size, MADV_SOFT_OFFLINE));
		EXPECT_EQ(EIO, errno);
	}
	expect_unharmed();
	EXPECT_FALSE(bus_errors_end(NULL));
}

/* A reference of somebody else's is neither lost nor used up. */
TEST_F(hwpoison, address_of_a_pinned_page)
{
	struct pin page;

	MOVE_IN();
	ASSERT_TRUE(pin(&page, self->bad, page_size));
	if (variant->is_private) {
		/* There is no such page: it has come home to be pinned. */
		EXPECT_EQ(PAGES - 1, pages_in(self->fd, self->at, PAGES));
		unpin(&page);
		return;
	}
	EXPECT_EQ(-1, madvise(self->bad, page_size, MADV_HWPOISON));
	EXPECT_EQ(ENXIO, errno);
	expect_failure_logged();
	EXPECT_EQ(-1, madvise(self->bad, page_size, MADV_SOFT_OFFLINE));
	EXPECT_EQ(EIO, errno);
	EXPECT_EQ(page_size, read(page.ends[0], self->buf, page_size));
	EXPECT_EQ(0, memcmp(self->buf, self->data + BAD * page_size, page_size));
	unpin(&page);
	expect_unharmed();
}

TEST_HARNESS_MAIN
