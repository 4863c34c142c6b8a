// SPDX-License-Identifier: MIT
/* The bus with a scripted guest and an echo device: every version, resets, limits, lies. */
#include "vmbus/internal.h"
#include "vmbus/testing.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A device that answers each packet with its payload, and may keep its close for later. */
struct echo {
	struct vmbus_channel *primary, *closing;
	unsigned opens, closes, resets, subs, bad;
	bool hold_close;
	uint32_t range_bytes;
};

static int echo_open(void *device, struct vmbus_channel *ch)
{
	struct echo *e = device;

	e->opens++;
	if (vmbus_channel_index(ch) == 0 && e->subs)
		vmbus_channel_offer_subs(ch, e->subs);
	return 0;
}

static void echo_close(void *device, struct vmbus_channel *ch)
{
	struct echo *e = device;

	e->closes++;
	if (e->hold_close)
		e->closing = ch;
	else
		vmbus_channel_closed(ch);
}

static void echo_signal(void *device, struct vmbus_channel *ch)
{
	struct echo *e = device;
	struct vmbus_packet p;
	int n;

	while ((n = vmbus_receive(ch, &p)) > 0) {
		uint8_t copy[VMBUS_MAX_PACKET];
		struct iovec iov[64];
		unsigned count;

		if (p.type == VMBUS_PACKET_GPA_DIRECT &&
		    vmbus_packet_iov(ch, &p, 0, iov, 64, &count, &e->range_bytes) < 0)
			e->bad++;
		memcpy(copy, p.payload, p.size);
		if (vmbus_send(ch, VMBUS_PACKET_COMPLETION, p.transaction_id, copy, p.size) < 0)
			e->bad++;
	}
	if (n < 0)
		e->bad++;
}

static void echo_reset(void *device)
{
	((struct echo *)device)->resets++;
}

static const struct vmbus_device_type echo_type = {
	.name = "echo",
	.interface = GUID(0x11111111, 0x2222, 0x3333, 1, 2, 3, 4, 5, 6, 7, 8),
	.open = echo_open,
	.close = echo_close,
	.signal = echo_signal,
	.reset = echo_reset,
};

static struct test_guest *make(struct echo *e, unsigned devices, uint32_t max_version)
{
	struct test_guest *g = test_guest_new(2, max_version, 0);

	for (unsigned i = 0; i < devices; i++) {
		struct vmbus_offer_options o = { .instance.b[0] = (uint8_t)i };

		assert_int_equal(vmbus_device_offer(g->bus, &echo_type, e, &o, &e->primary, NULL),
				 0);
	}
	return g;
}

static void check_echo(struct test_channel *c)
{
	uint8_t out[24], back[64];

	memset(out, 0x5a, sizeof(out));
	assert_int_equal(test_channel_request(c, 77, out, sizeof(out)), 0);
	assert_int_equal(test_channel_receive(c, back, sizeof(back)), 16 + sizeof(out));
	assert_memory_equal(back + 16, out, sizeof(out));
	assert_int_equal(back[8], 77);
}

static const uint32_t all_versions[] = {
	VERSION_WIN8,       VERSION_WIN8_1,     VERSION_WIN10,
	VERSION_WIN10_V4_1, VERSION_WIN10_V5,   VERSION_WIN10_V5_1,
	VERSION_WIN10_V5_2, VERSION_WIN10_V5_3, VERSION_COPPER,
};

static void test_every_version(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(all_versions); i++) {
		struct echo e = { 0 };
		struct test_guest *g = make(&e, 1, all_versions[i]);
		struct test_channel c;

		/* What is newer than the cap is refused, one way or the other. */
		if (i + 1 < ARRAY_SIZE(all_versions))
			assert_false(test_guest_connect(g, all_versions[i + 1]));
		assert_false(test_guest_connect(g, VMBUS_VERSION(0, 13)));
		assert_true(test_guest_connect(g, all_versions[i]));
		assert_int_equal(vmbus_version(g->bus), all_versions[i]);
		test_guest_request_offers(g);
		assert_int_equal(g->offer_count, 1);
		assert_true(test_channel_open(g, &g->offers[0], 4, &c));
		check_echo(&c);
		test_channel_close(&c);
		assert_int_equal(e.closes, 1);
		assert_int_equal(vmbus_counters(g->bus).gpadls, 0);
		test_guest_free(g);
	}
}

