// SPDX-License-Identifier: MIT
/*
 * Frames both ways through the adapter: where they may lie, what may be said about them, offloads
 * and their checksums, receive scaling, backpressure, and guests that lie.
 */
#include "devices/netvsp/frame.h"
#include "devices/netvsp/netvsp_testing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BIG 70000u

static uint8_t frame[BIG], message[BIG], got[BIG];
static struct net_offload offload;

static struct net_bed *ready(unsigned vps)
{
	struct net_bed *b = net_bed_new(vps, &(struct netvsp_options){ 0 });

	net_bed_ready(b, NVSP_PROTOCOL_VERSION_61, 1514);
	return b;
}

/* --- transmit --- */

/* Sends `frame` with information; the status. */
static uint32_t transmit(struct net_bed *b, size_t size, const void *info, size_t info_size)
{
	size_t n = net_bed_packet(message, frame, size, info, info_size);

	return net_bed_send(b, 0, NVSP_CHANNEL_TYPE_DATA, message, n);
}

static void test_transmit(void **state)
{
	struct net_bed *b = ready(1);
	size_t size;

	(void)state;
	for (size_t payload = 0; payload <= 1460; payload += 73) {
		size = net_bed_tcp(frame, 4, payload, false);
		assert_int_equal(transmit(b, size, NULL, 0), NVSP_STAT_SUCCESS);
		assert_int_equal(net_bed_frame(b, got, &offload), size);
		assert_memory_equal(got, frame, size);
		assert_int_equal(offload.flags, 0);
		assert_int_equal(offload.segmentation, 0);
	}
	assert_int_equal(netvsp_counters(b->n).tx_frames, 21);
	net_bed_free(b);
}

/* The header in the send buffer, the rest in guest pages: what Linux calls a partial copy. */
static void test_transmit_in_two_places(void **state)
{
	struct nvsp_message m = { .type = le32_of(NVSP_MSG1_TYPE_SEND_RNDIS_PKT),
				  .rndis.send_buf_section_index = le32_of(3) };
	struct net_bed *b = ready(1);
	size_t size = net_bed_tcp(frame, 4, 1000, false);
	size_t total = net_bed_packet(message, frame, size, NULL, 0);

	(void)state;
	for (uint32_t cut = 0; cut < total; cut += 41) {
		m.rndis.send_buf_section_size = le32_of(cut);
		assert_int_equal(gmem_write(b->g->gm, b->send_gpa + 3 * 6144, message, cut), 0);
		/* Across a page boundary as well, from Linux 6.14 on. */
		assert_int_equal(
			gmem_write(b->g->gm, b->scratch_gpa + 4096 - 7, message + cut, total - cut),
			0);
		assert_int_equal(test_channel_request_gpa(&b->ch[0], 9, &m, sizeof(m),
							  b->scratch_gpa + 4096 - 7,
							  (uint32_t)(total - cut)),
				 0);
		assert_true(net_bed_take(b, 0));
		assert_int_equal(le32_get(b->m.status), NVSP_STAT_SUCCESS);
		assert_int_equal(net_bed_frame(b, got, &offload), size);
		assert_memory_equal(got, frame, size);
	}
	/* All of it in the send buffer. */
	m.rndis.send_buf_section_size = le32_of((uint32_t)total);
	assert_int_equal(gmem_write(b->g->gm, b->send_gpa + 3 * 6144, message, total), 0);
	assert_int_equal(test_channel_request(&b->ch[0], 9, &m, sizeof(m)), 0);
	assert_int_equal(net_bed_frame(b, got, &offload), size);
	assert_memory_equal(got, frame, size);
	net_bed_free(b);
}

static void test_several_in_one_packet(void **state)
{
	struct net_bed *b = ready(1);
	size_t sizes[8], total = 0;

	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		sizes[i] = net_bed_tcp(frame, 4, 10 + 100 * i, false);
		total += net_bed_packet(message + total, frame, sizes[i], NULL, 0);
	}
	assert_int_equal(net_bed_send(b, 0, 0, message, total), NVSP_STAT_SUCCESS);
	for (unsigned i = 0; i < 8; i++) {
		net_bed_tcp(frame, 4, 10 + 100 * i, false);
		assert_int_equal(net_bed_frame(b, got, &offload), sizes[i]);
		assert_memory_equal(got, frame, sizes[i]);
	}
	/* A bad one ends the packet; those before it have gone. */
	message[round_up64(44 + sizes[0], 8) + 4] = 3;
	assert_int_equal(net_bed_send(b, 0, 0, message, total), NVSP_STAT_INVALID_RNDIS_PKT);
	assert_int_equal(net_bed_frame(b, got, &offload), sizes[0]);
	assert_int_equal(net_bed_frame(b, got, &offload), 0);
	net_bed_free(b);
}

