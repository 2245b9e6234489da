// SPDX-License-Identifier: GPL-2.0
/*
 * A PCI device that works on a process's memory by DMA.
 *
 * The device is QEMU's "edu": it has a buffer, which it fills from memory or
 * empties into memory, one transfer at a time, and raises an interrupt when it is
 * done. It takes any address if it is made with dma_mask=0xffffffffffffffff.
 *
 * Opening /dev/hmm_dma makes a *mirror*, empty until HMM_DMA_MIRROR tells which
 * memory it is of. It has a page table for the device, with the DMA address of
 * each page: the driver plays the part of the device that walks it. To read a
 * piece of a page takes two transfers: from there into the device's buffer, and
 * from that into memory of the driver's (the *landing*), which is copied to
 * the reader. To write is the same backwards. No CPU touches the process's page.
 *
 * A transfer at an address of the page table runs with mirror->lock held from
 * before the look into the table until it is over. The invalidate callback takes
 * that lock. So when it unmaps, the device is not in the middle of a transfer, and
 * it starts none, because the table has no such entry any more.
 *
 * Lock order
 *
 *	mirror->io		(one read, write or ioctl of a file at a time)
 *	  edu->engine		(the device and its buffer)
 *	    mirror->lock
 *	  what hmm_dma_map_range() takes: its own, mmap_lock, ..., mirror->lock
 *
 * Reclaim may wait for mirror->lock in the invalidate callback, and so for a
 * transfer. Nothing is allocated under it, nor under edu->engine.
 */
#include <linux/completion.h>
#include <linux/fs.h>
#include <linux/hmm.h>
#include <linux/hmm-dma.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/io-64-nonatomic-lo-hi.h>
#include <linux/jiffies.h>
#include <linux/miscdevice.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/overflow.h>
#include <linux/pci.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "test_hmm_dma_uapi.h"

#define EDU_VENDOR	0x1234
#define EDU_DEVICE	0x11e8

/* Registers; the first three are 32 bits wide, the others 64. */
#define EDU_ID			0x00
#define EDU_IRQ_STATUS		0x24
#define EDU_IRQ_ACK		0x64
#define EDU_DMA_FROM		0x80
#define EDU_DMA_TO		0x88
#define EDU_DMA_COUNT		0x90
#define EDU_DMA_COMMAND		0x98

#define EDU_ID_MASK		0x0000ffff
#define EDU_ID_VALUE		0x000000ed
#define EDU_IRQ_DMA		0x100
#define EDU_COMMAND_START	BIT(0)
#define EDU_COMMAND_TO_MEMORY	BIT(1)
#define EDU_COMMAND_IRQ		BIT(2)

/*
 * Where the device has its buffer, in addresses of its own. It has 4 KiB, but QEMU
 * takes a transfer that ends with its last byte for one that exceeds it, and aborts.
 */
#define EDU_BUFFER		0x40000
#define EDU_BUFFER_SIZE		2048UL

/* A transfer takes a tenth of a second, of a clock that may be slow. */
#define EDU_TIMEOUT		(30 * HZ)

/* An entry of the device's page table: the address, and in its low bits */
#define ENTRY_VALID	BIT(0)
#define ENTRY_WRITE	BIT(1)

/* What one file may mirror: more than a page of 1 GiB. */
#define MIRROR_PAGES	(SZ_2G >> PAGE_SHIFT)
/* Pages that are gone again before they could be used, in a row. */
#define MIRROR_TRIES	20

/**
 * struct edu - the device
 * @pdev: on its bus
 * @regs: its registers
 * @misc: its file
 * @engine: held over everything that needs the buffer to stay as it is
 * @done: the transfer is over
 * @dead: one never was; DMA is off
 * @opens: files that are open
 * @idle: for who waits until none is
 */
struct edu {
	struct pci_dev *pdev;
	void __iomem *regs;
	struct miscdevice misc;
	struct mutex engine;		/* see "Lock order" above */
	struct completion done;
	bool dead;
	atomic_t opens;
	wait_queue_head_t idle;
};

