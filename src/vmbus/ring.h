/* SPDX-License-Identifier: MIT */
/*
 * One direction of a channel: a control page and a circular data area, shared with the guest.
 * Either side of a ring can be played (tests play the guest). Indices and packets from the other
 * side are copied once and judged as copies; a ring found broken stays broken.
 */
#pragma once

#include "gmem/gmem.h"
#include "lib/cursor.h"
#include "vmbus/vmbus_math.h"
#include "vmbus/vmbus_proto.h"

struct ring {
	void *control;
	void **pages;    /* data pages */
	uint8_t *linear; /* the data area when all pages are adjacent, else NULL */
	uint32_t size;   /* bytes of data, multiple of the page size */
	uint32_t own;    /* our index (read or write side); never taken back from the guest */
	uint32_t shown;  /* writer: the index that the other side has been given */
	bool broken;
};

/* `pages`: control page first, then data; `count` >= 2 in all. The array is copied. -ENOMEM. */
int ring_init(struct ring *ring, void *const *pages, unsigned count) _must_check_;
void ring_deinit(struct ring *ring);

/*
 * Reader: copies the next packet (without its trailer) into `buffer`. Returns its length in bytes,
 * 0 when there is none, -EIO when the ring is broken. `*ret_signal`: the writer waits for room and
 * wants to be signalled.
 */
int ring_read(struct ring *ring, void *buffer, uint32_t max, bool *ret_signal) _must_check_;
/* Reader: no signals while we look (true), or signals again; returns whether data is there. */
bool ring_mask(struct ring *ring, bool mask);

/* Bytes that a packet with this payload takes in the ring. */
uint32_t ring_packet_size(size_t payload);
/* Writer: whether `bytes` fit; asks the reader for a signal when they do not. -EIO when broken. */
int ring_has_room(struct ring *ring, uint32_t bytes) _must_check_;
/*
 * Writer: one packet of a descriptor (lengths are filled in), the payload padded with zeros, and
 * the trailer. 0; -EAGAIN when it does not fit; -EIO. `*ret_signal`: the reader must be signalled.
 */
int ring_write(struct ring *ring, struct vmbus_packet_descriptor descriptor, const void *payload,
	       size_t size, bool *ret_signal) _must_check_;
/* The same in two steps: any number of packets, which the reader is shown together. */
int ring_put(struct ring *ring, struct vmbus_packet_descriptor descriptor, const void *payload,
	     size_t size) _must_check_;
bool ring_show(struct ring *ring); /* true: the reader must be signalled */
