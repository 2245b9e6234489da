// SPDX-License-Identifier: GPL-2.0
/*
 * hmmtop - what devices do to the memory of processes, while they do it
 *
 * Counts the events of HMM, MMU notifiers and migration for each process, and shows
 * how many there are in a second, as top does with CPU time.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "record.h"
#include "stats.h"
#include "trace.h"

/* The buffers are read so often: names are only to be had of what still runs */
#define READ_NS		(NSEC_PER_SEC / 10)

static struct {
	double delay;
	long samples;		/* 0: until a signal */
	long pid;		/* 0: all */
	long rows;		/* of each table */
	long block_kib;
	long buffer_kib;
	enum counter sort;
	bool batch;
	const char *record;
} options = {
	.delay = 1, .rows = 10, .block_kib = 2048, .buffer_kib = 4096,
	.sort = FAULTS,
};

static struct stats stats = { .whose = whose_thread, .name = name_of };
static FILE *record_file;
static uint64_t began, sample_began;
static long samples_done;
static atomic_bool over;

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * NSEC_PER_SEC + now.tv_nsec;
}

/* ---- The view ---- */

static const struct {
	const char *title;
	int width;
	enum counter counter;
	double unit;
} columns[] = {
	{ "faults", 7, FAULTS, 1 },
	{ "pages", 8, PAGES, 1 },
	{ "collide", 8, COLLISIONS, 1 },
	{ "waits", 6, WAITS, 1 },
	{ "wait-ms", 8, WAIT_NS, 1e6 },
	{ "inval", 6, BRACKETS, 1 },
	{ "hits", 6, HITS, 1 },
	{ "migrate", 8, MIGRATED, 1 },
};

/* Is it counted for blocks as well? */
static bool in_blocks(enum counter counter)
{
	return counter == FAULTS || counter == PAGES || counter == COLLISIONS ||
	       counter == BRACKETS;
}

static void show_titles(bool blocks)
{
	size_t i;

	for (i = 0; i < ARRAY_LEN(columns); i++)
		if (!blocks || in_blocks(columns[i].counter))
			printf("%*s", columns[i].width, columns[i].title);
	putchar('\n');
}

static void show_counts(const struct counts *counts, double length, bool blocks)
{
	size_t i;

	for (i = 0; i < ARRAY_LEN(columns); i++) {
		double rate = counts->n[columns[i].counter] / columns[i].unit / length;

		if (!blocks || in_blocks(columns[i].counter))
			printf("%*.0f", columns[i].width, rate);
	}
	putchar('\n');
}

static bool chosen(const struct process *process)
{
	return !options.pid || process->tgid == options.pid;
}

static void show_processes(double length)
{
	struct process **rows;
	size_t i, nr;
	long left = options.rows;

	rows = stats_processes(&stats, options.sort, &nr);
	printf("%7s %-15s", "pid", "process");
	show_titles(false);
	for (i = 0; i < nr && left; i++) {
		if (!chosen(rows[i]))
			continue;
		printf("%7d %-15s", rows[i]->tgid, rows[i]->name);
		show_counts(&rows[i]->counts, length, false);
		left--;
	}
	free(rows);
}

static void show_blocks(double length)
{
	enum counter sort = in_blocks(options.sort) ? options.sort : FAULTS;
	struct block **rows;
	size_t i, nr;
	long left = options.rows;

	rows = stats_blocks(&stats, sort, &nr);
	printf("\n%7s %-31s", "pid", "range");
	show_titles(true);
	for (i = 0; i < nr && left; i++) {
		unsigned long start = rows[i]->start;

		if (!chosen(rows[i]->process))
			continue;
		printf("%7d %-15lx %-15lx", rows[i]->process->tgid, start,
		       start + (unsigned long)stats.block_size);
		show_counts(&rows[i]->counts, length, true);
		left--;
	}
	free(rows);
}

static void show(double at, double length)
{
	/* Home, and nothing left of the last view */
	if (!options.batch)
		fputs("\033[H\033[2J", stdout);
	printf("hmmtop: at %.1f s, in a second of the last %.1f", at, length);
	if (stats.lost)
		printf("; at least %llu events LOST", stats.lost);
	fputs("\n\n", stdout);
	show_processes(length);
	show_blocks(length);
	if (options.batch)
		putchar('\n');
	fflush(stdout);
}

/* ---- Samples ---- */

static void end_sample(uint64_t now)
{
	double length = (double)(now - sample_began) / NSEC_PER_SEC;
	double at = (double)(now - began) / NSEC_PER_SEC;

	if (record_file)
		record_sample(record_file, &stats, at, length);
	else
		show(at, length);
	stats_next(&stats);
	sample_began = now;
}

static uint64_t sample_end(void)
{
	return sample_began + (uint64_t)(options.delay * NSEC_PER_SEC);
}

static bool enough(void)
{
	return options.samples && samples_done >= options.samples;
}

/* An event is the first of the next sample */
static uint64_t cut(uint64_t now)
{
	if (enough() || over)
		return UINT64_MAX;
	end_sample(now);
	samples_done++;
	return enough() ? UINT64_MAX : sample_end();
}

static void stop(int signal)
{
	over = true;
}

static void nap(void)
{
	struct timespec time = { .tv_nsec = READ_NS };

	nanosleep(&time, NULL);
}

/*
 * A sample ends at its time, be it that an event tells so or the clock. What has
 * happened before the buffers are read is in them.
 */
