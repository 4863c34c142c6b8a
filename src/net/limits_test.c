// SPDX-License-Identifier: MIT
/*
 * Bandwidth and shares by the test's own clock; guards, rules and their flows against frames that
 * try to get around them; offloads finished for who does not take them.
 */
#include "net/switch.h"

#include "net/bed_test.h"
#include "net/headers.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void queue_plain(struct bed *b, unsigned from, unsigned to, size_t size)
{
	static uint8_t bytes[NET_FRAME_MAX];
	net_mac d = mac_of(to), s = mac_of(from);

	memcpy(bytes, &d, 6);
	memcpy(bytes + 6, &s, 6);
	bytes[12] = 0x88;
	bytes[13] = 0xb5;
	net_fake_queue(&b->links[from], bytes, size, NULL);
}

static unsigned queued(const struct bed *b, unsigned i)
{
	return b->links[i].in_count - b->links[i].in_at;
}

/* --- bandwidth --- */

static void check_maximum(uint64_t rate, size_t size)
{
	struct net_settings s = guest(0);
	uint64_t start, deadline, took;
	struct bed b;

	bed_make(&b, NET_SHARE_WEIGHT);
	s.maximum_bandwidth = rate;
	bed_add(&b, &s, NET_TAKES_ALL);
	s = guest(1);
	bed_add(&b, &s, NET_TAKES_ALL);
	start = b.now;
	/* It always has frames; the switch is called only when it said. */
	while (b.now < start + 10 * SECOND) {
		while (queued(&b, 0) < 600)
			queue_plain(&b, 0, 1, size);
		deadline = bed_run(&b);
		if (deadline <= b.now)
			fail_msg("no deadline with frames that wait");
		b.now = deadline;
	}
	took = b.links[1].got_bytes * 8;
	/* Within 5 %, and one frame. */
	assert_in_range(took, rate * 10 * 95 / 100 - size * 8, rate * 10 * 105 / 100 + size * 8);
	bed_drop(&b);
}

static void test_maximum_bandwidth(void **state)
{
	(void)state;
	check_maximum(1000000, 1514);
	check_maximum(10000000, 64);
	check_maximum(100000000, 1514);
	check_maximum(100000000, 65000);
	check_maximum(1000000000, 1514);
}

static void test_dropped_frames_count_too(void **state)
{
	struct net_settings s = guest(0);
	struct bed b;

	(void)state;
	bed_make(&b, NET_SHARE_WEIGHT);
	s.maximum_bandwidth = 8000000;
	bed_add(&b, &s, NET_TAKES_ALL);
	for (unsigned i = 0; i < 100; i++)
		queue_plain(&b, 0, 5, 1000); /* nowhere */
	assert_true(bed_run(&b) > b.now);
	assert_true(queued(&b, 0) > 80);
	bed_drop(&b);
}

/* Three senders with always something to send to a destination of 1 Gbit/s. */
static void check_shares(enum net_sharing sharing, const uint64_t shares[3], const size_t sizes[3])
{
	uint64_t sent[3] = { 0 }, sum = 0, weights = 0;
	struct net_settings s;
	struct bed b;

	bed_make(&b, sharing);
	for (unsigned i = 0; i < 4; i++) {
		s = guest(i);
		if (i < 3 && sharing == NET_SHARE_WEIGHT)
			s.minimum_weight = (uint32_t)shares[i];
		else if (i < 3)
			s.minimum_bandwidth = shares[i];
		bed_add(&b, &s, NET_TAKES_ALL);
	}
	b.links[3].limited = true;
	for (unsigned ms = 0; ms < 2000; ms++) {
		for (unsigned i = 0; i < 3; i++)
			while (queued(&b, i) < 2000)
				queue_plain(&b, i, 3, sizes[i]);
		b.links[3].room = MIN(b.links[3].room + 125000, (uint64_t)500000);
		bed_run(&b);
		b.now += SECOND / 1000;
	}
	for (unsigned i = 0; i < 3; i++) {
		sent[i] = net_switch_port_counters(b.ports[i])->bytes_in;
		sum += sent[i];
		weights += shares[i];
	}
	assert_int_equal(drops(&b, 3, NET_DROP_FULL), 0);
	assert_true(sum > 240000000);
	for (unsigned i = 0; i < 3; i++)
		assert_in_range(sent[i] * 1000 / sum, shares[i] * 900 / weights,
				shares[i] * 1100 / weights);
	bed_drop(&b);
}

