/* SPDX-License-Identifier: MIT */
/*
 * A virtual switch as a library: ports with their settings, frames in, frames out. It has no
 * process, sockets or clock; who owns it says when a port may have something and what time it is,
 * and calls net_switch_run. One thread.
 *
 * Of each frame the headers are copied once and judged as a copy; what is behind them goes from
 * where it lies to where it belongs in one copy, and nothing of it is looked at. There are no
 * queues but the ports' own: a sender whose frame has no room, or who has used up its bandwidth,
 * keeps its frames, and those for slow destinations are dropped.
 */
#pragma once

#include "net/port.h"

#define NET_SWITCH_PORTS 512u /* one entry of a flood each */
#define NET_PORT_RULES   256u /* each frame may be held against all of them */
#define NET_ID_MAX       64u  /* bytes of a port's or rule's id, with the zero */
#define NET_VLANS        4096u

typedef struct {
	uint8_t bytes[6];
} net_mac; /* all zeros = none */

/* --- what is plugged in --- */

/*
 * Something else than a guest behind a port: a tap, a packet socket, NAT. Its functions mean what
 * those of a struct net_port mean (port.h): frames stay until release, send copies, flush ends a
 * batch, arm is called before sleep. It belongs to the switch once it is added.
 */
struct net_uplink;
struct net_uplink_ops {
	/* Frames' `data` may be private memory: it is read before release only. */
	int (*receive)(struct net_uplink *u, struct net_frame *ret);
	void (*release)(struct net_uplink *u);
	/* Only what `takes` says comes here; the rest has been done. -EAGAIN: no room. */
	int (*send)(struct net_uplink *u, const struct net_offload *offload,
		    const struct iovec *iov, unsigned count, size_t size);
	void (*flush)(struct net_uplink *u);
	bool (*want_room)(struct net_uplink *u); /* true: there is room already */
	bool (*arm)(struct net_uplink *u);       /* false: there is something already */
	void (*free)(struct net_uplink *u);
};
struct net_uplink {
	const struct net_uplink_ops *ops;
	/* The owner of the switch watches this for `events` (EPOLL*), and calls net_switch_wake;
	 * -1: the uplink does so by itself. It may change `events` in any call. */
	int fd;
	uint32_t events;
	unsigned takes;               /* NET_TAKES_* */
	struct net_switch_port *port; /* set by the switch */
};

/* --- settings --- */

enum net_vlan_mode {
	NET_VLAN_ACCESS,      /* untagged frames are in `id`; 0 = in no VLAN; others are dropped */
	NET_VLAN_TRUNK,       /* untagged ones are in `id`, tagged ones where `set` has them */
	NET_VLAN_ISOLATED,    /* primary `id`, `secondary`: reaches promiscuous ports */
	NET_VLAN_COMMUNITY,   /* and those of its community */
	NET_VLAN_PROMISCUOUS, /* primary `id`, all secondaries of `set` */
};
struct net_vlan {
	enum net_vlan_mode mode;
	uint16_t id, secondary;
	uint64_t set[NET_VLANS / 64];
};

enum net_direction {
	NET_OUTBOUND, /* from what is plugged in */
	NET_INBOUND,
};
enum net_action {
	NET_ALLOW,
	NET_DENY,
	NET_METER, /* counts, and the next rule is asked */
};
/* One end of what a rule is about; local is the port's own. */
struct net_match {
	bool has_mac;
	net_mac mac;
	uint8_t version; /* 4, 6; 0 = any address, none included */
	uint8_t prefix;  /* bits */
	uint8_t address[16];
	uint16_t port_first, port_last; /* 0, 65535 = any */
};
struct net_rule {
	char id[NET_ID_MAX]; /* counters stay with it when rules change; may be empty */
	enum net_direction direction;
	enum net_action action;
	bool stateful;    /* answers to what it allows are allowed */
	uint32_t timeout; /* of its flows, in s */
	uint32_t weight;  /* the heaviest that matches decides, then the narrower, the earlier */
	int16_t protocol; /* of IP; -1 = any */
	struct net_match local, remote;
};

enum net_mirror {
	NET_MIRROR_NONE,
	NET_MIRROR_SOURCE,      /* what it sends and gets is copied */
	NET_MIRROR_DESTINATION, /* to here */
};

struct net_settings {
	net_mac mac;   /* its own */
	bool spoofing; /* it may send from others; the switch learns them */
	uint32_t mac_limit;
	bool dhcp_guard, router_guard;
	bool drops; /* its frames are dropped where there is no room, and never wait */
	struct net_vlan vlan;
	enum net_mirror mirror;
	uint32_t storm_limit;       /* broadcast and multicast frames a second; 0 = none */
	uint64_t maximum_bandwidth; /* bit/s that it sends; 0 = none */
	uint32_t minimum_weight;    /* 1..100; 0 = 1 */
	uint64_t minimum_bandwidth; /* bit/s; for switches that share by these */
	const struct net_rule *rules;
	unsigned rule_count;
};
/* An access port in no VLAN, guarded against nothing but spoofing. */
extern const struct net_settings net_settings_default;
/* What an uplink has: any address, all VLANs. */
extern const struct net_settings net_settings_uplink;

