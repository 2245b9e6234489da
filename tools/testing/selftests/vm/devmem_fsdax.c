// SPDX-License-Identifier: GPL-2.0
/*
 * File systems on device memory: ext4 and XFS, mounted with DAX on persistent
 * memory that is there for these tests alone.
 *
 * A page of a file is the storage itself, and has one reference while nobody has
 * more than a mapping of it. Who wants its place for something else (truncation) or
 * takes all of it away (removal) waits until no more than that is left. The tests
 * give pages further references through a pipe, which has them after the mapping is
 * gone, and look at those who wait.
 *
 * Truncation is woken by the last put but one. Removal, too, and it looks by itself
 * now and then; stock does not wait for pages of files at all.
 *
 * The memory comes back before the file system that was on it is unmounted: files in
 * memory remember their pages, and fs/dax.c looks at the struct pages when they go.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "devmem.h"
#include "hmm_dev.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT DEV_TIMEOUT

#define FILE_BYTES	(1024UL << 10)
#define FILE_PATH	FS_DIR "/file"
/* XFS needs as much. */
#define SPACE		(300UL << 20)
/* How often memory goes and comes where once would hide what adds up */
#define ROUNDS		20

FIXTURE(fsdax)
{
	struct bond bond;
	char disk[16];
	struct world world;
	bool made;
	int fd;
	char *at;
};

FIXTURE_VARIANT(fsdax)
{
	enum fs fs;
	const char *waits;	/* a function in which truncation does */
};

FIXTURE_VARIANT_ADD(fsdax, ext4) { EXT4, "ext4_break_layouts" };
FIXTURE_VARIANT_ADD(fsdax, xfs) { XFS, "xfs_break_" };

