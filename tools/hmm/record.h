/* SPDX-License-Identifier: GPL-2.0 */
/* What was counted, sample by sample, in a file; see README for what is in it. */
#ifndef HMMTOP_RECORD_H
#define HMMTOP_RECORD_H

#include <stdio.h>

#include "stats.h"

void record_begin(FILE *file);
/* A sample that ended so many seconds after the beginning, and how long it was */
void record_sample(FILE *file, const struct stats *stats, double at, double length);

/* Draw a record with gnuplot, as SVG on stdout; the exit status */
int plot(const char *path);

#endif /* HMMTOP_RECORD_H */
