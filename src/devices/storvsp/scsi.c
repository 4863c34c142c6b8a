// SPDX-License-Identifier: MIT
/*
 * The SCSI target of scsi.h: which unit a command is for, what is refused before its handler sees
 * it (unknown command, short CDB, no medium, write protection, pending unit attention), how a
 * command ends, and the commands that do not depend on the kind of unit. Kinds are tables:
 * scsi_disk.c and scsi_dvd.c. Runs on the event loop's thread. SPC-3 4.5 (sense data), 6.21 (REPORT
 * LUNS), 6.27 (REQUEST SENSE), SAM-3 5.9.7 (unit attention).
 */
#include "devices/storvsp/scsi.h"

#include "devices/storvsp/scsi_unit.h"
#include "lib/cleanup.h"

#include <assert.h>
#include <errno.h>

struct scsi_target {
	struct scsi_target_options options;
	struct scsi_unit *units[SCSI_MAX_LUNS];
	struct scsi_stats stats;
};

/* --- iovecs --- */

unsigned iov_trim(struct iovec *iov, unsigned count, size_t bytes)
{
	for (unsigned i = 0; i < count; i++) {
		if (bytes <= iov[i].iov_len) {
			iov[i].iov_len = bytes;
			return bytes ? i + 1 : i;
		}
		bytes -= iov[i].iov_len;
	}
	return count;
}

size_t iov_read(const struct iovec *iov, unsigned count, void *dst, size_t size)
{
	size_t at = 0;

	for (unsigned i = 0; i < count && at < size; i++) {
		size_t n = MIN(iov[i].iov_len, size - at);

		memcpy((uint8_t *)dst + at, iov[i].iov_base, n);
		at += n;
	}
	return at;
}

size_t iov_write(const struct iovec *iov, unsigned count, const void *src, size_t size)
{
	size_t at = 0;

	for (unsigned i = 0; i < count && at < size; i++) {
		size_t n = MIN(iov[i].iov_len, size - at);

		memcpy(iov[i].iov_base, (const uint8_t *)src + at, n);
		at += n;
	}
	return at;
}

struct scsi_unit *scsi_target_unit(const struct scsi_target *target, unsigned lun)
{
	return target->units[lun];
}

/* --- how commands end --- */

static void unit_settle(struct scsi_unit *unit)
{
	void (*gone)(void *) = unit->gone;
	void *arg = unit->gone_arg;

	if (!unit->detached || unit->running)
		return;
	free(unit);
	if (gone)
		gone(arg);
}

static void request_end(struct scsi_request *req)
{
	struct scsi_unit *unit = steal_ptr(req->unit);

	if (req->fenced)
		scsi_reserve_leave(unit, req);
	req->done(req);
	if (unit) {
		unit->running--;
		unit_settle(unit);
	}
}

void scsi_good(struct scsi_request *req, uint32_t transferred)
{
	req->status = SCSI_GOOD;
	req->transferred = transferred;
	request_end(req);
}

void scsi_sense_fill(uint8_t sense[static SCSI_FIXED_SENSE_SIZE], struct scsi_sense s)
{
	memset(sense, 0, SCSI_FIXED_SENSE_SIZE);
	sense[0] = 0x70; /* current error, fixed format */
	sense[2] = s.key;
	sense[7] = SCSI_FIXED_SENSE_SIZE - 8;
	sense[12] = s.asc;
	sense[13] = s.ascq;
}

void scsi_fail(struct scsi_request *req, struct scsi_sense sense)
{
	req->status = SCSI_CHECK_CONDITION;
	req->capacity_changed = sense.key == SENSE_CAPACITY_CHANGED.key &&
				sense.asc == SENSE_CAPACITY_CHANGED.asc &&
				sense.ascq == SENSE_CAPACITY_CHANGED.ascq;
	req->transferred = 0;
	scsi_sense_fill(req->sense, sense);
	request_end(req);
}

void scsi_end(struct scsi_request *req, enum scsi_status status)
{
	req->status = status;
	req->transferred = 0;
	request_end(req);
}

void scsi_overrun(struct scsi_request *req)
{
	req->outcome = SCSI_OVERRUN;
	req->transferred = 0;
	request_end(req);
}

void scsi_abort(struct scsi_request *req)
{
	req->outcome = SCSI_ABORTED;
	req->transferred = 0;
	request_end(req);
}