static void test_minimum_bandwidth_by_weight(void **state)
{
	(void)state;
	check_shares(NET_SHARE_WEIGHT, (uint64_t[]){ 1, 1, 1 }, (size_t[]){ 1514, 1514, 1514 });
	check_shares(NET_SHARE_WEIGHT, (uint64_t[]){ 10, 20, 70 }, (size_t[]){ 1514, 1514, 1514 });
	check_shares(NET_SHARE_WEIGHT, (uint64_t[]){ 10, 20, 70 }, (size_t[]){ 9000, 1514, 200 });
	check_shares(NET_SHARE_WEIGHT, (uint64_t[]){ 50, 25, 25 }, (size_t[]){ 1514, 65000, 1514 });
	check_shares(NET_SHARE_WEIGHT, (uint64_t[]){ 4, 96, 100 }, (size_t[]){ 1514, 1514, 65000 });
}

static void test_minimum_bandwidth_absolute(void **state)
{
	(void)state;
	check_shares(NET_SHARE_ABSOLUTE, (uint64_t[]){ 100000000, 200000000, 700000000 },
		     (size_t[]){ 1514, 1514, 1514 });
	check_shares(NET_SHARE_ABSOLUTE, (uint64_t[]){ 500000000, 300000000, 100000000 },
		     (size_t[]){ 300, 1514, 9000 });
}

static void test_a_slow_destination_holds_up_nobody_for_long(void **state)
{
	struct net_settings s;
	struct bed b;

	(void)state;
	bed_make(&b, NET_SHARE_WEIGHT);
	for (unsigned i = 0; i < 3; i++) {
		s = guest(i);
		bed_add(&b, &s, NET_TAKES_ALL);
	}
	/* 1 takes nothing. 0 sends to it and to 2 by turns, a frame each a millisecond. */
	b.links[1].limited = true;
	for (unsigned ms = 0; ms < 10000; ms++) {
		queue_plain(&b, 0, 1, 1514);
		queue_plain(&b, 0, 2, 1514);
		bed_run(&b);
		b.now += SECOND / 1000;
		/* What waits behind is never more than the patience. */
		assert_true(queued(&b, 0) <= 2 * 25);
	}
	assert_in_range(b.links[2].got_count, 9950, 10000);
	assert_int_equal(b.links[1].got_count, 0);
	assert_in_range(drops(&b, 1, NET_DROP_FULL), 9900, 10000);
	bed_drop(&b);
}

static void test_who_drops_never_waits(void **state)
{
	struct net_settings s = guest(0);
	struct bed b;

	(void)state;
	bed_make(&b, NET_SHARE_WEIGHT);
	s.drops = true;
	bed_add(&b, &s, NET_TAKES_ALL);
	for (unsigned i = 1; i < 3; i++) {
		s = guest(i);
		bed_add(&b, &s, NET_TAKES_ALL);
	}
	b.links[1].limited = true;
	for (unsigned i = 0; i < 100; i++) {
		queue_plain(&b, 0, 1, 1514);
		queue_plain(&b, 0, 2, 1514);
	}
	assert_int_equal(bed_run(&b), 0);
	assert_int_equal(b.links[2].got_count, 100);
	assert_int_equal(drops(&b, 1, NET_DROP_FULL), 100);
	bed_drop(&b);
}

/* --- datagrams --- */

struct packet {
	uint8_t bytes[3000];
	size_t size;
};

static void add(struct packet *p, const void *bytes, size_t n)
{
	memcpy(p->bytes + p->size, bytes, n);
	p->size += n;
}

static void add8(struct packet *p, unsigned v)
{
	p->bytes[p->size++] = (uint8_t)v;
}

static void add16(struct packet *p, unsigned v)
{
	add8(p, v >> 8);
	add8(p, v & 0xff);
}

static void add32(struct packet *p, uint32_t v)
{
	add16(p, v >> 16);
	add16(p, v & 0xffff);
}

static struct packet ether(unsigned from, unsigned to)
{
	struct packet p = { .size = 0 };
	net_mac d = mac_of(to), s = mac_of(from);

	add(&p, &d, 6);
	add(&p, &s, 6);
	return p;
}

/* 10.0.0.(from + 1) to 10.0.0.(to + 1); `words` of options. */
static void add_ip4(struct packet *p, unsigned from, unsigned to, unsigned protocol,
		    unsigned fragment, unsigned words)
{
	add16(p, 0x4500 + (words << 8));
	add16(p, 1000);
	add16(p, 1);
	add16(p, fragment);
	add8(p, 64);
	add8(p, protocol);
	add16(p, 0);
	add32(p, 0x0a000001 + from);
	add32(p, 0x0a000001 + to);
	for (unsigned i = 0; i < words; i++)
		add32(p, 0x01010101);
}

