// SPDX-License-Identifier: GPL-2.0
/*
 * Everything that may happen to memory with a device on it, by chance, all at once.
 *
 * Several processes, each of several threads, do what comes to their minds until the
 * time is up: requests to the dummy devices, good and hostile ones, and whatever a
 * process can do to its memory: map, move, protect, advise, fork, page out, be sent
 * signals and be killed. Each thread has an *arena*, an array of pages of its own, and
 * a model of what is there (hmm_fuzz_model.c). Every byte that a CPU or a device gives
 * is compared with the model, and so is every error, every byte of a snapshot, every
 * write protection and soft-dirty bit. That the threads share an address space, page
 * tables, devices and huge pages is what makes the races. Beside the arenas there are
 * the *commons*, pages in which each thread has one word to itself.
 *
 *	hmm_fuzz [-s SEED] [-t SECONDS] [-j THREADS] [-p PROCESSES]
 *
 * The environment may have HMM_FUZZ_SEED and HMM_FUZZ_SECONDS instead. The decisions
 * of a thread follow from the seed; with -j 1 -p 1 all of them, otherwise as far
 * as nobody else has a say in what the kernel answers.
 *
 * A process that finds something prints it, with the last operations of the thread,
 * and ends; that ends all. What it did stays in memory that the processes share, so
 * that somebody is left to tell of one that died.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "hmm_fuzz.h"

#define DEFAULT_SECONDS		10
#define PROGRESS		10.0	/* seconds from one line to the next */
#define HANG			240.0	/* without any operation of a thread */
#define HUGE_ALIGN		(2UL << 20)

struct shared *shared;
uint64_t fuzz_seed;

static unsigned int fuzz_seconds = DEFAULT_SECONDS;
static int nr_processes = 2, nr_threads = 4;
static __thread struct thread *me;

/* ---- Chance ---- */

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

uint64_t draw(struct thread *t)
{
	t->state += 0x9e3779b97f4a7c15ULL;
	return mix(t->state) >> 1;
}

/* ---- The operations ---- */

static size_t nr_ops(void)
{
	return nr_mm_ops + nr_device_ops;
}

static const struct op *op_of(size_t i)
{
	return i < nr_mm_ops ? &mm_ops[i] : &device_ops[i - nr_mm_ops];
}

static size_t some_op(struct thread *t)
{
	unsigned int sum = 0, dart;
	size_t i;

	for (i = 0; i < nr_ops(); i++)
		sum += op_of(i)->weight;
	dart = below(t, sum);
	for (i = 0; dart >= op_of(i)->weight; i++)
		dart -= op_of(i)->weight;
	return i;
}

static void run_op(struct thread *t, size_t i)
{
	struct log *log = t->log;
	struct line *line = &log->line[(log->seq + 1) % LINES];

	*line = (struct line) { .seq = log->seq + 1, .op = i, .err = 1 };
	__atomic_store_n(&log->seq, log->seq + 1, __ATOMIC_SEQ_CST);
	if (op_of(i)->run(t))
		log->done[i]++;
}

void note(struct thread *t, struct span run, long what)
{
	struct line *line = &t->log->line[t->log->seq % LINES];

	line->at = run.at;
	line->n = run.n;
	line->what = what;
}

void went(struct thread *t, int err)
{
	struct line *line = &t->log->line[t->log->seq % LINES];

	line->err = err;
	t->log->good[line->op] += !err;
}

/* ---- Findings ---- */

struct text {
	char bytes[8192];
	size_t len;
};

static void vsay(struct text *text, const char *format, va_list args)
{
	int room = sizeof(text->bytes) - text->len;
	int len = vsnprintf(text->bytes + text->len, room, format, args);

	text->len += len < room ? len : room - 1;
}

static void __printf(2, 3) say(struct text *text, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsay(text, format, args);
	va_end(args);
}

/* In one piece, whoever else is writing */
static void put(const struct text *text)
{
	if (write(STDOUT_FILENO, text->bytes, text->len) < 0)
		_exit(1);
}

static void say_again(struct text *text)
{
	say(text, "# fuzz: again: hmm_fuzz -s %llu -t %u -j %d -p %d\n",
	    (unsigned long long)fuzz_seed, fuzz_seconds, nr_threads, nr_processes);
}

