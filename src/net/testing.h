/* SPDX-License-Identifier: MIT */
/* For tests, fuzzers: something plugged into a switch that keeps what it gets, and frames to send.
 */
#pragma once

#include "net/switch.h"

#define NET_FAKE_KEEPS 64u /* of the frames that it got last */

struct net_fake_frame {
	struct net_offload offload;
	size_t size;
	uint8_t *bytes; /* malloc'ed */
};

struct net_fake {
	struct net_uplink uplink;
	struct net_fake_frame *in; /* to be sent */
	unsigned in_count, in_at, released;
	struct net_fake_frame got[NET_FAKE_KEEPS];
	uint64_t got_count, got_bytes;
	bool limited;  /* it takes only `room` more bytes */
	uint64_t room; /* add to it and call net_switch_wake */
	bool wants_room;
	unsigned freed; /* counted in the switch's hands; the memory is the test's */
};

void net_fake_init(struct net_fake *f, unsigned takes);
void net_fake_deinit(struct net_fake *f);
void net_fake_queue(struct net_fake *f, const void *bytes, size_t size,
		    const struct net_offload *offload); /* offload may be NULL */
/* Forgets what it got. */
void net_fake_clear(struct net_fake *f);
