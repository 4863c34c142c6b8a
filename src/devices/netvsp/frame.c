// SPDX-License-Identifier: MIT
/*
 * See frame.h. Ethernet with VLAN tags (IEEE 802.1Q), IPv4 (RFC 791), IPv6 (RFC 8200) without
 * extension headers, TCP (RFC 793) and UDP (RFC 768). Anything else is a frame without offloads.
 */
#include "devices/netvsp/frame.h"

#include "devices/netvsp/rndis_proto.h"

#include <string.h>

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_QINQ 0x88a8
#define IPV6_HEADER    40u
#define TCP_HEADER     20u
#define UDP_HEADER     8u
#define PROTOCOL_TCP   6
#define PROTOCOL_UDP   17

uint16_t frame_get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

void frame_put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void parse_l4(struct frame *f, const uint8_t *h, size_t size, uint8_t protocol)
{
	size_t l4 = f->l4, data;

	if (protocol == PROTOCOL_TCP && size >= l4 + TCP_HEADER) {
		data = (h[l4 + 12] >> 4) * 4u;
		f->protocol = FRAME_TCP;
		f->checksum_offset = 16;
		if (data >= TCP_HEADER && l4 + data <= size)
			f->payload = (uint16_t)(l4 + data);
	} else if (protocol == PROTOCOL_UDP && size >= l4 + UDP_HEADER) {
		f->protocol = FRAME_UDP;
		f->checksum_offset = 6;
		f->payload = (uint16_t)(l4 + UDP_HEADER);
	}
}

static void parse_ipv4(struct frame *f, const uint8_t *h, size_t size)
{
	size_t l3 = f->l3, length;

	if (size < l3 + 20 || h[l3] >> 4 != 4)
		return;
	length = (h[l3] & 15) * 4u;
	if (length < 20 || l3 + length > size)
		return;
	f->ip = 4;
	f->l4 = (uint16_t)(l3 + length);
	/* Fragments have no whole segment inside. */
	if (!(frame_get16(h + l3 + 6) & 0x3fff))
		parse_l4(f, h, size, h[l3 + 9]);
}

static void parse_ipv6(struct frame *f, const uint8_t *h, size_t size)
{
	size_t l3 = f->l3;

	if (size < l3 + IPV6_HEADER || h[l3] >> 4 != 6)
		return;
	f->ip = 6;
	f->l4 = (uint16_t)(l3 + IPV6_HEADER);
	parse_l4(f, h, size, h[l3 + 6]);
}

struct frame frame_parse(const uint8_t *h, size_t size)
{
	struct frame f = { 0 };
	size_t at = 2 * FRAME_MAC_SIZE;

	for (unsigned tags = 0; tags < 3 && size >= at + 2; tags++) {
		uint16_t type = frame_get16(h + at);

		at += 2;
		f.l3 = (uint16_t)at;
		if (type == ETHERTYPE_IPV4)
			parse_ipv4(&f, h, size);
		if (type == ETHERTYPE_IPV6)
			parse_ipv6(&f, h, size);
		if (type != ETHERTYPE_VLAN && type != ETHERTYPE_QINQ)
			break;
		at += 2; /* the tag; another type follows */
	}
	return f;
}

/* --- checksums --- */

/* Two sums of 32-bit halves: neither can overflow below 16 GiB. */
uint64_t frame_sum(const void *data, size_t size)
{
	const uint8_t *p = data;
	uint64_t low = 0, high = 0, word;
	uint8_t rest[8] = { 0 };

	for (; size >= 8; size -= 8, p += 8) {
		memcpy(&word, p, 8);
		low += (uint32_t)word;
		high += word >> 32;
	}
	memcpy(rest, p, size);
	memcpy(&word, rest, 8);
	low += (uint32_t)word;
	high += word >> 32;
	return low + high;
}

/* The sum is of little-endian words; RFC 1071 2(B): the swapped result is the sum of swapped. */
uint16_t frame_fold(uint64_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return be16_get((be16){ (uint16_t)sum });
}

uint64_t frame_pseudo_sum(const uint8_t *h, const struct frame *f, uint32_t length)
{
	size_t at = f->l3 + (f->ip == 4 ? 12u : 8u), size = f->ip == 4 ? 8 : 32;
	uint8_t tail[8] = { 0 };
	be32 n = be32_of(length);

	memcpy(tail, &n, sizeof(n));
	tail[7] = f->protocol == FRAME_TCP ? PROTOCOL_TCP : PROTOCOL_UDP;
	return frame_sum(h + at, size) + frame_sum(tail, sizeof(tail));
}

static size_t ip_size(const struct frame *f)
{
	return (size_t)(f->l4 - f->l3);
}

void frame_ip_checksum(uint8_t *h, const struct frame *f)
{
	frame_put16(h + f->l3 + 10, 0);
	frame_put16(h + f->l3 + 10, (uint16_t)~frame_fold(frame_sum(h + f->l3, ip_size(f))));
}

bool frame_ip_checksum_good(const uint8_t *h, const struct frame *f)
{
	return frame_fold(frame_sum(h + f->l3, ip_size(f))) == 0xffff;
}

/* --- the hash --- */

void rss_key_prepare(struct rss_key *k, const uint8_t key[static RSS_INPUT_MAX + 4])
{
	for (unsigned at = 0; at < RSS_INPUT_MAX; at++) {
		uint64_t window = 0;

		for (unsigned i = 0; i < 5; i++)
			window = window << 8 | (at + i < RSS_INPUT_MAX + 4 ? key[at + i] : 0);
		for (unsigned byte = 0; byte < 256; byte++) {
			uint32_t hash = 0;

			for (unsigned bit = 0; bit < 8; bit++)
				if (byte & 0x80 >> bit)
					hash ^= (uint32_t)(window >> (8 - bit));
			k->hash[at][byte] = hash;
		}
	}
}

static uint32_t hash_more(const struct rss_key *k, unsigned *at, const uint8_t *data, size_t size)
{
	uint32_t hash = 0;

	for (; size; size--)
		hash ^= k->hash[(*at)++][*data++];
	return hash;
}

uint32_t rss_hash(const struct rss_key *k, uint32_t types, const uint8_t *h, const struct frame *f,
		  bool *ret_hashed)
{
	uint32_t with_ports = f->ip == 4 ? NDIS_HASH_TCP_IPV4 : NDIS_HASH_TCP_IPV6;
	uint32_t without = f->ip == 4 ? NDIS_HASH_IPV4 : NDIS_HASH_IPV6;
	bool ports = f->protocol == FRAME_TCP && types & with_ports;
	unsigned at = 0;
	uint32_t hash;

	*ret_hashed = f->ip && (ports || types & without);
	if (!*ret_hashed)
		return 0;
	hash = f->ip == 4 ? hash_more(k, &at, h + f->l3 + 12, 8)
			  : hash_more(k, &at, h + f->l3 + 8, 32);
	return ports ? hash ^ hash_more(k, &at, h + f->l4, 4) : hash;
}
