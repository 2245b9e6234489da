// SPDX-License-Identifier: GPL-2.0
/*
 * Records, and drawings of them.
 *
 * The rows of a sample are processes; one more, with the number 0, has what was
 * counted for all of them, and the events that were lost. It is there even if
 * nothing happened, so that a line that is drawn comes back to zero.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "record.h"

#define MAGIC		"# hmmtop 1\n"
#define ALL		"all"

/* As many lines as can be told from each other */
#define MOST_LINES	8

void record_begin(FILE *file)
{
	int i;

	fputs(MAGIC "# time\tseconds\tpid\tname", file);
	for (i = 0; i < NR_COUNTERS; i++)
		fprintf(file, "\t%s", counter_names[i]);
	fputs("\tlost\n", file);
	fflush(file);
}

static void record_row(FILE *file, double at, double length, int tgid,
		       const char *name, const struct counts *counts,
		       unsigned long long lost)
{
	int i;

	fprintf(file, "%.3f\t%.3f\t%d\t%s", at, length, tgid, name);
	for (i = 0; i < NR_COUNTERS; i++)
		fprintf(file, "\t%llu", counts->n[i]);
	fprintf(file, "\t%llu\n", lost);
}

void record_sample(FILE *file, const struct stats *stats, double at, double length)
{
	struct counts total = stats_total(stats);
	struct process **rows;
	size_t i, nr;

	rows = stats_processes(stats, FAULTS, &nr);
	for (i = 0; i < nr; i++) {
		char name[NAME_LEN], *tab;

		snprintf(name, sizeof(name), "%s", rows[i]->name);
		while ((tab = strpbrk(name, "\t\n")))
			*tab = '?';
		record_row(file, at, length, rows[i]->tgid, name, &rows[i]->counts, 0);
	}
	record_row(file, at, length, 0, ALL, &total, stats->lost);
	fflush(file);
	free(rows);
}

/* ---- Reading ---- */

struct row {
	double at, length;
	int tgid;
	char name[NAME_LEN];
	struct counts counts;
	unsigned long long lost;
};

struct record {
	struct row *rows;
	size_t nr;
	unsigned long long lost;
};

static bool parse_row(char *line, struct row *row)
{
	int used, i;

	if (sscanf(line, "%lf\t%lf\t%d\t%15[^\t\n]%n", &row->at, &row->length,
		   &row->tgid, row->name, &used) != 4)
		return false;
	for (i = 0; i <= NR_COUNTERS; i++) {
		unsigned long long *to = i < NR_COUNTERS ? &row->counts.n[i] : &row->lost;

		line += used;
		if (sscanf(line, "\t%llu%n", to, &used) != 1)
			return false;
	}
	return !strcmp(line + used, "\n") && row->length > 0;
}

static void append(struct record *record, const struct row *row)
{
	/* Grows at each power of two */
	if (!(record->nr & (record->nr - 1))) {
		struct row *rows = allocate(2 * record->nr + 1, sizeof(*rows));

		if (record->nr)
			memcpy(rows, record->rows, record->nr * sizeof(*rows));
		free(record->rows);
		record->rows = rows;
	}
	record->rows[record->nr++] = *row;
	record->lost += row->lost;
}

static bool read_rows(FILE *file, const char *path, struct record *record)
{
	char line[512];
	int number = 0;

	while (fgets(line, sizeof(line), file)) {
		struct row row = {};

		if (!number++ && strcmp(line, MAGIC)) {
			fprintf(stderr, "hmmtop: %s: not a record of hmmtop's\n", path);
			return false;
		}
		if (line[0] == '#')
			continue;
		if (!parse_row(line, &row)) {
			fprintf(stderr, "hmmtop: %s:%d: not a row\n", path, number);
			return false;
		}
		append(record, &row);
	}
	if (record->nr)
		return true;
	fprintf(stderr, "hmmtop: %s: no samples\n", path);
	return false;
}

static bool read_record(const char *path, struct record *record)
{
	FILE *file = fopen(path, "r");
	bool ok;

	if (!file) {
		fprintf(stderr, "hmmtop: %s: %s\n", path, strerror(errno));
		return false;
	}
	ok = read_rows(file, path, record);
	fclose(file);
	return ok;
}

/* ---- Drawing ---- */

static const struct {
	const char *title;
	enum counter counter;
	double unit;
} panels[] = {
	{ "faults / s", FAULTS, 1 },
	{ "pages / s", PAGES, 1 },
	{ "collisions / s", COLLISIONS, 1 },
	{ "waited, ms / s", WAIT_NS, 1e6 },
	{ "invalidations that hit / s", HITS, 1 },
	{ "pages migrated / s", MIGRATED, 1 },
};

/* The processes of a record, in the order of what was counted for each */
struct line {
	int tgid;
	const char *name;
	unsigned long long sum;
};

static int line_order(const void *a, const void *b)
{
	const struct line *one = a, *other = b;

	if (one->sum != other->sum)
		return one->sum > other->sum ? -1 : 1;
	return one->tgid - other->tgid;
}