/**
 * struct mirror - some memory of a process, as the device sees it
 * @edu: the device
 * @io: guards what follows, as far as @lock does not
 * @landing: memory of the driver's
 * @landing_dma: its address for the device
 * @start: first byte of the memory
 * @npages: how much of it; 0 before HMM_DMA_MIRROR
 * @sub: subscription to just that
 * @lock: guards @map and @table, and is held over every use of an entry
 * @map: the DMA mappings
 * @table: the device's page table
 */
struct mirror {
	struct edu *edu;
	struct mutex io;		/* see "Lock order" above */
	void *landing;
	dma_addr_t landing_dma;
	unsigned long start;
	size_t npages;
	struct mmu_interval_notifier sub;
	struct mutex lock;		/* see "Lock order" above */
	struct hmm_dma_map map;
	u64 *table;
};

static struct device *mirror_dev(struct mirror *mirror)
{
	return &mirror->edu->pdev->dev;
}

/* ---- Transfers ---- */

static irqreturn_t edu_interrupt(int irq, void *data)
{
	struct edu *edu = data;
	u32 status = readl(edu->regs + EDU_IRQ_STATUS);

	if (!status)
		return IRQ_NONE;
	writel(status, edu->regs + EDU_IRQ_ACK);
	if (status & EDU_IRQ_DMA)
		complete(&edu->done);
	return IRQ_HANDLED;
}

/*
 * If the device does not answer, it may still be going to write. Then it is kept
 * from all memory, for good, before the caller lets go of any.
 */
static int edu_transfer(struct edu *edu, u64 from, u64 to, size_t bytes,
			u64 direction)
{
	lockdep_assert_held(&edu->engine);

	if (edu->dead)
		return -EIO;
	reinit_completion(&edu->done);
	writeq(from, edu->regs + EDU_DMA_FROM);
	writeq(to, edu->regs + EDU_DMA_TO);
	writeq(bytes, edu->regs + EDU_DMA_COUNT);
	writeq(EDU_COMMAND_START | EDU_COMMAND_IRQ | direction,
	       edu->regs + EDU_DMA_COMMAND);
	if (wait_for_completion_timeout(&edu->done, EDU_TIMEOUT))
		return 0;
	dev_err(&edu->pdev->dev, "a transfer does not end\n");
	pci_clear_master(edu->pdev);
	edu->dead = true;
	return -EIO;
}

static int edu_load(struct edu *edu, dma_addr_t from, size_t bytes)
{
	return edu_transfer(edu, from, EDU_BUFFER, bytes, 0);
}

static int edu_store(struct edu *edu, dma_addr_t to, size_t bytes)
{
	return edu_transfer(edu, EDU_BUFFER, to, bytes, EDU_COMMAND_TO_MEMORY);
}

/* ---- The mirror: the device's page table and its subscription ---- */

static struct mirror *mirror_of(struct hmm_dma_map *map)
{
	return container_of(map, struct mirror, map);
}

static void mirror_lock(struct hmm_dma_map *map)
{
	mutex_lock(&mirror_of(map)->lock);
}

static void mirror_unlock(struct hmm_dma_map *map)
{
	mutex_unlock(&mirror_of(map)->lock);
}

static int mirror_enter(struct hmm_dma_map *map, size_t first, size_t npages)
{
	struct mirror *mirror = mirror_of(map);
	unsigned long entry;
	size_t i;

	for (i = first; i < first + npages; i++) {
		entry = map->pfn_list[i];
		if (entry & HMM_PFN_DMA_MAPPED)
			mirror->table[i] = map->dma_list[i] | ENTRY_VALID |
				(entry & HMM_PFN_WRITE ? ENTRY_WRITE : 0);
	}
	return 0;
}

