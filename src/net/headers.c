// SPDX-License-Identifier: MIT
/*
 * See headers.h. Everything on the way is followed that receivers are known to follow: stacked tags
 * of VLAN 0, LLC with SNAP in front of IP, all IPv6 extension headers of RFC 8200 and later, first
 * fragments. Where the way ends before a TCP, UDP or ICMP header is there whole, the frame is
 * undecided: who guards a port drops it (RFC 7113, 7112). Any thread, on the caller's struct.
 */
#include "net/headers.h"

#define LLC_TYPES  0x600u /* smaller: a length, and LLC behind it (IEEE 802.3) */
#define LLC_SIZE   8u     /* with SNAP */
#define TAGS_MAX   8u
#define CHAIN_MAX  16u
#define IP4_SIZE   20u
#define IP6_SIZE   40u
#define TCP_SIZE   20u
#define UDP_SIZE   8u
#define FIRST_MASK 0xfff8u /* of an IPv6 fragment word: offset */

/* IPv6 next headers (IANA, Internet Protocol Numbers: extension header types). */
enum {
	EXT_HOP_BY_HOP = 0,
	EXT_ROUTING = 43,
	EXT_FRAGMENT = 44,
	EXT_AUTHENTICATION = 51,
	EXT_NONE = 59,
	EXT_DESTINATION = 60,
	EXT_MOBILITY = 135,
	EXT_HIP = 139,
	EXT_SHIM6 = 140,
	EXT_TRY1 = 253,
	EXT_TRY2 = 254,
};

size_t net_headers_more(struct net_headers *h, size_t end)
{
	end = MIN(end, MIN(h->size, NET_HEAD_MAX));
	if (end > h->have) {
		memcpy(h->bytes + h->have, h->data + h->have, end - h->have);
		/* The compiler must not read the frame again. */
		__asm__ volatile("" : : : "memory");
		h->have = end;
	}
	return h->have;
}

static bool need(struct net_headers *h, size_t end)
{
	return end <= h->have || end <= net_headers_more(h, end);
}

static bool is_tag(uint16_t type)
{
	return type == ETHERTYPE_VLAN || type == ETHERTYPE_QINQ || type == ETHERTYPE_QINQ1;
}

/* Tags and LLC in any order; where the payload begins. */
static size_t read_link(struct net_headers *h)
{
	static const uint8_t snap[3] = { 0xaa, 0xaa, 0x03 };
	size_t at = ETHER_MACS + 2;
	uint16_t type = load_be16(h->bytes + ETHER_MACS);

	for (unsigned i = 0; i < TAGS_MAX; i++) {
		if (is_tag(type)) {
			if (!need(h, at + VLAN_TAG)) {
				h->cut = h->undecided = true;
				return at;
			}
			if (!h->tags++) {
				h->tpid = type;
				h->tci = load_be16(h->bytes + at);
			}
			type = load_be16(h->bytes + at + 2);
			at += VLAN_TAG;
		} else if (type < LLC_TYPES && need(h, at + LLC_SIZE) &&
			   !memcmp(h->bytes + at, snap, sizeof(snap))) {
			/* Whatever organisation it names: some receivers do not look (RFC 1042). */
			type = load_be16(h->bytes + at + 6);
			at += LLC_SIZE;
		} else {
			h->type = type < LLC_TYPES ? 0 : type;
			return at;
		}
	}
	h->undecided = true;
	return at;
}

static void read_tcp(struct net_headers *h, size_t at)
{
	unsigned size;

	if (!need(h, at + TCP_SIZE)) {
		h->undecided = true;
		return;
	}
	size = (h->bytes[at + 12] >> 4) * 4u;
	if (size < TCP_SIZE || !need(h, at + size)) {
		h->undecided = true;
		return;
	}
	h->tcp_flags = h->bytes[at + 13];
	h->l4_end = (uint16_t)(at + size);
}

