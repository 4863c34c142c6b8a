// SPDX-License-Identifier: MIT
/*
 * Where frames go and which may not: VLANs, private VLANs, learning, guards, rules, mirrors,
 * storms. All time is the test's own.
 */
#include "net/switch.h"

#include "net/bed_test.h"
#include "net/headers.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* --- frames --- */

struct packet {
	uint8_t bytes[2048];
	size_t size;
};

static void add(struct packet *p, const void *bytes, size_t n)
{
	memcpy(p->bytes + p->size, bytes, n);
	p->size += n;
}

static void add16(struct packet *p, unsigned v)
{
	add(p, (uint8_t[]){ (uint8_t)(v >> 8), (uint8_t)v }, 2);
}

#define TAG(id) ETHERTYPE_VLAN, (id)

/* MACs, and types or tags one after the other; ends with 0. */
static struct packet ether(net_mac to, net_mac from, const unsigned *words)
{
	struct packet p = { .size = 0 };

	add(&p, &to, 6);
	add(&p, &from, 6);
	for (; *words; words++)
		add16(&p, *words & 0xffff);
	return p;
}

static const net_mac everybody = { { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff } };
static const net_mac somebody = { { 0x02, 0xaa, 0xbb, 0xcc, 0xdd, 0xee } };

static void send_packet(struct bed *b, unsigned i, const struct packet *p)
{
	net_fake_queue(&b->links[i], p->bytes, p->size, NULL);
}

static void send_plain(struct bed *b, unsigned from, net_mac to)
{
	struct packet p = ether(to, mac_of(from), (unsigned[]){ 0x88b5, 0 });

	p.size = 60;
	send_packet(b, from, &p);
}

static void send_tagged(struct bed *b, unsigned from, net_mac to, int tag)
{
	struct packet p = tag < 0 ? ether(to, mac_of(from), (unsigned[]){ 0x88b5, 0 })
				  : ether(to, mac_of(from),
					  (unsigned[]){ ETHERTYPE_VLAN, 0x10000u | (unsigned)tag,
							0x88b5, 0 });

	p.size = 64;
	p.bytes[63] = 0x5a;
	send_packet(b, from, &p);
}

/* --- VLANs --- */

static void set_vlan(struct net_settings *s, enum net_vlan_mode mode, uint16_t id,
		     const uint16_t *list)
{
	memset(&s->vlan, 0, sizeof(s->vlan));
	s->vlan.mode = mode;
	s->vlan.id = id;
	if (mode == NET_VLAN_ISOLATED || mode == NET_VLAN_COMMUNITY)
		s->vlan.secondary = list[0];
	else
		for (; *list; list++)
			s->vlan.set[*list / 64] |= UINT64_C(1) << *list % 64;
}

/* Names of columns and rows below. */
enum { U, A10, A20, T0, T10, I1, I2, C2, D2, C3, P, TP, KINDS };

static void add_kinds(struct bed *b)
{
	static const struct {
		enum net_vlan_mode mode;
		uint16_t id, list[8];
	} kinds[KINDS] = {
		[U] = { NET_VLAN_ACCESS, 0, { 0 } },
		[A10] = { NET_VLAN_ACCESS, 10, { 0 } },
		[A20] = { NET_VLAN_ACCESS, 20, { 0 } },
		[T0] = { NET_VLAN_TRUNK, 0, { 10, 20 } },
		[T10] = { NET_VLAN_TRUNK, 10, { 20 } },
		[I1] = { NET_VLAN_ISOLATED, 100, { 101 } },
		[I2] = { NET_VLAN_ISOLATED, 100, { 101 } },
		[C2] = { NET_VLAN_COMMUNITY, 100, { 102 } },
		[D2] = { NET_VLAN_COMMUNITY, 100, { 102 } },
		[C3] = { NET_VLAN_COMMUNITY, 100, { 103 } },
		[P] = { NET_VLAN_PROMISCUOUS, 100, { 101, 102, 103 } },
		[TP] = { NET_VLAN_TRUNK, 0, { 10, 20, 100, 101, 102, 103 } },
	};

	for (unsigned i = 0; i < KINDS; i++) {
		struct net_settings s = guest(i);

		set_vlan(&s, kinds[i].mode, kinds[i].id, kinds[i].list);
		bed_add(b, &s, NET_TAKES_ALL);
	}
}