/* The lock is held, so the device is idle, and it caches nothing. */
static void mirror_drop(struct hmm_dma_map *map, size_t first, size_t npages)
{
	memset64(mirror_of(map)->table + first, 0, npages);
}

static const struct hmm_dma_ops mirror_dma_ops = {
	.lock = mirror_lock,
	.unlock = mirror_unlock,
	.enter = mirror_enter,
	.drop = mirror_drop,
};

static bool mirror_invalidate(struct mmu_interval_notifier *sub,
			      const struct mmu_notifier_range *range,
			      unsigned long cur_seq)
{
	struct mirror *mirror = container_of(sub, struct mirror, sub);
	unsigned long start = max(range->start, mirror->start);

	if (mmu_notifier_range_blockable(range))
		mutex_lock(&mirror->lock);
	else if (!mutex_trylock(&mirror->lock))
		return false;

	mmu_interval_set_seq(sub, cur_seq);
	hmm_dma_unmap_range(mirror_dev(mirror), &mirror->map,
			    (start - mirror->start) >> PAGE_SHIFT,
			    PHYS_PFN(range->end - start));
	mutex_unlock(&mirror->lock);
	return true;
}

static const struct mmu_interval_notifier_ops mirror_sub_ops = {
	.invalidate = mirror_invalidate,
};

/* @mirror->io is held from here on */
static int mirror_begin(struct mirror *mirror, unsigned long start,
			size_t npages)
{
	int ret;

	if (mirror->npages)
		return -EBUSY;
	if (!npages || npages > MIRROR_PAGES)
		return -EINVAL;

	mirror->table = kvcalloc(npages, sizeof(*mirror->table), GFP_KERNEL);
	if (!mirror->table)
		return -ENOMEM;
	mirror->map.ops = &mirror_dma_ops;
	ret = hmm_dma_map_alloc(mirror_dev(mirror), &mirror->map, npages,
				PAGE_SIZE);
	if (ret)
		goto free_table;
	mirror->start = start;
	ret = mmu_interval_notifier_insert(&mirror->sub, current->mm, start,
					   npages << PAGE_SHIFT,
					   &mirror_sub_ops);
	if (ret)
		goto free_map;
	mirror->npages = npages;
	return 0;

free_map:
	hmm_dma_map_free(mirror_dev(mirror), &mirror->map);
free_table:
	kvfree(mirror->table);
	mirror->table = NULL;
	return ret;
}

static void mirror_end(struct mirror *mirror)
{
	if (!mirror->npages)
		return;
	/* While the subscription stands, the pages are there to be made dirty. */
	mutex_lock(&mirror->lock);
	hmm_dma_unmap_range(mirror_dev(mirror), &mirror->map, 0, mirror->npages);
	mutex_unlock(&mirror->lock);
	mmu_interval_notifier_remove(&mirror->sub);
	hmm_dma_map_free(mirror_dev(mirror), &mirror->map);
	kvfree(mirror->table);
}

/* ---- Accesses of the device ---- */

static int mirror_fault(struct mirror *mirror, size_t first, size_t npages,
			bool write)
{
	unsigned long start = mirror->start + (first << PAGE_SHIFT);
	struct hmm_range range = {
		.notifier = &mirror->sub,
		.start = start,
		.end = start + (npages << PAGE_SHIFT),
		.default_flags = HMM_PFN_REQ_FAULT |
				 (write ? HMM_PFN_REQ_WRITE : 0),
	};
	long ret;

	ret = hmm_dma_map_range(mirror_dev(mirror), &mirror->map, first, &range,
				msecs_to_jiffies(10 * HMM_RANGE_DEFAULT_TIMEOUT));
	return min(ret, 0L);
}

/* The device's own translation; @mirror->lock is held */
static bool mirror_translate(const struct mirror *mirror, unsigned long addr,
			     bool write, dma_addr_t *dma)
{
	u64 entry = mirror->table[(addr - mirror->start) >> PAGE_SHIFT];

	if (!(entry & (write ? ENTRY_WRITE : ENTRY_VALID)))
		return false;
	*dma = (entry & PAGE_MASK) + offset_in_page(addr);
	return true;
}