/* What is asked of the port, finished by the test, must be what was sent with right checksums. */
static void test_transmit_checksums(void **state)
{
	static const unsigned families[] = { 4, 6 };
	struct net_bed *b = ready(1);
	uint8_t info[32];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		size_t size = net_bed_tcp(frame, families[i], 333, true), start;
		uint32_t family =
			families[i] == 4 ? RNDIS_CHECKSUM_TX_IPV4 : RNDIS_CHECKSUM_TX_IPV6;

		net_bed_info(info, RNDIS_PPI_CHECKSUM,
			     family | RNDIS_CHECKSUM_TX_TCP | RNDIS_CHECKSUM_TX_IP_HEADER);
		/* Whatever the driver left there. */
		frame_put16(frame + (families[i] == 4 ? 34 : 54) + 16, 0xdead);
		if (families[i] == 4)
			frame_put16(frame + 24, 0xbeef);
		assert_int_equal(transmit(b, size, info, 16), NVSP_STAT_SUCCESS);
		assert_int_equal(net_bed_frame(b, got, &offload), size);
		assert_int_equal(offload.flags, NET_CHECKSUM_NEEDED);
		start = offload.checksum_start;
		assert_int_equal(start, families[i] == 4 ? 34 : 54);
		assert_int_equal(offload.checksum_offset, 16);
		frame_put16(got + start + 16,
			    (uint16_t)~frame_fold(frame_sum(got + start, size - start)));
		assert_true(net_bed_tcp_good(got, size));
	}
	/* A checksum of something that has none. */
	net_bed_tcp(frame, 4, 100, true);
	frame[23] = 1; /* ICMP */
	assert_int_equal(transmit(b, 154, info, 16), NVSP_STAT_INVALID_RNDIS_PKT);
	net_bed_free(b);
}

static void test_large_send(void **state)
{
	struct net_bed *b = ready(1);
	uint8_t info[16];

	(void)state;
	for (unsigned ip = 4; ip <= 6; ip += 2) {
		size_t size = net_bed_tcp(frame, ip, 60000, true), l4 = ip == 4 ? 34 : 54;

		/* Linux leaves lengths and the header's checksum empty, and CWR is ECN's. */
		frame_put16(frame + (ip == 4 ? 16 : 18), 0);
		frame_put16(frame + l4 + 16, 0x4711);
		frame[l4 + 13] |= 0x80;
		net_bed_info(info, RNDIS_PPI_LARGE_SEND,
			     1448 | 1u << 30 | (ip == 6 ? 1u << 31 : 0));
		assert_int_equal(transmit(b, size, info, 16), NVSP_STAT_SUCCESS);
		assert_int_equal(net_bed_frame(b, got, &offload), size);
		assert_int_equal(offload.segmentation,
				 (ip == 4 ? NET_SEGMENT_TCP4 : NET_SEGMENT_TCP6) | NET_SEGMENT_ECN);
		assert_int_equal(offload.segment_size, 1448);
		assert_int_equal(offload.header_size, l4 + 20);
		assert_int_equal(offload.flags, NET_CHECKSUM_NEEDED);
		assert_int_equal(offload.checksum_start, l4);
		/* As a whole it is right too. */
		frame_put16(got + l4 + 16, (uint16_t)~frame_fold(frame_sum(got + l4, size - l4)));
		assert_true(net_bed_tcp_good(got, size));
		/* One that fits into a segment is not cut. */
		size = net_bed_tcp(frame, ip, 1448, true);
		assert_int_equal(transmit(b, size, info, 16), NVSP_STAT_SUCCESS);
		assert_int_equal(net_bed_frame(b, got, &offload), size);
		assert_int_equal(offload.segmentation, NET_SEGMENT_NONE);
		assert_int_equal(offload.flags, NET_CHECKSUM_NEEDED);
	}
	assert_int_equal(netvsp_counters(b->n).tx_segmented, 2);
	/* Nonsense. */
	net_bed_info(info, RNDIS_PPI_LARGE_SEND, 0xfffff);
	assert_int_equal(transmit(b, 1500, info, 16), NVSP_STAT_INVALID_RNDIS_PKT);
	net_bed_info(info, RNDIS_PPI_LARGE_SEND, 1448);
	frame[12] = 0; /* no IP at all */
	assert_int_equal(transmit(b, 1500, info, 16), NVSP_STAT_INVALID_RNDIS_PKT);
	net_bed_free(b);
}

static void test_transmit_tags(void **state)
{
	struct net_bed *b = ready(1);
	uint8_t info[32];
	size_t size = net_bed_tcp(frame, 4, 1460, true), n;

	(void)state;
	/* Priority 5, DEI, VLAN 0x123, and a checksum after the tag. */
	n = net_bed_info(info, RNDIS_PPI_VLAN, 5 | 8 | 0x123 << 4);
	n += net_bed_info(info + n, RNDIS_PPI_CHECKSUM,
			  RNDIS_CHECKSUM_TX_IPV4 | RNDIS_CHECKSUM_TX_TCP);
	assert_int_equal(transmit(b, size, info, n), NVSP_STAT_SUCCESS);
	assert_int_equal(net_bed_frame(b, got, &offload), size + 4);
	assert_int_equal(frame_get16(got + 12), 0x8100);
	assert_int_equal(frame_get16(got + 14), 0xb123);
	assert_memory_equal(got, frame, 12);
	assert_int_equal(offload.checksum_start, 38);
	frame_put16(got + 54, (uint16_t)~frame_fold(frame_sum(got + 38, size + 4 - 38)));
	assert_true(net_bed_tcp_good(got, size + 4));
	/* Tag 0 is none. */
	net_bed_info(info, RNDIS_PPI_VLAN, 0);
	assert_int_equal(transmit(b, size, info, 16), NVSP_STAT_SUCCESS);
	assert_int_equal(net_bed_frame(b, got, &offload), size);
	net_bed_free(b);
}