/* --- counters --- */

enum net_drop {
	NET_DROP_MALFORMED, /* headers cut off, or too many to judge */
	NET_DROP_OFFLOAD,   /* left to do what cannot be done to it */
	NET_DROP_VLAN,
	NET_DROP_SPOOF,
	NET_DROP_DHCP_GUARD,
	NET_DROP_ROUTER_GUARD,
	NET_DROP_RULE,
	NET_DROP_FLOWS, /* allowed, but its flow table is full */
	NET_DROP_STORM,
	NET_DROP_NOWHERE, /* nobody is there who may have it */
	NET_DROP_FULL,    /* to this port: it did not take its frames */
	NET_DROPS,
};
extern const char *const net_drop_names[NET_DROPS];

struct net_switch_counters {
	uint64_t frames_in, bytes_in;   /* from the port */
	uint64_t frames_out, bytes_out; /* to it */
	uint64_t multicast_in, multicast_out;
	uint64_t dropped[NET_DROPS];
};
struct net_rule_counters {
	uint64_t frames, bytes;
};

/* --- the switch --- */

enum net_sharing {
	NET_SHARE_WEIGHT,
	NET_SHARE_ABSOLUTE,
};

struct net_switch;
struct net_switch_port;

/* Who looks on. Any of them may be NULL. None may change the switch from in there. */
struct net_switch_watcher {
	/*
	 * A frame that tells of addresses, ARP, neighbour discovery, DHCP, was let through from
	 * this port, or is on its way to it (`from` false; DHCP and neighbours only). A copy, tags
	 * left out, at most NET_WATCH_MAX bytes.
	 */
	void (*frame)(void *context, struct net_switch_port *p, bool from, uint16_t vlan,
		      const uint8_t *bytes, size_t size);
	/* The port dropped a frame for these reasons: spoofing, guards. */
	void (*dropped)(void *context, struct net_switch_port *p, enum net_drop why);
	/* What is plugged in has ended (-EPIPE: gone, -EIO: broken); the port stays, silent. */
	void (*ended)(void *context, struct net_switch_port *p, int why);
	void *context;
};
#define NET_WATCH_MAX 1024u

struct net_switch_options {
	enum net_sharing sharing;
	uint64_t mac_age; /* ns after which an address is forgotten; 0 = 300 s */
	struct net_switch_watcher watcher;
};

int net_switch_new(const struct net_switch_options *options, struct net_switch **ret,
		   struct error *err) _must_check_;
void net_switch_free(struct net_switch *s); /* with all ports; NULL is fine */

/* The settings are copied. The link is taken when it succeeds. -EEXIST, -EINVAL with words. */
int net_switch_add(struct net_switch *s, const char *id, const struct net_settings *settings,
		   struct net_switch_port **ret, struct error *err) _must_check_;
/* All at once, from the next frame on; or nothing has changed. */
int net_switch_set(struct net_switch_port *p, const struct net_settings *settings,
		   struct error *err) _must_check_;
void net_switch_remove(struct net_switch_port *p);
/* Something in the port, taken; what was there before is freed. */
void net_switch_plug(struct net_switch_port *p, struct net_port *port);
void net_switch_plug_uplink(struct net_switch_port *p, struct net_uplink *uplink);
void net_switch_unplug(struct net_switch_port *p);

/* Its descriptor (net_port_fd, net_uplink.fd) is ready. */
void net_switch_wake(struct net_switch_port *p);
/*
 * Moves frames, for a bounded time. True: there is more, come again soon. False: everything sleeps
 * until a descriptor is ready, or until *ret_deadline (ns; 0 = for ever).
 */
bool net_switch_run(struct net_switch *s, uint64_t now, uint64_t *ret_deadline);

struct net_switch_port *net_switch_find(const struct net_switch *s, const char *id);
/* The next after `p`, NULL for the first; NULL at the end. */
struct net_switch_port *net_switch_next(const struct net_switch *s,
					const struct net_switch_port *p);
const char *net_switch_port_id(const struct net_switch_port *p);
const struct net_settings *net_switch_port_settings(const struct net_switch_port *p);
struct net_uplink *net_switch_port_uplink(const struct net_switch_port *p); /* or NULL */
struct net_port *net_switch_port_link(const struct net_switch_port *p);     /* or NULL */
const struct net_switch_counters *net_switch_port_counters(const struct net_switch_port *p);
/* For rules[i] of the settings. */
struct net_rule_counters net_switch_rule_counters(const struct net_switch_port *p, unsigned i);
unsigned net_switch_port_flows(const struct net_switch_port *p); /* of stateful rules */
void net_switch_port_set_context(struct net_switch_port *p, void *context);
void *net_switch_port_context(const struct net_switch_port *p);

struct net_mac_entry {
	struct net_switch_port *port;
	net_mac mac;
	uint16_t vlan;
	uint64_t seen; /* the time of its last frame */
};
/* Learned addresses that are not too old; *at begins with 0. */
bool net_switch_mac_next(const struct net_switch *s, unsigned *at, struct net_mac_entry *ret);