/* Who gets it: u untagged, t with the tag `vlan`, . not at all. */
static const struct row {
	unsigned from;
	int tag; /* -1 = none */
	unsigned vlan;
	const char *to; /* U A10 A20 T0 T10 I1 I2 C2 D2 C3 P TP */
} rows[] = {
	{ U, -1, 0, "...u.......u" },
	{ A10, -1, 10, "...tu......t" },
	{ A20, -1, 20, "...tt......t" },
	{ T0, -1, 0, "u..........u" },
	{ T10, -1, 10, ".u.t.......t" },
	{ I1, -1, 101, "..........ut" },
	{ I2, -1, 101, "..........ut" },
	{ C2, -1, 102, "........u.ut" },
	{ D2, -1, 102, ".......u..ut" },
	{ C3, -1, 103, "..........ut" },
	{ P, -1, 100, ".....uuuuu.t" },
	{ TP, -1, 0, "u..u........" },
	/* tagged, where it is allowed */
	{ T0, 10, 10, ".u..u......t" },
	{ T0, 20, 20, "..u.t......t" },
	{ T10, 10, 10, ".u.t.......t" },
	{ T10, 20, 20, "..ut.......t" },
	{ TP, 10, 10, ".u.tu......." },
	{ TP, 20, 20, "..utt......." },
	{ TP, 100, 100, ".....uuuuuu." },
	{ TP, 101, 101, "..........u." },
	{ TP, 102, 102, ".......uu.u." },
	{ TP, 103, 103, ".........uu." },
	/* and where it is not */
	{ T0, 30, 0, "............" },
	{ T10, 30, 0, "............" },
	{ T10, 100, 0, "............" },
	{ TP, 30, 0, "............" },
	{ TP, 4095, 0, "............" },
	{ U, 10, 0, "............" },
	{ A10, 10, 0, "............" },
	{ A10, 20, 0, "............" },
	{ I1, 100, 0, "............" },
	{ I1, 101, 0, "............" },
	{ C2, 100, 0, "............" },
	{ C2, 102, 0, "............" },
	{ P, 100, 0, "............" },
	{ P, 101, 0, "............" },
	/* a priority is no VLAN */
	{ U, 0, 0, "...u.......u" },
	{ A10, 0, 10, "...tu......t" },
	{ T10, 0, 10, ".u.t.......t" },
	{ I1, 0, 101, "..........ut" },
	{ P, 0, 100, ".....uuuuu.t" },
};

static void expect_frame(struct bed *b, unsigned i, char how, const struct row *row)
{
	const struct net_fake_frame *f = &b->links[i].got[0];
	size_t tag = how == 't' ? 4 : 0;

	if (b->links[i].got_count != (how != '.'))
		fail_msg("from %u tag %d to %u: %u frames instead of '%c'", row->from, row->tag, i,
			 (unsigned)b->links[i].got_count, how);
	if (how == '.')
		return;
	assert_int_equal(f->size, 64 - (row->tag < 0 ? 0 : 4) + tag);
	assert_int_equal(f->bytes[f->size - 1], 0x5a);
	if (tag) {
		assert_int_equal(load_be16(f->bytes + 12), ETHERTYPE_VLAN);
		assert_int_equal(load_be16(f->bytes + 14) & 0xfff, row->vlan);
	}
	assert_int_equal(load_be16(f->bytes + 12 + tag), 0x88b5);
}

static void test_every_pair_of_vlans(void **state)
{
	(void)state;
	for (unsigned r = 0; r < ARRAY_SIZE(rows); r++) {
		const struct row *row = &rows[r];
		struct bed b;

		bed_make(&b, NET_SHARE_WEIGHT);
		add_kinds(&b);
		/* To all. */
		send_tagged(&b, row->from, everybody, row->tag);
		bed_run(&b);
		for (unsigned i = 0; i < KINDS; i++)
			expect_frame(&b, i, row->to[i], row);
		/* To each. */
		for (unsigned to = 0; to < KINDS; to++) {
			for (unsigned i = 0; i < KINDS; i++)
				net_fake_clear(&b.links[i]);
			send_tagged(&b, row->from, mac_of(to), row->tag);
			bed_run(&b);
			for (unsigned i = 0; i < KINDS; i++)
				expect_frame(&b, i, i == to ? row->to[i] : '.', row);
		}
		bed_drop(&b);
	}
}

