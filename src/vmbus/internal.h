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

/* Of a device, kept at its primary channel. */
enum device_pause {
	DEVICE_RUNS,
	DEVICE_PAUSING, /* asked to, and still busy */
	DEVICE_PAUSED,
};

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
	enum device_pause pause;
	bool restored,
		restoring; /* state.c's: was in the stream; `open` is being called for that */
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
	bool in_use;            /* by an open channel's rings */
	bool torn_down;         /* the guest wants it back; answered when no longer in use */
	bool restore_torn_down; /* it was so when saved; state.c's until channels are there */
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
	/* Coming to rest (state.c): who waits for it; and from when on no device is signalled. */
	void (*paused)(void *context);
	void *pause_context;
	bool quiet;
	struct loop_task pause_task;

	int (*connect)(void *context, const struct guid *endpoint, const struct guid *service);
	void *connect_context;

	struct list channels, gpadls;
	uint8_t relids[VMBUS_MAX_RELID / 8 + 1];
	struct vmbus_counters counters;
	uint8_t packet[VMBUS_MAX_PACKET];
};

/* bus.c */
bool bus_version_supported(const struct vmbus *bus, uint32_t version);
void bus_send(struct vmbus *bus, const void *message, size_t size);

/* state.c */
void bus_pause_init(struct vmbus *bus);
/* Something came to rest: perhaps it was the last. */
void bus_pause_check(struct vmbus *bus);

/* channel.c */
struct vmbus_channel *channel_new(struct vmbus *bus, const struct vmbus_device_type *type,
				  void *device);
/* Gives the channel this number; false when it is taken or none. */
bool channel_claim_relid(struct vmbus_channel *ch, uint32_t relid);
/* What an opening names. */
struct channel_open {
	uint32_t relid, open_id, gpadl, target_vp, out_page;
	uint32_t connection_id;
	uint16_t event_flag;
	/* A channel that is restored as open: where we stood in its rings. */
	bool restored;
	uint32_t in_own, out_own;
	bool in_broken, out_broken;
};
int channel_reopen(struct vmbus_channel *ch, const struct channel_open *o);
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
/* Empty, in the list, charged; NULL above the limits. */
struct gpadl *gpadl_new(struct vmbus *bus, uint32_t words, uint16_t ranges);
/* Whether what a complete one says makes sense. */
bool gpadl_valid(struct vmbus *bus, const struct gpadl *g);
struct gpadl *gpadl_find(struct vmbus *bus, uint32_t relid, uint32_t id);
/* Pages of a one-range, page-aligned GPADL as host pointers; malloc'ed, the caller's. */
int gpadl_pages(struct vmbus *bus, const struct gpadl *g, void ***ret_pages, unsigned *ret_count);
void gpadl_release(struct vmbus *bus, struct gpadl *g); /* no longer in use by rings */
void gpadls_free(struct vmbus *bus);
bool bus_message_gpadl_header(struct vmbus *bus, struct reader *r);
bool bus_message_gpadl_body(struct vmbus *bus, struct reader *r);
bool bus_message_gpadl_teardown(struct vmbus *bus, struct reader *r);
