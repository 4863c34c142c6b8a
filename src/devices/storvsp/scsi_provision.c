// SPDX-License-Identifier: MIT
/*
 * UNMAP and WRITE SAME: commands that become several requests to the disk layer, one after the
 * other, on the event loop's thread. What a guest may ask for at once is bounded by the block
 * limits page and checked before the first step; nothing is allocated. SBC-3 5.28 (UNMAP), 5.42 and
 * 5.43 (WRITE SAME), 4.7 (logical block provisioning).
 */
#include "devices/storvsp/scsi_unit.h"

#define UNMAP_HEADER     8
#define UNMAP_DESCRIPTOR 16
#define BLOCK_MAX        4096

#define SAME_NDOB   0x01 /* no data-out buffer: zeros */
#define SAME_LBDATA 0x02
#define SAME_PBDATA 0x04
#define SAME_UNMAP  0x08
#define SAME_ANCHOR 0x10

/* --- UNMAP --- */

static void unmap_next(struct scsi_request *req);

static void on_trim(struct disk_request *d, int result)
{
	struct scsi_request *req = container_of(d, struct scsi_request, disk);

	if (result < 0)
		scsi_disk_done(req, result);
	else
		unmap_next(req);
}

static void unmap_next(struct scsi_request *req)
{
	while (req->at < req->count && !req->extents[req->at].length)
		req->at++;
	if (req->at == req->count) {
		scsi_good(req, req->transferred);
		return;
	}
	if (req->cancelled) {
		scsi_abort(req);
		return;
	}
	req->disk.op = DISK_TRIM;
	req->disk.offset = req->extents[req->at].offset;
	req->disk.length = req->extents[req->at].length;
	req->disk.iov = NULL;
	req->disk.iovcnt = 0;
	req->at++;
	scsi_submit(req, on_trim);
}

static struct scsi_sense unmap_decode(const struct scsi_unit *unit, struct scsi_request *req,
				      struct reader *r)
{
	size_t bytes;

	reader_skip(r, 2);
	bytes = reader_be16(r);
	reader_skip(r, 4);
	/* A list that claims more descriptors than came along is short, not wrong (SBC-3 5.28.2).
	 */
	req->count = (unsigned)(MIN(bytes, reader_left(r)) / UNMAP_DESCRIPTOR);
	for (unsigned i = 0; i < req->count; i++) {
		uint64_t lba = reader_be64(r), blocks = reader_be32(r);

		reader_skip(r, 4);
		if (!range_inside(lba, blocks, scsi_unit_blocks(unit)))
			return SENSE_LBA_OUT_OF_RANGE;
		if (blocks > SCSI_MAX_UNMAP_BYTES / unit->block_size)
			return SENSE_INVALID_PARAMETER;
		req->extents[i] =
			(struct scsi_extent){ lba * unit->block_size, blocks * unit->block_size };
	}
	return SENSE_NONE;
}

void scsi_unmap(struct scsi_unit *unit, struct scsi_request *req)
{
	uint8_t list[UNMAP_HEADER + UNMAP_DESCRIPTOR * SCSI_MAX_UNMAP_EXTENTS];
	size_t size = scsi_cdb_be(req, 7, 2);
	struct reader r = reader_of(list, size);
	struct scsi_sense s;

	if (!scsi_unit_thin(unit)) {
		scsi_fail(req, SENSE_INVALID_OPCODE);
		return;
	}
	if (req->cdb[1] & 0x01) { /* anchoring: keep the space but not the data */
		scsi_fail(req, SENSE_INVALID_FIELD);
		return;
	}
	if (size > sizeof(list) || (size && size < UNMAP_HEADER)) {
		scsi_fail(req, SENSE_PARAMETER_LIST_LENGTH);
		return;
	}
	if (!scsi_parameters(req, list, size))
		return;
	req->at = req->count = 0;
	s = size ? unmap_decode(unit, req, &r) : SENSE_NONE;
	if (s.key) {
		scsi_fail(req, s);
		return;
	}
	req->transferred = (uint32_t)size;
	unmap_next(req);
}

/* --- WRITE SAME --- */

