// SPDX-License-Identifier: MIT
/*
 * Channels: offers and their withdrawal, opening and closing, and the packets in between. The event
 * connection of a channel exists before the device hears of the opening, so that no signal is lost.
 * A close has no answer in the protocol; what the guest waits for is the end of its GPADLs, which
 * therefore waits for the device.
 */
#include "vmbus/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct vmbus_channel *channel_find(struct vmbus *bus, uint32_t relid)
{
	if (!relid)
		return NULL;
	list_foreach(it, &bus->channels)
	{
		struct vmbus_channel *ch = list_entry(it, struct vmbus_channel, node);

		if (ch->relid == relid)
			return ch;
	}
	return NULL;
}

/* --- offers --- */

static uint32_t relid_take(struct vmbus *bus)
{
	for (uint32_t id = 1; id <= VMBUS_MAX_RELID; id++) {
		if (bus->relids[id / 8] & BIT(id % 8))
			continue;
		bus->relids[id / 8] |= (uint8_t)BIT(id % 8);
		return id;
	}
	return 0;
}

bool channel_claim_relid(struct vmbus_channel *ch, uint32_t relid)
{
	uint8_t *byte = &ch->bus->relids[relid / 8];

	if (!relid || relid > VMBUS_MAX_RELID || ch->relid || *byte & BIT(relid % 8))
		return false;
	*byte |= (uint8_t)BIT(relid % 8);
	ch->relid = relid;
	return true;
}

static void relid_give_back(struct vmbus_channel *ch)
{
	ch->bus->relids[ch->relid / 8] &= (uint8_t)~BIT(ch->relid % 8);
	ch->relid = 0;
}

/* Unique among all connections that a guest may signal: relid, SINT, virtual trust level 0. */
static uint32_t default_connection_id(const struct vmbus_channel *ch)
{
	return ch->relid | (uint32_t)ch->bus->sint << 12;
}

void channel_offer(struct vmbus_channel *ch)
{
	struct vmbus_offer_channel m = {
		.header.type = le32_of(CHANNELMSG_OFFERCHANNEL),
		.interface =
			guid_is_zero(&ch->type->interface) ? ch->options.interface : ch->type->interface,
		.instance = ch->options.instance,
		.flags = le16_of(ch->type->offer_flags),
		.mmio_megabytes = le16_of(ch->options.mmio_megabytes),
		.sub_channel_index = le16_of((uint16_t)ch->index),
		.is_dedicated_interrupt = le16_of(1),
	};

	ch->relid = relid_take(ch->bus);
	if (!ch->relid)
		return;
	m.child_relid = le32_of(ch->relid);
	m.connection_id = le32_of(default_connection_id(ch));
	memcpy(m.user_defined, ch->options.user_data, sizeof(m.user_defined));
	bus_send(ch->bus, &m, sizeof(m));
}

static void on_channel_kick(struct loop_task *t);

struct vmbus_channel *channel_new(struct vmbus *bus, const struct vmbus_device_type *type,
				  void *device)
{
	struct vmbus_channel *ch = calloc(1, sizeof(*ch));

	if (!ch)
		return NULL;
	ch->bus = bus;
	ch->type = type;
	ch->device = device;
	ch->event.eventfd = -1;
	loop_task_init(&ch->kick, on_channel_kick);
	list_append(&bus->channels, &ch->node);
	return ch;
}

/* Sub-channels of a freed primary are rescinded already, and live until the guest lets go. */
static void orphan_subs(struct vmbus_channel *primary)
{
	list_foreach(it, &primary->bus->channels)
	{
		struct vmbus_channel *ch = list_entry(it, struct vmbus_channel, node);

		if (ch->primary == primary)
			ch->primary = NULL;
	}
}

static void channel_free(struct vmbus_channel *ch)
{
	void (*done)(void *) = ch->rescind_done;
	void *device = ch->device;

	orphan_subs(ch);
	if (ch->relid)
		relid_give_back(ch);
	loop_cancel(ch->bus->loop, &ch->kick);
	list_remove(&ch->node);
	free(ch);
	if (done)
		done(device);
}

int vmbus_device_offer(struct vmbus *bus, const struct vmbus_device_type *type, void *device,
		       const struct vmbus_offer_options *options, struct vmbus_channel **ret,
		       struct error *err)
{
	struct vmbus_channel *ch = channel_new(bus, type, device);

