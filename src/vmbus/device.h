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
#include "save/save.h"

#define VMBUS_USER_DATA_SIZE 120
#define VMBUS_MAX_PACKET                                                                           \
	16896u /* bytes of one packet with its headers: a socket's 16 KiB; larger ones break it */

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
	/*
	 * A channel whose offer is taken back stays open until the guest closes it: for guests
	 * whose driver waits, before it does, for what it has sent to be completed.
	 */
	bool serves_rescinded;

	/*
	 * Saved state. The VPs stand still; then, in this order:
	 *
	 * pause: the device neither receives nor sends any more, ends what is in flight (its
	 * completions may stay in its own hands, or go into the ring), and calls
	 * vmbus_device_paused when it touches no guest memory; from in here, or later. Until
	 * `resume`, `signal` is not called. NULL = nothing is ever in flight between two callbacks,
	 * and nothing but `signal` makes the device act on a channel.
	 * save: appends its records (save/save.h), as few and as plain as can be: protocol state,
	 * and what it holds that the guest waits for. Rings, channels and GPADLs are the bus's
	 * business. Nothing changes in here; the machine may go on as if nothing was. A negative
	 * errno with words when that is not possible now.
	 * resume: go on. `signal` for each open channel follows by itself, so what came into the
	 * rings meanwhile is not lost. Also after a pause that something broke off.
	 *
	 * Restored, in a new process: the device is made and offered as ever, and paused from the
	 * start. Then for each channel that was open, the primary first, `open` is called: it makes
	 * what the device needs to serve the channel, sends nothing (vmbus_channel_restoring is
	 * true), and cannot refuse without the restore failing. Then `restore`, which reads the
	 * records back, each judged like the guest's bytes; channels that are open are
	 * vmbus_channel_sub(primary, index). Then `resume`.
	 *
	 * A device without save and restore makes saving refuse, with its name in the words, unless
	 * it says that it begins anew: it then has no state worth keeping, and `resume` (or the
	 * first `signal` after it) finds a channel that was just opened, on which the device begins
	 * its protocol as on any, while the guest's driver goes on where it was. Integration
	 * components negotiate like this at any time.
	 */
	void (*pause)(void *device, struct vmbus_channel *primary);
	int (*save)(void *device, struct save_writer *w, struct error *err);
	int (*restore)(void *device, struct save_reader *r, struct error *err);
	void (*resume)(void *device);
	bool begins_anew;
};

struct vmbus_offer_options {
	struct guid interface; /* when the type has none (zero): sockets, whose services it names */
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
/* The end of what `pause` began. */
void vmbus_device_paused(struct vmbus_channel *primary);
/* Inside `open`: the channel is not new, its guest knows it as open. */
bool vmbus_channel_restoring(const struct vmbus_channel *ch);
/* The open channel of that index, 0 being the primary itself; NULL when it is not open. */
struct vmbus_channel *vmbus_channel_sub(struct vmbus_channel *primary, unsigned index);

unsigned vmbus_channel_index(const struct vmbus_channel *ch); /* 0 = primary */
/* A pointer for the device's own use, NULL at each open. */
void vmbus_channel_set_context(struct vmbus_channel *ch, void *context);
void *vmbus_channel_context(const struct vmbus_channel *ch);
struct gmem *vmbus_channel_gmem(const struct vmbus_channel *ch);
struct loop *vmbus_channel_loop(const struct vmbus_channel *ch);
/* VPs of the partition: the useful number of channels. */
unsigned vmbus_channel_vp_count(const struct vmbus_channel *ch);
/* The partition's reference time in 100 ns (TLFS 12.4), as the guest reads it. */
int vmbus_channel_reference_time(const struct vmbus_channel *ch, uint64_t *ret) _must_check_;

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
 * The same for many packets: the guest sees them, and is signalled if it must be, at the next
 * vmbus_flush (or vmbus_send) of this channel. What was queued takes room meanwhile.
 */
int vmbus_queue(struct vmbus_channel *ch, enum vmbus_packet_type type, uint64_t transaction_id,
		const void *payload, size_t size) _must_check_;
void vmbus_flush(struct vmbus_channel *ch);
/* Whether the guest has read all that it was sent. */
bool vmbus_all_read(const struct vmbus_channel *ch);

/* Ranges of a buffer that the guest has given, in a packet that it completes when it has read. */
#define VMBUS_TRANSFER_RANGES  64u
#define VMBUS_TRANSFER_PAYLOAD 64u
struct vmbus_range {
	le32 bytes, offset;
};
struct vmbus_transfer {
	uint16_t set; /* the guest's number for the buffer */
	const struct vmbus_range *ranges;
	unsigned count; /* 1 to VMBUS_TRANSFER_RANGES */
};
/* What vmbus_can_send is asked for. */
static inline size_t vmbus_transfer_size(unsigned ranges, size_t payload)
{
	return 8 + ranges * sizeof(struct vmbus_range) + payload;
}
int vmbus_queue_transfer(struct vmbus_channel *ch, uint64_t transaction_id,
			 const struct vmbus_transfer *transfer, const void *payload,
			 size_t size) _must_check_;

/*
 * A buffer that the guest lends to a device by a GPADL of one of its channels: pages of RAM, shared
 * with the guest. -EINVAL when there is no such GPADL of whole pages, or it is in use already. The
 * guest gets it back no sooner than the device gives it back, which it does before it has closed
 * the channel. Giving back nothing (all zeros) is harmless.
 */
struct vmbus_buffer {
	void **pages;
	unsigned count;
	uint8_t *linear; /* all of it when the pages are adjacent, else NULL */
	uint32_t id;     /* the GPADL's */
	/* the bus's */
	struct gpadl *gpadl;
	struct vmbus *bus;
};
int vmbus_buffer_take(struct vmbus_channel *ch, uint32_t id, struct vmbus_buffer *ret) _must_check_;
void vmbus_buffer_give_back(struct vmbus_buffer *b);

/*
 * The guest memory that a GPA-direct packet names: range `index` of its list, as iovecs.
 * `*ret_bytes` is the range's length. -EINVAL when the list is malformed, -EFAULT when it leaves
 * RAM, -E2BIG when `max` iovecs do not suffice.
 */
int vmbus_packet_iov(struct vmbus_channel *ch, const struct vmbus_packet *packet, unsigned index,
		     struct iovec *iov, unsigned max, unsigned *ret_count,
		     uint32_t *ret_bytes) _must_check_;