static void test_tags_inside_of_tags_reach_no_vlan(void **state)
{
	static const unsigned types[] = { ETHERTYPE_VLAN, ETHERTYPE_QINQ, ETHERTYPE_QINQ1 };
	struct bed b;

	(void)state;
	bed_make(&b, NET_SHARE_WEIGHT);
	add_kinds(&b);
	for (unsigned outer = 0; outer < 3; outer++) {
		for (unsigned inner = 0; inner < 3; inner++) {
			for (unsigned from = 0; from < KINDS; from++) {
				static const unsigned ids[] = { 0, 10, 20, 102 };

				for (unsigned id = 0; id < 4; id++) {
					struct packet p = ether(
						everybody, mac_of(from),
						(unsigned[]){ types[outer], 0x10000u | ids[id],
							      types[inner], 0x10000u | 20, 0x88b5,
							      0 });

					p.size = 64;
					send_packet(&b, from, &p);
				}
			}
		}
	}
	bed_run(&b);
	/* Only from trunk to trunk, and never with the outer tag taken off. */
	for (unsigned i = 0; i < KINDS; i++) {
		for (unsigned j = 0; j < MIN(b.links[i].got_count, NET_FAKE_KEEPS); j++) {
			const uint8_t *bytes = b.links[i].got[j].bytes;

			assert_true(i == T0 || i == T10 || i == TP);
			assert_int_equal(load_be16(bytes + 12), ETHERTYPE_VLAN);
			assert_int_not_equal(load_be16(bytes + 14) & 0xfff, 0);
			assert_int_not_equal(load_be16(bytes + 16), 0x88b5);
		}
	}
	assert_true(b.links[TP].got_count > 0);
	bed_drop(&b);
}

static void test_priority_stays(void **state)
{
	struct packet p;
	struct bed b;

	(void)state;
	bed_make(&b, NET_SHARE_WEIGHT);
	add_kinds(&b);
	p = ether(everybody, mac_of(A10), (unsigned[]){ TAG(0xa000), 0x88b5, 0 });
	p.size = 64;
	send_packet(&b, A10, &p);
	bed_run(&b);
	assert_int_equal(load_be16(b.links[TP].got[0].bytes + 14), 0xa00a);
	bed_drop(&b);
}

static void test_private_vlans_that_contradict(void **state)
{
	static const struct {
		enum net_vlan_mode mode;
		uint16_t id, list[3];
	} bad[] = {
		{ NET_VLAN_COMMUNITY, 100, { 101 } }, /* is isolated */
		{ NET_VLAN_ISOLATED, 200, { 101 } },  /* of another */
		{ NET_VLAN_PROMISCUOUS, 200, { 101 } }, { NET_VLAN_ISOLATED, 100, { 100 } },
		{ NET_VLAN_ISOLATED, 0, { 101 } },      { NET_VLAN_ISOLATED, 100, { 0 } },
		{ NET_VLAN_COMMUNITY, 100, { 4095 } },  { NET_VLAN_ACCESS, 4095, { 0 } },
		{ NET_VLAN_PROMISCUOUS, 0, { 0 } },
	};
	struct net_settings s = guest(0);
	struct error err = { 0 };
	struct bed b;

	(void)state;
	bed_make(&b, NET_SHARE_WEIGHT);
	set_vlan(&s, NET_VLAN_ISOLATED, 100, (uint16_t[]){ 101 });
	bed_add(&b, &s, NET_TAKES_ALL);
	s = guest(1);
	bed_add(&b, &s, NET_TAKES_ALL);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		set_vlan(&s, bad[i].mode, bad[i].id, bad[i].list);
		assert_int_equal(net_switch_set(b.ports[1], &s, &err), -EINVAL);
		assert_true(strlen(err.message) > 10);
	}
	assert_int_equal(net_switch_port_settings(b.ports[1])->vlan.mode, NET_VLAN_ACCESS);
	bed_drop(&b);
}

