// SPDX-License-Identifier: MIT
/* See netvsp_testing.h. */
#include "devices/netvsp/netvsp_testing.h"

#include "devices/netvsp/frame.h"

#include <stdlib.h>
#include <string.h>

const uint8_t net_bed_mac[NETVSP_MAC_SIZE] = { 0x00, 0x15, 0x5d, 0x01, 0x02, 0x03 };

static void insist(bool holds)
{
	if (!holds)
		abort();
}

static void on_lost(void *context, int error)
{
	(void)error;
	((struct net_bed *)context)->lost++;
}

void net_bed_connect_port(struct net_bed *b)
{
	struct net_port *other;
	int fds[NET_PORT_FDS];

	net_port_free(b->port);
	insist(!net_port_new(NET_RING_SIZE, &b->port, NULL));
	net_port_fds(b->port, fds);
	insist(!net_port_open(fds, &other, NULL));
	insist(!netvsp_connect(b->n, other, NULL));
}

struct net_bed *net_bed_bare(unsigned vps, const struct netvsp_options *options)
{
	struct vmbus_offer_options offer = { .instance.b[0] = 7 };
	struct net_bed *b = calloc(1, sizeof(*b));
	struct netvsp_options o = *options;

	insist(b);
	memcpy(o.mac, net_bed_mac, sizeof(o.mac));
	o.port_lost = on_lost;
	o.context = b;
	b->g = test_guest_new(vps, 0, 0);
	insist(!netvsp_new(b->g->loop, &o, &b->n, NULL));
	insist(!vmbus_device_offer(b->g->bus, &netvsp_type, b->n, &offer, &b->primary, NULL));
	net_bed_connect_port(b);
	return b;
}

struct net_bed *net_bed_new(unsigned vps, const struct netvsp_options *options)
{
	struct net_bed *b = net_bed_bare(vps, options);

	insist(test_guest_connect(b->g, VERSION_WIN10_V5_3));
	test_guest_request_offers(b->g);
	b->scratch_gpa = test_guest_pages(b->g, 64);
	insist(net_bed_open(b, 0));
	return b;
}

bool net_bed_open(struct net_bed *b, unsigned index)
{
	for (unsigned i = b->g->offer_count; i--;) {
		const struct vmbus_offer_channel *o = &b->g->offers[i];

		if (le16_get(o->sub_channel_index) != index)
			continue;
		b->open[index] = test_channel_open(b->g, o, BED_RING_PAGES, &b->ch[index]);
		if (!b->open[index]) {
			ring_deinit(&b->ch[index].in);
			ring_deinit(&b->ch[index].out);
		}
		return b->open[index];
	}
	return false;
}

void net_bed_free(struct net_bed *b)
{
	for (unsigned i = 0; i < NETVSP_MAX_CHANNELS; i++) {
		if (!b->open[i])
			continue;
		ring_deinit(&b->ch[i].in);
		ring_deinit(&b->ch[i].out);
	}
	test_guest_stop(b->g);
	netvsp_free(b->n);
	net_port_free(b->port);
	test_guest_free(b->g);
	free(b);
}

/* --- packets --- */

bool net_bed_take(struct net_bed *b, unsigned channel)
{
	struct vmbus_packet_descriptor d;
	uint8_t buffer[2048];
	int n = test_channel_receive(&b->ch[channel], buffer, sizeof(buffer));
	size_t header;
	struct reader r;

	if (n <= 0)
		return false;
	memcpy(&d, buffer, sizeof(d));
	header = le16_get(d.offset8) * 8u;
	b->type = le16_get(d.type);
	b->transaction = le64_get(d.transaction_id);
	b->size = (size_t)n - header;
	memset(&b->m, 0, sizeof(b->m));
	memcpy(&b->m, buffer + header, MIN(b->size, sizeof(b->m)));
	memcpy(b->raw, buffer + header, MIN(b->size, sizeof(b->raw)));
	b->range_count = 0;
	if (b->type != VMBUS_PACKET_TRANSFER_PAGES)
		return true;
	r = reader_of(buffer + sizeof(d), header - sizeof(d));
	insist(reader_le16(&r) == BED_RECEIVE_ID);
	reader_skip(&r, 2);
	b->range_count = reader_le32(&r);
	insist(b->range_count && b->range_count <= BED_RANGES);
	for (unsigned i = 0; i < b->range_count; i++) {
		b->range_bytes[i] = reader_le32(&r);
		b->range_offset[i] = reader_le32(&r);
		insist(b->range_offset[i] % b->section_size == 0 &&
		       b->range_bytes[i] <= b->section_size &&
		       b->range_offset[i] / b->section_size < b->section_count);
	}
	insist(reader_ok(&r) && !reader_left(&r));
	return true;
}

