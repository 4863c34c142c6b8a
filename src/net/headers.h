/* SPDX-License-Identifier: MIT */
/*
 * The headers of a frame: copied out of memory that may change, once and no further than needed,
 * and followed as a copy. The fields tell what the last header is about even when tags, LLC, IPv6
 * extension headers or fragmentation stand before it; where that cannot be told, `undecided`.
 */
#pragma once

#include "lib/types.h"

#include <string.h>

#define NET_HEAD_FIRST 128u  /* copied at once */
#define NET_HEAD_MAX   1024u /* most that is ever copied; headers beyond cannot be followed */

#define ETHERTYPE_IP4   0x0800u
#define ETHERTYPE_ARP   0x0806u
#define ETHERTYPE_VLAN  0x8100u /* IEEE 802.1Q */
#define ETHERTYPE_IP6   0x86ddu
#define ETHERTYPE_QINQ  0x88a8u /* IEEE 802.1ad */
#define ETHERTYPE_QINQ1 0x9100u /* the same before it was a standard */
#define ETHER_MACS      12u     /* bytes before the type */
#define VLAN_TAG        4u
#define VLAN_ID_MASK    0xfffu

#define IP_TCP       6u
#define IP_UDP       17u
#define IP_ICMP4     1u
#define IP_ICMP6     58u
#define TCP_FIN      0x01u
#define TCP_RST      0x04u
#define TCP_PSH      0x08u
#define TCP_CWR      0x80u
#define IP_FRAGMENTS 0x1fffu /* of the fragment word: offset */
#define IP_MORE      0x2000u

struct net_headers {
	const uint8_t *data; /* the frame where it lies */
	size_t size;
	size_t have; /* bytes of it in `bytes` */

	uint8_t tags;    /* VLAN tags; the first of them: */
	uint16_t tpid;   /* its type */
	uint16_t tci;    /* priority and VLAN */
	uint16_t type;   /* behind tags and LLC; 0 = none */
	uint8_t version; /* of IP; 0 = no IP */
	uint8_t protocol;
	bool undecided;                         /* what comes last cannot be told */
	bool cut;                               /* the frame ends within its tags */
	bool fragment;                          /* of a datagram */
	bool later;                             /* not its first one: there are no ports */
	bool extended;                          /* IP options or extension headers */
	uint16_t l3, l4, l4_end;                /* where they begin; l4 0 = not there */
	uint16_t source_port, destination_port; /* TCP, UDP */
	uint8_t icmp_type, tcp_flags;

	uint8_t bytes[NET_HEAD_MAX] __attribute__((aligned(16)));
};

/* Follows the frame's headers. `size` is at least an Ethernet header's. */
void net_headers_read(struct net_headers *h, const void *data, size_t size);
/* Copies further, to `end` at most; what is there then. */
size_t net_headers_more(struct net_headers *h, size_t end);

static inline uint16_t load_be16(const uint8_t *p)
{
	be16 v;

	memcpy(&v, p, sizeof(v));
	return be16_get(v);
}

static inline uint32_t load_be32(const uint8_t *p)
{
	be32 v;

	memcpy(&v, p, sizeof(v));
	return be32_get(v);
}

static inline void store_be16(uint8_t *p, uint32_t v)
{
	be16 x = be16_of((uint16_t)v);

	memcpy(p, &x, sizeof(x));
}

static inline void store_be32(uint8_t *p, uint32_t v)
{
	be32 x = be32_of(v);

	memcpy(p, &x, sizeof(x));
}
