/* SPDX-License-Identifier: MIT */
/*
 * What is left to do to a frame: whether it is possible, and doing it for those who cannot. Payload
 * is read where it lies, in memory that may change: what comes out then has a wrong checksum, and
 * nothing else happens. Any thread, on the caller's structs.
 */
#pragma once

#include "net/headers.h"
#include "net/port.h"

#define FINISH_SEGMENTS 256u /* most that a frame becomes: what one send may cost us */

/* A frame in two pieces: headers that are private, and the rest where it lies. */
struct net_piece {
	const uint8_t *head, *rest;
	size_t head_size, rest_size;
};

/*
 * Whether headers and offload fit together: nothing may be written later where it was judged
 * before. Makes o->header_size right. Copies as much of the headers as finishing will write to.
 */
bool finish_judge(struct net_headers *h, struct net_offload *o);
unsigned finish_needs(const struct net_offload *o); /* NET_TAKES_* that taking it as it is needs */
unsigned finish_segments(const struct net_headers *h, const struct net_offload *o);
/*
 * Emits the frames that it becomes, from *at on, which counts them, until `emit` fails: its result.
 */
int finish_frame(const struct net_headers *h, const struct net_offload *o, unsigned *at,
		 int (*emit)(void *context, const struct net_piece *piece), void *context);
