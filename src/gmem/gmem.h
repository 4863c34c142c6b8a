/* SPDX-License-Identifier: MIT */
/*
 * The one door to guest memory. Guest-physical ranges lie in one host mapping; every access is
 * checked here (addition overflow, holes, range ends) and nowhere else. Copies are made once and
 * the copy is judged; pointers into guest memory are handed out only as iovecs for bulk data and as
 * `struct gmem_page` for words shared by protocol (ring indices, SynIC pages), used with atomics.
 * Thread-safe without locks: while a partition exists the map changes in one way only, the last
 * range gets longer (gmem_grow), and who looks finds either length.
 */
#pragma once

#include "lib/error.h"
#include "lib/types.h"

#include <stdatomic.h>
#include <sys/uio.h>

#define GMEM_PAGE_SIZE  4096u
#define GMEM_MAX_RANGES 4

struct gmem;

struct gmem_range {
	uint64_t gpa, size; /* page-aligned, size > 0 unless it can grow */
	uint64_t most;      /* the last range only: what it can grow to; 0 = it does not grow */
	void *host;         /* filled in by gmem_new */
};

/* Lazily allocated, MADV_HUGEPAGE where the system has it, not dumped into core files. */
int gmem_new(const struct gmem_range *ranges, size_t count, struct gmem **ret,
	     struct error *err) _must_check_;
void gmem_free(struct gmem *gm);
/* Borrowed; `*ret_count` ranges in ascending order, one after the other also in the host. */
const struct gmem_range *gmem_ranges(const struct gmem *gm, size_t *ret_count);
uint64_t gmem_size(const struct gmem *gm); /* bytes of RAM in all, now */

/*
 * The last range has `size` bytes from now on: no fewer than it has, and at most its `most`. The
 * engine must have the memory already (memory_add). One thread at a time; all others may be at
 * work. -ERANGE.
 */
int gmem_grow(struct gmem *gm, uint64_t size) _must_check_;
/* The last range is as long as it was made, and what was behind that goes back to the host. */
void gmem_shrink(struct gmem *gm); /* no VP runs, and no I/O is under way */
/*
 * [any] Gives whole pages back to the host; they read as zeros when they are next looked at. I/O
 * that is under way with them ends as if nothing had happened, in pages that nobody sees any more.
 * -EFAULT when a byte is not RAM, -EINVAL when they are no whole pages; else what the kernel says.
 */
int gmem_discard(struct gmem *gm, uint64_t gpa, uint64_t size) _must_check_;

bool gmem_contains(const struct gmem *gm, uint64_t gpa, uint64_t size); /* all of it is RAM */
/* 0, or -EFAULT when any byte of [gpa, gpa + size) is not RAM (then nothing was copied). */
int gmem_read(struct gmem *gm, uint64_t gpa, void *dst, size_t size) _must_check_;
int gmem_write(struct gmem *gm, uint64_t gpa, const void *src, size_t size) _must_check_;
int gmem_fill(struct gmem *gm, uint64_t gpa, uint8_t byte, size_t size) _must_check_;
/*
 * Appends the host address of [gpa, gpa + size) to an iovec array for bulk data, merging with the
 * last element when adjacent. `*count` is in and out. -EFAULT as above, -E2BIG when `max` is
 * reached.
 */
int gmem_iov(struct gmem *gm, uint64_t gpa, size_t size, struct iovec *iov, unsigned max,
	     unsigned *count) _must_check_;

/*
 * The first offset from `offset` on in range number `range` whose page may be other than zeros, or
 * the range's size: what was never touched is passed over, where that can be told without touching.
 */
uint64_t gmem_next_touched(const struct gmem *gm, size_t range, uint64_t offset);

/* A page of RAM shared with the guest, valid while the gmem lives. NULL when it is not RAM. */
void *gmem_page(struct gmem *gm, uint64_t gpa);

/* Words in shared pages: `offset` is the caller's constant, aligned and inside the page. */
static inline uint32_t gshared_load32(const void *page, size_t offset)
{
	const uint8_t *p = (const uint8_t *)page + offset;

	return atomic_load_explicit((const _Atomic uint32_t *)(const void *)p,
				    memory_order_acquire);
}

static inline void gshared_store32(void *page, size_t offset, uint32_t value)
{
	uint8_t *p = (uint8_t *)page + offset;

	atomic_store_explicit((_Atomic uint32_t *)(void *)p, value, memory_order_release);
}