static void test_contact_resets_a_connection_in_use(void **state)
{
	struct echo e = { .hold_close = true };
	struct test_guest *g = make(&e, 2, 0);
	struct test_channel c;

	(void)state;
	assert_true(test_guest_connect(g, VERSION_WIN10_V5_3));
	test_guest_request_offers(g);
	assert_true(test_channel_open(g, &g->offers[1], 4, &c));
	/* No answer before the device has let go of the rings. */
	assert_false(test_guest_connect(g, VERSION_WIN10));
	assert_int_equal(e.closes, 1);
	vmbus_channel_closed(e.closing);
	e.hold_close = false;
	test_guest_pump(g);
	assert_int_equal(vmbus_version(g->bus), VERSION_WIN10);
	test_guest_request_offers(g);
	assert_int_equal(g->offer_count, 2);
	ring_deinit(&c.in);
	ring_deinit(&c.out);
	assert_true(test_channel_open(g, &g->offers[0], 4, &c));
	check_echo(&c);
	ring_deinit(&c.in);
	ring_deinit(&c.out);
	test_guest_free(g);
	assert_int_equal(e.resets, 2);
}

static void test_sub_channels(void **state)
{
	struct echo e = { .subs = 3 };
	struct test_guest *g = make(&e, 1, 0);
	struct test_channel c, sub;
	struct vmbus_relid_message released = {
		.header.type = le32_of(CHANNELMSG_RELID_RELEASED),
	};

	(void)state;
	assert_true(test_guest_connect(g, VERSION_WIN10_V5_3));
	test_guest_request_offers(g);
	assert_true(test_channel_open(g, &g->offers[0], 4, &c));
	test_guest_take_offers(g);
	assert_int_equal(g->offer_count, 4);
	assert_int_equal(le16_get(g->offers[3].sub_channel_index), 3);
	assert_true(test_channel_open(g, &g->offers[2], 4, &sub));
	check_echo(&sub);
	check_echo(&c);
	test_channel_close(&c);
	assert_int_equal(e.closes, 2); /* the primary takes its sub-channels along */
	for (int i = 1; i < 4; i++) {
		released.child_relid = g->offers[i].child_relid;
		test_guest_post(g, VMBUS_MESSAGE_CONNECTION_ID, &released, sizeof(released));
		assert_null(channel_find(g->bus, le32_get(g->offers[i].child_relid)));
	}
	ring_deinit(&sub.in);
	ring_deinit(&sub.out);
	assert_true(test_channel_open(g, &g->offers[0], 4, &c));
	check_echo(&c);
	ring_deinit(&c.in);
	ring_deinit(&c.out);
	test_guest_free(g);
}

static unsigned rescinds;

static void on_rescinded(void *device)
{
	(void)device;
	rescinds++;
}

static void test_hot_removal(void **state)
{
	struct echo e = { .subs = 2 };
	struct test_guest *g = make(&e, 1, 0);
	struct vmbus_relid_message released = {
		.header.type = le32_of(CHANNELMSG_RELID_RELEASED),
	};
	struct test_channel c;

	(void)state;
	rescinds = 0;
	assert_true(test_guest_connect(g, VERSION_WIN10));
	test_guest_request_offers(g);
	assert_true(test_channel_open(g, &g->offers[0], 4, &c));
	test_guest_take_offers(g);
	vmbus_device_rescind(e.primary, on_rescinded);
	assert_int_equal(e.closes, 1);
	assert_int_equal(rescinds, 0);
	for (int i = 0; i < 3; i++) { /* the primary before its sub-channels */
		released.child_relid = g->offers[i].child_relid;
		test_guest_post(g, VMBUS_MESSAGE_CONNECTION_ID, &released, sizeof(released));
	}
	assert_int_equal(rescinds, 1);
	assert_true(list_empty(&g->bus->channels));
	ring_deinit(&c.in);
	ring_deinit(&c.out);
	test_guest_free(g);
}

