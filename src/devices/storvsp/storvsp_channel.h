/* SPDX-License-Identifier: MIT */
/*
 * The inside of the controller, shared by storvsp.c (channels and their requests) and
 * storvsp_packet.c (what packets mean). Private to this folder.
 */
#pragma once

#include "devices/storvsp/storvsp.h"
#include "devices/storvsp/storvsp_proto.h"

#define STORVSP_MAX_IOV (STORVSP_MAX_TRANSFER / GMEM_PAGE_SIZE + 1)

enum storvsp_state {
	STORVSP_BEGIN, /* waits for BEGIN_INITIALIZATION */
	STORVSP_VERSION,
	STORVSP_PROPERTIES,
	STORVSP_END,
	STORVSP_READY,
};

struct storvsp_channel;

/*
 * One packet of the guest from its receipt until its completion is in the ring. A channel has a
 * fixed number of them: that bounds what is in flight, and a completion always has its place.
 */
struct storvsp_request {
	struct storvsp_channel *channel;
	struct list node; /* free or ready; on no list while it runs */
	bool running;
	uint64_t transaction_id;
	struct vstor_packet response;
	struct scsi_request scsi;
	struct iovec iov[STORVSP_MAX_IOV]; /* last: mostly its first few are touched */
};

struct storvsp_channel {
	struct storvsp *s;
	struct vmbus_channel *ch; /* NULL = not open */
	/* Mapped at open; a member costs memory from its first use on. */
	struct storvsp_request *pool;
	unsigned fresh;    /* pool members from here on were never used */
	unsigned running;  /* SRBs that the target has */
	struct list free;  /* last in, first out: keeps few of them warm */
	struct list ready; /* complete, waiting for the ring */
	struct loop_task run;
	struct loop_timer next_round;
	uint64_t round; /* loop_now of the round that `budget` is for */
	unsigned budget;
	bool blocked; /* no room for completions: nothing is received until there is */
	bool broken;  /* the guest broke the ring */
	bool closing;
};

struct storvsp {
	struct loop *loop;
	struct storvsp_options options;
	struct scsi_target *target;
	struct scsi_target *nowhere; /* what lies at other paths and targets: no units */
	enum storvsp_state state;
	bool notify; /* the guest is to be told that units came or went */
	bool paused; /* nothing is received; `pausing` hears when nothing runs any more */
	struct vmbus_channel *pausing;
	struct storvsp_stats stats;
	struct storvsp_channel channels[STORVSP_MAX_CHANNELS]; /* by index, 0 is the primary */
};

struct storvsp_request *storvsp_request_take(struct storvsp_channel *c);
/* storvsp_state.c: pause, save, restore, resume of the device; and a chance to come to rest. */
void storvsp_pause(void *device, struct vmbus_channel *primary);
int storvsp_save(void *device, struct save_writer *w, struct error *err);
int storvsp_restore(void *device, struct save_reader *r, struct error *err);
void storvsp_resume(void *device);
void storvsp_pause_check(struct storvsp *s);

/* Decodes a packet into `rq`, and runs or answers it. */
void storvsp_packet_handle(struct storvsp_channel *c, struct storvsp_request *rq,
			   const struct vmbus_packet *packet);

/* The packet is answered: rq->response goes out as soon as there is room. */
void storvsp_request_ready(struct storvsp_request *rq);
/* The packet gets no answer. */
void storvsp_request_drop(struct storvsp_request *rq);
/* Whether there is such a version of the protocol here. */
bool storvsp_version_known(uint16_t version);
/* Protocol state became READY: sub-channels may speak. */
void storvsp_channels_wake(struct storvsp *s);
