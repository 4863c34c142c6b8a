// SPDX-License-Identifier: MIT
/* The integration services against a scripted guest: every version, and answers that are none. */
#include "devices/ic/fcopy.h"
#include "devices/ic/heartbeat.h"
#include "devices/ic/ic_proto.h"
#include "devices/ic/kvp.h"
#include "devices/ic/shutdown.h"
#include "devices/ic/timesync.h"
#include "devices/ic/vss.h"
#include "lib/utf16.h"
#include "vmbus/testing.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define HEADS (VMBUSPIPE_HDR_SIZE + ICMSG_HDR_SIZE)

/* A guest, and its end of one service. */
struct peer {
	struct test_guest *g;
	struct ic *ic;
	struct test_channel ch;
	uint8_t packet[16384]; /* descriptor, heads, body; as last received */
	int size;
};

static struct test_guest *guest_new(void)
{
	struct test_guest *g = test_guest_new(1, 0, 8);

	assert_true(test_guest_connect(g, VERSION_COPPER));
	return g;
}

static void peer_open(struct peer *p, struct test_guest *g, struct ic *ic)
{
	struct error err = { 0 };

	p->g = g;
	p->ic = ic;
	assert_int_equal(ic_switch(ic, true, &err), 0);
	test_guest_request_offers(g);
	for (unsigned i = 0; i < g->offer_count; i++)
		if (guid_equal(&g->offers[i].instance, &ic->service->instance)) {
			assert_true(test_channel_open(g, &g->offers[i], 4, &p->ch));
			return;
		}
	fail_msg("%s was not offered", ic->service->name);
}

static void peer_stop(struct peer *p)
{
	test_guest_stop(p->g);
	ring_deinit(&p->ch.in);
	ring_deinit(&p->ch.out);
}

static uint8_t *body(struct peer *p)
{
	return p->packet + sizeof(struct vmbus_packet_descriptor) + HEADS;
}

static uint32_t word(const uint8_t *at)
{
	le32 v;

	memcpy(&v, at, sizeof(v));
	return le32_get(v);
}

static uint64_t word64(const uint8_t *at)
{
	le64 v;

	memcpy(&v, at, sizeof(v));
	return le64_get(v);
}

static uint16_t half(const uint8_t *at)
{
	return (uint16_t)(at[0] | at[1] << 8);
}

static void put(uint8_t *at, uint32_t value)
{
	le32 v = le32_of(value);

	memcpy(at, &v, sizeof(v));
}

static uint16_t type_of(struct peer *p)
{
	return half(body(p) - ICMSG_HDR_SIZE + 4);
}

/* What the host sent; -1: nothing. Its heads are as they must be. */
static int peer_receive(struct peer *p)
{
	uint8_t *heads = body(p) - HEADS;

	p->size = test_channel_receive(&p->ch, p->packet, sizeof(p->packet));
	if (p->size <= 0)
		return -1;
	assert_int_equal(word(heads), VMBUSPIPE_DATA);
	assert_in_range(word(heads + 4), ICMSG_HDR_SIZE,
			(unsigned)p->size - sizeof(struct vmbus_packet_descriptor) - 8);
	assert_int_equal(half(heads + 8 + 10), word(heads + 4) - ICMSG_HDR_SIZE);
	assert_int_equal(heads[8 + 17], ICMSGHDRFLAG_TRANSACTION | ICMSGHDRFLAG_REQUEST);
	return type_of(p);
}

/* Sends back what is in the buffer as an answer, as Linux does. */
static void peer_answer(struct peer *p, uint32_t status)
{
	uint8_t *heads = body(p) - HEADS;

	put(heads + 8 + 12, status);
	heads[8 + 17] = ICMSGHDRFLAG_TRANSACTION | ICMSGHDRFLAG_RESPONSE;
	assert_int_equal(test_channel_send(&p->ch, VMBUS_PACKET_INBAND, 0, heads,
					   VMBUSPIPE_HDR_SIZE + word(heads + 4), 0),
			 0);
	test_channel_signal(&p->ch);
	test_guest_pump(p->g);
}

static void peer_pick(struct peer *p, struct ic_version framework, struct ic_version version)
{
	uint8_t *b = body(p);
	struct writer w = writer_of(b, 16);

	writer_le16(&w, 1);
	writer_le16(&w, 1);
	writer_le32(&w, 0);
	writer_le16(&w, framework.major);
	writer_le16(&w, framework.minor);
	writer_le16(&w, version.major);
	writer_le16(&w, version.minor);
	peer_answer(p, 0);
}

static void peer_negotiate(struct peer *p, uint16_t major, uint16_t minor)
{
	assert_int_equal(peer_receive(p), ICMSGTYPE_NEGOTIATE);
	peer_pick(p, (struct ic_version){ 3, 0 }, (struct ic_version){ major, minor });
	assert_int_equal(p->ic->state, IC_READY);
}

static void fire(struct peer *p, struct loop_timer *t)
{
	assert_true(t->deadline != 0);
	loop_timer_arm(t, 1);
	test_guest_pump(p->g);
}

/* --- the common part --- */

static void test_the_host_speaks_first_and_offers_all_versions(void **state)
{
	struct test_guest *g = guest_new();
	struct shutdown s = { 0 };
	struct peer p;
	uint8_t *b;

	(void)state;
	shutdown_init(&s, g->loop, g->bus);
	peer_open(&p, g, &s.ic);
	assert_int_equal(s.ic.state, IC_NEGOTIATING);
	assert_int_equal(peer_receive(&p), ICMSGTYPE_NEGOTIATE);
	b = body(&p);
	assert_int_equal(half(b), 2);
	assert_int_equal(half(b + 2), 4);
	assert_int_equal(half(b + 8), 1);
	assert_int_equal(half(b + 12), 3);
	assert_int_equal(half(b + 16), 1);
	assert_int_equal(half(b + 28), 3);
	assert_int_equal(half(b + 30), 2);
	assert_int_equal(peer_receive(&p), -1);
	peer_stop(&p);
	ic_deinit(&s.ic);
	test_guest_free(g);
}

