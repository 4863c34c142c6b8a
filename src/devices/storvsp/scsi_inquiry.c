// SPDX-License-Identifier: MIT
/*
 * INQUIRY: who a unit says it is. Names, identifiers and their order are those a Hyper-V host
 * shows, so that a guest moved from one keeps its /dev/disk/by-id names and its Windows disk
 * signatures' companions. SPC-3 6.4 (command), 7.6 (vital product data), SBC-3 6.5 (pages of
 * disks).
 */
#include "devices/storvsp/scsi_unit.h"

#define VENDOR   "Msft    "
#define REVISION "1.0 "

/* The sixteen bytes of an NAA 6 name: Microsoft's company id 00-22-48, then parts of the GUID. */
static void naa_write(struct writer *w, const struct guid *id)
{
	writer_u8(w, 0x60);
	writer_be16(w, 0x0224);
	writer_u8(w, 0x80);
	/* The ends of a random GUID; its middle holds the constant version and variant bits. */
	writer_put(w, id->b, 6);
	writer_put(w, id->b + 10, 6);
}

static void vpd_identification(const struct scsi_unit *unit, struct writer *w)
{
	/* T10 vendor identification: binary code set, the vendor and the whole GUID. */
	writer_u8(w, 0x01);
	writer_u8(w, 0x01);
	writer_u8(w, 0);
	writer_u8(w, 8 + sizeof(unit->id.b));
	writer_put(w, VENDOR, 8);
	writer_put(w, unit->id.b, sizeof(unit->id.b));
	/* NAA: what Linux prefers for names. */
	writer_u8(w, 0x01);
	writer_u8(w, 0x03);
	writer_u8(w, 0);
	writer_u8(w, 16);
	naa_write(w, &unit->id);
}

static void vpd_serial_number(const struct scsi_unit *unit, struct writer *w)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < sizeof(unit->id.b); i++) {
		writer_u8(w, (uint8_t)digits[unit->id.b[i] >> 4]);
		writer_u8(w, (uint8_t)digits[unit->id.b[i] & 15]);
	}
}

static bool vpd_page(const struct scsi_unit *unit, uint8_t page, struct writer *w)
{
	switch (page) {
	case SCSI_VPD_SUPPORTED:
		writer_put(w, unit->type->vpd_pages, unit->type->vpd_page_count);
		return true;
	case SCSI_VPD_SERIAL_NUMBER:
		vpd_serial_number(unit, w);
		return true;
	case SCSI_VPD_IDENTIFICATION:
		vpd_identification(unit, w);
		return true;
	default:
		return unit->type->vpd && unit->type->vpd(unit, page, w);
	}
}

static void inquiry_vpd(struct scsi_unit *unit, struct scsi_request *req)
{
	uint8_t data[256];
	struct writer w = writer_of(data, sizeof(data));

	writer_u8(&w, unit->type->device_type);
	writer_u8(&w, req->cdb[2]);
	writer_be16(&w, 0); /* the length, known below */
	if (!vpd_page(unit, req->cdb[2], &w)) {
		scsi_fail(req, SENSE_INVALID_FIELD);
		return;
	}
	data[3] = (uint8_t)(w.at - 4);
	scsi_reply(req, &w, scsi_cdb_be(req, 3, 2));
}

static void standard_write(struct writer *w, uint8_t device_type, bool removable,
			   const char *product)
{
	writer_u8(w, device_type);
	writer_u8(w, removable ? 0x80 : 0);
	writer_u8(w, SCSI_VERSION_SPC3);
	writer_u8(w, 0x02); /* response data format */
	writer_u8(w, SCSI_INQUIRY_DATA_SIZE - 5);
	writer_be16(w, 0);
	writer_u8(w, 0x02); /* CMDQUE */
	writer_put(w, VENDOR, 8);
	writer_put(w, product, 16);
	writer_put(w, REVISION, 4);
	writer_zero(w, SCSI_INQUIRY_DATA_SIZE - w->at);
}

void scsi_inquiry(struct scsi_unit *unit, struct scsi_request *req)
{
	uint8_t data[SCSI_INQUIRY_DATA_SIZE];
	struct writer w = writer_of(data, sizeof(data));

	if (req->cdb[1] & 0x01) {
		inquiry_vpd(unit, req);
		return;
	}
	if (req->cdb[1] || req->cdb[2]) { /* a page without EVPD, or the obsolete CMDDT */
		scsi_fail(req, SENSE_INVALID_FIELD);
		return;
	}
	standard_write(&w, unit->type->device_type, unit->type->removable, unit->type->product);
	scsi_reply(req, &w, scsi_cdb_be(req, 3, 2));
}

/*
 * Linux takes any answer to INQUIRY on this transport for success, so where no unit is the answer
 * must say so in its data.
 */
void scsi_inquiry_absent(struct scsi_request *req)
{
	uint8_t data[SCSI_INQUIRY_DATA_SIZE];
	struct writer w = writer_of(data, sizeof(data));

	if (req->cdb_size < 6 || req->cdb[1] || req->cdb[2]) {
		scsi_fail(req, SENSE_INVALID_FIELD);
		return;
	}
	standard_write(&w, SCSI_TYPE_ABSENT, false, "Virtual Disk    ");
	scsi_reply(req, &w, scsi_cdb_be(req, 3, 2));
}
