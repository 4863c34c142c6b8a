// SPDX-License-Identifier: MIT
/*
 * Router advertisements (RFC 4861 4.2, 6.2.3) for a NAT switch whose way out is the host's kernel:
 * one prefix, from which machines make addresses of their own (RFC 4862), and the router, which is
 * the tap's link-local address. Names are asked for over IPv4.
 */
#include "net/nat_private.h"

#define LIFETIME  1800u  /* s; AdvDefaultLifetime */
#define VALID     86400u /* s, of the prefix */
#define PREFERRED 14400u
#define SOLICIT   133u
#define ADVERTISE 134u

enum option {
	OPT_SOURCE = 1,
	OPT_PREFIX = 3,
	OPT_MTU = 5,
};

bool nat_router_asked(const void *frame, size_t size)
{
	struct reader r = reader_of(frame, size);
	struct inet_ether e;
	struct inet_ip6 ip;

	return inet_read_ether(&r, &e) && e.type == INET_ETHER_IP6 && inet_read_ip6(&r, &ip) &&
	       ip.protocol == INET_ICMP6 && ip.hops == 255 && reader_u8(&r) == SOLICIT &&
	       reader_left(&r) >= 7;
}

static void put_prefix(struct writer *w, const uint8_t prefix[16])
{
	writer_u8(w, OPT_PREFIX);
	writer_u8(w, 4);
	writer_u8(w, 64);
	writer_u8(w, 0xc0); /* on this link; for addresses of one's own */
	writer_be32(w, VALID);
	writer_be32(w, PREFERRED);
	writer_be32(w, 0);
	writer_put(w, prefix, 16);
}

static size_t put_message(struct writer *w, const struct nat_settings *s)
{
	size_t start = w->at;

	writer_u8(w, ADVERTISE);
	writer_zero(w, 3);
	writer_u8(w, 64);
	writer_u8(w, 0);
	writer_be16(w, LIFETIME);
	writer_be32(w, 0);
	writer_be32(w, 0);
	writer_u8(w, OPT_SOURCE);
	writer_u8(w, 1);
	writer_put(w, &s->dhcp.mac, INET_MAC_SIZE);
	writer_u8(w, OPT_MTU);
	writer_u8(w, 1);
	writer_be16(w, 0);
	writer_be32(w, s->dhcp.mtu);
	put_prefix(w, s->prefix6);
	return w->at - start;
}

size_t nat_router_advertise(const struct nat_settings *s, void *frame, size_t room)
{
	static const uint8_t all[16] = { 0xff, 2, [15] = 1 };
	const uint8_t *m = s->dhcp.mac.byte;
	/* RFC 4291, appendix A: what the kernel makes of the tap's hardware address. */
	const uint8_t own[16] = { 0xfe,     0x80, 0,    0,    0,    0,    0,    0,
				  m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5] };
	struct writer w = writer_of(frame, room), header;
	size_t at, size;
	uint16_t sum;

	writer_put(&w, "\x33\x33\0\0\0\x01", 6);
	writer_put(&w, m, 6);
	writer_be16(&w, INET_ETHER_IP6);
	header = w;
	writer_be32(&w, 0x60000000);
	writer_be16(&w, 0);
	writer_u8(&w, INET_ICMP6);
	writer_u8(&w, 255);
	writer_put(&w, own, 16);
	writer_put(&w, all, 16);
	at = w.at;
	size = put_message(&w, s);
	if (!writer_ok(&w))
		return 0;
	header.at += 4;
	writer_be16(&header, (uint16_t)size);
	sum = inet_sum_fold(inet_sum(inet_sum_ip6(own, all, INET_ICMP6, size), w.data + at, size));
	memcpy(w.data + at + 2, &(be16){ htobe16(sum) }, 2);
	return w.at;
}