static void test_transmit_sizes(void **state)
{
	struct net_bed *b = ready(1);

	(void)state;
	memset(frame, 0x11, sizeof(frame));
	assert_int_equal(transmit(b, 13, NULL, 0), NVSP_STAT_INVALID_RNDIS_PKT);
	assert_int_equal(transmit(b, 14, NULL, 0), NVSP_STAT_SUCCESS);
	assert_int_equal(transmit(b, 1518, NULL, 0), NVSP_STAT_SUCCESS); /* with a tag inside */
	assert_int_equal(transmit(b, 1519, NULL, 0), NVSP_STAT_INVALID_RNDIS_PKT);
	assert_int_equal(transmit(b, 60000, NULL, 0), NVSP_STAT_INVALID_RNDIS_PKT);
	net_bed_free(b);
	b = net_bed_new(1, &(struct netvsp_options){ 0 });
	net_bed_ready(b, NVSP_PROTOCOL_VERSION_61, 65535);
	assert_int_equal(transmit(b, 65000, NULL, 0), NVSP_STAT_SUCCESS);
	assert_int_equal(net_bed_frame(b, got, &offload), 65000);
	net_bed_free(b);
}

/* Every field of the RNDIS header that lies, one after the other. */
static void test_lying_headers(void **state)
{
	static const uint32_t lies[] = { 0,    1,    7,          35,         37,        100,
					 1499, 4096, 0x7fffffff, 0xfffffff0, 0xffffffff };
	struct net_bed *b = ready(1);
	size_t size = net_bed_tcp(frame, 4, 1000, false), total;
	uint8_t info[48];
	unsigned refused = 0;

	(void)state;
	net_bed_info(info, RNDIS_PPI_CHECKSUM, RNDIS_CHECKSUM_TX_IPV4 | RNDIS_CHECKSUM_TX_TCP);
	net_bed_info(info + 16, RNDIS_PPI_VLAN, 0x10);
	net_bed_info(info + 32, RNDIS_PPI_HASH, 0x12345678);
	for (size_t at = 0; at < 44 + 48; at += 4) {
		for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
			le32 lie = le32_of(lies[i]);
			uint32_t status;

			total = net_bed_packet(message, frame, size, info, sizeof(info));
			memcpy(message + at, &lie, 4);
			status = net_bed_send(b, 0, 0, message, total);
			refused += status != NVSP_STAT_SUCCESS;
			while (net_bed_frame(b, got, &offload))
				;
		}
	}
	assert_true(refused > 40);
	assert_int_equal(transmit(b, size, info, sizeof(info)), NVSP_STAT_SUCCESS);
	assert_int_equal(net_bed_frame(b, got, &offload), size + 4);
	net_bed_free(b);
}

static void test_lying_packets(void **state)
{
	struct nvsp_message m = { .type = le32_of(NVSP_MSG1_TYPE_SEND_RNDIS_PKT) };
	static const struct {
		uint32_t index, size;
	} sections[] = {
		{ 0, 6145 },         { 0, 0xffffffff }, { 21, 100 },
		{ 0xfffffffe, 100 }, { 0, 0 },          { 0, 7 },
	};
	struct net_bed *b = ready(1);
	uint8_t ranges[16 + 65 * 16 + 40] = { 0 };
	struct writer w = writer_of(ranges, sizeof(ranges));

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sections); i++) {
		m.rndis.send_buf_section_index = le32_of(sections[i].index);
		m.rndis.send_buf_section_size = le32_of(sections[i].size);
		net_bed_ask(b, &m);
		assert_int_not_equal(le32_get(b->m.status), NVSP_STAT_SUCCESS);
	}
	/* Pages that are not there. */
	m.rndis.send_buf_section_index = le32_of(NVSP_INVALID_SECTION);
	assert_int_equal(
		test_channel_request_gpa(&b->ch[0], 1, &m, sizeof(m), TEST_GUEST_RAM - 50, 100), 0);
	assert_true(net_bed_take(b, 0));
	assert_int_equal(le32_get(b->m.status), NVSP_STAT_FAIL);
	/* Too many ranges. */
	writer_le32(&w, 0);
	writer_le32(&w, 65);
	for (unsigned i = 0; i < 65; i++) {
		writer_le32(&w, 1);
		writer_le32(&w, 0);
		writer_le64(&w, b->scratch_gpa / 4096);
	}
	writer_put(&w, &m, 40);
	assert_int_equal(
		test_channel_send(&b->ch[0], VMBUS_PACKET_GPA_DIRECT, 1, ranges, w.at, w.at - 40),
		0);
	assert_true(net_bed_take(b, 0));
	assert_int_equal(le32_get(b->m.status), NVSP_STAT_FAIL);
	net_bed_free(b);
}

static void test_no_link(void **state)
{
	struct net_bed *b = ready(1);
	size_t size = net_bed_tcp(frame, 4, 100, false);

	(void)state;
	netvsp_set_link(b->n, true, 1000000000);
	test_guest_pump(b->g);
	while (net_bed_rndis(b, 0, got, sizeof(got)))
		;
	assert_int_equal(transmit(b, size, NULL, 0), NVSP_STAT_SUCCESS);
	assert_int_equal(net_bed_frame(b, got, &offload), 0);
	assert_int_equal(netvsp_counters(b->n).tx_no_link, 1);
	assert_int_equal(net_bed_deliver(b, frame, size, NULL), 0);
	assert_false(net_bed_take(b, 0));
	netvsp_disconnect(b->n);
	assert_int_equal(transmit(b, size, NULL, 0), NVSP_STAT_SUCCESS);
	assert_int_equal(netvsp_counters(b->n).tx_no_link, 2);
	net_bed_free(b);
}

