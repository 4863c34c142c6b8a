// SPDX-License-Identifier: MIT
/*
 * Rings: copying in and out of pages that the guest may scatter and change at any time, and the
 * signalling rules. A writer signals only when it makes an empty ring non-empty and the reader has
 * not masked signals; a reader signals only when it makes the room that the writer asked for.
 * A ring is never filled completely: equal indices mean empty. Facts: Linux
 * drivers/hv/ring_buffer.c and OpenVMM vmbus_ring agree on all of this.
 */
#include "vmbus/ring.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

int ring_init(struct ring *ring, void *const *pages, unsigned count)
{
	bool adjacent = true;

	*ring = (struct ring){ .control = pages[0], .size = (count - 1) * GMEM_PAGE_SIZE };
	ring->pages = malloc((count - 1) * sizeof(*pages));
	if (!ring->pages)
		return -ENOMEM;
	memcpy(ring->pages, pages + 1, (count - 1) * sizeof(*pages));
	for (unsigned i = 2; i < count; i++)
		adjacent = adjacent && (uint8_t *)pages[i] == (uint8_t *)pages[i - 1] + 4096;
	ring->linear = adjacent ? pages[1] : NULL;
	return 0;
}

void ring_deinit(struct ring *ring)
{
	free(ring->pages);
	*ring = (struct ring){ .broken = true };
}

/* The host address of a data offset, and how many bytes follow it in one piece. */
static uint8_t *piece(const struct ring *ring, uint32_t at, uint32_t want, uint32_t *ret_size)
{
	uint32_t in_page = at % GMEM_PAGE_SIZE;

	if (ring->linear) {
		*ret_size = MIN(want, ring->size - at);
		return ring->linear + at;
	}
	*ret_size = MIN(want, GMEM_PAGE_SIZE - in_page);
	return (uint8_t *)ring->pages[at / GMEM_PAGE_SIZE] + in_page;
}

static void copy_out(const struct ring *ring, uint32_t at, void *dst, uint32_t size)
{
	uint8_t *to = dst;
	uint32_t n;

	for (; size; size -= n, to += n) {
		const uint8_t *from = piece(ring, at, size, &n);

		memcpy(to, from, n);
		at = ring_advance(at, n, ring->size);
	}
}

static uint32_t copy_in(const struct ring *ring, uint32_t at, const void *src, uint32_t size)
{
	const uint8_t *from = src;
	uint32_t n;

	for (; size; size -= n, from += n) {
		uint8_t *to = piece(ring, at, size, &n);

		memcpy(to, from, n);
		at = ring_advance(at, n, ring->size);
	}
	return at;
}

static int broken(struct ring *ring)
{
	ring->broken = true;
	return -EIO;
}

/* --- reading --- */

/* Whether giving back `bytes` made the room that the writer waits for. */
static bool writer_waits(const struct ring *ring, uint32_t bytes)
{
	uint32_t want, in, free_now;

	atomic_thread_fence(memory_order_seq_cst);
	want = gshared_load32(ring->control, RING_PENDING_SEND_SIZE) & ~7u;
	if (!want)
		return false;
	in = gshared_load32(ring->control, RING_IN);
	if (!ring_index_valid(in, ring->size))
		return false;
	free_now = ring->size - ring_used(in, ring->own, ring->size);
	return free_now > want && free_now - MIN(bytes, free_now) <= want;
}

