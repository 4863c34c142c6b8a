/* SPDX-License-Identifier: MIT */
/*
 * An adapter between a scripted guest and a switch's side of a port, for unit tests and the fuzzer:
 * the guest's half of NVSP and RNDIS, as Linux speaks it. Functions abort on what a test takes for
 * granted.
 */
#pragma once

#include "devices/netvsp/netvsp.h"
#include "devices/netvsp/nvsp_proto.h"
#include "devices/netvsp/rndis_proto.h"
#include "vmbus/testing.h"

#define BED_RING_PAGES    16u
#define BED_RECEIVE_PAGES 160u
#define BED_SEND_PAGES    32u
#define BED_RECEIVE_ID    0xcafe
#define BED_RANGES        64u

struct net_bed {
	struct test_guest *g;
	struct netvsp *n;
	struct vmbus_channel *primary;
	struct net_port *port; /* the switch's side */
	struct test_channel ch[NETVSP_MAX_CHANNELS];
	bool open[NETVSP_MAX_CHANNELS];
	uint64_t receive_gpa, send_gpa, scratch_gpa;
	uint32_t receive_gpadl, send_gpadl;
	uint32_t section_size, section_count;
	unsigned lost; /* calls of port_lost */
	uint32_t request_id;
	/* The last packet from the host. */
	uint16_t type;
	uint64_t transaction;
	size_t size; /* of the NVSP message */
	struct nvsp_message m;
	uint8_t raw[512];
	unsigned range_count;
	uint32_t range_bytes[BED_RANGES], range_offset[BED_RANGES];
};

/* Offered, and connected to a port; the guest knows nothing of it. */
struct net_bed *net_bed_bare(unsigned vps, const struct netvsp_options *options);
/* The same, connected to the bus, primary open; nothing said yet. */
struct net_bed *net_bed_new(unsigned vps, const struct netvsp_options *options);
void net_bed_free(struct net_bed *b);
void net_bed_connect_port(struct net_bed *b);
bool net_bed_open(struct net_bed *b, unsigned index); /* the channel that was offered as such */

/* The next packet from the host on a channel; false when there is none. */
bool net_bed_take(struct net_bed *b, unsigned channel);
/* Completes a packet with ranges. */
void net_bed_complete(struct net_bed *b, unsigned channel, uint64_t transaction);
/* Sends an NVSP message and takes its completion. */
void net_bed_ask(struct net_bed *b, const struct nvsp_message *m);
bool net_bed_init(struct net_bed *b, uint32_t version);
uint32_t net_bed_receive_buffer(struct net_bed *b, unsigned pages); /* the status */
uint32_t net_bed_send_buffer(struct net_bed *b, unsigned pages);
/* All of it, down to RNDIS and the packet filter. `frame` is what NDIS_CONFIG says. */
void net_bed_ready(struct net_bed *b, uint32_t version, uint32_t frame);

/* A message in guest pages, sent by GPA; the completion's NVSP status. */
uint32_t net_bed_send(struct net_bed *b, unsigned channel, uint32_t channel_type,
		      const void *message, size_t size);
/* The same without taking the completion. */
void net_bed_post(struct net_bed *b, unsigned channel, uint32_t channel_type, const void *message,
		  size_t size);
/* The next RNDIS message from the host, completed; its bytes, 0 when there is none. */
size_t net_bed_rndis(struct net_bed *b, unsigned channel, void *buffer, size_t max);
/* Query and set; the RNDIS status. *ret_size is in and out. */
uint32_t net_bed_query(struct net_bed *b, uint32_t oid, void *ret, size_t *ret_size);
uint32_t net_bed_set(struct net_bed *b, uint32_t oid, const void *value, size_t size);

/* An RNDIS packet message around a frame; `info` is per-packet information. Returns its size. */
size_t net_bed_packet(void *buffer, const void *frame, size_t size, const void *info,
		      size_t info_size);
size_t net_bed_info(void *buffer, uint32_t type, uint32_t value); /* 16 bytes of it */
/* The next frame at the switch, copied; its size, 0 when there is none. */
size_t net_bed_frame(struct net_bed *b, void *buffer, struct net_offload *ret);
/* A frame from the switch. */
int net_bed_deliver(struct net_bed *b, const void *frame, size_t size,
		    const struct net_offload *offload);
/* TCP over IPv4 (4) or IPv6 (6) from a station to the adapter, with right checksums unless
 * `partial`; returns the frame's size. */
size_t net_bed_tcp(uint8_t *frame, unsigned ip, size_t payload, bool partial);
bool net_bed_tcp_good(const uint8_t *frame, size_t size); /* lengths and checksums are right */
extern const uint8_t net_bed_mac[NETVSP_MAC_SIZE];
