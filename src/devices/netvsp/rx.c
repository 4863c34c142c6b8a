// SPDX-License-Identifier: MIT
/*
 * From the port to the guest's receive buffer, which is cut into sections that hold a frame each.
 * Packets name up to VMBUS_TRANSFER_RANGES of them, and give them back when the guest has completed
 * the packet. While sections are lacking, frames wait in the port's ring, whose switch drops what
 * has no room there: a guest that does not read loses frames and costs nothing more. Control
 * messages have some sections for themselves.
 *
 * A frame that is still to be cut is cut here, with its checksums, unless the guest takes coalesced
 * frames (RSC over VMBus): these go in fragments, and their checksum is said to be good without
 * being there, as from any hardware that coalesces; such frames are never forwarded. Every other
 * frame leaves with the checksums that it claims.
 */
#include "devices/netvsp/netvsp_internal.h"

#include <errno.h>
#include <stdlib.h>

#define TCP_FIN_PSH 0x09
#define TCP_CWR     0x80
#define TCP_FLAGS   13u
#define NO_SECTION  UINT32_MAX

/* A frame on its way; `header` is a copy, what follows is shared with the switch. */
struct rx_frame {
	uint8_t copy[FRAME_HEADER_MAX + FRAME_VLAN];
	uint8_t *header; /* in there */
	size_t header_size;
	const uint8_t *rest;
	size_t rest_size;
	struct frame f;
	struct net_offload offload;
	uint32_t good; /* RNDIS_CHECKSUM_RX_* */
	uint32_t vlan, hash;
	bool tagged, hashed;
	struct netvsp_channel *c;
};

/* --- the buffer --- */

static void buffer_put(const struct vmbus_buffer *b, size_t at, const void *src, size_t size)
{
	const uint8_t *from = src;

	if (b->linear) {
		memcpy(b->linear + at, from, size);
		return;
	}
	while (size) {
		size_t offset = at % GMEM_PAGE_SIZE, n = MIN(size, GMEM_PAGE_SIZE - offset);

		memcpy((uint8_t *)b->pages[at / GMEM_PAGE_SIZE] + offset, from, n);
		at += n;
		from += n;
		size -= n;
	}
}

static void sections_reset(struct netvsp *n)
{
	n->free_count = n->section_count;
	for (uint32_t i = 0; i < n->section_count; i++)
		n->free[i] = (uint16_t)(n->section_count - 1 - i);
	memset(n->sections, 0, n->section_count * sizeof(n->sections[0]));
	for (unsigned i = 0; i < NETVSP_MAX_CHANNELS; i++)
		if (n->channels[i])
			n->channels[i]->range_count = 0;
}

int rx_buffer_set(struct netvsp *n, struct vmbus_channel *ch, uint32_t gpadl, uint16_t id)
{
	uint32_t size =
		(uint32_t)round_up64(n->mtu + FRAME_ETHERNET + FRAME_VLAN + NETVSP_RX_HEADER, 64);
	int r = vmbus_buffer_take(ch, gpadl, &n->receive);

	if (r < 0)
		return r;
	n->receive_id = id;
	n->section_size = size;
	n->section_count =
		(uint32_t)MIN((uint64_t)n->receive.count * GMEM_PAGE_SIZE / size, NETVSP_SECTIONS);
	n->sections = calloc(n->section_count + 1, sizeof(n->sections[0]));
	n->free = calloc(n->section_count + 1, sizeof(n->free[0]));
	if (n->section_count < 2 * NETVSP_RX_RESERVED || !n->sections || !n->free) {
		rx_buffer_revoke(n);
		return -EINVAL;
	}
	sections_reset(n);
	return 0;
}

void rx_buffer_revoke(struct netvsp *n)
{
	if (n->sections)
		sections_reset(n);
	free(n->sections);
	free(n->free);
	n->sections = NULL;
	n->free = NULL;
	n->section_count = n->free_count = 0;
	vmbus_buffer_give_back(&n->receive);
}

uint32_t netvsp_sections_usable(const struct netvsp *n)
{
	return n->free_count > NETVSP_RX_RESERVED ? n->free_count - NETVSP_RX_RESERVED : 0;
}

static uint32_t section_take(struct netvsp *n)
{
	return n->free_count ? n->free[--n->free_count] : NO_SECTION;
}

/* Gives back a packet's sections, from its first. */
static void packet_free(struct netvsp *n, uint16_t section)
{
	bool more;

	n->sections[section].channel = 0;
	do {
		struct netvsp_section *s = &n->sections[section];

		n->free[n->free_count++] = section;
		more = s->more;
		s->more = false;
		section = s->next;
	} while (more);
}