void scsi_reply(struct scsi_request *req, const struct writer *w, size_t allocation)
{
	assert(writer_ok(w));
	if (req->direction == SCSI_DATA_OUT && req->bytes) {
		scsi_fail(req, SENSE_INVALID_FIELD);
		return;
	}
	scsi_good(req, (uint32_t)iov_write(req->iov, req->iovcnt, w->data, MIN(w->at, allocation)));
}

bool scsi_parameters(struct scsi_request *req, void *dst, size_t size)
{
	if (req->direction == SCSI_DATA_IN) {
		scsi_fail(req, SENSE_INVALID_FIELD);
		return false;
	}
	if (size > req->bytes) {
		scsi_overrun(req);
		return false;
	}
	iov_read(req->iov, req->iovcnt, dst, size);
	return true;
}

static struct scsi_sense sense_of_error(int error, enum disk_op op)
{
	switch (error) {
	case -ENOSPC:
	case -EDQUOT:
	case -EFBIG:
		return SENSE_SPACE_EXHAUSTED;
	case -EROFS:
		return SENSE_WRITE_PROTECTED;
	case -ENXIO: /* the disk became smaller while the request waited */
		return SENSE_LBA_OUT_OF_RANGE;
	case -EIO:
		return op == DISK_READ ? SENSE_READ_ERROR : SENSE_WRITE_ERROR;
	default:
		return SENSE_INTERNAL_FAILURE;
	}
}

void scsi_disk_done(struct scsi_request *req, int result)
{
	const struct disk_request *d = &req->disk;
	struct scsi_stats *stats = req->unit->stats;

	if (result < 0) {
		stats->errors++;
		scsi_fail(req, sense_of_error(result, d->op));
		return;
	}
	scsi_good(req, req->transferred);
}

static void request_count(struct scsi_stats *stats, const struct disk_request *d)
{
	switch (d->op) {
	case DISK_READ:
		stats->reads++;
		stats->bytes_read += d->length;
		break;
	case DISK_WRITE:
	case DISK_WRITE_ZEROES:
		stats->writes++;
		stats->bytes_written += d->length;
		break;
	case DISK_FLUSH:
		stats->flushes++;
		break;
	case DISK_TRIM:
		stats->trims++;
		break;
	}
}

void scsi_submit(struct scsi_request *req, void (*done)(struct disk_request *, int))
{
	req->disk.done = done;
	request_count(req->unit->stats, &req->disk);
	disk_submit(req->unit->disk, &req->disk);
}

void scsi_cancel(struct scsi_request *req)
{
	req->cancelled = true;
}

/* --- commands of all units --- */

void scsi_test_unit_ready(struct scsi_unit *unit, struct scsi_request *req)
{
	(void)unit;
	scsi_good(req, 0); /* a missing medium was reported before this was called */
}

void scsi_request_sense(struct scsi_unit *unit, struct scsi_request *req)
{
	struct scsi_sense s = unit->attention.key ? unit->attention : SENSE_NONE;
	uint8_t data[SCSI_FIXED_SENSE_SIZE];
	struct writer w = writer_of(data, sizeof(data));

	if (!s.key && unit->type->removable && !scsi_unit_has_medium(unit))
		s = unit->tray_open ? SENSE_NO_MEDIUM_OPEN : SENSE_NO_MEDIUM;
	if (req->cdb[1] & BIT(0)) { /* descriptor format, without descriptors */
		const uint8_t header[8] = { 0x72, s.key, s.asc, s.ascq };

		writer_put(&w, header, sizeof(header));
	} else {
		uint8_t fixed[SCSI_FIXED_SENSE_SIZE];

		scsi_sense_fill(fixed, s);
		writer_put(&w, fixed, sizeof(fixed));
	}
	unit->attention = SENSE_NONE;
	scsi_reply(req, &w, req->cdb[4]);
}

