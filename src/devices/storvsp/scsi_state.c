// SPDX-License-Identifier: MIT
/*
 * Saving and restoring the units of a target: what a guest has set, and what it has yet to be told.
 * The disks themselves must be what they were: a guest has their data in its caches. Runs on the
 * event loop's thread.
 */
#include "devices/storvsp/scsi_unit.h"

#include "save/save.h"

#include <errno.h>

struct saved_unit {
	uint8_t lun, device_type;
	bool read_only, has_disk;
	uint32_t block_size;
	uint64_t size; /* of the disk */
	bool write_cache, tray_open, removal_prevented;
	uint8_t media_event;
	uint8_t sense_key, asc, ascq; /* unit attention */
};

/* clang-format off */
#define UNIT(name) SAVE_FIELD(struct saved_unit, name)
static const struct save_field unit_fields[] = {
	UNIT(lun), UNIT(device_type), UNIT(read_only), UNIT(has_disk), UNIT(block_size), UNIT(size),
	UNIT(write_cache), UNIT(tray_open), UNIT(removal_prevented), UNIT(media_event),
	UNIT(sense_key), UNIT(asc), UNIT(ascq),
};
/* clang-format on */
static const struct save_table unit_table =
	SAVE_TABLE("scsi.unit", 1, struct saved_unit, unit_fields);

static struct saved_unit unit_state(unsigned lun, const struct scsi_unit *unit)
{
	return (struct saved_unit){
		.lun = (uint8_t)lun,
		.device_type = unit->type->device_type,
		.read_only = unit->disk && unit->disk->geometry.read_only,
		.has_disk = unit->disk,
		.block_size = unit->block_size,
		.size = unit->disk ? unit->disk->geometry.size : 0,
		.write_cache = unit->write_cache,
		.tray_open = unit->tray_open,
		.removal_prevented = unit->removal_prevented,
		.media_event = unit->media_event,
		.sense_key = unit->attention.key,
		.asc = unit->attention.asc,
		.ascq = unit->attention.ascq,
	};
}

void scsi_target_save(const struct scsi_target *target, struct save_writer *w)
{
	for (unsigned lun = 0; lun < SCSI_MAX_LUNS; lun++) {
		const struct scsi_unit *unit = scsi_target_unit(target, lun);
		struct saved_unit s;

		if (!unit)
			continue;
		s = unit_state(lun, unit);
		save_put(w, &unit_table, &s);
	}
}

static int check_unit(const struct saved_unit *s, const struct scsi_unit *unit, struct error *err)
{
	struct saved_unit now;

	if (!unit)
		return error_set(err, -EINVAL,
				 "LUN %u had a drive when the machine was saved and has none now",
				 s->lun);
	now = unit_state(s->lun, unit);
	if (now.device_type != s->device_type || now.has_disk != s->has_disk ||
	    now.read_only != s->read_only || now.block_size != s->block_size)
		return error_set(err, -EINVAL,
				 "the drive at LUN %u is of another kind than when the machine was "
				 "saved",
				 s->lun);
	if (now.size != s->size)
		return error_set(err, -EINVAL,
				 "the disk at LUN %u has %llu bytes; it had %llu when the machine "
				 "was saved",
				 s->lun, (unsigned long long)now.size, (unsigned long long)s->size);
	return 0;
}

static int restore_unit(struct scsi_target *target, const struct saved_unit *s, uint64_t *seen,
			struct error *err)
{
	struct scsi_unit *unit = s->lun < SCSI_MAX_LUNS ? scsi_target_unit(target, s->lun) : NULL;
	int r = check_unit(s, unit, err);

	if (r < 0)
		return r;
	*seen |= BIT64(s->lun);
	unit->write_cache = s->write_cache;
	unit->tray_open = s->tray_open;
	unit->removal_prevented = s->removal_prevented;
	unit->media_event = s->media_event;
	unit->attention = (struct scsi_sense){ s->sense_key, s->asc, s->ascq };
	return 0;
}
_Static_assert(SCSI_MAX_LUNS <= 64, "one bit for each LUN above");

int scsi_target_restore(struct scsi_target *target, struct save_reader *r, struct error *err)
{
	struct saved_unit s;
	uint64_t seen = 0;
	int n;

	while ((n = save_next(r, &unit_table, &s, err)) > 0) {
		n = restore_unit(target, &s, &seen, err);
		if (n < 0)
			return n;
	}
	for (unsigned lun = 0; lun < SCSI_MAX_LUNS && n >= 0; lun++)
		if (scsi_target_unit(target, lun) && !(seen & BIT64(lun)))
			n = error_set(err, -EINVAL,
				      "LUN %u has a drive that it did not have when the machine "
				      "was saved",
				      lun);
	return n;
}
