/* SPDX-License-Identifier: MIT */
/*
 * What a synthetic device sees of VMBus: channels with packets in and out. A device knows nothing
 * of engines, messages or SynIC. Everything here runs on the event loop's thread.
 *
 * Life of a channel: offered -> open -> closing -> offered ... A device may touch the rings of a
 * channel, and the guest pages that its packets name, from `open` until it has called
 * vmbus_channel_closed for it.
 */
#pragma once

#include "event/loop.h"
#include "gmem/gmem.h"
#include "lib/cursor.h"
#include "lib/guid.h"

#define VMBUS_USER_DATA_SIZE 120
#define VMBUS_MAX_PACKET                                                                           \
	16384u /* bytes of one packet with its headers; larger ones break the channel */

/* Packet types (Linux include/linux/hyperv.h names the same values VM_PKT_*). */
enum vmbus_packet_type {
	VMBUS_PACKET_INBAND = 6,
	VMBUS_PACKET_TRANSFER_PAGES = 7,
	VMBUS_PACKET_GPA_DIRECT = 9,
	VMBUS_PACKET_COMPLETION = 11,
};

struct vmbus;
struct vmbus_channel;

/* A packet in private memory, valid until the next receive on any channel of the same bus. */
struct vmbus_packet {
	uint16_t type; /* enum vmbus_packet_type, or what else the guest wrote */
	bool wants_completion;
	uint64_t transaction_id;
	const void *payload;
	size_t size;           /* of the payload, a multiple of 8 */
	const uint8_t *ranges; /* GPA-direct: the range list as sent; see vmbus_packet_iov */
	size_t ranges_size;
	unsigned range_count;
};

/* One per kind of device, const, listed in devices/devices.c. */
struct vmbus_device_type {
	const char *name; /* "storvsp" */
	struct guid interface;
	uint16_t offer_flags; /* VMBUS_OFFER_* of vmbus_proto.h */
	/*
	 * The guest opened the channel (index 0 is the primary, others are sub-channels). 0, or a
	 * negative errno, which the guest sees as a failed open.
	 */
	int (*open)(void *device, struct vmbus_channel *ch);
	/*
	 * The guest closed it, or everything is being reset. The device stops using the channel and
	 * calls vmbus_channel_closed, from in here or when its last I/O into guest memory has
	 * finished.
	 */
	void (*close)(void *device, struct vmbus_channel *ch);
	/* The guest signalled: packets to receive, or room in a ring that was full. */
	void (*signal)(void *device, struct vmbus_channel *ch);
	/* The whole partition is being reset; all channels are closed by now. Protocol state goes.
	 */
	void (*reset)(void *device);
};

struct vmbus_offer_options {
	struct guid instance;
	uint16_t mmio_megabytes;
	uint8_t user_data[VMBUS_USER_DATA_SIZE];
};

/*
 * Offers a device to the guest: at once when the guest is connected, else when it asks. The device
 * must outlive the offer. `*ret` is borrowed, valid until vmbus_device_rescind has finished.
 */
int vmbus_device_offer(struct vmbus *bus, const struct vmbus_device_type *type, void *device,
		       const struct vmbus_offer_options *options, struct vmbus_channel **ret,
		       struct error *err) _must_check_;
/* Takes the offer back (hot removal). `done` is called when the guest has let go of everything. */
void vmbus_device_rescind(struct vmbus_channel *primary, void (*done)(void *device));

/*
 * Offers sub-channels 1..count of an open primary. They are rescinded when the primary closes.
 * Returns how many are offered in all (a limit may make it less than count).
 */
unsigned vmbus_channel_offer_subs(struct vmbus_channel *primary, unsigned count);
void vmbus_channel_closed(struct vmbus_channel *ch);

unsigned vmbus_channel_index(const struct vmbus_channel *ch); /* 0 = primary */
/* A pointer for the device's own use, NULL at each open. */
void vmbus_channel_set_context(struct vmbus_channel *ch, void *context);
void *vmbus_channel_context(const struct vmbus_channel *ch);
struct gmem *vmbus_channel_gmem(const struct vmbus_channel *ch);
struct loop *vmbus_channel_loop(const struct vmbus_channel *ch);
/* VPs of the partition: the useful number of channels. */
unsigned vmbus_channel_vp_count(const struct vmbus_channel *ch);

/*
 * Next packet from the guest: 1 and *ret, or 0 when the ring is empty (the guest will signal when
 * it is not), or -EIO when the guest broke the ring: the channel then stays silent until it is
 * closed. Receive until it returns 0, or receive again later (defer a task) when stopping for lack
 * of room.
 */
int vmbus_receive(struct vmbus_channel *ch, struct vmbus_packet *ret) _must_check_;
/* Whether a packet with `size` payload bytes fits now. If not, `signal` is called when it does. */
bool vmbus_can_send(struct vmbus_channel *ch, size_t size);
/* 0; -EAGAIN when there is no room (ask vmbus_can_send first); -EIO on a broken ring. */
int vmbus_send(struct vmbus_channel *ch, enum vmbus_packet_type type, uint64_t transaction_id,
	       const void *payload, size_t size) _must_check_;

/*
 * The guest memory that a GPA-direct packet names: range `index` of its list, as iovecs.
 * `*ret_bytes` is the range's length. -EINVAL when the list is malformed, -EFAULT when it leaves
 * RAM, -E2BIG when `max` iovecs do not suffice.
 */
int vmbus_packet_iov(struct vmbus_channel *ch, const struct vmbus_packet *packet, unsigned index,
		     struct iovec *iov, unsigned max, unsigned *ret_count,
		     uint32_t *ret_bytes) _must_check_;