static void add_ip6(struct packet *p, unsigned from, unsigned to, unsigned next, size_t payload)
{
	add32(p, 0x60000000);
	add16(p, (unsigned)payload);
	add8(p, next);
	add8(p, 255);
	add32(p, 0xfe800000);
	add32(p, 0);
	add32(p, 0);
	add32(p, from + 1);
	add32(p, 0xfe800000);
	add32(p, 0);
	add32(p, 0);
	add32(p, to + 1);
}

static void add_udp(struct packet *p, unsigned source, unsigned destination)
{
	add16(p, source);
	add16(p, destination);
	add32(p, 0x00080000);
}

static void add_icmp(struct packet *p, unsigned type)
{
	add8(p, type);
	add8(p, 0);
	add16(p, 0);
	add32(p, 0);
}

static void add_tcp(struct packet *p, unsigned source, unsigned destination, unsigned flags)
{
	add16(p, source);
	add16(p, destination);
	add32(p, 1000000);
	add32(p, 0);
	add16(p, 0x5000 | flags);
	add16(p, 1000);
	add32(p, 0);
}

static void queue(struct bed *b, unsigned from, const struct packet *p)
{
	net_fake_queue(&b->links[from], p->bytes, MAX(p->size, (size_t)14), NULL);
}

/* --- guards --- */

/* What the packet would be for a receiver. */
enum kind { ROUTER6, REDIRECT6, ROUTER4, REDIRECT4, SERVER4, SERVER6, CLIENT4, SOLICIT6, KINDS };

static void add_kind(struct packet *p, enum kind kind)
{
	switch (kind) {
	case ROUTER6:
		add_icmp(p, 134);
		break;
	case REDIRECT6:
		add_icmp(p, 137);
		break;
	case SOLICIT6:
		add_icmp(p, 135);
		break;
	case ROUTER4:
		add_icmp(p, 9);
		break;
	case REDIRECT4:
		add_icmp(p, 5);
		break;
	case SERVER4:
		add_udp(p, 67, 68);
		break;
	case CLIENT4:
		add_udp(p, 68, 67);
		break;
	case SERVER6:
		add_udp(p, 547, 546);
		break;
	case KINDS:
		break;
	}
	add32(p, 0);
}

static bool is_ip6(enum kind kind)
{
	return kind == ROUTER6 || kind == REDIRECT6 || kind == SERVER6 || kind == SOLICIT6;
}

static unsigned protocol_of(enum kind kind)
{
	if (kind == SERVER4 || kind == CLIENT4 || kind == SERVER6)
		return 17;
	return is_ip6(kind) ? 58 : 1;
}

/* How it is disguised. */
enum disguise { PLAIN, PRIORITY, SNAP, SNAP_PRIORITY, CHAIN, FIRST_FRAGMENT, LONG_CHAIN, CUT, ALL };

static struct packet disguised(enum kind kind, enum disguise how)
{
	struct packet p = ether(0, 1);
	unsigned protocol = protocol_of(kind), type = is_ip6(kind) ? 0x86dd : 0x0800;
	unsigned extensions = how == CHAIN ? 3 : how == LONG_CHAIN ? 20 : 0;

	if (how == PRIORITY || how == SNAP_PRIORITY)
		add32(&p, 0x8100e000);
	if (how == SNAP || how == SNAP_PRIORITY) {
		add16(&p, 100);
		add(&p, "\xaa\xaa\x03\0\0\0", 6);
	}
	add16(&p, type);
	if (!is_ip6(kind)) {
		add_ip4(&p, 0, 1, protocol, how == FIRST_FRAGMENT ? 0x2000 : 0,
			how == CHAIN ? 10 : 0);
	} else {
		add_ip6(&p, 0, 1, extensions ? 60 : how == FIRST_FRAGMENT ? 44 : protocol, 200);
		for (unsigned i = 0; i < extensions; i++) {
			add8(&p, i + 1 < extensions ? (i % 2 ? 60 : 43) : protocol);
			add8(&p, 1);
			add16(&p, 0);
			add32(&p, 0);
			add32(&p, 0);
			add32(&p, 0);
		}
		if (how == FIRST_FRAGMENT) {
			add8(&p, protocol);
			add8(&p, 0);
			add16(&p, 1);
			add32(&p, 77);
		}
	}
	if (how == CUT)
		add16(&p, 0x8600);
	else
		add_kind(&p, kind);
	return p;
}

