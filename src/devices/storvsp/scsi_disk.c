// SPDX-License-Identifier: MIT
/*
 * A disk: the commands that move data, the ones that describe the medium, and the table of all a
 * disk understands. Reads and writes go to the disk layer with the guest's own pages as buffers.
 * SBC-3 5 (commands), 6.4 (mode pages), 6.5 (vital product data).
 */
#include "devices/storvsp/scsi_unit.h"

#include <strings.h>

#define CDB_FUA 0x08

/* --- where --- */

static uint64_t cdb_blocks(const struct scsi_request *req, uint64_t *ret_lba)
{
	switch (req->cdb[0] >> 5) { /* the group says where the fields are (SPC-3 4.3.4) */
	case 0:
		*ret_lba = scsi_cdb_be(req, 1, 3) & 0x1fffff;
		return req->cdb[4] ? req->cdb[4] : 256;
	case 4:
		*ret_lba = scsi_cdb_be(req, 2, 8);
		return scsi_cdb_be(req, 10, 4);
	case 5:
		*ret_lba = scsi_cdb_be(req, 2, 4);
		return scsi_cdb_be(req, 6, 4);
	default:
		*ret_lba = scsi_cdb_be(req, 2, 4);
		return scsi_cdb_be(req, 7, 2);
	}
}

bool scsi_range_decode(const struct scsi_unit *unit, struct scsi_request *req,
		       struct scsi_range *ret)
{
	uint64_t lba, blocks = cdb_blocks(req, &lba);

	if (!range_inside(lba, blocks, scsi_unit_blocks(unit))) {
		scsi_fail(req, SENSE_LBA_OUT_OF_RANGE);
		return false;
	}
	*ret = (struct scsi_range){ lba * unit->block_size, blocks * unit->block_size, blocks };
	return true;
}

/* --- data --- */

static void on_transfer(struct disk_request *d, int result)
{
	scsi_disk_done(container_of(d, struct scsi_request, disk), result);
}

/* The protection bits of a CDB ask for what this disk is not formatted with. */
static bool cdb_protected(const struct scsi_request *req)
{
	return req->cdb[0] >> 5 && req->cdb[1] >> 5;
}

static void transfer(struct scsi_unit *unit, struct scsi_request *req, enum disk_op op)
{
	enum scsi_direction wrong = op == DISK_READ ? SCSI_DATA_OUT : SCSI_DATA_IN;
	struct scsi_range at;

	if (!scsi_range_decode(unit, req, &at))
		return;
	if (cdb_protected(req) || (at.length && req->direction == wrong)) {
		scsi_fail(req, SENSE_INVALID_FIELD);
		return;
	}
	if (at.length > req->bytes) {
		scsi_overrun(req);
		return;
	}
	if (!at.length) {
		scsi_good(req, 0);
		return;
	}
	req->disk.op = op;
	req->disk.offset = at.offset;
	req->disk.length = at.length;
	req->disk.iov = req->iov;
	req->disk.iovcnt = iov_trim(req->iov, req->iovcnt, at.length);
	req->transferred = (uint32_t)at.length;
	scsi_submit(req, on_transfer);
}

void scsi_read(struct scsi_unit *unit, struct scsi_request *req)
{
	transfer(unit, req, DISK_READ);
}

static void disk_write(struct scsi_unit *unit, struct scsi_request *req)
{
	bool fua = req->cdb[0] >> 5 && (req->cdb[1] & CDB_FUA);

	req->disk.flags = fua || !unit->write_cache ? DISK_FUA : 0;
	transfer(unit, req, DISK_WRITE);
}

/* Verified means: on the medium. Nothing here could read it back better than the host does. */
static void disk_write_and_verify(struct scsi_unit *unit, struct scsi_request *req)
{
	req->disk.flags = DISK_FUA;
	transfer(unit, req, DISK_WRITE);
}

static void disk_verify(struct scsi_unit *unit, struct scsi_request *req)
{
	struct scsi_range at;

	if (req->cdb[1] & 0xe6) { /* protection, or a comparison with data of the guest's */
		scsi_fail(req, SENSE_INVALID_FIELD);
		return;
	}
	if (scsi_range_decode(unit, req, &at))
		scsi_good(req, 0);
}

static void disk_synchronize_cache(struct scsi_unit *unit, struct scsi_request *req)
{
	if (unit->disk->geometry.read_only) {
		scsi_good(req, 0);
		return;
	}
	req->disk.op = DISK_FLUSH;
	req->disk.offset = req->disk.length = 0;
	req->disk.iov = NULL;
	req->disk.iovcnt = 0;
	scsi_submit(req, on_transfer);
}

