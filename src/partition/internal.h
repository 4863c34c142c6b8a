/* SPDX-License-Identifier: MIT */
/* The inside of a partition. Shared by the files of this folder only. */
#pragma once

#include "partition/partition.h"
#include "partition/synic.h"

#define INBOX_LENGTH 128u /* messages from the guest that the loop has not seen yet */

struct inbox_message {
	uint32_t connection_id, type, size;
	uint8_t payload[HV_MESSAGE_PAYLOAD_SIZE];
};

struct partition {
	struct engine_partition *engine;
	struct gmem *gm;
	struct loop *loop;
	unsigned vp_count;
	uint32_t capabilities; /* of the engine */
	bool cold_hints;
	struct cpuid_list cpuid;
	struct synic *synics; /* vp_count of them */
	_Atomic uint64_t exits, guest_os, hinted;
	struct partition_restored *restored; /* state.c's, between its two steps */
	pthread_mutex_t lock;                /* guards all below */
	struct list ports, events;
	struct loop_task inbox_task;
	unsigned inbox_head, inbox_count;
	struct inbox_message inbox[INBOX_LENGTH];
};

/* Shows each VP what p->cpuid has. */
int partition_set_cpuid(struct partition *p, struct error *err) _must_check_;
