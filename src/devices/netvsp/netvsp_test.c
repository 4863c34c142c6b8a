// SPDX-License-Identifier: MIT
/*
 * The adapter's protocol over the real bus with a scripted guest: versions, buffers, object
 * identifiers, the link, sub-channels, a hostile guest, closing and resetting in the middle. What
 * happens to frames is in netvsp_data_test.c.
 */
#include "devices/netvsp/netvsp_testing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const uint32_t all_versions[] = {
	NVSP_PROTOCOL_VERSION_61, NVSP_PROTOCOL_VERSION_6, NVSP_PROTOCOL_VERSION_5,
	NVSP_PROTOCOL_VERSION_4,  NVSP_PROTOCOL_VERSION_2, NVSP_PROTOCOL_VERSION_1,
};

static struct net_bed *ready(unsigned vps)
{
	struct net_bed *b = net_bed_new(vps, &(struct netvsp_options){ 0 });

	net_bed_ready(b, NVSP_PROTOCOL_VERSION_61, 1514);
	return b;
}

/* --- versions --- */

static void test_versions(void **state)
{
	(void)state;
	for (size_t cap = 0; cap < ARRAY_SIZE(all_versions); cap++) {
		struct netvsp_options o = { .max_version = all_versions[cap] };
		struct net_bed *b = net_bed_new(1, &o);

		for (size_t i = 0; i < cap; i++) {
			assert_false(net_bed_init(b, all_versions[i]));
			assert_int_equal(netvsp_state(b->n).version, 0);
		}
		assert_false(net_bed_init(b, 0x30001));
		assert_true(net_bed_init(b, all_versions[cap]));
		assert_int_equal(netvsp_state(b->n).version, all_versions[cap]);
		assert_int_equal(b->size, cap ? 32 : 40); /* a multiple of 8 from 28 or 40 */
		assert_false(net_bed_init(b, all_versions[cap])); /* once */
		net_bed_free(b);
	}
}

static void test_version_ranges(void **state)
{
	struct nvsp_message m = { .type = le32_of(NVSP_MSG_TYPE_INIT),
				  .init.min_protocol_ver = le32_of(NVSP_PROTOCOL_VERSION_2),
				  .init.max_protocol_ver = le32_of(NVSP_PROTOCOL_VERSION_5 + 7) };
	struct net_bed *b = net_bed_new(1, &(struct netvsp_options){ 0 });

	(void)state;
	net_bed_ask(b, &m);
	assert_int_equal(le32_get(b->m.init_complete.negotiated_protocol_ver),
			 NVSP_PROTOCOL_VERSION_5);
	assert_string_equal(netvsp_version_name(NVSP_PROTOCOL_VERSION_61), "6.1");
	assert_int_equal(netvsp_version_find("4"), NVSP_PROTOCOL_VERSION_4);
	assert_int_equal(netvsp_version_find("3"), 0);
	net_bed_free(b);
}

static void test_each_version_reaches_rndis(void **state)
{
	uint32_t mtu;
	size_t size;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(all_versions); i++) {
		struct net_bed *b = net_bed_new(1, &(struct netvsp_options){ 0 });

		net_bed_ready(b, all_versions[i], 9014);
		size = 4;
		assert_int_equal(net_bed_query(b, OID_GEN_MAXIMUM_FRAME_SIZE, &mtu, &size), 0);
		/* Version 1 cannot ask for more than Ethernet's. */
		assert_int_equal(mtu, all_versions[i] == NVSP_PROTOCOL_VERSION_1 ? 1500 : 9000);
		assert_true(b->section_size >= mtu + 14 + 4 + 108);
		assert_int_equal(b->section_size % 64, 0);
		net_bed_free(b);
	}
}

static void test_options(void **state)
{
	struct test_guest *g = test_guest_new(1, 0, 0);
	struct netvsp_options o = { .mac = { 2 }, .max_version = 0x30001 };
	struct error err = { 0 };
	struct netvsp *n;

	(void)state;
	assert_int_equal(netvsp_new(g->loop, &o, &n, &err), -22);
	o.max_version = 0;
	o.max_channels = 65;
	assert_int_equal(netvsp_new(g->loop, &o, &n, &err), -22);
	o.max_channels = 0;
	o.mac[0] = 1;
	assert_int_equal(netvsp_new(g->loop, &o, &n, &err), -22);
	o.mac[0] = 0;
	assert_int_equal(netvsp_new(g->loop, &o, &n, &err), -22);
	test_guest_free(g);
}

/* --- buffers --- */

