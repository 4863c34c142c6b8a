/* SPDX-License-Identifier: MIT */
/*
 * The log of a VHDX as bytes (MS-VHDX 2.3): finding the entries that count, replaying them, and
 * making new ones. When and in which order entries are written is vhdx_journal.c's business.
 */
#pragma once

#include "vhd/vhdx_meta.h"

#define VHDX_LOG_LENGTH_MAX                                                                        \
	(128 * MIB) /* real ones have 1 MiB; bounds what a hostile one costs                       \
		     */

struct vhdx_log_entry {
	uint32_t start, sectors; /* in sectors of 4 KiB from the start of the log */
	uint32_t tail;
	uint32_t descriptors;
	uint64_t sequence, flushed_size, last_size;
	uint32_t chain, index; /* of neighbours with rising sequence numbers; place in it */
};

/* The active sequence, read into memory. */
struct vhdx_log {
	uint8_t *bytes;
	uint32_t sectors;
	struct vhdx_log_entry *entries; /* from the tail to the head */
	size_t count;
};

/* Reads the log that `h` names and finds its active sequence; the image's bytes stay as they are.
 */
int vhdx_log_read(struct store *s, const struct vhdx_header *h, struct vhdx_log *ret,
		  struct error *err);
void vhdx_log_deinit(struct vhdx_log *log);
/*
 * Writes what is logged to its places and extends the file. Replaying again gives the same bytes.
 * Neither flushes nor touches the headers.
 */
int vhdx_log_replay(const struct vhdx_log *log, const struct vhdx_header *h, struct store *s,
		    struct error *err);

struct vhdx_log_stamp {
	uint64_t sequence;
	uint32_t tail; /* sectors */
	struct guid log;
	uint64_t flushed_size, last_size;
};

struct vhdx_log_page {
	uint64_t offset;   /* in the file, multiple of 4 KiB */
	const void *bytes; /* 4 KiB */
};

/* Sectors of an entry with so many pages. */
uint32_t vhdx_log_entry_sectors(uint32_t pages);
/* Fills `buf` (as many sectors as above) with an entry. */
void vhdx_log_entry_encode(void *buf, const struct vhdx_log_stamp *stamp,
			   const struct vhdx_log_page *pages, uint32_t count);