static void report_luns(struct scsi_target *target, struct scsi_request *req)
{
	uint8_t data[8 + 8 * SCSI_MAX_LUNS];
	struct writer w = writer_of(data, sizeof(data));
	size_t count = 0;

	if (req->cdb_size < 12 || req->cdb[2] > 2) {
		scsi_fail(req, SENSE_INVALID_FIELD);
		return;
	}
	/* Report 1 asks for well-known units only: there are none. */
	for (unsigned lun = 0; lun < SCSI_MAX_LUNS && req->cdb[2] != 1; lun++)
		count += target->units[lun] != NULL;
	writer_be32(&w, (uint32_t)(8 * count));
	writer_be32(&w, 0);
	for (unsigned lun = 0; lun < SCSI_MAX_LUNS && count; lun++) {
		if (!target->units[lun])
			continue;
		writer_be16(&w, (uint16_t)lun); /* peripheral device addressing (SAM-3 4.9.4) */
		writer_zero(&w, 6);
	}
	scsi_reply(req, &w, scsi_cdb_be(req, 6, 4));
}

/* --- dispatch --- */

static const struct scsi_command *command_find(const struct scsi_unit_type *type,
					       const struct scsi_request *req)
{
	for (size_t i = 0; i < type->command_count; i++) {
		const struct scsi_command *c = &type->commands[i];

		if (c->opcode == req->cdb[0])
			return c;
	}
	return NULL;
}

/* What stands against running the command, as sense data; key 0 when nothing does. */
static struct scsi_sense command_check(struct scsi_unit *unit, const struct scsi_command *c,
				       const struct scsi_request *req)
{
	struct scsi_sense s = unit->attention;

	if (!c || ((c->flags & SCSI_CMD_SHARED) && !unit->reservations))
		return SENSE_INVALID_OPCODE;
	if (req->cdb_size < c->cdb_size)
		return SENSE_INVALID_FIELD;
	if ((c->flags & SCSI_CMD_ACTION) && (req->cdb[1] & 0x1f) != c->service_action)
		return SENSE_INVALID_FIELD;
	if (s.key && !(c->flags & SCSI_CMD_EXEMPT)) {
		unit->attention = SENSE_NONE;
		return s;
	}
	if ((c->flags & SCSI_CMD_MEDIUM) && !scsi_unit_has_medium(unit))
		return unit->tray_open ? SENSE_NO_MEDIUM_OPEN : SENSE_NO_MEDIUM;
	if ((c->flags & SCSI_CMD_WRITES) && unit->disk->geometry.read_only)
		return SENSE_WRITE_PROTECTED;
	return SENSE_NONE;
}

static void execute_absent(struct scsi_request *req)
{
	if (req->cdb[0] == SCSI_INQUIRY) {
		scsi_inquiry_absent(req);
		return;
	}
	req->outcome = SCSI_NO_UNIT;
	request_end(req);
}

static void request_prepare(struct scsi_request *req)
{
	req->outcome = SCSI_FINISHED;
	req->status = SCSI_GOOD;
	req->transferred = 0;
	req->capacity_changed = false;
	req->cancelled = false;
	req->unit = NULL;
	req->disk.flags = 0;
	req->fenced = false;
}

void scsi_execute(struct scsi_target *target, struct scsi_request *req)
{
	struct scsi_unit *unit = req->lun < SCSI_MAX_LUNS ? target->units[req->lun] : NULL;
	const struct scsi_command *c;
	struct scsi_sense s;

	request_prepare(req);
	if (!req->cdb_size || req->cdb_size > SCSI_CDB_SIZE) {
		scsi_fail(req, SENSE_INVALID_OPCODE);
		return;
	}
	/* The target answers for its units, so that a bus without LUN 0 can be scanned. */
	if (req->cdb[0] == SCSI_REPORT_LUNS) {
		report_luns(target, req);
		return;
	}
	if (!unit) {
		execute_absent(req);
		return;
	}
	req->unit = unit;
	unit->running++;
	c = command_find(unit->type, req);
	if (unit->reservations && !scsi_reserve_refresh(unit, req))
		return;
	s = command_check(unit, c, req);
	if (s.key)
		scsi_fail(req, s);
	else if (!unit->reservations || scsi_reserve_admit(unit, c, req))
		c->handler(unit, req);
}

/* --- the target --- */

/*
 * A disk that brings no identity gets one that stays as long as its place does. The LUN goes into
 * a byte of the middle: controllers are often numbered at the ends of their GUIDs.
 */
static struct guid unit_identity(const struct scsi_target *target, unsigned lun,
				 const struct disk *disk)
{
	struct guid id = target->options.identity;

	if (disk && !guid_is_zero(&disk->geometry.id))
		return disk->geometry.id;
	id.b[5] = (uint8_t)(id.b[5] ^ (lun + 1));
	return id;
}

