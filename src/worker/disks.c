// SPDX-License-Identifier: MIT
/* See disks.h. Controllers are offered in the order of the description: sda is where one expects.
 */
#include "worker/disks.h"

#include "devices/storvsp/storvsp.h"
#include "lib/cleanup.h"
#include "vhd/vhdset.h"
#include "worker/live.h"
#include "worker/vm_description.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define MAX_CONTROLLERS 4

struct controller {
	struct storvsp *storvsp;
	struct vmbus_channel *channel;
	struct guid initiator; /* zero = the machine has no id */
};

struct disks {
	struct loop *loop;
	unsigned count;
	struct controller controllers[MAX_CONTROLLERS];
	unsigned drive_count;
	struct drive *drives[MAX_CONTROLLERS * SCSI_MAX_LUNS];
	struct live *live;
};

const char *vm_file_name(const struct vm_file *file)
{
	return file->path ? file->path : "(passed descriptor)";
}

int vm_file_open(const struct vm_file *file, const char *where, bool read_only, struct error *err)
{
	int fd;

	if (!file->path && file->descriptor < 0)
		return error_set(err, -EINVAL, "%s needs a path or a descriptor", where);
	if (file->descriptor >= 0) {
		if (fcntl((int)file->descriptor, F_GETFD) < 0)
			return error_errno(err, -errno, "%s: descriptor %lld was not passed", where,
					   (long long)file->descriptor);
		return (int)file->descriptor;
	}
	fd = open(file->path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (fd < 0)
		return error_errno(err, -errno, "%s: cannot open \"%s\"%s", where, file->path,
				   read_only ? "" : " for writing");
	return fd;
}

/* --- controllers --- */

static int open_alone(const struct drive_options *o, const struct vm_drive *drive,
		      const char *where, struct drive **ret, struct error *err)
{
	int fd = vm_file_open(&drive->file, where, o->read_only, err);

	return fd < 0 ? fd : drive_open(o, fd, drive->file.path, ret, err);
}

/* The controller is one initiator among those that share the image. */
static int open_shared(const struct drive_options *o, const struct guid *initiator,
		       const struct vm_drive *drive, struct drive **ret, struct error *err)
{
	const struct vhdset_options so = { .initiator = *initiator, .direct = drive->direct };
	struct vhdset *set;
	int fd, image_fd, r;

	if (drive->kind == VM_DRIVE_KIND_DVD || drive->read_only)
		return error_set(err, -EINVAL, "only disks that may be written have a set");
	if (guid_is_zero(initiator))
		return error_set(err, -EINVAL,
				 "a drive with a set needs an id of the virtual machine, by which "
				 "the others know it");
	fd = vm_file_open(&drive->set, "set", false, err);
	if (fd < 0)
		return fd;
	image_fd = vm_file_open(&drive->file, "file", false, err);
	if (image_fd < 0) {
		close(fd);
		return image_fd;
	}
	r = vhdset_open(o->loop, fd, image_fd, &so, &set, err);
	if (r < 0)
		return error_prefix(err, "%s", vm_file_name(&drive->set));
	return drive_open_shared(o, set, ret, err);
}

static int attach_drive(struct controller *c, struct drive *drive, struct error *err)
{
	enum scsi_kind kind = drive->kind == DRIVE_DVD ? SCSI_DVD : SCSI_DISK;
	int r = storvsp_attach_disk(c->storvsp, drive->lun, drive->disk, kind, err);

	if (r < 0 || !drive->set)
		return r;
	r = storvsp_share_disk(c->storvsp, drive->lun, vhdset_reservations(drive->set));
	return r < 0 ? error_errno(err, r, "cannot share the disk") : 0;
}

static void on_resized(struct drive *drive)
{
	struct controller *c = drive->resized_context;

	(void)!storvsp_capacity_changed(c->storvsp, drive->lun);
}

static int open_drive(struct disks *d, unsigned controller, const struct vm_drive *drive,
		      const char *where, struct error *err)
{
	struct controller *c = &d->controllers[controller];
	const struct drive_options o = {
		.loop = d->loop,
		.controller = controller,
		.lun = (unsigned)drive->lun,
		.kind = drive->kind == VM_DRIVE_KIND_DVD ? DRIVE_DVD : DRIVE_DISK,
		.read_only = drive->read_only || drive->kind == VM_DRIVE_KIND_DVD,
		.direct = drive->direct,
		.format = vm_drive_format_names[drive->format],
	};
	struct drive *opened;
	int r = drive->set.present ? open_shared(&o, &c->initiator, drive, &opened, err)
				   : open_alone(&o, drive, where, &opened, err);

	if (r < 0)
		return r;
	opened->resized = on_resized;
	opened->resized_context = c;
	r = attach_drive(c, opened, err);
	if (r < 0) {
		drive_close(opened, NULL);
		return r;
	}
	d->drives[d->drive_count++] = opened;
	return 0;
}

/* Who this controller is to others that share a disk with it: the machine, and which one of it. */
static int initiator_of(const struct vm_description *vm, unsigned index, struct guid *ret,
			struct error *err)
{
	if (!vm->id)
		return 0;
	if (guid_parse(vm->id, ret) < 0 || guid_is_zero(ret))
		return error_set(err, -EINVAL, "id: \"%s\" is no GUID", vm->id);
	ret->b[5] = (uint8_t)(ret->b[5] ^ index);
	return 0;
}

/* Stable over restarts, so that a guest recognises its controllers. */
static struct guid controller_instance(unsigned index)
{
	struct guid g =
		GUID(0x5cb01ba1, 0x7e5c, 0x4f1f, 0x9d, 0x5e, 0x50, 0x41, 0x52, 0x54, 0x49, 0x00);

	g.b[15] = (uint8_t)index;
	return g;
}

static int open_controller(struct disks *d, const struct disks_options *o, unsigned index,
			   struct error *err)
{
	const struct vm_scsi *vc = &o->description->scsi[index];
	struct controller *c = &d->controllers[index];
	struct storvsp_options so = {
		.instance = controller_instance(index),
		.max_version = o->storvsp_version,
		.max_channels =
			1 + MIN(o->description->storvsp.sub_channels, STORVSP_MAX_CHANNELS - 1u),
	};
	struct vmbus_offer_options offer = { .instance = so.instance };
	int r = storvsp_new(d->loop, &so, &c->storvsp, err);

	if (r >= 0)
		r = initiator_of(o->description, index, &c->initiator, err);
	for (unsigned i = 0; i < vc->drives_count && r >= 0; i++) {
		char where[64];

		snprintf(where, sizeof(where), "scsi[%u].drives[%u]", index, i);
		r = open_drive(d, index, &vc->drives[i], where, err);
		if (r < 0 && err && strncmp(err->message, where, strlen(where)))
			error_prefix(err, "%s", where);
	}
	if (r < 0)
		return r;
	return vmbus_device_offer(o->bus, &storvsp_type, c->storvsp, &offer, &c->channel, err);
}

int disks_open(const struct disks_options *o, struct disks **ret, struct error *err)
{
	struct disks *d = calloc(1, sizeof(*d));
	int r = 0;

	if (!d)
		return error_set(err, -ENOMEM, "out of memory");
	d->loop = o->loop;
	for (; d->count < o->description->scsi_count && r >= 0; d->count++)
		r = open_controller(d, o, d->count, err);
	if (r >= 0) {
		const struct live_options lo = { d->loop, d->drives, d->drive_count };

		r = live_new(&lo, &d->live, err);
	}
	if (r < 0) {
		disks_close(d, NULL);
		disks_free(d);
		return r;
	}
	*ret = d;
	return 0;
}

struct live *disks_live(struct disks *d)
{
	return d->live;
}

/* Nothing is in flight, so the unit is gone when detach returns. */
static int close_drive(struct disks *d, struct drive *drive, struct error *err)
{
	unsigned controller = drive->controller, lun = drive->lun;
	int r = storvsp_detach(d->controllers[controller].storvsp, lun, NULL, NULL);
	int closed = drive_close(drive, err);

	if (r < 0 && closed >= 0)
		return error_errno(err, r, "cannot detach drive %u:%u", controller, lun);
	return closed;
}

int disks_close(struct disks *d, struct error *err)
{
	int first = 0;

	while (d && d->drive_count) {
		struct error e = { 0 };
		int r = close_drive(d, d->drives[--d->drive_count], &e);

		if (r < 0 && !first) {
			first = r;
			if (err)
				*err = e;
		}
	}
	return first;
}

void disks_free(struct disks *d)
{
	if (!d)
		return;
	for (unsigned i = 0; i < d->count; i++)
		storvsp_free(d->controllers[i].storvsp);
	live_free(d->live);
	free(d);
}