static void test_buffers_come_back(void **state)
{
	struct nvsp_message revoke = { .type = le32_of(NVSP_MSG1_TYPE_REVOKE_RECV_BUF),
				       .buffer.gpadl_handle = le32_of(BED_RECEIVE_ID) };
	struct net_bed *b = ready(1);
	uint8_t teardown[16] = { CHANNELMSG_GPADL_TEARDOWN }, message[240];
	unsigned gpadls = vmbus_counters(b->g->bus).gpadls;

	(void)state;
	memcpy(teardown + 8, &b->ch[0].relid, 4);
	memcpy(teardown + 12, &b->receive_gpadl, 4);
	test_guest_post(b->g, VMBUS_MESSAGE_CONNECTION_ID, teardown, sizeof(teardown));
	/* Lent: not torn down before it is revoked. */
	assert_int_equal(test_guest_receive(b->g, 0, message), 0);
	net_bed_ask(b, &revoke);
	assert_true(test_guest_receive(b->g, 0, message) > 0);
	assert_int_equal(message[0], CHANNELMSG_GPADL_TORNDOWN);
	assert_int_equal(netvsp_state(b->n).sections, 0);
	assert_int_equal(vmbus_counters(b->g->bus).gpadls, gpadls - 1);
	/* Another one, and the send buffer as well. */
	assert_int_equal(net_bed_receive_buffer(b, 32), NVSP_STAT_SUCCESS);
	revoke.type = le32_of(NVSP_MSG1_TYPE_REVOKE_SEND_BUF);
	net_bed_ask(b, &revoke);
	assert_int_equal(net_bed_send_buffer(b, 8), NVSP_STAT_SUCCESS);
	net_bed_free(b);
}

static void test_bad_buffers(void **state)
{
	struct nvsp_message m = { .type = le32_of(NVSP_MSG1_TYPE_SEND_RECV_BUF),
				  .buffer.gpadl_handle = le32_of(4711) };
	struct net_bed *b = net_bed_new(1, &(struct netvsp_options){ 0 });

	(void)state;
	net_bed_ask(b, &m); /* before INIT */
	assert_int_equal(le32_get(b->m.status), NVSP_STAT_FAIL);
	assert_true(net_bed_init(b, NVSP_PROTOCOL_VERSION_5));
	net_bed_ask(b, &m); /* no such GPADL */
	assert_int_equal(le32_get(b->m.receive_buffer.status), NVSP_STAT_FAIL);
	m.buffer.gpadl_handle = le32_of(b->ch[0].gpadl); /* the rings' */
	net_bed_ask(b, &m);
	assert_int_equal(le32_get(b->m.receive_buffer.status), NVSP_STAT_FAIL);
	/* Too small for anything. */
	assert_int_equal(net_bed_receive_buffer(b, 1), NVSP_STAT_FAIL);
	assert_int_equal(net_bed_receive_buffer(b, 16), NVSP_STAT_SUCCESS);
	assert_int_equal(net_bed_receive_buffer(b, 16), NVSP_STAT_FAIL); /* one is enough */
	/* The same memory in both directions is the guest's own affair. */
	m.type = le32_of(NVSP_MSG1_TYPE_SEND_SEND_BUF);
	m.buffer.gpadl_handle = le32_of(b->receive_gpadl);
	net_bed_ask(b, &m);
	assert_int_equal(le32_get(b->m.send_buffer.status), NVSP_STAT_SUCCESS);
	assert_int_equal(net_bed_send_buffer(b, 16), NVSP_STAT_FAIL);
	net_bed_free(b);
}

/* --- requests --- */

static void test_queries(void **state)
{
	static const struct {
		uint32_t oid, value;
	} values[] = {
		{ OID_GEN_HARDWARE_STATUS, 0 },       { OID_GEN_MEDIA_SUPPORTED, 0 },
		{ OID_GEN_MEDIA_IN_USE, 0 },          { OID_GEN_MAXIMUM_LOOKAHEAD, 1500 },
		{ OID_GEN_MAXIMUM_FRAME_SIZE, 1500 }, { OID_GEN_MAXIMUM_TOTAL_SIZE, 1514 },
		{ OID_GEN_LINK_SPEED, 100000000 }, /* 10 Gb/s */
		{ OID_GEN_MEDIA_CONNECT_STATUS, 0 },  { OID_GEN_CURRENT_PACKET_FILTER, 13 },
		{ OID_802_3_MAXIMUM_LIST_SIZE, 32 },  { OID_802_3_RCV_ERROR_ALIGNMENT, 0 },
	};
	struct net_bed *b = net_bed_new(4, &(struct netvsp_options){ .name = "Adapter \xc3\xa4" });
	uint8_t big[1024];
	size_t size;
	le32 value;

	(void)state;
	net_bed_ready(b, NVSP_PROTOCOL_VERSION_61, 1514);
	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		size = sizeof(value);
		assert_int_equal(net_bed_query(b, values[i].oid, &value, &size), 0);
		assert_int_equal(size, 4);
		assert_int_equal(le32_get(value), values[i].value);
	}
	size = sizeof(big);
	assert_int_equal(net_bed_query(b, OID_802_3_PERMANENT_ADDRESS, big, &size), 0);
	assert_int_equal(size, 6);
	assert_memory_equal(big, net_bed_mac, 6);
	size = sizeof(big);
	assert_int_equal(net_bed_query(b, OID_GEN_FRIENDLY_NAME, big, &size), 0);
	assert_int_equal(size, 512);
	assert_memory_equal(big, "A\0d\0a\0p\0t\0e\0r\0 \0\xe4\0\0\0", 20);
	size = sizeof(big);
	assert_int_equal(net_bed_query(b, OID_GEN_LINK_STATE, big, &size), 0);
	assert_int_equal(size, 40);
	assert_int_equal(big[4], 1);
	size = sizeof(big);
	assert_int_equal(net_bed_query(b, OID_GEN_RECEIVE_SCALE_CAPABILITIES, big, &size), 0);
	assert_int_equal(size, 18);
	assert_int_equal(big[12], 4); /* queues: one for each VP */
	assert_int_equal(big[16], 128);
	net_bed_free(b);
}