void rx_completed(struct netvsp_channel *c, uint64_t transaction_id)
{
	struct netvsp *n = c->n;
	uint64_t first = transaction_id - 1;

	if (first >= n->section_count || n->sections[first].channel != c->index + 1) {
		n->counters.packets_refused++;
		return;
	}
	packet_free(n, (uint16_t)first);
	n->given_back = true;
}

void rx_channel_closed(struct netvsp_channel *c)
{
	struct netvsp *n = c->n;

	if (c->range_count)
		packet_free(n, c->first);
	c->range_count = 0;
	for (uint32_t i = 0; i < n->section_count; i++)
		if (n->sections[i].channel == c->index + 1)
			packet_free(n, (uint16_t)i);
}

/* --- packets to the guest --- */

static void range_add(struct netvsp_channel *c, uint32_t section, uint32_t size)
{
	struct netvsp *n = c->n;

	if (c->range_count) {
		n->sections[c->last].next = (uint16_t)section;
		n->sections[c->last].more = true;
	} else {
		c->first = (uint16_t)section;
	}
	c->last = (uint16_t)section;
	c->ranges[c->range_count++] =
		(struct vmbus_range){ .bytes = le32_of(size),
				      .offset = le32_of(section * n->section_size) };
}

static bool packet_send(struct netvsp_channel *c, uint32_t channel_type)
{
	struct netvsp *n = c->n;
	const struct vmbus_transfer t = { n->receive_id, c->ranges, c->range_count };
	const struct nvsp_message m = {
		.type = le32_of(NVSP_MSG1_TYPE_SEND_RNDIS_PKT),
		.rndis.channel_type = le32_of(channel_type),
		.rndis.send_buf_section_index = le32_of(NVSP_INVALID_SECTION),
	};
	size_t size = netvsp_message_size(n);
	int r = -EAGAIN;

	if (!c->broken && vmbus_can_send(c->ch, vmbus_transfer_size(t.count, size)))
		r = vmbus_queue_transfer(c->ch, c->first + UINT64_C(1), &t, &m, size);
	if (r >= 0)
		n->sections[c->first].channel = (uint8_t)(c->index + 1);
	else
		packet_free(n, c->first);
	c->range_count = 0;
	return r >= 0;
}

void rx_flush(struct netvsp_channel *c)
{
	unsigned count = c->range_count;

	if (count && !packet_send(c, NVSP_CHANNEL_TYPE_DATA))
		c->n->counters.rx_full += count;
}

void rx_answers_send(struct netvsp *n)
{
	struct netvsp_channel *c = n->channels[0];

	while (n->answer_count && c && n->section_count) {
		struct netvsp_answer *a = &n->answers[n->answer_first];
		size_t room = vmbus_transfer_size(1, netvsp_message_size(n));
		uint32_t section;

		rx_flush(c);
		if (c->broken || !vmbus_can_send(c->ch, room))
			break;
		section = section_take(n);
		if (section == NO_SECTION)
			break;
		buffer_put(&n->receive, (size_t)section * n->section_size, a->data, a->size);
		range_add(c, section, a->size);
		(void)packet_send(c, NVSP_CHANNEL_TYPE_CONTROL);
		n->answer_first = (n->answer_first + 1) % NETVSP_ANSWERS;
		n->answer_count--;
	}
}

/* --- one frame --- */

static void information(struct writer *w, uint32_t type, uint32_t value)
{
	writer_le32(w, 16);
	writer_le32(w, type);
	writer_le32(w, 12);
	writer_le32(w, value);
}

