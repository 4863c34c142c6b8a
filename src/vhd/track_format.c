// SPDX-License-Identifier: MIT
/* See track_format.h and docs/track-format.md, which has the layouts as tables. */
#include "vhd/track_format.h"

#include "lib/crc32c.h"
#include "lib/cursor.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define SLOT_SIGNATURE UINT64_C(0x746f6c736b727470) /* "ptrkslot" */
#define SLOT_VERSION   1u
#define SUM_AT         8u
#define POINTS_AT      256u
#define COARSE_AT      1280u
#define PAGE_HEAD      16u

_Static_assert(POINTS_AT + TRACK_POINTS_MAX * 32 == COARSE_AT, "points end where regions begin");
_Static_assert(PAGE_HEAD + TRACK_PER_PAGE * 2 == TRACK_PAGE_SIZE, "a page is full");

/* --- slots --- */

static uint32_t slot_sum(const uint8_t *bytes)
{
	static const uint8_t none[4];
	uint32_t sum = crc32c(crc32c(0, bytes, SUM_AT), none, sizeof(none));

	return crc32c(sum, bytes + SUM_AT + 4, TRACK_SLOT_SIZE - SUM_AT - 4);
}

static void head_encode(const struct track_slot *s, struct writer *w)
{
	writer_le64(w, SLOT_SIGNATURE);
	writer_le32(w, 0);
	writer_le32(w, SLOT_VERSION);
	writer_le64(w, s->sequence);
	writer_put(w, &s->id, 16);
	writer_le64(w, s->size);
	writer_u8(w, (uint8_t)s->shift);
	writer_u8(w, s->in_use);
	writer_le16(w, s->generation);
	writer_le16(w, (uint16_t)s->count);
	writer_le16(w, 0);
	writer_le64(w, s->tie.inode);
	writer_le64(w, s->tie.size);
	writer_le64(w, s->tie.modified);
	writer_le64(w, s->tie.changed);
	writer_put(w, &s->identity, 16);
	writer_put(w, &s->next, 16);
	writer_le64(w, s->lease);
}

void track_slot_encode(const struct track_slot *s, uint8_t bytes[static TRACK_SLOT_SIZE])
{
	struct writer w = writer_of(bytes, TRACK_SLOT_SIZE);
	le32 sum;

	head_encode(s, &w);
	writer_zero(&w, POINTS_AT - w.at);
	for (unsigned i = 0; i < s->count; i++) {
		writer_put(&w, &s->points[i].id, 16);
		writer_le64(&w, s->points[i].time);
		writer_le16(&w, s->points[i].generation);
		writer_u8(&w, (uint8_t)s->points[i].lost);
		writer_zero(&w, 5);
	}
	writer_zero(&w, COARSE_AT - w.at);
	writer_put(&w, s->coarse, sizeof(s->coarse));
	writer_zero(&w, TRACK_SLOT_SIZE - w.at);
	assert(writer_ok(&w));
	sum = le32_of(slot_sum(bytes));
	memcpy(bytes + SUM_AT, &sum, 4);
}

static void head_decode(struct reader *r, struct track_slot *s)
{
	s->sequence = reader_le64(r);
	reader_copy(r, &s->id, 16);
	s->size = reader_le64(r);
	s->shift = reader_u8(r);
	s->in_use = reader_u8(r) != 0;
	s->generation = reader_le16(r);
	s->count = reader_le16(r);
	reader_skip(r, 2);
	s->tie.inode = reader_le64(r);
	s->tie.size = reader_le64(r);
	s->tie.modified = reader_le64(r);
	s->tie.changed = reader_le64(r);
	reader_copy(r, &s->identity, 16);
	reader_copy(r, &s->next, 16);
	s->lease = reader_le64(r);
}

static bool point_valid(const struct track_slot *s, const struct track_point *p)
{
	return !guid_is_zero(&p->id) && p->generation && p->generation <= s->generation &&
	       p->lost < TRACK_LOST_REASONS;
}

static bool head_valid(const struct track_slot *s)
{
	return s->size && s->size <= INT64_MAX && s->shift >= TRACK_SHIFT_MIN &&
	       s->shift <= TRACK_SHIFT_MAX &&
	       track_granules(s->size, s->shift) <= TRACK_GRANULES_MAX && s->generation &&
	       s->sequence < UINT64_MAX && s->count <= TRACK_POINTS_MAX;
}

int track_slot_decode(const uint8_t bytes[static TRACK_SLOT_SIZE], struct track_slot *ret)
{
	struct reader r = reader_of(bytes, TRACK_SLOT_SIZE);
	struct track_slot s = { 0 };
	uint32_t version;

	if (reader_le64(&r) != SLOT_SIGNATURE)
		return -EINVAL;
	if (reader_le32(&r) != slot_sum(bytes))
		return -EBADMSG;
	version = reader_le32(&r);
	if (version != SLOT_VERSION)
		return version > SLOT_VERSION ? -ENOTSUP : -EBADMSG;
	head_decode(&r, &s);
	if (!head_valid(&s))
		return -EBADMSG;
	reader_seek(&r, POINTS_AT);
	for (unsigned i = 0; i < s.count; i++) {
		reader_copy(&r, &s.points[i].id, 16);
		s.points[i].time = reader_le64(&r);
		s.points[i].generation = reader_le16(&r);
		s.points[i].lost = reader_u8(&r);
		reader_skip(&r, 5);
		if (!point_valid(&s, &s.points[i]))
			return -EBADMSG;
	}
	reader_seek(&r, COARSE_AT);
	reader_copy(&r, s.coarse, sizeof(s.coarse));
	if (!reader_ok(&r))
		return -EBADMSG;
	*ret = s;
	return 0;
}

/* --- pages --- */

/* The file's id and the page's number are part of the sum: a page of elsewhere is not valid. */
static uint32_t page_sum(const struct guid *id, const uint8_t *bytes)
{
	return crc32c(crc32c(0, id, sizeof(*id)), bytes + 4, TRACK_PAGE_SIZE - 4);
}

void track_page_encode(const struct guid *id, uint64_t number, const uint16_t *entries,
		       uint8_t bytes[static TRACK_PAGE_SIZE])
{
	struct writer w = writer_of(bytes, TRACK_PAGE_SIZE);
	le32 sum;

	writer_zero(&w, 8);
	writer_le64(&w, number);
	for (unsigned i = 0; i < TRACK_PER_PAGE; i++)
		writer_le16(&w, entries[i]);
	assert(writer_ok(&w));
	sum = le32_of(page_sum(id, bytes));
	memcpy(bytes, &sum, 4);
}

bool track_page_decode(const struct guid *id, uint64_t number,
		       const uint8_t bytes[static TRACK_PAGE_SIZE], uint16_t *entries)
{
	struct reader r = reader_of(bytes, TRACK_PAGE_SIZE);
	bool valid = reader_le32(&r) == page_sum(id, bytes);

	reader_skip(&r, 4);
	if (reader_le64(&r) != number || !valid)
		return false;
	for (unsigned i = 0; i < TRACK_PER_PAGE; i++)
		entries[i] = reader_le16(&r);
	return reader_ok(&r);
}
