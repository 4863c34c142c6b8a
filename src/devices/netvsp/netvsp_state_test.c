// SPDX-License-Identifier: MIT
/*
 * Saved state of the adapter: a guest that goes on in another process finds its driver's work done,
 * its buffers lent, frames in its hands, an answer that was on its way, receive scaling as it was;
 * and states that cannot be are refused.
 */
#include "devices/netvsp/frame.h"
#include "devices/netvsp/netvsp_testing.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HELD 5u

static uint8_t frame[10000], message[10000], got[10000];
static struct net_offload offload;

static struct net_bed *ready(unsigned vps)
{
	struct net_bed *b = net_bed_new(vps, &(struct netvsp_options){ 0 });

	net_bed_ready(b, NVSP_PROTOCOL_VERSION_61, 9014);
	return b;
}

static void open_subs(struct net_bed *b, unsigned count)
{
	const struct nvsp_message m = { .type = le32_of(NVSP_MSG5_TYPE_SUBCHANNEL),
					.subchannel.operation = le32_of(1),
					.subchannel.num_subchannels = le32_of(count) };

	net_bed_ask(b, &m);
	test_guest_take_offers(b->g);
	for (unsigned i = 1; i <= count; i++)
		assert_true(net_bed_open(b, i));
	assert_true(net_bed_take(b, 0));
}

/* `from` goes on as a new one, which is returned. */
static struct net_bed *take_over(struct net_bed *from, unsigned vps)
{
	struct net_bed *to = net_bed_bare(vps, &(struct netvsp_options){ 0 });
	struct error err = { 0 };
	struct save_writer *w;
	struct save_reader *r;
	const void *data;
	size_t size;

	assert_true(test_guest_pause(from->g));
	w = test_guest_save(from->g);
	data = save_writer_bytes(w, &size);
	assert_int_equal(save_reader_of(data, size, &r, &err), 0);
	if (test_guest_restore(to->g, from->g, r, &err) < 0)
		fail_msg("%s", err.message);
	for (unsigned i = 0; i < NETVSP_MAX_CHANNELS; i++) {
		to->open[i] = from->open[i];
		to->ch[i] = from->ch[i];
		if (to->open[i])
			test_channel_move(&to->ch[i], to->g);
		from->open[i] = false;
	}
	to->receive_gpa = from->receive_gpa;
	to->send_gpa = from->send_gpa;
	to->scratch_gpa = from->scratch_gpa;
	to->section_size = from->section_size;
	to->section_count = from->section_count;
	to->request_id = from->request_id;
	save_reader_free(r);
	save_writer_free(w);
	net_bed_free(from);
	vmbus_resume(to->g->bus);
	test_guest_pump(to->g);
	return to;
}

static void both_ways(struct net_bed *b, unsigned channel)
{
	size_t size = net_bed_tcp(frame, 4, 8000, false), n;

	assert_int_equal(net_bed_deliver(b, frame, size, NULL), 0);
	assert_true(net_bed_take(b, 0));
	assert_int_equal(b->type, VMBUS_PACKET_TRANSFER_PAGES);
	net_bed_complete(b, 0, b->transaction);
	n = net_bed_packet(message, frame, size, NULL, 0);
	assert_int_equal(net_bed_send(b, channel, NVSP_CHANNEL_TYPE_DATA, message, n),
			 NVSP_STAT_SUCCESS);
	assert_int_equal(net_bed_frame(b, got, &offload), size);
	assert_memory_equal(got, frame, size);
}

static void test_goes_on(void **state)
{
	uint64_t held[HELD];
	struct net_bed *b = ready(3);
	size_t size = net_bed_tcp(frame, 4, 1000, false);
	uint8_t query[28] = { RNDIS_MSG_QUERY, 0, 0, 0, 28, 0, 0, 0, 99 };

	(void)state;
	open_subs(b, 2);
	for (unsigned i = 0; i < HELD; i++) {
		assert_int_equal(net_bed_deliver(b, frame, size, NULL), 0);
		assert_true(net_bed_take(b, 0));
		held[i] = b->transaction;
	}
	query[12] = 7;
	query[13] = 1;
	query[14] = 1;
	net_bed_post(b, 0, NVSP_CHANNEL_TYPE_CONTROL, query, sizeof(query));
	b = take_over(b, 3);
	assert_int_equal(netvsp_state(b->n).version, NVSP_PROTOCOL_VERSION_61);
	assert_int_equal(netvsp_state(b->n).mtu, 9000);
	assert_int_equal(netvsp_state(b->n).channels, 3);
	assert_int_equal(netvsp_state(b->n).filter, 13);
	/* The request from before is answered, and what the guest holds comes back. */
	assert_true(net_bed_take(b, 0));
	assert_int_equal(b->type, VMBUS_PACKET_COMPLETION);
	assert_int_equal(net_bed_rndis(b, 0, got, sizeof(got)), 28);
	assert_int_equal(got[8], 99);
	assert_int_equal(netvsp_state(b->n).sections_free, b->section_count - HELD);
	for (unsigned i = 0; i < HELD; i++)
		net_bed_complete(b, 0, held[i]);
	test_guest_pump(b->g);
	assert_int_equal(netvsp_state(b->n).sections_free, b->section_count);
	both_ways(b, 2);
	b = take_over(b, 3); /* and once more */
	both_ways(b, 1);
	net_bed_free(b);
}

static void test_before_the_driver(void **state)
{
	struct net_bed *b = net_bed_new(1, &(struct netvsp_options){ 0 });

	(void)state;
	b = take_over(b, 1);
	net_bed_ready(b, NVSP_PROTOCOL_VERSION_5, 9014);
	both_ways(b, 0);
	net_bed_free(b);
}

/* The same process goes on: a save that was given up. */
static void test_pause_and_resume(void **state)
{
	struct net_bed *b = ready(1);
	size_t size = net_bed_tcp(frame, 4, 100, false);

	(void)state;
	assert_true(test_guest_pause(b->g));
	assert_int_equal(net_bed_deliver(b, frame, size, NULL), 0);
	assert_false(net_bed_take(b, 0)); /* it stands still */
	vmbus_resume(b->g->bus);
	test_guest_pump(b->g);
	assert_true(net_bed_take(b, 0));
	net_bed_complete(b, 0, b->transaction);
	both_ways(b, 0);
	net_bed_free(b);
}

/* A packet that waits for a switch which takes nothing: saving does not wait for it. */
static void test_full_port(void **state)
{
	struct net_bed *b = ready(1);
	size_t n = net_bed_packet(message, frame, net_bed_tcp(frame, 4, 8900, false), NULL, 0);

	(void)state;
	while (!netvsp_counters(b->n).tx_waits) {
		net_bed_post(b, 0, NVSP_CHANNEL_TYPE_DATA, message, n);
		while (net_bed_take(b, 0) && !netvsp_counters(b->n).tx_waits)
			;
	}
	b = take_over(b, 1);
	assert_true(net_bed_take(b, 0)); /* given up, and said so */
	assert_int_equal(b->type, VMBUS_PACKET_COMPLETION);
	both_ways(b, 0);
	net_bed_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_goes_on),
		cmocka_unit_test(test_before_the_driver),
		cmocka_unit_test(test_pause_and_resume),
		cmocka_unit_test(test_full_port),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