static char *map_file(int fd)
{
	return mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

FIXTURE_SETUP(fsdax)
{
	const char *why;

	if (!find_spare_pmem(&self->bond, self->disk, SPACE))
		SKIP(return, "no persistent memory of 300 MiB that nobody uses");
	world_take(&self->world);
	why = fs_make(variant->fs, self->disk);
	if (why)
		SKIP(return, "%s", why);
	self->made = true;
	self->fd = open(FILE_PATH, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, ftruncate(self->fd, FILE_BYTES));
	self->at = map_file(self->fd);
	ASSERT_NE(MAP_FAILED, self->at);
	pattern_fill(self->at, FILE_BYTES, 1);
	ASSERT_EQ(0, fsync(self->fd));
	ASSERT_TRUE(is_pmem(pagemap_pfn(self->at)));
}

FIXTURE_TEARDOWN(fsdax)
{
	const char *changed;

	if (!self->made)
		return;
	if (self->at)
		munmap(self->at, FILE_BYTES);
	close(self->fd);
	EXPECT_TRUE(fs_unmount());
	EXPECT_TRUE(bond_holds(&self->bond));
	changed = world_changed(&self->world);
	EXPECT_EQ(NULL, changed)
		TH_LOG("%s", changed);
}

TEST_F(fsdax, written_and_read)
{
	char *bytes = buffer(FILE_BYTES);

	/* By read(), through another mapping, and after the file was away. */
	ASSERT_EQ((ssize_t)FILE_BYTES, pread(self->fd, bytes, FILE_BYTES, 0));
	EXPECT_EQ(-1, pattern_check(bytes, FILE_BYTES, 1));
	pattern_fill(bytes, FILE_BYTES, 2);
	ASSERT_EQ((ssize_t)FILE_BYTES, pwrite(self->fd, bytes, FILE_BYTES, 0));
	EXPECT_EQ(-1, pattern_check(self->at, FILE_BYTES, 2));
	ASSERT_EQ(0, munmap(self->at, FILE_BYTES));
	close(self->fd);
	ASSERT_TRUE(fs_unmount());
	ASSERT_TRUE(fs_mount(variant->fs, self->disk));
	self->fd = open(FILE_PATH, O_RDWR | O_CLOEXEC);
	self->at = map_file(self->fd);
	ASSERT_NE(MAP_FAILED, self->at);
	EXPECT_EQ(-1, pattern_check(self->at, FILE_BYTES, 2));
}

/* Files move their pages about: who asks for one for long is told no. */
TEST_F(fsdax, no_pin_for_long)
{
	int err = pin_longterm(self->at, page_size);

	if (err == -ENOENT)
		SKIP(return, "no gup_test");
	EXPECT_EQ(-EOPNOTSUPP, err);
	if (err >= 0)
		unpin_longterm(err);
}

static bool truncates(void *fd)
{
	return !ftruncate(*(int *)fd, 0);
}

static bool punches(void *fd)
{
	return !fallocate(*(int *)fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  3 * page_size, page_size);
}

/* One page of many is in use: it keeps the file's end where it is, or its hole. */
static void frees_blocks(struct __test_metadata *_metadata, int fd, char *at,
			 const char *waits, bool (*work)(void *arg))
{
	struct pin first, second;
	pid_t pid;

	ASSERT_TRUE(pin(&first, at + 3 * page_size, page_size));
	ASSERT_TRUE(pin(&second, at + 3 * page_size, 16));
	pid = start(work, &fd);
	ASSERT_TRUE(wait_until(is_in(pid, waits), SOON));
	unpin(&first);
	usleep(A_WHILE);
	EXPECT_TRUE(is_running(pid));
	EXPECT_TRUE(is_in(pid, waits));
	unpin(&second);
	EXPECT_TRUE(finished(pid));
}

TEST_F(fsdax, truncation_waits)
{
	frees_blocks(_metadata, self->fd, self->at, variant->waits, truncates);
	EXPECT_EQ(0, lseek(self->fd, 0, SEEK_END));
	EXPECT_TRUE(bus_error(self->at, false, NULL));
}

TEST_F(fsdax, hole_waits)
{
	frees_blocks(_metadata, self->fd, self->at, variant->waits, punches);
	EXPECT_EQ(0, load(self->at + 3 * page_size));
	EXPECT_NE(0, load(self->at + 2 * page_size));
	EXPECT_NE(0, load(self->at + 4 * page_size));
}

/* Who waits in vain can be killed, and nothing of the file is gone. */
TEST_F(fsdax, truncation_killed)
{
	struct pin page;
	pid_t pid;

	ASSERT_TRUE(pin(&page, self->at, page_size));
	pid = start(truncates, &self->fd);
	ASSERT_TRUE(wait_until(is_in(pid, variant->waits), SOON));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_FALSE(finished(pid));
	EXPECT_FALSE(is_running(pid));
	unpin(&page);
	EXPECT_EQ(-1, pattern_check(self->at, FILE_BYTES, 1));
}

static bool unbinds(void *bond)
{
	return unbind(bond);
}

/* The file system of before is dead: the memory has a new device. */
static bool mounted_afresh(enum fs fs, const char *disk, int *fd, char **at)
{
	close(*fd);
	if (!fs_unmount() || !fs_mount(fs, disk))
		return false;
	*fd = open(FILE_PATH, O_RDWR | O_CLOEXEC);
	*at = map_file(*fd);
	return *at != MAP_FAILED;
}

/* The memory goes while a page of a file that nobody maps any more is in use. */
TEST_F(fsdax, removal_waits)
{
	int log = log_open();
	struct pin page;
	char path[64];
	pid_t pid;

	ASSERT_TRUE(pin(&page, self->at + 5 * page_size, page_size));
	ASSERT_EQ(0, munmap(self->at, FILE_BYTES));
	self->at = NULL;
	pid = start(unbinds, &self->bond);
	EXPECT_TRUE(wait_until(in_removal(pid), SOON));
	EXPECT_TRUE(log_says(log, "1 references, removal waits", SOON));
	EXPECT_TRUE(is_running(pid));
	unpin(&page);
	ASSERT_TRUE(finished(pid));
	snprintf(path, sizeof(path), "/dev/%s", self->disk);
	EXPECT_EQ(-1, access(path, F_OK));
	ASSERT_TRUE(bind_again(&self->bond));
	ASSERT_TRUE(mounted_afresh(variant->fs, self->disk, &self->fd, &self->at));
	EXPECT_EQ(-1, pattern_check(self->at, FILE_BYTES, 1));
	close(log);
}

/* Many references to many pages, given up one by one */
TEST_F(fsdax, removal_waits_for_all)
{
	struct pin pins[8];
	size_t i;
	pid_t pid;

	for (i = 0; i < ARRAY_LEN(pins); i++)
		ASSERT_TRUE(pin(&pins[i], self->at + i * 9 * page_size,
				3 * page_size));
	ASSERT_EQ(0, munmap(self->at, FILE_BYTES));
	self->at = NULL;
	pid = start(unbinds, &self->bond);
	EXPECT_TRUE(wait_until(in_removal(pid), SOON));
	/* Neither the first nor the last of the memory decides. */
	for (i = 0; i < ARRAY_LEN(pins); i++) {
		usleep(A_WHILE / 4);
		EXPECT_TRUE(is_running(pid));
		unpin(&pins[i * 5 % ARRAY_LEN(pins)]);
	}
	ASSERT_TRUE(finished(pid));
	ASSERT_TRUE(bind_again(&self->bond));
	ASSERT_TRUE(mounted_afresh(variant->fs, self->disk, &self->fd, &self->at));
	EXPECT_EQ(-1, pattern_check(self->at, FILE_BYTES, 1));
}

/* The machine is what it was, and the data, too: see the teardown. */
TEST_F(fsdax, removed_and_added)
{
	int i;

	ASSERT_EQ(0, munmap(self->at, FILE_BYTES));
	self->at = NULL;
	close(self->fd);
	ASSERT_TRUE(fs_unmount());
	for (i = 0; i < ROUNDS; i++) {
		ASSERT_TRUE(unbind(&self->bond));
		ASSERT_TRUE(bind_again(&self->bond));
	}
	ASSERT_TRUE(fs_mount(variant->fs, self->disk));
	self->fd = open(FILE_PATH, O_RDWR | O_CLOEXEC);
	self->at = map_file(self->fd);
	ASSERT_NE(MAP_FAILED, self->at);
	EXPECT_EQ(-1, pattern_check(self->at, FILE_BYTES, 1));
}

TEST_HARNESS_MAIN