static void test_guards_cannot_be_got_around(void **state)
{
	(void)state;
	for (unsigned k = 0; k < KINDS; k++) {
		for (unsigned d = 0; d < ALL; d++) {
			bool harmless = k == CLIENT4 || k == SOLICIT6;
			/* What cannot be judged is dropped, whatever it is; IPv4 has no chain. */
			bool blind = d == CUT || (d == LONG_CHAIN && is_ip6((enum kind)k));

			for (unsigned guards = 0; guards < 4; guards++) {
				struct packet p = disguised((enum kind)k, (enum disguise)d);
				bool server = k == SERVER4 || k == SERVER6;
				bool guarded = guards & (server ? 1 : 2);
				bool passes = !guards || (!blind && (harmless || !guarded));
				struct net_settings s = guest(0);
				struct bed b;

				bed_make(&b, NET_SHARE_WEIGHT);
				s.dhcp_guard = guards & 1;
				s.router_guard = guards & 2;
				bed_add(&b, &s, NET_TAKES_ALL);
				s = guest(1);
				bed_add(&b, &s, NET_TAKES_ALL);
				queue(&b, 0, &p);
				bed_run(&b);
				if (b.links[1].got_count != passes)
					fail_msg("kind %u disguise %u guards %u: %u", k, d, guards,
						 (unsigned)b.links[1].got_count);
				bed_drop(&b);
			}
		}
	}
}

static void test_every_truncation_is_harmless(void **state)
{
	struct net_settings s = guest(0);
	struct bed b;

	(void)state;
	bed_make(&b, NET_SHARE_WEIGHT);
	s.dhcp_guard = s.router_guard = true;
	bed_add(&b, &s, NET_TAKES_ALL);
	s = guest(1);
	bed_add(&b, &s, NET_TAKES_ALL);
	for (unsigned k = 0; k < KINDS; k++) {
		for (unsigned d = 0; d < ALL; d++) {
			struct packet p = disguised((enum kind)k, (enum disguise)d);

			/* Whole headers of what is guarded never pass, nor parts of them. */
			for (size_t size = 14; size < p.size; size++)
				net_fake_queue(&b.links[0], p.bytes, size, NULL);
		}
	}
	bed_run(&b);
	for (unsigned i = 0; i < MIN(b.links[1].got_count, NET_FAKE_KEEPS); i++)
		assert_true(b.links[1].got[i].size >= 14);
	bed_drop(&b);
}

static void test_a_checksum_cannot_rewrite_what_was_judged(void **state)
{
	struct net_settings s = guest(0);
	struct bed b;

	(void)state;
	bed_make(&b, NET_SHARE_WEIGHT);
	s.dhcp_guard = true;
	bed_add(&b, &s, NET_TAKES_ALL);
	s = guest(1);
	bed_add(&b, &s, 0);
	for (unsigned field = 14; field < 60; field++) {
		struct packet p = ether(0, 1);
		struct net_offload o = {
			.flags = NET_CHECKSUM_NEEDED,
			.checksum_start = 14,
			.checksum_offset = (uint16_t)(field - 14),
		};

		add16(&p, 0x0800);
		add_ip4(&p, 0, 1, 17, 0, 0);
		add_udp(&p, 1000, 2000);
		p.size = 62;
		net_fake_queue(&b.links[0], p.bytes, p.size, &o);
		/* At the transport's start: only its own fields behind the ports. */
		o.checksum_start = 34;
		o.checksum_offset = (uint16_t)(field - 34);
		if (field >= 34)
			net_fake_queue(&b.links[0], p.bytes, p.size, &o);
	}
	bed_run(&b);
	assert_int_equal(drops(&b, 0, NET_DROP_OFFLOAD), 46 + 4);
	for (unsigned i = 0; i < b.links[1].got_count; i++) {
		assert_int_equal(load_be16(b.links[1].got[i].bytes + 34), 1000);
		assert_int_equal(load_be16(b.links[1].got[i].bytes + 36), 2000);
	}
	bed_drop(&b);
}

/* --- rules --- */

static struct net_rule rule(enum net_direction direction, enum net_action action, uint32_t weight)
{
	return (struct net_rule){
		.direction = direction,
		.action = action,
		.weight = weight,
		.protocol = -1,
		.timeout = 60,
		.local = { .port_last = 65535 },
		.remote = { .port_last = 65535 },
	};
}

