/* SPDX-License-Identifier: MIT */
/*
 * For tests and fuzzers: a store in memory, sparse, that completes I/O in random order when asked,
 * fails on demand, and tells an observer what was done to it, in order. A crash test keeps that
 * record and builds what a power cut might have left.
 */
#pragma once

#include "vhd/store.h"

enum memory_event_kind {
	MEMORY_WRITE,
	MEMORY_ZERO,
	MEMORY_RESIZE,
	MEMORY_FLUSH_START, /* what comes after this is not durable by the flush that follows */
	MEMORY_FLUSH,
};

struct memory_event {
	enum memory_event_kind kind;
	uint64_t offset, length; /* RESIZE: length = the new size */
	const uint8_t *data;     /* WRITE */
};

struct store_memory_options {
	uint64_t size_max;  /* writing or growing beyond gives -ENOSPC */
	uint64_t bytes_max; /* memory for data; likewise */
	unsigned shuffle;   /* seed of the order of completions; 0 = as submitted */
	void (*observe)(void *context, const struct memory_event *e);
	void *context;
};

/* `loop` may be NULL, as with other stores. NULL when there is no memory. */
struct store *store_memory_new(struct loop *loop, const struct store_memory_options *options);
/* The next `count` writes, or flushes, fail with `error`. */
void store_memory_fail_writes(struct store *s, unsigned count, int error);
void store_memory_fail_flushes(struct store *s, unsigned count, int error);
void store_memory_set_read_only(struct store *s, bool read_only);
/* Closing a store only closes the layers above; this frees it. */
void store_memory_free(struct store *s);
uint64_t store_memory_bytes(struct store *s);
/* Makes `to`, which is empty, the same as `from`; holes stay holes. Aborts when it has no room. */
void store_memory_copy(struct store *from, struct store *to);