static void read_transport(struct net_headers *h, size_t at)
{
	h->l4 = (uint16_t)at;
	h->l4_end = (uint16_t)at;
	switch (h->protocol) {
	case IP_TCP:
		read_tcp(h, at);
		break;
	case IP_UDP:
		h->undecided |= !need(h, at + UDP_SIZE);
		h->l4_end = (uint16_t)(at + UDP_SIZE);
		break;
	case IP_ICMP4:
	case IP_ICMP6:
		if (!need(h, at + 4)) {
			h->undecided = true;
			break;
		}
		h->icmp_type = h->bytes[at];
		h->l4_end = (uint16_t)(at + 4);
		break;
	default:
		break;
	}
	if (h->undecided)
		h->l4 = 0;
	else if (h->protocol == IP_TCP || h->protocol == IP_UDP) {
		h->source_port = load_be16(h->bytes + at);
		h->destination_port = load_be16(h->bytes + at + 2);
	}
}

static void read_ip4(struct net_headers *h, size_t at)
{
	unsigned size, fragment;

	if (!need(h, at + IP4_SIZE) || h->bytes[at] >> 4 != 4) {
		h->undecided = true;
		return;
	}
	size = (h->bytes[at] & 0xf) * 4u;
	if (size < IP4_SIZE || !need(h, at + size)) {
		h->undecided = true;
		return;
	}
	h->version = 4;
	h->l3 = (uint16_t)at;
	h->protocol = h->bytes[at + 9];
	h->extended = size > IP4_SIZE;
	fragment = load_be16(h->bytes + at + 6);
	h->fragment = fragment & (IP_FRAGMENTS | IP_MORE);
	h->later = fragment & IP_FRAGMENTS;
	if (!h->later)
		read_transport(h, at + size);
}

/* The bytes of an extension header, 0 = that is none. */
static size_t extension_size(struct net_headers *h, uint8_t next, size_t at)
{
	switch (next) {
	case EXT_HOP_BY_HOP:
	case EXT_ROUTING:
	case EXT_DESTINATION:
	case EXT_MOBILITY:
	case EXT_HIP:
	case EXT_SHIM6:
	case EXT_TRY1:
	case EXT_TRY2:
		return need(h, at + 2) ? (h->bytes[at + 1] + 1u) * 8 : 8;
	case EXT_FRAGMENT:
		return 8;
	case EXT_AUTHENTICATION:
		return need(h, at + 2) ? (h->bytes[at + 1] + 2u) * 4 : 8;
	default:
		return 0;
	}
}

static void read_ip6(struct net_headers *h, size_t at)
{
	uint8_t next;

	if (!need(h, at + IP6_SIZE) || h->bytes[at] >> 4 != 6) {
		h->undecided = true;
		return;
	}
	h->version = 6;
	h->l3 = (uint16_t)at;
	next = h->bytes[at + 6];
	at += IP6_SIZE;
	for (unsigned i = 0; i < CHAIN_MAX; i++) {
		size_t size = extension_size(h, next, at);

		h->protocol = next;
		if (!size) {
			read_transport(h, at);
			return;
		}
		h->extended = true;
		if (!need(h, at + size))
			break;
		if (next == EXT_FRAGMENT) {
			uint16_t word = load_be16(h->bytes + at + 2);

			h->fragment |= (word & (FIRST_MASK | 1)) != 0;
			h->later |= (word & FIRST_MASK) != 0;
		}
		next = h->bytes[at];
		at += size;
		if (h->later) {
			h->protocol = next;
			return;
		}
	}
	h->undecided = true;
}

void net_headers_read(struct net_headers *h, const void *data, size_t size)
{
	size_t at;

	memset(h, 0, offsetof(struct net_headers, bytes));
	h->data = data;
	h->size = size;
	net_headers_more(h, NET_HEAD_FIRST);
	at = read_link(h);
	if (h->undecided)
		return;
	if (h->type == ETHERTYPE_IP4)
		read_ip4(h, at);
	else if (h->type == ETHERTYPE_IP6)
		read_ip6(h, at);
}