/* Header bytes, and more of them from shared memory, into a section. `id`: of a fragment, or 0. */
static void put(struct rx_frame *x, const uint8_t *header, size_t header_size,
		const struct iovec *more, uint32_t id)
{
	struct netvsp *n = x->c->n;
	uint8_t bytes[NETVSP_RX_HEADER + FRAME_HEADER_MAX + FRAME_VLAN];
	struct writer w = writer_of(bytes, sizeof(bytes));
	bool first = !id || id & RNDIS_ID_1ST_FRAG;
	uint32_t infos = first ? !!x->good + x->tagged + x->hashed : 0;
	uint32_t section = section_take(n), size = (uint32_t)(header_size + more->iov_len), total;
	size_t at = (size_t)section * n->section_size;

	infos = (infos + !!id) * 16;
	total = (uint32_t)(sizeof(struct rndis_header) + sizeof(struct rndis_packet)) + infos +
		size;
	writer_le32(&w, RNDIS_MSG_PACKET);
	writer_le32(&w, total);
	writer_le32(&w, (uint32_t)sizeof(struct rndis_packet) + infos);
	writer_le32(&w, size);
	writer_zero(&w, 12);
	writer_le32(&w, infos ? sizeof(struct rndis_packet) : 0);
	writer_le32(&w, infos);
	writer_zero(&w, 8);
	if (first && x->good)
		information(&w, RNDIS_PPI_CHECKSUM, x->good);
	if (first && x->tagged)
		information(&w, RNDIS_PPI_VLAN, x->vlan);
	if (first && x->hashed)
		information(&w, RNDIS_PPI_HASH, x->hash);
	if (id)
		information(&w, RNDIS_PPI_ID, id);
	writer_put(&w, header, header_size);
	buffer_put(&n->receive, at, bytes, w.at);
	buffer_put(&n->receive, at + w.at, more->iov_base, more->iov_len);
	range_add(x->c, section, total);
}

/* Room for `count` more ranges in one packet. */
static void packet_room(struct netvsp_channel *c, unsigned count)
{
	if (c->range_count + count > VMBUS_TRANSFER_RANGES)
		rx_flush(c);
}

static uint32_t capacity(const struct netvsp *n)
{
	return n->section_size - NETVSP_RX_HEADER;
}

static uint16_t swap16(uint16_t v)
{
	return (uint16_t)(v << 8 | v >> 8);
}

/* Finishes a checksum whose field, in the header, holds the pseudo header's sum. */
static void checksum_finish(uint8_t *header, size_t size, size_t start, size_t field,
			    const struct iovec *more)
{
	uint16_t head = frame_fold(frame_sum(header + start, size - start));
	uint16_t body = frame_fold(frame_sum(more->iov_base, more->iov_len)), sum;

	if ((size - start) % 2)
		body = swap16(body);
	sum = (uint16_t)~frame_fold(be16_of(head).raw + (uint64_t)be16_of(body).raw);
	frame_put16(header + start + field, sum ? sum : 0xffff);
}

static bool put_whole(struct rx_frame *x)
{
	const struct iovec more = { (void *)x->rest, x->rest_size };
	size_t start = x->offload.checksum_start, field = x->offload.checksum_offset;

	if (x->header_size + x->rest_size > capacity(x->c->n))
		return false;
	if (x->offload.flags & NET_CHECKSUM_NEEDED) {
		if (start + field + 2 > x->header_size)
			return false;
		checksum_finish(x->header, x->header_size, start, field, &more);
	}
	packet_room(x->c, 1);
	put(x, x->header, x->header_size, &more, 0);
	return true;
}

/* --- frames that are to be cut --- */

static unsigned segments(const struct rx_frame *x)
{
	size_t payload = x->header_size + x->rest_size - x->f.payload;

	return (unsigned)((payload + x->offload.segment_size - 1) / x->offload.segment_size);
}

static bool segmentable(const struct rx_frame *x)
{
	unsigned kind = x->offload.segmentation & ~NET_SEGMENT_ECN;

	return x->f.protocol == FRAME_TCP && x->f.payload &&
	       kind == (x->f.ip == 4 ? NET_SEGMENT_TCP4 : NET_SEGMENT_TCP6) &&
	       x->offload.checksum_start == x->f.l4;
}

/* The header of segment `i`, whose payload begins at `at` of the whole. */
static void segment_header(const struct rx_frame *x, uint8_t *h, unsigned i, size_t at, size_t size)
{
	const struct frame *f = &x->f;
	uint8_t *tcp = h + f->l4;
	bool last = i + 1 == segments(x);
	size_t length = f->payload - f->l4 + size;
	be32 sequence;

	memcpy(h, x->header, f->payload);
	memcpy(&sequence, tcp + 4, 4);
	sequence = be32_of(be32_get(sequence) + (uint32_t)at);
	memcpy(tcp + 4, &sequence, 4);
	if (!last)
		tcp[TCP_FLAGS] &= (uint8_t)~TCP_FIN_PSH;
	if (i)
		tcp[TCP_FLAGS] &= (uint8_t)~TCP_CWR;
	if (f->ip == 4) {
		frame_put16(h + f->l3 + 2, (uint16_t)(f->l4 - f->l3 + length));
		frame_put16(h + f->l3 + 4, (uint16_t)(frame_get16(h + f->l3 + 4) + i));
		frame_ip_checksum(h, f);
	} else {
		frame_put16(h + f->l3 + 4, (uint16_t)length);
	}
	frame_put16(tcp + f->checksum_offset, frame_fold(frame_pseudo_sum(h, f, (uint32_t)length)));
}

