// SPDX-License-Identifier: GPL-2.0
/*
 * The events go to an instance of our own, so that nobody else's tracing is in the
 * way, nor we in theirs.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <tracefs.h>

#include "trace.h"

struct trace {
	struct stats *stats;
	struct tracefs_instance *instance;
	struct tep_handle *tep;
	uint64_t next_cut;
	cut_fn cut;
};

typedef int (*event_fn)(struct tep_event *event, struct tep_record *record, int cpu,
			void *context);

/* ---- Who ---- */

bool whose_thread(struct thread *thread)
{
	char path[64], line[128];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", thread->pid);
	file = fopen(path, "r");
	if (!file)
		return false;
	while (fgets(line, sizeof(line), file)) {
		int value;

		if (sscanf(line, "Tgid: %d", &value) == 1)
			thread->tgid = value;
		else if (sscanf(line, "Kthread: %d", &value) == 1)
			thread->kernel = value;
	}
	fclose(file);
	return true;
}

void name_of(int tgid, char *name)
{
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/comm", tgid);
	file = fopen(path, "r");
	if (!file || fscanf(file, "%15[^\n]", name) != 1)
		snprintf(name, NAME_LEN, "?");
	if (file)
		fclose(file);
}

/* ---- Events ---- */

static uint64_t field(struct tep_event *event, struct tep_record *record,
		      const char *name)
{
	unsigned long long value = 0;

	/* They were all there when we began */
	tep_get_field_val(NULL, event, name, record, &value, 0);
	return value;
}

static struct thread *thread_of(struct trace *trace, struct tep_event *event,
				struct tep_record *record)
{
	while (trace->cut && record->ts >= trace->next_cut)
		trace->next_cut = trace->cut(trace->next_cut);
	return stats_thread(trace->stats, tep_data_pid(event->tep, record));
}

static struct process *process_of(struct trace *trace, struct tep_event *event,
				  struct tep_record *record)
{
	struct thread *thread = thread_of(trace, event, record);

	return stats_process(trace->stats, field(event, record, "mm"), thread);
}

static int on_range_end(struct tep_event *event, struct tep_record *record, int cpu,
			void *context)
{
	struct trace *trace = context;
	struct process *process = process_of(trace, event, record);
	uint64_t start = field(event, record, "start");

	stats_count_at(trace->stats, process, start, FAULTS,
		       field(event, record, "faults"));
	stats_count_pages(trace->stats, process, start, field(event, record, "pages"));
	return 0;
}

static int on_collision(struct tep_event *event, struct tep_record *record, int cpu,
			void *context)
{
	struct trace *trace = context;

	stats_count_at(trace->stats, process_of(trace, event, record),
		       field(event, record, "addr"), COLLISIONS, 1);
	return 0;
}

static int on_bracket(struct tep_event *event, struct tep_record *record, int cpu,
		      void *context)
{
	struct trace *trace = context;
	struct process *process = process_of(trace, event, record);

	thread_of(trace, event, record)->bracket = field(event, record, "mm");
	stats_count_at(trace->stats, process, field(event, record, "start"), BRACKETS,
		       1);
	return 0;
}

/* A subscription has been told, and whoever reads under it must retry */
static int on_hit(struct tep_event *event, struct tep_record *record, int cpu,
		  void *context)
{
	stats_count(process_of(context, event, record), HITS, 1);
	return 0;
}

static int on_wait(struct tep_event *event, struct tep_record *record, int cpu,
		   void *context)
{
	struct process *process = process_of(context, event, record);

	stats_count(process, WAITS, 1);
	stats_count(process, WAIT_NS, field(event, record, "value"));
	return 0;
}

/*
 * The events of a migration tell no mm. To collect its pages a thread begins a
 * bracket, though, and that one does.
 */
static int on_collect(struct tep_event *event, struct tep_record *record, int cpu,
		      void *context)
{
	struct thread *thread = thread_of(context, event, record);

	thread->migrates = thread->bracket;
	return 0;
}

static int on_migrated(struct tep_event *event, struct tep_record *record, int cpu,
		       void *context)
{
	struct trace *trace = context;
	struct thread *thread = thread_of(trace, event, record);

	stats_count(stats_process(trace->stats, thread->migrates, thread), MIGRATED,
		    field(event, record, "moved") + field(event, record, "filled"));
	return 0;
}

static int on_finalized(struct tep_event *event, struct tep_record *record, int cpu,
			void *context)
{
	struct thread *thread = thread_of(context, event, record);

	thread->bracket = 0;
	thread->migrates = 0;
	return 0;
}

