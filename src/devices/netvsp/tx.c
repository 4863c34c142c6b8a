// SPDX-License-Identifier: MIT
/*
 * From the guest to the port. A packet names memory: a section of the send buffer, ranges of guest
 * pages, or first the one and then the other (MS-RNDIS messages lie in them one after the other and
 * may cross any boundary). Headers, of RNDIS and of the frame, are copied once and judged and
 * changed as copies; the rest of a frame is copied by the port, once, and looked at by nobody here.
 *
 * A port without room makes the packet wait, and with it the ring that it came from, so that the
 * guest slows down instead of losing frames. A switch that stands still must not hold up what the
 * guest's driver has to say, though: after a second frames are dropped until there is room again.
 */
#include "devices/netvsp/netvsp_internal.h"

#include <errno.h>

#define PATIENCE  UINT64_C(1000000000) /* ns */
#define TCP_CWR   0x80
#define TCP_FLAGS 13u

/* A frame on its way. */
struct tx_frame {
	uint8_t header[FRAME_HEADER_MAX + FRAME_VLAN];
	size_t header_size, size; /* of the frame; the header is its beginning */
	uint32_t checksum, large_send, vlan;
	bool tagged, segmented;
	struct net_offload offload;
};

/* --- memory of a packet --- */

static bool add_section(struct netvsp *n, struct netvsp_tx *tx, uint32_t index, uint32_t size)
{
	uint64_t at = (uint64_t)index * NETVSP_SECTION_MAX;

	if (size > NETVSP_SECTION_MAX ||
	    !range_inside(at, NETVSP_SECTION_MAX, (uint64_t)n->send.count * GMEM_PAGE_SIZE))
		return false;
	tx->size += size;
	while (size) {
		uint32_t offset = (uint32_t)(at % GMEM_PAGE_SIZE);
		uint32_t piece = MIN(size, GMEM_PAGE_SIZE - offset);

		tx->iov[tx->count++] =
			(struct iovec){ (uint8_t *)n->send.pages[at / GMEM_PAGE_SIZE] + offset,
					piece };
		at += piece;
		size -= piece;
	}
	return true;
}

static bool add_ranges(struct netvsp_channel *c, const struct vmbus_packet *packet)
{
	struct netvsp_tx *tx = &c->tx;

	if (packet->range_count > NETVSP_TX_RANGES)
		return false;
	for (unsigned i = 0; i < packet->range_count; i++) {
		unsigned count;
		uint32_t bytes;

		if (vmbus_packet_iov(c->ch, packet, i, tx->iov + tx->count,
				     NETVSP_TX_IOV - tx->count, &count, &bytes) < 0)
			return false;
		tx->count += count;
		tx->size += bytes;
	}
	return true;
}

/* The pieces of [at, at + size), which is inside; returns their number. */
static unsigned tx_slice(const struct netvsp_tx *tx, size_t at, size_t size, struct iovec *out)
{
	unsigned n = 0;

	for (unsigned i = 0; i < tx->count && size; i++) {
		size_t length = tx->iov[i].iov_len, piece;

		if (at >= length) {
			at -= length;
			continue;
		}
		piece = MIN(length - at, size);
		out[n++] = (struct iovec){ (uint8_t *)tx->iov[i].iov_base + at, piece };
		size -= piece;
		at = 0;
	}
	return n;
}

static void tx_copy(const struct netvsp_tx *tx, size_t at, void *dst, size_t size)
{
	struct iovec pieces[NETVSP_TX_IOV];
	unsigned n = tx_slice(tx, at, size, pieces);
	uint8_t *to = dst;

	for (unsigned i = 0; i < n; i++) {
		memcpy(to, pieces[i].iov_base, pieces[i].iov_len);
		to += pieces[i].iov_len;
	}
}

/* --- what is said about a frame --- */

static bool take_information(struct tx_frame *t, const uint8_t *bytes, size_t size)
{
	struct reader r = reader_of(bytes, size);

	while (reader_left(&r)) {
		size_t start = r.at;
		uint32_t length = reader_le32(&r), type = reader_le32(&r), at = reader_le32(&r);
		uint32_t value;
		struct reader v;

		if (!reader_ok(&r) || length < 12 || length > size - start || at < 12 ||
		    at > length)
			return false;
		v = reader_of(bytes + start + at, length - at);
		value = reader_le32(&v);
		if (!reader_ok(&v) && type != RNDIS_PPI_HASH)
			value = 0;
		if (type == RNDIS_PPI_CHECKSUM)
			t->checksum = value;
		if (type == RNDIS_PPI_LARGE_SEND)
			t->large_send = value;
		if (type == RNDIS_PPI_VLAN) {
			t->tagged = value & 0xffff;
			/* There: priority 3, DEI 1, number 12; a tag has the number lowest. */
			t->vlan = (value & 7) << 13 | (value & 8) << 9 | (value >> 4 & 0xfff);
		}
		reader_seek(&r, start + length);
	}
	return true;
}

