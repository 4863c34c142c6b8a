/* SPDX-License-Identifier: MIT */
/*
 * A SCSI target with up to 64 logical units, each a disk or a DVD drive over the disk layer. It
 * knows nothing of VMBus: storvsp feeds it, and so could any other transport. One event loop's
 * thread owns it. Data goes straight between the request's iovecs and the disk layer.
 */
#pragma once

#include "devices/storvsp/scsi_proto.h"
#include "vhd/disk.h"

struct reserve_file; /* vhd/reserve_file.h */
struct save_writer;  /* save/save.h */
struct save_reader;

#define SCSI_MAX_LUNS          64
#define SCSI_CDB_SIZE          16
#define SCSI_MAX_UNMAP_EXTENTS 64

enum scsi_kind {
	SCSI_DISK,
	SCSI_DVD,
};

enum scsi_direction {
	SCSI_DATA_NONE, /* also when the transport does not know */
	SCSI_DATA_IN,   /* to the guest */
	SCSI_DATA_OUT,
};

/* How a request ended, as far as it is not the unit's word. */
enum scsi_outcome {
	SCSI_FINISHED, /* status (and sense) say how */
	SCSI_NO_UNIT,
	SCSI_OVERRUN, /* the command moves more bytes than the buffer has; nothing was moved */
	SCSI_ABORTED, /* cancelled by the submitter */
};

struct scsi_unit;

struct scsi_extent {
	uint64_t offset, length; /* bytes */
};

/*
 * Owned by the submitter, valid until done. The upper half is filled in by the submitter; iov is
 * the submitter's array of iovmax elements, of which iovcnt are used and sum up to bytes; the array
 * is scratch space while the request runs. `done` is called exactly once, on the loop's thread,
 * possibly before scsi_execute returns.
 */
struct scsi_request {
	uint8_t cdb[SCSI_CDB_SIZE];
	uint8_t cdb_size, lun;
	enum scsi_direction direction;
	struct iovec *iov;
	unsigned iovcnt, iovmax;
	uint32_t bytes;
	void (*done)(struct scsi_request *req);

	enum scsi_outcome outcome;
	enum scsi_status status;
	bool capacity_changed;                /* the sense data says so, and nothing was done */
	uint8_t sense[SCSI_FIXED_SENSE_SIZE]; /* valid with CHECK CONDITION */
	uint32_t transferred;

	/* The target's, while it runs. */
	bool cancelled;
	struct scsi_unit *unit;
	struct disk_request disk;
	bool fenced; /* fence is one of reserve_file_enter's */
	unsigned fence;
	struct loop_timer timer;  /* a preemption's, while it waits for the preempted */
	uint64_t change, give_up; /* since that change; until then (ns) */
	uint64_t remaining;       /* bytes that later steps have to write */
	unsigned at, count;       /* of extents */
	struct scsi_extent extents[SCSI_MAX_UNMAP_EXTENTS];
};

struct scsi_stats {
	uint64_t reads, writes, flushes, trims, errors;
	uint64_t bytes_read, bytes_written;
};

struct scsi_target_options {
	/* Units on disks without an identity of their own derive theirs from this and the LUN. */
	struct guid identity;
	uint32_t max_transfer; /* bytes that one command can move; 0 = not limited */
};

struct scsi_target;

int scsi_target_new(const struct scsi_target_options *options, struct scsi_target **ret,
		    struct error *err) _must_check_;
/* No request may be running. The disks stay the caller's. NULL is fine. */
void scsi_target_free(struct scsi_target *target);
/*
 * Puts a unit at `lun`. The disk is borrowed until detached; a DVD drive may be empty (NULL).
 * -EBUSY when there is one, -EINVAL when the disk cannot be such a unit.
 */
int scsi_target_attach(struct scsi_target *target, unsigned lun, enum scsi_kind kind,
		       struct disk *disk, struct error *err) _must_check_;
/*
 * Gives a disk reservations that other initiators take part in; borrowed until detached. -ENOENT
 * when there is no such unit, -EINVAL when it is no disk.
 */
int scsi_target_share(struct scsi_target *target, unsigned lun,
		      struct reserve_file *reservations) _must_check_;
/*
 * Takes the unit away: new commands do not find it. `done` (may be NULL) is called when the last
 * running one has finished, at once if there is none. -ENOENT when there is no such unit.
 */
int scsi_target_detach(struct scsi_target *target, unsigned lun, void (*done)(void *arg),
		       void *arg) _must_check_;
/*
 * The disk of that unit has another size now: told to the guest with its next command (SBC-3
 * 4.2.1). -ENOENT when there is no such unit.
 */
int scsi_target_capacity_changed(struct scsi_target *target, unsigned lun) _must_check_;
/* As after power-on: caches on, medium removal allowed, no unit attention. */
void scsi_target_reset(struct scsi_target *target);
const struct scsi_stats *scsi_target_stats(const struct scsi_target *target);

/* While no command runs: appends the units' records; reads them back, and checks that the disks
 * are those of then. */
void scsi_target_save(const struct scsi_target *target, struct save_writer *w);
int scsi_target_restore(struct scsi_target *target, struct save_reader *r,
			struct error *err) _must_check_;

void scsi_execute(struct scsi_target *target, struct scsi_request *req);
/* A command of many steps stops after the one at hand; others run to their end. */
void scsi_cancel(struct scsi_request *req);

/* Cuts an iovec array to its first `bytes` bytes; returns the number of elements left. */
unsigned iov_trim(struct iovec *iov, unsigned count, size_t bytes);
/* Both copy at most `size` bytes and return how many. */
size_t iov_read(const struct iovec *iov, unsigned count, void *dst, size_t size);
size_t iov_write(const struct iovec *iov, unsigned count, const void *src, size_t size);
