/* SPDX-License-Identifier: MIT */
/* The switch between its files: switch.c (ports, turns, waiting) and forward.c (one frame). */
#pragma once

#include "lib/list.h"
#include "net/finish.h"
#include "net/headers.h"
#include "net/rules.h"
#include "net/switch.h"
#include "net/table.h"

#define MAC_BUCKETS 1024u

enum port_state {
	PORT_EMPTY,   /* nothing is plugged in, or it has ended */
	PORT_ASLEEP,  /* armed */
	PORT_ACTIVE,  /* on the switch's list `active` */
	PORT_SHAPED,  /* on `shaped`, until `deadline` */
	PORT_WAITING, /* on another port's list `waiters`, with its frame */
};

/* A frame that was judged, until it is delivered. */
struct frame {
	struct net_headers head;
	struct net_offload offload;
	uint16_t vlan;
	bool multicast;
	struct net_switch_port *to; /* NULL = to all whom it may concern */
	unsigned segment;           /* how many went out already */
};

/* Credit in bytes or frames that grows with time; below zero it waits. */
struct bucket {
	uint64_t rate; /* a second; 0 = no limit */
	int64_t burst, credit;
	uint64_t at;   /* ns; credit was right then */
	uint64_t rest; /* of the division, so that slow rates are exact too */
};

struct net_switch_port {
	struct net_switch *owner;
	char id[NET_ID_MAX];
	uint16_t index;
	enum port_state state;
	struct list run;
	struct net_settings settings; /* its rules are `rules`' */
	struct net_rule *rule_list;
	struct rules *rules;
	struct net_switch_port *mac_next; /* in its bucket */
	uint64_t carries[NET_VLANS / 64]; /* VLANs whose frames go to it */

	struct net_port *port;
	struct net_uplink *uplink;
	bool dirty;        /* on the list of those to be flushed */
	unsigned empty;    /* turns without a frame */
	uint32_t share;    /* its weight, from what the switch shares by */
	int64_t deficit;   /* of the destination that it waits for */
	bool served;       /* by that just now */
	bool blocked;      /* ... which had no room */
	uint64_t deadline; /* of PORT_SHAPED */
	struct bucket bandwidth, storm;

	/* As a destination. */
	struct list waiters;
	struct list full;  /* on the switch's list while it has waiters */
	bool ready;        /* it may have made room */
	uint64_t patience; /* until when they wait for it to make room */
	uint64_t patience_bytes;
	uint64_t slow_until;

	struct net_switch_counters counters;
	void *context;
	bool pending; /* `frame` waits, and has not been released */
	struct frame frame;
};

struct net_switch {
	struct net_switch_options options;
	uint64_t now;
	struct list active, shaped, full;
	struct net_switch_port *ports[NET_SWITCH_PORTS];
	unsigned port_end; /* index behind the last port */
	unsigned mirrors;  /* destinations */
	unsigned share_least;
	struct net_switch_port *dirty[NET_SWITCH_PORTS];
	unsigned dirty_count;
	struct net_switch_port *macs[MAC_BUCKETS];
	uint16_t primary[NET_VLANS]; /* of a secondary VLAN; itself for all others */
	uint64_t seed;
	struct table table;
};

void bucket_set(struct bucket *b, uint64_t rate, uint64_t burst, uint64_t now);
void bucket_fill(struct bucket *b, uint64_t now);
/* When it has what was asked for. */
uint64_t bucket_when(const struct bucket *b, int64_t credit);

/* forward.c: judges the frame into p->frame; false: it was dropped. */
bool forward_judge(struct net_switch_port *p, const struct net_frame *f);
/* Delivers p->frame. -EAGAIN: frame.to has no room, and the frame would wait. */
int forward_deliver(struct net_switch_port *p);
/* Bytes of it on a wire. */
uint64_t forward_size(const struct frame *f);

struct net_switch_port **mac_bucket(struct net_switch *s, const uint8_t mac[6]);

static inline bool vlan_in(const uint64_t set[NET_VLANS / 64], uint16_t vlan)
{
	return set[vlan / 64] >> vlan % 64 & 1;
}

static inline void port_drop(struct net_switch_port *p, enum net_drop why)
{
	p->counters.dropped[why]++;
}
