// SPDX-License-Identifier: MIT
/* Frames as guests send them, made here byte by byte, and what is known afterwards. */
#include "net/learn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>

#include <cmocka.h>

#define SECOND UINT64_C(1000000000)

static const struct inet_mac guest = { { 0, 0x15, 0x5d, 1, 2, 3 } };
static const struct inet_mac other = { { 0, 0x15, 0x5d, 9, 9, 9 } };
static const uint8_t link_local[16] = { 0xfe, 0x80, [8] = 2, 0x15, 0x5d, 0xff, 0xfe, 1, 2, 3 };

static size_t ether(uint8_t *f, struct inet_mac from, uint16_t type)
{
	struct writer w = writer_of(f, 14);

	writer_put(&w, &INET_MAC_ALL, 6);
	writer_put(&w, &from, 6);
	writer_be16(&w, type);
	return w.at;
}

static size_t arp(uint8_t *f, struct inet_mac source, struct inet_mac sender, uint16_t operation,
		  uint32_t address)
{
	struct writer w = writer_of(f, 128);

	w.at = ether(f, source, INET_ETHER_ARP);
	writer_be16(&w, 1);
	writer_be16(&w, INET_ETHER_IP4);
	writer_be16(&w, 0x0604);
	writer_be16(&w, operation);
	writer_put(&w, &sender, 6);
	writer_be32(&w, address);
	writer_zero(&w, 6);
	writer_be32(&w, address);
	return w.at;
}

static size_t nd(uint8_t *f, struct inet_mac source, uint8_t type, const uint8_t from[16],
		 const uint8_t target[16])
{
	struct writer w = writer_of(f, 128);

	w.at = ether(f, source, INET_ETHER_IP6);
	writer_be32(&w, 0x60000000);
	writer_be16(&w, 24);
	writer_u8(&w, INET_ICMP6);
	writer_u8(&w, 255);
	writer_put(&w, from, 16);
	writer_zero(&w, 16);
	writer_u8(&w, type);
	writer_zero(&w, 7);
	writer_put(&w, target, 16);
	return w.at;
}

struct bootp {
	uint8_t op, message;
	uint32_t transaction, client, yours, lease;
};

static size_t dhcp(uint8_t *f, struct inet_mac source, const struct bootp *b)
{
	uint8_t data[300] = { 0 };
	struct writer w = writer_of(data, sizeof(data));
	struct inet_udp u = { .ether = { INET_MAC_ALL, source, 0 },
			      .ip = { .from = b->op == 2 ? 0x0a000001 : 0, .to = UINT32_MAX },
			      .from_port = b->op == 2 ? 67 : 68,
			      .to_port = b->op == 2 ? 68 : 67,
			      .data = data,
			      .size = sizeof(data) };

	writer_u8(&w, b->op);
	writer_be16(&w, 0x0106);
	writer_u8(&w, 0);
	writer_be32(&w, b->transaction);
	writer_be32(&w, 0);
	writer_be32(&w, b->client);
	writer_be32(&w, b->yours);
	writer_zero(&w, 8);
	writer_put(&w, &guest, 6);
	w.at = 236;
	writer_be32(&w, 0x63825363);
	writer_u8(&w, 53);
	writer_u8(&w, 1);
	writer_u8(&w, b->message);
	writer_u8(&w, 51);
	writer_u8(&w, 4);
	writer_be32(&w, b->lease);
	writer_u8(&w, 255);
	return inet_write_udp4(f, 512, &u);
}

static bool has(const struct net_learner *l, int family, const void *bytes, size_t size)
{
	for (unsigned i = 0; i < l->count; i++)
		if (l->list[i].family == family && !memcmp(l->list[i].bytes, bytes, size))
			return true;
	return false;
}

static bool has4(const struct net_learner *l, uint32_t a)
{
	be32 wire = be32_of(a);

	return has(l, AF_INET, &wire, 4);
}

static bool hear(struct net_learner *l, const uint8_t *f, size_t size, uint64_t now)
{
	assert_true(net_learner_wants(f, size));
	return net_learner_frame(l, f, size, NET_LEARN_FROM_PORT, now);
}

