// SPDX-License-Identifier: GPL-2.0
/*
 * What a thread of the fuzzer knows of its memory; hmm_fuzz.h has the words.
 *
 * The model is written by the thread alone, right after each operation on its arena,
 * and nobody else changes what is mapped there or what it holds. The kernel may do
 * with the pages what it likes, and other threads make it do so: the contents stay.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hmm_fuzz.h"

/* ---- Values ---- */

static uint64_t word_of(uint32_t value, unsigned int i)
{
	return value ? (uint64_t)value << 32 | (uint32_t)(i * 0x9e3779b9U + value) : 0;
}

void page_fill(void *page, uint32_t value)
{
	uint64_t *word = page;
	unsigned int i;

	for (i = 0; i < page_size / sizeof(*word); i++)
		word[i] = word_of(value, i);
}

bool page_value(const void *page, uint32_t *value)
{
	const uint64_t *word = page;
	unsigned int i;

	*value = word[0] >> 32;
	for (i = 0; i < page_size / sizeof(*word); i++)
		if (word[i] != word_of(*value, i))
			return false;
	return true;
}

/* The upper byte says who, the rest when. */
uint32_t new_value(struct thread *t)
{
	uint32_t who = 1 + t->process->number * MAX_THREADS + t->number;

	t->next_value = (t->next_value + 1) & 0xffffff;
	return who << 24 | t->next_value;
}

/* ---- Cells ---- */

void cell_set(struct cell *cell, uint32_t value)
{
	cell->value[0] = value;
	cell->n = 1;
	cell->lazy = false;
}

bool cell_allows(const struct cell *cell, uint32_t value)
{
	unsigned int i;

	for (i = 0; i < cell->n; i++)
		if (cell->value[i] == value)
			return true;
	return !cell->n;
}

void cell_add(struct cell *cell, uint32_t value)
{
	if (cell_allows(cell, value))
		return;
	if (cell->n < CELL_VALUES)
		cell->value[cell->n++] = value;
	else
		cell->n = 0;
}

/* It has been seen to hold @value, which is allowed. */
static void cell_settle(struct cell *cell, uint32_t value)
{
	if (!cell->lazy || !value)
		cell_set(cell, value);
}

struct cell *cell_of(struct thread *t, unsigned int i)
{
	struct page *page = &t->page[i];

	return page->kind == OBJECT ? &t->object[page->origin] : &page->own;
}

/* ---- Runs ---- */

static unsigned int some_length(struct thread *t, unsigned int max)
{
	static const unsigned int limits[] = { 1, 2, 4, 4, 8, 16, 64, ARENA_PAGES };
	unsigned int limit = limits[below(t, ARRAY_LEN(limits))];

	return 1 + below(t, limit < max ? limit : max);
}

struct span pick_any(struct thread *t, unsigned int max)
{
	struct span run = { .at = below(t, ARENA_PAGES), .n = some_length(t, max) };

	if (run.n > ARENA_PAGES - run.at)
		run.n = ARENA_PAGES - run.at;
	return run;
}

static bool page_suits(const struct page *page, unsigned int kinds, int prot)
{
	return KIND(page->kind) & kinds && (page->prot & prot) == prot;
}

bool pick(struct thread *t, struct span *run, unsigned int max, unsigned int kinds,
	  int prot, bool alike)
{
	struct span wish = pick_any(t, max);
	unsigned int i, skip;

	for (skip = 0; skip < ARENA_PAGES; skip++) {
		i = (wish.at + skip) % ARENA_PAGES;
		if (page_suits(&t->page[i], kinds, prot))
			break;
	}
	if (skip == ARENA_PAGES)
		return false;
	run->at = i;
	for (run->n = 1; run->n < wish.n && i + run->n < ARENA_PAGES; run->n++) {
		const struct page *page = &t->page[i + run->n];

		if (!page_suits(page, kinds, prot))
			break;
		if (alike && (page->kind != t->page[i].kind ||
			      page->prot != t->page[i].prot))
			break;
	}
	return true;
}

unsigned int first_without(struct thread *t, struct span run, int prot)
{
	unsigned int i;

	for (i = 0; i < run.n; i++)
		if (!page_suits(&t->page[run.at + i], MAPPED, prot))
			break;
	return i;
}