/* Every identifier that is listed has a value or can be set, and no other one. */
static void test_the_list(void **state)
{
	struct net_bed *b = ready(1);
	le32 list[128];
	size_t size = sizeof(list), count;
	uint8_t big[1024];

	(void)state;
	assert_int_equal(net_bed_query(b, OID_GEN_SUPPORTED_LIST, list, &size), 0);
	count = size / 4;
	assert_true(count > 40);
	for (size_t i = 0; i < count; i++) {
		uint32_t oid = le32_get(list[i]);
		bool has;

		size = sizeof(big);
		has = net_bed_query(b, oid, big, &size) == 0;
		assert_true(has || net_bed_set(b, oid, NULL, 0) != RNDIS_STATUS_INVALID_OID.value);
	}
	size = sizeof(big);
	assert_int_equal(net_bed_query(b, 0x12345678, big, &size), RNDIS_STATUS_INVALID_OID.value);
	assert_int_equal(size, 0);
	assert_int_equal(net_bed_set(b, 0x12345678, big, 4), RNDIS_STATUS_INVALID_OID.value);
	assert_int_equal(net_bed_set(b, OID_GEN_MAXIMUM_FRAME_SIZE, big, 4),
			 RNDIS_STATUS_NOT_SUPPORTED.value);
	size = sizeof(big);
	assert_int_equal(net_bed_query(b, OID_GEN_RECEIVE_SCALE_PARAMETERS, big, &size),
			 RNDIS_STATUS_NOT_SUPPORTED.value);
	net_bed_free(b);
}

static void test_offload_revisions(void **state)
{
	static const struct {
		uint32_t version;
		unsigned revision, size;
	} cases[] = {
		{ NVSP_PROTOCOL_VERSION_1, 2, 144 },
		{ NVSP_PROTOCOL_VERSION_4, 2, 144 },
		{ NVSP_PROTOCOL_VERSION_5, 3, 156 },
		{ NVSP_PROTOCOL_VERSION_61, 3, 156 },
	};
	struct ndis_offload o;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct net_bed *b = net_bed_new(1, &(struct netvsp_options){ 0 });
		size_t size = sizeof(o);

		memset(&o, 0, sizeof(o));
		net_bed_ready(b, cases[i].version, 1514);
		assert_int_equal(net_bed_query(b, OID_TCP_OFFLOAD_HARDWARE_CAPABILITIES, &o, &size),
				 0);
		assert_int_equal(size, cases[i].size);
		assert_int_equal(le16_get(o.header.size), cases[i].size);
		assert_int_equal(o.header.revision, cases[i].revision);
		assert_int_equal(le32_get(o.ip4_tx), 0x155);
		assert_int_equal(le32_get(o.lso2_ip6_options), 5);
		assert_int_equal(o.rsc_ip4, cases[i].version == NVSP_PROTOCOL_VERSION_61);
		net_bed_free(b);
	}
}

static void test_sets(void **state)
{
	struct net_bed *b = ready(1);
	uint8_t list[33 * 6] = { 1, 0, 0x5e, 0, 0, 1 }, back[256];
	size_t size = sizeof(back);

	(void)state;
	assert_int_equal(net_bed_set(b, OID_GEN_CURRENT_PACKET_FILTER, list, 2),
			 RNDIS_STATUS_INVALID_LENGTH.value);
	assert_int_equal(net_bed_set(b, OID_802_3_MULTICAST_LIST, list, 12), 0);
	assert_int_equal(net_bed_query(b, OID_802_3_MULTICAST_LIST, back, &size), 0);
	assert_int_equal(size, 12);
	assert_memory_equal(back, list, 12);
	assert_int_equal(net_bed_set(b, OID_802_3_MULTICAST_LIST, list, 7),
			 RNDIS_STATUS_INVALID_LENGTH.value);
	assert_int_equal(net_bed_set(b, OID_802_3_MULTICAST_LIST, list, sizeof(list)),
			 RNDIS_STATUS_MULTICAST_FULL.value);
	assert_int_equal(net_bed_set(b, OID_TCP_OFFLOAD_PARAMETERS, list, 19),
			 RNDIS_STATUS_INVALID_LENGTH.value);
	net_bed_free(b);
}

