// SPDX-License-Identifier: MIT
/*
 * A DVD drive with a tray, holding an ISO image or nothing: one session, one data track, 2048-byte
 * blocks over the disk layer, read-only. A disc that the guest ejected stays in the open tray until
 * the guest closes it. Runs on the event loop's thread. MMC-5 4.2 (events), 5.3 (features), 6
 * (commands), 7.11 (capabilities page).
 */
#include "devices/storvsp/scsi_unit.h"

#define BLOCK_SIZE    2048
#define CD_MAX_BLOCKS 405000 /* 90 minutes: the largest disc that can pass as a CD */
#define MSF_PREGAP    150
#define LEAD_OUT      0xAA

enum {
	PROFILE_NONE = 0x00,
	PROFILE_CD_ROM = 0x08,
	PROFILE_DVD_ROM = 0x10,
};

enum {
	MEDIA_CLASS = 4,
	MEDIA_NO_CHANGE = 0,
	MEDIA_NEW = 2,
	MEDIA_REMOVED = 3,
};

/* --- tray --- */

static void dvd_prevent_removal(struct scsi_unit *unit, struct scsi_request *req)
{
	unit->removal_prevented = req->cdb[4] & 0x01;
	scsi_good(req, 0);
}

static void dvd_start_stop(struct scsi_unit *unit, struct scsi_request *req)
{
	bool start = req->cdb[4] & 0x01, load_eject = req->cdb[4] & 0x02;

	if (load_eject && !start) {
		if (unit->removal_prevented) {
			scsi_fail(req, SENSE_REMOVAL_PREVENTED);
			return;
		}
		if (scsi_unit_has_medium(unit))
			unit->media_event = MEDIA_REMOVED;
		unit->tray_open = true;
	} else if (load_eject && unit->tray_open) {
		unit->tray_open = false;
		scsi_dvd_loaded(unit, false);
	}
	scsi_good(req, 0);
}

void scsi_dvd_loaded(struct scsi_unit *unit, bool had_medium)
{
	if (unit->disk) {
		unit->media_event = MEDIA_NEW;
		unit->attention = SENSE_MEDIUM_CHANGED;
	} else if (had_medium) {
		unit->media_event = MEDIA_REMOVED;
	}
}

static void dvd_event_status(struct scsi_unit *unit, struct scsi_request *req)
{
	bool wanted = req->cdb[4] & BIT(MEDIA_CLASS);
	uint8_t data[8];
	struct writer w = writer_of(data, sizeof(data));

	if (!(req->cdb[1] & 0x01)) { /* to wait for an event is not supported */
		scsi_fail(req, SENSE_INVALID_FIELD);
		return;
	}
	writer_be16(&w, wanted ? 6 : 2);
	writer_u8(&w, wanted ? MEDIA_CLASS : 0x80); /* 0x80: none of those classes */
	writer_u8(&w, BIT(MEDIA_CLASS));
	if (wanted) {
		writer_u8(&w, unit->media_event);
		writer_u8(&w, (uint8_t)((unit->tray_open ? 0x01 : 0) |
					(scsi_unit_has_medium(unit) ? 0x02 : 0)));
		writer_be16(&w, 0);
		unit->media_event = MEDIA_NO_CHANGE;
	}
	scsi_reply(req, &w, scsi_cdb_be(req, 7, 2));
}

static void dvd_mechanism_status(struct scsi_unit *unit, struct scsi_request *req)
{
	uint8_t data[8] = { 0, unit->tray_open ? 0x10 : 0 };
	struct writer w = { .data = data, .size = sizeof(data), .at = sizeof(data) };

	scsi_reply(req, &w, scsi_cdb_be(req, 8, 2));
}

/* --- features --- */

static uint16_t dvd_profile(const struct scsi_unit *unit)
{
	if (!scsi_unit_has_medium(unit))
		return PROFILE_NONE;
	return scsi_unit_blocks(unit) <= CD_MAX_BLOCKS ? PROFILE_CD_ROM : PROFILE_DVD_ROM;
}

enum feature_kind {
	FEATURE_PERSISTENT = 0x02, /* there with or without a disc */
};

static void feature_header(struct writer *w, uint16_t code, uint8_t flags, uint8_t size)
{
	writer_be16(w, code);
	writer_u8(w, flags);
	writer_u8(w, size);
}

static void feature_profile_list(const struct scsi_unit *unit, struct writer *w)
{
	uint16_t now = dvd_profile(unit);

	feature_header(w, 0x0000, FEATURE_PERSISTENT | 1, 8);
	writer_be16(w, PROFILE_DVD_ROM);
	writer_be16(w, now == PROFILE_DVD_ROM ? 0x100 : 0);
	writer_be16(w, PROFILE_CD_ROM);
	writer_be16(w, now == PROFILE_CD_ROM ? 0x100 : 0);
}