static void test_every_version_can_be_picked(void **state)
{
	static const struct ic_version frameworks[] = { { 1, 0 }, { 3, 0 } };

	(void)state;
	for (size_t f = 0; f < ARRAY_SIZE(frameworks); f++)
		for (unsigned v = 0; v < 4; v++) {
			struct test_guest *g = guest_new();
			struct shutdown s = { 0 };
			struct peer p;

			shutdown_init(&s, g->loop, g->bus);
			peer_open(&p, g, &s.ic);
			assert_int_equal(peer_receive(&p), ICMSGTYPE_NEGOTIATE);
			peer_pick(&p, frameworks[f], s.ic.service->versions[v]);
			assert_int_equal(s.ic.state, IC_READY);
			assert_int_equal(s.ic.framework.major, frameworks[f].major);
			assert_int_equal(s.ic.version.minor, s.ic.service->versions[v].minor);
			peer_stop(&p);
			ic_deinit(&s.ic);
			test_guest_free(g);
		}
}

static void test_a_version_that_was_not_offered_is_refused(void **state)
{
	static const struct ic_version wrong[][2] = { { { 3, 0 }, { 9, 9 } },
						      { { 7, 0 }, { 3, 0 } },
						      { { 0, 0 }, { 0, 0 } } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct test_guest *g = guest_new();
		struct heartbeat h = { 0 };
		struct error err = { 0 };
		struct peer p;

		heartbeat_init(&h, g->loop, g->bus);
		peer_open(&p, g, &h.ic);
		assert_int_equal(peer_receive(&p), ICMSGTYPE_NEGOTIATE);
		peer_pick(&p, wrong[i][0], wrong[i][1]);
		assert_int_equal(h.ic.state, IC_REFUSED);
		assert_int_equal(heartbeat_state(&h), HEARTBEAT_ERROR);
		assert_int_equal(ic_usable(&h.ic, &err), -ENOTCONN);
		assert_int_equal(peer_receive(&p), -1);
		peer_stop(&p);
		heartbeat_deinit(&h);
		test_guest_free(g);
	}
}

static void send_bytes(struct peer *p, uint16_t type, const void *bytes, size_t size)
{
	(void)test_channel_send(&p->ch, type, 0, bytes, size, 0);
	test_channel_signal(&p->ch);
	test_guest_pump(p->g);
}

static void test_nonsense_is_counted_and_changes_nothing(void **state)
{
	struct test_guest *g = guest_new();
	struct heartbeat h = { 0 };
	uint8_t copy[256], *heads;
	uint64_t refused = 0;
	struct peer p;

	(void)state;
	heartbeat_init(&h, g->loop, g->bus);
	peer_open(&p, g, &h.ic);
	assert_int_equal(peer_receive(&p), ICMSGTYPE_NEGOTIATE);
	heads = body(&p) - HEADS;
	for (unsigned kind = 0; kind < 7; kind++) {
		uint16_t type = VMBUS_PACKET_INBAND;
		size_t size = HEADS + 16;

		memcpy(copy, heads, sizeof(copy));
		copy[8 + 17] = ICMSGHDRFLAG_RESPONSE;
		switch (kind) {
		case 0:
			copy[8 + 16]++;
			break; /* another transaction's */
		case 1:
			copy[8 + 17] = ICMSGHDRFLAG_REQUEST;
			break;
		case 2:
			copy[8 + 4] = ICMSGTYPE_VSS;
			break;
		case 3:
			put(copy + 4, 0xffffffff);
			break; /* longer than the packet */
		case 4:
			put(copy + 4, 19);
			break; /* shorter than its head */
		case 5:
			size = 16;
			break;
		case 6:
			type = VMBUS_PACKET_COMPLETION;
			break;
		}
		send_bytes(&p, type, copy, size);
		assert_int_equal(h.ic.state, IC_NEGOTIATING);
		assert_int_equal(h.ic.refused, ++refused);
	}
	peer_pick(&p, (struct ic_version){ 3, 0 }, (struct ic_version){ 3, 0 });
	assert_int_equal(h.ic.state, IC_READY);
	peer_stop(&p);
	heartbeat_deinit(&h);
	test_guest_free(g);
}

static void test_a_service_goes_and_comes_while_the_guest_runs(void **state)
{
	struct test_guest *g = guest_new();
	struct heartbeat h = { 0 };
	uint8_t released[12] = { CHANNELMSG_RELID_RELEASED };
	struct peer p;

	(void)state;
	heartbeat_init(&h, g->loop, g->bus);
	peer_open(&p, g, &h.ic);
	peer_negotiate(&p, 3, 0);
	assert_int_equal(ic_switch(&h.ic, false, NULL), 0);
	assert_int_equal(h.ic.state, IC_OFF);
	assert_int_equal(heartbeat_state(&h), HEARTBEAT_DISABLED);
	/* On again before the guest has let go: not yet. */
	assert_int_equal(ic_switch(&h.ic, true, NULL), 0);
	g->offer_count = 0;
	test_guest_take_offers(g);
	assert_int_equal(g->offer_count, 0);
	put(released + 8, p.ch.relid);
	test_guest_post(g, VMBUS_MESSAGE_CONNECTION_ID, released, sizeof(released));
	test_guest_take_offers(g);
	assert_int_equal(g->offer_count, 1);
	assert_int_equal(h.ic.state, IC_CLOSED);
	ring_deinit(&p.ch.in);
	ring_deinit(&p.ch.out);
	assert_true(test_channel_open(g, &g->offers[0], 4, &p.ch));
	peer_negotiate(&p, 3, 0);
	peer_stop(&p);
	heartbeat_deinit(&h);
	test_guest_free(g);
}