/* Payload lies in the copied header first, then in the rest: a piece is put from both. */
static void put_segment(struct rx_frame *x, unsigned i)
{
	uint8_t h[2 * FRAME_HEADER_MAX];
	size_t at = (size_t)i * x->offload.segment_size;
	size_t all = x->header_size + x->rest_size - x->f.payload;
	size_t size = MIN(x->offload.segment_size, all - at),
	       copied = x->header_size - x->f.payload;
	size_t from_copy = at < copied ? MIN(size, copied - at) : 0;
	struct iovec more = { NULL, size - from_copy };

	segment_header(x, h, i, at, size);
	memcpy(h + x->f.payload, x->header + x->f.payload + at, from_copy);
	more.iov_base = (void *)(x->rest + (more.iov_len ? at + from_copy - copied : 0));
	checksum_finish(h, x->f.payload + from_copy, x->f.l4, x->f.checksum_offset, &more);
	packet_room(x->c, 1);
	put(x, h, x->f.payload + from_copy, &more, 0);
}

static bool put_segments(struct rx_frame *x)
{
	unsigned count = segments(x);

	if (x->f.payload + x->offload.segment_size > capacity(x->c->n))
		return false;
	for (unsigned i = 0; i < count; i++)
		put_segment(x, i);
	x->c->n->counters.rx_segmented++;
	return true;
}

static bool coalesces(const struct netvsp *n, const struct rx_frame *x)
{
	return x->f.ip == 4 ? n->rsc_ip4 : n->rsc_ip6;
}

static unsigned fragments(const struct rx_frame *x)
{
	uint32_t each = capacity(x->c->n);

	return (unsigned)((x->header_size + x->rest_size + each - 1) / each);
}

/* All fragments lie in one packet, in order. */
static bool put_coalesced(struct rx_frame *x)
{
	struct netvsp *n = x->c->n;
	unsigned count = fragments(x);
	uint32_t id = RNDIS_ID_VERSION | RNDIS_ID_SUBALLOC | RNDIS_ID_NUMBER(n->frame_number++);
	size_t at = 0, each = capacity(n);

	if (count > VMBUS_TRANSFER_RANGES)
		return false;
	packet_room(x->c, count);
	for (unsigned i = 0; i < count; i++) {
		size_t header = i ? 0 : x->header_size;
		struct iovec more = { (void *)(x->rest + at),
				      MIN(each - header, x->rest_size - at) };

		put(x, x->header, header, &more,
		    id | (i ? 0 : RNDIS_ID_1ST_FRAG) | (i + 1 == count ? RNDIS_ID_LAST_FRAG : 0));
		at += more.iov_len;
	}
	n->counters.rx_coalesced++;
	return true;
}

/* Sections that the frame needs; 0 = it is not possible. */
static unsigned needed(const struct netvsp *n, const struct rx_frame *x)
{
	unsigned count;

	if (x->offload.segmentation == NET_SEGMENT_NONE)
		return 1;
	if (!segmentable(x))
		return 0;
	count = coalesces(n, x) ? fragments(x) : segments(x);
	return count <= MIN(n->section_count - 2 * NETVSP_RX_RESERVED + 1, NETVSP_RX_SEGMENTS)
		       ? count
		       : 0;
}

/* --- whose it is --- */

static bool multicast_wanted(const struct netvsp *n, const uint8_t *to)
{
	if (n->filter & NDIS_PACKET_TYPE_ALL_MULTICAST)
		return true;
	for (unsigned i = 0; i < n->multicast_count && n->filter & NDIS_PACKET_TYPE_MULTICAST; i++)
		if (!memcmp(n->multicast[i], to, NETVSP_MAC_SIZE))
			return true;
	return false;
}

static bool wanted(const struct netvsp *n, const uint8_t *to)
{
	static const uint8_t everybody[] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

	if (n->filter & NDIS_PACKET_TYPE_PROMISCUOUS)
		return true;
	if (!memcmp(to, everybody, sizeof(everybody)))
		return n->filter & NDIS_PACKET_TYPE_BROADCAST;
	if (to[0] & 1)
		return multicast_wanted(n, to);
	return n->filter & NDIS_PACKET_TYPE_DIRECTED && !memcmp(to, n->mac, NETVSP_MAC_SIZE);
}

