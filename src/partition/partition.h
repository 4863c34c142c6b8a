/* SPDX-License-Identifier: MIT */
/*
 * A partition as TLFS describes it, on top of an engine: CPUID leaves, hypercalls, ports, SynIC
 * messages and events. What the engine serves itself (KVM: most MSRs, timers, the reference clocks)
 * never comes here; docs/tlfs.md has the table.
 *
 * Threads: each VP has one that calls partition_vp_run; all else runs on the event loop's thread
 * unless marked [any].
 */
#pragma once

#include "engine/engine.h"
#include "event/loop.h"
#include "partition/hv_proto.h"

struct partition;

struct partition_options {
	const struct engine *engine;
	struct gmem *gm;   /* borrowed */
	struct loop *loop; /* borrowed */
	unsigned vp_count; /* 1..ENGINE_MAX_VPS */
	bool cold_hints;   /* the guest may give free pages back unasked, if the engine lets it */
};

int partition_new(const struct partition_options *options, struct partition **ret,
		  struct error *err) _must_check_;
void partition_free(struct partition *p); /* no VP running; NULL is fine */
/* As after partition_new; ports stay, queued messages go. No VP may be running. */
int partition_reset(struct partition *p, struct error *err) _must_check_;
struct engine_partition *partition_engine(struct partition *p); /* borrowed */
unsigned partition_vp_count(const struct partition *p);
struct gmem *partition_gmem(const struct partition *p);
struct loop *partition_loop(const struct partition *p);
/* [any] The guest's identity as it wrote it (TLFS 2.6), 0 before it has posted a message. */
uint64_t partition_guest_os(const struct partition *p);
/* [any] Bytes that the guest has given back by cold hints. */
uint64_t partition_hinted(const struct partition *p);
/* [any] 100 ns, as the guest reads it (TLFS 12.4). */
int partition_reference_time(struct partition *p, uint64_t *ret) _must_check_;
uint64_t partition_exits(const struct partition *p); /* [any] from the guest to this process */

/*
 * VP thread: delivers queued messages, runs the VP, and serves what belongs to the partition.
 * Returns the exits that are the machine's: PIO, MMIO, IOAPIC_EOI, CRASH, RESET, TRIPLE_FAULT,
 * ERROR, and INTERRUPTED (after each kick).
 */
void partition_vp_run(struct partition *p, unsigned vp, struct vp_exit *ret);
/* What partition_vp_run does before it runs; for tests on engine fake. */
void partition_vp_deliver(struct partition *p, unsigned vp);
/* The guest's SynIC registers changed; partition_vp_run calls it, and so do tests. */
void partition_vp_synic(struct partition *p, unsigned vp, uint64_t control, uint64_t simp,
			uint64_t siefp);
/* The guest's HvCallPostMessage with the message at `input` (GPA). [any VP thread] */
hv_status partition_hv_post_message(struct partition *p, unsigned vp, uint64_t input);

/*
 * A message to the guest, type and payload (<= 240 bytes). Queued until the guest's slot is free;
 * -EAGAIN when thousands wait for this VP already (a guest that does not read), -ENOMEM, -EINVAL on
 * a VP or SINT that does not exist.
 */
int partition_post_message(struct partition *p, unsigned vp, unsigned sint, uint32_t type,
			   const void *payload, size_t size) _must_check_;
/*
 * Sets an event flag and raises the SINT if the flag was clear. [any] -ENODEV while the guest has
 * no event page there, -EINVAL on numbers that do not exist.
 */
int partition_signal_event(struct partition *p, unsigned vp, unsigned sint, unsigned flag);

/* A port that receives what the guest posts to a connection id. Embedded in its owner. [any] */
struct partition_port {
	uint32_t connection_id;
	void (*message)(struct partition_port *port, uint32_t type, const void *payload,
			size_t size);
	struct list node;
};
void partition_port_open(struct partition *p, struct partition_port *port);
void partition_port_close(struct partition *p, struct partition_port *port);

/*
 * A connection for HvCallSignalEvent: it writes to an eventfd (borrowed while open), or, when that
 * is -1, calls `signalled` on the VP's thread with the partition's lock held. [any]
 */
struct partition_event {
	uint32_t connection_id;
	int eventfd;
	void (*signalled)(struct partition_event *event);
	struct list node;
};
int partition_event_open(struct partition *p, struct partition_event *event) _must_check_;
void partition_event_close(struct partition *p, struct partition_event *event);

/* cpuid.c: the leaves a VP shows, from what the engine supports. */
int partition_cpuid(const struct cpuid_list *supported, unsigned vp, unsigned vp_count,
		    struct cpuid_list *ret) _must_check_;
