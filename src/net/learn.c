// SPDX-License-Identifier: MIT
/* See learn.h. Owned by a port of the switch, whose thread runs it. */
#include "net/learn.h"

#include <sys/socket.h>

/* RFC 2131 2, figure 1; the magic cookie of RFC 2132 2 follows. */
#define BOOTP_SIZE   236u
#define BOOTP_COOKIE 0x63825363u
#define DHCP_SERVER  67u
#define DHCP_CLIENT  68u

enum dhcp_message {
	DHCP_REQUEST = 3,
	DHCP_DECLINE = 4,
	DHCP_ACK = 5,
	DHCP_RELEASE = 7,
};

/* RFC 4861 4. */
enum nd_message {
	ND_ROUTER_SOLICITATION = 133,
	ND_SOLICITATION = 135,
	ND_ADVERTISEMENT = 136,
};

struct dhcp {
	uint8_t op, message;
	uint32_t transaction, client, yours;
	struct inet_mac mac;
	uint32_t lease; /* s */
};

struct heard {
	struct net_learner *l;
	struct inet_ether ether;
	enum net_learn_direction direction;
	uint64_t now;
};

static struct net_address address4(uint32_t a)
{
	struct net_address r = { .family = AF_INET };
	be32 wire = be32_of(a);

	memcpy(r.bytes, &wire, 4);
	return r;
}

static struct net_address address6(const uint8_t a[16])
{
	struct net_address r = { .family = AF_INET6, .from = NET_LEARNED_ND };

	memcpy(r.bytes, a, 16);
	return r;
}

static bool same(const struct net_address *a, const struct net_address *b)
{
	return a->family == b->family && !memcmp(a->bytes, b->bytes, 16);
}

static struct net_address *find(struct net_address *list, unsigned count,
				const struct net_address *a)
{
	for (unsigned i = 0; i < count; i++)
		if (same(&list[i], a))
			return &list[i];
	return NULL;
}

static void drop(struct net_address *list, unsigned *count, struct net_address *a)
{
	size_t at = (size_t)(a - list);

	memmove(a, a + 1, (*count - at - 1) * sizeof(*a));
	(*count)--;
}

static struct net_address *soonest(struct net_address *list, unsigned count)
{
	struct net_address *a = &list[0];

	for (unsigned i = 1; i < count; i++)
		if (list[i].until < a->until)
			a = &list[i];
	return a;
}

static bool forget(struct net_learner *l, const struct net_address *a)
{
	struct net_address *old = find(l->list, l->count, a);

	if (old)
		drop(l->list, &l->count, old);
	return old != NULL;
}

/* True = it was not known. */
static bool keep(struct net_learner *l, const struct net_address *a)
{
	struct net_address *old = find(l->list, l->count, a);

	if (old) {
		/* A lease's end stands until another lease says otherwise. */
		if (old->from != NET_LEARNED_DHCP || a->from == NET_LEARNED_DHCP)
			*old = *a;
		return false;
	}
	if (l->count == NET_LEARN_MAX)
		drop(l->list, &l->count, soonest(l->list, l->count));
	l->list[l->count++] = *a;
	return true;
}

/* Not 0/8, 127/8, 224/3: no machine's own on a network (RFC 6890). */
static bool single4(uint32_t a)
{
	return a >> 24 && a >> 24 != 127 && a < 0xe0000000u;
}

static bool single6(const uint8_t a[16])
{
	static const uint8_t loopback[16] = { [15] = 1 }, none[16];

	return a[0] != 0xff && memcmp(a, loopback, 16) != 0 && memcmp(a, none, 16) != 0;
}

static bool keep4(const struct heard *h, uint32_t a)
{
	struct net_address n = address4(a);

	if (!single4(a))
		return false;
	n.mac = h->ether.from;
	n.from = NET_LEARNED_ARP;
	n.until = h->now + NET_LEARN_AGE_NS;
	return keep(h->l, &n);
}

/* RFC 826, for Ethernet and IPv4. A probe has no sender's address (RFC 5227 2.1.1). */
static bool hear_arp(const struct heard *h, struct reader *r)
{
	uint16_t hardware = reader_be16(r), protocol = reader_be16(r), sizes = reader_be16(r);
	uint16_t operation = reader_be16(r);
	struct inet_mac sender;
	uint32_t address;

	reader_copy(r, &sender, sizeof(sender));
	address = reader_be32(r);
	reader_skip(r, 10);
	if (!reader_ok(r) || hardware != 1 || protocol != INET_ETHER_IP4 || sizes != 0x0604 ||
	    (operation != 1 && operation != 2))
		return false;
	if (h->direction != NET_LEARN_FROM_PORT || !inet_mac_equal(&sender, &h->ether.from))
		return false;
	return keep4(h, address);
}

