/* SPDX-License-Identifier: MIT */
/* The host's half of a synthetic interrupt controller: message queues and slots. TLFS 11. */
#pragma once

#include "engine/engine.h"
#include "lib/list.h"
#include "partition/hv_proto.h"

/* Messages waiting for one VP; each costs 300 bytes. More than all offers there can be. */
#define SYNIC_QUEUE_LENGTH 4096u

struct synic_message {
	struct list node;
	unsigned sint;
	uint8_t bytes[HV_MESSAGE_SIZE]; /* header and payload as they lie in the slot */
};

/* One per VP. The registers are written by the VP's thread and read by the loop's. */
struct synic {
	_Atomic uint64_t control, simp, siefp;
	pthread_mutex_t lock;
	struct list queue; /* guarded by lock, like its length */
	unsigned queued;
};

void synic_init(struct synic *s);
void synic_deinit(struct synic *s);
void synic_reset(struct synic *s);
/* 0, -EAGAIN when the queue is full, or -ENOMEM. */
int synic_queue(struct synic *s, unsigned sint, uint32_t type, const void *payload, size_t size);
/*
 * VP thread: moves queued messages into free slots. Returns a bit for each SINT to be raised. A
 * busy slot gets the pending flag; the rest waits for the end of that message.
 */
uint16_t synic_deliver(struct synic *s, struct gmem *gm);
/* Sets an event flag: 1 when it was clear before, 0 when not, -ENODEV without an event page. */
int synic_set_flag(struct synic *s, struct gmem *gm, unsigned sint, unsigned flag);
