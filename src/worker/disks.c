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
	struct list leaving;
};

/* A drive, or a disc, that the guest does not see any more. */
struct leaving {
	struct list node; /* of disks->leaving */
	struct drive *drive;
	struct disks_end end;
	struct loop_timer timer; /* closing runs the loop: not from inside a request's end */
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
static int shared_check(const struct drive_options *o, const struct guid *initiator,
			struct error *err)
{
	if (o->kind == DRIVE_DVD || o->read_only)
		return error_set(err, -EINVAL, "only disks that may be written have a set");
	if (guid_is_zero(initiator))
		return error_set(err, -EINVAL,
				 "a drive with a set needs an id of the virtual machine, by which "
				 "the others know it");
	return 0;
}

/* The descriptors are taken. */
static int set_open(const struct drive_options *o, const struct guid *initiator, int fd,
		    int image_fd, struct drive **ret, struct error *err)
{
	const struct vhdset_options so = { .initiator = *initiator, .direct = o->direct };
	struct vhdset *set;
	int r = vhdset_open(o->loop, fd, image_fd, &so, &set, err);

	return r < 0 ? r : drive_open_shared(o, set, ret, err);
}

static int open_shared(const struct drive_options *o, const struct guid *initiator,
		       const struct vm_drive *drive, struct drive **ret, struct error *err)
{
	int fd, image_fd, r = shared_check(o, initiator, err);

	if (r < 0)
		return r;
	fd = vm_file_open(&drive->set, "set", false, err);
	if (fd < 0)
		return fd;
	image_fd = vm_file_open(&drive->file, "file", false, err);
	if (image_fd < 0) {
		close(fd);
		return image_fd;
	}
	r = set_open(o, initiator, fd, image_fd, ret, err);
	return r < 0 ? error_prefix(err, "%s", vm_file_name(&drive->set)) : 0;
}

static int attach_drive(struct controller *c, struct drive *drive, struct error *err)
{
	enum scsi_kind kind = drive->kind == DRIVE_DVD ? SCSI_DVD : SCSI_DISK;
	int r = storvsp_attach_disk(c->storvsp, drive->lun, drive->disk, kind, err);

	if (r < 0 || !drive->set)
		return r;
	r = storvsp_share_disk(c->storvsp, drive->lun, vhdset_reservations(drive->set));
	if (r < 0) {
		(void)!storvsp_detach(c->storvsp, drive->lun, NULL, NULL);
		return error_errno(err, r, "cannot share the disk");
	}
	return 0;
}

static void on_resized(struct drive *drive)
{
	struct controller *c = drive->resized_context;

	(void)!storvsp_capacity_changed(c->storvsp, drive->lun);
}

/* The guest sees it. The drive is closed when this fails. */
static int drive_show(struct disks *d, struct drive *drive, struct error *err)
{
	struct controller *c = &d->controllers[drive->controller];
	int r;

	drive->resized = on_resized;
	drive->resized_context = c;
	r = attach_drive(c, drive, err);
	if (r < 0) {
		drive_close(drive, NULL);
		return r;
	}
	d->drives[d->drive_count++] = drive;
	return 0;
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
	int r;

	if (drive->set.present)
		r = open_shared(&o, &c->initiator, drive, &opened, err);
	else if (o.kind == DRIVE_DVD && !drive->file.present)
		r = drive_open_files(&o, NULL, 0, &opened, err);
	else
		r = open_alone(&o, drive, where, &opened, err);

	return r < 0 ? r : drive_show(d, opened, err);
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
	list_init(&d->leaving);
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

/* --- while the guest runs --- */

static int leaving_close(struct leaving *l, struct error *err)
{
	int r = drive_close(l->drive, err);

	list_remove(&l->node);
	loop_timer_disarm(&l->timer);
	if (l->end.done)
		l->end.done(l->end.context, r, err);
	free(l);
	return r;
}

static void on_leave(struct loop_timer *t)
{
	struct error err = { 0 };

	(void)leaving_close(container_of(t, struct leaving, timer), &err);
}

/* The last command is back. */
static void on_unused(void *arg)
{
	struct leaving *l = arg;

	loop_timer_arm(&l->timer, 1);
}

static struct leaving *leaving_new(struct disks *d, struct drive *drive,
				   const struct disks_end *end)
{
	struct leaving *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->drive = drive;
	l->end = *end;
	loop_timer_init(d->loop, &l->timer, on_leave);
	list_append(&d->leaving, &l->node);
	return l;
}

static void leaving_free(struct leaving *l)
{
	list_remove(&l->node);
	free(l);
}

static void files_close(const struct disks_drive *drive)
{
	for (unsigned i = 0; i < drive->file_count; i++)
		close(drive->files[i].fd);
	if (drive->set_fd >= 0)
		close(drive->set_fd);
}

static int attach_check(const struct disks *d, const struct disks_drive *drive, struct error *err)
{
	const struct drive_options *o = &drive->options;

	if (o->controller >= d->count)
		return error_set(err, -ENOENT,
				 "there is no controller %u; the machine has %u, and another is "
				 "added while it is off",
				 o->controller, d->count);
	for (unsigned i = 0; i < d->drive_count; i++)
		if (d->drives[i]->controller == o->controller && d->drives[i]->lun == o->lun)
			return error_set(err, -EBUSY, "there is a drive at controller %u, LUN %u",
					 o->controller, o->lun);
	if (o->lun >= SCSI_MAX_LUNS)
		return error_set(err, -EINVAL, "LUN %u is not below %d", o->lun, SCSI_MAX_LUNS);
	if (!drive->file_count && o->kind != DRIVE_DVD)
		return error_set(err, -EINVAL, "a disk needs the file of its image");
	if (drive->set_fd < 0)
		return 0;
	if (drive->file_count != 1)
		return error_set(err, -EINVAL, "a disk with a set has one file");
	return shared_check(o, &d->controllers[o->controller].initiator, err);
}

int disks_attach(struct disks *d, struct disks_drive *drive, struct error *err)
{
	struct drive_options *o = &drive->options;
	struct drive *opened;
	int r = attach_check(d, drive, err);

	if (r < 0) {
		files_close(drive);
		return r;
	}
	o->loop = d->loop;
	if (drive->set_fd >= 0)
		r = set_open(o, &d->controllers[o->controller].initiator, drive->set_fd,
			     drive->files[0].fd, &opened, err);
	else
		r = drive_open_files(o, drive->files, drive->file_count, &opened, err);
	if (r >= 0)
		r = drive_show(d, opened, err);
	if (r >= 0)
		live_added(d->live);
	return r;
}

static int locked(struct disks *d, const struct drive *drive, struct error *err)
{
	if (!storvsp_is_locked(d->controllers[drive->controller].storvsp, drive->lun))
		return 0;
	return error_set(err, -EBUSY,
			 "the guest has locked the tray of drive %u:%u: unmount the disc in the "
			 "guest, or force it",
			 drive->controller, drive->lun);
}

static void drive_forget(struct disks *d, const struct drive *drive)
{
	unsigned i = 0;

	while (d->drives[i] != drive)
		i++;
	memmove(&d->drives[i], &d->drives[i + 1], (--d->drive_count - i) * sizeof(*d->drives));
}

int disks_detach(struct disks *d, struct drive *drive, const struct disks_end *end,
		 struct error *err)
{
	struct leaving *l;
	int r = end->force ? 0 : locked(d, drive, err);

	if (r < 0)
		return r;
	l = leaving_new(d, drive, end);
	if (!l)
		return error_set(err, -ENOMEM, "out of memory");
	r = live_remove(d->live, drive, err);
	if (r < 0) {
		leaving_free(l);
		return r;
	}
	drive_forget(d, drive);
	r = storvsp_detach(d->controllers[drive->controller].storvsp, drive->lun, on_unused, l);
	return r < 0 ? error_errno(err, r, "cannot detach the drive") : 0;
}

int disks_load(struct disks *d, struct drive *drive, const struct drive_file *file,
	       const struct disks_end *end, struct error *err)
{
	const struct drive_options o = { .loop = d->loop,
					 .controller = drive->controller,
					 .lun = drive->lun,
					 .kind = DRIVE_DVD,
					 .read_only = true,
					 .direct = drive->direct };
	struct scsi_load load = { .force = end->force, .done = on_unused };
	struct drive *fresh;
	struct leaving *l;
	int r = drive_open_files(&o, file, file ? 1 : 0, &fresh, err);

	if (r < 0)
		return r;
	l = leaving_new(d, fresh, end);
	load.disk = fresh->disk;
	load.arg = l;
	r = !l ? error_set(err, -ENOMEM, "out of memory")
	       : storvsp_load(d->controllers[drive->controller].storvsp, drive->lun, &load, err);
	if (r < 0) {
		if (l)
			leaving_free(l);
		drive_close(fresh, NULL);
		return r;
	}
	drive_exchange(drive, fresh);
	return 0;
}

/* --- the end --- */

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

static void first_keep(int *first, struct error *err, int r, const struct error *why)
{
	if (r >= 0 || *first < 0)
		return;
	*first = r;
	if (err)
		*err = *why;
}

int disks_close(struct disks *d, struct error *err)
{
	int first = 0;

	while (d && !list_empty(&d->leaving)) {
		struct error e = { 0 };
		int r = leaving_close(list_first(&d->leaving, struct leaving, node), &e);

		first_keep(&first, err, r, &e);
	}
	while (d && d->drive_count) {
		struct error e = { 0 };
		int r = close_drive(d, d->drives[--d->drive_count], &e);

		first_keep(&first, err, r, &e);
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