static void test_answers_in_a_private_vlan_find_their_way(void **state)
{
	struct net_settings s = guest(0);
	struct packet p;
	struct bed b;

	(void)state;
	bed_make(&b, NET_SHARE_WEIGHT);
	/* Two learning ports: an isolated one with a guest's guest, and a promiscuous one. */
	s.spoofing = true;
	set_vlan(&s, NET_VLAN_ISOLATED, 100, (uint16_t[]){ 101 });
	bed_add(&b, &s, NET_TAKES_ALL);
	s = guest(1);
	set_vlan(&s, NET_VLAN_PROMISCUOUS, 100, (uint16_t[]){ 101, 0 });
	bed_add(&b, &s, NET_TAKES_ALL);
	s = guest(2);
	s.spoofing = true;
	set_vlan(&s, NET_VLAN_ISOLATED, 100, (uint16_t[]){ 101 });
	bed_add(&b, &s, NET_TAKES_ALL);
	p = ether(mac_of(1), somebody, (unsigned[]){ 0x88b5, 0 });
	p.size = 60;
	send_packet(&b, 0, &p);
	bed_run(&b);
	assert_int_equal(b.links[1].got_count, 1);
	/* Learned in the secondary VLAN, found from the primary: no flood. */
	send_plain(&b, 1, somebody);
	bed_run(&b);
	assert_int_equal(b.links[0].got_count, 1);
	assert_int_equal(b.links[2].got_count, 0);
	bed_drop(&b);
}

/* --- addresses --- */

static void test_spoofing(void **state)
{
	struct net_settings s;
	struct packet p;
	struct bed b;

	(void)state;
	bed_make(&b, NET_SHARE_WEIGHT);
	for (unsigned i = 0; i < 3; i++) {
		s = guest(i);
		bed_add(&b, &s, NET_TAKES_ALL);
	}
	p = ether(everybody, mac_of(1), (unsigned[]){ 0x88b5, 0 });
	p.size = 60;
	send_packet(&b, 0, &p);
	p = ether(everybody, somebody, (unsigned[]){ 0x88b5, 0 });
	p.size = 60;
	send_packet(&b, 0, &p);
	bed_run(&b);
	assert_int_equal(drops(&b, 0, NET_DROP_SPOOF), 2);
	assert_int_equal(b.dropped, 2);
	assert_int_equal(b.links[1].got_count + b.links[2].got_count, 0);
	/* Groups and nobody send nothing, allowed or not. */
	s = guest(0);
	s.spoofing = true;
	bed_set(&b, 0, &s);
	p = ether(everybody, everybody, (unsigned[]){ 0x88b5, 0 });
	p.size = 60;
	send_packet(&b, 0, &p);
	p = ether(everybody, (net_mac){ { 0 } }, (unsigned[]){ 0x88b5, 0 });
	p.size = 60;
	send_packet(&b, 0, &p);
	bed_run(&b);
	assert_int_equal(drops(&b, 0, NET_DROP_MALFORMED), 2);
	/* Allowed now; but another's own address stays where it is. */
	p = ether(everybody, mac_of(1), (unsigned[]){ 0x88b5, 0 });
	p.size = 60;
	send_packet(&b, 0, &p);
	bed_run(&b);
	net_fake_clear(&b.links[0]);
	net_fake_clear(&b.links[1]);
	send_plain(&b, 2, mac_of(1));
	bed_run(&b);
	assert_int_equal(b.links[0].got_count, 0);
	assert_int_equal(b.links[1].got_count, 1);
	bed_drop(&b);
}