	if (!ch)
		return error_set(err, -ENOMEM, "out of memory");
	ch->options = *options;
	if (bus->state == BUS_CONNECTED && bus->offers_requested)
		channel_offer(ch);
	*ret = ch;
	return 0;
}

static void send_rescind(struct vmbus_channel *ch)
{
	struct vmbus_relid_message m = {
		.header.type = le32_of(CHANNELMSG_RESCIND_CHANNELOFFER),
		.child_relid = le32_of(ch->relid),
	};

	bus_send(ch->bus, &m, sizeof(m));
}

static void channel_rescind(struct vmbus_channel *ch, bool serve);

static void close_subs(struct vmbus_channel *primary, bool serve)
{
	struct vmbus *bus = primary->bus;

	list_foreach_safe(it, &bus->channels)
	{
		struct vmbus_channel *ch = list_entry(it, struct vmbus_channel, node);

		if (ch->primary == primary)
			channel_rescind(ch, serve);
	}
}

/*
 * Frees the channel now if the guest never heard of it, else when it releases the relid. `serve`:
 * one that is open stays so until the guest closes it.
 */
static void channel_rescind(struct vmbus_channel *ch, bool serve)
{
	if (ch->rescinded) {
		if (!serve)
			channel_close(ch);
		return;
	}
	ch->rescinded = true;
	close_subs(ch, serve);
	if (ch->relid) {
		send_rescind(ch);
		if (!serve)
			channel_close(ch);
	} else if (ch->state == CHANNEL_OFFERED) {
		channel_free(ch);
	}
}

void vmbus_device_rescind(struct vmbus_channel *primary, void (*done)(void *device))
{
	primary->rescind_done = done;
	channel_rescind(primary, primary->type->serves_rescinded);
}

/* Rescinded ones of an earlier opening, which the guest still holds, do not count. */
static struct vmbus_channel *sub_find(const struct vmbus_channel *primary, unsigned index)
{
	list_foreach(it, &primary->bus->channels)
	{
		struct vmbus_channel *ch = list_entry(it, struct vmbus_channel, node);

		if (ch->primary == primary && ch->index == index && !ch->rescinded)
			return ch;
	}
	return NULL;
}

static bool sub_offer(struct vmbus_channel *primary, unsigned index)
{
	struct vmbus_channel *ch = channel_new(primary->bus, primary->type, primary->device);

	if (!ch)
		return false;
	ch->primary = primary;
	ch->options = primary->options;
	ch->index = index;
	channel_offer(ch);
	if (ch->relid)
		return true;
	channel_free(ch);
	return false;
}

unsigned vmbus_channel_offer_subs(struct vmbus_channel *primary, unsigned count)
{
	unsigned offered = 0;

	if (primary->state != CHANNEL_OPEN)
		return 0;
	count = MIN(count, VMBUS_MAX_SUB_CHANNELS);
	for (unsigned index = 1; index <= count; index++) {
		if (!sub_find(primary, index) && !sub_offer(primary, index))
			break; /* the indices have no gaps */
		offered++;
	}
	return offered;
}

bool bus_message_released(struct vmbus *bus, struct reader *r)
{
	struct vmbus_channel *ch = channel_find(bus, reader_le32(r));

	if (!ch || !ch->rescinded)
		return false;
	channel_close(ch); /* which the guest need not have done */
	if (ch->state == CHANNEL_OFFERED)
		channel_free(ch);
	else
		relid_give_back(ch); /* freed when the device has closed */
	return true;
}

/* --- opening --- */

static void on_guest_signal(struct loop_watch *w, uint32_t events)
{
	struct vmbus_channel *ch = container_of(w, struct vmbus_channel, watch);

	(void)events; /* edge-triggered: the counter need not be read */
	ch->bus->counters.signals_in++;
	/* Coming to rest, or at rest: resuming looks at each ring. */
	if (!ch->bus->quiet)
		ch->type->signal(ch->device, ch);
}

static void on_channel_kick(struct loop_task *t)
{
	struct vmbus_channel *ch = container_of(t, struct vmbus_channel, kick);

	if (ch->state == CHANNEL_OPEN && !ch->bus->quiet)
		ch->type->signal(ch->device, ch);
}

