/* SPDX-License-Identifier: MIT */
/* Disk requests that block, on a loop that nothing else needs meanwhile: for tools and tests. */
#pragma once

#include "vhd/disk.h"

/* Each runs the loop until the request is done; returns its result. */
int drive_read(struct disk *d, void *buf, uint64_t length, uint64_t offset);
int drive_write(struct disk *d, const void *buf, uint64_t length, uint64_t offset, unsigned flags);
int drive_trim(struct disk *d, uint64_t length, uint64_t offset);
int drive_zero(struct disk *d, uint64_t length, uint64_t offset);
int drive_flush(struct disk *d);