static void unit_reset(struct scsi_unit *unit)
{
	unit->write_cache = true;
	unit->removal_prevented = false;
	unit->attention = SENSE_NONE;
}

static int disk_check(const struct scsi_unit_type *type, const struct disk *disk, struct error *err)
{
	const struct disk_geometry *g = disk ? &disk->geometry : NULL;

	if (!g)
		return type->removable ? 0 : error_set(err, -EINVAL, "no disk is given");
	if (g->logical_sector != 512 && g->logical_sector != 4096)
		return error_set(err, -EINVAL, "sectors of %u bytes cannot be shown to a guest",
				 g->logical_sector);
	if (type->block_size && type->block_size % g->logical_sector)
		return error_set(err, -EINVAL, "a DVD image cannot lie in sectors of %u bytes",
				 g->logical_sector);
	if (g->size < (type->block_size ? type->block_size : g->logical_sector))
		return error_set(err, -EINVAL, "the disk is smaller than one sector");
	return 0;
}

int scsi_target_attach(struct scsi_target *target, unsigned lun, enum scsi_kind kind,
		       struct disk *disk, struct error *err)
{
	const struct scsi_unit_type *type = kind == SCSI_DVD ? &scsi_dvd_type : &scsi_disk_type;
	struct scsi_unit *unit;
	int r;

	if (lun >= SCSI_MAX_LUNS)
		return error_set(err, -EINVAL, "LUN %u is not below %d", lun, SCSI_MAX_LUNS);
	if (target->units[lun])
		return error_set(err, -EBUSY, "LUN %u is taken", lun);
	r = disk_check(type, disk, err);
	if (r < 0)
		return r;
	unit = calloc(1, sizeof(*unit));
	if (!unit)
		return error_set(err, -ENOMEM, "out of memory");
	unit->type = type;
	unit->disk = disk;
	unit->id = unit_identity(target, lun, disk);
	unit->block_size = type->block_size ? type->block_size : disk->geometry.logical_sector;
	unit->max_transfer = target->options.max_transfer;
	unit->stats = &target->stats;
	unit_reset(unit);
	target->units[lun] = unit;
	return 0;
}

int scsi_target_share(struct scsi_target *target, unsigned lun, struct reserve_file *reservations)
{
	struct scsi_unit *unit = lun < SCSI_MAX_LUNS ? target->units[lun] : NULL;

	if (!unit)
		return -ENOENT;
	if (unit->type != &scsi_disk_type)
		return -EINVAL;
	unit->reservations = reservations;
	return 0;
}

int scsi_target_detach(struct scsi_target *target, unsigned lun, void (*done)(void *arg), void *arg)
{
	struct scsi_unit *unit = lun < SCSI_MAX_LUNS ? target->units[lun] : NULL;

	if (!unit)
		return -ENOENT;
	target->units[lun] = NULL;
	unit->gone = done;
	unit->gone_arg = arg;
	unit->detached = true;
	unit_settle(unit);
	return 0;
}

int scsi_target_capacity_changed(struct scsi_target *target, unsigned lun)
{
	struct scsi_unit *unit = lun < SCSI_MAX_LUNS ? target->units[lun] : NULL;

	if (!unit)
		return -ENOENT;
	unit->attention = SENSE_CAPACITY_CHANGED;
	return 0;
}

void scsi_target_reset(struct scsi_target *target)
{
	for (unsigned lun = 0; lun < SCSI_MAX_LUNS; lun++)
		if (target->units[lun])
			unit_reset(target->units[lun]);
}

const struct scsi_stats *scsi_target_stats(const struct scsi_target *target)
{
	return &target->stats;
}

int scsi_target_new(const struct scsi_target_options *options, struct scsi_target **ret,
		    struct error *err)
{
	struct scsi_target *target = calloc(1, sizeof(*target));

	if (!target)
		return error_set(err, -ENOMEM, "out of memory");
	target->options = *options;
	*ret = target;
	return 0;
}

void scsi_target_free(struct scsi_target *target)
{
	if (!target)
		return;
	for (unsigned lun = 0; lun < SCSI_MAX_LUNS; lun++) {
		assert(!target->units[lun] || !target->units[lun]->running);
		free(target->units[lun]);
	}
	free(target);
}
