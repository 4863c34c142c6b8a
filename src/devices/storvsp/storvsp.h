/* SPDX-License-Identifier: MIT */
/*
 * The synthetic SCSI controller: one VMBus device with a SCSI target behind it. Everything here is
 * called on the event loop's thread. Make it, attach disks, offer it with vmbus_device_offer and
 * `storvsp_type`; the disks stay the caller's, who closes them after detaching or freeing.
 */
#pragma once

#include "devices/storvsp/scsi.h"
#include "vmbus/device.h"

#define STORVSP_MAX_CHANNELS 64 /* the primary and its sub-channels */
#define STORVSP_MAX_TRANSFER (1 * MIB)

struct storvsp;

struct storvsp_options {
	struct guid instance;  /* as offered; disks without an identity derive theirs from it */
	uint16_t max_version;  /* highest to agree to, VSTOR_VERSION_*; 0 = all that are known */
	unsigned max_channels; /* 1 to STORVSP_MAX_CHANNELS; 0 = that many */
	unsigned queue_depth;  /* requests in flight per channel, 1 to 4096; 0 = 512 */
};

struct storvsp_stats {
	struct scsi_stats scsi;
	uint64_t requests;        /* SRBs */
	uint64_t packets_refused; /* malformed, unknown, or at the wrong time */
	uint64_t no_room;         /* times the guest had left no room for completions */
};

int storvsp_new(struct loop *loop, const struct storvsp_options *options, struct storvsp **ret,
		struct error *err) _must_check_;
/* No channel may be open: rescind first, or reset the bus. NULL is fine. */
void storvsp_free(struct storvsp *s);
/*
 * At any time; a guest that is up is told to look again. A DVD drive may be empty (disk NULL).
 * -EBUSY when the LUN is taken, -EINVAL when the disk cannot be shown to a guest.
 */
int storvsp_attach_disk(struct storvsp *s, unsigned lun, struct disk *disk, enum scsi_kind kind,
			struct error *err) _must_check_;
/*
 * Gives an attached disk reservations (scsi_target_share); before the guest is up. -ENOENT when
 * there is no such unit, -EINVAL when it is no disk.
 */
int storvsp_share_disk(struct storvsp *s, unsigned lun,
		       struct reserve_file *reservations) _must_check_;
/*
 * The unit is gone at once for new commands; `done` (may be NULL) is called when the last running
 * one has finished and the disk may be closed. -ENOENT when there is no such unit.
 */
int storvsp_detach(struct storvsp *s, unsigned lun, void (*done)(void *arg),
		   void *arg) _must_check_;
/* Another disc in a DVD drive, or none; see scsi_target_load. */
int storvsp_load(struct storvsp *s, unsigned lun, const struct scsi_load *load,
		 struct error *err) _must_check_;
bool storvsp_is_locked(const struct storvsp *s, unsigned lun); /* scsi_target_is_locked */
/*
 * The disk at that LUN has another size now: its next command ends with a unit attention, and a
 * guest that is up is told to look, since it may not send one. -ENOENT: there is no such unit.
 */
int storvsp_capacity_changed(struct storvsp *s, unsigned lun) _must_check_;
struct storvsp_stats storvsp_stats(const struct storvsp *s);

extern const struct vmbus_device_type storvsp_type;
