/* SPDX-License-Identifier: MIT */
/*
 * Dynamic memory: the host's side of the guest's balloon (Linux hv_balloon, Windows dmvsc). One
 * VMBus device, which takes memory from the guest and gives it back until the guest has what is
 * asked for, the target. Everything here is called on the event loop's thread.
 *
 * A guest without the driver, or before it is up, has what it has: the target waits for it.
 */
#pragma once

#include "vmbus/device.h"

struct dynmem;

enum dynmem_event {
	DYNMEM_READY,          /* the guest has said what it can */
	DYNMEM_REPORTED,       /* it has reported what it needs */
	DYNMEM_CHANGED,        /* it has more or less memory now */
	DYNMEM_REACHED,        /* it has what the target says, or as near as it can get */
	DYNMEM_SHRINK_REFUSED, /* it gave less than it was asked for; asked again later */
	DYNMEM_GROW_REFUSED,   /* it did not take memory that was added */
	DYNMEM_GONE,           /* the driver let go, or the machine was reset */
};

struct dynmem_options {
	struct gmem *gm;
	uint64_t base;                /* bytes of RAM that the guest starts with */
	uint64_t grow_gpa, grow_most; /* where there is room for more; 0 bytes = nowhere */
	uint32_t max_version;         /* DYNMEM_PROTOCOL_VERSION_*; 0 = all that are known */
	/* RAM up to `size` bytes from grow_gpa on is made, before the guest is told. 0 or -errno.
	 */
	int (*grow)(void *context, uint64_t size);
	/* Who the guest says it is (TLFS 2.6), 0 when it has not; NULL = not known here. */
	uint64_t (*guest_os)(void *context);
	void (*event)(void *context, enum dynmem_event event); /* NULL = nobody listens */
	void *context;
};

struct dynmem_status {
	const char *state;             /* what it is doing, in a word */
	uint32_t version;              /* agreed to; 0 = no driver yet */
	bool can_balloon, can_hot_add; /* the guest's word, and not taken back by what it did */
	uint64_t target;               /* bytes, like all that follow */
	uint64_t assigned;             /* RAM that the guest may use */
	uint64_t ballooned, hot_added;
	uint64_t most;                 /* that it can have */
	bool reported;                 /* the guest has reported what comes now */
	uint64_t available, committed; /* as it says */
	uint64_t demand;               /* what it needs, from these two */
	uint64_t report_time;          /* loop_now's clock */
	uint64_t requests, refusals;   /* that were made, and not met in full */
	uint64_t bad_messages;
	uint64_t discard_failures; /* the kernel did not take pages back */
};

int dynmem_new(struct loop *loop, const struct dynmem_options *options, struct dynmem **ret,
	       struct error *err) _must_check_;
/* Its channel may not be open: rescind first, or reset the bus. NULL is fine. */
void dynmem_free(struct dynmem *d);
/* Rounded up to 2 MiB, in which a guest's memory changes. -ERANGE: more than it can ever have. */
int dynmem_set_target(struct dynmem *d, uint64_t bytes, struct error *err) _must_check_;
struct dynmem_status dynmem_status(const struct dynmem *d);

extern const struct vmbus_device_type dynmem_type;
extern const struct guid dynmem_instance; /* as Hyper-V offers it */
