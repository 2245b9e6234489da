// SPDX-License-Identifier: GPL-2.0
/*
 * A device that works on a process's memory, made of nothing but software.
 *
 * Opening /dev/hmm_dmirrorN gives the device a view of the opener's address space,
 * for as long as the file is open, whoever has it then. The ioctls are the work that
 * it is given: to read, write and describe memory of that process
 * (test_hmm_shadow.c), and to take it to itself and give it back
 * (test_hmm_memory.c).
 */
#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/gfp.h>
#include <linux/hmm.h>
#include <linux/hmm_mirror.h>
#include <linux/init.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/overflow.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/xarray.h>

#include "test_hmm.h"
#include "test_hmm_uapi.h"

/*
 * Minors: two devices of private memory, two of coherent memory. The latter
 * need memory of their own to exist.
 */
#define TDEV_MINORS	4
#define TDEV_PRIVATE	2

/* What one mmap() of the device may take. */
#define MMAP_PAGES	256UL

/* ---- The files ---- */

static int tdev_open(struct inode *inode, struct file *file)
{
	struct shadow *shadow;

	/* A kernel thread has no address space to shadow. */
	if (!current->mm)
		return -EINVAL;
	shadow = tdev_shadow_create(container_of(inode->i_cdev, struct tdev, cdev),
				    current->mm);
	if (IS_ERR(shadow))
		return PTR_ERR(shadow);
	file->private_data = shadow;
	return nonseekable_open(inode, file);
}

static int tdev_release(struct inode *inode, struct file *file)
{
	struct shadow *shadow = file->private_data;

	hmm_mirror_unregister(&shadow->mirror);
	return 0;
}

/*
 * Whole pages, at least one, not past the end of the number space. Where the
 * run lies in the address space is for the page-table walk to judge.
 */
static int access_init(struct access *acc, const struct hmm_dmirror_cmd *cmd)
{
	unsigned long size;

	if (!cmd->npages || !PAGE_ALIGNED(cmd->addr))
		return -EINVAL;
	if (check_shl_overflow(cmd->npages, PAGE_SHIFT, &size) ||
	    check_add_overflow(cmd->addr, size, &acc->end))
		return -EINVAL;
	acc->next = acc->end - size;
	acc->buf = u64_to_user_ptr(cmd->ptr);
	acc->pages = cmd->npages;
	return 0;
}

/* What the device is asked for. */
static const struct request {
	unsigned int command;
	bool write;
	int (*run)(struct access *acc);
} requests[] = {
	{ .command = HMM_DMIRROR_READ, .run = tdev_access },
	{ .command = HMM_DMIRROR_WRITE, .run = tdev_access, .write = true },
	{ .command = HMM_DMIRROR_SNAPSHOT, .run = tdev_snapshot },
	{ .command = HMM_DMIRROR_MIGRATE_TO_DEV, .run = tdev_migrate },
	{ .command = HMM_DMIRROR_MIGRATE_TO_SYS, .run = tdev_migrate_to_sys },
	{ .command = HMM_DMIRROR_EXCLUSIVE, .run = tdev_exclusive },
	{ .command = HMM_DMIRROR_CHECK_EXCLUSIVE, .run = tdev_check_exclusive },
	{ .command = HMM_DMIRROR_RELEASE, .run = tdev_unplug },
};

static int request_run(const struct request *req, struct access *acc)
{
	struct hmm_mirror *mirror = &acc->shadow->mirror;
	unsigned long pages = (acc->end - acc->next) >> PAGE_SHIFT;
	int ret = -ENOMEM;

	/* A file that outlived its process through fork() shadows nothing. */
	if (!hmm_mirror_mmget(mirror))
		return -ESRCH;
	acc->range.hmm_pfns = kvmalloc_array(min(pages, TDEV_WINDOW_PAGES),
					     sizeof(*acc->range.hmm_pfns),
					     GFP_KERNEL);
	if (acc->range.hmm_pfns) {
		acc->write = req->write;
		ret = req->run(acc);
	}
	kvfree(acc->range.hmm_pfns);
	hmm_mirror_mmput(mirror);
	return ret;
}

static long request_serve(const struct request *req, struct shadow *shadow,
			  struct hmm_dmirror_cmd __user *ucmd)
{
	struct access acc = {
		.shadow = shadow,
		.xas = __XA_STATE(&shadow->table, 0, 0, 0),
	};
	struct hmm_dmirror_cmd cmd;
	int ret;

	if (copy_from_user(&cmd, ucmd, sizeof(cmd)))
		return -EFAULT;
	ret = access_init(&acc, &cmd);
	if (!ret)
		ret = request_run(req, &acc);
	if (ret)
		return ret;

	cmd.cpages = acc.pages;
	cmd.faults = acc.batches;
	return copy_to_user(ucmd, &cmd, sizeof(cmd)) ? -EFAULT : 0;
}

