/* SPDX-License-Identifier: MIT */
/* The kinds of wire (uplink_tap.c, uplink_packet.c) as uplink_wire.c sees them. Loop's thread. */
#pragma once

#include "net/uplink_wire.h"

#include <linux/virtio_net.h>
#include <net/if.h>

/* A frame as the kernel gave it. */
struct wire_frame {
	struct virtio_net_hdr header;
	const void *data;
	size_t size;
};

struct net_wire;

struct wire_type {
	/* Whether the descriptor is of this kind, and fit to be used: 1, 0, negative with words. */
	int (*open)(struct net_wire *w, struct error *err);
	/* 1 = a frame, which stays until `release`; 0 = none, -EAGAIN = none before `release`;
	 * other negatives: the interface is no more. */
	int (*receive)(struct net_wire *w, struct wire_frame *ret);
	void (*release)(struct net_wire *w);
	int (*send)(struct net_wire *w, const struct virtio_net_hdr *header,
		    const struct iovec *iov, unsigned count, size_t size);
	void (*flush)(struct net_wire *w);
	int (*mac)(struct net_wire *w, const struct inet_mac *mac, bool wanted);
};

struct net_wire {
	struct net_uplink uplink;
	const struct wire_type *type;
	struct net_wire_options options;
	struct loop_watch news; /* rtnetlink(7): of the interface */
	int netlink;
	char interface[IFNAMSIZ];
	int index;
	bool up, told, gone;
	bool full; /* nothing more is received before what was is released */
	struct net_wire_counters counters;
	void *state; /* of the type, malloc'ed */
};

extern const struct wire_type wire_tap, wire_packet;

/* uplink_link.c: begins to listen to what happens to w->index. */
int wire_link_begin(struct net_wire *w, struct error *err) _must_check_;
void wire_link_end(struct net_wire *w);
void wire_set_link(struct net_wire *w, bool up, const char *words);
/* The interface has gone for good. */
void wire_lost(struct net_wire *w);
