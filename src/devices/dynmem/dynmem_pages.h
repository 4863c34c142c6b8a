/* SPDX-License-Identifier: MIT */
/*
 * The set of pages that a guest has given away: a bitmap over its physical address space. A bit for
 * each page is the most that any guest can make us keep (1/32,768 of its memory), however it cuts
 * its ranges, and tells exactly what was given twice. It is mapped at once and filled as needed.
 * Event loop's thread.
 */
#pragma once

#include "lib/error.h"
#include "lib/types.h"

struct dynmem_pages {
	uint64_t *bits;
	uint64_t end;   /* pages 0..end-1 can be in it */
	uint64_t count; /* that are */
	uint64_t first; /* no page before this one is */
};

int dynmem_pages_init(struct dynmem_pages *p, uint64_t end) _must_check_;
void dynmem_pages_deinit(struct dynmem_pages *p); /* fine on zeroes */
/* Whether any page of the range is in it; ranges lie below `end`. */
bool dynmem_pages_any(const struct dynmem_pages *p, uint64_t page, uint64_t count);
/* None of them is in it yet. */
void dynmem_pages_add(struct dynmem_pages *p, uint64_t page, uint64_t count);
/* All of them are in it. */
void dynmem_pages_remove(struct dynmem_pages *p, uint64_t page, uint64_t count);
/* The first run of pages at or after `from`, at most `most` of them; false: there is none. */
bool dynmem_pages_find(const struct dynmem_pages *p, uint64_t from, uint64_t most,
		       uint64_t *ret_page, uint64_t *ret_count);
/* The same from the start, and takes them out. */
bool dynmem_pages_pop(struct dynmem_pages *p, uint64_t most, uint64_t *ret_page,
		      uint64_t *ret_count);
void dynmem_pages_clear(struct dynmem_pages *p);
