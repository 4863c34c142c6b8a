// SPDX-License-Identifier: MIT
/*
 * MODE SENSE and MODE SELECT, 6 and 10: header, block descriptor, pages. The pages themselves are
 * the unit types'. The only thing a guest can alter is the write cache (WCE): off, every write is
 * made durable before it completes. A page comes with a mask of what is changeable; a MODE SELECT
 * that alters anything else is refused. SPC-3 6.7 to 6.10 and 7.4, SBC-3 6.4.5.
 */
#include "devices/storvsp/scsi_unit.h"

#define PAGE_MAX      64
#define CACHING_WCE   0x04
#define PARAMETER_MAX 256

enum page_control {
	PC_CURRENT,
	PC_CHANGEABLE,
	PC_DEFAULT,
	PC_SAVED,
};

static bool mode_page_known(const struct scsi_unit_type *type, uint8_t page)
{
	for (size_t i = 0; i < type->mode_page_count; i++)
		if (type->mode_pages[i] == page)
			return true;
	return false;
}

static void mode_page_write(const struct scsi_unit *unit, uint8_t page, enum page_control pc,
			    struct writer *w)
{
	size_t start = w->at;

	unit->type->mode_page(unit, page, pc == PC_CHANGEABLE, w);
	if (pc == PC_DEFAULT && page == SCSI_MODE_CACHING)
		w->data[start + 2] |= CACHING_WCE;
}

static void mode_pages_write(const struct scsi_unit *unit, const struct scsi_request *req,
			     struct writer *w)
{
	enum page_control pc = req->cdb[2] >> 6;
	uint8_t page = req->cdb[2] & 0x3f;

	if (page != SCSI_MODE_ALL) {
		mode_page_write(unit, page, pc, w);
		return;
	}
	for (size_t i = 0; i < unit->type->mode_page_count; i++)
		mode_page_write(unit, unit->type->mode_pages[i], pc, w);
}

/* The short form (SBC-3 6.4.2); a larger disk says "see READ CAPACITY" with all ones. */
static void block_descriptor_write(const struct scsi_unit *unit, struct writer *w)
{
	uint64_t blocks = scsi_unit_has_medium(unit) ? scsi_unit_blocks(unit) : 0;

	writer_be32(w, (uint32_t)MIN(blocks, UINT32_MAX));
	writer_be32(w, unit->block_size); /* the top byte is reserved */
}

static uint8_t device_specific(const struct scsi_unit *unit)
{
	bool protect = unit->disk && unit->disk->geometry.read_only;

	if (unit->type->device_type != SCSI_TYPE_DISK)
		return 0;
	return (uint8_t)((protect ? 0x80 : 0) | 0x10); /* WP, and DPO and FUA are understood */
}

static struct scsi_sense mode_sense_check(const struct scsi_unit *unit,
					  const struct scsi_request *req)
{
	uint8_t page = req->cdb[2] & 0x3f, sub = req->cdb[3];

	if (req->cdb[2] >> 6 == PC_SAVED)
		return SENSE_SAVING_UNSUPPORTED;
	if (sub && !(sub == 0xff && page == SCSI_MODE_ALL))
		return SENSE_INVALID_FIELD;
	if (page != SCSI_MODE_ALL && !mode_page_known(unit->type, page))
		return SENSE_INVALID_FIELD;
	return SENSE_NONE;
}

void scsi_mode_sense(struct scsi_unit *unit, struct scsi_request *req)
{
	bool ten = req->cdb[0] == SCSI_MODE_SENSE_10;
	bool descriptor = !(req->cdb[1] & 0x08) && unit->type->device_type == SCSI_TYPE_DISK;
	struct scsi_sense s = mode_sense_check(unit, req);
	uint8_t data[SCSI_MAX_REPLY];
	struct writer w = writer_of(data, sizeof(data));

	if (s.key) {
		scsi_fail(req, s);
		return;
	}
	writer_zero(&w, ten ? 8 : 4);
	if (descriptor)
		block_descriptor_write(unit, &w);
	mode_pages_write(unit, req, &w);
	if (ten) {
		data[0] = (uint8_t)((w.at - 2) >> 8);
		data[1] = (uint8_t)(w.at - 2);
		data[3] = device_specific(unit);
		data[7] = descriptor ? 8 : 0;
	} else {
		data[0] = (uint8_t)(w.at - 1);
		data[2] = device_specific(unit);
		data[3] = descriptor ? 8 : 0;
	}
	scsi_reply(req, &w, ten ? scsi_cdb_be(req, 7, 2) : req->cdb[4]);
}

/* Whether a page as sent differs from the one at hand only where that is allowed. */
static bool mode_page_acceptable(const struct scsi_unit *unit, const uint8_t *sent, size_t size)
{
	uint8_t now[PAGE_MAX], mask[PAGE_MAX];
	struct writer wn = writer_of(now, sizeof(now)), wm = writer_of(mask, sizeof(mask));
	uint8_t page = sent[0];

	if (!mode_page_known(unit->type, page))
		return false;
	unit->type->mode_page(unit, page, false, &wn);
	unit->type->mode_page(unit, page, true, &wm);
	if (wn.at != size || sent[1] != now[1])
		return false;
	for (size_t i = 2; i < size; i++)
		if ((sent[i] ^ now[i]) & ~mask[i])
			return false;
	return true;
}

/* Walks the pages of a parameter list; *ret_cache is what the last caching page wants. */
static bool mode_pages_decode(const struct scsi_unit *unit, struct reader *r, bool *ret_cache)
{
	while (reader_left(r)) {
		struct reader peek = *r;
		const uint8_t *page;
		size_t size;

		reader_skip(&peek, 1);
		size = 2 + (size_t)reader_u8(&peek);
		page = reader_ok(&peek) ? reader_take(r, size) : NULL;
		if (!page || !mode_page_acceptable(unit, page, size))
			return false;
		if (page[0] == SCSI_MODE_CACHING)
			*ret_cache = page[2] & CACHING_WCE;
	}
	return reader_ok(r);
}

void scsi_mode_select(struct scsi_unit *unit, struct scsi_request *req)
{
	bool ten = req->cdb[0] == SCSI_MODE_SELECT_10;
	size_t size = ten ? scsi_cdb_be(req, 7, 2) : req->cdb[4];
	uint8_t list[PARAMETER_MAX];
	struct reader r = reader_of(list, size);
	bool cache = unit->write_cache;
	size_t descriptors;

	if ((req->cdb[1] & 0x11) != 0x10) { /* pages in our format, nothing saved */
		scsi_fail(req, SENSE_INVALID_FIELD);
		return;
	}
	if (size > sizeof(list) || (size && size < (ten ? 8u : 4u))) {
		scsi_fail(req, SENSE_PARAMETER_LIST_LENGTH);
		return;
	}
	if (!scsi_parameters(req, list, size))
		return;
	if (size) {
		reader_skip(&r, ten ? 6 : 3);
		descriptors = ten ? reader_be16(&r) : reader_u8(&r);
		reader_skip(&r, descriptors); /* a new block size cannot be had anyway */
		if (!mode_pages_decode(unit, &r, &cache)) {
			scsi_fail(req, SENSE_INVALID_PARAMETER);
			return;
		}
	}
	unit->write_cache = cache;
	scsi_good(req, (uint32_t)size);
}