void net_bed_complete(struct net_bed *b, unsigned channel, uint64_t transaction)
{
	struct nvsp_message m = { .type = le32_of(NVSP_MSG1_TYPE_SEND_RNDIS_PKT_COMPLETE),
				  .status = le32_of(NVSP_STAT_SUCCESS) };

	insist(!test_channel_send(&b->ch[channel], VMBUS_PACKET_COMPLETION, transaction, &m, 8, 0));
}

void net_bed_ask(struct net_bed *b, const struct nvsp_message *m)
{
	insist(!test_channel_request(&b->ch[0], 42, m, sizeof(*m)));
	insist(net_bed_take(b, 0) && b->type == VMBUS_PACKET_COMPLETION && b->transaction == 42);
}

bool net_bed_init(struct net_bed *b, uint32_t version)
{
	const struct nvsp_message m = { .type = le32_of(NVSP_MSG_TYPE_INIT),
					.init.min_protocol_ver = le32_of(version),
					.init.max_protocol_ver = le32_of(version) };

	net_bed_ask(b, &m);
	insist(le32_get(b->m.type) == NVSP_MSG_TYPE_INIT_COMPLETE);
	return le32_get(b->m.init_complete.status) == NVSP_STAT_SUCCESS;
}

static void ask_buffer(struct net_bed *b, uint32_t type, uint32_t gpadl, uint16_t id)
{
	const struct nvsp_message m = { .type = le32_of(type),
					.buffer.gpadl_handle = le32_of(gpadl),
					.buffer.id = le16_of(id) };

	net_bed_ask(b, &m);
}

uint32_t net_bed_receive_buffer(struct net_bed *b, unsigned pages)
{
	b->receive_gpadl = test_guest_gpadl(b->g, b->ch[0].relid, pages, &b->receive_gpa);
	ask_buffer(b, NVSP_MSG1_TYPE_SEND_RECV_BUF, b->receive_gpadl, BED_RECEIVE_ID);
	insist(le32_get(b->m.type) == NVSP_MSG1_TYPE_SEND_RECV_BUF_COMPLETE);
	b->section_size = le32_get(b->m.receive_buffer.sub_alloc_size);
	b->section_count = le32_get(b->m.receive_buffer.num_sub_allocs);
	return le32_get(b->m.receive_buffer.status);
}

uint32_t net_bed_send_buffer(struct net_bed *b, unsigned pages)
{
	b->send_gpadl = test_guest_gpadl(b->g, b->ch[0].relid, pages, &b->send_gpa);
	ask_buffer(b, NVSP_MSG1_TYPE_SEND_SEND_BUF, b->send_gpadl, 0);
	insist(le32_get(b->m.type) == NVSP_MSG1_TYPE_SEND_SEND_BUF_COMPLETE);
	return le32_get(b->m.send_buffer.status);
}

void net_bed_ready(struct net_bed *b, uint32_t version, uint32_t frame)
{
	struct nvsp_message config = { .type = le32_of(NVSP_MSG2_TYPE_SEND_NDIS_CONFIG) };
	const struct nvsp_message ndis = {
		.type = le32_of(NVSP_MSG1_TYPE_SEND_NDIS_VER),
		.init.min_protocol_ver = le32_of(6),
		.init.max_protocol_ver = le32_of(version <= NVSP_PROTOCOL_VERSION_4 ? 1 : 30),
	};
	struct nvsp_ndis_config c = {
		.mtu = le32_of(frame),
		.capabilities = le32_of(NVSP_CAPABILITY_IEEE8021Q | NVSP_CAPABILITY_RSC),
	};
	uint8_t init[24] = { RNDIS_MSG_INIT, 0, 0, 0, 24, 0, 0, 0, 1, 0, 0, 0, 1 }, answer[128];
	le32 filter = le32_of(NDIS_PACKET_TYPE_DIRECTED | NDIS_PACKET_TYPE_BROADCAST |
			      NDIS_PACKET_TYPE_ALL_MULTICAST);

	insist(net_bed_init(b, version));
	memcpy(config.bytes, &c, sizeof(c));
	if (version != NVSP_PROTOCOL_VERSION_1)
		net_bed_ask(b, &config);
	net_bed_ask(b, &ndis);
	insist(net_bed_receive_buffer(b, BED_RECEIVE_PAGES) == NVSP_STAT_SUCCESS);
	insist(net_bed_send_buffer(b, BED_SEND_PAGES) == NVSP_STAT_SUCCESS);
	insist(net_bed_send(b, 0, NVSP_CHANNEL_TYPE_CONTROL, init, sizeof(init)) ==
	       NVSP_STAT_SUCCESS);
	insist(net_bed_rndis(b, 0, answer, sizeof(answer)) == 52 && answer[3] == 0x80);
	insist(!net_bed_set(b, OID_GEN_CURRENT_PACKET_FILTER, &filter, sizeof(filter)));
}

