/* SPDX-License-Identifier: MIT */
/* The raw format, on a store. Most callers want disk_open (disk.h), which finds the format. */
#pragma once

#include "vhd/disk.h"
#include "vhd/store.h"

/* The store is the disk's from here on, also when this fails. */
int raw_open(struct store *store, struct disk **ret, struct error *err) _must_check_;
