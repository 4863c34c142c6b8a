/* SPDX-License-Identifier: MIT */
/* The SCSI controllers of a machine and the images behind them. Event loop's thread. */
#pragma once

#include "vmbus/vmbus.h"

struct disks;
struct live;
struct vm_description;
struct vm_file;

struct disks_options {
	struct loop *loop;
	struct vmbus *bus;
	const struct vm_description *description;
	uint16_t storvsp_version; /* cap, 0 = none */
};

/* Opens every image, or none: the error names the drive and the file. */
int disks_open(const struct disks_options *options, struct disks **ret,
	       struct error *err) _must_check_;
struct live *disks_live(struct disks *d); /* what is done to them while the guest runs */
/*
 * Closes the images, all of them; the first error. The bus must be quiet, and nothing under way
 * (live_settle). Harmless when repeated.
 */
int disks_close(struct disks *d, struct error *err);
void disks_free(struct disks *d); /* after disks_close; NULL is fine */

/*
 * The descriptor of a file: the one that was passed, or the path opened here. The caller's to
 * close. `where` is its place in the description, for messages.
 */
int vm_file_open(const struct vm_file *file, const char *where, bool read_only, struct error *err);
const char *vm_file_name(const struct vm_file *file); /* for messages; borrowed or static */