static void test_a_restored_guest_is_asked_for_its_version_again(void **state)
{
	struct test_guest *g = guest_new();
	struct timesync t = { 0 };
	uint8_t stale[sizeof(((struct peer *)0)->packet)];
	struct peer p;

	(void)state;
	timesync_init(&t, g->loop, g->bus);
	peer_open(&p, g, &t.ic);
	peer_negotiate(&p, 4, 0);
	assert_int_equal(peer_receive(&p), ICMSGTYPE_TIMESYNC);
	memcpy(stale, p.packet, sizeof(stale));
	ic_restart(&t.ic);
	memcpy(p.packet, stale, sizeof(stale));
	peer_answer(&p, 0); /* to what was asked before */
	assert_int_equal(t.ic.refused, 1);
	peer_negotiate(&p, 4, 0);
	assert_int_equal(peer_receive(&p), ICMSGTYPE_TIMESYNC);
	assert_int_equal(body(&p)[16], ICTIMESYNCFLAG_SYNC);
	peer_stop(&p);
	timesync_deinit(&t);
	test_guest_free(g);
}

/* --- heartbeat --- */

static void test_heartbeat_is_lost_and_found_again(void **state)
{
	struct test_guest *g = guest_new();
	struct heartbeat h = { 0 };
	struct peer p;

	(void)state;
	heartbeat_init(&h, g->loop, g->bus);
	peer_open(&p, g, &h.ic);
	peer_negotiate(&p, 3, 0);
	assert_int_equal(heartbeat_state(&h), HEARTBEAT_NO_CONTACT);
	assert_int_equal(peer_receive(&p), ICMSGTYPE_HEARTBEAT);
	put(body(&p), word(body(&p)) + 1);
	put(body(&p) + 8, HEARTBEAT_HEALTHY);
	peer_answer(&p, 0);
	assert_int_equal(heartbeat_state(&h), HEARTBEAT_OK);
	assert_int_equal(h.application, HEARTBEAT_HEALTHY);
	fire(&p, &h.timer);
	assert_int_equal(peer_receive(&p), ICMSGTYPE_HEARTBEAT);
	for (unsigned i = 0; i < HEARTBEAT_LOST_AFTER; i++) {
		assert_int_equal(heartbeat_state(&h), HEARTBEAT_OK);
		fire(&p, &h.timer);
	}
	assert_int_equal(heartbeat_state(&h), HEARTBEAT_LOST);
	assert_true(h.timer.deadline == 0); /* nobody is woken for a guest that hangs */
	put(body(&p), word(body(&p)) + 1);
	peer_answer(&p, 0);
	assert_int_equal(heartbeat_state(&h), HEARTBEAT_OK);
	assert_true(h.timer.deadline != 0);
	heartbeat_pause(&h);
	assert_int_equal(heartbeat_state(&h), HEARTBEAT_PAUSED);
	assert_true(h.timer.deadline == 0);
	heartbeat_resume(&h);
	assert_int_equal(heartbeat_state(&h), HEARTBEAT_OK);
	peer_stop(&p);
	heartbeat_deinit(&h);
	test_guest_free(g);
}

static void test_a_wrong_sequence_is_no_heartbeat(void **state)
{
	struct test_guest *g = guest_new();
	struct heartbeat h = { 0 };
	struct peer p;

	(void)state;
	heartbeat_init(&h, g->loop, g->bus);
	peer_open(&p, g, &h.ic);
	peer_negotiate(&p, 1, 0);
	assert_int_equal(peer_receive(&p), ICMSGTYPE_HEARTBEAT);
	peer_answer(&p, 0);
	assert_int_equal(heartbeat_state(&h), HEARTBEAT_NO_CONTACT);
	assert_int_equal(h.ic.refused, 1);
	peer_stop(&p);
	heartbeat_deinit(&h);
	test_guest_free(g);
}

/* --- time --- */

static void test_time_is_told_in_each_version(void **state)
{
	static const uint16_t majors[] = { 1, 3, 4 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(majors); i++) {
		size_t flags = majors[i] == 4 ? 16 : 24;
		struct test_guest *g = guest_new();
		struct timesync t = { 0 };
		uint64_t now = (uint64_t)time(NULL);
		struct peer p;

		timesync_init(&t, g->loop, g->bus);
		peer_open(&p, g, &t.ic);
		peer_negotiate(&p, majors[i], 0);
		assert_int_equal(peer_receive(&p), ICMSGTYPE_TIMESYNC);
		assert_int_equal(body(&p)[flags], ICTIMESYNCFLAG_SYNC);
		assert_in_range(word64(body(&p)) / 10000000 - 11644473600, now, now + 60);
		assert_true(majors[i] != 4 || word64(body(&p) + 8) != 0);
		fire(&p, &t.timer); /* not answered: nothing new, and no timer */
		assert_int_equal(peer_receive(&p), -1);
		assert_true(t.timer.deadline == 0);
		peer_answer(&p, 0);
		fire(&p, &t.timer);
		assert_int_equal(peer_receive(&p), ICMSGTYPE_TIMESYNC);
		assert_int_equal(body(&p)[flags], ICTIMESYNCFLAG_SAMPLE);
		peer_answer(&p, 0);
		timesync_pause(&t);
		assert_true(t.timer.deadline == 0);
		timesync_resume(&t);
		assert_int_equal(peer_receive(&p), ICMSGTYPE_TIMESYNC);
		assert_int_equal(body(&p)[flags], ICTIMESYNCFLAG_SYNC);
		peer_stop(&p);
		timesync_deinit(&t);
		test_guest_free(g);
	}
}

/* --- shutdown --- */

struct outcome {
	int calls, result;
	struct error err;
};

static void on_done(void *context, int result, const struct error *err)
{
	struct outcome *o = context;

	o->calls++;
	o->result = result;
	if (result < 0)
		o->err = *err;
}

