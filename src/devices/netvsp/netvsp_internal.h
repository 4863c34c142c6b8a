/* SPDX-License-Identifier: MIT */
/* The inside of the adapter, shared by the files of this folder only. */
#pragma once

#include "devices/netvsp/frame.h"
#include "devices/netvsp/netvsp.h"
#include "devices/netvsp/nvsp_proto.h"
#include "devices/netvsp/rndis_proto.h"

#define NETVSP_MTU_DEFAULT   1500u
#define NETVSP_MTU_MIN       68u
#define NETVSP_MTU_MAX       65521u /* with the Ethernet header 64 KiB, as guests have it */
#define NETVSP_SECTION_MAX   6144u  /* bytes of a section of the guest's send buffer */
#define NETVSP_SECTIONS      16384u /* of a receive buffer; more are not used */
#define NETVSP_TX_IOV        160u   /* pieces of memory of one packet */
#define NETVSP_TX_RANGES     64u    /* ranges of one packet: each costs a walk over the list */
#define NETVSP_TX_MESSAGES   64u    /* RNDIS messages of one packet; 8 are announced */
#define NETVSP_PPI_MAX       512u   /* bytes of information beside a frame */
#define NETVSP_CONTROL_MAX   4096u  /* bytes of an RNDIS request */
#define NETVSP_ANSWER_MAX    640u   /* bytes of an answer; the longest is the name's */
#define NETVSP_ANSWERS       16u    /* that wait for room; further requests are refused */
#define NETVSP_MULTICAST_MAX 32u
#define NETVSP_ROUND_BUDGET  256u /* packets per channel and round, and frames from the port */
#define NETVSP_RX_HEADER     108u /* RNDIS header and all that is said about a frame */
#define NETVSP_RX_SEGMENTS   256u /* that a frame may become */
#define NETVSP_RX_RESERVED   4u   /* sections that only control messages get */

/* A packet of the guest while its frames go to the port. */
struct netvsp_tx {
	bool active;
	bool wants_completion;
	uint64_t transaction_id;
	uint32_t status;
	unsigned messages, count;
	size_t size, at;
	struct iovec iov[NETVSP_TX_IOV];
};

struct netvsp_channel {
	struct netvsp *n;
	struct vmbus_channel *ch;
	unsigned index;
	bool broken;  /* the guest broke the ring */
	bool waiting; /* for room in the port */
	uint64_t round;
	unsigned budget;
	struct loop_timer next_round;
	uint64_t rx_frames, tx_frames;
	/* What goes to the guest in one packet. */
	unsigned range_count;
	uint16_t first, last; /* sections */
	struct vmbus_range ranges[VMBUS_TRANSFER_RANGES];
	struct netvsp_tx tx;
};

/* A part of the receive buffer. The first of a packet stands for all of them. */
struct netvsp_section {
	uint16_t next;
	uint8_t channel; /* that the packet went to, plus 1; 0 = not the first of a packet */
	bool more;       /* `next` is one */
};

struct netvsp_answer {
	uint32_t size;
	uint8_t data[NETVSP_ANSWER_MAX];
};

struct netvsp {
	struct loop *loop;
	struct netvsp_options options;
	char *name;
	uint8_t mac[NETVSP_MAC_SIZE];
	bool paused;

	/* What the guest's driver has set up. */
	uint32_t version; /* 0 = no INIT yet */
	uint32_t ndis_version, capabilities, mtu;
	bool rndis_ready;
	bool rsc_ip4, rsc_ip6; /* the guest takes coalesced frames */
	uint32_t filter;
	unsigned multicast_count;
	uint8_t multicast[NETVSP_MULTICAST_MAX][NETVSP_MAC_SIZE];
	uint32_t hash_types; /* 0 = no receive scaling */
	unsigned table_size;
	uint8_t table[NDIS_RSS_TABLE_MAX];
	uint8_t key[NDIS_RSS_KEY_SIZE];
	struct rss_key *prepared;
	unsigned subs_granted;
	bool table_due; /* the guest is to be told where to send */

