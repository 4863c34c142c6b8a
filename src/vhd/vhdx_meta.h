/* SPDX-License-Identifier: MIT */
/*
 * The structures of a VHDX that are read once when it is opened, decoded and checked: headers,
 * region table, metadata. Decoders take bytes as they lie on disk and trust none of them.
 */
#pragma once

#include "lib/error.h"
#include "vhd/store.h"
#include "vhd/vhdx_format.h"

/*
 * Only damage brings a header's sequence number here; half of the numbers are left for whoever
 * writes, so that what was opened for writing can be opened again.
 */
#define VHDX_SEQUENCE_MAX (UINT64_MAX / 2)

struct vhdx_header {
	uint64_t sequence;
	struct guid file_write, data_write, log; /* log all zero = the log is empty */
	uint16_t log_version;
	uint32_t log_length;
	uint64_t log_offset;
};

struct vhdx_region {
	uint64_t offset, length; /* bytes, of the file unless said otherwise */
};

struct vhdx_regions {
	struct vhdx_region bat, metadata;
};

struct vhdx_params {
	uint32_t block_size;
	bool leave_allocated; /* a fixed image: blocks are never given back */
	bool has_parent;
	uint64_t size;
	struct guid id;
	uint32_t logical_sector, physical_sector;
};

/* 0, or -EINVAL when signature, checksum or version are wrong. */
int vhdx_header_decode(const void *bytes, struct vhdx_header *ret);
void vhdx_header_encode(const struct vhdx_header *h, void *bytes);
/*
 * Reads both headers and takes the current one (MS-VHDX 2.2.2): *ret_slot says which, *ret_valid
 * has bit n set when slot n is valid.
 */
int vhdx_header_read(struct store *s, struct vhdx_header *ret, unsigned *ret_slot,
		     unsigned *ret_valid, struct error *err);

/* One copy of the region table. -EINVAL: damaged; -ENOTSUP: an unknown region is required. */
int vhdx_regions_decode(const void *bytes, struct vhdx_regions *ret, struct error *err);
void vhdx_regions_encode(const struct vhdx_regions *r, void *bytes);
/* The first valid copy; *ret_valid as for the headers. */
int vhdx_regions_read(struct store *s, struct vhdx_regions *ret, unsigned *ret_valid,
		      struct error *err);

int vhdx_params_read(struct store *s, const struct vhdx_region *metadata, struct vhdx_params *ret,
		     struct error *err);
/*
 * The table and items as vhdx_params_read takes them; `bytes` = the first VHDX_PARAMS_BYTES of the
 * region. A parent locator of `locator_size` bytes is listed at VHDX_LOCATOR_OFFSET; its bytes are
 * the caller's to put there.
 */
void vhdx_params_encode(const struct vhdx_params *p, uint32_t locator_size, void *bytes);
#define VHDX_PARAMS_BYTES   (256 * KIB)
#define VHDX_LOCATOR_OFFSET (128 * KIB)
#define VHDX_LOCATOR_MAX    (128 * KIB)

/* Where a known item lies in the region; -ENOENT when it is not there. `guid` as in the format. */
int vhdx_item_find(struct store *s, const struct vhdx_region *metadata, const struct guid *guid,
		   struct vhdx_region *ret);

/* Checks what a user may choose; what is wrong is said in err. */
int vhdx_params_check(const struct vhdx_params *p, struct error *err);

/* Payload blocks, BAT entries, and where a payload block's entry stands (MS-VHDX 2.5). */
static inline uint64_t vhdx_block_count(const struct vhdx_params *p)
{
	return (p->size + p->block_size - 1) / p->block_size;
}

static inline uint64_t vhdx_chunk_ratio(const struct vhdx_params *p)
{
	return VHDX_CHUNK_SECTORS * p->logical_sector / p->block_size;
}

static inline uint64_t vhdx_bat_index(const struct vhdx_params *p, uint64_t block)
{
	return block + block / vhdx_chunk_ratio(p);
}

/* A differencing image has an entry for the bitmap of its last chunk too, and so all of that. */
static inline uint64_t vhdx_bat_count(const struct vhdx_params *p)
{
	uint64_t ratio = vhdx_chunk_ratio(p), blocks = vhdx_block_count(p);

	if (p->has_parent)
		return (blocks + ratio - 1) / ratio * (ratio + 1);
	return vhdx_bat_index(p, blocks - 1) + 1;
}

/* --- vhdx_locator.c --- */

/* The parent locator of a differencing image; ret's strings are the caller's. */
int vhdx_locator_read(struct store *s, const struct vhdx_region *metadata, struct disk_parent *ret,
		      struct error *err);
/* Fills `bytes`; how many in *ret_size. -E2BIG with words when `room` is too small. */
int vhdx_locator_encode(const struct disk_parent *parent, void *bytes, size_t room,
			size_t *ret_size, struct error *err);