/* --- RNDIS --- */

void net_bed_post(struct net_bed *b, unsigned channel, uint32_t channel_type, const void *message,
		  size_t size)
{
	struct nvsp_message m = { .type = le32_of(NVSP_MSG1_TYPE_SEND_RNDIS_PKT),
				  .rndis.channel_type = le32_of(channel_type),
				  .rndis.send_buf_section_index = le32_of(NVSP_INVALID_SECTION) };

	insist(!gmem_write(b->g->gm, b->scratch_gpa + 100, message, size));
	insist(!test_channel_request_gpa(&b->ch[channel], 77, &m, sizeof(m), b->scratch_gpa + 100,
					 (uint32_t)size));
}

uint32_t net_bed_send(struct net_bed *b, unsigned channel, uint32_t channel_type,
		      const void *message, size_t size)
{
	net_bed_post(b, channel, channel_type, message, size);
	insist(net_bed_take(b, channel) && b->type == VMBUS_PACKET_COMPLETION &&
	       b->transaction == 77);
	insist(le32_get(b->m.type) == NVSP_MSG1_TYPE_SEND_RNDIS_PKT_COMPLETE);
	return le32_get(b->m.status);
}

size_t net_bed_rndis(struct net_bed *b, unsigned channel, void *buffer, size_t max)
{
	size_t size;

	if (!net_bed_take(b, channel))
		return 0;
	insist(b->type == VMBUS_PACKET_TRANSFER_PAGES);
	size = b->range_bytes[0];
	insist(size <= max);
	insist(!gmem_read(b->g->gm, b->receive_gpa + b->range_offset[0], buffer, size));
	net_bed_complete(b, channel, b->transaction);
	test_guest_pump(b->g);
	return size;
}

static size_t request(struct net_bed *b, uint32_t type, uint32_t oid, const void *value,
		      size_t size, uint8_t *answer)
{
	uint8_t message[1024];
	struct writer w = writer_of(message, sizeof(message));

	writer_le32(&w, type);
	writer_le32(&w, (uint32_t)(28 + size));
	writer_le32(&w, ++b->request_id);
	writer_le32(&w, oid);
	writer_le32(&w, (uint32_t)size);
	writer_le32(&w, size ? 20 : 0);
	writer_le32(&w, 0);
	writer_put(&w, value, size);
	insist(net_bed_send(b, 0, NVSP_CHANNEL_TYPE_CONTROL, message, w.at) == NVSP_STAT_SUCCESS);
	size = net_bed_rndis(b, 0, answer, 1024);
	insist(size >= 16);
	return size;
}

uint32_t net_bed_query(struct net_bed *b, uint32_t oid, void *ret, size_t *ret_size)
{
	uint8_t answer[1024];
	size_t size = request(b, RNDIS_MSG_QUERY, oid, NULL, 0, answer);
	struct reader r = reader_of(answer, size);
	uint32_t status, length, offset;

	insist(reader_le32(&r) == (RNDIS_MSG_QUERY | RNDIS_MSG_COMPLETION));
	insist(reader_le32(&r) == size && reader_le32(&r) == b->request_id);
	status = reader_le32(&r);
	length = reader_le32(&r);
	offset = reader_le32(&r);
	insist(reader_ok(&r) && length <= *ret_size && (!length || 8 + offset + length == size));
	memcpy(ret, answer + 8 + offset, length);
	*ret_size = length;
	return status;
}

uint32_t net_bed_set(struct net_bed *b, uint32_t oid, const void *value, size_t size)
{
	uint8_t answer[1024];
	struct reader r = reader_of(answer, request(b, RNDIS_MSG_SET, oid, value, size, answer));

	insist(reader_le32(&r) == (RNDIS_MSG_SET | RNDIS_MSG_COMPLETION));
	insist(reader_le32(&r) == 16 && reader_le32(&r) == b->request_id);
	return reader_le32(&r);
}