static void test_learning_flooding_and_age(void **state)
{
	struct net_settings s = net_settings_uplink;
	struct net_mac_entry e;
	struct packet p;
	unsigned at = 0;
	struct bed b;

	(void)state;
	bed_make(&b, NET_SHARE_WEIGHT);
	bed_add(&b, &s, NET_TAKES_ALL);
	bed_add(&b, &s, NET_TAKES_ALL);
	s = guest(2);
	bed_add(&b, &s, NET_TAKES_ALL);
	s = guest(3);
	bed_add(&b, &s, NET_TAKES_ALL);
	/* Unknown: to those that may have others behind them, not to guests with one address. */
	send_plain(&b, 2, somebody);
	bed_run(&b);
	assert_int_equal(b.links[0].got_count, 1);
	assert_int_equal(b.links[1].got_count, 1);
	assert_int_equal(b.links[3].got_count, 0);
	p = ether(everybody, somebody, (unsigned[]){ 0x88b5, 0 });
	p.size = 60;
	send_packet(&b, 1, &p);
	bed_run(&b);
	assert_true(net_switch_mac_next(b.s, &at, &e));
	assert_ptr_equal(e.port, b.ports[1]);
	assert_memory_equal(&e.mac, &somebody, 6);
	assert_false(net_switch_mac_next(b.s, &at, &e));
	net_fake_clear(&b.links[0]);
	net_fake_clear(&b.links[1]);
	/* Known. */
	b.now += 299 * SECOND;
	send_plain(&b, 2, somebody);
	bed_run(&b);
	assert_int_equal(b.links[0].got_count, 0);
	assert_int_equal(b.links[1].got_count, 1);
	/* Forgotten, without anything that ran meanwhile. */
	b.now += 2 * SECOND;
	send_plain(&b, 2, somebody);
	bed_run(&b);
	assert_int_equal(b.links[0].got_count, 1);
	/* It moves. */
	send_packet(&b, 0, &p);
	bed_run(&b);
	net_fake_clear(&b.links[1]);
	send_plain(&b, 2, somebody);
	bed_run(&b);
	assert_int_equal(b.links[1].got_count, 0);
	bed_drop(&b);
}