static void say_log(struct text *text, const struct log *log)
{
	unsigned int seq = log->seq, i;

	for (i = seq < LINES ? 1 : seq - LINES + 1; i <= seq; i++) {
		const struct line *line = &log->line[i % LINES];

		say(text, "# fuzz:   %u %s at %u, %u pages, %ld: ", line->seq,
		    op_of(line->op)->name, line->at, line->n, line->what);
		if (line->err == 1)
			say(text, "?\n");
		else
			say(text, "%d\n", line->err);
	}
}

void finding(struct thread *t, const char *format, ...)
{
	struct text text = { .len = 0 };
	va_list args;

	__atomic_store_n(&shared->stop, 1, __ATOMIC_SEQ_CST);
	say(&text, "# fuzz: FOUND: ");
	va_start(args, format);
	vsay(&text, format, args);
	va_end(args);
	say(&text, "\n# fuzz: seed %llu, process %d, thread %d%s\n",
	    (unsigned long long)fuzz_seed, t->process->number, t->number,
	    t->is_child ? ", in a child" : "");
	say_again(&text);
	say_log(&text, t->log);
	put(&text);
	_exit(9);
}

void want_errors(struct thread *t, int err, const int *errors, size_t n,
		 const char *where)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (err == errors[i])
			return;
	finding(t, "%s: error %d (%s), which may not be here", where, err,
		strerror(-err));
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
	struct thread *t = me;

	if (!t)
		_exit(9);
	finding(t, "signal %d, code %d, at %p: page %ld of the arena", sig,
		info->si_code, info->si_addr,
		((char *)info->si_addr - t->arena) / (long)page_size);
}

static void on_signal(int sig)
{
}

/* ---- A thread ---- */

static pthread_barrier_t ready;

static bool over(void)
{
	return __atomic_load_n(&shared->stop, __ATOMIC_SEQ_CST) ||
	       __atomic_load_n(&shared->time_up, __ATOMIC_SEQ_CST);
}

/* At the end all that is there is looked at once more, by the device, too. */
static void last_look(struct thread *t)
{
	struct span run;

	for (run.at = 0; run.at < ARENA_PAGES; run.at += run.n) {
		struct span rest = { run.at, ARENA_PAGES - run.at };

		run.n = first_without(t, rest, PROT_READ);
		if (run.n) {
			device_read(t, t->fd, run);
			cpu_check(t, run);
		} else {
			run.n = 1;
		}
	}
}

static void *thread_main(void *arg)
{
	struct thread *t = arg;
	size_t i;

	me = t;
	pthread_barrier_wait(&ready);
	munmap(t->arena, ARENA_PAGES * page_size);
	/* Each kind once, and then by chance */
	for (i = 0; i < nr_ops() && !over(); i++)
		run_op(t, (i + t->number) % nr_ops());
	while (!over())
		run_op(t, some_op(t));
	if (!__atomic_load_n(&shared->stop, __ATOMIC_SEQ_CST))
		last_look(t);
	return NULL;
}

static void thread_init(struct thread *t, struct process *p, int number, char *arena,
			char *scratch)
{
	int slot = p->number * MAX_THREADS + number;

	t->process = p;
	t->number = number;
	t->state = mix(fuzz_seed * 1000 + slot);
	t->arena = arena;
	t->scratch = scratch;
	t->log = &shared->log[slot];
	t->buf = buffer(ARENA_PAGES * page_size);
	t->bytes = buffer(ARENA_PAGES);
	t->object_fd = memfd_create("fuzz", MFD_CLOEXEC);
	if (t->object_fd < 0 || ftruncate(t->object_fd, OBJECT_PAGES * page_size))
		finding(t, "no file: %s", strerror(errno));
	memset(t->object, 0, sizeof(t->object));
	for (number = 0; number < OBJECT_PAGES; number++)
		cell_set(&t->object[number], 0);
	t->minor = 0;
	t->fd = dev_open(0);
}

/* ---- A process ---- */

/* The private mappings' file: page i holds FILE_VALUE(i), for ever. */
static int make_file(void)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	char *page = buffer(page_size);
	unsigned int i;

	for (i = 0; i < ARENA_PAGES; i++) {
		page_fill(page, FILE_VALUE(i));
		if (write(fd, page, page_size) != (ssize_t)page_size)
			ksft_exit_fail_msg("no file: %s\n", strerror(errno));
	}
	munmap(page, page_size);
	return fd;
}