static long tdev_ioctl(struct file *file, unsigned int command,
		       unsigned long arg)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(requests); i++)
		if (requests[i].command == command)
			return request_serve(&requests[i], file->private_data,
					     (void __user *)arg);
	return -EINVAL;
}

/*
 * Kernel pages in a user mapping, a sight that a snapshot has to cope with.
 * A private mapping gets them read-only, and copies on the first write.
 */
static int tdev_mmap(struct file *file, struct vm_area_struct *vma)
{
	unsigned long addr;
	struct page *page;
	int ret = 0;

	if (vma_pages(vma) > MMAP_PAGES)
		return -EINVAL;
	vm_flags_set(vma, VM_DONTEXPAND);
	for (addr = vma->vm_start; addr < vma->vm_end && !ret;
	     addr += PAGE_SIZE) {
		page = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);
		if (!page)
			return -ENOMEM;
		ret = vm_insert_page(vma, addr, page);
		/* From here on the mapping is the page's only owner. */
		put_page(page);
	}
	return ret;
}

static const struct file_operations tdev_fops = {
	.owner = THIS_MODULE,
	.open = tdev_open,
	.release = tdev_release,
	.unlocked_ioctl = tdev_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = tdev_mmap,
};

/* ---- Coming and going ---- */

static ulong spm_addr_dev0;
module_param(spm_addr_dev0, ulong, 0644);
MODULE_PARM_DESC(spm_addr_dev0,
		 "Address of 256 MiB of reserved memory, for a device that is coherent");

static ulong spm_addr_dev1;
module_param(spm_addr_dev1, ulong, 0644);
MODULE_PARM_DESC(spm_addr_dev1, "The same, for the other one. It takes both");

static dev_t tdev_first;
static struct class *tdev_class;
static struct tdev tdevs[TDEV_MINORS];
static unsigned int tdev_present;

static int tdev_add(unsigned int n)
{
	struct tdev *tdev = &tdevs[n];
	struct device *dev;
	int ret;

	tdev->type = n < TDEV_PRIVATE ? MEMORY_DEVICE_PRIVATE :
					MEMORY_DEVICE_COHERENT;
	snprintf(tdev->name, sizeof(tdev->name), "hmm_dmirror%u", n);
	ret = tdev_memory_init(tdev);
	if (ret)
		return ret;
	cdev_init(&tdev->cdev, &tdev_fops);
	tdev->cdev.owner = THIS_MODULE;
	ret = cdev_add(&tdev->cdev, tdev_first + n, 1);
	if (ret)
		goto drop_memory;
	dev = device_create(tdev_class, NULL, tdev_first + n, NULL, "%s",
			    tdev->name);
	if (!IS_ERR(dev))
		return 0;
	ret = PTR_ERR(dev);
	cdev_del(&tdev->cdev);
drop_memory:
	tdev_memory_exit(tdev);
	return ret;
}

static void tdev_del(unsigned int n)
{
	device_destroy(tdev_class, tdev_first + n);
	cdev_del(&tdevs[n].cdev);
	tdev_memory_exit(&tdevs[n]);
}

static void tdev_del_all(void)
{
	while (tdev_present)
		tdev_del(--tdev_present);
}

static int tdev_add_all(void)
{
	unsigned int wanted = TDEV_PRIVATE;
	int ret;

	if (spm_addr_dev0 && spm_addr_dev1) {
		tdevs[TDEV_PRIVATE].spm_addr = spm_addr_dev0;
		tdevs[TDEV_PRIVATE + 1].spm_addr = spm_addr_dev1;
		wanted = TDEV_MINORS;
	}
	for (; tdev_present < wanted; tdev_present++) {
		ret = tdev_add(tdev_present);
		if (ret) {
			tdev_del_all();
			return ret;
		}
	}
	return 0;
}

static int __init tdev_init(void)
{
	int ret;

	ret = alloc_chrdev_region(&tdev_first, 0, TDEV_MINORS, "HMM_DMIRROR");
	if (ret)
		return ret;
	tdev_class = class_create("hmm_dmirror");
	if (IS_ERR(tdev_class)) {
		ret = PTR_ERR(tdev_class);
		goto drop_region;
	}
	ret = tdev_add_all();
	if (ret)
		goto drop_class;
	return 0;

drop_class:
	class_destroy(tdev_class);
drop_region:
	unregister_chrdev_region(tdev_first, TDEV_MINORS);
	return ret;
}

static void __exit tdev_exit(void)
{
	tdev_del_all();
	class_destroy(tdev_class);
	unregister_chrdev_region(tdev_first, TDEV_MINORS);
}

module_init(tdev_init);
module_exit(tdev_exit);
MODULE_DESCRIPTION("Dummy device on a process's memory, for tests of HMM");
MODULE_LICENSE("GPL");