static void test_shutdown_is_asked_and_answered(void **state)
{
	struct shutdown_request q = { .action = SHUTDOWN_HIBERNATE_GUEST,
				      .force = true,
				      .patience = 60,
				      .reason = "host goes \xc3\xbc" };
	struct test_guest *g = guest_new();
	struct shutdown s = { 0 };
	struct outcome o = { 0 };
	struct error err = { 0 };
	struct peer p;

	(void)state;
	shutdown_init(&s, g->loop, g->bus);
	assert_int_equal(shutdown_ask(&s, &q, on_done, &o, &err), -ENOTCONN);
	peer_open(&p, g, &s.ic);
	peer_negotiate(&p, 3, 2);
	assert_int_equal(shutdown_ask(&s, &q, on_done, &o, &err), 0);
	assert_int_equal(shutdown_ask(&s, &q, on_done, &o, &err), -EBUSY);
	assert_int_equal(peer_receive(&p), ICMSGTYPE_SHUTDOWN);
	assert_int_equal(word(body(&p) + 4), 60);
	assert_int_equal(word(body(&p) + 8), SHUTDOWN_FORCE | SHUTDOWN_HIBERNATE);
	assert_memory_equal(body(&p) + 12 + 20, "\xfc\0\0\0", 4);
	peer_answer(&p, 0);
	assert_int_equal(o.calls, 1);
	assert_int_equal(o.result, 0);
	q = (struct shutdown_request){ .action = SHUTDOWN_POWER_OFF };
	assert_int_equal(shutdown_ask(&s, &q, on_done, &o, &err), 0);
	assert_int_equal(peer_receive(&p), ICMSGTYPE_SHUTDOWN);
	assert_int_equal(word(body(&p) + 8), 0);
	peer_answer(&p, HV_E_FAIL);
	assert_int_equal(o.result, -EPERM);
	assert_int_equal(shutdown_ask(&s, &q, on_done, &o, &err), 0);
	assert_int_equal(peer_receive(&p), ICMSGTYPE_SHUTDOWN);
	fire(&p, &s.ic.answer_timer);
	assert_int_equal(o.result, -ETIMEDOUT);
	peer_answer(&p, 0); /* too late: stale */
	assert_int_equal(s.ic.refused, 1);
	assert_int_equal(shutdown_ask(&s, &q, on_done, &o, &err), 0);
	peer_stop(&p);
	assert_int_equal(o.calls, 4);
	assert_int_equal(o.result, -ECONNRESET);
	ic_deinit(&s.ic);
	test_guest_free(g);
}

static void test_an_old_guest_cannot_be_asked_to_restart(void **state)
{
	struct shutdown_request q = { .action = SHUTDOWN_RESTART_GUEST };
	struct test_guest *g = guest_new();
	struct shutdown s = { 0 };
	struct error err = { 0 };
	struct peer p;

	(void)state;
	shutdown_init(&s, g->loop, g->bus);
	peer_open(&p, g, &s.ic);
	peer_negotiate(&p, 3, 0);
	assert_int_equal(shutdown_ask(&s, &q, on_done, NULL, &err), -EOPNOTSUPP);
	assert_int_equal(peer_receive(&p), -1);
	peer_stop(&p);
	ic_deinit(&s.ic);
	test_guest_free(g);
}

/* --- key-value exchange --- */

struct asked {
	struct kvp_call call;
	struct outcome outcome;
};

static void on_kvp_done(struct kvp_call *call, int result, const struct error *err)
{
	on_done(&container_of(call, struct asked, call)->outcome, result, err);
}

/* An item as the daemon answers it, behind `at` of the body. */
static void put_item(uint8_t *at, uint32_t type, const char *key, const char *value)
{
	memset(at, 0, 12 + HV_KVP_EXCHANGE_MAX_KEY_SIZE + HV_KVP_EXCHANGE_MAX_VALUE_SIZE);
	put(at, type);
	put(at + 4, (uint32_t)utf16_encode(key, at + 12, 512, UTF16_LE) + 2);
	put(at + 8, (uint32_t)utf16_encode(value, at + 12 + 512, 2048, UTF16_LE) + 2);
}

/* The guest answers a reading of its own items. */
static void serve_info(struct peer *p, const char *const items[][2], unsigned count)
{
	for (unsigned i = 0;; i++) {
		assert_int_equal(peer_receive(p), ICMSGTYPE_KVPEXCHANGE);
		assert_int_equal(body(p)[0], KVP_OP_ENUMERATE);
		assert_int_equal(body(p)[1], KVP_POOL_AUTO);
		assert_int_equal(word(body(p) + 4), i);
		if (i == count)
			break;
		put_item(body(p) + 8, REG_SZ, items[i][0], items[i][1]);
		peer_answer(p, 0);
	}
	peer_answer(p, HV_S_CONT);
}

static const char *const guest_items[][2] = {
	{ "FullyQualifiedDomainName", "debian.example" },
	{ "OSName", "Debian \xc3\xbc" },
	{ "NetworkAddressIPv4", "10.0.0.7" },
};

static void kvp_guest(struct kvp *k, struct test_guest **g, struct peer *p)
{
	*g = guest_new();
	kvp_init(k, (*g)->loop, (*g)->bus);
	peer_open(p, *g, &k->ic);
	peer_negotiate(p, 4, 0);
}

static void test_the_guests_items_are_read(void **state)
{
	struct test_guest *g;
	struct kvp k = { 0 };
	struct peer p;

	(void)state;
	kvp_guest(&k, &g, &p);
	serve_info(&p, guest_items, 3);
	assert_true(k.info_known);
	assert_int_equal(k.info.count, 3);
	assert_string_equal(kvp_items_find(&k.info, "OSName"), "Debian \xc3\xbc");
	fire(&p, &k.info_timer);
	serve_info(&p, guest_items, 1);
	assert_int_equal(k.info.count, 1);
	peer_stop(&p);
	assert_false(k.info_known);
	kvp_deinit(&k);
	test_guest_free(g);
}

static void test_a_missing_daemon_is_asked_again_later(void **state)
{
	struct test_guest *g;
	struct kvp k = { 0 };
	struct peer p;
	uint64_t before;

	(void)state;
	kvp_guest(&k, &g, &p);
	assert_int_equal(peer_receive(&p), ICMSGTYPE_KVPEXCHANGE);
	peer_answer(&p, HV_E_FAIL);
	assert_false(k.info_known);
	before = k.info_timer.deadline;
	fire(&p, &k.info_timer);
	assert_int_equal(peer_receive(&p), ICMSGTYPE_KVPEXCHANGE);
	peer_answer(&p, HV_E_FAIL);
	assert_true(k.info_timer.deadline > before);
	fire(&p, &k.info_timer);
	serve_info(&p, guest_items, 2);
	assert_true(k.info_known);
	peer_stop(&p);
	kvp_deinit(&k);
	test_guest_free(g);
}

