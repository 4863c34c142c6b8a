/* SPDX-License-Identifier: MIT */
/*
 * The addresses of what is plugged into a port, learned from what it says: ARP (RFC 826, RFC 5227),
 * neighbour discovery (RFC 4861) with its test for duplicates (RFC 4862 5.4), and the DHCP server's
 * word (RFC 2131). This is how a guest's address is known where it has no KVP daemon.
 *
 * Believed is what a machine says about itself: the frame's source is the sender of the ARP or ND
 * message in it. What it asks (a probe, a test) is not yet its own. Addresses that it merely sends
 * from are not looked at, as it may forward others'. One thread; nothing is allocated after the
 * beginning.
 */
#pragma once

#include "net/inet.h"

/* What one machine may have; more are not kept, and the one not heard of for longest goes. */
#define NET_LEARN_MAX 16u
/* Addresses under test for duplicates at a time. */
#define NET_LEARN_TESTED 8u
/*
 * How long one is believed that nothing is heard of. An idle guest says nothing by itself, so this
 * is long; what replaces it is seen at once, and a port that goes takes its addresses along.
 */
#define NET_LEARN_AGE_NS (UINT64_C(4) * 3600 * 1000000000)
/* The test for duplicates is over (RFC 4861: RETRANS_TIMER, 1 s; once by default). */
#define NET_LEARN_TEST_NS UINT64_C(1200000000)

enum net_learned_from {
	NET_LEARNED_ARP,
	NET_LEARNED_ND,
	NET_LEARNED_DHCP,
};

struct net_address {
	uint8_t family; /* AF_INET, AF_INET6 */
	uint8_t from;   /* enum net_learned_from; the surest */
	uint8_t bytes[16];
	struct inet_mac mac;
	uint64_t until; /* ns */
};

/* Embedded in a port; zeroed = nothing known. */
struct net_learner {
	struct net_address list[NET_LEARN_MAX];
	unsigned count;
	struct net_address tested[NET_LEARN_TESTED]; /* `until`: it has passed then */
	unsigned tested_count;
	struct inet_mac client; /* whose DHCP request was under way */
	uint32_t transaction;
	bool requested;
};

/* Whether net_learner_frame would want to see this frame: cheap, for the path of each. */
bool net_learner_wants(const void *frame, size_t size);

enum net_learn_direction {
	NET_LEARN_FROM_PORT,
	NET_LEARN_TO_PORT,
};
/*
 * A frame of the port's, tags included, that the switch's guards let through. `now`: any clock of
 * ns. True = the list has changed: tell it, but not more often than is good for who listens.
 */
bool net_learner_frame(struct net_learner *l, const void *frame, size_t size,
		       enum net_learn_direction direction, uint64_t now);
/* Drops what is too old and takes up what has passed its test. True = the list has changed. */
bool net_learner_age(struct net_learner *l, uint64_t now);
/* When to call net_learner_age next; UINT64_MAX = not by itself. */
uint64_t net_learner_next(const struct net_learner *l);
