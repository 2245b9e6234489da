// SPDX-License-Identifier: GPL-2.0
/*
 * Device DAX: memory that its driver maps into processes as it is, by leaves of
 * 2 MiB or 1 GiB, with struct pages that are compound pages of the same size for as
 * long as the memory is there.
 *
 * The driver is unbound and bound again. It takes the mappings away first; then
 * removal waits for pages that somebody still has. Stock does not wait for pages of
 * this kind: who has one may find its struct page gone.
 *
 * Before it is bound again nobody may have it open or mapped: drivers/dax/device.c
 * uses the same cdev again, and does not look whether somebody still has it.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../kselftest_harness.h"
#include "devmem.h"
#include "hmm_dev.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT DEV_TIMEOUT

/* Of a leaf, as much as is filled, from both ends */
#define PART	(256UL << 10)
#define ROUNDS	20

FIXTURE(device)
{
	struct bond bond;
	struct world world;
	struct mem mem;
	char *at;
	char *end;
};

FIXTURE_VARIANT(device)
{
	enum kind kind;
	size_t leaf;
};

FIXTURE_VARIANT_ADD(device, leaf_2m) { DEVICE_DAX_2M, 2UL << 20 };
FIXTURE_VARIANT_ADD(device, leaf_1g) { DEVICE_DAX_1G, 1UL << 30 };

FIXTURE_SETUP(device)
{
	if (!find_device_dax(&self->bond, variant->leaf))
		SKIP(return, "no device DAX with pages of this size");
	world_take(&self->world);
	if (!mem_map(&self->mem, variant->kind, variant->leaf))
		SKIP(return, "%s", self->mem.why);
	self->at = self->mem.addr;
	self->end = self->at + variant->leaf;
	pattern_fill(self->at, PART, 1);
	pattern_fill(self->end - PART, PART, 2);
}

FIXTURE_TEARDOWN(device)
{
	const char *changed;

	if (!self->mem.addr)
		return;
	mem_unmap(&self->mem);
	EXPECT_TRUE(bond_holds(&self->bond));
	changed = world_changed(&self->world);
	EXPECT_EQ(NULL, changed)
		TH_LOG("%s", changed);
}

static void let_go(struct mem *mem)
{
	munmap(mem->addr, mem->len);
	close(mem->fd);
	mem->fd = -1;
}

/* At the address of before */
static bool bind_and_map(struct mem *mem, const struct bond *bond)
{
	char path[80], *at;

	if (!bind_again(bond))
		return false;
	snprintf(path, sizeof(path), "/dev/%s", bond->device);
	mem->fd = open(path, O_RDWR | O_CLOEXEC);
	at = mmap(mem->addr, mem->len, PROT_READ | PROT_WRITE,
		  MAP_SHARED | MAP_FIXED, mem->fd, 0);
	return at == mem->addr;
}

static bool has_data(const char *at, size_t leaf)
{
	return pattern_check(at, PART, 1) < 0 &&
	       pattern_check(at + leaf - PART, PART, 2) < 0;
}

static bool unbinds(void *bond)
{
	return unbind(bond);
}

/* Mappings go with the driver, though their processes stay. */
TEST_F(device, unbound_under_a_mapping)
{
	ASSERT_TRUE(unbind(&self->bond));
	EXPECT_TRUE(bus_error(self->at, false, NULL));
	EXPECT_TRUE(bus_error(self->end - page_size, true, NULL));
	let_go(&self->mem);
	ASSERT_TRUE(bind_and_map(&self->mem, &self->bond));
	EXPECT_TRUE(has_data(self->at, variant->leaf));
}

TEST_F(device, removed_and_added)
{
	int i;

	for (i = 0; i < ROUNDS; i++) {
		ASSERT_TRUE(unbind(&self->bond));
		let_go(&self->mem);
		ASSERT_TRUE(bind_and_map(&self->mem, &self->bond));
		ASSERT_TRUE(has_data(self->at, variant->leaf));
	}
}

/* A page in the middle of a compound page keeps all of it. */
TEST_F(device, removal_waits)
{
	struct pin first, second;
	pid_t pid;

	ASSERT_TRUE(pin(&first, self->at + 7 * page_size, page_size));
	ASSERT_TRUE(pin(&second, self->end - page_size, page_size));
	pid = start(unbinds, &self->bond);
	EXPECT_TRUE(wait_until(in_removal(pid), SOON));
	EXPECT_TRUE(bus_error(self->at, false, NULL));
	unpin(&second);
	usleep(A_WHILE);
	EXPECT_TRUE(is_running(pid));
	EXPECT_TRUE(wait_until(in_removal(pid), SOON));
	/* Nobody new gets at a page meanwhile. */
	EXPECT_FALSE(pin(&second, self->at + 7 * page_size, page_size));
	EXPECT_EQ(EFAULT, errno);
	unpin(&first);
	ASSERT_TRUE(finished(pid));
	let_go(&self->mem);
	ASSERT_TRUE(bind_and_map(&self->mem, &self->bond));
	EXPECT_TRUE(has_data(self->at, variant->leaf));
}

/* Unlike memory of files, this can be pinned for long: as a device does for DMA. */
TEST_F(device, removal_waits_for_dma)
{
	int fd = pin_longterm(self->at, 16 * page_size);
	pid_t pid;

	if (fd == -ENOENT)
		SKIP(return, "no gup_test");
	ASSERT_LE(0, fd);
	pid = start(unbinds, &self->bond);
	EXPECT_TRUE(wait_until(in_removal(pid), SOON));
	usleep(A_WHILE);
	EXPECT_TRUE(is_running(pid));
	unpin_longterm(fd);
	ASSERT_TRUE(finished(pid));
	let_go(&self->mem);
	ASSERT_TRUE(bind_and_map(&self->mem, &self->bond));
	EXPECT_TRUE(has_data(self->at, variant->leaf));
}

/* The process that has the page ends: its pipe goes, and the last reference. */
static bool pins_and_sleeps(void *at)
{
	struct pin page;

	if (!pin(&page, at, page_size))
		return false;
	store((char *)at + page_size, 77);
	for (;;)
		pause();
	return true;
}

TEST_F(device, removal_waits_for_a_process)
{
	pid_t holder, pid;

	holder = start(pins_and_sleeps, self->at);
	ASSERT_TRUE(wait_until(load(self->at + page_size) == 77, SOON));
	pid = start(unbinds, &self->bond);
	EXPECT_TRUE(wait_until(in_removal(pid), SOON));
	usleep(A_WHILE);
	EXPECT_TRUE(is_running(pid));
	ASSERT_EQ(0, kill(holder, SIGKILL));
	EXPECT_FALSE(finished(holder));
	ASSERT_TRUE(finished(pid));
	let_go(&self->mem);
	ASSERT_TRUE(bind_and_map(&self->mem, &self->bond));
}

TEST_HARNESS_MAIN
