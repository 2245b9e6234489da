// SPDX-License-Identifier: GPL-2.0
/*
 * A device works on the memory of this process. None of that memory is made for
 * the device, registered with it or copied to it: the device follows the CPU's
 * page tables, as a GPU does with HMM.
 *
 * Each step says what was done, how many pages the device went through, how
 * often it stopped to ask for translations (faults), how often one was taken
 * from it on the way (collisions), the time, and whether device and CPU agree.
 * Any disagreement is a failing exit.
 *
 * usage: hmm_demo [FILE]	the file to map; /bin/busybox, or this program
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "hmm_dev.h"

#define ANON_BYTES	(4UL << 20)
#define RACE_SECONDS	1.0
#define MAP_CELLS	64
#define WORK_PAGES	64
#define WORK_SECONDS	2.0

/* A mapping of this process. */
struct area {
	const char *name;
	char *at;
	size_t pages;
	int file;		/* what is mapped, or -1 */
};

enum { ANON, HUGE, FILE_PRIVATE, FILE_SHARED, NR_AREAS };

static struct area areas[NR_AREAS];
static int device;
static int disagreements;
static int checks;

/* What the requests of one step add up to. */
static struct {
	unsigned long pages, faults, collisions, refused;
	double start;
} step;

/* ---- Telling ---- */

static void heading(const char *text)
{
	static int number;

	printf("\n%d. %s\n", ++number, text);
}

static void columns(void)
{
	printf("   %-32s %7s %7s %10s %7s  %s\n", "", "pages", "faults",
	       "collisions", "ms", "agree");
}

static void begin(void)
{
	memset(&step, 0, sizeof(step));
	step.start = seconds();
}

static void outcome(const char *what, bool agree)
{
	double ms = (seconds() - step.start) * 1000;

	printf("   %-32s %7lu %7lu %10lu %7.1f  %s\n", what, step.pages,
	       step.faults, step.collisions, ms, agree ? "yes" : "NO");
	checks++;
	disagreements += !agree;
	fflush(stdout);
}

/* A check that takes no device. */
static void fact(const char *what, bool agree)
{
	printf("   %-66s  %s\n", what, agree ? "yes" : "NO");
	checks++;
	disagreements += !agree;
	fflush(stdout);
}

/* ---- The device, and the CPU doing the same ---- */

static int request(unsigned long nr, char *at, void *buf, size_t pages)
{
	struct reply reply = dev_request(device, nr, at, buf, pages);

	if (!reply.err) {
		step.pages += reply.pages;
		step.faults += reply.batches;
		/* One stop is for the run's first missing page. */
		if (reply.batches > 1)
			step.collisions += reply.batches - 1;
	} else if (reply.err == -EBUSY) {
		step.collisions++;
	} else {
		step.refused++;
	}
	return reply.err;
}

static uint64_t sum(const void *data, size_t len, uint64_t h)
{
	const uint64_t *p = data;
	size_t i;

	for (i = 0; i < len / sizeof(*p); i++)
		h = (h ^ p[i]) * 0x100000001b3ULL;
	return h;
}

/* The device reads its view of an area; the sum is over what it read. */
static bool device_sum(const struct area *area, uint64_t *h)
{
	size_t len = area->pages * page_size;
	char *seen = buffer(len);
	bool ok = !request(HMM_DMIRROR_READ, area->at, seen, area->pages);

	*h = sum(seen, len, *h);
	munmap(seen, len);
	return ok;
}

static uint64_t cpu_sum(const struct area *area, uint64_t h)
{
	return sum(area->at, area->pages * page_size, h);
}

/* One line an area: both sums, and are they the same? */
static void compare(void)
{
	char text[64];
	int i;

	columns();
	for (i = 0; i < NR_AREAS; i++) {
		uint64_t on_device = 1, on_cpu;
		bool ok;

		begin();
		ok = device_sum(&areas[i], &on_device);
		on_cpu = cpu_sum(&areas[i], 1);
		snprintf(text, sizeof(text), "%-15s %016llx", areas[i].name,
			 (unsigned long long)on_device);
		outcome(text, ok && on_device == on_cpu);
	}
}

/* ---- Steps ---- */