static int open_rings(struct vmbus_channel *ch, const struct channel_open *o)
{
	void **pages;
	unsigned count;
	int r;

	ch->ring_gpadl = gpadl_find(ch->bus, o->relid, o->gpadl);
	if (!ch->ring_gpadl || !ch->ring_gpadl->complete || ch->ring_gpadl->in_use ||
	    ch->ring_gpadl->torn_down)
		return -EINVAL;
	r = gpadl_pages(ch->bus, ch->ring_gpadl, &pages, &count);
	if (r < 0)
		return r;
	/* The guest's outgoing ring comes first; each has a control page and data. */
	if (o->out_page < 2 || o->out_page > count || count - o->out_page < 2)
		r = -EINVAL;
	if (!r)
		r = ring_init(&ch->in, pages, o->out_page);
	if (!r) {
		r = ring_init(&ch->out, pages + o->out_page, count - o->out_page);
		if (r < 0)
			ring_deinit(&ch->in);
	}
	free(pages);
	if (r < 0)
		return r;
	/* Both ends start where the rings stand: zero in a fresh ring. */
	ch->in.own = gshared_load32(ch->in.control, RING_OUT);
	ch->out.own = gshared_load32(ch->out.control, RING_IN);
	if (o->restored) {
		ch->in.own = o->in_own;
		ch->out.own = o->out_own;
	}
	ch->out.shown = ch->out.own;
	ch->in.broken = !ring_index_valid(ch->in.own, ch->in.size) || o->in_broken;
	ch->out.broken = !ring_index_valid(ch->out.own, ch->out.size) || o->out_broken;
	gshared_store32(ch->in.control, RING_FEATURES, RING_FEATURE_PENDING_SEND_SIZE);
	gshared_store32(ch->out.control, RING_FEATURES, RING_FEATURE_PENDING_SEND_SIZE);
	ch->ring_gpadl->in_use = true;
	return 0;
}

static void close_rings(struct vmbus_channel *ch)
{
	ring_deinit(&ch->in);
	ring_deinit(&ch->out);
	gpadl_release(ch->bus, ch->ring_gpadl);
	ch->ring_gpadl = NULL;
}

static int open_event(struct vmbus_channel *ch, const struct channel_open *o)
{
	int r;

	ch->event.eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (ch->event.eventfd < 0)
		return -errno;
	ch->event.connection_id = o->connection_id;
	r = loop_watch(ch->bus->loop, &ch->watch, ch->event.eventfd, EPOLLIN | EPOLLET,
		       on_guest_signal);
	if (r >= 0)
		r = partition_event_open(ch->bus->partition, &ch->event);
	if (r < 0) {
		loop_unwatch(&ch->watch);
		close(ch->event.eventfd);
		ch->event.eventfd = -1;
	}
	return r;
}

static void close_event(struct vmbus_channel *ch)
{
	if (ch->event.eventfd < 0)
		return;
	partition_event_close(ch->bus->partition, &ch->event);
	loop_unwatch(&ch->watch);
	close(ch->event.eventfd);
	ch->event.eventfd = -1;
}

static int channel_open(struct vmbus_channel *ch, const struct channel_open *o)
{
	int r = open_rings(ch, o);

	if (r < 0)
		return r;
	ch->target_vp = o->target_vp;
	ch->event_flag = o->event_flag;
	ch->context = NULL;
	ch->received = false;
	r = open_event(ch, o);
	if (r < 0) {
		close_rings(ch);
		return r;
	}
	ch->state = CHANNEL_OPEN;
	r = ch->type->open(ch->device, ch);
	if (r < 0) {
		ch->state = CHANNEL_OFFERED;
		close_event(ch);
		close_rings(ch);
		return r;
	}
	ch->bus->counters.channels_open++;
	/* The guest may have written before our event existed. */
	loop_defer(ch->bus->loop, &ch->kick);
	return 0;
}

static bool open_request_valid(const struct vmbus *bus, const struct channel_open *o)
{
	return (o->target_vp < partition_vp_count(bus->partition) ||
		o->target_vp == VMBUS_VP_NO_INTERRUPT) &&
	       o->event_flag && o->event_flag <= VMBUS_MAX_RELID && o->connection_id <= 0xffffff;
}

