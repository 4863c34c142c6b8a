/* SPDX-License-Identifier: MIT */
/*
 * The bytes of a track file (docs/track-format.md): two slots, written in turn, and pages of the
 * map. The format is ours; nothing here depends on where the bytes lie.
 */
#pragma once

#include "lib/guid.h"
#include "vhd/track.h"

#define TRACK_SLOT_SIZE 4096u
#define TRACK_SLOT(n)   (4096u * (n)) /* n = 0, 1: where in the file */
#define TRACK_PAGE_SIZE 4096u
#define TRACK_PAGE(n)   (8192u + (uint64_t)(n)*TRACK_PAGE_SIZE)
#define TRACK_PER_PAGE  2040u /* granules; the rest is the page's head */

#define TRACK_REGION      256u /* granules that one durable bit stands for */
#define TRACK_REGIONS_MAX 16384u
#define TRACK_GRANULES_MAX                                                                         \
	(TRACK_REGIONS_MAX * TRACK_REGION) /* 8 MiB of memory for an open disk                     \
					    */
#define TRACK_SHIFT_MIN      12u
#define TRACK_SHIFT_MAX      42u /* 2^63 bytes in 2^22 granules need 41 */
#define TRACK_SHIFT_USUAL    16u
#define TRACK_GENERATION_MAX UINT16_MAX

/* What a slot has. */
struct track_slot {
	uint64_t sequence; /* the higher one of two valid slots counts */
	struct guid id;    /* of this track file: other ones' pages are not taken for its own */
	uint64_t size;     /* of the disk */
	unsigned shift;    /* a granule has 1 << shift bytes */
	bool in_use;       /* by somebody who writes, or who did not come to close it */
	uint16_t generation;
	struct track_tie tie; /* when not in use: the image's file as it was left */
	struct guid identity; /* the image's identity; zero = it has none */
	struct guid next;     /* in use: what the first write makes of that */
	uint64_t lease; /* in use: nothing is written after this time without a newer slot, ns */
	unsigned count;
	struct track_point points[TRACK_POINTS_MAX];
	uint8_t coarse[TRACK_REGIONS_MAX / 8]; /* in use: regions written in this generation */
};

void track_slot_encode(const struct track_slot *slot, uint8_t bytes[static TRACK_SLOT_SIZE]);
/* -EINVAL: nothing of ours; -EBADMSG: damaged; -ENOTSUP: of a later version. */
int track_slot_decode(const uint8_t bytes[static TRACK_SLOT_SIZE], struct track_slot *ret);

/* `entries`: TRACK_PER_PAGE generations, host order. */
void track_page_encode(const struct guid *id, uint64_t number, const uint16_t *entries,
		       uint8_t bytes[static TRACK_PAGE_SIZE]);
bool track_page_decode(const struct guid *id, uint64_t number,
		       const uint8_t bytes[static TRACK_PAGE_SIZE], uint16_t *entries);

static inline uint64_t track_granules(uint64_t size, unsigned shift)
{
	return (size >> shift) + !!(size & (BIT64(shift) - 1));
}