/* A switch that takes nothing: packets wait, then frames drop, and nothing is held up for ever. */
static void test_full_port(void **state)
{
	struct net_bed *b = ready(1);
	size_t size = net_bed_tcp(frame, 4, 1460, false), total;
	unsigned sent = 0, completed = 0, frames = 0;

	(void)state;
	total = net_bed_packet(message, frame, size, NULL, 0);
	while (netvsp_counters(b->n).tx_waits == 0) {
		net_bed_post(b, 0, 0, message, total);
		sent++;
		while (net_bed_take(b, 0))
			completed++;
		assert_true(sent < 2000);
	}
	assert_int_equal(completed, sent - 1);
	assert_true(sent > 500); /* a megabyte of them */
	/* One more waits in the guest's ring. */
	net_bed_post(b, 0, 0, message, total);
	assert_false(net_bed_take(b, 0));
	/* Room comes: both go, in order. */
	while (net_bed_frame(b, got, &offload))
		frames++;
	while (net_bed_take(b, 0))
		completed++;
	while (net_bed_frame(b, got, &offload))
		frames++;
	assert_int_equal(completed, sent + 1);
	assert_int_equal(frames, sent + 1);
	/* Again, and the switch does not come back. */
	for (unsigned i = 0; i < sent; i++) {
		net_bed_post(b, 0, 0, message, total);
		while (net_bed_take(b, 0))
			;
	}
	assert_false(net_bed_take(b, 0));
	for (int i = 0; i < 24; i++)
		loop_once(b->g->loop, 50);
	assert_true(net_bed_take(b, 0));
	assert_true(netvsp_counters(b->n).tx_full > 0);
	assert_int_equal(transmit(b, size, NULL, 0), NVSP_STAT_SUCCESS);
	net_bed_free(b);
}

/* --- receive --- */

/* Takes apart an RNDIS packet message in `got`; the frame's size, and where it is. */
struct received {
	const uint8_t *frame;
	size_t size;
	uint32_t checksum, vlan, hash, id;
	bool has_checksum, has_vlan, has_hash, has_id;
};

static struct received take_apart(const uint8_t *m, size_t size)
{
	struct reader r = reader_of(m, size);
	struct received x = { 0 };
	uint32_t offset, info, info_size;

	assert_int_equal(reader_le32(&r), RNDIS_MSG_PACKET);
	assert_int_equal(reader_le32(&r), size);
	offset = reader_le32(&r);
	x.size = reader_le32(&r);
	x.frame = m + 8 + offset;
	assert_true(range_inside(8 + (size_t)offset, x.size, size));
	reader_skip(&r, 12);
	info = reader_le32(&r);
	info_size = reader_le32(&r);
	reader_seek(&r, 8 + info);
	for (; info_size; info_size -= 16) {
		uint32_t type, value;

		assert_int_equal(reader_le32(&r), 16);
		type = reader_le32(&r);
		assert_int_equal(reader_le32(&r), 12);
		value = reader_le32(&r);
		x.has_checksum |= type == RNDIS_PPI_CHECKSUM;
		x.has_vlan |= type == RNDIS_PPI_VLAN;
		x.has_hash |= type == RNDIS_PPI_HASH;
		x.has_id |= type == RNDIS_PPI_ID;
		*(type == RNDIS_PPI_CHECKSUM ? &x.checksum
		  : type == RNDIS_PPI_VLAN   ? &x.vlan
		  : type == RNDIS_PPI_HASH   ? &x.hash
					     : &x.id) = value;
	}
	assert_true(reader_ok(&r));
	return x;
}

/* Range `i` of the packet that was taken last. */
static struct received range(struct net_bed *b, unsigned i)
{
	assert_int_equal(
		gmem_read(b->g->gm, b->receive_gpa + b->range_offset[i], got, b->range_bytes[i]),
		0);
	return take_apart(got, b->range_bytes[i]);
}

static void test_receive(void **state)
{
	struct net_bed *b = ready(1);
	uint32_t sections = netvsp_state(b->n).sections_free;
	struct received x;

	(void)state;
	for (size_t payload = 0; payload <= 1460; payload += 73) {
		size_t size = net_bed_tcp(frame, 4 + 2 * (payload & 1), MIN(payload, 1440), false);

		assert_int_equal(net_bed_deliver(b, frame, size, NULL), 0);
		assert_true(net_bed_take(b, 0));
		assert_int_equal(b->type, VMBUS_PACKET_TRANSFER_PAGES);
		assert_int_equal(b->range_count, 1);
		assert_int_equal(le32_get(b->m.type), NVSP_MSG1_TYPE_SEND_RNDIS_PKT);
		assert_int_equal(le32_get(b->m.rndis.channel_type), NVSP_CHANNEL_TYPE_DATA);
		x = range(b, 0);
		assert_int_equal(x.size, size);
		assert_memory_equal(x.frame, frame, size);
		assert_false(x.has_checksum);
		assert_int_equal(netvsp_state(b->n).sections_free, sections - 1);
		net_bed_complete(b, 0, b->transaction);
		test_guest_pump(b->g);
		assert_int_equal(netvsp_state(b->n).sections_free, sections);
	}
	net_bed_free(b);
}

