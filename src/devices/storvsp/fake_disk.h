/* SPDX-License-Identifier: MIT */
/*
 * A disk in memory for tests and fuzzers: completes from the loop like a real one, can hold
 * requests back, fail them, and checks that what is submitted keeps the rules of disk.h.
 */
#pragma once

#include "vhd/disk.h"

struct fake_disk {
	struct disk disk;
	uint8_t *data;
	struct list queue;
	struct loop_task task;
	bool hold;     /* nothing completes until fake_disk_release */
	int fail;      /* every request fails with this; 0 = none */
	unsigned pass; /* this many succeed first */
	unsigned counts[DISK_WRITE_ZEROES + 1];
	unsigned fua;    /* requests with DISK_FUA */
	unsigned iovcnt; /* of the last request */
	unsigned queued;
};

struct fake_disk *fake_disk_new(struct loop *loop, uint64_t size, uint32_t sector);
void fake_disk_free(struct fake_disk *fake); /* nothing may be queued */
void fake_disk_release(struct fake_disk *fake);