static bool told(struct net_learner *l, const uint8_t *f, size_t size, uint64_t now)
{
	return net_learner_frame(l, f, size, NET_LEARN_TO_PORT, now);
}

static void test_static_address_by_arp(void **state)
{
	struct net_learner l = { 0 };
	uint8_t f[512];

	(void)state;
	assert_true(hear(&l, f, arp(f, guest, guest, 1, 0x0a000005), 1));
	assert_true(has4(&l, 0x0a000005));
	assert_false(hear(&l, f, arp(f, guest, guest, 2, 0x0a000005), 2));
	/* One that is announced, as networkd does. */
	assert_true(hear(&l, f, arp(f, guest, guest, 2, 0x0a000006), 3));
	assert_int_equal(l.count, 2);
	assert_true(net_learner_age(&l, 2 + NET_LEARN_AGE_NS));
	assert_false(has4(&l, 0x0a000005));
	assert_true(has4(&l, 0x0a000006));
}

static void test_arp_of_others_and_probes_teach_nothing(void **state)
{
	struct net_learner l = { 0 };
	uint8_t f[512];
	size_t n;

	(void)state;
	assert_false(hear(&l, f, arp(f, guest, guest, 1, 0), 1));
	assert_false(hear(&l, f, arp(f, guest, other, 1, 0x0a000005), 1));
	assert_false(hear(&l, f, arp(f, guest, guest, 3, 0x0a000005), 1));
	assert_false(hear(&l, f, arp(f, guest, guest, 2, 0x7f000001), 1));
	assert_false(hear(&l, f, arp(f, guest, guest, 2, 0xe0000001), 1));
	n = arp(f, guest, guest, 2, 0x0a000005);
	assert_false(told(&l, f, n, 1));
	for (size_t i = 0; i < n; i++)
		assert_false(net_learner_frame(&l, f, i, NET_LEARN_FROM_PORT, 1));
	assert_int_equal(l.count, 0);
}

static void test_dhcp_ack_to_who_asked(void **state)
{
	struct net_learner l = { 0 };
	struct bootp ask = { 1, 3, 77, 0, 0, 0 }, ack = { 2, 5, 77, 0, 0x0a000009, 600 };
	uint8_t f[512];

	(void)state;
	assert_false(told(&l, f, dhcp(f, other, &ack), 1));
	assert_false(hear(&l, f, dhcp(f, guest, &ask), 1));
	ack.transaction = 78;
	assert_false(told(&l, f, dhcp(f, other, &ack), 1));
	ack.transaction = 77;
	assert_true(told(&l, f, dhcp(f, other, &ack), 1));
	assert_true(has4(&l, 0x0a000009));
	/* What the client says by ARP does not make the lease longer. */
	assert_false(hear(&l, f, arp(f, guest, guest, 1, 0x0a000009), 2));
	assert_true(net_learner_age(&l, 600 * SECOND + 1));
	assert_int_equal(l.count, 0);
}

static void test_another_lease_and_release(void **state)
{
	struct net_learner l = { 0 };
	struct bootp ask = { 1, 3, 1, 0, 0, 0 }, ack = { 2, 5, 1, 0, 0x0a000009, UINT32_MAX };
	uint8_t f[512];

	(void)state;
	hear(&l, f, dhcp(f, guest, &ask), 1);
	assert_true(told(&l, f, dhcp(f, other, &ack), 1));
	hear(&l, f, dhcp(f, guest, &ask), 2);
	ack.yours = 0x0a00000a;
	assert_true(told(&l, f, dhcp(f, other, &ack), 2));
	assert_int_equal(l.count, 1);
	assert_true(has4(&l, 0x0a00000a));
	ask.message = 7;
	ask.client = 0x0a00000a;
	assert_true(hear(&l, f, dhcp(f, guest, &ask), 3));
	assert_int_equal(l.count, 0);
}

