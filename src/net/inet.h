/* SPDX-License-Identifier: MIT */
/*
 * Just enough of Ethernet (IEEE 802.3, 802.1Q), IPv4 (RFC 791), IPv6 (RFC 8200) and UDP (RFC 768)
 * for the services of a switch: taking one datagram apart, and making one. Frames are private
 * copies here; nothing is allocated. Addresses of IPv4 are in the host's order. Any thread.
 */
#pragma once

#include "lib/cursor.h"

#include <sys/types.h>

#define INET_MAC_SIZE    6
#define INET_ETHER_IP4   0x0800u
#define INET_ETHER_ARP   0x0806u
#define INET_ETHER_IP6   0x86ddu
#define INET_ETHER_VLAN  0x8100u
#define INET_ETHER_VLANS 0x88a8u
#define INET_UDP         17u
#define INET_ICMP6       58u
/* Headers of a datagram that is made here: Ethernet, IPv4 without options, UDP. */
#define INET_UDP4_HEADERS 42u
/* What fits behind them into an Ethernet frame of the usual size. */
#define INET_UDP4_MAX 1472u

struct inet_mac {
	uint8_t byte[INET_MAC_SIZE];
};
#define INET_MAC_ALL ((struct inet_mac){ { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff } })

static inline bool inet_mac_equal(const struct inet_mac *a, const struct inet_mac *b)
{
	return !memcmp(a, b, sizeof(*a));
}

/* Whether it can be one machine's: not a group's, not zero. */
static inline bool inet_mac_single(const struct inet_mac *m)
{
	static const struct inet_mac zero;

	return !(m->byte[0] & 1) && !inet_mac_equal(m, &zero);
}

/* What is in front of the payload of a frame. */
struct inet_ether {
	struct inet_mac to, from;
	uint16_t type; /* of the payload, behind at most two tags */
};
/* The reader stands at the payload then; false = that is no frame. */
bool inet_read_ether(struct reader *r, struct inet_ether *ret);

struct inet_ip4 {
	uint32_t from, to;
	uint8_t protocol;
	bool piece; /* of a datagram in fragments */
};
/* Leaves in the reader what the packet has behind its header. The header's checksum is checked. */
bool inet_read_ip4(struct reader *r, struct inet_ip4 *ret);

struct inet_ip6 {
	uint8_t from[16], to[16];
	uint8_t protocol; /* behind extension headers that may be skipped */
	uint8_t hops;
};
bool inet_read_ip6(struct reader *r, struct inet_ip6 *ret);

struct inet_udp {
	struct inet_ether ether;
	struct inet_ip4 ip;
	uint16_t from_port, to_port;
	const uint8_t *data; /* in the frame */
	size_t size;
};
/*
 * A whole datagram over IPv4; false = something else. `unfinished`: its checksum is still to be
 * made (net_offload), so it is not looked at.
 */
bool inet_read_udp4(const void *frame, size_t size, bool unfinished, struct inet_udp *ret);

/*
 * Makes a frame of `u` (its data are copied, at most INET_UDP4_MAX bytes): its size, 0 = no room.
 */
size_t inet_write_udp4(void *frame, size_t room, const struct inet_udp *u);

/* The sum of RFC 1071 over `size` bytes, added to `sum`; fold at the end. */
uint32_t inet_sum(uint32_t sum, const void *data, size_t size);
uint16_t inet_sum_fold(uint32_t sum);
/* The sum of a pseudo header (RFC 8200 8.1) of IPv6. */
uint32_t inet_sum_ip6(const uint8_t from[16], const uint8_t to[16], uint8_t protocol, size_t size);