int channel_reopen(struct vmbus_channel *ch, const struct channel_open *o)
{
	int r;

	if (!open_request_valid(ch->bus, o))
		return -EINVAL;
	ch->restoring = true;
	r = channel_open(ch, o);
	ch->restoring = false;
	return r;
}

bool bus_message_open(struct vmbus *bus, struct reader *r)
{
	struct vmbus_open_result m = { .header.type = le32_of(CHANNELMSG_OPENCHANNEL_RESULT) };
	struct channel_open o = {
		.relid = reader_le32(r),
		.open_id = reader_le32(r),
		.gpadl = reader_le32(r),
		.target_vp = reader_le32(r),
		.out_page = reader_le32(r),
	};
	struct vmbus_channel *ch = channel_find(bus, o.relid);
	int status = -EINVAL;

	if (!ch || ch->rescinded || ch->state != CHANNEL_OFFERED)
		return false;
	o.connection_id = default_connection_id(ch);
	o.event_flag = (uint16_t)ch->relid;
	reader_skip(r, VMBUS_USER_DATA_SIZE);
	if (bus->features & VMBUS_FEATURE_GUEST_SIGNAL_PARAMETERS) {
		o.connection_id = reader_le32(r);
		o.event_flag = reader_le16(r);
	}
	if (reader_ok(r) && open_request_valid(bus, &o))
		status = channel_open(ch, &o);
	m.child_relid = le32_of(o.relid);
	m.open_id = le32_of(o.open_id);
	m.status = le32_of(status < 0 ? VMBUS_STATUS_FAILED : VMBUS_STATUS_SUCCESS);
	bus_send(bus, &m, sizeof(m));
	return status >= 0;
}

/* --- closing --- */

void channel_close(struct vmbus_channel *ch)
{
	if (ch->state != CHANNEL_OPEN)
		return;
	ch->state = CHANNEL_CLOSING;
	close_event(ch);
	loop_cancel(ch->bus->loop, &ch->kick);
	ch->type->close(ch->device, ch);
}

bool bus_message_close(struct vmbus *bus, struct reader *r)
{
	struct vmbus_channel *ch = channel_find(bus, reader_le32(r));

	if (!ch || ch->state != CHANNEL_OPEN)
		return false;
	if (!ch->primary)
		close_subs(ch, false);
	channel_close(ch);
	return true;
}

static bool all_closed(const struct vmbus *bus)
{
	list_foreach(it, &bus->channels) if (list_entry(it, struct vmbus_channel, node)->state !=
					     CHANNEL_OFFERED) return false;
	return true;
}

void vmbus_channel_closed(struct vmbus_channel *ch)
{
	struct vmbus *bus = ch->bus;

	assert(ch->state == CHANNEL_CLOSING);
	ch->state = CHANNEL_OFFERED;
	bus->counters.channels_open--;
	close_rings(ch);
	if (ch->rescinded && !ch->relid)
		channel_free(ch);
	bus_pause_check(bus);
	if (bus->state == BUS_CLOSING && all_closed(bus))
		loop_defer(bus->loop, &bus->closed_task);
}

void bus_close_all(struct vmbus *bus)
{
	bus->state = BUS_CLOSING;
	list_foreach(it, &bus->channels) channel_close(list_entry(it, struct vmbus_channel, node));
	if (all_closed(bus))
		loop_defer(bus->loop, &bus->closed_task);
}

/* Sub-channels first: a rescinded primary must outlive them. */
void bus_forget_channels(struct vmbus *bus)
{
	list_foreach_safe(it, &bus->channels)
	{
		struct vmbus_channel *ch = list_entry(it, struct vmbus_channel, node);

		if (ch->primary)
			channel_free(ch);
	}
	list_foreach_safe(it, &bus->channels)
	{
		struct vmbus_channel *ch = list_entry(it, struct vmbus_channel, node);

		if (ch->relid)
			relid_give_back(ch);
		if (ch->rescinded)
			channel_free(ch);
	}
}

bool bus_message_modify(struct vmbus *bus, struct reader *r)
{
	struct vmbus_modify_channel_response m = {
		.header.type = le32_of(CHANNELMSG_MODIFYCHANNEL_RESPONSE),
	};
	uint32_t relid = reader_le32(r), vp = reader_le32(r);
	struct vmbus_channel *ch = channel_find(bus, relid);
	bool ok = ch && ch->state == CHANNEL_OPEN &&
		  (vp < partition_vp_count(bus->partition) || vp == VMBUS_VP_NO_INTERRUPT);

	if (ok)
		ch->target_vp = vp;
	m.child_relid = le32_of(relid);
	m.status = le32_of(ok ? VMBUS_STATUS_SUCCESS : VMBUS_STATUS_FAILED);
	if (bus->version >= VERSION_WIN10_V5_3)
		bus_send(bus, &m, sizeof(m));
	return ok;
}

