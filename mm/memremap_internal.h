/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MM_MEMREMAP_INTERNAL_H
#define _MM_MEMREMAP_INTERNAL_H

/* What the files of device memory have in common, and nobody else sees */

struct dev_pagemap;
struct vmem_altmap;
struct zone;

void device_pages_init(struct dev_pagemap *pgmap, struct vmem_altmap *altmap,
		       struct zone *zone, unsigned long pfn, unsigned long nr);

#endif /* _MM_MEMREMAP_INTERNAL_H */