/* The client's word about DHCP: the reply to it is its own only if it asked. */
static bool hear_dhcp_client(const struct heard *h, const struct dhcp *d)
{
	struct net_address a = address4(d->client);

	if (d->op != 1 || !inet_mac_equal(&d->mac, &h->ether.from))
		return false;
	if (d->message == DHCP_REQUEST) {
		h->l->client = d->mac;
		h->l->transaction = d->transaction;
		h->l->requested = true;
	}
	return d->message == DHCP_RELEASE && forget(h->l, &a);
}

/* A machine has one lease at a time, so another one ends the last. */
static bool replace_lease(struct net_learner *l, const struct net_address *a)
{
	bool changed = false;

	for (unsigned i = l->count; i-- > 0;) {
		struct net_address *old = &l->list[i];

		if (old->from != NET_LEARNED_DHCP || same(old, a) ||
		    !inet_mac_equal(&old->mac, &a->mac))
			continue;
		drop(l->list, &l->count, old);
		changed = true;
	}
	return changed;
}

static bool hear_dhcp_server(const struct heard *h, const struct dhcp *d)
{
	struct net_learner *l = h->l;
	struct net_address a = address4(d->yours);
	bool changed;

	if (d->op != 2 || d->message != DHCP_ACK || !l->requested || !single4(d->yours) ||
	    d->transaction != l->transaction || !inet_mac_equal(&d->mac, &l->client))
		return false;
	l->requested = false;
	a.mac = d->mac;
	a.from = NET_LEARNED_DHCP;
	a.until = h->now + (uint64_t)d->lease * 1000000000;
	changed = replace_lease(l, &a);
	return keep(l, &a) || changed;
}

/* Options of RFC 2132 that say something here; those that overload other fields are not read. */
static void read_options(struct reader *r, struct dhcp *d)
{
	while (reader_left(r)) {
		uint8_t code = reader_u8(r), size;
		struct reader value;
		const void *bytes;

		if (code == 0)
			continue;
		if (code == 255)
			return;
		size = reader_u8(r);
		bytes = reader_take(r, size);
		if (!bytes)
			return;
		value = reader_of(bytes, size);
		if (code == 51 && size == 4)
			d->lease = reader_be32(&value);
		else if (code == 53 && size == 1)
			d->message = reader_u8(&value);
	}
}

static bool read_dhcp(const struct inet_udp *u, struct dhcp *ret)
{
	struct reader r = reader_of(u->data, u->size);
	uint16_t hardware;

	*ret = (struct dhcp){ .op = reader_u8(&r), .lease = UINT32_MAX };
	hardware = reader_be16(&r);
	reader_skip(&r, 1);
	ret->transaction = reader_be32(&r);
	reader_skip(&r, 4);
	ret->client = reader_be32(&r);
	ret->yours = reader_be32(&r);
	reader_skip(&r, 8);
	reader_copy(&r, &ret->mac, sizeof(ret->mac));
	reader_seek(&r, BOOTP_SIZE < u->size ? BOOTP_SIZE : u->size);
	if (hardware != 0x0106 || reader_be32(&r) != BOOTP_COOKIE || !reader_ok(&r))
		return false;
	read_options(&r, ret);
	return true;
}

static bool hear_udp(const struct heard *h, const void *frame, size_t size)
{
	struct inet_udp u;
	struct dhcp d;

	/* An unfinished checksum is none of ours to judge: guards and the receiver do. */
	if (!inet_read_udp4(frame, size, true, &u) || !read_dhcp(&u, &d))
		return false;
	if (h->direction == NET_LEARN_FROM_PORT)
		return u.to_port == DHCP_SERVER && hear_dhcp_client(h, &d);
	return u.from_port == DHCP_SERVER && u.to_port == DHCP_CLIENT && hear_dhcp_server(h, &d);
}

static bool keep6(const struct heard *h, const uint8_t a[16])
{
	struct net_address n = address6(a), *tested;

	if (!single6(a))
		return false;
	tested = find(h->l->tested, h->l->tested_count, &n);
	if (tested)
		drop(h->l->tested, &h->l->tested_count, tested);
	n.mac = h->ether.from;
	n.until = h->now + NET_LEARN_AGE_NS;
	return keep(h->l, &n);
}

/* RFC 4862 5.4.3: it is its own unless somebody answers. */
static void test6(const struct heard *h, const uint8_t target[16])
{
	struct net_learner *l = h->l;
	struct net_address n = address6(target);
	struct net_address *old = find(l->tested, l->tested_count, &n);

	if (!single6(target) || find(l->list, l->count, &n))
		return;
	if (old)
		drop(l->tested, &l->tested_count, old);
	else if (l->tested_count == NET_LEARN_TESTED)
		drop(l->tested, &l->tested_count, soonest(l->tested, l->tested_count));
	n.mac = h->ether.from;
	n.until = h->now + NET_LEARN_TEST_NS;
	l->tested[l->tested_count++] = n;
}

