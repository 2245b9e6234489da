/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _SAMPLES_HMM_MANUAL_H
#define _SAMPLES_HMM_MANUAL_H

/*
 * What the driver of the manual has beside what the manual is about: objects, and
 * what it does to its device. See hmm_manual.c.
 */

#include <linux/dma-fence.h>
#include <linux/hmm.h>
#include <linux/hmm-dma.h>
#include <linux/hmm_devmem.h>
#include <linux/hmm_mirror.h>
#include <linux/migrate.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/spinlock.h>
#include <linux/xarray.h>

#define MY_PTE_VALID	BIT_ULL(0)
#define MY_PTE_WRITE	BIT_ULL(1)
#define MY_PTE_VRAM	BIT_ULL(2)
#define MY_NODES	4
#define MY_CHUNK	512UL

struct my_table;
struct my_chunk;
struct my_flush;

/* ---- buffer ---- */
struct my_buffer {
	struct mmu_interval_notifier sub;
	struct mutex lock;		/* guards the table */
	struct my_table *table;		/* what the device walks */
};

/* ---- context ---- */
struct my_context {
	struct hmm_mirror mirror;
	struct mutex lock;		/* guards the table */
	struct my_table *table;
};

/* ---- tree ---- */
struct my_tree {
	struct hmm_mirror mirror;
	struct mutex lock;		/* guards what the device may use */
	struct xarray pages;		/* tagged with 1 if it may write */
};

/* ---- vm ---- */
struct my_vm {
	struct mmu_notifier mn;
	spinlock_t lock;		/* guards all below */
	unsigned long open;		/* brackets in flight */
	unsigned long closed;		/* brackets that have ended */
	struct my_table *table;
};

/* ---- the rest ---- */
struct my_dma_buffer {
	struct mmu_interval_notifier sub;
	spinlock_t lock;		/* guards the mappings */
	struct hmm_dma_map map;
	struct device *dev;
	unsigned long start;
};

struct my_gpu {
	struct device *dev;
	struct hmm_devmem *vram;
	struct hmm_devmem *hbm[MY_NODES];
};

/* Tables */
void my_table_enter(struct my_table *table, unsigned long addr, unsigned long pfn,
		    unsigned long npages, bool write);
void my_table_set(struct my_table *table, unsigned long addr, u64 entry);
void my_table_clear(struct my_table *table, unsigned long first, unsigned long last);
void my_table_write_protect(struct my_table *table, unsigned long first,
			    unsigned long last);
void my_table_free_empty(struct my_table *table, unsigned long first,
			 unsigned long last);

/* Flushes: the first two poll, which does not sleep */
void my_flush_and_wait(struct my_table *table);
void my_flush_tlb_and_wait(struct hmm_dma_map *map);
struct my_flush *my_flush_begin(struct my_buffer *buf,
				const struct mmu_notifier_range *range);
void my_flush_put(struct my_flush *flush);

/* DMA */
void my_set_entry(size_t idx, dma_addr_t addr, bool write);
void my_clear_entries(size_t first, size_t npages);

/* Memory, and copies of it */
u64 my_vram_size(struct my_gpu *gpu);
int my_start(struct my_gpu *gpu);
int my_node_of(struct my_gpu *gpu, int i);
void my_chunk_put(struct my_gpu *gpu, struct my_chunk *chunk);
void my_copy_to_vram(struct my_gpu *gpu, u64 to, struct page *from);
void my_clear_vram(struct my_gpu *gpu, u64 to);
void my_copy_from_vram(struct my_gpu *gpu, struct page *to, u64 from);
void my_wait_for_copies(struct my_gpu *gpu);
bool my_vram_in_use(struct my_gpu *gpu);

extern const struct hmm_devmem_ops my_hbm_ops;
void my_pgmap_page_free(struct page *page);

#endif /* _SAMPLES_HMM_MANUAL_H */