static void copy_file(int from, int to)
{
	char block[65536];
	ssize_t n;

	while ((n = read(from, block, sizeof(block))) > 0)
		if (write(to, block, n) != n)
			break;
}

static void area_set(int i, const char *name, void *at, size_t bytes, int file)
{
	if (at == MAP_FAILED) {
		perror(name);
		exit(1);
	}
	areas[i] = (struct area){
		.name = name, .at = at, .pages = bytes / page_size, .file = file,
	};
}

static void *map(size_t bytes, int flags, int file)
{
	return mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, file, 0);
}

static void map_files(const char *path)
{
	int file = open(path, O_RDONLY), copy;
	struct stat st;
	size_t bytes;

	if (file < 0 || fstat(file, &st)) {
		perror(path);
		exit(1);
	}
	bytes = st.st_size / page_size * page_size;
	copy = temp_file("/tmp", st.st_size);
	copy_file(file, copy);
	area_set(FILE_PRIVATE, "file, private", map(bytes, MAP_PRIVATE, file),
		 bytes, file);
	area_set(FILE_SHARED, "file, shared", map(bytes, MAP_SHARED, copy),
		 bytes, copy);
}

static void map_memory(void)
{
	size_t huge = pmd_size ? 2 * pmd_size : ANON_BYTES;
	size_t align = pmd_size ? pmd_size : page_size;
	char *at = map(huge + align, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	at = (char *)(((uintptr_t)at + align - 1) / align * align);
	madvise(at, huge, MADV_HUGEPAGE);
	area_set(HUGE, "huge pages", at, huge, -1);
	at = map(ANON_BYTES, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	no_huge_pages(at, ANON_BYTES);
	area_set(ANON, "anonymous", at, ANON_BYTES, -1);
}

static void step_fill(const char *path)
{
	int i;

	heading("Ordinary code maps memory and fills it.");
	map_memory();
	map_files(path);
	for (i = ANON; i <= HUGE; i++)
		pattern_fill(areas[i].at, areas[i].pages * page_size, 1 + i);
	for (i = 0; i < NR_AREAS; i++)
		printf("   %-15s %14p %8zu KiB  %s\n", areas[i].name,
		       areas[i].at, areas[i].pages * page_size >> 10,
		       i == FILE_PRIVATE ? path :
		       i == FILE_SHARED ? "a copy of it in /tmp" :
		       dev_snap(device, areas[i].at) & HMM_DMIRROR_PROT_PMD ?
		       "large leaves in the page table" : "small pages");
}

static void step_cpu_writes(void)
{
	size_t page;
	int i;

	for (i = 0; i < NR_AREAS; i++)
		for (page = 0; page < areas[i].pages; page++)
			areas[i].at[page * page_size + 8 * i] += 1 + i;
}

/* The device stores a new pattern into every other run of 16 pages. */
static bool device_writes(struct area *area, unsigned int seed)
{
	size_t page, n, run = 16;
	char *data = buffer(run * page_size);
	bool ok = true;

	for (page = 0; page < area->pages; page += 2 * run) {
		char *at = area->at + page * page_size;

		n = area->pages - page < run ? area->pages - page : run;
		pattern_fill(data, n * page_size, seed + page);
		ok &= !request(HMM_DMIRROR_WRITE, at, data, n);
		ok &= pattern_check(at, n * page_size, seed + page) == -1;
	}
	munmap(data, run * page_size);
	return ok;
}

static uint64_t file_sum(const struct area *area)
{
	size_t len = area->pages * page_size;
	char *data = buffer(len);
	uint64_t h = 0;

	if (pread(area->file, data, len, 0) == (ssize_t)len)
		h = sum(data, len, 1);
	munmap(data, len);
	return h;
}

static void step_device_writes(void)
{
	uint64_t before = file_sum(&areas[FILE_PRIVATE]);
	struct area *shared = &areas[FILE_SHARED];
	int i;

	heading("The device writes, the CPU looks.");
	columns();
	for (i = 0; i < NR_AREAS; i++) {
		bool ok;

		begin();
		ok = device_writes(&areas[i], 100 * (i + 1));
		outcome(areas[i].name, ok);
	}
	msync(shared->at, shared->pages * page_size, MS_SYNC);
	fact("the shared file has what the device wrote",
	     file_sum(shared) == cpu_sum(shared, 1));
	fact("the file mapped privately is as it was",
	     file_sum(&areas[FILE_PRIVATE]) == before);
}

/* A child looks at its memory when the parent's device has written. */
static int child_of_fork(int wait_fd, uint64_t expect)
{
	uint64_t h = 1;
	char c;

	if (read(wait_fd, &c, 1) != 1)
		return 1;
	h = cpu_sum(&areas[ANON], h);
	h = cpu_sum(&areas[HUGE], h);
	return h != expect;
}

static void step_fork(void)
{
	uint64_t expect = cpu_sum(&areas[HUGE], cpu_sum(&areas[ANON], 1));
	int go[2], status;
	pid_t child;
	bool ok;

	heading("fork(): the device's next write must go to a copy.");
	columns();
	if (pipe(go))
		exit(1);
	child = fork();
	if (!child)
		_exit(child_of_fork(go[0], expect));
	begin();
	ok = device_writes(&areas[ANON], 1000);
	outcome("parent writes, anonymous", ok);
	begin();
	ok = device_writes(&areas[HUGE], 2000);
	outcome("parent writes, huge pages", ok);
	if (write(go[1], "", 1) != 1)
		exit(1);
	waitpid(child, &status, 0);
	fact("the child still has the memory of the moment of fork()", !status);
	close(go[0]);
	close(go[1]);
}

/* ---- Races ---- */

static struct {
	char *page;
	atomic_bool over;
	atomic_long begun, done;
	long rounds, disturbed;
} race;

/* Protected memory has to hold still. */
static void *protect(void *arg)
{
	while (!race.over) {
		long once;

		mprotect(race.page, page_size, PROT_READ);
		once = load(race.page);
		usleep(100);
		race.disturbed += load(race.page) != once;
		mprotect(race.page, page_size, PROT_READ | PROT_WRITE);
		usleep(100);
		race.rounds++;
	}
	return NULL;
}

/* A new page with a higher number, each time, where the old one was. */
static void *unmap(void *arg)
{
	while (!race.over) {
		race.begun++;
		munmap(race.page, page_size);
		mmap(race.page, page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE |
		     MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		store(race.page, race.begun);
		race.done = race.begun;
		race.rounds++;
	}
	return NULL;
}

static void race_begin(pthread_t *thread, void *(*fn)(void *))
{
	memset(&race, 0, sizeof(race));
	race.page = map(page_size, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
			-1);
	begin();
	if (pthread_create(thread, NULL, fn, NULL))
		exit(1);
}

static void race_end(pthread_t thread, const char *what, bool ok)
{
	char text[80];

	race.over = true;
	pthread_join(thread, NULL);
	snprintf(text, sizeof(text), "%s: %ld", what, race.rounds);
	outcome(text, ok && !race.disturbed && step.pages);
	printf("   %-32s %7lu\n", "  requests refused meanwhile", step.refused);
	munmap(race.page, page_size);
}

static void race_mprotect(void)
{
	long *words = buffer(page_size);
	pthread_t thread;
	bool ok = true;
	double end;

	race_begin(&thread, protect);
	for (end = seconds() + RACE_SECONDS; seconds() < end; words[0]++) {
		int err = request(HMM_DMIRROR_WRITE, race.page, words, 1);

		ok &= !err || err == -EPERM || err == -EBUSY;
	}
	race_end(thread, "mprotect() to and fro", ok);
	munmap(words, page_size);
}

static void race_munmap(void)
{
	long *words = buffer(page_size), before, after;
	pthread_t thread;
	bool ok = true;
	double end;

	race_begin(&thread, unmap);
	for (end = seconds() + RACE_SECONDS; seconds() < end;) {
		before = race.done;
		if (request(HMM_DMIRROR_READ, race.page, words, 1))
			continue;
		after = race.begun;
		/* Zero is a page that was not filled yet. */
		ok &= words[0] <= after;
		ok &= words[0] >= before || (!words[0] && before != after);
	}
	race_end(thread, "munmap(), and mmap() anew", ok);
	munmap(words, page_size);
}

static void step_races(void)
{
	heading("A thread changes mappings, the device keeps working on them.");
	columns();
	race_mprotect();
	race_munmap();
}

/* ---- The map ---- */

/* Make the areas worth drawing: something of everything. */
static void disarrange(void)
{
	char *at = areas[ANON].at;
	size_t eighth = areas[ANON].pages / 8 * page_size;
	size_t i;

	mprotect(at + eighth, eighth, PROT_READ);
	madvise(at + 2 * eighth, 3 * eighth, MADV_DONTNEED);
	for (i = 0; i < eighth; i += page_size)
		load(at + 2 * eighth + i);
	mprotect(at + 5 * eighth, eighth, PROT_NONE);
	munmap(at + 6 * eighth, eighth);

	/* fork() left small pages: the first half starts again. */
	eighth = areas[HUGE].pages / 8 * page_size;
	at = mmap(areas[HUGE].at, 4 * eighth, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	madvise(at, 4 * eighth, MADV_HUGEPAGE);
	pattern_fill(at, 4 * eighth, 1);
	madvise(at + 5 * eighth, eighth, MADV_DONTNEED);

	eighth = areas[FILE_PRIVATE].pages / 8 * page_size;
	pattern_fill(areas[FILE_PRIVATE].at + 2 * eighth, 3 * eighth, 1);
}

static char device_letter(unsigned char byte)
{
	bool large = byte & (HMM_DMIRROR_PROT_PMD | HMM_DMIRROR_PROT_PUD);

	if (byte == HMM_DMIRROR_PROT_ERROR)
		return '#';
	if (byte == HMM_DMIRROR_PROT_NONE)
		return '.';
	if (byte & HMM_DMIRROR_PROT_ZERO)
		return '0';
	if (byte & HMM_DMIRROR_PROT_WRITE)
		return large ? 'W' : 'w';
	return large ? 'R' : 'r';
}

static char cpu_letter(uint64_t entry)
{
	if (entry & PM_PRESENT)
		return 'o';
	return entry & PM_SWAPPED ? 's' : '.';
}

/* A cell that stands for pages that differ is a '+'. */
static void draw(const char *who, const char *letters, size_t pages)
{
	size_t cell, page, first, end, cells = pages < MAP_CELLS ? pages : MAP_CELLS;

	printf("     %-6s ", who);
	for (cell = 0; cell < cells; cell++) {
		first = cell * pages / cells;
		end = (cell + 1) * pages / cells;
		for (page = first + 1; page < end; page++)
			if (letters[page] != letters[first])
				break;
		putchar(page < end ? '+' : letters[first]);
	}
	putchar('\n');
}

/*
 * What the CPU has mapped the device can reach, and nothing else; but the CPU
 * keeps pages behind PROT_NONE that are in nobody's reach.
 */
static bool draw_area(const char *name, char *at, size_t pages)
{
	unsigned char *bytes = buffer(pages);
	char *cpu = buffer(pages), *dev = buffer(pages);
	bool agree = !dev_snapshot(device, at, bytes, pages).err;
	size_t i;

	for (i = 0; i < pages; i++) {
		cpu[i] = cpu_letter(pagemap_entry(at + i * page_size));
		dev[i] = device_letter(bytes[i]);
		if (dev[i] != '#')
			agree &= (dev[i] == '.') == (cpu[i] != 'o');
	}
	printf("   %-15s %14p  %zu page%s, %zu a letter\n", name, at, pages,
	       pages == 1 ? "" : "s", (pages + MAP_CELLS - 1) / MAP_CELLS);
	draw("CPU", cpu, pages);
	draw("device", dev, pages);
	munmap(bytes, pages);
	munmap(cpu, pages);
	munmap(dev, pages);
	return agree;
}

/* Mappings that this program did not make. */
static bool draw_special(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long start, end;
	char line[512], name[64];
	bool agree = true;

	while (maps && fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx %*s %*s %*s %*s %63s", &start, &end,
			   name) < 3)
			continue;
		if (!strcmp(name, "[vvar]") || !strcmp(name, "[vdso]"))
			agree &= draw_area(name, (char *)start,
					   (end - start) / page_size);
	}
	if (maps)
		fclose(maps);
	return agree;
}

static void step_map(void)
{
	bool agree = true;
	int i;

	heading("The address space, as the CPU and as the device see it.");
	disarrange();
	for (i = 0; i < NR_AREAS; i++)
		agree &= draw_area(areas[i].name, areas[i].at, areas[i].pages);
	agree &= draw_special();
	printf("\n   CPU     o mapped   s swapped out   . not mapped\n"
	       "   device  w may write   r may read   W, R large pages   0 zero page\n"
	       "           . would fault   # out of reach   (both: + a mixture)\n");
	fact("the device reaches what the CPU has mapped, and nothing else", agree);
}

/* ---- How it looks to whoever watches ---- */

/* Something of everything that hmmtop counts, again and again. */
static bool work(char *at, void *buf)
{
	size_t bytes = WORK_PAGES * page_size;
	bool ok = true;
	double end;

	for (end = seconds() + WORK_SECONDS; seconds() < end;) {
		ok &= !request(HMM_DMIRROR_READ, at, buf, WORK_PAGES);
		ok &= !request(HMM_DMIRROR_MIGRATE_TO_DEV, at, buf, WORK_PAGES);
		pattern_fill(at, bytes, 1);
		ok &= !request(HMM_DMIRROR_READ, at, buf, WORK_PAGES);
		ok &= pattern_check(buf, bytes, 1) == -1;
		request(HMM_DMIRROR_WRITE, race.page, buf, 1);
		madvise(at, bytes, MADV_DONTNEED);
	}
	return ok;
}

static bool work_against_thread(void)
{
	char *at = map_small(WORK_PAGES * page_size);
	char *buf = buffer(WORK_PAGES * page_size);
	pthread_t thread;
	bool ok;

	race_begin(&thread, protect);
	ok = work(at, buf);
	race.over = true;
	pthread_join(thread, NULL);
	return ok && !race.disturbed;
}

static pid_t start_hmmtop(int output)
{
	char pid[16];
	pid_t child;

	snprintf(pid, sizeof(pid), "--pid=%d", getpid());
	child = fork();
	if (child)
		return child;
	dup2(output, STDOUT_FILENO);
	execlp("hmmtop", "hmmtop", "--batch", "--rows=3", pid, NULL);
	_exit(127);
}

/* It says when it begins, and ends when it is told. */
static void step_hmmtop(void)
{
	int tables[2], status = 0;
	bool ok = false;
	char line[256];
	pid_t child;
	FILE *said;

	heading("hmmtop watches, for as long as the device has work to do.");
	fflush(stdout);
	if (pipe(tables))
		exit(1);
	child = start_hmmtop(tables[1]);
	close(tables[1]);
	said = fdopen(tables[0], "r");
	if (fgets(line, sizeof(line), said)) {
		ok = work_against_thread();
		kill(child, SIGINT);
	}
	while (fgets(line, sizeof(line), said))
		printf("%s", line);
	fclose(said);
	waitpid(child, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		printf("   There is no hmmtop here: it is made in tools/hmm.\n");
	else
		fact("hmmtop saw it, and device and CPU agreed", ok && !status);
}

static const char *file_to_map(int argc, char **argv)
{
	if (argc > 1)
		return argv[1];
	return access("/bin/busybox", R_OK) ? "/proc/self/exe" : "/bin/busybox";
}

int main(int argc, char **argv)
{
	device = dev_open(0);
	printf("A device works on the memory of process %d, through a page table\n"
	       "of its own. Nothing is registered with it, pinned for it or copied.\n",
	       getpid());

	step_fill(file_to_map(argc, argv));
	heading("The device sums up all of it, and so does the CPU.");
	compare();
	heading("Once more: now the device has its translations.");
	compare();
	heading("The CPU writes to every page, the device looks.");
	step_cpu_writes();
	compare();
	step_device_writes();
	step_fork();
	step_races();
	step_map();
	step_hmmtop();

	if (disagreements)
		printf("\nDevice and CPU DISAGREE in %d of %d checks.\n",
		       disagreements, checks);
	else
		printf("\nDevice and CPU agree in all of %d checks.\n", checks);
	return disagreements ? 1 : 0;
}
