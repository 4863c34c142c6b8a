// SPDX-License-Identifier: MIT
/*
 * Guest memory in one piece, mapped once and cut into guest-physical ranges. Owned by whoever made
 * it (the worker's machine); used from VP threads and from the event loop without locks.
 *
 * Room for all that the last range can grow to is mapped at the start, where it costs addresses
 * only. Growing is then one store: the range's size, released after the engine knows the memory,
 * and acquired by each lookup. Nothing ever moves, so an address that was handed out stays good.
 *
 * The whole design rests on gmem_lookup: it is the only place that turns a guest address into a
 * host one, and it never yields a byte outside a range.
 */
#include "gmem/gmem.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define HUGE_PAGE (2 * MIB)

#ifndef PR_SET_VMA /* Linux 5.17 */
#define PR_SET_VMA           0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

struct gmem {
	struct gmem_range ranges[GMEM_MAX_RANGES];
	size_t count;
	uint64_t room;      /* of the map: all ranges, as long as they can get */
	uint64_t last_size; /* of the last range when it was made */
	void *area, *map;   /* the reserved addresses, and the RAM in them */
	uint64_t area_size;
	int fd; /* -1 = anonymous memory */
};

static uint64_t range_size(const struct gmem_range *r)
{
	return __atomic_load_n(&r->size, __ATOMIC_ACQUIRE);
}

/* As long as it can get. */
static uint64_t range_room(const struct gmem_range *r)
{
	return r->most ? r->most : r->size;
}

static bool range_good(const struct gmem_range *r, bool last)
{
	return (r->gpa | r->size | r->most) % GMEM_PAGE_SIZE == 0 && range_room(r) &&
	       (r->size || r->most) && (!r->most || (last && r->most >= r->size));
}

static int ranges_check(const struct gmem_range *ranges, size_t count, uint64_t *ret_room,
			struct error *err)
{
	uint64_t room = 0, end = 0;

	if (!count || count > GMEM_MAX_RANGES)
		return error_set(err, -EINVAL, "guest memory needs 1 to %d ranges, not %zu",
				 GMEM_MAX_RANGES, count);
	for (size_t i = 0; i < count; i++) {
		const struct gmem_range *r = &ranges[i];

		if (!range_good(r, i == count - 1) || r->gpa < end ||
		    add_overflow(r->gpa, range_room(r), &end) ||
		    add_overflow(room, range_room(r), &room))
			return error_set(err, -EINVAL,
					 "guest memory range %zu (0x%llx, %llu bytes) is not "
					 "page-aligned, empty, or overlaps the one before",
					 i, (unsigned long long)r->gpa,
					 (unsigned long long)r->size);
	}
	*ret_room = room;
	return 0;
}

/* Whether the kernel gives huge pages to a memfd that asks for them; most are set to "never". */
static bool memfd_gets_huge_pages(void)
{
	_cleanup_fclose_ FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "re");
	char text[128] = "";

	return f && fgets(text, sizeof(text), f) && !strstr(text, "[never]") &&
	       !strstr(text, "[deny]");
}

/*
 * Huge pages come before sharing: without them a guest takes a nested page fault for each 4 KiB
 * that it touches. So RAM is a memfd where that gets huge pages, and anonymous memory elsewhere.
 */
static int gmem_back(struct gmem *gm, struct error *err)
{
	if (!memfd_gets_huge_pages())
		return 0;
	gm->fd = memfd_create("guest-ram", MFD_CLOEXEC);
	if (gm->fd < 0)
		return error_errno(err, -errno, "cannot create guest memory");
	if (ftruncate(gm->fd, (off_t)gm->room) < 0)
		return error_errno(err, -errno, "cannot size guest memory to %llu MiB",
				   (unsigned long long)(gm->room / MIB));
	return 0;
}

