/* SPDX-License-Identifier: MIT */
/*
 * Key-value exchange: items in five pools, some of the host's for the guest and some the other way,
 * and the guest's addresses. The guest's kernel passes what is asked to its daemon; one thing at a
 * time. What is asked meanwhile waits here, in order.
 */
#pragma once

#include "devices/ic/ic.h"

#define KVP_ITEMS_MAX      256u /* of one pool that are read */
#define KVP_WAITING_MAX    64u  /* things to ask, waiting */
#define KVP_KEY_MAX        255u /* characters of a key (UTF-16 units, as the wire has room) */
#define KVP_VALUE_MAX      1023u
#define KVP_ANSWER_SECONDS 40u /* Linux gives its daemon 30 s: HV_UTIL_TIMEOUT */

enum kvp_pool { /* numbered as on the wire */
		KVP_EXTERNAL,
		KVP_GUEST,
		KVP_AUTO,
		KVP_AUTO_EXTERNAL,
		KVP_AUTO_INTERNAL,
		KVP_POOLS,
};
extern const char *const kvp_pool_names[KVP_POOLS];

struct kvp_item {
	char *key, *value; /* numbers as decimal text */
};

struct kvp_items {
	struct kvp_item *list;
	unsigned count;
};
void kvp_items_clear(struct kvp_items *items);
const char *kvp_items_find(const struct kvp_items *items, const char *key); /* NULL: not there */

/* Addresses of one adapter; several in a text are separated by ';'. */
struct kvp_ip {
	char *adapter; /* to get: its MAC address like "00:15:5d:01:02:03"; to set: its GUID */
	bool ipv4, ipv6, dhcp;
	char *addresses, *subnets, *gateways, *dns;
};
void kvp_ip_clear(struct kvp_ip *ip);

enum kvp_op {
	KVP_GET,
	KVP_SET,
	KVP_DELETE,
	KVP_ENUMERATE,
	KVP_GET_IP,
	KVP_SET_IP,
};

/* Something to ask. The asker's; until `done` it must stay, and kvp_drop ends it before. */
struct kvp_call {
	struct list node; /* in the queue; list_init'ed by kvp_ask */
	enum kvp_op op;
	enum kvp_pool pool;
	const char *key, *value; /* of GET, SET, DELETE; borrowed */
	struct kvp_items items;  /* what GET and ENUMERATE found; cleared by the asker */
	struct kvp_ip ip;        /* GET_IP, SET_IP; cleared by the asker */
	void (*done)(struct kvp_call *call, int result, const struct error *err);
};

struct kvp {
	struct ic ic;
	struct list waiting;
	struct kvp_call *asked; /* of these, the first; NULL when it was dropped */
	unsigned waiting_count;
	bool pumping;
	bool silent; /* it did not answer in time, and nothing came since */
	/* What the guest says of itself: pool KVP_AUTO, read again from time to time. */
	struct kvp_items info;
	struct kvp_call info_call;
	bool info_asked, info_known;
	unsigned info_failures;
	struct loop_timer info_timer;
	unsigned info_wait; /* seconds until the next reading */
	uint64_t info_read; /* loop_now of the last one that worked */
	/* `info` has changed; the guest's daemon answers or has ceased to. NULL is fine. */
	void (*info_changed)(struct kvp *k);
	/* The guest has come: host's items are due. NULL is fine. */
	void (*ready)(struct kvp *k);
};

void kvp_init(struct kvp *k, struct loop *loop, struct vmbus *bus);
void kvp_deinit(struct kvp *k);
void kvp_pause(struct kvp *k);
void kvp_resume(struct kvp *k);
/* 0: `done` will be called, from the loop. Else words that say why it cannot be asked. */
int kvp_ask(struct kvp *k, struct kvp_call *call, struct error *err) _must_check_;
void kvp_drop(struct kvp *k, struct kvp_call *call); /* no `done`; harmless when it is not asked */
/* Reads the guest's items again, soon. */
void kvp_refresh(struct kvp *k);
/* Whether text fits into a key or a value; words when not. */
int kvp_key_check(const char *key, struct error *err) _must_check_;
int kvp_value_check(const char *value, struct error *err) _must_check_;
