// SPDX-License-Identifier: MIT
/*
 * See finish.h. Checksums of RFC 1071 over both pieces; segments of TCP (flags and sequence numbers
 * as RFC 9293 wants them, CWR on the first only: RFC 3168) and UDP datagrams of the same ports.
 */
#include "net/finish.h"

#include <errno.h>

#define TCP_CHECKSUM 16u
#define UDP_CHECKSUM 6u
/* What was judged of a header, from its start: flags of TCP, ports of UDP, type of ICMP. */
#define TCP_JUDGED  14u
#define UDP_JUDGED  4u
#define ICMP_JUDGED 2u
#define IP6_HEADER  40u

/* --- checksums --- */

/* Ones' complement sum of bytes in memory order, not folded. */
static uint64_t sum_add(uint64_t sum, const uint8_t *p, size_t n)
{
	uint64_t a, b;
	uint16_t w;

	while (n >= 16) {
		memcpy(&a, p, 8);
		memcpy(&b, p + 8, 8);
		sum += (a & 0xffffffff) + (a >> 32);
		sum += (b & 0xffffffff) + (b >> 32);
		p += 16;
		n -= 16;
	}
	while (n >= 2) {
		memcpy(&w, p, 2);
		sum += w;
		p += 2;
		n -= 2;
	}
	return n ? sum + htole16(*p) : sum;
}