static bool mirror_has(struct mirror *mirror, unsigned long addr, bool write)
{
	dma_addr_t dma;
	bool has;

	mutex_lock(&mirror->lock);
	has = mirror_translate(mirror, addr, write, &dma);
	mutex_unlock(&mirror->lock);
	return has;
}

/* Between the device's buffer and the process; -EAGAIN if there is no entry */
static int mirror_transfer(struct mirror *mirror, unsigned long addr,
			   size_t bytes, bool write)
{
	struct edu *edu = mirror->edu;
	int ret = -EAGAIN;
	dma_addr_t dma;

	mutex_lock(&mirror->lock);
	if (mirror_translate(mirror, addr, write, &dma))
		ret = write ? edu_store(edu, dma, bytes) :
			      edu_load(edu, dma, bytes);
	mutex_unlock(&mirror->lock);
	return ret;
}

/* Between the landing and the process, all within one page */
static int mirror_copy(struct mirror *mirror, unsigned long addr, size_t bytes,
		       bool write)
{
	struct edu *edu = mirror->edu;
	int ret = 0;

	mutex_lock(&edu->engine);
	if (write)
		ret = edu_load(edu, mirror->landing_dma, bytes);
	if (!ret)
		ret = mirror_transfer(mirror, addr, bytes, write);
	if (!ret && !write)
		ret = edu_store(edu, mirror->landing_dma, bytes);
	mutex_unlock(&edu->engine);
	return ret;
}

static int mirror_access(struct mirror *mirror, unsigned long addr,
			 size_t bytes, bool write)
{
	size_t idx = (addr - mirror->start) >> PAGE_SHIFT;
	int ret, tries = MIRROR_TRIES;

	do {
		if (fatal_signal_pending(current))
			return -EINTR;
		if (!mirror_has(mirror, addr, write)) {
			ret = mirror_fault(mirror, idx, 1, write);
			if (ret)
				return ret;
		}
		ret = mirror_copy(mirror, addr, bytes, write);
	} while (ret == -EAGAIN && --tries);
	return ret == -EAGAIN ? -EBUSY : ret;
}

/* ---- The file ---- */

static int edu_open(struct inode *inode, struct file *file)
{
	struct edu *edu = container_of(file->private_data, struct edu, misc);
	struct mirror *mirror;

	if (!current->mm)
		return -EINVAL;
	mirror = kzalloc(sizeof(*mirror), GFP_KERNEL);
	if (!mirror)
		return -ENOMEM;
	mirror->landing = dma_alloc_coherent(&edu->pdev->dev, EDU_BUFFER_SIZE,
					     &mirror->landing_dma, GFP_KERNEL);
	if (!mirror->landing) {
		kfree(mirror);
		return -ENOMEM;
	}
	mirror->edu = edu;
	atomic_inc(&edu->opens);
	mutex_init(&mirror->io);
	mutex_init(&mirror->lock);
	file->private_data = mirror;
	return 0;
}

static int edu_release(struct inode *inode, struct file *file)
{
	struct mirror *mirror = file->private_data;
	struct edu *edu = mirror->edu;

	mirror_end(mirror);
	dma_free_coherent(mirror_dev(mirror), EDU_BUFFER_SIZE, mirror->landing,
			  mirror->landing_dma);
	mutex_destroy(&mirror->lock);
	mutex_destroy(&mirror->io);
	kfree(mirror);
	spin_lock_irq(&edu->idle.lock);
	if (atomic_dec_and_test(&edu->opens))
		wake_up_locked(&edu->idle);
	spin_unlock_irq(&edu->idle.lock);
	return 0;
}

/* Are these bytes mirrored? */
static bool mirror_covers(const struct mirror *mirror, unsigned long addr,
			  size_t bytes)
{
	size_t size = mirror->npages << PAGE_SHIFT;

	return addr >= mirror->start && addr - mirror->start <= size &&
	       bytes <= size - (addr - mirror->start);
}