/* --- packets --- */

static void signal_guest(struct vmbus_channel *ch)
{
	if (ch->target_vp == VMBUS_VP_NO_INTERRUPT)
		return;
	ch->bus->counters.signals_out++;
	partition_signal_event(ch->bus->partition, ch->target_vp, ch->bus->sint, ch->event_flag);
}

/* The extended header of a GPA-direct packet: a reserved word, the number of ranges, the ranges. */
static int parse_packet(struct vmbus_channel *ch, size_t length, struct vmbus_packet *ret)
{
	struct reader r = reader_of(ch->bus->packet, length);
	uint16_t type = reader_le16(&r), offset = reader_le16(&r), flags;

	reader_skip(&r, 2);
	flags = reader_le16(&r);
	*ret = (struct vmbus_packet){
		.type = type,
		.wants_completion = flags & VMBUS_PACKET_COMPLETION_REQUESTED,
		.transaction_id = reader_le64(&r),
		.payload = ch->bus->packet + offset * 8u,
		.size = length - offset * 8u,
	};
	if (type != VMBUS_PACKET_GPA_DIRECT)
		return 1;
	reader_skip(&r, 4);
	ret->range_count = reader_le32(&r);
	if (!reader_ok(&r) || r.at > offset * 8u) {
		ch->in.broken = true;
		return -EIO;
	}
	ret->ranges = ch->bus->packet + r.at;
	ret->ranges_size = offset * 8u - r.at;
	return 1;
}

int vmbus_receive(struct vmbus_channel *ch, struct vmbus_packet *ret)
{
	bool signal;
	int n;

	if (ch->state != CHANNEL_OPEN)
		return 0;
	if (!ch->received) {
		ring_mask(&ch->in, true);
		ch->received = true;
	}
	n = ring_read(&ch->in, ch->bus->packet, sizeof(ch->bus->packet), &signal);
	if (!n) {
		ch->received = false;
		if (!ring_mask(&ch->in, false))
			return 0;
		/* It came between the look and the unmasking. */
		ring_mask(&ch->in, true);
		ch->received = true;
		n = ring_read(&ch->in, ch->bus->packet, sizeof(ch->bus->packet), &signal);
	}
	if (n <= 0)
		return n;
	ch->bus->counters.packets_in++;
	if (signal)
		signal_guest(ch);
	return parse_packet(ch, (size_t)n, ret);
}

bool vmbus_can_send(struct vmbus_channel *ch, size_t size)
{
	return ring_has_room(&ch->out, ring_packet_size(size)) > 0;
}

static int queue_packet(struct vmbus_channel *ch, struct vmbus_packet_descriptor d,
			const void *payload, size_t size)
{
	int r;

	if (ch->state == CHANNEL_OFFERED || size > VMBUS_MAX_PACKET)
		return -EINVAL;
	r = ring_put(&ch->out, d, payload, size);
	if (r >= 0)
		ch->bus->counters.packets_out++;
	return r;
}

int vmbus_queue(struct vmbus_channel *ch, enum vmbus_packet_type type, uint64_t transaction_id,
		const void *payload, size_t size)
{
	const struct vmbus_packet_descriptor d = {
		.type = le16_of((uint16_t)type),
		.transaction_id = le64_of(transaction_id),
	};

	return queue_packet(ch, d, payload, size);
}

