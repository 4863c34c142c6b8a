/* SPDX-License-Identifier: MIT */
/* Shared by the files of vmbus only: the bus, its channels and its GPADLs. */
#pragma once

#include "vmbus/ring.h"
#include "vmbus/vmbus.h"

/* What one guest may make us hold. A relid is also an event flag, so 2,047 is the format's limit.
 */
#define VMBUS_MAX_RELID        2047u
#define VMBUS_MAX_GPADLS       8192u
#define VMBUS_MAX_GPADL_PAGES  (1280 * MIB / GMEM_PAGE_SIZE) /* as Windows Server 2019 allows */
#define VMBUS_MAX_SUB_CHANNELS 64u

enum channel_state {
	CHANNEL_OFFERED, /* or waiting to be, while relid is 0 */
	CHANNEL_OPEN,
	CHANNEL_CLOSING, /* the device still has I/O in flight */
};

struct vmbus_channel {
	struct list node; /* bus->channels, primaries and sub-channels alike */
	struct vmbus *bus;
	const struct vmbus_device_type *type;
	void *device, *context;
	struct vmbus_offer_options options;
	struct vmbus_channel *primary; /* NULL for a primary */
	unsigned index;
	uint32_t relid; /* 0 = the guest does not know the channel */
	enum channel_state state;
	bool rescinded; /* freed when the guest lets go (RELID_RELEASED) */
	bool received;  /* inside receive: signals from the guest are masked */
	void (*rescind_done)(void *device);
	/* Valid while open or closing: */
	struct gpadl *ring_gpadl;
	struct ring in, out; /* from the guest, to the guest */
	uint32_t target_vp, event_flag;
	struct partition_event event; /* the guest's signals */
	struct loop_watch watch;
	struct loop_task kick; /* look at the ring without a signal */
};

struct gpadl {
	struct list node;
	uint32_t relid, id;
	bool complete;
	bool in_use;    /* by an open channel's rings */
	bool torn_down; /* the guest wants it back; answered when no longer in use */
	uint16_t range_count;
	uint32_t words, have; /* u64 words in all, and received so far */
	uint64_t buffer[];
};

enum bus_state {
	BUS_DISCONNECTED = BIT(0),
	BUS_CONNECTED = BIT(1),
	BUS_CLOSING = BIT(2), /* all channels are being closed; then comes bus->after_close */
};
#define BUS_ANY (BUS_DISCONNECTED | BUS_CONNECTED | BUS_CLOSING)

struct vmbus {
	struct partition *partition;
	struct gmem *gm;
	struct loop *loop;
	uint32_t max_version;
	struct partition_port port, multi_port;

	enum bus_state state;
	bool offers_requested;
	uint32_t version, features;
	uint32_t message_vp;
	uint8_t sint;
	void (*after_close)(struct vmbus *bus);
	struct loop_task closed_task;
	/* The contact that waits for the channels to close. */
	struct {
		uint32_t version, vp, features, connection_id;
		uint8_t sint;
	} contact;
	void (*reset_done)(void *context);
	void *reset_context;

	struct list channels, gpadls;
	uint8_t relids[VMBUS_MAX_RELID / 8 + 1];
	struct vmbus_counters counters;
	uint8_t packet[VMBUS_MAX_PACKET];
};

/* bus.c */
void bus_send(struct vmbus *bus, const void *message, size_t size);

/* channel.c */
struct vmbus_channel *channel_find(struct vmbus *bus, uint32_t relid);
void channel_offer(struct vmbus_channel *ch);
void channel_close(struct vmbus_channel *ch);
void channel_released(struct vmbus_channel *ch);
bool bus_message_open(struct vmbus *bus, struct reader *r);
bool bus_message_close(struct vmbus *bus, struct reader *r);
bool bus_message_modify(struct vmbus *bus, struct reader *r);
bool bus_message_released(struct vmbus *bus, struct reader *r);
/* Closes everything, then calls bus->after_close from the loop. */
void bus_close_all(struct vmbus *bus);
/* Forgets relids and sub-channels after all is closed. */
void bus_forget_channels(struct vmbus *bus);

/* gpadl.c */
struct gpadl *gpadl_find(struct vmbus *bus, uint32_t relid, uint32_t id);
/* Pages of a one-range, page-aligned GPADL as host pointers; malloc'ed, the caller's. */
int gpadl_pages(struct vmbus *bus, const struct gpadl *g, void ***ret_pages, unsigned *ret_count);
void gpadl_release(struct vmbus *bus, struct gpadl *g); /* no longer in use by rings */
void gpadls_free(struct vmbus *bus);
bool bus_message_gpadl_header(struct vmbus *bus, struct reader *r);
bool bus_message_gpadl_body(struct vmbus *bus, struct reader *r);
bool bus_message_gpadl_teardown(struct vmbus *bus, struct reader *r);