/* One piece after the other, none of which crosses a page */
static ssize_t mirror_io(struct mirror *mirror, char __user *buf, size_t bytes,
			 unsigned long addr, bool write)
{
	size_t done, part;
	int ret;

	if (!mirror_covers(mirror, addr, bytes))
		return -EFAULT;
	for (done = 0; done < bytes; done += part) {
		part = min3(bytes - done, EDU_BUFFER_SIZE,
			    PAGE_SIZE - offset_in_page(addr + done));
		if (write && copy_from_user(mirror->landing, buf + done, part))
			return -EFAULT;
		ret = mirror_access(mirror, addr + done, part, write);
		if (ret)
			return ret;
		if (!write && copy_to_user(buf + done, mirror->landing, part))
			return -EFAULT;
	}
	return done;
}

static ssize_t edu_read(struct file *file, char __user *buf, size_t bytes,
			loff_t *pos)
{
	struct mirror *mirror = file->private_data;
	ssize_t ret;

	if (mutex_lock_killable(&mirror->io))
		return -EINTR;
	ret = mirror_io(mirror, buf, bytes, *pos, false);
	mutex_unlock(&mirror->io);
	return ret;
}

static ssize_t edu_write(struct file *file, const char __user *buf, size_t bytes,
			 loff_t *pos)
{
	struct mirror *mirror = file->private_data;
	ssize_t ret;

	if (mutex_lock_killable(&mirror->io))
		return -EINTR;
	ret = mirror_io(mirror, (char __user *)buf, bytes, *pos, true);
	mutex_unlock(&mirror->io);
	return ret;
}

static void mirror_look(struct mirror *mirror, size_t first,
			struct hmm_dma_cmd *cmd)
{
	u64 *table = mirror->table, entry, next = 0;
	size_t i;

	cmd->pages = 0;
	cmd->writable = 0;
	cmd->extents = 0;
	mutex_lock(&mirror->lock);
	for (i = first; i < first + cmd->npages; i++) {
		entry = table[i];
		if (entry) {
			cmd->pages++;
			cmd->writable += !!(entry & ENTRY_WRITE);
			cmd->extents += entry != next;
		}
		next = entry ? entry + PAGE_SIZE : 0;
	}
	mutex_unlock(&mirror->lock);
}

/* FAULT or LOOK */
static int mirror_serve(struct mirror *mirror, unsigned int command,
			struct hmm_dma_cmd *cmd, size_t bytes)
{
	size_t first = (cmd->addr - mirror->start) >> PAGE_SHIFT;
	int ret = 0;

	if (!mirror_covers(mirror, cmd->addr, bytes))
		return -EFAULT;
	if (command == HMM_DMA_FAULT)
		ret = mirror_fault(mirror, first, cmd->npages, cmd->write);
	if (!ret)
		mirror_look(mirror, first, cmd);
	return ret;
}

static long edu_ioctl(struct file *file, unsigned int command, unsigned long arg)
{
	struct mirror *mirror = file->private_data;
	struct hmm_dma_cmd cmd;
	size_t bytes;
	int ret;

	if (command != HMM_DMA_MIRROR && command != HMM_DMA_FAULT &&
	    command != HMM_DMA_LOOK)
		return -ENOTTY;
	if (copy_from_user(&cmd, (void __user *)arg, sizeof(cmd)))
		return -EFAULT;
	if (!cmd.npages || !PAGE_ALIGNED(cmd.addr) ||
	    check_shl_overflow(cmd.npages, PAGE_SHIFT, &bytes))
		return -EINVAL;

	if (mutex_lock_killable(&mirror->io))
		return -EINTR;
	if (command == HMM_DMA_MIRROR)
		ret = mirror_begin(mirror, cmd.addr, cmd.npages);
	else
		ret = mirror_serve(mirror, command, &cmd, bytes);
	mutex_unlock(&mirror->io);
	if (!ret && copy_to_user((void __user *)arg, &cmd, sizeof(cmd)))
		ret = -EFAULT;
	return ret;
}