size_t net_bed_packet(void *buffer, const void *frame, size_t size, const void *info,
		      size_t info_size)
{
	size_t total = round_up64(44 + info_size + size, 8);
	struct writer w = writer_of(buffer, total);

	writer_le32(&w, RNDIS_MSG_PACKET);
	writer_le32(&w, (uint32_t)total);
	writer_le32(&w, (uint32_t)(36 + info_size));
	writer_le32(&w, (uint32_t)size);
	writer_zero(&w, 12);
	writer_le32(&w, info_size ? 36 : 0);
	writer_le32(&w, (uint32_t)info_size);
	writer_zero(&w, 8);
	writer_put(&w, info, info_size);
	writer_put(&w, frame, size);
	writer_zero(&w, total - w.at);
	insist(writer_ok(&w));
	return total;
}

size_t net_bed_info(void *buffer, uint32_t type, uint32_t value)
{
	struct writer w = writer_of(buffer, 16);

	writer_le32(&w, 16);
	writer_le32(&w, type);
	writer_le32(&w, 12);
	writer_le32(&w, value);
	return 16;
}

/* --- the switch's side --- */

size_t net_bed_frame(struct net_bed *b, void *buffer, struct net_offload *ret)
{
	struct net_frame f;

	test_guest_pump(b->g);
	if (net_port_receive(b->port, &f) <= 0)
		return 0;
	memcpy(buffer, f.data, f.size);
	*ret = f.offload;
	net_port_release(b->port);
	return f.size;
}

int net_bed_deliver(struct net_bed *b, const void *frame, size_t size,
		    const struct net_offload *offload)
{
	const struct iovec iov = { (void *)frame, size };
	int r;

	(void)net_port_arm(b->port);
	r = net_port_send(b->port, offload, &iov, 1, size);
	net_port_flush(b->port);
	test_guest_pump(b->g);
	return r;
}

size_t net_bed_tcp(uint8_t *frame, unsigned ip, size_t payload, bool partial)
{
	size_t l4 = ip == 4 ? 34 : 54, size = l4 + 20 + payload;
	struct frame f;
	uint64_t sum;

	memset(frame, 0, size);
	memcpy(frame, net_bed_mac, sizeof(net_bed_mac));
	memcpy(frame + 6, "\x02\x00\x00\x00\x00\x01", 6);
	frame_put16(frame + 12, ip == 4 ? 0x0800 : 0x86dd);
	frame[14] = ip == 4 ? 0x45 : 0x60;
	if (ip == 4) {
		frame_put16(frame + 16, (uint16_t)(size - 14));
		frame_put16(frame + 18, 0x1234);
		memcpy(frame + 22, "\x40\x06\x00\x00\x0a\x00\x00\x01\x0a\x00\x00\x02", 12);
	} else {
		frame_put16(frame + 18, (uint16_t)(size - l4));
		frame[20] = 6;
		frame[37] = 1;
		frame[53] = 2;
	}
	memcpy(frame + l4, "\x10\x00\x20\x00\x00\x00\x10\x00\x00\x00\x00\x01\x50\x18\x01\x00", 16);
	for (size_t i = 0; i < payload; i++)
		frame[l4 + 20 + i] = (uint8_t)(i * 7 + i / 251);
	f = frame_parse(frame, MIN(size, FRAME_HEADER_MAX));
	if (ip == 4)
		frame_ip_checksum(frame, &f);
	sum = frame_pseudo_sum(frame, &f, (uint32_t)(size - l4));
	if (!partial)
		frame_put16(frame + l4 + 16,
			    (uint16_t)~frame_fold(sum + frame_sum(frame + l4, size - l4)));
	else
		frame_put16(frame + l4 + 16, frame_fold(sum));
	return size;
}

bool net_bed_tcp_good(const uint8_t *frame, size_t size)
{
	struct frame f = frame_parse(frame, MIN(size, FRAME_HEADER_MAX));
	size_t length =
		f.ip == 4 ? frame_get16(frame + f.l3 + 2) : frame_get16(frame + f.l3 + 4) + 40u;

	if (f.protocol != FRAME_TCP || f.l3 + length != size)
		return false;
	if (f.ip == 4 && !frame_ip_checksum_good(frame, &f))
		return false;
	return frame_fold(frame_pseudo_sum(frame, &f, (uint32_t)(size - f.l4)) +
			  frame_sum(frame + f.l4, size - f.l4)) == 0xffff;
}
