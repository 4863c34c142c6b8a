// SPDX-License-Identifier: MIT
/*
 * A hostile guest and a hostile switch around the network adapter, over the real bus. The first
 * byte of an input chooses how far the session is set up (0-1: only opened; 2-5: a version; above:
 * ready for frames, bit 3: with sub-channels, bit 4: coalescing); records follow, each an action
 * byte and its arguments. Checked: every packet that wants an answer gets one; what is written to
 * the guest lies in its receive buffer; sections are neither lost nor given out twice; frames that
 * reach the switch are possible ones, and those that reach the guest with a word of their checksums
 * have right ones, whatever either side does.
 */
#include "devices/netvsp/frame.h"
#include "devices/netvsp/netvsp_testing.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define VPS      3u
#define FRAME    9014u
#define TRACKED  1024u
#define MESSAGES (32u << 10)

static const uint32_t versions[] = { NVSP_PROTOCOL_VERSION_1, NVSP_PROTOCOL_VERSION_2,
				     NVSP_PROTOCOL_VERSION_4, NVSP_PROTOCOL_VERSION_5,
				     NVSP_PROTOCOL_VERSION_6, NVSP_PROTOCOL_VERSION_61 };

struct session {
	struct net_bed *b;
	unsigned wanted, answered;
	bool lied;   /* the guest completed what it was not asked to: sections are its own fault */
	bool broken; /* it sent what breaks a ring: no more accounts are kept */
	unsigned held_count;
	struct {
		unsigned channel;
		uint64_t transaction;
	} held[TRACKED];
	uint8_t message[MESSAGES];
};

static void insist(bool holds)
{
	if (!holds)
		abort();
}

/* --- what comes out --- */

/* One whole frame whose checksum is said to be good must have a good one. */
static void check_section(struct session *s, unsigned i)
{
	uint8_t m[FRAME + 256];
	struct reader r = reader_of(m, s->b->range_bytes[i]);
	uint32_t offset, length, info, info_size, checksum = 0;
	bool fragment = false;

	insist(s->b->range_bytes[i] <= sizeof(m));
	insist(!gmem_read(s->b->g->gm, s->b->receive_gpa + s->b->range_offset[i], m,
			  s->b->range_bytes[i]));
	insist(reader_le32(&r) == RNDIS_MSG_PACKET && reader_le32(&r) == s->b->range_bytes[i]);
	offset = reader_le32(&r);
	length = reader_le32(&r);
	insist(range_inside(8 + (uint64_t)offset, length, s->b->range_bytes[i]));
	reader_skip(&r, 12);
	info = reader_le32(&r);
	info_size = reader_le32(&r);
	insist(range_inside(8 + (uint64_t)info, info_size, s->b->range_bytes[i]));
	reader_seek(&r, 8 + info);
	for (; info_size; info_size -= 16) {
		uint32_t type, value;

		insist(reader_le32(&r) == 16);
		type = reader_le32(&r);
		insist(reader_le32(&r) == 12);
		value = reader_le32(&r);
		if (type == RNDIS_PPI_CHECKSUM)
			checksum = value;
		fragment |= type == RNDIS_PPI_ID;
	}
	insist(reader_ok(&r));
	if (!fragment && checksum & RNDIS_CHECKSUM_RX_IP_GOOD) {
		struct frame f = frame_parse(m + 8 + offset, MIN(length, FRAME_HEADER_MAX));

		insist(f.ip == 4 && frame_ip_checksum_good(m + 8 + offset, &f));
	}
}

static void took(struct session *s, unsigned channel)
{
	if (s->b->type == VMBUS_PACKET_COMPLETION) {
		s->answered++;
		return;
	}
	if (s->b->type != VMBUS_PACKET_TRANSFER_PAGES)
		return;
	insist(le32_get(s->b->m.type) == NVSP_MSG1_TYPE_SEND_RNDIS_PKT);
	if (le32_get(s->b->m.rndis.channel_type) == NVSP_CHANNEL_TYPE_DATA && !s->lied)
		for (unsigned i = 0; i < s->b->range_count; i++)
			check_section(s, i);
	insist(s->held_count < TRACKED);
	s->held[s->held_count].channel = channel;
	s->held[s->held_count++].transaction = s->b->transaction;
}

static bool drain(struct session *s)
{
	bool any = false;

	for (unsigned i = 0; i < VPS; i++)
		while (s->b->open[i] && s->held_count < TRACKED && net_bed_take(s->b, i)) {
			took(s, i);
			any = true;
		}
	return any;
}

static void complete_some(struct session *s, unsigned count)
{
	for (; count && s->held_count; count--) {
		s->held_count--;
		net_bed_complete(s->b, s->held[s->held_count].channel,
				 s->held[s->held_count].transaction);
	}
}

static void drain_port(struct session *s)
{
	struct net_frame f;

	if (!s->b->port)
		return;
	while (net_port_receive(s->b->port, &f) > 0)
		;
	net_port_release(s->b->port);
	(void)net_port_arm(s->b->port);
}