/* ---- Checks ---- */

/* The values that a cell allows, as text */
static const char *cell_text(const struct cell *cell)
{
	static __thread char text[64];
	int len = 0;
	unsigned int i;

	if (!cell->n)
		return "anything";
	for (i = 0; i < cell->n; i++)
		len += sprintf(text + len, "%s%08x", i ? " or " : "", cell->value[i]);
	return text;
}

static void __noreturn wrong_page(struct thread *t, unsigned int i, const char *data,
				  const char *who)
{
	const struct cell *cell = cell_of(t, i);
	const struct page *page = &t->page[i];
	uint64_t entry = 0;
	uint32_t value;
	bool whole = page_value(data, &value);

	if (pread(t->process->pagemap, &entry, sizeof(entry),
		  (uintptr_t)page_at(t, i) / page_size * sizeof(entry)) < 0)
		entry = -1;
	finding(t, "page %u: %s saw %s%08x, not %s%s; kind %d, prot %d, pagemap %016llx",
		i, who, whole ? "" : "a mix with ", value, cell_text(cell),
		cell->lazy ? " (lazy)" : "", page->kind, page->prot,
		(unsigned long long)entry);
}

static void check_run(struct thread *t, struct span run, const char *data,
		      const char *who, bool settle)
{
	uint32_t value;
	unsigned int i;

	for (i = 0; i < run.n; i++) {
		struct cell *cell = cell_of(t, run.at + i);

		if (!page_value(data + i * page_size, &value) ||
		    !cell_allows(cell, value))
			wrong_page(t, run.at + i, data + i * page_size, who);
		if (settle)
			cell_settle(cell, value);
	}
}

void check_data(struct thread *t, struct span run, const char *data, const char *who)
{
	check_run(t, run, data, who, true);
}

void check_only(struct thread *t, struct span run, const char *data, const char *who)
{
	check_run(t, run, data, who, false);
}

/* ---- Changes ---- */

unsigned int epoch_now(struct thread *t)
{
	return __atomic_load_n(&t->process->epoch, __ATOMIC_SEQ_CST);
}

void fill_buf(struct thread *t, unsigned int n, uint32_t *values)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		values[i] = new_value(t);
		page_fill(t->buf + i * page_size, values[i]);
	}
}

void run_written(struct thread *t, struct span run, const uint32_t *values,
		 unsigned int epoch)
{
	bool claim = !(epoch & 1) && epoch == epoch_now(t);
	unsigned int i;

	for (i = 0; i < run.n; i++) {
		struct page *page = &t->page[run.at + i];

		cell_set(cell_of(t, run.at + i), values[i]);
		if (KIND(page->kind) & PRIVATE)
			page->claim = claim ? epoch + 1 : 0;
	}
}

void run_maybe_written(struct thread *t, struct span run, const uint32_t *values)
{
	unsigned int i;

	for (i = 0; i < run.n; i++)
		cell_add(cell_of(t, run.at + i), values[i]);
}

void run_dropped(struct thread *t, struct span run)
{
	unsigned int i;

	for (i = run.at; i < run.at + run.n; i++) {
		struct page *page = &t->page[i];

		page->claim = 0;
		if (page->kind == ANON)
			cell_set(&page->own, 0);
		else if (page->kind == FILED)
			cell_set(&page->own, page->origin);
	}
}

void run_unmapped(struct thread *t, struct span run)
{
	memset(&t->page[run.at], 0, run.n * sizeof(t->page[0]));
}

void run_mapped(struct thread *t, struct span run, enum page_kind kind, int prot,
		unsigned int offset)
{
	unsigned int i;

	run_unmapped(t, run);
	for (i = 0; i < run.n; i++) {
		struct page *page = &t->page[run.at + i];

		page->kind = kind;
		page->prot = prot;
		if (kind == FILED)
			page->origin = FILE_VALUE(offset + i);
		else if (kind == OBJECT)
			page->origin = offset + i;
		cell_set(&page->own, kind == FILED ? page->origin : 0);
	}
}

/* The two do not overlap. */
void run_moved(struct thread *t, struct span from, unsigned int to)
{
	memcpy(&t->page[to], &t->page[from.at], from.n * sizeof(t->page[0]));
	run_unmapped(t, from);
}