static void insert_tag(struct tx_frame *t)
{
	uint8_t *at = t->header + 2 * FRAME_MAC_SIZE;

	memmove(at + FRAME_VLAN, at, t->header_size - 2 * FRAME_MAC_SIZE);
	frame_put16(at, 0x8100);
	frame_put16(at + 2, (uint16_t)t->vlan);
	t->header_size += FRAME_VLAN;
	t->size += FRAME_VLAN;
}

/* The checksum's field holds the pseudo header's sum: whoever finishes it adds the rest. */
static void need_checksum(struct tx_frame *t, const struct frame *f)
{
	uint64_t sum = frame_pseudo_sum(t->header, f, (uint32_t)(t->size - f->l4));

	frame_put16(t->header + f->l4 + f->checksum_offset, frame_fold(sum));
	t->offload.flags = NET_CHECKSUM_NEEDED;
	t->offload.checksum_start = f->l4;
	t->offload.checksum_offset = f->checksum_offset;
}

/* Drivers leave lengths and sums of a frame that is to be cut empty. */
static bool large_send(struct tx_frame *t, const struct frame *f)
{
	uint32_t mss = RNDIS_LARGE_SEND_MSS(t->large_send);
	uint8_t *h = t->header;

	if (!mss || mss > UINT16_MAX || f->protocol != FRAME_TCP || !f->payload ||
	    f->payload > t->size || t->size - f->l3 > UINT16_MAX)
		return false;
	if (f->ip == 4) {
		frame_put16(h + f->l3 + 2, (uint16_t)(t->size - f->l3));
		frame_ip_checksum(h, f);
	} else {
		frame_put16(h + f->l3 + 4, (uint16_t)(t->size - f->l4));
	}
	need_checksum(t, f);
	if (t->size - f->payload <= mss)
		return true;
	t->segmented = true;
	t->offload.segmentation = f->ip == 4 ? NET_SEGMENT_TCP4 : NET_SEGMENT_TCP6;
	if (h[f->l4 + TCP_FLAGS] & TCP_CWR)
		t->offload.segmentation |= NET_SEGMENT_ECN;
	t->offload.header_size = f->payload;
	t->offload.segment_size = (uint16_t)mss;
	return true;
}

static bool apply_offloads(struct tx_frame *t)
{
	struct frame f;
	bool wanted = t->checksum & (RNDIS_CHECKSUM_TX_TCP | RNDIS_CHECKSUM_TX_UDP);

	if (!t->large_send && !t->checksum)
		return true;
	f = frame_parse(t->header, t->header_size);
	if (t->large_send)
		return large_send(t, &f);
	if (t->checksum & RNDIS_CHECKSUM_TX_IP_HEADER && f.ip == 4)
		frame_ip_checksum(t->header, &f);
	if (!wanted)
		return true;
	if (f.protocol == FRAME_OTHER)
		return false;
	need_checksum(t, &f);
	return true;
}

/* --- frames --- */

static int tx_send(struct netvsp_channel *c, struct tx_frame *t, size_t at)
{
	struct iovec iov[NETVSP_TX_IOV + 1] = { { t->header, t->header_size } };
	struct netvsp *n = c->n;
	size_t copied = t->header_size - (t->tagged ? FRAME_VLAN : 0);
	size_t rest = t->size - t->header_size;
	unsigned count = 1 + tx_slice(&c->tx, at + copied, rest, iov + 1);
	int r = net_port_send(n->port, &t->offload, iov, count, t->size);

	if (r == -EAGAIN && n->tx_drop) {
		n->counters.tx_full++;
		return 0;
	}
	if (r == -EAGAIN && net_port_want_room(n->port))
		r = net_port_send(n->port, &t->offload, iov, count, t->size);
	if (r < 0)
		return r;
	n->counters.tx_frames++;
	n->counters.tx_bytes += t->size;
	n->counters.tx_segmented += t->segmented;
	c->tx_frames++;
	return 0;
}

static int tx_frame(struct netvsp_channel *c, struct tx_frame *t, size_t at, size_t size)
{
	struct netvsp *n = c->n;
	size_t most = n->mtu + FRAME_ETHERNET + FRAME_VLAN;

	t->size = size;
	if (size < NET_FRAME_MIN || size > NET_FRAME_MAX - FRAME_VLAN ||
	    (!t->large_send && size > most))
		return -EINVAL;
	if (!netvsp_link(n)) {
		n->counters.tx_no_link++;
		return 0;
	}
	t->header_size = MIN(size, FRAME_HEADER_MAX);
	tx_copy(&c->tx, at, t->header, t->header_size);
	if (t->tagged)
		insert_tag(t);
	if (!apply_offloads(t))
		return -EINVAL;
	return tx_send(c, t, at);
}