/* Somebody else has it, or tests it at the same time: the test has failed. */
static void contest6(const struct heard *h, const uint8_t target[16])
{
	struct net_address n = address6(target);
	struct net_address *tested = find(h->l->tested, h->l->tested_count, &n);

	if (tested && !inet_mac_equal(&tested->mac, &h->ether.from))
		drop(h->l->tested, &h->l->tested_count, tested);
}

/* RFC 4861 7.1: from a neighbour, which the count of hops proves, and whole. */
static bool read_nd(const struct inet_ip6 *ip, struct reader *r, uint8_t *ret_type,
		    uint8_t ret_target[16])
{
	*ret_type = reader_u8(r);
	reader_skip(r, 7);
	if (*ret_type == ND_ROUTER_SOLICITATION)
		memset(ret_target, 0, 16);
	else
		reader_copy(r, ret_target, 16);
	return reader_ok(r) && ip->hops == 255;
}

static bool hear_nd(const struct heard *h, struct reader *r)
{
	static const uint8_t none[16];
	uint8_t type, target[16];
	struct inet_ip6 ip;

	if (!inet_read_ip6(r, &ip) || ip.protocol != INET_ICMP6 || !read_nd(&ip, r, &type, target))
		return false;
	if (h->direction == NET_LEARN_TO_PORT) {
		if (type == ND_ADVERTISEMENT ||
		    (type == ND_SOLICITATION && !memcmp(ip.from, none, 16)))
			contest6(h, target);
		return false;
	}
	if (type == ND_ADVERTISEMENT)
		return keep6(h, target);
	if (type != ND_SOLICITATION && type != ND_ROUTER_SOLICITATION)
		return false;
	if (memcmp(ip.from, none, 16) != 0)
		return keep6(h, ip.from);
	if (type == ND_SOLICITATION)
		test6(h, target);
	return false;
}

bool net_learner_wants(const void *frame, size_t size)
{
	struct reader r = reader_of(frame, size), ip;
	struct inet_ether ether;
	uint16_t port;

	if (!inet_read_ether(&r, &ether))
		return false;
	if (ether.type == INET_ETHER_ARP)
		return true;
	ip = r;
	if (ether.type == INET_ETHER_IP6) {
		uint8_t next;

		reader_skip(&ip, 6);
		next = reader_u8(&ip);
		return reader_ok(&ip) && (next == INET_ICMP6 || next == 0);
	}
	if (ether.type != INET_ETHER_IP4)
		return false;
	reader_skip(&ip, 9);
	if (reader_u8(&ip) != INET_UDP)
		return false;
	reader_skip(&r, (r.data[r.at] & 15u) * 4u + 2u);
	port = reader_be16(&r);
	return port == DHCP_SERVER || port == DHCP_CLIENT;
}

bool net_learner_frame(struct net_learner *l, const void *frame, size_t size,
		       enum net_learn_direction direction, uint64_t now)
{
	struct heard h = { .l = l, .direction = direction, .now = now };
	struct reader r = reader_of(frame, size);

	if (!inet_read_ether(&r, &h.ether) || !inet_mac_single(&h.ether.from))
		return false;
	switch (h.ether.type) {
	case INET_ETHER_ARP:
		return hear_arp(&h, &r);
	case INET_ETHER_IP4:
		return hear_udp(&h, frame, size);
	case INET_ETHER_IP6:
		return hear_nd(&h, &r);
	default:
		return false;
	}
}

bool net_learner_age(struct net_learner *l, uint64_t now)
{
	bool changed = false;

	while (l->count) {
		struct net_address *a = soonest(l->list, l->count);

		if (a->until > now)
			break;
		drop(l->list, &l->count, a);
		changed = true;
	}
	while (l->tested_count) {
		struct net_address *a = soonest(l->tested, l->tested_count), passed = *a;

		if (a->until > now)
			break;
		drop(l->tested, &l->tested_count, a);
		passed.until = now + NET_LEARN_AGE_NS;
		changed |= keep(l, &passed);
	}
	return changed;
}

uint64_t net_learner_next(const struct net_learner *l)
{
	uint64_t next = UINT64_MAX;

	for (unsigned i = 0; i < l->count; i++)
		next = MIN(next, l->list[i].until);
	for (unsigned i = 0; i < l->tested_count; i++)
		next = MIN(next, l->tested[i].until);
	return next;
}
