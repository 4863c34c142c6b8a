// SPDX-License-Identifier: MIT
/* See disks.h. Controllers are offered in the order of the description: sda is where one expects.
 */
#include "worker/disks.h"

#include "devices/storvsp/storvsp.h"
#include "lib/cleanup.h"
#include "vhd/disk.h"
#include "worker/vm_description.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define MAX_DRIVES 64

struct controller {
	struct storvsp *storvsp;
	struct vmbus_channel *channel;
	unsigned drive_count;
	struct {
		struct disk *disk;
		unsigned lun;
	} drives[MAX_DRIVES];
};

struct disks {
	struct loop *loop;
	unsigned count;
	struct controller controllers[4];
};

const char *vm_file_name(const struct vm_file *file)
{
	return file->path ? file->path : "(passed descriptor)";
}

int vm_file_open(const struct vm_file *file, const char *where, bool read_only, struct error *err)
{
	int fd;

	if (!file->path == (file->descriptor < 0))
		return error_set(err, -EINVAL, "%s needs either a path or a descriptor", where);
	if (!file->path) {
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

static int open_drive(struct disks *d, struct controller *c, const struct vm_drive *drive,
		      const char *where, struct error *err)
{
	bool dvd = drive->kind == VM_DRIVE_KIND_DVD;
	struct disk_open_options o = { .read_only = drive->read_only || dvd,
				       .direct = drive->direct,
				       .follow = drive->file.path != NULL,
				       .format = vm_drive_format_names[drive->format] };
	struct disk *disk;
	int r = vm_file_open(&drive->file, where, o.read_only, err);

	if (r < 0)
		return r;
	r = disk_open(d->loop, r, vm_file_name(&drive->file), &o, &disk, err);
	if (r < 0)
		return r;
	r = storvsp_attach_disk(c->storvsp, drive->lun, disk, dvd ? SCSI_DVD : SCSI_DISK, err);
	if (r < 0) {
		disk_close(disk, NULL);
		return r;
	}
	c->drives[c->drive_count].disk = disk;
	c->drives[c->drive_count++].lun = drive->lun;
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

	for (unsigned i = 0; i < vc->drives_count && r >= 0; i++) {
		char where[64];

		snprintf(where, sizeof(where), "scsi[%u].drives[%u]", index, i);
		r = open_drive(d, c, &vc->drives[i], where, err);
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
	if (r < 0) {
		disks_close(d, NULL);
		disks_free(d);
		return r;
	}
	*ret = d;
	return 0;
}

/* Nothing is in flight, so the unit is gone when detach returns. */
static int close_drive(struct controller *c, unsigned index, struct error *err)
{
	int r = storvsp_detach(c->storvsp, c->drives[index].lun, NULL, NULL);
	int closed = disk_close(c->drives[index].disk, err);

	if (r < 0 && closed >= 0)
		return error_errno(err, r, "cannot detach drive %u", index);
	return closed;
}

int disks_close(struct disks *d, struct error *err)
{
	int first = 0;

	for (unsigned i = 0; d && i < d->count; i++) {
		struct controller *c = &d->controllers[i];

		while (c->drive_count) {
			struct error e = { 0 };
			int r = close_drive(c, --c->drive_count, &e);

			if (r < 0 && !first) {
				first = r;
				if (err)
					*err = e;
			}
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
	free(d);
}