static void test_slaac_after_its_test(void **state)
{
	static const uint8_t none[16];
	struct net_learner l = { 0 };
	uint8_t f[512];

	(void)state;
	assert_false(hear(&l, f, nd(f, guest, 135, none, link_local), SECOND));
	assert_int_equal(l.count, 0);
	assert_int_equal(net_learner_next(&l), SECOND + NET_LEARN_TEST_NS);
	assert_false(net_learner_age(&l, SECOND));
	assert_true(net_learner_age(&l, SECOND + NET_LEARN_TEST_NS));
	assert_true(has(&l, AF_INET6, link_local, 16));
}

static void test_a_failed_test_teaches_nothing(void **state)
{
	static const uint8_t none[16];
	struct net_learner l = { 0 };
	uint8_t f[512];

	(void)state;
	hear(&l, f, nd(f, guest, 135, none, link_local), 1);
	assert_false(told(&l, f, nd(f, other, 136, link_local, link_local), 2));
	assert_false(net_learner_age(&l, 10 * SECOND));
	/* Two test at once: neither has it. */
	hear(&l, f, nd(f, guest, 135, none, link_local), 1);
	assert_false(told(&l, f, nd(f, other, 135, none, link_local), 2));
	assert_false(net_learner_age(&l, 10 * SECOND));
	/* Its own, come back to it, is no objection. */
	hear(&l, f, nd(f, guest, 135, none, link_local), 1);
	assert_false(told(&l, f, nd(f, guest, 135, none, link_local), 2));
	assert_true(net_learner_age(&l, 10 * SECOND));
}

static void test_neighbours_at_once(void **state)
{
	uint8_t global[16] = { 0xfd, [15] = 5 }, group[16] = { 0xff, 2, [15] = 1 };
	struct net_learner l = { 0 };
	uint8_t f[512];
	size_t n;

	(void)state;
	assert_true(hear(&l, f, nd(f, guest, 135, link_local, global), 1));
	assert_true(has(&l, AF_INET6, link_local, 16));
	assert_false(has(&l, AF_INET6, global, 16));
	assert_true(hear(&l, f, nd(f, guest, 136, link_local, global), 1));
	assert_true(has(&l, AF_INET6, global, 16));
	assert_false(hear(&l, f, nd(f, guest, 136, link_local, group), 1));
	global[15] = 6;
	n = nd(f, guest, 136, link_local, global);
	f[14 + 7] = 64; /* came from afar */
	assert_false(hear(&l, f, n, 1));
	assert_int_equal(l.count, 2);
}

static void test_tags_are_passed(void **state)
{
	struct net_learner l = { 0 };
	uint8_t f[512], tagged[512];
	size_t n = arp(f, guest, guest, 1, 0x0a000005);

	(void)state;
	memcpy(tagged, f, 12);
	memcpy(tagged + 12, "\x81\x00\x00\x0a", 4);
	memcpy(tagged + 16, f + 12, n - 12);
	assert_true(hear(&l, tagged, n + 4, 1));
	assert_true(has4(&l, 0x0a000005));
}

static void test_what_is_kept_is_bounded(void **state)
{
	static const uint8_t none[16];
	struct net_learner l = { 0 };
	uint8_t f[512], a[16] = { 0xfd };

	(void)state;
	for (unsigned i = 1; i < 1000; i++) {
		hear(&l, f, arp(f, guest, guest, 1, 0x0a000000 + i), i);
		a[14] = (uint8_t)(i >> 8);
		a[15] = (uint8_t)i;
		hear(&l, f, nd(f, guest, 135, none, a), i);
	}
	assert_int_equal(l.count, NET_LEARN_MAX);
	assert_int_equal(l.tested_count, NET_LEARN_TESTED);
	assert_true(has4(&l, 0x0a000000 + 999));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_static_address_by_arp),
		cmocka_unit_test(test_arp_of_others_and_probes_teach_nothing),
		cmocka_unit_test(test_dhcp_ack_to_who_asked),
		cmocka_unit_test(test_another_lease_and_release),
		cmocka_unit_test(test_slaac_after_its_test),
		cmocka_unit_test(test_a_failed_test_teaches_nothing),
		cmocka_unit_test(test_neighbours_at_once),
		cmocka_unit_test(test_tags_are_passed),
		cmocka_unit_test(test_what_is_kept_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