/* One piece of address space for all of a process' threads. */
static char *reserve(size_t len)
{
	char *at = mmap(NULL, len + HUGE_ALIGN, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		ksft_exit_fail_msg("no address space: %s\n", strerror(errno));
	return at + -(uintptr_t)at % HUGE_ALIGN;
}

static void process_init(struct process *p, int number)
{
	struct sigaction fault = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	struct sigaction nothing = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	int i;

	p->number = number;
	p->nthreads = nr_threads;
	for (i = 0; i < MINORS; i++)
		p->fd[i] = dev_open(i);
	p->file = make_file();
	p->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	p->clear_refs = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
	pthread_mutex_init(&p->clearing, NULL);
	p->commons = map_small(COMMONS_PAGES * page_size);
	sigaction(SIGSEGV, &fault, NULL);
	sigaction(SIGBUS, &fault, NULL);
	sigaction(SIGUSR1, &nothing, NULL);
}

/* Its exit status is 0 if nothing was found. */
static int process_main(int number)
{
	/* Behind what is for one operation there is never anything. */
	size_t arena = ARENA_PAGES * page_size, scratch = (SCRATCH_PAGES + 1) * page_size;
	static struct thread threads[MAX_THREADS];
	static struct process process;
	char *base;
	int i;

	process_init(&process, number);
	base = reserve(nr_threads * (arena + scratch));
	for (i = 0; i < nr_threads; i++)
		thread_init(&threads[i], &process, i, base + i * arena,
			    base + nr_threads * arena + i * scratch);
	/* Until all are there nobody begins: stacks are mapped where there is room. */
	pthread_barrier_init(&ready, NULL, nr_threads);
	for (i = 0; i < nr_threads; i++)
		if (pthread_create(&process.thread[i], NULL, thread_main, &threads[i]))
			ksft_exit_fail_msg("no thread\n");
	for (i = 0; i < nr_threads; i++)
		pthread_join(process.thread[i], NULL);
	return 0;
}

/* ---- The one that looks on ---- */

static pid_t pids[MAX_PROCESSES];

static unsigned long sum_of(size_t op, bool good)
{
	unsigned long sum = 0;
	int i;

	for (i = 0; i < MAX_PROCESSES * MAX_THREADS; i++)
		sum += good ? shared->log[i].good[op] : shared->log[i].done[op];
	return sum;
}

static unsigned long operations(void)
{
	unsigned long sum = 0;
	size_t i;

	for (i = 0; i < nr_ops(); i++)
		sum += sum_of(i, false);
	return sum;
}

/* Of a process that cannot speak for itself */
static void tell_of(int number, const char *what, int status)
{
	struct text text;
	int i;

	for (i = 0; i < nr_threads; i++) {
		text.len = 0;
		say(&text, "# fuzz: FOUND: %s %#x, process %d, thread %d; seed %llu\n",
		    what, status, number, i, (unsigned long long)fuzz_seed);
		say_log(&text, &shared->log[number * MAX_THREADS + i]);
		put(&text);
	}
	text.len = 0;
	say_again(&text);
	put(&text);
}

/* What a process that has ended leaves; 1 if it has found something. */
static int reap(int number, int status)
{
	pids[number] = 0;
	if (!status)
		return 0;
	__atomic_store_n(&shared->stop, 1, __ATOMIC_SEQ_CST);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 9)
		tell_of(number, "ended with status", status);
	return 1;
}

static bool somebody_runs(int *found)
{
	bool runs = false;
	int i, status;

	for (i = 0; i < nr_processes; i++) {
		if (pids[i] && waitpid(pids[i], &status, WNOHANG) == pids[i])
			*found += reap(i, status);
		runs |= pids[i] != 0;
	}
	return runs;
}

/* The first operation of which one never succeeded; or NULL */
static const char *lacking(void)
{
	size_t i;

	for (i = 0; i < nr_ops(); i++)
		if (!op_of(i)->may_fail && !(sum_of(i, false) && sum_of(i, true)))
			return op_of(i)->name;
	return NULL;
}

/* Has some thread done nothing for too long? */
static bool is_stuck(double now)
{
	static unsigned int seen[MAX_PROCESSES * MAX_THREADS];
	static double since[MAX_PROCESSES * MAX_THREADS];
	int i;

	for (i = 0; i < nr_processes * MAX_THREADS; i++) {
		unsigned int seq = shared->log[i].seq;

		if (i % MAX_THREADS >= nr_threads || !pids[i / MAX_THREADS])
			continue;
		if (seq != seen[i] || !since[i]) {
			seen[i] = seq;
			since[i] = now;
		}
		if (now - since[i] > HANG && !over())
			return true;
	}
	return false;
}

