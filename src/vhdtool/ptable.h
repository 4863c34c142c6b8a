/* SPDX-License-Identifier: MIT */
/*
 * Partition tables: GPT (UEFI 2.10 chapter 5) with its backup, and MBR with logical partitions.
 * Kernels without partition scanning leave this to us. Trusts no byte. Any thread.
 */
#pragma once

#include "lib/error.h"
#include "lib/guid.h"

#define PTABLE_MAX 128u /* partitions; more are left out */

struct ptable_entry {
	unsigned number; /* as Linux counts: logical partitions of an MBR begin with 5 */
	uint64_t offset, length;
	struct guid type; /* GPT */
	uint8_t mbr_type; /* MBR */
};

enum ptable_kind { PTABLE_NONE, PTABLE_MBR, PTABLE_GPT };

struct ptable {
	enum ptable_kind kind;
	bool backup; /* the GPT at the start is damaged; this is the one at the end */
	unsigned count;
	struct ptable_entry entries[PTABLE_MAX];
};

struct ptable_source {
	uint64_t size;                                                    /* bytes */
	uint32_t sector;                                                  /* 512 or 4096 */
	int (*read)(void *context, void *buf, size_t n, uint64_t offset); /* inside the size */
	void *context;
};

/* A disk without a table is no error. Partitions lie inside the disk and are not empty. */
int ptable_read(const struct ptable_source *s, struct ptable *ret, struct error *err) _must_check_;
const struct ptable_entry *ptable_find(const struct ptable *t, unsigned number);
/* Whether it can hold a file system of the user's: no boot loader's, nothing of Windows' own. */
bool ptable_is_main(const struct ptable *t, const struct ptable_entry *e);
/* The first of these; NULL when there is none. */
const struct ptable_entry *ptable_main(const struct ptable *t);
