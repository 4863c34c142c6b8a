// SPDX-License-Identifier: MIT
/* See inet.h. */
#include "net/inet.h"

bool inet_read_ether(struct reader *r, struct inet_ether *ret)
{
	reader_copy(r, &ret->to, sizeof(ret->to));
	reader_copy(r, &ret->from, sizeof(ret->from));
	ret->type = reader_be16(r);
	for (unsigned tags = 0;
	     tags < 2 && (ret->type == INET_ETHER_VLAN || ret->type == INET_ETHER_VLANS); tags++) {
		reader_skip(r, 2);
		ret->type = reader_be16(r);
	}
	return reader_ok(r);
}

uint32_t inet_sum(uint32_t sum, const void *data, size_t size)
{
	const uint8_t *b = data;
	uint64_t wide = sum;

	for (size_t i = 0; i + 1 < size; i += 2)
		wide += (unsigned)b[i] << 8 | b[i + 1];
	if (size % 2)
		wide += (unsigned)b[size - 1] << 8;
	while (wide >> 32)
		wide = (wide & 0xffffffff) + (wide >> 32);
	return (uint32_t)wide;
}

uint16_t inet_sum_fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/* The reader gets exactly `size` bytes from where it stands: what follows is padding. */
static bool narrow(struct reader *r, size_t size)
{
	const void *p = reader_take(r, size);

	if (!p)
		return false;
	*r = reader_of(p, size);
	return true;
}

bool inet_read_ip4(struct reader *r, struct inet_ip4 *ret)
{
	struct reader header = *r;
	uint8_t first = reader_u8(r);
	size_t header_size = (first & 15u) * 4u, size;
	const void *bytes;
	uint16_t fragment;

	reader_skip(r, 1);
	size = reader_be16(r);
	reader_skip(r, 2);
	fragment = reader_be16(r);
	reader_skip(r, 1);
	ret->protocol = reader_u8(r);
	reader_skip(r, 2);
	ret->from = reader_be32(r);
	ret->to = reader_be32(r);
	if (!reader_ok(r) || first >> 4 != 4 || header_size < 20 || size < header_size)
		return false;
	bytes = reader_take(&header, header_size);
	if (!bytes || inet_sum_fold(inet_sum(0, bytes, header_size)) != 0)
		return false;
	ret->piece = (fragment & 0x3fff) != 0;
	reader_skip(r, header_size - 20);
	return narrow(r, size - header_size);
}

/* Hop-by-hop, routing, destination options: a length in their second byte (RFC 8200 4). */
static bool extension(uint8_t protocol)
{
	return protocol == 0 || protocol == 43 || protocol == 60;
}

bool inet_read_ip6(struct reader *r, struct inet_ip6 *ret)
{
	uint8_t first = reader_u8(r);
	size_t size;

	reader_skip(r, 3);
	size = reader_be16(r);
	ret->protocol = reader_u8(r);
	ret->hops = reader_u8(r);
	reader_copy(r, ret->from, 16);
	reader_copy(r, ret->to, 16);
	if (!reader_ok(r) || first >> 4 != 6 || !narrow(r, size))
		return false;
	for (unsigned n = 0; n < 4 && extension(ret->protocol); n++) {
		ret->protocol = reader_u8(r);
		reader_skip(r, reader_u8(r) * 8u + 6u);
	}
	return reader_ok(r);
}

uint32_t inet_sum_ip6(const uint8_t from[16], const uint8_t to[16], uint8_t protocol, size_t size)
{
	uint32_t sum = inet_sum(inet_sum(0, from, 16), to, 16);

	return sum + (uint32_t)(size >> 16) + (uint32_t)(size & 0xffff) + protocol;
}

static uint32_t sum_ip4(const struct inet_ip4 *ip, size_t size)
{
	return (ip->from >> 16) + (ip->from & 0xffff) + (ip->to >> 16) + (ip->to & 0xffff) +
	       INET_UDP + (uint32_t)size;
}

bool inet_read_udp4(const void *frame, size_t size, bool unfinished, struct inet_udp *ret)
{
	struct reader r = reader_of(frame, size), all;
	uint16_t length, checksum;

	if (!inet_read_ether(&r, &ret->ether) || ret->ether.type != INET_ETHER_IP4 ||
	    !inet_read_ip4(&r, &ret->ip) || ret->ip.protocol != INET_UDP || ret->ip.piece)
		return false;
	all = r;
	ret->from_port = reader_be16(&r);
	ret->to_port = reader_be16(&r);
	length = reader_be16(&r);
	checksum = reader_be16(&r);
	if (!reader_ok(&r) || length < 8 || length > all.size)
		return false;
	ret->size = length - 8u;
	ret->data = reader_take(&r, ret->size);
	if (!ret->data)
		return false;
	return unfinished || !checksum ||
	       inet_sum_fold(inet_sum(sum_ip4(&ret->ip, length), all.data, length)) == 0;
}

size_t inet_write_udp4(void *frame, size_t room, const struct inet_udp *u)
{
	struct writer w = writer_of(frame, room);
	uint8_t *ip, *udp;
	uint16_t sum;

	if (u->size > INET_UDP4_MAX)
		return 0;
	writer_put(&w, &u->ether.to, sizeof(u->ether.to));
	writer_put(&w, &u->ether.from, sizeof(u->ether.from));
	writer_be16(&w, INET_ETHER_IP4);
	ip = w.data + w.at;
	writer_be16(&w, 0x4500);
	writer_be16(&w, (uint16_t)(28 + u->size));
	writer_be16(&w, 0);
	writer_be16(&w, 0x4000); /* never in pieces */
	writer_u8(&w, 64);
	writer_u8(&w, INET_UDP);
	writer_be16(&w, 0);
	writer_be32(&w, u->ip.from);
	writer_be32(&w, u->ip.to);
	udp = w.data + w.at;
	writer_be16(&w, u->from_port);
	writer_be16(&w, u->to_port);
	writer_be16(&w, (uint16_t)(8 + u->size));
	writer_be16(&w, 0);
	writer_put(&w, u->data, u->size);
	if (!writer_ok(&w))
		return 0;
	sum = inet_sum_fold(inet_sum(0, ip, 20));
	memcpy(ip + 10, &(be16){ htobe16(sum) }, 2);
	sum = inet_sum_fold(inet_sum(sum_ip4(&u->ip, 8 + u->size), udp, 8 + u->size));
	memcpy(udp + 6, &(be16){ htobe16(sum ? sum : 0xffff) }, 2);
	return w.at;
}