static void match4(struct net_match *m, const char *address, unsigned prefix)
{
	m->version = 4;
	m->prefix = (uint8_t)prefix;
	assert_int_equal(inet_pton(AF_INET, address, m->address), 1);
}

static void rules_bed(struct bed *b, const struct net_rule *rules, unsigned count)
{
	struct net_settings s = guest(0);

	bed_make(b, NET_SHARE_WEIGHT);
	s.rules = rules;
	s.rule_count = count;
	bed_add(b, &s, NET_TAKES_ALL);
	for (unsigned i = 1; i < 4; i++) {
		s = guest(i);
		bed_add(b, &s, NET_TAKES_ALL);
	}
}

static bool tcp_passes(struct bed *b, unsigned from, unsigned to, unsigned source,
		       unsigned destination, unsigned flags)
{
	struct packet p = ether(from, to);
	uint64_t before = b->links[to].got_count;

	add16(&p, 0x0800);
	add_ip4(&p, from, to, 6, 0, 0);
	add_tcp(&p, source, destination, flags);
	queue(b, from, &p);
	bed_run(b);
	return b->links[to].got_count > before;
}

static void test_rules_decide_by_weight_then_width(void **state)
{
	struct net_rule r[5] = {
		rule(NET_OUTBOUND, NET_DENY, 0),  rule(NET_OUTBOUND, NET_ALLOW, 0),
		rule(NET_OUTBOUND, NET_DENY, 10), rule(NET_OUTBOUND, NET_METER, 0),
		rule(NET_INBOUND, NET_DENY, 0),
	};
	struct bed b;

	(void)state;
	match4(&r[0].remote, "10.0.0.0", 8);  /* all */
	match4(&r[1].remote, "10.0.0.2", 32); /* but this: narrower */
	r[2].protocol = 6;                    /* heavier than both: port 23 */
	r[2].remote.port_first = r[2].remote.port_last = 23;
	strcpy(r[3].id, "meter");
	match4(&r[4].remote, "10.0.0.3", 32);
	rules_bed(&b, r, 5);
	assert_true(tcp_passes(&b, 0, 1, 1000, 80, 2));
	assert_false(tcp_passes(&b, 0, 1, 1000, 23, 2));
	assert_false(tcp_passes(&b, 0, 2, 1000, 80, 2));
	assert_true(tcp_passes(&b, 1, 0, 1000, 80, 2));
	assert_false(tcp_passes(&b, 2, 0, 1000, 80, 2));
	assert_int_equal(net_switch_rule_counters(b.ports[0], 3).frames, 3);
	assert_int_equal(net_switch_rule_counters(b.ports[0], 2).frames, 1);
	assert_int_equal(drops(&b, 0, NET_DROP_RULE), 3);
	/* What is not IP is none of their business. */
	queue_plain(&b, 0, 2, 60);
	bed_run(&b);
	assert_int_equal(b.links[2].got_count, 1);
	bed_drop(&b);
}

static void test_counters_stay_with_their_rule(void **state)
{
	struct net_rule r[2] = { rule(NET_OUTBOUND, NET_METER, 0),
				 rule(NET_OUTBOUND, NET_METER, 0) };
	struct net_settings s = guest(0);
	struct bed b;

	(void)state;
	strcpy(r[0].id, "a");
	rules_bed(&b, r, 1);
	assert_true(tcp_passes(&b, 0, 1, 1, 2, 2));
	r[1] = r[0];
	strcpy(r[0].id, "b");
	s.rules = r;
	s.rule_count = 2;
	bed_set(&b, 0, &s);
	assert_int_equal(net_switch_rule_counters(b.ports[0], 0).frames, 0);
	assert_int_equal(net_switch_rule_counters(b.ports[0], 1).frames, 1);
	bed_drop(&b);
}

