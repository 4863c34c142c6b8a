/* SPDX-License-Identifier: MIT */
/*
 * The host side of VMBus for one partition. Devices use vmbus/device.h; this is what the machine
 * that owns the bus uses. Event loop's thread throughout.
 */
#pragma once

#include "partition/partition.h"
#include "vmbus/device.h"

struct vmbus_options {
	struct partition *partition; /* borrowed */
	uint32_t max_version;        /* VERSION_* cap; 0 = the newest (6.0) */
};

int vmbus_new(const struct vmbus_options *options, struct vmbus **ret,
	      struct error *err) _must_check_;
/* All channels must be closed (vmbus_reset). NULL is fine. */
void vmbus_free(struct vmbus *bus);
/*
 * Closes all channels and forgets the connection, as a partition reset does; `done` is called (from
 * the loop) when no device touches guest memory any more, after each device's reset callback.
 */
void vmbus_reset(struct vmbus *bus, void (*done)(void *context), void *context);

/*
 * Who is asked when the guest wants a connection to a service (sockets; devices/hvsock): 0 and an
 * offer of that interface and instance follows, or negative: it is refused. One; NULL: all are.
 */
void vmbus_on_connect(struct vmbus *bus,
		      int (*connect)(void *context, const struct guid *endpoint,
				     const struct guid *service),
		      void *context);

/*
 * Saved state. No VP runs, and what the guest has posted was handed on (partition_drain). Pausing
 * waits for the last I/O into guest memory and lets each device come to rest; `done` is called
 * from the loop, unless vmbus_resume comes first. Resuming lets everything go on from where it
 * stood. -ENOTSUP with words: a device cannot be saved; better asked before anything is paused.
 */
int vmbus_savable(const struct vmbus *bus, struct error *err) _must_check_;
void vmbus_pause(struct vmbus *bus, void (*done)(void *context), void *context);
void vmbus_resume(struct vmbus *bus);
/* While paused: appends the records of the bus and of its devices. */
int vmbus_save(struct vmbus *bus, struct save_writer *w, struct error *err) _must_check_;
/*
 * Into a new bus with the same devices offered, no guest having run; guest memory is as it was.
 * Everything is paused then, until vmbus_resume. On failure the bus must be reset.
 */
int vmbus_restore(struct vmbus *bus, struct save_reader *r, struct error *err) _must_check_;

/* The version negotiated with the guest, 0 while there is no connection. */
uint32_t vmbus_version(const struct vmbus *bus);

struct vmbus_counters {
	uint64_t messages, bad_messages, packets_in, packets_out, signals_in, signals_out;
	unsigned gpadls, channels_open;
	uint64_t gpadl_pages;
};
struct vmbus_counters vmbus_counters(const struct vmbus *bus);