/* A packet message at `at`, whose `length` bytes are inside and hold its header. */
static int tx_packet(struct netvsp_channel *c, size_t at, uint32_t length)
{
	size_t base = at + sizeof(struct rndis_header), size = length - sizeof(struct rndis_header);
	uint8_t information[NETVSP_PPI_MAX];
	struct tx_frame t = { 0 };
	struct rndis_packet p;
	uint32_t offset, bytes;

	if (size < sizeof(p))
		return -EINVAL;
	tx_copy(&c->tx, base, &p, sizeof(p));
	offset = le32_get(p.per_packet_info_offset);
	bytes = le32_get(p.per_packet_info_length);
	if (bytes) {
		if (bytes > sizeof(information) || offset < sizeof(p) ||
		    !range_inside(offset, bytes, size))
			return -EINVAL;
		tx_copy(&c->tx, base + offset, information, bytes);
		if (!take_information(&t, information, bytes))
			return -EINVAL;
	}
	offset = le32_get(p.data_offset);
	bytes = le32_get(p.data_length);
	if (offset < sizeof(p) || !range_inside(offset, bytes, size))
		return -EINVAL;
	return tx_frame(c, &t, base + offset, bytes);
}

static uint32_t tx_control(struct netvsp_channel *c, uint32_t length)
{
	uint8_t message[NETVSP_CONTROL_MAX];

	if (c->index || length > sizeof(message))
		return NVSP_STAT_FAIL;
	tx_copy(&c->tx, c->tx.at, message, length);
	return rndis_control(c->n, message, length);
}

/* The next message. 0; -EAGAIN; -EINVAL: the packet ends here. */
static int tx_message(struct netvsp_channel *c)
{
	struct netvsp_tx *tx = &c->tx;
	struct rndis_header h;
	uint32_t length;
	int r = 0;

	if (tx->size - tx->at < sizeof(h) || tx->messages == NETVSP_TX_MESSAGES)
		return -EINVAL;
	tx_copy(tx, tx->at, &h, sizeof(h));
	length = le32_get(h.length);
	if (length < sizeof(h) || length > tx->size - tx->at)
		return -EINVAL;
	if (le32_get(h.type) == RNDIS_MSG_PACKET)
		r = c->n->rndis_ready ? tx_packet(c, tx->at, length) : -EINVAL;
	else
		tx->status = tx_control(c, length);
	if (r < 0)
		return r;
	tx->messages++;
	tx->at += length;
	return 0;
}

static void tx_end(struct netvsp_channel *c)
{
	struct nvsp_message m = {
		.type = le32_of(NVSP_MSG1_TYPE_SEND_RNDIS_PKT_COMPLETE),
		.status = le32_of(c->tx.status),
	};

	c->tx.active = c->waiting = false;
	if (c->tx.wants_completion)
		netvsp_complete(c, c->tx.transaction_id, &m);
}

/* What is left is less than a message: padding. */
static bool tx_more(const struct netvsp_tx *tx)
{
	return tx->size - tx->at >= sizeof(struct rndis_header) || (!tx->messages && tx->size);
}

bool tx_continue(struct netvsp_channel *c)
{
	struct netvsp *n = c->n;
	int r = 0;

	c->waiting = false;
	while (tx_more(&c->tx) && !r)
		r = tx_message(c);
	if (r == -EAGAIN) {
		c->waiting = true;
		n->counters.tx_waits++;
		if (!n->tx_patience.deadline)
			loop_timer_arm(&n->tx_patience, loop_now(n->loop) + PATIENCE);
		return false;
	}
	if (r == -EIO || r == -EPIPE) {
		netvsp_port_ended(n, r);
		return tx_continue(c); /* without a port nothing fails so again */
	}
	if (r < 0 || !c->tx.messages) {
		c->tx.status = NVSP_STAT_INVALID_RNDIS_PKT;
		n->counters.tx_invalid++;
	}
	tx_end(c);
	return true;
}

void tx_abort(struct netvsp_channel *c)
{
	if (!c->tx.active)
		return;
	c->tx.status = NVSP_STAT_FAIL;
	tx_end(c);
}

uint32_t tx_begin(struct netvsp_channel *c, const struct vmbus_packet *packet,
		  const struct nvsp_rndis_packet *rndis)
{
	struct netvsp_tx *tx = &c->tx;
	uint32_t section = le32_get(rndis->send_buf_section_index);

	tx->wants_completion = packet->wants_completion;
	tx->transaction_id = packet->transaction_id;
	tx->status = NVSP_STAT_SUCCESS;
	tx->messages = tx->count = 0;
	tx->size = tx->at = 0;
	if (section != NVSP_INVALID_SECTION &&
	    !add_section(c->n, tx, section, le32_get(rndis->send_buf_section_size)))
		return NVSP_STAT_FAIL;
	if (!add_ranges(c, packet))
		return NVSP_STAT_FAIL;
	tx->active = true;
	return NVSP_STAT_SUCCESS;
}
