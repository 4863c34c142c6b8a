/* SPDX-License-Identifier: MIT */
/*
 * Footer, header and parent locators of a VHD: judged, built, translated. They are kept as they lie
 * on disk, so that what is not known of them survives a change. Nothing here trusts a byte.
 */
#pragma once

#include "lib/error.h"
#include "vhd/disk.h"
#include "vhd/store.h"
#include "vhd/vhd_format.h"

/* One's complement of the sum of all bytes, those of the checksum itself not counted. */
uint32_t vhd_checksum(const void *bytes, size_t size, be32 checksum);
bool vhd_footer_valid(const struct vhd_disk_footer *f);
void vhd_footer_sign(struct vhd_disk_footer *f);
void vhd_header_sign(struct vhd_disk_header *h);
/* 0, or -EINVAL with words. */
int vhd_header_check(const struct vhd_disk_header *h, struct error *err);

/* Both footers; `valid` false where there is none. */
struct vhd_footers {
	struct vhd_disk_footer end, copy;
	bool end_valid, copy_valid;
	uint64_t end_at; /* where the footer at the end lies or should lie */
	bool end_short;  /* 511 bytes */
	uint64_t behind; /* bytes that do not belong to the image follow the footer */
};
/*
 * Where nothing stands at either end the footer is looked for in the last VHD_BEHIND_MAX bytes:
 * something was appended to the image. It counts only when the rest of the file agrees with it,
 * since a guest may have written such bytes.
 */
#define VHD_BEHIND_MAX (64 * KIB)
int vhd_footers_read(struct store *s, struct vhd_footers *ret, struct error *err);
/* Whether there is such a footer. */
bool vhd_footer_behind(struct store *s);

/* The disk's size as its creator counts it, in bytes. */
uint64_t vhd_footer_size(const struct vhd_disk_footer *f);
/* Sets Current Size and the geometry that goes with it. */
void vhd_footer_set_size(struct vhd_disk_footer *f, uint64_t size);

/* Unique ids lie big-endian, as they are printed. */
struct guid vhd_guid_get(const uint8_t bytes[static 16]);
void vhd_guid_put(const struct guid *g, uint8_t bytes[static 16]);

/* Seconds since VHD_EPOCH; limits at both ends. */
uint32_t vhd_time_now(void);

/* What the locators and the name say; what cannot be understood is left out. -ENOMEM only. */
int vhd_parent_read(struct store *s, const struct vhd_disk_header *h, struct disk_parent *ret);
/* The strings of `parent` as locators: `bytes` go to `offset` of the file. Owned by the caller. */
struct vhd_parent_bytes {
	uint8_t *bytes;
	size_t size; /* a multiple of 4096 */
};
int vhd_parent_encode(const struct disk_parent *parent, uint64_t offset, struct vhd_disk_header *h,
		      struct vhd_parent_bytes *ret, struct error *err);
