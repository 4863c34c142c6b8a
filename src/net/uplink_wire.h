/* SPDX-License-Identifier: MIT */
/*
 * A wire: an uplink of a descriptor that somebody with more rights has opened: a tap with
 * IFF_VNET_HDR, a macvtap, or a packet socket (packet(7)) bound to an interface. Which of them it
 * is is seen. What is still to be done to a frame (struct net_offload) goes along both ways.
 *
 * Everything is bounded; what the kernel does not take at once is dropped and counted. A wire whose
 * interface goes away says so (receive and send: -ENODEV, and `link`) and stays, dead, until it is
 * freed. Loop's thread.
 */
#pragma once

#include "event/loop.h"
#include "net/inet.h"
#include "net/switch.h"

#define NET_WIRE_BATCH 16u /* frames that are taken at a time, 64 KiB of memory each */
#define NET_WIRE_WORDS 160u

struct net_wire_options {
	struct loop *loop;
	int fd; /* taken in any case */
	/* A packet socket: all frames of the interface, or those for addresses that are added. */
	bool promiscuous;
	/* Also at first, soon after net_wire_new. `words` for a person; they say why when down. */
	void (*link)(void *context, bool up, const char *words);
	void *context;
};

struct net_wire_counters {
	uint64_t frames_in, bytes_in, frames_out, bytes_out;
	uint64_t dropped_in;  /* broken, or larger than any frame */
	uint64_t dropped_out; /* not taken by the kernel */
};

/* Its descriptor is to be watched edge-triggered, as `events` says. Freed by its operation. */
int net_wire_new(const struct net_wire_options *options, struct net_uplink **ret,
		 struct error *err) _must_check_;
/* A packet socket that is not promiscuous: whose frames are wanted too. 0 where it needs no word.
 */
int net_wire_mac(struct net_uplink *u, const struct inet_mac *mac, bool wanted);
const char *net_wire_interface(const struct net_uplink *u);
bool net_wire_up(const struct net_uplink *u);
struct net_wire_counters net_wire_counters(const struct net_uplink *u);
