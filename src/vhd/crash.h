/* SPDX-License-Identifier: MIT */
/*
 * For tests: power cuts. Everything that a format does to its store is recorded. For every point of
 * that record an image is built of what was flushed by then, plus a random part of what was not:
 * writes cut into pieces that are dropped or reordered, zeroing and growth dropped. Each image must
 * open, pass the check, and hold in each place data that is allowed there: what was last made
 * durable, or something written later. Some places are never written: they must read as what they
 * were at first, whoever had the space before. Now and then the power fails again while the image
 * is opened.
 *
 * PARTITA_CRASH_SEED picks another sequence, PARTITA_CRASH_ROUNDS more of them.
 */
#pragma once

#include "vhd/image.h"
#include "vhd/store_memory.h"

/* The blocks that are used, and in each the places where something is written. */
#define CRASH_UNIT   UINT64_C(4096)
#define CRASH_BLOCK  MIB
#define CRASH_BLOCKS 6u
#define CRASH_UNITS  12u /* the last ones are never written */

struct crash_format {
	uint32_t piece; /* bytes that are written whole or not at all; 512 to 4096 */
	int (*create)(struct store *store, uint64_t size, struct error *err);
	int (*open)(struct store *store, struct disk **ret, struct error *err);
	int (*check)(struct store *store, struct check_report *report, struct error *err);
	bool only_writes; /* nothing is trimmed or zeroed: zeros are then nowhere right */
	/* What every place holds at first; NULL = zeros. */
	uint64_t (*initial)(unsigned place);
};

/* Images that were built and judged. */
extern size_t crash_points;
/* The loop of all stores and disks here; the test makes and frees it. */
extern struct loop *crash_loop;

/* Random sessions on a disk of `size`, `stride` between the blocks that are used. */
void crash_rounds(const struct crash_format *f, uint64_t size, uint64_t stride, unsigned steps);
/*
 * Sessions of which all is durable, then one change that is not a guest's: cuts are in that only,
 * and no place may hold anything but what it held before. Prints `name`.
 */
struct crash_edit {
	const char *name;
	int (*run)(struct disk *disk, struct error *err);
};
void crash_edit(const struct crash_format *f, const struct crash_edit *edit, uint64_t size,
		uint64_t stride, unsigned seed);
/*
 * Cuts while a child of `parent`'s format is merged into it and its guest goes on (gate.h): until
 * the child is retired (merge.h) the chain opens from it, and afterwards from the parent.
 */
void crash_merge(const struct crash_format *child, const struct crash_format *parent, uint64_t size,
		 uint64_t stride, unsigned seed);
/* A read-only image that holds in each place what `initial` says; the caller frees it. */
struct store *crash_parent(const struct crash_format *f, uint64_t (*initial)(unsigned place),
			   uint64_t size, uint64_t stride);
/* A number from the environment. */
unsigned crash_number(const char *name, unsigned otherwise);
/* Where a place lies on the disk. */
uint64_t crash_place(uint64_t stride, unsigned place);

/* --- the parts, for other scenarios --- */

struct crash_event {
	enum memory_event_kind kind;
	uint64_t offset, length;
	uint64_t time; /* by the record's clock */
	uint8_t *data;
};

struct crash_record {
	struct crash_event *events;
	size_t count, room;
	uint64_t *clock; /* counts the events of several records; NULL = there is one */
};

/* How many events there were by then. */
size_t crash_events_until(const struct crash_record *r, uint64_t time);
/* `record` may be NULL. */
struct store *crash_store(struct crash_record *record, unsigned shuffle);
void crash_record_clear(struct crash_record *r);
/*
 * Makes `to`, a copy of what there was before event `start`, what a power cut after event `at`
 * might leave.
 */
void crash_apply(const struct crash_format *f, struct store *to, const struct crash_record *r,
		 size_t start, size_t at, unsigned *seed);