/* The extended header: number of the set, whose it is, the number of ranges, the ranges. */
int vmbus_queue_transfer(struct vmbus_channel *ch, uint64_t transaction_id,
			 const struct vmbus_transfer *transfer, const void *payload, size_t size)
{
	uint8_t packet[8 + VMBUS_TRANSFER_RANGES * 8 + VMBUS_TRANSFER_PAYLOAD];
	struct writer w = writer_of(packet, sizeof(packet));
	struct vmbus_packet_descriptor d = {
		.type = le16_of(VMBUS_PACKET_TRANSFER_PAGES),
		.flags = le16_of(VMBUS_PACKET_COMPLETION_REQUESTED),
		.transaction_id = le64_of(transaction_id),
	};

	writer_le16(&w, transfer->set);
	writer_le16(&w, 0);
	writer_le32(&w, transfer->count);
	writer_put(&w, transfer->ranges, transfer->count * sizeof(transfer->ranges[0]));
	d.offset8 = le16_of((uint16_t)((sizeof(d) + w.at) / 8));
	writer_put(&w, payload, size);
	return writer_ok(&w) ? queue_packet(ch, d, packet, w.at) : -EINVAL;
}

void vmbus_flush(struct vmbus_channel *ch)
{
	if (ch->state != CHANNEL_OFFERED && ring_show(&ch->out))
		signal_guest(ch);
}

bool vmbus_all_read(const struct vmbus_channel *ch)
{
	return ch->state == CHANNEL_OFFERED || ch->out.broken ||
	       gshared_load32(ch->out.control, RING_OUT) == ch->out.own;
}

int vmbus_send(struct vmbus_channel *ch, enum vmbus_packet_type type, uint64_t transaction_id,
	       const void *payload, size_t size)
{
	int r = vmbus_queue(ch, type, transaction_id, payload, size);

	vmbus_flush(ch);
	return r;
}

/* Finds range `index` in the list and leaves the cursor at its page numbers. */
static int find_range(const struct vmbus_packet *packet, unsigned index, struct reader *r,
		      uint32_t *ret_bytes, uint32_t *ret_offset)
{
	*r = reader_of(packet->ranges, packet->ranges_size);
	if (index >= packet->range_count)
		return -EINVAL;
	for (unsigned i = 0;; i++) {
		uint64_t pages;

		*ret_bytes = reader_le32(r);
		*ret_offset = reader_le32(r);
		if (!reader_ok(r) || *ret_offset >= GMEM_PAGE_SIZE)
			return -EINVAL;
		pages = range_pages(*ret_bytes, *ret_offset);
		if (pages > reader_left(r) / 8)
			return -EINVAL;
		if (i == index)
			return 0;
		reader_skip(r, pages * 8);
	}
}

int vmbus_packet_iov(struct vmbus_channel *ch, const struct vmbus_packet *packet, unsigned index,
		     struct iovec *iov, unsigned max, unsigned *ret_count, uint32_t *ret_bytes)
{
	uint32_t left, offset;
	struct reader r;
	unsigned n = 0;
	int error = find_range(packet, index, &r, &left, &offset);

	if (error < 0)
		return error;
	*ret_bytes = left;
	while (left) {
		uint64_t page = reader_le64(&r);
		uint32_t size = MIN(left, GMEM_PAGE_SIZE - offset);

		if (!pfn_addressable(page))
			return -EFAULT;
		error = gmem_iov(ch->bus->gm, page * GMEM_PAGE_SIZE + offset, size, iov, max, &n);
		if (error < 0)
			return error;
		left -= size;
		offset = 0;
	}
	*ret_count = n;
	return 0;
}

/* --- small getters --- */

unsigned vmbus_channel_index(const struct vmbus_channel *ch)
{
	return ch->index;
}

void vmbus_channel_set_context(struct vmbus_channel *ch, void *context)
{
	ch->context = context;
}

bool vmbus_channel_restoring(const struct vmbus_channel *ch)
{
	return ch->restoring;
}

struct vmbus_channel *vmbus_channel_sub(struct vmbus_channel *primary, unsigned index)
{
	struct vmbus_channel *ch = index ? sub_find(primary, index) : primary;

	return ch && ch->state == CHANNEL_OPEN ? ch : NULL;
}

void *vmbus_channel_context(const struct vmbus_channel *ch)
{
	return ch->context;
}

struct gmem *vmbus_channel_gmem(const struct vmbus_channel *ch)
{
	return ch->bus->gm;
}

struct loop *vmbus_channel_loop(const struct vmbus_channel *ch)
{
	return ch->bus->loop;
}

unsigned vmbus_channel_vp_count(const struct vmbus_channel *ch)
{
	return partition_vp_count(ch->bus->partition);
}

int vmbus_channel_reference_time(const struct vmbus_channel *ch, uint64_t *ret)
{
	return partition_reference_time(ch->bus->partition, ret);
}