static void test_stateful_rules(void **state)
{
	struct net_rule r[2] = { rule(NET_OUTBOUND, NET_ALLOW, 10),
				 rule(NET_INBOUND, NET_DENY, 1) };
	struct net_settings s = guest(0);
	struct bed b;

	(void)state;
	r[0].stateful = true;
	r[0].timeout = 30;
	rules_bed(&b, r, 2);
	/* Nobody comes in by himself; answers do, and only those. */
	assert_false(tcp_passes(&b, 1, 0, 80, 1000, 2));
	assert_true(tcp_passes(&b, 0, 1, 1000, 80, 2));
	assert_true(tcp_passes(&b, 1, 0, 80, 1000, 0x12));
	assert_false(tcp_passes(&b, 1, 0, 81, 1000, 0x10));
	assert_false(tcp_passes(&b, 1, 0, 80, 1001, 0x10));
	assert_false(tcp_passes(&b, 2, 0, 80, 1000, 0x10));
	assert_int_equal(net_switch_port_flows(b.ports[0]), 1);
	/* Used it stays, silent it goes. */
	b.now += 25 * SECOND;
	assert_true(tcp_passes(&b, 1, 0, 80, 1000, 0x10));
	b.now += 25 * SECOND;
	assert_true(tcp_passes(&b, 1, 0, 80, 1000, 0x10));
	b.now += 31 * SECOND;
	assert_false(tcp_passes(&b, 1, 0, 80, 1000, 0x10));
	/* A connection that was reset is soon forgotten. */
	assert_true(tcp_passes(&b, 0, 1, 1000, 80, 2));
	assert_true(tcp_passes(&b, 1, 0, 80, 1000, 0x14));
	b.now += 11 * SECOND;
	assert_false(tcp_passes(&b, 1, 0, 80, 1000, 0x10));
	/* Other rules: what they allowed before is judged again. */
	assert_true(tcp_passes(&b, 0, 1, 1000, 80, 2));
	r[0].action = NET_DENY;
	r[0].stateful = false;
	s.rules = r;
	s.rule_count = 2;
	bed_set(&b, 0, &s);
	assert_false(tcp_passes(&b, 1, 0, 80, 1000, 0x10));
	assert_false(tcp_passes(&b, 0, 1, 1000, 80, 2));
	bed_drop(&b);
}

static void test_flow_tables_are_bounded(void **state)
{
	struct net_rule r[2] = { rule(NET_OUTBOUND, NET_ALLOW, 10),
				 rule(NET_INBOUND, NET_DENY, 1) };
	unsigned passed = 0;
	struct bed b;

	(void)state;
	r[0].stateful = true;
	rules_bed(&b, r, 2);
	/* A connection that is in use... */
	assert_true(tcp_passes(&b, 0, 1, 7, 80, 2));
	assert_true(tcp_passes(&b, 1, 0, 80, 7, 0x12));
	/* ...is not pushed out by 50,000 that nobody answers. */
	for (unsigned i = 0; i < 50000; i++) {
		passed += tcp_passes(&b, 0, 1, 1000 + i % 50000, 81 + i / 50000, 2);
		if (i % 1000 == 0)
			net_fake_clear(&b.links[1]);
	}
	assert_in_range(net_switch_port_flows(b.ports[0]), 3500, 4096);
	assert_true(passed > 49000);
	assert_true(tcp_passes(&b, 1, 0, 80, 7, 0x10));
	bed_drop(&b);
}

static void test_fragments_and_rules(void **state)
{
	struct net_rule r[1] = { rule(NET_OUTBOUND, NET_DENY, 1) };
	struct packet p;
	struct bed b;

	(void)state;
	r[0].protocol = 17;
	r[0].remote.port_first = r[0].remote.port_last = 53;
	rules_bed(&b, r, 1);
	/* The first one is judged; one too small to be judged is denied. */
	p = ether(0, 1);
	add16(&p, 0x0800);
	add_ip4(&p, 0, 1, 17, 0x2000, 0);
	add_udp(&p, 1000, 53);
	queue(&b, 0, &p);
	p.size -= 6;
	queue(&b, 0, &p);
	bed_run(&b);
	assert_int_equal(b.links[1].got_count, 0);
	/* Later ones go; nobody can assemble them. */
	p = ether(0, 1);
	add16(&p, 0x0800);
	add_ip4(&p, 0, 1, 17, 0x0010, 0);
	add_udp(&p, 1000, 53);
	queue(&b, 0, &p);
	bed_run(&b);
	assert_int_equal(b.links[1].got_count, 1);
	bed_drop(&b);
}

/* --- offloads --- */