static bool watch(struct trace *trace)
{
	bool ok = true;

	began = now_ns();
	sample_began = began;
	trace_cut(trace, sample_end(), cut);
	while (ok && !over && !enough()) {
		uint64_t now;

		nap();
		now = now_ns();
		ok = trace_read(trace);
		while (ok && !over && !enough() && now >= sample_end())
			trace_cut(trace, cut(sample_end()), cut);
	}
	trace_stop(trace);
	/* The sample that a signal has ended is shorter */
	if (ok && over && !enough()) {
		ok = trace_read(trace);
		end_sample(now_ns());
	}
	return ok;
}

static bool bad_record(void)
{
	fprintf(stderr, "hmmtop: %s: %s\n", options.record, strerror(errno));
	return false;
}

/* By the first lines others see that nothing is missed from now on */
static bool begin_output(void)
{
	if (!options.record) {
		puts("hmmtop: watching");
		fflush(stdout);
		return true;
	}
	record_file = fopen(options.record, "w");
	if (!record_file)
		return bad_record();
	record_begin(record_file);
	return true;
}

static int run(void)
{
	struct sigaction action = { .sa_handler = stop };
	struct trace *trace;
	bool ok;

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	trace = trace_begin(&stats, options.buffer_kib);
	if (!trace)
		return 1;
	ok = begin_output() && watch(trace);
	trace_end(trace);
	stats_free(&stats);
	if (record_file && fclose(record_file))
		ok = bad_record();
	return !ok;
}

/* ---- Options ---- */

static const char usage[] =
"usage: hmmtop [-b] [-d SECONDS] [-n COUNT] [-p PID] [-r ROWS] [-s COLUMN]\n"
"       hmmtop --record FILE [-d SECONDS] [-n COUNT]\n"
"       hmmtop --plot FILE > FILE.svg\n"
"\n"
"  -b, --batch           one table after the other, nothing cleared\n"
"  -d, --delay=SECONDS   length of a sample (1)\n"
"  -n, --samples=COUNT   end after so many\n"
"  -p, --pid=PID         show this process only\n"
"  -r, --rows=ROWS       of each table at most (10)\n"
"  -s, --sort=COLUMN     most of this first (faults): pages, collisions, waits,\n"
"                        wait_ns, brackets, hits, migrated\n"
"      --block=KIB       size of what is shown as a range (2048)\n"
"      --buffer=KIB      of each CPU, for events (4096)\n"
"      --record=FILE     write counts to FILE instead, until interrupted\n"
"      --plot=FILE       draw a record; needs gnuplot\n"
"  -h, --help            this\n";

static void wrong(const char *option, const char *value, const char *wanted)
{
	fprintf(stderr, "hmmtop: --%s=%s: %s\n", option, value, wanted);
	exit(2);
}

static long parse_number(const char *option, const char *value, long least)
{
	long found;
	char *end;

	errno = 0;
	found = strtol(value, &end, 10);
	if (errno || end == value || *end || found < least || found > 1 << 30)
		wrong(option, value, least ? "a number above zero" : "a number");
	return found;
}

static void set_delay(const char *value)
{
	char *end;

	options.delay = strtod(value, &end);
	if (end == value || *end || !(options.delay >= 0.1 && options.delay <= 3600))
		wrong("delay", value, "seconds, 0.1 to 3600");
}

static void set_block(const char *value)
{
	options.block_kib = parse_number("block", value, 1);
	if ((options.block_kib & (options.block_kib - 1)) ||
	    options.block_kib * 1024 < sysconf(_SC_PAGESIZE))
		wrong("block", value, "a power of two, a page at least");
}

static void set_sort(const char *value)
{
	int counter = counter_by_name(value);

	if (counter < 0)
		wrong("sort", value, "no such column");
	options.sort = counter;
}

enum { BLOCK = 256, BUFFER, RECORD, PLOT };

static const struct option long_options[] = {
	{ "batch", no_argument, NULL, 'b' },
	{ "delay", required_argument, NULL, 'd' },
	{ "samples", required_argument, NULL, 'n' },
	{ "pid", required_argument, NULL, 'p' },
	{ "rows", required_argument, NULL, 'r' },
	{ "sort", required_argument, NULL, 's' },
	{ "block", required_argument, NULL, BLOCK },
	{ "buffer", required_argument, NULL, BUFFER },
	{ "record", required_argument, NULL, RECORD },
	{ "plot", required_argument, NULL, PLOT },
	{ "help", no_argument, NULL, 'h' },
	{}
};

static void set_option(int c)
{
	switch (c) {
	case 'b':
		options.batch = true;
		break;
	case 'd':
		set_delay(optarg);
		break;
	case 'n':
		options.samples = parse_number("samples", optarg, 1);
		break;
	case 'p':
		options.pid = parse_number("pid", optarg, 1);
		break;
	case 'r':
		options.rows = parse_number("rows", optarg, 1);
		break;
	case 's':
		set_sort(optarg);
		break;
	case BLOCK:
		set_block(optarg);
		break;
	case BUFFER:
		options.buffer_kib = parse_number("buffer", optarg, 1);
		break;
	case RECORD:
		options.record = optarg;
		break;
	case PLOT:
		exit(plot(optarg));
	case 'h':
		fputs(usage, stdout);
		exit(0);
	default:
		fputs(usage, stderr);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	int c;

	while ((c = getopt_long(argc, argv, "bd:n:p:r:s:h", long_options, NULL)) != -1)
		set_option(c);
	if (optind < argc) {
		fputs(usage, stderr);
		return 2;
	}
	if (!isatty(STDOUT_FILENO))
		options.batch = true;
	stats.page_size = sysconf(_SC_PAGESIZE);
	stats.block_size = options.block_kib * 1024;
	return run();
}
