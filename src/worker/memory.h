/* SPDX-License-Identifier: MIT */
/*
 * A machine's memory while it runs: the dynamic memory device, what it makes of the map, and what
 * those who control the machine see of it. Event loop's thread.
 */
#pragma once

#include "control/command.h"
#include "devices/dynmem/dynmem.h"
#include "firmware/memmap.h"
#include "partition/partition.h"

struct memory;
struct vmbus;

struct memory_options {
	struct loop *loop;
	struct vmbus *bus;
	struct partition *partition;
	const struct memmap *map;
	bool locked;  /* it stays as it is */
	bool offered; /* the guest is offered the device */
	/* What those who control it are told (takes the event); `may_miss` as in machine_tell. */
	void (*tell)(void *context, json_t *event, bool may_miss);
	void *context;
};

/* Before the worker's sandbox: it opens a file. */
int memory_new(const struct memory_options *options, struct memory **ret,
	       struct error *err) _must_check_;
void memory_free(struct memory *m); /* after the bus; NULL is fine */
/* The machine is being reset: no VP runs, the bus is quiet. It has again what it started with. */
void memory_reset(struct memory *m);

/* -EPERM when it is locked, else as dynmem_set_target. */
int memory_set_target(struct memory *m, uint64_t bytes, struct error *err) _must_check_;
struct dynmem_status memory_status(const struct memory *m);
uint64_t
memory_resident(const struct memory *m);        /* bytes that this process has in RAM; 0: unknown */
uint64_t memory_hinted(const struct memory *m); /* bytes that the guest gave back unasked, ever */
uint64_t memory_startup(const struct memory *m);

/* memory_control.c: memory-query and memory-set (partita-worker(1)) */
struct command_family memory_family(struct memory *m);
/* What clients see of it, in MiB. The caller's. */
json_t *memory_json(const struct memory *m);
