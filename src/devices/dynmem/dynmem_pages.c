// SPDX-License-Identifier: MIT
/*
 * See dynmem_pages.h. Ranges are worked on a word of 64 pages at a time; `first` keeps the search
 * for the next run from starting at page 0 each time.
 */
#include "devices/dynmem/dynmem_pages.h"

#include <assert.h>
#include <errno.h>
#include <sys/mman.h>

#define WORD 64u

static size_t map_size(const struct dynmem_pages *p)
{
	return (p->end + WORD - 1) / WORD * sizeof(uint64_t);
}

int dynmem_pages_init(struct dynmem_pages *p, uint64_t end)
{
	void *map;

	*p = (struct dynmem_pages){ .end = MAX(end, 1u) };
	map = mmap(NULL, map_size(p), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (map == MAP_FAILED)
		return -errno;
	p->bits = map;
	p->first = p->end;
	return 0;
}

void dynmem_pages_deinit(struct dynmem_pages *p)
{
	if (p->bits)
		munmap(p->bits, map_size(p));
	*p = (struct dynmem_pages){ 0 };
}

/* The bits of the range that are in the word of its first page, and how many these are. */
static uint64_t word_mask(uint64_t page, uint64_t count, uint64_t *ret_n)
{
	uint64_t at = page % WORD, n = MIN(count, WORD - at);

	*ret_n = n;
	return (n == WORD ? UINT64_MAX : BIT64(n) - 1) << at;
}

bool dynmem_pages_any(const struct dynmem_pages *p, uint64_t page, uint64_t count)
{
	uint64_t n;

	assert(range_inside(page, count, p->end));
	for (; count; page += n, count -= n)
		if (p->bits[page / WORD] & word_mask(page, count, &n))
			return true;
	return false;
}

void dynmem_pages_add(struct dynmem_pages *p, uint64_t page, uint64_t count)
{
	uint64_t n;

	assert(range_inside(page, count, p->end));
	p->count += count;
	p->first = MIN(p->first, page);
	for (; count; page += n, count -= n)
		p->bits[page / WORD] |= word_mask(page, count, &n);
}

void dynmem_pages_remove(struct dynmem_pages *p, uint64_t page, uint64_t count)
{
	uint64_t n;

	assert(range_inside(page, count, p->end) && count <= p->count);
	p->count -= count;
	for (; count; page += n, count -= n)
		p->bits[page / WORD] &= ~word_mask(page, count, &n);
}

static bool has(const struct dynmem_pages *p, uint64_t page)
{
	return p->bits[page / WORD] >> page % WORD & 1;
}

bool dynmem_pages_find(const struct dynmem_pages *p, uint64_t from, uint64_t most,
		       uint64_t *ret_page, uint64_t *ret_count)
{
	uint64_t page = MAX(from, p->first), n = 0;

	if (!most)
		return false;
	while (page < p->end && !has(p, page)) {
		uint64_t rest = p->bits[page / WORD] >> page % WORD;

		page = rest ? page + (unsigned)__builtin_ctzll(rest)
			    : (page / WORD + 1) * (uint64_t)WORD;
	}
	if (page >= p->end)
		return false;
	while (n < most && page + n < p->end && has(p, page + n))
		if ((page + n) % WORD == 0 && p->bits[(page + n) / WORD] == UINT64_MAX &&
		    most - n >= WORD)
			n += WORD;
		else
			n++;
	*ret_page = page;
	*ret_count = n;
	return true;
}

bool dynmem_pages_pop(struct dynmem_pages *p, uint64_t most, uint64_t *ret_page,
		      uint64_t *ret_count)
{
	if (!dynmem_pages_find(p, 0, most, ret_page, ret_count))
		return false;
	dynmem_pages_remove(p, *ret_page, *ret_count);
	p->first = *ret_page + *ret_count;
	return true;
}

void dynmem_pages_clear(struct dynmem_pages *p)
{
	(void)madvise(p->bits, map_size(p), MADV_DONTNEED);
	p->count = 0;
	p->first = p->end;
}