static uint32_t set_address(struct net_bed *b, const char *name, const char *address, uint32_t type)
{
	uint8_t p[256];
	struct writer w = writer_of(p, sizeof(p));

	writer_le32(&w, 20);
	writer_le32(&w, (uint32_t)(2 * strlen(name)));
	writer_le32(&w, type);
	writer_le32(&w, (uint32_t)(20 + 2 * strlen(name)));
	writer_le32(&w, (uint32_t)(2 * strlen(address)));
	for (const char *c = name; *c; c++)
		writer_le16(&w, (uint8_t)*c);
	for (const char *c = address; *c; c++)
		writer_le16(&w, (uint8_t)*c);
	return net_bed_set(b, OID_GEN_RNDIS_CONFIG_PARAMETER, p, w.at);
}

static void test_address(void **state)
{
	static const uint8_t other[] = { 0x02, 0xab, 0xcd, 0xef, 0x01, 0x23 };
	struct net_bed *b = ready(1);
	uint8_t mac[6];
	size_t size = 6;

	(void)state;
	/* Not without being allowed to; its own is fine. */
	assert_int_equal(set_address(b, "NetworkAddress", "02ABcdEF0123", 2),
			 RNDIS_STATUS_NOT_SUPPORTED.value);
	assert_int_equal(set_address(b, "NetworkAddress", "00155d010203", 2), 0);
	net_bed_free(b);
	b = net_bed_new(1, &(struct netvsp_options){ .mac_changes = true });
	net_bed_ready(b, NVSP_PROTOCOL_VERSION_5, 1514);
	assert_int_equal(set_address(b, "NetworkAddress", "02ABcdEF0123", 2), 0);
	assert_int_equal(net_bed_query(b, OID_802_3_CURRENT_ADDRESS, mac, &size), 0);
	assert_memory_equal(mac, other, 6);
	size = 6;
	assert_int_equal(net_bed_query(b, OID_802_3_PERMANENT_ADDRESS, mac, &size), 0);
	assert_memory_equal(mac, net_bed_mac, 6);
	assert_int_equal(set_address(b, "NetworkAddress", "02ABcdEF0123", 0),
			 RNDIS_STATUS_INVALID_DATA.value);
	assert_int_equal(set_address(b, "NetworkAddress", "02ABcdEF012", 2),
			 RNDIS_STATUS_INVALID_DATA.value);
	assert_int_equal(set_address(b, "NetworkAddress", "01ABcdEF0123", 2),
			 RNDIS_STATUS_INVALID_DATA.value);
	assert_int_equal(set_address(b, "Netw", "02ABcdEF0123", 2),
			 RNDIS_STATUS_NOT_SUPPORTED.value);
	net_bed_free(b);
}

static void test_other_requests(void **state)
{
	uint8_t keepalive[12] = { RNDIS_MSG_KEEPALIVE, 0, 0, 0, 12, 0, 0, 0, 9 };
	uint8_t reset[12] = { RNDIS_MSG_RESET, 0, 0, 0, 12 };
	uint8_t halt[12] = { RNDIS_MSG_HALT, 0, 0, 0, 12 };
	uint8_t set_ex[28] = { RNDIS_MSG_SET_EX, 0, 0, 0, 28 };
	uint8_t answer[64];
	struct net_bed *b = ready(1);

	(void)state;
	assert_int_equal(net_bed_send(b, 0, 1, keepalive, 12), NVSP_STAT_SUCCESS);
	assert_int_equal(net_bed_rndis(b, 0, answer, 64), 16);
	assert_memory_equal(answer, "\x08\0\0\x80\x10\0\0\0\x09\0\0\0\0\0\0\0", 16);
	assert_int_equal(net_bed_send(b, 0, 1, reset, 12), NVSP_STAT_SUCCESS);
	assert_int_equal(net_bed_rndis(b, 0, answer, 64), 16);
	assert_int_equal(net_bed_send(b, 0, 1, set_ex, 28), NVSP_STAT_SUCCESS);
	assert_int_equal(net_bed_rndis(b, 0, answer, 64), 24);
	assert_int_equal(net_bed_send(b, 0, 1, halt, 12), NVSP_STAT_SUCCESS);
	assert_false(net_bed_take(b, 0));
	assert_int_equal(netvsp_state(b->n).filter, 0);
	/* After that there is nothing but a new beginning. */
	assert_int_equal(net_bed_send(b, 0, 1, set_ex, 28), NVSP_STAT_INVALID_RNDIS_PKT);
	net_bed_free(b);
}