static uint16_t sum_of(const uint8_t *p, size_t n, uint32_t sum)
{
	for (size_t i = 0; i + 1 < n; i += 2)
		sum += load_be16(p + i);
	if (n % 2)
		sum += (uint32_t)p[n - 1] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

/* Whether the checksums of a frame with IP at `l3` are right: the slow way. */
static void expect_checksums(const uint8_t *f, size_t size, size_t l3, unsigned protocol)
{
	bool ip4 = f[l3] >> 4 == 4;
	size_t l4 = l3 + (ip4 ? 20 : 40), n = size - l4;
	uint32_t pseudo = sum_of(f + l3 + (ip4 ? 12 : 8), ip4 ? 8 : 32, 0) + protocol + (uint32_t)n;

	if (ip4) {
		assert_int_equal(sum_of(f + l3, 20, 0), 0xffff);
		assert_int_equal(load_be16(f + l3 + 2), size - l3);
	} else {
		assert_int_equal(load_be16(f + l3 + 4), n);
	}
	assert_int_equal(sum_of(f + l4, n, pseudo), 0xffff);
}

static struct packet large(bool ip6, bool tcp, size_t payload, struct net_offload *ret)
{
	struct packet p = ether(0, 1);
	unsigned protocol = tcp ? 6 : 17;
	size_t l4 = ip6 ? 54 : 34, header = tcp ? 20 : 8, at;
	uint32_t pseudo;

	add16(&p, ip6 ? 0x86dd : 0x0800);
	if (ip6)
		add_ip6(&p, 0, 1, protocol, header + payload);
	else
		add_ip4(&p, 0, 1, protocol, 0, 0);
	if (tcp)
		add_tcp(&p, 1000, 80, 0x99); /* CWR, ACK, PSH, FIN */
	else
		add_udp(&p, 1000, 2000);
	for (size_t i = 0; i < payload; i++)
		add8(&p, (unsigned)(i * 7));
	if (!ip6) {
		p.bytes[16] = (uint8_t)((p.size - 14) >> 8);
		p.bytes[17] = (uint8_t)(p.size - 14);
		at = 0xffffu ^ sum_of(p.bytes + 14, 20, 0);
		p.bytes[24] = (uint8_t)(at >> 8);
		p.bytes[25] = (uint8_t)at;
	}
	/* The pseudo header's sum, as the guest leaves it. */
	pseudo = sum_of(p.bytes + (ip6 ? 22 : 26), ip6 ? 32 : 8,
			protocol + (uint32_t)(header + payload));
	at = l4 + (tcp ? 16 : 6);
	p.bytes[at] = (uint8_t)(pseudo >> 8);
	p.bytes[at + 1] = (uint8_t)pseudo;
	*ret = (struct net_offload){
		.flags = NET_CHECKSUM_NEEDED,
		.checksum_start = (uint16_t)l4,
		.checksum_offset = tcp ? 16 : 6,
	};
	return p;
}

static void offload_bed(struct bed *b, unsigned takes)
{
	struct net_settings s = guest(0);

	bed_make(b, NET_SHARE_WEIGHT);
	bed_add(b, &s, NET_TAKES_ALL);
	s = guest(1);
	bed_add(b, &s, takes);
}

static void test_checksums_are_finished(void **state)
{
	static const size_t sizes[] = { 0, 1, 2, 3, 70, 71, 93, 94, 95, 1400, 1401 };

	(void)state;
	for (unsigned how = 0; how < 4; how++) {
		for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
			struct net_offload o;
			struct packet p = large(how & 1, how & 2, sizes[i], &o);
			struct bed b;

			offload_bed(&b, 0);
			net_fake_queue(&b.links[0], p.bytes, p.size, &o);
			bed_run(&b);
			assert_int_equal(b.links[1].got_count, 1);
			assert_int_equal(b.links[1].got[0].offload.flags & NET_CHECKSUM_NEEDED, 0);
			expect_checksums(b.links[1].got[0].bytes, p.size, 14, how & 2 ? 6 : 17);
			bed_drop(&b);
		}
	}
}

static void test_segments_are_finished(void **state)
{
	(void)state;
	for (unsigned how = 0; how < 4; how++) {
		bool ip6 = how & 1, tcp = how & 2;
		size_t header = (ip6 ? 54 : 34) + (tcp ? 20u : 8u), at = 0;
		struct net_offload o;
		struct packet p = large(ip6, tcp, 2345, &o);
		struct bed b;

		o.segmentation =
			tcp ? (ip6 ? NET_SEGMENT_TCP6 : NET_SEGMENT_TCP4) : NET_SEGMENT_UDP;
		o.segment_size = 500;
		offload_bed(&b, NET_TAKES_CHECKSUM);
		net_fake_queue(&b.links[0], p.bytes, p.size, &o);
		bed_run(&b);
		assert_int_equal(b.links[1].got_count, 5);
		for (unsigned i = 0; i < 5; i++) {
			const struct net_fake_frame *f = &b.links[1].got[i];
			size_t n = f->size - header;

			assert_int_equal(n, i < 4 ? 500 : 345);
			expect_checksums(f->bytes, f->size, 14, tcp ? 6 : 17);
			assert_memory_equal(f->bytes + header, p.bytes + header + at, n);
			if (tcp) {
				assert_int_equal(load_be32(f->bytes + header - 16), 1000000 + at);
				assert_int_equal(f->bytes[header - 7],
						 0x10 | (i ? 0 : 0x80) | (i == 4 ? 0x09 : 0));
			} else {
				assert_int_equal(load_be16(f->bytes + header - 4), n + 8);
			}
			at += n;
		}
		bed_drop(&b);
	}
}