static void kill_all(const char *why)
{
	int i;

	__atomic_store_n(&shared->stop, 1, __ATOMIC_SEQ_CST);
	for (i = 0; i < nr_processes; i++) {
		if (!pids[i])
			continue;
		tell_of(i, why, 0);
		kill(pids[i], SIGKILL);
	}
}

/* Until the time is up and every operation has had its turn. */
static int look_on(void)
{
	double began = seconds(), told = began, now, limit = fuzz_seconds;
	int found = 0;

	while (somebody_runs(&found)) {
		now = seconds();
		if (now - began > limit && (!lacking() || now - began > 3 * limit + 60))
			__atomic_store_n(&shared->time_up, 1, __ATOMIC_SEQ_CST);
		if (is_stuck(now)) {
			kill_all("does nothing any more");
			found++;
		}
		if (now - told > PROGRESS) {
			told = now;
			ksft_print_msg("fuzz: %.0f s, %lu operations\n", now - began,
				       operations());
		}
		usleep(20000);
	}
	return found;
}

static void tell_counts(double took)
{
	size_t i;

	ksft_print_msg("fuzz: seed %llu, %lu operations in %.0f s by %d processes of %d threads\n",
		       (unsigned long long)fuzz_seed, operations(), took, nr_processes,
		       nr_threads);
	for (i = 0; i < nr_ops(); i++)
		ksft_print_msg("fuzz: %s: %lu, %lu succeeded\n", op_of(i)->name,
			       sum_of(i, false), sum_of(i, true));
}

/* ---- The command line ---- */

static uint64_t number_of(const char *text, uint64_t least, uint64_t most)
{
	char *end;
	uint64_t number = strtoull(text, &end, 0);

	if (!*text || *end || number < least || number > most)
		ksft_exit_fail_msg("%s: not a number from %llu to %llu\n", text,
				   (unsigned long long)least, (unsigned long long)most);
	return number;
}

static void settings(int argc, char **argv)
{
	const char *seed = getenv("HMM_FUZZ_SEED"), *time = getenv("HMM_FUZZ_SECONDS");
	struct timespec now;
	int c;

	clock_gettime(CLOCK_REALTIME, &now);
	fuzz_seed = mix(now.tv_sec * 1000000000ULL + now.tv_nsec) >> 33;
	if (seed && *seed)
		fuzz_seed = number_of(seed, 0, UINT32_MAX);
	if (time && *time)
		fuzz_seconds = number_of(time, 1, 1000000);
	while ((c = getopt(argc, argv, "s:t:j:p:")) > 0) {
		if (c == 's')
			fuzz_seed = number_of(optarg, 0, UINT32_MAX);
		else if (c == 't')
			fuzz_seconds = number_of(optarg, 1, 1000000);
		else if (c == 'j')
			nr_threads = number_of(optarg, 1, MAX_THREADS);
		else if (c == 'p')
			nr_processes = number_of(optarg, 1, MAX_PROCESSES);
		else
			ksft_exit_fail_msg("usage: -s SEED -t SECONDS -j THREADS -p PROCESSES\n");
	}
}

static void start_all(void)
{
	int i;

	for (i = 0; i < nr_processes; i++) {
		fflush(NULL);
		pids[i] = fork();
		if (pids[i] < 0)
			ksft_exit_fail_msg("fork(): %s\n", strerror(errno));
		if (!pids[i])
			_exit(process_main(i));
	}
}

int main(int argc, char **argv)
{
	double began = seconds();
	const char *none;
	int found;

	setvbuf(stdout, NULL, _IOLBF, 0);
	ksft_print_header();
	settings(argc, argv);
	ksft_set_plan(2);
	ksft_print_msg("fuzz: seed %llu, %u s\n", (unsigned long long)fuzz_seed,
		       fuzz_seconds);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		ksft_exit_fail_msg("no memory\n");
	start_all();
	found = look_on();
	tell_counts(seconds() - began);
	none = lacking();
	if (none)
		ksft_print_msg("fuzz: %s never succeeded\n", none);
	ksft_test_result(!found, "nothing_found\n");
	ksft_test_result(!none, "every_operation\n");
	ksft_finished();
}