static void disk_start_stop(struct scsi_unit *unit, struct scsi_request *req)
{
	(void)unit;
	if (req->cdb[4] & 0x02) /* load or eject */
		scsi_fail(req, SENSE_INVALID_FIELD);
	else
		scsi_good(req, 0);
}

/* --- capacity --- */

static uint8_t physical_exponent(const struct scsi_unit *unit)
{
	const struct disk_geometry *g = &unit->disk->geometry;

	if (g->physical_sector <= unit->block_size)
		return 0;
	return (uint8_t)(ffs((int)(g->physical_sector / unit->block_size)) - 1);
}

void scsi_read_capacity_10(struct scsi_unit *unit, struct scsi_request *req)
{
	uint8_t data[8];
	struct writer w = writer_of(data, sizeof(data));

	/* All ones: too large for this command, ask with READ CAPACITY (16). */
	writer_be32(&w, (uint32_t)MIN(scsi_unit_blocks(unit) - 1, UINT32_MAX));
	writer_be32(&w, unit->block_size);
	scsi_reply(req, &w, sizeof(data));
}

static void disk_read_capacity_16(struct scsi_unit *unit, struct scsi_request *req)
{
	uint8_t data[32];
	struct writer w = writer_of(data, sizeof(data));

	writer_be64(&w, scsi_unit_blocks(unit) - 1);
	writer_be32(&w, unit->block_size);
	writer_u8(&w, 0);
	writer_u8(&w, physical_exponent(unit));
	/* LBPME and LBPRZ: what was given back reads as zeros, what was kept reads as it was. */
	writer_be16(&w, scsi_unit_thin(unit) ? 0xc000 : 0);
	writer_zero(&w, sizeof(data) - w.at);
	scsi_reply(req, &w, scsi_cdb_be(req, 10, 4));
}

/* --- vital product data --- */

static void vpd_block_limits(const struct scsi_unit *unit, struct writer *w)
{
	const struct disk_geometry *g = &unit->disk->geometry;
	uint32_t granularity =
		scsi_unit_thin(unit) ? MAX(g->trim_granularity / unit->block_size, 1) : 0;
	size_t end = w->at + 0x3c;

	writer_u8(w, 0x01); /* WSNZ: no WRITE SAME "to the end" */
	writer_u8(w, 0);
	writer_be16(w, (uint16_t)BIT(physical_exponent(unit)));
	writer_be32(w, unit->max_transfer / unit->block_size);
	writer_be32(w, 0);
	writer_be32(w, 0);
	writer_be32(w, granularity ? (uint32_t)(SCSI_MAX_UNMAP_BYTES / unit->block_size) : 0);
	writer_be32(w, granularity ? SCSI_MAX_UNMAP_EXTENTS : 0);
	writer_be32(w, granularity);
	writer_be32(w, granularity ? UINT32_C(0x80000000) : 0); /* aligned to LBA 0 */
	writer_be64(w, SCSI_MAX_SAME_BYTES / unit->block_size);
	writer_zero(w, end - w->at);
}

static bool disk_vpd(const struct scsi_unit *unit, uint8_t page, struct writer *w)
{
	switch (page) {
	case SCSI_VPD_BLOCK_LIMITS:
		vpd_block_limits(unit, w);
		return true;
	case SCSI_VPD_CHARACTERISTICS:
		writer_be16(w, 1); /* does not rotate */
		writer_zero(w, 0x3a);
		return true;
	case SCSI_VPD_PROVISIONING:
		writer_u8(w, 0);
		/* UNMAP, WRITE SAME 16 and 10 with UNMAP, LBPRZ; thin. */
		writer_u8(w, scsi_unit_thin(unit) ? 0xe4 : 0);
		writer_u8(w, scsi_unit_thin(unit) ? 0x02 : 0);
		writer_u8(w, 0);
		return true;
	default:
		return false;
	}
}

/* --- mode pages --- */

static void disk_mode_page(const struct scsi_unit *unit, uint8_t page, bool changeable,
			   struct writer *w)
{
	static const uint8_t control[10] = { 0, 0x10 }; /* commands may be reordered */

	if (page == SCSI_MODE_CACHING) {
		writer_u8(w, page);
		writer_u8(w, 0x12);
		writer_u8(w, changeable || unit->write_cache ? 0x04 : 0);
		writer_zero(w, 0x11);
	} else {
		writer_u8(w, page);
		writer_u8(w, sizeof(control));
		if (changeable)
			writer_zero(w, sizeof(control));
		else
			writer_put(w, control, sizeof(control));
	}
}