static void feature_core(const struct scsi_unit *unit, struct writer *w)
{
	(void)unit;
	feature_header(w, 0x0001, 0x08 | FEATURE_PERSISTENT | 1, 8);
	writer_be32(w, 1); /* physical interface: SCSI */
	writer_be32(w, 0);
}

static void feature_morphing(const struct scsi_unit *unit, struct writer *w)
{
	(void)unit;
	feature_header(w, 0x0002, 0x04 | FEATURE_PERSISTENT | 1, 4);
	writer_be32(w, 0);
}

static void feature_removable(const struct scsi_unit *unit, struct writer *w)
{
	(void)unit;
	feature_header(w, 0x0003, FEATURE_PERSISTENT | 1, 4);
	writer_be32(w, UINT32_C(0x29000000)); /* tray, can eject, can lock */
}

static void feature_random_readable(const struct scsi_unit *unit, struct writer *w)
{
	feature_header(w, 0x0010, scsi_unit_has_medium(unit) ? 1 : 0, 8);
	writer_be32(w, BLOCK_SIZE);
	writer_be16(w, 1);
	writer_be16(w, 0);
}

static void feature_cd_read(const struct scsi_unit *unit, struct writer *w)
{
	feature_header(w, 0x001E, 0x08 | (dvd_profile(unit) == PROFILE_CD_ROM), 4);
	writer_be32(w, 0);
}

static void feature_dvd_read(const struct scsi_unit *unit, struct writer *w)
{
	feature_header(w, 0x001F, dvd_profile(unit) == PROFILE_DVD_ROM, 0);
}

static const struct {
	uint16_t code;
	void (*write)(const struct scsi_unit *unit, struct writer *w);
} features[] = {
	{ 0x0000, feature_profile_list },    { 0x0001, feature_core },
	{ 0x0002, feature_morphing },        { 0x0003, feature_removable },
	{ 0x0010, feature_random_readable }, { 0x001E, feature_cd_read },
	{ 0x001F, feature_dvd_read },
};

/* Appends the feature unless only current ones are asked for and it is not. */
static void feature_append(const struct scsi_unit *unit, size_t index, bool current_only,
			   struct writer *w)
{
	size_t start = w->at;

	features[index].write(unit, w);
	if (current_only && !(w->data[start + 2] & 1))
		w->at = start;
}

static void dvd_get_configuration(struct scsi_unit *unit, struct scsi_request *req)
{
	unsigned which = req->cdb[1] & 0x03; /* 0 all, 1 current ones, 2 exactly one */
	uint64_t first = scsi_cdb_be(req, 2, 2);
	uint8_t data[256];
	struct writer w = writer_of(data, sizeof(data));

	if (which == 3) {
		scsi_fail(req, SENSE_INVALID_FIELD);
		return;
	}
	writer_be32(&w, 0); /* the length, known below */
	writer_be16(&w, 0);
	writer_be16(&w, dvd_profile(unit));
	for (size_t i = 0; i < ARRAY_SIZE(features); i++)
		if (which == 2 ? features[i].code == first : features[i].code >= first)
			feature_append(unit, i, which == 1, &w);
	data[3] = (uint8_t)(w.at - 4);
	scsi_reply(req, &w, scsi_cdb_be(req, 7, 2));
}

/* --- the disc --- */

static void address_write(struct writer *w, uint64_t lba, bool msf)
{
	uint64_t frames = lba + MSF_PREGAP;

	if (!msf) {
		writer_be32(w, (uint32_t)MIN(lba, UINT32_MAX));
		return;
	}
	writer_u8(w, 0);
	writer_u8(w, (uint8_t)MIN(frames / (60 * 75), 255));
	writer_u8(w, (uint8_t)(frames / 75 % 60));
	writer_u8(w, (uint8_t)(frames % 75));
}

static void track_write(struct writer *w, uint8_t track, uint64_t lba, bool msf)
{
	writer_u8(w, 0);
	writer_u8(w, 0x14); /* position data; a data track */
	writer_u8(w, track);
	writer_u8(w, 0);
	address_write(w, lba, msf);
}

/* Formats 0 (tracks) and 1 (sessions); MMC-5 6.26. */
static void dvd_read_toc(struct scsi_unit *unit, struct scsi_request *req)
{
	bool msf = req->cdb[1] & 0x02;
	uint8_t first = req->cdb[6];
	/* Old drivers put the format into the control byte. */
	unsigned format = req->cdb[2] & 0x0f ? req->cdb[2] & 0x0f : req->cdb[9] >> 6;
	uint8_t data[20];
	struct writer w = writer_of(data, sizeof(data));

	if (format > 1 || (!format && first > 1 && first != LEAD_OUT)) {
		scsi_fail(req, SENSE_INVALID_FIELD);
		return;
	}
	writer_be16(&w, 0); /* the length, known below */
	writer_u8(&w, 1);
	writer_u8(&w, 1);
	if (format == 1 || first <= 1)
		track_write(&w, 1, 0, msf);
	if (format == 0)
		track_write(&w, LEAD_OUT, scsi_unit_blocks(unit), msf);
	data[1] = (uint8_t)(w.at - 2);
	scsi_reply(req, &w, scsi_cdb_be(req, 7, 2));
}