static void test_gpa_direct(void **state)
{
	struct echo e = { 0 };
	struct test_guest *g = make(&e, 1, 0);
	struct test_channel c;
	uint8_t payload[16] = { 1 }, back[64];
	uint64_t bad[4] = { 0 };

	(void)state;
	assert_true(test_guest_connect(g, VERSION_WIN10));
	test_guest_request_offers(g);
	assert_true(test_channel_open(g, &g->offers[0], 4, &c));
	assert_int_equal(test_channel_request_gpa(&c, 5, payload, 16, 0x300100, 10000), 0);
	assert_int_equal(test_channel_receive(&c, back, sizeof(back)), 32);
	assert_int_equal(e.range_bytes, 10000);
	assert_int_equal(e.bad, 0);
	assert_int_equal(test_channel_request_gpa(&c, 5, payload, 16, TEST_GUEST_RAM - 1, 2), 0);
	test_guest_pump(g);
	assert_int_equal(e.bad, 1);
	/* A range list that promises more than there is. */
	bad[0] = 7ull << 32;
	bad[1] = 0xffffffff;
	assert_int_equal(test_channel_send(&c, VMBUS_PACKET_GPA_DIRECT, 5, bad, 32, 24), 0);
	test_guest_pump(g);
	assert_int_equal(e.bad, 2);
	ring_deinit(&c.in);
	ring_deinit(&c.out);
	test_guest_free(g);
}

/* Messages of every type and every length, in every state: counted, and nothing else happens. */
static void test_garbage_messages(void **state)
{
	struct echo e = { 0 };
	struct test_guest *g = make(&e, 1, 0);
	uint8_t m[240];

	(void)state;
	for (int pass = 0; pass < 2; pass++) {
		for (uint32_t type = 0; type < 32; type++)
			for (size_t size = 0; size <= 240; size += 4) {
				struct writer w = writer_of(m, sizeof(m));
				uint8_t drop[240];

				if (type == CHANNELMSG_UNLOAD ||
				    type == CHANNELMSG_INITIATE_CONTACT)
					continue;
				memset(m, 0xff, sizeof(m));
				writer_le32(&w, type);
				test_guest_post(g, 1, m, size);
				while (test_guest_receive(g, 0, drop))
					;
			}
		assert_int_equal(e.opens, 0);
		assert_int_equal(vmbus_counters(g->bus).gpadls, 0);
		assert_true(test_guest_connect(g, VERSION_WIN10_V5_3));
	}
	assert_true(vmbus_counters(g->bus).bad_messages > 1000);
	test_guest_free(g);
}

static void test_gpadl_limits(void **state)
{
	struct echo e = { 0 };
	struct test_guest *g = make(&e, 1, 0);
	uint32_t relid;
	uint8_t m[28], drop[240];
	unsigned pages;

	(void)state;
	assert_true(test_guest_connect(g, VERSION_WIN10_V5_3));
	test_guest_request_offers(g);
	relid = le32_get(g->offers[0].child_relid);
	/* Headers that are never completed: charged until the limit, then refused. */
	for (uint32_t id = 1; id < 200; id++) {
		struct writer w = writer_of(m, sizeof(m));

		writer_le32(&w, CHANNELMSG_GPADL_HEADER);
		writer_le32(&w, 0);
		writer_le32(&w, relid);
		writer_le32(&w, id);
		writer_le16(&w, 0xfff8);
		writer_le16(&w, 1);
		writer_le64(&w, 8190 * 4096);
		test_guest_post(g, 1, m, sizeof(m));
		while (test_guest_receive(g, 0, drop))
			;
	}
	pages = (unsigned)vmbus_counters(g->bus).gpadl_pages;
	assert_true(pages <= VMBUS_MAX_GPADL_PAGES && pages > VMBUS_MAX_GPADL_PAGES - 8192);
	assert_true(test_guest_connect(g, VERSION_WIN10_V5_3));
	assert_int_equal(vmbus_counters(g->bus).gpadl_pages, 0);
	test_guest_free(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_version),
		cmocka_unit_test(test_contact_resets_a_connection_in_use),
		cmocka_unit_test(test_sub_channels),
		cmocka_unit_test(test_hot_removal),
		cmocka_unit_test(test_gpa_direct),
		cmocka_unit_test(test_garbage_messages),
		cmocka_unit_test(test_gpadl_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