static void test_bad_requests(void **state)
{
	uint8_t query[28] = { RNDIS_MSG_QUERY, 0, 0, 0, 28 }, answer[1024],
		unknown[8] = { 99, 0, 0, 0, 8 };
	struct net_bed *b = ready(2);
	struct nvsp_message m = { .type = le32_of(NVSP_MSG5_TYPE_SUBCHANNEL),
				  .subchannel.operation = le32_of(1),
				  .subchannel.num_subchannels = le32_of(1) };

	(void)state;
	assert_int_equal(net_bed_send(b, 0, 1, unknown, 8), NVSP_STAT_INVALID_RNDIS_PKT);
	query[4] = 24; /* too short for a query */
	assert_int_equal(net_bed_send(b, 0, 1, query, 24), NVSP_STAT_INVALID_RNDIS_PKT);
	query[4] = 29; /* longer than what there is */
	assert_int_equal(net_bed_send(b, 0, 1, query, 28), NVSP_STAT_INVALID_RNDIS_PKT);
	query[4] = 28;
	query[16] = 4; /* 4 bytes at an offset that is not there */
	query[20] = 24;
	assert_int_equal(net_bed_send(b, 0, 1, query, 28), NVSP_STAT_SUCCESS);
	assert_int_equal(net_bed_rndis(b, 0, answer, 1024), 24);
	assert_int_equal(answer[12], 0x15); /* INVALID_DATA */
	query[20] = 0xff;
	query[21] = query[22] = query[23] = 0xff;
	assert_int_equal(net_bed_send(b, 0, 1, query, 28), NVSP_STAT_SUCCESS);
	assert_int_equal(net_bed_rndis(b, 0, answer, 1024), 24);
	/* Requests belong on the primary. */
	net_bed_ask(b, &m);
	test_guest_take_offers(b->g);
	assert_true(net_bed_open(b, 1));
	query[16] = query[20] = query[21] = query[22] = query[23] = 0;
	assert_true(net_bed_take(b, 0)); /* the send table */
	assert_int_equal(net_bed_send(b, 1, 1, query, 28), NVSP_STAT_FAIL);
	net_bed_free(b);
}

/* A guest that asks and never reads gets refusals, and its completions are heard all the same. */
static void test_answers_are_bounded(void **state)
{
	uint8_t query[28] = { RNDIS_MSG_QUERY, 0, 0, 0, 28 };
	struct nvsp_message m = { .type = le32_of(NVSP_MSG1_TYPE_SEND_RNDIS_PKT),
				  .rndis.channel_type = le32_of(1),
				  .rndis.send_buf_section_index = le32_of(0),
				  .rndis.send_buf_section_size = le32_of(28) };
	struct nvsp_message revoke = { .type = le32_of(NVSP_MSG1_TYPE_REVOKE_RECV_BUF) };
	struct net_bed *b = ready(1);
	unsigned sent = 200, answers = 0, busy = 0;

	(void)state;
	net_bed_ask(b, &revoke);
	assert_int_equal(net_bed_receive_buffer(b, 4), NVSP_STAT_SUCCESS);
	assert_int_equal(b->section_count, 9);
	assert_int_equal(gmem_write(b->g->gm, b->send_gpa, query, 28), 0);
	for (unsigned i = 0; i < sent; i++)
		assert_int_equal(test_channel_request(&b->ch[0], 5, &m, sizeof(m)), 0);
	test_guest_pump(b->g);
	test_guest_pump(b->g);
	for (int i = 0; i < 1000; i++) {
		if (!net_bed_take(b, 0))
			continue;
		if (b->type == VMBUS_PACKET_TRANSFER_PAGES) {
			answers++;
			net_bed_complete(b, 0, b->transaction);
		} else if (le32_get(b->m.status) == NVSP_STAT_BUSY) {
			busy++;
		}
	}
	assert_in_range(answers, 16, 9 + 16);
	assert_int_equal(busy, sent - answers);
	assert_int_equal(netvsp_state(b->n).sections, netvsp_state(b->n).sections_free);
	net_bed_free(b);
}

/* --- other messages --- */

static void test_malformed_messages(void **state)
{
	struct net_bed *b = ready(1);
	struct nvsp_message m = { .type = le32_of(999) };
	struct vmbus_packet_descriptor d = { .type = le16_of(VMBUS_PACKET_INBAND),
					     .offset8 = le16_of(2) };
	uint64_t refused = netvsp_counters(b->n).packets_refused;
	bool signal;

	(void)state;
	net_bed_ask(b, &m);
	assert_int_equal(le32_get(b->m.status), NVSP_STAT_FAIL);
	m.type = le32_of(NVSP_MSG1_TYPE_SEND_RECV_BUF);
	assert_int_equal(test_channel_request(&b->ch[0], 1, &m, 8), 0); /* too short */
	assert_true(net_bed_take(b, 0));
	m.type = le32_of(NVSP_MSG1_TYPE_SEND_RNDIS_PKT);
	assert_int_equal(test_channel_request(&b->ch[0], 1, &m, 8), 0);
	assert_true(net_bed_take(b, 0));
	assert_int_equal(le32_get(b->m.status), NVSP_STAT_FAIL);
	/* What wants no answer gets none. */
	assert_int_equal(ring_write(&b->ch[0].out, d, &m, sizeof(m), &signal), 0);
	test_channel_signal(&b->ch[0]);
	assert_false(net_bed_take(b, 0));
	/* Completions of what was never sent. */
	net_bed_complete(b, 0, 0);
	net_bed_complete(b, 0, 1);
	net_bed_complete(b, 0, UINT64_MAX);
	assert_false(net_bed_take(b, 0));
	assert_int_equal(netvsp_counters(b->n).packets_refused, refused + 5);
	assert_int_equal(netvsp_state(b->n).sections, netvsp_state(b->n).sections_free);
	net_bed_free(b);
}