/* At a huge page's boundary, so that a guest's large pages can be the host's. */
static int gmem_map(struct gmem *gm, struct error *err)
{
	int flags = gm->fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	uint8_t *area;

	gm->area_size = gm->room + HUGE_PAGE;
	gm->area = mmap(NULL, gm->area_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			-1, 0);
	if (gm->area == MAP_FAILED) {
		gm->area = NULL;
		return error_errno(err, -errno, "no address space for %llu MiB of guest memory",
				   (unsigned long long)(gm->room / MIB));
	}
	area = (uint8_t *)round_up64((uintptr_t)gm->area, HUGE_PAGE);
	gm->map = mmap(area, gm->room, PROT_READ | PROT_WRITE, flags | MAP_FIXED | MAP_NORESERVE,
		       gm->fd, 0);
	if (gm->map == MAP_FAILED) {
		gm->map = NULL;
		return error_errno(err, -errno, "cannot map %llu MiB of guest memory",
				   (unsigned long long)(gm->room / MIB));
	}
	/* All three are wishes: a kernel that does not know one says no, and works. */
	(void)madvise(gm->map, gm->room, MADV_HUGEPAGE);
	(void)madvise(gm->map, gm->room, MADV_DONTDUMP);
	(void)prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, gm->map, gm->room, "guest-ram");
	return 0;
}

int gmem_new(const struct gmem_range *ranges, size_t count, struct gmem **ret, struct error *err)
{
	struct gmem *gm;
	uint8_t *host;
	uint64_t room;
	int r;

	r = ranges_check(ranges, count, &room, err);
	if (r < 0)
		return r;
	gm = calloc(1, sizeof(*gm));
	if (!gm)
		return error_set(err, -ENOMEM, "out of memory");
	gm->fd = -1;
	gm->room = room;
	gm->count = count;
	gm->last_size = ranges[count - 1].size;
	r = gmem_back(gm, err);
	if (r >= 0)
		r = gmem_map(gm, err);
	if (r < 0) {
		gmem_free(gm);
		return r;
	}
	host = gm->map;
	for (size_t i = 0; i < count; i++) {
		gm->ranges[i] = ranges[i];
		gm->ranges[i].host = host;
		host += range_room(&ranges[i]);
	}
	*ret = gm;
	return 0;
}

void gmem_free(struct gmem *gm)
{
	if (!gm)
		return;
	if (gm->area)
		munmap(gm->area, gm->area_size);
	if (gm->fd >= 0)
		close(gm->fd);
	free(gm);
}

const struct gmem_range *gmem_ranges(const struct gmem *gm, size_t *ret_count)
{
	*ret_count = gm->count;
	return gm->ranges;
}

uint64_t gmem_size(const struct gmem *gm)
{
	uint64_t size = 0;

	for (size_t i = 0; i < gm->count; i++)
		size += range_size(&gm->ranges[i]);
	return size;
}

/* A hole in the memfd would be filled by reading it. Anonymous memory reads as one shared page. */
uint64_t gmem_next_touched(const struct gmem *gm, size_t range, uint64_t offset)
{
	const struct gmem_range *r = &gm->ranges[range];
	uint64_t base = (uint64_t)((uint8_t *)r->host - (uint8_t *)gm->map);
	off_t at;

	if (gm->fd < 0)
		return offset;
	at = lseek(gm->fd, (off_t)(base + offset), SEEK_DATA);
	if (at < 0)
		return errno == ENXIO ? r->size : offset;
	return MIN(round_down64((uint64_t)at, GMEM_PAGE_SIZE) - base, r->size);
}

/* The host address of `gpa` and how many bytes follow it in its range; NULL when it is not RAM. */
static void *gmem_lookup(const struct gmem *gm, uint64_t gpa, uint64_t *ret_left)
{
	for (size_t i = 0; i < gm->count; i++) {
		const struct gmem_range *r = &gm->ranges[i];
		uint64_t size = range_size(r);

		if (gpa >= r->gpa && gpa - r->gpa < size) {
			*ret_left = size - (gpa - r->gpa);
			return (uint8_t *)r->host + (gpa - r->gpa);
		}
	}
	*ret_left = 0;
	return NULL;
}

/* Adjacent ranges (low RAM ends where high RAM begins) are crossed; holes are not. */
bool gmem_contains(const struct gmem *gm, uint64_t gpa, uint64_t size)
{
	uint64_t left;

	while (size) {
		if (!gmem_lookup(gm, gpa, &left))
			return false;
		left = MIN(left, size);
		size -= left;
		if (add_overflow(gpa, left, &gpa))
			return !size;
	}
	return true;
}