/* What arrives together goes to the guest together. */
static void test_receive_in_batches(void **state)
{
	struct net_bed *b = ready(1);
	size_t size = net_bed_tcp(frame, 4, 100, false);
	const struct iovec iov = { frame, size };
	unsigned ranges = 0, packets = 0;

	(void)state;
	(void)net_port_arm(b->port);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(net_port_send(b->port, NULL, &iov, 1, size), 0);
	net_port_flush(b->port);
	while (net_bed_take(b, 0)) {
		ranges += b->range_count;
		packets++;
		net_bed_complete(b, 0, b->transaction);
	}
	assert_int_equal(ranges, 100);
	assert_int_equal(packets, 2); /* 64 in one */
	test_guest_pump(b->g);
	assert_int_equal(netvsp_state(b->n).sections_free, netvsp_state(b->n).sections);
	net_bed_free(b);
}

static void test_receive_checksums(void **state)
{
	struct net_offload needed = { .flags = NET_CHECKSUM_NEEDED, .checksum_offset = 16 };
	const struct net_offload valid = { .flags = NET_CHECKSUM_VALID };
	struct net_bed *b = ready(1);
	struct received x;

	(void)state;
	for (size_t payload = 0; payload < 300; payload += 13) {
		size_t size = net_bed_tcp(frame, 4 + 2 * (payload & 1), payload, true);

		needed.checksum_start = payload & 1 ? 54 : 34;
		assert_int_equal(net_bed_deliver(b, frame, size, &needed), 0);
		assert_true(net_bed_take(b, 0));
		x = range(b, 0);
		assert_int_equal(x.checksum, RNDIS_CHECKSUM_RX_TCP_GOOD |
						     (payload & 1 ? 0 : RNDIS_CHECKSUM_RX_IP_GOOD));
		assert_true(net_bed_tcp_good(x.frame, x.size));
		net_bed_complete(b, 0, b->transaction);
	}
	assert_int_equal(net_bed_deliver(b, frame, net_bed_tcp(frame, 4, 10, false), &valid), 0);
	assert_true(net_bed_take(b, 0));
	x = range(b, 0);
	assert_true(x.has_checksum);
	net_bed_complete(b, 0, b->transaction);
	/* One that begins where we cannot reach is nobody's fault but the frame's. */
	needed.checksum_start = 200;
	assert_int_equal(net_bed_deliver(b, frame, net_bed_tcp(frame, 4, 1000, false), &needed), 0);
	assert_false(net_bed_take(b, 0));
	assert_int_equal(netvsp_counters(b->n).rx_invalid, 1);
	net_bed_free(b);
}

static void test_receive_tags(void **state)
{
	struct net_offload needed = { .flags = NET_CHECKSUM_NEEDED,
				      .checksum_offset = 16,
				      .checksum_start = 38 };
	struct net_bed *b = ready(1);
	size_t size = net_bed_tcp(frame, 4, 500, true);
	struct received x;

	(void)state;
	memmove(frame + 16, frame + 12, size - 12);
	frame_put16(frame + 12, 0x8100);
	frame_put16(frame + 14, 0xb123);
	assert_int_equal(net_bed_deliver(b, frame, size + 4, &needed), 0);
	assert_true(net_bed_take(b, 0));
	x = range(b, 0);
	assert_int_equal(x.vlan, 5 | 8 | 0x123 << 4);
	assert_int_equal(x.size, size);
	assert_true(net_bed_tcp_good(x.frame, x.size));
	assert_memory_equal(x.frame, frame, 12);
	net_bed_free(b);
	/* A guest that has not said it knows tags gets them in the frame. */
	b = net_bed_new(1, &(struct netvsp_options){ 0 });
	net_bed_ready(b, NVSP_PROTOCOL_VERSION_1, 0);
	assert_int_equal(net_bed_deliver(b, frame, size + 4, &needed), 0);
	assert_true(net_bed_take(b, 0));
	x = range(b, 0);
	assert_false(x.has_vlan);
	assert_int_equal(x.size, size + 4);
	assert_true(net_bed_tcp_good(x.frame, x.size));
	net_bed_free(b);
}

static uint32_t set_filter(struct net_bed *b, uint32_t filter)
{
	le32 f = le32_of(filter);

	return net_bed_set(b, OID_GEN_CURRENT_PACKET_FILTER, &f, 4);
}

static void test_filters(void **state)
{
	static const uint8_t us[] = { 0x00, 0x15, 0x5d, 0x01, 0x02, 0x03 },
			     them[] = { 2, 2, 2, 2, 2, 2 };
	static const uint8_t all[] = { 255, 255, 255, 255, 255, 255 },
			     group[] = { 1, 0, 0x5e, 0, 0, 1 };
	static const uint8_t *const to[] = { us, them, all, group };
	static const struct {
		uint32_t filter;
		bool wanted[4];
	} cases[] = {
		{ 0, { false, false, false, false } }, { 1, { true, false, false, false } },
		{ 8, { false, false, true, false } },  { 4, { false, false, false, true } },
		{ 2, { false, false, false, false } }, { 0x20, { true, true, true, true } },
	};
	struct net_bed *b = ready(1);
	size_t size = net_bed_tcp(frame, 4, 50, false);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(set_filter(b, cases[i].filter), 0);
		for (size_t j = 0; j < 4; j++) {
			memcpy(frame, to[j], 6);
			assert_int_equal(net_bed_deliver(b, frame, size, NULL), 0);
			assert_int_equal(net_bed_take(b, 0), cases[i].wanted[j]);
			if (cases[i].wanted[j])
				net_bed_complete(b, 0, b->transaction);
		}
	}
	assert_int_equal(set_filter(b, 2), 0);
	assert_int_equal(net_bed_set(b, OID_802_3_MULTICAST_LIST, group, 6), 0);
	memcpy(frame, group, 6);
	assert_int_equal(net_bed_deliver(b, frame, size, NULL), 0);
	assert_true(net_bed_take(b, 0));
	net_bed_free(b);
}