static void test_what_there_is_not(void **state)
{
	struct net_bed *b = ready(1);
	struct nvsp_message m = { .type = le32_of(NVSP_MSG5_TYPE_OID_QUERY_EX) };

	(void)state;
	net_bed_ask(b, &m);
	assert_int_equal(le32_get(b->m.type), NVSP_MSG5_TYPE_OID_QUERY_EX_COMP);
	assert_int_equal(le32_get(b->m.oid.status), RNDIS_STATUS_NOT_SUPPORTED.value);
	m = (struct nvsp_message){ .type = le32_of(NVSP_MSG6_TYPE_PD_API),
				   .pd.operation = le32_of(3) };
	net_bed_ask(b, &m);
	assert_int_equal(le32_get(b->m.pd.operation), 3);
	assert_int_equal(le32_get(b->m.pd.status), 0xC00000BB);
	m = (struct nvsp_message){ .type = le32_of(NVSP_MSG4_TYPE_SWITCH_DATA_PATH) };
	net_bed_ask(b, &m);
	net_bed_free(b);
}

/* --- sub-channels --- */

static uint32_t ask_subs(struct net_bed *b, uint32_t count)
{
	const struct nvsp_message m = { .type = le32_of(NVSP_MSG5_TYPE_SUBCHANNEL),
					.subchannel.operation = le32_of(1),
					.subchannel.num_subchannels = le32_of(count) };

	net_bed_ask(b, &m);
	assert_int_equal(le32_get(b->m.type), NVSP_MSG5_TYPE_SUBCHANNEL);
	return le32_get(b->m.subchannel_complete.num_subchannels);
}

static void test_sub_channels(void **state)
{
	struct net_bed *b = ready(4);
	struct reader r;

	(void)state;
	assert_int_equal(ask_subs(b, 17), 3); /* one channel for each VP */
	test_guest_take_offers(b->g);
	assert_int_equal(ask_subs(b, 1), 0); /* once */
	assert_int_equal(le32_get(b->m.subchannel_complete.status), NVSP_STAT_FAIL);
	assert_true(net_bed_open(b, 2));
	assert_true(net_bed_open(b, 1));
	assert_false(net_bed_take(b, 0));
	assert_true(net_bed_open(b, 3));
	/* All are open: the guest is told where to send. */
	assert_true(net_bed_take(b, 0));
	assert_int_equal(le32_get(b->m.type), NVSP_MSG5_TYPE_SEND_INDIRECTION_TABLE);
	assert_int_equal(b->size, 40 + 64);
	assert_int_equal(le32_get(b->m.table.table_entry_count), 16);
	assert_int_equal(le32_get(b->m.table.table_offset), 40);
	r = reader_of(b->raw + 40, 64);
	for (uint32_t i = 0; i < 16; i++)
		assert_int_equal(reader_le32(&r), i % 4);
	assert_int_equal(netvsp_state(b->n).channels, 4);
	net_bed_free(b);
}

static void test_sub_channels_are_limited(void **state)
{
	struct net_bed *b = net_bed_new(4, &(struct netvsp_options){ .max_channels = 2 });

	(void)state;
	net_bed_ready(b, NVSP_PROTOCOL_VERSION_5, 1514);
	assert_int_equal(ask_subs(b, 3), 1);
	net_bed_free(b);
	b = net_bed_new(4, &(struct netvsp_options){ .max_version = NVSP_PROTOCOL_VERSION_4 });
	net_bed_ready(b, NVSP_PROTOCOL_VERSION_4, 1514);
	net_bed_ask(b, &(struct nvsp_message){ .type = le32_of(NVSP_MSG5_TYPE_SUBCHANNEL) });
	assert_int_equal(le32_get(b->m.status), NVSP_STAT_FAIL); /* not in version 4 */
	net_bed_free(b);
}