static void test_a_daemon_that_went_is_not_waited_for(void **state)
{
	struct asked a = { .call = { .op = KVP_DELETE, .key = "x", .done = on_kvp_done } };
	struct test_guest *g;
	struct kvp k = { 0 };
	struct error err = { 0 };
	struct peer p;

	(void)state;
	kvp_guest(&k, &g, &p);
	serve_info(&p, guest_items, 1);
	assert_int_equal(kvp_ask(&k, &a.call, NULL), 0);
	assert_int_equal(peer_receive(&p), ICMSGTYPE_KVPEXCHANGE);
	fire(&p, &k.ic.answer_timer);
	assert_int_equal(a.outcome.result, -ETIMEDOUT);
	assert_int_equal(kvp_ask(&k, &a.call, &err), -ETIMEDOUT);
	/* It is back, and answers what it was asked then: its items are read again. */
	peer_answer(&p, 0);
	serve_info(&p, guest_items, 2);
	assert_int_equal(k.info.count, 2);
	assert_int_equal(kvp_ask(&k, &a.call, &err), 0);
	peer_stop(&p);
	kvp_deinit(&k);
	test_guest_free(g);
}

static void test_items_are_set_got_deleted_in_order(void **state)
{
	struct asked set = { .call = { .op = KVP_SET,
				       .key = "colour",
				       .value = "gr\xc3\xbcn",
				       .done = on_kvp_done } };
	struct asked get = {
		.call = { .op = KVP_GET, .pool = KVP_GUEST, .key = "colour", .done = on_kvp_done }
	};
	struct asked del = { .call = { .op = KVP_DELETE, .key = "colour", .done = on_kvp_done } };
	struct test_guest *g;
	struct kvp k = { 0 };
	struct peer p;

	(void)state;
	kvp_guest(&k, &g, &p);
	assert_int_equal(kvp_ask(&k, &set.call, NULL), 0);
	assert_int_equal(kvp_ask(&k, &get.call, NULL), 0);
	assert_int_equal(kvp_ask(&k, &del.call, NULL), 0);
	serve_info(&p, guest_items, 0);
	assert_int_equal(peer_receive(&p), ICMSGTYPE_KVPEXCHANGE);
	assert_int_equal(body(&p)[0], KVP_OP_SET);
	assert_int_equal(word(body(&p) + 4), REG_SZ);
	assert_int_equal(word(body(&p) + 8), 14);
	assert_int_equal(word(body(&p) + 12), 10);
	assert_memory_equal(body(&p) + 16, "c\0o\0l\0", 6);
	assert_memory_equal(body(&p) + 16 + 512, "g\0r\0\xfc\0n\0\0\0", 10);
	peer_answer(&p, 0);
	assert_int_equal(set.outcome.calls, 1);
	assert_int_equal(peer_receive(&p), ICMSGTYPE_KVPEXCHANGE);
	assert_int_equal(body(&p)[1], KVP_POOL_GUEST);
	put_item(body(&p) + 4, REG_SZ, "colour", "red");
	peer_answer(&p, 0);
	assert_string_equal(kvp_items_find(&get.call.items, "colour"), "red");
	assert_int_equal(peer_receive(&p), ICMSGTYPE_KVPEXCHANGE);
	assert_int_equal(body(&p)[0], KVP_OP_DELETE);
	assert_int_equal(word(body(&p) + 4), 14);
	peer_answer(&p, HV_S_CONT); /* there is none */
	assert_int_equal(del.outcome.result, -ENOENT);
	kvp_items_clear(&get.call.items);
	peer_stop(&p);
	kvp_deinit(&k);
	test_guest_free(g);
}

static void test_numbers_become_text_and_nonsense_is_refused(void **state)
{
	static const struct {
		uint32_t type, key_size, value_size;
		const char *value; /* NULL: refused */
	} cases[] = {
		{ REG_U32, 4, 4, "4660" }, { REG_U64, 4, 8, "4660" }, { REG_SZ, 513, 4, NULL },
		{ REG_SZ, 4, 2049, NULL }, { 77, 4, 4, NULL },
	};
	struct test_guest *g;
	struct kvp k = { 0 };
	struct peer p;

	(void)state;
	kvp_guest(&k, &g, &p);
	serve_info(&p, guest_items, 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct asked a = { .call = { .op = KVP_GET, .key = "n", .done = on_kvp_done } };
		uint8_t *at = body(&p) + 4;

		assert_int_equal(kvp_ask(&k, &a.call, NULL), 0);
		assert_int_equal(peer_receive(&p), ICMSGTYPE_KVPEXCHANGE);
		put_item(at, cases[i].type, "n", "");
		put(at + 4, cases[i].key_size);
		put(at + 8, cases[i].value_size);
		put(at + 12 + 512, 0x1234);
		peer_answer(&p, 0);
		assert_int_equal(a.outcome.calls, 1);
		assert_int_equal(a.outcome.result, cases[i].value ? 0 : -EBADMSG);
		if (cases[i].value)
			assert_string_equal(kvp_items_find(&a.call.items, "n"), cases[i].value);
		kvp_items_clear(&a.call.items);
	}
	peer_stop(&p);
	kvp_deinit(&k);
	test_guest_free(g);
}

static void test_an_endless_enumeration_ends(void **state)
{
	struct asked a = { .call = {
				   .op = KVP_ENUMERATE, .pool = KVP_GUEST, .done = on_kvp_done } };
	struct test_guest *g;
	struct kvp k = { 0 };
	struct peer p;

	(void)state;
	kvp_guest(&k, &g, &p);
	serve_info(&p, guest_items, 0);
	assert_int_equal(kvp_ask(&k, &a.call, NULL), 0);
	for (unsigned i = 0; i <= KVP_ITEMS_MAX; i++) {
		assert_int_equal(a.outcome.calls, 0);
		assert_int_equal(peer_receive(&p), ICMSGTYPE_KVPEXCHANGE);
		put_item(body(&p) + 8, REG_SZ, "same", "again");
		peer_answer(&p, 0);
	}
	assert_int_equal(a.outcome.calls, 1);
	assert_int_equal(a.outcome.result, 0);
	assert_int_equal(a.call.items.count, KVP_ITEMS_MAX);
	kvp_items_clear(&a.call.items);
	peer_stop(&p);
	kvp_deinit(&k);
	test_guest_free(g);
}