static void test_too_large(void **state)
{
	struct net_bed *b = ready(1);

	(void)state;
	assert_int_equal(net_bed_deliver(b, frame, net_bed_tcp(frame, 4, 3000, false), NULL), 0);
	assert_false(net_bed_take(b, 0));
	assert_int_equal(netvsp_counters(b->n).rx_invalid, 1);
	net_bed_free(b);
}

/* All segments together are the frame; each is right by itself. */
static void test_receive_segments(void **state)
{
	static uint8_t whole[BIG];
	struct net_bed *b = ready(1);

	(void)state;
	for (unsigned ip = 4; ip <= 6; ip += 2) {
		size_t size = net_bed_tcp(frame, ip, 60001, true), l4 = ip == 4 ? 34 : 54, at = 0;
		const struct net_offload o = { .flags = NET_CHECKSUM_NEEDED,
					       .segmentation = ip == 4 ? NET_SEGMENT_TCP4
								       : NET_SEGMENT_TCP6,
					       .header_size = (uint16_t)(l4 + 20),
					       .segment_size = 1400,
					       .checksum_start = (uint16_t)l4,
					       .checksum_offset = 16 };
		unsigned count = 0;

		frame[l4 + 13] = 0x99; /* CWR, ACK, PSH, FIN */
		assert_int_equal(net_bed_deliver(b, frame, size, &o), 0);
		while (net_bed_take(b, 0)) {
			for (unsigned i = 0; i < b->range_count; i++, count++) {
				struct received x = range(b, i);
				uint8_t flags = x.frame[l4 + 13];

				assert_true(net_bed_tcp_good(x.frame, x.size));
				assert_true(x.checksum & RNDIS_CHECKSUM_RX_TCP_GOOD);
				assert_int_equal(
					frame_get16(x.frame + l4 + 6),
					0x1000 + at % 65536 -
						(0x1000 + at % 65536 > 0xffff ? 0x10000 : 0));
				if (ip == 4)
					assert_int_equal(frame_get16(x.frame + 18), 0x1234 + count);
				assert_int_equal(flags & 0x80, count ? 0 : 0x80);
				assert_int_equal(flags & 9, at + 1400 < 60001 ? 0 : 9);
				memcpy(whole + at, x.frame + l4 + 20, x.size - l4 - 20);
				at += x.size - l4 - 20;
			}
			net_bed_complete(b, 0, b->transaction);
		}
		assert_int_equal(count, 43);
		assert_int_equal(at, 60001);
		assert_memory_equal(whole, frame + l4 + 20, 60001);
	}
	test_guest_pump(b->g);
	assert_int_equal(netvsp_state(b->n).sections_free, netvsp_state(b->n).sections);
	net_bed_free(b);
}

static uint32_t set_coalescing(struct net_bed *b, uint8_t value)
{
	struct ndis_offload_parameters p = {
		.header = { NDIS_OBJECT_TYPE_DEFAULT, 3, le16_of(sizeof(p)) },
		.rsc_ip4 = value,
		.rsc_ip6 = value,
	};

	return net_bed_set(b, OID_TCP_OFFLOAD_PARAMETERS, &p, sizeof(p));
}

static void test_receive_coalesced(void **state)
{
	static uint8_t whole[BIG];
	struct net_bed *b = ready(1);
	size_t size = net_bed_tcp(frame, 4, 60001, true), at = 0;
	const struct net_offload o = { .flags = NET_CHECKSUM_NEEDED,
				       .segmentation = NET_SEGMENT_TCP4,
				       .header_size = 54,
				       .segment_size = 1400,
				       .checksum_start = 34,
				       .checksum_offset = 16 };

	(void)state;
	assert_int_equal(set_coalescing(b, 2), 0);
	assert_true(netvsp_state(b->n).coalescing);
	assert_int_equal(net_bed_deliver(b, frame, size, &o), 0);
	assert_true(net_bed_take(b, 0));
	for (unsigned i = 0; i < b->range_count; i++) {
		struct received x = range(b, i);

		assert_true(x.has_id);
		assert_int_equal(x.id & 0xff, 1);
		assert_int_equal(x.id >> 8 & 7,
				 1 | (i ? 0 : 2) | (i + 1 == b->range_count ? 4 : 0));
		assert_int_equal(x.has_checksum, !i);
		memcpy(whole + at, x.frame, x.size);
		at += x.size;
	}
	assert_int_equal(at, size);
	assert_memory_equal(whole, frame, size);
	net_bed_complete(b, 0, b->transaction);
	assert_int_equal(set_coalescing(b, 1), 0);
	assert_int_equal(net_bed_deliver(b, frame, size, &o), 0);
	assert_true(net_bed_take(b, 0));
	assert_false(range(b, 0).has_id);
	net_bed_free(b);
}