/* As Linux does when the MTU changes: the relids of the old sub-channels come back later. */
static void test_open_again_with_sub_channels(void **state)
{
	struct net_bed *b = ready(4);

	(void)state;
	for (unsigned round = 0; round < 3; round++) {
		assert_int_equal(ask_subs(b, 3), 3);
		test_guest_take_offers(b->g);
		for (unsigned i = 1; i < 4; i++)
			assert_true(net_bed_open(b, i));
		assert_true(net_bed_take(b, 0));
		for (unsigned i = 4; i--;) {
			test_channel_close(&b->ch[i]);
			b->open[i] = false;
		}
		assert_int_equal(netvsp_state(b->n).channels, 0);
		assert_int_equal(netvsp_state(b->n).version, 0);
		test_guest_take_offers(b->g);
		assert_true(net_bed_open(b, 0));
		net_bed_ready(b, NVSP_PROTOCOL_VERSION_61, 9014);
	}
	net_bed_free(b);
}

/* --- the link --- */

static void wait_for_timer(struct net_bed *b)
{
	for (int i = 0; i < 20; i++)
		assert_true(loop_once(b->g->loop, 50) >= 0);
}

/* The next indication; 0 when there is none. */
static uint32_t indicated(struct net_bed *b)
{
	uint8_t m[64] = { 0 };
	size_t size = net_bed_rndis(b, 0, m, sizeof(m));
	struct reader r = reader_of(m, size);

	if (!size)
		return 0;
	assert_int_equal(reader_le32(&r), RNDIS_MSG_INDICATE);
	assert_int_equal(reader_le32(&r), size);
	return reader_le32(&r);
}

static void test_link(void **state)
{
	struct net_bed *b = ready(1);
	uint32_t value;
	size_t size = 4;

	(void)state;
	assert_int_equal(indicated(b), 0);
	netvsp_disconnect(b->n);
	assert_int_equal(indicated(b), RNDIS_STATUS_MEDIA_DISCONNECT);
	net_bed_connect_port(b);
	assert_int_equal(indicated(b), 0); /* not so soon */
	assert_int_equal(net_bed_query(b, OID_GEN_MEDIA_CONNECT_STATUS, &value, &size), 0);
	assert_int_equal(value, 1);
	wait_for_timer(b);
	assert_int_equal(indicated(b), RNDIS_STATUS_MEDIA_CONNECT);
	/* Another port: the guest sees that something has changed. */
	net_bed_connect_port(b);
	wait_for_timer(b);
	assert_int_equal(indicated(b), RNDIS_STATUS_MEDIA_DISCONNECT);
	wait_for_timer(b);
	assert_int_equal(indicated(b), RNDIS_STATUS_MEDIA_CONNECT);
	netvsp_set_link(b->n, true, 1000000000);
	wait_for_timer(b);
	assert_int_equal(indicated(b), RNDIS_STATUS_MEDIA_DISCONNECT);
	wait_for_timer(b);
	assert_int_equal(indicated(b), RNDIS_STATUS_LINK_SPEED_CHANGE);
	netvsp_set_link(b->n, false, 1000000000);
	wait_for_timer(b);
	assert_int_equal(indicated(b), RNDIS_STATUS_MEDIA_CONNECT);
	net_bed_free(b);
}

static void test_port_dies(void **state)
{
	struct net_bed *b = ready(1);

	(void)state;
	net_port_free(b->port);
	b->port = NULL;
	assert_int_equal(indicated(b), RNDIS_STATUS_MEDIA_DISCONNECT);
	assert_int_equal(b->lost, 1);
	assert_false(netvsp_state(b->n).connected);
	net_bed_connect_port(b);
	assert_true(netvsp_state(b->n).connected);
	wait_for_timer(b);
	assert_int_equal(indicated(b), RNDIS_STATUS_MEDIA_CONNECT);
	net_bed_free(b);
}

/* --- the end --- */

static unsigned rescinded;

static void on_rescinded(void *device)
{
	(void)device;
	rescinded++;
}

static void on_left(void *context)
{
	(void)context;
	rescinded++;
}

static void loop_for(struct net_bed *b, int ticks)
{
	for (; ticks; ticks--)
		assert_true(loop_once(b->g->loop, 50) >= 0);
}

/* The driver hears of its link, ends what it does, and only then loses the adapter. */
static void test_leaving(void **state)
{
	struct net_bed *b = net_bed_new(1, &(struct netvsp_options){ 0 });
	uint8_t keepalive[12] = { RNDIS_MSG_KEEPALIVE, 0, 0, 0, 12 };

	(void)state;
	rescinded = 0;
	netvsp_leave(b->n, on_left); /* no driver: at once */
	assert_int_equal(rescinded, 1);
	net_bed_connect_port(b);
	net_bed_ready(b, NVSP_PROTOCOL_VERSION_61, 1514);
	netvsp_leave(b->n, on_left);
	assert_int_equal(indicated(b), RNDIS_STATUS_MEDIA_DISCONNECT);
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(net_bed_send(b, 0, 1, keepalive, 12), NVSP_STAT_SUCCESS);
		loop_for(b, 2);
		assert_true(net_bed_take(b, 0));
		net_bed_complete(b, 0, b->transaction);
		assert_int_equal(rescinded, 1); /* it is at work */
	}
	/* Neither while it has not read what it was sent. */
	net_bed_post(b, 0, 1, keepalive, 12);
	loop_for(b, 12);
	assert_int_equal(rescinded, 1);
	while (net_bed_take(b, 0))
		;
	loop_for(b, 16);
	assert_int_equal(rescinded, 2);
	net_bed_free(b);
}