int ring_read(struct ring *ring, void *buffer, uint32_t max, bool *ret_signal)
{
	struct vmbus_packet_descriptor d;
	uint32_t in, used, length, offset;

	*ret_signal = false;
	if (ring->broken)
		return -EIO;
	in = gshared_load32(ring->control, RING_IN);
	if (in == ring->own)
		return 0;
	if (!ring_index_valid(in, ring->size))
		return broken(ring);
	used = ring_used(in, ring->own, ring->size);
	if (used < sizeof(d) + VMBUS_PACKET_TRAILER)
		return broken(ring);
	copy_out(ring, ring->own, &d, sizeof(d));
	length = le16_get(d.length8) * 8u;
	offset = le16_get(d.offset8) * 8u;
	if (offset < sizeof(d) || length < offset || length > max ||
	    length > used - VMBUS_PACKET_TRAILER)
		return broken(ring);
	memcpy(buffer, &d, sizeof(d));
	copy_out(ring, ring_advance(ring->own, sizeof(d), ring->size),
		 (uint8_t *)buffer + sizeof(d), length - (uint32_t)sizeof(d));
	ring->own = ring_advance(ring->own, length + VMBUS_PACKET_TRAILER, ring->size);
	gshared_store32(ring->control, RING_OUT, ring->own);
	*ret_signal = writer_waits(ring, length + VMBUS_PACKET_TRAILER);
	return (int)length;
}

bool ring_mask(struct ring *ring, bool mask)
{
	gshared_store32(ring->control, RING_INTERRUPT_MASK, mask);
	atomic_thread_fence(memory_order_seq_cst);
	return !ring->broken && gshared_load32(ring->control, RING_IN) != ring->own;
}

/* --- writing --- */

uint32_t ring_packet_size(size_t payload)
{
	return (uint32_t)(sizeof(struct vmbus_packet_descriptor) + round_up64(payload, 8) +
			  VMBUS_PACKET_TRAILER);
}

static int room(struct ring *ring, uint32_t *ret_free)
{
	uint32_t out;

	if (ring->broken)
		return -EIO;
	out = gshared_load32(ring->control, RING_OUT);
	if (!ring_index_valid(out, ring->size))
		return broken(ring);
	*ret_free = ring->size - ring_used(ring->own, out, ring->size);
	return 0;
}

int ring_has_room(struct ring *ring, uint32_t bytes)
{
	uint32_t free_now;
	int r = room(ring, &free_now);

	if (r < 0)
		return r;
	if (free_now > bytes)
		return 1;
	gshared_store32(ring->control, RING_PENDING_SEND_SIZE, bytes);
	atomic_thread_fence(memory_order_seq_cst);
	r = room(ring, &free_now);
	if (r < 0 || free_now <= bytes)
		return r;
	gshared_store32(ring->control, RING_PENDING_SEND_SIZE, 0);
	return 1;
}

int ring_put(struct ring *ring, struct vmbus_packet_descriptor d, const void *payload, size_t size)
{
	static const uint8_t zeros[8];
	uint32_t total = ring_packet_size(size), at;
	le64 trailer = le64_of((uint64_t)ring->own << 32);
	int r = ring_has_room(ring, total);

	if (r <= 0)
		return r < 0 ? r : -EAGAIN;
	if (gshared_load32(ring->control, RING_PENDING_SEND_SIZE))
		gshared_store32(ring->control, RING_PENDING_SEND_SIZE, 0);
	if (!le16_get(d.offset8))
		d.offset8 = le16_of(sizeof(d) / 8);
	d.length8 = le16_of((uint16_t)((total - VMBUS_PACKET_TRAILER) / 8));
	at = copy_in(ring, ring->own, &d, sizeof(d));
	at = copy_in(ring, at, payload, (uint32_t)size);
	at = copy_in(ring, at, zeros, (uint32_t)(-size % 8));
	ring->own = copy_in(ring, at, &trailer, sizeof(trailer));
	return 0;
}

bool ring_show(struct ring *ring)
{
	uint32_t before = ring->shown;

	if (before == ring->own)
		return false;
	ring->shown = ring->own;
	gshared_store32(ring->control, RING_IN, ring->own);
	atomic_thread_fence(memory_order_seq_cst);
	return !gshared_load32(ring->control, RING_INTERRUPT_MASK) &&
	       gshared_load32(ring->control, RING_OUT) == before;
}

int ring_write(struct ring *ring, struct vmbus_packet_descriptor d, const void *payload,
	       size_t size, bool *ret_signal)
{
	int r = ring_put(ring, d, payload, size);

	*ret_signal = ring_show(ring);
	return r;
}