static void test_nobody_fills_the_table(void **state)
{
	struct net_settings s = guest(0);
	unsigned at = 0, mine = 0, others = 0;
	struct net_mac_entry e;
	struct bed b;

	(void)state;
	bed_make(&b, NET_SHARE_WEIGHT);
	s.spoofing = true;
	bed_add(&b, &s, NET_TAKES_ALL);
	s = net_settings_uplink;
	bed_add(&b, &s, NET_TAKES_ALL);
	for (unsigned i = 0; i < 1000; i++) {
		net_mac m = { { 2, 1, 0, 0, (uint8_t)(i >> 8), (uint8_t)i } };
		struct packet p = ether(everybody, m, (unsigned[]){ 0x88b5, 0 });

		p.size = 60;
		send_packet(&b, 1, &p);
	}
	bed_run(&b);
	/* A guest that claims 50,000 addresses. */
	for (unsigned i = 0; i < 50000; i++) {
		net_mac m = { { 2, 2, 0, (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i } };
		struct packet p = ether(everybody, m, (unsigned[]){ 0x88b5, 0 });

		p.size = 60;
		send_packet(&b, 0, &p);
	}
	bed_run(&b);
	while (net_switch_mac_next(b.s, &at, &e)) {
		mine += e.port == b.ports[0];
		others += e.port == b.ports[1];
	}
	assert_true(mine <= net_settings_default.mac_limit && mine > 0);
	assert_true(others >= 999); /* four others may have met in one set */
	/* Its addresses go when they are old, and it may have new ones. */
	b.now += 400 * SECOND;
	for (unsigned i = 0; i < 10; i++) {
		net_mac m = { { 2, 3, 0, 0, 0, (uint8_t)i } };
		struct packet p = ether(everybody, m, (unsigned[]){ 0x88b5, 0 });

		p.size = 60;
		send_packet(&b, 0, &p);
	}
	bed_run(&b);
	at = mine = 0;
	while (net_switch_mac_next(b.s, &at, &e))
		mine += e.port == b.ports[0];
	assert_int_equal(mine, 10);
	bed_drop(&b);
}

static void test_conflicts_are_refused(void **state)
{
	struct net_settings s = guest(0);
	struct net_switch_port *p;
	struct error err = { 0 };
	struct bed b;

	(void)state;
	bed_make(&b, NET_SHARE_WEIGHT);
	bed_add(&b, &s, NET_TAKES_ALL);
	assert_int_equal(net_switch_add(b.s, "x", &s, &p, &err), -EEXIST);
	assert_non_null(strstr(err.message, "\"p0\""));
	set_vlan(&s, NET_VLAN_ACCESS, 9, (uint16_t[]){ 0 });
	assert_int_equal(net_switch_add(b.s, "x", &s, &p, &err), 0); /* they never meet */
	assert_int_equal(net_switch_add(b.s, "x", &s, &p, &err), -EEXIST);
	s = net_settings_default;
	assert_int_equal(net_switch_add(b.s, "y", &s, &p, &err), -EINVAL);
	assert_int_equal(net_switch_add(b.s, "", &s, &p, &err), -EINVAL);
	assert_null(net_switch_find(b.s, "y"));
	bed_drop(&b);
}

static void test_bridges_keep_their_groups(void **state)
{
	struct net_settings s = guest(0);
	struct bed b;

	(void)state;
	bed_make(&b, NET_SHARE_WEIGHT);
	bed_add(&b, &s, NET_TAKES_ALL);
	s = guest(1);
	bed_add(&b, &s, NET_TAKES_ALL);
	for (unsigned i = 0; i < 0x12; i++)
		send_plain(&b, 0, (net_mac){ { 0x01, 0x80, 0xc2, 0, 0, (uint8_t)i } });
	bed_run(&b);
	assert_int_equal(b.links[1].got_count, 2);
	bed_drop(&b);
}

/* --- mirrors and storms --- */

static void test_mirrors(void **state)
{
	struct net_settings s;
	struct bed b;

	(void)state;
	bed_make(&b, NET_SHARE_WEIGHT);
	for (unsigned i = 0; i < 4; i++) {
		s = guest(i);
		s.mirror = i == 0   ? NET_MIRROR_SOURCE
			   : i == 3 ? NET_MIRROR_DESTINATION
				    : NET_MIRROR_NONE;
		bed_add(&b, &s, NET_TAKES_ALL);
	}
	send_plain(&b, 0, mac_of(1));
	send_plain(&b, 1, mac_of(0));
	send_plain(&b, 1, mac_of(2));
	bed_run(&b);
	assert_int_equal(b.links[3].got_count, 2);
	send_plain(&b, 0, everybody); /* its copy, and the frame itself */
	send_plain(&b, 1, everybody);
	bed_run(&b);
	assert_int_equal(b.links[3].got_count, 6);
	assert_int_equal(b.links[1].got_count, 2);
	bed_drop(&b);
}

static void test_storms_are_limited(void **state)
{
	struct net_settings s = guest(0);
	struct bed b;

	(void)state;
	bed_make(&b, NET_SHARE_WEIGHT);
	s.storm_limit = 100;
	bed_add(&b, &s, NET_TAKES_ALL);
	s = guest(1);
	bed_add(&b, &s, NET_TAKES_ALL);
	/* 10,000 a second for ten seconds. */
	for (unsigned i = 0; i < 1000; i++) {
		for (unsigned j = 0; j < 100; j++)
			send_plain(&b, 0, everybody);
		bed_run(&b);
		b.now += SECOND / 100;
	}
	assert_in_range(b.links[1].got_count, 1000, 1010);
	assert_int_equal(drops(&b, 0, NET_DROP_STORM), 100000 - b.links[1].got_count);
	/* What is for one is no storm. */
	net_fake_clear(&b.links[1]);
	for (unsigned j = 0; j < 500; j++)
		send_plain(&b, 0, mac_of(1));
	bed_run(&b);
	assert_int_equal(b.links[1].got_count, 500);
	bed_drop(&b);
}

/* --- life --- */

static void test_settings_change_at_once(void **state)
{
	struct net_settings s = guest(0), bad;
	struct error err = { 0 };
	struct bed b;

	(void)state;
	bed_make(&b, NET_SHARE_WEIGHT);
	bed_add(&b, &s, NET_TAKES_ALL);
	s = guest(1);
	bed_add(&b, &s, NET_TAKES_ALL);
	send_plain(&b, 0, mac_of(1));
	bed_run(&b);
	assert_int_equal(b.links[1].got_count, 1);
	set_vlan(&s, NET_VLAN_ACCESS, 7, (uint16_t[]){ 0 });
	bed_set(&b, 1, &s);
	send_plain(&b, 0, mac_of(1));
	bed_run(&b);
	assert_int_equal(b.links[1].got_count, 1);
	/* All or nothing. */
	bad = s;
	bad.dhcp_guard = true;
	bad.vlan.id = 5000;
	assert_int_equal(net_switch_set(b.ports[1], &bad, &err), -EINVAL);
	assert_false(net_switch_port_settings(b.ports[1])->dhcp_guard);
	assert_int_equal(net_switch_port_settings(b.ports[1])->vlan.id, 7);
	bed_drop(&b);
}

static void test_ports_go_while_others_wait_for_them(void **state)
{
	struct net_settings s;
	struct bed b;

	(void)state;
	bed_make(&b, NET_SHARE_WEIGHT);
	for (unsigned i = 0; i < 3; i++) {
		s = guest(i);
		bed_add(&b, &s, NET_TAKES_ALL);
	}
	b.links[2].limited = true;
	send_plain(&b, 0, mac_of(2));
	send_plain(&b, 1, mac_of(2));
	send_plain(&b, 0, mac_of(1));
	bed_run(&b);
	assert_true(b.links[2].wants_room);
	assert_int_equal(b.links[1].got_count, 0);
	net_switch_remove(b.ports[2]);
	b.ports[2] = b.ports[1];
	bed_run(&b);
	assert_int_equal(b.links[1].got_count, 1);
	net_switch_remove(b.ports[0]);
	b.ports[0] = b.ports[1];
	send_plain(&b, 1, everybody);
	bed_run(&b);
	bed_drop(&b);
}

static void test_idle_has_no_deadline(void **state)
{
	struct net_settings s = guest(0);
	uint64_t deadline = 1;
	struct bed b;

	(void)state;
	bed_make(&b, NET_SHARE_WEIGHT);
	s.storm_limit = 10;
	s.maximum_bandwidth = 8000000;
	bed_add(&b, &s, NET_TAKES_ALL);
	s = net_settings_uplink;
	bed_add(&b, &s, NET_TAKES_ALL);
	send_plain(&b, 0, everybody);
	bed_run(&b);
	assert_false(net_switch_run(b.s, b.now, &deadline));
	assert_int_equal(deadline, 0);
	bed_drop(&b);
}

static void test_what_tells_addresses_is_seen(void **state)
{
	struct net_settings s = guest(0);
	struct packet p;
	struct bed b;

	(void)state;
	bed_make(&b, NET_SHARE_WEIGHT);
	set_vlan(&s, NET_VLAN_TRUNK, 0, (uint16_t[]){ 5, 0 });
	bed_add(&b, &s, NET_TAKES_ALL);
	p = ether(everybody, mac_of(0), (unsigned[]){ TAG(5), ETHERTYPE_ARP, 0 });
	add(&p, "\0\1\x08\0\6\4\0\1", 8);
	p.size = 64;
	send_packet(&b, 0, &p);
	send_plain(&b, 0, everybody);
	bed_run(&b);
	assert_int_equal(b.watched, 1);
	assert_int_equal(b.seen_size, 60);
	assert_int_equal(load_be16(b.seen + 12), ETHERTYPE_ARP);
	bed_drop(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_pair_of_vlans),
		cmocka_unit_test(test_tags_inside_of_tags_reach_no_vlan),
		cmocka_unit_test(test_priority_stays),
		cmocka_unit_test(test_private_vlans_that_contradict),
		cmocka_unit_test(test_answers_in_a_private_vlan_find_their_way),
		cmocka_unit_test(test_spoofing),
		cmocka_unit_test(test_learning_flooding_and_age),
		cmocka_unit_test(test_nobody_fills_the_table),
		cmocka_unit_test(test_conflicts_are_refused),
		cmocka_unit_test(test_bridges_keep_their_groups),
		cmocka_unit_test(test_mirrors),
		cmocka_unit_test(test_storms_are_limited),
		cmocka_unit_test(test_settings_change_at_once),
		cmocka_unit_test(test_ports_go_while_others_wait_for_them),
		cmocka_unit_test(test_idle_has_no_deadline),
		cmocka_unit_test(test_what_tells_addresses_is_seen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