static uint16_t sum_fold(uint64_t sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

/* Of [from, head) and the rest; the two may meet at an odd byte. */
static uint64_t sum_pieces(uint64_t sum, const struct net_piece *p, size_t from)
{
	uint16_t rest;

	sum = sum_add(sum, p->head + from, p->head_size - from);
	rest = sum_fold(sum_add(0, p->rest, p->rest_size));
	if ((p->head_size - from) % 2)
		rest = (uint16_t)(rest << 8 | rest >> 8);
	return sum + rest;
}

static void sum_store(uint8_t *at, uint64_t sum, bool udp)
{
	uint16_t folded = (uint16_t)~sum_fold(sum);

	/* Zero would mean "none" (RFC 768). */
	if (udp && !folded)
		folded = 0xffff;
	memcpy(at, &folded, sizeof(folded));
}

/* --- judging --- */

static size_t judged_end(const struct net_headers *h)
{
	if (!h->l4)
		return h->have;
	if (h->protocol == IP_TCP)
		return h->l4 + TCP_JUDGED;
	if (h->protocol == IP_UDP)
		return h->l4 + UDP_JUDGED;
	if (h->protocol == IP_ICMP4 || h->protocol == IP_ICMP6)
		return h->l4 + ICMP_JUDGED;
	return h->l4;
}

unsigned finish_segments(const struct net_headers *h, const struct net_offload *o)
{
	size_t payload = h->size - h->l4_end;

	if (o->segmentation == NET_SEGMENT_NONE || !payload)
		return 1;
	return (unsigned)((payload + o->segment_size - 1) / o->segment_size);
}

static bool segmentation_fits(const struct net_headers *h, const struct net_offload *o)
{
	unsigned kind = o->segmentation & ~NET_SEGMENT_ECN;
	bool tcp = kind != NET_SEGMENT_UDP;

	if (!h->l4 || h->fragment || (h->version == 6 && h->extended) || !o->segment_size ||
	    !(o->flags & NET_CHECKSUM_NEEDED))
		return false;
	if (tcp && kind != NET_SEGMENT_TCP4 && kind != NET_SEGMENT_TCP6)
		return false;
	if ((kind == NET_SEGMENT_TCP4 && h->version != 4) ||
	    (kind == NET_SEGMENT_TCP6 && h->version != 6))
		return false;
	if (h->protocol != (tcp ? IP_TCP : IP_UDP) || o->checksum_start != h->l4 ||
	    o->checksum_offset != (tcp ? TCP_CHECKSUM : UDP_CHECKSUM))
		return false;
	return finish_segments(h, o) <= FINISH_SEGMENTS;
}

bool finish_judge(struct net_headers *h, struct net_offload *o)
{
	size_t field = (size_t)o->checksum_start + o->checksum_offset;

	if (o->segmentation != NET_SEGMENT_NONE) {
		if (!segmentation_fits(h, o))
			return false;
		o->header_size = h->l4_end;
	} else {
		o->header_size = 0;
	}
	if (!(o->flags & NET_CHECKSUM_NEEDED))
		return true;
	/* A field that lies where something was judged would change it afterwards. */
	if (h->undecided || h->fragment || field < judged_end(h) || o->checksum_start < h->l4 ||
	    o->checksum_start < NET_FRAME_MIN)
		return false;
	return net_headers_more(h, field + 2) >= field + 2;
}

unsigned finish_needs(const struct net_offload *o)
{
	unsigned needs = o->flags & NET_CHECKSUM_NEEDED ? NET_TAKES_CHECKSUM : 0;

	switch (o->segmentation & ~NET_SEGMENT_ECN) {
	case NET_SEGMENT_TCP4:
		needs |= NET_TAKES_TCP4;
		break;
	case NET_SEGMENT_TCP6:
		needs |= NET_TAKES_TCP6;
		break;
	case NET_SEGMENT_UDP:
		needs |= NET_TAKES_UDP;
		break;
	default:
		break;
	}
	return o->segmentation & NET_SEGMENT_ECN ? needs | NET_TAKES_ECN : needs;
}

/* --- doing it --- */

static uint64_t sum_pseudo(const struct net_headers *h, size_t transport)
{
	size_t at = h->l3 + (h->version == 4 ? 12u : 8u), n = h->version == 4 ? 8 : 32;

	return sum_add(0, h->bytes + at, n) + htobe16(h->protocol) + htobe16((uint16_t)transport);
}

static void segment_ip(const struct net_headers *h, uint8_t *head, size_t size, unsigned i)
{
	uint8_t *ip = head + h->l3;

	if (h->version == 6) {
		store_be16(ip + 4, (uint32_t)(size - h->l3 - IP6_HEADER));
		return;
	}
	store_be16(ip + 2, (uint32_t)(size - h->l3));
	store_be16(ip + 4, load_be16(ip + 4) + i);
	store_be16(ip + 10, 0);
	sum_store(ip + 10, sum_add(0, ip, (ip[0] & 0xf) * 4u), false);
}

static void segment_make(const struct net_headers *h, const struct net_offload *o, unsigned i,
			 uint8_t *head, struct net_piece *ret)
{
	size_t payload = h->size - h->l4_end, at = (size_t)i * o->segment_size;
	size_t n = MIN(o->segment_size, payload - at), in_head = h->have - h->l4_end;
	bool tcp = h->protocol == IP_TCP, last = at + n == payload;
	uint8_t *l4 = head + h->l4;
	size_t copied = at < in_head ? MIN(n, in_head - at) : 0;

	memcpy(head, h->bytes, h->l4_end);
	/* Payload that was copied with the headers comes from there. */
	memcpy(head + h->l4_end, h->bytes + h->l4_end + at, copied);
	*ret = (struct net_piece){
		.head = head,
		.head_size = h->l4_end + copied,
		.rest = h->data + h->l4_end + at + copied,
		.rest_size = n - copied,
	};
	segment_ip(h, head, h->l4_end + n, i);
	if (tcp) {
		store_be32(l4 + 4, load_be32(l4 + 4) + (uint32_t)at);
		if (!last)
			l4[13] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
		if (i)
			l4[13] &= (uint8_t)~TCP_CWR;
	} else {
		store_be16(l4 + 4, (uint32_t)(h->l4_end - h->l4 + n));
	}
	store_be16(l4 + o->checksum_offset, 0);
	sum_store(l4 + o->checksum_offset,
		  sum_pieces(sum_pseudo(h, h->l4_end - h->l4 + n), ret, h->l4), !tcp);
}

static void checksum_make(const struct net_headers *h, const struct net_offload *o, uint8_t *head,
			  struct net_piece *ret)
{
	memcpy(head, h->bytes, h->have);
	*ret = (struct net_piece){
		.head = head,
		.head_size = h->have,
		.rest = h->data + h->have,
		.rest_size = h->size - h->have,
	};
	if (o->flags & NET_CHECKSUM_NEEDED)
		sum_store(head + o->checksum_start + o->checksum_offset,
			  sum_pieces(0, ret, o->checksum_start),
			  h->protocol == IP_UDP && o->checksum_offset == UDP_CHECKSUM);
}

int finish_frame(const struct net_headers *h, const struct net_offload *o, unsigned *at,
		 int (*emit)(void *context, const struct net_piece *piece), void *context)
{
	unsigned count = finish_segments(h, o);
	uint8_t head[NET_HEAD_MAX];
	struct net_piece piece;

	for (; *at < count; ++*at) {
		int r;

		if (o->segmentation != NET_SEGMENT_NONE && h->size > h->l4_end)
			segment_make(h, o, *at, head, &piece);
		else
			checksum_make(h, o, head, &piece);
		r = emit(context, &piece);
		if (r < 0)
			return r;
	}
	return 0;
}