/* What a hostile sender makes of segmentation. */
static void test_bad_segmentation(void **state)
{
	struct net_offload o = { .flags = NET_CHECKSUM_NEEDED,
				 .segmentation = NET_SEGMENT_TCP4,
				 .segment_size = 1,
				 .checksum_start = 34,
				 .checksum_offset = 16 };
	struct net_bed *b = ready(1);
	size_t size = net_bed_tcp(frame, 4, 60000, true);

	(void)state;
	assert_int_equal(net_bed_deliver(b, frame, size, &o), 0); /* 60,000 segments */
	assert_false(net_bed_take(b, 0));
	o.segment_size = 2000; /* beyond the MTU */
	assert_int_equal(net_bed_deliver(b, frame, size, &o), 0);
	assert_false(net_bed_take(b, 0));
	o.segment_size = 1400;
	o.segmentation = NET_SEGMENT_TCP6; /* it is IPv4 */
	assert_int_equal(net_bed_deliver(b, frame, size, &o), 0);
	assert_false(net_bed_take(b, 0));
	o.segmentation = NET_SEGMENT_UDP;
	assert_int_equal(net_bed_deliver(b, frame, size, &o), 0);
	assert_false(net_bed_take(b, 0));
	o.segmentation = NET_SEGMENT_TCP4;
	frame[46] = 0xf0; /* options that end nowhere near */
	assert_int_equal(net_bed_deliver(b, frame, 70, &o), 0);
	assert_false(net_bed_take(b, 0));
	assert_int_equal(netvsp_counters(b->n).rx_invalid, 5);
	net_bed_free(b);
}

/* A guest that completes nothing, then everything, then everything again. */
static void test_receive_backpressure(void **state)
{
	static uint64_t transactions[4096];
	struct net_bed *b = ready(1);
	size_t size = net_bed_tcp(frame, 4, 1000, false);
	const struct iovec iov = { frame, size };
	unsigned sent = 0, ranges = 0, packets = 0;
	uint64_t refused;

	(void)state;
	(void)net_port_arm(b->port);
	while (!net_port_send(b->port, NULL, &iov, 1, size)) {
		net_port_flush(b->port);
		if (sent++ % 32 == 0)
			test_guest_pump(b->g);
		assert_true(sent < 5000);
	}
	while (net_bed_take(b, 0)) {
		ranges += b->range_count;
		transactions[packets++] = b->transaction;
	}
	/* All but those for control messages; the rest is in the port's ring. */
	assert_int_equal(ranges, b->section_count - 4);
	assert_true(sent > ranges + 900);
	assert_int_equal(netvsp_counters(b->n).rx_waits > 0, true);
	/* Control goes on. */
	assert_int_equal(set_filter(b, 1), 0);
	for (unsigned i = 0; i < packets; i++)
		net_bed_complete(b, 0, transactions[i]);
	while (net_bed_take(b, 0)) {
		ranges += b->range_count;
		net_bed_complete(b, 0, b->transaction);
	}
	assert_int_equal(ranges, sent);
	test_guest_pump(b->g);
	assert_int_equal(netvsp_state(b->n).sections_free, b->section_count);
	refused = netvsp_counters(b->n).packets_refused;
	for (unsigned i = 0; i < packets; i++)
		net_bed_complete(b, 0, transactions[i]);
	test_guest_pump(b->g);
	assert_int_equal(netvsp_counters(b->n).packets_refused, refused + packets);
	assert_int_equal(netvsp_state(b->n).sections_free, b->section_count);
	net_bed_free(b);
}

/* --- receive scaling --- */

static size_t rss_parameters(uint8_t *p, unsigned entries, unsigned channels, uint16_t flags)
{
	static const uint8_t key[40] = {
		0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67,
		0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb
	};
	struct writer w = writer_of(p, 1024);

	writer_u8(&w, NDIS_OBJECT_TYPE_RSS_PARAMETERS);
	writer_u8(&w, 2);
	writer_le16(&w, 40);
	writer_le16(&w, flags);
	writer_le16(&w, 0);
	writer_le32(&w, NDIS_HASH_FUNCTION_TOEPLITZ | NDIS_HASH_IPV4 | NDIS_HASH_TCP_IPV4);
	writer_le32(&w, 4 * entries);
	writer_le32(&w, 40);
	writer_le32(&w, 40);
	writer_le32(&w, 40 + 4 * entries);
	writer_zero(&w, 12);
	for (unsigned i = 0; i < entries; i++)
		writer_le32(&w, i % channels);
	writer_put(&w, key, sizeof(key));
	assert_true(writer_ok(&w));
	return w.at;
}