static void test_addresses_go_both_ways(void **state)
{
	struct asked set = { .call = { .op = KVP_SET_IP, .done = on_kvp_done } };
	struct asked get = { .call = { .op = KVP_GET_IP, .done = on_kvp_done } };
	struct test_guest *g;
	struct kvp k = { 0 };
	struct peer p;

	(void)state;
	set.call.ip = (struct kvp_ip){ .adapter = strdup("{guid}"),
				       .ipv4 = true,
				       .addresses = strdup("10.0.0.9"),
				       .subnets = strdup("255.0.0.0") };
	get.call.ip.adapter = strdup("00:15:5d:00:00:01");
	kvp_guest(&k, &g, &p);
	serve_info(&p, guest_items, 0);
	assert_int_equal(kvp_ask(&k, &set.call, NULL), 0);
	assert_int_equal(peer_receive(&p), ICMSGTYPE_KVPEXCHANGE);
	assert_int_equal(body(&p)[0], KVP_OP_SET_IP_INFO);
	assert_memory_equal(body(&p) + 4, "{\0g\0u\0", 6);
	assert_int_equal(body(&p)[4 + 256], ADDR_FAMILY_IPV4);
	assert_int_equal(body(&p)[4 + 257], 0);
	assert_memory_equal(body(&p) + 4 + 258, "1\0000\0", 4);
	peer_answer(&p, 0);
	assert_int_equal(set.outcome.result, 0);
	assert_int_equal(kvp_ask(&k, &get.call, NULL), 0);
	assert_int_equal(peer_receive(&p), ICMSGTYPE_KVPEXCHANGE);
	assert_int_equal(body(&p)[0], KVP_OP_GET_IP_INFO);
	body(&p)[4 + 257] = 1;
	memcpy(body(&p) + 4 + 258, "f\0e\0;\0\0\0", 8);
	peer_answer(&p, 0);
	assert_int_equal(get.outcome.result, 0);
	assert_true(get.call.ip.dhcp);
	assert_string_equal(get.call.ip.addresses, "fe;");
	kvp_ip_clear(&set.call.ip);
	kvp_ip_clear(&get.call.ip);
	peer_stop(&p);
	kvp_deinit(&k);
	test_guest_free(g);
}

static void test_calls_end_when_the_guest_goes_and_dropped_ones_do_not(void **state)
{
	struct asked a[3] = { 0 };
	struct test_guest *g;
	struct kvp k = { 0 };
	struct error err = { 0 };
	struct peer p;

	(void)state;
	kvp_guest(&k, &g, &p);
	serve_info(&p, guest_items, 0);
	for (unsigned i = 0; i < 3; i++) {
		a[i].call = (struct kvp_call){ .op = KVP_DELETE, .key = "x", .done = on_kvp_done };
		assert_int_equal(kvp_ask(&k, &a[i].call, NULL), 0);
	}
	kvp_drop(&k, &a[0].call); /* the one that the guest was asked */
	assert_int_equal(peer_receive(&p), ICMSGTYPE_KVPEXCHANGE);
	peer_answer(&p, 0);
	assert_int_equal(a[1].outcome.calls, 0); /* was not its answer */
	peer_stop(&p);
	assert_int_equal(a[0].outcome.calls, 0);
	assert_int_equal(a[1].outcome.result, -ECONNRESET);
	assert_int_equal(a[2].outcome.result, -ECONNRESET);
	assert_int_equal(kvp_ask(&k, &a[0].call, &err), -ENOTCONN);
	kvp_deinit(&k);
	test_guest_free(g);
}

/* --- backup --- */

static void on_thawed(struct vss *v, const char *reason)
{
	(void)reason;
	++*(int *)v->ic.context;
}

static void vss_guest(struct vss *v, struct test_guest **g, struct peer *p, int *thawed)
{
	*g = guest_new();
	vss_init(v, (*g)->loop, (*g)->bus);
	v->ic.context = thawed;
	v->thawed = on_thawed;
	peer_open(p, *g, &v->ic);
	assert_int_equal(peer_receive(p), ICMSGTYPE_NEGOTIATE);
	assert_int_equal(half(body(p)), 1); /* framework 3.0 alone */
	peer_pick(p, (struct ic_version){ 3, 0 }, (struct ic_version){ 5, 0 });
}

static void expect_vss(struct peer *p, uint8_t operation, uint32_t status)
{
	assert_int_equal(peer_receive(p), ICMSGTYPE_VSS);
	assert_int_equal(body(p)[0], operation);
	peer_answer(p, status);
}

static void test_freeze_and_thaw(void **state)
{
	struct test_guest *g;
	struct vss v = { 0 };
	struct outcome o = { 0 };
	int thawed = 0;
	struct peer p;

	(void)state;
	vss_guest(&v, &g, &p, &thawed);
	assert_int_equal(vss_thaw(&v, on_done, &o, NULL), -EINVAL);
	assert_int_equal(vss_freeze(&v, 901, on_done, &o, NULL), -EINVAL);
	assert_int_equal(vss_freeze(&v, 30, on_done, &o, NULL), 0);
	assert_int_equal(vss_freeze(&v, 30, on_done, &o, NULL), -EBUSY);
	expect_vss(&p, VSS_OP_HOT_BACKUP, 0);
	assert_int_equal(o.calls, 0);
	expect_vss(&p, VSS_OP_FREEZE, 0);
	assert_int_equal(o.calls, 1);
	assert_int_equal(v.state, VSS_FROZEN);
	assert_int_equal(vss_thaw(&v, on_done, &o, NULL), 0);
	expect_vss(&p, VSS_OP_THAW, 0);
	assert_int_equal(o.calls, 2);
	assert_int_equal(o.result, 0);
	/* And by its limit. */
	assert_int_equal(vss_freeze(&v, 30, on_done, &o, NULL), 0);
	expect_vss(&p, VSS_OP_HOT_BACKUP, 0);
	expect_vss(&p, VSS_OP_FREEZE, 0);
	fire(&p, &v.limit_timer);
	assert_int_equal(thawed, 1);
	expect_vss(&p, VSS_OP_THAW, 0);
	assert_int_equal(v.state, VSS_IDLE);
	peer_stop(&p);
	vss_deinit(&v);
	test_guest_free(g);
}