static bool is_line(const struct row *row, const struct line *line)
{
	return row->tgid == line->tgid && !strcmp(row->name, line->name);
}

static size_t find_lines(const struct record *record, struct line *lines)
{
	size_t i, j, nr = 0;

	for (i = 0; i < record->nr; i++) {
		const struct row *row = &record->rows[i];

		for (j = 0; j < nr; j++)
			if (is_line(row, &lines[j]))
				break;
		if (j == nr)
			lines[nr++] = (struct line){ row->tgid, row->name };
		lines[j].sum += row->counts.n[FAULTS] + row->counts.n[PAGES] +
				row->counts.n[HITS] + row->counts.n[MIGRATED];
	}
	qsort(lines, nr, sizeof(*lines), line_order);
	return nr;
}

static bool is_all(int tgid, const char *name)
{
	return !tgid && !strcmp(name, ALL);
}

/* Where the sample that row @i is in ends: behind the row for all */
static size_t next_sample(const struct record *record, size_t i)
{
	while (i < record->nr && !is_all(record->rows[i].tgid, record->rows[i].name))
		i++;
	return i + 1;
}

static void write_point(FILE *out, double at, double length,
			const struct counts *counts)
{
	size_t i;

	fprintf(out, "%.3f", at);
	for (i = 0; i < ARRAY_LEN(panels); i++)
		fprintf(out, " %.3f", counts->n[panels[i].counter] / panels[i].unit /
			length);
	fputc('\n', out);
}

/*
 * A row of gnuplot's for each sample: when it began, and what each panel shows. The
 * last one is there once more, for when it ended.
 */
static void write_data(FILE *out, const struct record *record, size_t number,
		       const struct line *line)
{
	size_t i, j, next;

	fprintf(out, "$line%zu << EOD\n", number);
	for (i = 0; i < record->nr; i = next) {
		const struct row *row = &record->rows[i];
		struct counts sum = {};

		next = next_sample(record, i);
		for (j = i; j < next && j < record->nr; j++)
			if (is_line(&record->rows[j], line))
				counts_add(&sum, &record->rows[j].counts);
		write_point(out, row->at - row->length, row->length, &sum);
		if (next >= record->nr)
			write_point(out, row->at, row->length, &sum);
	}
	fputs("EOD\n", out);
}

/* What is not plain in a name is not for gnuplot either */
static void write_title(FILE *out, const struct line *line)
{
	const char *c;

	for (c = line->name; *c; c++)
		fputc(strchr("\"'\\$`", *c) ? ' ' : *c, out);
	if (line->tgid)
		fprintf(out, " %d", line->tgid);
}

static void write_panel(FILE *out, size_t panel, const struct line *lines, size_t nr)
{
	size_t i;

	fprintf(out, "set title \"%s\"\nset yrange [0:*]\nplot ", panels[panel].title);
	for (i = 0; i < nr; i++) {
		fprintf(out, "%s$line%zu using 1:%zu with steps lw 2 title \"",
			i ? ", " : "", i, panel + 2);
		write_title(out, &lines[i]);
		fputc('"', out);
	}
	fputc('\n', out);
}

static void write_script(FILE *out, const struct record *record,
			 const struct line *lines, size_t nr)
{
	size_t i;

	for (i = 0; i < nr; i++)
		write_data(out, record, i, &lines[i]);
	fputs("set terminal svg size 1000,1200 dynamic background \"white\"\n"
	      "set key outside right top noenhanced\n"
	      "set lmargin 10\nset grid\nset xlabel \"seconds\"\n", out);
	fprintf(out, "set multiplot layout %zu,1 title \"hmmtop: %llu events lost\"\n",
		ARRAY_LEN(panels), record->lost);
	for (i = 0; i < ARRAY_LEN(panels); i++)
		write_panel(out, i, lines, nr);
	fputs("unset multiplot\n", out);
}

/* The line of all processes is nothing new where there is one process only */
static size_t choose_lines(struct line *lines, size_t nr)
{
	size_t i;

	for (i = 0; i < nr && nr == 2; i++)
		if (is_all(lines[i].tgid, lines[i].name)) {
			lines[i] = lines[nr - 1];
			return 1;
		}
	return nr < MOST_LINES ? nr : MOST_LINES;
}

int plot(const char *path)
{
	struct record record = {};
	struct line *lines;
	int status = 1;
	size_t nr;
	FILE *out;

	if (!read_record(path, &record)) {
		free(record.rows);
		return 1;
	}
	lines = allocate(record.nr, sizeof(*lines));
	nr = choose_lines(lines, find_lines(&record, lines));
	out = popen("gnuplot", "w");
	if (out) {
		write_script(out, &record, lines, nr);
		status = pclose(out);
	}
	if (status)
		fputs("hmmtop: gnuplot failed, or is not there\n", stderr);
	free(lines);
	free(record.rows);
	return !!status;
}