/* Calls `piece` for each run of adjacent host bytes, or nothing at all when a byte is not RAM. */
static int gmem_walk(struct gmem *gm, uint64_t gpa, size_t size,
		     void (*piece)(void *context, void *host, size_t n), void *context)
{
	uint64_t left;

	if (!gmem_contains(gm, gpa, size))
		return -EFAULT;
	while (size) {
		void *host = gmem_lookup(gm, gpa, &left);

		left = MIN(left, size);
		piece(context, host, left);
		gpa += left, size -= left;
	}
	return 0;
}

static void piece_read(void *context, void *host, size_t n)
{
	uint8_t **to = context;

	memcpy(*to, host, n);
	*to += n;
}

static void piece_write(void *context, void *host, size_t n)
{
	const uint8_t **from = context;

	memcpy(host, *from, n);
	*from += n;
}

static void piece_fill(void *context, void *host, size_t n)
{
	memset(host, *(uint8_t *)context, n);
}

int gmem_read(struct gmem *gm, uint64_t gpa, void *dst, size_t size)
{
	return gmem_walk(gm, gpa, size, piece_read, &dst);
}

int gmem_write(struct gmem *gm, uint64_t gpa, const void *src, size_t size)
{
	return gmem_walk(gm, gpa, size, piece_write, &src);
}

int gmem_fill(struct gmem *gm, uint64_t gpa, uint8_t byte, size_t size)
{
	return gmem_walk(gm, gpa, size, piece_fill, &byte);
}

int gmem_iov(struct gmem *gm, uint64_t gpa, size_t size, struct iovec *iov, unsigned max,
	     unsigned *count)
{
	unsigned n = *count;
	uint64_t left;

	if (!gmem_contains(gm, gpa, size))
		return -EFAULT;
	while (size) {
		uint8_t *p = gmem_lookup(gm, gpa, &left);

		left = MIN(left, size);
		if (n && (uint8_t *)iov[n - 1].iov_base + iov[n - 1].iov_len == p) {
			iov[n - 1].iov_len += left;
		} else {
			if (n == max)
				return -E2BIG;
			iov[n++] = (struct iovec){ .iov_base = p, .iov_len = left };
		}
		gpa += left, size -= left;
	}
	*count = n;
	return 0;
}

void *gmem_page(struct gmem *gm, uint64_t gpa)
{
	uint64_t left;

	if (gpa % GMEM_PAGE_SIZE)
		return NULL;
	return gmem_lookup(gm, gpa, &left);
}

/* --- growing and giving back --- */

int gmem_grow(struct gmem *gm, uint64_t size)
{
	struct gmem_range *last = &gm->ranges[gm->count - 1];

	if (size < last->size || size > range_room(last) || size % GMEM_PAGE_SIZE)
		return -ERANGE;
	__atomic_store_n(&last->size, size, __ATOMIC_RELEASE);
	return 0;
}

/* A hole in a memfd, since only unmapping its pages would keep them. */
static int give_back(const struct gmem *gm, void *host, uint64_t size)
{
	return madvise(host, size, gm->fd < 0 ? MADV_DONTNEED : MADV_REMOVE) < 0 ? -errno : 0;
}

void gmem_shrink(struct gmem *gm)
{
	struct gmem_range *last = &gm->ranges[gm->count - 1];
	uint64_t more = last->size - gm->last_size;

	__atomic_store_n(&last->size, gm->last_size, __ATOMIC_RELEASE);
	if (more)
		(void)give_back(gm, (uint8_t *)last->host + gm->last_size, more);
}

int gmem_discard(struct gmem *gm, uint64_t gpa, uint64_t size)
{
	uint64_t left;
	int r = 0;

	if ((gpa | size) % GMEM_PAGE_SIZE)
		return -EINVAL;
	if (!gmem_contains(gm, gpa, size))
		return -EFAULT;
	while (size && !r) {
		void *host = gmem_lookup(gm, gpa, &left);

		left = MIN(left, size);
		r = give_back(gm, host, left);
		gpa += left, size -= left;
	}
	return r;
}