	struct vmbus_buffer receive, send;
	uint16_t receive_id;
	uint32_t section_size, section_count, free_count;
	struct netvsp_section *sections;
	uint16_t *free; /* last in, first out: keeps few of them warm */
	uint16_t frame_number;

	unsigned answer_first, answer_count;
	struct netvsp_answer answers[NETVSP_ANSWERS];

	struct netvsp_channel *channels[NETVSP_MAX_CHANNELS];
	struct loop_task settle;

	struct net_port *port; /* NULL = none, or it has ended */
	struct loop_watch watch;
	struct loop_timer port_round, tx_patience;
	bool tx_drop;    /* patience has ended */
	bool held;       /* a frame that waits for sections */
	bool given_back; /* since it waits, the guest has completed a packet */
	struct net_frame frame;

	/* What the guest was last told. */
	bool link_told, flap;
	uint64_t speed_told, link_time;
	struct loop_timer link_timer;

	/* On the way out. */
	void (*left)(void *context);
	uint64_t packets, packets_seen, leave_deadline;
	struct loop_timer leave_timer;

	struct netvsp_counters counters;
};

/* netvsp.c */
void netvsp_settle(struct netvsp *n); /* at the end of the round: flush everything */
void netvsp_channels_run(struct netvsp *n);
bool netvsp_link(const struct netvsp *n);
void netvsp_forget(struct netvsp *n); /* what the driver has set up */
/* Stands in the port's way after this, or the port has ended. */
void netvsp_port_ended(struct netvsp *n, int error);
size_t netvsp_message_size(const struct netvsp *n);
void netvsp_complete(struct netvsp_channel *c, uint64_t transaction_id, struct nvsp_message *m);
uint32_t netvsp_sections_usable(const struct netvsp *n);

/* nvsp.c */
void nvsp_handle(struct netvsp_channel *c, const struct vmbus_packet *packet);
void nvsp_send_table(struct netvsp *n);

/* tx.c */
uint32_t tx_begin(struct netvsp_channel *c, const struct vmbus_packet *packet,
		  const struct nvsp_rndis_packet *rndis); /* enum nvsp_status */
bool tx_continue(struct netvsp_channel *c);               /* false: waits for the port */
void tx_abort(struct netvsp_channel *c);

/* rx.c */
int rx_buffer_set(struct netvsp *n, struct vmbus_channel *ch, uint32_t gpadl, uint16_t id);
void rx_buffer_revoke(struct netvsp *n);
/* Frames from the port, while there are any and there is room; 0, or how the port ended. */
int rx_run(struct netvsp *n, unsigned *budget);
void rx_flush(struct netvsp_channel *c);
void rx_completed(struct netvsp_channel *c, uint64_t transaction_id);
void rx_channel_closed(struct netvsp_channel *c); /* the guest will complete no more there */
void rx_answers_send(struct netvsp *n);           /* those that wait, while there is room */

/* rndis.c */
/* One request, whole, in private memory. */
uint32_t rndis_control(struct netvsp *n, const uint8_t *message, size_t size); /* nvsp_status */
void rndis_indicate(struct netvsp *n, uint32_t status, const void *data, size_t size);
/* Where an answer is written; it is sent later. NULL: there is no room. */
struct netvsp_answer *rndis_answer(struct netvsp *n);

/* oid.c */
struct rndis_status oid_query(struct netvsp *n, uint32_t oid, struct reader in, struct writer *out);
struct rndis_status oid_set(struct netvsp *n, uint32_t oid, struct reader in);
void oid_rss_off(struct netvsp *n);

/* netvsp_state.c */
void netvsp_pause(void *device, struct vmbus_channel *primary);
int netvsp_save(void *device, struct save_writer *w, struct error *err);
int netvsp_restore(void *device, struct save_reader *r, struct error *err);
void netvsp_resume(void *device);