static void test_a_failed_freeze_is_thawed(void **state)
{
	struct test_guest *g;
	struct vss v = { 0 };
	struct outcome o = { 0 };
	int thawed = 0;
	struct peer p;

	(void)state;
	vss_guest(&v, &g, &p, &thawed);
	assert_int_equal(vss_freeze(&v, 30, on_done, &o, NULL), 0);
	expect_vss(&p, VSS_OP_HOT_BACKUP, HV_E_FAIL);
	assert_int_equal(o.result, -EIO);
	assert_int_equal(v.state, VSS_IDLE);
	assert_int_equal(vss_freeze(&v, 30, on_done, &o, NULL), 0);
	expect_vss(&p, VSS_OP_HOT_BACKUP, 0);
	assert_int_equal(peer_receive(&p), ICMSGTYPE_VSS);
	fire(&p, &v.ic.answer_timer);
	assert_int_equal(o.result, -ETIMEDOUT);
	expect_vss(&p, VSS_OP_THAW, 0);
	assert_int_equal(vss_freeze(&v, 30, on_done, &o, NULL), 0);
	expect_vss(&p, VSS_OP_HOT_BACKUP, 0);
	expect_vss(&p, VSS_OP_FREEZE, 0);
	peer_stop(&p); /* frozen, and gone */
	assert_int_equal(thawed, 1);
	vss_deinit(&v);
	test_guest_free(g);
}

/* --- file copy --- */

static int file_of(size_t size)
{
	char name[] = "/tmp/partita-ic-test-XXXXXX";
	int fd = mkstemp(name);

	assert_true(fd >= 0);
	unlink(name);
	for (size_t i = 0; i < size; i++) {
		uint8_t byte = (uint8_t)(i * 7 + i / 256);

		assert_int_equal(write(fd, &byte, 1), 1);
	}
	return fd;
}

static void fcopy_guest(struct fcopy *f, struct test_guest **g, struct peer *p)
{
	*g = guest_new();
	fcopy_init(f, (*g)->loop, (*g)->bus);
	peer_open(p, *g, &f->ic);
	peer_negotiate(p, 1, 1);
}

static int fcopy_next(struct peer *p)
{
	int type;

	for (int i = 0; i < 1000; i++) {
		type = peer_receive(p);
		if (type >= 0)
			return type;
		usleep(1000); /* io_uring may take its time */
	}
	return -1;
}

static void test_a_file_is_copied(void **state)
{
	static uint8_t copy[13000];
	struct outcome o = { 0 };
	struct fcopy_request q = {
		.path = "/tmp/dir/a \xc3\xbc", .create_path = true, .done = on_done, .context = &o
	};
	struct test_guest *g;
	static struct fcopy f;
	size_t have = 0;
	struct peer p;

	(void)state;
	fcopy_guest(&f, &g, &p);
	q.fd = file_of(sizeof(copy));
	assert_int_equal(fcopy_begin(&f, &q, NULL), 0);
	assert_int_equal(fcopy_next(&p), ICMSGTYPE_FCOPY);
	assert_int_equal(word(body(&p)), START_FILE_COPY);
	assert_memory_equal(body(&p) + 36, "a\0 \0\xfc\0\0\0", 8);
	assert_memory_equal(body(&p) + 36 + 520, "/\0t\0m\0p\0/\0d\0i\0r\0\0\0", 18);
	assert_int_equal(word(body(&p) + 36 + 1040), CREATE_PATH);
	assert_int_equal(word64(body(&p) + 36 + 1044), sizeof(copy));
	peer_answer(&p, 0);
	while (have < sizeof(copy)) {
		uint32_t n;

		assert_int_equal(fcopy_next(&p), ICMSGTYPE_FCOPY);
		assert_int_equal(word(body(&p)), WRITE_TO_FILE);
		assert_int_equal(word64(body(&p) + 40), have);
		n = word(body(&p) + 48);
		assert_in_range(n, 1, sizeof(copy) - have);
		memcpy(copy + have, body(&p) + 52, n);
		have += n;
		peer_answer(&p, 0);
	}
	assert_int_equal(fcopy_next(&p), ICMSGTYPE_FCOPY);
	assert_int_equal(word(body(&p)), COMPLETE_FCOPY);
	assert_int_equal(o.calls, 0);
	peer_answer(&p, 0);
	assert_int_equal(o.calls, 1);
	assert_int_equal(o.result, 0);
	for (size_t i = 0; i < sizeof(copy); i++)
		assert_int_equal(copy[i], (uint8_t)(i * 7 + i / 256));
	peer_stop(&p);
	fcopy_deinit(&f);
	test_guest_free(g);
}

static void test_a_copy_that_cannot_be_is_refused(void **state)
{
	static const char *const paths[] = { "relative", "/a/../b",      "/a/",   "/",    "/a/./b",
					     "C:\\",     "C:\\a\\..\\b", "/a\nb", "/a/.." };
	struct fcopy_request q = { .done = on_done };
	struct test_guest *g;
	static struct fcopy f;
	char longer[400];
	struct peer p;
	int pipes[2];

	(void)state;
	fcopy_guest(&f, &g, &p);
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		q.fd = file_of(1);
		q.path = paths[i];
		assert_int_equal(fcopy_begin(&f, &q, NULL), -EINVAL);
		assert_int_equal(fcntl(q.fd, F_GETFD), -1);
	}
	memset(longer, 'x', sizeof(longer));
	longer[0] = '/';
	longer[sizeof(longer) - 1] = '\0';
	q.path = longer;
	q.fd = file_of(1);
	assert_int_equal(fcopy_begin(&f, &q, NULL), -EINVAL);
	assert_int_equal(pipe(pipes), 0);
	q.path = "/ok";
	q.fd = pipes[0];
	assert_int_equal(fcopy_begin(&f, &q, NULL), -EINVAL);
	close(pipes[1]);
	assert_int_equal(peer_receive(&p), -1);
	peer_stop(&p);
	fcopy_deinit(&f);
	test_guest_free(g);
}

