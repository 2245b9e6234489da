/* SPDX-License-Identifier: GPL-2.0 */
/* The tracepoints of HMM, MMU notifiers and migration, counted as they come. */
#ifndef HMMTOP_TRACE_H
#define HMMTOP_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "stats.h"

struct trace;

/*
 * Each event is handed to @stats. Before one that happened at or after @trace_cut(),
 * in nanoseconds of CLOCK_MONOTONIC, @cut is called, which tells when the next such
 * moment is.
 */
typedef uint64_t (*cut_fn)(uint64_t now);

/* NULL, with the reason on stderr, if this kernel does not let us */
struct trace *trace_begin(struct stats *stats, unsigned int buffer_kib);
void trace_cut(struct trace *trace, uint64_t when, cut_fn cut);
/* Everything that has happened so far; false if it cannot be read */
bool trace_read(struct trace *trace);
/* No more events; those that have happened can still be read */
void trace_stop(struct trace *trace);
void trace_end(struct trace *trace);

/* Who a thread and a process are; from /proc, as long as they are there */
bool whose_thread(struct thread *thread);
void name_of(int tgid, char *name);

#endif /* HMMTOP_TRACE_H */