static void same_next(struct scsi_request *req);

static void on_same(struct disk_request *d, int result)
{
	struct scsi_request *req = container_of(d, struct scsi_request, disk);

	if (result < 0) {
		scsi_disk_done(req, result);
		return;
	}
	d->offset += d->length;
	req->remaining -= d->length;
	same_next(req);
}

/* Writes as many blocks as the iovecs hold copies of the pattern. */
static void same_next(struct scsi_request *req)
{
	uint64_t step = (uint64_t)req->unit->block_size * req->count;

	if (!req->remaining) {
		scsi_good(req, req->transferred);
		return;
	}
	if (req->cancelled) {
		scsi_abort(req);
		return;
	}
	if (step > req->remaining) {
		step = req->remaining;
		req->disk.iovcnt = iov_trim(req->iov, req->disk.iovcnt, step);
	}
	req->disk.length = step;
	scsi_submit(req, on_same);
}

/*
 * The pattern stays where it is, in the guest's page: the iovecs name it again and again. A guest
 * that changes it meanwhile changes what it writes to its own disk.
 */
static void same_pattern(struct scsi_unit *unit, struct scsi_request *req, uint64_t length)
{
	unsigned per_block = iov_trim(req->iov, req->iovcnt, unit->block_size);

	req->count = req->iovmax / per_block;
	req->count = (unsigned)MIN(req->count, length / unit->block_size);
	for (unsigned i = per_block; i < per_block * req->count; i++)
		req->iov[i] = req->iov[i - per_block];
	req->remaining = length;
	req->disk.op = DISK_WRITE;
	req->disk.iov = req->iov;
	req->disk.iovcnt = per_block * req->count;
	same_next(req);
}

static void on_zeroes(struct disk_request *d, int result)
{
	scsi_disk_done(container_of(d, struct scsi_request, disk), result);
}

static void same_zeroes(struct scsi_request *req, uint64_t length)
{
	req->disk.op = DISK_WRITE_ZEROES;
	req->disk.length = length;
	req->disk.iov = NULL;
	req->disk.iovcnt = 0;
	scsi_submit(req, on_zeroes);
}

static struct scsi_sense same_check(const struct scsi_unit *unit, const struct scsi_request *req,
				    const struct scsi_range *at)
{
	uint8_t flags = req->cdb[1];
	bool ten = req->cdb[0] == SCSI_WRITE_SAME_10;

	if (flags & (0xe0 | SAME_ANCHOR | SAME_LBDATA | SAME_PBDATA | (ten ? SAME_NDOB : 0)))
		return SENSE_INVALID_FIELD;
	if ((flags & SAME_UNMAP) && !scsi_unit_thin(unit))
		return SENSE_INVALID_FIELD;
	if (!at->blocks || at->length > SCSI_MAX_SAME_BYTES)
		return SENSE_INVALID_FIELD;
	return SENSE_NONE;
}

/* Whether the block is all zeros; its first byte, then each like the one before. */
static bool block_is_zero(const uint8_t *block, size_t size)
{
	return !block[0] && !memcmp(block, block + 1, size - 1);
}

/*
 * With UNMAP the blocks may be given back but have to read as the pattern; zeroes written through
 * the disk layer do both where the format allows it.
 */
void scsi_write_same(struct scsi_unit *unit, struct scsi_request *req)
{
	uint8_t block[BLOCK_MAX];
	struct scsi_range at;
	struct scsi_sense s;

	if (!scsi_range_decode(unit, req, &at))
		return;
	s = same_check(unit, req, &at);
	if (s.key) {
		scsi_fail(req, s);
		return;
	}
	req->disk.offset = at.offset;
	req->disk.flags = unit->write_cache ? 0 : DISK_FUA;
	if (req->cdb[1] & SAME_NDOB) {
		same_zeroes(req, at.length);
		return;
	}
	if (!scsi_parameters(req, block, unit->block_size))
		return;
	req->transferred = unit->block_size;
	if (block_is_zero(block, unit->block_size))
		same_zeroes(req, at.length);
	else
		same_pattern(unit, req, at.length);
}