static void dvd_read_disc_information(struct scsi_unit *unit, struct scsi_request *req)
{
	uint8_t data[34];
	struct writer w = writer_of(data, sizeof(data));

	(void)unit;
	writer_be16(&w, sizeof(data) - 2);
	writer_u8(&w, 0x0e); /* complete disc, complete last session, not erasable */
	writer_u8(&w, 1);    /* first track, sessions, first and last track of the last session */
	writer_u8(&w, 1);
	writer_u8(&w, 1);
	writer_u8(&w, 1);
	writer_u8(&w, 0x20); /* unrestricted use */
	writer_zero(&w, 8);
	writer_be64(&w, UINT64_MAX); /* no lead-in to write to, no more lead-out */
	writer_zero(&w, sizeof(data) - w.at);
	scsi_reply(req, &w, scsi_cdb_be(req, 7, 2));
}

/* --- mode pages --- */

static void dvd_mode_page(const struct scsi_unit *unit, uint8_t page, bool changeable,
			  struct writer *w)
{
	uint8_t capabilities[20] = { [2] = 0x0b,              /* reads CD-R, CD-RW, DVD-ROM */
				     [4] = 0x30,              /* mode 2 forms 1 and 2 */
				     [6] = 0x29,              /* a tray that locks and ejects */
				     [8] = 0x2b,  [9] = 0x48, /* 64 times 176 kB/s */
				     [12] = 0x08, [14] = 0x2b, [15] = 0x48 };
	uint8_t recovery[12] = { 0 };

	if (page == SCSI_MODE_CAPABILITIES) {
		if (unit->removal_prevented)
			capabilities[6] |= 0x02;
		if (changeable)
			memset(capabilities, 0, sizeof(capabilities));
		capabilities[0] = page;
		capabilities[1] = sizeof(capabilities) - 2;
		writer_put(w, capabilities, sizeof(capabilities));
	} else {
		recovery[0] = page;
		recovery[1] = sizeof(recovery) - 2;
		writer_put(w, recovery, sizeof(recovery));
	}
}

static const uint8_t dvd_mode_pages[] = { SCSI_MODE_RECOVERY, SCSI_MODE_CAPABILITIES };
static const uint8_t dvd_vpd_pages[] = { SCSI_VPD_SUPPORTED, SCSI_VPD_SERIAL_NUMBER,
					 SCSI_VPD_IDENTIFICATION };

/* clang-format off: one command a line; the busiest come first */
#define M SCSI_CMD_MEDIUM
#define E SCSI_CMD_EXEMPT
#define C(op, size, flags, fn)                                                                     \
	{                                                                                          \
		SCSI_##op, size, flags, 0, #op, fn                                                 \
	}
static const struct scsi_command dvd_commands[] = {
	C(READ_10, 10, M, scsi_read),
	C(READ_12, 12, M, scsi_read),
	C(GET_EVENT_STATUS, 10, E, dvd_event_status),
	C(TEST_UNIT_READY, 6, M, scsi_test_unit_ready),
	C(INQUIRY, 6, E, scsi_inquiry),
	C(REQUEST_SENSE, 6, E, scsi_request_sense),
	C(READ_CAPACITY_10, 10, M, scsi_read_capacity_10),
	C(MODE_SENSE_6, 6, 0, scsi_mode_sense),
	C(MODE_SENSE_10, 10, 0, scsi_mode_sense),
	C(MODE_SELECT_6, 6, 0, scsi_mode_select),
	C(MODE_SELECT_10, 10, 0, scsi_mode_select),
	C(START_STOP_UNIT, 6, 0, dvd_start_stop),
	C(PREVENT_ALLOW_MEDIUM_REMOVAL, 6, 0, dvd_prevent_removal),
	C(READ_TOC, 10, M, dvd_read_toc),
	C(GET_CONFIGURATION, 10, E, dvd_get_configuration),
	C(READ_DISC_INFORMATION, 10, M, dvd_read_disc_information),
	C(MECHANISM_STATUS, 12, 0, dvd_mechanism_status),
};
#undef M
#undef E
#undef C
/* clang-format on */

const struct scsi_unit_type scsi_dvd_type = {
	.product = "Virtual DVD-ROM ",
	.device_type = SCSI_TYPE_DVD,
	.removable = true,
	.block_size = BLOCK_SIZE,
	.commands = dvd_commands,
	.command_count = ARRAY_SIZE(dvd_commands),
	.vpd_pages = dvd_vpd_pages,
	.vpd_page_count = ARRAY_SIZE(dvd_vpd_pages),
	.mode_page = dvd_mode_page,
	.mode_pages = dvd_mode_pages,
	.mode_page_count = ARRAY_SIZE(dvd_mode_pages),
};