static void test_a_copy_fails_is_cancelled_and_cut_off(void **state)
{
	struct outcome o = { 0 };
	struct fcopy_request q = { .path = "C:\\dir\\x", .done = on_done, .context = &o };
	struct test_guest *g;
	static struct fcopy f;
	struct peer p;

	(void)state;
	fcopy_guest(&f, &g, &p);
	q.fd = file_of(9000);
	assert_int_equal(fcopy_begin(&f, &q, NULL), 0);
	assert_int_equal(fcopy_next(&p), ICMSGTYPE_FCOPY);
	assert_memory_equal(body(&p) + 36 + 520, "C\0:\0\\\0d\0i\0r\0\0\0", 14);
	peer_answer(&p, HV_ERROR_ALREADY_EXISTS);
	assert_int_equal(o.result, -EEXIST);
	/* The disk of the guest is full. */
	q.fd = file_of(9000);
	assert_int_equal(fcopy_begin(&f, &q, NULL), 0);
	assert_int_equal(fcopy_next(&p), ICMSGTYPE_FCOPY);
	peer_answer(&p, 0);
	assert_int_equal(fcopy_next(&p), ICMSGTYPE_FCOPY);
	peer_answer(&p, HV_ERROR_DISK_FULL);
	assert_int_equal(o.calls, 1);
	assert_int_equal(fcopy_next(&p), ICMSGTYPE_FCOPY);
	assert_int_equal(word(body(&p)), CANCEL_FCOPY);
	peer_answer(&p, 0);
	assert_int_equal(o.calls, 2);
	assert_int_equal(o.result, -ENOSPC);
	/* Cancelled by who asked. */
	assert_int_equal(fcopy_cancel(&f, NULL), -ENOENT);
	q.fd = file_of(9000);
	assert_int_equal(fcopy_begin(&f, &q, NULL), 0);
	assert_int_equal(fcopy_next(&p), ICMSGTYPE_FCOPY);
	assert_int_equal(fcopy_cancel(&f, NULL), 0);
	peer_answer(&p, 0);
	assert_int_equal(fcopy_next(&p), ICMSGTYPE_FCOPY);
	assert_int_equal(word(body(&p)), CANCEL_FCOPY);
	peer_answer(&p, 0);
	assert_int_equal(o.result, -ECANCELED);
	/* The guest goes while a piece is being read. */
	q.fd = file_of(9000);
	assert_int_equal(fcopy_begin(&f, &q, NULL), 0);
	assert_int_equal(fcopy_next(&p), ICMSGTYPE_FCOPY);
	peer_answer(&p, 0);
	peer_stop(&p);
	assert_int_equal(o.calls, 4);
	assert_int_equal(o.result, -ECONNRESET);
	assert_false(f.reading);
	fcopy_deinit(&f);
	test_guest_free(g);
}

static void test_a_file_that_becomes_shorter_is_an_error(void **state)
{
	struct outcome o = { 0 };
	struct fcopy_request q = { .path = "/x", .done = on_done, .context = &o };
	struct test_guest *g;
	static struct fcopy f;
	struct peer p;

	(void)state;
	fcopy_guest(&f, &g, &p);
	q.fd = file_of(9000);
	assert_int_equal(fcopy_begin(&f, &q, NULL), 0);
	assert_int_equal(ftruncate(q.fd, 0), 0);
	assert_int_equal(fcopy_next(&p), ICMSGTYPE_FCOPY);
	peer_answer(&p, 0);
	assert_int_equal(fcopy_next(&p), ICMSGTYPE_FCOPY);
	assert_int_equal(word(body(&p)), CANCEL_FCOPY);
	peer_answer(&p, 0);
	assert_int_equal(o.result, -EIO);
	peer_stop(&p);
	fcopy_deinit(&f);
	test_guest_free(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_host_speaks_first_and_offers_all_versions),
		cmocka_unit_test(test_every_version_can_be_picked),
		cmocka_unit_test(test_a_version_that_was_not_offered_is_refused),
		cmocka_unit_test(test_nonsense_is_counted_and_changes_nothing),
		cmocka_unit_test(test_a_service_goes_and_comes_while_the_guest_runs),
		cmocka_unit_test(test_a_restored_guest_is_asked_for_its_version_again),
		cmocka_unit_test(test_heartbeat_is_lost_and_found_again),
		cmocka_unit_test(test_a_wrong_sequence_is_no_heartbeat),
		cmocka_unit_test(test_time_is_told_in_each_version),
		cmocka_unit_test(test_shutdown_is_asked_and_answered),
		cmocka_unit_test(test_an_old_guest_cannot_be_asked_to_restart),
		cmocka_unit_test(test_the_guests_items_are_read),
		cmocka_unit_test(test_a_missing_daemon_is_asked_again_later),
		cmocka_unit_test(test_a_daemon_that_went_is_not_waited_for),
		cmocka_unit_test(test_items_are_set_got_deleted_in_order),
		cmocka_unit_test(test_numbers_become_text_and_nonsense_is_refused),
		cmocka_unit_test(test_an_endless_enumeration_ends),
		cmocka_unit_test(test_addresses_go_both_ways),
		cmocka_unit_test(test_calls_end_when_the_guest_goes_and_dropped_ones_do_not),
		cmocka_unit_test(test_freeze_and_thaw),
		cmocka_unit_test(test_a_failed_freeze_is_thawed),
		cmocka_unit_test(test_a_file_is_copied),
		cmocka_unit_test(test_a_copy_that_cannot_be_is_refused),
		cmocka_unit_test(test_a_copy_fails_is_cancelled_and_cut_off),
		cmocka_unit_test(test_a_file_that_becomes_shorter_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