/* --- the guest --- */

static void send_message(struct session *s, struct reader *r)
{
	uint8_t bytes[64] = { 0 };
	size_t size = reader_u8(r) % 48;

	size = MIN(size, reader_left(r));
	reader_copy(r, bytes, size);
	/* Buffers by the ids that there are, too. */
	if (bytes[0] >= 101 && bytes[0] <= 106 && bytes[4] == 0xff)
		memcpy(bytes + 4, bytes[5] & 1 ? &s->b->receive_gpadl : &s->b->send_gpadl, 4);
	if (!test_channel_request(&s->b->ch[0], 9, bytes, size))
		s->wanted++;
}

static void send_raw(struct session *s, struct reader *r)
{
	uint8_t packet[512];
	unsigned channel = reader_u8(r) % VPS;
	uint8_t type = reader_u8(r);
	size_t header = reader_u8(r) % 16 * 8u, size = MIN(header + 40, reader_left(r));

	header = MIN(header, size / 8 * 8);
	reader_copy(r, packet, size);
	if (!s->b->open[channel])
		return;
	s->lied |= type == VMBUS_PACKET_COMPLETION;
	s->broken |= type == VMBUS_PACKET_GPA_DIRECT;
	if (!test_channel_send(&s->b->ch[channel], type, reader_u8(r), packet, size, header))
		s->wanted += type != VMBUS_PACKET_COMPLETION;
}

/* RNDIS messages from the input, in guest pages: ranges, or a section, or both. */
static void send_rndis(struct session *s, struct reader *r, uint8_t how)
{
	struct nvsp_message m = { .type = le32_of(NVSP_MSG1_TYPE_SEND_RNDIS_PKT),
				  .rndis.channel_type = le32_of(how >> 4 & 1),
				  .rndis.send_buf_section_index = le32_of(NVSP_INVALID_SECTION) };
	unsigned channel = how >> 5 & 3, fill = reader_u8(r);
	size_t given = reader_le16(r) % 2048, size, cut = 0;
	uint64_t gpa = s->b->scratch_gpa + reader_le16(r) % 8192;

	/* Long frames cost little input: the rest is filled. */
	given = MIN(given, reader_left(r));
	memset(s->message, (int)fill, MESSAGES);
	reader_copy(r, s->message, given);
	size = MIN(given + (how & 8 ? fill * 96u : 0), MESSAGES);
	if (channel >= VPS || !s->b->open[channel])
		channel = 0;
	if (how & 4 && s->b->send_gpadl) {
		cut = MIN(size, fill * 8u);
		m.rndis.send_buf_section_index = le32_of(fill % 24);
		m.rndis.send_buf_section_size = le32_of((uint32_t)cut);
		insist(!gmem_write(s->b->g->gm, s->b->send_gpa + fill % 21 * 6144, s->message,
				   MIN(cut, 6144)));
	}
	insist(!gmem_write(s->b->g->gm, gpa, s->message + cut, size - cut));
	if (size - cut) {
		if (!test_channel_request_gpa(&s->b->ch[channel], 9, &m, sizeof(m), gpa,
					      (uint32_t)(size - cut)))
			s->wanted++;
	} else if (!test_channel_request(&s->b->ch[channel], 9, &m, sizeof(m))) {
		s->wanted++;
	}
}

static void set_oid(struct session *s, struct reader *r, bool query)
{
	static const uint32_t groups[] = { 0x00010100, 0x00010200, 0x00020200, 0x01010100,
					   0xFC010200 };
	uint8_t which = reader_u8(r);
	size_t size = reader_u8(r);
	struct writer w = writer_of(s->message, MESSAGES);

	size = MIN(size, reader_left(r));
	writer_le32(&w, query ? RNDIS_MSG_QUERY : RNDIS_MSG_SET);
	writer_le32(&w, (uint32_t)(28 + size));
	writer_le32(&w, 1);
	writer_le32(&w, groups[which / 32 % 5] + which % 32);
	writer_le32(&w, (uint32_t)size);
	writer_le32(&w, 20);
	writer_le32(&w, 0);
	writer_put(&w, reader_take(r, size), size);
	net_bed_post(s->b, 0, NVSP_CHANNEL_TYPE_CONTROL, s->message, w.at);
	s->wanted++;
}

/* --- the switch --- */

static void deliver(struct session *s, struct reader *r)
{
	uint8_t flags = reader_u8(r), frame[FRAME_HEADER_MAX + 64];
	struct net_offload o = { 0 };
	size_t size, tail = reader_u8(r) * 64u;
	struct iovec iov[2] = { { frame, 0 }, { s->message, tail } };

	if (!s->b->port)
		return;
	size = net_bed_tcp(frame, flags & 1 ? 6 : 4, 40, true);
	memset(s->message, flags, tail);
	o.flags = flags & 2 ? NET_CHECKSUM_NEEDED : flags & 4 ? NET_CHECKSUM_VALID : 0;
	o.checksum_start = flags & 1 ? 54 : 34;
	o.checksum_offset = 16;
	if (flags & 8) {
		o.segmentation = reader_u8(r) & 0x85;
		o.segment_size = reader_le16(r);
		o.header_size = 54;
	}
	if (flags & 16)
		o.checksum_start = reader_le16(r);
	/* Bytes of the input over the header. */
	for (unsigned n = reader_u8(r) % 16; n; n--) {
		unsigned at = reader_u8(r) % sizeof(frame);

		frame[at] = reader_u8(r);
	}
	iov[0].iov_len = MIN(size, sizeof(frame));
	(void)!net_port_send(s->b->port, &o, iov, 2, iov[0].iov_len + tail);
	if (flags & 32)
		net_port_flush(s->b->port);
}

