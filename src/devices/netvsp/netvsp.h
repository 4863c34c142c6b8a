/* SPDX-License-Identifier: MIT */
/*
 * The synthetic network adapter: one VMBus device between a guest's driver and a port of a switch
 * (net/port.h). Everything here is called on the event loop's thread. Make it, offer it with
 * vmbus_device_offer and `netvsp_type`, connect it to a port and to another one whenever.
 */
#pragma once

#include "net/port.h"
#include "vmbus/device.h"

#define NETVSP_MAX_CHANNELS 64u  /* the primary and its sub-channels */
#define NETVSP_NAME_MAX     255u /* UTF-16 units of the friendly name */
#define NETVSP_MAC_SIZE     6u

struct netvsp;

struct netvsp_options {
	uint8_t mac[NETVSP_MAC_SIZE];
	const char *name;      /* friendly, UTF-8; copied; NULL = none */
	uint32_t max_version;  /* highest to agree to, NVSP_PROTOCOL_VERSION_*; 0 = 6.1 */
	unsigned max_channels; /* 1 to NETVSP_MAX_CHANNELS; 0 = that many */
	uint64_t speed;        /* bits per second, as the guest is told; 0 = 10 Gb/s */
	bool cable_out;        /* the link is down whatever is connected */
	bool mac_changes;      /* the guest may choose another address */
	/* The port ended by itself (-EIO, -EPIPE): the adapter goes on without. NULL is fine. */
	void (*port_lost)(void *context, int error);
	void *context;
};

struct netvsp_counters {
	uint64_t tx_frames, tx_bytes, tx_segmented; /* handed to the port */
	uint64_t tx_no_link;                        /* dropped: no port, or the link is down */
	uint64_t tx_full;                           /* dropped: the port had no room for long */
	uint64_t tx_waits;                          /* times the guest waited for the port */
	uint64_t tx_invalid;                        /* refused */
	uint64_t rx_frames, rx_bytes, rx_coalesced, rx_segmented;
	uint64_t rx_filtered; /* not for this guest, or it does not want any */
	uint64_t rx_waits;    /* times the port waited for room in the guest's buffer */
	uint64_t rx_full;     /* dropped: no room in the guest's ring */
	uint64_t rx_invalid;  /* dropped: larger than the guest's MTU, or offloads beyond sense */
	uint64_t control;     /* RNDIS requests */
	uint64_t packets_refused;
};

struct netvsp_state {
	uint32_t version; /* negotiated; 0 = the guest's driver is not there */
	uint32_t mtu, filter;
	unsigned channels; /* that are open */
	bool connected;    /* to a port that lives */
	bool link, rss, coalescing;
	uint64_t speed;
	uint8_t mac[NETVSP_MAC_SIZE];
	unsigned sections, sections_free;
};

int netvsp_new(struct loop *loop, const struct netvsp_options *options, struct netvsp **ret,
	       struct error *err) _must_check_;
/* No channel may be open: rescind first, or reset the bus. The port goes along. NULL is fine. */
void netvsp_free(struct netvsp *n);
/*
 * Plugs the adapter into another port, which is the adapter's from here on (its other side sees it
 * end when it is replaced). The guest sees the link go down and come up again. -errno when it
 * cannot be watched: then the adapter has none.
 */
int netvsp_connect(struct netvsp *n, struct net_port *port, struct error *err) _must_check_;
void netvsp_disconnect(struct netvsp *n); /* harmless without a port */
/*
 * Before the offer is taken back: the link goes down, and `left` (with the options' context) is
 * called when the guest's driver has noticed, has nothing under way and has read everything; or
 * after some seconds. It may be called in here.
 */
void netvsp_leave(struct netvsp *n, void (*left)(void *context));
void netvsp_set_link(struct netvsp *n, bool cable_out, uint64_t speed);
bool netvsp_cable(const struct netvsp *n);    /* whether it is plugged in */
void *netvsp_context(const struct netvsp *n); /* the options' */
struct netvsp_state netvsp_state(const struct netvsp *n);
struct netvsp_counters netvsp_counters(const struct netvsp *n);
/* Frames that channel `index` has received and sent; false when it is not open. */
bool netvsp_channel_counters(const struct netvsp *n, unsigned index, uint64_t *ret_rx,
			     uint64_t *ret_tx);
/* "6.1" of NVSP_PROTOCOL_VERSION_61, and back; NULL and 0 when there is no such version. */
const char *netvsp_version_name(uint32_t version);
uint32_t netvsp_version_find(const char *name);

extern const struct vmbus_device_type netvsp_type;