static const struct file_operations edu_fops = {
	.owner = THIS_MODULE,
	.open = edu_open,
	.release = edu_release,
	.read = edu_read,
	.write = edu_write,
	.llseek = default_llseek,
	.unlocked_ioctl = edu_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

/* ---- Coming and going ---- */

static int edu_setup(struct edu *edu)
{
	struct pci_dev *pdev = edu->pdev;
	int ret;

	ret = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(64));
	if (ret)
		return ret;
	/* A transfer is within one page: runs are as long as they come. */
	dma_set_max_seg_size(&pdev->dev, UINT_MAX);
	dma_set_seg_boundary(&pdev->dev, ULONG_MAX);

	edu->regs = pcim_iomap_region(pdev, 0, "hmm_dma");
	if (IS_ERR(edu->regs))
		return PTR_ERR(edu->regs);
	if ((readl(edu->regs + EDU_ID) & EDU_ID_MASK) != EDU_ID_VALUE)
		return -ENODEV;
	ret = pci_alloc_irq_vectors(pdev, 1, 1, PCI_IRQ_ALL_TYPES);
	if (ret < 0)
		return ret;
	ret = request_irq(pci_irq_vector(pdev, 0), edu_interrupt, IRQF_SHARED,
			  "hmm_dma", edu);
	if (ret)
		pci_free_irq_vectors(pdev);
	return ret;
}

static int edu_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct edu *edu;
	int ret;

	edu = devm_kzalloc(&pdev->dev, sizeof(*edu), GFP_KERNEL);
	if (!edu)
		return -ENOMEM;
	edu->pdev = pdev;
	mutex_init(&edu->engine);
	init_completion(&edu->done);
	init_waitqueue_head(&edu->idle);
	edu->misc.minor = MISC_DYNAMIC_MINOR;
	edu->misc.name = "hmm_dma";
	edu->misc.fops = &edu_fops;
	edu->misc.parent = &pdev->dev;
	pci_set_drvdata(pdev, edu);

	ret = pcim_enable_device(pdev);
	if (ret)
		return ret;
	pci_set_master(pdev);
	ret = edu_setup(edu);
	if (ret)
		return ret;
	ret = misc_register(&edu->misc);
	if (ret) {
		free_irq(pci_irq_vector(pdev, 0), edu);
		pci_free_irq_vectors(pdev);
	}
	return ret;
}

/*
 * An open file holds the module, but not the device: who takes that away waits for
 * the file to be closed. No new one is opened then.
 */
static void edu_remove(struct pci_dev *pdev)
{
	struct edu *edu = pci_get_drvdata(pdev);

	misc_deregister(&edu->misc);
	wait_event(edu->idle, !atomic_read(&edu->opens));
	/* The one who woke us up is through with the queue */
	spin_lock_irq(&edu->idle.lock);
	spin_unlock_irq(&edu->idle.lock);
	pci_clear_master(pdev);
	free_irq(pci_irq_vector(pdev, 0), edu);
	pci_free_irq_vectors(pdev);
	mutex_destroy(&edu->engine);
}

static const struct pci_device_id edu_ids[] = {
	{ PCI_DEVICE(EDU_VENDOR, EDU_DEVICE) },
	{}
};
MODULE_DEVICE_TABLE(pci, edu_ids);

static struct pci_driver edu_driver = {
	.name = "test_hmm_dma",
	.id_table = edu_ids,
	.probe = edu_probe,
	.remove = edu_remove,
	.driver.suppress_bind_attrs = true,
};

module_pci_driver(edu_driver);
MODULE_DESCRIPTION("QEMU's edu device on a process's memory, for tests of HMM");
MODULE_LICENSE("GPL");
