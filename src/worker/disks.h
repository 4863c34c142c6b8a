/* SPDX-License-Identifier: MIT */
/* The SCSI controllers of a machine and the images behind them. Event loop's thread. */
#pragma once

#include "vmbus/vmbus.h"
#include "worker/drive.h"

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
/* A drive that comes while the guest runs; its files were passed. */
struct disks_drive {
	struct drive_options options; /* but the loop */
	const struct drive_file *files;
	unsigned file_count; /* 0: an empty DVD drive */
	int set_fd;          /* of a disk that machines share, with one file; -1 = none */
};
/* The files are taken, also when it fails; then nothing has changed. */
int disks_attach(struct disks *d, struct disks_drive *drive, struct error *err) _must_check_;
/*
 * A drive goes: new commands do not find it, and when the last running one has ended its images are
 * closed and `done` is called, perhaps at once. -EBUSY while something else is done to it, or the
 * guest has locked its tray and it is not forced; `done` is not called then.
 */
struct disks_end {
	bool force;
	void (*done)(void *context, int result, const struct error *err);
	void *context;
};
int disks_detach(struct disks *d, struct drive *drive, const struct disks_end *end,
		 struct error *err) _must_check_;
/*
 * Another disc in a DVD drive (`files` are taken), or none; `done` is called when the old one is
 * closed.
 */
int disks_load(struct disks *d, struct drive *drive, const struct drive_file *file,
	       const struct disks_end *end, struct error *err) _must_check_;
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