static struct netvsp_channel *choose_channel(struct netvsp *n, struct rx_frame *x)
{
	struct netvsp_channel *c = NULL;

	if (n->hash_types)
		x->hash = rss_hash(n->prepared, n->hash_types, x->header, &x->f, &x->hashed);
	if (x->hashed && n->table_size)
		c = n->channels[n->table[x->hash % n->table_size]];
	return c ? c : n->channels[0];
}

/* The tag goes beside the frame when the guest knows how to take it there. */
static void take_tag(const struct netvsp *n, struct rx_frame *x)
{
	uint8_t *h = x->header;
	uint16_t tag;

	if (!(n->capabilities & NVSP_CAPABILITY_IEEE8021Q) || x->header_size < 18 ||
	    frame_get16(h + 12) != 0x8100)
		return;
	tag = frame_get16(h + 14);
	x->vlan = tag >> 13 | (tag >> 9 & 8) | (uint32_t)(tag & 0xfff) << 4;
	x->tagged = true;
	memmove(h + FRAME_VLAN, h, 2 * FRAME_MAC_SIZE);
	x->header += FRAME_VLAN;
	x->header_size -= FRAME_VLAN;
	if (x->offload.flags & NET_CHECKSUM_NEEDED)
		x->offload.checksum_start =
			(uint16_t)MAX(x->offload.checksum_start - (int)FRAME_VLAN, 0);
}

static void judge_checksums(struct rx_frame *x)
{
	if (!(x->offload.flags & (NET_CHECKSUM_NEEDED | NET_CHECKSUM_VALID)))
		return;
	if (x->offload.flags & NET_CHECKSUM_NEEDED && x->offload.checksum_start != x->f.l4)
		return; /* of something inside that we do not know */
	if (x->f.protocol == FRAME_TCP)
		x->good |= RNDIS_CHECKSUM_RX_TCP_GOOD;
	if (x->f.protocol == FRAME_UDP)
		x->good |= RNDIS_CHECKSUM_RX_UDP_GOOD;
	if (x->f.ip == 4 && frame_ip_checksum_good(x->header, &x->f))
		x->good |= RNDIS_CHECKSUM_RX_IP_GOOD;
}

/* Not copied again: this is the header from now on. */
static void frame_take(const struct netvsp *n, struct rx_frame *x, const struct net_frame *raw)
{
	x->header = x->copy;
	x->header_size = MIN(raw->size, FRAME_HEADER_MAX);
	memcpy(x->header, raw->data, x->header_size);
	x->rest = (const uint8_t *)raw->data + x->header_size;
	x->rest_size = raw->size - x->header_size;
	x->offload = raw->offload;
	take_tag(n, x);
	x->f = frame_parse(x->header, x->header_size);
	judge_checksums(x);
}

/* false: it has to wait for sections. */
static bool rx_frame(struct netvsp *n, const struct net_frame *raw)
{
	struct rx_frame x = { 0 };
	unsigned need;
	bool done;
	bool open = n->channels[0] && n->section_count && n->rndis_ready && netvsp_link(n);

	if (open && n->filter)
		frame_take(n, &x, raw);
	if (!x.header || !wanted(n, x.header)) {
		n->counters.rx_filtered++;
		return true;
	}
	x.c = choose_channel(n, &x);
	need = needed(n, &x);
	if (need > netvsp_sections_usable(n)) {
		/* What is queued comes back only when the guest has seen it. */
		n->counters.rx_waits++;
		return false;
	}
	if (!need)
		done = false;
	else if (x.offload.segmentation == NET_SEGMENT_NONE)
		done = put_whole(&x);
	else
		done = coalesces(n, &x) ? put_coalesced(&x) : put_segments(&x);
	if (!done) {
		n->counters.rx_invalid++;
		return true;
	}
	n->counters.rx_frames++;
	n->counters.rx_bytes += raw->size;
	x.c->rx_frames++;
	return true;
}

int rx_run(struct netvsp *n, unsigned *budget)
{
	int r = 0;

	while (*budget && n->port) {
		if (!n->held)
			r = net_port_receive(n->port, &n->frame);
		if (!n->held && r <= 0)
			break;
		n->held = !rx_frame(n, &n->frame);
		if (n->held)
			break;
		--*budget;
		r = 0;
	}
	/* A frame that waits stays ours until it is copied. */
	if (n->port && !n->held)
		net_port_release(n->port);
	return r < 0 ? r : 0;
}