static void host_change(struct session *s, uint8_t what)
{
	switch (what % 4) {
	case 0:
		netvsp_set_link(s->b->n, what & 4, what * UINT64_C(1000000));
		break;
	case 1:
		net_bed_connect_port(s->b);
		break;
	case 2:
		net_port_free(s->b->port);
		s->b->port = NULL;
		break;
	case 3:
		netvsp_disconnect(s->b->n);
		break;
	}
}

/* --- a session --- */

static void set_up(struct session *s, uint8_t how)
{
	const struct nvsp_message subs = { .type = le32_of(NVSP_MSG5_TYPE_SUBCHANNEL),
					   .subchannel.operation = le32_of(1),
					   .subchannel.num_subchannels = le32_of(VPS - 1) };
	struct ndis_offload_parameters p = { .header.type = NDIS_OBJECT_TYPE_DEFAULT,
					     .rsc_ip4 = 2,
					     .rsc_ip6 = 2 };

	if (how % 8 < 2)
		return;
	if (how % 8 < 6) {
		insist(net_bed_init(s->b, versions[how % 8]));
		return;
	}
	net_bed_ready(s->b, how % 8 == 6 ? NVSP_PROTOCOL_VERSION_61 : NVSP_PROTOCOL_VERSION_5,
		      how & 32 ? FRAME : 1514);
	if (how & 16)
		insist(!net_bed_set(s->b, OID_TCP_OFFLOAD_PARAMETERS, &p, sizeof(p)));
	if (!(how & 8))
		return;
	net_bed_ask(s->b, &subs);
	test_guest_take_offers(s->b->g);
	for (unsigned i = 1; i < VPS; i++)
		insist(net_bed_open(s->b, i));
	insist(net_bed_take(s->b, 0));
}

static void act(struct session *s, struct reader *r)
{
	uint8_t action = reader_u8(r);

	switch (action % 8) {
	case 0:
		send_message(s, r);
		break;
	case 1:
		send_rndis(s, r, action);
		break;
	case 2:
		set_oid(s, r, action & 8);
		break;
	case 3:
		deliver(s, r);
		break;
	case 4:
		if (action & 0x40)
			send_raw(s, r);
		else
			host_change(s, action >> 3);
		break;
	case 5:
		drain(s);
		break;
	case 6:
		complete_some(s, action >> 3);
		break;
	case 7:
		if (action & 8)
			drain_port(s);
		test_guest_pump(s->b->g);
		break;
	}
}

/* Everything answered, every section back. */
static void settle(struct session *s)
{
	struct netvsp_state state;

	for (int i = 0; i < 200; i++) {
		drain_port(s);
		if (!drain(s) && !s->held_count && i > 3)
			break;
		complete_some(s, 64);
	}
	state = netvsp_state(s->b->n);
	insist(s->lied || s->broken || state.sections_free == state.sections);
	insist(s->broken || s->answered == s->wanted);
}

/* The same guest and adapter each time; a new contact ends what was before. */
static struct net_bed *begin(void)
{
	static struct net_bed *b;
	static uint64_t first_page;

	if (!b) {
		b = net_bed_new(VPS, &(struct netvsp_options){ .mac_changes = true });
		first_page = b->g->next_page;
	}
	for (unsigned i = 0; i < VPS; i++) {
		if (!b->open[i])
			continue;
		ring_deinit(&b->ch[i].in);
		ring_deinit(&b->ch[i].out);
		b->open[i] = false;
	}
	b->g->next_page = first_page;
	b->receive_gpadl = b->send_gpadl = 0;
	netvsp_set_link(b->n, false, UINT64_C(10000000000));
	net_bed_connect_port(b);
	insist(test_guest_connect(b->g, VERSION_WIN10_V5_3));
	test_guest_request_offers(b->g);
	insist(net_bed_open(b, 0));
	return b;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct session s;
	struct reader r = reader_of(data, size);
	uint8_t how = reader_u8(&r);

	memset(&s, 0, sizeof(s));
	s.b = begin();
	set_up(&s, how);
	/* Room for answers and completions: a guest that never reads is the unit tests'. */
	for (unsigned n = 0; reader_left(&r) && n < 200; n++) {
		act(&s, &r);
		if (n % 16 == 15)
			drain(&s);
	}
	if (!(how & 128))
		settle(&s);
	return 0;
}