static void test_receive_scaling(void **state)
{
	const struct nvsp_message subs = { .type = le32_of(NVSP_MSG5_TYPE_SUBCHANNEL),
					   .subchannel.operation = le32_of(1),
					   .subchannel.num_subchannels = le32_of(3) };
	struct net_bed *b = ready(4);
	unsigned seen[4] = { 0 };
	uint8_t p[1024];
	size_t size;

	(void)state;
	net_bed_ask(b, &subs);
	test_guest_take_offers(b->g);
	for (unsigned i = 1; i < 4; i++)
		assert_true(net_bed_open(b, i));
	assert_true(net_bed_take(b, 0));
	assert_int_equal(
		net_bed_set(b, OID_GEN_RECEIVE_SCALE_PARAMETERS, p, rss_parameters(p, 128, 4, 0)),
		0);
	assert_true(netvsp_state(b->n).rss);
	size = net_bed_tcp(frame, 4, 100, false);
	for (unsigned flow = 0; flow < 400; flow++) {
		uint64_t rx, tx;

		frame_put16(frame + 34, (uint16_t)(1000 + flow));
		assert_int_equal(net_bed_deliver(b, frame, size, NULL), 0);
		for (unsigned c = 0; c < 4; c++) {
			while (net_bed_take(b, c)) {
				assert_true(range(b, 0).has_hash);
				seen[c]++;
				net_bed_complete(b, c, b->transaction);
			}
			assert_true(netvsp_channel_counters(b->n, c, &rx, &tx));
			assert_int_equal(rx, seen[c]);
		}
	}
	for (unsigned c = 0; c < 4; c++)
		assert_in_range(seen[c], 60, 140);
	/* A completion on another channel than the packet came on is refused. */
	assert_int_equal(
		net_bed_set(b, OID_GEN_RECEIVE_SCALE_PARAMETERS, p, rss_parameters(p, 1, 1, 0)), 0);
	assert_int_equal(net_bed_deliver(b, frame, size, NULL), 0);
	assert_true(net_bed_take(b, 0));
	net_bed_complete(b, 1, b->transaction);
	test_guest_pump(b->g);
	assert_int_equal(netvsp_state(b->n).sections_free, b->section_count - 1);
	/* Frames can be sent on any. */
	size = net_bed_packet(message, frame, size, NULL, 0);
	assert_int_equal(net_bed_send(b, 3, 0, message, size), NVSP_STAT_SUCCESS);
	/* Off again. */
	assert_int_equal(net_bed_set(b, OID_GEN_RECEIVE_SCALE_PARAMETERS, p,
				     rss_parameters(p, 128, 4, NDIS_RSS_PARAM_DISABLE)),
			 0);
	assert_false(netvsp_state(b->n).rss);
	net_bed_free(b);
}

static void test_bad_scaling(void **state)
{
	struct net_bed *b = net_bed_new(4, &(struct netvsp_options){ .max_channels = 4 });
	uint8_t p[1024];
	size_t size;

	(void)state;
	net_bed_ready(b, NVSP_PROTOCOL_VERSION_61, 1514);
	size = rss_parameters(p, 128, 5, 0); /* channel 4 is none */
	assert_int_equal(net_bed_set(b, OID_GEN_RECEIVE_SCALE_PARAMETERS, p, size),
			 RNDIS_STATUS_INVALID_DATA.value);
	size = rss_parameters(p, 129, 4, 0);
	assert_int_equal(net_bed_set(b, OID_GEN_RECEIVE_SCALE_PARAMETERS, p, size),
			 RNDIS_STATUS_INVALID_DATA.value);
	for (size_t cut = 0; cut < 28; cut++)
		assert_int_equal(net_bed_set(b, OID_GEN_RECEIVE_SCALE_PARAMETERS, p, cut),
				 RNDIS_STATUS_INVALID_LENGTH.value);
	for (size_t at = 8; at < 28; at++) {
		size = rss_parameters(p, 16, 4, 0);
		p[at] ^= 0x81;
		(void)net_bed_set(b, OID_GEN_RECEIVE_SCALE_PARAMETERS, p, size);
	}
	net_bed_free(b);
}

/* Closing with frames in the guest's hands and others waiting. */
static void test_close_in_the_middle(void **state)
{
	struct net_bed *b = ready(1);
	size_t size = net_bed_tcp(frame, 4, 1000, false);

	(void)state;
	for (unsigned i = 0; i < 300; i++)
		(void)net_bed_deliver(b, frame, size, NULL);
	test_channel_close(&b->ch[0]);
	b->open[0] = false;
	assert_int_equal(netvsp_state(b->n).sections, 0);
	assert_true(net_bed_open(b, 0));
	net_bed_ready(b, NVSP_PROTOCOL_VERSION_5, 9014);
	while (net_bed_take(b, 0))
		net_bed_complete(b, 0, b->transaction);
	test_guest_pump(b->g);
	assert_int_equal(netvsp_state(b->n).sections_free, b->section_count);
	size = net_bed_tcp(frame, 4, 8900, false);
	assert_int_equal(net_bed_deliver(b, frame, size, NULL), 0);
	assert_true(net_bed_take(b, 0));
	assert_int_equal(range(b, 0).size, size);
	net_bed_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_transmit),
		cmocka_unit_test(test_transmit_in_two_places),
		cmocka_unit_test(test_several_in_one_packet),
		cmocka_unit_test(test_transmit_checksums),
		cmocka_unit_test(test_large_send),
		cmocka_unit_test(test_transmit_tags),
		cmocka_unit_test(test_transmit_sizes),
		cmocka_unit_test(test_lying_headers),
		cmocka_unit_test(test_lying_packets),
		cmocka_unit_test(test_no_link),
		cmocka_unit_test(test_full_port),
		cmocka_unit_test(test_receive),
		cmocka_unit_test(test_receive_in_batches),
		cmocka_unit_test(test_receive_checksums),
		cmocka_unit_test(test_receive_tags),
		cmocka_unit_test(test_filters),
		cmocka_unit_test(test_too_large),
		cmocka_unit_test(test_receive_segments),
		cmocka_unit_test(test_receive_coalesced),
		cmocka_unit_test(test_bad_segmentation),
		cmocka_unit_test(test_receive_backpressure),
		cmocka_unit_test(test_receive_scaling),
		cmocka_unit_test(test_bad_scaling),
		cmocka_unit_test(test_close_in_the_middle),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