static void test_offloads_that_are_taken_go_through(void **state)
{
	struct net_offload o;
	struct packet p = large(false, true, 2345, &o);
	struct bed b;

	(void)state;
	o.segmentation = NET_SEGMENT_TCP4;
	o.segment_size = 500;
	offload_bed(&b, NET_TAKES_ALL);
	net_fake_queue(&b.links[0], p.bytes, p.size, &o);
	bed_run(&b);
	assert_int_equal(b.links[1].got_count, 1);
	assert_memory_equal(b.links[1].got[0].bytes, p.bytes, p.size);
	assert_int_equal(b.links[1].got[0].offload.segment_size, 500);
	assert_int_equal(b.links[1].got[0].offload.header_size, 54);
	bed_drop(&b);
}

static void test_segments_wait_for_room_where_they_stopped(void **state)
{
	struct net_offload o;
	struct packet p = large(false, true, 2345, &o);
	struct bed b;

	(void)state;
	o.segmentation = NET_SEGMENT_TCP4;
	o.segment_size = 500;
	offload_bed(&b, 0);
	b.links[1].limited = true;
	net_fake_queue(&b.links[0], p.bytes, p.size, &o);
	for (unsigned i = 0; i < 5; i++) {
		b.links[1].room += 560;
		bed_run(&b);
		assert_int_equal(b.links[1].got_count, i + 1);
		assert_int_equal(load_be32(b.links[1].got[i].bytes + 38), 1000000 + i * 500);
	}
	bed_drop(&b);
}

static void test_offloads_that_cannot_be_are_dropped(void **state)
{
	static const struct {
		uint8_t segmentation;
		uint16_t size;
		bool ip6, tcp;
	} bad[] = {
		{ NET_SEGMENT_TCP4, 500, true, true },  /* it is IPv6 */
		{ NET_SEGMENT_TCP6, 500, false, true }, /* it is IPv4 */
		{ NET_SEGMENT_TCP4, 500, false, false }, { NET_SEGMENT_UDP, 500, false, true },
		{ NET_SEGMENT_TCP4, 1, false, true }, /* 2,345 segments */
	};
	struct bed b;

	(void)state;
	offload_bed(&b, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct net_offload o;
		struct packet p = large(bad[i].ip6, bad[i].tcp, 2345, &o);

		o.segmentation = bad[i].segmentation;
		o.segment_size = bad[i].size;
		net_fake_queue(&b.links[0], p.bytes, p.size, &o);
	}
	bed_run(&b);
	assert_int_equal(drops(&b, 0, NET_DROP_OFFLOAD), ARRAY_SIZE(bad));
	assert_int_equal(b.links[1].got_count, 0);
	bed_drop(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_maximum_bandwidth),
		cmocka_unit_test(test_dropped_frames_count_too),
		cmocka_unit_test(test_minimum_bandwidth_by_weight),
		cmocka_unit_test(test_minimum_bandwidth_absolute),
		cmocka_unit_test(test_a_slow_destination_holds_up_nobody_for_long),
		cmocka_unit_test(test_who_drops_never_waits),
		cmocka_unit_test(test_guards_cannot_be_got_around),
		cmocka_unit_test(test_every_truncation_is_harmless),
		cmocka_unit_test(test_a_checksum_cannot_rewrite_what_was_judged),
		cmocka_unit_test(test_rules_decide_by_weight_then_width),
		cmocka_unit_test(test_counters_stay_with_their_rule),
		cmocka_unit_test(test_stateful_rules),
		cmocka_unit_test(test_flow_tables_are_bounded),
		cmocka_unit_test(test_fragments_and_rules),
		cmocka_unit_test(test_checksums_are_finished),
		cmocka_unit_test(test_segments_are_finished),
		cmocka_unit_test(test_offloads_that_are_taken_go_through),
		cmocka_unit_test(test_segments_wait_for_room_where_they_stopped),
		cmocka_unit_test(test_offloads_that_cannot_be_are_dropped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
