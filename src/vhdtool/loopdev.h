/* SPDX-License-Identifier: MIT */
/* Loop devices of the kernel. Needs root. All of it blocks. */
#pragma once

#include "lib/error.h"
#include "lib/types.h"

#define LOOPDEV_NAME_SIZE 32 /* "/dev/loop0" */

struct loopdev_options {
	const char *label;       /* kept by the kernel: whose device it is; under 64 bytes */
	uint64_t offset, length; /* of the file */
	uint32_t sector;
	bool read_only;
	bool auto_clear; /* detached when the last user closes it */
};

/* Attaches the open file; returns a descriptor of the device. */
int loopdev_attach(int file, const struct loopdev_options *o, char ret_name[LOOPDEV_NAME_SIZE],
		   struct error *err) _must_check_;
/* Whether the device is attached and has this label. */
bool loopdev_is(const char *name, const char *label);
/* The kernel detaches it when nobody uses it any more. */
int loopdev_detach(const char *name, struct error *err);