/* What the driver has sent, and sends before it has heard, is completed until it closes. */
static void test_removal(void **state)
{
	struct vmbus_relid_message released = { .header.type = le32_of(CHANNELMSG_RELID_RELEASED) };
	struct net_bed *b = ready(2);
	uint8_t keepalive[12] = { RNDIS_MSG_KEEPALIVE, 0, 0, 0, 12 };

	(void)state;
	rescinded = 0;
	assert_int_equal(ask_subs(b, 1), 1);
	test_guest_take_offers(b->g);
	assert_true(net_bed_open(b, 1));
	assert_true(net_bed_take(b, 0));
	vmbus_device_rescind(b->primary, on_rescinded);
	assert_int_equal(netvsp_state(b->n).channels, 2);
	assert_int_equal(net_bed_send(b, 0, 1, keepalive, 12), NVSP_STAT_SUCCESS);
	assert_int_equal(net_bed_send(b, 1, 0, keepalive, 12), NVSP_STAT_FAIL);
	test_channel_close(&b->ch[1]);
	test_channel_close(&b->ch[0]);
	b->open[0] = b->open[1] = false;
	assert_int_equal(netvsp_state(b->n).channels, 0);
	assert_int_equal(netvsp_state(b->n).sections, 0);
	for (unsigned i = 2; i--;) {
		assert_int_equal(rescinded, 0);
		released.child_relid = le32_of(b->ch[i].relid);
		test_guest_post(b->g, VMBUS_MESSAGE_CONNECTION_ID, &released, sizeof(released));
	}
	assert_int_equal(rescinded, 1);
	net_bed_free(b);
	/* A guest that lets go without closing. */
	b = ready(1);
	vmbus_device_rescind(b->primary, on_rescinded);
	released.child_relid = le32_of(b->ch[0].relid);
	test_guest_post(b->g, VMBUS_MESSAGE_CONNECTION_ID, &released, sizeof(released));
	assert_int_equal(rescinded, 2);
	assert_int_equal(netvsp_state(b->n).channels, 0);
	net_bed_free(b);
	/* One that is reset meanwhile. */
	b = ready(1);
	vmbus_device_rescind(b->primary, on_rescinded);
	net_bed_free(b);
	assert_int_equal(rescinded, 3);
}

static void test_reset(void **state)
{
	struct net_bed *b = ready(2);

	(void)state;
	assert_int_equal(ask_subs(b, 1), 1);
	test_guest_take_offers(b->g);
	assert_true(net_bed_open(b, 1));
	/* A new contact, with everything open and an answer unread. */
	ring_deinit(&b->ch[0].in);
	ring_deinit(&b->ch[0].out);
	ring_deinit(&b->ch[1].in);
	ring_deinit(&b->ch[1].out);
	b->open[0] = b->open[1] = false;
	assert_true(test_guest_connect(b->g, VERSION_WIN10_V5_3));
	assert_int_equal(netvsp_state(b->n).channels, 0);
	assert_int_equal(netvsp_state(b->n).version, 0);
	assert_int_equal(vmbus_counters(b->g->bus).gpadls, 0);
	test_guest_request_offers(b->g);
	assert_true(net_bed_open(b, 0));
	net_bed_ready(b, NVSP_PROTOCOL_VERSION_61, 1514);
	net_bed_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_versions),
		cmocka_unit_test(test_version_ranges),
		cmocka_unit_test(test_each_version_reaches_rndis),
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_buffers_come_back),
		cmocka_unit_test(test_bad_buffers),
		cmocka_unit_test(test_queries),
		cmocka_unit_test(test_the_list),
		cmocka_unit_test(test_offload_revisions),
		cmocka_unit_test(test_sets),
		cmocka_unit_test(test_address),
		cmocka_unit_test(test_other_requests),
		cmocka_unit_test(test_bad_requests),
		cmocka_unit_test(test_answers_are_bounded),
		cmocka_unit_test(test_malformed_messages),
		cmocka_unit_test(test_what_there_is_not),
		cmocka_unit_test(test_sub_channels),
		cmocka_unit_test(test_sub_channels_are_limited),
		cmocka_unit_test(test_open_again_with_sub_channels),
		cmocka_unit_test(test_link),
		cmocka_unit_test(test_port_dies),
		cmocka_unit_test(test_leaving),
		cmocka_unit_test(test_removal),
		cmocka_unit_test(test_reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