static const uint8_t disk_mode_pages[] = { SCSI_MODE_CACHING, SCSI_MODE_CONTROL };
static const uint8_t disk_vpd_pages[] = {
	SCSI_VPD_SUPPORTED,    SCSI_VPD_SERIAL_NUMBER,   SCSI_VPD_IDENTIFICATION,
	SCSI_VPD_BLOCK_LIMITS, SCSI_VPD_CHARACTERISTICS, SCSI_VPD_PROVISIONING,
};

/* clang-format off: one command a line; the busiest come first */
#define M SCSI_CMD_MEDIUM
#define R (SCSI_CMD_MEDIUM | SCSI_CMD_READS)
#define W (SCSI_CMD_MEDIUM | SCSI_CMD_WRITES | SCSI_CMD_ALTERS)
#define C(op, size, flags, fn)                                                                     \
	{                                                                                          \
		SCSI_##op, size, flags, 0, #op, fn                                                 \
	}
static const struct scsi_command disk_commands[] = {
	C(READ_10, 10, R, scsi_read),
	C(WRITE_10, 10, W, disk_write),
	C(READ_16, 16, R, scsi_read),
	C(WRITE_16, 16, W, disk_write),
	C(SYNCHRONIZE_CACHE_10, 10, M | SCSI_CMD_ALTERS, disk_synchronize_cache),
	C(SYNCHRONIZE_CACHE_16, 16, M | SCSI_CMD_ALTERS, disk_synchronize_cache),
	C(UNMAP, 10, W, scsi_unmap),
	C(WRITE_SAME_10, 10, W, scsi_write_same),
	C(WRITE_SAME_16, 16, W, scsi_write_same),
	C(READ_6, 6, R, scsi_read),
	C(WRITE_6, 6, W, disk_write),
	C(READ_12, 12, R, scsi_read),
	C(WRITE_12, 12, W, disk_write),
	C(WRITE_AND_VERIFY_10, 10, W, disk_write_and_verify),
	C(WRITE_AND_VERIFY_12, 12, W, disk_write_and_verify),
	C(WRITE_AND_VERIFY_16, 16, W, disk_write_and_verify),
	C(VERIFY_10, 10, R, disk_verify),
	C(VERIFY_12, 12, R, disk_verify),
	C(VERIFY_16, 16, R, disk_verify),
	C(TEST_UNIT_READY, 6, M, scsi_test_unit_ready),
	C(INQUIRY, 6, SCSI_CMD_EXEMPT, scsi_inquiry),
	C(REQUEST_SENSE, 6, SCSI_CMD_EXEMPT, scsi_request_sense),
	C(READ_CAPACITY_10, 10, M, scsi_read_capacity_10),
	{ SCSI_SERVICE_ACTION_IN_16, 16, M | SCSI_CMD_ACTION, SCSI_SA_READ_CAPACITY_16,
	  "READ_CAPACITY_16", disk_read_capacity_16 },
	C(MODE_SENSE_6, 6, SCSI_CMD_READS, scsi_mode_sense),
	C(MODE_SENSE_10, 10, SCSI_CMD_READS, scsi_mode_sense),
	C(MODE_SELECT_6, 6, SCSI_CMD_ALTERS, scsi_mode_select),
	C(MODE_SELECT_10, 10, SCSI_CMD_ALTERS, scsi_mode_select),
	C(START_STOP_UNIT, 6, SCSI_CMD_ALTERS, disk_start_stop),
	C(PERSISTENT_RESERVE_IN, 10, SCSI_CMD_SHARED, scsi_persistent_reserve_in),
	C(PERSISTENT_RESERVE_OUT, 10, SCSI_CMD_SHARED, scsi_persistent_reserve_out),
};
#undef M
#undef R
#undef W
#undef C
/* clang-format on */

const struct scsi_unit_type scsi_disk_type = {
	.product = "Virtual Disk    ",
	.device_type = SCSI_TYPE_DISK,
	.commands = disk_commands,
	.command_count = ARRAY_SIZE(disk_commands),
	.vpd = disk_vpd,
	.vpd_pages = disk_vpd_pages,
	.vpd_page_count = ARRAY_SIZE(disk_vpd_pages),
	.mode_page = disk_mode_page,
	.mode_pages = disk_mode_pages,
	.mode_page_count = ARRAY_SIZE(disk_mode_pages),
};