static int on_lost(struct tep_event *event, struct tep_record *record, int cpu,
		   void *context)
{
	struct trace *trace = context;

	/* Below zero: nobody knows how many */
	trace->stats->lost += record->missed_events > 0 ? record->missed_events : 1;
	return 0;
}

static const struct {
	const char *system, *name;
	event_fn fn;
	const char *fields[5];	/* that @fn asks for */
} events[] = {
	{ "hmm", "hmm_range_end", on_range_end, { "mm", "start", "faults", "pages" } },
	{ "hmm", "hmm_collision", on_collision, { "mm", "addr" } },
	{ "mmu_notifier", "mmu_notifier_start", on_bracket, { "mm", "start" } },
	{ "mmu_notifier", "mmu_notifier_collision", on_hit, { "mm" } },
	{ "mmu_notifier", "mmu_notifier_wait", on_wait, { "mm", "value" } },
	{ "migrate_device", "migrate_device_collect", on_collect },
	{ "migrate_device", "migrate_device_pages", on_migrated, { "moved", "filled" } },
	{ "migrate_device", "migrate_device_finalize", on_finalized },
};

#define FIRST_OPTIONAL	5	/* a kernel need not have device memory */

/* ---- Beginning and end ---- */

static bool complain(const char *what)
{
	fprintf(stderr, "hmmtop: %s: %s\n", what, strerror(errno));
	return false;
}

static bool has_fields(struct tep_event *event, const char * const *names)
{
	int i;

	for (i = 0; names[i]; i++) {
		if (tep_find_any_field(event, names[i]))
			continue;
		fprintf(stderr, "hmmtop: event %s has no field %s: another kernel's?\n",
			event->name, names[i]);
		return false;
	}
	return true;
}

static bool follow(struct trace *trace, size_t i)
{
	struct tep_event *event = tep_find_event_by_name(trace->tep, events[i].system,
							 events[i].name);

	if (!event && i >= FIRST_OPTIONAL)
		return true;
	if (!event) {
		fprintf(stderr, "hmmtop: this kernel has no tracepoint %s:%s\n",
			events[i].system, events[i].name);
		return false;
	}
	if (!has_fields(event, events[i].fields))
		return false;
	if (tracefs_follow_event(trace->tep, trace->instance, events[i].system,
				 events[i].name, events[i].fn, trace) ||
	    tracefs_event_enable(trace->instance, events[i].system, events[i].name))
		return complain(events[i].name);
	return true;
}

static bool set_up(struct trace *trace, unsigned int buffer_kib)
{
	static const char * const systems[] = {
		"hmm", "mmu_notifier", "migrate_device", NULL
	};
	char name[32];
	size_t i;

	if (!tracefs_tracing_dir())
		return complain("no tracefs: is this root, with CONFIG_TRACING?");
	trace->tep = tracefs_local_events_system(NULL, systems);
	if (!trace->tep)
		return complain("reading the formats of events");
	snprintf(name, sizeof(name), "hmmtop-%d", getpid());
	trace->instance = tracefs_instance_create(name);
	if (!trace->instance)
		return complain("creating an instance of tracing (root only)");
	if (tracefs_instance_set_buffer_size(trace->instance, buffer_kib, -1) < 0)
		return complain("setting the size of the buffers");
	if (tracefs_instance_file_write(trace->instance, "trace_clock", "mono") < 0)
		return complain("setting the clock");
	if (tracefs_follow_missed_events(trace->instance, on_lost, trace))
		return complain("following lost events");
	for (i = 0; i < ARRAY_LEN(events); i++)
		if (!follow(trace, i))
			return false;
	return true;
}

struct trace *trace_begin(struct stats *stats, unsigned int buffer_kib)
{
	struct trace *trace = allocate(1, sizeof(*trace));

	trace->stats = stats;
	if (set_up(trace, buffer_kib))
		return trace;
	trace_end(trace);
	return NULL;
}

void trace_cut(struct trace *trace, uint64_t when, cut_fn cut)
{
	trace->next_cut = when;
	trace->cut = cut;
}

bool trace_read(struct trace *trace)
{
	if (tracefs_iterate_raw_events(trace->tep, trace->instance, NULL, 0, NULL, NULL))
		return complain("reading events");
	return true;
}

void trace_stop(struct trace *trace)
{
	tracefs_trace_off(trace->instance);
}

void trace_end(struct trace *trace)
{
	if (trace->instance) {
		tracefs_trace_off(trace->instance);
		tracefs_event_disable(trace->instance, NULL, NULL);
		tracefs_instance_destroy(trace->instance);
		tracefs_instance_free(trace->instance);
	}
	if (trace->tep)
		tep_free(trace->tep);
	free(trace);
}
