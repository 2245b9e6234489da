// SPDX-License-Identifier: GPL-2.0
/*
 * A driver to start from: a device that inverts memory of the process
 *
 * The device has a page table of its own, a small cache of translations. Two words
 * written to /dev/hmm_sample, an address and a length, are a command to it: invert
 * that memory, in the process that opened the file.
 *
 * Another device has other callbacks 1 to 3, and does something else with its table
 * than sample_invert(). The device is played by whoever writes the command; a worker
 * of the driver's would have a reference on the mirror. See
 * Documentation/vm/driver-guide.rst.
 */
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/hmm.h>
#include <linux/hmm_mirror.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/overflow.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#define SLOTS	64

struct sample {
	struct hmm_mirror mirror;
	struct mutex lock;			/* guards the table, and its use */
	struct {
		unsigned long addr;
		struct page *page;		/* NULL: the slot is free */
	} table[SLOTS];
};

static unsigned int slot_of(unsigned long addr)
{
	return (addr >> PAGE_SHIFT) % SLOTS;
}

/* 1. What is about to change leaves the table */
static bool sample_invalidate(struct hmm_mirror *mirror,
			      const struct mmu_notifier_range *range)
{
	struct sample *dev = container_of(mirror, struct sample, mirror);
	/* A change need not begin where a page does */
	unsigned long first = hmm_mirror_first(mirror, range) & PAGE_MASK;
	unsigned long last = hmm_mirror_last(mirror, range);
	int i;

	for (i = 0; i < SLOTS; i++)
		if (dev->table[i].addr >= first && dev->table[i].addr <= last)
			dev->table[i].page = NULL;
	return true;
}

/* 2. What a fault has found is entered */
static int sample_map(struct hmm_mirror *mirror, struct hmm_range *range)
{
	struct sample *dev = container_of(mirror, struct sample, mirror);
	unsigned int slot = slot_of(range->start);

	dev->table[slot].addr = range->start;
	dev->table[slot].page = hmm_pfn_to_page(range->hmm_pfns[0]);
	return 0;
}

/* 3. It is over: the table is emptied */
static void sample_release(struct hmm_mirror *mirror)
{
	struct sample *dev = container_of(mirror, struct sample, mirror);

	mutex_lock(&dev->lock);
	memset(dev->table, 0, sizeof(dev->table));
	mutex_unlock(&dev->lock);
}

static void sample_free(struct hmm_mirror *mirror)
{
	kfree(container_of(mirror, struct sample, mirror));
}

static const struct hmm_mirror_ops sample_ops = {
	.invalidate = sample_invalidate,
	.map = sample_map,
	.release = sample_release,
	.free = sample_free,
};

/* The device at work, up to the end of a page; 0 if it misses the page */
static int sample_invert(struct sample *dev, unsigned long addr, unsigned long end)
{
	unsigned int slot = slot_of(addr), i, n, from = offset_in_page(addr);
	int ret = 0;
	u8 *mem;

	n = min(end - addr, PAGE_SIZE - from);
	mutex_lock(&dev->lock);
	if (dev->table[slot].page && dev->table[slot].addr == addr - from) {
		mem = kmap_local_page(dev->table[slot].page) + from;
		for (i = 0; i < n; i++)
			mem[i] = ~mem[i];
		kunmap_local(mem);
		folio_mark_dirty(page_folio(dev->table[slot].page));
		ret = n;
	}
	mutex_unlock(&dev->lock);
	return ret;
}

static int sample_fault(struct sample *dev, unsigned long addr)
{
	unsigned long pfn;
	struct hmm_range range = {
		.start = addr & PAGE_MASK,
		.end = (addr & PAGE_MASK) + PAGE_SIZE,
		.hmm_pfns = &pfn,
		.default_flags = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE,
	};

	return hmm_mirror_fault(&dev->mirror, &range,
				msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT));
}

static int sample_open(struct inode *inode, struct file *file)
{
	struct sample *dev;
	int ret;

	if (!current->mm)
		return -EINVAL;
	dev = kzalloc(sizeof(*dev), GFP_KERNEL);
	if (!dev)
		return -ENOMEM;
	mutex_init(&dev->lock);
	ret = hmm_mirror_register(&dev->mirror, current->mm, 0,
				  ULONG_MAX & PAGE_MASK, &sample_ops, &dev->lock);
	if (ret) {
		kfree(dev);
		return ret;
	}
	file->private_data = dev;
	return 0;
}

static int sample_close(struct inode *inode, struct file *file)
{
	struct sample *dev = file->private_data;

	hmm_mirror_unregister(&dev->mirror);
	return 0;
}

static ssize_t sample_write(struct file *file, const char __user *buf, size_t len,
			    loff_t *pos)
{
	struct sample *dev = file->private_data;
	unsigned long words[2], addr, end;
	int ret = 0;

	if (len != sizeof(words))
		return -EINVAL;
	if (copy_from_user(words, buf, len))
		return -EFAULT;
	addr = words[0];
	if (check_add_overflow(addr, words[1], &end))
		return -EINVAL;

	while (ret >= 0 && addr < end) {
		ret = sample_invert(dev, addr, end);
		addr += ret;
		if (!ret)
			ret = sample_fault(dev, addr);
		if (fatal_signal_pending(current))
			ret = -EINTR;
		cond_resched();
	}
	return ret < 0 ? ret : len;
}

static const struct file_operations sample_fops = {
	.owner = THIS_MODULE,
	.open = sample_open,
	.release = sample_close,
	.write = sample_write,
};

static struct miscdevice sample_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "hmm_sample",
	.fops = &sample_fops,
};

module_misc_device(sample_misc);
MODULE_DESCRIPTION("Driver that mirrors address spaces, to start from");
MODULE_LICENSE("GPL");
