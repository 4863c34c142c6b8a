/* SPDX-License-Identifier: MIT */
/* What the files of the public library share. */
#pragma once

#include <partita/vhd.h>

#include "vhd/disk.h"

/* Copies the words of a failure (code < 0) to a caller who wants them; the code. */
int api_tell(struct partita_vhd_error *ret, int code, const struct error *err);
/* disk_open on a path. */
int api_open(struct loop *loop, const char *path, const struct disk_open_options *o,
	     struct disk **ret, struct error *err) _must_check_;
/* A disk layer's progress callback; the context is a struct partita_vhd_progress. */
bool api_progress(void *context, uint64_t done, uint64_t total);
