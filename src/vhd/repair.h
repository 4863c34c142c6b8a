/* SPDX-License-Identifier: MIT */
/* Making a damaged image one that opens and passes the check, and saying what that costs. */
#pragma once

#include "vhd/store.h"

enum repair_kind {
	REPAIR_MENDED, /* nothing is lost */
	REPAIR_RISK,   /* something may be lost; nobody can say what */
	REPAIR_LOST,   /* the range of the disk has lost its data */
};

struct repair_report {
	/* The caller's. `text` is one line; offset and length are of the disk, for LOST only. */
	void (*found)(struct repair_report *r, enum repair_kind kind, uint64_t offset,
		      uint64_t length, const char *text);
	unsigned counts[3];
	uint64_t lost; /* bytes of the disk */
};

/*
 * Repairs a VHD or VHDX in place; the descriptor is taken. -EINVAL with words when too little is
 * left. Where nothing is wrong nothing is changed; where that happens nothing but what a log had to
 * say.
 */
int image_repair(int fd, const char *name, struct repair_report *report,
		 struct error *err) _must_check_;

/* The same; the store stays the caller's. What it is is found out by what is left of it. */
int store_repair(struct store *store, struct repair_report *report, struct error *err) _must_check_;
int vhd_repair(struct store *store, struct repair_report *report, struct error *err) _must_check_;
int vhdx_repair(struct store *store, struct repair_report *report, struct error *err) _must_check_;
